"""What keeps a made picture a picture: penalties, shrinking, blur, clipping, and pictures shaken before they are seen.

x is a picture less its mean, 0 is the mean picture.

    squared_norm       |x|^2                                  Simonyan et al. (https://arxiv.org/abs/1312.6034), eq. 1
    total_variation    sum of (x[i+1, j] - x[i, j])^2 + (x[i, j+1] - x[i, j])^2
    jittered           x rolled by a random offset, other ones at each step     DeepDream

Yosinski et al. (https://arxiv.org/abs/1506.06579), section 4, each after a step x + rate * dA/dx of an objective A:

    decayed                (1 - decay) x
    blurred                a Gaussian of a radius in pixels, every n steps; below .3 pixels it does nothing
    without_small_norms    0 where the norm over channels is below its percentile over the picture
    without_small_contributions    0 where |sum over channels of x dA/dx| is below its percentile over the picture

All are functions of tensors, differentiable but for the percentiles, of one row each, and compile under XLA. Sides of
pictures are known numbers.

Shapes:  B batch, H height, W width, C channels, S steps.
"""

import functools

import numpy as np
import tensorflow as tf

from dmkeras.parts.seeds import whole_numbers

LEAST_RADIUS = 0.3  # pixels: a Gaussian below it keeps 99.6 per cent of a pixel in its place
REACH = 4  # standard deviations at which a Gaussian ends, as SciPy's does


# --- penalties ------------------------------------------------------------------------------------------------------


def squared_norm(x):
    """[B, ...] -> [B]."""
    return tf.reduce_sum(tf.square(x), list(range(1, x.shape.rank)))


def total_variation(x):
    """[B, H, W, C] -> [B], the squares of the differences between neighbours."""
    return squared_norm(x[:, 1:] - x[:, :-1]) + squared_norm(x[:, :, 1:] - x[:, :, :-1])


# --- what is done to a picture after a step ---------------------------------------------------------------------------


def decayed(x, decay):
    return (1 - decay) * x


def blurred(x, radius):
    """x [B, H, W, C] under a Gaussian of standard deviation `radius`, a number; its edges are mirrors."""
    if radius < LEAST_RADIUS:
        return x
    down, across = (tf.constant(_gaussian(side, radius), x.dtype) for side in x.shape[1:3])
    return tf.einsum("ih,bhwc,jw->bijc", down, x, across)


def every(x, step, period, change):
    """change(x) at each `period`-th step, counted from 0, as of the end of that step; x at others."""
    return tf.cond((step + 1) % period == 0, lambda: change(x), lambda: x)


def without_small_norms(x, percentile):
    """x [B, H, W, C], 0 where the norm over channels is below its `percentile`, a number from 0 to 100."""
    return _kept(x, tf.norm(x, axis=-1), percentile)


def without_small_contributions(x, gradient, percentile):
    """x, 0 where what a pixel contributes to an objective of this gradient is below its `percentile`."""
    return _kept(x, tf.abs(tf.reduce_sum(x * gradient, -1)), percentile)


def _kept(x, sizes, percentile):
    """x where `sizes` [B, H, W] are at least their percentile, between ranks as np.percentile has it; 0 elsewhere."""
    if percentile <= 0:
        return x
    ranked = tf.sort(tf.reshape(sizes, (-1, sizes.shape[1] * sizes.shape[2])), axis=1)
    rank = percentile / 100 * (ranked.shape[1] - 1)
    low, high = ranked[:, int(rank)], ranked[:, int(np.ceil(rank))]
    limit = low + (rank - int(rank)) * (high - low)
    return tf.where(sizes[..., None] >= limit[:, None, None, None], x, 0)


@functools.cache
def _gaussian(side, radius):
    """[side, side]: row i weighs the pixels that are seen at i, mirrored at the ends: d c b a | a b c d | d c b a."""
    reach = int(REACH * radius + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / radius) ** 2)
    places = (np.arange(side)[:, None] + np.arange(-reach, reach + 1)) % (2 * side)
    places = np.where(places < side, places, 2 * side - 1 - places)
    matrix = np.zeros((side, side))
    np.add.at(matrix, (np.arange(side)[:, None], places), weights / weights.sum())
    return matrix


# --- what is done to it before it is seen -----------------------------------------------------------------------------


def jittered(x, offsets):
    """x [B, H, W, C] rolled down and right by `offsets` int32 [B, 2], round its edges."""
    for axis in (1, 2):
        side = x.shape[axis]
        places = tf.math.floormod(tf.range(side) - offsets[:, axis - 1 : axis], side)  # [B, side]
        x = tf.gather(x, places, axis=axis, batch_dims=1)
    return x


def offsets(seed, steps, most):
    """seed [B, 2] int32 (parts/seeds.py) -> int32 [S, B, 2] from -most to most, other ones at each of S `steps`."""
    return tf.transpose(whole_numbers(seed, (steps, 2), 2 * most + 1) - most, (1, 0, 2))
