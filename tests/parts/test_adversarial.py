"""Laws of the game between two networks: its losses, its steps, its two optimizers."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import special

import dmkeras
from dmkeras import DCGAN, GAN
from dmkeras.parts import adversarial

SHAPE = (8, 8, 1)
IMAGES = np.random.default_rng(0).random((12, *SHAPE), "float32")


def small(kind="dcgan", **options):
    keras.utils.set_random_seed(1)
    if kind == "gan":
        return GAN(SHAPE, latent_size=5, hidden_size=8, maxout_units=6, maxout_pieces=2, **options)
    return DCGAN(SHAPE, latent_size=5, filters=4, **options)


def compiled(kind="dcgan", d_rate=1e-3, g_rate=1e-3, **options):
    model = small(kind, **options)
    model.compile(*(keras.optimizers.SGD(rate, momentum=0.5) for rate in (d_rate, g_rate)), jit_compile=False)
    return model


def values(network, trainable=True):
    return [w.numpy() for w in (network.trainable_weights if trainable else network.non_trainable_weights)]


def moved(before, after):
    return [not np.array_equal(b, a) for b, a in zip(before, after, strict=True)]


# Losses.


def test_the_losses_are_those_of_the_paper():
    real, fake = (np.random.default_rng(seed).normal(size=9) * 3 for seed in (0, 1))
    d_real, d_fake = special.expit(real), special.expit(fake)
    expected = -np.mean(np.log(d_real)) - np.mean(np.log(1 - d_fake))
    np.testing.assert_allclose(adversarial.discriminator_loss(real, fake), expected, rtol=1e-6)
    np.testing.assert_allclose(adversarial.generator_loss(fake), -np.mean(np.log(d_fake)), rtol=1e-6)
    np.testing.assert_allclose(adversarial.generator_loss(fake, "minimax"), np.mean(np.log(1 - d_fake)), rtol=1e-6)
    np.testing.assert_allclose(adversarial.discriminator_loss(np.zeros(4), np.zeros(4)), 2 * np.log(2), rtol=1e-6)


def test_losses_have_no_floor():
    far = np.array([1e4, -1e4], "float32")
    np.testing.assert_array_equal(adversarial.discriminator_loss(far[1:], far[:1]), 2e4)
    np.testing.assert_array_equal([adversarial.generator_loss(far[1:], o) for o in adversarial.OBJECTIVES], [1e4, 0])


def slope(objective, logit):
    logit = tf.constant([logit])
    with tf.GradientTape() as tape:
        tape.watch(logit)
        loss = adversarial.generator_loss(logit, objective)
    return float(tape.gradient(loss, logit)[0])


def test_only_the_non_saturating_objective_has_a_gradient_where_the_discriminator_is_sure():
    """Section 3: both pull the same way, sigmoid(-a) as hard and sigmoid(a) as hard."""
    for logit in (-30.0, -3.0, 0.0, 3.0):
        np.testing.assert_allclose(slope("non_saturating", logit), -special.expit(-logit), rtol=1e-5)
        np.testing.assert_allclose(slope("minimax", logit), -special.expit(logit), rtol=1e-5)
    assert slope("non_saturating", -30.0) < -0.99
    assert -1e-9 < slope("minimax", -30.0) < 0


def test_diversity_is_none_for_one_picture_and_that_of_neighbours_else():
    assert adversarial.diversity(np.repeat(IMAGES[:1], 5, axis=0)) == 0
    expected = np.mean([np.abs(IMAGES[i] - IMAGES[i - 1]).mean() for i in range(12)])
    np.testing.assert_allclose(adversarial.diversity(IMAGES), expected, rtol=1e-6)


# Steps.


@pytest.mark.parametrize("kind", ["gan", "dcgan"])
@pytest.mark.parametrize("still", ["discriminator", "generator"])
def test_a_step_of_one_network_leaves_the_other_alone(kind, still):
    model = compiled(kind, *((0.0, 0.1) if still == "discriminator" else (0.1, 0.0)))
    other = {"discriminator": "generator", "generator": "discriminator"}[still]
    before = {name: values(getattr(model, name)) for name in (still, other)}
    model.train_on_batch(IMAGES)
    assert not any(moved(before[still], values(getattr(model, still))))
    assert all(moved(before[other], values(getattr(model, other))))


def test_moving_statistics_belong_to_the_step_of_their_network(monkeypatch):
    """Kept, G's statistics move once in a step and D's twice; known wrong: every call in training moves them."""
    calls = {}

    def count(network):
        layer = next(part for part in network.layers if isinstance(part, keras.layers.BatchNormalization))
        layer.moving_mean.assign(tf.ones_like(layer.moving_mean))  # each update keeps 0.9 of it
        variance = layer.moving_variance
        variance.assign(1e6 * tf.ones_like(variance))
        return lambda: round(float(np.log(np.mean(variance) / 1e6) / np.log(0.9)), 1)

    for kept in (True, False):
        if not kept:
            monkeypatch.setattr(adversarial, "kept", lambda network: adversarial.contextlib.nullcontext())
        keras.utils.set_random_seed(1)
        model = DCGAN((16, 16, 1), latent_size=5, filters=4)
        model.compile(jit_compile=False, run_eagerly=True)
        updates = [count(network) for network in (model.generator, model.discriminator)]
        model.train_on_batch(np.random.default_rng(0).random((12, 16, 16, 1), "float32"))
        calls[kept] = [number() for number in updates]
    assert calls == {True: [1.0, 2.0], False: [2.0, 3.0]}


def test_real_and_generated_pictures_are_batches_of_their_own():
    """One batch of both, known wrong, tells D the share of each: its logits differ."""
    model = DCGAN((16, 16, 1), latent_size=5, filters=4)
    real = np.random.default_rng(0).random((6, 16, 16, 1), "float32")
    fake = model.sample(6, seed=0)
    apart = model.discriminator(real, training=True)
    together = model.discriminator(np.concatenate([real, fake]), training=True)[:6]
    assert np.abs(apart - together).max() > 1e-3


def test_the_gradient_of_a_step_is_that_of_the_losses():
    model = compiled("gan", 0.1, 0.0, dropout=0.0)
    twin = compiled("gan", 0.1, 0.0, dropout=0.0)
    twin.noise.state.assign(model.noise.state)
    before = values(model.discriminator)
    model.train_on_batch(IMAGES)
    z = keras.random.uniform((12, 5), -1, 1, seed=twin.noise)
    with tf.GradientTape() as tape:
        logits = [twin.discriminator(x) for x in (IMAGES, twin.generator(z))]
        loss = adversarial.discriminator_loss(*logits)
    gradients = tape.gradient(loss, twin.discriminator.trainable_variables)
    for was, gradient, now in zip(before, gradients, values(model.discriminator), strict=True):
        np.testing.assert_allclose(now, was - 0.1 * gradient, rtol=1e-4, atol=1e-6)


def test_a_step_compiles():
    model = small()
    model.compile(jit_compile=True)
    plain = small()
    plain.compile(jit_compile=False)
    first, second = (m.train_on_batch(IMAGES, return_dict=True) for m in (model, plain))
    assert first.keys() == second.keys() == {"d_loss", "g_loss", "diversity"}
    np.testing.assert_allclose(first["d_loss"], second["d_loss"], rtol=0.2)  # other random numbers


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_and_answers_in_float32(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = small()
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile(jit_compile=False)
    before = values(model.generator)
    found = model.train_on_batch(IMAGES, return_dict=True)
    assert all(np.isfinite(value) for value in found.values())
    assert all(moved(before, values(model.generator)))
    assert isinstance(model.d_optimizer, keras.optimizers.LossScaleOptimizer) == (policy == "mixed_float16")
    assert model.sample(2).dtype == model(IMAGES).dtype == tf.float32


# State.


def test_a_model_that_was_never_compiled_is_saved(tmp_path):
    small().save(tmp_path / "model.keras")
    assert not dmkeras.load(tmp_path / "model.keras").compiled


@pytest.mark.parametrize("kind", ["gan", "dcgan"])
def test_both_optimizers_and_their_moments_survive_saving(kind, tmp_path):
    model = compiled(kind, 1e-3, 2e-3, average=0.5)
    for _ in range(3):
        model.train_on_batch(IMAGES)
    model.save(tmp_path / "model.keras")
    loaded = dmkeras.load(tmp_path / "model.keras")
    for name in ("d_optimizer", "g_optimizer"):
        one, other = getattr(model, name), getattr(loaded, name)
        assert one.get_config() == other.get_config()
        assert other.iterations == 3
        for state, again in zip(one.variables, other.variables, strict=True):
            np.testing.assert_array_equal(state, again)
    assert loaded.get_config() == model.get_config()
    np.testing.assert_array_equal(loaded.sample(2, seed=1), model.sample(2, seed=1))
    loaded.train_on_batch(IMAGES)


def test_the_averaged_generator_follows_and_draws():
    model = compiled(average=0.75, g_rate=0.5)
    mean = [w.numpy() for w in model.generator.weights]
    for _ in range(3):
        model.train_on_batch(IMAGES)
        mean = [0.75 * m + 0.25 * w.numpy() for m, w in zip(mean, model.generator.weights, strict=True)]
    for expected, found in zip(mean, model.averaged.weights, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    z = np.ones((2, 5), "float32")
    np.testing.assert_array_equal(model.generate(z), model.averaged(z, training=False))
    assert np.abs(model.generate(z) - model.generator(z, training=False)).max() > 1e-4


def test_validation_moves_nothing_and_repeats():
    model = compiled()
    before = [w.numpy() for w in model.weights]
    first, second = (model.evaluate(IMAGES, verbose=0, return_dict=True) for _ in range(2))
    assert first == second
    assert not any(moved(before, [w.numpy() for w in model.weights]))


@pytest.mark.parametrize(
    ("logs", "words"),
    [
        ({"d_loss": 0.01, "diversity": 1.0}, "D tells all pictures"),
        ({"d_loss": 1.3, "diversity": 0.01}, "resemble one another"),
        ({"d_loss": 1.3, "diversity": 0.8}, ""),
        ({"loss": 1.0}, ""),
    ],
)
def test_a_collapse_is_said(logs, words, capsys):
    adversarial.Watch().on_epoch_end(4, logs)
    said = capsys.readouterr().out
    assert words in said
    assert bool(said) == bool(words)
    assert not words or said.startswith("epoch 5: ")


def test_fit_watches(capsys):
    model = compiled()
    model.discriminator.layers[-1].bias.assign([-100.0])
    model.generator.layers[-3].kernel.assign(tf.zeros_like(model.generator.layers[-3].kernel))
    model.fit(IMAGES, batch_size=6, epochs=1, verbose=0)
    assert "a collapse" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"objective": "wasserstein"}, "non_saturating, minimax; received 'wasserstein'"),
        ({"average": 1.0}, "less than 1"),
    ],
)
def test_other_games_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        small(**options)
    with pytest.raises(ValueError, match="divide 8-bit pixels by 255"):
        compiled().fit(IMAGES * 255, verbose=0)
