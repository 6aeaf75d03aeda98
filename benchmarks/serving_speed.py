"""Latency and throughput of the embedded server over REST and gRPC, beside the call in process and the real server.

    python -m benchmarks.serving_speed [--seconds 3] [--rounds 3] [--server tensorflow_model_server]

Two models: `trivial`, the mean of four numbers, and `cnn`, MobileNetV2 0.35 at 96 px, random weights. The servers are
processes of their own; the callers are threads of this one, with bytes made beforehand and answers left unread, so that
what is measured is the server. One call in process is the session that the server runs (`runtime.Loaded.run`).
REST sends JSON numbers to `trivial` and a JPEG to `cnn`; gRPC sends tensors, by grpcio and, to `trivial`, also by bare
frames of HTTP/2, since a library costs its caller time that is not the server's. Rounds take
turns; medians are printed.
What the project holds, one caller: p50 over the wire minus p50 in process <= 0.8 ms; with --batching the CNN at
16 callers answers at least 1.4 times as many requests as without, in the same run; the exit status says whether it
holds. Figures: benchmarks/README.md.
"""

import argparse
import base64
import itertools
import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
SIZE, CALLERS, BATCHED_CALLERS = 96, (1, 8, 32), 16
MOST_ADDED, LEAST_GAIN = 0.8, 1.4  # milliseconds, times


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--server", default="tensorflow_model_server", help="measured too when it is on PATH")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = pathlib.Path(folder, "saved_models")
        write_models(base)
        requests = make_requests()
        commands = {"dmkeras": ours(base), "dmkeras --batching": [*ours(base), "--batching", "true"]}
        if shutil.which(args.server):
            commands["TF Serving"] = real(args.server, base)
        else:
            print(f"{args.server} is not on PATH: measured without it")
        results = {}
        for _ in range(args.rounds):
            measure_in_process(base, requests, args.seconds, results)
            for name, command in commands.items():
                with Running(command) as ports:
                    measure(name, ports, requests, args.seconds, results)
    faults = report(results)
    if faults:
        sys.exit("; ".join(faults))


def write_models(base):
    import keras
    import tensorflow as tf

    from dmkeras.serving.export import export

    class Model(keras.Model):
        def __init__(self, network, name, shape):
            super().__init__()
            self.network, self.input_name, self.input_shape_ = network, name, shape
            self(keras.Input(shape))

        def call(self, x):
            return self.network(x)

        def answer(self, x):
            return {"scores": self(x)}

        def from_bytes(self, image_bytes):
            def decode(content):
                return tf.ensure_shape(tf.io.decode_jpeg(content, 3), (SIZE, SIZE, 3))

            pictures = tf.map_fn(decode, image_bytes, fn_output_signature=tf.uint8)
            return self.answer(tf.cast(pictures, tf.float32) / 255)

        def signatures(self):
            spec = tf.TensorSpec((None, *self.input_shape_), tf.float32, name=self.input_name)
            signatures = {"serving_default": (self.answer, [spec])}
            if len(self.input_shape_) == 3:
                image_bytes = tf.TensorSpec((None,), tf.string, name="image_bytes")
                signatures["classify_bytes"] = (self.from_bytes, [image_bytes])
            return signatures

    jpeg = {"classify_bytes": {"image_bytes": [picture()]}}
    network = keras.applications.MobileNetV2((SIZE, SIZE, 3), alpha=0.35, weights=None)
    export(Model(network, "image", (SIZE, SIZE, 3)), base / "cnn", warmup=jpeg)
    mean = keras.layers.Lambda(lambda x: keras.ops.mean(x, -1, keepdims=True))
    export(Model(mean, "x", (4,)), base / "trivial")


def picture():
    import numpy as np
    import tensorflow as tf

    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    return tf.io.encode_jpeg(pixels).numpy()


