"""Pictures drawn in raster order, several rows at once, by networks that see no more than 3 columns to the right above.

A pixel may be drawn when the row above it is drawn up to three pixels beyond: row r runs LAG = 4 columns behind row
r - 1. At time t slot s draws row t // 4 - s - 1, column 4 s + t % 4; row -1 stands for what is above the picture. That
is 4 H + W steps, up to a multiple of 4, instead of H W, with the same pixels before each pixel, and so the same picture
from the same uniform numbers. What stands d rows above and e columns to the right was drawn 4 d - e steps ago, in slot
s + (t % 4 + e) // 4.

Shapes:  B batch, H height, W width, C colours, D = H W C, K levels, T steps, S = ceil(W / 4) slots, n taps.
"""

import itertools

import numpy as np
import tensorflow as tf

from dmkeras.parts.explicit_density import draw, value_log_prob

LAG = 4
WINDOW = [(d, e) for d in (3, 2, 1, 0) for e in range(-3, 4)]  # of a 7x7 convolution, without the rows below


def draw_in_waves(images, known, uniform, levels, network, taps, above):
    """Draws pictures as `raster_drawing.draw_in_raster_order` does.

    Args:
        images: [B, H, W, C], of which only the known pixels matter.
        known: [B, H, W, 1], 1 where a pixel is given.
        uniform: [D, B].
        levels: of a pixel.
        network: (window [S B, 28 C], kept [n, S, *state]) -> logits [S B, C] or [S B, C, K], and what to keep of these
            pixels, [S, *state]. Called once for each colour, when all earlier ones are in the window, as a kernel of
            `MaskedConv2D` covers it; `kept` is what the network kept at the taps, zeros beside the picture.
        taps: n places (d, e) of earlier pixels, d <= 1 rows above and e <= 3 columns to the right.
        above: [W, *state], what counts as kept of the row above the first.

    Returns:
        images [B, H, W, C] and log_prob [B] float32, nats, of all their pixels.
    """
    (height, width, colours), batch = images.shape[1:], tf.shape(images)[0]
    inside, place, found, outside = _schedule(height, width)
    steps, slots = place.shape
    skewed = lambda values: tf.gather(tf.reshape(values, (height * width, colours, -1)), place)  # [T, S, C, B]
    given = skewed(tf.transpose(tf.where(known > 0, images, np.nan), (1, 2, 3, 0)))  # not a number: to be drawn
    chances, inside, outside = skewed(uniform), tf.constant(inside), tf.constant(outside)
    window, tapped = tf.constant(_places(WINDOW, slots, 0)), tf.constant(_places(taps, slots, 1))
    state = tf.unstack(tf.shape(above)[1:])
    above = tf.pad(above, [[0, 1]] + [[0, 0]] * len(state))
    own = np.eye(colours, dtype="float32")[..., None]  # [C, C, 1]
    array = lambda *shape: tf.TensorArray("float32", steps, element_shape=shape)

    def step(t, values, states, drawings, log_probs):
        """`values` [15, S + 2, C, B] and `states` [oldest tap, S + 2, *state] are of the steps before, last first."""
        kept = tf.gather(tf.reshape(states, (-1, *state)), tapped[t % LAG])  # [n, S, *state]
        value, log_prob, here = tf.zeros((slots, colours, batch)), 0.0, inside[t][:, None]
        for colour in range(colours):
            seen = tf.reshape(tf.concat([_padded(value)[None], values], axis=0), (-1, colours, batch))
            seen = tf.transpose(tf.gather(seen, window[t % LAG]), (1, 3, 0, 2))  # [S, B, 28, C]
            logits, keep = network(tf.reshape(seen, (-1, len(WINDOW) * colours)), kept)
            logits = tf.reshape(logits, (slots, batch, *logits.shape[1:]))[:, :, colour]
            fresh = given[t, :, colour]
            drawn = tf.where(tf.math.is_nan(fresh), draw(logits, chances[t, :, colour], levels), fresh)
            drawn = tf.where(here, drawn, 0.0)
            value += drawn[:, None] * own[colour]
            log_prob += tf.reduce_sum(tf.where(here, value_log_prob(logits, drawn, levels), 0.0), axis=0)
        keep = tf.where(tf.reshape(here, (slots, *[1] * len(state))), keep, tf.gather(above, outside[t]))
        values, states = (
            tf.concat([_padded(new)[None], old[:-1]], axis=0) for new, old in ((value, values), (keep, states))
        )
        return t + 1, values, states, drawings.write(t, value), log_probs.write(t, log_prob)

    values = tf.zeros((4 * LAG - 1, slots + 2, colours, batch))
    states = tf.zeros((max(LAG * d - e for d, e in taps), slots + 2, *state))
    start = (0, values, states, array(slots, colours, None), array(None))
    *_, drawings, log_probs = tf.while_loop(lambda t, *_: t < steps, step, start, parallel_iterations=1)
    values = tf.gather(tf.reshape(drawings.stack(), (-1, colours, batch)), found)  # [H W, C, B]
    values = tf.reshape(tf.transpose(values, (2, 0, 1)), (-1, height, width, colours))
    return values, tf.reduce_sum(log_probs.stack(), axis=0)


def _schedule(height, width):
    """The order of the drawing, NumPy arrays.

    Returns:
        inside: [T, S], whether a slot has a pixel of the picture at a time.
        place: [T, S], which one, 0 if none.
        found: [H W], where each pixel of the picture stands among the [T S] drawn.
        outside: [T, S], the column in the row above the picture, W if not there.
    """
    slots = -(-width // LAG)
    time, slot = np.arange(LAG * (height + slots))[:, None], np.arange(slots)
    row, column = time // LAG - slot - 1, LAG * slot + time % LAG
    inside = (row >= 0) & (row < height) & (column < width)
    row_of, column_of = np.divmod(np.arange(height * width), width)
    found = (LAG * (row_of + 1 + column_of // LAG) + column_of % LAG) * slots + column_of // LAG
    above = (row == -1) & (column < width)
    return inside, np.where(inside, row * width + column, 0), found, np.where(above, column, width)


def _places(taps, slots, youngest):
    """[LAG, n, S]: where, for t % LAG, each slot's taps stand among [age - youngest, S + 2]; 0, a border, if later."""
    table = np.zeros((LAG, len(taps), slots), "int32")
    for phase, (i, (d, e)) in itertools.product(range(LAG), enumerate(taps)):
        if LAG * d >= e:
            row = (LAG * d - e - youngest) * (slots + 2)
            table[phase, i] = row + 1 + np.arange(slots) + (phase + e) // LAG
    return table


def _padded(values):
    """[S, ...] with a border of zeros on either side, [S + 2, ...]."""
    return tf.pad(values, [[1, 1]] + [[0, 0]] * (len(values.shape) - 1))
