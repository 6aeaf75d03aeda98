"""`cifar10_excerpt:DIR`: some thousands of CIFAR-10's pictures in two public forms that need no archive of 170 MB.

    image   float32 [32, 32, 3]   value / 255
    label   int32   []            airplane automobile bird cat deer dog frog horse ship truck

    DIR/train/cifar10_batch_0.png ...   a picture a row, 1024 pixels wide, row-major: the sheets of
                                        https://github.com/karpathy/convnetjs, demo/cifar10, in CIFAR-10's order
    DIR/train/labels*.txt               one file, one digit for each picture, in their order
    DIR/test/input-test.png             tiles of 32x32, row-major, and its labels, a byte each, of
    DIR/test/labels-test.bin            https://github.com/distillpub/post--grand-tour, data/softmax/cifar10

The values of the tiles are one lower than the originals except where those are 0, and are read as value + 1 but for 0:
exact, save that an original 1 is read as 0. Splits: train, the first nine tenths of the sheets (3600 pictures of four
sheets of 1000), validation, their last tenth, and test. Source: A. Krizhevsky, Learning Multiple Layers of Features
from Tiny Images, 2009, https://www.cs.toronto.edu/~kriz/cifar.html
"""

import numpy as np

from dmkeras.data import files

SPLITS = ("train", "validation", "test")
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32


def load(place, split, *, data_dir=None, download=False):
    """The pictures of one split; `place` is looked for in `data_dir` when relative, `download` is not used.

    Raises FileNotFoundError without DIR or one of its files, ValueError for an unknown split, for sheets of another
    size and for labels that are not one for each picture.
    """
    import tensorflow as tf

    root = files.directory(place, data_dir)
    files.check_split(f"cifar10_excerpt:{place}", split, SPLITS)
    pictures, labels = _test(root / "test") if split == "test" else _train(root / "train")
    cut = len(pictures) - len(pictures) // 10
    rows = {"train": slice(cut), "validation": slice(cut, None), "test": slice(None)}[split]
    dataset = tf.data.Dataset.from_tensor_slices({"image": pictures[rows], "label": labels[rows]})
    return dataset.map(lambda record: {**record, "image": tf.cast(record["image"], tf.float32) / 255.0})


def class_names(place):
    return list(CLASSES)


def _train(folder):
    sheets = list(folder.glob("cifar10_batch_*.png"))
    if not sheets:
        raise FileNotFoundError(f"{files.shown(folder)} holds no sheet cifar10_batch_0.png, cifar10_batch_1.png, ...")
    texts = list(folder.glob("labels*.txt"))
    if len(texts) != 1:
        raise FileNotFoundError(f"{files.shown(folder)} holds {len(texts)} files labels*.txt, expected one")
    parts = []
    for sheet in sorted(sheets, key=lambda path: (len(path.name), path.name)):  # 10 after 9
        pixels = _pixels(sheet)
        if pixels.shape[1] != SIDE * SIDE:
            raise ValueError(_wrong(sheet, pixels, f"{SIDE * SIDE} pixels wide, a picture a row"))
        parts.append(pixels.reshape(-1, SIDE, SIDE, 3))
    return _checked(np.concatenate(parts), texts[0], [digit - ord("0") for digit in texts[0].read_bytes().strip()])


def _test(folder):
    sheet, labels = _existing(folder / "input-test.png"), _existing(folder / "labels-test.bin")
    pixels = _pixels(sheet)
    height, width, _ = pixels.shape
    if height % SIDE or width % SIDE or pixels.max() == 255:
        raise ValueError(_wrong(sheet, pixels, f"whole tiles of {SIDE}x{SIDE}, values lowered by one: at most 254"))
    tiles = pixels.reshape(height // SIDE, SIDE, width // SIDE, SIDE, 3).swapaxes(1, 2).reshape(-1, SIDE, SIDE, 3)
    return _checked(tiles + (tiles > 0), labels, list(labels.read_bytes()))


def _checked(pictures, path, labels):
    if len(labels) != len(pictures) or not set(labels) <= set(range(len(CLASSES))):
        raise ValueError(
            f"{files.shown(path)} holds {len(labels)} labels, expected one from 0 to 9 for each of the "
            f"{len(pictures)} pictures"
        )
    return pictures, np.array(labels, "int32")


def _existing(path):
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {files.shown(path)}")
    return path


def _pixels(path):
    """uint8 [height, width, 3] of a sheet. ValueError for what is no picture or not of three colours."""
    import PIL.Image

    try:
        with PIL.Image.open(path) as file:
            pixels = np.asarray(file)
    except Exception as error:  # Pillow's decoders raise nearly anything for a damaged file
        raise ValueError(f"{files.shown(path)} is truncated or damaged, or no picture") from error
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(_wrong(path, pixels, "three colours of 8 bits"))
    return pixels


def _wrong(path, pixels, expected):
    received = f"{pixels.dtype} {list(pixels.shape)} of values up to {pixels.max(initial=0)}"
    return f"{files.shown(path)} is a sheet {received}, expected {expected}"
