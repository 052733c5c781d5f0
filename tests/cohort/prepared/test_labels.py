"""Both forms of a label table say the same, and a table that cannot be trusted is refused in one sentence."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pytest
from tiny import CHEST

from fl_rsna.cohort.prepared.label_rules import check_exams
from fl_rsna.cohort.prepared.labels import read_labels
from fl_rsna.task import ICH, Task, restrict_task

TRUTH = {"ID_a": "000000", "ID_b": "101000", "ID_c": "100011"}  # in the order of ICH.labels


def long_rows(truth: Mapping[str, str], task: Task = ICH) -> list[str]:
    return [f"{image}_{label},{value}" for image, values in truth.items() for label, value in zip(task.labels, values, strict=True)]  # fmt: skip


def wide_rows(truth: Mapping[str, str]) -> list[str]:
    return [",".join([image, *values]) for image, values in truth.items()]


def long_file(folder: Path, rows: Sequence[str]) -> Path:
    return written(folder / "long.csv", ["ID,Label", *rows])


def wide_file(folder: Path, rows: Sequence[str], key: str = "Image", task: Task = ICH) -> Path:
    return written(folder / "wide.csv", [",".join([key, *task.labels]), *rows])


def written(path: Path, lines: Sequence[str]) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def refusal(path: Path, task: Task = ICH) -> str:
    with pytest.raises(ValueError, match=r"^data\.labels: ") as caught:
        read_labels(path, task)
    return str(caught.value)


def test_long_and_wide_are_equal(tmp_path: Path) -> None:
    table = read_labels(long_file(tmp_path, long_rows(TRUTH)), ICH)
    pd.testing.assert_frame_equal(table, read_labels(wide_file(tmp_path, wide_rows(TRUTH)), ICH), check_names=False)
    assert tuple(table.columns) == ICH.labels
    assert {image: "".join(map(str, row)) for image, row in zip(table.index, table.to_numpy(), strict=True)} == TRUTH
    assert (table.dtypes == "int8").all()


@pytest.mark.parametrize("unknown", [[], ["b"]])
def test_images_of_one_exam_have_one_class(unknown: list[str]) -> None:
    """Whatever form the table had; of labels that are not classes any may be on any slice."""
    index = pd.DataFrame({"patient_id": list("ppqq"), "study_id": list("ssst"), "image_id": list("abcd")})
    labels = pd.DataFrame(0, index=index.index, columns=list(CHEST.labels)).astype(float)
    labels[CHEST.labels[1]] = [1.0, 0, 0, 1]
    labels[CHEST.labels[0]] = [0, 1.0, 1, 0]
    labels[index["image_id"].isin(unknown)] = float("nan")
    same = labels.assign(**{CHEST.labels[1]: [1.0, 1, 0, 1], CHEST.labels[0]: [0, 0, 1.0, 0]})
    check_exams(index, same, CHEST)
    if unknown:
        check_exams(index, labels, CHEST)
        return
    said = rf"expected one class a study, got two or more for 1 of them \(first: a is {CHEST.labels[1]} and b, of the same study, {CHEST.labels[0]}\)"
    with pytest.raises(ValueError, match=said):
        check_exams(index, labels, CHEST)
    check_exams(index, labels, ICH)


def test_the_order_of_rows_and_columns_does_not_matter(tmp_path: Path) -> None:
    table = read_labels(long_file(tmp_path, long_rows(TRUTH)), ICH)
    pd.testing.assert_frame_equal(table, read_labels(long_file(tmp_path, long_rows(TRUTH)[::-1]), ICH))
    columns = ["Image", *reversed(ICH.labels), "comment"]
    rows = [",".join([image, *reversed(values), "seen"]) for image, values in TRUTH.items()]
    turned = read_labels(written(tmp_path / "turned.csv", [",".join(columns), *rows]), ICH)
    pd.testing.assert_frame_equal(table, turned, check_names=False)


@pytest.mark.parametrize("key", ["Image", "image_id", "SOPInstanceUID", "ID"])
def test_the_image_column_may_be_called(tmp_path: Path, key: str) -> None:
    table = read_labels(wide_file(tmp_path, wide_rows(TRUTH), key), ICH)
    assert (list(table.index), table.index.name) == (list(TRUTH), "image_id")


@pytest.mark.parametrize("head", ["id,label", " ID , Label ", "\ufeffID;LABEL", "Id\tlabel"])
def test_the_header_may_be_in_any_case_and_have_blanks(tmp_path: Path, head: str) -> None:
    expected = read_labels(long_file(tmp_path, long_rows(TRUTH)), ICH)
    separator = next(mark for mark in ",;\t" if mark in head)
    path = written(tmp_path / "other.csv", [head, *(row.replace(",", separator) for row in long_rows(TRUTH))])
    pd.testing.assert_frame_equal(read_labels(path, ICH), expected)
    heads = {"image id", "IMAGE", " Image ", "sop_instance_uid", "id", "Id"}
    for key in heads:
        names = [key, *(f" {label.title()}" for label in ICH.labels)]
        wide = written(tmp_path / "wide.csv", [",".join(names), *wide_rows(TRUTH)])
        pd.testing.assert_frame_equal(read_labels(wide, ICH), expected, check_names=False)


def test_parquet_of_any_type_says_the_same(tmp_path: Path) -> None:
    """As databases and pandas write it: categories, booleans, floats and whole numbers with gaps that none has."""
    expected = read_labels(wide_file(tmp_path, wide_rows(TRUTH)), ICH)
    wide = expected.reset_index()
    for dtype in ("int64", "Int64", "float32", "bool", "boolean", "str", "category"):
        typed = wide.astype(dict.fromkeys(ICH.labels, dtype) | {"image_id": "category"})
        typed.to_parquet(tmp_path / "wide.parquet")
        pd.testing.assert_frame_equal(read_labels(tmp_path / "wide.parquet", ICH), expected, check_names=False)
    long = pd.read_csv(long_file(tmp_path, long_rows(TRUTH))).astype({"Label": "Int8"})
    long.to_parquet(tmp_path / "long.parquet")
    pd.testing.assert_frame_equal(read_labels(tmp_path / "long.parquet", ICH), expected, check_names=False)


def test_whole_numbers_are_ids_and_a_gap_among_them_is_refused(tmp_path: Path) -> None:
    rows = pd.DataFrame({"Image": [1.0, 2.0, None], **dict.fromkeys(ICH.labels, 0)})
    rows[:2].to_parquet(tmp_path / "whole.parquet")
    assert list(read_labels(tmp_path / "whole.parquet", ICH).index) == ["1", "2"]
    rows.to_parquet(tmp_path / "gap.parquet")
    assert "expected an image in every cell of column Image of" in refusal(tmp_path / "gap.parquet")
    rows.assign(Image=pd.Timestamp("2020-01-01")).to_parquet(tmp_path / "dates.parquet")
    assert "expected text or whole numbers in column Image of" in refusal(tmp_path / "dates.parquet")


@pytest.mark.parametrize(
    ("one", "fine"), [("1.0", True), (" 1", True), ("TRUE", False), ("yes", False), ("1,0", False)]
)
def test_one_may_be_written_as_a_decimal_and_as_no_word(tmp_path: Path, one: str, fine: bool) -> None:
    cells = [";".join(["a", one, *["0.0"] * 4, one])]
    path = written(tmp_path / "excel.csv", [";".join(["Image", *ICH.labels]), *cells])
    if fine:
        assert read_labels(path, ICH).loc["a"].tolist() == [1, 0, 0, 0, 0, 1]
    else:
        assert f"expected 0 or 1, got '{one}' for a_any" in refusal(path)


def test_the_same_row_written_in_two_ways_is_no_contradiction(tmp_path: Path) -> None:
    path = wide_file(tmp_path, ["a,0,0,0,0,0,0", " a ,0.0,0,0,0,0,0"])
    assert list(read_labels(path, ICH).index) == ["a"]
    assert "contradicts itself on image a" in refusal(wide_file(tmp_path, ["a,0,0,0,0,0,0", " a ,1,1,0,0,0,0"]))


def test_exact_duplicates_are_dropped(tmp_path: Path) -> None:
    once = read_labels(long_file(tmp_path, long_rows(TRUTH)), ICH)
    pd.testing.assert_frame_equal(once, read_labels(long_file(tmp_path, long_rows(TRUTH) * 2), ICH))
    twice = read_labels(wide_file(tmp_path, wide_rows(TRUTH) * 2), ICH)
    pd.testing.assert_frame_equal(once, twice, check_names=False)


def test_ids_stay_text(tmp_path: Path) -> None:
    table = read_labels(wide_file(tmp_path, wide_rows({"007": "000000", "1e5": "000000", "NA": "000000"})), ICH)
    assert set(table.index) == {"007", "1e5", "NA"}


def test_a_compressed_table_is_read(tmp_path: Path) -> None:
    pd.read_csv(long_file(tmp_path, long_rows(TRUTH))).to_csv(tmp_path / "long.csv.gz", index=False)
    pd.testing.assert_frame_equal(
        read_labels(tmp_path / "long.csv.gz", ICH), read_labels(tmp_path / "long.csv", ICH), check_names=False
    )


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([*long_rows(TRUTH), "ID_a_any,1"], "contradicts itself on ID_a_any; keep one row"),
        (long_rows(TRUTH)[:-1], r"fewer for 1 images .*first: ID_c\); give the whole table"),
        ([*long_rows(TRUTH), "ID_a_fracture,1"], "got 'fracture' .*give the task's own table or another data.task"),
        ([*long_rows(TRUTH), "ID_a_an"], "got 'an'"),  # a file that ends early
        (long_rows({"ID_a": "000002"}), "expected 0 or 1, got '2' for ID_a_subdural .*; correct it"),
        (long_rows({"ID_a": ["0.5", *"00000"]}), "expected 0 or 1, got '0.5' for ID_a_any"),
        (long_rows({"ID_a": ["", *"00000"]}), "expected 0 or 1, got '' for ID_a_any"),
        (long_rows({"ID_a": "100000"}), r"'any' to be 1 exactly where .*1 images .*first: ID_a\); correct"),
        (long_rows({"ID_a": "000001", "ID_b": "000010"}), r"'any' to be 1 exactly where .*2 images"),
        ([], "at least one labelled image, got an empty table .*; give"),
    ],
)
def test_a_long_table_that_cannot_be_trusted_is_refused(tmp_path: Path, rows: list[str], expected: str) -> None:
    path = long_file(tmp_path, rows)
    message = refusal(path)
    assert str(path) in message
    assert "\n" not in message
    assert re.search(expected, message), message


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([*wide_rows(TRUTH), "ID_a,1,0,1,0,0,0"], "contradicts itself on image ID_a; keep one row"),
        (["ID_a,0,0,0,0,0,maybe"], "expected 0 or 1, got 'maybe' for ID_a_subdural"),
        (["ID_a,0,0,0"], "expected 0 or 1"),
        (["ID_a,1,0,0,0,0,0"], "'any' to be 1 exactly where"),
        ([], "empty table"),
    ],
)
def test_a_wide_table_that_cannot_be_trusted_is_refused(tmp_path: Path, rows: list[str], expected: str) -> None:
    assert expected in refusal(wide_file(tmp_path, rows))


@pytest.mark.parametrize(
    ("lacks", "what_to_do"),
    [
        (["epidural"], "add it, or, as one hospital of several, say data.unannotated=[epidural] here and --unannotated to own_site"),
        (["epidural", "subdural"], "add them, or, as one hospital of several, say data.unannotated=[epidural,subdural] here and"),
        (["any"], "add it; any is 1 exactly where another label is 1"),
        (["any", "epidural"], "add them; any is 1 exactly where another label is 1"),
    ],
)  # fmt: skip
def test_a_label_that_is_nowhere_in_the_table_is_named_with_what_to_do(
    tmp_path: Path, lacks: list[str], what_to_do: str
) -> None:
    """It is unknown, and never taken as negative, in whatever form the table is."""
    part = restrict_task(ICH, lacks)
    truth = {"a": "0" * len(part.labels), "b": "0" * len(part.labels)}
    files = [long_file(tmp_path, long_rows(truth, part)), wide_file(tmp_path, wide_rows(truth), task=part)]
    there = ", ".join(part.labels)
    for path, got in zip(
        files, (f"rows <image>_<label>, and only those of {there}", f"the columns Image, {there}"), strict=True
    ):
        assert refusal(path).startswith(
            f"data.labels: expected the labels {', '.join(ICH.labels)} of task ich in {path}, got {got}: "
            f"{', '.join(lacks)} cannot be taken as negative where nobody says so; {what_to_do}"
        )


@pytest.mark.parametrize("header", ["Image,fracture,bleed", "patient," + ",".join(ICH.labels), "a;b;c"])
def test_a_table_without_the_columns_is_refused(tmp_path: Path, header: str) -> None:
    message = refusal(written(tmp_path / "other.csv", [header, "x,1,0"[: len(header)]]))
    assert "expected columns ID, Label (long form) or Image, any, epidural" in message


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "noise.csv").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "ragged.csv").write_text("ID,Label\na,1\nb,1,2,3\n")
    (tmp_path / "short.csv.gz").write_bytes(bytes.fromhex("1f8b0800000000000003"))
    (tmp_path / "none.csv.zip").write_bytes(b"PK no archive")
    for name in ("missing.csv", "", "empty.csv", "noise.csv", "ragged.csv", "short.csv.gz", "none.csv.zip"):
        message = refusal(tmp_path / name)
        assert str(tmp_path / name) in message


def test_exclusive_classes_are_read_like_any_labels(tmp_path: Path) -> None:
    truth = {"a": "1000", "b": "0010", "c": "0001"}
    table = read_labels(long_file(tmp_path, long_rows(truth, CHEST)), CHEST)
    wide = read_labels(wide_file(tmp_path, wide_rows(truth), task=CHEST), CHEST)
    pd.testing.assert_frame_equal(table, wide, check_names=False)
    assert tuple(table.columns) == CHEST.labels


@pytest.mark.parametrize("values", ["0000", "1100"])
def test_exclusive_classes_must_be_exactly_one(tmp_path: Path, values: str) -> None:
    path = wide_file(tmp_path, wide_rows({"a": "1000", "b": values}), task=CHEST)
    assert "exactly one class an image, not so for 1 images" in refusal(path, CHEST)


def test_a_label_that_nobody_annotates_is_left_out_when_that_is_said(tmp_path: Path) -> None:
    """An image may then have any where none of the others is left."""
    short = {image: values[0] + values[2:] for image, values in TRUTH.items()} | {"ID_d": "10000"}
    part = restrict_task(ICH, ["epidural"])
    files = [long_file(tmp_path, long_rows(short, part)), wide_file(tmp_path, wide_rows(short), task=part)]
    for path in files:
        assert "epidural" in refusal(path) or "fewer" in refusal(path)  # never in silence
        table = read_labels(path, ICH, unannotated=["epidural"])
        assert tuple(table.columns) == part.labels
        assert "".join(map(str, table.loc["ID_d"])) == "10000"
    for path in (long_file(tmp_path, long_rows(TRUTH)), wide_file(tmp_path, wide_rows(TRUTH))):
        with pytest.raises(
            ValueError, match=r"^data\.unannotated: expected labels that .* does not hold, got epidural"
        ):
            read_labels(path, ICH, unannotated=["epidural"])
    impossible = long_file(tmp_path, long_rows({"ID_a": "00001"}, part))
    with pytest.raises(ValueError, match=r"^data\.labels: expected 'any' to be 1"):
        read_labels(impossible, ICH, unannotated=["epidural"])
