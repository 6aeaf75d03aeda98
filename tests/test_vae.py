"""Laws of the variational autoencoder: references by NumPy, SciPy and quadrature; wrong variants that must fail.

Tolerances: 1e-4 nats for sums of a dozen float32 terms of size ten; means of draws within four standard errors (the
seeds are fixed, so that a pass stays a pass); 1e-2 for finite differences in float32.
"""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from scipy import special, stats

import dmkeras
from dmkeras import VAE

tfd = tfp.distributions
SHAPE = (2, 3, 1)
LIKELIHOODS = ("bernoulli", "gaussian", "continuous_bernoulli")
GENERATOR = np.random.default_rng(0)
LOADINGS = (np.linalg.qr(GENERATOR.normal(size=(6, 2)))[0] * [2.0, 0.7]).astype("float32")  # orthogonal columns
OFFSET = GENERATOR.normal(size=6).astype("float32")
VARIANCE = 0.3


class LinearGaussian(VAE):
    """x = LOADINGS z + OFFSET + noise: log p(x) and the true posterior are known; `shift`, `stretch` make q wrong."""

    def __init__(self, shift=0.0, stretch=1.0):
        super().__init__(SHAPE, 2, 1, likelihood="gaussian")
        self.shift, self.stretch = shift, stretch

    def build(self, input_shape):
        self.decoder.build((None, 2))  # `likelihood` goes without it

    def posterior(self, images):
        covariance = VARIANCE / ((LOADINGS**2).sum(axis=0) + VARIANCE)  # diagonal, for the columns are orthogonal
        mean = (tf.reshape(images, (-1, 6)) - OFFSET) @ LOADINGS * covariance / VARIANCE
        return tfd.MultivariateNormalDiag(mean + self.shift, self.stretch * np.sqrt(covariance) * tf.ones_like(mean))

    def likelihood(self, z):
        mean = tf.tensordot(z, LOADINGS.T, 1) + OFFSET
        mean = tf.reshape(mean, tf.concat([tf.shape(z)[:-1], SHAPE], axis=0))
        return tfd.Independent(tfd.Normal(mean, VARIANCE**0.5), 3)


def exact_log_prob(images):
    covariance = LOADINGS @ LOADINGS.T + VARIANCE * np.eye(6)
    return stats.multivariate_normal(OFFSET, covariance).logpdf(images.reshape(-1, 6))


def grey(count, shape=SHAPE):
    return np.random.default_rng(1).random((count, *shape)).astype("float32")


def every_picture(shape=(3, 3, 1)):
    return np.array(list(itertools.product((0, 1), repeat=int(np.prod(shape)))), "float32").reshape(-1, *shape)


def with_random_weights(model, encoder_scale=0.3, decoder_scale=1.5):
    generator = np.random.default_rng(2)
    for network, scale in ((model.encoder, encoder_scale), (model.decoder, decoder_scale)):
        network.set_weights([generator.normal(size=weight.shape) * scale for weight in network.get_weights()])
    return model


def forward(network, x):
    """The dense layers of `network` in NumPy, float64, tanh between them; x [..., inputs]."""
    weights = [np.asarray(weight, "float64") for weight in network.get_weights()]
    for kernel, bias in zip(weights[:-2:2], weights[1:-2:2]):
        x = np.tanh(x @ kernel + bias)
    return x @ weights[-2] + weights[-1]


def log_likelihood(model, z, images):
    """log p(x|z) in NumPy for images [B, H, W, C] and z [..., B, Z] -> [..., B]."""
    x, parameters = images.reshape(len(images), -1).astype("float64"), forward(model.decoder, z)
    if model.likelihood_name == "gaussian":
        mean, log_var = np.split(parameters, 2, axis=-1)
        return stats.norm.logpdf(x, special.expit(mean), np.exp(log_var / 2) + 1 / 255).sum(axis=-1)
    density = x * parameters - np.logaddexp(0, parameters)
    if model.likelihood_name == "continuous_bernoulli":
        density += np.log(parameters / np.tanh(parameters / 2))
    return density.sum(axis=-1)


def four_errors(draws, axis=0):
    return 4 * draws.std(axis=axis) / draws.shape[axis] ** 0.5 + 1e-4


@pytest.fixture(scope="module")
def binary():
    return with_random_weights(VAE((3, 3, 1), 2, (5, 4)), decoder_scale=0.8)


