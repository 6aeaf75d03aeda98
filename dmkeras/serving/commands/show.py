"""`dmkeras show`: what is exported in a folder, or served at a URL."""

import pathlib

from dmkeras.serving import folders, model_card
from dmkeras.serving.client import is_url
from dmkeras.serving.commands import quiet
from dmkeras.serving.commands.predict import add_server_arguments, client_of
from dmkeras.serving.errors import RequestError


def add_arguments(parser):
    parser.set_defaults(command=run)
    parser.add_argument("path", help="saved_models, saved_models/NAME, saved_models/NAME/VERSION or URL/NAME")
    add_server_arguments(parser)


def run(args):
    if is_url(args.path):
        return _show_server(*args.path.rstrip("/").rpartition("/")[::2], args)
    path = pathlib.Path(args.path)
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
        card = {"signatures": model_card.describe(model, quiet.runtime().described(folder))}
    print(f"{model}, version {folder.absolute().name}{beside}\n{model_card.text(model, card)}\n")


def _show_server(url, name, args):
    """What a server says of a model: the states of its versions, and the signatures of the newest."""
    if url.endswith("/"):  # of http://HOST, without a name behind it
        raise RequestError(
            f"received {url}{name}, expected URL/NAME: a server of TF Serving's protocol lists no models"
        )
    with client_of(url, args) as client:
        for status in client.status(name):
            print(f"{name}, version {status.version}: {status.state}{status.message and f', {status.message}'}")
        card = {"signatures": model_card.describe(name, client.signatures(name))}
        print(model_card.text(name, card).replace(model_card.HOST, url))
