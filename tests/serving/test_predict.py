"""`dmkeras predict` of many pictures and of servers: one answer from everywhere, and drawings of what it holds."""

import contextlib
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from dmkeras import figures
from dmkeras.serving import cli
from dmkeras.serving.client_tensors import MissingInputError
from dmkeras.serving.commands import drawings, pictures, predict
from dmkeras.serving.errors import RequestError, ServingError
from dmkeras.serving.model_card import Tensor

GREY = Tensor("image", "float32", (None, 8, 8, 1))
ANY_SIZE = Tensor("image", "uint8", (None, None, None, 1))


def png(path, size=(8, 8), mode="L", colour=128):
    Image.new(mode, size, colour).save(path)
    return str(path)


@pytest.fixture
def ask(monkeypatch, tmp_path, capsys):
    """Runs a command line against a scripted source -> (status, stdout's JSON or None, stderr's lines)."""
    monkeypatch.chdir(tmp_path)

    def run(answer, *arguments, inputs=(GREY,), labels=None):
        source = predict.Source({"serving_default": (list(inputs), [])}, answer, labels)
        monkeypatch.setattr(predict, "_source", lambda _: contextlib.nullcontext(source))
        status = cli.main(["predict", "somewhere", "m", *map(str, arguments)])
        out, err = capsys.readouterr()
        return status, json.loads(out) if out else None, err.splitlines()

    return run


def brightness(name, feed):
    return {"mean": feed["image"].mean((1, 2, 3))}


# --- rows and batches -----------------------------------------------------------------------------------------------


def test_pictures_are_sent_in_batches_and_answered_in_their_order(ask, tmp_path):
    sizes = []

    def answer(name, feed):
        sizes.append(len(feed["image"]))
        return brightness(name, feed)

    paths = [png(tmp_path / f"{number}.png", colour=number) for number in range(7)]
    status, answered, err = ask(answer, "--batch-size", 3, "--image", *paths)
    assert (status, err, sizes) == (0, [], [3, 3, 1])
    np.testing.assert_allclose(answered["predictions"], np.arange(7) / 255, rtol=1e-5)


def test_a_bad_picture_is_named_and_the_others_are_answered(ask, tmp_path):
    (tmp_path / "junk.png").write_bytes(b"junk")
    good = png(tmp_path / "good.png")
    status, answered, err = ask(brightness, "--image", good, "junk.png", "none.png", good)
    assert status == 1
    assert [row is None for row in answered["predictions"]] == [False, True, True, False]
    assert ["junk.png" in err[0], "none.png" in err[1]] == [True, True]
    assert err[-1] == "dmkeras: 2 of 4 got no answer"
    status, answered, err = ask(brightness, "--image", "junk.png", "junk.png")
    assert (status, answered, err[-1]) == (2, None, "dmkeras: 2 of 2 got no answer")


def test_a_picture_that_the_model_refuses_is_found_among_the_others(ask, tmp_path):
    def answer(name, feed):
        if (feed["image"] == 0).any():
            raise RequestError("Unknown image file format")
        return brightness(name, feed)

    paths = [png(tmp_path / f"{number}.png", colour=colour) for number, colour in enumerate((9, 0, 8))]
    status, answered, err = ask(answer, "--image", *paths)
    assert status == 1
    assert [row is None for row in answered["predictions"]] == [False, True, False]
    assert err[0] == f"dmkeras: {paths[1]}: Unknown image file format"


def test_a_missing_input_is_told_once_for_all_pictures(ask, tmp_path):
    def answer(name, feed):
        raise MissingInputError("input 'k' is missing")

    paths = [png(tmp_path / f"{number}.png") for number in range(3)]
    assert ask(answer, "--image", *paths)[2] == ["dmkeras: input 'k' is missing; send it by --image FILE or --json"]


def test_what_was_answered_before_the_server_went_away_is_printed(ask, tmp_path):
    answered = []

    def answer(name, feed):
        if answered:
            raise ServingError("UNAVAILABLE", "gone")
        answered.append(feed)
        return brightness(name, feed)

    paths = [png(tmp_path / f"{number}.png") for number in range(4)]
    status, printed, err = ask(answer, "--batch-size", 2, "--image", *paths)
    assert [row is None for row in printed["predictions"]] == [False, False, True, True]
    assert (status, err) == (1, ["dmkeras: gone", "dmkeras: 2 of 4 got no answer"])
    status, printed, err = ask(answer, "--image", *paths)
    assert (status, printed, err) == (2, None, ["dmkeras: gone"])


