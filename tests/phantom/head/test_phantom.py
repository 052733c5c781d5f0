"""The phantom's laws: same seed same bytes, valid files, labels that mean what is seen, nothing that gives them away."""

import csv
from pathlib import Path

import numpy as np
import pydicom
import pytest

from fl_rsna.imaging.dicom.reader import read_slice
from fl_rsna.imaging.dicom.rejections import Reason, Rejected
from fl_rsna.phantom.head.cohort import COLUMNS, Patient, Quirks, render_patient, write_cohort
from fl_rsna.phantom.head.hemorrhage import SUBTYPES, draw_bleeds, subtype
from fl_rsna.phantom.head.render import SEEN_AREA_MM2, Purpose, generator
from fl_rsna.phantom.head.scanner import VENDORS, draw_vendor

PATIENTS, SLICES, SIZE = 4, 5, 32


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def label_rows(folder: Path) -> list[tuple[str, str]]:
    with (folder / "stage_2_train.csv").open(newline="") as file:
        header, *rows = list(csv.reader(file))
    assert header == ["ID", "Label"]
    return [(name, value) for name, value in rows]


def rejection(path: Path) -> Reason | None:
    try:
        read_slice(path.read_bytes(), modalities=("CT",))
    except Rejected as rejected:
        return rejected.reason
    return None


def small_cohort(folder: Path, **changes: object) -> Path:
    arguments: dict[str, object] = {"patients": PATIENTS, "seed": 5, "size": SIZE, "slices_per_series": SLICES}
    write_cohort(folder, **{**arguments, **changes})  # type: ignore[arg-type]
    return folder


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def bleeding() -> list[Patient]:
    """One patient for each subtype, with that subtype alone."""
    found: dict[int, Patient] = {}
    for number in range(400):
        kinds = [subtype(bleed) for bleed in draw_bleeds(generator(1, Purpose.bleeds, number))]
        if len(kinds) == 1 and kinds[0] not in found:
            found[kinds[0]] = render_patient(1, number, size=96)
    return [found[kind] for kind in range(len(SUBTYPES))]


def test_same_seed_gives_the_same_bytes_for_any_number_of_workers(cohort: Path, tmp_path: Path) -> None:
    assert contents(cohort) == contents(small_cohort(tmp_path / "two", workers=2))
    assert contents(cohort).keys() != contents(small_cohort(tmp_path / "other", seed=6)).keys()


def test_progress_counts_every_patient(tmp_path: Path) -> None:
    heard: list[int] = []
    small_cohort(tmp_path, slices_per_series=1, size=16, on_progress=heard.append)
    assert heard == list(range(1, PATIENTS + 1))


def test_every_slice_has_six_rows_and_any_is_their_union(cohort: Path) -> None:
    labels: dict[str, dict[str, int]] = {}
    for name, value in label_rows(cohort):
        image_id, label = name.rsplit("_", 1)
        assert label not in labels.setdefault(image_id, {})
        labels[image_id][label] = int(value)
    assert labels.keys() == {path.stem for path in (cohort / "stage_2_train").iterdir()}
    for row in labels.values():
        assert tuple(row) == COLUMNS
        assert row["any"] == max(row[name] for name in SUBTYPES)


def test_headers_are_what_rsna_left_in_its_files(cohort: Path) -> None:
    for path in (cohort / "stage_2_train").iterdir():
        ds = pydicom.dcmread(path)
        assert ds.SOPInstanceUID == path.stem
        assert (len(path.stem), len(ds.PatientID), len(ds.StudyInstanceUID)) == (12, 11, 13)
        assert ds.HighBit == ds.BitsStored - 1
        assert ds.pixel_array.shape == (SIZE, SIZE)
        assert np.allclose(np.linalg.norm(ds.ImageOrientationPatient[3:]), 1, atol=1e-5)


def test_file_names_do_not_sort_by_anatomy(cohort: Path) -> None:
    by_patient: dict[str, list[float]] = {}
    for path in sorted((cohort / "stage_2_train").iterdir()):
        found = read_slice(path.read_bytes(), modalities=("CT",))
        assert found.header.position_mm is not None
        by_patient.setdefault(found.header.patient_id, []).append(found.header.position_mm)
    assert len(by_patient) == PATIENTS
    assert any(heights != sorted(heights) for heights in by_patient.values())


@pytest.mark.parametrize("wrapped", [False, True])
def test_what_is_read_back_is_what_was_rendered(tmp_path: Path, wrapped: bool) -> None:
    small_cohort(tmp_path, patients=1, quirks=Quirks(wrapped_12_bit=wrapped))
    found = sorted(
        (read_slice(path.read_bytes(), modalities=("CT",)) for path in (tmp_path / "stage_2_train").iterdir()),
        key=lambda item: item.header.position_mm or 0,
    )
    if wrapped:
        assert all(item.rescale.wrapped_bits == 12 and item.stored.max() > 3000 for item in found)
        return
    for item, hu in zip(found, render_patient(5, 0, size=SIZE, slices=SLICES).volume_hu, strict=True):
        held = (hu > -980) & (hu < 3000)
        assert np.abs(item.rescale.hounsfield(item.stored) - hu)[held].max() <= 0.501


