"""What a feature space owes beside the contract: its layer's numbers, the nearest by NumPy, references that stay."""

import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

import dmkeras
from dmkeras.understanding.feature_space import FeatureSpace, thumbnail_map

RNG = np.random.default_rng(0)
SHAPE = (6, 7, 3)


def classifier(dtype="float32"):
    stack = [
        keras.Input(SHAPE),
        layers.Conv2D(5, 3, activation="relu", name="maps", dtype=dtype),
        layers.Flatten(name="flat", dtype=dtype),
        layers.Dense(4, name="dense", dtype=dtype),
        layers.Reshape((2, 2), name="square", dtype=dtype),
        layers.Flatten(dtype=dtype),
        layers.Dense(3, "softmax", name="end", dtype=dtype),
    ]
    model = keras.Sequential(stack)
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(size=weight.shape) for weight in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def net():
    return classifier()


@pytest.fixture(scope="module")
def images():
    return RNG.random((5, *SHAPE), "float32")


@pytest.fixture(scope="module")
def known():
    return RNG.random((23, *SHAPE), "float32")


def layer_of(net, name, images):
    return keras.Model(net.inputs[0], net.get_layer(name).output)(images).numpy()


# --- embeddings -----------------------------------------------------------------------------------------------------


def test_an_embedding_is_the_mean_or_the_maximum_over_positions_or_the_maps(net, images):
    maps = layer_of(net, "maps", images)
    expected = {"mean": maps.mean(axis=(1, 2)), "max": maps.max(axis=(1, 2)), "flatten": maps.reshape(5, -1)}
    for pooling, values in expected.items():
        model = FeatureSpace(net, "maps", pooling)
        np.testing.assert_allclose(model(images), values, rtol=1e-4, atol=1e-5)
        assert model.references.shape == (1000, values.shape[1])
        dense = FeatureSpace(net, "dense", pooling)
        np.testing.assert_allclose(dense(images), layer_of(net, "dense", images), rtol=1e-4, atol=1e-4)


def test_many_pictures_are_embedded_some_at_a_time(net, known, monkeypatch):
    monkeypatch.setattr("dmkeras.understanding.feature_space.BATCH", 10)
    model, told = FeatureSpace(net, "dense"), []
    np.testing.assert_allclose(model.embed(known, told.append), layer_of(net, "dense", known), rtol=1e-4, atol=1e-4)
    assert told == [10, 20, 23]


# --- neighbours -----------------------------------------------------------------------------------------------------


