"""Laws of the rendered scenes."""

import hashlib
import itertools
import time

import numpy as np
import pytest

from dmkeras.data import painting, shapes

PINNED = {
    (128, 40): "041136865cbb849e5fc14a1c77839784a7468e641cb0da95a797206f89f4011f",
    (33, 40): "a94523dbfea78069d6f4d8414d74e9f4167dbdc41b89509ce05e69c4d8bf1eb2",
}


def digest(scenes):
    total = hashlib.sha256()
    for scene in scenes:
        for key in sorted(scene):
            value = np.asarray(scene[key])
            total.update(f"{key}{value.dtype.str}{value.shape}".encode() + value.tobytes())
    return total.hexdigest()


@pytest.fixture(scope="module")
def scenes():
    return [shapes.scene(number, size) for size in (32, 45, 128) for number in range(30)]


@pytest.mark.parametrize(("size", "count"), PINNED)
def test_a_number_gives_the_same_scene_on_every_machine(size, count):
    assert digest(shapes.scene(number, size) for number in range(count)) == PINNED[size, count]


def test_masks_are_disjoint_and_make_up_the_semantic_mask(scenes):
    for scene in scenes:
        assert scene["masks"].sum(0).max() == 1
        semantic = (scene["masks"] * (scene["classes"] + 1)[:, None, None]).sum(0)
        np.testing.assert_array_equal(semantic, scene["semantic"])


def is_tight(box, mask):
    y, x = np.nonzero(mask)
    return tuple(box) == (x.min(), y.min(), x.max() + 1, y.max() + 1)


def test_boxes_are_tight_around_the_visible_pixels(scenes):
    for scene in scenes:
        for box, mask in zip(scene["boxes"], scene["masks"]):
            assert is_tight(box, mask)
            assert not is_tight(box - (0, 0, 1, 1), mask)


def test_the_label_is_the_class_of_the_largest_object(scenes):
    for scene in scenes:
        areas = [mask.sum() for mask in scene["masks"]]
        assert scene["label"] == scene["classes"][np.argmax(areas)]


def kept_plates(number, size, monkeypatch):
    """Every plate that was tried, with whether it was kept, in the order of trial."""
    tried = []
    claim = shapes._claim

    def spy(plate, owner, depth, k):
        kept = claim(plate, owner, depth, k)
        tried.append((plate, kept))
        return kept

    with monkeypatch.context() as patch:
        patch.setattr(shapes, "_claim", spy)
        return shapes.scene(number, size, 12), tried


def on_picture(plate, values, size, outside):
    whole = np.full((size + 40, size + 40), outside, values.dtype)
    whole[plate.top + 20 : plate.top + 20 + len(values), plate.left + 20 : plate.left + 20 + values.shape[1]] = values
    return whole[20:-20, 20:-20]


def test_the_nearest_object_is_seen_at_every_pixel(monkeypatch):
    """The masks and the depth map equal those of a z-buffer over the objects' own depth."""
    for number in range(20):
        scene, tried = kept_plates(number, 96, monkeypatch)
        plates = [plate for plate, kept in tried if kept]
        buffers = [np.where(plate.distance < 0, plate.depth, np.float32(np.inf)) for plate in plates]
        buffers = np.stack([on_picture(p, values, 96, np.inf) for p, values in zip(plates, buffers)])
        nearest = np.where(buffers.min(0) < np.inf, buffers.argmin(0), -1)
        np.testing.assert_array_equal(scene["masks"], nearest == np.arange(len(plates))[:, None, None])
        seen = nearest >= 0
        np.testing.assert_allclose(scene["depth"][seen], buffers.min(0)[seen], atol=0.00051)
        assert scene["depth"][seen].max(initial=0) < shapes.FAR < shapes.WALL <= scene["depth"][~seen].min()


def test_the_nearest_object_is_painted_over_all_others(monkeypatch):
    monkeypatch.setattr(painting, "light", lambda picture, words: np.clip(picture, 0, 255, out=picture))
    for number in range(20):
        scene, tried = kept_plates(number, 96, monkeypatch)
        nearest = tried[0][0]
        alone = np.zeros((3, 96, 96), "float32")
        painting.paint(alone, nearest, 96)
        inner = on_picture(nearest, nearest.distance < -1, 96, False)
        assert abs(scene["image"][inner] - np.clip(alone, 0, 255)[:, inner].T).max() <= 1


def test_objects_stand_in_the_order_of_their_depth(scenes):
    for scene in scenes:
        spans = [(scene["depth"][mask].min(), scene["depth"][mask].max()) for mask in scene["masks"]]
        assert all(farthest < nearest for (_, farthest), (nearest, _) in itertools.pairwise(spans))


