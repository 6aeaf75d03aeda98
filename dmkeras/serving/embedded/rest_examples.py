"""The REST form of tf.Examples, and of the classes or values that answer them (TF Serving's util/json_tensor.cc).

    {"signature_name": ..., "context": {feature: value}, "examples": [{feature: value or list}, ...]}
    {"results": [[[label, score], ...], ...]} of classify, {"results": [value, ...]} of regress
Strings and {"b64": ...} are bytes features, numbers with a point float, other numbers and booleans int64.
"""

import numpy as np

from dmkeras.serving.errors import RequestError
from dmkeras.serving.json_arrays import binary, is_binary, listed, lossless, utf8
from dmkeras.serving.json_text import error_of, kind_of

KINDS = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64"}


def fill(received, body):
    """Writes the examples of a parsed body into a proto `Input`."""
    has_context = "context" in body
    listed = received.example_list_with_context if has_context else received.example_list
    if has_context:
        _fill_example(listed.context, body["context"])
    if "examples" not in body:
        raise error_of(body, "When method is classify, key 'examples' is expected and was not found")
    examples = body["examples"]
    if not isinstance(examples, list):
        raise error_of(body, "Expecting 'examples' value to be an list/array")
    if not examples:
        raise error_of(body, "'examples' value is an empty array")
    for example in examples:
        _fill_example(listed.examples.add(), example)


def classified(result):
    """ClassificationResult -> JSON."""
    return {
        "results": [
            [[found.label, score] for found, score in zip(row.classes, _floats(row.classes, "score"))]
            for row in result.classifications
        ]
    }


def regressed(result):
    """RegressionResult -> JSON."""
    return {"results": _floats(result.regressions, "value")}


def _floats(messages, field):
    return listed(field, np.array([getattr(message, field) for message in messages], np.float32))


def _fill_example(example, value):
    if not isinstance(value, dict):
        raise RequestError(f"Example must be JSON object but got JSON {kind_of(value)}")
    for name, content in value.items():
        feature = example.features.feature[utf8(name).decode(errors="replace")]
        for item in content if isinstance(content, list) else [content]:
            _add(feature, name, item)


def _add(feature, name, value):
    kind, value = _feature_value(name, value)
    present = feature.WhichOneof("kind")
    if present not in (None, kind):
        raise RequestError(f"Unexpected element type in feature: {name} expecting type: {KINDS[present]}")
    getattr(feature, kind).value.append(value)


def _feature_value(name, value):
    """The field of a Feature that takes a JSON value, and what it takes."""
    if isinstance(value, str):
        return "bytes_list", utf8(value)
    if is_binary(value):
        return "bytes_list", binary(value)
    if isinstance(value, bool):
        return "int64_list", int(value)
    if type(value) is int and -(2**63) <= value < 2**64:
        if value >= 2**63:
            raise RequestError(f"Feature: {name} has uint64 element. Only int64 is supported.")
        return "int64_list", value
    if isinstance(value, int | float):
        return "float_list", lossless(value, "float32")
    raise RequestError(f"Feature: {name} has element with unexpected JSON type: {kind_of(value)}")
