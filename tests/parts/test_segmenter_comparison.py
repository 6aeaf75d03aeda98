"""Laws of the comparison of segmenters: which pixels are near an edge, and what the table says."""

import numpy as np
import pytest

from dmkeras import figures
from dmkeras.parts.segmenter_comparison import FIGURES, compare, measure, near_edges, side_by_side


class Threshold:
    """A segmenter that needs no training."""

    def __init__(self, level):
        self.level = level

    def segment(self, images):
        import tensorflow as tf

        return tf.cast(images[..., 0] > self.level, "int32")

    def count_params(self):
        return 1


def drawn(count=3):
    rng = np.random.default_rng(0)
    labels = np.zeros((count, 20, 24), "int32")
    for one in labels:
        y, x = rng.integers(0, 12, 2)
        one[y : y + 8, x : x + 9] = 1
    return (0.8 * labels + 0.1 * rng.random(labels.shape))[..., None].astype("float32"), labels


def test_near_an_edge_is_where_a_square_about_the_pixel_shows_two_labels():
    _, labels = drawn()
    labels[0, 0, 0] = -1
    for radius in (1, 2, 3):
        found = near_edges(labels, radius)
        for i, y, x in np.ndindex(labels.shape):
            window = labels[i, max(y - radius, 0) : y + radius + 1, max(x - radius, 0) : x + radius + 1]
            assert found[i, y, x] == (labels[i, y, x] if len(np.unique(window)) > 1 else -1)


def test_an_outline_that_is_met_badly_costs_more_near_the_edges():
    images, labels = drawn()
    grown = np.where(near_edges(labels, 1) >= 0, 1, labels)  # one pixel too large all around
    found = measure(Threshold(0.5), np.maximum(images, 0.9 * grown[..., None]).astype("float32"), labels, 2)
    assert 0.3 < found["edge_iou"] < found["mean_iou"] < 1
    right = measure(Threshold(0.5), images, labels, 2)
    assert right["edge_iou"] == right["mean_iou"] == 1
    assert set(right) == set(FIGURES)


@pytest.mark.parametrize("seeds", [(0,), (1, 2)])
def test_the_table_has_a_line_for_each_model_and_the_means_are_told(seeds):
    lines, trained = [], []

    def train(name, seed):
        trained.append((name, seed))
        return name, seed

    measure = lambda model: dict.fromkeys(FIGURES, model[1] / 4)
    told, first = compare(["one", "the other"], train, seeds, measure, lines.append)
    assert trained == [(name, seed) for name in ("one", "the other") for seed in seeds]
    assert first == {name: (name, seeds[0]) for name in ("one", "the other")}
    assert told["mean_iou the other"] == np.mean(seeds) / 4
    assert len(lines) == 3
    spread = f" +-{np.std(np.array(seeds) / 4, ddof=1):.3f}" if len(seeds) > 1 else " "
    assert f"{np.mean(seeds) / 4:.3f}{spread}" in lines[1]


def test_pictures_stand_beside_their_truth_and_what_each_model_found():
    images, labels = drawn()
    models = {"low": Threshold(0.05), "right": Threshold(0.5)}
    sheet = side_by_side(models, images, labels, 2, figures, count=2)
    alone = side_by_side({"right": Threshold(0.5)}, images, labels, 2, figures, count=1)
    assert sheet.dtype == "uint8"
    assert sheet.shape[0] > alone.shape[0]
    assert sheet.shape[1] > alone.shape[1]
