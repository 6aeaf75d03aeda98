"""Train PixelRNN (Row LSTM or Diagonal BiLSTM) and measure the exact log p(x) of test pictures.

python -m training.pixel_rnn                                        digits, binarized at >= 8 of 16, Row LSTM
python -m training.pixel_rnn --kind diagonal_bilstm
python -m training.pixel_rnn --fast                                 the same in seconds
python -m training.pixel_rnn --data mnist --precision mixed_bfloat16                   MNIST, one fixed binary draw
python -m training.pixel_rnn --data mnist --side 14 --kind diagonal_bilstm --num-layers 3 --epochs 12
python -m training.pixel_rnn --data mnist --kind diagonal_bilstm    28x28, 7 layers of 16 maps (the paper): wants a GPU

Test nats per picture (standard error over pictures), seed 0:
digits     Row LSTM           16.69 (.25)     11,105 weights, 35 s; independent pixels 25.20
           Diagonal BiLSTM    16.63 (.24)     12,449 weights, 54 s
MNIST      Row LSTM           82.66 (.20)     63,777 weights; 10 epochs, 58 minutes on one core; the paper 80.54
MNIST at   Row LSTM           36.33 (.09)     3 layers, 10 epochs, 6 minutes of one core; NADE 36.29
14x14      Diagonal BiLSTM    35.90 (.09)     3 layers, 12 epochs, 37 minutes of one core; both with bfloat16
"""

from typing import Literal

import keras

import dmkeras
from dmkeras import figures
from dmkeras.data import binarization as binary
from dmkeras.parts import density_report
from dmkeras.recipe import Recipe, run

DEFAULTS = {  # binarization, filters, num_layers, head_filters, epochs, batch_size, learning_rate, weight_decay
    ("digits", "row_lstm"): ("threshold", 16, 1, 32, 80, 32, 4e-3, 0.2),
    ("digits", "diagonal_bilstm"): ("threshold", 16, 1, 32, 60, 32, 4e-3, 0.1),
    ("mnist", "row_lstm"): ("fixed", 16, 7, 32, 10, 64, 3e-3, 0.0),
    ("mnist", "diagonal_bilstm"): ("fixed", 16, 7, 32, 60, 64, 2e-3, 0.0),
}


def recipe(
    fast=False,
    data="digits",
    data_dir: str | None = None,
    download=False,
    side: int | None = None,
    binarization: Literal["fixed", "dynamic", "threshold", "none"] | None = None,
    kind: Literal["row_lstm", "diagonal_bilstm"] = "row_lstm",
    filters: int | None = None,
    num_layers: int | None = None,
    residual=True,
    skip=False,
    head_filters: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    weight_decay: float | None = None,
):
    """Pixel recurrent neural networks: binary pictures, or all levels of a colour (256, of digits 17)."""
    given = (binarization, filters, num_layers, head_filters, epochs, batch_size, learning_rate, weight_decay)
    defaults = DEFAULTS.get((data, kind)) or ("none", *DEFAULTS["mnist", kind][1:])
    if fast:
        defaults = (defaults[0], 8, *defaults[2:4], 2, *defaults[5:])
    settings = [default if value is None else value for value, default in zip(given, defaults)]
    binarization, filters, num_layers, head_filters, epochs, batch_size, learning_rate, weight_decay = settings
    source = {"data_dir": data_dir, "download": download, "side": side}
    images, batched = binary.splits(data, binarization, batch_size, **source)
    levels = binary.levels(data, binarization)
    shape = images["train"].shape[1:]
    model = dmkeras.PixelRNN(shape, kind, filters, num_layers, levels, residual, skip, head_filters)
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, epochs * len(batched("train", 0)), alpha=0.01)
    optimizer = keras.optimizers.Adam(rate, weight_decay=weight_decay or None, clipnorm=30.0)
    optimizer.exclude_from_weight_decay(var_names=["bias", "h0", "c0"])

    ten = lambda: next(iter(batched("test", 0).unbatch().batch(10)))
    return Recipe(
        "pixel_rnn",
        model,
        batched,
        compile={"optimizer": optimizer, "steps_per_execution": 10},
        epochs=epochs,
        improves="nll",
        evaluate=lambda model: density_report.figures(model, batched("test", 0)),
        pictures=lambda model: density_report.sheets(model, ten(), kind, figures.labelled_rows),
        description=f"{data}, {binarization} binarization, {'x'.join(map(str, shape))}, {kind}",
    )


if __name__ == "__main__":
    run(recipe)
