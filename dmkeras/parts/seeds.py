"""Random numbers of pictures that are drawn in batches: each picture has a seed of its own, a row of two integers."""

import math

import numpy as np
import tensorflow as tf

from dmkeras.parts.checks import whole_number


def check_seed(seed):
    """ValueError unless `seed` is None or an integer that int32 holds."""
    if seed is not None and not 0 <= whole_number("seed", seed) < 2**31:
        raise ValueError(f"seed must be from 0 to 2**31 - 1, received {seed}")


def row_seeds(count, seed=None):
    """A seed for each of `count` pictures, [count, 2] int32: (seed, 0), (seed, 1) ...; None takes a fresh `seed`."""
    check_seed(seed)
    first = np.random.randint(2**31 - 1) if seed is None else seed
    return tf.stack([tf.fill([count], tf.constant(first, "int32")), tf.range(count)], axis=1)


def sample_seeds(num_samples, seed=None):
    """`row_seeds` of what a caller of `sample` gives; ValueError unless that is at least one picture."""
    return row_seeds(whole_number("num_samples", num_samples, 1), seed)


def check_row_seeds(seed):
    """`seed` as int32 [B, 2]; ValueError unless it is whole numbers of this shape, such as `row_seeds` makes."""
    seed = np.asarray(seed)
    if seed.dtype.kind not in "iu" or seed.ndim != 2 or seed.shape[1] != 2:
        received = f"{seed.dtype} {list(seed.shape)}"
        raise ValueError(f"expected seeds [B, 2] int32, a row for each picture, received {received}")
    return tf.cast(seed, "int32")


@tf.function(reduce_retracing=True, autograph=False)
def uniforms(seed, count):
    """seed [B, 2] int32 -> uniform numbers [count, B] in [0, 1); a column depends on its row of `seed` alone."""
    rows = tf.map_fn(lambda row: tf.random.stateless_uniform([count], row), seed, fn_output_signature="float32")
    return tf.transpose(rows)


def normals(seed, shape):
    """Normal numbers of one seed [2] int32, float32 of `shape`: the same with and without XLA.

    TensorFlow's own are others under XLA, and so are its uniform ones: only the bits are the same. These become normal
    by Box and Muller (https://doi.org/10.1214/aoms/1177706645): sqrt(-2 log u) (cos 2 pi v, sin 2 pi v).
    """
    half = (math.prod(shape) + 1) // 2
    bits = tf.random.stateless_uniform([2, half], seed, minval=None, maxval=None, dtype="uint32", alg="philox")
    mantissa = tf.bitwise.right_shift(bits, tf.constant(9, "uint32"))
    u, v = tf.unstack(tf.bitcast(tf.bitwise.bitwise_or(mantissa, tf.constant(0x3F800000, "uint32")), "float32"))
    radius, angle = tf.sqrt(-2.0 * tf.math.log(2.0 - u)), 2.0 * math.pi * v  # u and v are in [1, 2)
    pairs = tf.concat([radius * tf.cos(angle), radius * tf.sin(angle)], 0)
    return tf.reshape(pairs[: math.prod(shape)], shape)


def whole_numbers(seed, shape, below):
    """seed [B, 2] int32 -> int32 [B, *shape] from 0 to below - 1; a row depends on its row of `seed` alone.

    XLA draws the same, as it does not where numbers are floats.
    """
    draw = lambda row: tf.random.stateless_uniform(shape, row, maxval=below, dtype="int32", alg="philox")
    return tf.map_fn(draw, seed, fn_output_signature=tf.TensorSpec(shape, "int32"))
