"""A folder is prepared whole or not at all, once, from one request."""

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dicom_files import write_tiny
from tiny import CHEST

from fl_rsna.cohort.prepared.index import Prepared, columns_of, hash_id, read_prepared
from fl_rsna.cohort.prepared.inputs import find_inputs
from fl_rsna.cohort.prepared.prepare import Request, prepare_folder
from fl_rsna.imaging.png_store import read_png
from fl_rsna.imaging.workers import Converter, convert_here, convert_local
from fl_rsna.settings.data import ImageKind
from fl_rsna.task import ICH, Rendering, Task

SLICES = 6  # that `sources` writes: ID_0 .. ID_5, two patients, one series each
AXIAL_SORTED = ["ID_2", "ID_1", "ID_0", "ID_5", "ID_4", "ID_3"]  # z falls with the number


def sources(folder: Path, labelled: int = SLICES, task: Task = ICH) -> tuple[Path, Path]:
    """A DICOM folder of SLICES slices and a label table of the first `labelled` (or more) ids."""
    for n in range(SLICES):
        patient = "AnnaAdams" if n < 3 else "BobBrown"
        write_tiny(
            folder / "dicom" / f"{n:02d}" / "x", f"ID_{n}", patient, f"series{patient}", -5.0 * n, hu=np.full((4, 6), n, np.int16)
        )  # fmt: skip
    positive = {label: 1 for label in ("any", "subdural") if label in task.labels} or {task.labels[0]: 1}
    rows = [
        {"Image": f"ID_{n}", **dict.fromkeys(task.labels, 0), **(positive if n == 1 or task.union is None else {})}
        for n in range(labelled)
    ]
    pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)
    return folder / "dicom", folder / "labels.csv"


def prepare(
    folder: Path,
    dicom: Path,
    labels: Path | None,
    task: Task = ICH,
    *,
    max_rejected: float = 1.0,
    convert: Converter = convert_here,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    **changes: object,
) -> Prepared:
    settings = {"image": ImageKind.hu, "size": 4, "hash_ids": True, "salt": "s"}
    request = Request(task=task, **{**settings, **changes})  # type: ignore[arg-type]
    inputs = find_inputs(dicom, labels, task, unlabelled=labels is None, test_set=False)
    return prepare_folder(
        folder,
        request,
        inputs.files,
        inputs.labels,
        max_rejected=max_rejected,
        convert=convert,
        on_progress=on_progress,
    )


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def refusal(folder: Path, *args: object, **changes: object) -> str:
    """The message of a refused preparation, which must leave nothing beside what was there."""
    before = sorted(folder.parent.iterdir())
    with pytest.raises(ValueError, match=r"^data\.") as caught:
        prepare(folder, *args, **changes)  # type: ignore[arg-type]
    assert sorted(folder.parent.iterdir()) == before
    return str(caught.value)


def test_a_folder_of_dicom_becomes_images_an_index_and_a_record(tmp_path: Path) -> None:
    dicom, labels = sources(tmp_path)
    prepared = prepare(tmp_path / "prepared" / "new", dicom, labels)
    assert sorted(path.name for path in (tmp_path / "prepared").iterdir()) == ["new"]
    assert sorted(path.name for path in prepared.folder.iterdir()) == [
        "images",
        "index.parquet",
        "inputs.parquet",
        "prepare.json",
        "rejected.csv",
    ]
    assert sorted(path.stem for path in (prepared.folder / "images").iterdir()) == sorted(AXIAL_SORTED)
    facts = json.loads((prepared.folder / "prepare.json").read_text())
    assert (facts["slices"], facts["series"], facts["patients"]) == (6, 2, 2)
    assert facts["positives"] == {**dict.fromkeys(ICH.labels, 0), "any": 1, "subdural": 1}
    assert (facts["rejected"], facts["labels_without_image"]) == ({}, 0)
    assert facts["index_sha256"] == prepared.index_sha256
    pd.testing.assert_frame_equal(read_prepared(prepared.folder, ICH).index, prepared.index)


