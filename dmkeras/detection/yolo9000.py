"""YOLO9000: a detector of thousands of classes, most of which it never saw a box of.

Redmon and Farhadi, "YOLO9000: Better, Faster, Stronger", CVPR 2017 (https://arxiv.org/abs/1612.08242), section 4
"Stronger"; where it is silent, cfg/yolo9000.cfg, src/region_layer.c and src/tree.c of
https://github.com/pjreddie/darknet. YOLOv2 (yolov2.py), whose classes are the nodes of a WordTree (parts/word_tree.py,
parts/hierarchical_softmax.py), trained on pictures with boxes and on pictures with a label alone:

    Pr(node)      = product of Pr(u | parent of u) over the node and its ancestors, a softmax in each group of siblings
    a truth       all of YOLOv2's terms; class = -ln Pr(label): the label's and its ancestors' groups, nothing below
    a label       of all boxes of the picture the one of highest objectness Pr(label); on it alone
                  image_class  = -ln Pr(label)
                  image_object = max(0, 0.3 - objectness)^2 / 2: "we also assume that the predicted box overlaps what
                                 would be the ground truth label by at least .3 IOU"
    a detection   from the roots down to the likeliest child, while Pr of it is above `tree_threshold`; its score is
                  objectness Pr(node)
    streams       of every five pictures four have a label alone (`joined`)

Shapes:  B batch, H height, W width, C channels, G rows and columns of cells, A anchors a cell, N = G G A boxes,
         n nodes, L levels of the tree, M truths, D detections.

Deviations, each with its reason:
- Of the boxes that answer for no label the paper says nothing; darknet's code tells them that they hold nothing and
  leaves the objectness of the best one alone: `image_objectness="darknet"`. `"both"` tells the one and the others.
- Of two detections that overlap the better stays where one's node is the other's or stands above it: a dog and a
  terrier in one place are one thing. darknet compares boxes by their objectness alone.
- The network is YOLOv2's with three anchors, as the paper says; the released configuration has none of its head.
- Scores are objectness Pr(node); darknet's demonstration shows objectness alone.
"""

import keras
import numpy as np
import tensorflow as tf

from dmkeras.detection.yolov2 import YOLOv2
from dmkeras.parts import checks, detector_doors, hierarchical_softmax, nms, region
from dmkeras.parts.boxes import is_real, pairwise_iou
from dmkeras.parts.word_tree import WordTree

CELLS = ((0.77871, 1.14074), (3.00525, 4.31277), (9.22725, 9.61974))
ANCHORS = tuple((32 * width, 32 * height) for width, height in CELLS)  # yolo9000.cfg tells them in cells
ASSUMED = 0.3  # IoU of the best box with what the label names
CANDIDATES = 512  # detections that suppression compares


