"""How good drawn pictures are, by measures that need no download: a classifier trained here is the referee.

    Frechet     |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^1/2)   Heusel et al., https://arxiv.org/abs/1706.08500
    kernel      E k(x, x') + E k(y, y') - 2 E k(x, y)               Binkowski et al., https://arxiv.org/abs/1801.01401
                k(x, y) = (x . y / F + 1)^3, without pairs of a row with itself: unbiased
    classifier  exp E_x KL(p(y|x) || p(y))                          Salimans et al., https://arxiv.org/abs/1606.03498
    precision   share of generated rows within a ball around a real one that reaches to its k-th neighbour; recall with
                the parts exchanged                                 Kynkaanniemi et al., https://arxiv.org/abs/1904.06991

The papers' figures come from one Inception network trained on ImageNet. These come from another network and other
features: they compare models under one and the same referee, and stand beside no figure of a paper. Sums are float64;
NumPy arrays at every door, else a ValueError.

Shapes:  N, M, L rows, F features, K classes, H height, W width, C colours.

Deviation from the papers: whole sets, no mean over splits or random subsets, so that a figure is the same again.
"""

import numpy as np

from dmkeras.parts.checks import whole_number
from dmkeras.parts.nearest_pictures import blocks, check_sets, memorised, squared_distances

BATCH = 256  # pictures that a referee sees at a time


def frechet_distance(a, b):
    """Between the Gaussians with the means and covariances (over N - 1) of features a [N, F] and b [M, F].

    Few rows make it too large, by about as much in each model that is compared: take equal numbers, well above F.
    """
    a, b = _two_sets(a, b, least=2)
    roots = [_root(np.cov(x, rowvar=False).reshape(x.shape[1], -1)) for x in (a, b)]
    total = sum((root**2).sum() for root in roots)  # tr S_a + tr S_b
    cross = np.linalg.svd(roots[0] @ roots[1], compute_uv=False).sum()  # tr (S_a S_b)^1/2, S_a and S_b singular or not
    return float(max(0.0, ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + total - 2 * cross))


def kernel_distance(a, b):
    """Squared maximum mean discrepancy of features a [N, F] and b [M, F]: (estimate, standard error).

    Unbiased, so that it may be below 0. The error is the jackknife's over rows of both: some 1.4 times too large where
    the sets are alike.
    """
    a, b = _two_sets(a, b, least=3)
    inside = [_kernel_sums(x, x, same=True)[0] for x in (a, b)]  # of each row, with all others
    across = _kernel_sums(a, b)
    sizes = [len(a), len(b)]
    means = [sums.sum() / (n * (n - 1)) for sums, n in zip(inside, sizes, strict=True)]
    estimate = sum(means) - 2 * across[0].sum() / (sizes[0] * sizes[1])
    variance = 0.0
    for n, m, own, other in zip(sizes, sizes[::-1], inside, across, strict=True):
        without = (own.sum() - 2 * own) / ((n - 1) * (n - 2)) - 2 * (other.sum() - other) / ((n - 1) * m)
        variance += (n - 1) * without.var()
    return float(estimate), float(variance**0.5)


def classifier_score(probabilities):
    """Of probabilities [N, K], from 1 (all pictures the same to the classifier) to K (sure of each, classes equal)."""
    p = _probabilities(probabilities)
    log = lambda x: np.log(np.where(x > 0, x, 1.0))
    return float(np.exp(max(0.0, (p * (log(p) - log(p.mean(axis=0)))).sum(axis=1).mean())))


def class_coverage(probabilities):
    """Of probabilities [N, K], whose rows count for their likeliest class: (coverage, entropy of classes in nats).

    Coverage is the share of the K classes that have at least a tenth of N / K rows: one row, unless N is above 10 K.
    """
    p = _probabilities(probabilities)
    counts = np.bincount(p.argmax(axis=1), minlength=p.shape[1])
    shares = counts[counts > 0] / len(p)
    return float(np.mean(counts >= len(p) / p.shape[1] / 10)), float(-(shares * np.log(shares)).sum()) + 0.0


