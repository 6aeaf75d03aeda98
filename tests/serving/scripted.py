"""An HTTP server that answers by script, and a client of it: for what a real server does only on a bad day."""

import collections
import contextlib
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from dmkeras.serving import Client

METADATA, PREDICT = "/v1/models/m/metadata", "/v1/models/m:predict"


def info(dtype, *sizes):
    return {"name": "graph:0", "dtype": dtype, "tensor_shape": {"dim": [{"size": str(size)} for size in sizes]}}


def metadata(**signatures):
    """TF Serving's description of {signature: (inputs, outputs)}."""
    definitions = {name: {"inputs": takes, "outputs": gives} for name, (takes, gives) in signatures.items()}
    definitions["__saved_model_init_op"] = {"inputs": {}, "outputs": {"op": info("DT_INVALID")}}
    return {"model_spec": {"name": "m"}, "metadata": {"signature_def": {"signature_def": definitions}}}


DOUBLE = metadata(serving_default=({"x": info("DT_FLOAT", -1, 2)}, {"y": info("DT_FLOAT", -1, 2)}))


class Stub(ThreadingHTTPServer):
    """Answers each path by the next of its scripted answers, the last one for ever; keeps what was asked."""

    daemon_threads = True

    def __init__(self, script):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.requests = {path: list(answers) for path, answers in script.items()}, []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def asked(self, path):
        return [request for request in self.requests if request.path == path]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    Request = collections.namedtuple("Request", "path headers body peer")

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append(
            self.Request(self.path, self.headers, json.loads(body or "null"), self.client_address)
        )
        answers = self.server.script.get(self.path, [(404, {}, {"error": "none"})])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if callable(answer):
            return answer(self)
        status, headers, content = answer
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(content), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_):
        pass


def ok(content):
    return 200, {}, content


def hang_up(handler):
    """Closes the connection before any byte of an answer."""
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def cut_off(handler):
    """Closes the connection in the middle of an answer."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    hang_up(handler)


@contextlib.contextmanager
def served(script, **options):
    """A stub at work and a client of it."""
    with Stub(script) as stub:
        thread = threading.Thread(target=stub.serve_forever, args=(0.01,))
        thread.start()
        try:
            with Client(stub.url, **{"timeout": 10, **options}) as client:
                yield stub, client
        finally:
            stub.shutdown()
            thread.join()
