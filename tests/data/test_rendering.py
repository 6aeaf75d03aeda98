"""Laws of what the rendered sets share: exact arithmetic, numbered pictures."""

import ast
import inspect
import itertools

import numpy as np
import pytest

from dmkeras.data import painting, phantoms, rendering, shapes

# What IEEE 754 rounds in one way only, and what only moves, compares or counts numbers.
EXACT = {
    "abs", "arange", "array", "clip", "concatenate", "count_nonzero", "float32", "floor", "full", "integer", "maximum",
    "minimum", "ndarray", "prod", "random", "s_", "sqrt", "uint64", "zeros", "zeros_like",
}  # fmt: skip


def inexact(source):
    """The NumPy functions and operators in a source whose last bit may differ between machines."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("np", "math"):
            if node.attr not in EXACT:
                found.append(node.attr)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Pow, ast.MatMult)):
            power = isinstance(node.right, ast.Constant) and isinstance(node.right.value, int)
            if not (isinstance(node.op, ast.Pow) and (power or isinstance(node.right, ast.UnaryOp))):
                found.append(type(node.op).__name__)
    return found


@pytest.mark.parametrize("module", [rendering, painting, shapes, phantoms])
def test_pictures_are_made_of_exact_operations_alone(module):
    assert inexact(inspect.getsource(module)) == []


@pytest.mark.parametrize("source", ["np.exp(x)", "np.einsum('ij->i', x)", "x @ y", "x ** 0.5", "math.sin(x)"])
def test_an_inexact_operation_would_be_noticed(source):
    assert len(inexact(source)) == 1


def test_uniform_numbers_are_the_upper_bits_of_the_generator():
    words = np.random.PCG64(7).random_raw(5)
    expected = [int(word) // 2**11 / 2**53 for word in words]
    assert rendering.uniform(np.random.PCG64(7), 5) == expected


def test_a_rotation_lies_on_the_circle_at_its_angle():
    turns = np.linspace(-0.5, 0.5, 101)
    cosine, sine = np.array([rendering.rotation(float(turn)) for turn in turns]).T
    np.testing.assert_allclose(cosine**2 + sine**2, 1, atol=1e-12)
    np.testing.assert_allclose(cosine, np.cos(2 * np.pi * turns), atol=5e-4)
    np.testing.assert_allclose(sine, np.sin(2 * np.pi * turns), atol=5e-4)


def test_a_spline_is_the_b_spline_of_its_control_points():
    from scipy.interpolate import BSpline

    size, control = 20, np.random.default_rng(0).random((2, 8, 8), "float32")
    place = (np.arange(size) + 0.5) * 5 / size
    basis = np.stack([BSpline.basis_element(np.arange(k - 3, k + 2))(place) for k in range(8)])
    basis[(place < np.arange(-3, 5)[:, None]) | (place >= np.arange(1, 9)[:, None])] = 0
    expected = np.einsum("nij,jy,ix->nyx", control, basis, basis)
    np.testing.assert_allclose(rendering.spline(control, size), expected, atol=1e-6)


def test_grain_has_mean_zero_and_variance_one():
    noise = rendering.grain(np.random.PCG64(0), (3, 200, 200), 4)
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01


@pytest.mark.parametrize(
    ("hue", "name"), [(0, (255, 0, 0)), (1 / 3, (0, 255, 0)), (2 / 3, (0, 0, 255)), (1.5, (0, 255, 255))]
)
def test_hues_go_round(hue, name):
    np.testing.assert_allclose(rendering.colour(hue, 1, 1), name, atol=1e-9)


def test_no_picture_belongs_to_two_splits_or_seeds():
    spans = [
        (rendering.first_picture(split, seed), rendering.first_picture(split, seed) + rendering.PER_SPLIT)
        for seed in range(5)
        for split in rendering.SPLITS
    ]
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))


@pytest.mark.parametrize("source", [shapes, phantoms])
def test_a_picture_is_the_same_whatever_is_read_besides(source):
    few, many = (list(source.load("test", size=32, count=count).as_numpy_iterator()) for count in (2, 4))
    alone = source.scene(rendering.first_picture("test", 0) + 1, 32)
    for one, other in zip(few, many):
        assert all(np.array_equal(one[key], other[key]) for key in one)
    np.testing.assert_array_equal(few[1]["image"], alone["image"] / np.float32(255))
    assert all(np.array_equal(few[1][key], alone[key]) for key in alone if key != "image")


@pytest.mark.parametrize("source", [shapes, phantoms])
def test_splits_and_seeds_share_no_picture(source):
    pictures = [
        record["image"].tobytes()
        for split in rendering.SPLITS
        for seed in (0, 1)
        for record in source.load(split, size=32, count=3, seed=seed).as_numpy_iterator()
    ]
    assert len(set(pictures)) == 18
