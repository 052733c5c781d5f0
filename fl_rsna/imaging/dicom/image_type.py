"""Reject images by ImageType: scouts, and pictures made of slices or of a screen, which are no measured axial slices.

PS3.3 C.7.6.1.1.2 and C.8.2.1.1.1 define few of these words; makers and archives write the others. A word counts as a
whole word in any value, whatever joins it to others: `MIP`, `MIP_THIN` and `CSA MIP` are a MIP, `AIDR 3D` is no 3D
picture.
"""

import functools
import re

from fl_rsna.imaging.dicom.plane import Plane
from fl_rsna.imaging.dicom.rejections import Reason, Rejected
from fl_rsna.imaging.dicom.tags import Tags

TAG = "ImageType"
SCOUTS = frozenset({
    "LOCALIZER", "LOCALISER", "SCOUT", "TOPOGRAM", "TOPO", "SCANOGRAM", "SCANO", "SURVIEW", "PILOT",
})  # fmt: skip
# Words that count in any value: pictures of screens and pages, views of a volume, results of several slices or scans.
PICTURES = frozenset({
    "SCREEN", "SCREENSAVE", "SCREENSHOT", "SCREENCAP", "CAPTURE", "HARDCOPY",
    "PROT", "PROTOCOL", "REPORT", "RESULT", "RESULTS", "SUMMARY", "HISTOGRAM", "GRAPH",
    "VRT", "SSD", "VOLREN", "RENDER", "RENDERED", "RENDERING", "ENDOSCOPY", "ENDOSCOPIC",
    "MIP", "MINIP", "MAXIP", "TMIP", "PROJECTION", "CURVED", "CPR",
    "CBF", "CBV", "MTT", "TTP", "TMAX", "TTD", "TTS", "PBV", "RCBF", "RCBV", "RMTT", "PENUMBRA", "PERMEABILITY",
    "FUSED", "FUSION", "COLOR", "COLOUR", "RGB", "OVERLAY",
    "SUBTRACTION", "SUBTRACTED", "DSA", "IODINE", "ZEFF",
})  # fmt: skip
# Values that count as a whole: short words, and words that measured slices have among others, as LOW DOSE or AIDR 3D.
WHOLE = frozenset({
    "DOSE", "DOSE INFO", "DOSE REPORT", "DOSE PAGE", "DOSE SHEET", "DOSE SUMMARY", "DOSE RECORD", "DOSE SR",
    "SNAPSHOT", "3D", "VR", "SURFACE", "MIN IP", "MAX IP", "MAXIMUM", "MINIMUM", "STD DEVIATION", "DIVISION", "MULTIPLICATION",
    "PS", "CSA BLACK IMAGE", "MAT SPECIFIC", "MAT FRACTIONAL", "MAT VALUE BASED", "EFF ATOMIC NUM", "ELECTRON DENSITY",
    "MATERIAL DENSITY", "RHO", "RHO Z", "Z EFF",
})  # fmt: skip
SIEMENS_SCOUT = re.compile(r"CT SOM\d+ TOP\b")
DERIVED_ONLY = "PERFUSION"  # rejects DERIVED images; in an ORIGINAL one it names a measured slice of a perfusion scan


def check_scout(tags: Tags) -> None:
    """Raise `Rejected` for a scout, the picture on which a scan is planned."""
    values, words = _parse_values(tags.text(TAG))
    if words & SCOUTS or any(SIEMENS_SCOUT.match(value) for value in values):
        raise Rejected(Reason.localizer, TAG, "\\".join(values))


def check_image_type(tags: Tags, plane: Plane | None) -> None:
    """Raise `Rejected` for an image that its ImageType shows to be no measured slice; a missing ImageType passes.

    Slices of hospitals are often DERIVED and SECONDARY: compressed, anonymised, averaged, reformatted along another
    axis. These words alone decide nothing. Where no plane is known, either, two kinds of images are rejected: those
    called OTHER beside SECONDARY, and DERIVED ones that are not called AXIAL and have slope 1 and intercept 0.
    """
    values, words = _parse_values(tags.text(TAG))
    derived = "DERIVED" in values
    made = bool(words & PICTURES or WHOLE.intersection(values) or (derived and DERIVED_ONLY in words))
    if not made and plane is None:
        unscaled = (tags.number("RescaleSlope"), tags.number("RescaleIntercept")) == (1, 0)
        made = values[1:3] == ["SECONDARY", "OTHER"] or (derived and unscaled and "AXIAL" not in words)
    if made:
        raise Rejected(Reason.secondary_capture, TAG, "\\".join(values))


@functools.lru_cache(maxsize=1024)
def _parse_values(text: str) -> tuple[list[str], frozenset[str]]:
    """Parse ImageType into its values and all their words, in capitals with one blank for whatever joins two words."""
    values = [re.sub(r"[\s_\-/.+&]+", " ", part.upper()).strip() for part in text.split("\\")] if text else []
    return values, frozenset(word for value in values for word in value.split(" "))
