"""GET: status, metadata, metrics; and the methods and paths that are none. Measured, unless a name says "read"."""

import json
import urllib.parse

import pytest
from google.protobuf import json_format
from prometheus_client import parser
from tensorflow_serving.apis import get_model_metadata_pb2

from tests.serving.conformance.cases import Case, check, parametrize
from tests.serving.conformance.conftest import UNICODE
from tests.serving.conformance.process import METRICS
from tests.serving.conformance.protos import signature_defs

FINE = {"error_code": "OK", "error_message": ""}
STATES = [{"version": str(version), "state": "AVAILABLE", "status": FINE} for version in (1, 2)]


def get(path, status, expected=None, name=None, **options):
    return Case(name or f"GET {path}", None, status, expected, path, "GET", **options)


def malformed(method, path):
    body = "{}" if method in ("POST", "PUT") else None
    return Case(f"{method} {path}", body, 400, f"Malformed request: {method} {path}", path, method)


STATUS = [
    get("/v1/models/multi", 200, {"model_version_status": STATES[::-1]}),
    get("/v1/models/multi/versions/1", 200, {"model_version_status": STATES[:1]}),
    get("/v1/models/none", 404, "Could not find any versions of model none"),
    get("/v1/models/multi/versions/7", 404, "Could not find version 7 of model multi"),
    get("/v1/models/none/versions/7", 404, "Could not find version 7 of model none"),
    get("/v1/models", 400, "Missing model name in request."),
    get("/v1/models/metadata", 404, "Could not find any versions of model metadata"),
    get("/v1/models/versions/1", 400, "Missing model name in request."),
    get("/v1/models/none/metadata", 404, "Servable not found for request: Latest(none)"),
    get("/v1/models/multi/versions/7/metadata", 404, "Servable not found for request: Specific(multi, 7)"),
    get("/v1/models/multi/labels/none/metadata", 400, "Unrecognized servable version label: none"),
    get("/v1/models/multi/versions/99999999999999999999", 400, None),
    get("/V1/MODELS/multi", 200, {"model_version_status": STATES[::-1]}),
    get("/v1/models/multi?x=1", 404, "Could not find any versions of model multi?x=1"),
]

MALFORMED = [
    malformed("GET", "/v1/models/multi:predict"),
    malformed("PUT", "/v1/models/multi:predict"),
    malformed("DELETE", "/v1/models/multi:predict"),
    malformed("DELETE", "/v1/models/multi"),
    malformed("POST", "/v1/models/multi"),
    malformed("POST", "/v1/models"),
    malformed("GET", "/v1/models/"),
    malformed("GET", "/v1/models/multi/"),
    malformed("GET", "/v1/models/multi/versions/x"),
    malformed("GET", "/v1/models/multi/versions/"),
    malformed("GET", "/v1/models/multi/metadata/"),
    malformed("GET", "/v1/nonsense"),
]


METRICS_READ = [  # names, types and labels of servables/tensorflow/util.cc
    ("request_count", "counter", {"model_name": "multi", "status": "OK"}),
    ("request_latency", "histogram", {"model_name": "multi", "API": "Predict", "entrypoint": "REST"}),
    ("runtime_latency", "histogram", {"model_name": "multi", "API": "Predict"}),
]


@parametrize(STATUS, MALFORMED)
def test_a_route_is_answered_as_the_real_server_does(server, case):
    check(server, case)


def test_a_model_in_unicode_has_a_status(server):
    answer = server.ask("GET", f"/v1/models/{urllib.parse.quote(UNICODE)}")
    assert [version["state"] for version in answer.json["model_version_status"]] == ["AVAILABLE"] * 2


def test_the_status_of_a_label_is_that_of_its_version(server):
    """As api_rest.md has it. The real server's get_model_status_impl.cc overlooks the label and tells every version."""
    answer = server.ask("GET", "/v1/models/multi/labels/stable").json
    assert answer == {"model_version_status": STATES[::-1] if server.real else STATES[:1]}


@pytest.mark.parametrize("path", ["", "/versions/1", "/labels/stable"])
def test_metadata_are_the_signature_defs(server, saved, path):
    answer = server.ask("GET", f"/v1/models/multi{path}/metadata").json
    version = "1" if path else "2"
    assert answer["model_spec"] == {"name": "multi", "version": version, "signature_name": ""}
    assert list(answer) == ["model_spec", "metadata"]
    received = answer["metadata"]["signature_def"]
    assert received["signature_def"]["serving_default"]["inputs"]["images"]["tensor_shape"] == {
        "dim": [{"size": "-1", "name": ""}, {"size": "2", "name": ""}],
        "unknown_rank": False,
    }
    expected = get_model_metadata_pb2.SignatureDefMap(signature_def=signature_defs(server, saved / version))
    for definition in received["signature_def"].values():
        definition.pop("defaults", None)
    assert json_format.ParseDict(received, get_model_metadata_pb2.SignatureDefMap()) == expected


def test_a_status_may_be_asked_with_a_body(server):
    assert server.ask("GET", "/v1/models/multi/versions/1", "{}").json == {"model_version_status": STATES[:1]}


def test_head_is_malformed_and_has_no_body(server):
    answer = server.ask("HEAD", "/v1/models/multi")
    assert (answer.status, answer.body) == (400, b"")


@pytest.mark.parametrize(
    ("headers", "status"), [({}, 400), ({"Origin": "http://localhost"}, 200)], ids=["bare", "preflight"]
)
def test_options_are_empty(server, headers, status):
    answer = server.ask("OPTIONS", "/v1/models/multi:predict", headers=headers)
    assert (answer.status, answer.body) == (status, b"")


@pytest.mark.parametrize("path", ["/", "/v2/models/multi", "/index.html", "/v1"])
def test_another_path_is_not_found_as_a_page(server, path):
    answer = server.ask("GET", path)
    assert answer.status == 404
    assert b"<H1>Not Found</H1>" in answer.body
    assert answer.headers["Content-Type"].startswith("text/html")


def test_errors_are_json(server):
    answer = server.ask("GET", "/v1/models/none")
    assert answer.headers["Content-Type"] == "application/json"
    assert int(answer.headers["Content-Length"]) == len(answer.body)


def test_the_metrics_have_the_real_names(server):
    body = json.dumps({"instances": [[1, 2]]})
    for path in ("multi", "none"):
        server.ask("POST", f"/v1/models/{path}:predict", body)
    answer = server.ask("GET", METRICS)
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    families = {family.name: family for family in parser.text_string_to_metric_families(answer.body.decode())}
    for name, kind, labels in METRICS_READ:
        assert families[f":tensorflow:serving:{name}"].type == kind
        samples = [sample.labels for sample in families[f":tensorflow:serving:{name}"].samples]
        assert any(labels.items() <= found.items() for found in samples), (name, samples[:3])
    unknown = {sample.labels["model_name"] for sample in families[":tensorflow:serving:request_count"].samples}
    assert ("none" in unknown) == server.real  # else callers could make series without end
