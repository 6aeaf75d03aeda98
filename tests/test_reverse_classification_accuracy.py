"""What reverse classification accuracy owes beside the contract: three reverse classifiers, one set of laws."""

import csv
import functools
import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

import dmkeras
from dmkeras.parts import pixel_network, quality_trials, segmentation_metrics
from dmkeras.segmentation.reverse_classification_accuracy import (
    METHODS,
    ReverseClassificationAccuracy,
    reverse_accuracy,
)
from training.reverse_classification_accuracy import recipe

SIDE, REFERENCES = 32, 3
SHAPE = (SIDE, SIDE, 1)


def scenes(count, seed):
    """Pictures of a bright (1) and a dark disc (2) on grey, about where they always are, and their truth."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    images, truths = np.full((count, SIDE, SIDE), 0.5), np.zeros((count, SIDE, SIDE), "int32")
    for image, truth in zip(images, truths):
        for kind, centre, grey in ((1, (11, 11), 0.9), (2, (20, 21), 0.1)):
            inside = np.hypot(y - centre[0] - rng.uniform(-2, 2), x - centre[1] - rng.uniform(-2, 2)) < rng.uniform(
                5, 7
            )
            image[inside], truth[inside] = grey, kind
    images += 0.03 * rng.normal(size=images.shape)
    return np.clip(images, 0, 1)[..., None].astype("float32"), truths


IMAGES, TRUTHS = scenes(REFERENCES, 0)
NEW, NEW_TRUTHS = scenes(2, 1)


def make(method="cnn", kind=ReverseClassificationAccuracy, references=(IMAGES, TRUTHS), **options):
    settings = {"position": True, "filters": 8, "steps": 80, "trees": 10, **options}
    model = kind(SHAPE, 2, len(references[0]), method, **settings)
    model.set_references(*references)
    return model


@functools.cache
def shared(method):
    return make(method)


each_method = pytest.mark.parametrize("method", METHODS)


def random_overlaps(count, references=REFERENCES, classes=2, seed=0):
    return np.random.default_rng(seed).uniform(0, 1, (count, references, 1 + classes)).astype("float32")


# --- good is told from bad ------------------------------------------------------------------------------------------


def check_tells_good_from_bad(model):
    swapped = np.array([0, 2, 1])[NEW_TRUTHS]
    good, bad = (model.score(NEW[:1], labels[:1]) for labels in (NEW_TRUTHS, swapped))
    assert good["dice"] > 0.85, f"a perfect segmentation is predicted {good['dice']}"
    assert bad["dice"] < 0.3, f"swapped labels are predicted {bad['dice']}"
    assert bad["foreground_dice"] > 0.8  # of any class against none, swapped labels are perfect


@each_method
def test_a_perfect_segmentation_is_told_from_a_destroyed_one(method):
    check_tells_good_from_bad(shared(method))


class LearnsTheTruth(ReverseClassificationAccuracy):
    """Wrong: its reverse classifier learnt the references' truth."""

    def _probabilities(self, images, segmentations):
        return [np.eye(3)[self.truths.numpy()] for _ in images]


class ComparesWithItself(ReverseClassificationAccuracy):
    """Wrong: it measures the reverse classifier by its own segmentations."""

    def overlaps(self, images, segmentations):
        found = self.segment_references(images, segmentations)
        rows = [[segmentation_metrics.dice(one, one, 3) for one in row] for row in found]
        return np.nan_to_num(rows).astype("float32")


@pytest.mark.parametrize("kind", [LearnsTheTruth, ComparesWithItself])
def test_a_wrong_reverse_classification_is_caught(kind):
    model = make("registration", kind)
    with pytest.raises(AssertionError, match="swapped labels are predicted"):
        check_tells_good_from_bad(model)


@each_method
def test_the_prediction_falls_as_the_segmentation_gets_worse(method):
    moved = np.stack([np.roll(NEW_TRUTHS[0], move, axis=1) for move in (0, 2, 4, 7)])
    dice = shared(method).score(np.repeat(NEW[:1], 4, axis=0), moved)["dice"]
    assert np.all(np.diff(dice) < 0.02), dice
    assert dice[0] - dice[-1] > 0.3, dice


