"""Gradients of concatenations and rectifiers are the library's own, whatever follows; and they are the lean ones."""

import numpy as np
import pytest
import tensorflow as tf

from dmkeras.parts import rectifiers

rng = np.random.default_rng(0)
IMAGES = tf.constant(rng.normal(size=(2, 8, 9, 4)))
ONE, THREE, AFTER = (tf.constant(rng.normal(size=shape)) for shape in ((1, 1, 4, 3), (3, 3, 4, 5), (3, 3, 8, 6)))
GROUPS = tf.constant(rng.normal(size=(3, 3, 4, 6)))


def fire(images, axis=-1, act=tf.nn.relu):
    """Half of the windows of a pooling hold nothing above zero."""
    maps = tf.nn.conv2d(images, ONE, 1, "SAME") - 3, tf.nn.conv2d(images, THREE, 1, "SAME") - 8
    return tf.concat([act(half) for half in maps], axis)


def pooled(maps, padding="VALID"):
    return tf.nn.max_pool2d(maps, 3, 2, padding)


NETWORKS = {
    "convolution": lambda x: tf.nn.conv2d(fire(x), AFTER, 1, "SAME"),
    "strided convolution": lambda x: tf.nn.conv2d(fire(x, axis=3), AFTER, 2, [[0, 0], [2, 1], [0, 1], [0, 0]]),
    "pooling": lambda x: pooled(fire(x)),
    "pooling with a rim": lambda x: pooled(fire(x), "SAME"),
    "pooling of what is below zero": lambda x: pooled(fire(x - 9.0, act=lambda y: y)),
    "one rectifier of two": lambda x: pooled(tf.concat([tf.nn.relu(x - 1.5), x], -1)),
    "pooling of a rectifier": lambda x: pooled(tf.nn.relu(x - 1.5)),
    "two uses": lambda x: tf.reduce_sum(pooled(fire(x)), (1, 2)) + tf.reduce_sum(fire(x), (1, 2)),
    "two uses of one": lambda x: (lambda y: tf.reduce_sum(pooled(y), (1, 2)) + tf.reduce_sum(y, (1, 2)))(fire(x)),
    "pooling, then another": lambda x: pooled(tf.nn.relu(pooled(fire(x)) - 0.5)),
    "rectifier of a rectified maximum": lambda x: tf.nn.relu(pooled(tf.nn.relu(x))),
    "rows": lambda x: tf.concat([tf.nn.relu(x), tf.nn.relu(-x)], 1),
    "rows under a pooling": lambda x: pooled(tf.concat([tf.nn.relu(x), tf.nn.relu(-x)], 1)),
    "vectors": lambda x: tf.concat([tf.nn.relu(x[:, 0, 0]), x[:, 1, 1]], 1),
    "pieces of a rectified sum": lambda x: tf.concat(tf.split(tf.nn.relu(x + 0.1), [1, 3], 3)[::-1], 3) ** 2,
    "convolution, rectified, no concatenation": lambda x: tf.nn.relu(tf.nn.conv2d(tf.nn.relu(x), ONE, 1, "SAME")),
}


def both(network, dtype=tf.float64, jit=False):
    """The gradient of a weighted sum by `rectifiers.gradient`, and by a tape."""
    images, weight = tf.cast(IMAGES, dtype), np.random.default_rng(1).normal(size=network(IMAGES).shape)
    score = lambda x: tf.reduce_sum(tf.cast(network(tf.cast(x, tf.float64)), dtype) * tf.cast(weight, dtype))
    with tf.GradientTape() as tape:
        tape.watch(images)
        values = score(images)
    found = tf.function(lambda x: rectifiers.gradient(score, x)[1], autograph=False, jit_compile=jit)(images)
    return found, tape.gradient(values, images)


def test_poolings_of_the_laws_stop_some_and_pass_some():
    for name in ("pooling", "pooling with a rim", "pooling of a rectifier"):
        assert 0.1 < np.mean(NETWORKS[name](IMAGES) == 0) < 0.9


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_the_gradient_is_the_librarys(network):
    np.testing.assert_allclose(*both(network), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["convolution", "pooling", "two uses of one"])
def test_under_xla_too(name):
    np.testing.assert_allclose(*both(NETWORKS[name], jit=True), rtol=1e-10, atol=1e-10)


def with_rule(rule):
    """A rectifier whose gradient under a tape is that of a rule, by hand."""

    @tf.custom_gradient
    def rectifier(x):
        active = {"vanilla": x > 0, "guided": x > 0, "deconvnet": x == x}[rule]
        kept = lambda dy: active if rule == "vanilla" else active & (dy > 0)
        return tf.nn.relu(x), lambda dy: tf.where(kept(dy), dy, tf.zeros_like(dy))

    return rectifier


@pytest.mark.parametrize("rule", rectifiers.RULES)
@pytest.mark.parametrize("after", [pooled, lambda maps: tf.nn.conv2d(maps, AFTER, 1, "SAME")], ids=["pool", "conv"])
def test_other_rules_of_the_rectifiers_are_theirs(rule, after):
    weight = np.random.default_rng(1).normal(size=after(fire(IMAGES)).shape)
    score = lambda act: lambda x: tf.reduce_sum(after(fire(x, act=act)) * weight)
    with tf.GradientTape() as tape:
        tape.watch(IMAGES)
        values = score(with_rule(rule))(IMAGES)
    expected = tape.gradient(values, IMAGES)
    run = tf.function(lambda x: rectifiers.gradient(score(tf.nn.relu), x, rule)[1], autograph=False)
    np.testing.assert_allclose(run(IMAGES), expected, rtol=1e-12, atol=1e-12)


def test_a_kernel_in_groups_takes_the_whole():
    """Of float32, since the library has no such gradient of float64; by differences."""
    images = tf.cast(IMAGES, "float32")
    network = lambda x: tf.nn.conv2d(tf.concat([x, -2 * x], -1), tf.cast(GROUPS, "float32"), 1, "SAME") ** 2
    run = tf.function(lambda x: rectifiers.gradient(network, x)[1], autograph=False)
    way, step = tf.constant(rng.normal(size=images.shape), "float32"), 1e-2
    slope = tf.reduce_sum(network(images + step * way) - network(images - step * way)) / (2 * step)
    np.testing.assert_allclose(tf.reduce_sum(run(images) * way), slope, rtol=1e-3)


def operations(network):
    """{type: outputs' shapes} of what a frozen graph of the gradient still holds."""
    run = tf.function(lambda x: rectifiers.gradient(network, x)[1], autograph=False).get_concrete_function(IMAGES)
    todo, seen = [tensor.op for tensor in run.outputs], set()
    while todo:
        op = todo.pop()
        if op not in seen:
            seen.add(op)
            todo += [tensor.op for tensor in op.inputs]
    found = {}
    for op in seen:
        found.setdefault(op.type, []).append(tuple(op.outputs[0].shape))
    return found


def test_no_gradient_by_a_concatenation_under_a_convolution_is_cut():
    cut = [shape for shape in operations(NETWORKS["convolution"])["SplitV"] if shape[0] == len(IMAGES)]
    assert not cut  # the kernel alone is


@pytest.mark.parametrize("name", ["pooling", "pooling of a rectifier"])
def test_masks_have_the_pooled_size(name):
    assert {shape[1:3] for shape in operations(NETWORKS[name])["ReluGrad"]} == {(3, 4)}
