"""Train YOLO9000 on boxes of half of the classes and on labels alone of the others, and measure both halves.

python -m training.yolo9000                        colours: rendered, no download; `--fast`: in seconds
python -m training.yolo9000 --things garments      real pictures of Fashion-MNIST and MNIST, pasted onto rendered ground
python -m training.yolo9000 --tree flat            the same network with one softmax over the leaves
python -m training.yolo9000 --tree shuffled        leaves at other places of the same tree

1500 pictures with boxes alone for 3 epochs, then with 160 that have a label alone for one: the name of one of the three
things, of three families, that the picture shows. AP50 of 400 test pictures, means (standard errors) over seeds 0 1 2,
27 to 39 s of one core each (benchmarks/yolo9000_claim.py; garments and what did not help: benchmarks/README.md):
                           leaves with boxes   leaves never boxed   family right
colours, natural tree      .825 (.006)         .472 (.037)          .867
colours, flat softmax      .840 (.016)         .274 (.034)
colours, shuffled tree     .828 (.013)         .211 (.022)          .220
The family tells which of the three things the label means. Where that is plain without a tree, or the families of new
leaves cannot be seen, a tree brings no AP: textures, whose pictures showed boxed leaves, too.
Deviations from the paper's training: a trunk from nothing, boxes by CIoU, Adam, no changes of size or pictures, boxes
first in place of a classifier.
"""

from typing import Literal

import keras
import numpy as np
import tensorflow as tf

import dmkeras
from dmkeras import figures
from dmkeras.data import batches, families, to_arrays
from dmkeras.data.padding import padded
from dmkeras.parts import descent_report
from dmkeras.recipe import Recipe, run

BOXES, LABELS = 4, 16  # pictures of each kind in a batch: the paper's 1 to 4
APART = 3  # things of so many families in a picture that has a label alone
MOMENTUM = 0.9  # of the moving statistics: trainings are short


def recipe(
    fast=False,
    things: Literal["colours", "textures", "garments"] = "colours",
    data_dir: str | None = None,
    download=False,
    tree: Literal["natural", "flat", "shuffled"] = "natural",
    image_objectness: Literal["paper", "darknet", "both"] = "paper",
    pictures: int | None = None,
    labelled: int | None = None,
    filters=16,
    head_filters=64,
    num_anchors=3,
    boxes_epochs: int | None = None,
    epochs=1,
    learning_rate=5e-3,
    tree_seed=0,
):
    """YOLO9000, small: AP50 of the leaves that have boxes in training, and of those that never have.

    pictures: with boxes. labelled: with a label alone, and several things; they come again until four of five shown are
    theirs. boxes_epochs: over the boxes alone, before the `epochs` over both.
    tree_seed: of the shuffled leaves.
    """
    pictures, labelled = pictures or (40 if fast else 1500), labelled or (40 if fast else 160)
    boxes_epochs = (1 if fast else 3) if boxes_epochs is None else boxes_epochs
    filters, head_filters = (4, 16) if fast else (filters, head_filters)
    names, half = families.class_names(things=things), families.half(things=things)
    word_tree = make_tree(families.hypernyms(things=things), tree, tree_seed)
    nodes, boxed = word_tree.nodes(names), word_tree.nodes(half)
    never = [i for i, name in enumerate(names) if name not in half]
    source = {"things": things, "data_dir": data_dir, "download": download}
    sets = {}
    for split, count, more in (("train", pictures, labelled), ("validation", 8 if fast else 48, 32 if fast else 192)):
        shown = arrays(families.load(split, classes=half, count=count, **source), nodes)
        crowded = families.load(split, classes=[names[i] for i in never], count=more, apart=APART, **source)
        more = to_arrays(families.named(crowded, never))
        sets[split] = shown, (more["image"], nodes[more["label"]])
    test = arrays(families.load("test", count=20 if fast else 400, **source), nodes)
    _, sizes, kinds = sets["train"][0]

    def boxes_alone(split, seed, size=2 * BOXES):
        (images, boxes, classes), _ = sets["train" if split == "train" else "validation"]
        order = seed if split == "train" else None
        return batches((images, {"boxes": boxes, "classes": classes}), size, order, True)

    def data(split, seed):
        (images, *_), labels = sets["train" if split == "train" else "validation"]
        order = lambda i: seed + i if split == "train" else None
        passes = -(-len(images) * LABELS // (BOXES * (len(labels[0]) // LABELS * LABELS)))
        stream = tf.data.Dataset.range(passes).flat_map(lambda i: batches(labels, LABELS, order(i), True))
        known = tf.data.experimental.assert_cardinality(len(images) // BOXES)
        return dmkeras.YOLO9000.joined(boxes_alone(split, seed, BOXES), stream.take(len(images) // BOXES).apply(known))

    def adam(steps):
        rising = {"warmup_target": learning_rate, "warmup_steps": min(100, steps // 4)}
        falling = keras.optimizers.schedules.CosineDecay(0.0, steps, 0.01, **rising)
        return {"optimizer": keras.optimizers.Adam(falling, global_clipnorm=10.0)}

    def begin(recipe, fit):
        fit(boxes_alone, boxes_epochs, adam(boxes_epochs * (pictures // (2 * BOXES))))

    def evaluate(model):
        print(*descent_report.lines(model, test[0][:8], test[2]), sep="\n")
        return descent_report.figures(model, *test, nodes, boxed)

    side = test[0].shape[1]
    backbone = dmkeras.Darknet19((side, side, 3), None, filters, (1, 1, 1, 1), momentum=MOMENTUM)
    settings = {"head_filters": head_filters, "passthrough_filters": 16, "box_loss": "ciou", "coordinate_weight": 2.0}
    settings |= {"prior_images": 0, "momentum": MOMENTUM, "image_objectness": image_objectness}
    anchors = dmkeras.YOLOv2.dimension_clusters((sizes[..., 2:] - sizes[..., :2])[kinds >= 0], num_anchors)[0]
    return Recipe(
        "yolo9000",
        dmkeras.YOLO9000((side, side, 3), word_tree, anchors, backbone=backbone, **settings),
        data,
        compile=adam(epochs * (pictures // BOXES)),
        epochs=epochs,
        stages=[("boxes", begin)] * bool(boxes_epochs) + [("joint", lambda recipe, fit: fit())],
        evaluate=evaluate,
        pictures=lambda model: {"descents": descent_report.sheet(model, *(part[:12] for part in test), figures)},
        labels=list(word_tree.names),
        description=f"{things}, {len(half)} of {len(names)} leaves with boxes, {tree} tree",
    )


def arrays(records, nodes):
    """Images, boxes and, in place of classes, nodes."""
    found = padded(records)
    return found["image"], found["boxes"], np.where(found["classes"] < 0, -1, nodes[found["classes"]])


def make_tree(paths, kind, seed):
    """The WordTree of {leaf: [path]}, its leaves alone, or its leaves at one another's places."""
    tree = dmkeras.WordTree.from_hypernyms(paths)
    names = np.array(tree.names, object)
    if kind == "shuffled":
        names[tree.leaves] = np.random.default_rng(seed).permutation(names[tree.leaves])
    return dmkeras.WordTree.flat(list(paths)) if kind == "flat" else dmkeras.WordTree(names, tree.parents)


if __name__ == "__main__":
    run(recipe)
