"""Any SavedModel, loaded and asked: what comes back, and what a caller is told."""

import re
import shutil
import time

import numpy as np
import pytest
import tensorflow as tf

from dmkeras.serving import graph_errors, runtime
from dmkeras.serving.errors import RequestError, ServingError
from dmkeras.serving.folders import DamagedError, UnknownNameError
from dmkeras.serving.model_card import Tensor
from tests.serving import multi

TWO = np.ones((2, 2), np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return multi.write(tmp_path_factory.mktemp("runtime"), versions=(1,)) / "1"


@pytest.fixture(scope="module")
def loaded(folder):
    with runtime.Loaded(folder) as loaded:
        yield loaded


def test_tensors_of_every_dtype_come_back_as_they_went(loaded):
    for dtype in multi.ECHOES:
        values = [b"a\0\0", "\xe4".encode()] if dtype == "string" else [0, 1]
        x = np.array(values, tf.as_dtype(dtype).as_numpy_dtype)
        answer = loaded.run(f"echo_{dtype}", {"x": x})["y"]
        assert answer.dtype == x.dtype
        assert answer.tolist() == x.tolist()


def test_texts_of_every_kind_of_array_are_strings(loaded):
    for x in (np.array(["\xe4", "b"]), np.array(["\xe4".encode(), b"b"]), np.array(["\xe4", b"b"], object)):
        assert loaded.run("echo_string", {"x": x})["y"].tolist() == ["\xe4".encode(), b"b"]


def test_an_array_of_another_machine_or_with_gaps_is_read_aright(loaded):
    x = np.arange(6, dtype=np.float32)
    assert loaded.run("echo_float32", {"x": x.astype(">f4")})["y"].tolist() == x.tolist()
    assert loaded.run("echo_float32", {"x": x[::2]})["y"].tolist() == [0, 2, 4]


def test_scalars_any_rank_and_half_precision_are_answered_by_arrays(loaded):
    answer = loaded.run("scalar", {"x": np.float32(1)})["y"]
    assert isinstance(answer, np.ndarray)
    assert answer == 2
    for shape in ((), (2,), (1, 2, 1)):
        assert loaded.run("any_rank", {"x": np.zeros(shape, np.float32)})["y"].tolist() == np.ones(shape).tolist()
    assert loaded.run("half", {"x": np.ones(2, np.float32)})["y"].dtype == np.float16
    assert loaded.run("counted", {"images": TWO})["count"].shape == ()


def test_a_signature_tells_its_tensors_by_name_with_open_sides_and_an_open_rank(loaded):
    assert loaded.signatures["scaled"].inputs == [
        Tensor("images", "float32", (None, 2)),
        Tensor("temperature", "float32", (None,)),
    ]
    assert loaded.signatures["any_rank"].inputs == [Tensor("x", "float32", None)]
    assert loaded.signatures["half"].outputs == [Tensor("y", "float16", (None,))]
    assert loaded.definitions["scaled"].inputs["images"].name.startswith("scaled_images")


def test_a_graph_is_described_as_it_is_loaded(folder, loaded):
    described = {name: (signature.inputs, signature.outputs) for name, signature in loaded.signatures.items()}
    assert runtime.described(folder) == described


@pytest.mark.parametrize(
    ("signature", "feed", "told"),
    [
        ("serving_default", {}, r"serving_default: received inputs \[\], expected \['images'\]"),
        ("serving_default", {"images": TWO, "x": TWO}, r"received inputs \['images', 'x'\], expected \['images'\]"),
        ("serving_default", {"images": TWO.astype(np.float64)}, r"'images' is float64 \[2, 2\], expected float32"),
        ("serving_default", {"images": TWO[0]}, r"input 'images' is float32 \[2\], expected float32 \[B, 2\]"),
        ("serving_default", {"images": TWO[:, :1]}, r"input 'images' is float32 \[2, 1\], expected float32 \[B, 2\]"),
        ("scalar", {"x": TWO}, r"input 'x' is float32 \[2, 2\], expected float32 \[\]"),
        ("any_rank", {"x": np.int32(1)}, r"input 'x' is int32 \[\], expected float32 of any shape"),
        ("echo_string", {"x": np.array([1, None], object)}, r"input 'x' is object \[2\], expected string \[B\]"),
        ("slow", {"x": np.ones(2, np.float32), "steps": np.ones(3, np.int32)}, r"batches of {'steps': 3, 'x': 2} rows"),
        ("conv", {"pictures": TWO}, r"input 'pictures' is float32 \[2, 2\], expected float32 \[B, 8, 8, 1\]"),
    ],
)
def test_what_a_signature_cannot_take_is_refused_with_the_tensor_what_came_and_what_was_expected(
    loaded, signature, feed, told
):
    with pytest.raises(RequestError, match=told):
        loaded.run(signature, feed)


def test_a_signature_that_is_not_there_is_named(loaded):
    with pytest.raises(UnknownNameError, match="no signature 'zzz'"):
        loaded.run("zzz", {})


def test_an_input_with_a_default_may_be_one_row_for_all(loaded):
    assert loaded.defaults["scaled"]["temperature"].tolist() == [1]
    assert loaded.defaults["serving_default"] == {}
    answer = loaded.run("scaled", {"images": TWO, "temperature": np.array([2], np.float32)})
    assert answer["scores"].tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_only_the_outputs_wanted_come_back(loaded):
    feed = {"images": TWO, "temperature": np.ones(2, np.float32)}
    assert list(loaded.run("scaled", feed)) == ["mean", "scores"]
    assert list(loaded.run("scaled", feed, outputs=["scores"])) == ["scores"]


def test_an_error_that_quotes_bytes_is_told(loaded):
    with pytest.raises(RequestError, match="Could not parse example input") as failure:
        loaded.run("classify", {"inputs": np.array([b"\xff\xfe"], object)})
    assert "codec" not in str(failure.value)


def test_a_failing_graph_is_told_in_its_own_words_without_nodes(loaded):
    with pytest.raises(RequestError) as caught:
        loaded.run("decode", {"image_bytes": np.array([b"junk"], object)})
    assert str(caught.value) == "Unknown image file format. One of JPEG, JPEG XL, PNG, GIF, BMP, WebP required."
    with pytest.raises(RequestError) as caught:
        loaded.run("checked", {"x": -np.ones(1, np.float32)})
    assert str(caught.value) == "assertion failed: [x must be positive]"


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("Bad rank.\n\t [[{{node model/conv}}]]", "Bad rank."),
        ("{{function_node __inference_f_12}} {{node a/b}} Bad rank. [[a/b]]", "Bad rank."),
        (
            "2 root error(s) found.\n  (0) INVALID_ARGUMENT: Bad rank.\n\t [[{{node a}}]]\n  (1) INVALID_ARGUMENT: B",
            "Bad rank.",
        ),
        ("assertion failed: [no] [x (model/Shape_1:0) = ] [2]", "assertion failed: [no] [x = ] [2]"),
        ("cannot open /srv/models/vae/1/variables/x and /srv/secret/key.pem", "cannot open variables/x and a file"),
        ("in /srv/models/vae/1", "in the version"),
        (
            "Graph execution error:\n\nRead less bytes than requested\n\t [[{{node Restore}}]]",
            "Read less bytes than requested",
        ),
        (
            'Graph execution error:\n\nDetected at node a defined at (last):\n  File "/x.py", line 1, in f\n\nBad.',
            "Bad.",
        ),
        ("Graph execution error:", "Graph execution error:"),
        (
            "Status: 1, message: out of memory, in file tensorflow/core/mkl_pool.cc:211",
            "Status: 1, message: out of memory",
        ),
        ("OOM with shape[4] on /job:localhost/task:0/device:CPU:0 by allocator mklcpu", "OOM with shape[4]"),
        ("", "InvalidArgumentError"),
    ],
)
def test_no_nodes_and_no_paths_are_told(message, told):
    error = tf.errors.InvalidArgumentError(None, None, message)
    assert str(graph_errors.serving_error(error, "/srv/models/vae/1")) == told


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (tf.errors.ResourceExhaustedError(None, None, "OOM"), "RESOURCE_EXHAUSTED"),
        (tf.errors.UnimplementedError(None, None, "no"), "UNIMPLEMENTED"),
        (tf.errors.InternalError(None, None, "no"), "INTERNAL"),
        (ServingError("ABORTED", "no"), "ABORTED"),
        (MemoryError(), "INTERNAL"),
    ],
)
def test_an_error_keeps_its_code(error, code):
    assert graph_errors.serving_error(error, "/srv").code == code


