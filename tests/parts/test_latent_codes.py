"""Laws of latents of several kinds: their draws, and what is taken for such."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from dmkeras.parts.latent_codes import LatentCodes, join, nearest

SEED = tf.constant([[3, 0], [3, 1], [8, 5], [3, 2]])
LAYOUTS = {"one": (3, (4,), 2), "two": (3, (4, 2), 2), "categories": (1, (5,), 0), "continuous": (2, (), 3)}


@pytest.fixture(params=LAYOUTS)
def layout(request):
    return LatentCodes(*LAYOUTS[request.param])


def eye(size, *numbers):
    return np.eye(size, dtype="float32")[list(numbers)]


def test_names_and_sizes_are_those_of_the_codes():
    one, two = LatentCodes(3, (4,), 2), LatentCodes(3, (4, 2), 0)
    assert one.sizes == {"noise": 3, "categories": 4, "continuous": 2}
    assert two.sizes == {"noise": 3, "categories_0": 4, "categories_1": 2, "continuous": 0}
    assert (one.latent_size, two.latent_size) == (9, 9)
    assert [spec.name for spec in one.specs()] == ["noise", "categories", "continuous"]
    assert [tuple(spec.shape) for spec in two.specs()] == [(None, 3), (None, 4), (None, 2)]  # none of size 0


def test_a_row_of_seeds_decides_its_latents_alone(layout):
    together = join(layout.of_rows(SEED)).numpy()
    assert together.shape == (4, layout.latent_size)
    np.testing.assert_array_equal(join(layout.of_rows(SEED[2:3]))[0], together[2])
    np.testing.assert_array_equal(join(layout.of_rows(SEED[::-1])), together[::-1])
    assert len(np.unique(together, axis=0)) == 4


def test_latents_have_their_distributions_and_are_independent(layout):
    drawn = {name: value.numpy() for name, value in layout.draw(4000, keras.random.SeedGenerator(0)).items()}
    numbers = []
    for name, value in drawn.items():
        if name not in layout.categories:
            assert all(stats.kstest(column, stats.uniform(-1, 2).cdf).pvalue > 1e-3 for column in value.T)
            numbers += list(value.T)
            continue
        assert set(np.unique(value)) == {0, 1}
        np.testing.assert_array_equal(value.sum(axis=1), 1)
        assert stats.chisquare(value.sum(axis=0)).pvalue > 1e-3
        numbers.append(value.argmax(axis=1))
    between = np.corrcoef(numbers) - np.eye(len(numbers))
    assert np.abs(between).max() < 4 / 4000**0.5


def test_the_ends_of_the_unit_interval_are_latents_too(layout):
    last = np.nextafter(np.float32(1), np.float32(0))
    for number, place in ((0.0, 0), (last, -1)):
        drawn = layout.of_uniform(tf.fill((1, layout.numbers), number))
        for name, value in drawn.items():
            if name in layout.categories:
                np.testing.assert_array_equal(value[0], eye(layout.sizes[name], place)[0])
            else:
                assert np.all(np.abs(value) <= 1)


def test_what_was_drawn_is_taken(layout):
    drawn = layout.of_rows(SEED)
    categories = [drawn[name] for name in layout.categories]
    found = layout.check(drawn["noise"], categories, drawn["continuous"])
    np.testing.assert_array_equal(join(found), join(drawn))
    np.testing.assert_array_equal(layout.of_specs(*(drawn[spec.name] for spec in layout.specs())), join(drawn))


def test_an_endpoint_takes_the_largest_entry_for_the_one():
    rows = np.array([[0.2, 0.5, 0.3], [2, 1, 0], [0, 0, 0]], "float32")
    np.testing.assert_array_equal(nearest(rows), eye(3, 1, 0, 0))
    found = LatentCodes(1, (3,), 1).of_specs(np.full((3, 1), 0.25, "float32"), rows, np.full((3, 1), 7.0, "float32"))
    np.testing.assert_array_equal(
        found, np.concatenate([np.full((3, 1), 0.25), eye(3, 1, 0, 0), np.full((3, 1), 7)], 1)
    )


NOISE, CODES, TURNS = np.zeros((2, 3)), eye(4, 1, 3), np.zeros((2, 2))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((NOISE, CODES * 0.5, TURNS), r"categories one-hot.*received \[0.0, 0.5, 0.0, 0.0\]; tf.one_hot\(numbers, 4\)"),
        ((NOISE, CODES * 0, TURNS), "one 1 in a row"),
        ((NOISE, CODES + eye(4, 0, 0), TURNS), "one 1 in a row"),
        ((NOISE, CODES * 2 - eye(4, 1, 3) * 3, TURNS), "one 1 in a row"),
        ((NOISE, np.array([1, 3]), TURNS), r"categories \[B, 4\], received \[2\]; tf.one_hot"),
        ((NOISE, eye(3, 0, 1), TURNS), r"categories \[B, 4\], received \[2, 3\]"),
        ((NOISE, CODES * np.nan, TURNS), "categories of finite numbers"),
        ((NOISE, [CODES, CODES], TURNS), r"1 categorical codes \(categories\), received 2"),
        ((NOISE, (), TURNS), "received 0; give several as a list"),
        ((NOISE[:, :2], CODES, TURNS), r"noise \[B, 3\], received \[2, 2\]"),
        ((NOISE + np.inf, CODES, TURNS), "noise of finite numbers"),
        ((NOISE, None, TURNS), r"categories \[B, 4\] of numbers, received NoneType"),
        ((NOISE, CODES, None), r"continuous \[B, 2\], received \[2, 0\]"),
        ((NOISE, CODES, TURNS[:1]), r"of one batch, received noise \[2, 3\]"),
    ],
)
def test_what_is_no_latent_is_refused(given, words):
    layout = LatentCodes(3, (4,), 2)
    layout.check(NOISE, CODES, TURNS + 2)  # outside [-1, 1] is no fault
    with pytest.raises(ValueError, match=words):
        layout.check(*given)
