"""A recipe: what a paper's experiment needs beside its model.

`run(recipe)` goes data -> fit -> evaluate -> pictures -> SavedModel.

A run writes `OUT/runs/NAME/0001/`, the next one `0002/`:

    config.json      the recipe's arguments and the run's, as `--resume` needs them
    log.csv          a row per epoch: stage, epoch, seconds of training so far, metrics
    checkpoints/     the last state (weights, optimizer, random generators) and the best epoch's weights
    tensorboard/     scalars per epoch, pictures ten times in a run
    *.png            the recipe's pictures
    model.keras      the model with the best epoch's weights; `dmkeras.load` reads it
    last.weights.h5  the last epoch's weights
    diverged.txt     what was no longer finite, in a run that ended so; --resume passes it by
    metrics.json     figures, versions, commit, seed, data, machine, time; it is written last and ends the run

A run that was killed goes on with `--resume` from its last checkpoint and ends with the same figures as one that was
not: checkpoints fall at epoch ends and after stages, and data order and noise are functions of (seed, epoch, step).
`checkpoints/` is removed when metrics.json stands.
"""

import argparse
import contextlib
import dataclasses
import fcntl
import functools
import importlib.metadata
import inspect
import json
import math
import os
import pathlib
import platform
import shutil
import subprocess
import time
import types
import typing
from collections.abc import Callable

from dmkeras.resumable import Training, replace

CONFIG, METRICS, DIVERGED = "config.json", "metrics.json", "diverged.txt"
CONTROL = {
    "seed": (int, 0, "of initial weights, data order and noise"),
    "precision": (typing.Literal["float32", "mixed_bfloat16", "mixed_float16"], "float32", "of the layers' arithmetic"),
    "deterministic": (bool, False, "the same bits in every run on this machine, for some speed"),
}
ONCE = {
    "out": (str, ".", "writes OUT/runs/NAME and OUT/saved_models/NAME"),
    "resume": (bool, False, "go on with the newest unfinished run, under its own arguments"),
    "minutes": (float, None, "stop at the end of an epoch after so many minutes; --resume goes on"),
    "export": (bool, True, "write a SavedModel"),
    "frozen": (bool, False, "its variables become constants: quicker to load and to answer"),
    "compute": (typing.Literal["bfloat16", "float16"], None, "its arithmetic, behind float32 answers"),
    "checkpoint_seconds": (float, 15.0, "at least so long between two checkpoints"),
}
LEAST = {"seed": 0, "epochs": 1, "batch_size": 1, "minutes": 0, "checkpoint_seconds": 0}


