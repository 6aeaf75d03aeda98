"""Boxes: formats, how much two overlap, how one is told from another, which are real.

A box is float32 xyxy in pixels, x2 and y2 exclusive: width w = x2 - x1, height h = y2 - y1, no +1 anywhere.
With I the intersection, U = |A| + |B| - I the union, C the smallest box around both, c its diagonal, d the distance of
the centres:

    IoU  = I / U
    GIoU = IoU - (|C| - U) / |C|                    Rezatofighi et al. 2019, https://arxiv.org/abs/1902.09630, alg. 1
    DIoU = IoU - d^2 / c^2                          Zheng et al. 2020, https://arxiv.org/abs/1911.08287, section 3
    CIoU = DIoU - alpha v                           the same
    v = 4 / pi^2 (atan(w / h) - atan(w' / h'))^2    the same
    alpha = v / (1 - IoU + v)                       the same: a weight, so no gradient goes through it

    t = ((Gx - Px) / Pw, (Gy - Py) / Ph, ln(Gw / Pw), ln(Gh / Ph)) / variances      centre and size of G told from P's
                                                        Girshick et al. 2014, https://arxiv.org/abs/1311.2524, app. C

A reversed box (x2 < x1 or y2 < y1) has no area. Sides below TINY pixels count as none: two boxes without area have IoU
0, a point has no shape (v = 0). So every value and every gradient is finite for any finite boxes below 1e9 pixels.

Deviation: the gradient of v is the true one; the authors set its factor 1 / (w^2 + h^2) to 1, for boxes in [0, 1].
Formats are KerasCV's; its compute_ciou squares the constant 4 / pi^2, its compute_iou adds an epsilon and its
clip_to_image drops boxes, so these are written here (tests/parts/test_keras_cv.py).

Shapes:  B batch, N and M boxes, H height, W width, C colours; `...` any leading shape.
"""

import math

import tensorflow as tf
from keras_cv import bounding_box

FORMATS = ("xyxy", "yxyx", "xywh", "center_xywh", "rel_xyxy", "rel_yxyx")
TINY = 1e-6  # pixels


def convert(boxes, source, target, image_shape=None):
    """`boxes` [..., 4] in another of FORMATS; relative ones ("rel_", in [0, 1]) need `image_shape` (H, W[, C])."""
    for name, value in (("source", source), ("target", target)):
        if value not in FORMATS:
            raise ValueError(f"{name} must be one of {', '.join(FORMATS)}; received {value!r}")
    if image_shape is None and source.startswith("rel") != target.startswith("rel"):
        raise ValueError(f"{source} to {target} needs image_shape, (height, width), received None")
    boxes = as_boxes(boxes)
    shape = None if image_shape is None else (image_shape[0], image_shape[1], 3)
    flat = tf.reshape(boxes, [-1, 4])  # KerasCV takes [N, 4] or [B, N, 4]
    flat = bounding_box.convert_format(flat, source=source, target=target, image_shape=shape)
    return tf.reshape(flat, tf.shape(boxes))


def as_boxes(boxes):
    """`boxes` as float32 [..., 4]; ValueError for another last axis."""
    boxes = tf.cast(boxes, tf.float32)
    if boxes.shape.rank == 0 or boxes.shape[-1] not in (4, None):
        raise ValueError(f"expected boxes [..., 4], received {boxes.shape}")
    return boxes


# --- overlap --------------------------------------------------------------------------------------------------------


def area(boxes):
    """w h, [...]; 0 for a reversed box."""
    x1, y1, x2, y2 = tf.unstack(as_boxes(boxes), num=4, axis=-1)
    return tf.maximum(x2 - x1, 0.0) * tf.maximum(y2 - y1, 0.0)


def iou(boxes1, boxes2):
    """IoU of boxes that broadcast, [..., 4] each -> [...], in [0, 1]."""
    intersection, union = overlap(boxes1, boxes2)
    return divided(intersection, union)


def pairwise_iou(boxes1, boxes2):
    """IoU of each of the first with each of the second, [..., N, 4] and [..., M, 4] -> [..., N, M]."""
    return iou(as_boxes(boxes1)[..., :, None, :], as_boxes(boxes2)[..., None, :, :])


def giou(boxes1, boxes2):
    """GIoU of boxes that broadcast, -> [...], in [-1, 1]."""
    intersection, union = overlap(boxes1, boxes2)
    width, height = enclosing(boxes1, boxes2)
    return divided(intersection, union) - divided(width * height - union, width * height)


def diou(boxes1, boxes2):
    """DIoU of boxes that broadcast, -> [...], in [-1, 1]."""
    boxes1, boxes2 = as_boxes(boxes1), as_boxes(boxes2)
    width, height = enclosing(boxes1, boxes2)
    apart = (boxes1[..., :2] + boxes1[..., 2:] - boxes2[..., :2] - boxes2[..., 2:]) / 2
    return iou(boxes1, boxes2) - divided(tf.reduce_sum(tf.square(apart), -1), tf.square(width) + tf.square(height))


