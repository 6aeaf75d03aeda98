"""`shapes`: scenes of textured, rotated, overlapping shapes on a cluttered background, rendered from a number.

    image      float32 [size, size, 3]   in [0, 1], rendered with 8 bits a channel
    label      int32   []                class of the object with the most visible pixels (of equals the nearest)
    boxes      float32 [n, 4]            tight around the visible pixels
    classes    int32   [n]               index into `CLASSES`
    masks      bool    [n, size, size]   the visible pixels of each object: disjoint
    semantic   int32   [size, size]      0 background, class + 1
    keypoints  float32 [n, 4, 3]         `KEYPOINTS`; visibility 2 where the object owns that pixel, otherwise 1; a
                                         point outside the picture is (0, 0, 0)
    depth      float32 [size, size]      metres, in whole millimetres

Objects stand in the order of their depth, the nearest first. Each is a tilted plate within its own range of depth,
and the ranges are disjoint, so that the nearer object is seen at every pixel. An object is left out when less than
`VISIBLE` of its pixels in the picture, or fewer than `LEAST` pixels, are seen; the nearest one always stays.
Keypoints follow the outline: the head of a shape with an n-fold symmetry is the one of its n equal corners that points
most upwards. Mirroring the picture exchanges right and left.

Splits: train, validation, test; picture i of a split depends on (seed, split, i) and the size alone, not on `count`.
Pictures are rendered when asked for, since a record of 128 px takes some 0.4 MB: `Dataset.cache()` keeps them where
memory allows.
"""

import functools
import typing

import numpy as np
import tensorflow as tf

from dmkeras.data import painting, rendering

COUNTS = {"train": 4000, "validation": 500, "test": 500}
KEYPOINTS = ("head", "right", "tail", "left")
LIMBS = ((0, 1), (1, 2), (2, 3), (3, 0))  # the outline's four edges, for the percentage of correct parts
TORSO = (1, 3)  # right and left: their distance is the diameter in which errors are told, 1.1 to 1.8 radii
MIRRORED = (0, 3, 2, 1)  # for each keypoint, which it is in a mirrored picture
VISIBLE, LEAST = 0.25, 8
NEAR, FAR, WALL = 1.0, 2.5, 2.7  # metres: objects between the first two, the background from the third on


def disc(u, v):
    return np.sqrt(u * u + v * v) - 1


def ring(u, v):
    return np.abs(np.sqrt(u * u + v * v) - 0.74) - 0.26


def crescent(u, v):
    w = v + 0.5
    return np.maximum(np.sqrt(u * u + v * v) - 1, 0.8 - np.sqrt(u * u + w * w))


def square(u, v):
    return (np.abs(u) + np.abs(v) - 1) * 0.70710678


def triangle(u, v):
    return np.maximum(v, 0.8660254 * np.abs(u) - 0.5 * v) - 0.5


def star(u, v):
    """Five points: the pentagram's points lie beyond at most one of its five lines."""
    a, b, c, d = 0.95105652 * np.abs(u), 0.30901699 * v, 0.58778525 * np.abs(u), 0.80901699 * v
    first, second = np.maximum(-v, a - b), np.minimum(-v, a - b)
    second = np.maximum(second, np.minimum(first, c + d))
    return np.maximum(np.maximum(second, -a - b), d - c) - 0.30901699


def cross(u, v):
    a, b = np.abs(u), np.abs(v)
    return np.maximum(np.minimum(a, b) - 0.33, np.maximum(a, b) - 0.94)


def arrow(u, v):
    a = np.abs(u)
    head = np.maximum(v + 0.1, 0.76822128 * a - 0.64018440 * (v + 1))
    return np.minimum(head, np.maximum(a - 0.26, np.abs(v - 0.4) - 0.54))


class Outline(typing.NamedTuple):
    """distance(u, v): signed distance, negative inside, u to the right and v down, within the unit circle; `symmetry`:
    the turns that leave it unchanged (0: any); keypoints: (u, v) of head, right, tail, left."""

    distance: typing.Callable
    symmetry: int
    keypoints: tuple


