"""Compressed pixels of another shape or without an end are named before a decoder sees them."""

import io
import struct
from pathlib import Path

import pydicom
import pytest
from dicom_files import HARD, rewritten
from dicom_oddities import (
    RAMP,
    rejection,
    tiny,
)
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    JPEG2000Lossless,
)

from fl_rsna.imaging.dicom.rejections import Reason

pytestmark = pytest.mark.filterwarnings("ignore:::pydicom")  # pytest resets the filter that dicom.py sets


@pytest.mark.parametrize("shape", [(60000, 60000), (32, 64), (64, 32), (128, 32), (32, 128), (1, 1)])
def test_a_compressed_image_of_another_shape_is_named_before_it_is_decoded(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    """Of 128 x 32, every pixel would find a place in 64 x 64."""
    data = rewritten(tiny(tmp_path, hu=RAMP), JPEG2000Lossless)
    stated = data.index(b"\xff\x4f\xff\x51") + 8
    changed = data[:stated] + struct.pack(">II", shape[1], shape[0]) + data[stated + 8 :]
    assert rejection(changed) == (Reason.undecodable, "Rows")


@pytest.mark.parametrize("syntax", ["JPEG2000Lossless", "JPEGLSLossless", "JPEGProcess14SV1", "JPEGProcess1Transfer"])
def test_a_compressed_image_cut_short_is_named(syntax: str) -> None:
    """Most decoders fill in what is missing and say nothing."""
    if not HARD.is_dir():
        pytest.skip(f"no hard DICOM files at {HARD}")
    (path,) = HARD.glob(f"CTImage.dcm_{syntax}*")
    ds, stream = pydicom.dcmread(path), io.BytesIO()
    frame = get_frame(ds.PixelData, 0, number_of_frames=1)
    ds.PixelData = encapsulate([frame[: len(frame) * 9 // 10]])
    ds.save_as(stream)
    assert rejection(stream.getvalue()) == (Reason.truncated_pixels, "PixelData")
