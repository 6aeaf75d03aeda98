"""`voc:DIR`: boxes in the format of Pascal VOC, and each fault that its files can have."""

import numpy as np
import PIL.Image
import pytest

from dmkeras import data
from dmkeras.data import files


def annotation(objects, size=(20, 10)):
    parts = [f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"] if size else []
    for name, box, *difficult in objects:
        corners = "".join(f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box))
        flag = f"<difficult>{difficult[0]}</difficult>" if difficult else ""
        parts.append(f"<object><name>{name}</name>{flag}<bndbox>{corners}</bndbox></object>")
    return f"<annotation>{''.join(parts)}</annotation>"


GOOD = ("cat", (1, 1, 20, 10))


@pytest.fixture(scope="module")
def boxes(tmp_path_factory):
    root = tmp_path_factory.mktemp("voc set")
    files_of = {
        "a": annotation([("dog", (3, 2, 8.5, 9), 1), ("cat", (1, 1, 20, 10), 0)]),
        "b ü": annotation([]),
        "c": annotation([GOOD], size=None),
        "d": annotation([GOOD], size=(0, 0)),
        "faults": annotation(
            [
                ("cat", (8, 2, 3, 9)),
                ("cat", (3, 9, 8, 2)),
                ("cat", (4, 2, 4, 9)),
                ("cat", (1, 1, 40, 10)),
                ("cat", (-9, 1, 4, 10)),
                ("cat", (30, 30, 40, 40)),
                ("cat", ("x", 1, 4, 10)),
                ("cat", (1, 1, 4)),
                ("cat", (1, 1, "nan", 5)),
                GOOD,
            ]
        ),
        "hopeless": annotation([("cat", (4, 4, 4, 4))]),
        "other size": annotation([GOOD], size=(40, 20)),
        "broken": "<annotation><object>",
        "cut": annotation([GOOD]),
        "lost": annotation([GOOD]),
        "held out": annotation([GOOD, ("dog", (1, 1, 4, 4))]),
    }
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for name, text in files_of.items():
        (root / "Annotations" / f"{name}.xml").write_text(text, encoding="utf-8")
        if name != "lost":
            PIL.Image.new("RGB", (20, 10), (0, 51, 255)).save(root / "JPEGImages" / f"{name}.png")
    cut = root / "JPEGImages" / "cut.png"
    cut.write_bytes(cut.read_bytes()[:-30])
    PIL.Image.new("RGB", (20, 10)).save(root / "JPEGImages" / "bare.png")
    listed = [name for name in files_of if name != "held out"]
    (root / "ImageSets" / "Main" / "train.txt").write_text("\n".join([*listed, "bare", "", "a"]), encoding="utf-8")
    (root / "ImageSets" / "Main" / "val.txt").write_text("held out\n")
    return root


def problems(root):
    def of(name, *reasons):
        return [files.Problem(str(root / "Annotations" / f"{name}.xml"), reason) for reason in reasons]

    outside = "has a box that reaches outside the picture of 20x10"
    number = "has a box that has a coordinate that is no finite number"
    return sorted(
        [
            *of("faults", "object 1 (cat) has a box that is reversed", "object 2 (cat) has a box that is reversed"),
            *of("faults", "object 3 (cat) has a box that is empty"),
            *of("faults", *(f"object {k} (cat) {outside}" for k in (4, 5, 6))),
            *of("faults", *(f"object {k} (cat) {number}" for k in (7, 8, 9))),
            *of("hopeless", "object 1 (cat) has a box that is empty"),
            *of("other size", "is for a picture of 40x20, but other size.png has 20x10"),
            *of("broken", "is no readable XML (no element found: line 1, column 20)"),
            *of("bare", "does not exist"),
            files.Problem(str(root / "JPEGImages" / "cut.png"), "is truncated or damaged"),
            files.Problem(str(root / "JPEGImages" / "lost.jpg"), "does not exist"),
        ]
    )


