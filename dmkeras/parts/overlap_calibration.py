"""From predicted to real overlaps: a line of least squares, and where the real one lies around it, by bootstrap.

    real = slope * predicted + intercept + residual,  slope >= 0, so that the order stays

For an interval the line's own residuals are too small, since it was fitted to them. So pictures are drawn with
replacement, DRAWS times, a line is fitted to each draw, and the residuals are those of the pictures that it left out.

Shapes:  N pairs, some of which may share a picture (a group).
"""

import numpy as np

DRAWS = 200
LEAST_GROUPS = 3


def line(x, y):
    """(slope, intercept) of least squares under slope >= 0; x [N] of one value leaves the slope 1, and N = 0 both."""
    if not len(x):
        return 1.0, 0.0
    x, y = np.asarray(x, "float64"), np.asarray(y, "float64")
    inner = x - x.mean()
    spread = (inner**2).sum()
    slope = 1.0 if spread < 1e-12 else max((inner * (y - y.mean())).sum() / spread, 0.0)
    return float(slope), float(y.mean() - slope * x.mean())


def margins(x, y, groups, level=0.9, seed=0):
    """(low, high): between which residuals `level` of unseen pairs lie; zeros for fewer than LEAST_GROUPS groups.

    Args:
        x: predicted overlaps [N].
        y: real ones [N].
        groups: [N] whole numbers; pairs of one group are drawn, and left out, together.
        level: share of the pairs.
        seed: of the draws.
    """
    x, y, groups = np.asarray(x, "float64"), np.asarray(y, "float64"), np.asarray(groups)
    names, rng, residuals = np.unique(groups), np.random.default_rng(seed), []
    for _ in range(DRAWS if len(names) >= LEAST_GROUPS else 0):
        drawn = rng.choice(names, len(names))
        rows = np.concatenate([np.flatnonzero(groups == name) for name in drawn])
        slope, intercept = line(x[rows], y[rows])
        left = ~np.isin(groups, drawn)
        residuals.append(y[left] - slope * x[left] - intercept)
    residuals = np.concatenate(residuals) if residuals else np.zeros(1)
    low, high = np.quantile(residuals, [(1 - level) / 2, (1 + level) / 2])
    return float(min(low, 0.0)), float(max(high, 0.0))


def agreement(predicted, real):
    """{"correlation", "mae"} of pairs [N], real ones of -1 left out; correlation 0 where one is constant."""
    predicted, real = np.asarray(predicted, "float64").ravel(), np.asarray(real, "float64").ravel()
    predicted, real = predicted[real >= 0], real[real >= 0]
    if not len(real):
        return {"correlation": 0.0, "mae": 0.0}
    varies = predicted.std() > 1e-9 and real.std() > 1e-9
    correlation = float(np.corrcoef(predicted, real)[0, 1]) if varies else 0.0
    return {"correlation": correlation, "mae": float(np.abs(predicted - real).mean())}
