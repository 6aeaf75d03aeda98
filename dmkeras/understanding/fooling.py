"""Fooling images: a picture changed by less than one sees, which a classifier takes for whatever it is told to.

Szegedy et al., "Intriguing properties of neural networks", ICLR 2014 (https://arxiv.org/abs/1312.6199), section 4.1,
ask for a small r with f(x + r) = t and x + r in [0, 1]^n. The search is the plain one of Stanford's course CS231n (its
exercise on network visualization): climb the target's logit until the class flips.

    g  = d S_t(x) / d x                                     S_t the logit of the target t                    (1)
    x <- clip(x + step g / ||g||_2, 0, 1)                   norm="l2", CS231n                                (2)
    x <- clip(x + step sign(g), 0, 1)                       norm="linf"                                      (3)
    until  S_t(x) > max_{k != t} S_k(x) + confidence,       or max_steps are done                            (4)

(3) is the step of Goodfellow, Shlens and Szegedy, "Explaining and Harnessing Adversarial Examples", ICLR 2015
(https://arxiv.org/abs/1412.6572), section 4, towards a class and repeated; with max_steps=1 it is taken once, as there.

Shapes:  B batch, H height, W width, C channels, K classes.

Deviations, each with its reason:
- Pictures stay in [0, 1], as the paper's do; CS231n's may leave it, and then are no pictures.
- The target leads by `confidence` at the end, 0.01 by default: where it leads by less than arithmetic's noise, the same
  picture in another batch or on another machine would be of the other class.
- Szegedy et al. search the least ||r|| by L-BFGS with a penalty, picture by picture. One climb is shorter, and every
  step is the same work for each picture of a batch; it ends farther away (training/fooling.py tells how far).
- `rounded` looks at the class of the picture in 8 bits, which is what is left of it in a file: many changes are smaller
  than half a level, and rounding undoes them.
"""

import keras
import numpy as np
import tensorflow as tf

from dmkeras.parts import ascent, checks, explained, explanation_doors

STEPS = {"l2": 0.2, "linf": 1 / 255}  # CS231n's step 1 is in units of pixels' deviation, 0.225; a level of 8 bits
COUNTS, CHANGES = ("target_classes", "steps", "fooled"), ("l2_change", "largest_change")  # [B], beside the pictures
RUNNER_UP = "the class that comes second"


