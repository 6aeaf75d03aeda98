"""What the documents say is so: links, table rows, commands, examples, docstrings' shapes."""

import ast
import importlib
import inspect
import pathlib
import re
import shlex

import keras
import pytest
import tensorflow as tf

import dmkeras
from dmkeras.recipe import _parse
from dmkeras.serving import cli

ROOT = pathlib.Path(__file__).parents[1]
RECIPES = sorted(path.stem for path in (ROOT / "training").glob("*.py") if path.stem != "__init__")
PAGES = sorted(page for page in (*ROOT.glob("*.md"), *ROOT.glob("*/*.md")) if page.relative_to(ROOT).parts[0][0] != ".")
README = (ROOT / "README.md").read_text()
ROW = re.compile(
    r"^\| (?P<name>\w+) \| \[.+?\]\((?P<paper>https://\S+)\) "
    r"\| \[training/(?P=name)\.py\]\(training/(?P=name)\.py\) \| (?P<figure>.+?) \| (?P<picture>.+?) \|$",
    re.MULTILINE,
)


def system(name):
    """The module of a recipe's system."""
    (path,) = (ROOT / "dmkeras").glob(f"*/{name}.py")
    return importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))


# --- pages ----------------------------------------------------------------------------------------------------------


def anchors(text):
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?://)([^)\s]+)\)", text):
        file, _, anchor = target.partition("#")
        there = page.parent / file if file else page
        assert there.exists(), f"{target}: no such file"
        assert not anchor or anchor in anchors(there.read_text()), f"{target}: no such heading"


def test_every_recipe_has_a_row_and_every_row_a_recipe():
    table = README.partition("## Systems")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][2:]
    assert sorted(line.split(" | ")[0].strip("| ") for line in rows) == RECIPES
    for line in rows:
        row = ROW.match(line)
        assert row, f"expected | name | [paper](https://...) | [training/NAME.py](...) | figure | picture |: {line}"
        assert re.search(r"\d", row["figure"]), f"{row['name']}: the figure reached has no number"
        assert re.search(r"\]\([^)]+\.png\)", row["picture"]), f"{row['name']}: no picture"
        assert row["paper"].removesuffix("/") in system(row["name"]).__doc__, f"{row['name']}: another paper"


