"""`simple_shapes`: 96 px pictures of one to three squares, discs and triangles on a flat, noisy background.

    image    float32 [size, size, 3]   in [0, 1]: a grey value in 0..255, not rounded to whole levels, divided by 255
    boxes    float32 [n, 4]        tight around the whole object; a later object may hide some of it, over less than
                                   a tenth of its own box
    classes  int32   [n]           0 square, 1 disc, 2 triangle

Splits: train is the first 8000 pictures of seed 1, test (held out) the first 200 of seed 99, validation the first 200
of seed 2. A split is one stream of NumPy's `default_rng(seed)`: picture i depends on all before it, and never on the
count. The stream is that of the NumPy that `constraints.txt` pins: NumPy may change how normal numbers are drawn.

Easy on purpose; `shapes` is the hard one.
"""

import numpy as np
import tensorflow as tf

from dmkeras.data import rendering

SIZE = 96
SPLITS = {"train": (1, 8000), "validation": (2, 200), "test": (99, 200)}  # seed, pictures
NOISE = 12  # standard deviation in grey values
CLASSES = ("square", "disc", "triangle")


def class_names():
    return CLASSES


def load(split, *, data_dir=None, download=False, size=SIZE, count=None, max_objects=3):
    """The first `count` pictures (by default all) of one split; `data_dir` and `download` are not used.

    Another `size` (32 to 256) or `max_objects` (up to 12) makes other pictures of the same seed; small ones may hold no
    object at all.

    Raises ValueError for an unknown split, `count` or `max_objects` < 1, or a size that is out of range, TypeError for
    one of them that is no integer.
    """
    rendering.check_split("simple_shapes", split)
    seed, everything = SPLITS[split]
    count = everything if count is None else count
    rendering.check("simple_shapes", count=count, size=size, max_objects=max_objects)
    signature = {
        "image": tf.TensorSpec([size, size, 3], tf.float32),
        "boxes": tf.TensorSpec([None, 4], tf.float32),
        "classes": tf.TensorSpec([None], tf.int32),
    }

    def records():
        for image, boxes, classes in render(seed, count, size, max_objects):
            yield {"image": image / np.float32(255), "boxes": boxes, "classes": classes}

    dataset = tf.data.Dataset.from_generator(records, output_signature=signature)
    return dataset.apply(tf.data.experimental.assert_cardinality(count))


def render(seed, count, size=SIZE, max_objects=3):
    """Yields (image float32 [size, size, 3] in 0..255, boxes float32 [n, 4], classes int32 [n]), `count` times."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield _picture(rng, size, max_objects)


def _picture(rng, size, max_objects):
    """One picture; the order of the draws is what fixes the set."""
    image = np.full((size, size, 3), rng.uniform(40, 200, 3), "float32")
    image += rng.normal(0, NOISE, image.shape).astype("float32")
    boxes, classes = [], []
    for _ in range(rng.integers(1, max_objects + 1)):
        place = _free_place(rng, size, boxes)
        if place is None:
            continue
        kind = rng.integers(len(CLASSES))
        inside = _inside(CLASSES[kind], place, size)
        pixels = np.count_nonzero(inside)
        if pixels < 20:
            continue
        colour = rng.uniform(0, 255, 3)
        image[inside] = colour + rng.normal(0, NOISE, (pixels, 3))
        columns, rows = inside.any(0).nonzero()[0], inside.any(1).nonzero()[0]
        boxes.append((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))
        classes.append(kind)
    return np.clip(image, 0, 255), np.array(boxes, "float32").reshape(-1, 4), np.array(classes, "int32")


def _free_place(rng, size, boxes):
    """(x, y, width, height) that shares less than a tenth of its area with each of `boxes`; None after 20 trials."""
    for _ in range(20):
        height = rng.uniform(size * 0.16, size * 0.5)
        width = height * rng.uniform(0.7, 1.4)
        x, y = rng.uniform(0, size - width), rng.uniform(0, size - height)
        shared = [
            max(0, min(x + width, right) - max(x, left)) * max(0, min(y + height, bottom) - max(y, top))
            for left, top, right, bottom in boxes
        ]
        if all(area < 0.1 * width * height for area in shared):
            return x, y, width, height
    return None


def _inside(kind, place, size):
    """bool [size, size]: the pixels whose centre lies in a square, a disc or a triangle stretched to its place."""
    x, y, width, height = place
    u = ((np.arange(size) + 0.5 - x) / width)[None, :]
    v = ((np.arange(size) + 0.5 - y) / height)[:, None]
    if kind == "square":
        return (u >= 0) & (u <= 1) & (v >= 0) & (v <= 1)
    if kind == "disc":
        return (u - 0.5) ** 2 + (v - 0.5) ** 2 <= 0.25
    return (v >= 0) & (v <= 1) & (np.abs(u - 0.5) <= v / 2)
