"""The rows of a `dmkeras predict`: what a command line asks for, sent in batches, and which rows got an answer."""

import itertools
import pathlib
import sys
import typing

import numpy as np

from dmkeras.serving import model_card, rest_json
from dmkeras.serving.client_tensors import MissingInputError
from dmkeras.serving.commands import pictures
from dmkeras.serving.commands.words import said
from dmkeras.serving.errors import RequestError, ServingError


class Request(typing.NamedTuple):
    """What is asked: arrays of `rows` rows or of one for all; pictures for the input `taker`, likewise."""

    feed: dict
    images: list
    taker: model_card.Tensor | None
    rows: int
    in_columns: bool

    def image(self, row):
        """The path of a row's picture."""
        return self.images[row % len(self.images)]

    def part(self, rows):
        """The feed of some rows, without pictures."""
        return {
            name: array[[row % len(array) for row in rows]] if np.ndim(array) else array
            for name, array in self.feed.items()
        }

    def stem(self, row):
        """What a drawing of a row is named after: its picture, or its number, where there are several."""
        if len(self.images) > 1:
            return pathlib.Path(self.images[row]).stem
        return str(row) if self.rows > 1 else None

    def sent(self, rows):
        """Place among the rows -> the picture that was sent, read again when it is wanted; None where none was."""
        return (lambda place: pictures.shown(self.image(rows[place]), self.taker)) if self.taker else None


def of_arguments(args, inputs):
    """What a command line asks of a signature with these inputs."""
    body = rest_json.parse(_text(args.json)) if args.json is not None else {}
    if {"instances", "inputs"} & set(body):
        feed = rest_json.decode(body, inputs)
    else:
        feed = {tensor.name: rest_json.array([body[tensor.name]], tensor) for tensor in inputs if tensor.name in body}
        unknown = sorted(set(body) - set(feed))
        if unknown:
            raise RequestError(f"--json has {unknown}, expected names among {_names(inputs)}")
    taker = _taker(args, inputs) if args.image else None
    sizes = {name: len(array) if np.ndim(array) else 1 for name, array in feed.items()}
    sizes |= {taker.name: len(args.image)} if taker else {}
    rows = args.count or max(sizes.values(), default=1)
    if not set(sizes.values()) <= {1, rows}:
        raise RequestError(f"received {sizes} rows for {rows} answers, expected as many or one for all")
    seeds = [tensor for tensor in inputs if tensor.name == "seed"]
    if seeds and ("seed" not in feed or args.seed is not None):
        feed["seed"] = rest_json.array([[args.seed or 0, row] for row in range(rows)], seeds[0])
    elif args.seed is not None:
        raise RequestError(f"--seed: {args.signature} has no such input, but {_names(inputs)}")
    return Request(feed, args.image or [], taker, rows, "inputs" in body)


def answers(args, ask, request, errors):
    """Yields (rows, outputs), batch by batch; appends what is wrong with single pictures to `errors`."""
    shown = sys.stderr.isatty() and request.rows > args.batch_size
    for start in range(0, max(request.rows, 1), args.batch_size):
        rows = range(start, min(start + args.batch_size, request.rows))
        for group, feed in _feeds(request, rows, errors):
            yield from _asked(args, ask, request, group, feed, errors)
        if shown:
            print(f"\r{rows.stop}/{request.rows}", end="\n" if rows.stop == request.rows else "", file=sys.stderr)


def _asked(args, ask, request, rows, feed, errors):
    """Yields (rows, outputs): of all rows at once, or, where several pictures are refused, of each that is not."""
    try:
        yield rows, ask(args.signature, feed)
    except ServingError as error:
        if error.code != "INVALID_ARGUMENT" or len(request.images) < 2 or isinstance(error, MissingInputError):
            raise
        if len(rows) == 1:
            return _note(request, rows[0], error, errors)
        for place, row in enumerate(rows):
            one = {name: array[[place]] if np.ndim(array) else array for name, array in feed.items()}
            yield from _asked(args, ask, request, [row], one, errors)


def _feeds(request, rows, errors):
    """Yields (rows, feed) of a batch: pictures that can be read, those of one size together."""
    if request.taker is None:
        yield list(rows), request.part(rows)
        return
    read = {}
    for row in rows:
        try:
            read[row], note = pictures.read(request.image(row), request.taker)
        except (RequestError, OSError) as error:
            if len(request.images) < 2:
                raise
            _note(request, row, error, errors)
            continue
        if note and row < len(request.images):
            print(note, file=sys.stderr)
    for _, group in itertools.groupby(read, lambda row: np.shape(read[row])):
        group = list(group)
        yield group, request.part(group) | {request.taker.name: pictures.stacked([read[row] for row in group])}


def _note(request, row, error, errors):
    path = str(request.image(row))
    text = said(error)
    print(f"dmkeras: {text}" if path in text else f"dmkeras: {path}: {text}", file=sys.stderr)
    errors.append(error)


def _taker(args, inputs):
    takers = [tensor for tensor in inputs if pictures.takes_pictures(tensor)]
    if len(takers) != 1:
        raise RequestError(
            f"--image: {args.signature} has {len(takers)} inputs that take pictures, expected one; its inputs are "
            f"{_names(inputs)}: choose another --signature or send --json"
        )
    return takers[0]


def _names(tensors):
    return ", ".join(tensor.name for tensor in tensors)


def _text(argument):
    """What --json names: itself, a file or stdin."""
    if argument == "-":
        return sys.stdin.buffer.read()
    return pathlib.Path(argument[1:]).read_bytes() if argument.startswith("@") else argument
