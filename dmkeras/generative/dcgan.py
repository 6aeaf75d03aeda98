"""Deep convolutional generative adversarial networks (Radford, Metz and Chintala, 2015, https://arxiv.org/abs/1511.06434).

    G  dense to a small map, then 5x5 transposed convolutions of stride 2; rectifiers, tanh at the end     section 3
    D  5x5 convolutions of stride 2, leaky rectifiers of slope 0.2, one dense logit
    batch normalisation everywhere but in G's output and D's input

After the authors' code (github.com/Newmu/dcgan_code, faces/train_uncond_dcgan.py): 64 px, from 4x4 of 8 F maps over
512, 256, 128 (F = 128) to the picture; weights from N(0, 0.02), gains from N(1, 0.02), an L2 penalty, and real and
generated pictures as batches of their own. Inside, pixels are in [-1, 1]; at every door they are in [0, 1].

A size of 64 begins at 4x4, 32 at 4x4 with one stage less, 28 at 7x7 with two stages, 8 at 4x4 with one: sides are
halved while they stay above 7. The widest maps stand at the smallest size, F at the last but one.

Shapes:  B batch, H height, W width, C colours, Z latent size, F filters, N stages.

Deviations from the paper, each with its reason:
- Moving statistics of momentum 0.9 draw and judge pictures one by one; the authors' code normalises by the batch at
  hand, where a picture would depend on its neighbours.
"""

import itertools

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from dmkeras.parts import adversarial, latents
from dmkeras.parts.checks import check_image_shape, check_images, whole_number

GRID = 4  # the features of a convolution are pooled to GRID x GRID (section 5.1)


