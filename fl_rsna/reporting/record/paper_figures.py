"""Draw the plots of the pages for a paper: as SVG and PDF at a journal's column width, from the same records as the pages.

Text stays text: a PDF embeds its font, an SVG names it. The same plot gives the same bytes every time.
"""

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from fl_rsna.common.atomic import write_whole
from fl_rsna.common.ownership import refuse_stranger
from fl_rsna.reporting.record.matplotlib import PALETTE
from fl_rsna.reporting.record.plotly import Plot, Trace

COLUMN_MM, PAGE_MM = 85, 175  # widths of a journal's column and of its page
HEIGHT_MM, BROAD_MM = 65, 75
INCH_MM = 25.4
CREATOR = "fl_rsna"
STYLE: Any = {  # of matplotlib
    "font.size": 7, "axes.labelsize": 7, "axes.linewidth": 0.6, "xtick.labelsize": 6.5, "ytick.labelsize": 6.5, "legend.fontsize": 6,
    "svg.fonttype": "none", "svg.hashsalt": CREATOR, "pdf.fonttype": 42, "lines.linewidth": 1.0, "axes.spines.top": False,
    "axes.spines.right": False,
}  # fmt: skip
COLOURS = {f"--c{i}": colour for i, colour in enumerate(PALETTE)}
COLOURS |= {"--soft": "#59646e", "--line": "#a8b0b8", "--ink": "#000000"}
SCALE = LinearSegmentedColormap.from_list("page", ["#f4f6f8", "#5aa7d6"])
DASHES: dict[str, Any] = {
    "solid": "-", "dash": "--", "dot": ":", "dashdot": "-.", "longdash": (0, (8, 3)), "longdashdot": (0, (8, 2, 1, 2))
}  # fmt: skip
MARKERS = {
    "circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "x": "X", "triangle-down": "v", "cross": "P"
}  # fmt: skip
SHARE_OF_BARS = 0.8  # of the distance between two places
DODGE = 0.18  # of the distance between two places, between points of one group


def write_figures(
    folder: Path, plots: Iterable[Plot], drawn: Mapping[str, Figure] = MappingProxyType({})
) -> list[Path]:
    """Write <plot>.svg and <plot>.pdf of every plot into a folder, and captions.md with their titles; return the paths.

    A plot with a list above it has a figure for each choice. `drawn` are further figures by their captions, as wide as a page.
    Raises ValueError for a file in the way that is not ours.
    """
    made, captions = dict[Path, bytes](), ["# Figures", ""]
    for plot in plots:
        for choice in [one for one in plot.choices if one] if plot.chosen else [""]:
            name = re.sub(r"[^A-Za-z0-9_.-]+", "_", f"{plot.name}-{choice}" if choice else plot.name)
            for suffix, content in encode_figure(draw_plot(plot, choice)).items():
                made[folder / f"{name}{suffix}"] = content
            of = f" ({plot.choice_name.lower()}: {choice})" if choice else ""
            captions += [f"- `{name}`: {plot.title}{of}. {plot.note}".rstrip()]
    for number, (caption, figure) in enumerate(drawn.items(), 1):
        width, height = figure.get_size_inches()
        figure.set_size_inches(PAGE_MM / INCH_MM, height * PAGE_MM / INCH_MM / width)
        made |= {folder / f"cohort-{number}{suffix}": content for suffix, content in encode_figure(figure).items()}
        captions += [f"- `cohort-{number}`: {caption}"]
    made[folder / "captions.md"] = ("\n".join(captions) + "\n").encode(errors="backslashreplace")
    for path in made:
        refuse_stranger(path, _is_ours)
    folder.mkdir(exist_ok=True)
    for path, content in made.items():
        write_whole(path, content)
    return list(made)


def _is_ours(earlier: bytes) -> bool:
    return CREATOR.encode() in earlier or earlier.startswith(b"# Figures\n")


def list_plots(found: object) -> Iterator[Plot]:
    """Yield every plot in a record, wherever in its fields it is."""
    match found:
        case Plot():
            yield found
        case dict():
            for part in found.values():
                yield from list_plots(part)
        case list() | tuple():
            for part in found:
                yield from list_plots(part)
        case _ if is_dataclass(found):
            for field in fields(found):
                yield from list_plots(getattr(found, field.name))


