"""Sliding window: what is where, by asking a classifier at every position of a picture and at several scales.

Sermanet et al., "OverFeat: Integrated Recognition, Localization and Detection using Convolutional Networks", ICLR 2014
(https://arxiv.org/abs/1312.6229), sections 3.5 and 5; Long, Shelhamer and Darrell, "Fully Convolutional Networks for
Semantic Segmentation", CVPR 2015 (https://arxiv.org/abs/1411.4038), section 3.1.

    map[r, c] = classifier(X[s r : s r + h, s c : s c + w])       r = 0 .. (H - h) // s, c = 0 .. (W - w) // s      (1)
    detect      for every scale the picture is resized and (1) asked; a window whose class is not background is a box:
                [s c, s r, s c + w - 2 m, s r + h - 2 m] / scale, m the margin; then non-maximum suppression by class
    loss        cross-entropy of the windows that have a label, a mean

Two ways to the same numbers:

    window by window   windows are gathered in the graph, `chunk` at a time, whatever pictures and batch: what is in
                       memory at once are chunk h w C pixels and what the classifier makes of them
    densely            one convolutional network over the whole picture (dmkeras/parts/convolutionalized.py), where the
                       classifier's layers are "valid" and s is a multiple of its own stride: overlapping windows share
                       their convolutions, which is why segmentation is done so

Long et al. give the reason with AlexNet: 10x10 positions cost 22 ms, a crop 1.2 ms, so 5 times less than one by one.
benchmarks/sliding_window_speed.py measures it here. In training windows are always seen one by one, since normalisation
and dropout draw from them; a picture of the window's size is one window, and a map of labels trains on all of a larger
picture's at once ("patchwise training is loss sampling", Long et al., section 3.4).

Shapes:  B batch, H height, W width, C channels, h and w of a window, R rows and S columns of windows, K answers of the
         classifier, background among them, D detections.

Deviations from OverFeat, each with its reason:
- Boxes are the windows less a margin. OverFeat regresses them (see `localization`); the window is the plainest.
- Windows are a stride apart. OverFeat shifts its last pooling to stand closer.
- Boxes that overlap are suppressed, as by every detector here. OverFeat merges them.
- A scale may stretch the picture, (down, across), since a window has but one proportion.
"""

import functools

import keras
import numpy as np
import tensorflow as tf

from dmkeras.parts import checks, detector_doors, windows
from dmkeras.parts.convolutionalized import fully_convolutional
from dmkeras.parts.nms import class_aware_nms
from dmkeras.parts.upsampling import sides_of


