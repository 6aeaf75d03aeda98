"""A softmax over each group of siblings of a tree, all groups at once.

Redmon and Farhadi, "YOLO9000: Better, Faster, Stronger", 2017 (https://arxiv.org/abs/1612.08242), section 4; where it
is silent, src/tree.c and src/region_layer.c of https://github.com/pjreddie/darknet. Every node v has a logit x_v; g(v)
are v and its siblings, the roots being siblings of one another:

    Pr(v | parent of v) = exp(x_v) / sum over u in g(v) of exp(x_u)
    Pr(v)               = product of Pr(u | parent of u) over u = v and its ancestors
    cross-entropy       = -ln Pr(v), with gradient in the groups of v and its ancestors alone, nothing below v
    descent             from the roots, step by step to the likeliest child while Pr of it is above a threshold; the
                        likeliest root where no root's is

A group is a segment of the nodes, so maxima and sums of all groups are two segment operations, whatever their number; a
loop over the 1846 groups of darknet's tree of 9418 nodes is traced for seconds, and a padded array [groups, 149] is 29
times as large as the logits (benchmarks/word_tree_speed.py). Products come by pointer doubling: with J the parent of
each node, x + x[J] holds sums over two nodes of each path, J[J] leads on by two, and so forth.

Deviation: darknet multiplies products up to the root once more on its way down (`hierarchy_top_prediction` is given
what `hierarchy_predictions` made of the conditionals); here, as the paper says, each factor counts once.

Shapes:  ... any, n nodes, R rows, G groups, L levels of the tree.
"""

import numpy as np
import tensorflow as tf


def log_softmax(logits, groups):
    """ln Pr(node | its parent) of logits [..., n]; groups: [n], the number of each node's group, from 0."""
    groups = np.asarray(groups)
    return by_nodes(lambda nodes: _log_softmax(nodes, groups, int(groups.max()) + 1), logits)


def _log_softmax(nodes, groups, count):
    """Of nodes [n, R], whose gradient needs nothing but the answer."""

    @tf.custom_gradient
    def run(nodes):
        largest = tf.math.unsorted_segment_max(nodes, groups, count)  # [G, R]
        nodes = nodes - tf.gather(largest, groups)
        total = tf.math.unsorted_segment_sum(tf.exp(nodes), groups, count)
        answer = nodes - tf.gather(tf.math.log(total), groups)

        def gradient(upstream):
            total = tf.math.unsorted_segment_sum(upstream, groups, count)
            return upstream - tf.exp(answer) * tf.gather(total, groups)

        return answer, gradient

    return run(nodes)


def log_products(conditionals, parents):
    """ln Pr(node) of conditionals [..., n], ln Pr(node | its parent); parents: [n], -1 for a root."""
    parents = np.asarray(parents)
    count = len(parents)

    def run(nodes):
        jump = np.append(np.where(parents < 0, count, parents), count)  # beyond a root stands a node of ln 1
        while (jump[:-1] < count).any():
            nodes = nodes + tf.gather(tf.pad(nodes, [[0, 1], [0, 0]]), jump[:-1])
            jump = jump[jump]
        return nodes

    return by_nodes(run, conditionals)


def cross_entropy(labels, logits, groups, paths):
    """-ln Pr(label) of labels [...] and logits [..., n], 0 for the label -1; paths: [n, L], of nodes, then -1."""
    labels = tf.convert_to_tensor(labels)
    path = tf.gather(paths, tf.maximum(labels, 0))  # [..., L]
    real = (path >= 0) & (labels >= 0)[..., None]
    told = tf.gather(log_softmax(logits, groups), tf.maximum(path, 0), batch_dims=path.shape.rank - 1)
    return -tf.reduce_sum(tf.where(real, told, tf.zeros([], told.dtype)), -1)


def descend(conditionals, children, threshold, levels):
    """The node [...] that a descent ends at, and Pr of it [...].

    Args:
        conditionals: [..., n], Pr(node | its parent).
        children: [n + 1, c], of each node, -1 behind the last; the last row are the roots.
        threshold: Pr(node) stays above it.
        levels: L.
    """
    conditionals = tf.convert_to_tensor(conditionals)
    shape, count = tf.shape(conditionals)[:-1], len(children) - 1
    flat = tf.reshape(conditionals, [-1, count])  # [R, n]
    rows = tf.shape(flat)[0]

    def step(node, product, falling):
        below = tf.gather(children, node)  # [R, c]
        told = tf.gather(flat, tf.maximum(below, 0), batch_dims=1)
        told = tf.where(below >= 0, told, -tf.ones([], told.dtype))
        best = tf.argmax(told, -1, output_type="int32")
        child = tf.gather(below, best, batch_dims=1)
        after = product * tf.reduce_max(told, -1)
        falls = falling & (child >= 0) & ((after > threshold) | (node == count))
        falling = falls & (after > threshold)
        return tf.where(falls, child, node), tf.where(falls, after, product), falling

    start = tf.fill([rows], count), tf.ones([rows], flat.dtype), tf.fill([rows], True)
    node, product, _ = tf.while_loop(lambda *state: tf.reduce_any(state[2]), step, start, maximum_iterations=levels)
    return tf.reshape(node, shape), tf.reshape(product, shape)


def by_nodes(run, values):
    """`run` of values [n, R], where segments lie in memory side by side, for values [..., n]."""
    values = tf.convert_to_tensor(values)
    flat = tf.reshape(values, [-1, values.shape[-1]])
    return tf.reshape(tf.transpose(run(tf.transpose(flat))), tf.shape(values))
