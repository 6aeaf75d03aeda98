"""TF Serving's calls, from proto to proto: what PredictionService and ModelService answer, without their sockets.

Codes and texts are TF Serving's (servables/tensorflow/predict_util.cc, multi_inference.cc, get_model_metadata_impl.cc,
model_servers/get_model_status_impl.cc, model_service_impl.cc), except that nodes of the graph go unnamed. Every call
raises ServingError and takes `timeout`, the seconds left for it.
"""

from tensorflow.core.protobuf import error_codes_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from dmkeras.serving.embedded import examples, model_config
from dmkeras.serving.embedded.tensors import TYPES, fill, to_array
from dmkeras.serving.errors import RequestError, ServingError

DEFAULT_SIGNATURE = "serving_default"
SIGNATURE_DEF = "signature_def"
METHODS = {  # MultiInference's method_name -> what checks the signature, what makes the result, and its field
    "tensorflow/serving/classify": (examples.check_classifies, examples.classifications, "classification_result"),
    "tensorflow/serving/regress": (examples.check_regresses, examples.regressions, "regression_result"),
}


def predict(servables, request, timeout=None):
    """PredictRequest -> PredictResponse: every output of the signature, or those of `output_filter`."""
    spec = _spec(request)
    with _use(servables, spec) as servable:
        loaded, signature = servable.loaded, spec.signature_name or DEFAULT_SIGNATURE
        if signature not in loaded.signatures:
            raise ServingError("FAILED_PRECONDITION", f'Serving signature key "{signature}" not found.')
        definition = loaded.definitions[signature]
        feed = _feed(definition, loaded.defaults.get(signature, {}), request.inputs)
        outputs = _filtered(definition, request.output_filter)
        answer = loaded.run(signature, feed, outputs=outputs, timeout=timeout)
    response = predict_pb2.PredictResponse()
    _echo(response, spec, servable)
    for name, array in answer.items():
        fill(response.outputs[name], array)
    return response


def classify(servables, request, timeout=None):
    """ClassificationRequest -> ClassificationResponse: labels and scores of every tf.Example."""
    return _infer(
        servables, request, classification_pb2.ClassificationResponse(), "tensorflow/serving/classify", timeout
    )


def regress(servables, request, timeout=None):
    """RegressionRequest -> RegressionResponse: one value for every tf.Example."""
    return _infer(servables, request, regression_pb2.RegressionResponse(), "tensorflow/serving/regress", timeout)


def multi_inference(servables, request, timeout=None):
    """MultiInferenceRequest -> MultiInferenceResponse: several signatures of one model on the same tf.Examples."""
    specs = [task.model_spec for task in request.tasks]
    response = inference_pb2.MultiInferenceResponse()
    with _use(servables, specs[0] if specs else inference_pb2.InferenceTask().model_spec) as servable:
        _check_tasks(request.tasks, servable.loaded)
        rows = examples.serialized(request.input)
        for task, spec in zip(request.tasks, specs, strict=True):
            _, make, field = METHODS[task.method_name]
            signature = spec.signature_name or DEFAULT_SIGNATURE
            answer = servable.loaded.run(signature, {examples.INPUTS: rows}, timeout=timeout)
            result = response.results.add()
            getattr(result, field).CopyFrom(make(answer, len(rows)))
            _echo(result, spec, servable)
    return response


def get_model_metadata(servables, request, timeout=None):
    """GetModelMetadataRequest -> GetModelMetadataResponse: the SignatureDefs, without their defaults."""
    spec = _spec(request)
    if not request.metadata_field:
        raise RequestError("GetModelMetadataRequest must specify at least one metadata_field")
    for field in request.metadata_field:
        if field != SIGNATURE_DEF:
            raise RequestError(f"Metadata field {field} is not supported")
    definitions = get_model_metadata_pb2.SignatureDefMap()
    with _use(servables, spec) as servable:
        for name, definition in servable.loaded.definitions.items():
            definitions.signature_def[name].CopyFrom(definition)
            definitions.signature_def[name].ClearField("defaults")
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name, response.model_spec.version.value = servable.name, servable.version
    response.metadata[SIGNATURE_DEF].Pack(definitions)
    return response


def get_model_status(servables, request, timeout=None):
    """GetModelStatusRequest -> GetModelStatusResponse: the state of one version or of all, the newest first."""
    response = get_model_status_pb2.GetModelStatusResponse()
    states = get_model_status_pb2.ModelVersionStatus.State
    spec = _spec(request)
    for status in servables.status(spec.name, **_version(spec)):
        version = response.model_version_status.add(version=status.version, state=states.Value(status.state))
        version.status.error_code = error_codes_pb2.Code.Value(status.code)
        version.status.error_message = status.message
    return response


