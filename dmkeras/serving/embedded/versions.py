"""What becomes of a model's versions: which are wanted, and what is to be done next. No TensorFlow, no threads.

The rules are TF Serving's (sources/storage_path/file_system_storage_path_source.cc and
core/availability_preserving_policy.cc of tensorflow/serving).
"""

import os
import pathlib
import typing

from dmkeras.serving import folders

START, LOADING, AVAILABLE, UNLOADING, END = "START", "LOADING", "AVAILABLE", "UNLOADING", "END"


class VersionStatus(typing.NamedTuple):
    """What has become of a version: `state` START, LOADING, AVAILABLE, UNLOADING or END, `code` a gRPC status' name."""

    version: int
    state: str
    code: str
    message: str


class Version:
    """One version of a model, from its first sight to its end. `loaded` is there while it is AVAILABLE or UNLOADING."""

    def __init__(self, name, number, folder):
        self.name, self.version, self.folder = name, number, folder
        self.state, self.error, self.loaded = START, None, None
        self.wanted = True
        self.users = 0
        self.attempts, self.retry_at = 0, None
        self._tried = self._seen = None  # the folder's content when it was last loaded, and last looked at

    @property
    def failed(self):
        return self.state == END and self.error is not None

    def status(self):
        code, message = (self.error.code, str(self.error)) if self.error else ("OK", "")
        return VersionStatus(self.version, self.state, code, message)

    def begin(self):
        """A load begins."""
        self._tried = self._seen = _content(self.folder)
        self.state, self.error = LOADING, None

    def changed(self):
        """Whether the files differ from those of the last load, and have rested since the last look."""
        content, before = _content(self.folder), self._seen
        self._seen = content
        return content == before != self._tried


class Found(typing.NamedTuple):
    """What is on disk of a model, {version: folder}, oldest first."""

    wanted: dict  # what the policy asks for
    spare: dict  # older ones, of which one may answer while none that is wanted can be loaded


NOTHING = Found({}, {})


def find(model):
    """What is on disk of a ModelConfig's model; OSError where its folder cannot be read."""
    found = folders.versions(model.base_path)
    kind, value = model.policy
    if kind == "latest":
        numbered = list(found.items())
        return Found(dict(numbered[-value:]), dict(numbered[:-value]))
    return Found({number: folder for number, folder in found.items() if kind == "all" or number in value}, {})


def seen(name, known, wanted):
    """The versions of a model after a look at the disk: `known` ones, told whether they are wanted, and new ones."""
    for version in known:
        version.wanted = wanted.get(version.version) == version.folder and (
            version.state != END or (version.failed and version.wanted)
        )
    covered = {version.version for version in known if version.wanted}
    new = [Version(name, number, folder) for number, folder in wanted.items() if number not in covered]
    return joined(known, new)


def joined(known, new):
    """The versions known and new ones, which take the place of those of their number that have ended."""
    fresh = {version.version for version in new}
    return [version for version in known if version.state != END or version.version not in fresh] + new


def to_unload(versions):
    """The versions that may go now: no longer wanted, and a wanted one answers or none is wanted."""
    answering = [version for version in versions if version.state == AVAILABLE]
    wanted = [version for version in versions if version.wanted]
    if wanted and not any(version.wanted for version in answering):
        return []
    return [version for version in answering if not version.wanted]


def to_load(versions, now):
    """The newest version that is wanted and not tried yet, or due for another try; None if there is none."""
    due = [
        version
        for version in versions
        if version.wanted
        and (version.state == START or (version.failed and version.retry_at is not None and now >= version.retry_at))
    ]
    return max(due, key=lambda version: version.version, default=None)


def substitute(versions, name, spare):
    """The newest of {version: folder} that has not failed, where no version answers; None where one does."""
    if any(version.state == AVAILABLE for version in versions):
        return None
    failed = {version.folder for version in versions if version.failed}
    for number, folder in sorted(spare.items(), reverse=True):
        if folder not in failed:
            version = Version(name, number, folder)
            version.wanted = False  # it goes when one that is wanted answers
            return version
    return None


def _content(folder):
    """{file: (size, time)} of a version's folder, to see whether it has changed."""
    found = {}
    for parent, _, files in os.walk(folder):
        for name in files:
            path = pathlib.Path(parent, name)
            try:
                facts = path.stat()
            except OSError:  # it went while we looked
                continue
            found[str(path)] = facts.st_size, facts.st_mtime_ns
    return found
