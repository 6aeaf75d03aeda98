"""Laws of box augmentation: boxes stay on the pixels that they lay on, draws belong to the seed, padding is inert."""

import colorsys

import numpy as np
import pytest
import tensorflow as tf

from dmkeras.parts import box_augmentation
from dmkeras.parts.box_augmentation import augment

OFF = {"flip": 0.0, "jitter": 0.0}
ON = {"flip": 0.5, "jitter": 0.2, "expand": 2.0}
COLOUR = {"hue": 0.1, "saturation": 1.5, "exposure": 1.5}
COLOURS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], "float32")
GENERATOR = np.random.default_rng(0)
NOISE = GENERATOR.random((4, 24, 32, 3), "float32")


def scenes(count=24, height=60, width=80):
    """Grey pictures with a red, a green and a blue rectangle side by side, and a padded row between them."""
    images = np.full((count, height, width, 3), 0.5, "float32")
    boxes, classes = np.zeros((count, 4, 4), "float32"), np.tile(np.array([0, 1, -1, 2], "int32"), (count, 1))
    for image, rows in zip(images, boxes):
        for kind, row in enumerate((0, 1, 3)):
            x1 = kind * width // 3 + GENERATOR.integers(0, 8)
            y1, w, h = GENERATOR.integers(0, 30), GENERATOR.integers(8, 18), GENERATOR.integers(8, 30)
            image[y1 : y1 + h, x1 : x1 + w] = COLOURS[kind]
            rows[row] = x1, y1, x1 + w, y1 + h
    boxes[:, 2] = np.nan  # a padded row may hold anything
    return images, boxes, classes


SCENES = scenes()


def extent(image, kind):
    """The box of one colour, by its share of the pixels: 1 in the colour, 0 in grey, less than 0 in other colours."""
    share = 1.5 * image[..., kind] - image.sum(axis=-1) / 2
    (x1, x2), (y1, y2) = (ends(share.max(axis=axis)) for axis in (0, 1))
    return np.array([x1, y1, x2, y2])


def ends(profile):
    """Where it crosses a half, linear between pixel centres; at an edge of the picture that edge."""
    cross = lambda a, b: (profile[b] - 0.5) / (profile[b] - profile[a])
    inside = np.flatnonzero(profile >= 0.5)
    first, last = inside[0], inside[-1]
    low = first + 0.5 - cross(first - 1, first) if first else 0
    return low, last + 0.5 + cross(last + 1, last) if last + 1 < len(profile) else len(profile)


def check_boxes(augmented, least):
    """Every box that is left, and wide enough to reach its full colour, lies on it within half a pixel."""
    images, boxes, classes = (np.asarray(part) for part in augmented)
    seen = 0
    for image, rows, kinds in zip(images, boxes, classes):
        for box, kind in zip(rows, kinds):
            if kind < 0:
                assert not np.nan_to_num(box).any()
            elif (box[2:] - box[:2]).min() > 3:
                np.testing.assert_allclose(extent(image, kind), box, atol=0.5)
                seen += 1
    assert seen >= least


GEOMETRY = {
    "nothing drawn": OFF,
    "mirror": {"flip": 1.0, "jitter": 0.0},
    "jitter": {"flip": 0.0, "jitter": 0.3},
    "expand": {**OFF, "expand": 3.0},
    "everything": {"flip": 0.5, "jitter": 0.2, "expand": 2.0},
    "another size": {"flip": 0.5, "jitter": 0.2, "output_size": (100, 70)},
}


@pytest.mark.parametrize("options", GEOMETRY.values(), ids=GEOMETRY)
def test_boxes_lie_on_the_pixels_that_they_lay_on(options):
    check_boxes(augment(*SCENES, (1, 2), **options), least=40)


def test_a_wrong_map_of_boxes_is_caught(monkeypatch):
    move, resample = box_augmentation.move, box_augmentation.resample

    def swapped(boxes, classes, windows, *rest):  # Keras 3.15.1's RandomCrop exchanges the offsets of x and y
        start, end = windows
        return move(boxes, classes, (start[:, ::-1], start[:, ::-1] + end - start), *rest)

    def not_mirrored(boxes, classes, windows, *rest):
        return move(boxes, classes, (tf.minimum(*windows), tf.maximum(*windows)), *rest)

    def inclusive(boxes, *rest):
        return move(boxes - [0, 0, 1, 1], *rest)

    def off_by_half(images, windows, size):  # pixel centres taken for pixel corners
        start, end = windows
        scale = (end - start) / [float(size[0]), float(size[1])]
        return resample(images, (start + 0.5 - 0.5 * scale, end + 0.5 - 0.5 * scale), size)

    wrong = [("move", swapped, "jitter"), ("move", not_mirrored, "mirror"), ("move", inclusive, "jitter")]
    wrong += [("resample", off_by_half, "mirror")]
    for name, function, case in wrong:
        with monkeypatch.context() as patch:
            patch.setattr(box_augmentation, name, function)
            augmented = augment(*SCENES, (1, 2), **GEOMETRY[case])
        with pytest.raises(AssertionError):
            check_boxes(augmented, least=1)


