"""Saliency: which pixels a classifier's answer, or any unit inside of it, depends on, by gradients.

Simonyan, Vedaldi and Zisserman, "Deep Inside Convolutional Networks: Visualising Image Classification Models and
Saliency Maps", 2013 (https://arxiv.org/abs/1312.6034), section 3; and those who went on from there:

    w = d S_c / d X at the picture, S_c the logit of class c, not its probability                              (3), (4)
    M[i, j] = max_k |w[i, j, k]|                                                         reduce="max_abs", section 3.1

    vanilla           w
    deconvnet, guided w under other rules of the rectifiers (dmkeras/parts/rectifiers.py): Zeiler and Fergus
                      (https://arxiv.org/abs/1311.2901), Springenberg et al. (https://arxiv.org/abs/1412.6806)
    smoothgrad        mean over n of w(X + e), e of Normal(0, s^2), s = noise (max X - min X)
                      Smilkov et al. (https://arxiv.org/abs/1706.03825), n = 50, noise = .15 here
    input_x_gradient  X w(X), Shrikumar et al. (https://arxiv.org/abs/1605.01713)
    integrated        (X - X') mean over k of w(X' + a_k (X - X')), a_k = (k - 1/2) / m, k = 1 .. m
                      Sundararajan et al. (https://arxiv.org/abs/1703.01365), (1), X' the baseline, black by default

Completeness: the integrated gradients of a picture sum to S_c(X) - S_c(X'), as exactly as the quadrature is.

What is explained need not be a class: S can be a unit of any layer, its channel and its place. Class, channel and place
are chosen once, on the picture itself, and stay for all of its noisy or faded copies.

Averages run in the graph, `chunk` copies of one picture at a time: a picture's map is the same in whatever batch.

Shapes:  B batch, H height, W width, C colours, K classes, or channels of a layer, P places of a layer, N = P K.

Deviations, each with its reason:
- Midpoints a_k where (3) of Sundararajan et al. has k / m: the error falls with 1/m^2 in place of 1/m at the same cost.
- The noise of a picture follows from its seed, row [2] of `seed`, and so does not change from call to call.
"""

import functools
import math

import keras
import numpy as np
import tensorflow as tf

from dmkeras.parts import checks, chosen_gradient, explained, seeds
from dmkeras.parts import explanation_doors as doors
from dmkeras.parts.rectifiers import RULES, gradient

METHODS = (*RULES, "smoothgrad", "input_x_gradient", "integrated")
AVERAGES = {"smoothgrad": "samples", "integrated": "steps"}  # whose number of gradients is
REDUCTIONS = ("max_abs", "sum", None)
SHOWN = 0.99  # share of the pixels below the brightest colour of a drawn map, since outliers would darken the others


