"""A client for notebooks and scripts: arrays in, arrays out, over REST or gRPC.

    from dmkeras.serving import Client

    client = Client("http://localhost:8501")                  # or grpc://localhost:8500
    client.predict("vae", signature="sample", seed=[[1, 0]])  # {"images": array [1, 8, 8, 1], "means": ...}
    client.signatures("vae")                                  # {name: (inputs, outputs)}, each a list of Tensor
    client.status("vae")                                      # [VersionStatus(version=1, state="AVAILABLE", ...)]

It asks any server of TF Serving's protocols. REST needs the standard library and NumPy alone; gRPC needs TensorFlow.
"""

import collections.abc
import operator
import time
import urllib.parse

from dmkeras.serving.client_tensors import as_array, check_complete, described, takes_files
from dmkeras.serving.embedded.versions import VersionStatus
from dmkeras.serving.errors import RequestError, ServingError
from dmkeras.serving.folders import LAST_VERSION

RETRIES = 3  # of a request that the server refused because it is busy
FRESH_SECONDS = 10  # for which signatures of a version that was not named are remembered: it changes under the name
SCHEMES = ("http", "https", "grpc", "grpcs")


def is_url(text):
    """Whether a text is meant as the address of a server, and not of a folder."""
    return text.startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


class BusyError(ServingError):
    """A request refused for now: the server says when to come again."""

    def __init__(self, code, message, seconds=None):
        super().__init__(code, message)
        self.seconds = seconds


def unreachable(url, why):
    return ServingError(
        "UNAVAILABLE", f"cannot connect to {url} ({why}); is a server there? Start one: dmkeras serve saved_models"
    )


def untrusted(url, why):
    return ServingError(
        "UNAVAILABLE", f"the certificate of {url} is not trusted ({why}); name the PEM file of its authority by `ca`"
    )


def other_host(url):
    """The error of a certificate that is trusted, and holds another name than the one in the address."""
    return ServingError(
        "UNAVAILABLE",
        f"the certificate of {url} is for another host: ask by a name or an address that it holds",
    )