def test_an_object_is_left_out_exactly_when_too_little_of_it_is_seen(monkeypatch):
    left_out = 0
    for number in range(60):
        _, tried = kept_plates(number, 64, monkeypatch)
        taken = np.zeros((64, 64), bool)
        for k, (plate, kept) in enumerate(tried):
            inside = on_picture(plate, plate.distance < 0, 64, False)
            seen = (inside & ~taken).sum()
            assert kept == (k == 0 or seen >= max(shapes.VISIBLE * inside.sum(), shapes.LEAST))
            left_out += not kept
            taken |= inside & kept
    assert left_out > 20


def test_a_keypoint_is_visible_where_its_object_owns_the_pixel(scenes):
    counts = np.zeros(3, int)
    for scene in scenes:
        for points, mask in zip(scene["keypoints"], scene["masks"]):
            for x, y, visibility in points:
                counts[int(visibility)] += 1
                if visibility:
                    assert (visibility == 2) == mask[int(y), int(x)]
                else:
                    assert (x, y) == (0, 0)
    assert counts.min() > 10


def test_nothing_hides_the_keypoints_of_a_lone_object():
    visibility = [shapes.scene(number, 128, 1)["keypoints"][..., 2] for number in range(60)]
    assert set(np.unique(visibility)) == {0, 2}


def test_the_head_of_a_symmetric_shape_points_upwards():
    for number in range(200):
        scene = shapes.scene(number, 128, 1)
        kind = shapes.CLASSES[scene["classes"][0]]
        if shapes.OUTLINES[kind].symmetry != 1 and (scene["keypoints"][0, :, 2] == 2).all():
            head, right, tail, left = scene["keypoints"][0, :, 1]
            assert head < tail
            assert head < min(left, right) + 1.5 or kind == "square"


def test_an_outline_is_a_distance():
    """Negative inside, within the unit circle, and nowhere steeper than one unit a unit."""
    u, v = np.meshgrid(np.linspace(-1.5, 1.5, 301), np.linspace(-1.5, 1.5, 301))
    for name, outline in shapes.OUTLINES.items():
        distance = outline.distance(u, v)
        assert 0.1 < np.mean(distance < 0) * 9 / np.pi <= 1, name
        assert (distance[u**2 + v**2 > 1.0001] > 0).all(), name
        assert max(abs(np.diff(distance, axis=axis)).max() for axis in (0, 1)) < 0.010001, name
        assert all(outline.distance(np.float64(a), np.float64(b)) < 0 for a, b in outline.keypoints), name


def test_every_class_and_several_objects_occur(scenes):
    classes = np.concatenate([scene["classes"] for scene in scenes])
    assert set(classes) == set(range(len(shapes.CLASSES)))
    assert len(classes) > 3 * len(scenes)


def test_the_dataset_says_what_it_holds():
    dataset = shapes.load("validation", size=40)
    assert int(dataset.cardinality()) == 500
    record = next(iter(dataset))
    for key, spec in dataset.element_spec.items():
        assert record[key].dtype == spec.dtype, key
        assert spec.shape.is_compatible_with(record[key].shape), key
    assert len({len(record[key]) for key in ("boxes", "classes", "masks", "keypoints")}) == 1
    assert shapes.class_names() == shapes.CLASSES


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"split": "tset"}, ValueError, "did you mean 'test'"),
        ({"size": 31}, ValueError, r"size is 31, but must lie in 32\.\.256"),
        ({"size": 257}, ValueError, "size is 257"),
        ({"size": 64.0}, TypeError, "size is an integer, not 64.0"),
        ({"count": 0}, ValueError, "count is 0"),
        ({"seed": -1}, ValueError, "seed is -1"),
        ({"max_objects": 13}, ValueError, r"must lie in 1\.\.12"),
    ],
)
def test_a_wrong_option_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        shapes.load(**{"split": "train", **options})


def test_rendering_is_fast():
    """Far below the some hundreds a second of an idle core: it catches a slip of an order of magnitude."""
    shapes.scene(0)
    start = time.process_time()
    for number in range(30):
        shapes.scene(number)
    assert 30 / (time.process_time() - start) > 60


def test_the_skeleton_goes_round_the_outline_and_its_diameter_is_from_right_to_left():
    assert [shapes.KEYPOINTS[end] for end in shapes.TORSO] == ["right", "left"]
    names = [{shapes.KEYPOINTS[end] for end in limb} for limb in shapes.LIMBS]
    assert names == [{"head", "right"}, {"right", "tail"}, {"tail", "left"}, {"left", "head"}]
    for outline in shapes.OUTLINES.values():
        points = np.array(outline.keypoints)
        assert 1.1 <= np.linalg.norm(points[shapes.TORSO[0]] - points[shapes.TORSO[1]]) <= 1.8
        np.testing.assert_allclose(points[list(shapes.MIRRORED)] * (-1, 1), points, atol=1e-12)
