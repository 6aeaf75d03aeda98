"""The versions that a server holds: loaded when they are wanted, lent to requests, closed when nobody uses them.

`lock` guards what requests read and is held for moments. Loads and unloads happen in `reconcile`, of which one runs at
a time: its callers see to that.
"""

import contextlib
import logging
import threading
import time

from dmkeras.serving import graph_errors, runtime
from dmkeras.serving.embedded import loading, versions
from dmkeras.serving.embedded.versions import AVAILABLE, END, UNLOADING
from dmkeras.serving.errors import ServingError

REMEMBERED = 100  # ended versions of a model whose state is kept
log = logging.getLogger("dmkeras.serving")


class VersionManager:
    """{name: [Version]}, the ended ones included, and what happens to them.

    Args:
        load_retries: how often a version that failed is tried again.
        retry_seconds: how long after.
        metrics: a `Metrics` or None.
        options: of `loading.load`.
    """

    def __init__(self, *, load_retries, retry_seconds, metrics, **options):
        self._load_retries, self._retry_seconds, self._metrics = load_retries, retry_seconds, metrics
        self._options = {"metrics": metrics, **options}
        self._versions = {}
        self._stopping = False
        self.lock = threading.Condition()

    def names(self):
        """The models of which there is, or was, a version."""
        return list(self._versions)

    def versions(self, name):
        """Every Version of a model, in the order in which they were seen."""
        return self._versions.get(name, [])

    def newest(self, name, number=None):
        """The newest version that answers, or the one of that number; None where there is none."""
        found = [
            version
            for version in reversed(self.versions(name))  # of one number, the one that was seen last
            if version.state == AVAILABLE and number in (None, version.version)
        ]
        return max(found, key=lambda version: version.version, default=None)

    @contextlib.contextmanager
    def lend(self, find):
        """The version that `find()` gives under the lock, which is not closed before it comes back."""
        with self.lock:
            version = find()
            version.users += 1
        try:
            yield version
        finally:
            with self.lock:
                version.users -= 1
                if version.state == UNLOADING and not version.users:
                    self.lock.notify_all()

    def reconcile(self, name, found):
        """Loads and unloads versions of a model until they are those wanted.

        An older version stands in where none that is wanted can be loaded: so a server that starts with a bad version
        answers as one that was running when it came.

        Args:
            name: the model's.
            found: what is on disk, a `Found`; None: as before.
        """
        if found is not None:
            with self.lock:
                self._versions[name] = versions.seen(name, self.versions(name), found.wanted)
        now = time.monotonic()
        for version in self.versions(name):
            if version.wanted and version.failed and version.changed():
                version.attempts, version.retry_at = 0, now
        while not self._stopping:
            with self.lock:
                for version in versions.to_unload(self.versions(name)):
                    version.state = UNLOADING
            self.close_idle()
            version = versions.to_load(self.versions(name), now) or (found and self._substitute(name, found.spare))
            if version is None:
                break
            self._load(version)

    def idle(self):
        """The versions that can be closed: on their way out, and nobody's."""
        return [
            version
            for known in self._versions.values()
            for version in known
            if version.state == UNLOADING and not version.users
        ]

    def close_idle(self):
        """Closes the versions that nobody uses any more, and forgets the oldest that ended."""
        with self.lock:
            idle = self.idle()
        for version in idle:
            try:
                version.loaded.close()
            except Exception:  # it is out of use all the same
                log.exception("%s version %d could not be closed", version.name, version.version)
            with self.lock:
                version.loaded, version.state = None, END
                known = self.versions(version.name)
                ended = [other for other in known if other.state == END and not other.wanted]
                self._versions[version.name] = [other for other in known if other not in ended[:-REMEMBERED]]
            log.info("%s version %d is unloaded", version.name, version.version)
        if idle:
            runtime.trim()

    def stop_loading(self):
        """No load begins any more; what is loaded meanwhile answers nobody."""
        with self.lock:
            self._stopping = True
            self.lock.notify_all()

    def end(self, seconds):
        """Closes everything, and waits so long for requests under way: a version in use stays as it is."""
        with self.lock:
            going = [version for known in self._versions.values() for version in known if version.state == AVAILABLE]
            for version in going:
                version.state = UNLOADING
            self.lock.wait_for(lambda: not any(version.users for version in going), seconds)
        self.close_idle()
        for version in going:
            if version.users:
                log.warning("%s version %d is still in use and stays loaded", version.name, version.version)

    def _substitute(self, name, spare):
        version = versions.substitute(self.versions(name), name, spare)
        if version is not None:
            log.warning("%s version %d stands in for what cannot be loaded", name, version.version)
            with self.lock:
                self._versions[name] = versions.joined(self.versions(name), [version])
        return version

    def _load(self, version):
        start = time.monotonic()
        version.begin()
        try:
            loaded = loading.load(version, **self._options)
        except Exception as error:  # anything that a foreign version can make of the loader
            failure = graph_errors.serving_error(error, version.folder)
            version.attempts += 1
            retry_at = time.monotonic() + self._retry_seconds if version.attempts <= self._load_retries else None
            with self.lock:
                # A new error, without the frames of this one, which hold the graph.
                version.error, version.retry_at = ServingError(failure.code, str(failure)), retry_at
                version.state = END
            log.warning("%s version %d cannot be loaded: %s: %s", version.name, version.version, failure.code, failure)
            return
        with self.lock:
            version.loaded, version.state = loaded, AVAILABLE
        seconds = time.monotonic() - start
        log.info("%s version %d answers, loaded in %.2f s", version.name, version.version, seconds)
        if self._metrics is not None:
            self._metrics.loaded(version.name, seconds)
