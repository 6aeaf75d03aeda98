"""What the cascade owes beside the contract: boxes and units, an answer for each joint, losses, simulated errors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dmkeras.detection.human_pose import HumanPose
from dmkeras.parts import pose_doors
from tests.parts.test_frames import by_hand

SHAPE, TORSO, LIMBS, SIGMA, SIDE = (20, 28, 3), (0, 2), ((0, 1), (1, 2)), 1.5, 6
MIDDLE, SIDES = np.array([14.0, 10.0]), np.array([28.0, 20.0])  # of the whole picture


def make(stages=3, seed=0, **options):
    """Random weights everywhere, so that nothing is at its start by chance."""
    model = HumanPose(SHAPE, 3, TORSO, LIMBS, stages, SIDE, (3,), 5, sigma=SIGMA, **options)
    rng = np.random.default_rng(seed)
    for network in model.networks:
        network.set_weights([rng.uniform(0.1, 0.5, w.shape) * rng.choice((-1, 1), w.shape) for w in network.weights])
        for layer in network._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.moving_variance.assign(np.abs(layer.moving_variance))
    return model


def constant(model, answers):
    """Makes the networks answer `answers` [S, J, 2] whatever they see."""
    for network, answer in zip(model.networks, answers):
        network.layers[-1].kernel.assign(np.zeros(network.layers[-1].kernel.shape))
        network.layers[-1].bias.assign(np.ravel(answer))
    return model


def diameter(joints):
    return np.linalg.norm(joints[..., TORSO[0], :] - joints[..., TORSO[1], :], axis=-1)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).random((4, *SHAPE), "float32")


@pytest.fixture(scope="module")
def model():
    return make()


@pytest.fixture(scope="module")
def truths():
    points = np.random.default_rng(2).uniform(2, 18, (4, 3, 2))
    return np.concatenate([points, np.full((4, 3, 1), 2.0)], -1).astype("float32")


BOXES = np.array([[2, 3, 18, 11], [0, 0, 28, 20], [-4, 1, 12, 25], [5, 5, 9, 9]], "float32")
ANSWERS = np.random.default_rng(3).uniform(-0.4, 0.4, (3, 3, 2))


# --- the cascade ----------------------------------------------------------------------------------------------------


def test_the_first_stage_answers_in_units_of_the_box_and_later_ones_in_diameters(images):
    model = constant(make(), ANSWERS)
    found = model(images, BOXES).numpy()
    middle, sides = (BOXES[:, :2] + BOXES[:, 2:]) / 2, BOXES[:, 2:] - BOXES[:, :2]
    joints = middle[:, None] + ANSWERS[0] * sides[:, None]
    np.testing.assert_allclose(found[:, 0], joints, rtol=1e-5)
    for stage in (1, 2):
        joints = joints + SIGMA * diameter(joints)[:, None, None] * ANSWERS[stage]
        np.testing.assert_allclose(found[:, stage], joints, rtol=1e-4)
    stale = found[:, 1] + SIGMA * diameter(found[:, 0])[:, None, None] * ANSWERS[2]
    assert not np.allclose(stale, found[:, 2], rtol=1e-2)  # the diameter is that of the stage before


def test_what_a_stage_sees_is_the_picture_in_its_boxes(images, monkeypatch):
    model, seen = constant(make(2), ANSWERS), []
    ask = HumanPose._ask
    monkeypatch.setattr(HumanPose, "_ask", lambda *args: (seen.append(args[2].numpy()), ask(*args))[1])
    found = model(images, BOXES).numpy()
    whole, crops = seen
    assert crops.shape == (12, SIDE, SIDE, 3)
    grid = (np.arange(SIDE) + 0.5) / SIDE - 0.5
    unit = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
    fine = (np.arange(3 * SIDE) + 0.5) / (3 * SIDE) - 0.5
    fine = np.stack(np.meshgrid(fine, fine), -1).reshape(-1, 2)  # 28 pixels to 6: three samples a pixel
    for b in range(4):
        middle, sides = (BOXES[b, :2] + BOXES[b, 2:]) / 2, BOXES[b, 2:] - BOXES[b, :2]
        expected = by_hand(images[b], middle + fine * sides).reshape(SIDE, 3, SIDE, 3, 3).mean((1, 3))
        np.testing.assert_allclose(whole[b], expected, atol=1e-5)
        side = SIGMA * diameter(found[b, 0])
        for i in range(3):
            expected = by_hand(images[b], found[b, 0, i] + unit * side).reshape(SIDE, SIDE, 3)
            np.testing.assert_allclose(crops[3 * b + i], expected, atol=1e-4)


def test_joint_i_gets_answer_i_of_its_own_crop(images, monkeypatch):
    """Answers of crop n are n + 1 times the joint's number: a mix of crops and answers would show."""
    model = make(2)
    numbers = lambda crops: np.arange(1, len(crops) + 1)[:, None, None] * np.array([[[1, 10], [2, 20], [3, 30]]])
    monkeypatch.setattr(HumanPose, "_ask", lambda self, stage, crops, training: tf.constant(numbers(crops), "float32"))
    found = model._displace(2, images, tf.zeros((4, 3, 2)), tf.ones(4)).numpy()
    expected = [[[(3 * b + i + 1) * (i + 1) * f for f in (1, 10)] for i in range(3)] for b in range(4)]
    np.testing.assert_array_equal(found, expected)


