"""The gradient of a strided convolution by its picture, as a convolution without stride.

y[i] = sum_u x[s i + u - p] w[u] along each of two axes, stride s, p zeros before the first pixel. Then

    dx[s q + a - p] = sum_t dy[q - t] w[s t + a],    a = 0 .. s - 1, t = 0 .. ceil(k / s) - 1                        (1)

is for all s^2 phases at once one convolution of dy to s^2 C maps, which become places (depth to space). Libraries take
long for the same where the picture has few colours (benchmarks/README.md). The laws compare it with the library's own.

Shapes:  B batch, H, W of the picture, C its colours, k, l of the kernel, F filters, h, w of the answer.
"""

import tensorflow as tf

from dmkeras.parts import chosen_gradient

NAME = "dmkeras_strided_Conv2D"
MOST = 4  # colours; with more the library's own is as quick
CONVOLUTION = ("strides", "explicit_paddings", "dilations", "padding", "data_format")


@tf.RegisterGradient(NAME)
def _(op, dy):
    """By the picture alone; nobody asks for the one by the weights."""
    images, kernel = op.inputs
    padding, strides = op.get_attr("padding").decode(), op.get_attr("strides")
    channels_last = op.get_attr("data_format") == b"NHWC"
    known = images.shape[1:].is_fully_defined() and kernel.shape.is_fully_defined() and channels_last
    alike = known and strides[1] == strides[2] > 1 and set(op.get_attr("dilations")) == {1}
    plain = padding in ("SAME", "VALID")
    if alike and kernel.shape[2] == images.shape[3] <= MOST and plain:
        return input_gradient(dy, kernel, images.shape[1:3], strides[1], padding), None
    found = None
    by_points = channels_last and plain and kernel.shape[:3] == (1, 1, images.shape[3])
    if by_points and strides == [1, 1, 1, 1]:
        found = chosen_gradient.of_convolution(dy, kernel)
    return librarys(images, kernel, dy, op) if found is None else found, None


def librarys(images, kernel, dy, op):
    """The library's gradient by images of a convolution with a kernel, set as `op` is, which may be such a gradient."""
    sizes, options = tf.shape(images), settings(op, CONVOLUTION)
    return tf.raw_ops.Conv2DBackpropInput(input_sizes=sizes, filter=kernel, out_backprop=dy, **options)


def settings(op, names):
    """{name: value} of an operation's settings, as `tf.raw_ops` takes them."""
    found = {name: op.get_attr(name) for name in names}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}


def input_gradient(dy, kernel, sides, stride, padding):
    """(1): dy [B, h, w, F], kernel [k, l, C, F], (H, W), s, "SAME" or "VALID"  ->  [B, H, W, C]."""
    lines = list(zip(sides, kernel.shape[:2], dy.shape[1:3]))
    before = [_zeros_before(side, size, stride) if padding == "SAME" else 0 for side, size, _ in lines]
    taps = [-(-size // stride) for _, size, _ in lines]
    rows = [-(-(side + first) // stride) for (side, _, _), first in zip(lines, before)]
    around = [(tap - 1, max(0, row - count)) for tap, row, (_, _, count) in zip(taps, rows, lines)]
    dy = tf.pad(dy, [(0, 0), *around, (0, 0)])
    colours, filters = kernel.shape[2:]
    whole = [(0, stride * tap - size) for tap, (_, size, _) in zip(taps, lines)]
    phases = tf.reshape(tf.pad(kernel, [*whole, (0, 0), (0, 0)]), (taps[0], stride, taps[1], stride, colours, filters))
    phases = tf.transpose(tf.reverse(phases, [0, 2]), (0, 2, 5, 1, 3, 4))  # [k/s, l/s, F, s, s, C]
    phases = tf.reshape(phases, (*taps, filters, stride * stride * colours))
    found = tf.nn.depth_to_space(tf.nn.conv2d(dy, phases, 1, "VALID"), stride)
    down, across = before
    return found[:, down : down + sides[0], across : across + sides[1]]


def _zeros_before(side, size, stride):
    """Zeros that "SAME" puts before the first pixel."""
    return max(0, (-(-side // stride) - 1) * stride + size - side) // 2
