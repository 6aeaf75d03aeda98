import concurrent.futures
import os

import pytest

from dmkeras.serving import folders


def fill(folder, content="x"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "saved_model.pb").write_text(content)
    return folder


def test_versions_are_the_folders_whose_name_is_an_integer_and_that_hold_a_model(tmp_path):
    for name in ("2", "10", "0007", "5x", ".tmp3", "-4", "1.5", folders.DRAFT + "8", str(2**63)):
        fill(tmp_path / name)
    (tmp_path / "11").mkdir()
    (tmp_path / "12").write_text("a file")
    assert list(folders.versions(tmp_path)) == [2, 7, 10]


def test_models_are_the_folders_with_a_version(tmp_path):
    fill(tmp_path / "vae" / "1")
    fill(tmp_path / ".hidden" / "1")
    (tmp_path / "empty").mkdir()
    (tmp_path / "README.md").write_text("")
    assert folders.models(tmp_path) == {"vae": tmp_path / "vae"}


def test_a_model_that_cannot_be_read_is_passed_over_with_a_warning(tmp_path, monkeypatch, caplog):
    for name in ("good", "bad"):
        fill(tmp_path / name / "1")
    listed, locked = folders._entries, {"bad"}

    def entries(folder):
        if folder.name in locked:
            raise PermissionError(13, "Permission denied", str(folder))
        return listed(folder)

    monkeypatch.setattr(folders, "_entries", entries)
    assert list(folders.models(tmp_path)) == ["good"]
    assert [record.message for record in caplog.records] == [
        f"passed over: [Errno 13] Permission denied: '{tmp_path / 'bad'}'"
    ]
    locked.add(tmp_path.name)
    with pytest.raises(PermissionError):
        folders.models(tmp_path)


def test_a_name_is_looked_up_and_never_joined_into_a_path(tmp_path):
    fill(tmp_path / "saved_models" / "vae" / "1")
    fill(tmp_path / "secret" / "1")
    found = folders.models(tmp_path / "saved_models")
    for name in ("../secret", "..", "/etc", "", "vae/1"):
        with pytest.raises(folders.UnknownNameError):
            folders.pick(found, name, "model", "saved_models")


def test_a_misspelt_name_lists_near_matches():
    with pytest.raises(folders.UnknownNameError, match="no model 'vea' in here; did you mean vae"):
        folders.pick({"vae": 1, "pixel_cnn": 2}, "vea", "model", "here")
    with pytest.raises(folders.UnknownNameError, match="there is 1, 2"):
        folders.pick({1: "a", 2: "b"}, 9, "version", "here")


def test_the_next_version_follows_the_largest_number_whatever_bears_it(tmp_path):
    for taken in ("3", "0009"):
        (tmp_path / taken).mkdir()
    (tmp_path / "12").write_text("a file")
    with folders.draft(tmp_path) as draft:
        fill(draft)
        assert folders.publish(draft) == tmp_path / "13"


def test_no_version_follows_the_last_one(tmp_path):
    (tmp_path / str(folders.LAST_VERSION)).mkdir()
    with folders.draft(tmp_path) as draft, pytest.raises(OverflowError):
        folders.publish(fill(draft))


def test_racing_publishers_get_a_version_each_and_overwrite_none(tmp_path, monkeypatch):
    listed, first = folders._numbered, iter(range(8))
    # The first look of every publisher sees no version, as if all had looked at the same moment.
    monkeypatch.setattr(folders, "_numbered", lambda folder: listed(folder) if next(first, None) is None else [])

    def publish(content):
        with folders.draft(tmp_path) as draft:
            return folders.publish(fill(draft, str(content)))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        published = list(pool.map(publish, range(8)))
    assert sorted(folder.name for folder in published) == sorted(map(str, range(1, 9)))
    for content, folder in enumerate(published):
        assert (folder / "saved_model.pb").read_text() == str(content)
    assert not folders.drafts(tmp_path)


def test_everything_is_on_disk_before_the_version_appears(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(folders, "_sync", lambda path: done.append(os.path.basename(path)))
    rename = os.rename
    monkeypatch.setattr(folders.os, "rename", lambda old, new: (done.append("rename"), rename(old, new)))
    with folders.draft(tmp_path / "vae") as draft:
        fill(draft / "inner")
        folders.publish(draft)
    assert done == ["saved_model.pb", "inner", draft.name, "rename", "vae", tmp_path.name]


def test_a_draft_that_fails_leaves_nothing_and_takes_nothing_away(tmp_path):
    def fail(folder):
        with folders.draft(folder) as draft:
            fill(draft / "variables")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    fill(tmp_path / "old" / "1")
    with pytest.raises(RuntimeError):
        fail(tmp_path / "old")
    assert [entry.name for entry in (tmp_path / "old").iterdir()] == ["1"]