def test_joints_move_with_the_picture_and_its_box(model):
    images = np.full((1, *SHAPE), 0.5, "float32")  # as beyond the border
    images[:, 4:14, 3:15] = np.random.default_rng(0).random((10, 12, 3))
    moved = np.roll(images, (5, 9), (1, 2))
    box = np.array([[3, 4, 15, 14]], "float32")
    first, second = model(images, box), model(moved, np.add(box, [[9, 5, 9, 5]]))
    np.testing.assert_allclose(second - [9, 5], first, atol=1e-3)
    assert np.abs(model(moved, box) - first).max() > 0.1


def test_no_box_and_a_box_without_area_are_the_whole_picture(model, images):
    whole = model(images, np.tile([[0, 0, 28, 20]], (4, 1)))
    np.testing.assert_array_equal(model(images), whole)
    np.testing.assert_array_equal(model(images, np.zeros((4, 4))), whole)
    np.testing.assert_array_equal(model(images, np.tile([[5, 9, 3, 12]], (4, 1))), whole)
    assert not np.allclose(model(images, BOXES)[0], whole[0])


def test_a_row_depends_on_itself_alone_and_xla_gives_the_same(model, images):
    whole = model(images, BOXES).numpy()
    for b in range(4):
        np.testing.assert_allclose(model(images[b : b + 1], BOXES[b : b + 1])[0], whole[b], atol=1e-3)
    compiled = tf.function(lambda *rows: model(*rows), jit_compile=True, autograph=False)
    np.testing.assert_allclose(compiled(images, BOXES), whole, atol=1e-3)
    np.testing.assert_array_equal(model(images, BOXES, training=True), whole)  # a stage learns in the loss


def test_told_joints_that_coincide_still_have_a_box(images):
    model = constant(make(), np.zeros((3, 3, 2)))
    np.testing.assert_allclose(model(images)[:, 2], np.tile(MIDDLE, (4, 3, 1)), rtol=1e-6)
    model = constant(make(2), [np.zeros((3, 2)), np.ones((3, 2))])
    np.testing.assert_allclose(model(images)[0, 1], np.tile(MIDDLE + SIGMA * 20 / 32, (3, 1)), rtol=1e-5)


# --- the loss -------------------------------------------------------------------------------------------------------


def value_and_gradients(model, images, keypoints, boxes=None, training=True):
    truths = {"keypoints": keypoints} | ({} if boxes is None else {"boxes": boxes})
    with tf.GradientTape() as tape:
        loss = model.compute_loss(images, truths, model(images), training=training)
    return loss.numpy(), tape.gradient(loss, model.networks[model.stage - 1].trainable_weights)


def begun(model, stage, displacement=0.0, deviation=0.0):
    """The stage in training, with errors that are known."""
    model.begin_stage(stage, None if stage == 1 else ())
    if stage > 1:
        shape = (3, 2)
        model.joint_errors[stage - 2].assign([np.full(shape, displacement), np.full(shape, deviation)])
        model.diameter_errors[stage - 2].assign(np.zeros((2, 1)))
    return model


