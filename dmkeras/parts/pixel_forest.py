"""A random forest of single pixels, scikit-learn's: it learns one picture and segments others.

A pixel is described by the filter bank of dmkeras/parts/pixel_features.py. Probabilities can be calibrated by
scikit-learn's CalibratedClassifierCV over FOLDS folds of the pixels: the trees, trained on all pixels, then answer
through a sigmoid, or an isotonic function, of the folds' own answers.

Shapes:  H, W sides, C channels, R pictures to segment, F features.
"""

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier

from dmkeras.parts.pixel_features import filter_bank

FOLDS = 3
LEAF = 2  # pixels at least in a leaf


def bank_of(images, position=False):
    """float32 [R H W, F]: the features of pictures [R, H, W, C], which serve every segmentation."""
    banks = [filter_bank(image, position) for image in images]
    return np.concatenate([bank.reshape(-1, bank.shape[-1]) for bank in banks])


def segment_others(image, labels, bank, position=False, trees=30, pixels=4000, calibration=None, seed=0):
    """int32 [R H W]: the labels that a forest which learnt one picture gives to the pixels of `bank`.

    Args:
        image: [H, W, C].
        labels: whole numbers [H, W]; pixels below 0 are not learnt. A single label is the answer everywhere, and so is
            0 where there is none.
        bank: [R H W, F] of `bank_of`.
        position: as for `bank_of`.
        trees: of the forest.
        pixels: to learn from at most, drawn by the seed.
        calibration: `"sigmoid"`, `"isotonic"` or None; not done for a label of fewer than FOLDS pixels.
        seed: of the drawing and the trees.
    """
    known = np.flatnonzero(np.asarray(labels).reshape(-1) >= 0)
    if len(known) > pixels:
        known = np.random.default_rng(seed).choice(known, pixels, replace=False)
    found = np.asarray(labels).reshape(-1)[known]
    names, counts = np.unique(found, return_counts=True)
    if len(names) < 2:
        return np.full(len(bank), names[0] if len(names) else 0, "int32")
    forest = RandomForestClassifier(trees, min_samples_leaf=LEAF, random_state=seed)
    if calibration and counts.min() >= FOLDS:
        forest = CalibratedClassifierCV(forest, method=calibration, cv=FOLDS, ensemble=False)
    features = filter_bank(image, position).reshape(-1, bank.shape[-1])[known]
    return forest.fit(features, found).predict(bank).astype("int32")
