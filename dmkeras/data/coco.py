"""`coco:JSON`: the user's own boxes, masks and keypoints in the format of COCO.

    image      float32 [height, width, 3]
    boxes      float32 [n, 4]              x1, y1, x2, y2 = x, y, x + width, y + height
    classes    int32   [n]
    masks      bool    [n, height, width]  where the file has segmentations (polygons or RLE)
    keypoints  float32 [n, k, 3]           where its categories have keypoints; k is the largest category's number
    name       string  []                  the picture's file_name

The pictures are looked for beside the JSON, in its parent, in `images/` of either and in their subfolder of the
split's name (annotations/instances_train2017.json and train2017/), or in the option `images`.
Splits: where the JSON's name, or its folder's, says train, val (validation, valid) or test and a sibling of another
split is there, each split is its own JSON; otherwise the fixed split 80/10/10 by the hash of file_name
(`files.in_split`), and "all". The classes are the categories of `train`'s JSON in the order of their ids, or those
named by the option `classes`. Order: the JSON's. Crowds (iscrowd 1) are left out.
Source: T.-Y. Lin et al., Microsoft COCO: Common Objects in Context, https://cocodataset.org/#format-data
"""

import json
import pathlib
import re
import typing

import numpy as np
import tensorflow as tf

from dmkeras.data import files, rle

WORD = re.compile(r"(?<![a-z])(train|validation|valid|val|test)(?![a-z])", re.IGNORECASE)


class Example(typing.NamedTuple):
    path: pathlib.Path
    name: str
    size: tuple  # height, width
    boxes: list
    classes: list
    masks: list | None  # run lengths of each; None for a file without segmentations
    keypoints: list  # each [k, 3]


class _Known(typing.NamedTuple):
    """What holds for all annotations of one JSON."""

    json: str
    names: list  # of the classes, by index
    categories: dict  # id -> name
    masks: bool
    points: int

    def problem(self, reason):
        return files.Problem(self.json, reason)


def load(place, split, *, data_dir=None, download=False, strict=False, verify=True, classes=None, images=None):
    """The pictures of one split. Problems are logged and skipped, or raise BadDataError under `strict`.

    A bad object is skipped alone, a picture whose objects are all bad is skipped with them; a picture that has no
    object is kept. `verify=False` does not decode the pictures beforehand and takes their sizes from the JSON.
    Raises FileNotFoundError without JSON, ValueError for a JSON that is not COCO's, for an unknown split and for one
    without a usable picture.
    """
    options = {"data_dir": data_dir, "verify": verify, "classes": classes, "images": images}
    examples, problems = examine(place, split, **options)
    files.settle(f"coco:{place}", split, examples, problems, strict)
    paths = files.paths_tensor([example.path for example in examples])
    names = files.paths_tensor([example.name for example in examples])
    sizes = tf.constant([example.size for example in examples], tf.int64)
    objects = {
        "boxes": files.ragged([example.boxes for example in examples], "float32", (4,)),
        "classes": files.ragged([example.classes for example in examples], "int32"),
    }
    points = max((len(points) for example in examples for points in example.keypoints), default=0)
    if points:
        objects["keypoints"] = files.ragged([example.keypoints for example in examples], "float32", (points, 3))
    has_masks = examples[0].masks is not None
    if has_masks:
        runs = files.ragged([np.concatenate([*e.masks, []]) for e in examples], "int32")
        lengths = files.ragged([[len(counts) for counts in e.masks] for e in examples], "int32")

    def read(i):
        example = {"image": files.picture(paths[i]), **{key: value[i] for key, value in objects.items()}}
        if has_masks:
            masks = tf.numpy_function(rle.bitmaps, [runs[i], lengths[i], sizes[i]], tf.bool, stateful=False)
            example["masks"] = tf.ensure_shape(masks, [None, None, None])
        return {**example, "name": names[i]}

    return files.dataset(len(examples), read)


def class_names(place, *, data_dir=None, classes=None):
    if classes is not None:
        return list(classes)
    siblings = _siblings(files.locate(place, data_dir))
    categories = _content(siblings.get("train", files.locate(place, data_dir)))["categories"]
    return [category["name"] for category in sorted(categories, key=lambda category: category["id"])]


def examine(place, split, *, data_dir=None, verify=True, classes=None, images=None):
    """([Example], [Problem]) of one split."""
    path = files.locate(place, data_dir)
    siblings = _siblings(path)
    files.check_split(f"coco:{place}", split, tuple(siblings) or ("train", "validation", "test", "all"))
    path = siblings.get(split, path)
    content = _content(path)
    known = _known(files.shown(path), content, class_names(place, data_dir=data_dir, classes=classes))
    rows, problems = _rows(content, known)
    rows = [row for row in rows if siblings or files.in_split(row[0]["file_name"], split)]
    names = [image["file_name"] for image, _ in rows]
    folder = files.locate(images, data_dir) if images else _folder(path, names)
    sizes = files.verified([folder / name for name in names], decode=verify)
    examples = []
    for image, annotations in rows:
        example, faults = _example(folder / image["file_name"], sizes, image, annotations, known)
        problems += faults
        examples += [example] if example else []
    return examples, sorted(problems)


def _content(path):
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {files.shown(path)}")
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{files.shown(path)} is no readable JSON: {error}") from error
    for key in ("images", "annotations", "categories"):
        items = content.get(key) if isinstance(content, dict) else None
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise ValueError(f"{files.shown(path)} is no COCO file: it has no list {key!r} of objects")
    if not all("id" in category and "name" in category for category in content["categories"]):
        raise ValueError(f"{files.shown(path)} has a category without id or name")
    return content


