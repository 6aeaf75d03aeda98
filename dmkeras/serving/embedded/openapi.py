"""The server's description of itself: OpenAPI 3.1 of what it answers for the models that are loaded.

A schema says the dtypes and the sides that a signature fixes. What it cannot say: that open sides are equal in all
rows, that integers fit the mantissa of a float, what the graph asks of its values; requests that fail there get a 400.
"""

import urllib.parse

import numpy as np

from dmkeras.serving.errors import ServingError
from dmkeras.serving.json_arrays import INTEGERS, MANTISSA, WRITABLE, type_name
from dmkeras.serving.json_text import dumps

ERROR = {"$ref": "#/components/schemas/Error"}
BASE64 = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
BINARY = {
    "type": "object",
    "properties": {"b64": {"type": "string", "contentEncoding": "base64", "pattern": BASE64}},
    "required": ["b64"],
    "additionalProperties": False,
}
ERRORS = {
    "400": "The request, label or signature is wrong; the message names the tensor, what came, what is expected.",
    "404": "No such model or version.",
    "408": "The body did not arrive in time.",
    "413": "The body is too long.",
    "429": "Too many requests in flight; try again after Retry-After seconds.",
    "500": "A fault of the server.",
    "503": "The server starts, drains or holds too many long bodies; try again after Retry-After seconds.",
    "504": "The request took too long.",
}
UNAUTHORIZED = {"401": "No token, or not the server's."}
ABOUT = (
    "TF Serving's REST API for the models that are loaded now. Every path of a model takes /versions/N or /labels/L "
    "after the model's name. Numbers may be the bare words NaN, Infinity and -Infinity, in requests and answers."
)


