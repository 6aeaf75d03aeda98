"""Train a variational autoencoder and measure log p(x) by importance sampling.

python -m training.vae                                                digits, binarized at >= 8 of 16
python -m training.vae --fast                                         the same in seconds
python -m training.vae --data mnist                                   MNIST, 200-200-50 tanh, one fixed binary draw
python -m training.vae --data mnist --binarization dynamic --epochs 1800 --weight-decay 0

Test nats per picture (standard error over pictures), seed 0, K importance samples, -ELBO beside; 2 shared x86-64 cores.
digits     split 1297/200/300, K = 1000, 25 s                    16.79 (.22)   17.98   independent pixels 25.20
MNIST      mnist_binarized, K = 200, one hour, epoch 1215        88.83 (.24)   93.46   pythae 89.78, Larochelle's draw
           the same at the end, 1600 epochs, 78 minutes          88.38 (.24)   92.55   K = 5000: 87.79
dynamic    tested on mnist_binarized, K = 200, 93 minutes        86.65 (.23)   89.98   Burda et al. 86.76, K = 5000
"""

from typing import Literal

import keras
import tensorflow as tf

import dmkeras
from dmkeras import figures
from dmkeras.data import binarization as binary
from dmkeras.recipe import Recipe, run

DEFAULTS = {  # binarization, hidden_size, latent_size, epochs, batch_size, learning_rate, weight_decay, K of the test
    "digits": ("threshold", (200,), 20, 400, 64, 3e-3, 0.0, 1000),
    "mnist": ("fixed", (200, 200), 50, 1600, 100, 2e-3, 0.01, 200),
}


def recipe(
    fast=False,
    data="digits",
    data_dir: str | None = None,
    download=False,
    binarization: Literal["fixed", "dynamic", "threshold", "none"] | None = None,
    likelihood: Literal["bernoulli", "gaussian", "continuous_bernoulli"] = "bernoulli",
    estimator: Literal["analytic", "monte_carlo"] = "analytic",
    hidden_size: tuple[int, ...] | None = None,
    latent_size: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    weight_decay: float | None = None,
):
    """Auto-Encoding Variational Bayes: the bound in training, importance sampling on the test split."""
    epochs = epochs or (20 if fast else None)
    given = (binarization, hidden_size, latent_size, epochs, batch_size, learning_rate, weight_decay, None)
    defaults = DEFAULTS.get(data) or ("dynamic", *DEFAULTS["mnist"][1:])
    settings = [default if value is None else value for value, default in zip(given, defaults)]
    binarization, hidden_size, latent_size, epochs, batch_size, learning_rate, weight_decay, num_samples = settings
    images, batched = binary.splits(data, binarization, batch_size, data_dir=data_dir, download=download)
    model = dmkeras.VAE(images["train"].shape[1:], latent_size, tuple(hidden_size), likelihood, estimator)
    model.adapt(next(iter(batched("train", 0).unbatch().batch(10**6))))
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, epochs * len(batched("train", 0)), alpha=0.01)
    optimizer = keras.optimizers.Adam(rate, weight_decay=weight_decay or None)
    optimizer.exclude_from_weight_decay(var_names=["bias"])

    def evaluate(model):
        bounds = lambda i, x: (model.log_prob(x, num_samples, seed=i), model.elbo(x, num_samples=20, seed=i))
        found = [bounds(i, x) for i, x in enumerate(batched("test", 0))]
        log_prob, elbo = (tf.concat(part, axis=0) for part in zip(*found))
        error = tf.math.reduce_std(log_prob) / len(log_prob) ** 0.5
        return {"nll": -tf.reduce_mean(log_prob), "nll_standard_error": error, "elbo": tf.reduce_mean(elbo)}

    return Recipe(
        "vae",
        model,
        batched,
        compile={"optimizer": optimizer, "steps_per_execution": 20},
        epochs=epochs,
        validation_freq=1 if data == "digits" else 5,
        evaluate=evaluate,
        pictures=lambda model: _pictures(model, next(iter(batched("test", 0).unbatch().batch(10)))),
        description=f"{data}, {binarization} binarization, {num_samples} importance samples a test picture",
    )


def _pictures(model, images):
    rows = {"data": images, "reconstruction": model.reconstruct(images), "sample": model.sample(len(images), seed=0)}
    rows["mean of sample"] = model.sample(len(images), seed=0, means=True)
    pictures = {"rows": figures.labelled_rows(rows, title="reconstructions and samples of the prior")}
    between = model.interpolate(images[:5], images[5:], steps=10)
    pictures["interpolation"] = figures.grid([x for row in between for x in row], 10, title="between two codes")
    if model.latent_size == 2:
        codes = [x for row in model.manifold(20) for x in row]
        pictures["manifold"] = figures.grid(codes, 20, title="2-D manifold", gap=0)
    return pictures


if __name__ == "__main__":
    run(recipe)
