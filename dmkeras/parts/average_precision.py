"""Average precision of detections: COCO's, by pycocotools over all pictures, and Pascal VOC's.

    precision(k) = TP(k) / k,  recall(k) = TP(k) / truths        over the k detections of a class with the best scores
    COCO    mean over IoU .5, .55, ..., .95 of the mean over recalls 0, .01, ..., 1 of the best precision at that recall
            or a greater one, 100 detections a picture; small is an area below 32^2, large one above 96^2
            (https://github.com/cocodataset/cocoapi, pycocotools/cocoeval.py; a truth's area is that of its box)
    VOC     IoU >= .5; "11_points": the same mean over recalls 0, .1, ..., 1 (VOC2007); "area": under the envelope of
            best precisions (VOC2010 on) (VOCdevkit, VOCcode/VOCevaldet.m, http://host.robots.ox.ac.uk/pascal/VOC/)

Every picture counts, also one without detections or truths: KerasCV 0.9's BoxCOCOMetrics leaves the first kind out,
and reads 1.0 where one of two pictures was found (pycocotools: .505). A class without truths is NaN in `per_class` and
in no mean. VOC's difficult objects neither count nor punish; COCO has no such objects, and all count.
Deviation: VOC's devkit counts pixels inclusively (+ 1); boxes here are exclusive, as everywhere in this package.

Truths and detections are lists, one entry for each picture: {"boxes" [n, 4], "classes" [n], and "difficult" [n]} or
{"boxes", "classes", "scores" [n]}; boxes xyxy in pixels; rows of class -1 are padding and not looked at.
"""

import contextlib
import io

import numpy as np
import tensorflow as tf

from dmkeras.parts.checks import number, whole_number

SIZES = ("small", "medium", "large")


