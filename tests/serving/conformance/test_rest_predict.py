"""POST :predict, REST: the tables of `predict_answers` and `predict_refusals`, and what no table holds."""

import gzip
import http.client
import json

import numpy as np
import pytest

from tests.serving.conformance.cases import canonical, check, parametrize
from tests.serving.conformance.predict_answers import (
    ADDRESSED,
    ANSWERED,
    DOUBLED,
    PICTURES,
    VALUES,
    columns,
    rows,
)
from tests.serving.conformance.predict_refusals import DIFFERENT, MEASURED, READ


@parametrize(ANSWERED, VALUES, ADDRESSED, MEASURED, READ, DIFFERENT)
def test_a_prediction_is_answered_as_the_real_server_does(server, case):
    check(server, case)


def test_every_difference_from_the_real_server_says_why():
    tables = [*ANSWERED, *VALUES, *ADDRESSED, *MEASURED, *READ, *DIFFERENT]
    assert all(case.ours for case in DIFFERENT)
    assert all(len(case.ours.reason.split()) > 5 for case in tables if case.ours)
    assert len({case.name for case in tables}) == len(tables)


def test_errors_name_no_nodes_of_the_graph(server):
    """The real server quotes them: {{function_node __inference_...}}."""
    for body in (rows("decode", {"b64": "aGk="}), rows("checked", -1)):
        answer = server.ask("POST", "/v1/models/multi:predict", json.dumps(body))
        assert answer.status == 400
        leaked = [word for word in ("{{", "[[", "_node", "__inference", "Call") if word in answer.json["error"]]
        assert server.real or not leaked


def test_a_version_beyond_int64_is_refused_with_words(server):
    """The real server answers it with an empty body."""
    answer = server.ask("POST", "/v1/models/multi/versions/99999999999999999999:predict", json.dumps(PICTURES))
    assert answer.status == 400
    assert answer.body == b"" if server.real else "99999999999999999999" in answer.json["error"]


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_a_body_may_be_compressed(server, encoding):
    body = json.dumps(PICTURES).encode()
    headers = {"Content-Encoding": encoding, "Content-Type": "text/plain"}
    answer = server.ask(
        "POST", "/v1/models/multi:predict", gzip.compress(body) if encoding == "gzip" else body, headers
    )
    assert canonical(answer.json) == canonical(DOUBLED)


def test_a_body_that_is_not_the_gzip_it_claims_to_be_is_refused(server):
    headers = {"Content-Encoding": "gzip"}
    answer = server.ask("POST", "/v1/models/multi:predict", json.dumps(PICTURES), headers)
    assert answer.status == 400


def test_a_body_may_come_in_chunks(server):
    pieces = [piece.encode() for piece in json.dumps(PICTURES).partition("[")]
    assert canonical(server.ask("POST", "/v1/models/multi:predict", iter(pieces)).json) == canonical(DOUBLED)


def test_a_connection_takes_one_request_after_the_other(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=10)
    sockets = set()
    for body, status in ((json.dumps(PICTURES), 200), ("hello", 400), (json.dumps(PICTURES), 200)):
        connection.request("POST", "/v1/models/multi:predict", body)
        sockets.add(connection.sock)
        response = connection.getresponse()
        assert (response.status, bool(response.read())) == (status, True)
    connection.close()
    assert len(sockets) == 1


def test_floats_come_back_to_the_last_bit(server):
    values = np.random.default_rng(5).standard_normal(200).astype(np.float32)
    values[:6] = [3e-45, 1e-38, 3.4e38, 9e6, 16777216, 0.1]
    body = json.dumps({"signature_name": "echo_float32", "inputs": [float(str(value)) for value in values]})
    received = server.ask("POST", "/v1/models/multi:predict", body).json["outputs"]
    np.testing.assert_array_equal(np.array(received, np.float32), values)
    doubles = values.astype(np.float64) / 3
    body = json.dumps({"signature_name": "echo_float64", "inputs": doubles.tolist()})
    assert server.ask("POST", "/v1/models/multi:predict", body).json["outputs"] == doubles.tolist()


def test_answers_are_those_of_the_model_in_this_process(server, saved):
    """Of version 2, over REST; what differs is kernels, not numbers."""
    from dmkeras.serving import runtime

    images = np.random.default_rng(6).random((5, 2), np.float32)
    pictures = np.random.default_rng(7).random((3, 8, 8, 1), np.float32)
    with runtime.Loaded(saved / "2") as loaded:
        for signature, feed in (("serving_default", {"images": images}), ("conv", {"pictures": pictures})):
            body = columns(signature, {name: array.tolist() for name, array in feed.items()})
            answer = server.ask("POST", "/v1/models/multi:predict", json.dumps(body))
            (expected,) = loaded.run(signature, feed).values()
            np.testing.assert_allclose(answer.json["outputs"], expected, rtol=1e-5)
