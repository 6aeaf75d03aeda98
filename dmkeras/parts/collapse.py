"""Whether adversarial training collapses: a discriminator that is sure of everything, a generator that repeats itself.

Shapes:  B batch, H height, W width, C colours.
"""

import keras
import numpy as np
import tensorflow as tf

SURE, ALIKE = 0.1, 0.1  # D's loss (2 ln 2 = 1.39 is a guess), and diversity (1 is that of the data)


def diversity(images):
    """Mean Euclidean distance to the nearest other picture of a batch [B, H, W, C]: 0 where a few are repeated."""
    flat = tf.reshape(tf.cast(images, "float32"), (tf.shape(images)[0], -1))
    sums = tf.reduce_sum(flat**2, axis=1)
    squares = sums[:, None] + sums - 2 * tf.matmul(flat, flat, transpose_b=True)  # [B, B]
    nearest = tf.reduce_min(tf.linalg.set_diag(squares, tf.fill(tf.shape(sums), np.inf)), axis=1)
    return tf.reduce_mean(tf.sqrt(tf.maximum(nearest, 0.0)))


def relative_diversity(fake, images):
    """That of generated pictures over that of as many of the data; 0 where those repeat, 1 for a batch of one."""
    ratio = tf.math.divide_no_nan(diversity(fake), diversity(images))
    return tf.where(tf.shape(images)[0] > 1, ratio, 1.0)


class Watch(keras.callbacks.Callback):
    """Says at an epoch's end that D is sure of everything, or that G makes one and the same picture."""

    def on_epoch_end(self, epoch, logs=None):
        logs = {"d_loss": SURE, "diversity": ALIKE, **(logs or {})}
        if logs["d_loss"] < SURE:
            told = f"D tells all pictures of G from the data (d_loss {logs['d_loss']:.3f}), and G learns little"
            print(f"epoch {epoch + 1}: {told}", flush=True)
        if logs["diversity"] < ALIKE:
            told = f"the pictures of G repeat themselves ({logs['diversity']:.3f} of the data's diversity)"
            print(f"epoch {epoch + 1}: {told}: a collapse, if it stays so", flush=True)
