"""The upsamplings of dmkeras/parts/upsampling.py as layers, which is what `dmkeras.layers` offers.

Shapes:  B batch, H height, W width, C channels, F channels out, h and w sides of a window, k of a kernel, s stride.
"""

import keras
import numpy as np
import tensorflow as tf

from dmkeras.parts.checks import whole_number
from dmkeras.parts.upsampling import (
    bed_of_nails,
    bilinear_kernel,
    check_window,
    max_pool,
    max_unpool,
    nearest,
    sides_of,
    transposed_convolution,
)


class _Windowed(keras.layers.Layer):
    def __init__(self, size=2, **kwargs):
        super().__init__(**kwargs)
        self.size = check_window(size)

    def get_config(self):
        return {**super().get_config(), "size": self.size}


@keras.saving.register_keras_serializable("dmkeras")
class NearestUpsampling(_Windowed):
    """`nearest` as a layer: maps `[B, H, W, C]` -> `[B, h H, w W, C]`; `size` is h = w or (h, w)."""

    def call(self, maps):
        return nearest(maps, self.size)


@keras.saving.register_keras_serializable("dmkeras")
class BedOfNails(_Windowed):
    """`bed_of_nails` as a layer: maps `[B, H, W, C]` -> `[B, h H, w W, C]`; `size` is h = w or (h, w)."""

    def call(self, maps):
        return bed_of_nails(maps, self.size)


@keras.saving.register_keras_serializable("dmkeras")
class MaxPooling(_Windowed):
    """`max_pool` as a layer: maps `[B, H, W, C]` -> (maxima, positions), both `[B, ceil(H / h), ceil(W / w), C]`."""

    def call(self, maps):
        return max_pool(maps, self.size)


@keras.saving.register_keras_serializable("dmkeras")
class MaxUnpooling(_Windowed):
    """`max_unpool` as a layer: (maps, positions) `[B, H, W, C]` -> `[B, h H, w W, C]`.

    A third argument, the maps that were pooled, cuts the answer to their sides, where windows did not fit.
    """

    def call(self, maps, positions, like=None):
        return max_unpool(maps, positions, self.size, None if like is None else sides_of(like))


@keras.saving.register_keras_serializable("dmkeras")
class TransposedConvolution(keras.layers.Layer):
    """`transposed_convolution` as a layer without bias: maps `[B, H, W, C]` -> `[B, s H, s W, F]`.

    Args:
        filters: F; None for as many as come in.
        stride: s.
        kernel_size: k, at least s; None for 2 s - s % 2, which can interpolate.
        per_channel: each channel by itself, F = C: a kernel [k, k, C] instead of [k, k, F, C].
        kernel_initializer: "bilinear" interpolates each channel by itself at first, F = C; else one of Keras's. With
            `trainable=False` it is that for ever.

    Raises:
        ValueError: for sizes below 1, a kernel smaller than the stride, or other filters than channels where F = C.
    """

    def __init__(
        self, filters=None, stride=2, kernel_size=None, per_channel=False, kernel_initializer="bilinear", **kwargs
    ):
        super().__init__(**kwargs)
        self.filters = None if filters is None else whole_number("filters", filters, 1)
        self.stride, self.per_channel = whole_number("stride", stride, 1), bool(per_channel)
        size = 2 * self.stride - self.stride % 2 if kernel_size is None else kernel_size
        self.kernel_size = whole_number("kernel_size", size, self.stride)
        bilinear = kernel_initializer == "bilinear"
        self.kernel_initializer = kernel_initializer if bilinear else keras.initializers.get(kernel_initializer)

    def build(self, input_shape):
        channels, bilinear = input_shape[-1], self.kernel_initializer == "bilinear"
        filters = self.filters or channels
        if filters != channels and (self.per_channel or bilinear):
            raise ValueError(f"expected as many filters as channels, received {filters} for {channels} channels")
        shape = (self.kernel_size,) * 2 + ((channels,) if self.per_channel else (filters, channels))
        own = np.ones(channels) if self.per_channel else np.eye(channels)
        start = lambda shape, dtype: tf.cast(np.multiply.outer(bilinear_kernel(self.kernel_size), own), dtype)
        initializer = start if bilinear else self.kernel_initializer
        self.kernel = self.add_weight(shape=shape, initializer=initializer, name="kernel")

    def call(self, maps):
        return transposed_convolution(maps, tf.convert_to_tensor(self.kernel), self.stride)

    def get_config(self):
        own = {name: getattr(self, name) for name in ("filters", "stride", "kernel_size", "per_channel")}
        initializer = self.kernel_initializer
        initializer = initializer if initializer == "bilinear" else keras.initializers.serialize(initializer)
        return {**super().get_config(), **own, "kernel_initializer": initializer}