def ciou(boxes1, boxes2):
    """CIoU of boxes that broadcast, -> [...], in [-1.5, 1]: alpha v is at most 1 / 2."""
    (angle1, shaped1), (angle2, shaped2) = diagonal(boxes1), diagonal(boxes2)
    v = 4 / math.pi**2 * tf.square(tf.where(shaped1 & shaped2, angle1 - angle2, 0.0))
    alpha = tf.stop_gradient(divided(v, 1 - iou(boxes1, boxes2) + v))
    return diou(boxes1, boxes2) - alpha * v


def overlap(boxes1, boxes2):
    """Areas of intersection and union, [...] each."""
    corners1, corners2 = (tf.unstack(as_boxes(boxes), num=4, axis=-1) for boxes in (boxes1, boxes2))
    low = [tf.maximum(a, b) for a, b in zip(corners1[:2], corners2[:2])]
    high = [tf.minimum(a, b) for a, b in zip(corners1[2:], corners2[2:])]
    width, height = (tf.maximum(end - start, 0.0) for start, end in zip(low, high))
    intersection = width * height
    return intersection, area(boxes1) + area(boxes2) - intersection


def enclosing(boxes1, boxes2):
    """Width and height of the smallest box that holds every corner, reversed boxes' too, [...] each."""
    xs1, ys1, xs2, ys2 = (as_boxes(boxes)[..., axis::2] for boxes in (boxes1, boxes2) for axis in (0, 1))
    spread = lambda a, b: (
        tf.maximum(tf.reduce_max(a, -1), tf.reduce_max(b, -1)) - tf.minimum(tf.reduce_min(a, -1), tf.reduce_min(b, -1))
    )
    return spread(xs1, xs2), spread(ys1, ys2)


def diagonal(boxes):
    """atan(w / h), and whether a box has sides to take it of, [...] each."""
    x1, y1, x2, y2 = tf.unstack(as_boxes(boxes), num=4, axis=-1)
    width, height = tf.maximum(x2 - x1, 0.0), tf.maximum(y2 - y1, 0.0)
    shaped = tf.maximum(width, height) > TINY
    return tf.math.atan2(tf.where(shaped, width, 1.0), tf.where(shaped, height, 1.0)), shaped


def divided(part, whole):
    """part / whole, 0 with gradient 0 where there is no whole."""
    there = whole > TINY**2
    return tf.where(there, part, 0.0) / tf.where(there, whole, 1.0)


# --- one box told from another --------------------------------------------------------------------------------------


def encode(boxes, anchors, variances=(1, 1, 1, 1)):
    """Deltas t [..., 4] of `boxes` from `anchors` that broadcast; sides are taken as at least TINY, so t is finite."""
    centre, size = centre_and_size(boxes)
    anchor_centre, anchor_size = centre_and_size(anchors)
    size, anchor_size = tf.maximum(size, TINY), tf.maximum(anchor_size, TINY)
    deltas = tf.concat([(centre - anchor_centre) / anchor_size, tf.math.log(size / anchor_size)], -1)
    return deltas / tf.cast(variances, tf.float32)


def decode(deltas, anchors, variances=(1, 1, 1, 1), largest=None):
    """The boxes [..., 4] that `encode` gives these deltas. `largest` caps the logs, so that exp stays finite."""
    deltas = as_boxes(deltas) * tf.cast(variances, tf.float32)
    anchor_centre, anchor_size = centre_and_size(anchors)
    centre = anchor_centre + deltas[..., :2] * anchor_size
    logs = deltas[..., 2:] if largest is None else tf.minimum(deltas[..., 2:], largest)
    half = tf.exp(logs) * anchor_size / 2
    return tf.concat([centre - half, centre + half], -1)


def centre_and_size(boxes):
    """(x, y) and (w, h), [..., 2] each."""
    boxes = as_boxes(boxes)
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]


# --- which count ----------------------------------------------------------------------------------------------------


def clip(boxes, image_shape):
    """`boxes` cut to the picture, (H, W[, C]); one that lies outside has no area left."""
    height, width = tf.cast(image_shape[0], tf.float32), tf.cast(image_shape[1], tf.float32)
    return tf.clip_by_value(as_boxes(boxes), 0.0, tf.stack([width, height, width, height]))


def is_real(boxes, classes):
    """Whether a row is a box, bool [...]: no padding (class -1), finite, x2 > x1 and y2 > y1."""
    boxes = as_boxes(boxes)
    finite = tf.reduce_all(tf.math.is_finite(boxes), -1)
    return (tf.cast(classes, tf.int32) >= 0) & finite & tf.reduce_all(boxes[..., 2:] > boxes[..., :2], -1)
