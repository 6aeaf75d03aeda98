"""The grid of boxes of YOLOv2, darknet's region layer: from raw numbers to boxes, and what each is trained towards.

Redmon and Farhadi, "YOLO9000: Better, Faster, Stronger", 2017 (https://arxiv.org/abs/1612.08242), section 2; where the
paper is silent, src/region_layer.c of https://github.com/pjreddie/darknet. In each cell (column c, row r), `stride`
pixels wide and high, stand A boxes, one for each prior of size (p_w, p_h), and each has 5 + K numbers t:

    centre x = (sigmoid(t_x) + c) stride,  y likewise with r      direct location prediction
    centre x = t_x p_w + (c + 1/2) stride, y likewise             direct=False: the region proposal network's
    width    = p_w exp(t_w),  height = p_h exp(t_h)
    objectness = sigmoid(t_o),  class = softmax(t_1 ... t_K)

A truth is answered for by one box: of the cell that holds its centre the one whose prior has the best IoU with it, both
at the origin. Sums over boxes, of half a square each, so that gradients are darknet's:

    coordinate    (2 - w h / (W H)) [(sigmoid(t_x) - x)^2 + (sigmoid(t_y) - y)^2 + (t_w - ln(w / p_w))^2 + ...] / 2
                  or, with `box_loss="ciou"`, (2 - w h / (W H)) (1 - CIoU)
    object        (IoU(box, truth) - sigmoid(t_o))^2 / 2, the IoU without gradient; towards 1 with `rescore=False`
    no_object     sigmoid(t_o)^2 / 2, of the boxes that answer for none and whose IoU with every truth is at most 0.6
    class         -ln softmax(t)[class of the truth]
    prior         of the boxes that answer for none: towards the middle of their cell and their prior's size

Of two truths that one box would answer for, the later is trained, as in darknet. A truth with no area or of no class
(-1, padding) changes nothing. The logarithms of sizes are capped at `LARGEST`, which no picture reaches.

Shapes:  B batch, G rows and columns of cells, A priors a cell, N = rows * columns * A boxes, M truths, K classes.
"""

import numpy as np
import tensorflow as tf

from dmkeras.parts import boxes as box

TERMS = ("coordinate", "object", "no_object", "class", "prior")
BOX_LOSSES = ("squared", "ciou")
LARGEST = 8.0  # of t_w, t_h: e^8 times the prior
IGNORED = 0.6  # a box that overlaps a truth by more is not told that it holds nothing


def decode(raw, anchors, stride, direct=True):
    """Raw numbers [B, G, G, A, 5 + K] -> boxes [B, N, 4] in pixels, logits of objectness [B, N] and class [B, N, K].

    anchors: [A, 2] widths and heights in pixels.   stride: pixels a cell.   direct: see the module.
    """
    raw, anchors = tf.cast(raw, "float32"), tf.cast(anchors, "float32")
    cells = _cells(raw)  # [G, G, 1, 2]
    inside = tf.sigmoid(raw[..., :2]) if direct else raw[..., :2] * anchors / stride + 0.5
    centre = (cells + inside) * stride
    half = anchors * tf.exp(tf.minimum(raw[..., 2:4], LARGEST)) / 2
    found = tf.concat([centre - half, centre + half], -1)  # [B, G, G, A, 4]
    return _rows(found), _rows(raw[..., 4:5])[..., 0], _rows(raw[..., 5:])


