"""Laws of long work: what a run leaves behind, and that one which was killed ends as one that was not."""

import fcntl
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.util import event_pb2

from dmkeras.recipe import run
from dmkeras.resumable import Training, read_csv
from tests.recipes import toy_one, toy_staged

ROOT = pathlib.Path(__file__).parents[1]
TOYS = {"toy_one": toy_one, "toy_staged": toy_staged}
EVERY_EPOCH = ["--no-export", "--checkpoint-seconds", "0"]


def runs(out):
    return sorted(path.name for path in pathlib.Path(out, "runs").glob("*/[0-9]*"))


def figures(out, name, number=1):
    return json.loads((out / "runs" / name / f"{number:04d}" / "metrics.json").read_text())["figures"]


def log(out, name, number=1):
    rows = read_csv(out / "runs" / name / f"{number:04d}" / "log.csv")
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def weights(out, name):
    model = tf.keras.models.load_model(out / "runs" / name / "0001" / "model.keras")
    return [weight.numpy() for weight in model.weights]


def train(make, out, *flags):
    return run(make, [*EVERY_EPOCH, "--out", str(out), *flags])


# --- real processes, killed --------------------------------------------------------------------------------------

FLAGS = {"toy_one": ["--epochs", "5", "--batch-size", "4", "--units", "200"], "toy_staged": ["--batch-size", "8"]}
REFERENCE = """
import json, sys
from dmkeras.recipe import run
from tests.recipes import toy_one, toy_staged
for name, flags in json.loads(sys.argv[1]).items():
    run({"toy_one": toy_one, "toy_staged": toy_staged}[name].recipe, flags)
"""


def start(*command):
    environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-u", *command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def output(process, until=None):
    """Reads lines up to the first that holds `until`, or all; a process that hangs is killed."""
    watch = threading.Timer(300, process.kill)
    watch.start()
    lines = []
    for line in process.stdout:
        lines.append(line)
        if until and until in line:
            break
    watch.cancel()
    if not until:
        assert process.wait() == 0, "".join(lines)
    elif process.poll() is not None or until not in lines[-1]:
        pytest.fail(f"the process ended before {until!r}:\n" + "".join(lines))
    return "".join(lines)


def kill(process):
    process.kill()
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The folder of both toys' runs, in one process that nobody disturbed."""
    out = tmp_path_factory.mktemp("uninterrupted")
    flags = {name: [*EVERY_EPOCH, "--deterministic", "--out", str(out), *FLAGS[name]] for name in TOYS}
    with start("-c", REFERENCE, json.dumps(flags)) as process:
        output(process)
    return out


def check_same(name, out, uninterrupted):
    assert runs(out) == ["0001"]
    assert figures(out, name) == pytest.approx(figures(uninterrupted, name), abs=1e-6)
    expected, received = log(uninterrupted, name), log(out, name)
    assert [row["stage"] for row in received] == [row["stage"] for row in expected]
    for row, other in zip(received, expected):
        assert {**row, "stage": 0} == pytest.approx({**other, "stage": 0}, abs=1e-6)
    for weight, other in zip(weights(out, name), weights(uninterrupted, name), strict=True):
        np.testing.assert_allclose(weight, other, atol=1e-6)


def test_a_run_killed_in_an_epoch_and_in_a_checkpoint_ends_as_one_that_was_not(tmp_path, uninterrupted):
    command = ["-m", "tests.recipes.toy_one", *EVERY_EPOCH, "--deterministic", "--out", str(tmp_path)]
    process = start(*command, *FLAGS["toy_one"])
    output(process, "Epoch 3/")
    time.sleep(random.Random(0).uniform(0, 0.1))
    kill(process)
    writing = tmp_path / "runs" / "toy_one" / "0001" / "checkpoints" / "writing"
    shutil.rmtree(writing, ignore_errors=True)
    process = start(*command, "--resume")
    output(process, "Epoch 4/")
    while not writing.exists() and process.poll() is None:
        time.sleep(1e-4)
    kill(process)
    assert not (writing.parents[1] / "metrics.json").exists()
    with start(*command, "--resume") as process:
        assert "Epoch 1/" not in output(process)
    check_same("toy_one", tmp_path, uninterrupted)


