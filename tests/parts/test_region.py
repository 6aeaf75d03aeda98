"""YOLOv2's grid against darknet's region layer, transcribed line by line: its `delta` is minus the gradient."""

import numpy as np
import pytest
import tensorflow as tf

from dmkeras.parts import region

ANCHORS, STRIDE, ROWS, COLUMNS, CLASSES = ((20.0, 14.0), (9.0, 30.0), (40.0, 44.0)), 16, 3, 4, 3
WEIGHTS = {"coordinate": 1.0, "object": 5.0, "no_object": 1.0, "class": 1.0, "prior": 0.01}
PICTURE = np.array([COLUMNS, ROWS]) * STRIDE


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def iou(a, b):
    """Of two boxes x, y, w, h (box_iou of src/box.c)."""
    low = np.maximum(a[:2] - a[2:] / 2, b[:2] - b[2:] / 2)
    high = np.minimum(a[:2] + a[2:] / 2, b[:2] + b[2:] / 2)
    shared = np.prod(np.maximum(high - low, 0))
    return shared / (np.prod(a[2:]) + np.prod(b[2:]) - shared)


def darknet_delta(raw, truths, classes, seen):
    """forward_region_layer of src/region_layer.c for one picture; boxes are fractions of the picture, as there."""
    delta = np.zeros_like(raw)
    size, grid, anchors = PICTURE / STRIDE, np.array([COLUMNS, ROWS]), np.array(ANCHORS) / STRIDE

    def predicted(j, i, n):
        t = raw[j, i, n]
        return np.concatenate([(np.array([i, j]) + sigmoid(t[:2])) / size, np.exp(t[2:4]) * anchors[n] / size])

    def pull(truth, j, i, n, scale):  # delta_region_box
        t = raw[j, i, n]
        at, log = truth[:2] * size - (i, j), np.log(truth[2:] * size / anchors[n])
        delta[j, i, n, :2] = scale * (at - sigmoid(t[:2])) * sigmoid(t[:2]) * (1 - sigmoid(t[:2]))
        delta[j, i, n, 2:4] = scale * (log - t[2:4])

    real = [(box, kind) for box, kind in zip(truths, classes) if kind >= 0]
    boxes = [np.concatenate([(b[:2] + b[2:]) / 2, b[2:] - b[:2]]) / np.tile(PICTURE, 2) for b, _ in real]
    for j, i, n in np.ndindex(ROWS, COLUMNS, len(ANCHORS)):
        o = sigmoid(raw[j, i, n, 4])
        best = max((iou(predicted(j, i, n), truth) for truth in boxes), default=0)
        delta[j, i, n, 4] = 0 if best > 0.6 else (0 - o) * o * (1 - o)
        if seen < 12800:
            pull(np.array([(i + 0.5) / size[0], (j + 0.5) / size[1], *(anchors[n] / size)]), j, i, n, 0.01)
    for truth, (_, kind) in zip(boxes, real):
        i, j = np.minimum((truth[:2] * size).astype(int), grid - 1)
        shapes = [iou(np.array([0, 0, *truth[2:]]), np.array([0, 0, *(a / size)])) for a in anchors]
        n = int(np.argmax(shapes))
        pull(truth, j, i, n, 2 - truth[2] * truth[3])
        o = sigmoid(raw[j, i, n, 4])
        delta[j, i, n, 4] = 5 * (iou(predicted(j, i, n), truth) - o) * o * (1 - o)
        softmax = np.exp(raw[j, i, n, 5:]) / np.exp(raw[j, i, n, 5:]).sum()
        delta[j, i, n, 5:] = np.eye(CLASSES)[kind] - softmax
    return delta


def example(seed=0, count=2):
    """Raw numbers of which some boxes fit truths well; a pair that shares a box; padding that holds a box."""
    rng = np.random.default_rng(seed)
    raw = rng.normal(0, 0.7, (count, ROWS, COLUMNS, len(ANCHORS), 5 + CLASSES))
    size = rng.uniform([8, 8], [44, 40], (count, 6, 2))
    corner = rng.uniform(0, 1, (count, 6, 2)) * (PICTURE - size)
    truths = np.concatenate([corner, corner + size], -1)
    truths[:, 1] = truths[:, 0] + [0.5, -0.25, 0.5, -0.25]  # the same cell and prior: the later one is trained
    raw[:, 0, 0, 0, :4] = 0
    truths[:, 2] = np.array([8, 8, 8, 8]) + np.array([-10, -7, 10, 7])  # that box, exactly
    truths[:, 2, :2] += 1  # and nearly
    classes = rng.integers(0, CLASSES, (count, 6))
    classes[:, 4] = -1
    return raw.astype("float32"), truths.astype("float32"), classes.astype("int32")


