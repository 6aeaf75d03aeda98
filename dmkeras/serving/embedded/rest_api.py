"""TF Serving's REST API without its sockets: a method, a path and a body in, a status and a body out.

    POST /v1/models/NAME[/versions/N|/labels/L]:(predict|classify|regress)
    GET  /v1/models/NAME[/versions/N|/labels/L][/metadata]
Paths are taken apart by the expressions of its model_servers/http_rest_api_util.cc. Names are percent-decoded
and looked up, never joined into paths of files.
"""

import dataclasses
import logging
import re
import time
import typing
import urllib.parse

from google.protobuf import json_format
from tensorflow_serving.apis import classification_pb2, get_model_metadata_pb2, model_pb2, regression_pb2

from dmkeras.serving import json_text, rest_json
from dmkeras.serving.embedded import inference, rest_examples
from dmkeras.serving.errors import INTERNAL, RequestError, ServingError

LOG = logging.getLogger(__name__)
JSON, HTML = "application/json", "text/html"
VERSION = r"(?:/versions/([0-9]+)|/labels/([^/:]+))?"
ANY = re.compile(r"/v1/.*", re.IGNORECASE | re.DOTALL)
INFER = re.compile(rf"/v1/models/([^/:]+){VERSION}:(classify|regress|predict)", re.IGNORECASE)
LOOK = re.compile(rf"/v1/models(?:/([^/:]+))?{VERSION}(?:/(metadata))?", re.IGNORECASE)
NOT_FOUND = b"<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD><BODY>\n<H1>Not Found</H1>\n</BODY></HTML>\n"
LONGEST_ERROR = 2000
APIS = {"predict": "Predict", "classify": "Classify", "regress": "Regress"}
MESSAGES = {
    "Classify": (classification_pb2.ClassificationRequest, inference.classify, rest_examples.classified),
    "Regress": (regression_pb2.RegressionRequest, inference.regress, rest_examples.regressed),
}


@dataclasses.dataclass
class Names:
    """What a request was about, for the log and the metrics."""

    api: str = ""  # Predict, Classify, Regress, GetModelStatus, GetModelMetadata; empty for what is none of them
    model: str = ""  # as its caller wrote it, as the signature
    version: int | None = None
    signature: str = ""
    code: str = "OK"  # a gRPC status' name
    rows: int = 0
    run_seconds: float | None = None


class Answer(typing.NamedTuple):
    status: int
    content_type: str
    body: bytes
    names: Names


def handle(method, path, body, servables, *, timeout=None, max_depth=json_text.MAX_DEPTH):
    """One request -> Answer, whatever is in it.

    Args:
        method: such as "POST".
        path: as it was sent, percent-encoded, with what follows a question mark.
        body: bytes.
        servables: the `Servables` to ask.
        timeout: seconds for the graph to run; None: no limit.
        max_depth: levels that the JSON may nest.
    """
    names = names_of(method, path)
    if not ANY.fullmatch(path):
        names.code = "NOT_FOUND"
        return Answer(404, HTML, NOT_FOUND, names)
    try:
        return Answer(200, JSON, _answer(method, path, body, servables, timeout, max_depth, names), names)
    except ServingError as error:
        names.code = error.code
        return Answer(error.http, JSON, error_body(str(error)), names)
    except Exception:  # a fault of ours: the caller learns nothing of it, the log everything
        LOG.exception("%s %.200r failed", method, path)
        names.code = "INTERNAL"
        return Answer(500, JSON, error_body(INTERNAL), names)


def names_of(method, path):
    """What a request is about as far as its path tells, whether or not it can be answered."""
    found = INFER.fullmatch(path) if method == "POST" else LOOK.fullmatch(path) if method == "GET" else None
    if found is None:
        return Names()
    name, _, _, verb = found.groups()
    if method == "POST":
        return Names(APIS.get(verb, ""), _decoded(name))
    return Names("GetModelMetadata" if verb == "metadata" else "GetModelStatus", _decoded(name or ""))


