"""Train a classifier on crops, ask it at every position and scale, and measure that as a detector.

python -m training.sliding_window                      simple_shapes: no download; `--fast`: in seconds
python -m training.sliding_window --no-mining          without the second stage, the hard negatives
python -m training.sliding_window --data voc:DIR       your own, in Pascal VOC's format

simple_shapes, 200 test pictures, 2000 in training, seed 0; five passes over these pictures either way:
                                      AP     AP50   AP75    squares  discs  triangles (AP)
3 epochs, 2 passes with mined crops   .487   .937   .412    .477     .595   .388
5 epochs, --no-mining                 .528   .916   .567    .473     .601   .511
Hard negatives bring what they are for, fewer false alarms (AP50), and cost precision of place. YOLOv2 has .920, AP50
.992 on the same pictures (training/yolov2.py, with 8000 in training): a box here is one of 12 sizes, a stride apart,
which nothing regresses. What is still wrong: parts of objects, and corners of pictures beside the grey border.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import dmkeras
from dmkeras import figures
from dmkeras.data import batches, class_names
from dmkeras.data.padding import padded_splits
from dmkeras.parts import anchors, detection_report, detection_training, window_crops
from dmkeras.recipe import Recipe, run

WINDOW, MARGIN, STRIDE = 34, 3, 4  # pixels: of a window, of what it shows around an object, between windows
MINED, PASSES = 64, 2  # hard negatives of a batch, passes over the pictures with them


def network(outputs, filters, channels=3):
    """A classifier of windows all of whose layers are "valid": its maps are 32, 16, 14, 7 and 5 pixels wide."""
    block = lambda maps: [layers.Conv2D(maps, 3, use_bias=False), layers.BatchNormalization(momentum=0.9)]
    convolutions = [*block(filters), layers.ReLU(), layers.MaxPooling2D()]
    convolutions += [*block(2 * filters), layers.ReLU(), layers.MaxPooling2D(), *block(4 * filters), layers.ReLU()]
    head = [layers.Flatten(), layers.Dense(4 * filters, "relu"), layers.Dropout(0.2), layers.Dense(outputs)]
    return keras.Sequential([keras.Input((WINDOW, WINDOW, channels)), *convolutions, *head], name="classifier")


def recipe(
    fast=False,
    data="simple_shapes",
    data_dir: str | None = None,
    download=False,
    side=96,
    pictures=2000,
    filters=16,
    num_scales=12,
    mining=True,
    epochs: int | None = None,
    batch_size=16,
    learning_rate=3e-3,
):
    """Sliding window: COCO's average precision of held-out pictures; where it fires, what it took for objects.

    pictures: of the training split. num_scales: sizes of windows, clusters of the boxes. batch_size: pictures.
    """
    epochs, num_scales, filters = epochs or (2 if fast else 3), 2 if fast else num_scales, 4 if fast else filters
    names = class_names(data, data_dir=data_dir)
    source = {"most": 60 if fast else pictures, "data_dir": data_dir, "download": download}
    sets = padded_splits(data, detection_training.letterboxed(side), **source)
    train, test, mined = sets["train"], sets["test"], {}
    sizes = (train[1][..., 2:] - train[1][..., :2])[train[2] >= 0]
    shapes, overlap = anchors.dimension_clusters(sizes, num_scales)
    scales = [((WINDOW - 2 * MARGIN) / height, (WINDOW - 2 * MARGIN) / width) for width, height in shapes]
    window = {"window": (WINDOW, WINDOW), "margin": (MARGIN, MARGIN), "sides": (sizes.min(), sizes.max())}

    def batched(split, seed):
        pairs = batches(sets[split], batch_size, seed, True) if split == "train" else batches(sets[split], batch_size)
        draw = lambda step, batch: window_crops.drawn(*batch, tf.stack([tf.cast(seed, "int64"), step]), **window)
        return pairs.enumerate().map(draw, num_parallel_calls=tf.data.AUTOTUNE)

    def with_mined(split, seed):
        if split != "train":
            return batched(split, seed)
        passes = tf.data.Dataset.range(PASSES).flat_map(lambda i: batched(split, seed + i))
        passes = passes.apply(tf.data.experimental.assert_cardinality(PASSES * (len(train[0]) // batch_size)))
        return window_crops.with_negatives(passes, mined["crops"], MINED, seed)

    def random_negatives(recipe, fit):
        fit()

    def hard_negatives(recipe, fit):
        """One epoch of several passes: a run that is killed in it comes back to the weights that mined."""
        owners, boxes = window_crops.hard_negatives(tf.function(model.detect), *train)
        print(f"{len(boxes)} hard negatives in {len(set(owners))} of {len(train[0])} pictures", flush=True)
        if not len(boxes):
            owners, boxes = np.zeros(1, "int32"), np.array([[0, 0, 1, 1]], "float32")
        mined["crops"] = window_crops.crops_of(train[0], boxes, owners, window["window"], window["margin"]).numpy()
        slower = keras.optimizers.schedules.CosineDecay(learning_rate / 3, PASSES * (len(train[0]) // batch_size), 0.01)
        fit(with_mined, 1, {"optimizer": keras.optimizers.Adam(slower)})

    def sheets(model):
        found = detection_report.sheets(model, *(array[:100] for array in test), names, figures)
        found["maps"] = _maps(model, *(array[:4] for array in test), names)
        if mined:
            found["hard_negatives"] = figures.grid(mined["crops"][:96], 16, title="hard negatives, the first")
        return found

    options = {"image_shape": (side, side, 3), "margin": MARGIN, "scales": scales}
    model = dmkeras.SlidingWindow(network(len(names) + 1, filters), None, STRIDE, **options)
    steps = epochs * (len(train[0]) // batch_size)
    falling = keras.optimizers.schedules.CosineDecay(learning_rate, steps, 0.01)
    stages = [("random_negatives", random_negatives), ("hard_negatives", hard_negatives)]
    return Recipe(
        "sliding_window",
        model,
        batched,
        compile={"optimizer": keras.optimizers.Adam(falling)},
        epochs=epochs,
        pictures_every=epochs + 1,  # at the end alone
        evaluate=lambda model: detection_report.figures(model, *test, names) | {"average_iou": overlap},
        pictures=sheets,
        stages=stages[: 1 + mining],
        labels=names,
        description=f"{data}, {side}x{side} pixels, {len(train[0])} pictures",
    )


def _maps(model, images, boxes, classes, names):
    """Truths beside the best probability of each class over the scales."""
    tiles = []
    for image, maps, box, kind in zip(images, model.heat_maps(images).numpy(), boxes, classes):
        tiles.append(figures.boxes(image, box, kind, names=names))
        tiles += [figures.heat_map(maps[..., k], image, limits=(0, 1), title=name) for k, name in enumerate(names)]
    return figures.grid(tiles, 1 + len(names), scale=1)


if __name__ == "__main__":
    run(recipe)
