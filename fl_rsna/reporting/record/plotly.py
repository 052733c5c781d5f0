"""A plot as the page draws it: Plotly's traces and layout as plain values, with colours by the page's own names.

Strings that begin with `--` are the page's CSS colours, which follow light, dark and print; a trace whose meta names a
choice is drawn only while that choice is chosen. Behind every plot is a table.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fl_rsna.reporting.record.cells import Table

COLOURS = [f"--c{number}" for number in range(7)]
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid")
MARKERS = ("circle", "square", "diamond", "triangle-up", "x", "triangle-down", "cross")
FEW = 6  # lines that all have a name in the legend
NAMED, LONG = 16, 24  # names below a plot, and characters of one
Trace = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """`choices`: what a list above the plot offers; `chosen`: which of it is drawn first, "" for none."""

    name: str
    title: str
    data: list[Trace]
    layout: dict[str, Any]
    table: Table
    note: str = ""
    choices: Sequence[str] = ()
    choice_name: str = ""
    chosen: str = ""
    wide: bool = False


def line(
    x: Iterable[Any], y: Iterable[Any], name: str, style: int, *, width: float = 1.8, markers: bool = True, **more: Any
) -> Trace:
    """A line with the colour, dash and marker of its number."""
    look = {"color": COLOURS[style % 7], "dash": DASHES[style % 7], "width": width}
    marker = {"color": COLOURS[style % 7], "symbol": MARKERS[style % 7], "size": 5}
    mode = {"mode": "lines+markers", "marker": marker} if markers else {"mode": "lines"}
    return {"type": "scatter", "x": list(x), "y": plain(y), "name": name, "line": look, **mode, **more}


def lines(by_name: Mapping[str, Mapping[int, float]], rounds: Sequence[int], of: str) -> list[Trace]:
    """A line a name; of more than FEW one faint trace for all, their median, and each one's own, drawn when it is chosen."""
    if len(by_name) <= FEW:
        return [line(found, found.values(), name, i) for i, (name, found) in enumerate(by_name.items())]
    x: list[int | None] = []
    y: list[float | None] = []
    names: list[str | None] = []
    for name, found in by_name.items():
        x += [*found, None]
        y += [*found.values(), None]
        names += [*[name] * len(found), None]
    middle = [statistics.median(f[n] for f in by_name.values() if n in f) for n in rounds]
    faint = {"color": "--soft", "width": 0.8}
    every: Trace = {
        "type": "scatter", "mode": "lines", "x": x, "y": y, "text": names, "name": f"each {of}", "line": faint, "opacity": 0.35,
        "hovertemplate": "%{text}: %{y:.3f}<extra></extra>",
    }  # fmt: skip
    one = [line(f, f.values(), name, 1, width=2.6, meta={"choice": name}) for name, f in by_name.items()]
    return [every, line(rounds, middle, f"median of the {of}s", 0, width=2.8), *one]


def points(
    x: Iterable[Any], estimates: Sequence[Any], name: str, style: int, *, across: bool = False, **more: Any
) -> Trace:
    """Markers with the interval of each estimate, where it has one; numbers have none. `across`: estimates lie on the x axis, as in a forest."""
    found = [cell if isinstance(cell, dict) else {"value": cell, "low": None, "high": None} for cell in estimates]
    bars = {
        "type": "data",
        "symmetric": False,
        "array": [_reach(cell["high"], cell["value"]) for cell in found],
        "arrayminus": [_reach(cell["value"], cell["low"]) for cell in found],
        "color": COLOURS[style % 7],
        "thickness": 1.2,
        "width": 0,
    }
    marker = {"color": COLOURS[style % 7], "symbol": MARKERS[style % 7], "size": 8}
    values = [cell["value"] for cell in found]
    place = {"x": values, "y": list(x), "error_x": bars} if across else {"x": list(x), "y": values, "error_y": bars}
    return {"type": "scatter", "mode": "markers", **place, "name": name, "marker": marker, **more}


def diagonal() -> Trace:
    """What a guess reaches, from corner to corner."""
    look = {"color": "--line", "width": 1.2}
    return {
        "type": "scatter", "mode": "lines", "x": [0, 1], "y": [0, 1], "line": look, "hoverinfo": "skip", "showlegend": False
    }  # fmt: skip


def axes(x: str, y: str, **more: Any) -> dict[str, Any]:
    """A layout with named axes; `more` of xaxis and yaxis is added to them."""
    xaxis = {"title": {"text": x}, **more.pop("xaxis", {})}
    yaxis = {"title": {"text": y}, **more.pop("yaxis", {})}
    return {"xaxis": xaxis, "yaxis": yaxis, **more}


def colour_bar(title: str) -> dict[str, Any]:
    """A bar of the colours of a heatmap, with what they mean beside it."""
    return {"thickness": 10, "outlinewidth": 0, "len": 1, "title": {"text": title, "side": "right"}}


SHARE = {"range": [-0.02, 1.02], "dtick": 0.2}
SQUARE = {"range": [-0.02, 1.02], "dtick": 0.2}
TICKS = 10  # of an axis of rounds


def by_rounds(rounds: Sequence[int]) -> dict[str, Any]:
    """An axis of whole rounds."""
    return {"tickformat": "d", "rangemode": "tozero", "tick0": 0, "dtick": max(1, math.ceil(max(rounds) / TICKS))}


def area_axis(data: Iterable[Trace]) -> dict[str, Any]:
    """An axis of AUROCs: from what guessing reaches, or the lowest value there is, to 1."""
    low = min([0.5, *(value for trace in data for value in _lowest(trace))])
    return {"range": [math.floor(low * 10) / 10 - 0.01, 1.01], "dtick": 0.1, "tickformat": ".1f"}


def category_axis(names: Sequence[str]) -> dict[str, Any]:
    """An axis of names: what differs at their ends, where they are long; none at all where there are too many to read.

    Where all are the same keys with values, such as `strategy=fedavg seed=0`, the keys are the axis' title and the ticks are the values.
    """
    words = [[word.partition("=") for word in name.split(" ")] for name in names]
    keys = {tuple(key if equals else "" for key, equals, _ in of_name) for of_name in words}
    same = keys.pop() if len(keys) == 1 else ("",)
    rest = [", ".join(value for *_, value in of_name) for of_name in words] if all(same) else list(names)
    shown = [name if len(name) <= LONG else f"…{name[-LONG:]}" for name in rest]
    title = {"title": {"text": ", ".join(same)}} if all(same) else {}
    few = {"tickvals": list(names), "ticktext": shown, **title}
    return {"type": "category", "showgrid": False, **(few if len(names) <= NAMED else {"showticklabels": False})}


def plain(values: Iterable[Any]) -> list[Any]:
    """Numbers of a column as JSON has them: None for what is not there."""
    return [None if value is None or (isinstance(value, float) and math.isnan(value)) else value for value in values]


def _lowest(trace: Trace) -> list[float]:
    """The values of a trace, at the lower ends of their intervals where it has such."""
    below = trace.get("error_y", {}).get("arrayminus", [0.0] * len(trace["y"]))
    return [value - less for value, less in zip(trace["y"], below, strict=True) if value is not None]


def _reach(high: float | None, low: float | None) -> float:
    return 0.0 if high is None or low is None else high - low
