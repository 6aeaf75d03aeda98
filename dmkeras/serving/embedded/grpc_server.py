"""The gRPC port: TF Serving's two services and grpc.health.v1 on one event loop, the models' work on threads.

A caller that stalls holds a coroutine, not a thread; its message is not read before its token is known, and must arrive
within the time of the request.
"""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import hmac
import logging
import pathlib
import threading
import time
import typing

import grpc
import uvloop
from grpc_health.v1 import health_pb2_grpc

from dmkeras.serving.embedded.grpc_calls import SERVICES, Call, address_of, parsed, rows_of, spec_of
from dmkeras.serving.embedded.grpc_health import Health
from dmkeras.serving.embedded.limits import LOOPBACK
from dmkeras.serving.errors import INTERNAL, RequestError, ServingError, TooLargeError

LOG = logging.getLogger(__name__)
SPARE_THREADS = 4  # free to refuse a request while the gate's places are all at work
PARTING_SECONDS = 0.5  # for telling callers to go elsewhere: what reaches gRPC as it shuts down is cut without a word
LONGEST_DETAIL = 1000  # bytes of an error's text: callers' limit of a header is 8 KiB, percent-encoding triples it
OPTIONS = [
    ("grpc.so_reuseport", 0),  # a port that is taken is an error
    ("grpc.max_concurrent_streams", 256),  # of one connection
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.keepalive_time_ms", 60_000),  # finds connections whose peer is gone
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),  # callers that ping more often are sent away
    ("grpc.http2.max_ping_strikes", 3),
]


@dataclasses.dataclass
class Exchange:
    """One call from its arrival to its record; times are those of `time.monotonic`."""

    call: Call
    peer: str
    started: float
    deadline: float
    received: int = 0  # bytes
    request: typing.Any = None
    response: typing.Any = None
    body: bytes = b""
    code: str = "OK"
    text: str = ""
    run_seconds: float | None = None


