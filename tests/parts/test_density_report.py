"""Laws of the report of explicit densities: what its pictures look like."""

import numpy as np

from dmkeras import figures
from dmkeras.parts import density_report


def test_white_pictures_stand_out_from_what_is_between_them():
    white = {"data": np.ones((2, 8, 8, 1), "float32")}
    for name, words in (("samples", "a model, samples"), ("completions", "a model, draws given the upper half")):
        options = density_report.options("a model", name)
        assert options["title"] == words
        sheet = figures.labelled_rows(white, **options)
        assert (sheet == 200).all(axis=-1).mean() > 0.02
        assert (sheet == 255).all(axis=-1).mean() < 0.9
