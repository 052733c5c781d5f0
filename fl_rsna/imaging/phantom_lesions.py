"""Where the blood lies on prepared demo slices: the phantom draws the patient again and tells.

Nothing about lesions is stored: seed and patient number give the same head again, and the same file to the last bit.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_rsna.choices import ImageKind
from fl_rsna.imaging.phantom import slice_id
from fl_rsna.imaging.phantom_bleeds import SUBTYPES
from fl_rsna.imaging.phantom_render import Patient, render_patient
from fl_rsna.imaging.phantom_scanner import to_stored
from fl_rsna.imaging.store import Image, fit_square, render
from fl_rsna.imaging.windows import Rescale


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A demo slice drawn again: the image that `prepare` stores, and where each subtype is seen on it, bool [S, S]."""

    image_id: str
    image: Image
    lesions: dict[str, NDArray[np.bool_]]


def draw_again(
    image_ids: Iterable[str], *, patients: int, seed: int, size: int, slices_per_series: int, kind: ImageKind, side: int
) -> Iterator[Drawn]:
    """The slices of these ids in a demo cohort of these settings, as prepared at `side` pixels, patient by patient.

    Ids that such a cohort does not have are left out; a caller that knows the stored image can compare it.
    """
    longest = slices_per_series + slices_per_series // 8  # the scanner varies the count by an eighth
    numbers = {
        slice_id(seed, patient, index): (patient, index) for patient in range(patients) for index in range(longest)
    }
    wanted: dict[int, list[tuple[str, int]]] = {}
    for image_id in image_ids:
        if image_id in numbers:
            patient, index = numbers[image_id]
            wanted.setdefault(patient, []).append((image_id, index))
    for patient, slices in wanted.items():
        drawn = render_patient(seed, patient, size=size, slices=slices_per_series)
        for image_id, index in slices:
            if index < len(drawn.volume_hu):
                yield _drawn(image_id, drawn, index, kind, side)


def _drawn(image_id: str, patient: Patient, index: int, kind: ImageKind, side: int) -> Drawn:
    vendor = patient.vendor
    rescale = Rescale(bits_stored=vendor.bits, signed=vendor.signed, slope=1.0, intercept=vendor.intercept)
    image = render(to_stored(patient.volume_hu[index], vendor), rescale, kind=kind, size=side)
    masks = patient.masks[:, index].astype(np.uint8) * 255
    lesions = {name: fit_square(mask, side) > 127 for name, mask in zip(SUBTYPES, masks, strict=True)}
    return Drawn(image_id=image_id, image=image, lesions=lesions)