def test_pixels_are_those_of_tensorflows_own_transform():
    """ImageProjectiveTransformV3 counts from pixel centres, so its offsets are half a scale less half a pixel."""
    start, end = np.array([[-3.5, 30.0], [2, -8]], "float32"), np.array([[28.0, -4.0], [20, 35.5]], "float32")
    found = box_augmentation.resample(tf.constant(NOISE[:2]), (start, end), (18, 40))
    scale = (end - start) / np.array([18, 40], "float32")
    offset, zero = start + 0.5 * scale - 0.5, np.zeros(2, "float32")
    transforms = [scale[:, 1], zero, offset[:, 1], zero, scale[:, 0], offset[:, 0], zero, zero]
    expected = tf.raw_ops.ImageProjectiveTransformV3(
        images=NOISE[:2],
        transforms=np.stack(transforms, axis=1),
        output_shape=(18, 40),
        fill_value=0.5,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_neutral_values_leave_everything_bit_for_bit():
    images, boxes, classes = SCENES
    images = GENERATOR.random(images.shape, "float32")
    for kept, given in zip(augment(images, boxes, classes, (1, 2), **OFF), (images, boxes, classes)):
        np.testing.assert_array_equal(kept, given)
    drawn = augment(images, boxes, classes, (1, 2), **OFF, output_size=images.shape[1:3])  # the resampling itself
    np.testing.assert_array_equal(drawn[0], images)
    np.testing.assert_array_equal(drawn[1], np.nan_to_num(boxes))
    unlit = augment(images, boxes, classes, (1, 2), **ON)[0]
    half = augment(images, boxes, classes, (1, 2), **ON, exposure=1.5)[0]
    assert np.abs(unlit - half).max() > 0.05
    np.testing.assert_array_equal(augment(images, boxes, classes, (1, 2), **OFF, **COLOUR)[1], boxes)


def test_mirror_images_are_exact_and_twice_mirrored_is_as_before():
    images, boxes, classes = (NOISE, SCENES[1][:4] / 4, SCENES[2][:4])
    mirror = lambda *batch: augment(*batch, (3, 4), flip=1.0, jitter=0.0)
    once = mirror(images, boxes, classes)
    np.testing.assert_array_equal(once[0], images[:, :, ::-1])
    np.testing.assert_array_equal(once[1][:, 0], np.stack([32, 0, 32, 0] - boxes[:, 0, [2, 1, 0, 3]] * [1, -1, 1, -1]))
    for twice, given in zip(mirror(*once), (images, np.nan_to_num(boxes), classes)):
        np.testing.assert_array_equal(twice, given)


def test_the_canvas_is_grey_and_the_picture_lies_whole_in_it():
    images = np.full((64, 30, 40, 3), 1.0, "float32")
    boxes = np.tile(np.array([0, 0, 40, 30], "float32"), (64, 1, 1))
    expanded, boxes, _ = augment(images, boxes, np.zeros((64, 1), "int32"), (5, 6), **OFF, expand=4.0)
    x1, y1, x2, y2 = np.moveaxis(boxes[:, 0].numpy(), -1, 0)
    ratio = 40 / (x2 - x1)
    np.testing.assert_allclose(30 / (y2 - y1), ratio, rtol=1e-4)
    assert 1 <= ratio.min() < 1.0001 < 3 < ratio.max() < 4
    assert 16 < np.sum(ratio > 1.0001) < 48  # half of the pictures
    np.testing.assert_allclose(expanded.numpy().mean((1, 2, 3)), 0.5 + 0.5 / ratio**2, atol=0.03)
    assert np.corrcoef(x1, y1)[0, 1] < 0.98  # each axis has its own place


def test_edges_move_by_no_more_than_the_jitter_and_by_themselves():
    box = np.tile(np.array([40, 40, 60, 60], "float32"), (400, 1, 1))
    images = np.zeros((400, 100, 100, 1), "float32")
    moved = augment(images, box, np.zeros((400, 1), "int32"), (7, 8), flip=0.0, jitter=0.2)[1][:, 0].numpy()
    side = 20 * 100 / (moved[:, 2:] - moved[:, :2])  # of the windows, in pixels of the picture
    start = 40 - moved[:, :2] * side / 100
    for edge in (start, start + side - 100):
        assert np.abs(edge).max() < 20.01
        assert np.abs(edge).max() > 19
        assert np.abs(edge.mean(axis=0)).max() < 2
    edges = np.concatenate([start, start + side], axis=1)
    assert np.abs(np.corrcoef(edges.T) - np.eye(4)).max() < 0.2


# Which boxes stay.


def kept(box, window, min_visible=0.0, size=(100, 100), kind=5):
    """(box, class) of one box under one window (x0, y0, x1, y1)."""
    start, end = np.array([[window[1], window[0]]], "float32"), np.array([[window[3], window[2]]], "float32")
    boxes, classes = np.array([[box]], "float32"), np.array([[kind]], "int32")
    boxes, classes = box_augmentation.move(boxes, classes, (start, end), size, min_visible)
    return boxes[0, 0].numpy().tolist(), int(classes[0, 0])


def test_a_box_stays_while_its_centre_is_inside_and_enough_is_seen():
    window, gone = (0, 0, 100, 100), ([0, 0, 0, 0], -1)
    assert kept((-10, 20, 20, 40), window) == ([0, 20, 20, 40], 5)
    assert kept((-21, 20, 20, 40), window) == gone
    assert kept((20, 90, 40, 111), window) == gone
    assert kept((-10, 20, 20, 40), window, 0.66)[1] == 5
    assert kept((-10, 20, 20, 40), window, 0.67) == gone
    assert kept((50, 50, 60, 60), (100, 0, 0, 100))[0] == [40, 50, 50, 60]
    assert kept((50, 50, 60, 60), (40, 50, 90, 100))[0] == [20, 0, 40, 20]


@pytest.mark.parametrize(
    "box", [(30, 20, 10, 40), (10, 40, 30, 20), (10, 10, 10, 30), (np.nan, 1, 5, 5), (1, 1, np.inf, 5), (1, 1, 1.05, 9)]
)
def test_a_box_that_is_none_is_dropped(box):
    for window in ((0, 0, 100, 100), (100, 0, 0, 100)):
        assert kept(box, window) == ([0, 0, 0, 0], -1)


def test_padding_and_the_order_of_boxes_change_nothing():
    images, boxes, classes = SCENES
    found = augment(images, boxes, classes, (1, 2), **ON)
    real = augment(images, boxes[:, [3, 0, 1]], classes[:, [3, 0, 1]], (1, 2), **ON)
    for a, b in zip(found[1:], real[1:]):
        np.testing.assert_array_equal(np.asarray(a)[:, [3, 0, 1]], b)
    np.testing.assert_array_equal(found[0], real[0])
    assert (found[2].numpy()[:, 2] == -1).all()
    none = augment(images, boxes[:, :0], classes[:, :0], (1, 2), **ON)
    np.testing.assert_array_equal(found[0], none[0])
    assert none[1].shape == (24, 0, 4)


# Draws.


def test_the_seed_alone_decides_and_each_picture_has_its_own_draws():
    same = np.repeat(NOISE[:1], 5, axis=0), np.zeros((5, 2, 4), "float32"), np.full((5, 2), -1, "int32")
    draw = lambda seed, *batch: augment(*(batch or same), seed, **ON, **COLOUR)[0].numpy()
    first = draw((1, 2))
    tf.random.set_seed(9)
    np.testing.assert_array_equal(first, draw(tf.constant([1, 2], tf.int64)))
    np.testing.assert_array_equal(first[:2], draw((1, 2), *(part[:2] for part in same)))
    for other in (first[1], first[2], draw((1, 3))[0], draw((2, 2))[0]):
        assert np.abs(first[0] - other).max() > 0.05


def test_half_of_the_pictures_are_mirrored():
    images = np.tile(np.linspace(0, 1, 8, dtype="float32")[None, None, :, None], (2000, 1, 1, 1))
    empty = np.zeros((2000, 0, 4), "float32"), np.zeros((2000, 0), "int32")
    for chance in (0.5, 0.1):
        mirrored = augment(images, *empty, (1, 2), flip=chance, jitter=0.0)[0].numpy()[:, 0, 0, 0] == 1
        assert abs(mirrored.mean() - chance) < 0.04


# Colour.


def by_colorsys(pixel, turn, s, e):
    """darknet's distort_image: saturation is not cut before the way back to RGB."""
    h, saturation, value = colorsys.rgb_to_hsv(*pixel)
    return np.clip(colorsys.hsv_to_rgb((h + turn) % 1, saturation * s, value * e), 0, 1)


@pytest.mark.parametrize(
    "tint", [(0.1, 1.0, 1.0), (-0.37, 1.5, 0.7), (0.0, 1.4, 1.3), (0.0, 0.7, 1.0), (0.5, 0.8, 1.2)]
)
def test_colours_are_those_of_hsv(tint):
    pixels = GENERATOR.random((1, 20, 15, 3), "float32")
    pixels[0, 0, :7] = [(0, 0, 0), (1, 1, 1), (0.5, 0.5, 0.5), (1, 0, 0), (0.2, 0.2, 0.9), (0.9, 0.9, 0.1), (0, 1, 1)]
    expected = [by_colorsys(pixel, *tint) for pixel in pixels.reshape(-1, 3)]
    tints = [tf.constant([value]) for value in tint]
    on = tint[0], *(2.0 if value != 1 else 1.0 for value in tint[1:])
    found = box_augmentation.recolour(tf.constant(pixels), tints, *on)
    np.testing.assert_allclose(np.reshape(found, (-1, 3)), expected, atol=1e-5)


def test_factors_are_darknets():
    place, side = (tf.constant(GENERATOR.random(4000, "float32")) for _ in range(2))
    factors = box_augmentation.factor(place, side, 1.5).numpy()
    up = factors[factors > 1]
    assert abs(len(up) - 2000) < 150
    assert abs(up.mean() - 1.25) < 0.01
    assert abs((1 / factors[factors <= 1]).mean() - 1.25) < 0.01
    assert 1 / 1.5 - 1e-6 <= factors.min() < factors.max() <= 1.5


def test_pixels_stay_in_range():
    extremes = np.concatenate([NOISE, NOISE > 0.5]).astype("float32")
    empty = np.zeros((8, 1, 4), "float32"), np.full((8, 1), -1, "int32")
    for seed in range(5):
        pixels = augment(extremes, *empty, (seed, 0), **ON, hue=0.5, saturation=3.0, exposure=3.0)[0].numpy()
        assert 0 <= pixels.min() <= pixels.max() <= 1


# Where it runs.


def test_it_runs_in_tf_data_with_sizes_unknown_and_answers_as_outside():
    spec = tf.TensorSpec([None] * 3 + [3]), tf.TensorSpec([None, None, 4]), tf.TensorSpec([None, None], tf.int32)
    data = tf.data.Dataset.from_generator(lambda: [SCENES], output_signature=spec)
    step = lambda *batch: augment(*batch, tf.constant([1, 2]), **ON, **COLOUR)
    inside = next(data.map(step).as_numpy_iterator())
    for a, b in zip(inside, step(*SCENES)):
        np.testing.assert_allclose(a, b, atol=1e-5)
    sized = data.map(lambda *batch: augment(*batch, (1, 2), output_size=(16, 8)))
    assert sized.element_spec[0].shape.as_list() == [None, 16, 8, 3]


def test_xla_compiles_it():
    compiled = tf.function(lambda *batch: augment(*batch, (1, 2), **ON, **COLOUR), jit_compile=True)
    for a, b in zip(compiled(*SCENES), augment(*SCENES, (1, 2), **ON, **COLOUR)):
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_large_pictures_drawn_one_by_one_are_the_same(monkeypatch):
    options = {**ON, **COLOUR, "output_size": (20, 30)}
    whole = augment(*SCENES, (1, 2), **options)
    monkeypatch.setattr(box_augmentation, "LARGE", 0)
    for a, b in zip(whole, augment(*SCENES, (1, 2), **options)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": (NOISE * 255).astype("uint8")}, "uint8; divide by 255"),
        ({"images": NOISE[0]}, r"images \[B, H, W, C\], received \(24, 32, 3\)"),
        ({"boxes": np.zeros((4, 2, 5), "float32")}, "of one B and N, received"),
        ({"boxes": np.zeros((4, 3, 4), "float32")}, "of one B and N, received"),
        ({"images": NOISE[:3]}, "of one B and N, received"),
        ({"classes": np.zeros((4, 2), "float32")}, "cast them to int32"),
        ({"images": NOISE[..., :1], "hue": 0.1}, "need three colours"),
        ({"flip": 1.5}, "flip must be at least 0"),
        ({"jitter": 0.5}, "jitter must be at least 0 and less than 0.5"),
        ({"expand": 0.5}, "expand must be at least 1"),
        ({"hue": 0.6}, "hue must be at least 0"),
        ({"saturation": 0.5}, "saturation must be at least 1"),
        ({"min_visible": 2}, "min_visible must be"),
        ({"output_size": 32}, r"output_size must be \(height, width\)"),
    ],
)
def test_what_does_not_fit_is_refused(change, words):
    batch = {"images": NOISE, "boxes": np.zeros((4, 2, 4), "float32"), "classes": np.zeros((4, 2), "int32")}
    with pytest.raises(ValueError, match=words):
        augment(**{**batch, "seed": (1, 2), **change})
