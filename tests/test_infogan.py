"""Laws of InfoGAN: the bound of the information on distributions that are known, the steps, what is inferred and drawn.

Tolerances: 1e-5 nats for means of float32 logarithms of size one; 1e-4 of a gradient.
"""

import contextlib
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from scipy import special, stats
from scipy.spatial import distance

import dmkeras
from dmkeras.generative import infogan
from dmkeras.generative.infogan import InfoGAN, lower_bound
from dmkeras.parts.seeds import row_seeds
from dmkeras.recipe import run
from training.infogan import recipe

tfd = tfp.distributions
SIZES = {"noise_size": 3, "num_categories": 4, "filters": 2, "hidden_size": 8, "head_size": 6}
IMAGES = np.random.default_rng(0).random((12, 8, 8, 1), "float32")
KINDS = {
    "one": {},
    "several": {"num_categories": (3, 4), "learn_variance": True},
    "categories": {"num_continuous": 0},
    "continuous": {"num_categories": ()},
}


def small(make=InfoGAN, **options):
    """A model whose heads are loud enough to say something."""
    keras.utils.set_random_seed(1)
    model = make((8, 8, 1), **{**SIZES, **options})
    for weight in model.weights:
        if weight.name == "kernel":
            weight.assign(10 * weight)
    return model


def compiled(make=InfoGAN, d_rate=0.1, g_rate=0.1, **options):
    model = small(make, **options)
    model.compile(keras.optimizers.SGD(d_rate), keras.optimizers.SGD(g_rate), run_eagerly=True, jit_compile=False)
    return model


@pytest.fixture(scope="module", params=KINDS)
def any_kind(request):
    return small(**KINDS[request.param])


def values(network):
    return [weight.numpy() for weight in network.weights]


def moved(before, network):
    return {w.path for was, w in zip(before, network.weights, strict=True) if not np.array_equal(was, w)}


# The bound, on a code of three values and pictures of four, whose joint distribution is a table of counts.

JOINT = np.array([[5, 2, 1, 4], [1, 1, 8, 2], [3, 6, 1, 2]])  # code by picture; the codes are equally frequent
CODE, PICTURE = (np.repeat(axis.ravel(), JOINT.ravel()) for axis in np.indices(JOINT.shape))
TRUTH = (JOINT / JOINT.sum(axis=0)).T  # P(code | picture)


def information(joint):
    """I(code; picture), nats."""
    p = joint / joint.sum()
    return np.sum(p * np.log(p / np.outer(p.sum(axis=1), p.sum(axis=0))))


def bound_of(table, bound=lower_bound):
    """L_I of Q(code | picture) = `table`, exact: the batch holds each pair as often as it is probable."""
    q = tfd.OneHotCategorical(logits=np.log(table[PICTURE]).astype("float32"))
    return float(bound({"categories": q}, {"categories": np.eye(3, dtype="float32")[CODE]})["categories"])


def tables(count):
    return np.random.default_rng(2).dirichlet(np.ones(3), (count, 4))


def check_the_bound_is_the_information_where_q_is_the_true_posterior(bound):
    np.testing.assert_allclose(bound_of(TRUTH, bound), information(JOINT), atol=1e-5)


def check_no_q_is_above_the_information(bound):
    for table in [*tables(20), *(0.9 * TRUTH + 0.1 * table for table in tables(5))]:
        assert bound_of(table, bound) < information(JOINT) - 1e-4 < np.log(3)


def entropy_left_out(posterior, codes):
    return {name: tf.reduce_mean(q.log_prob(codes[name])) for name, q in posterior.items()}


def softmax_twice(posterior, codes):
    """Probabilities where logits belong."""
    return lower_bound({n: tfd.OneHotCategorical(logits=q.probs_parameter()) for n, q in posterior.items()}, codes)


def in_bits(posterior, codes):
    return {name: value / np.log(2) for name, value in lower_bound(posterior, codes).items()}


def summed(posterior, codes):
    """The batch summed instead of its mean taken."""
    return {name: tf.reduce_sum(q.log_prob(codes[name])) + np.log(3) for name, q in posterior.items()}


def entropy_twice(posterior, codes):
    return {name: value + np.log(3) for name, value in lower_bound(posterior, codes).items()}