@pytest.fixture(scope="module", params=LIKELIHOODS)
def any_likelihood(request):
    return with_random_weights(VAE(SHAPE, 2, 4, likelihood=request.param), decoder_scale=1.0)


def pictures_for(model, count):
    return (grey(count) > 0.5).astype("float32") if model.likelihood_name == "bernoulli" else grey(count)


# Laws as functions of a model, and the faults that must break them.


def check_the_weights_at_the_true_posterior_are_one_number(model):
    images = grey(8)
    for seed, num_samples in ((0, 1), (1, 1), (2, 7)):
        np.testing.assert_allclose(model.log_prob(images, num_samples, seed), exact_log_prob(images), atol=1e-4)
        sampled = model.elbo(images, "monte_carlo", num_samples, seed)
        np.testing.assert_allclose(sampled, exact_log_prob(images), atol=1e-4)


def check_the_analytic_bound_at_the_true_posterior_is_the_log_probability(model):
    draws = model.elbo(np.repeat(grey(4), 4000, axis=0), "analytic", seed=0).numpy().reshape(4, 4000)
    assert (np.abs(draws.mean(axis=1) - exact_log_prob(grey(4))) < four_errors(draws, axis=1)).all()


def check_both_estimators_have_one_mean(model):
    images = np.repeat(pictures_for(model, 4), 4000, axis=0)
    a, b = (model.elbo(images, name, seed=0).numpy().reshape(4, 4000) for name in ("analytic", "monte_carlo"))
    # The same draws in both: what is compared is the KL, in closed form and sampled.
    assert (np.abs((a - b).mean(axis=1)) < four_errors(a - b, axis=1)).all()


def check_the_weights_are_unbiased_for_the_probability(model):
    images = grey(4)
    ratios = np.exp([model.log_prob(images, 5, seed) - exact_log_prob(images) for seed in range(200)])
    assert (np.abs(ratios.mean(axis=0) - 1) < four_errors(ratios)).all()


def check_the_reconstruction_moves_the_encoder_through_the_sample(model):
    """d E[log p(x|z)] / d bias of the encoder, mean and log_var parts, against differences under the same noise."""
    images, bias = pictures_for(model, 3), model.encoder.layers[-1].bias
    posterior = lambda: tfd.kl_divergence(model.posterior(images), model.prior())
    reconstruction = lambda: tf.reduce_sum(model.elbo(images, "analytic", 2, seed=0) + posterior())
    with tf.GradientTape() as tape:
        value = reconstruction()
    gradient, start, step = tape.gradient(value, bias.value), bias.numpy(), 1e-2
    assert gradient is not None
    differences = []
    for unit in np.eye(len(start), dtype="float32") * step:
        ends = []
        for end in (start + unit, start - unit):
            bias.assign(end)
            ends.append(reconstruction())
        differences.append((ends[0] - ends[1]) / (2 * step))
    bias.assign(start)
    assert np.abs(gradient[model.latent_size :]).min() > 1e-3
    np.testing.assert_allclose(gradient, differences, rtol=1e-2, atol=1e-2)


class KLOverPixels(LinearGaussian):
    """Reconstruction summed, KL divided by the pixels, as where one of two losses is a mean."""

    def _bound(self, images, *args):
        reconstruction, kl = super()._bound(images, *args)
        return reconstruction, kl / 6


class SignSlip(LinearGaussian):
    """1 - log_var in the closed form of the KL."""

    def _bound(self, images, estimator, *args):
        reconstruction, kl = super()._bound(images, estimator, *args)
        log_var = 2 * tf.math.log(self.posterior(images).stddev())
        return reconstruction, kl + tf.reduce_sum(log_var, axis=-1) if estimator == "analytic" else kl


class AnalyticWeights(LinearGaussian):
    """Importance weights log p(x|z_k) - KL instead of log p(x, z_k) - log q(z_k|x)."""

    @tf.function(autograph=False)
    def _importance_weighted(self, images, num_samples, seed):
        posterior = self.posterior(images)
        weights = self._log_likelihood(posterior.sample(num_samples, seed=seed), images)
        weights -= tfd.kl_divergence(posterior, self.prior())
        return tf.reduce_logsumexp(weights, axis=0) - np.log(num_samples)


class WideNormal(tfd.MultivariateNormalDiag):
    def sample(self, shape=(), seed=None):
        return self.mean() + self.stddev() * (super().sample(shape, seed=seed) - self.mean())


