"""A generator and a discriminator that know the class of a picture, after DCGAN's authors.

    G  z beside y  -> ...                   y the label, one-hot: it stands beside the input of every layer of weights,
    D  images beside y -> ...               beside maps as K constant maps (the authors' `conv_cond_concat`)

Source: github.com/Newmu/dcgan_code, mnist/train_cond_dcgan.py; the game with labels is that of Mirza and Osindero
(https://arxiv.org/abs/1411.1784). A step gives G the labels of the batch that D sees, as the authors' code does.

The functions of parts/adversarial.py and parts/latents.py know no labels: they are given the model with the labels
filled in, `given(model, labels)`. A model that uses this part has `num_classes`, K, and where that is 0 stays itself.

Shapes:  B batch, H height, W width, F maps, Z latent size, K classes.
"""

import functools

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from dmkeras.parts import latents
from dmkeras.parts.checks import is_symbolic
from dmkeras.parts.seeds import sample_seeds, uniforms


@keras.saving.register_keras_serializable("dmkeras")
class BesideLabels(layers.Layer):
    """x [B, F] or [B, H, W, F] and y [B, K] -> [..., F + K], y the same at every place."""

    def call(self, x, y):
        y = y[:, None, None] if len(x.shape) == 4 else y
        return tf.concat([x, y * tf.ones_like(x[..., :1])], axis=-1)

    def compute_output_shape(self, x_shape, y_shape):
        return (*x_shape[:-1], x_shape[-1] + y_shape[-1])


def network(parts, num_classes, name):
    """Layers one after the other, the first an input; with K > 0 of (inputs, y), y beside what goes into a kernel."""
    if not num_classes:
        return keras.Sequential(parts, name=name)
    inputs, *rest = parts
    x, y = inputs, keras.Input((num_classes,))
    for layer in rest:
        if isinstance(layer, (layers.Dense, layers.Conv2D, layers.Conv2DTranspose)):
            x = BesideLabels(dtype=layer.dtype_policy.name)(x, y)
        x = layer(x)
    return keras.Model((inputs, y), x, name=name)


# --- labels filled in -----------------------------------------------------------------------------------------------


class _View:
    """What it is `of`, but with some attributes of its own."""

    def __init__(self, of, **own):
        self.__dict__.update(own, _of=of)

    def __getattr__(self, name):
        return getattr(self._of, name)


class _Given(_View):
    """A network whose labels `y` [B, K] are filled in."""

    def __call__(self, inputs, training=False):
        return self._of((inputs, self.y), training=training)


def given(model, labels, count=None):
    """`model` as one without labels, its networks given `labels` [B]; ValueError unless they are `count` such."""
    if not model.num_classes:
        if labels is not None:
            raise ValueError("expected no labels, since num_classes is 0, received some; make a model with num_classes")
        return model
    y = tf.one_hot(check_labels(labels, model.num_classes, count), model.num_classes)
    names = ("generator", "averaged", "discriminator")
    return _View(model, **{name: _Given(getattr(model, name), y=y) for name in names})


def classes(model, seed):
    """seed [B, 2] int32 -> labels [B] int32, uniform, each a function of its row of `seed` alone."""
    numbers = uniforms(seed, model.latent_size + 1)[-1]  # one more than the latent of the same row takes
    return tf.minimum(tf.cast(numbers * model.num_classes, "int32"), model.num_classes - 1)


def sample(model, num_samples, seed=None, labels=None):
    """num_samples pictures of `labels` [num_samples]; None: of classes drawn by the seed."""
    rows = sample_seeds(num_samples, seed)
    if model.num_classes and labels is None:
        labels = classes(model, rows)
    return latents.generate(given(model, labels, num_samples), latents.latent(model, rows))


def signatures(model):
    """Those of parts/latents.py with `labels` beside: an endpoint cannot refuse, and takes the nearest class."""
    plain, spec = latents.signatures(model), tf.TensorSpec((None,), "int32", name="labels")
    known = lambda labels: given(model, tf.clip_by_value(labels, 0, model.num_classes - 1))
    made = lambda z, labels: {"images": latents.generate(known(labels), z)}
    line = lambda a, b, labels: {"images": latents.interpolate(known(tf.repeat(labels, latents.STEPS)), a, b)}
    functions = {
        "serving_default": made,
        "generate": made,
        "sample": lambda seed, labels: made(latents.latent(model, seed), labels),
        "interpolate": line,
    }
    return {name: (function, [*plain[name][1], spec]) for name, function in functions.items()}


# --- doors ----------------------------------------------------------------------------------------------------------


def check_labels(labels, num_classes, count=None):
    """`labels` as int32 [B]; ValueError unless they are `count` whole numbers from 0 to K - 1. Symbolic values pass."""
    expected = f"expected labels [{'B' if count is None else count}], whole numbers from 0 to {num_classes - 1}"
    if labels is None:
        raise ValueError(f"{expected}, received none; give labels beside the pictures or latents, in this order")
    labels = labels if is_symbolic(labels) else np.asarray(labels)
    kind = tf.as_dtype(labels.dtype)
    if not kind.is_integer or len(labels.shape) != 1 or (count is not None and labels.shape[0] not in (None, count)):
        remedy = "one-hot rows become numbers by argmax(axis=1), a column by [:, 0], floats by astype('int32')"
        raise ValueError(f"{expected}, received {list(labels.shape)} of {kind.name}; {remedy}")
    if not is_symbolic(labels) and labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
        remedy = "count classes from 0, or make a model of more"
        raise ValueError(f"{expected}, received {labels.min()} to {labels.max()}; {remedy}")
    return tf.cast(labels, "int32")


def looks_at_labels(model):
    """A class decorator: `fit` and `evaluate` look at labels as `looks_at_first_batch` does at pictures."""
    fit, evaluate = model.fit, model.evaluate

    @functools.wraps(fit)
    def checked_fit(self, x=None, y=None, *args, **kwargs):
        _check_first_labels(self, x, y)
        held_out = kwargs.get("validation_data")
        _check_first_labels(self, *(held_out[:2] if isinstance(held_out, (tuple, list)) else (held_out, None)))
        return fit(self, x, y, *args, **kwargs)

    @functools.wraps(evaluate)
    def checked_evaluate(self, x=None, y=None, *args, **kwargs):
        if "_use_cached_eval_dataset" not in kwargs:  # Keras's own call within `fit`
            _check_first_labels(self, x, y)
        return evaluate(self, x, y, *args, **kwargs)

    model.fit, model.evaluate = checked_fit, checked_evaluate
    return model


def _check_first_labels(model, x, y):
    """ValueError unless the labels that `fit(x, y)` sees first are such; a generator passes, as its pictures do."""
    if isinstance(x, tf.data.Dataset):
        first = next(iter(x.take(1)), None)
        if first is None or isinstance(first, dict):
            return  # nothing, or what the look at the pictures refuses
        x, y, *_ = first if isinstance(first, (tuple, list)) and len(first) > 1 else (first, None)
    if model.num_classes and isinstance(x, (np.ndarray, tf.Tensor, tuple, list)):
        check_labels(y, model.num_classes)
