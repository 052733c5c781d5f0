"""The test site's patients: a fold, a share, a list, or one of the dealt sites."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fl_rsna.choices import Group
from fl_rsna.cohort.dealing import MIN_PATIENTS, Dealt
from fl_rsna.cohort.folds import greedy_folds
from fl_rsna.cohort.partitioners import take_count, take_stratified


def held_out_patients(
    rarest: pd.Series,
    there: list[Dealt],
    num_sites: int,
    test: float | str | Sequence[str],
    folds: int | None,
    fold: int,
    group: Group,
    seed: int,
    rng: np.random.Generator,
) -> list[str]:
    """Who is set aside before the rest is dealt; nobody when a whole site is left out afterwards."""
    if folds is not None:
        if folds > len(rarest):
            raise ValueError(
                f"partition.folds: expected at most {len(rarest)}, one for each of the {group.plural}, got {folds}; lower it"
            )
        return greedy_folds(rarest, folds, seed)[fold]
    if isinstance(test, str):
        return []
    if isinstance(test, Sequence):
        return sorted(test)
    return _share(rarest, there, num_sites, test, group, rng)


def leave_one_out(dealt: list[Dealt], name: str) -> tuple[list[Dealt], Dealt]:
    """The other sites, under their own names, and the named one."""
    names = [site.name for site in dealt]
    if name not in names:
        known = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        raise ValueError(
            f"partition.test: expected a share, a list of patients, a file of them or one of the sites {known}, got {name!r}"
        )
    if len(names) < 2:
        raise ValueError(
            f"partition.test: expected another site to train on besides {name}, got none; raise partition.num_sites"
        )
    left = dealt[names.index(name)]
    return [site for site in dealt if site is not left], left


def _share(
    rarest: pd.Series, there: list[Dealt], num_sites: int, share: float, group: Group, rng: np.random.Generator
) -> list[str]:
    """A share of the patients, spread over labels, that leaves enough to every site."""
    needed = num_sites * MIN_PATIENTS + 1
    if len(rarest) < needed:
        raise ValueError(
            f"partition.num_sites: expected at least {needed} {group.plural} for {num_sites} sites "
            f"({MIN_PATIENTS} a site and one in the test site), got {len(rarest)}; lower partition.num_sites"
        )
    share = min(share, (len(rarest) - num_sites * MIN_PATIENTS) / len(rarest))
    if not there:
        return take_stratified(rarest, share, rng)[0]
    kept = {site.patients[i] for site in there for i in rng.permutation(len(site.patients))[:MIN_PATIENTS]}
    free = rarest[[patient for patient in rarest.index if patient not in kept]]
    return take_count(free, min(max(1, round(share * len(rarest))), len(free)), rng)[0]
