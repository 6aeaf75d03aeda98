"""Laws of `dmkeras.export`: what a version holds, what is refused, and that a failure leaves nothing."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from tensorflow.core.protobuf import saved_model_pb2

from dmkeras.serving import curl, folders, model_card, rest_json, runtime, warm_up
from dmkeras.serving.export import export
from dmkeras.serving.exporting import comparison, graph_rules
from tests.serving.models import LABELS, SHAPE, Encoder, OneEndpoint, mean


def meta_graph(version):
    return saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes()).meta_graphs[0]


def test_a_version_holds_what_tf_serving_reads_and_nothing_else(exported):
    assert exported.version == exported.base / "encoder" / "1"
    files = {str(path.relative_to(exported.version)) for path in exported.version.rglob("*") if path.is_file()}
    assert files == {
        "saved_model.pb",
        "fingerprint.pb",
        "variables/variables.index",
        "variables/variables.data-00000-of-00001",
        "batching_params.pbtxt",
        "assets.extra/tf_serving_warmup_requests",
        "assets.extra/model_card.json",
        "assets.extra/labels.txt",
    }
    assert not folders.drafts(exported.version.parent)
    assert (exported.version / "assets.extra/labels.txt").read_text().splitlines() == LABELS


def test_every_tensor_keeps_its_name_and_has_the_batch_first(exported):
    definitions = meta_graph(exported.version).signature_def
    signatures = exported.model.signatures()
    assert set(definitions) - {"__saved_model_init_op"} == set(signatures)
    for name, (_, specs) in signatures.items():
        inputs = {key: tf.TensorSpec(info.tensor_shape, info.dtype) for key, info in definitions[name].inputs.items()}
        assert inputs == {spec.name: tf.TensorSpec(spec.shape, spec.dtype) for spec in specs}
        for info in definitions[name].outputs.values():
            assert info.tensor_shape.dim[0].size == -1
            assert tf.as_dtype(info.dtype).name in graph_rules.DTYPES


def test_every_signature_answers_as_the_model(exported, served):
    for name, request in exported.requests.items():
        function, specs = exported.model.signatures()[name]
        expected = function(*[request[spec.name] for spec in specs])
        answer = served.run(name, request)
        assert answer.keys() == expected.keys()
        for key, value in answer.items():
            if value.dtype == object:
                assert value.tolist() == expected[key].numpy().tolist()
            else:
                np.testing.assert_allclose(value, expected[key], rtol=1e-5, atol=1e-6)


def test_a_row_is_answered_the_same_whoever_shares_its_batch(exported, served):
    for name, request in exported.requests.items():
        together = served.run(name, request)
        for row in range(3):
            alone = served.run(name, {key: value[row : row + 1] for key, value in request.items()})
            for key, value in alone.items():
                if value.dtype == object:
                    assert value[0] == together[key][row]
                else:
                    np.testing.assert_allclose(value[0], together[key][row], rtol=1e-5, atol=1e-6)


def test_a_sample_is_a_function_of_its_own_seed(served):
    seeds = np.array([[1, 2], [9, 9], [1, 2]], np.int32)
    images = served.run("sample", {"seed": seeds, "temperature": np.ones(3, np.float32)})["image"]
    np.testing.assert_array_equal(images[0], images[2])
    assert not np.allclose(images[0], images[1])


def test_the_first_op_on_every_input_is_ensure_shape(exported):
    loaded = tf.saved_model.load(exported.version)
    for name, (_, specs) in exported.model.signatures().items():
        inputs = {spec.name for spec in specs}
        library = loaded.signatures[name].graph.as_graph_def().library.function
        (body,) = [function for function in library if inputs <= {arg.name for arg in function.signature.input_arg}]
        users = {key: [node.op for node in body.node_def if key in node.input] for key in inputs}
        assert users == {key: ["EnsureShape"] for key in inputs}


WRONG_RANK = """
import sys, tensorflow as tf
signature = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
try:
    signature(image=tf.zeros((2, 8)))
except tf.errors.InvalidArgumentError as error:
    print("refused:", error.message)
