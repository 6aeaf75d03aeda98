"""Receptive fields are what the classifier itself shows: the pixels that change a unit."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from dmkeras.parts import explained
from dmkeras.parts.receptive_field import receptive_field

POSITIVE = {"kernel_initializer": keras.initializers.RandomUniform(0.5, 1.0, seed=0), "dtype": "float64"}


def boxes_of(seen):
    """Boxes [h, w, U, 4] around what is seen, [H, W, h, w, U] of bool."""
    corners = []
    for axis in (1, 0):  # x, y
        along = seen.any(1 - axis)
        number = np.arange(len(along)).reshape(-1, 1, 1, 1)
        corners.append((np.where(along, number, len(along)).min(0), np.where(along, number + 1, 0).max(0)))
    (x1, x2), (y1, y2) = corners
    return np.where(seen.any((0, 1))[..., None], np.stack([x1, y1, x2, y2], -1), 0)


def shown(model, image_shape):
    """Boxes that a network of positive weights shows: one pixel at a time is set to 1, and units are looked at."""
    height, width, channels = image_shape
    pixels = np.eye(height * width).reshape(-1, height, width, 1) * np.ones(channels)
    answers = [np.asarray(model(given)) for given in (pixels, np.zeros((1, *image_shape)))]
    answers = [answer.reshape(len(answer), 1, 1, -1) if answer.ndim == 2 else answer for answer in answers]
    changed = abs(answers[0] - answers[1]) > 0
    return boxes_of(changed.reshape(height, width, *changed.shape[1:]))


def network(image_shape, *stack):
    return keras.Sequential([keras.Input(image_shape, dtype="float64"), *stack])


def field(model, image_shape):
    return receptive_field(lambda images: model(images, training=False), image_shape)


def check(model, image_shape):
    """The field of a model, after its boxes, and where there is one its (3), were compared with what it shows."""
    found, boxes = field(model, image_shape), shown(model, image_shape)
    np.testing.assert_array_equal(found.boxes, boxes)
    if found.size and boxes.shape[:2] != (1, 1):
        outer = unclipped(found, boxes.shape[:2])
        limit = np.tile(image_shape[1::-1], 2)
        inside = (boxes[..., 2:] > boxes[..., :2]).all(-1)
        assert (np.clip(outer, 0, limit)[..., None, :2] <= boxes[..., :2])[inside].all()
        assert (np.clip(outer, 0, limit)[..., None, 2:] >= boxes[..., 2:])[inside].all()
    return found


def unclipped(found, sides):
    """(3) as boxes [h, w, 4]."""
    rows, columns = (
        np.arange(side) * stride - padding for side, stride, padding in zip(sides, found.stride, found.padding)
    )
    y1, x1 = np.meshgrid(rows, columns, indexing="ij")
    return np.stack([x1, y1, x1 + found.size[1], y1 + found.size[0]], -1)


def geometry(found):
    return tuple(map(tuple, found[:3]))


# --- single operations ----------------------------------------------------------------------------------------------

SINGLE = {  # {name: (layer, size, stride, padding)} on 17x12 pixels
    "valid": (layers.Conv2D(2, (3, 5), **POSITIVE), (3, 5), (1, 1), (0, 0)),
    "same": (layers.Conv2D(2, (4, 3), padding="same", **POSITIVE), (4, 3), (1, 1), (1, 1)),
    "same, strides": (layers.Conv2D(2, 3, strides=2, padding="same", **POSITIVE), (3, 3), (2, 2), (1, 0)),
    "dilated": (layers.Conv2D(2, 3, dilation_rate=(2, 1), **POSITIVE), (5, 3), (1, 1), (0, 0)),
    "dilated, same": (layers.Conv2D(2, (2, 3), dilation_rate=3, padding="same", **POSITIVE), (4, 7), (1, 1), (1, 3)),
    "grouped": (layers.Conv2D(4, 3, groups=2, **POSITIVE), (3, 3), (1, 1), (0, 0)),
    "depthwise": (
        layers.DepthwiseConv2D(
            3, strides=2, padding="same", depth_multiplier=2, dtype="float64", depthwise_initializer="ones"
        ),
        (3, 3),
        (2, 2),
        (1, 0),
    ),
    "depthwise, dilated": (
        layers.DepthwiseConv2D(3, dilation_rate=2, padding="same", dtype="float64", depthwise_initializer="ones"),
        (5, 5),
        (1, 1),
        (2, 2),
    ),
    "separable": (
        layers.SeparableConv2D(
            3, 3, dtype="float64", depthwise_initializer="ones", pointwise_initializer="ones", padding="same"
        ),
        (3, 3),
        (1, 1),
        (1, 1),
    ),
    "pool": (layers.MaxPooling2D((3, 2), dtype="float64"), (3, 2), (3, 2), (0, 0)),
    "pool, same": (layers.AveragePooling2D(3, 2, "same", dtype="float64"), (3, 3), (2, 2), (1, 0)),
    "padding": (layers.ZeroPadding2D(((1, 2), (3, 0)), dtype="float64"), (1, 1), (1, 1), (1, 3)),
    "crop": (layers.Cropping2D(((1, 2), (3, 0)), dtype="float64"), (1, 1), (1, 1), (-1, -3)),
    "dense at every pixel": (layers.Dense(3, **POSITIVE), (1, 1), (1, 1), (0, 0)),
    "silu": (layers.Activation("silu", dtype="float64"), (1, 1), (1, 1), (0, 0)),
    "layer norm": (layers.LayerNormalization(dtype="float64"), (1, 1), (1, 1), (0, 0)),
    "global mean": (layers.GlobalAveragePooling2D(dtype="float64"), (17, 12), (0, 0), (0, 0)),
    "global maximum": (layers.GlobalMaxPooling2D(keepdims=True, dtype="float64"), (17, 12), (0, 0), (0, 0)),
    "flattened": (layers.Flatten(dtype="float64"), (17, 12), (0, 0), (0, 0)),
}


@pytest.mark.parametrize("name", SINGLE)
def test_a_single_layer_has_the_field_of_its_window(name):
    layer, *expected = SINGLE[name]
    model = network((17, 12, 2), layer)
    if name == "layer norm":  # its answers to single pixels are no sums: the picture's own boxes
        found = field(model, (17, 12, 2))
        y, x = np.mgrid[:17, :12]
        np.testing.assert_array_equal(found.boxes[:, :, 0], np.stack([x, y, x + 1, y + 1], -1))
    else:
        found = check(model, (17, 12, 2))
    assert geometry(found) == tuple(expected)
    assert all(type(number) is int for pair in found[:3] for number in pair)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "rate"),
    [(3, 2, "same", 1), (2, 3, "valid", 1), (4, 2, "valid", 1), (5, 1, "same", 1), ((3, 2), (1, 2), "same", 1)],
)
def test_transposed_convolutions_have_exact_boxes_and_no_single_size(kernel, stride, padding, rate):
    up = layers.Conv2DTranspose(2, kernel, stride, padding, dilation_rate=rate, **POSITIVE)
    model = network((9, 7, 1), layers.Conv2D(2, 3, strides=2, padding="same", **POSITIVE), up)
    assert check(model, (9, 7, 1)).size is None


@pytest.mark.parametrize("mode", ["REFLECT", "SYMMETRIC"])
def test_mirrored_borders_see_the_pixels_that_they_mirror(mode):
    mirror = layers.Lambda(lambda maps: tf.pad(maps, [(0, 0), (2, 1), (1, 2), (0, 0)], mode))
    model = network((6, 7, 1), mirror, layers.Conv2D(1, 2, **POSITIVE))
    found = field(model, (6, 7, 1))
    np.testing.assert_array_equal(found.boxes, shown(model, (6, 7, 1)))
    assert geometry(found) == ((2, 2), (1, 1), (2, 1))
    assert found.boxes[0, 0, 0, 3] > 1  # the first row's unit sees below row 0


def test_explicit_padding_and_dilation_of_the_operation_itself():
    kernel = np.ones((3, 3, 2, 2))
    run = lambda maps: tf.nn.conv2d(maps, kernel, (2, 1), [(0, 0), (2, 0), (0, 2), (0, 0)])
    found = check(network((9, 7, 2), layers.Lambda(run)), (9, 7, 2))
    assert geometry(found) == ((3, 3), (2, 1), (2, 0))
    run = lambda maps: tf.nn.conv2d(maps, kernel, 1, "SAME", dilations=(2, 1))
    assert geometry(check(network((9, 7, 2), layers.Lambda(run)), (9, 7, 2))) == ((5, 3), (1, 1), (2, 1))


def test_a_dilated_convolution_by_blocks_may_crop_at_both_ends():
    def run(maps):
        blocks = tf.space_to_batch(maps, [2, 2], [(1, 1), (1, 2)])
        blocks = tf.nn.conv2d(blocks, np.ones((2, 2, 1, 1)), 1, "VALID")
        return tf.batch_to_space(blocks, [2, 2], [(1, 0), (0, 1)])

    found = check(network((8, 7, 1), layers.Lambda(run)), (8, 7, 1))
    assert geometry(found) == ((3, 3), (1, 1), (0, 1))


def test_branches_that_see_beside_one_another_see_their_union():
    given = keras.Input((9, 8, 1), dtype="float64")
    up, down = (layers.Cropping2D((rows, (0, 0)), dtype="float64")(given) for rows in ((0, 3), (3, 0)))
    found = check(keras.Model(given, layers.Concatenate(dtype="float64")([up, down])), (9, 8, 1))
    assert geometry(found) == ((4, 1), (1, 1), (0, 0))


def test_units_moved_about_keep_their_pixels():
    colours = layers.Lambda(lambda maps: maps[..., ::-1])
    up = layers.UpSampling2D(2, dtype="float64")  # rows and columns repeated
    deep = layers.Lambda(lambda maps: tf.nn.depth_to_space(maps, 2))
    turn = layers.Permute((2, 1, 3), dtype="float64")
    assert geometry(check(network((6, 5, 3), colours), (6, 5, 3))) == ((1, 1), (1, 1), (0, 0))
    other = layers.Reshape((3, 4, 4), dtype="float64")  # of the 4 rows of 3 units
    for layer in (up, deep, turn, other):
        assert check(network((6, 5, 4), layers.Conv2D(4, 3, **POSITIVE), layer), (6, 5, 4)).size is None
    every = layers.Lambda(lambda maps: maps[:, 1::2, ::3])
    assert geometry(check(network((7, 9, 1), every), (7, 9, 1))) == ((1, 1), (2, 3), (-1, 0))


# --- networks -------------------------------------------------------------------------------------------------------


def random_network(seed):
    """A network of positive weights with branches, on a picture of odd sides."""
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(9, 20)), int(rng.integers(9, 20)), 2)
    pair = lambda low, high: tuple(int(side) for side in rng.integers(low, high + 1, 2))
    padding = lambda: str(rng.choice(["same", "valid"]))

    def block(maps):
        kind, small = rng.integers(7), min(maps.shape[1:3]) < 5
        if kind == 0:
            return layers.Conv2D(2, pair(1, 3), pair(1, 2), "same" if small else padding(), **POSITIVE)(maps)
        if kind == 1:
            rate = pair(1, 2)
            return layers.Conv2D(2, 2, dilation_rate=rate, padding="same" if small else padding(), **POSITIVE)(maps)
        if kind == 2:
            options = {"depthwise_initializer": "ones", "dtype": "float64"}
            return layers.DepthwiseConv2D(3, padding="same", strides=int(rng.integers(1, 3)), **options)(maps)
        if kind == 3:
            pool = layers.MaxPooling2D if rng.integers(2) else layers.AveragePooling2D
            return pool(pair(1, 3), pair(1, 2), "same", dtype="float64")(maps)
        if kind == 4:
            border = tuple(tuple(int(side) for side in rng.integers(0, 3, 2)) for _ in range(2))
            return layers.ZeroPadding2D(border, dtype="float64")(maps)
        if kind == 5:
            return layers.Activation("relu", dtype="float64")(maps)
        other = layers.Conv2D(maps.shape[-1], pair(1, 5), padding="same", **POSITIVE)(maps)
        meet = layers.Concatenate if rng.integers(2) else layers.Add
        return meet(dtype="float64")([maps, layers.Conv2D(maps.shape[-1], 1, **POSITIVE)(other)])

    maps = given = keras.Input(shape, dtype="float64")
    for _ in range(rng.integers(3, 7)):
        maps = block(maps)
    return keras.Model(given, maps), shape


@pytest.mark.parametrize("seed", range(24))
def test_random_networks_show_their_fields(seed):
    model, shape = random_network(seed)
    found = check(model, shape)
    assert found.size is not None


def test_a_formula_of_sizes_and_strides_alone_is_wrong_at_the_border():
    """Known-wrong: the last column of pixels is left over by the first layer, and (3), cut to the picture, has it."""
    first = layers.Conv2D(1, 3, strides=2, **POSITIVE)
    model = network((8, 8, 1), first, layers.Conv2D(1, 3, padding="same", **POSITIVE))
    found = check(model, (8, 8, 1))
    wrong = np.clip(unclipped(found, (3, 3)), 0, 8)
    assert (wrong[-1, -1] == [2, 2, 8, 8]).all()
    assert (found.boxes[-1, -1, 0] == [2, 2, 7, 7]).all()


def test_padding_of_same_is_uneven_under_strides():
    """Known-wrong: as many zeros before as a window of stride 1 has."""
    model = network((8, 9, 1), layers.Conv2D(1, 3, strides=2, padding="same", **POSITIVE))
    found = check(model, (8, 9, 1))
    assert found.padding == (0, 1)
    wrong = np.clip(unclipped(found._replace(padding=(1, 1)), (4, 5)), 0, [9, 8, 9, 8])
    assert (wrong != found.boxes[:, :, 0]).any()


def test_a_unit_that_sees_padding_alone_has_an_empty_box():
    model = network((5, 5, 1), layers.ZeroPadding2D(3, dtype="float64"), layers.Conv2D(1, 2, **POSITIVE))
    found = check(model, (5, 5, 1))
    np.testing.assert_array_equal(found.boxes[0, 4, 0], 0)
    np.testing.assert_array_equal(found.boxes[2, 4, 0], [1, 0, 3, 1])


def test_channels_of_branches_have_fields_of_their_own():
    given = keras.Input((9, 9, 1), dtype="float64")
    maps = [layers.Conv2D(2, size, padding="same", **POSITIVE)(given) for size in (1, 3, 5)]
    model = keras.Model(given, layers.Concatenate(dtype="float64")(maps))
    found = check(model, (9, 9, 1))
    assert geometry(found) == ((5, 5), (1, 1), (2, 2))  # the union
    assert [list(box) for box in found.boxes[4, 4, ::2]] == [[4, 4, 5, 5], [3, 3, 6, 6], [2, 2, 7, 7]]
    shares = keras.Model(given, layers.Softmax(dtype="float64")(model.output))  # each channel depends on all
    assert (check(shares, (9, 9, 1)).boxes[4, 4] == [2, 2, 7, 7]).all()
    groups = layers.Conv2D(6, 1, groups=2, **POSITIVE)(model.output)  # channels 0 .. 2 and 3 .. 5
    found = check(keras.Model(given, groups), (9, 9, 1))
    assert [list(box) for box in found.boxes[4, 4, ::3]] == [[3, 3, 6, 6], [2, 2, 7, 7]]


def test_branches_of_other_strides_have_exact_boxes_and_no_single_size():
    given = keras.Input((8, 8, 1), dtype="float64")
    coarse = layers.AveragePooling2D(2, dtype="float64")(given)
    model = keras.Model(given, layers.Add(dtype="float64")([layers.Cropping2D(2, dtype="float64")(given), coarse]))
    assert check(model, (8, 8, 1)).size is None


def test_what_is_pooled_over_the_picture_and_put_back_sees_all_of_it():
    given = keras.Input((8, 9, 2), dtype="float64")
    gate = layers.Dense(2, "softplus", **POSITIVE)(layers.GlobalAveragePooling2D(keepdims=True, dtype="float64")(given))
    maps = layers.Conv2D(2, 3, **POSITIVE)(given)
    model = keras.Model(given, layers.Multiply(dtype="float64")([maps + 1, gate]))
    found = check(model, (8, 9, 2))
    assert geometry(found) == ((8, 9), (0, 0), (0, 0))
    assert (found.boxes == [0, 0, 9, 8]).all()


def test_dense_layers_see_what_all_units_before_them_do():
    stack = layers.Conv2D(1, 2, strides=2, **POSITIVE), layers.Flatten(dtype="float64"), layers.Dense(3, **POSITIVE)
    found = check(network((7, 8, 1), *stack), (7, 8, 1))
    assert geometry(found) == ((7, 8), (0, 0), (0, 0))
    assert (found.boxes == [0, 0, 8, 6]).all()  # the last row is left over
    assert check(network((7, 8, 1), *stack[:2]), (7, 8, 1)).boxes[0, 0, 5].tolist() == [2, 2, 4, 4]  # its own


class Subclassed(keras.Model):
    """Layers, operations and a function within, that no list of layers tells of."""

    def __init__(self):
        super().__init__(dtype="float64")
        self.conv = layers.Conv2D(2, 3, strides=2, **POSITIVE)
        self.inner = tf.function(lambda maps: tf.nn.avg_pool2d(maps, 2, 1, "VALID"), autograph=False)

    def call(self, images):
        maps = ops.softplus(self.conv(images[:, 1:]))
        unused = tf.image.resize(maps, (3, 3))
        return self.inner(maps) + 0.0 * tf.cast(tf.shape(unused)[0], maps.dtype)


def test_subclassed_models_and_functions_within_are_read():
    assert geometry(check(Subclassed(), (12, 11, 2))) == ((5, 5), (2, 2), (-1, 0))


def test_a_layers_field_is_found_by_its_name():
    model = network(
        (12, 12, 2), layers.Conv2D(2, 3, name="a", **POSITIVE), layers.MaxPooling2D(name="b"), layers.Flatten()
    )
    of = lambda name: lambda images: explained.activations(model, images, [name])[name]
    assert [geometry(receptive_field(of(name), (12, 12, 2)))[:2] for name in "ab"] == [
        ((3, 3), (1, 1)),
        ((4, 4), (2, 2)),
    ]


def test_the_field_is_the_support_of_the_gradient():
    stack = (
        layers.Conv2D(2, 3, strides=2, padding="same", activation="softplus", **POSITIVE),
        layers.AveragePooling2D(2, dtype="float64"),
    )
    model = network((11, 10, 1), *stack, layers.Conv2D(1, 2, **POSITIVE))
    images = tf.constant(np.random.default_rng(0).uniform(size=(1, 11, 10, 1)))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(images)
        rows = tf.unstack(tf.reshape(model(images), (-1,)))
    seen = np.stack([tape.gradient(row, images)[0, ..., 0] for row in rows], -1) != 0
    found = field(model, (11, 10, 1))
    h, w, *_ = found.boxes.shape
    np.testing.assert_array_equal(found.boxes, boxes_of(seen.reshape(11, 10, h, w, 1)))


def test_what_is_not_known_is_refused_by_its_name():
    resized = network((8, 8, 1), layers.Resizing(4, 4, dtype="float64"))
    with pytest.raises(
        ValueError, match=r"through ResizeBilinear \(.*resize.*\) is not known here; name a layer before"
    ):
        field(resized, (8, 8, 1))
    attention = lambda images: tf.matmul(images[..., 0], images[..., 1])[..., None]
    with pytest.raises(ValueError, match="through BatchMatMulV2"):
        receptive_field(attention, (8, 8, 2))
    with pytest.raises(ValueError, match="does not depend on the picture"):
        receptive_field(lambda images: tf.zeros((4, 3)), (8, 8, 2))
    with pytest.raises(ValueError, match=r"\[B, h, w, U\] or \[B, U\], received \(4, 8, 8\)"):
        receptive_field(lambda images: images[..., 0], (8, 8, 2))
