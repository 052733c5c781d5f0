"""Write the tables and folders of the reference implementation (S0), the RSNA preprocessing with which this project began, beside the sites' folders.

    train.csv              Image and the task's labels, one row a slice of the prepared data
    train_metadata.csv     headers of the same slices, in the same order
    test_metadata.csv      headers of `<name>-test`, the set without labels, where it was prepared
    site-<n>.csv test.csv  the slices of a site: the columns of train.csv, then FURTHER
    site_images/           site-<n>-images/<Image>.png and test-images/<Image>.png

Columns of headers have pydicom's keywords (KEYWORDS); columns that are no tag have their names in the index. Ids are those of the index,
hashed where prepare hashed them. A site with another name than site-<n> gives its files that name: north.csv, north-images/.

The layout is S0's; its mistakes are mended. No patient is in two places, while S0 kept only series together (about 17% of its test series
had their patient in training). The assignment is seeded. Every site has validation patients. Files that gave no image are in rejected.csv
with their reasons. Every slice has the same greys for the same HU, and the windows are RGB, not BGR.
"""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.csv import write_csv

from fl_rsna.cohort.prepared.boxes import BOXES
from fl_rsna.cohort.prepared.index import read_prepared
from fl_rsna.common.atomic import link_images
from fl_rsna.settings.partition import TEST_SITE
from fl_rsna.task import Task

IMAGES = "site_images"
TRAIN, TRAIN_METADATA, TEST_METADATA = "train.csv", "train_metadata.csv", "test_metadata.csv"
KEYWORDS = {  # DICOM keyword by column of the index; these columns come first, in this order
    "image_id": "SOPInstanceUID",
    "patient_id": "PatientID",
    "study_id": "StudyInstanceUID",
    "series_id": "SeriesInstanceUID",
    "rows": "Rows",
    "columns": "Columns",
    "orientation": "ImageOrientationPatient",
    "thickness_mm": "SliceThickness",
    "bits_stored": "BitsStored",
    "signed": "PixelRepresentation",  # 0 or 1
    "slope": "RescaleSlope",
    "intercept": "RescaleIntercept",
    "window_center": "WindowCenter",
    "window_width": "WindowWidth",
    "transfer_syntax": "TransferSyntaxUID",
}
SPACING = ["row_spacing_mm", "column_spacing_mm"]  # both make PixelSpacing, joined by a backslash as in DICOM
FURTHER = {name: KEYWORDS[name] for name in ("patient_id", "study_id", "series_id")} | {"split": "split"}


def write_s0(
    folder: Path,
    tables: Mapping[str, pd.DataFrame],
    index: pd.DataFrame,
    unlabelled: pd.DataFrame | None,
    labels: Sequence[str],
) -> None:
    """Write S0's tables, and links to the images, into a cohort's folder with all sites; `tables` has the table of each site."""
    index = index.sort_values("image_id", kind="stable")
    wide = {"image_id": "Image", **{label: label for label in labels}}
    _write(index[list(wide)].rename(columns=wide), folder / TRAIN)
    _write(metadata(index, labels), folder / TRAIN_METADATA)
    if unlabelled is not None:
        _write(metadata(unlabelled.sort_values("image_id", kind="stable"), ()), folder / TEST_METADATA)
    for site, table in tables.items():
        columns = wide | {name: keyword for name, keyword in FURTHER.items() if name in table}
        _write(table[list(columns)].rename(columns=columns), folder / f"{short(site)}.csv")
        link_images(table["image_id"], folder / site / "images", folder / IMAGES / f"{short(site)}-images")


def metadata(index: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """Build the table of headers: KEYWORDS and PixelSpacing, then the index's other columns without labels and boxes."""
    known = [name for name in KEYWORDS if name in index]
    found = index[known].rename(columns=KEYWORDS)
    if "PixelRepresentation" in found:
        found["PixelRepresentation"] = found["PixelRepresentation"].astype("int8")
    if set(SPACING) <= set(index):
        numbers = [pa.array(index[name], pa.float64(), from_pandas=True) for name in SPACING]
        texts = [column.cast(pa.string()) for column in numbers]  # 0.488281\0.488281, empty where one is missing
        joined = pc.fill_null(pc.binary_join_element_wise(*texts, "\\"), "")
        found["PixelSpacing"] = np.asarray(joined, dtype=object)
    rest = [name for name in index if name not in (*known, *SPACING, *labels, BOXES)]
    return pd.concat([found, index[rest]], axis=1)


def short(site: str) -> str:
    """Return S0's name of a site, which is `test` for the test site."""
    return "test" if site == TEST_SITE else site


def check_names(sites: Iterable[str]) -> None:
    """Raise ValueError for sites whose folder or table would have a name that is taken; case is ignored."""
    taken = {_normalize_name(name) for name in (TRAIN, TRAIN_METADATA, TEST_METADATA, IMAGES)}
    for site in sites:
        for name in (site, f"{short(site)}.csv"):
            if _normalize_name(name) in taken:
                raise ValueError(
                    f"partition.layout: expected site names that s0 leaves free, got {site!r}, whose {name} would be something "
                    "else as well; rename the site or use partition.layout=standard"
                )
            taken.add(_normalize_name(name))


def read_unlabelled(folder: Path, task: Task) -> pd.DataFrame | None:
    """Read the index of the prepared set without labels at `folder`; None where there is no such set."""
    if not folder.exists():
        return None
    prepared = read_prepared(folder, task)
    return None if prepared.labels else prepared.index


def _normalize_name(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _write(table: pd.DataFrame, path: Path) -> None:
    write_csv(pa.Table.from_pandas(table, preserve_index=False), path)
