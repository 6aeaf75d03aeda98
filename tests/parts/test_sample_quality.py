"""Laws of the measures of drawn pictures, against references by NumPy and SciPy, and wrong measures that break them."""

import numpy as np
import pytest
from scipy import linalg, ndimage, stats
from sklearn.datasets import load_digits

from dmkeras.parts import nearest_pictures
from dmkeras.parts import sample_quality as quality

GENERATOR = np.random.default_rng(0)
A = GENERATOR.normal(size=(60, 5)) @ GENERATOR.normal(size=(5, 5)) + 1
B = GENERATOR.normal(size=(41, 5)) @ GENERATOR.normal(size=(5, 5))
SCALARS = {
    "frechet": quality.frechet_distance,
    "kernel": lambda a, b: quality.kernel_distance(a, b)[0],
    "precision": lambda a, b: quality.precision_recall(a, b)[0],
    "recall": lambda a, b: quality.precision_recall(a, b)[1],
}
DISTANCES = {name: SCALARS[name] for name in ("frechet", "kernel")}


@pytest.fixture
def generator():
    return np.random.default_rng(1)


@pytest.fixture(scope="module")
def digits():
    """(features of one half, of the other, labels of the other): the pixels, which are features enough here."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(1796)
    flat = data.data[order] / 16
    return flat[:898], flat[898:], data.target[order[898:]]


def exactly(mean, covariance, rows=40, seed=0):
    """Rows that have these very moments (over N - 1)."""
    x = np.random.default_rng(seed).normal(size=(rows, len(mean)))
    x = x - x.mean(axis=0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T).reshape(len(mean), -1))).T
    return x @ np.real(linalg.sqrtm(np.asarray(covariance, "float64"))) + mean


def kernel(x, y):
    return (float(np.dot(x, y)) / len(x) + 1) ** 3


# --- the Frechet distance -------------------------------------------------------------------------------------------


def by_sqrtm(a, b):
    first, second = np.cov(a.T), np.cov(b.T)
    cross = linalg.sqrtm(first @ second)
    return ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + np.trace(first + second - 2 * np.real(cross))


def without_cross_term(a, b):
    return ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + np.trace(np.cov(a.T)) + np.trace(np.cov(b.T))


def of_standard_deviations(a, b):
    """Right for diagonal covariances alone."""
    return ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + ((a.std(axis=0, ddof=1) - b.std(axis=0, ddof=1)) ** 2).sum()


def of_means(a, b):
    return ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum()


def check_gaussians(distance):
    """Three closed forms."""
    one, other = exactly([1.0, 2.0], np.diag([4.0, 9.0])), exactly([0.0, 4.0], np.diag([1.0, 16.0]), rows=70)
    np.testing.assert_allclose(distance(one, other), 1 + 4 + 1 + 1)  # standard deviations 2, 3 and 1, 4
    np.testing.assert_allclose(distance(exactly([3.0, 0.0], np.eye(2)), exactly([0.0, 0.0], np.eye(2))), 9)
    turned = [[2.5, 1.5], [1.5, 2.5]]  # eigenvalues 4 and 1; beside them S = c 1: tr S_a + 2 c - 2 sqrt(c) (2 + 1)
    np.testing.assert_allclose(
        distance(exactly([0, 0], turned), exactly([0, 0], 9 * np.eye(2))), 5 + 18 - 18, rtol=1e-6
    )


def test_the_frechet_distance_of_gaussians_has_its_closed_form():
    check_gaussians(quality.frechet_distance)


@pytest.mark.parametrize("wrong", [without_cross_term, of_standard_deviations, of_means])
def test_a_wrong_frechet_distance_of_gaussians_is_caught(wrong):
    with pytest.raises(AssertionError):
        check_gaussians(wrong)


def test_the_frechet_distance_is_that_of_a_matrix_square_root():
    np.testing.assert_allclose(quality.frechet_distance(A, B), by_sqrtm(A, B), rtol=1e-6)
    assert abs(without_cross_term(A, B) / by_sqrtm(A, B) - 1) > 0.1


def test_the_frechet_distance_stands_singular_covariances(generator):
    rows = np.linspace(-1, 1, 9)[:, None]
    one, other = rows * [1.0, 0, 0], rows * [0, 2.0, 0]  # nothing in common: the cross term is 0
    np.testing.assert_allclose(quality.frechet_distance(one, other), np.var(rows, ddof=1) * (1 + 4))
    few, others = generator.normal(size=(2, 6, 30))
    values = np.linalg.eigvals(np.cov(few.T) @ np.cov(others.T))
    expected = of_means(few, others) + few.var(axis=0, ddof=1).sum() + others.var(axis=0, ddof=1).sum()
    expected -= 2 * np.sqrt(np.maximum(values.real, 0)).sum()
    np.testing.assert_allclose(quality.frechet_distance(few, others), expected, rtol=1e-5)
    constant = np.ones((4, 3))
    assert quality.frechet_distance(constant, constant) == 0
    np.testing.assert_allclose(quality.frechet_distance(constant, constant + 2), 12)


def test_the_frechet_distance_of_a_set_to_itself_is_zero_and_never_below(generator):
    for scale in (1e-6, 1.0, 1e6):
        for x in (A, B, generator.normal(size=(5, 40))):
            found = quality.frechet_distance(scale * x, (scale * x)[::-1])
            assert 0 <= found < 1e-10 * scale**2


# --- the kernel distance --------------------------------------------------------------------------------------------


def by_loops(a, b):
    inside = [np.mean([kernel(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j]) for s in (a, b)]
    return sum(inside) - 2 * np.mean([kernel(x, y) for x in a for y in b])


def with_the_diagonal(a, b):
    """The biased estimate: each row is a neighbour of itself."""
    mean = lambda x, y: ((x @ y.T / x.shape[1] + 1) ** 3).mean()
    return mean(a, a) + mean(b, b) - 2 * mean(a, b)


def check_unbiased(distance):
    """Splits of one population: 0 on average, and below it about as often as a difference may be."""
    generator = np.random.default_rng(1)
    found = [distance(*np.split(generator.normal(size=(32, 4)) + 0.5, [12])) for _ in range(400)]
    assert abs(np.mean(found)) < 4 * np.std(found) / len(found) ** 0.5
    assert 0.2 < np.mean(np.less(found, 0)) < 0.9


def test_the_kernel_distance_is_that_of_two_loops():
    np.testing.assert_allclose(quality.kernel_distance(A, B)[0], by_loops(A, B), rtol=1e-10)
    assert abs(with_the_diagonal(A, B) / by_loops(A, B) - 1) > 0.01


def test_the_kernel_distance_is_unbiased():
    check_unbiased(lambda a, b: quality.kernel_distance(a, b)[0])


@pytest.mark.parametrize("wrong", [with_the_diagonal, lambda a, b: abs(by_loops(a, b))])
def test_a_biased_kernel_distance_is_caught(wrong):
    with pytest.raises(AssertionError):
        check_unbiased(wrong)


def test_the_error_of_the_kernel_distance_is_the_jackknife():
    a, b = A[:9], B[:7]
    variance = 0.0
    for left in (
        [by_loops(np.delete(a, i, axis=0), b) for i in range(len(a))],
        [by_loops(a, np.delete(b, i, axis=0)) for i in range(len(b))],
    ):
        variance += (len(left) - 1) / len(left) * ((np.array(left) - np.mean(left)) ** 2).sum()
    np.testing.assert_allclose(quality.kernel_distance(a, b)[1], variance**0.5, rtol=1e-8)


@pytest.mark.parametrize(("shift", "most"), [(0.0, 1.8), (1.0, 1.2)])
def test_the_error_of_the_kernel_distance_is_that_of_draws_or_larger(shift, most):
    generator = np.random.default_rng(2)
    draws = [generator.uniform(-1, 1, size=(2, 40, 3)) for _ in range(400)]
    estimates, errors = np.transpose([quality.kernel_distance(a + shift, b) for a, b in draws])
    assert 0.85 < (errors**2).mean() ** 0.5 / estimates.std() < most


# --- both -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DISTANCES)
def test_a_distance_is_symmetric(name):
    np.testing.assert_allclose(DISTANCES[name](A, B), DISTANCES[name](B, A), rtol=1e-9)


@pytest.mark.parametrize("name", SCALARS)
def test_the_order_of_rows_and_the_size_of_blocks_do_not_matter(name, monkeypatch):
    expected = SCALARS[name](A, B)
    generator = np.random.default_rng(3)
    np.testing.assert_allclose(SCALARS[name](generator.permutation(A), generator.permutation(B)), expected, rtol=1e-9)
    np.testing.assert_allclose(SCALARS[name](A.astype("float32"), B.astype("float32")), expected, rtol=1e-4)
    for block in (1, 7, 41, 60):
        monkeypatch.setattr(nearest_pictures, "BLOCK", block)
        np.testing.assert_allclose(SCALARS[name](A, B), expected, rtol=1e-9)


@pytest.mark.parametrize("name", DISTANCES)
def test_halves_of_one_set_are_close_and_what_is_noisier_or_blurred_or_poorer_is_farther(name, digits):
    distance, (one, other, labels) = DISTANCES[name], digits
    generator, pictures = np.random.default_rng(4), other.reshape(-1, 8, 8)
    noise = generator.normal(size=other.shape)
    blurred = lambda width: ndimage.gaussian_filter(pictures, (0, width, width)).reshape(other.shape)
    for worse in (
        [other + scale * noise for scale in (0.4, 0.8, 1.6)],
        [blurred(width) for width in (0.5, 0.8, 1.6)],
        [other[labels < count] for count in (8, 5, 2)],
    ):
        found = [distance(one, x) for x in [other, *worse]]
        assert (np.diff(found) > 0).all(), found
        assert found[0] < found[-1] / 10, found


# --- what a classifier says -----------------------------------------------------------------------------------------


def against_equal_classes(p):
    """A wrong score: from the uniform distribution, not from the mean of the rows."""
    return np.exp(np.mean([stats.entropy(row, np.full(p.shape[1], 1 / p.shape[1])) for row in p]))


def check_score(score):
    one_class = np.eye(5)[np.full(7, 2)]
    np.testing.assert_allclose(score(one_class), 1)  # sure, and all the same
    np.testing.assert_allclose(score(np.full((7, 5), 0.2)), 1)  # unsure
    np.testing.assert_allclose(score(np.eye(5)[np.arange(10) % 5]), 5)
    np.testing.assert_allclose(score(np.eye(5)[np.arange(10) % 3][:9]), 3)
    both = np.array([[0.9, 0.1], [0.1, 0.9]])
    np.testing.assert_allclose(score(both), 2 / np.exp(stats.entropy([0.9, 0.1])))


def test_the_classifier_score_has_its_exact_values():
    check_score(quality.classifier_score)
    with pytest.raises(AssertionError):
        check_score(against_equal_classes)


def test_the_classifier_score_is_between_one_and_the_number_of_classes(generator):
    p = generator.dirichlet(np.full(6, 0.3), 50)
    score = quality.classifier_score(p)
    np.testing.assert_allclose(score, np.exp(np.mean([stats.entropy(row, p.mean(axis=0)) for row in p])))
    assert 1 < score < quality.classifier_score(np.eye(6)[p.argmax(axis=1)]) <= 6
    same = np.tile(generator.dirichlet(np.ones(7)), (30, 1))
    assert 1 <= quality.classifier_score(same) < 1 + 1e-12


def test_class_coverage_counts_classes_that_have_a_tenth_of_their_share():
    counts = [5000, 2801, 2000, 100, 99, 0, 0, 0, 0, 0]  # a tenth of a fair share is 100
    p = 0.5 * np.eye(10)[np.repeat(np.arange(10), counts)] + 0.05
    share, entropy = quality.class_coverage(p)
    assert share == 0.4
    np.testing.assert_allclose(entropy, stats.entropy(counts))
    assert quality.class_coverage(np.eye(4)[[1, 1, 1]]) == (0.25, 0)
    share, entropy = quality.class_coverage(np.eye(4)[[0, 1, 2, 3]])
    assert share == 1
    np.testing.assert_allclose(entropy, np.log(4))


# --- precision and recall -------------------------------------------------------------------------------------------


def by_balls(real, fake, k):
    """Share of `fake` within any ball of `real`."""
    apart = lambda x, y: float(np.sqrt(((x - y) ** 2).sum()))
    radii = [sorted(apart(x, y) for j, y in enumerate(real) if j != i)[k - 1] for i, x in enumerate(real)]
    return np.mean([any(apart(x, y) <= radius for x, radius in zip(real, radii, strict=True)) for y in fake])


@pytest.mark.parametrize("k", [1, 3, 5])
def test_precision_and_recall_are_those_of_balls_counted_one_by_one(k, generator):
    real, fake = generator.normal(size=(30, 3)), generator.normal(size=(22, 3)) * 0.8 + 0.5
    expected = by_balls(real, fake, k), by_balls(fake, real, k)
    np.testing.assert_allclose(quality.precision_recall(real, fake, k), expected)
    assert expected != (by_balls(real, fake, k - 1 or 2), by_balls(fake, real, k - 1 or 2))
    np.testing.assert_allclose(quality.precision_recall(real + 1e7, fake + 1e7, k), expected)


@pytest.mark.parametrize(("features", "count"), [(5, 240), (128, 2), (700, 12)])
def test_rows_that_are_repeated_are_inside_balls_of_no_size(features, count, generator):
    rows = np.repeat(generator.normal(size=(40, features)), 6, axis=0)
    groups = -(-count // 6)
    assert quality.precision_recall(rows, rows[:count], k=1) == (1, groups * 6 / 240)
    assert quality.precision_recall(rows, rows[::-1]) == (1, 1)


def test_precision_falls_with_junk_and_recall_with_modes_that_are_missing(generator):
    modes = generator.normal(size=(2, 4, 50, 3)) * 0.1 + 10 * np.eye(4)[None, :, None, :3]
    real, fake = modes.reshape(2, 200, 3)
    full = quality.precision_recall(real, fake)
    assert min(full) > 0.85
    for share in (0.25, 0.5, 0.75):
        junk = fake.copy()
        junk[: int(200 * share)] += 1000 * np.arange(1, int(200 * share) + 1)[:, None]
        precision, _ = quality.precision_recall(real, junk)
        assert abs(precision - full[0] * (1 - share)) < 0.07
        precision, recall = quality.precision_recall(real, fake[int(200 * share) :])
        assert precision > 0.8
        assert abs(recall - full[1] * (1 - share)) < 0.07


# --- the report -----------------------------------------------------------------------------------------------------

TRAIN, UNSEEN = np.split(GENERATOR.random((50, 3, 4, 2)), [30])


class Referee:
    """Four features and three classes, linear in the pixels."""

    def __init__(self):
        self.weights, self.most = np.random.default_rng(5).normal(size=(24, 7)), 0

    def outputs(self, images):
        self.most = max(self.most, len(images))
        return np.reshape(images, (len(images), -1)) @ self.weights

    def __call__(self, images):
        return 3000 * self.outputs(images)[:, 4:]  # a softmax of these overflows if nothing is done

    def features(self, images):
        return {"other": None, "features": self.outputs(images)[:, :4]}


def test_the_report_holds_every_measure_of_what_the_referee_sees(monkeypatch, generator):
    monkeypatch.setattr(quality, "BATCH", 8)
    referee, fake = Referee(), generator.random((19, 3, 4, 2)).astype("float32")
    found = quality.report(referee, fake, UNSEEN, TRAIN)
    assert referee.most == 8
    assert {type(value) for value in found.values()} == {float}
    real, drawn = referee.outputs(UNSEEN)[:, :4], referee.outputs(fake)[:, :4]
    chances = np.eye(3)[referee(fake).argmax(axis=1)]
    expected = {
        "frechet_distance": quality.frechet_distance(real, drawn),
        "kernel_distance": quality.kernel_distance(real, drawn)[0],
        "kernel_distance_standard_error": quality.kernel_distance(real, drawn)[1],
        "classifier_score": quality.classifier_score(chances),
        "class_coverage": quality.class_coverage(chances)[0],
        "class_entropy": quality.class_coverage(chances)[1],
        "precision": quality.precision_recall(real, drawn)[0],
        "recall": quality.precision_recall(real, drawn)[1],
        "memorised": nearest_pictures.memorised(fake, TRAIN, UNSEEN),
    }
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
    assert expected["precision"] != expected["recall"]


# --- doors ----------------------------------------------------------------------------------------------------------


def spoilt(x, value):
    x = np.array(x, "float64")
    x.flat[3] = value
    return x


@pytest.mark.parametrize("measure", SCALARS.values(), ids=SCALARS)
@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (spoilt(A, np.nan), B, "1 that are not"),
        (A, spoilt(B, np.inf), "1 that are not"),
        (A, B[:, :4], r"equally many features, received \[60, 5\] and \[41, 4\]"),
        (A, B[:1], r"at least \d rows"),
        (A[:0], B, r"received \[0, 5\]"),
        (A[:, 0], B, r"received \[60\]"),
        (A.astype(str), B, "of numbers"),
        (A.astype(complex), B, "of numbers"),
    ],
)
def test_features_that_do_not_fit_are_refused(measure, a, b, words):
    with pytest.raises(ValueError, match=words):
        measure(a, b)


def test_too_few_rows_are_as_many_as_leave_a_measure_without_meaning():
    for measure, least in ((quality.frechet_distance, 2), (quality.kernel_distance, 3), (quality.precision_recall, 4)):
        assert np.isfinite(measure(A[:least], B[:least])).all()
        with pytest.raises(ValueError, match=f"at least {least} rows"):
            measure(A, B[: least - 1])
    for k in (0, -1, 1.5):
        with pytest.raises(ValueError, match="k must be"):
            quality.precision_recall(A, B, k)


@pytest.mark.parametrize("measure", [quality.classifier_score, quality.class_coverage])
@pytest.mark.parametrize("wrong", [[[2.0, -1.0]], [[0.5, 0.6]], [[np.nan, 1.0]], [0.5, 0.5], np.zeros((0, 3))])
def test_what_is_no_table_of_probabilities_is_refused(measure, wrong):
    with pytest.raises(ValueError, match=r"expected .*probabilities"):
        measure(np.array(wrong))


@pytest.mark.parametrize(
    ("fake", "words"),
    [
        (255 * UNSEEN, "divide 8-bit pixels by 255"),
        (spoilt(UNSEEN, np.nan), "1 that are not finite"),
        (UNSEEN[..., :1], r"expected images \[B, 3, 4, 2\], received \[20, 3, 4, 1\]"),
        (UNSEEN[0], r"expected images \[N, H, W, C\]"),
        (UNSEEN[:0], r"expected images \[N, H, W, C\]"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(fake, words):
    with pytest.raises(ValueError, match=words):
        quality.report(Referee(), fake, UNSEEN, TRAIN)