@dataclasses.dataclass
class Recipe:
    """One paper's experiment. Everything but `name`, `model` and `data` has a default.

    Attributes:
        name: joins recipe, run folder and saved model.
        model: a built `keras.Model` with `signatures()`; its weights are all the state that a run keeps.
        data: (split, seed) -> batched dataset ready for `fit`, of known cardinality; splits `train`, `validation`,
            `test`. `seed` is an int64 scalar (a tensor in training), another one each epoch: order and augmentation
            are functions of it alone. Load sources outside of it.
        compile: keyword arguments of `model.compile`. XLA is off unless `jit_compile=True` is among them.
        epochs: of the one stage.
        improves: validation figure that chooses the best epoch (without `val_`), whose weights are evaluated and
            exported; None keeps the last epoch.
        mode: `min` or `max`, of `improves`.
        validation_freq: epochs between two validations.
        evaluate: model -> figures; the default is `model.evaluate` on the test split.
        pictures: model -> {file stem: uint8 [H, W, 3]}.
        pictures_every: epochs between two pictures in TensorBoard; None draws ten times in a stage.
        stages: [(name, function(recipe, fit))] of a system trained in several stages; `fit(data, epochs, compile)` has
            the recipe's own as defaults, can be called once in a stage and ends with the best epoch's weights. A stage
            may set weights by other means and freeze layers, for itself alone; after a kill it runs again from its
            beginning, but for the epochs done.
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
    pictures_every: int | None = None
    stages: list | None = None
    labels: list | None = None
    description: str = ""


def run(make, argv=None):
    """The main of `training/NAME.py`: the arguments of `make` become flags beside the run's own.

    Args:
        make: function -> Recipe. Its arguments need a default, and an annotation where that is None.
        argv: list of command-line arguments; None takes the process's.

    Returns:
        What metrics.json holds.

    Raises:
        SystemExit: for a flag that does not fit, in words.
        FloatingPointError: when a metric or a weight is no longer finite.
    """
    given = _parse(make, argv)
    name = pathlib.Path(inspect.getfile(make)).stem
    once = {key: given.pop(key, default) for key, (_, default, _) in ONCE.items()}
    base = pathlib.Path(once["out"], "runs", name)
    with contextlib.ExitStack() as held:
        # A new folder comes after the recipe, so that bad arguments leave none behind.
        folder = held.enter_context(_unfinished_run(base, given)) if once["resume"] else None
        told = json.loads((folder / CONFIG).read_text()) if folder else given
        arguments = json.loads(json.dumps({**_defaults(make), **told}))
        control = {key: arguments[key] for key in CONTROL}
        recipe = _prepare(make, {key: value for key, value in arguments.items() if key not in CONTROL}, **control)
        if recipe.name != name:
            raise SystemExit(f"recipe {recipe.name!r} stands in {name}.py: name and file must agree")
        folder = folder or held.enter_context(_new_run(base, arguments))
        print(f"{folder}: {recipe.model.count_params():,} weights, {recipe.description or 'data as given'}", flush=True)
        record = {"name": name, "data": recipe.description, "arguments": arguments, **_circumstances()}
        training = Training(recipe, folder, arguments["seed"], once["minutes"], once["checkpoint_seconds"])
        try:
            return _finish(recipe, training, record, once, finished=training.run_stages())
        except KeyboardInterrupt:
            raise SystemExit(f"{folder} was interrupted; --resume goes on from its last checkpoint") from None
        except FloatingPointError as error:
            (folder / DIVERGED).write_text(f"{error}\n")  # --resume would do the same again
            raise


def _prepare(make, arguments, seed, precision, deterministic):
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(precision)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    try:
        return make(**arguments)
    except (ValueError, OSError) as error:  # an argument or data that do not fit: said in words
        raise SystemExit(f"{type(error).__name__}: {error}") from error


def _defaults(make):
    """The recipe's arguments and the control of a run, with their defaults."""
    parameters = inspect.signature(make).parameters.values()
    return {**{p.name: p.default for p in parameters}, **{key: default for key, (_, default, _) in CONTROL.items()}}


