"""Laws of boxes: formats, the IoU family, deltas, which are real."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from dmkeras.parts import boxes

FAMILY = {"iou": boxes.iou, "giou": boxes.giou, "diou": boxes.diou, "ciou": boxes.ciou}
FLOORS = {"iou": 0.0, "giou": -1.0, "diou": -1.0, "ciou": -1.5}
GENERATOR = np.random.default_rng(0)
# The corners that losses meet: apart, nested, equal, touching, without area (line, point), reversed, huge, tiny.
CORNERS = np.array(
    [
        [[0, 0, 4, 4], [7, 8, 9, 9]],
        [[0, 0, 9, 9], [2, 3, 4, 5]],
        [[1, 2, 3, 4], [1, 2, 3, 4]],
        [[0, 0, 2, 2], [2, 0, 4, 2]],
        [[3, 3, 3, 8], [0, 0, 9, 9]],
        [[3, 3, 3, 3], [3, 3, 3, 3]],
        [[3, 3, 3, 3], [5, 5, 5, 5]],
        [[8, 8, 2, 2], [0, 0, 9, 9]],
        [[8, 8, 2, 2], [8, 8, 2, 2]],
        [[0, 0, 1e9, 1e9], [-1e9, 0, 1, 1]],
        [[0, 0, 1e-7, 1e-7], [0, 0, 1e-7, 1e-7]],
        [[0, 0, 1e-25, 0], [5, 5, 5, 9]],
    ],
    "float32",
)


def drawn(count, generator=GENERATOR):
    low, size = generator.uniform(-20, 20, (count, 2)), generator.uniform(0.5, 30, (count, 2))
    return np.concatenate([low, low + size], -1).astype("float32")


def in_numpy(name, box, other):
    """The definitions, one pair of boxes, float64."""
    box, other = (np.asarray(each, "float64") for each in (box, other))
    area = lambda b: (b[2] - b[0]) * (b[3] - b[1])
    low, high = np.maximum(box[:2], other[:2]), np.minimum(box[2:], other[2:])
    intersection = np.prod(np.maximum(high - low, 0))
    union = area(box) + area(other) - intersection
    outer = np.concatenate([np.minimum(box[:2], other[:2]), np.maximum(box[2:], other[2:])])
    if name == "iou":
        return intersection / union
    if name == "giou":
        return intersection / union - (area(outer) - union) / area(outer)
    apart = (box[:2] + box[2:]) / 2 - (other[:2] + other[2:]) / 2
    distance = intersection / union - np.sum(apart**2) / np.sum((outer[2:] - outer[:2]) ** 2)
    if name == "diou":
        return distance
    angles = [np.arctan((b[2] - b[0]) / (b[3] - b[1])) for b in (box, other)]
    v = 4 / np.pi**2 * (angles[0] - angles[1]) ** 2
    return distance - (v * v / (1 - intersection / union + v) if v else 0)


# Overlap.


def test_overlaps_are_those_of_the_reference():
    """torchvision's test_ops.py."""
    some = np.array([[0, 0, 100, 100], [0, 0, 50, 50], [200, 200, 300, 300], [0, 0, 25, 25]], "float32")
    distance = [[1, 0.1875, -0.4444], [0.1875, 1, -0.5625], [-0.4444, -0.5625, 1], [-0.0781, 0.1875, -0.6267]]
    expected = {
        "iou": [[1, 0.25, 0], [0.25, 1, 0], [0, 0, 1], [0.0625, 0.25, 0]],
        "giou": [[1, 0.25, -0.7778], [0.25, 1, -0.8611], [-0.7778, -0.8611, 1], [0.0625, 0.25, -0.8819]],
        "diou": distance,
        "ciou": distance,  # all are squares
    }
    for name, function in FAMILY.items():
        np.testing.assert_allclose(function(some[:, None], some[None, :3]), expected[name], atol=1e-4)
    np.testing.assert_allclose(boxes.pairwise_iou(some, some[:3]), expected["iou"], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "box", "other", "loss"),
    [
        ("giou", [-1, -1, 1, 1], [0, 0, 1, 1], 0.75),
        ("giou", [0, 0, 1, 1], [0, 1, 1, 2], 1.0),
        ("giou", [0, 0, 1, 1], [1, 1, 2, 2], 1.5),
        ("ciou", [-1, -1, 1, 1], [0, 1, 1, 2], 1.1923),
        ("diou", [-1, -1, 1, 1], [0, -1, 1, 1], 0.53125),
        ("ciou", [-1, -1, 1, 1], [0, -1, 1, 1], 0.5345),
        ("ciou", [0, 0, 1, 1], [1, 1, 2, 2], 1.25),
    ],
)
def test_losses_are_those_of_torchvision_and_detectron2(name, box, other, loss):
    np.testing.assert_allclose(1 - FAMILY[name](box, other), loss, atol=1e-4)


