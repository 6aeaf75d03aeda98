"""The Keras layers below a model, and what they answer while the model is asked: of any model, however it is written.

A layer's `call` is replaced for the time of one look, of this one layer alone.
"""

import contextlib


def layers_below(classifier):
    """{name: layer} of all Keras layers below a model; those that share a name go by their path."""
    layers = [layer for layer in classifier._flatten_layers(include_self=False) if layer is not classifier]
    names = [layer.name for layer in layers]
    return {layer.name if names.count(layer.name) == 1 else layer.path: layer for layer in layers}


class EnoughSeen(BaseException):
    """Leaves a model's call; no Exception, since Keras writes to these."""


@contextlib.contextmanager
def watched(layer, enough):
    """Yields a list that gathers what the layer answers; the model's call ends once that is `enough`."""
    call, calls = layer.call, []

    def watching(*args, **kwargs):
        calls.append(call(*args, **kwargs))
        if enough():
            raise EnoughSeen
        return calls[-1]

    layer.call = watching  # of this one layer; its class keeps its own
    try:
        yield calls
    finally:
        del layer.call


@contextlib.contextmanager
def open_sizes(classifier):
    """Functional models, which are made for one size, take pictures of others."""
    parts = [classifier, *classifier._flatten_layers(include_self=False)]
    made_for_one = [part for part in parts if isinstance(getattr(type(part), "input_spec", None), property)]
    specs = [part.input_spec for part in made_for_one]
    for part in made_for_one:
        part.input_spec = None
    try:
        yield
    finally:
        for part, spec in zip(made_for_one, specs):
            part.input_spec = spec
