"""Folds are a partition of the patients with every label spread evenly."""

import numpy as np
import pandas as pd
import pytest

from fl_rsna.cohort.partition.split import greedy_folds


def rarest(**sizes: int) -> pd.Series:
    return pd.Series({f"{label}-{n:02d}": label for label, size in sizes.items() for n in range(size)}).sort_index()


MIXED = rarest(none=23, subdural=11, epidural=4, subarachnoid=1)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("folds", [2, 5, 39])
def test_folds_are_a_partition_even_in_every_label(seed: int, folds: int) -> None:
    members = greedy_folds(MIXED, folds, seed)
    assert len(members) == folds
    assert sorted(patient for fold in members for patient in fold) == list(MIXED.index)
    counts = pd.DataFrame([MIXED[fold].value_counts() for fold in members]).fillna(0)
    assert (counts.max() - counts.min()).max() <= 1
    assert min(map(len, members)) >= 1


def test_ties_go_to_the_smaller_fold_and_then_to_the_first() -> None:
    """One patient of each of four labels: every label is new to every fold, so sizes decide, then numbers."""
    order = np.random.default_rng([3, *b"folds"]).permutation(4)
    names = sorted(f"{label}-00" for label in "abcd")
    members = greedy_folds(rarest(a=1, b=1, c=1, d=1), 3, 3)
    first = [names[position] for position in order]
    assert members == [sorted([first[0], first[3]]), [first[1]], [first[2]]]


def test_the_seed_decides() -> None:
    assert greedy_folds(MIXED, 5, 1) == greedy_folds(MIXED, 5, 1)
    assert greedy_folds(MIXED, 5, 1) != greedy_folds(MIXED, 5, 2)
