"""What a pixel sees: the earlier pixels on which its logit depends, drawn from measured gradients.

    python -m benchmarks.receptive_fields --out docs       writes docs/receptive_fields.png, prints how many are reached

Untrained networks of random weights, 21x21 pictures, the pixel in the middle: |d logit / d pixel|, the mean over random
binary pictures. Zero in all of them is out of reach: the blind spot of PixelCNN (above and to the right, and what lies
farther away than its blocks carry), the triangle of the Row LSTM, and of the diagonal BiLSTM the last pixel of the row
above. FVSBN sees all that is earlier, as NADE does. Trained networks reach what their architecture reaches, no more.
"""

import argparse
import pathlib

import keras
import numpy as np
import tensorflow as tf

import dmkeras
from dmkeras import figures

SIDE, DECADES = 21, 8  # gradients lower than the highest by more decades are drawn as the lowest
MIDDLE = SIDE // 2
SHAPE = (SIDE, SIDE, 1)
NETWORKS = {
    "PixelCNN, 3 blocks": lambda: dmkeras.PixelCNN(SHAPE, 16, 3),
    "PixelCNN, 7 blocks": lambda: dmkeras.PixelCNN(SHAPE, 16, 7),
    "PixelCNN, 15 blocks": lambda: dmkeras.PixelCNN(SHAPE, 16, 15),
    "FVSBN": lambda: dmkeras.FVSBN(SHAPE),
    "Row LSTM, 1 layer": lambda: dmkeras.PixelRNN(SHAPE, kind="row_lstm", filters=16, num_layers=1),
    "Row LSTM, 7 layers": lambda: dmkeras.PixelRNN(SHAPE, kind="row_lstm", filters=16, num_layers=7),
    "diagonal BiLSTM, 1 layer": lambda: dmkeras.PixelRNN(SHAPE, kind="diagonal_bilstm", filters=16, num_layers=1),
    "diagonal BiLSTM, 7 layers": lambda: dmkeras.PixelRNN(SHAPE, kind="diagonal_bilstm", filters=16, num_layers=7),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="docs", help="folder of receptive_fields.png")
    parser.add_argument("--pictures", type=int, default=32, help="random pictures over which gradients are averaged")
    arguments = parser.parse_args()
    order = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    earlier = order < order[MIDDLE, MIDDLE]
    tiles = []
    print(f"| | of {earlier.sum()} earlier pixels it reaches | share | of {(~earlier).sum()} others |")
    print("| --- | --- | --- | --- |")
    for name, make in NETWORKS.items():
        keras.utils.set_random_seed(0)
        strength = gradients(make(), arguments.pictures)
        reached, wrong = (strength > 0) & earlier, (strength > 0) & ~earlier
        print(f"| {name} | {reached.sum()} | {reached.sum() / earlier.sum():.1%} | {wrong.sum()} |", flush=True)
        tiles.append(drawn(strength, earlier))
    title = f"what the red pixel sees: its gradient from blue to yellow, {DECADES} decades; "
    title += "orange: earlier, but out of reach; grey: later"
    picture = figures.grid(tiles, 4, titles=list(NETWORKS), title=title, scale=10, gap=16)
    print(figures.save(pathlib.Path(arguments.out, "receptive_fields.png"), picture))


def gradients(model, count):
    """Mean over random pictures of |d logit in the middle / d pixel|, [H, W]."""
    for weight in model.trainable_weights:
        if not np.any(weight):  # what starts at zero (biases, first states, FVSBN's matrix) would hide paths
            weight.assign(keras.random.normal(weight.shape, stddev=0.1))
    images = tf.constant(np.random.default_rng(0).integers(0, 2, (count, *SHAPE)).astype("float32"))
    with tf.GradientTape() as tape:
        tape.watch(images)
        logits = model(images)[:, MIDDLE, MIDDLE, 0]
    return np.abs(tape.gradient(logits, images)).mean(axis=(0, 3))


def drawn(strength, earlier):
    """Colours of a receptive field, [H, W, 3] uint8."""
    import matplotlib

    decades = np.log10(np.maximum(strength, strength.max() * 10.0**-DECADES) / strength.max())
    colours = matplotlib.colormaps["viridis"](1 + decades / DECADES)[..., :3]
    colours[strength == 0] = matplotlib.colors.to_rgb("#f2a25c")
    colours[~earlier & (strength == 0)] = 0.85
    colours[MIDDLE, MIDDLE] = matplotlib.colors.to_rgb("#d62728")
    return np.round(255 * colours).astype("uint8")


if __name__ == "__main__":
    main()
