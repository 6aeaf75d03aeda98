"""What maps of attribution are measured by, and a sheet of many methods on the same pictures.

    pointing    share of maps whose greatest value lies inside of the object's box: the pointing game of Zhang et al.
                (https://arxiv.org/abs/1608.00507); equal maxima count by their part
    mass        share of a map's sum that lies inside of the box, after Wang et al. (https://arxiv.org/abs/1910.01279)
    likeness    rank correlation of two maps of a picture, Spearman's: after the weights are shuffled it tells how much
                of a map is not the network's, Adebayo et al. (https://arxiv.org/abs/1810.03292)
    edges       a map without any network: the length of the picture's own gradient, what an attribution has to beat

Shapes:  N pictures, H height, W width, C colours.
"""

import contextlib

import numpy as np

SHOWN = 99  # percent of the pixels below the brightest of a drawn map


def inside(boxes, sides):
    """The pixels [N, H, W] whose middles lie in boxes [N, 4], xyxy in pixels."""
    rows, columns = (np.arange(side) + 0.5 for side in sides)
    x1, y1, x2, y2 = np.asarray(boxes).T[:, :, None]
    return ((rows >= y1) & (rows < y2))[:, :, None] & ((columns >= x1) & (columns < x2))[:, None]


def pointing(maps, within):
    """maps, within [N, H, W] -> a share."""
    best = maps == maps.max((1, 2), keepdims=True)
    return float(((best & within).sum((1, 2)) / best.sum((1, 2))).mean())


def mass(maps, within):
    """maps of at least zero, within [N, H, W] -> a share; of an empty map the box's share of the picture."""
    maps = maps + 1e-30
    return float(((maps * within).sum((1, 2)) / maps.sum((1, 2))).mean())


def likeness(first, second):
    """Two maps [N, H, W] of each picture -> the mean of N rank correlations."""
    from scipy.stats import rankdata

    ranks = [rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (first, second)]
    ranks = [rank - rank.mean(1, keepdims=True) for rank in ranks]
    lengths = [np.sqrt((rank**2).sum(1)) for rank in ranks]
    return float(((ranks[0] * ranks[1]).sum(1) / np.maximum(lengths[0] * lengths[1], 1e-12)).mean())


def edges(images):
    """images [N, H, W, C] -> [N, H, W]: the greatest colour's gradient, between neighbours on both sides."""
    down, across = np.gradient(np.asarray(images, "float32"), axis=(1, 2))
    return np.sqrt(down**2 + across**2).max(-1)


@contextlib.contextmanager
def shuffled(layers, seed=0):
    """Meanwhile each weight of these layers holds its own numbers in another order."""
    kept, rng = [layer.get_weights() for layer in layers], np.random.default_rng(seed)
    try:
        for layer, weights in zip(layers, kept, strict=True):
            layer.set_weights([rng.permutation(weight.ravel()).reshape(weight.shape) for weight in weights])
        yield
    finally:
        for layer, weights in zip(layers, kept, strict=True):
            layer.set_weights(weights)


def side_by_side(images, maps, names, figures, **options):
    """A sheet: a row for each picture, its name at the left, and a column for each method, brightest where it is most.

    Args:
        images: [N, H, W, C] in [0, 1].
        maps: {method: [N, H, W]}, of any scale; what is below zero counts as zero.
        names: N texts.
        figures: the module.
        options: of `figures.grid`.
    """
    tiles = []
    for index, image in enumerate(images):
        tiles += [image, *(_grey(one[index]) for one in maps.values())]
    return figures.grid(tiles, row_labels=list(names), column_labels=["picture", *maps], **options)


def _grey(values):
    values = np.maximum(values, 0)
    return np.clip(values / max(np.percentile(values, SHOWN), 1e-30), 0, 1)
