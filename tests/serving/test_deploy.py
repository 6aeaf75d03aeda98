"""What `dmkeras config` writes is what TF Serving, Docker Compose and Kubernetes read: by their protos and schemas."""

import re
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import jsonschema
import kubernetes_validate
import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from dmkeras.serving import cli
from dmkeras.serving.commands import deploy

# The flags of tensorflow_model_server (tensorflow/serving 2.21, model_servers/main.cc) that may stand here.
FLAGS = {
    "model_config_file",
    "model_config_file_poll_wait_seconds",
    "monitoring_config_file",
    "enable_batching",
    "batching_parameters_file",
    "enable_per_model_batching_parameters",
    "enable_model_warmup",
    "grpc_max_threads",
    "grpc_channel_arguments",
    "rest_api_timeout_in_ms",
}
# What the compose specification says of the keys in use (compose-spec, schema/compose-spec.json).
TEXT, MOUNT = {"type": "string"}, {"type": "object", "required": ["type"], "additionalProperties": False}
DEVICE = {"capabilities": {"type": "array"}, "driver": TEXT, "count": {"type": ["string", "integer"]}}
RESERVED = {"devices": {"type": "array", "items": {"properties": DEVICE, "required": ["capabilities"]}}}
SERVICE = {
    "image": TEXT,
    "command": {"type": "array", "items": TEXT},
    "ports": {"type": "array", "uniqueItems": True, "items": {"pattern": r"^127\.0\.0\.1:\d+:\d+$"}},
    "volumes": {
        "type": "array",
        "uniqueItems": True,
        "items": {
            **MOUNT,
            "properties": {
                "type": {"enum": ["bind", "volume", "tmpfs"]},
                "source": {"type": "string", "pattern": r"^[./]"},
                "target": TEXT,
                "read_only": {"type": "boolean"},
                "bind": {"type": "object", "properties": {"create_host_path": {"type": "boolean"}}},
            },
        },
    },
    "healthcheck": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "test": {"type": "array", "items": TEXT, "contains": {"const": "CMD"}},
            "retries": {"type": "integer"},
            **{key: {"type": "string", "pattern": r"^\d+[smh]$"} for key in ("interval", "timeout", "start_period")},
        },
    },
    "restart": {"enum": ["no", "always", "on-failure", "unless-stopped"]},
    "deploy": {"properties": {"resources": {"properties": {"reservations": {"properties": RESERVED}}}}},
}
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "services": {
            "type": "object",
            "additionalProperties": {"type": "object", "additionalProperties": False, "properties": SERVICE},
        }
    },
}


def model(base, name, size=10):
    version = base / name / "3"
    (version / "variables").mkdir(parents=True)
    (version / "saved_model.pb").write_bytes(b"")
    with open(version / "variables" / "data", "wb") as file:
        file.truncate(size)


@pytest.fixture
def written(tmp_path):
    """{file name: text} for three models, one of an odd name."""
    for name in ("vae", "pixel_cnn", 'odd "ü" $(x)'):
        model(tmp_path / "saved_models", name)
    return {path.name: path.read_text() for path in deploy.write(tmp_path / "saved_models", tmp_path / "deploy")}


