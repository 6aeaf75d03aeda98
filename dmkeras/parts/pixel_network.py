"""A small fully convolutional network that learns one picture and segments others, all within the graph.

    input     [h, w, 7 C (+ 2)]: the picture's 2x2 blocks as channels, its means over 4, 8 and 16 pixels, stretched
              bilinearly, and (`position`) y and x in [-1, 1]; h and w are halves of H and W, rounded up
    network   three 3x3 convolutions with leaky rectifiers, a 1x1 convolution to L logits, stretched bilinearly
    training  a fixed number of steps of Adam on the cross-entropy of all pixels with a label, from weights that are a
              function of the seed alone; the rate falls along half a cosine

A label that the picture does not have has probability 0. The loop is a `tf.while_loop`, so that a training is a part
of an exported graph: it needs neither Keras's optimizers nor variables, and rows of a batch know nothing of each other.
The means spare the network deep layers, since they show it what surrounds a pixel.

Shapes:  B pictures to learn, R to segment, H, W their sides, C channels, L labels (0 the background).
"""

import math

import numpy as np
import tensorflow as tf

BETAS, EPSILON = (0.9, 0.99), 1e-7
LEAK = 0.1  # of the rectifiers; with none, a label of few pixels is lost when all of them go dark
POOLS = (2, 4, 8)  # of the picture at half its size


def segment_others(images, labels, others, num_labels, filters=16, steps=150, rate=1e-2, position=False, seed=0):
    """Probabilities float32 [B, R, H, W, L]: what a network that learnt each of `images` makes of `others`.

    Args:
        images: float32 [B, H, W, C].
        labels: int32 [B, H, W]; pixels below 0 are not learnt. Without any label, all are background.
        others: float32 [R, H, W, C].
        num_labels: L; labels are less.
        filters: maps of the three convolutions.
        steps: of training.
        rate: Adam's, at first.
        position: whether the network is told where a pixel is.
        seed: of the first weights.
    """
    size = tf.shape(others)[1:3]
    seen, shown = network_input(images, position), network_input(others, position)
    start = first_weights(seen.shape[-1], filters, num_labels, seed)

    def one(example):
        seen, labels = example
        known = tf.reduce_any(labels[None] == tf.range(num_labels)[:, None, None], [1, 2])  # [L]
        known = tf.where(tf.reduce_any(known), known, tf.range(num_labels) == 0)
        weights = _train(seen[None], labels[None], start, known, steps, rate)
        return tf.nn.softmax(tf.where(known, logits(shown, weights, size), -np.inf))

    answer = tf.TensorSpec([None, None, None, num_labels], tf.float32)
    return tf.map_fn(one, (seen, labels), fn_output_signature=answer, parallel_iterations=1)


def network_input(images, position=False):
    """[N, H, W, C] -> [N, h, w, F], each picture first moved and scaled to mean 0 and variance 1."""
    mean, variance = tf.nn.moments(images, [1, 2], keepdims=True)
    images = (images - mean) / tf.maximum(tf.sqrt(variance), 1e-3)
    height, width = images.shape[1:3]
    images = tf.pad(images, [[0, 0], [0, height % 2], [0, width % 2], [0, 0]], "SYMMETRIC")
    half = (height + 1) // 2, (width + 1) // 2
    planes, small = [tf.nn.space_to_depth(images, 2)], tf.nn.avg_pool2d(images, 2, 2, "VALID")
    planes += [tf.image.resize(tf.nn.avg_pool2d(small, pool, pool, "SAME"), half) for pool in POOLS]
    if position:
        y, x = (np.linspace(-1, 1, side, dtype="float32") for side in half)
        places = np.stack(np.meshgrid(y, x, indexing="ij"), -1)[None]
        planes.append(tf.tile(places, [tf.shape(images)[0], 1, 1, 1]))
    return tf.concat(planes, -1)


def first_weights(channels, filters, num_labels, seed):
    """Kernels and biases in turn, drawn as by He et al. (https://arxiv.org/abs/1502.01852), the last layer of zeros."""
    rng, weights = np.random.default_rng(seed), []
    for fan_in in (channels, filters, filters):
        kernel = rng.normal(size=(3, 3, fan_in, filters)) * math.sqrt(2 / (9 * fan_in))
        weights += [kernel.astype("float32"), np.zeros(filters, "float32")]
    return [*weights, np.zeros((1, 1, filters, num_labels), "float32"), np.zeros(num_labels, "float32")]


def logits(maps, weights, size):
    """[N, h, w, F] -> [N, H, W, L]."""
    *hidden, (kernel, bias) = zip(weights[::2], weights[1::2])
    for inner, offset in hidden:
        maps = tf.nn.leaky_relu(tf.nn.conv2d(maps, inner, 1, "SAME") + offset, LEAK)
    scores = tf.nn.conv2d(maps, kernel, 1, "SAME") + bias
    whole = tf.image.resize(scores, 2 * tf.shape(scores)[1:3])  # a last row or column too much for odd sides
    return whole[:, : size[0], : size[1]]


def _train(seen, labels, start, known, steps, rate):
    """The weights after `steps` steps of Adam on one picture [1, h, w, F] with its labels [1, H, W]."""
    counts = tf.cast(labels >= 0, tf.float32)
    total, target, count = tf.maximum(tf.reduce_sum(counts), 1.0), tf.maximum(labels, 0), len(start)
    first, second = BETAS

    def step(i, *state):
        weights, means, squares = state[:count], state[count : 2 * count], state[2 * count :]
        with tf.GradientTape() as tape:
            tape.watch(weights)
            scores = tf.where(known, logits(seen, weights, tf.shape(labels)[1:]), -1e9)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(target, scores)
            loss = tf.reduce_sum(loss * counts) / total
        gradients = tape.gradient(loss, weights)
        now = tf.cast(i, tf.float32)
        means = [first * m + (1 - first) * g for m, g in zip(means, gradients)]
        squares = [second * s + (1 - second) * g * g for s, g in zip(squares, gradients)]
        size = rate * 0.5 * (1 + tf.cos(math.pi * now / steps))
        size *= tf.sqrt(1 - second ** (now + 1)) / (1 - first ** (now + 1))
        weights = [w - size * m / (tf.sqrt(s) + EPSILON) for w, m, s in zip(weights, means, squares)]
        return i + 1, *weights, *means, *squares

    zeros = [tf.zeros_like(weight) for weight in start]
    begin = (tf.constant(0), *map(tf.constant, start), *zeros, *zeros)
    return tf.while_loop(lambda i, *_: i < steps, step, begin, parallel_iterations=1)[1 : count + 1]
