"""The client against a gRPC server that answers by script."""

import subprocess
import sys
from concurrent import futures

import numpy as np
import pytest

from dmkeras.serving import Client, ServingError
from dmkeras.serving.client_tensors import described
from dmkeras.serving.embedded.versions import VersionStatus
from tests.serving.scripted import DOUBLE


@pytest.fixture(scope="module")
def channel():
    """A gRPC server that doubles `x`, refuses model "busy" twice, and knows no other but "m"; a client of it."""
    import grpc
    import tensorflow as tf
    from google.protobuf import json_format
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_service_pb2_grpc,
    )

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer, model_service_pb2_grpc.ModelServiceServicer):
        seen = []

        def Predict(self, request, context):  # noqa: N802
            self.seen.append((request, dict(context.invocation_metadata())))
            if request.model_spec.name == "busy" and len(self.seen) < 3:
                context.set_trailing_metadata([("grpc-retry-pushback-ms", "1")])
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
            response = predict_pb2.PredictResponse()
            x = tf.make_ndarray(request.inputs["x"])
            response.outputs["y"].CopyFrom(tf.make_tensor_proto(2 * x))
            response.outputs["name"].CopyFrom(tf.make_tensor_proto([b"\xff"]))
            return response

        def GetModelMetadata(self, request, context):  # noqa: N802
            if request.model_spec.name not in ("m", "busy"):
                name = request.model_spec.name
                context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Latest({name})")
            response = get_model_metadata_pb2.GetModelMetadataResponse()
            described = DOUBLE["metadata"]["signature_def"]
            found = json_format.ParseDict(described, get_model_metadata_pb2.SignatureDefMap())
            response.metadata["signature_def"].Pack(found)
            return response

        def GetModelStatus(self, request, context):  # noqa: N802
            status = {"version": 1, "state": "AVAILABLE", "status": {"error_code": "OK"}}
            return json_format.ParseDict(
                {"model_version_status": [status]}, get_model_status_pb2.GetModelStatusResponse()
            )

    service, server = Service(), grpc.server(futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with Client(f"grpc://127.0.0.1:{port}", token="secret", timeout=10) as client:
        yield service, client
    server.stop(0).wait()


def test_grpc_sends_and_answers_the_same_arrays(channel):
    service, client = channel
    service.seen.clear()
    outputs = client.predict("m", x=[[1, 2]], version=3)
    np.testing.assert_array_equal(outputs["y"], np.array([[2, 4]], np.float32))
    assert (outputs["y"].dtype, outputs["name"].tolist()) == (np.float32, [b"\xff"])
    ((request, headers),) = service.seen
    assert (request.model_spec.version.value, request.model_spec.signature_name) == (3, "serving_default")
    assert headers["authorization"] == "Bearer secret"
    client.predict("m", x=[[1, 2]], label="stable")
    assert service.seen[1][0].model_spec.version_label == "stable"


def test_grpc_describes_a_model_as_rest_does(channel):
    _, client = channel
    assert client.signatures("m") == described(DOUBLE)
    assert client.status("m") == [VersionStatus(1, "AVAILABLE", "OK", "")]


def test_an_error_of_grpc_carries_its_code_and_a_busy_server_is_asked_again(channel):
    service, client = channel
    with pytest.raises(ServingError, match=r"^Servable not found for request: Latest\(none\)$") as raised:
        client.predict("none", x=[[1, 2]])
    assert raised.value.code == "NOT_FOUND"
    service.seen.clear()
    assert client.predict("busy", x=[[1, 2]])["y"].tolist() == [[2, 4]]
    assert len(service.seen) == 3


def test_grpc_without_its_library_says_what_to_install():
    code = (
        "import sys; sys.modules['tensorflow_serving'] = None; from dmkeras.serving import Client\n"
        "try: Client('grpc://localhost:1')\nexcept ImportError as error: print(error)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert "pip install 'dmkeras[serve]'" in process.stdout