def test_a_staged_run_killed_between_stages_in_one_and_in_evaluation_ends_as_one_that_was_not(tmp_path, uninterrupted):
    command = ["-m", "tests.recipes.toy_staged", *EVERY_EPOCH, "--deterministic", "--out", str(tmp_path)]
    process = start(*command, *FLAGS["toy_staged"])
    output(process, "stage of the head")
    kill(process)
    process = start(*command, "--resume")
    assert "stage of the body" not in output(process, "Epoch 3/4")
    kill(process)
    process = start(*command, "--resume")
    assert "Epoch 1/4" not in output(process, "evaluating")
    kill(process)
    with start(*command, "--resume") as process:
        assert "stage of" not in output(process)
    check_same("toy_staged", tmp_path, uninterrupted)


# --- the same in this process, at every epoch and at every step of a checkpoint -------------------------------------


@pytest.mark.parametrize("name", TOYS)
def test_a_run_stopped_by_minutes_after_every_epoch_ends_as_one_that_was_not(name, tmp_path):
    make = TOYS[name].recipe
    train(make, tmp_path / "whole", "--epochs", "2")
    first = train(make, tmp_path / "parts", "--epochs", "2", "--minutes", "0")
    assert first["epochs"] == 1
    assert (tmp_path / "parts/runs" / name / "0001/metrics_after_epoch_000001.json").exists()
    for _ in range(10):
        if "seconds" in train(make, tmp_path / "parts", "--resume", "--minutes", "0"):
            break
    check_same(name, tmp_path / "parts", tmp_path / "whole")


class Killed(BaseException):
    """Nothing but a kill ends a process without a word; the nearest thing in this one."""


KILLER = {"folder": None, "left": None}


def killer(event, arguments):
    """An audit hook that lets `left` operations on files in `folder` pass, and no more."""
    operations = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.copyfile")
    if KILLER and KILLER["folder"] and event in operations and str(arguments[0]).startswith(KILLER["folder"]):
        KILLER["left"] -= 1
        if KILLER["left"] < 0:
            raise Killed


def test_a_checkpoint_cut_off_at_any_file_operation_leaves_a_whole_one(tmp_path):
    recipe = toy_one.recipe(epochs=1)
    training = Training(recipe, tmp_path / "run", checkpoint_seconds=0)
    training.run_stages()
    before = {"weights": recipe.model.get_weights(), "epochs": 1}
    sys.addaudithook(killer)
    for allowed in range(100):
        folder = tmp_path / f"cut_{allowed}"
        shutil.copytree(tmp_path / "run", folder)
        recipe.model.set_weights(before["weights"])
        training = Training(recipe, folder)
        training.rows.append({**training.rows[-1], "epoch": 2})
        after = {"weights": [weight + 1 for weight in before["weights"]], "epochs": 2}
        recipe.model.set_weights(after["weights"])
        KILLER.update(folder=str(folder), left=allowed)
        try:
            training.checkpoint()
            done = True
        except Killed:
            done = False
        KILLER.update(folder=None)
        recipe.model.set_weights([0 * weight for weight in before["weights"]])
        again = Training(recipe, folder)
        expected = {1: before, 2: after}[len(again.rows)]
        for weight, other in zip(recipe.model.get_weights(), expected["weights"]):
            np.testing.assert_array_equal(weight, other)
        assert len(read_csv(folder / "log.csv")) == len(again.rows)
        again.checkpoint()  # what the cut left behind is in nobody's way
        assert len(list((folder / "checkpoints").iterdir())) == 1
        if done:
            break
    assert 10 < allowed < 99  # there were operations to cut, and the last checkpoint was not cut


# --- numbers that are not finite ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def diverged(tmp_path_factory):
    """A run whose loss was NaN in step 6 of epoch 3, and its message."""
    out = tmp_path_factory.mktemp("diverged")
    with pytest.raises(FloatingPointError) as error:
        train(toy_one.recipe, out, "--nan-loss-at", "25")
    return out, str(error.value)


def test_a_loss_that_is_nan_stops_the_run_and_names_metric_step_and_the_last_good_checkpoint(diverged):
    out, message = diverged
    checkpoint = out / "runs/toy_one/0001/checkpoints/00000002"
    assert re.match(rf"metric (error|loss) is not finite at step [67] of epoch 3; .* is {checkpoint}\.", message)
    assert not (checkpoint.parents[1] / "metrics.json").exists()
    recipe = toy_one.recipe()
    assert Training(recipe, checkpoint.parents[1]).epoch == 2
    assert all(np.isfinite(weight).all() for weight in recipe.model.get_weights())


