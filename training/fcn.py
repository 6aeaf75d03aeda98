"""Train FCN-8s in the paper's three stages: coarse scores first, then the finer maps of two skips.

python -m training.fcn                                    phantoms: no download; `--fast`: in seconds
python -m training.fcn --data pairs:DIR                   your own pictures with masks
python -m training.fcn --data pairs:DIR --at-once         all skips from the start, as the authors' second scheme
"""

import keras

import dmkeras
from dmkeras import figures
from dmkeras.data import batches, class_names, load
from dmkeras.parts import segmentation_loss, segmentation_report, segmentation_training
from dmkeras.recipe import Recipe, run

STAGES = {"32s": 0.5, "16s": 0.25, "8s": 0.25}  # parts of the epochs
DEFAULTS = {"phantoms": {"epochs": 16, "side": 96}, "pairs": {"epochs": 240, "side": 128}}
PHOTOS = {"epochs": 120, "side": 224}  # of any other data
STILL = {"mirror": False, "turns": False}
CHANGES = {  # of pictures in training
    "phantoms": {**STILL, "rotation": 0.1, "zoom": 1.1, "contrast": 1.1},
    "pairs": {"rotation": 0.2, "zoom": 1.3, "gamma": 1.3, "contrast": 1.3},
}
OTHERS = {"turns": False, "rotation": 0.1, "zoom": 1.5, "gamma": 1.2, "contrast": 1.2}
MOMENTUM = 0.9  # of the moving statistics: trainings are short


def recipe(
    fast=False,
    data="phantoms",
    data_dir: str | None = None,
    download=False,
    side: int | None = None,
    filters=16,
    convolutions: tuple[int, ...] = (1, 1, 2, 2, 2),
    head_filters=0,
    learn_upsampling=False,
    balanced=False,
    at_once=False,
    pool_scales: tuple[float, ...] = (1.0, 1.0),
    epochs: int | None = None,
    batch_size=8,
    learning_rate=3e-3,
):
    """FCN-8s on a small trunk trained from scratch: mean IoU and its like; best and worst pictures."""
    kind = data.partition(":")[0]
    defaults = DEFAULTS.get(kind, PHOTOS)
    side, epochs = side or defaults["side"], epochs or (3 if fast else defaults["epochs"])
    names = ["background", *class_names(data, data_dir=data_dir)]
    sets = {}
    for split in ("train", "validation", "test"):
        records = load(data, split, data_dir=data_dir, download=download)
        sets[split] = segmentation_training.arrays(records.take(40) if fast else records)

    def batched(split, seed):
        if split != "train":
            return batches(sets[split], 10)
        pairs = batches(sets["train"], batch_size, seed, True)
        return segmentation_training.changed(pairs, seed, side=side, **CHANGES.get(kind, OTHERS))

    shape = sets["train"][0].shape[1:]
    backbone = dmkeras.Darknet19(shape, None, 8 if fast else filters, convolutions, momentum=MOMENTUM)
    weights = segmentation_loss.median_frequency_weights(sets["train"][1], len(names)) if balanced else None
    options = {"head_filters": head_filters, "learn_upsampling": learn_upsampling, "pool_scales": pool_scales}
    model = dmkeras.FCN(shape, len(names), backbone, "8s", class_weights=weights, **options)
    every = 5 if epochs >= 40 else 1  # epochs between two looks at the validation split

    def stage(skips, part):
        """Training of some of the skips; what the others add is zero, so that they are as good as not there."""
        rounds = max(every, every * round(part * epochs / every))
        steps = rounds * (len(sets["train"][0]) // batch_size)

        def train(recipe, fit):
            for i, layer in enumerate(model.skips):
                layer.trainable = i < skips
            warm = {"warmup_target": learning_rate, "warmup_steps": min(50, steps // 4)}
            falling = keras.optimizers.schedules.CosineDecay(0.0, steps, 0.01, **warm)
            fit(epochs=rounds, compile={"optimizer": keras.optimizers.Adam(falling, global_clipnorm=10.0)})

        return train

    return Recipe(
        "fcn",
        model,
        batched,
        epochs=epochs,
        improves="mean_iou",
        mode="max",
        validation_freq=every,
        evaluate=lambda model: segmentation_report.figures(model, *sets["test"], names),
        pictures=lambda model: segmentation_report.sheets(model, *sets["test"], names, figures),
        stages=[("at_once", stage(2, 1.0))]
        if at_once
        else [(name, stage(i, part)) for i, (name, part) in enumerate(STAGES.items())],
        labels=names,
        description=f"{data}, {side}x{side} pixels",
    )


if __name__ == "__main__":
    run(recipe)
