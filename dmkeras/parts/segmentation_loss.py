"""The loss of a segmenter: cross-entropy of pixels, those without an answer left out, classes weighted where asked.

    loss = sum over pixels with y >= 0 of w[y] v (-log softmax(logits)[y])  /  sum over the same pixels of w[y] v

y is the class of a pixel, w[k] the weight of a class, v that of a picture or pixel (sample weights); -1 is void. The
loss is thus a weighted mean, in nats a pixel: neither the number of void pixels nor the scale of the weights changes
the size of a step. Long et al. (https://arxiv.org/abs/1411.4038) sum instead and take rates of 1e-10. A batch of
nothing but void has a loss of 0 and no gradient. It is computed in float32 whatever the logits are.

Median frequency balancing (Eigen and Fergus, https://arxiv.org/abs/1411.4734, section 6.3.2; SegNet,
https://arxiv.org/abs/1511.00561, section 4):

    w[k] = median of the frequencies / frequency[k],   frequency[k] = pixels of k / pixels of the pictures that show k

Without weights this is keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1), which has no
weights of classes beside void. A model expected to use it has logits [B, H, W, K] of the size of its labels.

Shapes:  B batch, H height, W width, K classes, N pictures.
"""

import numpy as np
import tensorflow as tf

from dmkeras.parts.segmentation_metrics import VOID


def pixel_cross_entropy(labels, logits, class_weights=None, sample_weight=None):
    """The loss of the module, a float32 scalar.

    Args:
        labels: [B, H, W] whole numbers, 0 to K - 1, -1 for void.
        logits: [B, H, W, K] of any float.
        class_weights: K numbers of at least 0, or None for ones.
        sample_weight: [B], or [B, H, W], or None for ones.

    Raises:
        ValueError: for labels of another size than the logits, or another number of weights than of classes.
    """
    check_sizes(labels.shape, logits.shape)
    labels, logits = tf.cast(labels, "int32"), tf.cast(logits, "float32")
    known = labels >= 0
    classes = tf.where(known, labels, 0)
    weights = tf.cast(known, "float32")
    if class_weights is not None:
        weights *= tf.gather(tf.constant(checked_weights(class_weights, logits.shape[-1]), "float32"), classes)
    if sample_weight is not None:
        v = tf.cast(sample_weight, "float32")
        weights *= v if v.shape.rank == 3 else tf.reshape(v, [-1, 1, 1])
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits)
    return tf.math.divide_no_nan(tf.reduce_sum(weights * losses), tf.reduce_sum(weights))


def check_sizes(labels, logits):
    """ValueError unless labels of that shape can have logits of that shape, as far as both are known."""
    if len(labels) != 3 or len(logits) != 4 or not tf.TensorShape(labels).is_compatible_with(logits[:3]):
        wanted = "expected labels [B, H, W] of the size of the pictures"
        raise ValueError(f"{wanted}, received {tuple(labels)} for scores {tuple(logits)}; resize labels to the nearest")


def checked_weights(class_weights, num_classes):
    """`class_weights` as `num_classes` floats; ValueError unless they are numbers of at least 0, not all of them 0."""
    try:
        weights = np.asarray(class_weights, "float64")
    except (TypeError, ValueError):
        weights = np.array(np.nan)
    fits = weights.shape == (num_classes,) and np.isfinite(weights).all() and (weights >= 0).all() and weights.any()
    if not fits:
        wanted = f"class_weights must be {num_classes} numbers of at least 0, one a class, not all 0"
        raise ValueError(f"{wanted}, received {class_weights!r}")
    return tuple(weights.tolist())


def median_frequency_weights(labels, num_classes):
    """The weights of classes of the module, K floats; 1 for a class that no pixel has.

    Args:
        labels: [N, H, W], or a list of maps [H, W] of any size; whole numbers, -1 for void.
        num_classes: K.

    Raises:
        ValueError: for classes out of range.
    """
    counts = np.zeros((0, num_classes), "int64")
    for one in labels:
        one = np.asarray(one)
        if one.dtype.kind not in "iu" or (one.size and not VOID <= one.min() <= one.max() < num_classes):
            received = f"{one.dtype} from {one.min()} to {one.max()}" if one.size else f"{one.dtype}"
            raise ValueError(f"expected whole numbers from -1 to {num_classes - 1}, received {received}")
        counts = np.concatenate([counts, np.bincount(one[one != VOID].ravel(), minlength=num_classes)[None]])
    shown = ((counts > 0) * counts.sum(1, keepdims=True)).sum(0)  # [K]
    pixels = counts.sum(0)
    frequency = pixels[shown > 0] / shown[shown > 0]
    weights = np.ones(num_classes)
    weights[shown > 0] = np.median(frequency) / frequency if frequency.size else 1.0
    return tuple(weights.tolist())
