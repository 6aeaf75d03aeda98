"""`pairs:DIR`: the user's own pictures with masks of the same size, DIR/images/NAME.jpg and DIR/masks/NAME.png.

    image      float32 [height, width, 3]
    semantic   int32   [height, width]      0 background, k + 1 for class k, -1 without an answer
    name       string  []                   the picture's path relative to its folder

A mask may be called NAME_mask as well. Its value is the index into its palette where it has one, else its grey value.
In a set whose masks hold nothing but 0 and 255, 255 is class 0; in any other 255 is a pixel without an answer. The
option `values=(0, 128, 255)` says instead which values stand for background, class 0, class 1, and so on.
Instance masks, one file for each object in DIR/NAME/masks beside the one picture in DIR/NAME/images (the form of the
2018 Data Science Bowl), an object being where its mask is not 0, give also

    boxes      float32 [n, 4]               the masks' extents
    classes    int32   [n]                  all 0
    masks      bool    [n, height, width]

Splits: folders train, validation (val, valid) and test where DIR, or DIR/images and DIR/masks, holds such folders and
nothing else; otherwise the fixed split 80/10/10 by the hash of the picture's name (`files.in_split`), and "all".
The classes are the lines of DIR/classes.txt where it exists, else "object" for two values and for instances, else the
values from 1 on as text. Order: by path.
"""

import concurrent.futures
import functools
import os
import pathlib
import typing

import numpy as np
import tensorflow as tf

from dmkeras.data import files

VOID = 255


class Pair(typing.NamedTuple):
    split: str | None  # that of its folder
    path: pathlib.Path
    name: str
    masks: tuple  # one path; for instances one for each object


class _Facts(typing.NamedTuple):
    """What one mask file holds."""

    size: tuple  # height, width
    values: tuple
    extent: tuple  # x1, y1, x2, y2 of the pixels that are not 0; () where all are


class _Set(typing.NamedTuple):
    pairs: list
    problems: list
    facts: dict  # mask path -> _Facts or, as a str, why it cannot be read
    instances: bool
    values: tuple | None  # of background and each class; None where a value stands for itself
    names: list


def load(place, split, *, data_dir=None, download=False, strict=False, verify=True, values=None):
    """The pairs of one split. Problems are logged and skipped, or raise BadDataError under `strict`.

    Each mask is read once beforehand, whose values tell the classes. `verify=False` does not decode the pictures
    beforehand and so does not compare their sizes with the masks'.
    Raises FileNotFoundError without DIR or its folders, ValueError for an unknown split or one without a usable pair.
    """
    known = _known(place, data_dir, values)
    examples, problems = _examples(known, place, split, verify)
    files.settle(f"pairs:{place}", split, examples, problems, strict)
    paths = files.paths_tensor([pair.path for pair in examples])
    names = files.paths_tensor([pair.name for pair in examples])
    masks = files.ragged([[os.fsencode(path) for path in pair.masks] for pair in examples], object)
    extents = [[known.facts[path].extent for path in pair.masks] if known.instances else [] for pair in examples]
    boxes = files.ragged(extents, "float32", (4,))

    def read(i):
        example = {"image": files.picture(paths[i]), "name": names[i]}
        if not known.instances:
            semantic = tf.numpy_function(functools.partial(_semantic, known.values), [masks[i][0]], tf.int32)
            return {**example, "semantic": tf.ensure_shape(semantic, [None, None])}
        objects = tf.ensure_shape(tf.numpy_function(_bitmaps, [masks[i]], tf.bool), [None, None, None])
        semantic = tf.cast(tf.reduce_any(objects, axis=0), tf.int32)
        classes = tf.zeros([tf.shape(objects)[0]], tf.int32)
        return {**example, "semantic": semantic, "boxes": boxes[i], "classes": classes, "masks": objects}

    return files.dataset(len(examples), read)


def class_names(place, *, data_dir=None, values=None):
    return _known(place, data_dir, values).names


def examine(place, split, *, data_dir=None, verify=True, values=None):
    """([Pair], [Problem]) of one split."""
    return _examples(_known(place, data_dir, values), place, split, verify)


def _examples(known, place, split, verify):
    splits = tuple(dict.fromkeys(pair.split for pair in known.pairs if pair.split))
    files.check_split(f"pairs:{place}", split, splits or ("train", "validation", "test", "all"))
    pairs = [p for p in known.pairs if (p.split == split if splits else files.in_split(p.name, split))]
    sizes = files.verified([pair.path for pair in pairs], decode=verify)
    examples, problems = [], list(known.problems)
    for pair in pairs:
        size = sizes[pair.path]
        if isinstance(size, str):
            problems.append(files.Problem(files.shown(pair.path), size))
            continue
        faults = {path: _fault(known, known.facts[path], size) for path in pair.masks}
        problems += [files.Problem(files.shown(path), fault) for path, fault in faults.items() if fault]
        good = tuple(path for path, fault in faults.items() if not fault)
        if good:
            examples.append(pair._replace(masks=good))
    return examples, sorted(problems)


