"""What an exact density of binary pictures answers: where it stands, what its order is worth, whether it classifies.

Between independent pixels (D numbers) and the full table (2^D - 1) lie a first-order Markov chain along an order of the
pixels (2 D - 1) and the models of this package. Both ends and the chain need no training: they are counted.

Shapes:  N pictures, H height, W width, C colours, D = H W C values of a picture.
"""

import keras
import numpy as np

from dmkeras.parts import explicit_density

ORDERINGS = ("raster", "column", "spiral", "random:0", "random:1")


def independent_pixels(train):
    """p(x) = prod_d p(x_d), counted in train [N, H, W, C] with one more 0 and 1 a pixel (Laplace).

    Returns:
        A function of images [N, H, W, C] -> log p(x) [N] float64, nats. Grey training pictures are chances of a 1.
    """
    flat = lambda images: np.asarray(images, "float64").reshape(len(images), -1)
    chance = (flat(train).sum(axis=0) + 1) / (len(train) + 2)
    return lambda images: _log_chance(flat(images), chance).sum(axis=1)


def markov_chain(train, order):
    """p(x) = p(x_1) prod_d p(x_d | x_{d-1}) along the order [D], counted likewise; returns and grey pictures too."""
    flat = lambda images: np.asarray(images, "float64").reshape(len(images), -1)[:, order]
    x = flat(train)
    first = (x[:, 0].sum() + 1) / (len(x) + 2)
    before = np.stack([1 - x[:, :-1], x[:, :-1]])  # [2, N, D - 1]: of a 0 and of a 1 before
    chance = ((before * x[:, 1:]).sum(axis=1) + 1) / (before.sum(axis=1) + 2)  # [2, D - 1]

    def log_prob(images):
        x = flat(images)
        steps = _log_chance(x[:, 1:], np.where(x[:, :-1] == 1, chance[1], chance[0]))
        return _log_chance(x[:, 0], first) + steps.sum(axis=1)

    return log_prob


def _log_chance(x, chance):
    return np.where(x == 1, np.log(chance), np.log1p(-chance))


def ladder(model, parameters, train, test):
    """Prints and returns test nats from independent pixels up to `model`, with the number of parameters of each."""
    chain, size = markov_chain(train, model.order), len(model.order)
    rungs = {
        "independent pixels": (size, -independent_pixels(train)(test)),
        "Markov chain": (2 * size - 1, -chain(test)),
        type(model).__name__: (parameters, -np.asarray(model.log_prob(test))),
    }
    for name, (count, nll) in rungs.items():
        print(f"{name:>18} {count:>9,} parameters {_figure(nll)}")
    print(f"{'full table':>18} 2^{size} - 1 parameters", flush=True)
    named = {name.lower().replace(" ", "_"): values for name, values in rungs.items()}
    found = {f"nll_{name}": nll.mean() for name, (_, nll) in list(named.items())[:2]}
    return {**found, "parameters": parameters}


def fitted(model, images, optimizer, epochs, batch_size):
    """`model` after training on images["train"], with the weights of the epoch that images["validation"] chose."""
    model.adapt(images["train"])
    model.compile(optimizer, steps_per_execution=5)
    best = keras.callbacks.EarlyStopping("val_nll", mode="min", patience=epochs, restore_best_weights=True)
    held_out = (images["validation"],)
    model.fit(images["train"], None, batch_size, epochs, verbose=0, callbacks=[best], validation_data=held_out)
    return model


def check_comparison(which, binarization):
    """ValueError for a comparison of models on pictures that are binarized anew each epoch: each would see others."""
    if which and binarization == "dynamic":
        raise ValueError(
            f"--compare {which} wants pictures that stay: received --binarization dynamic, expected another"
        )


def compared(which, trained, images, labels, test):
    """What `orders` or `classes`, as `which` says, finds of models that `trained(ordering, images)` makes; None: {}."""
    if which == "orders":
        return orders(trained, test)
    return classes(lambda mine: trained(images=mine), images, labels) if which == "classes" else {}


def orders(make, test, orderings=ORDERINGS):
    """Prints and returns the test nats of `make(ordering)`, a trained model, for each ordering."""
    found = {}
    for ordering in orderings:
        nll = -_log_prob(make(ordering), test)
        print(f"{ordering:>18} ordering {_figure(nll)}", flush=True)
        found[f"nll_{ordering.replace(':', '_')}"] = nll.mean()
    return found


def classes(make, images, labels):
    """Bayes' rule over one density a class: argmax_y log p(x | y) + log p(y), by trained models and by counting.

    Args:
        make: {split: images of one class} -> a trained model.
        images: {"train", "validation", "test": [N, H, W, C]}.
        labels: likewise, [N] integers.

    Returns:
        Test accuracies: `accuracy`, and `accuracy_independent_pixels` of naive Bayes.
    """
    scores = {"accuracy": [], "accuracy_independent_pixels": []}
    kinds = np.unique(labels["train"])
    for kind in kinds:
        mine = {split: images[split][labels[split] == kind] for split in images}
        prior = np.log(len(mine["train"]) / len(images["train"]))
        scores["accuracy"].append(_log_prob(make(mine), images["test"]) + prior)
        scores["accuracy_independent_pixels"].append(independent_pixels(mine["train"])(images["test"]) + prior)
    found = {name: np.mean(kinds[np.argmax(rows, axis=0)] == labels["test"]) for name, rows in scores.items()}
    for name, accuracy in found.items():
        print(f"{name.replace('_', ' '):>30} {accuracy:.4f}, one density a class", flush=True)
    return found


def _log_prob(model, images):
    """Without a graph: each of a dozen models would trace its own."""
    return explicit_density.log_likelihood(model(images), images, model.levels).numpy()


def _figure(nll):
    return f"{nll.mean():8.3f} nats, standard error {nll.std() / len(nll) ** 0.5:.3f}"
