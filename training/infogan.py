"""Train InfoGAN and measure how well its categorical code, found without labels, tells the classes.

python -m training.infogan                            digits, grey; `--fast`: in seconds
python -m training.infogan --data mnist               28 px; fashion_mnist likewise
python -m training.infogan --num-categories 10 2      several categorical codes

Error of the categorical code on test pictures, matched one-to-one on the training pictures, one core:
digits     median .093 of seeds 0 to 4 (.067 to .180), 85 to 89 s each; k-means .213
MNIST      median .168 of seeds 0 to 2 (.167 to .202), 8.5 minutes each with --precision mixed_bfloat16; k-means .482;
           the paper .05

G learns eight times as fast as D, and both five times as fast as the authors', on half their batch and with half their
maps and units: codes that two classes share come apart sooner, the faster G learns. The authors' settings on MNIST are
`--filters 64 --hidden-size 1024 --batch-size 128 --epochs 13 --d-learning-rate 2e-4 --g-learning-rate 1e-3`; they gave
.327 (seed 0, 31 minutes in bfloat16). Less noise (seed 0): `--noise-size 8` .135, `--noise-size 4 --epochs 20` .149.
"""

from typing import Literal

import keras

import dmkeras
from dmkeras import figures
from dmkeras.data import binarization as binary
from dmkeras.parts import code_report
from dmkeras.recipe import Recipe, run

DEFAULTS = {  # noise_size, filters, hidden_size, head_size, epochs, batch_size, learning rates of D and of G
    "digits": (62, 32, 256, 64, 120, 32, 1e-3, 8e-3),
    "mnist": (62, 32, 512, 128, 10, 64, 1e-3, 8e-3),
}


def recipe(
    fast=False,
    data="digits",
    data_dir: str | None = None,
    download=False,
    noise_size: int | None = None,
    num_categories: tuple[int, ...] = (10,),
    num_continuous=2,
    filters: int | None = None,
    hidden_size: int | None = None,
    head_size: int | None = None,
    leaky_slope=0.1,
    category_weight=1.0,
    continuous_weight=0.1,
    learn_variance=False,
    objective: Literal["non_saturating", "minimax"] = "non_saturating",
    average=0.0,
    epochs: int | None = None,
    batch_size: int | None = None,
    d_learning_rate: float | None = None,
    g_learning_rate: float | None = None,
):
    """InfoGAN: Adam for both players; the error of the categorical code after matching, beside k-means."""
    small = (None, 8, 32, 16, 4, None, None, None) if fast else (None,) * 8
    given = (noise_size, filters, hidden_size, head_size, epochs, batch_size, d_learning_rate, g_learning_rate)
    defaults = DEFAULTS.get(data, DEFAULTS["mnist"])
    chosen = [next(x for x in options if x is not None) for options in zip(given, small, defaults)]
    noise_size, filters, hidden_size, head_size, epochs, batch_size, d_rate, g_rate = chosen
    source = {"data_dir": data_dir, "download": download}
    images, batched = binary.splits(data, "none", batch_size, drop_remainder=True, **source)
    model = dmkeras.InfoGAN(
        images["train"].shape[1:],
        noise_size,
        tuple(size for size in num_categories if size),  # --num-categories 0: none
        num_continuous,
        **{"filters": filters, "hidden_size": hidden_size, "head_size": head_size, "leaky_slope": leaky_slope},
        **{"category_weight": category_weight, "continuous_weight": continuous_weight},
        **{"learn_variance": learn_variance, "objective": objective, "average": average},
    )

    codes = ", ".join(map(str, num_categories))

    def evaluate(model):
        labels = {split: binary.labels(data, split, "none", **source) for split in ("train", "test")}
        return code_report.figures(model, images, labels)

    return Recipe(
        "infogan",
        model,
        batched,
        compile={
            "d_optimizer": keras.optimizers.Adam(d_rate, beta_1=0.5),
            "g_optimizer": keras.optimizers.Adam(g_rate, beta_1=0.5),
            "steps_per_execution": 10,
        },
        epochs=epochs,
        improves=None,
        evaluate=evaluate,
        pictures=lambda model: code_report.sheets(model, figures.grid),
        pictures_every=1,
        description=f"{data}, {'x'.join(map(str, model.image_shape))}, categories: {codes}",
    )


if __name__ == "__main__":
    run(recipe)
