"""What depends on what: laws of exact densities as functions of a model, for the tests of the four systems.

Values of a picture are counted in sampling order (raster, the colours within a pixel), unless `order` says otherwise.
A matrix of dependencies is boolean, [D, D]: in row i are the values that the logits of value i depend on.
"""

import itertools

import numpy as np
import tensorflow as tf
from scipy import stats


def every_picture(shape, levels=2):
    """All pictures of a shape, [levels**D, *shape] float32, k / (levels - 1)."""
    values = itertools.product(range(levels), repeat=int(np.prod(shape)))
    return np.array(list(values), "float32").reshape(-1, *shape) / np.float32(levels - 1)


def pictures(count, shape, levels=2, seed=0):
    """Random ones, [count, *shape] float32, k / (levels - 1)."""
    values = np.random.default_rng(seed).integers(levels, size=(count, *shape))
    return values.astype("float32") / np.float32(levels - 1)


def with_random_weights(model, scale=1.0, seed=0):
    """Normal weights of variance scale**2 / fan in, biases too: far from where a model starts, and nowhere dead."""
    generator = np.random.default_rng(seed)
    fan_in = lambda weight: max(1, int(np.prod(weight.shape[:-1]))) if len(weight.shape) > 1 else 4
    model.set_weights([generator.normal(size=w.shape) * scale / fan_in(w) ** 0.5 for w in model.get_weights()])
    return model


def with_positive_weights(model, scale=1.0, seed=0):
    """Weights around scale / fan in: no ReLU is off and no two paths cancel, so that what is wired is seen."""
    generator = np.random.default_rng(seed)
    fan_in = lambda weight: max(1, int(np.prod(weight.shape[:-1]))) if len(weight.shape) > 1 else 4
    model.set_weights([generator.uniform(0.5, 1.5, w.shape) * scale / fan_in(w) for w in model.get_weights()])
    return model


def dependencies(logits_of, shape, order=None, count=1, seed=0):
    """The matrix of dependencies, from the gradients of logits_of(images [B, *shape]) -> [B, *shape] or [B, *shape, K].

    Args:
        logits_of: the model, or a function.
        shape: (H, W, C).
        order: the place in a picture (in raster order) of each value that is sampled; None: raster.
        count: random pictures of grey values whose gradients are looked at; what one of them shows counts.
        seed: of these pictures.
    """
    generator, size = np.random.default_rng(seed), int(np.prod(shape))
    found = np.zeros((size, size), bool)
    weights = None
    for _ in range(count):
        # One picture for each row of the matrix: a single pass backwards then gives them all.
        images = tf.constant(np.repeat(generator.uniform(0.1, 0.9, (1, *shape)), size, axis=0), "float32")
        with tf.GradientTape() as tape:
            tape.watch(images)
            logits = tf.reshape(logits_of(images), (size, size, -1))
            if weights is None:  # of the levels, since the sum of a softmax's logits may stand still
                weights = generator.uniform(0.5, 1.5, logits.shape[-1])
            own = tf.reduce_sum(tf.linalg.diag_part(tf.transpose(logits, (2, 0, 1))) * weights[:, None])
        found |= np.reshape(tape.gradient(own, images), (size, size)) != 0
    order = np.arange(size) if order is None else np.asarray(order)
    return found[np.ix_(order, order)]


def flipped(logits_of, images, order):
    """The matrix of dependencies of a model of two levels, by flipping one value of `images` [B, H, W, C] at a time.

    Args:
        logits_of: the model, which need have no gradients for its images.
        images: of zeros and ones; what one of them shows counts.
        order: the place in a picture of each value that is sampled.
    """
    size = len(order)
    others = np.repeat(images[None], size, axis=0).reshape(size, len(images), size)
    others[np.arange(size), :, order] = 1 - others[np.arange(size), :, order]
    logits = np.asarray(logits_of(others.reshape(-1, *images.shape[1:]))).reshape(size, len(images), size)
    moves = np.abs(logits - np.reshape(logits_of(images), (1, len(images), size))).max(axis=1)
    return moves[:, order].T > 1e-5  # rounding differs with the rows of a batch


