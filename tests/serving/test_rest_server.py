import contextlib
import http.client
import json
import logging
import shutil
import ssl
import subprocess

import pytest

from dmkeras.serving.embedded.rest_protocol import Limits
from dmkeras.serving.errors import ServingError
from tests.serving.rest_port import ANSWER, BODY, POST, PREDICT, Running, answered, rest_of, until
from tests.serving.stub import Stub, big, raising


@pytest.fixture(scope="module")
def running():
    with Running(Stub(big=big, broken=raising(KeyError("/secret")))) as running:
        yield running


def test_a_connection_answers_one_request_after_the_other(running):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", running.server.port, timeout=10)) as connection:
        for path, status in ((PREDICT, 200), ("/v1/models/none:predict", 404), (PREDICT, 200)):
            connection.request("POST", path, BODY)
            sock = connection.sock
            response = answered(connection)
            assert (response.status, connection.sock) == (status, sock)
        assert response.content == ANSWER
        assert response.headers["Content-Type"] == "application/json"


def test_requests_may_be_sent_before_the_first_is_answered(running):
    request = POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    with running.connect() as connection:
        connection.sendall(2 * request + request.replace(b"Host: a", b"Connection: close"))
        assert rest_of(connection).count(ANSWER) == 3


def test_a_body_may_come_in_chunks(running):
    with running.connect() as connection:
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (BODY[:5], BODY[5:])) + b"0\r\n\r\n"
        connection.sendall(POST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
        assert rest_of(connection).endswith(ANSWER)


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Content-Length : 5\r\n",
    ],
)
def test_a_body_of_two_lengths_is_no_http(running, lines):
    with running.connect() as connection:
        connection.sendall(POST + lines + b"\r\n0\r\n\r\nGET /livez HTTP/1.1\r\n\r\n")
        answer = rest_of(connection)
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.count(b"HTTP/1.1") == 1


def test_a_caller_who_asks_first_is_told_to_go_on_or_not(running):
    for length, first in ((len(BODY), b"HTTP/1.1 100"), (200_000, b"HTTP/1.1 413")):
        with running.connect() as connection:
            connection.sendall(POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % length)
            assert connection.recv(65536).startswith(first)


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
@pytest.mark.parametrize("pieces", [1, 200])
def test_another_protocol_is_not_changed_to(running, protocol, pieces):
    upgrade = b"Connection: upgrade, HTTP2-Settings\r\nUpgrade: %b\r\nContent-Length: %d\r\n\r\n"
    request = POST + upgrade % (protocol, len(BODY)) + BODY
    with running.connect() as connection:
        size = len(request) // pieces + 1
        for start in range(0, len(request), size):
            connection.sendall(request[start : start + size])
        answer = b""
        while ANSWER not in answer:
            answer += connection.recv(65536)
        connection.sendall(request + request.replace(b"Host: a", b"Connection: close"))
        assert rest_of(connection).count(ANSWER) == 2


