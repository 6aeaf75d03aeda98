"""What SSD owes beside the contract and its loss (tests/parts/test_multibox.py): the paper's network, scales, doors."""

import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

import dmkeras
from dmkeras.detection.ssd import MEAN, SSD, ChannelNormalization
from dmkeras.parts import letterbox, multibox

SHAPE = (32, 48, 3)
SMALL = {
    "trunk": ((6,), (8, 8), (12,)),
    "fc_filters": 12,
    "dilation": 2,
    "extras": ((6, 10, 2), (4, 8, 1)),
    "sizes": (8, 14, 20, 26, 34),
    "ratios": ((2,), (2, 3), (), (2,)),
}


def small(image_shape=SHAPE, **options):
    """An SSD of some thousand weights; its maps are 16x24, 8x12, 4x6 and 2x4."""
    return SSD(image_shape, 3, **{**SMALL, **options})


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
    model = small(batch_norm=True, momentum=0.9)
    images, truths = squares(320)
    model.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    model.history_of_test = model.fit(images, truths, batch_size=32, epochs=20, verbose=0).history
    return model


@pytest.fixture(scope="module")
def paper():
    """SSD300 of Pascal VOC."""
    return SSD()


def iou(a, b):
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    shared = np.prod(np.maximum(high - low, 0), -1)
    area = lambda c: np.prod(c[..., 2:] - c[..., :2], -1)
    return shared / (area(a) + area(b) - shared)


# --- the network of the paper ---------------------------------------------------------------------------------------


def test_ssd300_has_the_maps_priors_and_weights_of_the_paper(paper):
    assert paper.maps == [(side, side) for side in (38, 19, 10, 5, 3, 1)]
    assert paper.steps == [8, 16, 32, 64, 100, 300]
    assert paper.priors.shape == (8732, 4)
    first = paper.priors[:4]
    np.testing.assert_allclose((first[:, :2] + first[:, 2:]) / 2, 4, atol=1e-5)
    sizes = [[30, 30], [42.4264, 42.4264], [42.4264, 21.2132], [21.2132, 42.4264]]
    np.testing.assert_allclose(first[:, 2:] - first[:, :2], sizes, rtol=1e-5)
    convolution = lambda size, c, n: size * size * c * n + n
    vgg = 14_714_688  # the thirteen convolutions of VGG16
    fc = convolution(3, 512, 1024) + convolution(1, 1024, 1024)
    extras = convolution(1, 1024, 256) + convolution(3, 256, 512) + convolution(1, 512, 128) + convolution(3, 128, 256)
    extras += 2 * (convolution(1, 256, 128) + convolution(3, 128, 256))
    heads = zip((512, 1024, 512, 256, 256, 256), (4, 6, 6, 6, 4, 4))
    wanted = vgg + fc + extras + sum(convolution(3, c, 25 * a) for c, a in heads) + 512  # and the scales of the norm
    assert paper.count_params() == wanted


def test_each_map_of_ssd300_has_the_sides_of_its_priors(paper):
    images = np.zeros((1, 300, 300, 3), "float32")
    assert paper(images).shape == (1, 8732, 25)
    shapes = [tuple(maps.shape) for maps in paper.features(images)]
    assert shapes == [(1, s, s, c) for s, c in zip((38, 19, 10, 5, 3, 1), (512, 1024, 512, 256, 256, 256))]


def normalized(maps, axis=-1):
    return maps / np.sqrt((maps**2).sum(axis, keepdims=True) + 1e-10)


