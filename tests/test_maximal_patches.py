"""What maximally activated patches owe beside the contract: the best of all, found by sorting, cut out to the pixel."""

import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

from dmkeras.parts import explanation_doors
from dmkeras.understanding.maximal_patches import MaximalPatches

RNG = np.random.default_rng(0)
SHAPE = (11, 9, 3)
PIXEL = 0.5 / 255 + 1e-6  # patches have 8 bits


def classifier(shape=SHAPE):
    """Layers "conv" of stride 2, "both" of two branches whose fields differ, "dense" and the logits."""
    given = keras.Input(shape)
    maps = layers.Conv2D(3, 3, strides=2, padding="same", activation="relu", name="conv")(given)
    branches = [layers.Conv2D(2, size, padding="same", name=f"branch_{size}")(maps) for size in (1, 3)]
    maps = layers.Concatenate(name="both")(branches)
    vector = layers.Dense(4, name="dense")(layers.Flatten()(maps))
    model = keras.Model(given, layers.Dense(3, name="logits")(vector))
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(size=weight.shape) for weight in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def net():
    return classifier()


@pytest.fixture(scope="module")
def images():
    return RNG.random((23, *SHAPE), "float32")


@pytest.fixture(scope="module", params=["conv", "both", "dense"])
def system(request, net):
    return MaximalPatches(net, request.param, k=4)


def maps_of(net, layer, images):
    maps = keras.Model(net.input, net.get_layer(layer).output).predict_on_batch(images)
    return maps.reshape(len(maps), 1, 1, -1) if maps.ndim == 2 else maps


def by_sorting(maps, k, one_per_picture=True):
    """The k best (score, picture, row, column) of each channel, of equals the first."""
    best = []
    for channel in np.moveaxis(maps, -1, 0):
        candidates = [
            (-value, picture, *place) for picture, each in enumerate(channel) for place, value in np.ndenumerate(each)
        ]
        kept, seen = [], set()
        for candidate in sorted(candidates):
            if not (one_per_picture and candidate[1] in seen):
                kept.append(candidate)
                seen.add(candidate[1])
        best.append(kept[:k])
    return best


def crop(image, box, size, corner):
    """A window of `size` at `corner` (y, x), grey but for the box."""
    patch = np.full((*size, image.shape[-1]), 128 / 255)
    x1, y1, x2, y2 = box
    top, left = y1 - corner[0], x1 - corner[1]
    patch[top : top + y2 - y1, left : left + x2 - x1] = image[y1:y2, x1:x2]
    return patch


# --- the best of a data set -----------------------------------------------------------------------------------------


def test_the_patches_found_are_those_that_sorting_finds(system, net, images):
    found, field = system.find(images, batch_size=5), system.receptive_field()
    expected = by_sorting(maps_of(net, system.layer, images), 4)
    assert len(expected) == len(found["scores"]) == len(system.units)
    for unit, best in enumerate(expected):
        for rank, (score, picture, row, column) in enumerate(best):
            np.testing.assert_allclose(found["scores"][unit, rank], -score, rtol=1e-4)
            assert found["pictures"][unit, rank] == picture
            assert found["places"][unit, rank].tolist() == [row, column]
            box = field.boxes[row, column, unit]
            np.testing.assert_array_equal(found["boxes"][unit, rank], box)
            corner = [i * s - p for i, s, p in zip((row, column), field.stride, field.padding)]
            patch = crop(images[picture], box, field.size, corner)
            np.testing.assert_allclose(found["patches"][unit, rank], patch, atol=PIXEL)


