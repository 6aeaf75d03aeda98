"""SSD's loss against a transcription of Caffe's multibox layer, and against known mistakes; targets that are none."""

import numpy as np
import pytest
import tensorflow as tf

from dmkeras.parts import multibox
from dmkeras.parts.anchors import ssd_priors

CLASSES = 3
PRIORS = ssd_priors((6, 3), (8, 16), (12, 24, 40), ((2,), (2, 3)))  # a picture of 48x48 pixels, [198, 4]


def jaccard(a, b):
    sides = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    area = lambda c: (c[2] - c[0]) * (c[3] - c[1])
    return sides.prod() / (area(a) + area(b) - sides.prod())


def matches(truths, priors, least=0.5, bipartite=True):
    """MatchBBox of bbox_util.cpp: the truth of each prior, -1 for none."""
    overlaps = np.array([[jaccard(prior, truth) for truth in truths] for prior in priors]).reshape(len(priors), -1)
    overlaps[overlaps <= 1e-6] = -1
    found, pool = np.full(len(priors), -1), list(range(len(truths)))
    while bipartite and pool:
        left = [(overlaps[i, j], -i, -j) for i in np.flatnonzero(found < 0) for j in pool if overlaps[i, j] > 0]
        if not left:
            break
        _, i, j = max(left)
        found[-i] = -j
        pool.remove(-j)
    for i in np.flatnonzero(found < 0):
        if len(truths) and overlaps[i].max() >= least:
            found[i] = overlaps[i].argmax()
    return found


def reference(raw, truths, classes, ratio=3, bipartite=True, background=0, least=0.5, swapped=False):
    """MultiBoxLoss of one picture: (localization, confidence, matched, negatives); options are known mistakes."""
    real = [(t, k) for t, k in zip(truths, classes) if k >= 0 and np.isfinite(t).all() and t[2] > t[0] and t[3] > t[1]]
    found = matches([t for t, _ in real], PRIORS, least, bipartite)
    variances = np.array([0.2, 0.2, 0.1, 0.1] if swapped else [0.1, 0.1, 0.2, 0.2])
    place = (lambda kind: kind + 1) if background == 0 else (lambda kind: kind)
    logs = raw[:, 4:] - np.log(np.exp(raw[:, 4:]).sum(-1, keepdims=True))
    localization = confidence = 0.0
    for i in np.flatnonzero(found >= 0):
        (x1, y1, x2, y2), (p1, q1, p2, q2) = real[found[i]][0], PRIORS[i]
        goal = [((x1 + x2) - (p1 + p2)) / 2 / (p2 - p1), ((y1 + y2) - (q1 + q2)) / 2 / (q2 - q1)]
        goal += [np.log((x2 - x1) / (p2 - p1)), np.log((y2 - y1) / (q2 - q1))]
        d = np.abs(raw[i, :4] - np.array(goal) / variances)
        localization += np.where(d < 1, d**2 / 2, d - 0.5).sum()
        confidence -= logs[i, place(real[found[i]][1])]
    losses = sorted(-logs[found < 0, background])[::-1]
    chosen = losses if ratio is None else losses[: int(ratio * (found >= 0).sum())]
    return localization, confidence + sum(chosen), (found >= 0).sum(), len(chosen)


def example(seed=0, count=3):
    """Raw numbers, and truths of all kinds: crowded, large, tiny between priors, padding that holds a box, no box."""
    rng = np.random.default_rng(seed)
    raw = rng.normal(0, 1.5, (count, len(PRIORS), 5 + CLASSES))
    size = rng.uniform(6, 30, (count, 7, 2))
    corner = rng.uniform(0, 1, (count, 7, 2)) * (48 - size)
    truths = np.concatenate([corner, corner + size], -1)
    truths[:, 1] = truths[:, 0] + 1  # nearly the same
    truths[:, 2, 2:] = truths[:, 2, :2] + [4, 5]  # no prior reaches IoU 1/2
    truths[:, 3] = [0.0, 0.0, 46.0, 44.0]
    truths[:, 5, 2] = truths[:, 5, 0]  # without area
    classes = rng.integers(0, CLASSES, (count, 7))
    classes[:, 4] = -1
    truths[0, 6], truths[1, 6] = np.nan, truths[1, 6][[2, 3, 0, 1]]
    classes[2] = -1
    return raw.astype("float32"), truths.astype("float32"), classes.astype("int32")


def found(*case, **options):
    return {name: values.numpy() for name, values in multibox.losses(*case, PRIORS, **options).items()}


