"""Reverse classification accuracy: how good one segmentation is when nobody can tell.

Valindria et al., "Reverse Classification Accuracy: Predicting Segmentation Performance in the Absence of Ground Truth",
IEEE Transactions on Medical Imaging 2017 (https://arxiv.org/abs/1702.03407).

A picture I comes with a segmentation S of unknown quality; for R reference pictures J_r the truth T_r is known.

    1  F = train(I, S)                            a reverse classifier, which sees this one pair and nothing else
    2  P_r = F(J_r)                               it segments each reference, with a probability for each label
    3  overlap(S)_k = max_r Dice_k(P_r, T_r)      the best, of all or of the `nearest` references; or `over="mean"`
    4  predicted_k = a_k overlap(S)_k + b_k       a line fitted where real overlaps are known, by `calibrate` or `fit`

    Dice_k(P, T) = 2 |P_k & T_k| / (|P_k| + |T_k|), of class k, or of the foreground: any class against none;
    of probabilities p (`soft`), |P_k| = sum p_k and |P_k & T_k| = sum of p_k where T is k

If S is good, F finds the structures in some reference; what S gets wrong, F repeats. Reverse classifiers, `method`:

    "cnn"            a small convolutional network trained within the graph (dmkeras/parts/pixel_network.py)
    "forest"         a random forest of single pixels (dmkeras/parts/pixel_features.py), scikit-learn's
    "registration"   I with S as an atlas, registered with each reference (dmkeras/parts/registration.py), SimpleITK's;
                     for pictures of a common anatomy alone

The first is exported and served whole. The others run in Python; their export holds 3 and 4, as `score_overlaps`.

Two calibrations, both optional: the line of 4, and that of the forest's probabilities (`probability_calibration`,
scikit-learn's CalibratedClassifierCV). Two intervals, both by bootstrap: `dice_interval` and `class_interval` say where
the real overlap lies, by residuals of pictures that a resampled line did not see; `interval_over_references` says what
`overlap(S)` owes to the choice of references.

Shapes:  B batch, H height, W width, C channels, K classes without background, R references, N calibration
segmentations. Columns of overlaps [.., 1 + K]: the foreground, then the classes; of predicted and real values
[.., 2 + K]: the mean over classes before these.

Defined values: a reference without class k is no witness of it (-1), though an empty prediction would agree; an empty
segmentation is predicted 0; one of a single label makes F say this label everywhere, and is measured as such; of a
class that neither segmentation nor truth have there is no real overlap (-1), and no line learns from it. Pixels of -1
(void) are neither learnt nor measured.

Deviations from the paper, each with its reason:
- The paper's P_r are labels, as here by `soft=False`. Where S contradicts itself, as after a bend, F is unsure and its
  likeliest labels look better than S: probabilities tell it (figures in benchmarks/README.md).
- The paper's references are all of a kind. Where they are not, some reference suits a wrong S, as a negative does the
  inverted map of a picture: `nearest` takes those most like I, by their pixels alone.
- Forest, network and registration are smaller than the paper's; the line is not the paper's, which predicts 3 itself.
"""

import keras
import numpy as np
import tensorflow as tf

from dmkeras.parts import checks, overlap_calibration, pixel_forest, pixel_network, reference_overlaps, registration

METHODS = ("cnn", "forest", "registration")


def reverse_accuracy(classifier, old_x, old_y, new_x, reverse=None):
    """The tabular version: how right a classifier is on new rows without labels, told by the old ones that have them.

    The classifier learns the old rows and labels the new ones; a second one learns these labels alone, and is measured
    on the old rows. New rows that all get one label are answered by that label.

    Args:
        classifier: a scikit-learn estimator, which is cloned; in a CalibratedClassifierCV its probabilities are.
        old_x: [n, D].
        old_y: their labels [n].
        new_x: [m, D].
        reverse: the second one; None for another of the first's kind.

    Returns:
        (accuracy in [0, 1], the labels [m] that the new rows got).
    """
    from sklearn.base import clone

    labels = clone(classifier).fit(old_x, old_y).predict(new_x)
    reverse = clone(classifier if reverse is None else reverse)
    found = reverse.fit(new_x, labels).predict(old_x) if len(np.unique(labels)) > 1 else labels[0]
    return float(np.mean(found == old_y)), labels


