"""Ask by gradients which pixels a classifier depends on, by six methods, and whether these are the object's.

python -m training.saliency                                          a CNN trained here in a minute; `--fast`: seconds
python -m training.saliency --classifier squeezenet --weights PATH   ImageNet's classes, three photographs
python -m training.saliency --method guided                          another method in the exported model

simple_shapes with one object, 48x48, 200 held-out pictures, seed 0 (accuracy .935; boxes cover .119 of the pixels):
                  vanilla  input_x_gradient  integrated  smoothgrad  guided  deconvnet  edges of the picture
pointing          .640     .735              .760        .595        .795    .750       .780
mass in the box   .258     .273              .340        .205        .364    .261       .176
likeness to the map after all weights are shuffled
                  .262     .242              .204        .072        .286    .232
Edges, which know no classifier, point nearly as well as the best.
"""

from typing import Literal

import numpy as np
import tensorflow as tf

import dmkeras
from dmkeras import figures
from dmkeras.backbones.subjects import subject
from dmkeras.parts import attribution_report as report
from dmkeras.recipe import Recipe, run

METHODS = ("vanilla", "input_x_gradient", "integrated", "smoothgrad", "guided", "deconvnet")
SHOWN = 6  # pictures of the sheet


def recipe(
    fast=False,
    classifier: Literal["small_cnn", "squeezenet", "vgg16", "vgg19"] = "small_cnn",
    weights: str | None = None,
    method: Literal[METHODS] = "smoothgrad",
    samples=50,
    noise=0.15,
    steps=50,
    pictures=200,
):
    """Saliency: how often a map points into the object's box and how much of it lies there, beside edges and chance.

    likeness is of the maps before and after all weights are shuffled, then of the class that is predicted.

    method: of the exported model; all are measured. samples, noise: of smoothgrad. steps: of integrated gradients.
    pictures: of the evaluation.
    """
    known = subject(classifier, weights, fast)
    pictures, samples, steps = (6, 3, 3) if fast else (pictures, samples, steps)
    images, classes = known.images[:pictures], known.classes[:pictures]
    options = {"samples": samples, "noise": noise, "steps": steps}
    models = {name: dmkeras.Saliency(known.classifier, name, **options) for name in METHODS}
    layers = [layer for layer in known.classifier._flatten_layers() if layer._trainable_variables][::-1]

    def explained(few=None, asked=classes):
        asked = None if asked is None else asked[:few]
        return {name: one.explain(images[:few], asked) for name, one in models.items()}

    def evaluate(model):
        maps, seen = explained(), known.classifier.predict(images, 20, verbose=0).argmax(1)
        found = {"accuracy": float((seen == classes).mean())}
        if known.boxes is not None:
            within = report.inside(known.boxes[:pictures], images.shape[1:3])
            for name, values in {**maps, "edges": report.edges(images)}.items():
                found[f"pointing_{name}"] = report.pointing(values, within)
                found[f"mass_{name}"] = report.mass(values, within)
            found["by_chance"] = float(within.mean())
        with report.shuffled(layers):
            for name, values in explained(asked=None).items():
                found[f"likeness_{name}"] = report.likeness(maps[name], values)
        return found

    def sheets(model):
        texts = [known.names[kind] for kind in classes[:SHOWN]]
        maps, rows = {**explained(SHOWN), "edges": report.edges(images[:SHOWN])}, {"trained": explained(1)}
        for count in sorted({1, 2, len(layers) // 2, len(layers)}):
            with report.shuffled(layers[:count]):
                rows[f"{count} of {len(layers)} layers shuffled"] = explained(1, None)
        shuffled = {name: np.concatenate([row[name] for row in rows.values()]) for name in METHODS}
        again, title = np.repeat(images[:1], len(rows), 0), "weights shuffled, from the last layer on"
        return {
            "methods": report.side_by_side(images[:SHOWN], maps, texts, figures),
            "sanity": report.side_by_side(again, shuffled, list(rows), figures, title=title),
        }

    return Recipe(
        "saliency",
        models[method],
        lambda split, seed: tf.data.Dataset.from_tensor_slices((images, classes)).batch(20),
        evaluate=evaluate,
        pictures=sheets,
        labels=list(known.names),
        description=f"{classifier}, {len(images)} pictures, smoothgrad of {samples}, integrated of {steps}",
    )


if __name__ == "__main__":
    run(recipe)