print(signature(image=tf.zeros((2, 8, 8, 1)))["code"].shape)
"""


def test_a_request_of_the_wrong_rank_is_refused_by_the_loaded_signature_and_does_not_abort(exported):
    command = [sys.executable, "-c", WRONG_RANK, str(exported.version)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stderr
    assert "refused:" in process.stdout
    assert "(2, 4)" in process.stdout


def test_warm_up_records_are_byte_for_byte_those_of_the_serving_api():
    prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2", reason="the [serve] extra")
    feed = {
        "image": np.random.default_rng(0).random((1, *SHAPE), np.float32),
        "seed": np.array([[1, 2]], np.int32),
        "a_name_before": np.array([b"\x00\xff" * 100], object),
    }
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.model_spec.name = "encoder"
    log.predict_log.request.model_spec.signature_name = "sample"
    for name, array in feed.items():
        log.predict_log.request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    ours = warm_up.prediction_log("encoder", "sample", feed)
    assert ours == log.SerializeToString(deterministic=True)
    assert prediction_log_pb2.PredictionLog.FromString(ours) == log


def test_every_signature_has_a_warm_up_record_that_runs(exported, served):
    records = warm_up.read(exported.version / warm_up.FILE)
    assert {name for name, _ in records} == set(exported.model.signatures())
    for name, request in records:
        specs = exported.model.signatures()[name][1]
        for key, array in warm_up.example_feed(specs).items():
            np.testing.assert_array_equal(request[key], array)
        assert all(len(value) == 1 for value in served.run(name, request).values())


def batching_parameters(text):
    """The text as TF Serving parses it (session_bundle_config.proto, message BatchingParameters)."""
    file = descriptor_pb2.FileDescriptorProto(name="batching.proto", dependency=["google/protobuf/wrappers.proto"])
    message = file.message_type.add(name="BatchingParameters")
    field = descriptor_pb2.FieldDescriptorProto
    for number, name in enumerate(("max_batch_size", "batch_timeout_micros", "max_enqueued_batches"), 1):
        kind = ".google.protobuf.Int64Value"
        message.field.add(name=name, number=number, type=field.TYPE_MESSAGE, type_name=kind, label=field.LABEL_OPTIONAL)
    message.field.add(name="allowed_batch_sizes", number=6, type=field.TYPE_INT64, label=field.LABEL_REPEATED)
    pool = descriptor_pool.DescriptorPool()
    wrappers = descriptor_pb2.FileDescriptorProto(name="google/protobuf/wrappers.proto", package="google.protobuf")
    value = wrappers.message_type.add(name="Int64Value")
    value.field.add(name="value", number=1, type=field.TYPE_INT64, label=field.LABEL_OPTIONAL)
    pool.Add(wrappers)
    pool.Add(file)
    return text_format.Parse(text, message_factory.GetMessageClass(pool.FindMessageTypeByName("BatchingParameters"))())


def test_batching_parameters_parse_and_the_allowed_sizes_end_at_the_largest(exported):
    parameters = batching_parameters((exported.version / "batching_params.pbtxt").read_text())
    sizes = list(parameters.allowed_batch_sizes)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == parameters.max_batch_size.value == 32


def test_pictures_of_any_size_are_not_batched(tmp_path):
    model = OneEndpoint(mean, [tf.TensorSpec((None, None, None, 3), tf.float32, name="image")])
    version = export(model, tmp_path / "any", warmup=False)
    assert not (version / "batching_params.pbtxt").exists()
    assert not (version / warm_up.FILE).exists()


def test_every_weight_is_written_once(exported):
    checkpoint = tf.train.load_checkpoint(str(exported.version / "variables" / "variables"))
    shapes = [
        shape for name, shape in checkpoint.get_variable_to_shape_map().items() if name.endswith("VARIABLE_VALUE")
    ]
    assert sum(int(np.prod(shape)) for shape in shapes) == exported.model.count_params()


def test_the_card_says_what_the_graph_says(exported):
    card = model_card.read(exported.version)
    assert card["signatures"] == model_card.describe("encoder", runtime.described(exported.version))
    assert next(iter(card["signatures"])) == "serving_default"
    assert (card["class"], card["module"]) == ("Encoder", "tests.serving.models")
    assert card["config"] == {"labels_file": None, "name": exported.model.name}
    assert card["parameters"] == exported.model.count_params()
    assert card["labels"] == LABELS
    assert card["software"]["tensorflow"] == tf.__version__
    (image,) = card["signatures"]["serving_default"]["inputs"]
    assert image == {"name": "image", "dtype": "float32", "shape": [None, *SHAPE], "unit": "values in [0, 1]"}


def test_every_curl_line_is_a_request_that_the_signature_answers(exported, served, tmp_path):
    curl = tmp_path / "curl"
    curl.write_text('#!/bin/sh\necho "$3" >&2\nif [ "$2" = "@-" ]; then cat; else echo "$2"; fi\n')
    curl.chmod(0o755)
    (tmp_path / "picture.png").write_bytes(exported.requests["classify_bytes"]["image_bytes"][0])
    for name, signature in model_card.read(exported.version)["signatures"].items():
        asked = subprocess.run(
            ["sh", "-c", signature["curl"]],
            cwd=tmp_path,
            env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
        )
        assert asked.stderr.strip() == "http://localhost:8501/v1/models/encoder:predict"
        body = json.loads(asked.stdout)
        assert body.pop("signature_name", "serving_default") == name
        feed = rest_json.decode(body, served.signatures[name].inputs)
        assert len(rest_json.encode(served.run(name, feed))["predictions"]) == 1


def test_a_table_of_names_in_the_graph_is_initialised_where_it_is_loaded(exported, served, tmp_path):
    answer = served.run("serving_default", exported.requests["serving_default"])
    expected = [LABELS[index].encode() for index in answer["code"].argmax(-1)]
    assert answer["classes"].tolist() == expected
    names = tmp_path / "names.txt"
    names.write_text("\n".join(LABELS))
    model = Encoder(str(names))
    version = export(model, tmp_path / "encoder")
    names.unlink()  # the version carries its own copy, under assets/
    moved = shutil.move(version, tmp_path / "moved")
    with runtime.Loaded(moved) as loaded:
        answer = loaded.run("serving_default", exported.requests["serving_default"])
    assert answer["classes"].tolist() == [LABELS[index].encode() for index in answer["code"].argmax(-1)]


def test_a_version_follows_the_last_and_leaves_it_as_it_was(exported, tmp_path):
    first = export(OneEndpoint(mean), tmp_path / "mean")
    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    second = export(OneEndpoint(lambda image: {"mean": tf.reduce_max(image, [1, 2, 3])}), tmp_path / "mean")
    assert [first.name, second.name] == ["1", "2"]
    assert before == {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}


def test_a_version_that_answers_otherwise_than_the_model_is_never_published(tmp_path, monkeypatch):
    export(OneEndpoint(mean), tmp_path / "mean")
    run = runtime.Loaded.run

    def off_by_a_little(self, name, feed):
        return {key: value * np.float32(1.01) for key, value in run(self, name, feed).items()}

    monkeypatch.setattr(runtime.Loaded, "run", off_by_a_little)
    with pytest.raises(ValueError, match="gives two answers 'mean' to one request"):
        export(OneEndpoint(mean), tmp_path / "mean")
    assert [entry.name for entry in (tmp_path / "mean").iterdir()] == ["1"]


def test_a_signature_whose_inputs_cannot_be_any_numbers_is_given_its_own_example(tmp_path):
    def rows_of(table):
        return lambda index: {"row": tf.gather(tf.constant(table), index)}

    model = OneEndpoint(rows_of([5.0]), [tf.TensorSpec((None,), tf.int32, name="index")])
    with pytest.raises((tf.errors.OpError, rest_json.RequestError)) as raised:
        export(model, tmp_path / "rows")
    assert "warmup={'serving_default'" in raised.value.__notes__[0]
    version = export(model, tmp_path / "rows", warmup={"serving_default": {"index": [0]}})
    assert warm_up.read(version / warm_up.FILE)[0][1] == {"index": np.array([0])}
    wrong = ({"serving_defualt": {}}, {"serving_default": {"i": [0]}}, {"serving_default": {"index": [[0]]}})
    for warmup, message in zip(wrong, ("did you mean", "expected .'index'.", "'index' of .1, 1."), strict=True):
        with pytest.raises((LookupError, ValueError), match=message):
            export(model, tmp_path / "rows", warmup=warmup)


def test_a_request_is_checked_before_it_runs(served, exported):
    image = exported.requests["serving_default"]["image"]
    for feed, message in (
        ({"image": image[0]}, r"'image' is float32 \[8, 8, 1\], expected float32 \[B, 8, 8, 1\]"),
        ({"image": image.astype(np.float64)}, "'image' is float64"),
        ({"picture": image}, r"received inputs \['picture'\], expected \['image'\]"),
    ):
        with pytest.raises(rest_json.RequestError, match=message):
            served.run("serving_default", feed)
    uneven = {"seed": np.zeros((2, 2), np.int32), "temperature": np.ones(3, np.float32)}
    with pytest.raises(rest_json.RequestError, match="expected one size"):
        served.run("sample", uneven)
    with pytest.raises(folders.UnknownNameError, match="did you mean sample"):
        served.run("smple", {})


def test_an_error_inside_the_graph_names_no_graph_node(served):
    with pytest.raises(rest_json.RequestError) as raised:
        served.run("classify_bytes", {"image_bytes": np.array([b"no picture"], object)})
    assert "Unknown image file format" in str(raised.value)
    assert "{{" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_damaged_version_is_called_by_its_name(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"junk")
    for read in (runtime.Loaded, runtime.described):
        with pytest.raises(folders.DamagedError, match="cannot be"):
            read(tmp_path)


EXPORTER = """
import os, pathlib, signal, sys
from dmkeras.serving import folders
from dmkeras.serving.export import export
from tests.serving.models import OneEndpoint, mean
from tests.serving.test_export import together

