"""The columns of index.parquet, declared once: what each holds, in which type and unit. The task's labels follow them.

Slices and films have a set each; what both have is said for both.
"""

from dataclasses import dataclass

from fl_rsna.task import Rendering


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column; `dtype` is pandas', `unit` is empty for names and plain numbers."""

    dtype: str
    unit: str
    meaning: str


def _text(meaning: str) -> Column:
    return Column(dtype="str", unit="", meaning=meaning)


def _number(unit: str, meaning: str) -> Column:
    return Column(dtype="float64", unit=unit, meaning=meaning)


def _count(unit: str, meaning: str) -> Column:
    return Column(dtype="int32", unit=unit, meaning=meaning)


def _flag(meaning: str) -> Column:
    return Column(dtype="bool", unit="", meaning=meaning)


LOCAL_ID, PLACEHOLDER = "local_id", "placeholder"

_IDENTITY = {
    "image_id": _text("SOPInstanceUID, the PNG's name"),
    "patient_id": _text(
        "PatientID^^^issuer, PatientID alone where no issuer is known; hashed unless data.hash_ids=false"
    ),
    "study_id": _text("StudyInstanceUID, likewise"),
    "series_id": _text("SeriesInstanceUID, likewise"),
    LOCAL_ID: _text("PatientID alone, likewise, where an issuer is known; or empty"),
    PLACEHOLDER: _text("PatientID, where it stands for nobody, such as ANONYMOUS; or empty"),
}
_SHAPE = {
    "rows": _count("pixels", "before resizing"),
    "columns": _count("pixels", "before resizing"),
}
_BITS = {
    "bits_stored": _count("bits", "BitsStored"),
    "signed": _flag("PixelRepresentation is 1"),
}
_SCANNER = {"scanner": _text("Manufacturer and ManufacturerModelName; or empty")}
_FILE = {
    "transfer_syntax": _text("TransferSyntaxUID the pixels were stored in"),
    "png_sha256": _text("first 16 hexadecimal digits of the PNG's SHA-256: equal for equal pixels"),
}


def _box(of: str) -> dict[str, Column]:
    return {
        "crop_top": _count("pixels", f"first row of the {of}"),
        "crop_left": _count("pixels", "first column"),
        "crop_bottom": _count("pixels", "row after the last"),
        "crop_right": _count("pixels", "column after the last"),
    }


_SLICE = {
    **_IDENTITY,
    "study_id": _text(
        "StudyInstanceUID, likewise; of a slice that names no study its series_id, else its frame of reference, else itself"
    ),
    "series_id": _text(
        "SeriesInstanceUID, likewise; of a slice that names no series its study_id; where one UID names slices of several studies, "
        "frames of reference or directions, the largest stack keeps it and each other has an id made of it and a number: UID-2"
    ),
    "origin": _text(
        "where the slice was made, if known: `site` of a list of files, else InstitutionName, hashed; or empty"
    ),
    "position_mm": _number(
        "mm",
        "ImagePositionPatient projected on the slice normal, which points to the head: greater is higher; "
        "empty in a series without positions",
    ),
    "order": _text(
        "by what the slice has its place in its series: position (ImagePositionPatient), slice_location (SliceLocation, taken to grow "
        "towards the head), instance_number (InstanceNumber, likewise) or unknown"
    ),
    "place_filled": _flag(
        "the tag of order was missing: the place comes from SliceLocation or InstanceNumber, which agree with the rest of the series"
    ),
    "rank": _count(
        "",
        "0 for the lowest slice of its series, nearest the feet; ties by image_id; slices of unknown order come last, by image_id",
    ),
    "slices": _count("", "slices of the series"),
    "relative_position": _number(
        "",
        "from 0 for the lowest to 1 for the highest slice of known order; 0.5 for a single one and where the order is unknown",
    ),
    "step_below_mm": _number("mm", "distance to the next lower slice; empty at the end"),
    "step_above_mm": _number("mm", "distance to the next higher slice; empty at the end"),
    "range_mm": _number("mm", "distance from the lowest to the highest slice of the series"),
    "repeated_position": _flag("another slice of the series lies at the same position, to 0.02 mm"),
    "tilt_deg": _number("degrees", "angle between slice normal and patient axis"),
    "orientation": _text("ImageOrientationPatient, six cosines to four decimals, joined by backslashes"),
    "row_spacing_mm": _number("mm", "PixelSpacing before resizing"),
    "column_spacing_mm": _number("mm", "PixelSpacing before resizing"),
    "thickness_mm": _number("mm", "SliceThickness"),
    **_SHAPE,
    "hu_min": _number("HU", "least value, clipped to [-1024, 3071] like all that follow, before resizing"),
    "hu_max": _number("HU", "greatest value"),
    "hu_mean": _number("HU", "mean"),
    "hu_std": _number("HU", "standard deviation"),
    "brain_share": _number("", "share of pixels with 0 <= HU <= 80"),
    "brain_hu_mean": _number("HU", "mean of those pixels; 0 without any"),
    "brain_range_hu": _number("HU", "greatest minus least value inside the brain window, 0 to 80 HU"),
    "noise": _flag("no brain to see: brain_range_hu <= 60 or brain_share < 0.02; for training only"),
    **_box("head's box, before resizing; the whole image without a head"),
    **_BITS,
    "slope": _number("HU", "RescaleSlope"),
    "intercept": _number("HU", "RescaleIntercept"),
    "wrapped_12_bit": _flag("negative values were stored modulo 4096 and have been restored"),
    "sign_restored": _flag("negative values of more than 12 bits were stated to be unsigned and have been restored"),
    "window_center": _number("HU", "WindowCenter, the first; never used to render"),
    "window_width": _number("HU", "WindowWidth, the first; never used to render"),
    "padding_hu": _number(
        "HU",
        "of padding that PixelPaddingValue names and that became air, else the least value before clipping, if below -1024; or empty",
    ),
    "bit_type": _text("BitsStored, u or s for the sign, RescaleIntercept: 12u-1024"),
    "padding_group": _text("none, high (named, above -1024 HU), low (below) or deep (-2500 HU and below)"),
    **_SCANNER,
    "fingerprint": _text("scanner, bit_type, padding_group and window in one word, joined by |"),
    **_FILE,
}

