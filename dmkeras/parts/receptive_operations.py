"""What each operation of a graph makes of receptive fields; see receptive_field.py for the maps V and the axes (3)."""

import numpy as np

from dmkeras.parts.receptive_moves import PADDING, moved, union
from dmkeras.parts.receptive_windows import Seen, narrow, transposed, windowed

CALLS = ("PartitionedCall", "StatefulPartitionedCall")
JOINING = """
    Abs Add AddN AddV2 BiasAdd Cast Ceil CheckNumerics ClipByValue Cos Div DivNoNan Elu Equal Erf Erfc Exp Expm1 Floor
    FusedBatchNormV3 Greater GreaterEqual Identity Inv IsFinite IsNan LeakyRelu Less LessEqual Log Log1p LogicalAnd
    LogicalNot LogicalOr Maximum Minimum Mul MulNoNan Neg NotEqual OnesLike Pow PreventGradient RealDiv Reciprocal
    Relu Relu6 Round Rsqrt Select SelectV2 Selu Sigmoid Sign Sin Snapshot Softplus Softsign Sqrt Square
    SquaredDifference StopGradient Sub Tan Tanh Xdivy ZerosLike"""
ACROSS_CHANNELS = ("LogSoftmax", "LRN", "Softmax")
SUMMING = ("All", "Any", "ArgMax", "Max", "Mean", "Min", "Prod", "Sum")
WINDOWS = ("AvgPool", "Conv2D", "DepthwiseConv2dNative", "MaxPool")
PRODUCTS = ("BatchMatMul", "BatchMatMulV2", "MatMul")
MOVING = """
    BatchToSpaceND ConcatV2 DepthToSpace ExpandDims GatherV2 Pack Reshape ReverseV2 Slice SpaceToBatchND SpaceToDepth
    Split SplitV Squeeze StridedSlice Tile Transpose Unpack"""


def twin(op, inputs, value, sides):
    """What the outputs of an operation see.

    Args:
        op: a TensorFlow operation.
        inputs: a Seen for each of its inputs, None for those that see nothing of the picture.
        value: function of such an input -> its value.
        sides: (H, W) of the picture.
    """
    where = f"{op.type} ({op.name})"
    if op.type in JOINING.split() or op.type in ACROSS_CHANNELS:
        found = _joined([each for each in inputs if each is not None], op.outputs[0].shape.as_list())
        return [_over_channels(found) if op.type in ACROSS_CHANNELS else found]
    if op.type == "IdentityN":  # around a gradient of one's own, such as of silu
        return inputs
    if op.type in (*PADDING, *MOVING.split()):
        return moved(op, inputs, value)
    dependent = [i for i, each in enumerate(inputs) if each is not None]
    if op.type in SUMMING and dependent == [0]:
        return [_summed(op, inputs[0], value(op.inputs[1]), sides)]
    if op.type in PRODUCTS and dependent == [0]:
        return [_multiplied(op, inputs[0], sides)]
    if op.type in WINDOWS and dependent == [0] and op.get_attr("data_format") == b"NHWC":
        return [windowed(op, inputs[0])]
    if op.type == "Conv2DBackpropInput" and dependent == [2] and op.get_attr("data_format") == b"NHWC":
        return [transposed(op, inputs[2])]
    raise ValueError(f"what a unit sees through {where} is not known here; name a layer before it")


def _joined(parts, shape):
    values = np.broadcast_to(parts[0].values, shape)
    for part in parts[1:]:
        values = np.maximum(values, part.values)
    mixed = len(parts) > 1 and any(part.values.shape[:-1] != parts[0].values.shape[:-1] for part in parts)
    return Seen(values, tuple(union([part.axes[axis] for part in parts], mixed) for axis in (0, 1)), parts[0].held)


def _over_channels(seen):
    values = narrow(seen.values).max(-1, keepdims=True)
    return Seen(np.broadcast_to(values, seen.values.shape), seen.axes, seen.held)


def _summed(op, seen, over, sides):
    rank = seen.values.ndim
    over = {int(axis) % rank for axis in np.ravel(over)}
    keep = op.type != "ArgMax" and op.get_attr("keep_dims")
    values = seen.values.max(tuple(over), keepdims=bool(keep))
    if rank == 4:
        axes = tuple((side, 0, 0) if 1 + i in over else seen.axes[i] for i, side in enumerate(sides))
    else:
        axes = tuple(axis if axis and (over == {rank - 1} or axis[1] == 0) else None for axis in seen.axes)
    return Seen(values, axes, seen.held)


def _multiplied(op, seen, sides):
    """By a matrix of weights: a unit sees what all of its row do."""
    if any(op.node_def.attr[name].b for name in ("transpose_a", "adj_x")):
        raise ValueError(f"what a unit sees through the turned {op.type} ({op.name}) is not known here")
    values = narrow(seen.values).max(-1, keepdims=True)
    axes = tuple(axis or (side, 0, 0) for axis, side in zip(seen.axes, sides))
    return Seen(np.broadcast_to(values, (*values.shape[:-1], op.outputs[0].shape[-1])), axes, seen.held)