@pytest.mark.parametrize("name", FAMILY)
def test_overlaps_are_those_of_the_definitions(name):
    first, second = drawn(60), drawn(60)
    expected = [in_numpy(name, a, b) for a, b in zip(first, second)]
    np.testing.assert_allclose(FAMILY[name](first, second), expected, rtol=1e-5, atol=1e-6)
    assert np.ptp(expected) > 0.4


def test_ciou_is_that_of_keras():
    first, second = drawn(60), drawn(60)
    np.testing.assert_allclose(
        boxes.ciou(first, second), keras.utils.bounding_boxes.compute_ciou(first, second, "xyxy"), atol=1e-5
    )


@pytest.mark.parametrize("name", FAMILY)
def test_overlap_is_symmetric_bounded_and_one_with_itself(name):
    function, same = FAMILY[name], drawn(50)
    first, second = (np.concatenate([CORNERS[:, side], drawn(50)]) for side in (0, 1))
    value = function(first, second).numpy()
    np.testing.assert_allclose(value, function(second, first), atol=1e-6)
    assert (value >= FLOORS[name] - 1e-6).all()
    assert (value <= 1 + 1e-6).all()
    np.testing.assert_allclose(function(same, same), 1, atol=1e-6)


@pytest.mark.parametrize("name", FAMILY)
def test_overlap_does_not_change_with_scale_and_place(name):
    first, second = drawn(50), drawn(50)
    value = FAMILY[name](first, second)
    for scale, move in ((0.01, 0), (300, 0), (1, [40, -9, 40, -9])):
        np.testing.assert_allclose(FAMILY[name](scale * first + move, scale * second + move), value, atol=2e-5)


def slopes(function, first, second):
    first, second = tf.constant(first), tf.constant(second)
    with tf.GradientTape() as tape:
        tape.watch([first, second])
        value = function(first, second)
    return value, tape.gradient(value, [first, second])


@pytest.mark.parametrize("name", FAMILY)
def test_values_and_gradients_are_finite_for_any_boxes(name):
    value, gradients = slopes(FAMILY[name], CORNERS[:, 0], CORNERS[:, 1])
    assert np.isfinite([value.numpy(), *(g.numpy().sum(-1) for g in gradients)]).all()
    assert all(np.isfinite(g).all() for g in gradients)


def test_boxes_that_are_apart_learn_from_all_but_iou():
    for name, function in FAMILY.items():
        gradient = slopes(function, CORNERS[:1, 0], CORNERS[:1, 1])[1][0]
        assert (np.abs(gradient).max() > 1e-3) == (name != "iou")


def test_the_weight_of_ciou_carries_no_gradient():
    """With alpha held, moving a side moves CIoU as DIoU - alpha v; known wrong: as the full derivative."""
    box, other = np.array([0.0, 0, 4, 2]), np.array([1.0, -1, 3, 4])
    gradient = slopes(boxes.ciou, box.astype("float32"), other.astype("float32"))[1][0].numpy()
    alpha_v = lambda b: in_numpy("diou", b, other) - in_numpy("ciou", b, other)
    v = lambda b: 4 / np.pi**2 * np.diff([np.arctan((c[2] - c[0]) / (c[3] - c[1])) for c in (b, other)])[0] ** 2
    alpha = alpha_v(box) / v(box)
    held = lambda b: in_numpy("diou", b, other) - alpha * v(b)
    numerical = lambda f: np.array([(f(box + step) - f(box - step)) / 2e-6 for step in 1e-6 * np.eye(4)])
    np.testing.assert_allclose(gradient, numerical(held), atol=1e-4)
    assert np.abs(gradient - numerical(lambda b: in_numpy("ciou", b, other))).max() > 1e-2


def test_a_reversed_box_has_no_area():
    np.testing.assert_array_equal(boxes.area([[0, 0, 2, 3], [2, 3, 0, 0], [2, 0, 0, 3]]), [6, 0, 0])
    np.testing.assert_array_equal(boxes.iou([[8, 8, 2, 2]], [[0, 0, 9, 9]]), [0])


# Deltas.

finite = st.floats(-500, 500, width=32)
sides = st.floats(0.5, 500, width=32)
some_boxes = st.builds(lambda x, y, w, h: [x, y, x + w, y + h], finite, finite, sides, sides)
variances = st.sampled_from([(1, 1, 1, 1), (0.1, 0.1, 0.2, 0.2)])


@settings(max_examples=50, deadline=None)
@given(some_boxes, some_boxes, variances)
def test_what_is_encoded_is_decoded(box, anchor, scales):
    found = boxes.decode(boxes.encode(box, anchor, scales), anchor, scales)
    np.testing.assert_allclose(found, box, atol=2e-2, rtol=1e-4)


