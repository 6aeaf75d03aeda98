"""Overlaps of segmentations with truths, of the foreground and of each class, in the graph and in NumPy.

    Dice_k(P, T) = 2 |P_k & T_k| / (|P_k| + |T_k|)

P_0 and T_0 are the foreground here: any class against none. P may be probabilities p: then |P_k| is the sum of p_k and
|P_k & T_k| that of p_k where T is k. Pixels of truth -1 (void) are left out; those of the segmentation belong to no
class. -1 stands for an overlap that there is not: nan would poison gradients.

Shapes:  B pictures, R references, H, W sides, K classes without background.
"""

import numpy as np
import tensorflow as tf

from dmkeras.parts import segmentation_metrics


def against_references(found, truths, num_classes):
    """Dice float32 [B, R, 1 + K] of probabilities [B, R, H, W, 1 + K] with truths int32 [R, H, W], in the graph.

    A reference without a class is no witness of it: -1, even where nothing was found either.
    """
    known = tf.cast(truths[..., None] >= 0, "float32")  # [R, H, W, 1]
    true = tf.one_hot(truths, num_classes + 1)
    foreground = lambda labels: tf.concat([tf.reduce_sum(labels[..., 1:], -1, keepdims=True), labels[..., 1:]], -1)
    found, true = foreground(found * known), foreground(true)
    shared = tf.einsum("brhwk,rhwk->brk", found, true)
    sizes = tf.reduce_sum(true, [1, 2])  # [R, 1 + K]
    dice = 2 * shared / tf.maximum(tf.reduce_sum(found, [2, 3]) + sizes, 1.0)
    return tf.where(sizes > 0, dice, -1.0)


def of_nearest(overlaps, images, references, count):
    """`overlaps` [B, R, 1 + K] where the references that are not among the `count` most like the picture have -1.

    Alike are pictures whose nine deciles of each channel are near by the mean absolute difference: a bright picture is
    not like its negative, and no reverse classifier could tell that it was taught the negative's truth. A class that
    none of the nearest has keeps all its witnesses.

    Args:
        overlaps: [B, R, 1 + K] of `against_references`.
        images: float32 [B, H, W, C].
        references: [R, H, W, C].
        count: from 1 to R.
    """

    def deciles(images):
        pixels = tf.sort(tf.reshape(images, [-1, images.shape[1] * images.shape[2], images.shape[3]]), axis=1)
        return tf.gather(pixels, np.rint(np.linspace(0.1, 0.9, 9) * (pixels.shape[1] - 1)).astype("int32"), axis=1)

    apart = tf.reduce_mean(tf.abs(deciles(images)[:, None] - deciles(references)[None]), [2, 3])  # [B, R]
    rank = tf.argsort(tf.argsort(apart, stable=True), stable=True)
    near = tf.where(rank[..., None] < count, overlaps, -1.0)
    return tf.where(tf.reduce_max(near, 1, keepdims=True) >= 0, near, overlaps)


def real_overlaps(found, truths, num_classes):
    """Dice float32 [B, 2 + K] of maps [B, H, W] with their own truths: mean over classes, foreground, each class.

    -1 where neither has the class. The mean is over the classes that one of the two has.
    """
    rows = []
    for one, truth in zip(np.maximum(found, 0), truths):
        outer = [np.where(values < 0, -1, values > 0).astype("int32") for values in (truth, one)]
        inner = segmentation_metrics.dice(truth, one, num_classes + 1)[1:]
        told = inner[np.isfinite(inner)]
        rows.append([told.mean() if len(told) else np.nan, segmentation_metrics.dice(*outer, 2)[1], *inner])
    return np.nan_to_num(np.array(rows, "float32").reshape(-1, 2 + num_classes), nan=-1.0)


def check_labels(name, labels, size, num_classes):
    """`labels` as int32 [B, *size]; ValueError unless they are whole numbers from 0 to K, or -1 for void."""
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise ValueError(f"expected {name} of whole numbers, received {labels.dtype}; take the argmax of scores")
    if labels.ndim != 3 or labels.shape[1:] != tuple(size):
        expected = f"[B, {size[0]}, {size[1]}], the pictures' size"
        raise ValueError(f"expected {name} {expected}, received {list(labels.shape)}; resize them by nearest pixel")
    unknown = labels[(labels < -1) | (labels > num_classes)]
    if unknown.size:
        known = f"labels from 0 to {num_classes}, or -1 where there is no answer,"
        raise ValueError(f"expected {known} in {name}, received {unknown[0]} among others")
    return labels.astype("int32")


def check_overlaps(name, values, shape):
    """ValueError unless `values` is [N, *shape] of numbers in [0, 1], or -1 for none; symbolic tensors pass."""
    if isinstance(values, tf.Tensor) and not tf.executing_eagerly():
        return
    values = np.asarray(values)
    if values.shape[1:] != tuple(shape) or values.dtype.kind not in "fiu":
        received = f"{values.dtype} {list(values.shape)}"
        raise ValueError(f"expected {name} [N, {', '.join(map(str, shape))}], received {received}")
    wrong = values[~((values >= 0) & (values <= 1) | (values == -1))]
    if wrong.size:
        raise ValueError(f"expected {name} in [0, 1], or -1 for none, received {wrong[0]}")


def decode_pairs(image_bytes, label_bytes, size, channels):
    """Pictures float32 [B, *size, channels] and labels int32 [B, *size] from files, strings [B], in the graph.

    Grey values are labels. Pictures are resized bilinearly, antialiased, labels by the nearest pixel. Files of
    different sizes, or that are no pictures, end in TensorFlow's InvalidArgumentError.
    """

    def pixels(file, channels):
        found = tf.io.decode_image(file, channels=channels, expand_animations=False)
        return tf.ensure_shape(found, [None, None, channels])

    def read(files):
        image, labels = pixels(files[0], channels), pixels(files[1], 1)
        message = "a segmentation has another size than its picture"
        check = tf.debugging.Assert(tf.reduce_all(tf.shape(image)[:2] == tf.shape(labels)[:2]), [message])
        with tf.control_dependencies([] if check is None else [check]):  # None where nothing is traced
            image = tf.image.resize(tf.cast(image, "float32") / 255.0, size, antialias=True)
        labels = tf.cast(tf.image.resize(labels, size, "nearest")[..., 0], "int32")
        return tf.clip_by_value(image, 0.0, 1.0), labels

    answers = tf.TensorSpec([*size, channels], "float32"), tf.TensorSpec(list(size), "int32")
    return tf.map_fn(read, (image_bytes, label_bytes), fn_output_signature=answers)
