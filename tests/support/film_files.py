"""Tiny chest films for tests: one tag, one lookup table or one transfer syntax changed at a time."""

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import write_tiny
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from fl_rsna.imaging.dicom.radiograph import to_grey16
from fl_rsna.imaging.dicom.reader import Film, read_film
from fl_rsna.imaging.dicom.rejections import Reason, Rejected

STORAGE = "1.2.840.10008.5.1.4.1.1."
DX, CR, DX_RAW = STORAGE + "1.1", STORAGE + "1", STORAGE + "1.1.1"
FILMS = ("DX", "CR")
OF_SLICES = ("RescaleSlope", "RescaleIntercept", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
EVERY = np.arange(65536, dtype=np.uint16).reshape(256, 256)  # all patterns of 16 bits


def film_bytes(folder: Path, pixels: NDArray[np.integer] | None = None, **tags: object) -> bytes:
    """`pixels` [H, W] (default 4x4 ramp) as an unsigned 16-bit DX film; `tags` replace or add, None leaves out."""
    stored = np.arange(16, dtype=np.uint16).reshape(4, 4) if pixels is None else pixels
    every = {"Modality": "DX", "BodyPartExamined": "CHEST", "ViewPosition": "PA", "sop_class": DX, **tags}
    without = [*(name for name in OF_SLICES if name not in tags), *(name for name in tags if tags[name] is None)]
    kept = {name: value for name, value in every.items() if value is not None}
    return write_tiny(folder / "film.dcm", hu=stored, without=without, **kept).read_bytes()  # type: ignore[arg-type]


def with_table(data: bytes, keyword: str, first: int, bits: int, entries: list[int], vr: str = "US") -> bytes:
    """The film with a lookup table of this keyword; OW holds words, OB packed bytes."""
    ds, item = pydicom.dcmread(io.BytesIO(data)), Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries) % 65536, first, bits])
    packed = np.array(entries, np.uint8 if vr == "OB" else "<u2").tobytes()
    item.add_new("LUTData", "OW" if vr == "OB" else vr, entries if vr == "US" else packed)
    setattr(ds, keyword, Sequence([item]))
    return written(ds)


def written(ds: Dataset) -> bytes:
    stream = io.BytesIO()
    ds.save_as(stream)
    return stream.getvalue()


def relabelled(data: bytes) -> bytes:
    """The same pixels and tables as a frontal DX film of a chest, so that the reader gets to them."""
    ds = pydicom.dcmread(io.BytesIO(data))
    ds.Modality, ds.SOPClassUID, ds.BodyPartExamined, ds.ViewPosition = "DX", DX, "CHEST", "PA"
    ds.PatientID, ds.SOPInstanceUID = ds.get("PatientID") or "P1", ds.get("SOPInstanceUID") or "1.2"
    return written(ds)


def film_of(data: bytes, *, thorough: bool = False) -> Film:
    return read_film(data, modalities=FILMS, thorough=thorough)


def grey_of(data: bytes) -> NDArray[np.uint16]:
    film = film_of(data)
    return to_grey16(film.stored, film.presentation)


def film_rejection(data: bytes) -> tuple[Reason, str]:
    with pytest.raises(Rejected) as caught:
        film_of(data)
    assert caught.value.detail
    return caught.value.reason, caught.value.tag
