"""Stored values become grey as the header says the film is meant to be seen, and turned over by its tag alone."""

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import HARD, PYDICOM, rewritten
from film_files import EVERY, film_bytes, film_of, film_rejection, grey_of, relabelled, with_table
from numpy.typing import NDArray
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import JPEG2000Lossless, RLELossless

from fl_rsna.imaging.dicom.lut import Function, Window
from fl_rsna.imaging.dicom.radiograph import WHITE, compute_padding_share, to_grey16
from fl_rsna.imaging.dicom.rejections import Reason

pytestmark = pytest.mark.filterwarnings("ignore:::pydicom")  # pytest resets the filter that dicom.py sets
FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
RESCALES = [(None, None), (1, 0), (0.684, 200), (-1, 4095), (2.5, -300)]


def pydicoms_grey(data: bytes) -> NDArray[np.float64] | None:
    """0 to 1 of the output range of pydicom's own stages, turned over for MONOCHROME1; None where there is no VOI."""
    ds = pydicom.dcmread(io.BytesIO(data))
    values = apply_modality_lut(ds.pixel_array, ds)
    if "VOILUTSequence" in ds:
        low, high = 0.0, 2.0 ** int(ds.VOILUTSequence[0].LUTDescriptor[2]) - 1
    elif "WindowCenter" in ds:
        least = -(2 ** (ds.BitsStored - 1)) if ds.PixelRepresentation else 0
        ends = np.array([least, least + 2**ds.BitsStored - 1], float)
        low, high = ends * float(ds.get("RescaleSlope", 1)) + float(ds.get("RescaleIntercept", 0))
        if "ModalityLUTSequence" in ds:
            low, high = 0.0, 2.0 ** int(ds.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    else:
        return None
    share = (apply_voi_lut(values, ds).astype(float) - low) / (high - low)
    return 1 - share if ds.PhotometricInterpretation == "MONOCHROME1" else share


def agree(data: bytes) -> None:
    expected = pydicoms_grey(data)
    assert expected is not None
    np.testing.assert_allclose(grey_of(data), expected * WHITE, atol=0.51)  # rounding to whole numbers, and no more


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("bits", "sign"), [(8, 0), (10, 0), (12, 0), (12, 1), (14, 0), (16, 0), (16, 1)])
def test_windows_are_pydicoms_for_every_stored_value(
    tmp_path: Path, bits: int, sign: int, function: str, photometric: str
) -> None:
    """All 65,536 patterns, those with bits above BitsStored among them."""
    tags = {"PhotometricInterpretation": photometric, "BitsStored": bits, "VOILUTFunction": function}
    middle = 0 if sign else 2 ** (bits - 1)
    window = {"WindowCenter": [middle + 7.5, 1], "WindowWidth": [2 ** (bits - 2), 1]}  # the first counts
    agree(film_bytes(tmp_path, EVERY.view(np.int16) if sign else EVERY, **tags, **window))


@pytest.mark.parametrize(("slope", "intercept"), [rescale for rescale in RESCALES if rescale[0] != -1])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_windows_are_in_rescaled_values(tmp_path: Path, function: str, slope: float, intercept: float) -> None:
    tags = {"BitsStored": 12, "VOILUTFunction": function, "WindowCenter": 1600, "WindowWidth": 2800}
    agree(film_bytes(tmp_path, EVERY % 4096, **tags, RescaleSlope=slope, RescaleIntercept=intercept))


def test_a_falling_rescale_turns_the_order_and_not_the_window(tmp_path: Path) -> None:
    """PS3.3 C.11.1: what comes out of the rescale is what the window sees; dark and bright end are its."""
    stored = np.array([[0, 1000, 2000, 3000]], np.uint16)
    window = {"WindowCenter": 2000, "WindowWidth": 2000, "VOILUTFunction": "LINEAR_EXACT", "BitsStored": 12}
    rising = grey_of(film_bytes(tmp_path, 3000 - stored, **window))
    falling = grey_of(film_bytes(tmp_path, stored, RescaleSlope=-1, RescaleIntercept=3000, **window))
    np.testing.assert_array_equal(falling, rising)
    assert rising.tolist() == [[WHITE, 32768, 0, 0]]


