"""Occlusion: what a classifier looks at, by covering part after part of the picture.

Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014 (https://arxiv.org/abs/1311.2901),
section 4.2 and figure 6.

    x_p        the picture x with the fill in window p, h by w pixels, and nothing else changed
    drop[p]    f(x) - f(x_p), f the class's logit, or its probability                                        (1)
    map[i, j]  the mean of drop[p] over the windows p that cover pixel (i, j)                                (2)
    windows    rows 0, s, 2 s, .. as long as a window fits, and one more that ends at the border where these do not
               reach it; columns alike: R S windows, all of them whole, and every pixel is covered           (3)

The paper's figure 6 shows what belongs to a window's place, not to a pixel: the class's probability (d) and the most
probable class (e) as functions of where the square lies. `positions` answers both, and (1).

All windows of all pictures, and each picture itself, are one list, whose pictures are made and asked `chunk` at a time
in one loop of the graph. In memory at once are chunk H W C pixels and what the classifier makes of them; what is kept
of all are B (R S + 1) K logits.

Shapes:  B batch, H height, W width, C channels, K classes, h and w of a window, R rows and S columns of windows.

Deviations, each with its reason:
- Pixels have the mean of their windows, (2), as in captum's Occlusion: a map of the picture's size. The paper draws
  the coarse map of the square's places alone, which shows where the square lay, not what it covered.
- The last window is moved in. captum cuts it off at the border, where a drop is small since little was covered; where
  windows fit, both are the same (tests/test_occlusion.py).
- The logit by default, where the paper's figure has the probability: that stays near 1, however much evidence a square
  takes away, while the class is far ahead. `of="probability"` is the paper's.
"""

import keras
import numpy as np
import tensorflow as tf

from dmkeras.parts import checks, explained, explanation_doors
from dmkeras.parts.windows import check_pair

FILLS = ("mean", "blur")
PIXELS = 2**20  # in memory at once, where nobody says how many pictures


