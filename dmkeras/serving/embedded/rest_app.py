"""What surrounds `rest_api` for every request: tokens, limits, times, compression, the log; and the server's own pages.

The event loop moves bytes; JSON, compression and graphs run on threads.
"""

import asyncio
import concurrent.futures
import contextlib
import hmac
import logging
import re
import time

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from dmkeras.serving.embedded import openapi, rest_api
from dmkeras.serving.embedded.compression import WORTHWHILE, deflate, inflate
from dmkeras.serving.embedded.rest_api import JSON, Answer, Names, error_body
from dmkeras.serving.errors import INTERNAL, ServingError, TooLargeError

LOG = logging.getLogger(__name__)
CLOSE = {"connection": "close"}
RETRY = {"retry-after": "1"}
HEADERS = {401: {"www-authenticate": "Bearer"}, 408: CLOSE, 503: RETRY}
PROMETHEUS = "text/plain; version=0.0.4"
MEASURED = ("Predict", "Classify", "Regress")
BODIES = 8  # of the longest, that may be in memory at a time


class SlowError(ServingError):
    """A request that did not arrive in time."""

    http = 408


class App:
    """The ASGI application of a `RestServer`, whose arguments these are. `draining`: callers are told to leave."""

    def __init__(
        self,
        servables,
        *,
        gate,
        metrics,
        access_log,
        max_body_bytes,
        timeout,
        token,
        max_depth,
        cors,
        metrics_path,
        max_workers,
        body_seconds,
    ):
        self.draining = False
        self._servables, self._gate, self._metrics, self._access_log = servables, gate, metrics, access_log
        self._max_body_bytes, self._max_depth = max_body_bytes, max_depth
        self._timeout, self._body_seconds = timeout, body_seconds
        self._token = None if token is None else token.encode()
        self._cors = _cors(token) if cors else {}
        self._pages = {"/openapi.json": self._openapi, metrics_path: self._prometheus}
        self._workers = concurrent.futures.ThreadPoolExecutor(max_workers, "rest")
        self._readers = concurrent.futures.ThreadPoolExecutor(2, "rest-status")  # answer while all workers are busy
        self._held = 0  # bytes of the bodies in memory

    async def __call__(self, scope, receive, send):
        started = time.monotonic()
        request = Request(scope, receive)
        extra = {}
        try:
            answer, extra = await self._answer(request)
        except ServingError as error:
            answer = _failed(request, error.http, error.code, str(error))
            extra = RETRY if error.http == 429 else {}  # the gate's; a graph that lacks memory will lack it again
        except ClientDisconnect:
            answer = _failed(request, 499, "CANCELLED", "the caller is gone")
        except Exception:  # a fault of ours: the caller learns nothing of it, the log everything
            LOG.exception("%s %.200r failed", scope["method"], scope["path"])
            answer = _failed(request, 500, "INTERNAL", INTERNAL)
        headers = {
            "content-type": answer.content_type,
            **HEADERS.get(answer.status, {}),
            **extra,
            **self._cors,
            **(CLOSE if self.draining else {}),
        }
        with contextlib.suppress(RuntimeError, OSError):  # of a connection that has gone
            await Response(answer.body, answer.status, headers)(scope, receive, send)
        self._record(request, answer, time.monotonic() - started)

    def close(self):
        """Ends the threads once their work is done; what has not begun is dropped."""
        self._workers.shutdown(wait=False, cancel_futures=True)
        self._readers.shutdown(wait=False, cancel_futures=True)

    async def _answer(self, request):
        """(Answer, headers of its encoding)."""
        path = request.scope["path"]
        if path in ("/livez", "/readyz"):
            return self._health(path), {}
        if request.method == "OPTIONS" and rest_api.ANY.fullmatch(path):
            asks_first = re.search("https?://", request.headers.get("origin", ""))
            names = Names(code="OK" if asks_first else "FAILED_PRECONDITION")
            return Answer(200 if asks_first else 400, JSON, b"", names), {}
        self._check_token(request)
        if path in self._pages and request.method in ("GET", "HEAD"):
            return await self._run(self._readers, self._pages[path]), {}
        if request.method != "POST":
            return await self._run(self._readers, self._handle, request, b"")
        body = bytearray()
        try:
            await self._read(request, body)
            return await self._run_gated(request, body)
        finally:
            self._held -= len(body)
            request.scope["received"] = len(body)

    async def _read(self, request, body):
        """Appends the body as it comes; TooLargeError, SlowError or UNAVAILABLE for one that cannot be taken."""
        length = request.headers.get("content-length", "0")
        if len(length) > 18 or int(length) > self._max_body_bytes:
            raise self._too_large()
        try:
            async with asyncio.timeout(self._body_seconds):
                async for chunk in request.stream():
                    body += chunk
                    self._held += len(chunk)
                    if len(body) > self._max_body_bytes:
                        raise self._too_large()
                    if self._held > BODIES * self._max_body_bytes:
                        raise ServingError("UNAVAILABLE", "too many long requests at a time; try again")
        except TimeoutError:
            raise SlowError("DEADLINE_EXCEEDED", f"the body did not arrive within {self._body_seconds:g} s") from None

    async def _run_gated(self, request, body):
        place = contextlib.ExitStack()
        place.enter_context(self._gate.enter())
        try:
            future = self._workers.submit(self._handle, request, body)
        except BaseException:
            place.close()
            raise
        future.add_done_callback(lambda _: place.close())  # whoever waits no longer: the place is taken until the end
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise ServingError("DEADLINE_EXCEEDED", "the time for this request has passed") from None

    @staticmethod
    async def _run(pool, function, *args):
        return await asyncio.wrap_future(pool.submit(function, *args))

    def _handle(self, request, body):
        """On a thread: the API's answer and the headers of its encoding."""
        if body and "gzip" in request.headers.get("content-encoding", ""):
            body = inflate(body, self._max_body_bytes)
        answer = rest_api.handle(
            request.method, target(request), body, self._servables, timeout=self._timeout, max_depth=self._max_depth
        )
        if len(answer.body) < WORTHWHILE or "gzip" not in request.headers.get("accept-encoding", ""):
            return answer, {}
        return answer._replace(body=deflate(answer.body)), {"content-encoding": "gzip", "vary": "accept-encoding"}

    def _health(self, path):
        if path == "/livez" or (self._servables.ready() and not self.draining):
            return Answer(200, "text/plain", b"ok\n", Names())
        reason = "the server is draining" if self.draining else "a model has no version that answers"
        return Answer(503, JSON, error_body(reason), Names(code="UNAVAILABLE"))

    def _prometheus(self):
        return Answer(200, PROMETHEUS, self._metrics.render(), Names())

    def _openapi(self):
        return Answer(200, JSON, openapi.text(self._servables, secured=self._token is not None), Names())

    def _check_token(self, request):
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if self._token is None or (
            scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode("latin-1"), self._token)
        ):
            return
        raise ServingError("UNAUTHENTICATED", "expected a header `Authorization: Bearer TOKEN` with the server's token")

    def _too_large(self):
        return TooLargeError(f"the body is longer than {self._max_body_bytes} bytes, the limit of this server")

    def _record(self, request, answer, seconds):
        names = answer.names
        if request.scope["path"] in ("/livez", "/readyz") or request.scope["path"] in self._pages:
            return
        if names.api in MEASURED:
            known = names.model if names.model in self._servables.names() else None
            self._metrics.request(known, names.api, "REST", names.code, seconds)
            if names.run_seconds is not None:
                self._metrics.runtime(names.model, names.api, names.run_seconds)
                self._metrics.examples(names.model, names.rows)
        self._access_log.write(
            api="REST",
            peer=request.client.host if request.client else "",
            method=names.api or request.method,
            model=names.model,
            version=names.version,
            signature=names.signature,
            status=names.code,
            bytes_in=request.scope.get("received", 0),
            bytes_out=len(answer.body),
            seconds=seconds,
        )


def target(request):
    """The path as it was sent, with what follows a question mark."""
    path, query = request.scope["raw_path"], request.scope["query_string"]
    return (path + b"?" + query if query else path).decode("latin-1")


def _failed(request, status, code, message):
    names = rest_api.names_of(request.method, target(request))
    names.code = code
    return Answer(status, JSON, error_body(message), names)


def _cors(token):
    return {
        "access-control-allow-origin": "*",
        "access-control-allow-methods": "POST, GET",
        "access-control-allow-headers": "Content-Type" if token is None else "Content-Type, Authorization",
    }
