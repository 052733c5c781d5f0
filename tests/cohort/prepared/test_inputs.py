"""A folder, an archive or a list, and RSNA's layout inside them: which files are meant, and with which labels."""

import zipfile
from pathlib import Path

import pandas as pd
import pytest
from dicom_files import write_tiny

from fl_rsna.cohort.prepared.boxes import BOXES
from fl_rsna.cohort.prepared.inputs import Inputs, find_inputs
from fl_rsna.task import COVID_CXR, ICH, Task


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


@pytest.fixture
def siim(tmp_path: Path) -> Path:
    """SIIM's layout: a folder a study and a series; two labelled films, one without labels, and two tables beside them."""
    root = tmp_path / "siim"
    for folder, name in (("train/s1/e1", "a"), ("train/s2/e2", "b"), ("test/s3/e3", "c")):
        write_tiny(root / folder / f"{name}.dcm", name)
    heads = ",".join(["id", *COVID_CXR.published])
    (root / "train_study_level.csv").write_text(f"{heads}\ns1_study,1,0,0,0\ns2_study,0,1,0,0\n")
    rows = [
        "a_image,,none 1 0 0 1 1,s1",
        "b_image,\"[{'x': 1, 'y': 2, 'width': 3, 'height': 4}]\",opacity 1 1 2 4 6,s2",
    ]
    (root / "train_image_level.csv").write_text("\n".join(["id,boxes,label,StudyInstanceUID", *rows]) + "\n")
    (root / "sample_submission.csv").write_text("id,PredictionString\n")
    return root


def found(
    dicom: Path, labels: Path | None = None, *, unlabelled: bool = False, test_set: bool = True, task: Task = ICH
) -> Inputs:
    return find_inputs(dicom, labels, task, unlabelled=unlabelled, test_set=test_set)


def packed(folder: Path, archive: Path, prefix: str) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        for path in sorted(folder.rglob("*")):
            opened.write(path, prefix + path.relative_to(folder).as_posix())


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
    packed(kaggle, tmp_path / "all.zip", prefix)
    inputs = found(tmp_path / "all.zip")
    train, test = ["ID_a.dcm", "ID_b.dcm"], ["ID_c.dcm"]
    expected = [f"{prefix}stage_2_train/{name}" for name in train], [f"{prefix}stage_2_test/{name}" for name in test]
    assert names(inputs) == expected
    assert inputs.labels is not None
    assert list(inputs.labels.index) == ["ID_a", "ID_b"]


def repacked(folder: Path, archive: Path, other: dict[str, str]) -> Path:
    """The folder as an archive, and texts of further members."""
    packed(folder, archive, "")
    with zipfile.ZipFile(archive, "a") as opened:
        for name, text in other.items():
            opened.writestr(name, text)
    return archive


OLD = ["ID_a"]  # what an older table of labels knows


@pytest.mark.parametrize("place", ["old", "a", "stage_2_train", "zzz/deeper"])
def test_the_table_beside_the_images_is_taken_whatever_others_there_are(
    kaggle: Path, tmp_path: Path, place: str
) -> None:
    old = labels_of(OLD).to_csv(index=False)
    inputs = found(repacked(kaggle, tmp_path / "all.zip", {f"{place}/stage_2_train.csv": old}))
    assert inputs.labels is not None
    assert list(inputs.labels.index) == ["ID_a", "ID_b"]


def test_tables_that_differ_are_refused_where_none_is_nearer(kaggle: Path, tmp_path: Path) -> None:
    right, old = (kaggle / "stage_2_train.csv").read_text(), labels_of(OLD).to_csv(index=False)
    (kaggle / "stage_2_train.csv").unlink()
    both = repacked(kaggle, tmp_path / "two.zip", {"new/stage_2_train.csv": right, "old/stage_2_train.csv": old})
    said = r"^data\.labels: expected one table of labels in .*, got new/stage_2_train\.csv and old/stage_2_train\.csv, which differ"
    with pytest.raises(ValueError, match=said):
        found(both)
    assert found(both, unlabelled=True).labels is None
    (tmp_path / "mine.csv").write_text(right)
    assert found(both, tmp_path / "mine.csv").labels is not None  # who names one decides
    for others in ({"new/": right}, {"new/": right, "old/": right}):  # one, or two that are the same
        only = repacked(
            kaggle, tmp_path / f"{len(others)}.zip", {f"{at}stage_2_train.csv": text for at, text in others.items()}
        )
        inputs = found(only)
        assert inputs.labels is not None
        assert list(inputs.labels.index) == ["ID_a", "ID_b"]