@keras.saving.register_keras_serializable("dmkeras")
class Occlusion(keras.Model):
    """How much a class's score drops where a picture is covered.

    Call: images `[B, H, W, C]` float32 in [0, 1], classes `[B]` int32 or None  ->  the map (2) `[B, H, W]` float32. A
    class of -1, or None, is the one that the classifier sees.

    | signature | inputs | outputs |
    | --- | --- | --- |
    | serving_default | images [B, H, W, C] float32 in [0, 1], classes [B] int32 | occlusion [B, H, W] float32 |
    | positions | images, classes | drop [B, R, S] float32, probability [B, R, S] float32, predicted [B, R, S] int32 |
    | occlusion_bytes | image_bytes [B] string, a picture file of any size, classes | overlay_bytes [B] string |

    occlusion is in units of the logit, or of the probability; above zero where the class needs what is there, below
    where that speaks against it. drop, probability (of the class asked for) and predicted (the most probable class)
    belong to the windows' places. overlay_bytes are PNG files of the sizes sent: the map over the picture, red above
    zero, blue below.

    Endpoints cannot refuse as the call does: a class above K - 1 counts for K - 1, one below 0 for -1, and pixels
    outside [0, 1] are taken as they are.

    Args:
        classifier: a built `keras.Model` [B, H, W, C] -> [B, K]; logits, or ending in a softmax or sigmoid. One of a
            class of your own comes back from a file where that is registered
            (`keras.saving.register_keras_serializable`).
        window: (h, w) or their one number, pixels.
        stride: pixels between windows, or (down, across), at most the window; None for half of it.
        fill: what covers: a number in [0, 1], grey by default, or C of them; "mean", of the picture's own pixels;
            "blur", the picture behind a Gaussian of the window's half as deviation.
        of: "logit" or "probability".
        chunk: covered pictures in memory at once; None for as many as have a million pixels, H W each.
        image_shape: (H, W, C) where the classifier takes pictures of several sizes.

    Raises:
        ValueError: for settings out of range, and what is no such classifier; a call raises it for pictures of another
            shape or outside [0, 1] and for classes that are none.
    """

    def __init__(self, classifier, window, stride=None, fill=0.5, of="logit", chunk=None, image_shape=None, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self._allow_non_tensor_positional_args = True  # classes may be a list or a number, by place too
        self.classifier, self.fill = classifier, fill if isinstance(fill, str) else np.array(fill).tolist()
        self.image_shape = explained.picture_shape(classifier, image_shape)
        self.window = check_pair("window", window, 1)
        self.stride = check_pair("stride", [max(1, side // 2) for side in self.window] if stride is None else stride, 1)
        self.of = checks.one_of("of", of, ("logit", "probability"))
        self.chunk = None if chunk is None else checks.whole_number("chunk", chunk, 1)
        self._check_settings()
        self.num_classes = explained.num_classes(classifier, self.image_shape)
        self._starts = [
            _starts(side, part, step) for side, part, step in zip(self.image_shape, self.window, self.stride)
        ]
        self._run = tf.function(self._map, autograph=False)
        self._places = tf.function(self._positions, autograph=False)
        self._run.get_concrete_function(*self._specs())
        self(keras.Input(self.image_shape))

    def _check_settings(self):
        sides = self.image_shape[:2]
        if any(part > side for part, side in zip(self.window, sides)):
            raise ValueError(f"expected a window within pictures of {sides}, received {self.window}")
        if any(step > part for step, part in zip(self.stride, self.window)):
            raise ValueError(
                f"stride {self.stride} is more than the window {self.window}: pixels between are never covered"
            )
        if isinstance(self.fill, str):
            checks.one_of("fill", self.fill, FILLS)
        elif np.shape(self.fill) not in ((), (self.image_shape[2],)):
            raise ValueError(f"expected fill as a number or {self.image_shape[2]} of them, received {self.fill!r}")
        else:
            for each in np.ravel(self.fill):
                checks.number("fill", each, below=np.nextafter(1, 2))

    def call(self, images, classes=None):
        return self._run(*self._checked(images, classes))

    def positions(self, images, classes=None):
        """What belongs to the windows' places; arguments as of the call.

        Returns:
            {"drop": [B, R, S] of (1), "probability": [B, R, S] of the class, "predicted": [B, R, S] int32, the most
            probable class}.
        """
        return self._places(*self._checked(images, classes))

    def occlude(self, images, classes=None, progress=None):
        """What the call answers, picture by picture, with a report after each.

        Args:
            images: [B, H, W, C] in [0, 1].
            classes: [B] int32, or one for all; -1 or None for the class seen.
            progress: function of the number of pictures done, or None.

        Returns:
            The map (2), [B, H, W].
        """
        images, classes = self._checked(images, classes)
        maps = []
        for i in range(len(images)):
            maps.append(self._run(images[i : i + 1], classes[i : i + 1]))
            if progress:
                progress(i + 1)
        return tf.concat(maps, 0) if maps else tf.zeros((0, *self.image_shape[:2]), images.dtype)

    # --- the map ------------------------------------------------------------------------------------------------------

    def _map(self, images, classes):
        """(2), [B, H, W]; each side's windows weigh alike, so that the mean is a product of two matrices."""
        drop = self._positions(images, classes)["drop"]
        down, across = (
            _shares(starts, part, side).astype(drop.dtype.as_numpy_dtype)
            for starts, part, side in zip(self._starts, self.window, self.image_shape)
        )
        return tf.einsum("ir,brs,js->bij", down, drop, across)

    def _positions(self, images, classes):
        logits = self._answers(images)  # [B, R S + 1, K], the last of the picture itself
        classes = explanation_doors.chosen(classes, logits[:, -1])
        probabilities = tf.nn.softmax(logits) if self.num_classes > 1 else tf.sigmoid(logits)
        ours = [tf.gather(values, classes, axis=2, batch_dims=1) for values in (logits, probabilities)]  # [B, R S + 1]
        scores = ours[self.of == "probability"]
        found = {
            "drop": scores[:, -1:] - scores[:, :-1],
            "probability": ours[1][:, :-1],
            "predicted": tf.argmax(logits[:, :-1], -1, output_type="int32"),
        }
        return {name: tf.reshape(values, (-1, *map(len, self._starts))) for name, values in found.items()}

    def _answers(self, images):
        """Logits [B, R S + 1, K] of every picture with every window covered, and with none."""
        fill, (height, width, _) = self._fill(images), self.image_shape
        rows, columns = (part.ravel() for part in np.meshgrid(*self._starts, indexing="ij"))
        rows, columns = np.append(rows, height).astype("int32"), np.append(columns, width).astype("int32")
        total = len(rows) * tf.shape(images)[0]
        loops = -(-len(rows) // (self.chunk or max(1, PIXELS // (height * width))))  # of one picture
        count = -(-len(rows) // loops)  # a number, whatever the batch; the last loop repeats pictures, less than one

        def asked(start):
            places = tf.minimum(start + tf.range(count), total - 1)
            picture, place = places // len(rows), places % len(rows)
            inside = [
                (tf.range(side) >= first[:, None]) & (tf.range(side) < first[:, None] + part)
                for side, part, first in zip(
                    (height, width), self.window, (tf.gather(rows, place), tf.gather(columns, place))
                )
            ]
            covered = (inside[0][:, :, None] & inside[1][:, None])[..., None]  # [count, H, W, 1]
            of_picture = fill if fill.shape[0] == 1 and images.shape[0] != 1 else tf.gather(fill, picture)
            pictures = tf.where(covered, of_picture, tf.gather(images, picture))
            return tf.cast(explained.logits(self.classifier, pictures), images.dtype)

        spec = tf.TensorSpec((count, self.num_classes), images.dtype)
        found = tf.map_fn(asked, tf.range(0, total, count), fn_output_signature=spec, parallel_iterations=1)
        return tf.reshape(tf.reshape(found, (-1, self.num_classes))[:total], (-1, len(rows), self.num_classes))

    def _fill(self, images):
        """What covers, [1, 1, 1, 1 or C] or [B, 1 or H, 1 or W, C]."""
        if self.fill == "mean":
            return tf.reduce_mean(images, (1, 2), keepdims=True)
        if self.fill == "blur":
            dtype = images.dtype.as_numpy_dtype
            down, across = (_gaussian(side, part / 2, dtype) for side, part in zip(self.image_shape, self.window))
            return tf.einsum("ip,bpqc,jq->bijc", down, images, across)
        return tf.reshape(tf.constant(self.fill, images.dtype), (1, 1, 1, -1))

    # --- doors --------------------------------------------------------------------------------------------------------

    def _checked(self, images, classes):
        return explanation_doors.checked(images, classes, self.image_shape, self.num_classes)

    def _specs(self):
        images = tf.TensorSpec((None, *self.image_shape), "float32", name="images")
        return [images, tf.TensorSpec((None,), "int32", name="classes")]

    def signatures(self):
        images, classes = self._specs()

        def of_images(images, classes):
            return {"occlusion": self._run(*_ensured(images, classes))}

        def of_positions(images, classes):
            return self._places(*_ensured(images, classes))

        def of_files(image_bytes, classes):
            pictures = explanation_doors.decoded(image_bytes, self.image_shape)
            maps = self._run(*_ensured(pictures, classes))
            return {"overlay_bytes": explanation_doors.overlays(image_bytes, maps, signed=True)}

        def _ensured(pictures, kinds):
            return tf.ensure_shape(pictures, images.shape), tf.ensure_shape(kinds, classes.shape)

        found = {"serving_default": (of_images, [images, classes]), "positions": (of_positions, [images, classes])}
        if self.image_shape[2] in (1, 3):  # what files have
            files = tf.TensorSpec((None,), "string", name="image_bytes")
            found["occlusion_bytes"] = of_files, [files, classes]
        return found

    def get_config(self):
        own = {name: getattr(self, name) for name in ("window", "stride", "fill", "of", "chunk", "image_shape")}
        return {**super().get_config(), **own, "classifier": keras.saving.serialize_keras_object(self.classifier)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "classifier": explanation_doors.restored(config["classifier"])})


def _starts(side, part, stride):
    """(3): the first pixels of the windows of a side."""
    return np.unique(np.append(np.arange(0, side - part + 1, stride), side - part))


def _shares(starts, part, side):
    """[side, windows]: for every pixel the windows that cover it, each by its share of them."""
    pixels = np.arange(side)[:, None]
    covers = (starts <= pixels) & (pixels < starts + part)
    return covers / covers.sum(1, keepdims=True)


def _gaussian(side, deviation, dtype):
    """[side, side]: rows of weights, which end at the border and sum to one."""
    pixels = np.arange(side)
    weights = np.exp(-0.5 * ((pixels - pixels[:, None]) / deviation) ** 2)
    return (weights / weights.sum(1, keepdims=True)).astype(dtype)
