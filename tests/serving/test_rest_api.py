import json
import logging

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import classification_pb2, input_pb2, regression_pb2

from dmkeras.serving.embedded import rest_api, rest_examples
from dmkeras.serving.errors import RequestError, ServingError
from tests.serving.stub import Stub, raising

PREDICT = "/v1/models/m:predict"


def ask(method, path, body=b"", servables=None):
    answer = rest_api.handle(method, path, body, servables or Stub())
    return answer.status, json.loads(answer.body), answer.names


def test_rows_are_answered_by_rows_and_columns_by_columns():
    assert ask("POST", PREDICT, b'{"instances": [1, 2.5]}')[:2] == (200, {"predictions": [2.0, 5.0]})
    assert ask("POST", PREDICT, b'{"inputs": [1, 2.5]}')[:2] == (200, {"outputs": [2.0, 5.0]})


@pytest.mark.parametrize(
    "path",
    ["/v1/models/m:predict", "/V1/Models/m:predict", "/v1/models/%6d:predict", "/v1/models/m/versions/0003:predict"],
)
def test_a_path_is_blind_to_case_percents_and_zeros(path):
    assert ask("POST", path, b'{"instances": [1]}')[0] == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", PREDICT),
        ("PUT", PREDICT),
        ("DELETE", "/v1/models/m"),
        ("HEAD", "/v1/models/m"),
        ("POST", "/v1/models/m"),
        ("POST", "/v1/models/m:explain"),
        ("POST", "/v1/models/m:PREDICT"),
        ("POST", PREDICT + "?x=1"),
        ("POST", "/v1/models/m/versions/-1:predict"),
        ("POST", "/v1/models/m/versions/1/labels/a:predict"),
        ("GET", "/v1/models/m/"),
        ("GET", "/v1/models/a/b"),
        ("GET", "/v1/"),
    ],
)
def test_what_matches_no_route_is_told_what_it_was(method, path):
    status, body, names = ask(method, path, b"{}")
    assert (status, body) == (400, {"error": f"Malformed request: {method} {path}"})
    assert names.api == ""


def test_a_path_outside_of_the_api_is_a_page_that_was_not_found():
    answer = rest_api.handle("GET", "/index.html", b"", Stub())
    assert (answer.status, answer.content_type) == (404, "text/html")
    assert b"<H1>Not Found</H1>" in answer.body


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("POST", "/v1/models/none:predict", 404, "Servable not found for request: Latest(none)"),
        ("POST", "/v1/models/m/versions/9:predict", 404, "Servable not found for request: Specific(m, 9)"),
        ("POST", "/v1/models/..%2F..%2Fetc:predict", 404, "Servable not found for request: Latest(../../etc)"),
        ("POST", "/v1/models/%FF:predict", 404, "Servable not found for request: Latest(?)"),
        ("POST", "/v1/models/gr%C3%B6%C3%9Fe:predict", 404, "Servable not found for request: Latest(größe)"),
        ("POST", "/v1/models/m/versions/9223372036854775808:predict", 400, "Failed to convert version: "),
        ("GET", "/v1/models/m/versions/" + "0" * 5000 + "9" * 20, 400, "Failed to convert version: "),
        ("GET", "/v1/models", 400, "Missing model name in request."),
        ("GET", "/v1/models/none", 404, "Could not find any versions of model none"),
        ("GET", "/v1/models/none/metadata", 404, "Servable not found for request: Latest(none)"),
    ],
)
def test_who_is_not_there_is_named(method, path, status, message):
    received, body, _ = ask(method, path, b'{"instances": [1]}')
    assert received == status
    assert body["error"].startswith(message)


def test_a_body_is_read_before_its_model_is_looked_up():
    status, body, _ = ask("POST", "/v1/models/none:predict", b"hello")
    assert (status, body["error"]) == (400, "JSON Parse error: Invalid value. at offset: 0")


def test_a_signature_that_is_not_there_is_named():
    status, body, names = ask("POST", PREDICT, b'{"signature_name": "zzz", "instances": [1]}')
    assert (status, body["error"]) == (400, 'Serving signature name: "zzz" not found in signature def')
    assert (names.signature, names.version) == ("zzz", 3)


def test_an_error_repeats_only_the_beginning_of_what_was_sent():
    body = json.dumps({"signature_name": "z" * 100_000, "instances": [1]}).encode()
    status, answer, _ = ask("POST", PREDICT, body)
    assert status == 400
    assert answer["error"].startswith('Serving signature name: "zzz')
    assert len(answer["error"]) < 2100


