import json
import math

import numpy as np
import pytest

from dmkeras.serving.model_card import Tensor
from dmkeras.serving.rest_json import RequestError, decode, encode, parse

IMAGE = Tensor("image", "float32", (None, 2, 1))
SEED = Tensor("seed", "int32", (None, 2))
FILE = Tensor("image_bytes", "string", (None,))
FLAG = Tensor("flag", "bool", (None,))


def test_rows_and_columns_say_the_same():
    expected = {"image": [[[0], [1]], [[0.5], [2]]], "seed": [[1, 2], [3, 4]]}
    rows = [{"image": image, "seed": seed} for image, seed in zip(*expected.values(), strict=True)]
    for body in ({"instances": rows}, {"inputs": expected}):
        feed = decode(parse(json.dumps(body)), [IMAGE, SEED])
        assert feed["image"].dtype == np.float32
        assert feed["seed"].dtype == np.int32
        for name, value in expected.items():
            np.testing.assert_array_equal(feed[name], value)


def test_a_single_input_needs_no_name():
    for body in ({"instances": [[1, 2]]}, {"inputs": [[1, 2]]}, {"instances": [{"seed": [1, 2]}]}):
        np.testing.assert_array_equal(decode(body, [SEED])["seed"], [[1, 2]])


def test_binary_strings_travel_as_base64():
    for row in ({"b64": "AP8A"}, {"image_bytes": {"b64": "AP8A"}}):
        assert decode({"instances": [row]}, [FILE])["image_bytes"].tolist() == [b"\x00\xff\x00"]
    answer = encode({"picture_bytes": np.array([b"\x00\xff\x00"], object)})
    assert answer == {"predictions": [{"b64": "AP8A"}]}
    assert encode({"name": np.array(["é".encode()], object)}) == {"predictions": ["é"]}


def test_floats_are_written_in_their_shortest_decimals_and_not_a_number_as_a_word():
    answer = encode({"a": np.array([0.1, 1, 1e-8, math.nan, math.inf], np.float32)})
    assert json.dumps(answer) == '{"predictions": [0.1, 1.0, 1e-08, NaN, Infinity]}'
    assert math.isnan(decode(parse('{"instances": [[[NaN], [-Infinity]]]}'), [IMAGE])["image"][0, 0, 0])


def test_the_answer_drops_the_name_of_a_single_output_and_keeps_several():
    one, two = np.array([[1], [2]], np.int32), np.array([True, False])
    assert encode({"a": one}) == {"predictions": [[1], [2]]}
    assert encode({"a": one, "b": two}) == {"predictions": [{"a": [1], "b": True}, {"a": [2], "b": False}]}
    assert encode({"a": one}, columns=True) == {"outputs": [[1], [2]]}
    assert encode({"a": one, "b": two}, columns=True) == {"outputs": {"a": [[1], [2]], "b": [True, False]}}


@pytest.mark.parametrize(
    ("body", "inputs", "message"),
    [
        ("[1]", [SEED], "expected an object with one of"),
        ("{}", [SEED], "expected an object with one of"),
        ('{"instances": [[1, 2]], "inputs": [[1, 2]]}', [SEED], "expected an object with one of"),
        ('{"instances": []}', [SEED], "holds no rows"),
        ('{"instances": [[1, 2], [1]]}', [SEED], "'seed' is ragged"),
        ('{"instances": [[1, 2.0]]}', [SEED], "'seed' holds 2.0, expected int32"),
        ('{"instances": [[1, true]]}', [SEED], "'seed' holds true, expected int32"),
        ('{"instances": [[1, 3000000000]]}', [SEED], "'seed' holds a number beyond int32"),
        ('{"instances": [[1, null]]}', [SEED], "'seed' holds null"),
        ('{"instances": [1]}', [SEED], r"'seed' has shape \[1\], expected \[B, 2\]"),
        ('{"instances": [[[1, 2]]]}', [SEED], "nested deeper than its 2 dimensions"),
        (
            '{"instances": [{"seed": [1, 2], "bogus": 1}]}',
            [SEED],
            r"row 0 has \['bogus', 'seed'\], expected \['seed'\]",
        ),
        ('{"instances": [{"seed": [1, 2]}, [1, 2]]}', [SEED], r"row 1 has \[1, 2\]"),
        ('{"instances": [[1, 2]]}', [IMAGE, SEED], "expected an object with"),
        ('{"inputs": {"seed": [[1, 2]]}}', [IMAGE, SEED], r"lacks \['image'\]"),
        ('{"inputs": [[1, 2]]}', [IMAGE, SEED], r"lacks \['image', 'seed'\]"),
        ('{"instances": [{"b64": "***"}]}', [FILE], "not base64"),
        ('{"instances": [3]}', [FILE], "'image_bytes' holds 3, expected string"),
        ('{"instances": [1]}', [FLAG], "'flag' holds 1, expected bool"),
        ('{"instances": [[["a"], ["b"]]]}', [IMAGE], "'image' holds \"a\", expected float32"),
        ("{", [SEED], "not JSON"),
        ("[" * 100_000, [SEED], "nested too deeply"),
    ],
)
def test_a_wrong_request_is_told_what_came_and_what_was_expected(body, inputs, message):
    with pytest.raises(RequestError, match=message):
        decode(parse(body), inputs)
