"""What a version answers before it is published, held against the functions that it was written from."""

import contextlib
import functools

import numpy as np
import tensorflow as tf

from dmkeras.serving.errors import ServingError

RELATIVE, ABSOLUTE = 1e-4, 1e-4  # how far a served float may be from the local one: kernels differ, weights may not
SMALL = 1e-3  # a mean size below which differences are not relative


def rows(feed, numbers):
    """The rows of those numbers of a request, which repeats itself as needed."""
    return {name: array[[number % len(array) for number in numbers]] for name, array in feed.items()}


def local(function, specs, request):
    """The answer {output: array} of a signature's function in this process."""
    outputs = function(*[tf.constant(request[spec.name], spec.dtype) for spec in specs])
    return {key: tensor.numpy() for key, tensor in outputs.items()}


@contextlib.contextmanager
def hint(name):
    """Adds to an error of TensorFlow that the example request of a signature may not suit it."""
    try:
        yield
    except (tf.errors.OpError, ServingError) as error:
        error.add_note(f"export: {name!r} fails on an example request; give one that suits: warmup={{{name!r}: ...}}")
        raise


def compare(name, specs, endpoint, served, feed, tolerance=None):
    """ValueError unless the served signature answers as the local function does, row by row whatever the batch.

    `tolerance`, of a signature that computes in lower precision, is the `difference` allowed between two answers.
    """
    same = functools.partial(_same, tolerance=tolerance)
    for numbers in ([0], [0, 1, 2]):
        request = rows(feed, numbers)
        with hint(name):
            expected, answer = local(endpoint, specs, request), served.run(name, request)
            # Under a global seed the first hidden draws of both are the same: asked once more, the draws go on.
            again = local(endpoint, specs, request) if len(numbers) == 1 else expected
            answer = in_order(answer, expected)
        for key, value in answer.items():
            _check_answer(name, key, value, len(numbers))
            cause = "the SavedModel lacks something of the model"
            if not same(expected[key], again[key]):
                cause = "its draws are hidden: take a seed int32 [B, 2] for tf.random.stateless_*"
            elif same(expected[key], value):
                continue
            raise ValueError(f"export: signature {name!r} gives two answers {key!r} to one request; {cause}")
    elsewhere = served.run(name, rows(feed, [3, 0, 4]))
    elsewhere = in_order({key: value[1:2] for key, value in elsewhere.items()}, {k: v[:1] for k, v in answer.items()})
    for key, value in answer.items():
        if not same(value[:1], elsewhere[key]):
            raise ValueError(
                f"export: signature {name!r} answers another {key!r} for a row at another place beside other rows; "
                "TF Serving batches strangers' requests: let each row depend on itself alone"
            )


def in_order(answer, expected):
    """An answer whose detections stand as in `expected` where rounding alone, of scores that are one, orders them."""
    names = ("detection_scores", "detection_boxes")
    if not set(names) <= set(answer):
        return answer
    (scores, boxes), (wanted, places) = (tuple(np.asarray(a[name]) for name in names) for a in (answer, expected))
    orders = np.tile(np.arange(scores.shape[1]), (len(scores), 1))
    if scores.shape != wanted.shape:
        return answer
    for row, order in enumerate(orders):
        moved = list(np.flatnonzero(~np.isclose(boxes[row], places[row], 1e-4, 1e-5).all(-1)))
        left = moved.copy()
        for i in moved:
            near = [j for j in left if np.isclose(scores[row, j], wanted[row, i], 1e-5, 0)]
            near = [j for j in near if np.isclose(boxes[row, j], places[row, i], 1e-4, 1e-5).all()]
            if not near:
                return answer
            order[i] = near[0]
            left.remove(near[0])
    take = lambda values: np.stack([row[order] for row, order in zip(values, orders)])
    return {k: take(np.asarray(v)) if np.shape(v)[:2] == orders.shape and len(v) else v for k, v in answer.items()}


def difference(expected, answer):
    """How far an answer is from the expected one, a number.

    For floats the mean difference over the mean size, infinite where one is finite and the other is not; otherwise the
    share of entries that differ.
    """
    if expected.dtype.kind != "f":
        return float(np.mean(expected != answer))
    finite = np.isfinite(expected)
    if not np.array_equal(finite, np.isfinite(answer)):
        return float("inf")
    if not finite.any():
        return 0.0
    expected, answer = expected[finite].astype("float64"), answer[finite]
    return float(np.mean(np.abs(expected - answer)) / max(np.mean(np.abs(expected)), SMALL))


def _check_answer(name, key, value, number):
    """The batch first, and binary strings under a name in `_bytes`."""
    if value.shape[:1] != (number,):
        shape = list(value.shape)
        raise ValueError(
            f"export: signature {name!r} has output {key!r} of {shape} for {number} rows; expected [{number}, ...]"
        )
    if value.dtype == object and not key.endswith("_bytes"):
        try:
            b"".join(value.ravel()).decode()
        except UnicodeDecodeError:
            raise ValueError(
                f"export: signature {name!r} has output {key!r} of binary strings; expected the name {key}_bytes, "
                "so that JSON carries base64"
            ) from None


def _same(first, second, tolerance=None):
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    if tolerance is not None:  # kernels round otherwise: floats are near, and a label may flip at a tie
        return first.dtype.kind != "f" or difference(first, second) <= tolerance
    if first.dtype.kind == "f":
        return np.allclose(first, second, RELATIVE, ABSOLUTE, equal_nan=True)
    return np.array_equal(first, second)
