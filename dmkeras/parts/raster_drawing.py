"""Pictures drawn in raster order, in the graph: the loop over rows, pixels and colours of PixelCNN and PixelRNN.

Shapes:  B batch, H height, W width, C colours, D = H W C values of a picture, K levels, M margin of the canvas.
"""

import numpy as np
import tensorflow as tf

from dmkeras.parts.explicit_density import draw, value_log_prob


def draw_in_raster_order(images, known, uniform, levels, step, state=(), start_row=None, margin=3):
    """Draws pictures row by row, pixel by pixel, colour by colour, in the graph.

    Args:
        images: [B, H, W, C], of which only the known pixels matter.
        known: [B, H, W, 1], 1 where a pixel is given.
        uniform: [D, B].
        levels: of a pixel.
        step: (state, canvas, row, column) -> logits [B, C] or [B, C, K] of this pixel, state. Called once for each
            colour, when all earlier ones are on the canvas; what it keeps of this pixel, the last call overwrites.
        state: nest of tensors that `step` and `start_row` carry along.
        start_row: (state, canvas, row) -> state, before the first pixel of a row.
        margin: M of the canvas, [M + H, M + W + M, C, B]: the picture so far, and zeros around it and where nothing is.

    Returns:
        images [B, H, W, C] and log_prob [B] float32, nats, of all their pixels.
    """
    # What is read or written at one value is contiguous, and read at once: here an operation costs as much as its work.
    height, width, colours = images.shape[1:]
    given = tf.transpose(tf.where(known > 0, images, np.nan), (1, 2, 3, 0))  # [H, W, C, B], not a number: to be drawn
    canvas = tf.pad(_filled(given, 0.0), [[margin, 0], [margin, margin], [0, 0], [0, 0]])
    both = tf.reshape(tf.stack([given, tf.reshape(uniform, tf.shape(given))], axis=2), (height * width, 2, colours, -1))
    history = tf.TensorArray("float32", height * width, element_shape=(colours, images.shape[0]))  # log-probabilities

    def pixel(row, column, canvas, history, state):
        here = row * width + column
        given, chance = tf.unstack(tf.gather(both, here))  # [C, B]
        log_probs = []
        for colour in range(colours):
            logits, state = step(state, canvas, row, column)
            value = _filled(given[colour], draw(logits[:, colour], chance[colour], levels))
            log_probs.append(value_log_prob(logits[:, colour], value, levels))
            place = tf.stack([row + margin, column + margin, colour])
            canvas = tf.tensor_scatter_nd_update(canvas, place[None], value[None])
        return row, column + 1, canvas, history.write(here, tf.stack(log_probs)), state

    def line(row, canvas, history, state):
        state = start_row(state, canvas, row) if start_row else state
        start = (row, 0, canvas, history, state)
        return row + 1, *tf.while_loop(lambda row, column, *_: column < width, pixel, start, parallel_iterations=1)[2:]

    _, canvas, history, _ = tf.while_loop(
        lambda row, *_: row < height, line, (0, canvas, history, state), parallel_iterations=1
    )
    values = tf.transpose(canvas[margin:, margin : margin + width], (3, 0, 1, 2))  # [B, H, W, C]
    return values, tf.reduce_sum(history.stack(), axis=(0, 1))


def _filled(values, others):
    return tf.where(tf.math.is_nan(values), others, values)


def window(canvas, row, column, margin=3):
    """What a masked convolution of 2 M + 1 columns covers at a pixel, as `MaskedConv2D.at_pixel` takes it: [B, N]."""
    size = (margin + 1, 2 * margin + 1, *tf.unstack(tf.shape(canvas)[2:]))  # XLA wants sizes, not ends
    return tf.transpose(tf.reshape(tf.slice(canvas, (row, column, 0, 0), size), (-1, size[-1])))


def naive_step(model, margin=3):
    """The step of `draw_in_raster_order` that asks the whole model for one pixel: slow, and right by definition."""

    def step(state, canvas, row, column):
        images = tf.transpose(canvas[margin:, margin:-margin], (3, 0, 1, 2))
        return model(images)[:, row, column], state

    return step
