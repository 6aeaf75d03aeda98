"""PixelCNN (van den Oord, Kalchbrenner and Kavukcuoglu, 2016, https://arxiv.org/abs/1601.06759, sections 3.3 to 3.6).

    p(x) = prod_i p(x_i,R | x_<i) p(x_i,G | x_<i, x_i,R) p(x_i,B | x_<i, x_i,R, x_i,G)       eq. 1, 2; raster order

    7x7 convolution, mask A, to 2h maps                                                      table 1
    blocks of  y + conv1x1(relu(conv3x3(relu(conv1x1(relu(y))))))  with 2h -> h -> h -> 2h   figure 5, left; mask B
    relu, 1x1 mask B; relu, 1x1 mask B; relu, 1x1 mask B to logits                           table 1

Every convolution is masked by colour too, the 1x1 ones included (parts/masked_conv.py), and the logits are laid out
colour by colour. A pixel does not see all earlier ones: what is above it and far to its right is in its blind spot.

Sampling evaluates the network at single pixels, of several rows at once, and remembers what the 3x3 convolutions will
read of them (parts/wave_drawing.py): the same pictures as by asking the whole network for each pixel (`cached=False`),
from the same uniform numbers.

Shapes:  B batch, H height, W width, C colours, h filters, L blocks, K levels.

Deviations from the paper, each with its reason:
- Weights start Glorot-uniform; the paper does not say. RMSProp, its optimizer, is the recipe's affair.
- The head has `head_filters` maps in both layers (the paper: 32 for MNIST, 1024 for colour).
"""

import keras
import tensorflow as tf

from dmkeras.parts import explicit_density, raster_drawing, wave_drawing
from dmkeras.parts.checks import check_image_shape, looks_at_first_batch, whole_number
from dmkeras.parts.masked_conv import MaskedConv2D

TAPS = ((1, -1), (1, 0), (1, 1), (0, -1))  # rows above, columns to the right: what a 3x3 kernel of mask B reads first


