"""Laws of NADE: the paper's recurrence in NumPy, automatic differentiation in float64, and faults that must fail.

Tolerances: 1e-12 for float64, 1e-4 nats for sums of a dozen float32 terms.
"""

import numpy as np
import pytest
import tensorflow as tf
from scipy import special

import dmkeras
from dmkeras import NADE
from dmkeras.generative import nade
from dmkeras.parts import explicit_density, pixel_order
from tests import dependency

CASES = [
    ((3, 4, 1), "raster"),
    ((2, 2, 3), "column"),
    ((4, 3, 1), "spiral"),
    ((2, 2, 3), "random:3"),
    ((5, 5, 1), "random"),
]


def random_model(shape=(3, 4, 1), ordering="raster", kind=NADE, scale=2.0):
    return dependency.with_random_weights(kind(shape, 7, ordering), scale)


@pytest.fixture(scope="module", params=CASES, ids=str)
def model(request):
    return random_model(*request.param)


# Faults: each law below must see one of them.


class SeesItself(NADE):
    """The hidden state takes a pixel in before its own logit is made."""

    def call(self, images):
        x = pixel_order.flatten(images, self.order)
        a = tf.cumsum(x[:, :, None] * self.input_kernel, axis=1) + self.hidden_bias
        return self._out(tf.einsum("bdu,du->bd", tf.sigmoid(a), self.output_kernel))

    def _out(self, logits):
        return pixel_order.unflatten(logits + self.bias, self.order, self.image_shape)


class OrderForgotten(SeesItself):
    """The pixels are read in raster order, whatever the model's."""

    def call(self, images):
        x = tf.reshape(images, (-1, len(self.order)))
        weights = map(tf.convert_to_tensor, (self.input_kernel, self.output_kernel, self.hidden_bias))
        return self._out(nade.hidden_logits(x, *weights))


class Probabilities(NADE):
    """Probabilities where logits are expected, as pytorch-generative's NADE feeds them to its loss."""

    def call(self, images):
        return tf.sigmoid(super().call(images))


class Saturated(NADE):
    """Probabilities kept from 0 and 1, as the authors' code does."""

    def call(self, images):
        chance = tf.clip_by_value(tf.sigmoid(super().call(images)), 5e-5, 0.99995)
        return tf.math.log(chance) - tf.math.log1p(-chance)


# The recurrence and its gradient.


def plainly(x, w, v, c):
    """The recurrence by automatic differentiation, all D states of a picture kept."""
    a = tf.cumsum(x[:, :, None] * w, axis=1, exclusive=True) + c
    return tf.einsum("bdu,du->bd", tf.sigmoid(a), v)


def numbers(size, hidden=5, count=7, ones=0.3):
    """x [B, D], w, v, c in float64."""
    generator = np.random.default_rng(size)
    x = (generator.random((count, size)) < ones).astype("float64")
    shapes = (size, hidden), (size, hidden), (hidden,)
    return [tf.constant(array) for array in (x, *(generator.normal(size=shape) for shape in shapes))]


def value_and_gradients(function, x, *weights):
    with tf.GradientTape() as tape:
        tape.watch(weights)
        logits = function(x, *weights)
        # Another weight for each logit, so that no two mistakes cancel.
        value = tf.reduce_sum(logits * np.random.default_rng(0).normal(size=logits.shape))
    return [logits, *tape.gradient(value, weights)]


@pytest.mark.parametrize("ones", [0.0, 0.15, 0.5, 1.0])
@pytest.mark.parametrize(("size", "block"), [(1, 16), (3, 16), (16, 16), (17, 16), (23, 5), (12, 4), (12, 1), (9, 9)])
def test_the_gradient_is_that_of_automatic_differentiation(size, block, ones):
    inputs = numbers(size, ones=ones)
    found = value_and_gradients(lambda *inputs: nade.hidden_logits(*inputs, block=block), *inputs)
    for one, other in zip(found, value_and_gradients(plainly, *inputs), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_the_gradient_is_that_of_finite_differences():
    x, *weights = numbers(23)
    _, *gradients = value_and_gradients(nade.hidden_logits, x, *weights)
    upstream, step = np.random.default_rng(0).normal(size=x.shape), 1e-6
    value = lambda weights: np.sum(nade.hidden_logits(x, *weights) * upstream)
    for position, gradient in enumerate(gradients):
        direction = np.random.default_rng(position).normal(size=gradient.shape)
        moved = [list(weights), list(weights)]
        moved[0][position], moved[1][position] = (weights[position] + sign * step * direction for sign in (1, -1))
        slope = (value(moved[0]) - value(moved[1])) / (2 * step)
        np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=1e-7)


