"""Assigning patients is a permutation, as even or uneven as asked, and the same for the same generator."""

import numpy as np
import pandas as pd
import pytest
from tiny import CHEST

from fl_rsna.cohort.partition.partitioners import (
    NO_FINDING,
    assign_dirichlet,
    assign_iid,
    assign_quantity,
    assign_shards,
    rarest_labels,
    take_stratified,
)
from fl_rsna.task import ICH

SEEDS = range(20)


def groups(**sizes: int) -> pd.Series:
    """Patients named after their rarest label: `groups(none=2)` are none-00 and none-01."""
    names = {f"{label}-{n:02d}": label for label, size in sizes.items() for n in range(size)}
    return pd.Series(names).sort_index()


MIXED = groups(none=23, subdural=11, epidural=4, subarachnoid=1)


def share_by_site(sites: list[list[str]], rarest: pd.Series) -> pd.DataFrame:
    """Patients by rarest label (rows) and site (columns)."""
    return pd.DataFrame({n: rarest[site].value_counts() for n, site in enumerate(sites)}).fillna(0).astype(int)


def skew(sites: list[list[str]], rarest: pd.Series) -> float:
    """Mean over labels of the share its largest site holds: 1/sites when even, 1 when every label sits in one site."""
    table = share_by_site(sites, rarest)
    return float((table.max(axis=1) / table.sum(axis=1)).mean())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("num_sites", [1, 3, 7])
def test_assigning_is_a_permutation(seed: int, num_sites: int) -> None:
    for sites in (
        assign_iid(MIXED, num_sites, np.random.default_rng(seed)),
        assign_dirichlet(MIXED, num_sites, 1.0, 2, np.random.default_rng(seed)),
        assign_quantity(MIXED, num_sites, 1.0, 2, np.random.default_rng(seed)),
        assign_shards(MIXED, num_sites),
    ):
        assert len(sites) == num_sites
        assert sorted(patient for site in sites for patient in site) == list(MIXED.index)
        assert all(site == sorted(site) for site in sites)


@pytest.mark.parametrize("seed", SEEDS)
def test_iid_differs_by_at_most_one_patient_in_size_and_in_every_label(seed: int) -> None:
    sites = assign_iid(MIXED, 4, np.random.default_rng(seed))
    sizes = [len(site) for site in sites]
    assert max(sizes) - min(sizes) <= 1
    table = share_by_site(sites, MIXED)
    assert (table.max(axis=1) - table.min(axis=1)).max() <= 1


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("alpha", [0.1, 100.0])
def test_dirichlet_leaves_every_site_its_minimum(seed: int, alpha: float) -> None:
    sites = assign_dirichlet(MIXED, 3, alpha, 3, np.random.default_rng(seed))
    assert min(map(len, sites)) >= 3


def test_small_alpha_is_more_skewed_than_large_alpha_than_none() -> None:
    rarest = groups(none=40, subdural=40, epidural=40)
    by_alpha = [
        np.mean([skew(assign_dirichlet(rarest, 4, alpha, 1, np.random.default_rng(seed)), rarest) for seed in SEEDS])
        for alpha in (0.05, 0.5, 5.0, 500.0)
    ]
    assert by_alpha == sorted(by_alpha, reverse=True)
    assert by_alpha[0] > 0.8
    assert by_alpha[-1] < 0.3  # 1/4 is even
    even = np.mean([skew(assign_iid(rarest, 4, np.random.default_rng(seed)), rarest) for seed in SEEDS])
    assert even == 0.25


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("sigma", [0.0, 1.0, 10.0])
def test_quantity_leaves_every_site_its_minimum_whatever_sigma(seed: int, sigma: float) -> None:
    sizes = [len(site) for site in assign_quantity(MIXED, 5, sigma, 3, np.random.default_rng(seed))]
    assert min(sizes) >= 3
    assert sum(sizes) == len(MIXED)
    if sigma == 0.0:
        assert max(sizes) - min(sizes) <= 1


def test_a_larger_sigma_gives_sizes_further_apart() -> None:
    rarest = groups(none=400, subdural=200)
    spread = [
        np.mean([np.std([len(site) for site in assign_quantity(rarest, 8, sigma, 1, np.random.default_rng(seed))]) for seed in SEEDS])
        for sigma in (0.0, 0.3, 1.0, 2.0)
    ]  # fmt: skip
    assert spread == sorted(spread)
    assert spread[0] < 1


