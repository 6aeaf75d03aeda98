"""Batches for detectors: changed as a function of the seed, of several sizes from one trace; crops of truths."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dmkeras.parts import detection_training

SIDE = 32


def scene(count=12, seed=0):
    """Pictures with a bright rectangle each, and a padded row."""
    rng = np.random.default_rng(seed)
    images = np.zeros((count, SIDE, SIDE, 3), "float32")
    boxes, classes = np.zeros((count, 2, 4), "float32"), np.full((count, 2), -1, "int32")
    for image, box, kinds in zip(images, boxes, classes):
        w, h = rng.integers(6, 16, 2)
        x, y = rng.integers(0, SIDE - w), rng.integers(0, SIDE - h)
        box[0], kinds[0] = (x, y, x + w, y + h), rng.integers(3)
        image[y : y + h, x : x + w] = np.eye(3)[kinds[0]]
    return images, boxes, classes


def batched(arrays, size=4):
    images, boxes, classes = arrays
    return tf.data.Dataset.from_tensor_slices((images, {"boxes": boxes, "classes": classes})).batch(size)


def test_multiples_of_the_stride_around_a_side():
    assert detection_training.multiples(416, 32) == [(side, side) for side in range(320, 521, 32)]
    assert detection_training.multiples(96, 8) == [(side, side) for side in range(72, 121, 8)]


def test_batches_are_a_function_of_the_seed_alone():
    data = batched(scene())
    draw = lambda seed: np.concatenate([x for x, _ in detection_training.changed(data, seed, jitter=0.2)])
    np.testing.assert_array_equal(draw(3), draw(3))
    assert np.abs(draw(3) - draw(4)).max() > 0.1


@pytest.mark.parametrize("step", [0, 5])
def test_boxes_follow_their_pictures_through_sizes_and_proportions(step):
    images, boxes, _classes = scene()
    for i, size in enumerate(((48, 64), (16, 24), (32, 32))):
        found, moved = detection_training.resized(images, boxes, tf.constant(size))
        assert found.shape[1:3] == size
        for image, box in zip(found.numpy(), moved.numpy()[:, 0]):
            rows, columns = (np.flatnonzero(image.max(axis=(axis, 2)) > 0.5) for axis in (1, 0))
            edges = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            assert np.abs(edges - box).max() <= 1.0, (i, step)


def test_sizes_change_every_tenth_batch_and_take_one_trace():
    data = batched(scene(120), 2)
    sizes = [(16, 16), (24, 24), (32, 32), (40, 40)]
    changed = detection_training.changed(data, 1, sizes, flip=0.0, jitter=0.0)
    assert changed.element_spec[0].shape.as_list() == [None, None, None, 3]
    found = [images.shape[1:3].as_list() for images, _ in changed]
    runs = [found[i : i + 10] for i in range(0, 60, 10)]
    assert all(len({tuple(size) for size in run}) == 1 for run in runs)
    assert len({tuple(run[0]) for run in runs}) > 1
    assert all(tuple(size) in sizes for size in found)


def test_crops_show_each_truth_with_a_margin_and_its_class():
    images, boxes, classes = scene()
    boxes[3, 1], classes[3, 1] = (5, 5, 5, 9), 0  # without area: no crop
    pictures, labels = detection_training.crops(images, boxes, classes, 20, margin=0.5)
    assert pictures.shape == (12, 20, 20, 3)
    np.testing.assert_array_equal(labels, classes[:, 0])
    assert (pictures[:, 8:12, 8:12].argmax(-1) == labels[:, None, None]).all()
    inside = (pictures == 1).any(-1).mean(axis=(1, 2))  # the box is a quarter of the crop, less what is outside
    assert 0.15 < inside.mean() < 0.35


def test_a_classifier_learns_crops_at_one_size_after_another():
    seen = []

    class Watched(keras.Sequential):
        def fit(self, data, **options):
            seen.append(tuple(data.element_spec[0].shape))
            return super().fit(data, **options)

    head = keras.layers.Dense(3, kernel_initializer="zeros")
    model = Watched([keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D(), head])
    model.compile = lambda optimizer, **options: keras.Model.compile(
        model, "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), **options
    )
    detection_training.train_on_crops(model, *scene(), sides=(8, 16), epochs=1, batch_size=4)
    assert seen == [(4, 8, 8, 3), (4, 16, 16, 3)]
    assert np.abs(head.kernel.numpy()).max() > 0
