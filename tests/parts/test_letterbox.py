"""Laws of the letterbox: the box lies on the pixels that it lay on, there and back, whatever the picture's sides."""

import io

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from dmkeras.parts import letterbox as boxing

SIZE = (64, 96)
# Height and width of pictures: the model's own, portrait, landscape, tiny, larger, of sides that do not divide.
SENT = [
    (64, 96),
    (300, 40),
    (37, 500),
    (1, 1),
    (1, 9),
    (1000, 1),
    (7, 5),
    (129, 193),
    (411, 617),
    (63, 95),
    (33, 48),
    (87, 94),
]
GENERATOR = np.random.default_rng(0)


@pytest.fixture(scope="module")
def boxed():
    """`letterbox` to SIZE, traced once for pictures of any size."""
    return tf.function(lambda image: boxing.letterbox(image, SIZE), [tf.TensorSpec([None, None, 3])])


def drawn(sent, box):
    """A black picture [h, w, 3] with a white rectangle."""
    picture = np.zeros((*sent, 3), "float32")
    x1, y1, x2, y2 = box
    picture[y1:y2, x1:x2] = 1
    return picture


def edges(profile):
    """Where a profile of pixels rises through 0.5 and falls through it, between pixel centres (linear)."""
    inside = np.flatnonzero(profile >= 0.5)
    first, last = inside[0], inside[-1]
    crossing = lambda a, b: (a + (0.5 - profile[a]) / (profile[b] - profile[a]) * (b - a)) + 0.5
    return crossing(first - 1, first), crossing(last + 1, last)


def box_of_pixels(image, placement, sent):
    """The box of the white rectangle as the pixels show it; the grey around the picture is taken for black."""
    dx, dy = (round(float(offset)) for offset in placement[2:])
    height, width = (round(float(s) * side) for s, side in zip(placement[1::-1], sent))
    image = np.pad(np.asarray(image)[dy : dy + height, dx : dx + width, 0], 1)
    (x1, x2), (y1, y2) = edges(image.max(axis=0)), edges(image.max(axis=1))
    return np.array([x1 + dx - 1, y1 + dy - 1, x2 + dx - 1, y2 + dy - 1])


CASES = [(sent, box) for sent in SENT for box in ((0, 0, *sent[::-1]), "inner")]


def check_edges(letterbox, to_model, cases=CASES):
    for sent, box in cases:
        height, width = sent
        if box == "inner":
            if min(sent) < 30:
                continue
            box = (width // 5, height // 7, width - width // 4, height - height // 3)
        image, placement = letterbox(drawn(sent, box))
        found = box_of_pixels(image, placement, sent)
        np.testing.assert_allclose(found, to_model([box], placement)[0], atol=0.5, err_msg=f"{sent} {box}")


def test_a_drawn_rectangle_lies_where_its_box_is_mapped(boxed):
    check_edges(boxed, boxing.to_model)


def one_scale(boxes, placement):
    """Both axes by the scale of x: forgets that the sides were rounded apart."""
    return boxing.to_model(boxes, np.take(placement, [0, 0, 2, 3]))


def other_axis(boxes, placement):
    return boxing.to_model(boxes, np.take(placement, [0, 1, 3, 2]))


def a_pixel_off(boxes, placement):
    return boxing.to_model(boxes, placement) + 0.6


def inclusive(boxes, placement):
    return boxing.to_model(np.subtract(boxes, [0, 0, 1, 1]), placement)


@pytest.mark.parametrize("wrong", [one_scale, other_axis, a_pixel_off, inclusive])
def test_a_wrong_mapping_of_boxes_is_caught(boxed, wrong):
    with pytest.raises(AssertionError):
        check_edges(boxed, wrong)


def test_a_resize_that_lays_corner_centres_upon_one_another_is_caught():
    """Known wrong: align_corners, which darknet's own resize uses, under boxes that count from the border."""

    def letterbox(picture):
        resized = tf.compat.v1.image.resize_bilinear(picture[None], SIZE, align_corners=True)[0]
        return resized, np.array([SIZE[1] / picture.shape[1], SIZE[0] / picture.shape[0], 0, 0], "float32")

    case = [((8, 12), (3, 2, 9, 6))]
    check_edges(lambda picture: boxing.letterbox(picture, SIZE), boxing.to_model, case)
    with pytest.raises(AssertionError):
        check_edges(letterbox, boxing.to_model, case)


@pytest.mark.parametrize("sent", SENT)
def test_boxes_come_back_and_corners_go_to_corners(boxed, sent):
    image, placement = boxed(GENERATOR.random((*sent, 3), "float32"))
    assert image.shape == (*SIZE, 3)
    assert (placement.shape, placement.dtype) == ((4,), tf.float32)
    x, y = (np.sort(GENERATOR.uniform(0, side, (50, 2))) for side in sent[::-1])
    boxes = np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1).astype("float32")
    back = boxing.to_picture(boxing.to_model(boxes, placement), placement)
    np.testing.assert_allclose(back, boxes, atol=1e-4 * max(1, max(sent) / 64))
    x1, y1, x2, y2 = boxing.to_model([[0, 0, *sent[::-1]]], placement)[0].numpy()
    assert x1 >= 0 <= y1
    assert max(x2 - SIZE[1], y2 - SIZE[0]) < 1e-4
    assert abs(x1 - (SIZE[1] - x2)) < 1.01
    assert abs(y1 - (SIZE[0] - y2)) < 1.01  # in the middle
    assert min(SIZE[1] - (x2 - x1), SIZE[0] - (y2 - y1)) < 1e-3  # as large as can be
    assert abs(sent[1] * (y2 - y1) - sent[0] * (x2 - x1)) <= 0.51 * max(sent) or 1 in (x2 - x1, y2 - y1)


