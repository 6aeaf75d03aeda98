"""Pictures for models of binary pixels: a figure in nats means something only beside its protocol.

fixed      one binary draw for good: `mnist_binarized` (MNIST alone)
dynamic    train and validation are grey, for `draw` to binarize, anew each epoch in training; the test split of
           MNIST is `mnist_binarized`'s, so that the two protocols are tested on the same pictures
threshold  1 where the grey value is at least 1/2 (of 16 grey levels: at least 8)
none       grey values, or coloured ones
"""

import tensorflow as tf

from dmkeras.data import mnist_binarized
from dmkeras.data.pipeline import batches, to_arrays

PROTOCOLS = ("fixed", "dynamic", "threshold", "none")


def images(name, split, protocol, *, data_dir=None, download=False, side=None):
    """The pictures of a data set under a protocol, float32 [N, H, W, C] in [0, 1], all in memory.

    Args:
        name: as in `dmkeras.data.load`, like data_dir and download.
        split: `train`, `validation` or `test`; a TFDS set gives the last 10,000 of its `train` for validation.
        protocol: one of PROTOCOLS.
        data_dir: where prepared TFDS sets lie.
        download: whether to prepare one that is not there.
        side: 14 for MNIST alone: mean-pooled 2x2 before any draw or threshold. None or 28 leave its pictures as
            they are.

    Raises:
        ValueError: for an unknown protocol, a fixed draw or a side of another set than MNIST, another side.
    """
    return _under(_arrays(name, split, protocol, data_dir, download, side)["image"], name, split, protocol, side)


def _under(grey, name, split, protocol, side=None):
    """Grey pictures of a split as the protocol has them."""
    pool = side and name == "mnist" and not _drawn(name, split, protocol)
    grey = mnist_binarized.pooled(grey, side) if pool else grey
    return (grey >= 0.5).astype("float32") if protocol == "threshold" else grey


def labels(name, split, protocol, *, data_dir=None, download=False, side=None):
    """The labels [N] of `images(...)`, whose arguments and errors they share."""
    return _arrays(name, split, protocol, data_dir, download, side)["label"]


def _arrays(name, split, protocol, data_dir=None, download=False, side=None):
    from dmkeras.data import OFFLINE, OWN, load

    known = f"{', '.join(PROTOCOLS)}; fixed for mnist alone"
    if protocol not in PROTOCOLS:
        raise ValueError(f"{name}: expected a binarization of {known}; received {protocol!r}")
    if side is not None and (name not in ("mnist", "mnist_binarized") or side not in mnist_binarized.SIDES):
        raise ValueError(f"{name}: expected a side of {mnist_binarized.SIDES} for mnist alone; received side={side!r}")
    name = "mnist_binarized" if _drawn(name, split, protocol) else name
    if name not in OFFLINE and name.partition(":")[0] not in OWN:
        split = {"train": "train[:-10000]", "validation": "train[-10000:]"}.get(split, split)
    options = {"side": side} if side and name == "mnist_binarized" else {}
    dataset = load(name, split, data_dir=data_dir, download=download, **options)  # refuses a name that is none
    if protocol == "fixed" and name != "mnist_binarized":
        raise ValueError(f"{name}: expected a binarization of {known}; received {protocol!r}")
    return to_arrays(dataset)


def _drawn(name, split, protocol):
    """Whether MNIST's pictures are those of its one fixed draw."""
    fixed = protocol == "fixed" or (protocol == "dynamic" and split == "test")
    return name == "mnist_binarized" or (name == "mnist" and fixed)


def splits(name, protocol, batch_size, *, drop_remainder=False, labelled=False, **source):
    """What a recipe needs of a data set: its pictures, and the batches of them.

    Args:
        name: as for `images`, like protocol and the options of `source`.
        protocol: see there.
        batch_size: pictures.
        drop_remainder: whether a last, smaller batch of train is left out.
        labelled: whether batches are (pictures, labels [B]).
        **source: see there.

    Returns:
        {"train", "validation", "test": images}, and the function of (split, seed) of a `Recipe`: train is shuffled,
        and dynamic pictures are drawn, by the seed.

    Raises:
        ValueError: as `images`, and for labels beside dynamic pictures.
    """
    if labelled and protocol == "dynamic":
        raise ValueError("expected pictures without labels for a draw anew each epoch, received labelled=True")
    read = {split: _arrays(name, split, protocol, **source) for split in ("train", "validation", "test")}
    arrays = {split: _under(found["image"], name, split, protocol, source.get("side")) for split, found in read.items()}
    records = {split: (x, read[split]["label"]) if labelled else x for split, x in arrays.items()}

    def batched(split, seed):
        train = split == "train"
        dataset = batches(records[split], batch_size, seed if train else None, drop_remainder and train)
        return draw(dataset, seed) if protocol == "dynamic" else dataset

    return arrays, batched


def levels(name, protocol):
    """How many values a pixel of `images(name, split, protocol)` may have, from 0 to 1 in equal steps."""
    if protocol != "none":
        return 2
    return 17 if name == "digits" else 256


def draw(dataset, seed):
    """Batches of grey pictures -> binary ones, a pixel 1 with the probability of its grey value.

    Args:
        dataset: batches [B, H, W, C] float32 in [0, 1].
        seed: int64 scalar, a number or a tensor; the draw is a function of (seed, batch) alone.
    """

    def binary(step, grey):
        uniform = tf.random.stateless_uniform(tf.shape(grey), tf.stack([tf.cast(seed, "int64"), step]))
        return tf.cast(uniform < grey, "float32")

    return dataset.enumerate().map(binary)
