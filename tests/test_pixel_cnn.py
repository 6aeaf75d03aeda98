"""Laws of PixelCNN: the paper's equations in NumPy, who sees whom, draws that remember; known-wrong variants that fail.

Tolerances: 1e-4 for sums of a hundred float32 terms of size one.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import special

import dmkeras
from dmkeras import PixelCNN
from dmkeras.parts.masked_conv import mask
from tests import dependency

SHAPES = [(5, 9, 1), (9, 4, 1), (4, 9, 3), (3, 2, 3)]


def layers_of(model):
    return [model.first, *(layer for block in model.blocks for layer in block), *model.head]


def small(shape=(3, 4, 1), levels=2, filters=4, num_blocks=2, head_filters=5, kind=PixelCNN):
    return dependency.with_random_weights(kind(shape, filters, num_blocks, levels, head_filters), scale=1.5)


@pytest.fixture(scope="module")
def binary():
    return small()


@pytest.fixture(
    scope="module",
    params=[((3, 4, 1), 2), ((2, 3, 3), 4), ((4, 2, 3), 2), ((3, 2, 3), 256)],
    ids=lambda case: f"{'x'.join(map(str, case[0]))}-{case[1]}",
)
def any_model(request):
    return small(*request.param)


# The paper's equations.


def masked(layer, maps, kind, size):
    """A masked convolution of maps [H, W, C] in float64, place by place, groups of maps by colour contiguous."""
    kernel, bias = (np.asarray(weight, "float64") for weight in layer.get_weights())
    (height, width, channels), filters, colours = maps.shape, len(bias), layer.colours
    group_in, group_out = (np.arange(count) * colours // count for count in (channels, filters))
    own = (group_in[:, None] < group_out) if kind == "A" else (group_in[:, None] <= group_out)
    answer = np.zeros((height, width, filters)) + bias
    for y, x, dy, dx in np.ndindex(height, width, size // 2 + 1, size):
        v, u, here = y - size // 2 + dy, x - size // 2 + dx, (dy, dx) == (size // 2, size // 2)
        if v >= 0 and 0 <= u < width and (dy < size // 2 or dx <= size // 2):
            answer[y, x] += maps[v, u] @ (kernel[dy, dx] * own if here else kernel[dy, dx])
    return answer


def reference_logits(model, image):
    """Table 1 and figure 5 (left), of one image [H, W, C] -> [H, W, C] or [H, W, C, K]."""
    relu = lambda maps: np.maximum(maps, 0)
    maps = masked(model.first, image, "A", 7)
    for narrow, across, widen in model.blocks:
        inside = masked(narrow, relu(maps), "B", 1)
        inside = masked(across, relu(inside), "B", 3)
        maps = maps + masked(widen, relu(inside), "B", 1)
    for layer in model.head:
        maps = masked(layer, relu(maps), "B", 1)
    return maps if model.levels == 2 else maps.reshape(*image.shape, model.levels)


def check_the_equations_hold(model):
    images = dependency.pictures(3, model.image_shape, model.levels)
    expected = np.stack([reference_logits(model, image) for image in images])
    np.testing.assert_allclose(model(images), expected, rtol=1e-4, atol=1e-4)
    if model.levels == 2:
        log_prob = np.log(np.where(images == 1, special.expit(expected), special.expit(-expected)))
    else:
        index = np.rint(images * (model.levels - 1)).astype(int)[..., None]
        log_prob = np.take_along_axis(special.log_softmax(expected, axis=-1), index, axis=-1)[..., 0]
    np.testing.assert_allclose(model.log_prob(images), log_prob.sum(axis=(1, 2, 3)), rtol=1e-4, atol=1e-4)


def test_logits_and_likelihoods_are_those_of_the_paper(any_model):
    check_the_equations_hold(any_model)


def test_the_layers_have_the_sizes_of_table_1():
    model = PixelCNN((8, 8, 3), filters=6, num_blocks=3, levels=256, head_filters=9)
    kernels = [weight.shape for weight in model.get_weights() if len(weight.shape) == 4]
    block = [(1, 1, 12, 6), (2, 3, 6, 6), (1, 1, 6, 12)]
    assert kernels == [(4, 7, 3, 12), *block * 3, (1, 1, 12, 9), (1, 1, 9, 9), (1, 1, 9, 768)]
    assert [layer.kind for layer in layers_of(model)] == ["A", *"B" * 12]


# Who sees whom.


def check_reach(model):
    """Exactly what the masks promise: earlier values but for the blind spot, and every earlier colour of the pixel."""
    dependency.with_positive_weights(model)
    found = dependency.dependencies(model, model.image_shape)
    dependency.check_sees_no_later_value(found)
    layers = [("A", 7, 7), *[("B", 1, 1), ("B", 3, 3), ("B", 1, 1)] * model.num_blocks, *[("B", 1, 1)] * 3]
    dependency.check_sees(found, dependency.seen_through(layers, model.image_shape))
    return found


@pytest.mark.parametrize("levels", [2, 4])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_value_sees_all_earlier_ones_but_those_in_the_blind_spot(shape, levels):
    found = check_reach(PixelCNN(shape, 4, 1, levels, head_filters=4))
    height, width, colours = shape
    sees = found.reshape(height, width, colours, height, width, colours)
    for colour in range(colours):
        assert sees[1, 1, colour, 1, 1].sum() == colour
        assert sees[1, 1, colour, 1, 0].all()
        assert sees[1, 0, colour, 0, 1].all()
    if width == 9:  # 3 columns to the right in the row above; one more in the next, by the 3x3 convolution of one block
        for row, columns in ((1, 3), (2, 4)):
            assert sees[row, 0, 0, 0, : columns + 1].all()
            assert not sees[row, 0, 0, 0, columns + 1 :].any()


def test_random_weights_leak_nothing_either():
    for shape, levels in (((4, 6, 1), 2), ((3, 4, 3), 4)):
        dependency.check_sees_no_later_value(dependency.dependencies(small(shape, levels), shape, count=4))


class Unmasked1x1(PixelCNN):
    """1x1 convolutions from all colours to all."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for layer in layers_of(self):
            if layer.kernel_size == (1, 1):
                layer.mask = np.ones_like(layer.mask)


