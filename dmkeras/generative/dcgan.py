"""Deep convolutional generative adversarial networks (Radford, Metz and Chintala, 2015, https://arxiv.org/abs/1511.06434).

    G  dense to a small map, then 5x5 transposed convolutions of stride 2; rectifiers, tanh at the end     section 3
    D  5x5 convolutions of stride 2, leaky rectifiers of slope 0.2, one dense logit
    batch normalisation everywhere but in G's output and D's input

After the authors' code (github.com/Newmu/dcgan_code, faces/train_uncond_dcgan.py): 64 px, from 4x4 of 8 F maps over
512, 256, 128 (F = 128) to the picture; weights from N(0, 0.02), gains from N(1, 0.02), an L2 penalty, and real and
generated pictures as batches of their own. Inside, pixels are in [-1, 1]; at every door they are in [0, 1].

A size of 64 begins at 4x4, 32 at 4x4 with one stage less, 28 at 7x7 with two stages, 8 at 4x4 with one: sides are
halved while they stay above 7. The widest maps stand at the smallest size, F at the last but one.

With `num_classes` > 0 the pictures are labelled, as in the authors' MNIST code (mnist/train_cond_dcgan.py): the label
stands beside z and the input of every further layer of G, and beside the input of every layer of D
(parts/conditional.py). Normalisation has no gains and offsets then, which the paper found better (supplement).

Shapes:  B batch, H height, W width, C colours, Z latent size, F filters, N stages, K classes.

Deviations from the paper, each with its reason:
- Moving statistics of momentum 0.9 draw and judge pictures one by one; the authors' code normalises by the batch at
  hand, where a picture would depend on its neighbours.
- The penalty is on kernels; theirs is on gains and offsets, too, which it would draw to 0.
- Biases stand where no normalisation has its own: G's last layer, D's first and its logit, where theirs has none.
- A batch of pictures serves a step of D and a step of G (algorithm 1 of the first GAN paper); theirs takes a new one
  for each, so that an epoch of theirs has half as many steps. Padding is Keras's, 1 before and 2 after; theirs 2 and 2.
- With labels the rest is the network for pictures without: the authors' MNIST code has a dense layer of 1024 more in G
  and in D, sigmoid pixels and D's input in [0, 1].
"""

import itertools

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from dmkeras.parts import adversarial, conditional, latents
from dmkeras.parts.checks import check_image_shape, check_images, is_symbolic, number, whole_number

GRID = 4  # the features of a convolution are pooled to GRID x GRID (section 5.1)


