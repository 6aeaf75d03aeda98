"""`dmkeras serve` and `Server` refuse at the door what they cannot serve, and say what they expected."""

import subprocess
import sys
import types

import pytest

import dmkeras
from dmkeras.serving import cli
from dmkeras.serving.commands import deploy, serve
from dmkeras.serving.embedded import metrics, ports
from dmkeras.serving.embedded.server import Server
from dmkeras.serving.errors import RequestError


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with models, and files that hold no configuration."""
    version = tmp_path / "models" / "vae" / "1"
    version.mkdir(parents=True)
    (version / "saved_model.pb").write_text("x")
    (tmp_path / "empty").write_text("")
    (tmp_path / "wrong").write_text("model_config_lst {}")
    (tmp_path / "latin").write_bytes(b"\xff")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DMKERAS_TOKEN", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("nowhere", "nowhere is no folder"),
        ("models/vae", "models/vae holds the versions of one model, expected the folder above it"),
        ("models/vae/1", "models/vae/1 is a version of one model, expected the folder of models two levels above"),
        ("", "received none, expected one of DIR, --model_base_path and --model_config_file"),
        ("models --model_config_file wrong", "received DIR and --model_config_file, expected one of"),
        ("models --model_base_path models/vae", "received DIR and --model_base_path"),
        ("--model_config_file empty", "empty: received an empty configuration, expected model_config_list { ... }"),
        ("--model_config_file wrong", "wrong: expected a ModelServerConfig: 1:1"),
        ("--model_config_file latin", "latin: expected text in UTF-8"),
        ("models --monitoring_config_file empty", "empty: expected prometheus_config { enable: true"),
        ("models --rest-port 0 --grpc-port 0", "received 0 for both ports"),
        ("models --rest-port 8123 --grpc-port 8123", "received 8123 for both ports, expected two numbers"),
        ("models --host no.such.invalid --rest-port auto", "host 'no.such.invalid' is unknown"),
        ("models --tls-key empty --tls-certificate empty --rest-port auto --grpc-port 0", "empty: expected a PEM file"),
    ],
)
def test_what_cannot_be_served_is_an_error_that_says_what_was_expected(here, capsys, line, told):
    assert cli.main(["serve", *line.split()]) == 2
    assert f"dmkeras: {told}" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["--timeout 0", "--timeout nan", "--drain-seconds inf"])
def test_a_time_is_a_number_of_seconds(here, capsys, line):
    with pytest.raises(SystemExit):
        cli.main(["serve", "models", *line.split()])
    assert "expected seconds from" in capsys.readouterr().err


def test_the_command_tells_its_version(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"dmkeras {dmkeras.__version__}\n"


def test_a_server_in_python_refuses_the_same(here):
    with pytest.raises(NotADirectoryError, match="nowhere is no folder"):
        Server("nowhere")
    with pytest.raises(RequestError, match="holds the versions of one model"):
        Server(here / "models" / "vae")
    with pytest.raises(TypeError, match="bogus"):
        Server("models", bogus=1)
    with pytest.raises(RequestError, match="received a timeout of 0, expected seconds above 0"):
        Server("models", timeout=0)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("prometheus_config { enable: true }", {}),
        ('# all\nprometheus_config: {\n enable: true, path: "/m"\n}\n', {"metrics_path": "/m"}),
        ("prometheus_config { path: '/m' }", {"metrics_path": None}),
        (deploy.MONITORING, {"metrics_path": metrics.PATH}),
    ],
)
def test_a_monitoring_config_names_the_path_of_the_metrics(tmp_path, text, options):
    (tmp_path / "file").write_text(text)
    assert serve._monitoring(tmp_path / "file") == options


def test_a_configuration_that_becomes_empty_changes_nothing(here, caplog):
    looks, read = iter([False, False, True]), []

    def wait(_):
        (here / "polled").write_text("")
        return next(looks)

    (here / "polled").write_text("model_config_list {}")
    args = types.SimpleNamespace(model_config_file=here / "polled", model_config_file_poll_wait_seconds=1)
    serve._watch_config(args, types.SimpleNamespace(configure=read.append), types.SimpleNamespace(wait=wait))
    assert read == []
    (told,) = [record.message for record in caplog.records]
    assert "polled: received an empty configuration" in told
    assert told.endswith("what was served is served on")


def test_a_key_without_its_certificate_is_refused_by_name(tmp_path):
    for name, kind in (("key", "PRIVATE KEY"), ("certificate", "CERTIFICATE")):
        (tmp_path / name).write_text(f"-----BEGIN {kind}-----\nAAAA\n-----END {kind}-----\n")
    with pytest.raises(RequestError, match=r"key and .*certificate: expected PEM files of one key"):
        ports.check_tls(tmp_path / "key", tmp_path / "certificate")


def test_without_the_extra_a_server_says_what_to_install():
    code = "import sys; sys.modules['uvicorn'] = None\nfrom dmkeras.serving import Server"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: Server needs uvicorn: pip install 'dmkeras[serve]'" in process.stderr
