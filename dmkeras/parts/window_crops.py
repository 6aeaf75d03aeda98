"""Crops that make a classifier a detector: objects, what is about them, background, and what it took for objects.

    object      a truth whose middle moved by up to SHIFT of its sides and whose sides changed by up to e^STRETCH
    near        the same with NEAR_SHIFT and NEAR_STRETCH
    far         a box anywhere, with sides from the smallest to the largest truth of all
    all         moved into the picture, where a detector's windows are: many then touch its border, as it does
    label       class + 1 where the IoU with a truth is at least POSITIVE, 0 where none is above NEGATIVE, else -1
    hard        what a detector, so trained, found with IoU of at most NEGATIVE with every truth

To add the most offending errors on the training pictures to random negatives is bootstrapping, as detectors did before
and beside Sermanet et al., "OverFeat" (https://arxiv.org/abs/1312.6229), section 5, who look for them while they train;
Girshick et al. (https://arxiv.org/abs/1311.2524), section 2.3, do it once over the data. It is done once here too.

A crop shows its box and `margin` pixels around, resampled to the window's size bilinearly at twice its resolution and
averaged over 2x2, which is near to the antialiased resizing of the pyramid (windows.py); beyond the picture is grey.

Shapes:  P pictures, H height, W width, C channels, M rows of truths, n crops, h and w of a window, m its margin.
"""

import numpy as np
import tensorflow as tf

from dmkeras.parts import average_precision
from dmkeras.parts.boxes import is_real, pairwise_iou
from dmkeras.parts.windows import FILL

POSITIVE, NEGATIVE = 0.6, 0.4
SHIFT, STRETCH = 0.15, 0.2
NEAR_SHIFT, NEAR_STRETCH = 0.8, 0.7


def crops_of(images, boxes, owners, window, margin):
    """Crops [n, h, w, C] of images [P, H, W, C]: boxes [n, 4] xyxy in pixels of pictures number `owners` [n]."""
    boxes, corners = tf.cast(boxes, "float32"), []
    for end, sign in ((0, 1), (1, -1)):
        for axis in (1, 0):  # y, x
            low, high = boxes[:, axis], boxes[:, 2 + axis]
            side = window[1 - axis]
            pixel = (high - low) / float(side - 2 * margin[1 - axis])  # of the crop, in those of the picture
            outer = (low, high)[end] - sign * margin[1 - axis] * pixel
            first = outer + sign * pixel / 4 - 0.5  # the middle of its first half pixel, as an index
            corners.append(first / (images.shape[2 - axis] - 1))
    double = [2 * side for side in window]
    found = tf.image.crop_and_resize(images, tf.stack(corners, 1), owners, double, extrapolation_value=FILL)
    return tf.clip_by_value(tf.nn.avg_pool2d(found, 2, 2, "VALID"), 0.0, 1.0)


