"""Train PixelCNN and measure the exact log p(x) of test pictures.

python -m training.pixel_cnn                                        digits, binarized at >= 8 of 16
python -m training.pixel_cnn --fast                                 the same in seconds
python -m training.pixel_cnn --data mnist                           MNIST, one fixed binary draw
python -m training.pixel_cnn --data mnist --side 14                 the same at 14x14, mean-pooled before the draw
python -m training.pixel_cnn --data fashion_mnist                   256 grey levels
python -m training.pixel_cnn --data cifar10_excerpt:DIR             256 levels of three colours
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
    "mnist": ("fixed", 32, 7, 32, 40, 64, 2e-3),
    "fashion_mnist": ("none", 32, 7, 64, 10, 32, 2e-3),
    "cifar10_excerpt": ("none", 48, 7, 96, 60, 16, 1e-3),
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
