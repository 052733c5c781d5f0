"""An audit as a user reads it: sites, heterogeneity, what is shared, and a verdict as the last line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from fl_rsna.cohort.audit import Sharing, Verdict, kind_in_words
from fl_rsna.cohort.heterogeneity import PATIENTS, SLICES, Distances, Heterogeneity, Prevalence, Share
from fl_rsna.cohort.on_disk import Difference
from fl_rsna.cohort.places import Kind
from fl_rsna.reporting.console import console

MAX_PLACES, MAX_PAIRS, MAX_LINES = 40, 10, 10  # rows shown; the JSON file has all
EXAMPLES = 3  # ids named: the user's own, needed to find the error
MEANINGS = {
    PATIENTS: "patients by the rarest label each has, or none",
    SLICES: "{pictures} by the set of labels each has",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Everything an audit found, as it is printed and, by asdict, written as JSON."""

    of: str
    pictures: str  # what its rows are: slices, images
    read: dict[str, str]  # how the cohort or table was read
    sharing: Sharing
    prevalence: dict[str, dict[str, Prevalence]]  # by place columns: sites first, then all columns together
    heterogeneity: Heterogeneity
    differences: tuple[Difference, ...]
    verdict: Verdict


def say_audit(audit: Audit) -> None:
    """Print an audit; the last line is the verdict."""
    totals = audit.sharing.totals
    counted = ", ".join(f"{count} {kind_in_words(kind, count)}" for kind, count in totals.items())
    _say(f"audit of {audit.of}: {audit.sharing.slices} {audit.pictures}, {counted}")
    for what, how in audit.read.items():
        _say(f"{what}: {how}")
    _say_gaps(audit.sharing, audit.pictures)
    _say_places(audit.prevalence, audit.heterogeneity, audit.pictures)
    _say_heterogeneity(audit.heterogeneity, audit.pictures)
    _say_shared(audit.sharing)
    for difference in audit.differences[:MAX_LINES]:
        example = f" (first: {difference.first})" if difference.first else ""
        _say(f"{difference.site}: {difference.what}: {difference.found}, expected {difference.expected}{example}")
    _say_more(len(audit.differences) - MAX_LINES, "differences from cohort.json")
    _say(audit.verdict.sentence)


def _say(line: str) -> None:
    console.print(escape(line), soft_wrap=True)


def _say_more(left_out: int, what: str) -> None:
    if left_out > 0:
        _say(f"... and {left_out} more {what}; out=<file>.json has all")


def _say_gaps(sharing: Sharing, pictures: str) -> None:
    """What could not be compared."""
    for kind, count in sharing.missing.items():
        if count:
            _say(f"{count} of {sharing.slices} {pictures} have no {kind} id")
    for view in sharing.views:
        if view.unplaced:
            _say(f"{view.unplaced} of {sharing.slices} {pictures} have no {view.by}: they count for no place of it")
    for kind in sharing.numbered:
        _say(f"{kind} ids repeat from patient to patient: read as numbers inside a patient")
    if Kind.pixels in sharing.totals and Kind.blank not in sharing.totals:
        _say("constant images cannot be told apart here: some identical pixels may be nothing but air")


def _say_places(prevalence: Mapping[str, Mapping[str, Prevalence]], found: Heterogeneity, pictures: str) -> None:
    """Sizes, each site's distances to the pool, and label prevalence: sites first, then their parts."""
    places = [(name, place) for by in prevalence.values() for name, place in by.items()]
    labels = list(places[0][1].of_slices) if places else []
    sizes = _table(
        "", ["place"], ["patients", pictures, *(f"to pool, {_counted(kind, pictures)}" for kind in found.distances)]
    )
    shares = _table(f"prevalence, % of {pictures} / % of patients", ["place"], labels)
    for name, place in places[:MAX_PLACES]:
        pool = [_number(distances.to_pool.get(name)) for distances in found.distances.values()]
        sizes.add_row(escape(name), str(place.patients), str(place.slices), *pool)
        positive = [f"{_percent(place.of_slices[label])} / {_percent(place.of_patients[label])}" for label in labels]
        shares.add_row(escape(name), *positive)
    console.print(sizes)
    if labels:
        console.print(shares)
    _say_more(len(places) - MAX_PLACES, "places")