@each_method
def test_the_truth_of_the_references_never_enters_the_training(method):
    """Other truths, the same segmentations of the references; and other segmentations, others."""
    other = make(method, references=(IMAGES, np.roll(TRUTHS, 9, axis=2)))
    found, same = (model.segment_references(NEW[:1], NEW_TRUTHS[:1]) for model in (shared(method), other))
    np.testing.assert_array_equal(found, same)
    assert (other.overlaps(NEW[:1], NEW_TRUTHS[:1]) != shared(method).overlaps(NEW[:1], NEW_TRUTHS[:1])).any()
    assert (found != other.segment_references(NEW[:1], np.roll(NEW_TRUTHS[:1], 9, axis=2))).any()


@pytest.mark.parametrize("method", ["cnn", "forest"])
def test_what_is_learnt_is_the_one_segmentation(method, monkeypatch):
    learnt = []

    class Spy(RandomForestClassifier):
        def fit(self, features, labels):
            learnt.append((len(features), np.bincount(labels)))
            return super().fit(features, labels)

    def spy(seen, labels, *rest):
        learnt.append((labels.shape[1] * labels.shape[2], tf.math.bincount(tf.maximum(labels, 0))))
        return train(seen, labels, *rest)

    train = pixel_network._train
    monkeypatch.setattr("sklearn.ensemble.RandomForestClassifier", Spy)
    monkeypatch.setattr(pixel_network, "_train", spy)
    segmentation = np.where(NEW_TRUTHS[:1] == 2, 1, NEW_TRUTHS[:1])
    if method == "cnn":
        options = {"num_labels": 3, "filters": 2, "steps": 1}
        pixel_network.segment_others(NEW[:1], segmentation, IMAGES, **options)
    else:
        make(method).segment_references(NEW[:1], segmentation)
    ((pixels, counts),) = learnt
    assert pixels == SIDE * SIDE
    np.testing.assert_array_equal(counts, np.bincount(segmentation.ravel()))


# --- the best over references ---------------------------------------------------------------------------------------


def test_the_best_is_no_less_than_the_mean_and_both_are_as_by_hand():
    overlaps = random_overlaps(50)
    overlaps[:, 1, 2] = -1
    best, mean = (make("forest", over=over).uncalibrated(overlaps).numpy() for over in ("best", "mean"))
    told = np.where(overlaps < 0, np.nan, overlaps)
    for found, by_hand in ((best, np.nanmax(told, 1)), (mean, np.nanmean(told, 1))):
        np.testing.assert_allclose(found[:, 1:], by_hand, rtol=1e-5)
        np.testing.assert_allclose(found[:, 0], by_hand[:, 1:].mean(1), rtol=1e-5)
    assert np.all(best >= mean - 1e-6)


def test_overlaps_are_those_of_the_metrics():
    model = make("forest", soft=False)
    found, overlaps = model.segment_references(NEW, NEW_TRUTHS), model.overlaps(NEW, NEW_TRUTHS)
    for one, row in zip(found, overlaps):
        for reference, truth, values in zip(one, TRUTHS, row):
            np.testing.assert_allclose(values[1:], segmentation_metrics.dice(truth, reference, 3)[1:], rtol=1e-6)
            np.testing.assert_allclose(values[0], segmentation_metrics.dice(truth > 0, reference > 0), rtol=1e-6)
    answer = model.score(NEW, NEW_TRUTHS)
    np.testing.assert_allclose(answer["class_dice"], overlaps[..., 1:].max(1), rtol=1e-6)
    np.testing.assert_array_equal(answer["reference"], overlaps[..., 1:].mean(-1).argmax(1))
    best = found[np.arange(2), overlaps[..., 1].argmax(1)], TRUTHS[overlaps[..., 1].argmax(1)]
    iou = [segmentation_metrics.scores(segmentation_metrics.confusion_matrix(t, f, 3))["iou"][1] for f, t in zip(*best)]
    np.testing.assert_allclose(answer["class_iou"][:, 0], iou, rtol=1e-5)


def test_a_reverse_classifier_that_is_unsure_lowers_the_prediction_by_its_doubt():
    """Of half the pixels of class 1 void and half wrong, the likeliest label may still be right; probabilities tell."""
    sure, doubtful = NEW_TRUTHS[:1], NEW_TRUTHS[:1].copy()
    doubtful[(doubtful == 1) & (np.random.default_rng(0).uniform(size=doubtful.shape) < 0.4)] = 0
    loss = {}
    for soft in (True, False):
        model = make("forest", soft=soft)
        good, bad = (model.score(NEW[:1], labels)["class_dice"][0, 0] for labels in (sure, doubtful))
        loss[soft] = good - bad
    real = 1 - segmentation_metrics.dice(sure[0] == 1, doubtful[0] == 1)
    assert abs(loss[True] - real) < abs(loss[False] - real)