def _parse(make, argv):
    """Command line -> {argument: value} of those that were given."""
    parser = argparse.ArgumentParser(
        description=inspect.getdoc(make),
        epilog=inspect.getdoc(inspect.getmodule(make)),  # commands, settings and figures
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    hints = typing.get_type_hints(make)
    flags = {
        p.name: (hints.get(p.name, type(p.default)), p.default, "") for p in inspect.signature(make).parameters.values()
    }
    for name, (kind, default, text) in {**flags, **CONTROL, **ONCE}.items():
        union = isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union
        kinds = [k for k in (typing.get_args(kind) if union else [kind]) if k is not types.NoneType]
        if typing.get_origin(kinds[0]) is typing.Literal:
            how = {"choices": typing.get_args(kinds[0])}
        elif typing.get_origin(kinds[0]) is tuple:
            how = {"type": typing.get_args(kinds[0])[0], "nargs": "+"}
        else:
            how = {"action": argparse.BooleanOptionalAction} if kinds == [bool] else {"type": kinds[0]}
        told = f"{text} (default {default})".strip() if default is not None else text
        parser.add_argument(f"--{name.replace('_', '-')}", help=told, **how)
    given = vars(parser.parse_args(argv))
    if given.get("seed", 0) >= 2**32:
        parser.error(f"argument --seed: expected less than 2**32, received {given['seed']}")
    out = pathlib.Path(given.get("out", "."))
    if out.exists() and not out.is_dir():
        parser.error(f"argument --out: expected a folder, received the file {out}")
    for name, least in LEAST.items():
        if given.get(name, least) < least:
            parser.error(f"argument --{name.replace('_', '-')}: expected at least {least}, received {given[name]}")
    return given


def _runs(base):
    """{number: folder} of the runs in `base`, in order."""
    return {int(path.name): path for path in sorted(base.glob("[0-9]*")) if path.name.isdigit()}


@contextlib.contextmanager
def _new_run(base, arguments):
    """The next numbered folder, locked while it is open."""
    number = max(_runs(base), default=0) + 1
    while True:
        folder = base / f"{number:04d}"
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:  # another process was faster
            number += 1
    with _lock(folder):
        replace(folder / CONFIG, lambda path: path.write_text(json.dumps(arguments, indent=1)))
        yield folder


@contextlib.contextmanager
def _unfinished_run(base, given):
    """The newest unfinished run that no other process holds, locked while it is open."""
    for _, folder in sorted(_runs(base).items(), reverse=True):
        if not (folder / CONFIG).exists():
            continue
        with _lock(folder) as free:
            if not free or (folder / METRICS).exists() or (folder / DIVERGED).exists():
                continue
            was = json.loads((folder / CONFIG).read_text())
            other = [
                f"--{key.replace('_', '-')} {value} (it was {was.get(key)})"
                for key, value in given.items()
                if value != was.get(key)
            ]
            if other:
                raise SystemExit(
                    f"{folder} goes on under its own arguments; leave out {', '.join(other)}, or start a new run"
                )
            yield folder
            return
    raise SystemExit(f"--resume found no unfinished run in {base}; start one without --resume")


@contextlib.contextmanager
def _lock(folder):
    """Holds a run against other processes, as long as this one lives; yields whether it could."""
    with open(folder / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except BlockingIOError:
            free = False
        yield free


def _finish(recipe, training, record, once, finished):
    """Figures, pictures, model file and SavedModel; metrics.json last."""
    from dmkeras import figures
    from dmkeras.serving.export import export

    model, folder = recipe.model, training.folder
    if training.best and not finished:
        model.set_weights(training.best["weights"])
    if training.stages:
        training.compile(recipe.compile)  # the same whether the last stage ran in this process or in one before
    found = recipe.evaluate(model) if recipe.evaluate else model.evaluate(recipe.data("test", 0), return_dict=True)
    found = {key: float(value) for key, value in found.items()}
    bad = [key for key, value in found.items() if not math.isfinite(value)]
    if bad:
        training.diverged(f"figure {bad[0]}", "in evaluation")
    result = {
        **record,
        "figures": found,
        "best_epoch": training.best and training.best["epoch"],
        "epochs": len(training.rows),
        "training_seconds": training.rows[-1]["seconds"] if training.rows else 0.0,
    }
    write = lambda path: replace(path, lambda path: path.write_text(json.dumps(result, indent=1)))
    if not finished:
        path = folder / f"metrics_after_epoch_{len(training.rows):06d}.json"
        write(path)
        print(json.dumps(found), f"{path}: stopped by --minutes; --resume goes on", sep="\n", flush=True)
        return result
    for stem, picture in (recipe.pictures(model) if recipe.pictures else {}).items():
        replace(folder / f"{stem}.png", functools.partial(figures.save, picture=picture))
    replace(folder / "model.keras", model.save)
    if once["export"]:
        variant = {key: once[key] for key in ("frozen", "compute")}
        path = export(model, pathlib.Path(once["out"], "saved_models", recipe.name), labels=recipe.labels, **variant)
        result["saved_model"] = str(path)
    result["seconds"] = round(training.elapsed, 1)
    write(folder / METRICS)
    shutil.rmtree(training.checkpoints, ignore_errors=True)
    print(json.dumps(found), folder, result.get("saved_model", "not exported"), sep="\n", flush=True)
    return result


def _circumstances():
    """Versions, commit and machine."""
    import tensorflow as tf

    packages = ("dmkeras", "tensorflow", "keras", "tensorflow-probability", "numpy")
    gpus = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in packages}},
        "commit": _commit(pathlib.Path(__file__).parents[1]),
        "machine": {
            "system": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "accelerators": [gpu.get("device_name", "GPU") for gpu in gpus],
        },
        "date": time.strftime("%Y-%m-%d"),
    }


def _commit(root):
    """The checkout's commit, marked if files differ from it; None where there is no checkout or no git."""
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", root, "describe", "--always", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
