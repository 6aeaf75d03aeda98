"""The client against servers that answer by script: what it sends, what it makes of answers, when it asks again."""

import base64
import socket
import subprocess
import sys
import threading
from concurrent import futures

import numpy as np
import pytest

from dmkeras.serving import Client, ServingError
from dmkeras.serving.client_tensors import as_array
from dmkeras.serving.embedded.versions import VersionStatus
from dmkeras.serving.errors import RequestError, TooLargeError
from dmkeras.serving.model_card import Tensor
from tests.serving.scripted import DOUBLE, METADATA, PREDICT, cut_off, hang_up, info, metadata, ok, served


def test_arrays_come_back_with_the_dtypes_and_shapes_of_the_signature():
    png = b"\x89PNG\x00\xff"
    gives = {
        "boxes": (info("DT_FLOAT", -1, -1, 4), [[], []], np.zeros((2, 0, 4), np.float32)),
        "classes": (info("DT_INT32", -1), [1, 2], np.array([1, 2], np.int32)),
        "count": (info("DT_INT64", -1), [2**60, 1], np.array([2**60, 1])),
        "flag": (info("DT_BOOL", -1), [True, False], np.array([True, False])),
        "loss": (info("DT_FLOAT", -1), [float("nan"), float("inf")], np.array([np.nan, np.inf], np.float32)),
        "name": (info("DT_STRING", -1, 2), [["a", "ü"], ["", "b"]], [[b"a", "ü".encode()], [b"", b"b"]]),
        "image_bytes": (info("DT_STRING", -1), [{"b64": base64.b64encode(png).decode()}] * 2, [png, png]),
    }
    answer = {"outputs": {name: value for name, (_, value, _) in gives.items()}}
    described = metadata(run=({"x": info("DT_FLOAT", -1)}, {name: tensor for name, (tensor, _, _) in gives.items()}))
    with served({METADATA: [ok(described)], PREDICT: [ok(answer)]}) as (_, client):
        outputs = client.predict("m", signature="run", x=[1, 2])
    for name, (_, _, expected) in gives.items():
        expected = np.array(expected, object) if isinstance(expected, list) else expected
        assert (outputs[name].dtype, outputs[name].shape) == (expected.dtype, expected.shape), name
        np.testing.assert_array_equal(outputs[name], expected)


def test_a_request_is_columns_of_numbers_and_base64():
    takes = {"x": info("DT_FLOAT", -1, 2), "n": info("DT_INT32", -1), "image_bytes": info("DT_STRING", -1)}
    described = metadata(run=(takes, {"y": info("DT_FLOAT", -1)}))
    with served({METADATA: [ok(described)], PREDICT: [ok({"outputs": [3.5]})]}) as (stub, client):
        outputs = client.predict("m", {"x": np.array([[0.1, 2]])}, signature="run", n=[7], image_bytes=[b"\xff"])
    (request,) = stub.asked(PREDICT)
    x = [[float(np.float32(0.1)), 2.0]]
    assert request.body == {"signature_name": "run", "inputs": {"x": x, "n": [7], "image_bytes": [{"b64": "/w=="}]}}
    np.testing.assert_array_equal(outputs["y"], np.array([3.5], np.float32))


def test_strings_that_are_no_text_arrive_byte_for_byte():
    described = metadata(serving_default=({"x": info("DT_FLOAT", -1)}, {"name": info("DT_STRING", -1)}))
    with served({METADATA: [ok(described)], PREDICT: [ok(b'{"outputs": ["\xff\xfe"]}')]}) as (_, client):
        assert client.predict("m", x=[1])["name"][0] == b"\xff\xfe"


def test_a_version_and_a_label_are_part_of_the_path_and_names_are_quoted():
    answers = {
        f"/v1/models/{where}{verb}": [ok(content)]
        for where in ("m/versions/3", "m/labels/stable", "..%2F..%2Fetc")
        for verb, content in (("/metadata", DOUBLE), (":predict", {"outputs": [[2, 4]]}))
    }
    with served(answers) as (_, client):
        for arguments in ({"version": 3}, {"label": "stable"}):
            assert client.predict("m", x=[[1, 2]], **arguments)["y"].tolist() == [[2, 4]]
        assert client.predict("../../etc", x=[[1, 2]])["y"].tolist() == [[2, 4]]
        with pytest.raises(RequestError, match="version 3 and label 'stable', expected one"):
            client.predict("m", x=[[1, 2]], version=3, label="stable")
        with pytest.raises(RequestError, match=r"goes into a dict"):
            client.predict("m", x=[[1, 2]], label=[3])