def encode_figure(figure: Figure) -> dict[str, bytes]:
    """Encode a figure as SVG and PDF, and close it; neither holds a date."""
    found = {}
    with matplotlib.rc_context(STYLE):
        for suffix, metadata in {
            ".svg": {"Date": None, "Creator": CREATOR},
            ".pdf": {"CreationDate": None, "Creator": CREATOR},
        }.items():
            buffer = io.BytesIO()
            figure.savefig(buffer, format=suffix[1:], metadata=metadata)
            found[suffix] = buffer.getvalue()
    plt.close(figure)
    return found


def draw_plot(plot: Plot, choice: str) -> Figure:
    """Draw a plot as the page shows it while `choice` is chosen, at a journal's width; without its title, which a caption has."""
    traces = [trace for trace in plot.data if "meta" not in trace or trace["meta"]["choice"] == choice]
    size = (PAGE_MM / INCH_MM, BROAD_MM / INCH_MM) if plot.wide else (COLUMN_MM / INCH_MM, HEIGHT_MM / INCH_MM)
    with matplotlib.rc_context(STYLE):
        if "yaxis2" in plot.layout:
            figure, both = plt.subplots(2, 1, figsize=size, layout="constrained", sharex=True, height_ratios=[3, 1])
            panels = {"y": both[0], "y2": both[1]}
        else:
            figure, axes = plt.subplots(figsize=size, layout="constrained")
            panels = {"y": axes}
        for key, axes in panels.items():
            own = [trace for trace in traces if trace.get("yaxis", "y") == key]
            _draw_traces(axes, own, plot.layout)
            _set_axis(axes, "y", plot.layout.get("yaxis2" if key == "y2" else "yaxis", {}), otherwise=choice)
        lowest = list(panels.values())[-1]
        _set_axis(lowest, "x", plot.layout.get("xaxis", {}))
        handles, names = panels["y"].get_legend_handles_labels()
        if len(names) > 1:
            columns = min(len(names), 6 if plot.wide else 3)
            figure.legend(handles, names, loc="outside upper center", ncols=columns, frameon=False)
    return figure


def _draw_traces(axes: Axes, traces: Sequence[Trace], layout: dict[str, Any]) -> None:
    bars = [trace for trace in traces if trace["type"] == "bar"]
    stacked = layout.get("barmode") == "stack"
    below: dict[Any, float] = {}
    dots = [trace for trace in traces if trace["type"] == "scatter"]
    grouped = layout.get("scattermode") == "group"
    _name_places(axes, traces, layout)
    for number, trace in enumerate(bars):
        _draw_bars(axes, trace, number, len(bars), below if stacked else None)
    for number, trace in enumerate(dots):
        shift = (number - (len(dots) - 1) / 2) * DODGE if grouped else 0.0
        _draw_scatter(axes, trace, shift)
    for trace in traces:
        if trace["type"] == "heatmap":
            _draw_heatmap(axes, trace)
    if not any(trace["type"] == "heatmap" for trace in traces):
        axes.grid(alpha=0.25, linewidth=0.5)
    axes.set_axisbelow(True)


def _name_places(axes: Axes, traces: Sequence[Trace], layout: dict[str, Any]) -> None:
    """Have matplotlib place the names of a category axis in the page's order, whichever trace comes first."""
    for way, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        values = [value for trace in traces for value in trace.get(way) or () if value is not None]
        if any(isinstance(value, str) for value in values) or layout.get(f"{way}axis", {}).get("type") == "category":
            named = layout.get(f"{way}axis", {}).get("tickvals") or ()
            names: list[str] = [*dict.fromkeys([*map(str, named), *map(str, values)])]
            axis.update_units(names)  # type: ignore[no-untyped-call]


def _draw_bars(axes: Axes, trace: Trace, number: int, count: int, below: dict[Any, float] | None) -> None:
    x, y = _place(axes.xaxis, trace["x"]), [value or 0.0 for value in trace["y"]]
    step = min(np.diff(np.unique(x)), default=1.0) * SHARE_OF_BARS
    colour = _colour(trace.get("marker", {}).get("color"))
    shared = {"color": colour, "label": _legend(trace), "alpha": trace.get("opacity", 1.0)}
    if below is not None:
        axes.bar(x, y, step, bottom=[below.get(at, 0.0) for at in x], **shared)
        below |= {at: below.get(at, 0.0) + value for at, value in zip(x, y, strict=True)}
    else:
        axes.bar(np.asarray(x) + (number - (count - 1) / 2) * step / count, y, step / count, **shared)


