import contextlib
import gzip
import http.client
import io
import json
import logging
import shutil
import socket
import ssl
import subprocess
import threading
import time

import pytest

from dmkeras.serving.access_log import AccessLog
from dmkeras.serving.errors import ServingError
from dmkeras.serving.limits import Gate
from dmkeras.serving.metrics import Metrics
from dmkeras.serving.rest_protocol import Limits
from dmkeras.serving.rest_server import RestServer
from tests.serving.stub import Stub, big, raising

PREDICT = "/v1/models/m:predict"
BODY = b'{"instances": [1]}'
ANSWER = b'{"predictions":[2.0]}'
POST = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: a\r\n"


class Held:
    """A signature that answers when it is let go."""

    def __init__(self):
        self.entered, self.go = threading.Semaphore(0), threading.Event()

    def __call__(self, feed):
        self.entered.release()
        assert self.go.wait(10)
        return {"y": feed["x"]}

    def body(self):
        return b'{"signature_name": "held", "instances": [1]}'


class Running:
    """A server on a free port and what it has written; `ask` opens a connection for every request."""

    def __init__(self, servables=None, *, places=8, **options):
        self.gate, self.metrics, self.log = Gate(places), Metrics(), io.StringIO()
        options = {"max_body_bytes": 100_000, "timeout": 10.0, "lame_duck_seconds": 0.1} | options
        self.server = RestServer(
            servables or Stub(),
            host="127.0.0.1",
            port=0,
            gate=self.gate,
            metrics=self.metrics,
            access_log=AccessLog(self.log),
            **options,
        )

    def __enter__(self):
        self.server.start()
        return self

    def __exit__(self, *_):
        self.server.stop(5)

    def ask(self, method="POST", path=PREDICT, body=BODY, headers=None):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)) as connection:
            connection.request(method, path, body, headers or {})
            return answered(connection)

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.server.port), timeout=10)


def answered(connection):
    response = connection.getresponse()
    response.content = response.read()
    return response


def in_background(function, *args):
    """Runs it in a thread; returns what waits for its result."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function(*args)))
    thread.start()

    def result():
        thread.join(10)
        return results[0]

    return result


def until(condition, seconds=5):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def rest_of(connection):
    """What comes until the server closes."""
    content = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            content += piece
    return content


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


# ---- long bodies


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


# ---- slow callers


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


# ---- requests in flight


def test_a_full_server_says_so_at_once_and_is_still_seen_to_live():
    held = Held()
    with Running(Stub(held=held), places=1, max_workers=1) as running:
        first = in_background(running.ask, "POST", PREDICT, held.body())
        held.entered.acquire()
        refused = running.ask()
        assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
        assert [running.ask("GET", path, None).status for path in ("/livez", "/readyz", "/v1/models/m")] == [200] * 3
        held.go.set()
        assert first().status == 200
        assert running.ask().status == 200
        assert running.gate.in_flight == 0


def test_a_late_answer_keeps_its_place_until_its_end():
    held = Held()
    with Running(Stub(held=held), timeout=0.2) as running:
        assert running.ask(body=held.body()).status == 504
        assert running.gate.in_flight == 1
        held.go.set()
        assert running.gate.wait_idle(5)


def test_a_caller_who_is_gone_takes_no_place():
    held = Held()
    with Running(Stub(held=held)) as running:
        for sent in (POST + b"Content-Length: 50\r\n\r\n{", b"POST /v1", b""):
            with running.connect() as connection:
                connection.sendall(sent)
        with running.connect() as connection:
            connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(held.body()) + held.body())
            held.entered.acquire()
        held.go.set()
        assert running.gate.wait_idle(5)
        until(lambda: not running.server._listener.server_state.connections)
        until(lambda: '"CANCELLED"' in running.log.getvalue())


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


def test_readiness_is_that_of_the_models():
    stub = Stub()
    stub.is_ready = False
    with Running(stub) as running:
        assert running.ask("GET", "/readyz", None).status == 503
        assert running.ask("GET", "/livez", None).status == 200
        stub.is_ready = True
        assert running.ask("GET", "/readyz", None).content == b"ok\n"


# ---- who may ask


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
    with Running(tls=(key, certificate)) as running:
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


# ---- the end


def test_an_answer_under_way_is_waited_for():
    held = Held()
    with Running(Stub(held=held)) as running:
        answer = in_background(running.ask, "POST", PREDICT, held.body())
        held.entered.acquire()
        stopped = in_background(running.server.stop, 5)
        until(lambda: running.server._app.draining)
        time.sleep(0.3)
        held.go.set()
        response = answer()
        assert (response.status, response.headers["Connection"]) == (200, "close")
        stopped()
    with pytest.raises(ConnectionRefusedError):
        running.ask()


def test_the_end_comes_when_the_time_for_draining_has_passed():
    held = Held()
    with Running(Stub(held=held)) as running, running.connect() as connection:
        connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(held.body()) + held.body())
        held.entered.acquire()
        start = time.monotonic()
        running.server.stop(0.3)
        assert time.monotonic() - start < 2
        held.go.set()


def test_callers_are_told_to_leave_before_the_port_closes():
    with Running(lame_duck_seconds=1) as running:
        connection = http.client.HTTPConnection("127.0.0.1", running.server.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("POST", PREDICT, BODY)
            assert "Connection" not in answered(connection).headers
            stopped = in_background(running.server.stop, 5)
            until(lambda: running.server._app.draining)
            assert running.ask("GET", "/readyz", None).status == 503
            connection.request("POST", PREDICT, BODY)
            response = answered(connection)
            assert (response.content, response.headers["Connection"]) == (ANSWER, "close")
        stopped()


def test_no_request_is_lost_at_the_end():
    """Callers hammer a server that ends, over kept connections and new ones; who was let in has an answer."""
    lost, answers = [], []

    def caller(port, keeps):
        connection = None
        while True:
            try:
                connection = connection or socket.create_connection(("127.0.0.1", port), timeout=10)
            except ConnectionError:  # it was not let in
                return
            try:
                connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
                answer = b""
                while ANSWER not in answer:
                    piece = connection.recv(65536)
                    assert piece, answer
                    answer += piece
                answers.append(answer)
            except Exception as error:
                lost.append(error)
                return
            if not keeps or b"connection: close" in answer:
                connection.close()
                connection = None

    for _ in range(3):
        with Running(places=64) as running:
            callers = [threading.Thread(target=caller, args=(running.server.port, index % 2)) for index in range(8)]
            for thread in callers:
                thread.start()
            time.sleep(0.3)
            running.server.stop(5)
            for thread in callers:
                thread.join(10)
    assert not lost
    assert len(answers) > 100


def test_stopping_what_was_never_started_is_nothing():
    Running().server.stop(1)


def test_a_model_that_is_busy_leaves_the_loop_free():
    """Health answers in no time while every thread of the models is at work."""

    def busy(feed):
        end = time.monotonic() + 1
        while time.monotonic() < end:
            pass
        raise ServingError("CANCELLED", "enough")

    with Running(Stub(held=busy), places=4, max_workers=4) as running:
        answers = [in_background(running.ask, "POST", PREDICT, Held.body(None)) for _ in range(4)]
        until(lambda: running.gate.in_flight == 4)
        start = time.monotonic()
        assert running.ask("GET", "/livez", None).status == 200
        assert time.monotonic() - start < 0.7
        assert {answer().status for answer in answers} == {499}
