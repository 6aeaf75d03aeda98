"""Gradients under other rules of the rectifiers, in any Keras model.

    y = max(x, 0), dy the gradient that comes from above:
        vanilla     dy (x > 0)
        deconvnet   dy (dy > 0)               Zeiler and Fergus (https://arxiv.org/abs/1311.2901), section 2.1
        guided      dy (dy > 0) (x > 0)       Springenberg et al. (https://arxiv.org/abs/1412.6806), section 3.4

The rules belong to operations of the traced graph, not to layers: they reach `layers.ReLU` (with a `max_value`, too),
`activation="relu"`, `ops.relu`, relu6 and maximum(x, 0) wherever they stand. A rectifier inside of a `tf.function` or a
custom gradient, or written as a product or a choice, is refused by name, since a map guided by half is none. Leaky and
smooth rectifiers are no rectifiers here and keep their gradient; a network without any rectifier is refused.

`gradient` runs inside of a `tf.function(autograph=False)` alone.
"""

import functools

import numpy as np
import tensorflow as tf

from dmkeras.parts import chosen_gradient, lean_gradients, strided_gradient

RULES = ("vanilla", "deconvnet", "guided")
RECTIFIERS = ("Relu", "Relu6")
CALLS = ("PartitionedCall", "StatefulPartitionedCall", "While", "StatelessWhile", "If", "StatelessIf", "Case")


def gradient(score, images, rule="vanilla"):
    """What `score` makes of images, and its gradient by them.

    Args:
        score: function of images -> [B], or any tensor, whose sum is differentiated.
        images: a tensor.
        rule: of the rectifiers.

    Returns:
        (the values of score, the gradient [B, H, W, C]).

    Raises:
        ValueError: where rectifiers cannot be reached, where the rule is not "vanilla" and there are none, and where
            score does not depend on the images.
    """
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}, received {rule!r}")
    graph = tf.compat.v1.get_default_graph()
    # the same gradients, but quicker
    override = {"Conv2D": strided_gradient.NAME, **lean_gradients.RULES, **chosen_gradient.RULES}
    if rule != "vanilla":
        override |= {kind: f"dmkeras_{rule}_{kind}" for kind in (*RECTIFIERS, "Maximum")}
    with graph.gradient_override_map(override):
        values = score(images)
    if rule != "vanilla":
        _check_reached(values, images, rule)
    (found,) = tf.gradients(values, images)  # a GradientTape would not ask for the rules
    for op in graph.get_operations():
        if _rule_of(op).startswith("dmkeras_"):
            op._clear_attr("_gradient_op_type")  # done with: a SavedModel would look for it when it is written
    if found is None:
        raise ValueError("the score does not depend on the picture: no gradient comes back to it")
    return values, found


# --- the rules -----------------------------------------------------------------------------------------------------


def _passes(rule, dy, y, stop=tf.raw_ops.ReluGrad):
    """dy under a rule, where a rectifier with the gradient `stop` answered y."""
    dy = tf.nn.relu(dy)
    return dy if rule == "deconvnet" else stop(gradients=dy, features=y)


def _is_zero(tensor):
    value = tf.get_static_value(tensor)
    return value is not None and not np.any(value)


def _register(rule):
    @tf.RegisterGradient(f"dmkeras_{rule}_Relu")
    def _(op, dy):
        return chosen_gradient.by_map(functools.partial(_passes, rule), dy, op.outputs[0])

    @tf.RegisterGradient(f"dmkeras_{rule}_Relu6")
    def _(op, dy):
        return _passes(rule, dy, op.outputs[0], tf.raw_ops.Relu6Grad)

    @tf.RegisterGradient(f"dmkeras_{rule}_Maximum")
    def _(op, dy):
        x, y = op.inputs
        if _is_zero(y) or _is_zero(x):
            found = _passes(rule, dy, op.outputs[0])
            return (found, None) if _is_zero(y) else (None, found)
        over, both = tf.raw_ops.BroadcastGradientArgs(s0=tf.shape(x), s1=tf.shape(y)), (x, y)
        shares = tf.where(x >= y, dy, 0), tf.where(x >= y, tf.zeros_like(dy), dy)
        return [tf.reshape(tf.reduce_sum(g, axes), tf.shape(z)) for g, axes, z in zip(shares, over, both)]


for _rule in RULES[1:]:
    _register(_rule)


# --- what they reach ----------------------------------------------------------------------------------------------


def _check_reached(values, images, rule):
    """ValueError unless the rule reaches every rectifier between images and values, and there is one."""
    found, reached, seen = [], 0, set()
    todo = [tensor.op for tensor in tf.nest.flatten(values)]
    while todo:
        op = todo.pop()
        if op in seen or op is images.op:
            continue
        seen.add(op)
        todo += [tensor.op for tensor in op.inputs]
        reached += op.type in RECTIFIERS or (op.type == "Maximum" and any(map(_is_zero, op.inputs)))
        found += _out_of_reach(op)
    if found:
        raise ValueError(
            f"the rule {rule!r} cannot reach every rectifier: {'; '.join(sorted(set(found)))}; write it as "
            "keras.ops.relu in the layer's call"
        )
    if not reached:
        raise ValueError(f"the rule {rule!r} changes rectifiers, and this network has none; use the vanilla gradient")


def _out_of_reach(op):
    """Why a rectifier of an operation is not reached: none, or one text."""
    if op.type in CALLS and _holds_rectifier(op):
        return [f"{op.name} is inside of a tf.function or a loop"]
    if op.type == "IdentityN" and _rule_of(op) and _rectifier_within(op):
        return [f"{op.name} has a custom gradient"]
    chooses = op.type in ("Mul", "SelectV2", "Select") and op.outputs[0].dtype.is_floating  # whole numbers pass nothing
    if chooses and any(_tells_sign(tensor, op.inputs) for tensor in op.inputs):
        return [f"{op.name} is a product or a choice by sign"]
    return []


def _holds_rectifier(op):
    """Whether a function that an operation calls, at whatever depth, holds a rectifier."""
    library = {function.signature.name: function for function in op.graph.as_graph_def().library.function}
    names = lambda node: [attr.func.name for attr in node.attr.values() if attr.HasField("func")]
    todo, seen = names(op.node_def), set()
    while todo:
        name = todo.pop()
        if name in seen or name not in library:
            continue
        seen.add(name)
        for node in library[name].node_def:
            if node.op in (*RECTIFIERS, "Maximum"):
                return True
            todo += names(node)
    return False


def _rule_of(op):
    """The name of an operation's own gradient, empty where it has none."""
    return op.node_def.attr["_gradient_op_type"].s.decode()


def _rectifier_within(op):
    """Whether a rectifier stands between the outputs and the inputs of a function with a custom gradient."""
    outputs = [tensor.op for tensor in op.inputs][: len(op.inputs) // 2 or 1]
    inputs, seen = {tensor.op for tensor in op.inputs} - set(outputs), set()
    while outputs:
        inner = outputs.pop()
        if inner in seen or inner in inputs:
            continue
        seen.add(inner)
        if inner.type in RECTIFIERS:
            return True
        outputs += [tensor.op for tensor in inner.inputs]
    return False


def _tells_sign(tensor, others):
    """Whether a tensor is whether one of `others` exceeds zero."""
    op = tensor.op
    while op.type in ("Cast", "Identity"):
        op = op.inputs[0].op
    if op.type not in ("Greater", "GreaterEqual", "Less", "LessEqual") or not any(map(_is_zero, op.inputs)):
        return False
    return any(side is other for side in op.inputs for other in others)
