"""Dream a classifier's layers into pictures, and measure how far their activations rise.

python -m training.deepdream                                          a CNN trained here in a minute; `--fast`: seconds
python -m training.deepdream --classifier squeezenet --weights PATH   three photographs, ImageNet's network
python -m training.deepdream --classifier squeezenet --weights PATH --layers fire3 fire8    other layers

SqueezeNet, fire7, mean of three photographs, seed 0: energy 14.6 times the photograph's; in the size of the smallest
octave 5.3. One octave of as many steps: 35.8 and 1.6, fine strokes that are gone when the picture shrinks. Noise that
changes pixels as much: 1.3 and 1.1.
"""

from typing import Literal

import numpy as np
import tensorflow as tf

import dmkeras
from dmkeras import figures
from dmkeras.backbones.subjects import subject
from dmkeras.recipe import Recipe, run
from dmkeras.understanding.deepdream import octave_sides, zoomed

LAYERS = {
    "small_cnn": ("stage_0", "stage_1", "stage_2"),
    "squeezenet": ("fire3", "fire5", "fire7", "fire9"),
    "vgg16": ("conv3_3", "conv4_3", "conv5_3"),
    "vgg19": ("conv3_4", "conv4_4", "conv5_4"),
}
MEASURED, SHOWN = 40, 6  # pictures


def recipe(
    fast=False,
    classifier: Literal["small_cnn", "squeezenet", "vgg16", "vgg19"] = "small_cnn",
    weights: str | None = None,
    layers: tuple[str, ...] | None = None,
    octaves: int | None = None,
    scale=1.4,
    jitter: int | None = None,
    steps: int | None = None,
    step_size=1.5,
    trial=0,
):
    """DeepDream: how many times the layers' energy rises, in octaves and in one; pictures of each layer.

    Energies are of pictures in their size, those of `small` in the size of the smallest octave, where coarse details
    are seen. One octave has as many steps as all together; noise changes pictures as much as dreams do.
    layers: shown one by one; the model that is measured and exported dreams of the middle one. trial: seed of jitter.
    """
    known = subject(classifier, weights, fast)
    images = known.images[: 6 if fast else MEASURED]
    layers = layers or LAYERS[classifier]
    octaves, steps = octaves or (2 if fast else 4), steps or (2 if fast else 10)
    jitter = images.shape[1] // 7 if jitter is None else jitter  # 32 of 224
    settings = {"scale": scale, "jitter": jitter, "step_size": step_size}
    model = dmkeras.DeepDream(known.classifier, layers[len(layers) // 2], octaves, steps=steps, **settings)
    in_one = dmkeras.DeepDream(known.classifier, layers[len(layers) // 2], 1, steps=octaves * steps, **settings)

    def evaluate(model):
        dreams, dreams_of_one = (each.dream(images, trial).numpy() for each in (model, in_one))
        change = np.sqrt(((dreams - images) ** 2).mean((1, 2, 3), keepdims=True))
        noise = change * np.random.default_rng(trial).normal(size=images.shape)
        shown = {"": dreams, "_in_one_octave": dreams_of_one, "_by_noise": np.clip(images + noise, 0, 1)}
        smallest = octave_sides(images.shape[1:3], octaves, scale)[-1]
        sizes = {"": lambda pictures: pictures, "_small": lambda pictures: zoomed(pictures, smallest).numpy()}
        found = {"rms_change": change.mean()}
        for size, seen in sizes.items():
            energy = lambda pictures, seen=seen: model.energy(seen(pictures.astype("float32"))).numpy()
            for name, pictures in shown.items():
                found[f"energy_rise{size}{name}"] = (energy(pictures) / energy(images)).mean()
        return found

    def sheets(model):
        columns = {"picture": images[:SHOWN]}
        for layer in layers:
            dream = dmkeras.DeepDream(known.classifier, layer, octaves, steps=steps, **settings).dream
            columns[layer] = dream(images[:SHOWN], trial).numpy()
        tiles = [picture for row in zip(*columns.values()) for picture in row]
        scale = max(1, 112 // images.shape[1])
        return {"dreams": figures.grid(tiles, len(columns), column_labels=list(columns), scale=scale)}

    return Recipe(
        "deepdream",
        model,
        lambda split, seed: tf.data.Dataset.from_tensor_slices(images).batch(MEASURED),
        evaluate=evaluate,
        pictures=sheets,
        description=f"{classifier}, {len(images)} pictures, {layers[len(layers) // 2]}",
    )


if __name__ == "__main__":
    run(recipe)
