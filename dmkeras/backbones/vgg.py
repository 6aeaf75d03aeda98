"""VGG-16 and VGG-19: classifiers of ImageNet of 3x3 convolutions, whose maps style and texture are measured in.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015
(https://arxiv.org/abs/1409.1556), table 1, configurations D and E.

    block b      convolutions conv{b}_1, conv{b}_2 ... of 3x3 to M_b maps, each max(x, 0); then 2x2 pooling, pool{b}
    M            64 128 256 512 512
    convolutions 2 2 3 3 3 (VGG-16) or 2 2 4 4 4 (VGG-19)
    head         fc6 and fc7 of 4096, each max(x, 0) and dropout in training; fc8 to K logits
    colours      255 BGR minus (103.939, 116.779, 123.68)

With 1000 classes 138,357,544 (VGG-16) and 143,667,240 (VGG-19) parameters, without a head 14,714,688 and 20,024,384.
A side that pooling cannot halve loses its last row or column, as in Keras.

conv4_2 means that layer's maps after its rectifier, as it does in Caffe, which rectifies in place, and so in the papers
on style that name layers so; relu4_2 is another name of the same maps. `pooling="average"` is that of Gatys, Ecker and
Bethge (https://arxiv.org/abs/1508.06576), who found its pictures nicer.

Shapes:  B batch, H height, W width, M maps, K classes.

Deviations from the paper, each with its reason:
- Weights without a file start after He et al.; the paper takes those of its shallower networks, a second training.
- Its L2 penalty is left to the optimizer (`weight_decay`), so that the loss is the cross-entropy and nothing else.
"""

import pathlib

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from dmkeras.parts import classification, weight_files
from dmkeras.parts.checks import check_image_shape, check_images, looks_at_first_batch, number, one_of, whole_number

CONVOLUTIONS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (1, 2, 4, 8, 8)  # maps of a block, as multiples of the first one's
SMALLEST = 32  # sides that leave something to every pooling
BGR_MEAN = np.array([103.939, 116.779, 123.68], "float32")


