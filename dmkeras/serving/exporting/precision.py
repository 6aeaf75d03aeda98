"""Signatures that compute in bfloat16 or float16 and still take and answer float32.

They are those of a twin: the model rebuilt from its configuration under Keras's policy `mixed_bfloat16` or
`mixed_float16`, with the same float32 weights. A layer that its class pins to float32 stays there. Signatures that
answer likelihoods (a unit of nats or bits, see `model_card.UNITS`) keep the model's own precision: a sum over pixels
would be off by whole nats.
"""

import typing

import keras
import tensorflow as tf

from dmkeras.serving import model_card
from dmkeras.serving.exporting import comparison, graph_rules

POLICIES = {"bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
TOLERANCE = {"bfloat16": 2**-4, "float16": 2**-7}  # 16 roundings; of a mean, so that a rare flip of a draw fits


class Lower(typing.NamedTuple):
    """A model's signatures, those of likelihoods its own and the others its twin's."""

    compute: str
    twin: keras.Model
    signatures: dict
    answers: dict  # {name of a signature of the twin: (request of three rows, the model's own answer)}

    @property
    def tolerance(self):
        return TOLERANCE[self.compute]

    def differences(self, served):
        """{signature: {output: how far it is from the model's own answer}}; ValueError if it is too far."""
        return {name: self._differences(name, served.run(name, request)) for name, (request, _) in self.answers.items()}

    def _differences(self, name, answer):
        _, expected = self.answers[name]
        found = {key: comparison.difference(expected[key], value) for key, value in answer.items()}
        for key, value in answer.items():
            if value.dtype.kind == "f" and not found[key] <= self.tolerance:
                remedy = (
                    "choose bfloat16, which has the range of float32" if self.compute == "float16" else "leave it out"
                )
                raise ValueError(
                    f"export: signature {name!r} with compute={self.compute!r} answers {key!r} {found[key]:.1%} away "
                    f"from the model's own, expected at most {self.tolerance:.1%}; {remedy}"
                )
        return found


def lower(model, signatures, feeds, compute):
    """The signatures {name: (function, [tf.TensorSpec])} of a model in the precision `compute`, as `Lower`.

    `feeds` are example requests by signature, which tell the outputs' names and how far answers move. Raises TypeError
    for a model that its configuration does not rebuild.
    """
    twin = _twin(model, compute)
    twins = graph_rules.signatures_of(twin)
    signatures, answers = dict(signatures), {}
    for name, (function, specs) in signatures.items():
        request = comparison.rows(feeds[name], range(3))
        with comparison.hint(name):
            answer = comparison.local(function, specs, request)
        if not any(_is_likelihood(output) for output in answer):
            signatures[name] = _float32(twins[name][0]), specs
            answers[name] = request, answer
    return Lower(compute, twin, signatures, answers)


def _twin(model, compute):
    policy, before = POLICIES[compute], keras.config.dtype_policy()
    try:
        config = _under(policy, model.get_config())
    except NotImplementedError:
        raise TypeError(
            f"export: compute={compute!r} rebuilds the model, and {type(model).__name__} has no get_config()"
        ) from None
    keras.config.set_dtype_policy(policy)  # of the layers that __init__ makes
    try:
        twin = type(model).from_config(config)
    finally:
        keras.config.set_dtype_policy(before)
    twin.set_weights(model.get_weights())
    return twin


def _under(policy, config):
    """A configuration with every dtype policy in it replaced, wherever it is nested."""
    if isinstance(config, dict) and config.get("class_name") == "DTypePolicy":
        return keras.dtype_policies.serialize(keras.dtype_policies.get(policy))
    if isinstance(config, dict):
        return {key: _under(policy, value) for key, value in config.items()}
    return [_under(policy, value) for value in config] if isinstance(config, list) else config


def _is_likelihood(output):
    return (model_card.unit(output) or "").split(" ")[0] in ("nats", "bits")


def _float32(function):
    """`function` with outputs of half precision cast to float32."""

    def answer(*tensors):
        outputs = function(*tensors)
        half = (tf.bfloat16, tf.float16)
        return {
            name: tf.cast(tensor, tf.float32) if tensor.dtype in half else tensor for name, tensor in outputs.items()
        }

    return answer
