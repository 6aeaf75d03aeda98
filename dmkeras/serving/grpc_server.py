"""The gRPC port: TF Serving's two services and grpc.health.v1 on one event loop, the models' work on threads.

A caller that stalls holds a coroutine, not a thread; its message is not read before its token is known, and must arrive
within the time of the request.
"""

import asyncio
import concurrent.futures
import hmac
import logging
import pathlib
import threading
import time
import typing

import grpc
import uvloop
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2_grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

from dmkeras.serving import inference
from dmkeras.serving.errors import RequestError, ServingError, TooLargeError
from dmkeras.serving.grpc_health import Health

LOG = logging.getLogger(__name__)
SPARE_THREADS = 4  # free to refuse a request while the gate's places are all at work
PARTING_SECONDS = 0.1  # for telling callers to go elsewhere: what reaches gRPC as it shuts down is cut without a word
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


class Call(typing.NamedTuple):
    request: type
    answer: typing.Callable  # (servables, request, timeout) -> response
    measured: bool  # in the metrics of requests, as TF Serving does with what runs a graph


CALLS = {
    "PredictionService": {
        "Predict": Call(predict_pb2.PredictRequest, inference.predict, True),
        "Classify": Call(classification_pb2.ClassificationRequest, inference.classify, True),
        "Regress": Call(regression_pb2.RegressionRequest, inference.regress, True),
        "MultiInference": Call(inference_pb2.MultiInferenceRequest, inference.multi_inference, True),
        "GetModelMetadata": Call(get_model_metadata_pb2.GetModelMetadataRequest, inference.get_model_metadata, False),
    },
    "ModelService": {
        "GetModelStatus": Call(get_model_status_pb2.GetModelStatusRequest, inference.get_model_status, False),
        "HandleReloadConfigRequest": Call(model_management_pb2.ReloadConfigRequest, inference.reload_config, False),
    },
}


class GrpcServer:
    """Serves `servables` at host:port until it is stopped; `port` is the real one once it has started (0: a free one).

    Args:
        gate: counts and bounds the requests at work, of both ports.
        max_body_bytes: longest message, in and out.
        timeout: seconds for a request, its message's arrival included, unless its caller's deadline is shorter.
        token: what callers send as `authorization: Bearer TOKEN`; health is open without it.
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
        if self._thread and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set_result, drain_seconds)
            self._thread.join()
        self._pool.shutdown(wait=False, cancel_futures=True)

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
        limits = [("grpc.max_receive_message_length", self._max_body_bytes), ("grpc.max_send_message_length", -1)]
        server = grpc.aio.server(options=OPTIONS + limits)
        for service, calls in CALLS.items():
            # unary for callers; a stream here, so that nothing is read before the handler asks for it
            handlers = {
                name: grpc.stream_unary_rpc_method_handler(self._handler(name, call)) for name, call in calls.items()
            }
            service = f"tensorflow.serving.{service}"
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

    def _handler(self, method, call):
        async def handle(_, context):
            started = time.monotonic()
            left = context.time_remaining()
            seconds = self._timeout if left is None else min(left, self._timeout)
            message = await self._received(context, seconds)
            code, text, body = await self._loop.run_in_executor(
                self._pool, self._answer, method, call, message, context.peer(), started, started + seconds
            )
            if code != "OK":
                await context.abort(grpc.StatusCode[code], _shortened(text))
            return body

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

    def _answer(self, method, call, message, peer, started, deadline):
        """One request on a thread of the pool -> (status, text, serialized response)."""
        request, response, body, text = call.request(), None, b"", ""
        try:
            if isinstance(message, ServingError):
                raise message
            with self._gate.enter():
                request = _parsed(call.request, message)
                left = deadline - time.monotonic()
                if left <= 0:
                    raise ServingError("DEADLINE_EXCEEDED", "the request's time was over before it began")
                response = call.answer(self._servables, request, timeout=left)
                body = response.SerializeToString()
            if len(body) > self._max_body_bytes:
                raise TooLargeError(f"the answer is {len(body)} bytes long, the limit is {self._max_body_bytes}")
            code = "OK"
        except ServingError as error:
            code, text = error.code, str(error)
        except Exception:  # a fault of ours: the caller learns nothing of it, the log everything
            LOG.exception("%s failed", method)
            code, text = "INTERNAL", "internal error; the server's log has the details"
        if code != "OK":
            body = b""
        received = 0 if isinstance(message, ServingError) else len(message)
        self._record(method, call, _spec(request), _spec(response), code, peer, received, len(body), started)
        return code, text, body

    def _record(self, method, call, asked, answered, code, peer, received, sent, started):
        seconds = time.monotonic() - started
        if call.measured:
            known = asked.name if asked.name in self._servables.names() else None
            self._metrics.request(known, method, "GRPC", code, seconds)
        version = answered.version.value or asked.version.value or None
        self._access_log.write(
            api="GRPC",
            peer=peer,
            method=method,
            model=asked.name,
            version=version,
            signature=answered.signature_name or asked.signature_name,
            status=code,
            bytes_in=received,
            bytes_out=sent,
            seconds=seconds,
        )


def _parsed(request, message):
    try:
        return request.FromString(message)
    except DecodeError:
        raise RequestError(f"the message is no {request.DESCRIPTOR.full_name}") from None


def _spec(message):
    """The ModelSpec that a request or response names, empty where it names none."""
    if hasattr(message, "model_spec"):
        return message.model_spec
    for part in ("tasks", "results"):
        if getattr(message, part, None):
            return getattr(message, part)[0].model_spec
    return model_pb2.ModelSpec()


def _shortened(text):
    content = text.encode()
    return text if len(content) <= LONGEST_DETAIL else content[:LONGEST_DETAIL].decode(errors="ignore") + "..."
