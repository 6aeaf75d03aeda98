"""Maximally activated patches: for every unit of a layer, the parts of a data set's pictures that excite it most.

Girshick, Donahue, Darrell and Malik, "Rich feature hierarchies for accurate object detection and semantic
segmentation", CVPR 2014 (https://arxiv.org/abs/1311.2524), section 3.1: "the unit ... as if it were an object detector
in its own right". Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014
(https://arxiv.org/abs/1311.2901), figure 2, show the same patches, nine of each unit.

    a_u(x, p)     activation of unit u, a channel of the layer's maps, at place p of picture x
    score_u(x)    max over p of a_u(x, p), and p_u(x) the first place that has it                               (1)
    best_u        the k pictures of the largest score_u, of equals those that came first                        (2)
    patch         the pixels of x that a unit at p_u(x) sees, all and no others: parts/receptive_field.py       (3)

One pass over the data finds them: after every batch the k best of (the k so far, the batch's) are kept, with their
patches. In memory are one batch's activations and U k patches in 8 bits. What was found is saved with the model.

Shapes:  B batch, H height, W width, C channels of the pictures; U units, P places of the layer's maps, k patches of a
         unit, h and w pixels of a patch, R units of a sheet.

Deviations, each with its reason:
- Patches are cut at the exact field of their unit. Girshick et al. draw the field's nominal size around its middle;
  near the border, and in layers whose channels see more and less, that shows pixels that the unit never saw.
- They suppress overlapping regions within a picture; here a picture gives one patch, which leaves the same kind of
  choice without a threshold. With `one_per_picture=False` overlapping patches stay.
"""

import keras
import numpy as np
import tensorflow as tf

from dmkeras.parts import checks, explained, explanation_doors
from dmkeras.parts.receptive_field import receptive_field

GREY = 128  # of 255, where a unit sees no pixel
LARGEST = 2**30  # bytes of patches
TILE, GAP = 48, 2  # pixels: patches on a sheet are enlarged to about the first; between them