def coco(truths, detections, num_classes):
    """COCO's figures of detections.

    Args:
        truths: list of {"boxes", "classes"}, one for each picture.
        detections: list of {"boxes", "classes", "scores"}, of the same pictures in the same order.
        num_classes: K.

    Returns:
        {"map", "map50", "map75", "ar100": floats, "map_small", "map_medium", "map_large": floats, left out where there
        is no truth of that size, "per_class", "per_class50": arrays [K], NaN for classes without truths}.
    """
    from pycocotools.cocoeval import COCOeval  # here, since only evaluation needs it

    truths, detections, num_classes = check(truths, detections, num_classes)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        evaluation = COCOeval(dataset(truths, num_classes), dataset(detections, num_classes), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    precision, recall = (np.array(evaluation.eval[key]) for key in ("precision", "recall"))
    precision, recall = (np.where(values < 0, np.nan, values) for values in (precision, recall))
    precision = precision[..., -1]  # [IoU 10, recall 101, K, size 4] at 100 detections
    figures = {"map": mean(precision[..., 0]), "map50": mean(precision[0, ..., 0]), "map75": mean(precision[5, ..., 0])}
    by_size = {f"map_{name}": mean(precision[..., 1 + i]) for i, name in enumerate(SIZES)}
    figures |= {name: value for name, value in by_size.items() if np.isfinite(value)}
    figures["ar100"] = mean(recall[..., 0, -1])
    # A class has truths, and so a number everywhere, or none, and NaN everywhere.
    return {**figures, "per_class": precision[..., 0].mean((0, 1)), "per_class50": precision[0, ..., 0].mean(0)}


def voc(truths, detections, num_classes, iou_threshold=0.5, rule="area"):
    """{"map": float, "per_class": [K], NaN for classes without a truth that counts} by Pascal VOC's `rule`.

    A detection belongs to the truth of its class and picture that it overlaps most. It is right if their IoU is at
    least `iou_threshold` and no better scored one has taken that truth; if the truth is difficult, it is left out.
    """
    if rule not in ("area", "11_points"):
        raise ValueError(f"expected rule 'area' or '11_points', received {rule!r}")
    iou_threshold = number("iou_threshold", iou_threshold, below=np.nextafter(1, 2))
    truths, detections, num_classes = check(truths, detections, num_classes)
    per_class = [class_precision(truths, detections, k, iou_threshold, rule) for k in range(num_classes)]
    if np.isnan(per_class).all():
        raise ValueError("expected truths that count, received difficult ones alone")
    return {"map": mean(np.array(per_class)), "per_class": np.array(per_class)}


def class_precision(truths, detections, kind, iou_threshold, rule):
    """VOC's average precision of one class, NaN without truths that count."""
    wanted = [{key: value[truth["classes"] == kind] for key, value in truth.items()} for truth in truths]
    count = sum(int((~truth["difficult"]).sum()) for truth in wanted)
    if not count:
        return np.nan
    found = [
        (score, i, box)
        for i, picture in enumerate(detections)
        for score, box, k in zip(picture["scores"], picture["boxes"], picture["classes"])
        if k == kind
    ]
    taken = [np.zeros(len(truth["boxes"]), bool) for truth in wanted]
    right = []
    for _, i, box in sorted(found, key=lambda detection: -detection[0]):
        overlaps = ious(box, wanted[i]["boxes"])
        best = overlaps.argmax() if len(overlaps) else None
        if best is None or overlaps[best] < iou_threshold:
            right.append(False)
        elif not wanted[i]["difficult"][best]:
            right.append(not taken[i][best])
            taken[i][best] = True
    hits = np.cumsum(right, dtype=int)
    return average_precision(hits / count, hits / np.arange(1, len(hits) + 1), rule)


def average_precision(recall, precision, rule):
    """The mean over recalls of the best precision from there on; `recall` rises."""
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    if rule == "area":
        return float(np.sum(np.diff(recall, prepend=0.0) * best[:-1]))
    # k / 10, not k * .1: a recall of exactly .3 must reach its point.
    return float(np.mean([best[np.searchsorted(recall, k / 10)] for k in range(11)]))


def ious(box, boxes):
    """IoU [n] of one box with boxes [n, 4]."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    shared = np.prod(np.maximum(sides, 0), axis=1)
    return shared / (np.prod(box[2:] - box[:2]) + np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) - shared)


def collect(detect, images, batch_size):
    """The detections of each of images [N, H, W, C], a list of {"boxes" [n, 4], "scores" [n], "classes" [n]}.

    `detect(images [batch_size, H, W, C])` answers {"boxes" [., D, 4], "scores", "classes" [., D], ...}, of class -1
    where there is nothing. The last batch is filled up with black pictures, so that `detect` is traced once.
    """
    batch_size, answers = whole_number("batch_size", batch_size, 1), []
    for start in range(0, len(images), batch_size):
        batch = np.asarray(images[start : start + batch_size], "float32")
        count = len(batch)
        batch = np.pad(batch, [(0, batch_size - count), (0, 0), (0, 0), (0, 0)])
        found = detect(tf.constant(batch))
        found = {key: np.asarray(found[key])[:count] for key in ("boxes", "scores", "classes")}
        for row in range(count):
            real = found["classes"][row] >= 0
            answers.append({key: value[row][real] for key, value in found.items()})
    return answers


def dataset(pictures, num_classes):
    """What pycocotools reads: pictures, classes and boxes, each numbered from 1 (it takes 0 for "no match")."""
    from pycocotools.coco import COCO

    rows = []
    for i, picture in enumerate(pictures):
        for k, (x1, y1, x2, y2) in enumerate(picture["boxes"].tolist()):
            row = {"id": len(rows) + 1, "image_id": i + 1, "category_id": int(picture["classes"][k]) + 1}
            row |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
            rows.append(row | ({"score": float(picture["scores"][k])} if "scores" in picture else {}))
    answer = COCO()
    answer.dataset = {"images": [{"id": i + 1} for i in range(len(pictures))], "annotations": rows}
    answer.dataset["categories"] = [{"id": k + 1} for k in range(num_classes)]
    answer.createIndex()
    return answer


def mean(values):
    """The mean of what is not NaN; NaN of nothing."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else np.nan


def check(truths, detections, num_classes):
    """Truths and detections without padding as arrays, and K; ValueError for what makes no sense."""
    num_classes = whole_number("num_classes", num_classes, 1)
    if len(truths) != len(detections):
        received = f"{len(truths)} and {len(detections)}"
        raise ValueError(f"expected truths and detections of the same pictures, received {received} entries")
    truths = [checked(truth, f"truths[{i}]", num_classes) for i, truth in enumerate(truths)]
    detections = [checked(found, f"detections[{i}]", num_classes, "scores") for i, found in enumerate(detections)]
    if not any(len(truth["boxes"]) for truth in truths):
        raise ValueError("expected at least one true box, received none; average precision is not defined without")
    return truths, detections, num_classes


def checked(picture, name, num_classes, scores=None):
    """One entry as {"boxes" [n, 4] float64, "classes" [n] int, "scores" or "difficult" [n]}, padding left out."""
    missing = [key for key in ("boxes", "classes", *([scores] if scores else [])) if key not in picture]
    if missing:
        raise ValueError(f"{name} has no {', '.join(missing)}; it has {', '.join(picture)}")
    boxes, classes = np.asarray(picture["boxes"], "float64"), np.asarray(picture["classes"], "float64")
    extra = np.asarray(picture[scores] if scores else picture.get("difficult", np.zeros(len(classes))))
    boxes = boxes.reshape(-1, 4) if boxes.size == 0 else boxes
    if boxes.shape != (*classes.shape, 4) or classes.ndim != 1 or extra.shape != classes.shape:
        received = f"{list(boxes.shape)}, {list(classes.shape)} and {list(extra.shape)}"
        raise ValueError(f"{name} must hold boxes [n, 4] and {scores or 'difficult'}, classes [n], received {received}")
    if not np.isin(classes, np.arange(-1, num_classes)).all():
        wrong = classes[~np.isin(classes, np.arange(-1, num_classes))][0]
        raise ValueError(f"{name} has the class {wrong:g}; expected whole numbers from -1 to {num_classes - 1}")
    real = classes >= 0
    boxes, classes, extra = boxes[real], classes[real].astype(int), extra[real]
    sides = boxes[:, 2:] - boxes[:, :2]
    good = np.isfinite(boxes).all(axis=1) & ((sides >= 0) if scores else (sides > 0)).all(axis=1)
    if not good.all():
        wrong, kind = boxes[~good][0].tolist(), "reversed" if scores else "empty, reversed"
        raise ValueError(f"{name} has the box {wrong}, {kind} or not finite; expected x1, y1, x2, y2 in pixels")
    if scores and not np.isfinite(extra).all():
        raise ValueError(f"{name} has scores that are not finite: {extra[~np.isfinite(extra)][0]}")
    return {"boxes": boxes, "classes": classes, (scores or "difficult"): extra.astype("float64" if scores else bool)}
