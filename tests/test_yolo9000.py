"""What YOLO9000 owes beside YOLOv2 and the laws of its tree: labels without boxes, descents, joined streams, doors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import dmkeras
from dmkeras.detection.yolo9000 import ANCHORS, YOLO9000
from dmkeras.detection.yolov2 import YOLOv2
from dmkeras.parts.word_tree import WordTree

SHAPE, PRIORS = (32, 48, 3), ((12.0, 10.0), (20.0, 24.0))
TREE = WordTree(["animal", "vehicle", "cat", "dog", "terrier", "poodle"], [-1, -1, 0, 0, 3, 3])
OBJECT, CLASS = 4, slice(5, None)  # of raw numbers


def small(tree=TREE, **options):
    """A YOLO9000 of some thousand weights, stride 8."""
    backbone = dmkeras.Darknet19(SHAPE, None, 4, (1, 1, 1, 1))
    settings = {"backbone": backbone, "head_filters": 8, "passthrough_filters": 2, "prior_images": 0}
    return YOLO9000(SHAPE, tree, PRIORS, **{**settings, **options})


@pytest.fixture(scope="module")
def model():
    return small()


def raw_numbers(seed=0, batch=2):
    return np.random.default_rng(seed).normal(0, 1.5, (batch, 4, 6, 2, 5 + len(TREE))).astype("float32")


def targets(labels, classes=-1):
    """Pictures of a label each; those of -1 have one box of a class."""
    labels = np.asarray(labels, "int32")
    boxes = np.zeros((len(labels), 2, 4), "float32")
    kinds = np.full((len(labels), 2), -1, "int32")
    boxes[labels < 0, 0], kinds[labels < 0, 0] = [4, 6, 20, 20], classes
    return {"boxes": boxes, "classes": kinds, "labels": labels}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def probs_of(logits):
    """Pr(node) [..., 6], group by group and node by node."""
    found = np.empty_like(logits)
    for group in ([0, 1], [2, 3], [4, 5]):
        powers = np.exp(logits[..., group])
        found[..., group] = powers / powers.sum(-1, keepdims=True)
    for node, parent in ((2, 0), (3, 0), (4, 3), (5, 3)):
        found[..., node] *= found[..., parent]
    return found


def best_of(raw, label):
    """The box of highest objectness Pr(label) of one picture's raw numbers, in a row."""
    rows = raw.reshape(-1, raw.shape[-1]).astype("float64")
    return np.argmax(sigmoid(rows[:, OBJECT]) * probs_of(rows[:, CLASS])[:, label])


def slopes(model, raw, y):
    """Loss and its gradient by raw numbers, as rows [B, N, 5 + n]."""
    raw = tf.constant(raw)
    with tf.GradientTape() as tape:
        tape.watch(raw)
        loss = model.compute_loss(y=y, y_pred=raw)
    found = tape.gradient(loss, raw).numpy()
    return float(loss), found.reshape(len(found), -1, found.shape[-1])


# --- labels without boxes -------------------------------------------------------------------------------------------


def test_the_detector_of_the_paper_has_three_anchors_and_a_number_for_each_node():
    np.testing.assert_allclose(ANCHORS[-1], (295.272, 307.83168))
    names = [str(i) for i in range(9418)]
    backbone = dmkeras.Darknet19((32, 32, 3), None, 2, (1,) * 6)
    tree = WordTree.flat(names)
    model = YOLO9000((32, 32, 3), tree, backbone=backbone, head_filters=4, passthrough_filters=0)
    assert model.regression.filters == 28269


