"""Find the pixels that are no picture: PixelPaddingValue and PixelPaddingRangeLimit (DICOM PS3.3 C.7.5.1.1.2).

Padding makes a round or narrow picture rectangular, so it lies around the picture. Headers can be wrong: tissue may
have the padding value, too, or the value may have more bits than are stored. `find_border_components` finds the pixels
that can only be padding.
"""

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from fl_rsna.imaging.dicom.tags import Tags

Stored = NDArray[np.int16] | NDArray[np.uint16]
LEAST_SHARE = 0.001  # of a picture; a smaller piece at its edge is picture that has the padding value by chance


@dataclass(frozen=True, slots=True, kw_only=True)
class Padding:
    """The stored values from `first` to `last`, which are no picture.

    `beyond` says that the header's values had more bits than are stored. `hu` is the least HU that a slice's rescale
    would make of the padding.
    """

    first: int
    last: int
    beyond: bool = False
    hu: float | None = None

    def holds(self, values: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Tell which values are padding."""
        return (values >= self.first) & (values <= self.last)


def to_stored_values(stored: NDArray[np.integer], bits: int, signed: bool) -> Stored:
    """Return the low `bits` bits of each pixel, in two's complement when `signed` (C.7.6.3.1.1); any shape."""
    unused = 16 - bits
    whole: Stored = stored.astype(np.int16, copy=False) if signed else stored.astype(np.uint16, copy=False)
    return whole if unused == 0 else cast(Stored, (whole << unused) >> unused)


def read_padding(tags: Tags, bits: int, signed: bool) -> Padding | None:
    """Read the values that are padding, as pixels of `bits` bits have them; None where the header names none.

    Sixteen bits mean the same whatever kind of number they were written as: 63536 is -2000.
    """
    value, limit = tags.integer("PixelPaddingValue"), tags.integer("PixelPaddingRangeLimit")
    if value is None:
        return None
    patterns = [end % 65536 for end in (value, value if limit is None else limit)]
    first, last = sorted(to_stored_values(np.array(patterns, np.uint16), bits, signed).tolist())
    least_negative = 65536 - (1 << bits - 1) if signed else 65536
    beyond = any(1 << bits <= pattern < least_negative for pattern in patterns)
    return Padding(first=first, last=last, beyond=beyond)


def find_border_components(mask: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """Find the pixels of `mask` [H, W] whose connected piece reaches the picture's edge and is no speck; None without any.

    A speck is smaller than LEAST_SHARE of the picture.
    """
    if not mask.any():
        return None
    count, pieces, facts, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    at_edge = np.zeros(count, bool)
    for edge in (pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]):
        at_edge[edge] = True
    at_edge &= facts[:, cv2.CC_STAT_AREA] >= LEAST_SHARE * mask.size
    at_edge[0] = False  # all that is not in the mask
    return at_edge[pieces] if at_edge.any() else None


def set_apart(values: Stored, outside: NDArray[np.bool_]) -> tuple[Stored, Padding]:
    """Give the pixels of `outside` a value of their own; return the changed copy and that value as padding.

    `values` have 16 bits. The pixels keep their value where no other is free.
    """
    kind, whole = values.dtype, values.copy()
    free = np.flatnonzero(np.bincount(whole.view(np.uint16).ravel(), minlength=65536) == 0)
    if len(free):
        whole[outside] = free[:1].astype(np.uint16).view(kind)[0]
    own = int(whole[outside][0])
    return whole, Padding(first=own, last=own)
