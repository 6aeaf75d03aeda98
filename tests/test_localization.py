"""Laws of the localisation network: NumPy's losses, which gradient reaches what, padding, ILSVRC's rule, stages."""

import io
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import dmkeras
from dmkeras import LocalizationNetwork
from dmkeras.detection import localization

SHAPE, SIDES = (16, 24, 3), np.array([24, 16, 24, 16], "float32")
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(5, *SHAPE)).astype("float32")
BOXES = np.sort(RNG.uniform(size=(5, 2, 2)), axis=1).reshape(5, 1, 4).astype("float32") * SIDES
CLASSES = np.array([[0], [2], [1], [-1], [2]])  # the fourth picture has no object
TARGETS = {"boxes": BOXES, "classes": CLASSES}
OUTPUTS = {
    "logits": RNG.normal(size=(5, 3)).astype("float32"),
    "boxes": (BOXES[:, 0] / SIDES + RNG.normal(scale=0.2, size=(5, 4))).astype("float32"),
}


def network(num_classes=3, shape=SHAPE, **options):
    return LocalizationNetwork(shape, num_classes, **{"filters": (4, 4), "hidden_size": 8, **options})


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return network(box_weight=3.0)


@pytest.fixture
def of_kind(model, monkeypatch):
    """kind -> the model with that box loss."""
    return lambda kind: monkeypatch.setattr(model, "box_loss", kind) or model


@pytest.fixture(scope="module")
def per_class():
    return network(per_class_boxes=True)


def loss_of(model, outputs=OUTPUTS, targets=TARGETS, **options):
    return float(model.compute_loss(IMAGES, targets, tf.nest.map_structure(tf.constant, outputs), **options))


def reference(kind, outputs=OUTPUTS, targets=TARGETS):
    """Class loss and box loss in NumPy, picture by picture."""
    class_losses, box_losses = [], []
    for logits, told, box, label in zip(
        outputs["logits"], outputs["boxes"], targets["boxes"][:, 0], targets["classes"]
    ):
        if label[0] < 0:
            continue
        class_losses.append(np.log(np.exp(logits.astype("float64")).sum()) - logits[label[0]])
        told, box = (told if told.ndim == 1 else told[label[0]]).astype("float64"), box / SIDES.astype("float64")
        d = np.abs(told - box)
        box_losses.append(
            {
                "l2": (d**2).sum(),
                "smooth_l1": np.where(d < 1 / 9, 4.5 * d**2, d - 1 / 18).sum(),
                "giou": 1 - _giou(told, box),
            }[kind]
        )
    return np.mean(class_losses), np.mean(box_losses)


def _giou(a, b):
    area = lambda low, high: np.prod(np.maximum(high - low, 0))
    inter = area(np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:]))
    union = area(a[:2], a[2:]) + area(b[:2], b[2:]) - inter
    corners = np.stack([a, b]).reshape(4, 2)
    hull = np.ptp(corners, axis=0).prod()
    return inter / union - (hull - union) / hull


# --- the loss ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", localization.BOX_LOSSES)
def test_the_loss_is_the_sum_of_both_losses_of_numpy(kind, of_kind):
    model = of_kind(kind)
    class_loss, box_loss = reference(kind)
    model.reset_metrics()
    np.testing.assert_allclose(loss_of(model), class_loss + 3 * box_loss, rtol=1e-5)
    found = {name: float(tracker.result()) for name, tracker in model.trackers.items()}
    np.testing.assert_allclose([found["class_loss"], found["box_loss"]], [class_loss, box_loss], rtol=1e-5)
    assert loss_of(model) != pytest.approx(class_loss + box_loss, rel=1e-3)  # the weight is no ornament


def test_weights_of_pictures_weigh_both_losses(model):
    weight = np.array([2.0, 0, 0, 7, 0], "float32")
    first = {key: values[:1] for key, values in OUTPUTS.items()}, {key: values[:1] for key, values in TARGETS.items()}
    class_loss, box_loss = reference("l2", *first)
    np.testing.assert_allclose(loss_of(model, sample_weight=weight), 2 / 4 * (class_loss + 3 * box_loss), rtol=1e-5)