class NoColours(PixelCNN):
    """Masks of a grey picture for three colours."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for layer in layers_of(self):
            layer.mask = mask(*layer.mask.shape[:2], layer.kernel_size[1], *layer.mask.shape[2:], layer.kind)


class InterleavedGroups(PixelCNN):
    """Map m belongs to colour m % C in the hidden layers, to that of its block in the logits."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        groups = np.arange(self.head[0].mask.shape[-1]) % 3
        self.head[0].mask = self.head[0].mask * 0 + (np.sort(np.arange(8) % 3)[:, None] <= groups)


class LevelsFirst(PixelCNN):
    """The logits read as (level, colour), although the masks' groups are contiguous."""

    def _logits(self, maps):
        return tf.einsum("bhwkc->bhwck", tf.reshape(maps, (-1, *self.image_shape[:2], self.levels, 3)))


class PaddedBelow(PixelCNN):
    """The zeros below the picture, as SAME padding of the kernel's rows has it: a row later is seen."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        across = self.blocks[0][1]
        across.margin = [[0, 0], [0, 1], [1, 1], [0, 0]]


class MaskBFirst(PixelCNN):
    """Mask B in the first layer too."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        first = self.first
        first.mask = mask(*first.mask.shape[:2], 7, *first.mask.shape[2:], "B", first.colours)


