"""Look at the weights of a classifier's first layer, trained and untrained, and at the maps that they answer.

python -m training.filters                                          a CNN trained here in a minute; `--fast`: seconds
python -m training.filters --classifier squeezenet --weights PATH   ImageNet's filters of 7x7, three photographs
python -m training.filters --layer stage_1_conv                     a deeper layer, input by input

Roughness of the first layer's filters, 1 for independent weights, mean and standard error over filters:
                                          trained        untrained
SqueezeNet 1.0, 96 of 7x7, ImageNet       .507 .038      1.000 .007
the small CNN, 16 of 3x3, seed 0          .949 .050      .917 .047
Seven epochs leave 3x3 filters nearly as they began (`weights.png`): what the small CNN learns stands in deeper layers.
"""

from typing import Literal

import numpy as np
import tensorflow as tf

import dmkeras
from dmkeras import figures
from dmkeras.backbones.subjects import subject
from dmkeras.recipe import Recipe, run
from dmkeras.understanding.filters import sheets

MOST, INPUTS, SHOWN, ANSWERS = 96, 16, 3, 25  # filters shown, a deeper layer's inputs, pictures, filters that answer


def recipe(
    fast=False,
    classifier: Literal["small_cnn", "squeezenet", "vgg16", "vgg19"] = "small_cnn",
    weights: str | None = None,
    layer: str | None = None,
):
    """Filters: their roughness, trained and untrained (1 is what independent weights have); pictures of both."""
    known = subject(classifier, weights, fast)
    model = dmkeras.Filters(known.classifier, layer)
    same = type(known.classifier).from_config(known.classifier.get_config())  # as it was before training
    untrained = dmkeras.Filters(same, layer)
    images = known.images[: SHOWN * 4]

    def evaluate(model):
        found = {"filters": len(model.filters())}
        for name, filters in (("trained", model), ("untrained", untrained)):
            rough = filters.roughness()
            alive = rough[np.isfinite(rough)]
            found[f"roughness_{name}"] = alive.mean()
            found[f"roughness_{name}_standard_error"] = alive.std() / len(alive) ** 0.5
        return {**found, "filters_of_zeros": int(np.isnan(model.roughness()).sum())}

    return Recipe(
        "filters",
        model,
        lambda split, seed: tf.data.Dataset.from_tensor_slices((images, known.classes[: len(images)])).batch(3),
        evaluate=evaluate,
        pictures=lambda model: _pictures(model, untrained, images),
        labels=list(known.names),
        description=f"{classifier}, layer {model.layer_name}",
    )


def _pictures(model, untrained, images):
    deep = model.filters().shape[-1] not in (1, 3)
    columns = 2 if deep else max(4, round(min(MOST, len(model.filters())) ** 0.5))
    tiles = lambda filters: filters.tiles(24 if deep else MOST, INPUTS)
    sheet = lambda filters, title: figures.grid(tiles(filters), columns, title=title, gap=3)
    told = f"{model.layer_name}, {'red above, blue below zero' if deep else 'grey is zero'}"
    both = [sheet(model, f"trained: {told}"), sheet(untrained, "before training")]
    responses = model(images[:SHOWN])[..., :ANSWERS]
    answers = []
    for image, answer in zip(images, sheets(responses).numpy()):
        answers += [_fitted(image, 448), _fitted(answer, 400 if len(answer) < 400 else 600)]
    title = f"pictures, and what the first {responses.shape[-1]} filters answer, from the least to the greatest value"
    return {
        "weights": figures.grid(both, 1 if deep else 2, scale=1),
        "responses": figures.grid(answers, 2, scale=1, title=title),
    }


def _fitted(picture, side):
    """A picture of about `side` pixels: small ones by whole numbers, large ones smoothly."""
    if max(picture.shape) <= side:
        return figures.grid([picture], 1, scale=max(1, side // max(picture.shape)))
    sides = [round(n * side / max(picture.shape)) for n in picture.shape[:2]]
    return tf.image.resize(picture, sides, antialias=True).numpy().clip(0, 1)


if __name__ == "__main__":
    run(recipe)
