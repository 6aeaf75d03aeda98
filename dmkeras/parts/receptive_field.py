"""Exact receptive fields: which pixels each unit of a layer sees, read from the traced graph of any model.

    V[u] = (H - y1, W - x1, y2, x2)     of unit u, which sees rows y1 .. y2 - 1 and columns x1 .. x2 - 1 of the picture;
                                        (0, 0, 0, 0) where it sees none of it, as padding does                    (1)
    pixel (y, x)    V = (H - y, W - x, y + 1, x + 1)
    a unit that is computed from units U          V = max over U, the box around all that these see               (2)

So every operation has a twin on the four maps V: a convolution or a pool of any kind is a maximum over its window,
zeros beyond the border; what adds, multiplies or joins units takes their maximum; what only moves units is run itself.
Nothing is assumed of strides and paddings, and each unit's box is exact at the picture's own borders: a formula of
sizes and strides alone counts what a later layer's padding stands for.

For the layer as a whole, along each axis,

    unit i sees from  stride i - padding  on  size  pixels, borders aside                                          (3)
    window of k (k dilated), stride s, p before the border:     size += (k - 1) stride, padding += p stride, stride *= s
    branches that meet                                          strides must agree; the union
    sums over the axis, dense layers                            the whole side: size H, stride 0, padding 0

The model is read as TensorFlow runs it (inference), subclassed models and functions within it as well.

Shapes:  H height, W width, C channels of the picture; h, w, U of the layer's maps; n maps, at first four.
"""

import dataclasses
import functools
import typing

import numpy as np
import tensorflow as tf

from dmkeras.parts.receptive_moves import run
from dmkeras.parts.receptive_operations import CALLS, twin
from dmkeras.parts.receptive_windows import Seen


class ReceptiveField(typing.NamedTuple):
    """What a layer's units see of a picture; pairs are (down, across).

    Attributes:
        size: pixels, of (3); None where units differ (transposed convolutions, maps that are moved about).
        stride: pixels between neighbours, 0 where every unit sees the whole side; None as before.
        padding: pixels by which the first unit's field begins before the picture; None as before.
        boxes: int32 [h, w, U, 4] xyxy, or [1, 1, U, 4] of a layer [B, U], x2 and y2 exclusive: what each unit sees of
            the picture; zeros where it sees nothing of it.
    """

    size: tuple | None
    stride: tuple | None
    padding: tuple | None
    boxes: np.ndarray


def receptive_field(function, image_shape):
    """The receptive field of what a function makes of pictures.

    Args:
        function: images [B, H, W, C] -> [B, h, w, U] or [B, U], such as explained.activations of one layer.
        image_shape: (H, W, C).

    Returns:
        A ReceptiveField.

    Raises:
        ValueError: for an operation on the way whose units' fields are not known, by its name, for answers of another
            rank and for those that do not depend on the picture.
    """
    with tf.init_scope(), tf.device("CPU"):
        spec = tf.TensorSpec((4, *image_shape), "float32")
        graph = tf.function(function, autograph=False).get_concrete_function(spec).graph
        (end,) = tf.nest.flatten(graph.structured_outputs)
        if end.shape.rank not in (2, 4):
            raise ValueError(f"expected a layer [B, h, w, U] or [B, U], received {end.shape}; name another")
        found = Reader(image_shape[:2]).read(graph, {graph.inputs[0].name: _of_pixels(image_shape)}, [end])[0]
    if found is None:
        raise ValueError("the layer does not depend on the picture")
    return _told(found, image_shape[:2], end.shape.as_list())


def _of_pixels(image_shape):
    """V of the picture's own pixels."""
    height, width, _ = image_shape
    rows, columns = np.arange(height)[:, None, None], np.arange(width)[:, None]
    parts = [height - rows, width - columns, rows + 1, columns + 1]
    values = np.stack([np.broadcast_to(part, (height, width, 1)) for part in parts]).astype("float32")
    return Seen(np.broadcast_to(values, (4, *image_shape)), ((1, 1, 0),) * 2)


def _told(found, sides, shape):
    values = found.values.reshape(4, *([1, 1] if len(shape) == 2 else shape[1:3]), shape[-1]).astype("int32")
    y1, x1, y2, x2 = sides[0] - values[0], sides[1] - values[1], values[2], values[3]
    boxes = np.where((y2 > 0)[..., None], np.stack([x1, y1, x2, y2], -1), 0)
    axes = found.axes
    if None in axes and (len(shape) == 2 or (boxes == boxes[:1, :1, :1]).all()):
        axes = tuple(axis or (side, 0, 0) for axis, side in zip(axes, sides))
    if None in axes:
        return ReceptiveField(None, None, None, boxes)
    size, stride, padding = zip(*((size, stride, -offset) for size, stride, offset in axes))
    return ReceptiveField(size, stride, padding, boxes)


@dataclasses.dataclass
class Reader:
    """Follows what is seen through the operations of graphs; `sides` of the picture."""

    sides: tuple

    def read(self, graph, seen, ends):
        """What the tensors `ends` of a graph see, where `seen` is what its inputs do; None for what sees nothing."""
        needed, todo = set(), [end.op for end in ends]
        while todo:
            op = todo.pop()
            if op not in needed:
                needed.add(op)
                todo += [tensor.op for tensor in op.inputs]
        seen, values = dict(seen), {}
        value = functools.partial(_value, values)
        for op in graph.get_operations():  # in the order of their making: inputs come first
            inputs = [seen.get(tensor.name) for tensor in op.inputs]
            if op not in needed or not any(each is not None for each in inputs):
                continue
            if op.type in CALLS:
                inner = op.graph._get_function(op.get_attr("f").name).graph
                given = {tensor.name: each for tensor, each in zip(inner.inputs, inputs) if each is not None}
                answers = self.read(inner, given, inner.outputs)
            else:
                answers = twin(op, inputs, value, self.sides)
            seen |= {tensor.name: answer for tensor, answer in zip(op.outputs, answers) if answer is not None}
        return [seen.get(end.name) for end in ends]


def _value(known, tensor):
    """The value of a tensor that does not depend on the picture, such as a shape."""
    if tensor.name not in known:
        value = tf.get_static_value(tensor)
        if value is None:
            if not tensor.op.inputs or tensor.op.type in ("ReadVariableOp", *CALLS):
                raise ValueError(f"what {tensor.op.name} tells is only known when the model runs")
            inputs = [_value(known, each) for each in tensor.op.inputs]
            value = run(tensor.op, inputs)[tensor.value_index].numpy()
        known[tensor.name] = value
    return known[tensor.name]
