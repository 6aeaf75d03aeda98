"""Predictions that are answered, by what is sent. Numbers are of version 2, whose `scores` are twice the pictures.

ANSWERED, ADDRESSED: seen of a tensorflow_model_server 2.21; capitals, queries and odd names in paths: read.
VALUES: read in json_tensor.cc, with rapidjson's and absl's rules for numbers, text and base64.
"""

import json

from tests.serving.conformance.cases import Case

PAIR = [[1, 2]]
PICTURES = {"instances": PAIR}
DOUBLED = {"predictions": [[2.0, 4.0]]}


def rows(signature, *values):
    return {"signature_name": signature, "instances": list(values)}


def columns(signature, value):
    return {"signature_name": signature, "inputs": value}


def answered(name, body, expected):
    return Case(name, body, 200, expected)


def to(path, name, expected=DOUBLED, status=200):
    return Case(name, PICTURES, status, expected, f"/v1/models/{path}" if path[0] != "/" else path)


ANSWERED = [
    answered("rows", PICTURES, DOUBLED),
    answered(
        "rows by name",
        {"instances": [{"images": [1, 2]}, {"images": [3, 4]}]},
        {"predictions": [[2.0, 4.0], [6.0, 8.0]]},
    ),
    answered("columns", {"inputs": PAIR}, {"outputs": [[2.0, 4.0]]}),
    answered("columns by name", {"inputs": {"images": PAIR}}, {"outputs": [[2.0, 4.0]]}),
    answered("columns ignore extra keys", {"inputs": {"images": PAIR, "bogus": 1}}, {"outputs": [[2.0, 4.0]]}),
    answered(
        "rows of two outputs",
        rows("scaled", {"images": [1, 2], "temperature": 0.5}),
        {"predictions": [{"scores": [2.0, 4.0], "mean": 1.5}]},
    ),
    answered(
        "columns of two outputs",
        columns("scaled", {"images": PAIR, "temperature": [0.5]}),
        {"outputs": {"scores": [[2.0, 4.0]], "mean": [1.5]}},
    ),
    answered("a scalar output in columns", columns("counted", PAIR), {"outputs": {"scores": [[1.0, 2.0]], "count": 1}}),
    answered(
        "NaN and Infinity out", rows("specials", 1), {"predictions": [[float("nan"), float("inf"), float("-inf")]]}
    ),
    answered(
        "NaN and Infinity in",
        '{"signature_name": "echo_float32", "inputs": [NaN, Infinity, -Infinity]}',
        {"outputs": [float("nan"), float("inf"), float("-inf")]},
    ),
    answered("base64 in", rows("echo_string", {"b64": "aGk="}, "there"), {"predictions": ["hi", "there"]}),
    answered(
        "base64 out where a name ends in _bytes",
        rows("strings", "hi"),
        {"predictions": [{"text": "hi", "text_bytes": {"b64": "aGk="}}]},
    ),
    answered("text after the object is ignored", json.dumps(PICTURES) + "]} junk", DOUBLED),
]

