"""Pictures of persons drawn anew: mirrored, turned, scaled, shifted and recoloured, with their keypoints.

    the answer's frame in the picture sent     middle (W / 2, H / 2) + shift (W, H),  axes scale R(turn) diag(+-W, H)
    mirrored                                   the joint that is left in the picture sent is right in the answer

A keypoint that leaves the picture is no longer labelled: zeros.

Shapes:  B batch, H height, W width, C channels, J joints.
"""

import numpy as np
import tensorflow as tf

from dmkeras.parts import frames


def augment(images, keypoints, boxes, seed, mirrored, flip=0.5, turn=0.0, zoom=1.0, shift=0.0, light=0.0):
    """A batch with its keypoints and boxes, drawn anew.

    Args:
        images: [B, H, W, C] in [0, 1].
        keypoints: [B, J, 3], x and y in pixels and visibility.
        boxes: [B, 4] xyxy in pixels.
        seed: int [2]; the answer is a function of it and of the other arguments alone.
        mirrored: [J], for each joint which it is in a mirrored picture.
        flip: probability of a mirrored picture.
        turn: most radians, either way.
        zoom: most by which objects grow or shrink.
        shift: most parts of the sides, either way.
        light: most by which brightness is moved, and contrast changed.

    Returns:
        (images, keypoints, boxes) of the same shapes; a box is the upright one around the corners of what it was.
    """
    count, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    draws = tf.random.stateless_uniform([7, count], seed, alg="philox")
    flipped, (angle, size, x, y, bright, contrast) = draws[0] < flip, tf.unstack(2 * draws[1:] - 1)
    middle, axes = _frames((width, height), flipped, turn * angle, zoom**size, shift * tf.stack([x, y], -1))
    if turn or shift or zoom != 1:
        pictures = frames.sampled(images, middle[:, None], axes[:, None], (height, width))[:, 0]
    else:  # the same, exactly and sooner
        pictures = tf.where(flipped[:, None, None, None], images[:, :, ::-1], images)
    bright, contrast = (tint[:, None, None, None] for tint in (light * bright, 1 + light * contrast))
    pictures = tf.clip_by_value((pictures - 0.5) * contrast + 0.5 + bright, 0.0, 1.0)
    keypoints = moved(keypoints, middle, axes, (width, height), flipped, mirrored)
    return pictures, keypoints, moved_boxes(boxes, middle, axes, (width, height))


def moved(keypoints, middle, axes, sides, flipped, mirrored):
    """Keypoints [B, J, 3] as frames [B, 2] and [B, 2, 2] show them in pictures of `sides` (width, height)."""
    keypoints = tf.cast(keypoints, "float32")
    swapped = tf.gather(keypoints, tf.constant(mirrored, "int32"), axis=1)
    keypoints = tf.where(flipped[:, None, None], swapped, keypoints)
    points, visibility = keypoints[..., :2], keypoints[..., 2:]
    points = (frames.into(points, middle, axes) + 0.5) * tf.constant(sides, "float32")
    inside = tf.reduce_all((points >= 0) & (points < tf.constant(sides, "float32")), -1, keepdims=True)
    return tf.where(inside & (visibility > 0), tf.concat([points, visibility], -1), 0.0)


def moved_boxes(boxes, middle, axes, sides):
    """Boxes [B, 4] as frames show them: around their four corners."""
    x, y = (tf.cast(boxes, "float32")[:, start::2] for start in (0, 1))  # [B, 2] each
    corners = tf.stack([tf.gather(x, (0, 1, 0, 1), axis=1), tf.gather(y, (0, 0, 1, 1), axis=1)], -1)
    corners = (frames.into(corners, middle, axes) + 0.5) * tf.constant(sides, "float32")
    return tf.concat([tf.reduce_min(corners, 1), tf.reduce_max(corners, 1)], -1)


def around(keypoints):
    """The squares [B, 4] around the joints of keypoints [B, J, 3] that are labelled; zeros where none is."""
    points, there = tf.cast(keypoints, "float32")[..., :2], keypoints[..., 2:] > 0
    low = tf.reduce_min(tf.where(there, points, np.inf), 1)
    high = tf.reduce_max(tf.where(there, points, -np.inf), 1)
    half = tf.reduce_max(high - low, -1, keepdims=True) / 2
    found = tf.concat([(low + high) / 2 - half, (low + high) / 2 + half], -1)
    return tf.where(tf.reduce_any(there, 1), found, 0.0)


def rough(boxes, seed, loose=1.2, shift=0.0, stretch=1.0):
    """Boxes [B, 4] as a rough detector tells them: `loose` times as large, moved and stretched at random.

    Args:
        boxes: xyxy.
        seed: int [2].
        loose: of the sides.
        shift: most by which they are moved, in sides.
        stretch: most by which each side grows or shrinks.
    """
    boxes = tf.cast(boxes, "float32")
    draws = 2 * tf.random.stateless_uniform([2, tf.shape(boxes)[0], 2], seed, alg="philox") - 1
    middle, side = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    middle, side = middle + shift * draws[0] * side, side * loose * stretch ** draws[1]
    return tf.concat([middle - side / 2, middle + side / 2], -1)


def _frames(sides, flipped, angle, size, shift):
    sides = tf.constant(sides, "float32")
    cosine, sine = tf.cos(angle), tf.sin(angle)
    turned = tf.reshape(tf.stack([cosine, -sine, sine, cosine], -1), (-1, 2, 2))
    signs = tf.stack([tf.where(flipped, -1.0, 1.0), tf.ones_like(angle)], -1)
    return (0.5 + shift) * sides, turned * (signs * sides / size[:, None])[:, None]  # objects grow where frames shrink
