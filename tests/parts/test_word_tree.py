"""Laws of the tree of labels: the paper's rule, darknet's file, and what it refuses."""

import os
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import dmkeras
from dmkeras.parts.word_tree import WordTree

# Paths of WordNet 3.0, shortened in the middle. dog.n.01 has two hypernyms, canine and domestic animal.
ANIMAL = ("entity", "object", "organism", "animal")
CANINE, DOMESTIC = (*ANIMAL, "carnivore", "canine"), (*ANIMAL, "domestic animal")
COCO = {
    "dog": [(*CANINE, "dog"), (*DOMESTIC, "dog")],
    "cat": [(*ANIMAL, "carnivore", "feline", "cat")],
    "bird": [(*ANIMAL, "bird")],
    "car": [("entity", "object", "artifact", "vehicle", "car")],
    "airplane": [("entity", "object", "artifact", "vehicle", "aircraft", "airplane")],
}
IMAGENET = {
    "Norfolk terrier": [(*way, "dog", "terrier", "Norfolk terrier") for way in (CANINE, DOMESTIC)],
    "Yorkshire terrier": [(*way, "dog", "terrier", "Yorkshire terrier") for way in (CANINE, DOMESTIC)],
    "wolf": [(*CANINE, "wolf")],
    "tabby": [(*ANIMAL, "carnivore", "feline", "cat", "tabby")],
    "robin": [(*ANIMAL, "bird", "robin")],
    "ambulance": [("entity", "object", "artifact", "vehicle", "car", "ambulance")],
    "biplane": [("entity", "object", "artifact", "vehicle", "aircraft", "airplane", "biplane")],
    "dog": COCO["dog"],
}


@pytest.fixture(scope="module")
def combined():
    return WordTree.from_hypernyms(COCO, IMAGENET)


def above(tree, name):
    return tree.path(tree.nodes([name])[0])


# --- the rule of the paper ------------------------------------------------------------------------------------------


def test_labels_with_one_path_come_first_whatever_the_order():
    sets = {"x": [("root", "a", "b", "x"), ("root", "c", "x")], "y": [("root", "a", "b", "y")]}
    tree = WordTree.from_hypernyms(sets)
    assert above(tree, "x") == ("root", "a", "b", "x")  # grows it by one node; c would by two
    assert "c" not in tree.names
    alone = WordTree.from_hypernyms({"x": sets["x"]})
    assert above(alone, "x") == ("root", "c", "x")  # the shorter one, with nothing there


def test_the_path_that_grows_the_tree_least_is_taken_though_it_is_longer():
    sets = {
        "y": [("r", "a", "b", "c", "y")],
        "x": [("r", "d", "x"), ("r", "a", "b", "c", "x")],
        "z": [("r", "e", "z"), ("r", "a", "f", "z")],  # both by two: the first
    }
    tree = WordTree.from_hypernyms(sets)
    assert above(tree, "x") == ("r", "a", "b", "c", "x")
    assert above(tree, "z") == ("r", "e", "z")
    assert set(tree.names) == {"r", "a", "b", "c", "y", "x", "e", "z"}


def test_a_label_reached_twice_keeps_one_parent():
    sets = {"puppy": [("r", "pet", "dog", "puppy"), ("r", "wild", "canine", "dog", "puppy")]}
    sets |= {"dog": [("r", "wild", "canine", "dog"), ("r", "pet", "dog")], "wolf": [("r", "wild", "canine", "wolf")]}
    tree = WordTree.from_hypernyms(sets)
    assert above(tree, "puppy") == ("r", "wild", "canine", "dog", "puppy")  # wolf came first, so this grows it by two
    assert above(tree, "dog") == ("r", "wild", "canine", "dog")
    assert len(set(tree.names)) == len(tree)
    # A path that meets the tree again below where it left it adds what stands below the last meeting alone.
    joined = WordTree.from_hypernyms({"m": [("r", "a", "m")], "n": [("s", "t", "m", "n"), ("u", "v", "n")]})
    assert above(joined, "n") == ("r", "a", "m", "n")
    assert "t" not in joined.names


