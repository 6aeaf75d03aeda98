"""Seconds and memory to draw a picture: cached, naive, served, and the ways of others.

    python -m benchmarks.sampling_speed                    all tables
    python -m benchmarks.sampling_speed --only diagonal    those whose name holds the word

Random weights: what a draw costs does not hang on them. Every way is a process of its own which loads the same model:

    cached, jit    model.sample(n, seed, jit_compile=True); cached without it: model.sample(n, seed)
    endpoint       `sample` of the exported SavedModel in the session of dmkeras.serving (no XLA there)
    naive          model.sample(n, seed, cached=False): the whole network for each value, in the graph
    predict        the loop of keras.io's PixelCNN example with the same network: `model.predict` for each value
    tfd.PixelCNN   TensorFlow Probability's PixelCNN++, another network, as its documentation has it (1 resnet, 2
                   hierarchies, 32 filters; here one logistic, no dropout); it asks the whole of it for each pixel

The first draw of each traces and compiles and is not timed; it is for seed 0, and the run fails unless all our ways
give the same picture, bit for bit. Then the ways take turns, medians over the turns; `x` is how many times as long as
the quickest way and as the endpoint it takes, in the same turn. CPU seconds of the process stand beside wall seconds:
with one thread they are what a quiet machine takes, and what is promised is held against them. Ways marked ~ are not
drawn to the end: 40 passes of the network are timed and multiplied. Memory is the most that the process ever held, and
in brackets what drawing (with tracing and compiling) added. Figures: benchmarks/README.md.
"""

import argparse
import collections
import hashlib
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

OURS = ("cached, jit", "cached", "endpoint", "naive, jit", "naive")
BASES = ("cached, jit", "endpoint")
PASSES = 40  # of the network, where a way is not drawn to the end
PIXEL_CNN = ("PixelCNN", {"image_shape": (28, 28, 1), "filters": 16, "num_blocks": 7})
ROW_LSTM = ("PixelRNN", {"image_shape": (28, 28, 1), "kind": "row_lstm", "filters": 16, "num_layers": 7})
DIAGONAL = ("PixelRNN", {**ROW_LSTM[1], "kind": "diagonal_bilstm"})
COLOUR = ("PixelCNN", {"image_shape": (32, 32, 3), "filters": 16, "num_blocks": 7, "levels": 256})
PEERS = ("~ predict", "tfd.PixelCNN")
QUICKER = (*OURS[:4], "~ naive")  # where a naive draw outside XLA takes a minute
ESTIMATED = (*OURS[:3], "~ naive, jit", "~ naive")
TABLES = {  # name: model, pictures, ways
    "PixelCNN, 7 blocks, h = 16, 28x28, one picture": (PIXEL_CNN, 1, (*OURS, *PEERS)),
    "diagonal BiLSTM, 7 layers, h = 16, 28x28, one picture": (DIAGONAL, 1, QUICKER),
    "Row LSTM, 7 layers, h = 16, 28x28, one picture": (ROW_LSTM, 1, OURS),
    "PixelCNN, 7 blocks, h = 16, 32x32 RGB, 256 levels, one picture": (COLOUR, 1, QUICKER),
    "PixelCNN, 7 blocks, h = 16, 28x28, 16 pictures": (PIXEL_CNN, 16, OURS),
    "diagonal BiLSTM, 7 layers, h = 16, 28x28, 16 pictures": (DIAGONAL, 16, ESTIMATED),
    "Row LSTM, 7 layers, h = 16, 28x28, 16 pictures": (ROW_LSTM, 16, ESTIMATED),
}
PROMISED = {  # table: (slow, quick, times)
    "PixelCNN, 7 blocks, h = 16, 28x28, one picture": ("naive, jit", "cached, jit", 50),
    "diagonal BiLSTM, 7 layers, h = 16, 28x28, one picture": ("naive, jit", "cached, jit", 200),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="a word of the tables' names")
    parser.add_argument("--rounds", type=int, default=5, help="turns; ways slower than --slow take only two")
    parser.add_argument("--slow", type=float, default=5.0, help="seconds a draw")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return child(**json.loads(arguments.child))
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = str(arguments.threads)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    print(f"{os.cpu_count()} cores, {arguments.threads} threads, load average {os.getloadavg()[0]:.1f}")
    broken = []
    for name, (spec, count, ways) in TABLES.items():
        if arguments.only.lower() in name.lower():
            broken += table(name, spec, count, ways, arguments)
    sys.exit("; ".join(broken) or 0)


