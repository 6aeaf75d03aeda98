"""tf.Examples in, classes or regressions out: what a signature needs for it, and the protos of its answer.

TF Serving's rules and texts (servables/tensorflow/classifier.cc, regressor.cc); a signature is described by names of
its tensors, never by the nodes of its graph.
"""

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import classification_pb2, regression_pb2

from dmkeras.serving.embedded.tensors import TYPES
from dmkeras.serving.errors import RequestError, ServingError

INPUTS, CLASSES, SCORES, OUTPUTS = "inputs", "classes", "scores", "outputs"


def serialized(received):
    """The examples of an `Input` as strings [B], each with the context that all of them share."""
    kind = received.WhichOneof("kind")
    listed = getattr(received, kind) if kind else None
    if listed is None or not listed.examples:
        raise RequestError("Input is empty.")
    # two serialized messages in a row are their merge
    context = listed.context.SerializeToString() if kind == "example_list_with_context" else b""
    return np.array([context + example.SerializeToString() for example in listed.examples], object)


def check_classifies(definition):
    """ServingError unless a SignatureDef takes `inputs` and answers `classes`, `scores` or both."""
    _check_input(definition, "classification")
    if len(definition.outputs) not in (1, 2):
        raise RequestError(f"Expected one or two output Tensors, found {len(definition.outputs)}")
    if not {CLASSES, SCORES} & set(definition.outputs):
        raise ServingError(
            "FAILED_PRECONDITION",
            'Expected classification signature outputs to contain at least one of "classes" or "scores". '
            f"Signature was: {_described(definition)}",
        )


def check_regresses(definition):
    """ServingError unless a SignatureDef takes `inputs` and answers `outputs` alone."""
    if len(definition.inputs) == 1 and len(definition.outputs) != 1:
        raise RequestError("Expected one output Tensor.")
    _check_input(definition, "regression")
    if OUTPUTS not in definition.outputs:
        raise ServingError(
            "FAILED_PRECONDITION", f"No regression outputs found in SignatureDef: {_described(definition)}"
        )


def classifications(answer, rows):
    """{classes: strings [B, K], scores: float32 [B, K]} -> ClassificationResult; one of the two may lack."""
    classes, scores = (
        _checked_classes(answer, name, dtype, rows) for name, dtype in ((CLASSES, tf.string), (SCORES, tf.float32))
    )
    if classes is not None and scores is not None and classes.shape[1] != scores.shape[1]:
        raise RequestError(
            f"Tensors class and score should match in dim_size(1). Got {classes.shape[1]} vs. {scores.shape[1]}"
        )
    # proto3 leaves what was not computed at "" and 0
    labels = _texts(classes) if classes is not None else np.full(scores.shape, "", object).tolist()
    scores = scores.tolist() if scores is not None else np.zeros(classes.shape).tolist()
    return classification_pb2.ClassificationResult(
        classifications=[
            classification_pb2.Classifications(
                classes=[classification_pb2.Class(label=label, score=score) for label, score in zip(*row, strict=True)]
            )
            for row in zip(labels, scores, strict=True)
        ]
    )


def regressions(answer, rows):
    """{outputs: float32 [B] or [B, 1]} -> RegressionResult."""
    output = np.asarray(answer[OUTPUTS])
    if output.ndim != 1 and output.shape[1:] != (1,):
        raise RequestError(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {_shape(output)}"
        )
    if len(output) != rows:
        raise RequestError(f"Input batch size did not match output batch size: {rows} vs. {len(output)}")
    if output.dtype != np.float32:
        raise RequestError(f"Expected output Tensor of DT_FLOAT.  Got: {_data_type(output)}")
    values = output.ravel().tolist()
    return regression_pb2.RegressionResult(regressions=[regression_pb2.Regression(value=value) for value in values])


def _check_input(definition, kind):
    if len(definition.inputs) != 1:
        raise RequestError("Expected one input Tensor.")
    if INPUTS not in definition.inputs:
        raise ServingError("FAILED_PRECONDITION", f"No {kind} inputs found in SignatureDef: {_described(definition)}")
    dtype = definition.inputs[INPUTS].dtype
    if dtype != types_pb2.DT_STRING:
        raise RequestError(f"Expects arg[0] to be {TYPES[dtype]} but string is provided: input {INPUTS!r}")


def _checked_classes(answer, name, dtype, rows):
    if name not in answer:
        return None
    array = np.asarray(answer[name])
    if array.ndim != 2:
        raise RequestError(f"Expected Tensor shape: [batch_size num_classes] but got {_shape(array)}")
    if tf.as_dtype(array.dtype) != dtype:
        raise RequestError(
            f"Expected {name} Tensor of DT_{TYPES[dtype.as_datatype_enum].upper()}. Got: {_data_type(array)}"
        )
    if len(array) != rows:
        raise RequestError(f"Expected {name} output batch size of {rows}. Got: {len(array)}")
    return array


def _texts(classes):
    """Labels as text: a proto's string is UTF-8, what is none is replaced."""
    return [[label.decode(errors="replace") for label in row] for row in classes.tolist()]


def _described(definition):
    return f"it takes {{{','.join(sorted(definition.inputs))}}} and answers {{{','.join(sorted(definition.outputs))}}}"


def _shape(array):
    return f"[{','.join(map(str, array.shape))}]"


def _data_type(array):
    return f"DT_{TYPES[tf.as_dtype(array.dtype).as_datatype_enum].upper()}"
