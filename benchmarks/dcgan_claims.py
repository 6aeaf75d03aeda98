"""Three claims of the DCGAN paper (https://arxiv.org/abs/1511.06434) in the small, each beside its controls.

    python -m benchmarks.dcgan_claims --claim nearest --seconds 600
    python -m benchmarks.dcgan_claims --claim features --data fashion_mnist --seconds 600 --seeds 0 1 2
    python -m benchmarks.dcgan_claims --claim features --data cifar10_excerpt:DIR --labels 100 1000 3600
    python -m benchmarks.dcgan_claims --claim arithmetic --data mnist --picture docs/dcgan_mnist_arithmetic.png

nearest     Drawn pictures stand for their classes (supplement, table 3): a DCGAN with labels is trained on MNIST, and
            each test picture is given the label of the nearest drawn one, Euclidean and exact. Beside it as many
            training pictures, and pictures of the generator before training. As in the authors' code the same is
            measured on validation pictures while it trains, here at each epoch's end, with their mean distance to the
            nearest drawn picture; the generator of the epoch with the fewest errors is tested. That costs no seconds.
features    What D learned without labels tells classes (section 5): maxima over 4x4 of all its maps and a linear SVM
            with squared hinge and L2 penalty, beside the same SVM on D before training, on pixels and on as many
            principal components of them as COMPONENTS says below. Labelled pictures are drawn with equal classes;
            columns are centred and scaled by one number for all, over the most labelled pictures, and C is chosen on
            validation pictures. The paper trains D on ImageNet; here it is the training split of the same set.
arithmetic  Means of three latents carry what their pictures have in common (section 6.3): thick a - thin a + thin b.
            Latents are chosen by their pictures: a classifier is sure of the class, and the mean of the pixels is
            among the highest or lowest tenth of the class. The classifier and the mean tell what the sum shows, over
            `--trials` draws of exemplars; beside it thin b alone, thin b plus a random vector as long as thick a - thin
            a, and the same sum of pictures in place of latents. The picture shows the first draw and, as the paper
            does, the result amid eight others with uniform noise of +-0.25 on the latent.

Training ends after `--seconds` or `--epochs`, whichever comes first; tracing the first step counts. A figure means
something beside its seconds, its machine and its controls alone.
"""

import argparse
import itertools
import time
import warnings

import keras
import numpy as np

import dmkeras
from dmkeras import figures
from dmkeras.backbones import small_cnn
from dmkeras.data import binarization
from dmkeras.parts import nearest_pictures