class MaskAInside(PixelCNN):
    """Mask A in a later layer: nothing leaks, but the left neighbour comes from one pixel farther."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        layer = self.head[0]
        layer.mask = mask(*layer.mask.shape[:2], 1, *layer.mask.shape[2:], "A", layer.colours)


@pytest.mark.parametrize(
    ("kind", "shape", "levels", "words"),
    [
        (Unmasked1x1, (3, 4, 3), 2, "values depend on themselves or later ones"),
        (NoColours, (3, 4, 3), 2, "36 of 630 are lost"),
        (InterleavedGroups, (3, 4, 3), 4, "values depend on themselves or later ones"),
        (LevelsFirst, (3, 4, 3), 4, "values depend on themselves or later ones"),
        (PaddedBelow, (4, 5, 1), 2, "values depend on themselves or later ones"),
        (MaskBFirst, (4, 5, 1), 2, "values depend on themselves or later ones"),
        (MaskAInside, (3, 4, 3), 2, "are lost"),
    ],
)
def test_the_dependency_matrix_catches_wrong_masks(kind, shape, levels, words):
    with pytest.raises(AssertionError, match=words):
        check_reach(kind(shape, 4, 1, levels, head_filters=4))


class DoubledResidual(PixelCNN):
    """y + (y + f(y)) in place of y + f(y)."""

    def call(self, images):
        maps = self.first(images)
        for narrow, across, widen in self.blocks:
            maps += maps + widen(tf.nn.relu(across(tf.nn.relu(narrow(tf.nn.relu(maps))))))
        for layer in self.head:
            maps = layer(tf.nn.relu(maps))
        return self._logits(maps)


class ProbabilitiesAsLogits(PixelCNN):
    """A sigmoid or a softmax where logits are asked for: still sums to one, and never sure of anything."""

    def call(self, images):
        logits = super().call(images)
        return tf.sigmoid(logits) if self.levels == 2 else tf.nn.softmax(logits)


class NoReluBeforeTheHead(PixelCNN):
    """The head's first layer without its ReLU."""

    def call(self, images):
        maps = self.first(images)
        for narrow, across, widen in self.blocks:
            maps += widen(tf.nn.relu(across(tf.nn.relu(narrow(tf.nn.relu(maps))))))
        maps = self.head[0](maps)
        return self._logits(self.head[2](tf.nn.relu(self.head[1](tf.nn.relu(maps)))))


@pytest.mark.parametrize("kind", [DoubledResidual, ProbabilitiesAsLogits, NoReluBeforeTheHead])
@pytest.mark.parametrize("levels", [2, 4])
def test_the_equations_catch_a_fault(kind, levels):
    with pytest.raises(AssertionError):
        check_the_equations_hold(small(levels=levels, kind=kind))


def test_the_equations_catch_colours_that_are_not_masked():
    with pytest.raises(AssertionError):
        check_the_equations_hold(small((2, 3, 3), kind=Unmasked1x1))


# It is a density.


@pytest.mark.parametrize(("shape", "levels"), [((3, 4, 1), 2), ((1, 2, 3), 4)], ids=str)
def test_the_probabilities_of_all_pictures_sum_to_one(shape, levels):
    dependency.check_sums_to_one(small(shape, levels))


@pytest.mark.parametrize("kind", [Unmasked1x1, MaskBFirst])
def test_probabilities_of_a_model_that_sees_itself_do_not(kind):
    with pytest.raises(AssertionError):
        dependency.check_sums_to_one(small((1, 2, 3), 4, kind=kind))


# Draws.


def test_what_is_recorded_while_drawing_is_the_log_probability(any_model):
    dependency.check_what_is_recorded_is_the_log_probability(any_model)


def test_remembered_activations_change_no_pixel(any_model):
    dependency.check_remembering_changes_nothing(any_model, count=12)


def test_a_picture_depends_on_its_row_of_the_seed_alone(any_model):
    dependency.check_a_row_depends_on_its_seed_alone(any_model)


def test_completions_keep_what_is_given(any_model):
    dependency.check_completion_keeps_what_is_given(any_model)


@pytest.mark.parametrize("known", [[[1, 0], [0, 0]], [[0, 1], [1, 0]]], ids=str)
def test_completions_have_the_frequencies_of_the_model(known):
    given = np.array([[1, 0], [1, 1]], "float32")[..., None]
    model = small((2, 2, 1))
    dependency.check_completions_have_their_frequencies(model, given, np.array(known)[..., None])


class RemembersAnotherPixel(PixelCNN):
    """Cached sampling that takes what stands above and to the left for what stands above."""

    def _at_pixels(self):
        network = super()._at_pixels()
        return lambda window, kept: network(window, tf.gather(kept, [0, 0, 2, 3]))


class ForgetsTheRowAbove(PixelCNN):
    """Cached sampling that begins each row as if it were the first."""

    def _at_pixels(self):
        network = super()._at_pixels()
        return lambda window, kept: network(window, kept * [[[[[float(i == 3)]]]] for i in range(4)])


@pytest.mark.parametrize(("shape", "levels"), [((9, 7, 1), 2), ((2, 9, 1), 3), ((4, 5, 3), 2), ((1, 8, 1), 2)], ids=str)
def test_drawing_several_rows_at_once_changes_nothing(shape, levels):
    """Widths of several slots, whole and broken."""
    model = small(shape, levels)
    dependency.check_remembering_changes_nothing(model)
    dependency.check_what_is_recorded_is_the_log_probability(model)


