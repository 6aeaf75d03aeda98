"""The doors of a detector: what `fit` is given, pictures of other sizes, and the endpoints.

Truths come as {"boxes": [B, M, 4] float32 xyxy in pixels, "classes": [B, M] whole numbers, -1 for padding}. Answers are
those of the TensorFlow detection models (letterbox.answer).

Shapes:  B batch, H height, W width, C channels of the model's pictures; h, w of those sent; M truths, D detections.
"""

import numpy as np
import tensorflow as tf

from dmkeras.parts import letterbox
from dmkeras.parts.checks import is_symbolic

TOLD = ("boxes", "scores", "classes", "num_detections")  # by every detector


def check_truths(truths, num_classes):
    """ValueError unless `truths` are boxes in pixels and classes below `num_classes`; symbolic tensors pass.

    A box without area passes, since data have them and no loss minds; boxes most of which are reversed do not.
    """
    if not isinstance(truths, dict) or not {"boxes", "classes"} <= set(truths):
        received = f"a dict of {', '.join(truths)}" if isinstance(truths, dict) else type(truths).__name__
        raise ValueError(f'expected truths {{"boxes": [B, M, 4], "classes": [B, M]}}, received {received}')
    if is_symbolic(truths["boxes"]):
        return
    boxes, classes = np.asarray(truths["boxes"]), np.asarray(truths["classes"])
    if boxes.ndim != 3 or boxes.shape[2] != 4 or classes.shape != boxes.shape[:2]:
        raise ValueError(f"expected boxes [B, M, 4] and classes [B, M], received {boxes.shape} and {classes.shape}")
    if classes.size and (classes.min() < -1 or classes.max() >= num_classes or (classes != np.rint(classes)).any()):
        received = f"{classes.min()} to {classes.max()}"
        raise ValueError(f"expected classes from 0 to {num_classes - 1}, and -1 for padding, received {received}")
    boxes = boxes[classes >= 0]  # [n, 4]
    if not np.isfinite(boxes).all():
        raise ValueError("expected boxes of finite numbers, received some that are not; give padding class -1")
    if len(boxes) and ((boxes[:, 2:] < boxes[:, :2]).any(1)).mean() > 0.5:
        raise ValueError("expected boxes x1, y1, x2, y2, received most with x2 < x1 or y2 < y1; boxes.convert helps")
    if len(boxes) and 0 < np.abs(boxes).max() <= 1:
        raise ValueError("expected boxes in pixels, received numbers of at most 1; multiply by width and height")


def check_threshold(name, value):
    """`value` as a float in [0, 1], else ValueError."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be a number in [0, 1], received {value!r}")
    return float(value)


def any_size(detect, images, size):
    """`detect` for pictures [B, h, w, C], or one [h, w, C], of any size: what it finds in pixels of those given.

    Args:
        detect: [B, H, W, C] -> {"boxes" [B, D, 4] in pixels of the model, "scores", "classes", "num_detections"}.
        images: float in [0, 1].
        size: (H, W); pictures of another size are letterboxed to it, one by one.
    """
    images = tf.convert_to_tensor(images)
    if images.shape.rank == 3:
        return {name: values[0] for name, values in any_size(detect, images[None], size).items()}
    if tuple(images.shape[1:3]) == tuple(size):
        return detect(images)
    given = images.shape[-1]
    answers = tf.TensorSpec([*size, given], "float32"), tf.TensorSpec([4], "float32")
    boxed, placements = tf.map_fn(lambda image: letterbox.letterbox(image, size), images, fn_output_signature=answers)
    found = detect(boxed)
    sides = tf.cast(tf.shape(images)[1:3], "float32")
    boxes = letterbox.to_picture(found["boxes"], placements)
    boxes = tf.clip_by_value(boxes, 0.0, tf.tile(sides[::-1], [2]))
    return {**found, "boxes": tf.where(found["classes"][..., None] >= 0, boxes, 0.0)}


def signatures(detect, image_shape):
    """The endpoints of a detector: `serving_default` and `detect` of pictures, `detect_bytes` of files of any size.

    Args:
        detect: [B, H, W, C] -> {"boxes" [B, D, 4] in pixels of the model, "scores", "classes", "num_detections"}; what
            else it tells of each detection, "paths" for example, is answered as "detection_paths".
        image_shape: (H, W, C).
    """

    def answer(images, placements, sizes):
        found = detect(images)
        further = {f"detection_{name}": values for name, values in found.items() if name not in TOLD}
        return {**letterbox.answer(found, placements, sizes), **further}

    def of_images(images):
        images = tf.ensure_shape(images, (None, *image_shape))
        count = tf.shape(images)[0]
        same, sizes = tf.tile([[1.0, 1.0, 0.0, 0.0]], [count, 1]), tf.tile([list(image_shape[:2])], [count, 1])
        return answer(images, same, sizes)

    def of_bytes(image_bytes):
        images, placements, sizes = letterbox.decode_and_letterbox(
            tf.ensure_shape(image_bytes, (None,)), image_shape[:2]
        )
        return answer(images, placements, sizes)

    images = tf.TensorSpec((None, *image_shape), "float32", name="images")
    image_bytes = tf.TensorSpec((None,), "string", name="image_bytes")
    found = {"serving_default": (of_images, [images]), "detect": (of_images, [images])}
    return {**found, "detect_bytes": (of_bytes, [image_bytes])} if image_shape[2] == 3 else found
