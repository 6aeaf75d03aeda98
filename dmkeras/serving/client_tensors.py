"""What a client sends: values as arrays of the dtypes and shapes that a server describes. No TensorFlow here."""

import numpy as np

from dmkeras.serving.errors import RequestError
from dmkeras.serving.feeds import fits
from dmkeras.serving.model_card import INIT, Tensor, sides

KINDS = {"b": "b", "i": "iu", "u": "iu", "f": "fiu"}  # of numbers that a dtype takes without a change of meaning


class MissingInputError(RequestError):
    """A request without an input that the signature takes."""


def check_complete(takes, given):
    """MissingInputError that names the first of the Tensors `takes` that is not among the names `given`."""
    for tensor in takes:
        if tensor.name not in given:
            raise MissingInputError(
                f"input {tensor.name!r} is missing, expected {tensor.dtype} {sides(tensor.shape)}"
            ) from None


def takes_files(signatures):
    """The name of a signature that takes encoded pictures, None where {signature: (inputs, outputs)} has none."""
    for name, (inputs, _) in signatures.items():
        if any(tensor.dtype == "string" and tensor.name.endswith("_bytes") for tensor in inputs):
            return name
    return None


def described(metadata):
    """Metadata in TF Serving's JSON -> {signature: ([Tensor] inputs, [Tensor] outputs)}, tensors by name."""
    definitions = metadata.get("metadata", {}).get("signature_def", {}).get("signature_def", {})
    return {
        name: (_tensors(definition.get("inputs", {})), _tensors(definition.get("outputs", {})))
        for name, definition in sorted(definitions.items())
        if name != INIT
    }


def as_array(value, tensor, files=None):
    """A value for an input as an array of its dtype and shape; RequestError where it would have to change.

    `files` is the name of a signature that takes encoded pictures, which is told to who sends one to another.
    """
    try:
        array = np.asarray(value, object if tensor.dtype == "string" else None)
    except ValueError:
        raise RequestError(f"input {tensor.name!r} is ragged, expected {tensor.dtype} {sides(tensor.shape)}") from None
    strings = tensor.dtype == "string"
    cast = _strings(array, tensor) if strings else _numbers(array, tensor, files)
    if not fits(array.shape, tensor.shape):
        batch = "; a single one is a batch of one: [value]" if array.ndim == len(tensor.shape) - 1 else ""
        raise RequestError(
            f"input {tensor.name!r} is {list(array.shape)}, expected {tensor.dtype} {sides(tensor.shape)}{batch}"
        )
    return cast


def _strings(array, tensor):
    leaves = [leaf.encode() if isinstance(leaf, str) else leaf for leaf in array.ravel()]
    for leaf in leaves:
        if not isinstance(leaf, bytes):
            raise RequestError(f"input {tensor.name!r} holds {type(leaf).__name__}, expected bytes or str")
    flat = np.empty(len(leaves), object)
    flat[:] = leaves
    return flat.reshape(array.shape)


def _numbers(array, tensor, files):
    try:
        dtype = np.dtype(tensor.dtype)
        takes = KINDS[dtype.kind]
    except (TypeError, KeyError):  # bfloat16 and other dtypes that NumPy lacks
        raise RequestError(f"input {tensor.name!r} is {tensor.dtype}, which cannot be sent from NumPy") from None
    if array.size and array.dtype.kind in "USO":
        raise RequestError(
            f"input {tensor.name!r} is {_kind(array)}, expected {tensor.dtype} {sides(tensor.shape)}"
            f"{_remedy(array, tensor, files)}"
        )
    if array.size and array.dtype.kind not in takes:
        raise RequestError(f"input {tensor.name!r} is {array.dtype.name}, expected {tensor.dtype}")
    if array.dtype == np.uint8 and dtype.kind == "f":
        raise RequestError(
            f"input {tensor.name!r} is uint8, expected {tensor.dtype}; a picture has values in [0, 1]: divide by 255"
        )
    cast = array.astype(dtype)
    if dtype.kind in "iu" and (cast != array).any():
        raise RequestError(f"input {tensor.name!r} holds a number beyond {tensor.dtype}")
    return cast


def _kind(array):
    """What an array that holds no numbers holds: str, bytes, NoneType, ..."""
    return {"U": "str", "S": "bytes"}.get(array.dtype.kind) or type(next(array.flat)).__name__


def _remedy(array, tensor, files):
    """What to do with the path or the content of a picture where its pixels are expected."""
    if array.dtype.kind == "O" or tensor.dtype != "float32" or (tensor.shape is not None and len(tensor.shape) < 3):
        return ""
    told = f"; the bytes of a file go to the signature {files!r}" if files else ""
    return f"; a picture goes in as a float32 array with values in [0, 1]{told}"


def _tensors(infos):
    return [Tensor(name, _dtype(info["dtype"]), _shape(info["tensor_shape"])) for name, info in sorted(infos.items())]


def _dtype(name):
    """DT_FLOAT -> float32."""
    plain = name.removeprefix("DT_").lower()
    return {"float": "float32", "double": "float64", "half": "float16"}.get(plain, plain)


def _shape(described):
    if described.get("unknown_rank"):
        return None
    sizes = [int(dim.get("size", 0)) for dim in described.get("dim", ())]
    return tuple(None if size < 0 else size for size in sizes)
