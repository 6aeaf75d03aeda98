"""The loss of SSD: which prior learns what, hard negatives, and boxes back from offsets.

Liu et al., "SSD: Single Shot MultiBox Detector", 2016 (https://arxiv.org/abs/1512.02325), section 2.2; where the paper
is silent, multibox_loss_layer.cpp and bbox_util.cpp of https://github.com/weiliu89/caffe, branch ssd.

    x_ij        1 if prior i learns truth j: each truth has the best prior left, best pair first (the bipartite step),
                then a prior that is still free learns the truth of highest IoU, if that is at least `least_iou`
    L_loc       sum over i, j of x_ij smooth_l1(l_i - t_ij),    t = boxes.encode(truth, prior, variances)         (2)
    smooth_l1   d^2 / 2 where |d| < 1, |d| - 1/2 elsewhere, summed over the four numbers
    L_conf      sum over matched i of -ln softmax(c_i)[class], and over chosen negatives of -ln softmax(c_i)[0]   (3)
    L           (L_conf + alpha L_loc) / N, N the matched priors; 0 where N is 0                                  (1)

The background is class 0 of the logits; a truth's class k is number k + 1 there. Negatives are chosen in each picture:
of the priors without a truth those whose background loss is highest, min(ratio N, how many there are), of equal ones
the first. That is a rank, not a loop: batched, of static shapes.

A truth with no area, not finite or of class -1 (padding) changes nothing: its picture's priors are matched as if it
were not there. Where a prior learns nothing, its own box stands for the truth before any logarithm, so that gradients
stay finite. A truth that overlaps no prior has none.

Deviation: N counts over the batch, as in Caffe; a picture without truths therefore adds nothing (it has no negatives),
as in both.

Shapes:  B batch, N priors, M truths, padded ones too, K classes, 1 + K logits.
"""

import tensorflow as tf

from dmkeras.parts import boxes as box
from dmkeras.parts.matching import match

VARIANCES = (0.1, 0.1, 0.2, 0.2)
LARGEST = 8.0  # of the logarithm of a side over its prior's: no picture reaches it


def losses(raw, truths, classes, priors, variances=VARIANCES, least_iou=0.5, ratio=3.0):
    """The sums of the module for each picture, not yet divided by N.

    Args:
        raw: [B, N, 4 + 1 + K], offsets and logits.
        truths: [B, M, 4] xyxy in pixels.
        classes: [B, M] whole numbers, -1 for padding.
        priors: [N, 4] xyxy in pixels.
        variances: by which offsets are told larger.
        least_iou: of a prior and the truth that it learns, but for the bipartite step.
        ratio: negatives for each matched prior.

    Returns:
        {"localization", "confidence", "matched", "negatives": [B] float32}; the last two are counts.
    """
    raw = tf.cast(raw, "float32")
    offsets, logits = raw[..., :4], raw[..., 4:]
    goals, kinds = targets(truths, classes, priors, variances, least_iou)
    matched = kinds > 0
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(kinds, logits)  # [B, N]
    count = tf.reduce_sum(tf.cast(matched, "float32"), -1)
    chosen = hard_negatives(cross_entropy, ~matched, tf.floor(ratio * count))
    terms = {
        "localization": tf.where(matched, tf.reduce_sum(smooth_l1(offsets - goals), -1), 0.0),
        "confidence": tf.where(matched | chosen, cross_entropy, 0.0),
        "matched": tf.cast(matched, "float32"),
        "negatives": tf.cast(chosen, "float32"),
    }
    return {name: tf.reduce_sum(values, -1) for name, values in terms.items()}


def targets(truths, classes, priors, variances=VARIANCES, least_iou=0.5):
    """What each prior learns: offsets [B, N, 4], zeros where nothing, and the class among logits [B, N], 0 likewise."""
    truths, classes = tf.cast(truths, "float32"), tf.cast(classes, "int32")
    real = box.is_real(truths, classes)
    overlaps = box.pairwise_iou(priors, truths)  # [B, N, M]
    index, label = match(overlaps, real, (least_iou,), (0, 1), force_best="bipartite")
    matched = label == 1
    # One row more: where there are no rows at all (M = 0), index 0 has to be something.
    own = lambda values, rest: tf.gather(tf.pad(values, [[0, 0], [0, 1], *rest]), index, batch_dims=1)
    boxes = tf.where(matched[..., None], own(truths, [[0, 0]]), priors)
    return box.encode(boxes, priors, variances), tf.where(matched, own(classes, []) + 1, 0)


def hard_negatives(losses, allowed, count):
    """bool [B, N]: of the allowed [B, N] the `count` [B] of highest loss, or all; of equal ones the first."""
    losses = tf.where(allowed, losses, -1.0)  # a cross-entropy is at least 0
    falling = tf.sort(losses, direction="DESCENDING")
    place = tf.clip_by_value(tf.cast(count, "int32") - 1, 0, tf.shape(losses)[1] - 1)
    least = tf.gather(falling, place[:, None], batch_dims=1)  # [B, 1], of the chosen
    above, equal = losses > least, losses == least
    left = count[:, None] - tf.reduce_sum(tf.cast(above, "float32"), -1, keepdims=True)
    return allowed & (above | (equal & (tf.cumsum(tf.cast(equal, "float32"), -1) <= left)))


def smooth_l1(difference):
    """d^2 / 2 where |d| < 1, |d| - 1/2 elsewhere."""
    size = tf.abs(difference)
    return tf.where(size < 1, difference**2 / 2, size - 0.5)


def decode(raw, priors, variances=VARIANCES):
    """Raw numbers [B, N, 4 + 1 + K] -> boxes [B, N, 4] xyxy in pixels, scores [B, N, K] without the background's."""
    raw = tf.cast(raw, "float32")
    return box.decode(raw[..., :4], priors, variances, LARGEST), tf.nn.softmax(raw[..., 4:])[..., 1:]