def test_shapes_that_a_primitive_cannot_take_are_the_callers_fault_by_name(loaded, monkeypatch):
    told = "Compute received an exception:Status: {}, message: could not create a descriptor, in file a/b.cc:2"
    for status, code, message in [
        (2, "INVALID_ARGUMENT", "any_rank: the graph cannot take inputs of these shapes: 'x' is [1, 3]; could not"),
        (1, "ABORTED", "Status: 1"),  # out of memory
    ]:
        error = graph_errors.serving_error(tf.errors.AbortedError(None, None, told.format(status)), "/srv")

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr(loaded, "_run", fail)
        with pytest.raises(ServingError, match=re.escape(message)) as caught:
            loaded.run("any_rank", {"x": np.zeros((1, 3), np.float32)})
        assert caught.value.code == code
        assert ".cc" not in str(caught.value)


def test_a_run_that_takes_too_long_is_given_up(loaded):
    feed = {"x": np.ones(1, np.float32), "steps": np.array([multi.MAX_STEPS], np.int32)}
    start = time.monotonic()
    for timeout in (0.1, 0, -1):
        with pytest.raises(ServingError) as caught:
            loaded.run("slow", feed, timeout=timeout)
        assert caught.value.code == "DEADLINE_EXCEEDED"
    assert time.monotonic() - start < 5
    for timeout in (60, float("inf")):
        assert loaded.run("slow", feed | {"steps": np.array([1], np.int32)}, timeout=timeout)["y"] == 0.5