def precision_recall(real, fake, k=3):
    """(precision, recall) of features real [N, F] and fake [M, F] by balls to the k-th nearest neighbour."""
    whole_number("k", k, 1)
    real, fake = _two_sets(real, fake, least=k + 1)
    real, fake = real - real.mean(axis=0), fake - real.mean(axis=0)  # for the rounding of squared_distances
    radii = [_radii(x, k) for x in (real, fake)]
    precise, recalled = np.zeros(len(fake), bool), np.zeros(len(real), bool)
    for rows in blocks(real):
        squares = squared_distances(real[rows], fake)
        precise |= (squares <= radii[0][rows, None]).any(axis=0)
        recalled[rows] = (squares <= radii[1]).any(axis=1)
    return float(precise.mean()), float(recalled.mean())


def report(referee, fake, test, train):
    """All measures of pictures, {name: float}; they are float in [0, 1].

    Args:
        referee: a classifier of such pictures: its call gives logits [N, K], `features(images)["features"]` [N, F].
        fake: [N, H, W, C] generated, at least 4.
        test: [M, H, W, C] of the data, which neither the generator nor the referee was trained on; likewise.
        train: [L, H, W, C] that the generator was trained on.
    """
    fake, test, train = check_sets(fake, test, train)
    seen = [_asked(lambda images: referee.features(images)["features"], images) for images in (test, fake)]
    logits = _asked(referee, fake).astype("float64")
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    kernel, coverage = kernel_distance(*seen), class_coverage(chances)
    precision, recall = precision_recall(*seen)
    return {
        "frechet_distance": frechet_distance(*seen),
        "kernel_distance": kernel[0],
        "kernel_distance_standard_error": kernel[1],
        "classifier_score": classifier_score(chances),
        "class_coverage": coverage[0],
        "class_entropy": coverage[1],
        "precision": precision,
        "recall": recall,
        "memorised": memorised(fake, train, test),
    }


def _asked(function, images):
    return np.concatenate([np.asarray(function(images[i : i + BATCH])) for i in range(0, len(images), BATCH)])


def _root(covariance):
    """Its symmetric square root; what rounding leaves below 0 counts as 0."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def _kernel_sums(x, y, same=False):
    """sum_j k(x_i, y_j) [N] and sum_i k(x_i, y_j) [M]; without pairs i = j where both are the same set."""
    of_x, of_y = np.zeros(len(x)), np.zeros(len(y))
    for rows in blocks(x):
        values = (x[rows] @ y.T / x.shape[1] + 1) ** 3
        if same:
            values[np.arange(len(values)), np.arange(len(values)) + rows.start] = 0
        of_x[rows] = values.sum(axis=1)
        of_y += values.sum(axis=0)
    return of_x, of_y


def _radii(x, k):
    """Squared distance of each row to the k-th nearest other row."""
    return np.concatenate([np.partition(squared_distances(x[rows], x), k, axis=1)[:, k] for rows in blocks(x)])


def _two_sets(a, b, least):
    a, b = (_rows("features [N, F]", x) for x in (a, b))
    if a.shape[1] != b.shape[1] or min(len(a), len(b)) < least:
        shapes = f"{list(a.shape)} and {list(b.shape)}"
        raise ValueError(f"expected sets of at least {least} rows and of equally many features, received {shapes}")
    return a, b


def _probabilities(p):
    p = _rows("probabilities [N, K]", p)
    if p.min() < 0 or abs(p.sum(axis=1) - 1).max() > 1e-3:
        raise ValueError("expected rows of probabilities that sum to 1, received others; apply softmax to logits")
    return p / p.sum(axis=1, keepdims=True)


def _rows(name, x):
    x = np.asarray(x)
    if x.ndim != 2 or not x.size or x.dtype.kind not in "fiu":
        raise ValueError(f"expected {name} of numbers, received {list(x.shape)} of {x.dtype}")
    if not np.isfinite(x).all():
        raise ValueError(f"expected {name} of finite numbers, received {(~np.isfinite(x)).sum()} that are not")
    return x.astype("float64")
