"""The embedded server: TF Serving's REST and gRPC contract in one Python process.

    callers -> rest_server -> rest_api -+
    callers -> grpc_server -------------+-> inference -> servables -> runtime (a session for each version)

One gate counts the requests of both ports; one `Servables` watches the folders and swaps versions beneath them.
"""

import pathlib
import threading

from dmkeras.serving import folders
from dmkeras.serving.embedded import ports
from dmkeras.serving.embedded.access_log import AccessLog
from dmkeras.serving.embedded.grpc_server import GrpcServer
from dmkeras.serving.embedded.limits import Gate
from dmkeras.serving.embedded.metrics import PATH, Metrics
from dmkeras.serving.embedded.rest_server import RestServer
from dmkeras.serving.embedded.servables import Servables
from dmkeras.serving.errors import RequestError


class Server:
    """Serves models until it is stopped. A context manager, for notebooks and tests:

        with Server("saved_models", rest_port="auto") as server:
            Client(server.rest_url).predict("vae", signature="sample", seed=[[1, 0]])

    Args:
        models: the folder that holds NAME/VERSION, whose models are served as they come and go; or a list of
            `ModelConfig`.
        host: the address to listen at; the default is reached from this machine alone.
        rest_port, grpc_port: 0 leaves the port closed, "auto" takes a free one.
        token: what callers send as `Authorization: Bearer TOKEN`; None asks for nothing.
        tls: (key, certificate), paths of two PEM files, for both ports.
        max_body_bytes: longest request, after decompression.
        max_concurrency: requests in flight, both ports together; those beyond are refused at once.
        timeout: seconds for a request, unless its caller sets a shorter deadline.
        drain_seconds: how long `stop` waits for the requests in flight.
        cors: whether browsers may ask from pages of other origins.
        metrics_path: of the REST port, for Prometheus.
        access_log: a text stream for one JSON line a request, or None.
        loading: further arguments of `Servables`: batching, polling, warm-up, threads.

    Raises:
        NotADirectoryError: for `models` that is no folder.
        RequestError: for a folder that holds no models but is one, and what else cannot be served.
    """

    def __init__(
        self,
        models,
        *,
        host="127.0.0.1",
        rest_port=8501,
        grpc_port=8500,
        token=None,
        tls=None,
        max_body_bytes=64 << 20,
        max_concurrency=64,
        timeout=30.0,
        drain_seconds=30.0,
        cors=False,
        metrics_path=PATH,
        access_log=None,
        **loading,
    ):
        if not timeout > 0:
            raise RequestError(f"received a timeout of {timeout}, expected seconds above 0")
        self.host, self._ports, self._drain_seconds = host, (rest_port, grpc_port), drain_seconds
        self._tls = tls
        self._scheme = "https" if tls else "http"
        metrics = Metrics()
        folder = pathlib.Path(models) if isinstance(models, str | pathlib.Path) else None
        if folder is not None:
            folders.check_base(folder)
        self.servables = Servables([] if folder is not None else models, discover=folder, metrics=metrics, **loading)
        shared = {
            "host": host,
            "gate": Gate(max_concurrency),
            "metrics": metrics,
            "access_log": AccessLog(access_log),
            "max_body_bytes": max_body_bytes,
            "timeout": timeout,
            "token": token,
            "tls": tls,
            "max_workers": max_concurrency,
        }
        self._rest = self._grpc = None
        if grpc_port != 0:
            self._grpc = GrpcServer(self.servables, port=ports.number(grpc_port), **shared)
        if rest_port != 0:
            self._rest = RestServer(
                self.servables, port=ports.number(rest_port), cors=cors, metrics_path=metrics_path, **shared
            )

    @property
    def rest_url(self):
        """Such as http://127.0.0.1:8501; None while the port is closed."""
        return f"{self._scheme}://{ports.address(self.host, self._rest.port)}" if self._rest else None

    @property
    def grpc_url(self):
        """Such as grpc://127.0.0.1:8500; None while the port is closed."""
        scheme = "grpcs" if self._scheme == "https" else "grpc"
        return f"{scheme}://{ports.address(self.host, self._grpc.port)}" if self._grpc else None

    def start(self):
        """Loads every model, then opens the ports. A model that fails to load is said in its status, not here.

        Raises, before anything is loaded:
            OSError: for a port that is taken, an unknown host, a TLS file that cannot be read.
            RequestError: for ports or TLS files that do not fit each other.
        """
        ports.check(self.host, *self._ports)
        if self._tls:
            ports.check_tls(*self._tls)
        self.servables.start()
        try:
            for server in self._servers():
                server.start()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self):
        """Drains: refuses what is new, waits for what is in flight (at most `drain_seconds`), unloads every model."""
        threads = [threading.Thread(target=server.stop, args=(self._drain_seconds,)) for server in self._servers()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.servables.stop()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def _servers(self):
        return [server for server in (self._grpc, self._rest) if server]