@pytest.mark.parametrize("kind", localization.BOX_LOSSES)
def test_a_mirror_image_has_the_same_loss(kind, of_kind):
    model = of_kind(kind)
    mirrored = lambda boxes, width: np.stack(
        [width - boxes[..., 2], boxes[..., 1], width - boxes[..., 0], boxes[..., 3]], axis=-1
    )
    outputs = {**OUTPUTS, "boxes": mirrored(OUTPUTS["boxes"], 1)}
    targets = {**TARGETS, "boxes": mirrored(BOXES, 24)}
    np.testing.assert_allclose(loss_of(model, outputs, targets), loss_of(model), rtol=1e-5)
    assert loss_of(model, OUTPUTS, targets) != pytest.approx(loss_of(model), rel=1e-3)


@pytest.mark.parametrize("box", [[0, 0, 0, 0], [9, 9, -5, 2], [np.nan] * 4, [np.inf, 0, -np.inf, 1], [1e30] * 4])
def test_what_a_padded_row_holds_changes_nothing(box, model):
    boxes = BOXES.copy()
    boxes[3] = box
    loss, gradient = loss_and_gradient(model, {**TARGETS, "boxes": boxes})
    was, expected = loss_and_gradient(model, TARGETS)
    assert loss == was
    tf.nest.map_structure(np.testing.assert_array_equal, gradient, expected)
    assert loss_of(model, targets={"boxes": boxes, "classes": np.where(CLASSES < 0, 0, CLASSES)}) != was


def test_a_picture_without_an_object_adds_nothing_and_a_batch_of_them_is_finite(model):
    real = np.flatnonzero(CLASSES[:, 0] >= 0)
    without = tf.nest.map_structure(lambda values: values[real], (OUTPUTS, TARGETS))
    np.testing.assert_allclose(loss_of(model), loss_of(model, *without), rtol=1e-6)
    loss, gradient = loss_and_gradient(model, {**TARGETS, "classes": np.full_like(CLASSES, -1)})
    assert loss == 0
    assert not any(np.any(values) for values in tf.nest.flatten(gradient))


@pytest.mark.parametrize("box", [[5, 5, 5, 9], [9, 5, 5, 9], [4, 4, 4, 4], [np.nan, 0, 1, 1]])
@pytest.mark.parametrize("kind", localization.BOX_LOSSES)
def test_a_degenerate_box_is_left_out_of_the_box_loss_alone(box, kind, of_kind):
    model, boxes = of_kind(kind), BOXES.copy()
    boxes[0] = box
    loss, gradient = loss_and_gradient(model, {**TARGETS, "boxes": boxes})
    without = tf.nest.map_structure(lambda values: values[1:], (OUTPUTS, TARGETS))
    np.testing.assert_allclose(loss, reference(kind)[0] + 3 * reference(kind, *without)[1], rtol=1e-5)
    assert not np.any(gradient["boxes"][0])
    assert np.any(gradient["logits"][0])
    assert all(np.isfinite(values).all() for values in tf.nest.flatten(gradient))


def loss_and_gradient(model, targets, outputs=OUTPUTS):
    outputs = tf.nest.map_structure(tf.constant, outputs)
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        loss = model.compute_loss(IMAGES, targets, outputs)
    return float(loss), tf.nest.map_structure(lambda values: values.numpy(), tape.gradient(loss, outputs))


@pytest.mark.parametrize("kind", localization.BOX_LOSSES)
def test_of_the_boxes_of_all_classes_the_true_one_alone_learns(kind, per_class, monkeypatch):
    monkeypatch.setattr(per_class, "box_loss", kind)
    outputs = {**OUTPUTS, "boxes": RNG.uniform(size=(5, 3, 4)).astype("float32")}
    loss, gradient = loss_and_gradient(per_class, TARGETS, outputs)
    np.testing.assert_allclose(loss, sum(reference(kind, outputs)), rtol=1e-5)
    reached = np.abs(gradient["boxes"]).sum(axis=-1) > 0
    np.testing.assert_array_equal(reached, np.arange(3) == CLASSES)


