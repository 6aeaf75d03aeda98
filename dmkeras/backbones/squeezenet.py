"""SqueezeNet: a classifier of ImageNet with 50 times fewer weights than AlexNet.

Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size", 2016
(https://arxiv.org/abs/1602.07360), table 1 and section 3; SqueezeNet_v1.0 and v1.1 of
https://github.com/forresti/SqueezeNet.

    fire(s, e)   squeeze: 1x1 convolution to s maps, max(x, 0); expand: of these, a 1x1 and a 3x3 convolution to e maps
                 each, max(x, 0), side by side: 2 e maps
    network      conv1, fire2 .. fire9, dropout in training, conv10 (1x1) to K maps, max(x, 0), mean over all positions
    pooling      maximum of 3x3 at stride 2; sides are rounded up, a last row or column beyond the maps takes no part

    version   conv1       pools after           conv10   parameters, K = 1000   colours
    1.0       7x7/2, 96   conv1, fire4, fire8   pad 1    1,248,424              BGR, 0..255 minus (104, 117, 123)
    1.1       3x3/2, 64   conv1, fire3, fire5            1,235,496              RGB, minus mean, over deviation

s is 16 16 32 32 48 48 64 64 from fire2 to fire9, and e = 4 s. The network is fully convolutional: the same weights take
pictures of any size from 21x21 (1.0) or 17x17 (1.1) on.

Shapes:  B batch, H height, W width, K classes, s, e maps.

Deviations from the paper, each with its reason:
- Weights without a file start after He et al.; the paper's released training starts after Glorot and Bengio, which
  takes rectifiers for straight lines.
- Colours are those of the weights that are at hand: 1.0's of the authors' Caffe, 1.1's mean (.485, .456, .406) and
  deviation (.229, .224, .225), with which its conversions for other libraries were trained.
- The rims of conv10 in 1.0, where it sees zeros alone, are kept, since its weights were trained with them.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from dmkeras.parts import classification, weight_files
from dmkeras.parts.checks import check_image_shape, looks_at_first_batch, number, one_of, whole_number

SQUEEZED = {2: 16, 3: 16, 4: 32, 5: 32, 6: 48, 7: 48, 8: 64, 9: 64}  # maps s of each fire
FIRST = {"1.0": (96, 7), "1.1": (64, 3)}  # filters and kernel size of conv1
POOLED = {"1.0": ("conv1", "fire4", "fire8"), "1.1": ("conv1", "fire3", "fire5")}
SMALLEST = {"1.0": 21, "1.1": 17}  # sides of pictures that leave something to every pooling
BGR_MEAN = np.array([104.0, 117.0, 123.0], "float32")
RGB_MEAN, RGB_DEVIATION = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], "float32")


@keras.saving.register_keras_serializable("dmkeras")
class CeilPooling(layers.Layer):
    """The maximum of each 3x3 at stride 2: `[B, H, W, C]` -> `[B, ceil((H - 1) / 2), ceil((W - 1) / 2), C]`."""

    def call(self, maps):
        sides = [known or side for known, side in zip(maps.shape[1:3], tf.unstack(tf.shape(maps)[1:3]))]
        beyond = [1 - side % 2 for side in sides]
        if all(isinstance(one, int) for one in beyond) and beyond[0] == beyond[1]:
            return tf.nn.max_pool2d(maps, 3, 2, "SAME" if beyond[0] else "VALID")  # the same without a copy
        maps = tf.pad(maps, [(0, 0), (0, beyond[0]), (0, beyond[1]), (0, 0)], constant_values=maps.dtype.min)
        return tf.nn.max_pool2d(maps, 3, 2, "VALID")

    def compute_output_shape(self, shape):
        return (shape[0], *(side and side // 2 for side in shape[1:3]), shape[3])


@keras.saving.register_keras_serializable("dmkeras")
class Fire(layers.Layer):
    """Squeeze and expand: `[B, H, W, C]` -> `[B, H, W, 2 expand]`, first the maps of 1x1, then those of 3x3."""

    def __init__(self, squeeze, expand, **kwargs):
        super().__init__(**kwargs)
        self.squeeze, self.expand = squeeze, expand
        convolution = lambda maps, size, name: _convolution(maps, size, f"{self.name}_{name}", self.dtype_policy)
        self.squeeze1x1 = convolution(squeeze, 1, "squeeze1x1")
        self.expand1x1 = convolution(expand, 1, "expand1x1")
        self.expand3x3 = convolution(expand, 3, "expand3x3")

    def build(self, input_shape):
        self.squeeze1x1.build(input_shape)
        for part in (self.expand1x1, self.expand3x3):
            part.build((*input_shape[:-1], self.squeeze))

    def call(self, maps):
        squeezed = self.squeeze1x1(maps)
        return tf.concat([self.expand1x1(squeezed), self.expand3x3(squeezed)], axis=-1)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 2 * self.expand)

    def get_config(self):
        return {**super().get_config(), "squeeze": self.squeeze, "expand": self.expand}


def _convolution(maps, size, name, dtype, **options):
    options = {"padding": "same", **options}
    return layers.Conv2D(
        maps, size, activation="relu", kernel_initializer="he_normal", name=name, dtype=dtype, **options
    )


@looks_at_first_batch
@keras.saving.register_keras_serializable("dmkeras")
class SqueezeNet(keras.Model):
    """The classifier.

    Call: images `[B, H, W, 3]` float32 in [0, 1], of any size  ->  logits `[B, K]` float32.

    | signature | inputs | outputs |
    | --- | --- | --- |
    | serving_default | images [B, H, W, 3] float32 in [0, 1] | logits [B, K], probabilities [B, K] float32 |
    | classify_bytes | image_bytes [B] string, JPEG or PNG files | logits, probabilities |

    `classify_bytes` resizes the decoded pictures to H x W of `image_shape`, whatever their sides were. The loss is the
    cross-entropy of whole-numbered labels [B]; `accuracy` stands beside it. Layers are called conv1, pool1, fire2 ..
    fire9, conv10 as in the paper, and within a fire fire2_squeeze1x1, fire2_expand1x1, fire2_expand3x3.

    Args:
        version: "1.0", the paper's, or "1.1", which does 2.4 times less for the same accuracy.
        num_classes: K.
        weights: path of a file: .npz of NAME/kernel and NAME/bias, .keras or .weights.h5; None for random weights.
        image_shape: (H, W, 3) of the pictures of the endpoints; `call`, `fit` and `features` take other H and W.
        dropout: share of fire9's values that training leaves out.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: for arguments out of range and files that do not fit; `fit`, `evaluate` and `features` raise it for
            pictures that are no [B, H, W, 3] in [0, 1] or too small, the first two for labels that are no classes.
    """

    def __init__(self, version="1.0", num_classes=1000, weights=None, image_shape=(224, 224, 3), dropout=0.5, **kwargs):
        super().__init__(**kwargs)
        self.version, self.num_classes = (
            one_of("version", version, tuple(FIRST)),
            whole_number("num_classes", num_classes, 2),
        )
        self.image_shape, self.dropout = check_image_shape(image_shape), number("dropout", dropout, below=1)
        self.smallest = SMALLEST[version]
        if self.image_shape[2] != 3 or min(self.image_shape[:2]) < self.smallest:
            raise ValueError(f"image_shape must be (H, W, 3) from {self.smallest} pixels on, received {image_shape}")
        dtype, (filters, size) = self.dtype_policy, FIRST[version]
        self.conv1 = _convolution(filters, size, "conv1", dtype, strides=2, padding="valid")
        self.fires = [Fire(s, 4 * s, name=f"fire{i}", dtype=dtype) for i, s in SQUEEZED.items()]
        self.pools = [CeilPooling(name=f"pool{name.strip('convfire')}", dtype=dtype) for name in POOLED[version]]
        self.drop9 = layers.Dropout(self.dropout, name="drop9", dtype=dtype)
        self.conv10 = _convolution(num_classes, 1, "conv10", dtype)
        self.trackers = [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
        self(keras.Input(self.image_shape))
        if weights is not None:
            self.load_file(weights)

    def load_file(self, path, include_head=True):
        """Takes the weights of a file; nothing changes where it does not fit.

        Args:
            path: of the file.
            include_head: False leaves out conv10, for another number of classes; of an .npz file alone.
        """
        parts = [self.conv1]
        for fire in self.fires:
            parts += [fire.squeeze1x1, fire.expand1x1, fire.expand3x3]
        weight_files.load(self, path, [*parts, self.conv10], () if include_head else ("conv10",))

    def call(self, images, training=False):
        *_, (_, maps) = self._stages(images, training)
        return tf.reduce_mean(tf.cast(maps, "float32"), axis=(1, 2))  # [B, h, w, K] -> [B, K]

    def features(self, images, training=False):
        """What each layer makes of images [B, H, W, 3], after its rectifier.

        Returns:
            {"conv1": maps [B, h, w, filters], "pool1": ..., "fire2": ..., "conv10": ...} in the compute dtype.
        """
        self.check_images(images)
        return dict(self._stages(images, training))

    def _stages(self, images, training):
        """(name, maps) of each layer, first to last."""
        pools = dict(zip(POOLED[self.version], self.pools, strict=True))
        maps = self._preprocessed(tf.cast(images, self.compute_dtype))
        for layer in (self.conv1, *self.fires):
            maps = layer(maps)
            yield layer.name, maps
            if layer.name in pools:
                maps = pools[layer.name](maps)
                yield pools[layer.name].name, maps
        maps = self.drop9(maps, training=training)
        rim = (1, 1) if self.version == "1.0" else (0, 0)
        yield "conv10", self.conv10(tf.pad(maps, [(0, 0), rim, rim, (0, 0)]))

    def _preprocessed(self, images):
        if self.version == "1.0":
            return 255.0 * tf.reverse(images, [-1]) - tf.cast(BGR_MEAN, images.dtype)  # a slice has a slow gradient
        return (images - tf.cast(RGB_MEAN, images.dtype)) / tf.cast(RGB_DEVIATION, images.dtype)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The cross-entropy of labels `y` [B], averaged over the batch, nats."""
        (accuracy,) = self.trackers
        accuracy.update_state(y, y_pred, sample_weight)
        return classification.cross_entropy(y, y_pred, sample_weight)

    # --- doors and endpoints ----------------------------------------------------------------------------------------

    def check_images(self, images):
        classification.check_pictures(images, self.image_shape, self.smallest)

    def check_targets(self, labels):
        classification.check_labels(labels, self.num_classes)

    def signatures(self):
        return classification.signatures(self)

    def get_config(self):
        own = ("version", "num_classes", "image_shape", "dropout")  # the weights are saved beside the configuration
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}
