"""FCN-8s and EncoderDecoder beside KerasCV's DeepLabV3+ and SegFormer: the same pictures, changes, batches and seconds.

    python -m benchmarks.segmenters --data pairs:DIR --seconds 300 --out segmenters.jsonl
    python -m benchmarks.segmenters --report --out segmenters.jsonl --picture segmenters.png

All train in one run, by turns of `--turn` seconds, so that whatever else the machine does meets all alike. A
segmenter's clock runs while it trains, the making of its batches included, not while it is built, traced (two steps) or
measured. Each has its own copy of one stream of batches, that of training/fcn.py; nobody has weights from elsewhere.
Adam, gradients cut to norm 10; the rate rises over the first 2 % of the seconds and falls to 1 % of its highest, each
segmenter's own (RATES), along half a cosine. FCN-8s and EncoderDecoder are the recipes', FCN-8s with all its skips at
once. DeepLabV3+ stands on the smallest residual network that KerasCV makes, basic blocks of 64 maps; SegFormer on
MiT-B0. Both are given pictures in [0, 255], which they rescale themselves, the cross-entropy without void, and moving
statistics as short as ours; since their sizes are fixed when they are built, copies of the size of the test pictures
take their weights to be measured. Figures pool the pixels of the split; the last measurement counts, not the best. A
line of `--out` is one segmenter of one run.
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
from dmkeras.parts import segmentation_metrics
from training import fcn

RATES = {"FCN-8s": 3e-3, "EncoderDecoder": 1e-2, "DeepLabV3+": 3e-3, "SegFormer": 5e-4}
PARTS = (0.25, 0.5, 1.0)  # of the seconds, after which it is measured
MOMENTUM = fcn.MOMENTUM


class Contestant:
    """A segmenter, its stream of batches and its clock."""

    def __init__(self, name, model, measured, batches, scale=1.0):
        self.name, self.model, self.measured_model, self.scale = name, model, measured, scale
        batches = batches.map(lambda images, labels: (images * scale, labels)).prefetch(2)
        model.fit(batches.take(1), verbose=0)  # builds the optimizer
        self.batches = iter(batches)
        model.train_function(self.batches)  # traces
        self.answer = tf.function(lambda images: tf.argmax(measured(images * scale, training=False), -1))
        self.steps, self.clock, self.measured = 0, 0.0, []

    def train(self, turn, seconds, until):
        """Trains for a turn of the clock, or until it shows `until`."""
        turns.train(self, RATES[self.name], turn, seconds, until)

    def measure(self, images, labels, num_classes):
        """Figures now."""
        if self.measured_model is not self.model:
            self.measured_model.set_weights(self.model.get_weights())
        found = np.concatenate([self.answer(images[i : i + 5]).numpy() for i in range(0, len(images), 5)])
        scores = segmentation_metrics.scores(segmentation_metrics.confusion_matrix(labels, found, num_classes))
        told = {name: scores[name] for name in ("mean_iou", "pixel_accuracy", "frequency_weighted_iou")}
        self.measured.append({"seconds": round(self.clock, 1), "steps": self.steps, **told})
        print(f"{self.name:>14} {self.clock:6.1f} s {self.steps:6d} steps  mean IoU {told['mean_iou']:.4f}", flush=True)


def contestants(names, data, seed, recipe, num_classes):
    """The segmenters asked for, each built under the same seed."""
    batches = lambda: tf.data.Dataset.range(10**6).flat_map(lambda epoch: recipe.data("train", 1000 * seed + epoch))
    side = batches().element_spec[0].shape[1]
    whole = recipe.model.image_shape[:2]
    for name in names:
        keras.utils.set_random_seed(seed)
        if name in ("FCN-8s", "EncoderDecoder"):
            model = _ours(name, data)
            model.compile(keras.optimizers.Adam(RATES[name], global_clipnorm=10.0), jit_compile=False)
            yield Contestant(name, model, model, batches())
            continue
        make = {"DeepLabV3+": _deeplab, "SegFormer": _segformer}[name]
        model = _peer(make((side, side), num_classes), RATES[name])
        yield Contestant(name, model, make(whole, num_classes), batches(), scale=255.0)


def _ours(name, data):
    if name == "FCN-8s":
        return fcn.recipe(data=data).model
    from training import encoder_decoder

    return encoder_decoder.recipe(data=data).model


def _deeplab(size, num_classes):
    import keras_cv

    sizes = {"stackwise_filters": [64] * 4, "stackwise_blocks": [1] * 4, "stackwise_strides": [1, 2, 2, 2]}
    options = {"include_rescaling": True, "block_type": "basic_block", "input_shape": (*size, 3)}
    return keras_cv.models.DeepLabV3Plus(keras_cv.models.ResNetBackbone(**sizes, **options), num_classes)


def _segformer(size, num_classes):
    import keras_cv

    sizes = {"depths": [2, 2, 2, 2], "embedding_dims": [32, 64, 160, 256]}  # MiT-B0
    backbone = keras_cv.models.MiTBackbone(include_rescaling=True, input_shape=(*size, 3), **sizes)
    return keras_cv.models.SegFormer(backbone=backbone, num_classes=num_classes)


def _peer(model, rate):
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = MOMENTUM
    adam = keras.optimizers.Adam(rate, global_clipnorm=10.0)
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=-1)
    model.compile(optimizer=adam, loss=loss, jit_compile=False)
    return model


def race(options, seed):
    """One run: every segmenter by turns; yields a record of each."""
    keras.utils.set_random_seed(seed)
    recipe = fcn.recipe(data=options.data)
    held_out = list(recipe.data(options.split, 0).as_numpy_iterator())
    images, labels = (np.concatenate(parts) for parts in zip(*held_out))
    num_classes = len(class_names(options.data)) + 1
    running = list(contestants(options.models, options.data, seed, recipe, num_classes))
    for part in PARTS:
        while any(one.clock < part * options.seconds for one in running):
            for one in running:
                one.train(options.turn, options.seconds, part * options.seconds)
        for one in running:
            one.measure(images, labels, num_classes)
    for one in running:
        shared = {"data": options.data.partition(":")[0], "split": options.split, "seed": seed}
        shared |= {"budget": options.seconds, "rate": RATES[one.name], "model": one.name}
        shared |= {"weights": one.model.count_params(), "cores": len(os.sched_getaffinity(0))}
        yield {**shared, "measured": one.measured}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="phantoms")
    parser.add_argument("--split", choices=["validation", "test"], default="test", help="to measure on")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--turn", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--models", nargs="+", choices=list(RATES), default=list(RATES))
    parser.add_argument("--rates", nargs="+", default=[], metavar="MODEL=RATE", help="other ones than RATES")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("segmenters.jsonl"))
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
    told = {"mean IoU": "mean_iou", "pixel accuracy": "pixel_accuracy"}
    turns.report(lines, ("data", "split"), told)
    if options.picture:
        figures.save(options.picture, turns.curve(lines, "mean_iou", "held-out pictures", "mean IoU"))


if __name__ == "__main__":
    main()
