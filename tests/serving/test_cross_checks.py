"""Other libraries, with kernels of their own, read the exported SavedModel and answer as the server does."""

import numpy as np
import openvino
import pytest
import tensorflow as tf
from ai_edge_litert import interpreter

from dmkeras.serving import runtime
from dmkeras.serving.export import export
from tests.serving.classifiers import IMAGE, KINDS, classifier, pictures


@pytest.fixture(scope="module", params=["plain", "frozen"])
def version(request, tmp_path_factory):
    base = tmp_path_factory.mktemp("saved_models")
    return export(classifier(with_bytes=False), base / "kinds", labels=KINDS, frozen=request.param == "frozen")


@pytest.fixture(scope="module")
def expected(version):
    with runtime.Loaded(version) as served:
        return served.run("serving_default", {"image": pictures()[0]})


def assert_same(answer, expected):
    assert np.ptp(expected["probabilities"], axis=0).min() > 1e-3  # pictures that answer differently
    np.testing.assert_allclose(answer["probabilities"], expected["probabilities"], rtol=1e-5, atol=2e-7)
    np.testing.assert_array_equal(answer["label"], expected["label"])


def test_openvino_answers_as_the_server_does(version, expected):
    core = openvino.Core()
    model = core.read_model(str(version))
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answer = compiled({"image": pictures()[0]})
    assert_same({name: answer[name] for name in expected}, expected)


def test_litert_answers_as_the_server_does(version, expected):
    converter = tf.lite.TFLiteConverter.from_saved_model(str(version), signature_keys=["serving_default"])
    signature = interpreter.Interpreter(model_content=converter.convert()).get_signature_runner("serving_default")
    assert_same(signature(image=pictures()[0]), expected)


def test_onnx_runtime_answers_as_the_server_does(version, expected):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the [peers] extra")
    convert = pytest.importorskip("tf2onnx.convert", reason="needs the [peers] extra")
    loaded = tf.saved_model.load(version)
    function = tf.function(lambda image: loaded.signatures["serving_default"](image=image), autograph=False)
    model, _ = convert.from_function(function, [IMAGE], opset=18)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = list(expected)
    assert_same(dict(zip(names, session.run(names, {"image": pictures()[0]}), strict=True)), expected)
