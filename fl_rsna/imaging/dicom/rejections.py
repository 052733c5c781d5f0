"""List the reasons why a file does not become an image, as `rejected.csv` states them."""

from enum import StrEnum

LONGEST = 200  # characters of a detail; a damaged header can hold far more


class Reason(StrEnum):
    """The reason why a file was rejected. Its value stands in `rejected.csv`; MEANING says what it means."""

    unreadable = "unreadable"
    empty_file = "empty_file"
    too_large = "too_large"
    not_dicom = "not_dicom"
    no_meta_header = "no_meta_header"
    bad_header = "bad_header"
    wrong_modality = "wrong_modality"
    secondary_capture = "secondary_capture"
    not_for_presentation = "not_for_presentation"
    localizer = "localizer"
    not_axial = "not_axial"
    wrong_body_part = "wrong_body_part"
    not_frontal = "not_frontal"
    multi_frame = "multi_frame"
    not_grey = "not_grey"
    burned_in_text = "burned_in_text"
    no_pixels = "no_pixels"
    truncated_pixels = "truncated_pixels"
    excess_pixels = "excess_pixels"
    undecodable = "undecodable"
    bad_bits = "bad_bits"
    no_rescale = "no_rescale"
    not_hounsfield = "not_hounsfield"
    implausible = "implausible"
    bad_lut = "bad_lut"
    no_patient = "no_patient"
    bad_id = "bad_id"
    duplicate_id = "duplicate_id"
    no_label = "no_label"
    crashed = "crashed"


MEANING = {
    Reason.unreadable: "the file, link or zip member cannot be opened or is damaged on disk",
    Reason.empty_file: "no byte in it",
    Reason.too_large: "more than 8192 pixels a side, 1 GB, or 4 GB of memory to read it: no single image",
    Reason.not_dicom: "no DICM at byte 128: no DICOM file, or one without its preamble",
    Reason.no_meta_header: "no file meta information with a TransferSyntaxUID, so its pixels cannot be known",
    Reason.bad_header: "the header is damaged: an element has no end, or an identifier no sensible length",
    Reason.wrong_modality: "Modality or SOPClassUID is not the task's: MR, structured reports, RT objects, waveforms, directories",
    Reason.secondary_capture: "no measured slice: a secondary capture, or by ImageType a screen, dose page, MIP, 3D view or perfusion map; "
    "of a film a scanned document or drawing",
    Reason.not_for_presentation: "raw detector data, which its maker's software still has to make a film of",
    Reason.localizer: "a localizer (scout), not an axial slice",
    Reason.not_axial: "ImageOrientationPatient is more than 45 degrees off an axial plane: a sagittal or coronal reformat, or a scout",
    Reason.wrong_body_part: "BodyPartExamined names a part of the body that is not the chest",
    Reason.not_frontal: "ViewPosition or the view's code says that the film is a lateral, oblique or decubitus view",
    Reason.multi_frame: "several frames in one file",
    Reason.not_grey: "colour or palette pixels, or PhotometricInterpretation does not say which",
    Reason.burned_in_text: "BurnedInAnnotation says that text, perhaps a name, stands in the pixels",
    Reason.no_pixels: "no PixelData",
    Reason.truncated_pixels: "fewer pixels than Rows x Columns, or a compressed image without its end: a file cut short",
    Reason.excess_pixels: "a row or more beyond Rows x Columns: the header and the pixels contradict each other",
    Reason.undecodable: "no decoder can read the pixels, they contradict the transfer syntax, or their compressed image has another shape",
    Reason.bad_bits: "BitsAllocated, BitsStored, HighBit, PixelRepresentation, Rows or Columns are missing, contradictory or beyond 16 bits",
    Reason.no_rescale: "no usable RescaleSlope and RescaleIntercept, so no Hounsfield units",
    Reason.not_hounsfield: "RescaleType states another unit than Hounsfield units",
    Reason.implausible: "HU that cannot be true: stored values that vary become one value, or the corners are bone",
    Reason.bad_lut: "a film's lookup table or rescale slope cannot be applied, or makes one grey of it, so its grey means nothing",
    Reason.no_patient: "no PatientID: patients are what splits must not share",
    Reason.bad_id: "SOPInstanceUID is missing or no safe file name",
    Reason.duplicate_id: "a file before it, in the order of their paths, has the same SOPInstanceUID",
    Reason.no_label: "no row in data.labels",
    Reason.crashed: "reading it ended the process or took over 10 s of processor time: a decoder failed on it",
}


class Rejected(Exception):
    """The error of a file that cannot become an image: the reason, the tag that decided, and what it held, on one short line."""

    def __init__(self, reason: Reason, tag: str, detail: str) -> None:
        line = "".join(mark if mark.isprintable() else "?" for mark in " ".join(detail.split())[:LONGEST])
        super().__init__(f"{reason}: {tag} {line}".strip())
        self.reason, self.tag, self.detail = reason, tag, line
