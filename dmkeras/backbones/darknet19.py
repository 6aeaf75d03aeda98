"""Darknet-19: the classifier of YOLO9000, nineteen convolutions and five poolings.

Redmon and Farhadi, "YOLO9000: Better, Faster, Stronger", CVPR 2017 (https://arxiv.org/abs/1612.08242), section 3 and
table 6; cfg/darknet19.cfg and src/ of https://github.com/pjreddie/darknet.

    block      convolution, batch normalization, max(a, leaky_slope a)          no bias where there is normalization
    stage i    convolutions[i] blocks that alternate 3x3 with M = filters 2^i maps and 1x1 with M / 2
    network    stages, 2x2 maximum pooling between two; 1x1 convolution to K maps; their mean over all positions

At 1000 classes: 19 convolutions, 5 poolings, 20,842,376 parameters, and 5.58 billion operations for a picture of
224x224, a multiplication and its addition counted as two, as the paper and darknet count.

It is fully convolutional: the same weights take pictures of any size, so that the paper trains at 224x224 and then
fine-tunes at 448x448. A side that a pooling cannot halve is rounded up, its last row or column pooled alone, as
darknet does.

Shapes:  B batch, H height, W width, C colours, M maps, K classes.

Deviations from the paper and from darknet, each with its reason:
- Normalization divides by sqrt(variance + 1e-5), which is darknet's arithmetic on GPUs, where its published weights
  were trained; its code for CPUs divides by sqrt(variance) + 1e-6. The batch's variance is biased (Keras), darknet's
  has N - 1 below; after training neither matters. Moving statistics keep 0.99 a step (`momentum`), darknet's figure.
- Weights start after He et al. from truncated normal numbers; darknet's are not truncated.
"""

import itertools

import keras
import tensorflow as tf
from keras import layers

from dmkeras.parts import classification, darknet_weights
from dmkeras.parts.checks import check_image_shape, looks_at_first_batch, number, whole_number

EPSILON = 1e-5  # beside the variance


@keras.saving.register_keras_serializable("dmkeras")
class ConvBlock(layers.Layer):
    """Convolution, batch normalization, leaky rectifier: `[B, H, W, C]` -> `[B, H, W, filters]`.

    Attributes:
        conv: the convolution; it has a bias where there is no normalization.
        bn: the batch normalization, or None.

    Args:
        filters: maps.
        kernel_size: of the square kernel; sides stay as they are.
        batch_norm: whether there is normalization.
        leaky_slope: of the rectifier below zero.
        momentum: of the moving statistics.
    """

    def __init__(self, filters, kernel_size=3, batch_norm=True, leaky_slope=0.1, momentum=0.99, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.kernel_size, self.batch_norm = filters, kernel_size, bool(batch_norm)
        self.leaky_slope, self.momentum = leaky_slope, momentum
        policy = {"dtype": self.dtype_policy}
        options = {"padding": "same", "use_bias": not batch_norm, "kernel_initializer": "he_normal", **policy}
        self.conv = layers.Conv2D(filters, kernel_size, name="conv", **options)
        self.bn = layers.BatchNormalization(momentum=momentum, epsilon=EPSILON, name="bn", **policy)
        self.bn = self.bn if batch_norm else None

    def build(self, input_shape):
        self.conv.build(input_shape)
        if self.bn:
            self.bn.build(self.compute_output_shape(input_shape))

    def call(self, maps, training=False):
        maps = self.conv(maps)
        maps = self.bn(maps, training=training) if self.bn else maps
        return tf.nn.leaky_relu(maps, self.leaky_slope)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters)

    def get_config(self):
        own = ("filters", "kernel_size", "batch_norm", "leaky_slope", "momentum")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


