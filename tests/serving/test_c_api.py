"""The SavedModel holds no Python: TensorFlow's C library, which TF Serving is built on, loads and runs it alone."""

import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest

from tests.serving import c_api

INVALID_ARGUMENT = 3


def ask(version, requests):
    """[(signature, feed)] -> [(code, message, {output: array})] through the C library, in a process of its own."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved_model = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes())
    definitions = saved_model.meta_graphs[0].signature_def

    def endpoint(info):
        operation, index = info.name.split(":")
        return operation, int(index)

    lines = []
    for name, feed in requests:
        definition = definitions[name]
        inputs = {endpoint(definition.inputs[key]): array for key, array in feed.items()}
        lines.append((inputs, [endpoint(definition.outputs[key]) for key in sorted(definition.outputs)]))
    command = [sys.executable, str(pathlib.Path(c_api.__file__)), str(version)]
    process = subprocess.run(command, input=pickle.dumps(lines), capture_output=True, timeout=600)
    if process.returncode == c_api.NO_SUCH_SYMBOL:
        pytest.skip("this TensorFlow's library does not export TF_LoadSessionFromSavedModel")
    assert process.returncode == 0, process.stderr.decode()
    answers = pickle.loads(process.stdout)
    return [
        (code, message, dict(zip(sorted(definitions[name].outputs), arrays, strict=False)))
        for (name, _), (code, message, arrays) in zip(requests, answers, strict=True)
    ]


def test_the_c_library_answers_every_signature_and_outlives_requests_of_the_wrong_rank(exported):
    wrong = {"image": np.zeros((2, 8), np.float32)}
    requests = [("serving_default", wrong), ("draw", wrong), *exported.requests.items()]
    (code, message, _), (second_code, _, _), *answers = ask(exported.version, requests)
    assert code == second_code == INVALID_ARGUMENT
    assert "[2,8]" in message
    assert "[?,8,8,1]" in message
    for (name, feed), (code, message, outputs) in zip(exported.requests.items(), answers, strict=True):
        assert code == 0, message
        function, specs = exported.model.signatures()[name]
        expected = function(*[feed[spec.name] for spec in specs])
        assert outputs.keys() == expected.keys()
        for key, value in outputs.items():
            if value.dtype == object:
                assert value.tolist() == expected[key].numpy().tolist()
            else:
                np.testing.assert_allclose(value, expected[key], rtol=1e-5, atol=1e-6)
