"""Read DICOM attributes from the bytes that a parser found, and convert them only when asked for.

Converting an element the general way takes ten times as long as reading it, and a slice needs two dozen elements.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

TAGS = {  # keyword -> tag (DICOM PS3.6)
    "TransferSyntaxUID": 0x00020010,
    "MediaStorageSOPClassUID": 0x00020002,
    "ImageType": 0x00080008,
    "SOPClassUID": 0x00080016,
    "SOPInstanceUID": 0x00080018,
    "Modality": 0x00080060,
    "ConversionType": 0x00080064,
    "PresentationIntentType": 0x00080068,
    "Manufacturer": 0x00080070,
    "InstitutionName": 0x00080080,
    "ManufacturerModelName": 0x00081090,
    "PatientID": 0x00100020,
    "IssuerOfPatientID": 0x00100021,
    "IssuerOfPatientIDQualifiersSequence": 0x00100024,
    "BodyPartExamined": 0x00180015,
    "SliceThickness": 0x00180050,
    "ImagerPixelSpacing": 0x00181164,
    "ViewPosition": 0x00185101,
    "StudyInstanceUID": 0x0020000D,
    "SeriesInstanceUID": 0x0020000E,
    "InstanceNumber": 0x00200013,
    "ImagePositionPatient": 0x00200032,
    "ImageOrientationPatient": 0x00200037,
    "FrameOfReferenceUID": 0x00200052,
    "SliceLocation": 0x00201041,
    "SamplesPerPixel": 0x00280002,
    "PhotometricInterpretation": 0x00280004,
    "NumberOfFrames": 0x00280008,
    "Rows": 0x00280010,
    "Columns": 0x00280011,
    "PixelSpacing": 0x00280030,
    "BitsAllocated": 0x00280100,
    "BitsStored": 0x00280101,
    "HighBit": 0x00280102,
    "PixelRepresentation": 0x00280103,
    "PixelPaddingValue": 0x00280120,
    "PixelPaddingRangeLimit": 0x00280121,
    "BurnedInAnnotation": 0x00280301,
    "WindowCenter": 0x00281050,
    "WindowWidth": 0x00281051,
    "RescaleIntercept": 0x00281052,
    "RescaleSlope": 0x00281053,
    "RescaleType": 0x00281054,
    "VOILUTFunction": 0x00281056,
    "ModalityLUTSequence": 0x00283000,
    "VOILUTSequence": 0x00283010,
    "ViewCodeSequence": 0x00540220,
}
TEXT_VRS = frozenset({"AE", "AS", "CS", "DA", "DS", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UT"})
INTEGERS = frozenset(
    {"SamplesPerPixel", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"}
    | {"PixelPaddingValue", "PixelPaddingRangeLimit"}
)
SIZES = {None: 2, "US": 2, "SS": 2, "UL": 4, "SL": 4}  # bytes of one integer; implicit VR has only US among INTEGERS
PADDING = " \0"  # removed at the end only: NULs before a number stand where its sign and digits were
ESCAPE = b"\x1b"  # begins text of another alphabet that is written with ASCII bytes (ISO 2022)


class Tags:
    """The attributes of one data set.

    `find` gives the raw element of a tag (`value` bytes, `VR`, `is_little_endian`) or None, `convert` its value in
    the parser's own conversion, which may raise and is used wherever the bytes are not plain.
    """

    def __init__(self, find: Callable[[int], Any], convert: Callable[[int], Any]) -> None:
        self._find, self._convert = find, convert

    def __contains__(self, keyword: str) -> bool:
        """Tell whether the data set has the attribute, even without a value."""
        return self._find(TAGS[keyword]) is not None

    def convert_value(self, keyword: str) -> Any:
        """Convert the value in the parser's own way, for what is neither text nor number; may raise."""
        return self._convert(TAGS[keyword])

    def text(self, keyword: str) -> str:
        """Return the value as text without padding, multiple values joined by backslashes; empty when missing."""
        element = self._find(TAGS[keyword])
        if element is None or (not element.value and _is_empty(element.value)):
            return ""
        value = element.value
        plain = element.VR in TEXT_VRS or (element.VR is None and keyword not in INTEGERS)
        if plain and isinstance(value, bytes) and value.isascii() and ESCAPE not in value:
            return value.decode("ascii").rstrip(PADDING).lstrip(" ")
        return _to_text(self._convert(TAGS[keyword])).rstrip(PADDING).lstrip(" ")

    def word(self, keyword: str) -> str:
        """Return a term of the standard in capitals with one blank between words, however it is written; empty when missing."""
        return _normalize_term(self.text(keyword))

    def parts(self, keyword: str) -> list[str]:
        """Return the values of a text, without blanks around them; none when missing."""
        text = self.text(keyword)
        return [part.strip() for part in text.split("\\")] if text else []

    def numbers(self, keyword: str, count: int) -> tuple[float, ...] | None:
        """Return the first `count` values as finite floats, or None when any is missing or malformed."""
        return numbers_in(self.text(keyword), count)

    def number(self, keyword: str) -> float | None:
        """Return the first value as a finite float, or None when it is missing or malformed."""
        values = self.numbers(keyword, 1)
        return None if values is None else values[0]

    def integer(self, keyword: str) -> int | None:
        """Return a binary integer, or a text that is one; None when missing, malformed or several."""
        element = self._find(TAGS[keyword])
        if element is None or (not element.value and _is_empty(element.value)):
            return None
        value = element.value
        if isinstance(value, bytes) and len(value) == SIZES.get(element.VR):
            signed = element.VR in ("SS", "SL")
            return int.from_bytes(value, "little" if element.is_little_endian else "big", signed=signed)
        values = self.numbers(keyword, 1) if "\\" not in self.text(keyword) else None
        return int(values[0]) if values is not None and values[0].is_integer() else None


def numbers_in(text: str, count: int) -> tuple[float, ...] | None:
    """Return the first `count` values of a text of numbers as finite floats, or None when any is missing or malformed.

    Backslashes separate the numbers.
    """
    if not text or "_" in text:  # Python takes 1_0 for a number, DICOM does not
        return None
    try:
        values = tuple(map(float, text.split("\\")))
    except ValueError:
        return None
    return values[:count] if len(values) >= count and all(map(math.isfinite, values)) else None


@functools.lru_cache(maxsize=1024)
def _normalize_term(text: str) -> str:
    """Write a term in capitals with one blank between words."""
    return " ".join(text.upper().replace("_", " ").split())


def _is_empty(value: Any) -> bool:
    """Tell whether a value that counts as false is missing; a number that the parser has already converted may be 0."""
    return value is None or hasattr(value, "__len__")


def _to_text(value: Any) -> str:
    """Turn a converted value into text that any file format can hold."""
    if isinstance(value, bytes):  # its value representation is no text
        return value.decode("latin-1")
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "\\".join(map(_to_text, value))
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")
