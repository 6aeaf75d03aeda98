"""`dmkeras show`: what is exported in a folder, or served at a URL."""

import functools
import os
import pathlib
import shlex
import sys
import urllib.parse

from dmkeras.serving import folders, model_card
from dmkeras.serving.client import is_url
from dmkeras.serving.commands import quiet
from dmkeras.serving.commands.predict import add_server_arguments, client_of
from dmkeras.serving.curl import curl
from dmkeras.serving.errors import RequestError


def add_arguments(parser):
    parser.set_defaults(command=run)
    parser.add_argument("path", help="saved_models, saved_models/NAME, saved_models/NAME/VERSION or URL/NAME[/VERSION]")
    add_server_arguments(parser)


def run(args):
    """Prints what there is; returns the exit status, 1 where some models cannot be read."""
    if is_url(args.path):
        return _show_server(args)
    path = _existing(pathlib.Path(args.path))
    if (path / "saved_model.pb").is_file():
        return _print_version(path)
    found = {path.absolute().name: path} if folders.versions(path) else folders.models(path)
    if not found:
        raise FileNotFoundError(
            f"{path} holds no model, expected NAME/VERSION/saved_model.pb or VERSION/saved_model.pb"
        )
    unread = 0
    for folder in found.values():
        try:
            _print_model(folder)
        except (folders.DamagedError, PermissionError) as error:
            if len(found) == 1:
                raise
            print(f"dmkeras: {error}", file=sys.stderr)
            unread += 1
    return 0 if not unread else 1 if unread < len(found) else 2


def _existing(path):
    """The folder that a path names, a version by its number too: 10 for `0010`."""
    if path.is_file():
        raise NotADirectoryError(f"{path} is a file, expected a folder of models, a model or a version")
    if path.is_dir():
        return path
    if path.name.isdecimal() and path.parent.is_dir() and int(path.name) in (versions := folders.versions(path.parent)):
        return versions[int(path.name)]
    beside = {entry.name: entry for entry in sorted(path.absolute().parent.glob("*")) if entry.is_dir()}
    return folders.pick(beside, path.name, "folder", path.parent)


def _print_model(folder):
    versions = folders.versions(folder)
    *older, newest = versions
    _print_version(versions[newest], f"; also {', '.join(map(str, older))}" if older else "")
    for draft in folders.drafts(folder):
        print(f"\n{draft}: an export that is under way, or was killed and can be deleted")


def _print_version(folder, beside=""):
    card = model_card.read(folder)
    model, version = folder.absolute().parts[-2:]
    if card is None:
        card = {"signatures": model_card.describe(model, quiet.runtime().described(folder))}
    version = int(version) if version.isdecimal() else version  # as a server names it
    print(f"{model}, version {version}{beside}\n{model_card.text(model, card)}\n")


def _show_server(args):
    """What a server says of a model: the states of its versions, and the signatures of the newest or the one named."""
    url, name, version = _model_of(args.path)
    with client_of(url, args) as client:
        for status in client.status(name, version):
            print(f"{name}, version {status.version}: {status.state}{status.message and f', {status.message}'}")
        card = {"signatures": model_card.describe(name, client.signatures(name, version))}
        print(model_card.text(name, card, _line(url, version, args)))


def _line(url, version, args):
    """What makes a line that asks this server; None for gRPC, which curl does not speak."""
    if not url.startswith("http"):
        return None
    options = []
    if args.token or os.environ.get("DMKERAS_TOKEN"):
        options.append('-H "Authorization: Bearer $DMKERAS_TOKEN"')  # the token itself stays out of the terminal
    if args.ca is not None:
        options.append(f"--cacert {shlex.quote(args.ca)}")
    return functools.partial(curl, url=url, version=version, options=" ".join(options))


def _model_of(address):
    """URL/NAME[/VERSION] -> (URL, NAME, VERSION or None)."""
    parts = urllib.parse.urlsplit(address)
    *path, name = parts.path.strip("/").split("/")
    version = int(name) if path and name.isdecimal() else None
    if version is not None:
        *path, name = path
    if not name:
        raise RequestError(
            f"received {address}, expected {parts.scheme}://{parts.netloc or 'HOST:PORT'}/NAME or .../NAME/VERSION: "
            "a server of TF Serving's protocols lists no models"
        )
    return urllib.parse.urlunsplit(parts._replace(path="/".join(path))), name, version