def test_an_interrupt_ends_without_a_traceback(ask):
    def interrupted(*_):
        raise KeyboardInterrupt

    assert ask(interrupted, inputs=[]) == (130, None, [])


def test_pictures_of_several_sizes_are_sent_size_by_size_where_none_is_fixed(ask, tmp_path):
    shapes = []

    def answer(name, feed):
        shapes.append(feed["image"].shape)
        return brightness(name, feed)

    sizes = [(8, 8), (8, 8), (9, 8)]
    paths = [png(tmp_path / f"{number}.png", size) for number, size in enumerate(sizes)]
    status, answered, _ = ask(answer, "--image", *paths, inputs=[ANY_SIZE])
    assert (status, answered, shapes) == (0, {"predictions": [128.0] * 3}, [(2, 8, 8, 1), (1, 8, 9, 1)])


def test_one_row_stands_for_all_of_a_batch_and_seeds_go_on_over_batches(ask, tmp_path):
    seed = Tensor("seed", "int32", (None, 2))
    seen = []

    def answer(_, feed):
        seen.append({name: array.tolist() for name, array in feed.items()})
        return {"sum": feed["seed"].sum(1) + feed["x"]}

    status, answered, _ = ask(
        answer,
        "--count",
        3,
        "--batch-size",
        2,
        "--seed",
        5,
        "--json",
        '{"x": 10}',
        inputs=[seed, Tensor("x", "int32", (None,))],
    )
    assert (status, answered) == (0, {"predictions": [15, 16, 17]})
    assert seen == [{"seed": [[5, 0], [5, 1]], "x": [10, 10]}, {"seed": [[5, 2]], "x": [10]}]


def test_a_request_in_columns_is_answered_in_columns_over_batches(ask):
    body = json.dumps({"inputs": {"x": [1, 2, 3]}})
    status, answered, _ = ask(
        lambda _, feed: {"y": 2 * feed["x"]}, "--json", body, "--batch-size", 2, inputs=[Tensor("x", "int32", (None,))]
    )
    assert (status, answered) == (0, {"outputs": [2, 4, 6]})


def test_progress_is_shown_on_a_terminal_alone(ask, tmp_path, monkeypatch):
    paths = [png(tmp_path / f"{number}.png") for number in range(3)]
    assert ask(brightness, "--batch-size", 2, "--image", *paths)[2] == []
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert ask(brightness, "--batch-size", 2, "--image", *paths)[2] == ["", "2/3", "3/3"]


# --- drawings -------------------------------------------------------------------------------------------------------


def drawn(path):
    return np.asarray(Image.open(path).convert("RGB"))


def test_detections_are_drawn_over_each_picture_with_labels(ask, tmp_path):
    paths = [png(tmp_path / f"{name}.png", (20, 10), "RGB", (128, 128, 128)) for name in ("cat", "dog")]
    outputs = {
        "detection_boxes": np.array([[[0.5, 0.25, 1.0, 0.75], [0, 0, 1, 1], [0, 0, 1, 1]]] * 2, np.float32),
        "detection_scores": np.array([[0.9, 0.2, 0.8]] * 2, np.float32),
        "detection_classes": np.array([[1, 0, 0]] * 2, np.int32),
        "num_detections": np.array([2, 2], np.int32),
    }
    status, answered, err = ask(
        lambda *_: outputs, "--image", *paths, inputs=[Tensor("image", "float32", (None, 10, 20, 3))], labels=["a", "b"]
    )
    assert status == 0
    assert len(answered["predictions"]) == 2
    assert err == [
        "drawn: 1 of 2 detections, those of 0.3 or more",
        "m_serving_default_cat.png",
        "drawn: 1 of 2 detections, those of 0.3 or more",
        "m_serving_default_dog.png",
    ]
    picture = np.full((10, 20, 3), 128, np.uint8)
    expected = figures.boxes(picture, [[5, 5, 15, 10]], [1], scores=[np.float32(0.9)], names=["a", "b"])
    np.testing.assert_array_equal(drawn("m_serving_default_cat.png"), expected)


