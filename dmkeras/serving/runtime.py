"""One version of a model, loaded and run as TF Serving does it: a session, the feeds and fetches of a signature."""

import re
import typing

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from dmkeras.serving.folders import DamagedError, pick
from dmkeras.serving.model_card import Tensor
from dmkeras.serving.rest_json import RequestError

INIT = "__saved_model_init_op"


class Signature(typing.NamedTuple):
    inputs: list
    outputs: list
    call: typing.Callable  # arrays in the order of `inputs` -> arrays in the order of `outputs`


class Loaded:
    """A SavedModel in memory, ready to answer. A context manager, since a session holds memory until it is closed."""

    def __init__(self, folder):
        """Loads `folder`, BASE/NAME/VERSION; DamagedError if it holds no SavedModel that can be read."""
        self.folder = folder
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph)
        logger, level = tf.get_logger(), tf.get_logger().level
        try:
            logger.setLevel("ERROR")  # the loader of sessions calls itself deprecated; servers use it
            with graph.as_default():
                meta = tf.compat.v1.saved_model.load(self._session, ["serve"], str(folder))
        except (OSError, RuntimeError, tf.errors.OpError) as error:
            self._session.close()
            raise DamagedError(f"{folder} cannot be loaded: {_first_line(error)}") from error
        finally:
            logger.setLevel(level)
        self.signatures = {name: self._signature(definition) for name, definition in _definitions(meta).items()}

    def run(self, name, feed):
        """Request {input: array [B, ...]} -> answer {output: array [B, ...]}.

        Raises UnknownNameError for a signature that is not there, RequestError for what it cannot take.
        """
        signature = pick(self.signatures, name, "signature", self.folder)
        arrays = _checked(name, signature.inputs, feed)
        try:
            answer = signature.call(*arrays)
        except tf.errors.InvalidArgumentError as error:
            raise RequestError(f"{name}: {_first_line(error)}") from error
        return {tensor.name: array for tensor, array in zip(signature.outputs, answer, strict=True)}

    def close(self):
        self._session.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _signature(self, definition):
        inputs, outputs = _tensors(definition.inputs), _tensors(definition.outputs)
        feeds = [definition.inputs[tensor.name].name for tensor in inputs]
        fetches = [definition.outputs[tensor.name].name for tensor in outputs]
        return Signature(inputs, outputs, self._session.make_callable(fetches, feeds))


def described(folder):
    """{signature: (inputs, outputs)} of a SavedModel, read from its graph without loading it."""
    path = folder / "saved_model.pb"
    try:
        saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    except (DecodeError, OSError) as error:
        raise DamagedError(f"{path} cannot be read: {error}") from error
    if not saved_model.meta_graphs:
        raise DamagedError(f"{path} holds no graph")
    definitions = _definitions(saved_model.meta_graphs[0])
    return {
        name: (_tensors(definition.inputs), _tensors(definition.outputs)) for name, definition in definitions.items()
    }


def _definitions(meta_graph):
    """The SignatureDefs that can be asked, by name."""
    return {
        name: definition for name, definition in meta_graph.signature_def.items() if definition.outputs and name != INIT
    }


def _tensors(infos):
    """A map of TensorInfo as Tensors, by name."""
    return [
        Tensor(
            name,
            tf.as_dtype(info.dtype).name,
            tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim),
        )
        for name, info in sorted(infos.items())
    ]


def _checked(signature, inputs, feed):
    """The arrays of a request in the order of the inputs, each of the right dtype and shape, all of one batch."""
    wanted = [tensor.name for tensor in inputs]
    if set(feed) != set(wanted):
        raise RequestError(f"{signature}: received inputs {sorted(feed)}, expected {wanted}")
    arrays = []
    for name, dtype, shape in inputs:
        array = np.asarray(feed[name])
        received = "string" if array.dtype.kind in "OSU" else array.dtype.name
        fits = len(array.shape) == len(shape) and all(
            a == b for a, b in zip(array.shape, shape, strict=True) if b is not None
        )
        if received != dtype or not fits:
            expected = ["B" if axis == 0 else "?" if side is None else side for axis, side in enumerate(shape)]
            raise RequestError(
                f"{signature}: input {name!r} is {received} {list(array.shape)}, expected {dtype} "
                f"[{', '.join(map(str, expected))}]"
            )
        arrays.append(array)
    sizes = {name: len(array) for name, array in zip(wanted, arrays, strict=True)}
    if len(set(sizes.values())) > 1:
        raise RequestError(f"{signature}: received batches of {sizes} rows, expected one size")
    return arrays


def _first_line(error):
    """An error's message without the names of graph nodes."""
    message = re.sub(r"\{\{.*?\}\}|\[\[.*?\]\]", "", str(getattr(error, "message", error)))
    message = message.removeprefix("Graph execution error:")
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
