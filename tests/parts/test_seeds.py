"""Laws of seeds in rows."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from dmkeras.parts.seeds import check_row_seeds, normals, row_seeds, uniforms, whole_numbers


def test_a_column_depends_on_its_row_alone():
    seed = np.array([[0, 0], [5, 1], [0, 1], [5, 1]], "int32")
    together = uniforms(tf.constant(seed), 7).numpy()
    assert together.shape == (7, 4)
    for column, row in enumerate(seed):
        np.testing.assert_array_equal(together[:, column], uniforms(tf.constant(row[None]), 7)[:, 0])
    np.testing.assert_array_equal(together[:, 1], together[:, 3])
    assert len(np.unique(together[:, :3])) == 21


def test_the_numbers_are_uniform():
    numbers = uniforms(row_seeds(50, 3), 400).numpy()
    assert numbers.dtype == np.float32
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert stats.kstest(numbers.ravel(), "uniform").pvalue > 0.01
    assert np.abs(np.corrcoef(numbers.T) - np.eye(50)).max() < 0.25  # rows of neighbouring seeds share nothing


def test_a_seed_has_a_row_for_each_picture_and_none_is_fresh():
    np.testing.assert_array_equal(row_seeds(3, 8), [[8, 0], [8, 1], [8, 2]])
    assert row_seeds(3, 8).dtype == tf.int32
    assert len({int(row_seeds(1)[0, 0]) for _ in range(4)}) > 1
    assert row_seeds(1, 2**31 - 1)[0, 0] == 2**31 - 1


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_seeds_that_int32_does_not_hold_are_refused(seed):
    with pytest.raises(ValueError, match=f"seed must be from 0 to 2\\*\\*31 - 1, received {seed}"):
        row_seeds(2, seed)


def test_a_seed_is_a_whole_number_of_any_kind():
    np.testing.assert_array_equal(row_seeds(1, np.int64(7)), row_seeds(1, 7))
    for seed in (1.5, 2.0, "3", np.float32(4)):
        with pytest.raises(ValueError, match="seed must be a whole number, received"):
            row_seeds(2, seed)


@pytest.mark.parametrize("seed", [5, [1, 2], [[1, 2, 3]], [[0.5, 1.0]], [["a", "b"]]])
def test_seeds_of_rows_are_pairs_of_whole_numbers(seed):
    with pytest.raises(ValueError, match=r"expected seeds \[B, 2\] int32, .* received"):
        check_row_seeds(seed)
    rows = check_row_seeds(np.array([[1, 2], [3, 4]]))
    assert rows.dtype == "int32"
    assert rows.shape == (2, 2)


def test_whole_numbers_are_uniform_follow_their_row_and_are_the_same_under_xla():
    seed = row_seeds(40, 3)
    draw = lambda seed: whole_numbers(seed, (50, 2), 7)
    numbers = draw(seed).numpy()
    assert numbers.shape == (40, 50, 2)
    np.testing.assert_array_equal(np.unique(numbers), range(7))
    assert stats.chisquare(np.bincount(numbers.ravel())).pvalue > 0.01
    np.testing.assert_array_equal(draw(seed[5:6])[0], numbers[5])
    np.testing.assert_array_equal(tf.function(draw, jit_compile=True)(seed), numbers)


def test_normal_numbers_are_normal_and_independent():
    draws = np.stack([normals([3, number], (7, 11, 13)) for number in range(60)])
    assert draws.dtype == np.float32
    assert draws.shape == (60, 7, 11, 13)
    assert stats.kstest(draws.ravel(), "norm").pvalue > 0.01
    halves = draws.reshape(60, -1)
    pairs = halves[:, :500].ravel(), halves[:, 501:1001].ravel()  # the two numbers of a pair, among 1001
    assert abs(np.corrcoef(*pairs)[0, 1]) < 0.02
    assert abs(np.corrcoef(pairs[0] ** 2, pairs[1] ** 2)[0, 1]) < 0.02
    assert abs(np.corrcoef(draws[:-1].ravel(), draws[1:].ravel())[0, 1]) < 0.02


def test_normal_numbers_are_the_same_under_xla_and_follow_the_seed():
    draw = lambda seed: normals(seed, (5, 3))
    plain, compiled = draw(tf.constant([4, 9])), tf.function(draw, jit_compile=True)(tf.constant([4, 9]))
    np.testing.assert_allclose(plain, compiled, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(plain, draw(tf.constant([4, 9])))
    assert not np.array_equal(plain, draw(tf.constant([4, 8])))
    assert not np.array_equal(plain, draw(tf.constant([5, 9])))
