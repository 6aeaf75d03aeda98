"""Train PixelCNN and measure the exact log p(x) of test pictures.

python -m training.pixel_cnn                                        digits, binarized at >= 8 of 16
python -m training.pixel_cnn --fast                                 the same in seconds
python -m training.pixel_cnn --data mnist                           MNIST, one fixed binary draw
python -m training.pixel_cnn --data mnist --side 14                 the same at 14x14, mean-pooled before the draw
python -m training.pixel_cnn --data fashion_mnist                   256 grey levels
python -m training.pixel_cnn --data cifar10_excerpt:DIR             256 levels of three colours

Test figures (standard error over pictures), seed 0, the epoch that validation chose; a shared x86-64 core each, and
--precision mixed_bfloat16 for all but digits. Bits a dimension beside formats: benchmarks/compression.py.
digits             17.95 (.28) nats     27 s; independent pixels 25.20
MNIST              84.49 (.20) nats     13 epochs, 87 minutes; the paper 81.30 on Larochelle's draw
MNIST at 14x14     37.25 (.09) nats     7 blocks, 8 epochs, 8 minutes; NADE 36.29
Fashion-MNIST      2.959 (.009) bits    14 minutes; LZMA of all pictures 3.86, WebP of one sheet 4.04
CIFAR-10 excerpt   4.179 (.017) bits    3600 training pictures, 24 minutes; WebP of one sheet 4.35
"""

from typing import Literal

import keras

import dmkeras
from dmkeras import figures
from dmkeras.data import binarization as binary
from dmkeras.parts import density_report
from dmkeras.recipe import Recipe, run

DEFAULTS = {  # binarization, filters, num_blocks, head_filters, epochs, batch_size, learning_rate
    "digits": ("threshold", 16, 4, 32, 60, 32, 3e-3),
    "mnist": ("fixed", 32, 15, 32, 13, 16, 2e-3),
    "fashion_mnist": ("none", 32, 7, 64, 2, 16, 2e-3),
    "cifar10_excerpt": ("none", 48, 7, 96, 16, 4, 1.5e-3),
}


def recipe(
    fast=False,
    data="digits",
    data_dir: str | None = None,
    download=False,
    side: int | None = None,
    binarization: Literal["fixed", "dynamic", "threshold", "none"] | None = None,
    filters: int | None = None,
    num_blocks: int | None = None,
    head_filters: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
):
    """PixelCNN: binary pictures, or all levels of a colour (256, of digits 17) where nothing is binarized."""
    given = (binarization, filters, num_blocks, head_filters, epochs, batch_size, learning_rate)
    defaults = DEFAULTS.get(data.partition(":")[0], DEFAULTS["fashion_mnist"])
    if fast:
        defaults = (defaults[0], 8, 1, defaults[3], 2, *defaults[5:])
    settings = [default if value is None else value for value, default in zip(given, defaults)]
    binarization, filters, num_blocks, head_filters, epochs, batch_size, learning_rate = settings
    source = {"data_dir": data_dir, "download": download, "side": side}
    images, batched = binary.splits(data, binarization, batch_size, **source)
    levels = binary.levels(data, binarization)
    model = dmkeras.PixelCNN(images["train"].shape[1:], filters, num_blocks, levels, head_filters)
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, epochs * len(batched("train", 0)), alpha=0.01)

    ten = lambda: next(iter(batched("test", 0).unbatch().batch(10)))
    return Recipe(
        "pixel_cnn",
        model,
        batched,
        compile={"optimizer": keras.optimizers.Adam(rate), "steps_per_execution": 10},
        epochs=epochs,
        improves="nll",
        evaluate=lambda model: density_report.figures(model, batched("test", 0)),
        pictures=lambda model: density_report.sheets(model, ten(), "PixelCNN", figures.labelled_rows),
        description=f"{data}, {binarization} binarization, {'x'.join(map(str, model.image_shape))}",
    )


if __name__ == "__main__":
    run(recipe)
