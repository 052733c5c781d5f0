"""What the pixels of a film say of its header: which are padding, the sign of its tables, and whether its window shows it."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fl_rsna.imaging.lut import Lut, Values, with_sign
from fl_rsna.imaging.padding import Padding, Stored, set_apart, stored_values, surrounding
from fl_rsna.imaging.radiograph import Presentation, grey_table, modality_values, padded
from fl_rsna.imaging.rejections import Reason, Rejected

FEW, MOST = 0.01, 0.5  # shares of pixels that a table holds where its sign is wrong, and where it is right


def settle_film(stored: Stored, shown: Presentation, padding: Padding | None) -> tuple[Stored, Presentation]:
    """Stored values and their presentation with padding, tables by the sign that fits, and a window that shows something.

    The header's padding is padding wherever it lies, unless it has more bits than are stored: its low bits may be
    picture, too, so then only pixels that reach the edge count. A table keeps the sign that the standard gives it
    unless it holds hardly any pixel so and most with the other one. A window that leaves one grey of several values
    is none. Raises `Rejected` where a table does so.
    """
    if padding is not None and padding.beyond:
        values = stored_values(stored, shown.value_bits, shown.signed)
        outside = surrounding(padding.holds(values))
        padding = None
        if outside is not None:
            stored, padding = set_apart(values, outside)
            shown = replace(shown, value_bits=16)
    shown = replace(shown, padding=padding)
    if shown.modality_lut is None and shown.voi_lut is None and shown.window is None:
        return stored, shown
    counts = np.bincount(np.ascontiguousarray(stored).view(np.uint16).ravel(), minlength=65536)
    counts[padded(shown)] = 0
    if shown.modality_lut is not None:
        plain = modality_values(replace(shown, modality_lut=None))
        shown = replace(shown, modality_lut=_that_holds(shown.modality_lut, plain, counts))
    if shown.voi_lut is not None:
        shown = replace(shown, voi_lut=_that_holds(shown.voi_lut, modality_values(shown), counts))
    return stored, _visible(shown, counts)


def _that_holds(lut: Lut, values: Values, counts: NDArray[np.integer]) -> Lut:
    """The table, or the one that begins with the same 16 bits of the other sign where that must be meant."""
    other = with_sign(lut, lut.first >= 0)
    held, would = (int(counts[table.holds(values)].sum()) for table in (lut, other))
    total = int(counts.sum())
    return other if held < FEW * total and would > MOST * total else lut


def _visible(shown: Presentation, counts: NDArray[np.integer]) -> Presentation:
    """The presentation, without its window where that shows one grey; raises `Rejected` where a table shows one."""
    there = counts > 0
    if np.count_nonzero(there) < 2 or np.ptp(grey_table(shown, counts)[there]):
        return shown
    if shown.voi_lut is None and shown.window is not None:
        shown = replace(shown, window=None)
        if np.ptp(grey_table(shown, counts)[there]):
            return shown
    tag = "VOILUTSequence" if shown.voi_lut is not None else "ModalityLUTSequence"
    raise Rejected(Reason.bad_lut, tag, f"{np.count_nonzero(there)} stored values become one grey")
