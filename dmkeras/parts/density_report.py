"""What every recipe of an explicit density reports: likelihoods of the test split, samples, completed halves."""

import numpy as np
import tensorflow as tf

TITLES = {"samples": "samples", "completions": "draws given the upper half"}


def figures(model, batches):
    """Exact test figures of a model over batches of pictures.

    Returns:
        nll (nats a picture), nll_standard_error (over pictures) and bits_per_dim, floats.
    """
    log_prob = tf.concat([model.log_prob(images) for images in batches], axis=0)
    nll = -tf.reduce_mean(log_prob)
    error = tf.math.reduce_std(log_prob) / len(log_prob) ** 0.5
    return {"nll": nll, "nll_standard_error": error, "bits_per_dim": nll / (np.prod(model.image_shape) * np.log(2))}


def rows(model, images, draws=3):
    """Pictures for `figures.labelled_rows`: samples beside data, and completions of the upper halves of `images`.

    Returns:
        {"samples": {label: images}, "completions": {label: images}}.
    """
    height, width, _ = model.image_shape
    upper = np.zeros((height, width, 1), "float32")
    upper[: height // 2] = 1
    completed = {f"draw {i}": model.complete(images, upper, seed=i) for i in range(1, draws + 1)}
    return {
        "samples": {
            "data": images,
            "sample": model.sample(len(images), seed=0),
            " ": model.sample(len(images), seed=1),
        },
        "completions": {"given": images * upper + (1 - upper) / 2, **completed, "data": images},
    }


def sheets(model, images, called, draw):
    """The pictures of `rows(model, images)` of a model so called, by `draw`, `figures.labelled_rows`."""
    return {name: draw(row, **options(called, name)) for name, row in rows(model, images).items()}


def options(model, name):
    """How `figures.labelled_rows` draws `rows(...)[name]` of a model so called: on a grey that shows white edges."""
    return {"title": f"{model}, {TITLES[name]}", "ground": (200, 200, 200)}
