"""`phantoms`: slices through a chest, every subject a smooth deformation of one anatomy, rendered from a number.

    image     float32 [size, size, 1]   in [0, 1], rendered with 8 bits
    semantic  int32   [size, size]      0 air, class + 1
    masks     bool    [4, size, size]   one for each of `CLASSES`, disjoint

The four structures are the body (its soft tissue: all that the others leave), the right lung (on the picture's left,
as radiologists look at it), the left lung and the heart, which lies over a part of the left lung. Vertebra, aorta and
the fat under the skin are painted, and belong to the body. All subjects share one frame, [-1, 1] across the picture,
so that registration has something to find: a pixel at q shows the point a(q) = R (q - shift) / scale + u(q) of the
anatomy, with a rotation of at most 1/40 turn, and u a cubic B-spline of 4 x 4 cells whose control points lie within
`BEND` of 0. Each of its four derivatives is at most 2 BEND / 0.5 = 0.36 while R / scale stretches by at least 0.98, so
that a(q) never folds. The organs' sizes vary besides. Tissue texture, vessels in the lungs, a bias field and the
scanner's noise come last.

Splits: train, validation, test; subject i of a split depends on (seed, split, i) and the size alone, not on `count`.
"""

import functools

import numpy as np
import tensorflow as tf

from dmkeras.data import rendering

COUNTS = {"train": 400, "validation": 100, "test": 100}
CLASSES = ("body", "right lung", "left lung", "heart")
BEND = 0.09


def class_names():
    return CLASSES


def load(split, *, data_dir=None, download=False, size=96, count=None, seed=0):
    """`count` subjects (by default 400 / 100 / 100) of size x size pixels; `data_dir` and `download` are not used.

    Raises ValueError for an unknown split, a size outside 32..256, `count` < 1 or `seed` < 0; TypeError for one of
    them that is no integer.
    """
    rendering.check_split("phantoms", split)
    count = COUNTS[split] if count is None else count
    rendering.check("phantoms", size=size, count=count, seed=seed)
    signature = {
        "image": tf.TensorSpec([size, size, 1], tf.float32),
        "semantic": tf.TensorSpec([size, size], tf.int32),
        "masks": tf.TensorSpec([len(CLASSES), size, size], tf.bool),
    }
    render = functools.partial(scene, size=size)
    return rendering.dataset(render, rendering.first_picture(split, seed), count, signature)


def scene(number, size=96):
    """The subject of a number >= 0: a dict of NumPy arrays, keys and shapes as in the module's table, `image` uint8.

    Raises ValueError for a size outside 32..256 or `number` < 0.
    """
    rendering.check("phantoms", number=number, size=size)
    words = np.random.PCG64(int(number))
    x, y = anatomy(words, size)
    outlines = _outlines(words, x, y)
    semantic = np.zeros((size, size), "int32")
    for k, name in enumerate(CLASSES):
        semantic[(outlines[name] < 0) & (outlines["body"] < 0)] = k + 1
    return {
        "image": _scan(words, outlines, size)[:, :, None],
        "semantic": semantic,
        "masks": semantic == np.arange(1, len(CLASSES) + 1)[:, None, None],
    }


def anatomy(words, size):
    """The point a(q) of the anatomy that each pixel q shows: float32 x [size, size] and y [size, size]."""
    grow, move_x, move_y, turn = rendering.uniform(words, 4)
    c, s = rendering.rotation((turn - 0.5) / 20)
    c, s = c / (0.9 + 0.12 * grow), s / (0.9 + 0.12 * grow)
    bend = (2 * rendering.spline(rendering.lattice(words, 2, 7, 7), size) - 1) * BEND
    q = (np.arange(size, dtype="float32") + 0.5) * (2 / size) - 1
    x, y = q - (move_x - 0.5) * 0.06, (q - (move_y - 0.5) * 0.06)[:, None]
    return x * c + y * s + bend[0], y * c - x * s + bend[1]


def _outlines(words, x, y):
    """Signed distances [size, size] in the frame's unit, negative inside, about right near the outline."""
    draws = iter(rendering.uniform(words, 16))

    def ellipse(centre, radii, turn=0.0):
        rx, ry = (radius * (0.92 + 0.16 * next(draws)) for radius in radii)
        c, s = rendering.rotation(turn)
        dx, dy = x - centre[0], y - centre[1]
        u, v = dx * (c / rx) + dy * (s / rx), dy * (c / ry) - dx * (s / ry)
        return u * u, v * v, min(rx, ry)

    def distance(u, v, radius):
        return (np.sqrt(u + v) - 1) * radius

    u, v, radius = ellipse((0.0, 0.0), (0.81, 0.69))
    return {
        "body": (np.sqrt(np.sqrt(u * u + v * v + u * v)) - 1) * radius,  # boxier than an ellipse
        "right lung": distance(*ellipse((-0.4, -0.02), (0.25, 0.43), 0.03)),
        "left lung": distance(*ellipse((0.4, -0.02), (0.25, 0.43), -0.03)),
        "heart": distance(*ellipse((0.09, -0.15), (0.28, 0.22), 0.09)),
        "vertebra": distance(*ellipse((0.0, 0.4), (0.12, 0.11))),
        "aorta": distance(*ellipse((0.1, 0.2), (0.06, 0.06))),
    }


def _scan(words, outlines, size):
    """uint8 [size, size]: tissue over tissue, each edge smoothed over one pixel; then bias field, gain and noise."""
    pixel = 2 / size
    gain, bias, noise, *levels = rendering.uniform(words, 10)
    coarse, field = rendering.spline(rendering.lattice(words, 2, 6, 6), size)
    fine = rendering.spline(rendering.lattice(words, 1, 39, 39), size)[0]
    tissues = (  # outline, how far inside it the tissue begins, grey value, texture
        ("body", 0.0, 0.32, 0.1),
        ("body", 0.05, 0.52, 0.25),
        ("right lung", 0.0, 0.16, 0.15),
        ("left lung", 0.0, 0.16, 0.15),
        ("heart", 0.0, 0.66, 0.15),
        ("vertebra", 0.0, 0.85, 0.5),
        ("aorta", 0.0, 0.7, 0.0),
    )
    vessels = rendering.fraction((fine - 0.64) * 8) * 0.45
    picture = np.full((size, size), 0.04, "float32")
    for (name, depth, grey, texture), level in zip(tissues, levels, strict=True):
        tone = grey + 0.06 * (2 * level - 1) + (fine - 0.5) * texture
        if name.endswith("lung"):
            tone += vessels
        picture += (tone - picture) * rendering.fraction(0.5 - (outlines[name] + depth) / pixel)
    picture *= 1 + (0.2 + 0.5 * bias) * (field - 0.5) + 0.1 * (coarse - 0.5)
    picture *= 0.85 + 0.3 * gain
    picture += rendering.grain(words, picture.shape, 4) * (0.015 + 0.04 * noise)
    return (rendering.fraction(picture) * 255 + 0.5).astype("uint8")
