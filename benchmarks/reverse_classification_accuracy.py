"""Predicted and real Dice over several trials: every reverse classifier, before and after calibration.

    python -m benchmarks.reverse_classification_accuracy --data phantoms --out rca.jsonl
    python -m benchmarks.reverse_classification_accuracy --data pairs:DIR --methods cnn forest --out rca.jsonl
    python -m benchmarks.reverse_classification_accuracy --report --out rca.jsonl --picture scatter.png
    python -m benchmarks.reverse_classification_accuracy --tabular

Each trial is one of training/reverse_classification_accuracy.py (`--trial`): its own references, calibration and test
pictures, disjoint, its own segmenter and segmentations. A line of `--out` is one method in one trial, with all pairs;
`forest+sigmoid` and `forest+isotonic` calibrate the forest's probabilities. Seconds are those of scoring the
segmentations of calibration and test, by number of segmentations.

`--report` prints the table and ends with an error where a method misses correlation .85 or mean absolute error .10 in
the mean over trials. Figures pool all pairs of a segmentation and a class. `references` is the share of real overlaps
within `interval_over_references`, which is not made to hold them; `coverage` that of `class_interval`, which is.

`--tabular`: reverse accuracy beside the real one on scikit-learn's digits. New rows are turned, moved, blurred or
noisy, 4 ways in 5 strengths, for 3 kinds of classifiers; correlation and mean absolute error over these 60, for
classifier and reverse classifier with or without calibrated probabilities (sigmoid).
"""

import argparse
import json
import pathlib
import sys
import time

import numpy as np

