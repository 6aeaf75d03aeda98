"""`dmkeras config`: the files with which TF Serving serves a folder of models, on one machine or in a cluster.

    models.config        which models, which versions (ModelServerConfig)
    batching.config      the threads that all batched models share (BatchingParameters)
    monitoring.config    where Prometheus reads (MonitoringConfig)
    compose.yaml         `docker compose up` on one machine
    kubernetes.yaml      `kubectl apply -f`: storage, configuration, Deployment, Service, autoscaler, disruption budget

The flags are those of tensorflow/serving 2.21 (model_servers/main.cc). No TensorFlow here.
"""

import json
import math
import os
import pathlib
import shlex
import urllib.parse

from dmkeras.serving import folders
from dmkeras.serving.commands.manifests import COMPOSE, COMPOSE_GPU, KUBERNETES

IMAGE = "tensorflow/serving:2.21.0-gpu"
GIB = 1 << 30
BASE_MEMORY = 2 * GIB  # of the server itself, with CUDA's libraries
TIMEOUT = 30  # seconds for a request over REST
CONNECTION_AGE = 10  # seconds after which a gRPC connection is closed in peace, so that callers find other replicas
SPREAD = 5  # seconds until a cluster has taken a pod out of its Service
DRAIN = SPREAD + CONNECTION_AGE + TIMEOUT + 5  # seconds that a pod serves on after it was told to end
FLAGS = (
    "--model_config_file=/config/models.config",
    "--model_config_file_poll_wait_seconds=60",
    "--monitoring_config_file=/config/monitoring.config",
    "--enable_batching=true",
    "--batching_parameters_file=/config/batching.config",
    "--enable_per_model_batching_parameters=true",
    "--enable_model_warmup=true",
    "--grpc_max_threads=128",
    f"--rest_api_timeout_in_ms={1000 * TIMEOUT}",
)
CLUSTER_FLAGS = (*FLAGS, f"--grpc_channel_arguments=grpc.max_connection_age_ms={1000 * CONNECTION_AGE}")

BATCHING = """\
# Threads that run the batches of all models. What a batch may be stands in each version's batching_params.pbtxt, which
# `dmkeras.export` wrote; a model without that file is not batched.
num_batch_threads { value: 4 }
thread_pool_name { value: "batches" }
"""
MONITORING = """\
prometheus_config {
  enable: true
  path: "/monitoring/prometheus/metrics"
}
"""
# The images need not hold curl.
HEALTH = "exec 3<>/dev/tcp/127.0.0.1/8501 && printf 'GET %s HTTP/1.0\\r\\n\\r\\n' {} >&3 && grep -q AVAILABLE <&3"
MODELS_HEAD = """\
# Served versions: the newest one. To keep several:  model_version_policy { specific { versions: 3 versions: 4 } }
# To name them, for /v1/models/NAME/labels/stable:   version_labels { key: "stable" value: 3 }
# A base_path that does not exist when the server starts keeps it from opening its ports for any model.
"""


def add_arguments(parser):
    parser.set_defaults(command=run)
    parser.add_argument("directory", type=pathlib.Path, metavar="DIR", help="the folder that holds NAME/VERSION")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("deploy"), metavar="DIR", help="default: deploy"
    )
    parser.add_argument("--image", default=IMAGE, help=f"default: {IMAGE}; without -gpu no GPU is asked for")


def run(args):
    """Writes the files and prints their paths."""
    if not args.directory.is_dir():
        raise NotADirectoryError(f"{args.directory} is no folder, expected one that holds NAME/VERSION/saved_model.pb")
    for path in write(args.directory, args.out, image=args.image):
        print(path)


def write(base, out, *, image=IMAGE):
    """Writes the files for the models below `base` into the folder `out`, and returns their paths.

    A file that is there with the same content stays; FileExistsError, before anything is written, where one differs.
    """
    models = folders.models(base)
    if not models:
        raise FileNotFoundError(f"{base} holds no model, expected NAME/VERSION/saved_model.pb")
    files = {pathlib.Path(out) / name: text for name, text in contents(models, base, out, image=image).items()}
    others = [str(path) for path, text in files.items() if path.exists() and _read(path) != text]
    if others:
        raise FileExistsError(f"{', '.join(others)}: there with another content, not overwritten; choose another --out")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(files)


def contents(models, base, out, *, image=IMAGE):
    """{file name: text} for {name: folder} of models."""
    gpu = image.endswith("-gpu")
    configs = {"models.config": models_config(models), "batching.config": BATCHING, "monitoring.config": MONITORING}
    probe = f"/v1/models/{urllib.parse.quote(min(models))}"
    values = {
        "IMAGE": json.dumps(image),
        "PROBE": probe,
        "HEALTH": json.dumps(["CMD", "bash", "-c", HEALTH.format(shlex.quote(probe))]),
        "MODELS": json.dumps(_relative(base, out)),
        "GPU": COMPOSE_GPU if gpu else "",
        "MEMORY": f"{_memory(models)}Gi",
        "GPU_LIMIT": 'nvidia.com/gpu: "1"' if gpu else 'cpu: "8"',
        "DRAIN": str(DRAIN),
        "GRACE": str(DRAIN + 10),
        "CONFIGS": "\n".join(f"  {name}: |\n{_indented(text, 4)}" for name, text in configs.items()),
    }
    compose = _filled(COMPOSE, values | {"FLAGS": _listed(FLAGS, 6)})
    kubernetes = _filled(KUBERNETES, values | {"FLAGS": _listed(CLUSTER_FLAGS, 12)})
    return configs | {"compose.yaml": compose, "kubernetes.yaml": kubernetes}


def models_config(models):
    """The text of a ModelServerConfig that serves the newest version of each model below /models."""
    entries = [
        f"  config {{\n    name: {_quoted(name)}\n    base_path: {_quoted(f'/models/{name}')}\n"
        '    model_platform: "tensorflow"\n    model_version_policy { latest { num_versions: 1 } }\n  }\n'
        for name in sorted(models)
    ]
    return f"{MODELS_HEAD}model_config_list {{\n{''.join(entries)}}}\n"


def _memory(models):
    """GiB: a version change holds the old and the new version of every model at once."""
    newest = [list(folders.versions(folder).values())[-1] for folder in models.values()]
    size = sum(path.stat().st_size for folder in newest for path in folder.rglob("*") if path.is_file())
    return math.ceil((BASE_MEMORY + 2 * size) / GIB)


def _relative(base, out):
    """The path of `base` as seen from `out`, where the Compose file lies."""
    path = os.path.relpath(os.path.realpath(base), os.path.realpath(out))
    return path if path.startswith(".") else f"./{path}"


def _filled(template, values):
    """A template with @NAME@ replaced; names hold no @, so that what is put in is never replaced again."""
    head, *parts = template.split("@")
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return head + "".join(values[name] + text for name, text in pairs)


def _quoted(text):
    return json.dumps(text, ensure_ascii=False)


def _listed(flags, indent):
    return "\n".join(f"{' ' * indent}- {flag}" for flag in flags)


def _indented(text, indent):
    return "\n".join(" " * indent + line for line in text.splitlines())


def _read(path):
    return path.read_bytes().decode(errors="replace")
