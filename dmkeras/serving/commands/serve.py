"""`dmkeras serve`: the embedded server as a command, with TF Serving's flags where the meaning is the same."""

import contextlib
import gc
import logging
import os
import re
import signal
import sys
import threading

from dmkeras.serving import folders
from dmkeras.serving.commands import serve_flags
from dmkeras.serving.commands.quiet import tensorflow
from dmkeras.serving.embedded.limits import LOOPBACK
from dmkeras.serving.errors import ServingError

LOG = logging.getLogger("dmkeras.serving")
MONITORING = re.compile(
    r"prometheus_config\s*:?\s*\{((?:\s*(?:enable\s*:\s*\w+|path\s*:\s*[\"'][^\"']*[\"'])[,;]?)*)\s*\}"
)


def add_arguments(parser):
    """The flags of `serve_flags`."""
    serve_flags.add_arguments(parser)
    parser.set_defaults(command=serve)


def serve(args):
    """Serves until SIGTERM or SIGINT, then drains. A second signal ends the process at once."""
    logging.basicConfig(
        level=logging.WARNING if args.quiet else logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    options = _options(args)
    with contextlib.ExitStack() as stack:
        if args.access_log:
            path = args.access_log
            stream = sys.stdout if path == "-" else stack.enter_context(open(path, "a", encoding="utf-8"))
            options["access_log"] = stream
        tensorflow()
        from dmkeras.serving import Server

        server = Server(_models(args), batching=_batching(args), **options)
        ended = _signals()
        server.start()
        stack.callback(server.stop)
        gc.collect()
        gc.freeze()  # what is here stays: the collection after each unload has less to walk through
        served = ", ".join(server.servables.names()) or "no model yet"
        doors = " and ".join(filter(None, (server.rest_url, server.grpc_url)))
        print(f"serving {served} at {doors}", flush=True)
        _watch_config(args, server.servables, ended)
        LOG.info("draining")


def _options(args):
    """The arguments of `Server` that a command line asks for; ServingError for flags that contradict each other."""
    _check_source(args)
    if (args.tls_key is None) != (args.tls_certificate is None):
        raise _contradiction("--tls-key and --tls-certificate go together")
    if args.batching_parameters_file and not args.batching:
        raise _contradiction("--batching_parameters_file needs --batching")
    token = _text(args.token_file).strip() if args.token_file else os.environ.get("DMKERAS_TOKEN")
    if args.token_file and not token:
        raise _contradiction(f"{args.token_file} is empty, expected a token")
    if args.host not in LOOPBACK and not token:
        LOG.warning("%s is reached from other machines and asks for no token: --token-file", args.host)
    return {
        "host": args.host,
        "rest_port": args.rest_port,
        "grpc_port": args.grpc_port,
        "token": token or None,
        "tls": (args.tls_key, args.tls_certificate) if args.tls_key else None,
        "max_body_bytes": args.max_body_bytes,
        "max_concurrency": args.max_concurrency,
        "timeout": args.rest_api_timeout_in_ms / 1000 if args.rest_api_timeout_in_ms else args.timeout,
        "drain_seconds": args.drain_seconds,
        "cors": args.rest_api_enable_cors_support,
        **_monitoring(args.monitoring_config_file),
        "poll_seconds": args.file_system_poll_wait_seconds,
        "load_retries": args.max_num_load_retries,
        "retry_seconds": args.load_retry_interval_micros / 1e6,
        "warm_up": args.enable_model_warmup,
        "warm_up_iterations": args.num_request_iterations_for_warmup,
        "per_model_batching": args.enable_per_model_batching_parameters,
        "labels_for_unavailable": args.allow_version_labels_for_unavailable_models,
        "inter_op": args.tensorflow_inter_op_parallelism,
        "intra_op": args.tensorflow_intra_op_parallelism,
    }


def _check_source(args):
    sources = {
        "DIR": args.models,
        "--model_base_path": args.model_base_path,
        "--model_config_file": args.model_config_file,
    }
    given = [name for name, value in sources.items() if value is not None]
    if len(given) != 1:
        received = " and ".join(given) or "none"
        raise _contradiction(f"received {received}, expected one of DIR, --model_base_path and --model_config_file")
    if args.models is not None:
        folders.check_base(args.models)


def _models(args):
    """A folder of models, or the ModelConfigs that a file or a base path names."""
    if args.models is not None:
        return args.models
    from dmkeras.serving.embedded import model_config

    if args.model_config_file:
        return _configured(args.model_config_file, _text(args.model_config_file))
    return [model_config.ModelConfig(args.model_name, args.model_base_path.absolute())]


def _configured(path, text):
    """The ModelConfigs in the text of a models.config; ServingError, which names the file, where there are none."""
    from dmkeras.serving.embedded import model_config

    try:
        models = model_config.parse(text)
    except ServingError as error:
        raise ServingError(error.code, f"{path}: {error}") from None
    if models is None:
        raise _contradiction(f"{path}: received an empty configuration, expected model_config_list {{ ... }}")
    return models


def _text(path):
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise _contradiction(f"{path}: expected text in UTF-8") from None


def _batching(args):
    if not args.batching:
        return None
    from dmkeras.serving import batching

    path = args.batching_parameters_file
    return batching.parse(_text(path)) if path else batching.Batching()


def _monitoring(path):
    """{"metrics_path": ...} of a MonitoringConfig, None where it enables none; {} without a file."""
    if path is None:
        return {}
    found = MONITORING.fullmatch(re.sub("#.*", "", _text(path)).strip())
    if not found:
        raise _contradiction(f'{path}: expected prometheus_config {{ enable: true, path: "/..." }}')
    if not re.search(r"enable\s*:\s*true", found[1]):
        return {"metrics_path": None}
    named = re.search("path.*?[\"'](.*?)[\"']", found[1])
    if named and not named[1].startswith("/"):
        raise _contradiction(f"{path}: received path {named[1]!r}, expected one that begins with /")
    return {"metrics_path": named[1]} if named else {}


def _signals():
    """An event that SIGTERM or SIGINT sets; the next signal ends the process at once."""
    ended = threading.Event()

    def end(number, _):
        signal.signal(number, signal.SIG_DFL)
        ended.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    return ended


def _watch_config(args, servables, ended):
    """Waits for the end. Meanwhile, reads the configuration again whenever its text has changed."""
    path, seconds = args.model_config_file, args.model_config_file_poll_wait_seconds
    if path is None or not seconds:
        ended.wait()
        return
    known = _text(path)
    while not ended.wait(seconds):
        try:
            text = _text(path)
            if text != known:
                known = text
                servables.configure(_configured(path, text))
                LOG.info("%s: read anew, %d models", path, len(servables.names()))
        except (OSError, ServingError) as error:
            LOG.warning("%s; what was served is served on", error)


def _contradiction(message):
    return ServingError("INVALID_ARGUMENT", message)
