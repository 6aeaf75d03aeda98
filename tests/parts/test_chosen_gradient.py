"""The gradient of a chosen class is the library's, whatever ends the network; no maps of zeros are computed for it."""

import numpy as np
import pytest
import tensorflow as tf

from dmkeras.parts import rectifiers
from dmkeras.parts.chosen_gradient import choose

rng = np.random.default_rng(0)
IMAGES, CLASSES = tf.constant(rng.normal(size=(3, 6, 5, 4))), [5, 2, 0]
SHAPES = (1, 1, 4, 7), (3, 3, 4, 7), (3, 3, 4, 4), (1, 1, 4, 4), (7, 7)
HEAD, WIDE, BELOW, POINTS, DENSE = (tf.constant(rng.normal(size=shape)) for shape in SHAPES)
BIAS, GROUPS = tf.constant(1 + rng.normal(size=7)), tf.constant(rng.normal(size=(1, 1, 2, 8)), "float32")


def maps(images, kernel=HEAD, strides=1, act=tf.nn.relu):
    """About half of these are below zero."""
    return act(tf.nn.bias_add(tf.nn.conv2d(images, kernel, strides, "SAME"), BIAS[: kernel.shape[3]]))


def mean(values, axes=(1, 2), **options):
    return tf.reduce_mean(values, axes, **options)


LEAN = {
    "rectified": lambda x: mean(maps(x)),
    "not rectified": lambda x: mean(maps(x, act=tf.identity)),
    "axes from behind": lambda x: mean(maps(x), (-2, -3)),
    "behind 3x3": lambda x: mean(maps(maps(x, BELOW))),
    "behind 1x1": lambda x: mean(maps(maps(x, POINTS))),
}
WHOLE = {
    "strides": lambda x: mean(maps(x, strides=2)),
    "strides of more maps": lambda x: mean(maps(maps(x, WIDE), DENSE[None, None], strides=2)),
    "sizes unknown": lambda x: tf.ensure_shape(
        mean(tf.compat.v1.placeholder_with_default(maps(x), [None] * 4)), (3, 7)
    ),
    "a rim of zeros": lambda x: mean(tf.nn.relu(tf.nn.conv2d(x, HEAD, 1, [[0, 0], [1, 2], [0, 1], [0, 0]]))),
    "3x3": lambda x: mean(maps(x, WIDE)),
    "another rectifier": lambda x: mean(maps(x, act=tf.nn.relu6)),
    "scaled": lambda x: 3.0 * mean(maps(x)),
    "one axis, then the other": lambda x: mean(mean(maps(x), 1), 1),
    "both axes kept": lambda x: tf.reshape(mean(maps(x), keepdims=True), (3, 7)),
    "a sum": lambda x: tf.reduce_sum(maps(x), (1, 2)),
    "a maximum": lambda x: tf.reduce_max(maps(x), (1, 2)),
    "classes rectified": lambda x: tf.nn.relu(mean(maps(x))),
    "a dense layer": lambda x: mean(maps(x)) @ DENSE,
    "used twice": lambda x: (lambda y: mean(y) + mean(y**2))(maps(x)),
    "chosen and asked again": lambda x: (lambda y: mean(y) * tf.reduce_max(mean(y), 1, keepdims=True))(maps(x)),
    "mean over the batch": lambda x: mean(maps(x)) + mean(mean(maps(x)), 0, keepdims=True),
    "mean over classes": lambda x: mean(maps(x)) - mean(mean(maps(x)), -1, keepdims=True),
    "one number": lambda x: mean(maps(x)) * tf.reduce_mean(x),
    "classes in rows": lambda x: mean(tf.transpose(maps(x), (0, 3, 2, 1)), (2, 3)),
    "places as classes": lambda x: mean(maps(x), (2, 3)),
}


def both(network, jit=False):
    """The gradient of each picture's class by `rectifiers.gradient`, and by a tape."""
    weight, classes = tf.constant([1.0, -2.0, 0.5], "float64"), tf.constant(CLASSES)
    with tf.GradientTape() as tape:
        tape.watch(IMAGES)
        values = tf.gather(network(IMAGES), classes, batch_dims=1) * weight
    score = lambda x: choose(network(x), classes) * weight
    found = tf.function(lambda x: rectifiers.gradient(score, x), autograph=False, jit_compile=jit)(IMAGES)
    np.testing.assert_allclose(found[0], values, rtol=1e-12)
    return found[1], tape.gradient(values, IMAGES)


