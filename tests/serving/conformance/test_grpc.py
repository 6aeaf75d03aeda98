"""PredictionService, ModelService, health. Measured: codes and texts of the contract's table; read: the rest."""

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    input_pb2,
)

from tests.serving import multi
from tests.serving.conformance import protos
from tests.serving.conformance.cases import parametrize
from tests.serving.conformance.grpc_refusals import REFUSALS
from tests.serving.conformance.protos import FLOAT, PICTURES, X, signature_defs


def refusal(call, request, timeout=30):
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=timeout)
    return caught.value.code().name, caught.value.details()


@parametrize(REFUSALS)
def test_a_request_is_refused_as_the_real_server_does_and_the_next_is_answered(server, case):
    code, text = case.answer_of(server)
    call = getattr(server.prediction, case.path, None) or getattr(server.models, case.path)
    if code == "OK":
        assert call(case.body, timeout=30)
    else:
        received, details = refusal(call, case.body)
        assert received == code, details
        assert text in details
    response = server.prediction.Predict(protos.predict(PICTURES, label="stable"), timeout=30)
    assert response.model_spec.version.value == 1


@pytest.mark.parametrize(
    ("where", "version"),
    [({}, 2), ({"version": 1}, 1), ({"label": "stable"}, 1), ({"signature": "serving_default"}, 2)],
    ids=["latest", "version", "label", "signature"],
)
def test_the_answer_says_which_version_and_signature_it_is_of(server, where, version):
    response = server.prediction.Predict(protos.predict(PICTURES, **where), timeout=30)
    assert response.model_spec == protos.spec(version=version, signature="serving_default")
    np.testing.assert_array_equal(tf.make_ndarray(response.outputs["scores"]), version * PICTURES["images"])


@pytest.mark.parametrize("dtype", multi.ECHOES)
def test_every_dtype_passes(server, dtype):
    values = (
        np.array([b"a", b"\x00\xff"], object)
        if dtype == "string"
        else np.array([1, 0, 1], tf.as_dtype(dtype).as_numpy_dtype)
    )
    response = server.prediction.Predict(protos.predict({"x": values}, signature=f"echo_{dtype}"), timeout=30)
    received = tf.make_ndarray(response.outputs["y"])
    assert received.dtype == values.dtype
    assert received.tolist() == values.tolist()


SPELLINGS = {
    "content": protos.tensor(FLOAT, [1, 2], tensor_content=np.array([1, 2], np.float32).tobytes()),
    "values": protos.tensor(FLOAT, [1, 2], float_val=[1, 2]),
    "a value for all": protos.tensor(FLOAT, [3, 2], float_val=[4]),
    "no rows": protos.tensor(FLOAT, [0, 2]),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_tensor_may_be_spelled_in_every_way(server, spelling):
    response = server.prediction.Predict(protos.predict({"images": SPELLINGS[spelling]}), timeout=30)
    expected = 2 * tf.make_ndarray(SPELLINGS[spelling])
    received = tf.make_ndarray(response.outputs["scores"])
    assert received.shape == expected.shape
    np.testing.assert_array_equal(received, expected)


def test_an_output_filter_leaves_out_the_rest(server):
    feed = PICTURES | {"temperature": np.array([2], np.float32)}
    response = server.prediction.Predict(protos.predict(feed, ["mean"], signature="scaled"), timeout=30)
    assert list(response.outputs) == ["mean"]


def test_an_input_with_a_default_may_be_left_out(server):
    response = server.prediction.Predict(protos.predict(PICTURES, signature="scaled"), timeout=30)
    np.testing.assert_array_equal(tf.make_ndarray(response.outputs["scores"]), PICTURES["images"])


def test_a_deadline_ends_a_request_and_not_the_server(server):
    slow = protos.predict(
        {"x": np.ones(1, np.float32), "steps": np.array([multi.MAX_STEPS], np.int32)}, signature="slow"
    )
    assert refusal(server.prediction.Predict, slow, timeout=0.3)[0] == "DEADLINE_EXCEEDED"
    assert server.prediction.Predict(protos.predict(PICTURES), timeout=10).outputs


def test_classes_have_labels_and_scores(server):
    response = server.prediction.Classify(protos.classification(protos.examples(X, X)), timeout=30)
    assert response.model_spec == protos.spec(version=2, signature="classify")
    assert len(response.result.classifications) == 2
    assert [(c.label, c.score) for c in response.result.classifications[0].classes] == [("cat", 1.0), ("dog", 3.0)]


def test_a_context_is_shared_by_all_examples(server):
    listed = input_pb2.Input(
        example_list_with_context=input_pb2.ExampleListWithContext(examples=[X, X], context=protos.example(count=[3]))
    )
    response = server.prediction.Regress(protos.regression(listed), timeout=30)
    assert [r.value for r in response.result.regressions] == [7.0, 7.0]
    assert response.model_spec == protos.spec(version=2, signature="regress")


def test_an_inference_answers_its_task(server):
    response = server.prediction.MultiInference(protos.inference(("multi", "regress", protos.REGRESS)), timeout=30)
    (result,) = response.results
    assert [r.value for r in result.regression_result.regressions] == [4.0]
    assert (result.model_spec.name, result.model_spec.version.value) == ("multi", 2)


def test_metadata_are_the_signature_defs_without_defaults(server, saved):
    response = server.prediction.GetModelMetadata(protos.metadata("signature_def", version=1), timeout=30)
    assert response.model_spec == protos.spec(version=1)
    received = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(received)
    expected = signature_defs(server, saved / "1")
    assert set(received.signature_def) == set(expected)
    for name, definition in expected.items():
        assert received.signature_def[name] == definition


def test_a_status_lists_the_newest_version_first(server):
    response = server.models.GetModelStatus(protos.status(), timeout=30)
    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert [(v.version, v.state, v.status.error_code) for v in response.model_version_status] == [
        (2, available, 0),
        (1, available, 0),
    ]


def test_an_unknown_method_is_unimplemented(server):
    call = server.channel.unary_unary("/tensorflow.serving.SessionService/SessionRun")
    assert refusal(call, b"")[0] == "UNIMPLEMENTED"


def test_junk_is_refused_and_not_fatal(server):
    call = server.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    assert refusal(call, b"\xff\xff\xff")[0] in ("INTERNAL", "INVALID_ARGUMENT", "UNKNOWN")
    assert server.is_alive()


HEALTH = [  # service, the real server's answer, ours: tied to the state of the models, under more names
    ("", "SERVING", "SERVING"),
    ("PredictionService", "SERVING", "SERVING"),
    ("ModelService", "SERVING", "SERVING"),
    ("tensorflow.serving.PredictionService", "NOT_FOUND", "SERVING"),
    ("multi", "NOT_FOUND", "SERVING"),
    ("none", "NOT_FOUND", "NOT_FOUND"),
]


@pytest.mark.parametrize(("service", "real", "ours"), HEALTH, ids=[row[0] or "all" for row in HEALTH])
def test_health_is_told(server, service, real, ours):
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    check = health_pb2_grpc.HealthStub(server.channel).Check
    request = health_pb2.HealthCheckRequest(service=service)
    expected = real if server.real else ours
    if expected == "SERVING":
        assert check(request, timeout=10).status == health_pb2.HealthCheckResponse.SERVING
    else:
        assert refusal(check, request)[0] == expected
