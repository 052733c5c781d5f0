"""Read the plane of one slice: its direction and its place in the patient, by PS3.3 C.7.6.2.1.1.

Patient coordinates grow towards the left, the back and the head, whichever way the patient lies or is moved into the
scanner.
"""

import functools
import math
from dataclasses import dataclass

from fl_rsna.imaging.dicom.rejections import Reason, Rejected
from fl_rsna.imaging.dicom.tags import Tags, numbers_in

POSITION, ORIENTATION = "ImagePositionPatient", "ImageOrientationPatient"
FARTHEST_MM = 1e6  # a position beyond this is a damaged number
STEEPEST_DEG = 45.0  # largest angle of a slice's normal to the patient's long axis; no gantry tilts by more than 30
LEAST_UPRIGHT = math.cos(math.radians(STEEPEST_DEG))

Vector = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """The direction of a slice's plane.

    `upwards` is a normal that points to the head and is `length` long; `cosines` are the six numbers of
    ImageOrientationPatient.
    """

    upwards: Vector
    length: float
    cosines: tuple[float, ...]

    @property
    def normal(self) -> Vector:
        """The unit normal, which points to the head."""
        x, y, z = self.upwards
        return x / self.length, y / self.length, z / self.length

    @property
    def tilt_deg(self) -> float:
        """The angle between the normal and the patient's long axis, in degrees."""
        return math.degrees(math.acos(min(self.normal[2], 1.0)))

    def height_mm(self, corner: Vector) -> float:
        """Compute how far towards the head a point lies along the normal, in mm."""
        return sum(u * p for u, p in zip(self.upwards, corner, strict=True)) / self.length


def read_plane(tags: Tags) -> Plane | None:
    """Read the direction of a slice's plane; None where the orientation is missing or means nothing.

    The normal is the row's direction times the column's. It points to the feet where the image is stored in mirror
    image, and is turned over then.
    """
    return _parse_plane(tags.text(ORIENTATION))


@functools.lru_cache(maxsize=1024)  # the slices of a series have one direction
def _parse_plane(orientation: str) -> Plane | None:
    """Parse the six cosines of ImageOrientationPatient; None where they are not those of two orthogonal unit vectors."""
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
    """Read where the slice's first pixel lies in the patient, in mm; None where the position is missing or damaged."""
    corner = tags.numbers(POSITION, 3)
    if corner is None or max(map(abs, corner)) > FARTHEST_MM:
        return None
    return corner[0], corner[1], corner[2]


def check_axial(plane: Plane | None) -> None:
    """Raise `Rejected` for a plane that is nearer to a sagittal or coronal one than to an axial one; no plane passes."""
    if plane is not None and plane.normal[2] < LEAST_UPRIGHT:
        raise Rejected(Reason.not_axial, ORIENTATION, f"{plane.tilt_deg:.0f} degrees from an axial plane")
