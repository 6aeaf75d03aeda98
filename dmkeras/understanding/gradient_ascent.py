"""Gradient ascent: the picture that a class of a classifier, or a unit of it, likes best.

Simonyan, Vedaldi and Zisserman, "Deep Inside Convolutional Networks: Visualising Image Classification Models and
Saliency Maps", 2013 (https://arxiv.org/abs/1312.6034), section 2, begins at the mean picture and climbs

    S_c(I) - lambda |I|^2                            I the picture less the mean, S_c the class's logit              (1)

Yosinski et al., "Understanding Neural Networks Through Deep Visualization", 2015 (https://arxiv.org/abs/1506.06579),
section 4, climbs S_c alone and regularises after each step, I <- r(I + rate dS_c/dI): decay, blur, and the pixels of
small norm or small contribution set to the mean (parts/picture_priors.py). The jitter of DeepDream with a penalty on
the total variation is the third prior for pixels.

Nguyen et al., "Synthesizing the preferred inputs for neurons in neural networks via deep generator networks", 2016
(https://arxiv.org/abs/1605.09304), climb in the codes of a generator G of Dosovitskiy and Brox
(https://arxiv.org/abs/1602.02644; parts/feature_generator.py):

    code <- min(max(.99 (code + rate g / mean |g|), low), high)      g = dS_c(G(code)) / dcode                       (2)

where the rate falls from 8 to 1e-10 along a line over 200 steps, high is 3 standard deviations of each unit over
pictures, low is 0 where units are rectified. Any generator or decoder serves as G.

Objective, parameters, what is done to a picture before it is seen and after a step, and the loop, are functions of
parts/ that this file puts together; a `prior` is a dict of their settings.

Shapes:  B batch, H height, W width, C channels, K classes, S steps, Z code size.

Deviations from the papers, each with its reason:
- Steps in pixels go along g / mean |g|: the rates of the papers are those of one network and of pixels up to 255.
- Pictures stay in [0, 1], as they must to be pictures; the papers clip when they show them.
- They begin at the mean with a little noise of a seed, so that several seeds give several pictures.
"""

import functools

import keras
import numpy as np
import tensorflow as tf

from dmkeras.parts import ascent, checks, code_spaces, explained, explanation_doors, objectives, picture_priors, seeds

PIXELS = {"rate": 0.03, "last_rate": 0.003, "rule": "mean"}
PRIORS = {
    "l2": {**PIXELS, "l2": 0.1},
    "yosinski": {**PIXELS, "last_rate": 0.03, "decay": 1e-4, "blur": 1.0, "blur_every": 4, "small_norm": 30.0},
    "jitter_tv": {**PIXELS, "jitter": 8, "total_variation": 0.3},
    "code": {"rate": 8.0, "last_rate": 1e-10, "rule": "mean", "decay": 0.01},
}
NEUTRAL = {"l2": 0.0, "total_variation": 0.0, "jitter": 0, "decay": 0.0, "blur": 0.0, "blur_every": 1}
NEUTRAL |= {"small_norm": 0.0, "small_contribution": 0.0}
OF_PIXELS = ("l2", "total_variation", "blur", "small_norm", "small_contribution")  # none of these is for codes
RULES = {"mean": ascent.by_mean, "norm": ascent.by_norm, "plain": lambda g: g}
NOISE = 0.02  # at most, of the pixels that the ascent begins with
OTHER_STREAM = 1 << 30


