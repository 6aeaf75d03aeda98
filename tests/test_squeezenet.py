"""Laws of SqueezeNet: the paper's sizes, a NumPy copy of the network, the authors' weights, files that do not fit."""

import os
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import dmkeras
from dmkeras.backbones import subjects
from dmkeras.backbones.squeezenet import CeilPooling, Fire

RNG = np.random.default_rng(0)
WEIGHTS = os.environ.get("SQUEEZENET_WEIGHTS", "")
needs_weights = pytest.mark.skipif(
    not pathlib.Path(WEIGHTS).is_file(), reason="SQUEEZENET_WEIGHTS is no path of squeezenet_v1.0_imagenet.npz"
)
POOLED = {"1.0": (1, 4, 8), "1.1": (1, 3, 5)}


def scattered(model, seed=1):
    """Weights of unit gain, biases too."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        fan = np.prod(weight.shape[:-1]) if len(weight.shape) > 1 else 1
        weight.assign(generator.normal(size=weight.shape) * np.sqrt(2 / fan))
    return model


@pytest.fixture(scope="module", params=["1.0", "1.1"])
def model(request):
    return scattered(dmkeras.SqueezeNet(request.param, num_classes=5))


# --- the paper's network ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "count"), [("1.0", 1_248_424), ("1.1", 1_235_496)])
def test_the_network_has_the_papers_parameters_and_names(version, count):
    model = dmkeras.SqueezeNet(version)
    assert model.count_params() == count
    assert model(np.zeros((1, 40, 40, 3), "float32")).shape == (1, 1000)
    shapes = tf.function(model.features).get_concrete_function(tf.TensorSpec((1, 224, 224, 3))).output_shapes
    conv1, pool = (109, 54) if version == "1.0" else (111, 55)
    assert shapes["conv1"].as_list() == [1, conv1, conv1, 96 if version == "1.0" else 64]
    assert shapes["pool1"].as_list()[1] == pool
    assert [shapes[f"fire{i}"][-1] for i in range(2, 10)] == [128, 128, 256, 256, 384, 384, 512, 512]
    assert shapes["conv10"].as_list() == [1, *(2 * [15 if version == "1.0" else 13]), 1000]
    keys = [key for i in range(2, 10) for key in (f"fire{i}", *([f"pool{i}"] if i in POOLED[version] else []))]
    assert list(shapes) == ["conv1", "pool1", *keys, "conv10"]
    names = {layer.name for layer in model._flatten_layers()}
    assert names >= {*shapes, "drop9", "fire2_squeeze1x1", "fire9_expand1x1", "fire9_expand3x3"}


def convolved(maps, layer, stride=1, pad=0):
    """max(convolution, 0) in float64; maps [B, h, w, C]."""
    kernel, bias = (np.asarray(weight, "float64") for weight in layer.weights)
    maps = np.pad(maps, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(maps, kernel.shape[:2], (1, 2))[:, ::stride, ::stride]
    return np.maximum(np.einsum("bhwcij,ijco->bhwo", windows, kernel, optimize=True) + bias, 0)


def ceil_pooled(maps):
    """Caffe: windows begin at 0, 2, 4 ... as long as a side has something left beyond the last one."""
    rows, columns = (range(0, 2 * (-(-(side - 3) // 2) + 1), 2) for side in maps.shape[1:3])
    return np.array([[maps[:, r : r + 3, c : c + 3].max(axis=(1, 2)) for c in columns] for r in rows]).transpose(
        2, 0, 1, 3
    )


def reference(model, images):
    """{name: maps} in NumPy; images RGB in [0, 1]."""
    x = np.asarray(images, "float64")
    if model.version == "1.0":
        x = 255 * x[..., [2, 1, 0]] - [104, 117, 123]
    else:
        x = (x - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    found = {"conv1": convolved(x, model.conv1, stride=2)}
    x = found["pool1"] = ceil_pooled(found["conv1"])
    for i, fire in enumerate(model.fires, 2):
        x = convolved(x, fire.squeeze1x1)
        x = found[f"fire{i}"] = np.concatenate([convolved(x, fire.expand1x1), convolved(x, fire.expand3x3, pad=1)], -1)
        if i in POOLED[model.version]:
            x = found[f"pool{i}"] = ceil_pooled(x)
    return {**found, "conv10": convolved(x, model.conv10, pad=1 if model.version == "1.0" else 0)}


@pytest.mark.parametrize("sides", [(21, 21), (24, 37), (41, 30), (35, 34), (47, 61)], ids=str)
def test_every_layer_is_what_numpy_makes_at_odd_and_even_sizes(model, sides):
    images = RNG.uniform(size=(2, *sides, 3)).astype("float32")
    expected, found = reference(model, images), model.features(images)
    assert list(found) == list(expected)
    for name, maps in expected.items():
        np.testing.assert_allclose(found[name], maps, rtol=1e-3, atol=1e-4 * np.abs(maps).max(), err_msg=name)
    logits = expected["conv10"].mean(axis=(1, 2))
    np.testing.assert_allclose(model(images), logits, rtol=1e-3, atol=1e-4 * np.abs(logits).max())
    if min(sides) > 21:
        swapped = reference(model, images[..., ::-1])["conv10"].mean(axis=(1, 2))
        assert np.abs(swapped - model(images)).max() > 1e-2 * np.abs(logits).max()  # so that the law could fail


def test_the_rim_of_conv10_is_the_biases_alone_in_the_first_version(model):
    maps = model.features(RNG.uniform(size=(1, 40, 44, 3)).astype("float32"))["conv10"].numpy()
    rim = np.maximum(model.conv10.bias, 0)
    assert np.allclose(maps[:, 0], rim) == np.allclose(maps[:, :, -1], rim) == (model.version == "1.0")


@pytest.mark.parametrize("sides", [(2, 2), (3, 4), (8, 5), (6, 8)], ids=str)
def test_pooling_rounds_sides_up_and_what_is_beyond_takes_no_part(sides):
    maps = RNG.normal(-5, 1, (2, *sides, 3)).astype("float32")  # zeros beyond would win
    expected = ceil_pooled(maps)
    np.testing.assert_array_equal(CeilPooling()(maps), expected)
    assert CeilPooling().compute_output_shape((2, *sides, 3)) == expected.shape
    unknown = tf.function(CeilPooling(), [tf.TensorSpec((None, None, None, 3))], autograph=False)
    np.testing.assert_array_equal(unknown(maps), expected)
    if any(side % 2 == 0 for side in sides):
        assert expected.shape != tf.nn.max_pool2d(
            np.pad(maps, ((0, 0), (1, 0), (1, 0), (0, 0))), 3, 2, "VALID"
        ).shape or (
            not np.array_equal(
                expected, tf.nn.max_pool2d(np.pad(maps, ((0, 0), (1, 0), (1, 0), (0, 0))), 3, 2, "VALID")
            )
        )  # the rim at the other end


def test_pictures_whose_size_only_the_graph_knows_give_the_same(model):
    answer = tf.function(model.__call__, [tf.TensorSpec((None, None, None, 3))], autograph=False)
    for sides in ((30, 31), (44, 37)):
        images = RNG.uniform(size=(1, *sides, 3)).astype("float32")
        np.testing.assert_allclose(answer(images), model(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("version", "least"), [("1.0", 21), ("1.1", 17)])
def test_the_smallest_picture_is_the_smallest_that_leaves_something_to_every_pooling(version, least):
    model = dmkeras.SqueezeNet(version, num_classes=3, image_shape=(least, least, 3))
    pools = {name: maps.shape[1] for name, maps in model.features(np.zeros((1, least, least, 3), "float32")).items()}
    assert min(pools.values()) == 1
    before = {"1.0": "fire8", "1.1": "fire5"}[version]
    assert pools[before] == 2  # one pixel less, and it would be one: nothing to pool
    for door in (
        lambda: model.features(np.zeros((1, least - 1, least, 3), "float32")),
        lambda: dmkeras.SqueezeNet(version, num_classes=3, image_shape=(least, least - 1, 3)),
    ):
        with pytest.raises(ValueError, match=f"{least}"):
            door()


def test_dropout_stands_behind_fire9_in_training_alone(model):
    images = RNG.uniform(size=(1, 60, 60, 3)).astype("float32")
    keras.utils.set_random_seed(0)
    trained, still = model.features(images, training=True), model.features(images)
    for name in still:
        assert np.allclose(trained[name], still[name], rtol=1e-3, atol=1e-3) == (name != "conv10")
    once = dmkeras.SqueezeNet(model.version, num_classes=5, dropout=0.0)
    once.set_weights(model.get_weights())
    np.testing.assert_allclose(once(images, training=True), model(images), rtol=1e-4, atol=1e-4)


def test_a_fire_reloads_from_its_configuration():
    fire = Fire(2, 6, name="fire3")
    assert fire(np.zeros((1, 4, 5, 3), "float32")).shape == fire.compute_output_shape((1, 4, 5, 3)) == (1, 4, 5, 12)
    assert Fire.from_config(fire.get_config()).get_config() == fire.get_config()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"version": "1.2"}, "version must be one of '1.0', '1.1', received '1.2'"),
        ({"num_classes": 1}, "num_classes must be at least 2"),
        ({"image_shape": (64, 64, 1)}, r"image_shape must be \(H, W, 3\) from 21 pixels on"),
        ({"image_shape": (64, 64)}, r"image_shape must be \(height, width, channels\)"),
        ({"dropout": 1.0}, "dropout must be at least 0 and less than 1"),
    ],
)
def test_bad_arguments_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        dmkeras.SqueezeNet(**arguments)


# --- files ----------------------------------------------------------------------------------------------


def arrays(model):
    """{NAME/kernel, NAME/bias: array}, the names from where layers stand, not from the code under test."""
    found = {}
    layers = {"conv1": model.conv1, "conv10": model.conv10}
    for i, fire in enumerate(model.fires, 2):
        layers |= {f"fire{i}_{part}": getattr(fire, part) for part in ("squeeze1x1", "expand1x1", "expand3x3")}
    for name, layer in layers.items():
        found |= {f"{name}/kernel": layer.kernel.numpy(), f"{name}/bias": layer.bias.numpy()}
    return found


def test_weights_come_from_files_of_numpy_and_of_keras(model, tmp_path):
    np.savez(tmp_path / "w.npz", **arrays(model))
    model.save(tmp_path / "w.keras")
    model.save_weights(tmp_path / "w.weights.h5")
    images = RNG.uniform(size=(1, 30, 30, 3)).astype("float32")
    for file in ("w.npz", "w.keras", "w.weights.h5"):
        twin = dmkeras.SqueezeNet(model.version, num_classes=5, weights=tmp_path / file)
        np.testing.assert_array_equal(twin(images), model(images), err_msg=file)
    other = dmkeras.SqueezeNet(model.version, num_classes=2)
    head = other.conv10.get_weights()
    other.load_file(tmp_path / "w.npz", include_head=False)
    np.testing.assert_array_equal(other.features(images)["fire9"], model.features(images)["fire9"])
    assert all(np.array_equal(a, b) for a, b in zip(head, other.conv10.get_weights(), strict=True))


def test_files_that_do_not_fit_are_refused_and_change_nothing(model, tmp_path):
    held = arrays(model)
    without = {name: values for name, values in held.items() if name != "fire5_expand3x3/bias"}
    nan = {**held, "conv1/bias": np.full_like(held["conv1/bias"], np.nan)}
    turned = {**held, "fire2_squeeze1x1/kernel": held["fire2_squeeze1x1/kernel"].swapaxes(2, 3)}
    files = {"without": without, "over": {**held, "fc/kernel": np.zeros(3)}, "nan": nan, "turned": turned}
    for name, content in files.items():
        np.savez(tmp_path / f"{name}.npz", **content)
    (tmp_path / "text.npz").write_text("weights")
    (tmp_path / "text.keras").write_text("weights")
    other = {"1.0": "1.1", "1.1": "1.0"}[model.version]
    dmkeras.SqueezeNet(other, num_classes=5).save(tmp_path / "other.keras")
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights(tmp_path / "dense.weights.h5")
    before = model.get_weights()
    for name, words in {
        "without.npz": r"does not fit SqueezeNet of 5 classes: it lacks fire5_expand3x3/bias.* \(1 missing, 0 over\)",
        "over.npz": "it holds fc/kernel, too",
        "nan.npz": "values in conv1/bias that cannot be weights",
        "turned.npz": r"fire2_squeeze1x1/kernel is \[1, 1, 16, \d+\], expected \[1, 1, \d+, 16\]",
        "text.npz": "is no .npz file",
        "text.keras": "does not fit SqueezeNet of 5 classes",
        "other.keras": "does not fit SqueezeNet of 5 classes",
        "dense.weights.h5": "does not fit SqueezeNet of 5 classes",
        "weights.h5": r"must be a file that ends in \.npz, \.keras, \.weights\.h5",
    }.items():
        with pytest.raises(ValueError, match=words):
            model.load_file(tmp_path / name)
        assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)), name
    with pytest.raises(FileNotFoundError, match="no file"):
        model.load_file(tmp_path / "absent.npz")
    with pytest.raises(ValueError, match=r"only an \.npz file can leave out conv10"):
        model.load_file(tmp_path / "other.keras", include_head=False)
    np.savez(tmp_path / "five.npz", **held)
    with pytest.raises(ValueError, match=r"conv10/kernel is \[1, 1, 512, 5\], expected \[1, 1, 512, 3\]"):
        dmkeras.SqueezeNet(model.version, num_classes=3, weights=tmp_path / "five.npz")


# --- the authors' weights ---------------------------------------------------------------------------------------------


@needs_weights
def test_photographs_are_what_they_show():
    pytest.importorskip("skimage", reason="the photographs are scikit-image's")
    subject = subjects.subject("squeezenet", WEIGHTS)
    names = ["Egyptian cat", "espresso", "tripod"]
    assert subject.classes.tolist() == [285, 967, 872]
    assert np.argmax(subject.classifier(subject.images), axis=1).tolist() == subject.classes.tolist()
    assert [subject.names[i] for i in subject.classes] in (names, [f"class {i}" for i in subject.classes])
    assert subject.images.shape == (3, 224, 224, 3)
    assert subject.boxes is None


@needs_weights
def test_torch_gives_the_same_logits_with_the_same_weights():
    torch = pytest.importorskip("torch", reason="the comparison needs the [peers] extra")
    held = dict(np.load(WEIGHTS).items())
    functional = torch.nn.functional

    def convolution(x, name, **options):
        kernel = torch.tensor(held[f"{name}/kernel"].transpose(3, 2, 0, 1).copy())
        return functional.relu(functional.conv2d(x, kernel, torch.tensor(held[f"{name}/bias"]), **options))

    images = RNG.uniform(size=(2, 227, 200, 3)).astype("float32")
    x = torch.tensor((255 * images[..., ::-1] - [104, 117, 123]).transpose(0, 3, 1, 2).astype("float32"))
    x = functional.max_pool2d(convolution(x, "conv1", stride=2), 3, 2, ceil_mode=True)
    for i in range(2, 10):
        x = convolution(x, f"fire{i}_squeeze1x1")
        x = torch.cat([convolution(x, f"fire{i}_expand1x1"), convolution(x, f"fire{i}_expand3x3", padding=1)], 1)
        x = functional.max_pool2d(x, 3, 2, ceil_mode=True) if i in (4, 8) else x
    expected = convolution(x, "conv10", padding=1).mean(dim=(2, 3)).numpy()
    found = dmkeras.SqueezeNet(weights=WEIGHTS)(images)
    print("largest difference of logits to torch:", np.abs(found - expected).max(), "of", np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
