"""GAN beside DCGAN of equal budget: the same data, seconds of training, referee and measures, several seeds.

    python -m benchmarks.gan_comparison --data fashion_mnist --precision mixed_bfloat16 --out gan_fashion_mnist.jsonl
    python -m benchmarks.gan_comparison --data cifar10_excerpt:DIR --out gan_cifar10.jsonl --picture gan_cifar10.png
    python -m benchmarks.gan_comparison --report --out gan_cifar10.jsonl --picture gan_cifar10.png

Architectures, batch sizes and learning rates are the recipes' (training/gan.py, training/dcgan.py). A run ends after
`--seconds` of steps on `--threads` threads: processor time of this process (`--clock wall`: time that passes), so that
what else the machine does is not counted. The pictures lie in memory and are gathered by index within the step;
building, tracing and the choice of the indices are outside the clock. Steps run in chunks of about half a second.

How many steps fit is estimated by a model that is thrown away: it is traced, then runs chunks of 1, 2, 4 ... steps
until one lasts a quarter of a second, then such chunks for a fiftieth of the budget, three at least and 5 s at most;
the median of these counts. GAN's learning rate falls tenfold over the steps so estimated, as in its recipe over all
epochs. The first chunk of a run, in which TensorFlow prepares the graph, is charged at that rate; all others by the
clock.

Every run is a line of `--out` as soon as it is done, and is not run again when the line is there; its first samples and
the referee lie in the folder of the same name without the suffix. The referee is a small classifier trained on the
training split (backbones/small_cnn.py), one and the same for all runs of a file, its test accuracy in each line. Of
`cifar10_excerpt` it sees every training picture and its mirror image 15 times, after which .657 of the test pictures
are right (after 6 times .622). Held-out pictures are the validation split in the samples' place.

`--report` prints medians and ranges over seeds. A model is nearer to the data by a measure if its figure is nearer to
that of held-out pictures; of the distances this is the smaller one.
"""

import argparse
import json
import pathlib
import statistics
import time

import keras
import numpy as np
import tensorflow as tf

import dmkeras
from dmkeras import figures
from dmkeras.backbones import small_cnn
from dmkeras.data import binarization as binary
from dmkeras.parts import sample_report
from dmkeras.resumable import replace
from training import dcgan, gan

MODELS = {"GAN": gan.DEFAULTS, "DCGAN": dcgan.DEFAULTS}
CIFAR_EPOCHS = 15
CHUNK, MOST = 0.5, 256  # seconds and steps between two looks at the clock
SHOWN = 16  # samples of each run that are kept for the picture
SETTINGS = ("data", "seconds", "clock", "threads", "precision", "filters", "hidden_size", "maxout_units", "pictures")
SETTINGS += ("referee_epochs",)
TITLES = {
    "frechet_distance": "Frechet distance",
    "kernel_distance": "kernel distance",
    "classifier_score": "classifier score",
    "class_coverage": "class coverage",
    "class_entropy": "class entropy, nats",
    "precision": "precision",
    "recall": "recall",
    "memorised": "memorised",
}


def main():
    arguments = parsed()
    records = read(arguments.out)
    if not arguments.report:
        tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
        tf.config.threading.set_inter_op_parallelism_threads(arguments.threads)
        records = measure(arguments, records)
    report(records)
    if arguments.picture:
        print(figures.save(arguments.picture, picture(records, arguments.out.with_suffix(""))))


