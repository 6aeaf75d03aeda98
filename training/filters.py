"""Look at the weights of a classifier's first layer, trained and untrained, and at the maps that they answer.

python -m training.filters                                          a CNN trained here in a minute; `--fast`: seconds
python -m training.filters --classifier squeezenet --weights PATH   ImageNet's filters of 7x7, three photographs
python -m training.filters --layer stage_1_conv                     a deeper layer, input by input

FIGURES
"""

from typing import Literal

import numpy as np
import tensorflow as tf

import dmkeras
from dmkeras import figures
from dmkeras.backbones.subjects import subject
from dmkeras.recipe import Recipe, run
from dmkeras.understanding.filters import sheets

MOST, INPUTS, SHOWN = 96, 16, 3  # filters shown, of a deeper layer's inputs, pictures answered


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
    columns = 2 if deep else 12
    tiles = lambda filters: filters.tiles(24 if deep else MOST, INPUTS)
    sheet = lambda filters, title: figures.grid(tiles(filters), columns, title=title, gap=3)
    told = f"{model.layer_name}, {'red above, blue below zero' if deep else 'grey is zero'}"
    both = [sheet(model, f"trained: {told}"), sheet(untrained, "before training")]
    maps = sheets(model(images[:SHOWN])).numpy()
    scale = lambda picture: max(1, round(360 / max(picture.shape)))
    answers = []
    for image, answer in zip(images, maps):
        answers += [figures.grid([image], 1, scale=scale(image)), figures.grid([answer], 1, scale=scale(answer))]
    title = "pictures, and the answer of every filter from its least (blue) to its greatest (yellow) value"
    return {
        "weights": figures.grid(both, 1 if deep else 2, scale=1),
        "responses": figures.grid(answers, 2, scale=1, title=title),
    }


if __name__ == "__main__":
    run(recipe)