def drawn(images, boxes, classes, seed, window, margin, sides, objects=4, near=6, far=6):
    """Crops of a batch of pictures, drawn anew.

    Args:
        images: [P, H, W, C] in [0, 1].
        boxes: [P, M, 4] xyxy in pixels.
        classes: [P, M], -1 for padding.
        seed: int [2]; the answer is a function of it and of the other arguments alone.
        window: (h, w).
        margin: (down, across), pixels of the window.
        sides: (least, most) of far boxes, pixels.
        objects: crops about truths, of each picture.
        near: crops near truths.
        far: crops anywhere.

    Returns:
        (crops [n, h, w, C], labels int32 [n]) of n = P (objects + near + far).
    """
    boxes, count = tf.cast(boxes, "float32"), objects + near
    frame = tf.constant(list(images.shape[2:0:-1]), "float32")  # W, H
    real = is_real(boxes, classes)
    draws = tf.random.stateless_uniform([8, tf.shape(images)[0], count + far], seed, alg="philox")
    chosen = tf.argmax(tf.where(real[:, None], _noise(seed, boxes, count), -1.0), -1)  # padding where all is padding
    whole = tf.concat([0 * frame, frame], 0)
    middle, side = _middle_and_side(tf.gather(tf.where(real[..., None], boxes, whole), chosen, batch_dims=1))
    wide = tf.cast(tf.range(count) >= objects, "float32")[:, None]
    draws = tf.transpose(draws, (1, 2, 0))  # [P, count + far, 8]
    moved, stretched = (2 * draws[:, :count, i : i + 2] - 1 for i in (0, 2))
    middle += moved * side * (SHIFT + wide * (NEAR_SHIFT - SHIFT))
    side *= tf.exp(stretched * (STRETCH + wide * (NEAR_STRETCH - STRETCH)))
    anywhere, size, shape = draws[:, count:, 4:6] * frame, draws[:, count:, 6], draws[:, count:, 7]
    size, shape = tf.exp(np.log(sides[0]) + size * np.log(sides[1] / sides[0])), tf.exp(STRETCH * (2 * shape - 1))
    middle = tf.concat([middle, anywhere], 1)
    side = tf.concat([side, tf.stack([size * shape, size / shape], -1)], 1)
    half = tf.minimum(side, frame) / 2
    middle = tf.clip_by_value(middle, half, frame - half)
    found = tf.concat([middle - side / 2, middle + side / 2], -1)  # [P, count + far, 4]
    labels = labels_of(found, boxes, classes)
    owners = tf.repeat(tf.range(tf.shape(images)[0]), count + far)
    return crops_of(images, tf.reshape(found, (-1, 4)), owners, window, margin), tf.reshape(labels, [-1])


def labels_of(found, boxes, classes):
    """Labels [P, n] of boxes [P, n, 4] beside truths [P, M, 4] and [P, M]."""
    overlap = tf.where(is_real(boxes, classes)[:, None], pairwise_iou(found, boxes), 0.0)
    kind = tf.gather(tf.cast(classes, "int32"), tf.argmax(overlap, -1), batch_dims=1)
    best = tf.reduce_max(overlap, -1)
    return tf.where(best >= POSITIVE, kind + 1, tf.where(best <= NEGATIVE, 0, -1))


def hard_negatives(detect, images, boxes, classes, least_score=0.3, batch_size=50, each=5):
    """What `detect` found where nothing is: owners [n] and boxes [n, 4], `each` at most of a picture, the best scored.

    Args:
        detect: images -> {"boxes", "scores", "classes"}, as `average_precision.collect` takes it.
        images: [P, H, W, C].
        boxes: [P, M, 4].
        classes: [P, M].
        least_score: of a detection that counts.
        batch_size: pictures at once.
        each: of one picture.
    """
    owners, wrong = [], []
    found = average_precision.collect(detect, images, min(batch_size, len(images)))
    for i, answer in enumerate(found):
        labels = labels_of(answer["boxes"][None], boxes[i][None], classes[i][None])[0].numpy()
        mine = answer["boxes"][(labels == 0) & (answer["scores"] >= least_score)][:each]
        owners += [i] * len(mine)
        wrong += list(mine)
    return np.array(owners, "int32"), np.array(wrong, "float32").reshape(-1, 4)


def with_negatives(dataset, negatives, count, seed):
    """Batches of (crops, labels) with `count` of the `negatives` [n, h, w, C] more, of label 0; drawn from `seed`."""
    with tf.init_scope():  # inside a traced function they would become constants of its graph
        negatives = tf.constant(negatives)

    def more(step, batch):
        pair = tf.stack([tf.cast(seed, "int64"), step])
        rows = tf.random.stateless_uniform([count], pair, maxval=len(negatives), dtype="int32", alg="philox")
        crops, labels = batch
        return tf.concat([crops, tf.gather(negatives, rows)], 0), tf.pad(labels, [[0, count]])

    return dataset.enumerate().map(more)


def _noise(seed, boxes, count):
    """A number in [0, 1) for every crop and truth."""
    pair = tf.cast(seed, "int64") + tf.constant([0, 1 << 32], "int64")
    return tf.random.stateless_uniform([tf.shape(boxes)[0], count, tf.shape(boxes)[1]], pair, alg="philox")


def _middle_and_side(boxes):
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