@checks.looks_at_first_batch
@keras.saving.register_keras_serializable("dmkeras")
class SlidingWindow(keras.Model):
    """A classifier at every position of pictures.

    Call: images `[B, H, W, C]` float32 in [0, 1], of any size from the window's on  ->  what the classifier answers, a
    map `[B, R, S, K]` float32.

    | signature | inputs | outputs |
    | --- | --- | --- |
    | serving_default | images [B, H, W, C] float32 in [0, 1] | detection_boxes [B, D, 4], detection_scores [B, D] float32, detection_classes [B, D], num_detections [B] int32 |
    | detect | images | detection_boxes, detection_scores, detection_classes, num_detections |
    | detect_bytes | image_bytes [B] string, JPEG or PNG of any size | detection_boxes, detection_scores, detection_classes, num_detections |
    | class_map | images | class_map [B, R, S, K] float32, the probabilities of each window |

    detection_boxes are ymin, xmin, ymax, xmax in [0, 1] of the picture sent, the best first; after num_detections of
    them come zeros of class -1. Classes are counted without the background. A classifier that knows no background has
    `class_map` alone, as `serving_default` too. `fit` takes (images, labels): crops of the window's size and [B] whole
    numbers below K, -1 for none, or larger pictures and maps [B, R, S] of them.

    Args:
        classifier: any `keras.Model` [B, h, w, C] -> [B, K] that is built: functional, sequential, or with
            `image_shape`.
        window: (h, w) or their one number, pixels; None for the size of pictures that the classifier takes.
        stride: s between windows, pixels, or (down, across).
        image_shape: (H, W, C) of the pictures that are served; others sent as bytes are letterboxed to it. None for
            four windows each way.
        background: index of the answer that means nothing is there; None where there is no such answer.
        margin: pixels of the window on each side that show what surrounds an object, or (down, across).
        scales: by which `detect` resizes pictures, numbers or pairs (down, across).
        from_logits: whether the classifier answers logits; False for probabilities. None looks at its last layer.
        resize: whether windows are resized to what the classifier takes; otherwise they must have that size.
        dense: True evaluates densely, False window by window; None densely where that is exact and neighbours share at
            least half of a window: less, and asking them one by one is as quick.
        chunk: windows in memory at once.

    Raises:
        ValueError: for sizes that cannot be, a window that the classifier does not take, or `dense=True` where dense
            evaluation differs, with the reason; a call raises it for pictures smaller than the window (InvalidArgument
            where their size is only known in the graph), `fit` for pictures and labels of other shapes or out of range.
    """  # noqa: E501 - rows of the table

    def __init__(
        self,
        classifier,
        window=None,
        stride=8,
        image_shape=None,
        background=0,
        margin=0,
        scales=(1.0,),
        from_logits=None,
        resize=False,
        dense=None,
        chunk=256,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.classifier, self.resize, self.dense = classifier, bool(resize), dense
        *taken, channels = _taken_by(classifier)
        self._taken = tuple(taken)
        self.window = self._taken if window is None else windows.check_pair("window", window, 1)
        self.stride, self.margin = windows.check_pair("stride", stride, 1), windows.check_pair("margin", margin, 0)
        self.image_shape = checks.check_image_shape(image_shape or (*(4 * side for side in self.window), channels))
        self.chunk, self.scales = checks.whole_number("chunk", chunk, 1), windows.check_scales(scales)
        self.num_answers = _answers_of(classifier, (*self._taken, channels))
        self.from_logits = _answers_logits(classifier) if from_logits is None else bool(from_logits)
        self.background = None if background is None else checks.whole_number("background", background, 0)
        self._check_settings(channels)
        self._evaluate_densely = self._dense_evaluation()
        self.accuracy = keras.metrics.Mean(name="accuracy")
        self(keras.Input((*self.window, channels)))

    def _check_settings(self, channels):
        if self.window != self._taken and not self.resize:
            raise ValueError(
                f"the classifier takes pictures of {self._taken}, received windows of {self.window}; leave "
                "`window` out, or give resize=True"
            )
        if self.image_shape[2] != channels or any(a < b for a, b in zip(self.image_shape, self.window)):
            raise ValueError(
                f"expected image_shape of at least the window {self.window} and {channels} channels, received "
                f"{self.image_shape}"
            )
        if any(2 * margin >= side for margin, side in zip(self.margin, self.window)):
            raise ValueError(f"expected margins that leave some of the window {self.window}, received {self.margin}")
        if self.background is not None and self.background >= self.num_answers:
            raise ValueError(
                f"background must be one of the {self.num_answers} answers or None, received {self.background}"
            )

    def _dense_evaluation(self):
        """A function of pictures -> map by one convolutional network; None where that is not wanted or not exact."""
        checks.one_of("dense", self.dense, (None, True, False))
        if self.dense is False:
            return None
        try:
            if self.window != self._taken:
                raise ValueError("windows are resized one by one")
            network, own = fully_convolutional(self.classifier)
            if any(stride % mine for stride, mine in zip(self.stride, own)):
                raise ValueError(f"stride {self.stride} is no multiple of the classifier's own, {own}")
            if self.dense is None and any(2 * stride > side for stride, side in zip(self.stride, self.window)):
                return None
        except ValueError as error:
            if self.dense is None:
                return None
            raise ValueError(f"dense=True: {error}") from error
        down, across = (stride // mine for stride, mine in zip(self.stride, own))
        return lambda images: network(images, training=False)[:, ::down, ::across]  # a function is saved nowhere

    def call(self, images, training=False):
        sides = self._check_sides(images)
        if tuple(side for side in sides if not tf.is_tensor(side)) == self.window:
            return self._classify(images, training)[:, None, None]
        if self._evaluate_densely and not training:
            rows, columns = windows.positions(sides, self.window, self.stride)
            return tf.cast(self._evaluate_densely(images)[:, :rows, :columns], "float32")
        classify = functools.partial(self._classify, training=training)
        return windows.at_every_position(classify, images, self.window, self.stride, self.chunk, self.num_answers)

    def _classify(self, pictures, training):
        """Windows [n, h, w, C] -> [n, K]."""
        if self.window != self._taken:
            pictures = tf.image.resize(pictures, self._taken, antialias=True)
        return tf.cast(self.classifier(pictures, training=training), "float32")

    def _check_sides(self, images):
        """Height and width, as numbers where they are known; an error where the window is larger."""
        sides = sides_of(images)
        for side, least in zip(sides, self.window):
            if tf.is_tensor(side):
                tf.debugging.assert_greater_equal(side, least, f"expected pictures of at least {self.window}")
            elif side < least:
                raise ValueError(f"expected pictures of at least the window {self.window}, received {images.shape}")
        return sides

    # --- training -----------------------------------------------------------------------------------------------------

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The mean cross-entropy, in nats, of labels `y` [B], or [B, R, S]; -1 takes no part."""
        labels = tf.cast(y, "int32")
        labels = labels[:, None, None] if labels.shape.rank == 1 else labels
        if not labels.shape.is_compatible_with(y_pred.shape[:-1]):
            raise ValueError(f"expected labels of windows {y_pred.shape[:-1]}, received {labels.shape}")
        weight = tf.cast(labels >= 0, "float32")
        if sample_weight is not None:
            sample_weight = tf.cast(sample_weight, "float32")
            weight *= sample_weight[:, None, None] if sample_weight.shape.rank == 1 else sample_weight
        losses = keras.ops.sparse_categorical_crossentropy(tf.maximum(labels, 0), y_pred, self.from_logits)
        self.accuracy.update_state(tf.argmax(y_pred, -1, output_type="int32") == labels, weight)
        return tf.math.divide_no_nan(tf.reduce_sum(weight * losses), tf.reduce_sum(weight))

    # --- answers ------------------------------------------------------------------------------------------------------

    def class_map(self, images):
        """The probabilities of every window: images [B, H, W, C] in [0, 1], or one [H, W, C] -> [B, R, S, K]."""
        if len(getattr(images, "shape", ())) == 3:
            return self.class_map(images[None])[0]
        self.check_images(images)
        return self._probabilities(tf.cast(images, "float32"))

    def _probabilities(self, images):
        answers = self(images, training=False)
        return tf.nn.softmax(answers) if self.from_logits else answers

    def detect(self, images, scales=None, score_threshold=0.005, iou_threshold=0.3, max_detections=100):
        """What is where in pictures of any size, each looked at in its own.

        A picture that a scale makes smaller than the window stands in grey, and so do the windows' margins and last
        rows and columns beyond its border.

        Args:
            images: [B, H, W, C] in [0, 1], or one picture [H, W, C].
            scales: as of the model, whose own are the default; more than 1 finds objects smaller than the window.
            score_threshold: detections score more; the score is the probability of the class.
            iou_threshold: of two of one class that overlap by more, the better one stays; R-CNN's by default.
            max_detections: D.

        Returns:
            {"boxes": [B, D, 4] xyxy in pixels of the pictures given, "scores": [B, D], "classes": [B, D] int32, counted
            without the background, "num_detections": [B] int32}, best first, padded by zeros of class -1; without B for
            one picture.

        Raises:
            ValueError: for pictures of other channels or out of range, thresholds outside of [0, 1], or a classifier
                that knows no background.
        """
        if len(getattr(images, "shape", ())) == 3:
            found = self.detect(images[None], scales, score_threshold, iou_threshold, max_detections)
            return {name: values[0] for name, values in found.items()}
        self._check_pictures(images, (1, 1))
        check = detector_doors.check_threshold
        score, overlap = check("score_threshold", score_threshold), check("iou_threshold", iou_threshold)
        images, boxes, scores = tf.cast(images, "float32"), [], []
        for maps, geometry in self._pyramid(images, scales):
            boxes.append(windows.boxes_of(maps, *geometry))
            scores.append(tf.reshape(maps, (tf.shape(maps)[0], -1, self.num_answers - 1)))
        boxes, scores = tf.concat(boxes, 0), tf.concat(scores, 1)  # [N, 4], [B, N, K - 1]
        boxes = tf.tile(boxes[None], [tf.shape(scores)[0], 1, 1])
        return class_aware_nms(boxes, scores, max_detections, overlap, score)

    def heat_maps(self, images, scales=None):
        """For every pixel and class the best probability over the scales, each of its nearest window.

        images [B, H, W, C] in [0, 1] -> [B, H, W, K - 1], classes counted without the background.
        """
        self._check_pictures(images, (1, 1))
        pyramid = self._pyramid(tf.cast(images, "float32"), scales)
        return functools.reduce(tf.maximum, (windows.over_pixels(maps, *geometry) for maps, geometry in pyramid))

    def _pyramid(self, images, scales):
        """Of every scale the probabilities [B, R, S, K - 1] without the background's, and where their windows lie."""
        if self.background is None:
            raise ValueError("without a background class every window is an object; give background, the index of it")
        where = self.window, self.stride, self.margin
        for scale in self.scales if scales is None else windows.check_scales(scales):
            pictures, factors = windows.scaled(images, scale, *where)
            maps = self._probabilities(pictures)
            maps = tf.concat([maps[..., : self.background], maps[..., self.background + 1 :]], -1)
            yield maps, (factors, sides_of(images), *where)

    # --- doors --------------------------------------------------------------------------------------------------------

    def signatures(self):
        def of_images(images):
            return {"class_map": self._probabilities(tf.ensure_shape(images, (None, *self.image_shape)))}

        own = of_images, [tf.TensorSpec((None, *self.image_shape), "float32", name="images")]
        if self.background is None:
            return {"serving_default": own, "class_map": own}
        return {**detector_doors.signatures(self.detect, self.image_shape), "class_map": own}

    def check_images(self, images):
        self._check_pictures(images, self.window)

    def _check_pictures(self, images, least):
        shape = tuple(getattr(images, "shape", ()))
        fits = len(shape) == 4 and all(side is None or side >= part for side, part in zip(shape[1:3], least))
        if not fits and len(shape) == 4:
            raise ValueError(f"expected pictures of at least the window {least}, received {shape}; enlarge them")
        checks.check_images(images, (*shape[1:3], self.image_shape[2]) if fits else self.image_shape)

    def check_targets(self, labels):
        if checks.is_symbolic(labels):
            return
        labels = np.asarray(labels)
        if labels.ndim not in (1, 3) or labels.dtype.kind not in "iu":
            received = f"{list(labels.shape)} of {labels.dtype}"
            raise ValueError(f"expected labels [B], or [B, R, S], of whole numbers, received {received}")
        if labels.size and not -1 <= labels.min() <= labels.max() < self.num_answers:
            raise ValueError(
                f"expected labels from 0 to {self.num_answers - 1}, and -1 for none, received {labels.min()} to "
                f"{labels.max()}"
            )

    def get_config(self):
        names = "window stride image_shape background margin scales from_logits resize dense chunk"
        own = {name: getattr(self, name) for name in names.split()}
        return {**super().get_config(), **own, "classifier": keras.saving.serialize_keras_object(self.classifier)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "classifier": keras.saving.deserialize_keras_object(config["classifier"])})


def _taken_by(classifier):
    """(h, w, C) of the pictures that a classifier takes."""
    shape = getattr(classifier, "image_shape", None)
    if shape is None:
        try:
            shape = classifier.input_shape[1:]
        except (AttributeError, ValueError, TypeError):
            shape = ()
    if not isinstance(classifier, keras.Model) or len(shape) != 3 or None in shape:
        raise ValueError(
            f"expected a built keras.Model of pictures [B, h, w, C] of one size, or with image_shape, received "
            f"{type(classifier).__name__} of {shape or 'an unknown shape'}"
        )
    return tuple(shape)


def _answers_of(classifier, shape):
    """K of a classifier of pictures of `shape`."""
    found = classifier(keras.Input(shape)).shape
    if len(found) != 2 or not found[1] or found[1] < 2:
        raise ValueError(f"expected a classifier [B, h, w, C] -> [B, K] of at least two answers, received {found}")
    return found[1]


def _answers_logits(classifier):
    """Whether a classifier's last layer is no softmax; layers that are not known are taken for logits'."""
    while isinstance(classifier, keras.Model) and hasattr(classifier, "inputs") and classifier.layers:
        classifier = classifier.layers[-1]
    activation = getattr(classifier, "activation", None)
    if activation is keras.activations.sigmoid:
        raise ValueError(
            "a classifier that ends in sigmoid compares no classes; end it in softmax or logits, or "
            "give from_logits=False to take its answers for scores"
        )
    return activation is not keras.activations.softmax and not isinstance(classifier, keras.layers.Softmax)