def test_signatures_are_asked_once_and_again_after_an_error():
    refused = (400, {}, {"error": "Missing named input: z in 'inputs' object."})
    script = {METADATA: [ok(DOUBLE)], PREDICT: [ok({"outputs": [[1, 1]]}), ok({"outputs": [[1, 1]]}), refused]}
    with served(script) as (stub, client):
        for _ in range(2):
            client.predict("m", x=[[1, 2]])
        assert len(stub.asked(METADATA)) == 1
        with pytest.raises(ServingError, match="Missing named input: z") as raised:
            client.predict("m", x=[[1, 2]])
        assert (raised.value.code, raised.value.http) == ("INVALID_ARGUMENT", 400)
        with pytest.raises(ServingError):
            client.predict("m", x=[[1, 2]])
        assert len(stub.asked(METADATA)) == 2


def test_signatures_and_status_read_as_named_tuples():
    status = {
        "model_version_status": [
            {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}},
            {"version": "12", "state": "END", "status": {"error_code": "OUT_OF_RANGE", "error_message": "short"}},
        ]
    }
    with served({METADATA: [ok(DOUBLE)], "/v1/models/m": [ok(status)]}) as (_, client):
        found = client.signatures("m")
        assert client.status("m") == [
            VersionStatus(12, "END", "OUT_OF_RANGE", "short"),
            VersionStatus(1, "AVAILABLE", "OK", ""),
        ]
    assert found == {"serving_default": ([Tensor("x", "float32", (None, 2))], [Tensor("y", "float32", (None, 2))])}


@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        ((404, {}, {"error": "Servable not found for request: Latest(m)"}), "NOT_FOUND", "^Servable not found"),
        ((401, {}, {"error": "no token"}), "UNAUTHENTICATED", "^no token$"),
        ((504, {}, {"error": "late"}), "DEADLINE_EXCEEDED", "^late$"),
        ((500, {}, {"error": "broken"}), "INTERNAL", "^broken$"),
        ((502, {}, b"<H1>Bad\nGateway</H1>"), "INTERNAL", "HTTP 502 .*: <H1>Bad Gateway</H1>"),
        ((301, {"Location": "/"}, b""), "UNKNOWN", "HTTP 301"),
        ((200, {}, b"not JSON"), "UNKNOWN", "no answer of a model server: not JSON"),
        ((200, {}, {"outputs": {"a": 1, "b": 2}}), "ABORTED", "expected outputs"),
    ],
)
def test_an_error_carries_the_code_and_the_servers_words(answer, code, message):
    two = metadata(
        serving_default=({"x": info("DT_FLOAT", -1)}, {"y": info("DT_FLOAT", -1), "z": info("DT_FLOAT", -1)})
    )
    with (
        served({METADATA: [ok(two)], PREDICT: [answer]}) as (stub, client),
        pytest.raises(ServingError, match=message) as raised,
    ):
        client.predict("m", x=[1])
    assert raised.value.code == code
    assert len(stub.asked(PREDICT)) == 1


def test_a_body_beyond_the_servers_limit_is_an_error_of_its_own():
    def refuse_unread(handler):
        handler.wfile.write(b'HTTP/1.1 413 Too Large\r\nContent-Length: 16\r\n\r\n{"error": "big"}')
        handler.close_connection = True

    with (
        served({METADATA: [ok(DOUBLE)], PREDICT: [refuse_unread]}) as (_, client),
        pytest.raises(TooLargeError, match=r"^big$"),
    ):
        client.predict("m", x=np.zeros((10, 2)))


def test_a_busy_server_is_asked_again_when_it_says(monkeypatch):
    pauses = []
    monkeypatch.setattr("time.sleep", pauses.append)
    busy = [(503, {"Retry-After": "2"}, {"error": "draining"}), (429, {}, {"error": "full"})]
    with served({METADATA: [ok(DOUBLE)], PREDICT: [*busy, ok({"outputs": [[1, 1]]})]}) as (stub, client):
        client.predict("m", x=[[1, 2]])
        assert len(stub.asked(PREDICT)) == 3
    assert pauses == [2, 0.2]


