"""Auto-Encoding Variational Bayes (Kingma and Welling, 2014, https://arxiv.org/abs/1312.6114).

    p(z)   = N(0, I)                                                      the prior, section 3
    q(z|x) = N(mean(x), diag exp(log_var(x)))                             the encoder, equation 9
    p(x|z) = Bernoulli, Gaussian or continuous Bernoulli of decoder(z)    appendix C
    z      = mean + exp(log_var / 2) * noise,  noise ~ N(0, I)            reparameterisation, section 2.4

    log p(x) >= L(x),  the evidence lower bound, by one of two estimators from z_1 .. z_S ~ q(z|x):
      monte_carlo   1/S sum_s [log p(x, z_s) - log q(z_s|x)]              L^A, equation 6
      analytic      1/S sum_s log p(x|z_s) - KL(q(z|x) || p(z))           L^B, equations 7 and 10
      KL = -1/2 sum_j (1 + log_var_j - mean_j^2 - exp(log_var_j))         appendix B

    log_prob: log 1/K sum_k p(x, z_k) / q(z_k|x)  with  z_k ~ q(z|x), a lower bound in expectation that rises to
    log p(x) with K (Burda, Grosse and Salakhutdinov, 2016, https://arxiv.org/abs/1509.00519, equation 8).

Shapes:  B batch, H height, W width, C channels, Z latent size, S samples of the bound, K importance samples.

Deviations from the paper, each with its reason:
- Weights start Glorot-uniform instead of N(0, 0.01), which leaves two hidden layers of tanh near zero for many epochs.
- No weight decay inside the model (the paper's prior on parameters): it is an argument of the optimizer.
- The Gaussian decoder's scale is exp(log_var / 2) + 1/255: without a floor one constant pixel makes the density of
  8-bit grey values unbounded. Its mean goes through a sigmoid as in the paper's Frey Face experiment.
- The continuous Bernoulli (Loaiza-Ganem and Cunningham, 2019, https://arxiv.org/abs/1907.06845) is not in the paper: it
  is the normalised density for grey values in [0, 1], for which a Bernoulli is no likelihood.
"""

import functools

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from keras import layers

from dmkeras.parts.checks import check_image_shape, check_images, is_symbolic, looks_at_first_batch
from dmkeras.parts.seeds import check_seed, row_seeds

tfd = tfp.distributions
LIKELIHOODS = ("bernoulli", "gaussian", "continuous_bernoulli")
ESTIMATORS = ("analytic", "monte_carlo")
OTHER_STREAM = np.array([0, 1 << 30], "int32")  # pixel noise and code noise of one seed row are two streams


