"""Read what a chest film's tags state, or reject the film by the tag that rules it out; pixels are not looked at.

Attribute names follow DICOM PS3.3: C.8.1.2 CR Image, C.8.11 DX Modules, C.11.1 Modality LUT, C.11.2 VOI LUT. The side
from which a film was taken is read from ViewPosition and from the View Code Sequence, which DX files must have. Its
codes are those of PS3.16 CID 4010 in SNOMED CT and, as older files have them, in SNOMED RT.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from fl_rsna.imaging.dicom.header import (
    LONGEST_NAME,
    SECONDARY_CAPTURE,
    STORAGE,
    check_modality,
    check_single,
    read_bits,
    read_id,
    read_ids,
    read_issuer,
    read_photometric,
    read_shape,
    scanner_of,
)
from fl_rsna.imaging.dicom.image_type import check_scout
from fl_rsna.imaging.dicom.lut import Lut, read_window, with_sign
from fl_rsna.imaging.dicom.radiograph import Presentation
from fl_rsna.imaging.dicom.rejections import Reason, Rejected
from fl_rsna.imaging.dicom.tags import Tags

FILM_STORAGE = (STORAGE + "1", STORAGE + "1.1")  # computed radiography; digital X-ray for presentation
NO_PHOTOGRAPHS = ("SD", "DRW", "SYN")  # ConversionType of a scanned document, a drawing, a made-up picture
RAW_STORAGE = STORAGE + "1.1.1"  # digital X-ray for processing

# Defined terms of BodyPartExamined (PS3.16 Annex L) that are not the chest. Makers and sites also write words of their
# own and of their language (PORT CHEST, TORAX, PECHO) or nothing: a word that is not here is taken for a chest.
OTHER_PARTS = frozenset({
    "ABDOMEN", "ABDOMENPELVIS", "ANKLE", "ARM", "BREAST", "BUTTOCK", "CALCANEUS", "CALF", "CERVIX", "CLAVICLE",
    "COCCYX", "COLON", "CSPINE", "CTSPINE", "ELBOW", "EXTREMITY", "EYE", "FACE", "FACIALBONES", "FEMUR", "FINGER",
    "FOOT", "FOREARM", "HAND", "HEAD", "HEADNECK", "HIP", "HUMERUS", "ILIUM", "JAW", "KIDNEY", "KNEE", "LEG",
    "LOWERLEG", "LSPINE", "LSSPINE", "MANDIBLE", "MAXILLA", "MOUTH", "NECK", "NOSE", "ORBIT", "PATELLA", "PELVIS",
    "RADIUS", "RADIUSULNA", "RIB", "SACRUM", "SCALP", "SCAPULA", "SHOULDER", "SIJOINT", "SINUS", "SKULL", "SPINE",
    "SSPINE", "STERNUM", "TAILBONE", "THIGH", "THUMB", "TIBIAFIBULA", "TLSPINE", "TMJ", "TOE", "TSPINE", "ULNA",
    "UPPERARM", "WHOLEBODY", "WHOLESPINE", "WRIST", "ZYGOMA",
})  # fmt: skip
POSITION, CODE = "ViewPosition", "ViewCodeSequence"
FRONTAL = {  # code -> the word of ViewPosition for it; empty for a frontal view from an unstated side
    "272479007": "PA", "R-10214": "PA", "R-40888": "PA", "399348003": "AP", "R-10206": "AP", "399033003": "", "R-10202": "",
}  # fmt: skip
OTHER_CODES = frozenset({  # lateral, sagittal and oblique ones
    "399067008", "R-102CD", "399173006", "R-10236", "399198007", "R-10232", "399352003", "R-10228", "399260004", "R-10224",
    "30730003", "G-A145", "399182000", "R-102C1", "260427002", "R-40783", "260426006", "R-40782", "399184004", "R-10238",
    "399236003", "R-10234", "399135007", "R-10220", "399356000", "R-40985", "399006002", "R-10212", "399038007", "R-10210",
    "399312000", "R-10208", "399059000", "R-10216", "399160007", "R-10204", "399099002", "R-10230", "399368009", "R-10226",
})  # fmt: skip
# Words for other views than a frontal one: ViewPosition's defined terms for CR and DX, what is written for them, and
# those of a code's meaning.
OTHER_VIEWS = frozenset({"LL", "RL", "LLD", "RLD", "LLO", "RLO", "LPO", "RPO", "LAO", "RAO", "LAT", "LATERAL"})
OTHER_VIEWS |= {"DECUB", "DECUBITUS", "OBL", "OBLIQUE", "SAGITTAL"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmHeader:
    """The facts that one film's tags state; names and units are those of the index (cohort/prepared/index.py)."""

    image_id: str
    patient_id: str
    issuer: str  # of patient_id; prepare makes the index's column of it
    study_id: str
    series_id: str
    origin: str
    row_spacing_mm: float | None
    column_spacing_mm: float | None
    rows: int
    columns: int
    photometric: str
    view: str
    voi: str
    bits_stored: int
    signed: bool
    slope: float
    intercept: float
    window_center: float | None
    window_width: float | None
    scanner: str
    transfer_syntax: str


