"""What saliency owes beside the contract: gradients as NumPy and finite differences have them, averages, and doors."""

import io
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

import dmkeras
from dmkeras.parts import seeds
from dmkeras.understanding.saliency import METHODS, Saliency

RNG = np.random.default_rng(0)
SHAPE = (7, 6, 2)
IMAGES = RNG.random((3, *SHAPE), "float32")
CLASSES = np.array([3, 0, 1])
FEW = {"samples": 5, "steps": 5, "chunk": 2}


def network(dtype="float32", end=None, shape=SHAPE, seed=1):
    """Two convolutions with rectifiers, a dense layer; random weights, biases too."""
    stack = [layers.Conv2D(4, 3, activation="relu", dtype=dtype, name="first"), layers.ReLU(dtype=dtype)]
    stack += [
        layers.Conv2D(3, 2, strides=2, activation="relu", dtype=dtype, name="second"),
        layers.Flatten(dtype=dtype),
    ]
    stack += [layers.Dense(4, end, dtype=dtype, name="last")]
    model, rng = keras.Sequential([keras.Input(shape, dtype=dtype), *stack], name="net"), np.random.default_rng(seed)
    model.set_weights([rng.normal(0, 0.5, w.shape) for w in model.get_weights()])
    return model


class ByHand:
    """The same network in NumPy, float64, with the gradient of any logit or unit under each rule."""

    def __init__(self, model):
        self.weights = [w.astype("float64") for w in model.get_weights()]

    def patches(self, images, size, stride):
        rows, columns = ((side - size) // stride + 1 for side in images.shape[1:3])
        cut = lambda r, c: images[:, r * stride : r * stride + size, c * stride : c * stride + size]
        return np.array([[cut(r, c) for c in range(columns)] for r in range(rows)]).transpose(2, 0, 1, 3, 4, 5)

    def back(self, above, kernel, stride, shape):
        found, size = np.zeros(shape), kernel.shape[0]
        for r in range(above.shape[1]):
            for c in range(above.shape[2]):
                part = np.einsum("bk,hwck->bhwc", above[:, r, c], kernel)
                found[:, r * stride : r * stride + size, c * stride : c * stride + size] += part
        return found

    def forward(self, images):
        k1, b1, k2, b2, dense, offset = self.weights
        self.z1 = np.einsum("brchwi,hwio->brco", self.patches(images, 3, 1), k1) + b1
        self.z2 = np.einsum("brchwi,hwio->brco", self.patches(np.maximum(self.z1, 0), 2, 2), k2) + b2
        return np.maximum(self.z2, 0).reshape(len(images), -1) @ dense + offset

    def rectified(self, rule, dy, z):
        return dy * {"vanilla": z > 0, "deconvnet": dy > 0, "guided": (z > 0) & (dy > 0)}[rule]

    def gradient(self, images, classes, rule="vanilla"):
        dense, images = self.weights[4], images.astype("float64")
        self.forward(images)
        return self.below(self.rectified(rule, dense[:, classes].T.reshape(self.z2.shape), self.z2), images, rule)

    def below(self, above, images, rule):
        """What comes back to the picture of a gradient by z2."""
        k1, _, k2, *_ = self.weights
        above = self.rectified(rule, self.back(above, k2, 2, self.z1.shape), self.z1)
        return self.back(self.rectified(rule, above, self.z1), k1, 1, images.shape)  # twice: a ReLU behind the first


@pytest.fixture(scope="module")
def net():
    return network()


@pytest.fixture(scope="module")
def double():
    return network("float64")


@pytest.fixture(scope="module")
def models(net):
    """{method: its system}."""
    return {method: Saliency(net, method, **FEW) for method in METHODS}


@pytest.fixture(scope="module")
def signed(net):
    """{method: its system, gradients of every colour}."""
    return {method: Saliency(net, method, None, **FEW) for method in METHODS}


def close(found, right, share=1e-5):
    np.testing.assert_allclose(found, right, rtol=0, atol=share * np.abs(right).max())


# --- gradients ------------------------------------------------------------------------------------------------------


def test_the_gradient_is_that_of_finite_differences(double):
    images, step = IMAGES.astype("float64"), 1e-4
    found = Saliency(double, reduce=None)(images, classes=CLASSES)
    assert found.dtype == tf.float64
    differences = np.zeros_like(images)
    for place in np.ndindex(SHAPE):
        both = [images.copy() for _ in range(2)]
        both[0][:, *place] += step
        both[1][:, *place] -= step
        above, below = (np.asarray(double(pictures))[range(3), CLASSES] for pictures in both)
        differences[:, *place] = (above - below) / (2 * step)
    close(found, differences, 1e-9)
    logits = np.asarray(double(images))
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert probabilities[range(3), CLASSES].max() < 0.99


@pytest.mark.parametrize("rule", ["vanilla", "deconvnet", "guided"])
def test_the_rules_agree_with_numpy(net, double, rule):
    hand = ByHand(double)
    np.testing.assert_allclose(hand.forward(IMAGES.astype("float64")), double(IMAGES.astype("float64")), rtol=1e-12)
    right = hand.gradient(IMAGES, CLASSES, rule)
    close(Saliency(double, rule, None)(IMAGES.astype("float64"), classes=CLASSES), right, 1e-12)
    close(Saliency(net, rule, None)(IMAGES, classes=CLASSES), right)
    others = [hand.gradient(IMAGES, CLASSES, other) for other in ("vanilla", "deconvnet", "guided") if other != rule]
    assert all(np.abs(right - other).max() > 0.1 * np.abs(right).max() for other in others)


@pytest.mark.parametrize("end", ["softmax", "log_softmax", "sigmoid"])
def test_the_logit_is_explained_and_not_its_probability(net, end):
    closed = network(end=end)
    right = ByHand(net).gradient(IMAGES, CLASSES)
    close(Saliency(closed, reduce=None)(IMAGES, classes=CLASSES), right)


def test_the_map_is_the_greatest_colour_or_their_sum(net):
    every = ByHand(net).gradient(IMAGES, CLASSES)
    close(Saliency(net)(IMAGES, classes=CLASSES), np.abs(every).max(-1))
    close(Saliency(net, reduce="sum")(IMAGES, classes=CLASSES), every.sum(-1))
    assert np.abs(np.abs(every).max(-1) - np.abs(every).sum(-1)).max() > 0.1 * np.abs(every).max()


def test_without_a_class_the_predicted_one_is_explained(net, models):
    predicted = np.argmax(net(IMAGES), -1)
    for model in models.values():
        right = model(IMAGES, classes=predicted)
        np.testing.assert_array_equal(model(IMAGES), right)
        np.testing.assert_array_equal(model(IMAGES, classes=np.where([True, False, True], -1, predicted)), right)
        one = model(IMAGES, classes=2)
        np.testing.assert_array_equal(one, model(IMAGES, classes=np.array([2, 2, 2])))
        assert not np.array_equal(one, right)
    asked = models["smoothgrad"].signatures()["serving_default"][0]
    found = asked(IMAGES, tf.constant([-1, 2, 3]), tf.zeros((3, 2), "int32"))
    assert found["explained"].dtype == tf.int32
    np.testing.assert_array_equal(found["explained"], [predicted[0], 2, 3])


# --- units ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["vanilla", "guided", "deconvnet"])
@pytest.mark.parametrize("position", ["max", "sum", (1, 0)])
def test_a_unit_of_a_layer_is_explained_where_it_is_asked(net, rule, position):
    hand, channel = ByHand(net), 2
    hand.forward(IMAGES.astype("float64"))
    maps = np.maximum(hand.z2, 0)
    above = np.zeros_like(maps)
    if position == "max":
        for one, own in zip(above, maps):
            one[*np.unravel_index(own[..., channel].argmax(), own.shape[:2]), channel] = 1
    else:
        above[:, *(position if position != "sum" else (slice(None), slice(None))), channel] = 1
    right = hand.below(hand.rectified(rule, above, hand.z2), IMAGES, rule)
    found = Saliency(net, rule, None, layer="second", channel=channel, position=position)(IMAGES)
    close(found, right)
    assert np.abs(right).max() > 0
    by_class = Saliency(net, rule, None, layer="second", position=position)
    np.testing.assert_array_equal(by_class(IMAGES, classes=channel), found)
    other = Saliency(net, rule, None, layer="second", channel=1, position=position)
    np.testing.assert_array_equal(other(IMAGES, classes=channel), found)  # a class that is asked for comes first
    assert not np.array_equal(other(IMAGES), found)


def test_without_a_channel_the_strongest_one_is_explained(net):
    hand, images = ByHand(net), RNG.random((30, *SHAPE), "float32")
    hand.forward(images.astype("float64"))
    maps = np.maximum(hand.z1, 0)
    assert (maps.max((1, 2)).argmax(-1) != maps[:, 0, 0].argmax(-1)).any()
    assert (maps.max((1, 2)).argmax(-1) != maps.sum((1, 2)).argmax(-1)).any()
    for position, strength in (("max", maps.max((1, 2))), ("sum", maps.sum((1, 2))), ((1, 1), maps[:, 1, 1])):
        model = Saliency(net, layer="first", position=position)
        unit = model.signatures()["serving_default"][0](images, tf.fill([30], -1))["explained"]
        np.testing.assert_array_equal(unit, strength.argmax(-1))
        np.testing.assert_array_equal(model(images), model(images, classes=strength.argmax(-1)))


def test_a_unit_of_a_dense_layer_is_a_class(net):
    found = Saliency(net, "guided", None, layer="last", channel=1)
    close(found(IMAGES), ByHand(net).gradient(IMAGES, np.array([1, 1, 1]), "guided"))
    np.testing.assert_array_equal(found(IMAGES, classes=3), Saliency(net, "guided", None)(IMAGES, classes=3))


@pytest.mark.parametrize("method", ["smoothgrad", "integrated"])
def test_averages_are_of_one_unit_however_the_copies_excite_the_layer(net, method):
    """The channel and the place are those of the picture itself, although a copy may have its maximum elsewhere."""
    at_most = Saliency(net, method, None, layer="second", noise=1.0, **FEW)(IMAGES, seed=3)
    hand = ByHand(net)
    hand.forward(IMAGES.astype("float64"))
    for index, maps in enumerate(np.maximum(hand.z2, 0)):
        row, column, channel = np.unravel_index(maps.argmax(), maps.shape)
        fixed = {"layer": "second", "channel": int(channel), "position": (row, column), "noise": 1.0, **FEW}
        found = Saliency(net, method, None, **fixed)(IMAGES[[index]], seed=[[3, index]])
        close(at_most[index], found[0])


# --- averages -------------------------------------------------------------------------------------------------------


def copies(seed, number, sigma):
    """The noise of a picture's copy, as another call for the same bits has it."""
    folded = tf.random.experimental.stateless_fold_in(tf.constant(seed, "int32"), number)
    return sigma * seeds.normals(folded, SHAPE).numpy().astype("float64")


@pytest.mark.parametrize("chunk", [1, 2, 5, 50])
def test_smoothgrad_is_the_mean_over_noisy_copies_for_any_chunk(net, chunk):
    hand, images = ByHand(net), 0.3 + IMAGES.astype("float64") * [[[[0.5]]], [[[0.7]]], [[[0.2]]]]
    rows, right = np.array([[4, 7], [0, 0], [4, 8]]), np.zeros(IMAGES.shape)
    for index, image in enumerate(images):
        sigma = 0.3 * (image.max() - image.min())
        noisy = np.array([image + copies(rows[index], number, sigma) for number in range(5)])
        right[index] = hand.gradient(noisy, np.full(5, CLASSES[index])).mean(0)
    model = Saliency(net, "smoothgrad", None, samples=5, noise=0.3, chunk=chunk)
    close(model(np.float32(images), classes=CLASSES, seed=rows), right, 1e-4)


def test_without_noise_smoothgrad_is_the_gradient(net, signed):
    plain = signed["vanilla"](IMAGES)
    close(Saliency(net, "smoothgrad", None, noise=0, **FEW)(IMAGES), plain)
    assert np.abs(signed["smoothgrad"](IMAGES) - plain).max() > 0.05 * np.abs(plain).max()
    flat = np.full((1, *SHAPE), 0.5, "float32")  # a range of zero
    close(signed["smoothgrad"](flat), signed["vanilla"](flat))


def test_seeds_choose_the_noise_and_nothing_else_does(signed):
    ask = signed["smoothgrad"]
    np.testing.assert_array_equal(ask(IMAGES), ask(IMAGES, seed=np.zeros((3, 2), "int32")))
    np.testing.assert_array_equal(ask(IMAGES, seed=5), ask(IMAGES, seed=[[5, 0], [5, 1], [5, 2]]))
    assert not np.array_equal(ask(IMAGES, seed=5), ask(IMAGES, seed=6))
    same = ask(np.repeat(IMAGES[:1], 3, 0), seed=5)
    assert not np.array_equal(same[0], same[1])
    np.testing.assert_array_equal(signed["guided"](IMAGES), signed["guided"](IMAGES, seed=9))


@pytest.mark.parametrize("baseline", [0.0, 0.7, "picture", "colours"])
@pytest.mark.parametrize("steps", [1, 7])
def test_integrated_gradients_are_those_of_midpoints(net, steps, baseline):
    kinds = {"picture": RNG.random(SHAPE, "float32"), "colours": np.float32([0.2, 0.9])}
    given = kinds.get(baseline, baseline)
    hand, images = ByHand(net), IMAGES.astype("float64")
    start, total = np.broadcast_to(np.float64(given), SHAPE), 0.0
    for number in range(1, steps + 1):
        total += hand.gradient(start + (number - 0.5) / steps * (images - start), CLASSES)
    model = Saliency(net, "integrated", None, steps=steps, chunk=3, baseline=given)
    close(model(IMAGES, classes=CLASSES), (images - start) * total / steps)


def test_integrated_gradients_are_complete_and_more_so_with_more_steps(double):
    images, errors = IMAGES.astype("float64"), []
    for steps in (10, 1000):
        model = Saliency(double, "integrated", "sum", steps=steps, chunk=250, baseline=0.1)
        found = model(images, classes=CLASSES).numpy().sum((1, 2))
        of = lambda pictures: np.asarray(double(pictures))[range(3), CLASSES]
        right = of(images) - of(np.full_like(images, 0.1))
        errors.append(np.abs(found - right).max() / np.abs(right).max())
    assert errors[1] < 1e-3
    assert errors[1] < errors[0] / 10


def test_input_times_gradient_is_what_it_says(net, signed):
    close(signed["input_x_gradient"](IMAGES), IMAGES * signed["vanilla"](IMAGES))


@pytest.mark.parametrize("rule", ["guided", "deconvnet"])
def test_averages_go_with_the_rules_of_rectifiers(net, rule):
    hand = ByHand(net)
    found = Saliency(net, "input_x_gradient", None, rule=rule)(IMAGES, classes=CLASSES)
    close(found, IMAGES * hand.gradient(IMAGES, CLASSES, rule))
    found = Saliency(net, "smoothgrad", None, rule=rule, noise=0, **FEW)(IMAGES, classes=CLASSES)
    close(found, hand.gradient(IMAGES, CLASSES, rule))
    found = Saliency(net, "integrated", None, rule=rule, steps=1)(IMAGES, classes=CLASSES)
    close(found, IMAGES * hand.gradient(IMAGES / 2, CLASSES, rule))


# --- batches, XLA, precision ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_picture_has_its_map_in_any_batch_and_under_xla(models, method):
    model, rows = models[method], [[1, 2], [3, 4], [5, 6]]
    found = model(IMAGES, classes=CLASSES, seed=rows).numpy()
    assert found.shape == (3, 7, 6)
    assert found.dtype == np.float32
    for index in range(3):
        part = slice(index, index + 1)
        close(model(IMAGES[part], classes=CLASSES[part], seed=rows[part])[0], found[index], 1e-6)
    seed = tf.constant(rows)
    compiled = tf.function(lambda images: model(images, classes=CLASSES, seed=seed), jit_compile=True, autograph=False)
    close(compiled(tf.constant(IMAGES)), found)


def test_averages_hold_one_chunk_in_memory_whatever_the_batch(net):
    sizes = []

    class Spy(keras.Model):
        image_shape = SHAPE

        def __init__(self):
            super().__init__()
            self.net = net
            self(keras.Input(SHAPE))

        def call(self, images):
            sizes.append(images.shape[0])
            return self.net(images)

    for method, count in (("smoothgrad", "samples"), ("integrated", "steps")):
        sizes.clear()
        Saliency(Spy(), method, chunk=4, **{count: 10})
        assert {size for size in sizes if size not in (None, 2)} == {4}, sizes  # 10 in three rounds of 4


def test_grey_pictures_and_other_precisions_are_explained():
    for policy in ("float32", "mixed_bfloat16"):
        model = keras.Sequential([keras.Input((9, 5, 1)), layers.Conv2D(4, 3, activation="relu", dtype=policy)])
        model.add(layers.GlobalAveragePooling2D(dtype=policy))
        model.add(layers.Dense(3, "softmax", dtype=policy))
        images = RNG.random((2, 9, 5, 1), "float32")
        for method in METHODS:
            found = Saliency(model, method, **FEW)(images)
            assert found.shape == (2, 9, 5)
            assert found.dtype == tf.float32
            assert np.isfinite(found).all()
            assert found.numpy().any()
    as_float64 = Saliency(model)(images.astype("float64"))
    assert as_float64.dtype == tf.float32


def test_maps_follow_the_weights_of_the_classifier(net):
    """The sanity check of Adebayo et al. (https://arxiv.org/abs/1810.03292): random weights, from the last layer on."""
    model = network(seed=2)
    ask = {method: Saliency(model, method, **FEW) for method in ("vanilla", "smoothgrad", "integrated")}
    first = {method: one(IMAGES, classes=CLASSES).numpy() for method, one in ask.items()}
    for layer in ("last", "second", "first"):
        before = {method: one(IMAGES, classes=CLASSES).numpy() for method, one in ask.items()}
        model.get_layer(layer).set_weights(network(seed=3).get_layer(layer).get_weights())
        for method, one in ask.items():
            assert np.abs(one(IMAGES, classes=CLASSES) - before[method]).max() > 0.05 * before[method].max()
    for method, one in ask.items():
        found = one(IMAGES, classes=CLASSES)
        fresh = Saliency(network(seed=3), method, **FEW)(IMAGES, classes=CLASSES)
        close(found, fresh)
        assert abs(np.corrcoef(np.ravel(found), np.ravel(first[method]))[0, 1]) < 0.7


# --- doors ----------------------------------------------------------------------------------------------------------


def test_any_number_of_pictures_is_explained_with_progress(models):
    done, many = [], RNG.random((7, *SHAPE), "float32")
    found = models["smoothgrad"].explain(many, 2, seed=5, batch_size=3, progress=done.append)
    assert done == [3, 6, 7]
    rows = [[5, index] for index in range(7)]
    close(found, models["smoothgrad"](many, classes=2, seed=rows), 1e-6)
    close(models["guided"].explain(many), models["guided"](many), 1e-6)
    assert models["guided"].explain(many[:0]).shape == (0, 7, 6)


def files_of(images):
    held = [io.BytesIO() for _ in images]
    for image, file in zip(images, held, strict=True):
        Image.fromarray(np.round(255 * image).astype("uint8")).save(file, "PNG")
    return tf.constant([file.getvalue() for file in held])


@pytest.fixture(scope="module")
def colour():
    return network(shape=(7, 6, 3))


def test_files_come_back_under_their_map_in_their_own_size(colour):
    images = np.round(255 * RNG.random((2, 7, 6, 3))) / 255
    large = images.repeat(4, 1).repeat(5, 2)
    for reduce, signed in (("max_abs", False), ("sum", True)):
        model = Saliency(colour, "guided", reduce)
        found = model.signatures()["saliency_bytes"][0](files_of(images), tf.constant([1, -1]))
        maps = model(np.float32(images), classes=[1, -1]).numpy()
        drawn = [np.asarray(Image.open(io.BytesIO(file))) for file in found["saliency_bytes"].numpy()]
        ordered = np.sort(np.abs(maps).reshape(2, -1), 1)[:, int(0.99 * 41)]
        capped = np.clip(maps, -ordered[:, None, None], ordered[:, None, None])
        assert (np.abs(maps).max((1, 2)) > ordered).all()  # there is an outlier
        for one, values, picture in zip(drawn, capped, images):
            import matplotlib

            low = -np.abs(values).max() if signed else values.min()
            share = (values - low) / (np.abs(values).max() - low)
            colours = matplotlib.colormaps["RdBu_r" if signed else "viridis"](share)[..., :3]
            assert np.abs(one - 255 * (0.4 * picture + 0.6 * colours)).max() < 4
        larger = model.signatures()["saliency_bytes"][0](files_of(large), tf.constant([1, -1]))["saliency_bytes"]
        assert np.asarray(Image.open(io.BytesIO(larger.numpy()[0]))).shape == (28, 30, 3)


def test_without_a_reduction_files_become_the_gradient_around_grey(colour):
    images = np.round(255 * RNG.random((2, 7, 6, 3))) / 255
    model = Saliency(colour, "guided", None)
    found = model.signatures()["saliency_bytes"][0](files_of(images), tf.constant([1, 1]))["saliency_bytes"].numpy()
    every = model(np.float32(images), classes=1).numpy()
    most = np.sort(np.abs(every).reshape(2, -1), 1)[:, int(0.99 * 125), None, None, None]
    right = np.clip(0.5 + every / (2 * most), 0, 1)
    for file, picture in zip(found, right):
        assert np.abs(np.asarray(Image.open(io.BytesIO(file))) / 255 - picture).max() < 0.01


def test_a_saved_system_and_its_endpoints_answer_the_same(net, tmp_path):
    given = {"layer": "second", "channel": np.int64(1), "position": np.array([1, 0]), "rule": "guided"}
    given |= {"baseline": RNG.random(SHAPE, "float32"), "steps": 3}
    for options in ({"method": "integrated", "reduce": "sum", **given}, {"method": "smoothgrad", **FEW}):
        model = Saliency(net, **options)
        model.save(tmp_path / "model.keras")
        again = dmkeras.load(tmp_path / "model.keras")
        right = model(IMAGES).numpy()
        np.testing.assert_array_equal(again(IMAGES), right)
        (tmp_path / "model.keras").unlink()
        loaded = tf.saved_model.load(str(dmkeras.export(model, tmp_path / options["method"])))
        feed = {"images": tf.constant(IMAGES), "classes": tf.fill([3], -1)}
        feed |= {"seed": tf.zeros((3, 2), "int32")} if options["method"] == "smoothgrad" else {}
        close(loaded.signatures["serving_default"](**feed)["saliency"], right)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "lime"}, "method must be one of 'vanilla', 'deconvnet', 'guided', 'smoothgrad'"),
        ({"reduce": "mean"}, "reduce must be one of 'max_abs', 'sum', None"),
        ({"rule": "guided"}, "method 'vanilla' is a rule itself"),
        ({"method": "smoothgrad", "rule": "half"}, "rule must be one of"),
        ({"samples": 0}, "samples must be at least 1"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"noise": -0.1}, "noise must be at least 0"),
        ({"chunk": 0}, "chunk must be at least 1"),
        ({"baseline": "black"}, "expected a baseline that is a finite number or a picture"),
        ({"baseline": np.nan}, "expected a baseline"),
        ({"baseline": np.zeros((3, 7, 6, 2))}, "expected a baseline"),
        ({"baseline": np.zeros(3)}, "expected a baseline"),
        ({"layer": "secnd"}, "net has no layer 'secnd'; did you mean second"),
        ({"layer": "second", "channel": 3}, "channel must be one of the 3 of 'second', received 3"),
        ({"layer": "second", "channel": -1}, "channel must be at least 0"),
        ({"layer": "second", "position": (2, 0)}, r"a place in \[2, 2\], received \(2, 0\)"),
        ({"layer": "second", "position": (0, -1)}, "a place in"),
        ({"layer": "second", "position": 1}, "a place in"),
        ({"layer": "second", "position": "mean"}, "position must be 'max', 'sum' or a place"),
        ({"layer": "last", "position": (0, 0)}, r"a place in \[\]"),
        ({"channel": 1}, "channel and position belong to a layer"),
        ({"position": "sum"}, "channel and position belong to a layer"),
        ({"image_shape": (9, 9, 2)}, "received image_shape"),
    ],
)
def test_settings_that_cannot_be_are_refused(net, options, words):
    with pytest.raises(ValueError, match=words):
        Saliency(net, **options)


