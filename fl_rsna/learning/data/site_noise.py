"""What a noisy site believes and sees: wrong labels on some training slices or none at all, and its scanner's pixels.

Everything drawn follows from the cohort's seed, the site's name and the image's id: not from the order of rows, the
size of the pack or the process that opens the site.
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

Scan = Callable[[Image, Mapping[str, Any]], Image]  # a stored image and its row of the index -> what the site sees


def with_label_noise(index: pd.DataFrame, noise: SiteNoise, site: str, task: Task) -> pd.DataFrame:
    """The site's index with the labels it believes: `noise.labels` of its training slices have a wrong row.

    Exactly that share, rounded to whole slices; a larger share keeps the wrong rows of a smaller one. Validation and
    test slices keep true labels. A label that the site does not annotate is NaN in every part, and need not be there.
    """
    unknown = dict.fromkeys(noise.unannotated, np.nan)
    return (_mislabel_rows(index, noise, site, task) if noise.labels else index).assign(**unknown)


def _mislabel_rows(index: pd.DataFrame, noise: SiteNoise, site: str, task: Task) -> pd.DataFrame:
    train = np.flatnonzero(index["split"].to_numpy() == "train")
    ids = index["image_id"].to_numpy()[train]
    labels = index[list(task.labels)].to_numpy(np.int64, copy=True)
    labels[train] = wrong_rows(labels[train], ids, noise, site, task)
    return index.assign(**{label: labels[:, place] for place, label in enumerate(task.labels)})


def wrong_rows(
    rows: NDArray[np.int64], ids: NDArray[np.object_], noise: SiteNoise, site: str, task: Task
) -> NDArray[np.int64]:
    """`rows` [N, L] of the slices `ids` with a share of them wrong, each still a row that a slice could have.

    Symmetric noise. Multi-label: a finding is missed or seen where there is none, each at the same rate (Natarajan et
    al. 2013, Learning with Noisy Labels, NeurIPS 26, equal rates). A missed one is a row of zeros; a false one is the
    row of a random slice of this site that has a finding, so the union label stays the maximum of the others and they
    occur together as they do. Multi-class: another class, all equally likely (Patrini et al. 2017, arXiv:1609.03683).
    """
    order = np.argsort(ids.astype(str), kind="stable")
    found = rows[order][rows[order].any(axis=1)]
    donors = found if len(found) else _single_findings(task)
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


def _single_findings(task: Task) -> NDArray[np.int64]:
    """The rows with one specific label: what a site that has no finding at all may imagine."""
    return np.array(
        [[label in (finding, task.union) for label in task.labels] for finding in task.specific_labels], np.int64
    )


def keep_image(image: Image, row: Mapping[str, Any]) -> Image:
    """A site without a scanner's noise sees its images as they are."""
    return image


def scan_of(noise: SiteNoise, site: str) -> Scan:
    """How the site's scanner changes a stored image; the row tells its id and, for blur, the size of its pixels."""
    if not noise.of_scanner:
        return keep_image

    def scan(image: Image, row: Mapping[str, Any]) -> Image:
        return simulate_scanner(
            image,
            blur_px=_in_pixels(noise.blur, row, len(image)) if noise.blur else (0, 0),
            hu_noise=noise.hu_noise,
            hu_shift=noise.hu_shift,
            seed=derive_seed(noise.seed, "scanner noise", site, str(row["image_id"])),
        )

    return scan


def _in_pixels(blur_mm: float, row: Mapping[str, Any], size: int) -> tuple[float, float]:
    """A length in pixels (across, down) of the prepared image, `size` a side: the slice was padded to a square first."""
    smaller = size / max(row["rows"], row["columns"])
    return blur_mm / row["column_spacing_mm"] * smaller, blur_mm / row["row_spacing_mm"] * smaller
