"""Measure how much sites differ: label prevalence, Jensen-Shannon distance of labels, Gini coefficient of sizes.

Two distributions are compared. `patients_by_rarest_label` is the share of a site's patients whose rarest positive label is each label, or
none. The rarest label is the one of fewest patients over all sites. A patient counts once, so the shares sum to 1 even where patients have
several labels. Partitioners go by it. `slices_by_label_set` is the share of a site's slices that have each set of labels; training sees
these. Slices without a patient id or with an unknown label are left out of both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.spatial.distance import jensenshannon

from fl_rsna.cohort.audit.slices import Codes, Kind, Slices, places_of

PATIENTS, SLICES = "patients_by_rarest_label", "slices_by_label_set"
SHUFFLES = 20  # random assignments from which `by_chance` is computed
TEST_PARTS = ("test", "testing", "holdout", "held-out", "held_out")

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The number with a label, the number whose label is known, and the share; None where none is known."""

    count: int
    known: int
    share: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prevalence:
    """The size of a place and the shares of each label. A patient has a label if one of its slices at that place has it."""

    patients: int
    slices: int
    of_slices: dict[str, Share]
    of_patients: dict[str, Share]


@dataclass(frozen=True, slots=True, kw_only=True)
class Distances:
    """Jensen-Shannon distances between sites, from 0 (same labels) to 1 (no label in common); None with fewer than two sites.

    `by_chance` is the median of `mean` over random assignments of the same patients to sites of the same sizes, since small sites differ even
    without heterogeneity. `to_pool` is the distance of each place from all training sites together.
    """

    mean: float | None
    largest: float | None
    farthest: tuple[str, str] | None
    by_chance: float | None
    to_pool: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heterogeneity:
    """Differences between the places of one column. Places with only test slices count in `to_pool` alone."""

    between: str
    held_out: tuple[str, ...]
    gini_patients: float
    gini_slices: float
    distances: dict[str, Distances]  # by distribution; empty without labels


def prevalence(slices: Slices, by: Sequence[str]) -> dict[str, Prevalence]:
    """Compute sizes and label prevalence of places; a place is a combination of values in the columns `by`."""
    place, names = places_of(slices.places[list(by)])
    at_place = slices.labels.groupby([place, slices.ids[Kind.patient]]).max().groupby(level=0)
    sizes = np.bincount(place[place >= 0], minlength=len(names))
    patients = at_place.size().reindex(range(len(names)), fill_value=0)
    of_slices, of_patients = _shares(slices.labels.groupby(place), len(names)), _shares(at_place, len(names))
    return {
        name: Prevalence(
            patients=int(patients[at]), slices=int(sizes[at]), of_slices=of_slices[at], of_patients=of_patients[at]
        )
        for at, name in enumerate(names)
    }


def heterogeneity(slices: Slices) -> Heterogeneity:
    """Compare the sites of a table or, where it has no sites, its parts."""
    between = slices.site or slices.part
    assert between is not None, "a table has a site or a part"
    place, names = places_of(slices.places[[between]])
    held_out = _find_test_sites(slices, place, len(names))
    patient = slices.ids[Kind.patient]
    pairs = pd.DataFrame({"place": place, "patient": patient.to_numpy()}).dropna().drop_duplicates()
    sizes = [
        np.bincount(places[places >= 0], minlength=len(names))[~held_out]
        for places in (pairs["place"].to_numpy(), place)
    ]
    known = patient.notna().to_numpy() & slices.labels.notna().all(axis=1).to_numpy() & (place >= 0)
    distances = {}
    if len(slices.labels.columns) and known.any():
        labels = slices.labels[known]
        patients = labels.groupby([place[known], patient[known]])
        site = patients.max().index.get_level_values(0).to_numpy()
        for name, table in _distributions(labels, patients).items():
            distances[name] = _distances(table, site, names, held_out)
    return Heterogeneity(
        between=between,
        held_out=tuple(name for name, out in zip(names, held_out, strict=True) if out),
        gini_patients=gini(sizes[0]),
        gini_slices=gini(sizes[1]),
        distances=distances,
    )


def gini(sizes: Sequence[float] | NDArray[np.generic]) -> float:
    """Compute the Gini coefficient of n sizes: 0 when all are equal, (n - 1) / n when one has everything, 0 when all are 0."""
    ordered = np.sort(np.asarray(sizes, np.float64))
    if ordered.sum() == 0:
        return 0.0
    ranks = np.arange(1, len(ordered) + 1)
    return float(((2 * ranks - len(ordered) - 1) * ordered).sum() / (len(ordered) * ordered.sum()))


