"""Train FCN-8s in the paper's three stages: coarse scores first, then the finer maps of two skips.

python -m training.fcn                                    phantoms: no download; `--fast`: in seconds
python -m training.fcn --data pairs:DIR                   your own pictures with masks

The trunk's stride is 16, since pictures are small: 32s, 16s and 8s have scores at 16, 8 and 4 pixels here;
`--convolutions 1 1 2 2 2 2` has the paper's strides. A stage trains some of the skips of one FCN-8s, the others being
zero, which is the coarser network but for the steps in which its scores are made large; `--at-once` trains all of them.
Seed 0, two x86-64 cores that five to eight other trainings shared, the epoch that validation chose:
                                             mean IoU, test   validation 32s, 16s, 8s    training
nuclei, 80 pictures of 256 px in training    .876             .787 .876 .891             527 s
phantoms, 400 of 96 px                       .951             .909 .939 .951             160 s, one thread, all told
"""

import keras
from keras.optimizers import schedules

import dmkeras
from dmkeras import figures
from dmkeras.data import batches, class_names, load
from dmkeras.parts import segmentation_loss, segmentation_report, segmentation_training
from dmkeras.recipe import Recipe, run

STAGES = {"32s": 0.5, "16s": 0.25, "8s": 0.25}  # parts of the epochs
DEFAULTS = {  # epochs, side of the crops, and changes of pictures in training
    "phantoms": (16, 96, {"mirror": False, "turns": False, "rotation": 0.1, "zoom": 1.1, "contrast": 1.1}),
    "pairs": (240, 128, {"rotation": 0.2, "zoom": 1.3, "gamma": 1.3, "contrast": 1.3}),
}
PHOTOS = 120, 224, {"turns": False, "rotation": 0.1, "zoom": 1.5, "gamma": 1.2, "contrast": 1.2}  # any other data
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
    long, crop, changes = DEFAULTS.get(data.partition(":")[0], PHOTOS)
    side, epochs = side or crop, epochs or (3 if fast else long)
    names = ["background", *class_names(data, data_dir=data_dir)]
    read = lambda split: load(data, split, data_dir=data_dir, download=download).take(40 if fast else -1)
    sets = {split: segmentation_training.arrays(read(split)) for split in ("train", "validation", "test")}

    def batched(split, seed):
        if split != "train":
            return batches(sets[split], 10)
        return segmentation_training.changed(batches(sets[split], batch_size, seed, True), seed, side=side, **changes)

    shape = sets["train"][0].shape[1:]
    backbone = dmkeras.Darknet19(shape, None, 8 if fast else filters, convolutions, momentum=MOMENTUM)
    weights = segmentation_loss.median_frequency_weights(sets["train"][1], len(names)) if balanced else None
    options = {"head_filters": head_filters, "learn_upsampling": learn_upsampling, "pool_scales": pool_scales}
    model = dmkeras.FCN(shape, len(names), backbone, "8s", class_weights=weights, **options)
    every = 5 if epochs >= 40 else 1  # epochs between two looks at the validation split

    def stage(skips, part):
        """Training of some of the skips; what the others add is zero."""
        rounds = max(every, every * round(part * epochs / every))
        steps = rounds * (len(sets["train"][0]) // batch_size)

        def train(recipe, fit):
            for i, layer in enumerate(model.skips):
                layer.trainable = i < skips
            falling = schedules.CosineDecay(0.0, steps, 0.01, "rate", learning_rate, min(50, steps // 4))
            fit(epochs=rounds, compile={"optimizer": keras.optimizers.Adam(falling, global_clipnorm=10.0)})

        return train

    staged = [(name, stage(i, part)) for i, (name, part) in enumerate(STAGES.items())]
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
        stages=[("at_once", stage(2, 1.0))] if at_once else staged,
        labels=names,
        description=f"{data}, {side}x{side} pixels",
    )


if __name__ == "__main__":
    run(recipe)
