"""Callers that share a run: each gets the answer that he would have got alone."""

import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from dmkeras.serving import batching, runtime
from dmkeras.serving.batching import Batching
from dmkeras.serving.errors import RequestError, ServingError
from tests.serving import multi

LONG = Batching(max_batch_size=8, timeout_micros=200_000, threads=1, sizes=(2, 8))  # callers at one time meet


class Sizes(tf.Module):
    """Signatures that show with how many rows they ran."""

    def rows(self, x):
        return {"rows": tf.fill([tf.shape(x)[0]], tf.shape(x)[0]), "x": tf.identity(x)}

    def open_sides(self, pictures):
        return {"rows": tf.fill([tf.shape(pictures)[0]], tf.shape(pictures)[0])}

    def untouched(self, x):
        return {"x": tf.identity(x)}

    def save(self, folder):
        x = tf.TensorSpec([None, 2], tf.float32, name="x")
        pictures = tf.TensorSpec([None, None, 1], tf.float32, name="pictures")
        function = lambda python, spec: tf.function(python, input_signature=[spec], autograph=False)
        signatures = {"rows": function(self.rows, x), "open_sides": function(self.open_sides, pictures)}
        tf.saved_model.save(self, str(folder), signatures=signatures)
        return folder


@pytest.fixture(scope="module")
def sizes(tmp_path_factory):
    with runtime.Loaded(Sizes().save(tmp_path_factory.mktemp("sizes") / "1"), batching=LONG) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = multi.write(tmp_path_factory.mktemp("batching"), versions=(1,)) / "1"
    with runtime.Loaded(folder, batching=LONG) as loaded:
        yield loaded


