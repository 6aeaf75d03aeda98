"""The access log: one JSON object a line for every request, whatever port it came by.

    {"time": "2026-01-31T12:00:00.123+00:00", "api": "REST", "peer": "127.0.0.1", "method": "predict", "model": "vae",
     "version": 2, "signature": "sample", "status": "OK", "bytes_in": 57, "bytes_out": 812, "seconds": 0.0013}
Names come from callers: JSON escapes them, and long ones are cut, so that nobody can forge a line or fill the disk.
"""

import datetime
import json
import threading

LONGEST = 200


class AccessLog:
    """Writes to a text stream; None writes nothing. A stream that fails, such as a full disk, fails no request."""

    def __init__(self, stream=None):
        self._stream = stream
        self._lock = threading.Lock()

    def write(self, **fields):
        if self._stream is None:
            return
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, **{name: _cut(value) for name, value in fields.items()}})
        try:
            with self._lock:
                self._stream.write(line + "\n")
                self._stream.flush()
        except (OSError, ValueError):  # ValueError: the stream was closed
            pass


def _cut(value):
    if isinstance(value, str) and len(value) > LONGEST:
        return value[:LONGEST] + "..."
    return round(value, 6) if isinstance(value, float) else value
