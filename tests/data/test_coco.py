"""`coco:JSON`: boxes, masks and keypoints in COCO's format, and each fault that its file can have."""

import json

import numpy as np
import PIL.Image
import pytest

from dmkeras import data
from dmkeras.data import files, rle

CATEGORIES = [
    {"id": 7, "name": "cup"},
    {"id": 3, "name": "hand", "keypoints": ["thumb", "wrist"], "skeleton": [[1, 2]]},
]
HEIGHT, WIDTH = 6, 8


def write(path, names, annotations, categories=CATEGORIES, pictures=None, **image):
    path.parent.mkdir(parents=True, exist_ok=True)
    size = {"height": HEIGHT, "width": WIDTH}
    images = [{"id": number, "file_name": name, **size, **image} for number, name in enumerate(names)]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    for name in names:
        file = (pictures or path.parent) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (WIDTH, HEIGHT), (255, 0, 0)).save(file)
    return path


def item(number, **changes):
    """A valid annotation: class cup, the rectangle x 2..5, y 1..4, as box and as polygon."""
    polygon = [2, 1, 5, 1, 5, 4, 2, 4]
    valid = {"id": number, "image_id": 0, "category_id": 7, "bbox": [2, 1, 3, 3], "segmentation": [polygon]}
    return {key: value for key, value in {**valid, **changes}.items() if value is not ...}


def counts(mask):
    """COCO's uncompressed run lengths of a mask, in NumPy: columns first, zeros first."""
    flat = np.concatenate([[0], mask.T.ravel().astype(int)])
    ends = np.flatnonzero(np.diff(flat))
    return np.diff([0, *ends, mask.size]).tolist()


RECTANGLE = np.zeros([HEIGHT, WIDTH], bool)
RECTANGLE[1:4, 2:5] = True
RLE = {"size": [HEIGHT, WIDTH], "counts": counts(RECTANGLE)}


def compressed():
    from pycocotools import mask

    return {"size": [HEIGHT, WIDTH], "counts": mask.encode(np.asfortranarray(RECTANGLE, np.uint8))["counts"].decode()}


def test_boxes_masks_and_keypoints_of_a_picture(tmp_path):
    points = {"category_id": 3, "keypoints": [1, 2, 2, 7, 5, 1]}
    annotations = [
        item(1),
        item(2, segmentation=RLE, **points),
        item(3, segmentation=compressed(), category_id=3, keypoints=[90, 90, 0, 4, 4, 2], bbox=[0, 0, 8.5, 6]),
        item(4, iscrowd=1, segmentation=RLE),
    ]
    path = write(tmp_path / "set.json", ["zwei wörter.png", "none.png"], annotations)
    dataset = data.load(f"coco:{path}", "all", strict=True)
    first, second = dataset.as_numpy_iterator()
    assert dataset.cardinality() == 2
    assert data.class_names(f"coco:{path}") == ["hand", "cup"]
    np.testing.assert_array_equal(first["boxes"], [[2, 1, 5, 4], [2, 1, 5, 4], [0, 0, 8, 6]])
    np.testing.assert_array_equal(first["classes"], [1, 0, 0])
    np.testing.assert_array_equal(first["masks"], [RECTANGLE] * 3)
    none = [[0, 0, 0], [0, 0, 0]]
    np.testing.assert_array_equal(first["keypoints"], [none, [[1, 2, 2], [7, 5, 1]], [[0, 0, 0], [4, 4, 2]]])
    assert first["name"].decode() == "zwei wörter.png"
    assert first["image"].shape == (HEIGHT, WIDTH, 3)
    kinds = [first[key].dtype for key in ("image", "boxes", "classes", "masks", "keypoints")]
    assert kinds == [np.float32, np.float32, np.int32, bool, np.float32]
    shapes = [second[key].shape for key in ("boxes", "classes", "masks", "keypoints")]
    assert shapes == [(0, 4), (0,), (0, HEIGHT, WIDTH), (0, 2, 3)]


def test_a_file_of_boxes_alone_has_boxes_alone(tmp_path):
    path = write(tmp_path / "set.json", ["a.png"], [item(1, segmentation=...)], categories=CATEGORIES[:1])
    assert set(data.load(f"coco:{path}", "all").element_spec) == {"image", "boxes", "classes", "name"}