def make_requests():
    """{(model, protocol): bytes of one request}, and the feeds of the call in process."""
    import numpy as np
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    def rest(model, body):
        body = json.dumps(body).encode()
        head = f"POST /v1/models/{model}:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    def grpc(model, name, array):
        request = predict_pb2.PredictRequest()
        request.model_spec.name = model
        request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
        return request.SerializeToString()

    row = np.array([[1, 2, 3, 4]], np.float32)
    image = np.random.default_rng(0).random((1, SIZE, SIZE, 3), np.float32)
    encoded = {"b64": base64.b64encode(picture()).decode()}
    return {
        ("trivial", "REST"): rest("trivial", {"instances": row.tolist()}),
        ("trivial", "gRPC"): grpc("trivial", "x", row),
        ("trivial", "gRPC by grpcio"): grpc("trivial", "x", row),
        ("trivial", "in process"): ("serving_default", {"x": row}),
        ("cnn", "REST"): rest("cnn", {"signature_name": "classify_bytes", "instances": [encoded]}),
        ("cnn", "gRPC by grpcio"): grpc("cnn", "image", image),
        ("cnn", "in process"): ("serving_default", {"image": image}),
        ("cnn", "in process, JPEG"): ("classify_bytes", {"image_bytes": np.array([picture()], object)}),
    }


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ours(base):
    return [sys.executable, "-m", "dmkeras.serving.cli", "serve", str(base), "--quiet"]


def real(path, base):
    config = base.parent / "models.config"
    entry = '  config {{ name: "{0}" base_path: "{1}/{0}" model_platform: "tensorflow" }}\n'
    models = "".join(entry.format(folder.name, base) for folder in sorted(base.iterdir()))
    config.write_text(f"model_config_list {{\n{models}}}\n")
    return [path, f"--model_config_file={config}", "--grpc_max_threads=128", "--rest_api_num_threads=128"]


