"""Make the training sites: patients are assigned by a rule, or the sites exist already, by scanner, origin or a file."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fl_rsna.cohort.partition.partitioners import (
    assign_dirichlet,
    assign_iid,
    assign_quantity,
    assign_shards,
    assign_specialist,
    natural_sites,
)
from fl_rsna.common.plugins import PARTITIONERS, find_plugins
from fl_rsna.settings.partition import Group, PartitionConfig, PartitionKind

MIN_PATIENTS = 2  # of a site: one to train on, one to validate on


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSite:
    """The patients of a site before some are set aside for validation.

    `number` seeds that choice, so that it does not depend on the other sites.
    """

    name: str
    number: int
    patients: list[str]
    made_of: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()


def sites_that_are_there(
    index: pd.DataFrame, key: str, part: PartitionConfig, assignment: Mapping[str, str] | None
) -> list[TrainingSite]:
    """List the sites of all patients where scanner, origin or a file decides them; empty where a rule assigns the patients."""
    match part.kind:
        case PartitionKind.scanner | PartitionKind.origin:
            column = "fingerprint" if part.kind == PartitionKind.scanner else "origin"
            groups = natural_sites(index, key, column, part.num_sites)
            return [
                TrainingSite(name=f"site-{n}", number=n, patients=ids, made_of=values)
                for n, (values, ids) in enumerate(groups, 1)
            ]
        case PartitionKind.explicit:
            assert assignment is not None
            members: dict[str, list[str]] = {}
            for patient, name in assignment.items():
                members.setdefault(name, []).append(patient)
            names = sorted(members, key=site_number)
            return [
                TrainingSite(name=name, number=n, patients=sorted(members[name])) for n, name in enumerate(names, 1)
            ]
        case _:
            return []


def assign_patients(
    found: pd.DataFrame, rarest: pd.Series, part: PartitionConfig, rng: np.random.Generator
) -> tuple[list[TrainingSite], list[str]]:
    """Assign patients to sites by the rule of `part.kind`.

    `found` are the findings, `rarest` each patient's rarest label. Returns the sites, and the patients that no specialist site can take.
    """
    num_sites = part.num_sites
    lacks: list[tuple[str, ...]] = [()] * num_sites
    unplaced: list[str] = []
    match part.kind:
        case PartitionKind.iid:
            parts = assign_iid(rarest, num_sites, rng)
        case PartitionKind.dirichlet:
            parts = assign_dirichlet(rarest, num_sites, part.alpha, MIN_PATIENTS, rng)
        case PartitionKind.quantity:
            parts = assign_quantity(rarest, num_sites, part.sigma, MIN_PATIENTS, rng)
        case PartitionKind.shards:
            parts = assign_shards(rarest, num_sites)
        case PartitionKind.specialist:
            parts, lacks, unplaced = assign_specialist(found, num_sites, part.lacking, rng)
        case PartitionKind.scanner | PartitionKind.origin | PartitionKind.explicit:
            raise AssertionError(f"{part.kind} sites are there already")
        case _:
            parts = assign_by_plugin(found, part, rng)
    sites = zip(parts, lacks, strict=True)
    return [
        TrainingSite(name=f"site-{n}", number=n, patients=ids, lacks=without)
        for n, (ids, without) in enumerate(sites, 1)
    ], unplaced


def assign_by_plugin(found: pd.DataFrame, part: PartitionConfig, rng: np.random.Generator) -> list[list[str]]:
    """Assign patients by the function that another package adds under the entry point `fl_rsna.partitioners`.

    The function gets the findings of every patient [N, labels, bool; indexed by sorted patients], the number of sites and a generator, and
    returns the patients of each site. Raises ValueError when a patient is not at exactly one site.
    """
    plugin = find_plugins(PARTITIONERS)[part.kind]
    assigned = plugin.load()(found, part.num_sites, rng)
    parts = [sorted(map(str, patients)) for patients in assigned]
    if len(parts) != part.num_sites or sorted(itertools.chain.from_iterable(parts)) != sorted(map(str, found.index)):
        raise ValueError(
            f"partition.kind: expected each of {len(found)} patients at one of {part.num_sites} sites, got another assignment from "
            f"{part.kind} of {plugin.package} {plugin.version}; ask its authors"
        )
    return parts


def check_enough(patients: int, num_sites: int, group: Group) -> None:
    """Raise ValueError when there are fewer than MIN_PATIENTS patients for each site."""
    needed = num_sites * MIN_PATIENTS
    if patients < needed:
        raise ValueError(
            f"partition.num_sites: expected at least {needed} {group.plural} for {num_sites} sites beside the test site "
            f"({MIN_PATIENTS} a site), got {patients}; lower partition.num_sites or hold out fewer"
        )


def check_sizes(sites: list[TrainingSite], kind: str, group: Group) -> None:
    """Raise ValueError for a site with too few patients to train and validate.

    Only sites whose size is decided by a file, by headers or by lacking labels can be that small.
    """
    for site in sites:
        if len(site.patients) >= MIN_PATIENTS:
            continue
        match kind:
            case PartitionKind.explicit:
                key, advice = "assignment", "give it more or put them elsewhere"
            case PartitionKind.specialist:
                key, advice = "lacking", "lower it or partition.num_sites"
            case _:
                key, advice = "num_sites", "lower it, which joins the smallest groups, or use another partition"
        made_of = f" (made of {site.made_of[0]})" if site.made_of else ""
        raise ValueError(
            f"partition.{key}: expected at least {MIN_PATIENTS} {group.plural} at every site beside the test site's, "
            f"got {len(site.patients)} at {site.name}{made_of}; {advice}"
        )


def site_number(name: str) -> tuple[int, str]:
    """Build the sort key of site names, by which site-2 comes before site-10."""
    suffix = name.rpartition("-")[2]
    return (int(suffix) if suffix.isdecimal() else 0, name)