@pytest.mark.parametrize("training", [True, False])
def test_the_first_loss_is_the_sum_over_joints_of_squares_in_units_of_the_box(images, truths, training):
    model = begun(constant(make(), ANSWERS), 1)
    middle, sides = (BOXES[:, :2] + BOXES[:, 2:]) / 2, BOXES[:, 2:] - BOXES[:, :2]
    units = (truths[..., :2] - middle[:, None]) / sides[:, None]
    expected = ((ANSWERS[0] - units) ** 2).sum((1, 2)).mean()
    assert value_and_gradients(model, images, truths, BOXES, training)[0] == pytest.approx(expected, rel=1e-4)
    whole = ((ANSWERS[0] - (truths[..., :2] - MIDDLE) / SIDES) ** 2).sum((1, 2)).mean()
    assert value_and_gradients(model, images, truths, None, training)[0] == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize("stage", [2, 3])
def test_a_later_loss_in_training_is_towards_minus_the_displacement(images, truths, stage):
    """With deviation 0 every box is displaced by the mean, in diameters: psi = -delta / sigma costs nothing."""
    model = begun(constant(make(), ANSWERS), stage, displacement=0.3)
    expected = ((ANSWERS[1] + 0.3 / SIGMA) ** 2).sum()  # the third network starts as the second
    assert value_and_gradients(model, images, truths)[0] == pytest.approx(expected, rel=1e-4)
    right = begun(constant(make(), np.full((3, 3, 2), -0.3 / SIGMA)), stage, displacement=0.3)
    assert value_and_gradients(right, images, truths)[0] < 1e-8


def test_a_later_loss_in_validation_is_of_what_the_cascade_tells(images, truths):
    model = begun(constant(make(), ANSWERS), 2, displacement=0.3)
    found = model(images, BOXES).numpy()[:, 1]
    away = (found - truths[..., :2]) / (SIGMA * diameter(truths[..., :2]))[:, None, None]
    expected = (away**2).sum((1, 2)).mean()
    assert value_and_gradients(model, images, truths, BOXES, False)[0] == pytest.approx(expected, rel=1e-4)
    figures = {name: float(tracker.result()) for name, tracker in model.trackers.items()}
    assert figures["mean_error"] == pytest.approx(SIGMA * np.sqrt((away**2).sum(-1)).mean(), rel=1e-4)


@pytest.mark.parametrize("stage", [1, 2])
def test_a_joint_that_is_not_labelled_never_enters(images, truths, stage):
    model, losses = begun(make(), stage, 0.1), []
    for value in (0.0, 1e9, np.nan, np.inf):
        keypoints = truths.copy()
        keypoints[:2, 1] = value, value, 0
        loss, gradients = value_and_gradients(model, images, keypoints)
        losses.append(loss)
        assert all(np.isfinite(g).all() for g in gradients)
        assert max(np.abs(g).max() for g in gradients) > 0
    assert len(set(losses)) == 1
    assert losses[0] < value_and_gradients(model, images, truths)[0]
    assert np.isfinite(losses[0])


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("training", [True, False])
def test_persons_without_anything_labelled_and_no_persons_at_all_cost_nothing(images, truths, stage, training):
    model = begun(make(), stage, 0.1, 0.1)
    nothing = np.full((4, 3, 3), [np.nan, np.nan, 0], "float32")
    for rows, keypoints in ((4, nothing), *([] if training else [(0, truths)])):
        loss, gradients = value_and_gradients(model, images[:rows], keypoints[:rows], training=training)
        assert loss == 0
        assert all(g is None or np.abs(g).max(initial=0) == 0 for g in gradients)


@pytest.mark.parametrize("stage", [1, 2])
def test_training_refuses_a_batch_without_pictures_before_its_statistics_are_no_numbers(images, truths, stage):
    model = begun(make(2), stage, 0.1, 0.1)
    model.compile(keras.optimizers.SGD(), jit_compile=False)
    data = tf.data.Dataset.from_tensors((images, {"keypoints": truths}))
    last = data.map(lambda images, truths: (images[:0], {"keypoints": truths["keypoints"][:0]}))
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected at least one picture, received none"):
        model.fit(data.concatenate(last), verbose=0)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    with pytest.raises(ValueError, match="expected at least one picture, received none"):
        model.fit(images[:0], {"keypoints": truths[:0]})
    assert model.pose(images[:0])["joints"].shape == (0, 3, 2)


