"""Tiny DICOM files for tests: CT slices of a few pixels, one tag changed at a time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fl_rsna.imaging.dicom import write_slice

AXIAL = [1, 0, 0, 0, 1, 0]  # ImageOrientationPatient of an untilted slice: rows to the left, columns to the back


def write_tiny(
    path: Path,
    image_id: str = "ID_1",
    patient: str = "P1",
    series: str = "SE1",
    z: float = 0.0,
    *,
    hu: NDArray[np.int16] | None = None,
    without: Sequence[str] = (),
    sop_class: str | None = None,
    **tags: object,
) -> Path:
    """Write `hu` [H, W] (default 4x4 of 30 HU) as signed 16-bit CT; `tags` replace or add, `without` leaves out."""
    pixels = np.full((4, 4), 30, np.int16) if hu is None else hu
    every = {
        "Modality": "CT",
        "SOPInstanceUID": image_id,
        "PatientID": patient,
        "StudyInstanceUID": f"ST_{series}",
        "SeriesInstanceUID": series,
        "ImagePositionPatient": [0, 0, z],
        "ImageOrientationPatient": AXIAL,
        "PixelSpacing": [0.5, 0.5],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": max(0, int(str(tags.get("BitsStored", 16))) - 1),
        "PixelRepresentation": int(pixels.dtype == np.int16),
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
        **tags,
    }
    kept = {keyword: value for keyword, value in every.items() if keyword not in without}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_slice(path, pixels, kept, **({"sop_class": sop_class} if sop_class else {}))
    return path