_FILM = {
    **_IDENTITY,
    "study_id": _text("StudyInstanceUID, likewise; of a film that names no study its image_id"),
    "origin": _text(
        "where the film was made, if known: `site` of a list of files, else InstitutionName, hashed; or empty"
    ),
    "rank": _count("", "place of the film in its study, from 0, by series_id and then image_id"),
    "slices": _count("", "films of the study"),
    "relative_position": _number("", "rank / (slices - 1), 0.5 for a single film"),
    "row_spacing_mm": _number("mm", "ImagerPixelSpacing, else PixelSpacing, before resizing"),
    "column_spacing_mm": _number("mm", "likewise"),
    **_SHAPE,
    "grey_min": _number(
        "", "least grey of the film as it is shown, 0 black to 1 white, like all that follow, before resizing"
    ),
    "grey_max": _number("", "greatest grey"),
    "grey_mean": _number("", "mean"),
    "grey_std": _number("", "standard deviation"),
    "photometric": _text(
        "PhotometricInterpretation: MONOCHROME1, the least value is white and was turned over, or MONOCHROME2"
    ),
    "view": _text("ViewPosition, else PA or AP by ViewCodeSequence; or empty"),
    "voi": _text(
        "what chose the values to show: lut (VOILUTSequence), window, or percentiles where the header has neither"
    ),
    "padding_share": _number("", "share of pixels that PixelPaddingValue says are no picture; they are black"),
    **_box("lungs' box, before resizing; the whole image where none are found"),
    **_BITS,
    "slope": _number("", "RescaleSlope; 1 without, or with a modality table"),
    "intercept": _number("", "RescaleIntercept; 0 without, or with a modality table"),
    "window_center": _number("", "WindowCenter, the first, in rescaled values"),
    "window_width": _number("", "WindowWidth, the first"),
    **_SCANNER,
    "fingerprint": _text(
        "scanner, bits with u or s for the sign and photometric, padded or none, and voi in one word, joined by |"
    ),
    **_FILE,
}


_OF_ITS_SERIES = {  # what a slice's file gives for the judgement of its series (cohort/series.py), and the index leaves out
    "frame_id": _text("FrameOfReferenceUID, hashed like the others"),
    "lone_id": _text("image_id, hashed like the others, for a slice that names neither study nor series nor frame"),
    "normal": _text("the slice's normal, three numbers"),
    "corner": _text("ImagePositionPatient, three numbers"),
    "slice_location": _number("mm", "SliceLocation"),
    "instance_number": _number("", "InstanceNumber"),
}


def columns_of(rendering: Rendering) -> dict[str, Column]:
    """The columns of an index of images of this rendering, in their order."""
    match rendering:
        case Rendering.hounsfield:
            return _SLICE
        case Rendering.radiograph:
            return _FILM


def stated_of(rendering: Rendering) -> dict[str, Column]:
    """Columns of the index and what else its making needs of files; a file gives some of them, the rest follows."""
    match rendering:
        case Rendering.hounsfield:
            return {**_SLICE, **_OF_ITS_SERIES}
        case Rendering.radiograph:
            return _FILM


COLUMNS = {**_FILM, **_SLICE}  # all there are; a name that both sets have holds the same type in both
IDS = ("patient_id", "study_id", "series_id")  # hashed together
HASHED = (*IDS, LOCAL_ID, "frame_id", "lone_id", "origin")  # all that a file may state and that is hashed
