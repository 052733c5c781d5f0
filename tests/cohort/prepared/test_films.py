"""Chest films become a prepared folder as slices do, with columns of their own; the label table's columns all survive."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from film_files import film_bytes

from fl_rsna.cohort.prepared.index import COLUMNS, Prepared, build_index, columns_of, list_file_columns, read_prepared
from fl_rsna.cohort.prepared.prepare import Request, prepare_folder
from fl_rsna.imaging.convert import facts_of_a_file
from fl_rsna.imaging.png_store import read_png
from fl_rsna.imaging.sources import find_files
from fl_rsna.imaging.workers import convert_here, convert_local
from fl_rsna.settings.data import ImageKind
from fl_rsna.task import COVID_CXR, ICH, Rendering, Task

COLUMNS_OF_FILMS = columns_of(Rendering.radiograph)
BOXES = "[[10, 20, 30, 40]]"


def facts(image_id: str, study: str = "T1", series: str = "S1", **changes: object) -> dict[str, object]:
    """What a film gives by itself."""
    plain = {
        "local_id": "", "placeholder": "",
        "image_id": image_id, "patient_id": "P1", "study_id": study, "series_id": series, "origin": "", "row_spacing_mm": 0.1,
        "column_spacing_mm": None, "rows": 9, "columns": 8, "grey_min": 0.0, "grey_max": 1.0, "grey_mean": 0.5, "grey_std": 0.2,
        "photometric": "MONOCHROME1", "view": "AP", "voi": "window", "padding_share": 0.0, "crop_top": 0, "crop_left": 0,
        "crop_bottom": 9, "crop_right": 8, "bits_stored": 12, "signed": False, "slope": 1.0, "intercept": 0.0,
        "window_center": 5.0, "window_width": None, "scanner": "ACME", "transfer_syntax": "1.2", "png_sha256": "0" * 16,
    }  # fmt: skip
    return {**plain, **changes}


def films_index(rows: list[dict[str, object]], **extra: object) -> pd.DataFrame:
    ids = pd.Index([row["image_id"] for row in rows], name="image_id")
    labels = pd.DataFrame(0, index=ids, columns=list(COVID_CXR.labels), dtype="int8").assign(negative=1, **extra)
    return build_index(pd.DataFrame(rows), labels, Rendering.radiograph)


def write_films(folder: Path, count: int = 4) -> Path:
    """Films F0, F1, ... of different grey, two a patient and study; odd ones are MONOCHROME1 of the same pixels."""
    for n in range(count):
        ramp = np.arange(24, dtype=np.uint16).reshape(4, 6) * 100
        tags = {"PhotometricInterpretation": f"MONOCHROME{1 + (n + 1) % 2}", "WindowCenter": 1200, "WindowWidth": 2400}
        data = film_bytes(folder, ramp, image_id=f"F{n}", patient=f"Anna{n // 2}", series=f"SE{n // 2}", **tags)
        (folder / "films").mkdir(exist_ok=True)
        (folder / "films" / f"{n}.dcm").write_bytes(data)
    return folder / "films"


def labels_of(count: int) -> pd.DataFrame:
    ids = pd.Index([f"F{n}" for n in range(count)], name="image_id")
    table = pd.DataFrame(0, index=ids, columns=list(COVID_CXR.labels), dtype="int8").assign(typical=1)
    return table.assign(boxes=[BOXES if n == 1 else "" for n in range(count)])


def prepare(folder: Path, films: Path, task: Task = COVID_CXR, **changes: object) -> Prepared:
    settings = {"image": ImageKind.grey, "size": 6, "hash_ids": True, "salt": "s", "convert": convert_here, **changes}
    convert, labels = settings.pop("convert"), settings.pop("labels", None)
    request = Request(task=task, **settings)  # type: ignore[arg-type]
    return prepare_folder(folder, request, find_files(films), labels, max_rejected=1, convert=convert)  # type: ignore[arg-type]


def test_films_have_their_columns_then_all_of_the_label_table() -> None:
    index = films_index([facts("a"), facts("b")], boxes=["", BOXES])
    assert list(index.columns) == [*COLUMNS_OF_FILMS, *COVID_CXR.labels, "boxes"]
    assert index.set_index("image_id")["boxes"].to_dict() == {"a": "", "b": BOXES}
    for name, column in COLUMNS_OF_FILMS.items():
        assert index[name].dtype == column.dtype, name


def test_films_are_ranked_in_their_study_whatever_the_order_of_files() -> None:
    rows = [
        facts("c", "T2"),
        facts("b", "T1", "S2"),
        facts("a", "T1", "S3"),
        facts("d", "T1", "S1"),
        facts("e", "T1", "S1"),
    ]
    index = films_index(rows)
    assert list(index["image_id"]) == ["d", "e", "b", "a", "c"]
    assert list(index["rank"]) == [0, 1, 2, 3, 0]
    assert list(index["slices"]) == [4, 4, 4, 4, 1]
    assert list(index["relative_position"]) == pytest.approx([0, 1 / 3, 2 / 3, 1, 0.5])
    pd.testing.assert_frame_equal(films_index(rows[::-1]), index)


@pytest.mark.parametrize(
    ("changes", "fingerprint"),
    [
        ({}, "ACME|12u MONOCHROME1|none|window"),
        ({"signed": True, "bits_stored": 16, "photometric": "MONOCHROME2"}, "ACME|16s MONOCHROME2|none|window"),
        ({"padding_share": 0.25, "voi": "lut", "scanner": ""}, "|12u MONOCHROME1|padded|lut"),
    ],
)
def test_a_fingerprint_says_how_a_film_was_made(changes: dict[str, object], fingerprint: str) -> None:
    assert films_index([facts("a", **changes), facts("b", "T2")])["fingerprint"][0] == fingerprint


def test_a_name_holds_the_same_type_for_slices_and_films() -> None:
    slices = columns_of(Rendering.hounsfield)
    for name in slices.keys() & COLUMNS_OF_FILMS.keys():
        assert slices[name].dtype == COLUMNS_OF_FILMS[name].dtype, name
    assert COLUMNS.keys() == slices.keys() | COLUMNS_OF_FILMS.keys()


@pytest.mark.parametrize("rendering", list(Rendering))
def test_what_a_file_gives_has_a_column(rendering: Rendering) -> None:
    """And what no file gives is worked out from its neighbours and its words."""
    columns, given = columns_of(rendering).keys(), facts_of_a_file(rendering)
    assert given <= list_file_columns(rendering).keys()
    worked_out = {"rank", "slices", "relative_position", "fingerprint"}
    of_space = {"step_below_mm", "step_above_mm", "range_mm", "repeated_position", "noise", "bit_type", "padding_group"}
    of_space |= {"order", "place_filled"}
    assert columns - given == (worked_out | of_space if rendering is Rendering.hounsfield else worked_out)


def test_films_become_images_an_index_and_a_record(tmp_path: Path) -> None:
    prepared = prepare(tmp_path / "new", write_films(tmp_path), labels=labels_of(4))
    assert (prepared.task, prepared.labels, prepared.image) == ("covid_cxr", COVID_CXR.labels, ImageKind.grey)
    stored = pd.read_parquet(tmp_path / "new" / "index.parquet").set_index("image_id")
    assert stored["boxes"].to_dict() == {"F0": "", "F1": BOXES, "F2": "", "F3": ""}
    assert stored["typical"].tolist() == [1] * 4
    assert stored["patient_id"].nunique() == stored["study_id"].nunique() == 2
    assert not stored["patient_id"].str.contains("Anna").any()
    assert stored["photometric"].to_dict() == {
        "F0": "MONOCHROME2",
        "F1": "MONOCHROME1",
        "F2": "MONOCHROME2",
        "F3": "MONOCHROME1",
    }
    assert (stored["voi"] == "window").all()
    facts_ = json.loads((tmp_path / "new" / "prepare.json").read_text())
    assert (facts_["image"], facts_["slices"], facts_["positives"]["typical"]) == ("grey", 4, 4)
    pd.testing.assert_frame_equal(read_prepared(tmp_path / "new", COVID_CXR).index, prepared.index)


def test_a_negative_is_turned_over_in_the_png_and_in_the_facts(tmp_path: Path) -> None:
    prepared = prepare(tmp_path / "new", write_films(tmp_path, 2), labels=labels_of(2))
    plain, negative = (read_png(prepared.folder / "images" / f"F{n}.png").astype(int) for n in range(2))
    assert plain.shape == (6, 6)
    assert not plain[[0, 5]].any()  # 4 x 6 pixels are centred in black, as is the negative
    assert not negative[[0, 5]].any()
    np.testing.assert_array_equal(plain[1:5] + negative[1:5], 65535)
    index = prepared.index.set_index("image_id")
    assert index["grey_mean"].sum() == pytest.approx(1)
    assert index.loc["F0", "grey_mean"] == pytest.approx(plain[1:5].mean() / 65535)
    assert index.loc["F0", "grey_std"] == pytest.approx(plain[1:5].std() / 65535)
    assert (index.loc["F0", "grey_min"], index.loc["F0", "grey_max"]) == (
        plain[1:5].min() / 65535,
        plain[1:5].max() / 65535,
    )
    assert index.loc["F0", ["crop_top", "crop_left", "crop_bottom", "crop_right"]].tolist() == [0, 0, 4, 6]


def test_any_number_of_workers_prepares_the_same_films(tmp_path: Path) -> None:
    films = write_films(tmp_path)

    def two(work, chunks):  # type: ignore[no-untyped-def]
        return convert_local(work, chunks, workers=2)

    here, there = (prepare(tmp_path / name, films, convert=way) for name, way in (("a", convert_here), ("b", two)))
    assert here.index_sha256 == there.index_sha256
    assert here.labels == ()


def test_what_is_no_film_is_a_row(tmp_path: Path) -> None:
    films = write_films(tmp_path, 2)
    for name, tags in {
        "side": {"ViewPosition": "LL"},
        "hand": {"BodyPartExamined": "HAND"},
        "ct": {"Modality": "CT"},
    }.items():
        (films / f"{name}.dcm").write_bytes(film_bytes(tmp_path, image_id=name, **tags))
    prepare(tmp_path / "new", films, labels=labels_of(2))
    rejected = pd.read_csv(tmp_path / "new" / "rejected.csv", keep_default_na=False).set_index("path")
    assert rejected["reason"].to_dict() == {
        "ct.dcm": "wrong_modality",
        "hand.dcm": "wrong_body_part",
        "side.dcm": "not_frontal",
    }


@pytest.mark.parametrize(
    ("task", "image"), [(COVID_CXR, ImageKind.hu), (COVID_CXR, ImageKind.windows), (ICH, ImageKind.grey)]
)
def test_an_image_that_a_task_cannot_have_is_refused(tmp_path: Path, task: Task, image: ImageKind) -> None:
    with pytest.raises(
        ValueError, match=rf"^data\.image: expected .* for task {task.name}, got {image}; say data\.image="
    ):
        prepare(tmp_path / "new", write_films(tmp_path, 1), task, image=image)
    assert not (tmp_path / "new.part").exists()