def test_the_negative_of_a_reference_is_no_witness_for_the_nearest():
    """An inverted map of a picture is right for its negative; only pixels tell that this is another kind."""
    half = np.arange(SIDE)[None, :] < np.array([14, 16, 18])[:, None]  # bright, of class 1
    truths = np.repeat(half[:, None], SIDE, axis=1).astype("int32")
    images = (np.where(truths, 0.6, 0.1)[..., None] + 0.05 * IMAGES).astype("float32")
    inverted = 1 - truths[:1]
    references = np.stack([images[1], 1 - images[2]]), np.stack([truths[1], truths[2]])
    references[1][:, 0, 0] = 2  # each class is somewhere
    dice = {}
    for nearest in (1, None):
        model = make("forest", references=references, nearest=nearest, position=False)
        dice[nearest] = model.score(images[:1], inverted)["class_dice"][0, 0]
    assert dice[None] > 0.8
    assert dice[1] < 0.3


def test_a_reference_without_a_structure_is_no_witness_of_it():
    truths = TRUTHS.copy()
    truths[0][truths[0] == 2] = 0
    model = make("registration", references=(IMAGES, truths))
    without = np.where(NEW_TRUTHS == 2, 0, NEW_TRUTHS)
    overlaps = model.overlaps(NEW, without)
    np.testing.assert_array_equal(overlaps[:, 0, 2], -1)  # 0 / 0, which counted as 1 would be the best
    np.testing.assert_array_equal(overlaps[:, 1:, 2], 0)
    np.testing.assert_array_equal(model.score(NEW, without)["class_dice"][:, 1], 0)


# --- defined values -------------------------------------------------------------------------------------------------


@each_method
def test_an_empty_segmentation_is_predicted_zero_and_so_is_one_without_any_answer(method):
    for label in (0, -1):
        answer = shared(method).score(NEW[:1], np.full_like(NEW_TRUTHS[:1], label))
        assert all(not np.any(answer[key]) for key in ("dice", "iou", "foreground_dice", "class_dice")), label


@each_method
def test_a_segmentation_of_one_label_says_it_everywhere(method):
    model = shared(method)
    labels = np.full_like(NEW_TRUTHS[:1], 2)
    np.testing.assert_array_equal(model.segment_references(NEW[:1], labels), 2)
    part = (TRUTHS == 2).mean((1, 2))
    answer = model.score(NEW[:1], labels)
    np.testing.assert_allclose(answer["class_dice"], [[0, np.max(2 * part / (1 + part))]], rtol=1e-5)


@each_method
def test_a_picture_of_one_grey_value_has_a_prediction(method):
    answer = shared(method).score(np.full_like(NEW[:1], 0.3), NEW_TRUTHS[:1])
    assert all(np.isfinite(values).all() for values in answer.values())


@pytest.mark.parametrize("method", ["cnn", "forest"])
def test_pixels_without_an_answer_teach_nothing(method):
    """The lower half of disc 1, and all below, are void, background or wrong."""
    below = np.arange(SIDE)[:, None] >= 11
    void, background, wrong = (np.where(below, label, NEW_TRUTHS[:1]) for label in (-1, 0, 2))
    dice = [shared(method).score(NEW[:1], labels)["class_dice"][0, 0] for labels in (void, background, wrong)]
    assert dice[0] > max(dice[1:]) + 0.05, dice


def test_of_a_class_that_neither_has_there_is_no_real_overlap():
    model, truths = shared("forest"), NEW_TRUTHS.copy()
    truths[truths == 2] = 0
    found = model.real_overlaps(np.stack([truths[0], NEW_TRUTHS[1]]), truths)
    np.testing.assert_allclose(found[0], [1, 1, 1, -1])
    foreground = segmentation_metrics.dice(truths[1] > 0, NEW_TRUTHS[1] > 0)
    np.testing.assert_allclose(found[1], [0.5, foreground, 1, 0], rtol=1e-6)
    np.testing.assert_array_equal(model.real_overlaps(0 * truths, 0 * truths), -1)


