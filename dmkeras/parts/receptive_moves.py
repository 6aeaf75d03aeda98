"""Receptive fields through what only moves units about: padding, crops, reshapes, blocks, units side by side.

See receptive_field.py for the maps V and the axes (3).
"""

import inspect

import numpy as np
import tensorflow as tf

from dmkeras.parts.receptive_windows import Seen

PADDING = ("MirrorPad", "Pad", "PadV2")
RENAMED = {("Squeeze", "axis"): "squeeze_dims"}  # arguments whose attributes have other names


def run(op, inputs):
    """An operation on other inputs, at once."""
    function = getattr(tf.raw_ops, op.type)
    names = [name for name in inspect.signature(function).parameters if name != "name"]  # inputs first, in their order
    given, rest = {}, list(inputs)
    for name, told in zip(names, op.op_def.input_arg):
        count = op.get_attr(told.number_attr) if told.number_attr else 1
        taken, rest = rest[:count], rest[count:]
        given[name] = taken if told.number_attr else taken[0]
    for name in names[len(given) :]:
        given[name] = op.get_attr(RENAMED.get((op.type, name), name))
    return tf.nest.flatten(function(**given))


def union(axes, mixed=False):
    """(size, stride, offset) of branches that meet along one side; `mixed` where one is spread over the other."""
    whole = [axis for axis in axes if axis and axis[1] == 0]
    if whole:
        return whole[0]
    if None in axes or mixed or len({stride for _, stride, _ in axes}) > 1:
        return None
    first = min(offset for _, _, offset in axes)
    return max(offset + size for size, _, offset in axes) - first, axes[0][1], first


def moved(op, inputs, value):
    """The operation itself, on the maps; what does not depend on the picture sees nothing."""
    told = [
        value(tensor) if each is None and not tensor.dtype.is_floating else None
        for tensor, each in zip(op.inputs, inputs)
    ]
    sees = lambda maps: run(op, [number if each is None else each for each, number in zip(maps, told)])
    given = [
        each.values if each is not None else np.zeros(tensor.shape, "float32") if number is None else None
        for each, tensor, number in zip(inputs, op.inputs, told)
    ]
    found = [np.asarray(maps) for maps in sees(given)]
    first, held = next(each for each in inputs if each is not None), None
    if op.type in PADDING:
        axes = _shifted(first.axes, [1, 1], [before for before, _ in value(op.inputs[1])[1:3]])
    elif op.type in ("SpaceToBatchND", "BatchToSpaceND"):
        block, borders = value(op.inputs[1]), value(op.inputs[2])
        axes = _in_blocks(first.axes, block, borders, op.type == "SpaceToBatchND")
    elif op.type in ("Reshape", "Squeeze", "ExpandDims"):
        held = first.values.shape[1:3] if first.values.ndim == 4 else first.held
        kept = first.values.shape[-1] == found[0].shape[-1] and (found[0].ndim != 4 or found[0].shape[1:3] == held)
        axes = tuple(axis if axis and (kept or axis[1] == 0) else None for axis in first.axes)
    else:
        axes = _followed(inputs, given, sees)
    return [Seen(maps, axes, held) for maps in found]


def _shifted(axes, steps, before):
    """Axes whose first unit lies `before` units before, and whose units lie `steps` apart."""
    moved = lambda axis, step, units: (axis[0], axis[1] * int(step), axis[2] - int(units) * axis[1])
    return tuple(axis and moved(axis, step, units) for axis, step, units in zip(axes, steps, before))


def _in_blocks(axes, block, borders, to_batch):
    """A dilated convolution takes every r-th row for a picture of its own, and puts them back."""
    if to_batch:
        return _shifted(axes, block, borders[:, 0])
    together = [axis and (axis[0], axis[1] // int(r), axis[2]) for axis, r in zip(axes, block)]
    return _shifted(together, [1, 1], -borders[:, 0])


def _followed(inputs, given, sees):
    """Axes where rows and columns come out in their order, such as after a crop or side by side; else None."""
    axes = []
    for axis in (0, 1):
        numbers = []
        for maps in given:
            if maps is None or maps.ndim != 4:
                numbers.append(maps)
                continue
            shape = [-1 if i == 1 + axis else 1 for i in range(4)]
            rows = np.arange(maps.shape[1 + axis], dtype="float32").reshape(shape)
            numbers.append(np.broadcast_to(rows, maps.shape))
        together = union([each.axes[axis] for each in inputs if each is not None])
        axes.append(together if together is None or together[1] == 0 else _arithmetic(together, sees(numbers), axis))
    return tuple(axes)


def _arithmetic(known, found, axis):
    """An axis after an operation whose outputs `found` tell the number of the row, or column, that each unit was."""
    found = np.asarray(found[0])
    if found.ndim != 4 or not found.size:
        return None
    rows = np.moveaxis(found, 1 + axis, 0)
    first = rows[:, 0, 0, 0]
    steps = np.unique(np.diff(first)) if len(first) > 1 else np.ones(1)
    if (rows != first[:, None, None, None]).any() or len(steps) > 1 or steps[0] < 1:
        return None
    return _shifted([known], [int(steps[0])], [-int(first[0])])[0]
