"""Laws of the fully visible sigmoid belief network: loops of logistic regressions in NumPy, and faults that must fail.

Tolerances: 1e-4 nats for sums of a dozen float32 terms.
"""

import numpy as np
import pytest
import tensorflow as tf
from scipy import optimize, special
from sklearn.linear_model import LogisticRegression

import dmkeras
from dmkeras import FVSBN
from dmkeras.parts import explicit_density, pixel_order
from tests import dependency

CASES = [
    ((3, 4, 1), "raster"),
    ((3, 4, 1), "spiral"),
    ((2, 2, 3), "column"),
    ((2, 2, 3), "random"),
    ((4, 3, 1), "random:3"),
]


def random_model(shape=(3, 4, 1), ordering="raster", scale=1.0):
    return dependency.with_random_weights(FVSBN(shape, ordering), scale * int(np.prod(shape)) ** 0.5)


@pytest.fixture(scope="module", params=CASES, ids=str)
def model(request):
    return random_model(*request.param)


class NotStrict(FVSBN):
    """A pixel sees itself."""

    def _strict_kernel(self):
        return tf.linalg.band_part(tf.convert_to_tensor(self.kernel), 0, -1)


class Backwards(FVSBN):
    """A pixel sees the ones behind it."""

    def _strict_kernel(self):
        return tf.transpose(super()._strict_kernel())


class OrderForgotten(FVSBN):
    """The logits stay along the order instead of returning to their places."""

    def call(self, images):
        x = pixel_order.flatten(images, self.order)
        return tf.reshape(x @ self._strict_kernel() + self.bias, (-1, *self.image_shape))


class Probabilities(FVSBN):
    """Probabilities where logits are expected (a public NADE does so)."""

    def call(self, images):
        return tf.sigmoid(super().call(images))


def test_a_flipped_pixel_moves_all_later_logits_and_no_other(model):
    images = dependency.pictures(2, model.image_shape)
    matrix = dependency.flipped(model, images, model.order)
    dependency.check_sees_no_later_value(matrix)
    dependency.check_sees(matrix, np.tri(len(matrix), k=-1, dtype=bool))


@pytest.mark.parametrize("fault", [NotStrict, Backwards, OrderForgotten])
def test_a_leak_is_seen(fault):
    model = dependency.with_random_weights(fault((3, 4, 1), "spiral"))
    with pytest.raises(AssertionError, match="depend on themselves or later ones"):
        dependency.check_sees_no_later_value(dependency.flipped(model, dependency.pictures(2, (3, 4, 1)), model.order))


def test_logits_are_those_of_one_regression_after_another(model):
    images = dependency.pictures(5, model.image_shape)
    kernel, bias = (np.asarray(weight, "float64") for weight in model.get_weights())
    flat, expected = images.reshape(len(images), -1), np.zeros((len(images), len(bias)))
    for d, place in enumerate(model.order):
        expected[:, place] = bias[d]
        for k in range(d):
            expected[:, place] += kernel[k, d] * flat[:, model.order[k]]
    np.testing.assert_allclose(model(images), expected.reshape(images.shape), atol=1e-4)
    chances = np.where(
        images == 1, special.expit(expected.reshape(images.shape)), special.expit(-expected.reshape(images.shape))
    )
    np.testing.assert_allclose(model.log_prob(images), np.log(chances).sum(axis=(1, 2, 3)), atol=1e-4)


def test_the_probabilities_of_all_pictures_sum_to_one(model):
    dependency.check_sums_to_one(model)


@pytest.mark.parametrize("fault", [NotStrict, OrderForgotten])
def test_a_leak_does_not_sum_to_one(fault):
    with pytest.raises(AssertionError):
        dependency.check_sums_to_one(dependency.with_random_weights(fault((3, 4, 1), "spiral")))


def test_what_is_recorded_while_drawing_is_the_log_probability(model):
    dependency.check_what_is_recorded_is_the_log_probability(model)


@pytest.mark.parametrize("fault", [NotStrict, Backwards, OrderForgotten, Probabilities])
def test_a_fault_draws_from_another_density_than_it_scores(fault):
    model = dependency.with_random_weights(fault((3, 4, 1), "spiral"), scale=3.0)
    with pytest.raises(AssertionError):
        dependency.check_what_is_recorded_is_the_log_probability(model)


def test_a_drawn_picture_depends_on_its_seed_alone(model):
    dependency.check_a_row_depends_on_its_seed_alone(model)


