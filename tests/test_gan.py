"""Laws of the adversarial nets of 2014: maxout, sizes, and a run that is broken off and goes on."""

import numpy as np
import pytest

import dmkeras
from dmkeras import GAN
from dmkeras.generative.gan import Maxout

SIZES = {"latent_size": 5, "hidden_size": 8, "maxout_units": 6, "maxout_pieces": 3}


def test_a_maxout_unit_is_the_largest_of_its_pieces():
    layer, inputs = Maxout(4, 3), np.random.default_rng(0).normal(size=(5, 7)).astype("float32")
    layer(inputs)
    kernel, bias = np.random.default_rng(1).normal(size=(7, 12)), np.random.default_rng(2).normal(size=12)
    layer.set_weights([kernel, bias])
    expected = np.max(np.einsum("bd,duk->buk", inputs, kernel.reshape(7, 4, 3)) + bias.reshape(4, 3), axis=-1)
    np.testing.assert_allclose(layer(inputs), expected, rtol=1e-4, atol=1e-5)
    assert layer.compute_output_shape((None, 7)) == (None, 4)


def test_the_sizes_are_those_of_the_authors_code():
    model = GAN()
    shapes = lambda network: [tuple(w.shape) for w in network.trainable_weights if len(w.shape) > 1]
    assert shapes(model.generator) == [(100, 1200), (1200, 1200), (1200, 784)]
    assert shapes(model.discriminator) == [(784, 1200), (240, 1200), (240, 1)]
    assert [o.momentum for o in model.optimizers()] == [0.5, 0.5]


@pytest.mark.parametrize("shape", [(8, 8, 1), (3, 5, 3)])
def test_pictures_are_within_their_range_and_logits_one_a_picture(shape):
    model = GAN(shape, **SIZES)
    images = model.sample(7, seed=0)
    assert images.shape == (7, *shape)
    assert np.all((images >= 0) & (images <= 1))
    assert model(images).shape == (7, 1)


def test_dropout_acts_in_training_alone():
    model = GAN((8, 8, 1), **SIZES)
    images = model.sample(3, seed=0)
    np.testing.assert_array_equal(model(images), model(images))
    assert np.abs(model(images, training=True) - model(images, training=True)).max() > 0


def test_training_goes_on_after_a_stop_as_if_there_was_none(tmp_path):
    from dmkeras.recipe import run
    from training import gan

    flags = ["--fast", "--no-export", "--epochs", "2"]
    whole = run(gan.recipe, [*flags, "--out", str(tmp_path / "whole")])
    run(gan.recipe, [*flags, "--out", str(tmp_path / "parts"), "--minutes", "0"])
    parts = run(gan.recipe, ["--resume", "--no-export", "--out", str(tmp_path / "parts")])
    assert parts["epochs"] == whole["epochs"] == 2
    for first, second in zip(*(load_states(tmp_path / name) for name in ("whole", "parts")), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-6)


def load_states(folder):
    """Weights and both optimizers' moments of the run in `folder`."""
    model = dmkeras.load(folder / "runs/gan/0001/model.keras")
    return [v.numpy() for v in (*model.weights, *model.d_optimizer.variables, *model.g_optimizer.variables)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"image_shape": (8, 8)}, "image_shape must be"),
        ({"latent_size": 0}, "latent_size must be at least 1, received 0"),
        ({"hidden_size": 2.5}, "hidden_size must be a whole number"),
        ({"maxout_pieces": 0}, "maxout_pieces must be at least 1"),
        ({"dropout": 1.0}, "dropout must be at least 0 and less than 1"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        GAN(**{"image_shape": (8, 8, 1), **SIZES, **arguments})
