"""Train an encoder and decoder that tell the class of every pixel, and compare four ways to make maps large.

python -m training.encoder_decoder                         phantoms: no download; `--fast`: in seconds
python -m training.encoder_decoder --data pairs:DIR        your own pictures with masks
python -m training.encoder_decoder --compare unpooling     the four upsamplings on the same data, from the same seeds

Pictures are cut, moved and recoloured anew in each epoch; those of `phantoms`, which have a left and a right, are
neither mirrored nor turned by quarters. Mean IoU of the test pictures, and that of pixels near an edge of the truth;
two x86-64 cores shared with much other work; means and spread over the seeds:

                            nearest      bed_of_nails  max          transposed
phantoms, seeds 0 1 2       .932 +-.001  .938 +-.004   .940 +-.001  .923 +-.002   100 pictures, 5 stages, 10 epochs
  near an edge              .828 +-.001  .845 +-.008   .850 +-.003  .805 +-.005
  weights                   196,069      196,069       196,069      413,157
nuclei, seeds 0 1           .864 +-.008  .861 +-.005   .866 +-.004  .866 +-.005   20 pictures, 3 stages, --epochs 40
  near an edge              .619 +-.018  .620 +-.006   .628 +-.014  .629 +-.012
  weights                   47,442       47,442        47,442       133,458

Behind five stages, which leave 3x3 pixels, nails and positions are ahead; behind three, 32x32, the four are level.
The nuclei (2018 Data Science Bowl: 80 in training, 20, 20) with all 100 epochs, seed 0: .870, trained in 128 s.
"""

from typing import Literal

import keras
import tensorflow as tf

import dmkeras
from dmkeras import figures
from dmkeras.data import batches, class_names, load
from dmkeras.parts import segmentation_loss, segmentation_report, segmentation_training, segmenter_comparison
from dmkeras.recipe import Recipe, run

FAR = (16, 32, 64, 64, 64)  # maps of five stages: what tells a left lung from a right one is far away
PHANTOMS = {"epochs": 10, "side": 96, "filters": FAR, "momentum": 0.9}
OTHERS = {"epochs": 100, "side": 128, "filters": (16, 32, 64), "momentum": 0.99}  # of a set of some hundred pictures
CHANGES = {"mirror": False, "turns": False, "rotation": 0.1, "zoom": 1.1, "contrast": 1.1}, {"zoom": 1.25}
KINDS = ("nearest", "bed_of_nails", "max", "transposed")


def recipe(
    fast=False,
    data="phantoms",
    data_dir: str | None = None,
    download=False,
    side: int | None = None,
    unpooling: Literal["nearest", "bed_of_nails", "max", "transposed"] = "max",
    filters: tuple[int, ...] | None = None,
    convolutions=1,
    balanced=False,
    compare: Literal["unpooling"] | None = None,
    seeds: tuple[int, ...] = (0, 1, 2),
    epochs: int | None = None,
    batch_size=8,
    learning_rate=1e-2,
):
    """SegNet, small: mean IoU of held-out pictures, and their best and worst; the four upsamplings side by side."""
    given, phantoms = dict(locals()), data == "phantoms"
    defaults = PHANTOMS if phantoms else OTHERS
    side, epochs, filters = (given[key] or defaults[key] for key in ("side", "epochs", "filters"))
    filters = (4, 8) if fast else filters
    names = ["background", *class_names(data, data_dir=data_dir)]
    sets = {}
    for split in ("train", "validation", "test"):
        records = load(data, split, data_dir=data_dir, download=download)
        sets[split] = segmentation_training.arrays(records.take(40) if fast else records)
    (images, labels), test = sets["train"], sets["test"]

    def batched(split, seed):
        if split != "train":
            return batches(sets[split], 10)
        pairs = batches(sets[split], batch_size, seed, True)
        return segmentation_training.changed(pairs, seed, side=side, **CHANGES[not phantoms])

    def trained(kind, seed):
        keras.utils.set_random_seed(seed)
        other = recipe(**{**given, "unpooling": kind, "compare": None})
        other.model.compile(**other.compile, jit_compile=False)
        orders = tf.data.Dataset.range(1000 * seed, 1000 * seed + epochs)
        shown = orders.flat_map(lambda order: other.data("train", order))  # all epochs are one to Keras
        other.model.fit(shown, steps_per_epoch=steps, shuffle=False, verbose=0)
        return other.model

    compared = {}

    def evaluate(model):
        found = segmentation_report.figures(model, *test, names)
        if compare:
            measure = lambda model: segmenter_comparison.measure(model, *test, len(names))
            told, models = segmenter_comparison.compare(KINDS, trained, seeds, measure)
            compared.update(models)
        return found | (told if compare else {})

    def pictures(model):
        found = segmentation_report.sheets(model, *test, names, figures)
        if compared:
            found["upsamplings"] = segmenter_comparison.side_by_side(compared, *test, len(names), figures)
        return found

    weights = segmentation_loss.median_frequency_weights(labels, len(names)) if balanced else None
    options = {
        "convolutions": (convolutions,) * len(filters),
        "class_weights": weights,
        "momentum": defaults["momentum"],
    }
    model = dmkeras.EncoderDecoder(images.shape[1:], len(names), unpooling, filters, **options)
    steps = epochs * (len(images) // batch_size)
    warm = {"warmup_target": learning_rate, "warmup_steps": min(50, steps // 4)}
    falling = keras.optimizers.schedules.CosineDecay(0.0, steps, 0.01, **warm)
    return Recipe(
        "encoder_decoder",
        model,
        batched,
        compile={"optimizer": keras.optimizers.Adam(falling, global_clipnorm=10.0)},
        epochs=epochs,
        improves="mean_iou",
        mode="max",
        validation_freq=5 if epochs >= 40 else 1,
        evaluate=evaluate,
        pictures=pictures,
        labels=names,
        description=f"{data}, {len(images)} pictures of {images.shape[1]}x{images.shape[2]} pixels",
    )


if __name__ == "__main__":
    run(recipe)
