"""What a look into a classifier owes: its logits and its layers, however it is written, or an error with a remedy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from dmkeras.backbones.small_cnn import SmallCNN
from dmkeras.parts import explained

RNG = np.random.default_rng(0)
SHAPE = (6, 5, 2)
IMAGES = RNG.random((3, *SHAPE), "float32")


def spread(model):
    """Weights large enough that a softmax is far from its logits."""
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(0, 1, w.shape) for w in model.get_weights()])
    return model


def sequential(*ends, shape=SHAPE, outputs=4):
    stack = [layers.Conv2D(3, 2, activation="relu", name="first"), layers.Flatten(), layers.Dense(outputs, name="last")]
    return spread(keras.Sequential([keras.Input(shape), *stack, *ends], name="net"))


class Subclassed(keras.Model):
    """Without a functional graph; `end` is what stands behind its logits."""

    image_shape = SHAPE

    def __init__(self, end=lambda answers: answers, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Conv2D(3, 2, activation="relu", name="first")
        self.last, self.end = layers.Dense(4, name="last"), end
        self(keras.Input(SHAPE))
        spread(self)

    def call(self, images):
        return self.end(self.last(ops.reshape(self.first(images), (-1, 60))))


def logits_of(model, images=IMAGES):
    return tf.function(lambda images: explained.logits(model, images), autograph=False)(tf.constant(images))


def seen(model, names, images=IMAGES):
    look = lambda images: explained.activations(model, images, names)
    return tf.function(look, autograph=False)(tf.constant(images))


def of_numpy(model):
    """The logits of the models above, by hand."""
    kernel, bias, dense, offset = (w.astype("float64") for w in model.get_weights())
    maps = np.zeros((3, 5, 4, 3)) + bias
    for row in range(2):
        for column in range(2):
            maps += IMAGES[:, row : row + 5, column : column + 4] @ kernel[row, column]
    return np.maximum(maps, 0).reshape(3, -1) @ dense + offset


# --- pictures and classes -------------------------------------------------------------------------------------------


def test_the_pictures_of_a_classifier_have_its_own_shape_or_the_one_given():
    any_size = keras.Sequential([keras.Input((None, 9, 3)), layers.GlobalAveragePooling2D()])
    bare = keras.Sequential([layers.Dense(2)])
    assert explained.picture_shape(sequential()) == SHAPE
    assert explained.picture_shape(Subclassed()) == SHAPE
    assert explained.picture_shape(sequential(), list(SHAPE)) == SHAPE
    assert explained.picture_shape(any_size, tuple(np.array([12, 9, 3]))) == (12, 9, 3)
    assert explained.picture_shape(bare, (12, 9, 3)) == (12, 9, 3)
    for model, shape, words in (
        (any_size, None, "of one size, received Sequential of \\(None, 9, 3\\); give image_shape="),
        (bare, None, "an unknown shape"),
        (any_size, (12, 8, 3), r"takes pictures of \(None, 9, 3\), received image_shape \(12, 8, 3\)"),
        (sequential(), (6, 5, 3), "received image_shape"),
        (sequential(), (6, 5), "image_shape must be"),
        (keras.Sequential([keras.Input((4,)), layers.Dense(2)]), None, r"of one size, received Sequential of \(4,\)"),
        (keras.Sequential([keras.Input((4,)), layers.Dense(2)]), SHAPE, r"takes pictures of \(4,\)"),
        (lambda images: images, None, "expected a keras.Model that classifies pictures, received function"),
        (layers.Dense(3), None, "received Dense"),
    ):
        with pytest.raises(ValueError, match=words):
            explained.picture_shape(model, shape)


def test_a_classifier_of_several_inputs_is_refused_and_runs_once_they_are_fixed():
    picture, other = keras.Input(SHAPE, name="picture"), keras.Input((2,), name="other")
    both = keras.Model([picture, other], layers.Dense(4)(layers.Concatenate()([layers.Flatten()(picture), other])))
    words = r"one input, the picture, received one of 2 inputs, \[None, 6, 5, 2\] and \[None, 2\]; fix the others: pict"
    with pytest.raises(ValueError, match=words) as told:
        explained.picture_shape(both)
    assert "0 * keras.ops.mean(picture, (1, 2, 3))[:, None] + values" in str(told.value)
    values = np.full(2, 0.5, "float32")
    fixed = keras.Model(picture, both([picture, 0 * keras.ops.mean(picture, (1, 2, 3))[:, None] + values]))
    assert explained.picture_shape(fixed) == SHAPE
    right = both([IMAGES, np.full((3, 2), 0.5, "float32")])
    np.testing.assert_allclose(logits_of(fixed), right, rtol=1e-5)


def test_a_classifier_of_several_answers_is_refused():
    picture = keras.Input(SHAPE)
    flat = layers.Flatten()(picture)
    two = keras.Model(picture, [layers.Dense(4)(flat), layers.Dense(2)(flat)])
    with pytest.raises(ValueError, match=r"one answer, received list of 2; take one: keras.Model\(classifier.input"):
        explained.num_classes(two, SHAPE)
    assert explained.num_classes(keras.Model(two.input, two.output[1]), SHAPE) == 2


def test_the_number_of_classes_is_that_of_the_answers():
    assert explained.num_classes(sequential(), SHAPE) == 4
    assert explained.num_classes(sequential(outputs=1), SHAPE) == 1
    assert explained.num_classes(sequential(layers.Softmax()), SHAPE) == 4
    maps = keras.Sequential([keras.Input(SHAPE), layers.Conv2D(4, 2)])
    with pytest.raises(ValueError, match=r"-> \[B, K\], received answers \(None, 5, 4, 4\); end it in pooling"):
        explained.num_classes(maps, SHAPE)
    some = lambda answers: tf.boolean_mask(answers, tf.reduce_any(answers != 0, 0), axis=1)
    with pytest.raises(ValueError, match=r"received answers \(None, None\); end it in"):
        explained.num_classes(Subclassed(some), SHAPE)


# --- logits ---------------------------------------------------------------------------------------------------------

by_hand = lambda answers: ops.exp(answers) / ops.sum(ops.exp(answers), -1, keepdims=True)
ENDS = {
    "none": (),
    "softmax layer": (layers.Softmax(),),
    "softmax": (layers.Activation("softmax"),),
    "log_softmax": (layers.Activation("log_softmax"),),
    "sigmoid": (layers.Activation("sigmoid"),),
    "softmax, then a shape": (layers.Softmax(), layers.Reshape((2, 2)), layers.Flatten()),
    "softmax, then a dtype": (layers.Softmax(), layers.Activation("linear", dtype="float64")),
    "dropout": (layers.Dropout(0.5), layers.Softmax()),
}


@pytest.mark.parametrize("end", ENDS)
def test_logits_are_what_goes_into_a_closing_softmax(end):
    model = sequential(*ENDS[end])
    right = of_numpy(model)
    assert right.min() < -2 < 2 < right.max()
    np.testing.assert_allclose(logits_of(model), right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "log_softmax", None])
def test_a_softmax_may_stand_in_the_last_layer_or_in_a_model_within_a_model(activation):
    inner = sequential()
    last = spread(keras.Sequential([keras.Input(SHAPE), *inner.layers[:-1], layers.Dense(4, activation)]))
    picture = keras.Input(SHAPE)
    outer = keras.Model(picture, layers.Dropout(0.5)(last(picture)))
    right = of_numpy(last)
    for model in (last, outer, keras.Sequential([keras.Input(SHAPE), outer])):
        np.testing.assert_allclose(logits_of(model), right, rtol=1e-4, atol=1e-5)
        assert explained.num_classes(model, SHAPE) == 4


def squeezed(answers):
    return tf.squeeze(tf.reshape(tf.nn.softmax(answers), (-1, 1, 1, 4)), (1, 2))


def stopped(answers):
    return tf.stop_gradient(tf.nn.softmax(answers))


@pytest.mark.parametrize(
    "end",
    [tf.nn.softmax, ops.softmax, ops.log_softmax, tf.nn.sigmoid, lambda answers: answers, squeezed, stopped],
)
def test_a_subclassed_call_may_end_in_a_softmax(end):
    model = Subclassed(end)
    np.testing.assert_allclose(logits_of(model), of_numpy(model), rtol=1e-4, atol=1e-5)


def test_a_softmax_within_is_no_closing_one():
    model = sequential(layers.Softmax(), layers.Rescaling(3.0, -1.0))
    probabilities = np.exp(of_numpy(model))
    right = 3 * probabilities / probabilities.sum(-1, keepdims=True) - 1
    np.testing.assert_allclose(logits_of(model), right, rtol=1e-4, atol=1e-5)
    assert explained.num_classes(model, SHAPE) == 4


def pairs(answers):
    return tf.reshape(tf.nn.softmax(tf.reshape(answers, (-1, 2, 2))), (-1, 4))


def whole(answers):
    return tf.cast(tf.cast(tf.nn.softmax(answers), "int32"), "float32")


@pytest.mark.parametrize("end", [pairs, whole])
def test_a_softmax_of_other_things_than_the_classes_is_no_closing_one(end):
    model = Subclassed(end)
    np.testing.assert_array_equal(logits_of(model), model(IMAGES))
    assert explained.num_classes(model, SHAPE) == 4


def test_answers_that_only_look_like_probabilities_are_logits():
    """They sum to one, but some are below zero; or there is but one of them, and it is one."""
    centred = Subclassed(lambda answers: answers - ops.mean(answers, -1, keepdims=True) + 0.25)
    np.testing.assert_allclose(np.sum(centred(IMAGES), 1), 1, atol=1e-5)
    assert explained.num_classes(centred, SHAPE) == 4
    sure = sequential(outputs=1)
    sure.set_weights([0 * weight for weight in sure.get_weights()[:-1]] + [np.ones(1)])
    assert explained.num_classes(sure, SHAPE) == 1


@pytest.mark.parametrize("end", [by_hand, tf.function(tf.nn.softmax, autograph=False)])
def test_a_softmax_out_of_sight_is_refused(end):
    with pytest.raises(ValueError, match=r"are probabilities, and the softmax .* is out of sight"):
        explained.num_classes(Subclassed(end), SHAPE)


def test_mixed_and_double_precision_answer_in_float32_and_float64():
    for policy, dtype, rtol in (("mixed_bfloat16", "float32", 0.1), ("float64", "float64", 1e-12)):
        stack = [layers.Conv2D(3, 2, activation="relu", dtype=policy), layers.Flatten(dtype=policy)]
        head = [layers.Dense(4, dtype=policy), layers.Softmax(dtype=policy)]
        model = spread(keras.Sequential([keras.Input(SHAPE, dtype=dtype), *stack, *head]))
        found = logits_of(model, IMAGES.astype(dtype))
        assert found.dtype == dtype
        np.testing.assert_allclose(found, of_numpy(model), rtol=rtol, atol=rtol)


def test_logits_are_those_of_inference():
    model = sequential(layers.Dropout(0.9, name="dropped"))
    np.testing.assert_array_equal(logits_of(model), logits_of(model))
    np.testing.assert_allclose(seen(model, ["dropped"])["dropped"], of_numpy(model), rtol=1e-4, atol=1e-5)
    normal = keras.Sequential([keras.Input(SHAPE), layers.BatchNormalization(), layers.Flatten(), layers.Dense(2)])
    before = normal.get_weights()
    np.testing.assert_allclose(logits_of(normal), normal(IMAGES, training=False), rtol=1e-5, atol=1e-6)
    for was, now in zip(before, normal.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)


# --- layers ---------------------------------------------------------------------------------------------------------


def test_layers_answer_what_they_answer_in_the_model():
    model = sequential(layers.Softmax(name="end"))
    maps = keras.Model(model.inputs[0], [model.get_layer("first").output, model.get_layer("last").output])(IMAGES)
    found = seen(model, ["first", "last", "end"])
    assert set(found) == {"first", "last", "end"}
    np.testing.assert_allclose(found["first"], maps[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["last"], maps[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["end"], model(IMAGES), rtol=1e-5, atol=1e-6)


def test_layers_of_a_subclassed_model_are_found_without_a_graph_of_layers():
    model = Subclassed(tf.nn.softmax)
    assert explained.layer_names(model, SHAPE) == ["first", "last"]
    np.testing.assert_allclose(seen(model, ["last"])["last"], of_numpy(model), rtol=1e-4, atol=1e-5)


def test_layers_within_models_within_models_are_found_by_name_and_twins_by_path():
    picture = keras.Input(SHAPE)
    halves = [keras.Sequential([layers.Conv2D(2, 1, name="twin"), layers.ReLU(name=f"own_{n}")], name=n) for n in "ab"]
    answers = layers.Dense(3, name="last")(layers.Flatten(name="flat")(halves[1](halves[0](picture))))
    model = keras.Model(picture, answers)
    names = explained.layer_names(model, SHAPE)
    assert {"a/twin", "b/twin", "own_a", "own_b", "a", "b", "last"} <= set(names)
    assert "twin" not in names
    with pytest.raises(ValueError, match=r"no layer 'twin'; did you mean .*a/twin"):
        explained.check_layer(model, SHAPE, "twin")
    found = seen(model, ["a/twin", "b/twin", "own_b", "b"])
    first = halves[0].layers[0](IMAGES)
    np.testing.assert_allclose(found["a/twin"], first, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["b/twin"], halves[1].layers[0](tf.nn.relu(first)), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["own_b"], found["b"])


def test_features_of_a_classifier_count_as_layers_where_no_layer_has_the_name():
    model = SmallCNN((8, 8, 1), 3, 4, seed=0)
    names = explained.layer_names(model, (8, 8, 1))
    assert len(names) == len(set(names))
    assert {"stage_0", "stage_1", "features", "logits"} <= set(names)

    class Named(Subclassed):
        def features(self, images):
            maps = self.first(images)
            return {"first": 0.0 * maps, "brightness": ops.mean(images, axis=(1, 2)), "halved": 0.5 * maps}

    model = Named()
    assert explained.layer_names(model, SHAPE) == ["first", "last", "brightness", "halved"]
    assert explained.check_layer(model, SHAPE, "brightness") == "brightness"
    found = seen(model, ["brightness", "first"])
    assert set(found) == {"brightness", "first"}
    np.testing.assert_allclose(found["brightness"], IMAGES.mean((1, 2)), rtol=1e-5)
    assert found["first"].numpy().any()  # the layer, not the feature that goes by its name


def test_a_layer_that_is_not_there_is_refused_with_names_that_are_near():
    model = sequential()
    assert explained.check_layer(model, SHAPE, "first") == "first"
    how = r"dmkeras\.parts\.explained\.layer_names\(classifier, \(6, 5, 2\)\) tells all 4$"
    with pytest.raises(ValueError, match=r"^net has no layer 'frist'; did you mean first\? " + how):
        explained.check_layer(model, SHAPE, "frist")
    for far in ("qqqq", None, 3):
        with pytest.raises(ValueError, match=f"^net has no layer {far!r}; {how}"):
            explained.check_layer(model, SHAPE, far)
    assert explained.layer_names(model, SHAPE) == [layer.name for layer in model._flatten_layers(include_self=False)]


def test_a_layer_that_is_asked_twice_or_never_or_answers_a_pair_is_refused():
    picture = keras.Input(SHAPE, name="picture")
    shared = layers.Dense(2, name="shared")
    twice = keras.Model(picture, layers.Flatten()(shared(shared(picture))))
    with pytest.raises(ValueError, match=r"'shared' is asked 2 times for a picture .* name the layer before or after"):
        seen(twice, ["shared"])
    with pytest.raises(ValueError, match="'picture' is asked 0 times"):
        seen(twice, ["picture"])

    class Pair(layers.Layer):
        def call(self, images):
            return images, images

    pair = keras.Model(picture, layers.Flatten()(Pair(name="pair")(picture)[0]))
    with pytest.raises(ValueError, match=r"'pair' is asked 1 times for a picture and answers \['tuple'\]"):
        seen(pair, ["pair"])


def test_a_look_leaves_the_layers_as_they_were():
    model, calls = sequential(), []
    first, own = model.get_layer("first"), layers.Conv2D.call
    seen(model, ["first"])
    assert "call" not in vars(first)

    class Breaks(layers.Layer):
        broken = False

        def call(self, images):
            calls.append(images)
            if Breaks.broken:
                raise RuntimeError("broken on purpose")
            return images

    picture = keras.Input(SHAPE)
    breaks = Breaks(name="breaks")
    model = keras.Model(picture, layers.Flatten()(breaks(first(picture))))
    Breaks.broken = True
    with pytest.raises(RuntimeError, match="broken on purpose"):
        seen(model, ["first", "breaks"])
    assert "call" not in vars(first)
    assert "call" not in vars(breaks)
    assert layers.Conv2D.call is own
    Breaks.broken = False
    assert first(IMAGES).shape == (3, 5, 4, 3)
    np.testing.assert_allclose(model(IMAGES), tf.reshape(first(IMAGES), (3, -1)), rtol=1e-6)


def test_a_look_at_another_size_leaves_the_model_made_for_its_own():
    inner = sequential()
    picture = keras.Input(SHAPE)
    model, larger = keras.Model(picture, inner(picture)), RNG.random((1, 9, 9, 2), "float32")
    look = lambda images: explained.activations(model, images, ["first"], any_size=True)
    assert tf.function(look, autograph=False)(tf.constant(larger))["first"].shape == (1, 8, 8, 3)
    for part in (model, inner):
        with pytest.raises(ValueError, match=r"incompatible|expected shape"):
            part(larger)


def test_gradients_reach_the_picture_through_a_layer():
    model = sequential()

    def ask(images):
        return tf.gradients(explained.activations(model, images, ["first"])["first"][..., 1], images)[0]

    found = tf.function(ask, autograph=False)(tf.constant(IMAGES))
    with tf.GradientTape() as tape:
        images = tf.constant(IMAGES)
        tape.watch(images)
        values = model.get_layer("first")(images)[..., 1]
    np.testing.assert_allclose(found, tape.gradient(values, images), rtol=1e-5, atol=1e-6)
