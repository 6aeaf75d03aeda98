"""What the encoder and decoder owes beside the contract and its upsamplings (tests/parts/test_upsampling.py)."""

import io
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from dmkeras.segmentation.encoder_decoder import UPSAMPLINGS, EncoderDecoder

SHAPE = (16, 24, 3)


def small(unpooling="max", filters=(4, 6), convolutions=(1, 2), **options):
    """Two stages, so that the stride is 4."""
    keras.utils.set_random_seed(0)
    return EncoderDecoder(SHAPE, 3, unpooling, filters, convolutions, momentum=0.9, **options)


@pytest.fixture(scope="module")
def models():
    """One of each kind, with weights that are the same where both have them."""
    return {unpooling: small(unpooling) for unpooling in UPSAMPLINGS}


def squares(count, seed=0, shape=SHAPE):
    """Pictures with two bright squares, green of class 1 and blue of class 2, and their labels."""
    rng = np.random.default_rng(seed)
    images = rng.uniform(0, 0.3, (count, *shape)).astype("float32")
    labels = np.zeros((count, *shape[:2]), "int32")
    for image, kind in itertools.product(images, (1, 2)):
        side = rng.integers(4, 8)
        y, x = rng.integers(0, shape[0] - side), rng.integers(0, shape[1] - side)
        image[y : y + side, x : x + side, kind] = 1
    green, blue = images[..., 1] == 1, images[..., 2] == 1
    labels[green], labels[blue] = 1, 2
    return images, labels


@pytest.fixture(scope="module")
def trained():
    """A small network that has seen enough to find squares, and what it told on the way."""
    model = small(filters=(8, 12))
    images, labels = squares(160)
    labels[:, 0] = -1
    model.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    return model, model.fit(images, labels, batch_size=16, epochs=15, verbose=0).history


# --- what the papers say --------------------------------------------------------------------------------------------


def test_segnet_has_its_size():
    """Twice the thirteen convolutions of VGG-16, the decoder's in the encoder's order turned round."""
    model = EncoderDecoder()
    stages = zip(model.filters, model.convolutions)
    encoder = [3, *itertools.chain(*([maps] * count for maps, count in stages))]
    pairs = list(itertools.pairwise(encoder))
    block = lambda before, after: 9 * before * after + 4 * after
    decoder = [block(after, before) for before, after in pairs[1:]]
    assert len(pairs) == 13
    assert model.count_params() == sum(itertools.starmap(block, pairs)) + sum(decoder) + 9 * 64 * 11 + 11
    assert not model.upsamplings[0].weights


@pytest.mark.parametrize("unpooling", UPSAMPLINGS)
@pytest.mark.parametrize("sides", [(16, 24), (13, 22), (5, 40), (1, 1)])
def test_pictures_of_any_size_are_answered_pixel_by_pixel(models, unpooling, sides):
    images = np.random.default_rng(0).random((2, *sides, 3), "float32")
    assert models[unpooling](images).shape == (2, *sides, 3)
    graph = tf.function(models[unpooling], input_signature=[tf.TensorSpec((None, None, None, 3))], autograph=False)
    np.testing.assert_allclose(graph(images), models[unpooling](images), rtol=1e-4, atol=1e-5)


def test_the_four_differ_in_their_upsampling_alone(models):
    images = squares(2)[0]
    for one, other in itertools.combinations(models, 2):
        assert np.abs(models[one](images) - models[other](images)).max() > 1e-3
    shapes = [[w.shape for w in model.weights if "upsampling" not in w.path] for model in models.values()]
    assert all(others == shapes[0] for others in shapes)
    counts = {unpooling: model.count_params() for unpooling, model in models.items()}
    assert counts["nearest"] == counts["bed_of_nails"] == counts["max"]
    assert counts["transposed"] - counts["max"] == 16 * (4**2 + 6**2)


def test_the_decoder_puts_maxima_where_the_encoder_found_them(models):
    """Positions move the answer of "max" alone; the maps before pooling move none."""
    images = squares(2)[0]
    for unpooling, model in models.items():
        maps, trail = model.encode(images)
        turned = [((positions + 1) % 4, before) for positions, before in trail]
        without = [(positions, tf.zeros_like(before)) for positions, before in trail]
        answer = model.decode(maps, trail)
        np.testing.assert_array_equal(model.decode(maps, without), answer)
        assert np.array_equal(model.decode(maps, turned), answer) == (unpooling != "max")


