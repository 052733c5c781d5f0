"""Find the settings that differ between runs, and draw the runs' scores over them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

from fl_rsna.reporting.record.cells import Column, Kind, Table
from fl_rsna.reporting.record.plotly import Plot, Trace, axes, line, points
from fl_rsna.reporting.sections.provenance import flat

SEEDS = ("seed", "partition.seed", "demo.seed")  # runs that differ in these only repeat each other
PART = "part"  # the column that tells the runs of one job apart
ELSEWHERE = (
    "run.",
    "paths.",
    "engine.",
    "prepare.",
    "resume",
    "train.device",
    "data.dicom",
    "data.labels",
    "partition.name",
)
LOG_SPAN = 9.99  # an axis is logarithmic where its greatest value is at least so many times its least


class ErrorBars(TypedDict):
    """Error bars of a trace, as Plotly takes them; `array` goes up from each value and `arrayminus` down."""

    type: str
    symmetric: bool
    array: list[float]
    arrayminus: list[float]
    color: str
    thickness: float
    width: int


class Axis(TypedDict, total=False):
    """An axis of a layout, as Plotly takes it."""

    type: str
    tickvals: list[float]
    ticktext: list[str]


def diff_configs(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Find the settings that are not the same in all runs, each with its value in every run."""
    settings = [flat(config) for config in configs]
    names = dict.fromkeys(name for of_run in settings for name in of_run)
    found = {name: [of_run.get(name) for of_run in settings] for name in names if not name.startswith(ELSEWHERE)}
    return {name: values for name, values in found.items() if len({str(value) for value in values}) > 1}