def test_several_steps_in_one_execution_are_named_as_such(tmp_path):
    with pytest.raises(FloatingPointError, match=r"at step 6 to 10 of epoch 2; .*checkpoints/00000001"):
        train(toy_one.recipe, tmp_path, "--nan-loss-at", "17", "--steps-per-execution", "5")


def test_a_weight_that_is_nan_under_a_finite_loss_reaches_no_checkpoint(tmp_path):
    with pytest.raises(FloatingPointError, match=r"weight .*unseen is not finite .* is .*00000001"):
        train(toy_one.recipe, tmp_path, "--nan-weight-at", "12")


def test_a_figure_that_is_nan_is_not_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(toy_one, "evaluate", lambda data: lambda model: {"score": float("nan")})
    with pytest.raises(FloatingPointError, match="figure score is not finite in evaluation"):
        train(toy_one.recipe, tmp_path, "--fast")
    assert not list(tmp_path.rglob("metrics.json"))


# --- resume ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def unfinished(diverged, tmp_path):
    """A run that ended within its epochs, and not because it diverged."""
    out = shutil.copytree(diverged[0], tmp_path / "out")
    (out / "runs/toy_one/0001/diverged.txt").unlink()
    return out


def test_resume_passes_by_a_run_that_diverged(diverged):
    assert "not finite" in (diverged[0] / "runs/toy_one/0001/diverged.txt").read_text()
    with pytest.raises(SystemExit, match="found no unfinished run"):
        train(toy_one.recipe, diverged[0], "--resume")


def test_resume_refuses_other_arguments_and_names_them(unfinished):
    with pytest.raises(SystemExit, match=r"leave out --units 8 \(it was 16\), --seed 3 \(it was 0\)"):
        train(toy_one.recipe, unfinished, "--resume", "--units", "8", "--seed", "3", "--epochs", "6")


def test_resume_without_an_unfinished_run_says_so_and_leaves_nothing(tmp_path):
    with pytest.raises(SystemExit, match=r"found no unfinished run in .*toy_one"):
        train(toy_one.recipe, tmp_path, "--resume")
    assert not list(tmp_path.iterdir())


