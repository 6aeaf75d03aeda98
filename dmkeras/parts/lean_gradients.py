"""Gradients of concatenations and rectifiers that move less memory: the same numbers, from what follows in the network.

    y = w * [x_1, x_2, ...]    by x_i: of the convolution with the rows of w that belong to x_i alone
    y = max over relu(x)       the rectifier stops what its pooled answer stops: a maximum above zero was let through
    y = max over [relu(x_1), relu(x_2), ...]    the same

No gradient by a concatenation is written down only to be cut to pieces, and a rectifier's mask has the pooled size: a
tenth of the time of SqueezeNet's saliency (benchmarks/README.md). Each rule looks at the operation that its gradient
came from; where another one stands there, or several, the gradient is cut and masked as ever.
"""

import tensorflow as tf

from dmkeras.parts import chosen_gradient
from dmkeras.parts.strided_gradient import librarys, settings

RULES = {"ConcatV2": "dmkeras_lean_ConcatV2", "Relu": "dmkeras_lean_Relu"}  # operation: name of its gradient
POOLING = ("ksize", "strides", "explicit_paddings", "padding", "data_format")


@tf.RegisterGradient(RULES["ConcatV2"])
def _(op, dy):
    *parts, axis = op.inputs
    counts = _channels(parts, tf.get_static_value(axis))
    if counts and _is_by_kernel(dy.op, sum(counts)):
        _, kernel, above = dy.op.inputs
        rows = tf.split(kernel, counts, axis=2)
        return *(librarys(x, w, above, dy.op) for x, w in zip(parts, rows)), None
    if _is_pooled(dy.op, op) and all(map(_is_rectified, parts)):
        dy = _stopped_after_pooling(dy.op)
    return *tf.split(dy, [tf.shape(part)[axis] for part in parts], axis, num=len(parts)), None


@tf.RegisterGradient(RULES["Relu"])
def _(op, dy):
    if _is_pooled(dy.op, op):
        return _stopped_after_pooling(dy.op)
    whole = dy.op.inputs[0].op if dy.op.type == "SplitV" else dy.op
    stop = lambda dy, y: tf.raw_ops.ReluGrad(gradients=dy, features=y)
    return dy if _is_stopped(whole) else chosen_gradient.by_map(stop, dy, op.outputs[0])


def _channels(parts, axis):
    """How many maps each part has, where [B, H, W, C] are put side by side and all C are known; else None."""
    counts = [part.shape[3] if part.shape.rank == 4 else None for part in parts]
    return counts if axis is not None and int(axis) in (3, -1) and None not in counts else None


def _is_rectified(part):
    """Whether a rectifier made `part`, and its gradient is the one below, not that of another rule."""
    return part.op.type == "Relu" and part.op.node_def.attr["_gradient_op_type"].s.decode() == RULES["Relu"]


def _is_by_kernel(op, count):
    """Whether an operation is a convolution's gradient by `count` maps, which stand last and are in no groups."""
    last = op.type == "Conv2DBackpropInput" and op.get_attr("data_format") == b"NHWC"
    return last and op.inputs[1].shape[2] == count


def _is_pooled(back, op):
    """Whether `back` is the gradient of a maximum over what `op` made."""
    return back.type == "MaxPoolGrad" and back.inputs[0].name == op.outputs[0].name


def _stopped_after_pooling(back):
    x, y, dy = back.inputs
    dy = tf.raw_ops.ReluGrad(gradients=dy, features=y)
    return tf.raw_ops.MaxPoolGrad(orig_input=x, orig_output=y, grad=dy, **settings(back, POOLING))


def _is_stopped(back):
    """Whether `back` is an answer of `_stopped_after_pooling`: nothing else rectifies by the maximum itself."""
    above = back.inputs[2].op if back.type == "MaxPoolGrad" else back
    return above.type == "ReluGrad" and above is not back and above.inputs[1].name == back.inputs[1].name
