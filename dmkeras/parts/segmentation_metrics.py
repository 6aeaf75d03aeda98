"""How good a segmentation is, in numbers: of pixels pooled over pictures, and of outlines.

With n[i, j] the pixels of true class i that were found to be j, t[i] = sum_j n[i, j] and f[j] = sum_i n[i, j], as in
Long, Shelhamer and Darrell (https://arxiv.org/abs/1411.4038, section 5):

    pixel accuracy             sum_i n[i, i] / sum_i t[i]
    accuracy of class i        n[i, i] / t[i]                              nan where the class is not in the truth
    IoU of class i             n[i, i] / (t[i] + f[i] - n[i, i])           nan where it is in neither
    Dice of class i            2 n[i, i] / (t[i] + f[i])                   nan where it is in neither
    mean accuracy, mean IoU    means over the classes that have one; nan where none has
    frequency weighted IoU     sum_i t[i] IoU[i] / sum_i t[i]

    Hausdorff distance         max of h(A, B) and h(B, A),  h(A, B) = max over a in A of min over b in B of |a - b|
    at percentile p            the same with the p-th percentile over a in place of the max

Pixels of truth -1 (void) are left out of everything, whatever was found there. Pictures are pooled: counts are added
before anything is divided, so that a class that is rare in one picture does not count as much there as elsewhere. A
class that was found but is nowhere in the truth has an IoU of 0, which counts.

In `fit`, keras.metrics.MeanIoU does the same from logits (`streaming_mean_iou`): it counts in int64 and leaves void and
absent classes out. It cannot weight pictures: weights [B] raise an error and fractions are cut, so it is given none.

Shapes:  H height, W width, K classes; ... any leading axes, such as pictures.
"""

import keras
import numpy as np

from dmkeras.parts.checks import whole_number

VOID = -1


def confusion_matrix(truth, found, num_classes=None):
    """n[i, j] of the module, int64 [K, K]. Matrices of several batches may be added.

    Args:
        truth: [..., H, W] bool, or whole numbers from 0 to K - 1, -1 for void.
        found: [..., H, W] bool, or whole numbers from 0 to K - 1.
        num_classes: K; None for the largest class of both and those below it, and at least two.

    Raises:
        ValueError: for maps of different shapes, no whole numbers, or classes out of range.
    """
    truth, found = (_whole(name, values) for name, values in (("truth", truth), ("found", found)))
    if truth.shape != found.shape:
        raise ValueError(f"expected truth and found of one shape, received {truth.shape} and {found.shape}; resize one")
    largest = max(truth.max(initial=0), found.max(initial=0))
    kinds = max(2, int(largest) + 1) if num_classes is None else whole_number("num_classes", num_classes, 1)
    for name, values, least in (("truth", truth, VOID), ("found", found, 0)):
        if values.size and not least <= values.min() <= values.max() < kinds:
            received = f"{values.min()} to {values.max()}"
            raise ValueError(f"expected {name} from {least} to {kinds - 1}, received {received}; void is -1 in truth")
    known = truth != VOID
    pairs = truth[known].astype("int64") * kinds + found[known]
    return np.bincount(pairs, minlength=kinds * kinds).reshape(kinds, kinds)


def _whole(name, values):
    values = np.asarray(values)
    if values.dtype.kind not in "biu":
        raise ValueError(
            f"expected {name} of whole numbers or bool, received {values.dtype}; take the argmax of scores"
        )
    return values.astype("int32") if values.dtype.kind in "bu" else values


def scores(matrix):
    """All figures of the module of a confusion matrix [K, K].

    Returns:
        {"mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou": float,
        "iou", "dice", "accuracy": [K] float64}, nan where there is nothing to measure.
    """
    matrix = np.asarray(matrix, "float64")
    right, true, found = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    iou, accuracy = _ratio(right, true + found - right), _ratio(right, true)
    return {
        "mean_iou": _mean(iou),
        "pixel_accuracy": float(_ratio(right.sum(), true.sum())),
        "mean_accuracy": _mean(accuracy),
        "frequency_weighted_iou": float(_ratio((true * np.nan_to_num(iou)).sum(), true.sum())),
        "iou": iou,
        "dice": _ratio(2 * right, true + found),
        "accuracy": accuracy,
    }


def _ratio(above, below):
    above, below = np.asarray(above, "float64"), np.asarray(below, "float64")
    return np.divide(above, below, out=np.full(below.shape, np.nan), where=below > 0)


