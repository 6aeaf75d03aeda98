"""What YOLOv2 owes beside the contract and its grid (tests/parts/test_region.py): switches, doors, darknet's files."""

import io
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import dmkeras
from dmkeras.detection.yolov2 import VOC_ANCHORS, YOLOv2
from dmkeras.parts import darknet_weights, letterbox, region

SHAPE, ANCHORS = (32, 48, 3), ((12.0, 10.0), (20.0, 24.0))


def small(image_shape=SHAPE, filters=4, **options):
    """A YOLOv2 of some thousand weights, stride 8."""
    backbone = dmkeras.Darknet19(image_shape, None, filters, (1, 1, 1, 1), batch_norm=options.get("batch_norm", True))
    settings = {"anchors": ANCHORS, "head_filters": 8, "passthrough_filters": 2, **options}
    return YOLOv2(image_shape, 3, backbone, **settings)


def squares(count, seed=0, shape=SHAPE):
    """Pictures with a bright square each; class 0, 1, 2: its channel."""
    rng = np.random.default_rng(seed)
    images = rng.uniform(0, 0.2, (count, *shape)).astype("float32")
    boxes, classes = np.zeros((count, 2, 4), "float32"), np.full((count, 2), -1, "int32")
    for image, box, kinds in zip(images, boxes, classes):
        side, kinds[0] = rng.integers(8, 20), rng.integers(3)
        x, y = rng.integers(0, shape[1] - side), rng.integers(0, shape[0] - side)
        image[y : y + side, x : x + side, kinds[0]] = 1
        box[0] = x, y, x + side, y + side
    return images, {"boxes": boxes, "classes": classes}


@pytest.fixture(scope="module")
def trained():
    """A small detector that has seen enough to find squares."""
    keras.utils.set_random_seed(1)
    model = small(filters=8, box_loss="ciou", coordinate_weight=2.0, head_filters=32)
    images, truths = squares(320)
    model.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    model.history_of_test = model.fit(images, truths, batch_size=32, epochs=25, verbose=0).history
    return model


def iou(a, b):
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    shared = np.prod(np.maximum(high - low, 0), -1)
    area = lambda c: np.prod(c[..., 2:] - c[..., :2], -1)
    return shared / (area(a) + area(b) - shared)


# --- what the paper says --------------------------------------------------------------------------------------------


def test_the_detector_of_the_paper_has_its_size():
    """yolov2-voc.cfg: 125 numbers a cell of 32 pixels, and the sizes of its layers."""
    model = YOLOv2((64, 64, 3))
    assert model(np.zeros((1, 64, 64, 3), "float32")).shape == (1, 2, 2, 5, 25)
    stages = sum(w.shape.num_elements() for block in itertools.chain(*model.backbone.stages) for w in block.weights)
    block = lambda c, n, k: k * k * c * n + 4 * n
    head = 2 * block(1024, 1024, 3) + block(512, 64, 1) + block(1024 + 256, 1024, 3) + 1024 * 125 + 125
    assert model.count_params() == stages + head + 1  # and the pictures seen
    np.testing.assert_allclose(VOC_ANCHORS[-1], (359.5648, 320.2272))


def test_it_learns_where_squares_are_and_of_which_colour(trained):
    images, truths = squares(50, seed=1)
    found = trained.detect(images, max_detections=5)
    best = iou(found["boxes"][:, 0].numpy(), truths["boxes"][:, 0])
    assert np.mean((best > 0.6) & (found["classes"][:, 0] == truths["classes"][:, 0])) > 0.9
    history = trained.history_of_test
    assert history["average_iou"][-1] > history["average_iou"][0] + 0.2
    terms = sum(history[f"{term}_loss"][-1] for term in region.TERMS)
    np.testing.assert_allclose(terms, history["loss"][-1], rtol=1e-4)  # each term is a metric, as it counts


def test_a_detection_moves_with_its_picture_by_whole_cells(trained):
    images, _ = squares(8, seed=2)
    images[:, :, 40:] = 0.1
    wide = np.full((8, 32, 64, 3), 0.1, "float32")
    wide[:, :, 8:56] = images
    shifted = np.full((8, 32, 64, 3), 0.1, "float32")
    shifted[:, :, 16:] = images
    first, second = (trained.detect(batch, score_threshold=0.5, size=(32, 64)) for batch in (wide, shifted))
    assert tf.reduce_max(first["num_detections"]) > 0
    inside = (first["boxes"][..., 2] < 44) & (first["boxes"][..., 0] > 20)  # far from where the border is seen
    close = np.abs(second["boxes"] - first["boxes"] - [8, 0, 8, 0]).max(-1)
    assert np.median(close[inside & (first["classes"] >= 0)]) < 1.0


@pytest.mark.parametrize(
    ("options", "lost"),
    [
        ({"batch_norm": False}, "gamma"),
        ({"passthrough_filters": 0}, "passthrough"),
    ],
)
def test_a_switch_takes_its_weights_away(options, lost):
    assert any(lost in weight.path for weight in small().weights)
    model = small(**options)
    assert not any(lost in weight.path for weight in model.weights)
    assert model(np.zeros((2, *SHAPE), "float32")).shape == (2, 4, 6, 2, 8)


