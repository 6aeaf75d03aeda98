"""What the user's own pictures share: finding files, checking them once, reading them in the graph, splits, the report.

Every picture is decoded once when a set is loaded, by the decoder that training uses (`tf.io.decode_image`), so that
a damaged file is found before the first step and not inside an epoch; `verify=False` leaves that out for sets known to
be good. A file is decoded once per process, not once per load, as long as its size and time stay the same.
Pictures are BMP, GIF (its first frame), JPEG, PNG or WebP; grey ones get three equal channels, alpha is dropped, EXIF
orientation is not applied.
"""

import concurrent.futures
import functools
import hashlib
import logging
import os
import pathlib
import stat
import typing
import unicodedata

import numpy as np
import tensorflow as tf

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
MAGIC = (b"BM", b"GIF8", b"\xff\xd8\xff", b"\x89PNG", b"RIFF")
SPLIT_FOLDERS = {"train": "train", "training": "train", "validation": "validation", "valid": "validation"}
SPLIT_FOLDERS |= {"val": "validation", "test": "test", "testing": "test"}
SHOWN = 20  # problems logged one by one; the error of strict=True and `check` list them all

log = logging.getLogger("dmkeras.data")


class Problem(typing.NamedTuple):
    """One thing wrong with the user's data: the file, and why it (or the object named) cannot be used."""

    file: str
    reason: str

    def __str__(self):
        return f"{self.file}: {self.reason}"


class BadDataError(ValueError):
    """`strict=True` refused a set. `problems` lists what is wrong with it."""

    def __init__(self, name, problems):
        super().__init__("\n".join([f"{name} has {len(problems)} problems:", *map(str, problems)]))
        self.problems = list(problems)


def settle(name, split, examples, problems, strict):
    """Raise, under `strict`, for any problem, and always for a split of no example; else log what is skipped."""
    if strict and problems:
        raise BadDataError(f"{name} ({split})", problems)
    for problem in problems[:SHOWN]:
        log.warning("%s", problem)
    if len(problems) > SHOWN:
        log.warning("... and %d more (dmkeras.data.check lists them all)", len(problems) - SHOWN)
    if problems:
        counts = (name, split, len(problems), len({p.file for p in problems}), len(examples))
        log.warning("%s (%s): skipped %d pictures or objects of %d files; %d pictures are left", *counts)
    if not examples:
        shown = "".join(f"\n{problem}" for problem in problems[:SHOWN])
        raise ValueError(f"{name} has no usable picture in the split {split!r}{shown}")


def directory(place, data_dir):
    """The existing directory `place`, looked for in `data_dir` when relative."""
    path = locate(place, data_dir)
    if not path.is_dir():
        raise FileNotFoundError(f"there is no directory {shown(path)}")
    return path


def locate(place, data_dir):
    return pathlib.Path(data_dir or ".").expanduser() / pathlib.Path(place).expanduser()


def shown(path):
    """The path as text that every terminal and log can take, also where its name is no valid Unicode."""
    return os.fspath(path).encode("utf-8", "backslashreplace").decode("utf-8")


def entries(folder):
    """What lies in a folder, sorted by name, without hidden files and those that systems leave behind."""
    found = (p for p in folder.iterdir() if not p.name.startswith(".") and p.name not in ("Thumbs.db", "desktop.ini"))
    return sorted(found, key=lambda path: os.fsencode(path.name))


def walk(folder, problems):
    """The pictures under `folder`, sorted by path; what else lies there is added to `problems`. No links to folders."""
    for path in entries(folder):
        if path.is_dir() and not path.is_symlink():
            yield from walk(path, problems)
        elif path.suffix.lower() in SUFFIXES:
            yield path
        else:
            problems.append(Problem(shown(path), "is no BMP, GIF, JPEG, PNG or WebP picture"))


def nfc(name):
    """The name in Unicode's composed form: systems differ in the form in which they store one and the same name."""
    return unicodedata.normalize("NFC", os.fspath(name))


def by_stem(folder, suffixes=SUFFIXES):
    """{file name without suffix (NFC): path} of the files of a folder that have one of the suffixes."""
    found = {}
    for path in entries(folder):
        if path.suffix.lower() in suffixes:
            found.setdefault(nfc(path.stem), path)
    return found


