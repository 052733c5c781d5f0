"""Read what one slice's tags state, or reject the file by the tag that rules it out; pixels are not looked at.

Attribute names follow DICOM PS3.3: C.7.6.2 Image Plane, C.7.6.3 Image Pixel, C.11.1 Modality LUT.
"""

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from fl_rsna.imaging.dicom.hounsfield import Rescale
from fl_rsna.imaging.dicom.image_type import check_image_type, check_scout
from fl_rsna.imaging.dicom.plane import Plane, check_axial, read_corner, read_plane
from fl_rsna.imaging.dicom.rejections import Reason, Rejected
from fl_rsna.imaging.dicom.tags import Tags

SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
MAX_SIDE = 8192  # pixels; slices are padded to a square
LONGEST_ID, LONGEST_NAME = 1024, 256  # characters; the standard allows 64
QUALIFIERS = "IssuerOfPatientIDQualifiersSequence"
UNIVERSAL_ID = ("UniversalEntityID", "UniversalEntityIDType")  # in an item of that sequence

HOUNSFIELD = ("", "HU", "HOUNSFIELD", "HOUNSFIELD UNIT", "HOUNSFIELD UNITS", "US", "UNSPECIFIED")  # RescaleType
STORAGE = "1.2.840.10008.5.1.4.1.1."  # standard storage classes begin with this
CT_STORAGE = tuple(STORAGE + tail for tail in ("2", "2.1", "2.2"))  # CT, enhanced CT, legacy converted enhanced CT
SECONDARY_CAPTURE = STORAGE + "7"


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The facts that one slice's tags state. Names and units are those of the index and of the checks of a series
    (cohort/prepared/index.py).
    """

    image_id: str
    patient_id: str
    issuer: str  # of patient_id; prepare makes the index's column of it
    study_id: str
    series_id: str
    frame_id: str
    lone_id: str
    origin: str
    position_mm: float | None
    tilt_deg: float | None
    orientation: str
    normal: str
    corner: str
    slice_location: float | None
    instance_number: float | None
    row_spacing_mm: float | None
    column_spacing_mm: float | None
    thickness_mm: float | None
    rows: int
    columns: int
    bits_stored: int
    signed: bool
    slope: float
    intercept: float
    window_center: float | None
    window_width: float | None
    scanner: str
    transfer_syntax: str


def check_kind(tags: Tags, meta: Tags, modalities: Sequence[str]) -> None:
    """Raise `Rejected` for anything but a single image of one of `modalities`; CT must be axial, too."""
    sop_class = check_modality(tags, meta, modalities)
    if sop_class.startswith(SECONDARY_CAPTURE):
        raise Rejected(Reason.secondary_capture, "SOPClassUID", sop_class)
    if "CT" in modalities and sop_class.startswith(STORAGE) and sop_class not in CT_STORAGE:
        raise Rejected(Reason.wrong_modality, "SOPClassUID", sop_class)
    check_scout(tags)
    if "CT" in modalities:
        plane = read_plane(tags)
        check_image_type(tags, plane)
        check_axial(plane)
    check_single(tags)


def check_modality(tags: Tags, meta: Tags, modalities: Sequence[str]) -> str:
    """Check the modality and return the SOPClassUID, or empty; raises `Rejected` for another modality."""
    if tags.word("Modality") not in modalities:
        raise Rejected(Reason.wrong_modality, "Modality", tags.text("Modality") or "missing")
    return tags.text("SOPClassUID") or meta.text("MediaStorageSOPClassUID")


def check_single(tags: Tags) -> None:
    """Raise `Rejected` for several frames in one file, and for text in the pixels."""
    if (tags.number("NumberOfFrames") or 0) > 1:  # 0 and words count as one frame; the pixels' length is checked later
        raise Rejected(Reason.multi_frame, "NumberOfFrames", tags.text("NumberOfFrames"))
    if tags.word("BurnedInAnnotation") in ("YES", "Y", "TRUE"):
        raise Rejected(Reason.burned_in_text, "BurnedInAnnotation", tags.text("BurnedInAnnotation"))


def check_grey(tags: Tags) -> None:
    """Raise `Rejected` for pixels in colour.

    Both MONOCHROME1 and MONOCHROME2 pass: HU do not depend on which end of the range is shown white.
    """
    photometric = read_photometric(tags)
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise Rejected(Reason.not_grey, "PhotometricInterpretation", photometric or "missing")
    if "SamplesPerPixel" in tags and tags.integer("SamplesPerPixel") != 1:
        raise Rejected(Reason.not_grey, "SamplesPerPixel", tags.text("SamplesPerPixel") or "empty")


def read_photometric(tags: Tags) -> str:
    """Read PhotometricInterpretation in capitals and without blanks; empty when missing."""
    return tags.word("PhotometricInterpretation").replace(" ", "")


def read_rescale(tags: Tags) -> Rescale:
    """Read how the stored values become HU.

    Raises `Rejected` without a usable slope and intercept, for another unit than HU, and for tags of the pixels that
    contradict each other.
    """
    bits, signed = read_bits(tags)
    unit = tags.word("RescaleType")
    if unit not in HOUNSFIELD:
        raise Rejected(Reason.not_hounsfield, "RescaleType", unit)
    slope, intercept = tags.number("RescaleSlope"), tags.number("RescaleIntercept")
    if not slope or intercept is None or not math.isfinite(slope * 65536 + abs(intercept)):
        found = f"{tags.text('RescaleSlope') or 'missing'}, {tags.text('RescaleIntercept') or 'missing'}"
        tag = "ModalityLUTSequence" if "ModalityLUTSequence" in tags else "RescaleSlope"
        raise Rejected(Reason.no_rescale, tag, f"slope and intercept: {found}")
    return Rescale(bits_stored=bits, signed=signed, slope=slope, intercept=intercept)


def read_bits(tags: Tags) -> tuple[int, bool]:
    """Read BitsStored and whether PixelRepresentation says signed; raises `Rejected` where the tags of the pixels contradict each other."""
    allocated, bits, high = (tags.integer(keyword) for keyword in ("BitsAllocated", "BitsStored", "HighBit"))
    if allocated not in (8, 16) or not bits or not 0 < bits <= allocated or high not in (None, bits - 1):
        detail = f"BitsAllocated {allocated}, BitsStored {bits}, HighBit {high}; expected 8 or 16 with BitsStored = HighBit + 1"
        raise Rejected(Reason.bad_bits, "BitsStored" if allocated in (8, 16) else "BitsAllocated", detail)
    sign = tags.integer("PixelRepresentation")
    if sign not in (0, 1):
        found = "missing" if sign is None else sign
        raise Rejected(Reason.bad_bits, "PixelRepresentation", f"{found}; expected 0 or 1")
    return bits, sign == 1


def read_header(tags: Tags, rescale: Rescale, syntax: str) -> Header:
    """Read all that the index takes from a slice's tags; raises `Rejected` without a shape, a usable name and a patient."""
    rows, columns = read_shape(tags)
    image_id, patient_id = read_ids(tags)
    plane, corner = read_plane(tags), read_corner(tags)
    orientation, normal = ("", "") if plane is None else _format_plane(plane)
    spacing = tags.numbers("PixelSpacing", 2)
    return Header(
        image_id=image_id,
        patient_id=patient_id,
        issuer=read_issuer(tags),
        study_id=read_id(tags, "StudyInstanceUID"),
        series_id=read_id(tags, "SeriesInstanceUID"),
        frame_id=tags.text("FrameOfReferenceUID")[:LONGEST_ID],
        lone_id=image_id,
        origin=tags.text("InstitutionName")[:LONGEST_NAME],
        position_mm=plane.height_mm(corner) if plane is not None and corner is not None else None,
        tilt_deg=None if plane is None else plane.tilt_deg,
        orientation=orientation,
        normal=normal,
        corner="" if corner is None else "\\".join(map(repr, corner)),
        slice_location=tags.number("SliceLocation"),
        instance_number=tags.number("InstanceNumber"),
        row_spacing_mm=spacing[0] if spacing else None,
        column_spacing_mm=spacing[1] if spacing else None,
        thickness_mm=tags.number("SliceThickness"),
        rows=rows,
        columns=columns,
        bits_stored=rescale.bits_stored,
        signed=rescale.signed,
        slope=rescale.slope,
        intercept=rescale.intercept,
        window_center=tags.number("WindowCenter"),
        window_width=tags.number("WindowWidth"),
        scanner=scanner_of(tags),
        transfer_syntax=syntax,
    )


