"""A published table is read by the usual names of its columns, its ids as text, or refused in one sentence."""

from pathlib import Path

import pandas as pd
import pytest

from fl_rsna.cohort.audit.overlap import find_shared
from fl_rsna.cohort.audit.slices import MAX_PLACES, Kind, Published, read_published

RSNA = {
    "PatientID": ["007", "7", "8", "9"],
    "Study Instance UID": ["1", "2", "3", "4"],
    "SeriesInstanceUID": ["1", "2", "3", "4"],
    "SOPInstanceUID": ["a", "b", "c", "d"],
    "Center": ["x", "x", "y", "y"],
    "fold": ["0", "1", "0", "1"],
    "any": ["0", "1", "0", "1"],
    "age": ["0", "1", "40", "50"],
    "SamplesPerPixel": ["1", "1", "1", "1"],
    "PixelRepresentation": ["0", "1", "0", "1"],
}


def read(
    folder: Path, table: dict[str, list[str]], name: str = "table.csv", labels: list[str] | None = None, **named: str
) -> Published:
    pd.DataFrame(table).to_csv(folder / name, index=False)
    return read_published(folder / name, named, labels)


def test_usual_names_are_found_whatever_their_case_and_punctuation(tmp_path: Path) -> None:
    found = read(tmp_path, RSNA)
    assert found.columns == {
        "patient": ["PatientID"], "site": ["Center"], "split": ["fold"], "study": ["Study Instance UID"],
        "series": ["SeriesInstanceUID"], "image": ["SOPInstanceUID"], "labels": ["any"],
    }  # fmt: skip
    assert list(found.slices.places) == ["Center", "fold"]
    assert (found.slices.site, found.slices.part) == ("Center", "fold")
    assert found.slices.labels["any"].tolist() == [0, 1, 0, 1]
    assert [view.by for view in find_shared(found.slices).views] == ["Center/fold", "Center", "fold"]


def test_named_columns_go_before_usual_ones_and_named_places_stand_alone(tmp_path: Path) -> None:
    table = {**RSNA, "who": ["p", "p", "q", "q"], "hash": ["A", "A", "B", "C"]}
    found = read(tmp_path, table, patient="who", split="fold", pixels="hash", labels=["any"])
    assert found.slices.ids[Kind.patient].tolist() == ["p", "p", "q", "q"]
    assert found.slices.ids[Kind.pixels].tolist() == ["A", "A", "B", "C"]
    assert list(found.slices.places) == ["fold"]
    assert (found.slices.site, found.slices.part) == (None, "fold")


def test_ids_stay_text_and_missing_ones_are_missing(tmp_path: Path) -> None:
    table = {"patient": ["007", "7", "", "NaN", "NA"], "site": ["a", "b", "a", "b", "a"]}
    ids = read(tmp_path, table).slices.ids[Kind.patient]
    assert ids[:2].tolist() == ["007", "7"]
    assert ids.isna().tolist() == [False, False, True, True, True]


def test_the_same_table_compressed_or_as_parquet_reads_the_same(tmp_path: Path) -> None:
    plain = read(tmp_path, RSNA)
    packed = read(tmp_path, RSNA, "table.csv.gz")
    typed = pd.DataFrame(RSNA).astype({"fold": "int64", "any": "float32", "age": "int32"})
    typed.to_parquet(tmp_path / "table.parquet")
    columnar = read_published(tmp_path / "table.parquet", {}, None)
    for other in (packed, columnar):
        assert other.columns == plain.columns
        pd.testing.assert_frame_equal(other.slices.ids, plain.slices.ids)
        pd.testing.assert_frame_equal(other.slices.places, plain.slices.places)
        pd.testing.assert_frame_equal(other.slices.labels, plain.slices.labels)


def test_whole_numbers_with_gaps_are_not_rounded_in_parquet(tmp_path: Path) -> None:
    """As float64 the first two would be one patient."""
    ids = pd.array([2**53, 2**53 + 1, None], dtype="Int64")
    pd.DataFrame({"patient": ids, "site": ["a", "b", "a"]}).to_parquet(tmp_path / "table.parquet")
    found = read_published(tmp_path / "table.parquet", {}, None).slices.ids[Kind.patient]
    assert found[:2].tolist() == [str(2**53), str(2**53 + 1)]
    assert found.isna().tolist() == [False, False, True]


def test_whole_numbers_that_a_gap_made_floats_are_whole_numbers(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"patient": [1.0, None, 2.0], "site": pd.array([1, 2, None], dtype="Int64"), "any": [1.0, 0, 1]}
    )
    table.to_parquet(tmp_path / "table.parquet")
    slices = read_published(tmp_path / "table.parquet", {}, None).slices
    assert slices.ids[Kind.patient].fillna("").tolist() == ["1", "", "2"]
    assert slices.places["site"].fillna("").tolist() == ["1", "2", ""]
    assert slices.labels["any"].tolist() == [1, 0, 1]


