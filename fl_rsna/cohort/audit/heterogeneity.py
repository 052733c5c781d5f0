"""How unlike sites are: label prevalence, Jensen-Shannon distance of their labels, Gini coefficient of their sizes.

Two distributions are compared. `patients_by_rarest_label`: the share of a site's patients whose rarest positive label
is each label, or none; rarest is by number of patients over all sites, and a patient counts once, so with several
labels at a time the shares still sum to 1; it is what partition deals by. `slices_by_label_set`: the share of a site's
slices that carry each set of labels; it is what training sees. Slices without a patient id or with an unknown label
are in neither.
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
SHUFFLES = 20
TEST_PARTS = ("test", "testing", "holdout", "held-out", "held_out")

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How many have a label, of how many whose label is known."""

    count: int
    known: int
    share: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prevalence:
    """One place's size and how common each label is there; a patient has a label that one of its slices there has."""

    patients: int
    slices: int
    of_slices: dict[str, Share]
    of_patients: dict[str, Share]


@dataclass(frozen=True, slots=True, kw_only=True)
class Distances:
    """Jensen-Shannon distances, 0 (same labels) to 1 (no label in common); None with fewer than two sites.

    `by_chance` is the median `mean` when the same patients are dealt to sites of the same sizes at random: small sites
    differ without any heterogeneity. `to_pool` is from each place to all training sites together.
    """

    mean: float | None
    largest: float | None
    farthest: tuple[str, str] | None
    by_chance: float | None
    to_pool: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heterogeneity:
    """How unlike the places of one column are; those of only test slices are kept out of all but `to_pool`."""

    between: str
    held_out: tuple[str, ...]
    gini_patients: float
    gini_slices: float
    distances: dict[str, Distances]  # by distribution; empty without labels


def prevalence(slices: Slices, by: Sequence[str]) -> dict[str, Prevalence]:
    """Sizes and label prevalence of the places that the columns `by` make."""
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
    """Compare the sites of a table or, where it has none, its parts."""
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
    """Gini coefficient of sizes: 0 when all are equal, (n - 1) / n when one of n has everything; 0 for nothing at all."""
    ordered = np.sort(np.asarray(sizes, np.float64))
    if ordered.sum() == 0:
        return 0.0
    ranks = np.arange(1, len(ordered) + 1)
    return float(((2 * ranks - len(ordered) - 1) * ordered).sum() / (len(ordered) * ordered.sum()))


def distance(p: Floats, q: Floats) -> Floats:
    """Jensen-Shannon distance, base 2, between counts or shares along the last axis (Endres and Schindelin 2003)."""
    with np.errstate(invalid="ignore"):  # rounding can leave the divergence of equals a hair below 0
        return np.asarray(np.nan_to_num(jensenshannon(p, q, base=2, axis=-1)))


def rarest(positive: NDArray[np.bool_]) -> NDArray[np.int64]:
    """positive [patients, labels] -> each patient's rarest label as a column number; the number of labels for none."""
    order = np.argsort(positive.sum(axis=0), kind="stable")
    ordered = np.column_stack([positive[:, order], np.ones(len(positive), bool)])
    return np.asarray(np.append(order, len(order))[ordered.argmax(axis=1)])


def _shares(grouped: Any, num_places: int) -> list[dict[str, Share]]:
    """Positives of each label, place by place, in a table grouped by place."""
    counts, known = (table.reindex(range(num_places), fill_value=0) for table in (grouped.sum(), grouped.count()))
    return [
        {
            label: Share(count=int(count), known=int(of), share=float(count / of) if of else None)
            for label, count, of in zip(counts, counts.loc[at], known.loc[at], strict=True)
        }
        for at in range(num_places)
    ]


def _find_test_sites(slices: Slices, place: Codes, num_places: int) -> NDArray[np.bool_]:
    """Which sites hold only test slices; none where that would be all, or where parts themselves are compared."""
    if slices.site is None or slices.part is None:
        return np.zeros(num_places, bool)
    trains = ~slices.places[slices.part].str.lower().isin(TEST_PARTS).to_numpy(bool)
    held_out = np.bincount(place[trains & (place >= 0)], minlength=num_places) == 0
    return np.asarray(held_out & ~held_out.all())


def _distributions(labels: pd.DataFrame, patients: Any) -> dict[str, csr_array]:
    """Counts [patients, categories] of the module's two distributions; `patients` groups the rows of `labels`."""
    positive = patients.max().to_numpy() == 1
    owner, label_set = patients.ngroup().to_numpy(), labels.groupby(list(labels)).ngroup().to_numpy()
    everyone = np.arange(len(positive))
    return {
        PATIENTS: coo_array((np.ones(len(everyone)), (everyone, rarest(positive)))).tocsr(),
        SLICES: coo_array((np.ones(len(owner)), (owner, label_set))).tocsr(),
    }


def _distances(table: csr_array, site: Codes, names: tuple[str, ...], held_out: NDArray[np.bool_]) -> Distances:
    """Distances between the sites of patients; table [patients, categories], site [patients]."""
    counts = _by_site(table, site, len(names))
    filled = counts.sum(axis=1) > 0
    training = np.flatnonzero(filled & ~held_out)
    pool = counts[training].sum(axis=0)
    to_pool = {names[at]: float(distance(counts[at], pool)) for at in np.flatnonzero(filled)} if pool.any() else {}
    if len(training) < 2:
        return Distances(mean=None, largest=None, farthest=None, by_chance=None, to_pool=to_pool)
    between = _pairwise(counts[training])
    a, b = (training[rows[between.argmax()]] for rows in np.triu_indices(len(training), k=1))
    dealt, rng = np.isin(site, training), np.random.default_rng(0)
    shuffled = [_by_site(table[dealt], rng.permutation(site[dealt]), len(names))[training] for _ in range(SHUFFLES)]
    return Distances(
        mean=float(between.mean()),
        largest=float(between.max()),
        farthest=(names[a], names[b]),
        by_chance=float(np.median([_pairwise(counts).mean() for counts in shuffled])),
        to_pool=to_pool,
    )


def _by_site(table: csr_array, site: Codes, num_sites: int) -> Floats:
    """Counts [sites, categories] from counts [patients, categories]."""
    member = coo_array((np.ones(len(site)), (site, np.arange(len(site)))), shape=(num_sites, len(site))).tocsr()
    return np.asarray((member @ table).toarray())


def _pairwise(counts: Floats) -> Floats:
    """Distances of all pairs of rows, in the order of numpy's triu_indices."""
    return np.concatenate([distance(counts[at], counts[at + 1 :]) for at in range(len(counts) - 1)])