def test_offers_of_another_protocol_may_come_together(running):
    request = b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"
    with running.connect() as connection:
        connection.sendall(1500 * request + b"GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert rest_of(connection).count(b"HTTP/1.1 200") == 1501


def test_a_tunnel_is_refused(running):
    with running.connect() as connection:
        connection.sendall(b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert rest_of(connection).startswith(b"HTTP/1.1 400")


def test_a_head_has_no_body(running):
    response = running.ask("HEAD", "/v1/models/m", None)
    assert (response.status, response.content) == (400, b"")
    assert int(response.headers["Content-Length"]) > 0


@pytest.mark.parametrize(("origin", "status"), [({}, 400), ({"Origin": "https://a"}, 200)])
def test_options_ask_first(running, origin, status):
    response = running.ask("OPTIONS", PREDICT, None, origin)
    assert (response.status, response.content) == (status, b"")
    assert "Access-Control-Allow-Origin" not in response.headers


def test_pages_of_other_origins_may_ask_where_that_is_allowed():
    with Running(cors=True) as running:
        for response in (running.ask(), running.ask("OPTIONS", PREDICT, None, {"Origin": "http://a"})):
            assert response.status == 200
            assert response.headers["Access-Control-Allow-Origin"] == "*"
            assert response.headers["Access-Control-Allow-Methods"] == "POST, GET"


def test_a_fault_of_ours_is_told_to_the_log_alone(running, caplog):
    with caplog.at_level(logging.ERROR):
        response = running.ask(body=b'{"signature_name": "broken", "instances": [1]}')
    assert response.status == 500
    assert b"secret" not in response.content
    assert "/secret" in caplog.text


def test_a_graph_that_lacks_memory_does_not_ask_to_be_tried_again():
    with Running(Stub(serving_default=raising(ServingError("RESOURCE_EXHAUSTED", "OOM")))) as running:
        response = running.ask()
    assert response.status == 429
    assert "Retry-After" not in response.headers


def test_what_was_asked_is_counted_and_written_down(running):
    running.ask(body=b'{"instances": [1, 2, 3]}')
    running.ask(path="/v1/models/none:predict")
    until(lambda: '"none"' in running.log.getvalue())
    page = running.ask("GET", "/monitoring/prometheus/metrics", None).content.decode()
    assert ':tensorflow:serving:request_count{model_name="m",status="OK"}' in page
    assert ':tensorflow:serving:request_count{model_name="",status="NOT_FOUND"}' in page
    assert ':tensorflow:serving:request_latency_count{API="Predict",entrypoint="REST",model_name="m"}' in page
    *_, ours, strange = map(json.loads, running.log.getvalue().splitlines())
    assert ours | {"seconds": 0, "time": 0} == {
        "time": 0,
        "api": "REST",
        "peer": "127.0.0.1",
        "method": "Predict",
        "model": "m",
        "version": 3,
        "signature": "",
        "status": "OK",
        "bytes_in": 24,
        "bytes_out": len(b'{"predictions":[2.0,4.0,6.0]}'),
        "seconds": 0,
    }
    assert (strange["model"], strange["status"]) == ("none", "NOT_FOUND")


def test_a_loop_that_cannot_run_is_an_error(monkeypatch, caplog):
    async def fail(*_, **__):
        raise RuntimeError("no loop")

    monkeypatch.setattr("dmkeras.serving.embedded.rest_listener.Listener.startup", fail)
    with pytest.raises(OSError, match="cannot be served"):
        Running().server.start()
    assert "no loop" in caplog.text


def test_a_token_opens_everything_and_health_needs_none():
    with Running(token="s3cret") as running:
        for headers in ({}, {"Authorization": "Bearer s3cre"}, {"Authorization": "Basic s3cret"}, {"X": "s3cret"}):
            for method, path in (("POST", PREDICT), ("GET", "/v1/models/m"), ("GET", "/openapi.json"), ("GET", "/x")):
                response = running.ask(method, path, BODY if method == "POST" else None, headers)
                assert (response.status, response.headers["WWW-Authenticate"]) == (401, "Bearer")
                assert list(json.loads(response.content)) == ["error"]
            assert running.ask("GET", "/monitoring/prometheus/metrics", None, headers).status == 401
        assert running.ask(headers={"Authorization": "bearer s3cret"}).content == ANSWER
        assert running.ask("GET", "/livez", None).status == running.ask("GET", "/readyz", None).status == 200


def test_tls_is_spoken_where_it_is_asked_for(tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("no openssl, which makes the certificate")
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test"
    command += f" -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}"
    subprocess.run(command.split(), check=True, capture_output=True)
    with Running(tls=(key, certificate), limits=Limits(header_seconds=0.3)) as running:
        with running.connect() as silent:
            assert rest_of(silent) == b""  # a handshake that does not come is not waited for
        context = ssl.create_default_context(cafile=certificate)
        address = "127.0.0.1", running.server.port
        with contextlib.closing(http.client.HTTPSConnection(*address, context=context, timeout=10)) as connection:
            connection.request("POST", PREDICT, BODY)
            assert answered(connection).content == ANSWER
    with pytest.raises(OSError, match=r"no\.pem"):
        Running(tls=(str(tmp_path / "no.pem"), certificate)).server.start()


def test_a_port_that_is_taken_is_an_error():
    with Running() as running:
        second = Running()
        second.server.port = running.server.port
        with pytest.raises(OSError, match="in use"):
            second.server.start()
