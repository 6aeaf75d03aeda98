"""The REST port: `rest_app` on uvicorn, in a thread with an event loop of its own, started and drained."""

import logging
import socket
import threading
import time

import uvicorn

from dmkeras.serving import json_text
from dmkeras.serving.embedded import metrics
from dmkeras.serving.embedded.rest_app import App
from dmkeras.serving.embedded.rest_listener import Listener
from dmkeras.serving.embedded.rest_protocol import Limits, protocol

LOG = logging.getLogger(__name__)


class RestServer:
    """Serves `servables` at host:port until it is stopped; `port` is the real one once it has started (0: a free one).

    Args:
        servables: the `Servables` that answer.
        host: address to listen at.
        port: number of the port.
        gate: counts and bounds the requests at work, of both ports.
        metrics: a `Metrics`.
        access_log: an `AccessLog`.
        max_body_bytes: longest request, compressed and not.
        timeout: seconds for a request once it has arrived.
        token: what callers send as `Authorization: Bearer TOKEN`; /livez and /readyz are open without it.
        tls: (key, certificate), paths of PEM files.
        max_depth: levels that a request's JSON may nest.
        cors: whether browsers may ask from pages of other origins.
        metrics_path: where Prometheus finds the metrics.
        max_workers: threads for requests; as many as the gate lets in.
        body_seconds: for a request's body to arrive.
        lame_duck_seconds: for callers to learn that the server goes, before it takes no more connections.
        limits: `Limits` of connections.
    """

    def __init__(
        self,
        servables,
        *,
        host,
        port,
        tls=None,
        token=None,
        max_depth=json_text.MAX_DEPTH,
        cors=False,
        metrics_path=metrics.PATH,
        max_workers=64,
        body_seconds=60.0,
        lame_duck_seconds=0.5,
        limits=None,
        **options,
    ):
        self.host, self.port, self._tls = host, port, tls
        self._limits, self._lame_duck_seconds = limits or Limits(), lame_duck_seconds
        self._app = App(
            servables,
            token=token,
            max_depth=max_depth,
            cors=cors,
            metrics_path=metrics_path,
            max_workers=max_workers,
            body_seconds=body_seconds,
            **options,
        )
        self._listener = self._thread = None

    def start(self):
        """Opens the port; OSError where that cannot be, also for TLS files that cannot be read."""
        for path in self._tls or ():
            open(path, "rb").close()  # an error here has the path, one of TLS has not
        config = uvicorn.Config(
            self._app,
            http=protocol(self._limits),
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="critical",  # callers can fill the log with what they get wrong
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=self._limits.idle_seconds,
            ssl_keyfile=self._tls and self._tls[0],
            ssl_certfile=self._tls and self._tls[1],
        )
        config.load()
        started = threading.Event()
        bound = _bound(self.host, self.port)
        self._listener = Listener(config, started.set, linger=1.0)
        self.port = bound.getsockname()[1]
        self._thread = threading.Thread(target=self._run, args=(bound, started), name="rest", daemon=True)
        self._thread.start()
        started.wait()
        if not self._listener.started:
            raise OSError(f"port {self.port} of {self.host} cannot be served; the server's log has the details")

    def stop(self, drain_seconds):
        """Tells callers to leave, closes the port, waits for the answers under way, at most `drain_seconds`."""
        self._app.draining = True
        if self._thread and self._thread.is_alive():
            if self._listener.server_state.connections:
                time.sleep(min(self._lame_duck_seconds, drain_seconds))
            self._listener.config.timeout_graceful_shutdown = max(drain_seconds - self._lame_duck_seconds, 0.1)
            self._listener.should_exit = True
            self._thread.join()
        self._app.close()

    def _run(self, bound, started):
        try:
            self._listener.run([bound])
        except Exception:
            LOG.exception("the loop of the REST port failed")
        finally:
            bound.close()
            started.set()


def _bound(host, port):
    """A socket that listens at an address."""
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    bound = socket.socket(family)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(2048)  # connections between here and the loop's first turn wait
    except OSError:
        bound.close()
        raise
    bound.setblocking(False)
    return bound
