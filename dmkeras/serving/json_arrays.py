"""Nested lists of JSON values <-> arrays, under the rules and in the words of TF Serving. No TensorFlow here."""

import base64
import binascii
import re

import numpy as np

from dmkeras.serving.errors import RequestError, ServingError
from dmkeras.serving.json_text import Constant, error_of, kind_of, shown

MANTISSA = {"float32": 24, "float64": 53}  # bits: TF Serving takes integers that fill fewer
INTEGERS = {"int8", "int16", "int32", "int64", "uint8", "uint32", "uint64"}
WRITABLE = {*MANTISSA, *INTEGERS, "bool"}
TYPE_NAMES = {"float32": "float", "float64": "double", "float16": "half"}
FEW = 32  # numbers that are written one by one as quickly as together


def type_name(dtype):
    """A dtype as TensorFlow's messages name it."""
    return TYPE_NAMES.get(dtype, dtype)


# ---- in


def dense(value, dtype):
    """`value` as an array where that is plain to see, else None: it is wrong, or must be looked at leaf by leaf."""
    shape, level = [], [value]
    while True:
        kinds = set(map(type, level))
        if list not in kinds:
            break
        lengths = set(map(len, level)) if len(kinds) == 1 else ()
        if len(lengths) != 1:
            return None
        shape += lengths
        level = [item for items in level for item in items]
    found = _converted(level, kinds, dtype)
    return None if found is None else found.reshape(shape)


def _converted(leaves, kinds, dtype):
    try:
        if dtype in MANTISSA and kinds <= {int, float, Constant}:
            values = np.array(leaves, np.float64)
            largest = _largest_integer(dtype) if int in kinds else _largest(dtype)
            return None if (np.abs(values) > largest).any() else values.astype(dtype)
        if dtype in INTEGERS and kinds <= {int}:
            return np.array(leaves, dtype)
    except OverflowError:
        return None
    if dtype == "bool" and kinds <= {bool}:
        return np.array(leaves, bool)
    if dtype == "string" and kinds <= {str}:
        return _objects([utf8(leaf) for leaf in leaves])
    return None


def shape_of(value):
    """The shape that the first item at every level tells."""
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return shape


