"""The doors of a pose estimator: what `fit` is given, pictures of other sizes, the endpoints and the drawn skeleton.

Truths come as {"keypoints": [B, J, 3], "boxes": [B, 4]}. Keypoints are x, y in pixels, visibility 0 not labelled, 1
hidden, 2 visible; what a joint that is not labelled has for x and y does not matter. Boxes of persons, which may be
left out, are xyxy in pixels; one without area, zeros for example, stands for the whole picture.

Shapes:  B batch, H height, W width, C channels of the model's pictures; h, w of those sent; S stages, J joints.
"""

import numpy as np
import tensorflow as tf

from dmkeras.parts import letterbox
from dmkeras.parts.checks import check_shape, is_symbolic, whole_number
from dmkeras.parts.segmenter_doors import COLOURS

NONE = "expected at least one picture, received none; leave empty batches out"
THICKNESS = 1 / 160  # of a limb, in parts of the picture's longer side; at least two pixels


def check_joints(name, joints, num_joints, each=None):
    """`joints`, whole numbers below J, or tuples of `each` such, as a tuple; ValueError for others."""
    if each is not None:
        rows = [tuple(row) if np.ndim(row) == 1 else (row,) for row in joints]
        if any(len(row) != each for row in rows):
            raise ValueError(f"{name} must be tuples of {each} joints, received {joints}")
        return tuple(check_joints(name, row, num_joints) for row in rows)
    found = tuple(whole_number(f"each joint of {name}", joint, 0) for joint in joints)
    if found and max(found) >= num_joints:
        raise ValueError(f"{name} must be of joints below {num_joints}, received {joints}")
    return found


def check_truths(truths, num_joints):
    """ValueError unless `truths` are {"keypoints": [B, J, 3]} and perhaps "boxes", in pixels; symbolic ones pass."""
    if not isinstance(truths, dict) or "keypoints" not in truths:
        received = f"a dict of {', '.join(truths)}" if isinstance(truths, dict) else type(truths).__name__
        raise ValueError(f'expected truths {{"keypoints": [B, J, 3]}}, received {received}')
    keypoints = truths["keypoints"]
    if is_symbolic(keypoints):
        return
    keypoints = np.asarray(keypoints)
    check_shape("keypoints", keypoints, (num_joints, 3))
    if not len(keypoints):
        raise ValueError(NONE)
    visibility = keypoints[..., 2]
    if not np.isin(visibility, (0, 1, 2)).all():
        wrong = visibility[~np.isin(visibility, (0, 1, 2))][0]
        raise ValueError(f"expected visibility 0 (not labelled), 1 (hidden) or 2 (visible), received {wrong}")
    check_boxes(truths.get("boxes", np.zeros((len(keypoints), 4))))
    points = keypoints[..., :2][visibility > 0]
    if not np.isfinite(points).all():
        raise ValueError("expected finite coordinates of labelled joints, received others; give them visibility 0")
    if points.size and 0 < np.abs(points).max() <= 1:
        raise ValueError("expected keypoints in pixels, received numbers of at most 1; multiply by width and height")


def some(images):
    """`images` [B, H, W, C]; InvalidArgumentError, or under XLA nothing, where B is 0."""
    with tf.control_dependencies([tf.debugging.assert_positive(tf.shape(images)[0], NONE)]):
        return tf.identity(images)


def check_boxes(boxes):
    """ValueError unless `boxes` are [B, 4] of finite numbers; symbolic tensors pass."""
    if is_symbolic(boxes):
        return
    check_shape("boxes", np.asarray(boxes), (4,))
    if not np.isfinite(boxes).all():
        raise ValueError("expected boxes of finite numbers, received others; zeros stand for the whole picture")


def any_size(joints, images, boxes, size):
    """`joints` for pictures [B, h, w, C] of any size: stages [B, S, J, 2] in pixels of those given.

    Args:
        joints: (images [B, H, W, C], boxes [B, 4]) -> [B, S, J, 2] in pixels of the model.
        images: float in [0, 1].
        boxes: [B, 4] in pixels of those given.
        size: (H, W); pictures of another size are letterboxed to it, one by one.
    """
    if tuple(images.shape[1:3]) == tuple(size):
        return joints(images, boxes)
    answers = tf.TensorSpec([*size, images.shape[-1]], "float32"), tf.TensorSpec([4], "float32")
    boxed, placements = tf.map_fn(lambda image: letterbox.letterbox(image, size), images, fn_output_signature=answers)
    whole = tf.cast(tf.shape(images)[1:3], "float32")  # the letterbox's border is no part of it
    whole = tf.concat([[0.0, 0.0], whole[::-1]], 0)
    boxes = tf.where(has_area(boxes)[:, None], boxes, whole)
    return to_picture(joints(boxed, letterbox.to_model(boxes[:, None], placements)[:, 0]), placements)


