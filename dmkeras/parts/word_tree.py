"""A tree of labels, such as WordNet's nouns, in which the labels of several data sets stand at once.

Redmon and Farhadi, "YOLO9000: Better, Faster, Stronger", 2017 (https://arxiv.org/abs/1612.08242), section 4; its file
is that of src/tree.c of https://github.com/pjreddie/darknet: a line "name parent" for each node, the parent's number
from 0, -1 for a root. Parents stand before their children and siblings side by side: a run of one parent is one group
of the softmax (hierarchical_softmax.py).

The rule of the paper: first all labels with one path of hypernyms to a root are added; then, for each that is left, the
path that grows the tree by as little as possible. The paper is silent on two points, which are so here: those that are
left come in the order given, and of paths that grow it equally the first is taken; and a path joins the tree at the
last of its nodes that is there already, which keeps its own way to its root, since a node has one parent.

Shapes:  ... any, n nodes, L levels, c children at most.
"""

import pathlib

import keras
import numpy as np
import tensorflow as tf

from dmkeras.parts import hierarchical_softmax as softmax
from dmkeras.parts.checks import number


@keras.saving.register_keras_serializable("dmkeras")
class WordTree:
    """Names and parents of nodes, and what probabilities down the tree are.

    Args:
        names: [n] texts. They may occur twice, as "crane" does; then `nodes` cannot tell which one is meant.
        parents: [n] numbers of nodes, smaller than the node's own, -1 for a root; one run for all that have one parent.

    Attributes:
        groups: int32 [n], the number of each node's group of siblings.
        leaves: int32, the nodes without children.
        paths: int32 [n, L], the nodes from a root down to each node, then -1.
        children: int32 [n + 1, c], then -1; the last row are the roots.
        spans: int32 [n, 2], such that v is u or below it where spans[u, 0] <= spans[v, 0] < spans[u, 1].

    Raises:
        ValueError: for names and parents of other lengths, no node, or another order.
    """

    def __init__(self, names, parents):
        self.names = tuple(str(name) for name in names)
        try:
            self.parents = np.array([int(parent) for parent in parents], "int32")
        except (TypeError, ValueError) as error:
            raise ValueError(f"expected parents as whole numbers, -1 for a root: {error}") from None
        count = len(self.names)
        if not count or self.parents.shape != (count,):
            raise ValueError(f"expected as many names as parents, received {count} and {len(self.parents)}")
        wrong = np.flatnonzero((self.parents < -1) | (self.parents >= np.arange(count)))
        if len(wrong):
            node, parent = wrong[0], self.parents[wrong[0]]
            raise ValueError(f"expected parents before their children, received {parent} as parent of node {node}")
        starts = np.flatnonzero(np.append(True, np.diff(self.parents) != 0))
        if len(set(self.parents[starts])) != len(starts):
            twice = next(p for p in self.parents[starts] if (self.parents[starts] == p).sum() > 1)
            raise ValueError(f"expected siblings side by side, received children of node {twice} in several places")
        self.groups = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, count))).astype("int32")
        self.leaves = np.setdiff1d(np.arange(count), self.parents).astype("int32")
        self._walk(starts)

    def _walk(self, starts):
        count, ends = len(self), np.append(starts[1:], len(self))
        self.children = np.full((count + 1, (ends - starts).max()), -1, "int32")
        for start, end in zip(starts, ends):
            self.children[self.parents[start], : end - start] = np.arange(start, end)  # row -1, the last: the roots
        paths, sizes = [], np.ones(count, int)
        for node, parent in enumerate(self.parents):
            paths.append((*paths[parent], node) if parent >= 0 else (node,))
        self.paths = np.full((count, max(map(len, paths))), -1, "int32")
        for row, path in zip(self.paths, paths):
            row[: len(path)] = path
        for node in range(count - 1, -1, -1):
            if self.parents[node] >= 0:
                sizes[self.parents[node]] += sizes[node]
        first, taken = np.zeros(count, "int32"), np.zeros(count + 1, "int32")  # taken[-1]: by the roots so far
        for node, parent in enumerate(self.parents):
            first[node] = taken[parent] + (first[parent] + 1 if parent >= 0 else 0)
            taken[parent] += sizes[node]
        self.spans = np.stack([first, first + sizes], -1).astype("int32")

    def __len__(self):
        return len(self.names)

    @property
    def levels(self):
        return self.paths.shape[1]

    def path(self, node):
        """The names from a root down to a node."""
        return tuple(self.names[i] for i in self.paths[node] if i >= 0)

    def nodes(self, names):
        """int32, the node of each of `names`: darknet's map. ValueError for one that is not there, or there twice."""
        places = {}
        for node, name in enumerate(self.names):
            places.setdefault(name, []).append(node)
        wrong = [name for name in names if len(places.get(name, ())) != 1]
        if wrong:
            raise ValueError(f"expected names of one node each, received {wrong[0]!r}: {places.get(wrong[0], 'none')}")
        return np.array([places[name][0] for name in names], "int32")

    # --- trees from elsewhere -----------------------------------------------------------------------------------------

    @classmethod
    def flat(cls, names):
        """All names as roots: an ordinary softmax."""
        return cls(names, [-1] * len(names))

    @classmethod
    def from_hypernyms(cls, *label_sets):
        """The tree of one label set, or of several combined, by the rule of the paper.

        label_sets: {name: [path, ...]}, each path names from a root to the name itself, as WordNet's `hypernym_paths`
            tells them.
        """
        labels = {}
        for name, paths in (item for label_set in label_sets for item in label_set.items()):
            paths = [tuple(path) for path in paths if not isinstance(path, str)]
            if not paths or any(path[-1:] != (name,) or len(set(path)) < len(path) for path in paths):
                raise ValueError(f"expected paths from a root to {name!r}, no node twice, received {paths}")
            if set(labels.setdefault(name, paths)) != set(paths):
                raise ValueError(f"expected the same paths of {name!r} in all label sets, received others")
        parent = {}  # of each name in the tree, None for roots
        joined = lambda path: max((i + 1 for i, name in enumerate(path) if name in parent), default=0)
        for paths in sorted(labels.values(), key=lambda paths: len(paths) > 1):  # stable: else as given
            path = min(paths, key=lambda path: len(path) - joined(path))
            for i in range(joined(path), len(path)):
                parent[path[i]] = path[i - 1] if i else None
        below, names = {}, []
        for name, above in parent.items():
            below.setdefault(above, []).append(name)
        rows = [None]  # level by level, so that siblings stay together
        for above in rows:
            rows += below.get(above, [])
        names = rows[1:]
        places = {name: node for node, name in enumerate(names)}
        return cls(names, [places.get(parent[name], -1) for name in names])

    @classmethod
    def from_file(cls, path, names_path=None):
        """The tree of a file of darknet, such as 9k.tree; names_path: a file of names to show, such as 9k.names."""
        names, parents = [], []
        for row, line in enumerate(pathlib.Path(path).read_text("utf-8").splitlines()):
            words = line.rsplit(maxsplit=1)
            if len(words) != 2 or not words[1].lstrip("-").isdecimal():
                raise ValueError(f"{path}, line {row + 1}: expected a name and its parent's number, received {line!r}")
            names.append(words[0])
            parents.append(int(words[1]))
        if names_path is not None:
            names = pathlib.Path(names_path).read_text("utf-8").splitlines()
        return cls(names, parents)

    def save(self, path):
        """Writes darknet's file, which `from_file` reads; darknet itself wants names without blanks."""
        if any(not name.strip() or len(name.splitlines()) > 1 or name != name.strip() for name in self.names):
            raise ValueError("expected names of one line without blanks at their ends; name the nodes otherwise")
        lines = [f"{name} {parent}\n" for name, parent in zip(self.names, self.parents)]
        pathlib.Path(path).write_text("".join(lines), "utf-8")

    # --- probabilities ------------------------------------------------------------------------------------------------

    def log_conditionals(self, logits):
        """ln Pr(node | its parent) [..., n] of logits [..., n]."""
        return softmax.log_softmax(self._checked(logits), self.groups)

    def log_probs(self, logits):
        """ln Pr(node) [..., n] of logits [..., n], the product of conditionals up to the root."""
        return softmax.log_products(self.log_conditionals(logits), self.parents)

    def cross_entropy(self, labels, logits):
        """-ln Pr(label) [...] of nodes [...], 0 for -1, and logits [..., n]: nothing below a label is trained."""
        return softmax.cross_entropy(labels, self._checked(logits), self.groups, self.paths)

    def top_prediction(self, logits, threshold=0.5):
        """Down the tree while Pr(node) is above the threshold: nodes int32 [...] and Pr(node) [...] of [..., n]."""
        threshold = number("threshold", threshold)
        return softmax.descend(tf.exp(self.log_conditionals(logits)), self.children, threshold, self.levels)

    def related(self, first, second):
        """Whether one of two nodes, int32 [...] each, is the other one or stands above it."""
        (low1, high1), (low2, high2) = (tf.unstack(tf.gather(self.spans, nodes), axis=-1) for nodes in (first, second))
        return ((low1 <= low2) & (low2 < high1)) | ((low2 <= low1) & (low1 < high2))

    def _checked(self, logits):
        logits = tf.convert_to_tensor(logits)
        if logits.shape.rank == 0 or logits.shape[-1] != len(self):
            raise ValueError(f"expected logits [..., {len(self)}], one for each node, received {logits.shape}")
        return logits

    def get_config(self):
        return {"names": list(self.names), "parents": self.parents.tolist()}

    @classmethod
    def from_config(cls, config):
        return cls(**config)
