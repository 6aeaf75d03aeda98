"""Time and memory of a softmax over the groups of darknet's tree, beside a flat one and a loop over its groups.

    python -m benchmarks.word_tree_speed --tree DIR/data/9k.tree --pictures 2

DIR is a checkout of github.com/pjreddie/darknet. Logits are random, of 13 x 13 x 3 boxes a picture over 9418 nodes in
1846 groups. `forward` is ln Pr(node | its parent), `gradient` that of a sum of them; `products` are ln Pr(node).
`padded` is a softmax of an array [groups, largest group]. Each runs in a process of its own: the fastest of `--rounds`
calls, the seconds of its first call (tracing), and by how much the process grew beyond its inputs.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time

BOXES = 13 * 13 * 3


def contenders(tree):
    """{name: function of logits [R, n] -> ln of conditionals, or of probabilities}."""
    import numpy as np
    import tensorflow as tf

    sizes = np.bincount(tree.groups)
    table = np.full((len(sizes), sizes.max()), len(tree))
    table[np.arange(sizes.max()) < sizes[:, None]] = np.arange(len(tree))
    places = np.flatnonzero(table.ravel() < len(tree))

    def padded(logits):
        wide = tf.gather(tf.pad(logits, [[0, 0], [0, 1]], constant_values=-1e30), table, axis=-1)
        return tf.gather(tf.reshape(tf.nn.log_softmax(wide), [-1, table.size]), places, axis=-1)

    def loop(logits):
        return tf.concat([tf.nn.log_softmax(part) for part in tf.split(logits, sizes, axis=-1)], -1)

    return {
        "flat softmax": tf.nn.log_softmax,
        "fused": tree.log_conditionals,
        "loop over groups": loop,
        "padded": padded,
        "fused, products": tree.log_probs,
    }


def measure(path, name, way, rows, rounds):
    """Prints one contender's figures as JSON."""
    import numpy as np
    import tensorflow as tf

    from dmkeras.parts.word_tree import WordTree

    tree = WordTree.from_file(path)
    run = contenders(tree)[name]
    drawn = np.random.default_rng(0).standard_normal((rows, len(tree)), "float32")  # kept: what was freed hides growth
    drawn *= 2
    logits = tf.constant(drawn)
    weights = tf.constant(np.random.default_rng(1).normal(size=len(tree)).astype("float32"))

    def gradient(logits):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            total = tf.reduce_sum(run(logits) * weights)
        return tape.gradient(total, logits)

    compiled = tf.function(gradient if way == "gradient" else run)
    tf.function(lambda logits: tf.exp(logits) + 1)(logits[:1])  # what TensorFlow itself needs
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    answer = compiled(logits)
    found = {"first": time.perf_counter() - start, "check": float(tf.reduce_mean(tf.abs(answer)))}
    del answer
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        compiled(logits)[0, 0].numpy()
        times.append(time.perf_counter() - start)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps(found | {"milliseconds": 1000 * min(times), "mebibytes": grown}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", required=True, help="9k.tree of darknet")
    parser.add_argument("--pictures", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--names", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    rows = args.pictures * BOXES
    if args.one:
        return measure(args.tree, *args.one, rows, args.rounds)
    print(f"{rows} boxes; an array of logits is {rows * 9418 * 4 / 2**20:.0f} MiB")
    print("| | way | ms | first call [s] | memory [MiB] |", "| --- | --- | ---: | ---: | ---: |", sep="\n")
    ways = [(name, way) for way in ("forward", "gradient") for name in args.names]
    checks = {}
    for name, way in ways:
        command = [sys.executable, "-m", "benchmarks.word_tree_speed", "--tree", args.tree, "--one", name, way]
        command += ["--pictures", str(args.pictures), "--rounds", str(args.rounds)]
        found = json.loads(subprocess.check_output(command, text=True, env={**os.environ, **THREADS}).splitlines()[-1])
        checks.setdefault((way, name in ("fused", "loop over groups", "padded")), []).append((name, found["check"]))
        cells = f"{found['milliseconds']:.0f} | {found['first']:.1f} | {found['mebibytes']:.0f}"
        print(f"| {name} | {way} | {cells} |", flush=True)
    for (way, same), told in checks.items():
        values = [value for _, value in told]
        if same and max(values) > min(values) * (1 + 1e-4):
            raise SystemExit(f"{way}: the ways differ: {told}")


NAMES = ("flat softmax", "fused", "loop over groups", "padded", "fused, products")
THREADS = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}

if __name__ == "__main__":
    main()
