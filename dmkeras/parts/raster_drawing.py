"""Pictures drawn in raster order, in the graph: the loop over rows, pixels and colours that PixelCNN and PixelRNN share.

Shapes:  B batch, H height, W width, C colours, D = H W C values of a picture, K levels, M margin of the canvas.
"""

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
        margin: M of the canvas, [M + H, M + W + M, B, C]: the picture so far, and zeros around it and where nothing is.

    Returns:
        images [B, H, W, C] and log_prob [B] float32, nats, of all their pixels.
    """
    height, width, colours = images.shape[1:]
    pixels_first = lambda tensor: tf.transpose(tensor, (1, 2, 0, 3))  # what is written at one pixel is contiguous
    given = pixels_first(tf.where(known > 0, images, -1.0))  # [H, W, B, C], -1 where a pixel is to be drawn
    canvas = tf.pad(tf.maximum(given, 0.0), [[margin, 0], [margin, margin], [0, 0], [0, 0]])
    uniform = tf.transpose(tf.reshape(uniform, (height, width, colours, -1)), (0, 1, 3, 2))  # [H, W, B, C]
    batch, kinds = images.shape[0], (levels,) if levels > 2 else ()
    history = tf.TensorArray("float32", height * width, element_shape=(batch, colours, *kinds))

    def pixel(row, column, canvas, history, state):
        value, chance = given[row, column], uniform[row, column]
        for colour in range(colours):
            logits, state = step(state, canvas, row, column)
            drawn = draw(logits, chance, levels)
            value = tf.where((tf.range(colours) == colour) & (value < 0), drawn, value)
            place = [[row + margin, column + margin]]
            canvas = tf.tensor_scatter_nd_update(canvas, place, tf.maximum(value, 0.0)[None])
        return row, column + 1, canvas, history.write(row * width + column, tf.cast(logits, "float32")), state

    def line(row, canvas, history, state):
        state = start_row(state, canvas, row) if start_row else state
        start = (row, 0, canvas, history, state)
        return row + 1, *tf.while_loop(lambda row, column, *_: column < width, pixel, start)[2:]

    _, canvas, history, _ = tf.while_loop(lambda row, *_: row < height, line, (0, canvas, history, state))
    values = canvas[margin:, margin : margin + width]  # [H, W, B, C]
    logits = tf.reshape(history.stack(), tf.concat([tf.shape(values), kinds], axis=0))
    return tf.transpose(values, (2, 0, 1, 3)), tf.reduce_sum(value_log_prob(logits, values, levels), axis=(0, 1, 3))


def window(canvas, row, column, margin=3):
    """What a masked convolution of 2 M + 1 columns covers at a pixel: [B, M + 1, 2 M + 1, C]."""
    size = (margin + 1, 2 * margin + 1, *tf.unstack(tf.shape(canvas)[2:]))  # XLA wants sizes, not ends
    return tf.transpose(tf.slice(canvas, (row, column, 0, 0), size), (2, 0, 1, 3))


def naive_step(model, margin=3):
    """The step of `draw_in_raster_order` that asks the whole model for one pixel: slow, and right by definition."""

    def step(state, canvas, row, column):
        images = tf.transpose(canvas[margin:, margin:-margin], (2, 0, 1, 3))
        return model(images)[:, row, column], state

    return step
