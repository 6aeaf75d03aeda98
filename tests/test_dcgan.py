"""Laws of DCGAN: the architecture of the authors' code at every size, and what its discriminator sees."""

import pathlib

import keras
import numpy as np
import pytest

import dmkeras
from dmkeras import DCGAN
from dmkeras.data import batches
from dmkeras.generative import dcgan
from dmkeras.parts import adversarial
from dmkeras.recipe import Recipe, run
from tests import contract
from tests.serving import refusals
from training import dcgan as dcgan_recipe


def kernels(network):
    return [tuple(w.shape) for w in network.trainable_weights if w.name == "kernel"]


def test_the_architecture_for_64_pixels_is_that_of_the_authors():
    model = DCGAN()
    assert kernels(model.generator) == [
        (100, 4 * 4 * 1024),
        (5, 5, 512, 1024),
        (5, 5, 256, 512),
        (5, 5, 128, 256),
        (5, 5, 3, 128),
    ]
    assert kernels(model.discriminator) == [
        (5, 5, 3, 128),
        (5, 5, 128, 256),
        (5, 5, 256, 512),
        (5, 5, 512, 1024),
        (4 * 4 * 1024, 1),
    ]
    kind = keras.layers.BatchNormalization
    normalized = [sum(isinstance(layer, kind) for layer in n.layers) for n in (model.generator, model.discriminator)]
    assert normalized == [4, 3]  # not G's output, not D's input
    leaks = [layer.negative_slope for layer in model.discriminator.layers if isinstance(layer, keras.layers.LeakyReLU)]
    assert leaks == [0.2] * 4
    for optimizer in model.optimizers():
        np.testing.assert_allclose([optimizer.learning_rate, optimizer.beta_1], [2e-4, 0.5])


@pytest.mark.parametrize(
    ("shape", "stages", "start"),
    [
        ((64, 64, 3), 4, (4, 4)),
        ((32, 32, 3), 3, (4, 4)),
        ((28, 28, 1), 2, (7, 7)),
        ((8, 8, 1), 1, (4, 4)),
        ((16, 24, 2), 2, (4, 6)),
        ((10, 10, 1), 1, (5, 5)),
    ],
)
def test_sides_are_halved_while_they_stay_above_seven(shape, stages, start):
    assert adversarial.halvings(shape) == (stages, start)
    model = DCGAN(shape, latent_size=5, filters=2)
    images = model.sample(3, seed=0)
    assert images.shape == (3, *shape)
    assert np.all((images >= 0) & (images <= 1))
    assert model(images).shape == (3, 1)


def test_weights_start_as_the_paper_says():
    keras.utils.set_random_seed(0)
    for network in (DCGAN((32, 32, 3), filters=16).generator, DCGAN((32, 32, 3), filters=16).discriminator):
        for weight in network.trainable_weights:
            mean, deviation = {"kernel": (0, 0.02), "gamma": (1, 0.02)}.get(weight.name, (0, 0))
            error = 5 * 0.02 / np.size(weight) ** 0.5
            assert abs(np.mean(weight) - mean) <= error
            assert abs(np.std(weight) - deviation) <= error


def test_the_penalty_is_half_the_sum_of_squares_of_the_kernels():
    model = DCGAN((8, 8, 1), latent_size=5, filters=4, l2=0.3)
    for network in (model.generator, model.discriminator):
        expected = 0.15 * sum(np.sum(np.square(w)) for w in network.trainable_weights if w.name == "kernel")
        np.testing.assert_allclose(sum(network.losses), expected, rtol=1e-5)


def test_features_are_the_maxima_of_all_maps_on_a_grid():
    model = DCGAN((16, 16, 1), latent_size=5, filters=3)
    images = np.random.default_rng(0).random((2, 16, 16, 1), "float32")
    maps, expected = images, []
    for layer in model.discriminator.layers:
        maps = layer(maps, training=False)
        if isinstance(layer, keras.layers.LeakyReLU):
            cell = maps.shape[1] // 4
            pooled = np.reshape(maps, (2, 4, cell, 4, cell, -1)).max(axis=(2, 4))
            expected.append(pooled.reshape(2, -1))
    found = model.features(images)
    assert found.shape == (2, 4 * 4 * (3 + 6))
    np.testing.assert_allclose(found, np.concatenate(expected, axis=1), rtol=1e-5)


@pytest.mark.parametrize("side", [1, 3, 4, 7, 14, 32])
def test_every_place_of_a_map_is_in_one_cell(side):
    maps = np.arange(1.0, side * side + 1, dtype="float32").reshape(1, side, side, 1)
    found = dcgan._grid_maxima(np.concatenate([maps, -maps], axis=-1))
    count = min(side, 4) ** 2
    assert found.shape == (1, 2 * count)
    assert np.max(found) == side * side
    assert np.max(found[:, 1::2]) == -1
    assert len(np.unique(found)) == 2 * count


@pytest.mark.parametrize("shape", [(7, 7, 1), (9, 9, 1), (8, 4, 1), (64, 30)])
def test_a_size_without_stages_is_refused(shape):
    with pytest.raises(ValueError, match=r"image_shape .* received"):
        DCGAN(shape)


@pytest.mark.parametrize("name", ["latent_size", "filters"])
def test_sizes_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, received 0"):
        DCGAN((8, 8, 1), **{name: 0})


def test_a_penalty_below_zero_is_refused():
    with pytest.raises(ValueError, match="l2 must be at least 0 and finite, received -1"):
        DCGAN((8, 8, 1), l2=-1)