OUTLINES = {
    "disc": Outline(disc, 0, ((0, -0.9), (0.9, 0), (0, 0.9), (-0.9, 0))),
    "ring": Outline(ring, 0, ((0, -0.74), (0.74, 0), (0, 0.74), (-0.74, 0))),
    "crescent": Outline(crescent, 1, ((0, 0.42), (0.87, -0.2), (0, 0.88), (-0.87, -0.2))),
    "square": Outline(square, 4, ((0, -0.85), (0.85, 0), (0, 0.85), (-0.85, 0))),
    "triangle": Outline(triangle, 3, ((0, -0.8), (0.7, 0.4), (0, 0.4), (-0.7, 0.4))),
    "star": Outline(star, 5, ((0, -0.75), (0.71, -0.23), (0, 0.28), (-0.71, -0.23))),
    "cross": Outline(cross, 4, ((0, -0.84), (0.84, 0), (0, 0.84), (-0.84, 0))),
    "arrow": Outline(arrow, 1, ((0, -0.75), (0.55, -0.2), (0, 0.84), (-0.55, -0.2))),
}
CLASSES = tuple(OUTLINES)


def class_names():
    return CLASSES


def load(split, *, data_dir=None, download=False, size=128, count=None, seed=0, max_objects=8):
    """`count` scenes (by default 4000 / 500 / 500) of size x size pixels; `data_dir` and `download` are not used.

    Raises ValueError for an unknown split, a size outside 32..256, `count` < 1, `seed` < 0 or `max_objects` outside
    1..12; TypeError for one of them that is no integer.
    """
    rendering.check_split("shapes", split)
    count = COUNTS[split] if count is None else count
    rendering.check("shapes", size=size, count=count, seed=seed, max_objects=max_objects)
    signature = {
        "image": tf.TensorSpec([size, size, 3], tf.float32),
        "label": tf.TensorSpec([], tf.int32),
        "boxes": tf.TensorSpec([None, 4], tf.float32),
        "classes": tf.TensorSpec([None], tf.int32),
        "masks": tf.TensorSpec([None, size, size], tf.bool),
        "semantic": tf.TensorSpec([size, size], tf.int32),
        "keypoints": tf.TensorSpec([None, len(KEYPOINTS), 3], tf.float32),
        "depth": tf.TensorSpec([size, size], tf.float32),
    }
    render = functools.partial(scene, size=size, max_objects=max_objects)
    return rendering.dataset(render, rendering.first_picture(split, seed), count, signature)


def scene(number, size=128, max_objects=8):
    """The scene of a number >= 0: a dict of NumPy arrays, keys and shapes as in the module's table, `image` uint8.

    Raises ValueError for a size outside 32..256, `number` < 0 or `max_objects` outside 1..12.
    """
    rendering.check("shapes", number=number, size=size, max_objects=max_objects)
    words = np.random.PCG64(int(number))
    image, relief = painting.background(words, size)
    depth = WALL + relief
    owner = np.full((size, size), -1, "int8")
    plates = []
    for plate in _plates(words, size, max_objects):
        if _claim(plate, owner, depth, len(plates)):
            plates.append(plate)
    for plate in reversed(plates):
        painting.paint(image, plate, size)
    painting.light(image, words)
    classes = np.array([CLASSES.index(plate.kind) for plate in plates], "int32")
    masks = owner == np.arange(len(plates), dtype="int8")[:, None, None]
    return {
        "image": image.transpose(1, 2, 0).astype("uint8"),
        "label": classes[masks.sum((1, 2)).argmax()],
        "boxes": np.array([_box(mask) for mask in masks], "float32"),
        "classes": classes,
        "masks": masks,
        "semantic": np.concatenate([[0], classes + 1]).astype("int32")[owner + 1],
        "keypoints": np.array([_keypoints(plate, owner, k) for k, plate in enumerate(plates)], "float32"),
        "depth": np.floor(depth * 1000 + 0.5) / np.float32(1000),
    }


