"""Who may come in: how many requests at a time, over both ports together, and from where."""

import contextlib
import threading

from dmkeras.serving.errors import ServingError

LOOPBACK = ("127.0.0.1", "localhost", "::1")  # addresses that this machine alone reaches


class Gate:
    """Lets at most `limit` requests in at a time; None lets in all of them."""

    def __init__(self, limit=None):
        self._limit = limit
        self._in_flight = 0
        self._changed = threading.Condition()

    @property
    def in_flight(self):
        return self._in_flight

    @contextlib.contextmanager
    def enter(self):
        """Holds a place for one request; RESOURCE_EXHAUSTED at once where there is none."""
        with self._changed:
            if self._limit is not None and self._in_flight >= self._limit:
                raise ServingError(
                    "RESOURCE_EXHAUSTED", f"the server is at its limit of {self._limit} requests in flight; try again"
                )
            self._in_flight += 1
        try:
            yield
        finally:
            with self._changed:
                self._in_flight -= 1
                self._changed.notify_all()

    def wait_idle(self, seconds):
        """Waits until no request is in flight; returns whether that came to pass in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._in_flight, seconds)
