"""submission.csv as Kaggle takes it."""

import numpy as np
import pandas as pd
import pytest

from fl_rsna.reporting.pages.submissions import (
    NOTHING_DRAWN,
    check_class_submission,
    check_submission,
    class_submission,
    find_unscored_ids,
    rows_of,
    submission,
)
from fl_rsna.task import COVID_CXR, ICH


def test_rows_by_hand() -> None:
    rows = submission(["ID_b", "ID_a"], np.array([[0.2, 0.7, 0, 0, 0, 1], [0.9, 0.1, 0.1, 0.1, 0.1, 0.1]]), ICH)
    assert rows["ID"].tolist() == [f"ID_{image}_{label}" for image in "ab" for label in ICH.labels]
    np.testing.assert_allclose(rows["Label"][:6], [0.9, 0.1, 0.1, 0.1, 0.1, 0.1])
    np.testing.assert_allclose(rows["Label"][6:], [1 - 1e-6, 0.7, 1e-6, 1e-6, 1e-6, 1 - 1e-6], rtol=1e-12)


def test_laws_on_any_probabilities() -> None:
    found = np.random.default_rng(0).random((50, 6)).astype(np.float32)
    found[:5] = [0, 1, 0, 1, 0, 1]
    rows = submission([f"ID_{i:02d}" for i in range(50)], found, ICH)["Label"].to_numpy().reshape(50, 6)
    assert (rows[:, 0] >= rows[:, 1:].max(1)).all()  # any is first
    assert rows.min() >= 1e-6
    assert rows.max() <= 1 - 1e-6
    inside = (found[:, 1:] > 1e-6) & (found[:, 1:] < 1 - 1e-6)
    np.testing.assert_array_equal(rows[:, 1:][inside], found[:, 1:][inside].astype(np.float64))


@pytest.mark.parametrize(
    ("path", "image_id", "expected"),
    [
        ("test/ID_0f.dcm", "", ["ID_0f"]),
        ("ID_0f.dcm", "ID_1a", ["ID_1a"]),
        ("ID_0f.dcm", "ID_kept", []),
        ("readme.txt", "", []),
        ("0001.dcm", "", []),
    ],
)
def test_a_rejected_image_that_says_its_name_is_left_out(path: str, image_id: str, expected: list[str]) -> None:
    assert find_unscored_ids(pd.DataFrame({"path": [path], "image_id": [image_id]}), ["ID_kept"]) == expected


def test_kaggle_takes_every_row_once_and_probabilities_only() -> None:
    asked = rows_of(["ID_a", "ID_b"], ICH)
    good = submission(["ID_b", "ID_a"], np.full((2, 6), 0.3), ICH)
    check_submission(good, asked, "here")
    for bad, sentence in (
        (good.iloc[1:], "here: expected 12 rows, got no row for 1 ids, as ID_a_any"),
        (pd.concat([good, good.iloc[:1]]), "got more than one row for 1 ids, as ID_a_any"),
        (good.replace("ID_a_any", "ID_c_any"), "got no row for 1 ids, as ID_a_any"),
        (
            pd.concat([good, good.iloc[:1].replace("ID_a_any", "ID_c_any")]),
            "got a row nobody asked for 1 ids, as ID_c_any",
        ),
        (good.assign(Label=np.r_[np.nan, good["Label"][1:]]), "got others in 1 rows, as ID_a_any"),
        (good.assign(Label=np.r_[1.5, good["Label"][1:]]), "got others in 1 rows, as ID_a_any"),
        (good.rename(columns={"Label": "label"}), "expected the columns ID and Label, got ID, label"),
    ):
        with pytest.raises(ValueError, match=sentence):
            check_submission(bad, asked, "here")


FILMS = pd.DataFrame({"image_id": ["c", "a", "b"], "study_id": ["s2", "s1", "s2"], "patient_id": ["p", "q", "p"]})


def test_classes_are_told_by_study_and_no_box_is_claimed() -> None:
    found = np.array([[0.5, 0.25, 0.25, 0.0], [1.0, 0.0, 0.0, 0.0], [0.25, 0.5, 0.125, 0.125]])
    rows = class_submission(FILMS, found, COVID_CXR)
    assert rows["id"].tolist() == ["s1_study", "s2_study", "a_image", "b_image", "c_image"]
    assert rows["PredictionString"].tolist()[1] == (
        "negative 0.375000 0 0 1 1 typical 0.375000 0 0 1 1 indeterminate 0.187500 0 0 1 1 atypical 0.062500 0 0 1 1"
    )
    assert set(rows["PredictionString"][2:]) == {NOTHING_DRAWN}
    check_class_submission(rows, FILMS, COVID_CXR, "here")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda rows: rows.iloc[1:], "here: expected 5 rows, got no row for 1 ids, as s1_study"),
        (lambda rows: rows[:-1], "got no row for 1 ids, as c_image"),
        (lambda rows: pd.concat([rows, rows[:1]]), "got more than one row for 1 ids, as s1_study"),
        (lambda rows: rows.replace("c_image", "d_image"), "got no row for 1 ids, as c_image"),
        (lambda rows: rows.rename(columns={"id": "ID"}), "expected the columns id and PredictionString, got ID"),
        (lambda rows: rows.replace("atypical", "typical", regex=True), "expected each of negative, typical"),
        (lambda rows: rows.replace(" 0 0 1 1", " 0 0 1", regex=True), "expected each of negative, typical"),
        (lambda rows: rows.replace("0.4", "1.4", regex=True), "expected each of negative, typical"),
        (lambda rows: rows.replace("0.4", "nan", regex=True), "expected each of negative, typical"),
    ],
)
def test_a_submission_of_classes_that_kaggle_would_not_take(change, sentence: str) -> None:  # type: ignore[no-untyped-def]
    rows = class_submission(FILMS, np.full((3, 4), 0.4), COVID_CXR)
    with pytest.raises(ValueError, match=sentence):
        check_class_submission(change(rows), FILMS, COVID_CXR, "here")