@pytest.mark.parametrize("label", [0, 3, 4])
def test_a_label_trains_the_box_of_highest_probability_alone(model, label):
    raw = raw_numbers()
    loss, found = slopes(model, raw, targets([label, label]))
    expected = 0
    for row, numbers in zip(found, raw):
        best = best_of(numbers, label)
        assert np.flatnonzero(np.abs(row).sum(-1)).tolist() == [best]
        assert (row[best, :4] == 0).all()  # it says nothing about places
        chosen = numbers.reshape(-1, 11)[best].astype("float64")
        expected += -np.log(probs_of(chosen[CLASS])[label]) / 2
        expected += 5 * max(0, 0.3 - sigmoid(chosen[OBJECT])) ** 2 / 2 / 2
        if label != 4:
            assert (row[best, 5 + 4 :] == 0).all()  # terrier and poodle, below the label
        if label == 0:
            assert (row[best, 5 + 2 :] == 0).all()
        else:
            assert (row[best, 5 : 5 + 4] != 0).all()  # its own group and its parent's
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_the_best_box_is_by_objectness_and_probability_together(model):
    """Neither one alone, and the probability is down from the root."""
    raw = np.zeros((1, 4, 6, 2, 11), "float32")
    rows = raw.reshape(1, -1, 11)
    rows[0, :, OBJECT] = -4
    rows[0, 3, OBJECT], rows[0, 3, 5 + 3], rows[0, 3, 5] = 1, 1, 1
    rows[0, 5, OBJECT], rows[0, 5, 5 + 1] = 3, 6  # an object, but a vehicle
    rows[0, 7, 5 + 3], rows[0, 7, 5] = 6, 6  # a dog, but hardly an object
    rows[0, 9, OBJECT], rows[0, 9, 5 + 3], rows[0, 9, 5 + 1] = 3, 9, 5  # were it an animal, a dog
    found = model.best_boxes(rows[..., OBJECT], rows[..., CLASS], tf.constant([3]))
    assert found.numpy().tolist() == [3] == [best_of(raw[0], 3)]


@pytest.mark.parametrize("rule", ["paper", "darknet", "both"])
def test_what_a_label_tells_objectness(rule):
    model, raw = small(image_objectness=rule), raw_numbers(1)
    raw[0, ..., OBJECT] -= 4  # the best box of the first picture is below .3, of the second above
    raw[1, ..., OBJECT] += 4
    _, found = slopes(model, raw, targets([4, 4]))
    for row, numbers, pulled in zip(found, raw, (True, False)):
        best, o = best_of(numbers, 4), sigmoid(numbers[..., OBJECT].ravel().astype("float64"))
        slope = np.zeros(len(o))
        if rule != "paper":
            slope = o * o * (1 - o) / 2  # of o^2 / 2, over two pictures
        slope[best] = -5 * (0.3 - o[best]) * o[best] * (1 - o[best]) / 2 if pulled and rule != "darknet" else 0
        np.testing.assert_allclose(row[:, OBJECT], slope, atol=1e-6)


def test_a_picture_with_boxes_trains_as_yolov2_does_but_for_its_classes(model):
    raw, y = raw_numbers(2), targets([-1, -1], 4)
    plain = YOLOv2(SHAPE, 6, dmkeras.Darknet19(SHAPE, None, 4, (1, 1, 1, 1)), PRIORS, 8, 2, prior_images=0)
    (loss, ours), (other, theirs) = slopes(model, raw, y), slopes(plain, raw, y)
    np.testing.assert_allclose(ours[..., :5], theirs[..., :5], atol=1e-6)
    (first, second) = (np.flatnonzero(np.abs(row[:, CLASS]).sum(-1)) for row in ours)
    assert len(first) == len(second) == 1
    rows = raw.reshape(2, -1, 11)[[0, 1], [first[0], second[0]], CLASS].astype("float64")
    flat = -np.log(np.exp(rows[:, 4]) / np.exp(rows).sum(-1)).mean()
    np.testing.assert_allclose(loss - other, -np.log(probs_of(rows)[:, 4]).mean() - flat, rtol=1e-4)
    without, _ = slopes(model, raw, {key: y[key] for key in ("boxes", "classes")})
    np.testing.assert_allclose(without, loss)  # "labels" may be left out


def test_pictures_of_both_kinds_train_apart(model):
    raw, y = raw_numbers(3), targets([-1, 4], 3)
    _, both = slopes(model, raw, y)
    for row, own in ((0, {**y, "labels": np.array([-1, -1])}), (1, targets([3, 4]))):
        np.testing.assert_allclose(both[row], slopes(model, raw, own)[1][row], atol=1e-7)


