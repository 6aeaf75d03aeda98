"""Seconds per training step and per epoch of our VAE beside the same network in PyTorch and in Keras's usual pattern.

    python -m benchmarks.vae_speed --threads 1

One process, the same threads for all, rounds of one epoch each in which the contenders take turns:

    dmkeras             dmkeras.VAE, dmkeras.data.batches, `fit`: what training/vae.py runs for MNIST
    dmkeras, XLA        the same with jit_compile=True
    Keras train_step    the pattern of keras.io's VAE example: a Sampling layer, a decoder that ends in a sigmoid, a
                        train_step with a GradientTape, an array in memory; compiled as the example does (Keras chooses
                        XLA), and with jit_compile=False
    PyTorch             nn.Sequential, a tensor in memory indexed by randperm, Adam; eager, and through torch.compile

784-200-200-50 tanh, Bernoulli pixels, batch 100, Adam at 0.002, the 50,000 training pictures of mnist_binarized where
MNIST is prepared, else random bits. CPU seconds of the process stand beside wall seconds, for machines that are shared.
PyTorch is no requirement of dmkeras: without it its rows say so. Figures: benchmarks/README.md.
"""

import argparse
import importlib.util
import itertools
import os
import platform
import statistics
import time
from itertools import pairwise

import numpy as np

PIXELS, HIDDEN, LATENT, BATCH, RATE = 784, 200, 50, 100, 2e-3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--data-dir")
    arguments = parser.parse_args()
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = str(arguments.threads)  # before TensorFlow is imported
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    images, source = pictures(arguments.images, arguments.data_dir)
    contenders, absent = {}, {}
    for name, make in CONTENDERS.items():
        try:
            contenders[name] = make(images, arguments.threads)
            contenders[name]()  # traces, compiles, warms
        except (ModuleNotFoundError, RuntimeError) as error:
            absent[name] = str(error).strip().splitlines()[0]
            contenders.pop(name, None)
    times = race(contenders, arguments.rounds)
    print(f"{source}; {arguments.threads} threads, {arguments.rounds} rounds; {machine()}")
    report(times, len(images) // BATCH)
    for name, reason in absent.items():
        print(f"| {name} | left out: {reason} |")


def pictures(count, data_dir):
    """[N, 28, 28, 1] float32 of zeros and ones."""
    from dmkeras.data import load, to_arrays

    try:
        images = to_arrays(load("mnist_binarized", "train", data_dir=data_dir).take(count))["image"]
        return images, f"{len(images)} pictures of mnist_binarized"
    except FileNotFoundError:
        images = np.random.default_rng(0).random((count, 28, 28, 1)) < 0.13
        return images.astype("float32"), f"{count} pictures of random bits (MNIST is not prepared)"


def race(contenders, rounds):
    """{name: [(wall seconds, CPU seconds, loss) of an epoch]}; the order turns by one from round to round."""
    times, names = {name: [] for name in contenders}, list(contenders)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            wall, cpu = time.perf_counter(), time.process_time()
            loss = contenders[name]()
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu, loss))
    return times