def test_a_person_without_a_diameter_counts_for_the_first_stage_alone(images, truths):
    torso_hidden, flat = truths.copy(), truths.copy()
    torso_hidden[:, 0, 2], flat[:, 0] = 0, flat[:, 2]
    for keypoints in (torso_hidden, flat):
        assert value_and_gradients(begun(make(), 1), images, keypoints)[0] > 0
        loss, gradients = value_and_gradients(begun(make(), 2, 0.1, 0.1), images, keypoints)
        assert loss == 0
        assert all(np.isfinite(g).all() for g in gradients)


def test_hidden_joints_count_unless_told_otherwise(images, truths):
    hidden, gone = truths.copy(), truths.copy()
    hidden[:, 1, 2], gone[:, 1, 2] = 1, 0
    loss = lambda keypoints, **options: value_and_gradients(make(**options), images, keypoints)[0]
    assert loss(hidden) == loss(truths) > loss(gone)
    assert loss(hidden, least_visibility=2) == loss(gone)


def test_weights_of_pictures_weigh_their_losses(images, truths):
    model = begun(constant(make(), ANSWERS), 1)
    each = [model.compute_loss(images[:1], {"keypoints": truths[b : b + 1]}).numpy() for b in range(4)]
    loss = model.compute_loss(images, {"keypoints": truths}, sample_weight=tf.constant([1.0, 0, 2, 0])).numpy()
    assert loss == pytest.approx((each[0] + 2 * each[2]) / 4, rel=1e-4)


# --- simulated errors -----------------------------------------------------------------------------------------------


def test_simulated_boxes_have_the_errors_of_the_stage_before_in_diameters():
    model = make(2)
    mean, deviation = np.arange(6).reshape(3, 2) / 10 - 0.2, np.arange(1, 7).reshape(3, 2) / 20
    model.joint_errors[0].assign([mean, deviation])
    model.diameter_errors[0].assign([[0.1], [0.2]])
    truth = np.array([[3, 4, 2], [9, 9, 2], [11, 10, 1]], "float32")  # diameter 10
    keypoints = np.tile(truth, (20000, 1, 1))
    middle, side = (values.numpy() for values in model.simulated(keypoints, 2, seed=3))
    delta = (middle - truth[:, :2]) / 10
    np.testing.assert_allclose(delta.mean(0), mean, atol=0.01)
    np.testing.assert_allclose(delta.std(0), deviation, rtol=0.03)
    np.testing.assert_allclose(np.corrcoef(delta.reshape(-1, 6).T), np.eye(6), atol=0.03)
    logs = np.log(side / (SIGMA * 10))
    np.testing.assert_allclose((logs.mean(), logs.std()), (0.1, 0.2), atol=0.01)
    assert abs(np.corrcoef(logs, delta[:, 0, 0])[0, 1]) < 0.03
    skew = ((delta - delta.mean(0)) ** 4).mean(0) / delta.var(0) ** 2
    np.testing.assert_allclose(skew, 3, atol=0.2)  # normal, not uniform
    twice = np.concatenate([keypoints[:5], keypoints[:5] * [2, 2, 1]])
    one, two = np.split(model.simulated(twice.astype("float32"), 2, seed=3)[1].numpy(), 2)
    assert 1.2 < (two / one).mean() < 4  # larger persons, larger boxes


def test_the_errors_of_a_stage_are_measured_over_what_is_labelled_and_within_the_next_box(monkeypatch):
    rng, model = np.random.default_rng(0), make(2)
    truth = np.tile(np.array([[3, 4, 2], [9, 9, 2], [11, 10, 2]], "float32"), (3000, 1, 1))
    truth[:, :, :2] *= rng.uniform(0.5, 2, (3000, 1, 1))
    size = np.hypot(8, 6) * truth[:, 0, 0] / 3
    delta = rng.normal((0.1, -0.05), (0.05, 0.1), (3000, 3, 2))
    told = truth[..., :2] + delta * size[:, None, None]
    told[:300, 1] += 100  # left for right: outside of the next box
    truth[300:600, 1] = np.nan, np.nan, 0
    told[300:600, 1] = 77
    told[600:700, 0] += 1000  # no diameter that a next box is made for
    place = iter(np.split(told[:, None].astype("float32"), 3))
    monkeypatch.setattr(HumanPose, "call", lambda self, images, boxes=None, training=False: images)
    data = [(next(place), {"keypoints": part}) for part in np.split(truth, 3)]
    model.begin_stage(2, data)
    mean, deviation = model.joint_errors[0].numpy()
    np.testing.assert_allclose(mean, [[0.1, -0.05]] * 3, atol=0.01)
    np.testing.assert_allclose(deviation, [[0.05, 0.1]] * 3, atol=0.01)
    ratio = np.log(np.linalg.norm(told[:, 0] - told[:, 2], axis=-1) / size)
    ratio = np.clip(ratio, -np.log(2), np.log(2))  # at most a factor of two
    np.testing.assert_allclose(model.diameter_errors[0].numpy().ravel(), (ratio.mean(), ratio.std()), atol=0.01)


