"""SSD's random changes of pictures with boxes: colours, a larger canvas, a crop that keeps an object, a mirror image.

Liu et al., 2016 (https://arxiv.org/abs/1512.02325), sections 2.2 and 3.6; where the paper is silent,
examples/ssd/ssd_pascal.py, src/caffe/util/sampler.cpp and im_transforms.cpp of https://github.com/weiliu89/caffe.
Of each picture of a batch, in this order, inside tf.data or a graph:

    colours   each with chance 1/2: brightness + U(-32, 32) / 255; contrast, all times U(.5, 1.5); saturation times
              U(.5, 1.5); hue + U(-.1, .1) of a turn (18 of OpenCV's 180). Contrast comes before saturation and hue, or
              after them, half each; values are cut to [0, 1] after every step
    expand    with chance 1/2 the picture lies anywhere on a canvas of the mean, r times as wide and high, r from
              U(1, expand)
    crop      one of those that were found, each with the same chance: the whole; for each j of LEAST a part whose IoU
              with an object is at least j (0: any part). A part has U(.3, 1) times the sides of the canvas by the root
              of its ratio, U(.5, 2) but such that it fits, and lies anywhere; the first of 50 that will do is found
    flip      with this chance
    boxes     follow exactly, cut to the picture; dropped where their centre lies outside

All parts are drawn and compared at once, [B, 6, 50, 4], so there is no loop. A picture without objects stays whole.
Windows and their pixels are dmkeras/parts/box_augmentation.py's.

Deviations: pixels are interpolated bilinearly, the code draws one of five ways; pictures do not change their size, so
parts are stretched to it, as there.

Shapes:  B pictures, H, W sides, C colours, N boxes.
"""

import tensorflow as tf

from dmkeras.parts import box_augmentation as windows_of
from dmkeras.parts.boxes import is_real, pairwise_iou
from dmkeras.parts.checks import number

LEAST = (0.1, 0.3, 0.5, 0.7, 0.9, 0.0)
TRIALS = 50
MEAN = (123 / 255, 117 / 255, 104 / 255)  # of ImageNet's pictures, RGB


@tf.autograph.experimental.do_not_convert  # there is nothing to convert, and looking for it takes long
def augment(images, boxes, classes, seed, colours=True, expand=4.0, crop=True, flip=0.5):
    """(images [B, H, W, C], boxes [B, N, 4], classes [B, N]), drawn anew for each picture.

    Args:
        images: [B, H, W, C] in [0, 1]; colours are changed of three channels.
        boxes: [B, N, 4], xyxy in pixels.
        classes: [B, N], -1 for padding.
        seed: int32 or int64 [2]; the answer is a function of it and of the other arguments alone.
        colours: whether they change.
        expand: greatest ratio of the canvas, at least 1.
        crop: whether parts are taken.
        flip: chance of a mirror image, in [0, 1].
    """
    images, boxes, classes = windows_of.check_batch(images, boxes, classes)
    flip, expand = number("flip", flip, below=windows_of.ABOVE_1), number("expand", expand, 1)
    if colours and images.shape[3] != 3:
        raise ValueError(f"colours need three channels, received {images.shape}; give colours=False")
    sides, size = windows_of.sizes_of(images, None)
    counts = [9, 4, 1, 1 + len(LEAST), len(LEAST) * TRIALS * 4]
    draws = tf.random.stateless_uniform([tf.shape(images)[0], sum(counts)], seed, alg="philox")
    colour, canvas, mirrored, chances, places = tf.split(draws, counts, axis=1)
    images = distorted(images, tf.unstack(colour, axis=1)) if colours else images
    still = [tf.zeros_like(mirrored[:, 0])] * 5  # neither a mirror image nor moved edges here
    window = windows_of.draw_windows([*still, *tf.unstack(canvas, axis=1)], sides, 0.0, 0.0, expand)
    if crop:
        places = tf.reshape(places, [-1, len(LEAST), TRIALS, 4])
        window = cropped(window, boxes, is_real(boxes, classes), places, chances)
    exchanged = tf.concat([tf.zeros_like(mirrored, tf.bool), mirrored < flip], axis=1)  # [B, 2], y and x
    window = tf.where(exchanged, *window[::-1]), tf.where(exchanged, *window)
    mean = tf.constant(MEAN if images.shape[3] == 3 else sum(MEAN) / 3)
    images = windows_of.resample(images - mean + windows_of.FILL, window, size) - windows_of.FILL + mean
    return tf.clip_by_value(images, 0.0, 1.0), *windows_of.move(boxes, classes, window, size, 0.0)


