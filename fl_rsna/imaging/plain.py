"""Files whose pixels stand at their end as they are: what tells them from others, and how long their pixels must be."""

import zlib
from dataclasses import dataclass
from typing import Any

from fl_rsna.imaging.header import MAX_SIDE
from fl_rsna.imaging.rejections import Reason, Rejected

ITEM = b"\xfe\xff\x00\xe0"  # the tag that an item begins with
INFLATED_BYTES = 4 * MAX_SIDE**2  # of a deflated file: its pixels and as much again


@dataclass(frozen=True, slots=True)
class PlainPixels:
    """Where uncompressed 16-bit little-endian values begin in a file's bytes, and how many bytes they are."""

    data: bytes
    at: int
    length: int


def plain(condition: bool) -> None:
    """Raise ValueError for a file that must be read the thorough way."""
    if not condition:
        raise ValueError("not plain")


def not_plain(tag: int) -> Any:
    raise ValueError(f"{tag:08x} is not plain")


def inflated(packed: bytes) -> bytes:
    """PS3.5 A.5, without the harm a small file can do."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    data = inflater.decompress(packed, INFLATED_BYTES)
    if inflater.unconsumed_tail:
        raise Rejected(Reason.too_large, "", f"inflates to more than {INFLATED_BYTES} bytes")
    plain(inflater.eof)
    return data


def check_length(length: int, rows: int, columns: int, size: int, beginning: bytes) -> None:
    """`length` bytes for rows x columns values of `size` bytes; less than a row or column beyond that is padding.

    `beginning` are the first four bytes: compressed pixels are items (PS3.5 A.4), whatever the transfer syntax says.
    """
    expected = rows * columns * size
    if beginning == ITEM and length != expected:
        detail = "pixels are compressed, but the transfer syntax states that they are not"
        raise Rejected(Reason.undecodable, "TransferSyntaxUID", detail)
    if length < expected:
        raise Rejected(Reason.truncated_pixels, "PixelData", f"{length} bytes, expected {expected}")
    if length - expected - expected % 2 >= min(rows, columns) * size:
        raise Rejected(Reason.excess_pixels, "PixelData", f"{length} bytes, expected {expected}")
