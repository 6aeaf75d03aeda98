"""What fooling images owe beside the contract: the class told wins by the change told, found by the climb of CS231n."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from dmkeras.understanding.fooling import FoolingImage

SHAPE, K = (7, 6, 3), 4
RNG = np.random.default_rng(0)


def classifier(shape=SHAPE, classes=K, end=None, dtype="float64", scale=8.0, head=None):
    """Smooth, of random weights; `end` is the activation of the answers."""
    stack = [layers.Conv2D(5, 3, activation="tanh", dtype=dtype), layers.Flatten(dtype=dtype)]
    picture = keras.Input(shape, dtype="float64" if dtype == "float64" else "float32")
    model = keras.Sequential([picture, *(head or stack), layers.Dense(classes, end, dtype=dtype)])
    rng = np.random.default_rng(1)
    shapes = [weight.shape for weight in model.weights]
    model.set_weights([rng.normal(size=s) * scale / np.sqrt(max(1, np.prod(s[:-1]))) / 2 for s in shapes])
    return model


def linear(weights, biases, shape):
    """S = W' x + b."""
    model = classifier(shape, len(biases), head=[layers.Flatten(dtype="float64")])
    model.set_weights([weights, biases])
    return model


@pytest.fixture(scope="module")
def net():
    return classifier()


@pytest.fixture(scope="module")
def images():
    return RNG.uniform(0.2, 0.8, (5, *SHAPE))


@pytest.fixture(scope="module")
def targets(net, images):
    """The class that the net holds for the least likely."""
    return net.predict(images, verbose=0).argmin(1).astype("int32")


def lead(net, images, targets):
    """S_t less the largest other, in NumPy."""
    logits, rows = np.array(net(images)), np.arange(len(targets))
    own = logits[rows, targets].copy()
    logits[rows, targets] = -np.inf
    return own - logits.max(1)


def climb(net, images, targets, step, most, confidence=0.01, norm="l2", rounded=False, clipped=True, of="logit"):
    """The search in Python, picture by picture -> changed pictures, steps."""
    found, taken = [], []
    for image, target in zip(images[:, None], targets):
        x, count = image.copy(), 0
        while True:
            seen = np.round(255 * x) / 255 if rounded and count else x
            if lead(net, seen, [target])[0] > confidence or count == most:
                break
            with tf.GradientTape() as tape:
                seen = tf.constant(seen)
                tape.watch(seen)
                answers = net(seen)
                score = (answers if of == "logit" else tf.nn.softmax(answers))[0, target]
            slope = tape.gradient(score, seen).numpy()
            x = x + step * (np.sign(slope) if norm == "linf" else slope / np.sqrt((slope**2).sum()))
            x, count = np.clip(x, 0, 1) if clipped else x, count + 1
        found.append(seen[0] if not tf.is_tensor(seen) else seen[0].numpy())
        taken.append(count)
    return np.array(found), np.array(taken)


# --- the search -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("rounded", [False, True])
def test_the_fooled_class_wins_by_the_change_that_is_stated(net, images, targets, norm, rounded):
    found = FoolingImage(net, norm=norm, confidence=0.5, rounded=rounded)(images, targets)
    found = {key: value.numpy() for key, value in found.items()}
    assert found["fooled"].all()
    assert (found["steps"] > 0).all()
    assert (lead(net, found["images"], targets) > 0.5).all()
    np.testing.assert_array_equal(found["target_classes"], targets)
    change = found["images"] - images
    np.testing.assert_allclose(found["l2_change"], np.sqrt((change**2).reshape(5, -1).sum(1)), rtol=1e-12)
    np.testing.assert_allclose(found["largest_change"], abs(change).reshape(5, -1).max(1), rtol=1e-12)
    levels = 255 * found["images"]
    assert (abs(levels - np.round(levels)).max() < 1e-9) == rounded


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("rounded", [False, True])
def test_the_search_is_that_of_the_course_step_by_step(net, images, targets, norm, rounded):
    step = {"l2": 0.3, "linf": 0.03}[norm]
    options = {"norm": norm, "rounded": rounded, "confidence": 2.0}
    expected, steps = climb(net, images, targets, step, 40, **options)
    found = FoolingImage(net, step, 40, **options)(images, targets)
    np.testing.assert_array_equal(found["steps"], steps)
    assert len(set(steps)) > 1  # some pictures wait for others
    np.testing.assert_allclose(found["images"], expected, atol=1e-9)
    for wrong in ({"of": "probability"}, {"confidence": 0.0}, {"rounded": not rounded}):
        other, _ = climb(net, images, targets, step, 40, **{**options, **wrong})
        assert norm == "linf" or not np.allclose(found["images"], other, atol=1e-4)


