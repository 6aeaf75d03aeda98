"""The environment of TensorFlow, set before anything imports it; and seeds, so that a test does the same each time."""

import os
import random
import sys
import zlib

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # several workers share a GPU
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def sow(name):
    """Draws that have no seed of their own, weights among them, follow from a name."""
    seed = zlib.crc32(name.encode())
    random.seed(seed)
    np.random.seed(seed)
    if "tensorflow" in sys.modules:
        sys.modules["tensorflow"].random.set_seed(seed)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef, request):
    """A shared fixture is the same whichever test asks for it first, and on whichever worker."""
    sow(f"{fixturedef.baseid}::{fixturedef.argname}{getattr(request, 'param_index', '')}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    sow(item.nodeid)