def test_resume_passes_over_a_run_that_another_process_holds(unfinished):
    with open(unfinished / "runs/toy_one/0001/.lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(SystemExit, match="found no unfinished run"):
            train(toy_one.recipe, unfinished, "--resume")


def test_a_run_holds_its_folder_while_it_lives(tmp_path, monkeypatch):
    real, held = toy_one.evaluate, []

    def evaluate(data):
        def evaluate(model):
            with open(tmp_path / "runs/toy_one/0001/.lock") as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held.append(True)
            return real(data)(model)

        return evaluate

    monkeypatch.setattr(toy_one, "evaluate", evaluate)
    train(toy_one.recipe, tmp_path, "--fast")
    assert held


def test_a_checkpoint_that_was_being_written_is_ignored(tmp_path):
    train(toy_one.recipe, tmp_path, "--epochs", "2", "--minutes", "0")
    writing = tmp_path / "runs/toy_one/0001/checkpoints/writing"
    writing.mkdir()
    (writing / "state.weights.h5").write_bytes(b"half of a file")
    (tmp_path / "runs/toy_one/0001/.writing-weights.png").write_bytes(b"half of a picture")
    assert train(toy_one.recipe, tmp_path, "--resume")["epochs"] == 2
    assert not list(tmp_path.rglob("*writing*"))


# --- what a run leaves ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two runs under one seed and a third under another, beside a folder of somebody else."""
    out = tmp_path_factory.mktemp("finished")
    taken = out / "runs/toy_one/0002"
    taken.mkdir(parents=True)
    (taken / "precious.txt").write_text("mine")
    results = [train(toy_one.recipe, out, "--epochs", "3", "--seed", seed) for seed in ("5", "5", "6")]
    return out, results


def test_runs_are_numbered_and_nothing_is_overwritten(finished):
    out, _ = finished
    assert runs(out) == ["0002", "0003", "0004", "0005"]
    assert [path.name for path in (out / "runs/toy_one/0002").iterdir()] == ["precious.txt"]


def test_a_seed_determines_a_run_and_another_seed_another_run(finished):
    out, results = finished
    assert results[0]["figures"] == results[1]["figures"] != results[2]["figures"]
    assert log(out, "toy_one", 3) == log(out, "toy_one", 4) != log(out, "toy_one", 5)


def test_the_log_has_a_row_per_epoch_with_every_metric(finished):
    rows = read_csv(finished[0] / "runs/toy_one/0003/log.csv")
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert set(rows[0]) == {"stage", "epoch", "seconds", "loss", "error", "val_loss", "val_error"}
    assert 0 < rows[0]["seconds"] <= rows[1]["seconds"] <= rows[2]["seconds"]


def test_metrics_say_how_they_came_about(finished):
    written = json.loads((finished[0] / "runs/toy_one/0003/metrics.json").read_text())
    assert written == finished[1][0]
    assert set(written["figures"]) == {"loss", "error"}
    assert written["arguments"]["seed"] == 5
    assert written["arguments"]["units"] == 16
    assert written["versions"]["tensorflow"] == tf.__version__
    assert set(written["versions"]) >= {"python", "dmkeras", "keras", "numpy"}
    assert set(written["machine"]) == {"system", "processor", "cores", "accelerators"}
    assert (written["name"], written["data"], written["epochs"]) == ("toy_one", "a sine", 3)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", written["date"])
    assert 0 < written["training_seconds"] <= written["seconds"]
    if (ROOT / ".git").exists():
        assert re.search("[0-9a-f]{7}", written["commit"])


def test_the_best_epoch_is_kept_and_the_last_beside_it(tmp_path):
    tf.keras.utils.set_random_seed(0)
    recipe = toy_one.recipe(epochs=3)
    recipe.mode = "max"  # of a loss that falls: the first epoch is the best
    training = Training(recipe, tmp_path)
    training.run_stages()
    assert training.best["epoch"] == 1
    for row in (training.rows[0], training.rows[-1]):
        loss = recipe.model.evaluate(recipe.data("validation", 0), verbose=0, return_dict=True)["loss"]
        assert loss == pytest.approx(row["val_loss"], rel=1e-5)
        recipe.model.load_weights(tmp_path / "last.weights.h5")


def test_checkpoints_are_gone_when_the_figures_stand(finished):
    folder = finished[0] / "runs/toy_one/0003"
    assert {path.name for path in folder.iterdir()} == {
        ".lock",
        "config.json",
        "last.weights.h5",
        "log.csv",
        "metrics.json",
        "model.keras",
        "tensorboard",
        "weights.png",
    }


def test_tensorboard_shows_scalars_and_pictures(finished):
    found = set()
    for path in (finished[0] / "runs/toy_one/0003/tensorboard").glob("events*"):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = event_pb2.Event.FromString(record)
            found |= {(v.tag, v.metadata.plugin_data.plugin_name, event.step) for v in event.summary.value}
    tags = {f"fit/{tag}" for tag in ("loss", "error", "val_loss", "val_error")}
    assert {(tag, "scalars", step) for tag in tags for step in (1, 2, 3)} <= found
    assert {("fit/weights", "images")} <= {(tag, plugin) for tag, plugin, _ in found}


def test_pictures_are_written_beside_the_figures(finished):
    picture = tf.io.decode_png((finished[0] / "runs/toy_one/0003/weights.png").read_bytes())
    assert picture.shape == (4, 16, 3)


# --- epochs ---------------------------------------------------------------------------------------------------------


def test_every_epoch_shows_every_row_once_in_an_order_of_its_own(tmp_path):
    recipe, seen = toy_one.recipe(epochs=3, steps_per_execution=4), []
    data = recipe.data
    watch = lambda x, y: tf.numpy_function(lambda x, y: (seen.append(y.ravel()), x)[1], [x, y], tf.float32)

    def watched(split, seed):
        batches = data(split, seed)
        if split != "train":
            return batches
        watch_all = batches.map(lambda x, y: (tf.ensure_shape(watch(x, y), (None, 4)), y))
        return watch_all

    recipe.data = watched
    Training(recipe, tmp_path).run_stages()
    epochs = np.concatenate(seen).reshape(3, 800)
    assert recipe.model.steps_per_execution == 2  # the largest that divides the epoch's ten steps
    assert recipe.model.optimizer.iterations == 30
    assert (np.sort(epochs) == np.sort(epochs[0])).all()
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_several_steps_in_one_execution_train_as_single_steps_do(tmp_path):
    single, several = (
        train(toy_one.recipe, tmp_path / steps, "--epochs", "2", "--steps-per-execution", steps) for steps in ("1", "4")
    )
    assert several["figures"] == pytest.approx(single["figures"], rel=1e-4)


def test_a_number_of_batches_that_is_unknown_is_refused(tmp_path):
    recipe = toy_one.recipe()
    data = recipe.data
    recipe.data = lambda split, seed: data(split, seed).filter(lambda x, y: True)
    with pytest.raises(ValueError, match="number of training batches is unknown"):
        Training(recipe, tmp_path).run_stages()


def test_a_stage_that_fits_twice_is_refused(tmp_path):
    recipe = toy_one.recipe(fast=True)
    recipe.stages = [("both", lambda recipe, fit: (fit(), fit()))]
    with pytest.raises(RuntimeError, match="stage both: fit can be called once"):
        Training(recipe, tmp_path).run_stages()


def test_a_system_that_trains_nothing_has_figures_and_pictures(tmp_path, monkeypatch):
    made = toy_one.recipe

    def recipe():
        ready = made()
        ready.epochs, ready.compile, ready.evaluate = 0, {}, lambda model: {"score": 1}
        return ready

    recipe.__code__ = recipe.__code__.replace(co_filename=toy_one.__file__)
    result = train(recipe, tmp_path)
    assert (result["figures"], result["epochs"]) == ({"score": 1.0}, 0)
    assert (tmp_path / "runs/toy_one/0001/weights.png").exists()


# --- the command line -----------------------------------------------------------------------------------------------


def refusal(capsys, *flags):
    with pytest.raises(SystemExit) as error:
        run(toy_one.recipe, [*flags])
    assert error.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--unit", "3"], "unrecognized arguments: --unit 3"),
        (["--epochs", "many"], "argument --epochs: invalid int value: 'many'"),
        (["--epochs", "0"], "argument --epochs: expected at least 1, received 0"),
        (["--seed", "-1"], "argument --seed: expected at least 0, received -1"),
        (["--minutes", "-5"], "argument --minutes: expected at least 0, received -5"),
        (["--precision", "float8"], "argument --precision: invalid choice: 'float8'"),
    ],
)
def test_a_flag_that_does_not_fit_is_refused_in_words(flags, words, capsys):
    assert words in refusal(capsys, *flags)


