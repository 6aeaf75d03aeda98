"""One version of a model, loaded and run as TF Serving does it: a session, the feeds and fetches of a signature.

The SavedModel may be anybody's: a signature may have scalars, inputs of unknown rank, half-precision outputs.
"""

import contextlib
import ctypes
import gc
import re
import time
import typing

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.client import pywrap_tf_session

from dmkeras.serving import batching as batching_ops
from dmkeras.serving import feeds
from dmkeras.serving.errors import RequestError, ServingError
from dmkeras.serving.folders import DamagedError, pick
from dmkeras.serving.graph_errors import LoadError, serving_error
from dmkeras.serving.model_card import INIT, Tensor

TAG = "serve"
LONGEST_TIMEOUT = 86400.0  # seconds; a deadline beyond a day is none
EXPIRED = "the time for this request has passed"
# A batch that fails so may owe it to the rows or the deadline of another caller, or to an answer that is no batch.
ALONE = ("INVALID_ARGUMENT", "CANCELLED", "FAILED_PRECONDITION")
UNSHAPELY = re.compile(r"Status: [23], message: (could not create a .*)")  # oneDNN: invalid_arguments, unimplemented


class Signature(typing.NamedTuple):
    inputs: list  # Tensors, by name
    outputs: list
    feeds: list  # what the session is fed, in the order of `inputs`
    fetches: list
    batched: list | None  # the fetches behind a batch op; None where callers do not share runs


class Loaded:
    """A SavedModel in memory, ready to answer. A context manager, since a session holds memory until it is closed.

    signatures: {name: Signature}; definitions: {name: SignatureDef}; defaults: {name: {input: array}}, the values that
    a SignatureDef gives to inputs that a caller may leave out. Threads may share it.
    """

    def __init__(self, folder, *, batching=None, inter_op=0, intra_op=0):
        """Loads `folder`, BASE/NAME/VERSION.

        Args:
            folder: the version's folder.
            batching: a `Batching`, under which concurrent callers share runs; None: each runs alone.
            inter_op: threads over which ops are spread, 0: one for each core. The first session of a process decides.
            intra_op: threads within an op, likewise.

        Raises:
            LoadError: if it holds no SavedModel that can be loaded.
        """
        self.folder = folder
        self._batching = batching
        config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=inter_op, intra_op_parallelism_threads=intra_op)
        config.gpu_options.allow_growth = True  # two versions share the device during a change
        self._graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=self._graph, config=config)
        try:
            meta = self._load()
            self.definitions = _definitions(meta)
            self.signatures = {
                name: self._signature(name, definition)
                for name, definition in self.definitions.items()
                if _is_dense(definition)
            }
            self._session._extend_graph()
        except Exception as error:  # whatever a foreign file makes of the loader
            self.close()
            failure = serving_error(error, folder, otherwise="DATA_LOSS")
            raise LoadError(folder, failure.code, str(failure)) from error
        self.defaults = {
            name: {key: tf.make_ndarray(value) for key, value in definition.defaults.items()}
            for name, definition in self.definitions.items()
        }

    def run(self, name, feed, *, outputs=None, timeout=None):
        """Request {input: array [B, ...]} -> answer {output: array [B, ...]}.

        Args:
            name: of the signature.
            feed: an array for every input.
            outputs: names of the outputs wanted; None: all.
            timeout: seconds after which the run is given up; None: never.

        Raises:
            UnknownNameError: for a signature that is not there.
            RequestError: for a request that the signature cannot take.
            ServingError: for a run that fails: DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ...
        """
        signature = pick(self.signatures, name, "signature", self.folder)
        arrays = feeds.arrays(name, signature.inputs, feed, self.defaults[name])
        deadline = None if timeout is None else time.monotonic() + min(timeout, LONGEST_TIMEOUT)
        try:
            answer = self._answer(signature, arrays, deadline)
        except ServingError as error:
            refused = UNSHAPELY.search(str(error)) if error.code == "ABORTED" else None
            if not refused:
                raise
            shapes = ", ".join(
                f"{tensor.name!r} is {[*array.shape]}" for tensor, array in zip(signature.inputs, arrays)
            )
            raise RequestError(
                f"{name}: the graph cannot take inputs of these shapes: {shapes}; {refused[1]}"
            ) from error
        answer = {tensor.name: _array(value) for tensor, value in zip(signature.outputs, answer)}
        return answer if outputs is None else {output: answer[output] for output in outputs}

    def close(self):
        """Ends the session. No run may be under way."""
        self._session.close()
        self.signatures = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _load(self):
        logger, level = tf.get_logger(), tf.get_logger().level
        try:
            logger.setLevel("ERROR")  # the loader of sessions calls itself deprecated; servers use it
            with self._graph.as_default():
                return tf.compat.v1.saved_model.load(self._session, [TAG], str(self.folder))
        finally:
            logger.setLevel(level)

    def _signature(self, name, definition):
        inputs, outputs = _tensors(definition.inputs), _tensors(definition.outputs)
        with self._graph.as_default():
            fed = [self._graph.get_tensor_by_name(definition.inputs[tensor.name].name) for tensor in inputs]
            fetches = [self._graph.get_tensor_by_name(definition.outputs[tensor.name].name) for tensor in outputs]
            # A session does not fetch what it is fed.
            fetches = [tf.identity(fetch) if any(fetch is tensor for tensor in fed) else fetch for fetch in fetches]
            shared = self._batching and batching_ops.shared(self._batching, name, inputs, outputs, fed, fetches)
        handles = [[tensor._as_tf_output() for tensor in tensors] for tensors in (fed, fetches, shared or ())]
        return Signature(inputs, outputs, *handles[:2], handles[2] if shared else None)

    def _answer(self, signature, arrays, deadline):
        sizes = {len(array) for array in arrays} if signature.batched else {0}
        if len(sizes) == 1 and sizes != {0}:
            self._batching.check(*sizes)
            try:
                return self._run(signature.feeds, signature.batched, arrays, deadline)
            except ServingError as error:
                if error.code not in ALONE:
                    raise
        return self._run(signature.feeds, signature.fetches, arrays, deadline)

    def _run(self, fed, fetches, arrays, deadline):
        """One run, beneath the Python of `Session.run`, which takes twice as long as a small model."""
        options = None
        if deadline is not None:
            left = int(1000 * (deadline - time.monotonic()))
            if left <= 0:
                raise ServingError("DEADLINE_EXCEEDED", EXPIRED)
            run_options = tf.compat.v1.RunOptions(timeout_in_ms=left)
            options = pywrap_tf_session.TF_NewBufferFromString(run_options.SerializeToString())
        try:
            return self._session._call_tf_sessionrun(options, dict(zip(fed, arrays)), fetches, [], None)
        except tf.errors.DeadlineExceededError as error:
            raise ServingError("DEADLINE_EXCEEDED", EXPIRED) from error
        except (tf.errors.OpError, TypeError, ValueError) as error:
            raise serving_error(error, self.folder, otherwise="INVALID_ARGUMENT") from error
        finally:
            if options is not None:
                pywrap_tf_session.TF_DeleteBuffer(options)


