"""The server stays up: whatever is sent to it, and whatever happens to its models while it answers."""

import http.client
import json
import socket

import grpc
import pytest
import schemathesis
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import positive_data_acceptance
from tensorflow_serving.apis import predict_pb2

from dmkeras.serving.embedded.server import Server
from tests.serving import multi

QUICK = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
LEAKS = (b"{{", b"[[{", b"function_node", b"/tmp", b"site-packages", b"Traceback", b".py")
SIGNATURES = sorted(multi.Multi().signatures())


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    base = tmp_path_factory.mktemp("stays_up")
    multi.write(base)
    return base


@pytest.fixture(scope="module")
def server(base):
    with Server(base, rest_port="auto", grpc_port="auto", timeout=5, max_body_bytes=1 << 20) as server:
        yield server


def port(url):
    return int(url.rpartition(":")[2])


@pytest.fixture(scope="module")
def rest(server):
    """(method, path, body, headers) -> (status, body)."""

    def ask(method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", port(server.rest_url), timeout=10)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    return ask


@pytest.fixture(scope="module")
def predict(server):
    """Serialized PredictRequest -> (status code, message)."""
    with grpc.insecure_channel(f"127.0.0.1:{port(server.grpc_url)}") as channel:
        method = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")

        def ask(request):
            try:
                method(request, timeout=10)
            except grpc.RpcError as error:
                return error.code(), error.details()
            return grpc.StatusCode.OK, ""

        yield ask


def alive(rest):
    status, body = rest("POST", "/v1/models/multi:predict", b'{"instances": [[1.0, 2.0]]}')
    return status == 200 and json.loads(body)["predictions"] == [[2.0, 4.0]]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just({"b64": "AAAA"}),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)
NAMES = st.sampled_from(SIGNATURES) | st.text(max_size=5)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "signature_name": NAMES | VALUES,
        "instances": VALUES,
        "inputs": VALUES,
        "examples": st.lists(st.dictionaries(st.sampled_from(["x", "count", "name"]), VALUES, max_size=3), max_size=3),
        "context": VALUES,
    },
)


@QUICK
@given(verb=st.sampled_from(["predict", "classify", "regress"]), body=BODIES)
def test_no_json_body_brings_a_server_error_or_a_leak(rest, verb, body):
    status, answer = rest("POST", f"/v1/models/multi:{verb}", json.dumps(body).encode())
    assert status in (200, 400), (status, answer)
    assert "error" in json.loads(answer) or status == 200
    assert status == 200 or not any(leak in answer for leak in LEAKS), answer


@QUICK
@given(body=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_bring_a_server_error(rest, body):
    status, answer = rest("POST", "/v1/models/multi:predict", body)
    assert status == 400
    assert json.loads(answer)["error"]


@QUICK
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "get", "X"]),
    path=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40).map("/{}".format)
    | st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20).map("/v1/models/{}".format),
    headers=st.dictionaries(
        st.sampled_from(["Content-Encoding", "Accept-Encoding", "Origin", "Authorization", "Content-Type", "Expect"])
        | st.from_regex("[A-Za-z-]{1,12}", fullmatch=True).filter(lambda name: name.lower() not in FRAMING),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30),
        max_size=4,
    ),
)
def test_no_method_path_or_header_brings_a_server_error(rest, method, path, headers):
    status, answer = rest(method, path, b"{}" if method == "POST" else None, headers)
    assert 200 <= status < 500, (status, answer)


FRAMING = ("content-length", "transfer-encoding", "connection", "upgrade", "host")


@QUICK
@given(junk=st.binary(max_size=300))
def test_no_bytes_on_the_socket_hang_or_kill_the_server(server, junk):
    with socket.create_connection(("127.0.0.1", port(server.rest_url)), timeout=10) as connection:
        connection.sendall(junk + b"\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass


@st.composite
def tensors(draw):
    """TensorProtos of any dtype, shape and content, most of them nonsense."""
    tensor = tf.make_tensor_proto(0.0)
    tensor.Clear()
    tensor.dtype = draw(st.sampled_from([0, 1, 2, 3, 4, 7, 9, 10, 14, 19, 20, 21, 23, 101]))
    for side in draw(st.lists(st.integers(-2, 4) | st.sampled_from([2**31, 2**62]), max_size=4)):
        tensor.tensor_shape.dim.add(size=side)
    tensor.tensor_shape.unknown_rank = draw(st.sampled_from([False, False, False, True]))
    tensor.tensor_content = draw(st.binary(max_size=32))
    tensor.float_val.extend(draw(st.lists(st.floats(width=32), max_size=4)))
    tensor.string_val.extend(draw(st.lists(st.binary(max_size=4), max_size=3)))
    tensor.int_val.extend(draw(st.lists(st.integers(-5, 5), max_size=4)))
    return tensor


@st.composite
def predict_requests(draw):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "multi"
    request.model_spec.signature_name = draw(NAMES)
    for name in draw(st.lists(st.sampled_from(["images", "x", "inputs", "text", "steps", ""]), max_size=2)):
        request.inputs[name].CopyFrom(draw(tensors()))
    request.output_filter.extend(draw(st.lists(st.sampled_from(["y", "scores", ""]), max_size=2)))
    return request.SerializeToString()


@QUICK
@given(request=predict_requests() | st.binary(max_size=100))
def test_no_tensor_kills_the_server_over_grpc(predict, request):
    code, message = predict(request)
    assert code.name in ("OK", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "NOT_FOUND"), message
    assert not any(leak in message.encode() for leak in LEAKS), message


def test_the_server_answers_as_its_description_says(server):
    """But for the requests that only the graph refuses, such as examples without its features."""

    def statuses(operation):
        seen = set()

        @settings(QUICK, max_examples=8)
        @given(case=operation.as_strategy())
        def check(case):
            seen.add(case.call_and_validate(excluded_checks=[positive_data_acceptance]).status_code)

        check()
        return seen

    description = schemathesis.openapi.from_url(f"{server.rest_url}/openapi.json")
    found = {operation.ok().label: statuses(operation.ok()) for operation in description.get_all_operations()}
    answered = [label for label, seen in found.items() if 200 in seen]
    assert any("predict" in label for label in answered), found
    assert any("metadata" in label for label in answered), found


def test_after_all_this_the_server_answers(rest):
    assert alive(rest)