def test_slices_stand_in_their_order_along_the_normal_not_of_their_files(tmp_path: Path) -> None:
    index = prepare(tmp_path / "new", *sources(tmp_path), hash_ids=False).index
    assert list(index["image_id"]) == AXIAL_SORTED
    assert list(index["rank"]) == [0, 1, 2, 0, 1, 2]
    assert list(index["position_mm"]) == [-10, -5, 0, -25, -20, -15]
    assert list(index["subdural"]) == [0, 1, 0, 0, 0, 0]


def test_identifiers_leave_only_as_hashes(tmp_path: Path) -> None:
    dicom, labels = sources(tmp_path)
    (dicom / "broken").write_bytes(b"")
    hashed = prepare(tmp_path / "new", dicom, labels)
    everything = hashed.index.to_csv() + "".join(
        path.read_text() for path in hashed.folder.iterdir() if path.suffix in (".json", ".csv")
    )
    for raw in ("AnnaAdams", "BobBrown", "seriesAnnaAdams"):
        assert raw not in everything
        assert raw.encode() not in (hashed.folder / "index.parquet").read_bytes()
    assert set(hashed.index["patient_id"]) == {hash_id("AnnaAdams", "s"), hash_id("BobBrown", "s")}
    plain = prepare(tmp_path / "plain", dicom, labels, hash_ids=False)
    assert set(plain.index["patient_id"]) == {"AnnaAdams", "BobBrown"}


def test_the_salt_decides_the_hashes_and_is_not_written_down(tmp_path: Path) -> None:
    dicom, labels = sources(tmp_path)
    first, same, other = (
        prepare(tmp_path / name, dicom, labels, salt=salt)
        for name, salt in [("a", "pepper"), ("b", "pepper"), ("c", "x")]
    )
    assert list(first.index["patient_id"]) == list(same.index["patient_id"])
    assert not set(first.index["patient_id"]) & set(other.index["patient_id"])
    assert first.index_sha256 == same.index_sha256 != other.index_sha256
    assert "pepper" not in (first.folder / "prepare.json").read_text()


def test_any_number_of_workers_prepares_the_same(tmp_path: Path) -> None:
    dicom, labels = sources(tmp_path)
    three = prepare(tmp_path / "w3", dicom, labels, convert=functools.partial(convert_local, workers=3))
    one = prepare(tmp_path / "w1", dicom, labels)
    assert {name: content for name, (content, _) in contents(one.folder).items()} == {
        name: content for name, (content, _) in contents(three.folder).items()
    }


def test_the_same_request_finds_the_folder_and_touches_nothing(tmp_path: Path) -> None:
    dicom, labels = sources(tmp_path)
    first = prepare(tmp_path / "new", dicom, labels)
    before = contents(first.folder)
    again = prepare(tmp_path / "new", dicom, labels, on_progress=lambda done, total: pytest.fail("worked"))
    assert contents(first.folder) == before
    assert again.index_sha256 == first.index_sha256
    pd.testing.assert_frame_equal(again.index, first.index)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"size": 8}, "size"),
        ({"image": ImageKind.windows}, "image"),
        ({"hash_ids": False}, "hash_ids"),
        ({"salt": "t"}, "ids"),
    ],
)
def test_another_request_for_the_same_folder_is_refused(tmp_path: Path, changes: dict[str, object], key: str) -> None:
    dicom, labels = sources(tmp_path)
    before = contents(prepare(tmp_path / "new", dicom, labels).folder)
    message = refusal(tmp_path / "new", dicom, labels, **changes)
    assert key in message
    assert "choose another data.name" in message
    assert contents(tmp_path / "new") == before


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "diary.txt").write_text("mine")
    assert "holds no prepared data; choose another data.name" in refusal(tmp_path / "new", *sources(tmp_path))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["diary.txt"]


