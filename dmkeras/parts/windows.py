"""Windows over a picture: what a function says of each, where they lie, and the pyramid of scales.

    window (r, c)   rows s_y r .. s_y r + h - 1, columns s_x c .. s_x c + w - 1 of a picture
    R = (H - h) // s_y + 1,  S = (W - w) // s_x + 1
    box (r, c)      x1, y1, x2, y2 = (s_x c, s_y r, s_x c + w - 2 m_x, s_y r + h - 2 m_y) / (f_x, f_y, f_x, f_y)

for a picture resized by the factors f = (whole pixels after) / (before), with a border of m pixels, the margin, so that
boxes begin at the border of the picture. At the right and the bottom the border is as wide as the last window needs,
and a picture smaller than the window stands in one as large. Borders are grey (0.5), as letterboxes are. Resizing is
bilinear between pixel centres, antialiased where it shrinks. Sides are numbers where they are known and tensors where
they are not.

Shapes:  B batch, H height, W width, C channels, h and w of a window, R rows and S columns of windows, N windows of all
         pictures, K numbers for a window.
"""

import numpy as np
import tensorflow as tf

from dmkeras.parts.checks import number, whole_number
from dmkeras.parts.upsampling import sides_of

FILL = 0.5


def check_pair(name, value, least):
    """A whole number, or two of them (down, across), as two; ValueError unless they are at least `least`."""
    values = tuple(value) if np.shape(value) == (2,) else (value, value)
    return tuple(whole_number(name, each, least) for each in values)


def check_scales(scales):
    """Scales, numbers above 0 or pairs of them, as pairs of floats (down, across); else ValueError."""
    if isinstance(scales, (str, bytes)) or not np.iterable(scales) or not len(scales):
        raise ValueError(f"expected scales, numbers or pairs (down, across), received {scales!r}")
    pairs = [tuple(scale) if np.shape(scale) == (2,) else (scale, scale) for scale in scales]
    return tuple(tuple(number("each of scales", each, 1e-3) for each in pair) for pair in pairs)


def positions(sides, window, stride):
    """[R, S] for pictures of `sides`, numbers or tensors."""
    return [(side - part) // step + 1 for side, part, step in zip(sides, window, stride)]


def at_every_position(function, images, window, stride, chunk, size):
    """What a function says of every window, `chunk` of them at a time.

    In memory at once are the pixels of `chunk` windows and what `function` makes of them; one loop of the graph goes
    through the windows of all pictures, in reading order.

    Args:
        function: windows [n, h, w, C] -> [n, K] float32, of each alone.
        images: [B, H, W, C]; H and W at least the window's.
        window: (h, w).
        stride: (s_y, s_x).
        chunk: largest n.
        size: K.

    Returns:
        [B, R, S, K], the same whatever `chunk` is.
    """
    height, width = sides_of(images)
    rows, columns = positions((height, width), window, stride)
    pixels = tf.reshape(images, (-1, images.shape[-1]))  # [B H W, C]
    inside = tf.range(window[0])[:, None] * width + tf.range(window[1])  # [h, w]: places of pixels from the first
    total = (tf.shape(images)[0] if images.shape[0] is None else images.shape[0]) * rows * columns  # N

    def said(places):
        picture, place = places // (rows * columns), places % (rows * columns)
        first = (picture * height + place // columns * stride[0]) * width + place % columns * stride[1]
        return function(tf.gather(pixels, first[:, None, None] + inside))

    if not tf.is_tensor(total) and total <= chunk:
        found = said(tf.range(total))
    else:
        each = rows * columns
        count = chunk if tf.is_tensor(each) else min(chunk, each)  # known, so that there may be no picture at all
        one = lambda start: said(tf.minimum(start + tf.range(count), total - 1))  # the last is filled up
        spec = tf.TensorSpec((count, size), "float32")
        found = tf.map_fn(one, tf.range(0, total, count), fn_output_signature=spec, parallel_iterations=1)
        found = tf.reshape(found, (-1, size))[:total]
    return tf.reshape(found, (-1 if tf.is_tensor(total) else images.shape[0], rows, columns, size))


def scaled(images, scale, window, stride, margin):
    """Pictures [B, H, W, C] at one scale of the pyramid, with their borders, and the factors (f_y, f_x)."""
    given = sides_of(images)
    sides = [most(rounded(factor, side), 1) for factor, side in zip(scale, given)]
    if scale != (1.0, 1.0):
        images = tf.clip_by_value(tf.image.resize(images, sides, antialias=True), 0.0, 1.0)
    borders = [[0, 0], [0, 0], [0, 0], [0, 0]]
    for axis, side in enumerate(sides):
        whole = most(side + 2 * margin[axis], window[axis])
        whole += -(whole - window[axis]) % stride[axis]
        borders[1 + axis] = [margin[axis], whole - side - margin[axis]]
    factors = [tf.cast(side, "float32") / tf.cast(was, "float32") for side, was in zip(sides, given)]
    return tf.pad(images, borders, constant_values=FILL), factors


def boxes_of(maps, factors, sides, window, stride, margin):
    """Boxes [R S, 4], xyxy in pixels of a picture of `sides` and cut to it, of the windows of `maps` [B, R, S, K]."""
    corners = []
    for axis, count in enumerate(sides_of(maps)):
        first = tf.cast(tf.range(count) * stride[axis], "float32")
        both = tf.stack([first, first + float(window[axis] - 2 * margin[axis])]) / factors[axis]
        corners.append(tf.minimum(both, tf.cast(sides[axis], "float32")))  # [2, R], [2, S]
    (y1, x1), (y2, x2) = (tf.meshgrid(corners[0][end], corners[1][end], indexing="ij") for end in (0, 1))
    return tf.reshape(tf.stack([x1, y1, x2, y2], -1), (-1, 4))


def over_pixels(maps, factors, sides, window, stride, margin):
    """`maps` [B, R, S, K] over their picture of `sides`, [B, H, W, K]: a pixel has what its nearest window has."""
    for axis, side in enumerate(sides):
        middle = (window[axis] - 2 * margin[axis]) / 2  # of the first window
        pixels = (tf.range(side, dtype="float32") + 0.5) * factors[axis]
        nearest = tf.cast(tf.round((pixels - middle) / stride[axis]), "int32")
        maps = tf.gather(maps, tf.clip_by_value(nearest, 0, sides_of(maps)[axis] - 1), axis=1 + axis)
    return maps


def most(a, b):
    return tf.maximum(a, b) if tf.is_tensor(a) else max(a, b)


def rounded(factor, side):
    return tf.cast(tf.round(factor * tf.cast(side, "float64")), "int32") if tf.is_tensor(side) else round(factor * side)