class Plate(typing.NamedTuple):
    """One object. `top` and `left` place its window, which may begin above or left of the picture; x [w] and y [h] run
    from its centre; `distance` [h, w] is in pixels; `looks` are the random numbers that choose colours and texture."""

    kind: str
    centre: tuple
    axes: tuple
    turn: tuple
    top: int
    left: int
    x: np.ndarray
    y: np.ndarray
    distance: np.ndarray
    depth: np.ndarray
    looks: list


def _plates(words, size, max_objects):
    """Candidates, the nearest first: of n, the k-th has the k-th of n equal ranges of depth for itself."""
    n = 1 + int(rendering.uniform(words, 1)[0] * max_objects)
    for k in range(n):
        draws = rendering.uniform(words, 28)
        kind, place_x, place_y, metres, within, stretch, turn, tilt_x, tilt_y = draws[:9]
        slot = (FAR - NEAR) / n
        middle = NEAR + slot * (k + 0.3 + 0.4 * within)
        radius = max(size * (0.15 + 0.2 * metres) / middle, 4.5)  # focal length: the picture's width
        stretch = 0.8 + 0.45 * stretch
        axes = rx, ry = radius * stretch, radius / stretch
        cx, cy = 0.3 * rx + place_x * (size - 0.6 * rx), 0.3 * ry + place_y * (size - 0.6 * ry)
        kind = CLASSES[int(kind * len(CLASSES))]
        outline = OUTLINES[kind]
        c, s = rendering.rotation((turn - 0.5) / outline.symmetry if outline.symmetry else 0.0)
        fall = painting.shadow_fall(size)
        left, right = max(int(cx - rx) - 2, -fall), min(int(cx + rx) + 3, size)
        top, bottom = max(int(cy - ry) - 2, -fall), min(int(cy + ry) + 3, size)
        x = np.arange(left, right, dtype="float32") + np.float32(0.5 - cx)
        y = np.arange(top, bottom, dtype="float32") + np.float32(0.5 - cy)
        u = x * (c / rx) + (y * (s / ry))[:, None]
        v = x * (-s / rx) + (y * (c / ry))[:, None]
        distance = outline.distance(u, v) * min(rx, ry)
        tilt_x, tilt_y = 0.14 * slot * (2 * tilt_x - 1) / rx, 0.14 * slot * (2 * tilt_y - 1) / ry
        depth = x * tilt_x + (y * tilt_y + middle)[:, None]
        yield Plate(kind, (cx, cy), axes, (c, s), top, left, x, y, distance, depth, draws[9:])


def _claim(plate, owner, depth, k):
    """Gives the pixels that no nearer object has taken to object k, or none of them where too few are left."""
    y, x = max(plate.top, 0), max(plate.left, 0)
    inside = (plate.distance < 0)[y - plate.top :, x - plate.left :]
    window = owner[y : y + inside.shape[0], x : x + inside.shape[1]]
    seen = inside & (window < 0)
    if k and np.count_nonzero(seen) < max(VISIBLE * np.count_nonzero(inside), LEAST):
        return False
    window[seen] = k
    depth[y : y + inside.shape[0], x : x + inside.shape[1]][seen] = plate.depth[y - plate.top :, x - plate.left :][seen]
    return True


def _box(mask):
    columns, rows = mask.any(0).nonzero()[0], mask.any(1).nonzero()[0]
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def _keypoints(plate, owner, k):
    (cx, cy), (rx, ry), (c, s) = plate.centre, plate.axes, plate.turn
    points = []
    for u, v in OUTLINES[plate.kind].keypoints:
        x, y = np.float32(cx + rx * (c * u - s * v)), np.float32(cy + ry * (s * u + c * v))
        if 0 <= x < len(owner) and 0 <= y < len(owner):
            points.append((x, y, 2 if owner[int(y), int(x)] == k else 1))
        else:
            points.append((0, 0, 0))
    return points
