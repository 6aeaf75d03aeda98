"""Who may import whom: parts, data and figures know nothing of ours, a system knows parts, nothing knows training/."""

import ast
import pathlib

import pytest

from dmkeras import _HOME

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted(path.relative_to(ROOT) for folder in ("dmkeras", "training") for path in (ROOT / folder).rglob("*.py"))
FAMILIES = {
    "attention",
    "backbones",
    "detection",
    "generative",
    "segmentation",
    "synthesis",
    "transfer",
    "understanding",
}
MAY = {  # what a top-level part of dmkeras may import of dmkeras
    "__init__": set(),
    "data": {"data"},
    "figures": set(),
    "parts": {"parts"},
    "resumable": set(),
    "recipe": {"figures", "resumable", "serving"},
    "serving": {"figures", "serving", "__version__"},
    "layers": {"parts", *FAMILIES},
    "backbones": {"parts"},
    "subjects": {"parts", "backbones", "data"},  # backbones/subjects.py: a classifier to explain is trained on pictures
    **{family: {"parts", "backbones"} for family in FAMILIES - {"backbones"}},
}
EXTENDS = {"yolo9000": "yolov2"}  # {system: the one system that its paper extends}, as {"infogan": "dcgan"}


def imported(tree):
    """The dotted names that a module imports, at the top or inside a function, and public names it takes of dmkeras."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name != "dmkeras")
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "dmkeras":
            yield f"dmkeras.{node.attr}"


def home(name):
    """A dotted name below dmkeras -> its parts, where public names count as the module they come from."""
    parts = name.split(".")[1:]
    return _HOME[parts[0]].split(".")[1:] if parts and parts[0] in _HOME else parts


def faults(path, source):
    """What the module at `path` (relative to the checkout) must not import."""
    for name in imported(ast.parse(source)):
        top = name.split(".")[0]
        if top in ("training", "tests", "benchmarks"):
            yield f"{path} imports {name}: nothing knows {top}/"
        elif not top:
            yield f"{path} imports {name}: write absolute imports"
        if top != "dmkeras" or path.parts[0] == "training":
            continue
        mine, (part, *rest) = path.with_suffix("").parts[1], home(name)
        mine = "subjects" if path.parts[1:] == ("backbones", "subjects.py") else mine
        if mine in FAMILIES and part in FAMILIES and rest and EXTENDS.get(path.stem) == rest[0]:
            continue
        if part not in MAY[mine]:
            yield f"{path} imports {name}: {mine} may import {sorted(MAY[mine]) or 'nothing'} of dmkeras"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_module_imports_only_what_it_may(path):
    assert not list(faults(path, (ROOT / path).read_text()))


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("dmkeras/data/digits.py", "from dmkeras import figures"),
        ("dmkeras/data/digits.py", "from dmkeras.generative.vae import VAE"),
        ("dmkeras/parts/boxes.py", "import dmkeras.data.files"),
        ("dmkeras/backbones/vgg.py", "from dmkeras.data import load"),
        ("dmkeras/figures.py", "def f():\n    from dmkeras.serving import export"),
        ("dmkeras/generative/vae.py", "from dmkeras.generative import autoencoder"),
        ("dmkeras/generative/vae.py", "from dmkeras.generative.autoencoder import Autoencoder"),
        ("dmkeras/generative/vae.py", "from dmkeras.recipe import Recipe"),
        ("dmkeras/generative/vae.py", "import dmkeras\nmake = lambda: dmkeras.Autoencoder()"),
        ("dmkeras/generative/vae.py", "from . import autoencoder"),
        ("dmkeras/serving/export.py", "import dmkeras\nKIND = dmkeras.VAE"),
        ("dmkeras/recipe.py", "from dmkeras.data import digits"),
        ("dmkeras/recipe.py", "import training.vae"),
        ("training/vae.py", "from training import autoencoder"),
    ],
)
def test_an_import_against_the_direction_is_caught(path, source):
    assert list(faults(pathlib.Path(path), source))


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("dmkeras/data/coco.py", "from dmkeras.data import rle"),
        ("dmkeras/generative/vae.py", "from dmkeras.parts.masked_conv import MaskedConv2D\nimport keras"),
        ("dmkeras/generative/vae.py", "from dmkeras.backbones import vgg"),
        ("dmkeras/serving/export.py", "import dmkeras\nprint(dmkeras.__version__)"),
        ("training/vae.py", "import dmkeras\nfrom dmkeras.recipe import Recipe\nmake = dmkeras.VAE"),
    ],
)
def test_an_import_in_the_direction_passes(path, source):
    assert not list(faults(pathlib.Path(path), source))
