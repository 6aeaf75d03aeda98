"""What backbones without a recipe of their own owe: reloading, endpoints, doors, training; and the file of weights."""

import inspect
import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import dmkeras
from dmkeras.backbones.small_cnn import SmallCNN
from tests import contract
from tests.serving import refusals
from tests.test_documents import table_faults

VGG_SMALL = {"num_classes": 4, "image_shape": (33, 40, 3), "filters": 2, "units": 5}
MODELS = {
    "squeezenet": lambda: dmkeras.SqueezeNet("1.1", num_classes=4, image_shape=(18, 21, 3), dropout=0.1),
    "vgg16": lambda: dmkeras.VGG(**VGG_SMALL),
    "vgg19_average_no_head": lambda: dmkeras.VGG(
        19, **{**VGG_SMALL, "num_classes": None, "dropout": 0.1}, pooling="average"
    ),
}


def pictures(model, count=3, seed=0):
    return np.random.default_rng(seed).random((count, *model.image_shape)).astype("float32")


@pytest.fixture(scope="module", params=MODELS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """({name: model}, {name: its answers}, {name: what was asked}, the folder with those of one fresh process)."""
    folder, models = tmp_path_factory.mktemp("backbones"), {name: make() for name, make in MODELS.items()}
    feeds, answers = {}, {}
    for name, model in models.items():
        for weight in model.weights:
            if "bias" in weight.path:
                weight.assign(np.random.default_rng(1).normal(0, 0.1, weight.shape))
        feeds[name] = contract.requests(model, pictures(model))
        answers[name] = contract.check_answers(model, feeds[name])
        contract.save(model, feeds[name], folder, name)
    contract.reload(folder)
    return models, answers, feeds, folder


def test_a_fresh_process_reloads_the_model_bit_for_bit(name, served):
    _, answers, _, folder = served
    contract.check_reloaded(answers[name], folder, name)


def test_every_endpoint_of_the_saved_model_answers_as_the_model_does(name, served, tmp_path):
    models, answers, feeds, _ = served
    version = dmkeras.export(models[name], tmp_path / name)
    contract.check_endpoints(answers[name], feeds[name], version)
    refusals.check(pathlib.Path(version))


def test_a_system_names_its_paper_its_call_and_its_signatures(name, served):
    model = served[0][name]
    assert re.search(r"https://arxiv\.org/\S+", inspect.getmodule(type(model)).__doc__)
    assert re.search(r"^Call: .*`\[B, .*\]`.*->", inspect.getdoc(type(model)), re.MULTILINE)
    signatures = {}
    for key, (function, specs) in model.signatures().items():
        outputs = tf.function(function, autograph=False).get_concrete_function(*specs).structured_outputs
        signatures[key] = ({spec.name: spec for spec in specs}, outputs)
    if "no_head" in name:  # the table tells of the classifier
        assert list(signatures) == ["serving_default"]
        assert signatures["serving_default"][1]["features"].shape.as_list() == [None, 1, 1, 16]
    else:
        assert not table_faults(inspect.getdoc(type(model)), signatures)


def test_the_endpoint_answers_the_calls_logits_and_their_softmax(name, served):
    model = served[0][name]
    images = pictures(model)
    found = model.signatures()["serving_default"][0](tf.constant(images))
    if "no_head" in name:
        np.testing.assert_allclose(found["features"], model.features(images)["pool5"], rtol=1e-5)
        np.testing.assert_allclose(found["features"].numpy().mean(axis=(1, 2)), model(images), rtol=1e-5, atol=1e-6)
        return
    np.testing.assert_allclose(found["logits"], model(images), rtol=1e-5)
    logits = np.float64(found["logits"])  # hundreds, some, of weights by chance
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(found["probabilities"], powers / powers.sum(axis=1, keepdims=True), rtol=1e-4, atol=1e-6)


def test_an_answer_is_of_its_picture_alone_and_features_are_those_of_the_call(name, served):
    model = served[0][name]
    images = pictures(model, 4, 2)
    whole = model(images).numpy()
    np.testing.assert_allclose([model(image[None])[0] for image in images], whole, rtol=1e-3, atol=1e-4)
    seen = keras.tree.map_structure(lambda maps: maps[:1], model.features(images))
    for key, maps in model.features(images[:1]).items():
        np.testing.assert_allclose(maps, seen[key], rtol=1e-3, atol=1e-3 * np.abs(seen[key]).max())


def test_a_compiled_call_gives_the_same(name, served):
    model = served[0][name]
    images = tf.constant(pictures(model))
    compiled = tf.function(model.__call__, jit_compile=True, autograph=False)(images)
    np.testing.assert_allclose(compiled, model(images), rtol=1e-3, atol=1e-4)


def test_training_leaves_values_out_and_moves_every_weight(name, served):
    keras.utils.set_random_seed(0)
    model = MODELS[name]()
    images, labels = pictures(model, 6), np.array([0, 1, 2, 3, 0, 1])
    if "no_head" in name:
        model.compile("sgd", jit_compile=False)
        with pytest.raises(ValueError, match="received convolutions alone; give num_classes"):
            model.fit(images, labels, verbose=0)
        return
    assert np.abs(model(images, training=True) - model(images)).max() > 1e-3
    before = model.get_weights()
    model.compile(keras.optimizers.Adam(1e-4), jit_compile=False)
    first = model.evaluate(images, labels, verbose=0, return_dict=True)
    logits = np.float64(model(images))
    nats = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1) - logits[range(6), labels]
    np.testing.assert_allclose(first["loss"], nats.mean(), rtol=1e-4)
    np.testing.assert_allclose(first["accuracy"], (logits.argmax(1) == labels).mean(), rtol=1e-6)
    model.fit(images, labels, epochs=8, verbose=0)
    still = [w.path for w, was in zip(model.weights, before, strict=True) if np.array_equal(w, was)]
    assert not still
    assert model.evaluate(images, labels, verbose=0, return_dict=True)["loss"] < first["loss"]


