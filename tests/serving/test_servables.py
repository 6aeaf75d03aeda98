"""Versions come, answer, and go: the laws of a change, with models that are files of one word."""

import contextlib
import os
import shutil
import threading
import time

import pytest

from dmkeras.serving import folders, graph_errors, runtime
from dmkeras.serving.embedded import loading, versions
from dmkeras.serving.embedded.model_config import ModelConfig
from dmkeras.serving.embedded.servables import Servables, VersionStatus
from dmkeras.serving.errors import RequestError, ServingError

SOON = 10.0  # seconds in which everything that is to happen has happened


class Loads:
    """Stands for the loader: every call is noted, a `bad` version fails, and `held` ones wait to be let go."""

    def __init__(self):
        self.events, self.options, self.held = [], {}, {}

    def hold(self, number):
        self.held[number] = threading.Event()
        return self.held[number]

    def __call__(self, version, **options):
        self.events.append(("load", version.name, version.version))
        self.options = options
        if version.version in self.held:
            assert self.held[version.version].wait(SOON)
        if (version.folder / "saved_model.pb").read_text() == "bad":
            raise graph_errors.LoadError(version.folder, "OUT_OF_RANGE", "Read less bytes than requested")
        return Fake(self, version)

    def of(self, kind):
        return [number for event, _, number in self.events if event == kind]


class Fake:
    def __init__(self, loads, version):
        self.loads, self.version, self.closed = loads, version, False

    def close(self):
        assert not self.version.users, "a version in use was closed"
        self.closed = True
        self.loads.events.append(("close", self.version.name, self.version.version))


@pytest.fixture
def loads(monkeypatch):
    loads = Loads()
    monkeypatch.setattr(loading, "load", loads)
    monkeypatch.setattr(runtime, "trim", lambda: None)
    return loads


@pytest.fixture
def serve(loads):
    """Makes Servables that look at the disk at every moment, and stops them."""
    with contextlib.ExitStack() as stack:

        def make(models=(), *, start=True, **options):
            servables = Servables(models, **{"poll_seconds": 0.01, **options})
            stack.callback(servables.stop, 1.0)
            if start:
                servables.start()
            return servables

        yield make


def publish(model, number, content="good"):
    """A version that appears at once and whole."""
    with folders.draft(model) as draft:
        (draft / "saved_model.pb").write_text(content)
        os.rename(draft, model / str(number))


