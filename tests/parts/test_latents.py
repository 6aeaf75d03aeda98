"""Laws of latents and of the pictures that they become."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dmkeras import DCGAN
from dmkeras.parts import latents
from dmkeras.parts.seeds import row_seeds

SHAPE = (8, 8, 1)
GENERATOR = np.random.default_rng(0)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    model = DCGAN(SHAPE, latent_size=6, filters=4)
    model.generator.set_weights([GENERATOR.random(w.shape) + 0.1 for w in model.generator.get_weights()])
    return model


def test_latents_are_uniform_between_minus_one_and_one(model):
    for z in (latents.latent(model, row_seeds(3000, 1)), latents.draw(model, 3000)):
        z = np.sort(np.ravel(z))
        even = np.linspace(-1, 1, len(z))
        assert np.abs(z - even).max() < 1.95 * 2 / len(z) ** 0.5  # Kolmogorov's bound, one in a thousand
    assert not np.array_equal(latents.draw(model, 2), latents.draw(model, 2))


def test_a_picture_depends_on_its_row_of_seeds_alone(model):
    endpoint = tf.function(model.signatures()["sample"][0])
    seeds = tf.constant([[3, 1], [5, 0], [3, 0], [-7, 2**31 - 1]])
    whole = endpoint(seeds)["images"]
    for row in range(4):
        np.testing.assert_allclose(endpoint(seeds[row : row + 1])["images"][0], whole[row], atol=1e-6)
    np.testing.assert_allclose(model.sample(2, seed=3), tf.gather(whole, [2, 0]), atol=1e-6)
    assert len(np.unique(np.asarray(whole).reshape(4, -1), axis=0)) == 4
    assert not np.array_equal(model.sample(1), model.sample(1))


def test_a_line_begins_and_ends_at_its_latents(model):
    a, b = GENERATOR.uniform(-1, 1, (2, 3, 6)).astype("float32")
    path = model.interpolate(a, b, steps=5)
    assert path.shape == (3, 5, *SHAPE)
    for place, part in enumerate((0, 0.25, 0.5, 0.75, 1)):
        np.testing.assert_allclose(path[:, place], model.generate((1 - part) * a + part * b), atol=1e-5)
    served = model.signatures()["interpolate"][0](tf.constant(a), tf.constant(b))["images"]
    np.testing.assert_allclose(served, model.interpolate(a, b, latents.STEPS), atol=1e-6)


def test_concepts_are_added_and_taken_away_by_their_means(model):
    smiling_woman, neutral_woman, neutral_man = GENERATOR.uniform(-1, 1, (3, 4, 6)).astype("float32")
    z = smiling_woman.mean(axis=0) - neutral_woman.mean(axis=0) + neutral_man.mean(axis=0)
    found = model.arithmetic([smiling_woman, neutral_man], [neutral_woman])
    np.testing.assert_allclose(found, model.generate(z[None])[0], atol=1e-5)
    np.testing.assert_allclose(model.arithmetic([neutral_man[:2]]), model.generate(neutral_man[:2].mean(0)[None])[0])


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda model: model.generate(np.zeros((2, 5))), r"expected latents \[B, 6\], received \[2, 5\]"),
        (lambda model: model.generate(np.zeros(6)), r"received \[6\]"),
        (lambda model: model.generate(np.full((2, 6), np.nan)), "of finite numbers"),
        (lambda model: model.generate("latents"), "of finite numbers, received others"),
        (lambda model: model.generate(None), "of finite numbers, received others"),
        (lambda model: model.interpolate(np.zeros((2, 6)), np.zeros((3, 6))), "received 2 and 3"),
        (lambda model: model.interpolate(np.zeros((2, 6)), np.zeros((2, 6)), 1), "at least 2 .* received 1"),
        (lambda model: model.arithmetic([np.zeros(6)]), r"expected latents \[B, 6\], received \[6\]"),
        (lambda model: model.arithmetic([]), "expected at least one concept"),
        (lambda model: model.arithmetic([np.zeros((0, 6))]), "received a concept of no latents"),
        (lambda model: model.sample(0), "num_samples must be at least 1, received 0"),
        (lambda model: model.sample(2.5), "num_samples must be a whole number"),
        (lambda model: model.sample(1, seed=-1), "seed must be from 0"),
    ],
)
def test_what_is_no_latent_is_refused(model, ask, words):
    with pytest.raises(ValueError, match=words):
        ask(model)