@looks_at_first_batch
@keras.saving.register_keras_serializable("dmkeras")
class PixelCNN(keras.Model):
    """An exact density of pictures by masked convolutions.

    Call: images `[B, H, W, C]` float32, k / (levels - 1)  ->  logits `[B, H, W, C]` of the value 1 for two levels, else
    `[B, H, W, C, K]`.

    | signature | inputs | outputs |
    | --- | --- | --- |
    | serving_default | images [B, H, W, C] float32, k / (levels - 1) | log_prob [B], nats; -inf of other values |
    | log_prob | images | log_prob [B], the same |
    | sample | seed [B, 2] int32, one row per answer | images, a draw of p(x); log_prob [B] of it, nats |
    | complete | images, known_mask [B, H, W, 1] float32 (> 0.5 = given), seed | images, log_prob [B], nats |

    Args:
        image_shape: (H, W, C) of one image.
        filters: h, at least C.
        num_blocks: L, residual blocks.
        levels: values of a pixel, 2 (Bernoulli) to 256 (softmax).
        head_filters: maps of the two last hidden layers, at least C.

    Raises:
        ValueError: for sizes that make no model; `fit`, `evaluate`, `log_prob` and `complete` raise it for images of
            another shape or of other values than k / (levels - 1).
    """

    def __init__(self, image_shape=(28, 28, 1), filters=16, num_blocks=7, levels=2, head_filters=32, **kwargs):
        super().__init__(**kwargs)
        _check_arguments(image_shape, filters, num_blocks, levels, head_filters)
        self.image_shape = tuple(image_shape)
        self.filters, self.num_blocks, self.levels, self.head_filters = filters, num_blocks, levels, head_filters
        colours = image_shape[-1]
        masked = lambda *args, kind="B", dtype=self.dtype_policy: MaskedConv2D(*args, kind, colours, dtype=dtype)
        self.first = masked(2 * filters, 7, kind="A")
        self.blocks = [[masked(filters, 1), masked(filters, 3), masked(2 * filters, 1)] for _ in range(num_blocks)]
        logits = colours * levels if levels > 2 else colours
        self.head = [masked(head_filters, 1), masked(head_filters, 1), masked(logits, 1, dtype="float32")]
        self.trackers = explicit_density.trackers()
        self(keras.Input(self.image_shape))

    def call(self, images):
        maps = self.first(images)  # [B, H, W, 2h]
        for narrow, across, widen in self.blocks:
            maps += widen(tf.nn.relu(across(tf.nn.relu(narrow(tf.nn.relu(maps))))))
        for layer in self.head:
            maps = layer(tf.nn.relu(maps))
        return self._logits(maps)

    def _logits(self, maps):
        """[..., C K] -> [..., C, K]: the levels of a colour stand together, as the groups of the masks do."""
        if self.levels == 2:
            return maps
        return tf.reshape(maps, (-1, *maps.shape[1:-1], self.image_shape[-1], self.levels))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Mean -log p(x), nats per image; `y` is not used."""
        return explicit_density.loss(self, y_pred, x, sample_weight)

    def log_prob(self, images):
        """Exact log p(x) of images [B, H, W, C] -> [B] float32, nats."""
        return explicit_density.log_prob(self, images)

    def sample(self, num_samples, seed=None, cached=True, jit_compile=False):
        """Draws from p(x), [num_samples, H, W, C] float32; in mixed precision from that of the float32 weights.

        Args:
            num_samples: pictures.
            seed: an integer for the same pictures again; None for fresh ones.
            cached: whether to remember activations instead of asking the whole network for each pixel.
            jit_compile: by XLA: seconds to compile for each `num_samples`, then several times as fast for few pictures.
        """
        return explicit_density.sample(self, num_samples, seed, jit_compile, cached=cached)

    def complete(self, images, known_mask, seed=None, cached=True, jit_compile=False):
        """Draws the missing pixels of pictures in raster order, each given all pixels before it, drawn or known.

        Args:
            images: [B, H, W, C], of any value where they are not known.
            known_mask: [B, H, W, 1] or [H, W, 1], 1 where a pixel is given. One given later in raster order than a
                missing one does not guide it.
            seed: as for `sample`, like the others.
            cached: see there.
            jit_compile: see there.

        Returns:
            [B, H, W, C] float32 with the given pixels untouched.
        """
        return explicit_density.complete(self, images, known_mask, seed, jit_compile, cached=cached)

    def _draw(self, images, known, uniform, cached=True):
        if not cached:
            step = raster_drawing.naive_step(self)
            return raster_drawing.draw_in_raster_order(images, known, uniform, self.levels, step)
        nothing = tf.zeros((self.image_shape[1], self.num_blocks, tf.shape(images)[0], self.filters))
        return wave_drawing.draw_in_waves(images, known, uniform, self.levels, self._at_pixels(), TAPS, nothing)

    def _at_pixels(self):
        """The network at S single pixels, as `draw_in_waves` takes it.

        Of each pixel it keeps [L, B, h], what the 3x3 convolutions read; the part of their sums that comes from earlier
        pixels is computed for all blocks at once.
        """
        h, depth = self.filters, self.num_blocks
        first, *head = (layer.at_pixel() for layer in (self.first, *self.head))
        kernels = [across.masked_kernel() for _, across, _ in self.blocks]  # [2, 3, h, h]
        near = tf.stack([tf.reshape(kernel, (6 * h, h))[: len(TAPS) * h] for kernel in kernels])  # [L, 4h, h]
        bias = tf.stack([across.bias[None] for _, across, _ in self.blocks])
        own = tf.stack([kernel[1, 1] for kernel in kernels])
        # One tensor of all blocks for each weight: what a loop carries costs time at each step. Biases are subtracted:
        # TensorFlow fuses a product with an addition, for few pixels three times as slow.
        (narrow, narrow_bias), (widen, widen_bias) = (
            map(tf.stack, zip(*(block[i].weights_at_pixel() for block in self.blocks))) for i in (0, 2)
        )
        weights = narrow, -narrow_bias, own, widen, -widen_bias  # [L, ...] each

        def network(window, kept):
            slots, batch = kept.shape[1], tf.shape(kept)[3]
            kept = tf.reshape(tf.transpose(kept, (2, 1, 3, 0, 4)), (depth, -1, len(TAPS) * h))  # [L, S B, 4h]
            sums = tf.matmul(kept, near) + bias
            maps, keep = first(window), []
            for narrow, narrow_bias, own, widen, widen_bias, others in zip(*map(tf.unstack, (*weights, sums))):
                keep.append(tf.nn.relu(tf.nn.relu(maps) @ narrow - narrow_bias))
                maps += tf.nn.relu(keep[-1] @ own + others) @ widen - widen_bias
            for layer in head:
                maps = layer(tf.nn.relu(maps))
            keep = tf.transpose(tf.reshape(tf.stack(keep), (depth, slots, batch, h)), (1, 0, 2, 3))
            return self._logits(maps), keep

        return network

    def check_images(self, images):
        """ValueError for images of another shape or of other values than k / (levels - 1)."""
        explicit_density.check_pixels(images, self.image_shape, self.levels)

    def signatures(self):
        return explicit_density.signatures(self)

    def get_config(self):
        own = ("image_shape", "filters", "num_blocks", "levels", "head_filters")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


def _check_arguments(image_shape, filters, num_blocks, levels, head_filters):
    check_image_shape(image_shape)
    whole_number("num_blocks", num_blocks, 1)
    if min(whole_number("filters", filters), whole_number("head_filters", head_filters)) < image_shape[-1]:
        received = f"filters={filters}, head_filters={head_filters}"
        raise ValueError(f"each of {image_shape[-1]} colours needs a map of its own, received {received}")
    explicit_density.check_levels(levels)
