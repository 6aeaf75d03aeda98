"""What the measures of attribution owe: pixels by their middles, shares, ranks, and a sheet of every method."""

import keras
import numpy as np
import pytest
from keras import layers

from dmkeras import figures
from dmkeras.parts import attribution_report as report

RNG = np.random.default_rng(0)


def test_a_pixel_is_inside_where_its_middle_is():
    found = report.inside([[1, 2, 3, 5], [0.4, 0.6, 1.6, 1.4], [-5, -5, 99, 99]], (6, 4))
    assert found.shape == (3, 6, 4)
    right = np.zeros((6, 4), bool)
    right[2:5, 1:3] = True
    np.testing.assert_array_equal(found[0], right)
    assert not found[1].any()  # no middle between .6 and 1.4 down
    assert found[2].all()
    np.testing.assert_array_equal(np.argwhere(report.inside([[0.4, 0.4, 1.6, 1.4]], (6, 4))[0]), [[0, 0], [0, 1]])


def test_pointing_counts_maxima_and_equal_ones_by_their_part():
    within = np.zeros((3, 4, 5), bool)
    within[:, :2] = True
    maps = RNG.random((3, 4, 5))
    maps[0, 1, 2] = 2.0  # inside
    maps[1, 3, 2] = 0.999 + maps[1].max()  # outside, and the second picture's scale is another
    assert report.pointing(maps[:2], within[:2]) == 0.5
    maps[2] = 0.0  # empty: 10 of 20 pixels
    assert report.pointing(maps[2:], within[2:]) == 0.5
    maps[2, 1, 1] = maps[2, 0, 0] = maps[2, 3, 3] = 7.0
    np.testing.assert_allclose(report.pointing(maps, within), (1 + 0 + 2 / 3) / 3)


def test_mass_is_the_share_inside_of_each_map():
    within = np.zeros((2, 4, 5), bool)
    within[:, :1] = True
    maps = np.zeros((2, 4, 5))
    maps[0, 0, 1], maps[0, 3, 1] = 1.0, 3.0
    maps[1, 0, 1] = 1000.0  # another scale does not weigh more
    np.testing.assert_allclose(report.mass(maps, within), (0.25 + 1) / 2)
    np.testing.assert_allclose(report.mass(np.zeros((2, 4, 5)), within), 0.25)


def test_likeness_is_the_rank_correlation_of_each_picture():
    from scipy.stats import spearmanr

    first, second = RNG.random((2, 3, 6, 7))
    second[1] = np.exp(first[1])  # another scale, the same order
    second[2] = np.round(second[2], 1)  # ties
    right = np.mean([spearmanr(a.ravel(), b.ravel())[0] for a, b in zip(first, second)])
    np.testing.assert_allclose(report.likeness(first, second), right, rtol=1e-6)
    assert report.likeness(first, 1 - first) == pytest.approx(-1)
    assert report.likeness(first, np.zeros_like(first)) == 0


def test_edges_are_the_length_of_the_gradient():
    rows, columns = np.mgrid[:6, :7].astype("float32")
    image = np.stack([3 * rows + 4 * columns, 0 * rows, columns], -1)[None]
    np.testing.assert_allclose(report.edges(image), np.full((1, 6, 7), 5.0), rtol=1e-6)
    np.testing.assert_allclose(report.edges(image[..., 1:]), np.full((1, 6, 7), 1.0), rtol=1e-6)


def test_weights_are_shuffled_meanwhile_and_only_then():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.Dense(5)])
    model.set_weights([RNG.normal(size=weight.shape) for weight in model.get_weights()])
    before = model.get_weights()
    with report.shuffled(model.layers[1:]):
        inside = model.get_weights()
    for was, now in zip(before[:2], inside[:2], strict=True):
        np.testing.assert_array_equal(was, now)
    for was, now in zip(before[2:], inside[2:], strict=True):
        assert not np.array_equal(was, now)
        np.testing.assert_array_equal(np.sort(was, None), np.sort(now, None))
        assert not np.array_equal(now.ravel(), np.sort(now, None))
    failing = report.shuffled(model.layers, 1)
    with pytest.raises(RuntimeError), failing:
        raise RuntimeError
    for was, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)


def test_the_sheet_has_a_row_for_each_picture_and_a_column_for_each_method():
    images, seen = RNG.random((2, 10, 12, 3)), {}
    maps = {"one": RNG.normal(size=(2, 10, 12)), "two": 1e-6 * RNG.random((2, 10, 12)), "none": np.zeros((2, 10, 12))}

    class Spy:
        @staticmethod
        def grid(tiles, **options):
            seen.update(options, tiles=tiles)
            return figures.grid(tiles, **options)

    found = report.side_by_side(images, maps, ["cat", "dog"], Spy, title="t")
    assert found.dtype == np.uint8
    assert seen["column_labels"] == ["picture", "one", "two", "none"]
    assert seen["row_labels"] == ["cat", "dog"]
    assert seen["title"] == "t"
    tiles = seen["tiles"]
    assert len(tiles) == 8
    np.testing.assert_array_equal(tiles[4], images[1])
    for place, name in ((1, "one"), (5, "one"), (2, "two")):
        values = np.maximum(maps[name][place // 4], 0)
        np.testing.assert_allclose(tiles[place], np.minimum(values / np.percentile(values, 99), 1), rtol=1e-6)
        assert tiles[place].max() == 1
    assert not tiles[3].any()
