"""Laws of what explanations are tried on: held-out pictures with their classes and boxes, a classifier of one's own."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import dmkeras
from dmkeras.backbones import subjects


@pytest.fixture(scope="module")
def subject():
    return subjects.subject(fast=True)


def test_a_subject_is_a_classifier_with_pictures_their_classes_and_boxes(subject):
    count = len(subject.images)
    assert subject.images.shape == (count, 32, 32, 3)
    assert subject.images.dtype == "float32"
    assert 0 <= subject.images.min() <= subject.images.max() <= 1
    assert subject.names == ["square", "disc", "triangle"]
    assert isinstance(subject.classifier, keras.Model)
    assert subject.classifier(subject.images).shape == (count, 3)
    assert subject.classes.dtype == "int32"
    assert set(subject.classes) == {0, 1, 2}
    assert subject.boxes.shape == (count, 4)


def test_the_box_is_where_the_object_is(subject):
    for image, (x1, y1, x2, y2) in zip(subject.images, subject.boxes.astype(int), strict=True):
        inside = np.zeros((32, 32), bool)
        inside[y1:y2, x1:x2] = True
        middle = image[(y1 + y2) // 2, (x1 + x2) // 2]
        ground = np.median(image[~inside], axis=0)
        noise = 12 / 255
        assert np.abs(np.median(image[~inside] - ground, axis=0)).max() < noise  # flat but for noise
        if np.abs(middle - ground).max() > 6 * noise:  # an object of another colour has its edge at the box
            differs = np.abs(image - ground).max(axis=2) > 4.5 * noise
            assert differs[~inside].mean() < 0.01


def test_each_caller_has_a_classifier_of_its_own_with_the_same_weights(subject):
    other = subjects.subject(fast=True)
    assert other.classifier is not subject.classifier
    np.testing.assert_array_equal(other.classifier(other.images), subject.classifier(subject.images))
    before = subject.classifier.get_weights()
    other.classifier.set_weights([0 * weight for weight in before])
    other.images[:] = 0
    third = subjects.subject(fast=True)
    assert all(np.array_equal(a, b) for a, b in zip(before, third.classifier.get_weights(), strict=True))
    np.testing.assert_array_equal(third.images, subject.images)


def test_held_out_pictures_are_none_of_the_training():
    train, _, _ = subjects.one_object("simple_shapes", "train", 50, 32)
    test, classes, boxes = subjects.one_object("simple_shapes", "test", 50, 32)
    assert not any(np.array_equal(a, b) for a in train for b in test)
    assert len(test) == len(classes) == len(boxes)


def test_objects_of_scenes_stand_in_the_middle_of_their_crops_and_boxes_tell_where():
    y, x = np.mgrid[:64, :64].astype("float32") / 63
    scene = np.stack([x, y, 0.25 + 0 * x], -1)  # a pixel tells its own place
    record = {"image": scene, "boxes": np.array([[8, 20, 40, 36], [50, 4, 62, 40]], "float32"), "classes": [3, 5]}
    crops = list(subjects._crops({name: tf.constant(value) for name, value in record.items()}, 60))
    assert [int(crop["class"]) for crop in crops] == [3, 5]
    for crop, box in zip(crops, record["boxes"], strict=True):
        x1, y1, x2, y2 = crop["box"].numpy()
        np.testing.assert_allclose([x1 + x2, y1 + y2, max(x2 - x1, y2 - y1)], [60, 60, 50], atol=1e-4)
        seen = crop["image"].numpy()[29:31, 29:31].mean((0, 1))
        np.testing.assert_allclose(63 * seen[:2], (box[:2] + box[2:]) / 2, atol=0.5)
    far = crops[1]["image"].numpy()[:, -1]  # beyond the right border there is grey
    np.testing.assert_array_equal(far, 0.5)
    crops, classes, _ = subjects.one_object("shapes", "test", 7, 16)
    assert crops.shape == (7, 16, 16, 3)
    assert classes.shape == (7,)


def test_photographs_come_with_squeezenet_and_names_from_beside_its_weights(tmp_path, monkeypatch):
    pytest.importorskip("skimage", reason="the photographs are scikit-image's")
    dmkeras.SqueezeNet().save_weights(tmp_path / "w.weights.h5")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    found = subjects.subject("squeezenet", tmp_path / "w.weights.h5", fast=True)
    assert found.images.shape == (3, 64, 64, 3)
    assert found.classes.tolist() == [285, 967, 872]
    assert found.boxes is None
    assert found.names[285] == "class 285"
    (tmp_path / "models").mkdir()
    index = {str(i): [f"n{i}", f"thing_{i}"] for i in range(1000)}
    (tmp_path / "models" / "imagenet_class_index.json").write_text(json.dumps(index))
    assert subjects.imagenet_names(tmp_path / "w.weights.h5")[7] == "thing 7"
    lines = "\n".join(f"n{i} name {i}, another" for i in range(1000))
    (tmp_path / "synset_words.txt").write_text(lines)
    assert subjects.imagenet_names(tmp_path / "w.weights.h5")[7] == "name 7"


def test_a_subject_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="classifier must be one of 'small_cnn', 'squeezenet', 'vgg16', 'vgg19'"):
        subjects.subject("resnet")
    with pytest.raises(ValueError, match="squeezenet needs weights, the path of a file"):
        subjects.subject("squeezenet")
    with pytest.raises(ValueError, match="takes no weights"):
        subjects.subject("small_cnn", "w.npz")