@pytest.mark.parametrize("kind", [RemembersAnotherPixel, ForgetsTheRowAbove])
def test_a_wrong_memory_is_caught(kind):
    model = small((4, 4, 1), kind=kind)
    with pytest.raises(AssertionError):
        dependency.check_what_is_recorded_is_the_log_probability(model)
    with pytest.raises(AssertionError):
        dependency.check_remembering_changes_nothing(model, count=30)


def test_compiled_draws_are_the_same_pictures(binary):
    for seed in (0, 1):
        compiled = binary.sample(6, seed, jit_compile=True)
        np.testing.assert_array_equal(compiled, binary.sample(6, seed))
        np.testing.assert_array_equal(compiled, binary.sample(6, seed, cached=False))


def test_any_number_of_pictures_is_drawn_with_the_weights_of_the_moment():
    model = small((2, 3, 1))
    before = model.sample(40, seed=5)
    for count in (1, 3, 40, 7):
        pictures = model.sample(count, seed=5)
        assert pictures.shape == (count, 2, 3, 1)
        np.testing.assert_array_equal(pictures, before[:count])
    images, log_prob = np.asarray(before), model.log_prob(before)
    model.head[-1].bias.assign([30.0])
    np.testing.assert_array_equal(model.sample(40, seed=5), np.ones_like(images))
    assert not np.allclose(model.log_prob(images), log_prob)


def test_seeds_are_repeated_and_without_one_draws_differ(binary):
    a, b, other, fresh, again = (np.asarray(binary.sample(20, seed)) for seed in (3, 3, 4, None, None))
    np.testing.assert_array_equal(a, b)
    for one, two in ((a, other), (fresh, again), (a, fresh)):
        assert (one != two).any()


def test_a_mask_of_one_picture_serves_all_and_what_is_unknown_may_be_anything(binary):
    images = dependency.pictures(3, (3, 4, 1))
    known = np.zeros((3, 4, 1))
    known[:2] = 1
    expected = binary.complete(images, np.stack([known] * 3), seed=0)
    for mask_of in (known, known.astype(bool), tf.constant(known), known[None]):
        np.testing.assert_array_equal(binary.complete(images, mask_of, seed=0), expected)
    for nothing in (np.nan, np.inf, -7, 255):
        np.testing.assert_array_equal(binary.complete(np.where(known, images, nothing), known, seed=0), expected)
    np.testing.assert_array_equal(binary.complete(images.astype("uint8"), known, seed=0), expected)
    np.testing.assert_array_equal(binary.complete(tf.constant(images), known, seed=0), expected)


# Training.


def copies(count, side=4, seed=0):
    """Pictures whose rows each repeat the toss of a coin: their entropy is side * ln 2."""
    coins = np.random.default_rng(seed).integers(2, size=(count, side, 1, 1))
    return np.broadcast_to(coins, (count, side, side, 1)).astype("float32")


@pytest.mark.parametrize("levels", [2, 3])
def test_training_reaches_a_known_entropy(levels):
    keras.utils.set_random_seed(0)
    model = PixelCNN((4, 4, 1), 4, 1, levels, head_filters=8)
    model.compile(keras.optimizers.Adam(0.02), jit_compile=False)
    model.fit(copies(1600), batch_size=32, epochs=4, verbose=0)
    found = model.evaluate(copies(400, seed=1), batch_size=400, verbose=0, return_dict=True)
    assert found["nll"] == pytest.approx(4 * np.log(2), abs=0.15)
    assert found["bits_per_dim"] == pytest.approx(found["nll"] / 16 / np.log(2), rel=1e-5)
    assert found["loss"] == pytest.approx(found["nll"], rel=1e-5)
    np.testing.assert_allclose(-np.mean(model.log_prob(copies(400, seed=1))), found["nll"], rtol=1e-4)
    drawn = np.asarray(model.sample(50, seed=0))
    assert (drawn == drawn[:, :, :1]).mean() > 0.97


def test_weighted_pictures_weigh_in_the_loss(binary):
    model = PixelCNN.from_config(binary.get_config())
    model.set_weights(binary.get_weights())
    model.compile("sgd", jit_compile=False)
    images, weight = (
        dependency.pictures(6, (3, 4, 1)),
        np.array([0, 1, 2, 0, 0, 3], "float32"),
    )  # Keras drops weights without a y
    found = model.evaluate(images, images, 6, sample_weight=weight, verbose=0, return_dict=True)
    nll = -np.asarray(model.log_prob(images))
    assert found["nll"] == pytest.approx((weight * nll).sum() / weight.sum(), rel=1e-5)


