"""Laws of the signature `classify`: who gets it, and that it answers tf.Examples as the model answers pictures."""

import json
import subprocess

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2

from dmkeras.serving import model_card, runtime, warm_up
from dmkeras.serving.embedded import inference, rest_api
from dmkeras.serving.embedded.model_config import ModelConfig
from dmkeras.serving.embedded.servables import Servables
from dmkeras.serving.errors import RequestError
from dmkeras.serving.export import export
from tests.serving.classifiers import IMAGE, KINDS, Classifier, classifier, pictures
from tests.serving.models import OneEndpoint


@pytest.fixture(scope="module", params=["image_bytes", "image"])
def version(request, tmp_path_factory):
    """A classifier that takes files, and one that takes floats alone."""
    model = classifier(with_bytes=request.param == "image_bytes")
    return export(model, tmp_path_factory.mktemp("saved_models") / "kinds", labels=KINDS)


@pytest.fixture(scope="module")
def servables(version):
    served = Servables([ModelConfig("kinds", str(version.parent))], poll_seconds=0)
    served.start()
    yield served
    served.stop()


def example(name, value):
    files, floats = ([value], []) if isinstance(value, bytes) else ([], np.ravel(value))
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=files))
    if len(floats):
        feature = tf.train.Feature(float_list=tf.train.FloatList(value=floats))
    return tf.train.Example(features=tf.train.Features(feature={name: feature})).SerializeToString()


def examples(version, number=3):
    """Pictures as the examples that this classifier takes; and the pictures themselves."""
    images, files = pictures(number)
    if "classify_bytes" in model_card.read(version)["signatures"]:
        return np.array([example("image/encoded", file) for file in files], object), images
    return np.array([example("image", image) for image in images], object), images


def test_scores_are_the_probabilities_and_classes_the_labels_in_their_order(version):
    serialized, images = examples(version)
    with runtime.Loaded(version) as served:
        answer = served.run("classify", {"inputs": serialized})
        expected = served.run("serving_default", {"image": images})["probabilities"]
    np.testing.assert_allclose(answer["scores"], expected, rtol=1e-5, atol=1e-6)
    assert answer["scores"].argmax(-1).tolist() != [0, 0, 0]  # or the order of scores would show nothing
    assert answer["classes"].tolist() == [[label.encode() for label in KINDS]] * 3


def test_the_signature_is_what_the_classify_api_asks_for(version):
    (inputs,), (classes, scores) = runtime.described(version)["classify"]
    assert inputs == ("inputs", "string", (None,))
    assert classes == ("classes", "string", (None, 3))
    assert scores == ("scores", "float32", (None, 3))


def test_the_warm_up_record_holds_a_picture_that_parses(version):
    (request,) = [request for name, request in warm_up.read(version / warm_up.FILE) if name == "classify"]
    (feature,) = tf.train.Example.FromString(request["inputs"][0]).features.feature.items()
    name, value = feature
    assert value.bytes_list.value[0][1:4] == b"PNG" if name == "image/encoded" else name == "image"
    with runtime.Loaded(version) as served:
        assert served.run("classify", request)["scores"].shape == (1, 3)


def test_an_example_that_lacks_the_picture_is_refused_by_the_name_of_its_feature(version):
    name = model_card.read(version)["signatures"]["classify"]["feature"]["name"]
    with runtime.Loaded(version) as served:
        for wrong, message in (
            (example("picture", b"1"), f"Feature: {name} .* is required but could not be found"),
            (b"", f"Feature: {name} .* is required"),
            (b"junk", f"Feature: {name} .* is required"),
            (example(name, np.float32([1, 2])), f"Key: {name}"),
        ):
            with pytest.raises(RequestError, match=message):
                served.run("classify", {"inputs": np.array([wrong], object)})


