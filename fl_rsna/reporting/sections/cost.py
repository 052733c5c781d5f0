"""The section on cost: seconds, bytes, and the hours that the rounds would take between real sites."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fl_rsna.reporting.record.cells import Column, Kind, Table, columns, format_cell
from fl_rsna.reporting.record.plotly import Plot, Trace, area_axis, axes, by_rounds, line, plain
from fl_rsna.reporting.record.run_record import RunRecord
from fl_rsna.reporting.record.wording import area_title
from fl_rsna.reporting.sections.curves import rows_by_round
from fl_rsna.reporting.sections.section import Section
from fl_rsna.run_folder.summary import Summary
from fl_rsna.settings.stages import Baseline

SECONDS_AN_HOUR = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What the run took, in seconds, bytes, virtual seconds between real sites and USD; None while it is unfinished.

    `network` holds the links that the virtual seconds assume; `pooled` says that no site trained by itself.
    """

    table: Table
    plots: Sequence[Plot]
    wall_s: float | None
    bytes_down: int | None
    bytes_up: int | None
    virtual_s: float | None
    usd: float | None
    rounds: int | None
    site_failures: int | None
    network: Mapping[str, Any]
    pooled: bool


def build_cost(run: RunRecord) -> Section:
    """Build the section of a run in any state."""
    found: Summary = {} if run.summary is None else run.summary
    body = Cost(
        table=cost_by_site_table(run),
        plots=cost_plots(run),
        wall_s=found.get("wall_s"),
        bytes_down=found.get("bytes_down"),
        bytes_up=found.get("bytes_up"),
        virtual_s=found.get("virtual_s"),
        usd=found.get("usd"),
        rounds=found.get("rounds"),
        site_failures=found.get("site_failures"),
        network=run.config["network"],
        pooled=run.config["baseline"] == Baseline.central,
    )
    return Section(title="Cost", body=body, paper=[cost_table(run, found)])


def cost_by_site_table(run: RunRecord) -> Table:
    """One row a site: how often it took part, what it computed and what travelled."""
    rows: list[list[Any]] = []
    for site, part in run.sites.groupby("site", sort=False):
        trained = part[part["phase"] == "train"]
        done, failed = int(trained["loss"].notna().sum()), int(part["error"].notna().sum())
        moved = [int(part[name].sum()) for name in ("bytes_down", "bytes_up")]
        rows.append([str(site), done, failed, float(trained["seconds"].sum()), *moved])
    heads = columns(site="text", rounds_trained="number", failures="number", training_seconds="seconds")
    return Table(title="Cost by site", columns=[*heads, *columns(received="megabytes", sent="megabytes")], rows=rows)


def cost_table(run: RunRecord, found: Summary) -> Table:
    """One row an amount, for a paper: rounds, sites, seconds, bytes, hours between real sites, failures."""
    played = found.get("rounds", 0 if run.rounds.empty else int(run.rounds["round"].max()))
    seconds = found.get("virtual_s")
    hours = None if seconds is None else seconds / SECONDS_AN_HOUR
    rows = [
        ["rounds", f"{played:,}"],
        ["training sites", f"{run.num_training_sites:,}"],
        ["seconds in all", format_cell(found.get("wall_s"), Kind.seconds)],
        ["sent to the sites", format_cell(found.get("bytes_down"), Kind.megabytes)],
        ["received from the sites", format_cell(found.get("bytes_up"), Kind.megabytes)],
        ["hours between real sites (simulated)", format_cell(hours, Kind.threshold)],
        ["failures of sites", f"{len(run.failures):,}"],
    ]
    return Table(title="Cost", columns=columns(what="text", amount="exact"), rows=[list(row) for row in rows])


def cost_plots(run: RunRecord) -> list[Plot]:
    """Plot the seconds of each round by phase, and the AUROC against what had travelled by then."""
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
        table=Table(
            title="Seconds", columns=heads, rows=rows_by_round(x, *(rounds[c] for _, c in phases), rounds["seconds"])
        ),
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
            rows=rows_by_round(x, moved, areas),
        ),
    )
    return [seconds, traffic] if moved.max() > 0 else [seconds]
