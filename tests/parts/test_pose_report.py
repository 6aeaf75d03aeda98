"""The report of a pose estimator: figures of each stage, and its pictures."""

import numpy as np
import pytest

from dmkeras import figures
from dmkeras.detection.human_pose import HumanPose
from dmkeras.parts import pose_metrics, pose_report


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    model = HumanPose((24, 24, 3), 3, (0, 2), ((0, 1),), 2, 8, (2,), 4)
    keypoints = np.concatenate([rng.uniform(4, 20, (7, 3, 2)), rng.integers(0, 3, (7, 3, 1))], -1).astype("float32")
    boxes = np.concatenate([rng.uniform(0, 4, (7, 2)), rng.uniform(16, 24, (7, 2))], -1).astype("float32")
    return model, rng.random((7, 24, 24, 3), "float32"), keypoints, boxes


def test_figures_are_of_each_stage_in_its_boxes_and_the_last_has_none_in_its_name(case, monkeypatch):
    monkeypatch.setattr(pose_report, "BATCH", 3)  # does not divide
    model, images, keypoints, boxes = case
    found, stages = pose_report.figures(*case), model(images, boxes).numpy()
    for stage in (0, 1):
        own = pose_metrics.summary(stages[:, stage], keypoints, (0, 2), ((0, 1),))
        assert {name: found[f"{name}_stage_{stage + 1}"] for name in own} == pytest.approx(own, abs=1e-5)
    assert {name: found[name] for name in own} == pytest.approx(own, abs=1e-5)
    assert len(found) == 3 * len(own)


def test_pictures_show_the_true_and_the_told_skeleton(case):
    sheets = pose_report.sheets(*case, figures, count=3)
    assert set(sheets) == {"skeletons", "worst", "stages"}
    for picture in sheets.values():
        for kind in (pose_report.TRUE, pose_report.TOLD):
            assert (picture == tuple(bytes.fromhex(figures.PALETTE[kind][1:]))).all(-1).any()
