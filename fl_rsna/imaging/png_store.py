"""Encode, write and read images as square PNGs of 16-bit HU, 8-bit windows or 16-bit grey; a file is written whole or not at all.

One filter for the whole image and one pass of Intel's ISA-L deflate make writing fast. Filter and level were chosen by
measurement (benchmarks/bench_prepare.py). Windows are functions of one HU value, so unfiltered groups of three bytes
repeat and filter None gives the smallest file. A 16-bit HU plane is smaller as differences to the row above (filter
Up).
"""

import hashlib
import os
import struct
import zlib
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from fl_rsna.imaging.dicom.hounsfield import Rescale, to_hu16, to_windows
from fl_rsna.imaging.dicom.radiograph import Presentation, to_grey16
from fl_rsna.settings.data import ImageKind

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB = 0, 2  # colour types
NONE, UP = 0, 2  # filters
LEVEL = 1  # of deflate
SMALL_BYTES = 1 << 14  # of an image that the slower deflate of the standard library packs
Image = NDArray[np.uint8] | NDArray[np.uint16]


def encode_png(image: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """Encode uint8 [H, W], uint16 [H, W] or uint8 RGB [H, W, 3] as a PNG file; lossless, and the same bytes every time."""
    height, width = image.shape[:2]
    bits = 8 * image.dtype.itemsize
    lines = np.empty((height, 1 + width * image.itemsize * (3 if image.ndim == 3 else 1)), np.uint8)
    if bits == 16:
        lines[:, 0] = UP
        big = np.ascontiguousarray(image).byteswap().view(np.uint8)
        lines[0, 1:] = big[0]
        np.subtract(big[1:], big[:-1], out=lines[1:, 1:])
    else:
        lines[:, 0] = NONE
        lines[:, 1:] = image.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, bits, RGB if image.ndim == 3 else GREY, 0, 0, 0)
    # isal_zlib.compress gives different bytes in different processes. Its compressobj was seen to do so twice in some
    # hundred thousand images. The standard library's deflate never does. It takes five times as long, which does not
    # matter for a small image.
    deflate = zlib.compressobj(LEVEL) if lines.nbytes <= SMALL_BYTES else isal_zlib.compressobj(LEVEL)
    body = deflate.compress(lines.data) + deflate.flush()
    return b"".join(
        (SIGNATURE, *_build_chunk(b"IHDR", header), *_build_chunk(b"IDAT", body), *_build_chunk(b"IEND", b""))
    )


def _build_chunk(kind: bytes, body: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """Build the four parts of a PNG chunk: length, kind, body and checksum."""
    checksum = isal_zlib.crc32(body, isal_zlib.crc32(kind))
    return struct.pack(">I", len(body)), kind, body, struct.pack(">I", checksum)


cv2.setNumThreads(1)  # parallel over files, not inside one


def render(
    stored: NDArray[np.int16] | NDArray[np.uint16],
    meaning: Rescale | Presentation,
    *,
    kind: ImageKind,
    size: int,
    plane: NDArray[np.uint16] | None = None,
) -> Image:
    """Render stored values [H, W] as an image: uint16 [size, size], or uint8 [size, size, 3] for windows.

    `meaning` is a Presentation for grey and a Rescale for the other kinds. `plane` is the `to_hu16` or `to_grey16` of
    the stored values, if it is already computed. Windows are applied at full resolution and then resized, as the
    classic pipelines do; HU are resized as HU. The two differ at the skull by design.
    """
    match kind:
        case ImageKind.hu:
            assert isinstance(meaning, Rescale)
            return fit_square(to_hu16(stored, meaning) if plane is None else plane, size)
        case ImageKind.windows:
            assert isinstance(meaning, Rescale)
            return fit_square(to_windows(stored, meaning), size)
        case ImageKind.grey:
            assert isinstance(meaning, Presentation)
            return fit_square(to_grey16(stored, meaning) if plane is None else plane, size)


def fit_square(image: Image, size: int) -> Image:
    """Pad [H, W(, C)] with zeros (air) to a centred square and resize it to `size` by area averaging down, bilinearly up."""
    height, width = image.shape[:2]
    side = max(height, width)
    if height != width:
        top, left = (side - height) // 2, (side - width) // 2
        image = _check_type(
            cv2.copyMakeBorder(image, top, side - height - top, left, side - width - left, cv2.BORDER_CONSTANT, value=0)
        )
    if side == size:
        return image
    return _check_type(
        cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_LINEAR)
    )


def write_png(path: Path, image: Image) -> None:
    """Write uint8 [H, W], uint16 [H, W] or uint8 RGB [H, W, 3] losslessly; a reader never sees a partial file."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(encode_png(image))
    os.replace(temporary, path)


def read_png(path: Path, sha256: str | None = None) -> Image:
    """Read an image that `write_png` wrote; raises ValueError for a file that is no readable PNG.

    `sha256` is the beginning of the hash that the file's bytes must have; another hash raises ValueError, too.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"expected a PNG image at {path}, got {error.strerror}; prepare the data again") from None
    if sha256 and not hashlib.sha256(content).hexdigest().startswith(sha256):
        raise ValueError(f"{path} is not the image that was prepared, by its hash in the index; prepare the data again")
    image = decode_png(content)
    if image is None:
        raise ValueError(f"expected a PNG image, got an unreadable file: {path}; prepare the data again")
    return _check_type(cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if image.ndim == 3 else image)


def decode_png(content: bytes) -> NDArray[Any] | None:
    """Decode a PNG to pixels in OpenCV's order of channels; None for bytes that are no whole 8-bit or 16-bit image.

    OpenCV checks every checksum in a PNG.
    """
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if content else None
    except cv2.error:
        return None
    return image if image is not None and image.dtype in (np.uint8, np.uint16) else None


def _check_type(image: Any) -> Image:
    """Return an array that OpenCV gave, typed as an image: OpenCV keeps the type, but its annotations do not say so."""
    assert image.dtype in (np.uint8, np.uint16)
    return cast(Image, image)
