"""Laws of matching codes to labels: references by every one-to-one matching there is."""

import itertools

import numpy as np
import pytest

from dmkeras.parts.code_matching import by_majority, majority_error, matched_error, one_to_one, one_to_one_error

ERRORS = (one_to_one_error, majority_error)


def draws(seed, codes, classes, count=60):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count)
    found = np.where(generator.random(count) < 0.6, labels % codes, generator.integers(0, codes, count))
    return found, labels


def best_of_all(codes, labels):
    """The least error over all one-to-one matchings, tried one by one."""
    found, classes = sorted(set(codes)), sorted(set(labels))
    nobody = [None] * max(0, len(found) - len(classes))
    errors = []
    for order in itertools.permutations([*classes, *nobody], len(found)):
        matching = dict(zip(found, order))
        errors.append(np.mean([matching[code] != label for code, label in zip(codes, labels)]))
    return min(errors)


def greedy(codes, labels):
    """Known wrong: the largest count first, then the largest of what is left."""
    counts = {(c, k): np.sum((codes == c) & (labels == k)) for c in set(codes) for k in set(labels)}
    matching = {}
    for code, label in sorted(counts, key=counts.get, reverse=True):
        if code not in matching and label not in matching.values():
            matching[code] = label
    return matched_error(codes, labels, matching)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("codes", "classes"), [(4, 4), (6, 4), (3, 5), (1, 3), (3, 1)])
def test_the_matching_is_the_best_of_all_one_to_one_matchings(seed, codes, classes):
    found, labels = draws(seed, codes, classes)
    matching = one_to_one(found, labels)
    assert len(set(matching.values())) == len(matching) == min(len(set(found)), len(set(labels)))
    np.testing.assert_allclose(one_to_one_error(found, labels), best_of_all(found, labels), atol=1e-12)


def test_a_greedy_matching_is_not_the_best():
    codes = np.repeat([0, 0, 1, 1], [5, 4, 4, 1])
    labels = np.repeat([0, 1, 0, 1], [5, 4, 4, 1])
    assert one_to_one_error(codes, labels) == pytest.approx(6 / 14)
    assert greedy(codes, labels) == pytest.approx(8 / 14)


@pytest.mark.parametrize("error", ERRORS)
def test_names_of_codes_do_not_matter_and_right_codes_have_no_error(error):
    codes, labels = draws(0, 5, 5)
    names = np.array([40, -3, 7, 1000, 2])
    assert error(codes, labels) > 0
    assert error(names[codes], labels) == pytest.approx(error(codes, labels), abs=1e-12)
    assert error(names[labels], labels) == 0
    assert error(np.random.default_rng(1).permutation(5)[labels], labels) == 0


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("codes", "classes"), [(4, 4), (9, 4), (3, 5)])
def test_the_majority_errs_no_more_than_one_to_one(seed, codes, classes):
    found, labels = draws(seed, codes, classes)
    counts = np.array([[np.sum((found == c) & (labels == k)) for k in range(classes)] for c in range(codes)])
    assert majority_error(found, labels) == pytest.approx(1 - counts.max(axis=1).sum() / len(labels))
    assert majority_error(found, labels) <= one_to_one_error(found, labels) + 1e-12


def test_where_two_codes_share_a_class_the_two_errors_differ():
    codes, labels = np.array([0, 0, 0, 1, 1, 2, 2]), np.array([0, 0, 0, 0, 0, 1, 1])
    assert majority_error(codes, labels) == 0
    assert by_majority(codes, labels) == {0: 0, 1: 0, 2: 1}
    assert one_to_one(codes, labels) == {0: 0, 2: 1}
    assert one_to_one_error(codes, labels) == pytest.approx(2 / 7)


def test_a_code_for_each_picture_has_no_majority_error():
    labels = np.arange(12) % 3
    assert majority_error(np.arange(12), labels) == 0
    assert one_to_one_error(np.arange(12), labels) == pytest.approx(9 / 12)


def test_fewer_codes_than_classes_leave_classes_without_a_code():
    labels = np.arange(12) % 3
    assert one_to_one_error(np.zeros(12, int), labels) == pytest.approx(8 / 12)
    assert one_to_one_error(np.minimum(labels, 1), labels) == pytest.approx(4 / 12)


def test_a_matching_is_asked_of_other_pictures():
    matching = one_to_one([3, 3, 5, 5], [0, 0, 1, 1])
    assert matching == {3: 0, 5: 1}
    assert matched_error([3, 5, 5, 8], [0, 1, 0, 0], matching) == pytest.approx(2 / 4)  # 8 is matched to nothing


@pytest.mark.parametrize(
    ("codes", "labels", "words"),
    [
        (np.eye(3), np.arange(3), r"codes as whole numbers \[N\].*float64 \[3, 3\]; take the argmax"),
        (np.arange(3), np.eye(3, dtype=int), r"labels as whole numbers.*int64 \[3, 3\]"),
        (np.array([0.5]), np.array([1]), "codes as whole numbers"),
        (np.zeros(0, int), np.zeros(0, int), "N at least 1"),
        (np.arange(3), np.arange(4), "received 3 codes and 4 labels"),
    ],
)
@pytest.mark.parametrize("function", [*ERRORS, one_to_one, by_majority])
def test_what_is_no_code_or_label_is_refused(function, codes, labels, words):
    with pytest.raises(ValueError, match=words):
        function(codes, labels)