def message(package, name, fields):
    """A class for a message of {field: (number, type, name of a wrapper or message)}."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", dependency=["google/protobuf/wrappers.proto"])
    file.package, file.syntax = package, "proto3"
    for message_name, members in fields.items():
        described = file.message_type.add(name=message_name)
        for field, (number, kind) in members.items():
            simple = {"string": kinds.TYPE_STRING, "bool": kinds.TYPE_BOOL}.get(kind)
            options = {"type": simple} if simple else {"type": kinds.TYPE_MESSAGE, "type_name": kind}
            described.field.add(name=field, number=number, label=kinds.LABEL_OPTIONAL, **options)
    pool = descriptor_pool.DescriptorPool()
    from google.protobuf import wrappers_pb2

    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))


def test_models_config_is_tf_servings_and_names_every_model(written):
    from tensorflow_serving.config import model_server_config_pb2

    config = text_format.Parse(written["models.config"], model_server_config_pb2.ModelServerConfig())
    models = {model.name: model for model in config.model_config_list.config}
    assert sorted(models) == ['odd "ü" $(x)', "pixel_cnn", "vae"]
    for name, entry in models.items():
        assert (entry.base_path, entry.model_platform) == (f"/models/{name}", "tensorflow")
        assert entry.model_version_policy.latest.num_versions == 1


def test_the_examples_in_the_head_of_models_config_parse(written):
    from tensorflow_serving.config import model_server_config_pb2

    for example in ("model_version_policy {.*}", "version_labels {.*}"):
        (found,) = re.findall(rf"^# .*?({example})$", written["models.config"], re.MULTILINE)
        text_format.Parse(found, model_server_config_pb2.ModelConfig())


def test_batching_and_monitoring_are_tf_servings(written):
    wrapped = {"Int64Value": ".google.protobuf.Int64Value", "StringValue": ".google.protobuf.StringValue"}
    batching = message(
        "tensorflow.serving",
        "BatchingParameters",
        {
            "BatchingParameters": {  # servables/tensorflow/session_bundle_config.proto
                "num_batch_threads": (5, wrapped["Int64Value"]),
                "thread_pool_name": (4, wrapped["StringValue"]),
            }
        },
    )
    parameters = text_format.Parse(written["batching.config"], batching())
    assert parameters.num_batch_threads.value == 4
    monitoring = message(
        "tensorflow.serving",
        "MonitoringConfig",
        {  # config/monitoring_config.proto
            "PrometheusConfig": {"enable": (1, "bool"), "path": (2, "string")},
            "MonitoringConfig": {"prometheus_config": (1, ".tensorflow.serving.PrometheusConfig")},
        },
    )
    config = text_format.Parse(written["monitoring.config"], monitoring())
    assert config.prometheus_config.enable
    assert config.prometheus_config.path == "/monitoring/prometheus/metrics"


def flags(arguments):
    """{flag: value} of arguments, which TensorFlow reads in the form --flag=value alone."""
    return dict(re.fullmatch(r"--(\w+)=(\S+)", argument).groups() for argument in arguments)


def test_compose_is_a_compose_file_with_flags_of_the_server(written):
    composed = yaml.safe_load(written["compose.yaml"])
    jsonschema.validate(composed, SCHEMA)
    service = composed["services"]["serving"]
    assert service["image"] == "tensorflow/serving:2.21.0-gpu"
    assert set(flags(service["command"])) <= FLAGS
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert [volume["source"] for volume in service["volumes"]] == ["../saved_models", "."]


def test_every_file_that_a_flag_names_is_there(written):
    deployment = resources(written)["Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    for arguments in (yaml.safe_load(written["compose.yaml"])["services"]["serving"]["command"], container["args"]):
        for path in (value for value in flags(arguments).values() if value.startswith("/")):
            folder, _, name = path.rpartition("/")
            assert folder == "/config"
            assert name in written
            assert resources(written)["ConfigMap"]["data"][name] == written[name]


def resources(written):
    """{kind: resource} of the Kubernetes file."""
    found = list(yaml.safe_load_all(written["kubernetes.yaml"]))
    kinds = {resource["kind"]: resource for resource in found}
    assert len(kinds) == len(found)
    return kinds


def test_every_kubernetes_resource_is_valid_to_the_last_key(written):
    found = resources(written)
    assert set(found) == {
        "PersistentVolumeClaim",
        "ConfigMap",
        "Deployment",
        "Service",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
    }
    for resource in found.values():
        kubernetes_validate.validate(resource, "1.32", strict=True)
    broken = yaml.safe_load(written["kubernetes.yaml"].split("---\n")[2].replace("readinessProbe", "readynessProbe"))
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.32", strict=True)


def test_a_pod_serves_on_until_its_callers_have_left_and_asks_for_a_gpu(written):
    found = resources(written)
    pod = found["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert set(flags(container["args"])) <= FLAGS
    given = flags(container["args"])
    seconds = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    age = int(given["grpc_channel_arguments"].partition("grpc.max_connection_age_ms=")[2]) / 1000
    assert pod["terminationGracePeriodSeconds"] > seconds > age + int(given["rest_api_timeout_in_ms"]) / 1000
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        path, port = container[probe]["httpGet"]["path"], container[probe]["httpGet"]["port"]
        assert (path, port) == ("/v1/models/odd%20%22%C3%BC%22%20%24%28x%29", "rest")
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for selector in (
        found["Deployment"]["spec"]["selector"]["matchLabels"],
        found["Service"]["spec"]["selector"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ):
        assert selector == labels
    assert found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == found["Deployment"]["metadata"]["name"]
    ports = {port["name"] for port in container["ports"]}
    assert {port["targetPort"] for port in found["Service"]["spec"]["ports"]} == ports


def test_memory_is_asked_for_twice_the_models(tmp_path):
    model(tmp_path / "base", "large", size=3 << 30)
    deploy.write(tmp_path / "base", tmp_path)
    deployment = resources({"kubernetes.yaml": (tmp_path / "kubernetes.yaml").read_text()})["Deployment"]
    resource = deployment["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert resource["requests"]["memory"] == resource["limits"]["memory"] == "8Gi"
    compose = yaml.safe_load((tmp_path / "compose.yaml").read_text())
    assert compose["services"]["serving"]["volumes"][0]["source"] == "./base"


def test_an_image_without_gpu_asks_for_none(tmp_path):
    model(tmp_path / "base", "m")
    deploy.write(tmp_path / "base", tmp_path / "out", image="tensorflow/serving:2.21.0")
    for name in ("compose.yaml", "kubernetes.yaml"):
        text = (tmp_path / "out" / name).read_text()
        assert "nvidia.com/gpu" not in text
        assert "driver: nvidia" not in text
    jsonschema.validate(yaml.safe_load((tmp_path / "out" / "compose.yaml").read_text()), SCHEMA)


class Status(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked = self.path
        self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + self.server.answer)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(("state", "healthy"), [(b'"state": "AVAILABLE"', True), (b'"state": "LOADING"', False)])
def test_the_health_check_of_compose_asks_for_the_state_of_a_model(written, state, healthy):
    (kind, *command) = yaml.safe_load(written["compose.yaml"])["services"]["serving"]["healthcheck"]["test"]
    assert kind == "CMD"
    with HTTPServer(("127.0.0.1", 0), Status) as server:
        server.answer = state
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        command[-1] = command[-1].replace("/8501", f"/{server.server_port}")
        assert (subprocess.run(command, timeout=60).returncode == 0) is healthy
        thread.join()
        assert server.asked == "/v1/models/odd%20%22%C3%BC%22%20%24%28x%29"


def test_config_writes_the_same_again_and_overwrites_nothing_else(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model(tmp_path / "saved_models", "vae")
    assert cli.main(["config", "saved_models"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"deploy/{name}" for name in sorted_names()]
    assert cli.main(["config", "saved_models"]) == 0
    before = (tmp_path / "deploy" / "compose.yaml").read_text() + "# mine\n"
    (tmp_path / "deploy" / "compose.yaml").write_text(before)
    model(tmp_path / "saved_models", "second")
    old = (tmp_path / "deploy" / "models.config").read_text()
    assert cli.main(["config", "saved_models"]) == 2
    assert "deploy/compose.yaml" in (error := capsys.readouterr().err)
    assert "choose another --out" in error
    assert (tmp_path / "deploy" / "compose.yaml").read_text() == before
    assert (tmp_path / "deploy" / "models.config").read_text() == old
    for arguments in (["nowhere"], ["deploy"]):
        assert cli.main(["config", *arguments]) == 2


def sorted_names():
    return ["models.config", "batching.config", "monitoring.config", "compose.yaml", "kubernetes.yaml"]