def test_batches_of_boxes_are_mapped_by_their_own_placement():
    boxes = GENERATOR.uniform(0, 50, (3, 4, 4)).astype("float32")
    placements = GENERATOR.uniform(1, 2, (3, 4)).astype("float32")
    for mapped in (boxing.to_model, boxing.to_picture):
        one_by_one = [mapped(b, p) for b, p in zip(boxes, placements)]
        np.testing.assert_array_equal(mapped(boxes, placements), one_by_one)


def test_a_picture_of_the_models_size_stays_as_it_is(boxed):
    picture = GENERATOR.random((*SIZE, 3), "float32")
    image, placement = boxed(picture)
    np.testing.assert_array_equal(image, picture)
    np.testing.assert_array_equal(placement, [1, 1, 0, 0])


@pytest.mark.parametrize("sent", SENT)
def test_pixels_stay_in_range_and_the_rest_is_grey(boxed, sent):
    for value in (0.0, 1.0):
        image, placement = boxed(np.full((*sent, 3), value, "float32"))
        inside = np.abs(np.asarray(image) - value) < 1e-5
        assert np.max(image) <= 1  # weights that add to more than 1 by rounding: (87, 94)
        expected = [round(float(scale) * side) for scale, side in zip(placement[1::-1], sent)]
        assert inside.sum() == 3 * np.prod(expected)
        assert (np.asarray(image)[~inside] == 0.5).all()
    noisy = np.asarray(boxed((GENERATOR.random((*sent, 3)) > 0.5).astype("float32"))[0])
    assert 0 <= noisy.min() <= noisy.max() <= 1


def test_shrinking_takes_means_of_what_it_covers():
    """Antialiased: stripes of one pixel become grey; known wrong: plain bilinear, which picks some of them."""
    stripes = np.tile(np.array([0.0, 1.0], "float32")[None, :, None], (320, 160, 1))
    image, _ = boxing.letterbox(stripes, (64, 64))
    np.testing.assert_allclose(image[8:-8, 8:-8], 0.5, atol=0.05)
    plain = tf.image.resize(stripes[:, :315], (64, 64)).numpy()
    assert np.abs(plain[8:-8, 8:-8] - 0.5).max() > 0.4


def test_the_fill_is_as_asked_and_colours_are_kept():
    image, _ = boxing.letterbox(np.ones((10, 20, 4), "float32"), (20, 20), fill=0.25)
    np.testing.assert_array_equal(image[0], np.full((20, 4), 0.25))
    np.testing.assert_array_equal(image[10], np.ones((20, 4)))


# Bytes.


def encoded(picture, kind="PNG", mode="RGB"):
    file = io.BytesIO()
    PIL.Image.fromarray(picture).convert(mode).save(file, kind)
    return file.getvalue()


PICTURE = GENERATOR.integers(0, 256, (20, 33, 3), "uint8")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """`decode_and_letterbox`, saved and loaded again."""
    module = tf.Module()
    signature = [tf.TensorSpec([None], tf.string)]
    names = "images", "placements", "sizes"
    module.f = tf.function(lambda files: dict(zip(names, boxing.decode_and_letterbox(files, SIZE))), signature)
    place = str(tmp_path_factory.mktemp("letterbox"))
    tf.saved_model.save(module, place)
    return tf.saved_model.load(place).f


