"""Laws of what recipes of generators report: what is drawn, what is measured against what, what is on the sheets."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from dmkeras import DCGAN, figures
from dmkeras.generative.infogan import InfoGAN
from dmkeras.parts import latents, sample_quality, sample_report
from dmkeras.parts.seeds import row_seeds


class Pixels:
    """A generator whose latents are the pixels of its 8x8 pictures."""

    latent_size = 64

    def generate(self, z):
        return tf.reshape((z + 1) / 2, (-1, 8, 8, 1))

    def sample(self, num_samples, seed=None):
        return self.generate(latents.latent(self, row_seeds(num_samples, seed)))

    def interpolate(self, a, b, steps):
        part = tf.linspace(0.0, 1.0, steps)[:, None]
        return tf.reshape(self.generate(a[:, None] + part * (b - a)[:, None]), (-1, steps, 8, 8, 1))


class Showing(Pixels):
    """Draws the pictures that it was given, the first ones, whatever the seed."""

    def __init__(self, images):
        self.images, self.asked = images, 0

    def sample(self, num_samples, seed=None):
        self.asked += num_samples
        return tf.constant(self.images[:num_samples])


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    images = (data.images[..., None] / 16).astype("float32")
    order = np.random.default_rng(0).permutation(len(images))
    names = ("train", "validation", "test", "unseen")
    parts = zip(names, np.split(order, [900, 1200, 1490]), strict=True)
    return {name: {"image": images[rows], "label": data.target[rows]} for name, rows in parts}


@pytest.fixture(scope="module")
def images(digits):
    return {split: digits[split]["image"] for split in ("train", "validation", "test")}


class Referee:
    """Pixels as features; the logits are minus the squared distances to the means of the classes."""

    def __init__(self, images, labels):
        self.means = np.stack([images[labels == k].mean(axis=0).ravel() for k in range(10)])

    def __call__(self, images):
        return -((images.reshape(len(images), 1, -1) - self.means) ** 2).sum(axis=2)

    def features(self, images):
        return {"features": images.reshape(len(images), -1)}


@pytest.fixture(scope="module")
def referee(digits):
    return Referee(digits["train"]["image"], digits["train"]["label"])


# --- what is drawn --------------------------------------------------------------------------------------------------


def check_drawn(drawn):
    model = Pixels()
    for count in (1, 6, 7, 8, 14, 20):
        found = drawn(model, count, seed=3, batch=7)
        assert isinstance(found, np.ndarray)
        assert found.shape == (count, 8, 8, 1)
        np.testing.assert_array_equal(found, drawn(model, count, seed=3, batch=7))
        assert len(np.unique(found, axis=0)) == count
    expected = [model.sample(7, seed=3), model.sample(7, seed=4), model.sample(6, seed=5)]
    np.testing.assert_array_equal(found, np.concatenate(expected))
    assert not np.isin(drawn(model, 20, seed=0, batch=7), found).all()


def one_seed_for_all(model, count, seed, batch):
    parts = [model.sample(min(batch, count - start), seed=seed) for start in range(0, count, batch)]
    return np.concatenate(parts)


def whole_batches(model, count, seed, batch):
    return np.concatenate([model.sample(batch, seed=seed + i) for i in range(-(-count // batch))])


def without_the_rest(model, count, seed, batch):
    return np.concatenate([model.sample(batch, seed=seed + i) for i in range(max(1, count // batch))])[:count]


def without_a_seed(model, count, seed, batch):
    return model.sample(count).numpy()


def test_as_many_as_asked_for_are_drawn_the_same_again_and_no_two_alike():
    check_drawn(sample_report.drawn)


@pytest.mark.parametrize("wrong", [one_seed_for_all, whole_batches, without_the_rest, without_a_seed])
def test_a_wrong_draw_is_caught(wrong):
    with pytest.raises(AssertionError):
        check_drawn(wrong)


def test_no_more_than_a_batch_is_asked_for_at_once():
    class Small(Pixels):
        def sample(self, num_samples, seed=None):
            assert num_samples <= 500
            return super().sample(num_samples, seed)

    assert sample_report.drawn(Small(), 1001).shape == (1001, 8, 8, 1)


# --- figures --------------------------------------------------------------------------------------------------------


def test_figures_are_the_report_of_samples_and_of_held_out_pictures(digits, images, referee):
    unseen = digits["unseen"]["image"]
    for most, count in ((40, 40), (10_000, 290)):  # of 300 and 290 held-out pictures
        model = Showing(unseen)
        found = sample_report.figures(model, referee, images, most)
        assert model.asked == count
        test = images["test"][:count]
        expected = sample_quality.report(referee, unseen[:count], test, images["train"])
        real = sample_quality.report(referee, images["validation"][:count], test, images["train"])
        assert found == expected | {f"real_{name}": value for name, value in real.items()}
        assert len(found) == 18


def test_pictures_of_the_data_are_as_good_as_held_out_ones(digits, images, referee):
    found = sample_report.figures(Showing(digits["unseen"]["image"]), referee, images)
    for name in ("frechet_distance", "classifier_score", "class_entropy", "precision", "recall", "memorised"):
        assert 0.85 < found[name] / found[f"real_{name}"] < 1.15, name
    for name in ("kernel_distance", "real_kernel_distance"):
        assert abs(found[name]) < 3 * found[f"{name}_standard_error"]
    assert 0.9 < found["real_memorised"] < 1.1  # no training pictures in the place of held-out ones
    assert found["real_frechet_distance"] > 0.05  # nor the test pictures themselves


def test_noise_is_farther_than_blurred_pictures_and_these_than_the_data(digits, images, referee):
    unseen = digits["unseen"]["image"]
    blurred = (unseen + np.roll(unseen, 1, axis=1) + np.roll(unseen, 1, axis=2)) / 3
    models = [Showing(unseen), Showing(blurred), Pixels()]
    found = [sample_report.figures(model, referee, images) for model in models]
    for name in ("frechet_distance", "kernel_distance"):
        values = [figures[name] for figures in found]
        assert values[1] > 2 * abs(values[0])
        assert values[2] > 2 * values[1]
        assert len({figures[f"real_{name}"] for figures in found}) == 1
    assert found[2]["precision"] == 0


# --- sheets ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def laid_out(digits):
    """The pictures that `sheets` lays out, {"grids": [[N, H, W, C]], "rows": {label: pictures}}, of a model."""

    def of(model, train):
        found = {"grids": [], "columns": []}

        def grid(images, columns, **options):
            found["grids"].append(np.stack(images))
            found["columns"].append(columns)

        def labelled_rows(rows, **options):
            found["rows"] = {label: np.asarray(images) for label, images in rows.items()}

        sample_report.sheets(model, train, grid, labelled_rows)
        assert found["columns"] == [10, 10]
        return found

    return of


@pytest.mark.parametrize("colours", [1, 3])
def test_sheets_are_pictures_of_ten_columns(colours):
    images = np.random.default_rng(0).random((30, 8, 8, colours), "float32")
    model = DCGAN((8, 8, colours), latent_size=5, filters=2)
    found = sample_report.sheets(model, images, figures.grid, figures.labelled_rows)
    assert list(found) == ["samples", "interpolation", "neighbours"]
    assert {(picture.dtype.name, picture.ndim, picture.shape[2]) for picture in found.values()} == {("uint8", 3, 3)}
    side = 10 * 72 + 9 * 2  # tiles of 8 pixels, enlarged nine times, and the gaps between them
    heights = {"samples": side, "interpolation": 8 * 74 - 2, "neighbours": 2 * 72}
    for name, height in heights.items():
        assert side <= found[name].shape[1] < side + 100
        assert height <= found[name].shape[0] < height + 50


def test_below_each_sample_is_its_nearest_training_picture(images, laid_out):
    train = images["train"][:200]
    found = laid_out(Pixels(), train)
    samples = np.asarray(Pixels().sample(100, seed=0))
    np.testing.assert_array_equal(found["grids"][0], samples)
    assert list(found["rows"]) == ["sample", "nearest"]
    np.testing.assert_array_equal(found["rows"]["sample"], samples[:10])
    apart = ((samples[:10, None] - train) ** 2).sum(axis=(2, 3, 4))
    np.testing.assert_array_equal(found["rows"]["nearest"], train[apart.argmin(axis=1)])
    copies = laid_out(Showing(images["train"][50:150]), train)["rows"]
    np.testing.assert_array_equal(copies["nearest"], copies["sample"])


def vivid(model):
    """The model with weights so large that other latents are other pictures."""
    generator = np.random.default_rng(0)
    for weight in model.generator.trainable_weights:
        weight.assign(generator.normal(size=weight.shape) + 0.1)
    return model


def infogan(sizes, continuous):
    return vivid(InfoGAN((8, 8, 1), 4, sizes, continuous, filters=2, hidden_size=8, head_size=4))


MODELS = {
    "pixels": Pixels,
    "DCGAN": lambda: vivid(DCGAN((8, 8, 1), latent_size=5, filters=2)),
    "InfoGAN": lambda: infogan(10, 2),
    "InfoGAN, two codes": lambda: infogan((3, 2), 1),
    "InfoGAN, no categories": lambda: infogan((), 2),
}


def check_lines(sheet, model):
    """Each of the eight lines goes from a sample of the seed to another one."""
    lines = sheet.reshape(8, 10, 8, 8, 1)
    samples = np.asarray(model.sample(16, seed=0))
    assert np.abs(samples[:8] - samples[8:]).max(axis=(1, 2, 3)).min() > 0.01  # so that the law could fail
    np.testing.assert_allclose(lines[:, 0], samples[:8], atol=1e-5)
    np.testing.assert_allclose(lines[:, -1], samples[8:], atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_lines_begin_and_end_at_samples(name, images, laid_out):
    model = MODELS[name]()
    check_lines(laid_out(model, images["train"][:20])["grids"][1], model)


def test_a_line_goes_straight_in_equal_steps(images, laid_out):
    lines = laid_out(Pixels(), images["train"][:20])["grids"][1].reshape(8, 10, 8, 8, 1)
    steps = np.diff(lines, axis=1)
    np.testing.assert_allclose(steps, np.broadcast_to((lines[:, -1:] - lines[:, :1]) / 9, steps.shape), atol=1e-6)


def test_lines_between_latents_that_are_no_codes_are_caught():
    model = infogan(10, 2)
    ends = latents.latent(model, row_seeds(16, 0))
    sheet = np.reshape(model.interpolate(ends[:8], ends[8:], steps=10), (80, 8, 8, 1))
    with pytest.raises(AssertionError):
        check_lines(sheet, model)


class OfClasses(Pixels):
    """Pixels whose third of [0, 1] is their class, one of three."""

    num_classes = 3

    def sample(self, num_samples, seed=None, labels=None):
        return self._within(super().sample(num_samples, seed), labels)

    def interpolate(self, a, b, steps=8, labels=None):
        return self._within(super().interpolate(a, b, steps), labels)

    @staticmethod
    def _within(images, labels):
        third = tf.reshape(tf.cast(labels, "float32"), (-1, *[1] * (len(images.shape) - 1))) / 3
        return third + 0.01 + 0.3 * images


def test_rows_are_classes_where_there_are_classes(images, laid_out):
    found = laid_out(OfClasses(), images["train"][:20])
    in_turn = np.arange(10) % 3
    samples, lines = (np.floor(3 * sheet.min(axis=(1, 2, 3))).reshape(-1, 10) for sheet in found["grids"])
    np.testing.assert_array_equal(samples, np.repeat(in_turn[:, None], 10, axis=1))
    np.testing.assert_array_equal(lines, np.repeat(in_turn[:8, None], 10, axis=1))
    np.testing.assert_array_equal(np.floor(3 * found["rows"]["sample"].min(axis=(1, 2, 3))), in_turn)