def test_targets_that_hold_nothing_train():
    model, images = small(), np.random.default_rng(0).uniform(size=(4, *SHAPE)).astype("float32")
    y = targets([-1, -1, 4, 0], 3)
    y["boxes"][0], y["classes"][0] = np.nan, -1  # padding
    y["boxes"][1] = [[9, 9, 9, 9], [5, 5, 4, 4]]  # without area, reversed
    y["classes"][1] = [3, -1]
    model.compile("sgd", jit_compile=False)
    history = model.fit(images, y, verbose=0).history
    assert np.isfinite(list(history.values())).all()
    assert history["class_loss"] == [0]
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    raw = np.zeros((4, 4, 6, 2, 11), "float32")
    raw[..., OBJECT] = -200  # no box is an object at all
    assert np.isfinite(slopes(model, raw, y)[1]).all()


def test_each_term_is_a_metric_as_it_counts():
    model = small(image_class_weight=0.5, image_object_weight=2.0)
    model.compile("sgd", jit_compile=False)
    images, y = np.random.default_rng(1).uniform(size=(4, *SHAPE)).astype("float32"), targets([-1, 4, 3, 0], 3)
    found = model.evaluate(images, y, return_dict=True, verbose=0)
    assert found["image_class_loss"] > 0
    np.testing.assert_allclose(sum(found[f"{term}_loss"] for term in YOLO9000.TERMS), found["loss"], rtol=1e-5)
    double = small(image_class_weight=1.0)
    double.set_weights(model.get_weights())
    double.compile("sgd", jit_compile=False)
    again = double.evaluate(images, y, return_dict=True, verbose=0)
    np.testing.assert_allclose(again["image_class_loss"], 2 * found["image_class_loss"], rtol=1e-5)


def test_streams_are_joined_as_long_as_labels_last_and_boxes_come_again():
    boxed = {"boxes": np.arange(24, dtype="float32").reshape(3, 2, 4), "classes": np.arange(6).reshape(3, 2)}
    detection = tf.data.Dataset.from_tensor_slices((np.full((3, 2, 2, 3), 0.5, "float32"), boxed)).batch(1)
    more = np.zeros((16, 2, 2, 3), "float32"), np.arange(16)
    joined = YOLO9000.joined(detection, tf.data.Dataset.from_tensor_slices(more).batch(4))
    assert joined.cardinality() == 4
    for step, (images, truths) in enumerate(joined):
        assert images.shape == (5, 2, 2, 3)
        assert images.numpy()[:, 0, 0, 0].tolist() == [0.5, 0, 0, 0, 0]
        assert truths["labels"].numpy().tolist() == [-1, *range(4 * step, 4 * step + 4)]
        np.testing.assert_array_equal(truths["boxes"][0], boxed["boxes"][step % 3])
        np.testing.assert_array_equal(truths["classes"], [boxed["classes"][step % 3], *[[-1, -1]] * 4])
        assert (truths["boxes"].numpy()[1:] == 0).all()


# --- detection ------------------------------------------------------------------------------------------------------


def answered(model, raw, **options):
    """`detect` of a model whose network says `raw`."""
    model.call = lambda images, training=False: tf.constant(raw)
    try:
        found = model.detect(np.zeros((len(raw), *SHAPE), "float32"), **{"score_threshold": 0.0, **options})
    finally:
        del model.call
    return {name: values.numpy() for name, values in found.items()}


def test_a_detection_is_a_descent_and_its_score_objectness_times_probability(model):
    raw = raw_numbers(4, batch=1)
    found = answered(model, raw, iou_threshold=1.0)
    rows = raw.reshape(-1, 11).astype("float64")
    nodes, probs = TREE.top_prediction(rows[:, CLASS], 0.5)
    scores = sigmoid(rows[:, OBJECT]) * probs.numpy()
    order = np.argsort(-scores)
    np.testing.assert_array_equal(found["classes"][0, :48], nodes.numpy()[order])
    np.testing.assert_allclose(found["scores"][0, :48], scores[order], rtol=1e-5)
    assert len(set(found["classes"][0, :48])) > 3
    for node, path, told, row in zip(*(found[key][0] for key in ("classes", "paths", "path_scores")), rows[order]):
        np.testing.assert_array_equal(path, TREE.paths[node])
        expected = np.where(path >= 0, probs_of(row[CLASS])[np.maximum(path, 0)], 0)
        np.testing.assert_allclose(told, expected, rtol=1e-5)
    assert found["num_detections"] == 48
    assert (found["paths"][0, 48:] == -1).all()
    assert (found["path_scores"][0, 48:] == 0).all()