def test_the_bound_is_the_information_where_q_is_the_true_posterior():
    check_the_bound_is_the_information_where_q_is_the_true_posterior(lower_bound)


def test_no_other_q_reaches_the_information_and_that_is_no_more_than_the_entropy():
    check_no_q_is_above_the_information(lower_bound)


@pytest.mark.parametrize("bound", [entropy_left_out, softmax_twice, in_bits, summed, entropy_twice])
def test_a_bound_that_is_wrong_is_caught(bound):
    with pytest.raises(AssertionError):
        check_the_bound_is_the_information_where_q_is_the_true_posterior(bound)


def test_a_bound_that_is_above_the_information_is_caught():
    with pytest.raises(AssertionError):
        check_no_q_is_above_the_information(entropy_twice)


def test_the_bound_of_pictures_that_tell_their_code_is_the_entropy_of_the_code():
    for size in (2, 10):
        rows = np.eye(size, dtype="float32")
        found = lower_bound({"categories": tfd.OneHotCategorical(logits=100 * rows)}, {"categories": rows})
        np.testing.assert_allclose(found["categories"], np.log(size), atol=1e-5)


def test_bounds_of_several_codes_add_up():
    """Two codes, two pictures side by side, each of one code: the information is the sum."""
    pairs = np.array(list(itertools.product(range(len(CODE)), repeat=2)))
    codes = {name: np.eye(3, dtype="float32")[CODE[pairs[:, i]]] for i, name in enumerate("ab")}
    q = {n: tfd.OneHotCategorical(logits=np.log(TRUTH[PICTURE[pairs[:, i]]])) for i, n in enumerate("ab")}
    both = np.einsum("ax,by->abxy", JOINT, JOINT).reshape(9, 16)
    np.testing.assert_allclose(sum(lower_bound(q, {n: codes[n] for n in q}).values()), information(both), atol=1e-5)


def lemma(resample):
    """Both sides of Lemma 5.1 for f = log Q; `resample` [picture, code] draws the second code."""
    table, p = tables(1)[0], JOINT / JOINT.sum()
    left = bound_of(table) - np.log(3)  # c ~ P(c), x ~ P(x|c), as the loss has it
    right = np.einsum("cx,xk,xk->", p, resample, np.log(table))  # and c' ~ P(c|x)
    return left, right


def test_lemma_5_1_a_code_drawn_again_from_its_posterior_gives_the_same_mean():
    np.testing.assert_allclose(*lemma(TRUTH), atol=1e-5)
    left, right = lemma(np.full((4, 3), 1 / 3))  # known wrong: from the prior, whatever the picture
    assert abs(left - right) > 0.05


def of_signs(bound, count):
    """L_I of codes in [-1, 1] where a picture tells their signs, and Q is the best Gaussian; by quadrature."""
    grid = (np.arange(2000) + 0.5) / 1000 - 1
    codes = np.repeat(grid[:, None], count, axis=1).astype("float32")
    q = tfd.MultivariateNormalDiag(np.sign(codes) / 2, np.full_like(codes, 12**-0.5))
    return float(bound({"continuous": q}, {"continuous": codes})["continuous"])


def entropy_of_a_normal(posterior, codes):
    """The authors' code: -log N(c; 0, 1) in place of the entropy of the codes."""
    q, c = posterior["continuous"], codes["continuous"]
    surrogate = tfd.MultivariateNormalDiag(tf.zeros_like(c), tf.ones_like(c)).log_prob(c)
    return {"continuous": tf.reduce_mean(q.log_prob(c) - surrogate)}


@pytest.mark.parametrize("count", [1, 3])
def test_the_bound_of_continuous_codes_is_below_the_information_of_a_sign(count):
    expected = count * (np.log(2) - stats.norm.entropy(0, 12**-0.5))
    np.testing.assert_allclose(of_signs(lower_bound, count), expected, atol=1e-4)
    assert expected < count * np.log(2)  # I(c; x) = H(x)
    assert of_signs(entropy_of_a_normal, count) > count * np.log(2)  # known wrong
    bias = of_signs(entropy_of_a_normal, count) - expected
    np.testing.assert_allclose(bias / count, np.log(2 * np.pi) / 2 + 1 / 6 - np.log(2), atol=1e-4)  # 0.392