def test_pictures_stay_in_their_range(net, images, targets):
    options = {"step": 1.0, "max_steps": 12, "confidence": 30.0}
    found = FoolingImage(net, **options)(images, targets)["images"].numpy()
    assert found.min() == 0
    assert found.max() == 1
    expected, _ = climb(net, images, targets, 1.0, 12, 30.0)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    free, _ = climb(net, images, targets, 1.0, 12, 30.0, clipped=False)
    assert free.max() > 1.1


def test_a_step_goes_along_the_gradient_of_finite_differences(net, images, targets):
    step, h = 1e-3, 1e-5
    found = FoolingImage(net, step, 1, confidence=50.0)(images, targets)["images"].numpy()
    slopes = np.zeros_like(images)
    for place in np.ndindex(SHAPE):
        moved = np.zeros(SHAPE)
        moved[place] = h
        up, down = (np.asarray(net(images + sign * moved)) for sign in (1, -1))
        slopes[(slice(None), *place)] = ((up - down) / (2 * h))[np.arange(5), targets]
    slopes /= np.sqrt((slopes**2).sum((1, 2, 3), keepdims=True))
    np.testing.assert_allclose((found - images) / step, slopes, atol=1e-6)


def test_of_two_lines_the_change_is_the_shortest_there_is():
    w, b = RNG.normal(size=(12, 1)), 2.5
    net = linear(np.hstack([w, -w]), np.array([b, -b]), (2, 2, 3))
    images = RNG.uniform(0.4, 0.6, (4, 2, 2, 3))
    images[0] -= 0.4 * np.sign(w.reshape(2, 2, 3))  # one is class 1 already
    logit = images.reshape(4, 12) @ w[:, 0] + b
    found = FoolingImage(net, 0.01, 500, confidence=0.0)(images, np.ones(4, "int32"))
    least = np.maximum(logit, 0) / np.linalg.norm(w)  # the distance to the plane S_0 = S_1
    assert least[0] == 0
    assert (least[1:] > 0.1).all()
    np.testing.assert_array_equal(found["steps"], np.ceil(least / 0.01))
    change = (found["images"].numpy() - images).reshape(4, 12)
    np.testing.assert_allclose(change, -0.01 * found["steps"].numpy()[:, None] * w.T / np.linalg.norm(w), atol=1e-12)
    assert (found["l2_change"].numpy() - least < 0.01 + 1e-9).all()


def test_of_a_line_every_pixel_changes_by_the_step():
    w = RNG.normal(size=(12, 3))
    found = FoolingImage(linear(w, np.zeros(3), (2, 2, 3)), 0.05, 1, "linf", 1e3)
    images = np.full((1, 2, 2, 3), 0.5)
    change = found(images, np.array([1], "int32"))["images"].numpy() - images
    np.testing.assert_allclose(change, 0.05 * np.sign(w[:, 1]).reshape(1, 2, 2, 3), atol=1e-12)


def test_gradients_too_small_to_square_still_lead_somewhere():
    w = RNG.normal(size=(12, 2)) * 1e-25
    net = linear(w, np.array([1.0, 0.0]), (2, 2, 3))
    images = np.full((1, 2, 2, 3), 0.5, "float32")
    found = FoolingImage(net, 0.1, 1)(images, np.array([1], "int32"))
    np.testing.assert_allclose(found["l2_change"], 0.1, rtol=1e-4)


# --- rows -----------------------------------------------------------------------------------------------------------


def test_an_answer_does_not_depend_on_the_rest_of_its_batch(net, images, targets):
    model = FoolingImage(net, 0.3, 40, confidence=2.0)
    together = model(images, targets)
    assert len(set(together["steps"].numpy())) > 1
    for row in range(5):
        alone = model(images[row : row + 1], targets[row : row + 1])
        for key, values in alone.items():
            np.testing.assert_array_equal(values[0], together[key][row], err_msg=key)


def test_a_target_that_leads_already_takes_no_step_and_changes_nothing(net, images):
    predicted = net.predict(images, verbose=0).argmax(1).astype("int32")
    for rounded in (False, True):
        found = FoolingImage(net, rounded=rounded)(images, predicted)
        np.testing.assert_array_equal(found["images"], images)
        for key, expected in {"steps": 0, "fooled": 1, "l2_change": 0, "largest_change": 0}.items():
            np.testing.assert_array_equal(found[key], np.full(5, expected), err_msg=key)
    more = lead(net, images, predicted).max() + 1
    assert (FoolingImage(net, confidence=more)(images, predicted)["steps"].numpy() > 0).all()


