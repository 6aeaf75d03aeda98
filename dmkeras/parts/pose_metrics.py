"""How far joints are from where they are: PCP and PDJ.

    diameter    the distance of two opposing joints of the torso, such as left shoulder and right hip, in the truth
    PDJ @ f     percentage of detected joints: a joint counts where it is at most f diameters from the truth
                (Sapp and Taskar, https://doi.org/10.1109/CVPR.2013.471, by way of Toshev and Szegedy,
                https://arxiv.org/abs/1312.4659)
    PCP         percentage of correct parts, strict: a limb counts where both of its ends are each at most half of the
                limb's true length from the truth. The loose rule, the mean of both distances, is not used here.

Both are shares in [0, 1] here. Only joints of at least `least` visibility count, both ends for a limb, both joints of
the torso for a diameter; a person without a diameter, or a limb without length, does not count.

Keypoints are x, y in pixels and visibility: 0 not labelled, 1 hidden, 2 visible; what a joint that does not count has
for x and y, NaN too, never enters.

Shapes:  B persons, J joints, L limbs, F fractions.
"""

import tensorflow as tf

FRACTIONS = (0.05, 0.1, 0.2, 0.5)
LEAST = 1e-3  # pixels: no diameter, no length


def labelled(keypoints, least=1):
    """Keypoints [B, J, 3] -> points [B, J, 2], zeros where they do not count, and whether they count, bool [B, J]."""
    keypoints = tf.cast(keypoints, "float32")
    counts = keypoints[..., 2] >= least
    return tf.where(counts[..., None], keypoints[..., :2], 0.0), counts


def distance(first, second):
    return tf.sqrt(tf.reduce_sum(tf.square(first - second), -1))


def diameters(keypoints, torso, least=1):
    """Diameters [B] in pixels, 1 where there is none, and whether there is one, bool [B]."""
    points, counts = labelled(keypoints, least)
    found = distance(points[:, torso[0]], points[:, torso[1]])
    known = counts[:, torso[0]] & counts[:, torso[1]] & (found > LEAST)
    return tf.where(known, found, 1.0), known


def errors(joints, keypoints, torso, least=1):
    """Distances [B, J] in diameters, 0 where they do not count, and whether they count, bool [B, J]."""
    points, counts = labelled(keypoints, least)
    diameter, known = diameters(keypoints, torso, least)
    counts &= known[:, None]
    return tf.where(counts, distance(tf.cast(joints, "float32"), points) / diameter[:, None], 0.0), counts


def parts(joints, keypoints, limbs, least=1, fraction=0.5):
    """Whether limbs are right by the strict rule, bool [B, L], and whether they count, bool [B, L]."""
    points, counts = labelled(keypoints, least)
    away = distance(tf.cast(joints, "float32"), points)
    first, second = ([limb[end] for limb in limbs] for end in (0, 1))
    take = lambda values, ends: tf.gather(values, tf.constant(ends, "int32"), axis=1)
    length = distance(take(points, first), take(points, second))
    right = tf.maximum(take(away, first), take(away, second)) <= fraction * length
    counts = take(counts, first) & take(counts, second) & (length > LEAST)
    return right & counts, counts


def name(fraction):
    """A fraction of the diameter -> the name of its figure: 0.05 -> "pdj_05"."""
    return f"pdj_{round(100 * fraction):02d}"


def summary(joints, keypoints, torso, limbs=(), fractions=FRACTIONS, least=1):
    """Figures over persons [B, J, 2] beside [B, J, 3].

    Returns:
        {"pdj_05" and its like for each fraction, "mean_error" in diameters, "pcp" where there are limbs}, floats: means
        over all joints, or limbs, that count; 0 where none does.
    """
    away, counts = errors(joints, keypoints, torso, least)
    found = {name(fraction): _mean(away <= fraction, counts) for fraction in fractions}
    found["mean_error"] = _mean(away, counts)
    return found | ({"pcp": _mean(*parts(joints, keypoints, limbs, least))} if limbs else {})


def _mean(values, counts):
    counts = tf.cast(counts, "float32")
    return float(tf.math.divide_no_nan(tf.reduce_sum(tf.cast(values, "float32") * counts), tf.reduce_sum(counts)))