def distance(p: Floats, q: Floats) -> Floats:
    """Compute the Jensen-Shannon distance, base 2, between counts or shares along the last axis (Endres and Schindelin 2003)."""
    with np.errstate(invalid="ignore"):  # by rounding the divergence of equal rows can be slightly below 0
        return np.asarray(np.nan_to_num(jensenshannon(p, q, base=2, axis=-1)))


def rarest(positive: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Find each patient's rarest positive label.

    `positive` is [patients, labels]. Returns column numbers [patients]; the number of labels for a patient without any.
    """
    order = np.argsort(positive.sum(axis=0), kind="stable")
    ordered = np.column_stack([positive[:, order], np.ones(len(positive), bool)])
    return np.asarray(np.append(order, len(order))[ordered.argmax(axis=1)])


def _shares(grouped: Any, num_places: int) -> list[dict[str, Share]]:
    """Count the positives of each label, place by place, in a table grouped by place."""
    counts, known = (table.reindex(range(num_places), fill_value=0) for table in (grouped.sum(), grouped.count()))
    return [
        {
            label: Share(count=int(count), known=int(of), share=float(count / of) if of else None)
            for label, count, of in zip(counts, counts.loc[at], known.loc[at], strict=True)
        }
        for at in range(num_places)
    ]


def _find_test_sites(slices: Slices, place: Codes, num_places: int) -> NDArray[np.bool_]:
    """Find the sites with only test slices: [num_places] booleans.

    All are False where every site would be one, or where parts are compared instead of sites.
    """
    if slices.site is None or slices.part is None:
        return np.zeros(num_places, bool)
    trains = ~slices.places[slices.part].str.lower().isin(TEST_PARTS).to_numpy(bool)
    held_out = np.bincount(place[trains & (place >= 0)], minlength=num_places) == 0
    return np.asarray(held_out & ~held_out.all())


def _distributions(labels: pd.DataFrame, patients: Any) -> dict[str, csr_array]:
    """Count the two distributions of this module as [patients, categories]; `patients` groups the rows of `labels`."""
    positive = patients.max().to_numpy() == 1
    owner, label_set = patients.ngroup().to_numpy(), labels.groupby(list(labels)).ngroup().to_numpy()
    everyone = np.arange(len(positive))
    return {
        PATIENTS: coo_array((np.ones(len(everyone)), (everyone, rarest(positive)))).tocsr(),
        SLICES: coo_array((np.ones(len(owner)), (owner, label_set))).tocsr(),
    }


def _distances(table: csr_array, site: Codes, names: tuple[str, ...], held_out: NDArray[np.bool_]) -> Distances:
    """Compute the distances between sites from counts `table` [patients, categories] and the `site` [patients] of each patient."""
    counts = _by_site(table, site, len(names))
    filled = counts.sum(axis=1) > 0
    training = np.flatnonzero(filled & ~held_out)
    pool = counts[training].sum(axis=0)
    to_pool = {names[at]: float(distance(counts[at], pool)) for at in np.flatnonzero(filled)} if pool.any() else {}
    if len(training) < 2:
        return Distances(mean=None, largest=None, farthest=None, by_chance=None, to_pool=to_pool)
    between = _pairwise(counts[training])
    a, b = (training[rows[between.argmax()]] for rows in np.triu_indices(len(training), k=1))
    assigned, rng = np.isin(site, training), np.random.default_rng(0)
    shuffled = [
        _by_site(table[assigned], rng.permutation(site[assigned]), len(names))[training] for _ in range(SHUFFLES)
    ]
    return Distances(
        mean=float(between.mean()),
        largest=float(between.max()),
        farthest=(names[a], names[b]),
        by_chance=float(np.median([_pairwise(counts).mean() for counts in shuffled])),
        to_pool=to_pool,
    )


def _by_site(table: csr_array, site: Codes, num_sites: int) -> Floats:
    """Add up counts [patients, categories] to counts [sites, categories]."""
    member = coo_array((np.ones(len(site)), (site, np.arange(len(site)))), shape=(num_sites, len(site))).tocsr()
    return np.asarray((member @ table).toarray())


def _pairwise(counts: Floats) -> Floats:
    """Compute the distances of all pairs of rows, in the order of numpy's triu_indices."""
    return np.concatenate([distance(counts[at], counts[at + 1 :]) for at in range(len(counts) - 1)])
