import contextlib
import http.client
import socket
import sys
import threading
import time

import pytest

from dmkeras.serving.embedded import rest_listener
from dmkeras.serving.errors import ServingError
from tests.serving.rest_port import ANSWER, BODY, POST, PREDICT, Held, Running, answered, in_background, until
from tests.serving.stub import Stub


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


def test_readiness_is_that_of_the_models():
    stub = Stub()
    stub.is_ready = False
    with Running(stub) as running:
        assert running.ask("GET", "/readyz", None).status == 503
        assert running.ask("GET", "/livez", None).status == 200
        stub.is_ready = True
        assert running.ask("GET", "/readyz", None).content == b"ok\n"


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


@pytest.mark.skipif(sys.platform != "linux", reason="packet filters are Linux's")
def test_a_port_that_turns_away_keeps_the_connections_that_were_made():
    listening = socket.create_server(("127.0.0.1", 0))
    address = listening.getsockname()
    with listening, socket.create_connection(address, timeout=5) as made:
        rest_listener._turn_away(listening)
        with pytest.raises(TimeoutError):
            socket.create_connection(address, timeout=0.2)
        accepted, _ = listening.accept()
        with accepted:
            made.sendall(b"still here")
            assert accepted.recv(100) == b"still here"


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