def test_classifiers_that_cannot_be_guided_are_refused_before_anything_else():
    hidden = keras.Sequential([keras.Input(SHAPE), layers.Lambda(tf.function(tf.nn.relu, autograph=False))])
    hidden.add(layers.Flatten())
    hidden.add(layers.Dense(3))
    smooth = keras.Sequential([keras.Input(SHAPE), layers.Flatten(), layers.Dense(3, "silu")])
    for method in ("guided", "deconvnet"):
        with pytest.raises(ValueError, match=r"cannot reach every rectifier.*write it as keras.ops.relu"):
            Saliency(hidden, method)
        with pytest.raises(ValueError, match="this network has none; use the vanilla gradient"):
            Saliency(smooth, method)
    with pytest.raises(ValueError, match="cannot reach every rectifier"):
        Saliency(hidden, "smoothgrad", rule="guided", **FEW)
    assert np.isfinite(Saliency(hidden)(IMAGES)).all()


def test_pictures_classes_and_seeds_that_cannot_be_are_refused(models):
    model = models["smoothgrad"]
    for options, words in (
        ({"images": 255 * IMAGES}, "divide 8-bit"),
        ({"images": IMAGES[..., :1]}, r"expected images \[B, 7, 6, 2\]"),
        ({"images": IMAGES[0]}, r"expected images \[B, 7, 6, 2\]"),
        ({"images": np.where(IMAGES > 0.5, np.nan, IMAGES)}, "not finite"),
        ({"classes": 4}, "from 0 to 3, or -1"),
        ({"classes": [0, 1]}, "a class for each of 3 pictures, received 2"),
        ({"classes": [0.0, 1.0, 2.0]}, "whole numbers"),
        ({"seed": [[0, 0]]}, "a row of seed for each of 3 pictures, received 1"),
        ({"seed": [0, 1, 2]}, r"seeds \[B, 2\] int32"),
        ({"seed": -1}, "seed must be from 0"),
    ):
        given = {"images": IMAGES, **options}
        with pytest.raises(ValueError, match=words):
            model(given.pop("images"), **given)
        with pytest.raises(ValueError, match=words):
            model.explain(**{"images": IMAGES, **options})


