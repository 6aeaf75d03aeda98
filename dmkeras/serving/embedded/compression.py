"""gzip in and out, each within a limit."""

import zlib

from dmkeras.serving.errors import RequestError, TooLargeError

GZIP = 31  # zlib's window bits for gzip with its header
WORTHWHILE = 16 << 10  # bytes; below, compression costs a caller nearby more than it saves


def inflate(body, limit):
    """The content of a gzip; stops at `limit` bytes, however much more there would be."""
    unpacker = zlib.decompressobj(GZIP)
    try:
        content = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise RequestError(f"JSON Parse error: The document is empty; its gzip is damaged: {error}") from None
    if len(content) > limit:
        raise TooLargeError(f"the body is longer than {limit} bytes once it is decompressed")
    if not unpacker.eof:
        raise RequestError("JSON Parse error: The document is empty; its gzip is cut short")
    return content


def deflate(body):
    """A gzip of `body`, at the level that is quickest."""
    packer = zlib.compressobj(1, zlib.DEFLATED, GZIP)
    return packer.compress(body) + packer.flush()
