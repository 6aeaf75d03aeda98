"""Pixel Recurrent Neural Networks (van den Oord, Kalchbrenner and Kavukcuoglu, 2016, https://arxiv.org/abs/1601.06759).

    p(x) = prod_i p(x_i | x_1 .. x_(i-1)),  p(x_i | x_<i) = prod over R, G, B, each given those before it   (1), (2)

    7x7 convolution, mask A, to 2F maps; layers of LSTM, each with a 1x1 convolution of its F maps back to 2F, added
    to the layer's input (residual, section 3.3) or not; twice ReLU and 1x1, then logits, all of mask B  (table 1)

    [o, f, i, g] = sigma(K_ss * h_(t-1) + K_is * x_t),  c_t = f c_(t-1) + i g,  h_t = o tanh(c_t)           (3)

Row LSTM (section 3.1): t is the row; K_is is 1x3 of mask B, K_ss 3 wide over the row above. A pixel's context is a
triangle above it, three pixels wide in the row above, five in the one before ...
Diagonal BiLSTM (section 3.2): t is the diagonal; row r of the picture is skewed to the right by r, so that a column
holds a diagonal; K_is is 1x1, K_ss is 2x1 over the column before: the pixel above and the pixel to the left. The other
direction runs over the mirrored picture, and its states move down by one row before they are added: else a pixel would
see those to its right. The column's zero row stands on top: below, it would make a pixel read the row below it.

Shapes:  B batch, H height, W width, C colours, F filters, L layers, K levels, T = H + W - 1 diagonals.
Maps between the layers are [H, maps, W, B].

Deviations from the paper, each with its reason:
- Both kinds learn the state before the first step, for each position (the paper does not say where it starts).
- Over the zeros that skewing puts before a row its state evolves: what is left of a first pixel depends on no pixel.
- With skip connections the last layer has none: its own 1x1 convolution ends at the output already.
"""

import keras
import tensorflow as tf

from dmkeras.parts import explicit_density, raster_drawing, wave_drawing
from dmkeras.parts.checks import check_image_shape, looks_at_first_batch, whole_number
from dmkeras.parts.convolutional_lstm import ConvolutionalLSTM, cell, forward, skew, unskew
from dmkeras.parts.masked_conv import MaskedConv2D

RECURRENCES = {  # kind: width of the input-to-state convolution, offsets of the state-to-state one, directions
    "row_lstm": (3, (-1, 0, 1), 1),
    "diagonal_bilstm": (1, (-1, 0), 2),
}