def _fault(known, facts, size):
    """Why a mask cannot be used with a picture of that size (None: not known), or None."""
    if isinstance(facts, str):
        return facts
    if size and facts.size != size:
        return f"has the size {facts.size[1]}x{facts.size[0]}, but its picture {size[1]}x{size[0]}"
    if known.instances:
        return None if facts.extent else "is empty: no pixel belongs to the object"
    allowed = known.values or (*range(len(known.names) + 1), VOID)
    unknown = [str(value) for value in facts.values if value not in allowed]
    return f"has the unknown values {', '.join(unknown[:5])} (known are {_span(allowed)})" if unknown else None


def _span(values):
    return ", ".join(map(str, values)) if len(values) < 8 else f"{values[0]} to {values[-2]}, {values[-1]}"


def _known(place, data_dir, values):
    root = files.directory(place, data_dir)
    problems, pairs = [], []
    folders = files.split_folders(root)
    for split, folder in (folders or {None: root}).items():
        pairs += _pairs(folder, split, problems)
    instances = not any((folder / "masks").is_dir() for folder in (root, *folders.values()))
    paths = [path for pair in pairs for path in pair.masks]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        facts = dict(zip(paths, pool.map(_facts, paths), strict=True))
    found = {value for fact in facts.values() if not isinstance(fact, str) for value in fact.values}
    if values is None and found and found <= {0, VOID} and not instances:
        values = (0, VOID)
    listed = root / "classes.txt"
    if listed.is_file():
        names = [line.strip() for line in listed.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    elif instances or (values and len(values) == 2) or found <= {0, 1}:
        names = ["object"]
    else:
        names = [str(value) for value in (values[1:] if values else range(1, max(found - {VOID}) + 1))]
    return _Set(pairs, problems, facts, instances, values and tuple(values), names)


def _pairs(folder, split, problems):
    """The pairs under one folder; adds pictures without a mask, and masks without a picture, to `problems`."""
    images, masks = folder / "images", folder / "masks"
    if images.is_dir() and masks.is_dir():
        yield from _matched(images, masks, split, problems)
        return
    groups = [path for path in files.entries(folder) if path.is_dir()]
    if not groups or not all((path / "images").is_dir() and (path / "masks").is_dir() for path in groups):
        raise FileNotFoundError(
            f"{files.shown(folder)} is no set of pairs: it wants the folders images and masks, or for instance masks "
            "NAME/images and NAME/masks for each picture"
        )
    for group in groups:
        pictures, objects = list(files.walk(group / "images", problems)), list(files.walk(group / "masks", problems))
        if len(pictures) == 1 and objects:
            yield Pair(split, pictures[0], group.name, tuple(objects))
        else:
            reason = f"has {len(pictures)} pictures and {len(objects)} masks, not one picture and its masks"
            problems.append(files.Problem(files.shown(group), reason))


def _matched(images, masks, split, problems):
    found = {files.nfc(path.relative_to(masks).with_suffix("")): path for path in files.walk(masks, problems)}
    inner = {folder: key for key, folder in files.split_folders(images).items()}
    for path in files.walk(images, problems):
        relative = path.relative_to(images)
        stem = files.nfc(relative.with_suffix(""))
        mask = found.pop(stem, None) or found.pop(f"{stem}_mask", None)
        if mask is None:
            problems.append(files.Problem(files.shown(path), "has no mask of its name"))
        else:
            yield Pair(split or inner.get(images / relative.parts[0]), path, str(relative), (mask,))
    problems += [files.Problem(files.shown(path), "has no picture of its name") for path in found.values()]


def _facts(path):
    try:
        status = path.stat()
    except OSError:
        return "does not exist"
    return _read_facts(path, status.st_size, status.st_mtime_ns)


@functools.cache
def _read_facts(path, size, time):
    try:
        mask = read_mask(path)
    except ValueError as error:
        return str(error)
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    extent = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if len(rows) else ()
    return _Facts(mask.shape, tuple(np.unique(mask).tolist()), tuple(map(int, extent)))


def read_mask(path):
    """int32 [height, width] of a grey or palette picture: its values, or indices. ValueError says why there is none."""
    import PIL.Image

    try:
        with PIL.Image.open(path) as file:
            values = np.asarray(file)
    except Exception as error:  # Pillow's decoders raise nearly anything for a damaged file
        raise ValueError("is truncated or damaged, or no picture") from error
    if values.ndim == 3:
        colours = values[..., : 1 if values.shape[-1] == 2 else 3]
        if (colours != colours[..., :1]).any():
            raise ValueError("is coloured: a mask is grey or has a palette")
        values = colours[..., 0]
    return values.astype("int32")


def _semantic(values, path):
    mask = read_mask(os.fsdecode(path))
    if values is None:
        return np.where(mask == VOID, np.int32(-1), mask)
    return np.argmax(mask[..., None] == np.array(values), axis=-1).astype("int32")


def _bitmaps(paths):
    return np.stack([read_mask(os.fsdecode(path)) != 0 for path in paths])
