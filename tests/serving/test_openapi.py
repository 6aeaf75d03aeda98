import json
import types

import pytest

from dmkeras.serving.embedded import openapi
from dmkeras.serving.errors import ServingError
from dmkeras.serving.model_card import Tensor
from tests.serving.stub import Stub

IMAGE = Tensor("image", "float32", (None, 2, 3))
SCORES = Tensor("scores", "float32", (None, 2))
EXAMPLES = Tensor("inputs", "string", (None,))


def described(signatures=None, **options):
    stub = Stub()
    if signatures:
        stub.loaded.signatures = {
            name: types.SimpleNamespace(inputs=inputs, outputs=outputs)
            for name, (inputs, outputs) in signatures.items()
        }
    return json.loads(openapi.text(stub, **options))


def requests(description, verb="predict"):
    operation = description["paths"][f"/v1/models/m:{verb}"]["post"]
    return operation["requestBody"]["content"]["application/json"]["schema"]["anyOf"]


def test_every_operation_of_a_loaded_model_is_described():
    description = described()
    assert description["openapi"].startswith("3.1")
    assert set(description["paths"]) == {
        "/livez",
        "/readyz",
        "/v1/models/m",
        "/v1/models/m/metadata",
        "/v1/models/m:predict",
    }
    for operations in description["paths"].values():
        for operation in operations.values():
            assert "200" in operation["responses"]
    responses = description["paths"]["/v1/models/m:predict"]["post"]["responses"]
    assert {"400", "404", "413", "429", "503", "504"} < set(responses)
    assert responses["400"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Error"}


def test_a_signature_has_its_tensors_with_their_sides_by_rows_and_by_columns():
    rows, columns = requests(described({"look": ([IMAGE], [SCORES])}))
    assert rows["required"] == ["signature_name", "instances"]
    assert rows["properties"]["signature_name"] == {"const": "look"}
    bare, named = rows["properties"]["instances"]["anyOf"]
    row = bare["items"]
    assert (row["minItems"], row["maxItems"]) == (2, 2)
    assert (row["items"]["minItems"], row["items"]["maxItems"]) == (3, 3)
    assert row["items"]["items"]["type"] == "number"
    assert named["items"]["properties"] == {"image": row}
    assert columns["properties"]["inputs"]["anyOf"][0]["items"] == row


def test_the_default_signature_needs_no_name_and_several_inputs_do():
    rows, _ = requests(described({"serving_default": ([IMAGE, EXAMPLES], [SCORES])}))
    assert rows["required"] == ["instances"]
    (named,) = rows["properties"]["instances"]["anyOf"]
    assert named["items"]["required"] == ["image", "inputs"]


def test_a_scalar_input_has_no_rows():
    (columns,) = requests(described({"a": ([Tensor("x", "int32", ())], [SCORES])}))
    assert "inputs" in columns["properties"]


@pytest.mark.parametrize(
    ("outputs", "verb"), [([SCORES], "classify"), ([Tensor("outputs", "float32", (None,))], "regress")]
)
def test_examples_are_asked_for_where_a_signature_takes_them(outputs, verb):
    description = described({"a": ([EXAMPLES], outputs), "b": ([IMAGE], outputs)})
    (request,) = requests(description, verb)
    assert request["properties"]["signature_name"] == {"const": "a"}
    assert request["required"] == ["signature_name", "examples"]


def test_what_json_cannot_carry_is_not_described():
    half = Tensor("y", "float16", (None,))
    description = described({"a": ([IMAGE], [half]), "b": ([half], [SCORES]), "c": ([IMAGE], [SCORES])})
    named = {request["properties"]["signature_name"]["const"] for request in requests(description)}
    assert named == {"c"}
    assert "/v1/models/m:predict" not in described({"a": ([IMAGE], [half])})["paths"]


def test_a_model_that_does_not_answer_is_not_described():
    class Empty(Stub):
        def use(self, name, version=None, label=None):
            raise ServingError("NOT_FOUND", "gone")

    assert set(json.loads(openapi.text(Empty()))["paths"]) == {"/livez", "/readyz"}


def test_a_secured_server_says_so():
    description = described(secured=True)
    assert description["security"] == [{"token": []}]
    assert description["paths"]["/livez"]["get"]["security"] == []
    assert "401" in description["paths"]["/v1/models/m"]["get"]["responses"]
    assert "security" not in described()