@checks.looks_at_first_batch
@keras.saving.register_keras_serializable("dmkeras")
class ReverseClassificationAccuracy(keras.Model):
    """Predicts the overlap of a segmentation with the truth that nobody has.

    Call: overlaps `[B, R, 1 + K]` float32, -1 for none  ->  predicted ones `[B, 2 + K]` float32, not cut to [0, 1].

    | signature | inputs | outputs |
    | --- | --- | --- |
    | serving_default | images [B, H, W, C] float32 in [0, 1], segmentations [B, H, W] int32 | dice [B], iou [B], foreground_dice [B], class_dice [B, K], class_iou [B, K], dice_interval [B, 2], class_interval [B, K, 2] float32, reference [B] int32 |
    | score | images, segmentations | dice, iou, foreground_dice, class_dice, class_iou, dice_interval, class_interval, reference |
    | score_bytes | image_bytes [B], segmentation_bytes [B] string | dice, iou, foreground_dice, class_dice, class_iou, dice_interval, class_interval, reference |
    | score_overlaps | overlaps [B, R, 1 + K] float32 | dice, iou, foreground_dice, class_dice, class_iou, dice_interval, class_interval, reference |

    dice and iou are means over classes, in [0, 1]; of a class, iou = dice / (2 - dice). reference is the one that the
    reverse classifier segmented best, an index. Values of a segmentation that are no label count as void in endpoints.
    `score_bytes` takes a PNG or JPEG and a grey PNG whose values are labels, of one size, and resizes both. Each
    picture takes `steps` steps of training. Other methods have `score_overlaps` alone, also as `serving_default`.

    `fit` and `calibrate` take (overlaps [N, R, 1 + K], real [N, 2 + K]) of `overlaps` and `real_overlaps`; the latter
    gives the line of least squares at once, and the intervals.

    Args:
        image_shape: (H, W, C).
        num_classes: K.
        num_references: R.
        method: `"cnn"`, `"forest"` or `"registration"`, see the module.
        over: `"best"` or `"mean"`, of the references.
        nearest: how many references, those most like a picture, are asked about it; None for all.
        soft: whether overlaps are those of probabilities; False takes the likeliest labels, as the paper.
        position: whether the reverse classifier knows where a pixel is: for pictures in a common frame.
        filters, steps, learning_rate: of the network, see dmkeras/parts/pixel_network.py.
        trees, pixels: of the forest, and of a picture that it learns, drawn by the seed.
        probability_calibration: `"sigmoid"`, `"isotonic"` or None, of the forest.
        level: of the intervals: the share of real overlaps that they ought to hold.
        seed: of the network's first weights, the forest and the bootstrap.

    Raises:
        ValueError: for settings and data that cannot be, such as masks of another size, unknown labels, no references.
        ImportError: for `"registration"` without SimpleITK, when it is first used.
    """  # noqa: E501 - rows of the table

    def __init__(
        self,
        image_shape,
        num_classes=1,
        num_references=8,
        method="cnn",
        over="best",
        nearest=None,
        soft=True,
        position=False,
        filters=16,
        steps=200,
        learning_rate=1e-2,
        trees=20,
        pixels=8000,
        probability_calibration=None,
        level=0.9,
        seed=0,
        **kwargs,
    ):
        super().__init__(**{**kwargs, "dtype": "float32"})  # a handful of numbers: no policy lowers them
        self.image_shape = checks.check_image_shape(image_shape)
        counts = {"num_classes": num_classes, "num_references": num_references, "filters": filters}
        for name, count in (counts | {"steps": steps, "trees": trees, "pixels": pixels}).items():
            setattr(self, name, checks.whole_number(name, count, 1))
        self.method = checks.one_of("method", method, METHODS)
        self.over = checks.one_of("over", over, ("best", "mean"))
        self.nearest = None if nearest is None else min(checks.whole_number("nearest", nearest, 1), num_references)
        self.soft, self.position = bool(soft), bool(position)
        self.learning_rate = checks.number("learning_rate", learning_rate)
        choices = (None, "sigmoid", "isotonic")
        self.probability_calibration = checks.one_of("probability_calibration", probability_calibration, choices)
        self.level = checks.number("level", level, below=1)
        self.seed = checks.whole_number("seed", seed, 0)
        columns, size = 2 + self.num_classes, self.image_shape[:2]
        weight = lambda name, shape, value, dtype="float32", **options: self.add_weight(
            shape=shape, dtype=dtype, name=name, initializer=keras.initializers.Constant(value), **options
        )
        self.slope = weight("slope", (columns,), 1, constraint=keras.constraints.NonNeg())
        self.intercept = weight("intercept", (columns,), 0)
        self.margins = weight("margins", (2, columns), 0, trainable=False)  # of the real value around the predicted one
        self.references = weight("references", (num_references, *self.image_shape), 0, trainable=False)
        self.truths = weight("truths", (num_references, *size), -1, "int32", trainable=False)  # -1: not set
        self._bank = None  # features for the forest
        self(keras.Input((self.num_references, 1 + self.num_classes)))

    def call(self, overlaps, training=False):
        return tf.convert_to_tensor(self.slope) * self.uncalibrated(overlaps) + self.intercept  # equation 4

    def uncalibrated(self, overlaps):
        """Overlaps [B, R, 1 + K] -> [B, 2 + K], equation 3 alone."""
        overlaps = tf.cast(overlaps, "float32")
        found = tf.maximum(tf.reduce_max(overlaps, 1), 0.0)  # [B, 1 + K]
        if self.over == "mean":
            told = tf.cast(overlaps >= 0, "float32")
            found = tf.math.divide_no_nan(tf.reduce_sum(told * overlaps, 1), tf.reduce_sum(told, 1))
        return tf.concat([tf.reduce_mean(found[:, 1:], -1, keepdims=True), found], -1)

    def set_references(self, images, truths):
        """Pictures [R, H, W, C] in [0, 1] and their truth [R, H, W]: 0 background, 1 to K, -1 void.

        Raises ValueError for others, and where no reference has a class, since nothing could be said of it then.
        """
        images, truths = self._checked(images, truths, "truths")
        if len(images) != self.num_references:
            raise ValueError(f"expected {self.num_references} references, received {len(images)}")
        if missing := sorted(set(range(1, self.num_classes + 1)) - set(np.unique(truths))):
            raise ValueError(f"no reference has class {missing[0]}, and nothing could be said of it; add one that has")
        self.references.assign(images)
        self.truths.assign(truths)
        self._bank = None

    def segment_references(self, images, segmentations):
        """int32 [B, R, H, W]: the likeliest labels of each reference to the reverse classifier of each picture.

        Args:
            images: [B, H, W, C] in [0, 1].
            segmentations: [B, H, W] of 0 background, 1 to K, -1 void.
        """
        found = [np.argmax(row, -1) for row in self._probabilities(images, segmentations)]
        return np.reshape(found, (-1, *self.truths.shape)).astype("int32")

    def overlaps(self, images, segmentations):
        """float32 [B, R, 1 + K]: Dice with each reference, -1 where it is no witness of a class; arguments likewise."""
        found = zip(self._probabilities(images, segmentations), np.asarray(images, "float32"))
        rows = [self._dice(row[None], image[None])[0] for row, image in found]
        return np.reshape(rows, (-1, self.num_references, 1 + self.num_classes)).astype("float32")

    def _probabilities(self, images, segmentations):
        """Those of equation 2, [R, H, W, 1 + K] for each picture in turn."""
        pairs = zip(*self._checked(images, segmentations, "segmentations"))
        if (self.truths.numpy() < 0).all():
            raise ValueError("no references yet: give pictures and their truth to set_references first")
        by_cnn = lambda image, labels: self._trained_in_graph(image[None], labels[None])
        by = {"cnn": by_cnn, "forest": self._by_forest, "registration": self._by_registration}[self.method]
        return (np.reshape(by(*pair), (*self.truths.shape, 1 + self.num_classes)) for pair in pairs)

    @tf.function(reduce_retracing=True, autograph=False)
    def _trained_in_graph(self, images, segmentations):
        others, labels = tf.convert_to_tensor(self.references), 1 + self.num_classes
        options = self.filters, self.steps, self.learning_rate, self.position, self.seed
        return pixel_network.segment_others(images, segmentations, others, labels, *options)

    def _by_forest(self, image, labels):
        if self._bank is None:
            self._bank = pixel_forest.bank_of(self.references.numpy(), self.position)
        options = self.position, self.trees, self.pixels, self.probability_calibration, self.seed
        return pixel_forest.segment_others(image, labels, self._bank, 1 + self.num_classes, *options)

    def _by_registration(self, image, labels):
        others = self.references.numpy()
        found = [registration.propagate(labels, registration.remembered_places(one, image)) for one in others]
        return np.array(found)[..., None] == np.arange(1 + self.num_classes)

    def _dice(self, found, images):
        found = tf.cast(found, "float32") if self.soft else tf.one_hot(tf.argmax(found, -1), 1 + self.num_classes)
        references, truths = tf.convert_to_tensor(self.references), tf.convert_to_tensor(self.truths)
        dice = reference_overlaps.against_references(found, truths, self.num_classes)
        return reference_overlaps.of_nearest(dice, images, references, self.nearest) if self.nearest else dice

    def real_overlaps(self, segmentations, truths):
        """float32 [N, 2 + K]: Dice of segmentations [N, H, W] with their own truths, -1 where neither has the class."""
        found, truths = self._checked_labels("segmentations", segmentations), self._checked_labels("truths", truths)
        if len(found) != len(truths):
            raise ValueError(f"expected a truth for each segmentation, received {len(truths)} and {len(found)}")
        return reference_overlaps.real_overlaps(found, truths, self.num_classes)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Mean square of predicted minus real overlaps [B, 2 + K]; real ones of -1 count for nothing."""
        y, weight = tf.cast(y, "float32"), tf.cast(y >= 0, "float32")
        weight *= 1.0 if sample_weight is None else tf.cast(tf.reshape(sample_weight, [-1, 1]), "float32")
        return tf.math.divide_no_nan(tf.reduce_sum(weight * (y - y_pred) ** 2), tf.reduce_sum(weight))

    def calibrate(self, overlaps, real, groups=None):
        """Sets the line of least squares, its slope at least 0, and the intervals: see parts/overlap_calibration.py.

        Args:
            overlaps: [N, R, 1 + K] of `overlaps`.
            real: [N, 2 + K] of `real_overlaps`.
            groups: [N] whole numbers that say which segmentations share a picture; None: none do.
        """
        self.check_images(overlaps)
        self.check_targets(real)
        groups = np.arange(len(real)) if groups is None else np.asarray(groups)
        if groups.shape != (len(real),) or len(overlaps) != len(real):
            received = f"{len(overlaps)}, {len(real)} and {list(groups.shape)}"
            raise ValueError(f"expected overlaps, real overlaps and groups of one length, received {received}")
        found, real = self.uncalibrated(np.asarray(overlaps, "float32")).numpy(), np.asarray(real)
        columns = [(x[y >= 0], y[y >= 0], groups[y >= 0]) for x, y in zip(found.T, real.T)]
        slopes, intercepts = zip(*(overlap_calibration.line(x, y) for x, y, _ in columns))
        self.slope.assign(slopes)
        self.intercept.assign(intercepts)
        self.margins.assign(np.transpose([overlap_calibration.margins(*c, self.level, self.seed) for c in columns]))

    def score(self, images, segmentations):
        """What the endpoint `score` answers, as NumPy arrays, by any method; arguments as of `segment_references`."""
        answer = self.score_overlaps(self.overlaps(images, segmentations))
        return {name: value.numpy() for name, value in answer.items()}

    def score_overlaps(self, overlaps):
        """The same from overlaps [B, R, 1 + K], as tensors."""
        line = self(overlaps)
        values = tf.clip_by_value(line, 0.0, 1.0)
        ends = tf.clip_by_value(line[..., None] + tf.transpose(self.margins), 0.0, 1.0)  # [B, 2 + K, 2]
        iou = values[:, 2:] / (2 - values[:, 2:])
        return {
            "dice": values[:, 0],
            "iou": tf.reduce_mean(iou, -1),
            "foreground_dice": values[:, 1],
            "class_dice": values[:, 2:],
            "class_iou": iou,
            "dice_interval": ends[:, 0],
            "class_interval": ends[:, 2:],
            "reference": tf.argmax(tf.reduce_mean(overlaps[..., 1:], -1), 1, tf.int32),
        }

    def interval_over_references(self, overlaps, draws=200):
        """float32 [B, 2 + K, 2]: between which values the score would be with other references, `level` of the time.

        References are drawn with replacement. It tells the luck of the choice and is no interval for the real overlap.
        """
        self.check_images(overlaps)
        chosen = np.random.default_rng(self.seed).integers(0, self.num_references, (draws, self.num_references))
        found = np.clip([self(np.asarray(overlaps, "float32")[:, rows]) for rows in chosen], 0, 1)
        tails = np.quantile(found, [(1 - self.level) / 2, (1 + self.level) / 2], axis=0)
        return np.moveaxis(tails, 0, -1).astype("float32")

    def signatures(self):
        overlaps = tf.TensorSpec((None, self.num_references, 1 + self.num_classes), "float32", name="overlaps")
        found = dict.fromkeys(("serving_default", "score_overlaps"), (self.score_overlaps, [overlaps]))
        height, width, channels = self.image_shape

        def score(images, segmentations):
            images = tf.ensure_shape(images, (None, *self.image_shape))
            labels = tf.ensure_shape(segmentations, (None, height, width))
            labels = tf.where((labels >= 0) & (labels <= self.num_classes), labels, -1)
            return self.score_overlaps(self._dice(self._trained_in_graph(images, labels), images))

        def score_bytes(image_bytes, segmentation_bytes):
            files = tf.ensure_shape(image_bytes, (None,)), tf.ensure_shape(segmentation_bytes, (None,))
            return score(*reference_overlaps.decode_pairs(*files, (height, width), channels))

        images = tf.TensorSpec((None, *self.image_shape), "float32", name="images")
        labels = tf.TensorSpec((None, height, width), "int32", name="segmentations")
        files = [tf.TensorSpec((None,), "string", name=name) for name in ("image_bytes", "segmentation_bytes")]
        found |= dict.fromkeys(("serving_default", "score"), (score, [images, labels])) if self.method == "cnn" else {}
        return found | ({"score_bytes": (score_bytes, files)} if self.method == "cnn" and channels in (1, 3) else {})

    def check_images(self, overlaps):
        reference_overlaps.check_overlaps("overlaps", overlaps, (self.num_references, 1 + self.num_classes))

    def check_targets(self, real):
        reference_overlaps.check_overlaps("real overlaps", real, (2 + self.num_classes,))

    def _checked(self, images, labels, name):
        checks.check_images(images, self.image_shape)
        labels = self._checked_labels(name, labels)
        if len(images) != len(labels):
            raise ValueError(f"expected a picture for each of {name}, received {len(images)} and {len(labels)}")
        return np.asarray(images, "float32"), labels

    def _checked_labels(self, name, labels):
        return reference_overlaps.check_labels(name, labels, self.image_shape[:2], self.num_classes)

    def get_config(self):
        names = "image_shape num_classes num_references method over nearest soft position filters steps learning_rate"
        names = [*names.split(), "trees", "pixels", "probability_calibration", "level", "seed"]
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
