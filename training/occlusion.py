"""Cover part after part of pictures and see how much a classifier's answer drops: is it looking at the object?

python -m training.occlusion                                          a CNN trained here in a minute; `--fast`: seconds
python -m training.occlusion --classifier squeezenet --weights PATH   ImageNet's classes, three photographs
python -m training.occlusion --fill mean --of probability             another cover, the paper's score

simple_shapes, 300 held-out pictures, seed 0: in_box .633 .665 .543 .333, windows of 4, 8, 12, 24 pixels; chance .121
"""

from typing import Literal

import numpy as np
import tensorflow as tf

import dmkeras
from dmkeras import figures
from dmkeras.backbones.subjects import subject
from dmkeras.recipe import Recipe, run

SHARES = (1 / 12, 1 / 6, 1 / 4, 1 / 2)  # of the picture's side: windows compared
TOGETHER, SHOWN = 20, 6  # pictures of a batch, pictures shown


def recipe(
    fast=False,
    classifier: Literal["small_cnn", "squeezenet", "vgg16", "vgg19"] = "small_cnn",
    weights: str | None = None,
    window: int | None = None,
    stride: int | None = None,
    fill: Literal["grey", "mean", "blur"] = "grey",
    of: Literal["logit", "probability"] = "logit",
    pictures: int | None = None,
):
    """Occlusion: how often a map's maximum lies in the object's box, for several windows, beside chance; heat maps.

    window, stride: pixels; a sixth of the picture's side, and half of the window. pictures: of the evaluation.
    """
    known = subject(classifier, weights, fast)
    most = pictures or (8 if fast else 300)
    images, classes, side = known.images[:most], known.classes[:most], known.images.shape[1]
    cover = 0.5 if fill == "grey" else fill
    occlusion = lambda window, stride: dmkeras.Occlusion(known.classifier, window, stride, cover, of)
    model = occlusion(window or round(side / 6), stride)

    def maps_of(model):
        parts = range(0, len(images), TOGETHER)
        return np.concatenate([model(images[i : i + TOGETHER], classes[i : i + TOGETHER]) for i in parts])

    def evaluate(model):
        seen = known.classifier.predict(images, TOGETHER, verbose=0).argmax(1)
        found = {"accuracy": (seen == classes).mean(), "drop": maps_of(model).max((1, 2)).mean()}
        if known.boxes is None:
            return found
        inside = within(known.boxes[:most], images.shape[1:3])
        found |= {"in_box": pointing(maps_of(model), inside), "in_box_by_chance": inside.mean()}
        for part in sorted(
            {max(1, round(side * share)) for share in SHARES[: 2 if fast else None]} - {model.window[0]}
        ):
            found[f"in_box_window_{part}"] = pointing(maps_of(occlusion(part, None)), inside)
        return found

    return Recipe(
        "occlusion",
        model,
        lambda split, seed: tf.data.Dataset.from_tensor_slices((images, classes)).batch(TOGETHER),
        evaluate=evaluate,
        pictures=lambda model: sheets(model, known, images[:SHOWN], classes[:SHOWN]),
        labels=list(known.names),
        description=f"{classifier}, {len(images)} pictures, windows of {model.window[0]} of {side} pixels, {of}",
    )


def within(boxes, sides):
    """The pixels [N, H, W] whose middles lie in boxes [N, 4], xyxy."""
    y, x = (np.arange(side) + 0.5 for side in sides)
    x1, y1, x2, y2 = boxes.T[:, :, None]
    return ((y >= y1) & (y < y2))[:, :, None] & ((x >= x1) & (x < x2))[:, None]


def pointing(maps, inside):
    """The share of maps whose maximum is inside; of several equal pixels each counts by its part."""
    best = maps == maps.max((1, 2), keepdims=True)
    return ((best & inside).sum((1, 2)) / best.sum((1, 2))).mean()


def sheets(model, known, images, classes):
    """Heat maps over the pictures; the class's probability and the most probable class by the square's place."""
    places, size, tiles, rows = model.positions(images, classes), "x".join(map(str, model.window)), [], []
    for i, heat in enumerate(model(images, classes).numpy()):
        name, seen = known.names[classes[i]], places["predicted"][i].numpy()
        tiles.append(figures.heat_map(heat, images[i], title=name, units=f"mean drop of the {model.of}", signed=True))
        told = {"title": f"probability of {name}, {size} pixels covered", "limits": (0, 1)}
        rows.append(figures.heat_map(places["probability"][i], **told))
        small = tf.image.resize(images[i], seen.shape, antialias=True).numpy().clip(0, 1)
        rows.append(figures.masks(small, 1 + seen, names=["", *known.names], title="most probable class"))
    return {"occlusion": figures.grid(tiles, 3, scale=1), "places": figures.grid(rows[:8], 4, scale=1)}


if __name__ == "__main__":
    run(recipe)
