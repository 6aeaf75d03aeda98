"""Random mirror images, crops, margins and colours of pictures with boxes, a batch at once, inside tf.data or a graph.

Each picture has a window [x0, x1] x [y0, y1] in its own pixels, which the answer shows in full:

    expand   with chance 1/2 the picture lies anywhere on a grey canvas r times as wide and high, r ~ U(1, expand)
             (SSD, https://arxiv.org/abs/1512.02325, section 3.6; 4 there)
    jitter   each edge of the window moves by U(-jitter, jitter) of its side, in or out (darknet's load_data_detection,
             src/data.c, https://github.com/pjreddie/darknet, as of YOLOv2; 0.2 there, 0.3 in yolov2-voc.cfg)
    flip     with this chance x0 and x1 are exchanged
    x_out = (x - x0) W' / (x1 - x0), y likewise: boxes exactly, pixels by one bilinear resampling between centres
    colour   hue h + U(-hue, hue) turns; saturation and value times f, f ~ U(1, limit) or its inverse, half each; RGB
             cut to [0, 1] at the end (darknet's random_distort_image, src/image.c; .1, 1.5, 1.5 in yolov2-voc.cfg)

A box is cut to the picture. It is dropped, as class -1 and zeros, where its centre (before the cut) lies outside, as
SSD does, where less than `min_visible` of its area is left (at least 1/4 is with the centre inside), where a side is
less than darknet's 0.001 of the picture's, and where it was reversed, empty or not finite. Rows of class -1 come out as
zeros. Values that turn all of the geometry off (flip 0, jitter 0, expand 1, no output_size) leave pixels, boxes and
classes bit for bit; so do hue 0, saturation 1 and exposure 1 the colours.

Deviations: what lies outside the picture is grey 0.5 (darknet repeats the border, SSD takes the mean); edges move by
parts of pixels; SSD's crops by least IoU are left out. Shrinking is not antialiased, as in both. The map is along the
axes, so that rows and columns are interpolated in turn: but for rounding what ImageProjectiveTransformV3 gives, 2 to 4
times as fast on a CPU, and XLA can compile it.

Shapes:  B pictures, H, W sides sent and H', W' answered, C colours, N boxes.
"""

import numpy as np
import tensorflow as tf

from dmkeras.parts.boxes import is_real
from dmkeras.parts.checks import number
from dmkeras.parts.letterbox import check_size

FILL = 0.5
ABOVE_1 = np.nextafter(1, 2)
LEAST_SIDE = 0.001  # of the picture's
LARGE = 300_000  # numbers of a picture from which pictures are drawn one by one: their steps then stay in the cache


@tf.autograph.experimental.do_not_convert  # there is nothing to convert, and looking for it takes long
def augment(
    images,
    boxes,
    classes,
    seed,
    flip=0.5,
    jitter=0.2,
    expand=1.0,
    hue=0.0,
    saturation=1.0,
    exposure=1.0,
    output_size=None,
    min_visible=0.0,
):
    """(images [B, H', W', C], boxes [B, N, 4], classes [B, N]), drawn anew for each picture.

    Args:
        images: [B, H, W, C] in [0, 1]; colours are changed of three channels, exposure of any.
        boxes: [B, N, 4], xyxy in pixels.
        classes: [B, N], -1 for padding.
        seed: int32 or int64 [2]; the answer is a function of it and of the other arguments alone.
        flip: chance of a mirror image, in [0, 1].
        jitter: greatest part of its side by which an edge moves, less than 0.5.
        expand: greatest ratio of the canvas, at least 1.
        hue: greatest turn of the hue, at most 0.5 (1 is a whole turn).
        saturation: greatest factor, at least 1.
        exposure: greatest factor, at least 1.
        output_size: (H', W'), by default those of `images`.
        min_visible: least part of a box's area inside the picture, in [0, 1].
    """
    images, boxes, classes = check_batch(images, boxes, classes)
    flip, min_visible = number("flip", flip, below=ABOVE_1), number("min_visible", min_visible, below=ABOVE_1)
    jitter, expand = number("jitter", jitter, below=0.5), number("expand", expand, 1)
    hue, saturation = number("hue", hue, below=ABOVE_1 / 2), number("saturation", saturation, 1)
    exposure = number("exposure", exposure, 1)
    if (hue or saturation > 1) and images.shape[3] != 3:
        raise ValueError(f"hue and saturation need three colours, received {images.shape}; leave them at 0 and 1")
    sides, size = sizes_of(images, output_size)
    draws = tf.random.stateless_uniform([tf.shape(images)[0], 14], seed, alg="philox")  # XLA draws others
    draws = tf.unstack(draws, axis=1)  # [B] each
    windows = draw_windows(draws[:9], sides, flip, jitter, expand)
    tints = hue * (2 * draws[9] - 1), factor(*draws[10:12], saturation), factor(*draws[12:], exposure)
    moves = flip or jitter or expand > 1 or output_size is not None

    def render(images, windows, tints):
        images = resample(images, windows, size) if moves else images
        return recolour(images, tints, hue, saturation, exposure)

    if moves:
        boxes, classes = move(boxes, classes, windows, size, min_visible)
    shape = images.shape[1:]
    if shape.num_elements() is None or shape.num_elements() < LARGE:
        return render(images, windows, tints), boxes, classes
    one = lambda parts: render(*tf.nest.map_structure(lambda part: part[None], parts))[0]
    answer = tf.TensorSpec([*(size if moves else shape[:2]), shape[2]], tf.float32)
    return tf.map_fn(one, (images, windows, tints), fn_output_signature=answer), boxes, classes


