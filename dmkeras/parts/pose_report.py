"""What the recipe of a pose estimator reports: PDJ and PCP of each stage, and pictures of skeletons.

    pdj_05_stage_1 ...        shares of joints at most .05, .1, .2, .5 diameters from the truth, told by that stage
    mean_error_stage_1 ...    diameters
    pcp_stage_1 ...           shares of limbs, the strict rule (parts/pose_metrics.py), where the model has limbs
    pdj_05, mean_error, pcp   of the last stage

Shapes:  N pictures, H height, W width, C colours, J joints, S stages.
"""

import numpy as np
import tensorflow as tf

from dmkeras.parts import pose_metrics

BATCH = 100
SIDE = 240  # pixels of a drawn person, about
TRUE, TOLD = 2, 3  # places in the palette of drawings: green and red


def told(model, images, boxes):
    """Joints of each stage [N, S, J, 2], in pixels."""
    ask, part = tf.function(model.__call__, autograph=False), lambda i: (images[i : i + BATCH], boxes[i : i + BATCH])
    return np.concatenate([ask(*part(i)).numpy() for i in range(0, len(images), BATCH)])


def figures(model, images, keypoints, boxes):
    """{name: float} of the module, for images [N, H, W, C], keypoints [N, J, 3] and boxes [N, 4]."""
    found, stages = {}, told(model, images, boxes)
    for stage in range(model.num_stages):
        own = pose_metrics.summary(stages[:, stage], keypoints, model.torso, model.limbs, least=model.least_visibility)
        found |= {f"{name}_stage_{stage + 1}": value for name, value in own.items()}
    return found | own


def sheets(model, images, keypoints, boxes, draw, count=12):
    """{stem: picture}: true and told skeletons of the first pictures and of those that went worst, and stage by stage.

    draw: dmkeras.figures.
    """
    stages = told(model, images, boxes)
    away, counts = (
        v.numpy() for v in pose_metrics.errors(stages[:, -1], keypoints, model.torso, model.least_visibility)
    )
    known = counts.any(1)
    away = away.sum(1) / np.maximum(counts.sum(1), 1)
    count = min(count, len(images))

    def tile(i, stage=-1):
        both = np.stack([keypoints[i], np.concatenate([stages[i, stage], np.ones((model.num_joints, 1))], -1)])
        picture, corner = _close(images[i], boxes[i])
        scale = max(1, round(SIDE / max(picture.shape)))
        return draw.skeleton(picture, both - [*corner, 0], model.limbs, kinds=[TRUE, TOLD], scale=scale)

    def sheet(rows, title):
        titles = [f"{away[i]:.3f} diameters" if known[i] else "no true diameter" for i in rows]
        return draw.grid([tile(i) for i in rows], 4, titles=titles, title=title, scale=1)

    lines = [tile(i, stage) for i in range(min(4, count)) for stage in range(model.num_stages)]
    names = [f"stage {stage + 1}" for stage in range(model.num_stages)]
    return {
        "skeletons": sheet(range(count), "the first test pictures: true green, told red; mean error"),
        "worst": sheet(np.argsort(away)[::-1][:count], "the worst test pictures: true green, told red; mean error"),
        "stages": draw.grid(lines, len(names), column_labels=names, scale=1, title="true green, told red"),
    }


def _close(image, box):
    """The square of a picture around a box, half as wide again, and its corner (x, y); all of it without a box."""
    height, width = image.shape[:2]
    half = 0.75 * max(box[2] - box[0], box[3] - box[1])
    if half <= 0:
        return image, (0, 0)
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    left, top = (int(np.clip(middle - half, 0, side - 2)) for middle, side in ((x, width), (y, height)))
    right, bottom = (
        int(np.clip(middle + half, low + 2, side)) for middle, low, side in ((x, left, width), (y, top, height))
    )
    return image[top:bottom, left:right], (left, top)
