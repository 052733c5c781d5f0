"""The chest cohort's laws: same seed same bytes, SIIM's two tables, ids and folders, and nothing that gives a class away."""

import ast
import csv
import re
from pathlib import Path

import numpy as np
import pydicom
import pytest

from fl_rsna.phantom.chest.cohort import image_id, render_film, studies_of, write_chest_cohort
from fl_rsna.phantom.chest.findings import Appearance
from fl_rsna.phantom.chest.render import BLOCK, MIXTURE, appearance_of
from fl_rsna.phantom.chest.vendors import VENDORS, draw_vendor
from fl_rsna.phantom.head.cohort import scramble_number
from fl_rsna.phantom.head.render import Purpose, generator
from fl_rsna.task import COVID_CXR

PATIENTS, SEED, SIZE = 14, 4, 64
TWELVE = re.compile(r"[0-9a-f]{12}")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chest")
    write_chest_cohort(folder, patients=PATIENTS, seed=SEED, size=SIZE)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_same_seed_gives_the_same_bytes_for_any_number_of_workers(tmp_path: Path) -> None:
    for name, seed, workers in (("one", 1, 1), ("two", 1, 2), ("other", 2, 1)):
        write_chest_cohort(tmp_path / name, patients=3, seed=seed, size=32, workers=workers)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert contents(tmp_path / "one").keys() != contents(tmp_path / "other").keys()


def test_progress_counts_every_patient(tmp_path: Path) -> None:
    heard: list[int] = []
    write_chest_cohort(tmp_path, patients=3, seed=0, size=32, on_progress=heard.append)
    assert heard == [1, 2, 3]


def test_what_cannot_be_met_is_refused(cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="another folder"):
        write_chest_cohort(cohort, patients=1, seed=9)
    with pytest.raises(ValueError, match="got 0 and 64"):
        write_chest_cohort(tmp_path, patients=0, seed=0, size=64)
    with pytest.raises(ValueError, match="got 1 and 8"):
        write_chest_cohort(tmp_path, patients=1, seed=0, size=8)


def test_every_film_lies_where_its_header_says_and_stands_in_both_tables(cohort: Path) -> None:
    images = {row["id"]: row["StudyInstanceUID"] for row in table(cohort / "train_image_level.csv")}
    studies = {row["id"] for row in table(cohort / "train_study_level.csv")}
    paths = list((cohort / "train").rglob("*.dcm"))
    for path in paths:
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        study, series, name = path.relative_to(cohort / "train").parts
        assert (ds.StudyInstanceUID, ds.SeriesInstanceUID, f"{ds.SOPInstanceUID}.dcm") == (study, series, name)
        assert all(TWELVE.fullmatch(part) for part in (study, series, path.stem, ds.PatientID))
        assert images[f"{path.stem}_image"] == study
    assert len(paths) == len(images)
    assert studies == {f"{study}_study" for study in images.values()}
    assert len(paths) == sum(sum(studies_of(SEED, patient)) for patient in range(PATIENTS))


def test_a_study_has_one_class_and_the_names_are_the_published_ones(cohort: Path) -> None:
    rows = table(cohort / "train_study_level.csv")
    for row in rows:
        assert tuple(row) == ("id", *COVID_CXR.published)
        assert sorted(row[name] for name in COVID_CXR.published) == ["0", "0", "0", "1"]
    assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)


def test_boxes_are_inside_the_image_and_only_where_the_class_has_them(cohort: Path) -> None:
    classes = {row["id"].removesuffix("_study"): row for row in table(cohort / "train_study_level.csv")}
    marked: dict[str, int] = dict.fromkeys(classes, 0)
    for row in table(cohort / "train_image_level.csv"):
        study, name = row["StudyInstanceUID"], row["id"].removesuffix("_image")
        (path,) = (cohort / "train").rglob(f"{name}.dcm")
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        boxes = ast.literal_eval(row["boxes"]) if row["boxes"] else []
        said = row["label"].split()
        if not boxes:
            assert row["label"] == "none 1 0 0 1 1"
            continue
        marked[study] += 1
        assert said[::6] == ["opacity"] * len(boxes)
        for number, box in enumerate(boxes):
            left, top, right, bottom = (float(edge) for edge in said[6 * number + 2 : 6 * number + 6])
            assert (left, top, right - left, bottom - top) == tuple(box[key] for key in ("x", "y", "width", "height"))
            assert 0 <= left < right <= ds.Columns
            assert 0 <= top < bottom <= ds.Rows
    for study, images in marked.items():
        if classes[study]["Negative for Pneumonia"] == "1":
            assert images == 0
        elif classes[study]["Atypical Appearance"] == "0":
            assert images == 1  # SIIM's readers marked one image of a study


def test_ids_never_collide_and_differ_by_kind() -> None:
    small = {scramble_number(3, number, bits=12, kind=1) for number in range(1 << 12)}
    assert len(small) == 1 << 12
    assert image_id(0, 1) != image_id(0, 2) != image_id(1, 2)
    assert scramble_number(0, 5, bits=48, kind=1) != scramble_number(0, 5, bits=48, kind=2)


def test_every_class_is_there_in_its_share_from_a_few_patients_on() -> None:
    classes = [appearance_of(7, patient) for patient in range(3 * BLOCK)]
    for appearance in Appearance:
        share = MIXTURE[appearance]
        assert classes.count(appearance) == round(3 * BLOCK * share)
        assert appearance in classes[:BLOCK]
    assert [appearance.name for appearance in Appearance] == list(COVID_CXR.labels)


def test_a_few_studies_have_two_films_and_a_few_patients_two_studies() -> None:
    counts = [studies_of(0, patient) for patient in range(1500)]
    assert 0.05 < np.mean([len(studies) == 2 for studies in counts]) < 0.12
    assert 0.03 < np.mean([images == 2 for studies in counts for images in studies]) < 0.09


def test_vendor_and_number_of_films_tell_nothing_about_the_class() -> None:
    numbers = range(3000)
    classes = np.array([appearance_of(0, number) for number in numbers])
    names = np.array([draw_vendor(generator(0, Purpose.scan, number)).name for number in numbers])
    twice = np.array([sum(studies_of(0, number)) > 1 for number in numbers])
    for group in [twice, *(names == vendor.name for vendor in VENDORS)]:
        for appearance, share in zip(Appearance, MIXTURE, strict=True):
            own = classes[group] == appearance
            assert abs(own.mean() - share) < 4 * np.sqrt(share * (1 - share) / len(own))


def test_brightness_size_and_view_tell_nothing_about_the_class() -> None:
    films = [render_film(11, number, size=32) for number in range(200)]
    classes = np.array([film.appearance for film in films])
    features = {
        "mean": [film.picture.mean() for film in films],
        "spread": [film.picture.std() for film in films],
        "stored": [film.stored.astype(float).mean() / film.vendor.highest for film in films],
        "aspect": [film.picture.shape[1] / film.picture.shape[0] for film in films],
        "view": [film.view == "AP" for film in films],
    }
    for values in features.values():
        for appearance in Appearance:
            value, spread = auroc(np.array(values, dtype=float), classes == appearance)
            assert abs(value - 0.5) < 3.5 * spread


def auroc(scores: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    """Area under the ROC curve, a tie counting half, and its standard deviation without any relation."""
    yes, no = scores[positive], scores[~positive]
    above = (yes[:, None] > no).mean() + 0.5 * (yes[:, None] == no).mean()
    return float(above), float(np.sqrt((len(scores) + 1) / (12 * len(yes) * len(no))))
