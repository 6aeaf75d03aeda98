"""Train a cascade that tells where the joints of the one object of a picture are, and look at each of its stages.

python -m training.human_pose                       shapes, one object, 128 px: no download; `--fast`: in seconds
python -m training.human_pose --num-stages 1        the regression alone
python -m training.human_pose --data dlc:DIR        frames that DeepLabCut labelled; `--fold 1` tests on others

shapes, 500 test pictures, means over seeds 0, 1, 2; PDJ at parts of the torso's diameter; 130 s with one thread:
stage     .05    .1     .2     .5     mean error   PCP
1         .085   .261   .576   .919   .222         .761
2         .172   .410   .665   .911   .200         .764
3         .239   .472   .677   .899   .197         .748
"""

import keras
import numpy as np
import tensorflow as tf

import dmkeras
from dmkeras import figures
from dmkeras.data import batches, dlc, load, shapes, to_arrays
from dmkeras.parts import pose_report
from dmkeras.parts.pose_augmentation import around, augment, rough
from dmkeras.recipe import Recipe, run

COUNTS = {"train": 2000, "validation": 200, "test": 500}  # pictures
SHAPES = {"light": 0.1}  # a head is what points upwards: nothing is turned; boxes move and stretch
FRAMES = {"turn": np.pi, "zoom": 1.3, "shift": 0.15, "light": 0.2}  # seen from above, any direction is as good
ROUGH = {"loose": 1.3, "shift": 0.1, "stretch": 1.2}  # boxes of a detector that is not there


def recipe(
    fast=False,
    data="shapes",
    pictures=2000,
    num_stages=3,
    input_size: int | None = None,
    sigma: float | None = None,
    torso: tuple[int, ...] | None = None,
    limbs: tuple[int, ...] | None = None,
    fold=0,
    folds=5,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    dropout=0.0,
):
    """Joints by stages: PDJ at fractions of the torso's diameter, PCP (strict), and skeletons of held-out pictures.

    pictures: of the training split. torso, limbs: for `dlc:DIR`, joints by number, limbs in pairs, by default the first
    and last joint, and no limbs. fold: of a small set's frames in `folds` blocks in order, the one that is tested on.
    epochs: of each stage; by default 16, and 400 of a small set.
    """
    if data == "shapes":
        sets = {split: _shapes(split, pictures if split == "train" else n, fast) for split, n in COUNTS.items()}
        skeleton = {"torso": shapes.TORSO, "limbs": shapes.LIMBS}
        mirrored, changes, defaults = shapes.MIRRORED, SHAPES, (24, 16, 32, 1.0, 2e-3)
    else:
        sets, names = _frames(data, fold, folds), dlc.keypoint_names(data.partition(":")[2])
        pairs = tuple(zip((limbs or ())[::2], (limbs or ())[1::2]))
        skeleton = {"torso": torso or (0, len(names) - 1), "limbs": pairs}
        mirrored, changes, defaults = _mirrored(names), FRAMES, (24, 400, 8, 0.8, 3e-3)
    given = (input_size, epochs, batch_size, sigma, learning_rate)
    input_size, epochs, batch_size, sigma, rate = (value or default for value, default in zip(given, defaults))
    sizes = {"input_size": 16, "filters": (8, 16), "hidden_size": 32} if fast else {"input_size": input_size}
    images, keypoints, _ = sets["train"]
    options = {"num_stages": num_stages, "sigma": sigma, "dropout": dropout, **skeleton, **sizes}
    model = dmkeras.HumanPose(images.shape[1:], keypoints.shape[1], **options)
    turned = "turn" in changes  # a box that was turned is wider than one that is drawn anew
    named = lambda images, keypoints, boxes: (images, {"keypoints": keypoints, "boxes": boxes})

    def batched(split, seed):
        if split != "train":
            return batches(sets[split], 100).map(named)

        def drawn(step, batch):
            pair = tf.stack([tf.cast(seed, "int64"), step + 1])
            images, keypoints, boxes = augment(*batch, pair, mirrored, **changes)
            return named(images, keypoints, rough(around(keypoints) if turned else boxes, -pair, **ROUGH))

        found = batches(sets[split], batch_size, seed, True).enumerate()
        return found.map(drawn, num_parallel_calls=tf.data.AUTOTUNE)

    def stage(number):
        def train(recipe, fit):
            model.begin_stage(number, batched("train", 0) if number > 1 else None)
            fit()

        return f"stage_{number}", train

    falling = keras.optimizers.schedules.CosineDecay(rate, epochs * (len(images) // batch_size), 0.01)
    return Recipe(
        "human_pose",
        model,
        batched,
        compile={"optimizer": keras.optimizers.Adam(falling)},
        epochs=epochs,
        improves="mean_error" if data == "shapes" else None,
        evaluate=lambda model: pose_report.figures(model, *sets["test"]),
        pictures=lambda model: pose_report.sheets(model, *sets["test"], figures),
        pictures_every=epochs + 1,
        stages=[stage(number + 1) for number in range(num_stages)],
        description=f"{data}, {len(images)} pictures of {images.shape[2]}x{images.shape[1]}",
    )


def _shapes(split, count, fast):
    """Images [N, 128, 128, 3], keypoints [N, 4, 3], boxes [N, 4] of pictures with one object; 64 pixels in fast mode.

    Boxes are tight in training, where each step makes them rough anew, and rough in the other splits.
    """
    records = load("shapes", split, size=64 if fast else 128, count=count // 10 if fast else count, max_objects=1)
    one = lambda record: {"image": record["image"], **{key: record[key][0] for key in ("keypoints", "boxes")}}
    arrays = to_arrays(records.map(one))
    boxes = arrays["boxes"] if split == "train" else rough(arrays["boxes"], (0, 0), **ROUGH).numpy()
    return arrays["image"], arrays["keypoints"], boxes


def _frames(data, fold, folds, sides=(120, 160)):
    """Frames as `_shapes` gives pictures, boxes about their joints: a block in `folds` is the test, none validation."""
    scale = tf.constant(sides, "float32")

    def small(record):
        factor = (scale / tf.cast(tf.shape(record["image"])[:2], "float32"))[::-1]
        image = tf.ensure_shape(tf.image.resize(record["image"], sides, antialias=True), (*sides, 3))
        return {
            "image": tf.clip_by_value(image, 0.0, 1.0),
            "keypoints": record["keypoints"][0] * tf.concat([factor, [1.0]], 0),
        }

    arrays = to_arrays(load(data, "all").map(small))
    count = len(arrays["image"])
    block = np.arange(count) * folds // count == fold
    boxes = rough(around(arrays["keypoints"]), (0, 0), **ROUGH).numpy()
    part = lambda rows: (arrays["image"][rows], arrays["keypoints"][rows], boxes[rows])
    return {"train": part(~block), "validation": part(block), "test": part(block)}


def _mirrored(names):
    """For each joint the one whose name has left and right exchanged, itself where there is none."""
    other = lambda name: name.replace("left", "\0").replace("right", "left").replace("\0", "right")
    return [names.index(other(name)) if other(name) in names else i for i, name in enumerate(names)]


if __name__ == "__main__":
    run(recipe)