@each_method
def test_predictions_and_intervals_stay_in_zero_to_one(method):
    model = make(method, steps=1, trees=1)
    overlaps = random_overlaps(20)
    real = np.clip(model.uncalibrated(overlaps).numpy() * 1.5 - 0.4, 0, 1)
    model.calibrate(overlaps, real)
    for answer in (model.score_overlaps(overlaps), model.score_overlaps(-np.ones_like(overlaps))):
        for key in ("dice", "iou", "foreground_dice", "class_dice", "class_iou", "dice_interval", "class_interval"):
            assert np.all((answer[key] >= 0) & (answer[key] <= 1)), key
        ends, dice = answer["dice_interval"].numpy(), answer["dice"].numpy()
        assert np.all((ends[:, 0] <= dice) & (dice <= ends[:, 1]))


# --- calibration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["calibrate", "fit"])
def test_calibration_recovers_a_known_line_and_leaves_the_order(how):
    model, overlaps = make("forest"), random_overlaps(200)
    raw = model.uncalibrated(overlaps).numpy()
    slopes, intercepts = np.array([0.7, 0.9, 0.5, 0.3]), np.array([0.2, 0.05, 0.1, 0.6])
    real = (slopes * raw + intercepts).astype("float32")
    real[::7, 2] = -1  # no answer, which no line learns from
    if how == "calibrate":
        model.calibrate(overlaps, real)
    else:
        model.compile(keras.optimizers.Adam(0.1), jit_compile=False)
        model.fit(overlaps, real, batch_size=200, epochs=120, verbose=0)
    np.testing.assert_allclose(model.slope, slopes, atol=1e-4 if how == "calibrate" else 2e-2)
    np.testing.assert_allclose(model.intercept, intercepts, atol=1e-4 if how == "calibrate" else 2e-2)
    np.testing.assert_array_equal(np.argsort(model(overlaps)[:, 0]), np.argsort(raw[:, 0]))


def test_a_policy_of_lower_precision_changes_nothing():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = make("forest")
    finally:
        keras.config.set_dtype_policy("float32")
    overlaps = random_overlaps(5)
    np.testing.assert_array_equal(model(overlaps), make("forest")(overlaps))
    again = ReverseClassificationAccuracy.from_config(model.get_config())
    assert again.get_config() == model.get_config()


def test_calibration_never_turns_the_order_around():
    model, overlaps = make("forest"), random_overlaps(30)
    model.calibrate(overlaps, 1 - model.uncalibrated(overlaps).numpy())
    np.testing.assert_array_equal(model.slope, 0)


def test_an_interval_over_references_holds_the_score_and_narrows_with_more_references():
    widths = {"best": [], "mean": []}
    for over, found in widths.items():
        for count in (4, 64):
            model = make(
                "forest", over=over, references=(np.repeat(IMAGES[:1], count, 0), np.repeat(TRUTHS[:1], count, 0))
            )
            overlaps = random_overlaps(40, count)
            ends, scores = model.interval_over_references(overlaps), model.uncalibrated(overlaps).numpy()
            assert np.all((ends[..., 0] <= scores + 1e-6) & (scores <= ends[..., 1] + 1e-6))
            found.append(np.mean(ends[..., 1] - ends[..., 0]))
    assert all(few > 2 * many > 0 for few, many in widths.values()), widths


def test_intervals_hold_the_share_of_real_overlaps_that_they_promise():
    model, rng = make("forest", level=0.8), np.random.default_rng(0)

    def pairs(count):
        overlaps = random_overlaps(count, seed=rng.integers(1000))
        raw = model.uncalibrated(overlaps).numpy()
        return overlaps, np.clip(0.25 + 0.5 * raw + 0.05 * rng.normal(size=raw.shape), 0, 1)

    model.calibrate(*pairs(60))
    overlaps, real = pairs(2000)
    ends = model.score_overlaps(overlaps)["class_interval"]
    inside = (ends[..., 0] <= real[:, 2:]) & (real[:, 2:] <= ends[..., 1])
    assert 0.7 < np.mean(inside) < 0.9


# --- endpoints, seeds, doors ----------------------------------------------------------------------------------------


def png(values):
    file = io.BytesIO()
    Image.fromarray(values).save(file, format="PNG")
    return file.getvalue()