def test_the_classify_api_answers_over_rest_what_the_curl_line_asks(version, servables, tmp_path):
    curl = tmp_path / "curl"
    curl.write_text('#!/bin/sh\necho "$3" >&2\ncat\n')
    curl.chmod(0o755)
    (tmp_path / "picture.png").write_bytes(pictures(1)[1][0])
    line = model_card.read(version)["signatures"]["classify"]["curl"]
    lines = model_card.text("kinds", model_card.read(version)).splitlines()
    assert f"  {line}" in lines
    assert "  in  inputs               string  [B]                  serialized tf.Examples of" in lines
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    asked = subprocess.run(["sh", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert asked.stderr.strip() == "http://localhost:8501/v1/models/kinds:classify"
    answer = rest_api.handle("POST", "/v1/models/kinds:classify", asked.stdout.encode(), servables)
    assert answer.status == 200, answer.body
    (classes,) = json.loads(answer.body)["results"]
    assert [label for label, _ in classes] == KINDS
    assert sum(score for _, score in classes) == pytest.approx(1)


def test_the_classify_api_answers_over_grpc(version, servables):
    serialized, images = examples(version)
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = "kinds", "classify"
    for content in serialized:
        request.input.example_list.examples.add().ParseFromString(content)
    found = inference.classify(servables, request).result.classifications
    with runtime.Loaded(version) as served:
        expected = served.run("serving_default", {"image": images})["probabilities"]
    assert [[each.label for each in row.classes] for row in found] == [KINDS] * 3
    scores = [[each.score for each in row.classes] for row in found]
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)


def probabilities(shape):
    return lambda *inputs: {"probabilities": tf.zeros([tf.shape(inputs[0])[0], *shape])}


NO_CLASSIFIERS = {
    "no labels": (None, probabilities([3]), [IMAGE]),
    "probabilities of every box": (KINDS, probabilities([5, 3]), [IMAGE]),
    "another answer": (KINDS, lambda image: {"logits": image[:, 0, 0]}, [IMAGE]),
    "a second input": (KINDS, probabilities([3]), [IMAGE, tf.TensorSpec((None,), tf.float32, name="temperature")]),
    "an input that is no picture": (KINDS, probabilities([3]), [tf.TensorSpec((None, 7), tf.float32, name="code")]),
    "pictures of any size": (KINDS, probabilities([3]), [tf.TensorSpec((None, None, None, 3), tf.float32, "image")]),
    "two files a row": (KINDS, probabilities([3]), [tf.TensorSpec((None, 2), tf.string, name="image_bytes")]),
    "pictures of bytes": (KINDS, probabilities([3]), [tf.TensorSpec((None, 8, 8, 3), tf.uint8, "image")]),
}


@pytest.mark.parametrize("case", NO_CLASSIFIERS)
def test_what_is_no_classifier_gets_none(case, tmp_path):
    labels, function, specs = NO_CLASSIFIERS[case]
    version = export(OneEndpoint(function, specs), tmp_path / "other", labels=labels)
    assert set(runtime.described(version)) == {"serving_default"}


def test_pictures_in_the_plural_are_pictures(tmp_path):
    spec = tf.TensorSpec((None, 8, 8, 3), tf.float32, name="images")
    version = export(OneEndpoint(probabilities([3]), [spec]), tmp_path / "plural", labels=KINDS)
    assert model_card.read(version)["signatures"]["classify"]["feature"]["name"] == "images"


def test_a_classify_of_the_model_itself_stays(tmp_path):
    model = classifier()
    model.signatures = lambda: {**Classifier.signatures(model), "classify": (model.classify, [IMAGE])}
    version = export(model, tmp_path / "own", labels=KINDS)
    (tensor,), _ = runtime.described(version)["classify"]
    assert tensor.name == "image"
    assert model_card.read(version)["signatures"]["classify"]["curl"].endswith(":predict")


def test_labels_are_as_many_as_probabilities(tmp_path):
    with pytest.raises(ValueError, match=r"'serving_default' answers 3 probabilities, expected 2, one for each label"):
        export(classifier(), tmp_path / "kinds", labels=["cat", "dog"])
    assert not list(tmp_path.iterdir())
