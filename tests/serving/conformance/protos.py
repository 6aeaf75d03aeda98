"""Requests over gRPC, spelled short."""

import numpy as np
import tensorflow as tf
from google.protobuf import wrappers_pb2
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    input_pb2,
    model_management_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

from tests.serving.conformance import process

PICTURES = {"images": np.array([[1, 2]], np.float32)}
CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"
FLOAT = types_pb2.DT_FLOAT


def spec(name="multi", version=None, label="", signature=""):
    made = model_pb2.ModelSpec(name=name, signature_name=signature)
    if version is not None:
        made.version.CopyFrom(wrappers_pb2.Int64Value(value=version))
    if label:
        made.version_label = label
    return made


def predict(feed, only=(), **where):
    inputs = {
        name: value if isinstance(value, tensor_pb2.TensorProto) else tf.make_tensor_proto(value)
        for name, value in feed.items()
    }
    return predict_pb2.PredictRequest(model_spec=spec(**where), inputs=inputs, output_filter=only)


def tensor(dtype, shape, **fields):
    dims = [tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in shape]
    return tensor_pb2.TensorProto(dtype=dtype, tensor_shape=tensor_shape_pb2.TensorShapeProto(dim=dims), **fields)


def example(**features):
    made = tf.train.Example()
    for name, values in features.items():
        feature = made.features.feature[name]
        kind = feature.int64_list if isinstance(values[0], int) else feature.float_list
        kind.value.extend(values)
    return made


def examples(*listed):
    return input_pb2.Input(example_list=input_pb2.ExampleList(examples=listed))


def classification(listed, signature="classify", name="multi"):
    return classification_pb2.ClassificationRequest(model_spec=spec(name, signature=signature), input=listed)


def regression(listed, signature="regress"):
    return regression_pb2.RegressionRequest(model_spec=spec(signature=signature), input=listed)


def inference(*tasks, listed=None):
    made = [
        inference_pb2.InferenceTask(model_spec=spec(name, signature=signature), method_name=method)
        for name, signature, method in tasks
    ]
    return inference_pb2.MultiInferenceRequest(tasks=made, input=listed or examples(X))


def metadata(*fields, **where):
    return get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec(**where), metadata_field=fields)


def status(**where):
    return get_model_status_pb2.GetModelStatusRequest(model_spec=spec(**where))


def reload(*models):
    return model_management_pb2.ReloadConfigRequest(config=process.config(models))


X = example(x=[0.5, 1.5])


def signature_defs(server, folder):
    """{name: SignatureDef} that a server tells of a version: without defaults and, if it is ours, without the op that
    initialises the graph, which is no signature that can be asked.
    """
    saved_model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    found = dict(saved_model.meta_graphs[0].signature_def)
    if not server.real:
        del found["__saved_model_init_op"]
    for definition in found.values():
        definition.ClearField("defaults")
    return found
