"""DeepDream: a picture in which a classifier sees more and more of what it sees there already.

Mordvintsev, Olah and Tyka, "Inceptionism: Going Deeper into Neural Networks", 2015, is no paper but a post and a
program (https://github.com/google/deepdream, dream.ipynb), which is followed here line by line. It dreams with the
network of Szegedy et al., "Going Deeper with Convolutions" (https://arxiv.org/abs/1409.4842).

    E(x) = sum_l w_l (1/2) |a_l(x)|^2           a_l the activations of layer l, so that dE/da_l = w_l a_l            (1)
    g    = dE(roll(x, o)) / dx                  o offsets from -jitter to jitter, other ones at each step            (2)
    x   <- clip(x + step_size / 255 g / mean |g|, 0, 1)                                       `steps` times          (3)

    octave 0 is the picture, octave n is octave n-1 smaller by `scale`; detail = 0
    from the smallest octave to the picture itself:
        x = octave + zoom(detail);    (3);    detail = x - octave                                                    (4)

The program's pixels go from 0 to 255, less a mean: its step of 1.5 is one of 1.5 / 255 here. Zooms are linear, corners
on corners, as SciPy's `zoom(order=1)` has them, which the program calls. It takes the gradient of the rolled picture,
steps and rolls back; that is (2), since rolling moves the gradient along.

Shapes:  B batch, H height, W width, C channels; h, w of a picture file.

Deviations from the program, each with its reason:
- Offsets follow from a seed of each picture; the program draws them from a global state, by which nothing is repeated.
- A batch is dreamt picture by picture, since the program knows one at a time.
- `dream_bytes` dreams at the classifier's size and carries the details up to the file's own, as between octaves: sizes
  of octaves must be known when the graph is made. `dream` in Python takes pictures of any size.
"""

import functools
import itertools
import re

import keras
import numpy as np
import tensorflow as tf

from dmkeras.parts import ascent, checks, explained, explanation_doors, objectives, picture_priors, seeds

LEVELS = 255  # of the pixels that step_size counts


