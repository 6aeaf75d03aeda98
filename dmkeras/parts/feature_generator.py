"""A generator from a classifier's features to pictures, after Dosovitskiy and Brox.

"Generating Images with Perceptual Similarity Metrics based on Deep Networks", 2016 (https://arxiv.org/abs/1602.02644).
G makes a picture of the code c = E(x) of a picture x, a layer of the classifier; F is an earlier layer of it, the
comparator; D tells pictures from made ones:

    L      = a L_feat + b L_adv + c L_img                                                                            (1)
    L_feat = |F(G(c)) - F(x)|^2                                                                                      (2)
    L_adv  = -log D(G(c))                                                                                            (3)
    L_D    = -log D(x) - log(1 - D(G(c)))                                                                            (4)
    L_img  = |G(c) - x|^2                                                                                            (5)

sums over what one picture has, means over a batch. G: a dense layer with rectifiers of slope 0.3, then up-convolutions
4x4 of stride 2 with the same, which double the sides to the picture's; D: convolutions of stride 2, a dense logit.
Training is a step of G and one of D by Adam; D rests while its loss is below a tenth of L_adv.

Deviations from the paper, each with its reason:
- L_feat and L_img are means over numbers instead of sums: strengths mean the same at any size.
- The last layer is a sigmoid: pixels are in [0, 1].
- D sees the picture alone, not the code.
- Codes are divided by their sizes first, since units of a small network differ much in theirs.

Shapes:  B batch, H height, W width, C channels, Z code size.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from dmkeras.parts import adversarial, checks, explained

SLOPE = 0.3  # of the rectifiers below 0
PAUSE = 0.1  # D rests while its loss is less than so much of G's
WEIGHTS = {"features": 0.05, "adversarial": 0.005, "pixels": 10.0}


def generator(code_size, image_shape, filters=32, sizes=None):
    """G, a `keras.Model` of codes [B, Z] -> pictures [B, H, W, C] in [0, 1].

    Args:
        code_size: Z.
        image_shape: (H, W, C); both sides halve at least once above 7.
        filters: of the last up-convolution but one.
        sizes: [Z], by which codes are divided, such as their standard deviations; 0 divides by 1. None for none.
    """
    sizes = np.ones(code_size) if sizes is None else np.where(np.asarray(sizes) > 0, sizes, 1.0)
    stages, start = adversarial.halvings(checks.check_image_shape(image_shape))
    widest = filters * 2 ** (stages - 1)
    parts = [keras.Input((code_size,)), layers.Rescaling((1 / sizes).tolist())]
    parts += [layers.Dense(int(np.prod(start)) * widest), layers.LeakyReLU(SLOPE), layers.Reshape((*start, widest))]
    for stage in range(1, stages + 1):
        parts += [layers.Conv2DTranspose(widest // 2**stage or 1, 4, 2, "same"), layers.LeakyReLU(SLOPE)]
    pixels = layers.Conv2D(image_shape[-1], 3, padding="same", activation="sigmoid", dtype="float32")
    return keras.Sequential([*parts, pixels], name="generator")


def discriminator(image_shape, filters=32):
    """D, pictures [B, H, W, C] in [0, 1] -> logits [B, 1] of their being no made ones."""
    stages, _ = adversarial.halvings(checks.check_image_shape(image_shape))
    parts = [keras.Input(image_shape), layers.Rescaling(2.0, -1.0)]
    for stage in range(stages):
        parts += [layers.Conv2D(filters * 2**stage, 5, 2, "same"), layers.LeakyReLU(SLOPE)]
    return keras.Sequential([*parts, layers.Flatten(), layers.Dense(1, dtype="float32")], name="discriminator")


def distance(first, second):
    """The mean square of the differences of two tensors [B, ...], over all numbers of each row: [B]."""
    first, second = (tf.cast(values, "float32") for values in (first, second))
    return tf.reduce_mean(tf.square(first - second), list(range(1, first.shape.rank)))


@adversarial.two_networks
class FeatureGenerator(keras.Model):
    """G and D in training; `fit` takes (pictures [B, H, W, C] in [0, 1], their codes [B, Z]). It is not saved: G is.

    Args:
        classifier: any built classifier; its weights stay as they are.
        comparator: name of the layer F.
        code_size: Z.
        image_shape: (H, W, C).
        filters: of G's last up-convolution but one, and of D's first.
        sizes: [Z], of the codes; see `generator`.
        weights: {"features": a, "adversarial": b, "pixels": c}.
    """

    def __init__(self, classifier, comparator, code_size, image_shape, filters=32, sizes=None, weights=None, **kwargs):
        super().__init__(**kwargs)
        self.image_shape = checks.check_image_shape(image_shape)
        self.comparator = explained.check_layer(classifier, self.image_shape, comparator)
        self.classifier, self.loss_weights = classifier, {**WEIGHTS, **(weights or {})}
        self.generator = generator(code_size, self.image_shape, filters, sizes)
        self.discriminator = discriminator(self.image_shape, filters)
        names = ("d_loss", "adversarial", "features", "pixels")
        self.means = {name: keras.metrics.Mean(name=name) for name in names}

    def optimizers(self):
        """Of D and of G: the paper's Adam, of momentum 0.9."""
        return [keras.optimizers.Adam(2e-4, beta_1=0.9) for _ in range(2)]

    def call(self, codes):
        return self.generator(codes)

    def check_images(self, images):
        checks.check_images(images, self.image_shape)

    def compared(self, images):
        """What the comparator makes of pictures."""
        return explained.activations(self.classifier, images, [self.comparator])[self.comparator]

    def losses_of_generator(self, images, made):
        """{"features", "adversarial", "pixels"}, equations 2, 3 and 5, means over the batch."""
        return {
            "features": tf.reduce_mean(distance(self.compared(made), self.compared(images))),
            "adversarial": adversarial.generator_loss(self.discriminator(made, training=True)),
            "pixels": tf.reduce_mean(distance(made, images)),
        }

    def train_step(self, data):
        images, codes, _ = keras.utils.unpack_x_y_sample_weight(data)
        images = tf.cast(images, "float32")
        with tf.GradientTape() as tape:
            made = self.generator(codes, training=True)
            found = self.losses_of_generator(images, made)
            loss = tf.add_n([self.loss_weights[name] * value for name, value in found.items()])
        gradients = tape.gradient(loss, self.generator.trainable_variables)
        with tf.GradientTape() as tape:
            real, fake = (self.discriminator(x, training=True) for x in (images, tf.stop_gradient(made)))
            d_loss = adversarial.discriminator_loss(real, fake)
        variables = self.discriminator.trainable_variables
        d_gradients, behind = tape.gradient(d_loss, variables), d_loss >= PAUSE * found["adversarial"]
        tf.cond(behind, lambda: self.d_optimizer.apply(d_gradients, variables), lambda: None)
        self.g_optimizer.apply(gradients, self.generator.trainable_variables)
        for name, value in {"d_loss": d_loss, **found}.items():
            self.means[name].update_state(value)
        return {name: mean.result() for name, mean in self.means.items()}


def train(model, images, codes, passes, batch_size=32, learning_rate=3e-3):
    """Fits a FeatureGenerator to pictures [N, H, W, C] and their codes [N, Z]; rates fall to 0 along a cosine."""
    steps = passes * max(1, len(images) // batch_size)
    rates = [keras.optimizers.schedules.CosineDecay(learning_rate, steps) for _ in range(2)]
    model.compile(*(keras.optimizers.Adam(rate, beta_1=0.9) for rate in rates), jit_compile=False)
    return model.fit(images, codes, batch_size=batch_size, epochs=passes, verbose=2)