@pytest.mark.parametrize("name", ["class_map", "logits"])
def test_a_map_of_classes_lies_over_its_picture(ask, tmp_path, name):
    png(tmp_path / "cat.png")
    side = 4 if name == "class_map" else 8  # a map is known by its name, or by the size of the picture
    classes = np.zeros((1, side, side), np.int32)
    classes[:, side // 2 :] = 1
    status, _, err = ask(lambda *_: {name: classes}, "--image", "cat.png", labels=["background", "cat"])
    assert (status, err) == (0, [f"m_serving_default_{name}.png"])
    over = np.zeros((8, 8), int)
    over[4:] = 1
    expected = figures.masks(np.full((8, 8), 128, np.uint8), over, names=["background", "cat"])
    np.testing.assert_array_equal(drawn(f"m_serving_default_{name}.png"), expected)


def test_a_map_of_floats_is_a_heat_map_and_one_of_nan_is_told(ask, tmp_path):
    png(tmp_path / "cat.png")
    for value, line in ((0.5, "m_serving_default_heat_map.png"), (np.nan, "m_serving_default_heat_map is not drawn: ")):
        status, answered, err = ask(
            lambda *_, value=value: {"heat_map": np.full((1, 8, 8), value, np.float32)}, "--image", "cat.png"
        )
        assert (status, answered["predictions"] is not None, len(err)) == (0, True, 1)
        assert err[0].startswith(line)


def test_encoded_pictures_are_written_as_they_are(ask, tmp_path):
    contents = [pathlib.Path(png(tmp_path / "a.png")).read_bytes(), b"\xff\xd8\xff...", b"unknown", b""]
    outputs = {"stylized_bytes": np.array(contents, object)}
    paths = [png(tmp_path / f"{name}.png") for name in "abcd"]
    status, _, err = ask(lambda *_: outputs, "--image", *paths)
    assert status == 0
    assert err == [f"m_serving_default_stylized_bytes_{name}" for name in ("a.png", "b.jpg", "c.bin")]
    assert [pathlib.Path(path).read_bytes() for path in err] == contents[:3]


def test_samples_of_all_batches_are_one_grid(ask):
    seed = Tensor("seed", "int32", (None, 2))
    status, _, err = ask(
        lambda _, feed: {"image": np.repeat(feed["seed"][:, 1], 64).reshape(-1, 8, 8, 1).astype(np.float32) / 9},
        *("--count", 9, "--batch-size", 4),
        inputs=[seed],
    )
    assert (status, err) == (0, ["m_serving_default_image.png"])
    greys = [np.full((8, 8), number / 9, np.float32) for number in range(9)]
    np.testing.assert_array_equal(drawn("m_serving_default_image.png"), figures.grid(greys, ground="#c8c8c8"))


def test_a_row_without_a_picture_is_a_hole_in_the_grid(ask, tmp_path):
    (tmp_path / "junk.png").write_bytes(b"junk")
    good = png(tmp_path / "good.png", colour=0)
    for paths, holes in (((good, "junk.png", good, good), [1]), ((good, good, "junk.png"), [2])):
        status, _, err = ask(lambda _, feed: {"image": 1 - feed["image"]}, "--image", *paths)
        assert status == 1
        white, grey = np.full((8, 8), 255, np.uint8), np.full((8, 8), 200, np.uint8)
        tiles = [grey if place in holes else white for place in range(len(paths))]
        name = next(line for line in err if line.startswith("m_") and line.endswith(".png"))
        np.testing.assert_array_equal(drawn(name), figures.grid(tiles, ground="#c8c8c8"))


def test_what_is_no_picture_is_not_drawn(tmp_path, capsys):
    values = np.zeros((2, 4, 4, 3), np.float32)
    outputs = {
        "image": values,
        "counts": np.zeros((2, 4, 4, 1), np.uint8),
        "logits": values - 1,
        "nan": values + np.nan,
        "code": values[:, 0, 0],
        "feature": np.zeros((2, 4, 4, 7), np.float32),
        "name": np.array([b"cat", b"dog"], object),
        "scalar": np.float32(1),
        "empty": values[:0],
    }
    drawer = drawings.Drawer(tmp_path, "m")
    drawer.draw([None, None], None, outputs)
    drawer.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m_counts.png", "m_image.png"]


def test_pictures_of_16_bits_keep_their_greys_and_rotated_ones_are_turned_upright(tmp_path):
    Image.fromarray(np.full((8, 8), 257 * 100, np.uint16)).save(tmp_path / "deep.png")
    values, _ = pictures.read(tmp_path / "deep.png", GREY)
    np.testing.assert_allclose(values, 100 / 255, atol=1e-6)
    photo = Image.new("L", (8, 4), 0)
    photo.paste(255, (0, 0, 4, 4))  # the left half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    photo.save(tmp_path / "turned.png", exif=exif)
    values, _ = pictures.read(tmp_path / "turned.png", ANY_SIZE)
    assert values.shape == (8, 4, 1)
    assert values[:4].min() == 255
    assert values[4:].max() == 0
