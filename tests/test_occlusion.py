"""What occlusion owes beside the contract: the classifier's drop at every window, put together pixel by pixel."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from dmkeras.parts import explanation_doors
from dmkeras.understanding import occlusion
from dmkeras.understanding.occlusion import Occlusion

RNG = np.random.default_rng(0)
SHAPE = (9, 7, 2)


def classifier(shape=SHAPE, end=None, dtype="float32"):
    stack = [
        keras.Input(shape, dtype="float32" if "mixed" in dtype else dtype),
        layers.Conv2D(3, 3, activation="relu", dtype=dtype),
        layers.Flatten(dtype=dtype),
        layers.Dense(4, dtype=dtype),
    ]
    model = keras.Sequential([*stack, *([layers.Activation(end, dtype=dtype)] if end else [])])
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(size=weight.shape) for weight in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def net():
    return classifier()


@pytest.fixture(scope="module")
def images():
    return RNG.random((3, *SHAPE), "float32")


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def places(side, part, step):
    """First pixels of the windows: as long as they fit, and the last at the border."""
    found = [0]
    while found[-1] + part < side:
        found.append(min(found[-1] + step, side - part))
    return found


def by_hand(net, images, classes, window, stride, fill=0.5, score=lambda logits: logits, cut_off=False):
    """(1) and (2) with one question to the classifier for each window; `fill` a number or a function of a picture."""
    maps, drops = [], []
    for image, kind in zip(images, classes):
        ways = [places(side, part, step) for side, part, step in zip(image.shape, window, stride)]
        if cut_off:  # the known-wrong variant: windows go on by their stride and hang over the border
            ways = [[i * step for i in range(len(way))] for way, step in zip(ways, stride)]
        windows = [np.s_[y : y + window[0], x : x + window[1]] for y, x in itertools.product(*ways)]
        covered = [image.copy() for _ in windows]
        for picture, part in zip(covered, windows):
            picture[part] = fill(image)[part] if callable(fill) else fill
        own, *scores = score(net.predict_on_batch(np.array([image, *covered])))[:, kind]
        total, count = np.zeros(image.shape[:2]), np.zeros(image.shape[:2])
        for part, value in zip(windows, scores):
            total[part] += own - value
            count[part] += 1
        maps.append(total / count)
        drops.append((own - np.array(scores)).reshape([len(way) for way in ways]))
    return np.array(maps), np.array(drops)


# --- the map --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "stride"), [(3, None), (2, 2), ((4, 2), (3, 1)), ((3, 5), 2), ((9, 7), 1), ((1, 7), (1, 3))]
)
def test_the_map_is_the_mean_drop_of_the_windows_that_cover_a_pixel(net, images, window, stride):
    model, classes = Occlusion(net, window, stride), np.array([0, 3, 2])
    expected, drops = by_hand(net, images, classes, model.window, model.stride)
    np.testing.assert_allclose(model(images, classes=classes), expected, atol=1e-5)
    np.testing.assert_allclose(model.positions(images, classes)["drop"], drops, atol=1e-5)
    other, _ = by_hand(net, images, [1, 1, 1], model.window, model.stride)
    assert abs(other - expected).max() > 0.01


def test_the_last_window_is_whole_and_ends_at_the_border(net, images):
    model, classes = Occlusion(net, 4, 4), np.zeros(3, int)  # rows 0, 4, 5; columns 0, 3
    assert [list(starts) for starts in model._starts] == [[0, 4, 5], [0, 3]]
    np.testing.assert_allclose(
        model(images, classes=classes), by_hand(net, images, classes, (4, 4), (4, 4))[0], atol=1e-5
    )
    wrong, _ = by_hand(net, images, classes, (4, 4), (4, 4), cut_off=True)
    assert abs(wrong - model(images, classes=classes).numpy()).max() > 0.1


@pytest.mark.parametrize("side", [5, 8, 9])
def test_every_pixel_is_covered_and_its_windows_weigh_the_same(side):
    for part, step in itertools.product(range(1, side + 1), range(1, side + 1)):
        if step <= part:
            rows = occlusion._starts(side, part, step)
            assert list(rows) == places(side, part, step)
            assert rows[0] == 0
            assert rows[-1] == side - part
            assert (np.diff(rows) <= step).all()
            shares = occlusion._shares(rows, part, side)
            np.testing.assert_allclose(shares.sum(1), 1)
            assert all(len(set(row[row > 0])) == 1 for row in shares)


def test_of_a_linear_classifier_the_drop_is_what_the_window_adds(images):
    net = keras.Sequential([keras.Input(SHAPE), layers.Flatten(), layers.Dense(2)])
    weights = net.layers[-1].kernel.numpy().reshape(*SHAPE, 2)[..., 1]
    model = Occlusion(net, 1, fill=[0.25, 0.75])
    expected = (weights * (images - [0.25, 0.75])).sum(-1)
    np.testing.assert_allclose(model(images, classes=[1, 1, 1]), expected, atol=1e-5)
    assert abs(model(images, classes=[1, 1, 1]).numpy() + expected).max() > 0.1  # a drop, not a rise


def blurred(window):
    def of(image):
        found = image.astype(float)
        for axis, part in enumerate(window):
            side = image.shape[axis]
            weights = np.exp(-0.5 * (np.subtract.outer(np.arange(side), np.arange(side)) / (part / 2)) ** 2)
            weights /= weights.sum(1, keepdims=True)
            found = np.moveaxis(np.tensordot(weights, found, (1, axis)), 0, axis)
        return found.astype("float32")

    return of


@pytest.mark.parametrize("fill", [0.0, 1.0, [0.2, 0.9], "mean", "blur"])
def test_windows_are_covered_by_the_fill(net, images, fill):
    model, classes = Occlusion(net, (3, 4), 2, fill=fill), np.array([1, 0, 2])
    means = lambda image: np.broadcast_to(image.mean((0, 1)), image.shape)
    given = {"mean": means, "blur": blurred((3, 4))}.get(fill if isinstance(fill, str) else None, fill)
    expected, _ = by_hand(net, images, classes, (3, 4), (2, 2), given)
    np.testing.assert_allclose(model(images, classes=classes), expected, atol=1e-5)
    grey, _ = by_hand(net, images, classes, (3, 4), (2, 2))
    assert abs(grey - expected).max() > 0.01


def test_what_is_as_the_fill_makes_no_difference(net):
    picture = np.full((1, *SHAPE), 0.5, "float32")
    np.testing.assert_array_equal(Occlusion(net, 3)(picture), 0)
    np.testing.assert_allclose(Occlusion(net, 3, fill="blur")(picture + 0.2), 0, atol=1e-5)
    np.testing.assert_allclose(Occlusion(net, 3, fill="mean")(picture + 0.2), 0, atol=1e-5)


def test_probability_is_the_papers_score(net, images):
    model, classes = Occlusion(net, 3, of="probability"), np.array([1, 0, 2])
    expected, drops = by_hand(net, images, classes, (3, 3), (1, 1), score=softmax)
    np.testing.assert_allclose(model(images, classes=classes), expected, atol=1e-5)
    for given in (model, Occlusion(net, 3)):
        found = given.positions(images, classes)
        whole = softmax(np.asarray(net(images)))[np.arange(3), classes]
        np.testing.assert_allclose(whole[:, None, None] - found["probability"], drops, atol=1e-5)


def test_predicted_is_the_most_probable_class_of_each_covered_picture(net, images):
    found = Occlusion(net, (5, 3), (2, 2)).positions(images)["predicted"].numpy()
    covered = np.tile(images[:, None, None], (1, 3, 3, 1, 1, 1))
    for r, c in itertools.product(range(3), range(3)):
        covered[:, r, c, 2 * r : 2 * r + 5, 2 * c : 2 * c + 3] = 0.5
    expected = np.argmax(net(covered.reshape(-1, *SHAPE)), -1).reshape(3, 3, 3)
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(found)) > 1


def test_without_a_class_it_is_the_one_seen(net, images):
    model, seen = Occlusion(net, 3), np.argmax(net(images), -1)
    assert len(set(seen)) > 1
    for classes in (None, np.full(3, -1), seen):
        np.testing.assert_allclose(model(images, classes=classes), model(images, classes=seen), atol=1e-6)
    mixed = np.array([-1, (seen[1] + 1) % 4, -1])
    np.testing.assert_allclose(model(images, classes=mixed)[::2], model(images, classes=seen)[::2], atol=1e-6)
    assert abs(model(images, classes=mixed)[1] - model(images, classes=seen)[1]).numpy().max() > 0.01


# --- in the graph ---------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("tests")
class Listening(keras.Model):
    """A classifier in a subclass that notes how many pictures it is asked at once."""

    image_shape = SHAPE

    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner, self.sizes = inner, []
        self(keras.Input(SHAPE))

    def call(self, images):
        self.sizes.append(images.shape[0])
        return self.inner(images)


@pytest.mark.parametrize("chunk", [1, 5, 6, 64])
def test_the_answers_are_the_same_for_any_chunk_which_bounds_the_memory(net, images, chunk):
    heard = Listening(net)
    model = Occlusion(heard, 4, 2, chunk=chunk)  # 4 x 3 windows and the picture itself: 13
    expected, _ = by_hand(net, images, [0, 0, 0], (4, 4), (2, 2))
    heard.sizes = []
    served = tf.function(model._map, autograph=False).get_concrete_function(*model._specs())
    assert max(heard.sizes) == {1: 1, 5: 5, 6: 5, 64: 13}[chunk]  # as even as can be: 5 + 5 + 3, not 6 + 6 + 1
    for count in (3, 1, 0):
        found = served(images=images[:count], classes=np.zeros(count, "int32"))
        np.testing.assert_allclose(found, expected[:count].reshape(-1, 9, 7), atol=1e-5)


def test_a_row_depends_on_that_row_alone(net, images):
    for fill in ("mean", "blur", 0.5):
        model = Occlusion(net, 3, fill=fill, chunk=7)
        together = model(images).numpy()
        alone = np.concatenate([model(images[i : i + 1]) for i in range(3)])
        np.testing.assert_allclose(together, alone, atol=1e-6)
        np.testing.assert_allclose(model(images[::-1]), together[::-1], atol=1e-6)


@pytest.mark.parametrize("fill", [0.5, "blur"])
def test_it_compiles_with_the_same_answers(net, images, fill):
    model = Occlusion(net, 4, 3, fill=fill, chunk=4)
    compiled = tf.function(model._map, autograph=False, jit_compile=True)
    classes = tf.constant([0, -1, 2])
    np.testing.assert_allclose(compiled(images, classes), model(images, classes=classes), atol=1e-5)


def test_one_picture_after_the_other_with_progress(net, images):
    model, heard = Occlusion(net, 3), []
    np.testing.assert_allclose(
        model.occlude(images, [1, 2, 0], heard.append), model(images, classes=[1, 2, 0]), atol=1e-6
    )
    assert heard == [1, 2, 3]
    assert model.occlude(images[:0]).shape == (0, 9, 7)
    np.testing.assert_allclose(model.occlude(images, 2), model(images, classes=[2, 2, 2]), atol=1e-6)


# --- classifiers ----------------------------------------------------------------------------------------------------


def test_a_closing_softmax_makes_no_difference(net, images):
    soft = classifier(end="softmax")
    np.testing.assert_allclose(Occlusion(soft, 3)(images), Occlusion(net, 3)(images), atol=1e-5)
    np.testing.assert_allclose(
        Occlusion(soft, 3, of="probability")(images), Occlusion(net, 3, of="probability")(images), atol=1e-6
    )


def test_float64_half_precision_and_grey_pictures(images):
    exact = classifier(dtype="float64")
    found = Occlusion(exact, 3)(images.astype("float64"), classes=[0, 1, 2])
    assert found.dtype == tf.float64
    expected, _ = by_hand(exact, images.astype("float64"), [0, 1, 2], (3, 3), (1, 1))
    np.testing.assert_allclose(found, expected, atol=1e-13)
    assert Occlusion(exact, 3)(images).dtype == tf.float32
    half = Occlusion(classifier(dtype="mixed_bfloat16"), 3)(images, classes=[0, 1, 2])
    assert half.dtype == tf.float32
    assert 1e-6 < abs(half.numpy() - expected).max() < 0.3
    grey = classifier((6, 8, 1))
    picture = RNG.random((1, 6, 8, 1), "float32")
    np.testing.assert_allclose(
        Occlusion(grey, 2)(picture, classes=[0]), by_hand(grey, picture, [0], (2, 2), (1, 1))[0], atol=1e-5
    )


def test_a_single_answer_has_a_probability(images):
    net = keras.Sequential([keras.Input(SHAPE), layers.Flatten(), layers.Dense(1, "sigmoid")])
    found = Occlusion(net, 3, of="probability").positions(images)
    assert 0 < found["probability"].numpy().min() < found["probability"].numpy().max() < 1
    expected, _ = by_hand(net, images, [0, 0, 0], (3, 3), (1, 1))  # its answers are probabilities
    np.testing.assert_allclose(Occlusion(net, 3, of="probability")(images), expected, atol=1e-6)


def test_captum_finds_the_same_where_windows_fit(images):
    torch = pytest.importorskip("torch", reason="captum's Occlusion needs the [peers] extra")
    captum = pytest.importorskip("captum.attr", reason="captum's Occlusion needs the [peers] extra")
    net = classifier()
    kernel, bias, dense, offsets = map(torch.tensor, net.get_weights())

    def twin(pictures):
        maps = torch.relu(torch.nn.functional.conv2d(pictures, kernel.permute(3, 2, 0, 1), bias))
        return maps.permute(0, 2, 3, 1).flatten(1) @ dense + offsets

    given = torch.tensor(images.transpose(0, 3, 1, 2))
    for window, stride in (((3, 3), (2, 2)), ((4, 3), (1, 1)), ((1, 1), (1, 1))):
        told = {"sliding_window_shapes": (2, *window), "strides": (2, *stride), "baselines": 0.5}
        expected = captum.Occlusion(twin).attribute(given, target=torch.tensor([0, 3, 2]), **told).numpy()
        found = Occlusion(net, window, stride)(images, classes=[0, 3, 2])
        np.testing.assert_allclose(found, expected[:, 0], atol=2e-5)


# --- doors ----------------------------------------------------------------------------------------------------------


def test_a_file_comes_back_under_its_map_at_its_own_size(net):
    shape = (9, 7, 3)
    model = Occlusion(classifier(shape), 3)
    sent = RNG.random((2, 20, 31, 3), "float32")
    files = explanation_doors.encoded(sent)
    answer = model.signatures()["occlusion_bytes"][0](files, tf.constant([1, -1]))["overlay_bytes"]
    maps = model(explanation_doors.decoded(files, shape), classes=[1, -1])
    np.testing.assert_array_equal(answer, explanation_doors.overlays(files, maps, signed=True))
    assert tf.io.decode_png(answer[0]).shape == (20, 31, 3)


def test_pictures_of_other_channels_than_files_have_no_endpoint_of_files(net):
    assert set(Occlusion(net, 3).signatures()) == {"serving_default", "positions"}


def test_a_saved_model_answers_the_same(net, images, tmp_path):
    model = Occlusion(net, (4, 3), (2, 1), fill=[0.1, 0.7], of="probability", chunk=5)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.get_config().keys() == model.get_config().keys()
    np.testing.assert_array_equal(again(images), model(images))
    assert again.chunk == 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": 0}, "window must be at least 1"),
        ({"window": 2.5}, "window must be a whole number"),
        ({"window": (10, 2)}, "window within pictures"),
        ({"stride": 0}, "stride must be at least 1"),
        ({"stride": (3, 4)}, "never covered"),
        ({"fill": "grey"}, "fill must be one of"),
        ({"fill": 1.5}, "fill must be at least 0 and less than"),
        ({"fill": [0.5, -0.5]}, "fill must be at least 0"),
        ({"fill": [0.5, 0.5, 0.5]}, "a number or 2 of them"),
        ({"of": "loss"}, "of must be one of"),
        ({"chunk": 0}, "chunk must be at least 1"),
        ({"image_shape": (9, 8, 2)}, "takes pictures of"),
    ],
)
def test_settings_that_cannot_be_are_refused(net, options, words):
    with pytest.raises(ValueError, match=words):
        Occlusion(net, **{"window": 3, **options})


def test_pictures_and_classes_that_cannot_be_are_refused(net, images):
    model = Occlusion(net, 3)
    for wrong, words in ((255 * images, "divide 8-bit"), (images[:, 1:], "images"), (images[0], "images")):
        with pytest.raises(ValueError, match=words):
            model(wrong)
    for wrong, words in (([0, 1], "a class for each of 3"), ([0, 1, 4], "from 0 to 3"), ([0.0, 1, 2], "whole")):
        for ask in (model, model.positions, model.occlude):
            with pytest.raises(ValueError, match=words):
                ask(images, classes=wrong)
    with pytest.raises(ValueError, match=r"expected a keras\.Model"):
        Occlusion(lambda images: images, 3)