class Client:
    """Asks the models of one server; may be shared by threads. A context manager, since it keeps connections open.

    Args:
        url: `http://HOST:PORT`, `https://HOST:PORT` (REST) or `grpc://HOST:PORT`, `grpcs://HOST:PORT`; the s is TLS.
            A path, as in `https://HOST/models`, stands before `/v1`. Proxies of the environment are not used.
        token: sent as `Authorization: Bearer TOKEN`.
        timeout: seconds to wait for a connection, and for an answer.
        ca: a PEM file with the certificates to trust, for a server whose certificate no public authority signed.

    A server that is busy (429, 503) is asked again up to RETRIES times, when it says so and within the timeout. A
    request whose answer was lost is never repeated, with one exception: where a connection kept from an earlier request
    turns out closed before any byte of the answer came. Predictions change nothing, so that a repeated one is harmless.

    Raises:
        ServingError: no connection (UNAVAILABLE), no answer in time (DEADLINE_EXCEEDED), or the server's error with
            its code and message; RequestError, a ServingError, where an input cannot be what the signature takes.
    """

    def __init__(self, url, *, token=None, timeout=30, ca=None):
        parts = _parsed(url)
        if token is not None and not (token.isascii() and token.isprintable() and token.strip() == token != ""):
            raise RequestError("the `token` is empty or holds spaces around it, line breaks or letters beyond ASCII")
        if parts.scheme.startswith("http"):
            from dmkeras.serving.rest_client import Rest as Wire
        else:
            from dmkeras.serving.grpc_client import Grpc as Wire
        self._wire, self._timeout, self._known = Wire(parts, token, timeout, ca), timeout, {}
        self._closed = False

    def predict(self, model, feed=None, /, *, signature="serving_default", version=None, label=None, **inputs):
        """Inputs [B, ...] by name -> {output: array [B, ...]}; strings are arrays of bytes objects.

        Numbers may be arrays or nested lists, strings (encoded pictures among them) lists of bytes or str. `feed` is a
        dict for inputs whose names are taken here, such as `label`. `version` and `label` name a version; without
        them the newest answers.
        """
        where = _where(model, version, label)
        found = self._with(where, signature)
        takes, gives = found[signature]
        if feed is not None and not isinstance(feed, collections.abc.Mapping):
            name = takes[0].name if takes else "NAME"
            shape = f" {list(feed.shape)}" if hasattr(feed, "shape") else ""
            raise RequestError(
                f"{model}, {signature}: received {type(feed).__name__}{shape} without a name, expected "
                f"inputs by name: predict({model!r}, {name}=...), or a dict {{{name!r}: ...}}"
            )
        values = {**(feed or {}), **inputs}
        unknown = sorted(set(values) - {tensor.name for tensor in takes})
        if unknown:
            names = ", ".join(tensor.name for tensor in takes)
            raise RequestError(f"{model}, {signature}: received inputs {unknown}, expected names among {names}")
        files = takes_files(found)
        arrays = {
            tensor.name: as_array(values[tensor.name], tensor, files) for tensor in takes if tensor.name in values
        }
        try:
            answer = self._ask(self._wire.predict, where, signature, arrays)
            return self._wire.arrays(answer, gives)
        except ServingError as error:
            self._known.pop(where, None)  # another version may have come, with other signatures
            if error.code == "INVALID_ARGUMENT":  # only now: a server may have defaults, and its metadata hides them
                check_complete(takes, arrays)
            raise

    def signatures(self, model, version=None, label=None):
        """{signature: ([Tensor] inputs, [Tensor] outputs)}, as the server describes them now."""
        where = _where(model, version, label)
        self._known.pop(where, None)
        return self._signatures(where)

    def status(self, model, version=None):
        """[VersionStatus] of a model, newest version first."""
        answer = self._ask(self._wire.status, _where(model, version, None))
        rows = [(row, row.get("status", {})) for row in answer.get("model_version_status", ())]
        return sorted(
            (
                VersionStatus(
                    int(row["version"]), row["state"], why.get("error_code", "OK"), why.get("error_message", "")
                )
                for row, why in rows
            ),
            reverse=True,
        )

    def close(self):
        """Closes the connections. A later request is refused: FAILED_PRECONDITION."""
        self._closed = True
        self._wire.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _with(self, where, signature):
        """The signatures of a version, this one among them."""
        found = self._signatures(where)
        if signature not in found:
            found = self.signatures(*where)
        if signature not in found:
            names = ", ".join(sorted(found)) or "none"
            raise ServingError("NOT_FOUND", f"{where[0]} has no signature {signature!r}; there is {names}")
        return found

    def _signatures(self, where):
        """The signatures of a version: of a number for good, of the newest or a label for FRESH_SECONDS."""
        until, found = self._known.get(where, (0, None))
        if time.monotonic() >= until:
            found = described(self._ask(self._wire.metadata, where))
            until = time.monotonic() + FRESH_SECONDS if where[1] is None else float("inf")
            self._known[where] = until, found
        return found

    def _ask(self, request, *arguments):
        """One request, repeated while the server is busy."""
        if self._closed:
            raise ServingError("FAILED_PRECONDITION", "this client is closed; make another Client")
        end = time.monotonic() + self._timeout
        for pause in (0.1 * 2**number for number in range(RETRIES)):
            try:
                return request(*arguments)
            except BusyError as error:
                seconds = pause if error.seconds is None else error.seconds
                if time.monotonic() + seconds >= end:
                    raise
                time.sleep(seconds)
        return request(*arguments)


def _where(model, version, label):
    if not isinstance(model, str) or not model:
        raise RequestError(f"received model {model!r}, expected its name, a text")
    if version is not None and label is not None:
        raise RequestError(f"received version {version!r} and label {label!r}, expected one of them")
    if label is not None and not isinstance(label, str):
        raise RequestError(
            "`label` names a version, as text; an input of that name goes into a dict: predict(MODEL, {'label': ...})"
        )
    return model, version if version is None else _number(version), label


def _number(version):
    try:
        number = operator.index(version)
    except TypeError:
        number = -1
    if not 0 <= number <= LAST_VERSION:
        raise RequestError(f"received version {version!r}, expected an integer from 0; a text may be a `label`")
    return number


def _parsed(url):
    parts = urllib.parse.urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
        parts = parts._replace(netloc="")
    if parts.scheme not in SCHEMES or not parts.hostname or parts.username is not None or parts.query or parts.fragment:
        raise RequestError(f"received {url!r}, expected http://HOST:PORT, https://, grpc:// or grpcs://")
    if parts.scheme.startswith("grpc") and (port is None or parts.path.strip("/")):
        raise RequestError(f"received {url!r}, expected {parts.scheme}://HOST:PORT, such as grpc://localhost:8500")
    return parts
