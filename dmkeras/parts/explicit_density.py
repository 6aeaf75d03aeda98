"""What models of p(x) = prod_d p(x_d | x_<d) have in common: likelihoods from logits, exact draws, endpoints.

Pixels are k / (levels - 1) for k = 0 .. levels - 1. Logits of two levels are those of the value 1, `[B, H, W, C]`
(Bernoulli); of more, one for each level, `[B, H, W, C, K]` (softmax). Probabilities are never computed on the way to a
likelihood: log-probabilities of logits have no floor.

A model that uses these functions has `image_shape`, `levels`, `trackers = trackers()`, `call(images) -> logits`, and

    _draw(images, known, uniform, **options) -> images [B, H, W, C], log_prob [B]

which keeps the pixels of `images` where `known` [B, H, W, 1] is 1 and draws the others one by one in the model's
order, each by its inverse distribution function at its own number of `uniform` [D, B]; log_prob is of all pixels,
recorded while they were drawn. The same uniform numbers give the same picture, whatever way the logits are computed,
but for a number within rounding of a threshold.

Pictures with values that are no levels, 0.5 of two, 255, NaN, have no probability. The Python methods refuse them; the
endpoints, which cannot, answer log_prob -inf for such a picture alone. Of `known_mask`, an endpoint takes what is above
0.5 for given.

Shapes:  B batch, H height, W width, C colours, D = H W C values of a picture, K levels.
"""

import functools

import keras
import numpy as np
import tensorflow as tf

from dmkeras.parts.checks import check_images, check_known_mask, check_shape, is_symbolic, whole_number
from dmkeras.parts.seeds import row_seeds, uniforms

TOLERANCE = 1e-3  # of a step between levels


def check_levels(levels):
    """ValueError unless `levels` is a whole number from 2 to 256."""
    if not 2 <= whole_number("levels", levels) <= 256:
        raise ValueError(f"levels must be from 2 to 256, received {levels}")


def check_pixels(images, image_shape, levels):
    """ValueError unless `images` is [B, *image_shape] of levels k / (levels - 1); symbolic tensors pass."""
    check_images(images, image_shape, slack=TOLERANCE / (levels - 1))
    if is_symbolic(images):
        return
    images = np.asarray(images)
    for start in range(0, len(images), 1000):  # the check of a whole set would take as much memory again
        part = images[start : start + 1000]
        wrong = np.abs(part * (levels - 1) - np.rint(part * (levels - 1))) > TOLERANCE
        if wrong.any():
            expected = "pixels in {0, 1}" if levels == 2 else f"pixels k / {levels - 1}"
            received = f"{part[wrong][0]:.4g} among others"
            remedy = "binarize or quantize them, or choose other levels"
            raise ValueError(f"expected {expected}, received {received}; {remedy}")


def in_levels(images, levels):
    """images [B, H, W, C], what is no level replaced by the nearest one, and whether each picture was whole, [B]."""
    steps = tf.where(tf.math.is_nan(images), 0.0, images) * (levels - 1)
    nearest = tf.clip_by_value(tf.round(steps), 0.0, levels - 1.0) / (levels - 1)
    is_level = tf.abs(images - nearest) * (levels - 1) <= TOLERANCE  # NaN is none
    return tf.where(is_level, images, nearest), tf.reduce_all(is_level, axis=(1, 2, 3))


def value_log_prob(logits, values, levels):
    """log p(x_d | x_<d) of values [...] from logits [...] (two levels) or [..., K] -> [...] float32, nats."""
    logits, values = tf.cast(logits, "float32"), tf.cast(values, "float32")
    if levels == 2:
        return values * logits - tf.nn.softplus(logits)  # x log p + (1 - x) log(1 - p)
    index = tf.cast(tf.round(values * (levels - 1)), "int32")
    return -tf.nn.sparse_softmax_cross_entropy_with_logits(index, logits)


def log_likelihood(logits, images, levels):
    """log p(x) of images [B, H, W, C] from their logits -> [B] float32, nats."""
    return tf.reduce_sum(value_log_prob(logits, images, levels), axis=(1, 2, 3))


def trackers():
    return [keras.metrics.Mean(name=name) for name in ("nll", "bits_per_dim")]


def loss(model, logits, images, sample_weight=None):
    """Mean -log p(x), nats per image, for `compute_loss`; keeps `model.trackers`."""
    nll = -log_likelihood(logits, images, model.levels)
    for tracker, value in zip(model.trackers, (nll, nll / (np.prod(model.image_shape) * np.log(2)))):
        tracker.update_state(value, sample_weight)
    weight = 1.0 if sample_weight is None else tf.cast(sample_weight, "float32")
    return tf.reduce_mean(weight * nll)


