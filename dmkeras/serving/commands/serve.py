"""`dmkeras serve`: the embedded server as a command, with TF Serving's flags where the meaning is the same."""

import argparse
import contextlib
import gc
import logging
import os
import pathlib
import re
import signal
import sys
import threading

from dmkeras.serving.commands.quiet import tensorflow
from dmkeras.serving.embedded.limits import LOOPBACK
from dmkeras.serving.errors import ServingError

LOG = logging.getLogger("dmkeras.serving")


def add_arguments(parser):
    """The flags. Those with underscores are TF Serving's own; `--flag=value` and `--flag value` both work."""
    parser.set_defaults(command=serve)
    add = parser.add_argument
    add("models", nargs="?", type=pathlib.Path, metavar="DIR", help="the folder that holds NAME/VERSION")
    add("--host", default="127.0.0.1", help="address to listen at; default: this machine alone")
    add("--rest-port", "--rest_api_port", type=_port, default=8501, help="0: closed, auto: a free one; default 8501")
    add("--grpc-port", "--port", type=_port, default=8500, help="0: closed, auto: a free one; default 8500")

    group = parser.add_argument_group("which models, instead of DIR")
    group.add_argument("--model_config_file", type=pathlib.Path, metavar="FILE", help="TF Serving's models.config")
    group.add_argument("--model_config_file_poll_wait_seconds", type=float, default=0, help="0: it is read once")
    group.add_argument("--model_base_path", type=pathlib.Path, help="the folder of one model")
    group.add_argument("--model_name", default="default")

    group = parser.add_argument_group("versions")
    group.add_argument("--file_system_poll_wait_seconds", type=float, default=1, help="default 1")
    group.add_argument("--max_num_load_retries", type=_count, default=5)
    group.add_argument("--load_retry_interval_micros", type=_count, default=60_000_000)
    group.add_argument("--allow_version_labels_for_unavailable_models", **_boolean(False))
    group.add_argument("--enable_model_warmup", **_boolean(True))
    group.add_argument("--num_request_iterations_for_warmup", type=_positive, default=1)

    group = parser.add_argument_group("limits")
    group.add_argument("--max-body-bytes", type=_positive, default=64 << 20, help="default 64 MiB")
    group.add_argument(
        "--max-concurrency",
        "--grpc_max_threads",
        "--rest_api_num_threads",
        type=_positive,
        default=64,
        help="default 64",
    )
    group.add_argument("--timeout", type=_seconds, default=30.0, help="seconds a request may take; default 30")
    group.add_argument("--rest_api_timeout_in_ms", type=_positive, help="the same in milliseconds")
    group.add_argument("--drain-seconds", type=_seconds, default=30.0, help="for requests in flight at the end")

    group = parser.add_argument_group("speed")
    group.add_argument("--batching", "--enable_batching", **_boolean(False), help="batch the requests of all callers")
    group.add_argument("--batching_parameters_file", type=pathlib.Path, metavar="FILE")
    group.add_argument("--enable_per_model_batching_parameters", **_boolean(False))
    group.add_argument("--tensorflow_intra_op_parallelism", type=_count, default=0)
    group.add_argument("--tensorflow_inter_op_parallelism", type=_count, default=0)

    group = parser.add_argument_group("who may ask, and what is seen")
    group.add_argument("--token-file", type=pathlib.Path, help="a file with the bearer token; or set DMKERAS_TOKEN")
    group.add_argument("--tls-key", type=pathlib.Path, help="PEM file, for both ports")
    group.add_argument("--tls-certificate", type=pathlib.Path, help="PEM file, for both ports")
    group.add_argument("--rest_api_enable_cors_support", **_boolean(False))
    group.add_argument("--monitoring_config_file", type=pathlib.Path, help="names the path of the metrics")
    group.add_argument("--enable_grpc_healthcheck_service", **_boolean(True), help=argparse.SUPPRESS)
    group.add_argument("--access-log", metavar="FILE", help="a JSON line for every request; - for stdout")
    group.add_argument("--quiet", action="store_true", help="warnings and errors alone")


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
        server_class = _server_class()
        server = server_class(_models(args), **options)
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