def test_files_of_every_kind_come_out_of_a_saved_model_as_their_pixels_do(served):
    flat = np.repeat(np.repeat(GENERATOR.integers(0, 256, (2, 3, 3), "uint8"), 40, 0), 40, 1)
    grey = np.asarray(PIL.Image.fromarray(PICTURE).convert("L"))
    files = [encoded(PICTURE), encoded(PICTURE, mode="RGBA"), encoded(grey, mode="L"), encoded(flat, "JPEG")]
    files += [encoded(grey, "JPEG", "L"), encoded(PICTURE, "BMP"), encoded(PICTURE[:1, :1])]
    found = served(tf.constant(files))
    assert found["images"].shape == (7, *SIZE, 3)
    assert found["sizes"].numpy().tolist() == [[20, 33]] * 3 + [[80, 120], [20, 33], [20, 33], [1, 1]]
    assert found["sizes"].dtype == tf.int32
    exact = {0: PICTURE, 1: PICTURE, 2: np.stack([grey] * 3, -1), 5: PICTURE, 6: PICTURE[:1, :1]}
    for i, pixels in exact.items():
        image, placement = boxing.letterbox((pixels / 255).astype("float32"), SIZE)
        np.testing.assert_allclose(found["images"][i], image, atol=1e-6)
        np.testing.assert_array_equal(found["placements"][i], placement)
    near, _ = boxing.letterbox((flat / 255).astype("float32"), SIZE)
    assert np.abs(found["images"][3] - near).mean() < 0.02  # JPEG loses
    np.testing.assert_array_equal(found["images"][4][..., 0], found["images"][4][..., 2])


def test_an_empty_batch_and_bytes_that_are_no_picture(served):
    empty = served(tf.constant([], tf.string))
    assert [empty[name].shape[0] for name in ("images", "placements", "sizes")] == [0, 0, 0]
    cut = encoded(PICTURE)[:60]
    for bad in (b"", b"no picture", cut):
        with pytest.raises(tf.errors.InvalidArgumentError):
            served(tf.constant([encoded(PICTURE), bad]))


# The answer.


def test_the_answer_is_the_box_in_the_picture_sent():
    sizes = np.array([(300, 40), (37, 500)])
    placements = np.stack([boxing.letterbox(np.zeros((*sent, 1), "float32"), SIZE)[1] for sent in sizes])
    true = np.array([[[4, 30, 20, 90], [-10, -30, 400, 500]], [[100, 5, 400, 30], [490, 36, 501, 38]]], "float32")
    detections = {
        "boxes": np.concatenate([boxing.to_model(true, placements), [[[9, 9, 9, 9]], [[np.nan] * 4]]], axis=1),
        "scores": np.array([[0.9, 0.8, 0.7], [0.6, 0.5, 0.4]], "float32"),
        "classes": np.array([[3, 0, -1], [1, 2, 5]]),
        "num_detections": np.array([2, 2]),
    }
    found = boxing.answer(detections, placements, sizes)
    x1, y1, x2, y2 = np.moveaxis(true, -1, 0)
    h, w = sizes[:, :1], sizes[:, 1:]
    expected = np.clip(np.stack([y1 / h, x1 / w, y2 / h, x2 / w], axis=-1), 0, 1)
    np.testing.assert_allclose(found["detection_boxes"][:, :2], expected, atol=1e-4)
    np.testing.assert_array_equal(found["detection_boxes"][:, 2], np.zeros((2, 4)))
    np.testing.assert_allclose(found["detection_scores"], [[0.9, 0.8, 0], [0.6, 0.5, 0]])
    assert found["detection_classes"].numpy().tolist() == [[3, 0, -1], [1, 2, -1]]
    assert found["num_detections"].numpy().tolist() == [2, 2]
    assert found["detection_classes"].dtype == found["num_detections"].dtype == tf.int32


# Doors.


@pytest.mark.parametrize(
    ("picture", "size", "words"),
    [
        (np.zeros((4, 4, 3), "uint8"), SIZE, "uint8; divide by 255"),
        (np.zeros((2, 4, 4, 3), "float32"), SIZE, r"one picture \[h, w, C\]"),
        (np.zeros((0, 4, 3), "float32"), SIZE, r"received \(0, 4, 3\)"),
        (np.zeros((4, 4, 3), "float32"), 64, r"size must be \(height, width\), received 64"),
        (np.zeros((4, 4, 3), "float32"), (64, 0), "at least 1, received 0"),
        (np.zeros((4, 4, 3), "float32"), (64, 1.5), "whole number, received 1.5"),
    ],
)
def test_other_pictures_and_sizes_are_refused(picture, size, words):
    with pytest.raises(ValueError, match=words):
        boxing.letterbox(picture, size)
