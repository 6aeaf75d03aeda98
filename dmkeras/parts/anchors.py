"""Boxes to start from: a grid of anchors, SSD's priors, and sizes found in the data.

    grid                 at each cell of a map, boxes of each size, scale and ratio; area (size scale)^2, ratio h / w
                         Ren et al. 2015, https://arxiv.org/abs/1506.01497, section 3.1.1
    ssd_priors           Liu et al. 2016, https://arxiv.org/abs/1512.02325, section 2.2, sizes of ssd_pascal.py
    dimension_clusters   k-means on (w, h) with d(box, centroid) = 1 - IoU(box, centroid), both at the origin
                         Redmon and Farhadi 2016, https://arxiv.org/abs/1612.08242, section 2

All are NumPy arrays, constants of the graph that uses them. Centres lie at (i + offset) stride; offset 0.5 is the
middle of a cell, 0 its corner (detectron2's default). Coordinates are continuous: py-faster-rcnn's table counts pixels,
with widths x2 - x1 + 1, and rounds; it is a reference of the tests alone.

KerasCV's AnchorGenerator is not used: its offset is 0.5 only, it joins sizes and ratios one to one instead of all with
all, and it takes a picture's shape where a network knows its maps'; where they can agree, they do (tests).

Deviations of the clusters: the paper does not say how k-means starts or ends; here by k-means++ in the same distance,
RESTARTS times, until no box changes its cluster (STEPS at most: means need not raise the IoU), and the run of highest
average IoU counts. A cluster that empties starts anew at the box worst covered.

Shapes:  h and w cells of a map, A anchors a cell, N boxes, k clusters.
"""

import numpy as np

from dmkeras.parts.checks import whole_number

RESTARTS, STEPS = 10, 100


def grid(map_shape, stride, sizes, ratios=(1.0,), scales=(1.0,), offset=0.5):
    """Anchors xyxy float32 [h w A, 4], A = sizes x scales x ratios in this order, cells row by row.

    `map_shape` (h, w), `stride` in pixels, `ratios` h / w, `offset` of the centres in cells.
    """
    height, width = (whole_number("map_shape", side, 1) for side in map_shape[:2])
    sides = np.ravel(np.multiply.outer(positive("sizes", sizes), positive("scales", scales)))
    roots = np.sqrt(positive("ratios", ratios))
    shapes = np.stack([np.divide.outer(sides, roots), np.multiply.outer(sides, roots)], -1).reshape(-1, 2)  # w, h
    return placed((height, width), positive("stride", stride), shapes, offset)


def placed(map_shape, stride, shapes, offset):
    """Boxes of `shapes` (w, h) [A, 2] around the centre of each cell, [h w A, 4] float32."""
    y, x = ((np.arange(side) + offset) * stride for side in map_shape)
    centres = np.stack(np.meshgrid(x, y), -1)[:, :, None]  # [h, w, 1, 2]
    boxes = np.concatenate([centres - shapes / 2, centres + shapes / 2], -1)
    return boxes.reshape(-1, 4).astype("float32")


def ssd_priors(
    maps=(38, 19, 10, 5, 3, 1),
    steps=(8, 16, 32, 64, 100, 300),
    sizes=(30, 60, 111, 162, 213, 264, 315),
    ratios=((2,), (2, 3), (2, 3), (2, 3), (2,), (2,)),
):
    """SSD's priors xyxy float32, map by map; as given SSD300's, [8732, 4].

    `sizes` has one more than `maps`: map i has a square of s_i, one of sqrt(s_i s_(i+1)), and s_i at each of its ratios
    r = w / h and at 1 / r. `maps` are sides of square maps, or (h, w); `steps` their strides.
    """
    if not len(maps) == len(steps) == len(ratios) == len(sizes) - 1:
        counts = f"{len(maps)}, {len(steps)}, {len(ratios)} and {len(sizes)}"
        raise ValueError(f"expected maps, steps and ratios of one length and one more size, received {counts}")
    priors = []
    for side, step, size, larger, shapes in zip(maps, steps, sizes, sizes[1:], ratios):
        roots = np.sqrt([ratio for r in shapes for ratio in (r, 1 / r)])
        between = np.sqrt(size * larger)
        shapes = [(size, size), (between, between), *zip(size * roots, size / roots)]
        priors.append(placed(np.broadcast_to(side, 2), step, np.array(shapes), 0.5))
    return np.concatenate(priors)


