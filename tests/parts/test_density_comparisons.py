"""Counted densities against counts by hand, and comparisons of models that are known."""

import itertools

import keras
import numpy as np
import pytest

from dmkeras import FVSBN
from dmkeras.parts import density_comparisons as comparisons
from tests import dependency

SHAPE = (2, 3, 1)
ORDER = np.array([2, 0, 5, 1, 4, 3])


@pytest.fixture(scope="module")
def train():
    """Pictures whose pixels resemble the one before along ORDER."""
    generator, flat = np.random.default_rng(0), np.zeros((200, 6), "float32")
    flat[:, ORDER[0]] = generator.random(200) < 0.4
    for before, place in itertools.pairwise(ORDER):
        flat[:, place] = generator.random(200) < 0.1 + 0.8 * flat[:, before]
    return flat.reshape(200, *SHAPE)


def test_independent_pixels_have_the_frequencies_of_the_pictures(train):
    image = dependency.pictures(1, SHAPE)[0]
    expected = 0.0
    for place in np.ndindex(SHAPE):
        same = sum(picture[place] == image[place] for picture in train)
        expected += np.log((same + 1) / (len(train) + 2))
    np.testing.assert_allclose(comparisons.independent_pixels(train)(image[None]), expected)


def test_a_markov_chain_has_the_frequencies_of_pairs_along_its_order(train):
    image = dependency.pictures(1, SHAPE)[0].ravel()
    flat, first = train.reshape(len(train), -1), ORDER[0]
    expected = np.log((sum(flat[:, first] == image[first]) + 1) / (len(flat) + 2))
    for before, place in itertools.pairwise(ORDER):
        alike = flat[flat[:, before] == image[before]]
        expected += np.log((sum(alike[:, place] == image[place]) + 1) / (len(alike) + 2))
    np.testing.assert_allclose(comparisons.markov_chain(train, ORDER)(image.reshape(1, *SHAPE)), expected)


def test_counted_densities_sum_to_one(train):
    images = dependency.every_picture(SHAPE)
    for density in (comparisons.independent_pixels(train), comparisons.markov_chain(train, ORDER)):
        np.testing.assert_allclose(np.exp(density(images)).sum(), 1)
    same = np.zeros((3, *SHAPE))  # a pixel that never changes still has both chances
    for density in (comparisons.independent_pixels(same), comparisons.markov_chain(same, ORDER)):
        np.testing.assert_allclose(np.exp(density(images)).sum(), 1)


def test_grey_pictures_count_as_the_mean_of_their_draws(train):
    generator = np.random.default_rng(0)
    grey = np.tile(generator.random((20, *SHAPE)), (1000, 1, 1, 1))
    draws, images = (generator.random(grey.shape) < grey), dependency.every_picture(SHAPE)
    for density in (comparisons.independent_pixels, lambda train: comparisons.markov_chain(train, ORDER)):
        np.testing.assert_allclose(density(grey)(images), density(draws)(images), atol=0.1)


def test_the_ladder_rises_from_independent_pixels_over_the_chain_to_the_model(train, capsys):
    model = FVSBN(SHAPE, ORDER)
    model.adapt(train)
    found = comparisons.ladder(model, 21, train, train)
    assert found["nll_markov_chain"] < found["nll_independent_pixels"] - 0.5
    np.testing.assert_allclose(found["nll_independent_pixels"], -np.mean(model.log_prob(train)), atol=0.01)
    printed = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert [line.split(" parameters")[0] for line in printed] == [
        "independent pixels 6",
        "Markov chain 11",
        "FVSBN 21",
        "full table 2^6 - 1",
    ]


def test_orders_are_compared_by_name(train):
    models = {}

    def make(ordering):
        models[ordering] = FVSBN(SHAPE, ordering)
        models[ordering].adapt(train[: 50 + len(models)])
        return models[ordering]

    found = comparisons.orders(make, train, ("raster", "random:1"))
    assert list(found) == ["nll_raster", "nll_random_1"]
    assert found["nll_raster"] != found["nll_random_1"]
    np.testing.assert_allclose(found["nll_random_1"], -np.mean(models["random:1"].log_prob(train)), rtol=1e-6)


def test_bayes_rule_over_counted_densities_is_naive_bayes(train):
    """Two classes, apart only in how often they occur and in one pixel."""
    generator = np.random.default_rng(1)
    labels = np.array([3] * 150 + [8] * 50)
    images = generator.integers(2, size=(200, *SHAPE)).astype("float32")
    images[labels == 8, 0, 0] = generator.random((50, 1)) < 0.9
    both = [dict.fromkeys(("train", "validation", "test"), array) for array in (images, labels)]

    def make(mine):
        model = FVSBN(SHAPE)
        model.adapt(mine["train"])  # untrained: independent pixels
        return model

    found = comparisons.classes(make, *both)
    logits = [comparisons.independent_pixels(images[labels == kind])(images) for kind in (3, 8)]
    expected = np.where(logits[0] + np.log(150) >= logits[1] + np.log(50), 3, 8) == labels
    assert found["accuracy_independent_pixels"] == expected.mean() > 0.75
    assert abs(found["accuracy"] - expected.mean()) < 0.02


def test_the_epoch_that_validation_chose_is_kept(train):
    """What is learnt of pixels that hang together makes independent ones worse: an early epoch is the best."""
    model, held_out = FVSBN(SHAPE), dependency.pictures(100, SHAPE)
    comparisons.fitted(model, {"train": train, "validation": held_out}, keras.optimizers.Adam(0.3), 4, 100)
    history = model.history.history["val_nll"]
    assert np.argmin(history) < 3
    np.testing.assert_allclose(-np.mean(model.log_prob(held_out)), min(history), rtol=1e-5)


def test_a_comparison_on_pictures_that_change_is_refused():
    comparisons.check_comparison("orders", "fixed")
    comparisons.check_comparison(None, "dynamic")
    with pytest.raises(ValueError, match="received --binarization dynamic"):
        comparisons.check_comparison("classes", "dynamic")
