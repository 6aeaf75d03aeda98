"""HTTP connections of the REST port: uvicorn's, with the limits that it leaves to a proxy.

A connection that says nothing, or goes on saying it, is closed: headers must be whole within a time and a size, a body
that nobody reads any more must end soon, bytes that are sent must be taken, and there are only so many connections.
"""

import asyncio
import contextlib
import ctypes
import dataclasses
import json
import socket
import struct
import sys

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

SO_ATTACH_FILTER = 26  # of Linux; the module `socket` has no name for it
PAUSE = 0.02


@dataclasses.dataclass(frozen=True)
class Limits:
    """Of connections; times in seconds."""

    connections: int = 1000
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
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_headers:
            self._header_bytes += len(data)
            if self._header_bytes > self.limits.header_bytes:
                self._refuse(431, f"expected headers of at most {self.limits.header_bytes} bytes")
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._start_timer()  # bytes after an answer: the next request, what is left of the last one, or nothing

    def on_message_begin(self):
        super().on_message_begin()
        self._header_bytes, self._in_headers = 0, True

    def on_header(self, name, value):
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > self.limits.header_bytes:  # also of trailers, which come after the body
            raise ValueError("too many headers")
        super().on_header(name, value)

    def on_headers_complete(self):
        self._stop_timer()
        self._in_headers = False
        super().on_headers_complete()

    def on_message_complete(self):
        super().on_message_complete()
        if self.cycle.response_complete:
            self._stop_timer()

    def on_response_complete(self):
        super().on_response_complete()
        if self.cycle.more_body:
            self._unset_keepalive_if_required()
            self._start_timer()

    def send_400_response(self, msg):
        self._refuse(400, msg)

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


class Listener(uvicorn.Server):
    """uvicorn's server, which ends without losing what callers have sent.

    Args:
        config: a uvicorn.Config.
        started: called once the port is open.
        linger: seconds for which those who have just connected are waited for, after the port is closed.
    """

    def __init__(self, config, started, linger):
        super().__init__(config)
        self._say_started, self._linger = started, linger

    async def startup(self, sockets=None):
        await super().startup(sockets)
        self._say_started()

    async def shutdown(self, sockets=None):
        await self._accept_waiting(sockets)
        for server in self.servers:
            server.close()
        await self._hear_out()
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):  # where the time for draining was too short
            connection.transport.abort()
        await asyncio.sleep(0)

    async def _accept_waiting(self, sockets):
        """Takes the connections that the system has made already, and would reset with the port."""
        loop = asyncio.get_running_loop()
        for listening in sockets:
            _turn_away(listening)
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:  # no more
                    break
                await loop.connect_accepted_socket(self._protocol, connection, ssl=self.config.ssl)

    async def _hear_out(self):
        """Waits a moment for the first request of those who have just come."""
        for _ in range(int(self._linger / PAUSE)):
            if not any(connection.cycle is None for connection in self.server_state.connections):
                return
            await asyncio.sleep(PAUSE)

    def _protocol(self):
        return self.config.http_protocol_class(self.config, self.server_state, self.lifespan.state)


def _turn_away(listening):
    """Makes no more connections of a listening socket, those that are made stay; does nothing where Linux is not."""
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # of the packet filter: drop every packet
    with contextlib.suppress(OSError):
        listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program)))