@keras.saving.register_keras_serializable("dmkeras")
class DeepDream(keras.Model):
    """Pictures with what the layers of a classifier see in them.

    Call: images `[B, H, W, C]` float32 in [0, 1], of any size, seed `[B, 2]` int32 or None  ->  `[B, H, W, C]` float32
    in [0, 1]. No seed is (0, 0) for each picture.

    | signature | inputs | outputs |
    | --- | --- | --- |
    | serving_default | images [B, H, W, C] float32 in [0, 1], seed [B, 2] int32, one row per picture | images |
    | dream_bytes | image_bytes [B] string, files of any size, seed | dream_bytes [B] string, PNG of these sizes |

    Endpoints cannot refuse as the call does: pixels outside [0, 1] are taken as they are.

    Args:
        classifier: a built `keras.Model` [B, H, W, C] -> [B, K]. One of a class of your own comes back from a file
            where that is registered (`keras.saving.register_keras_serializable`).
        layers: whose activations rise: a name, several, or {name: weight}; any that can be computed on pictures of the
            octaves' sizes, so none behind a dense layer, unless there is but one octave.
        octaves: sizes of the picture, itself among them.
        scale: of an octave to the next smaller one, more than 1.
        jitter: pixels, at most, by which a picture is rolled before a step; 0 for none.
        steps: of each octave.
        step_size: of (3), the mean change of a pixel in a step, in 255ths.
        image_shape: (H, W, C) of the pictures that are served, where the classifier takes several sizes.

    Raises:
        ValueError: for settings out of range, layers that there are not, and octaves on which they cannot be computed;
            a call raises it for pictures of other channels or outside [0, 1], and sizes that the layers do not take.
    """

    def __init__(
        self,
        classifier,
        layers,
        octaves=4,
        scale=1.4,
        jitter=32,
        steps=10,
        step_size=1.5,
        image_shape=None,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self._allow_non_tensor_positional_args = True  # seeds may be a list, by place too
        self.classifier = classifier
        self.image_shape = explained.picture_shape(classifier, image_shape)
        self.octaves, self.steps = checks.whole_number("octaves", octaves, 1), checks.whole_number("steps", steps, 1)
        self.scale, self.jitter = checks.number("scale", scale, 1.0), checks.whole_number("jitter", jitter, 0)
        self.step_size = checks.number("step_size", step_size)
        if self.scale == 1:
            raise ValueError("scale must be more than 1, received 1; one octave is octaves=1")
        self.weights_of = _weights(layers)
        for layer in self.weights_of:
            explained.check_layer(classifier, self.image_shape, layer)
        find = lambda images: explained.activations(classifier, images, list(self.weights_of))
        spec = tf.TensorSpec((None, *self.image_shape), "float32")
        tf.function(find, autograph=False).get_concrete_function(spec)  # a layer that is asked twice raises here
        graph = lambda name, *specs: tf.function(getattr(self, name), specs, autograph=False)
        self._graph = functools.cache(graph)  # one for each size
        self._graph("_dreams", spec, tf.TensorSpec((None, 2), "int32")).get_concrete_function()
        self(keras.Input(self.image_shape))

    def call(self, images, seed=None):
        images = self._checked(images)
        return self._in_graph("_dreams", images, explanation_doors.seed_rows(seed, images))

    def dream(self, images, seed=None, progress=None):
        """The call, octave by octave.

        Args:
            images: [B, H, W, C] in [0, 1], of any size.
            seed: whole number, or a row for each picture [B, 2]; None takes a fresh one.
            progress: function of (octaves done, of how many in all pictures, the picture so far [h, w, C]), or None.

        Returns:
            [B, H, W, C] in [0, 1].
        """
        images = self._checked(images)
        rows = seeds.check_row_seeds(seed) if np.ndim(seed) else seeds.row_seeds(len(images), seed)
        if len(rows) != len(images):
            raise ValueError(f"expected a seed for each of {len(images)} pictures, received {len(rows)}")
        done, total = itertools.count(1), len(images) * self.octaves
        told = progress and (lambda found: progress(next(done), total, found[0]))
        dreams = [self._dream(images[i : i + 1], rows[i : i + 1], told) for i in range(len(images))]
        return tf.concat([images[:0], *dreams], 0)

    def energy(self, images):
        """(1), [B], what dreams raise, of pictures [B, H, W, C] of any size."""
        return self._in_graph("_energy", self._checked(images))

    # --- inside a graph -----------------------------------------------------------------------------------------------

    def _in_graph(self, name, *tensors):
        """A method as a graph for tensors of these sizes, of any number; ValueError where layers refuse the sizes."""
        graph = self._graph(name, *[tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype) for tensor in tensors])
        try:
            graph.get_concrete_function()
        except Exception as error:
            if name == "_dreams":  # an octave has told
                raise
            lines = re.sub("\x1b.*?m", "", str(error)).splitlines()  # Keras writes in bold
            told = [line.split(" for '{{node")[0] for line in lines if line and "Exception encountered" not in line]
            fewer = f"give fewer octaves than {self.octaves}, or larger pictures"
            remedy = fewer if self.octaves > 1 else f"give pictures of {self.image_shape[:2]}"
            raise ValueError(
                f"{', '.join(self.weights_of)} of {self.classifier.name} cannot be computed on pictures or octaves of "
                f"{tuple(tensors[0].shape[1:3])} pixels; name layers before the first dense one, or {remedy} "
                f"({told[0] if told else type(error).__name__})"
            ) from error
        return graph(*tensors)

    def _energy(self, images):
        found = explained.activations(self.classifier, images, list(self.weights_of), any_size=True)
        squares = {layer: objectives.half_square(explained.precise(values)) for layer, values in found.items()}
        return tf.add_n([weight * squares[layer] for layer, weight in self.weights_of.items()])

    def _dreams(self, images, seed):
        """Picture by picture: in a batch the last bits of a row depend on its place, and many steps amplify them."""
        dream = lambda row: self._dream(row[0][None], row[1][None])[0]
        spec = tf.TensorSpec(images.shape[1:], images.dtype)
        return tf.map_fn(dream, (images, seed), fn_output_signature=spec)

    def _dream(self, images, seed, progress=None):
        """(4)."""
        bases = [images]
        for sides in octave_sides(images.shape[1:3], self.octaves, self.scale)[1:]:
            bases.append(zoomed(bases[-1], sides))
        offsets = picture_priors.offsets(seed, self.octaves * self.steps, self.jitter)
        offsets = tf.reshape(tf.transpose(offsets, (1, 0, 2)), (-1, self.octaves, self.steps, 2))
        detail = tf.zeros_like(bases[-1])
        for octave, base in enumerate(reversed(bases)):
            found = self._in_graph("_octave", base, detail, offsets[:, octave])
            detail = found - base
            if progress is not None:
                progress(found)
        return found

    def _octave(self, base, detail, offsets):
        """(2) and (3) from an octave [B, h, w, C] and the smaller one's details, by offsets [B, steps, 2]."""
        objective = lambda x, step: self._energy(picture_priors.jittered(x, offsets[:, step]) if self.jitter else x)
        step_size = self.step_size / LEVELS
        update = lambda x, g, step: tf.clip_by_value(x + step_size * ascent.by_mean(g), 0.0, 1.0)
        beginning = ascent.beginning(base + zoomed(detail, base.shape[1:3]), self.steps, self.steps)
        return ascent.climb(objective, update, beginning).values

    # --- doors --------------------------------------------------------------------------------------------------------

    def _checked(self, images):
        shape = tuple(getattr(images, "shape", ()))
        sides = shape[1:3] if len(shape) == 4 else self.image_shape[:2]
        checks.check_images(images, (*sides, self.image_shape[2]))
        images = tf.convert_to_tensor(images)
        if None in images.shape[1:]:
            raise ValueError(f"expected pictures of a size that is known, received {images.shape}")
        return explained.precise(images)

    def signatures(self):
        def of_images(images, seed):
            images = tf.ensure_shape(images, (None, *self.image_shape))
            return {"images": self._in_graph("_dreams", images, tf.ensure_shape(seed, (None, 2)))}

        def of_files(image_bytes, seed):
            images = explanation_doors.decoded(image_bytes, self.image_shape)
            details = self._in_graph("_dreams", images, tf.ensure_shape(seed, (None, 2))) - images
            return {"dream_bytes": _beside(image_bytes, details)}

        images = tf.TensorSpec((None, *self.image_shape), "float32", name="images")
        files = tf.TensorSpec((None,), "string", name="image_bytes")
        seed = tf.TensorSpec((None, 2), "int32", name="seed")
        found = {"serving_default": (of_images, [images, seed]), "dream_bytes": (of_files, [files, seed])}
        return found if self.image_shape[2] in (1, 3) else {"serving_default": found["serving_default"]}

    def get_config(self):
        names = ("octaves", "scale", "jitter", "steps", "step_size", "image_shape")
        own = {name: getattr(self, name) for name in names} | {"layers": dict(self.weights_of)}
        return {**super().get_config(), **own, "classifier": keras.saving.serialize_keras_object(self.classifier)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "classifier": explanation_doors.restored(config["classifier"])})


