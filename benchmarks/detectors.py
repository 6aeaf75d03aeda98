"""SSD and YOLOv2 beside KerasCV's YOLOV8Detector and RetinaNet: the same data, changes, batches and seconds.

    python -m benchmarks.detectors --seconds 200 --out detectors.jsonl                 simple_shapes, 96 px
    python -m benchmarks.detectors --data voc:DIR --seconds 600 --out detectors.jsonl  letterboxed, 192 px
    python -m benchmarks.detectors --report --out detectors.jsonl --picture detectors.png

All train in one run, by turns of `--turn` seconds, so that whatever else the machine does meets all alike. A detector's
clock runs while it trains, the making of its batches included, not while it is built, traced (two steps) or measured.
Each has its own copy of one stream of batches. Adam, gradients cut to norm 10; the rate rises over the first 2 % of the
seconds and falls to 1 % of its highest, each detector's own (RATES), along half a cosine. SSD and YOLOv2 are their
recipes' (training/ssd.py, training/yolov2.py); pictures, changes and batches are those of YOLOv2's recipe for all.
YOLOv8 is KerasCV's smallest halved, maps 16, 32, 64, 128 with one block a stage; RetinaNet stands on a residual network
of basic blocks with 64 maps. All suppress by class: IoU .5, scores above .005, 100 a picture.
Figures are COCO's over all pictures of the test split. A line of `--out` is one detector of one run.
"""

import argparse
import json
import os
import pathlib

import keras
import numpy as np
import tensorflow as tf

from benchmarks import turns
from dmkeras import figures
from dmkeras.data import class_names
from dmkeras.parts import average_precision, detection_report
from training import ssd, yolov2

RATES = {"SSD": 1e-2, "YOLOv2": 1e-2, "YOLOv8": 5e-3, "RetinaNet": 1e-3}
NMS = {"iou_threshold": 0.5, "max_detections": 100}
LEAST = 0.005  # score
PARTS = (0.25, 0.5, 1.0)  # of the seconds, after which average precision is measured


class Contestant:
    """A detector, its stream of batches and its clock."""

    def __init__(self, name, model, detect, batches, scale=1.0):
        self.name, self.model, self.detect = name, model, tf.function(detect)
        batches = batches.map(lambda images, truths: (images * scale, truths)).prefetch(2)
        model.fit(batches.take(1), verbose=0)  # builds the optimizer
        self.batches, self.scale = iter(batches), scale
        model.train_function(self.batches)  # traces
        self.steps, self.clock, self.measured = 0, 0.0, []

    def train(self, turn, seconds, until):
        """Trains for a turn of the clock, or until it shows `until`."""
        turns.train(self, RATES[self.name], turn, seconds, until)

    def measure(self, images, truths, num_classes):
        """COCO's figures now."""
        found = average_precision.collect(lambda batch: self.detect(batch * self.scale), images, 50)
        figures = average_precision.coco(truths, found, num_classes)
        figures = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in figures.items()}
        self.measured.append({"seconds": round(self.clock, 1), "steps": self.steps, **figures})
        print(f"{self.name:>10} {self.clock:6.1f} s {self.steps:6d} steps  AP {figures['map']:.3f}", end="  ")
        print(f"AP50 {figures['map50']:.3f}  AP75 {figures['map75']:.3f}", flush=True)


def contestants(names, data, seed, num_classes, recipe):
    """The detectors asked for, each built under the same seed."""
    side = recipe.model.image_shape[0]
    batches = lambda: tf.data.Dataset.range(10**6).flat_map(lambda epoch: recipe.data("train", 1000 * seed + epoch))
    for name in names:
        keras.utils.set_random_seed(seed)
        if name in ("SSD", "YOLOv2"):
            made = ssd.recipe(data=data) if name == "SSD" else recipe
            model, detect, scale = *_own(made.model, RATES[name]), 1.0
        else:
            peers = {"YOLOv8": _yolov8, "RetinaNet": _retinanet}
            model, detect, scale = *peers[name](side, num_classes), 255.0
        yield Contestant(name, model, detect, batches(), scale)


