"""Laws of the pictures that dmkeras draws: every pixel that can be named is asserted."""

import subprocess
import sys

import numpy as np
import pytest

from dmkeras import figures

COLORS = [tuple(bytes.fromhex(color[1:])) for color in figures.PALETTE]
GREY = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8, 1)


def is_picture(picture):
    return picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3 and picture.flags.writeable


def has(picture, color):
    return bool((picture == np.array(color, np.uint8)).all(-1).any())


def blended(picture, color, opacity):
    """How many pixels show `color` so opaque over white."""
    wanted = opacity * np.array(color) + (1 - opacity) * 255
    return (np.abs(picture - wanted) <= 2).all(-1).sum()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, bool])
def test_a_grid_holds_every_picture_pixel_by_pixel_enlarged_by_an_integer(channels, dtype):
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 4, channels))
    images = images.astype(np.uint8) if dtype is np.uint8 else (images / 255 > 0.5 if dtype is bool else images / 255)
    images = images.astype(dtype)
    picture = figures.grid(images, columns=2, scale=3, gap=4)
    assert is_picture(picture)
    for index, image in enumerate(images):
        row, column = divmod(index, 2)
        y, x = figures.PAD + row * (15 + 4), figures.PAD + column * (12 + 4)
        expected = image if dtype is np.uint8 else np.round(image.astype(float) * 255).astype(np.uint8)
        expected = np.broadcast_to(expected, (5, 4, 3)).repeat(3, 0).repeat(3, 1)
        np.testing.assert_array_equal(picture[y : y + 15, x : x + 12], expected)
    assert (picture[figures.PAD + 19 :, figures.PAD + 16 :] == 255).all()  # the place of the missing fourth


@pytest.mark.parametrize(("side", "scale"), [(8, 9), (28, 3), (64, 1), (300, 1)])
def test_small_pictures_grow_and_large_ones_do_not(side, scale):
    picture = figures.grid(np.zeros((1, side, side, 1)))
    assert picture.shape[:2] == (side * scale + 2 * figures.PAD,) * 2


def test_texts_take_place_of_their_own_and_leave_the_pictures_whole():
    images = np.full((4, 8, 8, 3), 0.5)
    plain = figures.grid(images, columns=2)
    texts = {
        "titles": list("abcd"),
        "row_labels": ["first", "second"],
        "column_labels": ["a column wider than its pictures", "x"],
        "title": "a title",
    }
    for name, text in texts.items():
        picture = figures.grid(images, **({"columns": 2} | {name: text}))
        assert picture.size > plain.size
        assert (picture < 100).all(-1).any()  # black on white
        assert (picture == 128).all(-1).sum() == (plain == 128).all(-1).sum() == 4 * 72 * 72


def test_pictures_of_different_sizes_share_a_grid():
    picture = figures.grid([np.zeros((10, 4)), np.zeros((6, 12, 3))], columns=2, scale=1, gap=2)
    assert picture.shape == (10 + 2 * figures.PAD, 12 + 2 + 12 + 2 * figures.PAD, 3)
    assert (picture == 0).all(-1).sum() == 10 * 4 + 6 * 12


def test_labelled_rows_are_a_grid_with_the_rows_one_below_the_other():
    black, white = np.zeros((3, 8, 8, 1)), np.ones((3, 8, 8, 1))
    rows = figures.labelled_rows({"black": black, "white": white})
    np.testing.assert_array_equal(rows, figures.grid([*black, *white], 3, row_labels=["black", "white"]))
    with pytest.raises(ValueError, match="one length"):
        figures.labelled_rows({"black": black, "white": white[:2]})


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8, 4)), r"received a picture \(8, 8, 4\)"),
        (np.zeros((0, 8, 1)), "received a picture"),
        (np.full((8, 8), np.nan), "from nan to nan"),
        (np.full((8, 8), np.inf), "from inf to inf"),
        (np.full((8, 8), 255.0), "from 255 to 255, expected float in"),
        (np.full((8, 8), -0.5), "from -0.5"),
        (np.ones((8, 8), np.int32), "whole numbers from 1 to 1"),
    ],
)
def test_pictures_of_another_shape_or_range_are_refused(image, message):
    one_box, one_mask = np.zeros((1, 4)), np.ones((1, *image.shape[:2]))
    for draw in (
        lambda: figures.grid([image]),
        lambda: figures.boxes(image, one_box),
        lambda: figures.masks(image, one_mask),
        lambda: figures.heat_map(np.ones((2, 2)), image),
    ):
        with pytest.raises(ValueError, match=message):
            draw()


def test_a_grid_says_how_many_pictures_and_texts_it_wants():
    with pytest.raises(ValueError, match="no pictures"):
        figures.grid(np.zeros((0, 8, 8, 1)))
    for texts in ({"titles": "ab"}, {"row_labels": "abc"}, {"column_labels": "abc"}):
        with pytest.raises(ValueError, match=r"expected \d \(2 rows of 2 columns\)"):
            figures.grid(np.zeros((4, 8, 8, 1)), columns=2, **texts)