# --- training ---------------------------------------------------------------------------------------------------------


def moved(model, train=None, weights=None):
    """The parts of the model that training moves."""
    weights = weights or model.weights
    before = [weight.numpy() for weight in weights]
    (train or (lambda: model.fit(IMAGES, TARGETS, verbose=0)))()
    paths = [weight.path for weight, was in zip(weights, before) if not np.array_equal(weight.numpy(), was)]
    return {part for part in ("trunk", "class_head", "box_head") if any(f"/{part}/" in path for path in paths)}


def test_a_box_weight_of_nought_leaves_the_box_head_still(model):
    still = network(box_weight=0.0)
    still.compile("adam", run_eagerly=True)
    assert moved(still, weights=still.trainable_variables) == {"trunk", "class_head"}
    model.compile("adam", run_eagerly=True)
    assert moved(model) == {"trunk", "class_head", "box_head"}


def test_the_stages_train_the_classifier_and_then_the_box_head_alone():
    model = network(box_weight=2.0)
    recipe, seen = dmkeras.Recipe("toy", model, data=None, improves="localization_accuracy"), []

    def fit():
        seen.append((recipe.improves, model.box_weight))
        model.compile("adam", run_eagerly=True)
        model.fit(IMAGES, TARGETS, verbose=0)

    assert moved(model, train=lambda: localization.train_classifier(recipe, fit)) == {"trunk", "class_head"}
    model.box_head.trainable = True  # as the runner does after every stage
    assert moved(model, train=lambda: localization.train_box_head(recipe, fit)) == {"box_head"}
    assert seen == [("accuracy", 0.0), ("localization_accuracy", 2.0)]
    assert (recipe.improves, model.box_weight) == ("localization_accuracy", 2.0)


def test_the_figures_of_evaluate_are_those_of_the_pictures(model):
    model.compile("sgd", run_eagerly=True)
    found = model.evaluate(IMAGES, TARGETS, verbose=0, return_dict=True)
    assert set(found) == {"loss", *localization.OURS}
    np.testing.assert_allclose(found["loss"], found["class_loss"] + 3 * found["box_loss"], rtol=1e-5)
    told = model.localize(IMAGES)
    for key, value in model.evaluate_localization(IMAGES, TARGETS).items():
        np.testing.assert_allclose(found[key], value, rtol=1e-5)
    right = told["classes"].numpy() == CLASSES[:, 0]
    np.testing.assert_allclose(found["accuracy"], right[CLASSES[:, 0] >= 0].mean())


def test_training_finds_a_bright_rectangle_and_its_colour():
    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    low = generator.integers(0, 8, (512, 2))
    boxes = np.concatenate([low, low + generator.integers(4, 8, (512, 2))], axis=1)[:, None]
    kinds = generator.integers(0, 3, (512, 1))
    images = np.zeros((512, 16, 16, 3), "float32")
    for image, ((x1, y1, x2, y2),), (kind,) in zip(images, boxes, kinds):
        image[y1:y2, x1:x2, kind] = 1
    model = network(shape=(16, 16, 3), box_weight=10.0, hidden_size=32)
    model.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    model.fit(images, {"boxes": boxes, "classes": kinds}, epochs=15, verbose=0)
    found = model.evaluate_localization(images, {"boxes": boxes, "classes": kinds})
    assert found["accuracy"] > 0.95, found
    assert found["localization_accuracy"] > 0.8, found


def test_comparison_chooses_by_localization_accuracy_and_not_by_the_loss(capsys):
    class Trained:
        def __init__(self, weight, seed):
            self.figures = dict.fromkeys(localization.OURS, 0.0) | {"loss": weight, "mean_box_iou": weight / 1000}
            self.figures["localization_accuracy"] = {1: 0.5, 10: 0.75, 100: 0.75}[weight] + 0.1 * seed

        def evaluate(self, images, targets, **options):
            return self.figures

    chosen, table = localization.compare_weights(Trained, IMAGES, TARGETS, (1, 10, 100), (0, 1))
    assert chosen == 100  # of two alike in the first figure, the one with the better boxes
    np.testing.assert_allclose(table["localization_accuracy"], [[0.5, 0.6], [0.75, 0.85], [0.75, 0.85]])
    assert "chosen 100, the least loss has 1" in capsys.readouterr().out