def test_bad_pictures_and_labels_are_refused(name, served):
    model = served[0][name]
    model.compile("sgd", jit_compile=False)
    images, labels = pictures(model), np.array([0, 1, 2])
    doors = [model.features, *([lambda x: model.evaluate(x, labels)] if model.num_classes else [])]
    for bad, message in (
        (255 * images, "divide 8-bit pixels by 255"),
        (images[..., :1], r"expected images \[B, \d+, \d+, 3\], received"),
        (images[:, :12], "expected (pictures of at least|images)"),
    ):
        for door in doors:
            with pytest.raises(ValueError, match=message):
                door(bad)
    if model.num_classes:
        for door in (model.fit, model.evaluate):
            with pytest.raises(ValueError, match="expected labels from 0 to 3, received 1 to 4"):
                door(images, np.array([1, 2, 4]), verbose=0)


def test_logits_are_float32_in_other_arithmetic_too_and_float64_where_that_is_asked(name):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = MODELS[name]()
    finally:
        keras.config.set_dtype_policy(policy)
    found = model.features(pictures(model))
    assert {maps.dtype for maps in found.values()} == {tf.bfloat16}
    assert model(pictures(model)).dtype == "float32"


# --- SmallCNN's endpoints ---------------------------------------------------------------------------------------------


def test_the_small_ones_endpoints_and_loss():
    model = SmallCNN((8, 6, 1), 3, filters=2, seed=0)
    images, labels = pictures(model, 5), np.array([0, 2, 1, 1, 0])
    found = model.signatures()["serving_default"][0](tf.constant(images))
    np.testing.assert_allclose(found["logits"], model(images), rtol=1e-5)
    model.compile("sgd")
    logits = np.float64(model(images))
    nats = np.log(np.exp(logits).sum(axis=1)) - logits[range(5), labels]
    scores = model.evaluate(images, labels, verbose=0, return_dict=True)
    np.testing.assert_allclose(scores["loss"], nats.mean(), rtol=1e-5)
    np.testing.assert_allclose(scores["accuracy"], (logits.argmax(1) == labels).mean(), rtol=1e-6)
    with pytest.raises(ValueError, match="expected labels from 0 to 2, received 0 to 3"):
        model.fit(images, labels + (labels == 2), verbose=0)
    assert list(SmallCNN((8, 6, 2), 3, filters=2).signatures()) == ["serving_default"]  # files have 1 or 3 colours
