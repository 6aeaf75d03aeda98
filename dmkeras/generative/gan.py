"""Generative adversarial nets (Goodfellow et al., 2014, https://arxiv.org/abs/1406.2661).

    min_G max_D  E log D(x) + E log(1 - D(G(z)))        eq. 1; both objectives of G: parts/adversarial.py
    h_u = max_k (W_uk . x + b_uk)                       maxout, the units of D (Goodfellow et al., 2013)

The sizes are those of the authors' MNIST code (github.com/goodfeli/adversarial, mnist.yaml): G has two layers of 1200
rectifiers and sigmoid pixels, D two of 240 maxout units of 5 pieces, with dropout.

Shapes:  B batch, H height, W width, C colours, Z latent size, U maxout units, K pieces.

Deviations from the paper, each with its reason:
- Weights start Glorot-uniform and momentum stays at 0.5 (theirs rises to 0.7): schedules are the trainer's affair.
- Columns of weights are not kept under a norm of 1.9365: at these learning rates nothing was seen to grow.
- Latents are uniform in [-1, 1], as DCGAN's and InfoGAN's are, so that all three answer the same requests.
"""

import keras
import tensorflow as tf
from keras import layers

from dmkeras.parts import adversarial, latents
from dmkeras.parts.checks import check_image_shape, check_images, number, whole_number


@keras.saving.register_keras_serializable("dmkeras")
class Maxout(layers.Layer):
    """[B, D] -> [B, U], each the largest of K affine pieces.

    Args:
        units: U.
        pieces: K.
    """

    def __init__(self, units, pieces=5, **kwargs):
        super().__init__(**kwargs)
        self.units, self.pieces = units, pieces
        self.affine = layers.Dense(units * pieces, dtype=self.dtype_policy)

    def build(self, input_shape):
        self.affine.build(input_shape)

    def call(self, inputs):
        return tf.reduce_max(tf.reshape(self.affine(inputs), (-1, self.units, self.pieces)), axis=-1)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {**super().get_config(), "units": self.units, "pieces": self.pieces}


@adversarial.two_networks
@keras.saving.register_keras_serializable("dmkeras")
class GAN(keras.Model):
    """Fully connected generator and maxout discriminator.

    Call: images `[B, H, W, C]` float32 in [0, 1]  ->  logits `[B, 1]` float32 of their being data.

    | signature | inputs | outputs |
    | --- | --- | --- |
    | serving_default | z [B, Z] float32, uniform in [-1, 1] | images [B, H, W, C] float32 in [0, 1] |
    | generate | z | images, the same |
    | sample | seed [B, 2] int32, one row per answer | images |
    | interpolate | a [B, Z], b [B, Z] float32 | images [B, 8, H, W, C] on the straight line from a to b |

    Args:
        image_shape: (H, W, C) of one image.
        latent_size: Z.
        hidden_size: rectifiers in each of G's two layers.
        maxout_units: U, in each of D's two layers.
        maxout_pieces: K.
        dropout: of D's hidden layers; of its input two fifths of that.
        objective: of G, `"non_saturating"` or `"minimax"`.
        average: decay of the averaged generator that draws the pictures; 0 draws by G itself.

    Raises:
        ValueError: for sizes below one or other options; `fit` and `evaluate` raise it for images of another shape or
            outside [0, 1], the verbs for latents of another size.
    """

    def __init__(
        self,
        image_shape=(28, 28, 1),
        latent_size=100,
        hidden_size=1200,
        maxout_units=240,
        maxout_pieces=5,
        dropout=0.5,
        objective="non_saturating",
        average=0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.image_shape = check_image_shape(image_shape)
        self.latent_size = whole_number("latent_size", latent_size, 1)
        self.hidden_size = whole_number("hidden_size", hidden_size, 1)
        self.maxout_units = whole_number("maxout_units", maxout_units, 1)
        self.maxout_pieces = whole_number("maxout_pieces", maxout_pieces, 1)
        self.dropout = number("dropout", dropout, below=1)
        adversarial.equip(self, self._generator(), self._discriminator(), objective, average)
        self(keras.Input(self.image_shape))

    def _generator(self):
        height, width, colours = self.image_shape
        options = {"dtype": self.dtype_policy}  # a reloaded model's, not the process's
        hidden = [layers.Dense(self.hidden_size, "relu", **options) for _ in range(2)]
        pixels = layers.Dense(height * width * colours, "sigmoid", **options)
        parts = [keras.Input((self.latent_size,)), *hidden, pixels, layers.Reshape(self.image_shape, **options)]
        return keras.Sequential(parts, name="generator")

    def _discriminator(self):
        options = {"dtype": self.dtype_policy}
        parts = [
            keras.Input(self.image_shape),
            layers.Flatten(**options),
            layers.Dropout(0.4 * self.dropout, **options),
        ]
        for _ in range(2):
            parts += [Maxout(self.maxout_units, self.maxout_pieces, **options), layers.Dropout(self.dropout, **options)]
        return keras.Sequential([*parts, layers.Dense(1, dtype="float32")], name="discriminator")

    def optimizers(self):
        """Of D and of G: stochastic gradient descent with the authors' first rate and momentum."""
        return [keras.optimizers.SGD(0.1, momentum=0.5) for _ in range(2)]

    def call(self, images, training=False):
        return self.discriminator(images, training=training)

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
        """The picture [H, W, C] of the means of `plus` less those of `minus`, lists of latents [N, Z]."""
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
        own = ("image_shape", "latent_size", "hidden_size", "maxout_units", "maxout_pieces", "dropout")
        own += ("objective", "average")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}
