"""What a sliding window owes beside the contract: crops' answers at every position, the dense way's too, and boxes."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from dmkeras.backbones.small_cnn import SmallCNN
from dmkeras.parts import convolutionalized, window_crops, windows
from dmkeras.parts.convolutionalized import fully_convolutional
from dmkeras.segmentation.sliding_window import SlidingWindow

RNG = np.random.default_rng(0)


def classifier(window=(14, 10), answers=3, channels=2, padding="valid", end=None):
    """Random weights and statistics; stride 2; 14x10 -> 12x8 -> 6x4 -> 4x2 before its head."""
    stack = [
        keras.Input((*window, channels)),
        layers.Conv2D(3, 3, padding=padding),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.MaxPooling2D(2),
        layers.Conv2D(4, 3, activation="tanh", padding=padding),
        *(end or [layers.Flatten(), layers.Dropout(0.5), layers.Dense(5, "relu"), layers.BatchNormalization()]),
        layers.Dense(answers),
    ]
    return randomized(keras.Sequential(stack))


def randomized(model):
    rng = np.random.default_rng(1)
    model.set_weights([rng.uniform(0.2, 1, w.shape) * rng.choice([-1, 1], w.shape) for w in model.get_weights()])
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_variance.assign(abs(layer.moving_variance))
    return model


def on_crops(model, images, window, stride):
    """The classifier on crops cut by NumPy, position by position."""
    places = [range(0, images.shape[1 + a] - window[a] + 1, stride[a]) for a in (0, 1)]
    rows = [[images[:, r : r + window[0], c : c + window[1]] for c in places[1]] for r in places[0]]
    crops = np.array(rows).reshape(-1, *window, images.shape[-1])  # [R S B, ...]
    found = np.asarray(model(crops, training=False)).reshape(len(places[0]), len(places[1]), len(images), -1)
    return found.transpose(2, 0, 1, 3)


@pytest.fixture(scope="module")
def images():
    return RNG.random((2, 27, 20, 2), "float32")


@pytest.fixture(scope="module")
def net():
    return classifier()


# --- the map --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, (3, 2), (5, 7), 40])
def test_the_map_is_the_classifier_on_crops_cut_by_hand(net, images, stride):
    model = SlidingWindow(net, stride=stride, dense=False)
    expected = on_crops(net, images, (14, 10), model.stride)
    found = model(images)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    transposed = on_crops(net, images, (14, 10), model.stride[::-1])
    assert model.stride[0] == model.stride[1] or transposed.shape != expected.shape  # rows and columns are told apart


@pytest.mark.parametrize("chunk", [1, 7, 64, 65, 1000])
def test_the_answers_are_the_same_for_any_chunk(net, images, chunk):
    function, sizes = (lambda crops: (sizes.append(crops.shape[0]), net(crops))[1]), []
    found = windows.at_every_position(function, images, (14, 10), (3, 2), chunk, 3)
    np.testing.assert_allclose(found, on_crops(net, images, (14, 10), (3, 2)), rtol=1e-4, atol=1e-5)
    assert max(sizes) <= chunk  # what bounds the memory


def test_sizes_that_only_the_graph_knows_give_the_same(net, images):
    for dense in (False, True):
        model = SlidingWindow(net, stride=2, dense=dense, chunk=17)
        answer = tf.function(model.__call__, [tf.TensorSpec((None, None, None, 2))], autograph=False)
        for part in (images, images[:1, :14, :17]):
            np.testing.assert_allclose(answer(part), on_crops(net, part, (14, 10), (2, 2)), rtol=1e-4, atol=1e-5)
        with pytest.raises(tf.errors.InvalidArgumentError, match="pictures of at least"):
            answer(images[:, :13])


def test_a_window_that_the_classifier_does_not_take_is_resized(net, images):
    model = SlidingWindow(net, window=(21, 15), stride=3, resize=True)
    resize = lambda crops, training: net(tf.image.resize(crops, (14, 10), antialias=True))
    np.testing.assert_allclose(model(images), on_crops(resize, images, (21, 15), (3, 3)), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="resize=True"):
        SlidingWindow(net, window=(21, 15))


def test_any_model_with_an_image_shape_is_a_classifier(images):
    small = SmallCNN((8, 8, 2), 3, 2, seed=0)
    model = SlidingWindow(small, stride=4)
    np.testing.assert_allclose(model(images), on_crops(small, images, (8, 8), (4, 4)), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"SmallCNN.*the order of its layers is not known"):
        SlidingWindow(small, stride=4, dense=True)


def test_the_map_moves_with_its_picture_by_whole_strides(net, images):
    model = SlidingWindow(net, stride=(3, 2), dense=False)
    whole, moved = model(images).numpy(), model(images[:, 6:, 4:]).numpy()
    np.testing.assert_allclose(moved, whole[:, 2:, 2:], rtol=1e-4, atol=1e-5)
    other = model(images[:, 5:, 4:]).numpy()  # by no whole stride: the answers are others
    assert not np.allclose(other[:, :3], whole[:, 2:5, 2:], rtol=1e-2)


# --- the dense way --------------------------------------------------------------------------------------------------


def heads():
    pooled = lambda kind, **options: [kind(**options), layers.Dense(5), layers.BatchNormalization(), layers.ELU()]
    return {
        "dense layers": None,
        "average": pooled(layers.GlobalAveragePooling2D),
        "maximum": pooled(layers.GlobalMaxPooling2D),
        "one position": [layers.Conv2D(5, (4, 2), activation="relu"), layers.Flatten()],
        "kept sides": [
            layers.GlobalAveragePooling2D(keepdims=True),
            layers.Conv2D(5, 1, padding="same"),
            layers.Flatten(),
        ],
    }


@pytest.mark.parametrize("head", heads())
def test_the_fully_convolutional_net_gives_the_map_of_its_classifier(images, head):
    net = classifier(end=heads()[head])
    network, stride = fully_convolutional(net)
    assert stride == (2, 2)
    np.testing.assert_allclose(network(images), on_crops(net, images, (14, 10), stride), rtol=1e-4, atol=1e-5)
    assert {id(w) for w in network.weights} == {id(w) for w in net.weights}  # shared


def functional():
    """Branches, a nested model, rows that pooling drops, another stride each way, softmax at the end."""
    inputs = keras.Input((15, 11, 2))
    maps = layers.Conv2D(3, 3, strides=(2, 1))(inputs)  # 7, 9
    inner = keras.Sequential([keras.Input((7, 9, 3)), layers.DepthwiseConv2D(3), layers.Rescaling(2.0, 0.1)])
    left, right = inner(maps), layers.SeparableConv2D(3, 3)(maps)  # 5, 7
    maps = layers.Concatenate()([layers.Add()([left, right]), layers.Maximum()([left, right])])
    maps = layers.AveragePooling2D(2)(layers.Dense(4)(maps))  # 2, 3
    vectors = layers.Activation("relu")(layers.Flatten()(maps))
    both = layers.concatenate([layers.Dense(4)(vectors), layers.Dense(3)(vectors)])
    return randomized(keras.Model(inputs, layers.Dense(3, "softmax")(both)))


def test_a_functional_classifier_with_branches_is_turned_as_well(images):
    net = functional()
    network, stride = fully_convolutional(net)
    assert stride == (4, 2)
    expected = on_crops(net, images, (15, 11), stride)
    rows, columns = expected.shape[1:3]
    np.testing.assert_allclose(network(images)[:, :rows, :columns], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(SlidingWindow(net, stride=stride, dense=True)(images), expected, rtol=1e-4, atol=1e-5)


def test_the_dense_way_serves_every_multiple_of_its_stride(net, images):
    for stride in ((2, 2), (4, 2), (6, 8)):
        slow, fast = (SlidingWindow(net, stride=stride, dense=dense) for dense in (False, True))
        np.testing.assert_allclose(fast(images), slow(images), rtol=1e-4, atol=1e-5)
    chosen = {stride: SlidingWindow(net, stride=stride)._evaluate_densely for stride in ((2, 4), 3, (6, 8))}
    assert [way is not None for way in chosen.values()] == [True, False, False]  # exact, not exact, little overlap
    with pytest.raises(ValueError, match="no multiple of the classifier's own"):
        SlidingWindow(net, stride=3, dense=True)


def test_a_network_saved_alone_answers_the_same(net, images, tmp_path):
    network, _ = fully_convolutional(net)
    network.save(tmp_path / "network.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "network.keras")(images), network(images))


def test_what_the_classifier_learns_the_dense_way_knows(images):
    net = classifier()
    model = SlidingWindow(net, stride=2, dense=True)
    before = model(images).numpy()
    model.compile("sgd", jit_compile=False)
    model.fit(images[:, :14, :10], np.array([1, 2]), verbose=0)
    assert not np.allclose(before, model(images))
    np.testing.assert_allclose(model(images), on_crops(net, images, (14, 10), (2, 2)), rtol=1e-4, atol=1e-5)


def test_padding_breaks_the_law_and_is_refused(images, monkeypatch):
    net = classifier(padding="same")
    with pytest.raises(ValueError, match=r'conv2d.*pads its maps \("same"\)'):
        fully_convolutional(net)
    expected = on_crops(net, images, (14, 10), (2, 2))
    monkeypatch.setattr(convolutionalized, "_pads", lambda layer: False)  # read as a convolution all the same
    network, _ = fully_convolutional(net)
    wrong = network(images).numpy()[:, : expected.shape[1], : expected.shape[2]]
    assert np.median(abs(wrong - expected)) > 0.05 * np.std(expected)  # not at the border alone


@pytest.mark.parametrize("order", [(2, 0, 1), (1, 0, 2)])
def test_a_kernel_in_another_order_than_flattens_breaks_the_law(images, order, monkeypatch):
    net = classifier(window=(14, 14))

    def call(self, maps):
        sides = (*self.window, maps.shape[-1])
        kernel = tf.reshape(self.layer.kernel, [*(sides[i] for i in order), -1])
        return self.layer.activation(tf.nn.conv2d(maps, tf.transpose(kernel, [*np.argsort(order), 3]), 1, "VALID"))

    monkeypatch.setattr(convolutionalized.DenseAsConvolution, "call", call)
    square = images[:, :18, :18]
    assert not np.allclose(fully_convolutional(net)[0](square), on_crops(net, square, (14, 14), (2, 2)), rtol=0.1)


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ([layers.ZeroPadding2D(), layers.Flatten()], r"zero_padding2d.*ZeroPadding2D on maps"),
        ([layers.UpSampling2D(), layers.Flatten()], "UpSampling2D on maps"),
        ([layers.LayerNormalization(), layers.Flatten()], "LayerNormalization on maps"),
        ([layers.Flatten(), layers.BatchNormalization()], "BatchNormalization between Flatten and Dense"),
        ([layers.Flatten(), layers.Softmax()], "Softmax between Flatten and Dense"),
        ([layers.Reshape((-1,))], "Reshape on maps"),
        ([layers.BatchNormalization(axis=1), layers.Flatten()], "over axis 1"),
        ([layers.Flatten(), layers.Lambda(lambda x: x)], "Lambda between"),
    ],
    ids=str,
)
def test_layers_that_cannot_be_turned_are_named(end, words):
    with pytest.raises(ValueError, match=words):
        fully_convolutional(classifier(end=end))


def test_maps_of_different_places_are_not_merged():
    inputs = keras.Input((9, 9, 2))
    squeezed = layers.GlobalAveragePooling2D(keepdims=True)(inputs)
    outputs = layers.Dense(2)(layers.Flatten()(layers.Multiply()([inputs, squeezed])))
    with pytest.raises(ValueError, match=r"Multiply of maps \(9, 9\) of stride \(1, 1\) and maps \(1, 1\)"):
        fully_convolutional(keras.Model(inputs, outputs))
    with pytest.raises(ValueError, match="ends in maps"):
        fully_convolutional(keras.Sequential([keras.Input((9, 9, 2)), layers.Conv2D(2, 3)]))


# --- detection ------------------------------------------------------------------------------------------------------

PATTERN = np.array([[1, 0, 1, 0], [0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 1, 1]], "float32").repeat(5, 0).repeat(5, 1)
SIDE = len(PATTERN)  # 20


def template(cell=24, margin=2):
    """A classifier that fires on PATTERN, with a margin of grey, as class 1 of background and two others."""
    kernel = np.zeros((cell, cell, 1, 3), "float32")
    kernel[margin:-margin, margin:-margin, 0, 2] = PATTERN - PATTERN.mean()
    best = (kernel[margin:-margin, margin:-margin, 0, 2] * PATTERN).sum()
    net = keras.Sequential([keras.Input((cell, cell, 1)), layers.Flatten(), layers.Dense(3)])
    net.layers[-1].set_weights([40 / best * kernel.reshape(-1, 3), np.array([0, -30, -18], "float32")])
    return net


def planted(places, scale, side=(96, 120)):
    """A grey picture with the pattern, `scale` times as large, at (x, y)."""
    image = np.full((1, *side, 1), 0.5, "float32")
    for x, y in places:
        large = tf.image.resize(PATTERN[..., None], [round(SIDE * scale)] * 2, antialias=True).numpy()
        image[0, y : y + len(large), x : x + len(large)] = np.clip(large, 0, 1)
    return image


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.5, 2.0])
def test_a_planted_pattern_is_found_at_each_scale_within_a_pixel(scale):
    model = SlidingWindow(template(), stride=1, margin=2, image_shape=(96, 120, 1), scales=(2.0, 1.0, 2 / 3, 0.5))
    places = [(0, 0), (61, 12), (120 - round(SIDE * scale), 96 - round(SIDE * scale))]
    found = {key: value[0].numpy() for key, value in model.detect(planted(places, scale), score_threshold=0.5).items()}
    count = found["num_detections"]
    assert count >= 3
    assert set(found["classes"][:count]) == {1}
    for x, y in places:
        expected = np.array([x, y, x + SIDE * scale, y + SIDE * scale])
        assert abs(found["boxes"][:count] - expected).max(-1).min() <= 1
    assert (found["classes"][count:] == -1).all()


def test_boxes_are_windows_less_their_margin_mapped_back():
    where = (12, 10), (3, 2), (2, 1)
    pictures, factors = windows.scaled(tf.zeros((1, 31, 20, 1)), (0.7, 1.3), *where)
    assert [float(f) for f in factors] == [np.float32(22 / 31), np.float32(26 / 20)]  # of whole pixels
    np.testing.assert_array_equal(
        pictures[0, :, :, 0] == 0.5, np.pad(np.zeros((22, 26)), ((2, 3), (1, 1)), constant_values=1)
    )
    shape = [(27 - 12) // 3 + 1, (28 - 10) // 2 + 1]
    found = windows.boxes_of(tf.zeros((1, *shape, 1)), factors, (31, 20), *where).numpy().reshape(*shape, 4)
    for r, c in itertools.product(*map(range, shape)):
        box = np.array([2 * c, 3 * r, 2 * c + 8, 3 * r + 8]) / np.tile([26 / 20, 22 / 31], 2)
        np.testing.assert_allclose(found[r, c], np.minimum(box, [20, 31, 20, 31]), rtol=1e-5)
    assert found[-1, -1, 2] == 20  # the last windows reach the border
    assert found[-1, -1, 3] == 31


def flat(logits, window=(6, 6), channels=1):
    """A classifier that answers the same of every window."""
    net = keras.Sequential([keras.Input((*window, channels)), layers.Flatten(), layers.Dense(len(logits))])
    net.set_weights([np.zeros((np.prod(window) * channels, len(logits))), np.array(logits, "float32")])
    return net


@pytest.mark.parametrize("background", [0, 1, 2])
def test_background_is_never_detected(background):
    logits = np.full(3, 0.0)
    logits[background] = 3.0
    model = SlidingWindow(flat(logits), stride=6, background=background, image_shape=(12, 12, 1))
    found = model.detect(np.zeros((1, 12, 12, 1)), iou_threshold=1.0)
    assert found["num_detections"] == 8  # 4 windows, 2 classes
    np.testing.assert_allclose(found["scores"][0, :8], 1 / (2 + np.exp(3.0)), rtol=1e-5)
    assert sorted(found["classes"][0, :8].numpy()) == [0] * 4 + [1] * 4
    assert model.detect(np.zeros((1, 12, 12, 1)), score_threshold=0.1)["num_detections"] == 0


def test_windows_of_one_class_suppress_one_another_and_no_other_class():
    model = SlidingWindow(flat([0.0, 1.0, 0.5]), stride=1, image_shape=(9, 9, 1))
    found = model.detect(np.zeros((1, 9, 9, 1)), iou_threshold=0.1, score_threshold=0.1)
    assert found["num_detections"] == 2  # of 16 windows the first of each class
    np.testing.assert_array_equal(found["classes"][0, :2], [0, 1])
    np.testing.assert_array_equal(found["boxes"][0, :2], [[0, 0, 6, 6]] * 2)


def test_a_picture_smaller_than_the_window_stands_in_grey():
    model = SlidingWindow(flat([0.0, 1.0]), stride=1, image_shape=(9, 9, 1))
    found = model.detect(np.zeros((4, 9, 1), "float32"), scales=(0.5,))
    np.testing.assert_allclose(found["boxes"][:2], [[0, 0, 9, 4], [0, 0, 0, 0]])
    with pytest.raises(ValueError, match=r"at least the window \(6, 6\)"):
        model.class_map(np.zeros((1, 4, 9, 1)))
    with pytest.raises(ValueError, match=r"at least the window \(6, 6\)"):
        model(np.zeros((1, 4, 9, 1)))


def test_logits_and_probabilities_detect_the_same():
    logits, images = flat([0.0, 1.0, 0.5]), np.zeros((1, 9, 12, 1), "float32")
    soft = keras.Sequential([keras.Input((6, 6, 1)), logits, layers.Softmax()])
    models = [SlidingWindow(net, stride=3) for net in (logits, soft, keras.Model(soft.inputs[0], soft.outputs[0]))]
    assert [model.from_logits for model in models] == [True, False, False]
    for model in models[1:]:
        np.testing.assert_allclose(model.class_map(images), models[0].class_map(images), rtol=1e-6)
        np.testing.assert_allclose(model.detect(images)["scores"], models[0].detect(images)["scores"], rtol=1e-6)
    losses = [float(model.compute_loss(y=tf.constant([1]), y_pred=model(images[:, :6, :6]))) for model in models]
    np.testing.assert_allclose(losses, losses[0], rtol=1e-5)


def test_a_heat_map_has_at_every_pixel_its_nearest_window():
    model = SlidingWindow(template(), stride=2, margin=2, image_shape=(96, 120, 1))
    maps = model.heat_maps(planted([(30, 40)], 1.0)).numpy()
    assert maps.shape == (1, 96, 120, 2)
    y, x = np.argwhere(maps[0, :, :, 1] > 0.5).mean(0)
    np.testing.assert_allclose([x + 0.5, y + 0.5], [40, 50], atol=1)  # the middle of the pattern


def test_the_exported_model_answers_the_same(tmp_path):
    model = SlidingWindow(classifier(), stride=2, image_shape=(27, 20, 2), margin=1, scales=[(0.8, 1.2)], dense=False)
    images = RNG.random((2, 27, 20, 2), "float32")
    holder, endpoints = tf.Module(), {}
    holder.model = model
    for name in ("detect", "class_map"):
        function, specs = model.signatures()[name]
        endpoints[name] = tf.function(function, specs, autograph=False)
    tf.saved_model.save(holder, str(tmp_path), signatures=endpoints)
    served = tf.saved_model.load(str(tmp_path)).signatures
    for name in endpoints:
        here = model.signatures()[name][0](tf.constant(images))
        for key, values in served[name](images=tf.constant(images)).items():
            np.testing.assert_allclose(values, here[key], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.class_map(images), here["class_map"], rtol=1e-4, atol=1e-5)
    boxes = model.detect(images)["boxes"].numpy()[..., [1, 0, 3, 2]] / [27, 20, 27, 20]
    np.testing.assert_allclose(served["detect"](images=tf.constant(images))["detection_boxes"], boxes, atol=1e-4)


# --- crops ----------------------------------------------------------------------------------------------------------


def test_a_crop_is_its_box_with_a_margin_at_the_windows_size():
    ramp = np.stack(np.meshgrid(np.arange(40.0), np.arange(30.0)), -1)[None].astype("float32") / 40  # x, y
    crop = window_crops.crops_of(ramp, [[10.0, 6.0, 26.0, 14.0]], [0], (8, 12), (2, 2))[0].numpy()
    x = 10 + (np.arange(12) - 2 + 0.5) * 2 - 0.5  # 16 pixels in 8, two more on each side; y 8 pixels in 4
    y = 6 + (np.arange(8) - 2 + 0.5) * 2 - 0.5
    np.testing.assert_allclose(crop[..., 0] * 40, np.tile(x, (8, 1)), atol=1e-4)
    np.testing.assert_allclose(crop[..., 1] * 40, np.tile(y[:, None], (1, 12)), atol=1e-4)
    outside = window_crops.crops_of(ramp, [[-50.0, -50.0, -40.0, -40.0]], [0], (8, 12), (2, 2))
    np.testing.assert_array_equal(outside, 0.5)


def iou(box, others):
    shared = np.prod(np.maximum(np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]), 0), -1)
    return shared / (np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], -1) - shared)


def test_a_crop_is_background_only_if_it_overlaps_no_object_by_more_than_said():
    truths, classes = np.array([[[10, 10, 40, 30], [50, 50, 80, 90], [0, 0, 0, 0]]], "float32"), np.array([[2, 0, -1]])
    found = RNG.uniform(0, 60, (1, 500, 4)).astype("float32")
    found[..., 2:] = found[..., :2] + RNG.uniform(5, 40, (1, 500, 2))
    found[0, :200] = truths[0, RNG.integers(0, 2, 200)] + RNG.uniform(-8, 8, (200, 4))
    for box, label in zip(found[0], window_crops.labels_of(found, truths, classes)[0].numpy()):
        overlap = iou(box, truths[0, :2])
        best = overlap.max()
        expected = classes[0, overlap.argmax()] + 1 if best >= 0.6 else 0 if best <= 0.4 else -1
        assert label == expected


def test_crops_are_drawn_of_every_kind_and_by_their_seed_alone():
    images, truths = RNG.random((3, 96, 96, 3), "float32"), np.tile(np.float32([[[20, 20, 50, 50]]]), (3, 1, 1))
    truths, classes = np.concatenate([truths, np.full_like(truths, np.nan)], 1), np.array([[1, -1]] * 2 + [[-1, -1]])
    draw = lambda seed: window_crops.drawn(images, truths, classes, [seed, 0], (18, 18), (2, 2), (15, 48), 4, 4, 4)
    (crops, labels), again, other = draw(0), draw(0), draw(1)
    assert crops.shape == (36, 18, 18, 3)
    by_kind = labels.numpy().reshape(3, 3, 4)  # picture, kind, crop
    assert np.isfinite(crops).all()
    assert (by_kind[:2, 0] == 2).mean() > 0.5
    assert set(by_kind[2].ravel()) == {0}  # without a truth all is background
    np.testing.assert_array_equal(crops, again[0])
    assert not np.array_equal(crops, other[0])


def test_hard_negatives_are_what_was_found_where_nothing_is():
    nothing, object_, part = [[0, 0, 20, 20], [40, 40, 60, 60]], [22, 20, 42, 40], [27, 20, 47, 40]
    boxes = np.array([[*nothing, object_, part, [70, 70, 90, 90]]], "float32")  # IoU of the part: .48
    answer = {
        "boxes": boxes,
        "scores": np.float32([[0.9, 0.8, 0.7, 0.7, 0.05]]),
        "classes": np.array([[0, 0, 1, 0, 0]]),
    }
    truths, classes = np.array([[[20, 20, 40, 40]]], "float32"), np.array([[2]])
    detect = lambda images: {key: np.repeat(value, len(images), 0) for key, value in answer.items()}
    images = np.zeros((2, 96, 96, 3))
    pair = np.repeat(truths, 2, 0), np.repeat(classes, 2, 0)
    owners, found = window_crops.hard_negatives(detect, images, *pair)
    np.testing.assert_array_equal(owners, [0, 0, 1, 1])
    np.testing.assert_array_equal(found, np.tile(boxes[0, :2], (2, 1)))  # neither an object nor a low score
    assert len(window_crops.hard_negatives(detect, images, *pair, each=1)[0]) == 2
    batch = tf.data.Dataset.from_tensors((tf.ones((5, 4, 4, 1)), tf.ones(5, "int32")))
    crops, labels = next(iter(window_crops.with_negatives(batch, np.zeros((2, 4, 4, 1), "float32"), 3, 0)))
    assert crops.numpy()[5:].max() == 0
    np.testing.assert_array_equal(labels, [1] * 5 + [0] * 3)


# --- training and doors ---------------------------------------------------------------------------------------------


def test_a_map_of_labels_trains_as_its_crops_do(net, images):
    model = SlidingWindow(net, stride=(6, 5), dense=False)
    labels = RNG.integers(-1, 3, (2, 3, 3))
    crops = [
        images[b, 6 * r : 6 * r + 14, 5 * c : 5 * c + 10] for b, r, c in itertools.product((0, 1), *[range(3)] * 2)
    ]
    on_map = model.compute_loss(y=labels, y_pred=model(images))
    on_crops = model.compute_loss(y=labels.ravel(), y_pred=model(np.array(crops)))
    np.testing.assert_allclose(on_map, on_crops, rtol=1e-5)
    logits = net(np.array(crops)).numpy()
    nats = np.log(np.exp(logits).sum(-1)) - logits[np.arange(18), labels.ravel()]
    np.testing.assert_allclose(on_map, nats[labels.ravel() >= 0].mean(), rtol=1e-4)
    assert model.compute_loss(y=np.full((2, 3, 3), -1), y_pred=model(images)) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stride": 0}, "stride must be at least 1"),
        ({"stride": (2, 2.5)}, "stride must be a whole number"),
        ({"window": (14, 0)}, "window must be at least 1"),
        ({"margin": 5}, "leave some of the window"),
        ({"scales": (0,)}, "scales must be at least"),
        ({"scales": ()}, "expected scales"),
        ({"image_shape": (13, 20, 2)}, "at least the window"),
        ({"image_shape": (27, 20, 3)}, "2 channels"),
        ({"background": 3}, "background must be one of the 3 answers"),
        ({"chunk": 0}, "chunk must be at least 1"),
        ({"dense": "yes"}, "dense must be one of"),
    ],
)
def test_settings_that_cannot_be_are_refused(net, options, words):
    with pytest.raises(ValueError, match=words):
        SlidingWindow(net, **options)


def test_classifiers_that_cannot_be_are_refused():
    pixels = keras.Sequential([keras.Input((9, 9, 2)), layers.Conv2D(2, 3)])
    for net, words in (
        (pixels, r"\[B, h, w, C\] -> \[B, K\]"),
        (flat([0.0]), "at least two answers"),
        (keras.Sequential([layers.Dense(2)]), "an unknown shape"),
        (keras.Sequential([keras.Input((None, None, 2)), layers.GlobalMaxPooling2D()]), "of one size"),
        (lambda crops: crops, "expected a built keras.Model"),
        (keras.Sequential([flat([0.0, 0.0]), layers.Activation("sigmoid")]), "ends in sigmoid"),
    ):
        with pytest.raises(ValueError, match=words):
            SlidingWindow(net)


def test_without_a_background_there_are_maps_and_no_detections(net, images):
    model = SlidingWindow(net, background=None, image_shape=(27, 20, 2))
    assert set(model.signatures()) == {"serving_default", "class_map"}
    with pytest.raises(ValueError, match="without a background class every window is an object"):
        model.detect(images)


def test_pictures_and_labels_that_cannot_be_are_refused(net, images):
    model = SlidingWindow(net, image_shape=(27, 20, 2))
    model.compile("sgd", jit_compile=False)
    crops = images[:, :14, :10]
    for labels, words in (
        (np.array([0, 3]), "from 0 to 2"),
        (np.array([[0, 1]]), r"labels \[B\], or \[B, R, S\]"),
        (np.array([0.0, 1.0]), "whole numbers"),
    ):
        with pytest.raises(ValueError, match=words):
            model.fit(crops, labels, verbose=0)
    with pytest.raises(ValueError, match="expected labels of windows"):
        model.compute_loss(y=np.array([0, 1]), y_pred=model(images))
    for wrong, words in ((255 * crops, "divide 8-bit"), (crops[..., :1], "images"), (crops[0], "images")):
        with pytest.raises(ValueError, match=words):
            model.fit(wrong, np.array([0, 1]), verbose=0)
    with pytest.raises(ValueError, match="divide 8-bit"):
        model.detect(255 * images)
    with pytest.raises(ValueError, match=r"iou_threshold must be a number in \[0, 1\]"):
        model.detect(images, iou_threshold=30)
