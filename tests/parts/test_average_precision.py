"""Laws of average precision, its known numbers, and the rules that other tools have wrong."""

import numpy as np
import pytest
import tensorflow as tf

from dmkeras.parts import average_precision
from dmkeras.parts.average_precision import coco, collect, voc

A, B, FAR = (0, 0, 10, 10), (20, 20, 40, 40), (60, 60, 70, 70)


def picture(*rows, scores=None, **more):
    """One entry of (box, class) rows."""
    boxes = np.array([box for box, _ in rows], "float32").reshape(-1, 4)
    entry = {"boxes": boxes, "classes": np.array([kind for _, kind in rows], "int32"), **more}
    return entry if scores is None else entry | {"scores": np.array(scores, "float32")}


TWO = picture((A, 0), (B, 0))
FOUND = picture((A, 0), scores=[0.9])
NOTHING = picture(scores=[])
# Section "Average precision" of the fixtures: truths, detections, figures of pycocotools 2.0.11.
FIXTURES = {
    "right, wrong, right": ([TWO], [picture((A, 0), (FAR, 0), (B, 0), scores=[0.9, 0.8, 0.7])], {"map": 0.834983}),
    "found twice, the second time last": (
        [picture((A, 0))],
        [picture((A, 0), (A, 0), scores=[0.9, 0.8])],
        {"map": 1.0},
    ),
    "found twice before another": (
        [TWO],
        [picture((A, 0), (A, 0), (B, 0), scores=[0.9, 0.8, 0.7])],
        {"map": 0.834983},
    ),
    "IoU .8": ([picture((A, 0))], [picture(((0, 0, 10, 8), 0), scores=[0.9])], {"map": 0.7, "map50": 1, "map75": 1}),
    "another class": ([picture((A, 0))], [picture((A, 1), scores=[0.9])], {"map": 0.0}),
    "one of two pictures": ([picture((A, 0))] * 2, [FOUND, NOTHING], {"map": 0.504950}),
    "one of four pictures": ([picture((A, 0))] * 4, [FOUND] + [NOTHING] * 3, {"map": 0.257426, "ar100": 0.25}),
}


@pytest.mark.parametrize(("truths", "detections", "figures"), FIXTURES.values(), ids=FIXTURES)
def test_coco_gives_the_known_numbers_and_prints_nothing(truths, detections, figures, capsys):
    found = coco(truths, detections, 2)
    for name, value in figures.items():
        np.testing.assert_allclose(found[name], value, atol=5e-7, err_msg=name)
    np.testing.assert_allclose(found["per_class"], [found["map"], np.nan])
    assert capsys.readouterr() == ("", "")


def test_only_pictures_that_have_detections_is_a_wrong_rule():
    """KerasCV 0.9's BoxCOCOMetrics: 1.0 where one picture of two, or of four, was found."""
    for name in ("one of two pictures", "one of four pictures"):
        truths, detections, figures = FIXTURES[name]
        seen = [i for i, found in enumerate(detections) if len(found["boxes"])]
        wrong = coco([truths[i] for i in seen], [detections[i] for i in seen], 2)
        assert wrong["map"] == pytest.approx(1)
        assert figures["map"] < 0.6


def test_sizes_are_left_out_where_there_is_no_truth_of_them():
    small, large = picture((A, 0)), picture(((0, 0, 100, 100), 0))
    found = coco([small, large], [FOUND, NOTHING], 1)
    assert found["map_small"] == pytest.approx(1)
    assert found["map_large"] == 0
    assert "map_medium" not in found
    edges = coco([picture(((0, 0, 33, 33), 0), ((0, 0, 97, 97), 0))], [picture(((0, 0, 33, 33), 0), scores=[1])], 1)
    assert (edges["map_medium"], edges["map_large"]) == pytest.approx((1, 0))
    assert "map_small" not in edges


def scene(seed, count=12, num_classes=3):
    """Truths of class 0 and 2 alone, and detections of all, some of them near a truth."""
    generator = np.random.default_rng(seed)
    truths, detections = [], []
    for _ in range(count):
        n = generator.integers(0, 5)
        corners = generator.uniform(0, 60, (n, 2))
        boxes = np.concatenate([corners, corners + generator.uniform(8, 30, (n, 2))], axis=1)
        classes = 2 * generator.integers(0, 2, n)
        truths.append({"boxes": boxes, "classes": classes, "difficult": generator.random(n) < 0.2})
        near = boxes[generator.random(n) < 0.8]
        near = near + generator.normal(0, 1.5, near.shape)
        other = np.concatenate([corners + 30, corners + 45], axis=1)
        found = np.concatenate([near, near[:1], other])
        kinds = generator.integers(0, num_classes, len(found))
        kinds[: len(near)] = np.where(generator.random(len(near)) < 0.8, 0, 2)
        detections.append({"boxes": found, "classes": kinds, "scores": generator.random(len(found))})
    return truths, detections