directory = pathlib.Path(sys.argv[1])
folders.publish = together("child", folders.publish)
print(export(OneEndpoint(mean), directory).name, flush=True)
os.rename = lambda old, new: os.kill(os.getpid(), signal.SIGKILL)  # all is written, nothing published
export(OneEndpoint(mean), directory)
"""


def together(name, publish):
    """`publish`, held back until two exports are about to publish."""

    def held(draft):
        (draft.parent / f"ready.{name}").touch()
        while len(list(draft.parent.glob("ready.*"))) < 2:
            time.sleep(0.01)
        return publish(draft)

    return held


def test_racing_exports_get_a_version_each_and_a_killed_one_harms_nobody(tmp_path, monkeypatch):
    directory = tmp_path / "mean"
    first = export(OneEndpoint(mean), directory)
    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    command = [sys.executable, "-c", EXPORTER, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        with monkeypatch.context() as patch:
            patch.setattr(folders, "publish", together("parent", folders.publish))
            ours = export(OneEndpoint(mean), directory).name
        out, err = child.communicate(timeout=600)
    assert child.returncode == -signal.SIGKILL, err
    assert {ours, out.strip()} == {"2", "3"}
    (left_over,) = folders.drafts(directory)
    assert (left_over / "saved_model.pb").exists()
    assert list(folders.versions(directory)) == [1, 2, 3]
    assert before == {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    for version in folders.versions(directory).values():
        with runtime.Loaded(version) as loaded:
            image = np.ones((2, *SHAPE), np.float32)
            np.testing.assert_allclose(loaded.run("serving_default", {"image": image})["mean"], 1)
    assert export(OneEndpoint(mean), directory).name == "4"


def test_numbers_are_compared_within_a_ten_thousandth_and_the_rest_exactly():
    same = comparison._same
    assert same(np.float32([1, np.nan]), np.float32([1.0001, np.nan]))
    assert not same(np.float32([1]), np.float32([1.001]))
    assert not same(np.int32([1]), np.int32([2]))
    assert not same(np.int32([1]), np.int64([1]))
    assert not same(np.zeros((2, 1)), np.zeros((1, 2)))
    assert not same(np.array([b"a"], object), np.array([b"b"], object))


def test_example_pictures_are_of_zeros_and_ones_which_models_of_binary_pixels_take_too():
    specs = [tf.TensorSpec((None, 4, 4, 1), "float32", name=name) for name in ("images", "known_mask", "z")]
    feed = warm_up.example_feed(specs, range(3))
    assert set(np.unique(feed["images"])) == set(np.unique(feed["known_mask"])) == {0, 1}
    assert len(np.unique(feed["z"])) > 2
    images = model_card.Tensor("images", "float32", (None, 2, 2))
    assert "0.5" not in curl.curl("m", "serving_default", [images])
