"""Pixels that a header names as padding are air in a slice, whatever they would have been and however it is written."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import rewritten, write_tiny
from few_files import only
from film_files import film_bytes, film_of, grey_of
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from fl_rsna.imaging.convert import Converted
from fl_rsna.imaging.dicom.reader import read_slice
from fl_rsna.imaging.png_store import read_png
from fl_rsna.settings.data import ImageKind

pytestmark = pytest.mark.filterwarnings("ignore:::pydicom")  # pytest resets the filter that dicom.py sets
SIZE = 64
ROW, COLUMN = np.mgrid[:SIZE, :SIZE] - 31.5
OUTSIDE = np.hypot(ROW, COLUMN) > 31.5  # the corners beyond the field of view
HEAD = np.where(np.hypot(ROW, COLUMN) < 20, 35, -1000)  # HU


def stored_head(padding: int, intercept: int, dtype: type = np.uint16) -> NDArray[np.integer]:
    """The head in stored values, with the 16 bits of `padding` outside of the field of view."""
    stored = (HEAD - intercept).astype(np.int16)
    stored[OUTSIDE] = np.array(padding % 65536, np.uint16).view(np.int16)
    return stored.view(dtype)


def with_padding(path: Path, vr: str, *values: int) -> bytes:
    ds = pydicom.dcmread(path)
    for keyword, value in zip(("PixelPaddingValue", "PixelPaddingRangeLimit"), values, strict=False):
        ds.add_new(keyword, vr, value)
    ds.save_as(path)
    return path.read_bytes()


def hu_of(folder: Path, data: bytes) -> tuple[NDArray[np.integer], Converted]:
    """The 16-bit PNG as HU at its own size, and the facts beside it."""
    (folder / "in").mkdir(exist_ok=True)
    (folder / "in" / "a").write_bytes(data)
    facts = only(folder / "in", folder / "out", size=SIZE)
    return read_png(folder / "out" / facts.written).astype(int) - 1024, facts


@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless, JPEG2000Lossless])
@pytest.mark.parametrize(
    ("bits", "sign", "intercept", "padding", "vr", "hu"),
    [
        (16, 0, -1024, 63536, "US", 62512),
        (16, 0, -1024, 63536, "SS", 62512),  # written as -2000
        (16, 0, -1024, 65535, "US", 64511),
        (16, 1, 0, -2000, "US", -2000),  # written as 63536
        (16, 1, -1024, 2000, "SS", 976),  # what bone has, too
        (16, 1, 0, 0, "SS", 0),  # what water has, too
        (12, 0, -1024, 4095, "US", 3071),
        (12, 0, -1024, 2000, "US", 976),
        (12, 1, 0, 2047, "SS", 2047),
        (12, 1, 0, 2047, "US", 2047),
    ],
)
def test_padding_around_a_slice_is_air(
    tmp_path: Path, bits: int, sign: int, intercept: int, padding: int, vr: str, hu: int, syntax: str | None
) -> None:
    stored = stored_head(padding, intercept, np.int16 if sign else np.uint16)
    path = write_tiny(tmp_path / "a", hu=stored, BitsStored=bits, RescaleIntercept=intercept)
    written = padding if vr == "US" or padding < 32768 else padding - 65536
    data = with_padding(path, vr, written % 65536 if vr == "US" else written)
    found, facts = hu_of(tmp_path, data if syntax is None else rewritten(data, syntax))
    np.testing.assert_array_equal(found, np.where(OUTSIDE, -1024, HEAD))
    assert (facts.statistics.hu_min, facts.statistics.hu_max, facts.statistics.padding_hu) == (-1024, 35, hu)
    assert (facts.statistics.crop_top, facts.statistics.crop_left) != (0, 0)  # the head's box, not the picture's


@pytest.mark.parametrize("pattern", [0xF830, 0x8000 | 2000, 0xF000 | 2000])
@pytest.mark.parametrize("syntax", [None, RLELossless])
def test_padding_may_have_more_bits_than_are_stored(tmp_path: Path, pattern: int, syntax: str | None) -> None:
    """Tissue that has the low bits of the padding stays: 0xF830 is -2000, and its low twelve bits are 2096."""
    stored = stored_head(pattern, -1024)
    stored[30:33, 30:33] = pattern & 0xFFF
    path = write_tiny(tmp_path / "a", hu=stored, BitsStored=12, RescaleIntercept=-1024)
    data = with_padding(path, "US", pattern)
    found, _ = hu_of(tmp_path, data if syntax is None else rewritten(data, syntax))
    assert (found[OUTSIDE] == -1024).all()
    assert (found[30:33, 30:33] == (pattern & 0xFFF) - 1024).all()
    assert (found[~OUTSIDE] == HEAD[~OUTSIDE]).sum() == (~OUTSIDE).sum() - 9


def test_every_value_up_to_the_limit_is_padding(tmp_path: Path) -> None:
    stored = stored_head(60000, -1024)
    stored[:32][OUTSIDE[:32]] = 65000
    path = write_tiny(tmp_path / "a", hu=stored, RescaleIntercept=-1024)
    for ends in ((60000, 65000), (65000, 60000)):
        found, _ = hu_of(tmp_path, with_padding(path, "US", *ends))
        np.testing.assert_array_equal(found, np.where(OUTSIDE, -1024, HEAD))


@pytest.mark.parametrize(("named", "kept"), [(0, 0), (35, 35), (4095, 3071)])
def test_tissue_that_has_the_value_of_padding_stays(tmp_path: Path, named: int, kept: int) -> None:
    """Wrong headers name 0 where 0 is water; saturated metal has the greatest value, as padding may have."""
    hu = HEAD.astype(np.int16)
    hu[28:36, 28:36], hu[0, 0] = named, named  # inside, and one speck at the edge
    path = write_tiny(tmp_path / "a", hu=hu)
    found, facts = hu_of(tmp_path, with_padding(path, "SS", named))
    assert (found[28:36, 28:36] == kept).all()
    assert found[32, 20] == 35
    assert facts.statistics.padding_hu is None


def test_padding_is_air_in_windows_too(tmp_path: Path) -> None:
    for padding, intercept, bits in ((63536, -1024, 16), (4095, -1024, 12), (2000, -1024, 16)):
        (tmp_path / "in").mkdir(exist_ok=True)
        path = tmp_path / "in" / "a"
        write_tiny(path, hu=stored_head(padding, intercept), BitsStored=bits, RescaleIntercept=intercept)
        with_padding(path, "US", padding)
        facts = only(tmp_path / "in", tmp_path / "out", kind=ImageKind.windows, size=SIZE)
        grey = read_png(tmp_path / "out" / facts.written)
        assert not grey[OUTSIDE].any()
        assert (grey[32, 32] > 0).all()


def test_padding_of_a_wrapped_file_is_no_sign_of_a_wrap(tmp_path: Path) -> None:
    """12 bits, no room below 0: air is 0, and what stands at 4095 is padding, not -1 HU."""
    stored = np.where(OUTSIDE, 4095, np.maximum(HEAD, 0)).astype(np.uint16)
    path = write_tiny(tmp_path / "a", hu=stored, BitsStored=12)
    found, facts = hu_of(tmp_path, with_padding(path, "US", 4095))
    np.testing.assert_array_equal(found, np.where(OUTSIDE, -1024, np.maximum(HEAD, 0)))
    assert not facts.statistics.wrapped_12_bit


@pytest.mark.parametrize("padding", [-2000, -1024, -32768])
def test_padding_that_is_air_anyway_changes_nothing(tmp_path: Path, padding: int) -> None:
    path = write_tiny(tmp_path / "a", hu=stored_head(padding, 0, np.int16))
    plain, facts = hu_of(tmp_path, path.read_bytes())
    named, same = hu_of(tmp_path, with_padding(path, "SS", padding))
    np.testing.assert_array_equal(plain, named)
    assert facts.statistics == same.statistics
    assert read_slice(path.read_bytes(), modalities=("CT",)).rescale.padding is None  # one table for all such files


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("syntax", [None, RLELossless])
def test_padding_of_a_film_may_have_more_bits_than_are_stored(
    tmp_path: Path, photometric: str, syntax: str | None
) -> None:
    stored = np.arange(SIZE * SIZE, dtype=np.uint16).reshape(SIZE, SIZE)
    stored[OUTSIDE] = 0xF830
    stored[32, 32] = 2096
    film_bytes(tmp_path, stored, BitsStored=12, PhotometricInterpretation=photometric)
    data = with_padding(tmp_path / "film.dcm", "US", 0xF830)
    data = data if syntax is None else rewritten(data, syntax)
    grey = grey_of(data)
    assert not grey[OUTSIDE].any()
    assert 0 < grey[32, 32] < 65535
    assert film_of(data).header.bits_stored == 12
