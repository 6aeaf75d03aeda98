"""What segmenters are trained on: arrays of pictures and label maps, and batches changed anew in each epoch.

    arrays      a split of `dmkeras.data.load` in memory; smaller pictures have a margin of grey and void
    resized     a function of a record: its picture in a square, its map to the nearest pixel
    changed     batches of the arrays, each picture moved and coloured as a function of (seed, step) alone

One map moves both, picture and labels: of an answer of side S about its centre, in pixels between centres,

    p = centre + A (p' - S / 2),    A = mirror . quarter turns . rotation / zoom

with `zoom` drawn evenly on a logarithmic scale and `centre` evenly among those that keep the window in the picture, or
the middle where it is larger. Pictures are interpolated bilinearly and grey (0.5) outside, labels are those of the
nearest pixel and void (-1) outside. Where nothing is turned on, pixels and labels come back bit for bit.

Colours, where asked: all channels replaced by their mean (`grey`), 1 - v (`invert`), v^g (`gamma`), and b m + c (v - m)
about the mean m of the picture (`contrast`), cut to [0, 1]. All are relative, since pictures may be dark.

A model expected to train on it takes images [B, S, S, C] and labels [B, S, S] int32 with void.

Shapes:  N pictures, B batch, H height, W width, C channels, S side of what is trained on.
"""

import functools

import numpy as np
import tensorflow as tf

from dmkeras.parts import letterbox
from dmkeras.parts.checks import number, whole_number
from dmkeras.parts.segmentation_metrics import VOID
from dmkeras.parts.upsampling import sides_of

FILL = 0.5
ABOVE_1 = np.nextafter(1, 2)


def arrays(dataset):
    """Records of "image" [h, w, C] and "semantic" [h, w] -> images float32 [N, H, W, C], labels int32 [N, H, W].

    Pictures of different sizes stand in the middle of the largest height and width, in grey (0.5) with void.

    Raises:
        ValueError: for an empty dataset, records without those keys, or a map of another size than its picture.
    """
    spec = dataset.element_spec
    if not isinstance(spec, dict) or not {"image", "semantic"} <= set(spec):
        received = f"those of {', '.join(spec)}" if isinstance(spec, dict) else f"some of {spec}"
        raise ValueError(f"expected records with image and semantic, received {received}; this data has no label maps")
    pairs = [(record["image"], record["semantic"]) for record in dataset.as_numpy_iterator()]
    if not pairs:
        raise ValueError("expected a dataset of at least one record, received an empty one")
    for i, (image, labels) in enumerate(pairs):
        if image.shape[:2] != labels.shape:
            raise ValueError(
                f"record {i} has a picture {image.shape} and a map {labels.shape}; they must have one size"
            )
    height, width = np.max([labels.shape for _, labels in pairs], axis=0)
    images = np.full((len(pairs), height, width, pairs[0][0].shape[2]), FILL, "float32")
    maps = np.full((len(pairs), height, width), VOID, "int32")
    for i, (image, labels) in enumerate(pairs):
        y, x = (height - labels.shape[0]) // 2, (width - labels.shape[1]) // 2
        place = i, slice(y, y + labels.shape[0]), slice(x, x + labels.shape[1])
        images[place], maps[place] = image, labels
    return images, maps


@functools.cache
def resized(side):
    """A function of a record: its picture letterboxed to `side` pixels, its "semantic" map with it, void in margins."""
    side = whole_number("side", side, 1)

    def place(record):
        image, placement = letterbox.letterbox(record["image"], (side, side), FILL)
        sides = tf.shape(record["semantic"])
        pixels = []
        for axis in (0, 1):  # the pixel of the map that each row, each column of the answer shows
            scale, offset = placement[1 - axis], placement[3 - axis]
            at = (tf.range(side, dtype="float32") + 0.5 - offset) / scale
            pixels.append((tf.cast(tf.floor(at), "int32"), (at >= 0) & (at < tf.cast(sides[axis], "float32"))))
        (rows, down), (columns, across) = pixels
        labels = tf.gather(record["semantic"], tf.clip_by_value(rows, 0, sides[0] - 1), axis=0)
        labels = tf.gather(labels, tf.clip_by_value(columns, 0, sides[1] - 1), axis=1)
        return {**record, "image": image, "semantic": tf.where(down[:, None] & across, labels, VOID)}

    return place


def changed(dataset, seed, **options):
    """A dataset of (images [B, H, W, C], labels [B, H, W]) with each picture changed by `augment`.

    Args:
        dataset: batches.
        seed: int64 scalar, a number or a tensor; another one each epoch. The answer is a function of it alone.
        options: of `augment`.
    """

    def change(step, batch):
        return augment(*batch, tf.stack([tf.cast(seed, "int64"), step]), **options)

    return dataset.enumerate().map(change, num_parallel_calls=tf.data.AUTOTUNE)