def draw_windows(draws, sides, flip, jitter, expand):
    """Start and end [B, 2] each, (y, x) in pixels of the pictures sent; mirrored where x starts at its greater end."""
    mirrored, left, right, top, bottom, expanded, ratio, across, down = draws
    sides = tf.cast(tf.stack(sides), tf.float32)  # [2]
    ratio = tf.where(expanded < 0.5, 1 + ratio * (expand - 1), 1.0)[:, None]
    start = -tf.stack([down, across], axis=1) * (ratio - 1) * sides  # [B, 2]
    end, side = start + ratio * sides, ratio * sides
    start = start + side * jitter * (2 * tf.stack([top, left], axis=1) - 1)
    end = end - side * jitter * (2 * tf.stack([bottom, right], axis=1) - 1)
    exchanged = tf.stack([tf.zeros_like(mirrored, tf.bool), mirrored < flip], axis=1)
    return tf.where(exchanged, end, start), tf.where(exchanged, start, end)


def factor(place, side, limit):
    """f or 1 / f, half each, f ~ U(1, limit)."""
    f = 1 + place * (limit - 1)
    return tf.where(side < 0.5, f, 1 / f)


def resample(images, windows, size):
    """The windows of pictures [B, H, W, C] in [B, H', W', C]; grey outside."""
    start, end = windows
    images = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=FILL)
    images = interpolate(images, start[:, 0], end[:, 0], size[0])
    images = tf.transpose(images, [0, 2, 1, 3])  # [B, W + 2, H', C]
    images = interpolate(images, start[:, 1], end[:, 1], size[1])
    return tf.transpose(images, [0, 2, 1, 3])


def interpolate(images, start, end, count):
    """`count` rows of [B, S + 2, ...], whose first and last lie outside, at equal distances in the window."""
    steps = (tf.range(count, dtype=tf.float32) + 0.5) * ((end - start) / tf.cast(count, tf.float32))[:, None]
    place = start[:, None] + steps - 0.5  # pixel i has its centre at i + 0.5
    last = tf.shape(images)[1] - 1
    below = tf.floor(place)
    row = tf.cast(below, tf.int32) + 1
    lower, upper = (tf.gather(images, tf.clip_by_value(row + i, 0, last), axis=1, batch_dims=1) for i in (0, 1))
    return lower + (upper - lower) * (place - below)[:, :, None, None]


