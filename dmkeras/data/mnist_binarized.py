"""MNIST binarized by one fixed draw of each pixel, `pixel = 1` with probability `grey / 255`.

The fixed set that papers quote is Larochelle's (TensorFlow Datasets' `binarized_mnist`). This draw is another one of
the same law, made from MNIST itself, so that it needs nothing but `mnist`: uniform numbers from
`RandomState(2008).random_sample((60000, 784))` against the training pictures / 255, then `(10000, 784)` of the same
generator against the test pictures, both in MNIST's original order. Train is the first 50,000, validation the last
10,000. SHA-1 of the packed bits of train, validation and test in order: 1873c6548c473818ee4a49db31ee4c666eb911ed.

The option `side=14` is for models that want hours at 28x28: the grey pictures are mean-pooled 2x2 and then drawn from
by the same law, `RandomState(2008)` anew, `(60000, 196)` against the mean of four grey values / 255, then
`(10000, 196)`. SHA-1 of its packed bits: 597c3b8e8ef04c1fc52f6c8154a80a4f35800f4d.

Records: `image` [side, side, 1] float32 in {0, 1}, `label` [] int32.
"""

import functools
import hashlib

import numpy as np

SPLITS = {"train": slice(0, 50000), "validation": slice(50000, 60000), "test": slice(60000, 70000)}
SIDES = (28, 14)


def _original_order(split, count):
    """Where TFDS put each picture: it sorts a split by the MD5 of its name and the picture's index."""
    digests = [hashlib.md5(f"{split}{index}".encode()).digest() for index in range(count)]
    return np.argsort(np.array(digests, dtype="S16"))


def pooled(images, side):
    """Pictures [N, H, W, C] as the means of equal squares, [N, side, side, C]."""
    count, height, width, channels = images.shape
    squares = images.reshape(count, side, height // side, side, width // side, channels)
    return squares.mean(axis=(2, 4))


@functools.lru_cache(maxsize=1)  # the three splits come of one pass over MNIST
def _draw(data_dir, download, side):
    """All 70,000 pictures [N, side, side, 1] bool and labels [N] int32, train before test."""
    from dmkeras.data import load as load_by_name
    from dmkeras.data.pipeline import to_arrays

    generator = np.random.RandomState(2008)
    images, labels = [], []
    for part, count in (("train", 60000), ("test", 10000)):
        stored = to_arrays(load_by_name("mnist", part, data_dir=data_dir, download=download))
        place = _original_order(part, count)
        grey, label = np.empty((count, side * side), "float64"), np.empty(count, "int32")
        whole = np.rint(stored["image"] * 255.0).astype("float64")
        grey[place], label[place] = pooled(whole, side).reshape(count, -1), stored["label"]
        images.append(generator.random_sample(grey.shape) < grey / 255)
        labels.append(label)
    return np.concatenate(images).reshape(-1, side, side, 1), np.concatenate(labels)


def load(split, *, data_dir=None, download=False, side=28):
    """The draw at `side` 28 or 14. ValueError for another split or side; else as `dmkeras.data.load`."""
    import tensorflow as tf

    from dmkeras.data import tfds

    if split not in SPLITS:
        raise ValueError(f"mnist_binarized has the splits {', '.join(SPLITS)}; received {split!r}")
    if side not in SIDES:
        raise ValueError(f"mnist_binarized has the sides {', '.join(map(str, SIDES))}; received {side!r}")
    images, labels = (array[SPLITS[split]] for array in _draw(tfds.directory(data_dir), download, side))
    dataset = tf.data.Dataset.from_tensor_slices({"image": images, "label": labels})
    return dataset.map(lambda record: {**record, "image": tf.cast(record["image"], "float32")})
