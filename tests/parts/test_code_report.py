"""Laws of InfoGAN's report, on models whose codes and pictures are known."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from dmkeras.parts import code_report
from dmkeras.parts.latent_codes import LatentCodes, join

tfd = tfp.distributions
KINDS = {"one": ((4,), 2), "several": ((3, 4), 1), "categories": ((5,), 0), "continuous": ((), 3)}


class Glass:
    """Pictures [N, 1, T, 1] are the latents themselves, so that Q may see all of a code, or nothing (`sure` = 0)."""

    def __init__(self, categories=(4,), continuous=2, sure=50.0, width=0.1):
        self.layout, self.num_continuous = LatentCodes(3, categories, continuous), continuous
        self.sure, self.width = sure, width

    def generate(self, noise, categories, continuous):
        return join(self.layout.check(noise, categories, continuous))[:, None, :, None]

    def seen(self, images):
        return dict(
            zip(self.layout.sizes, tf.split(tf.cast(images, "float32")[:, 0, :, 0], [*self.layout.sizes.values()], 1))
        )

    def infer(self, images):
        seen = self.seen(images)
        return {
            name.replace("categories", "category_logits"): self.sure * seen[name] for name in self.layout.categories
        }

    def posterior(self, images):
        seen = self.seen(images)
        found = {name: tfd.OneHotCategorical(logits=self.sure * seen[name]) for name in self.layout.categories}
        if self.num_continuous:
            spread = self.width * tf.ones_like(seen["continuous"])
            found["continuous"] = tfd.MultivariateNormalDiag(seen["continuous"], spread)
        return found


def of_codes(codes, size=4):
    """Pictures that Glass takes for these codes."""
    return np.pad(np.eye(size, dtype="float32")[codes], ((0, 0), (3, 2)))[:, None, :, None]


def as_rows(sheet):
    """`sheets` with the pictures themselves in place of a sheet: {name: [rows, columns, T]}."""
    return {name: images[:, 0, :, 0].reshape(-1, 10, images.shape[2]) for name, images in sheet.items()}


def test_codes_are_matched_where_they_were_trained_and_counted_where_they_were_not():
    labels = {"train": np.repeat([7, 8, 9, 3], 30), "test": np.repeat([7, 8, 9, 3], 10)}
    codes = {split: np.select([x == 7, x == 8, x == 9], [2, 0, 3], 1) for split, x in labels.items()}
    codes["test"][:5], codes["train"][:3] = 1, 1  # 5 of 40 and 3 of 120 wrong
    images = {split: of_codes(x) for split, x in codes.items()}
    found = code_report.figures(Glass(), images, labels)
    assert found["error"] == pytest.approx(5 / 40)
    assert found["error_train"] == pytest.approx(3 / 120)
    assert found["k_means_error"] == pytest.approx(5 / 40)  # these pictures are four points: clusters are the codes
    # A matching of the test pictures' own would hide that they all changed their codes.
    turned = {"train": images["train"], "test": of_codes((codes["test"] + 1) % 4)}
    assert code_report.figures(Glass(), turned, labels)["error"] > 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_information_is_the_entropy_of_what_is_seen_and_nothing_of_what_is_not(kind):
    categories, continuous = KINDS[kind]
    entropy = {name: np.log(size) for name, size in LatentCodes(3, categories, continuous).categories.items()}
    seen = code_report.information(Glass(categories, continuous), 700)
    blind = code_report.information(Glass(categories, continuous, sure=0.0), 700)
    for name, nats in entropy.items():
        assert seen[f"entropy_{name}"] == seen[f"information_{name}"] == pytest.approx(nats, abs=1e-5)
        assert blind[f"information_{name}"] == pytest.approx(0, abs=1e-5)
    if continuous:
        expected = -continuous * np.log(0.1 * np.sqrt(2 * np.pi))  # log N(mean; mean, 0.1^2)
        assert seen["information_continuous"] == pytest.approx(expected + continuous * np.log(2), abs=1e-4)
        assert seen["entropy_continuous"] == pytest.approx(continuous * np.log(2))
    assert len(seen) == 2 * (len(categories) + (continuous > 0))


def test_errors_are_left_out_where_there_is_no_categorical_code():
    assert not any("error" in name for name in code_report.figures(Glass((), 2), {}, {}))


@pytest.mark.parametrize("kind", KINDS)
def test_a_sheet_varies_its_own_code_and_holds_the_rest(kind):
    categories, continuous = KINDS[kind]
    model = Glass(categories, continuous)
    found = as_rows(code_report.sheets(model, lambda images, columns, **options: np.asarray(images)))
    endings = [f"_{i}" for i in range(len(categories))] if len(categories) > 1 else [""] * len(categories)
    assert list(found) == [f"categories{e}" for e in endings] + [f"continuous_{i}" for i in range(continuous)]
    sizes = list(model.layout.sizes.values())
    for name, rows in found.items():
        parts = dict(zip(model.layout.sizes, np.split(rows, np.cumsum(sizes)[:-1], axis=-1)))
        own = parts["continuous"][..., int(name[-1])] if name.startswith("continuous") else parts[name]
        if name.startswith("continuous"):
            np.testing.assert_allclose(own, np.tile(np.linspace(-2, 2, 10), (len(rows), 1)), atol=1e-6)
            others = np.delete(parts["continuous"], int(name[-1]), axis=-1)
            assert np.ptp(parts["noise"], axis=1).max() == 0
            assert len(np.unique(rows.reshape(-1, rows.shape[-1]), axis=0)) == rows.shape[0] * 10
        else:
            np.testing.assert_array_equal(own, np.repeat(np.eye(len(rows))[:, None], 10, axis=1))
            others = parts["continuous"]
            assert np.ptp(parts["noise"], axis=0).max() == 0
            assert len(np.unique(parts["noise"][0], axis=0)) == 10
        assert not others.any()