def test_pixels_of_any_value_are_computed_rightly():
    _, *weights = numbers(23)
    x = tf.constant(np.random.default_rng(0).normal(size=(4, 23)))
    for one, other in zip(
        value_and_gradients(nade.hidden_logits, x, *weights), value_and_gradients(plainly, x, *weights)
    ):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_no_pictures_have_no_logits_and_no_gradient():
    _, *weights = numbers(20)
    logits, *gradients = value_and_gradients(nade.hidden_logits, tf.zeros((0, 20), "float64"), *weights)
    assert logits.shape == (0, 20)
    assert not any(np.any(gradient) for gradient in gradients)


def test_a_state_is_made_at_the_start_of_a_block_and_behind_every_pixel_that_is_on():
    picture, before, seen = nade._states(tf.constant([[0.0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 0, 0]]))
    np.testing.assert_array_equal(picture, [0, 0, 1, 2, 2, 2])
    np.testing.assert_array_equal(
        before, [[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0]]
    )
    np.testing.assert_array_equal(
        seen, [[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]]
    )


def by_the_paper(model, images):
    """Logits by the recurrence, pixel after pixel, in NumPy and float64."""
    w, c, v, b = (np.asarray(weight, "float64") for weight in model.get_weights())
    flat, logits = images.reshape(len(images), -1), np.zeros((len(images), len(b)))
    for image, row in zip(flat, logits):
        a = c.copy()
        for d, place in enumerate(model.order):
            row[place] = b[d] + v[d] @ special.expit(a)
            a += w[d] * image[place]
    return logits.reshape(images.shape)


def test_logits_are_those_of_the_papers_recurrence(model):
    images = dependency.pictures(5, model.image_shape)
    expected = by_the_paper(model, images)
    np.testing.assert_allclose(model(images), expected, atol=1e-4)
    chances = special.expit(np.where(images == 1, expected, -expected))
    np.testing.assert_allclose(model.log_prob(images), np.log(chances).sum(axis=(1, 2, 3)), atol=1e-4)


@pytest.mark.parametrize("fault", [SeesItself, OrderForgotten, Probabilities])
def test_other_logits_are_not_those_of_the_paper(fault):
    model, images = random_model((3, 4, 1), "spiral", fault), dependency.pictures(5, (3, 4, 1))
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        np.testing.assert_allclose(model(images), by_the_paper(model, images), atol=1e-4)


# The density.


def test_a_flipped_pixel_moves_all_later_logits_and_no_other(model):
    matrix = dependency.flipped(model, dependency.pictures(2, model.image_shape), model.order)
    dependency.check_sees_no_later_value(matrix)
    dependency.check_sees(matrix, np.tri(len(matrix), k=-1, dtype=bool))


@pytest.mark.parametrize("fault", [SeesItself, OrderForgotten])
def test_a_leak_is_seen(fault):
    model = random_model((3, 4, 1), "spiral", fault)
    with pytest.raises(AssertionError, match="depend on themselves or later ones"):
        dependency.check_sees_no_later_value(dependency.flipped(model, dependency.pictures(2, (3, 4, 1)), model.order))


@pytest.mark.parametrize(("shape", "ordering"), CASES[:4], ids=str)
def test_the_probabilities_of_all_pictures_sum_to_one(shape, ordering):
    dependency.check_sums_to_one(random_model(shape, ordering))


def test_a_leak_does_not_sum_to_one():
    with pytest.raises(AssertionError):
        dependency.check_sums_to_one(random_model(kind=SeesItself))


def test_what_is_recorded_while_drawing_is_the_log_probability(model):
    dependency.check_what_is_recorded_is_the_log_probability(model)


@pytest.mark.parametrize("fault", [SeesItself, OrderForgotten, Probabilities, Saturated])
def test_a_fault_draws_from_another_density_than_it_scores(fault):
    model = random_model((3, 4, 1), "spiral", fault, scale=40.0)
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


# Training, numbers, files.


def test_a_step_moves_the_weights_as_automatic_differentiation_would(model):
    images = dependency.pictures(6, model.image_shape)
    x = pixel_order.flatten(images, model.order)
    weights = model.input_kernel, model.output_kernel, model.hidden_bias, model.bias
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x=images, y_pred=model(images))
    with tf.GradientTape() as plain:
        w, v, c, b = map(tf.convert_to_tensor, weights)
        other = tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=plainly(x, w, v, c) + b)
        other = tf.reduce_mean(tf.reduce_sum(other, axis=1))
    np.testing.assert_allclose(loss, other, rtol=1e-5)
    variables = [weight.value for weight in weights]
    for one, same in zip(tape.gradient(loss, variables), plain.gradient(other, variables), strict=True):
        np.testing.assert_allclose(one, same, rtol=1e-4, atol=1e-5)


