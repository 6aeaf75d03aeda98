"""Laws of networks that know the class: where it stands, whose labels a step sees, what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from dmkeras import DCGAN
from dmkeras.parts import adversarial, conditional, latents
from dmkeras.parts.seeds import row_seeds

SHAPE, CLASSES = (16, 16, 1), 3
IMAGES = np.random.default_rng(0).random((12, *SHAPE), "float32")
LABELS = np.random.default_rng(1).permutation(np.arange(12) % CLASSES)
Z = np.random.default_rng(2).uniform(-1, 1, (12, 5)).astype("float32")


def small(**options):
    """A model whose labels are loud enough to tell."""
    keras.utils.set_random_seed(1)
    model = DCGAN(SHAPE, latent_size=5, filters=4, **{"num_classes": CLASSES, **options})
    for weight in model.weights:
        if weight.name == "kernel":
            weight.assign(5 * weight)
    return model


def compiled(d_rate=0.1, g_rate=0.1, **options):
    model = small(**options)
    model.compile(*(keras.optimizers.SGD(rate) for rate in (d_rate, g_rate)), jit_compile=False)
    return model


@pytest.fixture(scope="module")
def model():
    return small()


def values(network):
    return [weight.numpy() for weight in network.weights]


def moved(before, network):
    return [not np.array_equal(was, now) for was, now in zip(before, network.weights, strict=True)]


# Where the class stands.


def test_beside_maps_the_class_is_a_constant_map_each():
    y = np.eye(CLASSES, dtype="float32")[LABELS]
    layer = conditional.BesideLabels()
    np.testing.assert_array_equal(layer(Z, y), np.concatenate([Z, y], axis=1))
    expected = np.concatenate([IMAGES, np.tile(y[:, None, None], (1, *SHAPE[:2], 1))], axis=-1)
    np.testing.assert_array_equal(layer(IMAGES, y), expected)
    assert layer.compute_output_shape((None, *SHAPE), (None, CLASSES)) == (None, 16, 16, 4)


def without_labels(kernel, transposed):
    """Sets to 0 what a kernel makes of the label, the last K of its inputs."""
    axis = -1 if transposed else -2
    array = np.moveaxis(kernel.numpy(), axis, 0)
    array[-CLASSES:] = 0
    kernel.assign(np.moveaxis(array, 0, axis))


@pytest.mark.parametrize("name", ["generator", "discriminator"])
def test_every_layer_of_weights_hears_the_class_by_itself(name):
    """With the label's weights of all other kernels at 0 the answer still depends on it; with all at 0 it does not."""
    inputs = {"generator": Z, "discriminator": IMAGES}[name]
    ys = [np.eye(CLASSES, dtype="float32")[np.full(12, k)] for k in range(2)]
    for heard in (0, 1, 2, None):
        network = getattr(small(), name)
        heavy = [layer for layer in network.layers if hasattr(layer, "kernel")]
        assert len(heavy) == 3
        for layer in (layer for i, layer in enumerate(heavy) if i != heard):
            without_labels(layer.kernel, isinstance(layer, keras.layers.Conv2DTranspose))
        first, second = (network((inputs, y), training=False) for y in ys)
        assert (np.abs(first - second).max() > 1e-4) == (heard is not None)


# Steps.


@pytest.mark.parametrize("still", ["discriminator", "generator"])
def test_a_step_of_one_network_leaves_the_other_alone(still):
    """But for the moving statistics of its own step."""
    model = compiled(**{f"{still[0]}_rate": 0.0})
    other = {"discriminator": "generator", "generator": "discriminator"}[still]
    before = {name: values(getattr(model, name)) for name in (still, other)}
    model.train_on_batch(IMAGES, LABELS)
    learned = [weight.trainable for weight in getattr(model, still).weights]
    assert not any(np.logical_and(moved(before[still], getattr(model, still)), learned))
    assert all(moved(before[other], getattr(model, other)))


