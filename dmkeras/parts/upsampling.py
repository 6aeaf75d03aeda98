"""Four ways from small maps to large ones: repeated, nailed, put back where the maxima were, or learned.

A window is h x w pixels, an output pixel (y, x) lies in window (y // h, x // w), and small maps have a pixel a window.

    nearest        out[y, x] = in[y // h, x // w]
    bed of nails   out[y, x] = in[y // h, x // w] at the top left of a window, 0 elsewhere
    max unpooling  out[y, x] = in[y // h, x // w] where the window's maximum was, 0 elsewhere; every channel has its own
                   positions (Zeiler and Fergus, https://arxiv.org/abs/1311.2901; SegNet, https://arxiv.org/abs/1511.00561)
    transposed     out[y] = sum_i in[i] kernel[y + before - s i]: the adjoint of the convolution of stride s whose
                   padding is "SAME" (Long, Shelhamer and Darrell, https://arxiv.org/abs/1411.4038, section 3.3)

    bilinear kernel of size k:  1 - |y - c| / f,  f = (k + 1) // 2,  c = f - 1 for an odd k, f - 1/2 for an even one
                   as `upsample_filt` of https://github.com/shelhamer/fcn.berkeleyvision.org; with k = 2 s - s % 2 the
                   transposed convolution of stride s interpolates bilinearly between pixel centres, and fades to zero
                   within half a window of the border, beyond which it sees nothing

Pooling whose windows do not fit: sides are rounded up, the last windows have fewer pixels (none is made up in front, as
TensorFlow's "SAME" does for windows of more than two). Of equal maxima the first, by rows, is the one that counts: it
alone has the gradient, and it alone is put back. Positions are places within the window, i w + j, a byte each, not places
within the picture or the batch as those of tf.nn.max_pool_with_argmax, whose operation has no XLA kernel on CPUs and is
slower there without (benchmarks/unpooling_speed.py).

Shapes:  B batch, H height, W width, C channels, h and w sides of a window, F channels out, k side of a kernel, s stride.
"""  # noqa: E501 - a link

import numpy as np
import tensorflow as tf

from dmkeras.parts.checks import whole_number


def nearest(maps, size=2):
    """[B, H, W, C] -> [B, h H, w W, C], every pixel repeated."""
    height, width = check_window(size)
    return tf.repeat(tf.repeat(check_maps(maps), height, 1), width, 2)


def bed_of_nails(maps, size=2):
    """[B, H, W, C] -> [B, h H, w W, C], every pixel at the top left of its window, zeros elsewhere."""
    height, width = check_window(size)
    behind = [[0, 0], [0, 0], [0, height - 1], [0, 0], [0, width - 1], [0, 0]]
    nails = tf.pad(check_maps(maps)[:, :, None, :, None], behind)
    return _joined(nails, maps, height, width)


def max_pool(maps, size=2):
    """[B, H, W, C] -> maxima [B, ceil(H / h), ceil(W / w), C] and their places in the windows, uint8 of that shape."""
    height, width = check_window(size)
    maps = check_maps(maps)
    missing = [-side % step for side, step in zip(sides_of(maps), (height, width))]
    if any(tf.is_tensor(pixels) or pixels for pixels in missing):
        behind = [[0, 0], *([0, pixels] for pixels in missing), [0, 0]]
        maps = tf.pad(maps, behind, constant_values=maps.dtype.as_numpy_dtype(-np.inf))
    rows, columns = (side // step for side, step in zip(sides_of(maps), (height, width)))
    windows = tf.reshape(maps, [-1, height, columns, width, maps.shape[-1]])  # [B rows, h, columns, w, C]
    pixels = [pixel for row in tf.unstack(windows, axis=1) for pixel in tf.unstack(row, axis=2)]
    best, places = pixels[0], tf.zeros_like(pixels[0], "uint8")
    for place, pixel in enumerate(pixels[1:], 1):
        better = pixel > best  # not >=: the first of equals
        best, places = tf.where(better, pixel, best), tf.where(better, tf.constant(place, "uint8"), places)
    return tuple(tf.reshape(part, [-1, rows, columns, maps.shape[-1]]) for part in (best, places))


def max_unpool(maps, positions, size=2, sides=None):
    """Maps [B, H, W, C] put where `positions`, of `max_pool`, say; zeros elsewhere.

    sides: (height, width) of the maps before the pooling, where its windows did not fit; None for (h H, w W).
    """
    height, width = check_window(size)
    maps = check_maps(maps)
    if not maps.shape.is_compatible_with(positions.shape):
        raise ValueError(f"expected a position for each of the maps {maps.shape}, received {positions.shape}")
    here = lambda place: tf.where(positions == tf.constant(place, positions.dtype), maps, tf.zeros([], maps.dtype))
    pixels = [here(place) for place in range(height * width)]
    rows = [tf.stack(pixels[i * width : (i + 1) * width], axis=3) for i in range(height)]  # [B, H, W, w, C]
    large = _joined(tf.stack(rows, axis=2), maps, height, width)
    return large if sides is None else large[:, : sides[0], : sides[1]]


def bilinear_kernel(size):
    """[k, k] float32; outer product of (.25, .75, .75, .25) for 4, of (.5, 1, .5) for 3."""
    size = whole_number("size", size, 1)
    factor = (size + 1) // 2
    ramp = 1 - np.abs(np.arange(size) - (factor - 1 if size % 2 else factor - 0.5)) / factor
    return np.outer(ramp, ramp).astype("float32")


def transposed_convolution(maps, kernel, stride):
    """[B, H, W, C] -> [B, s H, s W, F], the adjoint of tf.nn.conv2d(., kernel, s, "SAME").

    kernel: [k, k, F, C]; or [k, k, C] for each channel by itself, F = C, the adjoint of tf.nn.depthwise_conv2d.
    """
    maps = check_maps(maps)
    rows, columns = (stride * side for side in sides_of(maps))
    shape = [tf.shape(maps)[0], rows, columns, kernel.shape[2]]
    if len(kernel.shape) == 4:
        large = tf.nn.conv2d_transpose(maps, kernel, shape, stride)
    else:
        strides = [1, stride, stride, 1]
        large = tf.nn.depthwise_conv2d_backprop_input(shape, kernel[..., None], maps, strides, "SAME")
    return tf.reshape(large, shape)  # tells what is known of the sides


def sides_of(maps):
    """Height and width, as numbers where they are known."""
    return [side or tf.shape(maps)[axis] for axis, side in ((1, maps.shape[1]), (2, maps.shape[2]))]


def _joined(windows, maps, height, width):
    """[B, H, h, W, w, C] -> [B, h H, w W, C]."""
    rows, columns = sides_of(maps)
    return tf.reshape(windows, [-1, rows * height, columns * width, maps.shape[-1]])


def check_window(size):
    """`size`, a number or (h, w), as (h, w); ValueError unless they are whole, at least 1, and at most 256 pixels."""
    sides = (size, size) if np.ndim(size) == 0 else tuple(size)
    if len(sides) != 2:
        raise ValueError(f"a window must be a number or (height, width), received {size}")
    height, width = (whole_number("each side of a window", side, 1) for side in sides)
    if height * width > 256:
        raise ValueError(f"a window must have at most 256 pixels, received {height}x{width}; pool twice")
    return height, width


def check_maps(maps):
    """`maps` as a tensor; ValueError unless it is [B, H, W, C] of floats."""
    maps = tf.convert_to_tensor(maps)
    if maps.shape.rank != 4 or not maps.dtype.is_floating:
        raise ValueError(f"expected maps [B, H, W, C] of floats, received {maps.shape} of {maps.dtype.name}")
    return maps
