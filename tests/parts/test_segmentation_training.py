"""Pictures and label maps move together: exactly where pixels are whole, and to the nearest elsewhere."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from dmkeras.parts import segmentation_training as training

SEED = (7, 3)


def pictures(count=24, height=20, width=20):
    """Pictures whose labels can be told from their pixels: channel 0 is label / 10, channels 1 and 2 noise."""
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 9, (count, height, width)).astype("int32")
    images = rng.uniform(0, 1, (count, height, width, 3)).astype("float32")
    images[..., 0] = np.maximum(labels, 0) / 10
    return images, labels


def smooth(count=8, side=48):
    """Pictures of a disc whose edge is soft, and where it is: channel 0 above a half."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:side, :side] + 0.5
    centre = rng.uniform(14, side - 14, (count, 2, 1, 1))
    radius = rng.uniform(6, 12, (count, 1, 1))
    soft = 1 / (1 + np.exp(np.hypot(y - centre[:, 0], x - centre[:, 1]) - radius))
    return np.repeat(soft[..., None], 3, -1).astype("float32"), (soft > 0.5).astype("int32")


# --- arrays -----------------------------------------------------------------------------------------------------------


def records(*sizes):
    def some():
        for i, (height, width) in enumerate(sizes):
            yield {"image": np.full((height, width, 3), i / 10, "float32"), "semantic": np.full((height, width), i)}

    shapes = {"image": tf.TensorSpec((None, None, 3)), "semantic": tf.TensorSpec((None, None), "int32")}
    return tf.data.Dataset.from_generator(some, output_signature=shapes)


def test_pictures_of_different_sizes_stand_in_grey_and_void():
    images, labels = training.arrays(records((4, 8), (6, 3), (6, 8)))
    assert (images.shape, images.dtype, labels.shape, labels.dtype) == ((3, 6, 8, 3), "float32", (3, 6, 8), "int32")
    np.testing.assert_array_equal(labels[0], [[-1] * 8] + 4 * [[0] * 8] + [[-1] * 8])
    np.testing.assert_array_equal(labels[1], 6 * [[-1, -1, 1, 1, 1, -1, -1, -1]])
    np.testing.assert_allclose(images, np.where(labels < 0, 0.5, labels / 10)[..., None].repeat(3, -1))


def test_records_without_maps_or_with_maps_of_another_size_are_refused():
    with pytest.raises(ValueError, match="no label maps"):
        training.arrays(records((4, 4)).map(lambda record: {"image": record["image"], "boxes": 0}))
    with pytest.raises(ValueError, match="one size"):
        training.arrays(records((4, 4)).map(lambda record: {**record, "semantic": record["semantic"][1:]}))
    with pytest.raises(ValueError, match="at least one"):
        training.arrays(records())


