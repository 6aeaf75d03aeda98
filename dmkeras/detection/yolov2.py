"""YOLOv2: all boxes of a picture in one look, as a regression from its pixels.

Redmon and Farhadi, "YOLO9000: Better, Faster, Stronger", CVPR 2017 (https://arxiv.org/abs/1612.08242), section 2
"Better"; where it is silent, cfg/yolov2-voc.cfg and src/region_layer.c of https://github.com/pjreddie/darknet.

    trunk         Darknet-19 without its last convolution; each further stage halves the picture
    head          3x3 convolution, 3x3 convolution, both of `head_filters`
    passthrough   the last stage but one -> 1x1 convolution -> 2x2 blocks of pixels become channels, beside the head's
    boxes         3x3 convolution of `head_filters`, 1x1 convolution to A (5 + K) numbers a cell, which
                  dmkeras/parts/region.py turns into boxes
    loss          (coordinate_weight coordinates + object_weight object + no_object_weight no_object
                   + class_weight class + prior_weight prior) / B, the last for the first `prior_images` pictures alone

What the paper lists under "Better", and what turns it off here:

    batch normalisation         batch_norm=False
    high-resolution classifier  a trunk trained at half the size, or not at all, for `load_trunk`
    anchor boxes                anchors=None: one box a cell, its size relative to the picture
    dimension clusters          anchors by hand instead of `YOLOv2.dimension_clusters(boxes, k)`
    direct location prediction  direct_location=False
    fine-grained features       passthrough_filters=0
    multi-scale training        pictures of one size; others, which the stride must divide, need no other trace

Shapes:  B batch, H height, W width, C channels, G rows and columns of cells, A anchors a cell, N = G G A boxes,
         M truths, K classes, D detections.

Deviations from the paper, each with its reason:
- The passthrough has a 1x1 convolution before it, as the released configuration; the paper's text has none.
- Anchors are in pixels, as boxes are everywhere here; darknet's are in cells of 32 pixels.
- 2x2 blocks become channels as the paper says; darknet's code mixes places, see `darknet_weights.reorg`.
- `box_loss="ciou"` is younger (https://arxiv.org/abs/1911.08287); the paper's squares are the default.
"""

import itertools

import keras
import tensorflow as tf
from keras import layers

from dmkeras.backbones.darknet19 import ConvBlock, Darknet19
from dmkeras.parts import anchors as priors
from dmkeras.parts import checks, darknet_weights, detector_doors, region
from dmkeras.parts.nms import class_aware_nms

CELLS = ((1.3221, 1.73145), (3.19275, 4.00944), (5.05587, 8.09892), (9.47112, 4.84053), (11.2364, 10.0071))
VOC_ANCHORS = tuple((32 * width, 32 * height) for width, height in CELLS)  # yolov2-voc.cfg tells them in cells


