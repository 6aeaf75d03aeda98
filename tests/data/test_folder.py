"""`folder:DIR` and what all of the user's own sets share: splits, the report, the check of every file."""

import hashlib
import os
import shutil
import unicodedata

import numpy as np
import PIL.Image
import pytest

from dmkeras import data
from dmkeras.data import files


def picture(path, value, size=(6, 4), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", size, (value, value, value)).convert(mode).save(path)
    return path


def names(dataset):
    return [record["name"].decode() for record in dataset.as_numpy_iterator()]


@pytest.fixture
def sorted_set(tmp_path):
    """Class folders in split folders, with every kind of bad file in `train`."""
    root = tmp_path / "my set"
    for split in ("train", "val", "test"):
        picture(root / split / "chat noir" / "é 1.png", 51)
        picture(root / split / "dog" / "a.jpg", 102, size=(3, 5))
    picture(root / "train" / "dog" / "deep" / "b.png", 255, mode="L")
    train = root / "train"
    whole = picture(train / "dog" / "whole.png", 0, size=(64, 64)).read_bytes()
    (train / "dog" / "half.png").write_bytes(whole[: len(whole) // 2])
    whole = picture(train / "dog" / "whole.jpg", 0, size=(64, 64)).read_bytes()
    (train / "dog" / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (train / "dog" / "nothing.png").touch()
    (train / "dog" / "text.png").write_text("no picture")
    (train / "dog" / "notes.txt").write_text("no picture either")
    (train / "dog" / ".hidden").touch()
    (train / "dog" / "gone.png").symlink_to(train / "nowhere.png")
    picture(train / "stray.png", 9)
    picture(root / "val" / "dgo" / "typo.png", 9)
    return root


BAD = {
    "dog/half.png": "is truncated or damaged",
    "dog/half.jpg": "is truncated or damaged",
    "dog/nothing.png": "is empty",
    "dog/text.png": "is no BMP, GIF, JPEG, PNG or WebP picture",
    "dog/notes.txt": "is no BMP, GIF, JPEG, PNG or WebP picture",
    "dog/gone.png": "does not exist",
    "stray.png": "lies outside the class folders DIR/CLASS/",
}


def test_pictures_come_with_the_label_of_their_folder_in_the_order_of_their_paths(sorted_set):
    dataset = data.load(f"folder:{sorted_set}", "test")
    records = list(dataset.as_numpy_iterator())
    assert dataset.cardinality() == len(records) == 2
    assert data.class_names(f"folder:{sorted_set}") == ["chat noir", "dog"]
    first, second = records
    assert (first["label"], second["label"]) == (0, 1)
    assert first["label"].dtype == np.int32
    assert first["name"].decode() == "test/chat noir/é 1.png"
    np.testing.assert_allclose(first["image"], np.full([4, 6, 3], 0.2), rtol=1e-6)
    assert (second["image"].shape, second["image"].dtype) == ((5, 3, 3), np.float32)


def test_each_bad_file_is_reported_with_its_reason_and_skipped(sorted_set, caplog):
    expected = sorted(files.Problem(str(sorted_set / "train" / name), reason) for name, reason in BAD.items())
    assert data.check(f"folder:{sorted_set}") == expected
    dataset = data.load(f"folder:{sorted_set}")
    good = ["chat noir/é 1.png", "dog/a.jpg", "dog/deep/b.png", "dog/whole.jpg", "dog/whole.png"]
    assert names(dataset) == [f"train/{name}" for name in good]
    assert dataset.cardinality() == 5
    assert [record.getMessage() for record in caplog.records[:-1]] == [str(problem) for problem in expected]
    assert caplog.messages[-1].endswith("skipped 7 pictures or objects of 7 files; 5 pictures are left")


def test_strict_refuses_a_bad_set_and_lists_its_files(sorted_set):
    with pytest.raises(data.BadDataError, match="has 7 problems") as caught:
        data.load(f"folder:{sorted_set}", strict=True)
    assert caught.value.problems == data.check(f"folder:{sorted_set}")
    assert all(str(problem) in str(caught.value) for problem in caught.value.problems)
    assert data.load(f"folder:{sorted_set}", "test", strict=True).cardinality() == 2


def test_a_folder_that_train_does_not_have_is_an_unknown_class(sorted_set):
    (problem,) = data.check(f"folder:{sorted_set}", "validation")
    assert problem.reason == "is of the unknown class 'dgo' (the classes are chat noir, dog)"
    assert names(data.load(f"folder:{sorted_set}", "validation")) == ["val/chat noir/é 1.png", "val/dog/a.jpg"]
    both = data.load(f"folder:{sorted_set}", "validation", classes=["dog", "dgo", "chat noir"], strict=True)
    assert [record["label"] for record in both.as_numpy_iterator()] == [2, 1, 0]


def test_verify_false_reads_no_picture_before_it_is_asked_for(sorted_set, monkeypatch):
    monkeypatch.setattr(files, "_size", lambda *_: pytest.fail("a picture was decoded"))
    assert data.load(f"folder:{sorted_set}", verify=False).cardinality() == 8


@pytest.mark.parametrize(
    ("split", "error", "message"),
    [("dev", ValueError, "has the splits test, train, validation, not 'dev'"), ("all", ValueError, "not 'all'")],
)
def test_an_unknown_split_is_told_those_that_are_there(sorted_set, split, error, message):
    with pytest.raises(error, match=message):
        data.load(f"folder:{sorted_set}", split)


def test_what_is_not_there_is_said_at_once(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no directory .*nowhere"):
        data.load("folder:nowhere", data_dir=tmp_path)
    with pytest.raises(ValueError, match="has no usable picture in the split 'train'"):
        data.load(f"folder:{tmp_path}")
    picture(tmp_path / "flat.png", 1)
    with pytest.raises(ValueError, match=r"flat\.png: lies outside the class folders"):
        data.load(f"folder:{tmp_path}")
    for name in ("val", "valid"):
        picture(tmp_path / name / "a" / "1.png", 1)
    with pytest.raises(ValueError, match="two folders of one split: val, valid"):
        data.load(f"folder:{tmp_path}")


def test_a_class_that_is_called_train_is_a_class(tmp_path):
    for name in ("car", "train"):
        picture(tmp_path / name / "1.png", 1)
    assert data.class_names(f"folder:{tmp_path}") == ["car", "train"]
    assert data.load(f"folder:{tmp_path}", "all").cardinality() == 2


def test_the_fixed_split_is_a_disjoint_cover_by_the_hash_of_the_name_alone(tmp_path):
    for number in range(60):
        picture(tmp_path / "set" / "ab"[number % 2] / f"{number} ü.png", number, size=(1, 1))
    place = f"folder:{tmp_path / 'set'}"
    parts = {split: names(data.load(place, split)) for split in ("train", "validation", "test")}
    assert sorted(name for part in parts.values() for name in part) == sorted(names(data.load(place, "all")))
    for split, members in parts.items():
        for name in members:
            u = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32
            assert split == ("train" if u < 0.8 else "validation" if u < 0.9 else "test")
    shutil.copytree(tmp_path / "set", tmp_path / "moved")
    picture(tmp_path / "moved" / "a" / "another.png", 1)
    moved = {split: names(data.load("folder:moved", split, data_dir=tmp_path)) for split in parts}
    assert all(set(parts[split]) <= set(moved[split]) for split in parts)


def test_the_fixed_split_does_not_hang_on_the_form_of_accents():
    for number in range(40):
        composed = f"a/é{number}.png"
        decomposed = unicodedata.normalize("NFD", composed)
        assert composed != decomposed
        assert [files.in_split(composed, s) for s in ("train", "validation")] == [
            files.in_split(decomposed, s) for s in ("train", "validation")
        ]


def test_a_name_that_is_no_unicode_is_read_like_any_other(tmp_path):
    path = picture(tmp_path / "a" / "x.png", 255)
    raw = os.fsencode(path.parent) + b"/\xff.png"
    try:
        os.rename(path, raw)
    except OSError as error:
        pytest.skip(f"this file system refuses such names: {error}")
    (record,) = data.load(f"folder:{tmp_path}", "all").as_numpy_iterator()
    assert (record["name"], record["image"].max()) == (b"a/\xff.png", 1)
    os.truncate(raw, 40)
    ((file, reason),) = data.check(f"folder:{tmp_path}", "all")
    assert (file, reason) == (str(tmp_path / "a") + r"/\udcff.png", "is truncated or damaged")


@pytest.mark.parametrize(
    ("box", "fault"),
    [
        ((0, 0, 20, 10), None),
        ((-1, -1, 21, 11), None),
        ((5, 5, 5, 7), "is empty"),
        ((5, 5, 7, 5), "is empty"),
        ((7, 5, 5, 7), "is reversed"),
        ((5, 7, 7, 5), "is reversed"),
        ((-2, 0, 5, 5), "reaches outside the picture of 20x10"),
        ((0, 0, 22, 5), "reaches outside the picture of 20x10"),
        ((0, 0, 5, 12), "reaches outside the picture of 20x10"),
        ((-1, 0, 0, 5), "reaches outside the picture of 20x10"),
        ((30, 30, 40, 40), "reaches outside the picture of 20x10"),
        ((0, 0, float("nan"), 5), "has a coordinate that is no finite number"),
        ((0, 0, float("inf"), 5), "has a coordinate that is no finite number"),
    ],
)
def test_a_box_is_inside_within_a_pixel_or_its_fault_is_named(box, fault):
    assert files.box_fault(np.array(box, float), 10, 20) == fault
    if fault is None:
        x1, y1, x2, y2 = files.clip(np.array(box, float), 10, 20)
        assert 0 <= x1 < x2 <= 20
        assert 0 <= y1 < y2 <= 10
