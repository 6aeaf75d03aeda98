"""Non-maximum suppression by class: of detections that overlap, the best of each class stays.

    best first over every (box, class): one stays unless a better one of its class stays with IoU > iou_threshold

Greedy, exact, batched, in the graph. The fate of a detection hangs on better ones alone, so the best `candidates` of
all N K scores give the first answers of the unlimited rule; only what scores less than every candidate can be missing.
They need no loop over boxes: with S[i, j] = (j better than i, same class, IoU > iou_threshold),

    keep[i] = not any_j (keep[j] and S[i, j])

has one solution, and repeating it from keep = 1 settles the best t detections at the latest after t rounds; the rounds
end when nothing changes, which is after the longest chain of suppressions, a few rounds, not after `candidates`.

Ties: equal scores stand in the order of boxes, then of classes. IoU equal to the threshold does not suppress (strict >,
as TensorFlow's kernels), so boxes that touch stay even at threshold 0. Scores must exceed `score_threshold`. Boxes or
scores that are not finite are never detections. A box without area overlaps nothing.

Chosen by measurement on CPU (benchmarks/nms_speed.py): under XLA a picture costs 1-2 ms, at 845 boxes as at 8732.
tf.image.combined_non_max_suppression (KerasCV's MultiClassNonMaxSuppression) has no XLA and no GPU kernel; in a plain
graph it is several times faster than this while some hundreds of scores exceed the threshold, slower when thousands do
(8 times at 78,000). tf.image.non_max_suppression_padded tells classes apart by moving their boxes, which costs the last
bits of the IoU, and was slower in every case.

Shapes:  B batch, N boxes, K classes, C candidates, D detections.
"""

import tensorflow as tf

from dmkeras.parts.boxes import as_boxes, pairwise_iou
from dmkeras.parts.checks import number, whole_number


def class_aware_nms(boxes, scores, max_detections=100, iou_threshold=0.45, score_threshold=0.005, candidates=512):
    """The best detections of `boxes` [B, N, 4] by `scores` [B, N, K] in [0, 1], best first; float32 inside.

    Returns a dict: "boxes" [B, D, 4], "scores" [B, D], "classes" [B, D] int32, "num_detections" [B] int32. D is
    `max_detections`; what is not filled holds zeros and class -1.
    """
    detections = whole_number("max_detections", max_detections, 1)
    candidates = whole_number("candidates", candidates, 1)
    score_threshold = number("score_threshold", score_threshold)
    iou_threshold = number("iou_threshold", iou_threshold)
    if iou_threshold > 1:
        raise ValueError(f"iou_threshold must be in [0, 1], received {iou_threshold}; divide percent by 100")
    boxes, scores = as_boxes(boxes), tf.cast(scores, tf.float32)
    if boxes.shape.rank != 3 or scores.shape.rank != 3 or not boxes.shape[:2].is_compatible_with(scores.shape[:2]):
        raise ValueError(f"expected boxes [B, N, 4] and scores [B, N, K], received {boxes.shape} and {scores.shape}")
    real = tf.reduce_all(tf.math.is_finite(boxes), -1, keepdims=True) & (scores > score_threshold)  # False for NaN
    scores = tf.where(real & tf.math.is_finite(scores), scores, 0.0)
    boxes, scores, classes = best(boxes, scores, candidates)
    overlapping = (pairwise_iou(boxes, boxes) > iou_threshold) & (classes[:, :, None] == classes[:, None, :])
    keep = settled(overlapping, scores > 0)
    return filled(boxes, tf.where(keep, scores, 0.0), classes, detections)


def best(boxes, scores, count):
    """The `count` best (box, class) pairs, best first: boxes [B, C, 4], scores [B, C], classes [B, C]."""
    # A pair among the best C lies in one of the C rows of highest maximum; in order of rows ties stay as they were.
    rows = tf.math.top_k(tf.reduce_max(scores, -1), at_most(count, tf.shape(scores)[1], scores.shape[1])).indices
    rows = tf.sort(rows, -1)
    boxes, scores = tf.gather(boxes, rows, batch_dims=1), tf.gather(scores, rows, batch_dims=1)
    kinds = scores.shape[2] or tf.shape(scores)[2]
    flat = tf.reshape(scores, [tf.shape(scores)[0], -1])  # [B, rows K]
    flat, places = tf.math.top_k(flat, at_most(count, tf.shape(flat)[1], flat.shape[1]))
    return tf.gather(boxes, places // kinds, batch_dims=1), flat, places % kinds


def at_most(count, there, static):
    return tf.minimum(count, there) if static is None else min(count, static)


def settled(suppressed_by, real):
    """The one solution of keep[i] = real[i] and not any_j<i (keep[j] and S[i, j]), bool [B, C]."""
    places = tf.range(tf.shape(real)[1])
    suppressed_by = suppressed_by & (places[None, :] < places[:, None])  # better ones alone

    def again(keep, _):
        after = real & ~tf.reduce_any(suppressed_by & keep[:, None, :], -1)
        return after, tf.reduce_any(after != keep)

    return tf.while_loop(lambda keep, changed: changed, again, (real, tf.constant(True)))[0]


def filled(boxes, scores, classes, count):
    """The first `count` of those with a score, padded, as the dict of `class_aware_nms`."""
    missing = tf.maximum(count - tf.shape(scores)[1], 0)
    padded = tf.pad(scores, [[0, 0], [0, missing]])
    scores, places = tf.math.top_k(padded, count)
    there = scores > 0
    places = tf.where(there, places, 0)
    boxes, classes = tf.gather(boxes, places, batch_dims=1), tf.gather(classes, places, batch_dims=1)
    return {
        "boxes": tf.where(there[..., None], boxes, 0.0),
        "scores": scores,
        "classes": tf.where(there, classes, -1),
        "num_detections": tf.reduce_sum(tf.cast(there, tf.int32), -1),
    }
