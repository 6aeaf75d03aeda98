"""What DeepDream owes beside the contract: google/deepdream's program, octave by octave, for any classifier."""

import keras
import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf
from keras import layers

from dmkeras.parts import picture_priors, seeds
from dmkeras.understanding.deepdream import DeepDream, _beside, octave_sides, zoomed

SHAPE = (15, 12, 3)
RNG = np.random.default_rng(0)
SMALL = {"octaves": 3, "jitter": 4, "steps": 3, "step_size": 3.0}


def convolutions(dtype="float64"):
    options = {"padding": "same", "dtype": dtype}
    return [
        layers.Conv2D(4, 3, activation="relu", name="first", **options),
        layers.AveragePooling2D(2, name="pool", **options),
        layers.Conv2D(5, 3, activation="tanh", name="second", **options),
    ]


def classifier(shape=SHAPE, dtype="float64", stack=None):
    """A functional model: sequential, then dense, so that only its convolutions take other sizes."""
    picture = keras.Input(shape, dtype="float64" if dtype == "float64" else "float32")
    maps = picture
    for layer in stack or convolutions(dtype):
        maps = layer(maps)
    model = keras.Model(picture, layers.Dense(3, name="logits", dtype=dtype)(layers.Flatten(dtype=dtype)(maps)))
    return randomized(model)


def randomized(model):
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(size=w.shape) / np.sqrt(np.prod(w.shape[:-1])) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def net():
    return classifier()


@pytest.fixture(scope="module")
def plain():
    """The same network in float32."""
    return classifier(dtype="float32")


@pytest.fixture(scope="module")
def model(plain):
    return DeepDream(plain, "second", **SMALL)


@pytest.fixture(scope="module")
def pictures(images):
    return images.astype("float32")


@pytest.fixture(scope="module")
def images():
    return RNG.uniform(0.1, 0.9, (2, *SHAPE))


@pytest.fixture(scope="module")
def seed():
    return np.array([[5, 1], [7, 2]], "int32")


def maps_of(net, x):
    """{layer: maps} of x [B, h, w, C] of any size, layer by layer."""
    found = {}
    for name in ("first", "pool", "second"):
        x = found[name] = net.get_layer(name)(x)
    return found


