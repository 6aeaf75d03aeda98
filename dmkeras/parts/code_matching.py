"""How well codes found without labels agree with labels: the error after codes were matched to labels.

A matching is {code: label}. Two are in use, and a figure says nothing without the word for its own:

    one_to_one    no label twice: the matching that agrees with most labels (the Hungarian method)
    by_majority   each code takes the label that it meets most often; several codes may take one label

The majority's error is never the larger one. It falls to 0 as codes become many, as many as pictures at last, so it
tells something only where codes are as many as classes; the one-to-one error does not fall so. Where codes are more
than classes the one-to-one matching leaves codes without a label, where they are fewer it leaves labels without a code:
all pictures of either count as errors.

Both matchings look at labels. Match on one set and ask `matched_error` of another to keep the two apart.

Shapes:  N pictures.
"""

import numpy as np


def one_to_one(codes, labels):
    """The matching {code: label} of codes [N] to labels [N] with no label twice that has the least error."""
    from scipy.optimize import linear_sum_assignment

    found, classes, counts = _contingency(codes, labels)
    return {int(found[i]): int(classes[j]) for i, j in zip(*linear_sum_assignment(-counts))}


def by_majority(codes, labels):
    """The matching {code: label} of each code to its most frequent label; of equals, to the smallest."""
    found, classes, counts = _contingency(codes, labels)
    return {int(code): int(classes[j]) for code, j in zip(found, counts.argmax(axis=1))}


def matched_error(codes, labels, matching):
    """The part of pictures in [0, 1] whose code is not matched to their label, or to none."""
    codes, labels = _check(codes, labels)
    right = [matching.get(int(code)) == label for code, label in zip(codes, labels)]
    return 1 - sum(right) / len(right)


def one_to_one_error(codes, labels):
    """The unsupervised error in [0, 1] of codes [N] under their own best one-to-one matching to labels [N]."""
    return matched_error(codes, labels, one_to_one(codes, labels))


def majority_error(codes, labels):
    """The error in [0, 1] of codes [N] where every code takes its most frequent label, shared ones allowed."""
    return matched_error(codes, labels, by_majority(codes, labels))


def _contingency(codes, labels):
    """The codes that occur, the labels that occur, and how often they meet [codes, labels]."""
    codes, labels = _check(codes, labels)
    found, i = np.unique(codes, return_inverse=True)
    classes, j = np.unique(labels, return_inverse=True)
    counts = np.zeros((len(found), len(classes)), "int64")
    np.add.at(counts, (i, j), 1)
    return found, classes, counts


def _check(codes, labels):
    """Both as arrays [N] of integers; ValueError for anything else."""
    codes, labels = np.asarray(codes), np.asarray(labels)
    for name, values in (("codes", codes), ("labels", labels)):
        if values.ndim != 1 or values.dtype.kind not in "iu" or not len(values):
            received = f"{values.dtype} {list(values.shape)}"
            raise ValueError(
                f"expected {name} as whole numbers [N], N at least 1, received {received}; take the argmax"
            )
    if len(codes) != len(labels):
        raise ValueError(f"expected a code for each label, received {len(codes)} codes and {len(labels)} labels")
    return codes, labels
