"""Who is where: the held-out test site, the training sites, and each site's own validation patients."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from fl_rsna.cohort.partitioners import PartitionKind, deal_dirichlet, deal_iid, rarest_labels, take_stratified
from fl_rsna.task import Task

TEST_SITE = "test-site"
MIN_PATIENTS = 2  # of a site: one to train on, one to validate on


@dataclass(frozen=True, slots=True, kw_only=True)
class SitePatients:
    """One site's patients; disjoint from every other site's. The test site has only `test`."""

    name: str
    train: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        return self.train + self.validation + self.test


def split_patients(
    index: pd.DataFrame,
    task: Task,
    *,
    kind: PartitionKind,
    num_sites: int,
    alpha: float,
    test: float,
    validation: float,
    seed: int,
) -> list[SitePatients]:
    """Deal every patient of `index` to exactly one place; the test site comes last.

    The result depends on the set of patients and their labels, not on the order of rows. Raises ValueError when
    the patients do not suffice.
    """
    rarest = rarest_labels(index, task)
    needed = num_sites * MIN_PATIENTS + 1
    if len(rarest) < needed:
        raise ValueError(
            f"partition.num_sites: expected at least {needed} patients for {num_sites} sites "
            f"({MIN_PATIENTS} a site and one in the test site), got {len(rarest)}; lower partition.num_sites"
        )
    rng = np.random.default_rng([seed, 0])
    share = min(test, (len(rarest) - num_sites * MIN_PATIENTS) / len(rarest))
    test_patients, rest = take_stratified(rarest, share, rng)
    match kind:
        case PartitionKind.iid:
            dealt = deal_iid(rarest[rest], num_sites, rng)
        case PartitionKind.dirichlet:
            dealt = deal_dirichlet(rarest[rest], num_sites, alpha, MIN_PATIENTS, rng)
    sites = [
        _with_validation(f"site-{n}", rarest[patients], validation, [seed, n]) for n, patients in enumerate(dealt, 1)
    ]
    return [*sites, SitePatients(name=TEST_SITE, test=tuple(test_patients))]


def overlaps(sites: list[SitePatients]) -> dict[str, int]:
    """Patients shared by any two parts of the cohort (site/train, site/validation, test), by pair; empty is the proof."""
    parts = {
        f"{site.name}/{part}": set(getattr(site, part)) for site in sites for part in ("train", "validation", "test")
    }
    names = sorted(parts)
    pairs = ((a, b, len(parts[a] & parts[b])) for i, a in enumerate(names) for b in names[i + 1 :])
    return {f"{a} and {b}": shared for a, b, shared in pairs if shared}


def _with_validation(name: str, rarest: pd.Series, share: float, seed: list[int]) -> SitePatients:
    validation, train = take_stratified(rarest, share, np.random.default_rng(seed))
    return SitePatients(name=name, train=tuple(train), validation=tuple(validation))
