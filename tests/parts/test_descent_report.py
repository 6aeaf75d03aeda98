"""Laws of the report on a tree's detector: precision of both halves of the leaves, and ways down as they are told."""

import types

import numpy as np
import pytest
import tensorflow as tf

from dmkeras import figures
from dmkeras.parts import descent_report
from dmkeras.parts.word_tree import WordTree

TREE = WordTree(["animal", "vehicle", "cat", "dog", "car", "bus"], [-1, -1, 0, 0, 1, 1])
BOXES = np.array([[[2, 2, 10, 10], [12, 12, 20, 20]], [[4, 4, 12, 12], [0, 0, 0, 0]]], "float32")
CLASSES = np.array([[2, 4], [3, -1]], "int32")  # a cat and a car; a dog
IMAGES = np.linspace(0, 1, 2 * 24 * 24 * 3, dtype="float32").reshape(2, 24, 24, 3)


def detector(looked_for, descents):
    """A model that answers what is told of each picture: (box, score, node)."""

    def detect(images, score_threshold=0.0, nodes=None):
        rows = descents if nodes is None else looked_for
        first = tf.cast(tf.round(images[0, 0, 0, 0] * 2), "int32")  # which picture stands first
        found = {"boxes": np.zeros((3, 3, 4), "float32"), "scores": np.zeros((3, 3), "float32")}
        found["classes"] = np.full((3, 3), -1, "int32")
        for picture, row in enumerate(rows):
            for place, (box, score, node) in enumerate(row):
                found["boxes"][picture, place], found["scores"][picture, place] = box, score
                found["classes"][picture, place] = node
        found = {
            key: tf.convert_to_tensor(values)[first : first + tf.shape(images)[0]] for key, values in found.items()
        }
        found["num_detections"] = tf.reduce_sum(tf.cast(found["classes"] >= 0, "int32"), -1)
        paths = tf.where(found["classes"][..., None] < 0, -1, tf.gather(TREE.paths, tf.maximum(found["classes"], 0)))
        told = tf.where(paths < 0, 0.0, [0.9, 0.6])
        return found if nodes is not None else {**found, "paths": paths, "path_scores": told}

    return types.SimpleNamespace(tree=TREE, detect=detect)


def measured(looked_for=((), ()), descents=((), ())):
    model = detector(looked_for, descents)
    return descent_report.figures(model, IMAGES, BOXES, CLASSES, TREE.leaves, TREE.nodes(["cat", "bus"]))


def test_precision_is_the_mean_of_each_half():
    every = (((BOXES[0, 0], 0.9, 2), (BOXES[0, 1], 0.8, 4)), ((BOXES[1, 0], 0.7, 3),))
    found = measured(every)
    assert found["map50_boxed"] == found["map50_never"] == pytest.approx(1)
    found = measured((every[0][:1], every[1]))  # the car is missed: of car and dog one is right
    assert found["map50_boxed"] == pytest.approx(1)
    assert found["map50_never"] == pytest.approx(0.5)
    moved = (((BOXES[0, 0] + [0, 0, 0, 2], 0.9, 2),), ())  # IoU .8
    found = measured(moved)
    assert found["map50_boxed"] == pytest.approx(1)
    assert 0.6 <= found["map_boxed"] <= 0.7
    assert found["map50_never"] == 0


def test_kin_are_answers_that_pass_through_the_parent():
    far = [0, 0, 3, 3]
    for answers, share in (
        ((((BOXES[0, 1], 0.9, 5),), ((BOXES[1, 0], 0.9, 2),)), 1.0),  # a bus for the car, a cat for the dog
        ((((BOXES[0, 1], 0.9, 1),), ((BOXES[1, 0], 0.9, 0),)), 1.0),  # no further than the family
        ((((BOXES[0, 1], 0.9, 3),), ((BOXES[1, 0], 0.9, 3),)), 0.5),
        ((((far, 0.9, 4),), ((BOXES[1, 0], 0.9, 4), (BOXES[1, 0], 0.8, 3))), 0.0),  # elsewhere; the best one is wrong
        ((((BOXES[0, 0], 0.9, 4),), ()), 0.0),
    ):
        assert measured(descents=answers)["kin_never"] == share
    assert (
        descent_report.figures(detector(((), ()), ((), ())), IMAGES, BOXES, CLASSES, TREE.leaves, TREE.leaves)[
            "kin_never"
        ]
        == 0
    )  # no leaf was never boxed


def test_a_way_down_is_told_with_its_probabilities():
    model = detector((), (((BOXES[0, 0], 0.5, 2), (BOXES[0, 1], 0.4, 1)), ()))
    (first, second), none = descent_report.descents(model, IMAGES)
    assert none == []
    assert first[2] == [("animal", pytest.approx(0.9)), ("cat", pytest.approx(0.6))]
    assert descent_report.words(first[2]) == "animal .90 > cat .60"
    assert descent_report.words([("x", 1.0)]) == "x 1.00"
    assert second[2] == [("vehicle", pytest.approx(0.9))]
    assert list(descent_report.lines(model, IMAGES, CLASSES)) == [
        "picture 0: cat, car",
        "    animal .90 > cat .60   score 0.50 at 2, 2, 10, 10",
        "    vehicle .90   score 0.40 at 12, 12, 20, 20",
        "picture 1: dog",
    ]
    assert descent_report.sheet(model, IMAGES, BOXES, CLASSES, figures).ndim == 3
