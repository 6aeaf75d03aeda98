"""What the rules of rectifiers owe: their equations wherever a rectifier stands, or an error, and nothing else."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from dmkeras.parts.rectifiers import RULES, gradient

RNG = np.random.default_rng(0)
X = np.float32(np.append(RNG.uniform(-3, 9, (4, 60)), [[-1.0, 0.0, 0.5, 2.0]]).reshape(4, 61))
ABOVE = np.float32(RNG.normal(size=X.shape))  # dy


def asked(score, rule, images=X):
    return tf.function(lambda images: gradient(score, images, rule), autograph=False)(tf.constant(images))


def found(function, rule, images=X, above=ABOVE):
    """The gradient of sum(above * function(images))."""
    return asked(lambda images: tf.reduce_sum(above * function(images), -1), rule, images)[1].numpy()


def expected(rule, dy, x, cap=np.inf):
    inside = (x > 0) & (x < cap)
    return dy * {"vanilla": inside, "deconvnet": dy > 0, "guided": inside & (dy > 0)}[rule]


FORMS = {
    "layers.ReLU": layers.ReLU(),
    "activation": layers.Activation("relu"),
    "ops.relu": keras.ops.relu,
    "tf.nn.relu": tf.nn.relu,
    "maximum(x, 0)": lambda x: tf.maximum(x, 0.0),
    "maximum(0, x)": lambda x: tf.maximum(0.0, x),
    "ops.maximum": lambda x: keras.ops.maximum(x, 0),
    "maximum(x, zeros)": lambda x: tf.maximum(x, np.zeros((1, 61), "float32")),
}


# --- the equations --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("form", FORMS)
def test_a_rectifier_obeys_the_rule_however_it_is_written(form, rule):
    at_zero = (X == 0) & ("maximum" in form) & (rule == "vanilla")  # there TensorFlow's own choice between two equals
    right = expected(rule, ABOVE, X)
    np.testing.assert_array_equal(found(FORMS[form], rule)[~at_zero], right[~at_zero])
    others = [expected(other, ABOVE, X) for other in RULES if other != rule]
    assert not any(np.array_equal(right, other) for other in others)


@pytest.mark.parametrize("rule", RULES)
def test_a_rectifier_with_a_ceiling_passes_nothing_above_it(rule):
    six = layers.ReLU(max_value=6), tf.nn.relu6, layers.Activation("relu6"), keras.ops.relu6
    for form in six:
        np.testing.assert_array_equal(found(form, rule), expected(rule, ABOVE, X, cap=6))
    right = expected(rule, ABOVE, X, cap=2.5) * (X < 2.5)  # a rectifier, then a ceiling of its own
    np.testing.assert_array_equal(found(layers.ReLU(max_value=2.5), rule), right)


def networks(rng):
    """Weights of two dense layers."""
    return [np.float32(rng.normal(size=size)) for size in ((61, 20), (20,), (20, 15), (15,))]


@pytest.mark.parametrize("rule", RULES)
def test_a_network_of_two_rectifiers_agrees_with_numpy(rule):
    w1, b1, w2, b2 = networks(np.random.default_rng(1))
    above = np.float32(np.random.default_rng(2).normal(size=(4, 15)))
    network = lambda x: tf.nn.relu(tf.maximum(x @ w1 + b1, 0) @ w2 + b2)
    z1 = X @ w1 + b1
    z2 = np.maximum(z1, 0) @ w2 + b2
    right = expected(rule, expected(rule, above, z2) @ w2.T, z1) @ w1.T
    np.testing.assert_allclose(found(network, rule, above=above), right, rtol=1e-4, atol=1e-4)


def test_the_values_of_the_score_come_along():
    values, _ = asked(lambda images: tf.reduce_sum(tf.nn.relu(images), -1), "guided")
    np.testing.assert_allclose(values, np.maximum(X, 0).sum(-1), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("rule", RULES)
def test_other_precisions_obey_the_rule(rule, dtype):
    values = tf.cast(X, dtype)
    above = tf.cast(ABOVE, dtype)
    got = asked(lambda images: above * tf.nn.relu6(tf.nn.relu(images)), rule, values)[1]
    assert got.dtype == dtype
    x, dy = (tf.cast(each, "float64").numpy() for each in (values, above))
    np.testing.assert_array_equal(tf.cast(got, "float64"), expected(rule, expected(rule, dy, np.maximum(x, 0), 6), x))


# --- what is no rectifier -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_the_maximum_of_two_things_keeps_its_gradient(rule):
    other = np.float32(np.where(RNG.random((61,)) < 0.2, X[0], RNG.uniform(-3, 9, 61)))  # some are equal
    both = lambda images: tf.maximum(images, other) + tf.maximum(2.0 * other, images[:1]) + tf.nn.relu(images)
    takes = np.where(other <= X, ABOVE, 0)
    takes[0] += np.where(2.0 * other >= X[0], 0, ABOVE.sum(0))
    rectified = expected(rule, ABOVE, X)
    if rule == "vanilla":
        rectified[X == 0] = 0
    np.testing.assert_allclose(found(both, rule), takes + rectified, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_the_maximum_of_two_outcomes_of_the_picture_keeps_its_gradient(rule):
    column = lambda images: tf.reduce_mean(images, -1, keepdims=True)
    both = lambda images: tf.maximum(tf.maximum(images, column(images)), tf.nn.relu(images) - 100.0)
    larger = X.mean(-1, keepdims=True) >= X  # broadcast back: its gradient is summed
    strict = X.mean(-1, keepdims=True) > X
    right = np.where(strict, 0, ABOVE) + np.where(strict, ABOVE, 0).sum(-1, keepdims=True) / 61
    assert larger.any()
    np.testing.assert_allclose(found(both, rule), right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_of_two_equal_outcomes_one_alone_has_the_gradient(rule):
    both = lambda images: tf.maximum(images, tf.abs(images)) + 0.0 * tf.nn.relu(images)
    np.testing.assert_allclose(found(both, rule), np.where(X < 0, -ABOVE, ABOVE), rtol=1e-6)


@pytest.mark.parametrize("smooth", ["leaky_relu", "silu", "elu", "tanh", "linear"])
def test_a_network_without_rectifiers_has_the_vanilla_gradient_alone(smooth):
    layer = layers.Activation(smooth)
    assert np.isfinite(found(layer, "vanilla")).all()
    for rule in RULES[1:]:
        with pytest.raises(ValueError, match="this network has none; use the vanilla gradient"):
            found(layer, rule)


@pytest.mark.parametrize("rule", RULES)
def test_smooth_and_leaky_neighbours_keep_their_gradient(rule):
    function = lambda images: tf.nn.leaky_relu(tf.nn.relu(images) - 2.0, 0.3)
    slopes = np.where(np.maximum(X, 0) > 2.0, 1.0, np.float32(0.3))
    np.testing.assert_allclose(found(function, rule), expected(rule, slopes * ABOVE, X), rtol=1e-6)


# --- out of reach ---------------------------------------------------------------------------------------------------


@tf.custom_gradient
def custom(x):
    return tf.nn.relu(x), lambda dy: dy


def looped(x):
    return tf.while_loop(lambda i, _: i < 2, lambda i, x: (i + 1, tf.nn.relu(x)), (0, x), maximum_iterations=2)[1]


def nested(x):
    inner = tf.function(tf.nn.relu, autograph=False)
    return tf.function(lambda x: inner(x) + 1.0, autograph=False)(x)


HIDDEN = {
    "tf.function": (tf.function(tf.nn.relu, autograph=False), "inside of a tf.function or a loop"),
    "tf.function in a tf.function": (nested, "inside of a tf.function or a loop"),
    "maximum in a tf.function": (tf.function(lambda x: tf.maximum(x, 0.0), autograph=False), "inside of a tf.function"),
    "loop": (looped, "inside of a tf.function or a loop"),
    "condition": (lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: tf.nn.relu(x), lambda: x), "tf.function or a loop"),
    "custom gradient": (custom, "has a custom gradient"),
    "recomputed": (tf.recompute_grad(tf.nn.relu), "has a custom gradient"),
    "product": (lambda x: x * tf.cast(x > 0, x.dtype), "a product or a choice by sign"),
    "product, reversed": (lambda x: tf.cast(tf.less(0.0, x), x.dtype) * x, "a product or a choice by sign"),
    "choice": (lambda x: tf.where(x > 0, x, 0.0), "a product or a choice by sign"),
    "choice, reversed": (lambda x: tf.where(x <= 0, tf.zeros_like(x), x), "a product or a choice by sign"),
    "ops.where": (lambda x: keras.ops.where(keras.ops.greater(x, 0), x, 0), "a product or a choice by sign"),
}


@pytest.mark.parametrize("rule", RULES[1:])
@pytest.mark.parametrize("form", HIDDEN)
def test_a_rectifier_out_of_reach_is_refused_and_not_left_out(form, rule):
    hidden, words = HIDDEN[form]
    for function in (hidden, lambda x: hidden(tf.nn.relu(x) - 1.0), lambda x: tf.nn.relu(hidden(x) - 1.0)):
        with pytest.raises(ValueError, match=f"cannot reach every rectifier: .*{words}.*write it as keras.ops.relu"):
            found(function, rule)
    assert np.isfinite(found(hidden, "vanilla")).all()


def test_a_function_without_rectifiers_may_be_called():
    doubled = tf.function(lambda x: 2.0 * x, autograph=False)
    by_others = lambda x: tf.where(tf.reduce_mean(x) > 0, x, 0.5 * x) * tf.cast(x - 0.5 > 0, x.dtype)
    masked = lambda x: x * tf.cast(x > 1.0, x.dtype) + by_others(x)  # by no sign of its own
    got = found(lambda x: tf.nn.relu(doubled(x)) + 0.0 * masked(x), "guided")
    np.testing.assert_array_equal(got, expected("guided", ABOVE, X) * 2)


def test_a_rectifier_beside_the_way_is_of_no_matter():
    def score(images):
        tf.function(tf.nn.relu, autograph=False)(images)
        return ABOVE * tf.nn.relu(images)

    np.testing.assert_array_equal(asked(score, "guided")[1], expected("guided", ABOVE, X))


def test_rectifiers_that_made_the_picture_are_of_no_matter():
    made = lambda images: tf.nn.relu(tf.function(tf.nn.relu, autograph=False)(images))
    ask = lambda score: tf.function(lambda x: gradient(score, made(x), "guided")[1], autograph=False)(tf.constant(X))
    np.testing.assert_array_equal(ask(lambda x: ABOVE * tf.nn.relu(x)), expected("guided", ABOVE, X))
    with pytest.raises(ValueError, match="this network has none"):
        ask(lambda x: ABOVE * x)


def test_a_choice_among_whole_numbers_is_no_rectifier():
    """Such as the class of the highest logit where -1 was asked for."""

    def score(images, classes):
        values = tf.nn.relu(images)
        return tf.gather(values, tf.where(classes < 0, 7, classes), batch_dims=1)

    ask = lambda images, classes: gradient(lambda images: score(images, classes), images, "guided")[1]
    found = tf.function(ask, autograph=False)(tf.constant(X), tf.constant([-1, 0, 1, -5]))
    right = np.zeros_like(X)
    right[range(4), [7, 0, 1, 7]] = X[range(4), [7, 0, 1, 7]] > 0
    np.testing.assert_array_equal(found, right)


def test_a_score_that_does_not_depend_on_the_picture_is_refused():
    for rule in RULES:
        with pytest.raises(ValueError, match="does not depend on the picture"):
            asked(lambda images: tf.nn.relu(tf.constant(ABOVE)), rule)
    with pytest.raises(ValueError, match="rule must be one of vanilla, deconvnet, guided, received 'half'"):
        asked(tf.nn.relu, "half")


# --- what stays as it was -------------------------------------------------------------------------------------------


def test_rules_do_not_meet_one_another_in_a_graph():
    score = lambda images: ABOVE * tf.nn.relu(images)

    def all_of_them(images):
        first = tf.gradients(score(images), images)[0]
        ruled = [gradient(score, images, rule)[1] for rule in (*RULES, *RULES[::-1])]
        return first, *ruled, tf.gradients(score(images), images)[0]

    found = tf.function(all_of_them, autograph=False)(tf.constant(X))
    for values, rule in zip(found, ("vanilla", *RULES, *RULES[::-1], "vanilla"), strict=True):
        np.testing.assert_array_equal(values, expected(rule, ABOVE, X))


@pytest.mark.parametrize("rule", RULES)
def test_rules_hold_inside_of_loops(rule):
    score = lambda images: ABOVE[0] * tf.nn.relu(images)
    rows = lambda images: tf.map_fn(lambda row: gradient(score, row[None], rule)[1][0], images)
    turns = lambda images: tf.while_loop(lambda i, _: i < 3, lambda i, g: (i + 1, g + rows(images)), (0, 0.0 * images))
    got = tf.function(turns, autograph=False)(tf.constant(X))[1]
    np.testing.assert_allclose(got, 3 * expected(rule, np.tile(ABOVE[0], (4, 1)), X), rtol=1e-6)


@pytest.mark.parametrize("rule", RULES[1:])
def test_a_saved_model_of_a_ruled_gradient_holds_no_name_of_its_rule(rule, tmp_path):
    ask = functools.partial(gradient, lambda images: ABOVE * tf.nn.relu6(tf.maximum(images, 0.0)), rule=rule)
    module = tf.Module()
    spec = tf.TensorSpec((4, 61), "float32")
    module.ask = tf.function(lambda images: ask(images)[1], input_signature=[spec], autograph=False)
    concrete = module.ask.get_concrete_function()
    assert "dmkeras" not in str(concrete.graph.as_graph_def())
    tf.saved_model.save(module, str(tmp_path))
    assert b"dmkeras_" not in (tmp_path / "saved_model.pb").read_bytes()
    right = expected(rule, expected(rule, ABOVE, np.maximum(X, 0), 6), X)
    np.testing.assert_array_equal(tf.saved_model.load(str(tmp_path)).ask(tf.constant(X)), right)
