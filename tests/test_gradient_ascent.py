"""What gradient ascent owes beside the contract: the papers' steps in NumPy, true gradients, pictures that rise."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from scipy import ndimage

import dmkeras
from dmkeras.parts import ascent, latents, picture_priors, seeds
from dmkeras.understanding.gradient_ascent import NOISE, PRIORS, GradientAscent

SHAPE = (8, 6, 3)
PLAIN = {"rule": "plain", "rate": 0.1}
SEED = seeds.row_seeds(3, 4)
CLASSES = tf.constant([0, 1, 3])
RNG = np.random.default_rng(0)


def classifier(dtype="float32", shape=SHAPE):
    """Smooth, so that NumPy and finite differences can follow it: softmax(V tanh(U x))."""
    stack = [layers.Flatten(dtype=dtype), layers.Dense(6, "tanh", name="hidden", dtype=dtype)]
    net = keras.Sequential(
        [
            keras.Input(shape, dtype="float64" if dtype == "float64" else None),
            *stack,
            layers.Dense(4, dtype=dtype),
            layers.Softmax(dtype=dtype),
        ]
    )
    rng = np.random.default_rng(1)
    net.set_weights([0.4 * rng.normal(size=weight.shape) for weight in net.get_weights()])
    return net


def decoder(dtype="float32"):
    """Codes [B, 5] -> pictures."""
    parts = [layers.Dense(int(np.prod(SHAPE)), "sigmoid", dtype=dtype), layers.Reshape(SHAPE, dtype=dtype)]
    net = keras.Sequential([keras.Input((5,), dtype=dtype), *parts])
    rng = np.random.default_rng(2)
    net.set_weights([rng.normal(size=weight.shape) for weight in net.get_weights()])
    return net


def convolutional():
    keras.utils.set_random_seed(3)
    stack = [layers.Conv2D(6, 3, name="maps"), layers.BatchNormalization(), layers.Activation("softplus")]
    large = keras.initializers.RandomNormal(stddev=20.0)  # beside the penalties
    return keras.Sequential(
        [keras.Input(SHAPE), *stack, layers.GlobalAveragePooling2D(), layers.Dense(4, kernel_initializer=large)]
    )


def slope(net, x, classes):
    """d logit / dx in NumPy: x [B, H, W, C] -> the same, and the logits."""
    u, a, v, b = net.get_weights()
    hidden = np.tanh(x.reshape(len(x), -1) @ u + a)
    back = (v[:, classes].T * (1 - hidden**2)) @ u.T
    return back.reshape(x.shape), (hidden @ v + b)[np.arange(len(x)), classes]


def state(model, values, steps=None):
    steps = model.steps if steps is None else steps
    return ascent.beginning(tf.constant(values), tf.constant(steps), model.steps)


@pytest.fixture(scope="module")
def net():
    return classifier("float64")


# --- the papers' steps ----------------------------------------------------------------------------------------------


def test_the_l2_prior_ends_where_a_linear_model_says():
    """S = w x - lambda |x|^2 is highest at w / (2 lambda)."""
    linear = keras.Sequential([keras.Input(SHAPE), layers.Flatten(), layers.Dense(4, use_bias=False)])
    weights = RNG.uniform(-0.2, 0.2, (int(np.prod(SHAPE)), 4)).astype("float32")
    linear.set_weights([weights])
    model = GradientAscent(linear, prior={"l2": 0.5, **PLAIN}, steps=150)
    expected = 0.5 + weights[:, CLASSES].T.reshape(-1, *SHAPE) / (2 * 0.5)
    np.testing.assert_allclose(model(CLASSES, SEED), expected, atol=1e-5)
    assert not np.allclose(expected, 0.5 + (expected - 0.5) / 2, atol=1e-3)


def test_yosinskis_steps_are_those_of_a_loop_in_numpy(net):
    own = {"decay": 0.05, "blur": 0.6, "blur_every": 3, "small_norm": 15.0, "small_contribution": 20.0}
    model = GradientAscent(net, prior={**own, "rate": 0.1, "last_rate": 0.02}, steps=7, mean=[0.4, 0.5, 0.6])
    mean, x = np.array([0.4, 0.5, 0.6]), RNG.uniform(-0.3, 0.3, (3, *SHAPE))
    found = model._run(state(model, x), CLASSES, SEED, 7)
    mean = np.broadcast_to(np.float32(mean), SHAPE).astype(float)
    for step in range(7):
        g, score = slope(net, mean + x, CLASSES.numpy())
        np.testing.assert_allclose(found.trace[:, step], score, rtol=1e-6)
        rate = 0.1 + (0.02 - 0.1) * step / 7
        x = 0.95 * (x + rate * g / np.abs(g).mean((1, 2, 3), keepdims=True))
        if step % 3 == 2:
            x = ndimage.gaussian_filter(x, (0, 0.6, 0.6, 0))
        x = _kept(x, np.sqrt((x**2).sum(-1)), 15)
        x = _kept(x, np.abs((x * g).sum(-1)), 20)
        x = np.clip(mean + x, 0, 1) - mean
    np.testing.assert_allclose(found.values, x, rtol=1e-5, atol=1e-7)


def _kept(x, sizes, percentile):
    limits = np.percentile(sizes, percentile, axis=(1, 2), keepdims=True)
    return np.where((sizes >= limits)[..., None], x, 0)


def test_nguyens_steps_are_those_of_a_loop_in_numpy(net):
    latent, high = decoder("float64"), np.array([0.5, 1.0, 2.0, 3.0, 9.0])
    model = GradientAscent(net, latent=latent, code_bounds=(0.0, high), steps=20)
    assert model.settings == {**model.settings, "rate": 8.0, "last_rate": 1e-10, "rule": "mean", "decay": 0.01}
    kernel, bias = latent.get_weights()
    code = RNG.uniform(0, 0.5, (3, 5))
    found = model._run(state(model, code, [20, 20, 11]), CLASSES, SEED, 20)
    for step in range(20):
        x = 1 / (1 + np.exp(-(code @ kernel + bias)))
        g, _ = slope(net, x.reshape(-1, *SHAPE), CLASSES.numpy())
        g = (g.reshape(3, -1) * x * (1 - x)) @ kernel.T
        rate = 8 + (1e-10 - 8) * step / 20
        moved = np.clip(0.99 * (code + rate * g / np.abs(g).mean(1, keepdims=True)), 0, high)
        code = np.where((step < np.array([20, 20, 11]))[:, None], moved, code)
    np.testing.assert_allclose(found.values, code, rtol=1e-5, atol=1e-6)
    assert (code == high).any()
    assert (code == 0).any()


def test_jitter_shakes_each_picture_by_other_offsets_at_each_step():
    """A linear score adds its weights, rolled back."""
    linear = keras.Sequential([keras.Input(SHAPE), layers.Flatten(), layers.Dense(4, use_bias=False)])
    weights = np.random.default_rng(5).uniform(-0.3, 0.3, (int(np.prod(SHAPE)), 4)).astype("float32")
    linear.set_weights([weights])
    model = GradientAscent(linear, prior={"jitter": 3, **PLAIN}, steps=6)
    offsets, expected = picture_priors.offsets(SEED, 6, 3).numpy(), np.zeros((3, *SHAPE))
    for step, row in itertools.product(range(6), range(3)):
        own = weights[:, CLASSES[row]].reshape(SHAPE)
        expected[row] += 0.1 * np.roll(own, -offsets[step, row], (0, 1))
    found = model._run(state(model, np.zeros((3, *SHAPE), "float32")), CLASSES, SEED, 6)
    np.testing.assert_allclose(found.values, expected, atol=1e-6)


@pytest.mark.parametrize("in_codes", [False, True])
def test_gradients_are_finite_differences_of_what_is_climbed(net, in_codes):
    """Jitter, penalties and the generator included; a plain step of a small rate tells the gradient."""
    rate, h = 1e-3, 1e-5
    prior = {"rule": "plain", "rate": rate, "jitter": 2} | ({} if in_codes else {"l2": 0.3, "total_variation": 0.2})
    model = GradientAscent(net, prior=prior, steps=1, latent=decoder("float64") if in_codes else None)
    values = RNG.uniform(-0.3, 0.3, (5,) if in_codes else SHAPE)
    places = [np.unravel_index(i, values.shape) for i in RNG.choice(values.size, 5, replace=False)]
    rows = np.stack([values] + [values + sign * h * _unit(values, place) for place in places for sign in (1, -1)])
    found = model._run(state(model, rows), tf.fill([11], 2), tf.tile(SEED[:1], (11, 1)), 1)
    above, below = found.trace[1::2, 0], found.trace[2::2, 0]
    gradient = (found.values[0] - values).numpy() / rate
    np.testing.assert_allclose([gradient[place] for place in places], (above - below) / (2 * h), rtol=1e-5, atol=1e-7)


def _unit(values, place):
    unit = np.zeros_like(values)
    unit[place] = 1
    return unit


# --- what is answered -----------------------------------------------------------------------------------------------

SETTINGS = {
    "l2": {"prior": "l2"},
    "yosinski": {"prior": "yosinski"},
    "jitter_tv": {"prior": {"jitter": 2, "total_variation": 0.02}},
    "none": {"prior": None},
    "unit": {"layer": "maps", "position": "max"},
    "code": {"latent": "decoder", "code_bounds": (0.0, [0.5, 1.0, 2.0, 3.0, 9.0])},
}


@pytest.fixture(scope="module")
def models():
    """{name: a model of 12 steps}."""
    net, made = convolutional(), {}
    for name, options in SETTINGS.items():
        options = {**options, **({"latent": decoder()} if "latent" in options else {})}
        made[name] = GradientAscent(net, steps=12, **options)
    return made


@pytest.fixture(scope="module")
def answers(models):
    return {name: model.ascend(CLASSES, seed=4) for name, model in models.items()}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_objective_rises_and_is_what_the_classifier_makes_of_the_picture(name, models, answers):
    model, told = models[name], answers[name]
    images, logits = told["images"].numpy(), model.classifier(told["images"]).numpy()
    assert images.shape == (3, *SHAPE)
    assert images.min() >= 0
    assert images.max() <= 1
    np.testing.assert_allclose(told["logits"], logits, rtol=1e-4, atol=1e-5)
    expected = logits[np.arange(3), CLASSES]
    if name == "unit":
        maps = keras.Model(model.classifier.inputs[0], model.classifier.get_layer("maps").output)(images).numpy()
        expected = maps.max((1, 2))[np.arange(3), CLASSES]
    np.testing.assert_allclose(told["objective"], expected, rtol=1e-4, atol=1e-5)
    begun = model.ascend(CLASSES, seed=4, steps=0)
    assert (told["objective"].numpy() > begun["objective"].numpy() + 0.05).all()


@pytest.mark.parametrize("name", SETTINGS)
def test_a_report_on_the_way_changes_nothing(name, models, answers):
    told = []
    reported = models[name].ascend(CLASSES, seed=4, every=5, progress=lambda *state: told.append(state))
    for key, values in answers[name].items():
        np.testing.assert_array_equal(reported[key], values)
    assert [step for step, _, _ in told] == [5, 10, 12]
    np.testing.assert_allclose(np.clip(told[-1][1], 0, 1), reported["images"])
    np.testing.assert_array_equal(told[0][2][:, :5], reported["trace"][:, :5])


@pytest.mark.parametrize("name", ["yosinski", "jitter_tv", "code"])
def test_xla_makes_the_same_pictures(name, models, answers):
    compiled = tf.function(models[name]._ascend, jit_compile=True, autograph=False)(CLASSES, SEED)
    for key, values in compiled.items():
        np.testing.assert_allclose(values, answers[name][key], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["yosinski", "jitter_tv", "code"])
def test_a_picture_alone_is_that_of_the_batch(name, models, answers):
    told = models[name].signatures()["serving_default"][0](CLASSES[1:2], SEED[1:2])
    for key, values in told.items():
        np.testing.assert_allclose(values[0], answers[name][key][1], rtol=1e-3, atol=1e-4)


def test_a_row_may_take_fewer_steps(models, answers):
    told = models["jitter_tv"].ascend(CLASSES, seed=4, steps=[12, 3, 0])
    np.testing.assert_array_equal(told["images"][0], answers["jitter_tv"]["images"][0])
    np.testing.assert_array_equal(told["trace"][1, :3], answers["jitter_tv"]["trace"][1, :3])
    np.testing.assert_array_equal(told["trace"][1, 3:], np.repeat(told["trace"][1, 2], 9))
    begun = told["images"][2].numpy() - 0.5
    assert 0.9 * NOISE < np.abs(begun).max() <= NOISE + 1e-6
    assert abs(begun.mean()) < 0.3 * NOISE


def test_seeds_give_several_pictures_and_the_same_again(models, answers):
    model = models["jitter_tv"]
    np.testing.assert_allclose(model(CLASSES, SEED), answers["jitter_tv"]["images"], atol=1e-5)
    other = model.ascend([0, 0, 0], seed=5)["images"].numpy()
    assert all(np.abs(other[i] - other[j]).max() > 0.01 for i, j in ((0, 1), (1, 2)))
    np.testing.assert_array_equal(model(CLASSES)[0], model(CLASSES[:1], tf.zeros((1, 2), "int32"))[0])
    fresh = [model.ascend([0], steps=0)["images"].numpy() for _ in range(2)]
    assert not np.array_equal(*fresh)


def test_files_hold_the_pictures(models, answers):
    told = models["jitter_tv"].signatures()["ascend_bytes"][0](CLASSES, SEED)
    files = [tf.io.decode_png(file).numpy() / 255 for file in told["image_bytes"]]
    np.testing.assert_allclose(files, answers["jitter_tv"]["images"], atol=0.51 / 255)
    np.testing.assert_array_equal(told["objective"], answers["jitter_tv"]["objective"])


def test_codes_stay_in_their_bounds_and_make_the_pictures(models, answers):
    codes, high = answers["code"]["codes"].numpy(), SETTINGS["code"]["code_bounds"][1]
    assert (codes >= 0).all()
    assert (codes <= high).all()
    np.testing.assert_allclose(models["code"].latent(codes), answers["code"]["images"], atol=1e-6)
    begun = models["code"].ascend([0] * 50, seed=0, steps=0)["codes"].numpy()
    assert (begun >= 0).all()
    assert (begun <= np.array(high) / 3 + 1e-6).all()  # within a standard deviation
    assert (begun.max(0) > 0.8 * np.array(high) / 3).all()


# --- any classifier, any code space ---------------------------------------------------------------------------------


def test_grey_pictures_mixed_precision_and_other_channels():
    keras.utils.set_random_seed(0)
    grey = classifier(shape=(5, 9, 1))
    told = GradientAscent(grey, steps=2).signatures()["ascend_bytes"][0](CLASSES[:1], SEED[:1])
    assert tf.io.decode_png(told["image_bytes"][0]).shape == (5, 9, 1)
    assert set(GradientAscent(classifier(shape=(5, 9, 2)), steps=1).signatures()) == {"serving_default"}
    half = classifier("mixed_float16")
    model, full = GradientAscent(half, steps=3), GradientAscent(classifier(), steps=3)
    assert model(CLASSES, SEED).dtype == tf.float32
    np.testing.assert_allclose(model(CLASSES, SEED), full(CLASSES, SEED), atol=0.02)


def test_a_double_precision_classifier_answers_in_single_precision(net):
    told = GradientAscent(net, steps=2).signatures()["serving_default"][0](CLASSES, SEED)
    assert {values.dtype for values in told.values()} == {tf.float32}
    images = told["images"].numpy().astype("float64")
    for kind in range(4):  # what stands before the softmax
        logits = slope(net, images, np.full(3, kind))[1]
        np.testing.assert_allclose(told["logits"][:, kind], logits, rtol=1e-4, atol=1e-5)


def test_pictures_that_a_code_space_makes_too_bright_are_answered_white(models):
    beyond = keras.Sequential([keras.Input((5,)), layers.Dense(int(np.prod(SHAPE))), layers.Reshape(SHAPE)])
    model = GradientAscent(models["l2"].classifier, latent=beyond, steps=3)
    told = model.ascend(CLASSES, seed=0)
    made, images = beyond(told["codes"]).numpy(), told["images"].numpy()
    assert made.min() < -0.1 < 1.1 < made.max()
    np.testing.assert_allclose(images, np.clip(made, 0, 1), atol=1e-6)
    expected = model.classifier(images).numpy()[np.arange(3), CLASSES]
    np.testing.assert_allclose(told["objective"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["GAN", "DCGAN", "InfoGAN", "VAE", "Autoencoder"])
def test_the_generators_of_this_package_are_code_spaces(kind):
    keras.utils.set_random_seed(1)
    latent = getattr(dmkeras, kind)(image_shape=(8, 8, 1), **({} if kind == "InfoGAN" else {"latent_size": 4}))
    model = GradientAscent(classifier(shape=(8, 8, 1)), latent=latent, steps=5)
    told = model.ascend([0, 3], seed=0)
    codes = told["codes"]
    made = latent.decode(codes) if hasattr(latent, "decode") else latents.generate(latent, codes)
    np.testing.assert_allclose(told["images"], np.clip(made, 0, 1), atol=1e-5)
    reach = {"VAE": 3, "Autoencoder": np.inf}.get(kind, 1)
    assert np.abs(codes).max() <= reach
    assert np.abs(codes).max() > 0.9 * min(reach, 3)


def test_a_unit_is_named_by_channel_or_by_class(models):
    options = {"layer": "maps", "position": (2, 1), "steps": 3}
    model = GradientAscent(models["unit"].classifier, channel=4, **options)
    of = lambda channel: model(tf.constant([channel]), SEED[:1]).numpy()
    np.testing.assert_array_equal(of(-1), of(4))
    assert not np.array_equal(of(0), of(4))
    assert model.ascend(-1, seed=0)["trace"].shape == (1, 3)
    served = lambda channel: model.signatures()["serving_default"][0](tf.constant([channel]), SEED[:1])["images"]
    np.testing.assert_array_equal(served(99), of(5))  # endpoints cannot refuse
    np.testing.assert_array_equal(served(-9), of(4))
    for ask in (model, model.ascend):
        with pytest.raises(ValueError, match="classes from 0 to 5, or -1 for channel 4, received 6 to 6"):
            ask(6)


def test_a_file_brings_back_all_settings(models, tmp_path):
    mean = np.linspace(0.3, 0.7, int(np.prod(SHAPE))).reshape(SHAPE)
    given = {"prior": {"l2": 0.1, "decay": 0.1}, "rate": 0.05, "mean": mean, "steps": 3, "layer": "maps", "channel": 2}
    model = GradientAscent(models["unit"].classifier, position=(1, 2), **given)
    for saved in (model, models["code"]):
        saved.save(tmp_path / f"{saved.name}.keras")
        again = dmkeras.load(tmp_path / f"{saved.name}.keras")
        np.testing.assert_array_equal(again(CLASSES, SEED), saved(CLASSES, SEED))
        assert again.settings == saved.settings


def test_settings_are_a_priors_own_or_given_one_by_one(models):
    net = models["l2"].classifier
    assert models["l2"].settings["l2"] == PRIORS["l2"]["l2"]
    slower = GradientAscent(net, prior="jitter_tv", rate=0.5 * PRIORS["jitter_tv"]["rate"], steps=1).settings
    assert slower["last_rate"] == pytest.approx(0.5 * PRIORS["jitter_tv"]["last_rate"])
    assert GradientAscent(net, prior={"rate": 0.3}, steps=1).settings["last_rate"] == 0.3
    nothing = models["none"].settings
    assert not any(nothing[key] for key in ("l2", "total_variation", "jitter", "decay", "blur", "small_norm"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prior": "tv"}, "prior must be one of"),
        ({"prior": {"tv": 1.0}}, "a prior has no tv; it has rate"),
        ({"prior": {"jitter": 1.5}}, "jitter must be a whole number"),
        ({"prior": {"decay": 1.0}}, "decay must be at least 0 and less than 1"),
        ({"prior": {"rule": "sign"}}, "rule must be one of"),
        ({"prior": {"blur_every": 0}}, "blur_every must be at least 1"),
        ({"rate": -1.0}, "rate must be at least 0"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"layer": "nothing"}, "has no layer 'nothing'"),
        ({"layer": "maps", "position": (6, 0)}, r"expected a position"),
        ({"layer": "maps", "channel": 6}, "'maps' has 6"),
        ({"channel": 1}, "it is of a layer; name one"),
        ({"mean": [0.1, 0.2]}, r"expected mean as a number, \[C\] or"),
        ({"mean": 128}, "divide 8-bit pixels by 255"),
        ({"code_bounds": (0, 1)}, "give latent="),
        ({"latent": 3}, "expected latent as a keras.Model"),
        ({"latent": "decoder", "prior": "yosinski"}, "blur, small_norm are for pixels"),
        ({"latent": "decoder", "code_bounds": (1, 0)}, "some low above high"),
        ({"latent": "decoder", "code_bounds": (0, [1, 2])}, r"expected a bound as a number or \[5\]"),
        ({"latent": "other"}, r"makes pictures \(None, 4, 4, 3\), the classifier takes \(8, 6, 3\)"),
        ({"latent": "labelled"}, "train one with num_classes=0"),
        ({"latent": "open"}, "a code of one shape"),
    ],
)
def test_what_does_not_fit_is_refused(options, words, models):
    spaces = {
        "decoder": decoder,
        "other": lambda: keras.Sequential([keras.Input((2,)), layers.Dense(48), layers.Reshape((4, 4, 3))]),
        "labelled": lambda: dmkeras.DCGAN((8, 8, 3), 4, 2, num_classes=3),
        "open": lambda: keras.Sequential([keras.Input((None, 3)), layers.GlobalAveragePooling1D()]),
    }
    if options.get("latent") in spaces:
        options = {**options, "latent": spaces[options["latent"]]()}
    with pytest.raises(ValueError, match=words):
        GradientAscent(models["l2"].classifier, **options)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"classes": [4]}, "expected classes from 0 to 3, received 4 to 4"),
        ({"classes": [-1]}, "expected classes from 0 to 3, received -1 to -1"),
        ({"classes": None}, "of whole numbers, received object"),
        ({"classes": [0.5]}, "of whole numbers"),
        ({"classes": [0], "steps": 13}, "expected steps from 0 to 12"),
        ({"classes": [0], "steps": -1}, "expected steps from 0 to 12, the model's, received -1"),
        ({"classes": [0], "every": 0}, "every must be at least 1"),
        ({"classes": [0], "seed": -1}, "seed must be from 0"),
    ],
)
def test_classes_and_steps_that_there_are_not_are_refused(given, words, models):
    with pytest.raises(ValueError, match=words):
        models["l2"].ascend(**given)
