"""The plane of one slice in the patient: its direction and its place, by PS3.3 C.7.6.2.1.1.

Patient coordinates grow towards the left, the back and the head, whichever way the patient lies or is moved into the scanner.
"""

import functools
import math
from dataclasses import dataclass

from fl_rsna.imaging.dicom.rejections import Reason, Rejected
from fl_rsna.imaging.dicom.tags import Tags, numbers_in

POSITION, ORIENTATION = "ImagePositionPatient", "ImageOrientationPatient"
FARTHEST_MM = 1e6  # a position beyond this is a damaged number
STEEPEST_DEG = 45.0  # between a slice's normal and the patient's long axis; no gantry tilts by more than 30
LEAST_UPRIGHT = math.cos(math.radians(STEEPEST_DEG))

Vector = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """The direction of a slice: `upwards` points to the head and is `length` long, `cosines` are the six numbers of its header."""

    upwards: Vector
    length: float
    cosines: tuple[float, ...]

    @property
    def normal(self) -> Vector:
        x, y, z = self.upwards
        return x / self.length, y / self.length, z / self.length

    @property
    def tilt_deg(self) -> float:
        return math.degrees(math.acos(min(self.normal[2], 1.0)))

    def height_mm(self, corner: Vector) -> float:
        """How far towards the head a point lies, along the normal."""
        return sum(u * p for u, p in zip(self.upwards, corner, strict=True)) / self.length


def read_plane(tags: Tags) -> Plane | None:
    """The plane's direction; None without an orientation that means anything.

    Row times column points to the feet where the image is stored in mirror image: the normal is turned over then.
    """
    return _plane(tags.text(ORIENTATION))


@functools.lru_cache(maxsize=1024)  # the slices of a series have one direction
def _plane(orientation: str) -> Plane | None:
    cosines = numbers_in(orientation, 6)
    if cosines is None or max(map(abs, cosines)) > 2:
        return None
    (a, b, c), (d, e, f) = cosines[:3], cosines[3:]
    normal = (b * f - c * e, c * d - a * f, a * e - b * d)
    length = math.hypot(*normal)
    if length < 0.5:  # row and column must be orthogonal unit vectors
        return None
    x, y, z = normal
    return Plane(upwards=(-x, -y, -z) if z < 0 else normal, length=length, cosines=cosines)


def read_corner(tags: Tags) -> Vector | None:
    """Where the slice's first pixel lies in the patient, in mm."""
    corner = tags.numbers(POSITION, 3)
    if corner is None or max(map(abs, corner)) > FARTHEST_MM:
        return None
    return corner[0], corner[1], corner[2]


def check_axial(plane: Plane | None) -> None:
    """Raise `Rejected` for a plane that is nearer to a sagittal or coronal one, whatever the image is called."""
    if plane is not None and plane.normal[2] < LEAST_UPRIGHT:
        raise Rejected(Reason.not_axial, ORIENTATION, f"{plane.tilt_deg:.0f} degrees from an axial plane")
