"""What stands at the doors of the models: pictures of another shape or range end in an error, not in a wrong number."""

import functools
import operator

import numpy as np
import tensorflow as tf


def looks_at_first_batch(model):
    """A class decorator: `fit` and `evaluate` of a `keras.Model` look at their first batch by its `check_images`.

    Arrays are looked at whole, and so is what `validation_data` holds. A model with `check_targets` has what it learns
    towards looked at, too.
    """
    fit, evaluate = model.fit, model.evaluate

    @functools.wraps(fit)
    def checked_fit(self, x=None, y=None, *args, **kwargs):
        for given in ((x, y), kwargs.get("validation_data")):
            check_first_batch(given, self.check_images, getattr(self, "check_targets", None))
        return fit(self, x, y, *args, **kwargs)

    @functools.wraps(evaluate)
    def checked_evaluate(self, x=None, y=None, *args, **kwargs):
        if "_use_cached_eval_dataset" not in kwargs:  # Keras's own call within `fit`, epoch after epoch
            check_first_batch((x, y), self.check_images, getattr(self, "check_targets", None))
        return evaluate(self, x, y, *args, **kwargs)

    model.fit, model.evaluate = checked_fit, checked_evaluate
    return model


def check_first_batch(given, check_images, check_targets=None):
    """Looks at the pictures, and targets, that `fit` sees first; a generator passes, since a look would use it up.

    given: a dataset, pictures, or (pictures or a dataset, targets, ...).
    """
    given = given if isinstance(given, (tuple, list)) else (given,)
    if given and isinstance(given[0], tf.data.Dataset):
        given = next(iter(given[0].take(1)), ())
        given = given if isinstance(given, (tuple, list)) else (given,)
    known = (np.ndarray, tf.Tensor, dict)
    if given and isinstance(given[0], known):
        check_images(given[0])
    if check_targets and len(given) > 1 and given[1] is not None:
        check_targets(given[1])


def whole_number(name, value, least=None):
    """`value`, NumPy's too, as an int; ValueError unless it is one and at least `least`."""
    try:
        value = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be a whole number, received {value!r}") from None
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, received {value}")
    return value


def number(name, value, least=0.0, below=np.inf):
    """`value` as a float; ValueError unless it is one, at least `least` and less than `below`."""
    try:
        if isinstance(value, str):
            raise TypeError
        value = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a number, received {value!r}") from None
    if not least <= value < below:
        limit = f" and less than {below:g}" if np.isfinite(below) else " and finite"
        raise ValueError(f"{name} must be at least {least:g}{limit}, received {value}")
    return value


def one_of(name, value, choices):
    """`value`; ValueError unless it is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, received {value!r}")
    return value


def check_image_shape(image_shape):
    """`image_shape`, NumPy's numbers too, as a tuple of ints; ValueError unless it is three of at least 1."""
    sizes = image_shape if np.shape(image_shape) == (3,) else ()
    if not sizes or not all(isinstance(size, (int, np.integer)) and size >= 1 for size in sizes):
        raise ValueError(f"image_shape must be (height, width, channels), received {image_shape}")
    return tuple(int(size) for size in sizes)


def is_symbolic(values):
    """Whether `values` is a tensor of a graph, which has no values to look at."""
    return isinstance(values, tf.Tensor) and not tf.executing_eagerly()


def check_shape(name, values, shape):
    """ValueError unless `values` is [B, *shape]."""
    if isinstance(values, dict):
        keys = ", ".join(values)
        raise ValueError(f"expected {name}, received a dict of {keys}; map it to record['image'] or the like")
    if tuple(values.shape)[1:] != tuple(shape):
        raise ValueError(f"expected {name} [B, {', '.join(map(str, shape))}], received {list(values.shape)}")


def check_images(images, image_shape, slack=0.0):
    """ValueError unless `images` is [B, *image_shape] of numbers in [0, 1], `slack` allowed; symbolic tensors pass."""
    if is_symbolic(images):
        return
    received = f"{type(images).__module__}.{type(images).__name__}".removeprefix("builtins.")
    images = images if isinstance(images, dict) else np.asarray(images)
    if not isinstance(images, dict) and images.dtype.kind in "OUSMmc":
        raise ValueError(f"expected images as an array of numbers, received {received} of {images.dtype}")
    check_shape("images", images, image_shape)
    low, high = (images.min(), images.max()) if images.size else (0, 0)
    if not -slack <= low <= high <= 1 + slack:  # nor where one is no number
        wrong = np.size(images) - np.isfinite(images).sum()
        if wrong:
            raise ValueError(f"expected pixels in [0, 1], received {wrong} that are not finite; look at the data")
        remedy = "divide 8-bit pixels by 255" if high > 1 and low >= 0 else "move and scale them"
        raise ValueError(f"expected pixels in [0, 1], received {low} to {high}; {remedy}")


def check_known_mask(known_mask, shape):
    """`known_mask`, [H, W, 1] or of a batch, as ones and zeros of `shape`, [B, H, W, 1] float32; else ValueError."""
    try:
        known = np.asarray(known_mask, "float32")
    except (TypeError, ValueError):
        raise ValueError(f"expected known_mask of numbers, received {known_mask!r:.60}") from None
    try:
        known = np.broadcast_to(known, shape)
    except ValueError:
        received = list(known.shape)
        raise ValueError(f"expected known_mask {list(shape)} or {list(shape[1:])}, received {received}") from None
    wrong = ~np.isin(known, (0, 1))
    if wrong.any():
        expected = "1 where a pixel is given and 0 elsewhere"
        raise ValueError(f"expected known_mask of {expected}, received {known[wrong][0]:.4g} among others")
    return known
