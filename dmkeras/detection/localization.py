"""Classification and localisation: one network says what stands in a picture, and where.

Sermanet et al., "OverFeat: Integrated Recognition, Localization and Detection using Convolutional Networks", ICLR 2014
(https://arxiv.org/abs/1312.6229), section 4; Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale
Image Recognition", ICLR 2015 (https://arxiv.org/abs/1409.1556), appendix A; the sum of both losses as in lecture 11 of
Stanford's CS231n, 2017 (https://cs231n.stanford.edu/2017/).

    f        = trunk(image)                          convolutions that both heads share
    logits   = class_head(f)  [K]
    b        = box_head(f)    [4] or [K, 4]          x1 / W, y1 / H, x2 / W, y2 / H: fractions of the picture
    loss     = class_loss + box_weight * box_loss
    class_loss = -log softmax(logits)_y
    box_loss   = sum_i l(b_i - t_i)                  t the true box; of K boxes the one of the true class y alone

    l2         l(d) = d^2                            the papers' Euclidean loss
    smooth_l1  l(d) = d^2 / (2 beta) where |d| < beta, otherwise |d| - beta / 2;  beta = 1/9
    giou       1 - GIoU(b, t) in place of the sum    Rezatofighi et al. 2019, https://arxiv.org/abs/1902.09630

Each loss is a mean over the pictures that have its truth: a picture without an object (class -1) adds nothing to
either, one whose box is degenerate nothing to the box loss. A told box is put in order and cut to the picture.
ILSVRC's rule: a picture is localised when its class is right and IoU >= 0.5 (of `top` classes, any with its own box).
The loss cannot choose `box_weight`, which changes the loss itself: another figure must (`compare_weights`).

Shapes:  B batch, H height, W width, C colours, K classes, N pictures.

Deviations from the papers, each with its reason:
- One picture, one box: no sliding window and no merging of many boxes (that is detection), one scale.
- The trunk is small and starts from random weights, not from ImageNet's: it trains here in a minute.
- What the trunk sees is the picture minus its own mean colour (the papers': minus the data's): shapes are what differs
  from their background, whatever its colour.
- Convolutions and hidden layers are normalised (https://arxiv.org/abs/1502.03167), which the papers' were not.
- The box head starts at START whatever the picture (weights N(0, .001), as in https://arxiv.org/abs/1504.08083): first
  boxes at random have errors whose gradients drown the classifier's in the shared trunk.
- Corners (OverFeat), not centre and size (Simonyan and Zisserman): on [0, 1] all four are of one scale.
- smooth_l1 has beta = 1/9 (Ren et al., https://arxiv.org/abs/1506.01497): with 1, fractions never leave its square.
"""

import contextlib

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from dmkeras.backbones.darknet19 import ConvBlock
from dmkeras.parts import boxes as box_parts
from dmkeras.parts import detector_doors
from dmkeras.parts.checks import check_image_shape, check_images, looks_at_first_batch, number, one_of, whole_number

BETA = 1 / 9  # of smooth_l1
START = (0.25, 0.25, 0.75, 0.75)  # the box of an untrained network
OURS = ("class_loss", "box_loss", "accuracy", "mean_box_iou", "localization_accuracy")


def l2(given, truth):
    return tf.reduce_sum(tf.square(given - truth), axis=-1)


def smooth_l1(given, truth):
    distance = tf.abs(given - truth)
    square = tf.square(distance) / (2 * BETA)
    return tf.reduce_sum(tf.where(distance < BETA, square, distance - BETA / 2), axis=-1)


def giou(given, truth):
    return 1.0 - box_parts.giou(given, truth)


BOX_LOSSES = {"l2": l2, "smooth_l1": smooth_l1, "giou": giou}