CORRELATION, ERROR = 0.85, 0.10


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="phantoms")
    parser.add_argument("--methods", nargs="+", default=["registration", "forest", "forest+sigmoid", "cnn"])
    parser.add_argument("--trials", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", default="reverse_classification_accuracy.jsonl")
    parser.add_argument("--report", action="store_true", help="print the table of --out, and draw --picture")
    parser.add_argument("--picture", help="a PNG for the scatter plots")
    parser.add_argument("--tabular", action="store_true")
    arguments = parser.parse_args()
    if arguments.tabular:
        tabular()
    elif arguments.report:
        report([json.loads(line) for line in pathlib.Path(arguments.out).read_text().splitlines()], arguments.picture)
    else:
        for trial in arguments.trials:
            for method in arguments.methods:
                row = measure(arguments.data, method, trial)
                with open(arguments.out, "a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                print({key: value for key, value in row.items() if not isinstance(value, list)}, flush=True)


def measure(data, method, trial):
    """One method in one trial: figures, and all pairs after calibration."""
    import keras

    from dmkeras.parts import quality_report
    from training.reverse_classification_accuracy import recipe

    keras.utils.set_random_seed(trial)
    kind, _, probabilities = method.partition("+")
    made = recipe(data=data, method=kind, probability_calibration=probabilities or None, trial=trial)
    model, scored, overlaps = made.model, [], made.model.overlaps

    def timed(images, maps):
        start = time.perf_counter()
        found = overlaps(images, maps)
        scored.append((time.perf_counter() - start, len(maps)))
        return found

    model.overlaps = timed
    made.stages[0][1](made, None)
    figures = {f"best_{key}": value for key, value in made.evaluate(model).items()}
    (found, real), *rest = made.data("test", 0).as_numpy_iterator()
    found, real = (np.concatenate([first, *more]) for first, *more in zip((found, real), *rest))
    predicted = quality_report.predictions(model, found)["calibrated"][:, 2:]
    ends = model.interval_over_references(found)[:, 2:]
    told = real[:, 2:] >= 0
    inside = (ends[..., 0] <= real[:, 2:]) & (real[:, 2:] <= ends[..., 1])
    figures["references"] = float(inside[told].mean())
    (first, second), *_ = made.data("validation", 0).unbatch().batch(10**6).as_numpy_iterator()
    known = {"overlaps": first, "columns": second}
    model.over = "mean"
    made.stages[0][1](made, None)
    figures |= {f"mean_{key}": value for key, value in quality_report.figures_of(model, found, real).items()}
    seconds = sum(time for time, _ in scored) / sum(count for _, count in scored)
    pairs = {"predicted": predicted[told].round(4).tolist(), "real": real[:, 2:][told].round(4).tolist()}
    pairs |= {"overlaps": found.round(4).tolist(), "columns": real.round(4).tolist()}
    for part in ("overlaps", "columns"):
        pairs[f"calibration_{part}"] = known[part].round(4).tolist()
    name = "pairs" if data.startswith("pairs:") else data
    return {"data": name, "method": method, "trial": trial, "seconds": seconds} | figures | pairs


COLUMNS = {
    "correlation": "best_correlation",
    "error": "best_mae",
    "correlation, uncalibrated": "best_correlation_uncalibrated",
    "error, uncalibrated": "best_mae_uncalibrated",
    "correlation of the mean over references": "mean_correlation",
    "its error": "mean_mae",
    "coverage": "best_coverage",
    "width": "best_interval_width",
    "references": "references",
    "s": "seconds",
}


def report(rows, picture):
    print(f"| data | method | trials | {' | '.join(COLUMNS)} |")
    print(f"| --- | --- | --- | {' | '.join('---' for _ in COLUMNS)} |")
    groups, missed = {}, []
    for row in rows:
        groups.setdefault((row["data"], row["method"]), []).append(row)
    for (data, method), trials in groups.items():
        values = {name: [row[key] for row in trials] for name, key in COLUMNS.items()}
        cells = [f"{np.mean(v):.3f} ({min(v):.3f} to {max(v):.3f})" for v in values.values()]
        print(f"| {data} | {method} | {len(trials)} | {' | '.join(cells)} |")
        if np.mean(values["correlation"]) < CORRELATION or np.mean(values["error"]) > ERROR:
            missed.append(f"{data}, {method}")
    if picture:
        draw(groups, picture)
    if missed:
        sys.exit(f"correlation below {CORRELATION} or error above {ERROR}: {'; '.join(missed)}")


def draw(groups, path):
    """A scatter plot for each data set and method without calibrated probabilities, a colour for each trial."""
    from dmkeras import figures

    plots = []
    for (data, method), trials in groups.items():
        if "+" in method:
            continue
        points = [np.stack([row["real"], row["predicted"]], -1) for row in trials]
        labels = np.concatenate([np.full(len(part), i) for i, part in enumerate(points)])
        line = np.repeat(np.linspace(0, 1, 41)[:, None], 2, axis=1)
        labels = np.concatenate([labels, np.full(len(line), len(points))])
        names = [*(f"trial {row['trial']}" for row in trials), "equal"]
        mean = [np.mean([row[f"best_{key}"] for row in trials]) for key in ("correlation", "mae")]
        title = f"{'nuclei' if data == 'pairs' else data}, {method}: correlation {mean[0]:.3f}, error {mean[1]:.3f}"
        axes = {"x_label": "real Dice", "y_label": "predicted Dice"}
        plots.append(figures.scatter(np.concatenate([*points, line]), labels, names=names, title=title, **axes))
    figures.save(path, figures.grid(plots, min(3, len(plots)), scale=1))


def tabular():
    from scipy import ndimage
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB

    from dmkeras.data import load, to_arrays
    from dmkeras.parts.overlap_calibration import agreement
    from dmkeras.segmentation.reverse_classification_accuracy import reverse_accuracy

    rng = np.random.default_rng(0)
    ways = {
        "turned": lambda images, s: ndimage.rotate(images, 50 * s, (1, 2), reshape=False, order=1),
        "moved": lambda images, s: ndimage.shift(images, (0, 2.5 * s, 0), order=1),
        "blurred": lambda images, s: ndimage.gaussian_filter(images, (0, 2 * s, 2 * s)),
        "noisy": lambda images, s: images + s * rng.normal(size=images.shape),
    }
    kinds = [
        GaussianNB(var_smoothing=1e-2),
        LogisticRegression(max_iter=300),
        RandomForestClassifier(50, random_state=0),
    ]
    old, new = (to_arrays(load("digits", split)) for split in ("train", "test"))
    flat = lambda images: images.reshape(len(images), -1)
    pick = rng.permutation(len(old["label"]))[: len(new["label"])]  # as many old rows as new ones
    old_x, old_y = flat(old["image"][pick]), old["label"][pick]
    table = {}
    for way in ways.values():
        for strength in (0.0, 0.25, 0.5, 0.75, 1.0):
            new_x = flat(way(new["image"][..., 0], strength))
            for kind in kinds:
                calibrated = CalibratedClassifierCV(kind, method="sigmoid", cv=3)
                for names, pair in {
                    ("plain", "plain"): (kind, kind),
                    ("calibrated", "plain"): (calibrated, kind),
                    ("plain", "calibrated"): (kind, calibrated),
                    ("calibrated", "calibrated"): (calibrated, calibrated),
                }.items():
                    try:
                        found, labels = reverse_accuracy(pair[0], old_x, old_y, new_x, pair[1])
                    except ValueError:  # a label of fewer rows than folds cannot be calibrated
                        found, labels = reverse_accuracy(pair[0], old_x, old_y, new_x, kind)
                    table.setdefault(names, []).append((found, np.mean(labels == new["label"])))
    print("| classifier | reverse classifier | correlation | mean absolute error | mean accuracy |")
    print("| --- | --- | --- | --- | --- |")
    for names, pairs in table.items():
        found = agreement(*np.transpose(pairs))
        accuracy = np.mean(pairs, 0)[1]
        print(f"| {' | '.join(names)} | {found['correlation']:.3f} | {found['mae']:.3f} | {accuracy:.3f} |")


if __name__ == "__main__":
    main()
