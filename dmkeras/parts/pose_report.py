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
    away, counts = pose_metrics.errors(stages[:, -1], keypoints, model.torso, model.least_visibility)
    away = (away.numpy().sum(1) / np.maximum(counts.numpy().sum(1), 1)).round(3)
    count = min(count, len(images))

    def tile(i, stage=-1, limbs=model.limbs):
        both = np.stack([keypoints[i], np.concatenate([stages[i, stage], np.ones((model.num_joints, 1))], -1)])
        return draw.skeleton(images[i], both, limbs, kinds=[TRUE, TOLD], scale=max(1, round(256 / images.shape[2])))

    def sheet(rows, title):
        titles = [f"{away[i]:.3f} diameters" for i in rows]
        return draw.grid([tile(i) for i in rows], 4, titles=titles, title=title, scale=1)

    lines = [tile(i, stage) for i in range(min(4, count)) for stage in range(model.num_stages)]
    names = [f"stage {stage + 1}" for stage in range(model.num_stages)]
    return {
        "skeletons": sheet(range(count), "the first test pictures: true green, told red; mean error"),
        "worst": sheet(np.argsort(away)[::-1][:count], "the worst test pictures: true green, told red; mean error"),
        "stages": draw.grid(lines, len(names), column_labels=names, scale=1, title="true green, told red"),
    }