@looks_at_first_batch
@keras.saving.register_keras_serializable("dmkeras")
class LocalizationNetwork(keras.Model):
    """A classifier with a second head that tells the box of the picture's one object.

    Call: images `[B, H, W, C]` float32 in [0, 1]  ->  {"logits": `[B, K]`, "boxes": `[B, 4]` or `[B, K, 4]`} float32, boxes as
    fractions x1, y1, x2, y2 of the picture, as the network tells them.

    | signature | inputs | outputs |
    | --- | --- | --- |
    | serving_default | images [B, H, W, C] float32 in [0, 1] | detection_boxes [B, 1, 4], detection_scores [B, 1] float32, detection_classes [B, 1], num_detections [B] int32 |
    | detect | images | detection_boxes, detection_scores, detection_classes, num_detections |
    | detect_bytes | image_bytes [B] string, JPEG or PNG of any size | detection_boxes, detection_scores, detection_classes, num_detections |

    `fit` takes (images, {"boxes": [B, 1, 4] xyxy in pixels, "classes": [B, 1]}), class -1 where there is no object.
    `detect_bytes` letterboxes what it is sent and is there for three colours; detection_boxes are ymin, xmin, ymax, xmax in
    [0, 1] of the picture sent.

    Attributes:
        trunk, class_head, box_head: the three parts, each a `keras.Sequential`.
        box_weight: a number; another one holds from the next `compile` on.

    Args:
        image_shape: (H, W, C) of one picture.
        num_classes: K.
        filters: maps of the trunk's 3x3 convolutions, each followed by a maximum over 2x2.
        hidden_size: units of the hidden layer that each head has for itself, or a tuple of sizes, () for none.
        pooling: `"flatten"`, which keeps where things are, or `"average"` over all positions.
        box_weight: of the box loss.
        box_loss: `"l2"`, `"smooth_l1"` or `"giou"`.
        per_class_boxes: whether there is a box for every class (OverFeat) or one for all.

    Raises:
        ValueError: for sizes below one, unknown names or a negative weight; `fit` and `evaluate` raise it for pictures,
            boxes and classes of other shapes or out of range.
    """  # noqa: E501 - rows of the table

    def __init__(
        self,
        image_shape=(96, 96, 3),
        num_classes=3,
        filters=(8, 16, 32, 64, 64),
        hidden_size=128,
        pooling="flatten",
        box_weight=1.0,
        box_loss="l2",
        per_class_boxes=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.image_shape = check_image_shape(image_shape)
        self.num_classes = whole_number("num_classes", num_classes, 2)
        self.filters = _sizes("filters", filters, least=1)
        self.hidden_size = _sizes("hidden_size", hidden_size)
        self.pooling = one_of("pooling", pooling, ("flatten", "average"))
        self.box_weight = number("box_weight", box_weight)
        self.box_loss = one_of("box_loss", box_loss, BOX_LOSSES)
        self.per_class_boxes = bool(per_class_boxes)
        self._build_layers()
        self.trackers = {name: keras.metrics.Mean(name=name) for name in OURS}
        self(keras.Input(self.image_shape))

    def _build_layers(self):
        policy, count = {"dtype": self.dtype_policy}, self.num_classes if self.per_class_boxes else 1
        blocks = [ConvBlock(maps, momentum=0.9, name=f"conv_{i}", **policy) for i, maps in enumerate(self.filters)]
        stages = [layer for block in blocks for layer in (block, layers.MaxPooling2D(2, padding="same", **policy))]
        last = layers.Flatten if self.pooling == "flatten" else layers.GlobalAveragePooling2D
        self.trunk = keras.Sequential([*stages, last(**policy)], name="trunk")
        normal = keras.initializers.RandomNormal(stddev=0.001)
        start = keras.initializers.Constant(np.tile(START, count))
        boxes = layers.Dense(4 * count, kernel_initializer=normal, bias_initializer=start, dtype="float32")
        classes = layers.Dense(self.num_classes, dtype="float32")
        self.class_head = keras.Sequential([*self._hidden(), classes], name="class_head")
        self.box_head = keras.Sequential([*self._hidden(), boxes], name="box_head")

    def _hidden(self):
        found, policy = [], {"dtype": self.dtype_policy}
        for units in self.hidden_size:
            found.append(layers.Dense(units, use_bias=False, kernel_initializer="he_normal", **policy))
            found += [layers.BatchNormalization(momentum=0.9, **policy), layers.ReLU(**policy)]
        return found

    def call(self, images, training=False):
        images = tf.cast(images, "float32")
        images = images - tf.reduce_mean(images, axis=(1, 2), keepdims=True)
        features = self.trunk(tf.cast(images, self.compute_dtype), training=training)
        boxes = self.box_head(features, training=training)
        shape = (-1, self.num_classes, 4) if self.per_class_boxes else (-1, 4)
        return {"logits": self.class_head(features, training=training), "boxes": tf.reshape(boxes, shape)}

    # --- loss and figures -----------------------------------------------------------------------------------------

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """class_loss + box_weight * box_loss, each a mean over the pictures that have its truth."""
        _check_one_object(y)
        boxes, classes = tf.cast(y["boxes"], "float32")[:, 0], tf.cast(y["classes"], "int32")[:, 0]
        present, whole = classes >= 0, box_parts.is_real(boxes, classes)
        label = tf.where(present, classes, 0)
        truth = tf.where(whole[:, None], boxes / self._sides, START)  # what a padded row holds never enters
        weight = tf.ones_like(boxes[:, 0]) if sample_weight is None else tf.cast(sample_weight, "float32")
        class_loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=label, logits=y_pred["logits"])
        box_loss = BOX_LOSSES[self.box_loss](self._box_of(y_pred["boxes"], label), truth)
        told = tf.argmax(y_pred["logits"], axis=-1, output_type="int32")
        overlap = box_parts.iou(self._in_picture(self._box_of(y_pred["boxes"], told)), truth * self._sides)
        right = told == label
        for name, values, counts in (
            ("class_loss", class_loss, present),
            ("box_loss", box_loss, whole),
            ("accuracy", right, present),
            ("mean_box_iou", overlap, whole),
            ("localization_accuracy", right & (overlap >= 0.5), whole),
        ):
            self.trackers[name].update_state(values, tf.cast(counts, "float32") * weight)
        return _mean(class_loss, present, weight) + self.box_weight * _mean(box_loss, whole, weight)

    def evaluate_localization(self, images, targets, top=1, iou_threshold=0.5):
        """ILSVRC's figures.

        Args:
            images: [N, H, W, C].
            targets: {"boxes": [N, 1, 4], "classes": [N, 1]}.
            top: how many classes, each with its box, may be told; one of them has to be right.
            iou_threshold: least IoU of the right class's box.

        Returns:
            {"accuracy": of the classes, "localization_accuracy", "mean_box_iou": of the first class's box}, floats.
            Pictures without an object do not count, those without a real box for `accuracy` alone.
        """
        self.check_images(images)
        self.check_targets(targets)
        if not 1 <= whole_number("top", top) <= self.num_classes:
            raise ValueError(f"top must be from 1 to the {self.num_classes} classes, received {top}")
        parts = [self(images[start : start + 256]) for start in range(0, len(images), 256)]
        outputs = {key: tf.concat([part[key] for part in parts], axis=0) for key in parts[0]}
        boxes, classes = tf.cast(targets["boxes"], "float32")[:, 0], tf.cast(targets["classes"], "int32")[:, 0]
        told = tf.math.top_k(outputs["logits"], top).indices  # [N, top]
        mine = tf.stack([self._box_of(outputs["boxes"], column) for column in tf.unstack(told, axis=1)], axis=1)
        whole = box_parts.is_real(boxes, classes)
        overlap = box_parts.iou(self._in_picture(mine), tf.where(whole[:, None], boxes, 0.0)[:, None])  # [N, top]
        right = told == classes[:, None]
        found = tf.reduce_any(right & (overlap >= iou_threshold), axis=1)
        return {
            "accuracy": float(_mean(tf.reduce_any(right, axis=1), classes >= 0)),
            "localization_accuracy": float(_mean(found, whole)),
            "mean_box_iou": float(_mean(overlap[:, 0], whole)),
        }

    @property
    def _sides(self):
        height, width, _ = self.image_shape
        return np.array([width, height, width, height], "float32")

    def _box_of(self, boxes, classes):
        """The fractions [B, 4] that belong to one class [B] each."""
        return tf.gather(boxes, classes, axis=1, batch_dims=1) if self.per_class_boxes else boxes

    def _in_picture(self, boxes):
        """Fractions [..., 4] -> pixels, corners in order, inside the picture."""
        first, second = tf.split(boxes, 2, axis=-1)
        boxes = tf.concat([tf.minimum(first, second), tf.maximum(first, second)], axis=-1)
        return tf.clip_by_value(boxes, 0.0, 1.0) * self._sides

    # --- answers --------------------------------------------------------------------------------------------------

    def localize(self, images):
        """What stands in pictures [B, H, W, C] in [0, 1], and where.

        Returns:
            {"boxes" [B, 4] xyxy in pixels, "classes" [B] int32, "scores" [B], "probabilities" [B, K]}; the score is the
            probability of the class, and says nothing of the box.
        """
        self.check_images(images)
        outputs = self(images)
        probabilities = tf.nn.softmax(outputs["logits"])
        classes = tf.argmax(probabilities, axis=-1, output_type="int32")
        return {
            "boxes": self._in_picture(self._box_of(outputs["boxes"], classes)),
            "classes": classes,
            "scores": tf.reduce_max(probabilities, axis=-1),
            "probabilities": probabilities,
        }

    def detect(self, images):
        """`localize` as a detector tells it: "boxes" [B, 1, 4], "scores" and "classes" [B, 1], "num_detections" [B]."""
        found = self.localize(images)
        rows = {key: found[key][:, None] for key in ("boxes", "scores", "classes")}
        return {**rows, "num_detections": tf.ones_like(found["classes"])}

    def signatures(self):
        return detector_doors.signatures(self.detect, self.image_shape)

    def check_images(self, images):
        check_images(images, self.image_shape)

    def get_config(self):
        own = "image_shape num_classes filters hidden_size pooling box_weight box_loss per_class_boxes"
        return {**super().get_config(), **{name: getattr(self, name) for name in own.split()}}

    def check_targets(self, targets):
        """ValueError unless `targets` are one box in pixels and one class, -1 to K - 1, of each picture."""
        detector_doors.check_truths(targets, self.num_classes)
        _check_one_object(targets)