def test_of_unit_variance_the_bound_of_a_continuous_code_stays_below_zero():
    codes = np.random.default_rng(0).uniform(-1, 1, (5, 2)).astype("float32")
    q = {"continuous": tfd.MultivariateNormalDiag(codes, tf.ones_like(codes))}
    np.testing.assert_allclose(lower_bound(q, {"continuous": codes})["continuous"], 2 * -0.2258, atol=1e-4)


# What is measured.


def expected_metrics(model, images):
    """The metrics of `evaluate` in NumPy, from what the public verbs answer."""
    noise, categories, continuous = model.codes(row_seeds(len(images), 0))
    categories = categories if isinstance(categories, list) else [categories]
    fake = model.generate(noise, categories, continuous).numpy()
    answer = {name: np.asarray(value, "float64") for name, value in model.infer(fake).items()}
    logits = [value for name, value in answer.items() if name.startswith("category_logits")]
    real, made = (np.asarray(model(x)["logit"], "float64") for x in (images, fake))
    found = {"d_loss": np.mean(np.logaddexp(0, -real)) + np.mean(np.logaddexp(0, made))}
    found["g_loss"] = np.mean(np.logaddexp(0, -made))
    apart = lambda x: distance.cdist(*(x.reshape(len(x), -1).astype("float64"),) * 2) + np.diag([np.inf] * len(x))
    found["diversity"] = apart(fake).min(axis=1).mean() / apart(images).min(axis=1).mean()
    if logits:
        log_q = [
            np.sum(c * special.log_softmax(a, axis=1), axis=1) + np.log(a.shape[1]) for c, a in zip(categories, logits)
        ]
        found["mutual_information"] = np.mean(sum(log_q))
    if model.num_continuous:
        deviation = np.exp(answer["continuous_log_var"] / 2)
        log_q = stats.norm.logpdf(continuous, answer["continuous_mean"], deviation) + np.log(2)
        found["mutual_information_continuous"] = np.mean(log_q.sum(axis=1))
    return found


def check_metrics(model):
    model.compile(run_eagerly=True, jit_compile=False)
    found = model.evaluate(IMAGES, batch_size=12, verbose=0, return_dict=True)
    expected = expected_metrics(model, IMAGES)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4, err_msg=name)


class MeanThroughSoftmax(InfoGAN):
    """The mean of a code in [-1, 1] goes through a softmax on its way to the loss."""

    def _posterior(self, answer):
        mean = tf.nn.softmax(answer["continuous_mean"])
        return super()._posterior({**answer, "continuous_mean": mean})


class VarianceForDeviation(InfoGAN):
    """exp(log_var) as a scale."""

    def _posterior(self, answer):
        return super()._posterior({**answer, "continuous_log_var": 2 * answer["continuous_log_var"]})


class OtherCodes(InfoGAN):
    """Q is asked for the codes of other pictures."""

    def _information(self, codes, answer):
        return super()._information({name: value[::-1] for name, value in codes.items()}, answer)


def test_the_metrics_are_those_of_what_is_inferred(any_kind):
    check_metrics(any_kind)
    for name in ("mutual_information", "mutual_information_continuous"):
        assert name not in expected_metrics(any_kind, IMAGES) or abs(expected_metrics(any_kind, IMAGES)[name]) > 1e-3


@pytest.mark.parametrize("faulty", [MeanThroughSoftmax, VarianceForDeviation, OtherCodes])
def test_metrics_that_are_wrong_are_caught(faulty):
    with pytest.raises(AssertionError):
        check_metrics(small(faulty, learn_variance=True))


# Steps.


def test_a_step_of_d_moves_the_trunk_and_both_heads_alone():
    model = compiled()
    generator, discriminator = values(model.generator), values(model.discriminator)
    model._step_d(IMAGES)
    assert not moved(generator, model.generator)  # moving statistics neither
    assert moved(discriminator, model.discriminator) == {weight.path for weight in model.discriminator.weights}


def test_a_step_of_g_moves_g_alone():
    model = compiled()
    generator, discriminator = values(model.generator), values(model.discriminator)
    model._step_g(12)
    assert moved(generator, model.generator) == {weight.path for weight in model.generator.weights}
    assert not moved(discriminator, model.discriminator)


