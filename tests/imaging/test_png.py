"""A written PNG is the array it was made from, to every reader, by the letter of ISO/IEC 15948, and always the same bytes."""

import io
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from matplotlib.image import imread
from numpy.typing import NDArray
from PIL import Image as Pillow

from fl_rsna.imaging.png_store import encode_png

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
SHAPES = [(1, 1), (1, 9), (9, 1), (5, 7), (64, 64), (257, 3), (512, 512)]
KINDS = {"grey 16": (np.uint16, ()), "grey 8": (np.uint8, ()), "RGB": (np.uint8, (3,))}


def images(shape: tuple[int, int], kind: str) -> dict[str, Pixels]:
    """Noise, a ramp through every value, and the two constants."""
    dtype, channels = KINDS[kind]
    size = (*shape, *channels)
    most = np.iinfo(dtype).max
    return {
        "noise": np.random.default_rng(0).integers(0, most + 1, size).astype(dtype),
        "ramp": (np.arange(np.prod(size)) % (most + 1)).reshape(size).astype(dtype),
        "least": np.zeros(size, dtype),
        "most": np.full(size, most, dtype),
    }


def read_by_opencv(png: bytes) -> Pixels:
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return image[..., ::-1] if image.ndim == 3 else image  # type: ignore[return-value]


def read_by_pillow(png: bytes) -> Pixels:
    image = Pillow.open(io.BytesIO(png))
    image.load()
    return np.array(image)


def read_by_matplotlib(png: bytes) -> Pixels:
    shares = imread(io.BytesIO(png), format="png")
    most = 65535 if png[24] == 16 else 255
    return np.rint(shares.astype(np.float64) * most).astype(np.uint16 if most == 65535 else np.uint8)


def read_by_the_letter(png: bytes) -> Pixels:
    """Checksums, chunks and filters checked one by one, with zlib of the standard library."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = [], 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert struct.unpack(">I", png[at + 8 + length : at + 12 + length]) == (zlib.crc32(kind + body),)
        chunks.append((kind, body))
        at += 12 + length
    assert [kind for kind, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"]
    width, height, bits, colour, method, filters, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    assert (colour in (0, 2), method, filters, interlaced) == (True, 0, 0, 0)
    lines = np.frombuffer(zlib.decompress(chunks[1][1]), np.uint8).reshape(height, -1)
    above = np.zeros(lines.shape[1] - 1, np.uint8)
    rows = []
    for line in lines:
        assert line[0] in (0, 2)  # none, up
        above = line[1:] + above if line[0] == 2 else line[1:]
        rows.append(above)
    image = np.stack(rows).view(">u2").astype(np.uint16) if bits == 16 else np.stack(rows)
    return image.reshape(height, width, 3) if colour == 2 else image


READERS = [read_by_opencv, read_by_pillow, read_by_matplotlib, read_by_the_letter]


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("shape", SHAPES)
def test_every_reader_gives_the_array_back(shape: tuple[int, int], kind: str) -> None:
    for name, image in images(shape, kind).items():
        png = encode_png(image)
        for reader in READERS:
            found = reader(png)
            assert found.dtype == image.dtype, (reader.__name__, name)
            np.testing.assert_array_equal(found, image, err_msg=f"{reader.__name__}, {name}")


def test_an_array_that_is_a_view_is_written_as_it_looks() -> None:
    image = images((64, 64), "grey 16")["noise"]
    for view in (image.T, image[::2, ::-3], np.asfortranarray(image)):
        np.testing.assert_array_equal(read_by_the_letter(encode_png(view)), view)


def test_another_process_writes_the_same_bytes() -> None:
    code = (
        "import sys, hashlib, numpy as np; from fl_rsna.imaging.png_store import encode_png\n"
        "noise = np.random.default_rng(0).normal(1064, 9, (128, 128)).astype(np.uint16)\n"
        "for _ in range(3): print(hashlib.sha256(encode_png(noise)).hexdigest())\n"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    assert len({line for run in runs for line in run.stdout.split()}) == 1
