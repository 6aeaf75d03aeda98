"""The REST form of tensors, as TF Serving reads and writes it (its util/json_tensor.cc and g3doc/api_rest.md).

    {"instances": [row, ...]}   rows: {"name": value}, or the value alone where a signature has one input
    {"inputs": ...}             columns: {"name": values}, or the values alone
A binary string is {"b64": "..."}. Rows are answered by {"predictions": [row, ...]}, columns by {"outputs": ...}; base64
is written for outputs whose name ends in `_bytes`. NaN and Infinity are bare words. No TensorFlow here.
"""

import base64
import binascii
import json

import numpy as np

from dmkeras.serving.errors import RequestError


def parse(text):
    """The text of a request as a JSON value; RequestError where it is none."""
    try:
        return json.loads(text)
    except RecursionError:
        raise RequestError("the request's JSON is nested too deeply") from None
    except ValueError as error:
        raise RequestError(f"the request is not JSON: {error}") from None


def decode(body, inputs):
    """A parsed request body and the signature's Tensors -> {name: array [B, ...]}."""
    keys = [key for key in ("instances", "inputs") if isinstance(body, dict) and key in body]
    if len(keys) != 1:
        raise RequestError('expected an object with one of "instances" (rows) and "inputs" (columns)')
    value = body[keys[0]]
    columns = _columns_of_rows(value, inputs) if keys == ["instances"] else _columns(value, inputs)
    return {tensor.name: array(columns[tensor.name], tensor) for tensor in inputs}


def array(value, tensor):
    """A nested list of JSON values -> array of a Tensor's dtype and shape."""
    leaves = []
    shape = _flatten(value, tensor, len(tensor.shape), leaves)
    expected = list(tensor.shape)
    if len(shape) != len(expected) or any(a != b for a, b in zip(shape, expected, strict=True) if b is not None):
        sides = ", ".join(["B", *("?" if side is None else str(side) for side in expected[1:])])
        raise RequestError(f"input {tensor.name!r} has shape {list(shape)}, expected [{sides}]")
    dtype = object if tensor.dtype == "string" else tensor.dtype
    try:
        return np.array(leaves, dtype).reshape(shape)
    except OverflowError:
        raise RequestError(f"input {tensor.name!r} holds a number beyond {tensor.dtype}") from None


def encode(outputs, *, columns=False):
    """An answer {name: array [B, ...]} -> {"predictions": rows} or {"outputs": columns}, ready for `json.dumps`."""
    values = {name: _listed(name, output) for name, output in outputs.items()}
    if columns:
        return {"outputs": next(iter(values.values())) if len(values) == 1 else values}
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    return {"predictions": [next(iter(row.values())) for row in rows] if len(values) == 1 else rows}


def _columns_of_rows(rows, inputs):
    names = [tensor.name for tensor in inputs]
    if not isinstance(rows, list) or not rows:
        raise RequestError('"instances" holds no rows, expected a list with at least one')
    named = isinstance(rows[0], dict) and "b64" not in rows[0]
    if not named and len(names) > 1:
        raise RequestError(f"a row is {_kind(rows[0])}, expected an object with {names}")
    for index, row in enumerate(rows):
        received = sorted(row) if isinstance(row, dict) else _kind(row)
        if named and received != sorted(names):
            raise RequestError(f"row {index} has {received}, expected {sorted(names)}")
    return {name: [row[name] if named else row for row in rows] for name in names}


def _columns(value, inputs):
    names = [tensor.name for tensor in inputs]
    if not isinstance(value, dict):
        value = {names[0]: value} if len(names) == 1 else {}
    missing = [name for name in names if name not in value]
    if missing:
        raise RequestError(f'"inputs" lacks {missing}, expected {names}')
    return value


def _flatten(value, tensor, depth, leaves):
    """Appends the leaves of a nested list and returns its shape; RequestError where it is ragged or too deep."""
    if not isinstance(value, list):
        leaves.append(_leaf(value, tensor))
        return ()
    if depth == 0:
        raise RequestError(f"input {tensor.name!r} is nested deeper than its {len(tensor.shape)} dimensions")
    shapes = {_flatten(item, tensor, depth - 1, leaves) for item in value}
    if len(shapes) > 1:
        raise RequestError(f"input {tensor.name!r} is ragged: it holds lists of shapes {sorted(shapes)}")
    return (len(value), *(shapes.pop() if shapes else ()))


def _leaf(value, tensor):
    """One JSON value as TF Serving takes it: 1 is a float, 1.0 is no integer, true is no number."""
    if tensor.dtype == "string":
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str):
            try:
                return base64.b64decode(value["b64"], validate=True)
            except (binascii.Error, ValueError):
                raise RequestError(f"input {tensor.name!r} holds a b64 that is not base64") from None
    elif tensor.dtype == "bool":
        if isinstance(value, bool):
            return value
    elif type(value) is int or (type(value) is float and tensor.dtype.startswith("float")):
        return value
    raise RequestError(f"input {tensor.name!r} holds {_kind(value)}, expected {tensor.dtype}")


def _kind(value):
    shown = json.dumps(value)
    return f"{shown[:40]}..." if len(shown) > 40 else shown


def _listed(name, output):
    """An array as nested lists: float32 in its shortest decimals, strings as text or base64."""
    if output.dtype == object:
        binary = name.endswith("_bytes")
        leaves = [
            {"b64": base64.b64encode(leaf).decode()} if binary else leaf.decode(errors="replace")
            for leaf in output.ravel()
        ]
        nested = np.empty(output.size, object)
        nested[:] = leaves
        return nested.reshape(output.shape).tolist()
    if output.dtype == np.float32:
        output = np.array([float(str(leaf)) for leaf in output.ravel()]).reshape(output.shape)
    return output.tolist()
