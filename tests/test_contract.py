"""Every recipe in training/ owes the contract, and the contract catches broken systems."""

import importlib
import inspect
import pathlib

import numpy as np
import pytest
import tensorflow as tf

import dmkeras
from tests import contract
from tests.recipes import broken
from tests.serving import refusals

ROOT = pathlib.Path(__file__).parents[1]
NAMES = sorted(path.stem for path in (ROOT / "training").glob("*.py") if path.stem != "__init__")
STILL = {}  # {recipe: (part of the path of a weight that its fast recipe leaves alone, ...)}, each with a reason
TOYS = [broken.Sound, broken.LostWeights, broken.ForgottenArgument, broken.Unregistered, broken.PythonState]


def first_rows(recipe):
    """Three rows of the validation split's inputs."""
    batch = next(iter(recipe.data("validation", 0)))
    inputs = batch[0] if isinstance(batch, tuple) else batch
    return tf.nest.map_structure(lambda array: array[:3].numpy(), inputs)


class Systems:
    """The systems of training/, each trained when it is first asked for, and its failure kept for who asks again."""

    def __init__(self, folder):
        self.folder, self.found = folder, {}
        self.files = folder / "files"
        self.files.mkdir()

    def __getitem__(self, name):
        if name not in self.found:
            try:
                self.found[name] = self.train(name)
            except Exception as error:
                self.found[name] = error
        if isinstance(self.found[name], Exception):
            raise self.found[name]
        return self.found[name]

    def train(self, name):
        make = importlib.import_module(f"training.{name}").recipe
        epochs = ["--epochs", "2"] if "epochs" in inspect.signature(make).parameters else []
        seen = contract.train(make, self.folder / name, "--fast", *epochs)
        model = seen.recipe.model
        seen.feeds = contract.requests(model, first_rows(seen.recipe))
        seen.answers = contract.check_answers(model, seen.feeds)
        contract.save(model, seen.feeds, self.files, name)
        return seen


@pytest.fixture(scope="module")
def systems(tmp_path_factory):
    return Systems(tmp_path_factory.mktemp("systems"))


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """{class: its model}, untrained but with weights of their own, so that a lost one differs from a new one."""
    rng, models = np.random.default_rng(0), {kind: kind(activation="relu") for kind in TOYS}
    for model in models.values():
        model(broken.IMAGES[:1])
        model.set_weights([rng.normal(size=weight.shape) for weight in model.weights])
    return models


@pytest.fixture(scope="module")
def reloaded(systems, toys):
    """The folder with the answers of one fresh process, and {toy: its answers here}."""
    for name in NAMES:
        try:
            systems[name]
        except Exception:
            continue  # its own tests report it
    here = {}
    for kind, model in toys.items():
        feeds = contract.requests(model, broken.IMAGES)
        here[kind] = contract.answers(model, feeds)
        contract.save(model, feeds, systems.files, kind.__name__)
    contract.reload(systems.files, "tests.recipes.broken")
    return systems.files, here


@pytest.mark.parametrize("name", NAMES)
def test_training_moves_every_weight_and_improves_the_chosen_figure(name, systems):
    contract.check_training(systems[name], STILL.get(name, ()))


@pytest.mark.parametrize("name", NAMES)
def test_pictures_come_out(name, systems):
    seen = systems[name]
    pictures = seen.recipe.pictures(seen.recipe.model)
    contract.check_pictures(pictures)
    assert {path.stem for path in seen.folder.glob("*.png")} == set(pictures)


@pytest.mark.parametrize("name", NAMES)
def test_every_endpoint_of_the_saved_model_answers_as_the_model_does(name, systems):
    seen = systems[name]
    contract.check_endpoints(seen.answers, seen.feeds, pathlib.Path(seen.result["saved_model"]))


@pytest.mark.parametrize("name", NAMES)
def test_every_endpoint_of_a_frozen_version_answers_as_the_model_does(name, systems, tmp_path):
    seen = systems[name]
    version = dmkeras.export(seen.recipe.model, tmp_path / name, labels=seen.recipe.labels, frozen=True)
    contract.check_endpoints(seen.answers, seen.feeds, version)


