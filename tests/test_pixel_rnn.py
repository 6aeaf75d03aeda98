"""Laws of PixelRNN: who sees whom, normalisation, sampling that remembers; known-wrong variants that must fail."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import dmkeras
from dmkeras import PixelRNN
from dmkeras.generative import pixel_rnn
from dmkeras.parts import masked_conv
from tests import dependency

ROW, DIAGONAL = "row_lstm", "diagonal_bilstm"
KINDS = (ROW, DIAGONAL)
SHAPES = [(9, 9, 1), (4, 10, 1), (8, 5, 1), (3, 6, 3)]


def small(shape=(3, 4, 1), kind=ROW, levels=2, filters=4, num_layers=2, **options):
    model = PixelRNN(shape, kind, filters, num_layers, levels, head_filters=5, **options)
    return dependency.with_random_weights(model, scale=1.5)


@pytest.fixture(scope="module", params=KINDS)
def binary(request):
    return small(kind=request.param)


@pytest.fixture(
    scope="module",
    params=[
        {"kind": ROW, "shape": (2, 3, 3), "levels": 4, "skip": True},
        {"kind": DIAGONAL, "shape": (3, 2, 3), "levels": 4, "skip": True, "residual": False},
        {"kind": ROW, "shape": (5, 3, 1), "levels": 3, "residual": False},
        {"kind": DIAGONAL, "shape": (3, 5, 1), "num_layers": 3},
    ],
    ids=lambda options: f"{options['kind']}-{'x'.join(map(str, options['shape']))}",
)
def any_model(request):
    return small(**request.param)


# Who sees whom.


def read_by_row_lstm(y, x):
    """The places of its input maps that a layer's state at (y, x) sees, but for its own: a triangle."""
    left = {(y, x - 1)}
    return left | {(v, u) for v in range(y) for u in range(x - (y - v) - 1, x + (y - v) + 1)}


def read_by_diagonal_bilstm(y, x, width):
    """Everything above and to the left, and from the row above on everything above and to the right."""
    from_left = {(v, u) for v in range(y + 1) for u in range(x + 1)}
    return (from_left | {(v, u) for v in range(y) for u in range(x, width)}) - {(y, x)}


def promised(kind, shape):
    """The matrix of dependencies of one layer: the pixels that the 7x7 convolution sees from where the layer reads."""
    _, width, colours = shape
    first = dependency.seen_through([("A", 7, 7)], shape)
    expected = first.copy()
    places = {place: i for i, place in enumerate(np.ndindex(*shape))}
    for (y, x, _), i in places.items():
        read = read_by_row_lstm(y, x) if kind == ROW else read_by_diagonal_bilstm(y, x, width)
        for place in read:
            for colour in range(colours):
                if (*place, colour) in places:
                    expected[i] |= first[places[*place, colour]]
    return expected


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_pixel_sees_what_its_kind_promises_and_no_later_pixel(kind, shape):
    model = dependency.with_positive_weights(small(shape, kind, filters=3, num_layers=1, levels=4))
    matrix = dependency.dependencies(model, shape)
    dependency.check_sees_no_later_value(matrix)
    dependency.check_sees(matrix, promised(kind, shape))


def test_the_promise_is_a_triangle_and_all_but_the_last_of_the_row_above():
    """Pairs of an earlier pixel that is not seen, 9x9, one layer: 410 and 40 of 3240 (measured on another code)."""
    assert 3240 - promised(ROW, (9, 9, 1)).sum() == 410
    missing = np.argwhere(np.tril(~promised(DIAGONAL, (9, 9, 1)), -1))
    assert len(missing) == 40
    for pixel, other in missing:  # the last pixel of the row above, out of reach of the 7x7 convolution
        assert other == pixel // 9 * 9 - 1
        assert pixel % 9 < 5


def test_more_layers_see_no_later_pixel_either(any_model):
    model = dependency.with_random_weights(PixelRNN.from_config(any_model.get_config()))
    matrix = dependency.dependencies(model, model.image_shape, count=2)
    dependency.check_sees_no_later_value(matrix)
    assert matrix[-1].sum() > 0.9 * (matrix.shape[0] - 1)


def leaks(model, logits_of=None):
    with pytest.raises(AssertionError, match="values depend on themselves or later ones"):
        dependency.check_sees_no_later_value(dependency.dependencies(logits_of or model, model.image_shape))


def test_a_zero_row_at_the_bottom_leaks(monkeypatch):
    monkeypatch.setitem(pixel_rnn.RECURRENCES, DIAGONAL, (1, (0, 1), 2))
    leaks(small((5, 5, 1), DIAGONAL, num_layers=1))


def test_states_from_the_right_that_do_not_move_down_leak(monkeypatch):
    def unmoved(recurrence, maps):
        maps = tf.transpose(maps, (1, 0, 2, 3))
        both = pixel_rnn.skew(tf.stack([maps, maps[:, :, ::-1]]))
        states = tf.transpose(recurrence(tf.transpose(both, (3, 0, 1, 2, 4))), (1, 2, 3, 0, 4))
        rightwards, leftwards = tf.unstack(pixel_rnn.unskew(states, maps.shape[2]))
        return tf.transpose(rightwards + leftwards[:, :, ::-1], (1, 0, 2, 3))

    monkeypatch.setattr(pixel_rnn, "_diagonals", unmoved)
    leaks(small((5, 5, 1), DIAGONAL, num_layers=1))