def test_a_compiled_step_is_the_step():
    losses = []
    for jit_compile in (False, True):
        model = small((2, 3, 3), levels=4, num_blocks=1)
        model.compile(keras.optimizers.SGD(0.01), jit_compile=jit_compile)
        images = dependency.pictures(32, (2, 3, 3), 4)
        losses.append(model.fit(images, batch_size=32, epochs=3, shuffle=False, verbose=0).history["nll"])
    assert losses[0][-1] < losses[0][0]
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_mixed_precision_answers_in_float32_and_draws_from_the_float32_weights(tmp_path):
    reference = small((3, 4, 3), levels=4)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = PixelCNN.from_config({**reference.get_config(), "dtype": "mixed_bfloat16"})
        model.set_weights(reference.get_weights())
        model.compile(keras.optimizers.Adam(0.01), jit_compile=False)
        images = dependency.pictures(64, (3, 4, 3), 4)
        assert model.first.compute_dtype == "bfloat16"
        assert model(images).dtype == model.log_prob(images).dtype == tf.float32
        # Eight bits of mantissa: a relative error of 1/256 for each of 36 log-probabilities of about one nat.
        np.testing.assert_allclose(model.log_prob(images), reference.log_prob(images), atol=1.0)
        np.testing.assert_array_equal(model.sample(5, seed=0), reference.sample(5, seed=0))
        loss = model.fit(images, batch_size=16, epochs=3, verbose=0).history["nll"]
    finally:
        keras.config.set_dtype_policy("float32")
    assert loss[-1] < loss[0]
    model.save(tmp_path / "model.keras")  # loaded where the policy is another
    np.testing.assert_array_equal(dmkeras.load(tmp_path / "model.keras").log_prob(images), model.log_prob(images))


# What is kept, refused and taken.


def test_a_saved_model_comes_back_whole_after_drawing_too(any_model, tmp_path):
    images = dependency.pictures(4, any_model.image_shape, any_model.levels)
    expected = any_model.log_prob(images), any_model.sample(2, seed=1)
    any_model.save(tmp_path / "model.keras")
    loaded = dmkeras.load(tmp_path / "model.keras")
    assert type(loaded) is PixelCNN
    assert loaded.get_config() == any_model.get_config()
    np.testing.assert_array_equal(loaded.log_prob(images), expected[0])
    np.testing.assert_array_equal(loaded.sample(2, seed=1), expected[1])


def test_the_configuration_makes_the_same_model():
    config = {"image_shape": (2, 3, 3), "filters": 5, "num_blocks": 3, "levels": 7, "head_filters": 4}
    model = PixelCNN(**config)
    assert model.get_config().items() >= config.items()
    assert PixelCNN.from_config(model.get_config()).get_config() == model.get_config()


