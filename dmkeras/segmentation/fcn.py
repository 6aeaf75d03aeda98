"""FCN: a classifier made convolutional gives a class to every pixel, its coarse answer refined by finer maps.

Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015
(https://arxiv.org/abs/1411.4038); where it is silent, https://github.com/shelhamer/fcn.berkeleyvision.org.

    head        where `head_filters` are given: the classifier's fc6 as a convolution of `head_size`, fc7 as one of 1x1,
                each with max(0, a) and dropout
    score       1x1 convolution of the coarsest maps to K numbers
    skip        score_pool4, score_pool3: 1x1 convolutions of the two stages before it, times pool_scales

    FCN-32s     up_32(score)
    FCN-16s     up_16(u),   u = up_2(score) + score_pool4
    FCN-8s      up_8(up_2(u) + score_pool3)

up_s is the transposed convolution of stride s with a bilinear kernel. The names are the paper's, for maps of strides
8, 16 and 32 pixels; of a backbone of other strides the last maps but two, the last but one and the last take part, and
up_s is by their ratios. All scores start at zero, so that a network of finer answers that has just taken the weights of
a coarser one (`load_coarser`) answers as that one: training goes on where it was, 32s -> 16s -> 8s. Or all at once:
then the authors scale pool4 by .01 and pool3 by .0001 (voc-fcn8s-atonce/net.py), `pool_scales=(0.01, 0.0001)`.

The loss is the cross-entropy of pixels, void left out, classes weighted where asked (parts/segmentation_loss.py).

Shapes:  B batch, H height, W width, C channels, K classes, h, w sides of maps.

Deviations from the paper, each with its reason:
- The authors pad pictures by 100 zeros, convolve fc6 without padding and cut every fused map at an offset that follows
  from both. Here convolutions keep sides, position i of maps of stride s stands for pixels s i .. s i + s - 1, and up_s
  interpolates between the middles of those: nothing has to be cut. Sides that the stride does not divide are made to by
  repeating the last row and column, and the answer is cut back.
- Before up_s the border is repeated once, or scores would fade to zero within half a window of it.
- Kernels of up_s are fixed, as in the authors' code; the paper learns the inner ones, `learn_upsampling=True`.
- The loss is a mean over pixels, theirs a sum; learning rates differ by as much.
- Stages of `Darknet19` are the maps before their pooling, where pool3 and pool4 of VGG are those after it.
"""

import itertools

import keras
import tensorflow as tf
from keras import layers

from dmkeras.backbones.darknet19 import Darknet19
from dmkeras.parts import checks, segmentation_loss, segmentation_metrics, segmenter_doors
from dmkeras.parts.upsampling import bilinear_kernel, sides_of, transposed_convolution
from dmkeras.parts.upsampling_layers import TransposedConvolution

SKIPS = {"32s": (), "16s": ("score_pool4",), "8s": ("score_pool4", "score_pool3")}  # coarse to fine
PROBE = 256  # sides of the picture on which the strides of a backbone are read