@pytest.mark.parametrize("metric", [coco, voc])
def test_order_padding_and_the_scale_of_scores_change_nothing(metric):
    truths, detections = scene(0)
    expected = metric(truths, detections, 3)
    assert 0.05 < expected["map"] < 0.95
    turned = [{key: value[::-1] for key, value in found.items()} for found in detections[::-1]]
    pad = lambda entry: {
        key: np.concatenate([value[:1] * 0 + (-1 if key == "classes" else np.nan), value])
        if len(value) and key != "difficult"
        else np.concatenate([value[:1], value])
        for key, value in entry.items()
    }
    scaled = [{**found, "scores": 5 * found["scores"] - 9} for found in detections]
    variants = [(truths[::-1], turned), (list(map(pad, truths)), list(map(pad, detections))), (truths, scaled)]
    for variant in variants:
        found = metric(*variant, 3)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, atol=1e-9, err_msg=name)
    assert np.isnan(expected["per_class"]).tolist() == [False, True, False]
    np.testing.assert_allclose(np.nanmean(expected["per_class"]), expected["map"])


def test_the_first_truth_and_the_first_detection_can_match():
    """Known wrong: numbers from 0, which pycocotools takes for "no match"."""
    found = coco([picture((A, 0))], [FOUND], 1)
    assert (found["map"], found["map50"], found["ar100"]) == pytest.approx((1, 1, 1))
    assert found["per_class50"] == pytest.approx(1)


def test_nothing_found_is_zero_and_a_hundred_count_in_a_picture():
    assert coco([TWO], [NOTHING], 1)["map"] == voc([TWO], [NOTHING], 1)["map"] == 0
    rows = [(FAR, 0)] * 100 + [(A, 0)]
    late = picture(*rows, scores=np.linspace(1, 0.5, 101))
    assert coco([TWO], [late], 1)["map"] == 0
    assert voc([TWO], [late], 1)["map"] > 0


# Pascal VOC.


def by_the_devkit(truths, detections, kind, least, rule):
    """VOCevaldet.m and VOCap.m, step by step, of one class."""
    rows = [(i, *row) for i, d in enumerate(detections) for row in zip(d["scores"], d["boxes"], d["classes"])]
    found = [(score, i, box) for i, score, box, k in rows if k == kind]
    found.sort(key=lambda row: -row[0])
    detected, tp, fp = set(), np.zeros(len(found)), np.zeros(len(found))
    for d, (_, i, bb) in enumerate(found):
        ovmax, jmax = -np.inf, None
        for j, bbgt in enumerate(truths[i]["boxes"]):
            if truths[i]["classes"][j] != kind:
                continue
            iw, ih = min(bb[2], bbgt[2]) - max(bb[0], bbgt[0]), min(bb[3], bbgt[3]) - max(bb[1], bbgt[1])
            if iw > 0 and ih > 0:
                area = lambda box: (box[2] - box[0]) * (box[3] - box[1])
                ov = iw * ih / (area(bb) + area(bbgt) - iw * ih)
                if ov > ovmax:
                    ovmax, jmax = ov, j
        if ovmax >= least:
            if not truths[i]["difficult"][jmax]:
                (fp if (i, jmax) in detected else tp)[d] = 1
                detected.add((i, jmax))
        else:
            fp[d] = 1
    npos = sum(int(((t["classes"] == kind) & ~t["difficult"]).sum()) for t in truths)
    if not npos:
        return np.nan
    fp, tp = np.cumsum(fp), np.cumsum(tp)
    rec, prec = tp / npos, tp / np.maximum(fp + tp, 1e-300)
    if rule == "11_points":
        return np.mean([max(prec[rec >= k / 10], default=0) for k in range(11)])
    mrec, mpre = np.r_[0, rec, 1], np.r_[0, prec, 0]
    for i in range(len(mpre) - 2, -1, -1):
        mpre[i] = max(mpre[i], mpre[i + 1])
    steps = np.flatnonzero(mrec[1:] != mrec[:-1]) + 1
    return np.sum((mrec[steps] - mrec[steps - 1]) * mpre[steps])


@pytest.mark.parametrize("rule", ["area", "11_points"])
@pytest.mark.parametrize("least", [0.5, 0.7])
def test_voc_is_the_devkit(rule, least):
    for seed in range(4):
        truths, detections = scene(seed)
        expected = [by_the_devkit(truths, detections, kind, least, rule) for kind in range(3)]
        found = voc(truths, detections, 3, least, rule)
        np.testing.assert_allclose(found["per_class"], expected, atol=1e-12)
        np.testing.assert_allclose(found["map"], np.nanmean(expected))