def test_prepared_data_of_another_task_is_refused(tmp_path: Path) -> None:
    prepare(tmp_path / "new", *sources(tmp_path))
    with pytest.raises(ValueError, match=r"^data\.task: expected data prepared for task chest .*got task ich"):
        read_prepared(tmp_path / "new", CHEST)


def test_changed_labels_are_another_request_and_files_elsewhere_are_not(tmp_path: Path) -> None:
    dicom, labels = sources(tmp_path)
    before = contents(prepare(tmp_path / "new", dicom, labels).folder)
    text = labels.read_text()
    labels.write_text(text.replace("ID_2,0", "ID_2,1").replace("ID_2,1,0,0,0,0,0", "ID_2,1,1,0,0,0,0"))
    assert "(labels_sha256 differ)" in refusal(tmp_path / "new", dicom, labels)
    labels.write_text(text)
    (tmp_path / "dicom").rename(tmp_path / "moved")
    prepare(tmp_path / "new", tmp_path / "moved", labels)
    assert contents(tmp_path / "new") == before


def test_progress_counts_files(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    prepare(tmp_path / "new", *sources(tmp_path), on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, SLICES), (SLICES, SLICES)]


def test_images_without_labels_are_named_and_labels_without_images_counted(tmp_path: Path) -> None:
    dicom, labels = sources(tmp_path, labelled=5)  # one of six has none
    prepared = prepare(tmp_path / "fewer", dicom, labels)
    assert set(prepared.index["image_id"]) == {f"ID_{n}" for n in range(5)}
    assert not (prepared.folder / "images" / "ID_5.png").exists()
    assert json.loads((prepared.folder / "prepare.json").read_text())["rejected"] == {"no_label": 1}
    dicom, labels = sources(tmp_path, labelled=8)  # two of eight labels have none
    more = prepare(tmp_path / "more", dicom, labels)
    assert json.loads((more.folder / "prepare.json").read_text())["labels_without_image"] == 2


def test_too_many_rejected_files_are_refused_and_nothing_is_converted_twice(tmp_path: Path) -> None:
    dicom, labels = sources(tmp_path, labelled=4)
    with pytest.raises(ValueError, match=r"^data\.max_rejected: expected at most 0\.3 .* got 2 of 6 \(2 no_label\)"):
        prepare(tmp_path / "new", dicom, labels, max_rejected=0.3)
    assert not (tmp_path / "new").exists()
    assert len(pd.read_csv(tmp_path / "new.part" / "rejected.csv")) == 2
    done: list[int] = []
    prepared = prepare(
        tmp_path / "new", dicom, labels, max_rejected=0.34, on_progress=lambda now, total: done.append(now)
    )
    assert (len(prepared.index), done) == (4, [SLICES])
    assert not (tmp_path / "new.part").exists()


def test_labels_of_other_images_are_refused_with_the_counts(tmp_path: Path) -> None:
    dicom, labels = sources(tmp_path)
    labels.write_text(labels.read_text().replace("ID_", "OTHER_"))
    said = "got none for 6 of 6 files: the images are called ID_0 and so on, the labels are of OTHER_0 and so on; give"
    assert said in refusal(tmp_path / "new", dicom, labels)


def test_labels_of_other_images_are_told_before_anything_is_converted(tmp_path: Path) -> None:
    dicom, labels = sources(tmp_path)
    labels.write_text(labels.read_text().replace("ID_", "OTHER_"))
    done: list[int] = []
    refusal(tmp_path / "new", dicom, labels, on_progress=lambda now, total: done.append(now))
    assert max(done) == 0


