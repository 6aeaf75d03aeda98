"""Predictions that are refused, by what is wrong with them: part of the error's text, white space apart.

MEASURED: seen of a tensorflow_model_server 2.21. READ: read in http_rest_api_handler.cc and json_tensor.cc, with
rapidjson's words for what is no JSON. DIFFERENT: answers of ours that differ on purpose.
"""

from tests.serving.conformance.cases import DIES, Case, Ours
from tests.serving.conformance.predict_answers import PAIR, columns, rows

SEVERAL = "as multiple input tensors required as per tensorinfo_map"
REFUSED = "shapes are checked before a session runs; the real server's kernels decide, and some abort the process"
BEYOND = "a number that the dtype cannot hold is refused; the real server wraps it around in silence"
DEEP = "20,000 brackets end the real server with a segmentation fault; ours has a limit"


def refused(name, body, text, status=400):
    return Case(name, body, status, text)


def element(text, which=0, code="INVALID_ARGUMENT"):
    """An error in a row, with what is said around it."""
    return f"Failed to process element: {which} of 'instances' list. Error: {code}: {text}"


def mistyped(value, kind, dtype):
    return f"JSON Value: {value} Type: {kind} is not of expected type: {dtype}"


MEASURED = [
    refused("unknown signature", rows("zzz", [1, 2]), 'Serving signature name: "zzz" not found in signature def'),
    refused(
        "ragged row",
        {"instances": [[[1, 2], [3]]]},
        element("Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
    ),
    refused(
        "text for a float",
        {"instances": [["a", 2]]},
        element(mistyped('"a"', "String", "float")),
    ),
    refused("1.0 for an int32", rows("echo_int32", 1.0), mistyped("1.0", "Number", "int32")),
    refused("no rows", {"instances": []}, "JSON Value: {\"instances\": []} No values in 'instances' array"),
    refused(
        "both keys",
        {"instances": PAIR, "inputs": PAIR},
        "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ",
    ),
    refused("neither key", {}, "Missing 'inputs' or 'instances' key"),
    refused(
        "extra key in a row",
        {"instances": [{"images": [1, 2], "bogus": 1}]},
        element("JSON object: does not have named input: bogus", "0 key: bogus"),
    ),
    refused(
        "missing key in columns, though it has a default",
        columns("scaled", {"images": PAIR}),
        "Missing named input: temperature in 'inputs' object.",
    ),
    refused("not JSON", "hello", "JSON Parse error: Invalid value. at offset: 0"),
    refused("empty", "", "JSON Parse error: The document is empty"),
    refused("a list", "[1, 2]", "JSON Value: [1, 2] Is not object"),
    refused("no base64", rows("echo_string", {"b64": "%%%"}), "Unable to base64 decode"),
    refused("no picture", rows("decode", {"b64": "aGk="}), "Unknown image file format. One of JPEG"),
    refused("half cannot be written", rows("half", 1), "Failed to write JSON value for tensor type: half"),
    refused("a scalar output in rows", rows("counted", [1, 2]), "Tensor name: count has no shape information "),
]

READ = [
    refused(
        "a signature name that is a number",
        {"signature_name": 5, "instances": PAIR},
        "not formatted correctly. 'signature_name' key must be a string value.",
    ),
    refused("a row of one value", {"instances": 5}, "Excepting 'instances' to be an list/array"),
    Case(
        "no JSON for an unknown model",
        "hello",
        400,
        "JSON Parse error: Invalid value. at offset: 0",
        "/v1/models/none:predict",
    ),
    Case(
        "no object for an unknown model",
        "{}",
        404,
        "Servable not found for request: Latest(none)",
        "/v1/models/none:predict",
    ),
    refused("white space alone", "  \n", "JSON Parse error: The document is empty"),
    refused(
        "cut short",
        '{"instances": [[1, 2]',
        "JSON Parse error: Missing a comma or ] after an array element. at offset: 21",
    ),
    refused("a number too big", '{"inputs": [1e999]}', "JSON Parse error: Number too big to be stored in double."),
    refused(
        "half a surrogate pair",
        '{"signature_name": "echo_string", "inputs": ["\\ud800"]}',
        "JSON Parse error: The surrogate pair in string is invalid.",
    ),
    refused(
        "a line break in a string",
        '{"signature_name": "echo_string", "inputs": ["\n"]}',
        "JSON Parse error: Invalid encoding in string.",
    ),
    refused(
        "values for two inputs",
        rows("scaled", [1, 2]),
        f"instances is a plain list, but expecting list of objects {SEVERAL}",
    ),
    refused(
        "columns for two inputs",
        columns("scaled", PAIR),
        f"inputs is a plain value/list, but expecting an object {SEVERAL}",
    ),
    refused("missing key in a row", rows("scaled", {"images": [1, 2]}), "keys must be equal to: images,temperature"),
    refused(
        "an object, then a value",
        {"instances": [{"images": [1, 2]}, [1, 2]]},
        "Expecting object but got list at item 1 of input list",
    ),
    refused(
        "a value, then an object",
        {"instances": [[1, 2], {"images": [1, 2]}]},
        "Expecting value/list but got object at item 1 of input list",
    ),
    refused(
        "rows of two sizes",
        {"instances": [[1, 2], [3]]},
        element("Expecting tensor size: 2 but got: 1", 1),
    ),
    refused(
        "rows of two shapes",
        {"instances": [[[1, 2]], [[1], [2]]]},
        element("Expecting shape [1,2] but got: [2,1]", 1),
    ),
    refused(
        "ragged columns",
        {"inputs": [[1, 2], [3]]},
        "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
    ),
    refused("a list among values", {"inputs": [1, [2]]}, "Encountered list at unexpected level: 1 expected < 1"),
    refused(
        "a value among lists",
        {"inputs": [[1], 2]},
        "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
    ),
    refused("null for a float", {"inputs": [[1, None]]}, mistyped("null", "Null", "float")),
    refused("true for a float", {"inputs": [[1, True]]}, mistyped("true", "True", "float")),
    refused(
        "an object for a float",
        {"inputs": [[1, {"a": 1}]]},
        mistyped('{"a": 1}', "Object", "float"),
    ),
    refused("1 for a bool", columns("echo_bool", [1]), mistyped("1", "Number", "bool")),
    refused("1 for a string", columns("echo_string", [1]), mistyped("1", "Number", "string")),
    refused("an object for a string", columns("echo_string", [{"b64": 1}]), "not formatted correctly for base64 data"),
    refused(
        "an int32 beyond",
        columns("echo_int32", [2**31]),
        mistyped("2147483648", "Number", "int32"),
    ),
    refused(
        "an int64 beyond",
        columns("echo_int64", [2**63]),
        mistyped("9223372036854775808", "Number", "int64"),
    ),
    refused(
        "a uint32 beyond",
        columns("echo_uint32", [2**32]),
        mistyped("4294967296", "Number", "uint32"),
    ),
    refused("a negative uint64", columns("echo_uint64", [-1]), mistyped("-1", "Number", "uint64")),
    refused(
        "an integer beyond 128 bits", columns("echo_uint64", [2**200]), "Type: Number is not of expected type: uint64"
    ),
    refused(
        "an integer that a float rounds",
        {"inputs": [[1, 2**24 + 1]]},
        "Cannot convert JSON value: 16777217 to float without loss of precision.",
    ),
    refused(
        "an integer that a double rounds",
        columns("echo_float64", [2**53 + 1]),
        "Cannot convert JSON value: 9007199254740993 to double without loss of precision.",
    ),
    refused(
        "a float beyond",
        {"inputs": [[1, 1e39]]},
        "Cannot convert JSON value: 1e+39 to float without loss of precision.",
    ),
    refused("half cannot be read", columns("echo_half", [1]), "Conversion of JSON Value: 1 to type: half", 501),
    refused("uint16 cannot be read", columns("echo_uint16", [1]), "Conversion of JSON Value: 1 to type: uint16", 501),
    refused(
        "half in rows",
        rows("echo_half", 1),
        element("Conversion of JSON Value: 1 to type: half", code="UNIMPLEMENTED"),
    ),
    refused("outputs of two lengths in rows", rows("flat", [1, 2]), "has inconsistent batch size"),
    refused("an assertion in the graph", rows("checked", -1), "x must be positive"),
]

DIFFERENT = [
    Case(
        "Inf for short",
        '{"signature_name": "echo_float32", "inputs": [Inf, -Inf]}',
        200,
        {"outputs": [float("inf"), float("-inf")]},
        ours=Ours("Infinity is read in full, as both servers write it", 400, "JSON Parse error: Invalid value."),
    ),
    Case(
        "deeply nested",
        "[" * 20_000,
        DIES,
        ours=Ours(DEEP, 400),
    ),
    Case(
        "deeply nested value",
        '{"inputs": ' + "[" * 20_000 + "]" * 20_000 + "}",
        DIES,
        ours=Ours(DEEP, 400),
    ),
    Case(
        "wrong rank for a convolution",
        rows("conv", [1, 2]),
        DIES,
        ours=Ours(REFUSED, 400, "input 'pictures' is float32 [1, 2], expected float32 [B, 8, 8, 1]"),
    ),
    Case(
        "no rows for a convolution",
        columns("conv", []),
        DIES,
        ours=Ours(REFUSED, 400, "input 'pictures' is float32 [0], expected float32 [B, 8, 8, 1]"),
    ),
    Case(
        "wrong side",
        {"inputs": [[1, 2, 3]]},
        200,
        {"outputs": [[2.0, 4.0, 6.0]]},
        ours=Ours(REFUSED, 400, "input 'images' is float32 [1, 3], expected float32 [B, 2]"),
    ),
    Case("a row for a scalar", rows("scalar", 1), 200, {"predictions": [2.0]}, ours=Ours(REFUSED, 400, "input 'x'")),
    Case(
        "one base64 for a batch",
        columns("echo_string", {"b64": "aGk="}),
        200,
        {"outputs": "hi"},
        ours=Ours(REFUSED, 400, "input 'x' is string []"),
    ),
    Case(
        "an int8 beyond",
        columns("echo_int8", [300]),
        200,
        {"outputs": [44]},
        ours=Ours(BEYOND, 400, mistyped("300", "Number", "int8")),
    ),
    Case(
        "a negative uint8",
        columns("echo_uint8", [-1]),
        200,
        {"outputs": [255]},
        ours=Ours(BEYOND, 400, mistyped("-1", "Number", "uint8")),
    ),
]