def by_numpy(queries, references, distance, k):
    x, y = np.float64(queries)[:, None], np.float64(references)[None]
    if distance == "l2":
        apart = np.sqrt(((x - y) ** 2).sum(-1))
    else:
        apart = 1 - (x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)
    order = np.argsort(apart, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(apart, order, axis=1)


@pytest.mark.parametrize("distance", ["l2", "cosine"])
@pytest.mark.parametrize("capacity", [23, 40])
def test_the_nearest_are_numpys_nearest_first(distance, capacity, net, images, known):
    model = FeatureSpace(net, "maps", "flatten", distance, capacity, 4)
    model.index(known)
    assert model.num_indexed == 23
    rows = layer_of(net, "maps", images).reshape(5, -1), layer_of(net, "maps", known).reshape(23, -1)
    for k in (None, 1, 23):
        indices, distances = model.nearest(images, k)
        expected = by_numpy(*rows, distance, k or 4)
        np.testing.assert_array_equal(indices, expected[0])
        np.testing.assert_allclose(distances, expected[1], rtol=1e-3, atol=1e-5)
        assert indices.dtype == "int32"
    other = by_numpy(*rows, "cosine" if distance == "l2" else "l2", 4)[0]
    assert (other != model.nearest(images)[0].numpy()).any()  # so that the law could fail
    compiled = tf.function(model._nearest, jit_compile=True, autograph=False)(model(images), 4)
    np.testing.assert_array_equal(compiled[0], model.nearest(images)[0])


def test_a_copy_is_at_nought_and_of_equals_the_earlier_one_comes_first(net, known):
    model = FeatureSpace(net, "dense", capacity=30)
    model.index(np.concatenate([known[:9], known[3:5], known[9:]]))
    indices, distances = model.nearest(known[3:5], 2)
    np.testing.assert_array_equal(indices, [[3, 9], [4, 10]])
    np.testing.assert_allclose(distances, 0, atol=1e-4)


def test_far_from_the_origin_distances_are_those_of_the_differences():
    """A product's rounding, 1e-7 of 1e8, would drown what is between pictures."""
    stack = [keras.Input((1, 2, 1)), layers.Flatten(), layers.Rescaling(1.0, 1e4, name="far"), layers.Dense(2)]
    model = FeatureSpace(keras.Sequential(stack), "far", capacity=3, neighbours=1)
    rows = np.array([[0.0, 0.0], [0.25, 0.0], [1.0, 1.0]], "float32")
    model.index(rows.reshape(3, 1, 2, 1))
    indices, distances = model.nearest(np.array([0.3125, 0.0], "float32").reshape(1, 1, 2, 1))
    assert indices.numpy().tolist() == [[1]]
    np.testing.assert_allclose(distances, [[0.0625]], rtol=0.05)


def test_what_is_indexed_later_takes_the_place_of_what_was_before(net, images, known):
    model = FeatureSpace(net, "dense", capacity=23, neighbours=3)
    model.index(known)
    model.index(known[20:])
    assert model.num_indexed == 3
    assert np.sort(model.nearest(images)[0], axis=1).tolist() == [[0, 1, 2]] * 5
    assert not model.references.numpy()[3:].any()
    with pytest.raises(ValueError, match="at most the 3 references as k, received 4"):
        model.nearest(images, 4)
    for wrong in (known[:0], np.concatenate([known, known])):
        with pytest.raises(ValueError, match="expected 1 to 23 references"):
            model.index(wrong)


def test_an_endpoint_answers_minus_one_where_there_are_too_few(net, images, known):
    model = FeatureSpace(net, "dense", capacity=20, neighbours=4)
    nearest = tf.function(model.signatures()["nearest"][0])
    assert (nearest(tf.constant(images))["indices"].numpy() == -1).all()
    model.index(known[:3])  # after it was traced: references are weights
    found = nearest(tf.constant(images))
    expected = by_numpy(layer_of(net, "dense", images), layer_of(net, "dense", known[:3]), "l2", 3)
    np.testing.assert_array_equal(found["indices"][:, :3], expected[0])
    np.testing.assert_allclose(found["distances"][:, :3], expected[1], rtol=1e-3)
    assert (found["indices"].numpy()[:, 3] == -1).all()
    assert (found["distances"].numpy()[:, 3] == -1).all()


def test_a_reloaded_one_and_files_find_the_same(net, images, known, tmp_path):
    model = FeatureSpace(net, "maps", "max", "cosine", 25, 2)
    model.index(known)
    model.save(tmp_path / "m.keras")
    again = dmkeras.load(tmp_path / "m.keras")
    assert again.num_indexed == 23
    for one, other in zip(again.nearest(images), model.nearest(images), strict=True):
        np.testing.assert_array_equal(one, other)
    files, pixels = [], np.round(255 * known[:3]).astype("uint8")
    for picture in pixels:
        held = io.BytesIO()
        Image.fromarray(picture).save(held, "png")
        files.append(held.getvalue())
    signatures = again.signatures()
    exact = tf.constant(pixels / np.float32(255))
    for name in ("embed_bytes", "nearest_bytes"):
        found = signatures[name][0](tf.constant(files))
        expected = signatures["serving_default" if "embed" in name else "nearest"][0](exact)
        for key in expected:
            np.testing.assert_allclose(found[key], expected[key], rtol=1e-3, atol=1e-5)
    assert signatures["nearest_bytes"][0](tf.constant(files))["indices"].numpy()[:, 0].tolist() == [0, 1, 2]


# --- maps -----------------------------------------------------------------------------------------------------------


def test_projections_are_the_principal_components_and_neighbours_stay_near(net):
    two = np.concatenate([RNG.random((20, *SHAPE)) / 10, 0.9 + RNG.random((20, *SHAPE)) / 10]).astype("float32")
    model = FeatureSpace(net, "dense", capacity=40)
    model.index(two)
    rows = np.float64(layer_of(net, "dense", two))
    centred = rows - rows.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    found, expected = model.project(), centred @ directions[:2].T
    np.testing.assert_allclose(np.abs(found), np.abs(expected), rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(model.project(two[:30]), model.project(two[:30], "pca", seed=3), rtol=1e-6)
    plane = model.project(method="tsne", perplexity=5)
    assert plane.shape == (40, 2)
    apart = np.linalg.norm(plane[:, None] - plane, axis=-1) + 1e9 * np.eye(40)
    assert ((apart.argmin(axis=1) < 20) == (np.arange(40) < 20)).all()
    np.testing.assert_array_equal(plane, model.project(method="tsne", perplexity=5))


def test_projections_refuse_what_has_no_plane(net, known):
    model = FeatureSpace(net, "dense")
    with pytest.raises(ValueError, match="at least 3 pictures to project, received 0"):
        model.project()
    with pytest.raises(ValueError, match="method must be one of"):
        model.project(known, "umap")
    with pytest.raises(ValueError, match="perplexity must be at least 1 and less than 23"):
        model.project(known, "tsne", perplexity=23)


def test_thumbnails_stand_at_their_places_and_cover_nothing():
    points = np.array([[0.0, 0.0], [1.0, 1.0], [0.02, 0.01], [1.0, 0.0]])
    images = np.array([0.2, 0.4, 0.6, 0.8])[:, None, None, None] * np.ones((4, 4, 4, 1))
    found = thumbnail_map(points, images, side=100, thumbnail=10)
    assert found.shape == (100, 100, 3)
    assert found.dtype == "uint8"
    assert (found[-10:, :10] == round(0.2 * 255)).all()  # the lowest y is at the bottom
    assert (found[:10, -10:] == round(0.4 * 255)).all()
    assert (found[-10:, -10:] == round(0.8 * 255)).all()
    assert (found != 255).all(axis=2).sum() == 300  # the third would cover the first
    framed = thumbnail_map(points, images, np.arange(4), side=100, thumbnail=10)
    assert (framed[-5, 5] == round(0.2 * 255)).all()
    assert framed[-1, 0].tolist() == [31, 119, 180]
    assert framed[0, -1].tolist() == [255, 127, 14]
    wide = thumbnail_map(points, np.ones((4, 4, 8, 3)) / 2, side=100, thumbnail=10)
    assert (wide[0] != 255).all(axis=1).sum() == 10
    assert (wide[:, -1] != 255).all(axis=1).sum() == 10  # two of height 5
    for wrong in (points[:3], points * np.nan):
        with pytest.raises(ValueError, match="a finite place"):
            thumbnail_map(wrong, images)


# --- doors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"layer": "dens"}, r"has no layer 'dens'; did you mean dense"),
        ({"layer": "square"}, r"layer 'square' answers \(None, 2, 2\), expected numbers \[B, D\] or maps"),
        ({"pooling": "sum"}, "pooling must be one of 'mean', 'max', 'flatten'"),
        ({"distance": "l1"}, "distance must be one of 'l2', 'cosine'"),
        ({"capacity": 0}, "capacity must be at least 1"),
        ({"neighbours": 0}, "neighbours must be at least 1"),
        ({"capacity": 3}, "neighbours must be at most the capacity 3, received 5"),
    ],
)
def test_settings_that_cannot_be_are_refused(arguments, words, net):
    with pytest.raises(ValueError, match=words):
        FeatureSpace(net, **{"layer": "dense", **arguments})


def test_pictures_of_another_shape_or_range_are_refused(net, images):
    model = FeatureSpace(net, "dense")
    model.index(images)
    for door in (model, model.embed, model.index, model.nearest, model.project):
        with pytest.raises(ValueError, match="divide 8-bit pixels by 255"):
            door(255 * images)
        with pytest.raises(ValueError, match=r"expected images \[B, 6, 7, 3\]"):
            door(images[:, :5])


@pytest.mark.parametrize(("dtype", "expected"), [("mixed_bfloat16", "float32"), ("float64", "float64")])
def test_embeddings_are_of_at_least_float32(dtype, expected, images):
    model = FeatureSpace(classifier(dtype), "dense")
    model.index(images.astype(expected))
    assert model(images.astype(expected)).dtype == expected
    assert model.references.dtype == expected
    assert model.nearest(images.astype(expected), 1)[0].numpy().ravel().tolist() == [0, 1, 2, 3, 4]