VALUES = [
    answered("an empty signature name", {"signature_name": "", "instances": PAIR}, DOUBLED),
    answered("other keys", {"instances": PAIR, "context": 1, "nonsense": [None]}, DOUBLED),
    answered("a byte order mark", b"\xef\xbb\xbf" + json.dumps(PICTURES).encode(), DOUBLED),
    answered("no rows in columns", columns("echo_float32", []), {"outputs": []}),
    answered("any rank", columns("any_rank", [[1], [2]]), {"outputs": [[2.0], [3.0]]}),
    answered("rank 0 where any is", columns("any_rank", 1), {"outputs": 2.0}),
    answered("a scalar", columns("scalar", 1), {"outputs": 2.0}),
    answered("base64 without padding", rows("echo_string", {"b64": "aGk"}), {"predictions": ["hi"]}),
    answered("base64 of nothing", rows("echo_string", {"b64": ""}), {"predictions": [""]}),
    answered(
        "base64 by name",
        rows("strings", {"text": {"b64": "aGk="}}),
        {"predictions": [{"text": "hi", "text_bytes": {"b64": "aGk="}}]},
    ),
    answered(
        "a string that is no UTF-8",
        b'{"signature_name": "text_bytes", "instances": ["\xff"]}',
        {"predictions": [{"b64": "/w=="}]},
    ),
    answered("bytes that are no text", rows("text_bytes", {"b64": "/wD+"}), {"predictions": [{"b64": "/wD+"}]}),
    answered(
        "text beyond ASCII", rows("echo_string", "Größe 🐱 \x00 \u2028"), {"predictions": ["Größe 🐱 \x00 \u2028"]}
    ),
    answered("whole numbers keep their point", rows("echo_float64", 3), {"predictions": [3.0]}),
    answered("integers keep none", rows("echo_int32", -3), {"predictions": [-3]}),
    answered("int64", rows("echo_int64", 2**63 - 1, -(2**63)), {"predictions": [2**63 - 1, -(2**63)]}),
    answered("uint64", rows("echo_uint64", 2**64 - 1), {"predictions": [2**64 - 1]}),
    answered("uint32", rows("echo_uint32", 2**32 - 1), {"predictions": [2**32 - 1]}),
    answered("int16", rows("echo_int16", 2**15 - 1, -(2**15)), {"predictions": [2**15 - 1, -(2**15)]}),
    answered("int8", rows("echo_int8", 127, -128), {"predictions": [127, -128]}),
    answered("uint8", rows("echo_uint8", 255, 0), {"predictions": [255, 0]}),
    answered("bool", rows("echo_bool", True, False), {"predictions": [True, False]}),
    answered("double", rows("echo_float64", 0.1, 1e300), {"predictions": [0.1, 1e300]}),
    answered("zero with a sign", rows("echo_float32", -0.0), {"predictions": [-0.0]}),
    answered("a key twice: the first counts", '{"instances": [[1, 2]], "instances": [[5, 5]]}', DOUBLED),
]

ADDRESSED = [
    to("multi/versions/1:predict", "version", {"predictions": [[1.0, 2.0]]}),
    to("multi/versions/0002:predict", "version with zeros before it"),
    to("multi/labels/stable:predict", "label", {"predictions": [[1.0, 2.0]]}),
    to("multi/labels/v%C4%9Btev:predict", "label in unicode", {"predictions": [[1.0, 2.0]]}),
    to("gr%C3%B6%C3%9Fe%20%E6%A8%A1%E5%9E%8B:predict", "name in unicode"),
    to("m%75lt%69:predict", "name in percents"),
    to("/V1/Models/multi:predict", "path in capitals"),
    to("multi:predict?v=1", "query", "Malformed request: POST /v1/models/multi:predict?v=1", 400),
    to("none:predict", "unknown model", "Servable not found for request: Latest(none)", 404),
    to("MULTI:predict", "name in capitals", "Servable not found for request: Latest(MULTI)", 404),
    to("multi/versions/99:predict", "unknown version", "Servable not found for request: Specific(multi, 99)", 404),
    to(
        "none/versions/1:predict",
        "version of an unknown model",
        "Servable not found for request: Specific(none, 1)",
        404,
    ),
    to("multi/labels/none:predict", "unknown label", "Unrecognized servable version label: none", 400),
    to("none/labels/stable:predict", "label of an unknown model", "Unrecognized servable version label: stable", 400),
    to("..%2F..%2Fetc:predict", "a path for a name", "Servable not found for request: Latest(../../etc)", 404),
    to("multi%00:predict", "a name with a zero byte", None, 404),
    to("%ff:predict", "a name that is no UTF-8", None, 404),
    to(
        "multi/versions/1/labels/stable:predict",
        "version and label",
        "Malformed request: POST /v1/models/multi/versions/1/labels/stable:predict",
        400,
    ),
    to(
        "multi/versions/x:predict",
        "version that is no number",
        "Malformed request: POST /v1/models/multi/versions/x:predict",
        400,
    ),
    to(
        "multi/versions/-1:predict",
        "negative version",
        "Malformed request: POST /v1/models/multi/versions/-1:predict",
        400,
    ),
    to("multi/versions/99999999999999999999:predict", "version beyond int64", None, 400),
    to("multi:PREDICT", "verb in capitals", "Malformed request: POST /v1/models/multi:PREDICT", 400),
    to("multi:explain", "unknown verb", "Malformed request: POST /v1/models/multi:explain", 400),
    to("multi:predict/", "slash at the end", "Malformed request: POST /v1/models/multi:predict/", 400),
    to(":predict", "no name", "Malformed request: POST /v1/models/:predict", 400),
    to("multi", "no verb", "Malformed request: POST /v1/models/multi", 400),
]
