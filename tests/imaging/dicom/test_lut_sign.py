"""Where a film's lookup table begins is signed or not by what goes into it, whatever kind of number was written."""

import io
import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import rewritten
from film_files import film_bytes, film_of, film_rejection, grey_of, written
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from fl_rsna.imaging.dicom.lut import read_lut
from fl_rsna.imaging.dicom.radiograph import WHITE
from fl_rsna.imaging.dicom.rejections import Reason

pytestmark = pytest.mark.filterwarnings("ignore:::pydicom")  # pytest resets the filter that dicom.py sets
RISING = np.linspace(0, 4095, 3001).astype(np.uint16)  # the grey of `first`, `first` + 1, ...
INSIDE = np.arange(3001)[: 54 * 54].reshape(54, 54)  # places in the table


def with_descriptor(data: bytes, keyword: str, first: int, vr: str, order: str = "<") -> bytes:
    """A table of 3,001 entries of 12 bits whose descriptor is written as `vr`; the same 16 bits in each.

    pydicom writes OW as it is, so its bytes have the `order` of the file to come.
    """
    pattern = first % 65536
    ds, item = pydicom.dcmread(io.BytesIO(data)), Dataset()
    if vr == "OW":
        item.add_new("LUTDescriptor", "OW", struct.pack(f"{order}3H", 3001, pattern, 12))
    else:
        item.add_new("LUTDescriptor", vr, [3001, pattern - 65536 if vr == "SS" and pattern >= 32768 else pattern, 12])
    item.add_new("LUTData", "OW", RISING.astype(f"{order}u2").tobytes())
    setattr(ds, keyword, Sequence([item]))
    return written(ds)


def film_with_table(folder: Path, keyword: str, first: int, vr: str, signed: bool, intercept: int, order: str) -> bytes:
    """A film whose every pixel has a grey of its own in a table that begins with `first`."""
    stored = (INSIDE + first - intercept).astype(np.int16 if signed else np.uint16)
    rescale = {"RescaleSlope": 1, "RescaleIntercept": intercept} if intercept else {}
    window = {"WindowCenter": 2048, "WindowWidth": 4096} if keyword.startswith("Modality") else {}
    return with_descriptor(film_bytes(folder, stored, **rescale, **window), keyword, first, vr, order)


@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("vr", ["US", "SS", "OW"])
@pytest.mark.parametrize(
    ("keyword", "first", "signed", "intercept"),
    [
        ("VOILUTSequence", -1500, True, 0),
        ("VOILUTSequence", -1500, False, -2000),
        ("VOILUTSequence", -1500, True, 500),
        ("VOILUTSequence", 33500, False, 0),
        ("VOILUTSequence", 33500, True, 34000),  # a rescale that gives nothing below 0
        ("VOILUTSequence", 33500, False, -10),  # it could give less than 0, and gives none
        ("VOILUTSequence", 100, False, -10),
        ("ModalityLUTSequence", -1500, True, 0),
        ("ModalityLUTSequence", 33500, False, 0),
    ],
)
def test_a_table_begins_where_its_input_can_be(
    tmp_path: Path, keyword: str, first: int, signed: bool, intercept: int, vr: str, syntax: str | None
) -> None:
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    data = film_with_table(tmp_path, keyword, first, vr, signed, intercept, order)
    grey = grey_of(data if syntax is None else rewritten(data, syntax))
    np.testing.assert_allclose(grey, RISING[INSIDE].astype(float) * WHITE / 4095, atol=0.51)


def test_a_voi_table_behind_a_modality_table_begins_with_an_unsigned_number(tmp_path: Path) -> None:
    """A modality table gives nothing below 0, of signed pixels neither."""
    ds = pydicom.dcmread(io.BytesIO(film_bytes(tmp_path, np.array([[-2, -1, 0, 1]], np.int16))))
    for keyword, first, entries in (
        ("ModalityLUTSequence", -2, [40000, 40001, 40002, 40003]),
        ("VOILUTSequence", 40000, [0, 85, 170, 255]),
    ):
        item = Dataset()
        item.add_new("LUTDescriptor", "SS", [4, first if first < 32768 else first - 65536, 16 if first < 0 else 8])
        item.add_new("LUTData", "US", entries)
        setattr(ds, keyword, Sequence([item]))
    assert grey_of(written(ds)).ravel().tolist() == [0, 21845, 43690, WHITE]


def test_a_table_that_holds_no_pixel_with_either_sign_is_named(tmp_path: Path) -> None:
    data = with_descriptor(
        film_bytes(tmp_path, np.arange(8000, 8016, dtype=np.uint16).reshape(4, 4)), "VOILUTSequence", 40000, "US"
    )
    assert film_rejection(data) == (Reason.bad_lut, "VOILUTSequence")


def test_a_table_that_holds_some_pixels_keeps_the_sign_of_the_standard(tmp_path: Path) -> None:
    stored = np.linspace(-3000, 3000, 64).astype(np.int16).reshape(8, 8)
    film = film_of(with_descriptor(film_bytes(tmp_path, stored), "VOILUTSequence", -1500, "US"))
    assert film.presentation.voi_lut is not None
    assert film.presentation.voi_lut.first == -1500


@pytest.mark.parametrize("count", [3, 4])
@pytest.mark.parametrize("little", [True, False])
def test_entries_of_eight_bits_may_be_packed_into_words(count: int, little: bool) -> None:
    entries = [0, 51, 102, 255][:count]
    packed = bytes(entries + [0] * (count % 2))
    words = np.frombuffer(packed, "<u2" if little else ">u2").tolist()
    for data in (packed, words, entries):
        table = read_lut([count, 0, 8], data, little=little, tag="VOILUTSequence")
        assert table.entries.tolist() == entries


def test_a_whole_table_of_signed_numbers_is_read_as_sixteen_bits() -> None:
    entries = np.arange(65536).astype(np.uint16).view(np.int16).tolist()
    table = read_lut([0, -32768, 16], entries, little=True, tag="VOILUTSequence")
    assert (table.first, len(table.entries), int(table.entries[-1])) == (32768, 65536, 65535)
    assert len(read_lut([-25536, 0, 16], entries, little=True, tag="VOILUTSequence").entries) == 40000
