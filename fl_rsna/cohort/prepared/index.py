"""Build and read the index of a prepared folder, index.parquet, which has a row for each image.

The columns are declared here, with type, unit and meaning; the task's labels follow them. CT slices and films have different columns.
Slices are in their order in space, films in the order of their study.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fl_rsna.cohort.prepared.series import SAME_MM, SERIES, Order, judge_series
from fl_rsna.common.reading import build_damage_error, file_sha256, read_json, refuse_unreadable
from fl_rsna.imaging.dicom.hounsfield import HU_MIN
from fl_rsna.settings.data import ImageKind
from fl_rsna.task import Rendering, Task

LOCAL_ID, PLACEHOLDER = "local_id", "placeholder"
IDS = ("patient_id", "study_id", "series_id")
HASHED = (*IDS, LOCAL_ID, "frame_id", "lone_id", "origin")  # every column of a file that is hashed
STUDY = ["patient_id", "study_id"]
DEEP_PADDING_HU = -2500.0
NOISE_RANGE_HU, NOISE_SHARE = 60.0, 0.02  # by which slices without brain are found, as competitors of RSNA 2019 did
STORED = "stored_sha256"  # in prepare.json: hashes of the tables beside it
PREPARE_AGAIN = "delete the folder and prepare again, or bring the file back from a copy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """The declaration of a column. `dtype` is pandas'; `unit` is empty for texts and plain numbers."""

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
    """Declare the four columns of a box."""
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


_OF_ITS_SERIES = {  # facts of a slice's file that cohort/prepared/series.py needs and the index leaves out
    "frame_id": _text("FrameOfReferenceUID, hashed like the others"),
    "lone_id": _text("image_id, hashed like the others, for a slice that names neither study nor series nor frame"),
    "normal": _text("the slice's normal, three numbers"),
    "corner": _text("ImagePositionPatient, three numbers"),
    "slice_location": _number("mm", "SliceLocation"),
    "instance_number": _number("", "InstanceNumber"),
}


def columns_of(rendering: Rendering) -> dict[str, Column]:
    """Return the columns of an index of images of this rendering, in order."""
    match rendering:
        case Rendering.hounsfield:
            return _SLICE
        case Rendering.radiograph:
            return _FILM


def list_file_columns(rendering: Rendering) -> dict[str, Column]:
    """Return the columns of the index, and the other facts of files that are needed to build it."""
    match rendering:
        case Rendering.hounsfield:
            return {**_SLICE, **_OF_ITS_SERIES}
        case Rendering.radiograph:
            return _FILM


COLUMNS = {**_FILM, **_SLICE}  # of both renderings; a name in both has the same type


def slice_rows(facts: pd.DataFrame) -> pd.DataFrame:
    """Sort slices by patient, series and place from the feet up, and add the columns that follow from the whole series."""
    table = judge_series(facts).sort_values([*SERIES, "place", "image_id"], kind="stable").reset_index(drop=True)
    apart = table.groupby(SERIES, sort=False)["place"].diff().gt(SAME_MM) | ~table.duplicated(SERIES)
    lowest = table["place"].groupby(apart.cumsum()).transform("min")  # of the slices that lie in one plane
    table["level"] = lowest.where(table["place"].notna())
    table = table.sort_values([*SERIES, "level", "image_id"], kind="stable").reset_index(drop=True)
    table = _with_places(table)
    table["noise"] = (table["brain_range_hu"] <= NOISE_RANGE_HU) | (table["brain_share"] < NOISE_SHARE)
    return _with_fingerprint(table)


def series_by_order(index: pd.DataFrame) -> dict[str, int]:
    """Count the series of an index by what orders their slices; empty for films, which have no order in space."""
    if "order" not in index:
        return {}
    counts = index.loc[index["rank"] == 0, "order"].value_counts()
    return {order.value: int(counts[order.value]) for order in Order if order.value in counts}


def film_rows(facts: pd.DataFrame) -> pd.DataFrame:
    """Sort films by patient, study, series and id, and add the columns that follow from the whole study.

    Films have no place in space. They get a rank because every image of an exam has one.
    """
    table = facts.sort_values([*STUDY, "series_id", "image_id"], kind="stable").reset_index(drop=True)
    films = table.groupby(STUDY, sort=False)
    rank, count = films.cumcount(), films["image_id"].transform("size")
    sign = np.where(table["signed"], "s ", "u ")
    bits = table["bits_stored"].astype(str) + sign + table["photometric"]
    padding = np.where(table["padding_share"] > 0, "padded", "none")
    return table.assign(
        rank=rank,
        slices=count,
        relative_position=_relative(rank, count),
        fingerprint=table["scanner"] + "|" + bits + "|" + padding + "|" + table["voi"],
    )


def _relative(rank: pd.Series, count: pd.Series) -> pd.Series:
    """Scale ranks to 0 for the first and 1 for the last of `count`; 0.5 for a single one and where `rank` is missing."""
    return (rank / (count - 1).where(count > 1)).fillna(0.5)


def _with_places(table: pd.DataFrame) -> pd.DataFrame:
    """Add ranks, steps and ranges inside each series; `table` is sorted by level."""
    known = table["level"].notna()
    series = table.assign(height=table["level"].where(table["position_mm"].notna())).groupby(SERIES, sort=False)
    rank, below, height = series.cumcount(), series["height"].diff(), series["height"]
    same = table["level"].where(table["order"] != Order.instance_number)
    return table.assign(
        rank=rank,
        slices=series["image_id"].transform("size"),
        relative_position=_relative(
            rank.where(known), known.groupby([table[name] for name in SERIES]).transform("sum")
        ),
        step_below_mm=below,
        step_above_mm=-height.diff(-1) + 0.0,  # no negative zero
        range_mm=height.transform("max") - height.transform("min"),
        repeated_position=table.assign(same=same).duplicated([*SERIES, "same"], keep=False) & same.notna(),
    )