def test_quirks_are_there_in_the_asked_number(tmp_path: Path) -> None:
    small_cohort(tmp_path, quirks=Quirks(duplicate_rows=2, truncated_files=1, several_studies=2))
    paths = sorted((tmp_path / "stage_2_train").iterdir())
    rows, reasons = label_rows(tmp_path), [rejection(path) for path in paths]
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    assert len(rows) - len(set(rows)) == 2 * len(COLUMNS)
    assert [reason for reason in reasons if reason] == [Reason.truncated_pixels]
    assert len({ds.StudyInstanceUID for ds in headers}) == PATIENTS + 2
    assert len({ds.PatientID for ds in headers}) == PATIENTS


@pytest.mark.parametrize(
    "quirks", [Quirks(several_studies=PATIENTS + 1), Quirks(truncated_files=PATIENTS, duplicate_rows=1)]
)
def test_quirks_that_cannot_be_met_are_refused(tmp_path: Path, quirks: Quirks) -> None:
    with pytest.raises(ValueError, match="expected"):
        small_cohort(tmp_path, quirks=quirks)


def test_a_folder_with_slices_is_not_mixed_with_new_ones(cohort: Path) -> None:
    with pytest.raises(ValueError, match="stage_2_train"):
        small_cohort(cohort, seed=9)


def test_a_head_holds_air_fat_brain_fluid_and_bone() -> None:
    volume = render_patient(2, 3, size=96, slices=16).volume_hu
    present = [
        ((low <= volume) & (volume < high)).mean() for low, high in [(-1100, -900), (-130, -50), (22, 45), (700, 4000)]
    ]
    assert min(present) > 0.005
    middle = volume[len(volume) // 2]
    centre = middle[36:60, 36:60]
    assert 15 < np.median(centre) < 50
    corners = middle[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners < -900).all()


def test_labels_say_what_is_seen(bleeding: list[Patient]) -> None:
    for kind, patient in enumerate(bleeding):
        area_mm2 = patient.masks.sum(axis=(2, 3)).T * patient.scan.spacing_mm**2
        assert np.array_equal(patient.labels[:, 1:] == 1, area_mm2 >= SEEN_AREA_MM2)
        assert np.array_equal(patient.labels[:, 0], patient.labels[:, 1:].max(axis=1))
        assert patient.labels[:, 1:].any(axis=0).tolist() == [other == kind for other in range(len(SUBTYPES))]


def test_blood_is_brighter_than_brain(bleeding: list[Patient]) -> None:
    for kind, patient in enumerate(bleeding):
        brain = (patient.volume_hu > 15) & (patient.volume_hu < 45)
        blood = patient.volume_hu[patient.masks[kind]]
        assert 45 < blood.mean() < 85
        assert blood.mean() > patient.volume_hu[brain].mean() + 12


def test_a_bleed_is_contiguous_along_the_head(bleeding: list[Patient]) -> None:
    for kind, name in enumerate(SUBTYPES):
        if name != "intraventricular":  # the fourth ventricle may fill apart from the lateral ones
            seen = np.flatnonzero(bleeding[kind].labels[:, 1 + kind])
            assert np.array_equal(seen, np.arange(seen[0], seen[-1] + 1))


def test_epidural_and_subdural_lie_under_the_skull(bleeding: list[Patient]) -> None:
    for kind in (SUBTYPES.index("epidural"), SUBTYPES.index("subdural")):
        patient = bleeding[kind]
        index = int(patient.masks[kind].sum(axis=(1, 2)).argmax())
        rows, columns = np.nonzero(patient.masks[kind, index])
        bone = np.argwhere(patient.volume_hu[index] > 300)
        nearest = [np.hypot(*(bone - place).T).min() for place in zip(rows, columns, strict=True)]
        assert min(nearest) * patient.scan.spacing_mm < 8


def test_a_second_study_shows_the_same_bleeds_elsewhere_on_the_table(bleeding: list[Patient]) -> None:
    first, again = (render_patient(1, 2, size=48, slices=8, study=study) for study in (0, 1))
    assert np.array_equal(first.labels.any(axis=0), again.labels.any(axis=0))
    assert not np.allclose(first.scan.positions_mm[0], again.scan.positions_mm[0])


def test_every_subtype_is_common_enough_and_about_half_the_patients_are_healthy() -> None:
    drawn = [{subtype(bleed) for bleed in draw_bleeds(generator(0, Purpose.bleeds, number))} for number in range(1500)]
    assert 0.42 < np.mean([bool(kinds) for kinds in drawn]) < 0.55
    for kind in range(len(SUBTYPES)):
        assert np.mean([kind in kinds for kinds in drawn]) > 0.06


def test_the_vendor_tells_nothing_about_bleeding() -> None:
    bleeds = np.array([bool(draw_bleeds(generator(0, Purpose.bleeds, number))) for number in range(3000)])
    names = np.array([draw_vendor(generator(0, Purpose.scan, number)).name for number in range(3000)])
    for vendor in VENDORS:
        own = bleeds[names == vendor.name]
        assert abs(own.mean() - bleeds.mean()) < 4 * np.sqrt(0.25 / len(own))


def test_series_differ_in_length_and_reach() -> None:
    scans = [render_patient(3, number, size=16, slices=16).scan for number in range(12)]
    assert len({len(scan.positions_mm) for scan in scans}) > 1
    reach_mm = [float(np.ptp(scan.positions_mm[:, 2])) for scan in scans]
    assert max(reach_mm) - min(reach_mm) > 10
