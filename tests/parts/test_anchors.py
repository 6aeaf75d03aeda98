"""Laws of anchors: where they lie, and how well sizes found in the data cover it."""

import numpy as np
import pytest
from keras_cv import layers

from dmkeras.parts.anchors import average_iou, dimension_clusters, grid, ssd_priors

GENERATOR = np.random.default_rng(0)
SIZES = np.concatenate([GENERATOR.uniform(15, 48, (300, 2)), GENERATOR.normal((60, 20), 2, (100, 2))])


# Grids.


def test_anchors_are_those_of_detectron2():
    """tests/modeling/test_anchor_generator.py: sizes 32 and 64, ratios h / w of 1/4, 1, 4, stride 4, a map of 1x2."""
    first = [[-32, -8, 32, 8], [-16, -16, 16, 16], [-8, -32, 8, 32], [-64, -16, 64, 16], [-32, -32, 32, 32]]
    first = np.array([*first, [-16, -64, 16, 64]])
    for offset, move in ((0, 0), (0.5, 2)):
        anchors = grid((1, 2), 4, (32, 64), (0.25, 1, 4), offset=offset)
        assert anchors.dtype == np.float32
        np.testing.assert_allclose(anchors, np.concatenate([first, first + np.array([4, 0, 4, 0])]) + move, atol=1e-5)


def test_the_legacy_table_differs_by_its_rounding_and_its_pixel_alone():
    """py-faster-rcnn's generate_anchors.py, pixels counted from 1, widths x2 - x1 + 1, sides rounded."""
    rows = "-83 -39 100 56|-175 -87 192 104|-359 -183 376 200|-55 -55 72 72|-119 -119 136 136|-247 -247 264 264"
    rows += "|-35 -79 52 96|-79 -167 96 184|-167 -343 184 360"
    table = np.array([row.split() for row in rows.split("|")], "float64")
    legacy, pixel = [], np.array([1, 1, 0, 0])
    for ratio in (0.5, 1, 2):
        width = np.round(np.sqrt(16 * 16 / ratio))
        size = np.array([width, np.round(width * ratio)])
        legacy += [np.concatenate([8.5 - (size * s - 1) / 2, 8.5 + (size * s - 1) / 2]) for s in (8, 16, 32)]
    np.testing.assert_array_equal(legacy, table)
    ours = grid((1, 1), 16, (16,), (0.5, 1, 2), (8, 16, 32)).reshape(3, 3, 4).swapaxes(0, 1).reshape(9, 4)
    sides = lambda boxes: boxes[:, 2:] - boxes[:, :2]
    np.testing.assert_allclose(sides(ours), sides(table - pixel), rtol=0.07)
    np.testing.assert_allclose(ours[3:6], table[3:6] - pixel)


def test_anchors_have_the_areas_ratios_and_centres_asked_for():
    anchors = grid((3, 5), 8, (10, 20), (0.5, 2), (1, 1.5)).reshape(3, 5, 8, 4)
    width, height = np.moveaxis(anchors[..., 2:] - anchors[..., :2], -1, 0)
    np.testing.assert_allclose(np.sqrt(width * height)[0, 0], [10, 10, 15, 15, 20, 20, 30, 30], rtol=1e-5)
    np.testing.assert_allclose((height / width)[2, 4], [0.5, 2] * 4, rtol=1e-4)
    centres = (anchors[..., :2] + anchors[..., 2:]) / 2
    np.testing.assert_allclose(centres[2, 4], [[36, 20]] * 8, rtol=1e-5)


def test_anchors_are_kerascvs_where_it_can_say_the_same():
    """Its ratios are w / h, its scales stand before its ratios, its map is that of the picture."""
    options = {"sizes": [16.0], "scales": [1.0, 2.0], "aspect_ratios": [2.0, 1.0], "strides": [8]}
    theirs = layers.AnchorGenerator("xyxy", **options)(image_shape=(24, 40, 3))[0]
    np.testing.assert_allclose(grid((3, 5), 8, (16,), (0.5, 1), (1, 2)), theirs, rtol=1e-5)


def test_ssd300_has_8732_priors_and_ssd512_24564():
    priors = ssd_priors()
    assert priors.shape == (8732, 4)
    between = np.sqrt(30 * 60)
    sizes = [[30, 30], [between, between], [30 * 2**0.5, 30 / 2**0.5], [30 / 2**0.5, 30 * 2**0.5]]
    np.testing.assert_allclose(priors[:4, 2:] - priors[:4, :2], sizes, rtol=1e-5)
    np.testing.assert_allclose((priors[:4, 2:] + priors[:4, :2]) / 2, 4, rtol=1e-5)
    np.testing.assert_allclose(priors[4:8], priors[:4] + np.array([8, 0, 8, 0]), atol=1e-4)
    np.testing.assert_allclose(priors[-4], [150 - 132, 150 - 132, 150 + 132, 150 + 132])
    steps, ratios = (8, 16, 32, 64, 128, 256, 512), ((2,), *[(2, 3)] * 4, (2,), (2,))
    sizes = (35.84, 76.8, 153.6, 230.4, 307.2, 384, 460.8, 537.6)
    assert len(ssd_priors([64, 32, 16, 8, 4, 2, 1], steps, sizes, ratios)) == 24564