def test_a_stage_moves_its_own_network_alone_and_the_third_starts_from_the_second(images, truths):
    model = make()
    weights = lambda: [[w.numpy() for w in network.weights] for network in model.networks]
    for stage in (1, 2, 3):
        was = weights()
        data = tf.data.Dataset.from_tensors((images, {"keypoints": truths, "boxes": BOXES})).repeat(2)
        model.begin_stage(stage, None if stage == 1 else data)
        if stage == 3:
            for first, second in zip(model.networks[1].weights, model.networks[2].weights):
                np.testing.assert_array_equal(first, second)
        first = model(images)[:, : stage - 1].numpy()
        model.compile(keras.optimizers.SGD(0.01), jit_compile=False)
        model.fit(data, verbose=0)
        for i, (before, after) in enumerate(zip(was, weights())):
            still = [np.array_equal(*pair) for pair in zip(before, after)]
            assert not any(still) if i == stage - 1 else all(still)
        np.testing.assert_array_equal(model(images)[:, : stage - 1], first)


@pytest.mark.parametrize(("stage", "data"), [(0, None), (4, ()), (2, None), (1, ())])
def test_stages_that_are_not_there_or_lack_data_are_refused(model, stage, data):
    with pytest.raises(ValueError, match=r"stage must be at least 1|expected a stage from 1 to 3"):
        model.begin_stage(stage, data)


# --- answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(20, 28), (55, 40), (10, 31)])
def test_joints_are_in_pixels_of_the_picture_sent(size):
    model = constant(make(2), [[[0, 0], [0.25, -0.5], [0.5, 0.5]], np.zeros((3, 2))])
    height, width = size
    found = model.pose(np.random.default_rng(0).random((2, height, width, 3), "float32"))
    middle = [[width / 2, height / 2], [0.75 * width, 0], [width, height]]
    np.testing.assert_allclose(found["joints"], [middle] * 2, atol=1e-3)
    np.testing.assert_allclose(found["stages"][:, 1], found["joints"])
    box = np.array([[4, 2, 8, 10]] * 2, "float32")
    inside = model.pose(np.zeros((2, height, width, 3), "float32"), box)["joints"]
    np.testing.assert_allclose(inside, [[[6, 6], [7, 2], [8, 10]]] * 2, atol=1e-3)


def test_endpoints_answer_with_the_last_stage_and_with_all(model, images):
    feeds = {"serving_default": (images,), "pose_in_boxes": (images, BOXES)}
    for name, feed in feeds.items():
        found, expected = model.signatures()[name][0](*map(tf.constant, feed)), model(*feed).numpy()
        np.testing.assert_allclose(found["joints"], expected[:, -1], rtol=1e-5)
        np.testing.assert_allclose(found["stages"], expected, rtol=1e-5)
        assert not np.allclose(expected[:, -1], expected[:, 0])
    pixels = np.round(images * 255).astype("uint8")
    found = model.signatures()["pose_bytes"][0](tf.stack([tf.io.encode_png(picture) for picture in pixels]))
    expected = model(pixels / np.float32(255))
    np.testing.assert_allclose(found["joints"], expected[:, -1], atol=1e-3)
    np.testing.assert_allclose(found["stages"], expected, atol=1e-3)