def test_the_exported_endpoints_answer_as_python_does(tmp_path):
    model = make(steps=20)
    overlaps = random_overlaps(20)
    model.calibrate(overlaps, np.clip(model.uncalibrated(overlaps).numpy() * 0.8 + 0.1, 0, 1))
    images = np.round(NEW * 255) / 255
    labels = np.stack([NEW_TRUTHS[0], np.roll(NEW_TRUTHS[1], 5, axis=0)])
    expected = model.score(images, labels)
    assert expected["dice"][0] > expected["dice"][1] + 0.1
    served = tf.saved_model.load(str(dmkeras.export(model, tmp_path / "rca", warmup=False))).signatures
    files = {"image_bytes": [png(np.uint8(np.round(255 * image[..., 0]))) for image in images]}
    files["segmentation_bytes"] = [png(np.uint8(one)) for one in labels]
    files = {key: tf.constant(value) for key, value in files.items()}
    overlaps = model.overlaps(images, labels)
    for name, feed in (
        ("score", {"images": tf.constant(images), "segmentations": tf.constant(labels)}),
        ("score_bytes", files),
        ("score_overlaps", {"overlaps": tf.constant(overlaps)}),
    ):
        answer = served[name](**feed)
        assert set(answer) == set(expected)
        for key, values in expected.items():
            np.testing.assert_allclose(answer[key], values, atol=2e-3, err_msg=f"{name} {key}")
    larger = png(np.zeros((SIDE, SIDE + 1), "uint8"))
    with pytest.raises(tf.errors.InvalidArgumentError, match="another size than its picture"):
        served["score_bytes"](**{**files, "segmentation_bytes": tf.constant([larger] * 2)})
    unknown = np.where(labels == 2, 77, labels)  # no label: as if void
    void = model.score(images, np.where(labels == 2, -1, labels))["class_dice"]
    found = served["score"](images=tf.constant(images), segmentations=tf.constant(unknown))["class_dice"]
    np.testing.assert_allclose(found, void, atol=2e-3)


@each_method
def test_a_seed_decides_everything(method):
    same, other = (make(method, seed=seed, steps=20, pixels=100) for seed in (0, 1))
    again = make(method, seed=0, steps=20, pixels=100)
    found = [model.segment_references(NEW[:1], NEW_TRUTHS[:1]) for model in (same, again, other)]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], same.segment_references(NEW[:1], NEW_TRUTHS[:1]))
    assert (method == "registration") == np.array_equal(found[0], found[2])  # which draws nothing


def test_calibrated_probabilities_change_the_forest_and_segment_as_well():
    plain, calibrated = make("forest", trees=3), make("forest", trees=3, probability_calibration="sigmoid")
    found = [model.overlaps(NEW[:1], NEW_TRUTHS[:1]) for model in (plain, calibrated)]
    assert (found[0] != found[1]).any()
    assert calibrated.score(NEW[:1], NEW_TRUTHS[:1])["dice"] > 0.8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "svm"}, "method must be one of"),
        ({"over": "median"}, "over must be one of"),
        ({"num_classes": 0}, "num_classes must be at least 1"),
        ({"num_references": 0}, "num_references must be at least 1"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"nearest": 0}, "nearest must be at least 1"),
        ({"level": 1.0}, "level must be"),
        ({"probability_calibration": "platt"}, "probability_calibration must be one of"),
        ({"image_shape": (8, 8)}, "image_shape must be"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        ReverseClassificationAccuracy(**{"image_shape": SHAPE, **options})


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (NEW, NEW_TRUTHS[:, :-1], r"\[B, 32, 32\], the pictures' size"),
        (NEW, NEW_TRUTHS[..., None], r"\[B, 32, 32\]"),
        (NEW, NEW_TRUTHS + 1, "labels from 0 to 2.*received 3"),
        (NEW, NEW_TRUTHS - 2, "labels from 0 to 2.*received -2"),
        (NEW, NEW_TRUTHS.astype("float32"), "argmax"),
        (NEW, NEW_TRUTHS[:1], "a picture for each of segmentations, received 2 and 1"),
        (NEW * 255, NEW_TRUTHS, "divide 8-bit"),
        (NEW[:, :-1], NEW_TRUTHS, "images"),
        (NEW * np.nan, NEW_TRUTHS, "finite"),
    ],
)
def test_pictures_and_segmentations_that_cannot_be_are_refused(images, labels, words):
    with pytest.raises(ValueError, match=words):
        shared("cnn").score(images, labels)


