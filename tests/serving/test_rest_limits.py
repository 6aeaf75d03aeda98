import contextlib
import gzip
import http.client
import json
import time

import pytest

from dmkeras.serving.embedded.rest_protocol import Limits
from tests.serving.rest_port import ANSWER, BODY, POST, PREDICT, Running, answered, rest_of, until
from tests.serving.stub import Stub, big


@pytest.fixture(scope="module")
def running():
    with Running(Stub(big=big)) as running:
        yield running


def test_a_long_body_is_refused_before_it_has_come(running):
    with running.connect() as connection:
        connection.sendall(POST + b"Content-Length: 100001\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")


def test_a_connection_outlives_a_body_that_was_refused(running):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", running.server.port, timeout=10)) as connection:
        connection.request("POST", PREDICT, b" " * 3_000_000)
        response = answered(connection)
        assert (response.status, list(json.loads(response.content))) == (413, ["error"])
        connection.request("POST", PREDICT, BODY)
        assert answered(connection).content == ANSWER


def test_a_body_without_an_end_is_refused_at_the_limit(running):
    with running.connect() as connection:
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        piece = b"2710\r\n" + b" " * 10_000 + b"\r\n"
        connection.sendall(11 * piece)
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")


def test_bodies_beyond_the_memory_for_them_have_to_wait():
    with Running(max_body_bytes=1000) as running, contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(running.connect()) for _ in range(8)]
        for connection in waiting:
            connection.sendall(POST + b"Content-Length: 1000\r\n\r\n" + b" " * 999)
        until(lambda: running.server._app._held >= 8 * 999)
        response = running.ask(body=b" " * 1000)
        assert (response.status, response.headers["Retry-After"]) == (503, "1")
        for connection in waiting:
            connection.close()
        until(lambda: running.server._app._held == 0)
        assert running.ask().status == 200


def test_a_gzip_is_taken_and_a_bomb_is_not(running):
    headers = {"Content-Encoding": "gzip"}
    assert running.ask(body=gzip.compress(BODY), headers=headers).content == ANSWER
    assert running.ask(body=gzip.compress(b" " * 50_000_000), headers=headers).status == 413
    assert running.ask("GET", "/v1/models/m", None, headers).status == 200
    for body in (b"no gzip", gzip.compress(BODY)[:-9], b""):
        response = running.ask(body=body, headers=headers)
        assert response.status == 400
        assert "The document is empty" in json.loads(response.content)["error"]


def test_a_long_answer_is_compressed_for_those_who_take_it(running):
    body = b'{"signature_name": "big", "instances": [10000]}'
    plain = running.ask(body=body)
    packed = running.ask(body=body, headers={"Accept-Encoding": "gzip, br"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert len(packed.content) < len(plain.content) / 2
    assert gzip.decompress(packed.content) == plain.content
    assert "Content-Encoding" not in running.ask(headers={"Accept-Encoding": "gzip"}).headers


SHORT = Limits(connections=4, header_bytes=2000, header_seconds=0.3, idle_seconds=0.3, write_seconds=1)


@pytest.fixture(scope="module")
def impatient():
    with Running(Stub(big=big), limits=SHORT, body_seconds=0.3, lame_duck_seconds=0) as running:
        yield running


@pytest.mark.parametrize(
    "sent",
    [b"", b"POST /v1", POST, b"\r\n", POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY + b"\r\nPOST"],
    ids=["nothing", "a piece of a line", "a piece of the headers", "an empty line", "a piece of the second request"],
)
def test_headers_that_do_not_come_are_not_waited_for(impatient, sent):
    with impatient.connect() as connection:
        start = time.monotonic()
        connection.sendall(sent)
        rest_of(connection)
        assert 0.2 < time.monotonic() - start < 2


@pytest.mark.parametrize("drop", [b"X: y\r\n", b"\r\n"], ids=["headers", "empty lines after an answer"])
def test_headers_that_never_end_are_not_waited_for(impatient, drop):
    with impatient.connect() as connection:
        start = time.monotonic()
        connection.sendall(POST if drop != b"\r\n" else POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - start < 3:
                connection.sendall(drop)
                time.sleep(0.02)
        assert time.monotonic() - start < 2


def test_a_connection_that_rests_is_closed(impatient):
    with impatient.connect() as connection:
        connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
        assert rest_of(connection).endswith(ANSWER)


def test_a_body_that_does_not_come_is_told_so(impatient):
    with impatient.connect() as connection:
        connection.sendall(POST + b"Content-Length: 50\r\n\r\n" + b"{")
        answer = rest_of(connection)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in answer
    assert b"the body did not arrive within 0.3 s" in answer


def test_the_body_of_a_second_request_has_its_own_time():
    limits = Limits(header_seconds=0.3)
    with Running(limits=limits, body_seconds=5) as running, running.connect() as connection:
        request = POST + b"Content-Length: %d\r\n\r\n" % len(BODY)
        connection.sendall(request + BODY + request + BODY[:5])
        time.sleep(0.6)
        connection.sendall(BODY[5:])
        answers = b""
        while answers.count(ANSWER) < 2:
            piece = connection.recv(65536)
            assert piece
            answers += piece


def test_a_refused_body_that_does_not_end_is_not_waited_for(impatient):
    with impatient.connect() as connection:
        start = time.monotonic()
        connection.sendall(POST + b"Content-Length: 100000000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - start < 3:
                connection.sendall(b" " * 100)
                time.sleep(0.02)
        assert time.monotonic() - start < 2


@pytest.mark.parametrize("header", [b"X: " + 3000 * b"y", 600 * b"X: y\r\n"], ids=["one", "many"])
def test_headers_have_a_size(impatient, header):
    with impatient.connect() as connection:
        connection.sendall(POST + header)
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"\r\n\r\n")
        answer = rest_of(connection)
    assert answer.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400"))
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]


def test_there_are_only_so_many_connections(impatient):
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(impatient.connect())
        last = stack.enter_context(impatient.connect())
        assert rest_of(last).startswith(b"HTTP/1.1 503")
    until(lambda: not impatient.server._listener.server_state.connections)
    assert impatient.ask().status == 200


def test_an_answer_that_nobody_takes_is_dropped(impatient):
    with impatient.connect() as connection:
        body = b'{"signature_name": "big", "instances": [4000000]}'
        connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        connections = impatient.server._listener.server_state.connections
        until(lambda: connections)
        until(lambda: not connections, 10)


@pytest.mark.parametrize("junk", [b"\x00\xff\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n"])
def test_what_is_no_http_is_told_so_and_closed(running, junk):
    with running.connect() as connection:
        connection.sendall(junk)
        answer = rest_of(connection)
    assert answer.startswith(b"HTTP/1.1 400")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