@keras.saving.register_keras_serializable("dmkeras")
class GradientAscent(keras.Model):
    """Pictures that a classifier finds most like a class.

    Call: classes `[B]` int32, seed `[B, 2]` int32 or None  ->  pictures `[B, H, W, C]` float32 in [0, 1].

    | signature | inputs | outputs |
    | --- | --- | --- |
    | serving_default | classes [B] int32, seed [B, 2] int32, one row per answer | images [B, H, W, C] float32 in [0, 1], objective [B], logits [B, K], trace [B, S] float32 |
    | ascend_bytes | classes, seed | image_bytes [B] string, PNG, objective, logits, trace |

    objective is what the classifier makes of the picture, a logit or an activation, without penalties; trace is what
    was climbed, penalties and jitter included, before each step. With a `layer`, classes are channels of it, and -1 is
    `channel`. Pictures of other than 1 or 3 channels have no `ascend_bytes`.

    Endpoints cannot refuse as the call does: a class above K - 1 counts for K - 1, one below 0 for `channel`, or for 0
    where there is none.

    Args:
        classifier: any built `keras.Model` [B, H, W, C] -> [B, K]; the logits are sought behind a closing softmax.
            One of a class of your own comes back from a file where that is registered
            (`keras.saving.register_keras_serializable`).
        layer: name of a layer, [B, F] or [B, h, w, F], whose channels are excited; None for the classes.
        channel: of the layer, what classes of -1 stand for.
        position: of a layer's channel: "mean" or "max" over positions, "centre", or (row, column).
        prior: "l2", "yosinski", "jitter_tv", None, or settings of your own, a dict of any of
            rate, last_rate     of the first and the last step, along a line
            rule                "mean" steps along g / mean |g|, "norm" along g / |g|, "plain" along g
            l2, total_variation          strengths of penalties
            jitter                       pixels, at most
            decay                        share of the picture, less its mean, or of the code that is lost in a step
            blur, blur_every             radius in pixels, steps
            small_norm, small_contribution    percentiles, 0 to 100
            In a code space the default is "code", equation 2, and settings may be rate, last_rate, rule, jitter, decay.
        steps: S.
        rate: in place of the prior's; its last rate keeps its proportion.
        latent: the code space: a GAN, DCGAN, InfoGAN, VAE or Autoencoder of this package, or a `keras.Model` of codes
            [B, ...] -> pictures [B, H, W, C] in [0, 1]; None for pixels.
        code_bounds: (low, high) of codes, each a number, one for each unit, or None for no bound; None for those of the
            code space: -1 and 1 of uniform latents, -3 and 3 of normal ones.
        mean: the mean picture: a number, one for each channel, or [H, W, C]; in [0, 1].
        image_shape: (H, W, C), where the classifier takes pictures of several sizes.

    Raises:
        ValueError: for what is no such classifier, layer, prior or code space; a call and `ascend` for classes that
            there are not.
    """  # noqa: E501 - rows of the table

    def __init__(
        self,
        classifier,
        layer=None,
        channel=None,
        position="mean",
        prior="default",
        steps=200,
        rate=None,
        latent=None,
        code_bounds=None,
        mean=0.5,
        image_shape=None,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self._allow_non_tensor_positional_args = True  # classes may be a list or a number, by place too
        self.classifier, self.layer, self.latent = classifier, layer, latent
        self.image_shape = explained.picture_shape(classifier, image_shape)
        self.num_classes = explained.num_classes(classifier, self.image_shape)
        self.precision = explanation_doors.precision_of(classifier)
        self.steps, self.prior, self.rate = checks.whole_number("steps", steps, 1), prior, rate
        self.settings = _settings(prior, rate, latent is not None)
        self.mean = np.asarray(mean, "float32").tolist()
        self._mean = _mean(mean, self.image_shape)
        self.position = self._check_layer(position)
        self.channel = channel if channel is None else self._check_channel(channel)
        self.space = code_spaces.space(latent, self.image_shape, code_bounds) if latent is not None else None
        self.code_bounds = self.space.given if self.space else code_spaces.no_bounds(code_bounds)
        self._run = tf.function(self._climb, autograph=False)
        self._made = tf.function(self._ascend, autograph=False)
        self._shown = tf.function(self._picture, autograph=False)
        self._last = tf.function(self._told, autograph=False)
        specs = [tf.TensorSpec((None,), "int32"), tf.TensorSpec((None, 2), "int32")]
        self._made.get_concrete_function(*specs)  # what cannot be climbed raises here, in its own words
        self(keras.Input((), dtype="int32"))

    def _check_layer(self, position):
        """`position`, and sets num_targets: K, or F of the layer."""
        self.num_targets, self.position = self.num_classes, position
        if self.layer is not None:
            explained.check_layer(self.classifier, self.image_shape, self.layer)
            find = lambda images: explained.activations(self.classifier, images, [self.layer])[self.layer]
            spec = tf.TensorSpec((None, *self.image_shape), self.precision)
            shape = tf.function(find, autograph=False).get_concrete_function(spec).structured_outputs.shape
            self.num_targets = objectives.check_unit(self.layer, shape, position)
        return position if isinstance(position, str) else tuple(position)

    def _check_channel(self, channel):
        if self.layer is None or not 0 <= checks.whole_number("channel", channel) < self.num_targets:
            told = f"{self.layer!r} has {self.num_targets}" if self.layer else "it is of a layer; name one"
            raise ValueError(f"expected channel as one of the layer's, received {channel}: {told}")
        return int(channel)

    def call(self, classes, seed=None):
        classes = self._checked(classes)
        return self._made(classes, explanation_doors.seed_rows(seed, classes))["images"]

    def _checked(self, classes):
        """Classes [B] that there are; ValueError for others."""
        absent = None if self.channel is None else f"channel {self.channel}"
        classes = classes if checks.is_symbolic(classes) else np.atleast_1d(np.asarray(classes))
        return explanation_doors.check_classes(classes, self.num_targets, absent=absent)

    def _targets(self, classes):
        """classes [B] -> those from 0 on; objectives count what is beyond the last for the last."""
        return tf.where(classes < 0, self.channel or 0, classes)

    # --- the ascent ---------------------------------------------------------------------------------------------------

    def _objective(self, classes):
        """A function of pictures [B, H, W, C] -> [B]."""
        if self.layer is None:
            return objectives.class_logit(self.classifier, classes)
        return objectives.unit(self.classifier, self.layer, classes, self.position)

    def _picture(self, values):
        """What is climbed in, pixels less their mean or codes, as pictures."""
        return self.space.decode(values) if self.space else self._mean + values

    def _beginning(self, seed, steps):
        shape = self.space.shape if self.space else self.image_shape
        other = tf.bitwise.bitwise_xor(seed, OTHER_STREAM)  # the numbers of `seed` are the jitter's
        numbers = tf.cast(seeds.whole_numbers(other, shape, 2**24), self.precision) / 2**23 - 1
        values = self.space.bounded(self.space.scale * numbers) if self.space else NOISE * numbers
        return ascent.beginning(values, steps, self.steps)

    def _climb(self, state, classes, seed, until):
        """parts/ascent.py with the prior."""
        own, liked = self.settings, self._objective(classes)
        offsets = picture_priors.offsets(seed, self.steps, own["jitter"]) if own["jitter"] else None

        def objective(values, step):
            images = self._picture(values)
            score = liked(picture_priors.jittered(images, offsets[step]) if own["jitter"] else images)
            for name in ("l2", "total_variation"):
                penalty = picture_priors.squared_norm if name == "l2" else picture_priors.total_variation
                score -= own[name] * penalty(values) if own[name] else 0.0
            return score

        return ascent.climb(objective, self._update, state, until)

    def _update(self, values, gradient, step):
        own = self.settings
        rate = ascent.line(own["rate"], own["last_rate"], self.steps, step)
        values += tf.cast(rate, values.dtype) * RULES[own["rule"]](gradient)
        values = picture_priors.decayed(values, own["decay"])
        if self.space:
            return self.space.bounded(values)
        blur = functools.partial(picture_priors.blurred, radius=own["blur"])
        values = picture_priors.every(values, step, own["blur_every"], blur) if own["blur"] else values
        values = picture_priors.without_small_norms(values, own["small_norm"])
        values = picture_priors.without_small_contributions(values, gradient, own["small_contribution"])
        return tf.clip_by_value(self._mean + values, 0.0, 1.0) - self._mean

    def _ascend(self, classes, seed):
        classes = self._targets(classes)
        state = self._climb(self._beginning(seed, self.steps), classes, seed, self.steps)
        return self._told(state, classes)

    def _told(self, state, classes):
        """What an endpoint answers of the last state."""
        images = tf.clip_by_value(self._picture(state.values), 0.0, 1.0)
        told = {
            "images": images,
            "objective": self._objective(classes)(images),
            "logits": explained.logits(self.classifier, images),
            "trace": state.trace,
        }
        return {name: tf.cast(values, "float32") for name, values in told.items()}

    def ascend(self, classes, seed=None, steps=None, progress=None, every=10):
        """Pictures, with what is reached on the way.

        Args:
            classes: [B] whole numbers, or one; with a layer, its channels, or -1 for `channel`.
            seed: whole number; None takes a fresh one.
            steps: fewer than the model's, [B] or one number.
            progress: function of (the steps done, the pictures so far [B, H, W, C], trace [B, S]), called every so many
                steps; the answer is the same with or without it.
            every: steps.

        Returns:
            {"images" [B, H, W, C], "objective" [B], "logits" [B, K], "trace" [B, S], "codes" [B, ...] in a code space}.
        """
        wanted = self._targets(self._checked(classes))
        rows, every = seeds.row_seeds(len(wanted), seed), checks.whole_number("every", every, 1)
        steps = np.asarray(self.steps if steps is None else steps)
        if steps.dtype.kind not in "iu" or (steps < 0).any() or (steps > self.steps).any():
            raise ValueError(f"expected steps from 0 to {self.steps}, the model's, received {steps.tolist()}")
        run = lambda state, until: self._run(state, wanted, rows, until)
        tell = lambda state: progress(int(state.step), self._shown(state.values), state.trace)
        state = self._beginning(rows, tf.constant(steps, "int32"))
        state = ascent.in_chunks(run, state, every if progress else self.steps, tell if progress else None)
        told = self._last(state, wanted)
        return {**told, "codes": state.values} if self.space else told

    # --- doors --------------------------------------------------------------------------------------------------------

    def signatures(self):
        def ascend(classes, seed):
            return self._made(tf.ensure_shape(classes, (None,)), tf.ensure_shape(seed, (None, 2)))

        def ascend_bytes(classes, seed):
            told = dict(ascend(classes, seed))
            return {"image_bytes": explanation_doors.encoded(told.pop("images")), **told}

        specs = [tf.TensorSpec((None,), "int32", name="classes"), tf.TensorSpec((None, 2), "int32", name="seed")]
        files = {"ascend_bytes": (ascend_bytes, specs)} if self.image_shape[2] in (1, 3) else {}
        return {"serving_default": (ascend, specs), **files}

    def get_config(self):
        names = "layer channel position prior steps rate code_bounds mean image_shape"
        own = {name: getattr(self, name) for name in names.split()}
        nested = {name: keras.saving.serialize_keras_object(getattr(self, name)) for name in ("classifier", "latent")}
        return {**super().get_config(), **own, **nested}

    @classmethod
    def from_config(cls, config):
        nested = {name: explanation_doors.restored(config[name]) for name in ("classifier", "latent")}
        return cls(**{**config, **nested})


def _settings(prior, rate, in_codes):
    """A prior's name or settings -> all settings; ValueError for others than there are, or out of range."""
    prior = ("code" if in_codes else "jitter_tv") if prior == "default" else prior
    if isinstance(prior, str):
        checks.one_of("prior", prior, tuple(PRIORS))
    given = PRIORS[prior] if isinstance(prior, str) else dict(prior or {})
    settings = {**NEUTRAL, **(PRIORS["code"] | {"decay": 0.0} if in_codes else PIXELS), **given}
    unknown = sorted(set(given) - {*NEUTRAL, *PIXELS})
    if unknown:
        raise ValueError(f"a prior has no {', '.join(unknown)}; it has {', '.join([*PIXELS, *NEUTRAL])}")
    for_pixels = [name for name in OF_PIXELS if settings[name]]
    if in_codes and for_pixels:
        raise ValueError(f"{', '.join(for_pixels)} are for pixels, not for codes; leave prior out, or give a dict")
    if "rate" in given and "last_rate" not in given:
        settings["last_rate"] = settings["rate"]
    for name, value in settings.items():
        below = {"decay": 1.0, "small_norm": 100.0, "small_contribution": 100.0}.get(name, np.inf)
        if name != "rule":
            settings[name] = checks.number(name, value, 0.0, below)
    checks.one_of("rule", settings["rule"], tuple(RULES))
    settings["jitter"] = checks.whole_number("jitter", given.get("jitter", 0), 0)
    settings["blur_every"] = checks.whole_number("blur_every", given.get("blur_every", 1), 1)
    if rate is not None:
        share = checks.number("rate", rate) / settings["rate"] if settings["rate"] else 0.0
        settings |= {"rate": float(rate), "last_rate": share * settings["last_rate"]}
    return settings


def _mean(mean, image_shape):
    """The mean picture, float32 [H, W, C]."""
    try:
        found = np.broadcast_to(np.asarray(mean, "float32"), image_shape)
    except (TypeError, ValueError):
        raise ValueError(f"expected mean as a number, [C] or {list(image_shape)}, received {mean!r:.60}") from None
    checks.check_images(found[None], image_shape)
    return found
