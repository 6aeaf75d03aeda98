"""TensorProto <-> array, as TF Serving reads and writes it (core/framework/tensor.cc: FromProto, AsProtoField).

A TensorProto carries its elements in `tensor_content` (raw, in the order of memory) or in the field of its dtype; of a
field that holds fewer than the shape the last is repeated. What a caller claims is checked before memory is taken.
"""

import math

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2

from dmkeras.serving.errors import RequestError, ServingError

LARGEST_FILL = 16 << 20  # bytes that a tensor may grow to by repeating its last element
FIELDS = {  # dtype -> field of TensorProto, dtype of what it holds
    "float32": ("float_val", "float32"),
    "float64": ("double_val", "float64"),
    "complex64": ("scomplex_val", "float32"),  # real, imaginary
    "complex128": ("dcomplex_val", "float64"),
    "float16": ("half_val", "uint16"),  # the bits of each
    "bfloat16": ("half_val", "uint16"),
    "int64": ("int64_val", "int64"),
    "uint32": ("uint32_val", "uint32"),
    "uint64": ("uint64_val", "uint64"),
    "bool": ("bool_val", "bool"),
    "string": ("string_val", "object"),
    **{name: ("int_val", name) for name in ("int8", "int16", "int32", "uint8", "uint16")},
}
TYPES = {  # a DataType as TensorFlow's messages name it: 1: "float", 19: "half"
    number: name.removeprefix("DT_").lower() for name, number in types_pb2.DataType.items() if name != "DT_INVALID"
}
PACKED = {"float_val": b"\x2a", "double_val": b"\x32", "scomplex_val": b"\x4a", "dcomplex_val": b"\x62"}  # their tags


def to_array(name, proto):
    """The input `name` as an array; RequestError where the proto contradicts itself or claims too much."""
    try:
        dtype = tf.as_dtype(proto.dtype)
        field, stored = FIELDS[dtype.name]
    except (TypeError, KeyError):
        raise _error(name, f"{TYPES.get(proto.dtype, proto.dtype)} is no dtype of a tensor that can be sent") from None
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if proto.tensor_shape.unknown_rank or any(side < 0 for side in shape):
        raise _error(name, f"shape {list(shape)} has unknown or negative sides")
    numpy_dtype, count = np.dtype(dtype.as_numpy_dtype), math.prod(shape)
    try:
        if proto.tensor_content:
            return _from_content(name, proto.tensor_content, dtype.name, numpy_dtype, count).reshape(shape)
        values = np.array(getattr(proto, field), stored)
        return _filled(name, values.view(numpy_dtype), count).reshape(shape)
    except (ValueError, OverflowError) as error:  # more dimensions than arrays have, a number beyond the dtype
        if isinstance(error, ServingError):
            raise
        raise _error(name, f"{dtype.name} {list(shape)}: {error}") from None


def fill(proto, array):
    """Writes an array or scalar of a session into an empty TensorProto, in the field of its dtype."""
    array = np.array(array, object) if isinstance(array, bytes | str) else np.asarray(array)
    dtype = tf.as_dtype(array.dtype)
    if dtype.name not in FIELDS:
        raise ServingError("UNIMPLEMENTED", f"an output is {dtype.name}, which cannot be sent")
    field, stored = FIELDS[dtype.name]
    proto.dtype = dtype.as_datatype_enum
    for side in array.shape:
        proto.tensor_shape.dim.add(size=side)
    if field in PACKED:  # on the wire these are the array's own bytes: a hundred times faster than a list of numbers
        content = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        proto.MergeFromString(PACKED[field] + _varint(len(content)) + content)
    else:
        values = array if stored == "object" else np.ascontiguousarray(array).view(stored)
        getattr(proto, field).extend(values.ravel().tolist())


def _from_content(name, content, dtype, numpy_dtype, count):
    if dtype == "string":
        raise _error(name, "strings are received in string_val, not in tensor_content")
    if len(content) != count * numpy_dtype.itemsize:
        raise _error(name, f"tensor_content holds {len(content)} bytes, expected {count * numpy_dtype.itemsize}")
    return np.frombuffer(content, np.uint8) != 0 if dtype == "bool" else np.frombuffer(content, numpy_dtype)


def _filled(name, values, count):
    if len(values) == count:
        return values
    if len(values) > count:
        raise _error(name, f"received {len(values)} elements, its shape holds {count}")
    if count * values.dtype.itemsize > LARGEST_FILL:
        raise _error(name, f"received {len(values)} elements, its shape holds {count}")
    last = values[-1] if len(values) else (b"" if values.dtype == object else 0)
    filled = np.full(count, last, values.dtype)
    filled[: len(values)] = values
    return filled


def _varint(number):
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _error(name, reason):
    return RequestError(f"tensor parsing error: {name}: {reason}")
