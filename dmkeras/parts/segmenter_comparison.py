"""Segmenters that differ in one thing, side by side: figures over seeds, and what each found in the same pictures.

    mean_iou     pixels pooled over all pictures
    edge_iou     the same of pixels near an edge of the truth alone, those about which a square of 5 pixels shows two
                 labels: there large areas do not hide how outlines are met, which is why Kraehenbuehl and Koltun
                 measure in such bands (https://arxiv.org/abs/1210.5644)
    parameters   weights of the model
    milliseconds a picture, of `segment` on a batch of ten

Shapes:  N pictures, H height, W width, C channels.
"""

import functools

import numpy as np

from dmkeras.parts import segmentation_metrics as metrics
from dmkeras.parts import segmentation_report
from dmkeras.parts.segmentation_metrics import VOID

RADIUS = 2
FIGURES = {"mean_iou": ".3f", "edge_iou": ".3f", "parameters": ",.0f", "milliseconds": ".1f"}  # and how they are told


def near_edges(labels, radius=RADIUS):
    """Labels [N, H, W] with void (-1) where there is no other label within `radius` pixels, in both directions."""
    from scipy import ndimage

    size = (1, 2 * radius + 1, 2 * radius + 1)
    same = ndimage.maximum_filter(labels, size, mode="nearest") == ndimage.minimum_filter(labels, size, mode="nearest")
    return np.where(same, VOID, labels)


def measure(model, images, labels, num_classes):
    """{name: float} of the module, for images [N, H, W, C] with labels [N, H, W], -1 for void."""
    found, _ = segmentation_report.segmented(model, images)
    return {
        "mean_iou": metrics.mean_iou(labels, found, num_classes),
        "edge_iou": metrics.mean_iou(near_edges(labels), found, num_classes),
        "parameters": model.count_params(),
        "milliseconds": segmentation_report.milliseconds(model, images[: segmentation_report.BATCH]),
    }


def compare(names, train, seeds, measure, tell=functools.partial(print, flush=True)):  # noqa: B008
    """Prints a table of models over seeds.

    Args:
        names: of the models.
        train: (name, seed) -> a trained model.
        seeds: to train each with.
        measure: model -> {figure: float} of the module.
        tell: what the lines are given to.

    Returns:
        {"FIGURE NAME": float}, the means over seeds, and {name: model} of the first seed.
    """
    width, told, first = max(map(len, names)), {}, {}
    tell(f"{'':>{width}}" + "".join(f"{name:>16}" for name in FIGURES) + f"   over seeds {list(seeds)}")
    for name in names:
        runs = []
        for seed in seeds:
            model = train(name, seed)
            first.setdefault(name, model)
            runs.append(measure(model))
        cells = []
        for figure, form in FIGURES.items():
            values = np.array([run[figure] for run in runs])
            told[f"{figure} {name}"] = float(values.mean())
            spread = f" +-{values.std(ddof=1):{form}}" if len(values) > 1 and figure.endswith("iou") else ""
            cells.append(f"{values.mean():{form}}{spread}")
        tell(f"{name:>{width}}" + "".join(f"{cell:>16}" for cell in cells))
    return told, first


def side_by_side(models, images, labels, num_classes, draw, count=4):
    """A row for each of the first `count` pictures: itself, its truth, and what every model found, with its mean IoU.

    Args:
        models: {name: model with `segment`}.
        images: [N, H, W, C] in [0, 1].
        labels: [N, H, W], -1 for void.
        num_classes: K.
        draw: dmkeras.figures.
        count: rows.
    """
    images, labels = images[:count], labels[:count]
    found = {name: segmentation_report.segmented(model, images)[0] for name, model in models.items()}
    scale = max(1, round(192 / max(images.shape[1:3])))
    tiles, titles = [], []
    for i, (image, truth) in enumerate(zip(images, labels)):
        tiles += [draw.masks(image, np.zeros_like(truth), scale=scale), draw.masks(image, truth, scale=scale)]
        tiles += [draw.masks(image, maps[i], scale=scale) for maps in found.values()]
        titles += ["picture", "truth"]
        titles += [f"{name} {metrics.mean_iou(truth, maps[i], num_classes):.3f}" for name, maps in found.items()]
    return draw.grid(tiles, 2 + len(models), titles=titles, scale=1)
