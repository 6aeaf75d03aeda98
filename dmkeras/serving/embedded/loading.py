"""A version brought into memory and warmed up: the requests that it carries are run before it answers any caller.

Warm-up records are TF Serving's: a TFRecord file of PredictionLog, at most 1000, any of which failing fails the load.
"""

import contextlib
import time
import typing

import tensorflow as tf
from google.protobuf.message import DecodeError

from dmkeras.serving import batching as batching_parameters
from dmkeras.serving import graph_errors, runtime, warm_up
from dmkeras.serving.errors import RequestError, ServingError

MOST = 1000  # warm-up records


class OneVersion(typing.NamedTuple):
    """A loaded version, which `Servables` would lend, and in their place for requests that it is to answer itself."""

    name: str
    version: int
    loaded: runtime.Loaded

    @contextlib.contextmanager
    def use(self, name, version=None, label=None):
        """This version, whatever is asked for: TF Serving does not look at a warm-up record's model either."""
        yield self


def load(version, *, batching=None, per_model_batching=False, iterations=1, metrics=None, **threads):
    """The `Loaded` of a version (`.name .version .folder`), its warm-up records run `iterations` times.

    Raises:
        LoadError, ServingError: for a version that cannot be loaded, a warm-up record that fails.
    """
    if per_model_batching:
        path = version.folder / batching_parameters.FILE
        batching = batching_parameters.parse(path.read_text()) if path.is_file() else None
    loaded = runtime.Loaded(version.folder, batching=batching, **threads)
    path = version.folder / warm_up.FILE
    if not iterations or not path.is_file():
        return loaded
    start, status = time.monotonic(), "OK"
    try:
        replay(path, OneVersion(version.name, version.version, loaded), iterations)
    except Exception as error:
        loaded.close()
        status = graph_errors.serving_error(error, version.folder).code
        raise
    finally:
        if metrics is not None:
            metrics.warm_up(version.name, time.monotonic() - start, status)
    return loaded


def replay(path, servable, iterations=1):
    """Runs every record of a file; ServingError for one that fails and for a file that is none or too long."""
    from tensorflow_serving.apis import prediction_log_pb2

    try:
        for number, record in enumerate(tf.data.TFRecordDataset(str(path)).as_numpy_iterator(), 1):
            if number > MOST:
                raise RequestError(f"Number of warmup records exceeds the maximum ({MOST})")
            try:
                log = prediction_log_pb2.PredictionLog.FromString(record)
            except DecodeError:
                raise RequestError(f"warm-up record {number} is no PredictionLog") from None
            for _ in range(iterations):
                _run(number, log, servable)
    except tf.errors.DataLossError:
        raise ServingError("DATA_LOSS", "Please verify your warmup data is in TFRecord format.") from None


def _run(number, log, servable):
    from dmkeras.serving.embedded import inference

    functions = {
        "predict_log": inference.predict,
        "classify_log": inference.classify,
        "regress_log": inference.regress,
        "multi_inference_log": inference.multi_inference,
    }
    kind = log.WhichOneof("log_type")
    if kind not in functions:  # a session's log, or a kind of tomorrow
        return
    try:
        functions[kind](servable, getattr(log, kind).request)
    except ServingError as error:
        raise ServingError(error.code, f"warm-up record {number} ({kind}): {error}") from error
