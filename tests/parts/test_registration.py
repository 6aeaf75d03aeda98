"""What registration owes: it finds known affine and smooth moves, leaves equal pictures alone, carries labels."""

import sys

import numpy as np
import pytest
from scipy import ndimage

from dmkeras.parts.registration import places, propagate

Y, X = np.mgrid[:48, :48].astype(float)


def picture(y=Y, x=X):
    """A smooth scene at places: two bodies in a body."""
    body = 1 / (1 + np.exp(np.hypot((y - 24) / 1.2, x - 24) - 15))
    return (body * (0.6 + 0.4 * np.sin(x / 5) * np.cos(y / 4)) - 0.4 * (np.hypot(y - 20, x - 18) < 4))[..., None]


def inner(found, expected):
    """Mean distance in pixels where the body is."""
    body = np.hypot(Y - 24, X - 24) < 14
    return np.hypot(*np.moveaxis(found - expected, -1, 0))[body].mean()


def test_equal_pictures_stay_where_they_are():
    assert inner(places(picture(), picture()), np.stack([Y, X], -1)) < 0.1


def test_a_known_affine_move_is_found():
    y, x = 24 + 1.05 * (Y - 24) + 0.08 * (X - 24) + 2, 24 + 0.95 * (X - 24) - 0.06 * (Y - 24) - 1.5
    expected, identity = np.stack([y, x], -1), np.stack([Y, X], -1)
    assert inner(identity, expected) > 2
    assert inner(places(picture(y, x), picture(), deformable=False), expected) < 0.3
    assert inner(places(picture(y, x), picture()), expected) < 0.5


def test_a_smooth_bend_is_found_by_the_deformable_step_alone():
    y, x = Y + 2 * np.sin(X / 8), X + 2 * np.cos(Y / 9)
    expected = np.stack([y, x], -1)
    affine, deformable = (inner(places(picture(y, x), picture(), d), expected) for d in (False, True))
    assert deformable < 0.6 * affine


def test_the_bend_is_of_the_fixed_picture_and_the_affine_move_comes_after():
    """places(q) = A (q + u(q)): the other order, A q + u(A q), would miss the turn of u."""
    bend_y, bend_x = Y + 2.5 * np.sin(X / 6), X + 2.5 * np.cos(Y / 6)
    c, s = np.cos(0.4), np.sin(0.4)
    turned = lambda y, x: (24 + c * (y - 24) + s * (x - 24), 24 + c * (x - 24) - s * (y - 24))
    y, x = turned(bend_y, bend_x)
    found = places(picture(y, x), picture())
    assert inner(found, np.stack([y, x], -1)) < 0.6


def test_brightness_does_not_matter():
    darker = places(0.4 * picture(Y + 2, X), picture())
    assert inner(darker, np.stack([Y + 2, X], -1)) < 0.5


def test_the_same_pictures_give_the_same_places():
    np.testing.assert_array_equal(places(picture(Y + 1, X), picture()), places(picture(Y + 1, X), picture()))


def test_labels_are_carried_along_by_the_nearest_pixel():
    labels = np.arange(12, dtype="int32").reshape(3, 4)
    identity = np.moveaxis(np.indices((3, 4)), 0, -1).astype("float32")
    np.testing.assert_array_equal(propagate(labels, identity), labels)
    np.testing.assert_array_equal(
        propagate(labels, identity + np.array([0, 0.9])), ndimage.shift(labels, (0, -1), mode="nearest")
    )
    np.testing.assert_array_equal(propagate(labels, np.stack([identity, identity + 9]))[1], np.full((3, 4), 11))


@pytest.mark.parametrize("flat", [np.zeros((48, 48, 1)), np.full((48, 48, 1), 0.5)])
def test_a_picture_without_anything_to_see_moves_nothing(flat):
    for pair in ((flat, picture()), (picture(), flat), (flat, flat)):
        found = places(*pair)
        assert np.isfinite(found).all()
        assert inner(found, np.stack([Y, X], -1)) < 3


def test_pictures_that_cannot_be_are_refused():
    for fixed, moving in (
        (picture()[:-1], picture()),
        (picture()[..., 0], picture()[..., 0]),
        (picture() * np.nan, picture()),
    ):
        with pytest.raises(ValueError, match="two pictures"):
            places(fixed, moving)


def test_without_simpleitk_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(ImportError, match=r"dmkeras\[registration\].*'cnn' or 'forest'"):
        places(picture(), picture())
