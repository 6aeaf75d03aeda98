"""The nearest picture of a training set to each drawn picture: what a generator copied instead of learning.

    distance    |x - y|, Euclidean, of all pixels and colours as they are
    memorised   mean distance of samples to the nearest of train / that of held-out pictures

Nearest neighbours beside samples are the usual look for copies (Goodfellow et al. 2014, figure 2,
https://arxiv.org/abs/1406.2661). They find copies, not copies that were moved or lit otherwise. Sums are float64.

Shapes:  N, M rows, F features, H height, W width, C colours.
"""

import numpy as np

from dmkeras.parts.checks import check_images

BLOCK = 512  # rows of a matrix of pairs at a time


def nearest(samples, train):
    """The nearest of train [M, H, W, C] to each of samples [N, H, W, C]: (indices [N], Euclidean distances [N])."""
    samples, train = check_sets(samples, train)
    flat = lambda images: images.reshape(len(images), -1).astype("float64")
    least, indices = np.full(len(samples), np.inf), np.zeros(len(samples), int)
    for known in blocks(train):
        candidates = flat(train[known])
        for rows in blocks(samples):
            squares = squared_distances(flat(samples[rows]), candidates)
            best = squares.argmin(axis=1)
            found = np.take_along_axis(squares, best[:, None], axis=1)[:, 0]
            closer = found < least[rows]
            least[rows] = np.where(closer, found, least[rows])
            indices[rows] = np.where(closer, best + known.start, indices[rows])
    # From the differences themselves: a copy is at 0, not at what products leave of it.
    apart = [np.linalg.norm(flat(samples[rows]) - flat(train[indices[rows]]), axis=1) for rows in blocks(samples)]
    return indices, np.concatenate(apart)


def memorised(samples, train, held_out):
    """Mean distance of samples to the nearest of train over that of held-out pictures: near 1 like these, 0 copies."""
    unseen = nearest(held_out, train)[1].mean()
    if not unseen:
        raise ValueError("expected held-out pictures that are not in train, received copies alone; split the data")
    return float(nearest(samples, train)[1].mean() / unseen)


def blocks(rows):
    """Slices of at most BLOCK rows."""
    return [slice(i, i + BLOCK) for i in range(0, len(rows), BLOCK)]


def squared_distances(x, y):
    """Squared distances [N, M] of rows; those that rounding cannot tell from 0 are 0."""
    scale = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1)
    squares = scale - 2 * x @ y.T
    squares[squares < 1e-13 * scale] = 0
    return squares


def check_sets(*sets):
    """Sets of pictures [N, H, W, C] in [0, 1] of one H, W, C as NumPy arrays; ValueError for others."""
    sets = [np.asarray(images) for images in sets]
    for images in sets:
        if images.ndim != 4 or not len(images):
            raise ValueError(f"expected images [N, H, W, C], received {list(images.shape)}")
        check_images(images, sets[-1].shape[1:])
    return sets
