"""Laws of non-maximum suppression by class: the greedy rule, whatever the batch, the order and the compiler."""

import numpy as np
import pytest
import tensorflow as tf

from dmkeras.parts.nms import class_aware_nms


def drawn(seed, pictures=2, count=40, kinds=3, ties=False):
    """Crowded boxes with whole corners and scores of which some fall below the threshold."""
    generator = np.random.default_rng(seed)
    low, size = generator.integers(0, 30, (pictures, count, 2)), generator.integers(1, 25, (pictures, count, 2))
    scores = generator.random((pictures, count, kinds))
    scores = np.round(scores, 1) if ties else scores
    return np.concatenate([low, low + size], -1).astype("float32"), scores.astype("float32")


def naive(boxes, scores, max_detections=100, iou_threshold=0.45, score_threshold=0.005, by_class=True, equal=False):
    """One picture, class by class, a loop in NumPy: [(score, class, box)], best first; ties in the order given."""
    found = []
    for kind in range(scores.shape[1]):
        kept = []
        for row in np.argsort(-scores[:, kind], kind="stable"):
            box, score = boxes[row], scores[row, kind]
            if score > score_threshold:
                others = kept if by_class else kept + [boxes[r] for _, r, _ in found]
                low = [np.maximum(box[:2], other[:2]) for other in others]
                high = [np.minimum(box[2:], other[2:]) for other in others]
                shared = [np.prod(np.maximum(h - l, 0)) for l, h in zip(low, high)]  # noqa: E741
                whole = [np.prod(b[2:] - b[:2]) + np.prod(box[2:] - box[:2]) for b in others]
                overlaps = [s / max(w - s, 1e-9) for s, w in zip(shared, whole)]
                if not any(o > iou_threshold or (equal and o >= iou_threshold) for o in overlaps):
                    kept.append(box)
                    found.append((-score, row, kind))
    return [(-score, kind, boxes[row]) for score, row, kind in sorted(found)[:max_detections]]


def same(found, boxes, scores, **options):
    """Whether `found` is what `naive` gives, picture by picture, padding included."""
    alike = []
    for picture in range(len(boxes)):
        expected = naive(boxes[picture], scores[picture], **options)
        count = len(expected)
        part = {name: np.asarray(value[picture]) for name, value in found.items()}
        alike.append(
            part["num_detections"] == count
            and np.array_equal(part["scores"][:count], [score for score, *_ in expected])
            and np.array_equal(part["classes"][:count], [kind for _, kind, _ in expected])
            and np.array_equal(part["boxes"][:count], np.reshape([box for *_, box in expected], (-1, 4)))
            and not part["boxes"][count:].any()
            and not part["scores"][count:].any()
            and (part["classes"][count:] == -1).all()
        )
    return all(alike)


compiled = tf.function(class_aware_nms, jit_compile=True)
CLUSTERS = np.array(
    [[0, 0, 1, 1], [0, 0.1, 1, 1.1], [0, -0.1, 1, 0.9], [0, 10, 1, 11], [0, 10.1, 1, 11.1], [0, 100, 1, 101]], "float32"
)[None]


def test_three_clusters_keep_the_boxes_of_tensorflows_own_test():
    """tensorflow/core/kernels/image/non_max_suppression_op_test.cc."""
    scores = np.array([0.9, 0.75, 0.6, 0.95, 0.5, 0.3], "float32")[None, :, None]
    for count, expected in ((3, [3, 0, 5]), (2, [3, 0]), (5, [3, 0, 5])):
        found = class_aware_nms(CLUSTERS, scores, count, iou_threshold=0.5)
        assert found["num_detections"] == len(expected)
        np.testing.assert_array_equal(found["boxes"][0, : len(expected)], CLUSTERS[0, expected])
        np.testing.assert_array_equal(found["scores"][0, : len(expected)], scores[0, expected, 0])
    found = class_aware_nms(CLUSTERS, np.ones((1, 6, 1)), 3, iou_threshold=0.0)
    np.testing.assert_array_equal(found["boxes"][0], CLUSTERS[0, [0, 3, 5]])


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("run", [class_aware_nms, compiled], ids=["eager", "xla"])
def test_what_stays_is_what_a_loop_over_each_class_keeps(run, ties):
    for seed in range(3):
        boxes, scores = drawn(seed, ties=ties)
        options = {"score_threshold": 0.3, "iou_threshold": 0.3}
        found = run(boxes, scores, **options)
        assert same(found, boxes, scores, **options)
        # Known wrong: suppression across classes, none at all, and IoU equal to the threshold.
        assert not same(found, boxes, scores, by_class=False, **options)
        assert not same(found, boxes, scores, **{**options, "iou_threshold": 1.0})


def test_few_candidates_give_the_first_answers_of_all():
    """More pairs than candidates, in rows and in classes: the best that are asked for are those of the whole."""
    boxes, scores = drawn(4, count=60, kinds=4)
    for candidates, asked in ((64, 12), (30, 6), (10_000, 100)):
        found = class_aware_nms(boxes, scores, asked, candidates=candidates)
        assert same(found, boxes, scores, max_detections=asked)
    few = class_aware_nms(boxes, scores, candidates=9)
    assert (few["num_detections"].numpy() <= 9).all()
    assert few["boxes"].shape == (2, 100, 4)


def test_a_chain_is_settled_to_its_end():
    """Each box suppresses the next alone, so every second one stays, however long the chain."""
    low = np.stack([np.arange(31), np.zeros(31)], -1)
    boxes = np.concatenate([low, low + np.array([2.2, 1])], -1)[None]
    scores = np.linspace(0.9, 0.1, 31)[None, :, None]
    found = class_aware_nms(boxes, scores, iou_threshold=0.3)
    np.testing.assert_allclose(found["boxes"][0, :16], boxes[0, ::2], rtol=1e-6)
    assert found["num_detections"] == 16