def test_deltas_are_those_of_the_paper():
    anchor, box = np.array([0, 0, 10, 20], "float32"), np.array([2, 2, 12, 32], "float32")
    expected = np.array([0.2, 0.35, 0, 0.405465])
    np.testing.assert_allclose(boxes.encode(box, anchor), expected, atol=1e-6)
    np.testing.assert_allclose(
        boxes.encode(box, anchor, (0.1, 0.1, 0.2, 0.2)), expected / [0.1, 0.1, 0.2, 0.2], atol=1e-5
    )
    np.testing.assert_allclose(boxes.decode(np.zeros(4), anchor), anchor)
    theirs = keras.utils.bounding_boxes.encode_box_to_deltas
    first, second = drawn(9), drawn(9)
    expected = theirs(first, second, "xyxy", "xyxy", encoding_format="center_xywh")
    np.testing.assert_allclose(boxes.encode(second, first), expected, rtol=1e-4, atol=1e-5)


def test_deltas_of_boxes_without_area_are_finite_and_large_ones_can_be_capped():
    value, gradients = slopes(boxes.encode, CORNERS[:, 0], CORNERS[:, 1])
    assert np.isfinite(value).all()
    assert all(np.isfinite(g).all() for g in gradients)
    deltas = np.array([0, 0, 1e3, -1e3], "float32")
    capped = boxes.decode(deltas, [0.0, 0, 16, 16], largest=np.log(1000 / 16)).numpy()
    np.testing.assert_allclose(capped, [8 - 500, 8, 8 + 500, 8], rtol=1e-5)
    assert not np.isfinite(boxes.decode(deltas, [0.0, 0, 16, 16])).all()


# Formats, and which count.


def test_formats_mean_what_they_say():
    box = [[10, 20, 30, 60]]
    for target, expected in {
        "yxyx": [20, 10, 60, 30],
        "xywh": [10, 20, 20, 40],
        "center_xywh": [20, 40, 20, 40],
        "rel_xyxy": [0.1, 0.1, 0.3, 0.3],
        "rel_yxyx": [0.1, 0.1, 0.3, 0.3],
    }.items():
        np.testing.assert_allclose(boxes.convert(box, "xyxy", target, (200, 100, 3)), [expected], rtol=1e-6)
    np.testing.assert_allclose(boxes.convert([1, 2, 3, 8], "xyxy", "rel_yxyx", (10, 5)), [0.2, 0.2, 0.8, 0.6])


def test_what_a_picture_does_not_hold_is_cut():
    found = boxes.clip([[-5, 3, 200, 60], [110, 3, 120, 9]], (50, 100, 3))
    np.testing.assert_array_equal(found, [[0, 3, 100, 50], [100, 3, 100, 9]])


def test_padding_and_broken_boxes_are_not_real():
    rows = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1], [2, 0, 1, 1], [0, 0, np.inf, 1], [0, np.nan, 1, 1]])
    np.testing.assert_array_equal(boxes.is_real(rows, [0, -1, 3, 3, 3, 3]), [True, *[False] * 5])


def test_overlaps_and_deltas_compile():
    first, second = drawn(6).reshape(2, 3, 4), drawn(10).reshape(2, 5, 4)

    @tf.function(jit_compile=True)
    def compiled(first, second):
        pairs = boxes.ciou(first[:, :, None], second[:, None])
        return pairs, boxes.pairwise_iou(first, second), boxes.decode(boxes.encode(first, second[:, :3]), second[:, :3])

    pairs, pairwise, back = compiled(first, second)
    np.testing.assert_allclose(pairs, boxes.ciou(first[:, :, None], second[:, None]), atol=1e-5)
    np.testing.assert_allclose(pairwise, boxes.iou(first[:, :, None], second[:, None]), atol=1e-6)
    np.testing.assert_allclose(back, first, atol=1e-3)


def test_half_precision_is_left_at_the_door():
    first, second = (tf.cast(drawn(3), tf.bfloat16) for _ in range(2))
    pairs = [function(first, second) for function in FAMILY.values()]
    others = boxes.pairwise_iou(first, second), boxes.encode(first, second), boxes.convert(first, "xyxy", "xywh")
    assert {value.dtype for value in (*pairs, *others)} == {tf.float32}


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="source must be one of xyxy"):
        boxes.convert(CORNERS[0], "corners", "xyxy")
    with pytest.raises(ValueError, match="needs image_shape"):
        boxes.convert(CORNERS[0], "xyxy", "rel_xyxy")
    with pytest.raises(ValueError, match=r"expected boxes \[..., 4\]"):
        boxes.iou([[1, 2, 3]], [[1, 2, 3]])
