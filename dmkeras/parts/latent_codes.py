"""Latents of several kinds: noise that nobody names, categorical codes that are one-hot, continuous codes.

    noise         [B, Z]  uniform in [-1, 1]
    categories    [B, K]  one-hot, uniform; with several such codes categories_0, categories_1 ...
    continuous    [B, U]  uniform in [-1, 1]

Side by side in this order they are one latent [B, T], what a generator is given.

Shapes:  B batch, Z noise size, K categories, U continuous codes, T all latents, R random numbers of a draw.
"""

import keras
import numpy as np
import tensorflow as tf

from dmkeras.parts.checks import is_symbolic
from dmkeras.parts.seeds import uniforms


class LatentCodes:
    """Which latents there are.

    Args:
        noise: Z.
        categories: K of each categorical code.
        continuous: U.
    """

    def __init__(self, noise, categories, continuous):
        endings = [f"_{i}" for i in range(len(categories))] if len(categories) > 1 else [""]
        self.categories = {f"categories{end}": size for end, size in zip(endings, categories)}
        self.sizes = {"noise": noise, **self.categories, "continuous": continuous}
        self.latent_size = sum(self.sizes.values())  # T
        self.numbers = noise + len(categories) + continuous  # R

    def draw(self, count, generator):
        """{name: latents [count, size]} of a Keras seed generator."""
        return self.of_uniform(keras.random.uniform((count, self.numbers), seed=generator))

    def of_rows(self, seed):
        """seed [B, 2] int32 -> {name: latents}, a row of which depends on its row of `seed` alone."""
        return self.of_uniform(tf.transpose(uniforms(seed, self.numbers)))

    def of_uniform(self, numbers):
        """Uniform numbers in [0, 1) [B, R] -> {name: latents}."""
        noise = self.sizes["noise"]
        found, picks = {"noise": 2 * numbers[:, :noise] - 1}, numbers[:, noise:]
        for i, (name, size) in enumerate(self.categories.items()):
            found[name] = tf.one_hot(tf.minimum(tf.cast(picks[:, i] * size, "int32"), size - 1), size)
        return {**found, "continuous": 2 * picks[:, len(self.categories) :] - 1}

    def check(self, noise, categories, continuous):
        """{name: latents} float32 of what a caller gives; ValueError for other sizes, and categories not one-hot.

        Args:
            noise: [B, Z].
            categories: [B, K], or a list with an array for each code.
            continuous: [B, U], or None where there are none.
        """
        categories = list(categories) if isinstance(categories, (tuple, list)) else [categories]
        if len(categories) != len(self.categories):
            expected = f"{len(self.categories)} categorical codes ({', '.join(self.categories) or 'none'})"
            remedy = "give several as a list of one-hot arrays [B, K]"
            raise ValueError(f"expected {expected}, received {len(categories)}; {remedy}")
        continuous = tf.zeros((len(noise), 0)) if continuous is None else continuous
        given = dict(zip(self.sizes, (noise, *categories, continuous)))
        found = {name: self._checked(name, value) for name, value in given.items()}
        if len({value.shape[0] for value in found.values()}) > 1:
            received = ", ".join(f"{name} {list(value.shape)}" for name, value in found.items())
            raise ValueError(f"expected latents of one batch, received {received}")
        return found

    def _checked(self, name, value):
        size = self.sizes[name]
        remedy = f"; tf.one_hot(numbers, {size}) makes them" if name in self.categories else ""
        if not is_symbolic(value) and np.asarray(value).dtype.kind not in "fiu":
            raise ValueError(f"expected {name} [B, {size}] of numbers, received {type(value).__name__}{remedy}")
        value = tf.cast(value, "float32")
        if value.shape.rank != 2 or value.shape[-1] != size:
            raise ValueError(f"expected {name} [B, {size}], received {list(value.shape)}{remedy}")
        if is_symbolic(value):
            return value
        rows = np.asarray(value)
        wrong = ~np.isfinite(rows).all(axis=1)
        if wrong.any():
            raise ValueError(f"expected {name} of finite numbers, received {rows[wrong][0].tolist()}{remedy}")
        if name in self.categories:
            wrong = ((rows != 0) & (rows != 1)).any(axis=1) | (rows.sum(axis=1) != 1)
        if wrong.any():
            raise ValueError(f"expected {name} one-hot, one 1 in a row, received {rows[wrong][0].tolist()}{remedy}")
        return value

    def specs(self):
        """Named tf.TensorSpecs of the latents that an endpoint takes, those of no size left out."""
        sizes = {name: size for name, size in self.sizes.items() if size}
        return [tf.TensorSpec((None, size), "float32", name=name) for name, size in sizes.items()]

    def of_specs(self, *given):
        """What an endpoint is given in the order of `specs` -> a latent [B, T].

        An endpoint cannot refuse: of a row of categories the largest entry is taken for the 1.
        """
        named = {spec.name: value for spec, value in zip(self.specs(), given, strict=True)}
        return join({name: nearest(value) if name in self.categories else value for name, value in named.items()})


def nearest(rows):
    """The one-hot rows nearest to `rows` [B, K]; of equal entries the first is the 1."""
    return tf.one_hot(tf.argmax(rows, axis=-1), rows.shape[-1])


def join(named):
    """{name: latents} -> a latent [B, T]."""
    return tf.concat(list(named.values()), axis=1)