@pytest.mark.parametrize(
    ("before", "after"),
    [("ID_", "stage_2_train/ID_"), (",", ".dcm,"), (",", " .PNG,"), ("ID_", "id_"), ("ID_", "  ID_")],
)
def test_a_table_that_writes_the_ids_otherwise_gives_the_same_index(tmp_path: Path, before: str, after: str) -> None:
    """A folder, a suffix, another case and blanks; and prepare.json says how many."""
    dicom, labels = sources(tmp_path, labelled=8)
    expected = prepare(tmp_path / "plain", dicom, labels)
    head, *rows = labels.read_text().splitlines()
    labels.write_text("\n".join([head, *(row.replace(before, after, 1) for row in rows)]) + "\n")
    found = prepare(tmp_path / "other", dicom, labels)
    pd.testing.assert_frame_equal(found.index, expected.index)
    facts = json.loads((found.folder / "prepare.json").read_text())
    plain = json.loads((expected.folder / "prepare.json").read_text())
    assert plain["label_ids"] == {"exact": SLICES}
    assert sum(facts["label_ids"].values()) == SLICES
    assert ("exact" in facts["label_ids"]) == (after == "  ID_")
    assert (facts["labels_without_image"], facts["rejected"]) == (2, {})


def test_rows_that_become_one_and_contradict_each_other_are_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    dicom, labels = sources(tmp_path)
    right = labels.read_text()
    labels.write_text(right + f"ID_5.dcm,{','.join(['1', '1', *['0'] * (len(ICH.labels) - 2)])}\n")
    said = refusal(tmp_path / "new", dicom, labels)
    assert "expected one row of image ID_5, got ID_5 and ID_5.dcm, which say different things; keep one" in said
    labels.write_text(right)
    assert len(prepare(tmp_path / "new", dicom, labels).index) == SLICES


def test_without_labels_every_slice_is_prepared_and_no_column_promises_any(tmp_path: Path) -> None:
    dicom, _ = sources(tmp_path)
    prepared = prepare(tmp_path / "new", dicom, None)
    assert (prepared.labels, list(prepared.index.columns)) == ((), list(columns_of(Rendering.hounsfield)))
    facts = json.loads((prepared.folder / "prepare.json").read_text())
    assert (facts["labels"], facts["positives"], facts["labels_without_image"], facts["slices"]) == ([], {}, 0, SLICES)


def test_inputs_that_are_not_there_are_refused(tmp_path: Path) -> None:
    dicom, labels = sources(tmp_path)
    (tmp_path / "empty" / "inside").mkdir(parents=True)
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "a.txt").write_text("no DICOM")
    (tmp_path / "junk" / "b.dcm").write_bytes(b"")
    new = tmp_path / "new"
    assert "which does not exist" in refusal(new, tmp_path / "nowhere", labels)
    assert "expected a column path or file or filename" in refusal(new, labels, labels)
    assert "found no file at all" in refusal(new, tmp_path / "empty", labels)
    assert "got none in 2 files (1 empty_file, 1 not_dicom; the first: a.txt: not_dicom " in refusal(
        new, tmp_path / "junk", labels
    )
    assert refusal(new, dicom, tmp_path / "nowhere.csv").startswith("data.labels: ")


