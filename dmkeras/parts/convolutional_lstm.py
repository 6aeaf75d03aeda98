"""A convolutional LSTM scanned over the rows or the diagonals of a picture, with a reverse pass of its own.

    n_t = [x_t shifted, for each input offset; h_(t-1) shifted, for each state offset; 1]
    z_t = K' n_t                                      one product for all gates, input-to-state and state-to-state
    o, f, i = sigmoid(z_o, z_f, z_i),  g = tanh(z_g)
    c_t = f c_(t-1) + i g,  h_t = o tanh(c_t)

Gates are never laid out for the whole picture before the scan; their values are kept for the reverse pass, which adds
up the gradient of K while its operands are at hand. Maps come first and pictures last: gates, shifts and operands are
contiguous blocks, and one product serves all positions and pictures of a step.

Shapes:  T steps, D directions, X maps in, F maps of the state, P positions along a step, B batch,
         N = X * input offsets + F * state offsets + 1 operands of a gate.
"""

import keras
import tensorflow as tf

from dmkeras.parts.masked_conv import MaskedConv2D


def shifted(maps, offset):
    """maps [..., P, B] -> the same where position p has what stood at p + offset; zeros come in from outside."""
    if not offset:
        return maps
    nothing = tf.zeros_like(maps[..., : abs(offset), :])
    parts = [maps[..., offset:, :], nothing] if offset > 0 else [nothing, maps[..., :offset, :]]
    return tf.concat(parts, axis=-2)


def cell(z, c, axis):
    """z: gates before their activations, o f i g side by side on `axis`; c: cell -> (o, f, i, g), next c, next h."""
    o, f, i, g = tf.split(z, 4, axis)
    o, f, i, g = tf.sigmoid(o), tf.sigmoid(f), tf.sigmoid(i), tf.tanh(g)
    c = f * c + i * g
    return (o, f, i, g), c, o * tf.tanh(c)


def _operands(x, h, offsets):
    """n_t [D, N, P * B] of x [D, X, P, B] and h [D, F, P, B], in the type of x."""
    h = tf.cast(h, x.dtype)
    parts = [shifted(maps, offset) for maps, chosen in zip((x, h), offsets) for offset in chosen]
    together = tf.concat([*parts, tf.ones_like(h[:, :1])], axis=1)
    return tf.reshape(together, (*together.shape[:2], tf.shape(h)[2] * tf.shape(h)[3]))


def _per_step(*tensors):
    """What a loop reads step by step: a slice by its counter takes longer."""
    return [tf.TensorArray(x.dtype, x.shape[0], element_shape=x.shape[1:]).unstack(x) for x in tensors]


def forward(x, kernel, h, c, offsets):
    """The scan of x [T, D, X, P, B] with kernel [D, N, 4F] from h, c [D, F, P, B] -> o, f, i, g, c, h of every step."""
    (inputs,), steps, gates = (
        _per_step(x),
        x.shape[0],
        tf.concat([[kernel.shape[0], kernel.shape[2]], tf.shape(h)[2:]], 0),
    )

    def step(t, h, c, *kept):
        z = tf.matmul(kernel, _operands(inputs.read(t), h, offsets), transpose_a=True)
        activations, c, h = cell(tf.cast(tf.reshape(z, gates), h.dtype), c, axis=1)
        return t + 1, h, c, *(array.write(t, value) for array, value in zip(kept, (*activations, c, h)))

    kept = [tf.TensorArray(h.dtype, steps, element_shape=h.shape) for _ in range(6)]
    return [array.stack() for array in tf.while_loop(lambda t, *_: t < steps, step, (0, h, c, *kept))[3:]]


def backward(upstream, x, kernel, h0, c0, kept, offsets):
    """The gradients of x, kernel, h0, c0 from that of the states, `upstream` [T, D, F, P, B]; `kept` by `forward`."""
    o, f, i, g, c, h = kept
    earlier = [tf.concat([first[None], later[:-1]], axis=0) for first, later in ((c0, c), (h0, h))]
    arrays = _per_step(upstream, x, o, f, i, g, c, *earlier)
    steps, maps, size = x.shape[0], h0.shape[1], tf.shape(h0)[2:]
    widths = [x.shape[2]] * len(offsets[0]) + [maps] * len(offsets[1]) + [1]

    def step(t, dh, dc, dkernel, dx):
        upstream, x, o, f, i, g, c, c_earlier, h_earlier = (array.read(t) for array in arrays)
        dh, tanh = dh + upstream, tf.tanh(c)
        dc = dc + dh * o * (1 - tanh * tanh)
        dz = [dh * tanh * o * (1 - o), dc * c_earlier * f * (1 - f), dc * g * i * (1 - i), dc * i * (1 - g * g)]
        dz = tf.reshape(tf.cast(tf.concat(dz, axis=1), x.dtype), (kernel.shape[0], 4 * maps, tf.reduce_prod(size)))
        dkernel += tf.cast(tf.matmul(_operands(x, h_earlier, offsets), dz, transpose_b=True), dh.dtype)
        dn = tf.matmul(kernel, dz)
        parts = tf.split(tf.reshape(dn, tf.concat([tf.shape(dn)[:2], size], 0)), widths, axis=1)
        back = [shifted(part, -offset) for part, offset in zip(parts, (*offsets[0], *offsets[1]))]
        count = len(offsets[0])
        dh = tf.cast(tf.add_n(back[count:]), dh.dtype)
        return t - 1, dh, dc * f, dkernel, dx.write(t, tf.add_n(back[:count]))

    dx = tf.TensorArray(x.dtype, steps, element_shape=x.shape[1:])
    start = (steps - 1, tf.zeros_like(h0), tf.zeros_like(c0), tf.zeros(kernel.shape, h0.dtype), dx)
    _, dh, dc, dkernel, dx = tf.while_loop(lambda t, *_: t >= 0, step, start)
    return dx.stack(), tf.cast(dkernel, kernel.dtype), dh, dc


