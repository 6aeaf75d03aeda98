"""The command line as a user types it: answers on stdout, remarks on stderr, status 0 or 2, never a traceback."""

import base64
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from dmkeras.serving import cli, folders, model_card
from dmkeras.serving.curl import curl


@pytest.fixture
def dmkeras(exported, tmp_path, monkeypatch, capsys):
    """Runs a command line beside `saved_models` -> (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "saved_models").symlink_to(exported.base)

    def run(*arguments):
        status = cli.main([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return run


def png(path, size=(8, 8), mode="L", colour=128):
    Image.new(mode, size, colour).save(path)
    return path


def test_show_takes_the_base_a_model_and_a_version(dmkeras):
    for path in ("saved_models", "saved_models/encoder", "saved_models/encoder/1"):
        status, out, err = dmkeras("show", path)
        assert (status, err) == (0, "")
        assert out.startswith("encoder, version 1\nEncoder, 786 parameters")
        for line in (
            "  in  image                float32 [B, 8, 8, 1]         values in [0, 1]",
            "  out classes              string  [B]",
            "4 labels: circle, square, triangle, star",
        ):
            assert line in out.splitlines()
        assert out.count("http://localhost:8501/v1/models/encoder:predict") == 4


def test_show_lists_older_versions_and_what_a_killed_export_left(dmkeras, tmp_path):
    for version in ("1", "2", "10"):
        (tmp_path / "base" / "model" / version).mkdir(parents=True)
        (tmp_path / "base" / "model" / version / "saved_model.pb").touch()
        card = dict.fromkeys(model_card.KEYS) | {"class": "Model", "parameters": 1, "software": {}, "signatures": {}}
        (tmp_path / "base" / "model" / version / "assets.extra").mkdir()
        (tmp_path / "base" / "model" / version / model_card.FILE).write_text(json.dumps(card))
    (tmp_path / "base" / "model" / f"{folders.DRAFT}0").mkdir()
    _, out, _ = dmkeras("show", "base")
    assert out.startswith("model, version 10; also 1, 2\n")
    assert f"{folders.DRAFT}0: an export that is under way, or was killed" in out


def test_show_names_a_model_that_cannot_be_read_and_shows_the_others(dmkeras, exported, tmp_path):
    for name, content in (("a", None), ("bad", b"\xff\x00junk"), ("z", None)):
        (tmp_path / "base" / name / "0010").mkdir(parents=True)
        content = content or (exported.version / "saved_model.pb").read_bytes()
        (tmp_path / "base" / name / "0010" / "saved_model.pb").write_bytes(content)
    status, out, err = dmkeras("show", "base")
    assert (status, err.count("\n")) == (1, 1)
    assert err.startswith("dmkeras: base/bad/0010/saved_model.pb cannot be read")
    assert [line for line in out.splitlines() if "version" in line] == ["a, version 10", "z, version 10"]
    assert dmkeras("show", "base/z/10")[0] == 0


def test_show_describes_a_version_that_has_no_card_from_its_graph(dmkeras, exported, tmp_path):
    version = tmp_path / "foreign" / "1"
    version.mkdir(parents=True)
    (version / "saved_model.pb").write_bytes((exported.version / "saved_model.pb").read_bytes())
    status, out, _ = dmkeras("show", "foreign")
    _, with_card, _ = dmkeras("show", "saved_models")
    signatures = with_card.replace("models/encoder:", "models/foreign:").split("\n\n", 1)[1]
    assert (status, out) == (0, f"foreign, version 1\n\n{signatures}")


def test_tensors_that_another_tool_left_without_a_rank_or_a_batch_are_told():
    tensors = [model_card.Tensor("x", "float32", None), model_card.Tensor("k", "int32", ())]
    tensors.append(model_card.Tensor("y", "float32", (1, None)))
    text = model_card.text("m", {"signatures": model_card.describe("m", {"run": (tensors, [])})})
    for line in ("  in  x                    float32 of any shape", "int32   []", "float32 [1, ?]"):
        assert line in text


def test_files_that_are_sent_may_be_of_two_kinds_and_those_answered_are_png():
    files = [model_card.Tensor(name, "string", (None,)) for name in ("image_bytes", "overlay_bytes")]
    lines = model_card.text("m", {"signatures": model_card.describe("m", {"run": (files, files)})}).splitlines()
    told = [line.split("]", 1)[1].strip() for line in lines if line.startswith(("  in ", "  out "))]
    assert told == ["a JPEG or PNG file"] * 2 + ["a PNG file"] * 2


@pytest.mark.parametrize(
    ("inputs", "output", "body"),
    [
        ([("x", "float32", ())], (), {"inputs": {"x": 0.5}}),
        ([("x", "float32", None), ("k", "int32", (None,))], None, {"inputs": {"x": 0.5, "k": [1]}}),
        ([("x", "int32", (None, 2))], (), {"inputs": {"x": [[1, 1]]}}),
        ([("x", "bool", (2, None))], (None,), {"inputs": {"x": [[True] * 32] * 2}}),
        ([("b", "bool", (None,)), ("x", "int32", (None, 17))], (None,), {"instances": [{"b": True, "x": [1] * 17}]}),
        ([("it's", "string", (None,))], (None,), {"instances": [{"it's": "text"}]}),
    ],
)
def test_a_curl_line_has_rows_where_there_are_rows_and_columns_elsewhere(inputs, output, body):
    tensors = [model_card.Tensor(*tensor) for tensor in inputs]
    line = curl("a ü", "run", tensors, [model_card.Tensor("y", "float32", output)])
    shell = 'curl() { [ "$2" = "@-" ] && cat || echo "$2"; echo "$3"; }; '
    asked = subprocess.run(["bash", "-c", shell + line], capture_output=True, text=True, timeout=60, check=True)
    sent, url = asked.stdout.splitlines()
    assert json.loads(sent) == {"signature_name": "run", **body}
    assert url == "http://localhost:8501/v1/models/a%20%C3%BC:predict"


def test_what_json_cannot_ask_gets_a_remark_and_no_curl_line():
    half, examples = model_card.Tensor("x", "float16", (None,)), model_card.Tensor("inputs", "string", (None,))
    assert curl("m", "run", [half]) == "# no JSON form: x is float16; ask over gRPC"
    assert "tf.Examples" in curl("m", "run", [examples], [model_card.Tensor("scores", "float32", (None, 2))])
    assert model_card.text("m", {"signatures": {}}) == "no signatures: nothing can be asked"


def test_show_needs_no_tensorflow(exported):
    code = "import sys; from dmkeras.serving import cli; cli.main(sys.argv[1:]); assert 'tensorflow' not in sys.modules"
    command = [sys.executable, "-c", code, "show", str(exported.base)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert (process.returncode, process.stderr) == (0, "")
    assert "serving_default" in process.stdout


def test_predict_prints_the_answer_of_the_model_to_a_picture(dmkeras, exported, tmp_path):
    png(tmp_path / "grey.png")
    status, out, err = dmkeras("predict", "saved_models", "encoder", "--image", "grey.png")
    assert (status, err) == (0, "")
    (answer,) = json.loads(out)["predictions"]
    expected = exported.model.classify(np.full((1, 8, 8, 1), np.float32(128 / 255)))
    np.testing.assert_allclose(answer["code"], expected["code"][0], rtol=1e-5, atol=1e-6)
    assert answer["classes"] == expected["classes"][0].numpy().decode()


def test_a_picture_is_fitted_to_the_signature_and_that_is_said(dmkeras, tmp_path):
    png(tmp_path / "a.png", (24, 16), "RGB", (255, 0, 0))
    png(tmp_path / "b.png")
    status, out, err = dmkeras("predict", "saved_models", "encoder", "--image", "a.png", "b.png")
    assert (status, err) == (0, "a.png: RGB 24x16 -> L 8x8\n")
    assert len(json.loads(out)["predictions"]) == 2


def test_a_signature_that_takes_files_gets_them_as_they_are(dmkeras, exported, tmp_path):
    png(tmp_path / "a.png", (24, 16), "RGB", (255, 0, 0))
    status, out, err = dmkeras(
        "predict", "saved_models", "encoder", "--signature", "classify_bytes", "--image", "a.png"
    )
    assert (status, err) == (0, "")
    expected = exported.model.classify_bytes(np.array([(tmp_path / "a.png").read_bytes()], object))
    np.testing.assert_allclose(json.loads(out)["predictions"][0]["code"], expected["code"][0], rtol=1e-5, atol=1e-6)


def test_samples_come_from_a_seed_and_are_drawn_and_no_drawing_is_overwritten(dmkeras, exported, tmp_path):
    command = ("predict", "saved_models", "encoder", "--signature", "sample", "--seed", 3, "--count", 4)
    status, out, err = dmkeras(*command, "--json", '{"temperature": 0.5}', "--out", "drawn")
    assert (status, err) == (0, "drawn/encoder_sample_image.png\n")
    seeds = np.array([[3, 0], [3, 1], [3, 2], [3, 3]], np.int32)
    expected = exported.model.sample(seeds, np.full(4, 0.5, np.float32))["image"]
    np.testing.assert_allclose(json.loads(out)["predictions"], expected, rtol=1e-5, atol=1e-6)
    first = (tmp_path / "drawn" / "encoder_sample_image.png").read_bytes()
    assert Image.open(io.BytesIO(first)).mode == "RGB"
    _, again, err = dmkeras(*command, "--json", '{"temperature": 0.5}', "--out", "drawn")
    assert (again, err) == (out, "drawn/encoder_sample_image_2.png\n")
    assert (tmp_path / "drawn" / "encoder_sample_image.png").read_bytes() == first


def test_an_input_with_a_default_may_be_left_out_of_a_folders_request(dmkeras, monkeypatch):
    from dmkeras.serving import runtime

    def entered(loaded):
        loaded.defaults["sample"] = {"temperature": np.full(1, 0.5, np.float32)}
        return loaded

    command = ("predict", "saved_models", "encoder", "--signature", "sample", "--seed", 3, "--count", 1)
    _, expected, _ = dmkeras(*command, "--json", '{"temperature": 0.5}')
    assert dmkeras(*command)[0] == 2
    monkeypatch.setattr(runtime.Loaded, "__enter__", entered)
    assert dmkeras(*command)[:2] == (0, expected)


def test_encoded_pictures_in_an_answer_are_base64_and_drawn(dmkeras, exported, tmp_path):
    png(tmp_path / "grey.png")
    status, out, err = dmkeras("predict", "saved_models", "encoder", "--signature", "draw", "--image", "grey.png")
    assert (status, err) == (0, "encoder_draw_drawing_bytes.png\n")
    (answer,) = json.loads(out)["predictions"]
    expected = exported.model.draw(np.full((1, 8, 8, 1), np.float32(128 / 255)))["drawing_bytes"]
    assert base64.b64decode(answer["b64"]) == expected[0].numpy()


def test_a_request_in_json_comes_as_text_from_a_file_or_from_stdin(dmkeras, exported, tmp_path, monkeypatch):
    body = json.dumps({"instances": [{"seed": [1, 2], "temperature": 1}, {"seed": [3, 4], "temperature": 0.5}]})
    (tmp_path / "request.json").write_text(body)
    answers = []
    for source in (body, "@request.json", "-"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(body.encode())))
        status, out, _ = dmkeras("predict", "saved_models", "encoder", "--signature", "sample", "--json", source)
        assert status == 0
        answers.append(json.loads(out))
    assert answers[0] == answers[1] == answers[2]
    columns = json.dumps({"inputs": {"seed": [[1, 2], [3, 4]], "temperature": [1, 0.5]}})
    _, out, _ = dmkeras("predict", "saved_models", "encoder", "--signature", "sample", "--json", columns)
    assert json.loads(out)["outputs"] == answers[0]["predictions"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("show saved_modles", "no folder 'saved_modles' in .; did you mean saved_models?"),
        ("show saved_models/encodre", "no folder 'encodre' in saved_models; did you mean encoder?"),
        ("show saved_models/encoder/9", "no folder '9' in saved_models/encoder; there is 1."),
        ("show empty", "empty holds no model"),
        ("show junk.png", "junk.png is a file"),
        ("show damaged", "damaged/1/saved_model.pb cannot be read"),
        ("show carded", "model_card.json is not JSON"),
        (
            "show http://localhost:1",
            "received http://localhost:1, expected http://localhost:1/NAME or .../NAME/VERSION",
        ),
        ("predict saved_models encoder --label stable", "expected --version for a folder"),
        ("predict nowhere encoder", "nowhere is no folder"),
        ("predict saved_models encodre", "no model 'encodre' in saved_models; did you mean encoder?"),
        ("predict saved_models ../saved_models/encoder", "no model '../saved_models/encoder'"),
        ("predict saved_models encoder --version 3", "no version '3' in saved_models/encoder; there is 1."),
        ("predict . damaged", "damaged/1 cannot be loaded"),
        ("predict saved_models encoder --signature smple", "no signature 'smple'"),
        (
            "predict saved_models encoder",
            "input 'image' is missing, expected float32 [B, 8, 8, 1]; send it by --image FILE",
        ),
        ("predict saved_models encoder --image none.png", "dmkeras: none.png: No such file or directory\n"),
        (
            "predict saved_models encoder --image junk.png",
            "junk.png is not a picture of a format that can be read, such as PNG or JPEG\n",
        ),
        ("predict http://localhost:1 encoder --token \u00fc", "token (--token or DMKERAS_TOKEN) is empty or holds"),
        ("predict https://localhost:1 encoder --ca none.pem", "--ca: none.pem"),
        ("predict saved_models encoder --image grey.png --count 3 --seed 1", "no such input, but image"),
        ("predict saved_models encoder --image grey.png grey.png --count 3", "{'image': 2} rows for 3 answers"),
        ("predict saved_models encoder --image grey.png grey.png --count 1", "{'image': 2} rows for 1 answers"),
        ("predict saved_models encoder --json {", "JSON"),
        ("predict saved_models encoder --json [1]", "object"),
        ("predict saved_models encoder --json @none.json", "none.json"),
        ("predict saved_models encoder --json @binary.json", "JSON"),
        ('predict saved_models encoder --json {"imgae":[1]}', "--json has ['imgae'], expected names among image"),
        ("predict saved_models encoder --signature sample --image grey.png", "has 0 inputs that take pictures"),
        ("predict saved_models encoder --signature sample --seed 99999999999", "int32"),
        ("predict saved_models encoder --signature draw --image grey.png --out grey.png", "grey.png"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_with_status_2(arguments, message, dmkeras, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "junk.png").write_bytes(b"junk")
    (tmp_path / "binary.json").write_bytes(b"\xc3\x28")
    png(tmp_path / "grey.png")
    for name in ("damaged", "carded"):
        (tmp_path / name / "1" / "assets.extra").mkdir(parents=True)
        (tmp_path / name / "1" / "saved_model.pb").write_bytes(b"junk")
    (tmp_path / "carded" / "1" / model_card.FILE).write_text("{")
    status, _, err = dmkeras(*arguments.split())
    assert status == 2
    assert err.startswith("dmkeras: ")
    assert message in err
    assert err.count("\n") == 1


def test_a_command_line_that_cannot_be_read_ends_with_status_2(dmkeras):
    for arguments in (
        (),
        ("frobnicate",),
        ("show",),
        ("predict", "x", "y", "--count", "0"),
        ("show", "--tok", "a", "x"),
    ):
        with pytest.raises(SystemExit) as ended:
            dmkeras(*arguments)
        assert ended.value.code == 2


def test_a_count_of_none_is_told_what_is_expected(dmkeras, capsys):
    with pytest.raises(SystemExit):
        dmkeras("predict", "x", "y", "--count", "0")
    assert "argument --count: received '0', expected a whole number from 1" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error(exported):
    command = f"{sys.executable} -m dmkeras.serving.cli show {exported.base} | head -n 1"
    process = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=600)
    assert (process.returncode, process.stdout, process.stderr) == (0, "encoder, version 1\n", "")