def _draw_scatter(axes: Axes, trace: Trace, shift: float) -> None:
    x = np.asarray(_place(axes.xaxis, trace["x"]), np.float64) + shift
    y = np.asarray(_place(axes.yaxis, trace["y"]), np.float64)
    line, marker, mode = trace.get("line", {}), trace.get("marker", {}), trace.get("mode", "lines")
    colour = _colour(line.get("color") or marker.get("color"))
    if trace.get("fill"):
        shade = _colour(trace.get("fillcolor") or line.get("color"))
        axes.fill(x, y, color=shade, alpha=0.15 * trace.get("opacity", 1.0), linewidth=0, label=_legend(trace))
        if not line.get("width", 1):
            return
    look = {
        "color": colour,
        "linestyle": DASHES.get(line.get("dash", "solid"), "-") if "lines" in mode else "none",
        "linewidth": 0.6 * line.get("width", 1.6),
        "marker": MARKERS.get(marker.get("symbol", "circle"), "o") if "markers" in mode else "",
        "markersize": 3,
        "alpha": trace.get("opacity", 1.0),
        "label": "_nolegend_" if trace.get("fill") else _legend(trace),
    }
    errors: dict[str, Any] = {
        f"{way}err": np.nan_to_num(np.array([bars["arrayminus"], bars["array"]], np.float64))
        for way in ("x", "y")
        if (bars := trace.get(f"error_{way}"))
    }
    axes.errorbar(x, y, **errors, elinewidth=0.8, capsize=0, **look)


def _draw_heatmap(axes: Axes, trace: Trace) -> None:
    values = np.array([[np.nan if cell is None else cell for cell in row] for row in trace["z"]], np.float64)
    image = axes.imshow(values, cmap=SCALE, vmin=trace.get("zmin"), vmax=trace.get("zmax"), aspect="auto")
    axes.set_xticks(range(len(trace["x"])), map(str, trace["x"]))
    axes.set_yticks(range(len(trace["y"])), map(str, trace["y"]))
    texts = trace.get("text")
    for (row, column), value in np.ndenumerate(values):
        if "texttemplate" in trace and (texts or not np.isnan(value)):
            said = texts[row][column].replace("<br>", "\n") if texts else f"{value:.2f}"
            axes.text(column, row, said, ha="center", va="center", fontsize=6.5)
    bar = axes.figure.colorbar(image, ax=axes, pad=0.02)
    bar.outline.set_visible(False)
    bar.set_label((trace.get("colorbar", {}).get("title") or {}).get("text", ""))


def _set_axis(axes: Axes, way: str, asked: dict[str, Any], otherwise: str = "") -> None:
    """Give an axis its title, scale, range and ticks, as Plotly's layout asks for them; without a title it has the `otherwise` one."""
    axis = axes.xaxis if way == "x" else axes.yaxis
    axis.set_label_text((asked.get("title") or {}).get("text") or otherwise)
    if asked.get("type") == "log":
        (axes.set_xscale if way == "x" else axes.set_yscale)("log")
        axis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    limits = axes.set_xlim if way == "x" else axes.set_ylim
    if "range" in asked:
        limits(*([10**end for end in asked["range"]] if asked.get("type") == "log" else asked["range"]))
    elif asked.get("rangemode") == "tozero":
        limits(0 if way == "y" else -0.03 * axis.get_view_interval()[1], None)
    if asked.get("dtick") and asked.get("type") not in ("log", "category"):
        axis.set_major_locator(matplotlib.ticker.MultipleLocator(asked["dtick"]))
    if asked.get("tickvals"):
        axis.set_ticks(
            _place(axis, asked["tickvals"]), [str(text) for text in asked.get("ticktext", asked["tickvals"])]
        )
    if asked.get("autorange") == "reversed":
        axis.set_inverted(True)
    if asked.get("showticklabels") is False:
        axis.set_ticks([])
    texts = [label.get_text() for label in axis.get_ticklabels()] if asked.get("type") == "category" else []
    if way == "x" and sum(map(len, texts)) > 3 * 14:
        axes.tick_params(axis="x", labelrotation=30)
        plt.setp(axes.get_xticklabels(), ha="right", rotation_mode="anchor")


def _place(axis: Any, values: Iterable[Any]) -> list[float]:
    """Return where values stand on an axis: a name at its number, a missing value nowhere."""
    found = [np.nan if value is None else value for value in values]
    if axis.have_units():
        return [float(axis.convert_units(str(value))) if isinstance(value, str) else float(value) for value in found]
    return [float(value) for value in found]


def _legend(trace: Trace) -> str:
    return "_nolegend_" if trace.get("showlegend") is False else str(trace.get("name", "_nolegend_"))


def _colour(name: Any) -> str:
    return COLOURS.get(str(name), PALETTE[0] if name is None else str(name))