def test_a_run_costs_less_than_that_of_a_plain_session(folder, loaded):
    signature = loaded.definitions["serving_default"]
    feed = {signature.inputs["images"].name: TWO}
    fetch = signature.outputs["scores"].name

    def quickest(function):
        times = []
        for _ in range(200):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
        return min(times)

    plain = quickest(lambda: loaded._session.run([fetch], feed))
    assert quickest(lambda: loaded.run("serving_default", {"images": TWO}, timeout=30)) < plain


@pytest.fixture(scope="module")
def old_style(tmp_path_factory):
    """A TensorFlow 1 graph: one signature answers what it is fed, one has a sparse input, one no call of a function."""
    folder = tmp_path_factory.mktemp("old") / "1"
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [None], "x")
        sparse = tf.compat.v1.sparse_placeholder(tf.float32, [None, 2], "sparse")
        variable = tf.compat.v1.get_variable("w", initializer=3.0, use_resource=False)
        session.run(tf.compat.v1.global_variables_initializer())
        make = tf.compat.v1.saved_model.signature_def_utils.build_signature_def
        info = tf.compat.v1.saved_model.build_tensor_info
        signatures = {
            "same": make({"x": info(x)}, {"y": info(x)}),
            "product": make({"x": info(x)}, {"y": info(x * variable), "w": info(variable)}),
            "sparse": make({"x": info(sparse)}, {"y": info(tf.sparse.to_dense(sparse))}),
        }
        builder = tf.compat.v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=signatures)
        builder.save()
    return folder


def test_a_graph_of_tensorflow_1_answers(old_style):
    x = np.array([1, 2], np.float32)
    with runtime.Loaded(old_style) as loaded:
        assert loaded.run("same", {"x": x})["y"].tolist() == [1, 2]
        answer = loaded.run("product", {"x": x})
        assert (answer["y"].tolist(), answer["w"].tolist()) == ([3, 6], 3)
        assert "sparse" in loaded.definitions
        assert "sparse" not in loaded.signatures


def damage(folder, how):
    if how == "junk":
        (folder / "saved_model.pb").write_bytes(b"junk")
    elif how == "no variables":
        (folder / "variables" / "variables.index").unlink()
    elif how == "short variables":
        path = next((folder / "variables").glob("*.data*"))
        path.write_bytes(path.read_bytes()[:3])
    elif how == "no tag":
        message = runtime.saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        message.meta_graphs[0].meta_info_def.tags[:] = ["train"]
        (folder / "saved_model.pb").write_bytes(message.SerializeToString())
    elif how == "unknown op":
        message = runtime.saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        message.meta_graphs[0].graph_def.node[0].op = "NobodysOp"
        (folder / "saved_model.pb").write_bytes(message.SerializeToString())


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("junk", "DATA_LOSS"),
        ("no variables", "DATA_LOSS"),
        ("short variables", "OUT_OF_RANGE"),
        ("no tag", "NOT_FOUND"),
        ("unknown op", "NOT_FOUND"),
        ("nothing", "NOT_FOUND"),
    ],
)
def test_a_version_that_cannot_be_loaded_says_why_without_paths(old_style, tmp_path, how, code):
    folder = tmp_path / "name" / "1"
    if how != "nothing":
        shutil.copytree(old_style, folder)
    damage(folder, how)
    with pytest.raises(graph_errors.LoadError) as caught:
        runtime.Loaded(folder)
    assert isinstance(caught.value, DamagedError)
    assert caught.value.code == code
    assert str(tmp_path) not in caught.value.message
    assert str(folder) in str(caught.value)


def test_memory_is_given_back_whatever_the_c_library():
    runtime.trim()
