"""Laws of `export(frozen=True)`: constants for variables, the same answers under the same names, in every loader."""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tensorflow.core.protobuf import saved_model_pb2

from dmkeras.serving import batching, model_card, runtime
from dmkeras.serving.export import export
from dmkeras.serving.exporting import frozen
from tests.serving.models import LABELS, SHAPE, Encoder
from tests.serving.test_c_api import INVALID_ARGUMENT, ask

IMAGE = tf.TensorSpec((None, *SHAPE), tf.float32, name="image")
INDEX = tf.TensorSpec((None,), tf.int32, name="index")


class Winding(keras.Model):
    """Variables read in a loop, in a branch, by row; under batch normalisation; one that requests count up."""

    def __init__(self, counts=False):
        super().__init__()
        self.counts = counts
        self.convolution = layers.Conv2D(4, 3, use_bias=False)
        self.normalization = layers.BatchNormalization()
        self.rows = layers.Embedding(5, 4)
        self.step = layers.Dense(4, "tanh")
        self.counter = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False)
        self(keras.Input(SHAPE))
        for name in ("gamma", "moving_variance", "moving_mean"):
            getattr(self.normalization, name).assign([0.5, 1.5, 0.7, 1.2])

    def call(self, image):
        image = tf.nn.relu(self.normalization(self.convolution(image), training=False))
        index = tf.zeros(tf.shape(image)[:1], tf.int32)
        return self.step(tf.reduce_mean(image, [1, 2])) + self.rows(index)

    def wind(self, image, index):
        code = tf.while_loop(lambda i, _: i < 3, lambda i, code: (i + 1, self.step(code)), (0, self(image)))[1]
        branch = lambda row: tf.cond(row[0] > 0, lambda: self.step(row[None])[0], lambda: row)
        if self.counts:
            self.counter.assign_add(1)
        return {"code": tf.map_fn(branch, code), "row": self.rows(index)}

    def signatures(self):
        return {"serving_default": (lambda image: {"code": self(image)}, [IMAGE]), "wind": (self.wind, [IMAGE, INDEX])}


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """The Encoder, whose table of names is read from a file, exported as it is and frozen."""
    folder = tmp_path_factory.mktemp("names")
    file = folder / "names.txt"
    file.write_text("\n".join(LABELS))
    model = Encoder(str(file))
    versions = [export(model, folder / "encoder", labels=LABELS, frozen=how) for how in (False, True)]
    file.unlink()
    return versions


@pytest.fixture(scope="module")
def winding(tmp_path_factory):
    model = Winding()
    base = tmp_path_factory.mktemp("winding")
    return [export(model, base / "winding", frozen=how) for how in (False, True)]


def meta_graph(version):
    return saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes()).meta_graphs[0]


def ops(graph_def):
    functions = [node.op for function in graph_def.library.function for node in function.node_def]
    return collections.Counter([*functions, *(node.op for node in graph_def.node)])


def assert_same(answer, expected):
    """Folded constants round otherwise: numbers by 1e-5, and where that falls between two levels, a pixel by one."""
    assert answer.keys() == expected.keys()
    for key, value in answer.items():
        if key.endswith("_bytes"):
            pixels, before = (
                np.stack([tf.io.decode_png(file) for file in files]).astype(int) for files in (value, expected[key])
            )
            off = np.abs(pixels - before)
            assert off.max() <= 1
            assert np.mean(off > 0) < 0.02
        elif value.dtype == object:
            assert value.tolist() == expected[key].tolist()
        else:
            np.testing.assert_allclose(value, expected[key], rtol=1e-5, atol=1e-6)


def test_a_frozen_version_has_no_variable_and_no_file_of_them(names, winding):
    for plain, cold in (names, winding):
        assert ops(meta_graph(plain).graph_def)["VarHandleOp"] > 4
        found = ops(meta_graph(cold).graph_def)
        assert not {"VarHandleOp", "ReadVariableOp", "AssignVariableOp", "RestoreV2", "SaveV2"} & set(found)
        files = {path.relative_to(cold).parts[0] for path in cold.rglob("*") if path.is_file()}
        assert files - {"assets"} == {"saved_model.pb", "assets.extra", "batching_params.pbtxt"}


