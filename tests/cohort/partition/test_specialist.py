"""A specialist site lacks its labels exactly, every label is kept somewhere, and nobody is lost."""

import numpy as np
import pandas as pd
import pytest
from run_always import run_always

from fl_rsna.cohort.partition.partitioners import assign_specialist

LABELS = list("abcde")


def table(rows: dict[str, str]) -> pd.DataFrame:
    """`table({"p1": "ab"})`: patient p1 has labels a and b."""
    return pd.DataFrame([[int(label in found) for label in LABELS] for found in rows.values()], list(rows), LABELS)


def at_random(seed: int, patients: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    found = rng.random((patients, len(LABELS))) < rng.choice([0.1, 0.3, 0.6])
    return pd.DataFrame(found.astype(int), [f"{n:03d}" for n in range(patients)], LABELS)


@pytest.mark.parametrize("seed", run_always(range(12), range(40)))
@pytest.mark.parametrize(("num_sites", "lacking"), [(2, 1), (2, 2), (3, 3), (5, 4), (7, 2)])
def test_the_promise_holds_exactly(seed: int, num_sites: int, lacking: int) -> None:
    found = at_random(seed, 60)
    sites, lacks, unplaced = assign_specialist(found, num_sites, lacking, np.random.default_rng(seed))
    assert sorted(sum(sites, unplaced)) == list(found.index)
    assert [len(without) for without in lacks] == [lacking] * num_sites
    assert all(any(label not in without for without in lacks) for label in LABELS)
    for site, without in zip(sites, lacks, strict=True):
        assert found.loc[site, list(without)].to_numpy().sum() == 0
    for patient in unplaced:
        assert all(found.loc[patient, list(without)].any() for without in lacks)


def test_patients_without_findings_even_out_the_sizes() -> None:
    rows = {f"p{n:02d}": LABELS[n % 5] if n < 20 else "" for n in range(60)}
    sites, _, unplaced = assign_specialist(table(rows), 4, 1, np.random.default_rng(0))
    assert [len(site) for site in sites] == [15] * 4
    assert unplaced == []


def test_a_patient_with_every_label_has_no_site_and_is_named() -> None:
    rows = {f"p{n}": LABELS[n % 5] for n in range(10)} | {"all": "abcde"}
    assert assign_specialist(table(rows), 3, 1, np.random.default_rng(0))[2] == ["all"]


def test_labels_that_come_together_are_not_lacking_at_different_sites() -> None:
    """Two sites can take everybody only when both patients' label pairs are whole at one of them."""
    rows = {f"p{n:02d}": ("ab", "cd")[n % 2] for n in range(20)}
    for seed in range(10):
        sites, _, unplaced = assign_specialist(table(rows), 2, 1, np.random.default_rng(seed))
        assert unplaced == []
        assert min(map(len, sites)) > 0


@pytest.mark.parametrize(("num_sites", "lacking", "most"), [(1, 1, 0), (2, 3, 2), (4, 4, 3), (50, 5, 4)])
def test_a_label_that_would_be_kept_nowhere_is_refused(num_sites: int, lacking: int, most: int) -> None:
    with pytest.raises(ValueError, match=rf"^partition\.lacking: expected at most {most} of 5 labels.*got {lacking}; "):
        assign_specialist(at_random(0, 200), num_sites, lacking, np.random.default_rng(0))


def test_the_most_that_can_be_lacking_can_be() -> None:
    for num_sites, most in ((2, 2), (3, 3), (4, 3), (5, 4)):
        lacks = assign_specialist(at_random(0, 200), num_sites, most, np.random.default_rng(0))[1]
        assert all(any(label not in without for without in lacks) for label in LABELS)
