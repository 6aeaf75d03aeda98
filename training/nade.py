"""Train a neural autoregressive distribution estimator; log p(x) is exact.

python -m training.nade                               digits, binarized at >= 8 of 16
python -m training.nade --fast                        the same in seconds
python -m training.nade --data mnist                  MNIST, 500 units, one fixed binary draw
python -m training.nade --data mnist --side 14        the same at 14x14
"""

import functools
from typing import Literal

import keras

import dmkeras
from dmkeras import figures
from dmkeras.data import batches
from dmkeras.data import binarization as binary
from dmkeras.parts import density_report
from dmkeras.recipe import Recipe, run

DEFAULTS = {  # binarization, hidden_size, epochs, batch_size, learning_rate, weight_decay
    "digits": ("threshold", 500, 100, 32, 3e-3, 0.0),
    "mnist": ("fixed", 500, 120, 100, 3e-3, 0.0),
}


def recipe(
    fast=False,
    data="digits",
    data_dir: str | None = None,
    download=False,
    side: int | None = None,
    binarization: Literal["fixed", "dynamic", "threshold"] | None = None,
    ordering="raster",
    hidden_size: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    weight_decay: float | None = None,
):
    """NADE: exact nats on the test split, samples, completions of half pictures."""
    given = (binarization, hidden_size, epochs or (10 if fast else None), batch_size, learning_rate, weight_decay)
    defaults = DEFAULTS.get(data) or ("dynamic", *DEFAULTS["mnist"][1:])
    settings = [default if value is None else value for value, default in zip(given, defaults)]
    binarization, hidden_size, epochs, batch_size, learning_rate, weight_decay = settings
    read = functools.partial(
        binary.images, data, protocol=binarization, data_dir=data_dir, download=download, side=side
    )
    images = {split: read(split) for split in ("train", "validation", "test")}

    def batched(split, seed):
        dataset = batches(images[split], batch_size, seed if split == "train" else None)
        return binary.draw(dataset, seed) if binarization == "dynamic" else dataset

    model = dmkeras.NADE(images["train"].shape[1:], hidden_size, ordering)
    model.adapt(next(iter(batched("train", 0).unbatch().batch(10**6))))
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, epochs * len(batched("train", 0)), alpha=0.01)
    optimizer = keras.optimizers.Adam(rate, weight_decay=weight_decay or None)
    optimizer.exclude_from_weight_decay(var_names=["bias"])

    def pictures(model):
        rows = density_report.rows(model, next(iter(batched("test", 0).unbatch().batch(10))))
        return {name: figures.labelled_rows(row, title=f"NADE, {name}") for name, row in rows.items()}

    return Recipe(
        "nade",
        model,
        batched,
        compile={"optimizer": optimizer, "steps_per_execution": 20},
        epochs=epochs,
        improves="nll",
        evaluate=lambda model: density_report.figures(model, batched("test", 0)),
        pictures=pictures,
        description=f"{data}, {binarization} binarization, {ordering} ordering",
    )


if __name__ == "__main__":
    run(recipe)
