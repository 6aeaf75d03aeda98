"""Laws of nearest pictures, against a search one by one, and wrong searches that break them."""

import numpy as np
import pytest

from dmkeras.parts import nearest_pictures as pictures

GENERATOR = np.random.default_rng(0)
TRAIN, UNSEEN = np.split(GENERATOR.random((50, 3, 4, 2)), [30])


@pytest.fixture
def generator():
    return np.random.default_rng(1)


def check_nearest(nearest):
    indices, distances = nearest(UNSEEN.astype("float32"), TRAIN)
    apart = np.sqrt(((UNSEEN[:, None] - TRAIN) ** 2).sum(axis=(2, 3, 4)))
    np.testing.assert_array_equal(indices, apart.argmin(axis=1))
    np.testing.assert_allclose(distances, apart.min(axis=1), rtol=1e-6)
    indices, distances = nearest(TRAIN[[7, 29, 0]], TRAIN)
    assert (indices.tolist(), distances.tolist()) == ([7, 29, 0], [0, 0, 0])


@pytest.mark.parametrize("block", [4, 512])
def test_the_nearest_picture_is_that_of_a_search_one_by_one(block, monkeypatch):
    monkeypatch.setattr(pictures, "BLOCK", block)
    check_nearest(pictures.nearest)


def by_absolute_differences(samples, train):
    apart = np.abs(samples[:, None] - train).sum(axis=(2, 3, 4))
    return apart.argmin(axis=1), apart.min(axis=1)


def in_the_first_block(samples, train):
    return pictures.nearest(samples, train[:16])


def by_products_alone(samples, train):
    """In float32, where |x|^2 - 2 x . y + |y|^2 leaves something of a copy."""
    x, y = (np.asarray(a, "float32").reshape(len(a), -1) for a in (samples, train))
    squares = np.maximum((x**2).sum(axis=1)[:, None] - 2 * x @ y.T + (y**2).sum(axis=1), 1e-6)
    return squares.argmin(axis=1), np.sqrt(squares.min(axis=1))


@pytest.mark.parametrize("wrong", [by_absolute_differences, in_the_first_block, by_products_alone])
def test_a_wrong_search_is_caught(wrong):
    with pytest.raises(AssertionError):
        check_nearest(wrong)


def test_copies_are_memorised_and_unseen_pictures_are_not(generator):
    assert pictures.memorised(TRAIN[5:15], TRAIN, UNSEEN) == 0
    assert pictures.memorised(UNSEEN, TRAIN, UNSEEN) == 1
    near = np.clip(TRAIN + 0.01 * generator.normal(size=TRAIN.shape), 0, 1)
    assert 0 < pictures.memorised(near, TRAIN, UNSEEN) < 0.1
    assert 0.9 < pictures.memorised(generator.random(UNSEEN.shape), TRAIN, UNSEEN) < 1.1
    with pytest.raises(ValueError, match="held-out pictures that are not in train"):
        pictures.memorised(UNSEEN, TRAIN, TRAIN[:3])


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (255 * UNSEEN, "divide 8-bit pixels by 255"),
        (np.where(UNSEEN.argmax() == np.arange(480).reshape(UNSEEN.shape), np.nan, UNSEEN), "1 that are not finite"),
        (UNSEEN[..., :1], r"expected images \[B, 3, 4, 2\], received \[20, 3, 4, 1\]"),
        (UNSEEN[0], r"expected images \[N, H, W, C\]"),
        (UNSEEN[:0], r"expected images \[N, H, W, C\]"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(samples, words):
    for measure in (pictures.nearest, lambda samples, train: pictures.memorised(samples, train, UNSEEN)):
        with pytest.raises(ValueError, match=words):
            measure(samples, TRAIN)
