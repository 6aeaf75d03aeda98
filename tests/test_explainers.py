"""What all explanations of a classifier owe alike: their doors in Python, in the graph, and in files."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import dmkeras
from dmkeras.parts.explanation_doors import restored

SHAPE, K = (8, 6, 3), 5
RNG = np.random.default_rng(0)
IMAGES = RNG.random((2, *SHAPE), "float32")
MAKERS = {
    "Saliency": lambda net: dmkeras.Saliency(net),
    "Occlusion": lambda net: dmkeras.Occlusion(net, 4),
    "FoolingImage": lambda net: dmkeras.FoolingImage(net, max_steps=2),
    "GradientAscent": lambda net: dmkeras.GradientAscent(net, steps=2),
    "DeepDream": lambda net: dmkeras.DeepDream(net, "maps", octaves=1, steps=1, jitter=2),
    "FeatureSpace": lambda net: dmkeras.FeatureSpace(net, "maps", capacity=4, neighbours=1),
    "Filters": lambda net: dmkeras.Filters(net, "maps"),
    "MaximalPatches": lambda net: dmkeras.MaximalPatches(net, "maps", k=1),
}
OF_CLASSES = ("Saliency", "Occlusion", "FoolingImage", "GradientAscent")
OF_PICTURES = [name for name in MAKERS if name != "GradientAscent"]


@pytest.fixture(scope="module")
def net():
    keras.utils.set_random_seed(0)
    stack = [layers.Conv2D(4, 3, activation="relu", name="maps"), layers.Flatten(), layers.Dense(K, name="logits")]
    return keras.Sequential([keras.Input(SHAPE), *stack], name="net")


@pytest.fixture(scope="module")
def models(net):
    return {name: make(net) for name, make in MAKERS.items()}


def asked(models, name, classes, **named):
    """What a system answers in Python to classes by place, as arrays."""
    first = () if name == "GradientAscent" else (IMAGES,)
    return [values.numpy() for values in tf.nest.flatten(models[name](*first, classes, **named))]


def served(model, **given):
    """What `serving_default` answers, as arrays."""
    function, specs = model.signatures()["serving_default"]
    feed = {"images": IMAGES, "seed": np.zeros((2, 2), "int32"), **given}
    told = tf.function(function, specs, autograph=False)(*[tf.constant(feed[spec.name], spec.dtype) for spec in specs])
    return {name: values.numpy() for name, values in told.items()}


# --- classes and seeds of Python ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OF_CLASSES)
def test_classes_by_place_may_be_a_list_an_array_or_a_tensor(models, name):
    right = asked(models, name, tf.constant([3, 1]))
    for given in ([3, 1], (3, 1), np.array([3, 1])):
        for found, expected in zip(asked(models, name, given), right, strict=True):
            np.testing.assert_array_equal(found, expected)
    assert not all(np.array_equal(*pair) for pair in zip(asked(models, name, [3, 2]), right, strict=True))
    one = [3] if name == "GradientAscent" else [3, 3]
    for found, expected in zip(asked(models, name, 3), asked(models, name, one), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", OF_CLASSES)
@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ([9, 0], "expected classes from 0 to 4.* received 0 to 9"),
        ([0.5, 1.0], "of whole numbers"),
        ([0, -2], "received -2 to 0"),
    ],
)
def test_classes_by_place_that_there_are_not_are_refused_in_our_words(models, name, classes, words):
    with pytest.raises(ValueError, match=words):
        asked(models, name, classes)


@pytest.mark.parametrize("name", ["DeepDream", "GradientAscent"])
def test_a_seed_is_a_list_of_rows_or_one_number_or_refused(models, name):
    given = [0, 1] if name == "GradientAscent" else IMAGES
    ask = lambda *seed, **named: models[name](given, *seed, **named).numpy()
    np.testing.assert_array_equal(ask([[7, 0], [7, 1]]), ask(seed=7))
    np.testing.assert_array_equal(ask(None), ask(np.zeros((2, 2), "int32")))
    assert not np.array_equal(ask(7), ask(8))
    for seed, words in (
        ([[0, 0]], "a row of seed for each of 2 pictures, received 1"),
        ([0, 0, 0], r"seeds \[B, 2\] int32"),
        (-1, "seed must be from 0"),
    ):
        with pytest.raises(ValueError, match=words):
            ask(seed=seed)


# --- endpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OF_CLASSES)
def test_endpoints_take_the_nearest_class_for_one_that_there_is_not(models, name):
    classes = "target_classes" if name == "FoolingImage" else "classes"
    beyond = served(models[name], **{classes: [99, -9]})
    least = 0 if name == "GradientAscent" else -1
    for key, expected in served(models[name], **{classes: [K - 1, least]}).items():
        np.testing.assert_array_equal(beyond[key], expected)


@pytest.mark.parametrize("name", OF_PICTURES)
def test_endpoints_answer_pixels_outside_of_0_to_1_as_they_are_and_python_refuses_them(models, name):
    """The net is linear but for a rectifier: 255 times the pixels, 255 times the answers, and the same gradient."""
    model, given = models[name], {"classes": [3, 1], "target_classes": [3, 1]}
    with pytest.raises(ValueError, match="divide 8-bit pixels by 255"):
        model(255 * IMAGES)
    own, beyond = served(model, **given), served(model, images=255 * IMAGES, **given)
    assert all(np.isfinite(values).all() for values in beyond.values())
    if name in ("Filters", "FeatureSpace"):  # biases are 0
        for key, values in own.items():
            np.testing.assert_allclose(beyond[key], 255 * values, rtol=1e-4, atol=1e-4)
    elif name == "MaximalPatches":
        np.testing.assert_allclose(beyond["activations"], 255 * own["activations"], rtol=1e-4, atol=1e-4)
    if name == "Saliency":
        np.testing.assert_allclose(beyond["saliency"], own["saliency"], rtol=1e-4, atol=1e-5)
    else:
        assert not all(np.array_equal(beyond[key], own[key]) for key in own)


@pytest.mark.parametrize("name", MAKERS)
def test_docs_say_what_endpoints_do_where_python_refuses_and_what_a_file_needs(models, name):
    told = " ".join(type(models[name]).__doc__.split())
    assert "Endpoints cannot refuse as the call does: " in told
    assert name == "GradientAscent" or "pixels outside [0, 1] are taken as they are." in told
    assert name not in OF_CLASSES or "a class above K - 1 counts for K - 1, one below 0 for " in told
    assert "comes back from a file where that is registered (`keras.saving.register_keras_serializable`)" in told


# --- where they are made --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_making_one_inside_of_a_graph_is_refused(net, name):
    with pytest.raises(ValueError, match=r"make them outside of tf.function, and call them inside"):
        tf.function(lambda: MAKERS[name](net), autograph=False)()


class Unregistered(keras.Model):
    image_shape = SHAPE

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.maps, self.last = layers.Conv2D(4, 3, activation="relu", name="maps"), layers.Dense(3)
        self(keras.Input(SHAPE))

    def call(self, images):
        return self.last(keras.ops.mean(self.maps(images), (1, 2)))


@pytest.mark.parametrize("name", MAKERS)
def test_a_file_of_a_class_that_keras_does_not_know_says_what_to_do(name, tmp_path):
    path, model = tmp_path / "model.keras", MAKERS[name](Unregistered())
    model.save(path)
    with pytest.raises(ValueError, match=r"^Unregistered is a class that Keras does not know: put @keras.saving.regis"):
        dmkeras.load(path)
    with keras.saving.custom_object_scope({"Unregistered": Unregistered}):
        again = dmkeras.load(path)
    given = [0, 1] if name == "GradientAscent" else IMAGES
    for found, expected in zip(*(tf.nest.flatten(one(np.array(given))) for one in (again, model)), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_other_faults_of_a_config_are_told_as_they_are():
    dense = keras.saving.serialize_keras_object(layers.Dense(3))
    dense["config"].pop("units")
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'units'"):
        restored(dense)