def check_film(tags: Tags, meta: Tags, modalities: Sequence[str]) -> None:
    """Raise `Rejected` for anything but a single chest film of one of `modalities` that is ready to be looked at.

    The view is not checked here; `frontal_view` does that. A secondary capture may be a film: grey on a film is a
    picture, not a measurement, and published chest films are stored so.
    """
    sop_class = check_modality(tags, meta, modalities)
    if sop_class == RAW_STORAGE:
        raise Rejected(Reason.not_for_presentation, "SOPClassUID", sop_class)
    if sop_class.startswith(SECONDARY_CAPTURE):
        if (made_by := tags.word("ConversionType")) in NO_PHOTOGRAPHS:
            raise Rejected(Reason.secondary_capture, "ConversionType", made_by)
    elif sop_class.startswith(STORAGE) and sop_class not in FILM_STORAGE:
        raise Rejected(Reason.wrong_modality, "SOPClassUID", sop_class)
    if tags.word("PresentationIntentType") == "FOR PROCESSING":
        raise Rejected(Reason.not_for_presentation, "PresentationIntentType", "FOR PROCESSING")
    check_scout(tags)
    check_single(tags)
    part = tags.text("BodyPartExamined")
    if re.sub(r"[^A-Z]", "", part.upper()) in OTHER_PARTS:
        raise Rejected(Reason.wrong_body_part, "BodyPartExamined", part)


def read_presentation(tags: Tags, modality_lut: Lut | None, voi_lut: Lut | None) -> Presentation:
    """Read how the stored values become grey; `modality_lut` and `voi_lut` are the tables of the header's sequences.

    The first value of a modality table has the sign of the pixels (C.11.1.1.1). The first value of a VOI table is
    signed where the rescale before it can give a negative value; a modality table gives none (C.11.2.1.1). Raises
    `Rejected` for tags of the pixels that contradict each other, and for a rescale that cannot be applied.
    """
    bits, signed = read_bits(tags)
    slope, intercept = _read_rescale(tags) if modality_lut is None else (1.0, 0.0)
    least = -(1 << bits - 1) if signed else 0
    below_zero = modality_lut is None and min(slope * end + intercept for end in (least, least + (1 << bits) - 1)) < 0
    window = read_window(tags.number("WindowCenter"), tags.number("WindowWidth"), tags.text("VOILUTFunction"))
    return Presentation(
        value_bits=bits,
        signed=signed,
        slope=slope,
        intercept=intercept,
        modality_lut=None if modality_lut is None else with_sign(modality_lut, signed),
        voi_lut=None if voi_lut is None else with_sign(voi_lut, below_zero),
        window=window,
        inverted=read_photometric(tags) == "MONOCHROME1",
    )


def _read_rescale(tags: Tags) -> tuple[float, float]:
    """Read slope and intercept in whatever unit; 1 and 0 where the file states neither, which the standard allows.

    Raises `Rejected` where they are unusable, also where the intercept is so large that adding the slope does not
    change it: all values would become one.
    """
    if not tags.text("RescaleSlope") and not tags.text("RescaleIntercept"):
        return 1.0, 0.0
    slope, intercept = tags.number("RescaleSlope"), tags.number("RescaleIntercept")
    if (
        not slope
        or intercept is None
        or not math.isfinite(slope * 65536 + abs(intercept))
        or intercept + slope == intercept
    ):
        found = f"{tags.text('RescaleSlope') or 'missing'}, {tags.text('RescaleIntercept') or 'missing'}"
        raise Rejected(Reason.bad_lut, "RescaleSlope", f"slope and intercept: {found}")
    return slope, intercept


def read_film_header(tags: Tags, view: str, shown: Presentation, syntax: str) -> FilmHeader:
    """Read all that the index takes from a film's tags; raises `Rejected` without a shape, a usable name and a patient.

    Films are judged study by study. A film that names no study is a study by itself, not in one with all others that
    name none.
    """
    rows, columns = read_shape(tags)
    image_id, patient_id = read_ids(tags)
    spacing = tags.numbers("ImagerPixelSpacing", 2) or tags.numbers("PixelSpacing", 2)
    return FilmHeader(
        image_id=image_id,
        patient_id=patient_id,
        issuer=read_issuer(tags),
        study_id=read_id(tags, "StudyInstanceUID").strip() or image_id,
        series_id=read_id(tags, "SeriesInstanceUID"),
        origin=tags.text("InstitutionName")[:LONGEST_NAME],
        row_spacing_mm=spacing[0] if spacing else None,
        column_spacing_mm=spacing[1] if spacing else None,
        rows=rows,
        columns=columns,
        photometric=read_photometric(tags),
        view=view[:LONGEST_NAME],
        voi=shown.voi.value,
        bits_stored=shown.value_bits,
        signed=shown.signed,
        slope=shown.slope,
        intercept=shown.intercept,
        window_center=tags.number("WindowCenter"),
        window_width=tags.number("WindowWidth"),
        scanner=scanner_of(tags),
        transfer_syntax=syntax,
    )


@dataclass(frozen=True, slots=True)
class ViewCode:
    """The first item of a film's View Code Sequence."""

    value: str
    meaning: str


def frontal_view(position: str, code: ViewCode | None) -> str:
    """Return ViewPosition as it is written or, where it is empty, PA or AP by the code; empty where neither tells.

    Raises `Rejected` where either says that the view is not frontal. Nothing is guessed where both are silent.
    """
    if _is_other_view(position):
        raise Rejected(Reason.not_frontal, POSITION, position)
    if code is None:
        return position
    if code.value in OTHER_CODES or _is_other_view(code.meaning):
        raise Rejected(Reason.not_frontal, CODE, f"{code.value} {code.meaning}".strip())
    return position or FRONTAL.get(code.value, "")


def _is_other_view(words: str) -> bool:
    """Tell whether words name another view than a frontal one."""
    return bool(OTHER_VIEWS.intersection(re.findall(r"[A-Z]+", words.upper())))