def slope_of(net, x, weights):
    """The program's: gradients of layers set to their activations, here by weight."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        found = maps_of(net, x)
    given = [weight * found[name] for name, weight in weights.items()]
    return tape.gradient([found[name] for name in weights], x, output_gradients=given).numpy()


def zoom(image, sides):
    """image [h, w, C]; what the program calls."""
    factors = [side / old for side, old in zip(sides, image.shape)]
    return scipy.ndimage.zoom(image, (*factors, 1), order=1)


def program(net, image, seed, weights, octaves, scale, jitter, steps, step_size, wrong=None):
    """dream.ipynb with pixels from 0 to 1: image [H, W, C] -> [H, W, C], offsets those of the seed."""
    offsets = picture_priors.offsets(seed[None], octaves * steps, jitter).numpy()[:, 0]
    bases = [image]
    for _ in range(octaves - 1):
        bases.append(scipy.ndimage.zoom(bases[-1], (1 / scale, 1 / scale, 1), order=1))
    detail, count = np.zeros_like(bases[-1]), 0
    for base in bases[::-1]:
        resize = (lambda d, s: tf.image.resize(d, s).numpy()) if wrong == "zoom" else zoom
        detail = np.zeros_like(base) if wrong == "nothing carried" else resize(detail, base.shape[:2])
        x = base + detail
        for _ in range(steps):
            down, across = (0, offsets[count][1]) if wrong == "one axis" else offsets[count]
            x = np.roll(x, (down, across), (0, 1))
            g = slope_of(net, x[None], weights)[0]
            size = np.sqrt((g**2).mean()) if wrong == "norm" else abs(g).mean()
            x = np.roll(x + step_size / 255 / size * g, (-down, -across), (0, 1))
            x, count = x if wrong == "not clipped" else np.clip(x, 0, 1), count + 1
        detail = x - base
    return x


# --- the program ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [{"second": 1.0}, {"first": 0.3, "second": 2.0}], ids=["one", "two"])
def test_a_dream_is_the_programs(net, images, seed, weights):
    settings = {**SMALL, "scale": 1.4, "step_size": 20.0}
    found = DeepDream(net, weights, **settings)(images, seed).numpy()
    dream = lambda wrong=None: [program(net, x, s, weights, **settings, wrong=wrong) for x, s in zip(images, seed)]
    np.testing.assert_allclose(found, dream(), atol=1e-9)
    for wrong in ("nothing carried", "zoom", "one axis", "norm", "not clipped"):
        assert abs(found - dream(wrong)).max() > 1e-3, wrong
    assert abs(found[0] - program(net, images[0], seed[1], weights, **settings)).max() > 1e-3  # seeds are told apart


def test_one_octave_without_jitter_is_plain_ascent(net, images):
    found = DeepDream(net, "second", octaves=1, jitter=0, steps=5, step_size=4.0)(images)
    x = images
    for _ in range(5):
        g = slope_of(net, x, {"second": 1.0})
        x = np.clip(x + 4 / 255 * g / abs(g).mean((1, 2, 3), keepdims=True), 0, 1)
    np.testing.assert_allclose(found, x, atol=1e-9)


def test_a_step_changes_pixels_by_step_size_of_255_in_the_mean(net, images):
    found = DeepDream(net, "second", octaves=1, jitter=0, steps=1)(images).numpy()
    np.testing.assert_allclose(abs(found - images).mean((1, 2, 3)), 1.5 / 255, rtol=1e-6)


def test_the_energy_is_half_the_squares_by_weight_and_its_gradient_the_activations(net, images):
    weights, other = {"first": 0.3, "second": -2.0}, RNG.uniform(size=(1, 9, 21, 3))
    model = DeepDream(net, weights)
    for pictures in (images, other):
        found = maps_of(net, pictures)
        squares = [w * (found[name].numpy() ** 2).sum((1, 2, 3)) / 2 for name, w in weights.items()]
        np.testing.assert_allclose(model.energy(pictures), sum(squares), rtol=1e-9)
    h, direction = 1e-6, RNG.normal(size=(1, *SHAPE))
    rise = (model.energy(images[:1] + h * direction) - model.energy(images[:1] - h * direction)) / (2 * h)
    np.testing.assert_allclose(rise, (slope_of(net, images[:1], weights) * direction).sum(), rtol=1e-5)


def test_the_energy_rises_and_pictures_stay_in_their_range(net, images, seed):
    model = DeepDream(net, "second", **{**SMALL, "step_size": 60.0, "steps": 8})
    found = model(images, seed).numpy()
    assert (model.energy(found).numpy() > 1.2 * model.energy(images).numpy()).all()
    assert found.min() == 0
    assert found.max() == 1
    opposed = DeepDream(net, {"second": -1.0}, **SMALL)
    assert (model.energy(opposed(images, seed)).numpy() < model.energy(images).numpy()).all()


@pytest.mark.parametrize(("sides", "scale"), [((224, 224), 1.4), ((375, 500), 1.4), ((31, 9), 1.7)])
def test_octaves_have_the_sides_of_the_programs(sides, scale):
    expected, base = [], np.zeros(sides)
    for _ in range(4):
        expected.append(base.shape)
        base = scipy.ndimage.zoom(base, 1.0 / scale, order=1)
    assert octave_sides(sides, 4, scale) == expected
    assert octave_sides((3, 2), 5, 2.0)[-1] == (1, 1)


@pytest.mark.parametrize("sides", [(8, 9), (21, 24), (30, 5), (15, 12), (1, 1)])
def test_zooms_are_scipys(images, sides):
    expected = [zoom(image, sides) for image in images]
    np.testing.assert_allclose(zoomed(tf.constant(images), sides), expected, atol=1e-12)


# --- rows and seeds -------------------------------------------------------------------------------------------------


def test_an_answer_does_not_depend_on_the_rest_of_its_batch(model, pictures, seed):
    together = model(pictures, seed)
    np.testing.assert_array_equal(model(pictures[1:], seed[1:]), together[1:])  # to the bit: steps amplify others
    np.testing.assert_array_equal(model(pictures[::-1].copy(), seed[::-1].copy()), together[::-1])
    assert abs(model(pictures[1:], seed[:1]) - together[1:]).numpy().max() > 1e-2


def test_dreaming_octave_by_octave_is_the_call_and_tells_of_each(model, pictures):
    told, rows = [], seeds.row_seeds(2, 3)
    expected = model(pictures, rows)
    np.testing.assert_allclose(model.dream(pictures, 3, lambda *seen: told.append(seen)), expected, atol=1e-5)
    np.testing.assert_allclose(model.dream(pictures, rows.numpy()), expected, atol=1e-5)
    assert [seen[:2] for seen in told] == [(i + 1, 6) for i in range(6)]
    assert [tuple(seen[2].shape[:2]) for seen in told] == 2 * octave_sides(SHAPE[:2], 3, 1.4)[::-1]
    np.testing.assert_allclose([told[2][2], told[5][2]], expected, atol=1e-5)
    assert model.dream(pictures[:0]).shape == (0, *SHAPE)
    np.testing.assert_array_equal(model(pictures), model(pictures, np.zeros((2, 2), "int32")))


# --- any classifier, any size, any way to run it --------------------------------------------------------------------


def nested():
    """Convolutions in a functional model within a functional model, both of one size."""
    picture = maps = keras.Input(SHAPE)
    for layer in convolutions("float32"):
        maps = layer(maps)
    return classifier(dtype="float32", stack=[keras.Model(picture, maps, name="convolutions")])


def sequential():
    end = [layers.Flatten(), layers.Dense(3, "softmax")]
    return randomized(keras.Sequential([keras.Input(SHAPE), *convolutions("float32"), *end]))


@keras.saving.register_keras_serializable("deepdream")
class Subclassed(keras.Model):
    image_shape = SHAPE

    def __init__(self):
        super().__init__()
        self.body, self.head = keras.Sequential(convolutions("float32")), layers.Dense(3)
        self(keras.Input(SHAPE))

    def call(self, images):
        return self.head(tf.reshape(self.body(images), (-1, 8 * 6 * 5)))


@pytest.fixture(scope="module")
def large():
    return RNG.uniform(size=(2, 19, 26, 3)).astype("float32")


@pytest.fixture(scope="module")
def dreams(plain, pictures, large, seed):
    model = DeepDream(plain, "second", octaves=2, steps=2)
    return model(pictures, seed), model(large, seed)


@pytest.mark.parametrize("make", [nested, sequential, lambda: randomized(Subclassed())])
def test_layers_before_a_dense_one_dream_at_any_size_however_the_model_is_written(make, pictures, large, seed, dreams):
    net = make()
    model = DeepDream(net, "second", octaves=2, steps=2)
    for given, expected in zip((pictures, large), dreams):
        assert expected.shape == given.shape
        np.testing.assert_allclose(model(given, seed), expected, atol=1e-5)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=r"incompatible|shape"):
        net(large)  # as strict as before
    assert net(pictures).shape == (2, 3)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_a_grey_picture_and_half_precision_dream(dtype):
    net, images = classifier((9, 16, 1), dtype), RNG.uniform(size=(1, 9, 16, 1))
    model = DeepDream(net, "second", octaves=2, steps=2)
    found = model(images.astype("float32"))
    assert found.dtype == "float32"
    assert (model.energy(found.numpy()) > model.energy(images.astype("float32"))).numpy().all()


def test_it_compiles_under_xla_to_the_same(model, pictures, seed):
    found = tf.function(model, jit_compile=True, autograph=False)(tf.constant(pictures), seed=tf.constant(seed))
    np.testing.assert_allclose(found, model(pictures, seed), atol=1e-4)


def test_files_get_their_details_at_their_own_size(model, images, seed):
    levels = np.round(255 * images).astype("uint8")
    function = model.signatures()["dream_bytes"][0]
    encode = lambda pictures: tf.stack([tf.io.encode_png(picture) for picture in pictures])
    decode = lambda files: [tf.io.decode_png(file).numpy() for file in files.numpy()]
    expected = model((levels / 255).astype("float32"), seed).numpy()
    for found, picture in zip(decode(function(encode(levels), seed)["dream_bytes"]), expected):
        assert abs(found / 255 - picture).max() < 0.51 / 255
    larger = [levels[0].repeat(4, 0).repeat(4, 1), levels[1]]
    found = decode(function(encode(larger), seed)["dream_bytes"])
    assert [picture.shape for picture in found] == [picture.shape for picture in larger]
    seen = tf.image.resize(larger[0] / 255, SHAPE[:2], antialias=True).numpy()
    detail = model(np.clip(seen, 0, 1)[None].astype("float32"), seed[:1])[0] - seen
    expected = np.clip(larger[0] / 255 + tf.image.resize(detail, (60, 48)).numpy(), 0, 1)
    assert abs(found[0] / 255 - expected).max() < 0.51 / 255


def test_details_beyond_white_and_black_stay_white_and_black_in_files():
    levels = np.stack([np.full((6, 8, 3), 250), np.full((6, 8, 3), 5)]).astype("uint8")
    files = tf.constant([tf.io.encode_png(picture).numpy() for picture in levels])
    details = tf.constant([0.5, -0.5])[:, None, None, None] * tf.ones((2, 4, 4, 3))
    white, black = (tf.io.decode_png(file).numpy() for file in _beside(files, details).numpy())
    assert (white == 255).all()
    assert (black == 0).all()


def test_two_channels_have_no_files():
    assert set(DeepDream(classifier((9, 9, 2), "float32"), "second", octaves=1).signatures()) == {"serving_default"}


def test_its_config_says_how_it_was_made(plain, pictures, seed):
    model = DeepDream(plain, ["first", "second"], 2, 1.3, 3, 2, 2.5)
    again = DeepDream.from_config(model.get_config())
    again.classifier.set_weights(plain.get_weights())
    np.testing.assert_array_equal(again(pictures, seed), model(pictures, seed))
    np.testing.assert_allclose(again.energy(pictures), model.energy(pictures))


# --- doors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "options", "words"),
    [
        ("secnod", {}, "has no layer 'secnod'; did you mean second"),
        (
            "logits",
            {},
            r"logits of .* cannot be computed on .* of \(6, 4\) pixels; name layers before the first dense one, "
            r"or give fewer octaves than 4, or larger pictures \(Dimensions must be equal, but are \d+ and \d+\)$",
        ),
        ([], {}, r"expected layers as a name, several, or .name: weight., received \[\]"),
        ({"first": "x"}, {}, "the weight of first must be a number"),
        ("first", {"octaves": 0}, "octaves must be at least 1"),
        ("first", {"scale": 1.0}, "scale must be more than 1"),
        ("first", {"jitter": -1}, "jitter must be at least 0"),
        ("first", {"steps": 0}, "steps must be at least 1"),
        ("first", {"step_size": -1}, "step_size must be at least 0"),
        ("first", {"image_shape": (8, 6, 3)}, r"takes pictures of \(15, 12, 3\)"),
    ],
)
def test_settings_that_cannot_be_are_refused(plain, layer, options, words):
    with pytest.raises(ValueError, match=words):
        DeepDream(plain, layer, **options)


def test_a_dense_layer_dreams_in_one_octave(plain, pictures):
    model = DeepDream(plain, "logits", octaves=1, jitter=2, steps=3)
    assert (model.energy(model(pictures)).numpy() > model.energy(pictures).numpy()).all()
    with pytest.raises(
        ValueError,
        match=r"logits of .* cannot be computed on pictures or octaves of \(20, 12\) pixels; .* or give pictures of "
        r"\(15, 12\) \(Dimensions must be equal, but are \d+ and \d+\)",
    ):
        model(np.zeros((1, 20, 12, 3)))


def test_octaves_too_small_for_a_network_are_refused():
    stack = [layers.Conv2D(2, 7, name="wide", dtype="float32")]
    DeepDream(classifier(dtype="float32", stack=stack), "wide", octaves=2)
    with pytest.raises(
        ValueError, match=r"pictures or octaves of \(8, 6\) pixels; .* fewer octaves than 3, or larger pictures"
    ):
        DeepDream(classifier(dtype="float32", stack=stack), "wide", octaves=3)


def test_a_layer_that_is_asked_twice_is_refused():
    twice = layers.Conv2D(3, 3, padding="same", name="twice", dtype="float64")
    with pytest.raises(ValueError, match="'twice' is asked 2 times"):
        DeepDream(classifier(stack=[twice, twice]), "twice", octaves=1)


def test_pictures_and_seeds_that_cannot_be_are_refused(model, images):
    for given, words in (
        (np.zeros((2, 9, 9, 1)), r"expected images .B, 9, 9, 3."),
        (np.zeros((9, 9, 3)), r"expected images .B, 15, 12, 3."),
        (255 * images, "divide 8-bit pixels by 255"),
    ):
        for verb in (model, model.dream, model.energy):
            with pytest.raises(ValueError, match=words):
                verb(given)
    with pytest.raises(ValueError, match="a seed for each of 2 pictures, received 3"):
        model.dream(images, np.zeros((3, 2), "int32"))
    with pytest.raises(ValueError, match=r"expected seeds .B, 2. int32"):
        model.dream(images, np.zeros((2, 3), "int32"))
