"""Runs a SavedModel through TensorFlow's C library, as TF Serving loads it, in a process without TensorFlow's Python.

    python c_api.py SAVED_MODEL < requests > answers

requests: pickle of [({(operation, index): array}, [(operation, index), ...]), ...]; answers: pickle of
[(code, message, arrays), ...], code 0 for success.
"""

import ctypes
import importlib.util
import pathlib
import pickle
import sys
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_ubyte, c_void_p

import numpy as np

NO_SUCH_SYMBOL = 77  # exit status
NUMPY = {1: np.float32, 3: np.int32, 4: np.uint8, 7: object, 9: np.int64, 10: np.bool_}  # TF_DataType
TSTRING_SIZE = 24


class Output(ctypes.Structure):
    _fields_ = (("operation", c_void_p), ("index", c_int))


def library():
    """The wheel's library, found without importing the package, with the types of the functions used here."""
    (folder,) = importlib.util.find_spec("tensorflow").submodule_search_locations
    (path,) = pathlib.Path(folder).glob("libtensorflow_cc.*")
    loaded = ctypes.CDLL(str(path))
    pointers = "TF_NewStatus TF_NewGraph TF_NewSessionOptions TF_LoadSessionFromSavedModel TF_GraphOperationByName"
    for name in [*pointers.split(), "TF_AllocateTensor", "TF_TensorData", "TF_StringGetDataPointer"]:
        getattr(loaded, name).restype = c_void_p
    for name in ("TF_Dim", "TF_TensorByteSize", "TF_StringGetSize"):
        getattr(loaded, name).restype = c_int64
    loaded.TF_Message.restype = c_char_p
    return loaded


class Model:
    def __init__(self, folder):
        self.tf = library()
        self.status = c_void_p(self.tf.TF_NewStatus())
        self.graph = c_void_p(self.tf.TF_NewGraph())
        options, tags = c_void_p(self.tf.TF_NewSessionOptions()), (c_char_p * 1)(b"serve")
        self.session = c_void_p(
            self.tf.TF_LoadSessionFromSavedModel(options, None, folder.encode(), tags, 1, self.graph, None, self.status)
        )
        if self.tf.TF_GetCode(self.status):
            raise RuntimeError(self.tf.TF_Message(self.status).decode())

    def run(self, feed, fetch):
        inputs = (Output * len(feed))(*[self.output(*key) for key in feed])
        values = (c_void_p * len(feed))(*[self.tensor(array) for array in feed.values()])
        outputs = (Output * len(fetch))(*[self.output(*key) for key in fetch])
        answers = (c_void_p * len(fetch))()
        ends = (inputs, values, len(feed), outputs, answers, len(fetch))
        self.tf.TF_SessionRun(self.session, None, *ends, None, 0, None, self.status)
        code = self.tf.TF_GetCode(self.status)
        return (
            code,
            self.tf.TF_Message(self.status).decode(),
            [] if code else [self.array(c_void_p(a)) for a in answers],
        )

    def output(self, operation, index):
        return Output(self.tf.TF_GraphOperationByName(self.graph, operation.encode()), index)

    def tensor(self, array):
        kind = next(number for number, dtype in NUMPY.items() if array.dtype == dtype)
        sides = (c_int64 * array.ndim)(*array.shape)
        size = array.size * TSTRING_SIZE if kind == 7 else array.nbytes
        tensor = self.tf.TF_AllocateTensor(kind, sides, array.ndim, c_size_t(size))
        data = self.tf.TF_TensorData(c_void_p(tensor))
        if kind != 7:
            ctypes.memmove(data, np.ascontiguousarray(array).ctypes.data, array.nbytes)
            return tensor
        for index, content in enumerate(array.ravel()):
            self.tf.TF_StringInit(c_void_p(data + index * TSTRING_SIZE))
            self.tf.TF_StringCopy(c_void_p(data + index * TSTRING_SIZE), content, c_size_t(len(content)))
        return tensor

    def array(self, tensor):
        kind = self.tf.TF_TensorType(tensor)
        shape = [self.tf.TF_Dim(tensor, axis) for axis in range(self.tf.TF_NumDims(tensor))]
        data, size = self.tf.TF_TensorData(tensor), self.tf.TF_TensorByteSize(tensor)
        if kind != 7:
            return np.frombuffer(bytes(ctypes.cast(data, POINTER(c_ubyte * size)).contents), NUMPY[kind]).reshape(shape)
        texts = np.empty(int(np.prod(shape)), object)
        for index in range(len(texts)):
            string = c_void_p(data + index * TSTRING_SIZE)
            texts[index] = ctypes.string_at(
                c_void_p(self.tf.TF_StringGetDataPointer(string)), self.tf.TF_StringGetSize(string)
            )
        return texts.reshape(shape)


def main():
    try:
        model = Model(sys.argv[1])
    except AttributeError:  # ctypes: undefined symbol
        sys.exit(NO_SUCH_SYMBOL)
    answers = [model.run(feed, fetch) for feed, fetch in pickle.load(sys.stdin.buffer)]
    python = [name for name in sys.modules if name.split(".")[0] in ("tensorflow", "keras", "dmkeras")]
    assert not python, python
    sys.stdout.buffer.write(pickle.dumps(answers))


if __name__ == "__main__":
    main()