def test_a_tree_may_have_several_roots():
    tree = WordTree.from_hypernyms({"a": [("thing", "a")], "b": [("matter", "b")], "c": [("c",)]})
    assert [tree.names[node] for node in np.flatnonzero(tree.parents < 0)] == ["thing", "matter", "c"]
    assert tree.groups[:3].tolist() == [0, 0, 0]
    np.testing.assert_allclose(tf.reduce_sum(tf.exp(tree.log_probs(np.zeros(5)))[:3]), 1)


def test_two_label_sets_become_one_tree(combined):
    assert above(combined, "Norfolk terrier") == (*CANINE, "dog", "terrier", "Norfolk terrier")  # wolf brought canine
    assert "domestic animal" not in combined.names
    coco, imagenet = combined.nodes(COCO), combined.nodes(IMAGENET)
    assert len(set(coco) | set(imagenet)) == len(COCO) + len(IMAGENET) - 1  # dog is in both
    assert set(combined.leaves) == set(imagenet) - {combined.nodes(["dog"])[0]}  # all of COCO's have some below
    tabby, cat = combined.nodes(["tabby", "cat"])
    assert cat in combined.paths[tabby]


def test_a_label_inside_the_tree_trains_nothing_below_it(combined):
    dog, terrier = combined.nodes(["dog", "Norfolk terrier"])
    logits = tf.Variable(np.random.default_rng(0).normal(size=(2, len(combined))))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(combined.cross_entropy([dog, terrier], logits))
    slopes = tape.gradient(loss, logits).numpy()
    below = [node for node in range(len(combined)) if dog in combined.paths[node] and node != dog]
    assert len(below) == 3
    assert (slopes[0, below] == 0).all()
    assert (slopes[1, combined.nodes(["Norfolk terrier", "Yorkshire terrier"])] != 0).all()


def test_the_order_has_parents_first_and_siblings_together(combined):
    assert (combined.parents < np.arange(len(combined))).all()
    runs = 1 + np.count_nonzero(np.diff(combined.parents))
    assert runs == len(set(combined.parents)) == combined.groups.max() + 1


# --- what a tree knows ----------------------------------------------------------------------------------------------


def test_paths_children_and_spans_are_those_of_the_parents(combined):
    for node in range(len(combined)):
        path, up = [], node
        while up >= 0:
            path.append(up)
            up = combined.parents[up]
        assert [v for v in combined.paths[node] if v >= 0] == path[::-1]
        assert [v for v in combined.children[node] if v >= 0] == np.flatnonzero(combined.parents == node).tolist()
    assert [v for v in combined.children[-1] if v >= 0] == np.flatnonzero(combined.parents == -1).tolist()
    nodes = np.arange(len(combined))
    is_above = np.array([[u in combined.paths[v] for v in nodes] for u in nodes])
    found = combined.related(nodes[:, None] + 0 * nodes, nodes[None] + 0 * nodes[:, None])
    np.testing.assert_array_equal(found, is_above | is_above.T)
    assert combined.levels == max(len(combined.path(node)) for node in nodes)


def test_a_saved_tree_comes_back(combined, tmp_path):
    combined.save(tmp_path / "small.tree")
    assert (tmp_path / "small.tree").read_text().splitlines()[:2] == ["entity -1", "object 0"]
    back = WordTree.from_file(tmp_path / "small.tree")
    assert back.names == combined.names
    np.testing.assert_array_equal(back.parents, combined.parents)
    (tmp_path / "crlf.tree").write_bytes((tmp_path / "small.tree").read_bytes().replace(b"\n", b"\r\n"))
    assert WordTree.from_file(tmp_path / "crlf.tree").names == combined.names
    config = keras.saving.serialize_keras_object(combined)
    assert keras.saving.deserialize_keras_object(config).names == combined.names
    with pytest.raises(ValueError, match="names of one line"):
        WordTree.flat(["a", "b\nc"]).save(tmp_path / "other.tree")