def reload_config(servables, request, timeout=None):
    """ReloadConfigRequest -> ReloadConfigResponse: the set of models replaced; a bad set leaves the old one."""
    if request.config.WhichOneof("config") != "model_config_list":
        raise RequestError(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. "
            "Only ModelConfigList is currently supported"
        )
    servables.configure(model_config.from_proto(request.config))
    response = model_management_pb2.ReloadConfigResponse()
    response.status.error_code = error_codes_pb2.OK
    return response


def _spec(request):
    if not request.HasField("model_spec"):
        raise RequestError("Missing ModelSpec")
    return request.model_spec


def _version(spec):
    """The version of a ModelSpec as keywords: a number, a label, or none for the latest."""
    choice = spec.WhichOneof("version_choice")
    if choice == "version":
        return {"version": spec.version.value}
    return {"label": spec.version_label} if choice else {}


def _use(servables, spec):
    return servables.use(spec.name, **_version(spec))


def _echo(response, spec, servable):
    """The model that answered: the name asked for, the version that it came to, the signature."""
    response.model_spec.name = spec.name
    response.model_spec.version.value = servable.version
    response.model_spec.signature_name = spec.signature_name or DEFAULT_SIGNATURE


def _feed(definition, defaults, inputs):
    """A request's inputs and the signature's defaults as arrays of the signature's dtypes."""
    expected = sorted(definition.inputs)
    _check_names(expected, defaults, sorted(inputs))
    feed = {}
    for index, name in enumerate(expected):
        if name not in inputs:
            feed[name] = defaults[name]
            continue
        received, dtype = inputs[name].dtype, definition.inputs[name].dtype
        if received != dtype and received in TYPES:
            raise RequestError(
                f"Expects arg[{index}] to be {TYPES[dtype]} but {TYPES[received]} is provided: input {name!r}"
            )
        feed[name] = to_array(name, inputs[name])
    return feed


def _check_names(expected, defaults, received):
    extra, missing = sorted(set(received) - set(expected)), sorted(set(expected) - set(received))
    if len(received) > len(expected) or (len(received) < len(expected) and not defaults):
        raise RequestError(
            f"input size does not match signature: {len(received)}!={len(expected)} len({_set(received)}) != "
            f"len({_set(expected)}). Sent extra: {_set(extra)}. Missing but required: {_set(missing)}."
        )
    for name in missing:
        if name not in defaults:
            raise RequestError(
                f"Signature input alias: {name} not found in request and no default value provided. Inputs expected to "
                f"be in the request {_set(received)}, or default input alias set: {','.join(sorted(defaults))}"
            )
    if extra:
        used = sorted(set(received) - set(extra))
        raise RequestError(
            f"Inputs contains invalid name. Used request inputs: {','.join(used)}, request input: {','.join(received)}"
        )


def _filtered(definition, names):
    """The outputs of an `output_filter`; None for all."""
    for name in names:
        if name not in definition.outputs:
            raise RequestError(
                f"output tensor alias not found in signature: {name} Outputs expected to be in the set "
                f"{_set(sorted(definition.outputs))}."
            )
    duplicates = [name for index, name in enumerate(names) if name in names[:index]]
    if duplicates:
        raise RequestError(f"duplicate output tensor alias: {duplicates[0]}")
    return list(names) or None


def _infer(servables, request, response, method, timeout):
    spec = _spec(request)
    check, make, _ = METHODS[method]
    with _use(servables, spec) as servable:
        signature = spec.signature_name or DEFAULT_SIGNATURE
        if signature not in servable.loaded.signatures:
            raise RequestError(f"No signature was found with the name: {signature}")
        check(servable.loaded.definitions[signature])
        rows = examples.serialized(request.input)
        answer = servable.loaded.run(signature, {examples.INPUTS: rows}, timeout=timeout)
    response.result.CopyFrom(make(answer, len(rows)))
    _echo(response, spec, servable)
    return response


def _check_tasks(tasks, loaded):
    """One model, each signature once, all of them fed by one tensor."""
    model, seen, fed = tasks[0].model_spec.name, set(), set()
    for task in tasks:
        if not task.model_spec.name:
            raise RequestError("Found ModelSpec with an empty model name.")
        if task.model_spec.name != model:
            raise RequestError("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        signature = task.model_spec.signature_name or DEFAULT_SIGNATURE
        if signature in seen:
            raise RequestError(f"Duplicate evaluation of signature: {signature}")
        if signature not in loaded.signatures:
            raise RequestError(f"Requested signature not found in model graph: {signature}")
        if task.method_name not in METHODS:
            raise ServingError("UNIMPLEMENTED", f"Unsupported signature method_name: {task.method_name}")
        definition = loaded.definitions[signature]
        METHODS[task.method_name][0](definition)
        seen.add(signature)
        fed.add(definition.inputs[examples.INPUTS].name)
        if len(fed) > 1:
            raise RequestError("Input tensor must be the same for all Signatures.")


def _set(names):
    return f"{{{','.join(names)}}}"
