"""Shell lines that ask a server for one row of a signature, for a reader to paste. No TensorFlow here."""

import json
import math
import shlex
import urllib.parse

HOST = "http://localhost:8501"
INLINE = 16  # numbers a row that a line spells out
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint32", "uint64")
LEAVES = dict.fromkeys(INTEGERS, "1") | {"float32": "0.5", "float64": "0.5", "string": '"text"', "bool": "true"}
ZERO_OR_ONE = ("images", "known_mask")  # inputs whose examples are 0 or 1: pixels that every model of pictures takes
EXAMPLES = "inputs"  # what TF Serving calls the input of serialized tf.Examples
EXAMPLE_OUTPUTS = {"classes", "scores", "outputs"}


def curl(model, signature, inputs, outputs=(), feature=None, *, url=HOST, version=None, options=""):
    """A line that asks for one row of a signature, or a remark where JSON cannot ask.

    Args:
        model: its name.
        signature: its name.
        inputs: its Tensors.
        outputs: its Tensors.
        feature: of a signature that takes tf.Examples, the Tensor that an example holds: the line asks by `:classify`.
        url: of the server.
        version: a number; None asks for the newest.
        options: of curl, as a shell reads them.
    """
    unsaid = [tensor for tensor in (*inputs, *outputs) if tensor.dtype not in LEAVES]
    if unsaid:
        return f"# no JSON form: {unsaid[0].name} is {unsaid[0].dtype}; ask over gRPC"
    if feature is None and _takes_examples(inputs, outputs):
        return f"# {EXAMPLES} takes serialized tf.Examples: ask :classify or :regress with the features that it reads"
    inputs = [feature] if feature else inputs
    by_rows = feature or all(tensor.shape and tensor.shape[0] is None for tensor in (*inputs, *outputs))
    sides = {tensor: _sides(tensor, by_rows) for tensor in inputs}
    computed = any(_is_file(tensor) or math.prod(sides[tensor]) > INLINE for tensor in inputs)
    values = ", ".join(f"{_text(tensor.name)}: {_value(tensor, sides[tensor], computed)}" for tensor in inputs)
    key = "examples" if feature else "instances" if by_rows else "inputs"
    named = "" if signature == "serving_default" else f'"signature_name": {_text(signature)}, '
    body = f'{{{named}"{key}": [{{{values}}}]}}' if by_rows else f'{{{named}"{key}": {{{values}}}}}'
    where = f"/v1/models/{urllib.parse.quote(model, safe='')}" + (f"/versions/{version}" if version is not None else "")
    address = shlex.quote(f"{url}{where}:{'classify' if feature else 'predict'}")
    options = f"{options} " if options else ""
    if not computed:
        return f"curl {options}-d {shlex.quote(body)} {address}"
    modules = "base64, json" if "base64" in values else "json"
    return f"python3 -c {shlex.quote(f'import {modules}; print(json.dumps({body}))')} | curl {options}-d @- {address}"


def _sides(tensor, by_rows):
    """The sides of one row, or of a whole tensor with a batch of one where some tensor has no batch, and so no rows."""
    batch, *row = tensor.shape or (None,)
    row = [32 if side is None else side for side in row]
    return tuple(row) if by_rows or not tensor.shape else (1 if batch is None else batch, *row)


def _takes_examples(inputs, outputs):
    """Whether this is the form of TF Serving's signatures for Classify and Regress."""
    return (
        [(tensor.name, tensor.dtype) for tensor in inputs] == [(EXAMPLES, "string")]
        and bool(outputs)
        and {tensor.name for tensor in outputs} <= EXAMPLE_OUTPUTS
    )


def _text(name):
    return json.dumps(name, ensure_ascii=False)


def _is_file(tensor):
    return tensor.name.endswith("_bytes") or tensor.name == "image/encoded"


def _value(tensor, sides, computed):
    """A tensor of these sides as JSON or, in a line that is computed, as Python."""
    if _is_file(tensor):
        leaf = '{"b64": base64.b64encode(open("picture.png", "rb").read()).decode()}'
    elif tensor.name in ZERO_OR_ONE and tensor.dtype.startswith("float"):
        leaf = "1.0"
    else:
        leaf = "True" if computed and tensor.dtype == "bool" else LEAVES[tensor.dtype]
    for side in reversed(sides):
        leaf = f"[{leaf}] * {side}" if math.prod(sides) > INLINE else f"[{', '.join([leaf] * side)}]"
    return leaf