def test_the_loss_is_minus_the_log_probability_in_nats_per_picture():
    model, images = random_model(), dependency.pictures(6, (3, 4, 1))
    model.compile()
    found, nll = model.evaluate(images, verbose=0, return_dict=True), -np.mean(model.log_prob(images))
    np.testing.assert_allclose([found["loss"], found["nll"]], nll, rtol=1e-5)
    np.testing.assert_allclose(found["bits_per_dim"], nll / np.log(2) / 12, rtol=1e-5)


def test_adapt_starts_at_the_mean_of_every_pixel():
    model, images = NADE((3, 4, 1), 7, "spiral"), dependency.pictures(50, (3, 4, 1))
    images[:, 0, 0] = 0
    model.output_kernel.assign(tf.zeros_like(model.output_kernel))
    model.adapt(images)
    expected = special.logit((images.sum(axis=0) + 0.5) / 51)
    np.testing.assert_allclose(model(images), np.broadcast_to(expected, images.shape), atol=1e-5)


def test_extreme_logits_have_finite_likelihoods_and_gradients():
    model, images = random_model(scale=1e6), dependency.pictures(20, (3, 4, 1))
    with tf.GradientTape() as tape:
        log_prob = explicit_density.log_likelihood(model(images), images, 2)
    assert np.min(log_prob) < -1e5  # a saturated probability would end at a floor
    for found in (log_prob, *tape.gradient(log_prob, model.trainable_variables)):
        assert np.isfinite(found).all()


def test_saturated_probabilities_have_a_floor():
    model, images = random_model(kind=Saturated, scale=1e6), dependency.pictures(20, (3, 4, 1))
    assert np.min(model.log_prob(images)) > -12 * 9.91  # log 5e-5 a pixel, whatever the model says


def test_mixed_precision_keeps_sums_and_logits_in_float32(model):
    images = dependency.pictures(3, model.image_shape)
    mixed = NADE(model.image_shape, 7, model.ordering, dtype="mixed_bfloat16")
    mixed.set_weights(model.get_weights())
    np.testing.assert_array_equal(mixed.log_prob(images), model.log_prob(images))
    np.testing.assert_array_equal(mixed.sample(3, seed=0), model.sample(3, seed=0))


@pytest.mark.parametrize("ordering", ["spiral", "random:5", [3, 1, 0, 2, 5, 4]])
def test_a_saved_model_keeps_its_order(ordering, tmp_path):
    model, images = random_model((2, 3, 1), ordering), dependency.pictures(4, (2, 3, 1))
    model.save(tmp_path / "model.keras")
    loaded = dmkeras.load(tmp_path / "model.keras")
    assert type(loaded) is NADE
    assert loaded.get_config() == model.get_config()
    np.testing.assert_array_equal(loaded.order, pixel_order.permutation(ordering, (2, 3, 1)))
    np.testing.assert_array_equal(loaded.log_prob(images), model.log_prob(images))


def test_no_gradient_reaches_the_images():
    model, images = random_model(), tf.constant(dependency.pictures(3, (3, 4, 1)))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(images)
        logits, log_prob = model(images), model.log_prob(images)
    assert tape.gradient(logits, images) is None
    assert tape.gradient(log_prob, images) is None


# What is refused.


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
    model, known = random_model(), np.ones((2, 3, 4, 1))
    model.compile()
    ways = (model.log_prob, model.adapt, model.fit, model.evaluate, lambda images: model.complete(images, known))
    for way in ways:
        with pytest.raises(ValueError, match=message):
            way(images)
    with pytest.raises(ValueError, match="received none"):
        model.adapt(np.zeros((0, 3, 4, 1)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_shape": (3, 3)}, "image_shape must be"),
        ({"hidden_size": 0}, "hidden_size must be a whole number, at least 1; received 0"),
        ({"hidden_size": (500, 500)}, r"hidden_size must be .* received \(500, 500\)"),
        (
            {"ordering": "zigzag"},
            "ordering must be one of raster, column, spiral, random, random:SEED, or a permutation",
        ),
        ({"ordering": [0, 1, 2]}, r"ordering must be a permutation of 0 \.\. 11, received \[0 1 2\]"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        NADE(**{"image_shape": (3, 4, 1), "hidden_size": 7, **arguments})
