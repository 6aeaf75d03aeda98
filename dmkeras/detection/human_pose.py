"""Human pose: all joints of a person by one regression, then each joint again from a closer look around it.

Toshev and Szegedy, "DeepPose: Human Pose Estimation via Deep Neural Networks", CVPR 2014
(https://arxiv.org/abs/1312.4659); its first stage alone is the regression of joints of lecture 11 of Stanford's CS231n,
2017 (https://cs231n.stanford.edu/2017/). Numbers as in the paper.

    N(y; b)  = ((x - b_x) / b_w, (y - b_y) / b_h)                a joint in a box with the middle b_x, b_y           (1)
    loss     = sum_i ||N(y_i; b) - psi_i(N(x; b); theta_1)||^2     over the joints that are labelled                 (3)
    stage 1  y^1 = N^-1(psi(N(x; b^0); theta_1); b^0)              b^0 the person's box, N(x; b) what a box shows    (5)
    stage s  y_i^s = y_i^(s-1) + sigma d psi_i(N(x; b); theta_s)   d = diam(y^(s-1)), the distance of two            (6)
             b = (y_i^(s-1), sigma d, sigma d)                     opposing joints of the torso                      (7)
    trained  on b = (y_i + delta, sigma d, sigma d), delta ~ N_i^(s-1), towards -delta / (sigma d), by loss (3)      (8)
             N_i^(s-1): normal, with the mean and variance of stage s - 1's errors y_i^(s-1) - y_i in training

A stage is trained when those before it are, from `begin_stage` on. What a box shows has the same number of pixels in
every stage: the first sees all of the person, coarsely, the later ones a small part in the picture's own resolution.

Shapes:  B batch, H height, W width, C channels, S stages, J joints, n what networks see, pixels each way.

Deviations from the paper, each with its reason:
- Networks are small (convolutions with batch normalisation, one hidden layer) in place of AlexNet's: they train here.
- delta is in diameters, not pixels: persons are of many sizes in a picture.
- Errors that leave the joint outside of the next box are no part of N_i: no look at that box mends them, and a few such
  (left for right) would spread the normal so that it is like none of the errors.
- d is drawn, too: log d has a normal error with the mean and variance of the stage before, as at the test, where it
  comes from joints that are not exact; at most a factor of two is measured. The paper trains on true diameters alone.
- A stage from the third on starts from the weights of the one before it: both look at boxes of one size.
- One delta for each joint and epoch. The paper draws 40 beforehand.
- Of a batch the loss is the mean over pictures, and the learning rate's business. One without pictures is refused in
  training, since it has no statistics to normalise by; XLA leaves that check out, and weights are no numbers then.
"""

import functools
import math

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from dmkeras.backbones.darknet19 import ConvBlock
from dmkeras.parts import checks, frames, pose_doors, pose_metrics

SMALLEST, LARGEST = 1 / 32, 1.0  # diameters of told joints, in parts of the picture's shorter and longer side
FRACTIONS = (0.05, 0.1, 0.2)  # of the diameter, in training's figures