@pytest.mark.parametrize("kind", KINDS)
def test_colours_masked_over_all_gates_at_once_leak(kind):
    model = small((2, 3, 3), kind, num_layers=1)
    dependency.check_sees_no_later_value(dependency.dependencies(model, model.image_shape))
    for layer in model.recurrences[0].input_to_state:
        layer.mask = masked_conv.mask(*layer.mask.shape[:2], layer.kernel_size[1], *layer.mask.shape[2:], "B", 3)
    leaks(model)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_read_level_by_level_leak(kind):
    model = small((2, 3, 3), kind, 4, num_layers=1)
    swapped = lambda images: tf.einsum("...kc->...ck", tf.reshape(model(images), (-1, 2, 3, 4, 3)))
    leaks(model, swapped)


# A density.


def test_the_probabilities_of_all_pictures_sum_to_one(binary):
    dependency.check_sums_to_one(binary)


@pytest.mark.parametrize("kind", KINDS)
def test_the_probabilities_of_all_colour_pictures_sum_to_one(kind):
    dependency.check_sums_to_one(small((1, 2, 3), kind, levels=4, num_layers=1))


def test_what_is_recorded_while_drawing_is_the_log_probability(any_model):
    dependency.check_what_is_recorded_is_the_log_probability(any_model)


def test_remembering_changes_nothing(any_model):
    dependency.check_remembering_changes_nothing(any_model)


@pytest.mark.parametrize(("shape", "levels"), [((6, 7, 1), 2), ((3, 9, 1), 3), ((3, 5, 3), 2)], ids=str)
def test_drawing_several_rows_at_once_changes_nothing(shape, levels):
    """Widths of several slots, whole and broken."""
    model = small(shape, levels=levels)
    dependency.check_remembering_changes_nothing(model)
    dependency.check_what_is_recorded_is_the_log_probability(model)


@pytest.mark.parametrize("kind", KINDS)
def test_remembering_changes_nothing_with_256_levels(kind):
    model = small((2, 2, 3), kind, levels=256, num_layers=1)
    dependency.check_remembering_changes_nothing(model)
    compiled = model.sample(8, seed=0, jit_compile=True)
    np.testing.assert_array_equal(compiled, model.sample(8, seed=0))


def test_a_row_that_starts_from_the_first_state_is_not_the_models(monkeypatch):
    """The state to the left of a row has come over the zeros of the skewing; the learned one alone is another."""
    model = small((5, 4, 1), DIAGONAL)
    dependency.check_what_is_recorded_is_the_log_probability(model)
    first = lambda layer: [tf.transpose(state[..., 0], (2, 0, 1)) for state in (layer.h0, layer.c0)]
    monkeypatch.setattr(pixel_rnn, "_left_of_rows", first)
    with pytest.raises(AssertionError):
        dependency.check_what_is_recorded_is_the_log_probability(model)


def test_a_row_of_seeds_decides_its_picture_alone(binary):
    dependency.check_a_row_depends_on_its_seed_alone(binary)


def test_completion_keeps_what_is_given(any_model):
    dependency.check_completion_keeps_what_is_given(any_model)


def test_completions_have_the_frequencies_of_the_density(binary):
    known = np.array([[1, 1, 0, 1], [0, 1, 1, 1], [1, 0, 1, 0]])[..., None]
    dependency.check_completions_have_their_frequencies(binary, dependency.pictures(1, (3, 4, 1))[0], known)


# A model among others.


