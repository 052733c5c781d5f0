"""Split patients into the held-out test site, the training sites, and the validation part of each site.

The test site is a fold, a share, a list of patients, or one of the sites. Folds have about equal sizes and shares of labels.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import pandas as pd

from fl_rsna.cohort.partition.partitioners import (
    find_positive,
    findings,
    group_column,
    rarest_finding,
    take_count,
    take_stratified,
)
from fl_rsna.cohort.partition.training_sites import (
    MIN_PATIENTS,
    TrainingSite,
    assign_patients,
    check_enough,
    check_sizes,
    sites_that_are_there,
)
from fl_rsna.settings.partition import TEST_SITE, Group, PartitionConfig
from fl_rsna.task import Task

PARTS = ("train", "validation", "test")


def greedy_folds(rarest: pd.Series, folds: int, seed: int) -> list[list[str]]:
    """Split patients into folds: each patient, in seeded order, goes to the fold with the fewest patients of its rarest label.

    Ties go to the smaller fold, then to the lower number (the rule of RSNA 2019's 10th place). The folds do not depend on which of them is
    the test site, so every patient is in the test site of exactly one of `folds` cohorts.
    """
    rng = np.random.default_rng([seed, *b"folds"])
    held = {label: [0] * folds for label in rarest.unique()}
    members: list[list[str]] = [[] for _ in range(folds)]
    for position in rng.permutation(len(rarest)):
        counts = held[rarest.iloc[position]]
        fold = min(range(folds), key=lambda number: (counts[number], len(members[number]), number))
        counts[fold] += 1
        members[fold].append(rarest.index[position])
    return [sorted(fold) for fold in members]


def hold_out_patients(
    rarest: pd.Series, there: list[TrainingSite], num_sites: int, part: PartitionConfig, rng: np.random.Generator
) -> list[str]:
    """Choose the patients of the test site before the others are assigned; none when one of the sites becomes the test site.

    Raises ValueError when there are more folds than patients, or too few patients for the sites.
    """
    test, folds, group = part.test, part.folds, part.group
    if folds is not None:
        if folds > len(rarest):
            raise ValueError(
                f"partition.folds: expected at most {len(rarest)}, one for each of the {group.plural}, got {folds}; lower it"
            )
        return greedy_folds(rarest, folds, part.seed)[part.fold]
    if isinstance(test, str):
        return []
    if isinstance(test, Sequence):
        return sorted(test)
    return _share(rarest, there, num_sites, test, group, rng)


def leave_one_out(sites: list[TrainingSite], name: str) -> tuple[list[TrainingSite], TrainingSite]:
    """Return all sites but the named one, and that one. Raises ValueError when there is no such site or no other one."""
    names = [site.name for site in sites]
    if name not in names:
        known = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        raise ValueError(
            f"partition.test: expected a share, a list of patients, a file of them or one of the sites {known}, got {name!r}"
        )
    if len(names) < 2:
        raise ValueError(
            f"partition.test: expected another site to train on besides {name}, got none; raise partition.num_sites"
        )
    left = sites[names.index(name)]
    return [site for site in sites if site is not left], left


def _share(
    rarest: pd.Series, there: list[TrainingSite], num_sites: int, share: float, group: Group, rng: np.random.Generator
) -> list[str]:
    """Take a share of the patients, spread over labels, and leave MIN_PATIENTS to every site.

    Raises ValueError when there are too few patients.
    """
    needed = num_sites * MIN_PATIENTS + 1
    if len(rarest) < needed:
        most = (len(rarest) - 1) // MIN_PATIENTS
        advice = "lower partition.num_sites" if there else f"say partition.num_sites={most}" if most else "take more"
        raise ValueError(
            f"partition.num_sites: expected at least {needed} {group.plural} for {num_sites} sites "
            f"({MIN_PATIENTS} a site and one in the test site), got {len(rarest)}; {advice}"
        )
    share = min(share, (len(rarest) - num_sites * MIN_PATIENTS) / len(rarest))
    if not there:
        return take_stratified(rarest, share, rng)[0]
    kept = {site.patients[i] for site in there for i in rng.permutation(len(site.patients))[:MIN_PATIENTS]}
    free = rarest[[patient for patient in rarest.index if patient not in kept]]
    return take_count(free, min(max(1, round(share * len(rarest))), len(free)), rng)[0]


def swap_for_positive(
    chosen: Sequence[str],
    left: Sequence[str],
    positive: frozenset[str],
    rng: np.random.Generator,
    site_of: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """Exchange one chosen patient for one who is left, of the same site, where only one of the two groups has a positive patient.

    The chosen ones get a positive patient from two or more who are left, and give one back to those who have none. Otherwise
    `chosen` stays as it is.
    """
    ours, theirs = positive.intersection(chosen), positive.intersection(left)
    if not ours and len(theirs) > 1:
        pairs = [(out, into) for out in chosen for into in left if into in theirs]
    elif ours and not theirs:
        pairs = [(out, into) for out in chosen if out in ours for into in left]
    else:
        return list(chosen)
    pairs = [(out, into) for out, into in pairs if site_of.get(out) == site_of.get(into)]
    if not pairs:
        return list(chosen)
    out, into = pairs[rng.integers(len(pairs))]
    return sorted(into if patient == out else patient for patient in chosen)


@dataclass(frozen=True, slots=True, kw_only=True)
class SitePatients:
    """The patients of one site, who are at no other site. The test site has only `test`.

    With another `Group` than patient these are ids of series or slices. `made_of` has the header values of a site by scanner or origin,
    `lacks` the labels that no patient of a specialist site has. `unplaced` are patients of the test site whom no specialist site can take.
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
        """The patients of all parts."""
        return self.train + self.validation + self.test


def split_patients(
    index: pd.DataFrame, task: Task, part: PartitionConfig, assignment: Mapping[str, str] | None = None
) -> list[SitePatients]:
    """Assign every patient of `index` to exactly one part of one site; the test site comes last.

    `part.test` is a share, the name of a site or a list of patients with the ids of `index`; a file of them was read before. For
    explicit sites, `assignment` has the site of every patient that is not in that list. The result depends on the set of patients, their
    labels and, for sites by scanner or origin, their headers; it does not depend on the order of rows. Where the data lack a label,
    positives are so few that chance leaves parts without any: then a share as the test site, and each validation part, get a positive
    patient where there are two, and training keeps one. Raises ValueError when there are too few patients.
    """
    kind, group, test, folds = part.kind, part.group, part.test, part.folds
    found, key = findings(index, task, group), group_column(group, task)
    rarest, rng = rarest_finding(found), np.random.default_rng([part.seed, 0])
    there = sites_that_are_there(index, key, part, assignment)
    num_sites = len(there) or part.num_sites
    held_out = hold_out_patients(rarest, there, num_sites, part, rng)
    positive = find_positive(index, task, key) if not found.any().all() else frozenset()
    positive_rng = np.random.default_rng([part.seed, *b"positive"])
    if folds is None and isinstance(test, float | int):
        kept, site_of = sorted(set(rarest.index) - set(held_out)), {who: at.name for at in there for who in at.patients}
        held_out = swap_for_positive(held_out, kept, positive, positive_rng, site_of)
    rest, unplaced = sorted(set(rarest.index) - set(held_out)), list[str]()
    if there:
        left = set(rest)
        sites = [replace(site, patients=[patient for patient in site.patients if patient in left]) for site in there]
    else:
        check_enough(len(rest), num_sites, group)
        sites, unplaced = assign_patients(found.loc[rest], rarest[rest], part, rng)
    if unplaced and (folds is not None or not isinstance(test, float | int)):
        raise ValueError(
            f"partition.lacking: expected a site for each of {len(rest)} {group.plural}, but none keeps all findings of "
            f"{len(unplaced)} (first: {unplaced[0]}); lower it, or make partition.test a share, whose test site takes them"
        )
    test_site = SitePatients(name=TEST_SITE, test=tuple(sorted([*held_out, *unplaced])), unplaced=tuple(unplaced))
    if folds is None and isinstance(test, str):
        sites, one = leave_one_out(sites, test)
        test_site = SitePatients(name=TEST_SITE, test=tuple(one.patients), made_of=one.made_of, lacks=one.lacks)
    check_sizes(sites, kind, group)
    training = []
    for site in sites:
        own_rng = np.random.default_rng([part.seed, site.number])
        taken, others = take_stratified(rarest[site.patients], part.validation, own_rng)
        validation = tuple(swap_for_positive(taken, others, positive, positive_rng))
        train = tuple(sorted(set(site.patients) - set(validation)))
        training.append(
            SitePatients(name=site.name, train=train, validation=validation, made_of=site.made_of, lacks=site.lacks)
        )
    return [*training, test_site]


def overlaps(sites: list[SitePatients]) -> dict[str, int]:
    """Count the patients that any two parts of the cohort (site/train, site/validation, test) share, by pair; empty when disjoint."""
    return count_shared_ids({f"{site.name}/{part}": getattr(site, part) for site in sites for part in PARTS})


def count_shared_ids(parts: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """Count the ids that any two parts have in common, by pair; pairs without any are left out."""
    places: dict[str, list[str]] = {}
    for name in sorted(parts):
        for id_ in set(parts[name]):
            places.setdefault(id_, []).append(name)
    pairs = Counter(pair for names in places.values() if len(names) > 1 for pair in itertools.combinations(names, 2))
    return {f"{a} and {b}": count for (a, b), count in sorted(pairs.items())}
