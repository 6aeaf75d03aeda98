"""The models of a server: versions found on disk, loaded, lent to requests and unloaded.

A thread looks at the disk once a second. What is wanted but not loaded is loaded in that thread, beside what answers;
what is no longer wanted goes once something wanted answers, and is closed when its last request is done. So a change
of versions loses no request, and a version that cannot be loaded changes nothing but its own state.
"""

import logging
import pathlib
import threading
import time

from dmkeras.serving import folders
from dmkeras.serving.embedded import model_config, versions
from dmkeras.serving.embedded.version_manager import VersionManager
from dmkeras.serving.embedded.versions import VersionStatus
from dmkeras.serving.errors import RequestError, ServingError

__all__ = ["Servables", "VersionStatus"]

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
        inter_op=0,
        intra_op=0,
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
            inter_op: threads over which ops are spread, as of `Loaded`.
            intra_op: threads within an op, likewise.

        Raises:
            RequestError: for models that cannot be served together.
        """
        self._discover = pathlib.Path(discover).absolute() if discover is not None else None
        self._poll_seconds, self._labels_for_unavailable = poll_seconds, labels_for_unavailable
        self._given = model_config.check(list(models))
        self._models = {model.name: model for model in self._given}
        self._labels = {}  # {name: {label: version}}
        self._nothing = set()  # models of which nothing was found at the last look
        self._troubles = set()  # what was said at the last look
        self._stopping = False
        self._turn = threading.Lock()  # held by whoever changes the set of versions, through its loads
        self._thread = threading.Thread(target=self._watch, name="dmkeras-versions", daemon=True)
        self._manager = VersionManager(
            load_retries=load_retries,
            retry_seconds=retry_seconds,
            metrics=metrics,
            iterations=warm_up_iterations if warm_up else 0,
            batching=batching,
            per_model_batching=per_model_batching,
            inter_op=inter_op,
            intra_op=intra_op,
        )
        self._lock = self._manager.lock  # guards what requests read

    def start(self):
        """Loads what there is, then watches the disk. Returns when each model has a version that answers, or failed.

        Raises:
            ServingError: FAILED_PRECONDITION for a label of a version that does not answer.
        """
        try:
            with self._turn:
                self._look()
                labels = self._checked_labels(self._given)
                with self._lock:
                    self._labels = labels
        except ServingError:
            self.stop()
            raise
        self._thread.start()

    def stop(self, seconds=30.0):
        """Ends every version. Waits so long for requests under way; a version still in use is left as it is."""
        end = time.monotonic() + seconds
        self._stopping = True
        self._manager.stop_loading()
        if self._turn.acquire(timeout=seconds):
            try:
                self._manager.end(max(0.0, end - time.monotonic()))
            finally:
                self._turn.release()
            if self._thread.ident is not None:
                self._thread.join()
        else:
            log.warning("a version is still being loaded; all stay as they are")

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
                self._manager.reconcile(model.name, _found(model, {}))
            failures = [failure for model in new if (failure := self._failure(model.name))]
            if failures:
                for model in new:
                    self._manager.reconcile(model.name, versions.NOTHING)
                raise ServingError(
                    "UNKNOWN", f"{len(failures)} model(s) did not become available: {{{''.join(failures)}}}"
                )
            names = [model.name for model in models]
            log.info("configured models: %s", ", ".join(names) or "none")
            gone = self._models.keys() - names
            with self._lock:
                self._given, self._discover, self._labels = models, None, labels
                self._models = dict(zip(names, models))
            for name in gone:
                self._manager.reconcile(name, versions.NOTHING)
            self._look()

    def use(self, name, version=None, label=None):
        """A context that lends the newest version that answers, or that of a number or label: `.name .version .loaded`.

        It stays loaded as long as it is lent.

        Raises:
            ServingError: NOT_FOUND for a model or version that does not answer, INVALID_ARGUMENT for an empty name or
                an unknown label, UNAVAILABLE once the server stops.
        """
        return self._manager.lend(lambda: self._find(name, version, label))

    def status(self, name, version=None, label=None):
        """[VersionStatus] of a model, newest first, or of one version of it; ended ones are told, too.

        Raises:
            ServingError: NOT_FOUND for a model or version never seen, INVALID_ARGUMENT for an unknown label.
        """
        with self._lock:
            if label is not None:
                version = self._labelled(name, label)
            known = {found.version: found.status() for found in self._manager.versions(name)}
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
            return bool(self._models) and not self._stopping and all(map(self._manager.newest, self._models))

    def _find(self, name, number, label):
        if not name:
            raise RequestError("ModelSpec has no name specified.")
        if self._stopping:
            raise ServingError("UNAVAILABLE", "the server is stopping")
        if label is not None:
            number = self._labelled(name, label)
        found = self._manager.newest(name, number)
        if found is None:
            request = f"Latest({name})" if number is None else f"Specific({name}, {number})"
            raise ServingError("NOT_FOUND", f"Servable not found for request: {request}")
        return found

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
                if self._manager.newest(model.name, version) is None and (moved or not self._labels_for_unavailable):
                    raise ServingError(
                        "FAILED_PRECONDITION",
                        f"Request to assign label to version {version} of model {model.name}, which is not currently "
                        "available for inference",
                    )
        return {model.name: dict(model.labels) for model in models}

    def _failure(self, name):
        """Why a model has no version that answers, in TF Serving's words; None if it has one."""
        if self._manager.newest(name):
            return None
        failed = [version for version in self._manager.versions(name) if version.failed]
        if not failed:
            return f"{{{{name: {name}}} has no version}}, "
        last = max(failed, key=lambda version: version.version)
        return f"{{{{name: {name} version: {last.version}}} due to error: {last.error.code}: {last.error}}}, "

    def _watch(self):
        pause = self._poll_seconds or 1.0
        look_at = time.monotonic() + pause
        while True:
            with self._lock:
                wake = lambda: self._stopping or self._manager.idle()
                self._lock.wait_for(wake, max(0.0, look_at - time.monotonic()))
            with self._turn:
                if self._stopping:
                    return
                try:
                    self._manager.close_idle()
                    if time.monotonic() >= look_at:
                        self._look(scan=self._poll_seconds > 0)
                except Exception:  # a disk's whim must not end the watch
                    log.exception("looking for versions failed; trying again")
            if time.monotonic() >= look_at:
                look_at = time.monotonic() + pause

    def _look(self, scan=True):
        """Does what is to be done, after what is on disk or, without a scan, what was there before."""
        if not scan:
            for name in self._manager.names():
                self._manager.reconcile(name, None)
            return
        unreadable = {}
        vanished = self._rediscover(unreadable) if self._discover is not None else set()
        found = {name: _found(model, unreadable) for name, model in self._models.items() if name not in vanished}
        found |= dict.fromkeys(vanished, versions.NOTHING)
        nothing = {name for name, there in found.items() if there is not None and not there.wanted}
        # A folder that is being deleted is empty before it is gone, and what was served from it shall stay: that
        # nothing is left of a model is believed at the second look.
        for name, there in found.items():
            self._manager.reconcile(name, None if name in nothing - self._nothing else there)
        self._nothing = nothing
        self._tell(unreadable)

    def _rediscover(self, unreadable):
        """Adds the models that `discover` holds now and drops those gone for two looks; returns all that are gone.

        What cannot be read stays as it is; adds its OSError to `unreadable`.
        """
        try:
            found, errors = folders.survey(self._discover)
        except OSError as error:
            unreadable[str(self._discover)] = error
            return set()
        unreadable.update(errors)
        found = {name: model_config.ModelConfig(name, str(folder)) for name, folder in found.items()}
        kept = {name: self._models[name] for name in errors if name in self._models}
        models = found | kept | {model.name: model for model in self._given}
        vanished = self._models.keys() - models.keys()
        with self._lock:
            self._models = {name: self._models[name] for name in vanished - self._nothing} | models
        return vanished

    def _tell(self, unreadable):
        """Warns of what does not answer, and of folders that cannot be read: once, until that changes."""
        troubles = {f"{name} is left as it is, it cannot be read: {error}" for name, error in unreadable.items()}
        if not self._models:
            where = "no model is configured" if self._discover is None else f"{self._discover} holds no model yet"
            troubles.add(f"nothing is served: {where}, expected NAME/VERSION/saved_model.pb")
        troubles |= {
            f"model {name} has no version that answers" for name in self._models if not self._manager.newest(name)
        }
        for trouble in sorted(troubles - self._troubles):
            log.warning("%s", trouble)
        self._troubles = troubles


def _found(model, unreadable):
    """What is on disk of a model; None, and its OSError in `unreadable`, where its folder cannot be read."""
    try:
        return versions.find(model)
    except OSError as error:
        unreadable[model.name] = error
        return None
