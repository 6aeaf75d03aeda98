"""Picture files in the graph: BMP, GIF (the first frame), JPEG or PNG to pictures of one size, and pictures to PNG.

Alpha is dropped, 16 bits become 8, EXIF orientation is not applied. Bytes that are no picture end in TensorFlow's
InvalidArgumentError, for the whole batch.

Shapes:  B batch, H height, W width, C channels, 1 or 3.
"""

import numpy as np
import tensorflow as tf

LUMA = np.array([0.299, 0.587, 0.114], "float32")  # of red, green and blue (ITU-R BT.601)


def decoded(image_bytes, image_shape):
    """Picture files [B] -> float32 [B, H, W, C] in [0, 1], stretched to `image_shape`, whose C is 1 or 3."""
    height, width, channels = image_shape

    def of_file(file):
        picture = tf.io.decode_image(file, 3, "float32", expand_animations=False)
        if channels == 1:  # by hand: TensorFlow's own way to grey knows neither BMP nor GIF
            picture = tf.reduce_sum(picture * LUMA, -1, keepdims=True)
        return tf.image.resize(picture, (height, width), antialias=True)

    image_bytes = tf.ensure_shape(image_bytes, (None,))
    images = tf.map_fn(of_file, image_bytes, fn_output_signature=tf.TensorSpec(image_shape))
    return tf.clip_by_value(images, 0.0, 1.0)


def encoded(images):
    """[B, H, W, 1 or 3] in [0, 1] -> [B] PNG files."""
    levels = tf.cast(tf.round(255.0 * tf.clip_by_value(images, 0.0, 1.0)), "uint8")
    return tf.map_fn(tf.io.encode_png, levels, fn_output_signature=tf.TensorSpec((), "string"))