def _with_fingerprint(table: pd.DataFrame) -> pd.DataFrame:
    """Add the columns that describe a scanner's headers in words, built once for each different header."""
    keys = ["bits_stored", "signed", "intercept", "scanner", "window_center", "window_width"]
    padding_hu = table["padding_hu"]
    known = [padding_hu.isna(), padding_hu <= DEEP_PADDING_HU, padding_hu > HU_MIN]
    padding = np.select(known, ["none", "deep", "high"], "low")
    combined = table[keys].assign(padding_group=padding)
    kinds = combined.drop_duplicates()
    bit_type = [
        f"{bits}{'s' if signed else 'u'}{intercept:+g}"
        for bits, signed, intercept in zip(kinds["bits_stored"], kinds["signed"], kinds["intercept"], strict=True)
    ]
    window = [
        f"{a:g}/{b:g}" if a == a and b == b else ""
        for a, b in zip(kinds["window_center"], kinds["window_width"], strict=True)
    ]
    words = kinds.assign(bit_type=bit_type, window=window)
    parts = zip(words["scanner"], words["bit_type"], words["padding_group"], words["window"], strict=True)
    words["fingerprint"] = ["|".join(part) for part in parts]
    found = combined.merge(words, how="left", on=[*keys, "padding_group"])
    return table.assign(**{name: found[name].to_numpy() for name in ("bit_type", "padding_group", "fingerprint")})


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Counts of files of a preparation: kept from an earlier one, converted `again`, converted as `new`, and `gone` from the input."""

    kept: int
    again: int
    new: int
    gone: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A prepared folder as read. `labels` is empty without labels; `index` has `image_id` as a column.

    `ids` names how its ids were made (common/id_scheme.py), None where that is not written down. `changes` are those of the preparation
    that has just made or checked it, None where the folder was only read.
    """

    folder: Path
    task: str
    labels: tuple[str, ...]
    image: ImageKind
    size: int
    index_sha256: str
    index: pd.DataFrame
    ids: str | None = None
    changes: Changes | None = None


def build_index(facts: pd.DataFrame, labels: pd.DataFrame | None, rendering: Rendering) -> pd.DataFrame:
    """Build the index: `columns_of(rendering)`, then all columns of `labels` (index image_id).

    `facts` has a row for each image, with the columns that a file gives. Rows are sorted by patient, series and rank; films by patient,
    study and rank.
    """
    columns = {name: column.dtype for name, column in columns_of(rendering).items()}
    table = facts.astype({name: dtype for name, dtype in columns.items() if name in facts})
    match rendering:
        case Rendering.hounsfield:
            table = slice_rows(table)
        case Rendering.radiograph:
            table = film_rows(table)
    table = table[list(columns)].astype(columns)
    return table if labels is None else table.join(labels, on="image_id", validate="one_to_one")


def hash_id(value: str, salt: str) -> str:
    """Hash an identifier under a salt: the first sixteen hexadecimal digits of SHA-256."""
    return hashlib.sha256(f"{salt}\0{value}".encode()).hexdigest()[:16]


def read_prepared(folder: Path, task: Task) -> Prepared:
    """Read a prepared folder. Raises ValueError when it is missing, unfinished, damaged or of another task."""
    if not folder.exists() and folder.with_name(folder.name + ".part").exists():
        raise ValueError(f"data.name: {folder} is not finished; repeat the python -m fl_rsna.prepare that began it")
    missing = f"data.name: no prepared data at {folder}; run python -m fl_rsna.prepare first"
    facts = read_facts(folder / "prepare.json", missing)
    with refuse_unreadable(folder / "prepare.json", "what prepare wrote", PREPARE_AGAIN, key="data.name: "):
        labels = tuple(facts["labels"])
        image, size, sha256, name = ImageKind(facts["image"]), int(facts["size"]), facts["index_sha256"], facts["task"]
    if name != task.name or labels not in ((), task.labels):
        raise ValueError(
            f"data.task: expected data prepared for task {task.name} ({', '.join(task.labels)}), "
            f"got task {name} ({', '.join(labels)}) in {folder}; prepare it again or choose that task"
            + (
                "; without a label it can make a site of its own: own_site --unannotated"
                if 0 < len(labels) < len(task.labels)
                else ""
            )
        )
    with refuse_unreadable(folder / "index.parquet", "the index that prepare wrote", PREPARE_AGAIN, key="data.name: "):
        check_stored(folder, facts, "index.parquet")
        index = pd.read_parquet(folder / "index.parquet")
    return Prepared(
        folder=folder,
        task=name,
        labels=labels,
        image=image,
        size=size,
        index_sha256=sha256,
        index=index,
        ids=facts.get("ids"),
    )


def check_stored(folder: Path, facts: Mapping[str, Any], name: str) -> None:
    """Raise ValueError for a file of a prepared folder whose hash is not the one in prepare.json.

    `facts` are those of prepare.json; without a hash of the file nothing is checked.
    """
    if facts.get(STORED, {}).get(name, found := file_sha256(folder / name)) != found:
        raise build_damage_error(folder / name, PREPARE_AGAIN)


def read_facts(path: Path, missing: str, *, by_hand: bool = False) -> dict[str, Any]:
    """Read a JSON object that an earlier step wrote. Raises ValueError(`missing`) when there is no such file.

    With `by_hand` a person may have changed it: a wrong hash is only a warning.
    """
    if not path.exists():
        raise ValueError(missing)
    return read_json(path, by_hand=by_hand)
