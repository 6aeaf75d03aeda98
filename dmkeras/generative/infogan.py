"""InfoGAN (Chen, Duan, Houthooft, Schulman, Sutskever and Abbeel, 2016, https://arxiv.org/abs/1606.03657).

    min_{G,Q} max_D  V(D, G) - lambda L_I(G, Q)                              equation 6; V is the game of GAN
    L_I = E_{c ~ P(c), x ~ G(z, c)} log Q(c|x) + H(c)  <=  I(c; G(z, c))     equation 5; by Lemma 5.1 no draw from
                                                                             the true posterior P(c|x) is needed
    z        noise, uniform in [-1, 1]
    c        categorical codes, uniform, one-hot;   H(c) = ln K each
             continuous codes, uniform in [-1, 1];  H(c) = ln 2 each
    Q(c|x)   softmax for a categorical code, a Gaussian N(mean(x), exp(log_var(x))) for the continuous ones

L_I reaches H(c) where pictures tell their code. With log_var = 0, the default as in the authors' code, the continuous
part is an objective, 1/2 (c - mean)^2, and no good bound: it stays below ln 2 - 1/2 ln(2 pi) = -0.226 nats a code.

After the authors' code (github.com/openai/InfoGAN). G: dense, dense to a small map, 4x4 transposed convolutions, pixels
by a sigmoid. D and Q are heads of one trunk: 4x4 convolutions, dense. Batch normalisation everywhere but in G's output,
the trunk's input and the heads'; weights from N(0, 0.02), gains from N(1, 0.02). D's step moves the trunk and both
heads, on V and on lambda L_I of generated pictures; G's step moves G alone, on both again.

Sides are halved while they stay above 7: 28 to 7 in two stages, 32 to 4 in three. 8 has a second one without a stride.

Shapes:  B batch, H height, W width, C colours, F filters, Z noise, K categories, U continuous codes, T all latents.

Deviations from the paper, each with its reason:
- H of the continuous codes is that of the uniform distribution they are drawn from. The authors' code takes the mean
  of -log N(c; 0, 1), 0.392 nats a code more, which is constant and moves nothing, but with which L_I is no lower bound.
- V is the non-saturating game by default, on logits: what the authors' code does with log(p + 1e-8).
"""

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from keras import layers

from dmkeras.parts import adversarial, latents
from dmkeras.parts.checks import check_image_shape, check_images, number, whole_number
from dmkeras.parts.collapse import relative_diversity
from dmkeras.parts.latent_codes import LatentCodes, join
from dmkeras.parts.seeds import check_row_seeds, row_seeds, sample_seeds

tfd = tfp.distributions
LOG_VAR = -4.0, 2.0  # the range of a learned log-variance, without which L_I has no limit


def lower_bound(posterior, codes):
    """E log Q(c|x) + H(c), equation 5.

    Args:
        posterior: {name: Q(c|x), a TFP distribution of batch [B]}: one-hot, or over codes uniform in [-1, 1].
        codes: {name: [B, K or U]}, the codes that the pictures were made of.

    Returns:
        {name: scalar}, nats.
    """
    entropy = lambda q: np.log(q.event_shape[-1] if isinstance(q, tfd.OneHotCategorical) else 2.0 ** q.event_shape[-1])
    return {name: tf.reduce_mean(q.log_prob(codes[name])) + np.float32(entropy(q)) for name, q in posterior.items()}