@pytest.mark.parametrize("width", [1, 1.0, 2])
def test_the_narrowest_windows_divide_by_nothing(tmp_path: Path, width: float) -> None:
    agree(film_bytes(tmp_path, EVERY, WindowCenter=500, WindowWidth=width))


@pytest.mark.parametrize(
    "tags",
    [
        {"WindowCenter": 5, "WindowWidth": 0},
        {"WindowCenter": 5, "WindowWidth": -3},
        {"WindowCenter": 5, "WindowWidth": 0.5},  # LINEAR wants 1 at least
        {"WindowCenter": 5},
        {"WindowWidth": 5},
        {"WindowCenter": 5, "WindowWidth": 5, "VOILUTFunction": "CUBIC"},
    ],
)
def test_a_window_that_means_nothing_is_none(tmp_path: Path, tags: dict[str, object]) -> None:
    plain = film_bytes(tmp_path, EVERY)
    odd = film_bytes(tmp_path, EVERY, **tags)
    assert film_of(odd).header.voi == film_of(plain).header.voi == "percentiles"
    np.testing.assert_array_equal(grey_of(odd), grey_of(plain))


def test_extreme_windows_stay_in_range() -> None:
    values = np.array([-1e308, -1e30, 0.0, 1e30, 1e308])
    for function in Function:
        share = Window(center=0.0, width=1e-300 if function is not Function.LINEAR else 1.0, function=function).of(
            values
        )
        assert share.tolist()[::4] == pytest.approx([0, 1])
        assert np.isfinite(share).all()


@pytest.mark.parametrize("vr", ["US", "OW"])
def test_tables_are_pydicoms_for_every_stored_value(tmp_path: Path, vr: str) -> None:
    """A modality table, a VOI table, and both; values outside them become their ends."""
    falling = [65535 - 16 * n for n in range(4096)]
    plain = film_bytes(tmp_path, EVERY, WindowCenter=30000, WindowWidth=40000)
    both = with_table(
        with_table(plain, "ModalityLUTSequence", 100, 16, falling, vr), "VOILUTSequence", 2000, 16, falling, vr
    )
    agree(with_table(plain, "ModalityLUTSequence", 100, 16, falling, vr))
    agree(with_table(plain, "VOILUTSequence", 100, 16, falling, vr))
    agree(both)
    assert [film_of(data).header.voi for data in (plain, both)] == ["window", "lut"]  # a table before a window


