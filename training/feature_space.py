"""Ask which pictures are near one another for a layer of a classifier, and draw maps of them all.

python -m training.feature_space                                   a CNN trained here in a minute; `--fast`: seconds
python -m training.feature_space --layer stage_2 --pooling flatten    another layer, where place counts
python -m training.feature_space --classifier squeezenet --weights PATH    ImageNet's features, of the same pictures

Share of 500 held-out pictures of simple_shapes, one object, 48 px, that a vote of the 5 nearest of 1000 references
gets right, seed 0 (chance is .33): by the features of the small CNN .938, which itself has .958 right; by fire9 of
SqueezeNet 1.0 with ImageNet's weights, the pictures at 64 px, .948, though it never saw one; by pixels .368.
"""

from typing import Literal

import numpy as np
import tensorflow as tf

import dmkeras
from dmkeras import figures
from dmkeras.backbones.subjects import one_object, subject
from dmkeras.data import class_names
from dmkeras.parts.nearest_pictures import squared_distances
from dmkeras.recipe import Recipe, run
from dmkeras.understanding.feature_space import thumbnail_map

LAYERS = {"small_cnn": "features", "squeezenet": "fire9", "vgg16": "pool5", "vgg19": "pool5"}
MAPPED = 600  # pictures of a map


def recipe(
    fast=False,
    classifier: Literal["small_cnn", "squeezenet", "vgg16", "vgg19"] = "small_cnn",
    weights: str | None = None,
    layer: str | None = None,
    pooling: Literal["mean", "max", "flatten"] = "mean",
    distance: Literal["l2", "cosine"] = "l2",
    references=1000,
    queries=500,
    k=5,
):
    """Feature space: accuracy of a vote of the k nearest references, by features and by pixels; neighbours and maps."""
    known = subject(classifier, weights, fast)
    side = known.images.shape[1]
    count, held = (80, 40) if fast else (references, queries)
    images, classes, _ = one_object("simple_shapes", "validation", count, min(side, 48))  # not of the training
    asked, truth, _ = one_object("simple_shapes", "test", held, min(side, 48))
    fit = lambda pictures: pictures if side <= 48 else _resized(pictures, 64)
    options = {} if side <= 48 else {"image_shape": (64, 64, 3)}
    layer = layer or LAYERS[classifier]
    model = dmkeras.FeatureSpace(known.classifier, layer, pooling, distance, len(images), k, **options)
    model.index(fit(images))
    names = class_names("simple_shapes")

    def evaluate(model):
        indices, _ = model.nearest(fit(asked))
        flat = lambda pictures: pictures.reshape(len(pictures), -1).astype("float64")
        by_pixels = np.argsort(squared_distances(flat(asked), flat(images)), axis=1, kind="stable")[:, :k]
        accuracy = lambda indices: (_vote(classes[np.asarray(indices)]) == truth).mean()
        found = {"accuracy_by_features": accuracy(indices), "accuracy_by_pixels": accuracy(by_pixels)}
        if classifier == "small_cnn":
            found["accuracy_of_classifier"] = (known.classifier.predict(asked, verbose=0).argmax(1) == truth).mean()
        return found

    def pictures(model):
        indices, distances = (values.numpy() for values in model.nearest(fit(asked[:5])))
        rows = [picture for i, near in enumerate(indices) for picture in (asked[i], *images[near])]
        titles = [t for i, row in enumerate(distances) for t in (names[truth[i]], *(f"{d:.2f}" for d in row))]
        title = f"held-out pictures and the nearest {k} references, {distance} distance in {layer}"
        found = {"neighbours": figures.grid(rows, k + 1, titles=titles, title=title)}
        some, colours = (images[:MAPPED], classes[:MAPPED]), ("blue", "orange", "green")
        frames = ", ".join(f"{name} {colour}" for name, colour in zip(names, colours))
        for method in ("pca", "tsne"):
            places = model.project(fit(some[0]), method, perplexity=5.0 if fast else 30.0)
            title = f"{method} of {layer}; frames: {frames}"
            found[method] = figures.grid([thumbnail_map(places, *some, thumbnail=26)], 1, scale=1, title=title)
            found[f"{method}_points"] = figures.scatter(places, some[1], names=names, title=f"{method} of {layer}")
        return found

    return Recipe(
        "feature_space",
        model,
        lambda split, seed: tf.data.Dataset.from_tensor_slices((fit(asked), truth)).batch(20),
        evaluate=evaluate,
        pictures=pictures,
        labels=list(known.names),
        description=f"{classifier}, {layer}, {len(images)} references, {len(asked)} queries of simple_shapes",
    )


def _resized(pictures, side):
    return tf.image.resize(pictures, (side, side), antialias=True).numpy().clip(0, 1)


def _vote(kinds):
    """The most frequent of classes [N, k]; of equals that of the nearest among them."""
    votes = np.array([[(row == kind).sum() for kind in row] for row in kinds])
    return kinds[np.arange(len(kinds)), votes.argmax(axis=1)]


if __name__ == "__main__":
    run(recipe)