# --- drawing --------------------------------------------------------------------------------------------------------


def draw(logits, uniform, levels):
    """The value where the distribution function passes `uniform`: logits [...] or [..., K], uniform [...] -> [...]."""
    logits = tf.cast(logits, "float32")
    if levels == 2:
        return tf.cast(uniform < tf.sigmoid(logits), "float32")
    below = tf.cumsum(tf.nn.softmax(logits), axis=-1)  # p(value <= k); the last is 1 but for rounding
    return tf.reduce_sum(tf.cast(uniform[..., None] * below[..., -1:] >= below, "float32"), axis=-1) / (levels - 1)


# --- the public methods and endpoints of a model --------------------------------------------------------------------


def log_prob(model, images):
    """Exact log p(x) of images [B, H, W, C] -> [B] float32, nats."""
    model.check_images(images)
    if not is_symbolic(images) and not len(images):
        return tf.zeros([0])
    one_trace = {"input_signature": [tf.TensorSpec((None, *model.image_shape), "float32")]}
    found = _traced(model, lambda images: log_likelihood(model(images), images, model.levels), "log_prob", **one_trace)
    return found(tf.cast(images, "float32"))


def sample(model, num_samples, seed=None, jit_compile=False, **options):
    """num_samples pictures of p(x), [num_samples, H, W, C] float32; `options` are `_draw`'s.

    The first pictures of a seed are the same for any `num_samples`: picture i has the seed (seed, i), which the
    endpoints take for a row.
    """
    whole_number("num_samples", num_samples, 1)
    nothing = tf.zeros((num_samples, *model.image_shape))
    return _drawn(model, nothing, nothing[..., :1], num_samples, seed, jit_compile, options)


def complete(model, images, known_mask, seed=None, jit_compile=False, **options):
    """`images` [B, H, W, C] with the pixels kept where known_mask is 1 and drawn elsewhere; unknown ones may be NaN."""
    if is_symbolic(images) or is_symbolic(known_mask):
        raise ValueError("complete looks at its pictures: in a tf.function use what signatures()['complete'] holds")
    images = images if isinstance(images, dict) else np.asarray(images)
    check_shape("images", images, model.image_shape)
    known = check_known_mask(known_mask, (len(images), *model.image_shape[:2], 1))
    images = np.where(known > 0, images, 0)
    model.check_images(images)
    if not len(images):
        return tf.zeros(images.shape)
    images = tf.constant(images, "float32")
    return _drawn(model, images, tf.constant(known), len(images), seed, jit_compile, options)


def signatures(model):
    """`log_prob` (also the default), `sample` and `complete`."""
    images = tf.TensorSpec((None, *model.image_shape), "float32", name="images")
    known = tf.TensorSpec((None, *model.image_shape[:2], 1), "float32", name="known_mask")
    seed = tf.TensorSpec((None, 2), "int32", name="seed")
    size = int(np.prod(model.image_shape))

    def served_log_prob(images):
        images, possible = in_levels(images, model.levels)
        return {"log_prob": tf.where(possible, log_likelihood(model(images), images, model.levels), -np.inf)}

    def served_complete(images, known_mask, seed):
        known = known_mask > 0.5
        given, possible = in_levels(tf.where(known, images, 0.0), model.levels)
        drawn, log_prob = model._draw(given, tf.cast(known, "float32"), uniforms(seed, size))
        return {"images": tf.where(known, images, drawn), "log_prob": tf.where(possible, log_prob, -np.inf)}

    def served_sample(seed):
        nothing = tf.zeros((tf.shape(seed)[0], *model.image_shape))
        return dict(zip(("images", "log_prob"), model._draw(nothing, nothing[..., :1], uniforms(seed, size))))

    return {
        "serving_default": (served_log_prob, [images]),
        "log_prob": (served_log_prob, [images]),
        "sample": (served_sample, [seed]),
        "complete": (served_complete, [images, known, seed]),
    }


def _drawn(model, images, known, count, seed, jit_compile, options):
    # Outside of XLA, so that they are the same with it and without.
    uniform = uniforms(row_seeds(count, seed), int(np.prod(model.image_shape)))
    draw = _traced(model, functools.partial(model._draw, **options), ("draw", *sorted(options.items())), jit_compile)
    return draw(images, known, uniform)[0]


def _traced(model, function, name, jit_compile=False, **options):
    """`function` of a model as a `tf.function`, traced when it is first asked for."""
    # Past Keras's __setattr__, which would track the dictionary as a part of the model.
    known, key = model.__dict__.setdefault("_traced", {}), (name, jit_compile)
    if key not in known:
        options = {"jit_compile": jit_compile, "autograph": False, "reduce_retracing": True, **options}
        known[key] = tf.function(function, **options)
    return known[key]
