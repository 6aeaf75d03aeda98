"""Train an autoencoder on pictures without labels, throw the decoder away, classify from the code.

python -m training.autoencoder                  digits (--fast: in seconds)
python -m training.autoencoder --data mnist     MNIST, prepared by TFDS

Test accuracy   digits, 100 labels   digits, 1297 labels   MNIST, 100 labels   MNIST, 50,000 labels
code            .928 .916 .922       .970 .980 .980        .803                .921
PCA, as many    .890                 .973                  .759                .900
pixels          .893                 .977                  .754                .926
untrained       .735 .697 .738       .860 .817 .830        .492                .663
With 100 labels the mean of 20 draws (standard errors .003 to .007); the protocol stands in `linear_probe`. Digits:
split 1297/200/300, seeds 0 1 2, 47 s; MNIST: 50,000/10,000/10,000, seed 0, 13 minutes on cores shared with other
work; 2 x86-64 cores, no GPU. Sizes, noise and epochs were chosen by accuracy on the digits' validation split.
"""

import keras
import numpy as np
from sklearn.decomposition import PCA

import dmkeras
from dmkeras import figures
from dmkeras.data import batches, load, to_arrays
from dmkeras.generative.autoencoder import linear_probe
from dmkeras.recipe import Recipe, run

SPLITS = {"train": "train[:-10000]", "validation": "train[-10000:]", "test": "test"}  # of a TFDS set


def recipe(
    fast=False,
    data="digits",
    data_dir: str | None = None,
    download=False,
    latent_size=32,
    hidden_size: tuple[int, ...] = (500, 250),
    noise=0.4,
    epochs: int | None = None,
    batch_size=100,
):
    """A denoising autoencoder; a linear classifier on its code beside pixels, PCA and an untrained encoder."""
    epochs = epochs or (10 if fast else 400 if data == "digits" else 20)
    names = {split: split if data == "digits" else SPLITS[split] for split in SPLITS}
    sets = {split: to_arrays(load(data, names[split], data_dir=data_dir, download=download)) for split in SPLITS}
    images, labels = ({split: arrays[key] for split, arrays in sets.items()} for key in ("image", "label"))
    shape, total, found = images["train"].shape[1:], len(labels["train"]), {}
    make = lambda: dmkeras.Autoencoder(shape, latent_size, hidden_size, noise=noise, code_activation="relu")
    model, untrained = make(), make()
    batched = lambda split, seed: batches(images[split], batch_size, seed if split == "train" else None)

    def evaluate(model):
        numbers = [100] if fast else [n for n in (20, 50, 100, 300, 1000, 10_000) if n < total] + [total]
        for kind, features in _features(model, untrained, images).items():
            found[kind] = linear_probe(features, labels, numbers, num_draws=3 if fast else 20)
        result = {"loss": model.evaluate(batched("test", 0), verbose=0)}
        for kind, columns in found.items():
            cells = (f"{number} labels {mean:.4f} +- {error:.4f}" for number, mean, error in zip(*columns))
            print(f"test accuracy from {kind:>9}", *cells, sep="   ")
            for number, mean, error in zip(*columns):
                result |= {f"accuracy_{kind}_{number}": mean, f"accuracy_{kind}_{number}_standard_error": error}
        return result

    return Recipe(
        "autoencoder",
        model,
        batched,
        compile={"optimizer": keras.optimizers.Adam(1e-3), "steps_per_execution": 20},
        epochs=epochs,
        evaluate=evaluate,
        pictures=lambda model: _pictures(model, images["test"][:1000], labels["test"][:1000], found),
        description=f"{data}, noise {noise}, linear probe of {latent_size} features",
    )


def _features(model, untrained, images):
    """{kind: {split: features [N, F]}}, made without labels."""
    flat = lambda x: np.reshape(x, (len(x), -1))
    pixels = flat(images["train"])
    pca = PCA(min(model.latent_size, pixels.shape[1]), svd_solver="covariance_eigh").fit(pixels)
    functions = flat, lambda x: pca.transform(flat(x)), untrained.encode, model.encode
    maps = dict(zip(("pixels", "pca", "untrained", "code"), functions))
    in_parts = lambda kind, x: np.concatenate([maps[kind](part) for part in np.array_split(x, len(x) // 1000 + 1)])
    return {kind: {split: in_parts(kind, x) for split, x in images.items()} for kind in maps}


def _pictures(model, images, labels, found):
    rows = {"data": images[:10], "reconstruction": model.reconstruct(images[:10])}
    codes = PCA(2).fit_transform(np.pad(model.encode(images), [(0, 0), (0, 1)]))  # padded: a code may be one number
    pictures = {
        "reconstructions": figures.labelled_rows(rows, title="test pictures, rebuilt from their codes"),
        "codes": figures.scatter(codes, labels, title="codes of test pictures: first two principal components"),
    }
    if found:  # what `evaluate` measured at the end of the run
        axes = {"log_x": True, "x_label": "labelled pictures", "y_label": "test accuracy"}
        pictures["accuracy"] = figures.curves(found, title="linear classifier (band: standard error)", **axes)
    return pictures


if __name__ == "__main__":
    run(recipe)
