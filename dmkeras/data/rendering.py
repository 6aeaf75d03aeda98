"""What the rendered sets share: exact arithmetic, numbered pictures, and their way into tf.data.

A rendered picture must be the same on every machine. So random numbers are the raw 64-bit words of PCG64, whose stream
NumPy guarantees (https://numpy.org/doc/stable/reference/random/compatibility.html), arithmetic is elementwise
+ - * / and sqrt, which IEEE 754 rounds in one way only, and nothing depends on the order of a sum.
"""

import difflib
import math

import numpy as np
import tensorflow as tf

SPLITS = ("train", "validation", "test")
PER_SPLIT = 2**32  # numbers kept for one split of one seed
RANGES = {
    "size": (32, 256),
    "count": (1, PER_SPLIT),
    "seed": (0, 2**63 - 1),
    "number": (0, 2**128 - 1),
    "max_objects": (1, 12),
}


def first_picture(split, seed):
    """The number of the first picture of a split: picture i of it is `scene(first_picture(split, seed) + i)`."""
    return (seed * len(SPLITS) + SPLITS.index(split)) * PER_SPLIT


def check_split(name, split):
    """ValueError, naming a near one, for a split that is not there."""
    if split not in SPLITS:
        near = difflib.get_close_matches(str(split), SPLITS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"{name} has no split {split!r}: {hint}Its splits are {', '.join(SPLITS)}.")


def check(name, **options):
    """TypeError for an option that is no integer, ValueError for one out of the range that `RANGES` gives it."""
    for option, value in options.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise TypeError(f"{name}: {option} is an integer, not {value!r}")
        least, greatest = RANGES[option]
        if not least <= value <= greatest:
            raise ValueError(f"{name}: {option} is {value}, but must lie in {least}..{greatest}")


def dataset(scene, first, count, signature):
    """`tf.data.Dataset` of the pictures `scene(first)` ... `scene(first + count - 1)`, each rendered when asked for.

    `signature` maps each key to its `tf.TensorSpec`; a uint8 `image` of the scene becomes float32 in [0, 1].
    """
    keys = [key for key in signature if key != "image"]

    def render(index):
        record = scene(first + int(index))
        return [record["image"], *(record[key] for key in keys)]

    def record(index):
        types = [tf.uint8, *(signature[key].dtype for key in keys)]
        values = tf.numpy_function(render, [index], types, stateful=False)
        values[0] = tf.cast(values[0], tf.float32) / 255.0
        record = dict(zip(["image", *keys], values, strict=True))
        return {key: tf.ensure_shape(record[key], spec.shape) for key, spec in signature.items()}

    return tf.data.Dataset.range(count).map(record)


def uniform(words, count):
    """`count` floats in [0, 1) as a list: the upper 53 bits of each word of the bit generator `words`."""
    return ((words.random_raw(count) >> np.uint64(11)) * 2.0**-53).tolist()


def lattice(words, *shape):
    """float32 array of numbers in [0, 1), multiples of 2^-24 and therefore exact."""
    return (words.random_raw(int(np.prod(shape))) >> np.uint64(40)).astype("float32").reshape(shape) * 2.0**-24


def grain(words, shape, terms):
    """float32 noise of mean 0 and variance 1: the sum of `terms` uniform bytes, centred; 4 are close to normal."""
    count = terms * int(np.prod(shape))
    octets = words.random_raw(-(-count // 8)).astype("<u8").view("uint8")[:count].reshape(terms, *shape)
    total = octets[0].astype("float32")
    for term in octets[1:]:
        total += term
    return (total - 127.5 * terms) * (1 / math.sqrt(terms * 65535 / 12))


def rotation(turns):
    """(cosine, sine) of an angle in turns, |turns| <= 1/2, to 1e-4 of a turn and on the unit circle up to rounding.

    With t = tan(a / 4) from its Pade approximant x (15 - x^2) / (15 - 6 x^2), half the angle is
    ((1 - t^2) / (1 + t^2), 2 t / (1 + t^2)), and doubling gives the angle: no trigonometric function of the machine's.
    """
    x = turns * 1.5707963267948966
    t = x * (15 - x * x) / (15 - 6 * x * x)
    cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    return cosine * cosine - sine * sine, 2 * cosine * sine


def spline(control, size):
    """Uniform cubic B-spline surfaces at the centres of size x size pixels: float32 [n, size, size].

    control: float32 [n, m, m], its columns before its rows, with m - 3 cells across the picture. The surface is smooth
    (C2) and stays within the range of its control points.
    """
    place = (np.arange(size) + 0.5) * ((control.shape[-1] - 3) / size)
    first = place.astype(int)
    f = (place - first).astype("float32")[:, None]
    g = 1 - f
    weights = (g * g * g / 6, (4 - 6 * f * f + 3 * f * f * f) / 6, (4 - 6 * g * g + 3 * g * g * g) / 6, f * f * f / 6)
    for _ in range(2):  # [n, columns, rows] -> [n, rows, x] -> [n, x, y]
        control = sum(control.take(first + k, 1) * weight for k, weight in enumerate(weights)).swapaxes(1, 2)
    return control.swapaxes(1, 2)


def fraction(x):
    """x within [0, 1]; for small arrays several times faster than np.clip."""
    return np.minimum(np.maximum(x, 0), 1)


def colour(hue, saturation, value):
    """(red, green, blue) in [0, 255] of a hue in turns, saturation and value in [0, 1]."""
    h = 6 * (hue % 1.0)
    pure = (abs(h - 3) - 1, 2 - abs(h - 2), 2 - abs(h - 4))
    return [255 * value * (1 - saturation + saturation * min(max(c, 0.0), 1.0)) for c in pure]
