"""A row is of its image under every way of writing the image's id, and of no other; what two rows contradict is refused."""

import re

import pandas as pd
import pytest

from fl_rsna.cohort.prepared.label_ids import Fit, describe_fits, label_ids, of_images, stem


def labels(**rows: int) -> pd.DataFrame:
    return table(rows)


def table(rows: dict[str, int]) -> pd.DataFrame:
    return pd.DataFrame({"any": rows.values()}, index=pd.Index(list(rows), name="image_id", dtype="str"))


@pytest.mark.parametrize(
    ("written", "image", "fit"),
    [
        ("ID_1", "ID_1", Fit.exact),
        ("ID_1.dcm", "ID_1", Fit.without_suffix),
        ("ID_1.DICOM", "ID_1", Fit.without_suffix),
        ("ID_1.dcm.png", "ID_1", Fit.without_suffix),
        ("stage_2_train/ID_1.dcm", "ID_1", Fit.without_suffix),
        ("C:\\data\\ID_1.jpg", "ID_1", Fit.without_suffix),
        ("./1.2.840.5", "1.2.840.5", Fit.without_suffix),
        ("ID_1", "ID_1.dcm", Fit.without_suffix),
        ("id_1", "ID_1", Fit.other_case),
        ("ID_A", "id_a", Fit.other_case),
        ("train/id_1.PNG", "ID_1", Fit.other_case),
        ("ID 1", "ID1", Fit.other_case),
        ("1.2.840.5", "1.2.840", None),
        ("7", "007", None),
        ("1.0", "1", None),
        ("ID_1", "ID_2", None),
    ],
)
def test_a_row_is_found_however_the_image_is_written(written: str, image: str, fit: Fit | None) -> None:
    found = label_ids(table({written: 1, "other": 0})).row_of(image)
    assert found == (None if fit is None else (written, fit))
    named, fits = of_images(label_ids(table({written: 1, "other": 0})), [image])
    assert fits == ({} if fit is None else {fit: 1})
    if fit is not None:
        assert named["any"].to_dict() == {image: 1, "other": 0}


def test_a_uid_has_no_suffix() -> None:
    assert [stem(name) for name in ("1.2.840.10008", "a/b.c/1.2", ".dcm", "ID_1.dcmx")] == [
        "1.2.840.10008",
        "1.2",
        ".dcm",
        "ID_1.dcmx",
    ]


def test_what_is_nearer_is_taken() -> None:
    """Both images have a row of their own, though each row's id is the other's but for its case."""
    named, fits = of_images(label_ids(labels(ID_a=0, id_a=1)), ["ID_a", "id_a"])
    assert (named["any"].to_dict(), fits) == ({"ID_a": 0, "id_a": 1}, {Fit.exact: 2})
    named, fits = of_images(label_ids(table({"x/ID_a.dcm": 0, "x/id_a.dcm": 1})), ["ID_a", "id_a"])
    assert (named["any"].to_dict(), fits) == ({"ID_a": 0, "id_a": 1}, {Fit.without_suffix: 2})


@pytest.mark.parametrize(
    "rows", [("ID_a.dcm", "ID_a.png"), ("ID_a", "ID_a.dcm"), ("x/ID_a", "y/ID_a"), ("ID_A", "id_a")]
)
def test_rows_of_one_image_may_repeat_but_not_contradict_each_other(rows: tuple[str, str]) -> None:
    image = "Id_a" if rows[1] == "id_a" else "ID_a"
    named, _ = of_images(label_ids(table(dict.fromkeys(rows, 1))), [image])
    assert named["any"][image] == 1
    with pytest.raises(
        ValueError, match=rf"^data\.labels: expected one row of image {image}, got .*, which say different"
    ) as no:
        of_images(label_ids(table({name: number for number, name in enumerate(rows)})), [image])
    assert all(name in str(no.value) for name in rows)


def test_the_same_row_once_more_is_no_label_without_an_image() -> None:
    named, _ = of_images(label_ids(table({"ID_a.dcm": 1, "ID_a.png": 1, "ID_a": 1, "ID_b": 0})), ["ID_a"])
    assert named["any"].to_dict() == {"ID_a": 1, "ID_b": 0}


@pytest.mark.parametrize("images", [["ID_a", "ID_A"], ["ID_A", "ID_a"], ["id_a", "ID_a"]])
def test_a_row_is_of_one_image_only(images: list[str]) -> None:
    said = rf"^data\.labels: expected one image of row id_a, got {images[0]} and {images[1]}; write each"
    with pytest.raises(ValueError, match=said):
        of_images(label_ids(labels(id_a=1)), images)


def test_what_was_left_out_is_said() -> None:
    _, fits = of_images(label_ids(table({"ID_a.dcm": 1, "ID_b": 0, "id_c": 0})), ["ID_a", "ID_b", "ID_C", "ID_d"])
    assert [re.sub(r"^data\.labels: ", "", line) for line in describe_fits(fits)] == [
        "1 of 3 ids have a folder or a suffix, which was left out",
        "1 of 3 ids are written in another case or with blanks, which was left out of account",
    ]
    assert describe_fits({Fit.exact: 3}) == []
