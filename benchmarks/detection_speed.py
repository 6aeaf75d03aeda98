"""Pictures a second of `detect` at 416 px: YOLOv2 on Darknet-19 and on a small backbone, beside KerasCV and ONNX.

    python -m benchmarks.detection_speed --threads 1

Weights are random, pictures too; every model answers 100 boxes after suppression by class (IoU .5, scores above .3, so
that the networks are timed and not the suppression of noise; benchmarks/nms_speed.py times that). `graph` is a
`tf.function`, `XLA` the same compiled; `served` is the exported SavedModel as the server loads it; `ONNX` is
onnxruntime on the network converted by tf2onnx (`[peers]`), its boxes decoded, without suppression, which is left out
of its time. KerasCV's detectors are YOLOV8Detector of its smallest preset's sizes and RetinaNet on ResNet-18. All take
turns, and the fastest of `--rounds` calls counts.
"""

import argparse
import os
import pathlib
import tempfile
import time

SIDE, CLASSES = 416, 20


def contenders(rows):
    """{name: function of nothing that answers a batch of `rows` pictures}."""
    import keras
    import numpy as np
    import tensorflow as tf

    import dmkeras
    from dmkeras.serving import runtime

    keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).uniform(0, 1, (rows, SIDE, SIDE, 3)).astype("float32")
    small = lambda: dmkeras.Darknet19((SIDE, SIDE, 3), None, 16, (1, 1, 1, 1, 1, 1))
    models = {
        "YOLOv2, Darknet-19": dmkeras.YOLOv2((SIDE, SIDE, 3), CLASSES),
        "YOLOv2, small": dmkeras.YOLOv2((SIDE, SIDE, 3), CLASSES, small(), head_filters=256, passthrough_filters=16),
    }
    found, given = {}, tf.constant(images)
    for name, model in models.items():
        detect = lambda images, model=model: model.detect(images, 0.3, 0.5)["scores"]
        for way, compiled in (("graph", tf.function(detect)), ("XLA", tf.function(detect, jit_compile=True))):
            found[f"{name} | {way}"] = lambda compiled=compiled: compiled(given).numpy()
        served = runtime.Loaded(dmkeras.export(model, pathlib.Path(tempfile.mkdtemp(), "yolov2"), warmup=False))
        found[f"{name} | served"] = lambda served=served: served.run("detect", {"images": images})
        session = onnx_session(model)
        if session:
            found[f"{name} | ONNX"] = lambda session=session: session.run(None, {"images": images})
    for name, detect in peers().items():
        compiled = tf.function(detect)
        found[f"{name} | graph"] = lambda compiled=compiled: compiled(255.0 * given).numpy()
    return found, {name: model.count_params() for name, model in models.items()}


def onnx_session(model):
    """onnxruntime on boxes and scores of every box, or None where it is not installed."""
    try:
        import onnxruntime
        import tf2onnx
    except ImportError:
        return None
    import tensorflow as tf

    function = tf.function(lambda images: model.decode(model(images, training=False)))
    spec = tf.TensorSpec((None, SIDE, SIDE, 3), "float32", name="images")
    proto, _ = tf2onnx.convert.from_function(function, [spec], opset=17)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ["TF_NUM_INTRAOP_THREADS"])
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])


def peers():
    import keras_cv

    shape = {"include_rescaling": True, "input_shape": (SIDE, SIDE, 3)}
    backbone = keras_cv.models.YOLOV8Backbone([32, 64, 128, 256], [1, 2, 2, 1], **shape)
    suppression = lambda logits: keras_cv.layers.MultiClassNonMaxSuppression(
        "xyxy", logits, iou_threshold=0.5, confidence_threshold=0.3
    )
    yolo = keras_cv.models.YOLOV8Detector(backbone, CLASSES, "xyxy", 1, prediction_decoder=suppression(False))
    sizes = {"stackwise_filters": [64, 128, 256, 512], "stackwise_blocks": [2] * 4, "stackwise_strides": [1, 2, 2, 2]}
    residual = keras_cv.models.ResNetBackbone(**sizes, block_type="basic_block", **shape)
    retina = keras_cv.models.RetinaNet(residual, CLASSES, "xyxy", prediction_decoder=suppression(True))

    def detect(model):
        return lambda images: model.decode_predictions(model(images, training=False), images)["confidence"]

    return {
        f"KerasCV YOLOV8Detector, {yolo.count_params():,} weights": detect(yolo),
        f"KerasCV RetinaNet, {retina.count_params():,} weights": detect(retina),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    options = parser.parse_args()
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = str(options.threads)  # before TensorFlow is imported
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    table = {}
    for rows in options.batches:
        ways, counts = contenders(rows)
        best = dict.fromkeys(ways, float("inf"))
        for turn in range(options.rounds + 1):
            for name, answer in ways.items():
                start = time.perf_counter()
                answer()
                best[name] = min(best[name], time.perf_counter() - start) if turn else best[name]  # the first traces
        for name, seconds in best.items():
            table.setdefault(name, []).append(f"{rows / seconds:.1f}")
    print("weights:", ", ".join(f"{name} {count:,}" for name, count in counts.items()))
    print("| model | way |", *(f"pictures/s, batch {rows} |" for rows in options.batches))
    print("| --- | --- |", *("--- |" for _ in options.batches))
    for name, cells in table.items():
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
