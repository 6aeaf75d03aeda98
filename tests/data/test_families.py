"""Laws of the pictures of families: what a tree of labels is trained and measured on."""

import colorsys
import hashlib

import numpy as np
import pytest
import tensorflow as tf

from dmkeras import data
from dmkeras.data import families


@pytest.fixture(scope="module")
def records():
    return list(families.load("test", count=200).as_numpy_iterator())


@pytest.fixture
def items(monkeypatch):
    """In place of Fashion-MNIST and MNIST: of each class one picture, a bright block as wide as its label says."""

    def load_set(name, split, *, data_dir=None, download=False):
        pictures = np.zeros((10, 28, 28, 1), "float32")
        for label, picture in enumerate(pictures):
            picture[4:24, 4 : 12 + label + (name == "mnist")] = 0.5 if split == "train" else 1.0
        return tf.data.Dataset.from_tensor_slices({"image": pictures, "label": np.arange(10)})

    monkeypatch.setattr(families, "load_set", load_set)
    families._items.cache_clear()
    yield
    families._items.cache_clear()


def test_the_set_is_the_one_that_figures_are_measured_on(records):
    total = hashlib.sha256()
    for record in records:
        total.update(np.round(record["image"] * 255).astype("uint8").tobytes() + record["boxes"].tobytes())
        total.update(record["classes"].tobytes())
    assert total.hexdigest() == "13d0d54a419b164e756100f11f693d896297903cf8e66a2733dc919ae76f3bbc"


def test_a_dataset_says_what_it_holds(records):
    assert families.load("train").cardinality() == 9000
    assert data.load("families", "validation", count=3).cardinality() == 3
    assert len(data.class_names("families")) == 16
    for record in records[:20]:
        assert record["image"].shape == (64, 64, 3)
        assert record["image"].dtype == record["boxes"].dtype == np.float32
        assert 0 <= record["image"].min() <= record["image"].max() <= 1
        assert 1 <= len(record["boxes"]) == len(record["classes"]) <= 3
    assert set(np.concatenate([record["classes"] for record in records])) == set(range(16))


def test_boxes_are_tight_and_hardly_hide_one_another(records):
    for record in records:
        boxes = record["boxes"]
        assert (boxes[:, 2:] > boxes[:, :2] + 8).all()
        assert (boxes >= 0).all()
        assert (boxes <= 64).all()
        for i, box in enumerate(boxes):
            shared = np.maximum(np.minimum(box[2:], boxes[:i, 2:]) - np.maximum(box[:2], boxes[:i, :2]), 0).prod(-1)
            assert (shared < 0.1 * (box[2:] - box[:2]).prod() + 1e-3).all()
    plain = next(r for r in records if len(r["boxes"]) == 1 and r["classes"][0] == 0)  # a plain square
    x1, y1, x2, y2 = plain["boxes"][0].astype(int)
    ground = np.median(plain["image"], (0, 1)) if (x2 - x1) * (y2 - y1) < 1500 else plain["image"][0, 0]
    off = np.abs(plain["image"] - ground).max(-1) > 0.25
    if off.any():
        rows, columns = (np.flatnonzero(off.mean(axis) > 0.1) for axis in (1, 0))
        assert (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) == (x1, y1, x2, y2)


def test_pictures_of_chosen_classes_hold_no_others():
    chosen = ("hollow disc", "striped cross")
    records = list(families.load("train", classes=chosen, count=40).as_numpy_iterator())
    names = families.class_names()
    assert {names[kind] for record in records for kind in record["classes"]} == set(chosen)
    every = next(families.load("train", count=1).as_numpy_iterator())
    assert not np.array_equal(records[0]["image"], every["image"])  # another stream


def test_a_picture_is_named_by_the_first_of_the_chosen_that_it_holds():
    records = families.load("test", count=60)
    chosen = [1, 5, 9, 13, 2]
    found = list(families.named(records, chosen).as_numpy_iterator())
    there = [[kind for kind in record["classes"] if kind in chosen] for record in records.as_numpy_iterator()]
    assert [record["label"] for record in found] == [kinds[0] for kinds in there if kinds]
    assert set(found[0]) == {"image", "label"}
    kept = [record["image"] for record, kinds in zip(records.as_numpy_iterator(), there) if kinds]
    np.testing.assert_array_equal(found[-1]["image"], kept[-1])


def test_half_of_the_leaves_of_each_family_have_boxes():
    textures = families.half()
    assert len(textures) == 8
    assert {name.split()[0] for name in textures} == set(families.TEXTURES)
    outlines = [name.split()[1] for name in textures]
    assert all(outlines.count(outline) == 2 for outline in families.OUTLINES)
    garments = families.half(things="garments")
    assert len(garments) == 10
    assert set(garments) >= {"t-shirt", "coat", "sandal", "boot", "dress", "zero", "eight"}
    assert not set(garments) & {"shirt", "sneaker", "trousers", "bag", "one"}


