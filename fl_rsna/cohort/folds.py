"""Patients in folds of equal size and equal labels, for cross-validation."""

import numpy as np
import pandas as pd


def greedy_folds(rarest: pd.Series, folds: int, seed: int) -> list[list[str]]:
    """Each patient, in seeded order, goes to the fold that has fewest of its rarest label.

    Ties go to the smaller fold, then to the lower number (the rule of RSNA 2019's 10th place). The folds do not depend on which of them is
    the test site, so every patient is in the test site of exactly one of `folds` cohorts.
    """
    rng = np.random.default_rng([seed, *b"folds"])
    held = {label: [0] * folds for label in rarest.unique()}
    dealt: list[list[str]] = [[] for _ in range(folds)]
    for position in rng.permutation(len(rarest)):
        counts = held[rarest.iloc[position]]
        fold = min(range(folds), key=lambda number: (counts[number], len(dealt[number]), number))
        counts[fold] += 1
        dealt[fold].append(rarest.index[position])
    return [sorted(fold) for fold in dealt]
