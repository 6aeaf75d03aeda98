"""What understanding explains: a trained classifier, with pictures of which it is known what they show.

    small_cnn       SmallCNN, trained in here in under a minute on pictures of `simple_shapes` with one object; the
                    pictures are held out, and boxes tell where the object is
    squeezenet      ImageNet's 1000 classes, from a file of weights; three photographs of scikit-image
    vgg16, vgg19    the same photographs and classes

Names of ImageNet's classes are read from `synset_words.txt` ("wnid name, synonyms", a line a class) beside the file of
weights, else from what Keras keeps of earlier downloads; without either they are "class 0" and so on.

Shapes:  N pictures, H height, W width, K classes.
"""

import dataclasses
import functools
import json
import os
import pathlib
import typing

import numpy as np
import tensorflow as tf

from dmkeras.backbones import small_cnn
from dmkeras.data import class_names, load, to_arrays
from dmkeras.parts.checks import one_of

KINDS = ("small_cnn", "squeezenet", "vgg16", "vgg19")
SHAPES = {"side": 48, "trained": 6000, "shown": 500, "epochs": 7, "filters": 16, "batch_size": 64}  # small_cnn's data
FAST = {"side": 32, "trained": 1500, "shown": 60, "epochs": 6, "filters": 8, "batch_size": 32}
PHOTOS = {"chelsea": 285, "coffee": 967, "camera": 872}  # Egyptian cat, espresso, tripod


@dataclasses.dataclass(frozen=True)
class Subject:
    """A classifier and what it is asked about.

    Attributes:
        classifier: a `keras.Model` [B, H, W, 3] -> logits [B, K].
        names: K texts.
        images: [N, H, W, 3] float32 in [0, 1].
        classes: [N] int32, what the pictures show.
        boxes: [N, 4] float32, xyxy in pixels, where it is; None where that is not known.
    """

    classifier: typing.Any
    names: list
    images: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray | None = None


def subject(classifier="small_cnn", weights=None, fast=False, seed=0):
    """A trained classifier with pictures.

    Args:
        classifier: "small_cnn", "squeezenet", "vgg16" or "vgg19".
        weights: path of a file of weights, which all but small_cnn need; for VGG also "imagenet", a download.
        fast: few pictures and epochs, for tests; photographs at 64x64 instead of 224x224.
        seed: of small_cnn's training.

    Raises:
        ValueError: for another classifier, or where weights are needed, or given to small_cnn.
    """
    one_of("classifier", classifier, KINDS)
    if (weights is None) != (classifier == "small_cnn"):
        raise ValueError(
            "small_cnn is trained here and takes no weights"
            if weights
            else f"{classifier} needs weights, the path of a file such as squeezenet_v1.0_imagenet.npz"
        )
    return _of_shapes(fast, seed) if classifier == "small_cnn" else _of_photos(classifier, weights, fast)


def one_object(data, split, count, side):
    """(images [N, side, side, 3], classes [N], boxes [N, 4]) of at most `count` rendered pictures with one object.

    data: "simple_shapes", pictures of one object, or "shapes", crops around each object of its scenes.
    """
    if data == "shapes":
        records = load(data, split).flat_map(lambda record: _crops(record, side)).take(count)
    else:
        records = load(data, split, size=side, count=count, max_objects=1)
        records = records.filter(lambda record: tf.size(record["classes"]) > 0)  # an object can be too small
        first = lambda record: {"image": record["image"], "class": record["classes"][0], "box": record["boxes"][0]}
        records = records.map(first)
    arrays = to_arrays(records)
    return arrays["image"], arrays["class"], arrays["box"]


def _crops(record, side):
    """A dataset of the objects of a scene, each in the middle of a square 1.2 times as large, grey beyond the scene."""
    boxes, scene = record["boxes"], record["image"]
    middles, halves = (boxes[:, :2] + boxes[:, 2:]) / 2, tf.reduce_max(boxes[:, 2:] - boxes[:, :2], 1, True) * 0.6
    squares = tf.concat([middles - halves, middles + halves], 1)
    shares = tf.reverse(tf.reshape(squares, (-1, 2, 2)), [2])  # y before x
    shares = tf.reshape(shares, (-1, 4)) / tf.cast(tf.shape(scene)[0] - 1, "float32")
    owners = tf.zeros(tf.shape(boxes)[:1], "int32")
    images = tf.image.crop_and_resize(scene[None], shares, owners, (side, side), extrapolation_value=0.5)
    boxes = (boxes - tf.tile(squares[:, :2], [1, 2])) * side / tf.tile(2 * halves, [1, 4])
    crops = {"image": tf.clip_by_value(images, 0.0, 1.0), "class": record["classes"], "box": boxes}
    return tf.data.Dataset.from_tensor_slices(crops)


def _of_shapes(fast, seed):
    weights, arrays = _trained(bool(fast), seed)
    own, names = FAST if fast else SHAPES, class_names("simple_shapes")
    model = small_cnn.SmallCNN((own["side"], own["side"], 3), len(names), own["filters"], seed, dtype="float32")
    model.set_weights(weights)
    return Subject(model, names, *(array.copy() for array in arrays))


@functools.cache  # in one process many ask
def _trained(fast, seed):
    """(weights, held-out images, classes, boxes), the same again for the same seed."""
    own = FAST if fast else SHAPES
    images, classes, _ = one_object("simple_shapes", "train", own["trained"], own["side"])
    fit = {name: own[name] for name in ("epochs", "batch_size", "filters")}
    model = small_cnn.trained(images, classes, seed, **fit)
    return model.get_weights(), one_object("simple_shapes", "test", own["shown"], own["side"])


def _of_photos(classifier, weights, fast):
    side = 64 if fast else 224
    if classifier == "squeezenet":
        from dmkeras.backbones.squeezenet import SqueezeNet

        model = SqueezeNet(weights=weights, image_shape=(side, side, 3))
    else:
        from dmkeras.backbones.vgg import VGG

        model = VGG(int(classifier[3:]), weights=weights, image_shape=(224, 224, 3))
        side = 224
    photos = load("photos", "all", names=tuple(PHOTOS))
    resized = [tf.image.resize(record["image"], (side, side), antialias=True) for record in photos]
    images = np.clip(np.stack(resized), 0.0, 1.0).astype("float32")
    return Subject(model, imagenet_names(weights), images, np.array(list(PHOTOS.values()), "int32"))


def imagenet_names(weights):
    """The names of ImageNet's 1000 classes, where they are at hand."""
    words = pathlib.Path(weights).parent / "synset_words.txt"
    if words.is_file():
        return [line.split(" ", 1)[1].split(",")[0] for line in words.read_text().splitlines()]
    home = pathlib.Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    index = home / "models" / "imagenet_class_index.json"
    if index.is_file():
        table = json.loads(index.read_text())
        return [table[str(i)][1].replace("_", " ") for i in range(len(table))]
    return [f"class {i}" for i in range(1000)]