@pytest.mark.parametrize("name", NAMES)
def test_every_endpoint_refuses_tensors_of_another_rank_dtype_or_size_and_answers_on(name, systems):
    refusals.check(pathlib.Path(systems[name].result["saved_model"]))


@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_process_reloads_the_model_bit_for_bit(name, systems, reloaded):
    contract.check_reloaded(systems[name].answers, reloaded[0], name)


# --- the suite itself -----------------------------------------------------------------------------------------------


def test_the_suite_passes_a_sound_system(tmp_path, toys, reloaded):
    contract.check_training(contract.train(broken.recipe, tmp_path, "--no-export"))
    model, feeds = toys[broken.Sound], contract.requests(toys[broken.Sound], broken.IMAGES)
    expected = contract.check_answers(model, feeds)
    contract.check_endpoints(expected, feeds, dmkeras.export(model, tmp_path / "sound"))
    contract.check_reloaded(reloaded[1][broken.Sound], reloaded[0], "Sound")
    contract.check_pictures({"noise": np.arange(12, dtype="uint8").reshape(2, 2, 3)})


@pytest.mark.parametrize("system", ["NoGradient", "Frozen"])
def test_the_suite_catches_a_weight_that_does_not_move(system, tmp_path):
    seen = contract.train(broken.recipe, tmp_path, "--no-export", "--system", system)
    with pytest.raises(AssertionError, match=r"no training reaches .*kernel"):
        contract.check_training(seen)


def test_the_suite_catches_a_figure_that_gets_worse_or_is_not_finite(tmp_path):
    seen = contract.train(broken.recipe, tmp_path, "--no-export", "--backwards")
    with pytest.raises(AssertionError, match="loss went from"):
        contract.check_training(seen)
    seen.result["figures"]["loss"] = float("nan")
    with pytest.raises(AssertionError, match=r"\['loss'\] are not finite"):
        contract.check_training(seen)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (broken.LostWeights, "was not loaded|weight/000"),
        (broken.ForgottenArgument, r"other \['call/0', 'serving_default/images'\]"),
        (broken.Unregistered, "was not loaded"),
    ],
)
def test_the_suite_catches_what_is_lost_on_reload(kind, words, reloaded):
    with pytest.raises(AssertionError, match=words):
        contract.check_reloaded(reloaded[1][kind], reloaded[0], kind.__name__)


def test_the_suite_catches_a_call_that_writes_to_the_weights():
    model = broken.MasksItsKernel()
    model.decoder.layers[1].kernel.assign(np.ones((3, 16)))
    with pytest.raises(AssertionError, match=r"an answer changes .*kernel"):
        contract.check_answers(model, contract.requests(model, broken.IMAGES))


def test_the_suite_catches_an_endpoint_that_draws(tmp_path):
    model = broken.HiddenDraws()
    with pytest.raises(AssertionError, match=r"two answers to one request: \['serving_default/images'\]"):
        contract.check_answers(model, contract.requests(model, broken.IMAGES))
    with pytest.raises(ValueError, match="signature 'serving_default'"):
        dmkeras.export(model, tmp_path / "draws")


def test_the_suite_catches_an_endpoint_that_differs(tmp_path, toys):
    model = toys[broken.PythonState]
    version = dmkeras.export(model, tmp_path / "state")
    model.scale = 2.0
    feeds = contract.requests(model, broken.IMAGES)
    with pytest.raises(AssertionError, match=r"the SavedModel answers other \['serving_default/images'\]"):
        contract.check_endpoints(contract.check_answers(model, feeds), feeds, version)


@pytest.mark.parametrize(
    "pictures",
    [
        {},
        {"flat": np.full((4, 4, 3), 255, "uint8")},
        {"grey": np.eye(4, dtype="uint8")},
        {"alpha": np.ones((4, 4, 4), "uint8") * np.arange(4, dtype="uint8")},
        {"float": np.random.default_rng(0).uniform(size=(4, 4, 3))},
    ],
    ids=lambda pictures: next(iter(pictures), "none"),
)
def test_the_suite_catches_pictures_that_show_nothing(pictures):
    with pytest.raises(AssertionError):
        contract.check_pictures(pictures)
