"""Milliseconds and memory of a training step of NADE, ours beside other ways to compute the same recurrence.

    python -m benchmarks.nade_speed --threads 1 --torch-python python

784-500, batch 100, Adam, the same pictures for all, each contender in a process of its own:

    dmkeras               dmkeras.NADE: states per pixel that is on, products per block, a reverse pass by hand
    cumsum                a cumulative sum of [B, D, U] and automatic differentiation: what a few lines of Keras give
    tf.scan               pixel after pixel, automatic differentiation
    loop, own gradient    pixel after pixel, a reverse pass by hand that takes the sums apart again: O(B U) memory
    ... XLA               the same, compiled
    PyTorch cumsum        the second in PyTorch
    pytorch-generative    its NADE and loss, where `--torch-python` can import it: pixel after pixel, eager

The TensorFlow rows are one Keras model and its `train_on_batch` with another recurrence. Wall and CPU time are medians
over steps; memory is the peak of the process, and that peak less what it was before the first step. The pictures
are those of mnist_binarized where MNIST is prepared, else random bits. Figures: benchmarks/README.md.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

PIXELS, HIDDEN, BATCH, RATE = 784, 500, 100, 1e-3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=15.0, help="of steps for each contender, at least three steps")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds after which a contender is given up")
    parser.add_argument("--torch-python", default=sys.executable, help="an interpreter that has PyTorch")
    parser.add_argument("--data-dir")
    parser.add_argument("--only", nargs=2, metavar=("NAME", "FILE"), help="one contender, in this process, as JSON")
    arguments = parser.parse_args()
    if arguments.only:
        name, file = arguments.only
        print(json.dumps(measure(CONTENDERS[name](np.load(file)), arguments.seconds)))
        return
    with tempfile.NamedTemporaryFile(suffix=".npy") as file, multiprocessing.get_context("spawn").Pool(1) as reader:
        # This process stays small: Linux counts what it holds in the peaks of those that it starts.
        source = reader.apply(save_pictures, (file.name, arguments.data_dir))
        rows = {name: in_a_process(name, file.name, arguments) for name in CONTENDERS}
    circumstances = f"load average {os.getloadavg()[0]:.1f}, Python {platform.python_version()}"
    print(f"{source}; {arguments.threads} threads of {os.cpu_count()} cores, {circumstances}")
    report(rows)


def in_a_process(name, file, arguments):
    """What `measure` found in a fresh process, or {"failed": reason}."""
    python = arguments.torch_python if CONTENDERS[name] in (torch_cumsum, pytorch_generative) else sys.executable
    seconds, threads = str(arguments.seconds), str(arguments.threads)
    command = [python, "-m", "benchmarks.nade_speed", "--only", name, file, "--seconds", seconds]
    names = "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **dict.fromkeys(names, threads)}
    options = {"env": environment, "capture_output": True, "text": True, "timeout": arguments.limit}
    try:
        found = subprocess.run(command, **options)
    except subprocess.TimeoutExpired:
        return {"failed": f"no figure within {arguments.limit:.0f} s"}
    if found.returncode:
        return {"failed": (found.stderr.strip() or "no message").splitlines()[-1][:120]}
    return json.loads(found.stdout.splitlines()[-1])


def measure(step, seconds):
    """Times of single steps after three to trace, compile and warm."""
    before, first = peak(), time.perf_counter()
    losses = [step()]
    first = time.perf_counter() - first
    losses += [step(), step()]
    wall, cpu, end = [], [], time.perf_counter() + seconds
    while len(wall) < 3 or time.perf_counter() < end:
        start = time.perf_counter(), time.process_time()
        losses.append(step())
        wall.append(time.perf_counter() - start[0])
        cpu.append(time.process_time() - start[1])
    return {
        "wall": statistics.median(wall),
        "cpu": statistics.median(cpu),
        "first": first,
        "peak": peak(),
        "more": peak() - before,
        "loss": losses[0],
    }


def peak():
    """The most memory that this process has held, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


