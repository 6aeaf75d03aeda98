"""Train a fully visible sigmoid belief network; log p(x) is exact.

python -m training.fvsbn                               digits, binarized at >= 8 of 16; `--fast`: in seconds
python -m training.fvsbn --compare orders              digits in five orders; `classes`: one density a class, by Bayes
python -m training.fvsbn --data mnist                  MNIST, one fixed binary draw; `--side 14`: 2x2 means

Test nats per picture (standard error over pictures), seed 0, the epoch that validation chose; shared x86-64 cores.
digits     split 1297/200/300, epoch 33 of 40, 4 s      18.14 (.23)   Markov chain 24.15, independent pixels 25.20
           raster 18.16, column 18.11, spiral 18.16, random 18.15, 18.19; Bayes' rule .943 right (pixels .880)
MNIST      mnist_binarized, epoch 25, 112 s             97.46 (.23)   Markov chain 145.4; 97.45 with Larochelle's draw
           at 14x14, 25 s                               40.21 (.09)   Markov chain 48.01, independent pixels 52.03
"""

from typing import Literal

import keras

from dmkeras import FVSBN, figures
from dmkeras.data import binarization as binary
from dmkeras.parts import density_comparisons, density_report
from dmkeras.recipe import Recipe, run

DEFAULTS = {  # binarization, epochs, batch_size, learning_rate, l1
    "digits": ("threshold", 40, 32, 1e-2, 0.0),
    "mnist": ("fixed", 25, 100, 5e-3, 7e-5),
}


def recipe(
    fast=False,
    data="digits",
    data_dir: str | None = None,
    download=False,
    side: int | None = None,
    binarization: Literal["fixed", "dynamic", "threshold"] | None = None,
    ordering="raster",
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    l1: float | None = None,
    compare: Literal["orders", "classes"] | None = None,
):
    """FVSBN: exact nats on the test split, samples, completions of half pictures; comparisons of its kind."""
    given = (binarization, epochs or (10 if fast else None), batch_size, learning_rate, l1)
    defaults = DEFAULTS.get(data) or ("dynamic", *DEFAULTS["mnist"][1:])
    settings = [default if value is None else value for value, default in zip(given, defaults)]
    binarization, epochs, batch_size, learning_rate, l1 = settings
    density_comparisons.check_comparison(compare, binarization)
    source = {"data_dir": data_dir, "download": download, "side": side}
    images, batched = binary.splits(data, binarization, batch_size, **source)
    labels = {split: binary.labels(data, split, binarization, **source) for split in images if compare == "classes"}
    whole = lambda split: next(iter(batched(split, 0).unbatch().batch(10**6))).numpy()
    make = lambda ordering: FVSBN(images["train"].shape[1:], ordering, l1)

    def optimizer(train):
        steps = epochs * -(-len(train) // batch_size)
        return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(learning_rate, steps, alpha=0.01))

    def trained(ordering=ordering, images=images):
        return density_comparisons.fitted(make(ordering), images, optimizer(images["train"]), epochs, batch_size)

    def evaluate(model):
        found = density_report.figures(model, batched("test", 0))
        size = len(model.order)  # D biases, D (D - 1) / 2 weights above the diagonal
        found |= density_comparisons.ladder(model, size * (size + 1) // 2, images["train"], whole("test"))
        return found | density_comparisons.compared(compare, trained, images, labels, whole("test"))

    model = make(ordering)
    model.adapt(whole("train"))
    return Recipe(
        "fvsbn",
        model,
        batched,
        compile={"optimizer": optimizer(images["train"]), "steps_per_execution": 20},
        epochs=epochs,
        improves="nll",
        evaluate=evaluate,
        pictures=lambda model: density_report.sheets(model, whole("test")[:10], "FVSBN", figures.labelled_rows),
        description=f"{data}, {binarization} binarization, {ordering} ordering",
    )


if __name__ == "__main__":
    run(recipe)