def test_boxes_that_only_touch_or_meet_the_threshold_stay():
    touching = [[[0, 0, 4, 4], [4, 0, 8, 4], [0, 4, 4, 8]]]
    assert class_aware_nms(touching, [[[0.9], [0.8], [0.7]]], iou_threshold=0.0)["num_detections"] == 3
    halves = np.array([[[0, 0, 4, 4], [0, 0, 4, 2]]], "float32")  # IoU 1/2
    scores = np.array([[[0.9], [0.8]]], "float32")
    assert same(class_aware_nms(halves, scores, iou_threshold=0.5), halves, scores, iou_threshold=0.5)
    assert not same(class_aware_nms(halves, scores, iou_threshold=0.5), halves, scores, iou_threshold=0.5, equal=True)
    assert class_aware_nms(halves, scores, iou_threshold=0.4999)["num_detections"] == 1
    assert class_aware_nms(halves, scores, score_threshold=0.8, iou_threshold=1.0)["num_detections"] == 1


def test_what_stayed_stays():
    boxes, scores = drawn(5)
    once = class_aware_nms(boxes, scores, iou_threshold=0.3)
    again = class_aware_nms(
        once["boxes"], tf.one_hot(once["classes"], 3) * once["scores"][..., None], iou_threshold=0.3
    )
    for name, value in once.items():
        np.testing.assert_array_equal(again[name], value)
    assert (once["num_detections"].numpy() < 100).all()


def test_order_mirrors_and_company_change_nothing():
    boxes, scores = drawn(6)
    found = class_aware_nms(boxes, scores)
    order = np.random.default_rng(0).permutation(boxes.shape[1])
    kinds = np.array([2, 0, 1])
    shuffled = class_aware_nms(boxes[:, order], scores[:, order][..., kinds])
    mirrored = class_aware_nms((64, 0, 64, 0) + boxes[..., [2, 1, 0, 3]] * (-1, 1, -1, 1), scores)
    alone = class_aware_nms(boxes[1:], scores[1:])
    there = found["classes"] >= 0
    for name in ("boxes", "scores", "num_detections"):
        np.testing.assert_array_equal(shuffled[name], found[name])
        np.testing.assert_array_equal(alone[name][0], found[name][1])
    np.testing.assert_array_equal(kinds[shuffled["classes"][there]], found["classes"][there])
    back = tf.where(
        there[..., None], (64, 0, 64, 0) + tf.gather(mirrored["boxes"], [2, 1, 0, 3], axis=-1) * (-1, 1, -1, 1), 0
    )
    np.testing.assert_array_equal(back, found["boxes"])
    np.testing.assert_array_equal(mirrored["classes"], found["classes"])


def test_what_is_not_finite_is_no_detection():
    boxes, scores = drawn(7, pictures=1)
    clean = class_aware_nms(boxes, scores)
    broken = np.concatenate([np.full((1, 3, 4), np.nan), np.full((1, 1, 4), np.inf), boxes[:, :1], boxes], 1)
    marks = np.concatenate([np.ones((1, 4, 3)), np.full((1, 1, 3), np.nan), scores], 1)
    found = class_aware_nms(broken, marks)
    for name, value in clean.items():
        np.testing.assert_array_equal(found[name], value)


def test_without_scores_there_is_nothing():
    found = class_aware_nms(np.ones((2, 5, 4)), np.zeros((2, 5, 3)), 4)
    assert not found["boxes"].numpy().any()
    np.testing.assert_array_equal(found["classes"], np.full((2, 4), -1))
    np.testing.assert_array_equal(found["num_detections"], [0, 0])


def test_a_saved_model_answers_the_same_for_any_batch_and_number_of_boxes(tmp_path):
    signature = [tf.TensorSpec([None, None, 4]), tf.TensorSpec([None, None, None])]
    module = tf.Module()
    module.detect = tf.function(class_aware_nms, input_signature=signature)
    tf.saved_model.save(module, tmp_path)
    detect = tf.saved_model.load(tmp_path).detect
    for pictures, count, kinds in ((1, 7, 2), (3, 300, 3)):
        boxes, scores = drawn(8, pictures, count, kinds)
        expected = class_aware_nms(boxes, scores)
        for name, value in detect(boxes, scores).items():
            assert value.dtype == expected[name].dtype
            np.testing.assert_array_equal(value, expected[name])


def test_half_precision_is_left_at_the_door():
    boxes, scores = (tf.cast(x, tf.bfloat16) for x in drawn(9))
    found = class_aware_nms(boxes, scores)
    assert found["boxes"].dtype == found["scores"].dtype == tf.float32
    assert found["classes"].dtype == found["num_detections"].dtype == tf.int32
    assert same(found, *(tf.cast(x, tf.float32).numpy() for x in (boxes, scores)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"iou_threshold": 45}, "divide percent by 100"),
        ({"score_threshold": "0.5"}, "score_threshold must be a number"),
        ({"max_detections": 0}, "max_detections must be at least 1"),
        ({"candidates": 2.5}, "candidates must be a whole number"),
        ({"scores": np.zeros((2, 39, 3))}, r"expected boxes \[B, N, 4\] and scores"),
    ],
)
def test_wrong_input_is_refused(options, words):
    boxes, scores = drawn(0)
    with pytest.raises(ValueError, match=words):
        class_aware_nms(boxes, **{"scores": scores, **options})