def test_files_are_answered_in_their_own_pixels_with_a_skeleton(images):
    model = constant(make(1), [[[-0.25, 0], [0.25, 0], [0.25, 0.25]]])
    pictures = [np.full((60, 90, 3), 100, "uint8"), np.full((40, 30, 3), 100, "uint8")]
    files = tf.stack([tf.io.encode_png(picture) for picture in pictures])
    function, _ = model.signatures()["pose_bytes"]
    answer = tf.function(function, autograph=False)(files)
    for i, (width, height) in enumerate(((90, 60), (30, 40))):
        expected = np.array([[0.25, 0.5], [0.75, 0.5], [0.75, 0.75]]) * [width, height]
        np.testing.assert_allclose(answer["joints"][i], expected, atol=1e-3)
        drawn = tf.io.decode_png(answer["skeleton_bytes"][i]).numpy()
        assert drawn.shape == pictures[i].shape
        changed = (drawn != 100).any(-1)
        rows, columns = np.nonzero(changed)
        x, y = columns + 0.5, rows + 0.5
        near = np.minimum(
            np.hypot(x - np.clip(x, 0.25 * width, 0.75 * width), y - 0.5 * height),
            np.hypot(x - 0.75 * width, y - np.clip(y, 0.5 * height, 0.75 * height)),
        )
        assert near.max() <= 2.5
        assert changed[height // 2, width // 4 : 3 * width // 4].all()  # the limb from left to right
        assert changed[height // 2 : 3 * height // 4, 3 * width // 4].all()
    with pytest.raises(tf.errors.InvalidArgumentError):
        function(tf.constant([b"no picture"]))


def test_a_grey_model_has_no_endpoint_for_files_and_its_config_makes_it_again(images):
    model = HumanPose((20, 28, 1), 3, TORSO, LIMBS, 2, SIDE, (3,), 5, dropout=0.5, sigma=2.0, least_visibility=2)
    assert set(model.signatures()) == {"serving_default", "pose_in_boxes"}
    again = HumanPose.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(again(images[..., :1]), model(images[..., :1]))


def test_half_precision_keeps_pixels_whole(images):
    model = make(1, dtype="mixed_bfloat16")
    model = constant(model, [[[0, 0], [1 / 3, 1 / 7], [0.5, 0.5]]])
    box = np.array([[1000.25, 3, 1013.5, 9]] * 4, "float32")
    expected = [[1006.875, 6], [1006.875 + 13.25 / 3, 6 + 6 / 7], [1013.5, 9]]
    np.testing.assert_allclose(model(images, box)[0, 0], expected, rtol=1e-6, atol=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_shape": (20, 28)}, "image_shape must be"),
        ({"torso": (1, 1)}, "torso must be two joints"),
        ({"torso": (0, 3)}, "torso must be of joints below 3"),
        ({"limbs": ((0, 1, 2),)}, "limbs must be tuples of 2"),
        ({"limbs": ((0, 3),)}, "limbs must be of joints below 3"),
        ({"num_stages": 0}, "num_stages must be at least 1"),
        ({"input_size": 3}, "input_size must be at least 4"),
        ({"sigma": 0}, "sigma must be at least"),
        ({"dropout": 1.0}, "dropout must be"),
        ({"least_visibility": 3}, "least_visibility must be one of"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        HumanPose(**{"image_shape": SHAPE, "num_joints": 3, "torso": TORSO, "limbs": LIMBS, **options})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda k: {"boxes": k}, "expected truths"),
        (lambda k: k, "expected truths"),
        (lambda k: {"keypoints": k[..., :2]}, r"expected keypoints \[B, 3, 3\]"),
        (lambda k: {"keypoints": k * [1, 1, 1.5]}, "expected visibility"),
        (lambda k: {"keypoints": k * [np.nan, 1, 1]}, "finite coordinates"),
        (lambda k: {"keypoints": k / [20, 20, 1]}, "keypoints in pixels"),
        (lambda k: {"keypoints": k, "boxes": np.zeros((4, 3))}, r"expected boxes \[B, 4\]"),
        (lambda k: {"keypoints": k, "boxes": np.full((4, 4), np.nan)}, "boxes of finite numbers"),
    ],
)
def test_truths_that_do_not_fit_are_refused_before_the_first_step(model, images, truths, change, message):
    model.compile(keras.optimizers.SGD(), jit_compile=False)
    with pytest.raises(ValueError, match=message):
        model.fit(images, change(truths), verbose=0)


def test_pictures_that_do_not_fit_are_refused(model, images, truths):
    with pytest.raises(ValueError, match=r"expected images \[B, 20, 28, 3\]"):
        model.fit(images[:, :-1], {"keypoints": truths})
    with pytest.raises(ValueError, match=r"divide 8-bit pixels by 255"):
        model.pose(images * 255)
    with pytest.raises(ValueError, match=r"expected boxes \[B, 4\]"):
        model.pose(images, np.zeros((4, 2)))
    pose_doors.check_truths({"keypoints": np.full((1, 3, 3), [np.nan, 9e9, 0])}, 3)  # nothing labelled is sound
