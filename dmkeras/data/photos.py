"""`photos`: the pictures that scikit-learn and scikit-image install with themselves, without labels.

    image   float32 [height, width, 3]   a grey picture has three equal channels; alpha is dropped
    name    string  []

Splits: train, validation and test are photographs, by the tables below; "all" has the drawings and the small ones too.
The option `names` picks from the split, in its own order. Nothing is downloaded: of scikit-image, which is optional,
those pictures are used that lie in its package. Order: the table's.
Sources: sklearn.datasets.load_sample_images; https://scikit-image.org/docs/stable/api/skimage.data.html
"""

import importlib.util
import logging
import pathlib

import tensorflow as tf

from dmkeras.data import files

SPLITS = {
    "train": (
        *("china.jpg", "astronaut.png", "brick.png", "camera.png", "cell.png", "clock_motion.png", "coins.png"),
        *("grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png"),
        *("page.png", "text.png"),
    ),
    "validation": ("chelsea.png", "retina.jpg"),
    "test": ("flower.jpg", "coffee.png", "rocket.jpg"),
}
OTHERS = (
    *("chessboard_RGB.png", "color.png", "horse.png", "logo.png", "microaneurysms.png"),
    *("motorcycle_right.png", "phantom.png"),
)
SPLITS["all"] = sum(SPLITS.values(), ()) + OTHERS
SKLEARN = ("china.jpg", "flower.jpg")


def load(split, *, data_dir=None, download=False, names=None):
    """The pictures of one split; `names`, such as ("coffee", "astronaut"), picks some. Their sizes differ.

    Raises ValueError for an unknown split or name; ModuleNotFoundError where all that is asked for lies in
    scikit-image, and that is not installed.
    """
    if split not in SPLITS:
        raise ValueError(f"photos has the splits {', '.join(SPLITS)}, not {split!r}")
    names = (names,) if isinstance(names, str) else names
    table = {pathlib.Path(file).stem: file for file in SPLITS[split]}
    unknown = sorted(set(names or ()) - set(table))
    if unknown:
        raise ValueError(f"photos has no {', '.join(unknown)} in the split {split!r}, but {', '.join(table)}")
    paths = {name: _path(table[name]) for name in (names or table)}
    missing = [name for name, path in paths.items() if path is None]
    if len(missing) == len(paths):
        raise ModuleNotFoundError(f"the photos {', '.join(missing)} are scikit-image's: pip install scikit-image")
    if missing:
        logging.getLogger("dmkeras.data").warning("photos without scikit-image lack %s", ", ".join(missing))
    paths = {name: path for name, path in paths.items() if path}
    titles, places = tf.constant(list(paths)), files.paths_tensor(paths.values())
    return files.dataset(len(paths), lambda i: {"image": files.picture(places[i]), "name": titles[i]})


def _path(file):
    package, folder = ("sklearn", "datasets/images") if file in SKLEARN else ("skimage", "data")
    spec = importlib.util.find_spec(package)
    path = spec and pathlib.Path(spec.origin).parent / folder / file
    return path if path and path.is_file() else None
