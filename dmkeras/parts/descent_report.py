"""What the recipe of a detector over a tree of labels reports: precision of its leaves, and the ways down to answers.

    map50_boxed, map_boxed   COCO's average precision, mean over the leaves that had boxes in training
    map50_never, map_never   the same over those that had none; every leaf is looked for in every box
    kin_never                share of the truths never boxed whose best overlapping descent (IoU >= .5) passes through
                             their parent: the family is right, whatever the leaf

Shapes:  N pictures, H height, W width, C colours, M rows of truths.
"""

import numpy as np
import tensorflow as tf

from dmkeras.parts import average_precision
from dmkeras.parts.detection_report import truths_of

BATCH = 50
SHOWN = 0.3  # least score of a descent that is told


def figures(model, images, boxes, classes, leaves, boxed):
    """{name: float} of the module.

    Args:
        model: with `tree` and `detect(images, nodes=)`.
        images: [N, H, W, C].
        boxes: [N, M, 4] xyxy in pixels.
        classes: [N, M] nodes, -1 for padding.
        leaves: nodes to look for.
        boxed: those of them that had boxes.
    """
    batch, truths, boxed = min(BATCH, len(images)), truths_of(boxes, classes), set(map(int, boxed))
    detect = tf.function(lambda images: model.detect(images, nodes=leaves), autograph=False)
    scores = average_precision.coco(truths, average_precision.collect(detect, images, batch), len(model.tree))
    halves = {"boxed": sorted(boxed), "never": [node for node in map(int, leaves) if node not in boxed]}
    found = {}
    for half, nodes in halves.items():
        for figure, key in (("map50", "per_class50"), ("map", "per_class")):
            values = np.asarray(scores[key])[nodes]
            found[f"{figure}_{half}"] = float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else 0.0
    descents = average_precision.collect(tf.function(model.detect, autograph=False), images, batch)
    return found | {"kin_never": _kin(model.tree, truths, descents, set(halves["never"]))}


def _kin(tree, truths, found, chosen):
    right, count = 0, 0
    for truth, answer in zip(truths, found):
        for box, node in zip(truth["boxes"], truth["classes"]):
            if node not in chosen:
                continue
            count += 1
            near = np.flatnonzero(average_precision.ious(box, answer["boxes"]) >= 0.5) if len(answer["boxes"]) else []
            if len(near):
                best = answer["classes"][near[np.argmax(answer["scores"][near])]]
                right += tree.parents[node] in tree.paths[int(best)] if tree.parents[node] >= 0 else best == node
    return right / max(count, 1)


def descents(model, images, least=SHOWN):
    """Of each picture a list of (box [4], score, [(name, probability), ...] from a root down), best first."""
    found, names = model.detect(images, score_threshold=least), model.tree.names
    rows = zip(*(found[key].numpy() for key in ("boxes", "scores", "paths", "path_scores")))
    steps = lambda path, told: [(names[node], float(value)) for node, value in zip(path, told) if node >= 0]
    return [
        [(box, float(score), steps(path, told)) for box, score, path, told in zip(*row) if path[0] >= 0] for row in rows
    ]


def words(steps):
    """animal .98 > dog .91"""
    return " > ".join(f"{name} {value:.2f}".replace(" 0.", " .") for name, value in steps)


def sheet(model, images, boxes, classes, draw, columns=3, scale=6):
    """The pictures, each with its boxes and the way down the tree to each, under the truths. draw: dmkeras.figures."""
    tiles, titles = [], []
    for image, ways, kinds in zip(images, descents(model, images), classes):
        found = np.array([box for box, _, _ in ways]).reshape(-1, 4)
        tiles.append(draw.boxes(image, found, np.arange(len(ways)), names=[words(way[2]) for way in ways], scale=scale))
        titles.append(", ".join(model.tree.names[node] for node in kinds if node >= 0))
    return draw.grid(tiles, columns, titles=titles, scale=1)


def lines(model, images, classes):
    """The same as text, a line for each answer."""
    for number, (ways, kinds) in enumerate(zip(descents(model, images), classes)):
        yield f"picture {number}: {', '.join(model.tree.names[node] for node in kinds if node >= 0)}"
        for box, score, steps in ways:
            yield f"    {words(steps)}   score {score:.2f} at {', '.join(f'{side:.0f}' for side in box)}"