def move(boxes, classes, windows, size, min_visible):
    """Boxes [B, N, 4] as the windows show them, cut to the picture, and classes; those dropped are zeros and -1."""
    real = is_real(boxes, classes)
    start, end = (window[:, None, ::-1] for window in windows)  # [B, 1, 2], x, y
    limits = tf.cast(tf.stack(size[::-1]), tf.float32)  # [2]
    ends = [(corner - start) * (limits / (end - start)) for corner in (boxes[..., :2], boxes[..., 2:])]
    low, high = tf.minimum(*ends), tf.maximum(*ends)  # [B, N, 2]
    centre = (low + high) / 2
    cut_low, cut_high = (tf.clip_by_value(corner, 0.0, limits) for corner in (low, high))
    visible = tf.reduce_prod((cut_high - cut_low) / (high - low), axis=-1)
    kept = real & tf.reduce_all((centre >= 0) & (centre <= limits), axis=-1) & (visible >= min_visible)
    kept &= tf.reduce_all(cut_high - cut_low >= LEAST_SIDE * limits, axis=-1)
    boxes = tf.where(kept[..., None], tf.concat([cut_low, cut_high], axis=-1), 0.0)
    return boxes, tf.where(kept, classes, -tf.ones_like(classes))


def recolour(images, tints, hue, saturation, exposure):
    """Pictures with hue, saturation and value changed by `tints`, [B] each; the last three tell what is on."""
    turn, s, e = (tint[:, None, None] for tint in tints)
    if hue or saturation > 1:
        images = turned(images, turn, s)
    images = images * e[..., None] if exposure > 1 else images
    return tf.clip_by_value(images, 0.0, 1.0) if hue or saturation > 1 or exposure > 1 else images


def turned(images, turn, s):
    """RGB [B, H, W, 3] with hue + turn and saturation times s; not cut to [0, 1].

    c = v - v s k(h) for each colour c, k the same function a third of a turn apart: 3 times as fast as by HSV.
    """
    r, g, b = tf.unstack(tf.transpose(images, [3, 0, 1, 2]))  # [B, H, W] each
    value = tf.maximum(r, tf.maximum(g, b))
    chroma = value - tf.minimum(r, tf.minimum(g, b))
    sixth = tf.math.divide_no_nan(1.0 / 6, chroma)
    hue = tf.where(value == g, 1 / 3 + (b - r) * sixth, 2 / 3 + (r - g) * sixth)
    hue = tf.where(value == r, (g - b) * sixth, hue) + turn  # in turns
    chroma *= s
    planes = []
    for offset in (0.0, 2 / 3, 1 / 3):
        angle = hue + offset
        away = tf.abs(6 * (angle - tf.floor(angle)) - 3) - 1
        planes.append(value - chroma * (1 - tf.clip_by_value(away, 0.0, 1.0)))
    return tf.transpose(tf.stack(planes), [1, 2, 3, 0])


def sizes_of(images, output_size):
    """(H, W) of the pictures and (H', W') of the answer, known or as tensors."""
    known, dynamic = images.shape[1:3].as_list(), tf.shape(images)
    sides = tuple(dynamic[i + 1] if side is None else side for i, side in enumerate(known))
    return sides, sides if output_size is None else check_size(output_size, "output_size")


def check_batch(images, boxes, classes):
    """The three as tensors of float32, float32 and whole numbers; ValueError for other shapes and kinds."""
    images, boxes, classes = (tf.convert_to_tensor(values) for values in (images, boxes, classes))
    if not images.dtype.is_floating:
        raise ValueError(f"expected images of floats in [0, 1], received {images.dtype.name}; divide by 255")
    if not classes.dtype.is_integer:
        raise ValueError(f"expected classes of whole numbers, received {classes.dtype.name}; cast them to int32")
    ranks = (images, 4, "images [B, H, W, C]"), (boxes, 3, "boxes [B, N, 4]"), (classes, 2, "classes [B, N]")
    for values, rank, name in ranks:
        if values.shape.rank != rank:
            raise ValueError(f"expected {name}, received {values.shape}; this takes batches")
    fits = boxes.shape[2] in (4, None) and boxes.shape[:2].is_compatible_with(classes.shape)
    if not fits or not images.shape[:1].is_compatible_with(classes.shape[:1]):
        received = f"{images.shape}, {boxes.shape} and {classes.shape}"
        raise ValueError(f"expected images, boxes [B, N, 4] and classes [B, N] of one B and N, received {received}")
    return tf.cast(images, tf.float32), tf.cast(boxes, tf.float32), classes
