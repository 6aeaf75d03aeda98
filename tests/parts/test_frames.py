"""Frames: points in and out, and what pictures show in them."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from dmkeras.parts import frames

RNG = np.random.default_rng(0)


def by_hand(image, points):
    """Bilinear values of a picture [H, W, C] at points [P, 2], grey beyond."""
    height, width, channels = image.shape
    answer = np.zeros((len(points), channels))
    for n, (x, y) in enumerate(np.asarray(points, float) - 0.5):
        for i, j in itertools.product((0, 1), (0, 1)):
            row, column = int(np.floor(y)) + i, int(np.floor(x)) + j
            inside = 0 <= row < height and 0 <= column < width
            weight = (1 - abs(y - row)) * (1 - abs(x - column))
            answer[n] += weight * (image[row, column] if inside else frames.FILL)
    return answer


def turned(angle, width, height):
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (rotation @ np.diag([width, height])).astype("float32")


def test_a_box_is_normalised_by_its_middle_and_its_sides():
    boxes, points = RNG.uniform(0, 20, (3, 4)), RNG.uniform(-5, 30, (3, 5, 2))
    middle, axes = frames.upright(boxes)
    expected = [
        [[(x - (b[0] + b[2]) / 2) / (b[2] - b[0]), (y - (b[1] + b[3]) / 2) / (b[3] - b[1])] for x, y in p]
        for b, p in zip(boxes, points)
    ]
    np.testing.assert_allclose(frames.into(tf.constant(points, "float32"), middle, axes), expected, rtol=1e-4)


@pytest.mark.parametrize("angle", [0.0, 0.7, -2.0])
def test_into_a_frame_and_out_of_it_is_the_point(angle):
    middle, points = RNG.uniform(0, 20, (2, 2)).astype("float32"), RNG.uniform(-9, 30, (2, 5, 2)).astype("float32")
    axes = np.stack([turned(angle, -7, 11), turned(2 * angle, 3, 2)])
    units = frames.into(points, middle, axes)
    np.testing.assert_allclose(frames.out_of(units, middle, axes), points, atol=1e-4)
    expected = np.einsum("bxy,bpy->bpx", np.linalg.inv(axes), points - middle[:, None])
    np.testing.assert_allclose(units, expected, atol=1e-4)
    if angle:  # the transposed axes are others
        assert not np.allclose(frames.into(points, middle, axes.transpose(0, 2, 1)), expected, atol=1e-2)


@pytest.mark.parametrize("angle", [0.0, 0.7])
def test_what_a_frame_shows_is_the_picture_at_its_pixels(angle):
    images = RNG.random((2, 9, 7, 2), "float32")
    middle = np.array([[[3.2, 4.1], [0.5, 8.0], [-4, 30]], [[3.5, 4.5], [7, 0], [3, 3]]], "float32")
    axes = np.stack([[turned(angle, 5, 4), turned(angle, -3, 2), turned(angle, 6, 6)]] * 2)
    found = frames.sampled(images, middle, axes, (4, 5)).numpy()
    assert found.shape == (2, 3, 4, 5, 2)
    for b, n, i, j in itertools.product(range(2), range(3), range(4), range(5)):
        point = middle[b, n] + axes[b, n] @ [(j + 0.5) / 5 - 0.5, (i + 0.5) / 4 - 0.5]
        np.testing.assert_allclose(found[b, n, i, j], by_hand(images[b], [point])[0], atol=1e-5)


def test_the_whole_picture_in_its_own_size_is_the_picture_and_mirrored_by_a_negative_width():
    images = RNG.random((2, 6, 5, 3), "float32")
    middle, axes = frames.upright(np.array([[[0, 0, 5, 6]]] * 2))
    np.testing.assert_allclose(frames.sampled(images, middle, axes, (6, 5))[:, 0], images, atol=1e-6)
    mirrored = frames.sampled(images, middle, axes * [[-1.0, 1.0], [-1.0, 1.0]], (6, 5))[:, 0]
    np.testing.assert_allclose(mirrored, images[:, :, ::-1], atol=1e-6)


def test_finer_samples_are_averaged():
    images = RNG.random((1, 8, 8, 1), "float32")
    middle, axes = frames.upright(np.array([[[0, 0, 8, 8]]]))
    halves = images.reshape(1, 4, 2, 4, 2, 1).mean((2, 4))
    np.testing.assert_allclose(frames.sampled(images, middle, axes, (4, 4), finer=2)[:, 0], halves, atol=1e-6)
    quarters = images.reshape(1, 2, 4, 2, 4, 1).mean((2, 4))
    np.testing.assert_allclose(frames.sampled(images, middle, axes, (2, 2), finer=4)[:, 0], quarters, atol=1e-6)
    assert not np.allclose(frames.sampled(images, middle, axes, (2, 2))[:, 0], quarters, atol=1e-2)


def test_a_crop_moves_with_its_picture():
    images = RNG.random((1, 20, 20, 1), "float32")
    moved = np.roll(images, (3, 2), (1, 2))
    side = tf.constant([[6.0]])
    first = frames.sampled(images, *frames.squares(tf.constant([[[9.3, 8.8]]]), side), (5, 5))
    second = frames.sampled(moved, *frames.squares(tf.constant([[[11.3, 11.8]]]), side), (5, 5))
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_each_picture_has_its_own_frames_under_xla_too():
    images, boxes = RNG.random((3, 6, 5, 2), "float32"), RNG.uniform(0, 6, (3, 2, 4)).astype("float32")
    show = lambda images, boxes: frames.sampled(images, *frames.upright(boxes), (3, 4), finer=2)
    whole = show(images, boxes)
    for b in range(3):
        np.testing.assert_allclose(whole[b], show(images[b : b + 1], boxes[b : b + 1])[0], atol=1e-6)
    compiled = tf.function(show, jit_compile=True, autograph=False)
    np.testing.assert_allclose(compiled(images, boxes), whole, atol=1e-5)