def _mean(values):
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else float("nan")


def mean_iou(truth, found, num_classes=None):
    """The mean over classes of IoU, arguments and errors as of `confusion_matrix`."""
    return scores(confusion_matrix(truth, found, num_classes))["mean_iou"]


def pixel_accuracy(truth, found, num_classes=None):
    """The part of the pixels that were found to be what they are, arguments and errors as of `confusion_matrix`."""
    return scores(confusion_matrix(truth, found, num_classes))["pixel_accuracy"]


def mean_accuracy(truth, found, num_classes=None):
    """The mean over true classes of the part of their pixels that was found, arguments as of `confusion_matrix`."""
    return scores(confusion_matrix(truth, found, num_classes))["mean_accuracy"]


def frequency_weighted_iou(truth, found, num_classes=None):
    """The mean over classes of IoU, weighted by their true pixels, arguments and errors as of `confusion_matrix`."""
    return scores(confusion_matrix(truth, found, num_classes))["frequency_weighted_iou"]


def dice(truth, found, num_classes=None):
    """Dice's coefficient, pooled over all leading axes: call it picture by picture for a number a picture.

    Args:
        truth: [..., H, W]; bool for one mask, whole numbers for classes, -1 for void.
        found: likewise.
        num_classes: K, of whole numbers.

    Returns:
        Of bool, the coefficient of the true pixels, a float; of whole numbers, [K]. nan where neither has a pixel.

    Raises:
        ValueError: as `confusion_matrix`.
    """
    matrix = confusion_matrix(truth, found, num_classes)
    binary = np.asarray(truth).dtype == bool and np.asarray(found).dtype == bool
    return float(scores(matrix)["dice"][1]) if binary else scores(matrix)["dice"]


def hausdorff(truth, found, percentile=100, border=True):
    """The Hausdorff distance of two masks in pixels, for each picture by itself.

    Args:
        truth: [..., H, W] bool, or 0 and 1.
        found: likewise; of several classes, compare `truth == k` with `found == k`.
        percentile: of the distances of a mask's pixels; 100 takes the largest, 95 forgives the one pixel astray. It is
            interpolated linearly, as by `np.percentile`.
        border: whether a mask is its outline, the pixels with a neighbour (of four) outside of the mask, as in medical
            imaging; False takes all its pixels. Beyond the picture nothing belongs to a mask.

    Returns:
        [...] float64; 0 where both masks are empty, infinite where one is.

    Raises:
        ValueError: for masks of different shapes or other values, or a percentile outside of [0, 100].
    """
    truth, found = (_whole(name, values) for name, values in (("truth", truth), ("found", found)))
    if truth.shape != found.shape or truth.ndim < 2:
        raise ValueError(f"expected masks [..., H, W] of one shape, received {truth.shape} and {found.shape}")
    for name, values in (("truth", truth), ("found", found)):
        if values.size and not 0 <= values.min() <= values.max() <= 1:
            received = f"{values.min()} to {values.max()}"
            raise ValueError(f"expected {name} as a mask of 0 and 1, received {received}; compare {name} == k")
    if not 0 <= percentile <= 100:
        raise ValueError(f"percentile must be from 0 to 100, received {percentile}")
    flat = [values.reshape(-1, *truth.shape[-2:]) == 1 for values in (truth, found)]
    distances = [_distance(*pair, percentile, border) for pair in zip(*flat)]
    return np.reshape(np.array(distances, "float64"), truth.shape[:-2])[()]


def _distance(a, b, percentile, border):
    """Of masks [H, W]."""
    from scipy.spatial import cKDTree

    a, b = (np.argwhere(outline(mask) if border else mask) for mask in (a, b))
    if not len(a) or not len(b):
        return 0.0 if len(a) == len(b) else np.inf
    return max(np.percentile(cKDTree(q).query(p)[0], percentile) for p, q in ((a, b), (b, a)))


def outline(mask):
    """The pixels of a mask [H, W] that have one of their four neighbours outside of it."""
    padded = np.pad(mask, 1)
    return mask & ~(padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:])


def streaming_mean_iou(num_classes, name="mean_iou"):
    """A Keras metric of labels [B, H, W], -1 for void, and logits [B, H, W, K]: mean IoU, pooled over batches.

    A model expected to keep it makes it in its `__init__` and updates it in `compute_loss` without sample weights.
    """
    return keras.metrics.MeanIoU(num_classes, name=name, ignore_class=VOID, sparse_y_pred=False)
