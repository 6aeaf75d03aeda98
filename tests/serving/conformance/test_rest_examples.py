"""POST :classify and :regress. Texts read in classifier.cc, regressor.cc and json_tensor.cc; `results` is measured.

`classify` answers the feature `x` times the version as the scores of cat and dog; `regress` its sum, plus `count`, plus
the length of `name`.
"""

from tests.serving.conformance.cases import Case, check, parametrize

CLASSIFY, REGRESS = "/v1/models/multi:classify", "/v1/models/multi:regress"
X = {"x": [0.5, 1.5]}


def classify(name, body, status, expected, signature="classify", **options):
    body = {"signature_name": signature} | body if signature and isinstance(body, dict) else body
    return Case(name, body, status, expected, **({"path": CLASSIFY} | options))


def regress(name, body, status, expected, signature="regress", **options):
    return Case(f"regress: {name}", {"signature_name": signature} | body, status, expected, REGRESS, **options)


def examples(*listed):
    return {"examples": list(listed)}


ANSWERED = [
    classify(
        "classes and scores",
        examples(X, {"x": [2.0, 2.0]}),
        200,
        {"results": [[["cat", 1.0], ["dog", 3.0]], [["cat", 4.0], ["dog", 4.0]]]},
    ),
    classify("scores alone", examples(X), 200, {"results": [[["", 1.0], ["", 3.0]]]}, "classify_scores"),
    classify("classes alone", examples(X), 200, {"results": [[["cat", 0.0], ["dog", 0.0]]]}, "classify_classes"),
    regress("a value", examples(X, X), 200, {"results": [4.0, 4.0]}),
    regress("a column of values", examples(X), 200, {"results": [4.0]}, "regress_column"),
    regress("features of every kind", examples(X | {"count": 3, "name": "hi"}), 200, {"results": [9.0]}),
    regress("a list of one", examples(X | {"count": [3]}), 200, {"results": [7.0]}),
    regress("true counts as 1", examples(X | {"count": True}), 200, {"results": [5.0]}),
    regress("base64", examples(X | {"name": {"b64": "aGk="}}), 200, {"results": [6.0]}),
    regress("features that nobody reads", examples(X | {"bogus": "?"}), 200, {"results": [4.0]}),
    regress("context", {"context": {"count": 3}} | examples(X, X), 200, {"results": [7.0, 7.0]}),
    regress(
        "a feature overrides the context",
        {"context": {"count": 3}} | examples(X | {"count": 1}),
        200,
        {"results": [5.0]},
    ),
]

REFUSED = [
    classify(
        "unknown model",
        examples(X),
        404,
        "Servable not found for request: Latest(none)",
        path="/v1/models/none:classify",
    ),
    classify("unknown signature", examples(X), 400, "No signature was found with the name: zzz", "zzz"),
    classify("two inputs", examples(X), 400, "Expected one input Tensor.", "scaled"),
    classify(
        "outputs of another name",
        examples(X),
        400,
        'Expected classification signature outputs to contain at least one of "classes" or "scores". Signature was: ',
        "regress",
    ),
    classify("an input of another name", examples(X), 400, "No classification inputs found in SignatureDef: ", None),
    regress("two outputs", examples(X), 400, "Expected one output Tensor.", "classify"),
    regress(
        "an input of another name", examples(X), 400, "No regression inputs found in SignatureDef: ", "serving_default"
    ),
    regress(
        "an output of another name",
        examples(X),
        400,
        "No regression outputs found in SignatureDef: ",
        "classify_scores",
    ),
    classify("not JSON", "hello", 400, "JSON Parse error: Invalid value. at offset: 0"),
    classify("no examples", {}, 400, "When method is classify, key 'examples' is expected and was not found"),
    classify("examples that are no list", {"examples": X}, 400, "Expecting 'examples' value to be an list/array"),
    classify("an empty list", examples(), 400, "'examples' value is an empty array"),
    classify("an example that is a number", examples(1), 400, "Example must be JSON object but got JSON Number"),
    classify(
        "a context that is a number",
        {"context": 1} | examples(X),
        400,
        "Example must be JSON object but got JSON Number",
    ),
    classify(
        "mixed kinds", examples({"x": [0.5, 1]}), 400, "Unexpected element type in feature: x expecting type: float"
    ),
    classify("null", examples({"x": None}), 400, "Feature: x has element with unexpected JSON type: Null"),
    classify(
        "a list in a list", examples({"x": [[1.5]]}), 400, "Feature: x has element with unexpected JSON type: Array"
    ),
    classify("an object", examples({"x": {"a": 1}}), 400, "Feature: x has element with unexpected JSON type: Object"),
    classify("no base64", examples(X | {"name": {"b64": "%"}}), 400, "Unable to base64 decode"),
    classify("a uint64", examples({"x": [2**64 - 1]}), 400, "Feature: x has uint64 element. Only int64 is supported."),
    classify(
        "a float beyond",
        examples({"x": [1e39]}),
        400,
        "Cannot convert JSON value: 1e+39 to float without loss of precision.",
    ),
    classify(
        "a feature that is missing",
        examples({"count": 1}),
        400,
        "Feature: x (data type: float) is required but could not be found.",
    ),
    classify("a feature of another type", examples({"x": [1, 2]}), 400, "Data types don't match."),
]


@parametrize(ANSWERED, REFUSED)
def test_examples_are_answered_as_the_real_server_does(server, case):
    check(server, case)


def test_a_signature_is_described_without_nodes_of_the_graph(server):
    """The real server quotes the whole SignatureDef, node names and all."""
    case = next(case for case in REFUSED if case.name == "an input of another name")
    answer = check(server, case)
    assert server.real or "images" in answer.json["error"]
    assert server.real or ":0" not in answer.json["error"]
