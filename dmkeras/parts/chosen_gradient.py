"""The gradient of one class of each picture, as long as the other classes have none: K times less to do.

    y_c = mean over places of relu(w x)_c, c the class of a picture    dx = w_c relu'(w x)_c dy_c / places        (1)

Of a network that ends in a 1x1 convolution, as SqueezeNet and Darknet do, the library multiplies there K - 1 maps of
zeros, a seventh of the products of SqueezeNet's gradient. Here the gradient is written as onehot(c) s, s [B, h, w, 1].
Each rule that finds it written so answers with the same of its own s and, at the convolution, with s w_c; nothing asks
for the maps of zeros then, so they are not computed. A rule that finds another gradient is the library's.

Shapes:  B batch, h, w of maps, C of them go into the convolution, K classes.
"""

import tensorflow as tf

RULES = {"Mean": "dmkeras_chosen_Mean"}  # operation: name of its gradient
CHOICE, WRITTEN = "dmkeras_chosen_GatherV2", "dmkeras_chosen"


def choose(values, classes):
    """values [B, K], classes [B] of 0 .. K - 1  ->  [B]: each row's class, by a gradient that the rules know.

    Runs inside of a `tf.function(autograph=False)` alone.
    """
    with tf.compat.v1.get_default_graph().gradient_override_map({"GatherV2": CHOICE}):
        return tf.gather(values, classes, batch_dims=1)


def by_map(rule, dy, y):
    """`rule(dy, y)` of gradients dy and answers y of one shape, for a rule that looks at places one by one."""
    found = _read(dy)
    if not found or y.shape.rank != 4:
        return rule(dy, y)
    classes, share = found
    chosen = tf.gather(y, classes, axis=3, batch_dims=1)[..., None]  # [B, h, w, 1]
    return _written(classes, rule(share, chosen), y)


def of_convolution(dy, kernel):
    """(1): by what a convolution with a kernel [1, 1, C, K] takes, [B, h, w, C]; None where dy is none of one class."""
    found = _read(dy)
    if not found:
        return None
    classes, share = found
    return share * tf.transpose(tf.gather(kernel[0, 0], classes, axis=1))[:, None, None]


@tf.RegisterGradient(CHOICE)
def _(op, dy):
    values, classes, _ = op.inputs
    return _written(classes, dy[:, None], values), None, None


@tf.RegisterGradient(RULES["Mean"])
def _(op, dy):
    x, axes = op.inputs
    sides, found, fixed = tf.shape(x), _read(dy), tf.get_static_value(axes)
    axes = tf.reshape(tf.cast(axes, "int32") % tf.rank(x), (-1, 1))
    count = tf.cast(tf.reduce_prod(tf.gather_nd(sides, axes)), dy.dtype)
    if found and x.shape.rank == 4 and fixed is not None and sorted(fixed.ravel() % 4) == [1, 2]:
        classes, dy = found
        dy = tf.broadcast_to(tf.reshape(dy / count, (-1, 1, 1, 1)), (*tf.unstack(sides[:3]), 1))
        return _written(classes, dy, x), None
    kept = tf.tensor_scatter_nd_update(sides, axes, tf.ones_like(axes[:, 0]))
    return tf.broadcast_to(tf.reshape(dy / count, kept), sides), None


def _written(classes, share, like):
    """onehot(classes [B]) share [B, ..., 1], of as many classes as `like` has."""
    classes = tf.reshape(classes, [-1, *[1] * (share.shape.rank - 2)])
    count = like.shape[-1] or tf.shape(like)[-1]
    return tf.multiply(tf.one_hot(classes, count, dtype=share.dtype), share, name=WRITTEN)


def _read(dy):
    """(classes [B], share [B, ..., 1]) of which `_written` made dy; None where it did not."""
    if not dy.op.name.rpartition("/")[2].startswith(WRITTEN):
        return None
    hot, share = dy.op.inputs
    return tf.reshape(hot.op.inputs[0], [-1]), share
