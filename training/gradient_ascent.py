"""Make the pictures that a classifier finds most like a class, in pixels under three priors and in a code space.

python -m training.gradient_ascent                     small_cnn on simple_shapes: no download; `--fast`: in seconds
python -m training.gradient_ascent --classifier squeezenet --weights squeezenet_v1.0_imagenet.npz

small_cnn is trained, then the generator from its features to pictures, on the same pictures. Figures are the mean
probability of the class in the pictures made for it: `own_` by the classifier that was climbed, `other_` by one trained
from another seed, since what only the first sees is no picture of the class; `_data` are of held-out pictures.
Codes are the last convolution's, since the dense features of three classes tell little but the class: --code features
ends in grey pictures, `own_code` .613, `other_code` .384 (seed 0, one thread, 3 minutes).
small_cnn, seed 0, `other_`: none .699, l2 .899, yosinski 1.000, jitter_tv 1.000, code .640 (`own_` .960), data .936.
SqueezeNet, --steps 100, `own_`: none 1.000, l2 1.000, jitter_tv 1.000, yosinski .856 (its last step blurs).
"""

import functools
from typing import Literal

import numpy as np
import tensorflow as tf

import dmkeras
from dmkeras import figures
from dmkeras.backbones import subjects
from dmkeras.parts.feature_generator import FeatureGenerator, train
from dmkeras.recipe import Recipe, run

PRIORS = ("l2", "yosinski", "jitter_tv")
CODE_RATE = 1.0  # of the first step; the codes of a small network are smaller than fc6
SHOWN = (285, 967, 1, 340)  # of ImageNet: Egyptian cat, espresso, goldfish, zebra


def recipe(
    fast=False,
    classifier: Literal[subjects.KINDS] = "small_cnn",
    weights: str | None = None,
    steps: int | None = None,
    per_class: int | None = None,
    passes: int | None = None,
    filters: int | None = None,
    code: Literal["convolution", "features"] = "convolution",
):
    """Gradient ascent: probability of the class, by the classifier and by another one, in pictures made for it.

    per_class: pictures made of each class. passes: over the pictures, in training the generator of `filters` filters.
    """
    subject, small = subjects.subject(classifier, weights, fast), classifier == "small_cnn"
    net, defaults = subject.classifier, (12, 2, 1, 4) if fast else (200, 8 if small else 1, 10, 16)
    steps, per_class, passes, filters = (g or d for g, d in zip((steps, per_class, passes, filters), defaults))
    classes = np.repeat(np.arange(len(subject.names)) if small else np.array(SHOWN), per_class).astype("int32")
    spaces = {prior: dmkeras.GradientAscent(net, prior=prior, steps=steps) for prior in (None, *PRIORS)}
    model, stages = spaces["jitter_tv"], None
    if small:
        images, codes = _examples(net, fast, f"stage_{len(net.stages) - 1}" if code == "convolution" else code)
        comparator, high = f"stage_{len(net.stages) - 3}", 3 * codes.std(0)  # from 0, since they are rectified
        trainer = FeatureGenerator(net, comparator, codes.shape[1], net.image_shape, filters, codes.std(0))
        space = {"latent": trainer.generator, "code_bounds": (0.0, high), "rate": CODE_RATE}
        model = spaces["code"] = dmkeras.GradientAscent(net, steps=steps, **space)
        stages = [("generator", lambda recipe, fit: train(trainer, images, codes, passes))]

    @functools.cache
    def made():
        return {str(name).lower(): space.ascend(classes, seed=0)["images"].numpy() for name, space in spaces.items()}

    def evaluate(model):
        judges = {"own": net, **({"other": subjects.subject(fast=fast, seed=1).classifier} if small else {})}
        shown = {name: (images, classes) for name, images in made().items()}
        shown["data"] = subject.images, subject.classes
        share = lambda judge, images, own: tf.gather(tf.nn.softmax(judge(images)), own, batch_dims=1).numpy().mean()
        return {f"{who}_{name}": share(judge, *shown[name]) for name in shown for who, judge in judges.items()}

    def pictures(model):
        rows, labels = range(0, len(classes), per_class), [subject.names[kind] for kind in classes[::per_class]]
        tiles = [images[row] for row in rows for images in made().values()]
        seeds = {"seeds": figures.grid(made()["code"], per_class, row_labels=labels)} if small else {}
        return {"classes": figures.grid(tiles, row_labels=labels, column_labels=list(made())), **seeds}

    batches = lambda split, seed: tf.data.Dataset.from_tensors(classes)
    return Recipe(
        "gradient_ascent",
        model,
        batches,
        improves=None,
        evaluate=evaluate,
        pictures=pictures,
        stages=stages,
        labels=subject.names,
        description=f"{classifier}, {steps} steps, {per_class} pictures of each of {len(set(classes))} classes",
    )


def _examples(net, fast, layer):
    """The pictures that small_cnn was trained on, and what a layer of it makes of them, [N, Z]."""
    own = subjects.FAST if fast else subjects.SHAPES
    images, *_ = subjects.one_object("simple_shapes", "train", own["trained"], own["side"])
    codes = [net.features(images[i : i + 500])[layer] for i in range(0, len(images), 500)]
    return images, np.concatenate(codes).reshape(len(images), -1)


if __name__ == "__main__":
    run(recipe)