@keras.saving.register_keras_serializable("dmkeras")
class Saliency(keras.Model):
    """How much each pixel of a picture changes a class's logit, or a unit of a layer.

    Call: images `[B, H, W, C]` float32 in [0, 1], classes `[B]` or None, seed `[B, 2]` or None  ->  maps `[B, H, W]`
    float32, or `[B, H, W, C]` with `reduce=None`.

    | signature | inputs | outputs |
    | --- | --- | --- |
    | serving_default | images [B, H, W, C] float32 in [0, 1], classes [B] int32; of smoothgrad alone seed [B, 2] int32 | saliency [B, H, W] float32, explained [B] int32 |
    | saliency | images, classes; of smoothgrad alone seed | saliency, explained |
    | saliency_bytes | image_bytes [B] string, picture files of any size, classes; of smoothgrad alone seed | saliency_bytes [B] string, explained |

    Class -1, and None for all, stands for the class of the highest logit; explained is the class that was taken. With
    `layer` classes are its channels, and -1 is `channel`, or where that is None the strongest one. `classes=` takes one
    number for all, too. seed is an input of smoothgrad alone; None is the same noise for every picture. saliency_bytes,
    for pictures of 1 or 3 colours, are PNG files: the map in colours over the picture sent; with `reduce=None` the
    gradient itself around grey, in the classifier's size.

    Endpoints cannot refuse as the call does: a class above K - 1 counts for K - 1, one below 0 for -1, and pixels
    outside [0, 1] are taken as they are.

    Args:
        classifier: any built `keras.Model` [B, H, W, C] -> [B, K], see dmkeras/parts/explained.py. One of a class of
            your own comes back from a file where that is registered (`keras.saving.register_keras_serializable`).
        method: "vanilla", "deconvnet", "guided", "smoothgrad", "input_x_gradient" or "integrated".
        reduce: "max_abs" of the colours, their "sum", which keeps the sign, or None for the gradient of each.
        layer: name of a layer whose unit is explained; None for the logits.
        channel: of the layer, where classes do not tell it; None for the strongest of each picture.
        position: of the unit in the layer: "max", where its channel is strongest in this picture; "sum", all places
            together; or a pair (row, column).
        rule: of the rectifiers, such as "guided"; None for the method's own. It lets `smoothgrad`, `input_x_gradient` and
            `integrated` average guided gradients, which is not complete any more.
        samples: n, noisy copies of smoothgrad.
        noise: standard deviation as a share of the picture's range.
        steps: m, points between baseline and picture.
        baseline: X', a grey level, or what is broadcast to [H, W, C], such as a picture.
        chunk: gradients in memory at once, where they are averaged.
        image_shape: (H, W, C), where the classifier takes pictures of several sizes.

    Raises:
        ValueError: for a classifier that cannot be looked into, rectifiers that a rule does not reach, a layer, channel
            or position that is not there, or numbers that cannot be; a call raises it for pictures of another shape or
            outside [0, 1], and for classes or seeds that do not fit.
    """  # noqa: E501 - rows of the table

    def __init__(
        self,
        classifier,
        method="vanilla",
        reduce="max_abs",
        layer=None,
        channel=None,
        position="max",
        rule=None,
        samples=50,
        noise=0.15,
        steps=50,
        baseline=0.0,
        chunk=25,
        image_shape=None,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self._allow_non_tensor_positional_args = True  # classes may be a list or a number, by place too
        self.classifier, self.image_shape = classifier, explained.picture_shape(classifier, image_shape)
        self.num_classes = explained.num_classes(classifier, self.image_shape)
        self.method, self.reduce = checks.one_of("method", method, METHODS), checks.one_of("reduce", reduce, REDUCTIONS)
        self.rule, self._rule = rule, _rule_of(method, rule)
        self.samples, self.steps = checks.whole_number("samples", samples, 1), checks.whole_number("steps", steps, 1)
        self.noise, self.chunk = checks.number("noise", noise), checks.whole_number("chunk", chunk, 1)
        self.baseline = _check_baseline(baseline, self.image_shape)
        self._precision = doors.precision_of(classifier)
        self.layer, self.channel, self.position = layer, channel, position
        self._num_channels = self._check_unit()
        self._specs = [
            tf.TensorSpec((None, *self.image_shape), self._precision, name="images"),
            tf.TensorSpec((None,), "int32", name="classes"),
            tf.TensorSpec((None, 2), "int32", name="seed"),
        ]
        self._run = tf.function(self._map, input_signature=self._specs, autograph=False)
        self._run.get_concrete_function()  # its errors are Keras's inside of the call below
        self(keras.Input(self.image_shape))

    # --- in the graph -------------------------------------------------------------------------------------------------

    def call(self, images, classes=None, seed=None):
        images, classes = doors.checked(images, classes, self.image_shape, self._num_channels)
        return self._run(tf.cast(images, self._precision), classes, doors.seed_rows(seed, images))[0]

    def _map(self, images, classes, seed):
        """The maps, and the class or channel [B] that each explains."""
        if self.method in AVERAGES:
            unit = self._unit(self._answers(images), classes)
            found = self._averaged(images, unit, seed)
        else:
            unit, found = self._gradient(images, lambda answers: self._unit(answers, classes))
        if self.method in ("input_x_gradient", "integrated"):
            found *= images - np.asarray(self.baseline if self.method == "integrated" else 0.0, self._precision)
        if self.reduce:
            found = _largest(found) if self.reduce == "max_abs" else tf.reduce_sum(found, -1)
        return found, unit % self._num_channels

    def _answers(self, images):
        """[B, N]: the logits, or what the layer makes of images, place by place as `position` says."""
        if self.layer is None:
            return explained.logits(self.classifier, images)
        values = explained.precise(explained.activations(self.classifier, images, [self.layer])[self.layer])
        if self.position == "sum":
            return tf.reduce_sum(tf.reshape(values, (tf.shape(images)[0], -1, self._num_channels)), 1)
        if self.position != "max":
            values = values[:, *self.position]
        return tf.reshape(values, (tf.shape(images)[0], -1))

    def _unit(self, answers, classes):
        """Which of N answers [B, N] is explained, [B]: that of the class, where its channel is strongest."""
        by_place = tf.reshape(answers, (tf.shape(answers)[0], -1, self._num_channels))  # [B, P, K]
        if self.channel is not None:
            classes = tf.where(classes < 0, self.channel, classes)
        channel = doors.chosen(classes, tf.reduce_max(by_place, 1))
        place = tf.argmax(tf.gather(by_place, channel, axis=2, batch_dims=1), 1, output_type="int32")
        return place * self._num_channels + channel

    def _gradient(self, images, unit_of):
        """The units that `unit_of` chooses of the answers, and their gradient by the images."""
        units = []

        def score(pictures):
            answers = self._answers(pictures)
            units.append(unit_of(answers))
            return chosen_gradient.choose(answers, units[0])

        _, found = gradient(score, images, self._rule)
        return units[0], found

    def _averaged(self, images, unit, seed):
        """Mean gradients of each picture's copies; one loop, since TensorFlow fuses nothing in a loop within one."""
        count = getattr(self, AVERAGES[self.method])
        rounds = math.ceil(count / self.chunk)
        size = math.ceil(count / rounds)
        copies = self._noisy if self.method == "smoothgrad" else self._faded

        def add(turn, total, means):
            row, part = turn // rounds, turn % rounds
            numbers = part * size + tf.range(size)
            unit_of = lambda answers: tf.fill([size], unit[row])
            _, found = self._gradient(copies(images[row], seed[row], numbers), unit_of)
            total = tf.where(part > 0, total, 0) + tf.tensordot(tf.cast(numbers < count, found.dtype), found, 1)
            return turn + 1, total, means.write(row, total / count)

        batch = tf.shape(images)[0]
        means = tf.TensorArray(images.dtype, batch, element_shape=self.image_shape)
        start = tf.constant(0), tf.zeros(self.image_shape, images.dtype), means
        return tf.while_loop(lambda turn, *_: turn < rounds * batch, add, start, parallel_iterations=1)[2].stack()

    def _noisy(self, image, seed, numbers):
        deviation = self.noise * (tf.reduce_max(image) - tf.reduce_min(image))
        draw = lambda number: seeds.normals(tf.random.experimental.stateless_fold_in(seed, number), self.image_shape)
        drawn = tf.map_fn(draw, numbers, fn_output_signature=tf.TensorSpec(self.image_shape))
        return image + deviation * tf.cast(drawn, image.dtype)

    def _faded(self, image, seed, numbers):
        baseline = np.asarray(self.baseline, self._precision)
        shares = (tf.cast(numbers, image.dtype) + 0.5) / self.steps
        return baseline + shares[:, None, None, None] * (image - baseline)

    # --- doors --------------------------------------------------------------------------------------------------------

    def explain(self, images, classes=None, seed=None, batch_size=20, progress=None):
        """What the call answers for any number of pictures, as an array, with a report after each batch.

        Args:
            images: [N, H, W, C] in [0, 1].
            classes: [N], one number for all, or None.
            seed: [N, 2], an integer, or None.
            batch_size: pictures at once.
            progress: function of the number of pictures done, or None.
        """
        self.check_images(images)
        count, size = len(images), checks.whole_number("batch_size", batch_size, 1)
        classes = doors.check_classes(classes, self._num_channels, count)
        rows = doors.seed_rows(seed, classes)
        found = [np.zeros((0, *self.image_shape[: 2 if self.reduce else 3]), self._precision)]
        for first in range(0, count, size):
            part = slice(first, first + size)
            found.append(self(images[part], classes[part], rows[part]).numpy())
            (progress or (lambda done: None))(min(first + size, count))
        return np.concatenate(found)

    def signatures(self):
        images = tf.TensorSpec(self._specs[0].shape, "float32", name="images")
        others = self._specs[1 : 2 + (self.method == "smoothgrad")]

        def answered(images, classes, seed=None):
            classes = tf.ensure_shape(classes, (None,))
            seed = tf.ensure_shape(doors.seed_rows(seed, classes), (None, 2))
            maps, unit = self._run(tf.cast(images, self._precision), classes, seed)
            return tf.cast(maps, "float32"), unit

        def of_images(images, *others):
            maps, unit = answered(tf.ensure_shape(images, self._specs[0].shape), *others)
            return {"saliency": maps, "explained": unit}

        def of_files(image_bytes, *others):
            maps, unit = answered(doors.decoded(image_bytes, self.image_shape), *others)
            return {"saliency_bytes": self._drawn(image_bytes, maps), "explained": unit}

        own = of_images, [images, *others]
        files = of_files, [tf.TensorSpec((None,), "string", name="image_bytes"), *others]
        found = {"serving_default": own, "saliency": own}
        return {**found, "saliency_bytes": files} if self.image_shape[2] in (1, 3) else found

    def _drawn(self, image_bytes, maps):
        pixels = math.prod(self.image_shape[: 2 if self.reduce else 3])
        sizes = tf.sort(tf.reshape(tf.abs(maps), (-1, pixels)), axis=1)
        most = tf.reshape(sizes[:, int(SHOWN * (pixels - 1))], (-1, *[1] * (maps.shape.rank - 1)))
        maps = tf.clip_by_value(maps, -most, most)
        if self.reduce is None:
            return doors.encoded(0.5 + 0.5 * tf.math.divide_no_nan(maps, most))
        return doors.overlays(image_bytes, maps, signed=self.reduce == "sum")

    def check_images(self, images):
        checks.check_images(images, self.image_shape)

    def _check_unit(self):
        """K, of the classes or of the layer's channels; ValueError where there is no such unit."""
        layer, channel, position = self.layer, self.channel, self.position
        if layer is None and (channel is not None or position != "max"):
            raise ValueError(f"channel and position belong to a layer, received {channel} and {position!r}")
        if layer is None:
            return self.num_classes
        explained.check_layer(self.classifier, self.image_shape, layer)
        look = lambda images: explained.activations(self.classifier, images, [layer])[layer]
        spec = tf.TensorSpec((None, *self.image_shape), self._precision)
        shape = tf.function(look, input_signature=[spec], autograph=False).get_concrete_function().outputs[0].shape
        if shape.rank is None or shape.rank < 2 or shape[-1] is None:
            raise ValueError(f"expected a layer with channels [B, ..., K], received {layer!r} [{shape}]")
        self.channel = channel if channel is None else checks.whole_number("channel", channel, 0)
        if channel is not None and self.channel >= shape[-1]:
            raise ValueError(f"channel must be one of the {shape[-1]} of {layer!r}, received {channel}")
        if not isinstance(position, str) or position not in ("max", "sum"):
            self.position = _check_place(position, shape[1:-1])
        return shape[-1]

    def get_config(self):
        names = "method reduce layer channel position rule samples noise steps baseline chunk image_shape"
        own = {name: getattr(self, name) for name in names.split()}
        return {**super().get_config(), **own, "classifier": keras.saving.serialize_keras_object(self.classifier)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "classifier": doors.restored(config["classifier"])})


