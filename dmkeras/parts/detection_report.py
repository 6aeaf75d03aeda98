"""What the recipes of detectors report: average precision of held-out pictures, and pictures of what was found.

    map, map50, map75      COCO's, over all pictures (parts/average_precision.py)
    ap_CLASS, ap50_CLASS   of each class that occurs
    milliseconds           a picture, of `detect` on batches of the size given, after the first

Shapes:  N pictures, H height, W width, C colours, M rows of truths, K classes.
"""

import gc
import time

import numpy as np
import tensorflow as tf

from dmkeras.parts import anchors as priors
from dmkeras.parts import average_precision
from dmkeras.parts.boxes import is_real

BATCH = 50  # pictures that `detect` is given at once
SHOWN = 0.3  # least score of a box that is drawn


def truths_of(boxes, classes):
    """Padded truths [N, M, 4] and [N, M] as the list that average precision takes; boxes without area are left out."""
    real = is_real(boxes, classes).numpy()
    return [{"boxes": b[keep], "classes": k[keep]} for b, k, keep in zip(boxes, classes, real)]


def figures(model, images, boxes, classes, names, batch_size=BATCH):
    """{name: float} of the module, for images [N, H, W, C] with truths [N, M, 4] xyxy and [N, M]."""
    detect, batch_size = tf.function(model.detect), min(batch_size, len(images))
    found = average_precision.collect(detect, images, batch_size)
    scores = average_precision.coco(truths_of(boxes, classes), found, len(names))
    figures = {name: scores[name] for name in ("map", "map50", "map75")}
    for kind, name in enumerate(names):
        if np.isfinite(scores["per_class"][kind]):
            figures[f"ap_{name}"], figures[f"ap50_{name}"] = scores["per_class"][kind], scores["per_class50"][kind]
    return figures | {"milliseconds": milliseconds(detect, images[:batch_size])}


def milliseconds(detect, images, times=3):
    """Of `detect`, which was traced for as many images, a picture: the best of some runs."""
    images, taken = tf.constant(images), []
    for _ in range(times):
        start = time.perf_counter()
        detect(images)["scores"].numpy()
        taken.append(time.perf_counter() - start)
    return 1000 * min(taken) / len(images)


def sheets(model, images, boxes, classes, names, draw, count=12):
    """{stem: picture}: truths beside what was found in the first `count` pictures, and in those that went worst.

    draw: dmkeras.figures.
    """
    found = average_precision.collect(tf.function(model.detect), images, min(BATCH, len(images)))
    truths = truths_of(boxes, classes)
    missed = [_unlike(*pair) for pair in zip(found, truths)]
    chosen = {"detections": range(min(count, len(images))), "worst": np.argsort(missed)[::-1][:count]}
    return {name: _sheet(images, found, truths, rows, names, draw) for name, rows in chosen.items()}


def _unlike(found, truths):
    """How many truths have no box of their class and IoU .5, and drawn boxes no truth."""
    shown = found["scores"] >= SHOWN
    if not len(truths["boxes"]) or not shown.any():
        return len(truths["boxes"]) + shown.sum()
    overlap = np.stack([average_precision.ious(box, found["boxes"][shown]) for box in truths["boxes"]])  # [n, shown]
    right = (overlap >= 0.5) & (truths["classes"][:, None] == found["classes"][shown])
    return (~right.any(1)).sum() + (~right.any(0)).sum()


def _sheet(images, found, truths, rows, names, draw):
    tiles, titles = [], []
    for i in rows:
        keep = found[i]["scores"] >= SHOWN
        told = [found[i][key][keep] for key in ("boxes", "classes", "scores")]
        tiles.append(draw.boxes(images[i], truths[i]["boxes"], truths[i]["classes"], names=names))
        tiles.append(draw.boxes(images[i], *told[:2], scores=told[2], names=names))
        titles += ["truth", f"found, score >= {SHOWN}"]
    columns = 6 if tiles[0].shape[1] < 260 else 4
    return draw.grid(tiles, columns, titles=titles, scale=1)


def clusters(sizes, anchors, draw, most=1500):
    """Sizes [n, 2] in pixels, coloured by the anchor [A, 2] that fits each best, under the anchors themselves."""
    sizes, anchors = np.asarray(sizes)[:most], np.asarray(anchors)
    overlap = priors.size_iou(sizes, anchors)
    labels = np.concatenate([overlap.argmax(-1), np.full(len(anchors), len(anchors))])
    names = [*(f"{w:.0f}x{h:.0f}" for w, h in anchors), "anchors"]
    title = f"{len(anchors)} anchors, average IoU {overlap.max(-1).mean():.3f}"
    axes = {"x_label": "width [pixels]", "y_label": "height [pixels]"}
    return draw.scatter(np.concatenate([sizes, anchors]), labels, names=names, title=title, **axes)


def ablation(steps, train, seeds, measure):
    """Prints what each step brings on top of those before it, and returns {name: float} of the means.

    Args:
        steps: {name: options}, in order; the first is the start, each further one changes some of its options.
        train: (options, seed) -> a trained model.
        seeds: to train each with.
        measure: model -> {"map", "map50"}.
    """
    options, found = {}, {}
    print(f"{'':>30} {'map':>12} {'map50':>12}   over seeds {list(seeds)}")
    for name, change in steps.items():
        options |= change
        runs = []
        for seed in seeds:
            runs.append(measure(train(dict(options), seed)))
            gc.collect()  # models and their graphs refer to one another, and to the pictures that they were trained on
        cells = []
        for figure in ("map", "map50"):
            values = np.array([run[figure] for run in runs])
            found[f"{figure} {name}"] = values.mean()
            cells.append(f"{values.mean():.3f} +-{values.std(ddof=min(1, len(values) - 1)):.3f}")
        print(f"{name:>30} {cells[0]:>12} {cells[1]:>12}", flush=True)
    return found
