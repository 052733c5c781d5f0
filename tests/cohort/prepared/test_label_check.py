"""Labels of other images are told by few headers and before any conversion; labels of a few images among many are not refused."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from dicom_files import write_tiny

import fl_rsna.cohort.prepared.label_ids as matching
from fl_rsna.cohort.prepared.label_ids import check_labels_fit, label_ids
from fl_rsna.imaging.sources import File, find_files, read_file

IMAGES = 40


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[File]:
    """Images 1.0 to 1.39 in files called x00 to x39, of which ten are looked at where all have a row."""
    monkeypatch.setattr(matching, "FIRST", 10)
    monkeypatch.setattr(matching, "ENOUGH", 5)
    monkeypatch.setattr(matching, "BEGIN", 2)
    for number in range(IMAGES):
        write_tiny(tmp_path / "dicom" / f"x{number:02d}.dcm", f"1.{number}")
    return find_files(tmp_path / "dicom")


def looked_at(ids: Sequence[str], files: Sequence[File], monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], str]:
    """Numbers of the files that were read, and the refusal or nothing."""
    seen: list[int] = []
    names = [file.name for file in files]

    def reading(file: File) -> bytes:
        seen.append(names.index(file.name))
        return read_file(file)

    monkeypatch.setattr(matching, "read_file", reading)
    try:
        check_labels_fit(label_ids(pd.DataFrame({"any": [0] * len(ids)}, index=pd.Index(ids, dtype="str"))), files)
    except ValueError as refused:
        return seen, str(refused)
    return seen, ""


def test_the_first_image_with_a_row_ends_the_search(files: list[File], monkeypatch: pytest.MonkeyPatch) -> None:
    assert looked_at([f"1.{n}.dcm" for n in range(IMAGES)], files, monkeypatch) == ([0], "")


def test_labels_of_other_images_are_told_after_the_first_headers(
    files: list[File], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, said = looked_at([f"2.{n}" for n in range(IMAGES)], files, monkeypatch)
    assert len(seen) == 10
    assert said == (
        "data.labels: expected labels of these images, got none for 10 of 40 files: the images are called 1.0 and so on, the labels "
        "are of 2.0 and so on; give the label table of these files"
    )


@pytest.mark.parametrize("few", [range(1), range(3, 4), range(38, 40), range(20, 40)])
def test_labels_of_some_images_are_found_wherever_they_lie(
    files: list[File], monkeypatch: pytest.MonkeyPatch, few: range
) -> None:
    assert looked_at([f"1.{n}" for n in few], files, monkeypatch)[1] == ""


def test_a_few_labels_of_other_images_are_told_by_all_headers(
    files: list[File], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, said = looked_at(["2.1", "2.2"], files, monkeypatch)
    assert sorted(seen) == list(range(IMAGES))
    assert "got none for 40 of 40 files" in said


def test_files_that_are_called_as_a_row_are_looked_at_first(files: list[File], monkeypatch: pytest.MonkeyPatch) -> None:
    seen, said = looked_at(["X33", "x35.png"], files, monkeypatch)
    assert seen[:4] == [0, 1, 33, 35]
    assert "got none for" in said
    (named,) = looked_at([f"x{n:02d}" for n in range(IMAGES)], files, monkeypatch)[1:]
    assert "the labels are of x00 and so on, which are names of files and not SOPInstanceUIDs; give" in named


def test_files_that_are_no_dicom_do_not_speak_against_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        (tmp_path / f"{number:02d}.txt").write_text("a note")
    monkeypatch.setattr(matching, "FIRST", 10)
    assert looked_at(["1.1"] * 1, find_files(tmp_path), monkeypatch)[1] == ""
    write_tiny(tmp_path / "z.dcm", "1.1")
    assert looked_at(["1.1"], find_files(tmp_path), monkeypatch)[1] == ""
