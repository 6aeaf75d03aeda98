"""Laws of the signature `classify`: who gets it, and that it answers tf.Examples as the model answers pictures."""

import base64
import json
import subprocess

import numpy as np
import pytest
import tensorflow as tf

from dmkeras.serving import model_card, runtime, warm_up
from dmkeras.serving.errors import RequestError
from dmkeras.serving.export import export
from tests.serving.classifiers import IMAGE, KINDS, Classifier, classifier, pictures
from tests.serving.models import OneEndpoint


@pytest.fixture(scope="module", params=["image_bytes", "image"])
def version(request, tmp_path_factory):
    """A classifier that takes files, and one that takes floats alone."""
    model = classifier(with_bytes=request.param == "image_bytes")
    return export(model, tmp_path_factory.mktemp("saved_models") / "kinds", labels=KINDS)


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
    short = example(name, np.float32([1, 2]))
    with runtime.Loaded(version) as served:
        for wrong in (example("picture", b"1"), b"junk", b"", short):
            with pytest.raises(RequestError, match=f"parse serialized|required.*|{name}"):
                served.run("classify", {"inputs": np.array([wrong], object)})


def test_the_curl_line_asks_the_classify_api_for_a_picture(version, tmp_path):
    curl = tmp_path / "curl"
    curl.write_text('#!/bin/sh\necho "$3" >&2\ncat\n')
    curl.chmod(0o755)
    (tmp_path / "picture.png").write_bytes(pictures(1)[1][0])
    line = model_card.read(version)["signatures"]["classify"]["curl"]
    assert line in model_card.text("kinds", model_card.read(version))
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    asked = subprocess.run(["sh", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert asked.stderr.strip() == "http://localhost:8501/v1/models/kinds:classify"
    body = json.loads(asked.stdout)
    assert body["signature_name"] == "classify"
    ((name, value),) = body["examples"][0].items()
    value = base64.b64decode(value["b64"]) if isinstance(value, dict) else value
    with runtime.Loaded(version) as served:
        assert served.run("classify", {"inputs": np.array([example(name, value)], object)})["scores"].shape == (1, 3)


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
