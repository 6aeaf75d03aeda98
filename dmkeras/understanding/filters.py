"""Filters: the raw weights of a layer as pictures, and the maps that they answer to a picture.

Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012
(https://doi.org/10.1145/3065386), figure 3. What such pictures tell of a network that is badly trained: Zeiler and
Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014 (https://arxiv.org/abs/1311.2901), 4.1.

    tile       1/2 + w / (2 max|w|) of a filter w, all its inputs together: a weight of 0 is grey            (1)
    response   what the layer answers, its activation included: [B, h, w, F]                                (2)
    roughness  mean of (w_p - w_q)^2 over pixels p, q side by side, or one above the other, of an input,
               over 2 mean w^2: 1 for independent weights, 0 for a filter that is flat, 2 for a checkerboard (3)

Shapes:  B batch, H height, W width, C channels, F filters, I inputs of a filter, h and w of a kernel or of a map.

Deviations, each with its reason:
- (3) is no paper's: what "smooth" means is said in words there, and a figure has to be comparable between kernels of
  any size and scale.
- Filters of three inputs are shown in colour wherever they stand; with one input in grey; with others, input by input
  side by side, red above and blue below zero, since only the first layer's weights are colours.
"""

import keras
import numpy as np
import tensorflow as tf

from dmkeras.parts import checks, explained, explanation_doors
from dmkeras.parts.picture_files import decoded, encoded


@keras.saving.register_keras_serializable("dmkeras")
class Filters(keras.Model):
    """The weights of a layer, and its answers.

    Call: images `[B, H, W, C]` float32 in [0, 1]  ->  responses `[B, h, w, F]` float32, or `[B, F]` of a dense layer.

    | signature | inputs | outputs |
    | --- | --- | --- |
    | serving_default | images [B, H, W, C] float32 in [0, 1] | responses [B, h, w, F] float32 |
    | responses_bytes | image_bytes [B] string, a picture file of any size | sheet_bytes [B] string |

    sheet_bytes are PNG files: the F maps of a picture in reading order, each in colours from its least to its greatest
    value, a white line between two. `responses_bytes` is of classifiers of one or three channels alone.

    Endpoints cannot refuse as the call does: pixels outside [0, 1] are taken as they are.

    Args:
        classifier: a built `keras.Model` [B, H, W, C] -> [B, K]. One of a class of your own comes back from a file
            where that is registered (`keras.saving.register_keras_serializable`).
        layer: name of a layer with a kernel; None for the first convolution.
        image_shape: (H, W, C) where the classifier takes pictures of several sizes.

    Raises:
        ValueError: for what is no such classifier and a layer that does not exist or has no kernel; a call raises it
            for pictures of another shape or outside [0, 1].
    """

    def __init__(self, classifier, layer=None, image_shape=None, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.image_shape = explained.picture_shape(classifier, image_shape)
        self.classifier, self.layer = classifier, layer
        self.layer_name = _first_convolution(classifier, self.image_shape) if layer is None else layer
        explained.check_layer(classifier, self.image_shape, self.layer_name)
        _kernel(classifier, self.image_shape, self.layer_name)
        self._run = tf.function(self._map, autograph=False)
        self._run.get_concrete_function(self._spec())
        self(keras.Input(self.image_shape))

    # --- weights ------------------------------------------------------------------------------------------------------

    def filters(self):
        """The weights as NumPy array [F, h, w, I]; those of a dense layer that sees the whole picture [F, H, W, C]."""
        return _kernel(self.classifier, self.image_shape, self.layer_name)

    def tiles(self, most=None, inputs=None):
        """Pictures of the filters, by (1).

        Args:
            most: of the filters, the first so many.
            inputs: of each filter's inputs, the first so many; tells the number of them that is shown where I is not 1
                or 3.

        Returns:
            Float32 array in [0, 1]: [F, h, w, 3] of three inputs, [F, h, w, 1] of one, [F, h, n (w + 1) - 1, 3] of n.
        """
        weights = self.filters()[: None if most is None else checks.whole_number("most", most, 1)]
        if weights.shape[-1] in (1, 3):
            return _from_grey(weights)
        kept = weights[..., : None if inputs is None else checks.whole_number("inputs", inputs, 1)]
        return np.stack([_side_by_side(weight) for weight in kept])

    def roughness(self):
        """(3) of each filter, [F] float64; NaN for filters whose weights are all zero.

        Raises:
            ValueError: for kernels of a single pixel, which has no neighbours.
        """
        weights = self.filters().astype("float64")
        if max(weights.shape[1:3]) == 1:
            raise ValueError(f"{self.layer_name} has kernels of 1x1, whose weights have no neighbours")
        steps = [np.diff(weights, axis=axis) ** 2 for axis in (1, 2)]
        squares = sum(step.sum((1, 2, 3)) for step in steps) / sum(step[0].size for step in steps)
        scale = 2 * (weights**2).mean((1, 2, 3))
        return np.divide(squares, scale, out=np.full(len(weights), np.nan), where=scale > 0)

    # --- answers ------------------------------------------------------------------------------------------------------

    def call(self, images):
        checks.check_images(images, self.image_shape)
        return self._run(explained.precise(tf.convert_to_tensor(images)))

    def _map(self, images):
        return explained.precise(explained.activations(self.classifier, images, [self.layer_name])[self.layer_name])

    def _spec(self):
        return tf.TensorSpec((None, *self.image_shape), "float32", name="images")

    def signatures(self):
        def of_images(images):
            return {"responses": tf.cast(self._map(tf.ensure_shape(images, (None, *self.image_shape))), "float32")}

        def of_files(image_bytes):
            maps = tf.cast(self._map(decoded(image_bytes, self.image_shape)), "float32")
            return {"sheet_bytes": encoded(sheets(maps))}

        found = {"serving_default": (of_images, [self._spec()])}
        if self.image_shape[2] in (1, 3):
            found["responses_bytes"] = (of_files, [tf.TensorSpec((None,), "string", name="image_bytes")])
        return found

    def get_config(self):
        own = {"layer": self.layer, "image_shape": self.image_shape}
        return {**super().get_config(), **own, "classifier": keras.saving.serialize_keras_object(self.classifier)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "classifier": explanation_doors.restored(config["classifier"])})


