"""What callers see while versions come and go, and when the server is told to end: every request has its answer."""

import collections
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from dmkeras.serving.embedded.model_config import ModelConfig
from dmkeras.serving.embedded.server import Server
from tests.serving import multi

BODY = b'{"signature_name": "version", "instances": [[1.0, 2.0]]}'
HEAD = b"POST /v1/models/multi:predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n%s\r\n"
REQUEST = HEAD % (len(BODY), b"") + BODY


@pytest.fixture
def base(tmp_path):
    """Version 1 is published; version 2 waits as `second`."""
    multi.write(tmp_path)
    (tmp_path / "multi" / "2").rename(tmp_path / ".second")
    return tmp_path


def publish(base, version):
    """A copy of the second version appears whole under its number."""
    draft = base / "multi" / f".draft-{version}"
    shutil.copytree(base / ".second", draft)
    draft.rename(base / "multi" / str(version))


def port(url):
    return int(url.rpartition(":")[2])


class RestCaller:
    """Asks for the version over one kept connection, and opens another when the server said that it closes this one."""

    def __init__(self, port):
        self.port, self.connection = port, None

    def __call__(self):
        if self.connection is None:
            self.connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        self.connection.sendall(REQUEST)
        head, body = self._answer()
        if b"connection: close" in head.lower():
            self.close()
        assert head.startswith(b"HTTP/1.1 200"), head + body
        return json.loads(body)["predictions"][0]

    def close(self):
        if self.connection is not None:
            self.connection.close()
        self.connection = None

    def _answer(self):
        answer = b""
        while True:
            head, _, body = answer.partition(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head.lower())
            if length and len(body) >= int(length[1]):
                return head, body
            more = self.connection.recv(65536)
            if not more:
                raise ConnectionResetError(f"closed after {answer!r}")
            answer += more


class GrpcCaller:
    def __init__(self, port):
        channel = grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)])
        self.close = channel.close
        self.method = channel.unary_unary(
            "/tensorflow.serving.PredictionService/Predict",
            response_deserializer=predict_pb2.PredictResponse.FromString,
        )
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = "multi", "version"
        request.inputs["images"].CopyFrom(tf.make_tensor_proto(np.ones([1, 2], np.float32)))
        self.request = request.SerializeToString()

    def __call__(self):
        return int(tf.make_ndarray(self.method(self.request, timeout=20).outputs["version"])[0])


class Callers:
    """Two callers over REST and two over gRPC that ask without a pause until the block ends."""

    def __init__(self, rest_port, grpc_port):
        self.answers, self.errors = collections.Counter(), []
        self._ended = threading.Event()
        callers = [make(port) for make, port in ((RestCaller, rest_port), (GrpcCaller, grpc_port)) for _ in range(2)]
        self._threads = [threading.Thread(target=self._run, args=(caller,)) for caller in callers]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, version, count=1):
        deadline = time.monotonic() + 60
        goal = self.answers[version] + count
        while self.answers[version] < goal and not self.errors:
            assert time.monotonic() < deadline, f"no answer of version {version}: {self.answers}"
            time.sleep(0.01)

    def _run(self, caller):
        try:
            while not self._ended.is_set():
                self.answers[caller()] += 1
        except Exception as error:
            self.errors.append(error)
        finally:
            caller.close()


def test_three_swaps_in_ten_thousand_requests_lose_none(base):
    with Server(base, rest_port="auto", grpc_port="auto", poll_seconds=0.1) as server:
        with Callers(port(server.rest_url), port(server.grpc_url)) as callers:
            callers.wait_for(1, 100)
            publish(base, 2)
            callers.wait_for(2, 100)
            shutil.rmtree(base / "multi" / "2")  # the version that answers goes away: the older one is back
            callers.wait_for(1, 100)
            publish(base, 3)
            callers.wait_for(2, 100)  # the second model, under another number
            callers.wait_for(2, max(0, 10_000 - callers.answers.total()))
            newest = server.servables.status("multi")[0]
        assert not callers.errors
        assert callers.answers.total() >= 10_000
        assert (newest.version, newest.state) == (3, "AVAILABLE")


def test_a_configured_folder_that_goes_away_under_load_is_served_on(base):
    models = [ModelConfig("multi", str(base / "multi"))]
    with Server(models, rest_port="auto", grpc_port="auto", poll_seconds=0.05) as server:
        with Callers(port(server.rest_url), port(server.grpc_url)) as callers:
            callers.wait_for(1, 10)
            shutil.rmtree(base / "multi")
            time.sleep(0.5)
            callers.wait_for(1, 10)
        assert not callers.errors


@pytest.fixture
def process(base):
    command = [sys.executable, "-m", "dmkeras.serving.cli", "serve", str(base), "--rest-port=auto", "--grpc-port=auto"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


def test_sigterm_under_load_drains_and_loses_nothing(process):
    line = process.stdout.readline()
    rest_port, grpc_port = (int(number) for number in re.findall(r"://127\.0\.0\.1:(\d+)", line))
    with Callers(rest_port, grpc_port) as callers:
        callers.wait_for(1, 200)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    refused = [error for error in callers.errors if not was_refused(error)]
    assert len(callers.errors) == 4
    assert not refused, "a request was sent and got no answer"


def was_refused(error):
    """Whether the server never took the request, so that another server may be asked."""
    if isinstance(error, grpc.RpcError):
        return error.code() == grpc.StatusCode.UNAVAILABLE
    return isinstance(error, ConnectionRefusedError)