def seen_through(layers, shape):
    """The matrix of dependencies that a stack of masked convolutions promises, by following each path.

    Args:
        layers: (kind, kernel rows, kernel columns) of each, first to last, "A" or "B"; odd sizes.
        shape: (H, W, C).
    """
    everywhere = list(np.ndindex(*shape))
    sees = {place: {place} for place in everywhere}  # of each map, what it depends on
    for kind, rows, columns in layers:
        now = {}
        for y, x, colour in everywhere:
            reached = set()
            for v, u, other in everywhere:
                inside = y - rows // 2 <= v <= y and abs(u - x) <= columns // 2
                own = other < colour if kind == "A" else other <= colour
                if inside and (v < y or u < x or (u == x and own)):
                    reached |= sees[v, u, other]
            now[y, x, colour] = reached
        sees = now
    return np.array([[place in sees[one] for place in everywhere] for one in everywhere])


def check_sees_no_later_value(matrix):
    """Neither itself nor what is drawn after it."""
    leaks = [(int(i), int(j)) for i, j in np.argwhere(np.triu(matrix))]
    assert not leaks, f"{len(leaks)} values depend on themselves or later ones, (value, on): {leaks[:6]}"


def check_sees(matrix, expected):
    """Exactly what is expected: no other value, and none of them lost."""
    lost, leaks = (np.argwhere(difference).tolist() for difference in (expected & ~matrix, matrix & ~expected))
    assert not leaks, f"{len(leaks)} leak, (value, on): {leaks[:6]}"
    assert not lost, f"{len(lost)} of {expected.sum()} are lost, (value, on): {lost[:6]}"


