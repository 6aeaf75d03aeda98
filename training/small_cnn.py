"""Train the small classifier that explanations are tried on and generated pictures are judged by.

python -m training.small_cnn                        digits: no download
python -m training.small_cnn --data simple_shapes   three kinds of shapes, one a picture, 48 px (--side, --filters)
python -m training.small_cnn --data shapes          eight kinds, crops of textured objects on clutter, 32 px
python -m training.small_cnn --data mnist --data-dir DIR

Test accuracy, seeds 0 1 2: digits .980 .980 .987 (300 pictures, 4 s); simple_shapes .962 .951 .953 (2000 pictures,
20 to 30 s of two shared x86-64 cores); shapes .699 .710
.691 (1000 crops, 77 s of processor time).
"""

import keras
import numpy as np

import dmkeras
from dmkeras import figures
from dmkeras.backbones.subjects import one_object
from dmkeras.data import batches, class_names, load, to_arrays
from dmkeras.recipe import Recipe, run

COUNTS = {"train": 6000, "validation": 500, "test": 2000}  # pictures that are rendered
RENDERED = {"simple_shapes": 48, "shapes": 32}  # pixels of a side
SETTINGS = {"digits": (20, 16), "shapes": (10, 24)}  # epochs, filters


def recipe(
    fast=False,
    data="digits",
    data_dir: str | None = None,
    download=False,
    side: int | None = None,
    filters: int | None = None,
    epochs: int | None = None,
    batch_size=64,
    learning_rate=2e-3,
):
    """A small CNN: accuracy on the test split.

    side: pixels of rendered pictures; 48 and 32 by default.
    """
    own = (2, 4) if fast else SETTINGS.get(data, (7, 16))
    epochs, filters = epochs or own[0], filters or own[1]
    sets = {split: _arrays(data, split, side, fast, data_dir, download) for split in COUNTS}
    names, shape = class_names(data, data_dir=data_dir), sets["train"][0].shape[1:]
    steps = epochs * -(-len(sets["train"][1]) // batch_size)
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)

    def batched(split, seed):
        return batches(sets[split], batch_size, seed) if split == "train" else batches(sets[split], 250)

    return Recipe(
        "small_cnn",
        dmkeras.SmallCNN(shape, len(names), filters),
        batched,
        compile={"optimizer": keras.optimizers.Adam(rate)},
        epochs=epochs,
        improves="accuracy",
        mode="max",
        pictures=lambda model: _pictures(model, *sets["test"], names),
        labels=names,
        description=f"{data}, {len(sets['train'][1])} pictures of {' x '.join(map(str, shape))}",
    )


def _arrays(data, split, side, fast, data_dir, download):
    """(images [N, H, W, C], labels [N])."""
    count = COUNTS[split] * (2 if data == "shapes" else 1) // (10 if fast else 1)
    if data in RENDERED:
        return one_object(data, split, count, side or RENDERED[data])[:2]
    records = load(data, split, data_dir=data_dir, download=download)
    arrays = to_arrays(records.take(count) if fast else records)
    return arrays["image"], arrays["label"]


def _pictures(model, images, labels, names):
    answers = model.predict(images, 250, verbose=0).argmax(axis=1)
    (wrong,) = np.nonzero(answers != labels)
    shown = [*range(12), *wrong[:12]]
    titles = [names[answers[i]] + (f", not {names[labels[i]]}" if answers[i] != labels[i] else "") for i in shown]
    title = f"test pictures, then errors ({len(wrong)} of {len(labels)})"
    counts = np.zeros((len(names), len(names)))
    np.add.at(counts, (labels, answers), 1)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    rows = "answers (columns) to each class (rows)"
    return {
        "answers": figures.grid(images[shown], 6, titles=titles, title=title),
        "confusion": figures.heat_map(shares, title=rows, units="share", limits=(0, 1)),
    }


if __name__ == "__main__":
    run(recipe)
