import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from dmkeras.serving.embedded import inference, tensors
from dmkeras.serving.embedded.model_config import ModelConfig
from dmkeras.serving.embedded.servables import Servables
from dmkeras.serving.errors import RequestError, ServingError
from tests.serving import multi

IMAGES = np.array([[1, 2], [3, 4]], np.float32)
CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return multi.write(tmp_path_factory.mktemp("saved_models"))


@pytest.fixture(scope="module")
def servables(folder):
    config = ModelConfig("multi", str(folder), policy=("all", None), labels={"stable": 1})
    servables = Servables([config], poll_seconds=0, warm_up=False)
    servables.start()
    yield servables
    servables.stop()


def predict(servables, signature="", *, model="multi", version=None, label=None, output_filter=(), **inputs):
    request = predict_pb2.PredictRequest(output_filter=output_filter)
    request.model_spec.name, request.model_spec.signature_name = model, signature
    if version is not None:
        request.model_spec.version.value = version
    if label is not None:
        request.model_spec.version_label = label
    for name, value in inputs.items():
        proto = value if isinstance(value, tensor_pb2.TensorProto) else tf.make_tensor_proto(value)
        request.inputs[name].CopyFrom(proto)
    return inference.predict(servables, request)


def example(x=(1, 2), **features):
    made = {"x": tf.train.Feature(float_list=tf.train.FloatList(value=x))} if x else {}
    for name, value in features.items():
        if isinstance(value, int):
            made[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        else:
            made[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    return tf.train.Example(features=tf.train.Features(feature=made))


def examples_request(kind, signature, *examples, model="multi", context=None):
    request = kind()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    if context is None:
        request.input.example_list.examples.extend(examples)
    else:
        request.input.example_list_with_context.examples.extend(examples)
        request.input.example_list_with_context.context.CopyFrom(context)
    return request


def multi_request(*tasks):
    request = inference_pb2.MultiInferenceRequest()
    for model, signature, method in tasks:
        task = request.tasks.add(method_name=method)
        task.model_spec.name, task.model_spec.signature_name = model, signature
    request.input.example_list.examples.append(example())
    return request


def refused(code, message, call, *args, **kwargs):
    """The call raises that code with that text, or, where the text ends in "...", one that begins so."""
    with pytest.raises(ServingError) as raised:
        call(*args, **kwargs)
    assert raised.value.code == code
    text = str(raised.value)
    assert text.startswith(message[:-3]) if message.endswith("...") else text == message
    assert "StatefulPartitionedCall" not in text
    assert "serving_default_" not in text


def test_an_answer_names_the_version_and_the_signature_that_it_came_from(servables):
    response = predict(servables, images=IMAGES)
    assert (response.model_spec.name, response.model_spec.version.value) == ("multi", 2)
    assert response.model_spec.signature_name == "serving_default"
    np.testing.assert_array_equal(tf.make_ndarray(response.outputs["scores"]), 2 * IMAGES)


def test_a_caller_chooses_the_version_by_number_or_label(servables):
    for choice in ({"version": 1}, {"label": "stable"}):
        response = predict(servables, "version", images=IMAGES, **choice)
        assert tf.make_ndarray(response.outputs["version"]).tolist() == [1, 1]
        assert response.model_spec.version.value == 1


def test_outputs_are_filtered_and_unknown_or_double_ones_refused(servables):
    assert set(predict(servables, "scaled", images=IMAGES[:1]).outputs) == {"scores", "mean"}
    assert list(predict(servables, "scaled", images=IMAGES[:1], output_filter=["mean"]).outputs) == ["mean"]
    refused(
        "INVALID_ARGUMENT",
        "output tensor alias not found in signature: zz Outputs expected to be in the set {mean,scores}.",
        predict, servables, "scaled", images=IMAGES[:1], output_filter=["zz"],
    )  # fmt: skip
    refused(
        "INVALID_ARGUMENT",
        "duplicate output tensor alias: mean",
        predict, servables, "scaled", images=IMAGES[:1], output_filter=["mean", "mean"],
    )  # fmt: skip


def test_an_input_with_a_default_may_be_left_out(servables):
    scores = lambda **inputs: tf.make_ndarray(
        predict(servables, "scaled", images=IMAGES[:1][:1], **inputs).outputs["scores"]
    )
    np.testing.assert_array_equal(scores(), IMAGES[:1])
    np.testing.assert_array_equal(scores(temperature=np.float32([2])), IMAGES[:1] / 2)


@pytest.mark.parametrize(
    ("signature", "inputs", "code", "message"),
    [
        ("zz", {"images": IMAGES}, "FAILED_PRECONDITION", 'Serving signature key "zz" not found.'),
        ("__saved_model_init_op", {}, "FAILED_PRECONDITION", "Serving signature key ..."),
        (
            "",
            {"images": IMAGES, "bogus": IMAGES},
            "INVALID_ARGUMENT",
            "input size does not match signature: 2!=1 len({bogus,images}) != len({images}). "
            "Sent extra: {bogus}. Missing but required: {}.",
        ),
        (
            "",
            {},
            "INVALID_ARGUMENT",
            "input size does not match signature: 0!=1 len({}) != len({images}). "
            "Sent extra: {}. Missing but required: {images}.",
        ),
        ("", {"bogus": IMAGES}, "INVALID_ARGUMENT", "Signature input alias: images not found in request..."),
        ("scaled", {"temperature": np.ones(2, "f")}, "INVALID_ARGUMENT", "Signature input alias: images not found..."),
        (
            "scaled",
            {"images": IMAGES, "bogus": IMAGES},
            "INVALID_ARGUMENT",
            "Inputs contains invalid name. Used request inputs: images, request input: bogus,images",
        ),
        (
            "",
            {"images": IMAGES.astype(np.float64)},
            "INVALID_ARGUMENT",
            "Expects arg[0] to be float but double is provided...",
        ),
        ("strings", {"text": IMAGES}, "INVALID_ARGUMENT", "Expects arg[0] to be string but float is provided..."),
        ("", {"images": IMAGES[0]}, "INVALID_ARGUMENT", "..."),
        ("", {"images": IMAGES[:, :1]}, "INVALID_ARGUMENT", "..."),
        ("checked", {"x": np.float32([-1])}, "INVALID_ARGUMENT", "..."),
    ],
)
def test_a_request_that_a_signature_cannot_take_gets_tf_servings_words(servables, signature, inputs, code, message):
    refused(code, message, predict, servables, signature, **inputs)


def test_a_request_needs_a_model_that_is_served(servables):
    refused("INVALID_ARGUMENT", "Missing ModelSpec", inference.predict, servables, predict_pb2.PredictRequest())
    refused("INVALID_ARGUMENT", "ModelSpec has no name specified.", predict, servables, model="")
    refused("NOT_FOUND", "Servable not found for request: Latest(none)", predict, servables, model="none")
    refused("NOT_FOUND", "Servable not found for request: Specific(multi, 99)", predict, servables, version=99)
    refused("INVALID_ARGUMENT", "Unrecognized servable version label: beta", predict, servables, label="beta")


@pytest.mark.parametrize("times", [1, 100], ids=["short", "long"])
@pytest.mark.parametrize("dtype", [*multi.ECHOES, "complex64", "complex128", "bfloat16"])
def test_every_dtype_comes_in_by_content_and_by_field_and_goes_out_by_field(dtype, times):
    values = [b"a\x00", b"", b"\xff"] if dtype == "string" else [0, 1, 1, 100]
    if dtype in multi.INTEGERS:
        values += [np.iinfo(dtype).min, np.iinfo(dtype).max, np.iinfo(dtype).max // 3]
    array = np.tile(np.array(values, tf.as_dtype(dtype).as_numpy_dtype), times)
    proto = tensor_pb2.TensorProto()
    tensors.fill(proto, array)
    assert not proto.tensor_content
    np.testing.assert_array_equal(tf.make_ndarray(proto), array)
    by_content = tensor_pb2.TensorProto(dtype=proto.dtype, tensor_shape=proto.tensor_shape)
    by_content.tensor_content = b"" if dtype == "string" else array.tobytes()
    for sent in (proto,) if dtype == "string" else (proto, by_content):
        received = tensors.to_array("x", sent)
        assert received.dtype == array.dtype
        np.testing.assert_array_equal(received, array)


def test_scalars_and_empty_batches_go_in_and_out(servables):
    assert tf.make_ndarray(predict(servables, "scalar", x=np.float32(3)).outputs["y"]) == 4
    empty = predict(servables, images=np.zeros((0, 2), np.float32)).outputs["scores"]
    assert tf.make_ndarray(empty).shape == (0, 2)
    assert tf.make_ndarray(predict(servables, "strings", text=np.zeros(0, object)).outputs["text"]).shape == (0,)
    proto = tensor_pb2.TensorProto()
    tensors.fill(proto, b"a\x00")
    assert tf.make_ndarray(proto).item() == b"a\x00"


def test_a_field_of_fewer_elements_repeats_its_last(servables):
    response = predict(servables, images=tf.make_tensor_proto(3.0, shape=[2, 2]))
    np.testing.assert_array_equal(tf.make_ndarray(response.outputs["scores"]), np.full((2, 2), 6))
    none = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING)
    none.tensor_shape.dim.add(size=2)
    assert tensors.to_array("text", none).tolist() == [b"", b""]


def claims(*sides, dtype=types_pb2.DT_FLOAT, unknown_rank=False, **fields):
    proto = tensor_pb2.TensorProto(dtype=dtype, **fields)
    proto.tensor_shape.unknown_rank = unknown_rank
    for side in sides:
        proto.tensor_shape.dim.add(size=side)
    return proto


@pytest.mark.parametrize(
    "proto",
    [
        claims(1, 2, tensor_content=b"\0" * 7),
        claims(1, 2, tensor_content=b"\0" * 12),
        claims(-1, 2, float_val=[1, 2]),
        claims(10**6, 10**6, float_val=[1]),
        claims(10**6, 10**6),
        claims(2**62, 2**62, float_val=[1]),
        claims(0, 2**62, 2**62),
        claims(*[1] * 100, float_val=[1]),
        claims(1, 2, float_val=[1, 2, 3]),
        claims(unknown_rank=True, float_val=[1]),
        claims(1, 2, dtype=types_pb2.DT_INVALID),
        claims(1, 2, dtype=777),
        claims(1, dtype=types_pb2.DT_STRING, tensor_content=b"\1a"),
        claims(1, dtype=types_pb2.DT_VARIANT),
    ],
    ids=range(14),
)
def test_a_tensor_that_contradicts_itself_is_refused_before_memory_is_taken(proto):
    refused("INVALID_ARGUMENT", "tensor parsing error: images: ...", tensors.to_array, "images", proto)


VALUES = {
    "float_val": st.floats(width=32),
    "double_val": st.floats(),
    "scomplex_val": st.floats(width=32),
    "int_val": st.integers(-(2**31), 2**31 - 1),
    "half_val": st.integers(-(2**31), 2**31 - 1),
    "int64_val": st.integers(-(2**63), 2**63 - 1),
    "uint64_val": st.integers(0, 2**64 - 1),
    "bool_val": st.booleans(),
    "string_val": st.binary(max_size=5),
}


@st.composite
def protos(draw):
    dtype = draw(st.sampled_from([*types_pb2.DataType.values(), 500, -1]))
    sides = draw(st.lists(st.integers(0, 4) | st.integers(-1, 2**62), max_size=4))
    proto = claims(*sides, dtype=dtype, tensor_content=draw(st.just(b"") | st.binary(max_size=40)))
    for field in draw(st.lists(st.sampled_from(list(VALUES)), max_size=3)):
        getattr(proto, field).extend(draw(st.lists(VALUES[field], max_size=6)))
    return proto


@hypothesis.settings(max_examples=200, deadline=None, database=None)
@hypothesis.given(protos())
def test_whatever_a_tensor_claims_it_is_read_as_it_says_or_refused(proto):
    try:
        array = tensors.to_array("x", proto)
    except RequestError:
        return
    assert array.shape == tuple(dim.size for dim in proto.tensor_shape.dim)
    written = tensor_pb2.TensorProto()
    tensors.fill(written, array)
    again = tensors.to_array("x", written)
    assert (written.dtype, again.dtype) == (proto.dtype, array.dtype)
    assert again.tolist() == array.tolist() if array.dtype == object else again.tobytes() == array.tobytes()


def test_a_tensor_that_cannot_be_read_is_named(servables):
    for proto in (claims(1, 2, tensor_content=b"\0" * 7), claims(1, 2, dtype=types_pb2.DT_INVALID)):
        refused("INVALID_ARGUMENT", "tensor parsing error: images: ...", predict, servables, images=proto)


@pytest.mark.parametrize("dtype", ["DT_VARIANT", "DT_RESOURCE", "DT_QINT8", "DT_FLOAT8_E5M2"])
def test_a_dtype_that_no_caller_can_send_is_named(servables, dtype):
    proto = claims(1, 2, dtype=types_pb2.DataType.Value(dtype))
    name = dtype.removeprefix("DT_").lower()
    message = f"Expects arg[0] to be float but {name} is provided..."
    refused("INVALID_ARGUMENT", message, predict, servables, images=proto)


def test_classify_answers_labels_and_scores_of_every_example(servables):
    request = examples_request(classification_pb2.ClassificationRequest, "classify", example([1, 2]), example([3, 4]))
    response = inference.classify(servables, request)
    assert response.model_spec.signature_name == "classify"
    assert response.model_spec.version.value == 2
    answer = [[(c.label, c.score) for c in row.classes] for row in response.result.classifications]
    assert answer == [[("cat", 2), ("dog", 4)], [("cat", 6), ("dog", 8)]]


def test_classify_answers_what_a_signature_has(servables):
    for signature, expected in (
        ("classify_scores", [("", 2), ("", 4)]),
        ("classify_classes", [("cat", 0), ("dog", 0)]),
    ):
        request = examples_request(classification_pb2.ClassificationRequest, signature, example([1, 2]))
        row = inference.classify(servables, request).result.classifications[0]
        assert [(c.label, c.score) for c in row.classes] == expected


def test_examples_share_a_context(servables):
    request = examples_request(
        regression_pb2.RegressionRequest, "regress", example([1, 2], name=b"abc"), example([0, 0]),
        context=example(None, count=5),
    )  # fmt: skip
    values = [regression.value for regression in inference.regress(servables, request).result.regressions]
    assert values == [2 * 3 + 5 + 3, 5]


def test_regress_takes_a_row_or_a_column_of_answers(servables):
    for signature in ("regress", "regress_column"):
        request = examples_request(regression_pb2.RegressionRequest, signature, example([1, 2]), example([3, 4]))
        response = inference.regress(servables, request)
        assert [regression.value for regression in response.result.regressions] == [6, 14]
        assert response.model_spec.signature_name == signature


@pytest.mark.parametrize(
    ("call", "signature", "code", "message"),
    [
        ("classify", "zz", "INVALID_ARGUMENT", "No signature was found with the name: zz"),
        ("regress", "zz", "INVALID_ARGUMENT", "No signature was found with the name: zz"),
        ("classify", "", "FAILED_PRECONDITION", "No classification inputs found in SignatureDef: ..."),
        ("regress", "", "FAILED_PRECONDITION", "No regression inputs found in SignatureDef: ..."),
        ("classify", "scaled", "INVALID_ARGUMENT", "Expected one input Tensor."),
        ("regress", "scaled", "INVALID_ARGUMENT", "Expected one input Tensor."),
        ("regress", "classify", "INVALID_ARGUMENT", "Expected one output Tensor."),
        ("regress", "classify_scores", "FAILED_PRECONDITION", "No regression outputs found in SignatureDef: ..."),
        (
            "classify",
            "regress",
            "FAILED_PRECONDITION",
            'Expected classification signature outputs to contain at least one of "classes" or "scores". '
            "Signature was: ...",
        ),
    ],
)
def test_a_signature_of_another_kind_is_told_what_is_expected(servables, call, signature, code, message):
    kinds = {"classify": classification_pb2.ClassificationRequest, "regress": regression_pb2.RegressionRequest}
    refused(code, message, getattr(inference, call), servables, examples_request(kinds[call], signature, example()))


def test_a_request_without_examples_is_refused(servables):
    message = "Input is empty."
    request = examples_request(classification_pb2.ClassificationRequest, "classify")
    refused("INVALID_ARGUMENT", message, inference.classify, servables, request)
    request.input.ClearField("example_list")
    refused("INVALID_ARGUMENT", message, inference.classify, servables, request)
    request = examples_request(regression_pb2.RegressionRequest, "regress", context=example())
    refused("INVALID_ARGUMENT", message, inference.regress, servables, request)
    request.ClearField("model_spec")
    refused("INVALID_ARGUMENT", "Missing ModelSpec", inference.regress, servables, request)


def test_answers_of_another_shape_or_dtype_are_refused_in_tf_servings_words():
    from dmkeras.serving.embedded.examples import classifications, regressions

    floats = lambda *shape: np.zeros(shape, np.float32)
    classes = np.full((2, 3), b"\xff", object)
    assert classifications({"classes": classes}, 2).classifications[0].classes[0].label == "\ufffd"
    for make, answer, message in (
        (classifications, {"scores": floats(2)}, "Expected Tensor shape: [batch_size num_classes] but got [2]"),
        (classifications, {"scores": floats(3, 1)}, "Expected scores output batch size of 2. Got: 3"),
        (classifications, {"scores": np.zeros((2, 3))}, "Expected scores Tensor of DT_FLOAT. Got: DT_DOUBLE"),
        (classifications, {"classes": floats(2, 3)}, "Expected classes Tensor of DT_STRING. Got: DT_FLOAT"),
        (
            classifications,
            {"classes": classes, "scores": floats(2, 4)},
            "Tensors class and score should match in dim_size(1). Got 3 vs. 4",
        ),
        (
            regressions,
            {"outputs": floats(2, 2)},
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [2,2]",
        ),
        (regressions, {"outputs": floats()}, "Expected output Tensor shape to be either [batch_size]..."),
        (regressions, {"outputs": floats(3)}, "Input batch size did not match output batch size: 2 vs. 3"),
        (regressions, {"outputs": np.zeros(2)}, "Expected output Tensor of DT_FLOAT.  Got: DT_DOUBLE"),
    ):
        refused("INVALID_ARGUMENT", message, make, answer, 2)


def test_multi_inference_answers_each_task_in_its_kind(servables):
    for signature, method, field in (
        ("classify", CLASSIFY, "classification_result"),
        ("regress", REGRESS, "regression_result"),
    ):
        result = inference.multi_inference(servables, multi_request(("multi", signature, method))).results[0]
        assert result.WhichOneof("result") == field
        assert result.model_spec.signature_name == signature
        assert result.model_spec.version.value == 2
    assert result.regression_result.regressions[0].value == 6


@pytest.mark.parametrize(
    ("tasks", "code", "message"),
    [
        ([], "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        ([("none", "classify", CLASSIFY)], "NOT_FOUND", "Servable not found for request: Latest(none)"),
        (
            [("multi", "classify", CLASSIFY), ("", "regress", REGRESS)],
            "INVALID_ARGUMENT",
            "Found ModelSpec with an empty model name.",
        ),
        (
            [("multi", "classify", CLASSIFY), ("other", "regress", REGRESS)],
            "INVALID_ARGUMENT",
            "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
        ),
        (
            [("multi", "classify", CLASSIFY), ("multi", "classify", CLASSIFY)],
            "INVALID_ARGUMENT",
            "Duplicate evaluation of signature: classify",
        ),
        (
            [("multi", "zz", CLASSIFY)],
            "INVALID_ARGUMENT",
            "Requested signature not found in model graph: zz",
        ),
        (
            [("multi", "classify", "tensorflow/serving/predict")],
            "UNIMPLEMENTED",
            "Unsupported signature method_name: tensorflow/serving/predict",
        ),
        (
            [("multi", "classify", CLASSIFY), ("multi", "regress", REGRESS)],
            "INVALID_ARGUMENT",
            "Input tensor must be the same for all Signatures.",
        ),
    ],
)
def test_multi_inference_takes_one_model_and_each_signature_once(servables, tasks, code, message):
    refused(code, message, inference.multi_inference, servables, multi_request(*tasks))


def test_metadata_is_the_signature_defs_without_their_defaults(servables):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "multi"
    response = inference.get_model_metadata(servables, request)
    assert (response.model_spec.version.value, response.model_spec.signature_name) == (2, "")
    definitions = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(definitions)
    scaled = definitions.signature_def["scaled"]
    assert set(scaled.inputs) == {"images", "temperature"}
    assert not scaled.defaults
    assert predict(servables, "scaled", images=IMAGES[:1]).outputs  # the model keeps its own
    request.metadata_field[:] = ["bogus"]
    message = "Metadata field bogus is not supported"
    refused("INVALID_ARGUMENT", message, inference.get_model_metadata, servables, request)
    del request.metadata_field[:]
    message = "GetModelMetadataRequest must specify at least one metadata_field"
    refused("INVALID_ARGUMENT", message, inference.get_model_metadata, servables, request)
    request.ClearField("model_spec")
    refused("INVALID_ARGUMENT", "Missing ModelSpec", inference.get_model_metadata, servables, request)


def status_request(name="multi", version=None):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = name
    if version is not None:
        request.model_spec.version.value = version
    return request


def test_status_tells_every_version_the_newest_first(servables):
    response = inference.get_model_status(servables, status_request())
    assert [(status.version, status.state) for status in response.model_version_status] == [(2, 30), (1, 30)]
    response = inference.get_model_status(servables, status_request(version=1))
    assert [status.version for status in response.model_version_status] == [1]
    for name, version, message in (
        ("none", None, "Could not find any versions of model none"),
        ("multi", 7, "Could not find version 7 of model multi"),
    ):
        refused("NOT_FOUND", message, inference.get_model_status, servables, status_request(name, version))
    empty = get_model_status_pb2.GetModelStatusRequest()
    refused("INVALID_ARGUMENT", "Missing ModelSpec", inference.get_model_status, servables, empty)


def test_a_new_configuration_replaces_the_models_and_a_bad_one_does_not(folder):
    servables = Servables([ModelConfig("multi", str(folder))], poll_seconds=0, warm_up=False)
    servables.start()
    request = model_management_pb2.ReloadConfigRequest()
    config = request.config.model_config_list.config.add(
        name="renamed", base_path=str(folder), model_platform="tensorflow"
    )
    config.model_version_policy.specific.versions.append(1)
    try:
        for change, code, message in (
            (
                {"base_path": "relative"},
                "INVALID_ARGUMENT",
                "Expected model renamed to have an absolute path or URI...",
            ),
            ({"model_platform": "other"}, "INVALID_ARGUMENT", "..."),
        ):
            bad = model_management_pb2.ReloadConfigRequest.FromString(request.SerializeToString())
            for field, value in change.items():
                setattr(bad.config.model_config_list.config[0], field, value)
            refused(code, message, inference.reload_config, servables, bad)
        unset = model_management_pb2.ReloadConfigRequest()
        message = (
            "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently..."
        )
        refused("INVALID_ARGUMENT", message, inference.reload_config, servables, unset)
        assert servables.names() == ["multi"]
        assert predict(servables, images=IMAGES).outputs
        assert inference.reload_config(servables, request).status.error_code == 0
        assert predict(servables, model="renamed", images=IMAGES).model_spec.version.value == 1
        refused("NOT_FOUND", "Servable not found for request: Latest(multi)", predict, servables, images=IMAGES)
    finally:
        servables.stop()


def test_a_run_ends_with_its_time(servables):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "multi", "slow"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.float32([1])))
    request.inputs["steps"].CopyFrom(tf.make_tensor_proto(np.int32([multi.MAX_STEPS])))
    refused("DEADLINE_EXCEEDED", "...", inference.predict, servables, request, timeout=0.1)