def report(times, steps):
    """The medians, and the median over rounds of each one's time divided by ours in the same round."""
    print("| | wall ms a step | CPU ms a step | wall s an epoch | CPU s an epoch | wall / ours | CPU / ours | loss |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    ours = times["dmkeras"]
    for name, rows in times.items():
        wall, cpu, loss = (statistics.median(column) for column in zip(*rows))
        ratios = [statistics.median(row[k] / mine[k] for row, mine in zip(rows, ours)) for k in (0, 1)]
        cells = [f"{1000 * wall / steps:.2f}", f"{1000 * cpu / steps:.2f}", f"{wall:.2f}", f"{cpu:.2f}"]
        cells += [*(f"{ratio:.2f}" for ratio in ratios), f"{loss:.1f}"]
        print(f"| {name} | {' | '.join(cells)} |")


def machine():
    import keras
    import tensorflow as tf

    versions = [f"Python {platform.python_version()}", f"TensorFlow {tf.__version__}", f"Keras {keras.__version__}"]
    if importlib.util.find_spec("torch"):
        import torch

        versions.append(f"PyTorch {torch.__version__}")
    return f"{os.cpu_count()} cores, {', '.join(versions)}"


def ours(images, threads, jit_compile=False):
    import keras
    import tensorflow as tf

    import dmkeras

    model = dmkeras.VAE((28, 28, 1), LATENT, (HIDDEN, HIDDEN))
    model.compile(keras.optimizers.Adam(RATE), jit_compile=jit_compile, steps_per_execution=20)
    images, seeds = tf.constant(images), itertools.count()

    def epoch():
        dataset = dmkeras.data.batches(images, BATCH, next(seeds), drop_remainder=True).prefetch(tf.data.AUTOTUNE)
        return model.fit(dataset, shuffle=False, verbose=0).history["loss"][0]

    return epoch


def keras_example(images, threads, jit_compile="auto"):
    """https://keras.io/examples/generative/vae with this network."""
    import keras
    import tensorflow as tf
    from keras import layers, ops

    class Sampling(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.seed_generator = keras.random.SeedGenerator(1337)

        def call(self, inputs):
            mean, log_var = inputs
            return mean + ops.exp(0.5 * log_var) * keras.random.normal(ops.shape(mean), seed=self.seed_generator)

    dense = lambda x, units, activation=None: layers.Dense(units, activation)(x)
    pixels, codes = keras.Input((28, 28, 1)), keras.Input((LATENT,))
    hidden = dense(dense(layers.Flatten()(pixels), HIDDEN, "tanh"), HIDDEN, "tanh")
    mean, log_var = dense(hidden, LATENT), dense(hidden, LATENT)
    means = dense(dense(dense(codes, HIDDEN, "tanh"), HIDDEN, "tanh"), PIXELS, "sigmoid")

    class VAE(keras.Model):
        def __init__(self):
            super().__init__()
            self.encoder = keras.Model(pixels, [mean, log_var, Sampling()([mean, log_var])])
            self.decoder = keras.Model(codes, layers.Reshape((28, 28, 1))(means))
            self.trackers = [keras.metrics.Mean(name=name) for name in ("loss", "reconstruction_loss", "kl_loss")]

        @property
        def metrics(self):
            return self.trackers

        def train_step(self, data):
            with tf.GradientTape() as tape:
                mean, log_var, z = self.encoder(data)
                entropy = keras.losses.binary_crossentropy(data, self.decoder(z))
                reconstruction = ops.mean(ops.sum(entropy, axis=(1, 2)))
                kl = ops.mean(ops.sum(-0.5 * (1 + log_var - ops.square(mean) - ops.exp(log_var)), axis=1))
                loss = reconstruction + kl
            gradients = tape.gradient(loss, self.trainable_weights)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_weights))
            for tracker, value in zip(self.trackers, (loss, reconstruction, kl)):
                tracker.update_state(value)
            return {tracker.name: tracker.result() for tracker in self.trackers}

    model = VAE()
    model.compile(keras.optimizers.Adam(RATE), jit_compile=jit_compile)
    return lambda: model.fit(images, batch_size=BATCH, verbose=0).history["loss"][0]


def pytorch(images, threads, compiled=False):
    import torch
    from torch import nn

    torch.set_num_threads(threads)
    layers = lambda *sizes: [part for pair in pairwise(sizes) for part in (nn.Linear(*pair), nn.Tanh())][:-1]
    encoder = nn.Sequential(*layers(PIXELS, HIDDEN, HIDDEN, 2 * LATENT))
    decoder = nn.Sequential(*layers(LATENT, HIDDEN, HIDDEN, PIXELS))
    images = torch.from_numpy(images.reshape(-1, PIXELS))
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], RATE)

    def minus_elbo(x):
        mean, log_var = encoder(x).chunk(2, dim=1)
        z = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean)
        reconstruction = nn.functional.binary_cross_entropy_with_logits(decoder(z), x, reduction="sum")
        return (reconstruction - 0.5 * torch.sum(1 + log_var - mean**2 - log_var.exp())) / len(x)

    objective = torch.compile(minus_elbo) if compiled else minus_elbo

    def epoch():
        order, total = torch.randperm(len(images)), torch.zeros(())
        for start in range(0, len(images) - BATCH + 1, BATCH):
            loss = objective(images[order[start : start + BATCH]])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
        return float(total) * BATCH / len(images)

    return epoch


CONTENDERS = {
    "dmkeras": ours,
    "dmkeras, XLA": lambda images, threads: ours(images, threads, jit_compile=True),
    "Keras train_step": keras_example,
    "Keras train_step, no XLA": lambda images, threads: keras_example(images, threads, jit_compile=False),
    "PyTorch": pytorch,
    "PyTorch, torch.compile": lambda images, threads: pytorch(images, threads, compiled=True),
}


if __name__ == "__main__":
    main()
