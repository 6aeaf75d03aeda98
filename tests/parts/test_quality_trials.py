"""Trials of quality: no picture serves twice, stages get better, every kind comes, tables and pictures tell it."""

import csv

import numpy as np
import pytest
import tensorflow as tf

from dmkeras import figures
from dmkeras.parts import quality_report, quality_trials
from dmkeras.parts.segmentation_metrics import dice
from dmkeras.parts.spoiled_segmentations import KINDS

RNG = np.random.default_rng(0)
LABELS = np.zeros((12, 16, 16), "int32")
for labels in LABELS:
    y, x = RNG.integers(0, 8, 2)
    labels[y : y + 8, x : x + 8] = 1
IMAGES = (0.2 + 0.6 * LABELS[..., None] + 0.05 * RNG.normal(size=(12, 16, 16, 1))).clip(0, 1).astype("float32")


def test_later_stages_segment_better():
    found = quality_trials.segmented(IMAGES[:6], LABELS[:6], IMAGES[6:], 2, (1, 60))
    assert found.shape == (2, 6, 16, 16)
    first, last = (dice(LABELS[6:], stage, 2)[1] for stage in found)
    assert last > 0.9 > first


def test_each_picture_has_three_segmentations_and_every_kind_comes():
    stages = np.stack([LABELS, 0 * LABELS])
    maps, groups, made = quality_trials.varied(LABELS, stages, seed=(0, 1))
    np.testing.assert_array_equal(groups, np.repeat(np.arange(12), 3))
    assert {text.partition(",")[0] for text in made} == {"segmenter", *KINDS}
    for i, text in enumerate(made):
        if text == "segmenter, stage 1":
            np.testing.assert_array_equal(maps[i], LABELS[groups[i]])
        if text == "segmenter, stage 2":
            assert not maps[i].any()
    again, other = (quality_trials.varied(LABELS, stages, seed)[0] for seed in ((0, 1), (1, 1)))
    np.testing.assert_array_equal(maps, again)
    assert (maps != other).any()


def test_pictures_of_any_size_get_one_and_no_picture_is_in_two_parts():
    def records():
        for i, side in enumerate((8, 12, 16, 10)):
            yield {"image": np.full((side, side + 2, 1), i / 4, "float32"), "semantic": np.full((side, side + 2), i)}

    signature = {"image": tf.TensorSpec([None, None, 1], "float32"), "semantic": tf.TensorSpec([None, None], "int32")}
    records = tf.data.Dataset.from_generator(records, output_signature=signature)
    arrays = quality_trials.shuffled(quality_trials.pictures(records, 8), 3)
    assert arrays["image"].shape == (4, 8, 8, 1)
    np.testing.assert_allclose(arrays["image"][:, 0, 0, 0] * 4, arrays["semantic"][:, 0, 0], rtol=1e-5)
    assert sorted(arrays["name"]) == ["0", "1", "2", "3"]
    first, rest = quality_trials.parted(arrays, 1)
    assert sorted([*first["name"], *rest["name"]]) == ["0", "1", "2", "3"]
    assert len(first["image"]) == 1
    with pytest.raises(ValueError, match="at least 5 pictures, received 4"):
        quality_trials.parted(arrays, 5)


ANSWER = {
    "dice": np.array([0.9, 0.2, 0.5]),
    "dice_interval": np.array([[0.8, 1.0], [0.1, 0.3], [0.4, 0.6]]),
    "iou": np.array([0.8, 0.1, 0.3]),
    "foreground_dice": np.array([0.9, 0.3, 0.6]),
    "class_dice": np.array([[0.9], [0.2], [0.5]]),
    "reference": np.array([0, 1, 0]),
}


def test_the_table_has_the_worst_first_and_overwrites_nothing(tmp_path):
    path = tmp_path / "folder" / "table.csv"
    quality_report.write_table(path, ["a", "b, c", "d"], ANSWER, ["nucleus"], ["first", "second"])
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["b, c", "d", "a"]
    assert rows[0] == {
        "name": "b, c",
        "dice": "0.2000",
        "dice_low": "0.1000",
        "dice_high": "0.3000",
        "iou": "0.1000",
        "foreground_dice": "0.3000",
        "dice_nucleus": "0.2000",
        "best_reference": "second",
    }
    with pytest.raises(FileExistsError):
        quality_report.write_table(path, ["a", "b, c", "d"], ANSWER, ["nucleus"])


def test_the_worst_are_shown_first():
    shown = {"image": IMAGES[:3], "semantic": LABELS[:3], "name": ["a", "b", "c"]}
    picture = quality_report.worst(shown, ANSWER, figures, count=2)
    assert picture.dtype == np.uint8
    twin = quality_report.worst(
        {k: np.array(v)[[1, 2]] for k, v in shown.items()}, {"dice": ANSWER["dice"][[1, 2]]}, figures
    )
    np.testing.assert_array_equal(picture, twin)
