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


def by_hand(model, images, wrong=None):
    """The weights of D and of G after a step of rate 0.1, by automatic differentiation of the paper's sums."""
    networks = model.discriminator, model.generator
    draw = lambda: networks[1](keras.random.uniform((len(images), 5), -1, 1, seed=model.noise), training=True)

    def descended(network, loss):
        with tf.GradientTape() as tape:
            total = loss() + (0 if wrong == "no penalty" else sum(network.losses))
        for weight, slope in zip(network.trainable_variables, tape.gradient(total, network.trainable_variables)):
            weight.assign_sub(0.1 * slope)

    def loss_of_d():
        fake = draw()
        if wrong == "one batch":
            real, fake = tf.split(networks[0](tf.concat([images, fake], 0), training=True), 2)
        else:
            real, fake = networks[0](images, training=True), networks[0](fake, training=True)
        return -tf.reduce_mean(tf.math.log_sigmoid(real)) - tf.reduce_mean(tf.math.log_sigmoid(-fake))

    def loss_of_g():
        logits = networks[0](draw(), training=True)
        if (model.objective == "minimax") != (wrong == "the other objective"):
            return tf.reduce_mean(tf.math.log_sigmoid(-logits))
        return -tf.reduce_mean(tf.math.log_sigmoid(logits)) * (-1 if wrong == "negated" else 1)

    first = [weight.numpy() for weight in networks[0].trainable_variables]
    descended(networks[0], loss_of_d)
    after = [weight.numpy() for weight in networks[0].trainable_variables]
    if wrong == "D as it was":
        for weight, value in zip(networks[0].trainable_variables, first, strict=True):
            weight.assign(value)
    descended(networks[1], loss_of_g)
    return after, values(networks[1])


@pytest.mark.parametrize("objective", adversarial.OBJECTIVES)
@pytest.mark.parametrize("kind", ["gan", "dcgan"])
def test_a_step_is_that_of_the_losses_of_d_then_of_g_against_the_moved_d(kind, objective):
    def made():
        keras.utils.set_random_seed(1)
        if kind == "gan":
            model = GAN((16, 16, 1), latent_size=5, hidden_size=8, maxout_units=4, dropout=0.0, objective=objective)
        else:
            model = DCGAN((16, 16, 1), latent_size=5, filters=4, l2=0.3, objective=objective)
        rate = lambda: keras.optimizers.SGD(0.1)
        model.compile(rate(), rate(), jit_compile=False, run_eagerly=True)
        return model

    images = np.random.default_rng(0).random((12, 16, 16, 1), "float32")
    model = made()
    model.train_on_batch(images)
    found = values(model.discriminator), values(model.generator)
    away = lambda expected: max(
        np.abs(a - b).max() for pair in zip(expected, found) for a, b in zip(*pair, strict=True)
    )
    assert away(by_hand(made(), images)) < 1e-5
    known_wrong = ["the other objective", "D as it was", *(["negated"] if objective == "non_saturating" else [])]
    for wrong in [*known_wrong, *(["one batch", "no penalty"] if kind == "dcgan" else [])]:
        assert away(by_hand(made(), images, wrong)) > 1e-4, wrong


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


def test_one_optimizer_for_both_is_refused():
    shared = keras.optimizers.Adam()
    for given in ((shared, shared), ()):
        with pytest.raises(ValueError, match="two instances or names"):
            small().compile(*given, **({} if given else {"optimizer": "adam"}))


def test_weights_of_samples_are_refused_and_one_callback_is_taken():
    model = compiled()
    with pytest.raises(ValueError, match="count alike"):
        model.fit(IMAGES, sample_weight=np.ones(12), verbose=0)
    model.fit(IMAGES, callbacks=keras.callbacks.TerminateOnNaN(), verbose=0)


def test_batches_count_by_their_pictures():
    model = compiled()
    whole = model.evaluate(IMAGES[:4], batch_size=4, verbose=0, return_dict=True)["g_loss"]
    parts = [model.evaluate(IMAGES[:n], batch_size=4, verbose=0, return_dict=True)["g_loss"] for n in (1, 5)]
    np.testing.assert_allclose(parts[1], (4 * whole + parts[0]) / 5, rtol=1e-5)


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
