"""Real DICOM files through `prepare` at their own size: is every pixel, and every order of slices, what the files say?

    python tests/e2e/check_pixels.py --dicom <folder> [<folder> ...]

Files of one size are prepared together, in this process; files with an id that another one has go into a set of their own.
Each 16-bit PNG is compared with clip(round(HU), -1024, 3071), where HU are the stored values that pydicom decodes times slope plus
intercept in float64. Values that the index says were stored modulo a power of two lose it first, and pixels that the header names as
padding (as 16 bits, from PixelPaddingValue to PixelPaddingRangeLimit) are -1024. The order in each series is compared with that of
ImagePositionPatient on the slice normal, turned towards the head. It prints a table, a row a folder, and as the last line one JSON
object; exit code 1 if a pixel differs or a slice stands in another place.
"""

import argparse
import json
import logging
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
from numpy.typing import NDArray
from PIL import Image

from fl_rsna.cohort.prepared.prepare import Request, prepare_folder, read_rejected
from fl_rsna.imaging.sources import find_files
from fl_rsna.imaging.workers import convert_here
from fl_rsna.settings.data import ImageKind
from fl_rsna.task import ICH

TOLERANCE_MM = 0.01
COUNTS = ("files", "slices", "rejected", "pixels", "pixels that differ", "series", "slices out of order")


def groups_of(folder: Path) -> dict[tuple[int, int], list[Path]]:
    """Files by their longer side and by how many before them have the same id; those that pydicom cannot read by 0."""
    seen, groups = Counter[str](), dict[tuple[int, int], list[Path]]()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            ds = pydicom.dcmread(path, stop_before_pixels=True)
            side, image_id = max(int(ds.Rows), int(ds.Columns)), str(ds.SOPInstanceUID)
        except Exception:
            continue  # no DICOM image
        groups.setdefault((side, seen[image_id]), []).append(path)
        seen[image_id] += 1
    return groups


def prepared(files: list[Path], side: int, out: Path) -> tuple[pd.DataFrame, int]:
    """The index of the files and how many were rejected."""
    listed = out.with_suffix(".csv")
    pd.DataFrame({"path": [str(path.absolute()) for path in files]}).to_csv(listed, index=False)
    request = Request(task=ICH, image=ImageKind.hu, size=side, hash_ids=False, salt="")
    try:
        made = prepare_folder(out, request, find_files(listed), None, max_rejected=1, convert=convert_here)
    except ValueError as error:
        if "got none in" not in str(error):
            raise
        return pd.DataFrame(), len(files)
    return made.index, len(read_rejected(out))


def expected_hu(ds: pydicom.Dataset, wrapped: bool) -> NDArray[np.float64]:
    """HU as they must stand in the PNG, [rows, columns]."""
    stored, bits = ds.pixel_array.astype(np.int64), int(ds.BitsStored)
    values = np.where(stored >= (3000 if bits == 12 else 1 << bits - 1), stored - (1 << bits), stored)
    hu = (values if wrapped else stored).astype(np.float64) * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
    hu = np.clip(np.rint(hu), -1024, 3071)
    if "PixelPaddingValue" in ds:
        ends = sorted((int(ds.PixelPaddingValue), int(ds.get("PixelPaddingRangeLimit", ds.PixelPaddingValue))))
        signs = (0, 65536) if ds.PixelRepresentation == 0 else (0, -65536)
        hu[np.any([(stored >= ends[0] + sign) & (stored <= ends[1] + sign) for sign in signs], axis=0)] = -1024
    return hu


def differing(ds: pydicom.Dataset, row: Any, images: Path) -> int:
    """How many pixels of a PNG are not what the file says; the slice stands in the middle of its square."""
    expected = expected_hu(ds, bool(row.wrapped_12_bit or row.sign_restored))
    with Image.open(images / f"{row.image_id}.png") as png:
        found = np.array(png).astype(np.int64) - 1024
    top, left = ((found.shape[axis] - expected.shape[axis]) // 2 for axis in (0, 1))
    square = np.full(found.shape, -1024.0)
    square[top : top + expected.shape[0], left : left + expected.shape[1]] = expected
    return int(np.count_nonzero(found != square))


def height_mm(ds: pydicom.Dataset) -> float:
    """Where the slice lies along its normal, from the feet to the head; NaN without a position."""
    if "ImagePositionPatient" not in ds or "ImageOrientationPatient" not in ds:
        return np.nan
    across, down = np.array(ds.ImageOrientationPatient, float).reshape(2, 3)
    normal = np.cross(across, down)
    return float(np.array(ds.ImagePositionPatient, float) @ (normal if normal[2] >= 0 else -normal))


def misplaced(index: pd.DataFrame, heights: dict[str, float]) -> int:
    """Slices that lie below the one before them in their series."""
    ranked = index.assign(height=index["image_id"].map(heights)).sort_values("rank", kind="stable")
    steps = ranked.groupby(["patient_id", "series_id"], sort=False)["height"].diff()
    return int((steps < -TOLERANCE_MM).sum())


def facts_of(folder: Path) -> Iterator[dict[str, int]]:
    """Counts of each set of files."""
    for (side, _), files in groups_of(folder).items():
        with tempfile.TemporaryDirectory() as name:
            index, rejected = prepared(files, side, Path(name) / "set")
            counts = {"files": len(files), "slices": len(index), "rejected": rejected}
            if len(index):
                every = (pydicom.dcmread(path) for path in files)
                rows, heights = {row.image_id: row for row in index.itertuples()}, dict[str, float]()
                counts |= {"pixels": 0, "pixels that differ": 0}
                for ds in every:
                    image_id = str(ds.get("SOPInstanceUID", ""))
                    if image_id in rows:
                        heights[image_id] = height_mm(ds)
                        counts["pixels"] += ds.Rows * ds.Columns
                        images = Path(name) / "set" / "images"
                        counts["pixels that differ"] += differing(ds, rows[image_id], images)
                series = index.groupby(["patient_id", "series_id"]).ngroups
                counts |= {"series": series, "slices out of order": misplaced(index, heights)}
            yield counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dicom", type=Path, nargs="+", required=True, help="folders with DICOM files")
    words = parser.parse_args()
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    warnings.simplefilter("ignore")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    found = {}
    print(f"{'folder':<16}" + "".join(f"{name:>20}" for name in COUNTS))
    for folder in words.dicom:
        total = Counter[str]()
        for counts in facts_of(folder):
            total.update(counts)
        found[folder.name] = {name: total[name] for name in COUNTS}
        print(f"{folder.name:<16}" + "".join(f"{total[name]:>20}" for name in COUNTS))
    print(json.dumps(found))
    sys.exit(any(facts["pixels that differ"] or facts["slices out of order"] for facts in found.values()))


if __name__ == "__main__":
    main()
