"""What `export(frozen=True)` and `export(compute=...)` buy on this machine: loading, first answer, batches of 1 and 8.

    python -m benchmarks.export_variants --threads 1

Two classifiers with batch normalisation, random weights: `cnn`, nine 3x3 convolutions of 32 to 128 channels on 64 px,
and MobileNetV2 0.35 on 96 px. Each variant is an export, loaded as the server loads it (`runtime.Loaded`: a session, as
in TF Serving). The variants take turns, one answer each, so that what else runs meets all of them; medians are printed,
and the median over rounds of plain / variant, above 1 where the variant is quicker. `bytes` is the version's folder,
`away` the mean difference from the plain answer over its mean size. Figures: benchmarks/README.md.
"""

import argparse
import os
import pathlib
import platform
import statistics
import tempfile
import time

VARIANTS = {
    "plain": {},
    "frozen": {"frozen": True},
    "bfloat16": {"compute": "bfloat16"},
    "bfloat16, frozen": {"compute": "bfloat16", "frozen": True},
    "float16": {"compute": "float16"},
}
BATCHES = (1, 8)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40, help="of answers; loading takes a fifth of them")
    arguments = parser.parse_args()
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = str(arguments.threads)  # before TensorFlow is imported
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    print(f"{arguments.threads} threads, {arguments.rounds} rounds; {machine()}")
    with tempfile.TemporaryDirectory() as folder:
        for name, make in NETWORKS.items():
            report(name, measure(classifier(make()), pathlib.Path(folder, name), arguments.rounds))


def machine():
    import keras
    import tensorflow as tf

    file = pathlib.Path("/proc/cpuinfo")
    flags = set(file.read_text().split()) & {"avx512_bf16", "amx_bf16", "avx512_fp16"} if file.exists() else set()
    gpus = tf.config.list_physical_devices("GPU")
    gpus = [tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in gpus]
    has = ", ".join([*sorted(flags), *gpus]) or "no lower precision in hardware"
    versions = f"Python {platform.python_version()}, TensorFlow {tf.__version__}, Keras {keras.__version__}"
    return f"{os.cpu_count()} cores ({has}), {versions}"


def cnn():
    import keras
    from keras import layers

    blocks = []
    for width in (32, 64, 128):
        for strides in (1, 1, 2):
            convolution = layers.Conv2D(width, 3, strides, padding="same", use_bias=False)
            blocks += [convolution, layers.BatchNormalization(), layers.ReLU()]
    head = [layers.GlobalAveragePooling2D(), layers.Dense(10, "softmax", dtype="float32")]
    return keras.Sequential([keras.Input((64, 64, 3)), *blocks, *head])


def mobile_net():
    import keras

    return keras.applications.MobileNetV2((96, 96, 3), 0.35, weights=None, classes=10)


NETWORKS = {"cnn": cnn, "MobileNetV2": mobile_net}


def classifier(network):
    """A network as a model with a signature; its batch normalisations are not the identity."""
    import keras
    import numpy as np
    import tensorflow as tf

    class Classifier(keras.Model):
        def __init__(self, network, **kwargs):
            super().__init__(**kwargs)
            self.network = network
            self(keras.Input(network.input_shape[1:]))

        def call(self, image):
            return self.network(image, training=False)

        def signatures(self):
            image = tf.TensorSpec((None, *self.network.input_shape[1:]), tf.float32, name="image")
            return {"serving_default": (lambda image: {"probabilities": self(image)}, [image])}

        def get_config(self):
            return {**super().get_config(), "network": keras.saving.serialize_keras_object(self.network)}

        @classmethod
        def from_config(cls, config):
            return cls(**{**config, "network": keras.saving.deserialize_keras_object(config["network"])})

    generator = np.random.default_rng(0)
    for weight in network.weights:
        if weight.path.endswith(("gamma", "moving_variance")):
            weight.assign(generator.uniform(0.5, 1.5, weight.shape))
    return Classifier(network)


def measure(model, directory, rounds):
    """{variant: {what: number or list of seconds}}."""
    import numpy as np

    from dmkeras.serving import runtime
    from dmkeras.serving.export import export
    from dmkeras.serving.exporting import comparison

    versions = {name: export(model, directory, **options) for name, options in VARIANTS.items()}
    found = {name: {"load": [], "first": [], **{batch: [] for batch in BATCHES}} for name in VARIANTS}
    shape = model.network.input_shape[1:]
    requests = {batch: {"image": np.random.default_rng(batch).random((batch, *shape), np.float32)} for batch in BATCHES}
    for _ in range(max(rounds // 5, 1)):
        for name, version in versions.items():
            start = time.perf_counter()
            with runtime.Loaded(version) as served:
                found[name]["load"].append(time.perf_counter() - start)
                start = time.perf_counter()
                served.run("serving_default", requests[1])
                found[name]["first"].append(time.perf_counter() - start)
    loaded = {name: runtime.Loaded(version) for name, version in versions.items()}
    for batch, request in requests.items():
        for turn in range(rounds + 3):
            for name, served in loaded.items():
                start = time.perf_counter()
                answer = served.run("serving_default", request)["probabilities"]
                if turn > 2:  # the first ones optimise the graph and fill caches
                    found[name][batch].append(time.perf_counter() - start)
                found[name]["answer"] = answer
    for name, version in versions.items():
        loaded[name].close()
        found[name]["bytes"] = sum(path.stat().st_size for path in version.rglob("*") if path.is_file())
        found[name]["away"] = comparison.difference(found["plain"]["answer"], found[name]["answer"])
    return found


def report(network, found):
    """A table of medians; ratios are medians of each round's."""
    columns = [f"batch {batch} ms" for batch in BATCHES] + [f"batch {batch} plain / it" for batch in BATCHES]
    print(f"\n| {network} | load ms | first answer ms | {' | '.join(columns)} | away | MB |")
    print(f"|{' --- |' * (len(columns) + 5)}")
    plain = found["plain"]
    for name, row in found.items():
        times = [f"{1000 * statistics.median(row[key]):.4g}" for key in ("load", "first", *BATCHES)]
        ratios = [statistics.median(mine / other for mine, other in zip(plain[batch], row[batch])) for batch in BATCHES]
        cells = [*times, *(f"{ratio:.2f}" for ratio in ratios), f"{row['away']:.2%}", f"{row['bytes'] / 1e6:.2f}"]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
