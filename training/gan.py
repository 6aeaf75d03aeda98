"""Train the generative adversarial nets of 2014 and measure their pictures against the test split.

python -m training.gan                                digits, grey; `--fast`: in seconds
python -m training.gan --objective minimax            the objective that saturates where D is sure
python -m training.gan --data mnist                   the paper's sizes; fashion_mnist, cifar10_excerpt:DIR likewise
"""

from typing import Literal

import keras

import dmkeras
from dmkeras import figures
from dmkeras.backbones import small_cnn
from dmkeras.data import binarization as binary
from dmkeras.parts import sample_report
from dmkeras.recipe import Recipe, run

DEFAULTS = {  # latent_size, hidden_size, maxout_units, epochs, batch_size, learning_rate
    "digits": (20, 256, 64, 200, 64, 0.05),
    "mnist": (100, 1200, 240, 100, 100, 0.1),
    "cifar10_excerpt": (100, 1200, 240, 100, 100, 0.05),  # under 0.1 bfloat16 ends in numbers that are not finite
}


def recipe(
    fast=False,
    data="digits",
    data_dir: str | None = None,
    download=False,
    objective: Literal["non_saturating", "minimax"] = "non_saturating",
    latent_size: int | None = None,
    hidden_size: int | None = None,
    maxout_units: int | None = None,
    average=0.0,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
):
    """Adversarial nets: two players, stochastic gradient descent with momentum; measures by a classifier's features."""
    given = (latent_size, hidden_size, maxout_units, epochs or (4 if fast else None), batch_size, learning_rate)
    defaults = DEFAULTS.get(data.partition(":")[0], DEFAULTS["mnist"])
    settings = [default if value is None else value for value, default in zip(given, defaults)]
    latent_size, hidden_size, maxout_units, epochs, batch_size, learning_rate = settings
    source = {"data_dir": data_dir, "download": download}
    images, batched = binary.splits(data, "none", batch_size, drop_remainder=True, **source)
    sizes = {"latent_size": latent_size, "hidden_size": hidden_size, "maxout_units": maxout_units}
    model = dmkeras.GAN(images["train"].shape[1:], **sizes, objective=objective, average=average)

    def optimizer():
        rate = keras.optimizers.schedules.ExponentialDecay(learning_rate, epochs * len(batched("train", 0)), 0.1)
        return keras.optimizers.SGD(rate, momentum=0.5)

    def evaluate(model):
        labels = binary.labels(data, "train", "none", **source)
        referee = small_cnn.trained(images["train"], labels, **({"epochs": 2} if fast else {}))
        return sample_report.figures(model, referee, images)

    return Recipe(
        "gan",
        model,
        batched,
        compile={"d_optimizer": optimizer(), "g_optimizer": optimizer(), "steps_per_execution": 10},
        epochs=epochs,
        improves=None,
        evaluate=evaluate,
        pictures=lambda model: sample_report.sheets(model, images["train"], figures.grid, figures.labelled_rows),
        pictures_every=1,
        description=f"{data}, {'x'.join(map(str, model.image_shape))}, {objective} objective",
    )


if __name__ == "__main__":
    run(recipe)
