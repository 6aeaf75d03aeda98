"""PDJ and PCP of the stages of HumanPose over the runs of several seeds, or of the folds of a small set.

    python -m training.human_pose --seed 0              and again with other seeds, or with --fold 0 to --fold 4
    python -m benchmarks.human_pose runs/human_pose

Reads metrics.json of each run in the folder, which all are of one data set, and prints means and standard errors: over
the seeds, or over the folds, whose seeds are averaged before. A fold counts as much as another, and holds as many
frames.
"""

import argparse
import json
import pathlib

import numpy as np

FIGURES = ("pdj_05", "pdj_10", "pdj_20", "pdj_50", "mean_error", "pcp")


def table(runs):
    """[(stage, {figure: (mean, standard error)})] of metrics.json's contents."""
    folds = {}
    for run in runs:
        folds.setdefault(run["arguments"]["fold"], []).append(run["figures"])
    groups = [[figures] for figures in next(iter(folds.values()))] if len(folds) == 1 else list(folds.values())
    names = [name for name in FIGURES if name in runs[0]["figures"]]
    stages = [name.rpartition("_")[2] for name in runs[0]["figures"] if name.startswith("mean_error_stage_")]
    rows = []
    for stage in stages:
        values = {n: [np.mean([figures[f"{n}_stage_{stage}"] for figures in group]) for group in groups] for n in names}
        rows.append((stage, {name: (np.mean(v), _error(v)) for name, v in values.items()}))
    return rows


def _error(values):
    return np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, help="OUT/runs/human_pose")
    runs = [json.loads(path.read_text()) for path in sorted(parser.parse_args(argv).folder.glob("*/metrics.json"))]
    data = {run["arguments"]["data"] for run in runs}
    if len(data) != 1:
        raise SystemExit(f"expected runs of one data set, found {sorted(data)}")
    rows, folds = table(runs), sorted({run["arguments"]["fold"] for run in runs})
    seconds = np.mean([run["training_seconds"] for run in runs])
    seeds = sorted({run["arguments"]["seed"] for run in runs})
    print(f"{runs[0]['data']}; {len(runs)} runs, seeds {seeds}, folds {folds}, {seconds:.0f} s of training each")
    print(f"{'stage':>8}", *(f"{name:>14}" for name in rows[0][1]))
    for stage, figures in rows:
        print(f"{stage:>8}", *(f"{f'{mean:.3f} +- {error:.3f}':>14}" for mean, error in figures.values()))


if __name__ == "__main__":
    main()