class Running:
    """A server in a process of its own; gives its ports (REST, gRPC) once both models answer."""

    def __init__(self, command):
        self.ports = free_port(), free_port()
        command = [*command, f"--rest_api_port={self.ports[0]}", f"--port={self.ports[1]}"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def __enter__(self):
        deadline = time.monotonic() + 120
        while not all(self._available(model) for model in ("trivial", "cnn")):
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError(f"the server did not come up: {self.process.args}")
            time.sleep(0.2)
        return self.ports

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    def _available(self, model):
        try:
            with socket.create_connection(("127.0.0.1", self.ports[0]), 5) as connection:
                connection.sendall(f"GET /v1/models/{model} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
                return b'"AVAILABLE"' in b"".join(iter(lambda: connection.recv(65536), b""))
        except OSError:
            return False


def rest_caller(port, request):
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call():
        connection.sendall(request)
        answer = connection.recv(1 << 20)
        while b"\r\n\r\n" not in answer:
            answer += connection.recv(1 << 20)
        head, _, body = answer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(answer[:300])
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        while len(body) < length:
            body += connection.recv(1 << 20)

    return call


def grpc_caller(port, request):
    """One unary call after another as frames of HTTP/2 (RFC 9113), written out: what a caller can do at the least."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0))
    message = b"\0" + len(request).to_bytes(4) + request
    streams = itertools.count(1, 2)
    incoming = connection.makefile("rb")

    def call():
        stream = next(streams)
        connection.sendall(frame(HEADERS, END_HEADERS, stream, GRPC_HEADERS) + frame(DATA, END_STREAM, stream, message))
        answered = 0
        while True:
            head = incoming.read(9)
            kind, flags, body = head[3], head[4], incoming.read(int.from_bytes(head[:3]))
            if kind in (SETTINGS, PING) and not flags & ACK:
                connection.sendall(frame(kind, ACK, 0, body if kind == PING else b""))
            elif kind == DATA:
                answered += len(body)
                connection.sendall(frame(WINDOW_UPDATE, 0, 0, len(body).to_bytes(4)))
            elif kind == HEADERS and flags & END_STREAM:
                if not answered:
                    raise RuntimeError(f"no answer: {body}")
                return

    return call


def frame(kind, flags, stream, body=b""):
    return len(body).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + body


def literal(name, value):
    """A header in HPACK (RFC 7541), never indexed; a name may be a number of the static table."""
    start = bytes([name]) if isinstance(name, int) else b"\0" + bytes([len(name)]) + name
    return start + bytes([len(value)]) + value


DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 4, 6, 8
ACK = END_STREAM = 1
END_HEADERS = 4
GRPC_HEADERS = b"\x83\x86" + b"".join(  # :method POST, :scheme http
    (
        literal(4, b"/tensorflow.serving.PredictionService/Predict"),
        literal(1, b"localhost"),
        literal(b"te", b"trailers"),
        literal(b"content-type", b"application/grpc"),
    )
)


def grpcio_caller(port, request):
    import grpc

    channel = grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)])
    method = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    return lambda: method(request)


def race(make_caller, callers, seconds):
    """(p50 milliseconds, requests a second) of threads that each call again as soon as they are answered."""
    calls = [make_caller() for _ in range(callers)]
    for call in calls:
        call()
    times, ended, faults = [[] for _ in calls], threading.Event(), []

    def run(call, mine):
        try:
            while not ended.is_set():
                start = time.perf_counter()
                call()
                mine.append(time.perf_counter() - start)
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=run, args=pair) for pair in zip(calls, times, strict=True)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    ended.set()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
    everything = [t for mine in times for t in mine]
    return 1000 * statistics.median(everything), len(everything) / (time.perf_counter() - start)


def measure_in_process(base, requests, seconds, results):
    from dmkeras.serving.runtime import Loaded

    for (model, way), request in requests.items():
        if way.startswith("in process"):
            with Loaded(base / model / "1") as loaded:
                for callers in CALLERS:
                    found = race(lambda: lambda: loaded.run(*request), callers, seconds)  # noqa: B023
                    results.setdefault((model, way, callers), []).append(found)


def measure(name, ports, requests, seconds, results):
    batched = "batching" in name
    for (model, protocol), request in requests.items():
        if protocol.startswith("in process") or (batched and model != "cnn"):
            continue
        caller, port = {
            "REST": (rest_caller, ports[0]),
            "gRPC": (grpc_caller, ports[1]),
            "gRPC by grpcio": (grpcio_caller, ports[1]),
        }[protocol]
        for callers in (BATCHED_CALLERS,) if batched else (*CALLERS, *([BATCHED_CALLERS] if model == "cnn" else [])):
            found = race(lambda: caller(port, request), callers, seconds)  # noqa: B023
            results.setdefault((model, f"{name}, {protocol}", callers), []).append(found)


def report(results):
    middle = {key: tuple(statistics.median(column) for column in zip(*rounds)) for key, rounds in results.items()}
    print("| model | way | callers | p50 ms | requests a second |\n| --- | --- | --- | --- | --- |")
    for (model, way, callers), (latency, rate) in sorted(middle.items()):
        print(f"| {model} | {way} | {callers} | {latency:.2f} | {rate:.0f} |")
    faults = []
    for protocol in ("REST", "gRPC"):
        added = middle["trivial", f"dmkeras, {protocol}", 1][0] - middle["trivial", "in process", 1][0]
        way = "gRPC by grpcio" if protocol == "gRPC" else protocol
        pair = [middle["cnn", f"{name}, {way}", BATCHED_CALLERS][1] for name in ("dmkeras --batching", "dmkeras")]
        gain = pair[0] / pair[1]
        print(f"{protocol}: p50 added to the call in process, one caller: {added:.2f} ms;", end=" ")
        print(f"batching, {BATCHED_CALLERS} callers: {gain:.2f} times")
        if added > MOST_ADDED:
            faults.append(f"{protocol} adds {added:.2f} ms, expected at most {MOST_ADDED}")
        if gain < LEAST_GAIN:
            faults.append(f"batching over {protocol} gains {gain:.2f} times, expected at least {LEAST_GAIN}")
    return faults


if __name__ == "__main__":
    main()
