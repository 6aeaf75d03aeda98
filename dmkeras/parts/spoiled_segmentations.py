"""Segmentations made worse on purpose, so that there is quality to predict.

    erosion    the structure loses its outer pixels        dilation   it grows over its neighbours
    shift      the whole map moves                         elastic    the whole map is bent
    missing    parts that hang together are left out       holes      discs within it become background
    swapped    two labels change places in a rectangle

Erosion, dilation, missing and holes each take some of the classes, at least one. `strength` is in [0, 1] and relative
to the structures' own thickness, so that it means the same for lungs and for nuclei. What a structure leaves becomes
the nearest other label. Pixels of -1 (void) stay so.

Shapes:  H height, W width of a map int32 [H, W]: 0 background, 1 to K classes, -1 void.
"""

import numpy as np

KINDS = ("erosion", "dilation", "shift", "missing", "elastic", "holes", "swapped")


def spoil(labels, kind, strength, seed=0):
    """`labels` [H, W] made worse in one of the ways of `KINDS`; the same for the same seed.

    Args:
        labels: int32 [H, W].
        kind: one of `KINDS`.
        strength: from 0, which changes nothing, to 1.
        seed: a number, or numbers, as `np.random.default_rng` takes them.

    Raises:
        ValueError: for another kind, a strength outside of [0, 1], labels that are no map of whole numbers.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise ValueError(f"expected labels [H, W] of whole numbers, received {labels.dtype} {list(labels.shape)}")
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, received {kind!r}")
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must be in [0, 1], received {strength}")
    labels, rng = labels.astype("int32"), np.random.default_rng(seed)
    if strength == 0 or not (labels > 0).any():
        return labels
    spoiled = _WAYS[kind](labels, strength, rng)
    return np.where(labels < 0, labels, spoiled).astype("int32")


def _some_classes(labels, rng):
    classes = np.unique(labels[labels > 0])
    return rng.choice(classes, rng.integers(1, len(classes) + 1), replace=False)


def _thickness(inside):
    """Distance [H, W] of each pixel of a structure to the nearest outside of it, and the largest, in pixels."""
    from scipy import ndimage

    depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    return depth, depth.max()


def _without(labels, gone, kind):
    """`labels` where the pixels `gone` of class `kind` get the nearest label that is neither `kind` nor void."""
    from scipy import ndimage

    others = (labels != kind) & (labels >= 0)
    if not others.any():
        return np.where(gone, 0, labels)
    rows, columns = ndimage.distance_transform_edt(~others, return_distances=False, return_indices=True)
    return np.where(gone, labels[rows, columns], labels)


def _erosion(labels, strength, rng):
    for kind in _some_classes(labels, rng):
        depth, most = _thickness(labels == kind)
        labels = _without(labels, (labels == kind) & (depth <= strength * most), kind)
    return labels


def _dilation(labels, strength, rng):
    from scipy import ndimage

    for kind in _some_classes(labels, rng):
        _, most = _thickness(labels == kind)
        labels = np.where(ndimage.distance_transform_edt(labels != kind) <= strength * most, kind, labels)
    return labels


def _shift(labels, strength, rng):
    most = np.mean([_thickness(labels == kind)[1] for kind in np.unique(labels[labels > 0])])
    angle = rng.uniform(0, 2 * np.pi)
    move = 1.5 * strength * most * np.array([np.sin(angle), np.cos(angle)])
    return _seen_at(labels, np.indices(labels.shape) - move[:, None, None])


def _elastic(labels, strength, rng):
    from scipy import ndimage

    most = np.mean([_thickness(labels == kind)[1] for kind in np.unique(labels[labels > 0])])
    field = ndimage.gaussian_filter(rng.normal(size=(2, *labels.shape)), (0, most, most), mode="nearest")
    return _seen_at(labels, np.indices(labels.shape) + 4 * strength * most * field / np.abs(field).max())


def _seen_at(labels, places):
    rows, columns = (np.clip(np.rint(place), 0, side - 1).astype(int) for place, side in zip(places, labels.shape))
    return np.maximum(labels[rows, columns], 0)


def _missing(labels, strength, rng):
    from scipy import ndimage

    for kind in _some_classes(labels, rng):
        parts, count = ndimage.label(labels == kind)
        gone = 1 + np.flatnonzero(rng.uniform(size=count) < strength)
        labels = _without(labels, np.isin(parts, gone), kind)
    return labels


def _holes(labels, strength, rng):
    spoiled = labels.copy()
    for kind in _some_classes(labels, rng):
        inside = labels == kind
        places, (_, most) = np.argwhere(inside), _thickness(inside)
        radius = max(0.4 * most, 1.0)
        for y, x in rng.permutation(places):
            if (spoiled[inside] != kind).mean() >= 0.9 * strength:
                break
            rows, columns = np.ogrid[: labels.shape[0], : labels.shape[1]]
            spoiled[inside & ((rows - y) ** 2 + (columns - x) ** 2 <= radius**2)] = 0
    return spoiled


def _swapped(labels, strength, rng):
    classes = np.unique(labels[labels > 0])
    first, second = rng.choice(classes, 2, replace=False) if len(classes) > 1 else (0, classes[0])
    sides = np.rint(np.sqrt(strength) * np.array(labels.shape)).astype(int)
    y, x = (rng.integers(0, whole - side + 1) for whole, side in zip(labels.shape, sides))
    spoiled = labels.copy()
    part = spoiled[y : y + sides[0], x : x + sides[1]]
    part[...] = np.select([part == first, part == second], [second, first], part)
    return spoiled


_WAYS = {kind: globals()[f"_{kind}"] for kind in KINDS}