@pytest.mark.parametrize("seed", range(4))
def test_the_loss_of_each_picture_is_caffes(seed):
    raw, truths, classes = example(seed)
    wanted = [reference(*row) for row in zip(raw.astype("float64"), truths.astype("float64"), classes)]
    here = found(raw, truths, classes)
    for name, values in zip(("localization", "confidence", "matched", "negatives"), np.array(wanted).T):
        np.testing.assert_allclose(here[name], values, rtol=2e-5, err_msg=name)
    assert here["matched"][:2].min() > 3
    assert here["matched"][2] == 0


@pytest.mark.parametrize(
    ("mistake", "term"),
    [
        ({"ratio": None}, "confidence"),  # all negatives
        ({"ratio": 2}, "negatives"),
        ({"bipartite": False}, "matched"),
        ({"background": CLASSES}, "confidence"),
        ({"least": 0.4}, "matched"),
        ({"swapped": True}, "localization"),
    ],
)
def test_a_loss_by_another_rule_is_another_number(mistake, term):
    raw, truths, classes = example()
    place = ("localization", "confidence", "matched", "negatives").index(term)
    wrong = reference(raw[0].astype("float64"), truths[0].astype("float64"), classes[0], **mistake)[place]
    assert abs(found(raw, truths, classes)[term][0] - wrong) > 0.02 * abs(wrong)


@pytest.mark.parametrize("options", [{"ratio": 1.0}, {"ratio": 2.5}, {"least_iou": 0.35}])
def test_ratio_and_least_overlap_are_the_callers(options):
    raw, truths, classes = example(5)
    wanted = reference(raw[0], truths[0], classes[0], options.get("ratio", 3), least=options.get("least_iou", 0.5))
    here = found(raw, truths, classes, **options)
    np.testing.assert_allclose([here[n][0] for n in ("confidence", "matched", "negatives")], wanted[1:], rtol=1e-4)


def test_each_truth_has_a_prior_of_its_own():
    """Ten equal small boxes, none of which any prior fits: ten priors, not one and not none."""
    truths = np.tile(np.array([10.0, 10, 13, 13], "float32"), (1, 10, 1))
    _, kinds = multibox.targets(truths, np.zeros((1, 10), "int32"), PRIORS)
    assert np.sum(kinds) == 10
    inside = np.flatnonzero(kinds[0].numpy())
    assert all(jaccard(PRIORS[i], truths[0, 0]) > 0 for i in inside)
    assert kinds[0, 0] == 0 or 0 in inside


def test_what_is_learned_leads_back_to_the_truth():
    _, truths, classes = example(1)
    goals, kinds = multibox.targets(truths, classes, PRIORS)
    raw = tf.concat([goals, tf.one_hot(kinds, 1 + CLASSES) * 50], -1)
    boxes, scores = multibox.decode(raw, PRIORS)
    assert scores.shape == (3, len(PRIORS), CLASSES)
    for b, i in np.argwhere(kinds.numpy() > 0):
        fits = np.abs(truths[b] - boxes[b, i]).max(-1) < 1e-3
        assert (fits & (classes[b] == np.argmax(scores[b, i]))).any()
    none = kinds.numpy() == 0
    np.testing.assert_allclose(scores.numpy()[none], 0, atol=1e-6)
    np.testing.assert_allclose(boxes.numpy()[none], np.tile(PRIORS, (3, 1, 1))[none], atol=1e-4)
    perfect = multibox.losses(raw, truths, classes, PRIORS)
    np.testing.assert_allclose(perfect["localization"], 0, atol=1e-6)


def test_order_padding_and_neighbours_change_nothing():
    raw, truths, classes = example(2)
    here = found(raw, truths, classes)
    order = np.random.default_rng(0).permutation(7)
    padded = np.concatenate([truths[:, order], np.full((3, 4, 4), 7.0, "float32")], 1)
    more = np.concatenate([classes[:, order], np.full((3, 4), -1, "int32")], 1)
    again, alone = found(raw, padded, more), found(raw[1:2], truths[1:2], classes[1:2])
    for name, values in here.items():
        np.testing.assert_allclose(again[name], values, rtol=1e-5)
        np.testing.assert_allclose(alone[name][0], values[1], rtol=1e-5)


def test_mirrored_pictures_have_the_same_loss():
    raw, truths, classes = example(3)
    truths[:, 5:], truths[:, 2] = 0, 0  # the reversed are no mirror images; the tiny fit many priors equally well
    mirror = lambda boxes: np.stack([48 - boxes[..., 2], boxes[..., 1], 48 - boxes[..., 0], boxes[..., 3]], -1)
    distance = np.abs(mirror(PRIORS)[:, None] - PRIORS[None]).max(-1)
    order = distance.argmin(1)
    assert distance.min(1).max() < 1e-4
    turned = raw[:, order] * np.array([-1, 1, 1, 1, *[1] * (1 + CLASSES)], "float32")
    here, there = found(raw, truths, classes), found(turned, mirror(truths).astype("float32"), classes)
    for name, values in here.items():
        np.testing.assert_allclose(there[name], values, rtol=1e-4)


