"""A random forest of single pixels, scikit-learn's: it learns one picture and says what others show.

A pixel is described by the filter bank of dmkeras/parts/pixel_features.py. Probabilities can be calibrated by
scikit-learn's CalibratedClassifierCV over FOLDS folds of the pixels: the trees, trained on all pixels, then answer
through a sigmoid, or an isotonic function, of the folds' own answers.

Shapes:  H, W sides, C channels, R pictures to segment, F features, L labels.
"""

import numpy as np

from dmkeras.parts.pixel_features import filter_bank

FOLDS = 3


def bank_of(images, position=False):
    """float32 [R H W, F]: the features of pictures [R, H, W, C], which serve every segmentation."""
    banks = [filter_bank(image, position) for image in images]
    return np.concatenate([bank.reshape(-1, bank.shape[-1]) for bank in banks])


def segment_others(image, labels, bank, num_labels, position=False, trees=20, pixels=8000, calibration=None, seed=0):
    """Probabilities float32 [R H W, L] of the labels of `bank`'s pixels, by a forest which learnt one picture.

    Args:
        image: [H, W, C].
        labels: whole numbers [H, W]; pixels below 0 are not learnt. A lone label is sure everywhere, and so is 0 where
            there is none.
        bank: [R H W, F] of `bank_of`.
        num_labels: L; labels are less.
        position: as for `bank_of`.
        trees: of the forest.
        pixels: to learn from at most, drawn by the seed.
        calibration: `"sigmoid"`, `"isotonic"` or None; not done for a label of fewer than FOLDS pixels.
        seed: of the drawing and the trees.
    """
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.ensemble import RandomForestClassifier

    known = np.flatnonzero(np.asarray(labels).reshape(-1) >= 0)
    if len(known) > pixels:
        known = np.random.default_rng(seed).choice(known, pixels, replace=False)
    found = np.asarray(labels).reshape(-1)[known]
    names, counts = np.unique(found, return_counts=True)
    answer = np.zeros((len(bank), num_labels), "float32")
    if len(names) < 2:
        answer[:, names[0] if len(names) else 0] = 1
        return answer
    forest = RandomForestClassifier(trees, random_state=seed)  # whole trees: what is contradictory shows
    if calibration and counts.min() >= FOLDS:
        forest = CalibratedClassifierCV(forest, method=calibration, cv=FOLDS, ensemble=False)
    features = filter_bank(image, position).reshape(-1, bank.shape[-1])[known]
    answer[:, names] = forest.fit(features, found).predict_proba(bank)
    return answer
