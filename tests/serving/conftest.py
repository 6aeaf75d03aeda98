"""One exported model for the tests that only read it."""

import types

import numpy as np
import pytest


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """.model, .base (saved_models), .version (the exported folder), .requests {signature: feed of three rows}."""
    import tensorflow as tf

    from dmkeras.serving.export import export
    from tests.serving.models import LABELS, SHAPE, Encoder

    model = Encoder()
    base = tmp_path_factory.mktemp("saved_models")
    version = export(model, base / "encoder", labels=LABELS)
    image = np.random.default_rng(7).random((3, *SHAPE), np.float32)
    encoded = [tf.io.encode_png(tf.cast(255 * pixels, tf.uint8)).numpy() for pixels in image]
    requests = {
        "serving_default": {"image": image},
        "classify_bytes": {"image_bytes": np.array(encoded, object)},
        "sample": {
            "seed": np.array([[1, 2], [3, 4], [5, 6]], np.int32),
            "temperature": np.array([1, 0.5, 2], np.float32),
        },
        "draw": {"image": image},
    }
    return types.SimpleNamespace(model=model, base=base, version=version, requests=requests)


@pytest.fixture(scope="session")
def served(exported):
    """The exported version, loaded."""
    from dmkeras.serving import runtime

    with runtime.Loaded(exported.version) as loaded:
        yield loaded