def test_every_data_set_of_the_table_is_there():
    table = README.partition("## Data")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    names = [name.partition(":")[0] for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    assert "digits" in names
    for name in names:
        assert (ROOT / "dmkeras" / "data" / f"{name}.py").exists(), name


# --- commands -------------------------------------------------------------------------------------------------------

OTHERS = {"cd", "curl", "docker", "git", "kubectl", "openssl", "pip", "tensorboard", "unzip"}  # not ours


def commands(text):
    """The command lines of a page or a docstring: shell blocks, indented or bare lines, code in a sentence."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    shell = [line.partition(" #")[0].strip() for line in re.sub(r"\\\n", " ", blocks).splitlines()]
    ours = r"(?:make \w|python -m (?:training|benchmarks)\.|dmkeras (?:show|predict|serve|config) )"
    lines = [re.split(r"\s{3,}|\s#", line)[0] for line in re.findall(rf"^ *({ours}.*)$", text, re.MULTILINE)]
    return [line for line in shell if line] + lines + re.findall(rf"`({ours}[^`]*)`", text)


def fault(command):
    """Why a command line would not run, or None."""
    command = command.replace("training.NAME", "training.vae").replace("[/NAME[/VERSION]]", "/NAME")
    words = shlex.split(command)
    while re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return next((f"no target {word}" for word in words[1:] if "=" not in word and word not in targets), None)
    if words[:3] == ["python", "-m", "pytest"]:
        return next((f"no {word}" for word in words[3:] if "/" in word and not (ROOT / word).exists()), None)
    if words[:2] == ["python", "-m"]:
        return module_fault(*words[2].split("."), words[3:])
    if words[0] == "dmkeras":
        return refused(cli._parser().parse_args, words[1:])
    return None if words[0] in OTHERS else f"{words[0]} is unknown here"


def module_fault(folder, name, flags):
    path = ROOT / folder / f"{name}.py"
    if not path.exists():
        return f"no {path.relative_to(ROOT)}"
    if folder == "training":
        make = importlib.import_module(f"training.{name}").recipe
        return refused(lambda flags: _parse(make, flags), flags)
    return next((f"no {flag}" for flag in flags if flag.startswith("--") and f'"{flag}"' not in path.read_text()), None)


def refused(parse, flags):
    try:
        parse(flags)
    except SystemExit as error:
        return None if error.code == 0 else f"{flags} are refused"


SOURCES = [*PAGES, *sorted((ROOT / "training").glob("*.py")), *sorted((ROOT / "benchmarks").glob("*.py"))]
SOURCES += [*sorted((ROOT / "dmkeras" / "serving").rglob("*.py")), ROOT / "dmkeras" / "recipe.py"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_line_would_run(path):
    text = path.read_text()
    text = (ast.get_docstring(ast.parse(text)) or "") if path.suffix == ".py" else text
    faults = {command: fault(command) for command in commands(text)}
    assert not {command: why for command, why in faults.items() if why}


def test_the_commands_are_found_and_wrong_ones_refused():
    page = "```sh\nmake quickstart  # minutes\npython -m training.vae --epochs 3 \\\n  --fast\n```\nor `dmkeras show x`"
    assert commands(page)[:2] == ["make quickstart", "python -m training.vae --epochs 3    --fast"]
    assert "dmkeras show x" in commands(page)
    assert commands("python -m training.vae --fast     in seconds") == ["python -m training.vae --fast"]
    for wrong in (
        "make quickstrat",
        "python -m training.vea",
        "python -m training.vae --epoch 3",
        "python -m training.vae --epochs few",
        "python -m benchmarks.nothing",
        "dmkeras shew saved_models",
        "dmkeras predict saved_models",
        "dmkeras serve saved_models --batch",
        "python -m pytest tests/nowhere",
        "dmkera show",
    ):
        assert fault(wrong), wrong


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_shows_its_command(name):
    docstring = ast.get_docstring(ast.parse((ROOT / "training" / f"{name}.py").read_text()))
    assert f"python -m training.{name}" in docstring


# --- examples and names ---------------------------------------------------------------------------------------------


def test_the_examples_of_the_readme_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    names = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_name_of_dmkeras_in_a_sentence_exists(page):
    for name in re.findall(r"`dmkeras\.([\w.]+)", page.read_text()):
        thing = dmkeras
        for part in name.split("."):
            thing = getattr(thing, part, None) or importlib.import_module(f"{thing.__name__}.{part}")


# --- docstrings of systems ------------------------------------------------------------------------------------------

DTYPES = "float32|int32|int64|uint8|string|bool"


def cell_fault(cell, tensors, known):
    """Why a cell of a signature table does not tell {name: TensorSpec}, or None. `known` gathers what was told before.

    A cell lists `name [B, ...] dtype`; one dtype serves the names before it, a name told in an earlier row needs
    nothing more, and floats need no word.
    """
    told = re.findall(rf"(\w+) (\[B[^\]]*\])(?: ({DTYPES}))?", cell)
    extra = [name for name, _, _ in told if name not in tensors]
    if extra:
        return f"there is no {extra[0]}"
    dtype = None
    for name, shape, word in reversed(told):
        dtype = word or dtype
        known[name] = (shape, dtype or "float32")
    for name, spec in tensors.items():
        if not re.search(rf"\b{name}\b", cell):
            return f"{name} is left out"
        if name not in known:
            return f"{name} has no shape"
        shape, dtype = known[name]
        sides = shape.strip("[]").split(",")
        if dtype != spec.dtype.name:
            return f"{name} is {spec.dtype.name}, not {dtype}"
        numbers = [(int(side), fixed) for side, fixed in zip(sides, spec.shape) if side.strip().isdigit()]
        if len(sides) != spec.shape.rank or any(side != fixed for side, fixed in numbers):
            return f"{name} is {spec.shape}, not {shape}"


def table_faults(docstring, signatures):
    """What the table of signatures in a docstring tells wrongly of {name: (inputs, outputs)}, each {name: spec}."""
    rows = [line.strip(" |").split(" | ") for line in docstring.splitlines() if line.strip().startswith("| ")]
    rows = {cells[0]: cells[1:] for cells in rows[2:]}
    if set(rows) != set(signatures):
        return [f"rows {sorted(rows)} for signatures {sorted(signatures)}"]
    known, faults = {}, []
    for name, cells in rows.items():
        for cell, tensors in zip(cells, signatures[name], strict=True):
            why = cell_fault(cell, tensors, known)
            faults += [f"{name}: {why}"] if why else []
    return faults


@pytest.fixture(scope="module", params=RECIPES)
def model(request):
    return importlib.import_module(f"training.{request.param}").recipe(fast=True).model


def test_a_system_names_its_paper_its_call_and_its_signatures(model):
    assert re.search(r"https://(arxiv\.org|doi\.org)/\S+", inspect.getmodule(type(model)).__doc__)
    assert re.search(r"^Call: .*`\[B, .*\]`.*->", inspect.getdoc(type(model)), re.MULTILINE)
    signatures = {}
    for name, (function, specs) in model.signatures().items():
        outputs = tf.function(function, autograph=False).get_concrete_function(*specs).structured_outputs
        signatures[name] = ({spec.name: spec for spec in specs}, outputs)
    assert not table_faults(inspect.getdoc(type(model)), signatures)


UNTRAINED = {"squeezenet", "vgg"}  # weights of weeks on ImageNet are loaded; tests/test_backbones.py has their contract


def test_every_public_system_has_a_recipe():
    things = [getattr(dmkeras, name) for name in dmkeras.__all__]
    models = [thing for thing in things if isinstance(thing, type) and issubclass(thing, keras.Model)]
    homes = {model.__module__.rpartition(".")[2] for model in models}
    assert homes
    assert homes <= {*RECIPES, *UNTRAINED}


TRUE = """
| signature | inputs | outputs |
| --- | --- | --- |
| serving_default | images [B, H, W, 1] float32 in [0, 1] | mean [B, Z], log_var [B, Z] float32 |
| sample | seed [B, 2] int32, one row per answer | images, a draw |
"""


@pytest.mark.parametrize(
    ("right", "wrong", "why"),
    [
        ("", "", None),
        ("seed [B, 2] int32", "seed [B, 2] int64", "seed is int32, not int64"),
        ("seed [B, 2]", "seed [B, 3]", "seed is (None, 2), not [B, 3]"),
        ("images [B, H, W, 1]", "images [B, H, W]", "images is (None, 8, 8, 1), not [B, H, W]"),
        ("log_var [B, Z] float32", "log_var [B, Z] int32", "mean is float32, not int32"),
        ("mean [B, Z], ", "", "mean is left out"),
        ("mean [B, Z]", "mean", "mean has no shape"),
        ("images, a draw", "images, scores [B]", "there is no scores"),
        ("| sample |", "| draw |", "rows ['draw', 'serving_default'] for"),
    ],
)
def test_a_table_of_signatures_that_is_wrong_is_caught(right, wrong, why):
    images, code = tf.TensorSpec((None, 8, 8, 1), "float32"), tf.TensorSpec((None, 4), "float32")
    seed = tf.TensorSpec((None, 2), "int32")
    signatures = {
        "serving_default": ({"images": images}, {"mean": code, "log_var": code}),
        "sample": ({"seed": seed}, {"images": images}),
    }
    faults = table_faults(TRUE.replace(right, wrong), signatures)
    assert (not faults) if why is None else why in faults[0]
