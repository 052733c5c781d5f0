"""Write synthetic chest radiographs as valid DICOM by several vendors, with the two tables of SIIM-FISABIO-RSNA COVID-19.

The same seed, size and count give the same bytes for any number of workers, because every patient draws from generators
of its own.
"""

import csv
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fl_rsna.imaging.dicom.reader import write_slice
from fl_rsna.phantom.chest.anatomy import View
from fl_rsna.phantom.chest.findings import Appearance, Box
from fl_rsna.phantom.chest.render import Film, render_film
from fl_rsna.phantom.head.cohort import run_in_processes, scramble_number
from fl_rsna.phantom.head.render import Purpose, generator
from fl_rsna.task import COVID_CXR

STUDY_TABLE, IMAGE_TABLE = "train_study_level.csv", "train_image_level.csv"
NO_OPACITY = "none 1 0 0 1 1"  # the label of an image without a box
__all__ = ["Film", "image_id", "patient_id", "render_film", "studies_of", "write_chest_cohort"]
TWO_STUDIES, TWO_IMAGES = 0.08, 0.06  # share of patients with two studies, of studies with two films
ID_BITS = 48  # 12 hexadecimal digits, as SIIM has them
ID_KINDS = {"patient": 21, "study": 22, "series": 23, "image": 24}  # each kind scrambles its numbers in another order
SMALLEST = 32  # pixels a side
CODES = {View.pa: ("272479007", "postero-anterior"), View.ap: ("399348003", "antero-posterior")}  # PS3.16 CID 4010


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRow:
    """One image of the cohort; `boxes` are those that its readers marked."""

    image_id: str
    study_id: str
    appearance: Appearance
    boxes: tuple[Box, ...]


def write_tables(folder: Path, rows: Iterable[ImageRow]) -> None:
    """Write the tables of studies and images, sorted by id.

    The column `boxes` is a list of dictionaries as Python prints it, empty for no box. For each box the column `label`
    has `opacity 1`, left, top, right and bottom; without a box it has a box of one pixel that says none.
    """
    images = sorted(rows, key=lambda row: row.image_id)
    studies = sorted({row.study_id: row.appearance for row in images}.items())
    with (folder / STUDY_TABLE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", *COVID_CXR.published])
        writer.writerows(
            [f"{name}_study", *(int(place == appearance) for place in Appearance)] for name, appearance in studies
        )
    with (folder / IMAGE_TABLE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "boxes", "label", "StudyInstanceUID"])
        for row in images:
            boxes = [{"x": box.x, "y": box.y, "width": box.width, "height": box.height} for box in row.boxes]
            corners = [(box.x, box.y, box.x + box.width, box.y + box.height) for box in row.boxes]
            label = " ".join(f"opacity 1 {' '.join(f'{edge:g}' for edge in edges)}" for edges in corners) or NO_OPACITY
            writer.writerow([f"{row.image_id}_image", str(boxes) if boxes else "", label, row.study_id])


def write_chest_cohort(
    folder: Path,
    *,
    patients: int,
    seed: int,
    size: int = 256,
    workers: int = 1,
    on_progress: Callable[[int], None] | None = None,
) -> None:
    """Write `patients` synthetic patients as `folder`/train/<study>/<series>/<image>.dcm and the two tables beside it.

    `size` is a film's longer side in pixels; `on_progress` is called with the number of patients written so far. Raises
    ValueError for counts that cannot be met and for a folder that already holds films.
    """
    images = folder / "train"
    if patients < 1 or size < SMALLEST:
        raise ValueError(f"expected at least 1 patient and {SMALLEST} pixels, got {patients} and {size}")
    if any(images.rglob("*.dcm")):
        raise ValueError(f"expected no films in {images}, found some; choose another folder or empty it")
    images.mkdir(parents=True, exist_ok=True)
    rows: list[ImageRow] = []
    work = partial(_write_patient, images=images, seed=seed, size=size)
    for done, written in enumerate(run_in_processes(work, range(patients), workers), start=1):
        rows.extend(written)
        if on_progress:
            on_progress(done)
    write_tables(folder, rows)


def studies_of(seed: int, patient: int) -> list[int]:
    """Draw how many images each study of a patient has; neither count says anything about the class."""
    rng = generator(seed, Purpose.counts, patient)
    return [1 + int(rng.random() < TWO_IMAGES) for _ in range(1 + int(rng.random() < TWO_STUDIES))]


def patient_id(seed: int, patient: int) -> str:
    """Return the PatientID of a patient."""
    return _build_id("patient", seed, patient)


def image_id(seed: int, patient: int, study: int = 0, image: int = 0) -> str:
    """Return the id of a film, which is its file's name."""
    return _build_id("image", seed, patient << 16 | study << 8 | image)


def _write_patient(patient: int, *, images: Path, seed: int, size: int) -> list[ImageRow]:
    """Write all films of one patient; return their rows."""
    rows = []
    for study, count in enumerate(studies_of(seed, patient)):
        marked = int(generator(seed, Purpose.counts, patient, study + 1).integers(count))
        for image in range(count):
            film = render_film(seed, patient, size=size, study=study, image=image)
            tags = _build_id_tags(seed, patient, study, image) | _build_header(film) | film.tags
            name = str(tags["SOPInstanceUID"])
            folder = images / str(tags["StudyInstanceUID"]) / str(tags["SeriesInstanceUID"])
            folder.mkdir(parents=True, exist_ok=True)
            write_slice(folder / f"{name}.dcm", film.stored, tags, sop_class=film.vendor.storage)
            boxes = film.boxes if image == marked else ()  # SIIM's readers marked one film of a study
            rows.append(ImageRow(image_id=name, study_id=folder.parent.name, appearance=film.appearance, boxes=boxes))
    return rows


def _build_id_tags(seed: int, patient: int, study: int, image: int) -> dict[str, object]:
    """Build the tags of a film's ids; two films of a study are two series, as in SIIM's files."""
    return {
        "SOPInstanceUID": image_id(seed, patient, study, image),
        "PatientID": patient_id(seed, patient),
        "StudyInstanceUID": _build_id("study", seed, patient << 8 | study),
        "SeriesInstanceUID": _build_id("series", seed, patient << 16 | study << 8 | image),
        "StudyID": "",
    }


def _build_header(film: Film) -> dict[str, object]:
    """Build the other tags that SIIM left in its files, by DICOM keyword (PS3.3 C.8.11.1, C.7.6.1)."""
    header: dict[str, object] = {
        "SOPClassUID": film.vendor.storage,
        "Modality": film.vendor.modality,
        "ImageType": ["ORIGINAL", "PRIMARY"],
        "BodyPartExamined": "CHEST",
        "ViewPosition": film.view.value,
        "PatientOrientation": ["L", "F"],  # the picture's right is the patient's left
        "PatientSex": "F" if film.female else "M",
    }
    if film.vendor.modality == "DX":  # DX files must state these, too
        value, meaning = CODES[film.view]
        code = {"CodeValue": value, "CodingSchemeDesignator": "SCT", "CodeMeaning": meaning}
        header |= {"PresentationIntentType": "FOR PRESENTATION", "ViewCodeSequence": [code]}
    return header


def _build_id(kind: str, seed: int, number: int) -> str:
    return scramble_number(seed, number, bits=ID_BITS, kind=ID_KINDS[kind])