def test_the_threshold_of_the_tree_says_how_far_down(model):
    raw = raw_numbers(4, batch=1)
    deep, shallow = (answered(model, raw, tree_threshold=limit)["classes"][0, :48] for limit in (0.0, 1.0))
    leaves = np.isin(deep[deep >= 0], TREE.leaves)
    assert leaves.all()
    assert np.isin(shallow[shallow >= 0], [0, 1]).all()


def test_of_related_detections_that_overlap_the_better_stays():
    """A dog and the terrier in its place are one; a vehicle there, or a terrier elsewhere, is another."""
    model, raw = small(), np.zeros((1, 4, 6, 2, 11), "float32")
    raw[..., OBJECT] = -30
    logits = {"dog": [9, 0, 0, 9, 0, 0], "terrier": [9, 0, 0, 9, 9, 0], "vehicle": [0, 9, 0, 0, 0, 0]}
    logits["poodle"] = [9, 0, 0, 9, 0, 9]
    for (row, column, prior), name, objectness in (
        ((1, 1, 1), "dog", 3.0),
        ((1, 2, 1), "terrier", 2.0),
        ((1, 1, 0), "vehicle", 1.0),
        ((3, 5, 0), "terrier", 0.5),
    ):
        raw[0, row, column, prior, OBJECT], raw[0, row, column, prior, CLASS] = objectness, logits[name]
    raw[0, 1, 2, 1, 0] = -9  # its centre at the left border of its cell, beside the dog's
    raw[0, 1, 1, 1, 0] = 9
    raw[0, 1, 1, 0, 2:4] = np.log([20 / 12, 24 / 10])  # as large as the dog
    found = answered(model, raw, score_threshold=0.01)
    assert [TREE.names[node] for node in found["classes"][0, :4] if node >= 0] == ["dog", "vehicle", "terrier"]
    raw[0, 1, 2, 1, CLASS], raw[0, 1, 1, 1, CLASS] = logits["poodle"], logits["terrier"]
    found = answered(model, raw, score_threshold=0.01)  # siblings are not related
    assert [TREE.names[node] for node in found["classes"][0, :4]] == ["terrier", "poodle", "vehicle", "terrier"]


def test_nodes_that_are_asked_for_are_looked_for_in_every_box(model):
    raw = raw_numbers(5, batch=1)
    found = answered(model, raw, nodes=[2, 4, 5], iou_threshold=1.0, max_detections=200)
    rows = raw.reshape(-1, 11).astype("float64")
    scores = sigmoid(rows[:, OBJECT])[:, None] * probs_of(rows[:, CLASS])[:, [2, 4, 5]]
    order = np.argsort(-scores.ravel())
    assert found["num_detections"] == 144
    np.testing.assert_array_equal(found["classes"][0, :144], np.array([2, 4, 5])[order % 3])
    np.testing.assert_allclose(found["scores"][0, :144], scores.ravel()[order], rtol=1e-5)
    assert (found["classes"][0, 144:] == -1).all()


def test_scores_of_all_nodes_are_objectness_times_probability(model):
    raw = raw_numbers(6)
    boxes, scores = model.decode(raw)
    rows = raw.reshape(2, -1, 11).astype("float64")
    np.testing.assert_allclose(scores, sigmoid(rows[..., 4:5]) * probs_of(rows[..., CLASS]), rtol=1e-5)
    np.testing.assert_allclose(boxes, YOLOv2.decode(model, raw)[0])


def test_numbers_that_are_not_finite_are_no_detections(model):
    raw = raw_numbers(7, batch=1)
    raw[0, 0, 0], raw[0, 1, 1, 0, 5] = np.nan, np.inf
    found = answered(model, raw)
    assert np.isfinite(found["boxes"]).all()
    assert np.isfinite(found["scores"]).all()
    assert found["num_detections"] > 0


