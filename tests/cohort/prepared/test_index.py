"""The index orders slices in space, hides identifiers, and its hash follows its content."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny import CHEST

from fl_rsna.cohort.prepared.index import build_index, columns_of, hash_id, read_facts, read_prepared
from fl_rsna.common.hashes import table_sha256
from fl_rsna.task import ICH, Rendering, Task

SLICE_COLUMNS = columns_of(Rendering.hounsfield)


def facts(
    image_id: str, patient: str = "P1", series: str = "S1", position_mm: float | None = 0.0, **changes: object
) -> dict[str, object]:
    """What a file gives: every column that is not worked out from its neighbours or its words."""
    plain = {
        "local_id": "", "placeholder": "",
        "image_id": image_id, "patient_id": patient, "study_id": f"study of {series}", "series_id": series, "origin": "",
        "frame_id": "", "lone_id": image_id, "normal": "0.0\\0.0\\1.0",
        "corner": "" if position_mm is None else f"0\\0\\{position_mm}", "slice_location": None, "instance_number": None,
        "position_mm": position_mm, "tilt_deg": None, "orientation": "", "row_spacing_mm": 0.5, "column_spacing_mm": 0.5,
        "thickness_mm": None, "rows": 4, "columns": 4, "hu_min": -1024.0, "hu_max": 99.0, "hu_mean": 1.0, "hu_std": 2.0,
        "brain_share": 0.5, "brain_hu_mean": 30.0, "brain_range_hu": 80.0, "crop_top": 0, "crop_left": 0, "crop_bottom": 4,
        "crop_right": 4, "bits_stored": 12, "signed": False, "slope": 1.0, "intercept": -1024.0, "wrapped_12_bit": False,
        "sign_restored": False,
        "window_center": 40.0, "window_width": 80.0, "padding_hu": None, "scanner": "", "transfer_syntax": "1.2",
        "png_sha256": "0" * 16,
    }  # fmt: skip
    return {**plain, **changes}


def no_findings(rows: list[dict[str, object]], task: Task = ICH) -> pd.DataFrame:
    ids = pd.Index([row["image_id"] for row in rows], name="image_id")
    return pd.DataFrame(0, index=ids, columns=list(task.labels), dtype="int8")


def plain_index(rows: list[dict[str, object]]) -> pd.DataFrame:
    return build_index(pd.DataFrame(rows), no_findings(rows), Rendering.hounsfield)


def test_columns_are_the_documented_ones_then_the_labels() -> None:
    rows = [facts("a")]
    assert list(plain_index(rows).columns) == [*SLICE_COLUMNS, *ICH.labels]
    chest = build_index(pd.DataFrame(rows), no_findings(rows, CHEST), Rendering.hounsfield)
    assert list(chest.columns) == [*SLICE_COLUMNS, *CHEST.labels]


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
    index = build_index(pd.DataFrame(rows), labels, Rendering.hounsfield).set_index("image_id")
    assert index["subdural"].to_dict() == {"b": 0, "a": 1}
    assert index.loc["b", list(ICH.labels)].sum() == 0
    assert (index[list(ICH.labels)].dtypes == "int8").all()


def test_steps_go_both_ways_and_repeated_positions_are_marked() -> None:
    rows = [facts(name, position_mm=z) for name, z in [("a", 0.0), ("b", 5.0), ("c", 5.0), ("d", 7.5)]]
    index = plain_index([*rows, facts("alone", series="S2", position_mm=3.0)]).set_index("image_id")
    assert index.loc["a":"d", "step_above_mm"].tolist()[:3] == [5.0, 0.0, 2.5]
    assert index.loc["a":"d", "step_below_mm"].tolist()[1:] == [5.0, 0.0, 2.5]
    assert np.isnan([index.loc["a", "step_below_mm"], index.loc["d", "step_above_mm"]]).all()
    assert index["repeated_position"].to_dict() == {"a": False, "b": True, "c": True, "d": False, "alone": False}
    assert index["range_mm"].to_dict() == {"a": 7.5, "b": 7.5, "c": 7.5, "d": 7.5, "alone": 0.0}
    assert index["slices"].to_dict() == {"a": 4, "b": 4, "c": 4, "d": 4, "alone": 1}


@pytest.mark.parametrize(
    ("changes", "bit_type", "padding", "fingerprint"),
    [
        ({}, "12u-1024", "none", "|12u-1024|none|40/80"),
        ({"signed": True, "bits_stored": 16, "intercept": 0.0}, "16s+0", "none", "|16s+0|none|40/80"),
        ({"padding_hu": -2048.0}, "12u-1024", "low", "|12u-1024|low|40/80"),
        ({"padding_hu": -2500.0}, "12u-1024", "deep", "|12u-1024|deep|40/80"),
        ({"window_width": None, "scanner": "ACME Nine"}, "12u-1024", "none", "ACME Nine|12u-1024|none|"),
    ],
)
def test_a_fingerprint_says_how_headers_look(
    changes: dict[str, object], bit_type: str, padding: str, fingerprint: str
) -> None:
    index = plain_index([facts("b", **changes), facts("a", series="S0")]).set_index("image_id")
    assert index.loc["b", ["bit_type", "padding_group", "fingerprint"]].tolist() == [bit_type, padding, fingerprint]
    assert index.loc["a", "fingerprint"] == "|12u-1024|none|40/80"


@pytest.mark.parametrize(
    ("share", "range_hu", "noise"), [(0.5, 80.0, False), (0.02, 61.0, False), (0.019, 80.0, True), (0.5, 60.0, True)]
)
def test_slices_without_brain_are_marked(share: float, range_hu: float, noise: bool) -> None:
    index = plain_index([facts("a", brain_share=share, brain_range_hu=range_hu)])
    assert index["noise"].tolist() == [noise]


def test_columns_have_the_declared_types() -> None:
    index = plain_index([facts("a"), facts("b", position_mm=None)])
    for name, column in SLICE_COLUMNS.items():
        assert index[name].dtype == column.dtype, name


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


@pytest.mark.parametrize("damage", ["no index", "broken index", "missing key"])
def test_a_damaged_folder_is_named(tmp_path: Path, damage: str) -> None:
    facts_ = {"task": "ich", "labels": list(ICH.labels), "image": "hu", "size": 4, "index_sha256": "x"}
    plain_index([facts("a")]).to_parquet(tmp_path / "index.parquet")
    if damage == "no index":
        (tmp_path / "index.parquet").unlink()
    elif damage == "broken index":
        (tmp_path / "index.parquet").write_bytes(b"PAR1")
    else:
        del facts_["size"]
    (tmp_path / "prepare.json").write_text(json.dumps(facts_))
    with pytest.raises(ValueError, match=r"^data\.name: expected .* in .*; delete the folder and prepare again"):
        read_prepared(tmp_path, ICH)


def test_an_unfinished_folder_says_how_to_finish_it(tmp_path: Path) -> None:
    (tmp_path / "mine.part").mkdir()
    with pytest.raises(ValueError, match=r"mine is not finished; repeat the python -m fl_rsna\.prepare that began it"):
        read_prepared(tmp_path / "mine", ICH)
