"""A `RestServer` with models that are Python functions, and what its tests do to it."""

import contextlib
import http.client
import io
import socket
import threading
import time

from dmkeras.serving.embedded.access_log import AccessLog
from dmkeras.serving.embedded.limits import Gate
from dmkeras.serving.embedded.metrics import Metrics
from dmkeras.serving.embedded.rest_server import RestServer
from tests.serving.stub import Stub

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