@checks.looks_at_first_batch
@keras.saving.register_keras_serializable("dmkeras")
class FCN(keras.Model):
    """A classifier of every pixel on the stages of a backbone.

    Call: images `[B, H, W, C]` float32 in [0, 1], of any size  ->  logits `[B, H, W, K]` float32.

    | signature | inputs | outputs |
    | --- | --- | --- |
    | serving_default | images [B, H, W, C] float32 in [0, 1] | classes [B, H, W] int32, scores [B, H, W] float32 |
    | segment | images | classes, scores |
    | segment_bytes | image_bytes [B] string, JPEG or PNG of any size | class_map_bytes [B] string, overlay_bytes [B] string |

    scores are the probabilities of the classes found. `class_map_bytes` are grey PNG files of the size of the pictures
    sent, whose pixels are classes; `overlay_bytes` the pictures under their classes' colours. `segment_bytes` is for one
    or three channels. `fit` takes (images, labels [B, H, W] whole numbers, 0 background, -1 void); `mean_iou` stands
    beside the loss.

    Args:
        image_shape: (H, W, C) of the pictures it is meant for; only C binds.
        num_classes: K, background among them.
        backbone: a model with `features(images, training) -> {name: maps}`, the finest first, or a functional Keras model
            of pictures [B, None, None, C] in [0, 1], which is cut at the layers of `stages`; None takes Darknet-19's stages.
        variant: "8s", "16s" or "32s".
        stages: names of three of the backbone's stages or layers, the finest first; None takes its last three.
        head_filters: of fc6 and fc7; 0 for no head, the backbone's last stage being scored itself. The paper's is 4096.
        head_size: of fc6.
        dropout: in the head, while it trains.
        pool_scales: by which pool4 and pool3 are multiplied before their scores.
        learn_upsampling: whether the kernels of up_2 are learned, with all classes mixed, from the bilinear ones.
        class_weights: K numbers for the loss, such as `segmentation_loss.median_frequency_weights` gives; None for ones.
        momentum: of the moving statistics where there is no `backbone`.

    Raises:
        ValueError: for stages, sizes or weights that cannot be; `fit` raises it for pictures and labels of other shapes
            or out of range, `segment` and `probabilities` for pictures.
    """  # noqa: E501 - rows of the table

    def __init__(
        self,
        image_shape=(500, 500, 3),
        num_classes=21,
        backbone=None,
        variant="8s",
        stages=None,
        head_filters=0,
        head_size=7,
        dropout=0.5,
        pool_scales=(1.0, 1.0),
        learn_upsampling=False,
        class_weights=None,
        momentum=0.99,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.image_shape = checks.check_image_shape(image_shape)
        self.num_classes = segmenter_doors.check_num_classes(num_classes)
        self.variant = checks.one_of("variant", variant, tuple(SKIPS))
        self.head_filters = checks.whole_number("head_filters", head_filters, 0)
        self.head_size = checks.whole_number("head_size", head_size, 1)
        self.dropout = checks.number("dropout", dropout, below=1)
        if not isinstance(pool_scales, (tuple, list)) or len(pool_scales) != 2:
            raise ValueError(f"pool_scales must be two numbers, of pool4 and pool3, received {pool_scales!r}")
        self.pool_scales = tuple(checks.number("each of pool_scales", scale) for scale in pool_scales)
        self.learn_upsampling, self.momentum = bool(learn_upsampling), checks.number("momentum", momentum, below=1)
        weighted = class_weights is not None
        self.class_weights = segmentation_loss.checked_weights(class_weights, num_classes) if weighted else None
        options = {"momentum": self.momentum, "dtype": self.dtype_policy}
        backbone = Darknet19(self.image_shape, None, **options) if backbone is None else backbone
        self.backbone, self.stages = _cut(backbone, stages, self.image_shape[2])
        self.strides = self._strides()
        self._scores()
        self.mean_iou = segmentation_metrics.streaming_mean_iou(self.num_classes)
        self(keras.Input((None, None, self.image_shape[2])))

    def _scores(self):
        policy = {"dtype": self.dtype_policy}
        conv = lambda name, size: layers.Conv2D(
            self.head_filters, size, 1, "same", name=name, kernel_initializer="he_normal", activation="relu", **policy
        )
        drop = lambda name: layers.Dropout(self.dropout, name=name, **policy)
        head = [("fc6", self.head_size), ("fc7", 1)] if self.head_filters else []
        self.head = [layer for name, size in head for layer in (conv(name, size), drop(f"drop_{name}"))]
        zeros = {"kernel_initializer": "zeros", "dtype": "float32"}
        self.score = layers.Conv2D(self.num_classes, 1, name="score", **zeros)
        self.skips = [layers.Conv2D(self.num_classes, 1, name=name, **zeros) for name in SKIPS[self.variant]]
        up = lambda i: TransposedConvolution(stride=self._ratio(i), name=f"up_{i}", dtype="float32")
        self.ups = [up(i) if self.learn_upsampling else None for i in range(len(self.skips))]

    def _ratio(self, i):
        """Of the i-th maps, from the coarsest, to those one finer: positions a position, along a side."""
        return self.strides[-1 - i] // self.strides[-2 - i]

    def call(self, images, training=False):
        height, width = sides_of(images)
        *pools, maps = self.features(segmenter_doors.padded(images, self.strides[-1]), training).values()
        for layer in self.head:
            maps = layer(maps, training=training)
        scores = self.score(maps)  # [B, h, w, K]
        for i, (skip, scale) in enumerate(zip(self.skips, self.pool_scales)):
            fine = skip(scale * tf.cast(pools[-1 - i], "float32"))
            scores = enlarged(scores, self._ratio(i), self.ups[i]) + fine
        return enlarged(scores, self.strides[-1 - len(self.skips)])[:, :height, :width]

    def features(self, images, training=False):
        """{stage: maps}, the finest first, of images [B, H, W, C] whose sides the last of `strides` divides."""
        found = _features(self.backbone)(images, training)
        return {name: found[name] for name in self.stages}

    def _strides(self):
        """Pixels a position of each stage; ValueError where they are no whole numbers, each a multiple of the last."""
        sides = _sides(self.features, self.image_shape[2])
        strides = [PROBE // max(height, 1) for height, _ in sides.values()]
        whole = all(side == (PROBE // s,) * 2 and PROBE % s == 0 for side, s in zip(sides.values(), strides))
        if not whole or any(coarse % fine for fine, coarse in itertools.pairwise(strides)):
            wanted = f"stages whose maps are whole parts of a picture of {PROBE}x{PROBE} pixels, the finest first"
            raise ValueError(f"expected {wanted}, received {sides}")
        return tuple(strides)

    # --- training -----------------------------------------------------------------------------------------------------

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The cross-entropy of labels `y` [B, H, W], nats a pixel; -1 takes no part."""
        loss = segmentation_loss.pixel_cross_entropy(y, y_pred, self.class_weights, sample_weight)
        self.mean_iou.update_state(y, y_pred)
        return loss

    def load_coarser(self, coarser):
        """Takes the weights of an FCN of the same backbone and head that has fewer skips; the other skips stay zero.

        Right after it the answer is that of the coarser one, but that it is made large in two steps instead of one.

        Raises:
            ValueError: for an FCN that is not coarser, or of other layers.
        """
        if len(coarser.skips) >= len(self.skips):
            raise ValueError(f"expected an FCN coarser than {self.variant}, received one of {coarser.variant}")
        shared = slice(len(coarser.skips))
        parts = lambda fcn: [fcn.backbone, *fcn.head, fcn.score, *fcn.skips[shared], *filter(None, fcn.ups[shared])]
        mine, theirs = ([weight for part in parts(fcn) for weight in part.weights] for fcn in (self, coarser))
        if [weight.shape for weight in mine] != [weight.shape for weight in theirs]:
            raise ValueError(f"expected an FCN of the same layers, received {len(theirs)} weights for {len(mine)}")
        for weight, value in zip(mine, theirs):
            weight.assign(value)

    # --- segmentation, doors ------------------------------------------------------------------------------------------

    def segment(self, images):
        """The class of every pixel: images [B, H, W, C] in [0, 1], or one [H, W, C] -> int32 [B, H, W] or [H, W].

        Raises:
            ValueError: for pictures of other channels or out of range.
        """
        return tf.argmax(self.probabilities(images), -1, output_type="int32")

    def probabilities(self, images):
        """Those of all classes: images as of `segment` -> float32 [B, H, W, K], or [H, W, K]."""
        self.check_images(images[None] if len(getattr(images, "shape", ())) == 3 else images)
        return tf.nn.softmax(segmenter_doors.any_size(self, images, stride=1))

    def signatures(self):
        return segmenter_doors.signatures(self, stride=1, channels=self.image_shape[2])

    def check_images(self, images):
        shape = tuple(getattr(images, "shape", ()))
        checks.check_images(images, (*shape[1:3], self.image_shape[2]) if len(shape) == 4 else self.image_shape)

    def check_targets(self, labels):
        segmenter_doors.check_labels(labels, self.num_classes)

    def get_config(self):
        names = ("image_shape", "num_classes", "variant", "stages", "head_filters", "head_size", "dropout")
        names += ("pool_scales", "learn_upsampling", "class_weights", "momentum")
        own = {name: getattr(self, name) for name in names}
        return {**super().get_config(), **own, "backbone": keras.saving.serialize_keras_object(self.backbone)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "backbone": keras.saving.deserialize_keras_object(config["backbone"])})


def enlarged(maps, factor, layer=None):
    """[B, h, w, K] -> [B, factor h, factor w, K], bilinearly, or by a transposed convolution `layer`."""
    if factor == 1:
        return maps
    around = tf.pad(maps, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")  # the border, repeated
    kernel = bilinear_kernel(2 * factor - factor % 2)[..., None].repeat(maps.shape[-1], -1)  # [k, k, K]
    large = layer(around) if layer else transposed_convolution(around, kernel, factor)
    return large[:, factor:-factor, factor:-factor]


def _features(backbone):
    """(images, training) -> {name: maps}."""
    own = getattr(backbone, "features", None)
    return own or (lambda images, training: backbone(images, training=training))


def _sides(features, channels):
    """{stage: (h, w)} of the maps of a square picture of PROBE pixels, in the order of `features`."""
    found = {}

    def look(images):
        found.update((name, tuple(maps.shape[1:3])) for name, maps in features(images, False).items())

    spec = tf.TensorSpec((1, PROBE, PROBE, channels), "float32")
    try:
        tf.function(look, autograph=False).get_concrete_function(spec)
    except (KeyError, ValueError) as error:
        wanted = f"a backbone for pictures [B, None, None, {channels}] that has the stages asked for"
        raise ValueError(f"expected {wanted}, received one that fails: {error}") from error
    return found


def _cut(backbone, stages, channels):
    """The backbone, a functional one cut at its `stages`, and three names of stages, the finest first."""
    if stages is not None and (isinstance(stages, str) or len(stages) != 3):
        raise ValueError(f"stages must be three names, the finest first, received {stages!r}")
    if hasattr(backbone, "features"):
        return backbone, tuple(stages or list(_sides(backbone.features, channels))[-3:])
    if not isinstance(backbone, keras.Model) or stages is None:
        wanted = "a backbone with features(images, training), or a functional Keras model and stages=(three layers)"
        raise ValueError(f"expected {wanted}, received {type(backbone).__name__} and {stages}")
    known = [layer.name for layer in backbone.layers]
    unknown = [name for name in stages if name not in known]
    if unknown:
        raise ValueError(f"the backbone has no layer {', '.join(unknown)}; its last are {', '.join(known[-8:])}")
    outputs = {name: backbone.get_layer(name).output for name in stages}
    return keras.Model(backbone.inputs[0], outputs, name=backbone.name), tuple(stages)