def test_what_never_flips_says_so_after_all_its_steps(images):
    net = linear(np.zeros((126, 3)), np.array([2.0, 1.0, 0.0]), SHAPE)
    found = FoolingImage(net, max_steps=7)(images, np.array([0, 1, 2, 1, 0], "int32"))
    np.testing.assert_array_equal(found["fooled"], [1, 0, 0, 0, 1])
    np.testing.assert_array_equal(found["steps"], [0, 7, 7, 7, 0])
    np.testing.assert_array_equal(found["images"], images)


def test_a_class_that_flips_at_the_last_step_allowed_has_flipped(net, images, targets):
    steps = FoolingImage(net, 0.3)(images, targets)["steps"].numpy()
    least = steps.min()
    assert 0 < least < steps.max()
    np.testing.assert_array_equal(FoolingImage(net, 0.3, least)(images, targets)["fooled"], steps == least)


def test_no_target_is_the_class_that_comes_second(net, images):
    model, second = FoolingImage(net), np.argsort(net.predict(images, verbose=0))[:, -2]
    for classes in (None, np.full(5, -1), np.array([-1, *second[1:4], -1])):
        np.testing.assert_array_equal(model(images, classes)["target_classes"], second)
    assert (model(images)["l2_change"].numpy() > 0).all()


# --- rounding and files ---------------------------------------------------------------------------------------------


def files_of(images):
    return tf.stack([tf.io.encode_png(tf.cast(np.round(255 * image), "uint8")) for image in images])


def test_the_files_answered_fool_which_rounding_would_undo(net, images, targets):
    images, step = np.round(255 * images) / 255, 1e-3
    function, _ = FoolingImage(net, step, 2000, confidence=0.0).signatures()["fool_bytes"]
    found = function(files_of(images), targets)
    decoded = np.array([tf.io.decode_png(file).numpy() / 255 for file in found["picture_bytes"].numpy()])
    assert (lead(net, decoded, targets) > 0).all()
    change = (decoded - images).reshape(5, -1)
    np.testing.assert_allclose(found["l2_change"], np.linalg.norm(change, axis=1), rtol=1e-4)
    np.testing.assert_allclose(found["largest_change"], abs(change).max(1), rtol=1e-4)
    unrounded = FoolingImage(net, step, 2000, confidence=0.0)(images, targets)["images"].numpy()
    assert (lead(net, unrounded, targets) > 0).all()
    assert (lead(net, np.round(255 * unrounded) / 255, targets) <= 0).any()  # the law can be broken


def test_files_are_answered_as_the_rounded_pictures_are(net, images, targets):
    images = (np.round(255 * images) / 255).astype("float32")
    model = FoolingImage(net, rounded=True)
    floats = model.signatures()["serving_default"][0](tf.constant(images), targets)
    files = model.signatures()["fool_bytes"][0](files_of(images), targets)
    assert set(files) == set(floats) - {"images"} | {"picture_bytes"}
    for key in set(files) & set(floats):
        np.testing.assert_array_equal(files[key], floats[key], err_msg=key)
    for file, image in zip(files["picture_bytes"].numpy(), floats["images"].numpy()):
        np.testing.assert_array_equal(tf.io.decode_png(file), np.round(255 * image))
    np.testing.assert_allclose(floats["images"], model(images, targets)["images"], atol=1e-6)


def test_a_file_whose_target_leads_is_answered_as_it_came(net, images):
    predicted = net.predict(images, verbose=0).argmax(1).astype("int32")
    found = FoolingImage(net).signatures()["fool_bytes"][0](files_of(images), predicted)
    np.testing.assert_array_equal(found["steps"], np.zeros(5))
    np.testing.assert_array_equal(tf.io.decode_png(found["picture_bytes"][2].numpy()), np.round(255 * images[2]))
    bigger = np.kron(images[:1], np.ones((1, 3, 2, 1)))
    found = FoolingImage(net).signatures()["fool_bytes"][0](files_of(bigger), predicted[:1])
    assert tf.io.decode_png(found["picture_bytes"][0]).shape == SHAPE


# --- any classifier, any way to run it ------------------------------------------------------------------------------