def test_colours_are_families_of_hues():
    rng, names = np.random.default_rng(0), families.class_names(things="colours")
    assert (names[0], names[7], len(names)) == ("red square", "green cross", 16)
    for kind in range(16):
        paint, cover = families._coloured(rng, kind, 30)
        hue = colorsys.rgb_to_hsv(*np.clip(paint[cover > 0].mean(0), 0, 1))[0]
        off = (hue - families.COLOURS.index(names[kind].split()[0]) / 4 + 0.5) % 1 - 0.5
        assert abs(off) < 0.3 / 4 + 0.01
        assert paint[cover > 0].std(0).max() < 0.05


def test_things_apart_are_of_as_many_families():
    chosen = [name for name in families.class_names(things="colours") if name not in families.half(things="colours")]
    records = list(families.load("train", things="colours", classes=chosen, count=60, apart=3).as_numpy_iterator())
    assert (
        {len(set(record["classes"] // 4)) for record in records} == {3} == {len(record["boxes"]) for record in records}
    )
    names = families.class_names(things="colours")
    assert {names[kind] for record in records for kind in record["classes"]} == set(chosen)
    assert len({record["classes"][0] // 4 for record in records}) == 4  # whichever comes first
    again = next(families.load("train", things="colours", classes=chosen, count=1, apart=3).as_numpy_iterator())
    np.testing.assert_array_equal(again["image"], records[0]["image"])


def test_every_leaf_has_one_path_that_ends_with_it():
    for things, count in (("textures", 16), ("garments", 20)):
        paths = families.hypernyms(things=things)
        assert list(paths) == data.class_names("families", things=things)
        assert len(paths) == count
        assert all(len(ways) == 1 and ways[0][-1] == leaf for leaf, ways in paths.items())
    assert paths["coat"] == [("garment", "top", "coat")]
    assert paths["seven"] == [("digit", "seven")]


@pytest.mark.parametrize("texture", range(4))
@pytest.mark.parametrize("outline", range(4))
def test_textures_and_outlines_are_what_they_are_called(texture, outline):
    paint, cover = families._textured(np.random.default_rng(3), 4 * texture + outline, 40)
    spread = paint[cover > 0].std(0).max()
    assert (spread > 0.1) == (texture >= 2)  # two colours
    middle = cover[20, 20] > 0
    assert middle == (texture != 1)  # a hole
    solid = families._textured(np.random.default_rng(3), outline, 40)[1].mean()
    assert (cover.mean() < 0.8 * solid) == (texture == 1)
    share = cover.any(0).mean() * cover.any(1).mean()
    expected = {0: 1.0, 1: np.pi / 4, 2: 0.5, 3: 0.59}[outline]
    assert abs(solid / share - expected) < 0.05


def test_garments_are_pasted_pictures_of_their_split(items):
    names = families.class_names(things="garments")
    for split, bright in (("train", 0.5), ("test", 1.0)):
        (record,) = families.load(split, things="garments", classes=["coat"], count=1).as_numpy_iterator()
        assert {names[kind] for kind in record["classes"]} == {"coat"}
        width, height = (record["boxes"][0, 2:] - record["boxes"][0, :2]).tolist()
        assert abs(width / height - (12 + 4 - 4) / 20) < 0.15  # label 4 of fashion_mnist
        assert families._items(split != "train", None, False)[4].max() == int(255 * bright)
    (record,) = families.load("train", things="garments", classes=["nine"], count=1).as_numpy_iterator()
    width, height = (record["boxes"][0, 2:] - record["boxes"][0, :2]).tolist()
    assert abs(width / height - (12 + 9 + 1 - 4) / 20) < 0.15  # label 9 of mnist


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"split": "dev"}, ValueError, "families has no split 'dev'"),
        ({"things": "pets"}, ValueError, "things is 'pets', but must be one of textures, colours, garments"),
        ({"classes": ["plain hexagon"]}, ValueError, "received \\['plain hexagon'\\]"),
        ({"classes": []}, ValueError, "expected classes among plain square"),
        ({"count": 0}, ValueError, "count is 0"),
        ({"size": 16}, ValueError, "size is 16"),
        ({"apart": 5}, ValueError, "apart is 5, but must be 1 to 4 of plain, hollow, striped, chequered"),
        ({"apart": 3, "classes": ["plain disc", "plain cross"]}, ValueError, "must be 1 to 1 of plain"),
        ({"count": 1.5}, TypeError, "count is an integer"),
    ],
)
def test_what_cannot_be_is_refused(options, error, words):
    with pytest.raises(error, match=words):
        families.load(**{"split": "train", **options})