@pytest.mark.parametrize("network", [*LEAN.values(), *WHOLE.values()], ids=[*LEAN, *WHOLE])
def test_the_gradient_is_the_librarys(network):
    np.testing.assert_allclose(*both(network), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", LEAN)
def test_under_xla_too(name):
    np.testing.assert_allclose(*both(LEAN[name], jit=True), rtol=1e-10, atol=1e-12)


def gradients_of(network, rule="vanilla", images=IMAGES):
    """(type, shape) of all that the gradient asks for and the network's own answers do not."""
    count = []

    def score(x):
        values = choose(network(x), tf.constant(CLASSES))
        count.append(len(tf.compat.v1.get_default_graph().get_operations()))
        return values

    run = tf.function(lambda x: rectifiers.gradient(score, x, rule)[1], autograph=False).get_concrete_function(
        tf.TensorSpec((None, *images.shape[1:]), images.dtype)
    )
    behind, todo, seen = set(run.graph.get_operations()[count[0] :]), [tensor.op for tensor in run.outputs], set()
    while todo:
        op = todo.pop()
        if op not in seen:
            seen.add(op)
            todo += [tensor.op for tensor in op.inputs]
    return [(op.type, tuple(tensor.shape)) for op in seen & behind for tensor in op.outputs]


@pytest.mark.parametrize("rule", rectifiers.RULES)
@pytest.mark.parametrize("name", [name for name in LEAN if name != "not rectified"])
def test_maps_of_other_classes_are_not_computed(name, rule):
    found = gradients_of(LEAN[name], rule)
    assert not [kind for kind, shape in found if len(shape) == 4 and shape[3] == 7]
    assert sum(kind == "Conv2DBackpropInput" for kind, _ in found) == name.startswith("behind")


def test_where_several_classes_meet_all_are_computed():
    """The law above could see it."""
    for name in ("3x3", "a sum", "used twice"):
        assert [kind for kind, shape in gradients_of(WHOLE[name]) if len(shape) == 4 and shape[3] == 7]


@pytest.mark.parametrize("rule", rectifiers.RULES)
@pytest.mark.parametrize("name", ["rectified", "behind 1x1", "used twice"])
def test_other_rules_of_the_rectifiers_are_theirs(rule, name):
    """Under classes that count against the score, too: there guided and deconvnet pass nothing on."""

    @tf.custom_gradient
    def by_hand(x):
        active = {"vanilla": x > 0, "guided": x > 0, "deconvnet": x == x}[rule]
        kept = lambda dy: active if rule == "vanilla" else active & (dy > 0)
        return tf.nn.relu(x), lambda dy: tf.where(kept(dy), dy, tf.zeros_like(dy))

    weight = tf.constant([1.0, -2.0, 0.5], "float64")
    network = {
        "rectified": lambda x, act: mean(maps(x, act=act)),
        "behind 1x1": lambda x, act: mean(maps(maps(x, POINTS, act=act), act=act)),
        "used twice": lambda x, act: (lambda y: mean(y) + mean(y**2))(maps(x, act=act)),
    }[name]
    with tf.GradientTape() as tape:
        tape.watch(IMAGES)
        values = tf.gather(network(IMAGES, by_hand), CLASSES, batch_dims=1) * weight
    score = lambda x: choose(network(x, tf.nn.relu), tf.constant(CLASSES)) * weight
    found = tf.function(lambda x: rectifiers.gradient(score, x, rule)[1], autograph=False)(IMAGES)
    np.testing.assert_allclose(found, tape.gradient(values, IMAGES), rtol=1e-12, atol=1e-14)
    assert np.any(found[0])
    assert np.any(found[1]) == (rule == "vanilla")


def test_a_kernel_in_groups_takes_the_whole():
    """Of float32, since the library has no such gradient of float64; the maps of a group see half of the channels."""
    images = tf.cast(IMAGES, "float32")
    network = lambda x: mean(tf.nn.conv2d(x, GROUPS, 1, "SAME"))
    score = lambda x: choose(network(x), tf.constant(CLASSES))
    found = tf.function(lambda x: rectifiers.gradient(score, x)[1], autograph=False)(images).numpy()
    for picture, of_class in zip(found, CLASSES):
        first = 2 * (of_class // 4)
        np.testing.assert_allclose(
            picture[..., first : first + 2], np.tile(GROUPS[0, 0, :, of_class] / 30, (6, 5, 1)), 1e-5
        )
        assert not np.delete(picture, (first, first + 1), -1).any()


@pytest.mark.parametrize("axes", [0, -1, (0, 2), (3, -2), (-3, -2), (1, 2, 3), (0, 1, 2, 3), (), np.array([-1, 2])])
@pytest.mark.parametrize("keepdims", [False, True])
def test_means_over_any_axes_keep_their_gradient(axes, keepdims):
    """Of a picture whose size is not known when it is traced."""
    score = lambda x: tf.reduce_sum(tf.reduce_mean(x**2, axes, keepdims) ** 2)
    with tf.GradientTape() as tape:
        tape.watch(IMAGES)
        values = score(IMAGES)
    run = tf.function(lambda x: rectifiers.gradient(score, x)[1], autograph=False)
    found = run.get_concrete_function(tf.TensorSpec((None,) * 4, "float64"))(IMAGES)
    np.testing.assert_allclose(found, tape.gradient(values, IMAGES), rtol=1e-12)
