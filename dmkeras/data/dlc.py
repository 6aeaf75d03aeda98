"""`dlc:DIR`: a DeepLabCut project's labelled frames, DIR/labeled-data/VIDEO/CollectedData_NAME.csv and its pictures.

    image      float32 [height, width, 3]
    keypoints  float32 [1, k, 3]           x, y in pixels, visibility 2; (0, 0, 0) where cells are empty: not labelled
    name       string  []                  the picture's path relative to DIR, as the table has it

DIR may be one video's folder too. A table has the rows `scorer`, `bodyparts` and `coords`, then a row for each frame:
its path in one cell, or in three cells (labeled-data, VIDEO, file). Tables of several animals (a row `individuals`) are
not read. All tables must have the same bodyparts, which `keypoint_names` tells.

Splits: train, validation and test by the hash of the name (`files.in_split`), and "all". Order: by table and row.
"""

import csv
import pathlib
import typing

import numpy as np
import tensorflow as tf

from dmkeras.data import files

SPLITS = ("train", "validation", "test", "all")


class Frame(typing.NamedTuple):
    path: pathlib.Path
    name: str
    keypoints: tuple  # (x, y, visibility) of each


def load(place, split, *, data_dir=None, download=False, strict=False, verify=True):
    """The frames of one split. Problems are logged and skipped, or raise BadDataError under `strict`.

    `verify=False` does not decode the pictures beforehand. Raises FileNotFoundError without DIR or a table, ValueError
    for an unknown split, one without a usable picture, or tables that cannot be used.
    """
    frames, problems = examine(place, split, data_dir=data_dir, verify=verify)
    files.settle(f"dlc:{place}", split, frames, problems, strict)
    paths = files.paths_tensor([frame.path for frame in frames])
    names = files.paths_tensor([frame.name for frame in frames])
    keypoints = tf.constant([[frame.keypoints] for frame in frames], tf.float32)
    read = lambda i: {"image": files.picture(paths[i]), "keypoints": keypoints[i], "name": names[i]}
    return files.dataset(len(frames), read)


def keypoint_names(place, *, data_dir=None):
    """The bodyparts, in the order of `keypoints`."""
    return _tables(files.directory(place, data_dir))[0]


def examine(place, split, *, data_dir=None, verify=True):
    """([Frame], [Problem]) of one split."""
    files.check_split(f"dlc:{place}", split, SPLITS)
    root = files.directory(place, data_dir)
    names, tables = _tables(root)
    problems, found = [], []
    for table, rows in tables.items():
        for number, cells in rows:
            name = "/".join(cells[: len(cells) - 2 * len(names)])
            if files.in_split(name, split):
                try:
                    points = _keypoints(cells[-2 * len(names) :])
                    found.append(Frame(table.parent / pathlib.PurePath(name).name, name, points))
                except ValueError as error:
                    problems.append(files.Problem(files.shown(table), f"row {number}: {error}"))
    sizes = files.verified([frame.path for frame in found], decode=verify)
    problems += [files.Problem(files.shown(path), fault) for path, fault in sizes.items() if isinstance(fault, str)]
    return [frame for frame in found if not isinstance(sizes[frame.path], str)], sorted(problems)


def _tables(root):
    """(bodyparts, {table: [(number of the row, its cells)]})."""
    paths = sorted([*root.glob("CollectedData_*.csv"), *root.glob("labeled-data/*/CollectedData_*.csv")])
    if not paths:
        raise FileNotFoundError(f"{files.shown(root)} holds no labeled-data/VIDEO/CollectedData_NAME.csv")
    read = {path: _read(path) for path in paths}
    (first, (names, _)), *others = read.items()
    for path, (theirs, _) in others:
        if theirs != names:
            raise ValueError(f"{files.shown(path)} has the bodyparts {theirs}, but {files.shown(first)} {names}")
    return names, {path: rows for path, (_, rows) in read.items()}


def _read(path):
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.reader(file))
    head = {row[0]: row for row in rows[:4] if row}
    if "individuals" in head:
        raise ValueError(f"{files.shown(path)} is of several animals; one animal's tables are read")
    parts, coords = ([cell for cell in head.get(key, [])[1:] if cell] for key in ("bodyparts", "coords"))
    if not parts or coords != ["x", "y"] * (len(coords) // 2) or parts[::2] != parts[1::2] or len(parts) != len(coords):
        raise ValueError(f"{files.shown(path)} is no table of DeepLabCut: expected the rows scorer, bodyparts, coords")
    width = len(rows[0])
    body = [(i + 1, row) for i, row in enumerate(rows) if row and row[0] not in ("scorer", "bodyparts", "coords")]
    wrong = [str(number) for number, row in body if len(row) != width]
    if wrong:
        raise ValueError(f"{files.shown(path)}: expected {width} cells in each row, received others in {wrong[0]}")
    return parts[::2], body


def _keypoints(cells):
    """Cells x, y, x, y ... -> ((x, y, visibility), ...); ValueError for what is no number."""
    values = [_number(cell) for cell in cells]
    pairs = zip(values[::2], values[1::2])
    return tuple((x, y, 2.0) if np.isfinite(x) and np.isfinite(y) else (0.0, 0.0, 0.0) for x, y in pairs)


def _number(cell):
    try:
        return float(cell) if cell.strip() else np.nan
    except ValueError:
        raise ValueError(f"expected a number, received {cell!r}") from None
