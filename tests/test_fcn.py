"""What FCN owes beside the contract and its parts: the equations of its variants, stages, backbones, doors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import dmkeras
from dmkeras.parts import segmentation_metrics
from dmkeras.segmentation.fcn import FCN, enlarged

SHAPE, K = (40, 48, 3), 3


def small(variant="8s", filters=4, convolutions=(1, 1, 1, 1), **options):
    """An FCN of some thousand weights, strides 2, 4, 8."""
    backbone = dmkeras.Darknet19(SHAPE, None, filters, convolutions, momentum=0.9)
    return FCN(SHAPE, K, backbone, variant, **options)


def told(model, seed=0):
    """The same model with scores that are not zero."""
    rng = np.random.default_rng(seed)
    for layer in (model.score, *model.skips):
        for weight in layer.weights:
            weight.assign(rng.normal(0, 1, weight.shape))
    return model


def squares(count, seed=0, shape=SHAPE):
    """Pictures with two bright squares, of class 1 red, of class 2 green, and a void row."""
    rng = np.random.default_rng(seed)
    images = rng.uniform(0, 0.2, (count, *shape)).astype("float32")
    labels = np.zeros((count, *shape[:2]), "int32")
    for image, label in zip(images, labels):
        for kind in (1, 2):
            side = rng.integers(10, 20)
            y, x = (rng.integers(0, n - side) for n in shape[:2])
            image[y : y + side, x : x + side] = np.eye(3)[kind - 1]
            label[y : y + side, x : x + side] = kind
    labels[:, 0] = -1
    return images, labels


def up(maps, factor):
    """Bilinear interpolation between the middles of pixels, by NumPy: [h, w, K] -> [factor h, factor w, K]."""
    for axis in (0, 1):
        at = (np.arange(factor * maps.shape[axis]) + 0.5) / factor - 0.5
        line = lambda values, at=at: np.interp(at, np.arange(len(values)), values)
        maps = np.apply_along_axis(line, axis, maps)
    return maps


def scored(layer, maps):
    kernel, bias = layer.get_weights()
    return np.asarray(maps, "float64") @ kernel[0, 0] + bias


# --- the equations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1, 2, 3, 8])
def test_scores_are_made_large_bilinearly_up_to_the_border(factor):
    maps = np.random.default_rng(0).normal(size=(2, 4, 5, K)).astype("float32")
    large = enlarged(tf.constant(maps), factor)
    np.testing.assert_allclose(large, np.stack([up(one, factor) for one in maps]), atol=1e-5)
    np.testing.assert_allclose(large, tf.image.resize(maps, large.shape[1:3]), atol=1e-5)
    np.testing.assert_allclose(enlarged(tf.ones((1, 2, 3, K)), factor), np.ones((1, 2 * factor, 3 * factor, K)))


def test_each_variant_is_its_equation():
    images = squares(1)[0]
    for variant, scales in (("32s", (1.0, 1.0)), ("16s", (1.0, 1.0)), ("8s", (1.0, 1.0)), ("8s", (0.5, 0.25))):
        model = told(small(variant, pool_scales=scales))
        assert model.strides == (2, 4, 8)
        fine, middle, coarse = (maps[0] for maps in model.features(images).values())
        scores = scored(model.score, coarse)
        for skip, scale, maps in zip(model.skips, scales, (middle, fine)):
            scores = up(scores, 2) + scored(skip, scale * maps)
        np.testing.assert_allclose(model(images)[0], up(scores, SHAPE[0] // len(scores)), atol=1e-4)


def test_a_finer_net_answers_as_the_coarser_one_whose_weights_it_took():
    """Fixture 13: with zero score_pool3 and score_pool4 an FCN-8s composes bilinear kernels of the coarse scores."""
    images = squares(2)[0]
    coarse = told(small("32s"))
    score = np.stack([scored(coarse.score, one) for one in coarse.features(images)["stage_3"]])
    chain = coarse
    for variant, factors in (("16s", (2, 4)), ("8s", (2, 2, 2))):
        model = small(variant)
        assert np.abs(model(images)).max() == 0  # scores start at zero
        model.load_coarser(chain)
        expected = score
        for factor in factors:
            expected = np.stack([up(one, factor) for one in expected])
        np.testing.assert_allclose(model(images), expected, atol=1e-4)
        chain = model
    direct = small("8s")
    direct.load_coarser(coarse)
    np.testing.assert_allclose(direct(images), chain(images), atol=1e-6)
    assert 0 < np.abs(chain(images) - coarse(images)).max() < np.abs(coarse(images)).max() / 4  # in one step or three


def test_only_a_coarser_net_of_the_same_layers_gives_its_weights():
    with pytest.raises(ValueError, match="coarser than 16s, received one of 16s"):
        small("16s").load_coarser(small("16s"))
    with pytest.raises(ValueError, match="same layers"):
        small("16s").load_coarser(small("32s", filters=8))


def test_learned_upsampling_starts_bilinear_and_mixes_classes():
    images = squares(1)[0]
    fixed, learned = told(small()), told(small(learn_upsampling=True))
    learned.backbone.set_weights(fixed.backbone.get_weights())
    np.testing.assert_allclose(learned(images), fixed(images), atol=1e-4)
    assert [layer.kernel.shape for layer in learned.ups] == [(4, 4, K, K)] * 2
    assert not any("up_" in weight.path for weight in fixed.weights)


def test_the_head_is_the_classifiers_dense_layer_at_every_window():
    model = small(head_filters=5, head_size=3)
    maps = np.random.default_rng(0).normal(size=(1, 6, 7, 32)).astype("float32")
    kernel, bias = model.head[0].get_weights()
    dense = lambda window: np.maximum(window.ravel() @ kernel.reshape(-1, 5) + bias, 0)
    np.testing.assert_allclose(model.head[0](maps)[0, 2, 3], dense(maps[0, 1:4, 2:5]), atol=1e-4)


def test_dropout_is_in_training_alone():
    images = squares(1)[0]
    model = told(small(head_filters=16, dropout=0.5))
    np.testing.assert_array_equal(model(images), model(images))
    assert np.abs(model(images, training=True) - model(images, training=True)).max() > 0


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(40, 48), (37, 50), (5, 3)])
def test_pictures_of_any_size_are_answered_at_their_size(size):
    model = told(small())
    images = np.random.default_rng(0).uniform(size=(2, *size, 3)).astype("float32")
    scores = model(images)
    assert scores.shape == (2, *size, K)
    more = [(0, 0), (0, -size[0] % 8), (0, -size[1] % 8), (0, 0)]
    np.testing.assert_allclose(model(np.pad(images, more, mode="edge"))[:, : size[0], : size[1]], scores, atol=1e-5)
    classes = model.segment(images)
    np.testing.assert_array_equal(classes, np.argmax(scores, -1))
    np.testing.assert_array_equal(model.segment(images[1]), classes[1])
    np.testing.assert_allclose(model.probabilities(images), tf.nn.softmax(scores), atol=1e-6)


def test_an_answer_moves_with_its_picture_by_the_coarsest_stride():
    model = told(small())
    images = np.full((1, 128, 128, 3), 0.3, "float32")  # its border is seen up to 30 pixels inside
    images[:, 44:68, 44:68] = np.random.default_rng(0).uniform(size=(24, 24, 3))
    moved = np.roll(images, (8, 16), (1, 2))
    inside = lambda scores: np.asarray(scores)[:, 40:80, 40:80]
    shifted = np.roll(model(moved), (-8, -16), (1, 2))
    np.testing.assert_allclose(inside(shifted), inside(model(images)), atol=1e-4)


# --- backbones --------------------------------------------------------------------------------------------------------


def functional(channels=3, padding="same", name="tiny"):
    """In the manner of keras.applications: named layers, and a classifier that nobody needs."""
    maps = image = keras.Input((None, None, channels))
    for i, filters in enumerate((4, 6, 8, 8)):
        maps = keras.layers.Conv2D(filters, 3, 2, padding, activation="relu", name=f"block{i}")(maps)
    pooled = keras.layers.GlobalAveragePooling2D()(maps)
    return keras.Model(image, keras.layers.Dense(10, name="predictions")(pooled), name=name)


def test_a_functional_model_is_cut_at_its_layers_and_reloads(tmp_path):
    options = {"pool_scales": (0.5, 0.25), "head_filters": 5, "head_size": 3, "class_weights": (1, 2, 3)}
    model = told(FCN(SHAPE, K, functional(), stages=("block0", "block1", "block3"), **options))
    assert model.strides == (2, 4, 16)  # the scores of block3 are made large by 4, then by 2
    assert not any("predictions" in weight.path for weight in model.weights)
    images = squares(1)[0]
    model.save(tmp_path / "fcn.keras")
    again = dmkeras.load(tmp_path / "fcn.keras")
    np.testing.assert_array_equal(again(images), model(images))
    assert again.class_weights == (1, 2, 3)


def test_without_a_backbone_it_stands_on_the_last_stages_of_darknet19():
    model = FCN((64, 64, 3), 21, momentum=0.9)
    assert model.strides == (8, 16, 32)
    assert model.stages == ("stage_3", "stage_4", "stage_5")
    trunk = dmkeras.Darknet19((64, 64, 3), None).count_params()
    assert model.count_params() == trunk + 21 * (1024 + 512 + 256 + 3)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FCN(SHAPE, K, functional()), "stages="),
        (lambda: FCN(SHAPE, K, functional(), stages="block1"), "three names"),
        (lambda: FCN(SHAPE, K, functional(), stages=("block0", "block1", "block7")), "no layer block7"),
        (lambda: FCN(SHAPE, K, functional(), stages=("block2", "block1", "block0")), "finest first"),
        (lambda: FCN(SHAPE, K, functional(padding="valid"), stages=("block0", "block1", "block2")), "whole parts"),
        (lambda: FCN(SHAPE, K, functional(1), stages=("block0", "block1", "block2")), "received one that fails"),
        (lambda: FCN(SHAPE, K, lambda images: images), "a backbone with features"),
        (lambda: small(stages=("stage_0", "stage_1", "stage_9")), "received one that fails"),
        (lambda: small("4s"), "32s"),
        (lambda: small(class_weights=(1, 2)), "class_weights must be 3 numbers"),
        (lambda: small(pool_scales=0.1), "pool_scales"),
        (lambda: small(dropout=1.0), "dropout"),
        (lambda: FCN(SHAPE, 300), "at most 256"),
    ],
)
def test_settings_that_cannot_be_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained():
    """An FCN-8s trained in stages, and its mean IoU after each on pictures it has not seen."""
    keras.utils.set_random_seed(0)
    images, labels = squares(192)
    chain, found = None, {}
    for variant, rate in (("32s", 1e-2), ("16s", 3e-3), ("8s", 3e-3)):
        model = small(variant, filters=8, class_weights=(1, 2, 2))
        if chain:
            model.load_coarser(chain)
        model.compile(keras.optimizers.Adam(rate), jit_compile=False)
        history = model.fit(images, labels, batch_size=16, epochs=6 if chain else 12, verbose=0).history
        held_out = squares(40, seed=1)
        found[variant] = segmentation_metrics.mean_iou(held_out[1], model.segment(held_out[0]), K)
        chain = model
    return chain, history, found


def test_each_finer_net_finds_squares_better_than_the_coarser_one(trained):
    _, history, found = trained
    assert found["32s"] > 0.5
    assert found["32s"] + 0.03 < found["16s"] < found["8s"]
    assert found["8s"] > 0.9
    assert history["mean_iou"][-1] > 0.9
    assert history["loss"][-1] < history["loss"][0]


def test_the_loss_is_weighted_and_leaves_void_out(trained):
    model = trained[0]
    images, labels = squares(4, seed=2)
    z = np.asarray(model(images), "float64")
    log = z - np.log(np.exp(z).sum(-1, keepdims=True))
    nats = -np.take_along_axis(log, labels.clip(0)[..., None], -1)[..., 0]
    weights = np.where(labels < 0, 0, np.take([1, 2, 2], labels.clip(0)))
    expected = (weights * nats).sum() / weights.sum()
    assert model.evaluate(images, labels, verbose=0, return_dict=True)["loss"] == pytest.approx(expected, rel=1e-3)


def test_pictures_of_one_class_and_of_nothing_but_void_train():
    images, labels = squares(8)
    model = small()
    model.compile("sgd", jit_compile=False)
    for only in (np.zeros_like(labels), np.full_like(labels, -1)):
        history = model.fit(images, only, verbose=0).history
        assert np.isfinite(history["loss"][0])
    assert history["loss"][0] == history["mean_iou"][0] == 0
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_mixed_precision_trains_and_answers_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = small(head_filters=8)
    finally:
        keras.config.set_dtype_policy("float32")
    images, labels = squares(8)
    model.compile("sgd", jit_compile=False)
    assert np.isfinite(model.fit(images, labels, verbose=0).history["loss"][0])
    assert model.head[0].compute_dtype == "bfloat16"
    assert model(images).dtype == model.probabilities(images).dtype == "float32"


def test_segmentation_compiles_under_xla(trained):
    images = squares(2, seed=3)[0]
    compiled = tf.function(trained[0].probabilities, jit_compile=True)(tf.constant(images))
    np.testing.assert_allclose(compiled, trained[0].probabilities(images), atol=1e-4)


# --- doors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda labels: labels[:, :-1], "size of the pictures"),
        (lambda labels: labels[..., None], r"take labels\[\.\.\., 0\]"),
        (lambda labels: np.where(labels < 0, 255, labels), "labels == 255"),
        (lambda labels: labels.astype("float32"), "cast them"),
        (lambda labels: labels + 1, "from 0 to 3"),
        (lambda labels: {"semantic": labels}, "dict of semantic"),
    ],
)
def test_labels_that_cannot_be_are_refused(change, words):
    images, labels = squares(4)
    model = small()
    model.compile("sgd", jit_compile=False)
    data = tf.data.Dataset.from_tensor_slices((images, change(labels))).batch(2)
    for given in ((images, change(labels)), (data, None)):
        with pytest.raises(ValueError, match=words):
            model.fit(*given, verbose=0)


def test_pictures_that_cannot_be_are_refused():
    model = small()
    for images, words in (
        (np.zeros((1, 32, 48, 1)), "images"),
        (np.full((1, 32, 48, 3), 255.0), "divide 8-bit"),
        (np.zeros((32,)), "images"),
    ):
        for verb in (model.segment, model.probabilities):
            with pytest.raises(ValueError, match=words):
                verb(images)