@looks_at_first_batch
@keras.saving.register_keras_serializable("dmkeras")
class Darknet19(keras.Model):
    """The classifier, and the stages that detectors build on.

    Call: images `[B, H, W, C]` float32 in [0, 1], of any size  ->  logits `[B, K]` float32.

    | signature | inputs | outputs |
    | --- | --- | --- |
    | serving_default | images [B, H, W, C] float32 in [0, 1] | logits [B, K], probabilities [B, K] float32 |
    | classify_bytes | image_bytes [B] string, JPEG or PNG files | logits, probabilities |

    `classify_bytes`, of one or three colours, resizes the decoded pictures to H x W of `image_shape`, whatever their
    sides were. The loss is the cross-entropy of whole-numbered labels [B]; `accuracy` stands beside it.

    Attributes:
        stages: a list of lists of `ConvBlock`.
        stride: pixels of the picture a position of the last stage.
        head: the 1x1 convolution to K maps, or None.

    Args:
        image_shape: (H, W, C) of the pictures of the endpoints; `call`, `fit` and `features` take other H and W.
        num_classes: K; None for the stages alone, as detectors take them: the answer is the mean of the last maps.
        filters: maps of the first stage; each further stage has twice as many.
        convolutions: blocks of each stage. Small pictures want fewer: `filters=16, convolutions=(1, 1, 1, 1, 3)`.
        batch_norm: whether blocks are normalized; without, convolutions have a bias.
        leaky_slope: of the rectifier below zero.
        momentum: of the moving statistics; a training of some hundred steps wants less than 0.99.

    Raises:
        ValueError: for sizes below one, one class, one filter or numbers out of range; `fit`, `evaluate` and `features`
            raise it for pictures that are no [B, H, W, C] in [0, 1], the first two for labels that are no classes, or
            where there are none.
    """

    def __init__(
        self,
        image_shape=(224, 224, 3),
        num_classes=1000,
        filters=32,
        convolutions=(1, 1, 3, 3, 5, 5),
        batch_norm=True,
        leaky_slope=0.1,
        momentum=0.99,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.image_shape = check_image_shape(image_shape)
        self.num_classes = None if num_classes is None else whole_number("num_classes", num_classes, 2)
        self.filters = whole_number("filters", filters, 2)
        if not isinstance(convolutions, (list, tuple)) or not convolutions:
            raise ValueError(f"convolutions must be a tuple of one number a stage, received {convolutions!r}")
        self.convolutions = tuple(whole_number("convolutions", count, 1) for count in convolutions)
        self.batch_norm, self.leaky_slope = bool(batch_norm), number("leaky_slope", leaky_slope, below=1)
        self.momentum = number("momentum", momentum, below=1)
        self.stride = 2 ** (len(self.convolutions) - 1)
        self.stages = [[self._block(i, j) for j in range(count)] for i, count in enumerate(self.convolutions)]
        self.pool = layers.MaxPooling2D(2, padding="same", dtype=self.dtype_policy)
        self.head = layers.Conv2D(num_classes, 1, name="head", dtype=self.dtype_policy) if num_classes else None
        self.trackers = [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
        self(keras.Input(self.image_shape))

    def _block(self, stage, place):
        """Block `place` of a stage: 3x3 at even places, 1x1 with half the maps at odd ones."""
        maps, size = self.filters * 2**stage // (1 + place % 2), 1 if place % 2 else 3
        options = {"name": f"stage_{stage}_block_{place}", "dtype": self.dtype_policy}
        return ConvBlock(maps, size, self.batch_norm, self.leaky_slope, self.momentum, **options)

    def call(self, images, training=False):
        *_, maps = self._stages(images, training)
        maps = self.head(maps) if self.head else maps
        return tf.reduce_mean(tf.cast(maps, "float32"), axis=(1, 2))  # [B, h, w, K] -> [B, K]

    def features(self, images, training=False):
        """What each stage makes of images [B, H, W, C], before its pooling.

        Returns:
            {"stage_0": maps [B, H, W, filters], "stage_1": [B, H / 2, W / 2, 2 filters], ...} in the compute dtype.
        """
        self.check_images(images)
        return {f"stage_{i}": maps for i, maps in enumerate(self._stages(images, training))}

    def _stages(self, images, training):
        """The maps of each stage, first to last."""
        maps = tf.cast(images, self.compute_dtype)
        for i, blocks in enumerate(self.stages):
            maps = self.pool(maps) if i else maps
            for block in blocks:
                maps = block(maps, training=training)
            yield maps

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The cross-entropy of labels `y` [B], averaged over the batch, nats."""
        (accuracy,) = self.trackers
        accuracy.update_state(y, y_pred, sample_weight)
        return classification.cross_entropy(y, y_pred, sample_weight)

    # --- darknet's files --------------------------------------------------------------------------------------------

    def load_darknet_weights(self, path, include_head=True):
        """Takes the weights of a file of darknet, such as darknet19_448.weights; nothing changes where it does not fit.

        Args:
            path: of the file.
            include_head: False for a file that ends before the head, such as darknet19_448.conv.23.

        Returns:
            How many pictures the network had seen in training, as the file tells.

        Raises:
            ValueError: for a file that holds another number of weights, or values that cannot be weights.
        """
        return darknet_weights.read(path, self._convolutions(include_head))

    def save_darknet_weights(self, path, include_head=True, seen=0):
        """Writes the weights as darknet does; `seen` is the number of pictures of the training so far."""
        darknet_weights.write(path, self._convolutions(include_head), seen)

    def _convolutions(self, include_head):
        return [*itertools.chain(*self.stages), *([self.head] if include_head and self.head else [])]

    # --- doors and endpoints ----------------------------------------------------------------------------------------

    def check_images(self, images):
        classification.check_pictures(images, self.image_shape)

    def check_targets(self, labels):
        if self.num_classes is None:
            raise ValueError("expected a classifier, received stages alone (num_classes=None); give num_classes to fit")
        classification.check_labels(labels, self.num_classes)

    def signatures(self):
        return classification.signatures(self)

    def get_config(self):
        own = ("image_shape", "num_classes", "filters", "convolutions", "batch_norm", "leaky_slope", "momentum")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}
