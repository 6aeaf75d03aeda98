"""`dlc:DIR`: frames with keypoints in DeepLabCut's tables."""

import os
import pathlib

import numpy as np
import PIL.Image
import pytest

from dmkeras import data
from dmkeras.data import dlc, files

HEAD = ["scorer,me,me,me,me", "bodyparts,nose,nose,left ear,left ear", "coords,x,y,x,y"]
ROWS = ["labeled-data/v/a.png,1.5,2,3,4.25", "labeled-data/v/b.png,,,0,7"]
PLACE = pathlib.Path(os.environ.get("DLC_OPENFIELD_DIR", "nowhere"))


def project(root, rows=ROWS, head=HEAD, video="v", pictures=("a.png", "b.png")):
    folder = root / "labeled-data" / video
    folder.mkdir(parents=True)
    (folder / "CollectedData_me.csv").write_text("\n".join([*head, *rows]) + "\n")
    for i, name in enumerate(pictures):
        PIL.Image.new("RGB", (8 + i, 6), (0, 255 * i, 0)).save(folder / name)
    return root


def test_a_table_becomes_frames_with_their_keypoints(tmp_path):
    dataset = data.load(f"dlc:{project(tmp_path)}", "all", strict=True)
    assert dataset.cardinality() == 2
    first, second = dataset.as_numpy_iterator()
    np.testing.assert_array_equal(first["keypoints"], [[[1.5, 2, 2], [3, 4.25, 2]]])
    np.testing.assert_array_equal(second["keypoints"], [[[0, 0, 0], [0, 7, 2]]])  # empty cells are not labelled
    assert first["name"] == b"labeled-data/v/a.png"
    assert first["image"].shape == (6, 8, 3)
    assert first["image"].dtype == np.float32
    np.testing.assert_array_equal(second["image"][0, 0], [0, 1, 0])
    assert dlc.keypoint_names(tmp_path) == ["nose", "left ear"]


def test_paths_in_three_cells_and_the_folder_of_a_video_give_the_same(tmp_path):
    expected = [r["keypoints"] for r in data.load(f"dlc:{project(tmp_path / 'one')}", "all").as_numpy_iterator()]
    head = [f"{line.split(',')[0]},,,{line.partition(',')[2]}" for line in HEAD]
    rows = [row.replace("/", ",") for row in ROWS]
    three = project(tmp_path / "three", rows, head)
    for place in (three, three / "labeled-data" / "v"):
        records = list(data.load(f"dlc:{place}", "all").as_numpy_iterator())
        np.testing.assert_array_equal([record["keypoints"] for record in records], expected)
        assert [record["name"] for record in records] == [b"labeled-data/v/a.png", b"labeled-data/v/b.png"]


def test_videos_come_in_order_and_splits_part_their_frames(tmp_path):
    rows = [f"labeled-data/w/{i}.png,1,2,3,4" for i in range(20)]
    project(tmp_path, rows, video="w", pictures=[f"{i}.png" for i in range(20)])
    project(tmp_path)
    names = {s: [r["name"] for r in data.load(f"dlc:{tmp_path}", s).as_numpy_iterator()] for s in ("all", "train")}
    assert [name.split(b"/")[1] for name in names["all"]] == 2 * [b"v"] + 20 * [b"w"]
    assert set(names["train"]) == {name for name in names["all"] if files.in_split(name.decode(), "train")}
    assert 0 < len(names["train"]) < 22


def test_frames_that_cannot_be_used_are_named(tmp_path):
    rows = [*ROWS, "labeled-data/v/c.png,1,2,3,4", "labeled-data/v/a.png,1,two,3,4"]
    place = f"dlc:{project(tmp_path, rows)}"
    problems = data.check(place, "all")
    assert [str(problem).partition("labeled-data/v/")[2] for problem in problems] == [
        "CollectedData_me.csv: row 7: expected a number, received 'two'",
        "c.png: does not exist",
    ]
    assert data.load(place, "all").cardinality() == 2
    with pytest.raises(data.BadDataError, match="2 problems"):
        data.load(place, "all", strict=True)


@pytest.mark.parametrize(
    ("head", "rows", "message"),
    [
        ([HEAD[0], "individuals,m1,m1,m2,m2", *HEAD[1:]], ROWS, "several animals"),
        (HEAD[:2], ROWS, "is no table of DeepLabCut"),
        ([*HEAD[:2], "coords,x,y,x,likelihood"], ROWS, "is no table of DeepLabCut"),
        (["scorer,me,me,me", "bodyparts,nose,ear,ear", "coords,x,y,x"], [], "is no table of DeepLabCut"),
        (HEAD, ["a.png,1,2,3"], "expected 5 cells in each row, received others in 4"),
    ],
)
def test_tables_of_another_form_are_refused(tmp_path, head, rows, message):
    with pytest.raises(ValueError, match=message):
        data.load(f"dlc:{project(tmp_path, rows, head)}", "all")


def test_no_table_and_tables_that_differ_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="CollectedData_NAME"):
        data.load(f"dlc:{tmp_path}", "all")
    project(tmp_path)
    other = [HEAD[0], HEAD[1].replace("nose", "tail"), HEAD[2]]
    project(tmp_path, ROWS, other, video="w")
    with pytest.raises(ValueError, match="has the bodyparts"):
        data.load(f"dlc:{tmp_path}", "all")


@pytest.mark.skipif(not PLACE.exists(), reason="DLC_OPENFIELD_DIR is no folder with DeepLabCut's open-field example")
def test_the_open_field_mouse_is_read():
    dataset = data.load(f"dlc:{PLACE}", "all")
    assert dlc.keypoint_names(PLACE) == ["snout", "leftear", "rightear", "tailbase"]
    first = next(dataset.as_numpy_iterator())
    assert first["image"].shape == (480, 640, 3)
    np.testing.assert_allclose(first["keypoints"][0, 0], [21.521, 265.428, 2])
