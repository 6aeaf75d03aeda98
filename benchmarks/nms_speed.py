"""Speed of non-maximum suppression by class: dmkeras's beside a loop in NumPy, KerasCV's layers and TensorFlow's op.

    python -m benchmarks.nms_speed              prints a table, milliseconds a call
    python -m benchmarks.nms_speed --seconds 3  as long as this for each cell

845 boxes of 20 classes are YOLOv2's at 416 px (13 x 13 x 5), 8732 of 21 SSD300's. Boxes are drawn around 20 objects a
picture; 400 scores exceed the threshold, as of a trained network, or thousands, as of an early one. First ours must
give what the loop gives: all of it, and of thousands the first that 512 candidates hold. Where others differ,
it is said (KerasCV's NonMaxSuppression knows no classes and does less).

A cell is the fastest of calls that take turns with the other candidates', so that load on the machine meets all.
"""

import argparse
import itertools
import time

import keras_cv
import numpy as np
import tensorflow as tf

from dmkeras.parts import nms

RULES = {"max_detections": 100, "iou_threshold": 0.45, "score_threshold": 0.005}
CASES = [(845, 20, 416), (8732, 21, 300)]  # boxes, classes, side


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each cell of the table")
    seconds = parser.parse_args().seconds
    runs = candidates()
    print("| boxes x classes | batch | scores above |", " | ".join(runs), "|")
    print("| --- | --- | --- |" + " --- |" * len(runs))
    for (count, kinds, side), trained, pictures in itertools.product(CASES, (True, False), (1, 8)):
        boxes, scores = drawn(pictures, count, kinds, side, trained)
        compare(runs, boxes, scores)
        times = alternating(runs, boxes, scores, seconds)
        cells = " | ".join(f"{1e3 * min(times[name]):.1f}" for name in runs)
        print(f"| {count} x {kinds} | {pictures} | {np.sum(scores > 0.005) / pictures:.0f} | {cells} |", flush=True)


def drawn(pictures, count, kinds, side, trained, objects=20):
    """Boxes [B, N, 4] scattered about those of 20 objects and scores [B, N, K], high for the object's class."""
    generator = np.random.default_rng(0)
    low, size = generator.uniform(0, 0.8 * side, (2, pictures, objects, 2))
    size = np.maximum(size / 2, side / 20)
    owner = generator.integers(0, objects, (pictures, count))
    low, size = (np.take_along_axis(part, owner[..., None], 1) for part in (low, size))
    low = low + 0.1 * size * generator.normal(size=low.shape)
    size = size * np.exp(0.1 * generator.normal(size=low.shape))
    scores = (0.005 if trained else 0.3) * generator.random((pictures, count, kinds)) ** 8
    power = np.log(0.005) / np.log(1 - 400 / count) if trained else 1  # 400 above the threshold
    kind = np.take_along_axis(generator.integers(0, kinds, (pictures, objects)), owner, 1)
    np.put_along_axis(scores, kind[..., None], generator.random((pictures, count, 1)) ** power, -1)
    return np.concatenate([low, low + size], -1).astype("float32"), scores.astype("float32")


def candidates():
    """{name: function of boxes and scores -> (boxes, scores, classes), or None where classes are not told}."""
    ours = lambda boxes, scores: nms.class_aware_nms(boxes, scores, **RULES)
    options = {"from_logits": False, "iou_threshold": 0.45, "confidence_threshold": 0.005, "max_detections": 100}
    agnostic = keras_cv.layers.NonMaxSuppression("xyxy", **options)
    by_class = keras_cv.layers.MultiClassNonMaxSuppression("xyxy", **options)
    return {
        "dmkeras": tf.function(ours),
        "dmkeras, XLA": tf.function(ours, jit_compile=True),
        "NumPy": in_numpy,
        "TensorFlow combined": tf.function(combined),
        "TensorFlow padded": tf.function(padded),
        "TensorFlow padded, XLA": tf.function(padded, jit_compile=True),
        "KerasCV by class": tf.function(by_class),
        "KerasCV without classes": tf.function(agnostic),
    }


def combined(boxes, scores):
    found = tf.image.combined_non_max_suppression(boxes[:, :, None], scores, 100, 100, 0.45, 0.005, clip_boxes=False)
    return {"scores": found[1], "classes": found[2]}


def padded(boxes, scores):
    """Classes told apart by moving each class's boxes to a place of their own."""
    boxes, scores, classes = nms.best(boxes, tf.where(scores > 0.005, scores, 0.0), 512)
    moved = boxes + tf.cast(classes, tf.float32)[..., None] * (tf.reduce_max(boxes) + 1)
    options = {"pad_to_max_output_size": True, "sorted_input": True}
    places, count = tf.image.non_max_suppression_padded(moved, scores, 100, 0.45, 0.005, **options)
    there = tf.sequence_mask(count, 100)
    scores, classes = (tf.gather(values, places, batch_dims=1) for values in (scores, classes))
    return {"scores": tf.where(there, scores, 0.0), "classes": classes}


def in_numpy(boxes, scores):
    """The rule as it is written: picture by picture, class by class, box by box."""
    answers = []
    for box, score in zip(np.asarray(boxes), np.asarray(scores)):
        found = []
        for kind in range(score.shape[1]):
            order = np.flatnonzero(score[:, kind] > 0.005)
            order = order[np.argsort(-score[order, kind], kind="stable")]
            while len(order):
                first, order = order[0], order[1:]
                found.append((score[first, kind], kind))
                order = order[overlap(box[first], box[order]) <= 0.45]
        found = sorted(found, reverse=True)[:100]
        answers.append(np.pad(np.array(found, "float32"), [(0, 100 - len(found)), (0, 0)]))
    return {"scores": np.stack(answers)[..., 0], "classes": np.stack(answers)[..., 1]}


def overlap(box, others):
    shared = np.maximum(np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]), 0).prod(-1)
    return shared / ((box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(-1) - shared)


def compare(runs, boxes, scores):
    """SystemExit where ours are not the first of the loop's; says how many of the loop's others miss."""
    expected = in_numpy(boxes, scores)["scores"]
    complete = np.sum(scores > 0.005) <= 512 * len(scores)
    for name, run in runs.items():
        found = run(tf.constant(boxes), tf.constant(scores))
        found = np.maximum(found.get("scores", found.get("confidence")), 0)  # KerasCV pads with -1
        wrong = np.sum((np.abs(found - expected) > 1e-6) & ((found > 0) | complete))
        if name.startswith("dmkeras") and wrong:
            raise SystemExit(f"{name} differs from the loop in NumPy in {wrong} detections")
        if wrong or np.sum(found > 0) < np.sum(expected > 0):
            print(f"{name}: {wrong} others, {np.sum(found > 0)} of {np.sum(expected > 0)}")


def alternating(runs, boxes, scores, seconds):
    boxes, scores, times = tf.constant(boxes), tf.constant(scores), {name: [] for name in runs}
    end = time.perf_counter() + seconds * len(runs)
    while time.perf_counter() < end:
        for name, run in runs.items():
            start = time.perf_counter()
            found = run(boxes, scores)
            np.asarray(found.get("scores", found.get("confidence")))
            times[name].append(time.perf_counter() - start)
    return times


if __name__ == "__main__":
    main()