@keras.saving.register_keras_serializable("dmkeras")
class MaximalPatches(keras.Model):
    """The patches that excite each unit of a layer most.

    Call: images `[B, H, W, C]` float32 in [0, 1]  ->  a dict of what `serving_default` answers.

    | signature | inputs | outputs |
    | --- | --- | --- |
    | serving_default | images [B, H, W, C] float32 in [0, 1] | activations [B, U] float32, places [B, U, 2] int32, boxes [B, U, 4] int32 |
    | patches_bytes | image_bytes [B] string, a picture file of any size | sheet_bytes [B] string, units [B, R] int32, shares [B, R] float32 |

    activations are (1), each unit's largest; places the row and column in the layer's maps; boxes xyxy in pixels of what
    the unit sees there, x2 and y2 exclusive, zeros where it sees padding alone. sheet_bytes are PNG files: a row for
    each of the R units that the picture excites most, the picture's own patch first, then those that `find` found.
    units are these units' channels in the layer; shares their activation over the largest that `find` found, by which
    they are chosen, or the activation itself where nothing was found.

    Endpoints cannot refuse as the call does: pixels outside [0, 1] are taken as they are.

    Args:
        classifier: a built `keras.Model` [B, H, W, C] -> [B, K]; or any other with a layer of that name. One of a
            class of your own comes back from a file where that is registered
            (`keras.saving.register_keras_serializable`).
        layer: name of a layer that answers maps [B, h, w, U], or [B, U] whose units see the whole picture.
        k: patches of a unit.
        units: channels of the layer to look at; None for all.
        one_per_picture: False lets a picture give several patches of a unit.
        rows: R, at most.
        image_shape: (H, W, C) where the classifier takes pictures of several sizes.

    Raises:
        ValueError: for settings out of range, layers that do not exist or whose fields are not known, and where patches
            would fill more than a gibibyte; `find` and a call raise it for pictures of another shape or outside [0, 1].
    """  # noqa: E501 - rows of the table

    def __init__(self, classifier, layer, k=9, units=None, one_per_picture=True, rows=8, image_shape=None, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.classifier, self.one_per_picture = classifier, bool(one_per_picture)
        self.image_shape = explained.picture_shape(classifier, image_shape)
        self.layer = explained.check_layer(classifier, self.image_shape, layer)
        self.k, self.rows = checks.whole_number("k", k, 1), checks.whole_number("rows", rows, 1)
        field = self.receptive_field()
        self.units = self._checked_units(units, field.boxes.shape[2])
        self._prepare_field(field)
        self._add_memory()
        self._run = tf.function(self._seen, autograph=False)
        images, first = tf.TensorSpec((None, *self.image_shape)), tf.TensorSpec((), "int32")
        self._learn = tf.function(self._keep_best, [images, first], autograph=False)
        self._run.get_concrete_function(images)
        self(keras.Input(self.image_shape))

    def receptive_field(self, layer=None):
        """What a unit of a layer sees, of this model's own by default: size, stride, padding, each (down, across).

        The pictures' borders aside, the unit at row r sees `size` rows of pixels from stride r - padding on; `boxes`
        [h, w, U, 4] xyxy tells what each unit sees of the picture. See dmkeras.parts.receptive_field.
        """
        name = explained.check_layer(self.classifier, self.image_shape, layer or self.layer)
        of_layer = lambda images: explained.activations(self.classifier, images, [name])[name]
        return receptive_field(of_layer, self.image_shape)

    def _checked_units(self, units, count):
        if units is None:
            return list(range(count))
        units = [checks.whole_number("each of units", unit, 0) for unit in np.ravel(units)]
        if not units or max(units) >= count or len(set(units)) < len(units):
            raise ValueError(f"expected units below {count}, no one twice, received {units}; layer {self.layer!r}")
        return units

    def _prepare_field(self, field):
        """Boxes [P, U or 1, 4], and corners [P, U or 1, 2] (y, x) of the windows in which patches are cut out."""
        boxes = field.boxes[:, :, self.units]
        boxes = boxes[:, :, :1] if (boxes == boxes[:, :, :1]).all() else boxes
        self._maps, corners = boxes.shape[:2], boxes[..., 1::-1]
        if field.size is None:
            self.patch_size = tuple(int((boxes[..., 2 + i] - boxes[..., i]).max()) for i in (1, 0))
        else:
            self.patch_size = field.size
            grid = np.meshgrid(*map(np.arange, self._maps), indexing="ij")
            corners = np.stack([i * s - p for i, s, p in zip(grid, field.stride, field.padding)], -1)[:, :, None]
            corners = np.broadcast_to(corners, (*boxes.shape[:3], 2))
        self._boxes = np.ascontiguousarray(boxes.reshape(-1, boxes.shape[2], 4))
        self._corners = np.ascontiguousarray(corners.reshape(-1, boxes.shape[2], 2).astype("int32"))

    def _add_memory(self):
        """What was found: the best first; a patch stays in its slot while others pass its unit's by."""
        shape = len(self.units), self.k
        patches = *shape, *self.patch_size, self.image_shape[2]
        if np.prod(patches, dtype=float) > LARGEST:
            raise ValueError(
                f"{shape[0]} units of {self.k} patches of {self.patch_size} pixels fill {np.prod(patches) / 2**30:.1f} "
                "GiB; look at fewer with units=[...] or a smaller k"
            )
        add = lambda name, shape, start, dtype: self.add_weight(
            shape, keras.initializers.Constant(start), dtype, trainable=False, name=name
        )
        self._scores, self._pictures = add("scores", shape, -np.inf, "float32"), add("pictures", shape, -1, "int32")
        self._places, self._slots = add("places", shape, 0, "int32"), add("slots", shape, 0, "int32")
        self._patches = add("patches", patches, GREY, "uint8")
        self._forget()

    def _forget(self):
        self._scores.assign(tf.fill(self._scores.shape, -np.inf))
        self._pictures.assign(tf.fill(self._pictures.shape, -1))
        self._places.assign(tf.zeros(self._places.shape, "int32"))
        self._slots.assign(tf.tile(tf.range(self.k)[None], [len(self.units), 1]))
        self._patches.assign(tf.fill(self._patches.shape, tf.constant(GREY, "uint8")))

    # --- one picture --------------------------------------------------------------------------------------------------

    def call(self, images):
        checks.check_images(images, self.image_shape)
        return self._run(tf.cast(images, "float32"))

    def _activations(self, images):
        """[B, P, U]."""
        maps = tf.cast(explained.activations(self.classifier, images, [self.layer])[self.layer], "float32")
        maps = tf.reshape(maps, (-1, len(self._boxes), maps.shape[-1]))
        return maps if len(self.units) == maps.shape[-1] else tf.gather(maps, self.units, axis=2)

    def _seen(self, images):
        maps = self._activations(images)
        places = tf.argmax(maps, 1, output_type="int32")  # [B, U]
        return {
            "activations": tf.reduce_max(maps, 1),
            "places": tf.stack([places // self._maps[1], places % self._maps[1]], -1),
            "boxes": self._at(self._boxes, places),
        }

    def _at(self, values, places):
        """values [P, U or 1, n] at places [..., U] -> [..., U, n]."""
        units = tf.range(len(self.units)) if values.shape[1] > 1 else tf.zeros(len(self.units), "int32")
        return tf.gather_nd(values, tf.stack([places, tf.zeros_like(places) + units], -1))

    def _cut(self, images, pictures, boxes, corners):
        """(3): of `pictures` [M], numbers of images, the boxes [M, 4] -> [M, h, w, C], grey around them."""
        inside, pixels = [], []
        for axis, (part, side) in enumerate(zip(self.patch_size, self.image_shape)):
            along = corners[:, axis, None] + tf.range(part)
            inside.append((along >= boxes[:, 1 - axis, None]) & (along < boxes[:, 3 - axis, None]))
            pixels.append(tf.clip_by_value(along, 0, side - 1))
        (rows, columns), (down, across) = pixels, inside
        shape = tf.stack([tf.shape(pictures)[0], *self.patch_size])
        parts = tf.broadcast_to(pictures[:, None, None], shape), rows[:, :, None], columns[:, None]
        found = tf.gather_nd(images, tf.stack([tf.broadcast_to(part, shape) for part in parts], -1))
        return tf.where((down[:, :, None] & across[:, None])[..., None], found, GREY / 255)

    # --- a data set ---------------------------------------------------------------------------------------------------

    def find(self, dataset, batch_size=32, progress=None):
        """Looks at all pictures once, in the order they come in, and keeps each unit's best; earlier finds go.

        Args:
            dataset: a `tf.data.Dataset` of batches, of images [B, H, W, C] in [0, 1] or tuples that begin with them, or
                an array [N, H, W, C].
            batch_size: of an array.
            progress: function of the number of pictures seen, called after every batch, or None.

        Returns:
            What `found` does.
        """
        if not isinstance(dataset, tf.data.Dataset):
            checks.check_images(dataset, self.image_shape)
            dataset = tf.data.Dataset.from_tensor_slices(dataset).batch(
                checks.whole_number("batch_size", batch_size, 1)
            )
        self._forget()
        seen = 0
        for batch in dataset:
            images = batch[0] if isinstance(batch, (tuple, list)) else batch
            checks.check_images(images, self.image_shape)
            self._learn(tf.cast(images, "float32"), tf.constant(seen))
            seen += len(images)
            if progress:
                progress(seen)
        return self.found()

    def _keep_best(self, images, first):
        """(2) for a batch whose first picture has the number `first`."""
        maps = tf.debugging.check_numerics(self._activations(images), f"layer {self.layer!r}")
        each = 1 if self.one_per_picture else min(self.k, len(self._boxes))
        scores, places = tf.math.top_k(tf.transpose(maps, (2, 0, 1)), each)  # [U, B, each]; of equals the first
        many = tf.shape(images)[0] * each
        numbers = tf.tile(first + tf.range(many)[None] // each, [len(self.units), 1])
        flat = lambda values: tf.reshape(values, (len(self.units), many))
        nothing = tf.fill((len(self.units), many), -1)
        scores, source = tf.math.top_k(tf.concat([self._scores, flat(scores)], 1), self.k)
        pairs = (self._pictures, numbers), (self._places, flat(places)), (self._slots, nothing)
        pictures, places, slots = (tf.gather(tf.concat(pair, 1), source, batch_dims=1) for pair in pairs)  # [U, k]
        new = slots < 0
        taken = tf.reduce_any(slots[:, :, None] == tf.range(self.k), 1)  # [U, k]: slots of those that stay
        free = tf.argsort(tf.cast(taken, "int32"), stable=True)
        slots = tf.where(
            new, tf.gather(free, tf.maximum(tf.cumsum(tf.cast(new, "int32"), 1) - 1, 0), batch_dims=1), slots
        )
        for weight, values in zip(
            (self._scores, self._pictures, self._places, self._slots), (scores, pictures, places, slots)
        ):
            weight.assign(values)
        boxes, corners = (tf.boolean_mask(self._of(values, places), new) for values in (self._boxes, self._corners))
        patches = self._cut(images, tf.boolean_mask(pictures, new) - first, boxes, corners)
        at = tf.stack([tf.cast(tf.where(new)[:, 0], "int32"), tf.boolean_mask(slots, new)], -1)
        self._patches.value.scatter_nd_update(at, tf.cast(tf.round(255 * patches), "uint8"))

    def _of(self, values, places):
        """values [P, U or 1, n] at places [U, k] -> [U, k, n]."""
        return tf.transpose(self._at(values, tf.transpose(places)), (1, 0, 2))

    def _best_patches(self):
        """[U, k, h, w, C] in [0, 1], the best first."""
        return tf.cast(tf.gather(self._patches.value, self._slots.value, batch_dims=1), "float32") / 255.0

    def found(self):
        """What `find` found, the best first.

        Returns:
            {"scores": [U, k] float32, "pictures": [U, k] their numbers in the data set, "places": [U, k, 2] row and
            column in the layer's maps, "boxes": [U, k, 4] xyxy in pixels, "patches": [U, k, h, w, C] in [0, 1], of 8
            bits and grey where the unit sees no pixel}, arrays. Where there were fewer pictures than k, the last have
            scores of -inf, pictures of -1 and grey patches.
        """
        places, there = self._places.numpy(), self._pictures.numpy() >= 0
        boxes = self._of(self._boxes, self._places.value).numpy()
        return {
            "scores": self._scores.numpy(),
            "pictures": self._pictures.numpy(),
            "places": np.stack([places // self._maps[1], places % self._maps[1]], -1) * there[..., None],
            "boxes": boxes * there[..., None],
            "patches": self._best_patches().numpy(),
        }

    # --- doors --------------------------------------------------------------------------------------------------------

    def _sheets(self, images):
        """R units of each picture, their shares, and sheets [B, y, x, C] of their patches."""
        seen, best = self._seen(images), self._scores[:, 0]
        known = tf.math.is_finite(best) & (best != 0)
        shares = seen["activations"] / tf.where(known, tf.abs(best), 1.0)
        shares, units = tf.math.top_k(shares, min(self.rows, len(self.units)))  # [B, R]
        pictures, rows = tf.where(tf.ones_like(units) > 0)[:, 0], tf.shape(units)[1]
        pictures, chosen = tf.cast(pictures, "int32"), tf.reshape(units, (-1,))
        places = seen["places"][..., 0] * self._maps[1] + seen["places"][..., 1]
        of_own = lambda values: tf.reshape(
            tf.gather(self._at(values, places), units, batch_dims=1), (-1, values.shape[-1])
        )
        own = self._cut(images, pictures, of_own(self._boxes), of_own(self._corners))
        tiles = tf.concat([own[:, None], tf.gather(self._best_patches(), chosen)], 1)  # [B R, 1 + k, h, w, C]
        scale = max(1, round(TILE / max(self.patch_size)))
        tiles = tf.repeat(tf.repeat(tiles, scale, 2), scale, 3)
        tiles = tf.pad(tiles, [(0, 0), (0, 0), (GAP, GAP), (GAP, GAP), (0, 0)], constant_values=1.0)
        height, width, channels = (*(scale * side + 2 * GAP for side in self.patch_size), self.image_shape[2])
        sheets = tf.transpose(tiles, (0, 2, 1, 3, 4))
        sheets = tf.reshape(sheets, (-1, rows * height, (1 + self.k) * width, channels))
        first, others = sheets[:, :, :width], sheets[:, :, width:]
        first = tf.pad(first, [(0, 0), (0, 0), (0, 4 * GAP), (0, 0)], constant_values=1.0)
        return shares, tf.gather(tf.constant(self.units, "int32"), units), tf.concat([first, others], 2)

    def signatures(self):
        images = tf.TensorSpec((None, *self.image_shape), "float32", name="images")

        def of_images(images):
            return self._run(tf.ensure_shape(images, (None, *self.image_shape)))

        @tf.function(autograph=False)
        def of_pictures(pictures):
            shares, units, sheets = self._sheets(pictures)
            return {"sheet_bytes": explanation_doors.encoded(sheets), "units": units, "shares": shares}

        def of_files(image_bytes):
            return of_pictures(explanation_doors.decoded(image_bytes, self.image_shape))

        found = {"serving_default": (of_images, [images])}
        if self.image_shape[2] in (1, 3):  # what files have
            found["patches_bytes"] = of_files, [tf.TensorSpec((None,), "string", name="image_bytes")]
        return found

    def get_config(self):
        own = {name: getattr(self, name) for name in ("layer", "k", "units", "one_per_picture", "rows", "image_shape")}
        return {**super().get_config(), **own, "classifier": keras.saving.serialize_keras_object(self.classifier)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "classifier": explanation_doors.restored(config["classifier"])})