def test_the_status_has_its_versions_as_strings():
    assert ask("GET", "/v1/models/m/versions/3")[1] == {
        "model_version_status": [
            {"version": "3", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]
    }


def test_metadata_print_int64_as_strings_and_what_is_unset():
    stub = Stub()
    definition = meta_graph_pb2.SignatureDef(method_name="tensorflow/serving/predict")
    definition.inputs["x"].dtype = tf.float32.as_datatype_enum
    definition.inputs["x"].tensor_shape.dim.add(size=-1)
    stub.loaded.definitions = {"serving_default": definition}
    status, body, names = ask("GET", "/v1/models/m/metadata", servables=stub)
    assert (status, names.api, names.version) == (200, "GetModelMetadata", 3)
    assert body["model_spec"] == {"name": "m", "signature_name": "", "version": "3"}
    (signature,) = body["metadata"]["signature_def"]["signature_def"].values()
    tensor = signature["inputs"]["x"]
    assert tensor["dtype"] == "DT_FLOAT"
    assert tensor["tensor_shape"] == {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
    assert signature["outputs"] == {}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RequestError("x is wrong"), 400),
        (ServingError("DEADLINE_EXCEEDED", "late"), 504),
        (ServingError("UNIMPLEMENTED", "no"), 501),
        (ServingError("DATA_LOSS", "lost"), 500),
    ],
)
def test_an_error_of_the_model_keeps_its_words_and_its_code(error, status):
    received, body, names = ask("POST", PREDICT, b'{"instances": [1]}', Stub(serving_default=raising(error)))
    assert (received, body, names.code) == (status, {"error": str(error)}, error.code)


def test_a_fault_of_ours_is_told_to_the_log_alone(caplog):
    stub = Stub(serving_default=raising(KeyError("/secret/path")))
    with caplog.at_level(logging.ERROR):
        status, body, names = ask("POST", PREDICT, b'{"instances": [1]}', stub)
    assert (status, names.code) == (500, "INTERNAL")
    assert "secret" not in body["error"]
    assert "/secret/path" in caplog.text


def test_names_tell_what_was_asked():
    _, _, names = ask("POST", PREDICT, b'{"signature_name": "serving_default", "instances": [1, 2]}')
    assert (names.api, names.model, names.version, names.signature) == ("Predict", "m", 3, "serving_default")
    assert (names.code, names.rows) == ("OK", 2)
    assert names.run_seconds >= 0


def test_every_error_is_json_whatever_was_in_the_request():
    for body in (b'{"signature_name": "\\ud800", "inputs": [1]}', b'{"signature_name": "\xff", "inputs": [1]}'):
        status, answer, _ = ask("POST", PREDICT, body)
        assert status == 400
        assert "not found" in answer["error"]


def examples(body):
    received = input_pb2.Input()
    rest_examples.fill(received, body)
    return received


def test_features_have_the_kind_of_their_values():
    body = {
        "examples": [
            {"names": ["foo", {"b64": "aGk="}], "ratings": [8.0, 9.5], "age": 20, "flags": [1, True, False]},
            {"ratings": 6.0, "none": []},
        ]
    }
    first, second = examples(body).example_list.examples
    assert list(first.features.feature["names"].bytes_list.value) == [b"foo", b"hi"]
    assert list(first.features.feature["ratings"].float_list.value) == [8.0, 9.5]
    assert list(first.features.feature["age"].int64_list.value) == [20]
    assert list(first.features.feature["flags"].int64_list.value) == [1, 1, 0]
    assert second.features.feature["none"].WhichOneof("kind") is None


def test_a_context_goes_beside_its_examples():
    received = examples({"context": {"query": "pizza"}, "examples": [{"x": 1}]})
    assert received.WhichOneof("kind") == "example_list_with_context"
    context = received.example_list_with_context.context
    assert list(context.features.feature["query"].bytes_list.value) == [b"pizza"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "When method is classify, key 'examples' is expected and was not found"),
        ({"examples": {}}, "Expecting 'examples' value to be an list/array"),
        ({"examples": []}, "'examples' value is an empty array"),
        ({"examples": [[1]]}, "Example must be JSON object but got JSON Array"),
        ({"context": [1], "examples": [{}]}, "Example must be JSON object but got JSON Array"),
        ({"examples": [{"a": [10, None]}]}, "Feature: a has element with unexpected JSON type: Null"),
        ({"examples": [{"a": [10, {"t": 10}]}]}, "Feature: a has element with unexpected JSON type: Object"),
        ({"examples": [{"a": [[10], 20]}]}, "Feature: a has element with unexpected JSON type: Array"),
        ({"examples": [{"a": [10, 10.0]}]}, "Unexpected element type in feature: a expecting type: int64"),
        ({"examples": [{"a": [2**64 - 13]}]}, "Feature: a has uint64 element. Only int64 is supported."),
        ({"examples": [{"a": 1e300}]}, "to float without loss of precision."),
        ({"examples": [{"a": {"b64": "*"}}]}, "Unable to base64 decode"),
    ],
)
def test_examples_that_cannot_be_read_are_told_why(body, message):
    with pytest.raises(RequestError) as raised:
        examples(body)
    assert message in str(raised.value)


def test_results_are_labels_with_scores_or_values():
    row = [classification_pb2.Class(label="car", score=0.2), classification_pb2.Class(label="bus", score=0.1)]
    result = classification_pb2.ClassificationResult(classifications=[{"classes": row}, {}])
    assert rest_examples.classified(result) == {"results": [[["car", 0.2], ["bus", 0.1]], []]}
    values = [0.2, np.inf, 1.0]
    result = regression_pb2.RegressionResult(regressions=[{"value": value} for value in values])
    assert rest_examples.regressed(result) == {"results": values}