def text(servables, *, secured=False):
    """The description as bytes; `secured`: the server asks for a token."""
    paths = {"/livez": {"get": _health("The process answers.")}, "/readyz": {"get": _health("Every model answers.")}}
    for name in servables.names():
        try:
            with servables.use(name) as servable:
                paths |= _paths(name, servable.loaded.signatures, ERRORS | (UNAUTHORIZED if secured else {}))
        except ServingError:  # none of its versions answers
            continue
    description = {
        "openapi": "3.1.0",
        "info": {"title": "Model server", "version": "1", "description": ABOUT},
        "paths": paths,
        "components": {"schemas": {"Error": _object({"error": {"type": "string"}})}},
    }
    if secured:
        description["security"] = [{"token": []}]
        description["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return dumps(description)


def _paths(name, signatures, errors):
    """The operations of one model."""
    path = f"/v1/models/{urllib.parse.quote(name, safe='')}"
    errors = {status: _response(message, ERROR) for status, message in errors.items()}

    def operation(summary, answer, requests=None):
        found = {"summary": summary, "tags": [name], "responses": {"200": _response("The answer.", answer), **errors}}
        if requests is not None:
            schema = {"anyOf": requests}
            found["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
        return found

    paths = {
        path: {"get": operation("The state of the versions", _status())},
        f"{path}/metadata": {"get": operation("The signatures", {"type": "object", "required": ["metadata"]})},
    }
    told = {key: found for key, found in signatures.items() if _carried(found)}
    if told:
        requests = [request for key, found in told.items() for request in _predict_requests(key, found.inputs)]
        answer = {"anyOf": [schema for found in told.values() for schema in _predictions(found.outputs)]}
        paths[f"{path}:predict"] = {"post": operation(f"Ask {', '.join(told)}", answer, requests)}
    for verb, fits, result in (("classify", _classifies, _classes()), ("regress", _regresses, {"type": "number"})):
        fitting = [key for key, found in told.items() if fits(found)]
        if fitting:
            requests = [_signed(key, {"examples": _array(_example(), minItems=1), "context": _example()}, ["examples"])
                        for key in fitting]  # fmt: skip
            answer = _object({"results": _array(result)})
            paths[f"{path}:{verb}"] = {"post": operation(f"Ask {', '.join(fitting)} with features", answer, requests)}
    return paths


def _predict_requests(key, inputs):
    """A signature's request by rows and by columns."""
    rows = [_array(_object({tensor.name: _tensor(tensor, 1) for tensor in inputs}), minItems=1)]
    columns = [_object({tensor.name: _tensor(tensor, 0) for tensor in inputs}, additionalProperties=True)]
    if len(inputs) == 1:  # which needs no name
        rows.insert(0, _array(_tensor(inputs[0], 1), minItems=1))
        columns.insert(0, _tensor(inputs[0], 0))
    by_rows = _signed(key, {"instances": {"anyOf": rows}}, ["instances"])
    by_columns = _signed(key, {"inputs": {"anyOf": columns}}, ["inputs"])
    has_rows = all(tensor.shape is None or tensor.shape for tensor in inputs)  # a scalar has none
    return [by_rows, by_columns] if has_rows else [by_columns]


def _predictions(outputs):
    """A signature's answer by rows and by columns."""
    if len(outputs) == 1:
        rows, columns = _tensor(outputs[0], 1), _tensor(outputs[0], 0)
    else:
        rows, columns = (_object({tensor.name: _tensor(tensor, skip) for tensor in outputs}) for skip in (1, 0))
    return [_object({"predictions": _array(rows)}), _object({"outputs": columns})]


def _signed(key, properties, required):
    """A request to a signature, which may go unnamed where it is the default."""
    named = {"signature_name": {"const": key}, **properties}
    return _object(named, required if key == "serving_default" else ["signature_name", *required])


def _tensor(tensor, skip):
    """A tensor's schema without its first `skip` dimensions."""
    if tensor.shape is None:
        return {"description": "any shape"}
    schema = _leaf(tensor.dtype)
    for side in reversed(tensor.shape[skip:]):
        schema = _array(schema, minItems=1) if side is None else _array(schema, minItems=side, maxItems=side)
    return schema


def _leaf(dtype):
    if dtype in INTEGERS:
        limits = np.iinfo(dtype)
        return {"type": "integer", "format": dtype, "minimum": int(limits.min), "maximum": int(limits.max)}
    if dtype in MANTISSA:
        largest = float(np.finfo(dtype).max)
        return {"type": "number", "format": type_name(dtype), "minimum": -largest, "maximum": largest}
    return {"type": "boolean"} if dtype == "bool" else {"anyOf": [{"type": "string"}, BINARY]}


def _carried(signature):
    """Whether JSON has a form for all tensors."""
    dtypes = {tensor.dtype for tensor in [*signature.inputs, *signature.outputs]}
    return bool(signature.inputs) and dtypes <= {*WRITABLE, "string"}


def _takes_examples(signature):
    return [(tensor.name, tensor.dtype) for tensor in signature.inputs] == [("inputs", "string")]


def _classifies(signature):
    return _takes_examples(signature) and {tensor.name for tensor in signature.outputs} <= {"classes", "scores"}


def _regresses(signature):
    return _takes_examples(signature) and [tensor.name for tensor in signature.outputs] == ["outputs"]


def _example():
    """Features: values of one kind, or lists of them."""
    kinds = [{"anyOf": [{"type": "string"}, BINARY]}, {"type": "number"}, {"type": "boolean"}]
    return {"type": "object", "additionalProperties": {"anyOf": kinds + [_array(kind) for kind in kinds]}}


def _classes():
    """[label, score] for each class of a row."""
    return _array(_array({"anyOf": [{"type": "string"}, {"type": "number"}]}, minItems=2, maxItems=2))


def _status():
    state = {"enum": ["START", "LOADING", "AVAILABLE", "UNLOADING", "END"]}
    status = _object({"error_code": {"type": "string"}, "error_message": {"type": "string"}})
    version = _object({"version": {"type": "string"}, "state": state, "status": status})
    return _object({"model_version_status": _array(version)})


def _health(summary):
    return {
        "summary": summary,
        "security": [],
        "responses": {"200": {"description": "Yes.", "content": {"text/plain": {}}}, "503": _response("No.", ERROR)},
    }


def _response(description, schema):
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _object(properties, required=None, **more):
    required = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False} | more


def _array(items, **more):
    return {"type": "array", "items": items, **more}
