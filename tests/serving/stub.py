"""A `Servables` without TensorFlow's models: its signatures are Python functions."""

import contextlib
import types

import numpy as np

from dmkeras.serving.errors import ServingError
from dmkeras.serving.model_card import Tensor

X = [Tensor("x", "float32", (None,))]


class Stub:
    """The model `m`, version 3, whose signatures are {name: function of {input: array}}, each with one input x [B]."""

    def __init__(self, **functions):
        self.functions = {"serving_default": lambda feed: {"y": 2 * feed["x"]}, **functions}
        signature = types.SimpleNamespace(inputs=X, outputs=[Tensor("y", "float32", (None,))])
        signatures = dict.fromkeys(self.functions, signature)
        self.loaded = types.SimpleNamespace(signatures=signatures, run=self._run, definitions={}, defaults={})
        self.is_ready, self.users = True, 0

    def _run(self, name, feed, *, outputs=None, timeout=None):
        return self.functions[name](feed)

    @contextlib.contextmanager
    def use(self, name, version=None, label=None):
        if name != "m" or label is not None or version not in (None, 3):
            wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise ServingError("NOT_FOUND", f"Servable not found for request: {wanted}")
        self.users += 1
        yield types.SimpleNamespace(name="m", version=3, loaded=self.loaded)
        self.users -= 1

    def status(self, name, version=None, label=None):
        if name != "m":
            raise ServingError("NOT_FOUND", f"Could not find any versions of model {name}")
        return [types.SimpleNamespace(version=3, state="AVAILABLE", code="OK", message="")]

    def names(self):
        return ["m"]

    def ready(self):
        return self.is_ready


def raising(error):
    def function(feed):
        raise error

    return function


def big(feed):
    """Numbers, as many as the first of x tells."""
    return {"y": np.arange(int(feed["x"][0]), dtype=np.int32)}
