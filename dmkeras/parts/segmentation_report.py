"""What the recipes of segmenters report: figures of held-out pictures, and pictures of what was found.

    mean_iou, pixel_accuracy, frequency_weighted_iou   pixels pooled over all pictures (parts/segmentation_metrics.py)
    iou_CLASS, dice_CLASS                              of each class that is in the truth or was found
    milliseconds                                       a picture, of `segment` on batches of the size given

A model that is reported has `segment(images [B, H, W, C]) -> classes int32 [B, H, W]`, which can be traced.

Shapes:  N pictures, H height, W width, C channels, K classes with the background.
"""

import time

import numpy as np
import tensorflow as tf

from dmkeras.parts import segmentation_metrics as metrics

BATCH = 10  # pictures that `segment` is given at once
MISSED, INVENTED, CONFUSED = 1, 2, 3  # kinds of errors, drawn in the colours of these classes
ERRORS = "errors: orange missed, green invented, red another class"
COLOURS = ("blue", "orange", "green", "red", "purple", "brown", "pink", "grey", "olive", "cyan")  # of figures.PALETTE


def segmented(model, images, batch_size=BATCH):
    """Classes int32 [N, H, W] of pictures [N, H, W, C], and the milliseconds that one took.

    Nothing is traced, so that it may be asked for again and again while a model trains; `milliseconds` is the figure.
    """
    start, parts = time.perf_counter(), range(0, len(images), batch_size)
    found = np.concatenate([np.asarray(model.segment(images[i : i + batch_size])) for i in parts])
    return found, 1000 * (time.perf_counter() - start) / len(images)


def milliseconds(model, images, times=3):
    """Of `segment` on pictures [N, H, W, C] at once, traced before, a picture: the best of some runs."""
    segment, images, taken = tf.function(model.segment), tf.constant(images), []
    segment(images)
    for _ in range(times):
        start = time.perf_counter()
        segment(images).numpy()
        taken.append(time.perf_counter() - start)
    return 1000 * min(taken) / len(images)


def figures(model, images, labels, names, batch_size=BATCH):
    """{name: float} of the module, for images [N, H, W, C] with labels [N, H, W], -1 for void.

    names: K texts, the background's first.
    """
    found, _ = segmented(model, images, batch_size)
    scores = metrics.scores(metrics.confusion_matrix(labels, found, len(names)))
    told = {name: scores[name] for name in ("mean_iou", "pixel_accuracy", "frequency_weighted_iou")}
    for kind, name in enumerate(names):
        if np.isfinite(scores["iou"][kind]):
            told[f"iou_{name}"], told[f"dice_{name}"] = float(scores["iou"][kind]), float(scores["dice"][kind])
    return told | {"milliseconds": milliseconds(model, images[:batch_size])}


def sheets(model, images, labels, names, draw, count=4):
    """{stem: picture}: rows of a picture, its truth, what was found and the errors.

    Args:
        model: with `segment`.
        images: [N, H, W, C].
        labels: [N, H, W].
        names: K texts, the background's first.
        draw: dmkeras.figures.
        count: rows a sheet.

    Returns:
        The first pictures as "segmentations", the best and the worst by the mean IoU of the picture alone.
    """
    found, _ = segmented(model, images)
    each = np.array([metrics.mean_iou(*pair, len(names)) for pair in zip(labels, found)])  # nan: nothing but void
    order = np.argsort(np.where(np.isnan(each), np.inf, each), kind="stable")[: np.isfinite(each).sum()]
    chosen = {"segmentations": range(min(count, len(images))), "best": order[::-1][:count], "worst": order[:count]}
    return {stem: _sheet(images, labels, found, each, rows, names, draw) for stem, rows in chosen.items() if len(rows)}


def errors(truth, found):
    """0 where truth and found agree or the truth is void, else MISSED, INVENTED (of background) or CONFUSED."""
    wrong = (truth != found) & (truth >= 0)
    kinds = np.where(found == 0, MISSED, np.where(truth == 0, INVENTED, CONFUSED))
    return np.where(wrong, kinds, 0)


def _sheet(images, labels, found, each, rows, names, draw):
    tiles, texts = [], []
    scale = max(1, round(192 / max(images.shape[1:3])))
    for i in rows:
        tiles.append(np.repeat(np.repeat(images[i], scale, 0), scale, 1))
        tiles += [draw.masks(images[i], classes[i], scale=scale) for classes in (labels, found)]
        tiles.append(draw.masks(images[i], errors(labels[i], found[i]), opacity=0.9, scale=scale))
        texts.append(f"IoU {each[i]:.3f}")
    shown = np.union1d(labels[list(rows)], found[list(rows)])
    legend = ", ".join(f"{COLOURS[kind % len(COLOURS)]} {names[kind]}" for kind in shown if kind > 0)
    columns = ["picture", "truth", "found", "errors"]
    return draw.grid(tiles, 4, row_labels=texts, column_labels=columns, title=f"{legend}; {ERRORS}", scale=1)
