"""The test log-likelihood of a trained VAE by importance sampling, beside published figures, and its learning curve.

    python -m training.vae --data mnist
    python -m benchmarks.vae_likelihood runs/vae/0001/model.keras
    python -m benchmarks.vae_likelihood runs/vae/0001/model.keras --log runs/vae/0001/log.csv --picture curve.png

Nats per picture of mnist_binarized's test split (one fixed draw), with the standard error over pictures. The bound of K
samples falls with K; 200 is pythae's protocol, 5000 that of Burda et al. Memory is bounded by --batch-size alone.
"""

import argparse
import os
import time

import numpy as np

PUBLISHED = (
    ("pythae's VAE, 400 ReLU units, Larochelle's fixed draw, K = 200", 89.78),
    ("Burda et al. 2016, 200-200-50, binarized anew each epoch, K = 5000", 86.76),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the model.keras of a run")
    parser.add_argument("--samples", type=int, nargs="+", default=[200, 5000])
    parser.add_argument("--pictures", type=int, default=10_000, help="of the test split, from its beginning")
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--data-dir")
    parser.add_argument("--log", help="the run's log.csv")
    parser.add_argument("--picture", help="a PNG to draw the log into")
    arguments = parser.parse_args()
    if bool(arguments.log) != bool(arguments.picture):
        parser.error("--log and --picture belong together")
    if arguments.picture and os.path.exists(arguments.picture):
        parser.error(f"{arguments.picture} exists and is not overwritten")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    measure(arguments)
    if arguments.log:
        from dmkeras import figures

        print(figures.save(arguments.picture, learning_curve(arguments.log)))


def measure(arguments):
    import dmkeras
    from dmkeras.data import batches, load, to_arrays

    model = dmkeras.load(arguments.model)
    images = to_arrays(load("mnist_binarized", "test", data_dir=arguments.data_dir).take(arguments.pictures))["image"]
    print("| | nats per picture | standard error | minutes |\n| --- | --- | --- | --- |")
    for num_samples in arguments.samples:
        started = time.perf_counter()
        parts = enumerate(batches(images, arguments.batch_size))
        parts = [model.log_prob(x, num_samples, seed=i).numpy() for i, x in parts]
        log_prob, minutes = np.concatenate(parts), (time.perf_counter() - started) / 60
        error = log_prob.std(ddof=1) / len(log_prob) ** 0.5
        name = f"{arguments.model}, K = {num_samples}, {len(images)} pictures"
        print(f"| {name} | {-log_prob.mean():.3f} | {error:.3f} | {minutes:.1f} |", flush=True)
    for name, nats in PUBLISHED:
        print(f"| {name} | {nats} | | |")


def learning_curve(path):
    """Minus the bound over hours and over epochs, from the first validation on, as one picture uint8 [H, W, 3]."""
    from dmkeras import figures
    from dmkeras.resumable import read_csv

    rows = read_csv(path)
    first = next(index for index, row in enumerate(rows) if "val_loss" in row)
    rows = rows[first:]
    validated = [row for row in rows if "val_loss" in row]
    scales = {
        "hours of training": lambda row: row["seconds"] / 3600,
        "epochs": lambda row: row["epoch"],
    }
    hour = next((row["epoch"] for row in rows if row["seconds"] >= 3600), None)
    marks = {"hours of training": 1.0 if hour else None, "epochs": hour}
    values = [row[key] for row in rows for key in ("loss", "val_loss") if key in row]
    pictures = []
    for label, place in scales.items():
        series = {
            "training": ([place(row) for row in rows], [row["loss"] for row in rows]),
            "validation": ([place(row) for row in validated], [row["val_loss"] for row in validated]),
        }
        if marks[label] is not None:
            series["one hour"] = ([marks[label]] * 2, [min(values), max(values)])
        best = min(validated, key=lambda row: row["val_loss"])
        title = f"best validation bound {best['val_loss']:.2f} at epoch {best['epoch']}, {best['seconds'] / 3600:.2f} h"
        pictures.append(figures.curves(series, title=title, x_label=label, y_label="-ELBO [nats per picture]"))
    height = max(len(picture) for picture in pictures)
    padded = [np.pad(p, ((0, height - len(p)), (0, 0), (0, 0)), constant_values=255) for p in pictures]
    return np.concatenate(padded, axis=1)


if __name__ == "__main__":
    main()