def test_detection_compiles_under_xla(model):
    images = np.random.default_rng(8).uniform(size=(2, *SHAPE)).astype("float32")
    compiled = tf.function(model.detect, jit_compile=True)(tf.constant(images))
    for name, values in model.detect(images).items():
        np.testing.assert_allclose(compiled[name], values, rtol=1e-3, atol=1e-3)


def test_a_detection_of_a_picture_hangs_on_it_alone(model):
    images = np.random.default_rng(9).uniform(size=(3, *SHAPE)).astype("float32")
    together, alone = model.detect(images), model.detect(images[1])
    np.testing.assert_allclose(alone["path_scores"], together["path_scores"][1], atol=1e-5)
    np.testing.assert_array_equal(alone["paths"], together["paths"][1])


# --- doors ----------------------------------------------------------------------------------------------------------


def test_a_config_holds_the_tree():
    model = small(tree_threshold=0.7, image_objectness="both", image_class_weight=2.0)
    again = YOLO9000.from_config(model.get_config())
    assert again.tree.names == TREE.names
    assert again.get_config().keys() == model.get_config().keys()
    for name in ("tree_threshold", "image_objectness", "image_class_weight", "image_object_weight", "anchors"):
        assert getattr(again, name) == getattr(model, name)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tree": None}, "tree as a WordTree"),
        ({"tree": ["cat", "dog"]}, "tree as a WordTree"),
        ({"tree_threshold": 50}, r"tree_threshold must be a number in \[0, 1\]"),
        ({"image_objectness": "none"}, "image_objectness must be one of 'paper', 'darknet', 'both'"),
        ({"image_class_weight": -1}, "image_class_weight must be at least 0"),
        ({"image_object_weight": "a"}, "image_object_weight must be a number"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        small(**options)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda y: {**y, "labels": np.array([-1, 6])}, "labels from 0 to 5"),
        (lambda y: {**y, "labels": np.array([-2, 4])}, "labels from 0 to 5"),
        (lambda y: {**y, "labels": np.array([[-1], [4]])}, r"labels \[B\]"),
        (lambda y: {**y, "labels": np.array([-1.0, 4.0])}, "whole-numbered labels"),
        (lambda y: {**y, "labels": np.array([4, 4])}, "a picture with both"),
        (lambda y: {**y, "classes": y["classes"] + 6}, "classes from 0 to 5"),
    ],
)
def test_labels_that_cannot_be_are_refused_before_training(model, change, words):
    y = targets([-1, 4], 3)
    model.check_targets(y)
    with pytest.raises(ValueError, match=words):
        model.check_targets(change(y))
    model.compile("sgd", jit_compile=False)
    with pytest.raises(ValueError, match=words):
        model.fit(np.zeros((2, *SHAPE), "float32"), change(y), verbose=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"nodes": [6]}, "nodes as whole numbers from 0 to 5"),
        ({"nodes": [-1]}, "nodes as whole numbers"),
        ({"nodes": []}, "nodes as whole numbers"),
        ({"nodes": [0.5]}, "nodes as whole numbers"),
        ({"nodes": 3}, "nodes as whole numbers"),
        ({"tree_threshold": 2}, "tree_threshold must be a number"),
        ({"score_threshold": "a"}, "score_threshold must be a number"),
        ({"max_detections": 0}, "max_detections must be at least 1"),
        ({"size": (30, 30)}, "stride 8 divides"),
    ],
)
def test_questions_that_cannot_be_are_refused(model, options, words):
    with pytest.raises(ValueError, match=words):
        model.detect(np.zeros((1, *SHAPE), "float32"), **options)


def test_mixed_precision_trains_and_answers_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = small()
    finally:
        keras.config.set_dtype_policy("float32")
    images = np.random.default_rng(0).uniform(size=(2, *SHAPE)).astype("float32")
    model.compile("sgd", jit_compile=False)
    assert np.isfinite(model.fit(images, targets([-1, 4], 3), verbose=0).history["loss"][0])
    assert model.detect(images)["path_scores"].dtype == "float32"
