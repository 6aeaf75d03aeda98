"""docs/serving.md as a new user reads it: its commands and examples run, against a server where they ask one."""

import pathlib
import re
import shlex
import subprocess

import pytest
from PIL import Image

from dmkeras.serving import cli

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "serving.md").read_text()
OURS = ("show", "predict", "config")  # `serve` waits for a signal: tests/test_documents.py reads its flags


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A folder with saved_models/vae of 8x8 pictures, and the changes by which a text means a server of it."""
    import dmkeras
    from dmkeras.serving import Server

    folder = tmp_path_factory.mktemp("page")
    model = dmkeras.VAE(image_shape=(8, 8, 1), latent_size=2, hidden_size=4)
    dmkeras.export(model, folder / "saved_models" / "vae")
    for name in ("digit.png", "other.png"):
        Image.new("L", (8, 8), 255).save(folder / name)
    with Server(folder / "saved_models", rest_port="auto", grpc_port="auto") as server:
        yield folder, {"http://localhost:8501": server.rest_url, "grpc://localhost:8500": server.grpc_url}


@pytest.fixture
def here(address, monkeypatch):
    """Turns a text of the page into what runs here."""
    folder, urls = address
    monkeypatch.chdir(folder)

    def turned(text):
        for told, real in urls.items():
            text = text.replace(told, real)
        return text

    return turned


def test_the_commands_that_ask_get_an_answer(here, capsys):
    asked = 0
    for line in "".join(blocks("sh")).replace("\\\n", " ").splitlines():
        words = shlex.split(here(line), comments=True)
        if words[0] == "dmkeras" and words[1] in OURS:
            assert cli.main(words[1:]) == 0, (line, capsys.readouterr().err)
        elif words[0] == "curl":
            subprocess.run(["curl", "--fail-with-body", "--silent", *words[1:]], check=True, timeout=60)
        else:
            continue
        asked += 1
    assert asked >= 12


def test_the_examples_run_one_after_the_other(here, capsys):
    names = {}
    for block in blocks("python"):
        exec(compile(here(block), "docs/serving.md", "exec"), names)
    names["client"].close()
    assert names["images"].shape == (2, 8, 8, 1)
    assert capsys.readouterr().out.startswith("INVALID_ARGUMENT input 'seed' is [2], expected int32 [B, 2]; ")


def test_the_configuration_parses():
    from dmkeras.serving.embedded import model_config

    (text,) = blocks("text")
    ((name, path, policy, labels),) = model_config.parse(text)
    assert (name, path, policy) == ("vae", "/srv/saved_models/vae", ("specific", (1, 2)))
    assert labels == {"stable": 1, "canary": 2}
