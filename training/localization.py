"""Train a network that tells the class and the box of a picture's one object.

python -m training.localization                           simple_shapes, one object, 96 px (--fast: in seconds)
python -m training.localization --schedule staged         first the classifier, then the box head on still features
python -m training.localization --compare weights         the weight between the losses, chosen by validation
python -m training.localization --data shapes             eight kinds of textured shapes on clutter

1000 test pictures of simple_shapes with one object, 2000 in training, seeds 0 1 2, the epoch that validation chose of
10; 80 s of one x86-64 core, shared with other work (staged 110 s: 10 epochs for each of its stages).
                            class right       class right and IoU >= .5   mean IoU
joint, box weight 10        .998 .995 .997    .975 .972 .963              .781 .772 .764
joint, average pooling      .996 .999 .998    .957 .938 .948              .745 .744 .744
staged                      .995 .994 .995    .923 .869 .830              .717 .681 .659
Validation after 3 epochs, means of 3 seeds; the loss is least for the smallest weight, which tells nothing:
box weight                  0.1     1       10      100     1000
class right and IoU >= .5   .714    .756    .855    .573    .491
mean IoU                    .575    .596    .667    .694    .690
class right                 .963    .972    .969    .613    .539
loss                        .118    .127    .211    1.47    7.89
shapes, seed 0: class right .306, with IoU >= .5 too .166 (one of the first five classes .405), mean IoU .433.
"""

from typing import Literal

import keras
import numpy as np
import tensorflow as tf

import dmkeras
from dmkeras import figures
from dmkeras.data import batches, class_names, load, to_arrays
from dmkeras.detection import localization
from dmkeras.parts.box_augmentation import augment
from dmkeras.parts.boxes import iou
from dmkeras.recipe import Recipe, run

COUNTS = {"train": 2000, "validation": 500, "test": 1000}  # pictures
WEIGHTS = (0.1, 1.0, 10.0, 100.0, 1000.0)  # of the box loss, to choose from


def recipe(
    fast=False,
    data: Literal["simple_shapes", "shapes"] = "simple_shapes",
    schedule: Literal["joint", "staged"] = "joint",
    box_weight=10.0,
    box_loss="l2",
    per_class_boxes=False,
    pooling="flatten",
    compare: Literal["weights"] | None = None,
    compare_epochs=3,
    epochs: int | None = None,
    batch_size=16,
    learning_rate=5e-3,
):
    """Class and box of one object: accuracy, IoU and both at once on the test split; comparison of box weights."""
    epochs = epochs or (2 if fast else 10)
    sets = {split: _arrays(data, split, count // (5 if fast else 1)) for split, count in COUNTS.items()}
    names, shape, compared = class_names(data), sets["train"][0].shape[1:], {}
    options = {"box_loss": box_loss, "per_class_boxes": per_class_boxes, "pooling": pooling}
    make = lambda weight: dmkeras.LocalizationNetwork(shape, len(names), box_weight=weight, **options)

    def batched(split, seed):
        if split != "train":
            return batches(sets[split], 250)
        return batches(sets[split], batch_size, seed).enumerate().map(lambda i, pair: _augmented(*pair, seed, i))

    steps = int(batched("train", 0).cardinality())
    falling = lambda epochs: keras.optimizers.schedules.CosineDecay(learning_rate, epochs * steps, alpha=0.01)

    def trained(weight, seed):
        keras.utils.set_random_seed(seed)
        model = make(weight)
        model.compile(keras.optimizers.Adam(falling(compare_epochs)), jit_compile=False)
        orders = tf.data.Dataset.range(1000 * seed, 1000 * seed + compare_epochs)
        shown = orders.flat_map(lambda order: batched("train", order))  # all epochs are one to Keras
        model.fit(shown, steps_per_epoch=compare_epochs * steps, shuffle=False, verbose=0)
        return model

    def evaluate(model):
        if compare:
            seeds = range(1 if fast else 3)
            compared["chosen"], table = localization.compare_weights(trained, *sets["validation"], WEIGHTS, seeds)
            compared.update(table)
        found = model.evaluate(batched("test", 0), return_dict=True, verbose=0)
        if len(names) > 5:
            found["top5_localization_accuracy"] = model.evaluate_localization(*sets["test"], 5)["localization_accuracy"]
        return found | ({"chosen_box_weight": compared["chosen"]} if compare else {})

    staged = [("classifier", localization.train_classifier), ("box_head", localization.train_box_head)]
    return Recipe(
        "localization",
        make(box_weight),
        batched,
        compile={"optimizer": keras.optimizers.Adam(falling(epochs))},
        epochs=epochs,
        improves="localization_accuracy",
        mode="max",
        evaluate=evaluate,
        pictures=lambda model: _pictures(model, *sets["test"], names, compared),
        stages=staged if schedule == "staged" else None,
        labels=names,
        description=f"{data}, one object, {schedule} training, box weight {box_weight:g}",
    )


def _arrays(data, split, count):
    """(images [N, H, W, C], {"boxes" [N, 1, 4], "classes" [N, 1]})."""
    keys = ("image", "boxes", "classes")
    records = load(data, split, size=96, count=count, max_objects=1)
    arrays = to_arrays(records.map(lambda record: {key: record[key] for key in keys}))
    return arrays.pop("image"), arrays


def _augmented(images, targets, seed, step):
    """Mirror images, drawn anew for each picture of each epoch."""
    pair = tf.stack([tf.cast(seed, "int64"), step + 1])
    images, boxes, classes = augment(images, targets["boxes"], targets["classes"], pair, flip=0.5, jitter=0.0)
    return images, {"boxes": boxes, "classes": classes}


def _pictures(model, images, targets, names, compared):
    """True and told boxes: the first pictures, and of 500 those whose boxes are worst."""
    images, truths = images[:500], targets["boxes"][:500, 0]
    told = {key: values.numpy() for key, values in model.localize(images).items()}
    overlap = iou(told["boxes"], truths).numpy()
    pair = lambda i: figures.boxes(
        images[i], [truths[i], told["boxes"][i]], [2, 3], names=dict.fromkeys((2, 3), ""), scale=2
    )
    title = lambda i: f"{names[told['classes'][i]]} {told['scores'][i]:.2f}, IoU {overlap[i]:.2f}"
    sheet = lambda rows, text: figures.grid(
        [pair(i) for i in rows],
        6,
        titles=[title(i) for i in rows],
        title=f"{text}: true box green, told box red",
        scale=1,
    )
    worst = np.argsort(overlap)[:12]
    pictures = {
        "predictions": sheet(range(12), "test pictures"),
        "worst": sheet(worst, "the worst of 500 test pictures"),
    }
    if not compared:
        return pictures
    line = lambda name: (WEIGHTS, compared[name].mean(axis=1), compared[name].std(axis=1))
    lines = lambda *names: {name.replace("_", " "): line(name) for name in names}
    axes = {"log_x": True, "x_label": "box weight"}
    good = lines("localization_accuracy", "accuracy", "mean_box_iou")
    title = f"validation, deviation over seeds; {compared['chosen']:g} is chosen"
    losses = lines("loss", "class_loss", "box_loss")
    panels = figures.curves(good, title=title, **axes), figures.curves(losses, title="the losses", log_y=True, **axes)
    return {**pictures, "weights": figures.grid(panels, 2, scale=1)}


if __name__ == "__main__":
    run(recipe)
