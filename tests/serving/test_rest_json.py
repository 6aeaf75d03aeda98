import json
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmkeras.serving import json_arrays, json_text, rest_json
from dmkeras.serving.errors import ServingError
from dmkeras.serving.model_card import Tensor
from dmkeras.serving.rest_json import RequestError, array, decode, dumps, encode, parse

IMAGE = Tensor("image", "float32", (None, 2, 1))
SEED = Tensor("seed", "int32", (None, 2))
FILE = Tensor("image_bytes", "string", (None,))
FLAG = Tensor("flag", "bool", (None,))
FLOAT = Tensor("x", "float32", (None,))
DOUBLE = Tensor("x", "float64", (None,))


def test_rows_and_columns_say_the_same():
    expected = {"image": [[[0], [1]], [[0.5], [2]]], "seed": [[1, 2], [3, 4]]}
    rows = [{"image": image, "seed": seed} for image, seed in zip(*expected.values(), strict=True)]
    for body in ({"instances": rows}, {"inputs": expected}, {"inputs": expected | {"extra": 1}}):
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
    assert decode({"inputs": ["text", {"b64": "AP8A"}]}, [FILE])["image_bytes"].tolist() == [b"text", b"\x00\xff\x00"]
    answer = encode({"picture_bytes": np.array([b"\x00\xff\x00"], object)})
    assert answer == {"predictions": [{"b64": "AP8A"}]}
    assert encode({"name": np.array(["é".encode()], object)}) == {"predictions": ["é"]}


@pytest.mark.parametrize("text", ["aGk=", "aGk", "aG\n k=", "aGk."])
def test_padding_and_white_space_of_base64_are_free(text):
    assert json_arrays.binary({"b64": text}) == b"hi"


@pytest.mark.parametrize("text", ["***", "aGk==", "a", "aGk=aGk="])
def test_what_is_no_base64_is_refused(text):
    with pytest.raises(RequestError, match="Unable to base64 decode"):
        json_arrays.binary({"b64": text})


def test_floats_are_written_in_their_shortest_decimals_and_not_a_number_as_a_word():
    answer = encode({"a": np.array([0.1, 1, 1e-8, math.nan, math.inf], np.float32)})
    assert dumps(answer) == b'{"predictions":[0.1,1.0,1e-08,NaN,Infinity]}'
    assert math.isnan(decode(parse('{"instances": [[[NaN], [-Infinity]]]}'), [IMAGE])["image"][0, 0, 0])


def test_many_floats_are_written_in_their_shortest_decimals():
    values = np.random.default_rng(1).integers(0, 2**32, 5000, dtype=np.uint32).view(np.float32)
    odd = np.array([0, -0.0, math.nan, -math.inf, 1e-45, 3.4028235e38, 9e6, 1e22, 0.1, 16777216], np.float32)
    values = np.concatenate([values[np.isfinite(values)], odd])
    expected = [float(str(value)) for value in values]
    assert json.dumps(encode({"a": values})["predictions"]) == json.dumps(expected)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(width=32), min_size=40, max_size=60))
def test_a_float_comes_back_to_the_last_bit(values):
    values = np.array(values, np.float32)
    body = dumps({"inputs": encode({"a": values})["predictions"]})
    np.testing.assert_array_equal(decode(parse(body), [FLOAT])["x"], values)


def test_the_answer_drops_the_name_of_a_single_output_and_keeps_several():
    one, two = np.array([[1], [2]], np.int32), np.array([True, False])
    assert encode({"a": one}) == {"predictions": [[1], [2]]}
    assert encode({"a": one, "b": two}) == {"predictions": [{"a": [1], "b": True}, {"a": [2], "b": False}]}
    assert encode({"a": one}, columns=True) == {"outputs": [[1], [2]]}
    assert encode({"a": one, "b": two}, columns=True) == {"outputs": {"a": [[1], [2]], "b": [True, False]}}
    assert encode({"a": np.zeros((0, 2))}) == {"predictions": []}
    assert encode({"a": b"one"}, columns=True) == {"outputs": "one"}


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"a": np.int32(1)}, "Tensor name: a has no shape information "),
        ({"a": np.zeros(2), "b": np.zeros(3)}, "Tensor name: b has inconsistent batch size: 3 expecting: 2"),
        ({"a": np.zeros(2, np.float16)}, "Failed to write JSON value for tensor type: half"),
        ({"a": np.zeros(2, np.uint16)}, "Failed to write JSON value for tensor type: uint16"),
        ({"a": np.zeros(2, np.complex64)}, "Failed to write JSON value for tensor type: complex64"),
    ],
)
def test_an_answer_that_json_cannot_carry_is_refused(outputs, message):
    with pytest.raises(RequestError, match=message):
        encode(outputs)


def test_the_first_of_two_equal_keys_counts():
    body = parse('{"instances": [{"seed": [1, 2], "seed": [3, 4]}], "instances": [[5, 6]]}')
    assert decode(body, [SEED])["seed"].tolist() == [[1, 2]]