def select_plot_settings(settings: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Select the settings to draw over, of those that differ: no seeds, and none that another one decides."""
    found: dict[str, list[Any]] = {}
    for name, values in settings.items():
        if name not in SEEDS and not any(_decides(before, values) for before in found.values()):
            found = {other: held for other, held in found.items() if not _decides(values, held)} | {name: values}
    return found


def of_sweep(
    of_jobs: Sequence[Mapping[str, str]], parts: Sequence[str], configs: Sequence[Mapping[str, Any]]
) -> dict[str, list[Any]]:
    """Collect the settings that a sweep varied and the other settings that differ, each with its value in every run.

    Settings that follow from these are left out. `parts` says which run of its job each is, such as the federated one of
    a gap; "" where it is the only one.
    """
    varied = {key: [of_run[key] for of_run in of_jobs] for key in of_jobs[0]}
    if any(parts):
        varied[PART] = list(parts)
    together = [str((sorted(of_run.items()), part)) for of_run, part in zip(of_jobs, parts, strict=True)]
    others = {name: values for name, values in diff_configs(configs).items() if not _decides(together, values)}
    return {**varied, **{name: values for name, values in others.items() if name not in varied}}


def select_drawn_settings(settings: Mapping[str, list[Any]], varied: Iterable[str]) -> list[str]:
    """Select the settings of a sweep that have several values; seeds only where nothing else has."""
    several = [key for key in varied if len({str(value) for value in settings[key]}) > 1]
    return [key for key in several if key not in SEEDS] or several


def curves_over(
    settings: Mapping[str, list[Any]],
    scores: Mapping[str, list[Any]],
    names: Sequence[str],
    over: Sequence[str] | None = None,
) -> list[Plot]:
    """Draw a plot for each swept setting: every run is a point, and a line joins the means of runs that differ in the seed only.

    `scores` has by name a number or an estimate of each run, None where it has none; runs without any are left out. `over`
    names the settings that a sweep varied; with None the plots are over the settings that are not decided by others.
    """
    there = [run for run in range(len(names)) if any(values[run] is not None for values in scores.values())]
    settings = {name: _numbers(values) for name, values in settings.items()}
    settings, scores = (
        {name: [of[run] for run in there] for name, of in table.items()} for table in (settings, scores)
    )
    names = [names[run] for run in there]
    drawn = select_plot_settings(settings)
    if over is not None:
        drawn = {name: values for name, values in settings.items() if name not in SEEDS}
        over = [name for name in over if len({str(value) for value in settings[name]}) > 1]
    return [_over(name, {**drawn, name: settings[name]}, scores, names) for name in (drawn if over is None else over)]


def _over(name: str, settings: Mapping[str, list[Any]], scores: Mapping[str, list[Any]], names: Sequence[str]) -> Plot:
    others = {other: values for other, values in settings.items() if other != name}
    groups: dict[str, list[int]] = {}
    for run in range(len(names)):
        typed = [f"{other.removesuffix('.name')}={_as_text(values[run])}" for other, values in others.items()]
        groups.setdefault(", ".join(typed) or "runs", []).append(run)
    numeric = name != "seed" and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in settings[name]
    )
    data: list[Trace] = []
    for score, values in scores.items():
        for style, (name_of_group, members) in enumerate(groups.items()):
            ordered = sorted(members, key=settings[name].__getitem__) if numeric else members
            held = [run for run in ordered if values[run] is not None]
            data += _group(
                [settings[name][run] for run in held],
                [values[run] for run in held],
                name_of_group,
                style,
                score,
                numeric,
            )
    rows = [
        [
            run,
            *(_as_text(values[i]) for values in (settings[name], *others.values())),
            *(of[i] for of in scores.values()),
        ]
        for i, run in enumerate(names)
    ]
    heads = [Column(name=head, kind=Kind.text) for head in ("run", name, *others)]
    return Plot(
        name=f"over-{name.replace('.', '-')}",
        title=f"Scores over {name}",
        data=data,
        layout=axes(name, "score", xaxis=_axis(settings[name], numeric), yaxis={"tickformat": ".3f"}),
        table=Table(title=f"Over {name}", columns=[*heads, *(Column(name=score) for score in scores)], rows=rows),
        note="A point is a run. The bar of a single run is its 95% interval; the bar of several seeds goes from the lowest to the highest, "
        "and the small point on it is their mean.",
        choices=list(scores),
        choice_name="Score",
        chosen=next(iter(scores)),
        wide=True,
    )


def _group(x: list[Any], values: list[Any], name: str, style: int, score: str, numeric: bool) -> list[Trace]:
    """Draw the points of one group of runs, and the line through their means."""
    if not x:
        return []
    x = x if numeric else [_as_text(value) for value in x]
    alone = len(set(x)) == len(x)
    numbers = [value["value"] if isinstance(value, dict) else value for value in values]
    known = [(at, number) for at, number in zip(x, numbers, strict=True) if number is not None]
    found = {at: [number for place, number in known if place == at] for at in x}
    means = {at: sum(values) / len(values) if values else None for at, values in found.items()}
    meta = {"choice": score}
    dots = points(x, values if alone else numbers, name, style, meta=meta, legendgroup=name, showlegend=False)
    faint = dots if alone else {**dots, "opacity": 0.55}
    mean = line(means, means.values(), name, style, meta=meta, legendgroup=name)
    joined = "lines" if numeric and len(means) > 1 else "markers"
    return [faint, {**mean, "mode": joined, **({} if alone else {"error_y": _reach(found, mean["line"]["color"])})}]


def _reach(found: Mapping[Any, list[float]], color: str) -> ErrorBars:
    """Draw a bar at each mean, from the lowest to the highest of its runs."""
    above = [max(values) - sum(values) / len(values) if values else 0.0 for values in found.values()]
    below = [sum(values) / len(values) - min(values) if values else 0.0 for values in found.values()]
    return {
        "type": "data", "symmetric": False, "array": above, "arrayminus": below, "color": color, "thickness": 1.2, "width": 4
    }  # fmt: skip


def _axis(values: list[Any], numeric: bool) -> Axis:
    if not numeric:
        return {"type": "category"}
    positive = min(values) > 0 and max(values) / min(values) >= LOG_SPAN
    ticks = sorted(set(values))
    return {"type": "log" if positive else "linear", "tickvals": ticks, "ticktext": [f"{value:g}" for value in ticks]}


def _decides(one: list[Any], other: list[Any]) -> bool:
    """Whether runs with the same value of `one` always have the same value of `other`."""
    pairs = {(str(a), str(b)) for a, b in zip(one, other, strict=True)}
    return len(pairs) == len({a for a, _ in pairs})


def _numbers(values: list[Any]) -> list[Any]:
    """Convert texts to numbers, where all of them are numbers."""
    try:
        return [float(value) for value in values] if all(isinstance(value, str) for value in values) else values
    except ValueError:
        return values


def _as_text(value: Any) -> str:
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
