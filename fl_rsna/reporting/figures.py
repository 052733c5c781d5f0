"""Figures of a report: curves by round, and a few windowed slices a site."""

import base64
import io
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fl_rsna.cohort.sites import Cohort
from fl_rsna.cohort.split import TEST_SITE
from fl_rsna.imaging.store import ImageKind, read_png
from fl_rsna.imaging.windows import HU_OFFSET, window
from fl_rsna.reporting.tables import RunRecord

PALETTE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)  # Okabe and Ito: colour-blind safe
PICTURE_WINDOW = (40.0, 80.0)  # brain
PICTURES_A_SITE = 8


def curves(run: RunRecord) -> Figure:
    """Loss and AUROC of the global model by round."""
    figure, (loss, area) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    rounds = run.rounds
    parts = (("train_loss", "training"), ("validation_loss", "validation (sites)"), ("test_loss", "test site"))
    for colour, (column, name) in enumerate(parts):
        _line(loss, rounds["round"], rounds[column], name, colour)
    loss.set(title="log loss", xlabel="round", ylim=(0, None))
    for i, label in enumerate(run.labels):
        _line(
            area, rounds["round"], rounds[f"test_auroc_{label}"], label, i, width=2.4 if label == run.headline else 1.1
        )
    _line(
        area, rounds["round"], rounds[f"validation_auroc_{run.headline}"], f"{run.headline}, validation", 6, style="--"
    )
    area.axhline(0.5, color="0.7", linewidth=0.8)
    area.set(title="AUROC, test site", xlabel="round", ylim=(0, 1.01))
    for axes in (loss, area):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.25)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7, ncols=2)
    return figure


def cohort_picture(cohort: Cohort, headline: str) -> Figure:
    """A row a site: slices with and without findings, in the brain window, titled with their labels."""
    names = [*cohort.sites, TEST_SITE]
    figure, grid = plt.subplots(
        len(names),
        PICTURES_A_SITE,
        figsize=(1.45 * PICTURES_A_SITE, 1.75 * len(names)),
        squeeze=False,
        layout="constrained",
    )
    for row, name in zip(grid, names, strict=True):
        index = pd.read_csv(cohort.site_folder(name) / "index.csv", dtype={"image_id": str})
        chosen = _examples(index, headline, list(cohort.labels))
        for axes in row:
            axes.axis("off")
        for axes, (_, slice_) in zip(row, chosen.iterrows(), strict=False):
            image = read_png(cohort.site_folder(name) / "images" / f"{slice_.image_id}.png")
            axes.imshow(_displayed(image, cohort.image), cmap="gray", vmin=0, vmax=255)
            found = [
                label for label in cohort.labels if slice_[label] and (label != headline or len(cohort.labels) == 1)
            ]
            axes.set_title(
                ", ".join(found) or f"no {headline}" if found else "none",
                fontsize=6,
                color="#B00020" if found else "0.3",
            )
        row[0].text(-0.12, 0.5, name, transform=row[0].transAxes, rotation=90, va="center", ha="right", fontsize=9)
    return figure


def save_picture(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=110)
    plt.close(figure)


def as_svg(figure: Figure) -> str:
    """The figure as inline SVG, with the XML prologue cut and the same bytes every time."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "fl_rsna"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def as_data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _line(
    axes: Axes, x: pd.Series, y: pd.Series, label: str, colour: int, *, width: float = 1.6, style: str = "-"
) -> None:
    if y.notna().any():
        axes.plot(
            x, y, style, marker="o", markersize=3, color=PALETTE[colour % len(PALETTE)], linewidth=width, label=label
        )


def _examples(index: pd.DataFrame, headline: str, labels: list[str]) -> pd.DataFrame:
    """Up to PICTURES_A_SITE slices: a middle one of each label, then slices of other patients without findings."""
    specific = [label for label in labels if label != headline] or labels
    picked = [_middle(index[index[label] == 1].sort_values(["patient_id", "rank"])) for label in specific]
    normal = index[index[labels].max(axis=1) == 0].drop_duplicates("patient_id")
    normal = normal[(normal["relative_position"] > 0.25) & (normal["relative_position"] < 0.8)]
    return pd.concat([*picked, normal]).drop_duplicates("image_id").head(PICTURES_A_SITE)


def _middle(rows: pd.DataFrame) -> pd.DataFrame:
    """The middle one of the first patient's slices, as a one-row table; none of none."""
    first = rows[rows["patient_id"] == rows["patient_id"].iloc[0]] if len(rows) else rows
    return first.iloc[len(first) // 2 :][:1]


def _displayed(image: NDArray[np.generic], kind: ImageKind) -> NDArray[np.uint8]:
    match kind:
        case ImageKind.hu:
            return window(image.astype(np.float64) - HU_OFFSET, *PICTURE_WINDOW)
        case ImageKind.windows:
            return image[..., 0].astype(np.uint8)
