"""What excites the units of a classifier most: patches of pictures, layer by layer, and how often of one class.

python -m training.maximal_patches                                          a CNN trained here; `--fast`: in seconds
python -m training.maximal_patches --classifier squeezenet --weights PATH   ImageNet's classes, three photographs

simple_shapes, 500 held-out pictures, seed 0, 90 s: purity .479 .573 .660 .896 .965 in stages 0, 1, 2, 4 and the dense
features; .496 .531 .504 .488 .484 with random weights, .502 by chance.
"""

from typing import Literal

import numpy as np
import tensorflow as tf

import dmkeras
from dmkeras import figures
from dmkeras.backbones.subjects import subject
from dmkeras.recipe import Recipe, run

LAYERS, SHOWN = 5, 6  # layers looked at, units of each that are shown
TOGETHER, DRAWS, MOST = 50, 20000, 64  # pictures of a batch; random choices of k pictures; units of a layer looked at


def recipe(
    fast=False,
    classifier: Literal["small_cnn", "squeezenet", "vgg16", "vgg19"] = "small_cnn",
    weights: str | None = None,
    layer: str | None = None,
    k=9,
):
    """Maximal patches: how pure units are, the share of a unit's k patches that are of its most frequent class.

    Beside it stands the same network with random weights, and k pictures drawn at random. layer: the one that is
    exported; the deepest with maps.
    """
    known = subject(classifier, weights, fast)
    images, single = known.images, len(known.images) >= k  # few photographs give several patches each
    maps = known.classifier.features(images[:1])
    names = [name for i, name in enumerate(maps) if i in np.linspace(0, len(maps) - 1, 2 if fast else LAYERS).round()]
    deepest = [name for name, values in maps.items() if len(values.shape) == 4][-1]
    units = {name: np.linspace(0, values.shape[-1] - 1, 8 if fast else MOST) for name, values in maps.items()}
    patches = lambda of, name: dmkeras.MaximalPatches(of, name, k, np.unique(units[name].round().astype(int)), single)
    untrained = type(known.classifier).from_config(known.classifier.get_config())  # as training began, or as random
    model = patches(known.classifier, layer or deepest)
    model.find(images, TOGETHER)

    def evaluate(model):
        found = {"chance": chance(known.classes, k)}
        for name in names:
            for prefix, of in (("", known.classifier), ("random_", untrained)):
                best = patches(of, name).find(images, TOGETHER)
                found[f"{prefix}purity_{name}"] = purity(best, known.classes).mean()
        return found

    def sheets(model):
        tiles = []
        for name in names:
            of_layer = patches(known.classifier, name)
            found, (size, stride) = of_layer.find(images, TOGETHER), of_layer.receptive_field()[:2]
            even = found["scores"][:, -1] / np.abs(found["scores"][:, 0]).clip(1e-9)  # those that many patches excite
            rows = [strip(found["patches"][unit]) for unit in np.argsort(-even, kind="stable")[:SHOWN]]
            title = f"{name}: a unit sees {size[0]}x{size[1]} pixels, " + (f"every {stride[0]}" if stride[0] else "all")
            tiles.append(figures.grid(rows, 2, title=title, gap=8, scale=1))
        wide = lambda tile: ((0, 0), (0, max(each.shape[1] for each in tiles) - tile.shape[1]), (0, 0))
        return {"patches": np.concatenate([np.pad(tile, wide(tile), constant_values=255) for tile in tiles])}

    return Recipe(
        "maximal_patches",
        model,
        lambda split, seed: tf.data.Dataset.from_tensor_slices(images).batch(TOGETHER),
        evaluate=evaluate,
        pictures=sheets,
        labels=list(known.names),
        description=f"{classifier}, {len(images)} pictures, the {k} best of each unit, at most {MOST} units a layer",
    )


def purity(found, classes):
    """[units that k pictures excite at all]: the share of each unit's pictures that are of its most frequent class."""
    alive = (found["pictures"] >= 0).all(1) & (found["scores"][:, -1] > 0)
    kinds = classes[found["pictures"][alive]]
    return (kinds[:, :, None] == np.arange(classes.max() + 1)).sum(1).max(1, initial=0) / kinds.shape[1]


def chance(classes, k):
    """The purity of k pictures drawn at random, of few photographs more than once."""
    rng, count = np.random.default_rng(0), len(classes)
    drawn = rng.integers(0, count, (DRAWS, k)) if count < k else rng.random((DRAWS, count)).argsort(1)[:, :k]
    return purity({"pictures": drawn, "scores": np.ones(drawn.shape)}, classes).mean()


def strip(patches):
    """The patches of a unit side by side, small ones enlarged."""
    scale = max(1, round(48 / max(patches.shape[1:3])))
    patches = np.pad(patches.repeat(scale, 1).repeat(scale, 2), ((0, 0), (0, 0), (0, 2), (0, 0)), constant_values=1.0)
    return np.concatenate(list(patches), 1)


if __name__ == "__main__":
    run(recipe)