def test_every_file_that_is_no_slice_is_a_row(tmp_path: Path) -> None:
    dicom, labels = sources(tmp_path, labelled=5)
    (dicom / "notes.txt").write_text("not an image")
    (dicom / "empty.dcm").write_bytes(b"")
    (dicom / "gone").symlink_to(tmp_path / "nowhere")
    write_tiny(dicom / "again" / "x", "ID_0", "AnnaAdams")
    write_tiny(dicom / "scout", "ID_scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    prepared = prepare(tmp_path / "new", dicom, labels)
    rejected = pd.read_csv(prepared.folder / "rejected.csv", keep_default_na=False)
    assert list(rejected.columns) == ["path", "image_id", "reason", "tag", "detail"]
    assert {row.path: (row.reason, row.image_id, row.tag) for row in rejected.itertuples()} == {
        "05/x": ("no_label", "ID_5", ""),
        "again/x": ("duplicate_id", "ID_0", "SOPInstanceUID"),
        "empty.dcm": ("empty_file", "", ""),
        "gone": ("unreadable", "", ""),
        "notes.txt": ("not_dicom", "", ""),
        "scout": ("localizer", "", "ImageType"),
    }
    assert list(rejected["path"]) == sorted(rejected["path"])
    counted = json.loads((prepared.folder / "prepare.json").read_text())["rejected"]
    assert counted == rejected["reason"].value_counts().to_dict()


def test_a_broken_file_named_after_its_image_is_not_a_missing_image(tmp_path: Path) -> None:
    dicom, labels = sources(tmp_path, labelled=7)
    (dicom / "ID_6.dcm").write_bytes(b"")
    prepared = prepare(tmp_path / "new", dicom, labels)
    assert json.loads((prepared.folder / "prepare.json").read_text())["labels_without_image"] == 0


def test_links_are_followed_once(tmp_path: Path) -> None:
    """Folders behind links are read, a link back is no endless way, and no file is read twice."""
    dicom, labels = sources(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    os.rename(dicom / "03", elsewhere)
    (dicom / "linked").symlink_to(elsewhere)
    (dicom / "second way").symlink_to(elsewhere)
    (dicom / "00" / "back").symlink_to(dicom)
    prepared = prepare(tmp_path / "new", dicom, labels)
    assert list(prepared.index["image_id"]) == AXIAL_SORTED
    assert len(pd.read_csv(prepared.folder / "rejected.csv")) == 0


def test_windows_are_stored_when_asked_for(tmp_path: Path) -> None:
    dicom, labels = sources(tmp_path)
    prepared = prepare(tmp_path / "new", dicom, labels, image=ImageKind.windows, size=6)
    assert prepared.image is ImageKind.windows
    image = read_png(prepared.folder / "images" / "ID_4.png")
    assert image.shape == (6, 6, 3)
    assert image.dtype == np.uint8
    assert image[3, 3].tolist() == [12, 30, 103]  # 4 HU: floor(255 x 4/80), x 24/200, x 154/380


def test_slices_without_geometry_are_prepared(tmp_path: Path) -> None:
    dicom, labels = sources(tmp_path)
    for n in range(SLICES):
        write_tiny(dicom / f"{n:02d}" / "x", f"ID_{n}", without=["ImagePositionPatient", "PixelSpacing"])
    index = prepare(tmp_path / "new", dicom, labels).index
    assert list(index["image_id"]) == [f"ID_{n}" for n in range(SLICES)]
    assert index["position_mm"].isna().all()


def test_a_task_of_exclusive_classes_is_prepared_alike(tmp_path: Path) -> None:
    dicom, labels = sources(tmp_path, task=CHEST)
    prepared = prepare(tmp_path / "new", dicom, labels, CHEST)
    assert prepared.labels == CHEST.labels
    assert list(prepared.index.columns[-4:]) == list(CHEST.labels)
    assert (prepared.index[list(CHEST.labels)].sum(axis=1) == 1).all()


@pytest.mark.parametrize("form", ["wide", "long"])
def test_images_of_one_study_with_two_classes_are_refused_in_every_form_of_table(tmp_path: Path, form: str) -> None:
    dicom, labels = sources(tmp_path, task=CHEST)
    wide = pd.read_csv(labels).set_index("Image")
    wide.loc["ID_1"] = np.roll(wide.loc["ID_1"], 1)
    long = wide.rename_axis(columns="label").stack().rename("Label").reset_index()
    long = pd.DataFrame({"ID": long["Image"] + "_" + long["label"], "Label": long["Label"]})
    (wide.reset_index() if form == "wide" else long).to_csv(labels, index=False)
    said = refusal(tmp_path / "new", dicom, labels, CHEST)
    assert said.startswith("data.labels: expected one class a study, got two or more for 1 of them (first: ")
    assert not (tmp_path / "new").exists()
