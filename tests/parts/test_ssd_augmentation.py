"""SSD's changes of pictures: its sampler against a loop with the same draws, its colours against colorsys, boxes."""

import colorsys

import numpy as np
import pytest
import tensorflow as tf

from dmkeras.parts import ssd_augmentation
from dmkeras.parts.ssd_augmentation import LEAST, MEAN, augment, cropped, distorted, drawn_parts

SIDES = (40, 56)


def scene(count=64, seed=0):
    """Pictures with a bright rectangle each on black, and a padded row."""
    rng = np.random.default_rng(seed)
    images = np.zeros((count, *SIDES, 3), "float32")
    boxes, classes = np.zeros((count, 2, 4), "float32"), np.full((count, 2), -1, "int32")
    for image, box, kinds in zip(images, boxes, classes):
        w, h = rng.integers(8, 24, 2)
        x, y = rng.integers(0, SIDES[1] - w), rng.integers(0, SIDES[0] - h)
        box[0], kinds[0] = (x, y, x + w, y + h), rng.integers(3)
        image[y : y + h, x : x + w] = 1
    return images, boxes, classes


def changed(seed=0, case=None, **options):
    return [values.numpy() for values in augment(*(case or scene()), tf.constant([3, seed], "int64"), **options)]


def overlap(a, b):
    sides = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    area = lambda c: (c[2] - c[0]) * (c[3] - c[1])
    return sides.prod() / (area(a) + area(b) - sides.prod())


def test_with_everything_off_nothing_changes():
    images, boxes, classes = scene()
    there = changed(colours=False, expand=1.0, crop=False, flip=0.0)
    np.testing.assert_allclose(there[0], images, atol=1e-6)
    np.testing.assert_array_equal(there[1], boxes)
    np.testing.assert_array_equal(there[2], classes)


def test_the_answer_is_a_function_of_the_seed_and_each_picture_has_its_own():
    image, box, kind = (values[:1] for values in scene())
    case = [np.repeat(values, 8, 0) for values in (image, box, kind)]
    first, same, other = changed(1, case), changed(1, case), changed(2, case)
    for here, there in zip(first, same):
        np.testing.assert_array_equal(here, there)
    assert np.abs(first[0] - other[0]).max() > 0.1
    assert np.unique(first[0].reshape(8, -1), axis=0).shape[0] == 8


@pytest.mark.parametrize("seed", range(3))
def test_boxes_follow_their_pixels(seed):
    """A box that is left whole is where the bright pixels are."""
    images, boxes, classes = changed(seed, colours=False)
    whole = 0
    for image, box, kind in zip(images, boxes[:, 0], classes[:, 0]):
        bright = image.mean(-1) > 0.75  # the mean and black are darker
        if kind < 0:
            assert not box.any()
            continue
        rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
        seen = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        slack = 1 + 0.06 * np.tile(box[2:] - box[:2], 2)  # a pixel may have grown to some
        assert (np.abs(seen - box) <= slack).all()
        whole += 1
    assert whole > 30
    assert (classes[:, 1] == -1).all()


def test_an_object_whose_centre_is_cut_away_is_dropped_and_others_are_cut():
    case = scene(400)
    _, boxes, classes = changed(0, case, colours=False, expand=1.0, flip=0.0)
    gone = classes[:, 0] < 0
    assert 0 < gone.sum() < 200
    assert not boxes[gone].any()
    assert (boxes >= 0).all()
    assert (boxes <= [56, 40, 56, 40]).all()
    touching = (boxes[:, 0] == [0, 0, 56, 40]).any(1) & ~gone
    assert touching.sum() > 20


def reference_crops(start, end, boxes, real, places, chances):
    """GenerateBatchSamples of sampler.cpp with the draws given, for one picture; (y, x)."""
    found = [(start, end)]
    ways = [0]
    objects = [box for box, there in zip(boxes, real) if there]
    for j, least in enumerate(LEAST):
        for scale, ratio, down, across in places[j]:
            scale, ratio = 0.3 + 0.7 * scale, 0.5 + 1.5 * ratio
            ratio = min(max(ratio, scale**2), 1 / scale**2)
            width, height = scale * np.sqrt(ratio), scale / np.sqrt(ratio)
            low = np.array([down * (1 - height), across * (1 - width)])
            high = low + np.array([height, width])
            low, high = start + low * (end - start), start + high * (end - start)
            part = np.array([low[1], low[0], high[1], high[0]])
            if any(overlap(part, box) >= least for box in objects):
                found.append((low, high))
                ways.append(j + 1)
                break
    return found[np.argmax(chances[ways])]


