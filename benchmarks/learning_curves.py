"""Validation nats over time of several runs: how far each model was at each moment, and whether it still fell.

    python -m benchmarks.learning_curves benchmarks/logs/mnist/*.csv --picture docs/densities_mnist_curves.png

A file is a run's log.csv and is called by its stem; `benchmarks/logs` holds those of the runs that README quotes. The
clock is that of training, validation included, on the cores that the run had. Of each curve the picture shows what
lies within `--above` of the best value of all.
"""

import argparse
import pathlib

from dmkeras import figures
from dmkeras.resumable import read_csv


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", nargs="+", type=pathlib.Path, help="log.csv of runs, each under a name of its own")
    parser.add_argument("--metric", default="nll", help="validated figure, less is better")
    parser.add_argument("--above", type=float, default=20.0, help="nats above the best that are drawn")
    parser.add_argument("--picture", help="draw the curves into this PNG")
    arguments = parser.parse_args()
    curves = {path.stem.replace("_", " "): curve(path, arguments.metric) for path in arguments.logs}
    report(curves)
    if arguments.picture:
        print(figures.save(arguments.picture, picture(curves, arguments.above)))


def curve(path, metric):
    """[(epoch, minutes of training, validation figure)] of a log.csv."""
    rows = [row for row in read_csv(path) if f"val_{metric}" in row]
    if not rows:
        raise SystemExit(f"{path}: expected a column val_{metric}, found none")
    return [(row["epoch"], row["seconds"] / 60, row[f"val_{metric}"]) for row in rows]


def report(curves):
    """A row for each run: its figure after a quarter, half and three quarters of its time, and its best."""
    print("| run | epochs | minutes | at 1/4 | at 1/2 | at 3/4 of the time | best, at epoch |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, points in curves.items():
        last_epoch, end, _ = points[-1]
        best, epoch = min((value, epoch) for epoch, _, value in points)
        early = [
            min((abs(minutes - part * end), value) for _, minutes, value in points)[1] for part in (1 / 4, 1 / 2, 3 / 4)
        ]
        parts = " | ".join(f"{value:.2f}" for value in early)
        print(f"| {name} | {last_epoch} | {end:.0f} | {parts} | {best:.2f}, {epoch} |")


def picture(curves, above):
    """uint8 [H, W, 3], minutes of training to the right."""
    highest = above + min(value for points in curves.values() for *_, value in points)
    shown = {name: [point[1:] for point in points if point[2] <= highest] for name, points in curves.items()}
    series = {name: tuple(zip(*points)) for name, points in shown.items() if points}
    labels = {"x_label": "minutes of training", "y_label": "validation -log p(x) [nats per picture]"}
    return figures.curves(series, log_x=True, **labels)


if __name__ == "__main__":
    main()
