"""HTTP connections of the REST port: uvicorn's, with the limits that it leaves to a proxy.

A connection that says nothing, or goes on saying it, is closed: headers must be whole within a time and a size, a body
that nobody reads any more must end soon, bytes that are sent must be taken, and there are only so many connections.
"""

import dataclasses
import json
import socket

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol


@dataclasses.dataclass(frozen=True)
class Limits:
    """Of connections; times in seconds."""

    connections: int = 500  # half of the files that Linux lets a process open
    header_bytes: int = 64 << 10
    header_seconds: float = 10.0  # for a request's line and headers, and for the rest of a body after its answer
    idle_seconds: float = 75.0  # between two requests of one connection
    write_seconds: float = 30.0  # for a caller to take what was sent


def protocol(limits):
    """The protocol class for `uvicorn.Config(http=...)`."""

    class Protocol(_Protocol):
        pass

    Protocol.limits = limits
    return Protocol


class _Protocol(HttpToolsProtocol):
    limits: Limits

    def connection_made(self, transport):
        super().connection_made(transport)
        self._timer, self._header_bytes, self._in_headers = None, 0, True
        if len(self.connections) > self.limits.connections:
            self._refuse(503, "the server is at its limit of connections; try again")
            return
        connection = transport.get_extra_info("socket")
        if connection is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            milliseconds = int(1000 * self.limits.write_seconds)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        self._start_timer()

    def connection_lost(self, exc):
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data):
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self._feed(data)
        if self.transport.is_closing():
            return
        if self._in_headers:
            self._header_bytes += len(data)
            if self._header_bytes > self.limits.header_bytes:
                self._refuse(431, f"expected headers of at most {self.limits.header_bytes} bytes")
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._start_timer()  # bytes after an answer: the next request, what is left of the last one, or nothing

    def _feed(self, data):
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as stopped:
                data = self._without_upgrade(data[stopped.args[0] :])
            except httptools.HttpParserError:
                data = None
        self._refuse(400, "Invalid HTTP request received.")

    def _without_upgrade(self, rest):
        """The request once more, without the header `Upgrade`; None for a tunnel.

        It is an offer, which Java's HttpClient makes with every request, of HTTP/2; the parser skips the body after it.
        """
        if self.parser.get_method() == b"CONNECT":
            return None
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        return b"\r\n".join(lines) + b"\r\n\r\n" + rest

    def on_message_begin(self):
        super().on_message_begin()
        self._header_bytes, self._in_headers = 0, True

    def on_header(self, name, value):
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > self.limits.header_bytes:  # also of trailers, which come after the body
            raise ValueError("too many headers")
        super().on_header(name, value)

    def on_headers_complete(self):
        if self.parser.should_upgrade():
            return
        self._stop_timer()
        self._in_headers = False
        super().on_headers_complete()

    def on_message_complete(self):
        if self.parser.should_upgrade():
            return
        super().on_message_complete()
        if self.cycle.response_complete:
            self._stop_timer()  # that of the rest of a body

    def _refuse(self, status, message):
        """Answers in the form of all errors and closes; only closes where an answer is under way."""
        if self.cycle is None or self.cycle.response_complete:
            body = json.dumps({"error": message}).encode()
            head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            self.transport.write(STATUS_LINE[status] + head.encode() + body)
        self.transport.close()

    def _start_timer(self):
        self._stop_timer()
        self._timer = self.loop.call_later(self.limits.header_seconds, self.transport.abort)

    def _stop_timer(self):
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