def has_area(boxes):
    return tf.reduce_all(boxes[:, 2:] > boxes[:, :2], -1)


def to_picture(stages, placements):
    """Joints [B, S, J, 2] in pixels of the model -> of the pictures sent, by placements [B, 4]."""
    scales, offsets = placements[:, None, None, :2], placements[:, None, None, 2:]
    return (stages - offsets) / scales


def signatures(joints, image_shape, limbs):
    """The endpoints: `serving_default` of pictures, `pose_in_boxes` of persons in them, `pose_bytes` of files.

    Args:
        joints: (images [B, H, W, C], boxes [B, 4]) -> [B, S, J, 2] in pixels of the model.
        image_shape: (H, W, C).
        limbs: pairs of joints, which `pose_bytes` draws.
    """
    answer = lambda stages: {"joints": stages[:, -1], "stages": stages}

    def in_boxes(images, boxes):
        images = tf.ensure_shape(images, (None, *image_shape))
        return answer(joints(images, tf.ensure_shape(boxes, (None, 4))))

    def of_images(images):
        images = tf.ensure_shape(images, (None, *image_shape))
        return answer(joints(images, tf.zeros((tf.shape(images)[0], 4))))

    def of_bytes(image_bytes):
        image_bytes = tf.ensure_shape(image_bytes, (None,))
        images, placements, sizes = letterbox.decode_and_letterbox(image_bytes, image_shape[:2])
        sides = tf.cast(sizes[:, ::-1], "float32")
        boxes = tf.concat([tf.zeros_like(sides), sides], -1)
        boxes = letterbox.to_model(boxes[:, None], placements)[:, 0]
        stages = to_picture(joints(images, boxes), placements)
        draw = lambda pair: drawn_file(*pair, limbs)
        files = tf.map_fn(draw, (image_bytes, stages[:, -1]), fn_output_signature=tf.TensorSpec((), "string"))
        return {**answer(stages), "skeleton_bytes": files}

    images = tf.TensorSpec((None, *image_shape), "float32", name="images")
    boxes = tf.TensorSpec((None, 4), "float32", name="boxes")
    image_bytes = tf.TensorSpec((None,), "string", name="image_bytes")
    found = {"serving_default": (of_images, [images]), "pose_in_boxes": (in_boxes, [images, boxes])}
    return {**found, "pose_bytes": (of_bytes, [image_bytes])} if image_shape[2] == 3 else found


def drawn_file(file, joints, limbs):
    """A picture file with a skeleton, joints [J, 2] in its pixels, on it -> a PNG file of its size."""
    picture = tf.io.decode_image(file, 3, expand_animations=False)
    picture = tf.cast(tf.ensure_shape(picture, (None, None, 3)), "float32")
    return tf.io.encode_png(tf.cast(tf.round(drawn(picture, joints, limbs)), "uint8"))


def drawn(picture, joints, limbs):
    """A picture [h, w, 3] in levels from 0 to 255 with limbs as lines, each of its colour, and white joints."""
    sides = tf.shape(picture)[:2]
    half = tf.maximum(1.0, THICKNESS / 2 * tf.cast(tf.reduce_max(sides), "float32"))
    rows, columns = (tf.cast(tf.range(side), "float32") + 0.5 for side in tf.unstack(sides))
    places = tf.stack(tf.meshgrid(columns, rows), -1)  # [h, w, 2]
    rgb = np.array([list(bytes.fromhex(colour)) for colour in COLOURS], "float32")
    for i, (first, second) in enumerate(limbs):
        start, along = joints[first], joints[second] - joints[first]
        share = tf.math.divide_no_nan(tf.reduce_sum((places - start) * along, -1), tf.reduce_sum(along * along))
        away = places - start - tf.clip_by_value(share, 0.0, 1.0)[..., None] * along
        near = tf.reduce_sum(away * away, -1) <= half * half
        picture = tf.where(near[..., None], rgb[i % len(rgb)], picture)
    for joint in tf.unstack(joints):
        near = tf.reduce_sum(tf.square(places - joint), -1) <= (1.5 * half) ** 2
        picture = tf.where(near[..., None], 255.0, picture)
    return picture