def _own(model, rate):
    model.compile(keras.optimizers.Adam(rate, global_clipnorm=10.0), jit_compile=False)
    return model, lambda images: model.detect(images, LEAST, **NMS)


def _yolov8(side, num_classes):
    import keras_cv

    backbone = keras_cv.models.YOLOV8Backbone([16, 32, 64, 128], [1, 1, 1, 1], True, input_shape=(side, side, 3))
    model = keras_cv.models.YOLOV8Detector(backbone, num_classes, "xyxy", 1, prediction_decoder=_suppression(False))
    adam = keras.optimizers.Adam(RATES["YOLOv8"], global_clipnorm=10.0)
    model.compile(optimizer=adam, box_loss="ciou", classification_loss="binary_crossentropy", jit_compile=False)
    return model, _peer(model)


def _retinanet(side, num_classes):
    import keras_cv

    sizes = {"stackwise_filters": [64] * 4, "stackwise_blocks": [1] * 4, "stackwise_strides": [1, 2, 2, 2]}
    backbone = keras_cv.models.ResNetBackbone(
        **sizes, include_rescaling=True, block_type="basic_block", input_shape=(side, side, 3)
    )
    model = keras_cv.models.RetinaNet(backbone, num_classes, "xyxy", prediction_decoder=_suppression(True))
    adam = keras.optimizers.Adam(RATES["RetinaNet"], global_clipnorm=10.0)
    model.compile(optimizer=adam, box_loss="smoothl1", classification_loss="focal", jit_compile=False)
    return model, _peer(model)


def _suppression(from_logits):
    import keras_cv

    return keras_cv.layers.MultiClassNonMaxSuppression("xyxy", from_logits, confidence_threshold=LEAST, **NMS)


def _peer(model):
    def detect(images):
        found = model.decode_predictions(model(images, training=False), images)
        return {"boxes": found["boxes"], "scores": found["confidence"], "classes": tf.cast(found["classes"], "int32")}

    return detect


def race(options, seed):
    """One run: every detector by turns; yields a record of each."""
    keras.utils.set_random_seed(seed)
    recipe = yolov2.recipe(data=options.data)
    images, truths = (next(iter(recipe.data("test", 0).unbatch().batch(10**6)))[i] for i in (0, 1))
    images, truths = images.numpy(), detection_report.truths_of(truths["boxes"].numpy(), truths["classes"].numpy())
    num_classes = len(class_names(options.data))
    running = list(contestants(options.models, options.data, seed, num_classes, recipe))
    for part in PARTS:
        while any(one.clock < part * options.seconds for one in running):
            for one in running:
                one.train(options.turn, options.seconds, part * options.seconds)
        for one in running:
            one.measure(images, truths, num_classes)
    for one in running:
        shared = {
            "data": options.data.partition(":")[0],
            "seed": seed,
            "budget": options.seconds,
            "rate": RATES[one.name],
        }
        shared |= {"model": one.name, "weights": one.model.count_params(), "cores": len(os.sched_getaffinity(0))}
        yield {**shared, "measured": one.measured}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="simple_shapes")
    parser.add_argument("--seconds", type=float, default=200.0)
    parser.add_argument("--turn", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--models", nargs="+", choices=list(RATES), default=list(RATES))
    parser.add_argument("--rates", nargs="+", default=[], metavar="MODEL=RATE", help="other ones than RATES")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("detectors.jsonl"))
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--picture", type=pathlib.Path)
    options = parser.parse_args()
    RATES.update((name, float(rate)) for name, rate in (pair.split("=") for pair in options.rates))
    if not options.report:
        for seed in options.seeds:
            for record in race(options, seed):
                with open(options.out, "a") as file:
                    file.write(json.dumps(record) + "\n")
    lines = [json.loads(line) for line in options.out.read_text().splitlines()]
    turns.report(lines, ("data",), {"AP": "map", "AP50": "map50", "AP75": "map75"})
    if options.picture:
        data = options.data.partition(":")[0]
        drawn = turns.curve([line for line in lines if line["data"] == data], "map", data, "AP")
        figures.save(options.picture, drawn)


if __name__ == "__main__":
    main()