@keras.saving.register_keras_serializable("dmkeras")
@looks_at_first_batch
class PixelRNN(keras.Model):
    """An explicit density of pictures by a Row LSTM or a Diagonal BiLSTM.

    Call: images `[B, H, W, C]` float32, levels k / (levels - 1)  ->  logits `[B, H, W, C]` of the value 1 (two levels),
    or `[B, H, W, C, levels]`; those of a colour depend on the pixels before its own in raster order and on the colours
    before it in its own.

    | signature | inputs | outputs |
    | --- | --- | --- |
    | serving_default | images [B, H, W, C] float32, k / (levels - 1) | log_prob [B], nats; -inf of other values |
    | log_prob | images | log_prob [B], the same |
    | sample | seed [B, 2] int32, one row per answer | images [B, H, W, C] float32, log_prob [B] |
    | complete | images, known_mask [B, H, W, 1] float32 (> 0.5 = given), seed | images, log_prob |

    Args:
        image_shape: (H, W, C) of one image.
        kind: `"row_lstm"` or `"diagonal_bilstm"`.
        filters: F, maps of the states; the maps between layers are 2F.
        num_layers: L.
        levels: values of a pixel: 2 (Bernoulli) to 256 (softmax; 8-bit pictures).
        residual: whether a layer's input is added to its output.
        skip: whether each layer before the last has a 1x1 convolution to the output of the last.
        head_filters: maps of the two 1x1 convolutions before the logits, at least C.

    Raises:
        ValueError: for sizes that make no model, fewer filters than colours, or an unknown kind; `fit`, `evaluate`,
            `log_prob` and `complete` raise it for images of another shape or of other levels.
    """

    def __init__(
        self,
        image_shape=(28, 28, 1),
        kind="row_lstm",
        filters=16,
        num_layers=7,
        levels=2,
        residual=True,
        skip=False,
        head_filters=32,
        **kwargs,
    ):
        super().__init__(**kwargs)
        _check_arguments(image_shape, kind, filters, num_layers, levels, head_filters)
        self.image_shape, self.kind, self.filters = tuple(image_shape), kind, filters
        self.num_layers, self.levels, self.head_filters = num_layers, levels, head_filters
        self.residual, self.skip = residual, skip
        colours, (width, offsets, directions) = self.image_shape[-1], RECURRENCES[kind]
        options = {"colours": colours, "dtype": self.dtype_policy}
        recurrent = lambda: ConvolutionalLSTM(filters, width, offsets, directions, **options)
        pointwise = lambda maps, **other: MaskedConv2D(maps, 1, "B", **{**options, **other})
        self.first = MaskedConv2D(2 * filters, 7, "A", **options)
        self.recurrences = [recurrent() for _ in range(num_layers)]
        self.upsamplings = [pointwise(2 * filters) for _ in range(num_layers)]
        self.skips = [pointwise(2 * filters) for _ in range(num_layers - 1 if skip else 0)]
        logits = colours * (levels if levels > 2 else 1)
        self.head = [pointwise(head_filters), pointwise(head_filters), pointwise(logits, dtype="float32")]
        self.trackers = explicit_density.trackers()
        self(keras.Input(self.image_shape))

    def build(self, input_shape):
        for layer in (*self.upsamplings, *self.skips):  # `call` reads their weights
            layer.build((None, None, None, self.filters))

    def call(self, images):
        maps = tf.transpose(tf.cast(self.first(images), "float32"), (1, 3, 2, 0))  # [H, 2F, W, B]
        scan = _rows if self.kind == "row_lstm" else _diagonals
        output = 0.0
        for i, (recurrence, upsampling) in enumerate(zip(self.recurrences, self.upsamplings)):
            states = scan(recurrence, maps)  # [H, F, W, B]
            update = _pointwise(upsampling, states)
            maps = maps + update if self.residual else update
            if i < len(self.skips):
                output += _pointwise(self.skips[i], states)
        logits = tf.transpose(maps + output, (3, 0, 2, 1))
        for layer in self.head:
            logits = layer(tf.nn.relu(logits))
        return self._per_colour(logits)

    def _per_colour(self, logits):
        """[..., C * levels], a colour's levels side by side, -> [..., C, levels]; two levels have one logit."""
        if self.levels == 2:
            return logits
        return tf.reshape(logits, (*tf.unstack(tf.shape(logits)[:-1]), self.image_shape[-1], self.levels))

    def check_images(self, images):
        explicit_density.check_pixels(images, self.image_shape, self.levels)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """-log p(x), nats per image."""
        return explicit_density.loss(self, y_pred, x, sample_weight)

    def log_prob(self, images):
        """Exact log p(x) of images [B, H, W, C] -> [B] float32, nats."""
        return explicit_density.log_prob(self, images)

    def sample(self, num_samples, seed=None, cached=True, jit_compile=False):
        """Draws x ~ p(x), pixel by pixel: [num_samples, H, W, C] float32.

        Args:
            num_samples: pictures.
            seed: an integer for the same pictures again; None for fresh ones.
            cached: whether states are kept from pixel to pixel; False asks the whole network for each, and draws the
                same pictures.
            jit_compile: whether to compile the loop by XLA, which takes seconds, once for each number of pictures.
        """
        return explicit_density.sample(self, num_samples, seed, jit_compile, cached=cached)

    def complete(self, images, known_mask, seed=None, cached=True, jit_compile=False):
        """images [B, H, W, C], kept where known_mask [B, H, W, 1] is 1, drawn elsewhere given what comes before.

        Args:
            images: pictures; what stands at unknown pixels does not matter.
            known_mask: 1 where a pixel is given, 0 elsewhere; [H, W, 1] serves all pictures.
            seed: as for `sample`, like the others.
            cached: see there.
            jit_compile: see there.
        """
        return explicit_density.complete(self, images, known_mask, seed, jit_compile, cached=cached)

    def _draw(self, images, known, uniform, cached=True):
        if cached and self.kind == "row_lstm":
            how = _row_network(self, tf.shape(images)[0])
            return wave_drawing.draw_in_waves(images, known, uniform, self.levels, *how)
        how = _diagonal_caches(self, tf.shape(images)[0]) if cached else (raster_drawing.naive_step(self),)
        return raster_drawing.draw_in_raster_order(images, known, uniform, self.levels, *how)

    def at_pixel(self):
        """The network at one pixel.

        Returns:
            A function of what the first convolution covers [B, 28 C], and of the recurrence there, itself a function of
            the layer's number and input [B, 2F] that gives the layer's states [B, F]; -> logits [B, C(, levels)].
        """
        first, *head = (layer.at_pixel() for layer in (self.first, *self.head))
        upsamplings, skips = ([layer.at_pixel() for layer in group] for group in (self.upsamplings, self.skips))

        def network(window, recurrence):
            maps = first(window)
            output = 0.0
            for i, upsampling in enumerate(upsamplings):
                states = recurrence(i, maps)
                maps = maps + upsampling(states) if self.residual else upsampling(states)
                if i < len(skips):
                    output += skips[i](states)
            logits = maps + output
            for layer in head:
                logits = layer(tf.nn.relu(logits))
            return self._per_colour(logits)

        return network

    def signatures(self):
        return explicit_density.signatures(self)

    def get_config(self):
        own = ("image_shape", "kind", "filters", "num_layers", "levels", "residual", "skip", "head_filters")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


