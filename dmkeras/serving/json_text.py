"""JSON as TF Serving's parser (RapidJSON) reads it, told in its words: no deeper than a limit, the first of two equal
keys counts, what follows the object is ignored, NaN and Infinity are bare words. No TensorFlow here.
"""

import json
import re

import numpy as np

from dmkeras.serving.errors import RequestError

MAX_DEPTH = 32  # TensorFlow's tensors end at 8 dimensions of a list, a row and an object around them
LONGEST = 500  # characters of a caller's value that a message repeats
SPACE = re.compile(r"[ \t\n\r]*")
NO_MARKS = bytes(set(range(256)) - set(b'[]{}"'))
MESSAGES = {  # of Python's parser, as they begin -> of RapidJSON
    "Expecting property name": "Missing a name for object member.",
    "Illegal trailing comma before end of object": "Missing a name for object member.",
    "Expecting ':' delimiter": "Missing a colon after a name of object member.",
    "Unterminated string": "Missing a closing quotation mark in string.",
    "Invalid control character": "Invalid encoding in string.",
    "Invalid \\uXXXX escape": "Incorrect hex digit after \\u escape in string.",
    "Invalid \\escape": "Invalid escape character in string.",
}
COMMA_IN_ARRAY = "Missing a comma or ] after an array element."
COMMA_IN_OBJECT = "Missing a comma or } after an object member."
KINDS = {type(None): "Null", dict: "Object", list: "Array", str: "String"}

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode
_pieces = json.JSONEncoder(ensure_ascii=False, indent=4).iterencode


class Constant(float):
    """NaN or Infinity by its word: digits too big for a float are infinite as well, and wrong."""


def parse(text, max_depth=MAX_DEPTH):
    """The JSON object of a request, from str or bytes; RequestError where it is none.

    Bytes that are no UTF-8 stay as they are within strings (surrogate escapes), as in TF Serving.
    """
    _check_depth(text.encode(errors="surrogatepass") if isinstance(text, str) else text, max_depth)
    if not isinstance(text, str):
        text = text.decode("utf-8-sig", "surrogateescape")
    if not text:
        raise RequestError("JSON Parse error: The document is empty")
    start = SPACE.match(text).end()
    if start == len(text):
        raise RequestError(f"JSON Parse error: The document is empty. at offset: {start}")
    try:
        value, _ = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise RequestError(f"JSON Parse error: {_message(error)} at offset: {error.pos}") from None
    except RecursionError:
        raise _too_deep(max_depth) from None
    except ValueError:  # Python reads no integer of thousands of digits
        raise RequestError("JSON Parse error: Number too big to be stored in double.") from None
    if not isinstance(value, dict):
        raise error_of(value, "Is not object")
    return value


def dumps(value):
    """A JSON value as bytes. NaN and Infinity are bare words."""
    return _encode(value).encode()


def shown(value):
    """A caller's value in a message, in its first characters."""
    if type(value) is int and not -(2**63) <= value < 2**64:  # RapidJSON has read a float
        value = float(value) if abs(value) < 1e308 else float("inf")
    text = ""
    for piece in _pieces(value):
        text += piece
        if len(text) > LONGEST:
            return text[:LONGEST] + "..."
    return text


def error_of(value, message):
    return RequestError(f"JSON Value: {shown(value)} {message}")


def kind_of(value):
    """A JSON value's kind in RapidJSON's words."""
    return str(value) if isinstance(value, bool) else KINDS.get(type(value), "Number")


def _brackets(text):
    """The brackets of a JSON text in their order, without those within strings."""
    if b"\\" in text:
        text = re.sub(rb"\\.", b"", text, flags=re.DOTALL)
    return re.sub(rb'"[^"]*"', b"", text.translate(None, NO_MARKS))


def _check_depth(text, max_depth):
    """Linear in the text, and looks closely only where the brackets are many enough."""
    if text.count(b"[") + text.count(b"{") <= max_depth:
        return
    marks = np.frombuffer(_brackets(text), np.uint8)
    steps = np.where((marks == ord("[")) | (marks == ord("{")), 1, -1)
    if np.cumsum(steps).max(initial=0) > max_depth:
        raise _too_deep(max_depth)


def _too_deep(max_depth):
    return RequestError(f"JSON Parse error: the request is nested too deeply, expected at most {max_depth} levels")


def _first_wins(pairs):
    found = dict(pairs)
    return found if len(found) == len(pairs) else dict(reversed(pairs))


def _message(error):
    for beginning, message in MESSAGES.items():
        if error.msg.startswith(beginning):
            return message
    if error.msg.startswith("Expecting ',' delimiter"):
        before = _brackets(error.doc[: error.pos].encode(errors="surrogatepass"))
        while (closed := re.sub(rb"\[\]|{}", b"", before)) != before:
            before = closed
        return COMMA_IN_ARRAY if before.endswith(b"[") else COMMA_IN_OBJECT
    return "Invalid value."


_DECODER = json.JSONDecoder(object_pairs_hook=_first_wins, parse_constant=Constant)
