"""The fast reading, the thorough one and pydicom's own agree: in pixels, header or rejection."""

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import HARD, PYDICOM
from dicom_oddities import (
    BIT_TYPES,
    WINDOWS,
    damages,
    hu_of,
    outcome,
    same_slices,
    tiny,
    typed,
)

from fl_rsna.imaging.dicom.reader import Slice, read_slice
from fl_rsna.imaging.dicom.rejections import Reason, Rejected

FEWEST = 15 if HARD.is_dir() else 10  # slices that must be among the real files, or nothing was compared

pytestmark = pytest.mark.filterwarnings("ignore:::pydicom")  # pytest resets the filter that dicom.py sets


def real_files() -> list[Path]:
    return [
        path for root in (PYDICOM, HARD, HARD.parent / "rsna") for path in sorted(root.rglob("*")) if path.is_file()
    ]


def own_modality(data: bytes) -> str:
    """The file's own, so that every kind of file gets as far as it can."""
    try:
        return str(pydicom.dcmread(io.BytesIO(data), specific_tags=["Modality"]).Modality)
    except Exception:
        return "CT"


def test_the_fast_reading_gives_what_the_thorough_one_gives_on_real_files() -> None:
    slices = 0
    for path in real_files():
        data = path.read_bytes()
        modality = own_modality(data)
        fast = outcome(data, modality, thorough=False)
        assert fast == outcome(data, modality, thorough=True), path
        slices += len(fast) == 4
    assert slices >= FEWEST


def test_the_fast_reading_gives_what_the_thorough_one_gives_on_every_kind_of_file(tmp_path: Path) -> None:
    whole = tiny(tmp_path)
    files = {
        **same_slices(tmp_path),
        **{name: content for name, (content, _) in damages(whole).items()},
        **{f"bits {kind}": typed(tmp_path, *kind[:3]) for kind in BIT_TYPES},
        **{f"windows {name}": tiny(tmp_path, **tags) for name, tags in WINDOWS.items()},
    }
    for name, data in files.items():
        assert outcome(data, "CT", thorough=False) == outcome(data, "CT", thorough=True), name


@pytest.mark.parametrize(
    "source",
    [
        "as it is",
        "implicit",
        "deflated",
        "run lengths",
        "a sequence of undefined length",
        "a meta header that does not say its length",
    ],
)
def test_any_damage_gives_a_slice_or_a_rejection_the_same_one_by_both_readings(tmp_path: Path, source: str) -> None:
    whole = np.frombuffer(same_slices(tmp_path)[source], np.uint8)
    outcomes = set()
    for seed in range(300):
        data = damaged(whole, np.random.default_rng(seed))
        fast = outcome(data, "CT", thorough=False)
        assert fast == outcome(data, "CT", thorough=True), f"{source}, seed {seed}"
        outcomes.add(fast[0] if len(fast) == 3 else Slice)
    assert {Slice, Reason.not_dicom} < outcomes


def damaged(whole: np.ndarray, rng: np.random.Generator) -> bytes:
    """A third of the time cut anywhere, otherwise one to three bytes of the first 1,000 after the preamble replaced."""
    if rng.integers(3) == 0:
        return bytes(whole[: rng.integers(len(whole))])
    changed = whole.copy()
    changed[rng.integers(128, min(len(whole), 1128), size=rng.integers(1, 4))] = rng.integers(256)
    return changed.tobytes()


def test_decoded_pixels_are_those_of_pydicom() -> None:
    """On every grey single-frame file there is, whatever its kind."""
    compared = 0
    for path in real_files():
        data = path.read_bytes()
        try:
            slice_ = read_slice(data, modalities=(own_modality(data),), thorough=True)
        except Rejected:
            continue
        values = (hu_of(slice_) - slice_.header.intercept) / slice_.header.slope
        if not slice_.rescale.wrapped_bits:
            np.testing.assert_allclose(
                values, pydicom.dcmread(io.BytesIO(data)).pixel_array, atol=1e-6, err_msg=str(path)
            )
            compared += 1
    assert compared >= FEWEST
