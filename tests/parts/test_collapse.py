"""Laws of the measures of a collapse, and when it is said."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.spatial.distance import cdist

from dmkeras.parts import collapse

IMAGES = np.random.default_rng(0).random((12, 8, 8, 1), "float32")


def test_diversity_is_the_mean_distance_to_the_nearest_other_picture():
    distances = cdist(*(IMAGES.reshape(12, -1),) * 2)
    np.fill_diagonal(distances, np.inf)
    np.testing.assert_allclose(collapse.diversity(IMAGES), distances.min(axis=1).mean(), rtol=1e-5)


@pytest.mark.parametrize("kinds", [1, 2, 4])
def test_a_generator_of_a_few_pictures_has_none(kinds):
    """Known wrong: the mean distance of neighbours in a batch is half of the data's where there are two pictures."""
    few = IMAGES[np.arange(12) % kinds]
    assert collapse.relative_diversity(few, IMAGES) < 0.01
    if kinds > 1:
        assert np.abs(few - np.roll(few, 1, axis=0)).mean() > 0.3 * np.abs(IMAGES - np.roll(IMAGES, 1, axis=0)).mean()


def test_the_data_have_a_diversity_of_one_and_a_batch_of_one_says_nothing():
    np.testing.assert_allclose(collapse.relative_diversity(IMAGES[::-1], IMAGES), 1, rtol=1e-5)
    assert collapse.relative_diversity(IMAGES[:1], IMAGES[:1]) == 1
    assert collapse.relative_diversity(IMAGES, IMAGES * 0) == 0


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_sums_as_float32_does(kind):
    """Known wrong: a mean over more than 65,504 numbers in float16, which is 0 or no number."""
    many = np.random.default_rng(0).random((128, 32, 32, 3), "float32")
    half = collapse.diversity(tf.cast(many, kind))
    np.testing.assert_allclose(half, collapse.diversity(many), rtol=0.01)
    assert not np.isclose(float(tf.reduce_mean(tf.cast(many, "float16"))), many.mean(), rtol=0.01)


@pytest.mark.parametrize(
    ("logs", "words"),
    [
        ({"d_loss": 0.01, "diversity": 1.0}, "D tells all pictures"),
        ({"d_loss": 1.3, "diversity": 0.01}, "repeat themselves"),
        ({"d_loss": 1.3, "diversity": 0.8}, ""),
        ({"loss": 1.0}, ""),
    ],
)
def test_a_collapse_is_said(logs, words, capsys):
    collapse.Watch().on_epoch_end(4, logs)
    said = capsys.readouterr().out
    assert words in said
    assert bool(said) == bool(words)
    assert not words or said.startswith("epoch 5: ")
