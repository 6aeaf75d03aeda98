"""The event loop of the REST port: uvicorn's server, which ends without losing what callers have sent."""

import asyncio
import contextlib
import ctypes
import socket
import struct
import sys

import uvicorn

SO_ATTACH_FILTER = 26  # of Linux; the module `socket` has no name for it
PAUSE = 0.02


class Listener(uvicorn.Server):
    """Runs until `should_exit` is set, then drains.

    Args:
        config: a uvicorn.Config.
        started: called once the port is open.
        linger: seconds for which those who have just connected are waited for, after the port is closed.
    """

    def __init__(self, config, started, linger):
        super().__init__(config)
        self.lifespan = config.lifespan_class(config)
        self._say_started, self._linger = started, linger

    async def startup(self, sockets=None):
        loop, tls = asyncio.get_running_loop(), self.config.ssl
        seconds = self.config.http_protocol_class.limits.header_seconds if tls else None
        self.servers = [
            await loop.create_server(self._protocol, sock=listening, ssl=tls, ssl_handshake_timeout=seconds)
            for listening in sockets
        ]
        self.started = True
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
        loop, tls = asyncio.get_running_loop(), self.config.ssl
        taken = []
        for listening in sockets:
            _turn_away(listening)
            with contextlib.suppress(OSError):  # no more
                while True:
                    taken.append(listening.accept()[0])
        seconds = self._linger if tls else None
        await asyncio.gather(
            *(
                loop.connect_accepted_socket(self._protocol, connection, ssl=tls, ssl_handshake_timeout=seconds)
                for connection in taken
            ),
            return_exceptions=True,  # those of handshakes
        )

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