def _pointwise(layer, maps):
    """A 1x1 MaskedConv2D of maps [H, maps in, W, B] -> [H, maps out, W, B] float32, the product in its policy."""
    height, channels, width, _ = maps.shape
    kernel, maps = (tf.cast(x, layer.compute_dtype) for x in (layer.masked_kernel()[0], maps))
    flat = tf.cast(tf.matmul(kernel, tf.reshape(maps, (height, channels, -1)), transpose_a=True), "float32")
    flat += tf.cast(layer.bias, "float32")[:, None]
    return tf.reshape(flat, (height, layer.filters, width, -1))


def _rows(recurrence, maps):
    """Layer of a Row LSTM: maps [H, 2F, W, B] -> states [H, F, W, B]; a step is a row."""
    return recurrence(maps[:, None])[:, 0]


def _diagonals(recurrence, maps):
    """Layer of a Diagonal BiLSTM: maps [H, 2F, W, B] -> states [H, F, W, B]; a step is a diagonal, for both at once."""
    maps = tf.transpose(maps, (1, 0, 2, 3))  # [2F, H, W, B]
    both = skew(tf.stack([maps, maps[:, :, ::-1]]))  # [2, 2F, H, T, B]
    states = recurrence(tf.transpose(both, (3, 0, 1, 2, 4)))  # [T, 2, F, H, B]
    rightwards, leftwards = tf.unstack(unskew(tf.transpose(states, (1, 2, 3, 0, 4)), maps.shape[2]))  # [F, H, W, B]
    moved_down = tf.pad(leftwards[:, :-1, ::-1], [[0, 0], [1, 0], [0, 0], [0, 0]])
    return tf.transpose(rightwards + moved_down, (1, 0, 2, 3))


# --- drawing with states kept ---------------------------------------------------------------------------------------
# Caches are [W, L, B, maps], so that a pixel of all layers is one contiguous block.


def _write(cache, column, values):
    return tf.tensor_scatter_nd_update(cache, [[column]], tf.convert_to_tensor(values)[None])


def _row_network(model, batch):
    """network, taps and above of `draw_in_waves` for a Row LSTM, which keeps [h, c, input] of a pixel's layers.

    What earlier pixels add to the gates is computed for all layers at once.
    """
    pixels, maps, depth = model.at_pixel(), model.filters, model.num_layers
    kernels = tf.concat([layer.kernel() for layer in model.recurrences], axis=0)  # [L, N, 4F]
    left, own, from_state, bias = tf.split(kernels, [2 * maps, 2 * maps, 3 * maps, 1], axis=1)
    near, own = tf.concat([from_state, left], axis=1), tf.unstack(own)
    first = lambda name: _repeat(tf.concat([getattr(layer, name) for layer in model.recurrences], axis=0), batch)

    def network(window, kept):
        slots = kept.shape[1]
        kept = tf.reshape(tf.transpose(kept, (0, 2, 1, 3, 4)), (4, depth, -1, 4 * maps))  # [4, L, S B, 4F]
        beside = tf.concat([*tf.unstack(kept[:3, ..., :maps]), kept[3, ..., 2 * maps :]], axis=-1)
        z, cells = (tf.unstack(x) for x in (tf.matmul(beside, near) + bias, kept[1, ..., maps : 2 * maps]))
        keep = []

        def recurrence(i, maps):
            _, cell_state, state = cell(z[i] + tf.matmul(maps, own[i]), cells[i], axis=-1)
            keep.append(tf.concat([state, cell_state, maps], axis=-1))
            return state

        logits = pixels(window, recurrence)
        return logits, tf.transpose(tf.reshape(tf.stack(keep), (depth, slots, batch, 4 * maps)), (1, 0, 2, 3))

    h, c = first("h0"), first("c0")
    return network, ((1, -1), (1, 0), (1, 1), (0, -1)), tf.concat([h, c, tf.zeros_like(h), tf.zeros_like(h)], axis=-1)


def _repeat(states, batch):
    """Learned states [L, F, W, 1] -> [W, L, B, F]."""
    return tf.repeat(tf.transpose(states, (2, 0, 3, 1)), batch, axis=2)