@checks.looks_at_first_batch
@keras.saving.register_keras_serializable("dmkeras")
class HumanPose(keras.Model):
    """Joints of the one person in a picture, or in a box of it.

    Call: images `[B, H, W, C]` float32 in [0, 1] and, where known, boxes of the persons `[B, 4]`  ->  joints of each
    stage `[B, S, J, 2]` float32. Boxes are xyxy, all in pixels; without a box the person is the whole picture.

    | signature | inputs | outputs |
    | --- | --- | --- |
    | serving_default | images [B, H, W, C] float32 in [0, 1] | joints [B, J, 2], stages [B, S, J, 2] float32, pixels |
    | pose_in_boxes | images, boxes [B, 4] float32, xyxy in pixels | joints, stages |
    | pose_bytes | image_bytes [B] string, JPEG or PNG of any size | joints, stages, skeleton_bytes [B] string, PNG of its size |

    There is a place for every joint, the last stage's in `joints`, also for one that is not in the picture. `pose_bytes`
    letterboxes what it is sent, answers in pixels of that, and is there for three colours. `fit` takes (images,
    {"keypoints": [B, J, 3] x, y in pixels and visibility 0, 1, 2, "boxes": [B, 4], which may be left out}) and trains
    the stage that was begun.

    Attributes:
        networks: of each stage, a `keras.Sequential`.
        stage: the one in training, from 1 to S; `begin_stage` sets it, and `compile` makes it so.

    Args:
        image_shape: (H, W, C) of the pictures that are served; others are letterboxed to it.
        num_joints: J.
        torso: two opposing joints, whose distance is the diameter.
        limbs: pairs of joints, for drawings and the figure PCP.
        num_stages: S; 1 is the regression alone.
        input_size: n.
        filters: maps of the 3x3 convolutions, each followed by a maximum over 2x2.
        hidden_size: units of the hidden layer.
        dropout: of the hidden layer's units, in training.
        sigma: side of a later stage's boxes, in diameters.
        least_visibility: 1 where hidden joints that are labelled count, as in the paper; 2 for visible ones alone.

    Raises:
        ValueError: for sizes, joints or numbers that cannot be; `fit` and `pose` raise it for pictures, boxes and
            keypoints of other shapes or out of range.
    """  # noqa: E501 - rows of the table

    def __init__(
        self,
        image_shape=(128, 128, 3),
        num_joints=4,
        torso=(1, 3),
        limbs=((0, 1), (1, 2), (2, 3), (3, 0)),
        num_stages=3,
        input_size=32,
        filters=(16, 32, 64, 64),
        hidden_size=128,
        dropout=0.0,
        sigma=1.5,
        least_visibility=1,
        **kwargs,
    ):
        super().__init__(**{"autocast": False, **kwargs})  # pixels do not survive half precision
        self.image_shape = checks.check_image_shape(image_shape)
        self.num_joints = checks.whole_number("num_joints", num_joints, 2)
        self.torso = pose_doors.check_joints("torso", torso, self.num_joints)
        if len(set(self.torso)) != 2 or len(self.torso) != 2:
            raise ValueError(f"torso must be two joints, received {torso}")
        self.limbs = pose_doors.check_joints("limbs", limbs, self.num_joints, 2)
        self.num_stages = checks.whole_number("num_stages", num_stages, 1)
        self.input_size = checks.whole_number("input_size", input_size, 4)
        self.filters = tuple(checks.whole_number("each of filters", maps, 1) for maps in filters)
        self.hidden_size = checks.whole_number("hidden_size", hidden_size, 1)
        self.dropout = checks.number("dropout", dropout, below=1)
        self.sigma = checks.number("sigma", sigma, least=1e-3)
        self.least_visibility = checks.one_of("least_visibility", least_visibility, (1, 2))
        self.networks = [self._network(f"stage_{i + 1}") for i in range(self.num_stages)]
        self._add_errors()
        self.draws = keras.random.SeedGenerator()
        self.stage = 1
        names = (*map(pose_metrics.name, FRACTIONS), "mean_error")
        self.trackers = {name: keras.metrics.Mean(name=name) for name in names}
        self(keras.Input(self.image_shape))

    def _network(self, name):
        policy, stages = {"dtype": self.dtype_policy}, []
        for i, maps in enumerate(self.filters):
            stages += [ConvBlock(maps, momentum=0.9, name=f"conv_{i}", **policy)]
            stages += [layers.MaxPooling2D(2, padding="same", **policy)]
        hidden = [layers.Flatten(**policy), layers.Dense(self.hidden_size, use_bias=False, **policy)]
        hidden += [layers.BatchNormalization(momentum=0.9, **policy), layers.ReLU(**policy)]
        hidden += [layers.Dropout(self.dropout, **policy)] if self.dropout else []
        small = keras.initializers.RandomNormal(stddev=0.01)  # it starts in the middle of its box
        joints = layers.Dense(2 * self.num_joints, kernel_initializer=small, dtype="float32")
        return keras.Sequential([*stages, *hidden, joints], name=name)

    def _add_errors(self):
        """Mean and deviation of the errors of the stages 1 to S - 1: of joints [2, J, 2], of the log diameter [2]."""
        add = functools.partial(self.add_weight, dtype="float32", trainable=False)
        start = lambda shape, dtype=None: tf.concat([tf.zeros((1, *shape[1:])), tf.fill((1, *shape[1:]), 0.1)], 0)
        stages = range(1, self.num_stages)
        shape = (2, self.num_joints, 2)
        self.joint_errors = [add(shape=shape, initializer=start, name=f"joint_errors_{s}") for s in stages]
        self.diameter_errors = [add(shape=(2, 1), initializer=start, name=f"diameter_errors_{s}") for s in stages]

    # --- the cascade --------------------------------------------------------------------------------------------------

    def call(self, images, boxes=None, training=False):
        """Networks answer as after training whatever `training` says: a stage learns from boxes that truths tell."""
        images, boxes = tf.cast(images, "float32"), self._boxes(images, boxes)
        middle, axes = frames.upright(boxes)
        joints = frames.out_of(self._regress(images, middle, axes), middle, axes)
        found = [joints]
        for stage in range(2, self.num_stages + 1):
            side = self.sigma * self._diameters(joints)
            joints = joints + side[:, None, None] * self._displace(stage, images, joints, side)
            found.append(joints)
        return tf.stack(found, 1)

    def _boxes(self, images, boxes):
        """Boxes of the persons, the whole picture where one is missing or without area."""
        whole = tf.constant([0, 0, self.image_shape[1], self.image_shape[0]], "float32")
        if boxes is None:
            return tf.tile(whole[None], (tf.shape(images)[0], 1))
        boxes = tf.cast(boxes, "float32")
        return tf.where(pose_doors.has_area(boxes)[:, None], boxes, whole)

    def _regress(self, images, middle, axes, training=False):
        """psi of the first stage: [B, J, 2] in the frame's units."""
        finer = math.ceil(max(self.image_shape[:2]) / (2 * self.input_size))
        crops = frames.sampled(images, middle[:, None], axes[:, None], (self.input_size,) * 2, finer)[:, 0]
        return self._ask(1, crops, training)

    def _displace(self, stage, images, middle, side, training=False):
        """psi_i of a later stage from squares around [B, J, 2] of sides [B]: [B, J, 2] in sides."""
        side = tf.tile(side[:, None], (1, self.num_joints))
        crops = frames.sampled(images, *frames.squares(middle, side), (self.input_size,) * 2)
        crops = tf.reshape(crops, (-1, *crops.shape[2:]))  # [B J, n, n, C]
        found = tf.reshape(self._ask(stage, crops, training), (-1, self.num_joints, self.num_joints, 2))
        return tf.stack([found[:, i, i] for i in range(self.num_joints)], 1)  # of joint i's crop the answer i

    def _ask(self, stage, crops, training):
        crops = crops - tf.reduce_mean(crops, (1, 2), keepdims=True)
        crops = tf.ensure_shape(crops, (None, self.input_size, self.input_size, self.image_shape[2]))
        found = self.networks[stage - 1](tf.cast(crops, self.compute_dtype), training=training)
        return tf.reshape(tf.cast(found, "float32"), (-1, self.num_joints, 2))

    def _diameters(self, joints):
        """Diameters [B] of told joints [B, J, 2], within what a picture can hold."""
        found = pose_metrics.distance(joints[:, self.torso[0]], joints[:, self.torso[1]])
        sides = self.image_shape[:2]
        return tf.clip_by_value(found, SMALLEST * min(sides), LARGEST * max(sides))

    # --- training -----------------------------------------------------------------------------------------------------

    def begin_stage(self, stage, data=None):
        """Makes `stage`, from 1 on, the one that `fit` trains; call `compile` after it.

        Its network alone is trainable then. From the second stage on the errors of the stage before are measured over
        `data`, batches as `fit` takes them (those of joints that never count stay as they are); from the third on it
        starts from that one's weights.
        """
        stage = checks.whole_number("stage", stage, 1)
        if stage > self.num_stages or (stage > 1) == (data is None):
            raise ValueError(f"expected a stage from 1 to {self.num_stages}, data from 2 on, received {stage}, {data}")
        self.stage = stage
        for i, network in enumerate(self.networks):
            network.trainable = i == stage - 1
        if stage > 2:
            self.networks[stage - 1].set_weights(self.networks[stage - 2].get_weights())
        if stage > 1:
            self._measure(stage - 1, data)

    def _measure(self, stage, data):
        ask, rows, logs = tf.function(self.call, autograph=False), [np.zeros((0, self.num_joints, 2))], [np.zeros(0)]
        for images, truths in data:
            joints, keypoints = ask(images, truths.get("boxes"))[:, stage - 1], tf.cast(truths["keypoints"], "float32")
            points, _ = pose_metrics.labelled(keypoints, self.least_visibility)
            diameter, known = pose_metrics.diameters(keypoints, self.torso, self.least_visibility)
            _, counts = pose_metrics.errors(joints, keypoints, self.torso, self.least_visibility)
            errors = (joints - points) / diameter[:, None, None]
            rows.append(np.where(counts[..., None], errors, np.nan))
            logs.append(np.log(self._diameters(joints) / diameter)[known.numpy()])
        rows, logs = np.concatenate(rows), np.concatenate(logs)
        logs = np.clip(logs, -np.log(2), np.log(2))  # a few diameters near zero would be all that is seen
        was = self.joint_errors[stage - 1].numpy()
        for i in range(self.num_joints):
            real = rows[np.abs(rows[:, i]).max(-1) < self.sigma / 2, i]  # inside of the next box; NaN is not
            if len(real):
                was[:, i] = real.mean(0), real.std(0)
        self.joint_errors[stage - 1].assign(was)
        if len(logs):
            self.diameter_errors[stage - 1].assign([[logs.mean()], [logs.std()]])

    def simulated(self, keypoints, stage, seed=None):
        """Squares around joints that stage - 1 could have told: middles [B, J, 2] and sides [B], eq. 8.

        Args:
            keypoints: [B, J, 3].
            stage: from 2 on.
            seed: an integer, or a `keras.random.SeedGenerator`; None for the model's own.
        """
        points, _ = pose_metrics.labelled(keypoints, self.least_visibility)
        diameter, _ = pose_metrics.diameters(keypoints, self.torso, self.least_visibility)
        draws = keras.random.normal((tf.shape(points)[0], self.num_joints + 1, 2), seed=seed or self.draws)
        mean, deviation = tf.unstack(tf.convert_to_tensor(self.joint_errors[stage - 2]))
        delta = (mean + deviation * draws[:, :-1]) * diameter[:, None, None]
        mean, deviation = tf.unstack(tf.convert_to_tensor(self.diameter_errors[stage - 2]))
        return points + delta, self.sigma * diameter * tf.exp(mean + deviation * draws[:, -1, 0])

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The loss (3) of the stage in training; in validation the same of what the whole cascade told."""
        images = pose_doors.some(tf.cast(x, "float32")) if training else tf.cast(x, "float32")
        boxes = self._boxes(images, y.get("boxes"))
        if not training and "boxes" in y:
            y_pred = self(images, boxes, training=False)
        keypoints = tf.cast(y["keypoints"], "float32")
        points, counts = pose_metrics.labelled(keypoints, self.least_visibility)
        middle, axes = frames.upright(boxes)
        if self.stage == 1:
            found = self._regress(images, middle, axes, True) if training else frames.into(y_pred[:, 0], middle, axes)
            joints = frames.out_of(found, middle, axes)
            square = tf.reduce_sum(tf.square(found - frames.into(points, middle, axes)), -1)
        else:
            diameter, known = pose_metrics.diameters(keypoints, self.torso, self.least_visibility)
            counts, side = counts & known[:, None], self.sigma * diameter
            joints = y_pred[:, self.stage - 1]
            if training:
                around, side = self.simulated(keypoints, self.stage)
                joints = around + side[:, None, None] * self._displace(self.stage, images, around, side, True)
            square = tf.reduce_sum(tf.square((joints - points) / side[:, None, None]), -1)
        loss = tf.reduce_sum(tf.where(counts, square, 0.0), -1)  # [B]
        weight = tf.ones_like(loss) if sample_weight is None else tf.cast(sample_weight, "float32")
        self._track(joints, keypoints, weight)
        return tf.math.divide_no_nan(tf.reduce_sum(weight * loss), tf.cast(tf.shape(loss)[0], "float32"))

    def _track(self, joints, keypoints, weight):
        away, counts = pose_metrics.errors(joints, keypoints, self.torso, self.least_visibility)
        weight = weight[:, None] * tf.cast(counts, "float32")
        for fraction in FRACTIONS:
            self.trackers[pose_metrics.name(fraction)].update_state(away <= fraction, weight)
        self.trackers["mean_error"].update_state(away, weight)

    # --- answers ------------------------------------------------------------------------------------------------------

    def pose(self, images, boxes=None):
        """Where the joints are: images [B, h, w, C] in [0, 1], of any size -> {"joints" [B, J, 2], "stages"}, pixels.

        Args:
            images: a batch; pictures of another size than the model's are letterboxed.
            boxes: [B, 4] of the persons, xyxy in pixels; None for the whole pictures.
        """
        checks.check_images(images, (*getattr(images, "shape", ())[1:3], self.image_shape[2]))
        images = tf.cast(images, "float32")
        boxes = tf.zeros((tf.shape(images)[0], 4)) if boxes is None else boxes
        pose_doors.check_boxes(boxes)
        stages = pose_doors.any_size(self, images, tf.cast(boxes, "float32"), self.image_shape[:2])
        return {"joints": stages[:, -1], "stages": stages}

    def signatures(self):
        return pose_doors.signatures(self, self.image_shape, self.limbs)

    def check_images(self, images):
        checks.check_images(images, self.image_shape)

    def check_targets(self, targets):
        pose_doors.check_truths(targets, self.num_joints)

    def get_config(self):
        names = "image_shape num_joints torso limbs num_stages input_size filters hidden_size dropout sigma"
        return {**super().get_config(), **{name: getattr(self, name) for name in (*names.split(), "least_visibility")}}
