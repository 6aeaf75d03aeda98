"""Laws of Darknet-19: the paper's numbers, pictures of any size, its blocks, darknet's files."""

import io
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import dmkeras
from dmkeras.backbones.darknet19 import ConvBlock

SHAPE = (16, 12, 3)
IMAGES = np.random.default_rng(0).uniform(size=(5, *SHAPE)).astype("float32")
LABELS = np.array([0, 3, 1, 2, 3])
SMALL = {"image_shape": SHAPE, "num_classes": 4, "filters": 4, "convolutions": (1, 2, 3)}


def scattered(model):
    """The model with weights that no layer starts with, so that one left out or mixed up is seen."""
    generator = np.random.default_rng(1)
    for weight in model.weights:
        low = 0.5 if "variance" in weight.path or "gamma" in weight.path else -0.5
        weight.assign(generator.uniform(low, low + 1, weight.shape))
    return model


@pytest.fixture(scope="module")
def model():
    return scattered(dmkeras.Darknet19(**SMALL))


@pytest.fixture(scope="module")
def paper():
    return dmkeras.Darknet19()


# --- the paper's network --------------------------------------------------------------------------------------------

TABLE_6 = """3x3x32 M 3x3x64 M 3x3x128 1x1x64 3x3x128 M 3x3x256 1x1x128 3x3x256 M
3x3x512 1x1x256 3x3x512 1x1x256 3x3x512 M 3x3x1024 1x1x512 3x3x1024 1x1x512 3x3x1024 1x1x1000"""


def test_the_layers_are_those_of_table_6(paper):
    stages = [[block.conv for block in blocks] for blocks in paper.stages]
    rows = [" ".join("{0}x{1}x{3}".format(*conv.kernel.shape) for conv in convs) for convs in stages]
    head = "{0}x{1}x{3}".format(*paper.head.kernel.shape)
    assert f"{' M '.join(rows)} {head}" == " ".join(TABLE_6.split())
    convolutions = [layer for layer in paper._flatten_layers() if isinstance(layer, keras.layers.Conv2D)]
    assert len(convolutions) == 19
    assert len(paper.stages) - 1 == 5  # a pooling between two


def test_weights_and_operations_are_the_papers(paper):
    assert sum(int(np.prod(weight.shape)) for weight in paper.trainable_weights) == 20_842_376
    outline = tf.function(paper.features).get_concrete_function(tf.TensorSpec((1, 224, 224, 3)))
    shapes = outline.output_shapes
    assert [shapes[f"stage_{i}"].as_list()[1:] for i in range(6)] == [
        [224 // 2**i, 224 // 2**i, 32 * 2**i] for i in range(6)
    ]
    sides = [shapes[f"stage_{i}"][1] for i, blocks in enumerate(paper.stages) for _ in blocks]
    kernels = [block.conv.kernel for blocks in paper.stages for block in blocks]
    operations = sum(2 * side**2 * np.prod(kernel.shape) for side, kernel in zip(sides, kernels, strict=True))
    operations += 2 * 7**2 * np.prod(paper.head.kernel.shape)
    assert round(operations / 1e9, 2) == 5.58


# --- what it computes -----------------------------------------------------------------------------------------------


def halved(maps):
    """The largest of each 2x2, a last odd row or column alone, as maxpool_layer.c."""
    maps = np.pad(maps, ((0, 0), (0, maps.shape[1] % 2), (0, maps.shape[2] % 2), (0, 0)), constant_values=-np.inf)
    batch, height, width, channels = maps.shape
    return maps.reshape(batch, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))


@pytest.mark.parametrize("sides", [(16, 12), (15, 13), (5, 1), (1, 1)])
def test_stages_stand_between_poolings_and_logits_are_the_mean_of_the_heads_maps(model, sides):
    images = np.random.default_rng(2).uniform(size=(2, *sides, 3)).astype("float32")
    found = {name: maps.numpy() for name, maps in model.features(images).items()}
    assert list(found) == ["stage_0", "stage_1", "stage_2"]
    maps = images
    for i, blocks in enumerate(model.stages):
        maps = halved(maps) if i else maps
        for block in blocks:
            maps = block(maps).numpy()
        np.testing.assert_allclose(found[f"stage_{i}"], maps, rtol=1e-4, atol=1e-4)
    head = maps @ model.head.kernel.numpy()[0, 0] + model.head.bias.numpy()
    np.testing.assert_allclose(model(images), head.mean(axis=(1, 2)), rtol=1e-4, atol=1e-4)
    wrong = (maps @ model.head.kernel.numpy()[0, 0] + model.head.bias.numpy()).max(axis=(1, 2))
    assert sides in [(5, 1), (1, 1)] or np.abs(wrong - model(images)).max() > 1e-2