@pytest.mark.parametrize(("rule", "value"), [("area", 0.833333), ("11_points", 0.848485)])
def test_voc_gives_the_known_numbers(rule, value):
    truths, detections, _ = FIXTURES["right, wrong, right"]
    np.testing.assert_allclose(voc(truths, detections, 1, rule=rule)["map"], value, atol=5e-7)


def test_a_recall_of_three_tenths_reaches_its_point():
    """Known wrong: points k * .1, of which the fourth is .30000000000000004."""
    boxes = [((20 * k, 0, 20 * k + 10, 10), 0) for k in range(10)]
    found = voc([picture(*boxes)], [picture(*boxes[:3], scores=[0.9, 0.8, 0.7])], 1, rule="11_points")
    np.testing.assert_allclose(found["map"], 4 / 11)


def test_difficult_objects_neither_count_nor_punish():
    truth = picture((A, 0), (B, 0), difficult=np.array([False, True]))
    both = [picture((B, 0), (B, 0), (A, 0), scores=[0.9, 0.8, 0.7])]
    assert voc([truth], both, 1)["map"] == voc([truth], [FOUND], 1)["map"] == 1
    assert voc([TWO], [FOUND], 1)["map"] == 0.5
    assert voc([TWO], both, 1)["map"] < 1
    with pytest.raises(ValueError, match="difficult ones alone"):
        voc([picture((A, 0), difficult=np.array([True]))], [FOUND], 1)


# Collecting.


def test_detections_are_collected_in_batches_of_one_shape():
    images = np.random.default_rng(0).random((7, 4, 4, 1), "float32")
    traces = []

    @tf.function
    def detect(batch):
        traces.append(batch.shape)
        means = tf.reduce_mean(batch, axis=(1, 2))  # [B, 1]
        two = tf.concat([means, means + 1], axis=1)
        classes = tf.where(two > 1, [[0, 3]], [[-1, 3]])
        return {"boxes": tf.stack([two] * 4, axis=-1), "scores": two, "classes": classes, "num_detections": classes[0]}

    for batch_size in (3, 7, 10):
        found = collect(detect, images, batch_size)
        assert len(found) == 7
        for one, image in zip(found, images):
            assert one["classes"].tolist() == [3]
            np.testing.assert_allclose(one["scores"], [image.mean() + 1], rtol=1e-6)
            assert one["boxes"].shape == (1, 4)
    assert traces == [(3, 4, 4, 1), (7, 4, 4, 1), (10, 4, 4, 1)]
    assert collect(detect, images[:0], 3) == []


# Doors.


@pytest.mark.parametrize(
    ("truths", "detections", "words"),
    [
        ([TWO], [], "of the same pictures, received 1 and 0 entries"),
        ([picture()], [FOUND], "at least one true box, received none"),
        ([picture(((10, 0, 0, 10), 0))], [FOUND], r"truths\[0\] has the box \[10.0, 0.0, 0.0, 10.0\], empty, reversed"),
        ([picture(((0, 0, 0, 10), 0))], [FOUND], "empty, reversed"),
        ([TWO] * 2, [FOUND, picture(((10, 0, 0, 10), 0), scores=[1])], r"detections\[1\] has the box"),
        ([TWO], [picture(((np.nan, 0, 5, 10), 0), scores=[1])], "not finite; expected x1, y1, x2, y2"),
        ([TWO], [picture((A, 0), scores=[np.nan])], r"detections\[0\] has scores that are not finite: nan"),
        ([TWO], [picture((A, 2), scores=[1])], "has the class 2; expected whole numbers from -1 to 1"),
        ([picture((A, -2))], [FOUND], "has the class -2"),
        ([{**TWO, "classes": np.array([0, 0.5])}], [FOUND], "has the class 0.5"),
        ([TWO], [TWO], "has no scores; it has boxes, classes"),
        ([TWO], [picture((A, 0), scores=[1, 1])], r"received \[1, 4\], \[1\] and \[2\]"),
        ([{**TWO, "boxes": np.zeros((2, 5))}], [FOUND], r"received \[2, 5\]"),
    ],
)
@pytest.mark.parametrize("metric", [coco, voc])
def test_what_makes_no_sense_is_refused(metric, truths, detections, words):
    with pytest.raises(ValueError, match=words):
        metric(truths, detections, 2)


def test_other_rules_are_refused():
    with pytest.raises(ValueError, match="'area' or '11_points', received 'coco'"):
        voc([TWO], [FOUND], 1, rule="coco")
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        collect(None, np.zeros((1, 2, 2, 1)), 0)


def test_an_empty_detection_and_classes_as_floats_are_taken():
    found = picture((A, 0), ((5, 5, 5, 5), 0), scores=[0.9, 0.8])
    assert coco([picture((A, 0))], [{**found, "classes": np.array([0.0, 0.0])}], 1)["map"] == pytest.approx(1)
    assert average_precision.ious(np.zeros(4), np.array([A, B], float)).tolist() == [0, 0]
