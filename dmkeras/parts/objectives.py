"""What a picture is made to excite: functions of pictures [B, H, W, C] -> [B], a row's value of that row alone.

    class_logit          S_c, the class's logit (Simonyan et al., https://arxiv.org/abs/1312.6034, section 2)
    class_probability    exp(S_c) / sum_k exp(S_k)
    unit                 a channel of a layer, at one position, its mean or its maximum over positions
    energy               sum of w_l (1/2) |a_l|^2 over layers l, whose gradient by a_l is w_l a_l (DeepDream)
    of_layers            any sum of functions of layers

Each function here makes such a function for one classifier. It runs inside of a `tf.function(autograph=False)` alone
(dmkeras/parts/explained.py), loops too, and asks the classifier once, however many layers it is about. They add up like
any functions: `lambda images: f(images) - strength * prior(images)`.

Shapes:  B batch, H height, W width, C channels of pictures, K classes, F channels of a layer, h and w its sides.
"""

import numpy as np
import tensorflow as tf

from dmkeras.parts import checks, explained
from dmkeras.parts.explanation_doors import chosen

POSITIONS = ("mean", "max", "centre")


def class_logit(classifier, classes):
    """The logits of `classes`, int32 [B], where -1 is the best class of the picture as it is."""

    def objective(images):
        logits = explained.logits(classifier, images)
        return tf.gather(logits, chosen(classes, logits), batch_dims=1)

    return objective


def class_probability(classifier, classes):
    """The softmax of the logits, at `classes` int32 [B]."""

    def objective(images):
        logits = explained.logits(classifier, images)
        return tf.gather(tf.nn.softmax(logits), chosen(classes, logits), batch_dims=1)

    return objective


def unit(classifier, layer, channels, position="mean"):
    """A unit's activation.

    Args:
        classifier: a built classifier.
        layer: name of a layer whose answers are [B, F] or [B, h, w, F], see `explained.check_layer`.
        channels: which of F, int32 [B], or one for all rows; what is beyond F counts for the last.
        position: "mean" or "max" over positions, "centre", or (row, column); of [B, F] there is one position.
    """
    return of_layers(classifier, {layer: lambda values: at_channel(values, channels, position)})


def energy(classifier, weights):
    """{layer: w} -> the sum of w (1/2) |a|^2, a the layer's activations."""
    weigh = lambda weight: lambda values: weight * half_square(values)
    return of_layers(classifier, {layer: weigh(weight) for layer, weight in weights.items()})


def of_layers(classifier, terms):
    """The sum of functions of layers, in one pass.

    Args:
        classifier: a built classifier.
        terms: {layer: function of what it makes of the pictures, [B, ...] of at least float32, -> [B]}.
    """

    def objective(images):
        found = explained.activations(classifier, images, list(terms))
        return tf.add_n([measure(explained.precise(found[layer])) for layer, measure in terms.items()])

    return objective


def check_unit(layer, shape, position="mean"):
    """How many channels a layer has whose answers are of `shape`; ValueError where `position` is none of them."""
    if shape.rank not in (2, 4) or None in shape[1:]:
        raise ValueError(f"expected a layer [B, F] or [B, h, w, F], received {layer!r}: {shape}; name another one")
    if isinstance(position, str):
        checks.one_of("position", position, POSITIONS)
        return shape[-1]
    sides = tuple(shape[1:-1]) or (1, 1)
    fits = np.shape(position) == (2,) and all(checks.whole_number("position", place) >= 0 for place in position)
    if not fits or any(place >= side for place, side in zip(position, sides)):
        raise ValueError(
            f"expected a position (row, column) of {layer!r}, {sides}, or {POSITIONS}, received {position}"
        )
    return shape[-1]


# --- measures of a layer's activations ------------------------------------------------------------------------------


def at_channel(values, channels, position="mean"):
    """values [B, F] or [B, h, w, F] -> [B], of a channel each, int32 [B] or one for all; see `unit`."""
    channels = tf.minimum(tf.broadcast_to(channels, tf.shape(values)[:1]), tf.shape(values)[-1] - 1)
    if values.shape.rank == 4:
        values = _pooled(values, position)
    return tf.gather(values, channels, axis=1, batch_dims=1)


def half_square(values):
    """values [B, ...] -> [B]: half the sum of their squares."""
    return tf.reduce_sum(tf.square(values), list(range(1, values.shape.rank))) / 2


def _pooled(values, position):
    if position == "mean":
        return tf.reduce_mean(values, (1, 2))
    if position == "max":
        return tf.reduce_max(values, (1, 2))
    row, column = [side // 2 for side in values.shape[1:3]] if position == "centre" else position
    return values[:, row, column]
