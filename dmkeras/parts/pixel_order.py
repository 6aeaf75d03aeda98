"""The order in which a model of p(x) = prod_d p(x_d | x_<d) takes the values of a picture, and draws along it.

An order is a permutation of the D = H W C values of a picture, flattened as [H, W, C]: order[d] is the place of the
d-th value. Orders by name take the colours of a pixel one after another:

    raster      row by row from the top left
    column      column by column from the top left
    spiral      along the border, clockwise from the top left, and on inwards
    random      one fixed random permutation of all values; `random:7` is another one, of seed 7
"""

import numbers

import numpy as np
import tensorflow as tf

from dmkeras.parts.checks import check_image_shape
from dmkeras.parts.explicit_density import draw, value_log_prob

NAMES = ("raster", "column", "spiral", "random")


def permutation(ordering, image_shape):
    """An order by name, or an explicit one, as an int32 array [D].

    Args:
        ordering: a name of the table above, or a permutation of 0 .. D - 1.
        image_shape: (H, W, C).

    Raises:
        ValueError: for an unknown name, values that are no permutation, or an image_shape of other than three sizes.
    """
    check_image_shape(image_shape)
    height, width, colours = image_shape
    size = height * width * colours
    if not isinstance(ordering, str):
        return _explicit(ordering, size)
    name, colon, seed = ordering.partition(":")
    if name not in NAMES or (colon and not (name == "random" and seed.isdecimal() and int(seed) < 2**32)):
        known = f"{', '.join(NAMES)}, random:SEED, or a permutation of the {size} values"
        raise ValueError(f"ordering must be one of {known}; received {ordering!r}")
    if name == "random":
        return np.random.RandomState(int(seed or 0)).permutation(size).astype("int32")  # its stream never changes
    places = np.arange(height * width, dtype="int32").reshape(height, width)
    pixels = {"raster": places.ravel, "column": places.T.ravel, "spiral": lambda: _spiral(places)}[name]()
    return (pixels[:, None] * colours + np.arange(colours, dtype="int32")).ravel()


def _explicit(ordering, size):
    """A permutation of 0 .. size - 1 as int32 [size], ValueError for anything else."""
    whole = all(isinstance(place, numbers.Integral) for place in np.ravel(ordering).tolist())
    if not whole or np.shape(ordering) != (size,) or not np.array_equal(np.sort(ordering), np.arange(size)):
        received = np.array2string(np.asarray(ordering), threshold=8, edgeitems=4)
        raise ValueError(f"ordering must be a permutation of 0 .. {size - 1}, received {received}")
    return np.asarray(ordering, "int32")


def _spiral(places):
    """The border of [H, W] clockwise from the top left, then the rest, which is turned so that it begins there too."""
    found = []
    while places.size:
        found.append(places[0])
        places = np.rot90(places[1:])
    return np.concatenate(found)


def flatten(images, order):
    """images [B, H, W, C] -> [B, D] float32 along the order."""
    return tf.gather(tf.reshape(tf.cast(images, "float32"), (-1, len(order))), order, axis=1)


def unflatten(values, order, image_shape):
    """[B, D] along the order -> [B, H, W, C]."""
    return tf.reshape(tf.gather(values, np.argsort(order), axis=1), (-1, *image_shape))


def marginal_logits(images, order):
    """The logit of each value's mean in images [N, H, W, C] -> [D] along the order; half a count keeps it finite."""
    if not len(images):
        raise ValueError("expected images to take the mean of, received none")
    ones = tf.reduce_sum(flatten(images, order), axis=0)
    return tf.math.log(ones + 0.5) - tf.math.log(len(images) - ones + 0.5)


def draw_in_order(order, images, known, uniform, logits_at, state, add):
    """Draws pictures of two levels value by value along `order`, in the graph.

    Args:
        order: [D].
        images: [B, H, W, C], of which only the known pixels matter.
        known: [B, H, W, 1], 1 where a pixel is given.
        uniform: [D, B], in the order of drawing.
        logits_at: (state, d) -> logits [B] of the d-th value of the order.
        state: what the values before it leave behind, a tensor or a nest of them.
        add: (state, d, values [B]) -> state.

    Returns:
        images [B, H, W, C] and log_prob [B] float32, nats, of all their values.
    """
    size = len(order)
    given = tf.transpose(flatten(tf.where(known > 0, images, -1.0), order))  # [D, B], -1 where one is to be drawn

    def value(d, state, drawn, log_prob):
        logits = logits_at(state, d)
        values = tf.where(given[d] < 0, draw(logits, uniform[d], levels=2), given[d])
        log_prob += value_log_prob(logits, values, levels=2)
        return d + 1, add(state, d, values), drawn.write(d, values), log_prob

    drawn = tf.TensorArray("float32", size, element_shape=(None,))
    start = (0, state, drawn, tf.zeros(tf.shape(images)[:1]))
    _, _, drawn, log_prob = tf.while_loop(lambda d, *_: d < size, value, start)
    return unflatten(tf.transpose(drawn.stack()), order, images.shape[1:]), log_prob