def test_a_column_of_neither_text_nor_numbers_is_refused_where_it_is_needed(tmp_path: Path) -> None:
    table = pd.DataFrame({"patient": ["p", "q"], "site": ["a", "b"], "day": pd.Timestamp("2020-01-01"), "any": [0, 1]})
    table.to_parquet(tmp_path / "table.parquet")
    assert read_published(tmp_path / "table.parquet", {}, None).columns["labels"] == ["any"]
    with pytest.raises(ValueError, match=r"timestamp.* in column day, where text or whole numbers are needed"):
        read_published(tmp_path / "table.parquet", {"patient": "day"}, None)


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_table_of_another_program_reads_the_same(tmp_path: Path, mark: str) -> None:
    rows = [["Patient ID ", "SPLIT", "any"], ['="007"', "train", "0"], ["8", "\u00a0test\u200b", "1"]]
    (tmp_path / "table.csv").write_text("\ufeff" + "".join(mark.join(row) + "\n" for row in rows))
    for named in ({}, {"patient": "patient_id", "split": "Split"}):
        slices = read_published(tmp_path / "table.csv", named, ["Any"]).slices
        assert slices.ids[Kind.patient].tolist() == ["007", "8"]
        assert slices.places.iloc[:, 0].tolist() == ["train", "test"]


def test_a_row_with_more_cells_than_the_header_is_refused(tmp_path: Path) -> None:
    """Read from the left, its patients would be another column's."""
    (tmp_path / "table.csv").write_text("patient,split\nrow 1,p,train\nrow 2,q,test\n")
    with pytest.raises(ValueError, match=r"^table: expected a CSV .*Expected 2 fields in line 2, saw 3"):
        read_published(tmp_path / "table.csv", {}, None)


def test_a_column_is_a_label_by_all_its_rows_not_by_the_first(tmp_path: Path) -> None:
    grade = ["0", "1"] * 600 + ["2"]
    table = {"patient": [str(n) for n in range(1201)], "split": ["train", "test"] * 600 + ["test"], "grade": grade}
    assert read(tmp_path, {**table, "any": ["1", "0"] * 600 + [""]}).columns["labels"] == ["any"]


def test_columns_that_tell_no_places_apart_are_left_out(tmp_path: Path) -> None:
    found = read(tmp_path, {"patient": ["p", "q"], "site": ["only", "only"], "split": ["train", "test"]})
    assert (list(found.slices.places), found.slices.site, found.slices.part) == (["split"], None, "split")


def test_constant_images_are_told_by_their_range(tmp_path: Path) -> None:
    table = {
        "patient": ["p", "q"],
        "site": ["a", "b"],
        "png_sha256": ["air", "x"],
        "hu_min": ["-1024", "-9"],
        "hu_max": ["-1024", "9"],
    }
    ids = read(tmp_path, table).slices.ids
    assert ids[Kind.blank].tolist()[0] == "air"
    assert ids[Kind.pixels].tolist()[1] == "x"
    assert ids[[Kind.pixels, Kind.blank]].notna().sum().tolist() == [1, 1]


@pytest.mark.parametrize(
    ("change", "named", "labels", "said"),
    [
        (
            {"PatientID": None},
            {},
            None,
            "table: expected a column of patient ids in .*say patient=<column>, it has Study",
        ),
        ({"Center": None, "fold": None}, {}, None, "table: expected a column of sites or splits"),
        ({}, {"patient": "nobody"}, None, "patient: expected a column of .* got 'nobody'; it has PatientID, "),
        ({}, {"pixels": "nothing"}, None, "pixels_column: expected a column"),
        ({}, {}, ["any", "sore"], "labels: expected columns of .*, got 'sore'"),
        ({}, {}, ["age"], "labels: expected 0 or 1 in column age of .*, got '40'"),
        (
            {"Center": ["x"] * 4},
            {"site": "Center"},
            None,
            "table: expected two or more sites or splits, got fewer in Center",
        ),
    ],
)
def test_what_cannot_be_audited_is_refused(
    tmp_path: Path, change: dict[str, list[str] | None], named: dict[str, str], labels: list[str] | None, said: str
) -> None:
    table = {name: values for name, values in {**RSNA, **change}.items() if values is not None}
    with pytest.raises(ValueError, match=f"^{said}"):
        read(tmp_path, table, labels=labels, **named)


def test_a_column_of_too_many_values_is_no_site(tmp_path: Path) -> None:
    many = [str(n) for n in range(MAX_PLACES + 1)]
    with pytest.raises(ValueError, match="expected at most 1000 sites or splits, got 1001 in column site"):
        read(tmp_path, {"patient": many, "site": many})


@pytest.mark.parametrize("name", ["absent.csv", "empty.csv", "text.parquet", "text.csv.gz"])
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, name: str) -> None:
    if not name.startswith("absent"):
        (tmp_path / name).write_text("" if name.startswith("empty") else "no such thing")
    with pytest.raises(ValueError, match=r"^table: expected a CSV or Parquet table at .*; give the whole file$"):
        read_published(tmp_path / name, {}, None)