def split_folders(folder):
    """{split: its folder} where every subfolder is named as a split (train, val, validation, test ...), else {}."""
    folders = [path for path in entries(folder) if path.is_dir()]
    if not folders or any(path.name.lower() not in SPLIT_FOLDERS for path in folders):
        return {}
    splits = {SPLIT_FOLDERS[path.name.lower()]: path for path in folders}
    if len(splits) < len(folders):
        names = ", ".join(path.name for path in folders)
        raise ValueError(f"{shown(folder)} holds two folders of one split: {names}. Keep one of them.")
    return splits


def in_split(name, split):
    """Whether the fixed split puts `name` (a path relative to the set) in `split`; "all" holds every name.

    u = (first 8 hexadecimal digits of sha256(name, NFC, UTF-8)) / 2^32: train u < 0.8, validation u < 0.9, test else.
    A name's split hangs on nothing else: adding or removing files moves no other file.
    """
    if split == "all":
        return True
    text = nfc(pathlib.PurePath(name).as_posix()).encode("utf-8", "backslashreplace")
    u = int(hashlib.sha256(text).hexdigest()[:8], 16) / 2**32
    return split == ("train" if u < 0.8 else "validation" if u < 0.9 else "test")


def check_split(name, split, splits):
    if split not in splits:
        raise ValueError(f"{name} has the splits {', '.join(splits)}, not {split!r}")


def verified(paths, decode=True):
    """{path: (height, width) or, as a str, why the file cannot be read}; every file is decoded, on all cores.

    `decode=False` asks only whether the files exist, and gives None for their sizes.
    """
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(paths, pool.map(functools.partial(_verified, decode=decode), paths), strict=True))


def _verified(path, decode):
    try:
        status = path.stat()
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return "does not exist"
    if not stat.S_ISREG(status.st_mode):
        return "is no file"
    if status.st_size == 0:
        return "is empty"
    return _size(os.fsencode(path), status.st_size, status.st_mtime_ns) if decode else None


@functools.cache
def _size(path, size, time):
    try:
        height, width, _ = picture(path).shape
    except tf.errors.PermissionDeniedError:
        return "may not be read"
    except tf.errors.OpError:
        with open(path, "rb") as file:
            known = file.read(8).startswith(MAGIC)
        return "is truncated or damaged" if known else "is no BMP, GIF, JPEG, PNG or WebP picture"
    return height, width


def picture(path):
    """The file `path` (a string tensor or bytes) as float32 [height, width, 3] in [0, 1]; runs in the graph."""
    image = tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
    image.set_shape([None, None, 3])
    return tf.cast(image, tf.float32) / 255.0


def box_fault(box, height, width):
    """Why the box (x1, y1, x2, y2, exclusive) cannot be used in a picture of that size, or None.

    One pixel beyond the border is allowed (and clipped by `clip`): formats disagree whether counting begins at 0 or 1.
    """
    x1, y1, x2, y2 = box
    if not np.isfinite(box).all():
        return "has a coordinate that is no finite number"
    if x2 < x1 or y2 < y1:
        return "is reversed"
    if x2 == x1 or y2 == y1:
        return "is empty"
    c1, d1, c2, d2 = clip(box, height, width)
    if min(x1, y1) < -1 or x2 > width + 1 or y2 > height + 1 or c2 <= c1 or d2 <= d1:
        return f"reaches outside the picture of {width}x{height}"
    return None


def clip(box, height, width):
    return np.clip(box, 0, [width, height, width, height])


def ragged(rows, dtype, inner=()):
    """The arrays of `rows`, each [n, *inner], as one RaggedTensor whose entry [i] is row i, dense."""
    arrays = [np.asarray(row, dtype).reshape(-1, *inner) for row in rows]
    return tf.RaggedTensor.from_row_lengths(np.concatenate(arrays), [len(array) for array in arrays])


def dataset(rows, read):
    """One element per row index, in order: `read(i)` in the graph gives its dict. The cardinality is `rows`."""
    return tf.data.Dataset.range(rows).map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def paths_tensor(paths):
    return tf.constant([os.fsencode(path) for path in paths])