def parsed():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="a file of JSON lines, one for each run")
    parser.add_argument("--report", action="store_true", help="train nothing, print what the file holds")
    parser.add_argument("--picture", type=pathlib.Path, help="a PNG of samples of all runs and of the data")
    parser.add_argument("--data", default="fashion_mnist", help="fashion_mnist, cifar10_excerpt:DIR or another set")
    parser.add_argument("--data-dir")
    parser.add_argument("--seconds", type=float, default=300.0, help="of training for each run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--clock", choices=["cpu", "wall"], default="cpu", help="what --seconds counts")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=["float32", "mixed_bfloat16", "mixed_float16"], default="float32")
    parser.add_argument("--filters", type=int, help="of DCGAN; default: the recipe's")
    parser.add_argument("--hidden-size", type=int, help="of GAN; default: the recipe's")
    parser.add_argument("--maxout-units", type=int, help="of GAN; default: the recipe's")
    parser.add_argument("--pictures", type=int, default=5000, help="of each set that is measured, at most")
    parser.add_argument("--referee-epochs", type=int, help="default: as many as the data want")
    arguments = parser.parse_args()
    if arguments.out.suffix != ".jsonl":
        parser.error(f"--out: expected a file NAME.jsonl, received {arguments.out}")
    if arguments.report and not arguments.out.exists():
        parser.error(f"--out: there is no {arguments.out} to report")
    if arguments.picture and (arguments.picture.exists() or arguments.picture.suffix != ".png"):
        parser.error(f"--picture: expected a new file NAME.png, received {arguments.picture}")
    if arguments.seconds <= 0 or arguments.threads < 1:
        parser.error("--seconds and --threads: expected more than 0")
    return arguments


# --- runs -----------------------------------------------------------------------------------------------------------


def measure(arguments, records):
    """The records with those of the runs that were missing, each on the disk as soon as it is there."""
    settings = {name: getattr(arguments, name) for name in SETTINGS}
    settings["data"] = arguments.data.partition(":")[0]
    others = [record["settings"] for record in records if record["settings"] != settings]
    if others:
        changed = [f"{name} {others[0].get(name)}" for name in SETTINGS if others[0].get(name) != settings[name]]
        raise SystemExit(f"{arguments.out} holds runs of {', '.join(changed)}; give these, or another --out")
    done = {(record["model"], record["seed"]) for record in records}
    missing = [(name, seed) for seed in arguments.seeds for name in arguments.models if (name, seed) not in done]
    if not missing:
        return records
    folder, source = arguments.out.with_suffix(""), {"data_dir": arguments.data_dir}
    folder.mkdir(parents=True, exist_ok=True)
    images, _ = binary.splits(arguments.data, "none", 1, **source)
    labels = {split: binary.labels(arguments.data, split, "none", **source) for split in ("train", "test")}
    referee, accuracy = the_referee(arguments, images, labels, folder / "referee.keras")
    replace(folder / "data.npy", lambda path: save_pictures(path, images["test"][:SHOWN]))
    train = tf.constant(images["train"])
    for name, seed in missing:
        model, record = trained(name, seed, train, arguments)
        started = time.perf_counter()
        record["figures"] = sample_report.figures(model, referee, images, arguments.pictures)
        record |= {"measured_in": time.perf_counter() - started, "referee_accuracy": accuracy, "settings": settings}
        samples = model.sample(SHOWN, seed=0)
        replace(folder / f"{name}_{seed}.npy", lambda path, samples=samples: save_pictures(path, samples))
        records = [*records, record]
        lines = "".join(f"{json.dumps(record)}\n" for record in records)
        replace(arguments.out, lambda path, lines=lines: path.write_text(lines))
        told = f"{record['steps']} steps ({record['expected_steps']} expected), {record['cpu_seconds']:.0f} s"
        print(f"{name}, seed {seed}: {told}, Frechet {record['figures']['frechet_distance']:.2f}", flush=True)
    return records


def the_referee(arguments, images, labels, path):
    """The classifier that judges all runs of a file, trained where it is not there, and its test accuracy."""
    if not path.exists():
        x, y, epochs = images["train"], labels["train"], arguments.referee_epochs
        if arguments.data.startswith("cifar10_excerpt:"):
            x, y = np.concatenate([x, x[:, :, ::-1]]), np.concatenate([y, y])
            epochs = epochs or CIFAR_EPOCHS
        replace(path, small_cnn.trained(x, y, epochs=epochs).save)
    referee = dmkeras.load(path)
    parts = [slice(i, i + 500) for i in range(0, len(images["test"]), 500)]
    right = [np.argmax(referee(images["test"][part]), axis=1) == labels["test"][part] for part in parts]
    accuracy = float(np.concatenate(right).mean())
    print(f"referee: {accuracy:.3f} of {len(images['test'])} test pictures right", flush=True)
    return referee, accuracy


