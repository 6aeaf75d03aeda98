"""Every TensorFlow Datasets name (`mnist`, `voc/2007`, `mnist:3.0.1`), read where it is prepared.

The place is `data_dir`, else the environment's TFDS_DATA_DIR, else ~/tensorflow_datasets. What TFDS stores becomes the
package's keys and units:

    image              integers / their largest value (255) -> float32 in [0, 1]; binarized_mnist stores 0 and 1
    label              -> int32
    objects            its boxes (ymin, xmin, ymax, xmax in [0, 1]) and labels -> boxes, classes; the rest stays
    segmentation_mask  -> semantic int32 [height, width], with the values that the data set stores
    depth              -> float32 [height, width]

All else keeps its name and type. Files are read in one fixed order. Splits are the data set's own, with TFDS's slices:
`train[:50000]`, `train[80%:]`, `train+test`. Source: https://www.tensorflow.org/datasets
"""

import os
import pathlib
import re

import tensorflow as tf

NAME = re.compile(r"\w+(/[\w.+-]+)?(:[\w.*]+)?")


def names():
    """The names of the data sets that the installed TensorFlow Datasets can make, without configurations."""
    import tensorflow_datasets as tfds

    return tfds.list_builders(with_community_datasets=False)


def is_name(name, data_dir=None):
    """Whether `name` is that of a TFDS set, or of one of the user's that lies prepared in TFDS's form."""
    if not NAME.fullmatch(name):
        return False
    base = re.split("[/:]", name)[0]
    return base in names() or (directory(data_dir) / base).is_dir()


def directory(data_dir):
    """Where prepared sets are looked for. TFDS itself reads the environment only when it is first imported."""
    place = data_dir or os.environ.get("TFDS_DATA_DIR") or pathlib.Path("~", "tensorflow_datasets")
    return pathlib.Path(place).expanduser()


def load(name, split, *, data_dir=None, download=False):
    """The set `name` of TensorFlow Datasets. Uses the network only for `download=True` and a set not yet prepared.

    Raises FileNotFoundError, at once, for a set that is not prepared when `download` is False; ValueError for an
    unknown split.
    """
    import tensorflow_datasets as tfds

    builder = _builder(name, data_dir, download)
    read = tfds.ReadConfig(try_autocache=False)
    try:
        dataset = builder.as_dataset(split=split, shuffle_files=False, read_config=read)
    except (ValueError, KeyError) as error:
        raise ValueError(f"{name} has the splits {', '.join(builder.info.splits)}, not {split!r}: {error}") from error
    return dataset.map(_converter(builder), num_parallel_calls=tf.data.AUTOTUNE)


def class_names(name, *, data_dir=None):
    """The names of the labels (or of the classes of the boxes) of a prepared set."""
    builder = _builder(name, data_dir, download=False)
    features = builder.info.features
    label = features["label"] if "label" in features else _objects(features)[2]
    if not getattr(label, "names", None):
        raise ValueError(f"the data set {name!r} names no classes; its features are {', '.join(features)}")
    return label.names


def _builder(name, data_dir, download):
    import tensorflow_datasets as tfds

    place = directory(data_dir)
    try:
        # builder_from_files never asks the network; tfds.builder of a set that is not prepared does, for 205 s.
        return tfds.core.read_only_builder.builder_from_files(name, data_dir=os.fspath(place))
    except tfds.core.registered.DatasetNotFoundError as error:
        if not download:
            found = sorted({p.parts[len(place.parts)] for p in _prepared(place)})
            raise FileNotFoundError(
                f"the TFDS set {name!r} is not prepared in {place} (there: {', '.join(found) or 'no set'}). Give its "
                "directory by data_dir or TFDS_DATA_DIR, or allow the network by download=True (--download)."
            ) from error
    builder = tfds.builder(name, data_dir=os.fspath(place))
    builder.download_and_prepare()
    return builder


def _prepared(place):
    """The descriptions of the sets prepared in `place`: NAME/VERSION or NAME/CONFIGURATION/VERSION."""
    for depth in ("*/*", "*/*/*"):
        yield from place.glob(f"{depth}/dataset_info.json")


def _objects(features):
    """The names of the group of objects and of its label, and the label's feature; (None, None, None) without."""
    import tensorflow_datasets as tfds

    for group, feature in features.items():
        inner = getattr(feature, "feature", None)
        if isinstance(inner, tfds.features.FeaturesDict) and isinstance(
            dict(inner).get("bbox"), tfds.features.BBoxFeature
        ):
            for key, label in inner.items():
                if isinstance(label, tfds.features.ClassLabel) and key in ("label", "type"):
                    return group, key, label
    return None, None, None


def _converter(builder):
    """The function that turns an example as TFDS stores it into one with this package's keys and units."""
    group, label, _ = _objects(builder.info.features)

    def convert(example):
        example = dict(example)
        image, given, depth, mask = (_tensor(example.get(k)) for k in ("image", "label", "depth", "segmentation_mask"))
        if image is not None and image.dtype.is_integer:
            largest = 1 if builder.name == "binarized_mnist" else image.dtype.max
            example["image"] = tf.cast(image, tf.float32) / largest
        if given is not None and given.dtype.is_integer:
            example["label"] = tf.cast(given, tf.int32)
        if group is not None and image is not None:
            objects = dict(example.pop(group))
            height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
            example["boxes"] = tf.gather(objects.pop("bbox"), [1, 0, 3, 2], axis=1) * [width, height, width, height]
            example["classes"] = tf.cast(objects.pop(label), tf.int32)
            example |= {group: objects} if objects else {}
        if mask is not None:
            example["semantic"] = tf.cast(example.pop("segmentation_mask")[..., 0], tf.int32)
        if depth is not None:
            depth = tf.cast(depth, tf.float32)
            example["depth"] = depth[..., 0] if depth.shape.rank == 3 else depth
        return example

    return convert


def _tensor(value):
    """`value` where it is one tensor; None for the groups that some data sets keep under a key of that name."""
    return value if tf.is_tensor(value) else None