def draws(seed=0, count=40):
    rng = np.random.default_rng(seed)
    _, boxes, classes = scene(count, seed)
    boxes[:, 1] = boxes[:, 0] + [2, 1, 9, 9]
    classes[::2, 1] = 1
    classes[3] = -1
    start = rng.uniform(-40, 0, (count, 2))
    window = start, start + SIDES + rng.uniform(40, 60, (count, 2))
    places, chances = rng.uniform(size=(count, len(LEAST), 50, 4)), rng.uniform(size=(count, 1 + len(LEAST)))
    return [np.float32(side) for side in window], boxes, classes >= 0, np.float32(places), np.float32(chances)


@pytest.mark.parametrize("seed", range(2))
def test_parts_are_those_of_the_papers_sampler(seed):
    window, boxes, real, places, chances = draws(seed)
    found = cropped(window, boxes, tf.constant(real), places, chances)
    wanted = [reference_crops(*row) for row in zip(*window, boxes, real, places, chances)]
    np.testing.assert_allclose(np.stack(found, 1), wanted, atol=2e-3)
    np.testing.assert_array_equal(np.stack(found, 1)[3], np.stack(window, 1)[3])  # no object: the whole
    assert np.mean(np.abs(np.stack(found, 1) - np.stack(window, 1)).max((1, 2)) > 1) > 0.6


def test_a_way_that_is_not_found_is_not_taken():
    """An object that fills nearly nothing: no part has IoU .9 with it, so that way is out, however high its chance."""
    boxes, real = np.array([[[10.0, 10, 11, 11]]], "float32"), tf.constant([[True]])
    window = np.zeros((1, 2), "float32"), np.array([SIDES], "float32")
    places = np.random.default_rng(0).uniform(size=(1, len(LEAST), 50, 4)).astype("float32")
    for way in range(1, 6):
        chances = np.full((1, 1 + len(LEAST)), 0.2, "float32")
        chances[0, [way, 0]] = 0.9, 0.5
        start, end = cropped(window, boxes, real, places, chances)
        np.testing.assert_array_equal([start[0], end[0]], [window[0][0], window[1][0]])


def test_parts_lie_inside_and_have_the_papers_sizes():
    places = np.random.default_rng(0).uniform(size=(4000, 4)).astype("float32")
    start, end = drawn_parts(places)
    height, width = np.transpose(end - start)
    assert np.min(start) >= -1e-6
    assert np.max(end) <= 1 + 1e-6
    scale = np.sqrt(height * width)
    np.testing.assert_allclose(scale, 0.3 + 0.7 * places[:, 0], rtol=1e-4)
    ratio = width / height
    assert ratio.min() >= 0.5 - 1e-3
    assert ratio.max() <= 2 + 1e-3
    free = scale < 0.7
    np.testing.assert_allclose(ratio[free], 0.5 + 1.5 * places[free, 1], rtol=1e-3)
    np.testing.assert_allclose(ratio[~free].max(), 2, atol=0.1)
    np.testing.assert_allclose(start[:, 0], places[:, 2] * (1 - height), atol=1e-5)
    np.testing.assert_allclose(start[:, 1], places[:, 3] * (1 - width), atol=1e-5)


def test_half_of_the_pictures_lie_on_a_larger_canvas_of_the_mean():
    count = 400
    case = np.ones((count, *SIDES, 3), "float32"), np.tile([0.0, 0, 56, 40], (count, 1, 1)), np.zeros((count, 1), int)
    images, boxes, _ = changed(0, (case[0], np.float32(case[1]), case[2]), colours=False, crop=False)
    width, height = (boxes[:, 0, 2:] - boxes[:, 0, :2]).T
    small = width < 55.9
    assert 0.4 < small.mean() < 0.6
    ratio = 56 / width[small]
    np.testing.assert_allclose(ratio, 40 / height[small], rtol=1e-3)
    assert 1 < ratio.min() < 1.2
    assert 3.8 < ratio.max() <= 4.001
    np.testing.assert_allclose(ratio.mean(), 2.5, atol=0.2)
    # where the canvas is bare it shows the mean
    fill = images[small][np.abs(images[small] - np.array(MEAN, "float32")).max(-1) < 1e-5]
    assert len(fill) > 0.4 * images[small][..., 0].size
    for image, box in zip(images[small][:20], boxes[small][:20, 0]):
        x1, y1, x2, y2 = np.int32(np.round(box))
        inside = image[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1]
        np.testing.assert_allclose(inside, 1, atol=1e-5)