@keras.saving.register_keras_serializable("dmkeras")
class FoolingImage(keras.Model):
    """Pictures that a classifier takes for other classes, beside those it was given.

    Call: images `[B, H, W, C]` float32 in [0, 1], target_classes `[B]` int32 or None  ->  a dict of what
    `serving_default` answers. A target of -1, or None, is the class that comes second.

    | signature | inputs | outputs |
    | --- | --- | --- |
    | serving_default | images [B, H, W, C] float32 in [0, 1], target_classes [B] int32 | images, target_classes, steps [B] int32, fooled [B] int32, l2_change [B] float32, largest_change [B] float32 |
    | fool_bytes | image_bytes [B] string, a picture file of any size, target_classes | picture_bytes [B] string, target_classes, steps, fooled, l2_change, largest_change |

    images and picture_bytes (PNG files of the classifier's size) are the changed pictures. fooled is 1 where the target
    leads by `confidence`, 0 where `max_steps` did not bring it there. steps are those taken: a picture whose target leads
    already takes none and stays as it is. l2_change is ||x' - x||_2 over all pixels and channels, largest_change the
    largest |x' - x| of one, both with pixels in [0, 1]. Files are stretched to the classifier's size and rounded to 8
    bits first, and the PNG files fool: `fool_bytes` works as `rounded` does.

    Endpoints cannot refuse as the call does: a class above K - 1 counts for K - 1, one below 0 for -1, and pixels
    outside [0, 1] are taken as they are.

    Args:
        classifier: a built `keras.Model` [B, H, W, C] -> [B, K] of at least two classes; logits, or ending in a
            softmax. One of a class of your own comes back from a file where that is registered
            (`keras.saving.register_keras_serializable`).
        step: of (2), the L2 length of a step, or of (3), what each pixel changes by, pixels in [0, 1]; None for 0.2 and
            1/255.
        max_steps: at most so many for each picture.
        norm: "l2" for (2), "linf" for (3).
        confidence: by which the target's logit leads the next one's.
        rounded: changed pictures have 8 bits a channel, and fool so.
        image_shape: (H, W, C) where the classifier takes pictures of several sizes.

    Raises:
        ValueError: for settings out of range, and what is no such classifier; a call raises it for pictures of another
            shape or outside [0, 1] and for targets that are no classes.
    """  # noqa: E501 - rows of the table

    def __init__(
        self,
        classifier,
        step=None,
        max_steps=100,
        norm="l2",
        confidence=0.01,
        rounded=False,
        image_shape=None,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self._allow_non_tensor_positional_args = True  # targets may be a list or a number, by place too
        self.classifier, self.rounded = classifier, bool(rounded)
        self.norm = checks.one_of("norm", norm, STEPS)
        self.step = None if step is None else checks.number("step", step, np.finfo("float32").tiny)
        self.max_steps = checks.whole_number("max_steps", max_steps, 1)
        self.confidence = checks.number("confidence", confidence)
        self.image_shape = explained.picture_shape(classifier, image_shape)
        self.num_classes = explained.num_classes(classifier, self.image_shape)
        if self.num_classes < 2:
            raise ValueError(
                f"expected a classifier of at least two classes, received one answer from {classifier.name}; make it "
                "two logits, 0 and the answer"
            )
        self._run = tf.function(self._found, autograph=False, reduce_retracing=True)
        specs = tf.TensorSpec((None, *self.image_shape)), tf.TensorSpec((None,), "int32")
        self._run.get_concrete_function(*specs, self.rounded)
        self(keras.Input(self.image_shape))

    def call(self, images, target_classes=None):
        return self._run(*self._checked(images, target_classes), self.rounded)

    def fool(self, images, target_classes=None, progress=None):
        """What the call answers, with a report after each picture.

        Args:
            images: [B, H, W, C] in [0, 1].
            target_classes: [B] int32, or one for all; -1 or None for the class that comes second.
            progress: function of (pictures done, of how many, what is answered of the last one), or None.

        Returns:
            {name: tensor}, see the table of the class.
        """
        images, classes = self._checked(images, target_classes)
        found = [self._run(images[:0], classes[:0], self.rounded)]
        for i in range(len(images)):
            found.append(self._run(images[i : i + 1], classes[i : i + 1], self.rounded))
            if progress is not None:
                progress(i + 1, len(images), found[-1])
        return {name: tf.concat([part[name] for part in found], 0) for name in found[0]}

    # --- inside a graph -----------------------------------------------------------------------------------------------

    def _found(self, images, classes, rounded):
        """Picture by picture: none waits for others, and no bit of an answer depends on them."""
        one = lambda row: self._found_of_one(row[0][None], row[1][None], rounded)
        row, precision = images.shape[1:], images.dtype
        specs = {"images": tf.TensorSpec(row, precision), **dict.fromkeys(COUNTS, tf.TensorSpec((), "int32"))}
        specs |= dict.fromkeys(CHANGES, tf.TensorSpec((), precision))
        return tf.map_fn(one, (images, classes), fn_output_signature=specs)

    def _found_of_one(self, images, classes, rounded):
        targets = self._targets(images, classes)
        state = ascent.beginning(images, self.max_steps, self.max_steps)
        found = self._answers(images, targets, self._climb(state, targets, rounded), rounded)
        return {name: values[0] for name, values in found.items()}

    def _targets(self, images, classes):
        """classes [B] -> [B]: -1 becomes the class that comes second, others are kept below K."""
        logits = explained.logits(self.classifier, images)
        first = tf.one_hot(tf.argmax(logits, -1), self.num_classes, on_value=True, off_value=False)
        second = tf.argmax(tf.where(first, logits.dtype.min, logits), -1, output_type="int32")
        return tf.where(classes < 0, second, tf.minimum(classes, self.num_classes - 1))

    def _climb(self, state, targets, rounded):
        """(1) to (4); a picture that fools is left alone."""

        def objective(changed, step):
            logits = explained.logits(self.classifier, self._shown(changed, step > 0, rounded))
            return tf.gather(logits, targets, batch_dims=1), self._fools(logits, targets)

        def update(changed, slope, step):
            length = STEPS[self.norm] if self.step is None else self.step
            # squares of small numbers would be zero, so by_norm has numbers around one
            along = tf.sign(slope) if self.norm == "linf" else ascent.by_norm(ascent.by_mean(slope))
            return tf.clip_by_value(changed + length * along, 0.0, 1.0)

        return ascent.climb(objective, update, state)

    def _fools(self, logits, targets):
        """Whether S_t leads all others by more than `confidence`, [B]."""
        own = tf.one_hot(targets, self.num_classes, on_value=True, off_value=False)
        lead = tf.gather(logits, targets, batch_dims=1) - tf.reduce_max(tf.where(own, logits.dtype.min, logits), 1)
        return lead > self.confidence

    def _shown(self, changed, moved, rounded):
        """The picture that is answered: in 8 bits where that is asked and it `moved`. Gradients pass as through it."""
        if not rounded:
            return changed
        return changed + tf.stop_gradient(tf.where(moved, tf.round(255.0 * changed) / 255.0 - changed, 0.0))

    def _answers(self, images, targets, state, rounded):
        changed = self._shown(state.values, (state.used > 0)[:, None, None, None], rounded)
        at_last = self._fools(explained.logits(self.classifier, changed), targets)  # the last step was not looked at
        change = changed - images
        return {
            "images": changed,
            "target_classes": targets,
            "steps": state.used,
            "fooled": tf.cast((state.used < self.max_steps) | at_last, "int32"),
            "l2_change": tf.sqrt(tf.reduce_sum(change**2, (1, 2, 3))),
            "largest_change": tf.reduce_max(tf.abs(change), (1, 2, 3)),
        }

    # --- doors --------------------------------------------------------------------------------------------------------

    def _checked(self, images, classes):
        return explanation_doors.checked(images, classes, self.image_shape, self.num_classes, absent=RUNNER_UP)

    def signatures(self):
        def of_images(images, target_classes):
            images = tf.ensure_shape(images, (None, *self.image_shape))
            return self._run(images, tf.ensure_shape(target_classes, (None,)), self.rounded)

        def of_files(image_bytes, target_classes):
            images = explanation_doors.decoded(image_bytes, self.image_shape)
            images = tf.round(255.0 * images) / 255.0
            found = dict(self._run(images, tf.ensure_shape(target_classes, (None,)), True))
            return {"picture_bytes": explanation_doors.encoded(found.pop("images")), **found}

        images = tf.TensorSpec((None, *self.image_shape), "float32", name="images")
        files = tf.TensorSpec((None,), "string", name="image_bytes")
        classes = tf.TensorSpec((None,), "int32", name="target_classes")
        found = {"serving_default": (of_images, [images, classes]), "fool_bytes": (of_files, [files, classes])}
        return found if self.image_shape[2] in (1, 3) else {"serving_default": found["serving_default"]}

    def get_config(self):
        names = ("step", "max_steps", "norm", "confidence", "rounded", "image_shape")
        own = {name: getattr(self, name) for name in names}
        return {**super().get_config(), **own, "classifier": keras.saving.serialize_keras_object(self.classifier)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "classifier": explanation_doors.restored(config["classifier"])})
