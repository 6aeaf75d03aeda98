"""What every recipe of a generator reports: measures against the test split, samples, lines, neighbours in training.

A model that is reported has `sample(num_samples, seed)`, `interpolate(a, b, steps)` of latents and `latent_size`; where
its latents are not uniform alone, `codes(seed)` gives their kinds and `pack(*kinds)` joins them, as InfoGAN's do.
Where it has `num_classes`, both take labels, and rows of the sheets are classes, as DCGAN's with labels.

Shapes:  N pictures, H height, W width, C colours.
"""

import itertools

import numpy as np

from dmkeras.parts import latents, nearest_pictures, sample_quality
from dmkeras.parts.seeds import row_seeds


def drawn(model, count, seed=0, batch=500):
    """`count` samples [N, H, W, C] of a seed, a batch at a time."""
    ends = [*range(0, count, batch), count]
    parts = [model.sample(end - start, seed=seed + i) for i, (start, end) in enumerate(itertools.pairwise(ends))]
    return np.concatenate(parts)


def figures(model, referee, images, most=10_000):
    """`sample_quality.report` of samples, and of held-out pictures in their place: as many of each as can be had.

    Args:
        model: the generator.
        referee: a classifier trained on the training split.
        images: {"train", "validation", "test": [N, H, W, C]}.
        most: pictures of each at most.

    Returns:
        The measures, and `real_` before those of validation pictures: what a model that knows the data reaches.
    """
    count = min(len(images["test"]), len(images["validation"]), most)
    test, train = images["test"][:count], images["train"]
    found = sample_quality.report(referee, drawn(model, count), test, train)
    real = sample_quality.report(referee, images["validation"][:count], test, train)
    return found | {f"real_{name}": value for name, value in real.items()}


def sheets(model, train, grid, labelled_rows):
    """{file stem: picture}: samples of fixed latents, lines between latents, samples and their nearest neighbours.

    Args:
        model: the generator.
        train: pictures [N, H, W, C] it was trained on.
        grid: `dmkeras.figures.grid`.
        labelled_rows: `dmkeras.figures.labelled_rows`.
    """
    classes = getattr(model, "num_classes", 0)
    labels = lambda rows, each: {"labels": np.repeat(np.arange(rows) % classes, each)} if classes else {}
    samples = model.sample(100, seed=0, **labels(10, 10)).numpy()
    seeds = row_seeds(16, 0)
    ends = model.pack(*model.codes(seeds)) if hasattr(model, "codes") else latents.latent(model, seeds)
    lines = model.interpolate(ends[:8], ends[8:], steps=10, **labels(8, 1))
    shown = samples[::11] if classes else samples[:10]  # of every class
    nearest, _ = nearest_pictures.nearest(shown, train)
    rows = {"sample": shown, "nearest": train[nearest]}
    title = "samples of fixed latents" + (", a row for each class" if classes else "")
    look = {"ground": (200, 200, 200)}
    return {
        "samples": grid(samples, 10, gap=2, title=title, **look),
        "interpolation": grid([x for line in lines for x in line.numpy()], 10, gap=2, title="lines of latents", **look),
        "neighbours": labelled_rows(rows, title="samples and their nearest training pictures", **look),
    }