def at_once(*calls):
    """What each call answers or raises, when all are made at one time."""
    answers = [None] * len(calls)
    gate = threading.Barrier(len(calls))

    def call(index):
        gate.wait()
        try:
            answers[index] = calls[index]()
        except ServingError as error:
            answers[index] = error

    threads = [threading.Thread(target=call, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_callers_share_a_run_and_each_gets_his_own_rows(sizes):
    feeds = [np.full((rows, 2), rows, np.float32) for rows in (1, 2, 3)]
    answers = at_once(*[lambda feed=feed: sizes.run("rows", {"x": feed}) for feed in feeds])
    assert {int(rows) for answer in answers for rows in answer["rows"]} == {8}  # six, and two of padding
    for feed, answer in zip(feeds, answers, strict=True):
        assert answer["x"].tolist() == feed.tolist()


def test_no_answer_goes_to_another_caller_or_signature(loaded):
    names = [f"echo_{dtype}" for dtype in multi.ECHOES if dtype not in ("string", "bool")]

    def ask(seed):
        random = np.random.default_rng(seed)
        for _ in range(4):
            name = random.choice(names)
            x = random.integers(0, 100, random.integers(1, 4)).astype(loaded.signatures[name].inputs[0].dtype)
            y = loaded.run(name, {"x": x}, timeout=30)["y"]
            assert y.dtype == x.dtype
            assert y.tolist() == x.tolist()
        return True

    assert all(at_once(*[lambda seed=seed: ask(seed) for seed in range(12)]))


def test_a_request_beyond_the_largest_batch_is_refused_as_tf_serving_does(sizes):
    with pytest.raises(RequestError, match=r"^Task size 9 is larger than maximum input batch size 8$"):
        sizes.run("rows", {"x": np.ones((9, 2), np.float32)})


def test_no_rows_are_answered_by_none(sizes):
    assert sizes.run("rows", {"x": np.ones((0, 2), np.float32)})["x"].shape == (0, 2)


def test_rows_that_fail_fail_for_their_caller_alone(loaded):
    png = tf.io.encode_png(np.zeros((3, 4, 3), np.uint8)).numpy()
    ask = lambda content: loaded.run("decode", {"image_bytes": np.array([content], object)})
    good, bad, other = at_once(lambda: ask(png), lambda: ask(b"junk"), lambda: ask(png))
    assert isinstance(bad, RequestError)
    assert good["shape"].tolist() == other["shape"].tolist() == [[3, 4, 3]]


def test_the_deadline_of_one_caller_is_not_that_of_another(loaded):
    def ask(timeout):
        feed = {"x": np.ones(1, np.float32), "steps": np.array([300_000], np.int32)}
        return loaded.run("slow", feed, timeout=timeout)

    *hasty, patient = at_once(*[lambda: ask(0.4)] * 3, lambda: ask(60))
    assert patient["y"].tolist() == [0]
    assert all(isinstance(answer, dict) or answer.code == "DEADLINE_EXCEEDED" for answer in hasty)


@pytest.mark.parametrize("name", ["scalar", "any_rank", "counted"])
def test_a_signature_without_a_batch_runs_alone(loaded, name, caplog):
    assert not loaded.signatures[name].batched
    feed = {"images": np.ones((2, 2), np.float32)} if name == "counted" else {"x": np.float32(1)}
    assert loaded.run(name, feed)


def test_what_runs_alone_is_said_once(tmp_path, caplog):
    folder = Sizes().save(tmp_path / "1")
    with caplog.at_level("INFO", "dmkeras.serving"), runtime.Loaded(folder, batching=LONG) as loaded:
        for _ in range(2):
            loaded.run("open_sides", {"pictures": np.ones((1, 3, 1), np.float32)})
    assert [record.message for record in caplog.records] == [
        "signature open_sides cannot be batched: each request runs alone"
    ]


def test_rows_of_any_size_do_not_meet(sizes):
    ask = lambda side: sizes.run("open_sides", {"pictures": np.ones((1, side, 1), np.float32)})
    answers = at_once(lambda: ask(3), lambda: ask(4), lambda: ask(4))
    assert [answer["rows"].tolist() for answer in answers] == [[1], [1], [1]]


def test_an_answer_that_is_no_batch_comes_as_without_batching(loaded):
    answer = loaded.run("flat", {"images": np.ones((2, 2), np.float32)})
    assert answer["flat"].tolist() == [1, 1, 1, 1]


def test_a_default_of_one_row_for_all_comes_as_without_batching(loaded):
    feed = {"images": np.ones((3, 2), np.float32), "temperature": np.array([2], np.float32)}
    assert loaded.run("scaled", feed)["scores"].tolist() == [[0.5, 0.5]] * 3


def test_a_lone_caller_waits_no_longer_than_the_timeout(sizes):
    start = time.monotonic()
    assert sizes.run("rows", {"x": np.ones((1, 2), np.float32)})["rows"].tolist() == [2]
    assert time.monotonic() - start < 5


TEXT = """
# as an export writes it
max_batch_size { value: 32 }
batch_timeout_micros { value: 0 }
max_enqueued_batches { value: 7 }
num_batch_threads { value: 3 }
thread_pool_name { value: "batches" }
allowed_batch_sizes: 8
allowed_batch_sizes: 32
pad_variable_length_inputs: false
"""


def test_parameters_are_read_from_tf_servings_text():
    assert batching.parse(TEXT) == Batching(32, 0, 7, 3, (8, 32))
    assert batching.parse("") == Batching()


def test_batches_are_padded_to_powers_of_two_unless_told():
    assert Batching(max_batch_size=32).allowed() == (1, 2, 4, 8, 16, 32)
    assert Batching(max_batch_size=20).allowed() == (1, 2, 4, 8, 16, 20)
    assert Batching(max_batch_size=1).allowed() == (1,)
    assert batching.parse(TEXT).allowed() == (8, 32)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("max_batch_size: 3", "batching parameters: 1:17"),
        ("max_batch_sizes { value: 3 }", 'no field named "max_batch_sizes"'),
        ("max_batch_size { value: 0 }", "max_batch_size is 0, expected 1 or more"),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros is -1, expected 0 or more"),
        ("num_batch_threads { value: 0 }", "num_batch_threads is 0"),
        ("max_enqueued_batches { value: 0 }", "max_enqueued_batches is 0"),
        ("allowed_batch_sizes: 16", "must match max_batch_size; last entry was 16; expected 32"),
        ("allowed_batch_sizes: [8, 4, 32]", r"allowed_batch_sizes are \[8, 4, 32\], expected rising numbers"),
        ("allowed_batch_sizes: [0, 32]", "expected rising numbers from 1"),
    ],
)
def test_parameters_that_cannot_be_are_refused(text, told):
    with pytest.raises(RequestError, match=told):
        batching.parse(text)
