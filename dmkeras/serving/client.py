"""A client for notebooks and scripts: arrays in, arrays out, over REST or gRPC.

    from dmkeras.serving import Client

    client = Client("http://localhost:8501")                  # or grpc://localhost:8500
    client.predict("vae", signature="sample", seed=[[1, 0]])  # {"images": array [1, 8, 8, 1], "means": ...}
    client.signatures("vae")                                  # {name: (inputs, outputs)}, each a list of Tensor
    client.status("vae")                                      # [VersionStatus(version=1, state="AVAILABLE", ...)]

It asks any server of TF Serving's protocols. REST needs the standard library and NumPy alone; gRPC needs TensorFlow.
"""

import time
import typing
import urllib.parse

import numpy as np

from dmkeras.serving.errors import RequestError, ServingError
from dmkeras.serving.model_card import Tensor

INIT = "__saved_model_init_op"  # a signature that initialises tables and answers nothing
RETRIES = 3  # of a request that the server refused because it is busy
FRESH_SECONDS = 10  # for which signatures of a version that was not named are remembered: it changes under the name
KINDS = {"b": "b", "i": "iu", "u": "iu", "f": "fiu"}  # of numbers that a dtype takes without a change of meaning
SCHEMES = ("http", "https", "grpc", "grpcs")


class VersionStatus(typing.NamedTuple):
    """What a server says of a version: START, LOADING, AVAILABLE, UNLOADING or END, and why."""

    version: int
    state: str
    code: str
    message: str


class BusyError(ServingError):
    """A request refused for now: the server says when to come again."""

    def __init__(self, code, message, seconds=None):
        super().__init__(code, message)
        self.seconds = seconds


def unreachable(url, why):
    return ServingError(
        "UNAVAILABLE", f"cannot connect to {url} ({why}); is a server there? Start one: dmkeras serve saved_models"
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
            raise RequestError("the token is empty or holds spaces around it, line breaks or letters beyond ASCII")
        if parts.scheme.startswith("http"):
            from dmkeras.serving.rest_client import Rest as Wire
        else:
            from dmkeras.serving.grpc_client import Grpc as Wire
        self._wire, self._timeout, self._known = Wire(parts, token, timeout, ca), timeout, {}

    def predict(self, model, feed=None, /, *, signature="serving_default", version=None, label=None, **inputs):
        """Inputs [B, ...] by name -> {output: array [B, ...]}; strings are arrays of bytes objects.

        Numbers may be arrays or nested lists, strings (encoded pictures among them) lists of bytes or str. `feed` is a
        dict for inputs whose names are taken here, such as `label`. `version` and `label` name a version; without
        them the newest answers.
        """
        values = {**(feed or {}), **inputs}
        where = _where(model, version, label)
        takes, gives = self._tensors(where, signature)
        unknown = sorted(set(values) - {tensor.name for tensor in takes})
        if unknown:
            names = ", ".join(tensor.name for tensor in takes)
            raise RequestError(f"{model}, {signature}: received inputs {unknown}, expected names among {names}")
        arrays = {tensor.name: as_array(values[tensor.name], tensor) for tensor in takes if tensor.name in values}
        try:
            answer = self._ask(self._wire.predict, where, signature, arrays)
            return self._wire.arrays(answer, gives)
        except ServingError:
            self._known.pop(where, None)  # another version may have come, with other signatures
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
        """Closes the connections; a later request opens new ones where it can."""
        self._wire.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _tensors(self, where, signature):
        found = self._signatures(where)
        if signature not in found:
            found = self.signatures(*where)
        if signature not in found:
            names = ", ".join(sorted(found)) or "none"
            raise ServingError("NOT_FOUND", f"{where[0]} has no signature {signature!r}; there is {names}")
        return found[signature]

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


def described(metadata):
    """Metadata in TF Serving's JSON -> {signature: ([Tensor] inputs, [Tensor] outputs)}, tensors by name."""
    definitions = metadata.get("metadata", {}).get("signature_def", {}).get("signature_def", {})
    return {
        name: (_tensors(definition.get("inputs", {})), _tensors(definition.get("outputs", {})))
        for name, definition in sorted(definitions.items())
        if name != INIT
    }


def as_array(value, tensor):
    """A value for an input as an array of its dtype and shape; RequestError where it would have to change."""
    try:
        array = np.asarray(value, object if tensor.dtype == "string" else None)
    except ValueError:
        raise RequestError(f"input {tensor.name!r} is ragged, expected {tensor.dtype} {_sides(tensor.shape)}") from None
    strings = tensor.dtype == "string"
    cast = _strings(array, tensor) if strings else _numbers(array, tensor)
    if len(array.shape) != len(tensor.shape) or any(
        size != side for size, side in zip(array.shape, tensor.shape, strict=True) if side is not None
    ):
        batch = "; a single one is a batch of one: [value]" if len(array.shape) == len(tensor.shape) - 1 else ""
        raise RequestError(
            f"input {tensor.name!r} is {list(array.shape)}, expected {tensor.dtype} {_sides(tensor.shape)}{batch}"
        )
    return cast


def _strings(array, tensor):
    leaves = [leaf.encode() if isinstance(leaf, str) else leaf for leaf in array.ravel()]
    for leaf in leaves:
        if not isinstance(leaf, bytes):
            raise RequestError(f"input {tensor.name!r} holds {type(leaf).__name__}, expected bytes or str")
    flat = np.empty(len(leaves), object)
    flat[:] = leaves
    return flat.reshape(array.shape)


def _numbers(array, tensor):
    try:
        dtype = np.dtype(tensor.dtype)
        takes = KINDS[dtype.kind]
    except (TypeError, KeyError):  # bfloat16 and other dtypes that NumPy lacks
        raise RequestError(f"input {tensor.name!r} is {tensor.dtype}, which cannot be sent from NumPy") from None
    if array.size and array.dtype.kind not in takes:
        raise RequestError(f"input {tensor.name!r} is {array.dtype.name}, expected {tensor.dtype}")
    if array.dtype == np.uint8 and dtype.kind == "f":
        raise RequestError(
            f"input {tensor.name!r} is uint8, expected {tensor.dtype}; a picture has values in [0, 1]: divide by 255"
        )
    cast = array.astype(dtype)
    if dtype.kind in "iu" and (cast != array).any():
        raise RequestError(f"input {tensor.name!r} holds a number beyond {tensor.dtype}")
    return cast


def _sides(shape):
    sides = ["B", *("?" if side is None else str(side) for side in shape[1:])]
    return f"[{', '.join(sides[: len(shape)])}]"


def _tensors(infos):
    return [Tensor(name, _dtype(info["dtype"]), _shape(info["tensor_shape"])) for name, info in sorted(infos.items())]


def _dtype(name):
    """DT_FLOAT -> float32."""
    plain = name.removeprefix("DT_").lower()
    return {"float": "float32", "double": "float64", "half": "float16"}.get(plain, plain)


def _shape(described):
    sizes = [int(dim.get("size", 0)) for dim in described.get("dim", ())]
    return tuple(None if size < 0 else size for size in sizes)


def _where(model, version, label):
    if version is not None and label is not None:
        raise RequestError(f"received version {version!r} and label {label!r}, expected one of them")
    if label is not None and not isinstance(label, str):
        raise RequestError(
            "`label` names a version, as text; an input of that name goes into a dict: predict(MODEL, {'label': ...})"
        )
    return model, version, label


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
