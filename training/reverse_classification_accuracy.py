"""Predict how good segmentations are without their truth, and measure how good that prediction is where it is known.

python -m training.reverse_classification_accuracy                        phantoms; `--fast`: in seconds
python -m training.reverse_classification_accuracy --method forest        or registration
python -m training.reverse_classification_accuracy --data pairs:DIR       your own pictures with their truth
python -m training.reverse_classification_accuracy --data pairs:DIR --score pairs:NEW --table new.csv
                            NEW/images and NEW/masks without truth: a row each, the worst first, and pictures of these

References are of the split train, and so are the other pictures, which the small segmenter learns; the line is fitted
on the split validation, and all figures are of the split test. `--trial` chooses pictures, segmentations and first
weights. Each picture has three segmentations, see dmkeras/parts/quality_trials.py. Figures pool all pairs of a
segmentation and a class; those of `mean_` are of the mean over classes, `uncalibrated` before the line.
Correlation and mean absolute error, means of three trials (benchmarks/reverse_classification_accuracy.py): phantoms by
registration .996 and .023, forest .982 and .046, cnn .978 and .051; nuclei by forest .944 and .080, cnn .958 and .069.
"""

import functools
from typing import Literal

import dmkeras
from dmkeras import figures
from dmkeras.data import batches, class_names, load
from dmkeras.parts import quality_report, quality_trials
from dmkeras.recipe import Recipe, run

FRAME = ("phantoms",)  # data sets in whose pictures the same thing is at the same place

NEAREST = 4  # references that are asked, where they may be of many kinds; chosen on calibration pictures


def recipe(
    fast=False,
    data="phantoms",
    data_dir: str | None = None,
    method: Literal["cnn", "forest", "registration"] = "cnn",
    over: Literal["best", "mean"] = "best",
    nearest: int | None = None,
    soft=True,
    position: bool | None = None,
    side: int | None = None,
    num_references: int | None = None,
    calibration_pictures: int | None = None,
    test_pictures: int | None = None,
    steps: int | None = None,
    probability_calibration: Literal["sigmoid", "isotonic"] | None = None,
    score: str | None = None,
    table="scores.csv",
    trial=0,
):
    """Reverse classification accuracy: correlation of predicted and real Dice, and their mean absolute difference."""
    small = (32, 3, 3, 3, 10) if fast else (96, 10, 10, 16, 200) if data == "phantoms" else (128, 16, 20, 16, 200)
    given = (side, num_references, calibration_pictures, test_pictures, steps)
    side, num_references, calibration_pictures, test_pictures, steps = (g or s for g, s in zip(given, small))
    names = class_names(data, data_dir=data_dir)
    load_split = lambda split, source=data: quality_trials.pictures(
        load(source, split, data_dir=data_dir), side, None if source == score else 100
    )
    pictures = functools.cache(lambda split: quality_trials.shuffled(load_split(split), trial))
    shown, learnt = quality_trials.parted(pictures("train"), num_references)
    settings = {"method": method, "over": over, "steps": steps, "probability_calibration": probability_calibration}
    settings |= {"nearest": nearest or (None if data in FRAME else NEAREST), "soft": soft, "seed": trial}
    settings["position"] = data in FRAME if position is None else position
    model = dmkeras.ReverseClassificationAccuracy(shown["image"].shape[1:], len(names), num_references, **settings)
    model.set_references(shown["image"], shown["semantic"])

    @functools.cache
    def trials(split):
        known, _ = quality_trials.parted(pictures(split), test_pictures if split == "test" else calibration_pictures)
        stages = (2, 4) if fast else quality_trials.STAGES
        return quality_trials.measured(model, known, learnt, stages, (trial, len(split)))

    pairs = lambda split: tuple(trials(split)[key] for key in ("overlaps", "real", "groups"))

    @functools.cache
    def scored():
        new = load_split("all", score)
        answer = model.score(new["image"], new["semantic"])
        print(quality_report.write_table(table, new["name"], answer, names, shown.get("name")))
        return new, answer

    def evaluate(model):
        found = quality_report.figures_of(model, *pairs("test")[:2])
        return found | ({"scored": len(scored()[0]["image"])} if score else {})

    def sheets(model):
        found = quality_report.sheets(model, trials("test"), names, figures)
        return found | ({"worst": quality_report.worst(*scored(), figures)} if score else {})

    return Recipe(
        "reverse_classification_accuracy",
        model,
        lambda split, seed: batches(pairs("test" if split == "test" else "validation")[:2], 50),
        evaluate=evaluate,
        pictures=sheets,
        stages=[("calibration", lambda recipe, fit: model.calibrate(*pairs("validation")))],
        labels=names,
        description=f"{data}, {side}x{side} pixels, {method}",
    )


if __name__ == "__main__":
    run(recipe)
