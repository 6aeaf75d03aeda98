"""Tensors that no signature may take, sent to every signature of an exported system, over both protocols."""

import base64
import json

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from dmkeras.serving import warm_up
from dmkeras.serving.embedded import inference, rest_api
from dmkeras.serving.embedded.model_config import ModelConfig
from dmkeras.serving.embedded.servables import Servables
from dmkeras.serving.errors import ServingError


def check(version):
    """Fails unless a version, BASE/NAME/VERSION, refuses every spoiled input by its name and answers right after."""
    name = version.parent.name
    servables = Servables([ModelConfig(name, version.parent)], warm_up=False)
    servables.start()
    try:
        with servables.use(name) as servable:
            signatures = dict(servable.loaded.signatures)
        for signature, (inputs, *_) in signatures.items():
            specs = [tf.TensorSpec(tensor.shape, tensor.dtype, tensor.name) for tensor in inputs]
            feed = warm_up.example_feed(specs, range(2))
            if signature == "classify":  # the export's own, of tf.Examples: the version's warm-up holds a sound one
                (sound,) = (request for kept, request in warm_up.read(version / warm_up.FILE) if kept == signature)
                feed = {key: np.repeat(array, 2, axis=0) for key, array in sound.items()}
            fixed = {tensor.name for tensor in inputs if tensor.shape[-1] is not None}
            for key, spoiled in _spoiled(feed, fixed):
                for ask in (_rest, _grpc):
                    code, text = ask(servables, name, signature, feed | {key: spoiled})
                    sent = f"{signature}: {key} as {spoiled.dtype} {list(spoiled.shape)}"
                    assert code == "INVALID_ARGUMENT", f"{sent}: {code} {text}"
                    assert key in text, f"{sent}: the error does not name the tensor: {text}"
            nothing = {key: array[:0] for key, array in feed.items()}
            assert _grpc(servables, name, signature, nothing)[0] in ("OK", "INVALID_ARGUMENT"), f"{signature}: no rows"
            for ask in (_rest, _grpc):
                code, text = ask(servables, name, signature, feed)
                assert code == "OK", f"{signature}: after all that, a sound request gets {code} {text}"
    finally:
        servables.stop()


def _spoiled(feed, fixed):
    """(input, array): each input of a feed of two rows with another rank, side, dtype or number of rows.

    fixed: the inputs whose last side is given.
    """
    for key, array in feed.items():
        yield key, array[:1].reshape(array.shape[1:])
        yield key, array[..., None]
        yield key, array.ravel()[:1].reshape(())
        yield key, np.ones(array.shape) if array.dtype == object else np.full(array.shape, b"a", object)
        if array.ndim > 1:
            yield key, array[:0, 0]
        if key in fixed:
            yield key, np.concatenate([array, array], -1)
        if len(feed) > 1:
            yield key, np.concatenate([array, array])
            yield key, array[:0]


def _rest(servables, name, signature, feed):
    body = {"signature_name": signature, "inputs": {key: _json(array) for key, array in feed.items()}}
    answer = rest_api.handle("POST", f"/v1/models/{name}:predict", json.dumps(body).encode(), servables)
    return answer.names.code, answer.body.decode(errors="replace")


def _json(array):
    if array.dtype != object:
        return array.tolist()
    nested = np.empty(array.shape, object)
    nested[...] = np.vectorize(lambda text: {"b64": base64.b64encode(text or b"").decode()}, otypes=[object])(array)
    return nested.tolist()


def _grpc(servables, name, signature, feed):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = name, signature
    for key, array in feed.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(array))
    try:
        inference.predict(servables, request)
    except ServingError as error:
        return error.code, str(error)
    return "OK", ""
