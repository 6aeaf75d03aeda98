"""Laws of the easy set, and the bits of it."""

import hashlib
import itertools

import numpy as np
import pytest

from dmkeras.data import simple_shapes

# The first 200 pictures of each split's stream, as NumPy's default_rng draws them.
PINNED = {
    1: "fa658a2f956f139400d8466f938135c9149967d0bada6045e4c1bcade23c4c7b",
    2: "e1536a4d5ad0d6e6a0954d0ce11c0c7f63b3bb48629b018f8b48539bbc7bacc4",
    99: "204569473238336e3fe55663be9bf5697b27ca7e4be1db828a85efc3d4fe6909",
}


@pytest.fixture(scope="module")
def pictures():
    return {seed: list(simple_shapes.render(seed, 200)) for seed in PINNED}


@pytest.mark.parametrize("seed", PINNED)
def test_the_set_is_the_one_that_figures_are_measured_on(pictures, seed):
    total = hashlib.sha256()
    for image, boxes, classes in pictures[seed]:
        total.update(image.tobytes() + boxes.tobytes() + classes.tobytes())
    assert total.hexdigest() == PINNED[seed]


def test_the_splits_are_their_seeds():
    seeds = {split: seed for split, (seed, _) in simple_shapes.SPLITS.items()}
    assert seeds == {"train": 1, "validation": 2, "test": 99}
    for split, seed in seeds.items():
        record = next(simple_shapes.load(split, count=1).as_numpy_iterator())
        image, boxes, classes = next(simple_shapes.render(seed, 1))
        np.testing.assert_array_equal(record["image"], image / np.float32(255))
        np.testing.assert_array_equal(record["boxes"], boxes)
        np.testing.assert_array_equal(record["classes"], classes)


def test_the_dataset_says_what_it_holds():
    assert int(simple_shapes.load("train").cardinality()) == 8000
    assert int(simple_shapes.load("test").cardinality()) == 200
    dataset = simple_shapes.load("validation", count=5)
    records = list(dataset.as_numpy_iterator())
    assert len(records) == int(dataset.cardinality()) == 5
    for record in records:
        assert record["image"].dtype == record["boxes"].dtype == np.float32
        assert record["classes"].dtype == np.int32
        assert record["image"].min() >= 0
        assert record["image"].max() <= 1
    assert simple_shapes.class_names() == ("square", "disc", "triangle")


def test_pictures_of_another_size_and_number_of_objects_are_those_that_are_rendered():
    record = next(simple_shapes.load("test", size=40, count=1, max_objects=1).as_numpy_iterator())
    image, boxes, classes = next(simple_shapes.render(99, 1, size=40, max_objects=1))
    np.testing.assert_array_equal(record["image"], image / np.float32(255))
    np.testing.assert_array_equal(record["boxes"], boxes)
    np.testing.assert_array_equal(record["classes"], classes)
    for wrong in ({"size": 31}, {"max_objects": 0}):
        with pytest.raises(ValueError, match="must lie in"):
            simple_shapes.load("test", **wrong)


def test_a_picture_does_not_depend_on_how_many_are_asked_for(pictures):
    for (one, _, _), (other, _, _) in zip(simple_shapes.render(99, 3), pictures[99]):
        np.testing.assert_array_equal(one, other)


def test_every_picture_holds_one_to_three_objects_of_three_kinds(pictures):
    classes = [classes for _, _, classes in pictures[99]]
    assert {len(present) for present in classes} == {1, 2, 3}
    assert set(itertools.chain.from_iterable(classes)) == {0, 1, 2}


def test_a_box_shares_little_with_those_before_it(pictures):
    for _, boxes, _ in pictures[99]:
        for k, box in enumerate(boxes):
            for other in boxes[:k]:
                width, height = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
                area = (box[2] - box[0]) * (box[3] - box[1])
                assert max(width, 0) * max(height, 0) < 0.2 * area  # 0.1 before rounding to whole pixels


def test_a_box_is_tight_around_a_lone_object(pictures):
    """Where the object's mean colour differs clearly from the background's, half way between the two is its edge."""
    seen = 0
    for image, boxes, classes in pictures[99]:
        if len(boxes) != 1 or classes[0] != 0:
            continue
        left, top, right, bottom = boxes[0].astype(int)
        outside = np.ones((96, 96), bool)
        outside[top:bottom, left:right] = False
        inner = image[top:bottom, left:right].mean((0, 1))
        difference = inner - image[outside].mean(0)
        if np.abs(difference).max() < 90:
            continue
        seen += 1
        likeness = (image - image[outside].mean(0)) @ difference / (difference @ difference)
        rows, columns = likeness[:, left:right].mean(1) > 0.5, likeness[top:bottom].mean(0) > 0.5
        assert (np.flatnonzero(rows)[[0, -1]] == (top, bottom - 1)).all()
        assert (np.flatnonzero(columns)[[0, -1]] == (left, right - 1)).all()
    assert seen > 5


@pytest.mark.parametrize(
    ("split", "options", "error", "message"),
    [
        ("valid", {}, ValueError, "did you mean 'validation'"),
        ("train", {"count": 0}, ValueError, "count is 0"),
        ("train", {"count": True}, TypeError, "count is an integer"),
    ],
)
def test_a_wrong_option_is_refused(split, options, error, message):
    with pytest.raises(error, match=message):
        simple_shapes.load(split, **options)
