"""Speed of a classifier at every position of a picture: in a Python loop, window by window in the graph, and densely.

    python -m benchmarks.sliding_window_speed              prints two tables
    python -m benchmarks.sliding_window_speed --seconds 3  as long as this for each cell of the first

The classifier is that of training/sliding_window.py, 34x34 pixels, whose own stride is 4, with random weights. Times
are of one picture, milliseconds. "loop" gives crops to the traced classifier one after another, as a notebook would; of
many crops it takes the first 200 and the rest by proportion, which is marked. "in graph" is SlidingWindow with
dense=False, 256 windows at a time; "dense" the fully convolutional network of the same weights, from whose map a larger
stride takes every second, fourth ... place, so that it costs the same at every stride; for a smaller one it gives no
answers. Multiply-adds are those of convolutions and dense layers.

All ways must give the same map first. A cell is the fastest of calls that take turns, so that load meets all.
"""

import argparse
import time

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from dmkeras.segmentation.sliding_window import SlidingWindow

WINDOW, OWN, LIMIT = 34, 4, 200  # side of a window, the classifier's stride, crops of the loop
CASES = [(34, 4), (66, 4), (130, 4), (258, 4), (514, 4), (258, 2), (258, 8), (258, 16), (258, 32)]  # side, stride


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each cell of the first table")
    seconds = parser.parse_args().seconds
    net = network()
    columns = "picture", "stride", "windows", "loop", "in graph", "dense", "loop / graph", "graph / dense", "work"
    print("|", " | ".join(columns), "|\n" + "| --- " * len(columns) + "|")
    for side, stride in CASES:
        image = tf.constant(np.random.default_rng(0).random((1, side, side, 3), "float32"))
        runs = candidates(net, stride)
        count = compare(runs, image)
        loop, graph, dense = (1e3 * taken for taken in fastest(runs, image, seconds))
        part = min(LIMIT, count) / count
        ratio = f"{graph / dense:.1f}" if stride % OWN == 0 else ""
        shown = f"{dense:.1f}" if stride % OWN == 0 else ""
        work = count * multiply_adds(net, WINDOW) / multiply_adds(net, side)
        cells = [f"{side}x{side}", stride, count, f"{loop / part:.1f}{'*' * (part < 1)}", f"{graph:.1f}", shown]
        cells += [f"{loop / part / graph:.1f}", ratio, f"{work:.1f}" if ratio else ""]
        print("|", " | ".join(map(str, cells)), "|", flush=True)
    print("\n* 200 crops, the rest by proportion; work: multiply-adds one by one / dense.\n")
    print("| picture | positions | multiply-adds, one by one | dense | ratio |\n| --- | --- | --- | --- | --- |")
    for side in sorted({side for side, _ in CASES}):
        count, dense = ((side - WINDOW) // OWN + 1) ** 2, multiply_adds(net, side)
        alone = count * multiply_adds(net, WINDOW)
        print(f"| {side}x{side} | {count} | {alone / 1e6:.1f} M | {dense / 1e6:.1f} M | {alone / dense:.1f} |")


def network(filters=16, outputs=4):
    block = lambda maps: [layers.Conv2D(maps, 3, use_bias=False), layers.BatchNormalization(), layers.ReLU()]
    maps = [*block(filters), layers.MaxPooling2D(), *block(2 * filters), layers.MaxPooling2D(), *block(4 * filters)]
    head = [layers.Flatten(), layers.Dense(4 * filters, "relu"), layers.Dense(outputs)]
    return keras.Sequential([keras.Input((WINDOW, WINDOW, 3)), *maps, *head])


def candidates(net, stride):
    """{name: picture [1, H, W, 3] -> map [1, R, S, K], of the loop the first LIMIT windows}."""
    classify = tf.function(lambda crop: net(crop, training=False))
    graph, dense = (SlidingWindow(net, stride=stride, dense=way) for way in (False, stride % OWN == 0))

    def loop(image):
        image, found = image.numpy(), []
        places = range(0, image.shape[1] - WINDOW + 1, stride)
        for row, column in [(r, c) for r in places for c in places][:LIMIT]:
            found.append(classify(image[:, row : row + WINDOW, column : column + WINDOW]).numpy())
        return np.concatenate(found)

    traced = lambda model: tf.function(lambda image: model(image, training=False))
    return {"loop": loop, "in graph": traced(graph), "dense": traced(dense)}


def multiply_adds(net, side):
    """Of convolutions and dense layers for a picture of `side` pixels, the dense ones read as convolutions."""
    total = 0
    for layer in net.layers:
        if isinstance(layer, layers.Conv2D):
            side -= layer.kernel_size[0] - 1
            total += side**2 * int(np.prod(layer.kernel.shape))
        elif isinstance(layer, layers.MaxPooling2D):
            side //= 2
        elif isinstance(layer, layers.Flatten):
            side -= net.layers[net.layers.index(layer) - 1].output.shape[1] - 1
        elif isinstance(layer, layers.Dense):
            total += side**2 * int(np.prod(layer.kernel.shape))
    return total


def compare(runs, image):
    """The number of windows; SystemExit where two ways answer differently."""
    loop, graph, dense = (np.asarray(run(image)) for run in runs.values())
    first = graph.reshape(-1, graph.shape[-1])
    for name, found, expected in (("dense", dense, graph), ("the loop", loop, first[: len(loop)])):
        if not np.allclose(found, expected, rtol=1e-4, atol=1e-5):
            raise SystemExit(f"{name} answers otherwise, by up to {np.abs(found - expected).max()}")
    return len(first)


def fastest(runs, image, seconds):
    """Seconds of the fastest call of each."""
    times, end = {name: [] for name in runs}, time.perf_counter() + seconds * len(runs)
    while time.perf_counter() < end or not times["dense"]:
        for name, run in runs.items():
            start = time.perf_counter()
            np.asarray(run(image))
            times[name].append(time.perf_counter() - start)
    return [min(taken) for taken in times.values()]


if __name__ == "__main__":
    main()
