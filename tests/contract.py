"""What every system owes, as functions that fail with an AssertionError.

A system is run by its own recipe through `dmkeras.recipe.run`; its answers are then compared with those of the `.keras`
file in a process that knows nothing else (`python -m tests.contract`), and with those of the exported SavedModel.
"""

import contextlib
import importlib
import math
import pathlib
import subprocess
import sys
import traceback
import types
from unittest import mock

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]


# --- training -------------------------------------------------------------------------------------------------------


def train(make, out, *flags):
    """Runs a recipe; .recipe, .before (its weights at first), .folder, .result (metrics.json), .rows (log.csv)."""
    from dmkeras import recipe as recipes
    from dmkeras.resumable import read_csv

    seen, prepare = types.SimpleNamespace(), recipes._prepare

    def watched(*args, **options):
        seen.recipe = prepare(*args, **options)
        seen.before = [weight.numpy() for weight in seen.recipe.model.weights]
        return seen.recipe

    with mock.patch.object(recipes, "_prepare", watched):
        seen.result = recipes.run(make, ["--out", str(out), *flags])
    (seen.folder,) = (out / "runs").glob("*/0001")
    seen.rows = read_csv(seen.folder / "log.csv") if (seen.folder / "log.csv").exists() else []
    return seen


def check_training(seen, still=()):
    """Every weight moved, but those whose path holds one of `still`; figures are finite; the chosen one improved."""
    pairs = zip(seen.recipe.model.weights, seen.before, strict=True)
    unmoved = [weight.path for weight, was in pairs if weight.shape and np.array_equal(weight.numpy(), was)]
    unmoved = [path for path in unmoved if not any(part in path for part in still)]
    assert not unmoved or not seen.rows, f"no training reaches {unmoved}"
    figures = {**seen.result["figures"], **{f"{row['epoch']} {key}": row[key] for row in seen.rows for key in row}}
    bad = [key for key, value in figures.items() if not isinstance(value, str) and not math.isfinite(value)]
    assert not bad, f"{bad} are not finite"
    if seen.recipe.improves and seen.rows:
        values = [row[f"val_{seen.recipe.improves}"] for row in seen.rows]
        sign = 1 if seen.recipe.mode == "min" else -1
        assert sign * values[-1] < sign * values[0], f"{seen.recipe.improves} went from {values[0]} to {values[-1]}"


def check_pictures(pictures):
    """{file stem: picture}: at least one, each uint8 [H, W, 3], none of one colour."""
    assert pictures, "the recipe has no pictures"
    for stem, picture in pictures.items():
        assert isinstance(picture, np.ndarray), f"{stem} is {type(picture).__name__}"
        assert picture.dtype == np.uint8, f"{stem} is {picture.dtype}"
        assert picture.ndim == 3, f"{stem} has shape {picture.shape}"
        assert picture.shape[-1] == 3, f"{stem} has shape {picture.shape}"
        assert picture.min() < picture.max(), f"{stem} is of one colour"


# --- answers --------------------------------------------------------------------------------------------------------


def requests(model, batch):
    """`{"call": rows, "NAME/INPUT": array [3, ...]}`: three rows for the model's call and for every endpoint."""
    from dmkeras.serving.warm_up import example_feed

    feeds = {"call": np.asarray(batch)[:3]}
    for name, (_, specs) in model.signatures().items():
        feeds |= {f"{name}/{key}": array for key, array in example_feed(specs, range(3)).items()}
    return feeds


def answers(model, feeds):
    """What the model says in this process: `{"call/0": ..., "NAME/OUTPUT": ..., "weight/000": ...}`."""
    import tensorflow as tf

    found = {f"call/{i}": tensor.numpy() for i, tensor in enumerate(tf.nest.flatten(model(feeds["call"])))}
    for name, (function, specs) in model.signatures().items():
        inputs = [tf.constant(feeds[f"{name}/{spec.name}"], spec.dtype) for spec in specs]
        found |= {f"{name}/{key}": tensor.numpy() for key, tensor in function(*inputs).items()}
    return found | {f"weight/{i:03d}": weight.numpy() for i, weight in enumerate(model.weights)}


