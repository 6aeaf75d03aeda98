"""What TensorFlow raises, in words for callers: a code, a reason, no graph nodes, no files."""

import re

import tensorflow as tf
from tensorflow.core.protobuf import error_codes_pb2

from dmkeras.serving.errors import RequestError, ServingError
from dmkeras.serving.folders import DamagedError

# What stands around an error's own words: nodes, the node before a reason, source files, devices.
PLACES = re.compile(
    r"\{\{.*?\}\}|\[\[.*?\]\]| \([\w./-]+:\d+\)(?= = )"
    r"|(?:,? in file | at )?(?<![\w./-])[\w./-]+\.(?:cc|cpp|cu|h|py):\d+"
    r"| on /job:\S+| by allocator \w+"
)
HEADINGS = re.compile(r'Graph execution error:|Detected at .*|File ".*|<stack .*>')


class LoadError(DamagedError):
    """A version that cannot be loaded: `code` names a gRPC status, `message` no paths; str(error) has the folder."""

    def __init__(self, folder, code, message):
        super().__init__(f"{folder} cannot be loaded: {message}")
        self.code, self.message = code, message


def serving_error(error, folder, otherwise="INTERNAL"):
    """An error as a ServingError whose message names neither graph nodes nor paths.

    Args:
        error: what was raised; TensorFlow's own errors have a code.
        folder: the version's, whose name goes from the message.
        otherwise: the code of an error that has none.
    """
    if isinstance(error, ServingError):
        return error
    if isinstance(error, LoadError):
        return ServingError(error.code, error.message)
    code = otherwise
    if isinstance(error, tf.errors.OpError):
        code = error_codes_pb2.Code.Name(error.error_code) if error.error_code else "UNKNOWN"
    elif re.search("does not exist|could not be found", str(error)):  # the loader's words, in a plain OSError
        code = "NOT_FOUND"
    text = str(getattr(error, "message", None) or error)
    if isinstance(error, UnicodeDecodeError):  # of an error's own text, which quotes what a caller sent
        text = error.object.decode(errors="replace")
    message = _first_line(text) or type(error).__name__
    message = message.replace(f"{folder}/", "").replace(str(folder), "the version")
    message = re.sub(r"(?<![\w.:/])/[^\s'\"/]+/[^\s'\",;]*", "a file", message)
    return RequestError(message) if code == "INVALID_ARGUMENT" else ServingError(code, message)


def _first_line(message):
    """An error's own words: without graph nodes, and of several errors the first."""
    lines = [line.strip() for line in PLACES.sub("", message).splitlines() if line.strip()]
    lines = [line for line in lines if not HEADINGS.fullmatch(line)] or lines
    if lines and re.fullmatch(r"\d+ root error\(s\) found\.", lines[0]):
        lines = [re.sub(r"^\(\d+\) [\w ]+: ", "", lines[1])] if len(lines) > 1 else lines
    return lines[0] if lines else ""
