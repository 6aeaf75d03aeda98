"""Training that can be killed at any point: stages of epochs, functions of (seed, stage, epoch), with checkpoints.

A checkpoint is a folder written under another name and renamed, so that there is always a whole one:

    checkpoints/00000007/  state.weights.h5  weights and optimizer
                           random.npz        random generators, which Keras leaves out of its files
                           best.npz          the best epoch's weights in this stage
                           log.csv           the rows up to here; `log.csv` of the run is its copy
                           state.json        stage, epoch, seconds, the best epoch and its value
"""

import csv
import json
import os
import pathlib
import shutil
import sys
import time
import warnings

import keras
import numpy as np
import tensorflow as tf


class Training:
    """The stages of one run, from wherever its newest checkpoint left them."""

    def __init__(self, recipe, folder, seed=0, minutes=None, checkpoint_seconds=15.0):
        self.recipe, self.model = recipe, recipe.model
        self.folder, self.checkpoints = pathlib.Path(folder), pathlib.Path(folder, "checkpoints")
        self.seed, self.minutes, self.checkpoint_seconds = seed, minutes, checkpoint_seconds
        self.stage, self.epoch, self.seconds, self.best, self.rows = 0, 0, 0.0, None, []
        self.stage_epochs, self.fitted, self.started, self.last_checkpoint = 0, False, time.time(), time.time()
        self.writer = tf.summary.create_file_writer(str(self.folder / "tensorboard"))
        self.trainable = [(layer, layer.trainable) for layer in self.model._flatten_layers()]  # containers first
        self.stages = recipe.stages or ([("fit", lambda recipe, fit: fit())] if recipe.epochs else [])
        self._restore()

    def run_stages(self):
        """Runs what is left; returns whether everything is done (False: the minutes were over).

        A stage begins the same whether or not the stages before it ran in this process.
        """
        while self.stage < len(self.stages):
            self.fitted = False
            self._unfreeze()
            if self.epoch == 0:
                self.best = None
            keras.utils.set_random_seed((self.seed * 1000 + self.stage + 1) % 2**32)
            try:
                self.stages[self.stage][1](self.recipe, self.fit)
            except _TimeOver:
                return False
            self.stage, self.epoch = self.stage + 1, 0
            self.checkpoint()
        self._unfreeze()
        return True

    def _unfreeze(self):
        """`trainable` as the model was made with it: what a stage froze is frozen in that stage alone."""
        for layer, trainable in self.trainable:
            layer.trainable = trainable

    @property
    def elapsed(self):
        return self.seconds + time.time() - self.started

    @property
    def out_of_time(self):
        return self.minutes is not None and time.time() - self.started > 60 * self.minutes

    def fit(self, data=None, epochs=None, compile=None):
        """`model.fit` of the stage from the epoch that the checkpoint holds; leaves the best epoch's weights."""
        if self.fitted:
            raise RuntimeError(f"stage {self._stage_name}: fit can be called once in a stage; make it two stages")
        self.fitted = True
        data, self.stage_epochs = data or self.recipe.data, epochs or self.recipe.epochs
        steps = int(data("train", 0).cardinality())
        if steps < 1:
            raise ValueError(
                f"recipe {self.recipe.name}: the number of training batches is unknown or 0; use assert_cardinality"
            )
        self.compile(compile or self.recipe.compile, steps)
        if self.epoch:
            self._load_state()  # now with the optimizer
        if self.epoch < self.stage_epochs:
            self._fit(data, steps)
        if self.epoch < self.stage_epochs:
            self.checkpoint()
            raise _TimeOver
        replace(self.folder / "last.weights.h5", self.model.save_weights)
        if self.best:
            self.model.set_weights(self.best["weights"])

    def compile(self, options, steps=1):
        """`model.compile` with nothing left of an earlier one: a stage begins the same whatever ran before it."""
        self.model._compile_loss = self.model._compile_metrics = None  # which Keras keeps if none is given
        options = {key: _new(o) if isinstance(o, keras.optimizers.Optimizer) else o for key, o in options.items()}
        # Keras runs whole executions: one that does not divide the epoch would eat into the next epoch's batches.
        wanted = options.get("steps_per_execution", 1)
        options["steps_per_execution"] = max(n for n in range(1, min(wanted, steps) + 1) if steps % n == 0)
        self.model.compile(**{"jit_compile": False, **options})
        if self.model.optimizer is not None and not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)

    def _fit(self, data, steps):
        seed = lambda epoch: tf.random.stateless_uniform(
            [], tf.stack([tf.constant(self.seed, "int64") * 1000 + self.stage, epoch]), 0, 2**31 - 1, "int64"
        )
        epochs_left = tf.data.Dataset.range(self.epoch, self.stage_epochs)
        self.model.fit(
            epochs_left.flat_map(lambda epoch: data("train", seed(epoch))).prefetch(tf.data.AUTOTUNE),
            initial_epoch=self.epoch,
            epochs=self.stage_epochs,
            steps_per_epoch=steps,
            shuffle=False,  # the data set is shuffled already
            validation_data=data("validation", 0) if self.recipe.improves else None,
            validation_freq=self.recipe.validation_freq,
            callbacks=[_Keeper(self)],
            verbose=1 if sys.stdout.isatty() else 2,
        )

    @property
    def _stage_name(self):
        return self.stages[self.stage][0]

    def end_epoch(self, epoch, logs):
        """Log, best epoch, pictures, checkpoint."""
        self.epoch = epoch + 1
        stage = self._stage_name
        self.rows.append({"stage": stage, "epoch": self.epoch, "seconds": round(self.elapsed, 2), **logs})
        value = logs.get(f"val_{self.recipe.improves}")
        sign = 1 if self.recipe.mode == "min" else -1
        if value is not None and (not self.best or sign * value < sign * self.best["value"]):
            self.best = {"value": value, "epoch": self.epoch, "weights": self.model.get_weights()}
        with self.writer.as_default(len(self.rows)):
            for key, number in logs.items():
                tf.summary.scalar(f"{stage}/{key}", number)
            if (
                self.recipe.pictures
                and self.epoch % (self.recipe.pictures_every or max(1, self.stage_epochs // 10)) == 0
            ):
                for stem, picture in self.recipe.pictures(self.model).items():
                    tf.summary.image(f"{stage}/{stem}", picture[None])
        if time.time() - self.last_checkpoint >= self.checkpoint_seconds:
            self.checkpoint()
        if self.out_of_time:
            self.model.stop_training = True

    def diverged(self, what, where):
        newest = self._newest()
        raise FloatingPointError(
            f"{what} is not finite {where}; "
            + (f"the last good checkpoint is {newest}" if newest else "there was no checkpoint yet")
            + ". A smaller learning rate, gradient clipping or a look at the data may help."
        )

    def checkpoint(self):
        """Writes the state under another name, renames it, and removes what it replaces."""
        optimizers = [part for part in vars(self.model).values() if isinstance(part, keras.optimizers.Optimizer)]
        variables = [*self.model.weights, *(state for optimizer in optimizers for state in optimizer.variables)]
        bad = [variable.path for variable in variables if not np.isfinite(variable.numpy()).all()]
        if bad:
            self.diverged(f"weight {bad[0]}", f"after epoch {len(self.rows)} of the run")
        newest = self._newest()
        number = int(newest.name) + 1 if newest else 1
        new = self.checkpoints / "writing"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        self.model.save_weights(new / "state.weights.h5")
        best = self.best and {key: self.best[key] for key in ("value", "epoch")}
        np.savez(new / "random.npz", *[state.numpy() for state in self._random_states()])
        if self.best:
            np.savez(new / "best.npz", *self.best["weights"])
        _write_csv(new / "log.csv", self.rows)
        state = {"stage": self.stage, "epoch": self.epoch, "seconds": self.elapsed, "best": best}
        (new / "state.json").write_text(json.dumps(state))
        for file in (*new.iterdir(), new):
            _sync(file)
        new.rename(self.checkpoints / f"{number:08d}")
        self._publish_log()
        for old in sorted(self.checkpoints.glob("[0-9]" * 8))[:-1]:
            shutil.rmtree(old)
        self.writer.flush()
        self.last_checkpoint = time.time()

    def _publish_log(self):
        replace(self.folder / "log.csv", lambda path: shutil.copy(self._newest() / "log.csv", path))

    def _newest(self):
        return max((path for path in self.checkpoints.glob("[0-9]" * 8)), default=None)

    def _restore(self):
        newest = self._newest()
        if newest is None:
            return
        state = json.loads((newest / "state.json").read_text())
        self.stage, self.epoch, self.seconds = state["stage"], state["epoch"], state["seconds"]
        self._load_state()
        self._publish_log()  # the kill may have come between a checkpoint and this
        self.rows = read_csv(newest / "log.csv")
        if state["best"]:
            self.best = {**state["best"], "weights": _load_arrays(newest / "best.npz")}

    def _load_state(self):
        newest = self._newest()
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Skipping variable loading")  # an optimizer that its compile did not build
            self.model.load_weights(newest / "state.weights.h5")
        for state, value in zip(self._random_states(), _load_arrays(newest / "random.npz"), strict=True):
            state.assign(value)

    def _random_states(self):
        """The states of the model's seed generators, which are variables but no weights, and no metric's."""
        others = {id(variable) for variable in (*self.model.weights, *self.model.metrics_variables)}
        return [variable for variable in self.model.variables if id(variable) not in others]


class _TimeOver(Exception):  # noqa: N818 - no error
    """Leaves a stage in the middle, so that nothing that follows its `fit` sees half-trained weights."""


class _Keeper(keras.callbacks.Callback):
    """Tells the training of every epoch's end, and of the first number that is not finite."""

    def __init__(self, training):
        super().__init__()
        self.training = training

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        first, last = batch + 2 - self.model.steps_per_execution, batch + 1
        self._check(logs, f"at step {last if first == last else f'{first} to {last}'} of epoch {self.epoch + 1}")

    def on_epoch_end(self, epoch, logs=None):
        self._check(logs, f"at the end of epoch {epoch + 1}")
        self.training.end_epoch(epoch, {key: float(value) for key, value in logs.items()})

    def _check(self, logs, where):
        for key, value in (logs or {}).items():
            if not np.isfinite(value):
                self.training.diverged(f"metric {key}", where)


def _new(optimizer):
    """The optimizer as it was configured; what it excludes from weight decay is left out of a Keras config."""
    new = type(optimizer).from_config(optimizer.get_config())
    kept = ("_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern")
    vars(new).update({key: value for key, value in vars(optimizer).items() if key in kept})
    return new


def replace(path, write):
    """Lets `write(other path)` make a file of a run, then puts it in its place in one move."""
    other = path.with_name(f".writing-{path.name}")
    other.unlink(missing_ok=True)  # of a process that was killed
    write(other)
    os.replace(other, path)


def _sync(path):
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def _write_csv(path, rows):
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def _load_arrays(path):
    with np.load(path) as arrays:
        return [arrays[key] for key in arrays.files]


def _number(key, text):
    return text if key == "stage" else int(text) if key == "epoch" else float(text)


def read_csv(path):
    """A run's log.csv -> list of dicts; numbers are floats, `stage` is a string, an empty cell is left out."""
    with open(path, newline="") as file:
        return [{key: _number(key, value) for key, value in row.items() if value} for row in csv.DictReader(file)]