def test_maps_move_with_the_picture(model):
    """Fully convolutional: a shift by the stride, here 4, shifts the last maps by one cell, away from the edges."""
    images = np.zeros((1, 48, 48, 3), "float32")
    images[:, 16:32, 16:32] = np.random.default_rng(3).uniform(size=(16, 16, 3))
    here, there = (model.features(x)["stage_2"].numpy() for x in (images, np.roll(images, 4, axis=2)))
    np.testing.assert_allclose(here[:, 3:9, 3:8], there[:, 3:9, 4:9], rtol=1e-4, atol=1e-4)
    odd = model.features(np.roll(images, 3, axis=2))["stage_2"].numpy()
    assert np.abs(here[:, 3:9, 3:8] - odd[:, 3:9, 4:9]).max() > 1e-2


@pytest.mark.parametrize("batch_norm", [True, False])
def test_a_block_is_convolution_normalization_and_leaky_rectifier(batch_norm):
    block = ConvBlock(3, 1, batch_norm, leaky_slope=0.25)
    maps = np.random.default_rng(4).normal(2, 3, size=(4, 5, 6, 2)).astype("float32")
    block(maps)
    scattered(block)
    a = maps @ block.conv.kernel.numpy()[0, 0]
    if batch_norm:
        assert not block.conv.use_bias
        before = block.bn.moving_mean.numpy()
        still = (a - before) / np.sqrt(block.bn.moving_variance + 1e-5) * block.bn.gamma + block.bn.beta
        mean, variance = a.mean(axis=(0, 1, 2)), a.var(axis=(0, 1, 2))
        moved = (a - mean) / np.sqrt(variance + 1e-5) * block.bn.gamma + block.bn.beta
    else:
        assert block.bn is None
        still = moved = a + block.conv.bias.numpy()
    for training, expected in ((False, still), (True, moved)):
        expected = np.where(expected > 0, expected, 0.25 * expected)
        np.testing.assert_allclose(block(maps, training=training), expected, rtol=1e-3, atol=1e-4)
    if batch_norm:
        np.testing.assert_allclose(block.bn.moving_mean, 0.99 * before + 0.01 * mean, rtol=1e-4, atol=1e-5)


def test_the_loss_is_the_cross_entropy_and_accuracy_counts_the_right_answers(model):
    logits = model(IMAGES).numpy().astype("float64")
    nats = np.log(np.exp(logits).sum(axis=1)) - logits[range(5), LABELS]
    weight = np.arange(5.0)
    loss = lambda **more: model.compute_loss(x=IMAGES, y_pred=logits.astype("float32"), **more)
    np.testing.assert_allclose(loss(y=LABELS), nats.mean(), rtol=1e-5)
    np.testing.assert_allclose(loss(y=LABELS[:, None]), nats.mean(), rtol=1e-5)
    np.testing.assert_allclose(loss(y=LABELS, sample_weight=weight), (weight * nats).mean(), rtol=1e-5)
    model.compile("sgd")
    found = model.evaluate(IMAGES, LABELS, batch_size=2, verbose=0, return_dict=True)
    np.testing.assert_allclose(found["loss"], nats.mean(), rtol=1e-5)
    np.testing.assert_allclose(found["accuracy"], (logits.argmax(axis=1) == LABELS).mean(), rtol=1e-6)


def test_it_learns_at_one_size_and_tells_the_same_at_twice_that_size():
    keras.utils.set_random_seed(0)
    model = dmkeras.Darknet19(**{**SMALL, "convolutions": (1, 2)}, momentum=0.5)
    labels = np.arange(40) % 4
    images = np.random.default_rng(5).uniform(size=(40, 8, 8, 3)).astype("float32") / 4
    images[..., 0] += (labels // 2)[:, None, None] / 2  # the class is a colour
    images[..., 1] += (labels % 2)[:, None, None] / 2
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9))
    model.fit(images, labels, epochs=12, batch_size=20, verbose=0)
    for pictures in (images, images.repeat(2, axis=1).repeat(2, axis=2)):
        assert (model(pictures).numpy().argmax(axis=1) == labels).mean() > 0.9


# --- files, configuration, endpoints --------------------------------------------------------------------------------


def test_weights_of_darknet_are_written_and_read_with_and_without_the_head(model, tmp_path):
    model.save_darknet_weights(tmp_path / "whole", seen=2**33)
    model.save_darknet_weights(tmp_path / "cut", include_head=False)
    twin = dmkeras.Darknet19(**SMALL)
    assert twin.load_darknet_weights(tmp_path / "whole") == 2**33
    np.testing.assert_array_equal(twin(IMAGES), model(IMAGES))
    other = dmkeras.Darknet19(**{**SMALL, "num_classes": 9})
    other.load_darknet_weights(tmp_path / "cut", include_head=False)
    np.testing.assert_array_equal(other.features(IMAGES)["stage_2"], model.features(IMAGES)["stage_2"])
    with pytest.raises(
        ValueError, match=r"expected \d+ of 7 convolutions: it ends before head, number 7; .*include_head"
    ):
        other.load_darknet_weights(tmp_path / "cut")
    with pytest.raises(ValueError, match=r"left over after stage_2_block_2"):
        other.load_darknet_weights(tmp_path / "whole", include_head=False)
    with pytest.raises(ValueError, match=r"it ends within head"):
        other.load_darknet_weights(tmp_path / "whole")


