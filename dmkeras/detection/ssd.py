"""SSD: boxes of many sizes in one look, each map of a network answering for those of its own scale.

Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016 (https://arxiv.org/abs/1512.02325); where the paper is
silent, examples/ssd/ssd_pascal.py and src/ of https://github.com/weiliu89/caffe, branch ssd.

    trunk       stages of 3x3 convolutions, 2x2 maximum pooling between two (sides rounded up); after the last 3x3
                maximum pooling of stride 1, fc6: 3x3, dilation 6, fc7: 1x1; VGG16's, section 3
    extra       1x1 convolution, then 3x3 of stride 2 (padded by 1) or of stride 1 (not padded), each on the one before
    maps        the last stage but one, divided by its length over channels and times a learned scale, first 20; fc7;
                the extras
    priors      of map i around each cell a square of size s_i, one of sqrt(s_i s_(i+1)), and s_i at each of its ratios
                r and 1 / r, section 2.2; centres (i + 1/2) step
    regression  a 3x3 convolution of each map to A (4 + 1 + K) numbers a cell
    loss        (confidence + localization_weight localization) / N, N the matched priors; dmkeras/parts/multibox.py
    detections  softmax without the background; by class the better of two that overlap

As it stands the network is SSD300: maps of sides 38, 19, 10, 5, 3, 1, with 4, 6, 6, 6, 4, 4 boxes a cell, 8732 in all.
A small one is the same with other numbers: fewer and narrower stages, other sizes.

Shapes:  B batch, H height, W width, C channels, A boxes a cell, N priors, M truths, K classes, D detections.

Deviations from the paper and its code, each with its reason:
- One convolution of a map regresses offsets and logits; the code has two, which side by side are the same.
- Pictures are RGB in [0, 1] minus the mean; the code's are BGR in [0, 255] minus it. `load_trunk` turns VGG16's first
  kernel accordingly, so that the maps are the same.
- `batch_norm=True` is not the paper's: a trunk that was not trained before wants it.
- Suppression looks at the 512 best pairs of box and class of a picture, the code's at 400 of each class.
- Priors of a map that nothing pads lie side / map apart, as the code's (100 and 300) and not as its centres see.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from dmkeras.parts import checks, detector_doors, multibox
from dmkeras.parts.anchors import positive, ssd_priors
from dmkeras.parts.nms import class_aware_nms

VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
EXTRAS = ((256, 512, 2), (128, 256, 2), (128, 256, 1), (128, 256, 1))
SIZES = (30, 60, 111, 162, 213, 264, 315)
RATIOS = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
MEAN = np.array([123.0, 117.0, 104.0], "float32") / 255  # of ImageNet's pictures, RGB


@keras.saving.register_keras_serializable("dmkeras")
class ChannelNormalization(layers.Layer):
    """x / |x| over channels times a learned scale of each: `[B, H, W, C]` -> `[B, H, W, C]`; in float32.

    ParseNet, https://arxiv.org/abs/1506.04579, section 3.3.

    Args:
        scale: of every channel at first.
    """

    def __init__(self, scale=20.0, **kwargs):
        super().__init__(**kwargs)
        self.scale = checks.number("scale", scale)

    def build(self, input_shape):
        first = keras.initializers.Constant(self.scale)
        self.gamma = self.add_weight(shape=input_shape[-1:], initializer=first, name="gamma")

    def call(self, maps):
        found = tf.cast(maps, "float32")
        length = tf.reduce_sum(found**2, -1, keepdims=True)
        return tf.cast(found * tf.math.rsqrt(length + 1e-10) * tf.cast(self.gamma, "float32"), maps.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}


@checks.looks_at_first_batch
@keras.saving.register_keras_serializable("dmkeras")
class SSD(keras.Model):
    """A detector of one stage on maps of several sizes.

    Call: images `[B, H, W, C]` float32 in [0, 1]  ->  raw numbers `[B, N, 4 + 1 + K]` float32: offsets from the prior,
    logits of the background and of the classes.

    | signature | inputs | outputs |
    | --- | --- | --- |
    | serving_default | images [B, H, W, C] float32 in [0, 1] | detection_boxes [B, D, 4], detection_scores [B, D] float32, detection_classes [B, D], num_detections [B] int32 |
    | detect | images | detection_boxes, detection_scores, detection_classes, num_detections |
    | detect_bytes | image_bytes [B] string, JPEG or PNG of any size | detection_boxes, detection_scores, detection_classes, num_detections |

    detection_boxes are ymin, xmin, ymax, xmax in [0, 1] of the picture sent, the best first; after num_detections of them
    come zeros of class -1. `fit` takes (images, {"boxes": [B, M, 4] xyxy in pixels, "classes": [B, M], -1 for padding}).

    Attributes:
        maps: (rows, columns) of each map.
        steps: pixels of the picture between two cells of each.
        priors: [N, 4] float32, xyxy in pixels.

    Args:
        image_shape: (H, W, C) of the pictures; those of other sizes are letterboxed to it, for `detect` alone.
        num_classes: K, without the background.
        trunk: of each stage the widths of its convolutions, two stages at least.
        fc_filters: maps of fc6 and fc7.
        dilation: of fc6.
        extras: of each further map the widths of its 1x1 and 3x3 convolutions, and the stride of the latter, 1 or 2.
        sizes: s_i in pixels, one more than there are maps.
        ratios: of each map the ratios r beside 1, width over height.
        variances: the offsets of a box are divided by.
        first_scale: of the normalized first map.
        batch_norm: of all convolutions but those to raw numbers.
        momentum: of its moving statistics.
        least_iou: of a prior and the truth that it learns.
        negative_ratio: of hard negatives for each matched prior.
        localization_weight: alpha of the loss.

    Raises:
        ValueError: for numbers that cannot be; `fit` raises it for pictures, boxes and classes of other shapes or out
            of range.
    """  # noqa: E501 - rows of the table

    def __init__(
        self,
        image_shape=(300, 300, 3),
        num_classes=20,
        trunk=VGG16,
        fc_filters=1024,
        dilation=6,
        extras=EXTRAS,
        sizes=SIZES,
        ratios=RATIOS,
        variances=multibox.VARIANCES,
        first_scale=20.0,
        batch_norm=False,
        momentum=0.99,
        least_iou=0.5,
        negative_ratio=3.0,
        localization_weight=1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.image_shape = checks.check_image_shape(image_shape)
        self.num_classes = checks.whole_number("num_classes", num_classes, 1)
        self.trunk, self.extras = (_rows_of(*pair) for pair in (("trunk", trunk), ("extras", extras)))
        self.fc_filters = checks.whole_number("fc_filters", fc_filters, 1)
        self.dilation = checks.whole_number("dilation", dilation, 1)
        self.sizes = tuple(positive("sizes", sizes).tolist())
        self.ratios = tuple(tuple(positive("ratios", row).tolist()) if len(row) else () for row in ratios)
        self.variances = tuple(positive("variances", variances).tolist())
        self.first_scale = checks.number("first_scale", first_scale)
        self.batch_norm, self.momentum = bool(batch_norm), checks.number("momentum", momentum, below=1)
        self.least_iou = detector_doors.check_threshold("least_iou", least_iou)
        self.negative_ratio = checks.number("negative_ratio", negative_ratio)
        self.localization_weight = checks.number("localization_weight", localization_weight)
        self.maps, self.steps = self._maps()
        if not len(self.maps) == len(self.ratios) == len(self.sizes) - 1 or len(self.variances) != 4:
            counts = f"{len(self.sizes)} sizes, {len(self.ratios)} ratios and {len(self.variances)} variances"
            raise ValueError(f"expected for {len(self.maps)} maps one size more, ratios and 4 variances, not {counts}")
        self.priors = ssd_priors(self.maps, self.steps, self.sizes, self.ratios)
        self._layers_of_the_paper()
        names = ("localization_loss", "confidence_loss", "matched")
        self.means = {name: keras.metrics.Mean(name=name) for name in names}
        self(keras.Input(self.image_shape))

    def _maps(self):
        """(rows, columns) of each map, and the pixels between two cells."""
        sides, step = np.array(self.image_shape[:2]), 2 ** (len(self.trunk) - 2)
        sides = -(-sides // step)
        maps, steps = [sides, -(-sides // 2)], [step, 2 * step]
        for *_, stride in self.extras:
            sides = -(-maps[-1] // 2) if stride == 2 else maps[-1] - 2
            if sides.min() < 1:
                raise ValueError(f"extras leave nothing of pictures of {self.image_shape[:2]}; have fewer of stride 1")
            steps.append(2 * steps[-1] if stride == 2 else float((np.array(self.image_shape[:2]) / sides).max()))
            maps.append(sides)
        return [tuple(map(int, sides)) for sides in maps], steps

    def _layers_of_the_paper(self):
        policy = {"dtype": self.dtype_policy}
        he = "he_normal"  # of the trunk; what is new starts after Glorot ("xavier"), section 3
        self.stages = []
        for i, widths in enumerate(self.trunk):
            self.stages.append([self._block(f"conv{i + 1}_{j + 1}", n, 3, he) for j, n in enumerate(widths)])
        self.pool = layers.MaxPooling2D(2, padding="same", **policy)
        self.last_pool = layers.MaxPooling2D(3, 1, padding="same", **policy)
        self.fc6 = self._block("fc6", self.fc_filters, 3, dilation_rate=self.dilation)
        self.fc7 = self._block("fc7", self.fc_filters, 1)
        self.normalization = ChannelNormalization(self.first_scale, name="normalization", **policy)
        self.more = []
        for i, (narrow, wide, stride) in enumerate(self.extras):
            pad = [layers.ZeroPadding2D(1, **policy)] if stride == 2 else []  # as Caffe pads: (1, 1), not (0, 1)
            first = self._block(f"conv{len(self.trunk) + i + 1}_1", narrow, 1)
            second = self._block(f"conv{len(self.trunk) + i + 1}_2", wide, 3, strides=stride, padding="valid")
            self.more.append([first, *pad, second])
        numbers = [(2 + 2 * len(row)) * (4 + 1 + self.num_classes) for row in self.ratios]
        convolution = lambda i, n: layers.Conv2D(n, 3, padding="same", name=f"regression_{i}", dtype="float32")
        self.regressions = [convolution(i, n) for i, n in enumerate(numbers)]

    def _block(self, name, filters, size, initializer="glorot_uniform", padding="same", **options):
        """Convolution, normalization where it is wanted, rectifier."""
        policy = {"dtype": self.dtype_policy}
        options |= {"use_bias": not self.batch_norm, "kernel_initializer": initializer, "padding": padding}
        convolution = layers.Conv2D(filters, size, name="conv", **options, **policy)
        norm = [layers.BatchNormalization(momentum=self.momentum, name="bn", **policy)] if self.batch_norm else []
        return keras.Sequential([convolution, *norm, layers.ReLU(**policy)], name=name)

    def features(self, images, training=False):
        """The maps that boxes are regressed from, finest first: [B, h, w, C_i] each."""
        channels = self.image_shape[2]
        maps = tf.cast(images, "float32") - (MEAN if channels == 3 else MEAN.mean())
        maps, through = tf.cast(maps, self.compute_dtype), []
        for i, blocks in enumerate(self.stages):
            maps = self.pool(maps) if i else maps
            for block in blocks:
                maps = block(maps, training=training)
            through.append(maps)
        maps = self.fc7(self.fc6(self.last_pool(maps), training=training), training=training)
        found = [self.normalization(through[-2]), maps]
        for steps in self.more:
            for step in steps:
                maps = step(maps, training=training) if isinstance(step, keras.Sequential) else step(maps)
            found.append(maps)
        return found

    def call(self, images, training=False):
        rows = []
        for maps, regression in zip(self.features(images, training), self.regressions, strict=True):
            raw = regression(tf.cast(maps, "float32"))  # [B, h, w, A (4 + 1 + K)]
            rows.append(tf.reshape(raw, [tf.shape(raw)[0], -1, 5 + self.num_classes]))
        return tf.ensure_shape(tf.concat(rows, 1), [None, len(self.priors), 5 + self.num_classes])

    # --- training -----------------------------------------------------------------------------------------------------

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The loss of the module; both terms, as they count, and the matched priors of a picture are metrics.

        y: {"boxes": [B, M, 4] xyxy in pixels, "classes": [B, M], -1 for padding}.
        """
        options = {"variances": self.variances, "least_iou": self.least_iou, "ratio": self.negative_ratio}
        found = multibox.losses(y_pred, y["boxes"], y["classes"], self.priors, **options)
        count = tf.maximum(tf.reduce_sum(found["matched"]), 1.0)
        weight = 1.0 if sample_weight is None else tf.cast(sample_weight, "float32")
        terms = {name: tf.reduce_sum(weight * found[name]) / count for name in ("localization", "confidence")}
        terms["localization"] *= self.localization_weight
        for name, value in terms.items():
            self.means[f"{name}_loss"].update_state(value)
        self.means["matched"].update_state(found["matched"])
        return tf.add_n(list(terms.values()))

    # --- detection ----------------------------------------------------------------------------------------------------

    def decode(self, raw):
        """Raw numbers -> boxes [B, N, 4] xyxy in pixels, scores [B, N, K]."""
        return multibox.decode(raw, self.priors, self.variances)

    def detect(self, images, score_threshold=0.01, iou_threshold=0.45, max_detections=200):
        """What is where in pictures.

        Args:
            images: [B, h, w, C] in [0, 1], or one picture [h, w, C]; letterboxed where their size is not the model's.
            score_threshold: detections score more.
            iou_threshold: of two of one class that overlap by more, the better one stays.
            max_detections: D.

        Returns:
            {"boxes": [B, D, 4] xyxy in pixels of the pictures given, "scores": [B, D], "classes": [B, D] int32,
            "num_detections": [B] int32}, best first, padded by zeros of class -1; without B for one picture.

        Raises:
            ValueError: for pictures of other channels or out of range, or thresholds outside of [0, 1].
        """
        shape = getattr(images, "shape", ())
        checks.check_images(images if len(shape) != 3 else images[None], (*shape[-3:-1], self.image_shape[2]))
        check = detector_doors.check_threshold
        score, overlap = check("score_threshold", score_threshold), check("iou_threshold", iou_threshold)

        def detect(images):
            found, scores = self.decode(self(images, training=False))
            return class_aware_nms(found, scores, max_detections, overlap, score)

        return detector_doors.any_size(detect, images, self.image_shape[:2])

    def signatures(self):
        return detector_doors.signatures(self.detect, self.image_shape)

    # --- weights from elsewhere, doors --------------------------------------------------------------------------------

    def load_trunk(self, classifier):
        """Takes the weights of a VGG-16, `dmkeras.VGG` or `keras.applications`', which see 255 BGR minus the mean.

        Where it has dense layers, fc6 takes every third row and column of the first's kernel, as its dilation reads
        them, and both layers every fourth map (or how many fit), section 3.

        Raises:
            ValueError: for one of other shapes, or a model with `batch_norm`.
        """
        own = [block.layers[0] for blocks in self.stages for block in blocks]
        theirs = [layer.get_weights() for layer in classifier.layers if isinstance(layer, layers.Conv2D)]
        dense = [layer.get_weights() for layer in classifier.layers if isinstance(layer, layers.Dense)]
        shapes = [[tuple(w.shape) for w in weights] for weights in theirs]
        if self.batch_norm or shapes != [[tuple(w.shape) for w in layer.weights] for layer in own]:
            raise ValueError(f"expected a VGG of the stages {self.trunk} without batch_norm, received kernels {shapes}")
        if self.image_shape[2] == 3:
            theirs[0][0] = 255 * theirs[0][0][:, :, ::-1]
        if len(dense) > 1:
            own += [self.fc6.layers[0], self.fc7.layers[0]]
            theirs += _thinned(*dense[:2], self.trunk[-1][-1], self.fc_filters)
        for layer, weights in zip(own, theirs, strict=True):
            layer.set_weights(weights)

    def check_images(self, images):
        checks.check_images(images, self.image_shape)

    def check_targets(self, targets):
        detector_doors.check_truths(targets, self.num_classes)

    def get_config(self):
        names = ("image_shape", "num_classes", "trunk", "fc_filters", "dilation", "extras", "sizes", "ratios")
        names += ("variances", "first_scale", "batch_norm", "momentum", "least_iou", "negative_ratio")
        names += ("localization_weight",)
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _rows_of(name, rows):
    """Rows of whole numbers of at least 1, as tuples; ValueError for others."""
    if not isinstance(rows, (list, tuple)) or not all(isinstance(row, (list, tuple)) and row for row in rows):
        raise ValueError(f"{name} must be a tuple of tuples of whole numbers, received {rows!r}")
    rows = tuple(tuple(checks.whole_number(name, value, 1) for value in row) for row in rows)
    if name == "extras" and any(len(row) != 3 or row[2] > 2 for row in rows):
        raise ValueError(f"extras must be triples (narrow, wide, stride), stride 1 or 2, received {rows}")
    if name == "trunk" and len(rows) < 2:
        raise ValueError(f"trunk must have two stages at least, received {rows}")
    return rows


def _thinned(first, second, channels, filters):
    """Kernels and biases of two dense layers [S S C, n], [n, n] as those of fc6 [3, 3, C, F] and fc7 [1, 1, F, F]."""
    (kernel, bias), (mixing, last) = first, second
    side = round((len(kernel) / channels) ** 0.5)
    every = len(bias) // filters
    kernel = kernel.reshape(side, side, channels, -1)[:: side // 2, :: side // 2][:3, :3]
    one, two = slice(None, filters * every, every), (slice(None, filters * every, every),) * 2
    return [[kernel[..., one], bias[one]], [mixing[two][None, None], last[one]]]