@adversarial.two_networks
@keras.saving.register_keras_serializable("dmkeras")
class DCGAN(keras.Model):
    """Convolutional generator and discriminator.

    Call: images `[B, H, W, C]` float32 in [0, 1]  ->  logits `[B, 1]` float32 of their being data.

    | signature | inputs | outputs |
    | --- | --- | --- |
    | serving_default | z [B, Z] float32, uniform in [-1, 1] | images [B, H, W, C] float32 in [0, 1] |
    | generate | z | images, the same |
    | sample | seed [B, 2] int32, one row per answer | images |
    | interpolate | a [B, Z], b [B, Z] float32 | images [B, 8, H, W, C] on the straight line from a to b |

    Args:
        image_shape: (H, W, C) of one image; both sides halve at least once above 7.
        latent_size: Z.
        filters: F.
        l2: strength of the penalty l2 / 2 |w|^2 on all kernels.
        objective: of G, `"non_saturating"` or `"minimax"`.
        average: decay of the averaged generator that draws the pictures; 0 draws by G itself.

    Raises:
        ValueError: for sizes that make no network; `fit` and `evaluate` raise it for images of another shape or outside
            [0, 1], the verbs for latents of another size.
    """

    def __init__(
        self,
        image_shape=(64, 64, 3),
        latent_size=100,
        filters=128,
        l2=1e-5,
        objective="non_saturating",
        average=0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_image_shape(image_shape)
        for name, size in (("latent_size", latent_size), ("filters", filters)):
            if whole_number(name, size) < 1:
                raise ValueError(f"{name} must be at least 1, received {size}")
        self.image_shape, self.latent_size, self.filters, self.l2 = tuple(image_shape), latent_size, filters, l2
        self.stages, self.start = adversarial.halvings(self.image_shape)
        adversarial.equip(self, self._generator(), self._discriminator(), objective, average)
        self(keras.Input(self.image_shape))

    def _options(self, bias):
        return {
            "kernel_initializer": keras.initializers.RandomNormal(stddev=0.02),
            "kernel_regularizer": keras.regularizers.L2(self.l2 / 2),
            "use_bias": bias,
            "dtype": self.dtype_policy,
        }

    def _normalized(self):
        gain = keras.initializers.RandomNormal(mean=1.0, stddev=0.02)
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, gamma_initializer=gain, dtype=self.dtype_policy)

    def _generator(self):
        policy, widest = {"dtype": self.dtype_policy}, self.filters * 2 ** (self.stages - 1)
        first = layers.Dense(int(np.prod(self.start)) * widest, **self._options(bias=False))
        parts = [keras.Input((self.latent_size,)), first, layers.Reshape((*self.start, widest), **policy)]
        parts += [self._normalized(), layers.ReLU(**policy)]
        for stage in range(1, self.stages):
            up = layers.Conv2DTranspose(widest // 2**stage, 5, 2, "same", **self._options(bias=False))
            parts += [up, self._normalized(), layers.ReLU(**policy)]
        parts.append(layers.Conv2DTranspose(self.image_shape[-1], 5, 2, "same", **self._options(bias=True)))
        to_pixels = [layers.Activation("tanh", **policy), layers.Rescaling(0.5, 0.5, **policy)]
        return keras.Sequential([*parts, *to_pixels], name="generator")

    def _discriminator(self):
        parts = [keras.Input(self.image_shape), layers.Rescaling(2.0, -1.0, dtype=self.dtype_policy)]
        for stage in range(self.stages):
            parts.append(layers.Conv2D(self.filters * 2**stage, 5, 2, "same", **self._options(bias=stage == 0)))
            parts += [self._normalized()] if stage else []
            parts.append(layers.LeakyReLU(0.2, dtype=self.dtype_policy, name=f"stage_{stage}"))
        logit = layers.Dense(1, **{**self._options(bias=True), "dtype": "float32"})
        return keras.Sequential([*parts, layers.Flatten(dtype="float32"), logit], name="discriminator")

    def optimizers(self):
        """Of D and of G: the paper's Adam."""
        return [keras.optimizers.Adam(2e-4, beta_1=0.5) for _ in range(2)]

    def call(self, images, training=False):
        return self.discriminator(images, training=training)

    def features(self, images):
        """What D's convolutions see, for a linear classifier (section 5.1): maxima over a 4x4 grid of all their maps.

        Args:
            images: [B, H, W, C] in [0, 1].

        Returns:
            [B, features] float32.
        """
        self.check_images(images)
        maps, found = tf.cast(images, "float32"), []
        for layer in self.discriminator.layers:
            maps = layer(maps, training=False)
            if layer.name.startswith("stage_"):
                found.append(_grid_maxima(tf.cast(maps, "float32")))
        return tf.concat(found, axis=-1)

    def generate(self, z):
        """z [B, Z] -> images [B, H, W, C] float32 in [0, 1]."""
        return latents.generate(self, latents.check_latents(self, z))

    def sample(self, num_samples, seed=None):
        """Draws [num_samples, H, W, C] float32; an integer `seed` gives the same again."""
        return latents.sample(self, num_samples, seed)

    def interpolate(self, a, b, steps=latents.STEPS):
        """Pictures on the straight lines from latents a to b, each [B, Z] -> [B, steps, H, W, C]."""
        return latents.interpolate(self, a, b, steps)

    def arithmetic(self, plus, minus=()):
        """The picture [H, W, C] of the means of `plus` less those of `minus`, lists of latents [N, Z] (section 6.3)."""
        return latents.arithmetic(self, plus, minus)

    def check_images(self, images):
        check_images(images, self.image_shape)

    def train_step(self, data):
        return adversarial.train_step(self, data)

    def test_step(self, data):
        return adversarial.test_step(self, data)

    def signatures(self):
        return latents.signatures(self)

    def get_config(self):
        own = ("image_shape", "latent_size", "filters", "l2", "objective", "average")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


def _grid_maxima(maps):
    """Maxima over a GRID x GRID partition, or over single pixels where there are fewer: [B, H, W, F] -> [B, G G F]."""
    _, height, width, filters = maps.shape
    rows, columns = ([round(i * side / n) for i in range(n + 1)] for side, n in _parts(height, width))
    cells = [
        tf.reduce_max(maps[:, top:bottom, left:right], axis=(1, 2))
        for top, bottom in itertools.pairwise(rows)
        for left, right in itertools.pairwise(columns)
    ]
    return tf.reshape(tf.stack(cells, axis=1), (-1, len(cells) * filters))


def _parts(*sides):
    return [(side, min(side, GRID)) for side in sides]
