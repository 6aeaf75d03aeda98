"""The command `dmkeras`: what is exported, and its answers.

    dmkeras show saved_models[/NAME[/VERSION]]
    dmkeras predict saved_models NAME --image cat.png
    dmkeras predict saved_models NAME --signature sample --seed 1 --count 16

Answers go to stdout as JSON, what is said about them to stderr. Exit status: 0, or 2 for what cannot be done.
"""

import argparse
import json
import os
import pathlib
import sys

import numpy as np

from dmkeras.serving import folders, model_card, pictures, rest_json


def main(argv=None):
    """Runs one command line and returns its exit status."""
    args = _parser().parse_args(argv)
    try:
        args.command(args)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (folders.UnknownNameError, rest_json.RequestError, folders.DamagedError, OSError) as error:
        print(f"dmkeras: {error}", file=sys.stderr)
        return 2
    return 0


def _parser():
    parser = argparse.ArgumentParser(
        prog="dmkeras", description="Exported models: what there is, and what they answer."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    show = commands.add_parser("show", help="versions, signatures, tensors and a curl line for each")
    show.set_defaults(command=_show)
    show.add_argument("path", type=pathlib.Path, help="saved_models, saved_models/NAME or saved_models/NAME/VERSION")

    predict = commands.add_parser("predict", help="ask an exported model")
    predict.set_defaults(command=_predict)
    predict.add_argument(
        "directory", type=pathlib.Path, metavar="DIR", help="the folder that holds NAME, such as saved_models"
    )
    predict.add_argument("name", metavar="NAME", help="a model in DIR")
    predict.add_argument("--version", type=int, help="default: the newest")
    predict.add_argument("--signature", default="serving_default", help="default: serving_default")
    predict.add_argument("--image", nargs="+", metavar="FILE", help="pictures for the input that takes them")
    predict.add_argument(
        "--json",
        metavar="TEXT|@FILE|-",
        help='{"instances": [...]} or {"inputs": ...} as TF Serving takes it, or {"input": value} for every row',
    )
    predict.add_argument(
        "--seed", type=int, help="fills the input `seed` with rows (SEED, 0), (SEED, 1), ...; default 0"
    )
    predict.add_argument("--count", type=_positive, help="rows to ask for; default: one, or one for each picture")
    predict.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path(), metavar="DIR", help="for drawings; default: here"
    )
    return parser


def _show(args):
    path = args.path
    if path.is_file():
        raise NotADirectoryError(f"{path} is a file, expected a folder of models, a model or a version")
    if not path.is_dir():
        beside = {entry.name: entry for entry in sorted(path.absolute().parent.glob("*")) if entry.is_dir()}
        folders.pick(beside, path.name, "folder", path.parent)
    if (path / "saved_model.pb").is_file():
        return _print_version(path)
    found = {path.absolute().name: path} if folders.versions(path) else folders.models(path)
    if not found:
        raise FileNotFoundError(
            f"{path} holds no model, expected NAME/VERSION/saved_model.pb or VERSION/saved_model.pb"
        )
    for folder in found.values():
        versions = folders.versions(folder)
        *older, newest = versions
        _print_version(versions[newest], f"; also {', '.join(map(str, older))}" if older else "")
        for draft in folders.drafts(folder):
            print(f"\n{draft}: an export that is under way, or was killed and can be deleted")


def _print_version(folder, beside=""):
    card = model_card.read(folder)
    model = folder.absolute().parent.name
    if card is None:
        card = {"signatures": model_card.describe(model, _runtime().described(folder))}
    print(f"{model}, version {folder.absolute().name}{beside}\n{model_card.text(model, card)}\n")


def _predict(args):
    if not args.directory.is_dir():
        raise NotADirectoryError(f"{args.directory} is no folder, expected one that holds NAME/VERSION/saved_model.pb")
    folder = folders.pick(folders.models(args.directory), args.name, "model", args.directory)
    versions = folders.versions(folder)
    version = folders.pick(versions, max(versions) if args.version is None else args.version, "version", folder)
    with _runtime().Loaded(version) as model:
        signature = folders.pick(model.signatures, args.signature, "signature", version)
        feed, in_columns = _request(args, signature.inputs)
        outputs = model.run(args.signature, feed)
    print(json.dumps(rest_json.encode(outputs, columns=in_columns), ensure_ascii=False))
    for name, found in pictures.drawable(outputs).items():
        _draw(args.out, f"{args.name}_{args.signature}_{name}", found)


def _request(args, inputs):
    """The feed {name: array [B, ...]} of a command line, and whether it came in columns."""
    body = rest_json.parse(_text(args.json)) if args.json is not None else {}
    if isinstance(body, dict) and not {"instances", "inputs"} & set(body):
        feed = {tensor.name: rest_json.array([body[tensor.name]], tensor) for tensor in inputs if tensor.name in body}
        unknown = sorted(set(body) - set(feed))
        if unknown:
            raise rest_json.RequestError(f"--json has {unknown}, expected names among {_names(inputs)}")
    else:
        feed = rest_json.decode(body, inputs)
    if args.image:
        feed |= _pictures(args, inputs)
    sizes = {name: len(array) for name, array in feed.items()}
    rows = args.count or max(sizes.values(), default=1)
    if not set(sizes.values()) <= {1, rows}:
        raise rest_json.RequestError(f"received {sizes} rows for {rows} answers, expected as many or one for all")
    seeds = [tensor for tensor in inputs if tensor.name == "seed"]
    if seeds and ("seed" not in feed or args.seed is not None):
        feed["seed"] = rest_json.array([[args.seed or 0, row] for row in range(rows)], seeds[0])
    elif args.seed is not None:
        raise rest_json.RequestError(f"--seed: {args.signature} has no such input, but {_names(inputs)}")
    feed = {name: np.repeat(array, rows, 0) if len(array) == 1 else array for name, array in feed.items()}
    return feed, "inputs" in body


def _positive(text):
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _names(tensors):
    return ", ".join(tensor.name for tensor in tensors)


def _text(argument):
    """What --json names: itself, a file or stdin."""
    if argument == "-":
        return sys.stdin.buffer.read()
    return pathlib.Path(argument[1:]).read_bytes() if argument.startswith("@") else argument


def _pictures(args, inputs):
    takers = [tensor for tensor in inputs if pictures.takes_pictures(tensor)]
    if len(takers) != 1:
        raise rest_json.RequestError(
            f"--image: {args.signature} has {len(takers)} inputs that take pictures, expected one; its inputs are "
            f"{_names(inputs)}: choose another --signature or send --json"
        )
    array, notes = pictures.read(args.image, takers[0])
    for note in notes:
        print(note, file=sys.stderr)
    return {takers[0].name: array}


def _draw(folder, stem, found):
    """Writes a grid of pictures under the first free name."""
    from dmkeras import figures

    path, number = folder / f"{stem}.png", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}_{number}.png"
    print(figures.save(path, figures.grid(found)), file=sys.stderr)


def _runtime():
    """The module that loads models, without the greetings that TensorFlow prints at import whatever its log level."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    stderr = os.dup(2)
    try:
        with open(os.devnull, "wb") as sink:
            os.dup2(sink.fileno(), 2)
        from dmkeras.serving import runtime
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
    return runtime


if __name__ == "__main__":
    sys.exit(main())