def error_body(message):
    """An error as TF Serving writes it, whatever a caller has brought into the message, and how much of it."""
    message = message if len(message) <= LONGEST_ERROR else message[:LONGEST_ERROR] + "..."
    return rest_json.dumps({"error": message.encode(errors="replace").decode()})


def _answer(method, path, body, servables, timeout, max_depth, names):
    if not names.api:  # also of a verb in capitals: the expression is blind to case, the verb is not
        raise RequestError(f"Malformed request: {method} {path}")
    _, number, label, _ = (INFER if method == "POST" else LOOK).fullmatch(path).groups()
    version = _chosen(number, label)
    names.version = version.get("version")
    if method == "POST":
        body = json_text.parse(body, max_depth)
        names.signature = rest_json.signature_name(body)
        infer = _predict if names.api == "Predict" else _infer
        return infer(body, servables, version, timeout, names)
    if not names.model:
        raise RequestError("Missing model name in request.")
    return (_status if names.api == "GetModelStatus" else _metadata)(servables, version, names)


def _chosen(number, label):
    """The keywords that choose a version."""
    if not number:
        return {"label": _decoded(label)} if label else {}
    digits = number.lstrip("0") or "0"
    if len(digits) > 19 or int(digits) >= 2**63:
        raise RequestError(f"Failed to convert version: {number} to numeric.")
    return {"version": int(digits)}


def _decoded(text):
    return urllib.parse.unquote_to_bytes(text).decode(errors="surrogateescape")


def _predict(body, servables, version, timeout, names):
    with servables.use(names.model, **version) as servable:
        names.version = servable.version
        signature = names.signature or inference.DEFAULT_SIGNATURE
        if signature not in servable.loaded.signatures:
            raise RequestError(f'Serving signature name: "{signature}" not found in signature def')
        inputs = servable.loaded.signatures[signature].inputs
        if not inputs:
            raise RequestError(f"Failed to get input map for signature: {names.signature or 'DEFAULT'}")
        feed = rest_json.decode(body, inputs)
        first = next(iter(feed.values()))
        names.rows = len(first) if first.ndim else 1
        started = time.monotonic()
        outputs = servable.loaded.run(signature, feed, timeout=timeout)
        names.run_seconds = time.monotonic() - started
    return rest_json.dumps(rest_json.encode(outputs, columns="inputs" in body))


def _infer(body, servables, version, timeout, names):
    """classify and regress."""
    request_type, ask, written = MESSAGES[names.api]
    request = request_type(model_spec=_spec(names, version))
    rest_examples.fill(request.input, body)
    started = time.monotonic()
    response = ask(servables, request, timeout=timeout)
    names.run_seconds = time.monotonic() - started
    names.version = response.model_spec.version.value
    answer = written(response.result)
    names.rows = len(answer["results"])
    return rest_json.dumps(answer)


def _status(servables, version, names):
    return rest_json.dumps(
        {
            "model_version_status": [
                {
                    "version": str(status.version),
                    "state": status.state,
                    "status": {"error_code": status.code, "error_message": status.message},
                }
                for status in servables.status(names.model, **version)
            ]
        }
    )


def _metadata(servables, version, names):
    request = get_model_metadata_pb2.GetModelMetadataRequest(
        model_spec=_spec(names, version), metadata_field=[inference.SIGNATURE_DEF]
    )
    response = inference.get_model_metadata(servables, request)
    names.version = response.model_spec.version.value
    definitions = get_model_metadata_pb2.SignatureDefMap()
    response.metadata[inference.SIGNATURE_DEF].Unpack(definitions)
    return rest_json.dumps(
        {
            "model_spec": _printed(response.model_spec),
            "metadata": {inference.SIGNATURE_DEF: _printed(definitions)},
        }
    )


def _printed(message):
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _spec(names, version):
    spec = model_pb2.ModelSpec(name=_text(names.model), signature_name=_text(names.signature))
    if "version" in version:
        spec.version.value = version["version"]
    elif version:
        spec.version_label = _text(version["label"])
    return spec


def _text(name):
    """A name as a proto takes it. One that is no UTF-8 is nobody's."""
    return name.encode(errors="replace").decode()