def test_the_normalization_divides_by_the_length_over_channels():
    layer = ChannelNormalization(20.0)
    maps = np.random.default_rng(0).normal(size=(2, 5, 4, 6)).astype("float32")
    maps[0, 0, 0] = 0
    found = layer(maps)
    np.testing.assert_allclose(found, 20 * normalized(maps), rtol=1e-5)
    for wrong in ((1, 2), (1, 2, 3), 1):  # of the known mistakes none is near
        assert np.abs(found - 20 * normalized(maps, wrong)).max() > 1
    assert layer.gamma.shape == (6,)
    layer.gamma.assign(np.arange(6.0))
    np.testing.assert_allclose(layer(maps), np.arange(6) * normalized(maps), rtol=1e-5, atol=1e-6)
    with tf.GradientTape() as tape:
        still = tf.constant(maps)
        tape.watch(still)
        total = tf.reduce_sum(layer(tf.nn.relu(still)) ** 2)
    assert np.isfinite(tape.gradient(total, still)).all()


def caffes_maps(model, images):
    """The network of ssd_pascal.py in plain operations, with every padding told."""

    def block(maps, name, pad, stride=1, dilation=1):
        kernel, bias = (weight.value for weight in model.get_layer(name).layers[0].weights)
        maps = tf.pad(maps, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
        return tf.nn.relu(tf.nn.conv2d(maps, kernel, stride, "VALID", dilations=dilation) + bias)

    def halved(maps):  # the last row and column pooled alone where they are odd
        odd = [[0, 0], *([0, side % 2] for side in maps.shape[1:3]), [0, 0]]
        return tf.nn.max_pool2d(tf.pad(maps, odd, constant_values=-np.inf), 2, 2, "VALID")

    maps, through = images - MEAN, []
    for i, widths in enumerate(model.trunk):
        maps = halved(maps) if i else maps
        for j in range(len(widths)):
            maps = block(maps, f"conv{i + 1}_{j + 1}", 1)
        through.append(maps)
    around = tf.pad(maps, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=-np.inf)
    maps = tf.nn.max_pool2d(around, 3, 1, "VALID")
    maps = block(block(maps, "fc6", model.dilation, dilation=model.dilation), "fc7", 0)
    found = [model.first_scale * normalized(through[-2].numpy()), maps]
    for i, (_, _, stride) in enumerate(model.extras):
        maps = block(maps, f"conv{len(model.trunk) + i + 1}_1", 0)
        maps = block(maps, f"conv{len(model.trunk) + i + 1}_2", 1 if stride == 2 else 0, stride)
        found.append(maps)
    return found


@pytest.mark.parametrize("sides", [(32, 48), (33, 45)])
def test_the_maps_are_caffes(sides):
    model = small((*sides, 3), first_scale=7.0)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.path.endswith("bias"):
            weight.assign(rng.normal(0, 0.1, weight.shape))
    images = rng.uniform(size=(2, *sides, 3)).astype("float32")
    for here, there, sides in zip(model.features(images), caffes_maps(model, images), model.maps, strict=True):
        assert here.shape[1:3] == sides
        np.testing.assert_allclose(here, there, rtol=1e-3, atol=1e-5)


def test_a_number_of_a_map_belongs_to_the_prior_of_its_cell():
    """Raw numbers are ordered as the priors: what one place of a map regresses answers for the boxes around it."""
    model = small()
    for regression in model.regressions:
        regression.kernel.assign(tf.zeros_like(regression.kernel))
    model.regressions[1].kernel[1, 1].assign(tf.ones_like(model.regressions[1].kernel[1, 1]))
    maps = [np.zeros((1, *sides, c), "float32") for sides, c in zip(model.maps, (8, 12, 10, 8))]
    maps[1][0, 3, 5] = 1
    model.features = lambda images, training=False: [tf.constant(values) for values in maps]
    raw = model.call(np.zeros((1, *SHAPE), "float32"))[0].numpy()
    hit = np.flatnonzero(raw[:, 0])
    assert len(hit) == 6  # two squares, ratios 2 and 3 and their inverses
    centre = (model.priors[hit, :2] + model.priors[hit, 2:]) / 2
    np.testing.assert_allclose(centre, np.tile([5.5 * 4, 3.5 * 4], (6, 1)), rtol=1e-6)
    assert (raw[hit] == 12).all()


# --- training and detection -----------------------------------------------------------------------------------------


def test_it_learns_where_squares_are_and_of_which_colour(trained):
    images, truths = squares(50, seed=1)
    found = trained.detect(images, max_detections=5)
    best = iou(found["boxes"][:, 0].numpy(), truths["boxes"][:, 0])
    assert np.mean((best > 0.6) & (found["classes"][:, 0] == truths["classes"][:, 0])) > 0.9
    history = trained.history_of_test
    terms = history["localization_loss"][-1] + history["confidence_loss"][-1]
    np.testing.assert_allclose(terms, history["loss"][-1], rtol=1e-4)
    assert history["loss"][-1] < 0.2 * history["loss"][0]


@pytest.mark.parametrize("weight", [None, np.array([1.0, 0.0, 2.0, 1.0])])
def test_the_loss_is_over_the_matched_priors_of_the_batch(weight):
    model = small(localization_weight=2.0)
    images, truths = squares(4)
    truths["classes"][3] = -1
    raw = model(images)
    found = multibox.losses(raw, truths["boxes"], truths["classes"], model.priors)
    rows = np.asarray(found["confidence"] + 2 * found["localization"]) * (1 if weight is None else weight)
    wanted = rows.sum() / np.sum(found["matched"])
    np.testing.assert_allclose(model.compute_loss(y=truths, y_pred=raw, sample_weight=weight), wanted, rtol=1e-5)
    assert np.sum(found["matched"]) > 4
    assert found["matched"][3] == 0


def test_the_options_of_the_loss_reach_it():
    images, truths = squares(4)
    raw = small()(images)
    value = lambda **options: float(small(**options).compute_loss(y=truths, y_pred=raw))
    plain = value()
    for options in ({"negative_ratio": 1.0}, {"least_iou": 0.3}, {"variances": (1, 1, 1, 1)}):
        assert abs(value(**options) - plain) > 0.01 * plain


def test_pictures_without_objects_and_degenerate_boxes_train():
    images, truths = squares(8)
    boxes = truths["boxes"].copy()
    boxes[:, 1] = [5, 5, 5, 9]
    cases = {"padding": (np.full_like(boxes, np.nan), np.full((8, 2), -1))}
    cases |= {"no area": (boxes, np.ones((8, 2), int)), "no rows": (boxes[:, :0], np.zeros((8, 0), int))}
    for name, (boxes, classes) in cases.items():
        model = small()
        model.compile("sgd", jit_compile=False)
        loss = model.fit(images, {"boxes": boxes, "classes": classes}, verbose=0).history["loss"][0]
        assert np.isfinite(loss), name
        assert (loss == 0) == (name != "no area"), name
        assert all(np.isfinite(weight).all() for weight in model.get_weights()), name


def test_detections_are_the_papers(trained):
    """Softmax without the background, offsets times variances, above .01, by class, at most 200."""
    images, _ = squares(4, seed=2)
    raw = trained(images).numpy()
    share = np.exp(raw[..., 4:] - raw[..., 4:].max(-1, keepdims=True))
    share = (share / share.sum(-1, keepdims=True))[..., 1:]
    centre, size = (trained.priors[:, :2] + trained.priors[:, 2:]) / 2, trained.priors[:, 2:] - trained.priors[:, :2]
    centre = centre + 0.1 * raw[..., :2] * size
    half = np.exp(0.2 * raw[..., 2:4]) * size / 2
    boxes = np.concatenate([centre - half, centre + half], -1)
    found = trained.detect(images)
    assert found["boxes"].shape == (4, 200, 4)
    for b in range(4):
        left = sorted(((share[b, i, k], -i, k) for i, k in np.argwhere(share[b] > 0.01)), reverse=True)
        kept = []
        for score, i, k in left:
            if all(k != other or iou(boxes[b, -i], boxes[b, -j]) <= 0.45 for _, j, other in kept):
                kept.append((score, i, k))
        count = found["num_detections"][b].numpy()
        assert count == len(kept)
        np.testing.assert_allclose(found["scores"][b, :count], [score for score, *_ in kept], rtol=1e-4)
        np.testing.assert_allclose(found["boxes"][b, :count], [boxes[b, -i] for _, i, _ in kept], atol=1e-3)
        np.testing.assert_array_equal(found["classes"][b, :count], [k for *_, k in kept])


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_and_answers_in_float32(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = small(batch_norm=True)
    finally:
        keras.config.set_dtype_policy("float32")
    images, truths = squares(8)
    model.compile("sgd", jit_compile=False)
    assert np.isfinite(model.fit(images, truths, verbose=0).history["loss"][0])
    assert model(images).dtype == "float32"
    assert model.detect(images)["scores"].dtype == "float32"
    assert model.features(images)[2].dtype == policy.removeprefix("mixed_")


def test_detection_compiles_under_xla(trained):
    images = squares(2, seed=3)[0]
    compiled = tf.function(trained.detect, jit_compile=True)(tf.constant(images))
    for name, values in trained.detect(images).items():
        np.testing.assert_allclose(compiled[name], values, rtol=1e-3, atol=1e-3)


def test_a_picture_of_another_size_is_letterboxed_and_its_boxes_mapped_back(trained):
    images = squares(6, seed=4, shape=(64, 64, 3))[0]
    found = trained.detect(images)
    halves = np.stack([letterbox.letterbox(image, (32, 48))[0] for image in images])
    inside = trained.detect(halves)
    boxes = np.clip(2 * (inside["boxes"] - [8, 0, 8, 0]), 0, 64) * (inside["classes"].numpy() >= 0)[..., None]
    assert found["num_detections"].numpy().min() > 0
    np.testing.assert_allclose(found["boxes"], boxes, atol=1e-2)
    alone = trained.detect(images[3], max_detections=1)
    np.testing.assert_allclose(alone["boxes"][0], found["boxes"][3, 0], atol=1e-2)
    assert alone["boxes"].shape == (1, 4)


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


def vgg(widths=((6,), (8, 8), (12,)), dense=24, sides=(28, 28)):
    """What `keras.applications.VGG16` is, small: BGR in [0, 255] minus the mean, 7x7 positions before fc1."""
    stack = [keras.Input((*sides, 3))]
    for stage in widths:
        stack += [layers.Conv2D(n, 3, padding="same", activation="relu") for n in stage]
        stack.append(layers.MaxPooling2D(2))
    stack += [layers.Flatten(), *(layers.Dense(dense, activation="relu") for _ in range(2)), layers.Dense(5)]
    return keras.Sequential(stack)


def test_a_vgg_becomes_the_trunk_and_its_dense_layers_are_thinned_as_the_dilation_reads_them():
    classifier, model = vgg(sides=(56, 56)), small((56, 56, 3), fc_filters=8, dilation=6)
    model.load_trunk(classifier)
    images = np.random.default_rng(0).uniform(size=(2, 56, 56, 3)).astype("float32")
    caffe = 255 * (images - MEAN)[..., ::-1]
    through, maps = [], caffe
    for layer in classifier.layers[:4]:
        maps = layer(maps)
        through.append(maps)
    np.testing.assert_allclose(model.features(images)[0], 20 * normalized(through[3].numpy()), rtol=1e-3, atol=1e-4)
    kernel, bias = classifier.layers[8].get_weights()
    fc6, fc7 = model.fc6.layers[0].get_weights(), model.fc7.layers[0].get_weights()
    kernel = kernel.reshape(7, 7, 12, 24)
    np.testing.assert_array_equal(fc6[0][2, 1, :, 3], kernel[6, 3, :, 9])
    np.testing.assert_array_equal(fc6[1], bias[::3])
    kernel, bias = classifier.layers[9].get_weights()
    np.testing.assert_array_equal(fc7[0][0, 0], kernel[::3, ::3])
    np.testing.assert_array_equal(fc7[1], bias[::3])


def test_a_vgg_of_this_package_becomes_the_trunk():
    classifier = dmkeras.VGG(16, None, None, image_shape=(48, 32, 3), filters=2)
    trunk = ((2, 2), (4, 4), (8, 8, 8), (16, 16, 16), (16, 16, 16))
    options = {"trunk": trunk, "extras": (), "sizes": (8, 14, 20), "ratios": ((2,), (2,)), "first_scale": 1.0}
    model = small((48, 32, 3), **options)
    model.load_trunk(classifier)
    images = np.random.default_rng(0).uniform(size=(2, 48, 32, 3)).astype("float32")
    wanted = normalized(classifier.features(images)["conv4_3"].numpy())
    np.testing.assert_allclose(model.features(images)[0], wanted, atol=0.02)  # their means differ by .7 of 255


@pytest.mark.parametrize(("options", "other"), [({"batch_norm": True}, {}), ({}, {"widths": ((6,), (8,), (12,))})])
def test_another_trunk_is_refused_and_nothing_changes(options, other):
    model = small((28, 28, 3), extras=(), sizes=(8, 14, 20), ratios=((2,), (2,)), **options)
    before = model.get_weights()
    with pytest.raises(ValueError, match="expected a VGG of the stages"):
        model.load_trunk(vgg(**other))
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))