@checks.looks_at_first_batch
@keras.saving.register_keras_serializable("dmkeras")
class YOLOv2(keras.Model):
    """A detector of one stage on a grid of boxes.

    Call: images `[B, H, W, C]` float32 in [0, 1]  ->  raw numbers `[B, G, G, A, 5 + K]` float32. H and W may be others
    than `image_shape` says, if the stride divides them.

    | signature | inputs | outputs |
    | --- | --- | --- |
    | serving_default | images [B, H, W, C] float32 in [0, 1] | detection_boxes [B, D, 4], detection_scores [B, D] float32, detection_classes [B, D], num_detections [B] int32 |
    | detect | images | detection_boxes, detection_scores, detection_classes, num_detections |
    | detect_bytes | image_bytes [B] string, JPEG or PNG of any size | detection_boxes, detection_scores, detection_classes, num_detections |

    detection_boxes are ymin, xmin, ymax, xmax in [0, 1] of the picture sent, the best first; after num_detections of them
    come zeros of class -1. `fit` takes (images, {"boxes": [B, M, 4] xyxy in pixels, "classes": [B, M], -1 for padding}).

    Args:
        image_shape: (H, W, C) of the pictures that are served; others are letterboxed to it.
        num_classes: K.
        backbone: a model with `stride` and `features(images, training) -> {name: maps}`, of whose maps the last have
            that stride and those before them half of it; None takes Darknet-19's stages.
        anchors: A pairs (width, height) in pixels; None for no anchor boxes.
        head_filters, passthrough_filters, direct_location, box_loss: see the module.
        reorg: how blocks of pixels become channels: `"adjacent"` as the paper says, `"darknet"` as its weights want.
        batch_norm: of the head, and of the stages where there is no `backbone`.
        momentum: of the moving statistics of both; a training of some hundred steps wants less.
        rescore: whether objectness learns the IoU of its box, as in darknet, or 1.
        coordinate_weight, object_weight, no_object_weight, class_weight, prior_weight: of the terms of the loss.
        prior_images: pictures in training until the term `prior` is over.

    Raises:
        ValueError: for sizes, anchors or weights that cannot be; `fit` raises it for pictures, boxes and classes of
            other shapes or out of range.
    """  # noqa: E501 - rows of the table

    TERMS = region.TERMS

    def __init__(
        self,
        image_shape=(416, 416, 3),
        num_classes=20,
        backbone=None,
        anchors=VOC_ANCHORS,
        head_filters=1024,
        passthrough_filters=64,
        reorg="adjacent",
        batch_norm=True,
        momentum=0.99,
        direct_location=True,
        box_loss="squared",
        rescore=True,
        coordinate_weight=1.0,
        object_weight=5.0,
        no_object_weight=1.0,
        class_weight=1.0,
        prior_weight=0.01,
        prior_images=12800,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.image_shape = checks.check_image_shape(image_shape)
        self.num_classes = checks.whole_number("num_classes", num_classes, 1)
        self.anchors = None if anchors is None else region.checked_anchors(anchors)
        self.head_filters = checks.whole_number("head_filters", head_filters, 1)
        self.passthrough_filters = checks.whole_number("passthrough_filters", passthrough_filters, 0)
        self.batch_norm, self.direct_location, self.rescore = bool(batch_norm), bool(direct_location), bool(rescore)
        self.momentum = checks.number("momentum", momentum, below=1)
        self.reorg = checks.one_of("reorg", reorg, ("adjacent", "darknet"))
        self.box_loss = checks.one_of("box_loss", box_loss, region.BOX_LOSSES)
        self.prior_images = checks.whole_number("prior_images", prior_images, 0)
        weights = (coordinate_weight, object_weight, no_object_weight, class_weight, prior_weight)
        for term, weight in zip(region.TERMS, weights, strict=True):
            setattr(self, f"{term}_weight", checks.number(f"{term}_weight", weight))
        stages = {"batch_norm": batch_norm, "momentum": momentum, "dtype": self.dtype_policy}
        self.backbone = backbone or Darknet19(self.image_shape, None, **stages)
        self.stride = self.backbone.stride
        self._check_sides(self.image_shape[:2])
        self._head()
        self.seen = self.add_weight(shape=(), dtype="int64", initializer="zeros", trainable=False, name="seen")
        names = [*(f"{term}_loss" for term in self.TERMS), "average_iou"]
        self.means = {name: keras.metrics.Mean(name=name) for name in names}
        self(keras.Input(self.image_shape))

    def _head(self):
        options = {"batch_norm": self.batch_norm, "momentum": self.momentum, "dtype": self.dtype_policy}
        block = lambda name, filters, size=3: ConvBlock(filters, size, name=name, **options)
        self.head = [block(f"head_{i}", self.head_filters) for i in range(2)]
        self.passthrough = block("passthrough", self.passthrough_filters, 1) if self.passthrough_filters else None
        self.last = block("last", self.head_filters)
        numbers = len(self._priors()) * (5 + self.num_classes)
        self.regression = layers.Conv2D(numbers, 1, name="regression", dtype="float32")

    def _priors(self):
        """Anchors in pixels; without any, one box a cell that starts as the whole picture."""
        height, width, _ = self.image_shape
        return self.anchors or ((float(width), float(height)),)

    def call(self, images, training=False):
        *_, fine, maps = self.backbone.features(images, training).values()
        for block in self.head:
            maps = block(maps, training=training)
        if self.passthrough:
            fine = self.passthrough(fine, training=training)
            fine = tf.nn.space_to_depth(fine, 2) if self.reorg == "adjacent" else darknet_weights.reorg(fine, 2)
            maps = tf.concat([fine, maps], -1)  # [B, G, G, 4 P + F]
        raw = self.regression(self.last(maps, training=training))
        rows, columns = tf.shape(raw)[1], tf.shape(raw)[2]
        return tf.reshape(raw, [-1, rows, columns, len(self._priors()), 5 + self.num_classes])

    # --- training -----------------------------------------------------------------------------------------------------

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The loss of the module, averaged over pictures; each term, weighted, is a metric.

        y: {"boxes": [B, M, 4] xyxy in pixels, "classes": [B, M], -1 for padding}.
        """
        found = self._terms(y, y_pred)
        early = tf.cast(self.seen < self.prior_images, "float32")
        self.seen.assign_add(tf.shape(y_pred, "int64")[0] * int(bool(training)))
        found["prior"] *= early
        weight = 1.0 if sample_weight is None else tf.cast(sample_weight, "float32")
        total = 0.0
        for term in self.TERMS:
            value = tf.reduce_mean(weight * found[term]) * getattr(self, f"{term}_weight")
            self.means[f"{term}_loss"].update_state(value)
            total += value
        count = tf.reduce_sum(found["truths"])
        self.means["average_iou"].update_state(tf.reduce_sum(found["iou"]) / tf.maximum(count, 1.0), count)
        return total

    def _terms(self, y, raw, **options):
        """The terms of each picture, unweighted, and what else `region.losses` tells."""
        options |= {"direct": self.direct_location, "box_loss": self.box_loss, "rescore": self.rescore}
        return region.losses(raw, y["boxes"], y["classes"], self._priors(), self.stride, **options)

    # --- detection ----------------------------------------------------------------------------------------------------

    def decode(self, raw):
        """Raw numbers -> boxes [B, N, 4] xyxy in pixels, scores [B, N, K] = objectness times class."""
        found, objectness, logits = region.decode(raw, self._priors(), self.stride, self.direct_location)
        return found, tf.sigmoid(objectness)[..., None] * tf.nn.softmax(logits)

    def detect(self, images, score_threshold=0.005, iou_threshold=0.45, max_detections=100, size=None):
        """What is where in pictures.

        Args:
            images: [B, h, w, C] in [0, 1], or one picture [h, w, C]; letterboxed where their size is not the model's.
            score_threshold: detections score more.
            iou_threshold: of two of one class that overlap by more, the better one stays.
            max_detections: D.
            size: (H, W), whose sides the stride divides, to look at them in; None for that of `image_shape`.

        Returns:
            {"boxes": [B, D, 4] xyxy in pixels of the pictures given, "scores": [B, D], "classes": [B, D] int32,
            "num_detections": [B] int32}, best first, padded by zeros of class -1; without B for one picture.

        Raises:
            ValueError: for pictures of other channels or out of range, a size that the stride does not divide, or
                thresholds outside of [0, 1].
        """
        check = detector_doors.check_threshold
        score, overlap = check("score_threshold", score_threshold), check("iou_threshold", iou_threshold)
        answer = lambda raw: class_aware_nms(*self.decode(raw), max_detections, overlap, score)
        return self._answered(images, size, answer)

    def _answered(self, images, size, answer):
        """What `answer` makes of raw numbers, for pictures of any size looked at in that given."""
        shape = getattr(images, "shape", ())
        checks.check_images(images if len(shape) != 3 else images[None], (*shape[-3:-1], self.image_shape[2]))
        size = self.image_shape[:2] if size is None else tuple(size)
        self._check_sides(size)
        return detector_doors.any_size(lambda images: answer(self(images, training=False)), images, size)

    def signatures(self):
        return detector_doors.signatures(self.detect, self.image_shape)

    @staticmethod
    def dimension_clusters(boxes, k, seed=0):
        """Anchors for boxes [n, 4] xyxy, or sizes [n, 2], and their average IoU: k-means by 1 - IoU, section 2."""
        return priors.dimension_clusters(boxes, k, seed)

    # --- weights from elsewhere, doors --------------------------------------------------------------------------------

    def load_trunk(self, classifier):
        """Takes the weights of the stages of a `Darknet19` as this one's backbone; ValueError for another one."""
        both = (itertools.chain(*model.stages) for model in (self.backbone, classifier))
        own, theirs = ([weight for block in blocks for weight in block.weights] for blocks in both)
        if [w.shape for w in own] != [w.shape for w in theirs]:
            raise ValueError(f"expected a Darknet19 of the same stages, received {len(theirs)} weights for {len(own)}")
        for weight, value in zip(own, theirs, strict=True):
            weight.assign(value)

    def load_darknet_weights(self, path):
        """Takes the weights of a file of darknet, such as yolov2-voc.weights; nothing changes where it does not fit.

        The file's order is the configuration's: stages, head, passthrough, last, regression. The released weights were
        trained behind darknet's own `reorg`: give `reorg="darknet"` when the model is made.
        """
        blocks = [
            *itertools.chain(*self.backbone.stages),
            *self.head,
            *([self.passthrough] if self.passthrough else []),
        ]
        self.seen.assign(darknet_weights.read(path, [*blocks, self.last, self.regression]))

    def check_images(self, images):
        shape = tuple(getattr(images, "shape", ()))
        fits = len(shape) == 4 and all(side is None or side % self.stride == 0 for side in shape[1:3])
        checks.check_images(images, (*shape[1:3], self.image_shape[2]) if fits else self.image_shape)

    def check_targets(self, targets):
        detector_doors.check_truths(targets, self.num_classes)

    def _check_sides(self, sides):
        if len(sides) != 2 or any(side < 1 or side % self.stride for side in sides):
            raise ValueError(f"expected sides that the stride {self.stride} divides, received {tuple(sides)}")

    def get_config(self):
        names = (
            "image_shape",
            "num_classes",
            "anchors",
            "head_filters",
            "passthrough_filters",
            "reorg",
            "batch_norm",
            "momentum",
        )
        names += ("direct_location", "box_loss", "rescore", "prior_images", *(f"{t}_weight" for t in region.TERMS))
        own = {name: getattr(self, name) for name in names}
        return {**super().get_config(), **own, "backbone": keras.saving.serialize_keras_object(self.backbone)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "backbone": keras.saving.deserialize_keras_object(config["backbone"])})
