"""Train a deep convolutional GAN and measure its pictures against the test split.

python -m training.dcgan                              digits, grey; `--fast`: in seconds
python -m training.dcgan --labelled                   G and D are told the class, as in the authors' code for MNIST
python -m training.dcgan --data fashion_mnist         28 px; mnist likewise
python -m training.dcgan --data cifar10_excerpt:DIR   32 px in colour
"""

import functools
from typing import Literal

import keras

import dmkeras
from dmkeras import figures
from dmkeras.backbones import small_cnn
from dmkeras.data import binarization as binary
from dmkeras.parts import sample_report
from dmkeras.recipe import Recipe, run

DEFAULTS = {  # latent_size, filters, epochs, batch_size, learning_rate
    "digits": (20, 64, 100, 64, 2e-4),
    "mnist": (100, 64, 25, 128, 2e-4),
}


def recipe(
    fast=False,
    data="digits",
    data_dir: str | None = None,
    download=False,
    labelled=False,
    objective: Literal["non_saturating", "minimax"] = "non_saturating",
    latent_size: int | None = None,
    filters: int | None = None,
    l2=1e-5,
    average=0.0,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
):
    """Deep convolutional GAN: Adam for both players; measures by a classifier's features, and D's features."""
    small = (None, 8, 4, None, None) if fast else (None,) * 5
    given = (latent_size, filters, epochs, batch_size, learning_rate)
    defaults = DEFAULTS.get(data, DEFAULTS["mnist"])
    settings = [next(x for x in options if x is not None) for options in zip(given, small, defaults)]
    latent_size, filters, epochs, batch_size, learning_rate = settings
    source = {"data_dir": data_dir, "download": download}
    images, batched = binary.splits(data, "none", batch_size, drop_remainder=True, labelled=labelled, **source)
    train_labels = functools.cache(lambda: binary.labels(data, "train", "none", **source))
    classes = int(train_labels().max()) + 1 if labelled else 0
    model = dmkeras.DCGAN(images["train"].shape[1:], latent_size, filters, l2, objective, average, classes)
    adam = lambda: keras.optimizers.Adam(learning_rate, beta_1=0.5)

    def evaluate(model):
        referee = small_cnn.trained(images["train"], train_labels(), **({"epochs": 2} if fast else {}))
        return sample_report.figures(model, referee, images)

    return Recipe(
        "dcgan",
        model,
        batched,
        compile={"d_optimizer": adam(), "g_optimizer": adam(), "steps_per_execution": 10},
        epochs=epochs,
        improves=None,
        evaluate=evaluate,
        pictures=lambda model: sample_report.sheets(model, images["train"], figures.grid, figures.labelled_rows),
        pictures_every=1,
        description=f"{data}, {'x'.join(map(str, model.image_shape))}, {'with' if labelled else 'no'} labels",
    )


if __name__ == "__main__":
    run(recipe)
