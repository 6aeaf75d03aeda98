"""A recipe of one stage whose model holds every kind of state that a run must keep, and can be told to break."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from dmkeras.data import batches
from dmkeras.recipe import Recipe, run

ROWS = {"train": slice(0, 800), "validation": slice(800, 900), "test": slice(900, 1000)}


@keras.saving.register_keras_serializable("tests")
class Toy(keras.Model):
    """x [B, 4] -> y [B, 1], with dropout, moving averages and a noise of its own in the loss.

    Args:
        nan_loss_at: training step, counted from 0, whose loss is NaN.
        nan_weight_at: training step that leaves a NaN in a weight which no loss sees.
    """

    def __init__(self, units=16, nan_loss_at=None, nan_weight_at=None, **kwargs):
        super().__init__(**kwargs)
        self.units, self.nan_loss_at, self.nan_weight_at = units, nan_loss_at, nan_weight_at
        self.body = keras.Sequential(
            [layers.Dense(units, "tanh"), layers.BatchNormalization(momentum=0.9), layers.Dropout(0.3)]
        )
        self.head = layers.Dense(1)
        self.unseen = self.add_weight(shape=(), initializer="zeros", trainable=False, name="unseen")
        self.noise = keras.random.SeedGenerator()
        self.error = keras.metrics.MeanAbsoluteError(name="error")
        self(keras.Input((4,)))

    def call(self, x, training=False):
        return self.head(self.body(x, training=training))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        self.error.update_state(y, y_pred)
        loss = tf.reduce_mean((y - y_pred) ** 2)
        if not training:
            return loss
        step = self.optimizer.iterations
        if self.nan_weight_at is not None:
            self.unseen.assign(tf.where(step == self.nan_weight_at, np.nan, self.unseen))
        if self.nan_loss_at is not None:
            loss = tf.where(step == self.nan_loss_at, np.nan, loss)
        return loss + 0.1 * tf.reduce_mean(keras.random.normal(tf.shape(y_pred), seed=self.noise) * y_pred)

    def get_config(self):
        own = {key: getattr(self, key) for key in ("units", "nan_loss_at", "nan_weight_at")}
        return {**super().get_config(), **own}


def dataset(batch_size):
    """data(split, seed): order and noise of x are functions of the seed."""
    x = np.random.default_rng(0).normal(size=(1000, 4)).astype("float32")
    y = np.sin(x.sum(axis=1, keepdims=True)).astype("float32")

    def data(split, seed):
        rows = ROWS[split]
        if split != "train":
            return batches((x[rows], y[rows]), batch_size)
        noise = lambda step, x: 0.05 * tf.random.stateless_normal(tf.shape(x), tf.stack([tf.cast(seed, "int64"), step]))
        train = batches((x[rows], y[rows]), batch_size, seed).enumerate()
        return train.map(lambda step, batch: (batch[0] + noise(step, batch[0]), batch[1]))

    return data


def evaluate(data):
    """The default evaluation of a recipe, announced."""

    def evaluate(model):
        print("evaluating", flush=True)
        return model.evaluate(data("test", 0), return_dict=True, verbose=0)

    return evaluate


def picture(model):
    weights = model.body.layers[0].kernel.numpy()
    pixels = np.uint8(255 * (weights - weights.min()) / np.ptp(weights))
    return {"weights": np.repeat(pixels[..., None], 3, axis=-1)}


def recipe(
    fast=False,
    units=16,
    epochs=6,
    batch_size=80,
    learning_rate=0.01,
    steps_per_execution=1,
    nan_loss_at: int | None = None,
    nan_weight_at: int | None = None,
):
    """A regression in milliseconds."""
    data = dataset(batch_size)
    return Recipe(
        "toy_one",
        Toy(units, nan_loss_at, nan_weight_at),
        data,
        compile={"optimizer": keras.optimizers.Adam(learning_rate), "steps_per_execution": steps_per_execution},
        epochs=1 if fast else epochs,
        evaluate=evaluate(data),
        pictures=picture,
        description="a sine",
    )


if __name__ == "__main__":
    run(recipe)