def test_help_shows_the_arguments_of_the_recipe_and_of_the_run(capsys):
    with pytest.raises(SystemExit) as error:
        run(toy_one.recipe, ["--help"])
    assert error.value.code == 0
    text = capsys.readouterr().out
    assert "A regression in milliseconds." in text
    assert re.search(r"--units UNITS\s+\(default 16\)", text)
    for flag in ("--seed", "--precision", "--out", "--resume", "--no-export", "--minutes", "--deterministic", "--fast"):
        assert flag in text


def test_bad_arguments_leave_no_folder_behind(tmp_path):
    with pytest.raises(SystemExit, match="units"):
        train(toy_one.recipe, tmp_path, "--units", "0")
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_not_the_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(toy_one, "Recipe", lambda name, *args, **options: toy_staged.Recipe("other", *args, **options))
    with pytest.raises(SystemExit, match=r"recipe 'other' stands in toy_one\.py"):
        train(toy_one.recipe, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_run_tells_how_to_go_on(tmp_path, monkeypatch):
    def evaluate(data):
        def evaluate(model):
            raise KeyboardInterrupt

        return evaluate

    monkeypatch.setattr(toy_one, "evaluate", evaluate)
    with pytest.raises(SystemExit, match=r"runs/toy_one/0001 was interrupted; --resume goes on"):
        train(toy_one.recipe, tmp_path, "--fast")


def test_a_stage_keeps_what_its_optimizer_excludes_from_weight_decay(tmp_path):
    recipe = toy_one.recipe()
    optimizer = keras.optimizers.Adam(weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    Training(recipe, tmp_path).compile({"optimizer": optimizer})
    decayed = [
        weight.name for weight in recipe.model.trainable_weights if recipe.model.optimizer._use_weight_decay(weight)
    ]
    assert "kernel" in decayed
    assert "bias" not in decayed
    assert recipe.model.optimizer is not optimizer