def positive(name, values):
    """`values` as float64, [n] or a number; ValueError unless all are positive."""
    values = np.asarray(values, "float64")
    if values.size == 0 or not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError(f"{name} must be positive and finite, received {values}")
    return values


# --- sizes found in the data ----------------------------------------------------------------------------------------


def dimension_clusters(boxes, k, seed=0):
    """Centroids (w, h) float32 [k, 2], smallest area first, and the average IoU of `boxes` with their centroid.

    `boxes` xyxy [..., 4] or sizes (w, h) [..., 2], in any order. Rows without area or not finite are left out; padding
    must be such (zeros), or be taken out before.
    """
    k = whole_number("k", k, 1)
    sizes, weights = np.unique(real_sizes(boxes), axis=0, return_counts=True)  # sorted: the order given is forgotten
    if k > len(sizes):
        raise ValueError(f"expected k of at most {len(sizes)}, the number of distinct sizes, received {k}")
    generator = np.random.default_rng(seed)
    score, centroids = max((lloyd(sizes, weights, k, generator) for _ in range(RESTARTS)), key=lambda run: run[0])
    order = np.argsort(centroids.prod(-1), kind="stable")
    return centroids[order].astype("float32"), float(score)


def average_iou(boxes, anchors):
    """Mean over `boxes` (or sizes (w, h)) of the IoU with the anchor (w, h) [k, 2] that fits best, at one centre."""
    return float(size_iou(real_sizes(boxes), np.asarray(anchors, "float64")).max(-1).mean())


def lloyd(sizes, weights, k, generator):
    """One run of k-means from a random start: (average IoU, centroids)."""
    centroids, owner = spread(sizes, weights, k, generator), None
    for _ in range(STEPS):
        overlaps = size_iou(sizes, centroids)
        previous, owner, fit = owner, overlaps.argmax(-1), overlaps.max(-1)
        if np.array_equal(owner, previous):
            break
        counts = np.bincount(owner, weights, k)
        sums = np.stack([np.bincount(owner, weights * side, k) for side in sizes.T], -1)
        centroids = sums / np.maximum(counts, 1)[:, None]
        empty = np.flatnonzero(counts == 0)
        centroids[empty] = sizes[np.argsort(fit, kind="stable")[: len(empty)]]
    return np.average(size_iou(sizes, centroids).max(-1), weights=weights), centroids


def spread(sizes, weights, k, generator):
    """k of the sizes to start from, drawn in proportion to 1 - IoU with the nearest drawn before (k-means++)."""
    chosen, distance = [], np.ones(len(sizes))
    for _ in range(k):
        chance = weights * distance
        chosen.append(generator.choice(len(sizes), p=chance / chance.sum()))
        distance = np.minimum(distance, 1 - size_iou(sizes, sizes[chosen[-1:]])[:, 0])
        distance[chosen] = 0
    return sizes[chosen]


def size_iou(sizes, others):
    """IoU of boxes at the origin, [N, 2] and [k, 2] -> [N, k]."""
    intersection = np.minimum(sizes[:, None], others).prod(-1)
    return intersection / (sizes.prod(-1)[:, None] + others.prod(-1) - intersection)


def real_sizes(boxes):
    """(w, h) float64 [n, 2] of those that have an area."""
    boxes = np.asarray(boxes, "float64")
    if boxes.ndim < 2 or boxes.shape[-1] not in (2, 4):
        raise ValueError(f"expected boxes [..., 4] or sizes [..., 2], received {list(boxes.shape)}")
    sizes = (boxes[..., 2:] - boxes[..., :2] if boxes.shape[-1] == 4 else boxes).reshape(-1, 2)
    sizes = sizes[np.isfinite(sizes).all(-1) & (sizes > 0).all(-1)]
    if not len(sizes):
        raise ValueError("expected boxes with an area, received none")
    return sizes
