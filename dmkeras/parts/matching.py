"""Which anchor learns which truth: thresholds on IoU, the best anchor of each truth, SSD's bipartite step.

    thresholds   an anchor belongs to the truth of highest IoU; t_i <= IoU < t_(i+1) gives it labels[i + 1]
                 detectron2's Matcher, https://github.com/facebookresearch/detectron2, detectron2/modeling/matcher.py
    force_best=True
                 the anchors of highest IoU with a truth, ties included, get the last label; the truth that they belong
                 to stays the one of their own highest IoU
                 Ren et al. 2015, https://arxiv.org/abs/1506.01497, section 3.1.2, rule (i)
    force_best="bipartite"
                 each truth takes one anchor of its own, best pair first, and that anchor belongs to it
                 Liu et al. 2016, https://arxiv.org/abs/1512.02325, section 2.2, and MatchBBox of its code

Deviation: a truth that no anchor overlaps forces none; Matcher would force every anchor, all being best with IoU 0.

The thresholds are KerasCV's BoxMatcher without force; its force matches a column of padding (anchor 0 turns positive,
with an index out of range) and one anchor of a tie, so that step is written here (tests/parts/test_keras_cv.py).

Shapes:  N anchors, M truths, padded ones too; `...` any leading shape.
"""

import functools

import tensorflow as tf
from keras_cv import layers

TIE = 1e-6  # relative: XLA may compute the same IoU twice, the last bits different


def match(iou, real, thresholds, labels, force_best=False):
    """Index of the truth and label of each anchor, int32 [..., N] each, from `iou` [..., N, M], `real` bool [..., M].

    `labels` has one more than `thresholds`, which rise: thresholds (0.3, 0.7), labels (0, -1, 1) for a background, a
    range that counts for nothing, and objects. Without a real truth the index is 0 and the label labels[0].
    """
    thresholds, labels = tuple(map(float, thresholds)), tuple(map(int, labels))
    rise = all(low <= high for low, high in zip((0.0, *thresholds), thresholds))
    if not rise or len(labels) != len(thresholds) + 1:
        raise ValueError(
            "expected thresholds that rise from at least 0 and one more label, "
            f"received thresholds {thresholds} and labels {labels}"
        )
    if force_best not in (False, True, "bipartite"):
        raise ValueError(f"force_best must be False, True or 'bipartite', received {force_best!r}")
    overlaps = masked(iou, real)
    # A column of -1: no truth at all, M = 0 too, is a truth that overlaps nothing.
    flat = tf.pad(batched(overlaps), [[0, 0], [0, 0], [0, 1]], constant_values=-1.0)
    index, label = (tf.reshape(part, tf.shape(overlaps)[:-1]) for part in matcher(thresholds, labels)(flat))
    if force_best == "bipartite":
        own, taken = bipartite(iou, real)
        return tf.where(taken, own, index), tf.where(taken, labels[-1], label)
    if force_best:
        highest = tf.reduce_max(overlaps, -2, keepdims=True)
        forced = tf.reduce_any((overlaps >= highest * (1 - TIE)) & (highest > 0), -1)
        label = tf.where(forced, labels[-1], label)
    return index, label


@functools.lru_cache
def matcher(thresholds, labels):
    return layers.BoxMatcher(list(thresholds), list(labels), dtype="float32")  # it keeps and changes the list


def bipartite(iou, real):
    """Each truth's own anchor: repeatedly the best pair that is left, each anchor once. Pairs with IoU 0 are none.

    Returns the index of the truth, int32 [..., N], and whether the anchor is taken, bool [..., N]. Of equal pairs the
    first anchor's goes first, then the first truth's.
    """
    overlaps = masked(iou, real)
    flat = batched(overlaps)
    anchors, truths = tf.shape(flat)[1], tf.shape(flat)[2]
    # Others take at most M - 1 anchors, so a truth's M best are all it can need.
    values, places = tf.math.top_k(tf.transpose(flat, [0, 2, 1]), tf.minimum(anchors, truths))  # [B, M, M]
    order = places * truths + tf.range(truths)[:, None]

    def take(values, index, taken):
        best = tf.reduce_max(values, [1, 2], keepdims=True)
        pair = tf.reduce_min(tf.where(values == best, order, order.dtype.max), [1, 2], keepdims=True)
        anchor, truth = pair // truths, pair % truths
        hit = (tf.range(anchors) == anchor[:, 0]) & (best[:, 0] > 0)
        gone = (places == anchor) | (tf.range(truths)[:, None] == truth)
        values = tf.ensure_shape(tf.where(gone, -1.0, values), values.shape)  # M = 0 is a shape of its own to the loop
        return values, tf.where(hit, truth[:, 0], index), taken | hit

    none = tf.zeros(tf.shape(flat)[:2], tf.int32)
    _, index, taken = tf.while_loop(lambda values, *_: tf.reduce_any(values > 0), take, (values, none, none > 0))
    return tf.reshape(index, tf.shape(overlaps)[:-1]), tf.reshape(taken, tf.shape(overlaps)[:-1])


def masked(iou, real):
    """IoU, -1 where a truth is padding."""
    return tf.where(tf.cast(real, tf.bool)[..., None, :], tf.cast(iou, tf.float32), -1.0)


def batched(overlaps):
    """[..., N, M] as [B, N, M]."""
    return tf.reshape(overlaps, tf.concat([[-1], tf.shape(overlaps)[-2:]], 0))