def trained(kind, jit_compile):
    keras.utils.set_random_seed(0)
    model = PixelRNN((3, 4, 1), kind, 4, 1, head_filters=5)
    model.compile(keras.optimizers.Adam(0.02), jit_compile=jit_compile)
    images = dependency.every_picture((3, 4, 1))[:: 4096 // 64] * [[1], [0], [1], [0]]
    return model.fit(images, batch_size=32, epochs=3, shuffle=False, verbose=0).history["nll"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_compiled_step_is_the_step(kind):
    plain, compiled = (trained(kind, jit_compile) for jit_compile in (False, True))
    assert plain[-1] < plain[0]
    np.testing.assert_allclose(compiled, plain, rtol=1e-4)


def test_the_loss_is_nats_per_picture(binary):
    binary.compile()
    images = dependency.pictures(6, binary.image_shape)
    found = binary.evaluate(images, verbose=0, return_dict=True)
    np.testing.assert_allclose(found["loss"], -np.mean(binary.log_prob(images)), rtol=1e-5)
    np.testing.assert_allclose(found["nll"], found["loss"], rtol=1e-5)
    np.testing.assert_allclose(found["bits_per_dim"], found["loss"] / 12 / np.log(2), rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_mixed_precision_answers_in_float32(kind):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = small(kind=kind)
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile("adam")
    images = dependency.pictures(8, model.image_shape)
    history = model.fit(images, epochs=3, verbose=0).history["loss"]
    assert history[-1] < history[0]
    for answer in (model.log_prob(images), model.sample(2, seed=0)):
        assert answer.dtype == tf.float32
        assert np.isfinite(answer).all()
    assert model.first.compute_dtype == "bfloat16"
    assert model(images).dtype == tf.float32


def test_a_saved_model_comes_back_whole(any_model, tmp_path):
    any_model.save(tmp_path / "model.keras")
    loaded = dmkeras.load(tmp_path / "model.keras")
    assert type(loaded) is PixelRNN
    assert loaded.get_config() == any_model.get_config()
    for weight, same in zip(any_model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, same)
    images = dependency.pictures(3, any_model.image_shape, any_model.levels)
    np.testing.assert_array_equal(loaded.log_prob(images), any_model.log_prob(images))


def test_the_configuration_makes_the_same_model():
    config = {
        "image_shape": (2, 3, 3),
        "kind": DIAGONAL,
        "filters": 6,
        "num_layers": 2,
        "levels": 4,
        "residual": False,
        "skip": True,
        "head_filters": 9,
    }
    model = PixelRNN(**config)
    assert model.get_config().items() >= config.items()
    again = PixelRNN.from_config(model.get_config())
    assert [weight.shape for weight in again.weights] == [weight.shape for weight in model.weights]
    assert len(PixelRNN(**{**config, "skip": False}).weights) == len(model.weights) - 2


def test_residual_and_skip_are_connections_around_the_layers():
    """Where the upsamplings give nothing, only those connections carry anything to the logits."""
    images = dependency.pictures(2, (3, 4, 1))
    for residual, skip, passes in ((False, False, False), (True, False, True), (False, True, True)):
        model = small(residual=residual, skip=skip)
        for layer in model.upsamplings:
            layer.kernel.assign(tf.zeros_like(layer.kernel))
            layer.bias.assign(tf.zeros_like(layer.bias))
        logits = model(images).numpy()
        assert (np.ptp(logits) > 1e-3) == passes


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.full((2, 3, 4, 1), 0.5), r"expected pixels in \{0, 1\}"),
        (np.ones((2, 3, 3, 1)), r"expected images \[B, 3, 4, 1\], received \[2, 3, 3, 1\]"),
        (np.full((2, 3, 4, 1), 255), "divide 8-bit pixels by 255"),
    ],
)
def test_pictures_that_are_no_data_of_the_model_are_refused(binary, images, message):
    binary.compile()
    for way in (binary.log_prob, binary.fit, binary.evaluate, lambda x: binary.complete(x, np.ones((3, 4, 1)))):
        with pytest.raises(ValueError, match=message):
            way(images)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_shape": (3, 4)}, "image_shape must be"),
        ({"image_shape": 3}, "image_shape must be"),
        ({"image_shape": (3, 0, 1)}, "image_shape must be"),
        ({"kind": "row"}, "kind must be one of row_lstm, diagonal_bilstm; received 'row'"),
        ({"num_layers": 0}, "num_layers must be at least 1"),
        ({"levels": 1}, "levels must be from 2 to 256, received 1"),
        ({"levels": 300}, "levels must be from 2 to 256, received 300"),
        ({"num_layers": 1.5}, "num_layers must be a whole number, received 1.5"),
        ({"filters": 0}, "filters=0"),
        ({"image_shape": (3, 4, 3), "filters": 2}, "each of 3 colours"),
        ({"image_shape": (3, 4, 3), "head_filters": 2}, "each of 3 colours"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        PixelRNN(**{"image_shape": (3, 4, 1), "filters": 4, "num_layers": 1, **arguments})


def test_counts_and_masks_that_make_no_sense_are_refused(binary):
    images = dependency.pictures(2, (3, 4, 1))
    with pytest.raises(ValueError, match="at least 1"):
        binary.sample(0)
    with pytest.raises(ValueError, match="expected known_mask"):
        binary.complete(images, np.ones((2, 2)))


def test_no_pictures_have_no_likelihoods_and_no_completions(any_model):
    images = dependency.pictures(1, any_model.image_shape, any_model.levels)
    assert any_model.log_prob(images[:0]).shape == (0,)
    assert any_model.complete(images[:0], np.ones(images.shape[1:])[..., :1]).shape == images[:0].shape


@pytest.mark.parametrize("kind", KINDS)
def test_one_layer_draws_many_pictures(kind):
    """TensorFlow's matmul [W, 1, B, n] with [1, n, m] ends the process on a CPU when B is large."""
    model = small(kind=kind, num_layers=1)
    many = model.sample(260, seed=1)
    np.testing.assert_array_equal(many[:3], model.sample(3, seed=1, cached=False))


def test_endpoints_give_no_probability_to_what_is_no_picture(any_model):
    dependency.check_endpoints_give_no_probability_to_what_is_no_picture(any_model)
