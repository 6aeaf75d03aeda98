"""The gradient of a strided convolution by its picture, against sums in NumPy and the library's own."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from dmkeras.parts import rectifiers
from dmkeras.parts.strided_gradient import input_gradient


def reference(dy, kernel, sides, stride, padding):
    """dx[m, n] = sum of dy[i, j] w[u, v] over all i, j, u, v with s i + u - p = m, s j + v - q = n."""
    found = np.zeros((len(dy), *sides, kernel.shape[2]))
    firsts = [0, 0]
    if padding == "SAME":
        spans = [(count - 1) * stride + size - side for side, size, count in zip(sides, kernel.shape, dy.shape[1:3])]
        firsts = [max(0, span) // 2 for span in spans]
    places = (range(count) for count in (*dy.shape[1:3], *kernel.shape[:2]))
    for i, j, u, v in itertools.product(*places):
        m, n = stride * i + u - firsts[0], stride * j + v - firsts[1]
        if 0 <= m < sides[0] and 0 <= n < sides[1]:
            found[:, m, n] += dy[:, i, j] @ kernel[u, v].T
    return found


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("sides", "size", "stride"), [((9, 8), (7, 3), 2), ((8, 11), (2, 4), 3), ((7, 7), (1, 3), 2)])
def test_it_is_the_sum_over_all_places_and_weights(sides, size, stride, padding):
    rng = np.random.default_rng(0)
    images, kernel = rng.normal(size=(2, *sides, 3)), rng.normal(size=(*size, 3, 5))
    dy = rng.normal(size=tf.nn.conv2d(images, kernel, stride, padding).shape)
    found = input_gradient(tf.constant(dy), tf.constant(kernel), sides, stride, padding)
    np.testing.assert_allclose(found, reference(dy, kernel, sides, stride, padding), atol=1e-12)


@pytest.mark.parametrize(
    ("channels", "options"),
    [
        (3, {"strides": 2, "padding": "SAME"}),
        (1, {"strides": 3, "padding": "VALID"}),
        (3, {"strides": (2, 1), "padding": "SAME"}),
        (3, {"strides": 1, "padding": "SAME"}),
        (5, {"strides": 2, "padding": "SAME"}),
        (3, {"strides": 2, "padding": [[0, 0], [2, 1], [0, 3], [0, 0]]}),
    ],
)
@pytest.mark.parametrize("jit", [False, True])
def test_every_convolution_keeps_its_gradient(channels, options, jit):
    rng = np.random.default_rng(1)
    images, kernel = (
        tf.constant(rng.normal(size=(2, 9, 10, channels))),
        tf.constant(rng.normal(size=(3, 3, channels, 4))),
    )
    score = lambda images: tf.reduce_sum(tf.nn.conv2d(images, kernel, **options) ** 2)
    with tf.GradientTape() as tape:
        tape.watch(images)
        values = score(images)
    _, found = tf.function(lambda images: rectifiers.gradient(score, images), autograph=False, jit_compile=jit)(images)
    np.testing.assert_allclose(found, tape.gradient(values, images), rtol=1e-10, atol=1e-10)


def test_a_kernel_in_groups_keeps_its_gradient():
    rng = np.random.default_rng(2)
    images, kernel = (
        tf.constant(rng.normal(size=(1, 6, 6, 4)), "float32"),
        tf.constant(rng.normal(size=(3, 3, 2, 4)), "float32"),
    )
    score = lambda images: tf.reduce_sum(tf.nn.conv2d(images, kernel, 2, "SAME") ** 2)
    run = tf.function(lambda images: rectifiers.gradient(score, images)[1], autograph=False)
    step, way = 1e-2, tf.constant(rng.normal(size=images.shape), "float32")
    slope = (score(images + step * way) - score(images - step * way)) / (2 * step)
    np.testing.assert_allclose(tf.reduce_sum(run(images) * way), slope, rtol=1e-3)