# --- training in two stages, and the weight between the losses --------------------------------------------------------


def train_classifier(recipe, fit):
    """The first stage of two: trunk and class head; the best epoch is that of the best `accuracy`."""
    recipe.model.box_head.trainable = False
    with _for_now(recipe.model, "box_weight", 0.0), _for_now(recipe, "improves", "accuracy"):
        fit()


def train_box_head(recipe, fit):
    """The second: the box head on features that stay as they are."""
    recipe.model.trunk.trainable = recipe.model.class_head.trainable = False
    fit()


@contextlib.contextmanager
def _for_now(thing, name, value):
    was = getattr(thing, name)
    setattr(thing, name, value)
    try:
        yield
    finally:
        setattr(thing, name, was)


def compare_weights(trained, images, targets, weights, seeds):
    """Box weights beside one another, by figures that do not depend on the weight.

    Args:
        trained: (box weight, seed) -> a compiled, trained model.
        images: of validation, as `fit` takes them.
        targets: likewise.
        weights: box weights to try.
        seeds: to try each of them with.

    Returns:
        (the weight of the best mean `localization_accuracy`, of equals that of the best `mean_box_iou`;
        {figure: float64 [weights, seeds]}, `loss` among them).
    """
    options = {"batch_size": 256, "return_dict": True, "verbose": 0}
    runs = [[trained(weight, seed).evaluate(images, targets, **options) for seed in seeds] for weight in weights]
    table = {name: np.array([[run[name] for run in row] for row in runs]) for name in ("loss", *OURS)}
    means = {name: values.mean(axis=1) for name, values in table.items()}
    print(f"{'box weight':>22}", *(f"{name:>22}" for name in table))
    for i, weight in enumerate(weights):
        print(f"{weight:>22g}", *(f"{f'{means[name][i]:.4f} ({np.ptp(table[name][i]):.4f})':>22}" for name in table))
    best = max(range(len(weights)), key=lambda i: (means["localization_accuracy"][i], means["mean_box_iou"][i]))
    least = weights[int(np.argmin(means["loss"]))]
    print(f"means over seeds {list(seeds)} (range); chosen {weights[best]:g}, the least loss has {least:g}", flush=True)
    return weights[best], table


def _mean(values, counts, weight=1.0):
    """The mean of values [B] where `counts` [B] is true, 0 where it nowhere is."""
    counts = tf.cast(counts, "float32")
    return tf.reduce_sum(tf.cast(values, "float32") * counts * weight) / tf.maximum(tf.reduce_sum(counts), 1.0)


def _sizes(name, sizes, least=0):
    """A whole number or a tuple of such, of at least one each -> tuple."""
    sizes = (sizes,) if np.ndim(sizes) == 0 else tuple(sizes)
    if len(sizes) < least:
        raise ValueError(f"{name} must be at least one size, received {sizes}")
    return tuple(whole_number(f"each of {name}", size, 1) for size in sizes)


def _check_one_object(targets):
    """Static shapes alone, so that it looks at symbolic tensors, too."""
    if not isinstance(targets, dict):
        raise ValueError('expected targets {"boxes": [B, 1, 4], "classes": [B, 1]}, received none; give them to fit')
    for key, shape in (("boxes", (1, 4)), ("classes", (1,))):
        if tuple(targets[key].shape)[1:] != shape:
            expected, received = f"[B, {', '.join(map(str, shape))}]", list(targets[key].shape)
            raise ValueError(f"expected {key} {expected}, received {received}; keep one object of each picture")
