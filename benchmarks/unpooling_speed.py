"""Speed of pooling that remembers positions and of its unpooling: dmkeras's beside TensorFlow's operation.

    python -m benchmarks.unpooling_speed              prints a table, milliseconds a call
    python -m benchmarks.unpooling_speed --seconds 3  as long as this for each cell

TensorFlow's is tf.nn.max_pool_with_argmax, whose places count through the whole batch, and tf.scatter_nd; it has no XLA
kernel on CPUs. Answers and gradients must be equal first. A cell is the fastest of calls that take turns with the other
candidates', so that load on the machine meets all; "gradient" is that of the sum of squares of what was unpooled.
"""

import argparse
import itertools
import time

import numpy as np
import tensorflow as tf

from dmkeras.parts import upsampling

SHAPES = [(1, 256, 256, 16), (8, 128, 128, 32), (8, 32, 32, 128)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each cell of the table")
    seconds = parser.parse_args().seconds
    print("| maps | call |", " | ".join(candidates(False)), "|")
    print("| --- | --- |" + " --- |" * len(candidates(False)))
    for shape, backwards in itertools.product(SHAPES, (False, True)):
        maps = tf.constant(np.random.default_rng(0).normal(size=shape).astype("float32"))
        runs = candidates(backwards)
        compare(runs, maps)
        cells = " | ".join(f"{1e3 * taken:.2f}" for taken in fastest(runs, maps, seconds))
        print(f"| {' x '.join(map(str, shape))} | {'gradient' if backwards else 'forward'} | {cells} |", flush=True)


def candidates(backwards):
    """{name: function of maps -> maps that were pooled by 2 and unpooled, or the gradient of their squares}."""

    def made(unpooled, **options):
        def gradient(maps):
            with tf.GradientTape() as tape:
                tape.watch(maps)
                total = tf.reduce_sum(unpooled(maps) ** 2)
            return tape.gradient(total, maps)

        return tf.function(gradient if backwards else unpooled, **options)

    ours = lambda maps: upsampling.max_unpool(*upsampling.max_pool(maps))
    return {"dmkeras": made(ours), "dmkeras, XLA": made(ours, jit_compile=True), "TensorFlow": made(tensorflows)}


def tensorflows(maps):
    best, places = tf.nn.max_pool_with_argmax(maps, 2, 2, "VALID", include_batch_in_index=True)
    flat = tf.scatter_nd(tf.reshape(places, (-1, 1)), tf.reshape(best, [-1]), [tf.size(maps, "int64")])
    return tf.reshape(flat, tf.shape(maps))


def compare(runs, maps):
    """SystemExit where two candidates answer differently."""
    first, *others = (run(maps).numpy() for run in runs.values())
    if not all(np.array_equal(first, other) for other in others):
        raise SystemExit(f"{' and '.join(runs)} do not answer the same")


def fastest(runs, maps, seconds):
    """Seconds of the fastest call of each."""
    times, end = {name: [] for name in runs}, time.perf_counter() + seconds * len(runs)
    while time.perf_counter() < end:
        for name, run in runs.items():
            start = time.perf_counter()
            run(maps).numpy()
            times[name].append(time.perf_counter() - start)
    return [min(taken) for taken in times.values()]


if __name__ == "__main__":
    main()