# --- beside captum --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_captum_has_the_same_maps_on_the_same_weights(net, method):
    torch = pytest.importorskip("torch", reason="needs the [peers] extra")
    attr = pytest.importorskip("captum.attr", reason="needs the [peers] extra")
    from torch import nn

    k1, b1, k2, b2, dense, offset = (torch.from_numpy(weight) for weight in net.get_weights())
    first, second, last = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 3, 2, 2), nn.Linear(12, 4)
    for layer, weight, bias in ((first, k1.permute(3, 2, 0, 1), b1), (second, k2.permute(3, 2, 0, 1), b2)):
        layer.weight.data, layer.bias.data = weight.contiguous(), bias
    last.weight.data, last.bias.data = dense.T.contiguous(), offset

    class Flat(nn.Module):  # as Keras does it, colours last
        def forward(self, maps):
            return maps.permute(0, 2, 3, 1).flatten(1)

    # One ReLU where Keras's has two in a row: by every rule two are one, but captum's hooks of neighbours meet.
    twin = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), Flat(), last)
    images = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).contiguous().requires_grad_()
    midpoints = {"n_steps": 5, "method": "riemann_middle"}
    explain = {
        "vanilla": lambda **given: attr.Saliency(twin).attribute(abs=False, **given),
        "guided": attr.GuidedBackprop(twin).attribute,
        "deconvnet": attr.Deconvolution(twin).attribute,
        "smoothgrad": lambda **given: attr.NoiseTunnel(attr.Saliency(twin)).attribute(stdevs=0.0, abs=False, **given),
        "input_x_gradient": attr.InputXGradient(twin).attribute,
        "integrated": lambda **given: attr.IntegratedGradients(twin).attribute(**midpoints, **given),
    }[method]
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its hooks
        right = explain(inputs=images, target=torch.from_numpy(CLASSES)).detach().permute(0, 2, 3, 1).numpy()
    close(Saliency(net, method, None, **{**FEW, "noise": 0.0})(IMAGES, classes=CLASSES), right)


def test_squeezenet_tells_cat_from_grass():
    """Guided gradients of the photograph's class fall on the animal, which fills the middle."""
    path = os.environ.get("DMKERAS_SQUEEZENET")
    if not path:
        pytest.skip("DMKERAS_SQUEEZENET names no file of SqueezeNet's weights")
    from dmkeras.backbones.subjects import subject

    what = subject("squeezenet", path)
    cat = what.images[:1]
    model = Saliency(what.classifier, "guided")
    asked = model.signatures()["serving_default"][0](cat, tf.constant([-1]))
    assert what.names[int(asked["explained"][0])] == "Egyptian cat"
    found = asked["saliency"].numpy()[0]
    inside = np.zeros((224, 224), bool)
    inside[30:200, 50:190] = True
    assert found[inside].mean() > 2 * found[~inside].mean()
