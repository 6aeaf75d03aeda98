"""One server for the whole conformance suite: ours, or the `tensorflow_model_server` that `--server` names.

    pytest tests/serving/conformance                                     against `dmkeras serve`
    pytest tests/serving/conformance --server tensorflow_model_server    against the real one, by name or path

The variable DMKERAS_SERVER does the same for runs of all tests. The last lines of a run say what it ran against.
"""

import os
import shutil

import pytest

from tests.serving import multi

UNICODE = "größe 模型"
COMING_AND_GOING = ["changing", "damaged", "other_folders", "removed", "swapped"]
LABELS = {"stable": 1, "canary": 2, "větev": 1}


def pytest_addoption(parser):
    parser.addoption("--server", metavar="PROGRAM", help="a tensorflow_model_server to hold to the same tests")


def pytest_configure(config):
    _program(config)  # a name that is none ends the run before it begins


def pytest_terminal_summary(terminalreporter, config):
    terminalreporter.write_line(f"conformance suite ran against {_program(config) or 'dmkeras serve'}")


def _program(config):
    name = config.getoption("--server", default=None) or os.environ.get("DMKERAS_SERVER")
    if name and shutil.which(name) is None:
        raise pytest.UsageError(f"--server: no program {name!r}, expected a tensorflow_model_server")
    return shutil.which(name) if name else None


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """The folder `multi` with versions 1 and 2, to be copied and never changed."""
    return multi.write(tmp_path_factory.mktemp("multi"))


@pytest.fixture(scope="session")
def base(saved, tmp_path_factory):
    """A folder of models: `multi`, the same under a name beyond ASCII, and those whose versions come and go."""
    folder = tmp_path_factory.mktemp("base")
    for name in ("multi", UNICODE, "three"):
        shutil.copytree(saved, folder / name)
    shutil.copytree(saved / "1", folder / "three" / "3")
    for name in COMING_AND_GOING:
        shutil.copytree(saved / "1", folder / name / "1")
    return folder


@pytest.fixture(scope="session")
def models(base):
    """The configuration that every test finds, and leaves."""
    from tests.serving.conformance.process import model

    return [
        model("multi", base / "multi", labels=LABELS),
        model(UNICODE, base / UNICODE),
        model("latest", base / "three", latest=1),
        model("latest_two", base / "three", latest=2),
        model("specific", base / "three", specific=[1, 3]),
        *(model(name, base / name, latest=1) for name in COMING_AND_GOING),
    ]


@pytest.fixture(scope="session")
def server(base, models, pytestconfig, tmp_path_factory):
    """The server under test, with every model loaded and the labels given."""
    from tests.serving.conformance import process

    unlabelled = [type(model).FromString(model.SerializeToString()) for model in models]
    for model in unlabelled:
        model.version_labels.clear()
    started = process.ServerUnderTest(_program(pytestconfig), tmp_path_factory.mktemp("server"), unlabelled)
    try:
        started.wait(lambda: started.available("multi") == {1, 2}, "start", process.START_SECONDS)
        started.reload(models)  # a label needs a version that is loaded
        yield started
        assert started.is_alive(), started.log()
    finally:
        started.stop()
