"""Records with boxes as arrays in memory: every picture has the same number of rows, the last of them padding.

    image      float32 [N, H, W, C]
    boxes      float32 [N, M, 4]     zeros where there is no object
    classes    int32   [N, M]        -1 where there is no object
    difficult  bool    [N, M]        where the records have it (`voc:DIR`), False where there is no object

Shapes:  N records, H, W, C sides and colours of all pictures, M rows, n objects of one picture.
"""

import functools
import operator

import numpy as np

from dmkeras.data import load

ROWS = {"boxes": ("float32", 0), "classes": ("int32", -1), "difficult": (bool, False)}  # dtype, padding


def padded(dataset, max_boxes=None, transform=None):
    """An unbatched dataset of dicts as `load` gives it, with boxes and classes -> {key: array [N, ...]}.

    Args:
        dataset: records of "image" [H, W, C], "boxes" [n, 4] and "classes" [n]; what else they hold is left out.
        max_boxes: M, by default the largest n, at least 1. More boxes than that in a picture are an error.
        transform: a function record -> record in the graph, mapped first, such as one that letterboxes.

    Raises:
        ValueError: for an empty dataset, records without those keys, pictures of different sizes, too many boxes.
    """
    max_boxes = check_rows(max_boxes)
    dataset = dataset if transform is None else dataset.map(transform)
    spec = dataset.element_spec
    missing = {"image", "boxes", "classes"} - set(spec) if isinstance(spec, dict) else None
    if missing is None or missing:
        received = f"without {', '.join(sorted(missing))}" if missing else f"of {spec}"
        raise ValueError(f"expected records with image, boxes and classes, received some {received}")
    keys = [key for key in ROWS if key in spec]
    dataset = dataset.map(lambda record: {key: record[key] for key in ("image", *keys)})
    images, objects = None, []
    for i, record in enumerate(dataset.as_numpy_iterator()):
        images = room(images, i, record["image"], dataset.cardinality())
        images[i] = record["image"]
        objects.append({key: record[key] for key in keys})
    if images is None:
        raise ValueError("expected a dataset of at least one record, received an empty one")
    return {"image": images[: len(objects)]} | {key: rows(objects, key, max_boxes) for key in keys}


@functools.lru_cache(maxsize=3)
def padded_splits(name, transform=None, most=None, data_dir=None, download=False):
    """{split: (images, boxes, classes)} of the three splits of a data set, each as `padded` gives it.

    Args:
        name: of the data set, as for `load`.
        transform: as for `padded`; the same function gives the same arrays again, without a second reading.
        most: records of a split at most.
        data_dir: as for `load`.
        download: likewise.
    """
    found = {}
    for split in ("train", "validation", "test"):
        records = load(name, split, data_dir=data_dir, download=download)
        arrays = padded(records if most is None else records.take(most), transform=transform)
        found[split] = arrays["image"], arrays["boxes"], arrays["classes"]
    return found


def room(images, i, image, cardinality):
    """The array that takes picture i: of the known number of them, or grown to twice its size when full."""
    if images is None:
        return np.empty((max(int(cardinality), 1), *image.shape), "float32")
    if image.shape != images.shape[1:]:
        received = f"{list(images.shape[1:])} and, in record {i}, {list(image.shape)}"
        raise ValueError(f"pictures differ in shape: {received}; give a transform that resizes or letterboxes them")
    return images if i < len(images) else np.concatenate([images, np.empty_like(images)])


def rows(objects, key, max_boxes):
    """The rows [N, M, ...] of one key."""
    counts = [len(record[key]) for record in objects]
    if any(count != len(record["boxes"]) for count, record in zip(counts, objects)):
        wrong = next(i for i, record in enumerate(objects) if len(record[key]) != len(record["boxes"]))
        raise ValueError(f"record {wrong} has {counts[wrong]} {key} for {len(objects[wrong]['boxes'])} boxes")
    most = max(counts)
    if max_boxes is not None and most > max_boxes:
        raise ValueError(f"record {counts.index(most)} has {most} boxes, more than max_boxes={max_boxes}; raise it")
    dtype, padding = ROWS[key]
    inner = (4,) if key == "boxes" else ()
    answer = np.full((len(objects), max(most, 1) if max_boxes is None else max_boxes, *inner), padding, dtype)
    for row, record, count in zip(answer, objects, counts):
        row[:count] = record[key]
    return answer


def check_rows(max_boxes):
    """`max_boxes` as an int of at least 1, or None; else ValueError."""
    if max_boxes is None:
        return None
    try:
        max_boxes = operator.index(max_boxes)
    except TypeError:
        raise ValueError(f"max_boxes must be a whole number, received {max_boxes!r}") from None
    if max_boxes < 1:
        raise ValueError(f"max_boxes must be at least 1, received {max_boxes}")
    return max_boxes