def discriminator_after(labels_of_real, labels_of_fake):
    """D's kernels after a step of SGD, by hand."""
    model = compiled()
    real, fake = (tf.one_hot(labels, CLASSES) for labels in (labels_of_real, labels_of_fake))
    variables = model.discriminator.trainable_variables
    with tf.GradientTape() as tape:
        pictures = model.generator((latents.draw(model, 12), fake), training=True)
        logits = [
            model.discriminator((x, y), training=True) for x, y in ((tf.constant(IMAGES), real), (pictures, fake))
        ]
        loss = adversarial.discriminator_loss(*logits) + adversarial.penalties(model.discriminator)
    return [v.numpy() - 0.1 * g.numpy() for v, g in zip(variables, tape.gradient(loss, variables), strict=True)]


def test_a_step_sees_each_picture_beside_its_label_and_draws_pictures_of_the_same():
    model = compiled(g_rate=0.0)
    model.train_on_batch(IMAGES, LABELS)
    found = [v.numpy() for v in model.discriminator.trainable_variables]
    apart = lambda other: max(np.abs(a - b).max() for a, b in zip(found, other, strict=True))
    assert apart(discriminator_after(LABELS, LABELS)) < 1e-5
    shifted = (LABELS + 1) % CLASSES
    assert apart(discriminator_after(shifted, LABELS)) > 1e-3  # known wrong
    assert apart(discriminator_after(LABELS, shifted)) > 1e-3


def test_validation_moves_nothing_repeats_and_depends_on_the_labels():
    model = compiled()
    before = values(model)
    ask = lambda labels: model.evaluate(IMAGES, labels, verbose=0, return_dict=True)
    assert ask(LABELS) == ask(LABELS)
    assert ask(LABELS) != ask((LABELS + 1) % CLASSES)
    assert not any(moved(before, model))


def test_mixed_precision_trains_with_labels():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = small()
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile(jit_compile=False)
    before = values(model.generator)
    assert np.isfinite(model.train_on_batch(IMAGES, LABELS)).all()
    assert all(moved(before, model.generator))
    assert model.sample(2).dtype == model((IMAGES, LABELS)).dtype == tf.float32


# Pictures.


def test_drawn_classes_are_uniform_and_know_nothing_of_the_latent(model):
    rows = row_seeds(3000, 0)
    labels, z = (np.asarray(f(model, rows)) for f in (conditional.classes, latents.latent))
    assert labels.dtype == np.int32
    assert stats.chisquare(np.bincount(labels, minlength=CLASSES)).pvalue > 1e-3
    assert all(stats.kruskal(*(column[labels == k] for k in range(CLASSES))).pvalue > 1e-4 for column in z.T)
    np.testing.assert_array_equal(conditional.classes(model, rows[7:9]), labels[7:9])


def test_a_picture_is_of_its_latent_and_its_class(model):
    rows = row_seeds(6, 4)
    z, labels = latents.latent(model, rows), conditional.classes(model, rows)
    expected = model.generator((z, tf.one_hot(labels, CLASSES)), training=False)
    for found in (model.generate(z, labels), model.sample(6, 4), model.sample(6, 4, labels)):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    others = (np.asarray(labels) + 1) % CLASSES
    assert np.abs(model.sample(6, 4, others) - expected).max(axis=(1, 2, 3)).min() > 1e-4
    assert not np.array_equal(model.sample(1), model.sample(1))


def test_a_line_stays_within_its_class(model):
    path = model.interpolate(Z[:2], Z[2:4], 3, labels=[2, 0])
    for place, part in enumerate((0, 0.5, 1)):
        z = (1 - part) * Z[:2] + part * Z[2:4]
        np.testing.assert_allclose(path[:, place], model.generate(z, [2, 0]), atol=1e-5)
    served = model.signatures()["interpolate"][0](Z[:2], Z[2:4], tf.constant([2, 0]))["images"]
    np.testing.assert_allclose(served, model.interpolate(Z[:2], Z[2:4], labels=[2, 0]), atol=1e-6)


def test_arithmetic_is_of_one_class(model):
    z = Z[:3].mean(axis=0) - Z[3:6].mean(axis=0)
    found = model.arithmetic([Z[:3]], [Z[3:6]], label=1)
    np.testing.assert_allclose(found, model.generate(z[None], [1])[0], atol=1e-5)


