"""What a signature may be fed: checks before TensorFlow sees a request. No TensorFlow here.

A request of the wrong rank can abort the whole process (oneDNN's convolutions), so that no request goes in unchecked.
"""

import numpy as np

from dmkeras.serving.errors import RequestError
from dmkeras.serving.model_card import sides


def arrays(signature, inputs, feed, defaults=()):
    """The arrays of a feed {name: array} in the order of the inputs, as TensorFlow's C API takes them.

    Args:
        signature: its name, for messages.
        inputs: its Tensors.
        feed: what came.
        defaults: names of inputs that may be one row for all.

    Raises:
        RequestError: for names, a dtype, a shape or batches that the signature cannot take.
    """
    wanted = [tensor.name for tensor in inputs]
    if set(feed) != set(wanted):
        raise RequestError(f"{signature}: received inputs {sorted(feed)}, expected {wanted}")
    found = []
    for name, dtype, shape in inputs:
        array = np.asarray(feed[name])
        received = _dtype(array)
        if received != dtype or not fits(array.shape, shape):
            raise RequestError(
                f"{signature}: input {name!r} is {received} {list(array.shape)}, expected {dtype} {sides(shape)}"
            )
        found.append(_plain(array))
    if is_batch_first(inputs):
        sizes = {name: len(array) for name, array in zip(wanted, found) if name not in defaults}
        if len(set(sizes.values())) > 1:
            raise RequestError(f"{signature}: received batches of {sizes} rows, expected one size")
    return found


def is_batch_first(tensors):
    """Whether dimension 0 of every Tensor is a batch of any size."""
    return bool(tensors) and all(tensor.shape and tensor.shape[0] is None for tensor in tensors)


def _dtype(array):
    """The name of an array's dtype; texts and bytes are strings, in whatever form NumPy holds them."""
    if array.dtype.kind == "O":
        return "string" if all(isinstance(value, bytes | str) for value in array.flat) else "object"
    return "string" if array.dtype.kind in "SU" else array.dtype.name


def fits(received, shape):
    """Whether an array's shape is one of a Tensor's; None stands for any shape, and in it for any size."""
    return shape is None or (
        len(received) == len(shape) and all(side is None or side == size for side, size in zip(shape, received))
    )


def _plain(array):
    """An array in the form that TensorFlow's C API takes: this machine's byte order, strings as bytes."""
    if array.dtype.kind == "U":
        return np.char.encode(array, "utf-8").astype(object)
    if array.dtype.kind == "S":
        return array.astype(object)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
