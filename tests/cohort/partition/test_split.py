"""Every patient has exactly one place, whatever the order of rows, and places are large enough to use."""

import numpy as np
import pandas as pd
import pytest
from run_always import run_always
from tiny import CHEST, tiny_index

from fl_rsna.cohort.partition.partitioners import rarest_labels
from fl_rsna.cohort.partition.split import SitePatients, overlaps, split_patients
from fl_rsna.cohort.partition.training_sites import MIN_PATIENTS
from fl_rsna.settings.partition import TEST_SITE, PartitionConfig, PartitionKind
from fl_rsna.task import ICH, Task

KINDS = [
    kind for kind in PartitionKind if kind not in (PartitionKind.scanner, PartitionKind.origin, PartitionKind.explicit)
]


def split(index: pd.DataFrame, task: Task = ICH, **changes: object) -> list[SitePatients]:
    settings = {"num_sites": 3, "alpha": 1.0, "test": 0.2, "validation": 0.25, "seed": 0}
    assignment = changes.pop("assignment", None)
    return split_patients(index, task, PartitionConfig(**{**settings, **changes}), assignment)  # type: ignore[arg-type]


def rare_index(patients: int, positive: int) -> pd.DataFrame:
    """Patients of whom the first `positive` have one subtype, and nobody another."""
    index = tiny_index(patients=patients, slices=3)
    has = index["patient_id"].isin(sorted(set(index["patient_id"]))[:positive]) & (index["rank"] == 1)
    return index.assign(**dict.fromkeys(ICH.labels, 0)).assign(any=has.astype(int), subdural=has.astype(int))


@pytest.mark.parametrize("seed", run_always(range(4), range(8)))
@pytest.mark.parametrize(("patients", "num_sites"), [(6, 2), (10, 2), (10, 4), (20, 4)])
def test_where_positives_are_few_training_keeps_one_and_the_test_site_and_validation_get_one(
    patients: int, num_sites: int, seed: int
) -> None:
    for positive in range(1, patients):
        index = rare_index(patients, positive)
        sites = split(index, num_sites=num_sites, seed=seed, kind=PartitionKind.iid)
        has = set(index.loc[index["any"] == 1, "patient_id"])
        training = [site for site in sites[:-1] if has.intersection(site.train)]
        assert training
        assert bool(has.intersection(sites[-1].test)) == (positive > 1)
        for site in sites[:-1]:  # a second one is for validation
            assert bool(has.intersection(site.validation)) == (len(has.intersection(site.all)) > 1)
        assert placed(sites) == sorted(index["patient_id"].unique())


def placed(sites: list[SitePatients]) -> list[str]:
    return sorted(patient for site in sites for patient in site.all)


@pytest.mark.parametrize("seed", run_always(range(6), range(15)))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", [ICH, CHEST], ids=lambda task: task.name)
def test_every_patient_has_exactly_one_place(seed: int, kind: PartitionKind, task: Task) -> None:
    index = tiny_index(task, patients=31, slices=3)
    sites = split(index, task, seed=seed, kind=kind)
    assert [site.name for site in sites] == ["site-1", "site-2", "site-3", TEST_SITE]
    assert placed(sites) == sorted(index["patient_id"].unique())
    assert overlaps(sites) == {}
    assert all(site.train and site.validation and not site.test for site in sites[:-1])
    assert (sites[-1].train, sites[-1].validation) == ((), ())
    assert len(sites[-1].test) == round(0.2 * 31)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_rows_does_not_matter(kind: PartitionKind) -> None:
    index = tiny_index(patients=25, slices=3)
    expected = split(index, kind=kind, seed=5)
    for seed in range(5):
        shuffled = index.sample(frac=1, random_state=np.random.default_rng(seed)).reset_index(drop=True)
        assert split(shuffled, kind=kind, seed=5) == expected


@pytest.mark.parametrize("kind", [PartitionKind.scanner, PartitionKind.origin, PartitionKind.explicit])
@pytest.mark.parametrize("test", [0.2, "site-2"])
def test_nor_does_it_where_sites_are_there_already(kind: PartitionKind, test: float | str) -> None:
    index = tiny_index(patients=25, slices=3)
    number = index["patient_id"].str[1:].astype(int)
    words = (number * 7 % 25 % 4 + (index["rank"] == 1)).astype(str)  # not the same on all slices of a patient
    index = index.assign(origin=words, fingerprint=words)
    patients = sorted(set(index["patient_id"]))
    assignment = {patient: f"site-{n % 3 + 1}" for n, patient in enumerate(patients)}
    expected = split(index, kind=kind, test=test, assignment=assignment)
    assert placed(expected) == patients
    for seed in range(5):
        shuffled = index.sample(frac=1, random_state=np.random.default_rng(seed)).reset_index(drop=True)
        turned = dict(reversed(assignment.items()))
        assert split(shuffled, kind=kind, test=test, assignment=turned) == expected


def test_the_seed_decides() -> None:
    index = tiny_index(patients=25, slices=3)
    assert split(index, seed=1) == split(index, seed=1)
    assert len({tuple(split(index, seed=seed)) for seed in range(5)}) == 5


def test_the_test_site_does_not_depend_on_how_the_rest_is_assigned() -> None:
    index = tiny_index(patients=31, slices=3)
    tests = {
        split(index, kind=kind, num_sites=n, alpha=a)[-1].test for kind in KINDS for n in (2, 4) for a in (1.0, 9.0)
    }
    assert len(tests) == 1


def test_validation_is_its_share_of_each_site() -> None:
    for site in split(tiny_index(patients=50, slices=3), num_sites=4, validation=0.3)[:-1]:
        assert len(site.validation) == round(0.3 * len(site.all))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("test", [0.01, 0.5, 0.99])
def test_the_fewest_patients_that_suffice_suffice(kind: PartitionKind, test: float) -> None:
    sites = split(tiny_index(patients=2 * MIN_PATIENTS + 1, slices=3), kind=kind, num_sites=2, test=test, alpha=10.0)
    assert [len(site.all) for site in sites] == [MIN_PATIENTS, MIN_PATIENTS, 1]
    assert all(len(site.train) == len(site.validation) == 1 for site in sites[:-1])


@pytest.mark.parametrize("kind", KINDS)
def test_too_many_sites_are_refused(kind: PartitionKind) -> None:
    with pytest.raises(
        ValueError,
        match=r"^partition\.num_sites: expected at least 9 patients for 4 sites .*, got 8; say partition\.num_sites=3$",
    ):
        split(tiny_index(patients=8, slices=3), kind=kind, num_sites=4)


def test_iid_spreads_every_label_over_sites_and_test_site() -> None:
    index = tiny_index(patients=120, slices=3)  # 20 patients of each of five labels and 20 of none
    rarest = rarest_labels(index, ICH)
    sites = split(index, num_sites=4, test=0.2)
    assert (rarest[list(sites[-1].test)].value_counts() == 4).all()
    for site in sites[:-1]:
        assert (rarest[list(site.all)].value_counts() == 4).all()
        assert set(rarest[list(site.train)]) == set(rarest)


def test_overlaps_name_the_parts_and_count_the_patients() -> None:
    sites = [
        SitePatients(name="site-1", train=("a", "b"), validation=("c",)),
        SitePatients(name="site-2", train=("b", "c", "d"), validation=("e",)),
        SitePatients(name=TEST_SITE, test=("a", "d", "f")),
    ]
    assert overlaps(sites) == {
        "site-1/train and site-2/train": 1,
        "site-1/train and test-site/test": 1,
        "site-1/validation and site-2/train": 1,
        "site-2/train and test-site/test": 1,
    }
