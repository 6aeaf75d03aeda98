"""A look into any Keras classifier: what it takes, its logits, what its layers make of a picture.

Everything here reads the graph that TensorFlow traces from the model, so that it does not matter how the model was
written (functional, sequential, nested, subclassed) nor where its softmax stands. `logits` and `activations` therefore
run inside of a `tf.function(autograph=False)` alone.

    logits    what goes into a closing softmax, log-softmax or sigmoid; without one, the answers themselves
    layers    all Keras layers below the model, by name, and what `classifier.features` answers where it has that method

Shapes:  B batch, H height, W width, C channels, K classes.
"""

import contextlib
import difflib

import keras
import numpy as np
import tensorflow as tf

from dmkeras.parts import layer_calls
from dmkeras.parts.checks import check_image_shape

CLOSING = ("Softmax", "LogSoftmax", "Sigmoid")  # what may stand behind the logits
PASSING = ("Identity", "Cast", "Reshape", "Squeeze", "StopGradient")  # what may stand behind that


# --- doors ----------------------------------------------------------------------------------------------------------


def picture_shape(classifier, image_shape=None):
    """(H, W, C) of the pictures of a classifier's endpoints.

    Args:
        classifier: a built `keras.Model` [B, H, W, C] -> [B, K].
        image_shape: where the classifier takes pictures of several sizes, the one that is served.

    Raises:
        ValueError: for what is no such model, such as one of several inputs, or where no size is known.
    """
    if not tf.executing_eagerly():
        raise ValueError("explanations look into weights: make them outside of tf.function, and call them inside")
    if not isinstance(classifier, keras.Model):
        raise ValueError(f"expected a keras.Model that classifies pictures, received {type(classifier).__name__}")
    inputs = getattr(classifier, "inputs", None) or []
    if len(inputs) > 1:
        shapes = " and ".join(str(list(tensor.shape)) for tensor in inputs)
        raise ValueError(
            f"expected a classifier of one input, the picture, received one of {len(inputs)} inputs, {shapes}; fix the "
            "others: picture = keras.Input((H, W, C)); keras.Model(picture, classifier([picture, other])), where other "
            "has the picture's batch, such as 0 * keras.ops.mean(picture, (1, 2, 3))[:, None] + values"
        )
    known = tuple(inputs[0].shape[1:]) if inputs else tuple(getattr(classifier, "image_shape", ()) or ())
    if image_shape is None and (len(known) != 3 or None in known):
        raise ValueError(
            f"expected a classifier of pictures [B, H, W, C] of one size, received {type(classifier).__name__} of "
            f"{known or 'an unknown shape'}; give image_shape=(H, W, C)"
        )
    image_shape = check_image_shape(known if image_shape is None else image_shape)
    fits = len(known) == 3 and all(side in (None, own) for side, own in zip(known, image_shape))
    if known and inputs and not fits:
        raise ValueError(f"the classifier takes pictures of {known}, received image_shape {image_shape}")
    return image_shape


def num_classes(classifier, image_shape):
    """K; ValueError unless pictures of `image_shape` have one answer [B, K] each, whose logits can be seen."""
    traced = _traced(lambda images: logits(classifier, images), image_shape)
    found = traced.structured_outputs
    if found.shape.rank != 2 or not found.shape[1]:
        raise ValueError(
            f"expected a classifier [B, {', '.join(map(str, image_shape))}] -> [B, K], received answers {found.shape}; "
            "end it in pooling or Flatten and a Dense layer"
        )
    if found.shape[1] > 1:
        rows = traced(tf.constant(np.random.default_rng(0).uniform(size=(2, *image_shape)), "float32")).numpy()
        if (rows >= 0).all() and np.allclose(rows.sum(1), 1, atol=1e-3):
            raise ValueError(
                f"the answers of {classifier.name} are probabilities, and the softmax behind which they are logits is "
                "out of sight (inside a tf.function, or written by hand); give the model without it"
            )
    return found.shape[1]


def layer_names(classifier, image_shape):
    """The names under which `activations` finds layers: Keras's, then those of `classifier.features` alone."""
    names, features = list(layer_calls.layers_below(classifier)), getattr(classifier, "features", None)
    own = _traced(features, image_shape).structured_outputs if callable(features) else {}
    return [*names, *(name for name in own if name not in names)]


def check_layer(classifier, image_shape, name):
    """`name`; ValueError unless it is a layer of the classifier, and only one."""
    known = layer_names(classifier, image_shape)
    if name not in known:
        near = difflib.get_close_matches(str(name), known, 3, 0.5)
        remedy = f"did you mean {', '.join(near)}? " if near else ""
        remedy += f"dmkeras.parts.explained.layer_names(classifier, {image_shape}) tells all {len(known)}"
        raise ValueError(f"{classifier.name} has no layer {name!r}; {remedy}")
    return name


def layer_called(classifier, name):
    """The Keras layer of a name that `check_layer` knows; None for one that `classifier.features` alone has."""
    return layer_calls.layers_below(classifier).get(name)


def _traced(function, image_shape):
    """A function of images as a graph, whose `structured_outputs` are known before it has run."""
    spec = tf.TensorSpec((None, *image_shape), "float32")
    return tf.function(function, autograph=False).get_concrete_function(spec)


# --- inside a graph -------------------------------------------------------------------------------------------------


def logits(classifier, images):
    """images [B, H, W, C] -> [B, K], at least float32, before a closing softmax, log-softmax or sigmoid."""
    answers = classifier(images, training=False)
    if not isinstance(answers, tf.Tensor):
        raise ValueError(
            f"expected a classifier with one answer, received {type(answers).__name__} of {len(answers)}; take one: "
            "keras.Model(classifier.input, classifier.output[0])"
        )
    behind = answers
    while behind.op.type in PASSING and behind.op.inputs[0].dtype.is_floating:
        behind = behind.op.inputs[0]
    if behind.op.type in CLOSING and behind.op.inputs[0].shape.is_compatible_with(answers.shape):
        answers = behind.op.inputs[0]
    return precise(answers)


def precise(values):
    """Values as they are in float64, in float32 from any other dtype."""
    return values if values.dtype == tf.float64 else tf.cast(values, "float32")


def activations(classifier, images, names, any_size=False):
    """{name: what that layer makes of images}, in the layer's dtype; see `check_layer` for names.

    any_size: goes no farther than to the last of these layers, so that pictures may be of sizes that only what stands
        behind it refuses. Whether a layer is asked again behind it is not seen then.
    """
    layers, found = layer_calls.layers_below(classifier), {}
    own = [name for name in names if name not in layers]
    if own:
        found = {name: values for name, values in classifier.features(images).items() if name in own}
    with contextlib.ExitStack() as held:
        seen = {}
        enough = lambda: any_size and all(seen[name] for name in names if name in layers)
        for name in names:
            if name in layers:
                seen[name] = held.enter_context(layer_calls.watched(layers[name], enough))
        if seen:
            held.enter_context(layer_calls.open_sizes(classifier) if any_size else contextlib.nullcontext())
            with contextlib.suppress(layer_calls.EnoughSeen):
                classifier(images, training=False)
    for name, calls in seen.items():
        if len(calls) != 1 or not isinstance(calls[0], tf.Tensor):
            raise ValueError(
                f"layer {name!r} is asked {len(calls)} times for a picture and answers "
                f"{[type(call).__name__ for call in calls]}, expected one tensor; name the layer before or after it"
            )
        found[name] = calls[0]
    return found
