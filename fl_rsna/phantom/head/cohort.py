"""Write synthetic head CT in RSNA's form: valid DICOM, `stage_2_train.csv`, and RSNA's quirks on request.

The same seed, size and counts give the same bytes for any number of workers, because every patient draws from
generators of its own. Nothing about lesions is stored. Seed and patient number give the same head again, to the last
bit, and from it the place of the blood on a prepared slice.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from fl_rsna.common.process import end_with_parent, without_interrupts
from fl_rsna.imaging.dicom.hounsfield import Rescale
from fl_rsna.imaging.dicom.reader import write_slice
from fl_rsna.imaging.png_store import Image, fit_square, render
from fl_rsna.phantom.head.hemorrhage import SUBTYPES
from fl_rsna.phantom.head.render import Patient, Purpose, generator, render_patient
from fl_rsna.phantom.head.scanner import WRAPPED, Scan, to_stored
from fl_rsna.settings.data import ImageKind

__all__ = ["COLUMNS", "Patient", "Quirks", "patient_id", "render_patient", "slice_id", "write_cohort"]

COLUMNS = (*SUBTYPES, "any")  # the order of Kaggle's rows
ID_BITS = {"patient": 32, "slice": 36, "study": 40, "series": 40}  # 8, 9 and 10 hexadecimal digits, as RSNA has them

Job = TypeVar("Job")
Done = TypeVar("Done")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quirks:
    """The faults of a cohort, like those in RSNA's files.

    `duplicate_rows` slices have their six label rows twice; `truncated_files` slices have pixel data that end early;
    with `wrapped_12_bit` one patient's negative HU are stored modulo 4096; `several_studies` patients are scanned
    twice.
    """

    duplicate_rows: int = 0
    truncated_files: int = 0
    wrapped_12_bit: bool = False
    several_studies: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    patient: int
    studies: int
    wrapped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    image_id: str
    labels: tuple[int, ...]  # in the order of COLUMNS


def write_cohort(
    folder: Path,
    *,
    patients: int,
    seed: int,
    size: int = 256,
    slices_per_series: int = 20,
    quirks: Quirks = Quirks(),
    workers: int = 1,
    on_progress: Callable[[int], None] | None = None,
) -> None:
    """Write `patients` synthetic patients as `folder`/stage_2_train/*.dcm and `folder`/stage_2_train.csv.

    `on_progress` is called with the number of patients written so far. Raises ValueError for counts that cannot be met
    and for a folder that already holds slices.
    """
    _check(folder, patients, size, slices_per_series, quirks)
    images = folder / "stage_2_train"
    images.mkdir(parents=True, exist_ok=True)
    work = partial(_write_patient, images=images, seed=seed, size=size, slices=slices_per_series)
    rows: list[_Row] = []
    for done, written in enumerate(run_in_processes(work, _list_jobs(seed, patients, quirks), workers), start=1):
        rows.extend(written)
        if on_progress:
            on_progress(done)
    rows.sort(key=lambda row: row.image_id)
    chosen = generator(seed, Purpose.quirks, patients).permutation(len(rows))
    for row in (rows[index] for index in chosen[: quirks.truncated_files]):
        path = images / f"{row.image_id}.dcm"
        content = path.read_bytes()
        path.write_bytes(content[: len(content) * 2 // 3])
    twice = [rows[index] for index in chosen[len(rows) - quirks.duplicate_rows :]]
    with (folder / "stage_2_train.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["ID", "Label"])  # Kaggle's long form: one row per slice and label
        for row in (*rows, *twice):
            writer.writerows([f"{row.image_id}_{name}", label] for name, label in zip(COLUMNS, row.labels, strict=True))


def _check(folder: Path, patients: int, size: int, slices_per_series: int, quirks: Quirks) -> None:
    """Raise ValueError for counts that cannot be met and for a folder that already holds slices."""
    if patients < 1 or slices_per_series < 1 or size < 16:
        raise ValueError(
            f"expected at least 1 patient, 1 slice and 16 pixels, got {patients}, {slices_per_series} and {size}"
        )
    if quirks.several_studies > patients:
        raise ValueError(f"expected several_studies of at most {patients} patients, got {quirks.several_studies}")
    if quirks.truncated_files + quirks.duplicate_rows > patients:
        raise ValueError(
            f"expected truncated_files + duplicate_rows of at most one a patient ({patients}), "
            f"got {quirks.truncated_files} + {quirks.duplicate_rows}"
        )
    if any((folder / "stage_2_train").glob("*.dcm")):
        raise ValueError(
            f"expected no slices in {folder / 'stage_2_train'}, found some; choose another folder or empty it"
        )


def _list_jobs(seed: int, patients: int, quirks: Quirks) -> list[_Job]:
    """List what to write of each patient; the patients with quirks are drawn."""
    order = generator(seed, Purpose.quirks, 0).permutation(patients)
    twice = set(order[: quirks.several_studies].tolist())
    wrapped = {int(order[-1])} if quirks.wrapped_12_bit else set()
    return [_Job(patient=k, studies=1 + (k in twice), wrapped=k in wrapped) for k in range(patients)]


def run_in_processes(work: Callable[[Job], Done], jobs: Sequence[Job], workers: int) -> Iterator[Done]:
    """Yield `work(job)` of each job in order: in this process for one worker or one job, else in spawned ones."""
    if workers <= 1 or len(jobs) == 1:
        yield from map(work, jobs)
        return
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        with without_interrupts():
            written = pool.map(work, jobs, chunksize=max(1, min(8, len(jobs) // (4 * workers))))
        yield from written


def _one_thread() -> None:
    cv2.setNumThreads(1)
    end_with_parent()


def _write_patient(job: _Job, *, images: Path, seed: int, size: int, slices: int) -> list[_Row]:
    """Write all slices of one patient; return their label rows."""
    rows = []
    for study in range(job.studies):
        vendor = WRAPPED if job.wrapped else None
        patient = render_patient(seed, job.patient, size=size, slices=slices, study=study, vendor=vendor)
        for index, (hu, (union, *subtypes)) in enumerate(zip(patient.volume_hu, patient.labels.tolist(), strict=True)):
            tags = _build_tags(patient.scan, seed, job.patient, study, index)
            image_id = str(tags["SOPInstanceUID"])
            write_slice(images / f"{image_id}.dcm", to_stored(hu, patient.vendor), tags)
            rows.append(_Row(image_id=image_id, labels=(*subtypes, union)))
    return rows


def _build_tags(scan: Scan, seed: int, patient: int, study: int, index: int) -> dict[str, object]:
    """Build the header that RSNA left in its files, by DICOM keyword (PS3.3 C.7.6.2, C.7.6.3, C.11.1, C.11.2)."""
    vendor = scan.vendor
    center, width = (list(values) if len(values) > 1 else values[0] for values in vendor.windows)
    return {
        "SOPInstanceUID": slice_id(seed, patient, index, study),
        "Modality": "CT",
        "PatientID": patient_id(seed, patient),
        "StudyInstanceUID": _build_id("study", seed, patient << 4 | study),
        "SeriesInstanceUID": _build_id("series", seed, patient << 4 | study),
        "StudyID": "",
        "ImagePositionPatient": [f"{value:.6f}" for value in scan.positions_mm[index]],
        "ImageOrientationPatient": [f"{value:.6f}" for value in scan.orientation],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "PixelSpacing": [f"{scan.spacing_mm:.6f}"] * 2,
        "BitsAllocated": 16,
        "BitsStored": vendor.bits,
        "HighBit": vendor.bits - 1,
        "PixelRepresentation": int(vendor.signed),
        "WindowCenter": center,
        "WindowWidth": width,
        "RescaleIntercept": str(vendor.intercept),
        "RescaleSlope": "1",
    }


def patient_id(seed: int, patient: int) -> str:
    """Return the PatientID of a patient."""
    return _build_id("patient", seed, patient)


def slice_id(seed: int, patient: int, index: int, study: int = 0) -> str:
    """Return the id of a patient's slice number `index`, base first."""
    return _build_id("slice", seed, patient << 16 | study << 12 | index)


def _build_id(kind: str, seed: int, number: int) -> str:
    """Build an id of `ID_` and hexadecimal digits, which never collide and whose order is not that of the anatomy."""
    return f"ID_{scramble_number(seed, number, bits=ID_BITS[kind], kind=len(kind))}"


def scramble_number(seed: int, number: int, *, bits: int, kind: int) -> str:
    """Turn `number` into bits / 4 hexadecimal digits in an order that looks random.

    The map is one-to-one over all numbers below 2^bits. It depends on `seed`, `bits` and `kind` only.
    """
    keys = np.random.default_rng([seed, Purpose.names, bits, kind]).integers(0, 1 << bits, size=(3, 2))
    value = number
    for factor, offset in keys.tolist():
        value = (value * (factor | 1) + offset) % (1 << bits)
        value ^= value >> (bits // 2)
    return f"{value:0{bits // 4}x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A demo slice drawn again: the image that `prepare` stores, and where each subtype is visible on it, bool [S, S]."""

    image_id: str
    image: Image
    lesions: dict[str, NDArray[np.bool_]]


def draw_again(
    image_ids: Iterable[str], *, patients: int, seed: int, size: int, slices_per_series: int, kind: ImageKind, side: int
) -> Iterator[Drawn]:
    """Draw the slices of these ids in a demo cohort of these settings again, as prepared at `side` pixels, patient by patient.

    Ids that such a cohort does not have are left out. A caller that has the stored image can compare the two.
    """
    longest = slices_per_series + slices_per_series // 8  # the scanner varies the count by an eighth
    numbers = {
        slice_id(seed, patient, index): (patient, index) for patient in range(patients) for index in range(longest)
    }
    wanted: dict[int, list[tuple[str, int]]] = {}
    for image_id in image_ids:
        if image_id in numbers:
            patient, index = numbers[image_id]
            wanted.setdefault(patient, []).append((image_id, index))
    for patient, slices in wanted.items():
        drawn = render_patient(seed, patient, size=size, slices=slices_per_series)
        for image_id, index in slices:
            if index < len(drawn.volume_hu):
                yield _draw_image(image_id, drawn, index, kind, side)


def _draw_image(image_id: str, patient: Patient, index: int, kind: ImageKind, side: int) -> Drawn:
    """Draw one slice of a rendered patient as `prepare` stores it, with its lesions."""
    vendor = patient.vendor
    rescale = Rescale(bits_stored=vendor.bits, signed=vendor.signed, slope=1.0, intercept=vendor.intercept)
    image = render(to_stored(patient.volume_hu[index], vendor), rescale, kind=kind, size=side)
    masks = patient.masks[:, index].astype(np.uint8) * 255
    lesions = {name: fit_square(mask, side) > 127 for name, mask in zip(SUBTYPES, masks, strict=True)}
    return Drawn(image_id=image_id, image=image, lesions=lesions)
