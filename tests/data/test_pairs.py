"""`pairs:DIR`: pictures with masks, semantic or one for each object."""

import numpy as np
import PIL.Image
import pytest

from dmkeras import data
from dmkeras.data import files


def picture(path, size=(4, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", size, (0, 255, 0)).save(path)


def mask(path, values, mode="L"):
    """Writes a mask whose first pixels have the values and whose others are 0; returns it as an array."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros([3, 4], np.uint8)
    array.ravel()[: len(values)] = values
    image = PIL.Image.fromarray(array)
    if mode == "P":
        image = PIL.Image.fromarray(array).convert("P")
        image.putdata(array.ravel().tolist())
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    else:
        image = image.convert(mode)
    image.save(path)
    return array


def semantic(root, split="all", **options):
    records = data.load(f"pairs:{root}", split, **options).as_numpy_iterator()
    return {record["name"].decode(): record["semantic"] for record in records}


def test_a_picture_and_its_mask_make_a_pair(tmp_path):
    picture(tmp_path / "images" / "ä b.jpg")
    expected = mask(tmp_path / "masks" / "ä b.png", [1, 2, 0, 2])
    dataset = data.load(f"pairs:{tmp_path}", "all", strict=True)
    (record,) = dataset.as_numpy_iterator()
    assert dataset.cardinality() == 1
    assert set(record) == {"image", "semantic", "name"}
    np.testing.assert_array_equal(record["semantic"], expected)
    assert (record["semantic"].dtype, record["image"].dtype) == (np.int32, np.float32)
    assert record["image"].shape == (3, 4, 3)
    assert data.class_names(f"pairs:{tmp_path}") == ["1", "2"]


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "LA", "RGBA", "1"])
def test_a_masks_values_do_not_hang_on_how_it_is_stored(mode, tmp_path):
    picture(tmp_path / "images" / "a.png")
    values = [255, 0, 255] if mode == "1" else [3, 1, 2]
    expected = mask(tmp_path / "masks" / "a_mask.png", values, mode)
    np.testing.assert_array_equal(semantic(tmp_path)["a.png"], expected > 0 if mode == "1" else expected)


def test_masks_of_zero_and_255_have_one_class_and_others_take_255_for_no_answer(tmp_path):
    for name, values in (("a", [255, 255]), ("b", [])):
        picture(tmp_path / "images" / f"{name}.png")
        first = mask(tmp_path / "masks" / f"{name}.png", values)
        np.testing.assert_array_equal(semantic(tmp_path)[f"{name}.png"], first // 255)
    assert data.class_names(f"pairs:{tmp_path}") == ["object"]
    picture(tmp_path / "images" / "c.png")
    mask(tmp_path / "masks" / "c.png", [255, 2, 1])
    np.testing.assert_array_equal(semantic(tmp_path)["c.png"].ravel()[:4], [-1, 2, 1, 0])
    np.testing.assert_array_equal(semantic(tmp_path)["a.png"].ravel()[:3], [-1, -1, 0])
    assert data.class_names(f"pairs:{tmp_path}") == ["1", "2"]


def test_values_say_which_grey_stands_for_which_class(tmp_path):
    for name, values in (("a", [255, 128, 0]), ("b", [255, 127])):
        picture(tmp_path / "images" / f"{name}.png")
        mask(tmp_path / "masks" / f"{name}.png", values)
    found = semantic(tmp_path, values=(0, 128, 255))
    assert list(found) == ["a.png"]
    np.testing.assert_array_equal(found["a.png"].ravel()[:4], [2, 1, 0, 0])
    (problem,) = data.check(f"pairs:{tmp_path}", "all", values=(0, 128, 255))
    assert problem.reason == "has the unknown values 127 (known are 0, 128, 255)"
    assert data.class_names(f"pairs:{tmp_path}", values=(0, 128, 255)) == ["128", "255"]


def test_classes_are_the_lines_of_the_list_beside(tmp_path):
    for name, values in (("a", [1, 2]), ("b", [3])):
        picture(tmp_path / "images" / f"{name}.png")
        mask(tmp_path / "masks" / f"{name}.png", values)
    (tmp_path / "classes.txt").write_text("bone\nliver lobe\n")
    assert data.class_names(f"pairs:{tmp_path}") == ["bone", "liver lobe"]
    (problem,) = data.check(f"pairs:{tmp_path}", "all")
    assert problem.reason == "has the unknown values 3 (known are 0, 1, 2, 255)"


@pytest.fixture
def faulty(tmp_path):
    for name in ("good", "alone", "larger", "cut", "broken", "coloured", "gone"):
        picture(tmp_path / "images" / f"{name}.png")
        if name == "gone":
            (tmp_path / "masks" / "gone.png").symlink_to(tmp_path / "nowhere.png")
        elif name != "alone":
            mask(tmp_path / "masks" / f"{name}.png", [1])
    mask(tmp_path / "masks" / "orphan.png", [1])
    (tmp_path / "masks" / "notes.txt").touch()
    PIL.Image.new("L", (8, 6), 1).save(tmp_path / "masks" / "larger.png")
    PIL.Image.new("RGB", (4, 3), (1, 2, 3)).save(tmp_path / "masks" / "coloured.png")
    noise = np.random.default_rng(0).integers(0, 2, [64, 64], dtype=np.uint8)
    PIL.Image.fromarray(noise).save(tmp_path / "masks" / "broken.png")
    for path, length in ((tmp_path / "images" / "cut.png", 50), (tmp_path / "masks" / "broken.png", 200)):
        path.write_bytes(path.read_bytes()[:length])
    reasons = {
        "images/alone.png": "has no mask of its name",
        "images/cut.png": "is truncated or damaged",
        "masks/orphan.png": "has no picture of its name",
        "masks/notes.txt": "is no BMP, GIF, JPEG, PNG or WebP picture",
        "masks/gone.png": "does not exist",
        "masks/larger.png": "has the size 8x6, but its picture 4x3",
        "masks/coloured.png": "is coloured: a mask is grey or has a palette",
        "masks/broken.png": "is truncated or damaged, or no picture",
    }
    return tmp_path, sorted(files.Problem(str(tmp_path / name), reason) for name, reason in reasons.items())


def test_each_bad_file_is_reported_and_its_pair_skipped(faulty):
    root, problems = faulty
    assert data.check(f"pairs:{root}", "all") == problems
    assert list(semantic(root)) == ["good.png"]
    with pytest.raises(data.BadDataError) as caught:
        data.load(f"pairs:{root}", "all", strict=True)
    assert caught.value.problems == problems


def test_one_file_for_each_object_gives_masks_boxes_and_their_union(tmp_path):
    picture(tmp_path / "x" / "images" / "x.png")
    objects = [mask(tmp_path / "x" / "masks" / f"{k}.png", values) for k, values in enumerate([[255] * 2, [0, 0, 255]])]
    mask(tmp_path / "x" / "masks" / "nothing.png", [])
    PIL.Image.new("L", (8, 6), 255).save(tmp_path / "x" / "masks" / "other.png")
    picture(tmp_path / "y" / "images" / "y.png")
    (tmp_path / "y" / "masks").mkdir()
    (record,) = data.load(f"pairs:{tmp_path}", "all").as_numpy_iterator()
    np.testing.assert_array_equal(record["masks"], np.array(objects) > 0)
    np.testing.assert_array_equal(record["boxes"], [[0, 0, 2, 1], [2, 0, 3, 1]])
    np.testing.assert_array_equal(record["classes"], [0, 0])
    np.testing.assert_array_equal(record["semantic"], (objects[0] + objects[1]) > 0)
    assert [record[key].dtype for key in ("masks", "boxes", "classes", "semantic")] == [
        *(bool, np.float32, np.int32, np.int32)
    ]
    assert record["name"] == b"x"
    assert data.class_names(f"pairs:{tmp_path}") == ["object"]
    reasons = {problem.reason for problem in data.check(f"pairs:{tmp_path}", "all")}
    assert reasons == {
        "is empty: no pixel belongs to the object",
        "has the size 8x6, but its picture 4x3",
        "has 1 pictures and 0 masks, not one picture and its masks",
    }


@pytest.mark.parametrize("inner", [False, True])
def test_folders_of_splits_are_the_splits(inner, tmp_path):
    for split in ("train", "val"):
        for kind, write in (("images", picture), ("masks", lambda path: mask(path, [1]))):
            folder = tmp_path / kind / split if inner else tmp_path / split / kind
            write(folder / f"{split}.png")
    place = f"pairs:{tmp_path}"
    names = [data.load(place, split).as_numpy_iterator().next()["name"] for split in ("train", "validation")]
    assert names == ([b"train/train.png", b"val/val.png"] if inner else [b"train.png", b"val.png"])
    with pytest.raises(ValueError, match="has the splits train, validation, not 'test'"):
        data.load(place, "test")


def test_without_folders_of_splits_the_split_is_the_fixed_one(tmp_path):
    names = sorted(f"{number}.png" for number in range(30))
    for name in names:
        picture(tmp_path / "images" / name)
        mask(tmp_path / "masks" / name, [1])
    for split in ("train", "validation", "test"):
        assert list(semantic(tmp_path, split)) == [name for name in names if files.in_split(name, split)] != []


def test_a_directory_of_another_form_is_told_what_is_wanted(tmp_path):
    with pytest.raises(FileNotFoundError, match="it wants the folders images and masks"):
        data.load(f"pairs:{tmp_path}")
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "masks").mkdir()
    with pytest.raises(ValueError, match=r"a\.png: has no mask of its name"):
        data.load(f"pairs:{tmp_path}", "all")