def test_a_softmax_behind_the_logits_does_not_matter(net, images, targets):
    options = {"step": 0.3, "confidence": 1.0}
    expected = FoolingImage(net, **options)(images, targets)
    found = FoolingImage(classifier(end="softmax"), **options)(images, targets)
    for key, values in found.items():
        np.testing.assert_allclose(values, expected[key], rtol=1e-9, err_msg=key)


def test_a_grey_picture_a_subclass_and_half_precision_are_fooled():
    @keras.saving.register_keras_serializable("fooling")
    class Grey(keras.Model):
        image_shape = (9, 5, 1)

        def __init__(self):
            super().__init__(dtype="mixed_bfloat16")
            self.inner = classifier((9, 5, 1), dtype="mixed_bfloat16")
            self(keras.Input((9, 5, 1)))

        def call(self, images):
            return self.inner(images)

    net, images = Grey(), RNG.uniform(size=(1, 9, 5, 1)).astype("float32")
    found = FoolingImage(net, confidence=1.0)(images)
    assert found["images"].dtype == "float32"
    assert found["fooled"].numpy().all()
    assert np.argmax(net(found["images"])) == found["target_classes"][0] != np.argmax(net(images))


def test_two_channels_have_no_files():
    assert set(FoolingImage(classifier((6, 6, 2))).signatures()) == {"serving_default"}


def test_it_compiles_under_xla_to_the_same(images, targets):
    model = FoolingImage(classifier(dtype="float32"), 0.3, confidence=1.0)
    images = images.astype("float32")
    expected = model(images, targets)
    found = tf.function(model, jit_compile=True, autograph=False)(tf.constant(images), target_classes=targets)
    np.testing.assert_array_equal(found["steps"], expected["steps"])
    np.testing.assert_allclose(found["images"], expected["images"], atol=1e-4)


def test_progress_is_told_and_changes_nothing(net, images, targets):
    model, told = FoolingImage(net), []
    found = model.fool(images, targets, progress=lambda *seen: told.append(seen))
    for key, values in model(images, targets).items():
        np.testing.assert_array_equal(found[key], values, err_msg=key)
        np.testing.assert_array_equal([seen[2][key][0] for seen in told], values, err_msg=key)
    assert [seen[:2] for seen in told] == [(i, 5) for i in range(1, 6)]
    assert model.fool(images[:0])["images"].shape == (0, *SHAPE)


def test_one_target_serves_for_all_pictures(net, images):
    model = FoolingImage(net)
    np.testing.assert_array_equal(model.fool(images, 2)["target_classes"], np.full(5, 2))


def test_its_config_says_how_it_was_made(net, images, targets):
    model = FoolingImage(net, 0.07, 9, "linf", 0.4, True)
    again = FoolingImage.from_config(model.get_config())
    again.classifier.set_weights(net.get_weights())
    expected = model(images, targets)
    for key, values in again(images, targets).items():
        np.testing.assert_array_equal(values, expected[key], err_msg=key)


# --- doors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"step": 0}, "step must be at least"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"norm": "l1"}, "norm must be one of 'l2', 'linf'"),
        ({"confidence": -1}, "confidence must be at least 0"),
        ({"image_shape": (8, 6, 3)}, r"takes pictures of \(7, 6, 3\), received image_shape \(8, 6, 3\)"),
    ],
)
def test_settings_out_of_range_are_refused(net, options, words):
    with pytest.raises(ValueError, match=words):
        FoolingImage(net, **options)


def test_a_classifier_of_one_answer_is_refused():
    with pytest.raises(ValueError, match=r"at least two classes.*make it two logits"):
        FoolingImage(classifier(classes=1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"target_classes": np.full(5, 4)}, "expected classes from 0 to 3, or -1 for the class that comes second"),
        ({"target_classes": np.full(5, 1.0)}, "expected classes .B. of whole numbers.*float64"),
        ({"target_classes": np.full(4, 1)}, "a class for each of 5 pictures, received 4"),
        ({"images": np.zeros((5, 6, 7, 3))}, r"expected images .B, 7, 6, 3., received .5, 6, 7, 3."),
        ({"images": np.full((5, *SHAPE), 255.0)}, "divide 8-bit pixels by 255"),
    ],
)
def test_pictures_and_targets_that_cannot_be_are_refused(net, images, targets, change, words):
    given, model = {"images": images, "target_classes": targets, **change}, FoolingImage(net)
    for verb in (model, model.fool):
        with pytest.raises(ValueError, match=words):
            verb(given["images"], target_classes=given["target_classes"])
