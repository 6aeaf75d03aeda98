"""Versions and labels that come, move and go, as FileSystemStoragePathSource and AspiredVersionsManager have it."""

import json
import os
import shutil
import threading
import time

import grpc
import pytest

from tests.serving.conformance.process import model

BODY = json.dumps({"signature_name": "version", "instances": [[0, 0]]})


def answering(server, name, where=""):
    """The number of the version that answers, None where none does."""
    answer = server.ask("POST", f"/v1/models/{name}{where}:predict", BODY)
    return answer.json["predictions"][0] if answer.status == 200 else None


def publish(saved, source, base, name, version):
    """As an export does: written under another name, then renamed."""
    shutil.copytree(saved / source, base / name / ".draft")
    os.rename(base / name / ".draft", base / name / version)


@pytest.fixture
def configured(server, models):
    """Reloads the configuration with some models exchanged; afterwards the first one is back."""

    def configure(*exchanged):
        names = {one.name for one in exchanged}
        server.reload([one for one in models if one.name not in names] + list(exchanged))

    yield configure
    server.reload(models)


@pytest.mark.parametrize(
    ("name", "versions"), [("latest", {3}), ("latest_two", {2, 3}), ("specific", {1, 3}), ("multi", {1, 2})]
)
def test_a_policy_chooses_the_versions(server, name, versions):
    server.wait(lambda: server.available(name) == versions, name)
    assert set(server.states(name)) == versions


def test_a_request_without_a_version_goes_to_the_newest(server):
    assert answering(server, "specific") == 1  # version 3 is a copy of 1
    assert answering(server, "multi") == 2
    assert answering(server, "multi", "/versions/1") == 1


def test_a_label_moves_to_a_version_that_is_loaded(server, base, configured):
    assert answering(server, "multi", "/labels/stable") == 1
    configured(model("multi", base / "multi", labels={"stable": 2}))
    assert answering(server, "multi", "/labels/stable") == 2
    answer = server.ask("POST", "/v1/models/multi/labels/canary:predict", BODY)
    assert (answer.status, answer.json["error"]) == (400, "Unrecognized servable version label: canary")


def test_a_label_needs_a_version_that_is_loaded(server, base, configured):
    with pytest.raises(grpc.RpcError) as caught:
        configured(model("multi", base / "multi", labels={"stable": 9}))
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert answering(server, "multi") == 2


def test_a_configuration_replaces_the_set_of_models(server, base, configured):
    configured(model("added", base / "three", specific=[2]))
    server.wait(lambda: server.available("added") == {2}, "added")
    assert answering(server, "added") == 2


def test_a_model_that_leaves_the_configuration_is_no_longer_served(server, base, models, configured):
    configured(model("leaving", base / "three", latest=1))
    assert answering(server, "leaving") == 1
    server.reload(models)
    server.wait(lambda: answering(server, "leaving") is None, "leaving")
    answer = server.ask("POST", "/v1/models/leaving:predict", BODY)
    assert (answer.status, answer.json["error"]) == (404, "Servable not found for request: Latest(leaving)")
    server.wait(lambda: set(server.states("leaving").values()) == {"END"}, "the end of it")


def test_a_new_version_takes_over_and_a_deleted_one_gives_back(server, saved, base):
    publish(saved, "2", base, "changing", "2")
    server.wait(lambda: answering(server, "changing") == 2, "version 2")
    server.wait(lambda: server.states("changing") == {1: "END", 2: "AVAILABLE"}, "the end of version 1")
    answer = server.ask("POST", "/v1/models/changing/versions/1:predict", BODY)
    assert (answer.status, answer.json["error"]) == (404, "Servable not found for request: Specific(changing, 1)")
    shutil.rmtree(base / "changing" / "2")
    server.wait(lambda: answering(server, "changing") == 1, "version 1 again")
    server.wait(lambda: server.available("changing") == {1}, "the end of version 2")


def test_a_damaged_version_leaves_the_old_one_serving(server, saved, base):
    publish(saved, "1", base, "damaged", "0")  # older: nothing changes
    draft = base / "damaged" / ".draft"
    shutil.copytree(saved / "2", draft)
    (draft / "saved_model.pb").write_bytes(b"junk")
    os.rename(draft, base / "damaged" / "5")
    server.wait(lambda: server.states("damaged").get(5) == "END", "the end of version 5")
    listed = server.ask("GET", "/v1/models/damaged").json["model_version_status"]
    (damaged,) = [version for version in listed if version["version"] == "5"]
    assert damaged["status"]["error_code"] != "OK"
    assert damaged["status"]["error_message"]
    assert server.real or str(base) not in damaged["status"]["error_message"]
    assert answering(server, "damaged") == 1
    assert answering(server, "damaged", "/versions/1") == 1


def test_folders_that_are_no_versions_are_ignored(server, saved, base):
    for name in ("5x", ".tmp3", "1.5", "latest"):
        shutil.copytree(saved / "2", base / "other_folders" / name)
    publish(saved, "2", base, "other_folders", "0007")
    server.wait(lambda: answering(server, "other_folders") == 2, "version 7")
    assert server.available("other_folders") == {7}


def test_a_base_folder_that_is_gone_is_served_on(server, base):
    """Policies choose among what is there; where nothing is, the version in memory stays."""
    before = answering(server, "removed")
    shutil.rmtree(base / "removed")
    time.sleep(2.2)  # two polls
    assert answering(server, "removed") == before == 1


def test_a_swap_of_versions_loses_no_request(server, saved, base):
    """Callers go on asking while version 2 takes over from version 1."""
    failures, ended = [], threading.Event()

    def ask():
        while not ended.is_set():
            answer = server.ask("POST", "/v1/models/swapped:predict", BODY)
            if answer.status != 200:
                failures.append(answer.body)

    callers = [threading.Thread(target=ask) for _ in range(3)]
    for caller in callers:
        caller.start()
    try:
        publish(saved, "2", base, "swapped", "2")
        server.wait(lambda: server.states("swapped") == {1: "END", 2: "AVAILABLE"}, "the swap")
    finally:
        ended.set()
        for caller in callers:
            caller.join()
    assert not failures
    assert answering(server, "swapped") == 2