def test_two_copies_of_a_set_must_agree(kaggle: Path, tmp_path: Path) -> None:
    slice_, right = (kaggle / "stage_2_train" / "ID_a.dcm").read_bytes(), (kaggle / "stage_2_train.csv").read_text()
    for name, text in (("same", right), ("other", labels_of(OLD).to_csv(index=False))):
        path = repacked(kaggle, tmp_path / f"{name}.zip", {"copy/stage_2_train.csv": text})
        with zipfile.ZipFile(path, "a") as opened:
            opened.writestr("copy/stage_2_train/ID_a.dcm", slice_)
        if name == "same":
            assert found(path).labels is not None
        else:
            with pytest.raises(ValueError, match=r"got copy/stage_2_train\.csv and stage_2_train\.csv, which differ"):
                found(path)


def test_siims_two_tables_come_from_one_folder(siim: Path, tmp_path: Path) -> None:
    """Beside the films, though an older one lies before it."""
    plain = found(siim, task=COVID_CXR)
    old = {"a/train_study_level.csv": "id\n", "a/train_image_level.csv": "id\n"}
    inputs = found(repacked(siim, tmp_path / "all.zip", old), task=COVID_CXR)
    pd.testing.assert_frame_equal(inputs.labels, plain.labels)


def test_a_folder_in_a_folder_of_that_name_finds_the_table_beside_either(kaggle: Path) -> None:
    """As an archive that was unpacked into a folder of its own name."""
    outer = kaggle / "outer" / "stage_2_train"
    outer.parent.mkdir()
    outer.mkdir()
    (kaggle / "stage_2_train").rename(outer / "stage_2_train")
    (kaggle / "stage_2_train.csv").rename(outer.parent / "stage_2_train.csv")
    inputs = found(outer)
    assert inputs.labels is not None
    assert list(inputs.labels.index) == ["ID_a", "ID_b"]
    labels_of(OLD).to_csv(outer / "stage_2_train.csv", index=False)
    nearer = found(outer).labels
    assert nearer is not None
    assert list(nearer.index) == OLD


@pytest.mark.parametrize("inside", ["", "train"])
def test_siims_layout_brings_its_two_tables_and_its_test_set(siim: Path, inside: str) -> None:
    inputs = found(siim / inside, task=COVID_CXR)
    assert names(inputs) == (["s1/e1/a.dcm", "s2/e2/b.dcm"], ["s3/e3/c.dcm"])
    assert inputs.labels is not None
    assert inputs.labels[["negative", "typical", BOXES]].to_dict("index") == {
        "a": {"negative": 1, "typical": 0, BOXES: "[]"},
        "b": {"negative": 0, "typical": 1, BOXES: "[[1.0, 2.0, 3.0, 4.0]]"},
    }
    assert names(found(siim / inside, test_set=False, task=COVID_CXR))[1] == []
    assert found(siim / inside, unlabelled=True, task=COVID_CXR).labels is None


@pytest.mark.parametrize("prefix", ["", "siim-covid19-detection/"])
def test_siims_archive_is_the_same_inputs(siim: Path, tmp_path: Path, prefix: str) -> None:
    packed(siim, tmp_path / "all.zip", prefix)
    inputs, plain = found(tmp_path / "all.zip", task=COVID_CXR), found(siim, task=COVID_CXR)
    train, test = names(plain)
    assert names(inputs) == ([f"{prefix}train/{name}" for name in train], [f"{prefix}test/{name}" for name in test])
    pd.testing.assert_frame_equal(inputs.labels, plain.labels)


def test_siims_layout_without_one_of_its_tables_says_which(siim: Path, tmp_path: Path) -> None:
    (siim / "train_image_level.csv").unlink()
    packed(siim, tmp_path / "part.zip", "")
    for dicom in (siim, tmp_path / "part.zip"):
        with pytest.raises(ValueError, match=r"^data\.labels: expected train_image_level\.csv, the images"):
            found(dicom, task=COVID_CXR)


def test_a_folder_called_train_is_no_layout_by_itself(siim: Path) -> None:
    for name in ("train_image_level.csv", "train_study_level.csv"):
        (siim / name).unlink()
    assert names(found(siim, unlabelled=True)) == (
        ["sample_submission.csv", "test/s3/e3/c.dcm", "train/s1/e1/a.dcm", "train/s2/e2/b.dcm"],
        [],
    )


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