def test_codes_without_weight_move_nothing_of_their_heads():
    model = compiled(category_weight=0.0, continuous_weight=0.0)
    before = values(model.discriminator)
    model.train_on_batch(IMAGES)
    heads = [w.path for w in model.discriminator.trainable_weights if w.path.split("/")[0] in model.infer(IMAGES)]
    assert len(heads) == 4
    assert not set(heads) & moved(before, model.discriminator)


def by_hand(model, codes, answer):
    """lambda L_I less the entropies."""
    names = [name for name in codes if name.startswith("categories")]
    logits = [tf.nn.log_softmax(answer[name.replace("categories", "category_logits")]) for name in names]
    categories = sum(tf.reduce_mean(tf.reduce_sum(codes[name] * a, axis=1)) for name, a in zip(names, logits))
    square = tf.reduce_sum((codes["continuous"] - answer["continuous_mean"]) ** 2, axis=1)
    return model.category_weight * categories - model.continuous_weight * tf.reduce_mean(square) / 2


def gradients(model, network):
    """Of equation 6, at the next codes that the model will draw."""
    codes = model.layout.draw(12, model.noise)
    with tf.GradientTape() as tape:
        fake = model.generator(tf.concat(list(codes.values()), axis=1), training=True)
        real, answer = (model.discriminator(x, training=True) for x in (IMAGES, fake))
        if network is model.generator:
            logits = answer["logit"]
            value = (
                tf.math.log_sigmoid(logits) if model.objective == "non_saturating" else -tf.math.log_sigmoid(-logits)
            )
            value = tf.reduce_mean(value)
        else:
            value = tf.reduce_mean(tf.math.log_sigmoid(real["logit"]) + tf.math.log_sigmoid(-answer["logit"]))
        value += by_hand(model, codes, answer)
    return tape.gradient(value, network.trainable_weights)


def check_a_step_follows_equation_6(make, name, **options):
    model, twin = (compiled(make, category_weight=0.7, continuous_weight=0.4, **options) for _ in range(2))
    twin.noise.state.assign(model.noise.state)
    network = getattr(model, name)
    before = [weight.numpy() for weight in network.trainable_weights]
    model._step_d(IMAGES) if name == "discriminator" else model._step_g(12)
    for was, gradient, now in zip(before, gradients(twin, getattr(twin, name)), network.trainable_weights, strict=True):
        scale = np.abs(gradient).max()
        assert scale > 0
        np.testing.assert_allclose((now.numpy() - was) / 0.1, gradient, rtol=1e-3, atol=1e-3 * scale + 1e-6)


@contextlib.contextmanager
def weightless(model):
    weights = model.category_weight, model.continuous_weight
    model.category_weight, model.continuous_weight = 0.0, 0.0
    yield
    model.category_weight, model.continuous_weight = weights


class DetachedFakes(InfoGAN):
    """Q learns from pictures that lead no gradient back to G."""

    def _step_g(self, count):
        with weightless(self):
            return super()._step_g(count)


class TrunkWithoutInformation(InfoGAN):
    """D's step is that of a plain discriminator."""

    def _step_d(self, images):
        with weightless(self):
            return super()._step_d(images)


class WrongSign(InfoGAN):
    def _weighed(self, information):
        return -super()._weighed(information)


class DetachedGame(InfoGAN):
    """G sees nothing of D's answer but the codes."""

    def call(self, images, training=False):
        answer = super().call(images, training)
        return {**answer, "logit": tf.stop_gradient(answer["logit"])}


class AnotherGame(InfoGAN):
    """The objective that was not asked for."""

    def _step_g(self, count):
        self.objective = {"minimax": "non_saturating", "non_saturating": "minimax"}[self.objective]
        return super()._step_g(count)


@pytest.mark.parametrize("name", ["discriminator", "generator"])
@pytest.mark.parametrize(
    "options", [{}, {"num_categories": (3, 4)}, {"objective": "minimax"}], ids=["one", "several", "minimax"]
)
def test_a_step_follows_the_gradient_of_equation_6(name, options):
    check_a_step_follows_equation_6(InfoGAN, name, **options)