def until(condition):
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def looks(servables, count=3):
    """Waits until the disk has been looked at again."""
    seen = []
    find = versions.find

    def look(model):
        seen.append(model)
        return find(model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(versions, "find", look)
        until(lambda: len(seen) >= count)


def answering(servables, name="m", **which):
    with servables.use(name, **which) as servable:
        assert not servable.loaded.closed
        return servable.version


def states(servables, name="m"):
    return {status.version: status.state for status in servables.status(name)}


@pytest.fixture
def model(tmp_path):
    for number in (1, 2, 3):
        publish(tmp_path / "m", number)
    return tmp_path / "m"


def config(model, policy=("latest", 1), **labels):
    return ModelConfig("m", str(model), policy, labels)


@pytest.mark.parametrize(
    ("policy", "loaded"),
    [(("latest", 1), {3}), (("latest", 2), {2, 3}), (("all", None), {1, 2, 3}), (("specific", (1, 2, 9)), {1, 2})],
)
def test_a_policy_says_which_versions_answer_and_the_newest_is_the_default(serve, model, policy, loaded):
    servables = serve([config(model, policy)])
    assert states(servables) == dict.fromkeys(loaded, "AVAILABLE")
    assert answering(servables) == max(loaded)
    assert {answering(servables, version=number) for number in loaded} == loaded
    assert servables.names() == ["m"]
    assert servables.ready()


def test_what_does_not_answer_is_refused_in_tf_servings_words(serve, model):
    servables = serve([config(model, stable=3)])
    for which, code, told in [
        ({"name": "none"}, "NOT_FOUND", "Servable not found for request: Latest(none)"),
        ({"name": "m", "version": 99}, "NOT_FOUND", "Servable not found for request: Specific(m, 99)"),
        ({"name": "../../etc"}, "NOT_FOUND", "Servable not found for request: Latest(../../etc)"),
        ({"name": ""}, "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        ({"name": "m", "label": "new"}, "INVALID_ARGUMENT", "Unrecognized servable version label: new"),
        ({"name": "none", "label": "stable"}, "INVALID_ARGUMENT", "Unrecognized servable version label: stable"),
    ]:
        with pytest.raises(ServingError) as caught, servables.use(**which):
            pass
        assert (caught.value.code, str(caught.value)) == (code, told)
    for which, told in [
        ({"name": "none"}, "Could not find any versions of model none"),
        ({"name": "m", "version": 7}, "Could not find version 7 of model m"),
    ]:
        with pytest.raises(ServingError) as caught:
            servables.status(**which)
        assert (caught.value.code, str(caught.value)) == ("NOT_FOUND", told)


def test_a_status_tells_every_version_newest_first(serve, model):
    servables = serve([config(model, ("all", None))])
    assert [status.version for status in servables.status("m")] == [3, 2, 1]
    assert servables.status("m", version=2) == [VersionStatus(2, "AVAILABLE", "OK", "")]


def test_a_new_version_answers_before_the_old_one_goes_which_stays_in_the_status(serve, model, loads):
    servables = serve([config(model)])
    publish(model, 4)
    until(lambda: states(servables) == {3: "END", 4: "AVAILABLE"})
    assert answering(servables) == 4
    assert loads.events == [("load", "m", 3), ("load", "m", 4), ("close", "m", 3)]


def test_a_version_in_use_is_not_closed_before_it_comes_back(serve, model, loads):
    servables = serve([config(model)])
    with servables.use("m") as servable:
        publish(model, 4)
        until(lambda: states(servables) == {3: "UNLOADING", 4: "AVAILABLE"})
        assert answering(servables) == 4
        looks(servables)
        assert not servable.loaded.closed
    until(lambda: states(servables)[3] == "END")
    assert loads.of("close") == [3]


def test_a_version_is_closed_as_soon_as_it_comes_back_and_its_memory_given_back(serve, model, loads, monkeypatch):
    monkeypatch.setattr(runtime, "trim", lambda: loads.events.append(("trim", "", 0)))
    servables = serve([config(model)], poll_seconds=3600)
    with servables.use("m"):
        publish(model, 4)
        servables._look()
        assert loads.of("close") == []
    until(lambda: states(servables)[3] == "END")
    until(lambda: loads.events[-2:] == [("close", "m", 3), ("trim", "", 0)])


def test_a_version_that_cannot_be_closed_ends_all_the_same(serve, model, monkeypatch):
    def fail(self):
        raise RuntimeError("no")

    monkeypatch.setattr(Fake, "close", fail)
    servables = serve([config(model)])
    publish(model, 4)
    until(lambda: states(servables) == {3: "END", 4: "AVAILABLE"})


def test_a_bad_version_leaves_the_old_one_answering_and_says_why(serve, model):
    servables = serve([config(model)])
    publish(model, 4, "bad")
    until(lambda: 4 in states(servables) and states(servables)[4] == "END")
    looks(servables)
    assert answering(servables) == 3
    failed, good = servables.status("m")
    assert failed == VersionStatus(4, "END", "OUT_OF_RANGE", "Read less bytes than requested")
    assert good == VersionStatus(3, "AVAILABLE", "OK", "")
    assert servables.ready()


def test_at_the_start_an_older_version_stands_in_for_a_bad_one_until_that_is_mended(serve, model, loads):
    publish(model, 4, "bad")
    (model / "3" / "saved_model.pb").write_text("bad")
    servables = serve([config(model)], load_retries=0)
    assert states(servables) == {4: "END", 3: "END", 2: "AVAILABLE"}
    looks(servables)
    assert loads.events == [("load", "m", 4), ("load", "m", 3), ("load", "m", 2)]
    (model / "4" / "saved_model.pb").write_text("good")
    until(lambda: states(servables) == {4: "AVAILABLE", 3: "END", 2: "END"})
    assert loads.events[3:] == [("load", "m", 4), ("close", "m", 2)]


def test_no_version_stands_in_for_those_that_were_named(serve, model):
    (model / "3" / "saved_model.pb").write_text("bad")
    servables = serve([config(model, ("specific", (3,)))])
    assert states(servables) == {3: "END"}
    assert not servables.ready()


def test_a_failed_version_is_tried_again_so_often_and_no_more(serve, model, loads):
    servables = serve([config(model)], load_retries=2, retry_seconds=0.02)
    publish(model, 4, "bad")
    until(lambda: loads.of("load").count(4) == 3)
    looks(servables, 10)
    assert loads.of("load").count(4) == 3


def test_a_failed_version_waits_for_its_next_try(serve, model, loads):
    servables = serve([config(model)], retry_seconds=3600)
    publish(model, 4, "bad")
    until(lambda: 4 in loads.of("load"))
    looks(servables, 10)
    assert loads.of("load").count(4) == 1


def test_a_version_seen_half_written_is_tried_again_when_its_files_have_come_to_rest(serve, model, loads):
    servables = serve([config(model)], load_retries=0, poll_seconds=0.05)
    publish(model, 4, "bad")
    until(lambda: states(servables).get(4) == "END")
    for size in range(10):  # while it is being written nothing is tried
        (model / "4" / "variables").write_text("x" * size)
        time.sleep(0.02)
    assert loads.of("load").count(4) <= 2
    (model / "4" / "saved_model.pb").write_text("good")
    until(lambda: answering(servables) == 4)


def test_a_folder_without_a_graph_is_no_version_yet(serve, model, loads):
    servables = serve([config(model)])
    (model / "4").mkdir()
    looks(servables)
    assert loads.of("load") == [3]
    (model / "4" / "saved_model.pb").write_text("good")
    until(lambda: answering(servables) == 4)


def test_without_the_newest_version_the_next_older_one_answers(serve, model, loads):
    servables = serve([config(model)])
    shutil.rmtree(model / "3")
    until(lambda: states(servables) == {3: "END", 2: "AVAILABLE"})
    assert answering(servables) == 2
    assert loads.events == [("load", "m", 3), ("load", "m", 2), ("close", "m", 3)]


def test_a_version_that_comes_back_is_loaded_again(serve, model):
    servables = serve([config(model)])
    shutil.rmtree(model / "3")
    until(lambda: answering(servables) == 2)
    publish(model, 3)
    until(lambda: states(servables) == {3: "AVAILABLE", 2: "END"})


def test_what_was_loaded_answers_without_its_folder(serve, model, loads):
    servables = serve([config(model)])
    model.rename(model.with_name("gone"))
    looks(servables)
    assert answering(servables) == 3
    assert loads.events == [("load", "m", 3)]


def test_a_folder_that_stays_empty_serves_nothing_but_one_that_is_being_deleted_does(serve, model, monkeypatch):
    servables = serve([config(model)], poll_seconds=3600)
    for number in (1, 2, 3):
        shutil.rmtree(model / str(number))
    look = lambda: servables._look()
    look()
    assert answering(servables) == 3
    model.rmdir()
    look()
    assert answering(servables) == 3
    model.mkdir()
    look()
    look()
    assert states(servables) == {3: "END"}
    assert not servables.ready()


def test_requests_are_answered_and_the_state_is_told_while_a_version_loads(serve, model, loads):
    servables = serve([config(model)])
    go = loads.hold(4)
    publish(model, 4)
    until(lambda: states(servables).get(4) == "LOADING")
    assert answering(servables) == 3
    assert servables.ready()
    go.set()
    until(lambda: answering(servables) == 4)


def test_a_model_is_ready_when_a_version_answers(serve, tmp_path):
    servables = serve([ModelConfig("m", str(tmp_path / "m"))])
    assert not servables.ready()
    assert servables.names() == ["m"]
    publish(tmp_path / "m", 1, "bad")
    until(lambda: servables._manager.names())
    until(lambda: states(servables) == {1: "END"})
    assert not servables.ready()
    publish(tmp_path / "m", 2)
    until(servables.ready)
    assert not serve([]).ready()


def test_a_watch_outlives_a_failing_look(serve, model, monkeypatch):
    servables = serve([config(model)])
    failed = threading.Event()

    def fail(model):
        failed.set()
        raise RuntimeError("the disk is on fire")

    with monkeypatch.context() as patch:
        patch.setattr(versions, "find", fail)
        assert failed.wait(SOON)
    publish(model, 4)
    until(lambda: answering(servables) == 4)


def test_without_polling_the_disk_is_looked_at_once(serve, model, monkeypatch):
    monkeypatch.setattr(threading.Condition, "wait_for", lambda self, *_: time.sleep(0.01))
    servables = serve([config(model)], poll_seconds=0)
    publish(model, 4)
    time.sleep(0.1)
    assert states(servables) == {3: "AVAILABLE"}


def test_the_states_of_long_gone_versions_are_forgotten(serve, tmp_path, monkeypatch):
    monkeypatch.setattr("dmkeras.serving.embedded.version_manager.REMEMBERED", 2)
    publish(tmp_path / "m", 1)
    servables = serve([ModelConfig("m", str(tmp_path / "m"))])
    for number in range(2, 6):
        publish(tmp_path / "m", number)
        until(lambda number=number: answering(servables) == number)
    until(lambda: list(states(servables)) == [5, 4, 3])


def test_a_label_names_a_version_that_answers(serve, model):
    servables = serve([config(model, ("all", None), stable=1, canary=3)])
    assert answering(servables, label="stable") == 1
    assert [status.version for status in servables.status("m", label="canary")] == [3]
    with pytest.raises(RequestError, match="Unrecognized servable version label: x"):
        servables.status("m", label="x")


def test_a_label_of_a_version_that_does_not_answer_is_refused(serve, model, loads):
    refused = "Request to assign label to version 9 of model m, which is not currently available for inference"
    servables = serve([config(model, stable=9)], start=False)
    with pytest.raises(ServingError, match=refused) as caught:
        servables.start()
    assert caught.value.code == "FAILED_PRECONDITION"
    assert loads.of("close") == [3]
    servables = serve([config(model, stable=3)])
    with pytest.raises(ServingError, match=refused):
        servables.configure([config(model, stable=9)])
    assert answering(servables, label="stable") == 3


def test_a_new_label_may_wait_for_its_version_where_that_is_allowed(serve, model):
    servables = serve([config(model, stable=3)], labels_for_unavailable=True)
    servables.configure([config(model, stable=3, canary=4)])
    with pytest.raises(ServingError, match=r"Specific\(m, 4\)"):
        answering(servables, label="canary")
    publish(model, 4)
    until(lambda: answering(servables) == 4)
    assert answering(servables, label="canary") == 4
    with pytest.raises(ServingError, match="Request to assign label to version 5 of model m"):
        servables.configure([config(model, canary=5)])  # one that moves may not


@pytest.fixture
def other(tmp_path):
    publish(tmp_path / "other" / "o", 1)
    return ModelConfig("o", str(tmp_path / "other" / "o"))


def test_a_configuration_replaces_the_models(serve, model, other, loads):
    servables = serve([config(model, stable=3)])
    servables.configure([other])
    assert servables.names() == ["o"]
    assert answering(servables, "o") == 1
    assert states(servables) == {3: "END"}
    assert loads.events == [("load", "m", 3), ("load", "o", 1), ("close", "m", 3)]
    with pytest.raises(RequestError, match="label"):
        answering(servables, label="stable")
    servables.configure([])
    assert servables.names() == []


def test_a_configuration_that_says_nothing_changes_nothing(serve, model):
    servables = serve([config(model)])
    servables.configure(None)
    assert answering(servables) == 3


def test_a_configuration_changes_a_policy(serve, model):
    servables = serve([config(model)])
    servables.configure([config(model, ("specific", (1,)))])
    assert states(servables) == {3: "END", 1: "AVAILABLE"}


def test_a_model_moves_to_another_folder_of_the_same_versions(serve, model, tmp_path, loads):
    servables = serve([config(model)])
    publish(tmp_path / "elsewhere", 3)
    servables.configure([config(tmp_path / "elsewhere")])
    with servables.use("m") as servable:
        assert servable.folder == tmp_path / "elsewhere" / "3"
    assert states(servables) == {3: "AVAILABLE"}
    assert loads.events == [("load", "m", 3), ("load", "m", 3), ("close", "m", 3)]


@pytest.mark.parametrize("bad", ["twice", "relative", "failing", "empty"])
def test_a_bad_configuration_leaves_the_old_one(serve, model, other, tmp_path, bad):
    servables = serve([config(model, stable=3)])
    publish(tmp_path / "bad", 1, "bad")
    models, code, told = {
        "twice": ([other, other], "INVALID_ARGUMENT", "Illegal to list model o multiple times"),
        "relative": ([other, ModelConfig("r", "r")], "INVALID_ARGUMENT", "absolute path"),
        "failing": (
            [other, ModelConfig("bad", str(tmp_path / "bad"))],
            "UNKNOWN",
            "1 model(s) did not become available: {{{name: bad version: 1} due to error: OUT_OF_RANGE: Read less",
        ),
        "empty": ([other, ModelConfig("n", str(tmp_path / "n"))], "UNKNOWN", "{{name: n} has no version}"),
    }[bad]
    with pytest.raises(ServingError) as caught:
        servables.configure(models)
    assert caught.value.code == code
    assert told in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert servables.names() == ["m"]
    assert answering(servables, label="stable") == 3
    with pytest.raises(ServingError, match="Servable not found"):
        answering(servables, "o")


def test_models_that_cannot_be_served_together_are_refused_at_once(other):
    with pytest.raises(RequestError, match="multiple times"):
        Servables([other, other])


def test_the_models_of_a_folder_come_and_go(serve, tmp_path):
    base = tmp_path / "saved_models"
    publish(base / "a", 1)
    servables = serve(discover=base)
    assert servables.names() == ["a"]
    publish(base / "b", 7)
    until(lambda: servables.names() == ["a", "b"])
    until(servables.ready)  # b has its name before it is loaded
    assert answering(servables, "b") == 7
    shutil.rmtree(base / "a")
    until(lambda: servables.names() == ["b"])
    until(lambda: states(servables, "a") == {1: "END"})
    base.rename(tmp_path / "gone")
    looks(servables)
    assert answering(servables, "b") == 7


def test_a_folder_of_models_that_is_being_deleted_keeps_answering(serve, tmp_path):
    base = tmp_path / "saved_models"
    publish(base / "a", 1)
    servables = serve(discover=base, poll_seconds=3600)
    shutil.rmtree(base / "a")
    servables._look()
    assert answering(servables, "a") == 1
    shutil.rmtree(base)
    servables._look()
    assert answering(servables, "a") == 1
    base.mkdir()
    servables._look()
    servables._look()
    assert servables.names() == []
    assert states(servables, "a") == {1: "END"}


def test_a_configuration_ends_the_discovery(serve, model, tmp_path):
    base = tmp_path / "saved_models"
    publish(base / "a", 1)
    servables = serve(discover=base)
    servables.configure([config(model)])
    publish(base / "b", 1)
    looks(servables)
    assert servables.names() == ["m"]


def test_the_end_closes_everything_once_and_answers_nobody(serve, model, other, loads):
    servables = serve([config(model, ("all", None)), other])
    servables.stop()
    assert sorted(loads.of("close")) == [1, 1, 2, 3]
    assert not servables.ready()
    with pytest.raises(ServingError) as caught:
        answering(servables)
    assert caught.value.code == "UNAVAILABLE"
    servables.stop()
    assert len(loads.of("close")) == 4


def test_the_end_waits_for_a_request_and_not_for_ever(serve, model, loads):
    servables = serve([config(model)])
    with servables.use("m"):
        start = time.monotonic()
        servables.stop(0.1)
        assert time.monotonic() - start < SOON
        assert loads.of("close") == []
    other = serve([config(model)])
    lent = threading.Event()

    def ask():
        with other.use("m"):
            lent.set()
            time.sleep(0.1)

    thread = threading.Thread(target=ask)
    thread.start()
    assert lent.wait(SOON)
    other.stop(SOON)
    assert loads.of("close") == [3]
    thread.join()


def test_a_load_that_ends_after_the_end_answers_nobody(serve, model, loads):
    servables = serve([config(model)])
    go = loads.hold(4)
    publish(model, 4)
    until(lambda: states(servables).get(4) == "LOADING")
    servables.stop(0.05)
    go.set()
    servables.stop(SOON)
    assert states(servables) == {3: "END", 4: "END"}
    assert sorted(loads.of("close")) == [3, 4]


def test_no_request_is_lost_while_versions_change(serve, model):
    servables = serve([config(model)])
    errors, asked, done = [], [], threading.Event()

    def ask():
        while not done.is_set():
            try:
                asked.append(answering(servables))
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in (4, 5, 6):
        publish(model, number)
        until(lambda number=number: states(servables).get(number) == "AVAILABLE")
        shutil.rmtree(model / str(number - 1))
        until(lambda number=number: states(servables)[number - 1] == "END")
    done.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert {3, 4, 5, 6} == set(asked)


def test_a_load_is_measured_and_told_its_options(serve, model, loads):
    measured = []

    class Metrics:
        def loaded(self, name, seconds):
            measured.append((name, seconds >= 0))

    metrics = Metrics()
    serve([config(model)], metrics=metrics, batching="b", per_model_batching=True, warm_up=False, inter_op=2)
    assert measured == [("m", True)]
    assert loads.options == {
        "metrics": metrics,
        "batching": "b",
        "per_model_batching": True,
        "iterations": 0,
        "inter_op": 2,
        "intra_op": 0,
    }


@pytest.fixture
def locked(monkeypatch):
    """Names of folders whose content cannot be listed."""
    names, listed = set(), folders._entries

    def entries(folder):
        if os.path.basename(folder) in names:
            raise PermissionError(13, "Permission denied", str(folder))
        return listed(folder)

    monkeypatch.setattr(folders, "_entries", entries)
    return names


def test_a_folder_that_cannot_be_read_keeps_no_other_from_being_served_and_is_told_once(serve, model, locked, caplog):
    publish(model.parent / "bad", 1)
    locked.add("bad")
    servables = serve(discover=model.parent)
    looks(servables)
    assert servables.names() == ["m"]
    assert servables.ready()
    (told,) = [record.message for record in caplog.records]
    assert told.startswith("bad is left as it is, it cannot be read: [Errno 13]")
    locked.clear()
    until(lambda: servables.names() == ["bad", "m"])
    locked.add("bad")
    looks(servables)
    assert answering(servables, "bad") == 1  # what was served stays


def test_what_does_not_answer_is_told_once_a_change(serve, tmp_path, caplog):
    servables = serve(discover=tmp_path)
    publish(tmp_path / "m", 1, "bad")
    until(lambda: servables.names() == ["m"])
    looks(servables)
    told = [record.message for record in caplog.records if "cannot be loaded" not in record.message]
    assert told == [
        f"nothing is served: {tmp_path} holds no model yet, expected NAME/VERSION/saved_model.pb",
        "model m has no version that answers",
    ]


def test_an_unknown_option_is_refused_at_once():
    with pytest.raises(TypeError, match="bogus"):
        Servables([], bogus=1)
