"""Apply the lookup tables and windows that a film's header states (DICOM PS3.3 C.11.1 and C.11.2)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from fl_rsna.imaging.dicom.rejections import Reason, Rejected

Values = NDArray[np.float64]
MOST_ENTRIES, BITS = 65536, range(8, 17)
STEEPEST = 700.0  # exp() of more overflows float64


@dataclass(frozen=True, slots=True, kw_only=True)
class Lut:
    """A lookup table: `entries` uint16 [N], of `bits` bits each, are what the values `first`, `first` + 1, ... become."""

    first: int
    bits: int
    entries: NDArray[np.uint16]

    def holds(self, values: Values) -> NDArray[np.bool_]:
        """Tell which values have an entry of their own."""
        return (values >= self.first) & (values < self.first + len(self.entries))

    def of(self, values: Values) -> Values:
        """Look up values, which are cut to whole numbers; values outside the table get its first or last entry."""
        place = np.clip(np.floor(values) - self.first, 0, len(self.entries) - 1)
        found: Values = self.entries[place.astype(np.intp)].astype(np.float64)
        return found

    @property
    def greatest(self) -> int:
        """The top of the output range, which the standard sets to 2^bits - 1.

        Two kinds of files are wrong: those with entries beyond the bits that they state, and those that state 16 bits
        for entries of 12, which would make a black film. The bits that the entries need count instead where they are
        more than stated, or at least two fewer.
        """
        needed = int(self.entries.max()).bit_length()
        return (1 << (needed if needed > self.bits or 0 < needed <= self.bits - 2 else self.bits)) - 1


class Function(StrEnum):
    """The values of VOILUTFunction."""

    LINEAR = "LINEAR"
    LINEAR_EXACT = "LINEAR_EXACT"
    SIGMOID = "SIGMOID"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A window of WindowCenter, WindowWidth and VOILUTFunction; `width` is at least 1 for LINEAR and above 0 for the others."""

    center: float
    width: float
    function: Function

    def of(self, values: Values) -> Values:
        """Compute how far up the output range each value comes, 0 to 1 (C.11.2.1.2.1, C.11.2.1.3)."""
        with np.errstate(over="ignore"):  # a distance that overflows is an end of the range
            match self.function:
                case Function.LINEAR:
                    return _ramp(values, self.center - 0.5, self.width - 1)
                case Function.LINEAR_EXACT:
                    return _ramp(values, self.center, self.width)
                case Function.SIGMOID:
                    steep = np.clip(-4 * (values - self.center) / self.width, -STEEPEST, STEEPEST)
                    return 1 / (1 + np.exp(steep))


def _ramp(values: Values, center: float, width: float) -> Values:
    """Map values linearly to 0..1 over `width` around `center`; a width of 0 gives a step."""
    if width == 0:
        return (values > center).astype(np.float64)
    return np.clip((values - center) / width + 0.5, 0, 1)


def read_window(center: float | None, width: float | None, function: str) -> Window | None:
    """Read the window that a header states; None where it states none to which the standard gives a meaning."""
    known = {kind.value: kind for kind in Function}.get("_".join(function.upper().split()) or Function.LINEAR)
    if center is None or width is None or known is None:
        return None
    usable = width >= 1 if known is Function.LINEAR else width > 0
    return Window(center=center, width=width, function=known) if usable else None


def read_lut(descriptor: bytes | Sequence[int], data: bytes | Sequence[int], *, little: bool, tag: str) -> Lut:
    """Read LUTDescriptor and LUTData as a table; raises `Rejected` where the two contradict each other.

    Data in bytes hold one word per entry, or one byte where the entries have eight bits and are packed; `little` is the
    order of the bytes of a word. Sixteen bits are read as they are, whatever kind of number they were written as, so
    `first` is 0 to 65,535 until `with_sign`. `tag` is the sequence that holds the table.
    """
    stated = _read_words(descriptor, little) if isinstance(descriptor, bytes) else np.asarray(descriptor, np.int64)
    if len(stated) != 3:
        raise Rejected(Reason.bad_lut, tag, f"LUTDescriptor has {len(stated)} values, expected 3")
    count, first, bits = (int(value) % MOST_ENTRIES for value in stated)
    count = count or MOST_ENTRIES  # 0 stands for 65,536 (C.11.1.1)
    if bits not in BITS:
        raise Rejected(Reason.bad_lut, tag, f"{bits} bits an entry, expected 8 to 16")
    entries = _read_entries(data, count, bits, little)
    if len(entries) < count:
        raise Rejected(Reason.bad_lut, tag, f"{len(entries)} entries, LUTDescriptor states {count}")
    return Lut(first=first, bits=bits, entries=(entries[:count] % MOST_ENTRIES).astype(np.uint16))


def with_sign(lut: Lut, signed: bool) -> Lut:
    """Return the table with its first value read as a signed or an unsigned number of 16 bits."""
    pattern = lut.first % MOST_ENTRIES
    return replace(lut, first=pattern - MOST_ENTRIES if signed and pattern >= MOST_ENTRIES // 2 else pattern)


def _read_entries(data: bytes | Sequence[int], count: int, bits: int, little: bool) -> NDArray[np.int64]:
    """Read one number per entry; 8-bit entries may be packed, two to a word."""
    packed = data
    if not isinstance(data, bytes):
        words = np.asarray(data, np.int64)
        if bits > 8 or not count <= 2 * len(words) <= count + 1:
            return words
        packed = (words % MOST_ENTRIES).astype("<u2" if little else ">u2").tobytes()
    assert isinstance(packed, bytes)
    if count <= len(packed) < 2 * count:
        return np.frombuffer(packed, np.uint8).astype(np.int64)
    return _read_words(packed, little)


def _read_words(data: bytes, little: bool) -> NDArray[np.int64]:
    """Read bytes as words of 16 bits; an odd last byte is dropped."""
    return np.frombuffer(data[: len(data) // 2 * 2], "<u2" if little else ">u2").astype(np.int64)