@pytest.mark.parametrize(
    ("faulty", "name"),
    [
        (DetachedFakes, "generator"),
        (TrunkWithoutInformation, "discriminator"),
        (WrongSign, "generator"),
        (WrongSign, "discriminator"),
        (DetachedGame, "generator"),
        (MeanThroughSoftmax, "discriminator"),
        (OtherCodes, "generator"),
        (AnotherGame, "generator"),
    ],
)
def test_a_step_that_is_wrong_is_caught(faulty, name):
    with pytest.raises(AssertionError):
        check_a_step_follows_equation_6(faulty, name)


def test_the_averaged_generator_follows_and_draws():
    model = compiled(average=0.75)
    mean = [weight.numpy() for weight in model.generator.weights]
    for _ in range(2):
        model.train_on_batch(IMAGES)
        mean = [0.75 * m + 0.25 * weight.numpy() for m, weight in zip(mean, model.generator.weights, strict=True)]
    for expected, found in zip(mean, model.averaged.weights, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    z = model.pack(*model.codes(row_seeds(2, 0)))
    np.testing.assert_array_equal(model.sample(2, seed=0), model.averaged(z, training=False))
    assert np.abs(model.sample(2, seed=0) - model.generator(z, training=False)).max() > 1e-4


def test_a_compiled_step_is_a_step():
    model = InfoGAN((8, 8, 1), 2, 2, 1, filters=1, hidden_size=2, head_size=2)
    model.compile(jit_compile=True)
    before = values(model)
    found = model.train_on_batch(IMAGES, return_dict=True)
    assert all(np.isfinite(value) for value in found.values())
    assert found["d_loss"] == pytest.approx(2 * np.log(2), abs=0.2)
    assert moved(before, model) >= {weight.path for weight in model.trainable_weights}


# What is inferred.


def test_the_answers_are_those_of_the_distributions(any_kind):
    answer, posterior = any_kind.infer(IMAGES), any_kind.posterior(IMAGES)
    shapes = {name: tuple(value.shape) for name, value in answer.items()}
    codes = {
        name: np.eye(size, dtype="float32")[np.arange(12) % size] for name, size in any_kind.layout.categories.items()
    }
    expected = {name.replace("categories", "category_logits"): value.shape for name, value in codes.items()}
    if any_kind.num_continuous:
        expected |= {
            "continuous_mean": (12, any_kind.num_continuous),
            "continuous_log_var": (12, any_kind.num_continuous),
        }
        turns = np.random.default_rng(0).uniform(-1, 1, (12, any_kind.num_continuous)).astype("float32")
        deviation = np.exp(answer["continuous_log_var"] / 2)
        reference = stats.norm.logpdf(turns, answer["continuous_mean"], deviation).sum(axis=1)
        np.testing.assert_allclose(posterior["continuous"].log_prob(turns), reference, rtol=1e-4)
        assert any_kind.learn_variance or not np.any(answer["continuous_log_var"])
    assert shapes == expected
    for name, value in codes.items():
        logits = answer[name.replace("categories", "category_logits")]
        reference = np.sum(value * special.log_softmax(logits, axis=1), axis=1)
        np.testing.assert_allclose(posterior[name].log_prob(value), reference, atol=1e-4)
    assert posterior.keys() == {*codes, *(["continuous"] if any_kind.num_continuous else [])}
    whole = any_kind(IMAGES)
    assert whole.keys() == {"logit", *answer}
    assert whole["logit"].shape == (12, 1)


def test_a_learned_variance_stays_in_its_range():
    model = small(learn_variance=True)
    bias = next(w for w in model.weights if w.path == "continuous_log_var/bias")
    for pushed, expected in ((100.0, 2.0), (-100.0, -4.0)):
        bias.assign([pushed, pushed])
        np.testing.assert_array_equal(model.infer(IMAGES)["continuous_log_var"], np.full((12, 2), expected))


# What is drawn.


def test_codes_as_drawn_are_what_generate_takes(any_kind):
    drawn = any_kind.codes(row_seeds(5, 3))
    images = any_kind.generate(*drawn)
    assert images.shape == (5, 8, 8, 1)
    assert images.dtype == tf.float32
    assert np.all((images >= 0) & (images <= 1))
    np.testing.assert_array_equal(any_kind.sample(5, seed=3), images)
    z = any_kind.pack(*drawn)
    assert z.shape == (5, any_kind.latent_size)
    line = any_kind.interpolate(z[:2], z[2:4], steps=3)
    np.testing.assert_allclose(line[:, 0], images[:2], atol=1e-6)
    np.testing.assert_allclose(line[:, 2], images[2:4], atol=1e-6)
    middle = any_kind.generator((z[:2] + z[2:4]) / 2, training=False)
    np.testing.assert_allclose(line[:, 1], middle, atol=1e-6)


def test_a_row_of_seeds_decides_its_picture_alone(any_kind):
    sample, _ = any_kind.signatures()["sample"]
    seed = tf.constant([[3, 0], [3, 1], [8, 5]])
    together = sample(seed)["images"]
    np.testing.assert_allclose(sample(seed[2:])["images"][0], together[2], atol=1e-6)
    np.testing.assert_allclose(any_kind.sample(2, seed=3), together[:2], atol=1e-6)
    assert np.abs(together[0] - together[1]).max() > 1e-3


def test_every_code_changes_the_picture(any_kind):
    drawn = any_kind.layout.of_rows(row_seeds(1, 0))
    z = tf.concat(list(drawn.values()), axis=1)
    for i in range(any_kind.latent_size):
        other = z + np.eye(any_kind.latent_size, dtype="float32")[i]
        assert np.abs(any_kind.generator(other) - any_kind.generator(z)).max() > 1e-5


def test_the_endpoints_answer_as_the_verbs_do(any_kind):
    signatures = any_kind.signatures()
    assert signatures.keys() == {"serving_default", "infer", "generate", "sample", "interpolate"}
    for function, specs in signatures.values():
        assert all(spec.shape[0] is None for spec in specs)
        outputs = tf.function(function, autograph=False).get_concrete_function(*specs).structured_outputs
        assert all(value.shape[0] is None for value in outputs.values())
    for name in ("serving_default", "infer"):
        found, expected = signatures[name][0](tf.constant(IMAGES)), any_kind.infer(IMAGES)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_array_equal(found[key], value)
    drawn = any_kind.layout.of_rows(row_seeds(5, 3))
    generate, specs = signatures["generate"]
    assert [spec.name for spec in specs] == [name for name, value in drawn.items() if value.shape[1]]
    found = generate(*(drawn[spec.name] for spec in specs))["images"]
    np.testing.assert_array_equal(found, any_kind.sample(5, seed=3))


def test_an_endpoint_takes_the_largest_category_for_the_one():
    model = small()
    noise, categories, continuous = model.codes(row_seeds(4, 0))
    generate, _ = model.signatures()["generate"]
    blurred = generate(noise, 0.6 * categories + 0.1, continuous)["images"]
    np.testing.assert_array_equal(blurred, model.generate(noise, categories, continuous))
    with pytest.raises(ValueError, match="categories one-hot"):
        model.generate(noise, 0.6 * categories + 0.1, continuous)


# Networks.


def kernels(network):
    return [tuple(w.shape) for w in network.trainable_weights if w.name == "kernel"]


def test_the_architecture_for_28_pixels_is_that_of_the_authors():
    model = InfoGAN()
    assert kernels(model.generator) == [(74, 1024), (1024, 7 * 7 * 128), (4, 4, 64, 128), (4, 4, 1, 64)]
    trunk = [(4, 4, 1, 64), (4, 4, 64, 128), (7 * 7 * 128, 1024)]
    assert sorted(kernels(model.discriminator)) == sorted([*trunk, (1024, 1), (1024, 128), (128, 10), (128, 2)])
    kind = keras.layers.BatchNormalization
    normalized = [sum(isinstance(layer, kind) for layer in n.layers) for n in (model.generator, model.discriminator)]
    assert normalized == [3, 3]
    rates = [(float(o.learning_rate), o.beta_1) for o in model.optimizers()]
    np.testing.assert_allclose(rates, [(2e-4, 0.5), (1e-3, 0.5)])


@pytest.mark.parametrize(
    ("shape", "strides", "start"),
    [
        ((64, 64, 3), (2, 2, 2, 2), (4, 4)),
        ((32, 32, 3), (2, 2, 2), (4, 4)),
        ((16, 24, 1), (2, 2), (4, 6)),
        ((8, 8, 1), (1, 2), (4, 4)),
    ],
)
def test_sides_are_halved_while_they_stay_above_seven(shape, strides, start):
    assert infogan._strides(shape) == (strides, start)
    model = InfoGAN(shape, **SIZES)
    assert model.sample(2, seed=0).shape == (2, *shape)
    widths = [2 * 2**stage for stage in range(len(strides))]
    assert [k[-1] for k in kernels(model.discriminator) if len(k) == 4] == widths
    assert [k[2] for k in kernels(model.generator) if len(k) == 4] == [*widths[-2::-1], shape[-1]]


def test_the_slope_of_the_rectifiers_is_an_argument():
    for slope in (0.01, 0.1):
        model = small(leaky_slope=slope)
        kind = keras.layers.LeakyReLU
        assert {layer.negative_slope for layer in model.discriminator.layers if isinstance(layer, kind)} == {slope}


# State.


@pytest.mark.parametrize("kind", ["one", "several"])
def test_both_optimizers_and_their_moments_survive_saving(kind, tmp_path):
    model = small(average=0.5, **KINDS[kind])
    model.compile(run_eagerly=True, jit_compile=False)
    for _ in range(2):
        model.train_on_batch(IMAGES)
    model.save(tmp_path / "model.keras")
    loaded = dmkeras.load(tmp_path / "model.keras")
    assert loaded.get_config() == model.get_config()
    for name in ("d_optimizer", "g_optimizer"):
        one, other = getattr(model, name), getattr(loaded, name)
        assert one.get_config() == other.get_config()
        assert other.iterations == 2
        for state, again in zip(one.variables, other.variables, strict=True):
            np.testing.assert_array_equal(state, again)
    np.testing.assert_array_equal(loaded.sample(2, seed=1), model.sample(2, seed=1))
    for key, value in model.infer(IMAGES).items():
        np.testing.assert_array_equal(loaded.infer(IMAGES)[key], value)
    loaded.train_on_batch(IMAGES)


def test_the_configuration_makes_the_same_model():
    config = {
        "image_shape": (8, 8, 3),
        "noise_size": 5,
        "num_categories": (2, 3),
        "num_continuous": 1,
        "filters": 3,
        "hidden_size": 7,
        "head_size": 4,
        "leaky_slope": 0.2,
        "learn_variance": True,
        "category_weight": 0.5,
        "continuous_weight": 0.3,
        "objective": "minimax",
        "average": 0.9,
    }
    model = InfoGAN(**config)
    assert model.get_config().items() >= config.items()
    again = InfoGAN.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    assert [tuple(w.shape) for w in again.weights] == [tuple(w.shape) for w in model.weights]


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_and_answers_in_float32(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = small(learn_variance=True)
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile(run_eagerly=True, jit_compile=False)
    before = values(model.generator)
    found = model.train_on_batch(IMAGES, return_dict=True)
    assert all(np.isfinite(value) for value in found.values())
    assert moved(before, model.generator)
    assert model.sample(2).dtype == tf.float32
    assert {value.dtype for value in model(IMAGES).values()} == {tf.float32}


def test_validation_moves_nothing_and_repeats():
    model = compiled()
    before = values(model)
    first, second = (model.evaluate(IMAGES, verbose=0, return_dict=True) for _ in range(2))
    assert first == second
    assert not moved(before, model)


def test_one_picture_and_pictures_with_labels_train():
    model = compiled()
    found = model.fit(IMAGES[:1], np.zeros(1), verbose=0).history
    assert all(np.isfinite(value[0]) for value in found.values())


# What is refused.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"image_shape": (8, 8)}, "image_shape must be"),
        ({"image_shape": (7, 7, 1)}, r"even sides above 7, received \(7, 7, 1\)"),
        ({"noise_size": 0}, "noise_size must be at least 1, received 0"),
        ({"num_categories": 1}, "num_categories must be at least 2, received 1"),
        ({"num_categories": (10, 1)}, "num_categories must be at least 2, received 1"),
        ({"num_categories": 2.5}, "num_categories must be a whole number"),
        ({"num_continuous": -1}, "num_continuous must be at least 0"),
        ({"num_categories": (), "num_continuous": 0}, "no code to infer; use DCGAN"),
        ({"filters": 0}, "filters must be at least 1"),
        ({"average": "0.9"}, "average must be a number, received '0.9'"),
        ({"average": 1}, "average must be at least 0 and less than 1, received 1.0"),
        ({"leaky_slope": -0.1}, "leaky_slope must be at least 0 and less than 1"),
        ({"category_weight": -1.0}, "category_weight must be at least 0"),
        ({"continuous_weight": np.nan}, "continuous_weight must be at least 0"),
        ({"continuous_weight": np.inf}, "continuous_weight must be at least 0 and finite, received inf"),
        ({"objective": "wasserstein"}, "received 'wasserstein'"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        InfoGAN(**{"image_shape": (8, 8, 1), **SIZES, **arguments})


def test_sizes_may_be_numpys():
    eight, ten = np.int64(8), np.array([10, 3])
    model = InfoGAN(
        (eight, eight, np.int32(1)), *np.array([6, 4, 2]), filters=eight, hidden_size=eight, head_size=eight
    )
    assert model.get_config() == InfoGAN((8, 8, 1), 6, 4, 2, 8, 8, 8).get_config() | {"name": model.name}
    assert InfoGAN((8, 8, 1), 6, list(ten), 2, 8, 8, 8).num_categories == (10, 3)


def test_pictures_out_of_range_are_refused():
    model = compiled()
    for verb in (
        model.infer,
        model.posterior,
        lambda x: model.fit(x, verbose=0),
        lambda x: model.evaluate(x, verbose=0),
    ):
        with pytest.raises(ValueError, match="divide 8-bit pixels by 255"):
            verb(IMAGES * 255)
        with pytest.raises(ValueError, match=r"images \[B, 8, 8, 1\]"):
            verb(IMAGES[:, :4])
    with pytest.raises(ValueError, match="num_samples must be at least 1"):
        model.sample(0)


# Learning.


def information_reached(make=InfoGAN, **options):
    """L_I in nats, of at most ln 3, after 150 steps on three plain shapes under noise."""
    shapes, generator = np.zeros((3, 8, 8, 1), "float32"), np.random.default_rng(0)
    shapes[0, :, :3], shapes[1, 5:], shapes[2, 2:6, 4:] = 1, 1, 1
    images = 0.1 + 0.8 * shapes[generator.integers(0, 3, 1600)] + 0.03 * generator.normal(size=(1600, 8, 8, 1))
    keras.utils.set_random_seed(0)
    model = make((8, 8, 1), 4, 3, 0, filters=8, hidden_size=32, head_size=16, **options)
    model.compile(*(keras.optimizers.Adam(rate, beta_1=0.5) for rate in (1e-3, 2e-3)), jit_compile=False)
    history = model.fit(np.clip(images, 0, 1), batch_size=32, epochs=3, verbose=0).history
    return history["mutual_information"][-1]


def test_training_makes_pictures_tell_their_codes():
    assert information_reached() > 0.7
    assert information_reached(category_weight=0.0) < 0.2


def test_training_goes_on_after_a_stop_as_if_there_was_none(tmp_path):
    flags = ["--fast", "--no-export", "--epochs", "2", "--num-categories", "10", "3", "--average", "0.9"]
    whole = run(recipe, [*flags, "--out", str(tmp_path / "whole")])
    run(recipe, [*flags, "--out", str(tmp_path / "parts"), "--minutes", "0"])
    parts = run(recipe, ["--resume", "--no-export", "--out", str(tmp_path / "parts")])
    assert parts["epochs"] == whole["epochs"] == 2
    assert {"information_categories_0", "information_categories_1"} < set(whole["figures"])
    for first, second in zip(*(load_states(tmp_path / name) for name in ("whole", "parts")), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-6)


def load_states(folder):
    """Weights and both optimizers' moments of the run in `folder`."""
    model = dmkeras.load(folder / "runs/infogan/0001/model.keras")
    return [v.numpy() for v in (*model.weights, *model.d_optimizer.variables, *model.g_optimizer.variables)]