def distorted(images, draws):
    """Pictures [B, H, W, 3] in other colours, by nine draws [B] in [0, 1]."""
    b_on, b, c_on, c, first, s_on, s, h_on, h = (draw[:, None, None] for draw in draws)  # [B, 1, 1]
    cut = lambda images: tf.clip_by_value(images, 0.0, 1.0)
    contrast = tf.where(c_on < 0.5, 0.5 + c, 1.0)[..., None]
    images = cut(images + tf.where(b_on < 0.5, (2 * b - 1) * 32 / 255, 0.0)[..., None])
    images = cut(images * tf.where(first[..., None] < 0.5, contrast, 1.0))
    turn, factor = tf.where(h_on < 0.5, (2 * h - 1) * 0.1, 0.0), tf.where(s_on < 0.5, 0.5 + s, 1.0)
    images = cut(windows_of.turned(images, turn, factor))
    return cut(images * tf.where(first[..., None] < 0.5, 1.0, contrast))


def cropped(window, boxes, real, places, chances):
    """One part of each window, start and end [B, 2] each, (y, x) in pixels.

    Args:
        window: start and end [B, 2] of the whole canvases.
        boxes: [B, N, 4] xyxy in pixels.
        real: [B, N] bool.
        places: [B, J, T, 4] draws in [0, 1]: of T parts for each of J = len(LEAST) ways.
        chances: [B, 1 + J] draws, of the whole and of the ways; the highest of those that were found is taken.
    """
    start, end = (side[:, None, None] for side in window)  # [B, 1, 1, 2]
    low, high = drawn_parts(places)  # [B, J, T, 2]
    low, high = start + low * (end - start), start + high * (end - start)
    parts = tf.reshape(tf.concat([low[..., ::-1], high[..., ::-1]], -1), [tf.shape(low)[0], -1, 4])  # xyxy
    overlap = tf.where(real[:, None], pairwise_iou(parts, boxes), -1.0)  # [B, J T, N]
    overlap = tf.pad(overlap, [[0, 0], [0, 0], [0, 1]], constant_values=-1.0)  # there may be no rows
    best = tf.reshape(tf.reduce_max(overlap, -1), tf.shape(low)[:3])
    found = best >= tf.constant(LEAST)[:, None]  # [B, J, T]
    first = tf.argmax(found, -1, output_type=tf.int32)  # of equal ones the first
    low, high = (tf.gather(corner, first, axis=2, batch_dims=2) for corner in (low, high))  # [B, J, 2]
    low, high = (tf.concat(pair, 1) for pair in ((start[:, :, 0], low), (end[:, :, 0], high)))
    there = tf.pad(tf.reduce_any(found, -1), [[0, 0], [1, 0]], constant_values=True)
    way = tf.argmax(tf.where(there, chances, -1.0), -1)
    return tuple(tf.gather(corner, way, axis=1, batch_dims=1) for corner in (low, high))


def drawn_parts(places):
    """Draws [..., 4] in [0, 1] -> start and end [..., 2], (y, x) as parts of the canvas."""
    scale, ratio, down, across = tf.unstack(places, axis=-1)
    scale = 0.3 + 0.7 * scale
    ratio = tf.clip_by_value(0.5 + 1.5 * ratio, scale**2, 1 / scale**2)
    size = tf.stack([scale / tf.sqrt(ratio), scale * tf.sqrt(ratio)], -1)
    start = tf.stack([down, across], -1) * (1 - size)
    return start, start + size