@adversarial.two_networks
@keras.saving.register_keras_serializable("dmkeras")
class InfoGAN(keras.Model):
    """A generator of noise and codes, and a discriminator that tells the codes, too.

    Call: images `[B, H, W, C]` float32 in [0, 1]  ->  a dict of tensors: `logit` [B, 1] of being data, and what `infer`
    gives.

    | signature | inputs | outputs |
    | --- | --- | --- |
    | infer | images [B, H, W, C] | category_logits [B, K], continuous_mean [B, U], continuous_log_var [B, U] float32 |
    | serving_default | images | category_logits, continuous_mean, continuous_log_var, the same |
    | generate | noise [B, Z], categories [B, K] one-hot, continuous [B, U] | images [B, H, W, C] float32 in [0, 1] |
    | sample | seed [B, 2] int32, one row per answer | images |
    | interpolate | a [B, T], b [B, T] float32, of `pack` | images [B, 8, H, W, C] on the straight line from a to b |

    `pack` sets noise, categories and continuous side by side, in this order. With several categorical codes their names
    are categories_0, category_logits_0, categories_1 ...; what a model does not have is left out. `generate` the method
    refuses categories that are not one-hot; the endpoint, which cannot, takes the largest entry of a row for the 1.

    Args:
        image_shape: (H, W, C) of one image; both sides halve at least once above 7.
        noise_size: Z.
        num_categories: K, or a tuple with that of each categorical code; () for none.
        num_continuous: U; 0 for none.
        filters: F, maps of the trunk's first convolution; each next one has twice as many, and G mirrors them.
        hidden_size: units of the dense layers of G and of the trunk (8x8 digits: 256, with 32 filters, head_size 64).
        head_size: units of Q's hidden layer.
        leaky_slope: of the discriminator's rectifiers below zero, 0.1 in the paper, 0.01 in the authors' code.
        learn_variance: whether Q has a log-variance of its own, in [-4, 2], or 0.
        category_weight: lambda of the categorical codes.
        continuous_weight: lambda of the continuous ones.
        objective: of G, `"non_saturating"` or `"minimax"`.
        average: decay of the averaged generator that draws the pictures; 0 draws by G itself.

    Metrics: `d_loss` and `g_loss` of V alone, `diversity`, and of generated pictures L_I in nats: `mutual_information`,
    the sum over categorical codes, at most sum ln K; `mutual_information_continuous`, the sum over continuous ones.

    Raises:
        ValueError: for sizes that make no network, or no code at all; `fit`, `evaluate` and `infer` raise it for images
            of another shape or outside [0, 1], the verbs for latents of another size and categories not one-hot.
    """

    def __init__(
        self,
        image_shape=(28, 28, 1),
        noise_size=62,
        num_categories=10,
        num_continuous=2,
        filters=64,
        hidden_size=1024,
        head_size=128,
        leaky_slope=0.1,
        learn_variance=False,
        category_weight=1.0,
        continuous_weight=0.1,
        objective="non_saturating",
        average=0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.image_shape = check_image_shape(image_shape)
        self.noise_size = whole_number("noise_size", noise_size, 1)
        several = isinstance(num_categories, (tuple, list))
        sizes = num_categories if several else [num_categories]
        sizes = tuple(whole_number("num_categories", size, 2) for size in sizes)
        self.num_categories = sizes if several else sizes[0]
        self.num_continuous = whole_number("num_continuous", num_continuous, 0)
        if not sizes and not self.num_continuous:
            raise ValueError("num_categories=() and num_continuous=0 leave no code to infer; use DCGAN instead")
        self.filters = whole_number("filters", filters, 1)
        self.hidden_size = whole_number("hidden_size", hidden_size, 1)
        self.head_size = whole_number("head_size", head_size, 1)
        self.leaky_slope = number("leaky_slope", leaky_slope, below=1)
        self.learn_variance = learn_variance
        self.category_weight = number("category_weight", category_weight)
        self.continuous_weight = number("continuous_weight", continuous_weight)
        self.layout = LatentCodes(self.noise_size, sizes, self.num_continuous)
        self.latent_size = self.layout.latent_size  # T
        self.strides, self.start = _strides(self.image_shape)
        adversarial.equip(self, self._generator(), self._discriminator(), objective, average)
        kinds = {"mutual_information": sizes, "mutual_information_continuous": num_continuous}
        self.trackers += [keras.metrics.Mean(name=name) for name, has in kinds.items() if has]
        self(keras.Input(self.image_shape))

    # --- networks ---------------------------------------------------------------------------------------------------

    def _options(self, bias=False):  # none before a normalisation, which has its own
        normal = keras.initializers.RandomNormal(stddev=0.02)
        return {"kernel_initializer": normal, "use_bias": bias, "dtype": self.dtype_policy}

    def _normalized(self):
        gain = keras.initializers.RandomNormal(mean=1.0, stddev=0.02)
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, gamma_initializer=gain, dtype=self.dtype_policy)

    def _generator(self):
        policy, widest = {"dtype": self.dtype_policy}, self.filters * 2 ** (len(self.strides) - 1)
        parts = [keras.Input((self.latent_size,))]
        for units in (self.hidden_size, int(np.prod(self.start)) * widest):
            parts += [layers.Dense(units, **self._options()), self._normalized(), layers.ReLU(**policy)]
        parts.append(layers.Reshape((*self.start, widest), **policy))
        *inner, last = reversed(self.strides)
        for stage, stride in enumerate(inner, 1):
            up = layers.Conv2DTranspose(widest // 2**stage, 4, stride, "same", **self._options())
            parts += [up, self._normalized(), layers.ReLU(**policy)]
        size = 4 if last == 2 else 3  # a window of 4 without a stride would have no middle
        parts.append(layers.Conv2DTranspose(self.image_shape[-1], size, last, "same", **self._options(bias=True)))
        return keras.Sequential([*parts, layers.Activation("sigmoid", **policy)], name="generator")

    def _discriminator(self):
        """The trunk and both heads: images -> {"logit": ..., and the parameters of Q}."""
        rectified = lambda maps: layers.LeakyReLU(self.leaky_slope, dtype=self.dtype_policy)(maps)
        head = lambda name, units: layers.Dense(units, **{**self._options(bias=True), "dtype": "float32"}, name=name)
        images = maps = keras.Input(self.image_shape)
        for stage, stride in enumerate(self.strides):
            maps = layers.Conv2D(self.filters * 2**stage, 4, stride, "same", **self._options(bias=stage == 0))(maps)
            maps = rectified(self._normalized()(maps) if stage else maps)
        flat = layers.Flatten(dtype=self.dtype_policy)(maps)
        trunk = rectified(self._normalized()(layers.Dense(self.hidden_size, **self._options())(flat)))
        hidden = rectified(self._normalized()(layers.Dense(self.head_size, **self._options())(trunk)))
        sizes = {_logits(name): size for name, size in self.layout.categories.items()}
        if self.num_continuous:
            sizes["continuous_mean"] = self.num_continuous
            sizes |= {"continuous_log_var": self.num_continuous} if self.learn_variance else {}
        outputs = {name: head(name, size)(hidden) for name, size in sizes.items()}
        return keras.Model(images, {"logit": head("logit", 1)(trunk), **outputs}, name="discriminator")

    def optimizers(self):
        """Of D (with Q) and of G: the authors' Adam, whose G learns five times as fast."""
        return [keras.optimizers.Adam(2e-4, beta_1=0.5), keras.optimizers.Adam(1e-3, beta_1=0.5)]

    def call(self, images, training=False):
        answer = self.discriminator(images, training=training)
        if self.num_continuous:
            log_var = answer.get("continuous_log_var", tf.zeros_like(answer["continuous_mean"]))
            answer = {**answer, "continuous_log_var": tf.clip_by_value(log_var, *LOG_VAR)}
        return answer

    def infer(self, images):
        """The parameters of Q(c|x).

        Args:
            images: [B, H, W, C] in [0, 1].

        Returns:
            A dict of float32: `category_logits` [B, K] of each code, `continuous_mean`, `continuous_log_var` [B, U].
        """
        self.check_images(images)
        answer = self(tf.cast(images, "float32"))
        return {name: value for name, value in answer.items() if name != "logit"}

    def posterior(self, images):
        """Q(c|x) as TFP distributions of batch [B], {"categories": OneHotCategorical, "continuous": a normal}."""
        return self._posterior(self.infer(images))

    def _posterior(self, answer):
        posterior = {name: tfd.OneHotCategorical(logits=answer[_logits(name)]) for name in self.layout.categories}
        if self.num_continuous:
            mean, log_var = answer["continuous_mean"], answer["continuous_log_var"]
            posterior["continuous"] = tfd.MultivariateNormalDiag(mean, tf.exp(0.5 * log_var))
        return posterior

    # --- latents and pictures ---------------------------------------------------------------------------------------

    def codes(self, seed):
        """seed [B, 2] int32 -> noise [B, Z], categories [B, K] one-hot (a list, unless it is one), continuous [B, U].

        They are drawn as in training, each row by its own row of `seed` alone.
        """
        drawn = self.layout.of_rows(check_row_seeds(seed))
        categories = [drawn[name] for name in self.layout.categories]
        return drawn["noise"], categories[0] if len(categories) == 1 else categories, drawn["continuous"]

    def pack(self, noise, categories=(), continuous=None):
        """Noise and codes as `codes` gives them, in one latent [B, T] float32. ValueError if they are no such.

        Continuous codes and noise outside [-1, 1] pass, as in the paper's figures from -2 to 2.
        """
        return join(self.layout.check(noise, categories, continuous))

    def generate(self, noise, categories=(), continuous=None):
        """Latents as `codes` gives them -> images [B, H, W, C] float32 in [0, 1]."""
        return latents.generate(self, self.pack(noise, categories, continuous))

    def sample(self, num_samples, seed=None):
        """Draws [num_samples, H, W, C] float32; an integer `seed` gives the same again."""
        return self.generate(*self.codes(sample_seeds(num_samples, seed)))

    def interpolate(self, a, b, steps=latents.STEPS):
        """Pictures on the straight lines from latents a to b of `pack`, each [B, T] -> [B, steps, H, W, C]."""
        return latents.interpolate(self, a, b, steps)

    # --- training ---------------------------------------------------------------------------------------------------

    def train_step(self, data):
        images = tf.cast(keras.utils.unpack_x_y_sample_weight(data)[0], "float32")
        d_loss = self._step_d(images)
        g_loss, fake, information = self._step_g(tf.shape(images)[0])
        adversarial.follow(self)
        return self._told(d_loss, g_loss, fake, images, information)

    def _step_d(self, images):
        """Moves the trunk and both heads; -> the loss of D in V."""
        codes = self.layout.draw(tf.shape(images)[0], self.noise)
        with adversarial.kept(self.generator):
            fake = self.generator(join(codes), training=True)
        variables = self.discriminator.trainable_variables
        with tf.GradientTape() as tape:
            real, answer = self(images, training=True), self(fake, training=True)
            d_loss = adversarial.discriminator_loss(real["logit"], answer["logit"])
            scaled = self.d_optimizer.scale_loss(d_loss - self._weighed(self._information(codes, answer)))
        self.d_optimizer.apply(tape.gradient(scaled, variables), variables)
        return d_loss

    def _step_g(self, count):
        """Moves G alone; -> its loss in V, the pictures, L_I."""
        codes = self.layout.draw(count, self.noise)
        variables = self.generator.trainable_variables
        with adversarial.kept(self.discriminator), tf.GradientTape() as tape:
            fake = self.generator(join(codes), training=True)
            answer = self(fake, training=True)
            g_loss = adversarial.generator_loss(answer["logit"], self.objective)
            information = self._information(codes, answer)
            scaled = self.g_optimizer.scale_loss(g_loss - self._weighed(information))
        self.g_optimizer.apply(tape.gradient(scaled, variables), variables)
        return g_loss, fake, information

    def _information(self, codes, answer):
        """L_I of the categorical codes together and of the continuous ones, of those there are: {weight: nats}."""
        bounds = lower_bound(self._posterior(answer), codes)
        continuous = {"continuous_weight": bounds.pop("continuous")} if self.num_continuous else {}
        return {**({"category_weight": sum(bounds.values())} if bounds else {}), **continuous}

    def _told(self, d_loss, g_loss, fake, images, information):
        losses = d_loss, g_loss, relative_diversity(fake, images)
        return adversarial.tracked(self, tf.shape(images)[0], *losses, *information.values())

    def _weighed(self, information):
        return sum(getattr(self, weight) * nats for weight, nats in information.items())

    def test_step(self, data):
        """The same of networks that stay as they are, on latents that are the same for each batch."""
        images = tf.cast(keras.utils.unpack_x_y_sample_weight(data)[0], "float32")
        codes = self.layout.of_rows(row_seeds(tf.shape(images)[0], 0))
        fake = latents.generate(self, join(codes))
        real, answer = self(images), self(fake)
        d_loss = adversarial.discriminator_loss(real["logit"], answer["logit"])
        g_loss = adversarial.generator_loss(answer["logit"], self.objective)
        return self._told(d_loss, g_loss, fake, images, self._information(codes, answer))

    def check_images(self, images):
        check_images(images, self.image_shape)

    def signatures(self):
        images = tf.TensorSpec((None, *self.image_shape), "float32", name="images")
        made, shared = lambda z: {"images": latents.generate(self, z)}, latents.signatures(self)
        return {
            "serving_default": (self.infer, [images]),
            "infer": (self.infer, [images]),
            "generate": (lambda *given: made(self.layout.of_specs(*given)), self.layout.specs()),
            "sample": (lambda seed: made(join(self.layout.of_rows(seed))), shared["sample"][1]),
            "interpolate": shared["interpolate"],
        }

    def get_config(self):
        own = ("image_shape", "noise_size", "num_categories", "num_continuous", "filters", "hidden_size", "head_size")
        own += ("leaky_slope", "learn_variance", "category_weight", "continuous_weight", "objective", "average")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


def _logits(name):
    """Of `categories_1`, `category_logits_1`."""
    return name.replace("categories", "category_logits")


def _strides(image_shape):
    """Strides of the trunk's convolutions, and the sides that are left: ((2, 2), (7, 7)) of 28x28."""
    stages, sides = adversarial.halvings(image_shape)
    return ((1, 2) if stages == 1 else (2,) * stages), sides
