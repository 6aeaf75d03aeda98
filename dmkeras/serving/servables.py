"""The models of a server: versions found on disk, loaded, lent to requests and unloaded.

A thread looks at the disk once a second. What is wanted but not loaded is loaded in that thread, beside what answers;
what is no longer wanted goes once something wanted answers, and is closed when its last request is done. So a change
of versions loses no request, and a version that cannot be loaded changes nothing but its own state.
"""

import contextlib
import logging
import pathlib
import threading
import time

from dmkeras.serving import folders, loading, model_config, runtime, versions
from dmkeras.serving.errors import RequestError, ServingError
from dmkeras.serving.versions import AVAILABLE, END, UNLOADING, VersionStatus

__all__ = ["Servables", "VersionStatus"]

REMEMBERED = 1000  # ended versions of a model whose state is kept
log = logging.getLogger("dmkeras.serving")


class Servables:
    """The models of a server. `start()` loads them, `use()` lends a version to a request, `stop()` ends them all."""

    def __init__(
        self,
        models,
        *,
        discover=None,
        poll_seconds=1.0,
        load_retries=5,
        retry_seconds=60.0,
        warm_up=True,
        warm_up_iterations=1,
        batching=None,
        per_model_batching=False,
        labels_for_unavailable=False,
        metrics=None,
        **threads,
    ):
        """Nothing is loaded before `start()`.

        Args:
            models: [ModelConfig].
            discover: a folder whose every NAME is a model, as they come and go; beside `models`.
            poll_seconds: how often the disk is looked at; 0: at the start alone.
            load_retries: how often a version that failed is tried again. Besides, it is tried whenever its files have
                changed and come to rest, as those of a version that was seen half-written do.
            retry_seconds: how long after a failure.
            warm_up: whether a version's warm-up records are run before it answers.
            warm_up_iterations: how often each.
            batching: a `Batching` for every model; None: requests run alone.
            per_model_batching: each version is batched after its own batching_params.pbtxt, or not at all.
            labels_for_unavailable: whether a new label may name a version that does not answer yet.
            metrics: a `Metrics`.
            threads: inter_op and intra_op, of `Loaded`.

        Raises:
            RequestError: for models that cannot be served together.
        """
        self._discover = pathlib.Path(discover).absolute() if discover is not None else None
        self._poll_seconds, self._load_retries, self._retry_seconds = poll_seconds, load_retries, retry_seconds
        self._labels_for_unavailable, self._metrics = labels_for_unavailable, metrics
        self._loading = {
            "iterations": warm_up_iterations if warm_up else 0,
            "batching": batching,
            "per_model_batching": per_model_batching,
            "metrics": metrics,
            **threads,
        }
        self._given = model_config.check(list(models))
        self._models = {model.name: model for model in self._given}
        self._labels = {}  # {name: {label: version}}
        self._versions = {}  # {name: [Version]}, ended ones included
        self._missing = set()  # models that had a version once, and none at the last look
        self._lock = threading.Condition()  # guards what requests read; held for moments
        self._turn = threading.Lock()  # held by whoever changes the set of versions, through its loads
        self._stopping = False
        self._thread = threading.Thread(target=self._watch, name="dmkeras-versions", daemon=True)

    def start(self):
        """Loads what there is, then watches the disk. Returns when each model has a version that answers, or failed.

        Raises:
            ServingError: FAILED_PRECONDITION for a label of a version that does not answer.
        """
        with self._turn:
            self._look()
            for name in self._models:
                if not self._versions.get(name):
                    log.warning("model %s has no version yet", name)
            labels = self._checked_labels(self._given)
            with self._lock:
                self._labels = labels
        self._thread.start()

    def stop(self, seconds=30.0):
        """Ends every version. Waits so long for requests under way; a version still in use is left as it is."""
        end = time.monotonic() + seconds
        with self._lock:
            self._stopping = True
            self._lock.notify_all()
        if self._thread.ident is not None:
            self._thread.join(seconds)
        with self._lock:
            going = [version for known in self._versions.values() for version in known if version.state == AVAILABLE]
            for version in going:
                version.state = UNLOADING
            self._lock.wait_for(lambda: not any(version.users for version in going), end - time.monotonic())
        self._close()
        for version in going:
            if version.users:
                log.warning("%s version %d is still in use and stays loaded", version.name, version.version)

    def configure(self, models):
        """Replaces the set of models, what `discover` found included; None changes nothing.

        New models are loaded first: unless each has a version that answers, the old set stays.

        Raises:
            RequestError: for models that cannot be served together.
            ServingError: FAILED_PRECONDITION for a label of a version that does not answer, UNKNOWN for a new model
                none of whose versions can be loaded.
        """
        if models is None:
            return
        models = model_config.check(list(models))
        with self._turn:
            labels = self._checked_labels(models)
            new = [model for model in models if model.name not in self._models]
            for model in new:
                self._reconcile(model.name, versions.wanted(model))
            failures = [failure for model in new if (failure := self._failure(model.name))]
            if failures:
                for model in new:
                    self._reconcile(model.name, {})
                raise ServingError(
                    "UNKNOWN", f"{len(failures)} model(s) did not become available: {{{''.join(failures)}}}"
                )
            with self._lock:
                self._given, self._discover, self._labels = models, None, labels
                self._models = {model.name: model for model in models}
            log.info("configured models: %s", ", ".join(self._models) or "none")
            self._look()

    @contextlib.contextmanager
    def use(self, name, version=None, label=None):
        """Lends the newest version that answers, or that of a number or a label: `.name .version .loaded`.

        It stays loaded as long as it is lent.

        Raises:
            ServingError: NOT_FOUND for a model or version that does not answer, INVALID_ARGUMENT for an empty name or
                an unknown label, UNAVAILABLE once the server stops.
        """
        with self._lock:
            servable = self._find(name, version, label)
            servable.users += 1
        try:
            yield servable
        finally:
            with self._lock:
                servable.users -= 1
                if servable.state == UNLOADING and not servable.users:
                    self._lock.notify_all()

    def status(self, name, version=None, label=None):
        """[VersionStatus] of a model, newest first, or of one version of it; ended ones are told, too.

        Raises:
            ServingError: NOT_FOUND for a model or version never seen, INVALID_ARGUMENT for an unknown label.
        """
        with self._lock:
            if label is not None:
                version = self._labelled(name, label)
            known = {found.version: found.status() for found in self._versions.get(name, ())}
        if version is None:
            if not known:
                raise ServingError("NOT_FOUND", f"Could not find any versions of model {name}")
            return sorted(known.values(), reverse=True)
        if version not in known:
            raise ServingError("NOT_FOUND", f"Could not find version {version} of model {name}")
        return [known[version]]

    def names(self):
        """The models that are served, whether or not a version answers."""
        with self._lock:
            return sorted(self._models)

    def ready(self):
        """Whether there are models, and each has a version that answers."""
        with self._lock:
            return bool(self._models) and not self._stopping and all(map(self._newest, self._models))

    def _find(self, name, number, label):
        if not name:
            raise RequestError("ModelSpec has no name specified.")
        if self._stopping:
            raise ServingError("UNAVAILABLE", "the server is stopping")
        if label is not None:
            number = self._labelled(name, label)
        found = self._newest(name, number)
        if found is None:
            request = f"Latest({name})" if number is None else f"Specific({name}, {number})"
            raise ServingError("NOT_FOUND", f"Servable not found for request: {request}")
        return found

    def _newest(self, name, number=None):
        found = [
            version
            for version in reversed(self._versions.get(name, ()))
            if version.state == AVAILABLE and number in (None, version.version)
        ]
        return max(found, key=lambda version: version.version, default=None)

    def _labelled(self, name, label):
        version = self._labels.get(name, {}).get(label)
        if version is None:
            raise RequestError(f"Unrecognized servable version label: {label}")
        return version

    def _checked_labels(self, models):
        """{name: {label: version}} of models, each of a version that answers where that is asked for."""
        for model in models:
            for label, version in model.labels.items():
                moved = self._labels.get(model.name, {}).get(label, version) != version
                if self._newest(model.name, version) is None and (moved or not self._labels_for_unavailable):
                    raise ServingError(
                        "FAILED_PRECONDITION",
                        f"Request to assign label to version {version} of model {model.name}, which is not currently "
                        "available for inference",
                    )
        return {model.name: dict(model.labels) for model in models}

    def _failure(self, name):
        """Why a model has no version that answers, in TF Serving's words; None if it has one."""
        if self._newest(name):
            return None
        failed = [version for version in self._versions.get(name, ()) if version.failed]
        if not failed:
            return f"{{{{name: {name}}} has no version}}, "
        last = max(failed, key=lambda version: version.version)
        return f"{{{{name: {name} version: {last.version}}} due to error: {last.error.code}: {last.error}}}, "

    def _watch(self):
        pause = self._poll_seconds or 1.0
        look_at = time.monotonic() + pause
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._stopping or self._idle(), max(0.0, look_at - time.monotonic()))
                if self._stopping:
                    return
            try:
                with self._turn:
                    self._close()
                    if time.monotonic() >= look_at:
                        self._look(scan=self._poll_seconds > 0)
            except Exception:  # a disk's whim must not end the watch
                log.exception("looking for versions failed; trying again")
            if time.monotonic() >= look_at:
                look_at = time.monotonic() + pause

    def _look(self, scan=True):
        """Does what is to be done, with what is on disk or, without a scan, with what was there before."""
        if scan and self._discover is not None:
            with contextlib.suppress(OSError):  # a folder that cannot be read says nothing of its models
                self._rediscover(folders.models(self._discover))
        for name in dict.fromkeys([*self._models, *self._versions]):
            model = self._models.get(name)
            if model is None:
                self._reconcile(name, {})
            else:
                self._reconcile(name, self._believed(name, versions.wanted(model)) if scan else None)

    def _rediscover(self, found):
        models = {model.name: model for model in self._given}
        for name, folder in found.items():
            models.setdefault(name, model_config.ModelConfig(name, str(folder)))
        for name in self._models.keys() - models.keys():
            if self._believed(name, {}) is None:
                models[name] = self._models[name]
        with self._lock:
            self._models = models

    def _believed(self, name, wanted):
        """What was found of a model; that nothing is left of it only at the second look.

        A folder that is being deleted is empty before it is gone, and what was served from it shall stay.
        """
        if wanted or wanted is None:
            self._missing.discard(name)
            return wanted
        if name in self._missing:
            return wanted
        self._missing.add(name)
        return None

    def _reconcile(self, name, wanted):
        """Loads and unloads versions of a model until they are those wanted, {version: folder}; None: as before."""
        if wanted is not None:
            with self._lock:
                self._versions[name] = versions.seen(name, self._versions.get(name, []), wanted)
        known = self._versions.get(name, [])
        now = time.monotonic()
        for version in known:
            if version.wanted and version.failed and version.changed():
                version.retry_at = now
        while not self._stopping:
            with self._lock:
                for version in versions.to_unload(known):
                    version.state = UNLOADING
            self._close()
            version = versions.to_load(known, now)
            if version is None:
                break
            self._load(version)

    def _load(self, version):
        start = time.monotonic()
        with self._lock:
            version.begin()
        try:
            loaded = loading.load(version, **self._loading)
        except Exception as error:  # anything that a foreign version can make of the loader
            failure = runtime.serving_error(error, version.folder)
            retry_at = time.monotonic() + self._retry_seconds if version.attempts <= self._load_retries else None
            with self._lock:
                # A new error, without the frames of this one, which hold the graph.
                version.state, version.error = END, ServingError(failure.code, str(failure))
                version.retry_at = retry_at
            log.warning("%s version %d cannot be loaded: %s: %s", version.name, version.version, failure.code, failure)
            return
        with self._lock:
            version.loaded, version.state = loaded, UNLOADING if self._stopping else AVAILABLE
        seconds = time.monotonic() - start
        log.info("%s version %d answers, loaded in %.2f s", version.name, version.version, seconds)
        if self._metrics is not None:
            self._metrics.loaded(version.name, version.version, seconds)

    def _idle(self):
        """The versions that can be closed: on their way out, and nobody's."""
        return [
            version
            for known in self._versions.values()
            for version in known
            if version.state == UNLOADING and not version.users
        ]

    def _close(self):
        """Closes the versions that nobody uses any more, and forgets the oldest that ended."""
        with self._lock:
            idle = self._idle()
        for version in idle:
            version.loaded.close()
            with self._lock:
                version.loaded, version.state = None, END
                known = self._versions[version.name]
                ended = [other for other in known if other.state == END and not other.wanted]
                self._versions[version.name] = [other for other in known if other not in ended[:-REMEMBERED]]
            log.info("%s version %d is unloaded", version.name, version.version)
        if idle:
            runtime.trim()