def sheets(maps):
    """Maps [B, h, w, F], or answers [B, F], in colours one sheet a picture: [B, rows (h + 1) - 1, .., 3] in [0, 1]."""
    maps = maps[:, None, None] if maps.shape.rank == 2 else maps
    count = maps.shape[-1]
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    tiles = tf.transpose(maps, (0, 3, 1, 2))  # [B, F, h, w]
    flat = tf.reshape(tiles, tf.concat([[-1], tf.shape(tiles)[2:]], 0))
    spec = tf.TensorSpec((*tiles.shape[2:], 3), "float32")
    colours = tf.map_fn(explanation_doors.coloured, flat, fn_output_signature=spec)  # [B F, h, w, 3]
    colours = tf.reshape(colours, tf.concat([tf.shape(tiles), [3]], 0))
    blank = [(0, 0), (0, rows * columns - count), (0, 1), (0, 1), (0, 0)]
    colours = tf.pad(colours, blank, constant_values=1.0)  # white beyond, and between
    high, wide = tf.shape(colours)[2], tf.shape(colours)[3]
    grid = tf.reshape(colours, (-1, rows, columns, high, wide, 3))
    grid = tf.reshape(tf.transpose(grid, (0, 1, 3, 2, 4, 5)), (-1, rows * high, columns * wide, 3))
    return grid[:, :-1, :-1]


def _first_convolution(classifier, image_shape):
    """The name of the first layer whose kernel sees the picture's channels."""
    for name in explained.layer_names(classifier, image_shape):
        kernel = getattr(explained.layer_called(classifier, name), "kernel", None)
        if kernel is not None and len(kernel.shape) == 4 and kernel.shape[2] == image_shape[2]:
            return name
    raise ValueError(f"{classifier.name} has no convolution of {image_shape[2]} channels; name a layer with a kernel")


def _kernel(classifier, image_shape, name):
    """The weights of a layer as [F, h, w, I]; ValueError where it has none."""
    layer = explained.layer_called(classifier, name)
    kernel = getattr(layer, "kernel", None)
    if kernel is None or len(kernel.shape) not in (2, 4):
        fits = [
            other
            for other in explained.layer_names(classifier, image_shape)
            if len(getattr(getattr(explained.layer_called(classifier, other), "kernel", None), "shape", ())) in (2, 4)
        ]
        what = "no kernel" if kernel is None else f"a kernel of {len(kernel.shape)} axes"
        raise ValueError(f"layer {name!r} has {what}; layers with one that can be shown are {', '.join(fits[:12])}")
    weights = np.asarray(kernel, "float32")
    if weights.ndim == 2:
        whole = len(weights) == np.prod(image_shape)
        weights = weights.reshape(*(image_shape if whole else (1, 1, len(weights))), -1)
    if isinstance(layer, keras.layers.Conv2DTranspose):
        weights = weights.swapaxes(2, 3)
    if isinstance(layer, keras.layers.DepthwiseConv2D):  # [h, w, I, M] are I M filters of one input
        weights = weights.reshape(*weights.shape[:2], 1, -1)
    return np.moveaxis(weights, 3, 0)


def _from_grey(weights):
    """(1)."""
    largest = np.abs(weights).max((1, 2, 3), keepdims=True)
    return 0.5 + 0.5 * np.divide(weights, largest, out=np.zeros_like(weights), where=largest > 0)


def _side_by_side(weight):
    """[h, w, n] -> [h, n (w + 1) - 1, 3]: each input in red and blue, white between, one scale for all of them."""
    height, width, count = weight.shape
    row = np.moveaxis(weight, 2, 1).reshape(height, count * width)
    colours = explanation_doors.coloured(tf.constant(row), signed=True).numpy().reshape(height, count, width, 3)
    colours = np.pad(colours, ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=1.0)
    return colours.reshape(height, count * (width + 1), 3)[:, :-1]