# --- answers ----------------------------------------------------------------------------------------------------------


def telling(boxes, logits, **options):
    """A network that tells these boxes (fractions) and logits of any picture."""
    model = network(num_classes=len(logits), hidden_size=(), **options)
    for head, values in ((model.class_head, logits), (model.box_head, np.ravel(boxes))):
        kernel, _ = head.layers[-1].get_weights()
        head.layers[-1].set_weights([np.zeros_like(kernel), np.array(values)])
    return model


def test_a_told_box_is_put_in_order_cut_to_the_picture_and_of_the_told_class():
    boxes = [[0.1, 0.2, 0.3, 0.4], [0.75, -0.5, 0.25, 1.5], [0.5, 0.6, 0.7, 0.8]]
    found = telling(boxes, [0.0, 2, 1], per_class_boxes=True).localize(IMAGES)
    np.testing.assert_allclose(found["boxes"], np.tile([6.0, 0, 18, 16], (5, 1)), rtol=1e-5)
    np.testing.assert_array_equal(found["classes"], np.ones(5))
    np.testing.assert_allclose(found["probabilities"][0], np.exp([0, 2, 1]) / np.exp([0, 2, 1]).sum(), rtol=1e-5)
    np.testing.assert_allclose(found["scores"], found["probabilities"][:, 1])


def test_the_rule_of_ilsvrc_wants_class_and_box_of_one_of_the_first_classes():
    logits = [0.0, 5, 4, 3, 2, 1]  # 1, 2, 3, 4, 5, 0 is their order
    boxes = np.tile([0.0, 0, 1, 1], (6, 1))
    boxes[3] = [0.0, 0, 0.5, 1]
    model = telling(boxes, logits, per_class_boxes=True)
    whole, left = [[0.0, 0, 24, 16]], [[0.0, 0, 10, 16]]
    targets = {"boxes": np.array([whole, whole, whole, left, whole], "float32")}
    targets["classes"] = np.array([[1], [3], [2], [3], [-1]])
    found = lambda **options: model.evaluate_localization(IMAGES, targets, **options)
    first, five = found(), found(top=5)
    np.testing.assert_allclose(first["mean_box_iou"], (3 + 10 / 24) / 4, rtol=1e-5)
    assert (first["accuracy"], first["localization_accuracy"]) == (0.25, 0.25)
    assert (five["accuracy"], five["localization_accuracy"]) == (1, 1)  # the box of class 3 on the whole has IoU 0.5
    assert found(top=5, iou_threshold=0.6)["localization_accuracy"] == 0.75
    assert found(top=2)["localization_accuracy"] == 0.5
    model.compile("sgd", run_eagerly=True)
    targets["boxes"][0, 0] = 7.0  # degenerate: the class counts, the box does not
    told = model.evaluate(IMAGES, targets, verbose=0, return_dict=True)
    assert {key: told[key] for key in first} == {key: pytest.approx(value) for key, value in found().items()}
    assert (told["accuracy"], told["localization_accuracy"]) == (0.25, 0)
    with pytest.raises(ValueError, match="top must be from 1 to the 6 classes, received 7"):
        found(top=7)


