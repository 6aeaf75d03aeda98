"""What the real server has no limit for, and what is no HTTP. Its answers are measured; each difference says why."""

import json
import socket

import grpc
import numpy as np
import pytest

from tests.serving import multi
from tests.serving.conformance import protos

BODY = json.dumps({"instances": [[1, 2]]})
NO_LIMIT = "the real server reads a body of any length into memory"
QUEUES = "the real server queues what comes over REST; ours answers at once that it is busy"


def raw(server, text):
    """What a server says to some bytes."""
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=10) as connection:
        connection.sendall(text)
        return connection.recv(65536)


@pytest.mark.parametrize(
    "text",
    [b"hello\r\n\r\n", b"POST /v1/models/multi:predict HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n"],
    ids=["a line that is no request", "a negative length"],
)
def test_what_is_no_http_is_refused(server, text):
    assert raw(server, text).split(b" ")[1] == b"400"


def test_a_body_that_is_too_long_is_refused_before_it_is_sent(server):
    if server.real:
        pytest.skip(NO_LIMIT)
    head = b"POST /v1/models/multi:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n"
    assert raw(server, head).startswith(b"HTTP/1.1 413 ")


def test_a_server_with_its_hands_full_says_so(server):
    """Over gRPC both do, by RESOURCE_EXHAUSTED."""
    feed = {"x": np.ones(1, np.float32), "steps": np.array([multi.MAX_STEPS], np.int32)}
    slow = protos.predict(feed, signature="slow")
    calls = [server.prediction.Predict.future(slow, timeout=2) for _ in range(100)]
    codes = set()
    try:
        server.wait(lambda: any(call.done() for call in calls), "a refusal", 5)
        answer = server.ask("POST", "/v1/models/multi:predict", BODY)
        assert answer.status == (200 if server.real else 429), QUEUES
        assert server.real or int(answer.headers["Retry-After"]) > 0
    finally:
        codes = {call.code() for call in calls}  # waits
    assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED}
    server.wait(lambda: server.ask("POST", "/v1/models/multi:predict", BODY).status == 200, "free hands")