def test_a_completion_keeps_what_is_given(model):
    dependency.check_completion_keeps_what_is_given(model)


def test_endpoints_give_no_probability_to_what_is_no_picture(model):
    dependency.check_endpoints_give_no_probability_to_what_is_no_picture(model)


def test_completions_have_their_frequencies():
    given = np.array([1, 0, 0, 1, 1, 0], "float32").reshape(2, 3, 1)
    known = np.array([0, 1, 0, 0, 1, 0]).reshape(2, 3, 1)
    dependency.check_completions_have_their_frequencies(random_model((2, 3, 1)), given, known, count=1000)


def sequences(count, seed=0):
    """Pictures [count, 2, 3, 1] whose pixels follow one another by a true network: no two regressions are separable."""
    return np.asarray(random_model((2, 3, 1), scale=0.7).sample(count, seed))


def regressions(images, order):
    """scikit-learn's logistic regression of each value of the order on those before: A [D, D], b [D]."""
    flat = images.reshape(len(images), -1)[:, order]
    kernel, bias = np.zeros((len(order), len(order))), np.zeros(len(order))
    bias[0] = special.logit(flat[:, 0].mean())
    for d in range(1, len(order)):
        fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(flat[:, :d], flat[:, d])
        kernel[:d, d], bias[d] = fit.coef_[0], fit.intercept_[0]
    return kernel, bias


def penalised_regressions(images, order, l1):
    """The same of mean nats + l1 |A|, by bounded descent of A's positive and negative parts."""
    flat = images.reshape(len(images), -1)[:, order].astype("float64")
    kernel, bias = np.zeros((len(order), len(order))), np.zeros(len(order))
    for d in range(len(order)):

        def both(parameters, x=flat[:, :d], y=flat[:, d], d=d):
            logit = x @ (parameters[:d] - parameters[d:-1]) + parameters[-1]
            error = (special.expit(logit) - y) / len(y)
            slope = np.concatenate([x.T @ error + l1, l1 - x.T @ error, [error.sum()]])
            return np.mean(np.logaddexp(0, logit) - y * logit) + l1 * parameters[:-1].sum(), slope

        options = {"bounds": [(0, None)] * 2 * d + [(None, None)], "options": {"ftol": 0, "gtol": 1e-8}}
        end = optimize.minimize(both, np.zeros(2 * d + 1), jac=True, method="L-BFGS-B", **options).x
        kernel[:d, d], bias[d] = end[:d] - end[d:-1], end[-1]
    return kernel, bias


def test_the_minimum_of_the_loss_is_one_logistic_regression_per_pixel():
    """-log p(x) is convex: any descent to the end of it meets scikit-learn's solutions."""
    images, model, best = sequences(300), FVSBN((2, 3, 1), "column"), FVSBN((2, 3, 1), "column")
    best.set_weights(regressions(images, best.order))

    @tf.function
    def loss(parameters):
        model.kernel.assign(tf.reshape(parameters[:36], (6, 6)))
        model.bias.assign(parameters[36:])
        with tf.GradientTape() as tape:
            value = model.compute_loss(x=images, y_pred=model(images))
        return value, tf.concat(
            [tf.reshape(part, [-1]) for part in tape.gradient(value, [model.kernel, model.bias])], 0
        )

    both = lambda parameters: [np.asarray(part, "float64") for part in loss(tf.cast(parameters, "float32"))]
    end = optimize.minimize(both, np.zeros(42), jac=True, method="L-BFGS-B", options={"ftol": 0, "gtol": 1e-6})
    np.testing.assert_allclose(end.fun, -np.mean(best.log_prob(images)), atol=1e-5)
    np.testing.assert_allclose(model.log_prob(images), best.log_prob(images), atol=5e-3)


def test_with_a_penalty_the_minimum_is_that_of_penalised_regressions():
    """At their sparse solutions the slope of the nats is l1 against each weight, and no more where it is 0."""
    images, l1 = sequences(300), 0.02
    model = FVSBN((2, 3, 1), "column", l1)
    kernel, bias = penalised_regressions(images, model.order, l1)
    model.set_weights([kernel, bias])
    with tf.GradientTape() as tape:
        nats = -tf.reduce_mean(explicit_density.log_likelihood(model(images), images, 2))
    slope, slope_of_bias = (part.numpy() for part in tape.gradient(nats, [model.kernel.value, model.bias.value]))
    later, on = np.triu(np.ones((6, 6), bool), 1), kernel != 0
    assert 3 <= np.sum(on) <= 12
    np.testing.assert_allclose(slope[on], -l1 * np.sign(kernel[on]), atol=1e-5)
    np.testing.assert_allclose(slope_of_bias, 0, atol=1e-5)
    assert np.abs(slope[later & ~on]).max() <= l1 + 1e-5
    found = model.compute_loss(x=images, y_pred=model(images))
    np.testing.assert_allclose(found, nats + l1 * np.abs(kernel).sum(), rtol=1e-5)


