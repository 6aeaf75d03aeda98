"""What detectors are trained on: batches changed anew in each epoch, and crops for the classifier before it.

Multi-scale training (Redmon and Farhadi 2017, https://arxiv.org/abs/1612.08242, section 2): every 10 batches pictures
take another size, here a function of (seed, step) alone. Sizes differ within one dataset, whose pictures are therefore
[B, None, None, C], so that training is traced once for all of them.

Shapes:  B batch, H height, W width, C colours, N rows of truths, S side of a crop.
"""

import functools

import keras
import numpy as np
import tensorflow as tf

from dmkeras.parts import letterbox
from dmkeras.parts.box_augmentation import augment
from dmkeras.parts.boxes import is_real

EVERY = 10  # batches of one size


@functools.cache
def letterboxed(side):
    """A function of a record of `dmkeras.data.load`: its picture in a square of `side` pixels, and its boxes there."""

    def place(record):
        image, placement = letterbox.letterbox(record["image"], (side, side))
        return {**record, "image": image, "boxes": letterbox.to_model(record["boxes"], placement)}

    return place


def changed(dataset, seed, sizes=None, by=augment, **options):
    """A dataset of (images, {"boxes", "classes"}) with each picture changed, as a function of `seed`.

    Args:
        dataset: batches; images [B, H, W, C] in [0, 1], boxes [B, N, 4] xyxy pixels, classes [B, N].
        seed: int64 scalar, a number or a tensor; another one each epoch.
        sizes: pairs (height, width) to draw from; None keeps the size of the pictures.
        by: what changes them: `box_augmentation.augment`, or `ssd_augmentation.augment`.
        options: of it.
    """

    def change(step, batch):
        images, truths = batch
        pair = tf.stack([tf.cast(seed, "int64"), step])
        images, boxes, classes = by(images, truths["boxes"], truths["classes"], pair, **options)
        if sizes is not None:
            pair = tf.stack([tf.cast(seed, "int64"), -1 - step // EVERY])
            size = tf.gather(sizes, tf.random.stateless_uniform([], pair, maxval=len(sizes), dtype="int32"))
            images, boxes = resized(images, boxes, size)
        return images, {"boxes": boxes, "classes": classes}

    return dataset.enumerate().map(change, num_parallel_calls=tf.data.AUTOTUNE)


def resized(images, boxes, size):
    """Pictures [B, H, W, C] and boxes in pixels, at another size [2] (height, width); proportions may change."""
    scale = tf.cast(size, "float32") / tf.cast(tf.shape(images)[1:3], "float32")
    return tf.image.resize(images, size), boxes * tf.tile(scale[::-1], [2])


def multiples(side, stride, least=0.75, most=1.25):
    """Square sizes that `stride` divides, from `least` to `most` of `side`: the paper's 320 to 608 about 416."""
    counts = range(int(np.ceil(least * side / stride)), int(most * side / stride) + 1)
    return [(count * stride, count * stride) for count in counts]


def crops(images, boxes, classes, side, margin=0.15):
    """Every truth as a picture of its own for a classifier: [n, S, S, C] and classes [n].

    Args:
        images: [B, H, W, C].
        boxes: [B, N, 4] xyxy in pixels.
        classes: [B, N], -1 for padding.
        side: S; proportions are not kept.
        margin: of what stands around a box, as a part of its side, on each side.
    """
    real = is_real(boxes, classes).numpy()
    rows, _ = np.nonzero(real)
    height, width = images.shape[1:3]
    chosen = boxes[real] + margin * np.tile(boxes[real][:, 2:] - boxes[real][:, :2], 2) * [-1, -1, 1, 1]
    corners = chosen[:, [1, 0, 3, 2]] / [height, width, height, width]
    found = np.empty((len(rows), side, side, images.shape[3]), "float32")
    for part in np.array_split(np.arange(len(rows)), len(rows) // 1000 + 1):  # copies of few pictures at a time
        if len(part):
            first, last = rows[part[0]], rows[part[-1]] + 1
            whole = images[first:last], corners[part], rows[part] - first, (side, side)
            found[part] = tf.clip_by_value(tf.image.crop_and_resize(*whole, extrapolation_value=0.5), 0.0, 1.0)
    return found, classes[real].astype("int32")


def train_on_crops(classifier, images, boxes, classes, sides, epochs=2, batch_size=64):
    """Fits a classifier to the truths as pictures of their own, at one size after another: the paper's 224, then 448.

    Args:
        classifier: a `keras.Model` that takes pictures of any size and trains on whole-numbered labels.
        images: [B, H, W, C].
        boxes: [B, N, 4] xyxy in pixels.
        classes: [B, N], -1 for padding.
        sides: in pixels, in this order.
        epochs: at each size.
        batch_size: of crops; what is left of an epoch is left out.
    """
    classifier.compile(keras.optimizers.Adam(2e-3), jit_compile=False)
    for side in sides:
        data = _shuffled(*map(tf.constant, crops(images, boxes, classes, side)), batch_size)
        classifier.fit(data, epochs=epochs, verbose=0)
    return classifier


def _shuffled(pictures, labels, batch_size):
    """Batches in another order each time; what is shuffled are numbers, since a buffer of pictures would be a copy."""
    count = len(labels)
    order = tf.data.Dataset.range(count).shuffle(count).batch(min(batch_size, count), True)
    return order.map(lambda rows: (tf.gather(pictures, rows), tf.gather(labels, rows)))


def trained(recipe, epochs, seed):
    """The model of a recipe after its stages, without a run's folder: for comparisons of several in one run."""
    keras.utils.set_random_seed(seed)

    def fit(data=recipe.data, epochs=epochs, compile=recipe.compile):
        recipe.model.compile(**compile, jit_compile=False)
        epochs = tf.data.Dataset.range(epochs)
        recipe.model.fit(epochs.flat_map(lambda epoch: data("train", 1000 * seed + epoch)), verbose=0)

    for _, stage in recipe.stages:
        stage(recipe, fit)
    return recipe.model
