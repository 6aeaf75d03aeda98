"""Code spaces: what a generator or a decoder makes pictures of, how far its codes reach, and where to begin in it.

    GAN, DCGAN, InfoGAN    `generate` of latents [B, Z], which are uniform in [-1, 1]
    VAE                    `decode` of z [B, Z], standard normal: 3 standard deviations each way
    Autoencoder            `decode` of z [B, Z], of any size
    any other keras.Model  codes [B, ...] -> pictures

Shapes:  B batch, H height, W width, C channels, Z code size.
"""

import dataclasses
import typing
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from dmkeras.parts import latents

SIGMAS = 3  # standard deviations to a bound


@dataclasses.dataclass(frozen=True)
class Space:
    """A code space.

    Attributes:
        shape: of one code.
        decode: codes [B, *shape] -> pictures [B, H, W, C] in [0, 1], of the codes' dtype.
        low, high: float32 arrays of `shape`, or None for no bound.
        scale: of first codes, times uniform numbers in [-1, 1]; a number or an array of `shape`.
        given: (low, high) as lists and numbers that a configuration holds, or None.
    """

    shape: tuple
    decode: Callable
    low: typing.Any
    high: typing.Any
    scale: typing.Any
    given: typing.Any

    def bounded(self, codes):
        """The nearest codes within the bounds."""
        codes = codes if self.high is None else tf.minimum(codes, tf.cast(self.high, codes.dtype))
        return codes if self.low is None else tf.maximum(codes, tf.cast(self.low, codes.dtype))


def space(latent, image_shape, bounds=None):
    """The space of a model of codes -> pictures.

    Args:
        latent: a model, see the top of the file.
        image_shape: (H, W, C) that its pictures must have.
        bounds: (low, high), each a number, one for each unit, or None; None for those of the model.

    Raises:
        ValueError: for what makes no such pictures of one code, and bounds that do not fit its codes.
    """
    shape, decode, own = _kind(latent)
    checked = lambda codes: tf.cast(decode(codes), codes.dtype)
    spec = tf.TensorSpec((None, *shape), "float32")
    made = tf.function(checked, autograph=False).get_concrete_function(spec).structured_outputs.shape
    if tuple(made[1:]) != tuple(image_shape):
        raise ValueError(f"the latent model makes pictures {made}, the classifier takes {image_shape}; resize one's")
    given = own if bounds is None else bounds
    if given is not None and len(given) != 2:
        raise ValueError(f"expected code_bounds (low, high), received {given!r:.60}")
    low, high = (_bound(value, shape) for value in given or (None, None))
    if low is not None and high is not None and (low > high).any():
        raise ValueError("expected code_bounds (low, high), received some low above high")
    scale = 1.0 if high is None else np.abs(high) / (1 if own == (-1.0, 1.0) else SIGMAS)
    kept = None if bounds is None else [None if v is None else np.asarray(v, "float32").tolist() for v in bounds]
    return Space(tuple(shape), checked, low, high, scale, kept)


def no_bounds(bounds):
    """None; ValueError where bounds are given, but no code space."""
    if bounds is not None:
        raise ValueError("code_bounds are of a code space; give latent=, the model that makes pictures of codes")


def _kind(latent):
    """(shape of a code, codes -> pictures, bounds) of a model."""
    if not isinstance(latent, keras.Model):
        raise ValueError(f"expected latent as a keras.Model of codes -> pictures, received {type(latent).__name__}")
    if getattr(latent, "num_classes", 0) and hasattr(latent, "generate"):
        raise ValueError("this generator takes labels beside its latents; train one with num_classes=0")
    if hasattr(latent, "generate") and hasattr(latent, "latent_size"):
        return (latent.latent_size,), lambda codes: latents.generate(latent, codes), (-1.0, 1.0)
    if hasattr(latent, "decode") and hasattr(latent, "latent_size"):
        normal = hasattr(latent, "prior")
        return (latent.latent_size,), latent.decode, (-float(SIGMAS), float(SIGMAS)) if normal else None
    inputs = getattr(latent, "inputs", None) or []
    if len(inputs) != 1 or None in inputs[0].shape[1:]:
        raise ValueError(
            f"expected latent as a built keras.Model of one input, a code of one shape, received {latent.name} of "
            f"{[tuple(tensor.shape) for tensor in inputs]}"
        )
    return tuple(inputs[0].shape[1:]), lambda codes: latent(codes, training=False), None


def _bound(value, shape):
    if value is None:
        return None
    try:
        found = np.broadcast_to(np.asarray(value, "float32"), shape)
    except (TypeError, ValueError):
        raise ValueError(f"expected a bound as a number or {list(shape)}, received {value!r:.60}") from None
    if not np.isfinite(found).all():
        raise ValueError("expected finite bounds of codes, or None for none")
    return found
