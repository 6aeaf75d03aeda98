"""The client and `dmkeras predict` against the embedded server: one answer from a folder, over REST and over gRPC."""

import json
import re
import shutil
import subprocess
import types

import numpy as np
import pytest
from PIL import Image

from dmkeras.serving import Client, Server, ServingError, cli
from dmkeras.serving.embedded.limits import Gate
from dmkeras.serving.errors import RequestError, TooLargeError

TOKEN = "a-secret"
LIMIT = 100_000  # bytes of a body, for the secured server


@pytest.fixture(scope="module")
def server(exported):
    with Server(exported.base, rest_port="auto", grpc_port="auto") as server:
        yield server


@pytest.fixture(scope="module")
def secured(exported, tmp_path_factory):
    """A server with TLS on both ports, a token and a limit: .urls, .ca (its certificate)."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl, which makes the certificate")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = str(folder / "key.pem"), str(folder / "certificate.pem")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test"
    command += f" -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}"
    subprocess.run(command.split(), check=True, capture_output=True)
    ports = {"rest_port": "auto", "grpc_port": "auto"}
    with Server(exported.base, **ports, token=TOKEN, tls=(key, certificate), max_body_bytes=LIMIT) as server:
        yield types.SimpleNamespace(urls=(server.rest_url, server.grpc_url), ca=certificate)


@pytest.fixture
def dmkeras(tmp_path, monkeypatch, capsys):
    """Runs a command line in an empty folder -> (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    Image.new("L", (8, 8), 100).save("grey.png")

    def run(*arguments):
        return cli.main([str(argument) for argument in arguments]), *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    "arguments",
    [
        "--image grey.png",
        "--image grey.png grey.png grey.png --batch-size 2",
        "--signature classify_bytes --image grey.png",
        "--signature draw --image grey.png",
        '--signature sample --seed 3 --count 3 --json {"temperature":0.5}',
        '--signature sample --json {"inputs":{"seed":[[1,2],[3,4]],"temperature":[1,2]}}',
    ],
)
def test_one_request_gets_the_same_json_from_a_folder_over_rest_and_over_grpc(dmkeras, server, exported, arguments):
    answers = [
        dmkeras("predict", source, "encoder", *arguments.split())
        for source in (exported.base, server.rest_url, server.grpc_url)
    ]
    assert [status for status, _, _ in answers] == [0, 0, 0]
    assert json.loads(answers[0][1])
    assert answers[0][1] == answers[1][1] == answers[2][1]


def test_a_client_gets_what_the_model_answers_bit_by_bit(server, served, exported):
    for url in (server.rest_url, server.grpc_url):
        with Client(url) as client:
            for signature, feed in exported.requests.items():
                answer, expected = client.predict("encoder", feed, signature=signature), served.run(signature, feed)
                assert answer.keys() == expected.keys()
                for name, array in expected.items():
                    assert answer[name].dtype == array.dtype
                    np.testing.assert_array_equal(answer[name], array)


def test_a_client_sees_the_signatures_that_the_runtime_sees(server, served):
    expected = {name: (signature.inputs, signature.outputs) for name, signature in served.signatures.items()}
    for url in (server.rest_url, server.grpc_url):
        with Client(url) as client:
            assert client.signatures("encoder") == client.signatures("encoder", version=1) == expected
            assert [(status.version, status.state) for status in client.status("encoder")] == [(1, "AVAILABLE")]


def test_an_error_reads_the_same_over_both_protocols(server):
    for arguments, code, message in (
        (("none",), "NOT_FOUND", "Servable not found for request: Latest(none)"),
        (("encoder", 99), "NOT_FOUND", "Servable not found for request: Specific(encoder, 99)"),
    ):
        for url in (server.rest_url, server.grpc_url):
            with Client(url) as client, pytest.raises(ServingError) as raised:
                client.signatures(*arguments)
            assert (raised.value.code, str(raised.value)) == (code, message)
    for url in (server.rest_url, server.grpc_url):
        with Client(url) as client, pytest.raises(RequestError, match=r"'image' is \[1, 8, 8\], expected float32"):
            client.predict("encoder", image=np.zeros((1, 8, 8)))
        with (
            Client(url) as client,
            pytest.raises(RequestError, match=r"'temperature' is missing, expected float32 \[B"),
        ):
            client.predict("encoder", signature="sample", seed=[[1, 2]])


def test_show_of_a_url_tells_states_signatures_and_curl_lines(dmkeras, server):
    for url in (server.rest_url, server.grpc_url):
        status, out, err = dmkeras("show", f"{url}/encoder")
        assert (status, err) == (0, "")
        assert out.startswith("encoder, version 1: AVAILABLE\n")
        assert "  in  image                float32 [B, 8, 8, 1]         values in [0, 1]\n" in out
        assert f"{url}/v1/models/encoder:predict" in out if url == server.rest_url else "curl" not in out
        status, of_version, err = dmkeras("show", f"{url}/encoder/1/")
        assert (status, err, of_version.replace("encoder/versions/1:", "encoder:")) == (0, "", out)
        assert dmkeras("show", f"{url}/encoder/7")[0] == 2
        assert dmkeras("show", url)[0] == 2


