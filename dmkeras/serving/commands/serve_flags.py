"""The flags of `dmkeras serve`: those with underscores are TF Serving's own."""

import argparse
import math
import pathlib


def add_arguments(parser):
    """Adds the flags; `--flag=value` and `--flag value` both work."""
    add = parser.add_argument
    add("models", nargs="?", type=pathlib.Path, metavar="DIR", help="the folder that holds NAME/VERSION")
    add("--host", default="127.0.0.1", help="address to listen at; default: this machine alone")
    add("--rest-port", "--rest_api_port", type=_port, default=8501, help="0: closed, auto: a free one; default 8501")
    add("--grpc-port", "--port", type=_port, default=8500, help="0: closed, auto: a free one; default 8500")

    group = parser.add_argument_group("which models, instead of DIR")
    group.add_argument("--model_config_file", type=pathlib.Path, metavar="FILE", help="TF Serving's models.config")
    group.add_argument(
        "--model_config_file_poll_wait_seconds",
        type=_seconds,
        default=0,
        help="how often it is looked at; default 0: it is read once",
    )
    group.add_argument("--model_base_path", type=pathlib.Path, help="the folder of one model")
    group.add_argument("--model_name", default="default", help="of that model; default: default")

    group = parser.add_argument_group("versions")
    group.add_argument(
        "--file_system_poll_wait_seconds",
        type=_seconds,
        default=1,
        help="how often the folders are looked at; default 1",
    )
    group.add_argument("--max_num_load_retries", type=_count, default=5, help="default 5")
    group.add_argument("--load_retry_interval_micros", type=_count, default=60_000_000, help="default 60 s")
    group.add_argument("--allow_version_labels_for_unavailable_models", **_boolean(False))
    group.add_argument("--enable_model_warmup", **_boolean(True))
    group.add_argument("--num_request_iterations_for_warmup", type=_positive, default=1, help="default 1")

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
    group.add_argument("--timeout", type=_some_seconds, default=30.0, help="seconds a request may take; default 30")
    group.add_argument("--rest_api_timeout_in_ms", type=_positive, help="the same in milliseconds")
    group.add_argument(
        "--drain-seconds", type=_seconds, default=30.0, help="seconds for requests in flight at the end; default 30"
    )

    group = parser.add_argument_group("speed")
    group.add_argument("--batching", "--enable_batching", **_boolean(False, "batch the requests of all callers"))
    group.add_argument("--batching_parameters_file", type=pathlib.Path, metavar="FILE")
    group.add_argument("--enable_per_model_batching_parameters", **_boolean(False))
    group.add_argument("--tensorflow_intra_op_parallelism", type=_count, default=0, help="default 0: all cores")
    group.add_argument("--tensorflow_inter_op_parallelism", type=_count, default=0, help="default 0: all cores")

    group = parser.add_argument_group("who may ask, and what is seen")
    group.add_argument("--token-file", type=pathlib.Path, help="a file with the bearer token; or set DMKERAS_TOKEN")
    group.add_argument("--tls-key", type=pathlib.Path, help="PEM file, for both ports")
    group.add_argument("--tls-certificate", type=pathlib.Path, help="PEM file, for both ports")
    group.add_argument("--rest_api_enable_cors_support", **_boolean(False))
    group.add_argument("--monitoring_config_file", type=pathlib.Path, help="names the path of the metrics")
    group.add_argument("--enable_grpc_healthcheck_service", **_boolean(True) | {"help": argparse.SUPPRESS})
    group.add_argument("--access-log", metavar="FILE", help="a JSON line for every request; - for stdout")
    group.add_argument("--quiet", action="store_true", help="warnings and errors alone")


def _boolean(default, text=""):
    text = f"{text}; default {str(default).lower()}".removeprefix("; ")
    return {
        "nargs": "?",
        "const": True,
        "default": default,
        "type": _truth,
        "metavar": "true|false",
        "help": text,
    }


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


def _some_seconds(text):
    return _number(text, 0.001, None, "seconds from 0.001", float)


def _number(text, low, high, expected, kind):
    try:
        number = kind(text)
    except ValueError:
        number = None
    if number is None or not math.isfinite(number) or number < low or (high is not None and number > high):
        raise argparse.ArgumentTypeError(f"received {text!r}, expected {expected}")
    return number
