"""`voc:DIR`: the user's own boxes in the format of Pascal VOC, DIR/Annotations/ID.xml and DIR/JPEGImages/ID.jpg.

    image      float32 [height, width, 3]
    boxes      float32 [n, 4]   x1, y1, x2, y2 = xmin - 1, ymin - 1, xmax, ymax, as VOC counts from 1, inclusive
    classes    int32   [n]
    difficult  bool    [n]
    name       string  []       ID

Splits: the lists DIR/ImageSets/Main/{train,val,trainval,test}.txt, one ID a line, of which val is "validation";
without any list the fixed split 80/10/10 by the hash of ID (`files.in_split`); in both cases also "all". The classes
are the names found in all of Annotations, sorted, or those given by the option `classes`. Order: the list's.
A box with xmin = xmax or ymin = ymax is taken for a slip of the hand: empty.
Source: M. Everingham et al., The Pascal Visual Object Classes (VOC) Challenge, https://doi.org/10.1007/s11263-009-0275-4
"""

import functools
import typing
import xml.etree.ElementTree as ElementTree

import numpy as np

from dmkeras.data import files

LISTS = {"train": "train", "validation": "val", "trainval": "trainval", "test": "test"}


class Example(typing.NamedTuple):
    path: object
    name: str
    boxes: list
    classes: list
    difficult: list


def load(place, split, *, data_dir=None, download=False, strict=False, verify=True, classes=None):
    """The pictures of one split. Problems are logged and skipped, or raise BadDataError under `strict`.

    A bad box is skipped alone, a picture whose boxes are all bad is skipped with them; a picture that has no object is
    kept. `verify=False` does not decode the pictures beforehand and takes their sizes from the annotations.
    Raises FileNotFoundError without DIR, ValueError for an unknown split or one without a usable picture.
    """
    examples, problems = examine(place, split, data_dir=data_dir, verify=verify, classes=classes)
    files.settle(f"voc:{place}", split, examples, problems, strict)
    paths = files.paths_tensor([example.path for example in examples])
    names = files.paths_tensor([example.name for example in examples])
    boxes = files.ragged([example.boxes for example in examples], "float32", (4,))
    labels = files.ragged([example.classes for example in examples], "int32")
    difficult = files.ragged([example.difficult for example in examples], bool)

    def read(i):
        objects = {"boxes": boxes[i], "classes": labels[i], "difficult": difficult[i]}
        return {"image": files.picture(paths[i]), **objects, "name": names[i]}

    return files.dataset(len(examples), read)


def class_names(place, *, data_dir=None, classes=None):
    if classes is not None:
        return list(classes)
    annotations = files.by_stem(_folder(place, data_dir) / "Annotations", (".xml",))
    parsed = map(_annotation, annotations.values())
    return sorted({name for _, objects in parsed if not isinstance(objects, str) for name, _, _ in objects if name})


def examine(place, split, *, data_dir=None, verify=True, classes=None):
    """([Example], [Problem]) of one split."""
    root = _folder(place, data_dir)
    names = class_names(place, data_dir=data_dir, classes=classes)
    pictures, annotations = files.by_stem(root / "JPEGImages"), files.by_stem(root / "Annotations", (".xml",))
    ids = _ids(root, f"voc:{place}", split, annotations)
    paths = [pictures.get(name, root / "JPEGImages" / f"{name}.jpg") for name in ids]
    sizes = files.verified(paths, decode=verify)
    examples, problems = [], []
    for name, path in zip(ids, paths, strict=True):
        if isinstance(sizes[path], str):
            problems.append(files.Problem(files.shown(path), sizes[path]))
            continue
        example, faults = _example(
            annotations.get(name, root / "Annotations" / f"{name}.xml"), path, sizes[path], names
        )
        problems += faults
        examples += [example] if example else []
    return examples, sorted(problems)


def _example(annotation, path, size, names):
    """(Example or None, [Problem]) of one picture; `size` (height, width) is None where it was not decoded."""

    def problem(reason):
        return files.Problem(files.shown(annotation), reason)

    said, objects = _annotation(annotation)
    if isinstance(objects, str):
        return None, [problem(objects)]
    if size and said and size != said:
        reason = f"is for a picture of {said[1]}x{said[0]}, but {files.shown(path.name)} has {size[1]}x{size[0]}"
        return None, [problem(reason)]
    height, width = size or said or (np.inf, np.inf)
    example, problems = Example(path, annotation.stem, [], [], []), []
    for number, (name, corners, difficult) in enumerate(objects, start=1):
        fault = None if name in names else f"has the unknown class {name!r} (the classes are {', '.join(names)})"
        fault = fault or _box_fault(corners, height, width)
        if fault:
            problems.append(problem(f"object {number} ({name}) {fault}"))
            continue
        example.boxes.append(files.clip(np.subtract(corners, [1, 1, 0, 0]), height, width))
        example.classes.append(names.index(name))
        example.difficult.append(difficult)
    return (example if example.boxes or not objects else None), problems


def _box_fault(corners, height, width):
    x1, y1, x2, y2 = corners
    if x1 == x2 or y1 == y2:
        return "has a box that is empty"
    fault = files.box_fault(np.subtract(corners, [1, 1, 0, 0]), height, width)
    return fault and f"has a box that {fault}"


def _annotation(path):
    try:
        status = path.stat()
    except OSError:
        return None, "does not exist"
    return _parsed(path, status.st_size, status.st_mtime_ns)


@functools.cache
def _parsed(path, size, time):
    """((height, width) or None, [(class, (xmin, ymin, xmax, ymax), difficult)]), or (None, why it cannot be read)."""
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        return None, f"is no readable XML ({error})"
    height, width = _number(root, "size/height"), _number(root, "size/width")
    objects = []
    for item in root.iter("object"):
        corners = tuple(_number(item, f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax"))
        objects.append(((item.findtext("name") or "").strip(), corners, _number(item, "difficult") == 1))
    return ((int(height), int(width)) if height > 0 and width > 0 else None), objects


def _number(element, path):
    """The number at `path`; NaN where there is none, which no box passes."""
    try:
        return float(element.findtext(path))
    except (TypeError, ValueError):
        return np.nan


def _ids(root, name, split, annotations):
    """The IDs of one split, in the order of its list."""
    lists = {key: root / "ImageSets" / "Main" / f"{stem}.txt" for key, stem in LISTS.items()}
    lists = {key: path for key, path in lists.items() if path.is_file()}
    files.check_split(name, split, (*lists, "all") if lists else ("train", "validation", "test", "all"))
    if split in lists:
        lines = lists[split].read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
        return list(dict.fromkeys(files.nfc(line.strip()) for line in lines if line.strip()))
    return [stem for stem in annotations if files.in_split(stem, split)]


def _folder(place, data_dir):
    root = files.directory(place, data_dir)
    for name in ("Annotations", "JPEGImages"):
        if not (root / name).is_dir():
            raise FileNotFoundError(
                f"{files.shown(root)} has no {name}: voc:DIR wants DIR/Annotations and DIR/JPEGImages, for example "
                "voc:VOCdevkit/VOC2007"
            )
    return root