# Clusters.


def iou_in_loops(sizes, anchors):
    best = []
    for w, h in sizes:
        shared = [min(w, a) * min(h, b) for a, b in anchors]
        best.append(max(s / (w * h + a * b - s) for s, (a, b) in zip(shared, anchors)))
    return np.mean(best)


def test_the_average_iou_rises_with_each_cluster():
    found = [dimension_clusters(SIZES, k) for k in range(1, 10)]
    averages = [average for _, average in found]
    assert (np.diff(averages) > 0.003).all()
    for centroids, average in found:
        np.testing.assert_allclose([average_iou(SIZES, centroids), iou_in_loops(SIZES, centroids)], average, rtol=1e-5)
        assert (np.diff(centroids.prod(-1)) >= 0).all()


def test_a_centroid_is_the_mean_of_those_nearest_by_iou():
    for k in (1, 3, 6):
        centroids, _ = dimension_clusters(SIZES, k)
        shared = np.minimum(SIZES[:, None], centroids).prod(-1)
        owner = (shared / (SIZES.prod(-1)[:, None] + centroids.prod(-1) - shared)).argmax(-1)
        np.testing.assert_allclose(centroids, [SIZES[owner == i].mean(0) for i in range(k)], rtol=1e-5)
    # Known wrong: nearest in pixels, where 10 and 20 are closer than 100 and 112; by IoU 1/4 against 4/5.
    sides = np.repeat([10.0, 20, 100, 112], 5)
    np.testing.assert_allclose(dimension_clusters(np.stack([sides, sides], -1), 3)[0][:, 0], [10, 20, 106])


def test_as_many_clusters_as_sizes_cover_all():
    sizes = [[10, 10], [20, 5], [5, 20], [40, 40]]
    centroids, average = dimension_clusters(sizes * 3, 4)
    assert average == 1
    np.testing.assert_array_equal(sorted(centroids.tolist()), sorted(sizes))


def test_clusters_do_not_depend_on_the_order_and_follow_the_scale():
    centroids, average = dimension_clusters(SIZES, 5)
    shuffled, same = dimension_clusters(GENERATOR.permutation(SIZES), 5)
    np.testing.assert_array_equal(shuffled, centroids)
    assert same == average
    scaled, same = dimension_clusters(SIZES * 8, 5)
    np.testing.assert_allclose(scaled, centroids * 8, rtol=1e-6)
    np.testing.assert_allclose(same, average)


def test_boxes_count_by_their_sizes_and_padding_not_at_all():
    corners = GENERATOR.uniform(0, 500, SIZES.shape)
    boxes = np.concatenate([corners, corners + SIZES], -1).reshape(40, 10, 4)
    broken = [[0, 0, 0, 0], [5, 5, 5, 9], [9, 9, 2, 2], [0, 0, np.nan, 1], [0, 0, np.inf, 1]]
    padded = np.concatenate([boxes, np.broadcast_to(broken, (40, 5, 4))], 1)
    for found, expected in zip(dimension_clusters(padded, 3), dimension_clusters(SIZES, 3)):
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(average_iou(padded, [[30, 30]]), iou_in_loops(SIZES, [[30, 30]]))


def test_clusters_beat_hand_made_anchors_and_clusters_in_pixels():
    """Section 2 of the paper, in the small: by IoU against k-means in pixels and a pyramid of squares and ratios."""
    from sklearn.cluster import KMeans

    sizes = np.exp(GENERATOR.normal((3, 3.3), 0.8, (400, 2)))
    _, average = dimension_clusters(sizes, 5)
    euclidean = KMeans(5, n_init=5, random_state=0).fit(sizes).cluster_centers_
    pyramid = grid((1, 1), 16, (16, 64, 128), (0.5, 1, 2))
    assert average > average_iou(sizes, euclidean) + 0.01
    assert average > average_iou(sizes, pyramid[:, 2:] - pyramid[:, :2]) + 0.01


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: dimension_clusters([[1, 2], [1, 2], [3, 4]], 3),
            "at most 2, the number of distinct sizes, received 3",
        ),
        (lambda: dimension_clusters(SIZES, 0), "k must be at least 1"),
        (lambda: dimension_clusters(np.zeros((3, 4)), 1), "boxes with an area, received none"),
        (lambda: dimension_clusters(np.ones((3, 3)), 1), r"expected boxes \[..., 4\] or sizes"),
        (lambda: grid((2, 2), 8, (16, 0)), "sizes must be positive"),
        (lambda: grid((2, 2.5), 8, (16,)), "map_shape must be a whole number"),
        (lambda: ssd_priors(maps=(38, 19)), "received 2, 6, 6 and 7"),
    ],
)
def test_wrong_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
