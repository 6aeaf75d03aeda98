"""Gradient ascent in the graph: a loop for any objective, any parameters, any step, whose rows do not know each other.

    g = d objective(x, k) / dx            x <- update(x, g, k)            k = 0, 1 .. S - 1

What x is, a picture or a code, what is done to it before it is seen, what it should excite, and how it steps: these are
plain functions of the caller, put together by the caller (parts/objectives.py, parts/picture_priors.py):

    objective(x, k) -> [B], or a pair with done [B] bool: a row that is done moves no more
    update(x, g, k) -> x, of rules below, of `line`, of priors

so that, for instance, in a code space under jitter with a rate that falls:

    objective = lambda code, k: logit(jittered(decode(code), offsets[k]))
    update = lambda code, g, k: 0.99 * code + line(8.0, 1e-10, 200, k) * by_mean(g)
    state = climb(objective, update, beginning(code, steps, 200))

`climb` runs to the end in one loop of the graph, or on from any state up to a step: `in_chunks` calls it from Python,
some steps at a time, with the numbers of one go, since all that changes is in the state.

Shapes:  B batch, S the most steps, a number known when the graph is made.
"""

import collections

import tensorflow as tf

from dmkeras.parts.rectifiers import gradient

State = collections.namedtuple("State", "step values trace used going steps")
"""step: int32, the next one. values: x [B, ...]. trace: [B, S], the objective before each step; after a row's last one
that value is repeated. used: int32 [B], steps that moved the row. going: bool [B]. steps: int32 [B], allowed."""


def beginning(values, steps, most):
    """The state before the first step: `steps` int32 [B], or one for all, of at most `most`, a number."""
    rows = tf.shape(values)[0]
    steps = tf.clip_by_value(tf.broadcast_to(steps, [rows]), 0, most)
    trace = tf.zeros((rows, most), values.dtype)
    return State(tf.constant(0), values, trace, tf.zeros([rows], "int32"), steps > 0, steps)


def climb(objective, update, state, until=None):
    """A state some steps later: where no row goes on, or before step `until`, int32; see the top of the file."""
    most = state.trace.shape[1]
    until = tf.constant(most) if until is None else until

    def body(step, values, trace, used, going):
        told = []

        def score(x):
            answer = objective(x, step)
            value, done = answer if isinstance(answer, tuple) else (answer, tf.zeros_like(going))
            told.append(done)
            return value

        value, g = gradient(score, values)
        written = (tf.range(most) >= step)[None] & going[:, None]
        trace = tf.where(written, tf.cast(value, trace.dtype)[:, None], trace)
        going = going & ~told[0]
        moved = tf.ensure_shape(update(values, g, step), values.shape)
        values = tf.where(_beside(going, values), moved, values)
        return step + 1, values, trace, used + tf.cast(going, "int32"), going & (step + 1 < state.steps)

    goes_on = lambda step, values, trace, used, going: (step < until) & tf.reduce_any(going)
    found = tf.while_loop(goes_on, body, state[:-1], maximum_iterations=most)
    return State(*found, state.steps)


def in_chunks(run, state, every, progress=None):
    """`run` to the end from Python, `every` steps a call.

    Args:
        run: (state, until) -> state, a `tf.function` around `climb`.
        state: to begin with.
        every: steps of a call.
        progress: function of each state that is reached.
    """
    most = state.trace.shape[1]
    while int(state.step) < most and bool(tf.reduce_any(state.going)):
        state = run(state, state.step + every)
        if progress is not None:
            progress(state)
    return state


# --- steps ----------------------------------------------------------------------------------------------------------


def by_mean(g):
    """g / mean |g| of each row; 0 where g is."""
    size = tf.reduce_mean(tf.abs(g), list(range(1, g.shape.rank)))
    return tf.math.divide_no_nan(g, _beside(size, g))


def by_norm(g):
    """g / |g| of each row; 0 where g is."""
    size = tf.sqrt(tf.reduce_sum(tf.square(g), list(range(1, g.shape.rank))))
    return tf.math.divide_no_nan(g, _beside(size, g))


def line(first, last, steps, step):
    """A rate from `first` at step 0 towards `last` at step `steps`, float32."""
    return first + (last - first) * tf.minimum(tf.cast(step, "float32") / steps, 1.0)


def _beside(rows, values):
    """[B] -> [B, 1, ...] of the rank of values."""
    return tf.reshape(rows, [-1] + [1] * (values.shape.rank - 1))
