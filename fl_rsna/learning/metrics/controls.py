"""Score controls, which see one property of an image and no more: its position in the series, its mean brightness or its view.

Each site sends two small tables of counts; their sums over sites are a classifier, by the prevalence in each bin. A model whose AUROC
is not clearly above a control's has learned where findings lie, or how bright images are, and not what findings look like.
"""

from enum import StrEnum

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.task import Rendering


class Control(StrEnum):
    """The property that a control sees of an image."""

    position = "position"  # of a slice in its series
    brightness = "brightness"  # mean HU of the brain
    grey = "grey"  # mean grey of a radiograph
    view = "view"  # how a radiograph was taken: AP is for patients who cannot stand


BINS = 20
VIEWS = ("PA", "AP")  # any other is a third


def controls_of(rendering: Rendering) -> tuple[Control, ...]:
    """Return the controls that can predict labels on such images; the first is quoted beside every headline."""
    match rendering:
        case Rendering.hounsfield:
            return Control.position, Control.brightness
        case Rendering.radiograph:
            return Control.view, Control.grey


def bins(index: pd.DataFrame, control: Control) -> NDArray[np.intp]:
    """Return the bin, 0 to BINS - 1, of each row of a site's index: [N]."""
    match control:
        case Control.position:
            share = index["relative_position"].to_numpy(np.float64)
        case Control.brightness:
            share = (index["brain_hu_mean"].to_numpy(np.float64) - 15) / 40  # 15 to 55 HU holds every head
        case Control.grey:
            share = index["grey_mean"].to_numpy(np.float64)
        case Control.view:
            return np.select([index["view"] == view for view in VIEWS], range(len(VIEWS)), len(VIEWS)).astype(np.intp)
    return np.clip((share * BINS).astype(np.intp), 0, BINS - 1)


def count_table(index: pd.DataFrame, labels: NDArray[np.float32], control: Control) -> NDArray[np.int64]:
    """Count slices and positives in each bin: int64 [BINS, 1 + L], slices in the first column; `labels` is [N, L]."""
    rows = np.concatenate([np.ones((len(index), 1)), labels], axis=1)
    table = np.zeros((BINS, rows.shape[1]))
    np.add.at(table, bins(index, control), rows)
    return table.astype(np.int64)


def control_scores(table: NDArray[np.int64], index: pd.DataFrame, control: Control) -> NDArray[np.float32]:
    """Score each slice by the prevalence in its bin, [N, L], shrunk towards the overall prevalence by the weight of one slice."""
    overall = table[:, 1:].sum(0) / max(1, table[:, 0].sum())
    prevalence = (table[:, 1:] + overall) / (table[:, :1] + 1)
    scores: NDArray[np.float32] = prevalence[bins(index, control)].astype(np.float32)
    return scores