def test_a_number_of_classes_below_zero_is_refused():
    with pytest.raises(ValueError, match="num_classes must be at least 0, received -1"):
        DCGAN((8, 8, 1), num_classes=-1)


# With labels.


def recipe(fast=False, epochs=2):
    """Noise of three classes, a brightness each."""
    labels = np.arange(24, dtype="int32") % 3
    images = np.random.default_rng(0).random((24, 16, 16, 1), "float32") * (1 + labels[:, None, None, None]) / 3
    model = DCGAN((16, 16, 1), latent_size=5, filters=4, average=0.5, num_classes=3)
    data = lambda split, seed: batches((images, labels), 8, seed if split == "train" else None)
    adam = lambda: keras.optimizers.Adam(1e-2)
    options = {"d_optimizer": adam(), "g_optimizer": adam()}
    return Recipe("test_dcgan", model, data, compile=options, epochs=epochs, improves=None)


def states(folder):
    """Weights and both optimizers' moments of the run in `folder`."""
    model = dmkeras.load(folder / "runs/test_dcgan/0001/model.keras")
    return [v.numpy() for v in (*model.weights, *model.d_optimizer.variables, *model.g_optimizer.variables)]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    return contract.train(recipe, tmp_path_factory.mktemp("labelled"))


def test_with_labels_every_kernel_sees_the_class():
    """The authors' kernels but for their two dense layers of 1024; no gains, and offsets where nothing normalises."""
    model = DCGAN((28, 28, 1), filters=64, l2=2.5e-5, num_classes=10)
    assert kernels(model.generator) == [(100 + 10, 7 * 7 * 128), (5, 5, 64, 128 + 10), (5, 5, 1, 64 + 10)]
    assert kernels(model.discriminator) == [(5, 5, 1 + 10, 64), (5, 5, 64 + 10, 128), (7 * 7 * 128 + 10, 1)]
    learned = [*model.generator.trainable_weights, *model.discriminator.trainable_weights]
    assert [tuple(w.shape) for w in learned if w.name != "kernel"] == [(1,), (64,), (1,)]


def test_training_with_labels_moves_every_weight(labelled):
    contract.check_training(labelled)


def test_a_model_with_labels_is_the_same_once_it_is_loaded(labelled, tmp_path):
    model = labelled.recipe.model
    model.save(tmp_path / "model.keras")
    loaded = dmkeras.load(tmp_path / "model.keras")
    assert loaded.get_config() == model.get_config()
    images, labels = (array.numpy() for array in next(iter(labelled.recipe.data("test", 0))))
    np.testing.assert_array_equal(loaded((images, labels)), model((images, labels)))
    np.testing.assert_array_equal(loaded.features(images), model.features(images))
    np.testing.assert_array_equal(loaded.sample(4, 1), model.sample(4, 1))
    for name in ("d_optimizer", "g_optimizer"):
        pairs = zip(getattr(model, name).variables, getattr(loaded, name).variables, strict=True)
        assert all(np.array_equal(state, again) for state, again in pairs)
    loaded.train_on_batch(images, labels)


def test_the_endpoints_of_a_model_with_labels_answer_as_the_model_does(labelled):
    model, version = labelled.recipe.model, pathlib.Path(labelled.result["saved_model"])
    batch = tuple(array[:3] for array in next(iter(labelled.recipe.data("test", 0))))
    feeds = {**contract.requests(model, np.zeros(3)), "call": batch}
    contract.check_endpoints(contract.check_answers(model, feeds), feeds, version)
    refusals.check(version)


def test_training_with_labels_goes_on_after_a_stop_as_if_there_was_none(tmp_path):
    flags = ["--no-export", "--epochs", "2"]
    run(recipe, [*flags, "--out", str(tmp_path / "whole")])
    run(recipe, [*flags, "--out", str(tmp_path / "parts"), "--minutes", "0"])
    run(recipe, ["--resume", "--no-export", "--out", str(tmp_path / "parts")])
    for first, second in zip(states(tmp_path / "whole"), states(tmp_path / "parts"), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-6)


def test_features_are_those_of_a_discriminator_that_is_told_no_class():
    model = DCGAN((16, 16, 1), latent_size=5, filters=3, num_classes=4)
    images = np.random.default_rng(0).random((2, 16, 16, 1), "float32")
    stages = [model.discriminator.get_layer(f"stage_{i}").output for i in range(2)]
    network = keras.Model(tuple(model.discriminator.inputs), stages)

    def expected(y):
        maps = network((images, y.astype("float32")), training=False)
        return np.concatenate([dcgan._grid_maxima(stage) for stage in maps], axis=1)

    np.testing.assert_allclose(model.features(images), expected(np.zeros((2, 4))), rtol=1e-5)
    assert np.abs(model.features(images) - expected(np.eye(4)[:2])).max() > 1e-3


def test_the_recipe_tells_both_networks_the_class(tmp_path):
    seen = contract.train(dcgan_recipe.recipe, tmp_path, "--fast", "--labelled", "--epochs", "2")
    contract.check_training(seen)
    model = seen.recipe.model
    assert model.num_classes == 10
    contract.check_pictures(seen.recipe.pictures(model))
    labels = np.repeat(np.arange(10), 10)
    assert set(next(iter(seen.recipe.data("train", 0)))[1].numpy()) <= set(labels)
    assert model.sample(100, seed=0, labels=labels).shape == (100, 8, 8, 1)
