"""PNG files written fast: one filter for the whole image and one pass of Intel's ISA-L deflate.

Filter and level are measured choices (scripts/bench_prepare.py). Windows are functions of one HU value, so unfiltered
three-byte groups repeat and filter None is smallest; a 16-bit HU plane is smaller as differences to the row above.
"""

import struct
import zlib

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB = 0, 2  # colour types
NONE, UP = 0, 2  # filters
LEVEL = 1
LITTLE = 1 << 14  # bytes


def encode_png(image: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """uint8 [H, W], uint16 [H, W] or uint8 RGB [H, W, 3] as a PNG file; lossless, and the same bytes every time."""
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
    body = _deflated(lines)
    return b"".join((SIGNATURE, *_chunk(b"IHDR", header), *_chunk(b"IDAT", body), *_chunk(b"IEND", b"")))


def _deflated(lines: NDArray[np.uint8]) -> bytes:
    """The lines as a zlib stream.

    isal_zlib.compress gives other bytes from process to process. Its compressobj was seen to do so twice, in some
    hundred thousand images. The standard library's deflate never does; it takes five times as long, which is little for a small image.
    """
    deflate = zlib.compressobj(LEVEL) if lines.nbytes <= LITTLE else isal_zlib.compressobj(LEVEL)
    return deflate.compress(lines.data) + deflate.flush()


def _chunk(kind: bytes, body: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    checksum = isal_zlib.crc32(body, isal_zlib.crc32(kind))
    return struct.pack(">I", len(body)), kind, body, struct.pack(">I", checksum)
