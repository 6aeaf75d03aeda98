"""A filter bank: what a classifier of single pixels may know of a pixel and its neighbourhood.

A picture is first moved and scaled to mean 0 and variance 1, each channel for itself, so that brightness and contrast
of a scan say nothing. Then, F features for each pixel, grey being the mean of the channels:

    Gaussian of each channel       sigma 0, 1, 2                 3 C
    Gaussian of grey               sigma 4, 8                    2
    derivatives of grey, y and x   sigma 1, 2, 4                 6
    Laplacian of grey              sigma 1, 2, 4                 3
    grey, sigma 1, elsewhere       8 directions, REACH pixels    24    the neighbourhood, such as the next edge
    position                       y and x in [-1, 1]            2     where pictures share one frame

Sigmas and distances are pixels; beyond the edge the picture goes on with its outermost pixels. The shifted greys stand
for the box features that Valindria et al. (https://arxiv.org/abs/1702.03407) take from atlas forests: without them a
classifier sees no outline that was moved.

Shapes:  H height, W width, C channels, F features.
"""

import numpy as np

REACH = (3, 6, 12)
DIRECTIONS = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x)


def filter_bank(image, position=False):
    """float32 [H, W, F] of one picture [H, W, C]; `position` adds the last two features.

    Raises:
        ValueError: for a picture of another rank, an empty one, or one with numbers that are not finite.
    """
    from scipy import ndimage

    image = np.asarray(image, "float32")
    if image.ndim != 3 or not image.size or not np.isfinite(image).all():
        raise ValueError(f"expected one picture [H, W, C] of finite numbers, received {list(image.shape)}")
    image = standardised(image)
    grey = image.mean(-1)
    smooth = lambda sigma, **options: ndimage.gaussian_filter(grey, sigma, mode="nearest", **options)
    planes = [image[..., c] for c in range(image.shape[2])]
    planes += [ndimage.gaussian_filter(plane, s, mode="nearest") for s in (1, 2) for plane in planes]
    planes += [smooth(sigma) for sigma in (4, 8)]
    planes += [smooth(sigma, order=order) for sigma in (1, 2, 4) for order in ((1, 0), (0, 1))]
    planes += [ndimage.gaussian_laplace(grey, sigma, mode="nearest") for sigma in (1, 2, 4)]
    planes += [elsewhere(smooth(1), r * y, r * x) for r in REACH for y, x in DIRECTIONS]
    if position:
        planes += list(np.meshgrid(*(centres(side) for side in grey.shape), indexing="ij"))
    return np.stack(planes, -1).astype("float32")


def standardised(image):
    """[..., H, W, C] with mean 0 and variance 1 over H and W; a channel of one value becomes zeros."""
    spread = image.std((-3, -2), keepdims=True)
    return (image - image.mean((-3, -2), keepdims=True)) / np.maximum(spread, 1e-3)


def elsewhere(plane, y, x):
    """The values [H, W] that stand y pixels below and x pixels right of each pixel."""
    rows, columns = (np.clip(np.arange(side) + move, 0, side - 1) for side, move in zip(plane.shape, (y, x)))
    return plane[rows[:, None], columns]


def centres(side):
    """The centres of `side` pixels in [-1, 1]."""
    return ((2 * np.arange(side) + 1) / side - 1).astype("float32")