@pytest.mark.parametrize(("width", "height"), [(48, 20), (10, 40), (24, 16)])
def test_the_served_box_of_a_letterboxed_picture_is_of_the_picture_sent(width, height):
    file = io.BytesIO()
    Image.fromarray(np.zeros((height, width, 3), "uint8")).save(file, format="PNG")
    model = telling([0.25, 0.25, 0.5, 0.75], [0.0, 2, 1])
    answer = model.signatures()["detect_bytes"][0](tf.constant([file.getvalue()] * 2))
    scale = min(24 / width, 16 / height)
    left, top = (24 - scale * width) // 2, (16 - scale * height) // 2
    x1, y1, x2, y2 = 6, 4, 12, 12  # in pixels of the model
    expected = [(y1 - top) / height, (x1 - left) / width, (y2 - top) / height, (x2 - left) / width]
    expected = np.clip(np.array(expected) / scale, 0, 1)
    np.testing.assert_allclose(answer["detection_boxes"], np.tile(expected, (2, 1, 1)), atol=1e-5)
    np.testing.assert_array_equal(answer["detection_classes"], [[1], [1]])
    np.testing.assert_array_equal(answer["num_detections"], [1, 1])
    same = model.signatures()["serving_default"][0](tf.constant(IMAGES))
    np.testing.assert_allclose(same["detection_boxes"], np.tile([0.25, 0.25, 0.75, 0.5], (5, 1, 1)))
    np.testing.assert_allclose(same["detection_scores"], np.tile(answer["detection_scores"][:1], (5, 1)), rtol=1e-6)


def test_mixed_precision_answers_and_learns_in_float32():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = network(per_class_boxes=True)
    finally:
        keras.config.set_dtype_policy(policy)
    assert model.trunk.layers[0].compute_dtype == "bfloat16"
    assert {values.dtype for values in model(IMAGES).values()} == {tf.float32}
    model.compile("adam", run_eagerly=True)
    assert moved(model) == {"trunk", "class_head", "box_head"}
    assert np.isfinite(model.evaluate(IMAGES, TARGETS, verbose=0)).all()


@pytest.mark.parametrize("pooling", ["flatten", "average"])
def test_the_configuration_makes_the_same_model_again(pooling):
    model = network(hidden_size=(8, 6), pooling=pooling, box_weight=2, box_loss="giou", per_class_boxes=True)
    config = json.loads(json.dumps(model.get_config()))
    twin = LocalizationNetwork.from_config(config)
    assert json.loads(json.dumps(twin.get_config())) == config
    twin.set_weights(model.get_weights())
    tf.nest.map_structure(np.testing.assert_array_equal, twin(IMAGES), model(IMAGES))


# --- doors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_shape": (8, 8)}, "image_shape must be"),
        ({"num_classes": 1}, "num_classes must be at least 2"),
        ({"filters": ()}, "filters must be at least one size"),
        ({"filters": (8, 0)}, "each of filters must be at least 1"),
        ({"hidden_size": 2.5}, "each of hidden_size must be a whole number"),
        ({"pooling": "max"}, "pooling must be one of 'flatten', 'average', received 'max'"),
        ({"box_loss": "l3"}, "box_loss must be one of"),
        ({"box_weight": -1}, "box_weight must be at least 0"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LocalizationNetwork(**{"image_shape": SHAPE, **arguments})


@pytest.mark.parametrize(
    ("images", "targets", "message"),
    [
        (IMAGES[:, :8], TARGETS, r"expected images \[B, 16, 24, 3\]"),
        (255 * IMAGES, TARGETS, "divide 8-bit pixels by 255"),
        (IMAGES, {"boxes": BOXES}, "received a dict of boxes"),
        (IMAGES, {**TARGETS, "classes": CLASSES + 1}, "expected classes from 0 to 2"),
        (IMAGES, {**TARGETS, "boxes": BOXES / SIDES}, "multiply by width and height"),
        (IMAGES, {"boxes": BOXES.repeat(2, 1), "classes": CLASSES.repeat(2, 1)}, "keep one object of each picture"),
        (IMAGES, None, "received none; give them to fit"),
    ],
)
def test_bad_pictures_and_targets_are_refused(images, targets, message, model):
    model.compile("sgd", run_eagerly=True)
    with pytest.raises(ValueError, match=message):
        model.fit(images, targets, verbose=0)
    if targets is not None:
        with pytest.raises(ValueError, match=message):
            model.evaluate(tf.data.Dataset.from_tensor_slices((images, targets)).batch(5), verbose=0)
