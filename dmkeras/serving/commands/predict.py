"""`dmkeras predict`: a model in a folder or on a server is asked; the answer is printed as JSON and drawn.

The same request gets the same JSON from a folder, over REST and over gRPC. Many pictures are sent in batches. One that
cannot be read, or that the model refuses, is named on stderr; its place in `predictions` is null, the others are done,
and the exit status is 1. When the server goes away, what was answered until then is printed in the same way.
"""

import argparse
import contextlib
import json
import os
import pathlib
import sys
import typing

import numpy as np

from dmkeras.serving import folders, model_card, rest_json
from dmkeras.serving.client import Client, is_url
from dmkeras.serving.client_tensors import check_complete
from dmkeras.serving.commands import drawings, quiet
from dmkeras.serving.commands.rows import answers, of_arguments
from dmkeras.serving.commands.words import said
from dmkeras.serving.errors import RequestError, ServingError


class Source(typing.NamedTuple):
    """What answers: {signature: (inputs, outputs)}, (signature, feed) -> outputs, and the class names if known."""

    signatures: dict
    ask: typing.Callable
    labels: list | None


def add_arguments(parser):
    parser.set_defaults(command=run)
    parser.add_argument(
        "source", metavar="DIR|URL", help="a folder such as saved_models, or http(s)://HOST:PORT, grpc(s)://HOST:PORT"
    )
    parser.add_argument("name", metavar="NAME", help="a model there")
    version = parser.add_mutually_exclusive_group()
    version.add_argument("--version", type=int, help="default: the newest")
    version.add_argument("--label", help="the label of a version, on a server")
    parser.add_argument("--signature", default="serving_default", help="default: serving_default")
    parser.add_argument("--image", nargs="+", metavar="FILE", help="pictures for the input that takes them")
    parser.add_argument(
        "--json",
        metavar="TEXT|@FILE|-",
        help='{"instances": [...]} or {"inputs": ...} as TF Serving takes it, or {"input": value} for every row',
    )
    parser.add_argument(
        "--seed", type=int, help="fills the input `seed` with rows (SEED, 0), (SEED, 1), ...; default 0"
    )
    parser.add_argument("--count", type=_positive, help="rows to ask for; default: one, or one for each picture")
    parser.add_argument("--batch-size", type=_positive, default=32, help="rows sent at once; default 32")
    group = parser.add_argument_group("drawings")
    group.add_argument("--out", type=pathlib.Path, default=pathlib.Path(), metavar="DIR", help="default: here")
    group.add_argument("--labels", type=pathlib.Path, metavar="FILE", help="class names, one a line; a folder has them")
    group.add_argument("--min-score", type=float, default=0.3, help="of detections that are drawn; default 0.3")
    add_server_arguments(parser)


def add_server_arguments(parser):
    group = parser.add_argument_group("servers")
    group.add_argument("--token", help="better in the environment: DMKERAS_TOKEN")
    group.add_argument("--ca", metavar="FILE", help="PEM file of the certificates to trust")
    group.add_argument("--timeout", type=float, default=30, help="seconds to wait for an answer; default 30")


def client_of(url, args):
    """A Client with what the arguments for servers say; TensorFlow's greetings are not heard."""
    token = args.token or os.environ.get("DMKERAS_TOKEN") or None
    with quiet.silenced() if url.startswith("grpc") else contextlib.nullcontext():
        return Client(url, token=token, timeout=args.timeout, ca=args.ca)


def run(args):
    """Asks, prints, draws; returns the exit status."""
    args.out.mkdir(parents=True, exist_ok=True)
    found, errors = [], []
    with _source(args) as source:
        inputs, _ = folders.pick(source.signatures, args.signature, "signature", f"{args.source}, {args.name}")
        request = of_arguments(args, inputs)
        drawer = drawings.Drawer(args.out, f"{args.name}_{args.signature}", _labels(args, source), args.min_score)
        try:
            for rows, outputs in answers(args, source.ask, request, errors):
                found.append((rows, outputs))
                drawer.draw([request.stem(row) for row in rows], request.sent(rows), outputs, rows)
        except ServingError as error:
            if not found:
                raise
            print(f"dmkeras: {said(error)}", file=sys.stderr)
            errors.append(error)
    if found:
        print(json.dumps(_joined(request, found, bool(errors)), ensure_ascii=False))
        drawer.finish(request.rows)
    if errors:
        done = sum(len(rows) for rows, _ in found)
        print(f"dmkeras: {request.rows - done} of {request.rows} got no answer", file=sys.stderr)
    return 0 if not errors else 1 if found else 2


@contextlib.contextmanager
def _source(args):
    if is_url(args.source):
        with client_of(args.source, args) as client:

            def ask(signature, feed):
                return client.predict(args.name, feed, signature=signature, version=args.version, label=args.label)

            yield Source(client.signatures(args.name, args.version, args.label), ask, None)
        return
    if args.label is not None:
        raise RequestError(f"--label {args.label}: versions have labels on a server, expected --version for a folder")
    directory = pathlib.Path(args.source)
    if not directory.is_dir():
        raise NotADirectoryError(
            f"{directory} is no folder, expected one that holds NAME/VERSION/saved_model.pb, or a URL"
        )
    folder = folders.pick(folders.models(directory), args.name, "model", directory)
    versions = folders.versions(folder)
    version = folders.pick(versions, max(versions) if args.version is None else args.version, "version", folder)
    with quiet.runtime().Loaded(version) as model:

        def run(signature, feed):
            feed = model.defaults[signature] | feed
            check_complete(model.signatures[signature].inputs, feed)
            return model.run(signature, feed)

        signatures = {name: (signature.inputs, signature.outputs) for name, signature in model.signatures.items()}
        yield Source(signatures, run, (model_card.read(version) or {}).get("labels"))


def _joined(request, found, in_part):
    """The JSON of all answers: rows with null where there is none; columns for a request in columns."""
    if request.in_columns and not in_part:
        outputs = {name: _concatenated([outputs[name] for _, outputs in found]) for name in found[0][1]}
        return rest_json.encode(outputs, columns=True)
    predictions = [None] * request.rows
    for rows, outputs in found:
        for row, prediction in zip(rows, rest_json.encode(outputs)["predictions"], strict=True):
            predictions[row] = prediction
    return {"predictions": predictions}


def _concatenated(arrays):
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _labels(args, source):
    if args.labels is None:
        return source.labels
    return args.labels.read_text(encoding="utf-8").splitlines()


def _positive(text):
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"received {text!r}, expected a whole number from 1")
    return int(text)