@pytest.mark.parametrize("size", [(12, 24), (30, 20), (8, 8), (5, 7)])
def test_resized_maps_stay_where_their_pictures_are(size):
    y, x = np.mgrid[: size[0], : size[1]]
    labels = (x >= size[1] // 2).astype("int32") + 2 * (y >= size[0] // 2)
    image = np.stack([labels % 2, labels // 2, np.ones(size)], -1).astype("float32")
    found = training.resized(16)({"image": image, "semantic": labels, "name": "a"})
    colours = found["image"].numpy()
    inside = found["semantic"].numpy() >= 0
    np.testing.assert_array_equal(inside, colours[..., 2] > 0.9)  # void is where the grey margin is
    sharp = inside & (np.abs(colours - 0.5) > 0.3).all(-1)
    assert sharp.sum() > 0.5 * inside.sum() > 0
    np.testing.assert_array_equal(
        found["semantic"][sharp], ((colours[..., 0] > 0.5) + 2 * (colours[..., 1] > 0.5))[sharp]
    )


# --- moves ------------------------------------------------------------------------------------------------------------


def test_without_any_change_pixels_and_labels_are_the_same_bit_for_bit():
    images, labels = pictures()
    same = training.augment(images, labels, SEED, mirror=False, turns=False)
    for before, after in zip((images, labels), same):
        np.testing.assert_array_equal(before, after)


def test_mirrors_and_quarter_turns_are_numpys_and_all_eight_occur():
    images, labels = pictures(100)
    moved, maps = training.augment(images, labels, SEED)
    seen = set()
    for image, label, found, answer in zip(images, labels, moved.numpy(), maps.numpy()):
        for mirrored, turns in itertools.product((False, True), range(4)):
            if np.array_equal(np.rot90(label[:, ::-1] if mirrored else label, turns), answer):
                expected = np.rot90(image[:, ::-1] if mirrored else image, turns)
                np.testing.assert_allclose(expected, found, atol=1e-6)
                seen.add((mirrored, turns))
                break
        else:
            pytest.fail("moved by something else")
    assert len(seen) == 8


def test_a_crop_shows_whole_pixels_of_every_part_of_the_picture():
    images, labels = pictures(200, 20, 26)
    labels[:] = np.arange(20)[:, None] * 26 + np.arange(26)
    moved, maps = training.augment(images, labels, SEED, side=8, mirror=False, turns=False)
    assert (moved.shape, maps.shape) == ((200, 8, 8, 3), (200, 8, 8))
    corner = maps[:, 0, 0].numpy()
    for i, (y, x) in enumerate(zip(*divmod(corner, 26))):
        np.testing.assert_array_equal(maps[i], labels[i, y : y + 8, x : x + 8])
        np.testing.assert_allclose(moved[i], images[i, y : y + 8, x : x + 8], atol=1e-6)
    assert (np.min(corner // 26), np.max(corner // 26)) == (0, 12)
    assert (np.min(corner % 26), np.max(corner % 26)) == (0, 18)


def test_beyond_the_picture_are_grey_and_void():
    images, labels = pictures()
    labels = np.maximum(labels, 0)
    moved, maps = training.augment(images, labels, SEED, side=32, turns=False)
    outside = np.ones((32, 32), bool)
    outside[6:26, 6:26] = False
    np.testing.assert_array_equal(maps.numpy()[:, outside], -1)
    np.testing.assert_allclose(moved.numpy()[:, outside], 0.5)
    assert (maps.numpy()[:, ~outside] >= 0).all()


def test_rotated_and_zoomed_labels_stay_on_their_pixels():
    images, labels = smooth(32)
    moved, maps = training.augment(images, labels, SEED, rotation=3.0, zoom=1.5)
    inside, clear = maps.numpy() >= 0, np.abs(moved.numpy()[..., 0] - 0.5) > 0.15
    told = (moved.numpy()[..., 0] > 0.5).astype(int)
    assert (inside & clear & (maps.numpy() == 1)).sum() > 1000
    np.testing.assert_array_equal(told[inside & clear], maps.numpy()[inside & clear])
    shifted = np.roll(maps.numpy(), 1, axis=2)  # the known-wrong variant: labels a pixel aside
    assert (told != shifted)[inside & clear & (shifted >= 0)].sum() > 100


def test_pictures_are_turned_and_scaled_but_never_sheared():
    draws = tf.random.stateless_uniform([6, 500], SEED)
    sizes = ((30.0, 40.0), (20.0, 20.0))
    for mirror, turns in itertools.product((False, True), repeat=2):
        found = training.windows(draws, *sizes, mirror, turns, rotation=0.3, zoom=1.5).numpy()
        matrix = found[:, [0, 1, 3, 4]].reshape(-1, 2, 2)
        factor = np.linalg.det(matrix)  # below 0: mirrored
        np.testing.assert_allclose(
            matrix @ matrix.transpose(0, 2, 1), np.abs(factor)[:, None, None] * np.eye(2), atol=1e-5
        )
        assert (factor < 0).any() == mirror
        assert 1.5**-2 - 1e-5 < np.abs(factor).min() < 0.5 < 2 < np.abs(factor).max() < 1.5**2 + 1e-5
        angle = np.arctan2(matrix[:, 1, 0], matrix[:, 1, 1])  # of the row that a mirror leaves as it is
        off = angle - np.pi / 2 * np.round(angle / (np.pi / 2)) if turns else angle
        assert 0.29 < np.abs(off if not mirror else off[factor > 0]).max() < 0.3 + 1e-5


def test_zoom_changes_sizes_within_its_limits():
    images, labels = smooth(200)
    _, maps = training.augment(images, labels, SEED, zoom=1.5)
    whole = (maps.numpy()[:, [0, -1]] != 1).all((1, 2)) & (maps.numpy()[:, :, [0, -1]] != 1).all((1, 2))
    ratio = np.sqrt((maps.numpy() == 1).sum((1, 2)) / labels.sum((1, 2)))[whole]
    assert 0.6 < ratio.min() < 0.75
    assert 1.25 < ratio.max() < 1.6


# --- colours ----------------------------------------------------------------------------------------------------------


def test_grey_and_negatives_come_as_often_as_asked_and_leave_labels_alone():
    images, labels = pictures(400, 4, 4)
    still = {"mirror": False, "turns": False}
    grey, maps = training.augment(images, labels, SEED, grey=0.3, **still)
    np.testing.assert_array_equal(maps, labels)
    bleached = np.ptp(grey.numpy(), -1).max((1, 2)) < 1e-6
    assert 0.2 < bleached.mean() < 0.4
    np.testing.assert_allclose(
        grey.numpy()[bleached], images[bleached].mean(-1, keepdims=True).repeat(3, -1), atol=1e-6
    )
    np.testing.assert_array_equal(grey.numpy()[~bleached], images[~bleached])
    negative, _ = training.augment(images, labels, SEED, invert=0.5, **still)
    inverted = np.abs(negative.numpy() - 1 + images).max((1, 2, 3)) < 1e-6
    assert 0.4 < inverted.mean() < 0.6
    np.testing.assert_array_equal(negative.numpy()[~inverted], images[~inverted])


@pytest.mark.parametrize("option", ["gamma", "contrast"])
def test_gamma_and_contrast_keep_the_order_of_pixels_and_the_range(option):
    images, labels = pictures(50)
    after = training.augment(images, labels, SEED, mirror=False, turns=False, **{option: 2.0})[0].numpy()
    assert np.abs(after - images).max() > 0.1
    assert 0 <= after.min() <= after.max() <= 1
    order = np.argsort(images.reshape(50, -1))
    assert (np.diff(np.take_along_axis(after.reshape(50, -1), order, 1)) >= -1e-6).all()
    if option == "contrast":  # dark pictures change as much as bright ones, but for what is cut
        dark = training.augment(images / 4, labels, SEED, mirror=False, turns=False, contrast=2.0)[0].numpy()
        np.testing.assert_allclose(dark[after < 1] * 4, after[after < 1], atol=1e-5)
    else:
        middle = (images > 0.1) & (images < 0.9)
        power = np.log(after[middle]) / np.log(images[middle])
        assert 0.49 < power.min() < power.max() < 2.01


# --- draws ------------------------------------------------------------------------------------------------------------

EVERYTHING = {"side": 12, "rotation": 0.2, "zoom": 1.3, "grey": 0.2, "invert": 0.2, "gamma": 1.5, "contrast": 1.2}


def test_the_answer_is_a_function_of_seed_and_step_and_pictures_differ():
    images, labels = pictures(8)
    images[:], labels[:] = images[0], labels[0]
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)
    first, again, other = (list(training.changed(data, seed, **EVERYTHING)) for seed in (1, tf.constant(1, "int64"), 2))
    for one, two, third in zip(first, again, other):
        np.testing.assert_array_equal(one[0], two[0])
        np.testing.assert_array_equal(one[1], two[1])
        assert (one[1].numpy() != third[1].numpy()).any()
    assert (first[0][1].numpy() != first[1][1].numpy()).any()  # another step
    assert (first[0][1].numpy()[0] != first[0][1].numpy()[1]).any()  # another picture
    assert training.changed(data, 1, **EVERYTHING).cardinality() == 2
    assert first[0][0].dtype == "float32"
    assert first[0][1].dtype == "int32"


@pytest.mark.parametrize("wrong", [{"zoom": 0.5}, {"grey": 1.5}, {"gamma": 0}, {"side": 0}, {"contrast": "a"}])
def test_options_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        training.augment(*pictures(2), SEED, **wrong)
