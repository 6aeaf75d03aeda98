"""Two questions of the notes, answered on digits: why an autoencoder does not generate, and what a larger code buys.

    python -m benchmarks.latent_space --out docs          some minutes on one core

The VAE recipe (digits binarized, seed 0) with Z = 2, 5, 10, 20, 200, and an autoencoder of the same network (200 tanh
units, linear code, cross-entropy, Adam, best epoch by validation) with Z = 2 and 20. Codes are drawn and decoded: from
the prior for the VAEs, from a Gaussian fitted to the training codes for the autoencoders, which have no prior.

How much a decoded code looks like a digit is said by the pixels (of 64, after thresholding) in which it differs from
the nearest training picture, on average over 1000 codes; held-out test pictures give the number to compare with.
"""

import argparse
import pathlib
import tempfile

import keras
import numpy as np

import dmkeras
from dmkeras import figures
from dmkeras.data import batches, load, to_arrays
from dmkeras.recipe import Recipe, run
from dmkeras.resumable import Training
from training import vae

SIZES = (2, 5, 10, 20, 200)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="docs", help="folder of latent_space_digits.png")
    parser.add_argument("--epochs", type=int, default=400)
    arguments = parser.parse_args()
    splits = ("train", "validation", "test")
    images = {split: (to_arrays(load("digits", split))["image"] >= 0.5).astype("float32") for split in splits}
    rows, table = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            flags = ["--latent-size", str(size), "--epochs", str(arguments.epochs), "--no-export", "--out"]
            found = run(vae.recipe, [*flags, f"{folder}/{size}"])["figures"]
            model = dmkeras.load(f"{folder}/{size}/runs/vae/0001/model.keras")
            rows[f"VAE Z={size}"] = model.sample(1000, seed=0, means=True).numpy()
            table.append((f"VAE Z={size}", f"{-found['elbo']:.2f}", f"{found['nll']:.2f}"))
        for size in (2, 20):
            keras.utils.set_random_seed(0)
            model = autoencoder(images, size, arguments.epochs, f"{folder}/autoencoder{size}")
            code = model.encode(images["train"]).numpy()
            normal = np.random.default_rng(0).multivariate_normal(code.mean(0), np.cov(code.T), 1000)
            rows[f"autoencoder Z={size}"] = model.decode(normal.astype("float32")).numpy()
            table.append((f"autoencoder Z={size}", "-", "-"))
    for (name, bound, nll), pictures in zip(table, rows.values(), strict=True):
        print(f"{name:18s}  -ELBO {bound:>6s}  nll {nll:>6s}  pixels to a digit {nearest(pictures, images):.2f}")
    print(f"{'test pictures':18s}{'':28s}  pixels to a digit {nearest(images['test'], images):.2f}")
    rows = {"data": images["test"], **rows}
    picture = figures.labelled_rows({name: part[:12] for name, part in rows.items()}, title="decoded random codes")
    figures.save(pathlib.Path(arguments.out, "latent_space_digits.png"), picture)


def autoencoder(images, latent_size, epochs, folder):
    """The VAE recipe's network and training, without the noise and the prior."""
    data = lambda split, seed: batches(images[split], 64, seed if split == "train" else None)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, epochs * int(data("train", 0).cardinality()), alpha=0.01)
    model = dmkeras.Autoencoder((8, 8, 1), latent_size, 200, activation="tanh")
    options = {"optimizer": keras.optimizers.Adam(rate), "steps_per_execution": 21}
    Training(Recipe("autoencoder", model, data, compile=options, epochs=epochs), folder).run_stages()
    return model


def nearest(pictures, images):
    """Mean distance in pixels from thresholded pictures [N, H, W, C] to the nearest training picture."""
    a, b = ((x.reshape(len(x), -1) >= 0.5).astype("float32") for x in (pictures, images["train"]))
    distance = a.sum(1)[:, None] + b.sum(1) - 2 * a @ b.T  # |a - b| of binary vectors
    return distance.min(axis=1).mean()


if __name__ == "__main__":
    main()
