"""PDJ and PCP against loops over joints and limbs."""

import numpy as np
import pytest

from dmkeras.parts import pose_metrics

RNG = np.random.default_rng(0)
LIMBS = ((0, 1), (1, 2), (3, 0))
TORSO = (1, 3)


@pytest.fixture(scope="module")
def case():
    keypoints = np.concatenate([RNG.uniform(0, 40, (50, 4, 2)), RNG.integers(0, 3, (50, 4, 1))], -1).astype("float32")
    keypoints[0, :, 2], keypoints[1, :, 2] = 0, 2
    keypoints[2, 3], keypoints[2, 1] = keypoints[2, 1], (5, 5, 2)
    keypoints[2, 3] = (5, 5, 2)  # no diameter
    keypoints[3, :2] = (7, 7, 2)  # a limb without length
    joints = keypoints[..., :2] + RNG.normal(0, 4, (50, 4, 2)).astype("float32")
    keypoints[keypoints[..., 2] == 0, :2] = np.nan
    return joints, keypoints


def pdj(joints, keypoints, fraction, least=1):
    right = count = 0
    for person, truth in zip(joints, keypoints):
        (x, y, v), (u, w, z) = truth[TORSO[0]], truth[TORSO[1]]
        diameter = np.hypot(x - u, y - w)
        if v < least or z < least or diameter < 1e-3:
            continue
        for (x, y), (u, w, v) in zip(person, truth):
            if v >= least:
                count += 1
                right += np.hypot(x - u, y - w) <= fraction * diameter
    return right / count


def pcp(joints, keypoints, rule=max, least=1):
    right = count = 0
    for person, truth in zip(joints, keypoints):
        for first, second in LIMBS:
            length = np.hypot(*(truth[first, :2] - truth[second, :2]))
            if truth[first, 2] >= least and truth[second, 2] >= least and length > 1e-3:
                away = [np.hypot(*(person[end] - truth[end, :2])) for end in (first, second)]
                count += 1
                right += rule(away) <= length / 2
    return right / count


@pytest.mark.parametrize("least", [1, 2])
def test_the_figures_are_those_of_loops(case, least):
    found = pose_metrics.summary(*case, TORSO, LIMBS, least=least)
    for fraction in pose_metrics.FRACTIONS:
        assert found[pose_metrics.name(fraction)] == pytest.approx(pdj(*case, fraction, least), abs=1e-6)
    assert found["pcp"] == pytest.approx(pcp(*case, least=least), abs=1e-6)
    assert 0 < found["pdj_10"] < found["pdj_20"] < found["pdj_50"] < 1
    assert "pcp" not in pose_metrics.summary(*case, TORSO)


def test_the_loose_rule_and_another_torso_are_other_figures(case):
    found = pose_metrics.summary(*case, TORSO, LIMBS)
    assert found["pcp"] < pcp(*case, rule=np.mean)
    assert found["pcp"] < pcp(*case, rule=min)
    assert found["pdj_20"] != pytest.approx(pose_metrics.summary(*case, (0, 2))["pdj_20"], abs=1e-3)
    assert found["pdj_20"] != pytest.approx(pdj(*case, 0.2, least=2), abs=1e-3)


def test_a_case_by_hand():
    truth = np.array([[[0, 0, 2], [10, 0, 1], [10, 10, 2], [0, 10, 0]]], "float32")  # torso: joints 0 and 1, 10 pixels
    joints = truth[..., :2] + [[[1, 0], [0, 5], [3, 4.1], [99, 99]]]
    away, counts = pose_metrics.errors(joints, truth, (0, 1))
    np.testing.assert_allclose(away, [[0.1, 0.5, np.hypot(3, 4.1) / 10, 0]], rtol=1e-6)
    np.testing.assert_array_equal(counts, [[True, True, True, False]])
    found = pose_metrics.summary(joints, truth, (0, 1), [(0, 1), (1, 2), (2, 3)])
    assert found["pdj_10"] == found["pdj_20"] == pytest.approx(1 / 3)  # at most: the boundary counts
    assert found["pdj_50"] == pytest.approx(2 / 3)
    assert found["pcp"] == pytest.approx(1 / 2)  # 1 and 5 of 10: right; 5 and 5.08: wrong; the third is not labelled
    assert found["mean_error"] == pytest.approx((0.1 + 0.5 + np.hypot(3, 4.1) / 10) / 3)


def test_figures_do_not_depend_on_the_scale_of_the_picture(case):
    joints, keypoints = case
    bigger = keypoints * [3.0, 3.0, 1.0]
    first, second = pose_metrics.summary(*case, TORSO, LIMBS), pose_metrics.summary(3 * joints, bigger, TORSO, LIMBS)
    assert first == pytest.approx(second, abs=1e-6)


def test_persons_without_anything_that_counts_give_zeros():
    for keypoints in (np.full((2, 4, 3), [np.nan, np.nan, 0.0]), np.zeros((0, 4, 3))):
        found = pose_metrics.summary(np.zeros((len(keypoints), 4, 2)), keypoints, TORSO, LIMBS)
        assert set(found.values()) == {0.0}
    diameters, known = pose_metrics.diameters(np.full((1, 4, 3), [3.0, 4.0, 2.0]), TORSO)
    assert (diameters.numpy().tolist(), known.numpy().tolist()) == ([1.0], [False])