def same(first, second, exact=True):
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    if exact or first.dtype.kind != "f":
        return np.array_equal(first, second, equal_nan=first.dtype.kind == "f")
    return np.allclose(first, second, rtol=1e-4, atol=1e-5, equal_nan=True)


def differing(first, second, exact=True):
    return [key for key in first if key not in second or not same(first[key], second[key], exact)]


def check_answers(model, feeds):
    """An answer changes no weight, and the same request has the same answer; returns the answers."""
    weights = {f"weight/{i:03d}": weight.numpy() for i, weight in enumerate(model.weights)}
    first, second = answers(model, feeds), answers(model, feeds)
    changed = differing(weights, first)
    assert not changed, f"an answer changes {[model.weights[int(key[-3:])].path for key in changed]}"
    assert not differing(first, second), f"two answers to one request: {differing(first, second)}"
    return second


def check_endpoints(expected, feeds, version):
    """The SavedModel answers as the model did here, and refuses tensors of another rank with an error, not a crash."""
    from dmkeras.serving import runtime
    from dmkeras.serving.exporting.comparison import in_order
    from tests.serving.test_c_api import INVALID_ARGUMENT, ask

    requests = []
    with runtime.Loaded(version) as served:
        assert "serving_default" in served.signatures
        own = {key.partition("/")[0] for key in feeds} & set(served.signatures)  # the export may add `classify`
        for name in sorted(own):
            signature = served.signatures[name]
            feed = {tensor.name: feeds[f"{name}/{tensor.name}"] for tensor in signature.inputs}
            here = {key: array for key, array in expected.items() if key.startswith(f"{name}/")}
            answer = in_order(served.run(name, feed), {key.partition("/")[2]: array for key, array in here.items()})
            received = {f"{name}/{key}": array for key, array in answer.items()}
            assert set(here) == set(received), f"{name} answers {sorted(received)}, expected {sorted(here)}"
            wrong = differing(here, received, exact=False)
            assert not wrong, f"the SavedModel answers other {wrong}"
            requests.append((name, {key: np.asarray(array[0], array.dtype) for key, array in feed.items()}))
            requests.append((name, {key: array[..., None] for key, array in feed.items()}))
    # Python's sessions look at ranks themselves; the server's do not.
    for (name, _), (code, message, _) in zip(requests, ask(version, requests), strict=True):
        assert code == INVALID_ARGUMENT, f"{name} takes tensors of another rank: {message}"


# --- the fresh process ----------------------------------------------------------------------------------------------


def save(model, feeds, folder, name):
    """NAME.keras and its requests, for `reload`."""
    model.save(folder / f"{name}.keras")
    np.savez(folder / f"{name}.npz", **feeds)


def reload(folder, *modules):
    """Loads every file of `folder` in one fresh process, with `modules` imported before; for `check_reloaded`."""
    command = [sys.executable, "-m", "tests.contract", str(folder), *modules]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def check_reloaded(expected, folder, name):
    """The fresh process had the same weights and the same answers, bit for bit."""
    failure = folder / f"{name}.txt"
    assert not failure.exists(), f"{name} was not loaded:\n{failure.read_text()}"
    with np.load(folder / f"{name}.answers.npz", allow_pickle=True) as received:
        assert set(received.files) == set(expected)
        wrong = differing(expected, received)
    assert not wrong, f"once reloaded, {name} has other {wrong}"


def main(folder, *modules):
    import dmkeras

    for module in modules:
        importlib.import_module(module)
    for path in sorted(pathlib.Path(folder).glob("*.keras")):
        try:
            with np.load(path.with_suffix(".npz"), allow_pickle=True) as feeds:
                found = answers(dmkeras.load(path), dict(feeds))
            np.savez(path.with_suffix(".answers.npz"), **found)
        except Exception:
            path.with_suffix(".txt").write_text(traceback.format_exc())


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        main(*sys.argv[1:])
