"""Segmentations of varied quality with their truth, to try a prediction of quality on.

Each picture gets TRIES segmentations: one of a small segmenter, stopped at one of several stages of its training, by
turns; and the truth spoiled on purpose (dmkeras/parts/spoiled_segmentations.py), the kinds by turns, the strength
uniform in [0, 1]. Every picture keeps its segmentations together.

Shapes:  N pictures, M = TRIES N segmentations, S stages, H, W sides (whole multiples of 4), L labels, 0 the background.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from dmkeras.parts.spoiled_segmentations import KINDS, spoil

TRIES = 3
STAGES = (10, 40, 160)  # steps of training


def pictures(records, side, most=None):
    """Records with "image" and "semantic" of any size -> {key: array [N, ...]}, resized to side x side; names as str.

    Pictures are resized bilinearly, antialiased, labels by the nearest pixel.
    """

    def resized(record):
        image = tf.image.resize(record["image"], (side, side), antialias=True)
        labels = tf.image.resize(record["semantic"][..., None], (side, side), "nearest")[..., 0]
        named = {"name": record["name"]} if "name" in record else {}
        return {"image": tf.clip_by_value(image, 0.0, 1.0), "semantic": labels, **named}

    records = list((records if most is None else records.take(most)).map(resized).as_numpy_iterator())
    arrays = {key: np.stack([record[key] for record in records]) for key in records[0] if key != "name"}
    names = [record["name"].decode() if "name" in record else str(i) for i, record in enumerate(records)]
    return {**arrays, "name": np.array(names)}


def shuffled(arrays, seed):
    order = np.random.default_rng(seed).permutation(len(arrays["image"]))
    return {key: values[order] for key, values in arrays.items()}


def parted(arrays, count):
    """The first `count` pictures, and the others."""
    if len(arrays["image"]) < count:
        raise ValueError(f"expected at least {count} pictures, received {len(arrays['image'])}; ask for fewer")
    return [{key: values[part] for key, values in arrays.items()} for part in (slice(count), slice(count, None))]


def segmenter(image_shape, num_labels):
    """A small encoder and decoder: [B, H, W, C] -> logits [B, H, W, L]; it knows where a pixel is by the border."""
    block = lambda filters, strides=1: layers.Conv2D(filters, 3, strides, "same", activation="leaky_relu")
    return keras.Sequential(
        [
            keras.Input(image_shape),
            block(16, 2),
            block(32, 2),
            *[block(32) for _ in range(3)],
            layers.UpSampling2D(2, interpolation="bilinear"),
            block(16),
            layers.Conv2D(num_labels, 3, padding="same"),
            layers.UpSampling2D(2, interpolation="bilinear"),
        ]
    )


def segmented(images, truths, others, num_labels, stages=STAGES, batch_size=8, seed=0):
    """int32 [S, N, H, W]: what a segmenter of `images` and `truths` says of `others` after each number of steps.

    Args:
        images: [n, H, W, C] in [0, 1].
        truths: [n, H, W], 0 to L - 1, -1 for void.
        others: [N, H, W, C], which it never learns.
        num_labels: L.
        stages: numbers of steps, rising.
        batch_size: pictures a step, drawn anew each.
        seed: of the first weights and the batches.
    """
    keras.utils.set_random_seed(seed)
    model, rng, found = segmenter(images.shape[1:], num_labels), np.random.default_rng(seed), []
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    model.compile(keras.optimizers.Adam(5e-3), loss, jit_compile=False)
    for step in range(1, stages[-1] + 1):
        rows = rng.integers(0, len(images), batch_size)
        model.train_on_batch(images[rows], truths[rows])
        if step in stages:
            parts = [model(others[i : i + 32], training=False) for i in range(0, len(others), 32)]
            found.append(np.concatenate(parts).argmax(-1).astype("int32"))
    return np.stack(found)


def varied(truths, stages, seed=0):
    """Segmentations int32 [M, H, W], the picture [M] that each is of, and what made it, M texts.

    Args:
        truths: [N, H, W].
        stages: [S, N, H, W] of `segmented`.
        seed: of kinds and strengths.
    """
    rng, found = np.random.default_rng(seed), []
    turn = rng.integers(0, len(KINDS))
    for i, truth in enumerate(truths):
        found.append((stages[i % len(stages), i], i, f"segmenter, stage {i % len(stages) + 1}"))
        for j in range(TRIES - 1):
            kind = KINDS[(turn + (TRIES - 1) * i + j) % len(KINDS)]
            found.append((spoil(truth, kind, rng.uniform(), (*np.ravel(seed), i, j)), i, kind))
    segmentations, pictures, made = zip(*found)
    return np.maximum(np.stack(segmentations), 0), np.array(pictures), list(made)


def measured(model, known, learnt, stages=STAGES, seed=0):
    """A trial: {"images", "maps", "groups", "made", "overlaps", "real"} of M segmentations of the pictures `known`.

    Args:
        model: a ReverseClassificationAccuracy with its references.
        known: {"image" [N, H, W, C], "semantic" [N, H, W]}, none of them a reference.
        learnt: likewise; the segmenter learns them.
        stages: as for `segmented`.
        seed: two numbers.
    """
    labels = model.num_classes + 1
    found = segmented(learnt["image"], learnt["semantic"], known["image"], labels, stages, seed=seed[0])
    maps, groups, made = varied(known["semantic"], found, seed)
    images = known["image"][groups]
    answer = {"images": images, "maps": maps, "groups": groups, "made": made}
    real = model.real_overlaps(maps, known["semantic"][groups])
    return {**answer, "overlaps": model.overlaps(images, maps), "real": real}
