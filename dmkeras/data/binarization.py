"""Pictures for models of binary pixels: a figure in nats means something only beside its protocol.

fixed      one binary draw for good: `mnist_binarized` (MNIST alone)
dynamic    train and validation are grey, for `draw` to binarize, anew each epoch in training; the test split of
           MNIST is `mnist_binarized`'s, so that the two protocols are tested on the same pictures
threshold  1 where the grey value is at least 1/2 (of 16 grey levels: at least 8)
none       grey values, or coloured ones
"""

import tensorflow as tf

from dmkeras.data import mnist_binarized
from dmkeras.data.pipeline import to_arrays

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
    from dmkeras.data import OFFLINE, OWN, load

    known = f"{', '.join(PROTOCOLS)}; fixed for mnist alone"
    if protocol not in PROTOCOLS:
        raise ValueError(f"{name}: expected a binarization of {known}; received {protocol!r}")
    if side is not None and (name not in ("mnist", "mnist_binarized") or side not in mnist_binarized.SIDES):
        raise ValueError(f"{name}: expected a side of {mnist_binarized.SIDES} for mnist alone; received side={side!r}")
    if name == "mnist" and (protocol == "fixed" or (protocol == "dynamic" and split == "test")):
        name = "mnist_binarized"
    if name not in OFFLINE and name.partition(":")[0] not in OWN:
        split = {"train": "train[:-10000]", "validation": "train[-10000:]"}.get(split, split)
    options = {"side": side} if side and name == "mnist_binarized" else {}
    dataset = load(name, split, data_dir=data_dir, download=download, **options)  # refuses a name that is none
    if protocol == "fixed" and name != "mnist_binarized":
        raise ValueError(f"{name}: expected a binarization of {known}; received {protocol!r}")
    grey = to_arrays(dataset)["image"]
    grey = mnist_binarized.pooled(grey, side) if side and name == "mnist" else grey
    return (grey >= 0.5).astype("float32") if protocol == "threshold" else grey


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