def _left_of_rows(recurrence):
    """h and c to the left of each row's first pixel, [H, D, F]: they have come over the zeros of the skewing."""
    directions, maps, height, _ = recurrence.h0.shape
    nothing = tf.zeros((height, directions, 2 * maps, height, 1))
    start = [tf.convert_to_tensor(state) for state in (recurrence.h0, recurrence.c0)]
    *_, c, h = forward(nothing, recurrence.kernel(), *start, recurrence.offsets)  # [H steps, D, F, H rows, 1]
    before = [tf.concat([first[None], later[:-1]], axis=0)[..., 0] for first, later in zip(start, (h, c))]
    return [tf.transpose(tf.linalg.diag_part(tf.transpose(x, (1, 2, 0, 3))), (2, 0, 1)) for x in before]


def _of_layers(caches, kernels):
    """Each layer's product, [W, L, B, maps in] with [L, maps in, maps out]: on a CPU, matmul crashes at L = 1."""
    return tf.einsum("wlbi,lio->wlbo", caches, kernels)


def _diagonal_caches(model, batch):
    """step, state and start_row of `draw_in_raster_order` for a Diagonal BiLSTM.

    Along a row each pixel has its left neighbour's state at hand; the products with the states of the row above are
    taken at once when a row begins. The states that run to the left reach a pixel from the row above: when that is
    complete, one pass over it makes them.
    """
    network, (_, width, _), maps, depth = model.at_pixel(), model.image_shape, model.filters, model.num_layers
    kernels = tf.stack([layer.kernel() for layer in model.recurrences], axis=1)  # [D, L, N, 4F]
    from_input, from_above, from_beside, bias = tf.split(kernels, [2 * maps, maps, maps, 1], axis=2)
    rightwards = tf.unstack(tf.concat([from_input[0], from_beside[0]], axis=1))
    tables = zip(*(_left_of_rows(layer) for layer in model.recurrences))
    first_h, first_c = (tf.repeat(tf.stack(x, axis=2)[..., None, :], batch, axis=3) for x in tables)  # [H, D, L, B, F]

    def states_to_the_left(row, inputs, above):
        """Row `row` from its right end: inputs [W, L, B, 2F], states of the row above [W, L, B, F] -> its states."""
        product = _of_layers(inputs, from_input[1]) + _of_layers(above, from_above[1]) + bias[1]

        def pixel(column, h, c, kept):
            _, c, h = cell(product[column] + tf.matmul(h, from_beside[1]), c, axis=-1)
            return column - 1, h, c, _write(kept, column, h)

        start = (width - 1, first_h[row, 1], first_c[row, 1], tf.zeros_like(above))
        return tf.while_loop(lambda column, *_: column >= 0, pixel, start)[-1]

    def start_row(state, canvas, row):
        h, c, _, left, inputs = state
        left = tf.where(row > 0, states_to_the_left(tf.maximum(row - 1, 0), inputs, left), 0.0)
        product = _of_layers(h[1:], from_above[0]) + bias[0]
        return _write(h, 0, first_h[row, 0]), _write(c, 0, first_c[row, 0]), product, left, inputs

    def step(state, canvas, row, column):
        h, c, product, left, inputs = state
        z, beside, cells, others = (tf.unstack(cache[column]) for cache in (product, h, c, left))  # of each layer
        kept = []

        def recurrence(i, maps):
            gates = z[i] + tf.matmul(tf.concat([maps, beside[i]], axis=-1), rightwards[i])
            _, cell_state, state = cell(gates, cells[i], axis=-1)
            kept.append((state, cell_state, maps))
            return state + others[i]

        logits = network(raster_drawing.window(canvas, row, column), recurrence)
        states, cells, maps = zip(*kept)
        caches = _write(h, column + 1, states), _write(c, column + 1, cells)
        return logits, (*caches, product, left, _write(inputs, column, maps))

    nothing = lambda columns, maps: tf.zeros((columns, depth, batch, maps))
    states, row_above = (nothing(width + 1, maps),) * 2, (nothing(width, 4 * maps), nothing(width, maps))
    return step, (*states, *row_above, nothing(width, 2 * maps)), start_row


def _check_arguments(image_shape, kind, filters, num_layers, levels, head_filters):
    check_image_shape(image_shape)
    if kind not in RECURRENCES:
        raise ValueError(f"kind must be one of {', '.join(RECURRENCES)}; received {kind!r}")
    explicit_density.check_levels(levels)
    whole_number("num_layers", num_layers, 1)
    if min(whole_number("filters", filters), whole_number("head_filters", head_filters)) < image_shape[-1]:
        received = f"filters={filters}, head_filters={head_filters}"
        raise ValueError(f"each of {image_shape[-1]} colours needs a map of its own, received {received}")
