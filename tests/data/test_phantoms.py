"""Laws of the rendered chest slices."""

import hashlib
import time

import numpy as np
import pytest
from scipy import ndimage

from dmkeras.data import phantoms

PINNED = {
    (96, 40): "728072f31d8af4c9832b6218bab37c2547826d5fe0b92c55c8e1ac16e64fe6c9",
    (33, 40): "612042a2def2d0e1b03af42491eedd4582fa020678a5b9d97b2d475d68d3977a",
}
BODY, RIGHT, LEFT, HEART = 1, 2, 3, 4


def digest(scenes):
    total = hashlib.sha256()
    for scene in scenes:
        for key in sorted(scene):
            value = np.asarray(scene[key])
            total.update(f"{key}{value.dtype.str}{value.shape}".encode() + value.tobytes())
    return total.hexdigest()


@pytest.fixture(scope="module", params=[32, 96])
def subjects(request):
    return [phantoms.scene(number, request.param) for number in range(100)]


@pytest.mark.parametrize(("size", "count"), PINNED)
def test_a_number_gives_the_same_subject_on_every_machine(size, count):
    assert digest(phantoms.scene(number, size) for number in range(count)) == PINNED[size, count]


def test_masks_are_disjoint_and_make_up_the_semantic_mask(subjects):
    for subject in subjects:
        assert subject["masks"].sum(0).max() == 1
        np.testing.assert_array_equal((subject["masks"] * np.arange(1, 5)[:, None, None]).sum(0), subject["semantic"])


def test_every_organ_is_one_piece_of_a_fair_size(subjects):
    for subject in subjects:
        for organ in subject["masks"][BODY:]:
            assert organ.mean() > 0.02
            assert ndimage.label(organ, np.ones((3, 3)))[1] == 1
        assert subject["masks"][BODY - 1].mean() > 0.1


def test_structures_lie_as_in_a_chest(subjects):
    for subject in subjects:
        semantic = subject["semantic"]
        centre = {k: np.argwhere(semantic == k).mean(0) for k in (RIGHT, LEFT, HEART)}
        assert centre[RIGHT][1] < centre[HEART][1] < centre[LEFT][1]
        assert not np.concatenate([semantic[0], semantic[-1], semantic[:, 0], semantic[:, -1]]).any()
        organs = ndimage.binary_dilation(semantic > BODY)
        assert (semantic[organs] > 0).all(), "an organ touches the air"


def test_the_heart_is_brighter_than_the_lungs(subjects):
    for subject in subjects:
        image, masks = subject["image"][..., 0], subject["masks"]
        assert np.median(image[masks[HEART - 1]]) > np.median(image[masks[RIGHT - 1] | masks[LEFT - 1]]) + 20


def test_the_deformation_never_folds():
    for number in range(50):
        x, y = phantoms.anatomy(np.random.PCG64(number), 64)
        (x_row, x_column), (y_row, y_column) = np.gradient(x, 2 / 64), np.gradient(y, 2 / 64)
        jacobian = x_column * y_row - x_row * y_column
        assert jacobian.min() > 0.3
        assert jacobian.std() > 0.01, "not deformed at all"


def test_subjects_differ_within_one_frame():
    """Any subject's labels are a rough first guess of any other's, and no more."""
    first, *others = (phantoms.scene(number)["masks"] for number in range(30))
    dice = np.array([2 * (first & other).sum((1, 2)) / (first.sum((1, 2)) + other.sum((1, 2))) for other in others])
    assert dice.mean(0).min() > 0.5
    assert dice.mean(0).max() < 0.95


def test_the_dataset_says_what_it_holds():
    dataset = phantoms.load("validation", size=40)
    assert int(dataset.cardinality()) == 100
    record = next(iter(dataset))
    assert {key: (spec.dtype.name, spec.shape.as_list()) for key, spec in dataset.element_spec.items()} == {
        "image": ("float32", [40, 40, 1]),
        "semantic": ("int32", [40, 40]),
        "masks": ("bool", [4, 40, 40]),
    }
    assert 0 <= record["image"].numpy().min() < record["image"].numpy().max() <= 1
    assert len(phantoms.class_names()) == 4


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"split": "training"}, ValueError, "did you mean 'train'"),
        ({"size": 16}, ValueError, r"size is 16, but must lie in 32\.\.256"),
        ({"count": 0}, ValueError, "count is 0"),
        ({"seed": 0.5}, TypeError, "seed is an integer"),
    ],
)
def test_a_wrong_option_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        phantoms.load(**{"split": "train", **options})


def test_rendering_is_fast():
    phantoms.scene(0)
    start = time.process_time()
    for number in range(50):
        phantoms.scene(number)
    assert 50 / (time.process_time() - start) > 100
