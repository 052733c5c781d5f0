"""Simulate a noisy site: wrong or missing labels, and the effects of its scanner on the pixels.

Every random number follows from the cohort's seed, the site's name and the image's id. It depends neither on the order of rows, nor on
the size of the pack, nor on the process that opens the site.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.cohort.sites.noise import SiteNoise
from fl_rsna.common.seeds import derive_seed
from fl_rsna.imaging.png_store import Image
from fl_rsna.imaging.scanner_effects import simulate_scanner
from fl_rsna.task import LabelKind, Task

Scan = Callable[[Image, Mapping[str, Any]], Image]  # (stored image, row of the index) -> what the site sees


def with_label_noise(index: pd.DataFrame, noise: SiteNoise, site: str, task: Task) -> pd.DataFrame:
    """Return the site's index with wrong labels in the share `noise.labels` of its training slices.

    The share is exact, rounded to whole slices; a larger share keeps the wrong rows of a smaller one. Validation and
    test slices keep true labels. A label that the site does not annotate is NaN in every part; `index` may lack its column.
    """
    if noise.labels:
        train = np.flatnonzero(index["split"].to_numpy() == "train")
        ids = index["image_id"].to_numpy()[train]
        labels = index[list(task.labels)].to_numpy(np.int64, copy=True)
        labels[train] = wrong_rows(labels[train], ids, noise, site, task)
        index = index.assign(**{label: labels[:, place] for place, label in enumerate(task.labels)})
    return index.assign(**dict.fromkeys(noise.unannotated, np.nan))


def wrong_rows(
    rows: NDArray[np.int64], ids: NDArray[np.object_], noise: SiteNoise, site: str, task: Task
) -> NDArray[np.int64]:
    """Return `rows` [N, L] of the slices `ids` with the share `noise.labels` of them wrong, by symmetric noise.

    A wrong row is still one that a slice could have. Multi-label: findings are missed and falsely seen at the same rate
    (Natarajan et al. 2013, Learning with Noisy Labels, NeurIPS 26, equal rates). A slice with a missed finding gets a row of
    zeros. A slice with a false finding gets the row of a random slice of this site that has a finding, so the union label
    stays the maximum of the others and labels occur together as often as before. At a site without any finding, it gets the
    row of one specific label. Multi-class: another class, all equally likely (Patrini et al. 2017, arXiv:1609.03683).
    """
    order = np.argsort(ids.astype(str), kind="stable")
    donors = rows[order][rows[order].any(axis=1)]
    if not len(donors):
        single = [[label in (finding, task.union) for label in task.labels] for finding in task.specific_labels]
        donors = np.array(single, np.int64)
    wrong = rows.copy()
    lots = np.array([derive_seed(noise.seed, "wrong label", site, str(id_)) for id_ in ids], np.int64)
    for place in np.argsort(lots, kind="stable")[: round(noise.labels * len(ids))]:
        draw = derive_seed(noise.seed, "false label", site, str(ids[place]))
        match task.kind:
            case LabelKind.multi_label:
                wrong[place] = 0 if rows[place].any() else donors[draw % len(donors)]
            case LabelKind.multi_class:
                wrong[place] = np.roll(rows[place], 1 + draw % (len(task.labels) - 1))
    return wrong


def keep_image(image: Image, row: Mapping[str, Any]) -> Image:
    """Return the image unchanged, for a site without scanner noise."""
    return image


def scan_of(noise: SiteNoise, site: str) -> Scan:
    """Return the function by which the site's scanner changes a stored image; for blur, its row states the size of its pixels."""
    if not noise.of_scanner:
        return keep_image

    def scan(image: Image, row: Mapping[str, Any]) -> Image:
        across = down = 0.0
        if noise.blur:  # mm to pixels of the prepared image, which was padded to a square and resized
            smaller = len(image) / max(row["rows"], row["columns"])
            across = noise.blur / row["column_spacing_mm"] * smaller
            down = noise.blur / row["row_spacing_mm"] * smaller
        return simulate_scanner(
            image,
            blur_px=(across, down),
            hu_noise=noise.hu_noise,
            hu_shift=noise.hu_shift,
            seed=derive_seed(noise.seed, "scanner noise", site, str(row["image_id"])),
        )

    return scan