# --- doors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sizes": (8, 14, 20)}, "4 maps"),
        ({"ratios": ((2,),)}, "4 maps"),
        ({"sizes": (8, 14, 0, 26, 34)}, "positive"),
        ({"variances": (1, 1)}, "4 variances"),
        ({"trunk": ((6,),)}, "two stages"),
        ({"trunk": (6, 8)}, "tuple of tuples"),
        ({"extras": ((6, 10, 3),)}, "stride 1 or 2"),
        ({"extras": ((6, 10, 1),) * 9}, "have fewer"),
        ({"negative_ratio": -1}, "negative_ratio must be at least 0"),
        ({"least_iou": 50}, "least_iou"),
        ({"num_classes": 0}, "num_classes"),
        ({"dilation": 0}, "dilation"),
        ({"momentum": 1.0}, "momentum"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, words):
    num_classes = options.pop("num_classes", 3)
    with pytest.raises(ValueError, match=words):
        SSD(SHAPE, num_classes, **{**SMALL, **options})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda truths: truths["boxes"], "expected truths"),
        (lambda truths: {**truths, "boxes": truths["boxes"] / 50}, "in pixels"),
        (lambda truths: {**truths, "boxes": truths["boxes"][..., [2, 3, 0, 1]]}, "x2 < x1"),
        (lambda truths: {**truths, "classes": truths["classes"] + 3}, "from 0 to 2"),
        (lambda truths: {**truths, "boxes": truths["boxes"] * np.nan}, "finite"),
    ],
)
def test_truths_that_cannot_be_are_refused_before_training(change, words):
    images, truths = squares(4)
    model = small()
    model.compile("sgd", jit_compile=False)
    with pytest.raises(ValueError, match=words):
        model.fit(images, change(truths), verbose=0)


def test_pictures_that_cannot_be_are_refused(trained):
    for images, words in (
        (np.zeros((1, 32, 48, 1)), "images"),
        (np.full((1, 32, 48, 3), 255.0), "divide 8-bit"),
        (np.zeros((32,)), "images"),
    ):
        with pytest.raises(ValueError, match=words):
            trained.detect(images)
    images, truths = squares(2, shape=(64, 64, 3))
    with pytest.raises(ValueError, match="images"):
        trained.fit(images, truths, verbose=0)
    with pytest.raises(ValueError, match=r"iou_threshold must be a number in \[0, 1\]"):
        trained.detect(np.zeros((1, 32, 48, 3)), iou_threshold=45)


def test_it_is_public():
    assert dmkeras.SSD is SSD