def _table(title: str, names: Sequence[str], numbers: Sequence[str]) -> Table:
    """An empty table that stays readable in a narrow terminal."""
    table = Table(
        title=escape(title) or None, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False
    )
    for name in names:
        table.add_column(escape(name), no_wrap=True)
    for name in numbers:
        table.add_column(escape(name), justify="right", overflow="fold")
    return table


def _percent(share: Share) -> str:
    """At most four characters: 0, 0.4, 9.9, 23, 100."""
    if share.share is None:
        return "-"
    return "0" if not share.count else f"{100 * share.share:.{0 if share.share >= 0.0995 else 1}f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _say_heterogeneity(found: Heterogeneity, pictures: str) -> None:
    besides = f", without {', '.join(found.held_out)}" if found.held_out else ""
    _say(
        f"sizes by {found.between}{besides}: Gini {found.gini_patients:.3f} over patients, {found.gini_slices:.3f} over {pictures} "
        "(0 equal, towards 1 all in one)"
    )
    for name, distances in found.distances.items():
        if distances.mean is not None:
            _say(f"label shift by {found.between}, {MEANINGS[name].format(pictures=pictures)}: {_distances(distances)}")
    if any(distances.mean is not None for distances in found.distances.values()):
        _say(
            "label shift is Jensen-Shannon distance, base 2: 0 the same labels, 1 none in common; by chance: the same patients dealt at random"
        )


def _counted(kind: str, pictures: str) -> str:
    """What a distribution of cohort.heterogeneity counts."""
    what = kind.partition("_")[0]
    return pictures if what == "slices" else what


def _distances(found: Distances) -> str:
    assert found.farthest is not None, "two sites have a farthest pair"
    return (
        f"mean {_number(found.mean)} ({_number(found.by_chance)} by chance), "
        f"largest {_number(found.largest)} ({' and '.join(found.farthest)})"
    )


def _say_shared(sharing: Sharing) -> None:
    """Counts by view, the pairs that share most, and the first examples."""
    finest, kinds = sharing.views[0], list(sharing.totals)
    if not any(view.shared[kind] for view in sharing.views for kind in kinds):
        _say(f"shared between places: nothing ({', '.join(kind_in_words(kind) for kind in kinds)} compared)")
        return
    table = _table("shared between places", ["places"], [kind_in_words(kind) for kind in kinds])
    for view in sharing.views:
        counts = [str(view.shared[kind]) for kind in kinds]
        table.add_row(escape(f"two of {len(view.places)} by {view.by}"), *counts)
    for pair in finest.pairs[:MAX_PAIRS]:
        counts = [str(pair.shared[kind]) for kind in kinds]
        table.add_row(escape(" and ".join(pair.places)), *counts)
    console.print(table)
    _say_more(len(finest.pairs) - MAX_PAIRS, "pairs of places that share something")
    first = [f"{patient} ({_few(places)})" for patient, places in list(sharing.patients.items())[:EXAMPLES]]
    if first:
        _say(f"shared patients, {len(first)} of {len(sharing.patients)}: {'; '.join(first)}")
    for kind, aliases in sharing.aliases.items():
        for alias in aliases.of[:EXAMPLES]:
            who, shared = _few(alias.patients), f"{alias.shared} {kind_in_words(kind, alias.shared)}"
            _say(f"POSSIBLY ONE PATIENT UNDER SEVERAL IDS: {who} share {shared} in {_few(alias.places)}")
        _say_more(len(aliases.of) - EXAMPLES, f"groups of patients that share {kind_in_words(kind)}")


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - EXAMPLES} more" if len(names) > EXAMPLES else ""
    return ", ".join(names[:EXAMPLES]) + more
