"""Train an encoder and decoder that tell the class of every pixel, and compare four ways to make maps large.

python -m training.encoder_decoder                      phantoms: no download; `--fast`: in seconds
python -m training.encoder_decoder --data pairs:DIR     your own pictures with masks
python -m training.encoder_decoder --compare unpooling  the four upsamplings on the same data, from the same seeds

Pictures are cut, moved and recoloured anew in each epoch; those of `phantoms`, which have a left and a right, are
neither mirrored nor turned by quarters.
"""

from typing import Literal

import keras
import tensorflow as tf

import dmkeras
from dmkeras import figures
from dmkeras.data import batches, class_names, load
from dmkeras.parts import segmentation_loss, segmentation_report, segmentation_training, segmenter_comparison
from dmkeras.recipe import Recipe, run

PHANTOMS = {"epochs": 8, "batch_size": 16, "crop": None}
OTHERS = {"epochs": 80, "batch_size": 8, "crop": 128}
CHANGES = {  # of pictures in training
    "phantoms": {"mirror": False, "turns": False, "rotation": 0.1, "zoom": 1.1, "contrast": 1.2},
    "others": {"zoom": 1.25},
}
MOMENTUM = 0.9  # of the moving statistics: trainings are short
KINDS = ("nearest", "bed_of_nails", "max", "transposed")


def recipe(
    fast=False,
    data="phantoms",
    data_dir: str | None = None,
    download=False,
    side: int | None = None,
    crop: int | None = None,
    unpooling: Literal["nearest", "bed_of_nails", "max", "transposed"] = "max",
    filters: tuple[int, ...] = (16, 32, 64),
    convolutions: tuple[int, ...] = (1, 1, 1),
    balance=False,
    compare: Literal["unpooling"] | None = None,
    seeds: tuple[int, ...] = (0, 1, 2),
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate=1e-2,
):
    """SegNet, small: mean IoU of held-out pictures, pixels pooled; the four upsamplings side by side.

    side: pixels to letterbox pictures to; None keeps their size. crop: of training. balance: by median frequency.
    """
    given = dict(locals())
    defaults = PHANTOMS if data == "phantoms" else OTHERS
    epochs, batch_size, crop = (given[key] or defaults[key] for key in ("epochs", "batch_size", "crop"))
    filters = (4, 8) if fast else filters
    names = ("background", *class_names(data, data_dir=data_dir))
    changes = CHANGES["phantoms" if data == "phantoms" else "others"]

    def arrays(split):
        records = load(data, split, data_dir=data_dir, download=download)
        records = records.take(64) if fast else records
        return segmentation_training.arrays(records.map(segmentation_training.resized(side)) if side else records)

    sets = {split: arrays(split) for split in ("train", "validation", "test")}
    (images, labels), test = sets["train"], sets["test"]
    weights = segmentation_loss.median_frequency_weights(labels, len(names)) if balance else None

    def batched(split, seed):
        if split != "train":
            return batches(sets[split], 10)
        return segmentation_training.changed(batches(sets[split], batch_size, seed, True), seed, side=crop, **changes)

    def trained(kind):
        def train(seed):
            keras.utils.set_random_seed(seed)
            other = recipe(**{**given, "unpooling": kind, "compare": None})
            other.model.compile(**other.compile, jit_compile=False)
            shown = tf.data.Dataset.range(1000 * seed, 1000 * seed + epochs)
            other.model.fit(shown.flat_map(lambda order: other.data("train", order)), verbose=0)
            return compared.setdefault(kind, other.model)

        return train

    compared = {}
    measure = lambda model: segmenter_comparison.measure(model, *test, len(names))

    def evaluate(model):
        found = segmentation_report.figures(model, *test, names)
        kinds = {kind: trained(kind) for kind in KINDS}
        return found | (segmenter_comparison.compare(kinds, seeds, measure) if compare else {})

    def pictures(model):
        several = {"upsamplings": segmenter_comparison.side_by_side(compared, *test, len(names), figures)}
        return segmentation_report.sheets(model, *test, names, figures) | (several if compared else {})

    settings = {"class_weights": weights, "momentum": MOMENTUM}
    stages = (filters, convolutions[: len(filters)])
    model = dmkeras.EncoderDecoder(images.shape[1:], len(names), unpooling, *stages, **settings)
    steps = epochs * (len(images) // batch_size)
    falling = keras.optimizers.schedules.CosineDecay(
        0.0, steps, 0.01, warmup_target=learning_rate, warmup_steps=min(20, steps // 4)
    )
    return Recipe(
        "encoder_decoder",
        model,
        batched,
        compile={"optimizer": keras.optimizers.Adam(falling)},
        epochs=epochs,
        pictures_every=epochs,
        improves="mean_iou",
        mode="max",
        evaluate=evaluate,
        pictures=pictures,
        labels=list(names),
        description=f"{data}, {len(images)} pictures of {images.shape[1]}x{images.shape[2]} pixels",
    )


if __name__ == "__main__":
    run(recipe)