class WideSample(LinearGaussian):
    """z = mean + exp(log_var) noise, with the density of mean + exp(log_var / 2) noise."""

    def posterior(self, images):
        right = super().posterior(images)
        return WideNormal(right.mean(), right.stddev())


class CutSample(VAE):
    """The reconstruction term does not reach the encoder."""

    def _log_likelihood(self, z, images):
        return super()._log_likelihood(tf.stop_gradient(z), images)


WRONG_Q = {"shift": 0.5, "stretch": 1.5}


def test_at_the_true_posterior_every_weight_is_the_probability_of_the_picture():
    check_the_weights_at_the_true_posterior_are_one_number(LinearGaussian())


def test_at_the_true_posterior_the_bound_is_the_log_probability():
    check_the_analytic_bound_at_the_true_posterior_is_the_log_probability(LinearGaussian())


def test_the_two_estimators_agree_in_mean(any_likelihood):
    check_both_estimators_have_one_mean(any_likelihood)
    check_both_estimators_have_one_mean(LinearGaussian(**WRONG_Q))


def test_the_importance_weights_are_unbiased():
    check_the_weights_are_unbiased_for_the_probability(LinearGaussian(**WRONG_Q))


def test_gradients_flow_through_the_sample(any_likelihood):
    check_the_reconstruction_moves_the_encoder_through_the_sample(any_likelihood)


@pytest.mark.parametrize(
    ("check", "faulty"),
    [
        (check_the_analytic_bound_at_the_true_posterior_is_the_log_probability, KLOverPixels),
        (check_the_analytic_bound_at_the_true_posterior_is_the_log_probability, SignSlip),
        (check_both_estimators_have_one_mean, SignSlip),
        (check_the_weights_at_the_true_posterior_are_one_number, KLOverPixels),
        (check_the_weights_at_the_true_posterior_are_one_number, AnalyticWeights),
        (check_the_weights_at_the_true_posterior_are_one_number, lambda: LinearGaussian(**WRONG_Q)),
        (check_the_weights_are_unbiased_for_the_probability, lambda: AnalyticWeights(**WRONG_Q)),
        (check_the_analytic_bound_at_the_true_posterior_is_the_log_probability, WideSample),
        (check_both_estimators_have_one_mean, WideSample),
        (check_the_reconstruction_moves_the_encoder_through_the_sample, lambda: CutSample(SHAPE, 2, 4)),
    ],
)
def test_the_laws_catch_a_fault(check, faulty):
    with pytest.raises(AssertionError):
        check(faulty())


# The bounds.


def test_more_samples_bring_the_bound_nearer_to_the_log_probability():
    model, images = LinearGaussian(**WRONG_Q), grey(4)
    exact = exact_log_prob(images)
    means, errors = [], []
    for num_samples in (1, 5, 50):
        draws = np.array([model.log_prob(images, num_samples, seed) for seed in range(200)]).mean(axis=1)
        means.append(draws.mean())
        errors.append(four_errors(draws))
    elbo = model.elbo(np.repeat(images, 4000, axis=0), seed=0).numpy()
    assert abs(elbo.mean() - means[0]) < errors[0] + four_errors(elbo)  # one sample: the bound of equation 6
    gaps = exact.mean() - np.array([elbo.mean(), *means[1:]])
    assert gaps[0] > 2 * gaps[1] > 8 * gaps[2]
    assert gaps[2] > -errors[2]
    kl = tfd.kl_divergence(model.posterior(images), LinearGaussian().posterior(images))
    assert abs(gaps[0] - np.mean(kl)) < four_errors(elbo)  # log p(x) - L = KL(q || true posterior), equation 1


def test_the_closed_form_of_the_kl_is_the_mean_of_the_sampled_one(any_likelihood):
    images = pictures_for(any_likelihood, 4)
    posterior, prior = any_likelihood.posterior(images), any_likelihood.prior()
    z = posterior.sample(20_000, seed=0)
    sampled = (posterior.log_prob(z) - prior.log_prob(z)).numpy()
    mean, log_var = (np.asarray(part, "float64") for part in any_likelihood.encode(images))
    closed = -0.5 * (1 + log_var - mean**2 - np.exp(log_var)).sum(axis=1)  # appendix B
    assert (np.abs(sampled.mean(axis=0) - closed) < four_errors(sampled)).all()
    np.testing.assert_allclose(tfd.kl_divergence(posterior, prior), closed, atol=1e-4)