def test_a_patch_alone_excites_its_unit_as_the_picture_did(net, images):
    """Known-wrong variants, a pixel less on a side, excite it otherwise."""
    model = MaximalPatches(net, "both", k=3)
    found, (height, width), changed = model.find(images), model._maps, []
    for unit, rank in np.ndindex(4, 3):
        score, (row, column) = found["scores"][unit, rank], found["places"][unit, rank]
        x1, y1, x2, y2 = found["boxes"][unit, rank]
        image = images[found["pictures"][unit, rank]]

        def excites(x1, y1, x2, y2, image=image, unit=unit, row=row, column=column):
            alone = RNG.random((1, *SHAPE), "float32")  # whatever lies around the patch
            alone[0, y1:y2, x1:x2] = image[y1:y2, x1:x2]
            return maps_of(net, "both", alone)[0, row, column, unit]

        assert row < height
        assert column < width
        np.testing.assert_allclose(excites(x1, y1, x2, y2), score, rtol=1e-4, atol=1e-5)
        less = np.array([x1, y1, x2, y2]) + np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 0], [0, 0, 0, -1]])
        changed += [abs(excites(*box) - score) > 1e-4 for box in less]
    assert (
        np.mean(np.reshape(changed, (-1, 4)), 0) > 0.5
    ).all()  # some are behind a rectifier that lets nothing through