def check_sums_to_one(model, tolerance=1e-5):
    """Over all pictures, in float64: few values and levels, please."""
    images = every_picture(model.image_shape, model.levels)
    log_prob = np.concatenate([model.log_prob(part) for part in np.array_split(images, -(-len(images) // 4096))])
    assert abs(np.exp(log_prob.astype("float64")).sum() - 1) < tolerance


def check_what_is_recorded_is_the_log_probability(model, count=5, tolerance=1e-4):
    """The endpoint `sample`: the log_prob beside its pictures is that of its pictures."""
    sample, _ = model.signatures()["sample"]
    answer = tf.function(sample)(tf.constant(np.random.default_rng(0).integers(1 << 30, size=(count, 2)), "int32"))
    np.testing.assert_allclose(answer["log_prob"], model.log_prob(answer["images"]), atol=tolerance, rtol=1e-5)
    assert len(np.unique(answer["images"], axis=0)) > 1


def check_remembering_changes_nothing(model, count=8, seed=0):
    """Cached and naive sampling, and completions: the same pictures bit for bit."""
    fast, slow = (np.asarray(model.sample(count, seed, cached=cached)) for cached in (True, False))
    np.testing.assert_array_equal(fast, slow)
    assert len(np.unique(fast, axis=0)) > 1
    known = np.random.default_rng(seed).integers(2, size=(count, *model.image_shape[:2], 1))
    images = pictures(count, model.image_shape, model.levels, seed)
    fast, slow = (np.asarray(model.complete(images, known, seed, cached=cached)) for cached in (True, False))
    np.testing.assert_array_equal(fast, slow)


def check_a_row_depends_on_its_seed_alone(model):
    """A picture of the endpoint `sample` is the same in another company."""
    sample, _ = model.signatures()["sample"]
    sample, seed = tf.function(sample, reduce_retracing=True), np.array([[3, 1], [4, 1], [5, 9], [3, 1]], "int32")
    together = sample(tf.constant(seed))
    np.testing.assert_array_equal(together["images"][0], together["images"][3])
    for row in range(3):
        alone = sample(tf.constant(seed[row : row + 1]))
        np.testing.assert_array_equal(alone["images"][0], together["images"][row])
        np.testing.assert_allclose(alone["log_prob"][0], together["log_prob"][row], rtol=1e-5, atol=1e-5)


def check_completion_keeps_what_is_given(model, **options):
    """Given pixels bit for bit; all of them, then nothing is drawn; none, then it is a sample."""
    shape, count = model.image_shape, 4
    known = np.random.default_rng(1).integers(2, size=(count, *shape[:2], 1))
    images = pictures(count, shape, model.levels, seed=1)
    found = np.asarray(model.complete(np.where(known, images, np.nan), known, seed=2, **options))
    np.testing.assert_array_equal(np.where(known, found, 0), np.where(known, images, 0))
    steps = found * (model.levels - 1)
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
    np.testing.assert_array_equal(model.complete(images, np.ones_like(known), seed=2, **options), images)
    none = model.complete(np.full_like(images, np.nan), np.zeros_like(known), seed=2, **options)
    np.testing.assert_array_equal(none, model.sample(count, seed=2, **options))


def check_endpoints_give_no_probability_to_what_is_no_picture(model):
    """log_prob is -inf for a picture with a value that is no level, and for it alone; given pixels stay as they are."""
    endpoints = {name: (tf.function(function), specs) for name, (function, specs) in model.signatures().items()}
    size, no_level = int(np.prod(model.image_shape)), 0.5 / (model.levels - 1)
    images = pictures(6, model.image_shape, model.levels)
    expected = np.array(model.log_prob(images))
    for row, value in zip((0, 1, 3, 4), (no_level, 255.0, np.nan, 1 + 1 / (model.levels - 1))):
        images[row].reshape(size)[0] = value  # the first value of the picture
        expected[row] = -np.inf
    for name in ("serving_default", "log_prob"):
        found = endpoints[name][0](tf.constant(images))["log_prob"]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
    seed = tf.constant([[1, row] for row in range(6)])
    known = np.zeros((6, *model.image_shape[:2], 1), "float32")
    known[:, 0, 0] = [[0.7], [1.0], [1.0], [2.0], [0.5], [-1.0]]  # above one half is given
    answer = endpoints["complete"][0](tf.constant(images), tf.constant(known), seed)
    np.testing.assert_array_equal(np.isfinite(answer["log_prob"]), [False, False, True, False, True, True])
    given = np.broadcast_to(known > 0.5, images.shape)
    np.testing.assert_array_equal(answer["images"].numpy()[given], images[given])
    steps = answer["images"].numpy()[~given] * (model.levels - 1)
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)


def marginal(values, probability, count):
    """p(the first `count` values) for each row of `values` [N, D], all pictures, by summing over the others."""
    return np.array([probability[(values[:, :count] == row[:count]).all(axis=1)].sum() for row in values])


def check_completions_have_their_frequencies(model, given, known, count=4000, seed=0):
    """Completions of one picture against its p(drawn one by one), from log_prob of all pictures, by chi square.

    A model draws a missing pixel given all before it, drawn or known: its factors p(x_d | x_<d) of the missing pixels.
    """
    images = every_picture(model.image_shape, model.levels)
    flat, kept = images.reshape(len(images), -1), np.broadcast_to(known, model.image_shape).reshape(-1) > 0
    probability = np.exp(np.asarray(model.log_prob(images), "float64"))
    expected = np.ones(len(images))
    for d in np.flatnonzero(~kept):  # p(x_<=d) / p(x_<d), sums over what comes later
        expected *= marginal(flat, probability, d + 1) / marginal(flat, probability, d)
    expected = expected[(flat[:, kept] == given.reshape(-1)[kept]).all(axis=1)]
    possible = flat[(flat[:, kept] == given.reshape(-1)[kept]).all(axis=1)]
    assert abs(expected.sum() - 1) < 1e-5
    found = np.asarray(model.complete(np.repeat(given[None], count, axis=0), known, seed)).reshape(count, -1)
    counts = np.array([(found == row).all(axis=1).sum() for row in possible])
    assert counts.sum() == count
    statistic = ((counts - count * expected) ** 2 / (count * expected)).sum()
    assert statistic < stats.chi2.ppf(0.9999, len(possible) - 1)
