"""Train SSD on pictures with boxes.

python -m training.ssd                             simple_shapes: no download; `--fast`: in seconds
python -m training.ssd --data voc:DIR              your own, in Pascal VOC's format
python -m training.ssd --data shapes --side 128    eight kinds of textured shapes that hide one another

simple_shapes, seed 0, 5 epochs of 40 to 70 s on two shared x86-64 cores: AP .897, AP50 .987, AP75 .983 on the 200 test
pictures (squares .891, discs .905, triangles .894), 178,832 weights, 2.6 ms a picture.
Deviations from the paper's training: no trunk trained before, normalization by batch instead, a first scale of 5, Adam
with gradients cut to norm 10, sizes of priors from the data, and by default milder changes of the pictures (the
paper's: --changes paper).
"""

from typing import Literal

import keras
import numpy as np

import dmkeras
from dmkeras import figures
from dmkeras.data import batches, class_names
from dmkeras.data.padding import padded_splits
from dmkeras.parts import box_augmentation, detection_report, detection_training, ssd_augmentation
from dmkeras.recipe import Recipe, run

SIMPLE = {"side": 96, "epochs": 5, "batch_size": 16, "changes": "mirror"}  # rendered, and many
OTHERS = {"side": 192, "epochs": 40, "batch_size": 8, "changes": "darknet"}
CHANGES = {
    "mirror": {"by": box_augmentation.augment, "jitter": 0.0},
    "darknet": {"by": box_augmentation.augment, "jitter": 0.2, "hue": 0.02, "saturation": 1.2, "exposure": 1.2},
    "paper": {"by": ssd_augmentation.augment},
}


def recipe(
    fast=False,
    data="simple_shapes",
    data_dir: str | None = None,
    download=False,
    side: int | None = None,
    trunk: tuple[int, ...] = (16, 32, 64, 64),
    fc_filters=64,
    extras: tuple[int, ...] = (64,),
    sizes: tuple[float, ...] | None = None,
    first_scale=5.0,
    negative_ratio=3.0,
    changes: Literal["mirror", "darknet", "paper"] | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate=1e-2,
):
    """SSD, small: COCO's average precision of held-out pictures; what was found beside the truth.

    trunk: widths of stages of one convolution each. extras: widths of further maps, each of half the sides.
    sizes: of the priors in pixels; by default quantiles of the data's, from .1 to 1.
    """
    given = dict(locals())
    defaults = SIMPLE if data == "simple_shapes" else OTHERS
    side, epochs, batch_size, changes = (given[key] or default for key, default in defaults.items())
    trunk, fc_filters, extras = ((4, 8, 16, 16), 16, (16,)) if fast else (trunk, fc_filters, extras)
    names = class_names(data, data_dir=data_dir)
    source = {"most": 200 if fast else None, "data_dir": data_dir, "download": download}
    sets = padded_splits(data, detection_training.letterboxed(side), **source)
    train, test = sets["train"], sets["test"]  # images, boxes, classes

    def batched(split, seed):
        images, boxes, classes = sets[split]
        pairs = images, {"boxes": boxes, "classes": classes}
        if split != "train":
            return batches(pairs, 50)
        return detection_training.changed(batches(pairs, batch_size, seed, True), seed, **CHANGES[changes])

    maps = 2 + len(extras)
    if sizes is None:
        found = (train[1][..., 2:] - train[1][..., :2])[train[2] >= 0].clip(0)  # [n, 2]
        sizes = np.quantile(np.sqrt(found.prod(-1)), np.linspace(0.1, 1, maps + 1))
    network = {"trunk": [(width,) for width in trunk], "fc_filters": fc_filters, "dilation": 2}
    network |= {"extras": [(width // 2, width, 2) for width in extras], "sizes": sizes, "ratios": ((2,),) * maps}
    network |= {"first_scale": first_scale, "batch_norm": True, "momentum": 0.9, "negative_ratio": negative_ratio}
    model = dmkeras.SSD((side, side, 3), len(names), **network)
    steps = epochs * (len(train[0]) // batch_size)
    falling = keras.optimizers.schedules.CosineDecay(
        0.0, steps, 0.01, warmup_target=learning_rate, warmup_steps=min(100, steps // 4)
    )
    return Recipe(
        "ssd",
        model,
        batched,
        compile={"optimizer": keras.optimizers.Adam(falling, global_clipnorm=10.0)},
        epochs=epochs,
        evaluate=lambda model: detection_report.figures(model, *test, names),
        pictures=lambda model: detection_report.sheets(model, *(array[:100] for array in test), names, figures),
        labels=list(names),
        description=f"{data}, {side}x{side} pixels",
    )


if __name__ == "__main__":
    run(recipe)
