"""Train a neural autoregressive distribution estimator; log p(x) is exact.

python -m training.nade                               digits, binarized at >= 8 of 16
python -m training.nade --fast                        the same in seconds
python -m training.nade --compare orders              digits in five orders; `classes`: one density a class, by Bayes
python -m training.nade --data mnist                  MNIST, 500 units, one fixed binary draw
python -m training.nade --data mnist --side 14        the same at 14x14, mean-pooled before the draw
"""

import functools
from typing import Literal

import keras

import dmkeras
from dmkeras import figures
from dmkeras.data import batches, load, to_arrays
from dmkeras.data import binarization as binary
from dmkeras.parts import density_comparisons, density_report
from dmkeras.recipe import Recipe, run

DEFAULTS = {  # binarization, hidden_size, epochs, batch_size, learning_rate, weight_decay
    "digits": ("threshold", 500, 100, 64, 5e-3, 0.05),
    "mnist": ("fixed", 500, 60, 100, 3e-3, 0.05),
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
    compare: Literal["orders", "classes"] | None = None,
):
    """NADE: exact nats on the test split, samples, completions of half pictures; comparisons of its kind."""
    given = (binarization, hidden_size, epochs or (10 if fast else None), batch_size, learning_rate, weight_decay)
    defaults = DEFAULTS.get(data) or ("dynamic", *DEFAULTS["mnist"][1:])
    settings = [default if value is None else value for value, default in zip(given, defaults)]
    binarization, hidden_size, epochs, batch_size, learning_rate, weight_decay = settings
    if compare == "classes" and data != "digits" and binarization != "fixed":
        raise ValueError("--compare classes is for digits and for MNIST's fixed draw, whose labels it reads")
    source = {"data_dir": data_dir, "download": download}
    read = functools.partial(binary.images, data, protocol=binarization, side=side, **source)
    images = {split: read(split) for split in ("train", "validation", "test")}
    make = lambda ordering: dmkeras.NADE(images["train"].shape[1:], hidden_size, ordering)

    def batched(split, seed):
        dataset = batches(images[split], batch_size, seed if split == "train" else None)
        return binary.draw(dataset, seed) if binarization == "dynamic" else dataset

    def optimizer(train):
        rate = keras.optimizers.schedules.CosineDecay(learning_rate, epochs * -(-len(train) // batch_size), alpha=0.01)
        adam = keras.optimizers.Adam(rate, weight_decay=weight_decay or None)
        adam.exclude_from_weight_decay(var_names=["bias"])
        return adam

    def trained(ordering=ordering, images=images):
        return density_comparisons.fitted(make(ordering), images, optimizer(images["train"]), epochs, batch_size)

    def evaluate(model):
        found = density_report.figures(model, batched("test", 0))
        found |= density_comparisons.ladder(model, model.count_params(), images["train"], images["test"])
        if compare == "orders":
            found |= density_comparisons.orders(trained, images["test"])
        elif compare == "classes":
            name = "mnist_binarized" if binarization == "fixed" else data
            labels = {split: to_arrays(load(name, split, **source))["label"] for split in images}
            found |= density_comparisons.classes(lambda mine: trained(images=mine), images, labels)
        return found

    def pictures(model):
        rows = density_report.rows(model, next(iter(batched("test", 0).unbatch().batch(10))))
        return {name: figures.labelled_rows(row, title=f"NADE, {name}") for name, row in rows.items()}

    model = make(ordering)
    model.adapt(next(iter(batched("train", 0).unbatch().batch(10**6))))
    return Recipe(
        "nade",
        model,
        batched,
        compile={"optimizer": optimizer(images["train"]), "steps_per_execution": 20},
        epochs=epochs,
        improves="nll",
        evaluate=evaluate,
        pictures=pictures,
        description=f"{data}, {binarization} binarization, {ordering} ordering",
    )


if __name__ == "__main__":
    run(recipe)