def test_names_to_show_come_from_a_file_of_their_own(tmp_path):
    (tmp_path / "x.tree").write_text("n1 -1\nn2 0\nn3 0\n")
    (tmp_path / "x.names").write_text("bird\ncrane\ncrane\n")
    tree = WordTree.from_file(tmp_path / "x.tree", tmp_path / "x.names")
    assert tree.path(2) == ("bird", "crane")
    with pytest.raises(ValueError, match=r"'crane': \[1, 2\]"):
        tree.nodes(["bird", "crane"])
    with pytest.raises(ValueError, match="'heron': none"):
        tree.nodes(["heron"])


DARKNET = pathlib.Path(os.environ.get("DARKNET_DIR", ""), "data")
needs_darknet = pytest.mark.skipif(
    not (DARKNET / "9k.tree").is_file(), reason="DARKNET_DIR names no checkout of github.com/pjreddie/darknet"
)


@needs_darknet
def test_darknets_tree_has_its_size(tmp_path):
    tree = WordTree.from_file(DARKNET / "9k.tree")
    assert len(tree) == 9418
    assert tree.groups.max() + 1 == 1846
    assert len(tree.leaves) == 7573
    assert (tree.parents == -1).sum() == 4
    assert tree.levels == 17
    assert np.bincount(tree.groups).max() == 149
    assert abs((tree.paths[tree.leaves] >= 0).sum(1).mean() - 1 - 7.86) < 0.01
    named = WordTree.from_file(DARKNET / "9k.tree", DARKNET / "9k.names")
    coco, names = np.loadtxt(DARKNET / "coco9k.map", int), (DARKNET / "coco.names").read_text().splitlines()
    assert named.names[coco[0]] == names[0] == "person"
    assert len(coco) == len(names)
    tree.save(tmp_path / "9k.tree")
    assert (tmp_path / "9k.tree").read_bytes() == (DARKNET / "9k.tree").read_bytes()


@needs_darknet
def test_leaves_of_darknets_tree_sum_to_one():
    tree = WordTree.from_file(DARKNET / "9k.tree")
    logits = np.random.default_rng(0).normal(0, 2, (3, 9418))
    log_probs = tree.log_probs(logits).numpy()
    np.testing.assert_allclose(np.exp(log_probs[:, tree.leaves]).sum(-1), 1)
    at = tree.log_conditionals(logits).numpy()
    for node in (0, 100, 5177, 9417):
        np.testing.assert_allclose(log_probs[:, node], at[:, [v for v in tree.paths[node] if v >= 0]].sum(-1))


# --- doors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "parents", "words"),
    [
        ("ab", [-1], "as many names as parents"),
        ("", [], "as many names as parents"),
        ("ab", [1, -1], "parents before their children"),
        ("ab", [-1, -2], "parents before their children"),
        ("ab", [-1, 1], "parents before their children"),
        ("abcd", [-1, 0, -1, 0], "children of node -1 in several places"),
        ("abcde", [-1, -1, 0, 1, 0], "children of node 0 in several places"),
        ("ab", [-1, "root"], "whole numbers"),
    ],
)
def test_an_order_that_cannot_be_is_refused(names, parents, words):
    with pytest.raises(ValueError, match=words):
        WordTree(names, parents)


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (({"a": []},), "expected paths from a root to 'a'"),
        (({"a": [("r", "b")]},), "expected paths from a root to 'a'"),
        (({"a": ["ra"]},), "expected paths from a root to 'a'"),
        (({"a": [("a", "r", "a")]},), "no node twice"),
        (({"a": [("r", "a")]}, {"a": [("s", "a")]}), "the same paths of 'a'"),
        (({},), "as many names"),
    ],
)
def test_paths_that_cannot_be_are_refused(sets, words):
    with pytest.raises(ValueError, match=words):
        WordTree.from_hypernyms(*sets)


def test_a_file_that_is_no_tree_is_refused_with_its_line(tmp_path):
    (tmp_path / "x.tree").write_text("a -1\nb\n")
    with pytest.raises(ValueError, match=r"x.tree, line 2: expected a name and its parent's number, received 'b'"):
        WordTree.from_file(tmp_path / "x.tree")


def test_it_is_public():
    assert dmkeras.WordTree is WordTree