def fill(value, level, shape, dtype, leaves):
    """Appends the leaves of a nested list; RequestError where it has not the shape, or a leaf not the dtype."""
    if not isinstance(value, list):
        if level != len(shape):
            raise RequestError(
                f"JSON Value: {shown(value)} found at incorrect level: {level + 1} in the JSON DOM. Expected at level: "
                f"{len(shape)}"
            )
        leaves.append(_leaf(value, dtype))
        return
    if level >= len(shape):
        raise RequestError(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise RequestError(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    for item in value:
        fill(item, level + 1, shape, dtype, leaves)


def _leaf(value, dtype):
    """One JSON value as TF Serving takes it: 1 is a float, 1.0 is no integer, true is no number."""
    if dtype == "string":
        if isinstance(value, dict):
            found = binary(value)
            if found is None:
                raise error_of(value, "not formatted correctly for base64 data")
            return found
        if isinstance(value, str):
            return utf8(value)
    elif dtype == "bool":
        if isinstance(value, bool):
            return value
    elif dtype in INTEGERS:
        limits = np.iinfo(dtype)
        if type(value) is int and limits.min <= value <= limits.max:
            return value
    elif dtype in MANTISSA:
        if type(value) is int or isinstance(value, float):
            return lossless(value, dtype)
    elif not isinstance(value, dict):
        raise ServingError("UNIMPLEMENTED", f"Conversion of JSON Value: {shown(value)} to type: {type_name(dtype)}")
    raise error_of(value, f"Type: {kind_of(value)} is not of expected type: {type_name(dtype)}")


def lossless(value, dtype):
    """A number that a float holds. Integers beyond 64 bits are floats already, as for TF Serving's parser."""
    number = _as_double(value)
    if type(value) is int and -(2**63) <= value < 2**64:
        fits = abs(value) <= _largest_integer(dtype)
    else:
        fits = not np.isfinite(number) or abs(number) <= _largest(dtype)
    if not fits:
        raise RequestError(
            f"Cannot convert JSON value: {shown(value)} to {type_name(dtype)} without loss of precision."
        )
    return number


def _as_double(value):
    """A JSON number as a float; RequestError for digits that no float can hold, which are not the word Infinity."""
    try:
        number = float(value)
    except OverflowError:
        number = np.inf
    if np.isinf(number) and not isinstance(value, Constant):
        raise RequestError("JSON Parse error: Number too big to be stored in double.")
    return number


def _largest_integer(dtype):
    return 2 ** MANTISSA[dtype] - 1


def _largest(dtype):
    """The largest float64 that is rounded to a finite number; TF Serving refuses the last half step, float32's maximum
    in its shortest decimals."""
    return float(np.nextafter(2.0**128 - 2.0**103, 0)) if dtype == "float32" else float(np.finfo(dtype).max)


def packed(leaves, shape, dtype):
    """Checked leaves as an array."""
    if dtype == "string":
        return _objects(leaves).reshape(shape)
    return np.array(leaves, np.float64 if dtype in MANTISSA else dtype).astype(dtype).reshape(shape)


def _objects(leaves):
    values = np.empty(len(leaves), object)
    values[:] = leaves
    return values


def binary(value):
    """The bytes of {"b64": "..."}; None for any other value. Padding and white space are free, as in TF Serving."""
    if not is_binary(value):
        return None
    text = value["b64"]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        text = re.sub(r"\s", "", text)
        bare = text.rstrip("=.")
        padding = -len(bare) % 4
        try:
            if len(text) - len(bare) in (0, padding):
                return base64.b64decode(bare + "=" * padding, validate=True)
        except (binascii.Error, ValueError):
            pass
    raise RequestError("Unable to base64 decode")


def is_binary(value):
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def utf8(text):
    """A JSON string as bytes: those that came, even where they are no UTF-8."""
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        raise RequestError("JSON Parse error: The surrogate pair in string is invalid.") from None


# ---- out


def listed(name, output):
    """An array as nested lists: float32 in its shortest decimals, strings as text or base64."""
    if isinstance(output, bytes):
        output = np.array(output, object)
    output = np.asarray(output)
    if output.dtype == object:
        binary = name.endswith("_bytes")
        leaves = [
            {"b64": base64.b64encode(leaf).decode()} if binary else leaf.decode(errors="replace")
            for leaf in output.ravel()
        ]
        return _objects(leaves).reshape(output.shape).tolist()
    if output.dtype.name not in WRITABLE:
        raise RequestError(
            f"Failed to write JSON value for tensor type: {type_name(output.dtype.name)}; output {name!r}"
        )
    return (_shortest(output) if output.dtype == np.float32 else output).tolist()


def _shortest(values):
    """float32 -> the float64 with the fewest digits that is the same float32, for Python to write.

    A decimal of k digits is an integer over a power of ten, both exact in float64 while the power is below 10**22.
    """
    flat = values.ravel()
    if flat.size < FEW:
        return np.array([float(str(value)) for value in flat]).reshape(values.shape)
    with np.errstate(all="ignore"):
        found = flat.astype(np.float64)
        exponents = np.floor(np.log10(np.abs(found)))
        open_ones = np.isfinite(exponents)
        rest = np.flatnonzero(open_ones & (exponents >= -14) & (exponents <= 27))
        for digits in (6, 7, 8, 9):  # any decimal of 6 digits survives float32, 9 tell every float32 apart
            wide, powers = found[rest], digits - 1 - exponents[rest]
            scales = 10.0 ** np.abs(powers)
            short = np.where(powers >= 0, np.rint(wide * scales) / scales, np.rint(wide / scales) * scales)
            same = short.astype(np.float32) == flat[rest]
            found[rest[same]] = short[same]
            open_ones[rest[same]] = False
            rest = rest[~same]
    found[open_ones] = [float(str(value)) for value in flat[open_ones]]
    return found.reshape(values.shape)
