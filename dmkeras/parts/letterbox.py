"""Letterbox: a picture of any size inside the model's, its proportions kept, and boxes there and back.

    s = min(H / h, W / w);  h' = max(1, round(s h));  w' = max(1, round(s w))
    offset_x = floor((W - w') / 2);  offset_y = floor((H - h') / 2)
    x_model = (w' / w) x + offset_x;  y_model = (h' / h) y + offset_y

The picture is resized to whole pixels h' x w', bilinearly between pixel centres, antialiased where it shrinks, put in
the middle, and the rest filled with grey 0.5, as darknet does (letterbox_image of src/image.c,
https://github.com/pjreddie/darknet). The two scales are those of the rounded sides, so that boxes are exact where the
sides do not divide. Deviations from darknet: it does not antialias, lays the outermost pixel centres (not the borders)
upon one another, cuts h' and w' down instead of rounding them, and its boxes forget that rounding.

Units: pictures float32 in [0, 1]; boxes xyxy in pixels, x2 and y2 exclusive; a placement is scale_x, scale_y, offset_x,
offset_y; sizes are height, width of the picture sent. Rows of class -1 may hold any box: they come back as zeros.
Everything runs inside tf.function, tf.data and a SavedModel, with sizes known or not.

Shapes:  B pictures, h height and w width of a picture sent, H height and W width of the model's, C colours, N boxes,
D detections.
"""

import numpy as np
import tensorflow as tf

from dmkeras.parts.checks import number, whole_number


def letterbox(image, size, fill=0.5):
    """(image [H, W, C], placement [4]) of one picture [h, w, C] in the model's `size` (H, W)."""
    height, width = check_size(size)
    image = check_picture(image)
    fill = number("fill", fill, below=np.nextafter(1, 2))
    sent = tf.shape(image)[:2]
    sides = tf.cast(sent, tf.float32)
    scale = tf.reduce_min(tf.constant([height, width], tf.float32) / sides)
    inner = tf.maximum(tf.cast(tf.round(scale * sides), tf.int32), 1)  # [h', w']
    before = (tf.constant([height, width]) - inner) // 2
    after = tf.constant([height, width]) - inner - before
    resized = tf.image.resize(image, inner, antialias=True)  # [h', w', C]
    resized = tf.clip_by_value(resized, 0.0, 1.0)  # weights add to 1 but for rounding
    padded = tf.pad(resized, tf.pad(tf.stack([before, after], axis=1), [[0, 1], [0, 0]]), constant_values=fill)
    scales = tf.cast(inner, tf.float32) / sides
    placement = tf.concat([scales[::-1], tf.cast(before[::-1], tf.float32)], axis=0)
    return tf.ensure_shape(padded, [height, width, image.shape[2]]), tf.ensure_shape(placement, [4])


def to_model(boxes, placement):
    """Boxes [..., N, 4] of the picture sent in pixels of the model's, by the picture's placement [..., 4]."""
    scales, offsets = parts(placement)
    return tf.cast(boxes, tf.float32) * scales + offsets


def to_picture(boxes, placement):
    """The inverse of `to_model`: boxes [..., N, 4] of the model's picture in pixels of the picture sent."""
    scales, offsets = parts(placement)
    return (tf.cast(boxes, tf.float32) - offsets) / scales


def parts(placement):
    """Scales and offsets of x1, y1, x2, y2, each [..., 1, 4]."""
    placement = tf.cast(placement, tf.float32)[..., None, :]
    scales, offsets = placement[..., :2], placement[..., 2:]
    return tf.concat([scales, scales], axis=-1), tf.concat([offsets, offsets], axis=-1)


def decode_and_letterbox(image_bytes, size):
    """BMP, GIF (its first frame), JPEG or PNG files as strings [B] -> (images [B, H, W, 3], placements [B, 4], sizes).

    Grey pictures get three equal channels, alpha is dropped, 16 bits become 8, EXIF orientation is not applied.
    `sizes`, int32 [B, 2], are height and width of each picture sent. Bytes that are no picture, or a part of one, end
    in TensorFlow's InvalidArgumentError, for the whole batch.
    """
    size = check_size(size)

    def read(file):
        image = tf.io.decode_image(file, channels=3, expand_animations=False)
        image = tf.ensure_shape(image, [None, None, 3])
        return *letterbox(tf.cast(image, tf.float32) / 255.0, size), tf.shape(image)[:2]

    answers = tf.TensorSpec([*size, 3], tf.float32), tf.TensorSpec([4], tf.float32), tf.TensorSpec([2], tf.int32)
    return tf.map_fn(read, tf.convert_to_tensor(image_bytes, tf.string), fn_output_signature=answers)


def answer(detections, placements, sizes):
    """Detections in pixels of the model, mapped to the pictures sent and clipped to them, by TensorFlow's names.

    Args:
        detections: {"boxes" [B, D, 4], "scores" [B, D], "classes" [B, D], "num_detections" [B]}.
        placements: [B, 4], of `letterbox`.
        sizes: [B, 2], height and width of the pictures sent.

    Returns:
        {"detection_boxes" [B, D, 4]: ymin, xmin, ymax, xmax in [0, 1] of the picture sent, "detection_scores" [B, D],
        "detection_classes" int32 [B, D], 0-based, "num_detections" int32 [B]}; the rows after these are zeros of class
        -1.
    """
    height, width = tf.unstack(tf.cast(sizes, tf.float32)[:, None, :], axis=-1)  # [B, 1] each
    x1, y1, x2, y2 = tf.unstack(to_picture(detections["boxes"], placements), axis=-1)
    boxes = tf.stack([y1 / height, x1 / width, y2 / height, x2 / width], axis=-1)
    classes = tf.cast(detections["classes"], tf.int32)
    count = tf.cast(detections["num_detections"], tf.int32)
    real = (classes >= 0) & (tf.range(tf.shape(classes)[1]) < count[:, None])
    return {
        "detection_boxes": tf.where(real[..., None], tf.clip_by_value(boxes, 0.0, 1.0), 0.0),
        "detection_scores": tf.where(real, tf.cast(detections["scores"], tf.float32), 0.0),
        "detection_classes": tf.where(real, classes, -1),
        "num_detections": count,
    }


def check_size(size, name="size"):
    """`size` as (height, width); ValueError unless it is two whole numbers of at least 1."""
    if np.shape(size) != (2,):
        raise ValueError(f"{name} must be (height, width), received {size}")
    return tuple(whole_number(f"each of {name}", side, 1) for side in size)


def check_picture(image):
    """`image` as a tensor [h, w, C]; ValueError for another rank, an empty picture or pixels that are no floats."""
    image = tf.convert_to_tensor(image)
    if image.shape.rank != 3 or 0 in image.shape.as_list():
        raise ValueError(f"expected one picture [h, w, C], received {image.shape}; map a batch picture by picture")
    if not image.dtype.is_floating:
        raise ValueError(f"expected a picture of floats in [0, 1], received {image.dtype.name}; divide by 255")
    return tf.cast(image, tf.float32)
