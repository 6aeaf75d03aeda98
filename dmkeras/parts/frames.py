"""Frames: parallelograms of pictures, what they show, and points in and out.

    frame       a middle m [2] and axes A [2, 2] in pixels, whose columns are the frame's width and height
    point       y = m + A u,  u = A^-1 (y - m);  u is in [-1/2, 1/2]^2 inside the frame
    upright     A = diag(width, height) for a box, as Toshev and Szegedy normalise joints (https://arxiv.org/abs/1312.4659)
    turned      A = R diag(width, height), where a negative width mirrors

Pixel i of a picture has its middle at i + 1/2, between which values are bilinear. Beyond the picture is grey 0.5.

Shapes:  B pictures, H height, W width, C channels, N frames of each picture, P points, h and w of what a frame shows.
"""

import numpy as np
import tensorflow as tf

FILL = 0.5


def upright(boxes):
    """Boxes [..., 4] xyxy -> middles [..., 2] and axes [..., 2, 2]."""
    boxes = tf.cast(boxes, "float32")
    return (boxes[..., :2] + boxes[..., 2:]) / 2, tf.linalg.diag(boxes[..., 2:] - boxes[..., :2])


def squares(middle, side):
    """Middles [..., 2] and sides [...] -> middles and axes of squares."""
    return middle, tf.linalg.diag(tf.stack([side, side], -1))


def into(points, middle, axes):
    """Points [..., P, 2] in pixels -> u [..., P, 2], by frames [..., 2] and [..., 2, 2]."""
    moved = points - middle[..., None, :]
    (a, b), (c, d) = (tf.unstack(row, axis=-1) for row in tf.unstack(axes[..., None, :, :], axis=-2))
    x, y = moved[..., 0], moved[..., 1]
    return tf.stack([d * x - b * y, a * y - c * x], -1) / (a * d - b * c)[..., None]


def out_of(units, middle, axes):
    """The inverse of `into`."""
    return middle[..., None, :] + tf.linalg.matmul(units, axes, transpose_b=True)


def sampled(images, middle, axes, size, finer=1):
    """What frames show: [B, N, h, w, C].

    Args:
        images: [B, H, W, C].
        middle: [B, N, 2], x and y in pixels.
        axes: [B, N, 2, 2].
        size: (h, w).
        finer: samples along each side of a pixel of the answer, which are averaged; for frames larger than the answer.
    """
    rows, columns = finer * size[0], finer * size[1]
    grid = np.stack(np.meshgrid((np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows), -1) - 0.5
    points = out_of(tf.constant(grid.reshape(-1, 2), "float32"), middle, axes)  # [B, N, P, 2]
    found = _bilinear(images, points)
    channels, count = images.shape[-1], tf.shape(middle)[1]
    found = tf.reshape(found, (-1, rows, columns, channels))
    found = tf.nn.avg_pool2d(found, finer, finer, "VALID") if finer > 1 else found
    return tf.reshape(found, (-1, count, *size, channels))


def _bilinear(images, points):
    """Pictures [B, H, W, C] at points [B, N, P, 2]: [B, N P, C]."""
    images = tf.pad(tf.cast(images, "float32"), [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=FILL)
    height, width = tf.shape(images)[1], tf.shape(images)[2]
    flat = tf.reshape(images, (-1, height * width, images.shape[-1]))
    points = tf.reshape(points, (tf.shape(points)[0], -1, 2)) + 0.5  # as indices of the padded picture
    place = tf.clip_by_value(points, 0.0, tf.cast(tf.stack([width, height]) - 1, "float32"))
    first = tf.minimum(tf.cast(tf.floor(place), "int32"), tf.stack([width, height]) - 2)
    x, y = tf.split(place - tf.cast(first, "float32"), 2, -1)  # [B, N P, 1] each
    index = first[..., 1] * width + first[..., 0]
    near = [tf.gather(flat, index + step, batch_dims=1) for step in (0, 1, width, width + 1)]
    above, below = near[0] + x * (near[1] - near[0]), near[2] + x * (near[3] - near[2])
    return above + y * (below - above)