def test_a_table_begins_below_zero_for_signed_values(tmp_path: Path) -> None:
    signed = np.arange(-8, 8, dtype=np.int16).reshape(4, 4)
    film = with_table(film_bytes(tmp_path, signed), "VOILUTSequence", -4, 8, [10, 20, 30, 40, 255])
    assert (grey_of(film) // 257).ravel().tolist() == [10] * 5 + [20, 30, 40] + [255] * 8


def test_a_whole_table_is_stated_as_zero_entries(tmp_path: Path) -> None:
    entries = list(range(65536))
    film = with_table(film_bytes(tmp_path, EVERY), "VOILUTSequence", 0, 16, entries, "OW")
    np.testing.assert_array_equal(grey_of(film), EVERY)


def test_eight_bit_entries_may_be_packed(tmp_path: Path) -> None:
    stored = np.arange(4, dtype=np.uint16).reshape(2, 2)
    film = with_table(film_bytes(tmp_path, stored), "VOILUTSequence", 0, 8, [0, 51, 102, 255], "OB")
    assert (grey_of(film) // 257).ravel().tolist() == [0, 51, 102, 255]


@pytest.mark.parametrize(
    ("bits", "entries", "white"),
    [
        (12, [0, 4095], 4095),
        (16, [0, 4095], 4095),
        (10, [0, 4095], 4095),
        (16, [0, 40000], 65535),
        (12, [0, 2048], 4095),
    ],
)
def test_white_is_what_a_tables_bits_can_hold(tmp_path: Path, bits: int, entries: list[int], white: int) -> None:
    """Stated bits count unless the entries say that they cannot be meant."""
    film = with_table(film_bytes(tmp_path, np.array([[0, 1]], np.uint16)), "VOILUTSequence", 0, bits, entries)
    assert grey_of(film).ravel().tolist() == [0, round(entries[1] / white * WHITE)]


def test_tables_that_cannot_be_are_named(tmp_path: Path) -> None:
    plain = film_bytes(tmp_path)
    for keyword in ("ModalityLUTSequence", "VOILUTSequence"):
        bits = with_table(plain, keyword, 0, 4, [1, 2, 3])
        short = with_table(plain, keyword, 0, 16, [1, 2, 3])
        descriptor = np.array([3, 0, 16], "<u2").tobytes()
        assert descriptor in short
        short = short.replace(descriptor, np.array([4, 0, 16], "<u2").tobytes())
        assert film_rejection(bits) == film_rejection(short) == (Reason.bad_lut, keyword)
    beyond = {"RescaleSlope": 1, "RescaleIntercept": "1e308"}  # beside which every value is the same
    for tags in ({"RescaleSlope": 0, "RescaleIntercept": 0}, {"RescaleSlope": 1}, {"RescaleIntercept": 1}, beyond):
        assert film_rejection(film_bytes(tmp_path, **tags)) == (Reason.bad_lut, "RescaleSlope")


def test_without_a_window_the_middle_of_the_values_is_shown(tmp_path: Path) -> None:
    """10,000 pixels of which 40 are far below and 40 far above: both ends stay out of it."""
    stored = np.full(10000, 1000, np.uint16)
    stored[:40], stored[40:80], stored[80:5000] = 3, 60000, 2000
    grey = grey_of(film_bytes(tmp_path, stored.reshape(100, 100))).ravel()
    assert (grey[0], grey[40], grey[100], grey[-1]) == (0, WHITE, WHITE, 0)
    ramp = np.random.default_rng(0).integers(0, 4096, (128, 128)).astype(np.uint16)
    low, high = np.percentile(ramp, (0.5, 99.5), method="inverted_cdf")
    expected = np.rint(np.clip((ramp - float(low)) / (float(high) - float(low)), 0, 1) * WHITE)
    np.testing.assert_array_equal(grey_of(film_bytes(tmp_path, ramp)), expected)


@pytest.mark.parametrize(
    "tags", [{}, {"WindowCenter": 2000, "WindowWidth": 3000}, {"WindowCenter": 2000, "WindowWidth": 900, "VOILUTFunction": "SIGMOID"}]
)  # fmt: skip
def test_monochrome1_is_the_other_ones_negative_and_nothing_else_decides(
    tmp_path: Path, tags: dict[str, object]
) -> None:
    """Of a film that is nearly all black, nearly all white, or both halves; PresentationLUTShape says nothing new."""
    rng = np.random.default_rng(1)
    for share in (0.02, 0.5, 0.98):
        stored = np.where(rng.random((64, 64)) < share, 100, 3000).astype(np.uint16) + rng.integers(
            0, 90, (64, 64), np.uint16
        )
        grey = {
            (photometric, shape): grey_of(
                film_bytes(tmp_path, stored, PhotometricInterpretation=photometric, PresentationLUTShape=shape, **tags)
            ).astype(int)
            for photometric in ("MONOCHROME1", "MONOCHROME2")
            for shape in (None, "IDENTITY", "INVERSE")
        }
        for (photometric, _), found in grey.items():
            np.testing.assert_array_equal(found, grey[photometric, None])
        np.testing.assert_array_equal(grey["MONOCHROME1", None], WHITE - grey["MONOCHROME2", None])


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("value", [0, 7, 65535])
def test_a_film_of_one_value_is_black(tmp_path: Path, photometric: str, value: int) -> None:
    film = film_bytes(tmp_path, np.full((4, 4), value, np.uint16), PhotometricInterpretation=photometric)
    assert not grey_of(film).any()


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("value", "limit", "count"), [(0, None, 1), (5, None, 1), (0, 3, 4), (15, 13, 3), (65535, None, 0)]
)
def test_padding_is_black_and_counts_for_nothing(
    tmp_path: Path, photometric: str, value: int, limit: int | None, count: int
) -> None:
    stored = np.arange(16, dtype=np.uint16).reshape(4, 4)
    tags = {"PhotometricInterpretation": photometric, "PixelPaddingValue": value, "PixelPaddingRangeLimit": limit}
    film = film_of(film_bytes(tmp_path, stored, **tags))
    ends = sorted((value, value if limit is None else limit))
    inside = (stored >= ends[0]) & (stored <= ends[1])
    assert compute_padding_share(film.stored, film.presentation) == inside.mean() == count / 16
    grey = grey_of(film_bytes(tmp_path, stored, **tags))
    assert not grey[inside].any()
    kept = grey[~inside]
    assert (kept.min(), kept.max()) == (0, WHITE)  # percentiles are of the picture alone


def test_padding_is_compared_as_stored_and_by_its_sign(tmp_path: Path) -> None:
    """-2000 means the same bits whether it is written signed or not, and before any rescale."""
    stored = np.array([[-2000, 0, 100, 200]], np.int16)
    rescale = {"RescaleSlope": 2, "RescaleIntercept": 4000}
    for value in (-2000, 63536):
        vr = pydicom.dcmread(io.BytesIO(film_bytes(tmp_path, stored, **rescale)))
        vr.add_new("PixelPaddingValue", "SS" if value < 0 else "US", value)
        out = io.BytesIO()
        vr.save_as(out)
        assert grey_of(out.getvalue()).tolist() == [[0, 0, 32768, WHITE]]


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_compressed_films_are_the_same(tmp_path: Path, syntax: str) -> None:
    stored = np.random.default_rng(0).integers(0, 4096, (64, 64)).astype(np.uint16)
    tags = {"BitsStored": 12, "PhotometricInterpretation": "MONOCHROME1", "WindowCenter": 2000, "WindowWidth": 3000}
    plain = film_bytes(tmp_path, stored, **tags, PixelPaddingValue=int(stored[0, 0]))
    np.testing.assert_array_equal(grey_of(rewritten(plain, syntax)), grey_of(plain))
    assert film_of(rewritten(plain, syntax)).header.bits_stored == 12


def test_eight_bit_films_are_read(tmp_path: Path) -> None:
    ds = pydicom.dcmread(io.BytesIO(film_bytes(tmp_path)))
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelData = 8, 8, 7, bytes(range(0, 160, 10))
    ds["PixelData"].VR = "OB"
    out = io.BytesIO()
    ds.save_as(out)
    grey = grey_of(out.getvalue())
    assert (grey[0, 0], grey[3, 3]) == (0, WHITE)
    assert (np.diff(grey.ravel().astype(int)) > 0).all()


def test_both_readings_give_the_same_film(tmp_path: Path) -> None:
    every = EVERY.view(np.int16)
    for bits in (8, 12, 16):
        data = film_bytes(tmp_path, every, BitsStored=bits, PixelPaddingValue=-3, WindowCenter=5, WindowWidth=90)
        fast, slow = film_of(data), film_of(data, thorough=True)
        assert fast.header == slow.header
        one, other = (to_grey16(film.stored, film.presentation) for film in (fast, slow))
        np.testing.assert_array_equal(one, other)


def real_grey_files() -> list[Path]:
    return [path for root in (HARD, PYDICOM) for path in sorted(root.rglob("*")) if path.is_file()]


def test_real_files_are_what_pydicom_makes_of_them() -> None:
    """Of every grey file with a window or a VOI table there is, whatever it shows, read as if it were a chest film."""
    compared = set()
    for path in real_grey_files():
        try:
            film = film_of(data := relabelled(path.read_bytes()))
        except Exception:  # no film, or none that pydicom can write again
            continue
        if film.header.voi != "percentiles" and film.presentation.padding is None:
            agree(data)
            compared.add(path.name)
    assert {"examples_overlay.dcm", "MR_small.dcm", "6154"} <= compared
    if not HARD.is_dir():
        pytest.skip(f"pydicom's own {len(compared)} files agree; no hard DICOM files at {HARD}")
    assert {"vlut_04.dcm", "RG3_J2KI.dcm"} <= compared


@pytest.mark.skipif(not HARD.is_dir(), reason=f"no hard DICOM files at {HARD}")
@pytest.mark.parametrize("name", ["mlut_18.dcm", "test1.dcm", "test5.dcm"])
def test_real_files_without_a_window_rise_as_pydicoms_modality_values(name: str) -> None:
    data = relabelled((HARD / name).read_bytes())
    ds = pydicom.dcmread(io.BytesIO(data))
    values = apply_modality_lut(ds.pixel_array, ds).astype(float)
    low, high = np.percentile(values, (0.5, 99.5), method="inverted_cdf")
    expected = np.clip((values - low) / (high - low), 0, 1) * WHITE
    np.testing.assert_allclose(grey_of(data), expected, atol=0.51)
