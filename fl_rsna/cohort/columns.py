"""The columns of index.parquet, declared once: what each holds, in which type and unit. The task's labels follow them."""

from dataclasses import dataclass


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


COLUMNS = {
    "image_id": _text("SOPInstanceUID, the PNG's name"),
    "patient_id": _text("PatientID, hashed unless data.hash_ids=false"),
    "study_id": _text("StudyInstanceUID, likewise"),
    "series_id": _text("SeriesInstanceUID, likewise"),
    "origin": _text(
        "where the slice was made, if known: `site` of a list of files, else InstitutionName, hashed; or empty"
    ),
    "position_mm": _number("mm", "ImagePositionPatient projected on the slice normal; empty without geometry"),
    "rank": _count("", "0 for the lowest slice of its series; ties by image_id"),
    "slices": _count("", "slices of the series"),
    "relative_position": _number("", "rank / (slices - 1), 0.5 for a single slice"),
    "step_below_mm": _number("mm", "distance to the next lower slice; empty at the end"),
    "step_above_mm": _number("mm", "distance to the next higher slice; empty at the end"),
    "range_mm": _number("mm", "distance from the lowest to the highest slice of the series"),
    "repeated_position": _flag("another slice of the series lies at the same position"),
    "tilt_deg": _number("degrees", "angle between slice normal and patient axis"),
    "orientation": _text("ImageOrientationPatient, six cosines to four decimals, joined by backslashes"),
    "row_spacing_mm": _number("mm", "PixelSpacing before resizing"),
    "column_spacing_mm": _number("mm", "PixelSpacing before resizing"),
    "thickness_mm": _number("mm", "SliceThickness"),
    "rows": _count("pixels", "before resizing"),
    "columns": _count("pixels", "before resizing"),
    "hu_min": _number("HU", "least value, clipped to [-1024, 3071] like all that follow, before resizing"),
    "hu_max": _number("HU", "greatest value"),
    "hu_mean": _number("HU", "mean"),
    "hu_std": _number("HU", "standard deviation"),
    "brain_share": _number("", "share of pixels with 0 <= HU <= 80"),
    "brain_hu_mean": _number("HU", "mean of those pixels; 0 without any"),
    "brain_range_hu": _number("HU", "greatest minus least value inside the brain window, 0 to 80 HU"),
    "noise": _flag("no brain to see: brain_range_hu <= 60 or brain_share < 0.02; for training only"),
    "crop_top": _count("pixels", "first row of the head's box, before resizing; the whole image without a head"),
    "crop_left": _count("pixels", "first column"),
    "crop_bottom": _count("pixels", "row after the last"),
    "crop_right": _count("pixels", "column after the last"),
    "bits_stored": _count("bits", "BitsStored"),
    "signed": _flag("PixelRepresentation is 1"),
    "slope": _number("HU", "RescaleSlope"),
    "intercept": _number("HU", "RescaleIntercept"),
    "wrapped_12_bit": _flag("negative values were stored modulo 4096 and have been restored"),
    "window_center": _number("HU", "WindowCenter, the first; never used to render"),
    "window_width": _number("HU", "WindowWidth, the first; never used to render"),
    "padding_hu": _number("HU", "least value before clipping, where it is below -1024; empty otherwise"),
    "bit_type": _text("BitsStored, u or s for the sign, RescaleIntercept: 12u-1024"),
    "padding_group": _text("none, low (below -1024 HU) or deep (-2500 HU and below)"),
    "scanner": _text("Manufacturer and ManufacturerModelName; or empty"),
    "fingerprint": _text("scanner, bit_type, padding_group and window in one word, joined by |"),
    "transfer_syntax": _text("TransferSyntaxUID the pixels were stored in"),
    "png_sha256": _text("first 16 hexadecimal digits of the PNG's SHA-256: equal for equal pixels"),
}

IDS = ("patient_id", "study_id", "series_id")  # hashed together
