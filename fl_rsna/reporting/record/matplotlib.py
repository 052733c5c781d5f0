"""Draw how much sites differ, as inline SVG for the pages."""

import io
import textwrap
from collections.abc import Mapping
from html import escape
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

PALETTE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)  # Okabe and Ito: colour-blind safe; black becomes the page's own ink
FEW_SITES = 16  # at most, for shares to be written into the cells
ROOM, LEAST_ROOM = 110, 9  # characters below all columns together, and below one
SHARES = "share of each site's images with each label; the counts are in the table of sites"
FULL_COLOUR = 2.0  # doublings of the whole cohort's share, up or down, at which a cell has its full colour


def heterogeneity(sites: Mapping[str, Mapping[str, Any]], labels: list[str]) -> Figure:
    """Draw the share of each site's slices with each label, coloured by how far it is from the whole cohort's share.

    A share above it is orange and one below it blue, the stronger the further; a share of 0 is grey. `sites` holds counts by
    site and part, as cohort.json and the roll call state them.
    """
    shares, whole = _shares(sites, labels)
    few = len(sites) <= FEW_SITES
    figure, axes = plt.subplots(figsize=(10, 0.5 + 0.36 * len(labels)), layout="constrained")
    for (row, column), share in np.ndenumerate(shares):
        face = (0.5, 0.5, 0.5, 0.12)
        if share > 0:
            doublings = float(np.clip(np.log2(share / whole[row]) / FULL_COLOUR, -1, 1))
            red, green, blue = matplotlib.colors.to_rgb(PALETTE[1] if doublings > 0 else PALETTE[0])
            face = (red, green, blue, 0.75 * abs(doublings))
        axes.add_patch(Rectangle((column, row), 0.96 if few else 1.0, 0.92, facecolor=face))
        if few:
            text = f"{share:.1%}" if share else "–"
            axes.text(column + 0.48, row + 0.48, text, ha="center", va="center", fontsize=8)
    step = 1 if few else -(-len(sites) // 10)
    named = [*range(0, len(sites) - 1 - step // 2, step), len(sites) - 1]
    room = max(LEAST_ROOM, ROOM // len(named))
    axes.set_xticks([place + 0.48 for place in named], [textwrap.fill(list(sites)[place], room) for place in named])
    rows = [f"{label}  {share:.1%}" for label, share in zip(labels, whole, strict=True)]
    axes.set_yticks([row + 0.48 for row in range(len(labels))], rows)
    axes.set(xlim=(0, len(sites)), ylim=(len(labels), 0))
    axes.set_xlabel("site", fontsize=8)
    axes.set_ylabel("label, share of all", fontsize=8)
    axes.tick_params(length=0, labelsize=8)
    axes.spines[:].set_visible(False)
    return figure


def as_svg(figure: Figure, what: str) -> str:
    """Encode a figure as inline SVG that says `what` it shows: no ground, black as the page's ink, and the same bytes every time."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "fl_rsna", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    plt.close(figure)
    text = buffer.getvalue().replace("#000000", "currentColor")
    return text[text.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{escape(what)}"', 1)


def _shares(
    sites: Mapping[str, Mapping[str, Any]], labels: list[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the share of slices with each label (rows) in each site (columns), and in all sites; a withheld count is taken as 0."""
    parts = [list(by_part.values()) for by_part in sites.values()]
    slices = np.array([sum(part["slices"] for part in of_site) for of_site in parts])
    found = np.array(
        [[sum(part["positives"][label] or 0 for part in of_site) for of_site in parts] for label in labels]
    )
    return found / np.maximum(slices, 1), found.sum(axis=1) / max(1, slices.sum())
