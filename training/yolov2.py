"""Train YOLOv2 on pictures with boxes, and measure what each item of the paper's "Better" brings.

python -m training.yolov2                          simple_shapes: no download; `--fast`: in seconds
python -m training.yolov2 --data voc:DIR           your own, in Pascal VOC's format
python -m training.yolov2 --compare better         the ablation, from YOLO's design up to the defaults

simple_shapes, seed 0, 5 epochs, 257 s on two shared x86-64 cores: AP .920, AP50 .992, AP75 .976 on the 200 test
pictures (squares .933, discs .929, triangles .900), 2.5 ms a picture. Average IoU of 3 clusters .782.
Deviations from the paper's training: boxes by CIoU (the paper's: --box-loss squared --coordinate-weight 1), Adam with
gradients cut to norm 10, no pull to the priors at first, and by default neither a classifier before
(--classifier low or high) nor changing sizes (--multi-scale).
Of the comparison (two epochs, means of seeds 0 and 1; benchmarks/README.md): AP .563, batch normalisation .708, anchor
boxes .768, clusters .784, direct locations .803, fine-grained features .819, CIoU .861; on top of that changing sizes
.842, a classifier before .882 (at the high resolution .875).
"""

from typing import Literal

import keras

import dmkeras
from dmkeras import figures
from dmkeras.data import batches, class_names
from dmkeras.data.padding import padded_splits
from dmkeras.parts import detection_report, detection_training
from dmkeras.recipe import Recipe, run

SIMPLE = {"side": 96, "num_anchors": 3, "epochs": 5, "batch_size": 16, "learning_rate": 1e-2}
OTHERS = {"side": 192, "num_anchors": 5, "epochs": 40, "batch_size": 8, "learning_rate": 5e-3}
CHANGES = {"jitter": 0.2, "hue": 0.02, "saturation": 1.2, "exposure": 1.2}  # of pictures that are not rendered
MOMENTUM = 0.9  # of the moving statistics: trainings are short
BETTER = {  # table 2 of the paper, from nothing of it; each further line changes what it says
    "YOLO's design": {"batch_norm": False, "anchors": "none", "direct_location": False, "passthrough_filters": 0}
    | {"classifier": "none", "multi_scale": False, "box_loss": "squared", "coordinate_weight": 1.0},
    "batch normalisation": {"batch_norm": True},
    "anchor boxes": {"anchors": "hand"},
    "dimension clusters": {"anchors": "clusters"},
    "direct location prediction": {"direct_location": True},
    "fine-grained features": {"passthrough_filters": 16},
    "CIoU loss (not of the paper)": {"box_loss": "ciou", "coordinate_weight": 2.0},  # the recipe's defaults
    "multi-scale training": {"multi_scale": True},
    "one size, a classifier before": {"multi_scale": False, "classifier": "low"},  # the paper's second item; last here,
    "high-resolution classifier": {"classifier": "high"},  # since it takes as long as the detector
}


def recipe(
    fast=False,
    data="simple_shapes",
    data_dir: str | None = None,
    download=False,
    side: int | None = None,
    filters=16,
    convolutions: tuple[int, ...] = (1, 1, 1, 1),
    head_filters=64,
    passthrough_filters=16,
    anchors: Literal["clusters", "hand", "none"] = "clusters",
    num_anchors: int | None = None,
    batch_norm=True,
    direct_location=True,
    classifier: Literal["none", "low", "high"] = "none",
    multi_scale=False,
    box_loss: Literal["squared", "ciou"] = "ciou",
    coordinate_weight=2.0,
    compare: Literal["better"] | None = None,
    seeds: tuple[int, ...] = (0, 1),
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
):
    """YOLOv2, small: COCO's average precision of held-out pictures; what was found beside the truth."""
    given = dict(locals())
    defaults = SIMPLE if data == "simple_shapes" else OTHERS
    side, num_anchors, epochs, batch_size, rate = (given[key] or default for key, default in defaults.items())
    filters, head_filters = (4, 16) if fast else (filters, head_filters)
    names = class_names(data, data_dir=data_dir)
    source = {"most": 200 if fast else None, "data_dir": data_dir, "download": download}
    sets = padded_splits(data, detection_training.letterboxed(side), **source)
    train, test = sets["train"], sets["test"]  # images, boxes, classes
    sizes = (train[1][..., 2:] - train[1][..., :2])[train[2] >= 0]

    def batched(split, seed):
        images, boxes, classes = sets[split]
        pairs = images, {"boxes": boxes, "classes": classes}
        if split != "train":
            return batches(pairs, 50)
        scales = detection_training.multiples(side, model.stride) if multi_scale else None
        changes = {"jitter": 0.0} if data == "simple_shapes" else CHANGES
        return detection_training.changed(batches(pairs, batch_size, seed, True), seed, scales, **changes)

    def network(num_classes):
        return dmkeras.Darknet19((side, side, 3), num_classes, filters, convolutions, batch_norm, momentum=MOMENTUM)

    def train_classifier(recipe, fit):
        sides = {"low": (side // 2,), "high": (side // 2, side)}[classifier]
        recipe.model.load_trunk(detection_training.train_on_crops(network(len(names)), *train, sides))

    def trained(options, seed):
        return detection_training.trained(recipe(**{**given, **options, "compare": None}), epochs, seed)

    def evaluate(model):
        measure = lambda model: detection_report.figures(model, *test, names)
        return measure(model) | (detection_report.ablation(BETTER, trained, seeds, measure) if compare else {})

    priors = {"none": None, "hand": tuple((side / 2**i,) * 2 for i in range(num_anchors, 0, -1))}
    priors["clusters"] = dmkeras.YOLOv2.dimension_clusters(sizes, num_anchors)[0]
    settings = {key: given[key] for key in ("passthrough_filters", "batch_norm", "direct_location", "box_loss")}
    settings |= {"anchors": priors[anchors], "coordinate_weight": coordinate_weight, "momentum": MOMENTUM}
    settings |= {"head_filters": head_filters, "prior_images": 0}  # trainings are short for the pull of the priors
    model = dmkeras.YOLOv2((side, side, 3), len(names), network(None), **settings)
    steps = epochs * (len(train[0]) // batch_size)
    falling = keras.optimizers.schedules.CosineDecay(
        0.0, steps, 0.01, warmup_target=rate, warmup_steps=min(100, steps // 4)
    )
    stages = [("classifier", train_classifier)] if classifier != "none" else []
    return Recipe(
        "yolov2",
        model,
        batched,
        compile={"optimizer": keras.optimizers.Adam(falling, global_clipnorm=10.0)},
        epochs=epochs,
        evaluate=evaluate,
        pictures=lambda model: {
            **detection_report.sheets(model, *(array[:100] for array in test), names, figures),
            "anchors": detection_report.clusters(sizes, priors["clusters"], figures),
        },
        stages=[*stages, ("detector", lambda recipe, fit: fit())],
        labels=list(names),
        description=f"{data}, {side}x{side} pixels",
    )


if __name__ == "__main__":
    run(recipe)