def octave_sides(sides, octaves, scale):
    """(h, w) of each octave, the picture's first, at least one pixel; each is rounded from the one before."""
    found = [tuple(int(side) for side in sides)]
    while len(found) < octaves:
        found.append(tuple(max(1, round(side * (1.0 / scale))) for side in found[-1]))
    return found


def zoomed(images, sides):
    """images [B, H, W, C] -> [B, *sides, C], linearly, corners on corners."""
    if tuple(images.shape[1:3]) == tuple(sides):
        return images
    down, across = (_line(old, new) for old, new in zip(images.shape[1:3], sides))
    return tf.einsum("ih,bhwc,jw->bijc", tf.cast(down, images.dtype), images, tf.cast(across, images.dtype))


@functools.cache
def _line(old, new):
    """[new, old]: row i weighs the pixels that are seen at i (old - 1) / (new - 1)."""
    places = np.linspace(0, old - 1, new)
    return np.maximum(0, 1 - abs(places[:, None] - np.arange(old)))


def _weights(layers):
    """A name, several or {name: weight} -> {name: weight}."""
    given = {layers: 1.0} if isinstance(layers, str) else layers
    given = given if isinstance(given, dict) else dict.fromkeys(given, 1.0)
    if not given or not all(isinstance(layer, str) for layer in given):
        raise ValueError(f"expected layers as a name, several, or {{name: weight}}, received {layers!r}")
    return {layer: checks.number(f"the weight of {layer}", weight, -np.inf) for layer, weight in given.items()}


def _beside(image_bytes, details):
    """Files [B] with details [B, H, W, C] added, PNG files [B] of these files' sizes."""
    channels = details.shape[-1]

    def of_file(pair):
        file, detail = pair
        picture = tf.io.decode_image(file, channels, "float32", expand_animations=False)
        picture = tf.ensure_shape(picture, (None, None, channels))
        picture = tf.clip_by_value(picture + tf.image.resize(detail, tf.shape(picture)[:2]), 0.0, 1.0)
        return tf.io.encode_png(tf.cast(tf.round(255.0 * picture), "uint8"))

    return tf.map_fn(of_file, (image_bytes, details), fn_output_signature=tf.TensorSpec((), "string"))
