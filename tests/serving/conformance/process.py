"""The server under test: `dmkeras serve`, or a `tensorflow_model_server` under the same flags."""

import http.client
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import types
import urllib.parse

import grpc
from google.protobuf import text_format
from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc, prediction_service_pb2_grpc
from tensorflow_serving.config import file_system_storage_path_source_pb2, model_server_config_pb2

ROOT = pathlib.Path(__file__).parents[3]
METRICS = "/monitoring/prometheus/metrics"
MONITORING = f'prometheus_config {{ enable: true path: "{METRICS}" }}'
START_SECONDS = 90
POLICY = file_system_storage_path_source_pb2.FileSystemStoragePathSourceConfig.ServableVersionPolicy


def model(name, base_path, *, latest=None, specific=(), labels=None):
    """A ModelConfig: every version, or the `latest` few, or `specific` ones."""
    policy = POLICY(all=POLICY.All())
    if latest:
        policy = POLICY(latest=POLICY.Latest(num_versions=latest))
    if specific:
        policy = POLICY(specific=POLICY.Specific(versions=specific))
    return model_server_config_pb2.ModelConfig(
        name=name,
        base_path=str(base_path),
        model_platform="tensorflow",
        model_version_policy=policy,
        version_labels=labels or {},
    )


def config(models):
    listed = model_server_config_pb2.ModelConfigList(config=models)
    return model_server_config_pb2.ModelServerConfig(model_config_list=listed)


class ServerUnderTest:
    """A process with both ports open. `real` tells a tensorflow_model_server from ours."""

    def __init__(self, program, folder, models):
        """Starts `program` (None: this package's) with a models.config and a log in `folder`."""
        self.real = program is not None
        self.name = program or "dmkeras serve"
        (folder / "models.config").write_text(text_format.MessageToString(config(models), as_utf8=True), "utf-8")
        (folder / "monitoring.config").write_text(MONITORING)
        self.rest_port, self.grpc_port = _free_port(), _free_port()
        command = [program] if program else [sys.executable, "-m", "dmkeras.serving.cli", "serve"]
        self._log = (folder / "log").open("w+")
        self._process = subprocess.Popen(
            [
                *command,
                f"--port={self.grpc_port}",
                f"--rest_api_port={self.rest_port}",
                f"--model_config_file={folder / 'models.config'}",
                f"--monitoring_config_file={folder / 'monitoring.config'}",
                "--file_system_poll_wait_seconds=1",
                "--max_num_load_retries=0",
                "--enable_grpc_healthcheck_service=true",
            ],
            cwd=ROOT,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2", "DMKERAS_TOKEN": ""},
        )
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}")
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def ask(self, method, path, body=None, headers=None):
        """One request -> .status, .headers (in any case), .body (bytes), .json (None where the body is none)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.rest_port, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return _answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def states(self, name):
        """{version: its state} of a model."""
        answer = self.ask("GET", f"/v1/models/{urllib.parse.quote(name)}")
        listed = (answer.json or {}).get("model_version_status", [])
        return {int(version["version"]): version["state"] for version in listed}

    def available(self, name):
        """The versions of a model that answer."""
        return {version for version, state in self.states(name).items() if state == "AVAILABLE"}

    def wait(self, condition, what, seconds=20):
        """Waits until `condition()` is true; AssertionError with the server's log when it does not come true."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if condition():
                    return
            except OSError:
                pass  # not yet listening
            assert self.is_alive(), f"{what}: the server has ended\n{self.log()}"
            assert time.monotonic() < deadline, f"{what}: not within {seconds} s\n{self.log()}"
            time.sleep(0.05)

    def reload(self, models):
        request = model_management_pb2.ReloadConfigRequest(config=config(models))
        return self.models.HandleReloadConfigRequest(request, timeout=30)

    def is_alive(self):
        return self._process.poll() is None

    def log(self):
        self._log.flush()
        return pathlib.Path(self._log.name).read_text(errors="replace")[-4000:]

    def stop(self):
        self.channel.close()
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def _answer(status, headers, body):
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = None
    return types.SimpleNamespace(status=status, headers=headers, body=body, json=parsed)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