def scan(x, kernel, h0, c0, offsets):
    """States h [T, D, F, P, B] of x [T, D, X, P, B], with the gradient of `backward`."""

    @tf.custom_gradient
    def states(x, kernel, h0, c0):
        kept = forward(x, kernel, h0, c0, offsets)
        return kept[-1], lambda upstream: backward(upstream, x, kernel, h0, c0, kept, offsets)

    return states(x, kernel, h0, c0)


def skew(maps):
    """[..., H, W, B] -> [..., H, T, B]: row r starts at column r, zeros elsewhere; column t holds a diagonal."""
    *outer, height, width, _ = maps.shape
    wide = tf.pad(maps, [[0, 0]] * len(outer) + [[0, 0], [0, height], [0, 0]])
    flat = tf.reshape(wide, (*outer, height * (width + height), -1))[..., :-height, :]
    return tf.reshape(flat, (*outer, height, width + height - 1, -1))


def unskew(maps, width):
    """[..., H, T, B] -> [..., H, W, B], what `skew` undoes."""
    *outer, height, columns, _ = maps.shape
    flat = tf.reshape(maps, (*outer, height * columns, -1))
    flat = tf.pad(flat, [[0, 0]] * len(outer) + [[0, height], [0, 0]])
    return tf.reshape(flat, (*outer, height, width + height, -1))[..., :width, :]


@keras.saving.register_keras_serializable("dmkeras")
class ConvolutionalLSTM(keras.layers.Layer):
    """x [T, D, X, P, B] -> states [T, D, F, P, B] float32; the policy is that of the products, for errors add up.

    Args:
        filters: F, of each gate and of the state.
        input_width: of the input-to-state convolution (mask B) along the positions, 1 or 3.
        state_offsets: of the positions of h_(t-1) that a position reads; that product has no mask.
        directions: D, each with weights of its own.
        colours: of the picture; each gate has its own groups of maps.
    """

    def __init__(self, filters, input_width, state_offsets, directions=1, colours=1, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.input_width, self.state_offsets = filters, input_width, tuple(state_offsets)
        self.directions, self.colours = directions, colours
        self.offsets = (tuple(range(-(input_width // 2), 1)), self.state_offsets)
        options = {"colours": colours, "gates": 4, "dtype": self.dtype_policy}
        self.input_to_state = [MaskedConv2D(filters, (1, input_width), "B", **options) for _ in range(directions)]

    def build(self, input_shape):
        _, directions, maps, positions, _ = input_shape
        for convolution in self.input_to_state:
            convolution.build((None, None, None, maps))
        shape = (directions, len(self.state_offsets) * self.filters, 4 * self.filters)
        self.state_to_state = self.add_weight(shape=shape, initializer="glorot_uniform", name="state_to_state")
        state = (directions, self.filters, positions, 1)
        self.h0 = self.add_weight(shape=state, initializer="zeros", autocast=False, name="h0")
        self.c0 = self.add_weight(shape=state, initializer="zeros", autocast=False, name="c0")

    def kernel(self):
        """K [D, N, 4F]: the masked input-to-state kernels, the state-to-state products and the biases."""
        inputs = [tf.reshape(layer.masked_kernel(), (-1, 4 * self.filters)) for layer in self.input_to_state]
        biases = [layer.bias[None] for layer in self.input_to_state]
        return tf.concat([tf.stack(inputs), self.state_to_state, tf.stack(biases)], axis=1)

    def call(self, x):
        start = [tf.repeat(state, tf.shape(x)[-1], axis=-1) for state in (self.h0, self.c0)]
        return scan(x, self.kernel(), *start, self.offsets)

    def get_config(self):
        own = ("filters", "input_width", "state_offsets", "directions", "colours")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}
