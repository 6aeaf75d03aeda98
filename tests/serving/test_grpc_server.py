"""The gRPC port: its limits, its door, its health, how it stops. What it answers is in test_inference.py."""

import concurrent.futures
import contextlib
import io
import json
import shutil
import socket
import subprocess
import threading
import time
import types

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from dmkeras.serving.embedded import grpc_calls, grpc_server
from dmkeras.serving.embedded.access_log import AccessLog
from dmkeras.serving.embedded.grpc_server import SPARE_THREADS, GrpcServer
from dmkeras.serving.embedded.limits import Gate
from dmkeras.serving.embedded.metrics import Metrics
from dmkeras.serving.embedded.model_config import ModelConfig
from dmkeras.serving.embedded.servables import Servables
from tests.serving import multi

IMAGES = np.array([[1, 2], [3, 4]], np.float32)
PREDICT = "/tensorflow.serving.PredictionService/Predict"
LIMIT = 1 << 20
WORKERS = 2
FEVER = 100_000  # steps of `slow` that take a while, but not long


@pytest.fixture(scope="module")
def servables(tmp_path_factory):
    folder = multi.write(tmp_path_factory.mktemp("saved_models"), versions=(1,))
    servables = Servables([ModelConfig("multi", str(folder))], poll_seconds=0, warm_up=False)
    servables.start()
    yield servables
    servables.stop()


@contextlib.contextmanager
def opened(servables, **options):
    """A server that runs: `.port .log .metrics .gate .server`, `.channel` to it, `.lines()` of its access log."""
    log, metrics, gate = io.StringIO(), Metrics(), Gate(options.get("max_workers", WORKERS))
    settings = {"host": "127.0.0.1", "port": 0, "max_body_bytes": LIMIT, "timeout": 20.0, "max_workers": WORKERS}
    server = GrpcServer(servables, gate=gate, metrics=metrics, access_log=AccessLog(log), **settings | options)
    server.start()
    with channel_to(server.port) as channel:
        try:
            lines = lambda: [json.loads(line) for line in log.getvalue().splitlines()]
            yield types.SimpleNamespace(
                server=server, port=server.port, channel=channel, lines=lines, metrics=metrics, gate=gate
            )
        finally:
            server.stop(0)


def channel_to(port, **options):
    """A connection of its own."""
    options = {"grpc.use_local_subchannel_pool": 1} | options
    return grpc.insecure_channel(f"127.0.0.1:{port}", options=list(options.items()))


@pytest.fixture(scope="module")
def running(servables):
    with opened(servables) as running:
        yield running


def request_of(signature="", model="multi", **inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


ONE = request_of(images=IMAGES)
LONG = request_of("slow", x=np.float32([1]), steps=np.int32([FEVER]))
ENDLESS = request_of("slow", x=np.float32([1]), steps=np.int32([multi.MAX_STEPS]))


def predict(channel, request=ONE, **options):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, **{"timeout": 20} | options)


def refused(code, call, *args, **kwargs):
    """The text of a call that ends with that code."""
    with pytest.raises(grpc.RpcError) as raised:
        call(*args, **kwargs)
    assert raised.value.code().name == code, raised.value.details()
    return raised.value.details()


def check(channel, service=""):
    response = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)