def test_which_estimator_has_the_smaller_variance_depends_on_how_near_q_is():
    """The paper's "typically" (section 2.3): the analytic one while q is poor, the sampled one when q is good."""
    variance = lambda model, images, name: model.elbo(np.repeat(images, 4000, axis=0), name, seed=0).numpy().var()
    keras.utils.set_random_seed(0)
    untrained, one = VAE(SHAPE, 2, 8), np.ones((1, *SHAPE), "float32")
    assert 4 * variance(untrained, one, "analytic") < variance(untrained, one, "monte_carlo")
    assert variance(LinearGaussian(), grey(1), "monte_carlo") < 1e-6 < variance(LinearGaussian(), grey(1), "analytic")


# Densities.


def test_the_bound_is_what_numpy_makes_of_the_weights(any_likelihood):
    model, images = any_likelihood, pictures_for(any_likelihood, 5)
    mean, log_var = np.split(forward(model.encoder, images.reshape(5, -1)), 2, axis=-1)
    np.testing.assert_allclose(model.posterior(images).mean(), mean, atol=1e-5)
    np.testing.assert_allclose(model.posterior(images).stddev(), np.exp(log_var / 2), atol=1e-5)
    z = model.posterior(images).sample(3, seed=[0, 7]).numpy().astype("float64")
    kl = -0.5 * (1 + log_var - mean**2 - np.exp(log_var)).sum(axis=-1)
    expected = log_likelihood(model, z, images).mean(axis=0) - kl
    np.testing.assert_allclose(model.elbo(images, "analytic", 3, seed=7), expected, rtol=1e-5, atol=1e-4)
    weights = log_likelihood(model, z, images) + stats.norm.logpdf(z).sum(axis=-1)
    weights -= stats.norm.logpdf(z, mean, np.exp(log_var / 2)).sum(axis=-1)
    sampled = model.elbo(images, "monte_carlo", 3, seed=7)
    np.testing.assert_allclose(sampled, weights.mean(axis=0), rtol=1e-5, atol=1e-4)