def test_references_that_cannot_be_are_refused():
    model = ReverseClassificationAccuracy(SHAPE, 2, REFERENCES)
    with pytest.raises(ValueError, match="set_references first"):
        model.score(NEW, NEW_TRUTHS)
    with pytest.raises(ValueError, match="expected 3 references, received 2"):
        model.set_references(NEW, NEW_TRUTHS)
    with pytest.raises(ValueError, match="no reference has class 2"):
        model.set_references(IMAGES, np.minimum(TRUTHS, 1))


def test_overlaps_that_cannot_be_are_refused():
    model, overlaps = make("forest"), random_overlaps(4)
    real = model.uncalibrated(overlaps).numpy()
    model.compile("sgd", jit_compile=False)
    for learn in (model.calibrate, lambda *pair: model.fit(*pair, verbose=0)):
        with pytest.raises(ValueError, match=r"overlaps \[N, 3, 3\]"):
            learn(overlaps[..., :2], real)
        with pytest.raises(ValueError, match=r"real overlaps \[N, 4\]"):
            learn(overlaps, real[:, :3])
        with pytest.raises(ValueError, match=r"in \[0, 1\], or -1"):
            learn(overlaps * 100, real)
    with pytest.raises(ValueError, match="of one length"):
        model.calibrate(overlaps, real, [1, 2])


# --- the tabular version --------------------------------------------------------------------------------------------


def rows(count, shift, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    return rng.normal(size=(count, 3)) + 2 * labels[:, None] + shift, labels


def test_the_tabular_version_agrees_with_a_computation_by_hand():
    (old_x, old_y), (new_x, new_y) = rows(80, 0, 0), rows(60, 0.5, 1)
    found, labels = reverse_accuracy(LogisticRegression(), old_x, old_y, new_x)
    first = LogisticRegression().fit(old_x, old_y)
    np.testing.assert_array_equal(labels, first.predict(new_x))
    second = LogisticRegression().fit(new_x, labels)
    assert found == np.mean(second.predict(old_x) == old_y)
    assert found < second.score(new_x, labels)  # by the new rows' own labels it would tell nothing
    assert np.mean(labels == new_y) > 0.8


def test_the_tabular_version_falls_where_the_new_rows_have_moved_away():
    old_x, old_y = rows(200, 0, 0)
    near, far = (reverse_accuracy(LogisticRegression(), old_x, old_y, rows(200, shift, 1)[0])[0] for shift in (0, 3))
    assert near > far + 0.2
    gone, labels = reverse_accuracy(LogisticRegression(), old_x, old_y, rows(20, 50, 1)[0])
    assert len(set(labels)) == 1
    assert gone == np.mean(old_y == labels[0])


# --- the batch command ----------------------------------------------------------------------------------------------


def write_pairs(folder, images, truths):
    for kind, arrays in (("images", np.uint8(np.round(255 * images[..., 0]))), ("masks", np.uint8(truths))):
        (folder / kind).mkdir(parents=True)
        for i, values in enumerate(arrays):
            Image.fromarray(values).save(folder / kind / f"{i}.png")


def test_a_folder_of_new_segmentations_becomes_a_table_with_the_worst_first(tmp_path, monkeypatch):
    untrained = lambda images, truths, others, *_, **__: np.zeros((2, *others.shape[:3]), "int32")
    monkeypatch.setattr(quality_trials, "segmented", untrained)
    for i, split in enumerate(("train", "validation", "test")):
        write_pairs(tmp_path / "known" / split, *scenes(6, 10 + i))
    images, truths = scenes(3, 20)
    truths[1] = np.array([0, 2, 1])[truths[1]]
    write_pairs(tmp_path / "new", images, truths)
    settings = {"data": f"pairs:{tmp_path / 'known'}", "score": f"pairs:{tmp_path / 'new'}", "method": "registration"}
    found = recipe(fast=True, table=str(tmp_path / "table.csv"), **settings)
    ((name, calibrate),) = found.stages
    calibrate(found, None)
    assert name == "calibration"
    assert found.evaluate(found.model)["scored"] == 3
    with open(tmp_path / "table.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert table[0]["name"] == "1.png"
    assert float(table[0]["dice"]) + 0.3 < float(table[1]["dice"]) <= float(table[2]["dice"])
    assert {"dice_low", "dice_high", "iou", "foreground_dice", "dice_1", "dice_2"} <= set(table[0])
    assert {"scatter", "worst", "worst_of_test"} == set(found.pictures(found.model))
    with pytest.raises(FileExistsError):
        recipe(fast=True, table=str(tmp_path / "table.csv"), **settings).evaluate(found.model)
