"""Every signature refuses what it cannot take, by name, and answers on. `tests/test_contract.py` asks all systems."""

import numpy as np
import pytest

from dmkeras.serving import feeds
from tests.serving import refusals


def test_every_signature_refuses_tensors_of_another_rank_dtype_or_size_and_answers_on(exported):
    refusals.check(exported.version)


def test_the_check_catches_a_server_that_leaves_it_to_the_graph(exported, monkeypatch):
    def unchecked(_, inputs, feed, *__):
        return [np.asarray(feed[tensor.name]) for tensor in inputs]

    monkeypatch.setattr(feeds, "arrays", unchecked)
    with pytest.raises(AssertionError, match=r"the error does not name the tensor|: OK "):
        refusals.check(exported.version)
