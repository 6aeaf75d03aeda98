"""The line of least squares against NumPy's, and intervals that hold what they promise."""

import numpy as np
import pytest

from dmkeras.parts.overlap_calibration import agreement, line, margins

RNG = np.random.default_rng(0)
X = RNG.uniform(0, 1, 200)
Y = 0.3 + 0.5 * X + 0.1 * RNG.normal(size=200)


def test_the_line_is_that_of_least_squares_and_never_falls():
    np.testing.assert_allclose(line(X, Y), np.polyfit(X, Y, 1), rtol=1e-9)
    slope, intercept = line(X, 1 - Y)
    assert slope == 0
    assert abs(intercept - (1 - Y).mean()) < 1e-12
    assert line(np.full(5, 0.4), np.full(5, 0.7)) == (1.0, pytest.approx(0.3))
    assert line([], []) == (1.0, 0.0)


def noise(rng, groups):
    """What a group shares and what it does not."""
    return 0.08 * rng.normal(size=groups.max() + 1)[groups] + 0.05 * rng.normal(size=len(groups))


def coverage(count, level, trials, margins):
    """Share of fresh pairs within the margins around a line of `count` pairs of 2 to a group, over many trials."""
    inside = []
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        groups = np.repeat(np.arange(count // 2), 2)
        x = rng.uniform(0, 1, count)
        y = 0.2 + 0.6 * x + noise(rng, groups)
        slope, intercept = line(x, y)
        low, high = margins(x, y, groups, level)
        fresh = rng.uniform(0, 1, 200)
        residual = 0.2 + 0.6 * fresh + noise(rng, np.arange(200)) - slope * fresh - intercept
        inside.append(np.mean((low <= residual) & (residual <= high)))
    return np.mean(inside)


def of_the_line_itself(x, y, groups, level):
    """Wrong: residuals of the pairs that the line was fitted to."""
    slope, intercept = line(x, y)
    return np.quantile(y - slope * x - intercept, [(1 - level) / 2, (1 + level) / 2])


def test_the_interval_holds_the_share_that_it_promises():
    assert 0.87 < coverage(40, 0.9, 20, margins) < 0.96
    assert 0.47 < coverage(40, 0.5, 20, margins) < 0.6
    few = coverage(10, 0.9, 40, margins)
    assert few > 0.83
    assert coverage(10, 0.9, 40, of_the_line_itself) < min(few - 0.05, 0.8)


def test_the_interval_narrows_with_more_pairs_and_holds_the_line():
    widths = []
    for count in (5, 100):
        found = []
        for seed in range(10):
            rng = np.random.default_rng(seed)
            x = rng.uniform(0, 1, count)
            found.append(margins(x, 0.5 * x + 0.1 * rng.normal(size=count), np.arange(count)))
        assert all(low <= 0 <= high for low, high in found)
        widths.append(np.mean([high - low for low, high in found]))
    assert widths[1] < 0.9 * widths[0]


def test_pairs_of_one_picture_are_left_out_together():
    """Ten copies of each pair in its group say no more than one; as groups of their own they would."""
    x, y = X[:8], Y[:8]
    many = np.repeat(x, 10), np.repeat(y, 10)
    together, apart = margins(*many, np.repeat(np.arange(8), 10)), margins(*many, np.arange(80))
    width = lambda ends: ends[1] - ends[0]
    np.testing.assert_allclose(together, margins(x, y, np.arange(8)), atol=0.06)
    assert width(apart) < width(together)


def test_too_few_pictures_have_no_interval():
    assert margins(X[:4], Y[:4], [0, 0, 1, 1]) == (0.0, 0.0)


def test_agreement_is_pearsons_correlation_and_the_mean_absolute_error():
    real = Y.copy()
    real[:5] = -1
    found = agreement(X, real)
    assert found["correlation"] == pytest.approx(np.corrcoef(X[5:], Y[5:])[0, 1])
    assert found["mae"] == pytest.approx(np.abs(X[5:] - Y[5:]).mean())
    assert agreement([0.5, 0.5], [0.1, 0.9]) == {"correlation": 0.0, "mae": pytest.approx(0.4)}
    assert agreement([0.5], [-1]) == {"correlation": 0.0, "mae": 0.0}
