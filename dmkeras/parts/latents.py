"""Latents of a generator and the pictures they become: draws, lines between them, sums of concepts, endpoints.

A model that uses these functions has `generator` (z [B, Z] -> images), `latent_size`, `average` and, where that is not
0, `averaged`, the network that draws in the generator's place, and `noise`, a seed generator for training.

Latents are uniform in [-1, 1].

Shapes:  B batch, H height, W width, C colours, Z latent size, S steps of an interpolation, N latents of a concept.
"""

import keras
import numpy as np
import tensorflow as tf

from dmkeras.parts.checks import is_symbolic, whole_number
from dmkeras.parts.seeds import sample_seeds, uniforms

STEPS = 8  # of the interpolations that are served


def draw(model, count):
    """Fresh latents [count, Z] for training."""
    return keras.random.uniform((count, model.latent_size), -1.0, 1.0, seed=model.noise)


def latent(model, seed):
    """seed [B, 2] int32 -> latents [B, Z], a row of which depends on its row of `seed` alone."""
    return 2 * tf.transpose(uniforms(seed, model.latent_size)) - 1


def generate(model, z):
    """z [B, Z] -> images [B, H, W, C] float32 in [0, 1]."""
    network = model.averaged if model.average else model.generator
    return tf.cast(network(z, training=False), "float32")


def sample(model, num_samples, seed=None):
    """num_samples pictures, float32; an integer `seed` gives the same again."""
    return generate(model, latent(model, sample_seeds(num_samples, seed)))


def interpolate(model, a, b, steps=STEPS):
    """Pictures on the straight lines from latents a to b, each [B, Z] -> [B, S, H, W, C]."""
    a, b = (check_latents(model, z) for z in (a, b))
    if a.shape[0] != b.shape[0]:
        raise ValueError(f"expected as many latents to end at as to start from, received {a.shape[0]} and {b.shape[0]}")
    if whole_number("steps", steps) < 2:
        raise ValueError(f"steps must be at least 2 (the two ends), received {steps}")
    part = tf.linspace(0.0, 1.0, steps)[:, None]
    path = a[:, None] + part * (b - a)[:, None]  # [B, S, Z]
    images = generate(model, tf.reshape(path, (-1, model.latent_size)))
    return tf.reshape(images, (-1, steps, *images.shape[1:]))


def arithmetic(model, plus, minus=()):
    """Sum of the concepts of `plus` less those of `minus` -> image [H, W, C]; a concept, [N, Z], counts by its mean."""
    plus, minus = ([check_latents(model, z) for z in concepts] for concepts in (plus, minus))
    if not plus + minus:
        raise ValueError("expected at least one concept, [N, Z] latents, received none")
    if not all(z.shape[0] for z in plus + minus):
        raise ValueError("expected latents whose mean is a concept, received a concept of no latents")
    z = sum(tf.reduce_mean(z, axis=0) for z in plus) - sum(tf.reduce_mean(z, axis=0) for z in minus)
    return generate(model, z[None])[0]


def check_latents(model, z):
    """`z` as float32; ValueError unless it is [B, Z] of finite numbers."""
    if not is_symbolic(z):
        z = np.asarray(z)
        if z.dtype.kind not in "fiu" or not np.isfinite(z).all():
            raise ValueError(
                f"expected latents [B, {model.latent_size}] of finite numbers, received others ({z.dtype})"
            )
    if len(z.shape) != 2 or z.shape[-1] != model.latent_size:
        raise ValueError(f"expected latents [B, {model.latent_size}], received {list(z.shape)}")
    return tf.cast(z, "float32")


def signatures(model):
    """`generate` (also the default), `sample` and `interpolate`."""
    z, a, b = (tf.TensorSpec((None, model.latent_size), "float32", name=name) for name in ("z", "a", "b"))
    seed = tf.TensorSpec((None, 2), "int32", name="seed")
    made = lambda z: {"images": generate(model, z)}
    return {
        "serving_default": (made, [z]),
        "generate": (made, [z]),
        "sample": (lambda seed: made(latent(model, seed)), [seed]),
        "interpolate": (lambda a, b: {"images": interpolate(model, a, b)}, [a, b]),
    }
