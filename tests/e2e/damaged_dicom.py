"""Damaged DICOM files for fuzz_prepare.py: originals, what may happen to them, and files that depend on a seed alone."""

import io
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pydicom
from numpy.random import Generator
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from fl_rsna.phantom.chest.cohort import write_chest_cohort
from fl_rsna.phantom.head.cohort import Quirks, write_cohort

DEFLATED = str(DeflatedExplicitVRLittleEndian)
SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEG2000Lossless,
)
VALUES = (
    b"",
    b"\0\0",
    b"-1",
    b"0 ",
    b"1e308 ",
    b"nan ",
    b"../x",
    b"1\\2\\x ",
    b"\xff\xff",
    b"\x0c\0",
    b"\1\0",
    b"8 ",
    b"CT",
)
LENGTHS = (0, 1, 2, 7, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)
VRS = (b"UN", b"OB", b"OW", b"SQ", b"LO", b"US", b"DS", b"UT", b"XX")


@dataclass(frozen=True, slots=True)
class Source:
    """An original: where its elements begin, where their values do, and which bytes are its SOPInstanceUID."""

    data: bytes
    elements: tuple[tuple[int, int], ...]
    image_id: bytes


def source(data: bytes) -> Source | None:
    """None for what pydicom cannot read: there is nothing to damage."""
    try:
        ds = pydicom.dcmread(io.BytesIO(data))
        image_id = str(ds.SOPInstanceUID).encode()
        shift = body_of(data) if ds.file_meta.TransferSyntaxUID == DEFLATED else 0  # pydicom counts from there
        data = inflated(data) if shift else data
    except Exception:
        return None
    order: Literal["little", "big"] = "little" if ds.file_meta.TransferSyntaxUID.is_little_endian else "big"
    raw = [item for item in (ds.get_item(tag) for tag in ds.keys()) if getattr(item, "value_tell", 0)]  # noqa: SIM118
    elements = []
    for item in raw:
        tag = item.tag.group.to_bytes(2, order) + item.tag.elem.to_bytes(2, order)
        value = item.value_tell + shift
        elements.append((data.rfind(tag, 132, value), value))
    return Source(data, tuple((head, value) for head, value in elements if head >= 132), image_id)


def body_of(data: bytes) -> int:
    """Where the data set begins: the meta header's own length stands at its begin."""
    return 144 + int.from_bytes(data[140:144], "little")


def inflated(data: bytes) -> bytes:
    start = body_of(data)
    return data[:start] + zlib.decompress(data[start:], -zlib.MAX_WBITS)


def deflated(data: bytes) -> bytes:
    """Deflates what follows the meta header, if it still says so."""
    start = body_of(data)
    if DEFLATED.encode() not in data[:start]:
        return data
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    return data[:start] + packer.compress(data[start:]) + packer.flush()


def flip(data: bytearray, rng: Generator, own: Source, _: Source) -> None:
    """Single bits; half of the time where the header is."""
    end = min(len(data), 2000) if rng.integers(2) else len(data)
    for at in rng.integers(0, max(end, 1), rng.integers(1, 9)):
        data[at : at + 1] = bytes([data[at] ^ 1 << rng.integers(8)]) if at < len(data) else b""


def cut(data: bytearray, rng: Generator, own: Source, _: Source) -> None:
    del data[rng.integers(max(len(data), 1)) :]


def cut_tail(data: bytearray, rng: Generator, own: Source, _: Source) -> None:
    del data[-int(rng.integers(1, 200)) :]


def lengthen(data: bytearray, rng: Generator, own: Source, _: Source) -> None:
    """The length before a value states something else."""
    _, value = chosen(rng, own)
    width = 4 if rng.integers(2) else 2
    length = int(rng.choice(LENGTHS)) if rng.integers(2) else int(rng.integers(70000))
    data[value - width : value] = (length % 256**width).to_bytes(width, "little")


def swap_tags(data: bytearray, rng: Generator, own: Source, _: Source) -> None:
    one, two = chosen(rng, own)[0], chosen(rng, own)[0]
    data[one : one + 4], data[two : two + 4] = data[two : two + 4], data[one : one + 4]


def splice(data: bytearray, rng: Generator, own: Source, other: Source) -> None:
    """The begin of one file and the end of another, mostly where elements meet."""
    here, there = chosen(rng, own)[0], chosen(rng, other)[0]
    if rng.integers(4) == 0:
        here, there = int(rng.integers(len(own.data))), int(rng.integers(len(other.data)))
    data[here:] = other.data[there:]


def zero(data: bytearray, rng: Generator, own: Source, _: Source) -> None:
    at = int(rng.integers(max(len(data), 1)))
    length = min(int(rng.integers(1, 5000)), len(data) - at)
    data[at : at + length] = bytes(length)


def append(data: bytearray, rng: Generator, own: Source, _: Source) -> None:
    data += rng.bytes(int(rng.integers(1, 5000))) if rng.integers(2) else bytes(int(rng.integers(1, 5000)))