@pytest.mark.parametrize("seed", SEEDS)
def test_quantity_gives_every_site_like_labels(seed: int) -> None:
    rarest = groups(none=300, subdural=200, epidural=100)
    table = share_by_site(assign_quantity(rarest, 4, 1.0, 2, np.random.default_rng(seed)), rarest)
    fair = np.outer(table.sum(axis=1), table.sum(axis=0)) / len(rarest)
    assert np.abs(table - fair).to_numpy().max() <= 3


def test_shards_are_contiguous_cuts_of_the_sorted_patients() -> None:
    assert assign_shards(groups(b=2, a=3), 2) == [["a-00", "a-01", "a-02"], ["b-00", "b-01"]]
    sizes = [len(site) for site in assign_shards(MIXED, 7)]
    assert max(sizes) - min(sizes) <= 1


def test_a_draw_that_cannot_be_is_refused_with_what_to_change() -> None:
    with pytest.raises(
        ValueError, match=r"^partition\.alpha: .*5 sites and 6 patients; raise partition\.alpha or lower"
    ):
        assign_dirichlet(groups(none=6), 5, 0.01, 2, np.random.default_rng(0))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.99])
def test_taking_a_share_splits_every_label_by_that_share(seed: int, share: float) -> None:
    taken, left = take_stratified(MIXED, share, np.random.default_rng(seed))
    assert sorted(taken + left) == list(MIXED.index)
    assert len(taken) == min(max(1, round(share * len(MIXED))), len(MIXED) - 1)
    for label, patients in MIXED.groupby(MIXED):
        fair = len(taken) / len(MIXED) * len(patients)
        assert abs(sum(patient.startswith(str(label)) for patient in taken) - fair) <= 1


def test_the_seed_decides_who_is_taken() -> None:
    takes = {tuple(take_stratified(MIXED, 0.2, np.random.default_rng(seed))[0]) for seed in SEEDS}
    assert len(takes) > 15
    assert len({tuple(take_stratified(MIXED, 0.2, np.random.default_rng(3))[0]) for _ in range(3)}) == 1


@pytest.mark.parametrize(("count", "taken"), [(0, 0), (1, 0), (2, 1)])
def test_one_patient_is_always_left(count: int, taken: int) -> None:
    rarest = groups(none=count) if count else pd.Series([], dtype=object)
    assert len(take_stratified(rarest, 0.9, np.random.default_rng(0))[0]) == taken


def ich_slices(*findings: tuple[str, str]) -> pd.DataFrame:
    """One row a finding of a patient; an empty finding is a slice without any."""
    index = pd.DataFrame([{"patient_id": patient, **dict.fromkeys(ICH.labels, 0)} for patient, _ in findings])
    for row, (_, label) in enumerate(findings):
        if label:
            index.loc[row, [label, "any"]] = 1
    return index


def test_the_rarest_label_of_a_patient_is_by_patients_and_never_the_union() -> None:
    index = ich_slices(
        ("p4", ""), ("p4", ""),
        ("p1", "subdural"), ("p1", "epidural"),
        ("p2", "subdural"), ("p2", "subdural"),
        ("p3", "epidural"), ("p3", "epidural"), ("p3", ""),
        ("p0", "subdural"),
    )  # fmt: skip
    # three patients have subdural, two epidural, though epidural has fewer slices
    expected = {"p0": "subdural", "p1": "epidural", "p2": "subdural", "p3": "epidural", "p4": NO_FINDING}
    assert rarest_labels(index, ICH).to_dict() == expected
    assert list(rarest_labels(index, ICH).index) == sorted(expected)


def test_ties_go_to_the_label_that_comes_first_in_the_task() -> None:
    index = ich_slices(("p0", "subdural"), ("p0", "intraventricular"))
    assert rarest_labels(index, ICH).to_dict() == {"p0": "intraventricular"}


def test_exclusive_classes_have_no_patient_without_a_finding() -> None:
    classes = {"a": "negative", "b": "typical", "c": "negative", "d": "atypical"}
    index = pd.DataFrame(
        [{"patient_id": p, **{label: int(label == found) for label in CHEST.labels}} for p, found in classes.items()]
    )
    assert rarest_labels(index, CHEST).to_dict() == classes
