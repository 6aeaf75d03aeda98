"""The REST form of tensors, as TF Serving reads and writes it (its util/json_tensor.cc and g3doc/api_rest.md).

    {"instances": [row, ...]}   rows: {"name": value}, or the value alone where a signature has one input
    {"inputs": ...}             columns: {"name": values}, or the values alone
A binary string is {"b64": "..."}. Rows are answered by {"predictions": [row, ...]}, columns by {"outputs": ...}; base64
is written for outputs whose name ends in `_bytes`. NaN and Infinity are bare words. No TensorFlow here.

Messages are TF Serving's, up to a `; input ...` that names the tensor. Done otherwise than there: integers that int8,
int16 and uint8 cannot hold are refused and not wrapped around; of a key that comes twice in a row of "instances" the
first one counts, as it does everywhere else; float32's maximum is taken in its shortest decimals; strings that are no
UTF-8 are answered with replacement characters, so that every answer is JSON.
"""

import numpy as np

from dmkeras.serving.errors import RequestError, ServingError
from dmkeras.serving.json_arrays import dense, fill, is_binary, listed, packed, shape_of, type_name
from dmkeras.serving.json_text import dumps, error_of, parse, shown
from dmkeras.serving.model_card import sides

__all__ = ["RequestError", "array", "decode", "dumps", "encode", "parse", "signature_name"]


def signature_name(body):
    """The signature that a parsed body names, "" where it names none."""
    name = body.get("signature_name", "")
    if not isinstance(name, str):
        raise error_of(body, "not formatted correctly. 'signature_name' key must be a string value.")
    return name


def decode(body, inputs):
    """A parsed request body and the signature's Tensors -> {name: array}, by rows or by columns."""
    if "instances" in body and "inputs" in body:
        raise error_of(body, "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ")
    if "instances" in body:
        rows = body["instances"]
        if not isinstance(rows, list):
            raise error_of(body, "Excepting 'instances' to be an list/array")
        if not rows:
            raise error_of(body, "No values in 'instances' array")
        return _rows(rows, inputs)
    if "inputs" in body:
        return _columns(body["inputs"], inputs)
    raise RequestError("Missing 'inputs' or 'instances' key")


def array(value, tensor):
    """A nested list of JSON values -> array of a Tensor's dtype, of the shape that the list has."""
    found = dense(value, tensor.dtype)
    if found is not None:
        return found
    leaves, shape = [], shape_of(value)
    try:
        fill(value, 0, shape, tensor.dtype, leaves)
    except ServingError as error:
        raise _named(error, tensor) from None
    return packed(leaves, shape, tensor.dtype)


def encode(outputs, *, columns=False):
    """An answer {name: array} -> {"predictions": rows} or {"outputs": columns}, ready for `dumps`.

    RequestError for dtypes that JSON does not carry and, by rows, for outputs that are not one row for each answer.
    """
    if columns:
        values = {name: listed(name, output) for name, output in outputs.items()}
        return {"outputs": next(iter(values.values())) if len(values) == 1 else values}
    size = None
    for name, output in outputs.items():
        if not np.ndim(output):
            raise RequestError(f"Tensor name: {name} has no shape information ; ask for it by columns, 'inputs'")
        if size not in (None, len(output)):
            raise RequestError(f"Tensor name: {name} has inconsistent batch size: {len(output)} expecting: {size}")
        size = len(output)
    values = {name: listed(name, output) for name, output in outputs.items()}
    if len(values) == 1:
        return {"predictions": next(iter(values.values()))}
    return {"predictions": [dict(zip(values, row)) for row in zip(*values.values())]}


def _rows(rows, inputs):
    names = {tensor.name for tensor in inputs}
    named = isinstance(rows[0], dict) and not is_binary(rows[0])
    if not named and len(names) > 1:
        raise RequestError(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            f"tensorinfo_map; the inputs are {sorted(names)}"
        )
    if not named:
        columns = {inputs[0].name: rows}
    elif all(type(row) is dict and row.keys() == names for row in rows):
        columns = {name: [row[name] for row in rows] for name in names}
    else:
        columns = {}
    found = {tensor.name: dense(columns.get(tensor.name), tensor.dtype) for tensor in inputs}
    return found if all(value is not None for value in found.values()) else _rows_one_by_one(rows, inputs, named)


def _rows_one_by_one(rows, inputs, named):
    """As `_rows`, slower: to say what is wrong with which row, or that nothing is."""
    tensors = {tensor.name: tensor for tensor in inputs}
    leaves = {name: [] for name in tensors}
    shapes = {}
    for index, row in enumerate(rows):
        if named and (not isinstance(row, dict) or is_binary(row)):
            raise RequestError(f"Expecting object but got list at item {index} of input list")
        if not named and isinstance(row, dict) and not is_binary(row):
            raise RequestError(f"Expecting value/list but got object at item {index} of input list")
        for name, value in row.items() if named else [(inputs[0].name, row)]:
            key = f" key: {name}" if named else ""
            try:
                _add_row(value, name, tensors, shapes, leaves)
            except ServingError as error:
                error = RequestError(
                    f"Failed to process element: {index}{key} of 'instances' list. Error: {error.code}: {error}"
                )
                raise _named(error, tensors[name]) if name in tensors else error from None
        if named and row.keys() != tensors.keys():
            raise RequestError(
                f"Failed to process element: {index} of 'instances' list. JSON object: {shown(row)} keys must be equal "
                f"to: {','.join(sorted(tensors))}"
            )
    return {name: packed(leaves[name], [len(rows), *shapes[name]], tensor.dtype) for name, tensor in tensors.items()}


def _add_row(value, name, tensors, shapes, leaves):
    if name not in tensors:
        raise RequestError(f"JSON object: does not have named input: {name}")
    shape, before = shape_of(value), len(leaves[name])
    fill(value, 0, shape, tensors[name].dtype, leaves[name])
    expected = shapes.setdefault(name, shape)
    size, expected_size = len(leaves[name]) - before, int(np.prod(expected))
    if size != expected_size:
        raise RequestError(f"Expecting tensor size: {expected_size} but got: {size}")
    if shape != expected:
        texts = ("[" + ",".join(map(str, sizes)) + "]" for sizes in (expected, shape))
        raise RequestError("Expecting shape {} but got: {}".format(*texts))


def _columns(value, inputs):
    if not isinstance(value, dict) or is_binary(value):
        if len(inputs) > 1:
            raise RequestError(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                f"tensorinfo_map; the inputs are {[tensor.name for tensor in inputs]}"
            )
        value = {inputs[0].name: value}
    for tensor in inputs:
        if tensor.name not in value:
            raise RequestError(f"Missing named input: {tensor.name} in 'inputs' object.")
    return {tensor.name: array(value[tensor.name], tensor) for tensor in inputs}


def _named(error, tensor):
    """The error with what the tensor takes."""
    message = f"{error}; input {tensor.name!r} is {type_name(tensor.dtype)} {sides(tensor.shape)}"
    return RequestError(message) if error.code == "INVALID_ARGUMENT" else ServingError(error.code, message)
