"""TensorProto <-> array, as TF Serving reads and writes it (core/framework/tensor.cc: FromProto, AsProtoField).

A TensorProto carries its elements in `tensor_content` (raw, in the order of memory) or in the field of its dtype; of a
field that holds fewer than the shape the last is repeated. What a caller claims is checked before memory is taken.
"""

import math

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

from dmkeras.serving.errors import RequestError, ServingError

LARGEST_FILL = 16 << 20  # bytes that a tensor may grow to by repeating its last element
SHORT = 256  # elements that are written one by one
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
    values = array if stored == "object" else np.ascontiguousarray(array).view(stored)
    if stored == "object" or values.size <= SHORT:
        getattr(proto, field).extend(values.ravel().tolist())
        return
    # the field as it is on the wire, straight from the array: a list of as many numbers takes many times as long
    content = values.tobytes() if values.dtype.kind in "fb" else _varints(values)
    tag = tensor_pb2.TensorProto.DESCRIPTOR.fields_by_name[field].number << 3 | 2
    proto.MergeFromString(_varints([tag, len(content)]) + content)


def _from_content(name, content, dtype, numpy_dtype, count):
    if dtype == "string":
        raise _error(name, "strings are received in string_val, not in tensor_content")
    if len(content) != count * numpy_dtype.itemsize:
        raise _error(name, f"tensor_content holds {len(content)} bytes, expected {count * numpy_dtype.itemsize}")
    return np.frombuffer(content, np.uint8) != 0 if dtype == "bool" else np.frombuffer(content, numpy_dtype)


def _filled(name, values, count):
    if len(values) == count:
        return values
    if len(values) > count or count * values.dtype.itemsize > LARGEST_FILL:
        raise _error(name, f"received {len(values)} elements, its shape holds {count}")
    last = values[-1] if len(values) else (b"" if values.dtype == object else 0)
    filled = np.full(count, last, values.dtype)
    filled[: len(values)] = values
    return filled


def _varints(numbers):
    """Integers as they are on the wire: seven bits a byte, the eighth set in all bytes but an integer's last."""
    rest = np.ravel(numbers).astype(np.int64).view(np.uint64)
    columns = max(1, -(-int(rest.max(initial=0)).bit_length() // 7))
    content = np.empty((len(rest), columns), np.uint8)
    used = np.ones(content.shape, bool)
    for column in range(columns):
        content[:, column] = rest & 0x7F
        rest = rest >> 7
        content[:, column] |= (rest > 0) * np.uint8(0x80)
        used[:, column + 1 :] &= (rest > 0)[:, None]
    return content[used].tobytes()


def _error(name, reason):
    return RequestError(f"tensor parsing error: {name}: {reason}")