@keras.saving.register_keras_serializable("dmkeras")
class YOLO9000(YOLOv2):
    """YOLOv2 over a tree of labels, for boxes and for labels of whole pictures.

    Call: images `[B, H, W, C]` float32 in [0, 1]  ->  raw numbers `[B, G, G, A, 5 + n]` float32. H and W may be others
    than `image_shape` says, if the stride divides them.

    | signature | inputs | outputs |
    | --- | --- | --- |
    | serving_default | images [B, H, W, C] float32 in [0, 1] | detection_boxes [B, D, 4], detection_scores [B, D], detection_path_scores [B, D, L] float32, detection_classes [B, D], detection_paths [B, D, L], num_detections [B] int32 |
    | detect | images | detection_boxes, detection_scores, detection_path_scores, detection_classes, detection_paths, num_detections |
    | detect_bytes | image_bytes [B] string, JPEG or PNG of any size | detection_boxes, detection_scores, detection_path_scores, detection_classes, detection_paths, num_detections |

    detection_classes are nodes; detection_paths the nodes from a root down to them, then -1, and detection_path_scores
    Pr of each. The rest is as YOLOv2's. `fit` takes (images, {"boxes": [B, M, 4] xyxy in pixels, "classes": [B, M]
    nodes, -1 for padding, "labels": [B] nodes, -1 for pictures with boxes}); "labels" may be left out.

    Args:
        image_shape: (H, W, C) of the pictures that are served; others are letterboxed to it.
        tree: a WordTree of n nodes.
        anchors: A pairs (width, height) in pixels.
        tree_threshold: of detections, above which Pr(node) stays.
        image_objectness: `"paper"`, `"darknet"` or `"both"`: what pictures with a label alone tell objectness.
        image_class_weight, image_object_weight: of the two terms of labels.
        options: further ones of YOLOv2.

    Raises:
        ValueError: for sizes, anchors, weights or thresholds that cannot be, or no tree; `fit` raises it for pictures,
            boxes, classes and labels of other shapes or out of range.
    """  # noqa: E501 - rows of the table

    TERMS = (*region.TERMS, "image_class", "image_object")

    def __init__(
        self,
        image_shape=(544, 544, 3),
        tree=None,
        anchors=ANCHORS,
        tree_threshold=0.5,
        image_objectness="paper",
        image_class_weight=1.0,
        image_object_weight=5.0,
        **options,
    ):
        if not isinstance(tree, WordTree):
            raise ValueError(f"expected tree as a WordTree, received {tree!r}; WordTree.flat(names) has no levels")
        self.tree = tree
        self.tree_threshold = detector_doors.check_threshold("tree_threshold", tree_threshold)
        self.image_objectness = checks.one_of("image_objectness", image_objectness, ("paper", "darknet", "both"))
        self.image_class_weight = checks.number("image_class_weight", image_class_weight)
        self.image_object_weight = checks.number("image_object_weight", image_object_weight)
        super().__init__(image_shape, len(tree), anchors=anchors, **options)

    # --- training -----------------------------------------------------------------------------------------------------

    def _terms(self, y, raw):
        found = super()._terms(y, raw, cross_entropy=self.tree.cross_entropy)
        labels = y.get("labels")
        if labels is None:
            return found | {term: tf.zeros(tf.shape(raw)[:1]) for term in ("image_class", "image_object")}
        labels = tf.cast(labels, "int32")
        labelled = tf.cast(labels >= 0, "float32")
        found = {term: values * (1 - labelled) for term, values in found.items()}
        _, objectness, logits = region.decode(raw, self._priors(), self.stride, self.direct_location)
        chosen = self.best_boxes(objectness, logits, tf.maximum(labels, 0))
        best = tf.sigmoid(tf.gather(objectness, chosen, batch_dims=1))
        found["image_class"] = self.tree.cross_entropy(labels, tf.gather(logits, chosen, batch_dims=1))
        assumed = labelled * tf.nn.relu(ASSUMED - best) ** 2 / 2
        found["image_object"] = assumed * float(self.image_objectness != "darknet")
        if self.image_objectness != "paper":
            others = tf.reduce_sum(tf.sigmoid(objectness) ** 2, -1) - best**2
            found["no_object"] += labelled * others / 2
        return found

    def best_boxes(self, objectness, logits, labels):
        """The box [B] of highest objectness Pr(label), of logits [B, N] and [B, N, n]; without gradient."""
        log_probs = self.tree.log_probs(tf.stop_gradient(logits))
        named = tf.gather(log_probs, labels[:, None], axis=2, batch_dims=1)[..., 0]  # [B, N]
        return tf.argmax(tf.math.log_sigmoid(tf.stop_gradient(objectness)) + named, -1, output_type="int32")

    @staticmethod
    def joined(detection, classification):
        """One dataset of two: batches of both kinds of pictures together, as long as that of labels lasts.

        Args:
            detection: batches (images, {"boxes", "classes"}); repeated, as the paper's COCO is, where it is shorter.
            classification: batches (images, labels [B]), four times as large as the others, as the paper's are.
        """

        def both(boxed, labelled):
            (images, truths), (more, labels) = boxed, labelled
            count = tf.shape(labels)[0]
            none = [[0, count], [0, 0]]
            truths = {
                "boxes": tf.pad(truths["boxes"], [*none, [0, 0]]),
                "classes": tf.pad(truths["classes"], none, constant_values=-1),
                "labels": tf.pad(tf.cast(labels, "int32"), [[tf.shape(images)[0], 0]], constant_values=-1),
            }
            return tf.concat([images, more], 0), truths

        return tf.data.Dataset.zip(detection.repeat(), classification).map(both)

    # --- detection ----------------------------------------------------------------------------------------------------

    def decode(self, raw):
        """Raw numbers -> boxes [B, N, 4] xyxy in pixels, scores [B, N, n] = objectness Pr(node)."""
        found, objectness, logits = region.decode(raw, self._priors(), self.stride, self.direct_location)
        return found, tf.exp(tf.math.log_sigmoid(objectness)[..., None] + self.tree.log_probs(logits))

    def detect(
        self,
        images,
        score_threshold=0.005,
        iou_threshold=0.45,
        max_detections=100,
        size=None,
        tree_threshold=None,
        nodes=None,
    ):
        """What is where in pictures, and which way down the tree led there.

        Args:
            images: [B, h, w, C] in [0, 1], or one picture [h, w, C]; letterboxed where their size is not the model's.
            score_threshold: detections score more.
            iou_threshold: of two related ones that overlap by more, the better one stays.
            max_detections: D.
            size: (H, W), whose sides the stride divides, to look at them in; None for that of `image_shape`.
            tree_threshold: another one than the model's.
            nodes: whole numbers; instead of one descent in each box, each of these nodes is looked for in each box, as
                average precision wants it and darknet's `map` does.

        Returns:
            As YOLOv2's, with nodes as "classes"; of descents also {"paths": [B, D, L] int32 nodes from a root down,
            then -1, "path_scores": [B, D, L] Pr of each, given that something is there}.
        """
        check = detector_doors.check_threshold
        score, overlap = check("score_threshold", score_threshold), check("iou_threshold", iou_threshold)
        limit = self.tree_threshold if tree_threshold is None else check("tree_threshold", tree_threshold)
        if nodes is None:
            answer = lambda raw: self._descents(
                raw, checks.whole_number("max_detections", max_detections, 1), overlap, score, limit
            )
            return self._answered(images, size, answer)
        nodes = np.asarray(nodes)
        if (
            nodes.ndim != 1
            or nodes.dtype.kind not in "iu"
            or not len(nodes)
            or nodes.min() < 0
            or nodes.max() >= len(self.tree)
        ):
            raise ValueError(f"expected nodes as whole numbers from 0 to {len(self.tree) - 1}, received {nodes}")

        def looked_for(raw):
            boxes, scores = self.decode(raw)
            found = nms.class_aware_nms(boxes, tf.gather(scores, nodes, axis=-1), max_detections, overlap, score)
            places = tf.maximum(found["classes"], 0)
            return found | {"classes": tf.where(found["classes"] < 0, -1, tf.gather(nodes.astype("int32"), places))}

        return self._answered(images, size, looked_for)

    def _descents(self, raw, count, overlap, least, limit):
        """One node for each box, and of related ones that overlap the best."""
        boxes, objectness, logits = region.decode(raw, self._priors(), self.stride, self.direct_location)
        conditionals = tf.exp(self.tree.log_conditionals(logits))
        node, product = hierarchical_softmax.descend(conditionals, self.tree.children, limit, self.tree.levels)
        path = tf.gather(self.tree.paths, node)  # [B, N, L]
        steps = tf.math.cumprod(tf.gather(conditionals, tf.maximum(path, 0), batch_dims=2), -1)
        scores = tf.sigmoid(objectness) * product
        rows = tf.concat([boxes, tf.cast(node, "float32")[..., None], tf.where(path >= 0, steps, 0.0)], -1)
        real = tf.reduce_all(tf.math.is_finite(rows), -1) & (scores > least)
        rows, scores, _ = nms.best(rows, tf.where(real, scores, 0.0)[..., None], CANDIDATES)
        node = tf.cast(rows[..., 4], "int32")
        same = self.tree.related(node[:, :, None], node[:, None, :])
        keep = nms.settled(same & (pairwise_iou(rows[..., :4], rows[..., :4]) > overlap), scores > 0)
        found = nms.filled(rows, tf.where(keep, scores, 0.0), node, count)
        rows, nodes = found["boxes"], found["classes"]
        paths = tf.where(nodes[..., None] >= 0, tf.gather(self.tree.paths, tf.maximum(nodes, 0)), -1)
        return found | {"boxes": rows[..., :4], "paths": paths, "path_scores": rows[..., 5:]}

    # --- doors --------------------------------------------------------------------------------------------------------

    def check_targets(self, targets):
        super().check_targets(targets)
        labels = targets.get("labels")
        if labels is None or checks.is_symbolic(labels):
            return
        labels, count = np.asarray(labels), len(self.tree)
        if labels.shape != np.shape(targets["classes"])[:1] or labels.dtype.kind not in "iu":
            received = f"{list(labels.shape)} of {labels.dtype}"
            raise ValueError(f"expected whole-numbered labels [B], received {received}")
        if labels.size and not -1 <= labels.min() <= labels.max() < count:
            received = f"{labels.min()} to {labels.max()}"
            raise ValueError(f"expected labels from 0 to {count - 1}, -1 for pictures with boxes, received {received}")
        boxed = is_real(targets["boxes"], targets["classes"]).numpy().any(-1)
        if (boxed & (labels >= 0)).any():
            raise ValueError("expected boxes or a label, received a picture with both; give it the label -1")

    def get_config(self):
        own = ("tree_threshold", "image_objectness", "image_class_weight", "image_object_weight")
        config = {**super().get_config(), **{name: getattr(self, name) for name in own}}
        del config["num_classes"]
        return {**config, "tree": keras.saving.serialize_keras_object(self.tree)}

    @classmethod
    def from_config(cls, config):
        return super().from_config({**config, "tree": keras.saving.deserialize_keras_object(config["tree"])})
