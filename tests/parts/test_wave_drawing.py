"""Laws of drawing several rows at once, of its schedule; models that draw so are compared with naive draws."""

import numpy as np
import pytest

from dmkeras.parts import wave_drawing
from dmkeras.parts.wave_drawing import LAG, WINDOW, _places, _schedule

SHAPES = [(1, 1), (4, 3), (3, 4), (2, 9), (5, 12), (28, 28)]
TAPS = ((1, -1), (1, 0), (1, 1), (0, -1))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_pixel_is_drawn_once_and_found_again(shape):
    inside, place, found, _ = _schedule(*shape)
    np.testing.assert_array_equal(np.sort(place[inside]), np.arange(np.prod(shape)))
    np.testing.assert_array_equal(place.reshape(-1)[found], np.arange(np.prod(shape)))
    assert inside.reshape(-1)[found].all()
    assert len(inside) == LAG * (shape[0] + -(-shape[1] // LAG))


def drawn(shape):
    """(row, column) -> (time, slot), of the row above the picture too."""
    inside, place, _, outside = _schedule(*shape)
    return {
        **{divmod(place[t, s], shape[1]): (t, s) for t, s in np.argwhere(inside)},
        **{(-1, outside[t, s]): (t, s) for t, s in np.argwhere(outside < shape[1])},
    }


def check_places(shape, taps, youngest):
    """A tap's place, by age and slot, is where its pixel was drawn, and a border or empty where there is no pixel."""
    when, slots = drawn(shape), -(-shape[1] // LAG)
    table, who = _places(taps, slots, youngest), {place: pixel for pixel, place in drawn(shape).items()}
    for (row, column), (t, s) in when.items():
        for i, (d, e) in enumerate(taps):
            if row < 0 or (d == 0 and e >= 0):  # itself and what is later: not read
                continue
            age, slot = divmod(table[t % LAG, i, s], slots + 2)
            found = who.get((t - age - youngest, slot - 1)) if 0 < slot <= slots else None
            expected = (row - d, column + e)
            assert found == (expected if expected in when else None)


@pytest.mark.parametrize("shape", SHAPES[:-1], ids=str)
def test_a_tap_is_read_where_its_pixel_was_drawn(shape):
    check_places(shape, TAPS, 1)
    above = [(d, e) for d, e in WINDOW if d <= 1]  # rows farther above the picture are zeros, as all of them are here
    check_places(shape, above, 0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_a_window_covers_is_drawn_before(shape):
    when = drawn(shape)
    for (row, column), (time, _) in when.items():
        for d, e in WINDOW:
            if (d, -e) > (0, 0) and (row - d, column + e) in when:
                assert when[row - d, column + e][0] < time


def test_rows_that_follow_too_closely_are_caught(monkeypatch):
    monkeypatch.setattr(wave_drawing, "LAG", 3)
    with pytest.raises(AssertionError):
        test_what_a_window_covers_is_drawn_before((5, 12))
