"""Requests over gRPC that are refused: the call, what is wrong, part of the text, the code.

Measured on a tensorflow_model_server 2.21: predictions. Read: classifications, inferences (multi_inference.cc),
metadata, status and reloading (get_model_metadata_impl.cc, get_model_status_impl.cc, model_service_impl.cc,
server_core.cc).
"""

import numpy as np
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    input_pb2,
    model_management_pb2,
    predict_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

from tests.serving.conformance.cases import DIES, Case, Ours
from tests.serving.conformance.process import model
from tests.serving.conformance.protos import (
    CLASSIFY,
    FLOAT,
    PICTURES,
    REGRESS,
    X,
    classification,
    examples,
    inference,
    metadata,
    predict,
    reload,
    status,
    tensor,
)

INVALID = "INVALID_ARGUMENT"
ABORTS = "shapes are checked before a session runs; the real server's convolution aborts the process"
WAITS = "the real server waits for a first version, for ever, and with it every later configuration"
SIZE = "input size does not match signature: "
UNPARSED = "tensor parsing error: images"


def refused(call, name, request, text, code=INVALID, ours=None):
    return Case(f"{call}: {name}", request, code, text, call, ours=ours)


REFUSALS = [
    refused(
        "Predict",
        "unknown model",
        predict(PICTURES, name="none"),
        "Servable not found for request: Latest(none)",
        "NOT_FOUND",
    ),
    refused(
        "Predict",
        "unknown version",
        predict(PICTURES, version=99),
        "Servable not found for request: Specific(multi, 99)",
        "NOT_FOUND",
    ),
    refused("Predict", "unknown label", predict(PICTURES, label="none"), "Unrecognized servable version label: none"),
    refused(
        "Predict",
        "unknown signature",
        predict(PICTURES, signature="zz"),
        'Serving signature key "zz" not found.',
        "FAILED_PRECONDITION",
    ),
    refused("Predict", "empty name", predict(PICTURES, name=""), "ModelSpec has no name specified."),
    refused("Predict", "no spec", predict_pb2.PredictRequest(), "Missing ModelSpec"),
    refused(
        "Predict",
        "extra input",
        predict(PICTURES | {"bogus": [1.0]}),
        SIZE + "2!=1 len({bogus,images}) != len({images}). Sent extra: {bogus}. Missing but required: {}.",
    ),
    refused(
        "Predict",
        "missing input",
        predict({}),
        SIZE + "0!=1 len({}) != len({images}). Sent extra: {}. Missing but required: {images}.",
    ),
    refused("Predict", "another input", predict({"bogus": PICTURES["images"]}), "images"),
    refused(
        "Predict",
        "wrong dtype",
        predict({"images": np.array([[1, 2]], np.float64)}),
        "Expects arg[0] to be float but double is provided",
    ),
    refused(
        "Predict",
        "content cut short",
        predict({"images": tensor(FLOAT, [1, 2], tensor_content=b"abc")}),
        UNPARSED,
    ),
    refused(
        "Predict",
        "negative side",
        predict({"images": tensor(FLOAT, [-1, 2], float_val=[1, 2])}),
        UNPARSED,
    ),
    refused(
        "Predict",
        "too many values",
        predict({"images": tensor(FLOAT, [1, 2], float_val=[1, 2, 3])}),
        "",
        "OK",
        Ours("values beyond the shape are refused; the real server drops them in silence", INVALID, UNPARSED),
    ),
    refused("Predict", "no dtype", predict({"images": tensor_pb2.TensorProto()}), UNPARSED),
    refused(
        "Predict",
        "unknown output",
        predict(PICTURES, ["bogus"]),
        "output tensor alias not found in signature: bogus Outputs expected to be in the set {scores}.",
    ),
    refused(
        "Predict",
        "output asked twice",
        predict(PICTURES, ["scores", "scores"]),
        "duplicate output tensor alias: scores",
    ),
    refused(
        "Predict",
        "assertion in the graph",
        predict({"x": np.array([-1], np.float32)}, signature="checked"),
        "x must be positive",
    ),
    refused(
        "Predict",
        "wrong rank for a convolution",
        predict({"pictures": np.ones((1, 2), np.float32)}, signature="conv"),
        "",
        DIES,
        Ours(ABORTS, INVALID, "input 'pictures' is float32 [1, 2], expected float32 [B, 8, 8, 1]"),
    ),
    refused("Classify", "no input", classification(input_pb2.Input()), "Input is empty."),
    refused("Classify", "no examples", classification(examples()), "Input is empty."),
    refused(
        "Classify",
        "unknown model",
        classification(examples(X), name="none"),
        "Servable not found for request: Latest(none)",
        "NOT_FOUND",
    ),
    refused(
        "Classify", "unknown signature", classification(examples(X), "zz"), "No signature was found with the name: zz"
    ),
    refused(
        "Classify",
        "signature without inputs",
        classification(examples(X), ""),
        "No classification inputs found in SignatureDef: ",
        "FAILED_PRECONDITION",
    ),
    refused("Classify", "no spec", classification_pb2.ClassificationRequest(input=examples(X)), "Missing ModelSpec"),
    refused("MultiInference", "no tasks", inference(), "ModelSpec has no name specified."),
    refused(
        "MultiInference",
        "two models",
        inference(("multi", "classify", CLASSIFY), ("latest", "regress", REGRESS)),
        "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
    ),
    refused(
        "MultiInference",
        "a signature twice",
        inference(("multi", "classify", CLASSIFY), ("multi", "classify", CLASSIFY)),
        "Duplicate evaluation of signature: classify",
    ),
    refused(
        "MultiInference",
        "unknown signature",
        inference(("multi", "zz", CLASSIFY)),
        "Requested signature not found in model graph: zz",
    ),
    refused(
        "MultiInference",
        "unknown method",
        inference(("multi", "classify", "tensorflow/serving/predict")),
        "Unsupported signature method_name: tensorflow/serving/predict",
        "UNIMPLEMENTED",
    ),
    refused(
        "MultiInference",
        "inputs of two tensors",
        inference(("multi", "classify", CLASSIFY), ("multi", "regress", REGRESS)),
        "Input tensor must be the same for all Signatures.",
    ),
    refused(
        "GetModelMetadata", "no field", metadata(), "GetModelMetadataRequest must specify at least one metadata_field"
    ),
    refused("GetModelMetadata", "unknown field", metadata("bogus"), "is not supported"),
    refused(
        "GetModelMetadata",
        "unknown model",
        metadata("signature_def", name="none"),
        "Servable not found for request: Latest(none)",
        "NOT_FOUND",
    ),
    refused(
        "GetModelMetadata",
        "no spec",
        get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"]),
        "Missing ModelSpec",
    ),
    refused(
        "GetModelStatus",
        "unknown model",
        status(name="none"),
        "Could not find any versions of model none",
        "NOT_FOUND",
    ),
    refused(
        "GetModelStatus",
        "unknown version",
        status(version=9),
        "Could not find version 9 of model multi",
        "NOT_FOUND",
    ),
    refused("GetModelStatus", "no spec", get_model_status_pb2.GetModelStatusRequest(), "Missing ModelSpec"),
    refused(
        "HandleReloadConfigRequest",
        "no list",
        model_management_pb2.ReloadConfigRequest(),
        "type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently supported",
    ),
    refused(
        "HandleReloadConfigRequest",
        "a name twice",
        reload(model("multi", "/nowhere"), model("multi", "/nowhere")),
        "Illegal to list model multi multiple times in config list",
    ),
    refused(
        "HandleReloadConfigRequest",
        "a relative path",
        reload(model("r", "nowhere")),
        "Expected model r to have an absolute path or URI",
    ),
    refused(
        "HandleReloadConfigRequest",
        "a folder that is not there",
        reload(model("r", "/nowhere")),
        "",
        DIES,
        Ours(WAITS, "UNKNOWN", "1 model(s) did not become available"),
    ),
    refused(
        "HandleReloadConfigRequest",
        "no platform",
        reload(model_server_config_pb2.ModelConfig(name="r", base_path="/nowhere")),
        "Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform.",
    ),
]
