"""Laws of the small classifier: shapes, seeds, what it learns, and what it finds of worse and worse digits."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf

import dmkeras
from dmkeras.backbones import small_cnn
from dmkeras.data import to_arrays
from dmkeras.parts import sample_quality

SHAPES = [(8, 8, 1), (28, 28, 1), (64, 64, 3), (8, 21, 3), (64, 5, 1), (2, 3, 1)]


def pictures(shape, count=6, seed=0):
    return np.random.default_rng(seed).random((count, *shape)).astype("float32")


IMAGES, LABELS = pictures((4, 4, 1)), np.arange(6) % 2


@pytest.fixture(scope="module")
def digits():
    return {split: to_arrays(dmkeras.data.load("digits", split)) for split in ("train", "validation", "test")}


@pytest.fixture(scope="module")
def referee(digits):
    return small_cnn.trained(digits["train"]["image"], digits["train"]["label"], epochs=10)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_logits_come_of_the_features_and_features_of_halved_maps(shape):
    model, images = small_cnn.SmallCNN(shape, 7, filters=2), pictures(shape)
    logits, found = model(images), model.features(images)
    assert logits.shape == (6, 7)
    names = [f"stage_{i}" for i in range(len(found) - 1)]
    assert list(found) == [*names, "features"]
    assert {values.dtype for values in (logits, *found.values())} == {tf.float32}
    height, width, _ = shape
    for i, name in enumerate(names):
        if i < len(names) - 1:
            height, width = (-(-side // 2) if side > 4 else side for side in (height, width))
        assert found[name].shape == (6, height, width, (2, 4, 8, 8, 8, 8)[i])
    assert max(height, width) <= 4
    assert found["features"].shape == (6, 8)
    weights, bias = (np.asarray(weight, "float64") for weight in model.logits.weights)
    np.testing.assert_allclose(found["features"].numpy() @ weights + bias, logits, rtol=1e-5, atol=1e-5)


def test_every_weight_learns():
    model = small_cnn.SmallCNN((9, 8, 3), 4, filters=2)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(pictures((9, 8, 3)), training=True) ** 2)
    gradients = tape.gradient(loss, model.trainable_variables)
    assert not [v.path for v, g in zip(model.trainable_variables, gradients, strict=True) if g is None or not np.any(g)]


def test_a_picture_is_seen_alone(referee, digits):
    images = digits["test"]["image"][:20]
    whole = referee(images)
    np.testing.assert_allclose([referee(image[None])[0] for image in images], whole, rtol=1e-4, atol=1e-4)
    by_batch = [referee(images[i : i + 5], training=True) for i in range(0, 20, 5)]
    assert np.abs(np.concatenate(by_batch) - whole).max() > 0.1  # so that the law could fail


def test_a_seed_gives_the_weights():
    make = lambda seed: small_cnn.SmallCNN((8, 8, 1), 3, filters=2, seed=seed).get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(make(1), make(1), strict=True))
    for other in (make(2), make(None)):
        assert [a.shape for a, b in zip(make(1), other, strict=True) if a.ndim > 1 and np.array_equal(a, b)] == []
    assert not np.array_equal(make(None)[0], make(None)[0])
    one, next_one = (small_cnn.SmallCNN((64, 64, 1), 3, filters=2, seed=0).stages[i].layers[0].kernel for i in (3, 4))
    assert one.shape == next_one.shape
    assert not np.array_equal(one, next_one)  # layers of one shape begin apart


def state():
    """Of everything that random numbers of the process come from."""
    keras_seeds = keras.src.backend.common.global_state.get_global_attribute("global_seed_generator")
    return (
        random.getstate(),
        str(np.random.get_state()),
        tf.random.get_global_generator().state.numpy().tolist(),
        None if keras_seeds is None else np.asarray(keras_seeds.state).tolist(),
    )


def test_training_gives_the_same_again_whatever_the_random_state_and_leaves_it_alone():
    images, labels = pictures((8, 6, 1), 40), np.arange(40) % 3
    options = {"epochs": 2, "batch_size": 8, "filters": 2}
    found = []
    for process, seed in ((0, 5), (1, 5), (1, 6)):
        keras.utils.set_random_seed(process)
        keras.random.uniform(())  # the generator is there
        before = state()
        found.append(small_cnn.trained(images, labels, seed, **options).get_weights())
        assert state() == before
        after = keras.random.uniform((3,)).numpy(), tf.random.uniform((3,)).numpy()
        keras.utils.set_random_seed(process)
        keras.random.uniform(())
        for a, b in zip(after, (keras.random.uniform((3,)), tf.random.uniform((3,))), strict=True):
            np.testing.assert_array_equal(a, b)
    assert all(np.array_equal(a, b) for a, b in zip(*found[:2], strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(*found[1:], strict=True))


def test_a_referee_is_the_same_under_any_precision():
    train = lambda: small_cnn.trained(IMAGES, LABELS, epochs=1, filters=1).get_weights()
    expected = train()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        found = train()
    finally:
        keras.config.set_dtype_policy("float32")
    assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize(("enough", "epochs"), [(1, 3), (80, 10), (1000, 20)])
def test_few_pictures_are_shown_more_often(enough, epochs, monkeypatch):
    monkeypatch.setattr(small_cnn, "ENOUGH", enough)
    model = small_cnn.trained(pictures((4, 4, 1), 8), np.arange(8) % 2, batch_size=3, filters=1)
    assert int(model.optimizer.iterations) == epochs * 2  # a rest of two is left out
    assert float(model.optimizer.learning_rate) < 1e-8


def test_it_learns_the_digits(referee, digits):
    test = digits["test"]
    assert np.mean(referee(test["image"]).numpy().argmax(axis=1) == test["label"]) >= 0.97
    scores = referee.evaluate(test["image"], test["label"], verbose=0, return_dict=True)
    assert scores["loss"] < 0.15
    assert scores["accuracy"] >= 0.97


def test_a_reloaded_one_answers_the_same(referee, digits, tmp_path):
    referee.save(tmp_path / "referee.keras")
    again, images = dmkeras.load(tmp_path / "referee.keras"), digits["test"]["image"][:9]
    np.testing.assert_array_equal(again(images), referee(images))
    assert again.get_config() == referee.get_config()


def test_answers_are_float32_in_other_arithmetic_too():
    model = small_cnn.SmallCNN((8, 8, 1), 3, filters=2, dtype="mixed_bfloat16")
    answers = [model(pictures((8, 8, 1))), *model.features(pictures((8, 8, 1))).values()]
    assert {values.dtype for values in answers} == {tf.float32}
    assert model.stages[0].layers[0].compute_dtype == "bfloat16"


def test_the_referee_tells_worse_digits_from_better_ones(referee, digits):
    train, test, real = (digits[split]["image"] for split in ("train", "test", "validation"))
    noise = np.random.default_rng(0).normal(size=real.shape)
    noisy = lambda scale: np.clip(real + scale * noise, 0, 1).astype("float32")
    few = real[digits["validation"]["label"] < 3]
    sets = {"real": real, "noisy": noisy(0.2), "noise": noisy(1.0), "few": few, "copies": train[:200]}
    found = {name: sample_quality.report(referee, images, test, train) for name, images in sets.items()}
    column = lambda name: {key: figures[name] for key, figures in found.items()}
    for name in ("frechet_distance", "kernel_distance"):
        far = column(name)
        assert far["real"] < far["noisy"] < far["noise"]
        assert 5 * far["real"] < far["few"]
    assert 9 < column("classifier_score")["real"] <= 10
    assert column("classifier_score")["few"] < 3.5
    assert column("class_coverage")["real"] == 1
    assert 0.3 <= column("class_coverage")["few"] <= 0.4  # of so few a single mistake counts
    assert column("class_entropy")["few"] < np.log(4) < column("class_entropy")["real"]
    assert column("precision")["noise"] < column("precision")["noisy"] < column("precision")["real"]
    assert column("precision")["few"] > 0.7
    assert column("recall")["few"] < 0.5 < column("recall")["real"]
    assert column("memorised")["copies"] == 0
    assert 0.9 < column("memorised")["real"] < 1.1 < column("memorised")["noisy"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((255 * IMAGES, LABELS), "divide 8-bit pixels by 255"),
        ((IMAGES[0], LABELS), r"expected images \[N, H, W, C\]"),
        ((IMAGES[:0], LABELS[:0]), r"expected images \[N, H, W, C\]"),
        ((IMAGES, LABELS[:5]), r"each of 6 images, received labels \[5\]"),
        ((IMAGES, np.eye(2)[LABELS]), "one-hot rows become numbers by argmax"),
        ((IMAGES, LABELS.astype("float32")), "of float32"),
        ((IMAGES, LABELS - 1), "received -1 to 0"),
        ((IMAGES, 0 * LABELS), "K at least 2, received 0 to 0"),
        ((IMAGES, LABELS, -1), "seed must be"),
        ((IMAGES, LABELS, None), "seed must be an integer"),
        ((IMAGES, LABELS, 0, 0), "epochs must be at least 1"),
        ((IMAGES, LABELS, 0, 1, 0), "batch_size must be at least 1"),
    ],
)
def test_examples_that_do_not_fit_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        small_cnn.trained(*arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (((8, 8), 3), "image_shape must be"),
        (((8, 8, 1), 1), "num_classes must be at least 2"),
        (((8, 8, 1), 2.5), "num_classes must be a whole number"),
        (((8, 8, 1), 3, 0), "filters must be at least 1"),
    ],
)
def test_sizes_that_make_no_network_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        small_cnn.SmallCNN(*arguments)


def test_pictures_of_another_shape_or_range_are_refused():
    model = small_cnn.SmallCNN((4, 4, 1), 2, filters=1)
    model.compile("sgd")
    for verb in (model.features, lambda images: model.fit(images, LABELS), lambda x: model.evaluate(x, LABELS)):
        with pytest.raises(ValueError, match="divide 8-bit pixels by 255"):
            verb(255 * IMAGES)
        with pytest.raises(ValueError, match=r"expected images \[B, 4, 4, 1\]"):
            verb(IMAGES[:, :3])
