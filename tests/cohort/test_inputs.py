"""A folder, an archive or a list, and RSNA's layout inside them: which files are meant, and with which labels."""

import zipfile
from pathlib import Path

import pandas as pd
import pytest
from dicom_files import write_tiny

from fl_rsna.cohort.inputs import Inputs, find_inputs
from fl_rsna.task import ICH


def labels_of(ids: list[str]) -> pd.DataFrame:
    return pd.DataFrame(
        [(f"{image_id}_{label}", 0) for image_id in ids for label in ICH.labels], columns=["ID", "Label"]
    )


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    """RSNA's layout: two labelled slices, one without labels, and two tables beside them."""
    root = tmp_path / "kaggle"
    for folder, name in (("stage_2_train", "ID_a"), ("stage_2_train", "ID_b"), ("stage_2_test", "ID_c")):
        write_tiny(root / folder / f"{name}.dcm", name)
    labels_of(["ID_a", "ID_b"]).to_csv(root / "stage_2_train.csv", index=False)
    (root / "stage_2_sample_submission.csv").write_text("ID,Label\n")
    return root


def found(dicom: Path, labels: Path | None = None, *, unlabelled: bool = False, test_set: bool = True) -> Inputs:
    return find_inputs(dicom, labels, ICH, unlabelled=unlabelled, test_set=test_set)


def names(inputs: Inputs) -> tuple[list[str], list[str]]:
    return [file.name for file in inputs.files], [file.name for file in inputs.test_files]


@pytest.mark.parametrize("inside", ["", "stage_2_train"])
def test_rsnas_layout_brings_its_labels_and_its_test_set(kaggle: Path, inside: str) -> None:
    inputs = found(kaggle / inside)
    assert names(inputs) == (["ID_a.dcm", "ID_b.dcm"], ["ID_c.dcm"])
    assert inputs.labels is not None
    assert list(inputs.labels.index) == ["ID_a", "ID_b"]


def test_the_test_set_can_be_left_out(kaggle: Path) -> None:
    assert names(found(kaggle, test_set=False)) == (["ID_a.dcm", "ID_b.dcm"], [])


def test_an_empty_test_folder_is_none(kaggle: Path) -> None:
    (kaggle / "stage_2_test" / "ID_c.dcm").unlink()
    assert names(found(kaggle))[1] == []


def test_labels_that_are_named_come_before_those_that_lie_there(kaggle: Path, tmp_path: Path) -> None:
    labels_of(["ID_a"]).to_csv(tmp_path / "mine.csv", index=False)
    inputs = found(kaggle, tmp_path / "mine.csv")
    assert inputs.labels is not None
    assert list(inputs.labels.index) == ["ID_a"]


def test_unlabelled_reads_no_table(kaggle: Path) -> None:
    (kaggle / "stage_2_train.csv").write_text("broken")
    assert found(kaggle, unlabelled=True).labels is None


@pytest.mark.parametrize("prefix", ["", "rsna-intracranial-hemorrhage-detection/"])
def test_kaggles_archive_is_the_same_inputs(kaggle: Path, tmp_path: Path, prefix: str) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(kaggle.rglob("*")):
            archive.write(path, prefix + path.relative_to(kaggle).as_posix())
    inputs = found(tmp_path / "all.zip")
    train, test = ["ID_a.dcm", "ID_b.dcm"], ["ID_c.dcm"]
    expected = [f"{prefix}stage_2_train/{name}" for name in train], [f"{prefix}stage_2_test/{name}" for name in test]
    assert names(inputs) == expected
    assert inputs.labels is not None
    assert list(inputs.labels.index) == ["ID_a", "ID_b"]


def test_any_other_archive_is_all_its_files(kaggle: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        archive.write(kaggle / "stage_2_train" / "ID_a.dcm", "x/one")
        archive.write(kaggle / "stage_2_train" / "ID_b.dcm", "two")
    assert names(found(tmp_path / "some.zip", unlabelled=True)) == (["two", "x/one"], [])


def test_a_list_names_files_and_their_sites(kaggle: Path) -> None:
    rows = {
        "path": ["stage_2_test/ID_c.dcm", "stage_2_train/ID_a.dcm", "nowhere.dcm"],
        "site": ["north", "south", "north"],
    }
    pd.DataFrame(rows).to_csv(kaggle / "list.csv", index=False)
    inputs = found(kaggle / "list.csv", unlabelled=True)
    assert [(file.name, file.origin) for file in inputs.files] == list(zip(rows["path"], rows["site"], strict=True))


def test_missing_labels_say_what_to_give(tmp_path: Path) -> None:
    write_tiny(tmp_path / "dicom" / "a.dcm")
    with pytest.raises(ValueError, match=r"^data\.labels: expected a table of labels, got nothing; .*data\.unlabelled"):
        found(tmp_path / "dicom")