def test_adapt_starts_at_independent_pixels():
    images = sequences(50)
    model = FVSBN((2, 3, 1), "spiral")
    model.adapt(images)
    mean = (images.sum(axis=0) + 0.5) / (len(images) + 1)
    np.testing.assert_allclose(model(images), np.broadcast_to(special.logit(mean), images.shape), atol=1e-5)
    assert not np.any(model.kernel)


def test_the_loss_is_minus_the_log_probability_in_nats_per_picture(model):
    images = dependency.pictures(6, model.image_shape)
    model.compile()
    found = model.evaluate(images, verbose=0, return_dict=True)
    nll = -np.mean(model.log_prob(images))
    np.testing.assert_allclose(found["loss"], nll, rtol=1e-5)
    np.testing.assert_allclose(found["nll"], nll, rtol=1e-5)
    np.testing.assert_allclose(found["bits_per_dim"], nll / np.log(2) / 12, rtol=1e-5)


def test_extreme_logits_have_finite_likelihoods():
    model = random_model(scale=1e6)
    images = dependency.pictures(20, model.image_shape)
    with tf.GradientTape() as tape:
        log_prob = explicit_density.log_likelihood(model(images), images, 2)
    assert np.isfinite(log_prob).all()
    assert np.min(log_prob) < -1e5  # a saturated probability would end at a floor
    assert all(np.isfinite(gradient).all() for gradient in tape.gradient(log_prob, model.trainable_variables))


def test_mixed_precision_keeps_logits_in_float32(model):
    images = dependency.pictures(3, model.image_shape)
    mixed = FVSBN(model.image_shape, model.ordering, dtype="mixed_bfloat16")
    mixed.set_weights(model.get_weights())
    np.testing.assert_array_equal(mixed.log_prob(images), model.log_prob(images))
    np.testing.assert_array_equal(mixed.sample(3, seed=0), model.sample(3, seed=0))


@pytest.mark.parametrize("ordering", ["spiral", "random:5", [3, 1, 0, 2, 5, 4]])
def test_a_saved_model_keeps_its_order(ordering, tmp_path):
    model = random_model((2, 3, 1), ordering)
    model.save(tmp_path / "model.keras")
    loaded, images = dmkeras.load(tmp_path / "model.keras"), dependency.pictures(4, (2, 3, 1))
    assert type(loaded) is FVSBN
    assert loaded.get_config() == model.get_config()
    np.testing.assert_array_equal(loaded.order, pixel_order.permutation(ordering, (2, 3, 1)))
    np.testing.assert_array_equal(loaded.log_prob(images), model.log_prob(images))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.full((2, 3, 4, 1), 0.5), r"expected pixels in \{0, 1\}"),
        (np.ones((2, 4, 3, 1)), r"expected images \[B, 3, 4, 1\], received \[2, 4, 3, 1\]"),
        (np.full((2, 3, 4, 1), 255), "divide 8-bit pixels"),
        (np.full((2, 3, 4, 1), np.nan), "not finite"),
    ],
)
def test_pictures_that_are_no_data_of_the_model_are_refused(images, message):
    model = random_model()
    model.compile()
    known = np.ones((2, 3, 4, 1))
    ways = (model.log_prob, model.adapt, model.fit, model.evaluate, lambda images: model.complete(images, known))
    for way in ways:
        with pytest.raises(ValueError, match=message):
            way(images)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_shape": (3, 3)}, "image_shape must be"),
        ({"image_shape": (0, 3, 1)}, "image_shape must be"),
        ({"l1": -1.0}, "l1 must be a number of at least 0, received -1.0"),
        (
            {"ordering": "zigzag"},
            "ordering must be one of raster, column, spiral, random, random:SEED, or a permutation",
        ),
        ({"ordering": [0, 1, 2]}, r"ordering must be a permutation of 0 \.\. 11, received \[0 1 2\]"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        FVSBN(**{"image_shape": (3, 4, 1), **arguments})