@looks_at_first_batch
@keras.saving.register_keras_serializable("dmkeras")
class VAE(keras.Model):
    """A variational autoencoder of images, fully connected.

    Call: images `[B, H, W, C]` float32 in [0, 1]  ->  reconstructions `[B, H, W, C]` in [0, 1], the mean of
    p(x|z) at z = the mean of q(z|x).

    | signature | inputs | outputs |
    | --- | --- | --- |
    | serving_default | images [B, H, W, C] float32 in [0, 1] | images [B, H, W, C] float32 in [0, 1] |
    | encode | images | mean [B, Z], log_var [B, Z] float32 |
    | decode | z [B, Z] float32 | images [B, H, W, C], the mean of p(x given z) |
    | sample | seed [B, 2] int32, one row per answer | images, a draw of p(x); means [B, H, W, C], of p(x given its z) |
    | log_prob | images | log_prob [B], nats, the bound of SERVED_SAMPLES importance samples |

    Args:
        image_shape: (H, W, C) of one image.
        latent_size: Z.
        hidden_size: units of the encoder's hidden layer, or a tuple of layer sizes; the decoder mirrors them.
        likelihood: `"bernoulli"` for pixels in {0, 1}; `"continuous_bernoulli"` or `"gaussian"` for [0, 1].
        estimator: of the training objective, `"analytic"` or `"monte_carlo"`.
        num_samples: S of the training objective (the paper's L).
        activation: of the hidden layers.

    Raises:
        ValueError: for sizes below one or an unknown likelihood or estimator; `fit`, `elbo` and `log_prob` raise it for
            images of another shape, outside [0, 1], or grey under the Bernoulli likelihood.
    """

    SERVED_SAMPLES = 64

    def __init__(
        self,
        image_shape=(28, 28, 1),
        latent_size=20,
        hidden_size=500,
        likelihood="bernoulli",
        estimator="analytic",
        num_samples=1,
        activation="tanh",
        **kwargs,
    ):
        super().__init__(**kwargs)
        hidden = (hidden_size,) if isinstance(hidden_size, int) else tuple(hidden_size)
        _check_arguments(image_shape, latent_size, hidden, likelihood, estimator, num_samples)
        self.image_shape = tuple(image_shape)
        self.latent_size = latent_size
        self.hidden_size = hidden_size if isinstance(hidden_size, int) else hidden
        self.likelihood_name = likelihood
        self._binary = likelihood == "bernoulli"
        self.estimator = estimator
        self.num_samples = num_samples
        self.activation = activation
        pixels = int(np.prod(self.image_shape))
        parameters = 2 * pixels if likelihood == "gaussian" else pixels
        dense = functools.partial(layers.Dense, dtype=self.dtype_policy)  # a reloaded model's, not the process's
        self.encoder = keras.Sequential(
            [layers.Flatten(), *(dense(units, activation) for units in hidden), dense(2 * latent_size)], name="encoder"
        )
        self.decoder = keras.Sequential(
            [*(dense(units, activation) for units in reversed(hidden)), dense(parameters)], name="decoder"
        )
        self.noise = keras.random.SeedGenerator()
        self.trackers = [keras.metrics.Mean(name=name) for name in ("elbo", "kl", "reconstruction")]
        self(keras.Input(self.image_shape))

    def call(self, images):
        return self.decode(self.encode(images)[0])

    def encode(self, images):
        """images [B, H, W, C] -> mean [B, Z], log_var [B, Z] of q(z|x)."""
        return tf.split(tf.cast(self.encoder(tf.cast(images, "float32")), "float32"), 2, axis=-1)

    def decode(self, z):
        """z [..., Z] -> the mean of p(x|z), images [..., H, W, C] in [0, 1]."""
        return self.likelihood(z).mean()

    def posterior(self, images):
        """q(z|x), a TFP distribution with batch [B] and event [Z]."""
        mean, log_var = self.encode(images)
        return tfd.MultivariateNormalDiag(mean, tf.exp(0.5 * log_var))

    def prior(self):
        """p(z), a TFP distribution with event [Z]."""
        return tfd.MultivariateNormalDiag(tf.zeros(self.latent_size), tf.ones(self.latent_size))

    def likelihood(self, z):
        """p(x|z) for z [..., Z], a TFP distribution with event [H, W, C]; the logits and scales are float32."""
        flat = self.decoder(tf.reshape(z, (-1, self.latent_size)))
        parts = tf.split(tf.cast(flat, "float32"), 2 if self.likelihood_name == "gaussian" else 1, axis=-1)
        shape = tf.concat([tf.shape(z)[:-1], self.image_shape], axis=0)
        parts = [tf.reshape(part, shape) for part in parts]
        if self._binary:
            pixel = tfd.Bernoulli(logits=parts[0], dtype="float32")
        elif self.likelihood_name == "continuous_bernoulli":
            pixel = tfd.ContinuousBernoulli(logits=parts[0])
        else:
            pixel = tfd.Normal(tf.sigmoid(parts[0]), tf.exp(0.5 * parts[1]) + 1 / 255)
        return tfd.Independent(pixel, 3)

    def _log_likelihood(self, z, images):
        """log p(x|z) of images [B, H, W, C] for z [..., B, Z] -> [..., B]."""
        likelihood = self.likelihood(z)
        if not self._binary:
            return likelihood.log_prob(images)
        # x log p + (1 - x) log(1 - p) with one softplus per pixel instead of TFP's two: a fifth of a training step.
        logits = likelihood.distribution.logits
        return tf.reduce_sum(images * logits - tf.nn.softplus(logits), axis=(-3, -2, -1))

    def elbo(self, images, estimator="analytic", num_samples=1, seed=None):
        """The lower bound of log p(x), equation 6 or 7.

        Args:
            images: [B, H, W, C] in [0, 1].
            estimator: `"analytic"`, of smaller variance while q is poor, or `"monte_carlo"`, when q nears p(z|x).
            num_samples: S, draws of z per image.
            seed: an integer for the same draws again; None for fresh ones.

        Returns:
            [B] float32, nats.
        """
        self.check_images(images)
        _check_arguments(self.image_shape, 1, (), self.likelihood_name, estimator, num_samples)
        reconstruction, kl = self._bound(images, estimator, num_samples, _seed(seed))
        return reconstruction - kl

    def _bound(self, images, estimator, num_samples, seed):
        """The bound as two terms, log p(x|z) and KL (its estimate, if `estimator` is monte_carlo), each [B]."""
        images = tf.cast(images, "float32")
        posterior, prior = self.posterior(images), self.prior()
        z = posterior.sample(num_samples, seed=seed)  # [S, B, Z]
        reconstruction = tf.reduce_mean(self._log_likelihood(z, images), axis=0)
        if estimator == "analytic":
            return reconstruction, tfd.kl_divergence(posterior, prior)
        return reconstruction, tf.reduce_mean(posterior.log_prob(z) - prior.log_prob(z), axis=0)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Minus the bound, nats per image. Draws differ from step to step in training and are fixed in evaluation."""
        seed = tf.cast(self.noise.next(), "int32") if training else tf.constant([0, 0])
        reconstruction, kl = self._bound(x, self.estimator, self.num_samples, seed)
        weight = 1.0 if sample_weight is None else tf.cast(sample_weight, "float32")
        for tracker, value in zip(self.trackers, (reconstruction - kl, kl, -reconstruction)):
            tracker.update_state(value, sample_weight)
        return tf.reduce_mean(weight * (kl - reconstruction))

    def log_prob(self, images, num_samples=1000, seed=None):
        """The importance-weighted bound of log p(x): unbiased for p(x), below log p(x) in expectation.

        Args:
            images: [B, H, W, C] in [0, 1].
            num_samples: K, draws per image; time grows with it, memory does not.
            seed: an integer for the same draws again; None for fresh ones. Give every batch of an average its own:
                draws shared between pictures make an error that no number of pictures averages out.

        Returns:
            [B] float32, nats.
        """
        self.check_images(images)
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, received {num_samples}")
        return self._importance_weighted(tf.cast(images, "float32"), num_samples, _seed(seed))

    @tf.function(reduce_retracing=True, autograph=False)
    def _importance_weighted(self, images, num_samples, seed, shared=False):
        """log 1/K sum_k w_k in chunks of draws, with a running log-sum-exp; `shared` draws serve every row alike."""
        chunk, rows = min(num_samples, 50), 1 if shared else tf.shape(images)[0]
        posterior, prior = self.posterior(images), self.prior()

        def add(i, total, size=chunk):
            noise = tf.random.stateless_normal((size, rows, self.latent_size), tf.stack([seed[0] + i, seed[1]]))
            z = posterior.mean() + posterior.stddev() * noise  # [K, B, Z]
            weight = self._log_likelihood(z, images) + prior.log_prob(z) - posterior.log_prob(z)  # [K, B]
            return i + 1, tf.reduce_logsumexp(tf.concat([total[None], weight], 0), axis=0)

        start = (tf.constant(0), tf.fill(tf.shape(images)[:1], -np.inf))
        i, total = tf.while_loop(lambda i, _: i < num_samples // chunk, add, start)
        if num_samples % chunk:
            _, total = add(i, total, num_samples % chunk)
        return total - np.log(num_samples)

    def reconstruct(self, images):
        """images [B, H, W, C] -> the mean of p(x|z) at the mean of q(z|x), [B, H, W, C]."""
        return self(images)

    def sample(self, num_samples, seed=None, means=False):
        """Draws x ~ p(x) by ancestral sampling, or (`means=True`) gives the mean of p(x|z) for z ~ p(z).

        Returns:
            [num_samples, H, W, C] float32. An integer `seed` gives the same pictures again.
        """
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, received {num_samples}")
        return self._sample_rows(row_seeds(num_samples, seed))["means" if means else "images"]

    @tf.function(reduce_retracing=True, autograph=False)
    def _sample_rows(self, seed):
        """seed [B, 2] int32 -> one picture per row, which depends on that row alone."""

        def noise(row):
            z = tf.random.stateless_normal([self.latent_size], row)
            return z, tf.random.stateless_uniform(self.image_shape, row + OTHER_STREAM, minval=1e-7)

        z, uniform = tf.map_fn(noise, seed, fn_output_signature=("float32", "float32"))
        likelihood = self.likelihood(z)
        means, pixel = likelihood.mean(), likelihood.distribution
        # Inverse distribution function of every pixel at its own uniform number.
        images = tf.cast(uniform < means, "float32") if self._binary else pixel.quantile(uniform)
        return {"images": images, "means": means}

    def interpolate(self, a, b, steps=8):
        """Pictures on the straight line between the codes of a and b, each [B, H, W, C] -> [B, steps, H, W, C]."""
        if len(a) != len(b):
            raise ValueError(f"expected as many pictures to start from as to end at, received {len(a)} and {len(b)}")
        if steps < 2:
            raise ValueError(f"steps must be at least 2 (the two ends), received {steps}")
        start, end = self.encode(a)[0][:, None], self.encode(b)[0][:, None]
        part = tf.linspace(0.0, 1.0, steps)[:, None]
        return self.decode(start + part * (end - start))

    def manifold(self, side=20):
        """The 2-D latent manifold (figure 4): z at the normal quantiles of a regular grid -> [side, side, H, W, C].

        Raises:
            ValueError: if the latent size is not 2.
        """
        if self.latent_size != 2:
            raise ValueError(f"a manifold picture needs latent_size=2, this model has {self.latent_size}; use sample()")
        quantile = tfd.Normal(0.0, 1.0).quantile((np.arange(side, dtype="float32") + 0.5) / side)
        return self.decode(tf.stack(tf.meshgrid(quantile, -quantile), axis=-1))

    def adapt(self, images):
        """Starts the output bias at the logit of each pixel's mean in `images` [N, H, W, C] (Burda et al.'s code)."""
        self.check_images(images)
        mean = (tf.reduce_sum(tf.cast(images, "float32"), axis=0) + 0.5) / (len(images) + 1.0)
        mean = tf.clip_by_value(tf.reshape(mean, [-1]), 1e-4, 1 - 1e-4)
        bias = self.decoder.layers[-1].bias
        bias.assign(tf.concat([tf.math.log(mean) - tf.math.log1p(-mean), bias[tf.size(mean) :]], axis=0))

    def check_images(self, images):
        """ValueError for images of another shape or range, or grey under the Bernoulli likelihood."""
        check_images(images, self.image_shape)
        if self._binary and not is_symbolic(images) and not np.isin(images, (0, 1)).all():
            raise ValueError(
                "the Bernoulli likelihood is of pixels in {0, 1}, received grey values; binarize them, "
                "or use likelihood='continuous_bernoulli'"
            )

    def signatures(self):
        images = tf.TensorSpec((None, *self.image_shape), "float32", name="images")
        z = tf.TensorSpec((None, self.latent_size), "float32", name="z")
        seed = tf.TensorSpec((None, 2), "int32", name="seed")
        return {
            "serving_default": (lambda images: {"images": self(images)}, [images]),
            "encode": (lambda images: dict(zip(("mean", "log_var"), self.encode(images))), [images]),
            "decode": (lambda z: {"images": self.decode(z)}, [z]),
            "sample": (self._sample_rows, [seed]),
            "log_prob": (self._served_log_prob, [images]),
        }

    def _served_log_prob(self, images):
        """The draws are fixed and shared: a row's answer depends neither on the moment nor on the rest of its batch."""
        draws = (self.SERVED_SAMPLES, tf.constant([0, 0]))
        return {"log_prob": self._importance_weighted(images, *draws, shared=True)}

    def get_config(self):
        return {
            **super().get_config(),
            "image_shape": self.image_shape,
            "latent_size": self.latent_size,
            "hidden_size": self.hidden_size,
            "likelihood": self.likelihood_name,
            "estimator": self.estimator,
            "num_samples": self.num_samples,
            "activation": self.activation,
        }


def _seed(seed):
    """An integer -> [2] int32 for TensorFlow's stateless random functions; None -> a fresh one."""
    check_seed(seed)
    return tf.constant([0, np.random.randint(2**31 - 1) if seed is None else seed], "int32")


def _check_arguments(image_shape, latent_size, hidden, likelihood, estimator, num_samples):
    check_image_shape(image_shape)
    if min(latent_size, num_samples, *hidden) < 1:
        received = f"latent_size={latent_size}, hidden_size={hidden}, num_samples={num_samples}"
        raise ValueError(f"sizes must be at least 1, received {received}")
    for name, value, known in (("likelihood", likelihood, LIKELIHOODS), ("estimator", estimator, ESTIMATORS)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}; received {value!r}")
