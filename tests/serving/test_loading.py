"""A version brought into memory: batched after its own file, warmed up by its own requests, and let go of again."""

import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from dmkeras.serving import batching, runtime, warm_up
from dmkeras.serving.embedded import loading
from dmkeras.serving.embedded.metrics import Metrics
from dmkeras.serving.errors import RequestError, ServingError
from tests.serving import multi

EXAMPLE = tf.train.Example(
    features=tf.train.Features(feature={"x": tf.train.Feature(float_list=tf.train.FloatList(value=[1, 2]))})
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return multi.write(tmp_path_factory.mktemp("loading"), versions=(1,)) / "1"


@pytest.fixture
def version(written, tmp_path):
    folder = shutil.copytree(written, tmp_path / "1")
    (folder / "assets.extra").mkdir()
    return types.SimpleNamespace(name="multi", version=1, folder=folder)


def logs():
    """{kind: a PredictionLog of it} whose requests `multi` answers, though they name another model."""
    kinds = {kind: prediction_log_pb2.PredictionLog() for kind in ("predict", "classify", "regress", "multi_inference")}
    request = kinds["predict"].predict_log.request
    request.model_spec.name = "somebody"
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(np.ones((1, 2), np.float32)))
    for kind in ("classify", "regress"):
        request = getattr(kinds[kind], f"{kind}_log").request
        request.model_spec.signature_name = kind
        request.input.example_list.examples.add().CopyFrom(EXAMPLE)
    request = kinds["multi_inference"].multi_inference_log.request
    request.input.example_list.examples.add().CopyFrom(EXAMPLE)
    task = request.tasks.add(method_name="tensorflow/serving/regress")
    task.model_spec.name, task.model_spec.signature_name = "somebody", "regress"
    return kinds


def write(version, records):
    path = version.folder / warm_up.FILE
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


@pytest.fixture
def asked(monkeypatch):
    """The signatures that were run, with their batch sizes."""
    asked, run = [], runtime.Loaded.run

    def note(self, name, feed, **options):
        answer = run(self, name, feed, **options)
        asked.append((name, len(next(iter(feed.values())))))
        return answer

    monkeypatch.setattr(runtime.Loaded, "run", note)
    return asked


def test_every_kind_of_record_is_run_before_a_version_answers(version, asked):
    kinds = logs()
    del kinds["multi_inference"].multi_inference_log.request.tasks[1:]
    session = prediction_log_pb2.PredictionLog()
    session.session_run_log.SetInParent()
    hand_written = warm_up.prediction_log("x", "version", {"images": np.ones((3, 2), np.float32)})
    write(version, [kind.SerializeToString() for kind in (*kinds.values(), session)] + [hand_written])
    loading.load(version).close()
    assert asked == [("serving_default", 1), ("classify", 1), ("regress", 1), ("regress", 1), ("version", 3)]


def test_records_run_as_often_as_told_and_without_a_file_none(version, asked):
    loading.load(version).close()
    write(version, [logs()["predict"].SerializeToString()] * 2)
    loading.load(version, iterations=0).close()
    assert asked == []
    loading.load(version, iterations=3).close()
    assert asked == [("serving_default", 1)] * 6


def test_a_warm_up_is_measured(version):
    metrics = Metrics()
    write(version, [logs()["predict"].SerializeToString()])
    loading.load(version, metrics=metrics).close()
    write(version, [b"junk"])
    with pytest.raises(ServingError):
        loading.load(version, metrics=metrics)
    page = metrics.render().decode()
    for status in ("OK", "INVALID_ARGUMENT"):
        assert f'model_warmup_latency_count{{model_name="multi",status="{status}"}} 1.0' in page


def failing():
    predict = logs()["predict"].predict_log.request
    predict.inputs["bogus"].CopyFrom(predict.inputs["images"])
    unknown = prediction_log_pb2.PredictionLog()
    unknown.predict_log.request.CopyFrom(predict)
    return logs()["classify"].SerializeToString(), unknown.SerializeToString()


@pytest.mark.parametrize(
    ("records", "code", "told"),
    [
        (failing(), "INVALID_ARGUMENT", r"warm-up record 2 \(predict_log\): input size does not match signature"),
        ([b"\xff\xff"], "INVALID_ARGUMENT", "warm-up record 1 is no PredictionLog"),
        ([b""] * 1001, "INVALID_ARGUMENT", r"Number of warmup records exceeds the maximum \(1000\)"),
        (None, "DATA_LOSS", "Please verify your warmup data is in TFRecord format"),
    ],
)
def test_a_record_that_fails_fails_the_load(version, records, code, told, monkeypatch):
    closed, close = [], runtime.Loaded.close
    monkeypatch.setattr(runtime.Loaded, "close", lambda self: (closed.append(self), close(self)))
    if records is None:
        (version.folder / warm_up.FILE).write_text("no TFRecord" * 10)
    else:
        write(version, records)
    with pytest.raises(ServingError, match=told) as caught:
        loading.load(version)
    assert caught.value.code == code
    assert len(closed) == 1


def test_a_version_is_batched_after_its_own_file_or_not_at_all(version):
    for_all = batching.Batching(max_batch_size=4)
    few = {"images": np.ones((5, 2), np.float32)}
    with (
        loading.load(version, batching=for_all) as loaded,
        pytest.raises(RequestError, match="maximum input batch size 4"),
    ):
        loaded.run("serving_default", few)
    with loading.load(version, batching=for_all, per_model_batching=True) as loaded:
        assert len(loaded.run("serving_default", few)["scores"]) == 5
    (version.folder / batching.FILE).write_text("max_batch_size { value: 3 }")
    with (
        loading.load(version, batching=for_all, per_model_batching=True) as loaded,
        pytest.raises(RequestError, match="maximum input batch size 3"),
    ):
        loaded.run("serving_default", few)
    (version.folder / batching.FILE).write_text("max_batch_size")
    with pytest.raises(RequestError, match="batching parameters"):
        loading.load(version, per_model_batching=True)


RELOADS = """
import os, pathlib, shutil, sys
import numpy as np
from dmkeras.serving.batching import Batching
from dmkeras.serving.embedded.model_config import ModelConfig
from dmkeras.serving.embedded.servables import Servables

folder = pathlib.Path(sys.argv[1])

def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1])

servables = Servables([ModelConfig("m", str(folder))], poll_seconds=3600, batching=Batching(timeout_micros=0))
servables.start()
pages = {}
for number in range(2, 22):
    os.rename(folder / str(number - 1), folder / str(number))
    servables._look()
    with servables.use("m") as servable:
        assert servable.version == number
        servable.loaded.run("serving_default", {"x": np.ones((3, 2), np.float32)}, timeout=10)
    pages[number - 1] = resident()
servables.stop()
print(pages[5], pages[20])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_twenty_reloads_take_no_more_memory_than_five(tmp_path):
    model = tf.Module()
    model.weights = tf.Variable(tf.ones([2, 500_000]))
    spec = tf.TensorSpec([None, 2], tf.float32, name="x")
    function = tf.function(lambda x: {"y": x @ model.weights}, input_signature=[spec], autograph=False)
    tf.saved_model.save(model, str(tmp_path / "m" / "1"), signatures=function)
    command = [sys.executable, "-c", RELOADS, str(tmp_path / "m")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    after_5, after_20 = map(int, done.stdout.split())
    assert after_20 <= 1.05 * after_5