@pytest.mark.parametrize("kind", ["float64", "uint8", "int32", "bool"])
def test_binary_pixels_may_have_any_type(binary, kind):
    images = dependency.pictures(5, (3, 4, 1))
    np.testing.assert_array_equal(binary.log_prob(images.astype(kind)), binary.log_prob(images))
    np.testing.assert_array_equal(binary(images.astype(kind)), binary(images))
    model = PixelCNN.from_config(binary.get_config())
    model.set_weights(binary.get_weights())
    model.compile("sgd", jit_compile=False)
    found = model.evaluate(images.astype(kind), batch_size=5, verbose=0, return_dict=True)
    assert found["nll"] == pytest.approx(-np.mean(binary.log_prob(images)), rel=1e-5)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.full((2, 3, 4, 1), 0.5), r"expected pixels in \{0, 1\}, received 0.5 among others; binarize"),
        (
            np.full((2, 3, 4, 1), 255, "uint8"),
            r"expected pixels in \[0, 1\], received 255(?:.0)? to 255(?:.0)?; divide 8-bit pixels",
        ),
        (np.ones((2, 4, 3, 1)), r"expected images \[B, 3, 4, 1\], received \[2, 4, 3, 1\]"),
        (np.ones((3, 4, 1)), r"expected images \[B, 3, 4, 1\], received \[3, 4, 1\]"),
        (np.full((2, 3, 4, 1), np.nan), "received 24 that are not finite"),
        ({"image": np.ones((2, 3, 4, 1))}, r"received a dict of image; map it to record\['image'\]"),
    ],
)
def test_other_pictures_are_refused(binary, images, words):
    ways = [binary.log_prob, lambda images: binary.complete(images, np.ones((3, 4, 1)))]
    ways += [binary.fit, lambda images: binary.fit(tf.data.Dataset.from_tensors(images)), binary.evaluate]
    for way in ways:
        with pytest.raises(ValueError, match=words):
            way(images)


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (np.ones((4, 3, 1)), r"expected known_mask \[2, 3, 4, 1\] or \[3, 4, 1\], received \[4, 3, 1\]"),
        (np.ones((5, 3, 4, 1)), r"received \[5, 3, 4, 1\]"),
        (np.ones((3, 4)), r"received \[3, 4\]"),
        (np.full((3, 4, 1), 0.5), "known_mask of 1 where a pixel is given and 0 elsewhere, received 0.5 among others"),
        (np.full((3, 4, 1), np.nan), "received nan among others"),
        ([[[1], [0]], [[1]]], "expected known_mask of numbers"),
        (None, "received nan"),
    ],
)
def test_other_masks_are_refused(binary, known, words):
    with pytest.raises(ValueError, match=words):
        binary.complete(np.ones((2, 3, 4, 1)), known)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"image_shape": (3, 3)}, "image_shape must be .* received"),
        ({"image_shape": 3}, "image_shape must be"),
        ({"image_shape": (3, 0, 1)}, "image_shape must be"),
        ({"filters": 2, "image_shape": (3, 3, 3)}, "each of 3 colours needs a map of its own, received filters=2"),
        ({"head_filters": 0}, "head_filters=0"),
        ({"num_blocks": 0}, "num_blocks must be at least 1, received 0"),
        ({"levels": 1}, "levels must be from 2 to 256, received 1"),
        ({"levels": 257}, "received 257"),
        ({"levels": 2.5}, "levels must be a whole number, received 2.5"),
        ({"filters": "16"}, "filters must be a whole number, received '16'"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        PixelCNN(**{"image_shape": (3, 3, 1), "filters": 3, "num_blocks": 1, "head_filters": 3, **arguments})


def test_counts_and_seeds_out_of_range_are_refused(binary):
    with pytest.raises(ValueError, match="num_samples must be at least 1, received 0"):
        binary.sample(0)
    with pytest.raises(ValueError, match="seed must be from 0"):
        binary.sample(1, seed=-1)
    with pytest.raises(ValueError, match=r"num_samples must be a whole number, received 2\.5"):
        binary.sample(2.5)
    with pytest.raises(ValueError, match=r"seed must be a whole number, received 1\.5"):
        binary.sample(2, seed=1.5)


def test_in_a_graph_pictures_are_scored_and_drawn_and_completions_are_refused(any_model):
    images = dependency.pictures(4, any_model.image_shape, any_model.levels)
    scored = tf.data.Dataset.from_tensor_slices(images).batch(3).map(any_model.log_prob)  # batches of unknown size
    np.testing.assert_allclose(np.concatenate(list(scored)), any_model.log_prob(images), rtol=1e-5, atol=1e-5)
    drawn = tf.function(lambda: any_model.sample(2, seed=3))()
    np.testing.assert_array_equal(drawn, any_model.sample(2, seed=3))
    with pytest.raises(ValueError, match=r"in a tf\.function use what signatures"):
        tf.function(lambda images: any_model.complete(images, np.ones(images.shape[1:])[..., :1]))(tf.constant(images))


def test_no_pictures_have_no_likelihoods_and_any_number_of_them_one_trace(any_model):
    images = dependency.pictures(7, any_model.image_shape, any_model.levels)
    assert any_model.log_prob(images[:0]).shape == (0,)
    whole = any_model.log_prob(images)
    for count in (1, 2, 3, 5):
        np.testing.assert_allclose(any_model.log_prob(images[:count]), whole[:count], rtol=1e-5, atol=1e-5)
    assert any_model._traced["log_prob", False].experimental_get_tracing_count() == 1


def test_endpoints_give_no_probability_to_what_is_no_picture(any_model):
    dependency.check_endpoints_give_no_probability_to_what_is_no_picture(any_model)