def test_a_log_likelihood_is_that_of_tfp_and_of_numpy(any_likelihood):
    model, images = any_likelihood, pictures_for(any_likelihood, 5)
    z = np.random.default_rng(3).normal(size=(4, 5, 2)).astype("float32")
    expected = log_likelihood(model, z, images)
    np.testing.assert_allclose(model.likelihood(z).log_prob(images), expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(model._log_likelihood(z, images), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("likelihood", ["bernoulli", "continuous_bernoulli"])
def test_logits_of_forty_have_finite_likelihoods_and_gradients(likelihood):
    model = one_pixel(likelihood)
    z = tf.constant([[[-40.0]], [[-20.0]], [[0.0]], [[20.0]], [[40.0]]])
    with tf.GradientTape() as tape:
        tape.watch(z)
        log_prob = model._log_likelihood(z, np.array([0, 1], "float32").reshape(2, 1, 1, 1))
    logits = np.array([-40, -20, 1e-12, 20, 40.0])[:, None]
    constant = np.log(logits / np.tanh(logits / 2)) if likelihood == "continuous_bernoulli" else 0.0
    expected = logits * [0, 1] - np.logaddexp(0, logits) + constant
    np.testing.assert_allclose(log_prob, expected, atol=1e-4)
    assert np.isfinite(tape.gradient(log_prob, z)).all()


def one_pixel(likelihood):
    """A decoder whose only logit is z."""
    model = VAE((1, 1, 1), 1, (), likelihood=likelihood)
    model.decoder.set_weights([np.ones((1, 1)), np.zeros(1)])
    return model


def test_the_continuous_bernoulli_integrates_to_one_also_near_one_half():
    logits = np.array([-30, -5, -1, -0.005, -0.003, -1e-4, 0, 1e-4, 0.003, 0.005, 2, 12], "float32")
    grid = np.linspace(0, 1, 20_001, dtype="float32")
    density = one_pixel("continuous_bernoulli").likelihood(logits[:, None, None]).log_prob(grid.reshape(-1, 1, 1, 1))
    integral = np.trapezoid(np.exp(np.asarray(density, "float64")), grid.astype("float64"), axis=-1)
    np.testing.assert_allclose(integral, 1, atol=1e-5)


def test_probabilities_of_all_pictures_sum_to_one(binary):
    images = every_picture()
    totals = np.array([np.exp(binary.log_prob(images, 300, seed)).sum() for seed in range(8)])
    assert abs(totals.mean() - 1) < 0.02
    assert totals.std() < 0.1


def test_the_log_probability_is_the_integral_over_the_latent_plane(binary):
    nodes, weights = np.polynomial.hermite_e.hermegauss(100)
    z = np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 1, 2)
    log_prior = np.log(np.outer(weights, weights) / (2 * np.pi)).reshape(-1, 1)
    images = every_picture()[::37]
    exact = special.logsumexp(log_likelihood(binary, z, images) + log_prior, axis=0)
    estimates = np.array([binary.log_prob(images, 2000, seed) for seed in range(5)])
    assert np.abs(estimates.mean(axis=0) - exact).max() < 0.1
    assert (binary.elbo(np.repeat(images, 500, axis=0), seed=0).numpy().reshape(-1, 500).mean(axis=1) < exact).all()


@pytest.mark.parametrize("num_samples", [37, 50, 87])
def test_log_prob_is_one_log_mean_exp_however_it_is_cut_into_chunks(any_likelihood, num_samples):
    model, images = any_likelihood, pictures_for(any_likelihood, 4)
    sizes = [min(50, num_samples), num_samples - 50][: 1 + (num_samples > 50)]
    noise = [tf.random.stateless_normal((size, 4, 2), [index, 5]) for index, size in enumerate(sizes)]
    mean, log_var = np.split(forward(model.encoder, images.reshape(4, -1)), 2, axis=-1)
    z = mean + np.exp(log_var / 2) * np.concatenate(noise)
    weights = log_likelihood(model, z, images) + stats.norm.logpdf(z).sum(axis=-1)
    weights -= stats.norm.logpdf(z, mean, np.exp(log_var / 2)).sum(axis=-1)
    expected = special.logsumexp(weights, axis=0) - np.log(num_samples)
    np.testing.assert_allclose(model.log_prob(images, num_samples, seed=5), expected, rtol=1e-5, atol=2e-4)


def test_neighbouring_seeds_share_no_draws():
    model = LinearGaussian(**WRONG_Q)
    draws = np.array([model.log_prob(grey(1), 100, seed)[0] for seed in range(200)])
    assert abs(np.corrcoef(draws[1:], draws[:-1])[0, 1]) < 0.3  # half of the draws in common would give 0.5
    assert model.log_prob(grey(1), 100, seed=3) == draws[3]
    assert model.log_prob(grey(1), 100) != model.log_prob(grey(1), 100)


# Samples, codes and pictures between.


def test_a_row_of_seeds_decides_its_sample_alone(any_likelihood):
    sample, _ = any_likelihood.signatures()["sample"]
    seeds = tf.constant([[3, 0], [3, 1], [8, 5], [3, 2]])
    together = {key: value.numpy() for key, value in sample(seeds).items()}
    np.testing.assert_allclose(sample(seeds[2:3])["images"][0], together["images"][2], atol=1e-6)
    reverse = sample(seeds[::-1])["images"][::-1]
    np.testing.assert_allclose(reverse, together["images"], atol=1e-6)
    np.testing.assert_allclose(any_likelihood.sample(3, seed=3), together["images"][[0, 1, 3]], atol=1e-6)
    np.testing.assert_allclose(any_likelihood.sample(2, seed=3, means=True), together["means"][:2], atol=1e-6)
    for other in (any_likelihood.sample(3, seed=4), any_likelihood.sample(3), any_likelihood.sample(3)):
        assert np.abs(other - together["images"][[0, 1, 3]]).max() > 1e-3


def test_samples_have_the_distribution_of_the_decoder(any_likelihood):
    """With a decoder that ignores z every pixel is drawn from one known distribution."""
    model = VAE.from_config(any_likelihood.get_config())
    generator = np.random.default_rng(4)
    model.decoder.set_weights([generator.normal(size=w.shape) * (w.ndim == 1) for w in model.decoder.get_weights()])
    images = model.sample(2000, seed=0).numpy().reshape(2000, 6)
    parameters = forward(model.decoder, np.zeros((1, 2)))[0]
    if model.likelihood_name == "bernoulli":
        assert set(np.unique(images)) == {0, 1}
        assert (np.abs(images.mean(axis=0) - special.expit(parameters)) < four_errors(images)).all()
        return
    logits, odds = parameters[:6], np.exp(parameters[:6])
    scale = np.exp(parameters[6:] / 2) + 1 / 255
    cdf = {
        "gaussian": lambda x, pixel: stats.norm.cdf(x, special.expit(logits[pixel]), scale[pixel]),
        "continuous_bernoulli": lambda x, pixel: (odds[pixel] ** x - 1) / (odds[pixel] - 1),
    }[model.likelihood_name]
    for pixel in range(6):
        assert stats.kstest(images[:, pixel], cdf, args=(pixel,)).pvalue > 1e-3


def test_samples_have_codes_of_the_prior_and_pixels_independent_of_them():
    model = with_random_weights(VAE(SHAPE, 2, ()))
    both = {key: value.numpy().reshape(4000, 6) for key, value in model._sample_rows(rows(4000)).items()}
    logits = special.logit(both["means"].astype("float64"))
    kernel, bias = model.decoder.get_weights()
    np.testing.assert_allclose(logits.mean(axis=0), bias, atol=4 * np.abs(kernel).max() / 4000**0.5 * 2)
    np.testing.assert_allclose(np.cov(logits.T), kernel.T @ kernel, atol=0.1 * (kernel**2).sum(axis=0).max())
    residual = both["images"] - both["means"]
    assert (np.abs(residual.mean(axis=0)) < four_errors(residual)).all()
    z = (logits - bias) @ np.linalg.pinv(kernel)
    assert np.abs(np.corrcoef(z.T, residual.T)[:2, 2:]).max() < 4 / 4000**0.5


def rows(count, seed=0):
    return tf.stack([tf.fill([count], seed), tf.range(count)], axis=1)


def test_a_served_log_probability_does_not_depend_on_the_batch(any_likelihood):
    endpoint, images = any_likelihood.signatures()["log_prob"][0], pictures_for(any_likelihood, 6)
    together = endpoint(tf.constant(images))["log_prob"]
    alone = [endpoint(tf.constant(image[None]))["log_prob"][0] for image in images]
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(together, endpoint(tf.constant(images))["log_prob"])
    np.testing.assert_allclose(alone[0], any_likelihood.log_prob(images[:1], 64, seed=0)[0], atol=1e-5)


def test_two_pictures_do_not_share_their_draws():
    """Shared draws (as the endpoint's) would leave an error that an average over pictures keeps."""
    model, images = LinearGaussian(**WRONG_Q), np.repeat(grey(1), 400, axis=0)
    means = np.array([np.mean(model.log_prob(images, 2, seed)) for seed in range(20)])
    shared = [model._importance_weighted(images, 2, tf.constant([0, seed]), shared=True)[0] for seed in range(20)]
    assert np.std(means) < 0.2 * np.std(shared)


def test_a_reconstruction_is_the_decoded_mean_of_the_code(any_likelihood):
    model, images = any_likelihood, pictures_for(any_likelihood, 3)
    mean, log_var = model.encode(images)
    assert mean.shape == log_var.shape == (3, 2)
    parameters = forward(model.decoder, mean.numpy())[:, :6]
    expected = special.expit(parameters)
    if model.likelihood_name == "continuous_bernoulli":
        expected = 1 / (1 - np.exp(-parameters)) - 1 / parameters
    np.testing.assert_allclose(model.reconstruct(images), expected.reshape(3, *SHAPE), atol=1e-5)
    np.testing.assert_array_equal(model.reconstruct(images), model(images))
    np.testing.assert_allclose(model.decode(mean[None]), model.reconstruct(images)[None], atol=1e-6)


def test_an_interpolation_goes_straight_from_one_reconstruction_to_the_other(binary):
    images = every_picture()
    a, b = images[3:7], images[100:104]
    between = binary.interpolate(a, b, steps=5)
    assert between.shape == (4, 5, 3, 3, 1)
    np.testing.assert_allclose(between[:, 0], binary.reconstruct(a), atol=1e-6)
    np.testing.assert_allclose(between[:, -1], binary.reconstruct(b), atol=1e-6)
    middle = (binary.encode(a)[0] + binary.encode(b)[0]) / 2
    np.testing.assert_allclose(between[:, 2], binary.decode(middle), atol=1e-6)
    with pytest.raises(ValueError, match="at least 2"):
        binary.interpolate(a, b, steps=1)


def test_the_manifold_is_a_grid_of_normal_quantiles(binary):
    pictures, quantiles = binary.manifold(5), stats.norm.ppf([0.1, 0.3, 0.5, 0.7, 0.9]).astype("float32")
    assert pictures.shape == (5, 5, 3, 3, 1)
    for row, column in itertools.product(range(5), repeat=2):  # the second coordinate falls from top to bottom
        z = tf.constant([[quantiles[column], -quantiles[row]]])
        np.testing.assert_allclose(pictures[row, column], binary.decode(z)[0], atol=1e-5)
    with pytest.raises(ValueError, match="latent_size=2"):
        one_pixel("bernoulli").manifold()


# Training.


def test_adapt_starts_at_the_mean_of_every_pixel(any_likelihood):
    model = VAE.from_config(any_likelihood.get_config())
    images = pictures_for(model, 50)
    images[:, 0, 0], images[:, 0, 1] = 0, 1
    before = model.decoder.get_weights()[-1]
    model.adapt(images)
    smoothed = (images.sum(axis=0).ravel() + 0.5) / 51
    bias = model.decoder.get_weights()[-1]
    np.testing.assert_allclose(special.expit(bias[:6]), smoothed, atol=1e-5)
    np.testing.assert_array_equal(bias[6:], before[6:])


def test_the_loss_is_minus_the_bound_in_nats_per_picture(any_likelihood):
    model, images = any_likelihood, pictures_for(any_likelihood, 6)
    for tracker in model.trackers:
        tracker.reset_state()
    loss = model.compute_loss(images, training=False)
    elbo, kl, reconstruction = (float(tracker.result()) for tracker in model.trackers)
    np.testing.assert_allclose(loss, kl + reconstruction, rtol=1e-5)
    np.testing.assert_allclose(loss, -elbo, rtol=1e-5)
    np.testing.assert_allclose(loss, -np.mean(model.elbo(images, seed=0)), rtol=1e-5)
    weights = np.array([1, 1, 1, 0, 0, 0], "float32")
    assert model.compute_loss(images[:3], training=False) != loss
    weighted = model.compute_loss(images, sample_weight=weights, training=False)
    np.testing.assert_allclose(weighted, -np.mean(model.elbo(images, seed=0) * weights), rtol=1e-5)
    assert model.compute_loss(images, training=False) == loss  # the same draws in every evaluation
    assert model.compute_loss(images) != model.compute_loss(images)  # others in every step


def trained(images, *, jit_compile=False, epochs=3, **options):
    keras.utils.set_random_seed(0)
    model = VAE((3, 3, 1), 2, 8, **options)
    model.compile(keras.optimizers.Adam(0.02), jit_compile=jit_compile)
    return model, model.fit(images, batch_size=64, epochs=epochs, shuffle=False, verbose=0).history["loss"]


def test_a_compiled_step_is_the_step():
    images = every_picture()[:256]
    (_, loss), (_, compiled) = (trained(images, jit_compile=jit, epochs=2, num_samples=20) for jit in (False, True))
    assert loss[1] < loss[0]
    # XLA makes other normal numbers of the same bits; 256 x 20 draws of standard deviation 1 leave 2e-3 of the loss.
    np.testing.assert_allclose(compiled, loss, rtol=1e-2)


def test_mixed_precision_trains_and_answers_in_float32(tmp_path):
    images = every_picture()[:128]
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model, loss = trained(images, estimator="monte_carlo", num_samples=2)
    finally:
        keras.config.set_dtype_policy("float32")
    assert loss[-1] < loss[0]
    answers = [model(images), model.log_prob(images, 10, seed=0), model.elbo(images, seed=0), *model.encode(images)]
    for answer in [*answers, model.sample(3, seed=0)]:
        assert answer.dtype == tf.float32
        assert np.isfinite(answer).all()
    assert model.encoder.layers[-1].compute_dtype == "bfloat16"
    model.save(tmp_path / "model.keras")  # loaded where the policy is another
    loaded = dmkeras.load(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.log_prob(images, 10, seed=0), answers[1])


def test_a_saved_model_comes_back_whole(any_likelihood, tmp_path):
    any_likelihood.save(tmp_path / "model.keras")
    loaded, images = dmkeras.load(tmp_path / "model.keras"), pictures_for(any_likelihood, 4)
    assert type(loaded) is VAE
    assert loaded.get_config() == any_likelihood.get_config()
    for weight, same in zip(any_likelihood.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, same)
    np.testing.assert_array_equal(loaded.elbo(images, seed=1), any_likelihood.elbo(images, seed=1))
    np.testing.assert_array_equal(loaded.sample(2, seed=1), any_likelihood.sample(2, seed=1))


def test_the_configuration_makes_the_same_model():
    config = {
        "image_shape": (2, 3, 1),
        "latent_size": 3,
        "hidden_size": (5, 4),
        "likelihood": "gaussian",
        "estimator": "monte_carlo",
        "num_samples": 2,
        "activation": "relu",
    }
    model = VAE(**config)
    assert model.get_config().items() >= config.items()
    again = VAE.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    shapes = [(6, 5), (5,), (5, 4), (4,), (4, 6), (6,), (3, 4), (4,), (4, 5), (5,), (5, 12), (12,)]
    assert [weight.shape for weight in again.get_weights()] == shapes


# What is refused, and what is taken.


@pytest.mark.parametrize("dtype", ["float64", "uint8", "bool"])
def test_binary_pixels_may_have_any_type(binary, dtype):
    images = every_picture()[:6]
    other = images.astype(dtype)
    for same in (other, tf.constant(other)):
        np.testing.assert_allclose(binary.elbo(same, seed=0), binary.elbo(images, seed=0), atol=1e-5)
        np.testing.assert_allclose(binary.log_prob(same, 37, seed=0), binary.log_prob(images, 37, seed=0), atol=1e-5)
        np.testing.assert_allclose(binary.reconstruct(same), binary.reconstruct(images), atol=1e-5)
    np.testing.assert_allclose(
        binary.compute_loss(tf.constant(other), training=False), -np.mean(binary.elbo(images, seed=0)), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (grey(4, (3, 3, 1)), "grey values; binarize them"),
        (np.ones((4, 3, 3)), r"expected images \[B, 3, 3, 1\], received \[4, 3, 3\]"),
        (np.ones((4, 3, 4, 1)), r"received \[4, 3, 4, 1\]"),
        (np.ones((3, 3, 1)), r"received \[3, 3, 1\]"),
        (np.full((4, 3, 3, 1), 255, "uint8"), r"expected pixels in \[0, 1\], received 255 to 255; divide"),
        (-np.ones((4, 3, 3, 1)), r"received -1\.0"),
        (np.full((4, 3, 3, 1), np.nan), "received 36 that are not finite"),
    ],
)
def test_pictures_that_are_no_data_of_the_model_are_refused(binary, images, message):
    ways = {
        "elbo": binary.elbo,
        "log_prob": binary.log_prob,
        "adapt": binary.adapt,
        "fit of an array": binary.fit,
        "fit of a tensor": lambda images: binary.fit(tf.constant(images)),
        "fit of a dataset": lambda images: binary.fit(tf.data.Dataset.from_tensors(images)),
        "fit of pairs": lambda images: binary.fit(tf.data.Dataset.from_tensors((images, images))),
    }
    for way in ways.values():
        with pytest.raises(ValueError, match=message):
            way(images)


