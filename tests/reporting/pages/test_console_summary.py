"""What an audit prints: all findings, few ids, the verdict last."""

from pathlib import Path

import pandas as pd
import pytest

from fl_rsna.audit import audit, request_of


def said(
    capfd: pytest.CaptureFixture[str], folder: Path, table: dict[str, list[str]], *settings: str
) -> tuple[int, str]:
    pd.DataFrame(table).to_csv(folder / "table.csv", index=False)
    code = audit([f"table={folder / 'table.csv'}", *settings])
    return code, capfd.readouterr().out


def test_shared_patients_are_counted_and_three_are_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    patients = [f"[p{number}]" for number in range(9)]
    code, out = said(capfd, tmp_path, {"patient": patients * 2, "split": ["train"] * 9 + ["test"] * 9})
    assert code == 1
    assert "shared patients, 3 of 9: [p0] (test, train); [p1] (test, train); [p2] (test, train)" in out
    assert "[p3]" not in out
    assert out.splitlines()[-1] == "LEAK: 9 of 9 patients in more than one of 2 places"


def test_a_clean_table_says_what_was_compared_and_by_which_columns(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    table = {"PatientID": ["p", "q", "r", ""], "Hospital": ["a", "b", "b", "a"], "blood": ["1", "0", "0", "0"]}
    code, out = said(capfd, tmp_path, {**table, "md5": ["x", "x", "y", "z"]})
    assert code == 0
    for line in (
        "patient: PatientID",
        "site: Hospital",
        "labels: blood",
        "1 of 4 slices have no patient id",
        "constant images cannot be told apart here: some identical pixels may be nothing but air",
        "POSSIBLY ONE PATIENT UNDER SEVERAL IDS: p, q share 1 pixel hash in a, b",
    ):
        assert line in out.splitlines()
    assert out.splitlines()[-1].startswith(
        "WARNING: none of 3 patients in more than one of 2 places, but 1 pixel hash in"
    )
    assert said(capfd, tmp_path, {**table, "md5": ["x", "x", "y", "z"]}, "strict=true")[0] == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([], "cohort: expected cohort=<folder> or table=<file>, one of them"),
        (["cohort=a", "table=b"], "cohort: expected cohort=<folder> or table=<file>, one of them"),
        (["cohort=a", "cohort=b"], "cohort: expected cohort=<value>, once, got 'cohort=b'"),
        (["cohort="], "cohort: expected cohort=<value>, once, got 'cohort='"),
        (["cohort=a", "site=x"], "site: expected only with table="),
        (["table=a", "pixels=true"], "pixels: expected only with cohort="),
        (["table=a", "strict=yes"], "strict: expected true or false, got 'yes'"),
        (["table=a", "out=absent/a.json"], r"out: expected <file>\.json in a folder that exists, got absent/a\.json"),
        (["table=a.csv", "out=a.csv"], r"out: expected <file>\.json"),
        (["colour=red"], "colour: no such setting"),
    ],
)
def test_settings_that_mean_nothing_are_refused_by_name(settings: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}"):
        request_of(settings)


def test_words_stay_as_they_are_typed() -> None:
    request = request_of(["table=a", "patient=007", "pixels_column=a=b", "labels=[x, y]"])
    assert request.columns == {"patient": "007", "pixels": "a=b"}
    assert request.labels == ["x", "y"]
