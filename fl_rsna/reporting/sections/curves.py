"""The section of curves by round: loss, AUROC, and each site's AUROC."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fl_rsna.reporting.record.cells import Column, Kind, Table
from fl_rsna.reporting.record.plotly import FEW, Plot, Trace, area_axis, axes, by_rounds, line, lines, plain
from fl_rsna.reporting.record.run_record import RunRecord, areas_in
from fl_rsna.reporting.record.wording import area_title
from fl_rsna.reporting.sections.section import Section
from fl_rsna.run_folder.run_folder import REST
from fl_rsna.settings.stages import Stage

RESTS = (
    ("sites validated", REST[0]),
    ("of these by an earlier answer", REST[1]),
    ("sites that never answered", REST[2]),
)
LOSSES = (("train_loss", "training"), ("validation_loss", "validation, all sites"), ("test_loss", "test site"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """The plots by round; none before the first round is over."""

    plots: Sequence[Plot]


def build_curves(run: RunRecord) -> Section:
    """Build the section of a run in any state."""
    plots = [] if run.rounds.empty else [loss_by_round(run), auroc_by_round(run), sites_by_round(run)]
    return Section(title="Curves", body=Curves(plots=[plot for plot in plots if plot is not None]))


def loss_by_round(run: RunRecord) -> Plot:
    """Plot the log loss of training, of validation over all sites, and of the test site, by round."""
    rounds = run.rounds["round"].tolist()
    data = [line(rounds, _column(run, column), name, i) for i, (column, name) in enumerate(LOSSES)]
    return Plot(
        name="loss",
        title="Log loss by round",
        data=[trace for trace in data if _any(trace)],
        layout=axes("round", "log loss", xaxis=by_rounds(rounds), yaxis={"rangemode": "tozero"}, hovermode="x unified"),
        table=_rounds_table("Log loss", run, [*((name, column) for column, name in LOSSES), *RESTS]),
        note=_rests(run),
    )


def _rests(run: RunRecord) -> str:
    """Say on which sites the validation curve rests; nothing before the first round."""
    rests = run.rounds.loc[run.rounds["round"] > 0, [*REST]].dropna()
    if rests.empty:
        return ""
    sites, carried, unknown = (rests[name] for name in REST)
    most = int((sites + unknown).max())
    if not carried.any() and not unknown.any():
        return f"Validation is of all {most} sites in every round."
    return (
        f"Validation is of the sites that had answered by then, at most {most}: in {int((unknown > 0).sum())} of {len(rests)} rounds some never had. "
        f"A site that did not answer counts with its last answer, in {int((carried > 0).sum())} rounds. Rounds are compared only where "
        "they rest on the same sites."
    )


def auroc_by_round(run: RunRecord) -> Plot:
    """Plot the test site's AUROC of every label by round, and the validation's of what the run is judged by."""
    rounds, labels = run.rounds["round"].tolist(), list(dict.fromkeys([*run.labels, run.primary_label]))
    data = [
        line(rounds, _column(run, f"test_auroc_{label}"), label, i, width=2.8 if label == run.primary_label else 1.3)
        for i, label in enumerate(labels)
    ]
    quoted = f"validation_auroc_{run.primary_label}"
    data.append(line(rounds, _column(run, quoted), f"{run.primary_label}, validation", 6))
    names = [*((label, f"test_auroc_{label}") for label in labels), (f"{run.primary_label}, validation", quoted)]
    return Plot(
        name="auroc",
        title="AUROC on the test site by round",
        data=[trace for trace in data if _any(trace)],
        layout=axes("round", "AUROC", xaxis=by_rounds(rounds), yaxis=area_axis(data)),
        table=_rounds_table("AUROC", run, names),
        note=f"Round 0 is {_start(run.config)}. The test site is scored for this curve and never for a choice.",
    )


def _start(config: Mapping[str, Any]) -> str:
    """Say what a run's rounds begin with."""
    match config["stage"]:
        case Stage.sequence:
            return "the slice model, to which the head adds nothing yet"
        case Stage.stacking:
            return "the mean of the slice models"
        case _:
            return "the model it began with" if config["start"] else "the untrained start"


def sites_by_round(run: RunRecord) -> Plot | None:
    """Plot each site's AUROC on its validation part by round, of what the run is judged by; None where no site has one.

    Many sites are faint lines with their median, and the reader chooses one by name.
    """
    by_site = _site_areas(run)
    if not by_site:
        return None
    rounds = sorted({round_ for areas in by_site.values() for round_ in areas})
    rows = [[round_, *(areas.get(round_) for areas in by_site.values())] for round_ in rounds]
    data = lines(by_site, rounds, "site")
    heads = [Column(name="round", kind=Kind.number), *(Column(name=site) for site in by_site)]
    many = len(by_site) > FEW
    return Plot(
        name="sites_by_round",
        title=f"{area_title(run.primary_label)} on each site's validation part by round",
        data=data,
        layout=axes("round", "AUROC", xaxis=by_rounds(rounds), yaxis=area_axis(data)),
        table=Table(title="AUROC by site", columns=heads, rows=rows),
        note="A site whose validation part lacks positives or negatives has no AUROC and is not drawn.",
        choices=["", *by_site] if many else (),
        choice_name="Follow a site" if many else "",
        wide=True,
    )


def _site_areas(run: RunRecord) -> dict[str, dict[int, float]]:
    """The AUROC that the run is judged by, by site and round, where it is defined."""
    told = run.sites[(run.sites["phase"] == "validation") & run.sites["aurocs"].notna()]
    found: dict[str, dict[int, float]] = {}
    for site, round_, text in zip(told["site"], told["round"], told["aurocs"], strict=True):
        area = areas_in(text).get(f"auroc_{run.primary_label}")
        if area is not None:
            found.setdefault(str(site), {})[int(round_)] = area
    return found


def _rounds_table(title: str, run: RunRecord, names: list[tuple[str, str]]) -> Table:
    heads = [Column(name="round", kind=Kind.number), *(Column(name=name) for name, _ in names)]
    return Table(
        title=title,
        columns=heads,
        rows=rows_by_round(run.rounds["round"], *(run.rounds[column] for _, column in names)),
    )


def rows_by_round(*found: Iterable[Any]) -> list[list[Any]]:
    """Rows of a table from its columns, of which the first holds the rounds; None for what is not there."""
    lists = [plain(values) for values in found]
    return [[int(row[0]), *row[1:]] for row in zip(*lists, strict=True)]


def _column(run: RunRecord, name: str) -> Iterable[Any]:
    return list(run.rounds[name])


def _any(trace: Trace) -> bool:
    return any(value is not None for value in trace["y"])
