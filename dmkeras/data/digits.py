"""`digits`: scikit-learn's handwritten digits (UCI Optical Recognition of Handwritten Digits, its test half).

    image   float32 [8, 8, 1]   grey value / 16
    label   int32   []

Splits: train 1297, validation 200, test 300 pictures, `numpy.random.default_rng(0).permutation(1797)` cut at 1297
and 1497. Source: https://doi.org/10.24432/C50P49
"""

import numpy as np
import tensorflow as tf

SPLITS = {"train": slice(0, 1297), "validation": slice(1297, 1497), "test": slice(1497, 1797)}


def load(split, *, data_dir=None, download=False):
    """The digits of one split; `data_dir` and `download` are not used. ValueError for an unknown split."""
    if split not in SPLITS:
        raise ValueError(f"digits has the splits {', '.join(SPLITS)}, not {split!r}")
    from sklearn.datasets import load_digits

    digits = load_digits()
    rows = np.random.default_rng(0).permutation(1797)[SPLITS[split]]
    image = (digits.images[rows] / 16).astype("float32")[..., None]
    return tf.data.Dataset.from_tensor_slices({"image": image, "label": digits.target[rows].astype("int32")})


def class_names():
    return [str(digit) for digit in range(10)]