def report(rows):
    print("| | wall ms a step | CPU ms a step | CPU / ours | first step s | peak MiB | of it steps | first loss |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, row in rows.items():
        if "failed" in row:
            print(f"| {name} | left out: {row['failed']} |")
            continue
        cells = [f"{1000 * row['wall']:.0f}", f"{1000 * row['cpu']:.0f}", f"{row['cpu'] / rows['dmkeras']['cpu']:.1f}"]
        cells += [f"{row['first']:.1f}", f"{row['peak']:.0f}", f"{row['more']:.0f}", f"{row['loss']:.1f}"]
        print(f"| {name} | {' | '.join(cells)} |")


def save_pictures(path, data_dir):
    """[BATCH, 28, 28, 1] float32 of zeros and ones as an .npy file; returns where they come from."""
    from dmkeras.data import load, to_arrays

    try:
        images = to_arrays(load("mnist_binarized", "train", data_dir=data_dir).take(BATCH))["image"]
        source = f"{BATCH} pictures of mnist_binarized"
    except FileNotFoundError:
        images = np.random.default_rng(0).random((BATCH, 28, 28, 1)) < 0.13
        source = f"{BATCH} pictures of random bits (MNIST is not prepared)"
    np.save(path, images.astype("float32"))
    return source


# --- TensorFlow: one model, five ways -------------------------------------------------------------------------------


def keras_step(images, hidden_logits=None, jit_compile=False):
    """A step of Keras's own train function: what `fit` runs for a batch."""
    import keras
    import tensorflow as tf

    import dmkeras
    from dmkeras.generative import nade

    keras.utils.set_random_seed(0)
    if hidden_logits:
        nade.hidden_logits = hidden_logits
    model = dmkeras.NADE((28, 28, 1), HIDDEN)
    model.supports_jit = True
    model.compile(keras.optimizers.Adam(RATE), jit_compile=jit_compile)
    batch = tf.constant(images)
    return lambda: float(model.train_on_batch(batch, return_dict=True)["nll"])


def cumsum(x, w, v, c):
    import tensorflow as tf

    a = tf.cumsum(x[:, :, None] * w, axis=1, exclusive=True) + c
    return tf.einsum("bdu,du->bd", tf.sigmoid(a), v)


def scan(x, w, v, c):
    import tensorflow as tf

    def pixel(state, d):
        a, _ = state
        return a + x[:, d, None] * w[d], tf.linalg.matvec(tf.sigmoid(a), v[d])

    start = tf.tile(c[None], (tf.shape(x)[0], 1)), tf.zeros(tf.shape(x)[0])
    return tf.transpose(tf.scan(pixel, tf.range(PIXELS), start)[1])


def loop(x, w, v, c):
    """The sums of the forward pass are taken apart again on the way back, so that no state is kept."""
    import tensorflow as tf

    columns = tf.transpose(x)
    array = lambda: tf.TensorArray("float32", PIXELS)

    @tf.custom_gradient
    def all_pixels(w, v, c):
        def forward(d, a, logits):
            logits = logits.write(d, tf.linalg.matvec(tf.sigmoid(a), v[d]))
            return d + 1, a + columns[d][:, None] * w[d], logits

        start = 0, tf.tile(c[None], (tf.shape(x)[0], 1)), array()
        _, end, logits = tf.while_loop(lambda d, *_: d < PIXELS, forward, start)

        def backward(upstream):
            upstream = tf.transpose(upstream)

            def step(k, a, later, of_w, of_v):
                d = PIXELS - 1 - k
                a -= columns[d][:, None] * w[d]
                h = tf.sigmoid(a)
                of_w = of_w.write(k, tf.linalg.matvec(later, columns[d], transpose_a=True))
                of_v = of_v.write(k, tf.linalg.matvec(h, upstream[d], transpose_a=True))
                return k + 1, a, later + upstream[d][:, None] * v[d] * h * (1 - h), of_w, of_v

            start = 0, end, tf.zeros_like(end), array(), array()
            _, _, later, of_w, of_v = tf.while_loop(lambda k, *_: k < PIXELS, step, start)
            return of_w.stack()[::-1], of_v.stack()[::-1], tf.reduce_sum(later, axis=0)

        return tf.transpose(logits.stack()), backward

    return all_pixels(w, v, c)


# --- PyTorch --------------------------------------------------------------------------------------------------------


def torch_cumsum(images):
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    x = torch.tensor(images).reshape(len(images), -1)
    normal = lambda *shape: torch.nn.Parameter(0.01 * torch.randn(*shape))
    w, v = normal(PIXELS, HIDDEN), normal(PIXELS, HIDDEN)
    b, c = torch.nn.Parameter(torch.zeros(PIXELS)), torch.nn.Parameter(torch.zeros(HIDDEN))
    adam = torch.optim.Adam([w, v, b, c], RATE)

    def step():
        adam.zero_grad()
        terms = x[:, :, None] * w
        logits = torch.einsum("bdu,du->bd", torch.sigmoid(terms.cumsum(1) - terms + c), v) + b
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)
        loss.backward()
        adam.step()
        return loss.item()

    return step


def pytorch_generative(images):
    import torch
    from pytorch_generative import models

    torch.manual_seed(0)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    x = torch.tensor(images).reshape(len(images), 1, 28, 28)
    model = models.NADE(input_dim=PIXELS, hidden_dim=HIDDEN)
    adam = torch.optim.Adam(model.parameters(), RATE)

    def step():
        adam.zero_grad()
        # As its `reproduce` does: probabilities go where logits are expected, so that the loss is no likelihood.
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(x), x, reduction="sum") / len(x)
        loss.backward()
        adam.step()
        return loss.item()

    return step


CONTENDERS = {
    "dmkeras": keras_step,
    "cumsum": lambda images: keras_step(images, cumsum),
    "cumsum, XLA": lambda images: keras_step(images, cumsum, jit_compile=True),
    "tf.scan": lambda images: keras_step(images, scan),
    "loop, own gradient": lambda images: keras_step(images, loop),
    "loop, own gradient, XLA": lambda images: keras_step(images, loop, jit_compile=True),
    "PyTorch cumsum": torch_cumsum,
    "pytorch-generative": pytorch_generative,
}

if __name__ == "__main__":
    main()