class GrpcServer:
    """Serves `servables` at host:port until it is stopped; `port` is the real one once it has started (0: a free one).

    Args:
        gate: counts and bounds the requests at work, of both ports.
        max_body_bytes: longest message, in and out.
        timeout: seconds for a request, its message's arrival included, unless its caller's deadline is shorter.
        token: what callers send as `authorization: Bearer TOKEN`; health is open without it. Without a token only a
            server that its own machine alone reaches takes HandleReloadConfigRequest, which names folders to serve.
        tls: (key, certificate), paths of PEM files.
        max_workers: threads for requests; as many as the gate lets in.
    """

    def __init__(
        self,
        servables,
        *,
        host,
        port,
        gate,
        metrics,
        access_log,
        max_body_bytes,
        timeout,
        token=None,
        tls=None,
        max_workers=64,
    ):
        self._servables, self._gate, self._metrics, self._access_log = servables, gate, metrics, access_log
        self._host, self.port, self._tls = host, port, tls
        self._max_body_bytes, self._timeout = max_body_bytes, timeout
        self._token = None if token is None else token.encode()
        self._takes_configurations = token is not None or host in LOOPBACK
        self._health = Health(servables)
        self._pool = concurrent.futures.ThreadPoolExecutor(max_workers + SPARE_THREADS, "grpc")
        self._thread = self._loop = self._stopping = None

    def start(self):
        """Opens the port; OSError where that cannot be."""
        started = concurrent.futures.Future()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._serve(started)), name="grpc", daemon=True)
        self._thread.start()
        started.result()

    def stop(self, drain_seconds):
        """Says NOT_SERVING, takes nothing new and waits, at most `drain_seconds`, for the answers under way."""
        self._health.draining = True
        if self._thread:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._end, drain_seconds)
            self._thread.join()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _end(self, drain_seconds):
        if not self._stopping.done():
            self._stopping.set_result(drain_seconds)

    async def _serve(self, started):
        self._loop = asyncio.get_running_loop()
        self._stopping = self._loop.create_future()
        try:
            server = self._built()
            await server.start()
        except Exception as error:
            started.set_exception(error)
            return
        started.set_result(None)
        seconds = await self._stopping
        parting = min(seconds, PARTING_SECONDS)
        await asyncio.sleep(parting)
        await server.stop(seconds - parting)

    def _built(self):
        longest = min(self._max_body_bytes, 2**31 - 1)
        limits = [("grpc.max_receive_message_length", longest), ("grpc.max_send_message_length", -1)]
        server = grpc.aio.server(options=OPTIONS + limits)
        for service, calls in SERVICES.items():
            # unary for callers; a stream here, so that nothing is read before the handler asks for it
            handlers = {call.name: grpc.stream_unary_rpc_method_handler(self._handler(call)) for call in calls}
            server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        address = f"[{self._host}]:{self.port}" if ":" in self._host else f"{self._host}:{self.port}"
        try:
            if self._tls:
                pair = tuple(pathlib.Path(path).read_bytes() for path in self._tls)
                self.port = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
            else:
                self.port = server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"port {self.port} of {self._host} cannot be opened") from error
        return server

    def _handler(self, call):
        async def handle(_, context):
            started, left = time.monotonic(), context.time_remaining()
            seconds = self._timeout if left is None else min(left, self._timeout)
            exchange = Exchange(call, address_of(context.peer()), started, started + seconds)
            message = await self._received(context, seconds)
            await self._loop.run_in_executor(self._pool, self._answer, exchange, message)
            if exchange.code != "OK":
                await context.abort(grpc.StatusCode[exchange.code], _shortened(exchange.text))
            return exchange.body

        return handle

    async def _received(self, context, seconds):
        """The message of a caller who may send one; the ServingError of one who may not, or did not in time."""
        if self._token is not None and not self._admits(context.invocation_metadata()):
            return ServingError("UNAUTHENTICATED", "expected metadata `authorization: Bearer TOKEN`")
        if self._health.draining:
            return ServingError("UNAVAILABLE", "the server is stopping")
        try:
            async with asyncio.timeout(seconds):
                message = await context.read()
        except TimeoutError:
            return ServingError("DEADLINE_EXCEEDED", f"the request did not arrive within {seconds:.3g} s")
        return RequestError("received no message") if message is grpc.aio.EOF else message

    def _admits(self, metadata):
        scheme, _, token = dict(metadata).get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(token.encode(), self._token)

    def _answer(self, exchange, message):
        """Runs on a thread of the pool, from a message, or the error in its place, to the record."""
        try:
            if isinstance(message, ServingError):
                raise message
            exchange.received = len(message)
            with self._gate.enter():
                self._run(exchange, message)
        except ServingError as error:
            exchange.code, exchange.text = error.code, str(error)
        except Exception:  # a fault of ours: the caller learns nothing of it, the log everything
            LOG.exception("%s failed", exchange.call.name)
            exchange.code, exchange.text = "INTERNAL", INTERNAL
        self._record(exchange)

    def _run(self, exchange, message):
        if exchange.call.name == "HandleReloadConfigRequest" and not self._takes_configurations:
            raise ServingError(
                "PERMISSION_DENIED", "a server for other machines takes a configuration with a token only"
            )
        exchange.request = parsed(exchange.call, message)
        started = time.monotonic()
        if started >= exchange.deadline:
            raise ServingError("DEADLINE_EXCEEDED", "the request's time was over before it began")
        response = exchange.call.answer(self._servables, exchange.request, timeout=exchange.deadline - started)
        exchange.run_seconds = time.monotonic() - started
        body = response.SerializeToString()
        if len(body) > self._max_body_bytes:
            raise TooLargeError(f"the answer is {len(body)} bytes long, the limit is {self._max_body_bytes}")
        exchange.response, exchange.body = response, body

    def _record(self, exchange):
        call, asked, answered = exchange.call, spec_of(exchange.request), spec_of(exchange.response)
        version = next((spec.version.value for spec in (answered, asked) if spec.HasField("version")), None)
        seconds = time.monotonic() - exchange.started
        if call.measured:
            known = asked.name if asked.name in self._servables.names() else None
            self._metrics.request(known, call.name, "GRPC", exchange.code, seconds)
            if exchange.response is not None:
                self._metrics.runtime(asked.name, call.name, exchange.run_seconds)
                self._metrics.examples(asked.name, rows_of(exchange.request))
        self._access_log.write(
            api="GRPC",
            peer=exchange.peer,
            method=call.name,
            model=asked.name,
            version=version,
            signature=answered.signature_name or asked.signature_name,
            status=exchange.code,
            bytes_in=exchange.received,
            bytes_out=len(exchange.body),
            seconds=seconds,
        )


def _shortened(text):
    content = text.encode()
    return text if len(content) <= LONGEST_DETAIL else content[:LONGEST_DETAIL].decode(errors="ignore") + "..."


def _is_news(record):
    """A caller that left as its error was on the way: gRPC logs a traceback, whoever cancels could fill a disk."""
    return not record.getMessage().startswith("ExecuteBatchError raised in core")


logging.getLogger("grpc._cython.cygrpc").addFilter(_is_news)