def test_which_pixel_of_a_window_is_brightest_reaches_the_answer_by_its_position():
    """One stage whose kernels copy: a spot comes back at its own pixel, and elsewhere only by "max"."""
    found = {}
    for unpooling in ("max", "nearest", "bed_of_nails"):
        model = EncoderDecoder((4, 4, 1), 2, unpooling, (1,), (1,))
        copy = np.zeros((3, 3, 1, 1), "float32")
        copy[1, 1] = 1
        model.encoder[0][0].conv.kernel.assign(copy)
        model.classifier.kernel.assign(np.concatenate([copy * 0, copy], -1))
        spots = np.zeros((4, 4, 4, 1), "float32")
        for k, spot in enumerate(spots):
            spot[2 + k // 2, k % 2] = 1
        found[unpooling] = model(spots)[..., 1].numpy()
    places = [tuple(np.argwhere(answer > 0.1)[0]) for answer in found["max"]]
    assert places == [(2, 0), (2, 1), (3, 0), (3, 1)]
    for unpooling in ("nearest", "bed_of_nails"):
        np.testing.assert_array_equal(found[unpooling], found[unpooling][:1].repeat(4, 0))


@pytest.mark.parametrize("unpooling", UPSAMPLINGS)
def test_with_kernels_that_are_their_mirror_images_flipping_the_picture_flips_the_answer(unpooling):
    """All but nails, which stand at the left of their windows. So would maxima in windows of nothing but zeros."""
    model = small(unpooling)
    for block in itertools.chain(*model.encoder):
        block.bn.beta.assign(block.bn.beta + 5)  # nothing is cut off: no window has two maxima
    for weight in model.weights:
        if len(weight.shape) == 4:
            weight.assign((weight + weight[:, ::-1]) / 2)
    images = np.random.default_rng(1).random((2, *SHAPE), "float32")
    difference = np.abs(model(images[:, :, ::-1])[:, :, ::-1] - model(images)).max()
    assert (difference < 1e-4) == (unpooling != "bed_of_nails")


@pytest.mark.parametrize("unpooling", UPSAMPLINGS)
def test_a_picture_moved_by_the_stride_moves_the_answer(models, unpooling):
    large = np.random.default_rng(2).random((1, 48, 64, 3), "float32")
    here, moved = models[unpooling](large[:, :40, :60]), models[unpooling](large[:, 4:44, 4:64])
    inside = slice(16, -16)
    np.testing.assert_allclose(here[:, 4:, 4:][:, inside, inside], moved[:, :-4, :-4][:, inside, inside], atol=1e-4)
    askew = models[unpooling](large[:, 1:41, 1:61])
    assert np.abs(here[:, 1:, 1:] - askew[:, :-1, :-1])[:, inside, inside].max() > 1e-3


# --- training -------------------------------------------------------------------------------------------------------


def test_it_learns_which_pixels_are_green_and_which_blue(trained):
    model, history = trained
    images, labels = squares(40, seed=1)
    assert np.mean(model.segment(images) == labels) > 0.95
    assert history["mean_iou"][-1] > history["mean_iou"][0] + 0.1
    assert history["loss"][-1] < history["loss"][0]


def test_the_loss_is_the_weighted_mean_over_pixels_that_have_an_answer():
    model = small("nearest", filters=(2,), convolutions=(1,), class_weights=(1, 4, 0.5))
    images, labels = squares(4)
    labels[:, 3:9] = -1
    scores = model(images).numpy()
    weights = np.array([1, 4, 0.5, 0])[labels] * np.arange(1, 5)[:, None, None]  # class -1 takes the last
    log = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    losses = -np.take_along_axis(log, np.maximum(labels, 0)[..., None], -1)[..., 0]
    loss = lambda scores: model.compute_loss(images, labels, scores, np.arange(1, 5))
    np.testing.assert_allclose(loss(scores), (weights * losses).sum() / weights.sum(), rtol=1e-5)
    changed = scores + np.where(labels == -1, 9 * np.random.default_rng(0).normal(size=labels.shape), 0)[..., None]
    changed[..., 0] += 5.0 * (labels == -1)
    np.testing.assert_allclose(loss(changed.astype("float32")), loss(scores), rtol=1e-6)


def test_pictures_without_any_answer_do_not_move_the_weights():
    model = small("transposed", filters=(2,), convolutions=(1,))
    images, void = squares(4)[0], np.full((4, *SHAPE[:2]), -1)
    with tf.GradientTape() as tape:
        loss = model.compute_loss(images, void, model(images, training=True))
    assert loss == 0
    assert not any(np.any(gradient) for gradient in tape.gradient(loss, model.trainable_variables))


@pytest.mark.parametrize("unpooling", UPSAMPLINGS)
def test_mixed_precision_answers_in_float32(unpooling):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = small(unpooling)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.encode(squares(1)[0])[0].dtype == "bfloat16"
    assert model(squares(1)[0]).dtype == "float32"
    assert model.probabilities(squares(1)[0]).dtype == "float32"


def test_segmentation_compiles_under_xla(trained):
    images = tf.constant(squares(2, seed=3)[0])
    compiled = tf.function(trained[0], jit_compile=True)(images)
    np.testing.assert_allclose(compiled, trained[0](images), rtol=1e-3, atol=1e-3)


# --- endpoints and doors --------------------------------------------------------------------------------------------


def test_class_maps_come_back_as_files_of_the_size_of_the_pictures(trained):
    model, files, expected = trained[0], [], []
    for i, sides in enumerate([(16, 24), (21, 33), (7, 5)]):
        levels = np.uint8(255 * squares(1, seed=i, shape=(30, 40, 3))[0][0, : sides[0], : sides[1]])
        file = io.BytesIO()
        Image.fromarray(levels).save(file, "PNG")
        files.append(file.getvalue())
        expected.append((levels, model.segment(levels / np.float32(255))))
    answer, specs = model.signatures()["segment_bytes"]
    found = answer(tf.constant(files))
    assert [spec.name for spec in specs] == ["image_bytes"]
    opened = lambda bytes_: np.array(Image.open(io.BytesIO(bytes_)))
    for class_map, overlay, (levels, classes) in zip(
        *(found[f"{n}_bytes"].numpy() for n in ("class_map", "overlay")), expected
    ):
        np.testing.assert_array_equal(opened(class_map), classes)
        np.testing.assert_array_equal(opened(overlay)[classes == 0], levels[classes == 0])
    assert any(classes.numpy().any() for _, classes in expected)
    plain = model.signatures()["segment"][0](tf.constant(squares(3)[0]))
    np.testing.assert_array_equal(plain["classes"], model.segment(squares(3)[0]))
    np.testing.assert_allclose(plain["scores"], model.probabilities(squares(3)[0]).numpy().max(-1), rtol=1e-5)


def test_one_picture_is_answered_as_in_a_batch(trained):
    images = squares(3)[0]
    assert trained[0].segment(images[1]).shape == SHAPE[:2]
    np.testing.assert_array_equal(trained[0].segment(images[1]), trained[0].segment(images)[1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"unpooling": "bilinear"}, "'nearest', 'bed_of_nails', 'max', 'transposed', received 'bilinear'"),
        ({"filters": (4,)}, r"a number of each stage, received filters=\(4,\), convolutions=\(1, 2\)"),
        ({"filters": (), "convolutions": ()}, "a number of each stage"),
        ({"filters": 4}, "a number of each stage"),
        ({"convolutions": (1, 0)}, "convolutions must be at least 1"),
        ({"class_weights": (1, 2)}, "class_weights must be 3 numbers"),
        ({"class_weights": (1, 2, -1)}, "class_weights must be 3 numbers"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        small(**options)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda labels: labels[..., None], "take labels"),
        (lambda labels: labels.astype("float32"), "whole numbers"),
        (lambda labels: labels + 1, "from -1 .void. to 2"),
        (lambda labels: np.where(labels == 1, 255, labels), "void is -1 here"),
        (lambda labels: labels[:, :8], "of the size of the pictures"),
    ],
)
def test_labels_that_cannot_be_are_refused(models, change, words):
    images, labels = squares(4)
    model = models["nearest"]
    model.compile("sgd", jit_compile=False)
    with pytest.raises(ValueError, match=words):
        model.fit(images, change(labels), verbose=0)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((1, 16, 24, 1)), "images"),
        (np.full((1, 16, 24, 3), 255.0), "divide 8-bit"),
        (np.zeros((24,)), "images"),
        (np.full((1, 16, 24, 3), np.nan), "not finite"),
    ],
)
def test_pictures_that_cannot_be_are_refused(models, images, words):
    with pytest.raises(ValueError, match=words):
        models["max"].segment(images)