@looks_at_first_batch
@keras.saving.register_keras_serializable("dmkeras")
class VGG(keras.Model):
    """The classifier, or its convolutions alone.

    Call: images `[B, H, W, 3]` float32 in [0, 1]  ->  logits `[B, K]` float32, or the mean of pool5, [B, M].

    | signature | inputs | outputs |
    | --- | --- | --- |
    | serving_default | images [B, H, W, 3] float32 in [0, 1] | logits [B, K], probabilities [B, K] float32 |
    | classify_bytes | image_bytes [B] string, JPEG or PNG files | logits, probabilities |

    `classify_bytes` resizes the decoded pictures to H x W of `image_shape`, whatever their sides were. Without a head
    there is `serving_default` alone, which answers maps of pool5 [B, H / 32, W / 32, M] as `features`. The loss is the
    cross-entropy of whole-numbered labels [B]; `accuracy` stands beside it.

    Args:
        depth: 16 or 19 layers with weights.
        weights: None for random ones; "imagenet", which `keras.applications` downloads; or the path of a file: .h5 as
            `keras.applications` has them, .npz of NAME/kernel and NAME/bias, .keras or .weights.h5 of this class.
        num_classes: K; None for the convolutions alone, which take pictures of any size from 32x32 on.
        pooling: "max" or "average".
        image_shape: (H, W, 3) of the pictures of the endpoints; with a head, of all pictures but those of `features`.
        filters: maps of the first block.
        units: of fc6 and fc7.
        dropout: share of their values that training leaves out.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: for arguments out of range and weights that do not fit; `fit`, `evaluate` and `features` raise it
            for pictures of another shape or outside [0, 1], the first two for labels that are no classes, or without a
            head.
    """

    def __init__(
        self,
        depth=16,
        weights=None,
        num_classes=1000,
        pooling="max",
        image_shape=(224, 224, 3),
        filters=64,
        units=4096,
        dropout=0.5,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.depth, self.pooling = one_of("depth", depth, (16, 19)), one_of("pooling", pooling, ("max", "average"))
        self.num_classes = None if num_classes is None else whole_number("num_classes", num_classes, 2)
        self.image_shape, self.dropout = check_image_shape(image_shape), number("dropout", dropout, below=1)
        self.filters, self.units = whole_number("filters", filters, 1), whole_number("units", units, 1)
        if self.image_shape[2] != 3 or min(self.image_shape[:2]) < SMALLEST:
            raise ValueError(f"image_shape must be (H, W, 3) from {SMALLEST} pixels on, received {image_shape}")
        self.blocks = [self._block(i, count) for i, count in enumerate(CONVOLUTIONS[depth])]
        pool = layers.MaxPooling2D if pooling == "max" else layers.AveragePooling2D
        self.pools = [pool(2, name=f"pool{i + 1}", dtype=self.dtype_policy) for i in range(len(self.blocks))]
        self.dense = self._head() if num_classes else []
        self.drop = layers.Dropout(self.dropout, name="drop", dtype=self.dtype_policy)
        self.trackers = [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
        self(keras.Input(self.image_shape))
        if weights is not None:
            self._load(weights)

    def _block(self, block, count):
        options = {"padding": "same", "activation": "relu", "kernel_initializer": "he_normal"}
        maps = self.filters * WIDTHS[block]
        names = [f"conv{block + 1}_{i + 1}" for i in range(count)]
        return [layers.Conv2D(maps, 3, name=name, dtype=self.dtype_policy, **options) for name in names]

    def _head(self):
        options = {"kernel_initializer": "he_normal", "dtype": self.dtype_policy}
        hidden = [layers.Dense(self.units, "relu", name=name, **options) for name in ("fc6", "fc7")]
        return [*hidden, layers.Dense(self.num_classes, name="fc8", **options)]

    def call(self, images, training=False):
        *_, (_, found) = self._stages(images, training)
        return tf.cast(found, "float32") if self.dense else tf.reduce_mean(tf.cast(found, "float32"), axis=(1, 2))

    def features(self, images, training=False):
        """What each layer makes of images [B, H, W, 3], after its rectifier.

        Returns:
            {"conv1_1": maps [B, H, W, M], "relu1_1": the same, ... "pool1": [B, H / 2, W / 2, M], ...} in the compute
            dtype; "fc6", "fc7" and "fc8" for pictures of `image_shape` alone.
        """
        classification.check_pictures(images, self.image_shape, SMALLEST)
        fits, found = tuple(images.shape[1:3]) == self.image_shape[:2], {}
        for name, maps in self._stages(images, training, head=fits):
            found[name] = maps
            if name.startswith("conv"):
                found[name.replace("conv", "relu")] = maps
        return found

    def _stages(self, images, training, head=True):
        """(name, maps) of each layer, first to last."""
        images = tf.cast(images, self.compute_dtype)
        maps = 255.0 * tf.reverse(images, [-1]) - tf.cast(BGR_MEAN, images.dtype)  # a slice has a slow gradient
        for block, pool in zip(self.blocks, self.pools, strict=True):
            for convolution in block:
                maps = convolution(maps)
                yield convolution.name, maps
            maps = pool(maps)
            yield pool.name, maps
        if self.dense and head:
            maps = tf.reshape(maps, (-1, np.prod(maps.shape[1:])))
            for dense in self.dense:
                maps = dense(maps)
                yield dense.name, maps
                maps = self.drop(maps, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The cross-entropy of labels `y` [B], averaged over the batch, nats."""
        (accuracy,) = self.trackers
        accuracy.update_state(y, y_pred, sample_weight)
        return classification.cross_entropy(y, y_pred, sample_weight)

    # --- weights ----------------------------------------------------------------------------------------------------

    def _load(self, weights):
        """Takes the weights of a file, or those that keras.applications downloads."""
        mine = [*(convolution for block in self.blocks for convolution in block), *self.dense]
        name = str(weights)
        if name != "imagenet" and not (name.endswith(".h5") and not name.endswith(".weights.h5")):
            return weight_files.load(self, weights, mine)
        if name != "imagenet" and not pathlib.Path(weights).is_file():
            raise FileNotFoundError(f"no file {weights} of weights")
        make = {16: keras.applications.VGG16, 19: keras.applications.VGG19}[self.depth]
        shape = self.image_shape if self.dense else (None, None, 3)
        options = {"include_top": bool(self.dense), "input_shape": shape, "classes": self.num_classes or 1000}
        try:
            theirs = [layer for layer in make(weights=weights, **options).layers if layer.weights]
            for own, other in zip(mine, theirs, strict=True):
                own.set_weights(other.get_weights())
        except ValueError as error:
            told = f"VGG-{self.depth} of {self.num_classes or 'no'} classes, {self.filters} filters, pictures {shape}"
            raise ValueError(f"the weights {weights} do not fit {told}: {error}") from error

    # --- doors and endpoints ----------------------------------------------------------------------------------------

    def check_images(self, images):
        if self.dense:
            check_images(images, self.image_shape)
        else:
            classification.check_pictures(images, self.image_shape, SMALLEST)

    def check_targets(self, labels):
        if not self.dense:
            raise ValueError("expected a classifier, received convolutions alone; give num_classes to fit")
        classification.check_labels(labels, self.num_classes)

    def signatures(self):
        if self.dense:
            return classification.signatures(self)

        def maps(images):
            *_, (_, found) = self._stages(tf.ensure_shape(images, (None, *self.image_shape)), training=False)
            return {"features": tf.cast(found, "float32")}

        return {"serving_default": (maps, [tf.TensorSpec((None, *self.image_shape), "float32", name="images")])}

    def get_config(self):
        own = ("depth", "num_classes", "pooling", "image_shape", "filters", "units", "dropout")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}
