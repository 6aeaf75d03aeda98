"""What can be known of the two ports before any model is loaded: that they are free, and that their TLS files fit."""

import contextlib
import pathlib
import socket
import ssl

from dmkeras.serving.errors import RequestError

AUTO = "auto"


def number(port):
    """The port to open; 0, the system's word for a free one, for "auto"."""
    return 0 if port == AUTO else port


def address(host, port):
    """HOST:PORT as in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check(host, rest_port, grpc_port):
    """Checks that the ports can be opened, one of them at least; 0 is a closed one, "auto" any.

    Raises:
        RequestError: for two closed ports, or one port for both.
        OSError: for an unknown host, or a port that is taken.
    """
    if rest_port == grpc_port == 0:
        raise RequestError("received 0 for both ports, expected one that is open")
    if rest_port == grpc_port != AUTO:
        raise RequestError(f"received {rest_port} for both ports, expected two numbers")
    for port in (rest_port, grpc_port):
        if port != 0:
            _check_free(host, number(port))


def check_tls(key, certificate):
    """RequestError or OSError, each with the file's name, unless two PEM files belong together."""
    for path, expected in ((key, "PRIVATE KEY-----"), (certificate, "BEGIN CERTIFICATE-----")):
        if expected.encode() not in pathlib.Path(path).read_bytes():
            raise RequestError(f"{path}: expected a PEM file with -----{expected.removesuffix('-----')}-----")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: b"")
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise RequestError(
            f"{key} and {certificate}: expected PEM files of one key, without a password: {reason}"
        ) from None


def _check_free(host, port):
    try:
        family, *_, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise OSError(f"host {host!r} is unknown: {error.strerror}") from error
    with contextlib.closing(socket.socket(family)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(where)
        except OSError as error:
            error.strerror = f"port {port} of {host} cannot be opened ({error.strerror}); choose another, or 0 for none"
            raise
