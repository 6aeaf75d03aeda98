"""What a prediction of quality is worth: figures, scatter plot, the worst pictures, a table of new segmentations.

Columns of predicted and real values [N, 2 + K]: the mean over classes, the foreground, each class; a real value of -1
is none. `class` figures pool all pairs of a segmentation and a class, as the paper's do.
"""

import csv
import pathlib

import numpy as np

from dmkeras.parts.overlap_calibration import agreement


def figures_of(model, overlaps, real):
    """{name: figure} of a calibrated model: before and after its line, and how often its intervals hold the truth."""
    found = {}
    for name, predicted in predictions(model, overlaps).items():
        after = "" if name == "calibrated" else f"_{name}"
        for column, kind in ((slice(2, None), ""), (slice(0, 1), "mean_"), (slice(1, 2), "foreground_")):
            values = agreement(predicted[:, column], real[:, column])
            found |= {f"{kind}{key}{after}": value for key, value in values.items()}
    answer = model.score_overlaps(overlaps)
    ends = np.array(answer["class_interval"])  # [N, K, 2]
    told, truths = real[:, 2:] >= 0, real[:, 2:]
    inside = (ends[..., 0] <= truths + 1e-6) & (truths <= ends[..., 1] + 1e-6)
    found |= {"coverage": float(inside[told].mean()) if told.any() else 0.0}
    return found | {"interval_width": float((ends[..., 1] - ends[..., 0]).mean())}


def predictions(model, overlaps):
    """{"calibrated", "uncalibrated"}: predicted values [N, 2 + K] in [0, 1]."""
    return {"calibrated": np.clip(model(overlaps), 0, 1), "uncalibrated": np.array(model.uncalibrated(overlaps))}


def scatter(model, overlaps, real, names, figures, title=None):
    """Predicted over real Dice, a point for each segmentation and class; the diagonal is where both agree."""
    predicted = predictions(model, overlaps)["calibrated"][:, 2:]
    told = real[:, 2:] >= 0
    points = np.stack([real[:, 2:][told], predicted[told]], -1)
    figure = agreement(predicted, real[:, 2:])
    title = f"{title or ''} correlation {figure['correlation']:.3f}, mean absolute error {figure['mae']:.3f}".strip()
    diagonal = np.repeat(np.linspace(0, 1, 41)[:, None], 2, axis=1)
    labels = np.concatenate([np.nonzero(told)[1], np.full(len(diagonal), len(names))])
    texts = [*names, "predicted = real"]
    axes = {"x_label": "real Dice", "y_label": "predicted Dice"}
    return figures.scatter(np.concatenate([points, diagonal]), labels, names=texts, title=title, **axes)


def sheets(model, trial, names, figures):
    """{file stem: picture} of a calibrated model and a trial of `quality_trials.measured`."""
    dice = model.score_overlaps(trial["overlaps"])["dice"].numpy()
    texts = [f"{made}, real {real:.2f}" for made, real in zip(trial["made"], trial["real"][:, 0])]
    shown = {"image": trial["images"], "semantic": trial["maps"], "name": texts}
    return {
        "scatter": scatter(model, trial["overlaps"], trial["real"], names, figures),
        "worst_of_test": worst(shown, {"dice": dice}, figures),
    }


def worst(new, answer, figures, count=12):
    """Pictures {"image", "semantic", "name"} under their segmentations, the lowest predicted Dice first."""
    order = np.argsort(answer["dice"], kind="stable")[:count]
    side = max(new["image"].shape[1:3])
    tiles = [figures.masks(new["image"][i], new["semantic"][i], scale=max(1, round(256 / side))) for i in order]
    texts = [f"{answer['dice'][i]:.2f}  {str(new['name'][i])[-30:]}" for i in order]
    return figures.grid(tiles, min(4, len(tiles)), titles=texts, scale=1)


def write_table(path, names, answer, classes, references=None):
    """A CSV with a row for each segmentation, the worst first; FileExistsError for a file that is there.

    Args:
        path: of the file.
        names: of the N pictures.
        answer: what `score` gave.
        classes: K names.
        references: their names, for the column of the best one; None writes its index.
    """
    header = ["name", "dice", "dice_low", "dice_high", "iou", "foreground_dice", *(f"dice_{name}" for name in classes)]
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "x", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*header, "best_reference"])
        for i in np.argsort(answer["dice"], kind="stable"):
            values = [answer["dice"][i], *answer["dice_interval"][i], answer["iou"][i], answer["foreground_dice"][i]]
            values = [f"{value:.4f}" for value in (*values, *answer["class_dice"][i])]
            best = int(answer["reference"][i])
            writer.writerow([names[i], *values, best if references is None else references[best]])
    return path
