"""A recipe: what a paper's experiment needs beside its model. `run(recipe)` goes data -> fit -> evaluate -> pictures -> SavedModel.

A run writes `OUT/runs/NAME/0001/`, the next one `0002/`:

    config.json      the recipe's arguments and the run's, as `--resume` needs them
    log.csv          a row per epoch: stage, epoch, seconds of training so far, metrics
    checkpoints/     the last state (weights, optimizer, random generators) and the best epoch's weights
    tensorboard/     scalars per epoch, pictures ten times in a run
    *.png            the recipe's pictures
    model.keras      the model; `dmkeras.load` reads it
    metrics.json     figures, versions, commit, seed, data, machine, time; it is written last and ends the run

A run that was killed goes on with `--resume` from its last checkpoint and ends with the same figures as one that was
not: checkpoints fall at epoch ends and after stages, and data order and noise are functions of (seed, epoch, step).
"""

import argparse
import csv
import dataclasses
import inspect
import json
import os
import pathlib
import shutil
import time
import types
import typing
from collections.abc import Callable

CONTROL = {
    "seed": (int, 0, "of initial weights, data order and noise"),
    "precision": (str, "float32", "float32, mixed_bfloat16 or mixed_float16"),
    "deterministic": (bool, False, "the same bits in every run on this machine, for some speed"),
}
ONCE = {
    "out": (str, ".", "writes OUT/runs/NAME and OUT/saved_models/NAME"),
    "resume": (bool, False, "go on with the newest unfinished run, under its own arguments"),
    "minutes": (float, None, "stop at the end of an epoch after so many minutes; --resume goes on"),
    "export": (bool, True, "write a SavedModel"),
    "checkpoint_seconds": (float, 15.0, "at least so long between two checkpoints"),
}


@dataclasses.dataclass
class Recipe:
    """One paper's experiment. Everything but `name`, `model` and `data` has a default.

    Attributes:
        name: joins recipe, run folder and saved model.
        model: a built `keras.Model` with `signatures()`; its weights are all the state that a run keeps.
        data: (split, seed) -> batched dataset ready for `fit`, of known cardinality; splits `train`, `validation`, `test`.
            `seed` is an int64 scalar (a tensor in training), another one each epoch: order and augmentation are
            functions of it alone. Load sources outside of it.
        compile: keyword arguments of `model.compile`. XLA is off unless `jit_compile=True` is among them.
        epochs: of the one stage.
        improves: validation figure that chooses the best epoch (without `val_`), whose weights are evaluated and
            exported; None keeps the last epoch.
        mode: `min` or `max`, of `improves`.
        validation_freq: epochs between two validations.
        evaluate: model -> figures; the default is `model.evaluate` on the test split.
        pictures: model -> {file stem: uint8 [H, W, 3]}.
        stages: [(name, function(recipe, fit))] of a system trained in several stages; `fit(data, epochs, compile)` has the
            recipe's own as defaults and can be called once in a stage. A stage may set weights by other means.
        labels: class names for the export.
        description: what the data were, for metrics.json.
    """

    name: str
    model: typing.Any
    data: Callable
    compile: dict = dataclasses.field(default_factory=dict)
    epochs: int = 0
    improves: str | None = "loss"
    mode: str = "min"
    validation_freq: int = 1
    evaluate: Callable | None = None
    pictures: Callable | None = None
    stages: list | None = None
    labels: list | None = None
    description: str = ""


def run(make, argv=None):
    """The main of `training/NAME.py`: the arguments of `make` become flags beside the run's own.

    Args:
        make: function -> Recipe. Its arguments need a default or an annotation.
        argv: list of command-line arguments; None takes the process's.

    Returns:
        What metrics.json holds.

    Raises:
        SystemExit: for a flag that does not fit, in words.
        FloatingPointError: when a metric or a weight is no longer finite.
    """
    started = time.time()
    given = _parse(make, argv)
    name = pathlib.Path(inspect.getfile(make)).stem
    once = {key: given.pop(key, default) for key, (_, default, _) in ONCE.items()}
    base = pathlib.Path(once["out"], "runs", name)
    with _open_run(base, _defaults(make), given, once["resume"]) as folder:
        arguments = json.loads((folder / "config.json").read_text())
        control = {key: arguments[key] for key in CONTROL}
        recipe = _prepare(make, {key: value for key, value in arguments.items() if key not in CONTROL}, **control)
        if recipe.name != name:
            raise SystemExit(f"recipe {recipe.name!r} stands in {name}.py: name and file must agree")
        print(f"{folder}: {recipe.model.count_params():,} weights, {recipe.description or 'data as given'}", flush=True)
        training = Training(recipe, folder, arguments["seed"], once["minutes"], once["checkpoint_seconds"])
        finished = training.run_stages()
        return _finish(recipe, training, arguments, once, finished, started)


def _prepare(make, arguments, seed, precision, deterministic):
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(precision)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    return make(**arguments)
