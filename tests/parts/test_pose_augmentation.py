"""Persons drawn anew: pictures, keypoints and boxes move together, and left becomes right."""

import numpy as np
import pytest
import tensorflow as tf

from dmkeras.parts.pose_augmentation import around, augment, rough

MIRRORED = (0, 3, 2, 1)
ALL = {"turn": 0.6, "zoom": 1.3, "shift": 0.1, "light": 0.0}


def marked(keypoints, height=40, width=50):
    """Pictures [B, H, W, J] that have a bright spot at each keypoint, a channel for each."""
    rows, columns = np.arange(height)[:, None] + 0.5, np.arange(width) + 0.5
    x, y = keypoints[..., 0, None, None], keypoints[..., 1, None, None]
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 8).transpose(0, 2, 3, 1).astype("float32")


def spots(images):
    """Where the spot of each channel is: [B, J, 2]."""
    weights = np.maximum(images - 0.6, 0)  # what lies beyond the picture is 0.5
    weights = weights / weights.sum((1, 2), keepdims=True)
    rows, columns = np.arange(images.shape[1]) + 0.5, np.arange(images.shape[2]) + 0.5
    return np.stack([np.einsum("bhwj,w->bj", weights, columns), np.einsum("bhwj,h->bj", weights, rows)], -1)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    points = rng.uniform((18, 14), (32, 26), (16, 4, 2))
    keypoints = np.concatenate([points, np.full((16, 4, 1), 2)], -1).astype("float32")
    boxes = np.concatenate([points.min(1), points.max(1)], -1).astype("float32")
    return marked(keypoints), keypoints, boxes


@pytest.mark.parametrize("options", [ALL, {}])
def test_keypoints_move_with_the_picture_and_left_becomes_right(batch, options):
    images, keypoints, boxes = batch
    pictures, points, _ = (v.numpy() for v in augment(images, keypoints, boxes, (1, 2), MIRRORED, **options))
    there, flipped = spots(pictures), np.zeros(16, bool)
    for b in range(16):
        straight = np.abs(there[b] - points[b, :, :2]).max()
        mirrored = np.abs(there[b, list(MIRRORED)] - points[b, :, :2]).max()
        flipped[b] = mirrored < straight
        assert min(straight, mirrored) < 0.3
        # joints 0 and 2 are themselves when mirrored
        assert np.abs(there[b, ::2] - points[b, ::2, :2]).max() < 0.3
    assert 2 < flipped.sum() < 14
    never = augment(images, keypoints, boxes, (1, 2), MIRRORED, flip=0.0, **options)
    np.testing.assert_allclose(spots(never[0].numpy()), never[1][..., :2], atol=0.3)
    always = augment(images, keypoints, boxes, (1, 2), MIRRORED, flip=1.0, **options)
    np.testing.assert_allclose(spots(always[0].numpy())[:, MIRRORED], always[1][..., :2], atol=0.3)
    assert np.abs(spots(always[0].numpy()) - always[1][..., :2]).max() > 3  # not swapped: wrong


def test_mirroring_twice_is_nothing(batch):
    once = augment(*batch, (1, 2), MIRRORED, flip=1.0)
    for first, second in zip(augment(*once, (3, 4), MIRRORED, flip=1.0), batch):
        np.testing.assert_allclose(first, second, atol=1e-4)


def test_a_box_holds_what_it_held_and_is_exact_when_mirrored(batch):
    _, points, boxes = augment(*batch, (5, 6), MIRRORED, **ALL)
    low, high = np.min(points[..., :2], 1), np.max(points[..., :2], 1)
    assert (boxes[:, :2] <= low + 1e-3).numpy().all()
    assert (boxes[:, 2:] >= high - 1e-3).numpy().all()
    _, _, boxes = augment(*batch, (5, 6), MIRRORED, flip=1.0)
    x1, y1, x2, y2 = batch[2].T
    np.testing.assert_allclose(boxes, np.stack([50 - x2, y1, 50 - x1, y2], -1), atol=1e-4)