def test_predict_asks_for_the_version_that_a_label_names(dmkeras, server):
    for url in (server.rest_url, server.grpc_url):
        status, _, err = dmkeras("predict", url, "encoder", "--image", "grey.png", "--label", "none")
        assert (status, "none" in err) == (2, True)


def test_tls_and_the_token_hold_on_both_ports(secured, monkeypatch, dmkeras, exported):
    feed = exported.requests["serving_default"]
    for url in secured.urls:
        with Client(url, token=TOKEN, ca=secured.ca) as client:
            assert client.predict("encoder", feed)["code"].shape == (3, 4)
        for token in (None, "another"):
            with Client(url, token=token, ca=secured.ca) as client, pytest.raises(ServingError) as raised:
                client.predict("encoder", feed)
            assert raised.value.code == "UNAUTHENTICATED"
        with Client(url, token=TOKEN, timeout=5) as client, pytest.raises(ServingError) as raised:
            client.predict("encoder", feed)
        assert raised.value.code == "UNAVAILABLE"
        assert "is not trusted (self" in str(raised.value)
        with pytest.raises(ServingError, match=r"`ca`: none\.pem"):
            Client(url, ca="none.pem")
        monkeypatch.setenv("DMKERAS_TOKEN", TOKEN)
        assert dmkeras("predict", url, "encoder", "--image", "grey.png", "--ca", secured.ca)[0] == 0
        status, out, _ = dmkeras("show", f"{url}/encoder", "--ca", secured.ca)
        assert status == 0
        for line in filter(None, re.findall(".*curl.*", out)):  # with the token of the environment
            asked = subprocess.run(["bash", "-c", f"cp grey.png picture.png; {line}"], capture_output=True, timeout=60)
            assert json.loads(asked.stdout)["predictions"], line


def test_an_address_of_the_wrong_protocol_says_which_may_be_right(server, secured):
    (rest, grpc), (rest_tls, grpc_tls) = (
        [url.partition("://")[2] for url in urls] for urls in ((server.rest_url, server.grpc_url), secured.urls)
    )
    for url, hint in {
        f"http://{grpc}": "is this the gRPC port",
        f"http://{rest_tls}": "https://?",
        f"https://{rest}": "speaks no TLS; ask over http://",
        f"grpc://{rest}": "is this the REST port",
        f"grpc://{grpc_tls}": "grpcs://",
        f"grpcs://{grpc}": "speaks no TLS; ask over grpc://",
        f"https://{rest_tls.replace('127.0.0.1', 'localhost')}": "is for another host",
        f"grpcs://{grpc_tls.replace('127.0.0.1', 'localhost')}": "is for another host",
    }.items():
        ca = secured.ca if url.partition(":")[0] in ("https", "grpcs") else None
        with Client(url, timeout=5, ca=ca) as client, pytest.raises(ServingError) as raised:
            client.status("encoder")
        assert (raised.value.code, hint in str(raised.value)) == ("UNAVAILABLE", True), str(raised.value)
        assert str(raised.value).isprintable()


def test_what_a_caller_mistakes_is_told_alike_over_both_protocols(server):
    image = np.zeros((1, 8, 8, 1), np.float32)
    for url in (server.rest_url, server.grpc_url):
        with Client(url) as client:
            for arguments, inputs, message in (
                ([image], {}, r"received ndarray \[1, 8, 8, 1\] without a name, .*predict\('encoder', image=...\)"),
                ([], {}, r"input 'image' is missing, expected float32 \[B, 8, 8, 1\]"),
                ([], {"image": "d0.png"}, r"'image' is str, .*float32 array .*\[0, 1\]; .*signature 'classify_bytes'"),
                ([], {"image": [b"\x89PNG"]}, r"'image' is bytes, .*float32 array .*signature 'classify_bytes'"),
                ([], {"image": None}, r"'image' is NoneType, expected float32 \[B, 8, 8, 1\]$"),
                ([], {"image": image, "version": "two"}, "version 'two', expected an integer"),
            ):
                with pytest.raises(RequestError, match=message):
                    client.predict("encoder", *arguments, **inputs)
        with pytest.raises(ServingError, match="client is closed"):
            client.predict("encoder", image=image)
    with Client(server.rest_url) as client, pytest.raises(RequestError, match="no rows"):
        client.predict("encoder", image=image[:0])


def test_a_body_beyond_the_limit_is_refused_on_both_ports(secured):
    image = np.zeros((500, 8, 8, 1), np.float32)
    rest, grpc = (Client(url, token=TOKEN, ca=secured.ca) for url in secured.urls)
    with rest, grpc:
        with pytest.raises(TooLargeError, match=str(LIMIT)):
            rest.predict("encoder", image=image)
        with pytest.raises(ServingError, match=str(LIMIT)) as raised:
            grpc.predict("encoder", image=image)
        assert raised.value.code == "RESOURCE_EXHAUSTED"
        assert rest.predict("encoder", image=image[:1])["code"].shape == (1, 4)


def test_a_full_gate_is_told_to_a_grpc_client_in_words_that_it_knows():
    from dmkeras.serving import grpc_client

    with pytest.raises(ServingError) as raised, Gate(0).enter():
        pass
    assert any(words in str(raised.value) for words in grpc_client.BUSY)