NONE = {
    "padding": (np.full((2, 3, 4), np.nan), np.full((2, 3), -1)),
    "no rows": (np.zeros((2, 0, 4)), np.zeros((2, 0))),
    "no area": (np.tile([5.0, 5, 5, 9], (2, 3, 1)), np.ones((2, 3))),
    "reversed": (np.tile([9.0, 9, 5, 5], (2, 3, 1)), np.ones((2, 3))),
    "not finite": (np.full((2, 3, 4), np.inf), np.ones((2, 3))),
    "outside": (np.tile([500.0, 500, 520, 520], (2, 3, 1)), np.ones((2, 3))),
}


@pytest.mark.parametrize("kind", NONE)
def test_targets_that_are_none_cost_nothing_and_have_gradient_zero(kind):
    truths, classes = (values.astype(dtype) for values, dtype in zip(NONE[kind], ("float32", "int32")))
    raw = tf.constant(example()[0][:2])
    with tf.GradientTape() as tape:
        tape.watch(raw)
        here = multibox.losses(raw, truths, classes, PRIORS)
        total = tf.reduce_sum(here["localization"] + here["confidence"])
    assert total == 0
    assert tf.reduce_sum(here["negatives"]) == 0
    np.testing.assert_array_equal(tape.gradient(total, raw), 0)


def test_degenerate_truths_beside_real_ones_leave_gradients_finite():
    raw, truths, classes = example()
    truths[:, 3, 2:] = truths[:, 3, :2] + 1e-9  # hardly an area
    raw = tf.constant(raw * 100)
    with tf.GradientTape() as tape:
        tape.watch(raw)
        here = multibox.losses(raw, truths, classes, PRIORS)
        total = tf.reduce_sum(here["localization"] + here["confidence"])
    assert np.isfinite(total)
    slope = tape.gradient(total, raw).numpy()
    assert np.isfinite(slope).all()
    # of a matched or chosen prior alone
    assert np.sum(np.abs(slope[..., 4:]).sum(-1) > 0) <= np.sum(here["matched"] + here["negatives"])
    assert np.abs(slope[..., :4]).max() <= 1 + 1e-6  # smooth L1


def test_hard_negatives_are_the_highest_losses_of_those_allowed():
    losses = np.array([[5.0, 1, 4, 3, 2, 0]] * 5, "float32")
    allowed = np.array([[False, True, True, True, True, True]] * 5)
    chosen = multibox.hard_negatives(losses, allowed, tf.constant([0.0, 1, 3, 5, 9])).numpy()
    wanted = [[], [2], [2, 3, 4], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]
    assert [np.flatnonzero(row).tolist() for row in chosen] == wanted


def test_of_equal_losses_the_first_are_chosen_and_never_more_than_the_count():
    losses = np.array([[1.0, 2, 2, 2, 1, 2], [0.0] * 6], "float32")
    chosen = multibox.hard_negatives(losses, np.ones((2, 6), bool), tf.constant([3.0, 2.0])).numpy()
    assert [np.flatnonzero(row).tolist() for row in chosen] == [[1, 2, 3], [0, 1]]


def test_smooth_l1_is_a_square_then_a_line_without_a_step():
    d = tf.constant([-3.0, -1.0, -0.5, 0.0, 0.999999, 1.0, 2.0])
    with tf.GradientTape() as tape:
        tape.watch(d)
        value = multibox.smooth_l1(d)
    np.testing.assert_allclose(value, [2.5, 0.5, 0.125, 0, 0.5, 0.5, 1.5], atol=1e-5)
    np.testing.assert_allclose(tape.gradient(value, d), [-1, -1, -0.5, 0, 1, 1, 1], atol=1e-5)


def test_sides_are_decoded_finite():
    raw = np.full((1, len(PRIORS), 5 + CLASSES), 1e6, "float32")
    assert np.isfinite(multibox.decode(raw, PRIORS)[0]).all()


def test_the_loss_compiles_under_xla():
    case = [tf.constant(values) for values in example(4)]
    compiled = tf.function(lambda *case: multibox.losses(*case, PRIORS), jit_compile=True)(*case)
    for name, values in found(*case).items():
        np.testing.assert_allclose(compiled[name], values, rtol=1e-4)