def test_what_follows_the_object_is_ignored():
    assert parse(b' {"a": 1}]} junk') == {"a": 1}
    assert parse(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


def test_bytes_that_are_no_utf8_reach_the_model_as_they_came():
    assert decode(parse(b'{"inputs": ["\xff\xc3\xa9"]}'), [FILE])["image_bytes"].tolist() == [b"\xff\xc3\xa9"]


@pytest.mark.parametrize("dtype", sorted(json_arrays.INTEGERS))
def test_an_integer_dtype_takes_what_it_holds_and_no_more(dtype):
    limits, tensor = np.iinfo(dtype), Tensor("x", dtype, (None,))
    values = [int(limits.min), int(limits.max)]
    assert array(values, tensor).tolist() == values
    for beyond in (limits.min - 1, limits.max + 1):
        with pytest.raises(RequestError, match=rf"Type: Number is not of expected type: {dtype}; input 'x'"):
            array([int(beyond)], tensor)


def test_a_float_takes_every_integer_below_its_mantissa_and_every_number_in_its_range():
    assert array([2**24 - 1, -0.5], FLOAT).tolist() == [2**24 - 1, -0.5]
    assert array([1e300, 10**30, 2**53 - 1], DOUBLE).tolist() == [1e300, 1e30, 2**53 - 1]
    assert array([10**30], FLOAT).tolist() == [np.float32(1e30)]
    for value, tensor in ((2**24, FLOAT), (-(2**24), FLOAT), (3.4028236e38, FLOAT), (2**53, DOUBLE)):
        with pytest.raises(RequestError, match=r"to (float|double) without loss of precision"):
            array([0.5, value], tensor)


@pytest.mark.parametrize("digits", ["1e999", "-1e999", "1" + "0" * 400, "1" * 5000])
def test_digits_beyond_a_double_are_not_infinity(digits):
    with pytest.raises(RequestError, match=r"JSON Parse error: Number too big to be stored in double\."):
        decode(parse(f'{{"inputs": [Infinity, {digits}]}}'), [DOUBLE])
    assert decode(parse('{"inputs": [1, Infinity]}'), [DOUBLE])["x"].tolist() == [1, math.inf]


LEAVES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=3)
LEAVES |= st.just({"b64": "AAAA"}) | st.just({"b64": 1}) | st.just({}) | st.integers(-3, 3)
NESTED = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3), max_leaves=8)


@settings(max_examples=400, deadline=None)
@given(
    rows=st.lists(st.integers(-3, 3) | st.lists(st.integers(-3, 3), max_size=2), min_size=1, max_size=4)
    | st.lists(NESTED, min_size=1, max_size=3),
    dtype=st.sampled_from(["float32", "int32", "uint8", "bool", "string"]),
)
def test_the_quick_way_and_the_exact_way_agree(rows, dtype):
    """What the quick one takes the exact one takes as well, and to the same array; and no other error comes out."""
    tensor = Tensor("x", dtype, None)
    try:
        exact = rest_json._rows_one_by_one(rows, [tensor], named=False)["x"]
    except ServingError:
        exact = None
    quick = json_arrays.dense(rows, dtype)
    if quick is not None:
        assert (exact.dtype, exact.shape) == (quick.dtype, quick.shape)
        assert repr(exact.tolist()) == repr(quick.tolist())
    if exact is not None:
        assert repr(array(rows, tensor).tolist()) == repr(exact.tolist())


def test_a_thousand_floats_cost_less_than_five_milliseconds():
    body = dumps({"instances": np.random.default_rng(2).random((10, 100), np.float32).tolist()})
    best = min(_seconds(lambda: decode(parse(body), [Tensor("x", "float32", (None, 100))])) for _ in range(20))
    assert best < 5e-3  # about 0.4 ms


def test_deep_nesting_is_refused_at_once():
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        text = '{"inputs": ' + opening * 20_000 + "1" + closing * 20_000 + "}"
        for body in (text, text.encode(), opening * 20_000):
            start = time.perf_counter()
            with pytest.raises(RequestError, match="nested too deeply, expected at most 32 levels"):
                parse(body)
            assert time.perf_counter() - start < 0.5


def test_brackets_within_strings_are_no_nesting():
    assert parse(json.dumps({"a": "[" * 100, "b": '"[[\\' * 50})) == {"a": "[" * 100, "b": '"[[\\' * 50}
    assert json_text._brackets(b'{"a]\\"]": "[\\\\", "b": [1]}') == b"{[]}"
    hidden = json.dumps({"a": "]" * 100, "b": 1})[:-2] + "[" * 100 + "]" * 100 + "}"
    with pytest.raises(RequestError, match="nested too deeply"):
        parse(hidden)


def test_a_long_value_is_repeated_in_its_first_characters():
    with pytest.raises(RequestError) as raised:
        decode({"inputs": ["x" * 10_000]}, [FLOAT])
    assert len(str(raised.value)) < 700


def test_a_dtype_that_json_does_not_carry_is_unimplemented():
    with pytest.raises(ServingError, match=r"Conversion of JSON Value: 1 to type: half; input 'x'") as raised:
        decode({"inputs": [1]}, [Tensor("x", "float16", (None,))])
    assert raised.value.http == 501


