"""What an answer holds that can be drawn, and its drawings as files that overwrite nothing.

    detection_boxes ...   boxes with labels and scores over the picture that was sent
    a map [B, h, w]       over it: integers as masks of classes, floats as a heat map with its scale
    ..._bytes             encoded pictures, written as they are
    pictures              float in [0, 1] or uint8, [B, H, W, 1 or 3]: one grid of all rows on grey, which shows through
                          where a row has none

A map is known by a name that ends in map, mask, saliency or depth, or by the height and width of the picture.
"""

import re
import sys

import numpy as np

DETECTION = ("detection_boxes", "detection_scores", "detection_classes")
MAP = re.compile(r"(?:map|mask|saliency|depth|segmentation)s?$")
GROUND = 200  # the grey behind a grid, on which black and white edges are seen
KINDS = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif", b"BM": ".bmp"}  # how encoded pictures begin


class Drawer:
    """Draws answers batch by batch; grids of all rows at the end."""

    def __init__(self, folder, stem, labels=None, min_score=0.0):
        self._folder, self._stem, self._labels, self._min_score = folder, stem, labels, min_score
        self._grids = {}

    def draw(self, names, sent, outputs, rows=None):
        """Draws a batch.

        names: for each row, what its files are named after, or None.
        sent: place in the batch -> the picture that was sent, uint8 [H, W, 3]; None where none was.
        outputs: {name: array [B, ...]}.
        rows: their numbers among all rows, which are their places in a grid; None: they follow one another.
        """
        for name, array in outputs.items():
            if array.dtype == object and name.endswith("_bytes") and array.ndim >= 1:
                self._write(name, names, array)
            elif (found := _pictures(array)) is not None:
                grid = self._grids.setdefault(name, {})
                follow = range(max(grid, default=-1) + 1, max(grid, default=-1) + 1 + len(found))
                grid.update(zip(rows if rows is not None and len(rows) == len(found) else follow, found))
        if sent is None:
            return
        for place, row in enumerate(names):
            if set(DETECTION) <= set(outputs):
                self._save(_joined(self._stem, row), self._detections, sent(place), outputs, place)
            for name, array in outputs.items():
                if array.ndim == 3 and name not in DETECTION and _is_map(name, array, sent, place):
                    self._save(_joined(self._stem, name, row), self._map, sent(place), array[place], name)

    def finish(self, count=0):
        """Draws the grids, with room for `count` rows at least."""
        for name, found in self._grids.items():
            hole = np.full_like(next(iter(found.values())), GROUND, np.uint8)
            tiles = [found.get(row, hole) for row in range(max(count, max(found) + 1))]
            self._save(_joined(self._stem, name), _grid, tiles)
        self._grids = {}

    def _detections(self, picture, outputs, place):
        boxes, scores, classes = (outputs[name][place] for name in DETECTION)
        count = int(outputs["num_detections"][place]) if "num_detections" in outputs else len(scores)
        filled = np.arange(len(scores)) < count
        kept = filled & (scores >= self._min_score)
        if kept.sum() < count:
            print(f"drawn: {kept.sum()} of {count} detections, those of {self._min_score:g} or more", file=sys.stderr)
        height, width = picture.shape[:2]
        corners = boxes[kept][:, [1, 0, 3, 2]] * np.array([width, height, width, height])
        kinds = classes[kept].astype(int)
        names = {kind: self._label(kind) for kind in kinds.tolist()}
        return _figures().boxes(picture, corners, kinds, scores=scores[kept], names=names)

    def _map(self, picture, values, name):
        if values.dtype.kind == "f":
            return _figures().heat_map(values, picture, title=name)
        names = {kind: self._label(kind) for kind in np.unique(values).tolist()}
        return _figures().masks(picture, _stretched(values.astype(int), picture.shape[:2]), names=names)

    def _label(self, kind):
        return self._labels[kind] if self._labels and 0 <= kind < len(self._labels) else str(kind)

    def _write(self, name, names, array):
        """The encoded pictures of an output, one file each."""
        for row, contents in zip(names, array, strict=True):
            contents = np.atleast_1d(np.asarray(contents, object)).ravel()
            for number, content in enumerate(contents):
                if content:
                    end = next((end for start, end in KINDS.items() if content.startswith(start)), ".bin")
                    end = ".webp" if content[:4] == b"RIFF" and content[8:12] == b"WEBP" else end
                    part = str(number) if len(contents) > 1 else None
                    path = self._free(_joined(self._stem, name, row, part), end)
                    path.write_bytes(content)
                    print(path, file=sys.stderr)

    def _save(self, stem, make, *arguments):
        try:
            picture = make(*arguments)
        except ValueError as error:  # such as a heat map of NaN: the answer itself is printed all the same
            print(f"{stem} is not drawn: {error}", file=sys.stderr)
            return
        print(_figures().save(self._free(stem, ".png"), picture), file=sys.stderr)

    def _free(self, stem, end):
        """The first path that is free."""
        path, number = self._folder / f"{stem}{end}", 1
        while path.exists():
            number += 1
            path = self._folder / f"{stem}_{number}{end}"
        return path


def _figures():
    from dmkeras import figures

    return figures


def _grid(tiles):
    return _figures().grid(tiles, ground=(GROUND,) * 3)


def _joined(*parts):
    return "_".join(part for part in parts if part is not None)


def _pictures(array):
    """The rows of an output that are pictures, or None."""
    if array.ndim != 4 or array.shape[3] not in (1, 3) or array.dtype not in (np.float32, np.uint8) or not array.size:
        return None
    return None if array.dtype == np.float32 and not ((array >= 0) & (array <= 1)).all() else list(array)


def _is_map(name, array, sent, place):
    if array.dtype.kind not in "iuf" or not array.size:
        return False
    return bool(MAP.search(name)) or array.shape[1:] == sent(place).shape[:2]


def _stretched(values, shape):
    """A map [h, w] over the height and width of a picture, without new values in between."""
    rows, columns = (np.arange(size) * old // size for size, old in zip(shape, values.shape, strict=True))
    return values[np.ix_(rows, columns)]