def _siblings(path):
    """{split: JSON} where the name of `path` or of its folder says a split and another split's exists, else {}."""
    beside = path.parent.parent
    for part, rebuild in ((path.name, path.with_name), (path.parent.name, lambda name: beside / name / path.name)):
        for match in WORD.finditer(part):
            found = {}
            for word, split in files.SPLIT_FOLDERS.items():
                other = rebuild(part[: match.start()] + word + part[match.end() :])
                if other.is_file():
                    found[split] = other
            if len(found) > 1:
                return found
    return {}


def _folder(path, names):
    """The folder in which the pictures lie: the first of the usual places that has one of the first 20, else beside."""
    for base in (path.parent, path.parent.parent):
        for place in (base, base / "images"):
            for folder in (place, place / path.stem, place / path.stem.rpartition("_")[2]):
                if any((folder / name).is_file() for name in names[:20]):
                    return folder
    return path.parent


def _known(name, content, names):
    categories = {category["id"]: category["name"] for category in content["categories"]}
    masks = any(item.get("segmentation") for item in content["annotations"] if not item.get("iscrowd"))
    points = max((len(category.get("keypoints", ())) for category in content["categories"]), default=0)
    return _Known(name, names, categories, masks, points)


def _rows(content, known):
    """([(image, its annotations)], [Problem]) of the whole file."""
    rows, problems = {}, []
    for image in content["images"]:
        if not isinstance(image.get("file_name"), str) or image.get("id") is None:
            problems.append(known.problem(f"image {image.get('id')} has no id or no file_name"))
        elif image["id"] in rows:
            problems.append(known.problem(f"image {image['id']} ({image['file_name']}) has the id of another"))
        else:
            rows[image["id"]] = (image, [])
    for annotation in content["annotations"]:
        if annotation.get("image_id") not in rows:
            reason = f"annotation {annotation.get('id')} is of image {annotation.get('image_id')}, which is not listed"
            problems.append(known.problem(reason))
        elif not annotation.get("iscrowd"):
            rows[annotation["image_id"]][1].append(annotation)
    return list(rows.values()), problems


def _example(path, sizes, image, annotations, known):
    """(Example or None, [Problem]) of one picture."""
    size, said = sizes[path], (image.get("height"), image.get("width"))
    if isinstance(size, str):
        return None, [files.Problem(files.shown(path), size)]
    if size and None not in said and size != said:
        reason = f"image {image['file_name']!r} is said to be {said[1]}x{said[0]}, but is {size[1]}x{size[0]}"
        return None, [known.problem(reason)]
    size = size or said
    if None in size:
        return None, [known.problem(f"image {image['file_name']!r} has no height and width, which verify=False needs")]
    example = Example(path, image["file_name"], size, [], [], [] if known.masks else None, [])
    problems = []
    for annotation in annotations:
        try:
            box, index, mask, points = _object(annotation, size, known)
        except ValueError as fault:
            name = known.categories.get(annotation.get("category_id"), "no category")
            where = f"annotation {annotation.get('id')} ({name}) of image {image['file_name']!r}"
            problems.append(known.problem(f"{where} {fault}"))
            continue
        example.boxes.append(box)
        example.classes.append(index)
        if known.masks:
            example.masks.append(mask)
        if known.points:
            example.keypoints.append(points)
    return (example if example.boxes or not annotations else None), problems


def _object(annotation, size, known):
    """(box, class index, run lengths, keypoints) of one annotation; ValueError says why it cannot be used."""
    name = known.categories.get(annotation.get("category_id"))
    if name not in known.names:
        raise ValueError(f"has an unknown class (the classes are {', '.join(known.names)})")
    box = _numbers(annotation.get("bbox"), "box", 4)
    box = np.concatenate([box[:2], box[:2] + box[2:]])
    fault = files.box_fault(box, *size)
    if fault:
        raise ValueError(f"has a box that {fault}")
    mask = rle.encode(annotation.get("segmentation"), *size) if known.masks else None
    points = _keypoints(annotation.get("keypoints"), size, known.points) if known.points else None
    return files.clip(box, *size), known.names.index(name), mask, points


def _numbers(values, what, count=None):
    try:
        numbers = np.asarray(values, float).reshape(-1)
    except (TypeError, ValueError) as error:
        raise ValueError(f"has a {what} that is not of numbers") from error
    if count is not None and len(numbers) != count:
        raise ValueError(f"has a {what} of {len(numbers)} numbers, not {count}")
    return numbers


def _keypoints(values, size, points):
    """float [points, 3]; a category that has fewer ends in points that are not labelled."""
    numbers = _numbers(values if values is not None else [], "list of keypoints")
    if len(numbers) % 3 or len(numbers) > 3 * points:
        raise ValueError(f"has a list of keypoints of {len(numbers)} numbers, not {3 * points}")
    found = np.zeros([points, 3])
    found[: len(numbers) // 3] = numbers.reshape(-1, 3)
    x, y, visibility = found.T
    if not np.isin(visibility, (0, 1, 2)).all():
        raise ValueError("has a keypoint whose visibility is not 0, 1 or 2")
    inside = (x >= -1) & (x <= size[1] + 1) & (y >= -1) & (y <= size[0] + 1)
    if not inside[visibility > 0].all():
        raise ValueError(f"has a keypoint outside the picture of {size[1]}x{size[0]}")
    return np.where(visibility[:, None] > 0, found, 0)