@pytest.mark.parametrize("size", [1, 23, 7])
def test_batches_make_no_difference(net, images, size):
    model = MaximalPatches(net, "conv", k=4)
    expected, found = model.find(images, batch_size=4), model.find(images, batch_size=size)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5)
    heard = []
    batches = tf.data.Dataset.from_tensor_slices((images, np.zeros(23))).batch(size)
    again = model.find(batches, progress=heard.append)
    np.testing.assert_allclose(again["patches"], expected["patches"])
    assert heard == [min(23, size * (i + 1)) for i in range(-(-23 // size))]


def flat_classifier(side=4):
    """A layer "same" that answers the mean of 2x2 pixels."""
    return keras.Sequential(
        [
            keras.Input((side, side, 1)),
            layers.AveragePooling2D(2, name="same"),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )


def test_of_equals_the_first_are_kept():
    values = np.array([1, 3, 3, 1, 2, 3, 2, 3]) / 4
    images = np.tile(values[:, None, None, None], (1, 4, 4, 1)).astype("float32")
    for size in (1, 3, 8):
        model = MaximalPatches(flat_classifier(), "same", k=3)
        found = model.find(images, batch_size=size)
        assert found["pictures"].tolist() == [[1, 2, 5]]
        assert not found["places"].any()  # the first of four equal places
    found = MaximalPatches(flat_classifier(), "same", k=6).find(images, batch_size=2)
    assert found["pictures"].tolist() == [[1, 2, 5, 7, 4, 6]]


def test_fewer_pictures_than_patches_leave_grey_ones():
    images = RNG.random((2, 4, 4, 1), "float32") / 3
    model = MaximalPatches(flat_classifier(), "same", k=5)
    found = model.find(images)
    assert sorted(found["pictures"][0, :2]) == [0, 1]
    assert found["pictures"][0, 2:].tolist() == [-1] * 3
    assert np.isneginf(found["scores"][0, 2:]).all()
    assert not found["boxes"][0, 2:].any()
    assert (found["patches"][0, 2:] == np.float32(128) / np.float32(255)).all()
    assert found["patches"][0, :2].max() < 0.34
    assert (model.find(images[:0])["pictures"] == -1).all()  # nothing is left of what was found before


def test_a_picture_gives_several_patches_where_told_so(net, images):
    for k in (4, 40):  # the layer has 30 places
        model = MaximalPatches(net, "conv", k=k, one_per_picture=False)
        found = model.find(images[:5], batch_size=2)
        for unit, best in enumerate(by_sorting(maps_of(net, "conv", images[:5]), k, one_per_picture=False)):
            np.testing.assert_allclose(found["scores"][unit], [-each[0] for each in best], rtol=1e-4, atol=1e-5)
            alive = found["scores"][unit] > 1e-3  # at zero, places are equal but for rounding
            places = [list(each[1:]) for each in best]
            mine = np.concatenate([found["pictures"][unit][:, None], found["places"][unit]], 1).tolist()
            assert [m for m, ok in zip(mine, alive) if ok] == [p for p, ok in zip(places, alive) if ok]
    assert len(set(found["pictures"][0])) < 40


def test_chosen_units_are_those_of_all(net, images):
    every = MaximalPatches(net, "both", k=3)
    some = MaximalPatches(net, "both", k=3, units=[3, 0])
    for name, values in some.find(images).items():
        if name != "patches":
            np.testing.assert_array_equal(values, every.find(images)[name][[3, 0]])
    np.testing.assert_array_equal(some(images)["places"], every(images)["places"].numpy()[:, [3, 0]])
    np.testing.assert_array_equal(some(images)["boxes"], every(images)["boxes"].numpy()[:, [3, 0]])


def test_a_layer_without_a_single_size_has_patches_too():
    given = keras.Input((8, 8, 1))
    up = layers.Conv2DTranspose(1, 3, 2, "same", name="up")(layers.Conv2D(1, 2, strides=2)(given))
    net = keras.Model(given, layers.Dense(2)(layers.Flatten()(up)))
    model, images = MaximalPatches(net, "up", k=2), RNG.random((4, 8, 8, 1), "float32")
    found = model.find(images)
    assert model.receptive_field().size is None
    assert model.patch_size == (4, 4)
    for rank in range(2):
        box = found["boxes"][0, rank]
        patch = crop(images[found["pictures"][0, rank]], box, (4, 4), box[1::-1])
        np.testing.assert_allclose(found["patches"][0, rank], patch, atol=PIXEL)


# --- one picture ----------------------------------------------------------------------------------------------------


def test_a_pictures_answer_is_each_units_maximum_and_what_it_sees(system, net, images):
    answer, maps = system(images), maps_of(net, system.layer, images)
    np.testing.assert_allclose(answer["activations"], maps.max((1, 2)), rtol=1e-4, atol=1e-5)
    boxes = system.receptive_field().boxes
    for b, unit in np.ndindex(len(images), maps.shape[-1]):
        row, column = np.unravel_index(maps[b, :, :, unit].argmax(), maps.shape[1:3])
        assert answer["places"][b, unit].numpy().tolist() == [row, column]
        np.testing.assert_array_equal(answer["boxes"][b, unit], boxes[row, column, unit])


def test_a_row_depends_on_that_row_alone_and_the_call_compiles(net, images):
    model = MaximalPatches(net, "both")
    together = model(images)
    compiled = tf.function(model._seen, autograph=False, jit_compile=True)(images)
    for name, values in model(images[3:4]).items():
        np.testing.assert_allclose(values[0], together[name][3], atol=1e-5)
        np.testing.assert_allclose(compiled[name], together[name], atol=1e-5)


def sheet_of(model, files):
    answer = model.signatures()["patches_bytes"][0](files)
    return answer, [np.array(Image.open(io.BytesIO(each))) for each in answer["sheet_bytes"].numpy()]


def test_a_sheet_shows_the_pictures_patches_beside_those_found(net, images):
    model = MaximalPatches(net, "conv", k=4, rows=2)
    found = model.find(images)
    sent = RNG.random((2, *SHAPE), "float32")
    files = explanation_doors.encoded(sent)
    answer, sheets = sheet_of(model, files)
    pictures = explanation_doors.decoded(files, SHAPE).numpy()
    seen, field = model(pictures), model.receptive_field()
    shares = seen["activations"].numpy() / found["scores"][:, 0]
    units = np.argsort(-shares, 1)[:, :2]
    np.testing.assert_array_equal(answer["units"], units)
    np.testing.assert_allclose(answer["shares"], np.take_along_axis(shares, units, 1), rtol=1e-4)
    tile = 3 * 16 + 4  # patches of 3 pixels, enlarged 16 times, and borders of 2
    for b in range(2):
        assert sheets[b].shape == (2 * tile, 5 * tile + 8, 3)
        for rank, unit in enumerate(units[b]):
            strip = sheets[b][rank * tile + 2 :][:48:16] / 255
            place = seen["places"][b, unit].numpy()
            corner = [i * s - p for i, s, p in zip(place, field.stride, field.padding)]
            own = crop(pictures[b], seen["boxes"][b, unit].numpy(), (3, 3), corner)
            np.testing.assert_allclose(strip[:, 2:50:16], own, atol=1 / 255)
            for j in range(4):
                start = (1 + j) * tile + 8 + 2
                np.testing.assert_allclose(strip[:, start : start + 48 : 16], found["patches"][unit, j], atol=1 / 255)


def test_without_anything_found_a_sheet_has_the_largest_activations(net, images):
    model = MaximalPatches(net, "conv", k=2, rows=20, units=[0, 2])
    answer, sheets = sheet_of(model, explanation_doors.encoded(images[:3]))
    np.testing.assert_allclose(
        answer["shares"], -np.sort(-model(np.round(255 * images[:3]) / 255)["activations"].numpy(), 1), rtol=1e-4
    )
    assert set(answer["units"].numpy().ravel()) == {0, 2}
    assert sheets[0].shape[0] == 2 * 52


def test_what_was_found_is_saved_with_the_model(net, images, tmp_path):
    model = MaximalPatches(net, "both", k=3, units=[1, 2], rows=1, one_per_picture=False)
    found = model.find(images)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for name, values in again.found().items():
        np.testing.assert_array_equal(values, found[name])
    assert {key: again.get_config()[key] for key in ("units", "rows", "k", "one_per_picture", "layer")} == {
        "units": [1, 2],
        "rows": 1,
        "k": 3,
        "one_per_picture": False,
        "layer": "both",
    }


def test_receptive_fields_are_told_for_any_layer(net):
    model = MaximalPatches(net, "conv")
    assert tuple(model.receptive_field()[:3]) == ((3, 3), (2, 2), (1, 1))
    assert tuple(model.receptive_field("branch_3")[:3]) == ((7, 7), (2, 2), (3, 3))
    assert tuple(model.receptive_field("dense")[:3]) == ((11, 9), (0, 0), (0, 0))


# --- doors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layer": "convolution"}, "has no layer 'convolution'"),
        ({"k": 0}, "k must be at least 1"),
        ({"rows": 0}, "rows must be at least 1"),
        ({"units": [0, 3]}, "expected units below 3"),
        ({"units": [0, 0]}, "no one twice"),
        ({"units": []}, "expected units below 3"),
        ({"units": [0.5]}, "whole number"),
        ({"k": 10**8}, "GiB; look at fewer"),
    ],
)
def test_settings_that_cannot_be_are_refused(net, options, words):
    with pytest.raises(ValueError, match=words):
        MaximalPatches(net, **{"layer": "conv", **options})


def test_pictures_that_cannot_be_are_refused(net, images):
    model = MaximalPatches(net, "conv")
    for ask in (model, model.find, lambda given: model.find(tf.data.Dataset.from_tensors(given))):
        with pytest.raises(ValueError, match="divide 8-bit"):
            ask(255 * images)
        with pytest.raises(ValueError, match="images"):
            ask(images[:, 1:])
    records = tf.data.Dataset.from_tensors({"image": images})
    with pytest.raises(ValueError, match=r"map it to record\['image'\]"):
        model.find(records)
    with pytest.raises(ValueError, match=r"ResizeBilinear .* name a layer before it"):
        MaximalPatches(
            keras.Sequential(
                [keras.Input(SHAPE), layers.Resizing(4, 4, name="small"), layers.Flatten(), layers.Dense(2)]
            ),
            "small",
        )


def test_activations_that_are_no_numbers_are_refused(images):
    net = keras.Sequential([keras.Input(SHAPE), layers.Conv2D(2, 3, name="conv"), layers.Flatten(), layers.Dense(2)])
    model = MaximalPatches(net, "conv")
    net.layers[0].bias.assign([0.0, np.nan])
    with pytest.raises(tf.errors.InvalidArgumentError, match="layer 'conv'"):
        model.find(images)
