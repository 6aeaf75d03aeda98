"""Which models a server serves: TF Serving's models.config (config/model_server_config.proto) and its rules."""

import os
import typing

from google.protobuf import text_format

from dmkeras.serving.errors import RequestError, ServingError

LATEST = ("latest", 1)


class ModelConfig(typing.NamedTuple):
    """A model: the folder that holds its versions, which of them are served, and names for some of them."""

    name: str
    base_path: str
    policy: tuple = LATEST  # ("latest", how many), ("all", None) or ("specific", (version, ...))
    labels: dict = {}  # {label: version}


def parse(text):
    """The text of a models.config as [ModelConfig]; None where it sets nothing. Raises as `from_proto` does."""
    from tensorflow_serving.config import model_server_config_pb2

    try:
        config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    except text_format.ParseError as error:
        raise RequestError(f"expected a ModelServerConfig: {error}") from None
    return from_proto(config)


def from_proto(config):
    """A ModelServerConfig as [ModelConfig]; None where it sets nothing, which changes nothing in TF Serving.

    Raises:
        RequestError: for what TF Serving refuses: one name twice, a relative path, a platform that it has not.
        ServingError: FAILED_PRECONDITION for a custom_model_config.
    """
    kind = config.WhichOneof("config")
    if kind is None:
        return None
    if kind != "model_config_list":
        raise ServingError(
            "FAILED_PRECONDITION",
            "Cannot transition to requested config. It is only legal to transition from one ModelConfigList to "
            "another.",
        )
    models = []
    for entry in config.model_config_list.config:
        _check_platform(entry)
        labels = dict(entry.version_labels)
        models.append(ModelConfig(entry.name, entry.base_path, _policy(entry.model_version_policy), labels))
    return check(models)


def check(models):
    """The models, where a server can serve them together; RequestError otherwise."""
    names = set()
    for model in models:
        if not model.name:
            raise RequestError("a model has no name, expected one that requests can name")
        if model.name in names:
            raise RequestError(f"Illegal to list model {model.name} multiple times in config list")
        names.add(model.name)
        if not os.path.isabs(model.base_path):
            raise RequestError(
                f"Expected model {model.name} to have an absolute path or URI; got base_path()={model.base_path}"
            )
        kind, value = model.policy
        fits = {
            "latest": lambda value: isinstance(value, int) and value >= 1,
            "all": lambda value: value is None,
            "specific": lambda value: value and all(isinstance(version, int) for version in value),
        }
        if kind not in fits or not fits[kind](value):
            raise RequestError(
                f"model {model.name} has version policy {model.policy}, expected ('latest', n), ('all', None) or "
                "('specific', (version, ...))"
            )
    return models


def _check_platform(entry):
    """RequestError for a model that is not TensorFlow's, in TF Serving's words."""
    if entry.model_type:
        if entry.model_platform:
            raise RequestError(
                "Illegal setting both ModelServerConfig::model_type (deprecated) and ModelServerConfig::model_platform."
            )
        if entry.model_type != 1:  # ModelType.TENSORFLOW
            raise RequestError(f"ModelServerConfig::model_type choice {entry.model_type} not supported.")
    elif not entry.model_platform:
        raise RequestError(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform."
        )
    elif entry.model_platform != "tensorflow":
        raise RequestError(f"Model {entry.name} requests unsupported platform {entry.model_platform}")


def _policy(policy):
    kind = policy.WhichOneof("policy_choice")
    if kind == "all":
        return "all", None
    if kind == "specific":
        return "specific", tuple(policy.specific.versions)
    return "latest", max(policy.latest.num_versions, 1)