def test_half_of_the_pictures_are_mirrored():
    images, boxes, _ = scene()
    turned, moved, _ = changed(0, (images, boxes, scene()[2]), colours=False, expand=1.0, crop=False)
    same = np.abs(turned - images).max((1, 2, 3)) < 1e-5
    mirrored = np.abs(turned - images[:, :, ::-1]).max((1, 2, 3)) < 1e-5
    assert (same | mirrored).all()
    assert 0.3 < mirrored.mean() < 0.7
    np.testing.assert_allclose(
        moved[mirrored, 0], (boxes[:, 0, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [56, 0, 56, 0])[mirrored]
    )


def reference_colours(pixel, b_on, b, c_on, c, first, s_on, s, h_on, h):
    """ApplyDistort of im_transforms.cpp for one pixel."""
    cut = lambda pixel: np.clip(pixel, 0, 1)
    contrast = lambda pixel: cut(pixel * (0.5 + c)) if c_on < 0.5 else pixel
    pixel = cut(pixel + (2 * b - 1) * 32 / 255) if b_on < 0.5 else pixel
    pixel = contrast(pixel) if first < 0.5 else pixel
    hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
    saturation = saturation * (0.5 + s) if s_on < 0.5 else saturation
    hue = hue + (2 * h - 1) * 0.1 if h_on < 0.5 else hue
    # a saturation above 1 leaves the range: colours below 0 are cut afterwards
    full = np.array(colorsys.hsv_to_rgb(hue % 1, 1, value))
    pixel = cut(value - (value - full) * saturation)
    return pixel if first < 0.5 else contrast(pixel)


def test_colours_are_the_papers():
    rng = np.random.default_rng(0)
    images, changes = rng.uniform(size=(60, 2, 2, 3)), rng.uniform(size=(60, 9))
    found = distorted(tf.constant(images, "float32"), tf.unstack(tf.constant(changes, "float32"), axis=1))
    wanted = [[[reference_colours(p, *row) for p in line] for line in image] for image, row in zip(images, changes)]
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_a_batch_without_objects_keeps_whole_pictures_and_no_rows_are_no_error():
    images, boxes, _ = scene(4)
    for rows in (boxes[:, :0], boxes):
        empty = np.full(rows.shape[:2], -1, "int32")
        there = changed(0, (images, rows, empty), colours=False, expand=1.0, flip=0.0)
        np.testing.assert_allclose(there[0], images, atol=1e-6)
        assert there[1].shape == rows.shape
        assert (there[2] == -1).all()


def test_degenerate_boxes_come_out_as_padding():
    images, boxes, classes = scene(8)
    boxes[:, 1], classes[:, 1] = [9, 9, 5, 5], 2
    boxes[0, 1] = np.nan
    _, boxes, classes = changed(0, (images, boxes, classes))
    assert (classes[:, 1] == -1).all()
    assert not boxes[:, 1].any()


def test_pictures_stay_in_range_and_compile_under_xla():
    case = [tf.constant(values) for values in scene(6)]
    here = augment(*case, (1, 2))
    there = tf.function(lambda *case: augment(*case, (1, 2)), jit_compile=True)(*case)
    for a, b in zip(here, there):
        np.testing.assert_allclose(a, b, atol=1e-4)
    assert 0 <= np.min(here[0]) < np.max(here[0]) <= 1


def test_what_cannot_be_is_refused():
    images, boxes, classes = scene(2)
    with pytest.raises(ValueError, match="three channels"):
        changed(0, (images[..., :1], boxes, classes))
    with pytest.raises(ValueError, match="expand must be at least 1"):
        changed(expand=0.5)
    with pytest.raises(ValueError, match="flip"):
        changed(flip=2)
    grey = changed(0, (images[..., :1], boxes, classes), colours=False)
    assert grey[0].shape == (2, *SIDES, 1)
    assert ssd_augmentation.TRIALS == 50