def test_without_anchor_boxes_a_cell_has_one_box_sized_as_the_picture():
    model = small(anchors=None)
    raw = np.zeros((1, 4, 6, 1, 8), "float32")
    boxes, scores = model.decode(raw)
    np.testing.assert_allclose(boxes[0, :, 2:] - boxes[0, :, :2], np.tile([48.0, 32.0], (24, 1)), rtol=1e-5)
    np.testing.assert_allclose(scores, 0.5 / 3, rtol=1e-5)


def test_without_direct_location_a_box_may_leave_its_cell():
    raw = np.zeros((1, 4, 6, 2, 8), "float32")
    raw[0, 0, 0, 0, :2] = 3
    inside, outside = (small(direct_location=direct).decode(raw)[0][0, 0] for direct in (True, False))
    centre = lambda box: (box[:2] + box[2:]) / 2
    assert np.all(centre(inside) <= 8)
    np.testing.assert_allclose(centre(outside), [4 + 3 * 12, 4 + 3 * 10], rtol=1e-5)


@pytest.mark.parametrize("size", [(32, 48), (64, 32), (8, 16)])
def test_pictures_of_any_size_that_the_stride_divides_share_the_weights(size):
    assert small()(np.zeros((1, *size, 3), "float32")).shape == (1, size[0] // 8, size[1] // 8, 2, 8)


def test_training_in_many_sizes_traces_once():
    model = small()
    traces, loss = [], model.compute_loss

    def counted(*args, **options):
        traces.append(1)
        return loss(*args, **options)

    model.compute_loss = counted
    model.compile("sgd", jit_compile=False)
    images, truths = squares(24)

    def resized(images, truths, number):
        side = tf.gather([24, 32, 40, 48], number)
        scale = tf.cast(tf.stack([side, side, side, side]), "float32") / [48, 32, 48, 32]
        return tf.image.resize(images, (side, side)), {**truths, "boxes": truths["boxes"] * scale}

    data = tf.data.Dataset.from_tensor_slices((images, truths)).batch(3)
    data = tf.data.Dataset.zip(data, tf.data.Dataset.range(100).map(lambda n: n % 4))
    data = data.map(lambda batch, number: resized(*batch, number))
    model.fit(data, epochs=2, verbose=0)
    assert len(traces) == 1


def test_the_pull_to_the_priors_ends_when_enough_pictures_were_seen():
    images, truths = squares(32)
    model = small(prior_images=32)
    model.compile("sgd", jit_compile=False)
    first = model.fit(images, truths, batch_size=16, verbose=0).history
    assert first["prior_loss"][0] > 0
    assert model.seen.numpy() == 32
    assert model.fit(images, truths, batch_size=16, verbose=0).history["prior_loss"][0] == 0
    seen = model.seen.numpy()
    model.evaluate(images, truths, verbose=0)
    assert model.seen.numpy() == seen


def test_dimension_clusters_are_anchors():
    _, truths = squares(100)
    anchors, overlap = YOLOv2.dimension_clusters(truths["boxes"][:, 0], 2)
    assert 0.5 < overlap < 1
    assert small(anchors=anchors).anchors == region.checked_anchors(anchors)


def test_a_picture_without_objects_and_one_of_padding_train():
    images, truths = squares(8)
    truths = {"boxes": np.full_like(truths["boxes"], np.nan), "classes": np.full_like(truths["classes"], -1)}
    model = small()
    model.compile("sgd", jit_compile=False)
    assert np.isfinite(model.fit(images, truths, verbose=0).history["loss"][0])
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_and_answers_in_float32(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = small(box_loss="ciou")
    finally:
        keras.config.set_dtype_policy("float32")
    images, truths = squares(8)
    model.compile("sgd", jit_compile=False)
    assert np.isfinite(model.fit(images, truths, verbose=0).history["loss"][0])
    assert model(images).dtype == "float32"
    assert model.detect(images)["scores"].dtype == "float32"


def test_detection_compiles_under_xla(trained):
    images = squares(2, seed=3)[0]
    compiled = tf.function(trained.detect, jit_compile=True)(tf.constant(images))
    for name, values in trained.detect(images).items():
        np.testing.assert_allclose(compiled[name], values, rtol=1e-3, atol=1e-3)


# --- pictures of other sizes ----------------------------------------------------------------------------------------


def test_a_picture_of_another_size_is_letterboxed_and_its_boxes_mapped_back(trained):
    images = squares(6, seed=4, shape=(64, 64, 3))[0]
    found = trained.detect(images)
    halves = np.stack([letterbox.letterbox(image, (32, 48))[0] for image in images])
    inside = trained.detect(halves)
    boxes = np.clip(2 * (inside["boxes"] - [8, 0, 8, 0]), 0, 64) * (inside["classes"].numpy() >= 0)[..., None]
    assert found["num_detections"].numpy().min() > 0
    np.testing.assert_allclose(found["boxes"], boxes, atol=1e-3)
    alone = trained.detect(images[3])
    np.testing.assert_allclose(alone["boxes"], found["boxes"][3], atol=1e-2)
    assert alone["boxes"].shape == (100, 4)


def test_bytes_of_a_picture_of_another_size_are_answered_in_its_own_measure(trained):
    images, truths = squares(10, seed=5)
    files = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(np.uint8(255 * image.repeat(3, 0).repeat(3, 1))).save(file, "PNG")
        files.append(file.getvalue())
    answer, specs = trained.signatures()["detect_bytes"]
    found = answer(tf.constant(files))
    assert [spec.name for spec in specs] == ["image_bytes"]
    yxyx = truths["boxes"][:, 0, [1, 0, 3, 2]] / [32, 48, 32, 48]
    assert np.mean(iou(found["detection_boxes"][:, 0].numpy(), yxyx) > 0.6) > 0.7
    plain = trained.signatures()["detect"][0](tf.constant(images))
    assert np.mean(plain["detection_classes"][:, 0] == truths["classes"][:, 0]) > 0.9


# --- weights from elsewhere -----------------------------------------------------------------------------------------


def test_a_classifiers_stages_become_the_trunk():
    classifier = dmkeras.Darknet19(SHAPE, 7, 4, (1, 1, 1, 1))
    model = small()
    model.load_trunk(classifier)
    images = squares(2)[0]
    for name, maps in classifier.features(images).items():
        np.testing.assert_allclose(model.backbone.features(images)[name], maps)
    with pytest.raises(ValueError, match="same stages"):
        model.load_trunk(dmkeras.Darknet19(SHAPE, 7, 4, (1, 1, 2, 1)))


@pytest.mark.parametrize("reorg", ["adjacent", "darknet"])
def test_darknets_files_are_read_in_the_order_of_its_configuration(tmp_path, reorg):
    model, other = small(reorg=reorg, passthrough_filters=4), small(reorg=reorg, passthrough_filters=4)
    for weight in model.weights[:-1]:
        weight.assign(np.random.default_rng(weight.shape.num_elements()).uniform(0.1, 1, weight.shape))
    blocks = [*itertools.chain(*model.backbone.stages), *model.head, model.passthrough, model.last, model.regression]
    darknet_weights.write(tmp_path / "yolov2.weights", blocks, seen=12800)
    other.load_darknet_weights(tmp_path / "yolov2.weights")
    assert other.seen.numpy() == 12800
    images = squares(2)[0]
    np.testing.assert_allclose(model(images), other(images), rtol=1e-5)
    (tmp_path / "short.weights").write_bytes((tmp_path / "yolov2.weights").read_bytes()[:-4])
    with pytest.raises(ValueError, match="regression"):
        other.load_darknet_weights(tmp_path / "short.weights")


# --- doors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image_shape": (30, 48, 3)}, "stride 8 divides"),
        ({"anchors": ((0, 3),)}, "pairs"),
        ({"box_loss": "l1"}, "squared"),
        ({"reorg": "any"}, "adjacent"),
        ({"object_weight": -1}, "object_weight must be at least 0"),
        ({"prior_images": 0.5}, "prior_images must be a whole number"),
        ({"head_filters": 0}, "head_filters must be at least 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        small(**options)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda truths: truths["boxes"], "expected truths"),
        (lambda truths: {"boxes": truths["boxes"]}, "a dict of boxes"),
        (lambda truths: {**truths, "boxes": truths["boxes"] / 50}, "in pixels"),
        (lambda truths: {**truths, "boxes": truths["boxes"][..., [2, 3, 0, 1]]}, "x2 < x1"),
        (lambda truths: {**truths, "classes": truths["classes"] + 3}, "from 0 to 2"),
        (lambda truths: {**truths, "classes": truths["classes"][:, :1]}, "classes"),
        (lambda truths: {**truths, "boxes": truths["boxes"] * np.nan}, "finite"),
    ],
)
def test_truths_that_cannot_be_are_refused_before_training(change, words):
    images, truths = squares(4)
    model = small()
    model.compile("sgd", jit_compile=False)
    data = tf.data.Dataset.from_tensor_slices((images, change(truths))).batch(2)
    for given in ((images, change(truths)), (data, None)):
        with pytest.raises(ValueError, match=words):
            model.fit(*given, verbose=0)


def test_pictures_that_cannot_be_are_refused():
    model = small()
    for images, words in (
        (np.zeros((1, 32, 48, 1)), "images"),
        (np.full((1, 32, 48, 3), 255.0), "divide 8-bit"),
        (np.zeros((32,)), "images"),
    ):
        with pytest.raises(ValueError, match=words):
            model.detect(images)
    with pytest.raises(ValueError, match="stride 8 divides"):
        model.detect(np.zeros((1, 32, 48, 3)), size=(30, 30))
    with pytest.raises(ValueError, match=r"iou_threshold must be a number in \[0, 1\]"):
        model.detect(np.zeros((1, 32, 48, 3)), iou_threshold=45)
