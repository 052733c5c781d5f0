"""Who is where: the held-out test site, the training sites, and each site's own validation patients."""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from fl_rsna.choices import Group, PartitionKind
from fl_rsna.cohort.dealing import Dealt, check_enough, check_sizes, deal, sites_that_are_there
from fl_rsna.cohort.hold_out import held_out_patients, leave_one_out
from fl_rsna.cohort.partitioners import findings, group_column, rarest_finding, take_stratified
from fl_rsna.config import TEST_SITE
from fl_rsna.task import Task

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class SitePatients:
    """One site's patients; disjoint from every other site's. The test site has only `test`.

    With another `Group` than patient these are ids of series or slices. `made_of` has the header values that make a
    natural site, `lacks` the labels none of a specialist site's patients has, `unplaced` those of the test site's
    patients whose findings no specialist keeps together.
    """

    name: str
    train: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    made_of: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    unplaced: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        return self.train + self.validation + self.test


def split_patients(
    index: pd.DataFrame,
    task: Task,
    *,
    kind: PartitionKind,
    num_sites: int,
    test: float | str | Sequence[str],
    validation: float,
    seed: int,
    alpha: float = 0.5,
    sigma: float = 1.0,
    lacking: int = 1,
    assignment: Mapping[str, str] | None = None,
    folds: int | None = None,
    fold: int = 0,
    group: Group = Group.patient,
) -> list[SitePatients]:
    """Deal every patient of `index` to exactly one place; the test site comes last.

    `test` is a share, the name of a dealt site or a list of patients; with `folds`, the test site is fold `fold`.
    `assignment` is the site of every patient that is not listed in `test`, for `explicit` alone. The result depends on
    the set of patients, their labels and, for natural sites, headers, not on the order of rows. Raises ValueError when the patients do not suffice.
    """
    found, key = findings(index, task, group), group_column(group, task)
    rarest, rng = rarest_finding(found), np.random.default_rng([seed, 0])
    there = sites_that_are_there(index, key, kind, num_sites, assignment)
    num_sites = len(there) or num_sites
    held_out = held_out_patients(rarest, there, num_sites, test, folds, fold, group, seed, rng)
    rest, unplaced = sorted(set(rarest.index) - set(held_out)), list[str]()
    if there:
        left = set(rest)
        dealt = [replace(site, patients=[patient for patient in site.patients if patient in left]) for site in there]
    else:
        check_enough(len(rest), num_sites, group)
        dealt, unplaced = deal(found.loc[rest], rarest[rest], kind, num_sites, alpha, sigma, lacking, rng)
    if unplaced and (folds is not None or not isinstance(test, float | int)):
        raise ValueError(
            f"partition.lacking: expected a site for each of {len(rest)} {group.plural}, but none keeps all findings of "
            f"{len(unplaced)} (first: {unplaced[0]}); lower it, or make partition.test a share, whose test site takes them"
        )
    test_site = SitePatients(name=TEST_SITE, test=tuple(sorted([*held_out, *unplaced])), unplaced=tuple(unplaced))
    if folds is None and isinstance(test, str):
        dealt, one = leave_one_out(dealt, test)
        test_site = SitePatients(name=TEST_SITE, test=tuple(one.patients), made_of=one.made_of, lacks=one.lacks)
    check_sizes(dealt, kind, group)
    return [*(_with_validation(site, rarest, validation, seed) for site in dealt), test_site]


def overlaps(sites: list[SitePatients]) -> dict[str, int]:
    """Patients shared by any two parts of the cohort (site/train, site/validation, test), by pair; empty is the proof."""
    return shared({f"{site.name}/{part}": getattr(site, part) for site in sites for part in PARTS})


def shared(parts: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """How many ids any two parts have in common, by pair; pairs without any are left out."""
    places: dict[str, list[str]] = {}
    for name in sorted(parts):
        for id_ in set(parts[name]):
            places.setdefault(id_, []).append(name)
    pairs = Counter(pair for names in places.values() if len(names) > 1 for pair in itertools.combinations(names, 2))
    return {f"{a} and {b}": count for (a, b), count in sorted(pairs.items())}


def _with_validation(site: Dealt, rarest: pd.Series, share: float, seed: int) -> SitePatients:
    validation, train = take_stratified(rarest[site.patients], share, np.random.default_rng([seed, site.number]))
    return SitePatients(
        name=site.name, train=tuple(train), validation=tuple(validation), made_of=site.made_of, lacks=site.lacks
    )
