"""What the recipe of InfoGAN reports: whether codes found without labels are classes, and what each code draws.

    error          of test pictures: the largest entry of the first categorical code, matched one-to-one to labels on
                   the training pictures (parts/code_matching.py), which alone look at labels
    error_train    of the training pictures, likewise
    k_means_*      the same of as many clusters of their pixels, the best of 10 starts
    information    L_I in nats, equation 5 of https://arxiv.org/abs/1606.03657, of `DRAWN` generated pictures, and H(c)

Shapes:  N pictures, H height, W width, C colours, K categories, U continuous codes.
"""

import numpy as np

from dmkeras.parts import code_matching
from dmkeras.parts.seeds import row_seeds

BATCH, DRAWN = 500, 2000
REACH = np.linspace(-2, 2, 10)  # of a continuous code, drawn from [-1, 1] in training: figure 2 of the paper


def figures(model, images, labels):
    """{name: float}: errors in [0, 1] where the model has a categorical code, information in nats.

    Args:
        model: an InfoGAN.
        images: {"train", "test": [N, H, W, C] in [0, 1]}.
        labels: {"train", "test": [N] whole numbers}.
    """
    found = information(model)
    if model.layout.categories:
        size, *_ = model.layout.categories.values()
        codes = {split: _codes(model, images[split]) for split in labels}
        clusters = _clusters(size, images)
        for name, given in (("", codes), ("k_means_", clusters)):
            matching = code_matching.one_to_one(given["train"], labels["train"])
            for split, ending in (("test", ""), ("train", "_train")):
                found[f"{name}error{ending}"] = code_matching.matched_error(given[split], labels[split], matching)
    return found


def information(model, count=DRAWN):
    """{"information_NAME": L_I in nats of `count` generated pictures, "entropy_NAME": H(c), its limit} of each code."""
    codes, parts = model.layout.of_rows(row_seeds(count, 0)), []
    for start in range(0, count, BATCH):
        some = {name: values[start : start + BATCH] for name, values in codes.items()}
        pictures = model.generate(some["noise"], [some[name] for name in model.layout.categories], some["continuous"])
        parts.append({name: q.log_prob(some[name]) for name, q in model.posterior(pictures).items()})
    entropy = {name: np.log(size) for name, size in model.layout.categories.items()}
    if model.num_continuous:
        entropy["continuous"] = model.num_continuous * np.log(2)
    bounds = {name: np.mean(np.concatenate([part[name] for part in parts])) + h for name, h in entropy.items()}
    return {
        **{f"information_{name}": float(value) for name, value in bounds.items()},
        **{f"entropy_{name}": float(value) for name, value in entropy.items()},
    }


def sheets(model, grid):
    """{file stem: picture}: what each code draws, all else fixed, by `grid`, `dmkeras.figures.grid`.

    `categories` (with several codes `categories_0`, `categories_1` ...): a row for each category, columns of noise.
    `continuous_0`, `continuous_1` ...: a column for each value from -2 to 2, rows of the first code's categories, or
    of noise where there are none.
    """
    drawn, look, named = {}, {"gap": 2, "ground": (200, 200, 200)}, model.layout.categories
    noise = model.layout.of_rows(row_seeds(len(REACH), 1))["noise"].numpy()
    one_hot = {name: np.eye(size)[:, None] for name, size in named.items()}  # [K, 1, K]
    for name, size in named.items():
        images = _drawn(model, noise=noise, **{name: one_hot[name]})
        title, labels = f"{name.replace('_', ' ')}: a row for each, columns of noise", [str(k) for k in range(size)]
        drawn[name] = grid(images, len(noise), row_labels=labels, title=title, **look)
    first = next(iter(named), None)
    rows = {first: one_hot[first]} if named else {"noise": noise[:, None]}
    for i in range(model.num_continuous):
        values = REACH[:, None] * np.eye(model.num_continuous)[i]  # [10, U]
        title, labels = f"continuous code {i}, the others 0", [f"{value:.1f}" for value in REACH]
        images = _drawn(model, **{"noise": noise[0], **rows}, continuous=values)
        drawn[f"continuous_{i}"] = grid(images, len(REACH), column_labels=labels, title=title, **look)
    return drawn


def _drawn(model, **given):
    """Pictures of latents {name: [rows or 1, columns or 1, size]}, row by row; of others the first category, or 0."""
    shape, whole = np.broadcast_shapes(*(values.shape[:-1] for values in given.values())), {}
    for name, size in model.layout.sizes.items():
        fixed = np.arange(size) == 0 if name in model.layout.categories else np.zeros(size)
        rows = np.broadcast_to(given.get(name, fixed), (*shape, size)).astype("float32")
        whole[name] = rows.reshape(np.prod(shape), size)
    return model.generate(whole["noise"], [whole[name] for name in model.layout.categories], whole["continuous"])


def _codes(model, images):
    """The first categorical code [N] of images."""
    first = next(iter(model.layout.categories)).replace("categories", "category_logits")
    logits = [model.infer(images[start : start + BATCH])[first] for start in range(0, len(images), BATCH)]
    return np.concatenate(logits).argmax(axis=1)


def _clusters(size, images):
    """{split: the nearest of `size` centres [N]}, centres of the training pictures' pixels."""
    from sklearn.cluster import KMeans

    flat = {split: images[split].reshape(len(images[split]), -1) for split in ("train", "test")}
    centres = KMeans(size, n_init=10, random_state=0).fit(flat["train"])
    return {split: centres.predict(pixels) for split, pixels in flat.items()}