def test_boxes_are_exclusive_pixels_from_zero_in_the_order_of_the_list(boxes):
    dataset = data.load(f"voc:{boxes}")
    records = list(dataset.as_numpy_iterator())
    assert [record["name"].decode() for record in records] == ["a", "b ü", "c", "d", "faults"]
    assert dataset.cardinality() == 5
    assert data.class_names(f"voc:{boxes}") == ["cat", "dog"]
    first = records[0]
    np.testing.assert_array_equal(first["boxes"], np.array([[2, 1, 8.5, 9], [0, 0, 20, 10]], np.float32))
    np.testing.assert_array_equal(first["classes"], [1, 0])
    np.testing.assert_array_equal(first["difficult"], [True, False])
    np.testing.assert_allclose(first["image"], np.full([10, 20, 3], [0, 0.2, 1]), rtol=1e-6)
    kinds = [first[key].dtype for key in ("image", "boxes", "classes", "difficult")]
    assert kinds == [np.float32, np.float32, np.int32, bool]


def test_a_picture_without_objects_is_kept_and_has_no_boxes(boxes):
    record = list(data.load(f"voc:{boxes}").as_numpy_iterator())[1]
    assert (record["boxes"].shape, record["classes"].shape) == ((0, 4), (0,))


def test_of_a_picture_with_bad_boxes_the_good_ones_are_kept(boxes):
    record = list(data.load(f"voc:{boxes}").as_numpy_iterator())[4]
    np.testing.assert_array_equal(record["boxes"], [[0, 0, 20, 10]])


def test_each_fault_is_reported_with_file_and_reason(boxes, caplog):
    assert data.check(f"voc:{boxes}") == problems(boxes)
    data.load(f"voc:{boxes}")
    assert caplog.messages[-1].endswith("skipped 15 pictures or objects of 7 files; 5 pictures are left")


def test_strict_refuses_and_lists_every_fault(boxes):
    with pytest.raises(data.BadDataError, match="has 15 problems") as caught:
        data.load(f"voc:{boxes}", strict=True)
    assert caught.value.problems == problems(boxes)


def test_splits_are_the_official_lists_and_all(boxes):
    assert [r["name"] for r in data.load(f"voc:{boxes}", "validation").as_numpy_iterator()] == [b"held out"]
    assert data.load(f"voc:{boxes}", "all").cardinality() == 6
    with pytest.raises(ValueError, match="has the splits train, validation, all, not 'test'"):
        data.load(f"voc:{boxes}", "test")


def test_a_class_that_is_not_among_those_given_is_unknown(boxes):
    (problem,) = data.check(f"voc:{boxes}", "validation", classes=["dog"])
    assert problem.reason == "object 1 (cat) has the unknown class 'cat' (the classes are dog)"
    (record,) = data.load(f"voc:{boxes}", "validation", classes=["dog"]).as_numpy_iterator()
    np.testing.assert_array_equal(record["classes"], [0])


def test_verify_false_takes_the_size_from_the_annotation(boxes, monkeypatch):
    monkeypatch.setattr(files, "_size", lambda *_: pytest.fail("a picture was decoded"))
    found = {problem.reason for problem in data.check(f"voc:{boxes}", verify=False)}
    assert "object 4 (cat) has a box that reaches outside the picture of 20x10" in found
    assert "is truncated or damaged" not in found


def test_without_lists_the_split_is_the_fixed_one(tmp_path):
    for folder in ("Annotations", "JPEGImages"):
        (tmp_path / folder).mkdir()
    for number in range(30):
        (tmp_path / "Annotations" / f"{number}.xml").write_text(annotation([GOOD]))
        PIL.Image.new("L", (20, 10)).save(tmp_path / "JPEGImages" / f"{number}.jpg")
    parts = [data.load(f"voc:{tmp_path}", split) for split in ("train", "validation", "test", "all")]
    parts = [{record["name"].decode() for record in part.as_numpy_iterator()} for part in parts]
    assert parts[0] == {str(n) for n in range(30) if files.in_split(str(n), "train")}
    assert parts[0] | parts[1] | parts[2] == parts[3] == {str(n) for n in range(30)}
    assert sum(map(len, parts[:3])) == 30


def test_a_directory_of_another_form_is_told_what_is_wanted(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no Annotations: voc:DIR wants DIR/Annotations"):
        data.load(f"voc:{tmp_path}")