def read_shape(tags: Tags) -> tuple[int, int]:
    """Read rows and columns; raises `Rejected` where there are none, or more than MAX_SIDE."""
    rows, columns = tags.integer("Rows") or 0, tags.integer("Columns") or 0
    if rows < 1 or columns < 1:
        raise Rejected(Reason.bad_bits, "Rows" if rows < 1 else "Columns", f"{rows} rows and {columns} columns")
    if max(rows, columns) > MAX_SIDE:
        raise Rejected(Reason.too_large, "Rows", f"{rows} x {columns} pixels")
    return rows, columns


def read_ids(tags: Tags) -> tuple[str, str]:
    """Read SOPInstanceUID and PatientID; raises `Rejected` without a usable name or a patient."""
    image_id, patient_id = tags.text("SOPInstanceUID"), read_id(tags, "PatientID").strip()
    if not SAFE_ID.fullmatch(image_id):
        raise Rejected(Reason.bad_id, "SOPInstanceUID", image_id or "missing")
    if not patient_id:
        raise Rejected(Reason.no_patient, "PatientID", "missing: patients are what splits must not share")
    return image_id, patient_id


def read_issuer(tags: Tags) -> str:
    """Read who gave PatientID: IssuerOfPatientID, else the universal id of its qualifiers as HL7 writes it (HD), else empty.

    The plain reading has no sequences and raises ValueError where it needs one.
    """
    issuer = read_id(tags, "IssuerOfPatientID").strip()
    if issuer or QUALIFIERS not in tags:
        return issuer
    items = tags.convert_value(QUALIFIERS)
    entity, kind = (str((items[0].get(name) if items else "") or "").strip() for name in UNIVERSAL_ID)
    return f"&{entity}&{kind}" if entity else ""


def scanner_of(tags: Tags) -> str:
    """Return the scanner's maker and model in one line, or empty."""
    names = (tags.text(keyword) for keyword in ("Manufacturer", "ManufacturerModelName"))
    return " ".join(filter(None, names))[:LONGEST_NAME]


def read_id(tags: Tags, keyword: str) -> str:
    """Read an identifier in full, because two that are cut short could become one; raises `Rejected` above LONGEST_ID characters."""
    text = tags.text(keyword)
    if len(text) > LONGEST_ID:
        raise Rejected(Reason.bad_header, keyword, f"{len(text)} characters, expected at most {LONGEST_ID}")
    return text


@functools.lru_cache(maxsize=1024)  # the slices of a series have one direction
def _format_plane(plane: Plane) -> tuple[str, str]:
    """Format a plane as two texts: the six cosines to four decimals, and the normal exactly."""
    return "\\".join(f"{cosine + 0:.4f}" for cosine in plane.cosines), "\\".join(map(repr, plane.normal))