def cross_entropy(classes, logits):
    """Of the softmax of logits [..., K] with classes [...]."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits)


def losses(
    raw, truths, classes, anchors, stride, direct=True, box_loss="squared", rescore=True, cross_entropy=cross_entropy
):
    """The terms of the loss of each picture, and the mean IoU of the boxes that answer for a truth.

    Args:
        raw: [B, G, G, A, 5 + K].
        truths: [B, M, 4] xyxy in pixels.
        classes: [B, M] whole numbers, -1 for padding.
        anchors: [A, 2] widths and heights in pixels.
        stride: pixels a cell.
        direct: whether centres stay in their cell.
        box_loss: one of BOX_LOSSES.
        rescore: whether objectness learns the IoU of its box, or 1.
        cross_entropy: (classes [B, M], logits [B, M, K]) -> [B, M].

    Returns:
        {"coordinate", "object", "no_object", "class", "prior": [B]}, unweighted, and "iou": [B], the sum over truths,
        and "truths": [B], how many were trained.
    """
    raw, anchors = tf.cast(raw, "float32"), tf.cast(anchors, "float32")
    found, objectness, logits = decode(raw, anchors, stride, direct)
    truths, classes = tf.cast(truths, "float32"), tf.cast(classes, "int32")
    index, prior, place, real = assign(truths, classes, tf.shape(raw), anchors, stride)
    weight = tf.cast(real, "float32")  # [B, M]
    truths = tf.where(real[..., None], truths, tf.constant([0.0, 0.0, 1.0, 1.0]))  # a box that no logarithm minds
    own = lambda values: tf.gather(values, index, batch_dims=1)  # [B, N, ...] -> [B, M, ...]
    overlap = tf.stop_gradient(box.iou(own(found), truths))
    answers = tf.reduce_sum(tf.one_hot(tf.where(real, index, -1), tf.shape(found)[1]), 1)  # [B, N], 1 if it answers

    overlaps = box.pairwise_iou(tf.stop_gradient(found), truths) * weight[:, None]  # [B, N, M]
    empty = (1 - answers) * tf.cast(tf.reduce_all(overlaps <= IGNORED, -1), "float32")
    o = tf.sigmoid(objectness)
    goal = overlap if rescore else tf.ones_like(overlap)
    t = _rows(raw[..., :4])
    rest = tf.concat([tf.sigmoid(t[..., :2]) - 0.5 if direct else t[..., :2], t[..., 2:]], -1)
    terms = {
        "coordinate": weight
        * _coordinates(own(t), own(found), truths, prior, place, stride, _size(raw, stride), direct, box_loss),
        "object": weight * (goal - own(o)) ** 2 / 2,
        "no_object": empty * o**2 / 2,
        "class": weight * cross_entropy(tf.maximum(classes, 0), own(logits)),
        "prior": (1 - answers) * tf.reduce_sum(rest**2, -1) / 2,
        "iou": weight * overlap,
        "truths": weight,
    }
    return {name: tf.reduce_sum(values, -1) for name, values in terms.items()}


def assign(truths, classes, shape, anchors, stride):
    """Which box answers for which truth.

    Returns:
        index [B, M] of the box among N; prior [B, M, 2], its size in pixels; place [B, M, 2], the truth's centre in
        cells from its cell's corner; real [B, M] bool, false for truths that are not trained.
    """
    anchors, limit = tf.cast(anchors, "float32"), tf.cast([shape[2], shape[1]], "float32")
    stride, truths = tf.cast(stride, "float32"), tf.cast(truths, "float32")
    real = box.is_real(truths, classes)
    truths = tf.where(real[..., None], truths, 0.0)
    centre = (truths[..., :2] + truths[..., 2:]) / (2 * stride)
    cell = tf.clip_by_value(tf.floor(centre), 0.0, limit - 1)  # a centre on the far border stays in the last cell
    size = truths[..., 2:] - truths[..., :2]
    shared = tf.reduce_prod(tf.minimum(size[:, :, None], anchors), -1)  # [B, M, A]
    shape_iou = shared / (tf.reduce_prod(size, -1)[..., None] + tf.reduce_prod(anchors, -1) - shared)
    best = tf.argmax(shape_iou, -1, output_type="int32")
    column, row = tf.unstack(tf.cast(cell, "int32"), axis=-1)
    index = (row * shape[2] + column) * anchors.shape[0] + best
    same = (index[:, :, None] == index[:, None, :]) & real[:, None, :]  # [B, M, M]
    count = tf.shape(index)[1]
    later = tf.range(count)[None, :] > tf.range(count)[:, None]
    real &= ~tf.reduce_any(same & later, -1)
    return index, tf.gather(anchors, best), centre - cell, real


def _coordinates(t, found, truths, prior, place, stride, picture, direct, box_loss):
    """Of the boxes [B, M, 4] that answer for truths [B, M, 4]; small truths count up to twice as much as large ones."""
    size = truths[..., 2:] - truths[..., :2]
    small = 2 - tf.reduce_prod(size, -1) / picture
    if box_loss == "ciou":
        return small * (1 - box.ciou(found, truths))
    off = tf.sigmoid(t[..., :2]) - place if direct else t[..., :2] - (place - 0.5) * stride / prior
    off = tf.concat([off, t[..., 2:] - tf.math.log(size / prior)], -1)
    return small * tf.reduce_sum(off**2, -1) / 2


def _cells(raw):
    """[G, G, 1, 2]: column and row of each cell."""
    rows, columns = tf.shape(raw)[1], tf.shape(raw)[2]
    grid = tf.meshgrid(tf.range(columns), tf.range(rows))
    return tf.cast(tf.stack(grid, -1)[:, :, None], "float32")


def _rows(values):
    """[B, G, G, A, n] -> [B, N, n]"""
    return tf.reshape(values, [tf.shape(values)[0], -1, values.shape[-1]])


def _size(raw, stride):
    """The pixels of the picture."""
    return tf.cast(tf.shape(raw)[1] * tf.shape(raw)[2], "float32") * stride**2


def checked_anchors(anchors):
    """Pairs of floats; ValueError unless there are at least one (width, height), all above zero."""
    try:
        sizes = np.asarray(anchors, "float64")
    except (TypeError, ValueError):
        sizes = np.empty(0)
    if sizes.ndim != 2 or sizes.shape[1:] != (2,) or not len(sizes) or not (np.isfinite(sizes) & (sizes > 0)).all():
        raise ValueError(f"anchors must be pairs (width, height) in pixels above zero, received {anchors!r}")
    return tuple(tuple(float(side) for side in size) for size in sizes)
