"""Plots of what changed from round to round: loss, AUROC, each site's AUROC, and what the rounds took."""

from collections.abc import Iterable, Mapping
from typing import Any

from fl_rsna.reporting.record.cells import Column, Kind, Table, columns
from fl_rsna.reporting.record.plotly import FEW, Plot, Trace, area_axis, axes, by_rounds, line, lines, plain
from fl_rsna.reporting.record.run_record import RunRecord, areas_in
from fl_rsna.reporting.record.wording import area_title
from fl_rsna.run_folder.run_folder import REST
from fl_rsna.settings.stages import Stage

RESTS = (
    ("sites validated", REST[0]),
    ("of these by an earlier answer", REST[1]),
    ("sites that never answered", REST[2]),
)
LOSSES = (("train_loss", "training"), ("validation_loss", "validation, all sites"), ("test_loss", "test site"))


def round_plots(run: RunRecord) -> list[Plot]:
    """The plots of a run that has at least one round."""
    if run.rounds.empty:
        return []
    plots = [loss_by_round(run), auroc_by_round(run), sites_by_round(run)]
    return [plot for plot in plots if plot is not None]


def loss_by_round(run: RunRecord) -> Plot:
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
    """On which sites the validation curve rests; of a run that did not write it down nothing."""
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
    """What a run's rounds begin with."""
    match config.get("stage", Stage.slice):
        case Stage.sequence:
            return "the slice model, to which the head adds nothing yet"
        case Stage.stacking:
            return "the mean of the slice models"
        case _:
            return "the model it began with" if config.get("start") else "the untrained start"


def sites_by_round(run: RunRecord) -> Plot | None:
    """Each site's AUROC that the run is judged by on its validation part: all faint, with their median; one at a time chosen by name."""
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


def cost_plots(run: RunRecord) -> list[Plot]:
    """Seconds of each round by phase, and AUROC against what had travelled by then."""
    rounds = run.rounds[run.rounds["round"] > 0]
    if rounds.empty:
        return []
    x = rounds["round"].tolist()
    phases = [(name, f"{name}_s") for name in ("train", "validation", "test") if f"{name}_s" in rounds]
    bars: list[Trace] = [
        {"type": "bar", "x": x, "y": plain(rounds[column]), "name": name, "marker": {"color": f"--c{i}"}}
        for i, (name, column) in enumerate(phases)
    ]
    heads = [Column(name="round", kind=Kind.number)]
    heads += [Column(name=name, kind=Kind.seconds) for name in (*(name for name, _ in phases), "whole round")]
    seconds = Plot(
        name="seconds",
        title="Seconds of each round",
        data=bars,
        layout=axes("round", "seconds", xaxis=by_rounds(x), barmode="stack", hovermode="x unified"),
        table=Table(title="Seconds", columns=heads, rows=_rows(x, *(rounds[c] for _, c in phases), rounds["seconds"])),
    )
    moved = (rounds["bytes_down"].fillna(0) + rounds["bytes_up"].fillna(0)).cumsum()
    areas = rounds[f"test_auroc_{run.primary_label}"]
    against = line(moved / 1e6, areas, run.primary_label, 0, text=[f"round {n}" for n in x], showlegend=False)
    traffic = Plot(
        name="traffic",
        title=f"{area_title(run.primary_label)} against traffic",
        data=[against],
        layout=axes("MB to and from all sites", "AUROC", yaxis=area_axis([against]), xaxis={"rangemode": "tozero"}),
        table=Table(
            title="Traffic",
            columns=columns(round="number", traffic_so_far="megabytes", AUROC="score"),
            rows=_rows(x, moved, areas),
        ),
    )
    return [seconds, traffic] if moved.max() > 0 else [seconds]


def _site_areas(run: RunRecord) -> dict[str, dict[int, float]]:
    """AUROC that the run is judged by: site -> round -> value, where it is defined."""
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
        title=title, columns=heads, rows=_rows(run.rounds["round"], *(run.rounds[column] for _, column in names))
    )


def _rows(*found: Iterable[Any]) -> list[list[Any]]:
    lists = [plain(values) for values in found]
    return [[int(row[0]), *row[1:]] for row in zip(*lists, strict=True)]


def _column(run: RunRecord, name: str) -> Iterable[Any]:
    return list(run.rounds[name])


def _any(trace: Trace) -> bool:
    return any(value is not None for value in trace["y"])