ROW = "Failed to process element: {} of 'instances' list. Error: INVALID_ARGUMENT: "


@pytest.mark.parametrize(
    ("body", "inputs", "message"),
    [
        ("", [SEED], "JSON Parse error: The document is empty"),
        ("hello", [SEED], "JSON Parse error: Invalid value. at offset: 0"),
        ("{", [SEED], "JSON Parse error: Missing a name for object member. at offset: 1"),
        ('{"a" 1}', [SEED], "JSON Parse error: Missing a colon after a name of object member. at offset: 5"),
        ('{"a": [1, [2] 3', [SEED], "JSON Parse error: Missing a comma or ] after an array element. at offset: 14"),
        ('{"a": [1, {"b": 2}] 3', [SEED], "JSON Parse error: Missing a comma or } after an object member."),
        ('{"a": "b', [SEED], "JSON Parse error: Missing a closing quotation mark in string."),
        ('{"a": "\\x"}', [SEED], "JSON Parse error: Invalid escape character in string."),
        ('{"a": "\t"}', [SEED], "JSON Parse error: Invalid encoding in string."),
        ("[1]", [SEED], "JSON Value: [\n    1\n] Is not object"),
        ("{}", [SEED], "Missing 'inputs' or 'instances' key"),
        (
            '{"instances": [[1, 2]], "inputs": [[1, 2]]}',
            [SEED],
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ",
        ),
        ('{"instances": []}', [SEED], "No values in 'instances' array"),
        ('{"instances": null}', [SEED], "Excepting 'instances' to be an list/array"),
        ('{"instances": [[1, 2], [1]]}', [SEED], ROW.format(1) + "Expecting tensor size: 2 but got: 1; input 'seed'"),
        ('{"instances": [[1, 2], [[1], [2]]]}', [SEED], ROW.format(1) + "Expecting shape [2] but got: [2,1]"),
        (
            '{"instances": [[[1, 2], [3]]]}',
            [SEED],
            ROW.format(0) + "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
        ),
        ('{"inputs": [1, [2]]}', [SEED], "Encountered list at unexpected level: 1 expected < 1"),
        ('{"inputs": [[1], 2]}', [SEED], "JSON Value: 2 found at incorrect level: 2 in the JSON DOM."),
        ('{"inputs": [[1, 2.0]]}', [SEED], "JSON Value: 2.0 Type: Number is not of expected type: int32"),
        ('{"inputs": [[1, true]]}', [SEED], "JSON Value: true Type: True is not of expected type: int32"),
        ('{"inputs": [[1, null]]}', [SEED], "JSON Value: null Type: Null is not of expected type: int32"),
        (
            '{"instances": [{"seed": [1, 2], "bogus": 1}]}',
            [SEED],
            "element: 0 key: bogus of 'instances' list. Error: INVALID_ARGUMENT: JSON object: does not have named "
            "input: bogus",
        ),
        ('{"instances": [{"seed": [1, 2]}, [1, 2]]}', [SEED], "Expecting object but got list at item 1 of input list"),
        ('{"instances": [[1, 2], {"seed": [1, 2]}]}', [SEED], "Expecting value/list but got object at item 1 of"),
        ('{"instances": [{"seed": [1, 2]}]}', [IMAGE, SEED], "keys must be equal to: image,seed"),
        ('{"instances": [[1, 2]]}', [IMAGE, SEED], "instances is a plain list, but expecting list of objects"),
        ('{"inputs": {"seed": [[1, 2]]}}', [IMAGE, SEED], "Missing named input: image in 'inputs' object."),
        ('{"inputs": [[1, 2]]}', [IMAGE, SEED], "inputs is a plain value/list, but expecting an object"),
        ('{"instances": [{"b64": "***"}]}', [FILE], ROW.format(0) + "Unable to base64 decode; input 'image_bytes'"),
        ('{"inputs": [{"b64": 3}]}', [FILE], "not formatted correctly for base64 data"),
        ('{"inputs": [3]}', [FILE], "JSON Value: 3 Type: Number is not of expected type: string"),
        ('{"inputs": ["\\ud800"]}', [FILE], "JSON Parse error: The surrogate pair in string is invalid."),
        ('{"inputs": [1]}', [FLAG], "JSON Value: 1 Type: Number is not of expected type: bool"),
        ('{"inputs": [[["a"], ["b"]]]}', [IMAGE], 'JSON Value: "a" Type: String is not of expected type: float'),
    ],
)
def test_a_wrong_request_is_told_what_came_and_what_was_expected(body, inputs, message):
    with pytest.raises(RequestError) as raised:
        decode(parse(body), inputs)
    assert message in str(raised.value)


def test_a_signature_is_named_by_a_string():
    assert rest_json.signature_name({"signature_name": "a"}) == "a"
    assert rest_json.signature_name({}) == ""
    with pytest.raises(RequestError, match="'signature_name' key must be a string value"):
        rest_json.signature_name({"signature_name": 5})


def _seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