def test_an_endpoint_takes_the_nearest_class_for_one_that_is_none(model):
    endpoint = tf.function(model.signatures()["generate"][0])
    found = endpoint(tf.constant(Z[:4]), tf.constant([-5, 0, 3, 2**31 - 1]))["images"]
    np.testing.assert_allclose(found, model.generate(Z[:4], [0, 0, 2, 2]), atol=1e-6)


# Doors.


def pairs(labels):
    return tf.data.Dataset.from_tensor_slices((IMAGES, labels)).batch(6)


BAD = {
    "none": (None, "received none; give labels beside"),
    "one too high": (LABELS + 1, "from 0 to 2, received 1 to 3; count classes from 0"),
    "below zero": (LABELS - 1, "received -1 to 1"),
    "one-hot": (np.eye(CLASSES)[LABELS], r"received \[\d+, 3\] of float(32|64); one-hot rows become numbers by argmax"),
    "float": (LABELS.astype("float32"), r"of float32; .* floats by astype"),
    "column": (LABELS[:, None], r"received \[\d+, 1\] of int64; .* a column by \[:, 0\]"),
    "bool": (LABELS > 0, "of bool"),
}


@pytest.mark.parametrize("kind", BAD)
def test_training_refuses_what_is_no_label(kind):
    labels, words = BAD[kind]
    model = compiled()
    before = values(model)
    dataset = tf.data.Dataset.from_tensor_slices(IMAGES).batch(6) if labels is None else pairs(labels)
    held_out = IMAGES if labels is None else (IMAGES, labels)
    for ask in (
        lambda: model.fit(IMAGES, labels, verbose=0),
        lambda: model.fit(dataset, verbose=0),
        lambda: model.fit(IMAGES, LABELS, validation_data=held_out, verbose=0),
        lambda: model.fit(pairs(LABELS), validation_data=dataset, verbose=0),
        lambda: model.evaluate(IMAGES, labels, verbose=0),
        lambda: model((IMAGES, labels)),
    ):
        with pytest.raises(ValueError, match=words):
            ask()
    assert not any(moved(before, model))


def test_a_generator_of_labels_that_are_none_is_refused_by_the_step():
    with pytest.raises(ValueError, match="of float32; one-hot"):
        compiled().fit((batch for batch in [(IMAGES, LABELS.astype("float32"))]), verbose=0)


def test_a_pair_in_the_place_of_the_pictures_is_refused():
    with pytest.raises(ValueError, match="received none; give labels beside"):
        compiled().fit((IMAGES, LABELS), verbose=0)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda m: m.generate(Z), r"expected labels \[12\], .* received none"),
        (lambda m: m.generate(Z, [1]), r"expected labels \[12\], .* received \[1\]"),
        (lambda m: m.sample(2, 0, [0, 3]), "received 0 to 3"),
        (lambda m: m.sample(2, 0, ["a", "b"]), "received .* of string"),
        (lambda m: m.sample(0, labels=[]), "num_samples must be at least 1, received 0"),
        (lambda m: m.interpolate(Z, Z), "received none"),
        (lambda m: m.interpolate(Z, Z, labels=[1, 2]), r"expected labels \[12\], .* received \[2\]"),
        (lambda m: m.interpolate(Z, Z, 1, LABELS), "steps must be at least 2"),
        (lambda m: m.arithmetic([Z]), "received none"),
        (lambda m: m.arithmetic([Z], label=0.5), "of float"),
        (lambda m: m(IMAGES), "received none"),
    ],
)
def test_verbs_refuse_what_is_no_label(model, ask, words):
    with pytest.raises(ValueError, match=words):
        ask(model)


def test_without_classes_labels_beside_pictures_are_not_used_and_verbs_refuse_them():
    model = compiled(num_classes=0)
    model.fit(IMAGES, LABELS + 0.5, verbose=0)
    assert {name: [spec.name for spec in specs] for name, (_, specs) in model.signatures().items()} == {
        "serving_default": ["z"],
        "generate": ["z"],
        "sample": ["seed"],
        "interpolate": ["a", "b"],
    }
    for ask in (
        lambda: model.generate(Z, LABELS),
        lambda: model.sample(12, labels=LABELS),
        lambda: model.interpolate(Z, Z, labels=LABELS),
        lambda: model.arithmetic([Z], label=1),
    ):
        with pytest.raises(ValueError, match="expected no labels, since num_classes is 0"):
            ask()