def trained(name, seed, images, arguments):
    """A model after its seconds of training, and what is to be told of it."""
    batch_size = recipes(name, arguments)[-2]
    keras.backend.clear_session()
    keras.config.set_dtype_policy(arguments.precision)
    per_step = seconds_a_step(make(name, seed, images, arguments, 1000), images, batch_size, arguments)
    expected = max(1, round(arguments.seconds / per_step))
    model = make(name, seed, images, arguments, expected)
    run, rows = steps_of(model, images), orders(len(images), batch_size, seed)
    chunk, steps, spent, cpu, wall = max(1, min(MOST, round(CHUNK / per_step))), 0, 0.0, 0.0, 0.0
    while spent < arguments.seconds:
        model.reset_metrics()
        indices = tf.constant(np.stack([next(rows) for _ in range(chunk)]))
        passed = timed(run, indices)
        spent += passed[arguments.clock] if steps else chunk * per_step
        steps, cpu, wall = steps + chunk, cpu + passed["cpu"], wall + passed["wall"]
    last = {tracker.name: float(tracker.result()) for tracker in model.trackers}
    keras.config.set_dtype_policy("float32")
    told = {"model": name, "seed": seed, "weights": model.count_params(), "steps": steps, "expected_steps": expected}
    told |= {"epochs": steps * batch_size / len(images), "seconds": spent, "cpu_seconds": cpu, "wall_seconds": wall}
    return model, {**told, "last_chunk": last}


def recipes(name, arguments):
    """The recipe's settings for these data: latent size, other sizes, epochs, batch size, learning rate."""
    return MODELS[name].get(arguments.data.partition(":")[0], MODELS[name]["mnist"])


def make(name, seed, images, arguments, steps):
    """A compiled model of the recipe's settings, whose learning rate is planned for so many steps."""
    keras.utils.set_random_seed(seed)
    latent_size, *sizes, _, _, rate = recipes(name, arguments)
    shape = tuple(images.shape[1:])
    if name == "GAN":
        hidden_size, maxout_units = arguments.hidden_size or sizes[0], arguments.maxout_units or sizes[1]
        model = dmkeras.GAN(shape, latent_size, hidden_size, maxout_units)
        falling = lambda: keras.optimizers.schedules.ExponentialDecay(rate, steps, 0.1)
        optimizer = lambda: keras.optimizers.SGD(falling(), momentum=0.5)
    else:
        model = dmkeras.DCGAN(shape, latent_size, arguments.filters or sizes[0])
        optimizer = lambda: keras.optimizers.Adam(rate, beta_1=0.5)
    model.compile(optimizer(), optimizer(), jit_compile=False)
    return model


def seconds_a_step(model, images, batch_size, arguments):
    """Median over chunks that last long enough to be timed."""
    run, rows = steps_of(model, images), orders(len(images), batch_size, 0)
    chunk = lambda size: timed(run, tf.constant(np.stack([next(rows) for _ in range(size)])))[arguments.clock]
    size, times, limit = 1, [], min(5.0, arguments.seconds / 50)
    chunk(size)  # prepares the graph
    while size < MOST and chunk(size) < CHUNK / 2:
        size *= 2
    while len(times) < 3 or sum(times) < limit:
        times.append(chunk(size))
    return statistics.median(times) / size


def steps_of(model, images):
    """Indices of pictures [N, B] -> D's mean loss of N steps of training, one graph for any N."""

    @tf.function(input_signature=[tf.TensorSpec((None, None), "int32")], autograph=False)
    def run(indices):
        def step(i):
            model.train_step(tf.gather(images, indices[i]))
            return i + 1

        tf.while_loop(lambda i: i < tf.shape(indices)[0], step, [tf.constant(0)])
        return model.trackers[0].result()

    return run


