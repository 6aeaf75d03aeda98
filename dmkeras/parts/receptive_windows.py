"""Receptive fields through convolutions and pools; see receptive_field.py for the maps V and the axes (3).

Shapes:  n maps, h, w, C of an operation's input.
"""

import typing

import numpy as np


class Seen(typing.NamedTuple):
    """The maps V [n, ..., C] of a tensor, and for each side (size, stride, offset) of (3), or None.

    `held` is (h, w) of the maps that a tensor of another rank was, and may become again.
    """

    values: np.ndarray
    axes: tuple
    held: tuple | None = None


def narrow(values):
    """Maps without channels that only repeat."""
    return values[..., :1] if values.strides[-1] == 0 else values


def windowed(op, seen):
    convolves = op.type in ("Conv2D", "DepthwiseConv2dNative")
    values, out = narrow(seen.values), op.outputs[0].shape.as_list()
    if not convolves:
        kernel, rates = op.get_attr("ksize")[1:3], (1, 1)
    else:
        kernel, rates = op.inputs[1].shape.as_list(), op.get_attr("dilations")[1:3]
        if op.type == "Conv2D":
            groups = seen.values.shape[-1] // kernel[2]
            values = seen.values.reshape(*seen.values.shape[:-1], groups, -1).max(-1) if groups > 1 else values
            values = values.max(-1, keepdims=True) if groups == 1 else values
        if values.shape[-1] > 1:
            values = np.repeat(values, out[-1] // values.shape[-1], -1)
    strides, axes = op.get_attr("strides")[1:3], []
    for axis, before in enumerate(_padding(op, seen.values.shape[1:3], kernel, rates, strides)):
        values = _maxima(values, 1 + axis, kernel[axis], rates[axis], strides[axis], before, out[1 + axis])
        size, stride, offset = seen.axes[axis] or (0, 0, 0)
        further = (kernel[axis] - 1) * rates[axis] * stride
        axes.append(seen.axes[axis] and (size + further, stride * strides[axis], offset - before * stride))
    return Seen(np.broadcast_to(values, (*values.shape[:-1], out[-1])), tuple(axes))


def _padding(op, sides, kernel, rates, strides):
    """Zeros before the first row and column of a window's input of `sides`."""
    how = op.get_attr("padding")
    if how == b"EXPLICIT":
        return op.get_attr("explicit_paddings")[2:6:2]
    if how == b"VALID":
        return 0, 0
    extents = [(k - 1) * rate + 1 for k, rate in zip(kernel, rates)]
    return [max(0, (-(-side // s) - 1) * s + extent - side) // 2 for side, extent, s in zip(sides, extents, strides)]


def _maxima(values, axis, size, rate, stride, before, count):
    """The largest of each of `count` windows along an axis; zeros lie beyond the border."""
    after = max(0, (count - 1) * stride + (size - 1) * rate + 1 - before - values.shape[axis])
    borders = [(before, after) if i == axis else (0, 0) for i in range(values.ndim)]
    values = np.moveaxis(np.pad(values, borders), axis, 0)
    taps = [values[tap * rate :][: (count - 1) * stride + 1 : stride] for tap in range(size)]
    return np.moveaxis(np.maximum.reduce(taps), 0, axis)


def transposed(op, seen):
    """Unit i of a transposed convolution sees the units j with i = j s - p + t, t a tap of the kernel."""
    kernel, rates, strides = op.inputs[1].shape.as_list(), op.get_attr("dilations")[1:3], op.get_attr("strides")[1:3]
    values, out = narrow(seen.values).max(-1, keepdims=True), op.outputs[0].shape.as_list()
    for axis, before in enumerate(_padding(op, out[1:3], kernel, rates, strides)):
        spread = np.moveaxis(values, 1 + axis, 0)
        apart = np.zeros(((len(spread) - 1) * strides[axis] + 1, *spread.shape[1:]), values.dtype)
        apart[:: strides[axis]] = spread
        first = (kernel[axis] - 1) * rates[axis] - before
        apart = np.moveaxis(apart, 0, 1 + axis)
        values = _maxima(apart, 1 + axis, kernel[axis], rates[axis], 1, first, out[1 + axis])
    axes = tuple(axis if axis and axis[1] == 0 else None for axis in seen.axes)
    return Seen(np.broadcast_to(values, out), axes)
