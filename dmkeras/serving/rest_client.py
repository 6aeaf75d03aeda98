"""The client's side of REST: the standard library's connections, kept open, and arrays as JSON columns."""

import base64
import collections
import http.client
import json
import ssl
import urllib.parse

import numpy as np

from dmkeras.serving.client import BusyError, other_host, unreachable, untrusted
from dmkeras.serving.errors import HTTP, RequestError, ServingError, TooLargeError

CODES = {status: code for code, status in reversed(HTTP.items())}  # where several share one, the first of the table
CODES |= {408: "DEADLINE_EXCEEDED", 431: "INVALID_ARGUMENT"}
BUSY = (429, 503)
OTHER_HOST = (62, 64)  # OpenSSL's verify codes: the name, the address of the server is not in its certificate
LOST = (ConnectionResetError, BrokenPipeError, ConnectionAbortedError)  # RemoteDisconnected is the first of them


class Rest:
    """Requests to one server. Each thread takes an idle connection or opens its own."""

    def __init__(self, parts, token, timeout, ca):
        self._url = urllib.parse.urlunsplit(parts).rstrip("/")
        self._address, self._prefix, self._timeout = (parts.hostname, parts.port), parts.path.rstrip("/"), timeout
        self._context = _trusted(ca) if parts.scheme == "https" else None
        self._headers = {"Accept": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._idle = collections.deque()

    def metadata(self, where):
        return self._json("GET", f"{_path(where)}/metadata")

    def status(self, where):
        return self._json("GET", _path(where))

    def predict(self, where, signature, arrays):
        for name, array in arrays.items():
            if 0 in array.shape[:-1]:
                raise RequestError(
                    f"input {name!r} is {list(array.shape)}, no rows, and JSON cannot say of what shape; send one or "
                    "more, or ask over grpc://"
                )
        inputs = {name: _listed(array) for name, array in arrays.items()}
        body = json.dumps({"signature_name": signature, "inputs": inputs}).encode()
        return self._json("POST", f"{_path(where)}:predict", body)

    def arrays(self, answer, gives):
        """{"outputs": columns} -> {name: array}, with the dtypes and shapes of the signature's outputs."""
        columns = answer.get("outputs")
        if len(gives) == 1:
            columns = {gives[0].name: columns}
        if not isinstance(columns, dict) or set(columns) != {tensor.name for tensor in gives}:
            received = sorted(columns) if isinstance(columns, dict) else type(columns).__name__
            raise ServingError(
                "ABORTED",
                f"{self._url} answered {received}, expected outputs {[tensor.name for tensor in gives]}; another "
                "version has come in between: ask again",
            )
        return {tensor.name: _array(columns[tensor.name], tensor) for tensor in gives}

    def close(self):
        while self._idle:
            self._idle.pop().close()

    def _json(self, method, path, body=None):
        status, headers, content = self._exchange(method, self._prefix + path, body)
        try:
            answer = json.loads(content.decode(errors="surrogateescape"))  # TF Serving writes strings as they are
        except ValueError:
            answer = None
        if status == 200 and isinstance(answer, dict):
            return answer
        message = answer.get("error") if isinstance(answer, dict) else None
        if message is None:
            text = " ".join(content[:200].decode(errors="replace").split())
            message = f"{self._url}{path} answered HTTP {status} and no answer of a model server: {text}"
        code = "INTERNAL" if status >= 500 else "UNKNOWN"
        code = CODES.get(status, code) if status >= 400 else code
        if status == TooLargeError.http:
            raise TooLargeError(message)
        if status in BUSY:
            raise BusyError(code, message, _seconds(headers.get("Retry-After")))
        raise ServingError(code, message)

    def _exchange(self, method, path, body):
        """(status, headers, content) of one request, on a kept connection where one is alive."""
        while True:
            connection, kept = self._connection()
            try:
                answer = _answer(connection, method, path, body, self._headers)
            except TimeoutError:
                connection.close()
                raise ServingError(
                    "DEADLINE_EXCEEDED", f"no answer from {self._url} within {self._timeout:g} s"
                ) from None
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if kept and isinstance(error, LOST):
                    continue  # the server closed it meanwhile; nothing of an answer had come
                raise ServingError("UNAVAILABLE", f"{self._url} {self._hint(error)}") from error
            except BaseException:  # such as an interrupt: what is on the line belongs to no later request
                connection.close()
                raise
            if connection.sock is not None:
                self._idle.append(connection)
            return answer

    def _hint(self, error):
        """What a server did that gave no answer in HTTP, and what it may be."""
        if isinstance(error, LOST):
            other = "https://" if self._context is None else "grpcs://"
            return f"closed the connection without an answer; is this the port of {other}?"
        if isinstance(error, http.client.BadStatusLine):  # whose text is what came, raw
            return "speaks no HTTP; is this the gRPC port? Then ask over grpc://"
        return f"closed the connection or speaks no HTTP ({_said(error)})"

    def _connection(self):
        """A connection, and whether it was kept from an earlier request."""
        try:
            return self._idle.pop(), True
        except IndexError:
            pass
        if self._context:
            connection = http.client.HTTPSConnection(*self._address, timeout=self._timeout, context=self._context)
        else:
            connection = http.client.HTTPConnection(*self._address, timeout=self._timeout)
        try:
            connection.connect()
        except ssl.SSLCertVerificationError as error:
            connection.close()
            raise (
                other_host(self._url) if error.verify_code in OTHER_HOST else untrusted(self._url, error.verify_message)
            ) from error
        except OSError as error:
            connection.close()
            if getattr(error, "reason", None) == "WRONG_VERSION_NUMBER":
                raise ServingError("UNAVAILABLE", f"{self._url} speaks no TLS; ask over http://") from error
            raise unreachable(self._url, _said(error)) from error
        return connection, False


def _answer(connection, method, path, body, headers):
    try:
        connection.request(method, path, body, headers | ({"Content-Type": "application/json"} if body else {}))
    except LOST:
        if connection.sock is None:
            raise
        # A server that refuses a long body answers before it has read all of it: the answer may be there.
    response = connection.getresponse()
    try:
        return response.status, response.headers, response.read()
    except LOST as error:  # a part of the answer had come
        raise http.client.HTTPException("the answer was cut off") from error


def _trusted(ca):
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise ServingError("INVALID_ARGUMENT", f"`ca`: {ca} is no PEM file of certificates ({_said(error)})") from error


def _path(where):
    model, version, label = where
    path = f"/v1/models/{_quoted(model)}"
    if version is not None:
        path += f"/versions/{_quoted(version)}"
    return path if label is None else f"{path}/labels/{_quoted(label)}"


def _quoted(name):
    return urllib.parse.quote(str(name), safe="")


def _seconds(text):
    """Retry-After in seconds; dates are not read."""
    return float(text) if text and text.strip().isdecimal() else None


def _said(error):
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _listed(array):
    if array.dtype != object:
        return array.tolist()
    nested = np.empty(array.size, object)
    nested[:] = [{"b64": base64.b64encode(leaf).decode()} for leaf in array.ravel()]
    return nested.reshape(array.shape).tolist()


def _array(value, tensor):
    """A column of JSON -> array. Sides that an empty list cannot show come from the signature."""
    if tensor.dtype == "string":
        return _strings(value, None if tensor.shape is None else len(tensor.shape))
    array = np.array(value, tensor.dtype)
    if not array.size and tensor.shape is not None and array.ndim < len(tensor.shape):
        array = array.reshape(*array.shape, *(side or 0 for side in tensor.shape[array.ndim :]))
    return array


def _strings(value, rank):
    """Nested lists of text and {"b64": ...} -> array of bytes objects."""
    shape, leaves = [], [value]
    while len(shape) != rank if rank is not None else leaves and isinstance(leaves[0], list):
        shape.append(len(leaves[0]) if leaves else 0)
        leaves = [leaf for inner in leaves for leaf in inner]
    flat = np.empty(len(leaves), object)
    flat[:] = [
        base64.b64decode(leaf["b64"]) if isinstance(leaf, dict) else leaf.encode(errors="surrogateescape")
        for leaf in leaves
    ]
    return flat.reshape(shape)