def orders(count, batch_size, seed):
    """Batches of indices [B] without end, each epoch shuffled anew; what is left of an epoch is left out."""
    generator = np.random.default_rng(seed)
    while True:
        order = generator.permutation(count).astype("int32")
        yield from order[: count // batch_size * batch_size].reshape(-1, batch_size)


def timed(run, indices):
    """Seconds of processor and of the wall."""
    before = time.process_time(), time.perf_counter()
    float(run(indices))  # waits for an accelerator too
    return {"cpu": time.process_time() - before[0], "wall": time.perf_counter() - before[1]}


# --- what the file holds --------------------------------------------------------------------------------------------


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def save_pictures(path, images):
    with open(path, "wb") as file:
        np.save(file, np.asarray(images))


def report(records):
    """A Markdown table: median and range over seeds."""
    by_model = {name: {r["seed"]: r for r in records if r["model"] == name} for name in MODELS}
    by_model = {name: runs for name, runs in by_model.items() if runs}
    first = records[0]
    told = [f"{name.replace('_', ' ')} {value}" for name, value in first["settings"].items() if value is not None]
    print(f"\n{', '.join(told)}; the referee tells {first['referee_accuracy']:.3f} of the test pictures right\n")
    seeds = {name: f"{name}, {len(runs)} seed{'s'[: len(runs) - 1]}" for name, runs in by_model.items()}
    print(f"| | {' | '.join(seeds.values())} | held out | DCGAN nearer in |")
    print(f"| --- |{' --- |' * (len(seeds) + 2)}")
    for key in ("weights", "steps", "epochs", "cpu_seconds", "wall_seconds"):
        cells = [middle([run[key] for run in runs.values()]) for runs in by_model.values()]
        print(f"| {key.replace('_', ' ')} | {' | '.join(cells)} | | |")
    for key, title in TITLES.items():
        cells = [middle([run["figures"][key] for run in runs.values()]) for runs in by_model.values()]
        held_out = {record["figures"][f"real_{key}"] for record in records}
        print(f"| {title} | {' | '.join(cells)} | {middle(list(held_out))} | {verdict(by_model, key)} |")


def middle(values):
    """Median (lowest to highest)."""
    text = lambda value: f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    median, low, high = (text(value) for value in (statistics.median(values), min(values), max(values)))
    return median if low == high else f"{median} ({low} to {high})"


def verdict(by_model, key):
    """In how many of the seeds that both models have DCGAN's figure is nearer to the held-out pictures' than GAN's."""
    seeds = sorted(set.intersection(*(set(by_model.get(name, {})) for name in MODELS)))
    if not seeds:
        return ""
    away = lambda run: abs(run["figures"][key] - run["figures"][f"real_{key}"])
    pairs = [(away(by_model["GAN"][seed]), away(by_model["DCGAN"][seed])) for seed in seeds]
    nearer, equal = sum(b < a for a, b in pairs), sum(a == b for a, b in pairs)
    counted = f"{nearer} of {len(seeds)}" + (f", {equal} equal" if equal else "")
    return f"every seed ({counted})" if nearer == len(seeds) else counted


def picture(records, folder):
    """A row of test pictures, then a row of samples of each run."""
    rows = {"data": np.load(folder / "data.npy")}
    for record in sorted(records, key=lambda record: (-list(MODELS).index(record["model"]), record["seed"])):
        rows[f"{record['model']}, seed {record['seed']}"] = np.load(folder / f"{record['model']}_{record['seed']}.npy")
    settings = records[0]["settings"]
    title = f"{settings['data']}: samples after {settings['seconds']:g} s of training"
    return figures.labelled_rows(rows, title=title, gap=2, ground=(200, 200, 200))


if __name__ == "__main__":
    main()
