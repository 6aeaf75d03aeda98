"""Laws of the loop: NumPy's steps, rows that do not know each other, the numbers of one go in chunks."""

import numpy as np
import pytest
import tensorflow as tf

from dmkeras.parts import ascent

RNG = np.random.default_rng(0)
A, START = RNG.normal(size=4), RNG.normal(size=(3, 4))


def objective(x, step):
    return tf.reduce_sum(tf.sin(x * A) + tf.cast(step, x.dtype) * x, 1)


def update(x, g, step):
    return 0.99 * x + tf.cast(ascent.line(0.5, 0.1, 6, step), x.dtype) * ascent.by_mean(g)


def climb(start, steps, most=6, jit=False, objective=objective, until=None):
    run = lambda start, steps: ascent.climb(objective, update, ascent.beginning(start, steps, most), until)
    return tf.function(run, autograph=False, jit_compile=jit)(tf.constant(start), tf.constant(steps, "int32"))


def by_hand(start, steps, most=6):
    """(values, trace) of one row."""
    x, trace = start.copy(), []
    for step in range(steps):
        trace.append((np.sin(x * A) + step * x).sum())
        g = A * np.cos(x * A) + step
        x = 0.99 * x + (0.5 - 0.4 * min(step / 6, 1)) * g / np.abs(g).mean()
    return x, trace + [trace[-1] if trace else 0.0] * (most - steps)


@pytest.mark.parametrize("jit", [False, True])
def test_each_row_takes_its_own_number_of_steps_and_keeps_its_last_value(jit):
    steps = [6, 0, 3]
    state = climb(START, steps, jit=jit)
    expected = [by_hand(*row) for row in zip(START, steps)]
    np.testing.assert_allclose(state.values, [x for x, _ in expected], rtol=1e-6)
    np.testing.assert_allclose(state.trace, [trace for _, trace in expected], rtol=1e-6)
    np.testing.assert_array_equal(state.used, steps)
    assert not np.any(state.going)


def test_steps_are_capped():
    state = climb(START, [100, -3, 6])
    np.testing.assert_array_equal(state.used, [6, 0, 6])
    np.testing.assert_array_equal(state.steps, [6, 0, 6])
    np.testing.assert_allclose(state.values[0], by_hand(START[0], 6)[0], rtol=1e-6)
    np.testing.assert_array_equal(state.values[1], START[1])


def test_a_row_alone_is_the_row_of_the_batch():
    together = climb(START, [6, 2, 5])
    alone = climb(START[2:], [5])
    np.testing.assert_array_equal(alone.values[0], together.values[2])
    np.testing.assert_array_equal(alone.trace[0], together.trace[2])


def test_a_row_that_is_done_moves_no_more():
    def until_far(x, step):
        return objective(x, step), tf.reduce_max(tf.abs(x), 1) > 3.0

    most = 40
    state = climb(START, most, most, objective=until_far)
    for row, start in enumerate(START):
        used = next(steps for steps in range(most) if np.abs(by_hand(start, steps, most)[0]).max() > 3.0)
        assert state.used[row] == used
        np.testing.assert_allclose(state.values[row], by_hand(start, used, most)[0], rtol=1e-6)
        np.testing.assert_allclose(state.trace[row, used:], state.trace[row, used])
    assert len(set(state.used.numpy())) > 1
    assert int(state.step) == max(state.used) + 1  # and nobody works on


@pytest.mark.parametrize("every", [1, 4, 6, 50])
def test_chunks_give_the_numbers_of_one_go(every):
    run = tf.function(lambda state, until: ascent.climb(objective, update, state, until), autograph=False)
    begin, told = ascent.beginning(tf.constant(START), tf.constant([6, 0, 3]), 6), []
    one = run(begin, tf.constant(6))
    chunks = ascent.in_chunks(run, begin, every, lambda state: told.append(int(state.step)))
    for a, b in zip(one, chunks, strict=True):
        np.testing.assert_array_equal(a, b)
    assert told == [*range(every, 6, every), 6]


@pytest.mark.parametrize(("steps", "calls"), [([3, 0, 2], 2), ([0, 0, 0], 0)])
def test_chunks_end_where_no_row_goes_on(steps, calls):
    run = tf.function(lambda state, until: ascent.climb(objective, update, state, until), autograph=False)
    chunks, begin = iter([run] * calls), ascent.beginning(tf.constant(START), tf.constant(steps), 6)
    state = ascent.in_chunks(lambda *given: next(chunks)(*given), begin, 2)  # a call more is an error
    assert not list(chunks)
    assert int(state.step) == max(steps)
    np.testing.assert_array_equal(state.values, climb(START, steps).values)


def test_steps_are_normalised_row_by_row():
    g = RNG.normal(size=(3, 2, 5)) * np.array([1.0, 100.0, 0.0])[:, None, None]
    by_mean, by_norm = ascent.by_mean(tf.constant(g)).numpy(), ascent.by_norm(tf.constant(g)).numpy()
    for row in (0, 1):
        np.testing.assert_allclose(by_mean[row], g[row] / np.abs(g[row]).mean())
        np.testing.assert_allclose(by_norm[row], g[row] / np.sqrt((g[row] ** 2).sum()))
    assert not by_mean[2].any()
    assert not by_norm[2].any()


def test_the_rate_falls_along_a_line_and_stays_there():
    rates = [float(ascent.line(8.0, 1e-10, 200, tf.constant(step))) for step in (0, 1, 100, 199, 200, 300)]
    np.testing.assert_allclose(rates[:4], [8 - 8 * step / 200 for step in (0, 1, 100, 199)], rtol=1e-5)
    np.testing.assert_allclose(rates[4:], 1e-10, atol=1e-6)