def _largest(found):
    """max |g_c| over colours c, [B, H, W, C] -> [B, H, W]; twice as quick as `tf.reduce_max` over so few."""
    return functools.reduce(tf.maximum, tf.unstack(tf.abs(found), axis=-1))


def _rule_of(method, rule):
    """The rule of the rectifiers under a method; ValueError where it is none, or the method is a rule itself."""
    if rule is None:
        return method if method in RULES else "vanilla"
    if method in RULES:
        raise ValueError(f"method {method!r} is a rule itself, received rule {rule!r} beside it; leave one out")
    return checks.one_of("rule", rule, RULES)


def _check_place(position, sides):
    """`position` as a tuple of ints; ValueError unless it is a place within `sides`."""
    place, sides = np.asarray(position), tuple(sides)
    fits = place.dtype.kind in "iu" and place.shape == (len(sides),)
    if not fits or None in sides or not all(0 <= at < side for at, side in zip(place, sides)):
        raise ValueError(f"position must be 'max', 'sum' or a place in {list(sides)}, received {position!r}")
    return tuple(map(int, place))


def _check_baseline(baseline, image_shape):
    """A number, or lists of numbers that are broadcast to `image_shape`; else ValueError."""
    try:
        found = np.asarray(baseline, "float64")
        fits = np.broadcast_shapes(found.shape, image_shape) == tuple(image_shape)
    except (TypeError, ValueError):
        fits = False
    if not fits or not np.isfinite(found).all():
        raise ValueError(
            f"expected a baseline that is a finite number or a picture {list(image_shape)}, received {baseline!r:.60}"
        )
    return found.tolist()
