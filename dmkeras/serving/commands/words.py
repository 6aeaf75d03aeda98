"""Errors in the words of the command line: flags where the library names its arguments, files without errno."""

from dmkeras.serving.client_tensors import MissingInputError
from dmkeras.serving.errors import ServingError

FLAGS = {"`ca`": "--ca", "`token`": "token (--token or DMKERAS_TOKEN)", "`label`": "--label"}


def said(error):
    """An error as one line."""
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{error.filename}: {error.strerror}"
    for argument, flag in FLAGS.items():
        text = text.replace(argument, flag)
    if isinstance(error, MissingInputError):
        text += "; send it by --image FILE or --json"
    if isinstance(error, ServingError) and error.code == "UNAUTHENTICATED" and "DMKERAS_TOKEN" not in text:
        text += "; a token is given by --token or DMKERAS_TOKEN"
    return " ".join(text.split())