def augment(
    images,
    labels,
    seed,
    side=None,
    mirror=True,
    turns=True,
    rotation=0.0,
    zoom=1.0,
    grey=0.0,
    invert=0.0,
    gamma=1.0,
    contrast=1.0,
):
    """(images [B, S, S, C], labels [B, S, S]), drawn anew for each picture.

    Args:
        images: [B, H, W, C] in [0, 1].
        labels: [B, H, W] whole numbers, -1 for void.
        seed: int32 or int64 [2]; the answer is a function of it and of the other arguments alone.
        side: S; None keeps the size of the pictures, in which an oblong one lies across after a quarter turn.
        mirror: whether half of them are mirrored.
        turns: whether they are turned by 0 to 3 quarters.
        rotation: greatest further angle in radians, either way.
        zoom: greatest factor of size, and its inverse the least; at least 1.
        grey: chance to lose the colours.
        invert: chance to become its negative.
        gamma: greatest exponent, and its inverse the least; at least 1.
        contrast: greatest factor of the picture's mean, and of what differs from it, and its inverse the least; at
            least 1.
    """
    images, labels = tf.cast(images, "float32"), tf.cast(labels, "int32")
    rotation, zoom = number("rotation", rotation), number("zoom", zoom, 1)
    grey, invert = (number(name, chance, below=ABOVE_1) for name, chance in (("grey", grey), ("invert", invert)))
    gamma, contrast = number("gamma", gamma, 1), number("contrast", contrast, 1)
    draws = tf.random.stateless_uniform([12, tf.shape(images)[0]], seed, alg="philox")  # XLA draws others
    if mirror or turns or rotation or zoom > 1 or side is not None:
        sides = sides_of(images)
        size = sides if side is None else [whole_number("side", side, 1)] * 2
        options = {"mirror": mirror, "turns": turns, "rotation": rotation, "zoom": zoom}
        images, labels = move(images, labels, windows(draws[:6], sides, size, **options), size)
    return recolour(images, draws[6:], grey, invert, gamma, contrast), labels


def windows(draws, sides, size, mirror, turns, rotation, zoom):
    """ImageProjectiveTransform's [B, 8]: for each pixel of the answer the place in its picture, both by indices."""
    mirrored, turned, angle, scale, down, across = tf.unstack(draws)
    quarter = tf.cast(tf.floor(4 * turned), "int32") if turns else tf.zeros_like(turned, "int32")
    cos, sin = (tf.gather(values, quarter) for values in ([1.0, 0.0, -1.0, 0.0], [0.0, 1.0, 0.0, -1.0]))  # exact ones
    if rotation:
        c, s = tf.cos(rotation * (2 * angle - 1)), tf.sin(rotation * (2 * angle - 1))
        cos, sin = cos * c - sin * s, sin * c + cos * s
    factor = tf.exp(np.log(zoom) * (1 - 2 * scale))  # pixels of the picture a pixel of the answer
    flip = tf.where(mirrored < 0.5, -1.0, 1.0) if mirror else tf.ones_like(mirrored)
    a, b, c, d = (
        flip * factor * cos,
        -factor * sin,
        flip * factor * sin,
        factor * cos,
    )  # x = a x' + b y', y = c x' + d y'
    (height, width), (rows, columns) = ([tf.cast(n, "float32") for n in pair] for pair in (sides, size))
    spare = lambda whole, part: tf.maximum(whole - part, 0.0)
    wide, high = (tf.abs(p) * columns + tf.abs(q) * rows for p, q in ((a, b), (c, d)))
    x = width / 2 + (across - 0.5) * spare(width, wide) - 0.5  # index of a centre
    y = height / 2 + (down - 0.5) * spare(height, high) - 0.5
    x -= a * (columns - 1) / 2 + b * (rows - 1) / 2
    y -= c * (columns - 1) / 2 + d * (rows - 1) / 2
    if zoom == 1 and not rotation:  # whole pixels: nothing is blurred
        x, y = tf.round(x), tf.round(y)
    zero = tf.zeros_like(x)
    return tf.stack([a, b, x, c, d, y, zero, zero], axis=1)


def move(images, labels, transforms, size):
    """Pictures bilinearly, labels to the nearest, by the same `transforms`."""
    options = {"transforms": transforms, "output_shape": tf.stack(size), "fill_mode": "CONSTANT"}
    transform = tf.raw_ops.ImageProjectiveTransformV3
    images_ = transform(images=images, fill_value=FILL, interpolation="BILINEAR", **options)
    labels_ = transform(images=labels[..., None], fill_value=VOID, interpolation="NEAREST", **options)
    known = [side if isinstance(side, int) else None for side in size]
    return tf.ensure_shape(images_, [None, *known, images.shape[3]]), tf.ensure_shape(labels_[..., 0], [None, *known])


def recolour(images, draws, grey, invert, gamma, contrast):
    """Pictures [B, H, W, C] with their colours changed by `draws` [6, B]; the last four tell by how much."""
    bleached, inverted, power, factor, shift, _ = (draw[:, None, None, None] for draw in tf.unstack(draws))
    if grey:
        images = tf.where(bleached < grey, tf.reduce_mean(images, -1, keepdims=True), images)
    if invert:
        images = tf.where(inverted < invert, 1 - images, images)
    if gamma > 1:
        images = tf.pow(tf.clip_by_value(images, 0.0, 1.0), tf.exp(np.log(gamma) * (2 * power - 1)))
    if contrast > 1:
        mean = tf.reduce_mean(images, (1, 2, 3), keepdims=True)
        brighter, steeper = (tf.exp(np.log(contrast) * (2 * draw - 1)) for draw in (shift, factor))
        images = tf.clip_by_value(mean * brighter + (images - mean) * steeper, 0.0, 1.0)
    return images
