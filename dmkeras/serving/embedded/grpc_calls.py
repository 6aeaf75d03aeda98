"""The calls of TF Serving's two services: their protos, what answers them, what a message says for log and metrics."""

import re
import typing
import urllib.parse

from google.protobuf.message import DecodeError
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

from dmkeras.serving.embedded import inference
from dmkeras.serving.errors import RequestError


class Call(typing.NamedTuple):
    name: str
    request: type
    answer: typing.Callable  # (servables, request, timeout) -> response
    measured: bool = True  # in the metrics of requests, as TF Serving measures what runs a graph


SERVICES = {
    "tensorflow.serving.PredictionService": [
        Call("Predict", predict_pb2.PredictRequest, inference.predict),
        Call("Classify", classification_pb2.ClassificationRequest, inference.classify),
        Call("Regress", regression_pb2.RegressionRequest, inference.regress),
        Call("MultiInference", inference_pb2.MultiInferenceRequest, inference.multi_inference),
        Call(
            "GetModelMetadata",
            get_model_metadata_pb2.GetModelMetadataRequest,
            inference.get_model_metadata,
            measured=False,
        ),
    ],
    "tensorflow.serving.ModelService": [
        Call("GetModelStatus", get_model_status_pb2.GetModelStatusRequest, inference.get_model_status, measured=False),
        Call(
            "HandleReloadConfigRequest",
            model_management_pb2.ReloadConfigRequest,
            inference.reload_config,
            measured=False,
        ),
    ],
}


def parsed(call, message):
    """The request in a message; RequestError where there is none."""
    try:
        return call.request.FromString(message)
    except DecodeError:
        raise RequestError(f"the message is no {call.request.DESCRIPTOR.full_name}") from None


def spec_of(message):
    """The ModelSpec of a request or response, that of its first task or result; an empty one where there is none."""
    if hasattr(message, "model_spec"):
        return message.model_spec
    for part in ("tasks", "results"):
        if getattr(message, part, None):
            return getattr(message, part)[0].model_spec
    return model_pb2.ModelSpec()


def address_of(peer):
    """The address in gRPC's name of a caller, such as ipv6:%5B::1%5D:47874, as REST has it: ::1."""
    found = re.fullmatch(r"ipv[46]:\[?(.*?)\]?:\d+", urllib.parse.unquote(peer))
    return found[1] if found else peer


def rows_of(request):
    """How many examples or rows a request brings."""
    if hasattr(request, "input"):
        kind = request.input.WhichOneof("kind")
        return len(getattr(request.input, kind).examples) if kind else 0
    for tensor in request.inputs.values():
        return tensor.tensor_shape.dim[0].size if tensor.tensor_shape.dim else 1
    return 0
