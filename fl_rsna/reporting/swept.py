"""What differs between the settings of several runs, and curves of their scores over it."""

from collections.abc import Mapping, Sequence
from typing import Any

from fl_rsna.reporting.cells import Column, Kind, Table
from fl_rsna.reporting.plots import Plot, Trace, axes, line, points
from fl_rsna.reporting.provenance import flat

SEEDS = ("seed", "partition.seed", "demo.seed")  # runs that differ in these only repeat each other
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
LOG_SPAN = 20.0  # from the least to the greatest value of an axis that is logarithmic


def differing(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Settings that are not the same in all runs, each with its value in every run."""
    settings = [flat(config) for config in configs]
    names = dict.fromkeys(name for of_run in settings for name in of_run)
    found = {name: [of_run.get(name) for of_run in settings] for name in names if not name.startswith(ELSEWHERE)}
    return {name: values for name, values in found.items() if len({str(value) for value in values}) > 1}


def swept(settings: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Of those, the ones to draw over: no seeds, and none that another one decides."""
    found: dict[str, list[Any]] = {}
    for name, values in settings.items():
        if name not in SEEDS and not any(_decides(before, values) for before in found.values()):
            found = {other: held for other, held in found.items() if not _decides(values, held)} | {name: values}
    return found


def curves_over(settings: Mapping[str, list[Any]], scores: Mapping[str, list[Any]], names: Sequence[str]) -> list[Plot]:
    """One plot a swept setting: every run a point, a line through the means of those that differ in the seed only.

    `scores`: by name a number or an estimate of each run, None where it has none.
    """
    axes_of = swept(settings)
    return [_over(name, axes_of, scores, names) for name in axes_of]


def _over(name: str, settings: Mapping[str, list[Any]], scores: Mapping[str, list[Any]], names: Sequence[str]) -> Plot:
    others = {other: values for other, values in settings.items() if other != name}
    groups: dict[str, list[int]] = {}
    for run in range(len(names)):
        words = ", ".join(_setting(other, values[run]) for other, values in others.items())
        groups.setdefault(words or "runs", []).append(run)
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in settings[name])
    data: list[Trace] = []
    for score, values in scores.items():
        for style, (words, members) in enumerate(groups.items()):
            held = [run for run in _in_order(members, settings[name], numeric) if values[run] is not None]
            data += _group(
                [settings[name][run] for run in held], [values[run] for run in held], words, style, score, numeric
            )
    rows = [
        [run, *(_word(values[i]) for values in (settings[name], *others.values())), *(of[i] for of in scores.values())]
        for i, run in enumerate(names)
    ]
    heads = [Column(name=head, kind=Kind.text) for head in ("run", name, *others)]
    return Plot(
        name=f"over-{name.replace('.', '-')}",
        title=f"Scores over {name}",
        data=data,
        layout=axes(name, "", xaxis=_axis(settings[name], numeric)),
        table=Table(title=f"Over {name}", columns=[*heads, *(Column(name=score) for score in scores)], rows=rows),
        note="Points are runs, with their interval where one run is all there is; lines join means over seeds.",
        choices=list(scores),
        choice_name="Score",
        chosen=next(iter(scores)),
        wide=True,
    )


def _group(x: list[Any], values: list[Any], words: str, style: int, score: str, numeric: bool) -> list[Trace]:
    """The points of one group of runs, and the line through their means."""
    if not x:
        return []
    x = x if numeric else [_word(value) for value in x]
    alone = len(set(x)) == len(x)
    numbers = [value["value"] if isinstance(value, dict) else value for value in values]
    means = {at: _mean([number for place, number in zip(x, numbers, strict=True) if place == at]) for at in x}
    meta = {"choice": score}
    dots = points(x, values if alone else numbers, words, style, meta=meta, legendgroup=words, showlegend=False)
    faint = dots if alone else {**dots, "opacity": 0.55}
    mean = line(means, means.values(), words, style, meta=meta, legendgroup=words)
    return [faint, {**mean, "mode": "lines" if numeric and len(means) > 1 else "markers"}]


def _in_order(members: list[int], values: list[Any], numeric: bool) -> list[int]:
    return sorted(members, key=lambda run: values[run]) if numeric else members


def _axis(values: list[Any], numeric: bool) -> dict[str, Any]:
    if not numeric:
        return {"type": "category"}
    positive = min(values) > 0 and max(values) / min(values) >= LOG_SPAN
    ticks = sorted(set(values))
    return {"type": "log" if positive else "linear", "tickvals": ticks, "ticktext": [f"{value:g}" for value in ticks]}


def _decides(one: list[Any], other: list[Any]) -> bool:
    """Whether runs with the same value of `one` always have the same value of `other`."""
    pairs = {(str(a), str(b)) for a, b in zip(one, other, strict=True)}
    return len(pairs) == len({a for a, _ in pairs})


def _mean(values: list[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def _setting(name: str, value: Any) -> str:
    """As it is typed: `strategy=fedprox` for strategy.name."""
    return f"{name.removesuffix('.name')}={_word(value)}"


def _word(value: Any) -> str:
    return "null" if value is None else str(value)
