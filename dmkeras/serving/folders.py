"""Folders as TF Serving reads them: BASE/NAME/VERSION/saved_model.pb, VERSION an integer.

Names are looked up among the folders found and never joined into paths. A version appears at once and whole: it is
written as a draft under a name that no server reads, brought to disk, and renamed. Drafts that a killed export left are
harmless.
"""

import contextlib
import difflib
import errno
import logging
import os
import pathlib
import re
import shutil
import uuid

from dmkeras.serving.errors import RequestError

DRAFT = ".export-"
LAST_VERSION = 2**63 - 1
NAME = re.compile("[A-Za-z][A-Za-z0-9_.-]*")
log = logging.getLogger("dmkeras.serving")


class UnknownNameError(LookupError):
    """No model, version or signature of the name that was asked for."""


class DamagedError(ValueError):
    """A version on disk that cannot be read."""


def pick(found, name, kind, where):
    """`found[name]`; UnknownNameError with what there is, near matches first, where there is none."""
    if name in found:
        return found[name]
    names = [str(known) for known in found]
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there is {', '.join(names) or 'none'}."
    raise UnknownNameError(f"no {kind} {str(name)!r} in {where}; {hint}")


def check_base(path):
    """Checks that a path may hold models, in time.

    Raises:
        NotADirectoryError: for what is no folder.
        RequestError: for a model or a version.
    """
    path = pathlib.Path(path)
    if not path.is_dir():
        raise NotADirectoryError(f"{path} is no folder, expected one that holds NAME/VERSION/saved_model.pb")
    if (path / "saved_model.pb").is_file():
        raise RequestError(f"{path} is a version of one model, expected the folder of models two levels above")
    if versions(path):
        raise RequestError(
            f"{path} holds the versions of one model, expected the folder above it, which holds models; for one model "
            "alone, --model_base_path or a ModelConfig"
        )


def models(base):
    """{name: folder} of the models in a folder, those with at least one version, by name.

    One that cannot be read is a warning in the log; OSError where the folder itself cannot.
    """
    found, unreadable = survey(base)
    for error in unreadable.values():
        log.warning("passed over: %s", error)
    return found


def survey(base):
    """The models in a folder, {name: folder}, and what is in the way of others: {name: OSError}."""
    found, unreadable = {}, {}
    for entry in sorted(_entries(base)):
        if entry.name.startswith("."):
            continue
        try:
            if entry.is_dir() and versions(entry):
                found[entry.name] = entry
        except OSError as error:
            unreadable[entry.name] = error
    return found, unreadable


def versions(folder):
    """{version: folder} of a model, oldest first."""
    found = {number: entry for number, entry in _numbered(folder) if (entry / "saved_model.pb").is_file()}
    return dict(sorted(found.items()))


def drafts(folder):
    """Drafts in a model's folder: exports that are under way, or were killed."""
    return sorted(entry for entry in _entries(folder) if entry.name.startswith(DRAFT))


@contextlib.contextmanager
def draft(folder):
    """A new empty folder in a model's folder, to be filled and published. What is left of it at the end is removed."""
    folder = pathlib.Path(folder)
    fresh = not folder.exists()
    path = folder / f"{DRAFT}{uuid.uuid4().hex}"
    try:
        try:
            path.mkdir(parents=True)
        except FileNotFoundError:  # a failing export beside this one has just removed the model's folder
            path.mkdir(parents=True)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        if fresh:  # an empty model folder would keep a TF Serving that names it from opening its ports
            with contextlib.suppress(OSError):
                folder.rmdir()


def publish(path):
    """Renames a draft to the next version of its model and returns that folder. Racing exports get a version each."""
    folder = path.parent
    for parent, _, files in os.walk(path, topdown=False):
        for name in files:
            _sync(os.path.join(parent, name))
        _sync(parent)
    while True:
        version = max((number for number, _ in _numbered(folder)), default=0) + 1
        if version > LAST_VERSION:
            raise OverflowError(f"{folder}: version {LAST_VERSION} exists, and there is no next one")
        target = folder / str(version)
        try:
            os.rename(path, target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR) and target.exists():
                continue  # another export took this version since we looked
            raise
        for parent in (folder, folder.parent):
            with contextlib.suppress(OSError):  # the version is published, whether or not a folder can be synced here
                _sync(parent)
        return target


def _entries(folder):
    return list(pathlib.Path(folder).iterdir())


def _numbered(folder):
    """(version, entry) of everything whose name TF Serving reads as a version; `7` comes after `007`."""
    entries = sorted(entry for entry in _entries(folder) if re.fullmatch("[0-9]+", entry.name))
    return [(int(entry.name), entry) for entry in entries if int(entry.name) <= LAST_VERSION]


def _sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
