"""Laws of `export(compute=...)`: lower precision inside, float32 outside, likelihoods and the model as they were."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from dmkeras.serving import model_card, runtime
from dmkeras.serving.export import export
from dmkeras.serving.exporting import comparison, precision
from tests.serving.classifiers import KINDS, SHAPE, classifier, pictures
from tests.serving.models import IMAGE, OneEndpoint, mean
from tests.serving.test_frozen import meta_graph

LOWER = ("serving_default", "classify_bytes")


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """{compute: version} of one classifier; `.model`, which was asked before."""
    model = classifier()
    model.before = model(pictures()[0]).numpy()
    base = tmp_path_factory.mktemp("saved_models")
    found = {compute: export(model, base / "kinds", labels=KINDS, compute=compute) for compute in (None, "bfloat16")}
    found["frozen"] = export(model, base / "kinds", labels=KINDS, compute="float16", frozen=True)
    return model, found


def dtypes_of_convolutions(version, signature):
    """The dtypes in which the convolutions that a signature reaches compute."""
    graph_def = meta_graph(version).graph_def
    functions = {function.signature.name: function.node_def for function in graph_def.library.function}
    (output, *_) = meta_graph(version).signature_def[signature].outputs.values()
    nodes, found, seen = [node for node in graph_def.node if node.name == output.name.split(":")[0]], set(), set()
    while nodes:
        node = nodes.pop()
        if node.op == "Conv2D":
            found.add(tf.as_dtype(node.attr["T"].type).name)
        for value in node.attr.values():
            if value.func.name in functions and value.func.name not in seen:
                seen.add(value.func.name)
                nodes += functions[value.func.name]
    return found


def test_the_network_computes_lower_but_for_likelihoods(versions):
    _, found = versions
    for version, dtype in ((found[None], "float32"), (found["bfloat16"], "bfloat16"), (found["frozen"], "float16")):
        for name in (*LOWER, "classify"):
            assert dtypes_of_convolutions(version, name) == {dtype}
        assert dtypes_of_convolutions(version, "log_prob") == {"float32"}


def test_inputs_and_answers_are_what_they_were(versions):
    _, found = versions
    assert runtime.described(found["bfloat16"]) == runtime.described(found["frozen"]) == runtime.described(found[None])


def test_answers_are_near_and_likelihoods_the_same(versions):
    _, found = versions
    images, files = pictures()
    requests = {"serving_default": {"image": images}, "classify_bytes": {"image_bytes": files}}
    with runtime.Loaded(found[None]) as plain:
        expected = {name: plain.run(name, request) for name, request in requests.items()}
        log_prob = plain.run("log_prob", {"image": images})["log_prob"]
    for compute, most in (("bfloat16", 2**-6), ("frozen", 2**-9)):
        with runtime.Loaded(found[compute]) as served:
            for name, request in requests.items():
                answer = served.run(name, request)["probabilities"]
                assert 0 < np.abs(answer - expected[name]["probabilities"]).max() < most
                np.testing.assert_allclose(answer.sum(-1), 1, atol=1e-6)  # the head stays in float32
            answer = served.run("log_prob", {"image": images})["log_prob"]
            np.testing.assert_allclose(answer, log_prob, rtol=1e-6)


def test_the_card_says_what_computes_how_and_how_far_that_is(versions):
    _, found = versions
    for compute, dtype in (("bfloat16", "bfloat16"), ("frozen", "float16")):
        card = model_card.read(found[compute])
        assert card["variant"]["compute"] == dtype
        assert set(card["variant"]["differences"]) == set(LOWER)
        assert 0 < card["variant"]["differences"]["serving_default"]["probabilities"] < precision.TOLERANCE[dtype]
        (line,) = [line for line in model_card.text("kinds", card).splitlines() if line.startswith("computes in")]
        assert line.startswith(f"computes in {dtype}, at most 0.")
        assert line.endswith("; in the model's own precision: log_prob")
    plain = model_card.read(found[None])
    assert plain["variant"] == {"frozen": False, "compute": None, "differences": None}
    assert "computes in" not in model_card.text("kinds", plain)
    del plain["variant"]  # a card of an earlier release
    assert "Classifier" in model_card.text("kinds", json.loads(json.dumps(plain)))


def test_the_model_and_the_process_keep_their_precision(versions):
    model, _ = versions
    assert keras.config.dtype_policy().name == "float32"
    assert {layer.compute_dtype for layer in model._flatten_layers()} == {"float32"}
    np.testing.assert_array_equal(model(pictures()[0]), model.before)


@keras.saving.register_keras_serializable("tests")
class Large(keras.Model):
    """Answers beyond what float16 holds; its network is an argument, and so is a part of its configuration."""

    def __init__(self, network, **kwargs):
        super().__init__(**kwargs)
        self.network = network
        self(keras.Input((8, 8, 1)))

    def call(self, image):
        return self.network(image) * 1e4 * 1e4

    def signatures(self):
        return {"serving_default": (lambda image: {"code": self(image)}, [IMAGE])}

    def get_config(self):
        return {**super().get_config(), "network": keras.saving.serialize_keras_object(self.network)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "network": keras.saving.deserialize_keras_object(config["network"])})


@pytest.fixture(scope="module")
def large():
    drawn = [{"kernel_initializer": keras.initializers.GlorotUniform(seed=seed)} for seed in (0, 1)]  # not by chance
    parts = [layers.Conv2D(2, 3, **drawn[0]), layers.Flatten(), layers.Dense(3, **drawn[1])]
    return Large(keras.Sequential([keras.Input((8, 8, 1)), *parts]))


def test_answers_beyond_float16_are_refused_and_bfloat16_takes_them(large, tmp_path):
    with pytest.raises(ValueError, match=r"compute='float16' answers 'code' inf.*choose bfloat16"):
        export(large, tmp_path / "large", compute="float16")
    assert not list(tmp_path.iterdir())
    version = export(large, tmp_path / "large", compute="bfloat16")
    assert dtypes_of_convolutions(version, "serving_default") == {"bfloat16"}  # of a network within the configuration


def test_answers_that_move_too_far_are_refused(large, tmp_path, monkeypatch):
    monkeypatch.setitem(precision.TOLERANCE, "bfloat16", 1e-5)
    monkeypatch.setattr(comparison, "compare", lambda *_: None)
    with pytest.raises(ValueError, match=r"answers 'code' 0\.\d% away from the model's own, expected .*; leave it out"):
        export(large, tmp_path / "large", compute="bfloat16")


def test_a_model_that_its_configuration_does_not_rebuild_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"compute='bfloat16' rebuilds the model, and OneEndpoint has no get_config"):
        export(OneEndpoint(mean), tmp_path / "mean", compute="bfloat16")
    with pytest.raises(ValueError, match="compute='half', expected None, bfloat16 or float16"):
        export(OneEndpoint(mean), tmp_path / "mean", compute="half")


def test_a_difference_is_of_the_mean_size_or_a_share():
    ones = np.ones((2, *SHAPE), np.float32)
    assert comparison.difference(ones, ones * np.float32(1.25)) == 0.25
    assert comparison.difference(0 * ones, ones * np.float32(1e-5)) == pytest.approx(1e-2)
    assert comparison.difference(np.float32([1, np.inf]), np.float32([1, 1])) == np.inf
    assert comparison.difference(np.float32([1, np.nan]), np.float32([1, np.nan])) == 0
    assert comparison.difference(np.array([b"a", b"b"], object), np.array([b"a", b"c"], object)) == 0.5
    assert comparison.difference(np.int32([1, 2, 3, 4]), np.int32([1, 2, 3, 5])) == 0.25