def described(folder):
    """{signature: (inputs, outputs)} of a SavedModel, read from its graph without loading it."""
    path = folder / "saved_model.pb"
    try:
        saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    except (DecodeError, OSError) as error:
        raise DamagedError(f"{path} cannot be read: {error}") from error
    tagged = [graph for graph in saved_model.meta_graphs if TAG in graph.meta_info_def.tags]
    if not tagged:
        raise DamagedError(f"{path} holds no graph with the tag {TAG!r}")
    return {
        name: (_tensors(definition.inputs), _tensors(definition.outputs))
        for name, definition in _definitions(tagged[0]).items()
    }


def trim():
    """Gives the memory of closed sessions back to the system, as far as the C library can."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)


def _definitions(meta_graph):
    """The SignatureDefs that can be asked, by name."""
    return {
        name: definition
        for name, definition in sorted(meta_graph.signature_def.items())
        if definition.outputs and name != INIT
    }


def _is_dense(definition):
    """Whether every tensor of a signature has a name: sparse and composite ones have not, and TF Serving has none."""
    return all(info.name for infos in (definition.inputs, definition.outputs) for info in infos.values())


def _tensors(infos):
    """A map of TensorInfo as Tensors, by name."""
    return [
        Tensor(name, tf.as_dtype(info.dtype).base_dtype.name, _shape(info.tensor_shape))
        for name, info in sorted(infos.items())
    ]


def _shape(shape):
    """A TensorShapeProto as a tuple with None for open sides; None where the rank is open."""
    return None if shape.unknown_rank else tuple(None if dim.size < 0 else dim.size for dim in shape.dim)


def _array(value):
    """What a session answers, scalars being NumPy's or bytes, as an array."""
    return np.array(value, object) if isinstance(value, bytes) else np.asarray(value)