def eventually(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_every_call_of_both_services_is_answered(running):
    prediction = prediction_service_pb2_grpc.PredictionServiceStub(running.channel)
    models = model_service_pb2_grpc.ModelServiceStub(running.channel)
    example = tf.train.Example()
    example.features.feature["x"].float_list.value.extend([1, 2])
    classify, regress = classification_pb2.ClassificationRequest(), regression_pb2.RegressionRequest()
    several = inference_pb2.MultiInferenceRequest()
    task = several.tasks.add(method_name="tensorflow/serving/regress")
    for request, spec in ((classify, classify.model_spec), (regress, regress.model_spec), (several, task.model_spec)):
        spec.name, spec.signature_name = "multi", "classify" if request is classify else "regress"
        request.input.example_list.examples.append(example)
    metadata = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    status = get_model_status_pb2.GetModelStatusRequest()
    metadata.model_spec.name = status.model_spec.name = "multi"
    np.testing.assert_array_equal(tf.make_ndarray(predict(running.channel).outputs["scores"]), IMAGES)
    assert prediction.Classify(classify).result.classifications[0].classes[0].label == "cat"
    assert prediction.Regress(regress).result.regressions[0].value == 3
    assert prediction.MultiInference(several).results[0].regression_result.regressions[0].value == 3
    assert "signature_def" in prediction.GetModelMetadata(metadata).metadata
    assert models.GetModelStatus(status).model_version_status[0].version == 1
    message = refused("INVALID_ARGUMENT", models.HandleReloadConfigRequest, model_management_pb2.ReloadConfigRequest())
    assert message.startswith("ServerModelConfig type not supported")


def test_an_error_has_its_code_and_its_text_however_long_a_name_is(running):
    message = refused("FAILED_PRECONDITION", predict, running.channel, request_of("zz"))
    assert message == 'Serving signature key "zz" not found.'
    for name in ("x" * 100_000, "\U0001f600" * 20_000, "a\r\nb\0c"):
        message = refused("NOT_FOUND", predict, running.channel, request_of(model=name, images=IMAGES))
        assert message.startswith(f"Servable not found for request: Latest({name[:5]}")
    assert predict(running.channel).outputs


def test_junk_and_messages_beyond_the_limit_are_refused_and_the_next_call_is_answered(running):
    raw = running.channel.unary_unary(PREDICT)
    assert "PredictRequest" in refused("INVALID_ARGUMENT", raw, b"\xff\xff\xff")
    assert refused("INVALID_ARGUMENT", raw, b"") == "Missing ModelSpec"
    assert refused("INVALID_ARGUMENT", running.channel.stream_unary(PREDICT), iter([])) == "received no message"
    refused("RESOURCE_EXHAUSTED", raw, b"\0" * (LIMIT + 1))
    refused("RESOURCE_EXHAUSTED", raw, b"\0" * (50 * LIMIT), compression=grpc.Compression.Gzip)
    tripled = request_of("specials", x=np.zeros(LIMIT // 8, np.float32))
    assert f"the limit is {LIMIT}" in refused("RESOURCE_EXHAUSTED", predict, running.channel, tripled)
    assert running.lines()[-1]["bytes_out"] == 0
    refused("UNIMPLEMENTED", running.channel.unary_unary("/tensorflow.serving.PredictionService/Nothing"), b"")
    assert predict(running.channel, compression=grpc.Compression.Gzip).outputs


def test_callers_who_stall_hold_no_thread_and_are_sent_away(servables):
    with opened(servables, timeout=1.0) as running, channel_to(running.port) as stalled:
        go = threading.Event()

        def never():
            go.wait(10)
            yield b""

        calls = [stalled.stream_unary(PREDICT).future(never()) for _ in range(3 * (WORKERS + SPARE_THREADS))]
        assert predict(running.channel, timeout=0.9).outputs
        assert check(running.channel) == "SERVING"
        for call in calls:
            assert call.code().name == "DEADLINE_EXCEEDED"
            assert call.details() == "the request did not arrive within 1 s"
        go.set()


def test_a_full_server_refuses_at_once_and_stays_healthy(servables):
    with opened(servables) as running, concurrent.futures.ThreadPoolExecutor() as pool:
        held = [
            pool.submit(refused, "DEADLINE_EXCEEDED", predict, running.channel, ENDLESS, timeout=2)
            for _ in range(WORKERS)
        ]
        eventually(lambda: running.gate.in_flight == WORKERS)
        assert "limit" in refused("RESOURCE_EXHAUSTED", predict, running.channel, timeout=1)
        assert check(running.channel) == "SERVING"
        for call in held:
            call.result()
        eventually(lambda: running.gate.in_flight == 0)
        assert predict(running.channel).outputs


def test_the_shorter_of_the_callers_deadline_and_the_servers_timeout_counts():
    given = []

    class Recorder:
        def names(self):
            return []

        def use(self, name):
            loaded = types.SimpleNamespace(
                signatures={"serving_default": None},
                definitions={"serving_default": types.SimpleNamespace(inputs={}, outputs={})},
                defaults={},
                run=lambda signature, feed, outputs, timeout: given.append(timeout) or {},
            )
            return contextlib.nullcontext(types.SimpleNamespace(name=name, version=1, loaded=loaded))

    with opened(Recorder(), timeout=5.0) as running:
        for deadline, shorter in ((2, 2), (60, 5), (None, 5)):
            predict(running.channel, request_of(), timeout=deadline)
            assert shorter - 1 < given.pop() < shorter + 0.1  # gRPC rounds up


def test_a_configuration_from_other_machines_needs_a_token(servables):
    with opened(servables, host="0.0.0.0") as server:
        reload_config = model_service_pb2_grpc.ModelServiceStub(server.channel).HandleReloadConfigRequest
        with pytest.raises(grpc.RpcError) as failure:
            reload_config(model_management_pb2.ReloadConfigRequest(), timeout=10)
        assert failure.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert servables.names() == ["multi"]


def test_without_the_token_only_health_is_answered(servables):
    with opened(servables, token="sésame") as running:
        bearer = lambda token: {"metadata": [("authorization", token)]}
        for options in ({}, bearer("Bearer nope"), bearer("Bearer"), bearer("Basic s"), bearer("")):
            assert "Bearer" in refused("UNAUTHENTICATED", predict, running.channel, **options)
        models = model_service_pb2_grpc.ModelServiceStub(running.channel)
        refused("UNAUTHENTICATED", models.GetModelStatus, get_model_status_pb2.GetModelStatusRequest())
        assert check(running.channel) == "SERVING"
        assert {(line["status"], line["model"], line["bytes_in"]) for line in running.lines()} == {
            ("UNAUTHENTICATED", "", 0)
        }
    with opened(servables, token="sesame") as running:
        for scheme in ("Bearer", "bearer"):
            assert predict(running.channel, **bearer(f"{scheme} sesame")).outputs


def test_the_message_of_a_caller_without_the_token_is_not_read(servables):
    with opened(servables, token="sesame", timeout=20.0) as running:
        go = threading.Event()

        def late():
            go.wait(20)
            yield ONE.SerializeToString()

        call = running.channel.stream_unary(PREDICT).future(late())
        assert call.code().name == "UNAUTHENTICATED"
        go.set()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_tls_is_spoken_with_a_certificate(servables, tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    subprocess.run([*make.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    with opened(servables, tls=(str(key), str(certificate))) as running:
        credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
        named = [("grpc.ssl_target_name_override", "localhost")]
        with grpc.secure_channel(f"127.0.0.1:{running.port}", credentials, options=named) as channel:
            assert predict(channel).outputs
        refused("UNAVAILABLE", predict, running.channel, timeout=2)


def test_metrics_and_the_access_log_tell_of_every_call(servables):
    with opened(servables) as running:
        predict(running.channel)
        refused("FAILED_PRECONDITION", predict, running.channel, request_of("zz"))
        refused("NOT_FOUND", predict, running.channel, request_of(model="none"))
        answered, failed, unknown = running.lines()
        page = running.metrics.render().decode()
    assert answered["peer"] == "127.0.0.1"
    assert (answered["api"], answered["method"], answered["model"]) == ("GRPC", "Predict", "multi")
    assert (answered["version"], answered["signature"], answered["status"]) == (1, "serving_default", "OK")
    assert answered["bytes_in"] == len(ONE.SerializeToString())
    assert answered["bytes_out"] > IMAGES.nbytes
    assert answered["seconds"] > 0
    assert (failed["signature"], failed["status"], failed["version"], failed["bytes_out"]) == (
        "zz", "FAILED_PRECONDITION", None, 0,
    )  # fmt: skip
    assert (unknown["model"], unknown["status"]) == ("none", "NOT_FOUND")
    for model, status in (("multi", "OK"), ("multi", "FAILED_PRECONDITION"), ("", "NOT_FOUND")):
        assert f':tensorflow:serving:request_count{{model_name="{model}",status="{status}"}} 1.0' in page
    assert ':tensorflow:serving:runtime_latency_count{API="Predict",model_name="multi",runtime="TF1"} 1.0' in page
    assert f':tensorflow:serving:request_example_count_total{{model="multi"}} {float(len(IMAGES))}' in page
    assert 'model_name="none"' not in page


def test_a_fault_of_the_server_tells_the_caller_nothing_and_the_log_all(caplog):
    broken = types.SimpleNamespace(use=lambda *_: 1 / 0, names=lambda: ["multi"], ready=lambda: True)
    with opened(broken) as running:
        assert refused("INTERNAL", predict, running.channel).startswith("internal error")
        assert "ZeroDivisionError" in caplog.text
        assert running.lines()[-1]["status"] == "INTERNAL"
        assert check(running.channel) == "SERVING"


def test_health_is_that_of_the_models():
    states = {"good": "AVAILABLE", "bad": "END"}
    models = types.SimpleNamespace(
        names=lambda: list(states),
        ready=lambda: set(states.values()) == {"AVAILABLE"},
        status=lambda name: [types.SimpleNamespace(state=states[name])],
    )
    services = ["", "ModelService", "PredictionService"]
    services += [f"tensorflow.serving.{service}" for service in services[1:]]
    with opened(models) as running:
        assert {check(running.channel, service) for service in services} == {"NOT_SERVING"}
        assert check(running.channel, "good") == "SERVING"
        assert check(running.channel, "bad") == "NOT_SERVING"
        refused("NOT_FOUND", check, running.channel, "none")
        watch = lambda service: health_pb2_grpc.HealthStub(running.channel).Watch(
            health_pb2.HealthCheckRequest(service=service), timeout=20
        )
        everything, later = watch(""), watch("later")
        named = lambda answer: health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        assert named(next(everything)) == "NOT_SERVING"
        assert named(next(later)) == "SERVICE_UNKNOWN"
        states.update(bad="AVAILABLE", later="AVAILABLE")
        assert named(next(everything)) == "SERVING"
        assert named(next(later)) == "SERVING"
        assert {check(running.channel, service) for service in services} == {"SERVING"}
        started = time.monotonic()
        running.server.stop(10)
        assert time.monotonic() - started < 5  # those who watch do not hold it up
        assert [named(answer) for answer in everything] == ["NOT_SERVING"]
        assert [named(answer) for answer in later] == ["NOT_SERVING"]


def test_a_server_that_stops_finishes_what_it_took_and_loses_nothing(servables):
    codes, gone = [], threading.Event()

    def call(port, request):
        with channel_to(port, **{"grpc.enable_retries": 0}) as channel:
            while not gone.is_set():
                try:
                    predict(channel, request)
                    codes.append("OK")
                except grpc.RpcError as error:
                    codes.append(error.code().name)
                    return

    with opened(servables, max_workers=8) as running:
        threads = [threading.Thread(target=call, args=(running.port, request)) for request in (ONE, ONE, ONE, LONG)]
        for thread in threads:
            thread.start()
        eventually(lambda: len(codes) > 50 and running.gate.in_flight)
        running.server.stop(20)
        assert running.gate.in_flight == 0
        gone.set()
        for thread in threads:
            thread.join()
        assert set(codes) == {"OK", "UNAVAILABLE"}
        assert [line["status"] for line in running.lines()].count("OK") == codes.count("OK")


def test_callers_are_told_to_go_elsewhere_while_it_stops(servables, monkeypatch):
    monkeypatch.setattr(grpc_server, "PARTING_SECONDS", 1.0)
    with opened(servables) as running, concurrent.futures.ThreadPoolExecutor() as pool:
        assert predict(running.channel).outputs
        stopped = pool.submit(running.server.stop, 10)
        eventually(lambda: check(running.channel) == "NOT_SERVING")
        assert refused("UNAVAILABLE", predict, running.channel) == "the server is stopping"
        stopped.result()


def test_what_does_not_end_in_time_is_cut_off(servables):
    with opened(servables) as running, concurrent.futures.ThreadPoolExecutor() as pool:
        cut = pool.submit(predict, running.channel, request_of("slow", x=np.float32([1]), steps=np.int32([2 * FEVER])))
        eventually(lambda: running.gate.in_flight)
        started = time.monotonic()
        running.server.stop(0.2)
        assert time.monotonic() - started < 2
        assert cut.exception().code().name in ("UNAVAILABLE", "CANCELLED")
        eventually(lambda: running.gate.in_flight == 0)


def test_a_port_that_is_taken_is_an_error_and_stopping_is_safe_at_any_time(servables):
    with opened(servables) as running:
        with (
            pytest.raises(OSError, match=f"port {running.port} of 127.0.0.1 cannot be opened"),
            opened(servables, port=running.port),
        ):
            pass
        running.server.stop(0)
        running.server.stop(0)
        refused("UNAVAILABLE", predict, running.channel, timeout=2)


def test_who_floods_with_pings_is_sent_away(running):
    frame = lambda kind, payload=b"": len(payload).to_bytes(3) + bytes([kind, 0]) + bytes(4) + payload
    settings, ping, go_away = 4, 6, 7
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(settings) + 20 * frame(ping, bytes(8)))
        received = b""
        while data := connection.recv(4096):
            received += data
    assert b"too_many_pings" in received
    assert bytes([go_away]) in received
    assert predict(running.channel).outputs


def test_a_caller_is_written_down_by_its_address():
    peers = ["ipv4:10.0.0.1:47874", "ipv6:%5B::1%5D:47874", "ipv6:%5Bfe80::1%25eth0%5D:1", "unix:/run/socket"]
    assert [grpc_calls.address_of(peer) for peer in peers] == ["10.0.0.1", "::1", "fe80::1%eth0", "unix:/run/socket"]
