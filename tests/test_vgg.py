"""Laws of VGG: the numbers of keras.applications, the paper's sizes and names, poolings, heads, files."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import dmkeras

RNG = np.random.default_rng(0)
SMALL = {"num_classes": 4, "image_shape": (33, 40, 3), "filters": 2, "units": 5}
IMAGES = RNG.uniform(size=(2, 33, 40, 3)).astype("float32")


@pytest.fixture(scope="module")
def model():
    return scattered(dmkeras.VGG(**SMALL))


def scattered(model):
    """The mean of kernels is above zero, so that no layer is dead, which two filters are soon by chance."""
    generator = np.random.default_rng(1)
    for weight in model.weights:
        draw = generator.normal if "bias" in weight.path else generator.uniform
        low, high = (0, 1) if "bias" in weight.path else np.array([-0.4, 1]) / (0.3 * np.prod(weight.shape[:-1]))
        weight.assign(draw(low, high, weight.shape))
    return model


@pytest.mark.parametrize("depth", [16, 19])
def test_the_same_weights_give_the_numbers_of_keras_applications(depth, monkeypatch):
    make = getattr(keras.applications, f"VGG{depth}")
    theirs = make(weights=None, include_top=False, input_shape=(None, None, 3))
    generator = np.random.default_rng(depth)
    for weight in theirs.weights:
        if len(weight.shape) == 1:
            weight.assign(0.1 * generator.normal(size=weight.shape))
    asked = []

    def downloaded(weights, **options):
        asked.append((weights, options))
        return theirs

    monkeypatch.setattr(keras.applications, f"VGG{depth}", downloaded)
    model = dmkeras.VGG(depth, weights="imagenet", num_classes=None, image_shape=(32, 32, 3))
    assert asked == [("imagenet", {"include_top": False, "input_shape": (None, None, 3), "classes": 1000})]
    assert model.count_params() == theirs.count_params() == {16: 14_714_688, 19: 20_024_384}[depth]
    images = RNG.uniform(size=(1, 35, 49, 3)).astype("float32")
    preprocess = {16: keras.applications.vgg16, 19: keras.applications.vgg19}[depth].preprocess_input
    expected = theirs(preprocess(255 * images)).numpy()
    found = model.features(images)
    np.testing.assert_allclose(found["pool5"], expected, rtol=1e-3, atol=1e-4 * expected.max())
    np.testing.assert_allclose(model(images), expected.mean(axis=(1, 2)), rtol=1e-3, atol=1e-4 * expected.max())
    wrong = theirs(preprocess(255 * images[..., ::-1])).numpy()
    assert np.abs(wrong - expected).max() > 1e-3 * expected.max()  # so that the law could fail
    count = {16: 3, 19: 4}[depth]
    counts = [2, 2, count, count, count]
    names = [name for b, n in enumerate(counts, 1) for name in (*(f"conv{b}_{i + 1}" for i in range(n)), f"pool{b}")]
    assert [name for name in found if "relu" not in name] == names


def test_a_file_of_keras_applications_is_read(tmp_path, monkeypatch):
    narrow = dmkeras.VGG(16, num_classes=None, image_shape=(32, 32, 3), filters=2)

    def application(weights=None, include_top=False, input_shape=None, classes=None):
        inputs = keras.Input(input_shape)
        maps = inputs
        for block in narrow.blocks:
            for layer in block:
                maps = keras.layers.Conv2D(layer.filters, 3, padding="same", activation="relu")(maps)
            maps = keras.layers.MaxPooling2D(2)(maps)
        twin = keras.Model(inputs, maps)
        if weights:
            twin.load_weights(weights)
        return twin

    monkeypatch.setattr(keras.applications, "VGG16", application)
    theirs = application(input_shape=(None, None, 3))
    theirs.save(tmp_path / "w.h5")  # the old format, which theirs on the web are in
    read = dmkeras.VGG(16, str(tmp_path / "w.h5"), num_classes=None, image_shape=(32, 32, 3), filters=2)
    images = RNG.uniform(size=(1, 32, 32, 3)).astype("float32")
    expected = theirs(keras.applications.vgg16.preprocess_input(255 * images))
    np.testing.assert_allclose(read.features(images)["pool5"], expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match=r"do not fit VGG-16 of no classes, 3 filters"):
        dmkeras.VGG(16, str(tmp_path / "w.h5"), num_classes=None, image_shape=(32, 32, 3), filters=3)
    with pytest.raises(FileNotFoundError, match="no file"):
        dmkeras.VGG(16, str(tmp_path / "absent.h5"), num_classes=None)


def test_files_of_this_class_and_of_numpy_are_read(model, tmp_path):
    layers = [*(layer for block in model.blocks for layer in block), *model.dense]
    arrays = {f"{layer.name}/{kind}": getattr(layer, kind).numpy() for layer in layers for kind in ("kernel", "bias")}
    assert set(arrays) >= {"conv1_1/kernel", "conv5_3/bias", "fc6/kernel", "fc8/bias"}
    np.savez(tmp_path / "w.npz", **arrays)
    model.save(tmp_path / "w.keras")
    model.save_weights(tmp_path / "w.weights.h5")
    for file in ("w.npz", "w.keras", "w.weights.h5"):
        np.testing.assert_array_equal(
            dmkeras.VGG(weights=tmp_path / file, **SMALL)(IMAGES), model(IMAGES), err_msg=file
        )
    with pytest.raises(ValueError, match="conv1_1/kernel is"):
        dmkeras.VGG(weights=tmp_path / "w.npz", **{**SMALL, "filters": 3})
    with pytest.raises(ValueError, match="does not fit VGG of 4 classes"):
        dmkeras.VGG(19, weights=tmp_path / "w.keras", **SMALL)


def by_hand(model, images, average=False):
    """{name: maps} from plain operations, float64."""
    x = 255 * np.float64(images)[..., ::-1] - [103.939, 116.779, 123.68]
    found = {}
    for b, count in enumerate((2, 2, 3, 3, 3) if model.depth == 16 else (2, 2, 4, 4, 4)):
        for i in range(count):
            kernel, bias = (np.float64(weight) for weight in model.blocks[b][i].weights)
            windows = np.lib.stride_tricks.sliding_window_view(
                np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), (1, 2)
            )
            x = found[f"conv{b + 1}_{i + 1}"] = np.maximum(np.einsum("bhwcij,ijco->bhwo", windows, kernel) + bias, 0)
        h, w = x.shape[1] // 2, x.shape[2] // 2
        parts = x[:, : 2 * h, : 2 * w].reshape(len(x), h, 2, w, 2, -1)
        x = found[f"pool{b + 1}"] = parts.mean(axis=(2, 4)) if average else parts.max(axis=(2, 4))
    x = x.reshape(len(x), -1)
    for i, dense in enumerate(model.dense):
        x = x @ np.float64(dense.kernel) + np.float64(dense.bias)
        x = found[f"fc{i + 6}"] = np.maximum(x, 0) if i < 2 else x
    return found


@pytest.mark.parametrize("pooling", ["max", "average"])
@pytest.mark.parametrize("depth", [16, 19])
def test_every_layer_is_what_numpy_makes(depth, pooling):
    model = scattered(dmkeras.VGG(depth, pooling=pooling, **SMALL))
    expected, found = by_hand(model, IMAGES, pooling == "average"), model.features(IMAGES)
    assert [name for name in found if "relu" not in name] == list(expected)
    for name, maps in expected.items():
        np.testing.assert_allclose(found[name], maps, rtol=1e-3, atol=1e-4 * np.abs(maps).max(), err_msg=name)
        if name.startswith("conv"):
            np.testing.assert_array_equal(found[name], found[name.replace("conv", "relu")])
    np.testing.assert_allclose(model(IMAGES), expected["fc8"], rtol=1e-3, atol=1e-4 * np.abs(expected["fc8"]).max())
    other = by_hand(model, IMAGES, pooling == "max")["fc8"]
    assert np.abs(other - expected["fc8"]).max() > 1e-2 * np.abs(expected["fc8"]).max()


def test_features_are_of_pictures_of_any_size_and_the_head_of_one(model):
    found = model.features(RNG.uniform(size=(1, 64, 33, 3)).astype("float32"))
    assert found["pool5"].shape == (1, 2, 1, 16)
    assert "fc6" not in found
    assert model.features(IMAGES)["fc6"].shape == (2, 5)
    with pytest.raises(ValueError, match="expected pictures of at least 32x32"):
        model.features(np.zeros((1, 31, 40, 3), "float32"))


def test_dropout_stands_behind_fc6_and_fc7_in_training_alone(model):
    keras.utils.set_random_seed(0)
    trained, still = model.features(IMAGES, training=True), model.features(IMAGES)
    changed = [name for name in still if not np.allclose(trained[name], still[name])]
    assert changed == ["fc7", "fc8"]


def test_the_paper_counts_so_many_parameters():
    """Of kernels and biases, from the widths in the narrow model: nothing of 138 million numbers is made."""
    for depth, count in ((16, 138_357_544), (19, 143_667_240)):
        narrow = dmkeras.VGG(depth, num_classes=2, image_shape=(32, 32, 3), filters=1, units=1)
        kernels = [layer.kernel.shape for block in narrow.blocks for layer in block]
        wide = [(9 * (64 * c if i else 3), 64 * m) for i, (_, _, c, m) in enumerate(kernels)]
        wide += [(7 * 7 * wide[-1][1], 4096), (4096, 4096), (4096, 1000)]
        assert sum(i * o + o for i, o in wide) == count
        assert narrow.dense[0].kernel.shape == (8, 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"depth": 11}, "depth must be one of 16, 19, received 11"),
        ({"pooling": "mean"}, "pooling must be one of 'max', 'average'"),
        ({"num_classes": 1}, "num_classes must be at least 2"),
        ({"image_shape": (31, 40, 3)}, r"image_shape must be \(H, W, 3\) from 32 pixels on"),
        ({"image_shape": (40, 40, 1)}, r"image_shape must be \(H, W, 3\) from 32 pixels on"),
        ({"filters": 0}, "filters must be at least 1"),
        ({"units": 0}, "units must be at least 1"),
        ({"dropout": -0.1}, "dropout must be at least 0"),
        ({"weights": "w.pth"}, r"must be a file that ends in \.npz"),
    ],
)
def test_bad_arguments_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        dmkeras.VGG(**{**SMALL, **arguments})


def test_float64_pictures_have_float64_features():
    model = dmkeras.VGG(**{**SMALL, "num_classes": None}, dtype="float64")
    assert {maps.dtype for maps in model.features(np.float64(IMAGES)).values()} == {tf.float64}
