"""Laws of the softmax over groups of siblings, against loops over groups and paths in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from dmkeras.parts import hierarchical_softmax as softmax
from dmkeras.parts.word_tree import WordTree


def random_tree(count=40, roots=3, seed=0):
    """A tree whose groups have one to several nodes, level by level."""
    rng, parents = np.random.default_rng(seed), [-1] * roots
    for node in range(count):
        parents += [node] * rng.integers(0, 5)
        if len(parents) >= count:
            break
    return WordTree(map(str, range(len(parents))), parents)


TREE = random_tree()
LOGITS = np.random.default_rng(1).normal(0, 3, (2, 5, len(TREE)))


def conditionals_of(tree, logits):
    """Group after group."""
    found = np.full_like(logits, np.nan)
    for parent in set(tree.parents):
        group = np.flatnonzero(tree.parents == parent)
        powers = np.exp(logits[..., group] - logits[..., group].max(-1, keepdims=True))
        found[..., group] = powers / powers.sum(-1, keepdims=True)
    return found


def probs_of(tree, conditionals):
    """Node after node: parents come first."""
    found = conditionals.copy()
    for node, parent in enumerate(tree.parents):
        if parent >= 0:
            found[..., node] *= found[..., parent]
    return found


def top_prediction_of(tree, conditionals, threshold):
    """darknet's hierarchy_top_prediction, line by line, of one box's conditionals."""
    p, parent = 1.0, -1
    while True:
        group = np.flatnonzero(tree.parents == parent)
        best = group[conditionals[group].argmax()]
        if p * conditionals[best] > threshold:
            p *= conditionals[best]
            parent = best
            if not (tree.parents == best).any():
                return best, p
        elif parent == -1:
            return best, conditionals[best]
        else:
            return parent, p


def test_the_fixture_of_the_tree_of_six_nodes():
    tree = WordTree("abcdef", [-1, -1, 0, 0, 2, 2])
    logits = np.array([0, 0, 1, 0, 0, np.log(3)])
    conditionals, absolute = np.exp(tree.log_conditionals(logits)), np.exp(tree.log_probs(logits))
    np.testing.assert_allclose(conditionals, [0.5, 0.5, 0.731059, 0.268941, 0.25, 0.75], atol=1e-6)
    np.testing.assert_allclose(absolute, [0.5, 0.5, 0.365529, 0.134471, 0.091382, 0.274147], atol=1e-6)


def test_conditionals_are_those_of_a_loop_over_groups():
    expected = np.log(conditionals_of(TREE, LOGITS))
    np.testing.assert_allclose(TREE.log_conditionals(LOGITS), expected, rtol=1e-10)
    flat = LOGITS - np.log(np.exp(LOGITS).sum(-1, keepdims=True))  # must not pass
    assert np.abs(flat - expected).max() > 1


def test_products_are_those_of_a_loop_over_nodes():
    expected = probs_of(TREE, conditionals_of(TREE, LOGITS))
    found = np.exp(TREE.log_probs(LOGITS))
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert TREE.levels >= 4  # several doublings
    np.testing.assert_allclose(found[..., TREE.leaves].sum(-1), 1, rtol=1e-10)
    for node in set(TREE.parents) - {-1}:
        np.testing.assert_allclose(found[..., TREE.parents == node].sum(-1), found[..., node], rtol=1e-10)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 8, 9, 17])
def test_the_product_of_a_chain_has_every_factor_once(length):
    found = softmax.log_products(np.arange(1.0, length + 1)[None], np.arange(-1, length - 1))
    np.testing.assert_allclose(found[0], np.cumsum(np.arange(1.0, length + 1)))


def test_a_tree_of_roots_alone_is_a_flat_softmax():
    tree, logits = WordTree.flat("abcde"), LOGITS[..., :5]
    np.testing.assert_allclose(tree.log_probs(logits), tf.nn.log_softmax(logits), rtol=1e-10)
    labels = np.array([[0, 1, 2, 3, 4]] * 2)
    expected = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    np.testing.assert_allclose(tree.cross_entropy(labels, logits), expected, rtol=1e-10)


def test_large_logits_and_far_groups_stay_finite():
    """A maximum over all nodes in place of each group's would underflow."""
    logits = LOGITS.astype("float32").copy()
    logits[..., TREE.parents == -1] += 1e4
    found = TREE.log_probs(logits)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(np.exp(found), np.exp(TREE.log_probs(LOGITS)), rtol=2e-2, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_loss_is_of_the_label_and_its_ancestors(dtype):
    labels = np.array([[0, 3, 7, 20, 30], [len(TREE) - 1, 1, 12, 9, -1]])
    found = TREE.cross_entropy(labels, LOGITS.astype(dtype)).numpy()
    probs = probs_of(TREE, conditionals_of(TREE, LOGITS))
    expected = -np.log(np.take_along_axis(probs, np.maximum(labels, 0)[..., None], -1)[..., 0]) * (labels >= 0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found.dtype == dtype


def test_gradients_of_the_loss_are_those_of_differences_and_none_below_the_label():
    node = next(v for v in range(len(TREE)) if TREE.parents[v] >= 0 and v in TREE.parents)  # inside the tree
    labels, logits = tf.constant([node, TREE.leaves[-1]]), tf.Variable(LOGITS[:, 0])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(TREE.cross_entropy(labels, logits))
    found = tape.gradient(loss, logits).numpy()
    for row, label in enumerate(labels.numpy()):
        touched = [v for v in TREE.paths[label] if v >= 0]
        alive = np.isin(TREE.parents, TREE.parents[touched])
        assert (found[row, ~alive] == 0).all()
        assert (found[row, alive & (np.bincount(TREE.groups)[TREE.groups] > 1)] != 0).all()
        hot = np.isin(np.arange(len(TREE)), touched)
        expected = np.where(alive, conditionals_of(TREE, LOGITS[row, 0]) - hot, 0)
        np.testing.assert_allclose(found[row], expected, atol=1e-12)
    assert (found[0, TREE.parents == node] == 0).all()


@pytest.mark.parametrize("of", ["log_conditionals", "log_probs"])
def test_gradients_of_probabilities_are_those_of_differences(of):
    weights, start = np.random.default_rng(2).normal(size=len(TREE)), LOGITS[0, 0]
    function = lambda logits: tf.reduce_sum(weights * getattr(TREE, of)(logits))
    _, found = tf.function(gradient)(function, tf.constant(start))
    step = 1e-6
    differences = [(function(start + step * e) - function(start - step * e)) / (2 * step) for e in np.eye(len(TREE))]
    np.testing.assert_allclose(found, differences, atol=1e-6)


def gradient(function, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return value, tape.gradient(value, x)


def test_a_second_gradient_is_that_of_an_ordinary_softmax():
    logits = tf.constant(LOGITS[0, 0, :4])
    squared = lambda log_probs: lambda x: tf.reduce_sum(log_probs(x) ** 2)
    ours, plain = squared(WordTree.flat("abcd").log_probs), squared(tf.nn.log_softmax)
    found = gradient(lambda x: tf.reduce_sum(gradient(ours, x)[1] ** 2), logits)[1]
    np.testing.assert_allclose(found, gradient(lambda x: tf.reduce_sum(gradient(plain, x)[1] ** 2), logits)[1])


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.3, 0.5, 0.9])
def test_the_descent_is_darknets(threshold):
    nodes, probs = TREE.top_prediction(LOGITS, threshold)
    conditionals = conditionals_of(TREE, LOGITS)
    expected = [[top_prediction_of(TREE, row, threshold) for row in rows] for rows in conditionals]
    np.testing.assert_array_equal(nodes, [[node for node, _ in rows] for rows in expected])
    np.testing.assert_allclose(probs, [[p for _, p in rows] for rows in expected], rtol=1e-6)
    reached = np.isin(nodes, TREE.leaves)
    assert reached.all() if threshold < 0.3 else not reached.all()


def test_a_descent_goes_on_at_more_than_the_threshold_alone():
    tree = WordTree("abc", [-1, 0, 0])
    assert tree.top_prediction([0.0, 0.0, 0.0], 0.5)[0] == 0  # a half is not above a half
    assert tree.top_prediction([0.0, 0.0, 1e-3], 0.5)[0] == 2
    assert tree.top_prediction([0.0, 5.0, 0.0], 1.0)[0] == 0  # the likeliest root answers where none is above
    assert WordTree.flat("ab").top_prediction([0.0, 1.0], 0.9)[0] == 1


def test_all_of_it_compiles_under_xla():
    logits, labels = tf.constant(LOGITS, "float32"), tf.constant(np.arange(10).reshape(2, 5))

    def everything(logits):
        loss, slope = gradient(lambda x: tf.reduce_sum(TREE.cross_entropy(labels, x)), logits)
        return TREE.log_probs(logits), *TREE.top_prediction(logits, 0.3), loss, slope

    for compiled, plain in zip(tf.function(everything, jit_compile=True)(logits), everything(logits), strict=True):
        np.testing.assert_allclose(compiled, plain, rtol=1e-5, atol=1e-5)


def test_logits_of_another_number_of_nodes_are_refused():
    with pytest.raises(ValueError, match=r"expected logits \[..., 6\], one for each node, received"):
        WordTree.flat("abcdef").log_probs(np.zeros((2, 5)))
    with pytest.raises(ValueError, match="threshold must be a number"):
        WordTree.flat("ab").top_prediction(np.zeros(2), "half")