def test_curves_draw_each_series_in_its_colour_and_skip_what_is_not_finite():
    picture = figures.curves({"a": [1.0, 2.0, 3.0], "b": ([1, 2, 3], [3.0, np.nan, 1.0])}, title="t", x_label="x [s]")
    assert is_picture(picture)
    assert has(picture, COLORS[0])
    assert has(picture, COLORS[1])
    without = figures.curves({"a": [1.0, 2.0, 3.0], "b": ([1, 3], [3.0, 1.0])}, title="t", x_label="x [s]")
    np.testing.assert_array_equal(picture, without)


def test_a_logarithmic_axis_skips_values_that_are_not_positive():
    picture = figures.curves({"a": ([0, 1, 10, 100], [5.0, 1.0, -1.0, 0.1])}, log_x=True, log_y=True)
    np.testing.assert_array_equal(picture, figures.curves({"a": ([1, 100], [1.0, 0.1])}, log_x=True, log_y=True))
    linear = figures.curves({"a": ([1, 100], [1.0, 0.1])})
    assert (picture != linear).any()


def test_curves_of_nothing_are_an_empty_plot():
    for log in (False, True):
        assert is_picture(figures.curves({"a": [np.nan], "b": []}, log_x=log, log_y=log))


def test_an_error_draws_a_band_about_its_line():
    x, y = np.arange(3.0), np.ones(3)
    with_band, without = figures.curves({"a": (x, y, 0.5 * y)}), figures.curves({"a": (x, y)})
    assert blended(with_band, COLORS[0], 0.2) > 1000 > blended(without, COLORS[0], 0.2)


def test_series_of_unequal_parts_are_refused():
    with pytest.raises(ValueError, match=r"series 'a' is \(2,\), \(3,\)"):
        figures.curves({"a": ([1, 2], [1, 2, 3])})


def test_learning_curves_read_a_log_with_empty_places():
    log = {"epoch": ["1", "2", "3"], "loss": ["3.0", "2.0", "1.0"], "val_loss": ["3.5", "", "1.5"]}
    picture = figures.learning_curves(log, "loss", units="nats", title="t")
    series = {"training": ([1, 2, 3], [3.0, 2.0, 1.0]), "validation": ([1, 3], [3.5, 1.5])}
    np.testing.assert_array_equal(picture, figures.curves(series, title="t", x_label="epoch", y_label="loss [nats]"))
    with pytest.raises(KeyError, match="expected one of epoch, loss, val_loss"):
        figures.learning_curves(log, "accuracy")


def test_a_box_ends_before_its_exclusive_corner():
    picture = figures.boxes(np.zeros((10, 12, 3)), [[2, 3, 5, 7]], scale=10)
    drawn = np.argwhere((picture == COLORS[0]).all(-1))
    assert drawn.min(0).tolist() == [30, 20]
    assert drawn.max(0).tolist() == [69, 49]


def test_boxes_are_cut_at_the_edge_and_padding_is_left_out():
    wide = [[-5, -5, 100, 100], [np.nan] * 4, [50, 50, 60, 60]]
    picture = figures.boxes(np.zeros((10, 12)), wide, [1, -1, 1], scores=[0.5, 0, 0.25], names=["cat", "dog"], scale=9)
    assert picture.shape == (90, 108, 3)
    assert has(picture, COLORS[1])
    assert not has(picture, COLORS[0])
    assert (figures.boxes(np.zeros((10, 12)), np.zeros((0, 4)), scale=9) == 0).all()


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([[5, 5, 2, 7]], {}, "reversed"),
        ([[0, 0, np.nan, 7]], {}, "not finite"),
        ([[0, 0, 1]], {}, r"boxes \(1, 3\)"),
        ([[0, 0, 1, 1]], {"classes": [1, 2]}, r"classes \(2,\)"),
        ([[0, 0, 1, 1]], {"scores": [[1.0]]}, r"scores \(1, 1\)"),
    ],
)
def test_boxes_that_cannot_be_drawn_are_refused(rows, options, message):
    with pytest.raises(ValueError, match=message):
        figures.boxes(np.zeros((10, 12)), rows, **options)


