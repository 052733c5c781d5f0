"""The index orders slices in space, hides identifiers, and its hash follows its content."""

from pathlib import Path

import pandas as pd
import pytest
from tiny import CHEST

from fl_rsna.cohort.index import COLUMNS, build_index, hash_id, read_facts, read_prepared, table_sha256
from fl_rsna.imaging.convert import Converted
from fl_rsna.task import ICH, Task


def facts(image_id: str, patient: str = "P1", series: str = "S1", position_mm: float | None = 0.0) -> Converted:
    return Converted(
        path=Path(f"{image_id}.dcm"), image_id=image_id, patient_id=patient, study_id=f"study of {series}", series_id=series,
        position_mm=position_mm, tilt_deg=None if position_mm is None else 0.0, row_spacing_mm=0.5, column_spacing_mm=0.5,
        rows=4, columns=4, hu_mean=1.0, hu_std=2.0, brain_share=0.5, brain_hu_mean=30.0,
    )  # fmt: skip


def no_findings(rows: list[Converted], task: Task = ICH) -> pd.DataFrame:
    ids = pd.Index([row.image_id for row in rows], name="image_id")
    return pd.DataFrame(0, index=ids, columns=list(task.labels), dtype="int8")


def plain_index(rows: list[Converted]) -> pd.DataFrame:
    return build_index(rows, no_findings(rows), ICH, hash_ids=False, salt="")


def test_columns_are_the_documented_ones_then_the_labels() -> None:
    rows = [facts("a")]
    assert list(plain_index(rows).columns) == [*COLUMNS, *ICH.labels]
    chest = build_index(rows, no_findings(rows, CHEST), CHEST, hash_ids=False, salt="")
    assert list(chest.columns) == [*COLUMNS, *CHEST.labels]


def test_slices_are_ranked_by_position_inside_their_series() -> None:
    rows = [facts("a", position_mm=10), facts("b", position_mm=-5), facts("c", position_mm=2.5)]
    rows += [facts("d", series="S0", position_mm=7), facts("e", patient="P0", position_mm=99)]
    index = plain_index(rows).set_index("image_id")
    assert list(index.index) == ["e", "d", "b", "c", "a"]  # by patient, series, position
    assert index["rank"].to_dict() == {"e": 0, "d": 0, "b": 0, "c": 1, "a": 2}
    assert index["relative_position"].to_dict() == {"e": 0.5, "d": 0.5, "b": 0.0, "c": 0.5, "a": 1.0}


def test_one_series_id_in_two_patients_is_two_series() -> None:
    index = plain_index([facts("a", patient="P1"), facts("b", patient="P2")])
    assert list(index["rank"]) == [0, 0]


def test_equal_positions_are_ordered_by_id_whatever_the_order_of_files() -> None:
    rows = [facts(name, position_mm=3.0) for name in "cab"]
    assert list(plain_index(rows)["image_id"]) == list("abc")
    pd.testing.assert_frame_equal(plain_index(rows), plain_index(rows[::-1]))


def test_slices_without_geometry_are_ordered_by_id_after_the_others(tmp_path: Path) -> None:
    index = plain_index([facts("b", position_mm=None), facts("a", position_mm=None), facts("c")])
    assert list(index["image_id"]) == ["c", "a", "b"]
    nowhere = plain_index([facts("b", position_mm=None), facts("a", position_mm=None)])
    assert list(nowhere["image_id"]) == ["a", "b"]
    assert nowhere.dtypes.to_dict() == index.dtypes.to_dict()  # numbers that are missing, not another kind of column
    nowhere.to_parquet(tmp_path / "index.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "index.parquet"), nowhere)


def test_labels_follow_their_image() -> None:
    rows = [facts("a", position_mm=1), facts("b", position_mm=0)]
    labels = no_findings([*rows, facts("without image")])
    labels.loc["a", ["any", "subdural"]] = 1
    index = build_index(rows, labels, ICH, hash_ids=False, salt="").set_index("image_id")
    assert index["subdural"].to_dict() == {"b": 0, "a": 1}
    assert index.loc["b", list(ICH.labels)].sum() == 0
    assert (index[list(ICH.labels)].dtypes == "int8").all()


def test_hashing_renames_patients_studies_and_series_and_nothing_else() -> None:
    rows = [facts("a", "P1", "S1"), facts("b", "P1", "S2"), facts("c", "P2", "S3")]
    hashed = build_index(rows, no_findings(rows), ICH, hash_ids=True, salt="s").set_index("image_id").sort_index()
    plain = plain_index(rows).set_index("image_id").sort_index()
    for column in ("patient_id", "study_id", "series_id"):
        assert list(hashed[column]) == [hash_id(value, "s") for value in plain[column]]
    same = [column for column in plain if not column.endswith("_id")]
    pd.testing.assert_frame_equal(hashed[same], plain[same])


def test_a_hash_depends_on_the_salt_and_the_value_alone() -> None:
    assert hash_id("P1", "salt") == hash_id("P1", "salt")
    assert len({hash_id("P1", ""), hash_id("P1", "salt"), hash_id("P2", "salt"), hash_id("tP1", "sal")}) == 4
    assert all(len(hash_id(value, "salt")) == 16 for value in ("", "P1", "Ü" * 500))


def test_the_hash_of_a_table_is_of_its_names_and_values() -> None:
    table = pd.DataFrame({"a": [1, 0], "b": [0.5, float("nan")]})
    same = pd.DataFrame({"a": [1, 0], "b": [0.5, float("nan")]}, index=[7, 8])
    assert table_sha256(table) == table_sha256(same)
    assert table_sha256(table) != table_sha256(table.rename(columns={"a": "c"}))
    assert table_sha256(table) != table_sha256(table.assign(a=[1, 1]))
    assert table_sha256(table) != table_sha256(table[::-1])


def test_a_missing_folder_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^data\.name: no prepared data at .*run python -m fl_rsna\.prepare first"):
        read_prepared(tmp_path / "nothing", ICH)


@pytest.mark.parametrize("text", ['{"task": ', "\xff\xfe"])
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "prepare.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"prepare\.json.*repeat the step"):
        read_facts(tmp_path / "prepare.json", "missing")