def _server_class():
    try:
        tensorflow()
        from dmkeras.serving.embedded.server import Server
    except ModuleNotFoundError as error:
        raise ImportError(f"the server needs {error.name}: pip install 'dmkeras[serve]'") from error
    return Server


def _options(args):
    """The arguments of `Server` that a command line asks for; ServingError for flags that contradict each other."""
    if args.model_config_file is None and (args.models is None) == (args.model_base_path is None):
        raise _contradiction("expected one of DIR, --model_base_path and --model_config_file")
    if (args.tls_key is None) != (args.tls_certificate is None):
        raise _contradiction("--tls-key and --tls-certificate go together")
    if args.batching_parameters_file and not args.batching:
        raise _contradiction("--batching_parameters_file needs --batching")
    token = args.token_file.read_text().strip() if args.token_file else os.environ.get("DMKERAS_TOKEN")
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
        "metrics_path": _metrics_path(args.monitoring_config_file),
        "poll_seconds": args.file_system_poll_wait_seconds,
        "load_retries": args.max_num_load_retries,
        "retry_seconds": args.load_retry_interval_micros / 1e6,
        "warm_up": args.enable_model_warmup,
        "warm_up_iterations": args.num_request_iterations_for_warmup,
        "batching": _batching(args),
        "per_model_batching": args.enable_per_model_batching_parameters,
        "labels_for_unavailable": args.allow_version_labels_for_unavailable_models,
        "inter_op": args.tensorflow_inter_op_parallelism,
        "intra_op": args.tensorflow_intra_op_parallelism,
    }


def _models(args):
    """A folder of models, or the ModelConfigs that a file or a base path names."""
    if args.models is not None:
        if not args.models.is_dir():
            raise NotADirectoryError(f"{args.models} is no folder, expected one that holds NAME/VERSION/saved_model.pb")
        return args.models
    from dmkeras.serving.embedded import model_config

    if args.model_config_file:
        return model_config.parse(args.model_config_file.read_text(encoding="utf-8"))
    return [model_config.ModelConfig(args.model_name, args.model_base_path.absolute())]


def _batching(args):
    if not args.batching:
        return None
    from dmkeras.serving import batching

    path = args.batching_parameters_file
    return batching.parse(path.read_text(encoding="utf-8")) if path else batching.Batching()


def _metrics_path(path):
    """The path that a MonitoringConfig names: prometheus_config { enable: true, path: "..." }."""
    from dmkeras.serving.embedded import metrics

    found = re.search(r'\bpath\s*:\s*"(/[^"]*)"', path.read_text(encoding="utf-8")) if path else None
    return found[1] if found else metrics.PATH


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
    from dmkeras.serving.embedded import model_config

    known = path.read_text(encoding="utf-8")
    while not ended.wait(seconds):
        try:
            text = path.read_text(encoding="utf-8")
            if text != known:
                known = text
                servables.configure(model_config.parse(text))
                LOG.info("%s: read anew, %d models", path, len(servables.names()))
        except (OSError, ValueError, ServingError) as error:
            LOG.warning("%s: %s; what was served is served on", path, error)


def _contradiction(message):
    return ServingError("INVALID_ARGUMENT", message)


def _boolean(default):
    return {"nargs": "?", "const": True, "default": default, "type": _truth, "metavar": "true|false"}


def _truth(text):
    if text.lower() not in ("true", "false", "1", "0"):
        raise argparse.ArgumentTypeError(f"received {text!r}, expected true or false (DIR stands first)")
    return text.lower() in ("true", "1")


def _port(text):
    return text if text == "auto" else _number(text, 0, 65535, "a port from 0 to 65535, or auto", int)


def _count(text):
    return _number(text, 0, None, "a number from 0", int)


def _positive(text):
    return _number(text, 1, None, "a number from 1", int)


def _seconds(text):
    return _number(text, 0, None, "seconds from 0", float)


def _number(text, low, high, expected, kind):
    try:
        number = kind(text)
    except ValueError:
        number = None
    if number is None or number < low or (high is not None and number > high):
        raise argparse.ArgumentTypeError(f"received {text!r}, expected {expected}")
    return number