def table(name, spec, count, ways, arguments):
    """Prints the table; the promises that it breaks, as texts."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        make = Child("make", spec, count, folder)
        make.close()
        children = {way: Child(way, spec, count, folder) for way in ways}
        rows = race(children, arguments)
        memory = {way: child.close() for way, child in children.items()}
    print(f"\n### {name}\n\nThe table began at a load average of {load:.1f}.\n")
    print("| way | wall s | CPU s | x cached, jit: wall, CPU | x endpoint: wall, CPU | peak memory (by drawing) MB |")
    print("| --- | --- | --- | --- | --- | --- |")
    for way in ways:
        seconds = " | ".join(f"{statistics.median(column):.3g}" for column in zip(*rows[way].values()))
        x = " | ".join(f"{ratio(rows, way, base, 0):.3g}, {ratio(rows, way, base, 1):.3g}" for base in BASES)
        print(f"| {way} | {seconds} | {x} | {memory[way][0]:.0f} ({memory[way][1]:.0f}) |")
    pictures = {way: child.picture for way, child in children.items() if child.picture}
    print(f"\nOne and the same picture by {', '.join(pictures)}: {len(set(pictures.values())) == 1}", flush=True)
    broken = [] if len(set(pictures.values())) == 1 else [f"{name}: pictures differ: {pictures}"]
    naive = "naive" if "naive" in ways else "~ naive"
    for slow, quick, times in filter(None, (PROMISED.get(name), (naive, "endpoint", 10))):
        if ratio(rows, slow, quick, 1) < times:
            broken.append(f"{name}: {quick} is not {times} times as fast as {slow}")
    return broken


def ratio(rows, way, base, kind):
    """How many times as long `way` takes as `base`, the median over turns; kind 0: wall seconds, 1: CPU seconds."""
    return statistics.median(rows[way][turn][kind] / rows[base][turn][kind] for turn in rows[way])


def race(children, arguments):
    """{way: {turn: (wall seconds, CPU seconds) of a draw}}; the order turns by one from turn to turn."""
    rows, ways = collections.defaultdict(dict), list(children)
    for turn in range(arguments.rounds):
        for way in ways[turn % len(ways) :] + ways[: turn % len(ways)]:
            if turn < 2 or rows[way][0][0] < arguments.slow:
                rows[way][turn] = children[way].draw()
    return rows


class Child:
    """A process that draws in one way, when asked."""

    def __init__(self, way, spec, count, folder):
        arguments = json.dumps({"way": way, "spec": spec, "count": count, "folder": folder})
        command = [sys.executable, "-m", "benchmarks.sampling_speed", "--child", arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.picture = self._answer()

    def draw(self):
        self.process.stdin.write("draw\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self):
        """(MB at most, MB of them by drawing)."""
        self.process.stdin.close()
        answer = self._answer()
        self.process.wait()
        return answer

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of {self.process.args[-1]} ended with {self.process.wait()}")
        return json.loads(line)


# --- in the process of one way --------------------------------------------------------------------------------------


def child(way, spec, count, folder):
    """Answers each line of stdin by a line of JSON on stdout; the first tells the SHA-1 of the picture, the last MB."""
    answer = lambda value: print(json.dumps(value), flush=True)
    if way == "make":
        answer(make(spec, folder))
        return answer(None)
    draw, times = (tfp_pixel_cnn(count), 1) if way == "tfd.PixelCNN" else contender(way, count, folder)
    built = peak()
    picture = draw(0)
    comparable = way in OURS
    answer(hashlib.sha1(np.asarray(picture, "float32").tobytes()).hexdigest() if comparable else None)
    seed = 0
    for _ in sys.stdin:
        draws, wall, cpu = 0, time.perf_counter(), time.process_time()
        while not draws or time.perf_counter() - wall < 0.3:
            draws, seed = draws + 1, seed + 1
            np.asarray(draw(seed))
        answer([times * (time.perf_counter() - wall) / draws, times * (time.process_time() - cpu) / draws])
    return answer([peak(), peak() - built])


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts kilobytes


def make(spec, folder):
    import keras

    import dmkeras

    keras.utils.set_random_seed(0)
    kind, arguments = spec
    model = getattr(dmkeras, kind)(**{**arguments, "image_shape": tuple(arguments["image_shape"])})
    model.save(f"{folder}/model.keras")
    dmkeras.export(model, f"{folder}/served", warmup=False)


def contender(way, count, folder):
    """(draw: seed -> pictures, by how much its time is to be multiplied)."""
    if way == "endpoint":
        from dmkeras.serving.runtime import Loaded

        (version,) = (path.parent for path in pathlib.Path(folder, "served").rglob("saved_model.pb"))
        loaded = Loaded(version, inter_op=1, intra_op=int(os.environ["TF_NUM_INTRAOP_THREADS"]))
        seeds = lambda seed: np.array([(seed, row) for row in range(count)], "int32")
        return lambda seed: loaded.run("sample", {"seed": seeds(seed)})["images"], 1

    import dmkeras

    model = dmkeras.load(f"{folder}/model.keras")
    values = int(np.prod(model.image_shape))
    if way == "~ predict":
        return lambda seed: predicted(model, count, seed, PASSES), values / PASSES
    if way.startswith("~"):
        return passes(model, count, jit_compile="jit" in way), values / PASSES
    return lambda seed: model.sample(count, seed=seed, cached="cached" in way, jit_compile="jit" in way), 1


def predicted(model, count, seed, passes):
    """https://keras.io/examples/generative/pixelcnn: the first `passes` values of pictures of two levels."""
    generator, pictures = np.random.default_rng(seed), np.zeros((count, *model.image_shape), "float32")
    for row, column, colour in list(np.ndindex(*model.image_shape))[:passes]:
        logits = model.predict(pictures, verbose=0)[:, row, column, colour]
        pictures[:, row, column, colour] = generator.random(count) < 1 / (1 + np.exp(-logits))
    return pictures


def passes(model, count, jit_compile):
    import tensorflow as tf

    forward = tf.function(model, jit_compile=jit_compile)
    generator = np.random.default_rng(0)
    images = tf.constant(generator.integers(0, 2, (count, *model.image_shape)).astype("float32"))
    return lambda seed: [forward(images) for _ in range(PASSES)][-1]


def tfp_pixel_cnn(count):
    import tensorflow as tf
    import tensorflow_probability as tfp

    options = {"num_resnet": 1, "num_hierarchies": 2, "num_filters": 32, "num_logistic_mix": 1, "dropout_p": 0.0}
    density = tfp.distributions.PixelCNN((28, 28, 1), high=1, low=0, use_weight_norm=False, **options)
    sample = tf.function(lambda: density.sample(count))
    return lambda seed: sample()


if __name__ == "__main__":
    main()