def test_a_skeleton_has_lines_between_its_joints_and_none_to_those_left_out():
    joints = np.array([[2.5, 2.5, 2], [9.5, 2.5, 1], [9.5, 7.5, 0], [2.5, np.nan, 2]])
    picture = figures.skeleton(np.zeros((10, 12)), joints, [(0, 1), (1, 2), (3, 0)], scale=10)
    assert picture.shape == (100, 120, 3)
    drawn = picture.any(-1)
    rows, columns = np.nonzero(drawn)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (22, 28, 22, 98)  # dots of 3 pixels at the ends
    assert drawn[25, 25:95].all()
    assert (picture[25, 40:80] == COLORS[0]).all()
    two = [joints[:2], np.add(joints[:2], [0, 5, 0])]
    picture = figures.skeleton(np.zeros((10, 12)), two, [(0, 1)], kinds=[2, 3], names=dict(enumerate("abcd")), scale=10)
    assert (picture[25, 50:80] == COLORS[2]).all()
    assert (picture[75, 50:80] == COLORS[3]).all()
    assert not has(picture, COLORS[0])
    assert (figures.skeleton(np.zeros((10, 12)), np.zeros((0, 4, 2)), [(0, 1)], scale=2) == 0).all()


@pytest.mark.parametrize(
    ("joints", "options", "message"),
    [
        (np.zeros(4), {}, r"joints \(4,\)"),
        (np.zeros((2, 4)), {}, r"joints \(1, 2, 4\)"),
        (np.zeros((2, 2)), {"limbs": [(0, 2)]}, "joints < J"),
        (np.zeros((2, 2)), {"kinds": [0, 1]}, r"kinds \(2,\)"),
    ],
)
def test_skeletons_that_cannot_be_drawn_are_refused(joints, options, message):
    with pytest.raises(ValueError, match=message):
        figures.skeleton(np.zeros((10, 12)), joints, **options)


def test_a_mask_covers_its_pixels_and_no_other():
    mask = np.zeros((10, 12), bool)
    mask[2:7, 3:9] = True
    for layers, color in (
        (mask[None], COLORS[0]),
        (np.where(mask, 2, 0), COLORS[2]),
        (np.where(mask, 2, -1), COLORS[2]),
    ):
        picture = figures.masks(np.zeros((10, 12)), layers, scale=1, opacity=0.5)
        np.testing.assert_array_equal(picture.any(-1), mask)
        assert tuple(picture[2, 3]) == color  # the border is full
        np.testing.assert_allclose(picture[4, 5], np.array(color) / 2, atol=0.5)
    assert not figures.masks(np.zeros((10, 12)), np.zeros((0, 10, 12))).any()


def test_masks_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"masks bool \(1, 5, 6\) on a picture \(10, 12, 3\).*resize"):
        figures.masks(np.zeros((10, 12)), np.zeros((1, 5, 6), bool))


def test_a_heat_map_shows_low_high_and_zero_in_their_colours():
    plain = figures.heat_map([[0.0, 1.0]], title="t", units="m")
    signed = figures.heat_map([[-1.0, 0.0, 4.0]], signed=True)
    for picture, color in ((plain, (68, 1, 84)), (plain, (253, 231, 36)), (signed, (247, 247, 247))):
        assert blended(picture, color, 1.0) > 10_000  # the ends of viridis and RdBu's middle, whole cells of them
    assert is_picture(figures.heat_map(np.zeros((2, 2)), np.zeros((8, 8, 3))))
    with pytest.raises(ValueError, match="1 values not finite"):
        figures.heat_map([[0.0, np.nan]])


def test_codes_are_points_coloured_by_label():
    points = np.random.default_rng(0).normal(size=(50, 2))
    labelled = figures.scatter(points, np.arange(50) % 3, names=["a", "b", "c"], title="t", x_label="x", y_label="y")
    plain = figures.scatter(points)
    assert is_picture(labelled)
    assert [blended(labelled, color, 0.7) > 100 for color in COLORS[:4]] == [True, True, True, False]
    assert [blended(plain, color, 0.7) > 100 for color in COLORS[:4]] == [True, False, False, False]
    for points, labels, message in (
        (np.zeros((5, 3)), None, r"received \(5, 3\)"),
        (np.full((5, 2), np.nan), None, "10 values not finite"),
        (np.zeros((5, 2)), [1], r"labels \(1,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            figures.scatter(points, labels)


def test_a_saved_picture_reads_back_and_is_never_overwritten(tmp_path):
    from PIL import Image

    picture = figures.grid(GREY[None])
    path = figures.save(tmp_path / "new folder" / "picture.png", picture)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), picture)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="not overwritten"):
        figures.save(path, 255 - picture)
    assert path.read_bytes() == before
    with pytest.raises(ValueError, match="a path that ends in"):
        figures.save(tmp_path / "picture.jpg", picture)
    for wrong in (GREY, picture[..., 0], picture.astype(float)):
        with pytest.raises(ValueError, match="expected uint8"):
            figures.save(tmp_path / "wrong.png", wrong)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["new folder", "picture.png"]


def test_importing_figures_is_cheap_and_drawing_leaves_pyplot_alone():
    code = """
import sys
from dmkeras import figures
assert not {"matplotlib", "PIL", "tensorflow"} & set(sys.modules)
figures.curves({"a": [1, 2]})
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
