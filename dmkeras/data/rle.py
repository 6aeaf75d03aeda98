"""Masks as COCO stores them: polygons and run-length codes to bitmaps, checked before pycocotools sees them.

A code holds the lengths of runs of zeros and ones in turn, column by column. Only polygons need pycocotools, whose
process ends on one far outside the picture; it would decode a code of another sum into memory never written.
"""

import numpy as np


def encode(segmentation, height, width):
    """The run lengths, int32 [runs], of COCO's `segmentation`; ValueError says why there are none.

    It is a list of polygons [x1, y1, x2, y2, ...], or {"size": [height, width], "counts": a code, compressed or not}.
    """
    if isinstance(segmentation, dict):
        size = segmentation.get("size")
        if size != [height, width]:
            raise ValueError(f"has a mask of size (height, width) {size}, not {[height, width]}")
        counts = _counts(segmentation.get("counts"), height * width)
    else:
        from pycocotools import mask

        codes = mask.frPyObjects(_polygons(segmentation, height, width), height, width)
        counts = _decompressed(mask.merge(codes)["counts"])
    if not any(counts[1::2]):
        raise ValueError("has an empty mask")
    return np.array(counts, "int32")


def bitmaps(runs, lengths, size):
    """bool [n, height, width] of the run lengths of n masks, one after the other; mask k has lengths[k] of them."""
    height, width = size
    masks = np.zeros([len(lengths), width * height], bool)
    for mask, counts in zip(masks, np.split(runs, np.cumsum(lengths)[:-1])):
        mask[:] = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return np.ascontiguousarray(masks.reshape(-1, width, height).transpose(0, 2, 1))


def _polygons(segmentation, height, width):
    try:
        polygons = [np.asarray(polygon, float).reshape(-1) for polygon in segmentation or ()]
    except (TypeError, ValueError) as error:
        raise ValueError("has a mask that is not of numbers") from error
    if not polygons or any(len(polygon) < 6 or len(polygon) % 2 for polygon in polygons):
        raise ValueError("has no mask: a polygon is a list of at least three x, y")
    if not all((np.abs(polygon.reshape(-1, 2)) <= [2 * width, 2 * height]).all() for polygon in polygons):
        raise ValueError(f"has a mask that reaches far outside the picture of {width}x{height}")
    return [polygon.tolist() for polygon in polygons]


def _counts(counts, pixels):
    """The run lengths of a code, compressed (a string) or not (a list), whose sum must be `pixels`."""
    if isinstance(counts, str):
        counts = _decompressed(counts.encode())
    if not isinstance(counts, list) or not all(isinstance(n, int) and n >= 0 for n in counts) or sum(counts) != pixels:
        raise ValueError(f"has a mask whose run lengths are not those of {pixels} pixels")
    return counts


def _decompressed(code):
    """The run lengths of a compressed code: base 32, low digits first, digit + 48, from the third on differences."""
    counts, value, shift = [], 0, 0
    for byte in code:
        digit = byte - 48
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            value -= (digit & 16) << (shift - 4)
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value, shift = 0, 0
    return counts