def test_signatures_keep_their_names_dtypes_and_shapes(names, winding):
    for plain, cold in (names, winding):
        found, expected = meta_graph(cold).signature_def, meta_graph(plain).signature_def
        assert dict(found) == {name: definition for name, definition in expected.items() if name != runtime.INIT}
        assert runtime.described(cold) == runtime.described(plain)
        before, after = model_card.read(plain), model_card.read(cold)
        assert after["signatures"] == before["signatures"]
        assert (before["variant"]["frozen"], after["variant"]["frozen"]) == (False, True)
        assert "frozen: the variables are constants" in model_card.text("model", after).splitlines()
        assert "frozen" not in model_card.text("model", before)


def test_tables_samplers_and_pictures_answer_as_before(names, exported):
    plain, cold = names
    with runtime.Loaded(plain) as expected, runtime.Loaded(cold) as served:
        for name, request in exported.requests.items():
            assert_same(served.run(name, request), expected.run(name, request))


def test_variables_in_loops_branches_and_rows_are_folded(winding):
    plain, cold = winding
    request = {
        "image": np.random.default_rng(1).normal(size=(3, *SHAPE)).astype(np.float32),
        "index": np.int32([4, 0, 1]),
    }
    with runtime.Loaded(plain) as expected, runtime.Loaded(cold) as served:
        assert_same(served.run("wind", request), expected.run("wind", request))


def test_tensorflow_and_its_c_library_load_a_frozen_version(names, exported):
    plain, cold = names
    requests = {name: exported.requests[name] for name in ("serving_default", "sample")}
    with runtime.Loaded(plain) as served:
        expected = {name: served.run(name, request) for name, request in requests.items()}
    loaded = tf.saved_model.load(cold)
    assert set(loaded.signatures) == set(exported.requests)
    for name, request in requests.items():
        answer = loaded.signatures[name](**{key: tf.constant(value) for key, value in request.items()})
        assert_same({key: value.numpy() for key, value in answer.items()}, expected[name])
    wrong = ("serving_default", {"image": np.zeros((2, 8), np.float32)})
    *answers, (code, _, _) = ask(cold, [*requests.items(), wrong])
    assert code == INVALID_ARGUMENT  # and the process lives
    for name, (code, message, answer) in zip(requests, answers, strict=True):
        assert code == 0, message
        assert_same(answer, expected[name])


def test_callers_of_a_frozen_version_share_runs(winding):
    _, cold = winding
    request = {"image": np.ones((2, *SHAPE), np.float32)}
    with runtime.Loaded(cold) as expected, runtime.Loaded(cold, batching=batching.Batching()) as served:
        assert_same(served.run("serving_default", request), expected.run("serving_default", request))


def ops_that_run(version):
    """The ops of `serving_default` after the optimisations of the session that runs it."""
    options = tf.compat.v1.RunOptions(output_partition_graphs=True)
    seen, graph = tf.compat.v1.RunMetadata(), tf.Graph()
    with graph.as_default(), tf.compat.v1.Session() as session:
        definition = tf.compat.v1.saved_model.load(session, ["serve"], str(version)).signature_def["serving_default"]
        feed = {definition.inputs["image"].name: np.zeros((2, *SHAPE), np.float32)}
        session.run(definition.outputs["code"].name, feed, options=options, run_metadata=seen)
    return sum((ops(partition) for partition in seen.partition_graphs), collections.Counter())


def test_batch_normalisation_is_gone_from_the_graph_that_runs(winding):
    plain, cold = (ops_that_run(version) for version in winding)
    assert {"Rsqrt", "Mul"} <= set(plain)
    assert not {"Rsqrt", "Mul", "Sub", "FusedBatchNormV3"} & set(cold)


def test_a_variable_that_requests_write_cannot_be_frozen(tmp_path):
    with pytest.raises(ValueError, match=r"writes or looks up a variable in place \(AssignVariableOp"):
        export(Winding(counts=True), tmp_path / "counts", frozen=True)
    assert not list(tmp_path.iterdir())


def test_weights_beyond_what_a_graph_holds_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(frozen, "LIMIT", 100)
    with pytest.raises(ValueError, match=r"frozen graph of .* bytes, expected at most 100"):
        export(Winding(), tmp_path / "large", frozen=True)
    assert not list(tmp_path.iterdir())