def test_records_that_are_no_pictures_are_refused_in_words(binary):
    records = tf.data.Dataset.from_tensors({"image": np.ones((4, 3, 3, 1)), "label": np.ones(4)})
    with pytest.raises(ValueError, match=r"a dict of image, label; map it to record\['image'\]"):
        binary.fit(records)


def test_grey_values_are_data_of_the_other_likelihoods():
    for likelihood in ("gaussian", "continuous_bernoulli"):
        assert np.isfinite(VAE(SHAPE, 2, 4, likelihood=likelihood).elbo(grey(3))).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_shape": (3, 3)}, "image_shape must be"),
        ({"image_shape": 3}, "image_shape must be"),
        ({"image_shape": (3, 0, 1)}, "image_shape must be"),
        ({"latent_size": 0}, "latent_size=0"),
        ({"hidden_size": (4, 0)}, r"hidden_size=\(4, 0\)"),
        ({"num_samples": 0}, "num_samples=0"),
        ({"likelihood": "binary"}, "likelihood must be one of bernoulli, gaussian, continuous_bernoulli"),
        ({"estimator": "exact"}, "estimator must be one of analytic, monte_carlo"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        VAE(**{"image_shape": (3, 3, 1), "latent_size": 2, "hidden_size": 4, **arguments})


def test_counts_below_one_are_refused(binary):
    images = every_picture()[:2]
    calls = (binary.sample, lambda n: binary.log_prob(images, n), lambda n: binary.elbo(images, num_samples=n))
    for call in calls:
        with pytest.raises(ValueError, match="at least 1"):
            call(0)
    with pytest.raises(ValueError, match="estimator must be one of"):
        binary.elbo(images, "exact")
