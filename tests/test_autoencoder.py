"""Laws of the autoencoder, and of the linear probe of its code."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import dmkeras
from dmkeras.generative import autoencoder

SHAPE = (3, 4, 1)
IMAGES = np.random.default_rng(0).uniform(size=(7, *SHAPE)).astype("float32")


@pytest.fixture(scope="module", params=autoencoder.OBJECTIVES)
def model(request):
    keras.utils.set_random_seed(0)
    return dmkeras.Autoencoder(SHAPE, 5, (8, 6), objective=request.param, noise=0.5, code_activation="relu")


def linear(latent_size, noise=0.0):
    return dmkeras.Autoencoder(SHAPE, latent_size, (), objective="squared_error", noise=noise)


def kernels(network):
    return [layer.kernel.shape for layer in network.layers if hasattr(layer, "kernel")]


def test_call_is_the_decoder_of_the_code_and_reconstruct_shows_it_as_pixels(model):
    outputs = model(IMAGES).numpy()
    z = model.encode(IMAGES)
    np.testing.assert_allclose(model.decoder(z), outputs, rtol=1e-6, atol=1e-6)
    pixels = 1 / (1 + np.exp(-outputs)) if model.objective == "cross_entropy" else np.clip(outputs, 0, 1)
    signatures = model.signatures()
    for images in (
        model.reconstruct(IMAGES),
        model.decode(z),
        signatures["serving_default"][0](IMAGES)["images"],
        signatures["decode"][0](signatures["encode"][0](IMAGES)["z"])["images"],
    ):
        np.testing.assert_allclose(images, pixels, rtol=1e-5, atol=1e-6)
    assert (z.numpy() >= 0).all()  # the rectified code


def test_the_loss_is_the_sum_over_pixels_averaged_over_pictures(model):
    y = model(IMAGES).numpy().astype("float64")
    if model.objective == "cross_entropy":
        pixel = -IMAGES * np.log(1 / (1 + np.exp(-y))) - (1 - IMAGES) * np.log(1 / (1 + np.exp(y)))
    else:
        pixel = (IMAGES - y) ** 2
    per_picture, weight = pixel.sum(axis=(1, 2, 3)), np.arange(7.0)
    np.testing.assert_allclose(model.compute_loss(x=IMAGES, y_pred=y.astype("float32")), per_picture.mean(), rtol=1e-5)
    weighted = model.compute_loss(x=IMAGES, y_pred=y.astype("float32"), sample_weight=weight)
    np.testing.assert_allclose(weighted, (weight * per_picture).mean(), rtol=1e-5)
    model.compile("sgd")
    np.testing.assert_allclose(model.evaluate(IMAGES, verbose=0), per_picture.mean(), rtol=1e-5)


def principal_solution(components):
    """A linear autoencoder that keeps the given principal components of correlated data, and what it discards."""
    generator = np.random.default_rng(1)
    x = generator.normal(size=(500, 12)) @ np.diag(1.5 ** -np.arange(12.0)) @ generator.normal(size=(12, 12))
    x = (0.5 + 0.1 * x).astype("float32")
    mean, (values, vectors) = x.mean(axis=0), np.linalg.eigh(np.cov(x.T, bias=True))
    order = np.argsort(values)[::-1]
    kept = vectors[:, order[components]].astype("float32")
    model = linear(kept.shape[1])
    model.encoder.layers[-1].set_weights([kept, -mean @ kept])
    model.decoder.layers[-2].set_weights([kept.T, mean])
    return model, x.reshape(-1, *SHAPE), values.sum() - values[order[components]].sum()


def loss_and_gradient(model, images):
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x=images, y_pred=model(images))
    return float(loss), max(float(tf.reduce_max(tf.abs(g))) for g in tape.gradient(loss, model.trainable_variables))


def test_the_principal_components_are_the_best_linear_code():
    model, images, discarded = principal_solution([0, 1, 2])
    loss, gradient = loss_and_gradient(model, images)
    np.testing.assert_allclose(loss, discarded, rtol=1e-4)
    assert gradient < 1e-4
    weights, generator = model.get_weights(), np.random.default_rng(2)
    for _ in range(20):
        model.set_weights([w + 0.03 * generator.normal(size=w.shape) for w in weights])
        assert loss_and_gradient(model, images)[0] > loss


def test_other_components_are_saddles_and_other_subspaces_are_not_even_that():
    best = loss_and_gradient(*principal_solution([0, 1, 2])[:2])[0]
    model, images, discarded = principal_solution([0, 1, 3])  # Baldi and Hornik: all other critical points are saddles
    loss, gradient = loss_and_gradient(model, images)
    np.testing.assert_allclose(loss, discarded, rtol=1e-4)
    assert gradient < 1e-4
    assert loss > best
    turned = np.linalg.qr(np.random.default_rng(3).normal(size=(12, 3)))[0].astype("float32")
    model.encoder.layers[-1].kernel.assign(turned)
    assert loss_and_gradient(model, images)[1] > 1e-2


def test_noise_is_on_the_input_in_training_alone_and_the_loss_is_against_the_clean_picture():
    model = linear(12, noise=0.3)
    model.encoder.layers[-1].set_weights([np.eye(12), np.zeros(12)])
    model.decoder.layers[-2].set_weights([np.eye(12), np.zeros(12)])
    images = np.full((4000, *SHAPE), 0.5, "float32")
    model.compile(keras.optimizers.SGD(0.0))
    loss = model.fit(images, batch_size=4000, verbose=0).history["loss"][0]
    np.testing.assert_allclose(loss, 12 * 0.3**2, rtol=0.05)  # the identity pays the variance of the noise
    assert model.evaluate(images, batch_size=4000, verbose=0) < 1e-9
    assert (model.encode(IMAGES).numpy() == model.encode(IMAGES).numpy()).all()
    quiet = linear(12)
    np.testing.assert_array_equal(quiet(IMAGES, training=True), quiet(IMAGES, training=False))


@pytest.mark.parametrize(
    ("hidden_size", "encoder", "decoder"),
    [
        (8, [(12, 8), (8, 5)], [(5, 8), (8, 12)]),
        ((8,), [(12, 8), (8, 5)], [(5, 8), (8, 12)]),
        ((9, 7), [(12, 9), (9, 7), (7, 5)], [(5, 7), (7, 9), (9, 12)]),
        ((), [(12, 5)], [(5, 12)]),
    ],
)
def test_the_decoder_mirrors_the_encoder(hidden_size, encoder, decoder):
    model = dmkeras.Autoencoder(SHAPE, 5, hidden_size)
    assert kernels(model.encoder) == encoder
    assert kernels(model.decoder) == decoder


def test_the_configuration_makes_the_same_model_again(model):
    config = json.loads(json.dumps(model.get_config()))
    twin = dmkeras.Autoencoder.from_config(config)
    assert json.loads(json.dumps(twin.get_config())) == config
    assert config.items() >= {"latent_size": 5, "hidden_size": [8, 6], "noise": 0.5, "code_activation": "relu"}.items()
    twin.set_weights(model.get_weights())
    np.testing.assert_array_equal(twin(IMAGES), model(IMAGES))


def test_every_endpoint_answers_in_float32_under_mixed_precision():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = dmkeras.Autoencoder(SHAPE, 5, 8)
    finally:
        keras.config.set_dtype_policy(policy)
    assert model.encoder.layers[-1].compute_dtype == "bfloat16"
    assert model(IMAGES).dtype == "float32"
    for function, (spec,) in model.signatures().values():
        (answer,) = function(tf.zeros([2, *spec.shape[1:]], spec.dtype)).values()
        assert answer.dtype == "float32"
    model.compile("sgd")
    assert np.isfinite(model.fit(IMAGES, verbose=0).history["loss"][0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_shape": (8, 8)}, r"image_shape must be \(height, width, channels\), received \(8, 8\)"),
        ({"image_shape": (8, 0, 1)}, "image_shape"),
        ({"latent_size": 0}, "latent_size=0"),
        ({"hidden_size": (8, 0)}, r"hidden_size=\(8, 0\)"),
        ({"hidden_size": "12"}, "whole numbers"),
        ({"latent_size": 2.5}, "whole numbers"),
        ({"objective": "mse"}, "one of cross_entropy, squared_error; received 'mse'"),
        ({"noise": 40}, r"noise must be in \[0, 1\]"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        dmkeras.Autoencoder(**{"image_shape": SHAPE, **arguments})


def test_bad_pictures_and_codes_are_refused(model):
    with pytest.raises(ValueError, match=r"expected images \[B, 3, 4, 1\], received \[7, 4, 3, 1\]"):
        model.encode(IMAGES.reshape(7, 4, 3, 1))
    with pytest.raises(ValueError, match=r"expected z \[B, 5\], received \[1, 6\]"):
        model.decode(np.zeros((1, 6), "float32"))
    model.compile(keras.optimizers.SGD(0.0))
    with pytest.raises(ValueError, match=r"expected images \[B, 3, 4, 1\]"):
        model.fit(IMAGES[:, :2], verbose=0)
    if model.objective == "cross_entropy":
        for bad, message in (
            (255 * IMAGES, "divide 8-bit pixels by 255"),
            (np.full_like(IMAGES, np.nan), "are not finite"),
        ):
            for door in (model.fit, model.evaluate):
                with pytest.raises(ValueError, match=message):
                    door(bad, verbose=0)
        with pytest.raises(ValueError, match="divide 8-bit pixels by 255"):
            model.fit(tf.data.Dataset.from_tensor_slices(255 * IMAGES).batch(2), verbose=0)
    else:  # squared error is one for any values
        assert np.isfinite(model.fit(255 * IMAGES, verbose=0).history["loss"])


@pytest.fixture(scope="module")
def clusters():
    """Three noisy clusters in five dimensions: features and labels of the three splits."""
    generator = np.random.default_rng(0)
    labels = {split: np.arange(n) % 3 for split, n in (("train", 90), ("validation", 60), ("test", 60))}
    centers = generator.normal(size=(3, 5))
    return {split: centers[y] + generator.normal(size=(len(y), 5)) for split, y in labels.items()}, labels


def test_a_probe_does_not_depend_on_shift_scale_and_rotation_of_its_features(clusters):
    features, labels = clusters
    turn = 1000 * np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0]
    numbers, means, errors = autoencoder.linear_probe(features, labels, (6, 30, None), num_draws=4)
    moved = {split: x @ turn + 77 for split, x in features.items()}
    np.testing.assert_allclose(autoencoder.linear_probe(moved, labels, (6, 30, None), num_draws=4)[1], means, atol=0.01)
    assert numbers == [6, 30, 90]
    assert 0.5 < means[0] < means[-1]
    assert errors[0] > 0
    assert errors[-1] == 0  # all labels are one draw
    stretched = {split: x * [1, 1, 1, 1, 1000] for split, x in features.items()}
    assert abs(autoencoder.linear_probe(stretched, labels, (6,), num_draws=4)[1][0] - means[0]) > 0.01


def test_a_probe_of_features_without_information_guesses(clusters):
    features = {split: np.random.default_rng(2).normal(size=x.shape) for split, x in clusters[0].items()}
    assert autoencoder.linear_probe(features, clusters[1], (30,), num_draws=5)[1][0] == pytest.approx(1 / 3, abs=0.1)


def test_a_probe_chooses_its_penalty_on_validation_not_on_test(clusters, monkeypatch):
    table = {0.1: [[0.5, 0.6], [0.9, 0.9]], 1: [[0.7, 0.8], [0.1, 0.3]], 10: [[0.9, 0.5], [1.0, 1.0]]}
    monkeypatch.setattr(autoencoder, "_accuracies", lambda features, labels, draws, strength: table[strength])
    _, means, errors = autoencoder.linear_probe(*clusters, (6,), num_draws=2, strengths=(0.1, 1, 10))
    assert means == [pytest.approx(0.2)]
    assert errors == [pytest.approx(0.1)]  # the standard error of 0.1 and 0.3


@pytest.mark.parametrize("number", [10, 25, 100])
def test_labels_are_drawn_without_repetition_and_in_turn_from_every_class(number):
    labels = np.random.default_rng(0).integers(0, 10, 500)
    draws = autoencoder._label_draws(labels, number, 5, seed=0)
    for draw in draws:
        assert len(set(draw)) == number
        counts = np.bincount(labels[draw], minlength=10)
        assert counts.max() - counts.min() <= 1
    assert len({tuple(draw) for draw in draws}) == 5
    np.testing.assert_array_equal(draws, autoencoder._label_draws(labels, number, 5, seed=0))


def test_a_rare_class_gives_all_it_has():
    labels = np.array([0] * 50 + [1] * 3)
    (draw,) = autoencoder._label_draws(labels, 20, 1, seed=0)
    assert np.bincount(labels[draw]).tolist() == [17, 3]


def test_a_probe_wants_a_label_of_every_class(clusters):
    for number in (2, 91):
        with pytest.raises(ValueError, match=f"received {number} labels, expected from 3, the classes, to 90"):
            autoencoder.linear_probe(*clusters, (number,))
