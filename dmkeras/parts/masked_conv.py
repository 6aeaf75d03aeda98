"""Convolutions that see only earlier pixels in raster order and, within a pixel, only earlier colours.

van den Oord, Kalchbrenner and Kavukcuoglu, Pixel Recurrent Neural Networks, 2016 (https://arxiv.org/abs/1601.06759),
section 3.4 and figure 2:

    mask A, first layer    a pixel sees those above and to its left, and its own earlier colours (R for G; R, G for B)
    mask B, other layers   the same, and the maps of its own colour at its own place

Maps are split into as many contiguous groups as there are colours, group k belonging to colour k, in the 1x1
convolutions too. Rows below the pixel would be masked whole: they are left out of the kernel and never computed.

Shapes:  B batch, H height, W width, C channels in, F = gates * filters maps out, R = k // 2 + 1 kernel rows, K columns.
"""

import keras
import numpy as np
import tensorflow as tf

KINDS = ("A", "B")


def mask(rows, columns, width, channels, filters, kind, colours=1):
    """The mask of a kernel, [rows, columns, channels, filters] of 0 and 1.

    Args:
        rows: of the kernel, the last of which is the pixel's own.
        columns: of the kernel that are kept; `width` of them, or those up to the pixel's own, `width // 2 + 1`.
        width: of the whole kernel, odd.
        channels: maps in, group of map m is m * colours // channels.
        filters: maps out, grouped likewise.
        kind: "A" or "B".
        colours: of the picture.
    """
    groups_in, groups_out = np.arange(channels) * colours // channels, np.arange(filters) * colours // filters
    seen = np.ones((rows, columns, channels, filters), "float32")
    seen[-1, width // 2 + 1 :] = 0
    earlier = np.less if kind == "A" else np.less_equal
    seen[-1, width // 2] = earlier(groups_in[:, None], groups_out)
    return seen


@keras.saving.register_keras_serializable("dmkeras")
class MaskedConv2D(keras.layers.Layer):
    """A masked convolution of stride 1: `[B, H, W, C]` -> `[B, H, W, gates * filters]`.

    Its kernel is `[R, K, C, F]`, or `[1, k // 2 + 1, C, F]` for a kernel of one row. The mask is a product inside the
    call: what stands under it takes part in nothing and has no gradient.

    Args:
        filters: maps out (of each gate), at least one for each colour.
        kernel_size: odd, or (rows, columns), both odd, counted before the rows below are left out.
        kind: "A" or "B".
        colours: of the picture.
        gates: blocks of `filters` maps side by side, each split into colours by itself: an LSTM's gates keep the order
            of colours only so.

    Raises:
        ValueError: for another kind, an even kernel, or fewer filters or channels than colours.
    """

    def __init__(self, filters, kernel_size, kind, colours=1, gates=1, **kwargs):
        super().__init__(**kwargs)
        self.kernel_size = (kernel_size,) * 2 if isinstance(kernel_size, int) else tuple(kernel_size)
        self.filters, self.kind, self.colours, self.gates = filters, kind, colours, gates
        if kind not in KINDS:
            raise ValueError(f"kind must be 'A' (first layer) or 'B', received {kind!r}")
        if len(self.kernel_size) != 2 or not all(size > 0 and size % 2 for size in self.kernel_size):
            raise ValueError(f"kernel_size must be odd, a pixel has no middle otherwise; received {kernel_size}")
        if filters < colours:
            raise ValueError(f"each of {colours} colours needs a map of its own, received filters={filters}")

    def build(self, input_shape):
        channels, (height, width) = input_shape[-1], self.kernel_size
        if channels < self.colours:
            raise ValueError(f"each of {self.colours} colours needs a map of its own, received {channels} channels")
        rows, columns = height // 2 + 1, width if height > 1 else width // 2 + 1
        # Not a tensor: one that `build` makes is out of scope in `call`.
        seen = mask(rows, columns, width, channels, self.filters, self.kind, self.colours)
        self.mask = np.tile(seen, self.gates)
        self.kernel = self.add_weight(shape=self.mask.shape, initializer="glorot_uniform", name="kernel")
        self.bias = self.add_weight(shape=self.mask.shape[-1:], initializer="zeros", name="bias")
        self.margin = [[0, 0], [rows - 1, 0], [width // 2, columns - 1 - width // 2], [0, 0]]  # nothing below

    def call(self, maps):
        maps = tf.cast(maps, self.compute_dtype)  # whole numbers too
        kernel, bias = (tf.cast(weight, maps.dtype) for weight in (self.masked_kernel(), self.bias))
        if np.any(self.margin):  # conv2d's own explicit padding has a slow gradient on CPU
            maps = tf.pad(maps, self.margin)
        return tf.nn.bias_add(tf.nn.conv2d(maps, kernel, strides=1, padding="VALID"), bias)

    def masked_kernel(self):
        return tf.convert_to_tensor(self.kernel) * self.mask

    def at_pixel(self):
        """The layer at one pixel, for loops: a function of what its kernel covers, `[B, R * K * C]`, -> `[B, F]`."""
        kernel, bias = self.weights_at_pixel()
        minus_bias = -bias  # TensorFlow fuses a product with the addition of a bias: for one pixel three times as slow
        return lambda window: tf.matmul(window, kernel) - minus_bias

    def weights_at_pixel(self):
        """The masked kernel `[R * K * C, F]` and the bias `[F]`."""
        return tf.reshape(self.masked_kernel(), (-1, self.mask.shape[-1])), tf.convert_to_tensor(self.bias)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.gates * self.filters)

    def get_config(self):
        own = ("filters", "kernel_size", "kind", "colours", "gates")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}