FAULTS = {
    "has a box that is reversed": {"bbox": [5, 1, -3, 3]},
    "has a box that is empty": {"bbox": [2, 1, 0, 3]},
    "has a box that reaches outside the picture of 8x6": {"bbox": [2, 1, 9, 3]},
    "has a box that has a coordinate that is no finite number": {"bbox": [2, 1, float("nan"), 3]},
    "has a box of 3 numbers, not 4": {"bbox": [2, 1, 3]},
    "has a box of 1 numbers, not 4": {"bbox": ...},
    "has a box that is not of numbers": {"bbox": "none"},
    "has an unknown class (the classes are hand, cup)": {"category_id": 99},
    "has a mask of size (height, width) [8, 6], not [6, 8]": {"segmentation": {**RLE, "size": [WIDTH, HEIGHT]}},
    "has a mask whose run lengths are not those of 48 pixels": {"segmentation": {**RLE, "counts": [5, 1]}},
    "has no mask: a polygon is a list of at least three x, y": {"segmentation": [[1, 1, 2, 2]]},
    "has a mask that is not of numbers": {"segmentation": [["a"] * 6]},
    "has a mask that reaches far outside the picture of 8x6": {"segmentation": [[1e12, 1, 2, 2, 3, 3]]},
    "has an empty mask": {"segmentation": {**RLE, "counts": [48]}},
    "has a list of keypoints of 4 numbers, not 6": {"category_id": 3, "keypoints": [1, 1, 2, 2]},
    "has a keypoint whose visibility is not 0, 1 or 2": {"category_id": 3, "keypoints": [1, 1, 3, 0, 0, 0]},
    "has a keypoint outside the picture of 8x6": {"category_id": 3, "keypoints": [1, 1, 2, 50, 1, 2]},
}


ODD = {"": "is no file", "\ud800.png": "does not exist", "nul\0.png": "does not exist"}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """One picture with every faulty object and one good; one whose only object is bad; files that cannot be used."""
    root = tmp_path_factory.mktemp("coco")
    names = ["objects.png", "hopeless.png", "cut.png", "gone.png", "grown.png"]
    annotations = [item(number, **change) for number, change in enumerate(FAULTS.values())]
    annotations += [item(100), item(101, image_id=1, bbox=[0, 0, 0, 0]), item(102, image_id=55)]
    path = write(root / "set.json", names, annotations)
    (root / "cut.png").write_bytes((root / "cut.png").read_bytes()[:-30])
    (root / "gone.png").unlink()
    PIL.Image.new("RGB", (9, 9)).save(root / "grown.png")
    content = json.loads(path.read_text())
    content["images"] += [{"id": 9}, {"id": 0, "file_name": "twice.png"}]
    content["images"] += [{"id": 10 + number, "file_name": name} for number, name in enumerate(ODD)]
    path.write_text(json.dumps(content))
    return path


def problems(path):
    def of(reason):
        return files.Problem(str(path), reason)

    found = []
    for number, (reason, change) in enumerate(FAULTS.items()):
        name = {3: "hand", 7: "cup"}.get(change.get("category_id", 7), "no category")
        found.append(of(f"annotation {number} ({name}) of image 'objects.png' {reason}"))
    return sorted(
        [
            *found,
            of("annotation 101 (cup) of image 'hopeless.png' has a box that is empty"),
            of("annotation 102 is of image 55, which is not listed"),
            of("image 9 has no id or no file_name"),
            of("image 0 (twice.png) has the id of another"),
            of("image 'grown.png' is said to be 8x6, but is 9x9"),
            *(files.Problem(files.shown(path.parent / name), reason) for name, reason in ODD.items()),
            files.Problem(str(path.parent / "cut.png"), "is truncated or damaged"),
            files.Problem(str(path.parent / "gone.png"), "does not exist"),
        ]
    )


def test_each_fault_is_reported_and_the_rest_is_used(faulty, caplog):
    assert data.check(f"coco:{faulty}", "all") == problems(faulty)
    (record,) = data.load(f"coco:{faulty}", "all").as_numpy_iterator()
    np.testing.assert_array_equal(record["boxes"], [[2, 1, 5, 4]])
    np.testing.assert_array_equal(record["masks"], [RECTANGLE])
    assert f"and {len(problems(faulty)) - files.SHOWN} more" in caplog.text


