"""Change pictures by less than one sees until a classifier takes them for another class, told at random.

python -m training.fooling                                          a CNN trained here in a minute; `--fast`: in seconds
python -m training.fooling --classifier squeezenet --weights PATH   ImageNet's classes, three photographs

Seed 0, random classes other than the one that is seen; changes with pixels in [0, 1], means of those that fool:
                                  fooled   steps   L2     largest   noise changes class   after rounding to 8 bits
small_cnn, 500 pictures           1.000    2.7     .486   .064      .002                  .998
SqueezeNet, 3 x 10 of ImageNet    .967     10.7    1.118  .048      .000                  .862
Noise is of the same L2. Rounded in the loop, as for files, as many fool, and stay so: L2 .500 and 1.212.
"""

from typing import Literal

import numpy as np
import tensorflow as tf

import dmkeras
from dmkeras import figures
from dmkeras.backbones.subjects import subject
from dmkeras.recipe import Recipe, run

TOGETHER, SHOWN = 50, 6  # pictures of a batch, shown


def recipe(
    fast=False,
    classifier: Literal["small_cnn", "squeezenet", "vgg16", "vgg19"] = "small_cnn",
    weights: str | None = None,
    norm: Literal["l2", "linf"] = "l2",
    step: float | None = None,
    max_steps=100,
    confidence=0.01,
    targets_each: int | None = None,
    trial=0,
):
    """Fooling images: how many reach a random other class, by how much change, and what noise of that size does.

    targets_each: random classes told for each picture; 1, for photographs 10. trial: seed of these classes.
    """
    known = subject(classifier, weights, fast)
    repeats = targets_each or (2 if fast else 1 if len(known.images) > 3 else 10)
    most = 60 if fast else len(known.images)
    predicted = lambda images: known.classifier.predict(images, TOGETHER, verbose=0).argmax(1)
    images, rng = np.repeat(known.images[:most], repeats, axis=0), np.random.default_rng(trial)
    before = predicted(images)
    targets = ((before + rng.integers(1, len(known.names), len(images))) % len(known.names)).astype("int32")
    settings = {"step": step, "max_steps": 20 if fast else max_steps, "norm": norm, "confidence": confidence}
    model = dmkeras.FoolingImage(known.classifier, **settings)
    in_8_bits = dmkeras.FoolingImage(known.classifier, rounded=True, **settings)

    found_by = lambda model: {key: values.numpy() for key, values in model(images, targets).items()}

    def evaluate(model):
        found, rounded = found_by(model), found_by(in_8_bits)
        fooled, noise = found["fooled"] > 0, np.random.default_rng(trial).normal(size=images.shape)
        noise *= (found["l2_change"] / np.sqrt((noise**2).sum((1, 2, 3))))[:, None, None, None]
        seen = predicted(np.clip(images + noise, 0, 1).astype("float32"))
        return {
            "fooled": fooled.mean(),
            **{key: found[key][fooled].mean() for key in ("steps", "l2_change", "largest_change")},
            "noise_changes_class": (seen != before)[fooled].mean(),
            "noise_fools": (seen == targets)[fooled].mean(),
            "survives_rounding": (predicted(np.round(255 * found["images"]) / 255) == targets)[fooled].mean(),
            "rounded_fooled": rounded["fooled"].mean(),
            "rounded_l2_change": rounded["l2_change"][rounded["fooled"] > 0].mean(),
        }

    def sheets(model):
        some = np.arange(0, len(images), repeats)[:SHOWN] if len(images) > SHOWN else np.arange(len(images))
        found = {key: values.numpy() for key, values in model(images[some], targets[some]).items()}
        return {"fooled": sheet(known, images[some], found)}

    return Recipe(
        "fooling",
        model,
        lambda split, seed: tf.data.Dataset.from_tensor_slices((images, targets)).batch(TOGETHER),
        evaluate=evaluate,
        pictures=sheets,
        labels=list(known.names),
        description=f"{classifier}, {len(images)} pictures and random other classes, {norm}",
    )


def sheet(known, images, found):
    """Of each picture: itself, its change on grey, and what it became, with the best class of each and how likely."""
    tiles, titles = [], []
    for i in range(len(images)):
        change, scores = found["images"][i] - images[i], []
        times = max(1, int(0.5 / max(found["largest_change"][i], 1e-6)))
        for picture in (images[i], found["images"][i]):
            share = tf.nn.softmax(known.classifier(picture[None], training=False)[0]).numpy()
            scores.append(f"{known.names[share.argmax()]} {share.max():.2f}")
        tiles += [images[i], np.clip(0.5 + times * change, 0, 1), found["images"][i]]
        titles += [scores[0], f"change x {times}, steps {found['steps'][i]}", scores[1]]
    return figures.grid(tiles, 3 if images.shape[1] > 100 else 6, titles=titles)


if __name__ == "__main__":
    run(recipe)