def test_a_joint_that_leaves_the_picture_and_one_that_was_not_labelled_are_zeros(batch):
    images, keypoints, boxes = batch
    keypoints = keypoints.copy()
    keypoints[:, 1] = np.nan, np.nan, 0
    keypoints[:, 0, :2] = 0.5, 0.5
    _, points, _ = augment(images, keypoints, boxes, (1, 2), MIRRORED, zoom=3.0, shift=0.4)
    points = points.numpy()
    assert np.isfinite(points).all()
    hidden = points[..., 2] == 0
    assert (points[hidden] == 0).all()
    assert ((points[:, [1, 3], 2] == 0).sum(1) >= 1).all()
    assert 0 < hidden[:, 0].sum() < 16
    inside = points[~hidden][:, :2]
    assert ((inside >= 0) & (inside < [50, 40])).all()


def test_draws_are_a_function_of_the_seed_and_differ_from_picture_to_picture(batch):
    first, again, other = (augment(*batch, seed, MIRRORED, **ALL)[1].numpy() for seed in ((1, 2), (1, 2), (1, 3)))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    one = [np.repeat(values[:1], 16, 0) for values in batch]
    assert len(np.unique(augment(*one, (1, 2), MIRRORED, **ALL)[1][:, 0, 0])) == 16


def test_light_stays_in_range_and_changes_no_place(batch):
    images, points, _ = augment(*batch, (1, 2), MIRRORED, flip=0.0, light=0.5)
    np.testing.assert_allclose(points, batch[1], rtol=1e-6)
    assert not np.allclose(images, batch[0], atol=0.1)
    assert 0 <= np.min(images) <= np.max(images) <= 1


def test_a_square_holds_the_joints_that_are_labelled():
    keypoints = [[[3, 5, 2], [11, 7, 1], [np.nan, 99, 0]], [[np.nan, 1, 0]] * 3, [[4, 2, 1], [5, 9, 2], [0, 0, 0]]]
    found = around(np.array(keypoints, "float32"))
    np.testing.assert_allclose(found, [[3, 2, 11, 10], [0, 0, 0, 0], [1, 2, 8, 9]])


def test_rough_boxes_are_larger_moved_and_stretched_within_their_limits():
    boxes = np.tile(np.array([[10, 20, 30, 60]], "float32"), (2000, 1))
    np.testing.assert_allclose(rough(boxes[:1], (0, 1), loose=1.5), [[5, 10, 35, 70]])
    found = rough(boxes, (0, 1), loose=1.5, shift=0.1, stretch=1.2).numpy()
    middle, side = (found[:, :2] + found[:, 2:]) / 2, found[:, 2:] - found[:, :2]
    away, factor = (middle - [20, 40]) / [20, 40], side / [30, 60]
    assert np.abs(away).max() <= 0.1
    np.testing.assert_allclose(away.std(0), 0.1 / np.sqrt(3), rtol=0.05)
    assert factor.max() <= 1.2
    assert factor.min() >= 1 / 1.2
    np.testing.assert_allclose(np.log(factor).mean(0), 0, atol=0.01)
    np.testing.assert_allclose(np.corrcoef(np.concatenate([away, np.log(factor)], -1).T), np.eye(4), atol=0.1)


def test_everything_runs_in_a_graph_and_under_xla(batch):
    draw = lambda *batch: augment(*batch, (1, 2), MIRRORED, **ALL)
    expected = draw(*batch)
    for jit in (False, True):
        for first, second in zip(tf.function(draw, jit_compile=jit, autograph=False)(*batch), expected):
            np.testing.assert_allclose(first, second, atol=1e-3)
    empty = [values[:0] for values in batch]
    assert [values.shape[0] for values in draw(*empty)] == [0, 0, 0]