@pytest.mark.parametrize("batch_norm", [True, False])
def test_the_configuration_makes_the_same_model_again(batch_norm):
    own = {"batch_norm": batch_norm, "leaky_slope": 0.2, "momentum": 0.9}
    model = scattered(dmkeras.Darknet19(**SMALL, **own))
    config = json.loads(json.dumps(model.get_config()))
    assert config.items() >= {"num_classes": 4, "filters": 4, "convolutions": [1, 2, 3], **own}.items()
    twin = dmkeras.Darknet19.from_config(config)
    twin.set_weights(model.get_weights())
    np.testing.assert_array_equal(twin(IMAGES), model(IMAGES))
    block = model.stages[2][1]
    assert ConvBlock.from_config(block.get_config()).get_config() == block.get_config()
    assert block.get_config().items() >= {"filters": 8, "kernel_size": 1, **own}.items()


def test_logits_are_float32_under_mixed_precision_and_training_is_finite():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = dmkeras.Darknet19(**SMALL)
    finally:
        keras.config.set_dtype_policy(policy)
    assert model.features(IMAGES)["stage_2"].dtype == "bfloat16"
    assert model.stages[0][0].bn.compute_dtype == "bfloat16"
    assert model(IMAGES).dtype == "float32"
    model.compile("sgd")
    assert np.isfinite(model.fit(IMAGES, LABELS, verbose=0).history["loss"][0])


def test_files_of_any_size_are_classified_as_the_pictures_in_them(model):
    generator, files, pictures = np.random.default_rng(6), [], []
    for shape in ((16, 12, 3), (31, 9, 3), (20, 20)):
        pixels = generator.integers(0, 256, shape, np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "png")
        files.append(file.getvalue())
        image = np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels
        pictures.append(tf.image.resize(image / 255.0, SHAPE[:2], antialias=True))
    signatures = model.signatures()
    answer = tf.function(signatures["classify_bytes"][0])(tf.constant(files))
    expected = signatures["serving_default"][0](tf.clip_by_value(tf.cast(pictures, "float32"), 0, 1))
    np.testing.assert_allclose(answer["logits"], expected["logits"], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(answer["probabilities"].numpy().sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(expected["logits"], model(np.stack(pictures)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_shape": (8, 8)}, r"image_shape must be \(height, width, channels\), received \(8, 8\)"),
        ({"num_classes": 1}, "num_classes must be at least 2"),
        ({"filters": 1}, "filters must be at least 2"),
        ({"filters": 4.5}, "filters must be a whole number"),
        ({"convolutions": ()}, "convolutions must be a tuple of one number a stage"),
        ({"convolutions": 3}, "convolutions must be a tuple of one number a stage"),
        ({"convolutions": (1, 0)}, "convolutions must be at least 1"),
        ({"leaky_slope": 1}, "leaky_slope must be at least 0 and less than 1"),
        ({"momentum": "0.9"}, "momentum must be a number"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        dmkeras.Darknet19(**{**SMALL, **arguments})


def test_bad_pictures_are_refused(model):
    model.compile("sgd")
    for bad, message in (
        (255 * IMAGES, "divide 8-bit pixels by 255"),
        (IMAGES[..., :1], r"expected images \[B, 16, 12, 3\], received \[5, 16, 12, 1\]"),
        (IMAGES[0], "expected images"),
    ):
        for door in (model.features, model.evaluate):
            with pytest.raises(ValueError, match=message):
                door(bad)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.eye(4)[LABELS], r"expected whole-numbered labels \[B\], received \[5, 4\] of float64; one-hot rows"),
        (LABELS + 1, "expected labels from 0 to 3, received 1 to 4"),
        (LABELS - 1, "expected labels from 0 to 3, received -1 to 2"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels, message, model):
    model.compile("sgd")
    for door in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match=message):
            door(IMAGES, labels, verbose=0)


def test_stages_without_a_head_are_no_classifier_to_train():
    stages = dmkeras.Darknet19((8, 8, 3), None, 2, (1, 1))
    with pytest.raises(ValueError, match="received stages alone"):
        stages.fit(np.zeros((1, 8, 8, 3), "float32"), np.zeros(1, "int32"))