def loss(raw, truths, classes, weights=WEIGHTS, **options):
    terms = region.losses(raw, truths, classes, ANCHORS, STRIDE, **options)
    return tf.reduce_sum(tf.add_n([weights[name] * terms[name] for name in region.TERMS]))


def gradient(raw, truths, classes, **options):
    raw = tf.constant(raw)
    with tf.GradientTape() as tape:
        tape.watch(raw)
        value = loss(raw, truths, classes, **options)
    return value.numpy(), tape.gradient(value, raw).numpy()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("seen", [0, 12800])
def test_the_gradient_is_darknets(seed, seen):
    raw, truths, classes = example(seed)
    weights = {**WEIGHTS, "prior": WEIGHTS["prior"] if seen < 12800 else 0.0}
    _, found = gradient(raw, truths, classes, weights=weights)
    wanted = np.stack(
        [-darknet_delta(*row, seen) for row in zip(raw.astype("float64"), truths.astype("float64"), classes)]
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=2e-5)


def test_the_example_has_a_box_that_is_neither_trained_nor_empty_and_truths_that_share_one():
    raw, truths, classes = example()
    index, *_, real = region.assign(tf.constant(truths), tf.constant(classes), tf.shape(raw), ANCHORS, STRIDE)
    assert index[0, 0] == index[0, 1]
    assert not real[0, 0]
    assert real[0].numpy().any()
    found, *_ = region.decode(raw, ANCHORS, STRIDE)
    close = region.box.pairwise_iou(found, truths).numpy().max(-1) > region.IGNORED
    answers = np.zeros_like(close)
    np.put_along_axis(answers, index.numpy(), real.numpy(), 1)
    assert (close & ~answers).any()


def test_zeros_are_the_middle_of_the_cell_and_the_prior():
    found, objectness, logits = region.decode(np.zeros((1, ROWS, COLUMNS, 3, 5 + CLASSES), "float32"), ANCHORS, STRIDE)
    assert objectness.shape == (1, ROWS * COLUMNS * 3)
    assert logits.shape == (1, ROWS * COLUMNS * 3, CLASSES)
    x, y = np.meshgrid(np.arange(COLUMNS) + 0.5, np.arange(ROWS) + 0.5)
    centre = np.stack([x, y], -1)[:, :, None] * STRIDE
    half = np.array(ANCHORS) / 2
    wanted = np.concatenate([centre - half, centre + half], -1).reshape(1, -1, 4)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    loose, *_ = region.decode(np.zeros((1, ROWS, COLUMNS, 3, 5 + CLASSES), "float32"), ANCHORS, STRIDE, direct=False)
    np.testing.assert_allclose(loose, wanted, atol=1e-5)


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("box_loss", region.BOX_LOSSES)
def test_a_box_that_is_its_truth_has_no_coordinate_loss(direct, box_loss):
    truth = np.array([[[3.0, 20.0, 21.0, 36.0]]], "float32")
    raw = tf.zeros((1, ROWS, COLUMNS, 3, 5 + CLASSES))
    index, prior, place, _ = region.assign(tf.constant(truth), tf.constant([[0]]), tf.shape(raw), ANCHORS, STRIDE)
    xy = np.log(place / (1 - place)) if direct else (place - 0.5) * STRIDE / prior
    t = np.concatenate([xy, np.log(np.array([18.0, 16.0]) / prior)], -1)[0, 0]
    flat = np.zeros((ROWS * COLUMNS * 3, 5 + CLASSES), "float32")
    flat[index[0, 0], :4] = t
    raw = flat.reshape(raw.shape)
    terms = region.losses(raw, truth, [[0]], ANCHORS, STRIDE, direct=direct, box_loss=box_loss)
    assert terms["coordinate"][0] < 1e-5
    np.testing.assert_allclose(terms["iou"], 1, atol=1e-4)
    flat[index[0, 0], :2] += 0.3
    assert region.losses(raw, truth, [[0]], ANCHORS, STRIDE, direct=direct, box_loss=box_loss)["coordinate"][0] > 1e-3


