"""What classifiers of pictures have in common: their endpoints, the loss of their logits, the doors of their labels.

Shapes:  B batch, H height, W width, C colours, K classes.
"""

import numpy as np
import tensorflow as tf

from dmkeras.parts.checks import check_images, is_symbolic
from dmkeras.parts.picture_files import decoded


def signatures(model):
    """The endpoints of a model [B, *image_shape] -> logits [B, K]; that of picture files wants one or three colours."""

    def answer(images):
        logits = model(tf.ensure_shape(images, (None, *model.image_shape)), training=False)
        return {"logits": logits, "probabilities": tf.nn.softmax(logits)}

    images = tf.TensorSpec((None, *model.image_shape), "float32", name="images")
    found = {"serving_default": (answer, [images])}
    if model.image_shape[2] in (1, 3):
        image_bytes = tf.TensorSpec((None,), "string", name="image_bytes")
        found["classify_bytes"] = (lambda image_bytes: answer(decoded(image_bytes, model.image_shape)), [image_bytes])
    return found


def cross_entropy(labels, logits, sample_weight=None):
    """The cross-entropy of labels [B] or [B, 1] under logits [B, K], averaged over the batch, nats."""
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(tf.reshape(labels, [-1]), "int32"), logits)
    return tf.reduce_mean(loss if sample_weight is None else loss * tf.cast(sample_weight, "float32"))


def check_pictures(images, image_shape, least=1):
    """ValueError unless `images` is [B, H, W, C] in [0, 1] of the C of `image_shape` and sides of at least `least`."""
    sides = tuple(getattr(images, "shape", ()))[1:3]
    if any(side is not None and side < least for side in sides):
        raise ValueError(f"expected pictures of at least {least}x{least}, received {tuple(images.shape)}; enlarge them")
    check_images(images, (*sides, image_shape[2]) if len(sides) == 2 else image_shape)


def check_labels(labels, num_classes):
    """ValueError unless `labels` is [B] or [B, 1] of whole numbers from 0 to K - 1; symbolic tensors pass."""
    if is_symbolic(labels):
        return
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu" or labels.ndim not in (1, 2) or labels.size != len(labels):
        received = f"{list(labels.shape)} of {labels.dtype}"
        raise ValueError(f"expected whole-numbered labels [B], received {received}; one-hot rows: take the argmax")
    if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
        received = f"{labels.min()} to {labels.max()}"
        raise ValueError(f"expected labels from 0 to {num_classes - 1}, received {received}")