def replace_value(data: bytearray, rng: Generator, own: Source, _: Source) -> None:
    """Another value in its place: of the same length over it, or of its own with the length mended."""
    head, value = chosen(rng, own)
    new = VALUES[rng.integers(len(VALUES))] if rng.integers(4) else rng.bytes(2 * int(rng.integers(1, 100)))
    length = int.from_bytes(data[value - 2 : value], "little")
    if value - head == 8 and data[head + 4 : head + 6].isalpha() and rng.integers(4):
        data[value - 2 : value + length] = len(new).to_bytes(2, "little") + new
    else:
        data[value : value + len(new)] = new


def change_vr(data: bytearray, rng: Generator, own: Source, _: Source) -> None:
    head, _value = chosen(rng, own)
    data[head + 4 : head + 6] = VRS[rng.integers(len(VRS))]


def change_stream(data: bytearray, rng: Generator, own: Source, _: Source) -> None:
    """Bytes at the begin of the pixels, where compressed ones state their shape and tables."""
    begin = max(value for _, value in own.elements) if own.elements else 0
    for at in rng.integers(begin, begin + 200, rng.integers(1, 5)):
        data[at : at + 1] = bytes([rng.integers(256)])


def enlarge(data: bytearray, rng: Generator, own: Source, _: Source) -> None:
    """Rows and Columns of a huge image, and the same inside a compressed one: memory to be asked for."""
    side = int(rng.choice([1024, 4096, 8192, 16384, 65535]))
    for keyword in (b"\x28\0\x10\0", b"\x28\0\x11\0"):
        value = next((value for head, value in own.elements if data[head : head + 4] == keyword), None)
        if value is not None:
            data[value : value + 2] = side.to_bytes(2, "little")
    if (at := data.find(b"\xff\x4f\xff\x51")) >= 0:  # JPEG 2000
        data[at + 8 : at + 16] = side.to_bytes(4, "big") * 2
    for frame in (b"\xff\xc0", b"\xff\xc1", b"\xff\xc3", b"\xff\xf7"):  # JPEG and JPEG-LS
        if (at := data.find(frame, max(data.find(b"\xff\xd8\xff"), 0))) >= 0 and b"\xff\xd8\xff" in data:
            data[at + 5 : at + 9] = side.to_bytes(2, "big") * 2


MUTATIONS: tuple[Callable[[bytearray, Generator, Source, Source], None], ...] = (
    flip, cut, cut_tail, lengthen, swap_tags, splice, zero, append, replace_value, replace_value, change_vr, change_stream, enlarge,
)  # fmt: skip


def chosen(rng: Generator, own: Source) -> tuple[int, int]:
    return own.elements[rng.integers(len(own.elements))] if own.elements else (132, 140)


def mutated(sources: Sequence[Source], seed: int, batch: int, number: int) -> tuple[bytes, str]:
    """A file's bytes and what was done; the first mutations know the elements, the later ones strike where they were."""
    new = f"{seed % 1000:03d}{batch:05d}{number:04d}".encode()
    rng = np.random.default_rng([seed, batch, number])
    own, other = (renamed(sources[rng.integers(len(sources))], new) for _ in range(2))
    data, recipe = bytearray(own.data), []
    for _ in range(rng.integers(1, 4)):
        mutate = MUTATIONS[rng.integers(len(MUTATIONS))]
        mutate(data, rng, own, other)
        recipe.append(mutate.__name__)
    return deflated(bytes(data)), "+".join(recipe)


def renamed(own: Source, new: bytes) -> Source:
    """With an id of its own, in as many bytes: otherwise only the first of many is kept."""
    image_id = new[-len(own.image_id) :].rjust(len(own.image_id), b"9")
    return Source(own.data.replace(own.image_id, image_id), own.elements, image_id) if own.image_id else own


def drawn(folder: Path, *, chest: bool) -> Iterator[bytes]:
    """Synthetic slices, or films of several vendors, each in another transfer syntax."""
    if chest:
        write_chest_cohort(folder, patients=24, seed=0, size=128)
    else:
        write_cohort(folder, patients=2, seed=0, size=128, slices_per_series=8, quirks=Quirks())
    for number, path in enumerate(sorted(folder.rglob("*.dcm"))):
        ds, syntax = pydicom.dcmread(path), SYNTAXES[number % len(SYNTAXES)]
        if syntax.is_encapsulated:
            ds.compress(syntax, generate_instance_uid=False)
        elif not syntax.is_little_endian:
            ds.PixelData = np.frombuffer(ds.PixelData, np.uint16).byteswap().tobytes()
        ds.file_meta.TransferSyntaxUID = syntax
        stream = io.BytesIO()
        pydicom.dcmwrite(
            stream, ds, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian, force_encoding=True
        )
        yield stream.getvalue()


def originals(folders: Sequence[Path], *, chest: bool = False) -> list[Source]:
    with tempfile.TemporaryDirectory() as name:
        paths = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
        contents = (path.read_bytes() for path in paths) if folders else drawn(Path(name), chest=chest)
        return [found for data in contents if data[128:132] == b"DICM" and (found := source(data))]