def test_a_centre_on_the_far_border_stays_in_the_last_cell():
    width, height = PICTURE
    truths = tf.constant([[[width - 10.0, height - 8.0, width + 10.0, height + 8.0]]])
    index, _, place, real = region.assign(truths, tf.constant([[1]]), [1, ROWS, COLUMNS, 3, 8], ANCHORS, STRIDE)
    assert real.numpy().all()
    assert index.numpy().item() // 3 == ROWS * COLUMNS - 1
    np.testing.assert_allclose(place, 1)


@pytest.mark.parametrize("options", [{}, {"box_loss": "ciou"}, {"direct": False}, {"rescore": False}], ids=str)
def test_padding_and_boxes_without_area_change_nothing(options):
    raw, truths, classes = example()
    bad = np.array([[5, 5, 5, 9], [9, 9, 4, 20], [np.nan, 0, 9, 9], [0, 0, np.inf, 9], [0, 0, 8, 8]], "float32")
    more = np.concatenate([truths, np.tile(bad, (2, 1, 1))], 1), np.concatenate([classes, [[0, 1, 2, 0, -1]] * 2], 1)
    value, slope = gradient(raw, truths, classes, **options)
    value2, slope2 = gradient(raw, more[0].astype("float32"), more[1].astype("int32"), **options)
    np.testing.assert_allclose(value, value2, rtol=1e-6)
    np.testing.assert_allclose(slope, slope2, rtol=1e-5, atol=1e-7)
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("options", [{}, {"box_loss": "ciou"}, {"direct": False}], ids=str)
def test_pictures_without_a_box_teach_that_there_is_none(options):
    raw, truths, classes = example()
    for given in ((truths[:, :0], classes[:, :0]), (np.full_like(truths, np.nan), np.full_like(classes, -1))):
        value, slope = gradient(raw, *given, weights={**WEIGHTS, "prior": 0.0}, **options)
        o = sigmoid(raw[..., 4])
        np.testing.assert_allclose(value, (o**2 / 2).sum(), rtol=1e-5)
        np.testing.assert_allclose(slope[..., 4], o * o * (1 - o), rtol=1e-4, atol=1e-6)
        assert not slope[..., :4].any()
        assert not slope[..., 5:].any()


@pytest.mark.parametrize("box_loss", region.BOX_LOSSES)
def test_the_order_of_truths_does_not_matter_where_none_shares_a_box(box_loss):
    raw, truths, classes = example()
    *_, real = region.assign(tf.constant(truths), tf.constant(classes), tf.shape(raw), ANCHORS, STRIDE)
    classes = np.where(real, classes, -1)
    order = np.array([3, 0, 4, 2, 1, 5])
    np.testing.assert_allclose(
        loss(raw, truths, classes, box_loss=box_loss),
        loss(raw, truths[:, order], classes[:, order], box_loss=box_loss),
        rtol=1e-5,
    )


@pytest.mark.parametrize("options", [{}, {"box_loss": "ciou"}, {"direct": False}], ids=str)
def test_a_mirrored_picture_has_the_same_loss(options):
    raw, truths, classes = example()
    mirrored = raw[:, :, ::-1].copy()
    mirrored[..., 0] *= -1
    width = PICTURE[0]
    flipped = np.stack([width - truths[..., 2], truths[..., 1], width - truths[..., 0], truths[..., 3]], -1)
    np.testing.assert_allclose(
        loss(raw, truths, classes, **options), loss(mirrored, flipped, classes, **options), rtol=1e-5
    )
    assert abs(loss(raw, truths, classes, **options) - loss(mirrored, truths, classes, **options)) > 1e-2


def test_wild_numbers_stay_finite():
    raw, truths, classes = example()
    for scale in (30.0, 1000.0):
        for box_loss in region.BOX_LOSSES:
            value, slope = gradient(scale * raw, truths, classes, box_loss=box_loss)
            assert np.isfinite(value)
            assert np.isfinite(slope).all()


def test_numbers_of_lower_precision_are_taken_as_they_are():
    raw, truths, classes = example()
    low = tf.cast(raw, "bfloat16")
    np.testing.assert_allclose(loss(low, truths, classes), loss(tf.cast(low, "float32"), truths, classes))
    assert loss(low, truths, classes).dtype == "float32"


@pytest.mark.parametrize("anchors", [(), ((1.0, 2.0, 3.0),), ((0.0, 1.0),), ((1.0, np.inf),), "big"], ids=str)
def test_anchors_that_are_none_are_refused(anchors):
    with pytest.raises(ValueError, match="pairs"):
        region.checked_anchors(anchors)