@conditional.looks_at_labels
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

    With K > 0 classes a call takes a pair, (images, labels [B] of whole numbers from 0 to K - 1), `fit` and `evaluate`
    take labels beside the pictures, and every endpoint takes `labels` [B] int32 beside its inputs, of which what is
    below 0 or above K - 1 counts for the nearest class.

    Args:
        image_shape: (H, W, C) of one image; both sides halve at least once above 7.
        latent_size: Z.
        filters: F.
        l2: strength of the penalty l2 / 2 |w|^2 on all kernels.
        objective: of G, `"non_saturating"` or `"minimax"`.
        average: decay of the averaged generator that draws the pictures; 0 draws by G itself.
        num_classes: K; 0 for pictures without labels, or labels that are not used.

    Raises:
        ValueError: for sizes that make no network; `fit` and `evaluate` raise it for images of another shape or outside
            [0, 1], the verbs for latents of another size, and with K > 0 all of them for labels that are no classes.
    """

    def __init__(
        self,
        image_shape=(64, 64, 3),
        latent_size=100,
        filters=128,
        l2=1e-5,
        objective="non_saturating",
        average=0.0,
        num_classes=0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.image_shape = check_image_shape(image_shape)
        self.latent_size = whole_number("latent_size", latent_size, 1)
        self.filters = whole_number("filters", filters, 1)
        self.l2 = number("l2", l2)
        self.num_classes = whole_number("num_classes", num_classes, 0)  # 0: no labels
        self.stages, self.start = adversarial.halvings(self.image_shape)
        adversarial.equip(self, self._generator(), self._discriminator(), objective, average)
        images = keras.Input(self.image_shape)
        self((images, keras.Input((), dtype="int32")) if num_classes else images)

    def _options(self, bias):
        return {
            "kernel_initializer": keras.initializers.RandomNormal(stddev=0.02),
            "kernel_regularizer": keras.regularizers.L2(self.l2 / 2),
            "use_bias": bias,
            "dtype": self.dtype_policy,
        }

    def _normalized(self):
        gain = keras.initializers.RandomNormal(mean=1.0, stddev=0.02)
        learned = {"gamma_initializer": gain} if not self.num_classes else {"center": False, "scale": False}
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=self.dtype_policy, **learned)

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
        return conditional.network([*parts, *to_pixels], self.num_classes, "generator")

    def _discriminator(self):
        parts = [keras.Input(self.image_shape), layers.Rescaling(2.0, -1.0, dtype=self.dtype_policy)]
        for stage in range(self.stages):
            parts.append(layers.Conv2D(self.filters * 2**stage, 5, 2, "same", **self._options(bias=stage == 0)))
            parts += [self._normalized()] if stage else []
            parts.append(layers.LeakyReLU(0.2, dtype=self.dtype_policy, name=f"stage_{stage}"))
        logit = layers.Dense(1, **{**self._options(bias=True), "dtype": "float32"})
        return conditional.network([*parts, layers.Flatten(dtype="float32"), logit], self.num_classes, "discriminator")

    def optimizers(self):
        """Of D and of G: the paper's Adam."""
        return [keras.optimizers.Adam(2e-4, beta_1=0.5) for _ in range(2)]

    def call(self, inputs, training=False):
        images, labels = inputs if isinstance(inputs, (tuple, list)) else (inputs, None)
        if is_symbolic(labels):
            labels = tf.cast(labels, "int32")  # the signature that Keras itself saves takes all inputs for floats
        return conditional.given(self, labels).discriminator(images, training=training)

    def features(self, images):
        """What D's convolutions see, for a linear classifier (section 5.1): maxima over a 4x4 grid of all their maps.

        With classes D is told none, y = 0: the features are for those who do not know the label.

        Args:
            images: [B, H, W, C] in [0, 1].

        Returns:
            [B, features] float32.
        """
        self.check_images(images)
        maps, found = tf.cast(images, "float32"), []
        nothing = tf.zeros((tf.shape(maps)[0], self.num_classes))
        for layer in self.discriminator.layers:
            if isinstance(layer, conditional.BesideLabels):
                maps = layer(maps, nothing)
            elif not isinstance(layer, layers.InputLayer):
                maps = layer(maps, training=False)
            if layer.name.startswith("stage_"):
                found.append(_grid_maxima(tf.cast(maps, "float32")))
        return tf.concat(found, axis=-1)

    def generate(self, z, labels=None):
        """z [B, Z] and, with classes, labels [B] -> images [B, H, W, C] float32 in [0, 1]."""
        z = latents.check_latents(self, z)
        return latents.generate(conditional.given(self, labels, z.shape[0]), z)

    def sample(self, num_samples, seed=None, labels=None):
        """Draws [num_samples, H, W, C] float32; an integer `seed` gives the same again.

        With classes `labels` [num_samples] says of which; None draws them too, uniformly, as a function of the seed.
        """
        return conditional.sample(self, num_samples, seed, labels)

    def interpolate(self, a, b, steps=latents.STEPS, labels=None):
        """Pictures on the straight lines from latents a to b, each [B, Z] -> [B, steps, H, W, C].

        With classes each line stays within one, `labels` [B].
        """
        if self.num_classes:
            labels = conditional.check_labels(labels, self.num_classes, latents.check_latents(self, a).shape[0])
            labels = tf.repeat(labels, max(0, whole_number("steps", steps)))
        return latents.interpolate(conditional.given(self, labels), a, b, steps)

    def arithmetic(self, plus, minus=(), label=None):
        """The picture [H, W, C] of the means of `plus` less those of `minus`, lists of latents [N, Z] (section 6.3).

        With classes the picture is of one, the whole number `label`.
        """
        return latents.arithmetic(conditional.given(self, None if label is None else [label]), plus, minus)

    def check_images(self, images):
        check_images(images, self.image_shape)

    def train_step(self, data):
        return adversarial.train_step(self._given(data), data)

    def test_step(self, data):
        return adversarial.test_step(self._given(data), data)

    def _given(self, data):
        """The model with the labels of a batch filled in, which without classes are not used."""
        _, labels, _ = keras.utils.unpack_x_y_sample_weight(data)
        return conditional.given(self, labels) if self.num_classes else self

    def signatures(self):
        return (conditional if self.num_classes else latents).signatures(self)

    def get_config(self):
        own = ("image_shape", "latent_size", "filters", "l2", "objective", "average", "num_classes")
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
