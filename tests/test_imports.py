"""`import dmkeras` is light and lazy, and its public names are the ones of its table."""

import ast
import json
import pathlib
import subprocess
import sys

import pytest

import dmkeras

ROOT = pathlib.Path(__file__).parents[1]
HEAVY = ("tensorflow", "keras", "keras_cv", "tensorflow_probability", "numpy", "sklearn", "matplotlib")
# Needed by one function or another, at half a second each: imported where they are used.
LATE = ("matplotlib", "sklearn", "skimage", "scipy", "PIL", "tensorflow_datasets", "pycocotools", "cv2", "grpc")
GRPC_PORT = ("grpc_server.py", "grpc_health.py")  # are imported by the server alone, and are about nothing else

PROBE = f"""
import json, sys, time
start = time.process_time()
import dmkeras
seconds = time.process_time() - start
print(json.dumps([seconds, [name for name in {HEAVY} if name in sys.modules], dir(dmkeras)]))
"""


@pytest.fixture(scope="module")
def fresh():
    """(seconds, heavy modules, names) of `import dmkeras` in three new processes."""
    command = [sys.executable, "-c", PROBE]
    return [json.loads(subprocess.check_output(command, cwd=ROOT, text=True)) for _ in range(3)]


def test_import_takes_less_than_a_tenth_of_a_second(fresh):
    assert min(seconds for seconds, _, _ in fresh) < 0.1


def test_import_brings_no_heavy_library(fresh):
    assert fresh[0][1] == []


def test_names_are_listed_before_they_are_loaded(fresh):
    assert set(fresh[0][2]) >= {"VAE", "Recipe", "data", "export", "figures", "load", "run", "serving"}


@pytest.mark.parametrize("name", dmkeras.__all__)
def test_every_public_name_is_there(name):
    assert getattr(dmkeras, name) is not None


def test_a_misspelt_name_lists_near_matches():
    with pytest.raises(AttributeError, match=r"no attribute 'Vae'; did you mean .*VAE"):
        dmkeras.Vae  # noqa: B018
    with pytest.raises(ImportError):
        from dmkeras import autoencodr  # noqa: F401


def test_load_says_what_is_wrong_with_a_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*model\.keras"):
        dmkeras.load(tmp_path / "model.keras")
    (tmp_path / "model.keras").write_text("weights")
    with pytest.raises(ValueError, match=r"model\.keras is no \.keras file"):
        dmkeras.load(tmp_path / "model.keras")


@pytest.mark.parametrize("path", sorted((ROOT / "dmkeras").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_slow_libraries_only_where_it_uses_them(path):
    names = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module)
    late = set(LATE) - ({"grpc"} if path.name in GRPC_PORT else set())
    assert not [name for name in names if name.split(".")[0] in late]