def test_strict_refuses_and_lists_every_fault(faulty):
    with pytest.raises(data.BadDataError) as caught:
        data.load(f"coco:{faulty}", "all", strict=True)
    assert caught.value.problems == problems(faulty)


@pytest.mark.parametrize("code", [[3, 2, 1000], [50, -2], ["a"], "garbage!!", "", "04", None, 7, {}, [48.0]])
def test_a_code_of_another_length_never_reaches_the_decoder(code):
    with pytest.raises(ValueError, match="run lengths are not those of 48 pixels"):
        rle.encode({"size": [HEIGHT, WIDTH], "counts": code}, HEIGHT, WIDTH)


def test_every_form_of_a_mask_gives_the_same_bitmap():
    from pycocotools import mask

    noise = np.random.default_rng(0).random([40, 30]) < 0.5
    packed = mask.encode(np.asfortranarray(noise, np.uint8))["counts"].decode()
    runs = [rle.encode({"size": [40, 30], "counts": form}, 40, 30) for form in (counts(noise), packed)]
    masks = rle.bitmaps(np.concatenate(runs), [len(counts) for counts in runs], (40, 30))
    np.testing.assert_array_equal(masks, [noise, noise])


@pytest.mark.parametrize(
    ("train", "validation", "pictures"),
    [
        ("annotations/instances_train2017.json", "annotations/instances_val2017.json", ("train2017", "val2017")),
        ("train/_annotations.coco.json", "valid/_annotations.coco.json", ("train", "valid")),
        ("train.json", "validation.json", ("images", "images")),
    ],
)
def test_siblings_that_differ_in_the_word_of_the_split_are_the_splits(train, validation, pictures, tmp_path):
    write(tmp_path / train, ["a.png", "b.png"], [item(1)], pictures=tmp_path / pictures[0])
    reordered = [{"id": 1, "name": "cup"}, {"id": 2, "name": "bowl"}]
    annotations = [item(1, category_id=1), item(2, category_id=2)]
    write(tmp_path / validation, ["c.png"], annotations, reordered, pictures=tmp_path / pictures[1])
    for given in (train, validation):
        place = f"coco:{given}"
        names = [r["name"] for r in data.load(place, "train", data_dir=tmp_path).as_numpy_iterator()]
        assert names == [b"a.png", b"b.png"]
        (record,) = data.load(place, "validation", data_dir=tmp_path).as_numpy_iterator()
        assert (record["name"], record["classes"].tolist()) == (b"c.png", [1])
        assert data.class_names(place, data_dir=tmp_path) == ["hand", "cup"]
        (problem,) = data.check(place, "validation", data_dir=tmp_path)
        assert problem.reason.startswith("annotation 2 (bowl) of image 'c.png' has an unknown class")
        with pytest.raises(ValueError, match="has the splits train, validation, not 'test'"):
            data.load(place, "test", data_dir=tmp_path)


def test_one_file_is_split_by_the_hash_of_the_pictures_names(tmp_path):
    names = [f"{number}.png" for number in range(30)]
    path = write(tmp_path / "train station.json", names, [], pictures=tmp_path / "elsewhere")
    options = {"images": tmp_path / "elsewhere", "verify": False}
    for split in ("train", "validation", "test", "all"):
        found = [r["name"].decode() for r in data.load(f"coco:{path}", split, **options).as_numpy_iterator()]
        assert found == [name for name in names if files.in_split(name, split)] != []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no readable JSON"),
        ("[]", "is no COCO file: it has no list 'images' of objects"),
        ('{"images": [], "annotations": [3], "categories": []}', "no list 'annotations' of objects"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', "a category without id or name"),
        ('{"images": [], "annotations": [], "categories": []}', "has no usable picture"),
    ],
)
def test_a_file_that_is_not_cocos_is_refused(text, message, tmp_path):
    (tmp_path / "set.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        data.load("coco:set.json", data_dir=tmp_path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*nothing\.json"):
        data.load("coco:nothing.json", data_dir=tmp_path)