BATCH = 500  # pictures a network sees at a time, after training
COMPONENTS = 128
SURE, NOISE, EXEMPLARS = 0.95, 0.25, 3
PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)  # C of the SVM


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claim", choices=list(CLAIMS), required=True)
    parser.add_argument("--data", help="default: mnist; of features fashion_mnist")
    parser.add_argument("--data-dir")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--seconds", type=float, default=600.0, help="of training, for each seed")
    parser.add_argument("--epochs", type=int, default=1000, help="of training at most")
    parser.add_argument("--filters", type=int, default=64)
    parser.add_argument("--latent-size", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--precision", choices=["float32", "mixed_bfloat16"], default="float32")
    parser.add_argument("--average", type=float, default=0.0, help="decay of the generator that draws; 0: G itself")
    parser.add_argument("--limit", type=int, help="only so many pictures of each split")
    parser.add_argument("--samples", type=int, nargs="+", default=[10_000, 50_000], help="nearest: pictures drawn")
    parser.add_argument("--check", type=int, default=2_000, help="nearest: validation pictures at each epoch's end")
    parser.add_argument("--labels", type=int, nargs="+", default=[100, 1_000, 10_000], help="features: how many")
    parser.add_argument("--classes", type=int, nargs=2, default=[3, 7], help="arithmetic: a and b")
    parser.add_argument("--pool", type=int, default=20_000, help="arithmetic: latents to choose from")
    parser.add_argument("--trials", type=int, default=500, help="arithmetic: draws of exemplars")
    parser.add_argument("--picture", help="arithmetic: draw the first seed's into this PNG")
    arguments = parser.parse_args()
    arguments.data = arguments.data or {"features": "fashion_mnist"}.get(arguments.claim, "mnist")
    data = {split: read(arguments, split) for split in ("train", "validation", "test")}
    counts = ", ".join(f"{len(images)} {split}" for split, (images, _) in data.items())
    print(f"{arguments.data}: {counts} pictures {list(data['train'][0].shape[1:])}", flush=True)
    CLAIMS[arguments.claim](arguments, data)


def read(arguments, split):
    """(pictures [N, H, W, C], labels [N]) of a split."""
    parts = (binarization.images, binarization.labels)
    return tuple(part(arguments.data, split, "none", data_dir=arguments.data_dir)[: arguments.limit] for part in parts)


# --- training -------------------------------------------------------------------------------------------------------


def untrained(arguments, images, seed, num_classes=0):
    keras.utils.set_random_seed(seed)
    sizes = arguments.latent_size, arguments.filters
    options = {"average": arguments.average, "num_classes": num_classes, "dtype": arguments.precision}
    return dmkeras.DCGAN(images.shape[1:], *sizes, **options)


def train(model, arguments, images, labels=None, at_epoch_end=lambda epoch, seconds: None):
    """Fits the model for the time that is given, and says how far it came."""
    adam = lambda: keras.optimizers.Adam(arguments.learning_rate, beta_1=0.5)
    model.compile(adam(), adam(), jit_compile=False)
    clock = Clock(arguments.seconds, at_epoch_end)
    options = {"batch_size": arguments.batch_size, "epochs": arguments.epochs, "callbacks": [clock], "verbose": 0}
    history = model.fit(images, labels, **options).history
    last = ", ".join(f"{name} {values[-1]:.3f}" for name, values in history.items())
    print(f"trained for {clock.seconds:.0f} s, {clock.steps / clock.per_epoch:.2f} epochs; {last}", flush=True)


class Clock(keras.callbacks.Callback):
    """Ends training in the middle of an epoch if need be; what `at_epoch_end(epoch, seconds)` takes is not counted."""

    def __init__(self, limit, at_epoch_end):
        super().__init__()
        self.limit, self.at_epoch_end, self.seconds, self.steps = limit, at_epoch_end, 0.0, 0

    def on_train_begin(self, logs=None):
        self.last, self.per_epoch = time.perf_counter(), self.params["steps"]

    def on_train_batch_end(self, batch, logs=None):
        now = time.perf_counter()
        self.seconds, self.last, self.steps = self.seconds + now - self.last, now, self.steps + 1
        if self.seconds >= self.limit:
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        self.at_epoch_end(epoch + 1, self.seconds)
        self.last = time.perf_counter()


def by_batches(function, *arrays):
    """`function` of arrays [N, ...], BATCH rows at a time, as one NumPy array."""
    starts = range(0, len(arrays[0]), BATCH)
    return np.concatenate([np.asarray(function(*(a[i : i + BATCH] for a in arrays))) for i in starts])


# --- nearest --------------------------------------------------------------------------------------------------------


def nearest(arguments, data):
    train_set, test = data["train"], data["test"]
    num_classes, counts = int(train_set[1].max()) + 1, [c for c in arguments.samples if c <= len(train_set[0])]
    rows = [("training pictures", "", c, *judged(test, *(part[:c] for part in train_set))) for c in counts]
    for seed in arguments.seeds:
        model = untrained(arguments, train_set[0], seed, num_classes)
        rows += of_generator("generator before training", model, arguments, seed, test)
        best = Best(model, arguments, data["validation"], seed)
        print("| epoch | seconds | validation errors | distance |\n| --- | --- | --- | --- |")
        train(model, arguments, *train_set, best.look)
        model.set_weights(best.weights)
        rows += of_generator(f"DCGAN, epoch {best.epoch}", model, arguments, seed, test)
    print(f"\n1-nearest-neighbour test errors of {len(test[0])} pictures")
    print("| labelled pictures | seed | how many | errors | mean distance |\n| --- | --- | --- | --- | --- |")
    for name, seed, count, errors, distance in rows:
        print(f"| {name} | {seed} | {count} | {errors:.2%} | {distance:.3f} |")


class Best:
    """The weights of the epoch whose drawn pictures tell the fewest validation pictures wrong."""

    def __init__(self, model, arguments, validation, seed):
        self.model, self.seed, self.count = model, seed, min(10_000, *arguments.samples)
        self.held_out = tuple(part[: arguments.check] for part in validation)
        self.errors, self.weights, self.epoch = np.inf, None, 0

    def look(self, epoch, seconds):
        errors, distance = judged(self.held_out, *labelled_draws(self.model, self.count, self.seed))
        print(f"| {epoch} | {seconds:.0f} | {errors:.2%} | {distance:.3f} |", flush=True)
        if errors < self.errors:
            self.errors, self.weights, self.epoch = errors, self.model.get_weights(), epoch


def of_generator(name, model, arguments, seed, test):
    drawn = labelled_draws(model, max(arguments.samples), seed)
    return [(name, seed, n, *judged(test, *(part[:n] for part in drawn))) for n in arguments.samples]


def labelled_draws(model, count, seed):
    """(pictures, labels): `count` draws of uniform classes; fewer are the first of more."""
    generator = np.random.default_rng(seed)
    numbers = generator.random((count, model.latent_size + 1))
    z, labels = (2 * numbers[:, 1:] - 1).astype("float32"), (numbers[:, 0] * model.num_classes).astype(int)
    return by_batches(model.generate, z, labels), labels


def judged(held_out, images, labels):
    """(share of held-out pictures whose nearest of `images` has another label, mean distance to the nearest)."""
    indices, distances = nearest_pictures.nearest(held_out[0], images)
    return float(np.mean(labels[indices] != held_out[1])), float(distances.mean())


# --- features -------------------------------------------------------------------------------------------------------


def features(arguments, data):
    images, labels = data["train"]
    counts = sorted({min(count, len(images)) for count in arguments.labels})
    found = {}
    for seed in arguments.seeds:
        chosen = balanced(labels, counts[-1], seed)
        sets = [(images[chosen], labels[chosen]), tuple(p[:2_000] for p in data["validation"]), data["test"]]
        model = untrained(arguments, images, seed)
        before = seen_by(model.features, sets)
        train(model, arguments, images)
        pixels = seen_by(lambda pictures: pictures.reshape(len(pictures), -1), sets)
        kinds = {"D": seen_by(model.features, sets), "D before training": before, "pixels": pixels}
        kinds["principal components"] = components(images, pixels)
        for (name, parts), count in itertools.product(kinds.items(), counts):
            accuracy, penalty = svm(parts, [y for _, y in sets], count)
            found.setdefault((f"{name}, {parts[0].shape[1]} numbers", count), []).append(accuracy)
            print(f"seed {seed}, {name}, {count} labels: {accuracy:.4f} (C = {penalty:g})", flush=True)
    print(f"\ntest accuracy of {len(data['test'][0])} pictures, mean over seeds {arguments.seeds} (least to most)")
    print(f"| linear SVM on | {' | '.join(f'{count} labels' for count in counts)} |")
    print(f"| --- |{' --- |' * len(counts)}")
    for name in dict.fromkeys(name for name, _ in found):
        told = [f"{np.mean(a):.3f} ({min(a):.3f} to {max(a):.3f})" for a in (found[name, count] for count in counts)]
        print(f"| {name} | {' | '.join(told)} |")


def seen_by(function, sets):
    return [by_batches(function, pictures) for pictures, _ in sets]


def balanced(labels, count, seed):
    """Rows of `count` pictures: of every beginning the classes have equally many, as far as there are such."""
    order = np.random.default_rng(seed).permutation(len(labels))
    place = np.zeros(len(labels), int)
    for kind in np.unique(labels):
        mine = labels[order] == kind
        place[mine] = np.arange(mine.sum())
    return order[np.argsort(place, kind="stable")][:count]


def components(images, pixels):
    """Rows of pixels -> their principal components among all training pictures, which need no labels."""
    from sklearn.decomposition import PCA

    flat = images.reshape(len(images), -1)
    found = PCA(min(COMPONENTS, *flat.shape), random_state=0).fit(flat)
    return [found.transform(part) for part in pixels]


def svm(parts, labels, count):
    """(test accuracy, C) of an SVM of `count` labelled rows, whose C is the best on the validation rows."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    mean, variance = parts[0].mean(axis=0), parts[0].var(axis=0).sum()
    train, validation, test = ((part - mean) / variance**0.5 for part in parts)  # rows of length 1, in the mean
    best = (-1.0, 0.0, 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of the largest C, which validation judges like the others
        for penalty in PENALTIES:
            machine = LinearSVC(C=penalty, dual="auto", random_state=0).fit(train[:count], labels[0][:count])
            validated = machine.score(validation, labels[1])
            best = max(best, (validated, machine.score(test, labels[2]), penalty), key=lambda found: found[0])
    return best[1:]


# --- arithmetic -----------------------------------------------------------------------------------------------------


def arithmetic(arguments, data):
    images, labels = data["train"]
    referee = small_cnn.trained(images, labels)
    print(f"the classifier is right of {np.mean(told(referee, data['test'][0]).argmax(1) == data['test'][1]):.2%}")
    print("| seed | latent | told as b | mean pixel |\n| --- | --- | --- | --- |")
    for seed in arguments.seeds:
        model = untrained(arguments, images, seed)
        train(model, arguments, images)
        generator = np.random.default_rng(seed)
        groups = exemplars(model, referee, arguments, generator)
        drawn = [trial(groups, generator) for _ in range(arguments.trials)]
        report(seed, model, referee, arguments.classes[1], groups, drawn, generator)
        if arguments.picture and seed == arguments.seeds[0]:
            print(figures.save(arguments.picture, sheet(model, arguments.classes, drawn[0], generator)))


def told(referee, images):
    """Probabilities [N, K] by the classifier."""
    logits = by_batches(referee, images)
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    return chances / chances.sum(axis=1, keepdims=True)


def exemplars(model, referee, arguments, generator):
    """{"thick a": latents [N, Z], ...} whose pictures show it; SystemExit where there are too few."""
    z = generator.uniform(-1, 1, (arguments.pool, model.latent_size)).astype("float32")
    images = by_batches(model.generate, z)
    chances, ink, groups = told(referee, images), images.mean(axis=(1, 2, 3)), {}
    for name, kind in zip("ab", arguments.classes, strict=True):
        sure = np.flatnonzero((chances.argmax(axis=1) == kind) & (chances.max(axis=1) >= SURE))
        tenth = len(sure) // 10
        if tenth < EXEMPLARS:
            raise SystemExit(
                f"{len(sure)} of {len(z)} pictures are surely of class {kind}; train longer or --pool more"
            )
        order = sure[np.argsort(ink[sure])]
        groups |= {f"thin {name}": z[order[:tenth]], f"thick {name}": z[order[-tenth:]]}
    return groups


def trial(groups, generator):
    """Three latents of each group."""
    return {name: z[generator.choice(len(z), EXEMPLARS, replace=False)] for name, z in groups.items()}


def report(seed, model, referee, kind, groups, drawn, generator):
    """A row for the sum of concepts, and for each of its controls."""
    mean = {name: np.stack([trial[name].mean(axis=0) for trial in drawn]) for name in groups}
    concept = mean["thick a"] - mean["thin a"]
    chance = generator.normal(size=concept.shape).astype("float32")
    chance *= np.linalg.norm(concept, axis=1, keepdims=True) / np.linalg.norm(chance, axis=1, keepdims=True)
    latents = {
        "thick a - thin a + thin b": concept + mean["thin b"],
        "thin b": mean["thin b"],
        "thin b + a random vector": chance + mean["thin b"],
        "exemplars: thin b": groups["thin b"],
        "exemplars: thick b": groups["thick b"],
    }
    pictures = {name: by_batches(model.generate, z) for name, z in latents.items()}
    pictures["the sum of pictures in place of latents"] = np.stack([of_pictures(model, trial) for trial in drawn])
    for name, images in pictures.items():
        share = np.mean(told(referee, images).argmax(axis=1) == kind)
        print(f"| {seed} | {name} | {share:.1%} | {images.mean():.4f} |", flush=True)


def of_pictures(model, trial):
    """The mean of pictures thick a - thin a + thin b, cut to [0, 1]: [H, W, C]."""
    mean = {name: np.mean(model.generate(z), axis=0) for name, z in trial.items()}
    return np.clip(mean["thick a"] - mean["thin a"] + mean["thin b"], 0, 1)


def sheet(model, classes, trial, generator):
    """Rows of three exemplars and the picture of their mean; below, three rows of the result amid noise."""
    names = ("thick a", "thin a", "thin b")
    tiles, labels = [], []
    for sign, name in zip(("", "- ", "+ "), names, strict=True):
        tiles += [*model.generate(trial[name]).numpy(), model.arithmetic([trial[name]]).numpy()]
        labels.append(f"{sign}{name[:-1]}{classes['ab'.index(name[-1])]}")
    z = trial["thick a"].mean(0) - trial["thin a"].mean(0) + trial["thin b"].mean(0)
    noise = generator.uniform(-NOISE, NOISE, (9, len(z)))
    noise[4] = 0
    around = model.generate(z + noise).numpy()
    pixels = of_pictures(model, trial)
    blank = np.ones_like(pixels)
    for row, last in enumerate((blank, pixels, blank)):
        tiles += [*around[3 * row : 3 * row + 3], last]
    labels += ["", "= (in the middle, amid noise)", ""]
    title = "right: pictures of the means; below it, the sum of pictures in place of latents"
    return figures.grid(tiles, 4, row_labels=labels, title=title, gap=4, ground=(200, 200, 200))


CLAIMS = {"nearest": nearest, "features": features, "arithmetic": arithmetic}


if __name__ == "__main__":
    main()