def test_a_server_that_stays_busy_is_asked_four_times_and_never_beyond_the_timeout(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    for seconds, times in (("1", 4), ("60", 1)):
        busy = 429, {"Retry-After": seconds}, {"error": "full"}
        with served({METADATA: [ok(DOUBLE)], PREDICT: [busy]}) as (stub, client):
            with pytest.raises(ServingError, match=r"^full$") as raised:
                client.predict("m", x=[[1, 2]])
            assert len(stub.asked(PREDICT)) == times
        assert raised.value.code == "RESOURCE_EXHAUSTED"


def test_a_connection_is_kept_and_one_that_has_gone_stale_is_replaced():
    answer = ok({"outputs": [[1, 1]]})
    with served({METADATA: [ok(DOUBLE)], PREDICT: [answer, answer, hang_up, answer]}) as (stub, client):
        for _ in range(3):
            client.predict("m", x=[[1, 2]])
        peers = [request.peer for request in stub.requests]
    assert len(set(peers[:4])) == 1
    assert peers[4] != peers[3]


@pytest.mark.parametrize("answer", [hang_up, cut_off])
def test_a_request_whose_answer_was_lost_is_not_repeated(answer):
    with served({METADATA: [answer], "/v1/models/m": [cut_off]}) as (stub, client):
        for _ in range(2):
            with pytest.raises(ServingError, match="closed the connection") as raised:
                client.predict("m", x=[[1, 2]])
            assert raised.value.code == "UNAVAILABLE"
        assert len(stub.requests) == 2


def test_an_answer_cut_off_on_a_kept_connection_is_not_asked_for_again():
    with served({METADATA: [ok(DOUBLE)], PREDICT: [cut_off]}) as (stub, client):
        with pytest.raises(ServingError, match="closed the connection"):
            client.predict("m", x=[[1, 2]])
        assert len(stub.asked(PREDICT)) == 1


def test_a_server_that_does_not_answer_in_time_is_a_deadline_exceeded():
    released = threading.Event()
    with served({METADATA: [lambda _: released.wait(10)]}, timeout=0.1) as (stub, client):
        with pytest.raises(ServingError, match=r"no answer from http.* within 0\.1 s") as raised:
            client.predict("m", x=[[1, 2]])
        released.set()
    assert raised.value.code == "DEADLINE_EXCEEDED"
    assert len(stub.requests) == 1


def test_threads_share_a_client():
    with served({METADATA: [ok(DOUBLE)], PREDICT: [ok({"outputs": [[1, 1]]})]}) as (stub, client):
        with futures.ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: client.predict("m", x=[[1, 2]])["y"].tolist(), range(40)))
        assert answers == [[[1, 1]]] * 40
        assert len({request.peer for request in stub.requests}) <= 4


def test_the_token_is_sent_with_every_request_and_a_broken_one_is_refused():
    with served({METADATA: [ok(DOUBLE)], PREDICT: [ok({"outputs": [[1, 1]]})]}, token="secret") as (stub, client):
        client.predict("m", x=[[1, 2]])
        assert [request.headers["Authorization"] for request in stub.requests] == ["Bearer secret"] * 2
    for token in ("", " x", "a\nb", "ü"):
        with pytest.raises(RequestError, match="the `token`"):
            Client("http://localhost", token=token)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_refused_connection_says_where_and_how_to_start_a_server(scheme):
    url = f"{scheme}://127.0.0.1:{free_port()}"
    with Client(url, timeout=5) as client, pytest.raises(ServingError, match="dmkeras serve saved_models") as raised:
        client.predict("m", x=[1])
    assert str(raised.value).startswith(f"cannot connect to {url} (")
    assert "refused" in str(raised.value)
    assert raised.value.code == "UNAVAILABLE"


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8501",
        "ftp://h:1",
        "http://",
        "http://a:b@h:1",
        "http://h:port",
        "http://h/?q",
        "grpc://h",
        "grpc://h:1/p",
    ],
)
def test_what_is_no_address_of_a_server_is_refused(url):
    with pytest.raises(RequestError, match=r"received .*, expected"):
        Client(url)


@pytest.mark.parametrize(
    ("value", "dtype", "shape", "message"),
    [
        (np.zeros((2, 3)), "float32", (None, 2), r"'x' is \[2, 3\], expected float32 \[B, 2\]$"),
        (np.zeros(2), "float32", (None, 2), r"'x' is \[2\], expected float32 \[B, 2\]; a single one is a batch of one"),
        (b"png", "string", (None,), r"'x' is \[\], expected string \[B\]; a single one"),
        ([[1], [1, 2]], "float32", (None, None), r"'x' is ragged, expected float32 \[B, \?\]"),
        (np.zeros((1, 2), np.uint8), "float32", (None, 2), "uint8, expected float32; .*divide by 255"),
        ([1.0], "int32", (None,), "'x' is float64, expected int32"),
        ([2**31], "int32", (None,), "a number beyond int32"),
        ([-1], "uint8", (None,), "a number beyond uint8"),
        ([True], "float32", (None,), "'x' is bool, expected float32"),
        ([1], "bool", (None,), "'x' is int64, expected bool"),
        (["a"], "float32", (None,), "expected float32"),
        ([1], "string", (None,), "'x' holds int, expected bytes or str"),
        ([1], "bfloat16", (None,), "'x' is bfloat16, which cannot be sent"),
    ],
)
def test_an_input_that_would_have_to_change_is_refused_by_name(value, dtype, shape, message):
    with pytest.raises(RequestError, match=message):
        as_array(value, Tensor("x", dtype, shape))


def test_names_that_are_not_there_are_told_from_those_that_are():
    with served({METADATA: [ok(DOUBLE)]}) as (_, client):
        with pytest.raises(RequestError, match=r"m, serving_default: received inputs \['z'\], expected names among x"):
            client.predict("m", z=[1])
        with pytest.raises(ServingError, match="m has no signature 'sample'; there is serving_default"):
            client.predict("m", signature="sample", z=[1])


def test_the_rest_client_needs_no_tensorflow():
    code = (
        "import sys; from dmkeras.serving import Client; Client('http://localhost');"
        "assert not {'tensorflow', 'grpc'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)
