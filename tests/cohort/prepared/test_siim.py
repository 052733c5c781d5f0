"""SIIM's two tables become one row an image, and whatever does not fit is refused in one sentence that names it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dicom_files import write_tiny
from package import DATA
from tiny import CHEST, tiny_index

from fl_rsna.cohort.audit.on_disk import read_on_disk
from fl_rsna.cohort.audit.overlap import find_shared, judge
from fl_rsna.cohort.partition.split import split_patients
from fl_rsna.cohort.prepared.boxes import BOXES, read_boxes
from fl_rsna.cohort.prepared.index import Prepared
from fl_rsna.cohort.prepared.inputs import find_inputs
from fl_rsna.cohort.prepared.labels import read_labels
from fl_rsna.cohort.prepared.prepare import Request, prepare_folder
from fl_rsna.cohort.prepared.siim import IMAGES, STUDIES
from fl_rsna.cohort.sites.own_site import write_own_site, write_own_test_site
from fl_rsna.cohort.sites.site_folders import write_cohort
from fl_rsna.common.hashes import table_sha256
from fl_rsna.imaging.png_store import write_png
from fl_rsna.imaging.workers import convert_here
from fl_rsna.learning.data.dataset import open_site
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.partition import Layout, PartitionConfig
from fl_rsna.task import COVID_CXR, ICH, Task

REAL = DATA / "siim_covid"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no tables of SIIM-FISABIO-RSNA at {REAL}")

CLASSES = {"s1": "1000", "s2": "0100", "s3": "0001"}  # in the order of COVID_CXR.published
ONE = "[{'x': 10.5, 'y': 20, 'width': 30, 'height': 40}]", "opacity 1 10.5 20 40.5 60"
TWO = (
    "[{'x': 1, 'y': 2, 'width': 3, 'height': 4}, {'x': 5, 'y': 6, 'width': 7, 'height': 8}]",
    "opacity 1 1 2 4 6 opacity 1 5 6 12 14",
)
NONE = "", "none 1 0 0 1 1"
FILMS = {"b": (*ONE, "s2"), "a": (*NONE, "s1"), "c": (*TWO, "s2"), "d": (*NONE, "s3")}  # s2 has two films


def studies(classes: Mapping[str, str] = CLASSES) -> pd.DataFrame:
    rows = [[f"{study}_study", *values] for study, values in classes.items()]
    return pd.DataFrame(rows, columns=["id", *COVID_CXR.published], dtype=str)


def films(of: Mapping[str, Sequence[str]] = FILMS) -> pd.DataFrame:
    rows = [[f"{image}_image", *cells] for image, cells in of.items()]
    return pd.DataFrame(rows, columns=["id", "boxes", "label", "StudyInstanceUID"], dtype=str)


def written(folder: Path, of_studies: pd.DataFrame | None = None, of_films: pd.DataFrame | None = None) -> Path:
    (studies() if of_studies is None else of_studies).to_csv(folder / STUDIES, index=False)
    (films() if of_films is None else of_films).to_csv(folder / IMAGES, index=False)
    return folder


def refusal(path: Path, task: Task = COVID_CXR) -> str:
    with pytest.raises(ValueError, match=r"^data\.labels: ") as caught:
        read_labels(path, task)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("named", ["", STUDIES, IMAGES])
def test_every_film_has_its_studys_class_and_its_own_boxes(tmp_path: Path, named: str) -> None:
    table = read_labels(written(tmp_path) / named, COVID_CXR)
    assert (table.index.name, list(table.index)) == ("image_id", ["a", "b", "c", "d"])
    assert list(table.columns) == [*COVID_CXR.labels, BOXES]
    assert (table.dtypes[list(COVID_CXR.labels)] == "int8").all()
    classes = ["".join(map(str, row)) for row in table[list(COVID_CXR.labels)].to_numpy()]
    assert classes == ["1000", "0100", "0100", "0001"]
    assert list(table[BOXES]) == [
        "[]",
        "[[10.5, 20.0, 30.0, 40.0]]",
        "[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]",
        "[]",
    ]


def test_a_table_of_another_name_is_known_by_its_columns(tmp_path: Path) -> None:
    expected = read_labels(written(tmp_path), COVID_CXR)
    (tmp_path / IMAGES).rename(tmp_path / "films.csv")
    pd.testing.assert_frame_equal(read_labels(tmp_path / "films.csv", COVID_CXR), expected)
    assert f"{tmp_path} without {IMAGES}" in refusal(tmp_path)
    assert f"expected {IMAGES}, the images of its studies, beside {tmp_path / STUDIES}" in refusal(tmp_path / STUDIES)
    (tmp_path / STUDIES).unlink()
    assert f"expected {STUDIES}, the classes of its studies, beside" in refusal(tmp_path / "films.csv")
    assert f"without {STUDIES} and {IMAGES}" in refusal(tmp_path)


def test_the_order_of_rows_and_columns_does_not_matter_and_repeats_are_dropped(tmp_path: Path) -> None:
    expected = read_labels(written(tmp_path), COVID_CXR)
    turned = [pd.concat([table, table])[::-1][[*table.columns[::-1]]] for table in (studies(), films())]
    pd.testing.assert_frame_equal(read_labels(written(tmp_path, *turned), COVID_CXR), expected)


def test_ids_stay_text(tmp_path: Path) -> None:
    of = {"007": (*NONE, "1e5"), "NA": (*NONE, "1e5")}
    table = read_labels(written(tmp_path, studies({"1e5": "1000"}), films(of)), COVID_CXR)
    assert list(table.index) == ["007", "NA"]


def changed(table: pd.DataFrame, row: int, **cells: str) -> pd.DataFrame:
    """A table with other cells in one row; `study` is the id of a film's study."""
    table = table.copy()
    for name, cell in cells.items():
        table.loc[row, {"study": "StudyInstanceUID"}.get(name, name)] = cell
    return table


@pytest.mark.parametrize(
    ("of_studies", "expected"),
    [
        (
            studies(CLASSES | {"s2": "0110"}),
            f"exactly one class a study, not so for 1 studies in .*{STUDIES} .*first: s2",
        ),
        (studies(CLASSES | {"s2": "0000"}), "exactly one class a study"),
        (studies(CLASSES | {"s2": "0200"}), "expected 0 or 1, got '2' for s2_Typical Appearance"),
        (studies(CLASSES | {"s2": ["0", "", "0", "0"]}), "expected 0 or 1, got '' for s2_Typical Appearance"),  # type: ignore[dict-item]
        (pd.concat([studies(), studies({"s1": "0100"})]), "contradicts itself on s1_study; keep one row"),
        (studies().assign(Other="0"), "expected the columns id, Negative for Pneumonia, .*, got .*Other"),
        (studies().drop(columns="Atypical Appearance"), "expected the columns id, .*Atypical Appearance, got "),
        (changed(studies(), 0, id="s1"), "expected ids that end in _study, got 's1'"),
        (changed(studies(), 0, id="_study"), "expected ids that end in _study, got '_study'"),
        (studies(CLASSES | {"s4": "1000"}), r"an image of every study .* got none of 1 studies \(first: s4_study\)"),
        (studies()[:2], r"every image's study .* got none for 1 images .*\(first: d_image, study s3\)"),
        (studies()[:0], "empty table"),
    ],
)
def test_studies_that_cannot_be_trusted_are_refused(tmp_path: Path, of_studies: pd.DataFrame, expected: str) -> None:
    message = refusal(written(tmp_path, of_studies))
    assert pd.Series([message]).str.contains(expected).all(), message


@pytest.mark.parametrize(
    ("of_films", "expected"),
    [
        (pd.concat([films(), films({"a": (*NONE, "s2")})]), "contradicts itself on a_image; keep one row"),
        (pd.concat([films(), films({"b": (*TWO, "s2")})]), "contradicts itself on b_image"),
        (films().assign(comment=""), "expected the columns id, boxes, label, StudyInstanceUID, got .*comment"),
        (films().drop(columns="label"), "expected the columns id, boxes, label, StudyInstanceUID, got id, boxes, StudyInstanceUID"),
        (changed(films(), 1, id="a"), "expected ids that end in _image, got 'a'"),
        (changed(films(), 1, study="s1_study"), "got none for 1 images .*a_image, study s1_study"),
        (films().drop(index=3), "got none of 1 studies .*first: s3_study"),
        (changed(films(), 1, boxes=ONE[0], label=ONE[1]), "no box on images of negative studies, .* on 1 in .*first: a_image"),
        (changed(films(), 0, boxes="[{'x': 1}]"), r"expected a list such as .*, got .*'x': 1.* for b_image in .*; correct it"),
        (changed(films(), 0, boxes=ONE[0].replace("30", "-30")), "width and a height above 0, got .* for b_image"),
        (changed(films(), 0, boxes=ONE[0].replace("20", "nan")), "expected a list such as .* for b_image"),
        (changed(films(), 0, boxes=ONE[0].replace("20", "1e999")), "four finite numbers a box, got .* for b_image"),
        (changed(films(), 0, boxes=""), "expected 'none 1 0 0 1 1' in label without boxes, got 'opacity .* for b_image"),
        (changed(films(), 0, label=NONE[1]), "expected in label .* each of the 1 boxes, got 'none 1 0 0 1 1' for b_image"),
        (changed(films(), 2, label=ONE[1]), "expected in label .* each of the 2 boxes, .* for c_image"),
        (films()[:0], "empty table"),
    ],
)  # fmt: skip
def test_films_that_cannot_be_trusted_are_refused(tmp_path: Path, of_films: pd.DataFrame, expected: str) -> None:
    message = refusal(written(tmp_path, of_films=of_films))
    assert pd.Series([message]).str.contains(expected).all(), message


def test_another_tasks_tables_are_refused_by_its_columns(tmp_path: Path) -> None:
    """The sentence names what the task wants, and never a table of the other task."""
    sentences = {
        "": f"expected a CSV or Parquet table of labels, got the folder {tmp_path}; give the file itself",
        STUDIES: "expected columns ID, Label (long form) or Image, any, epidural",
        IMAGES: "expected the labels any, epidural, intraparenchymal, intraventricular, subarachnoid, subdural of task ich, got 'image'",
    }
    for named, said in sentences.items():
        assert said in refusal(written(tmp_path) / named, ICH)


def test_a_wide_table_may_have_an_id_besides(tmp_path: Path) -> None:
    """Only a table without any other name for its images is SIIM's."""
    (tmp_path / "wide.csv").write_text(f"id,Image,{','.join(ICH.labels)}\n1,a,0,0,0,0,0,0\n")
    assert list(read_labels(tmp_path / "wide.csv", ICH).index) == ["a"]
    (tmp_path / "only.csv").write_text(f"id,{','.join(ICH.labels)}\na,0,0,0,0,0,0\n")
    assert list(read_labels(tmp_path / "only.csv", ICH).index) == ["a"]
    (tmp_path / "classes.csv").write_text(f"id,{','.join(COVID_CXR.labels)}\na,1,0,0,0\n")
    assert list(read_labels(tmp_path / "classes.csv", COVID_CXR).index) == ["a"]


def test_a_request_depends_on_the_boxes(tmp_path: Path) -> None:
    """Of prepare: the same command with other boxes is another request."""
    request = Request(task=COVID_CXR, image=ImageKind.windows, size=32, hash_ids=True, salt="")
    first = request.identity(read_labels(written(tmp_path), COVID_CXR))
    again = request.identity(read_labels(tmp_path, COVID_CXR))
    other = request.identity(read_labels(written(tmp_path, of_films=films(FILMS | {"d": (*ONE, "s3")})), COVID_CXR))
    assert first == again
    assert first["labels_sha256"] != other["labels_sha256"]


def test_boxes_reach_every_site_and_neither_labels_nor_audit_mind(tmp_path: Path) -> None:
    """A cohort that no partition step made: two hospitals and a test site, whose index.csv have the boxes as the tables do."""
    index = tiny_index(COVID_CXR, patients=8)
    index[BOXES] = np.where(index["negative"] == 1, "[]", "[[1.5, 2.0, 3.0, 4.0]]")
    folder = tmp_path / "cohort"
    for name in ("north", "south"):
        write_own_site(folder, of_hospital(index, name, tmp_path), COVID_CXR, name, validation=0.25, seed=0)
    cohort = write_own_test_site(folder, of_hospital(index, "test", tmp_path), COVID_CXR, ("north", "south"), {})
    for site in (*cohort.sites, "test-site"):
        data = open_site(folder / site, image_size=8)
        assert data.label_names == COVID_CXR.labels
        assert data.labels.sum(axis=1).tolist() == [1.0] * len(data.index)
        negative = data.labels[:, 0] == 1
        assert [read_boxes(cell) for cell in data.index[BOXES]] == [
            [] if none else [(1.5, 2, 3, 4)] for none in negative
        ]
    found = read_on_disk(folder, pixels=False, on_progress=lambda what, done, total: None)
    assert list(found.slices.labels) == list(COVID_CXR.labels)
    assert judge(find_shared(found.slices)).code == 0


def of_hospital(index: pd.DataFrame, name: str, work: Path) -> Prepared:
    """The same films with other ids; every PNG differs."""
    ids = {column: f"{name}-" + index[column] for column in ("image_id", "patient_id", "study_id", "series_id")}
    index, folder = index.assign(**ids), work / f"prepared-{name}"
    (folder / "images").mkdir(parents=True)
    for number, image_id in enumerate(index["image_id"]):
        seed = [number, *name.encode()]
        pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
        write_png(folder / "images" / f"{image_id}.png", pixels)
    facts: dict[str, Any] = {"task": COVID_CXR.name, "labels": COVID_CXR.labels, "image": ImageKind.windows, "size": 8}
    return Prepared(folder=folder, index_sha256=table_sha256(index), index=index, **facts)


def test_boxes_reach_the_index_and_no_header_table(tmp_path: Path) -> None:
    """From DICOM and both tables to a prepared folder, a cohort in S0's layout and what is cut out by them."""
    of = {f"i{patient}": (*NONE, f"s{patient}") if patient % 4 == 0 else (*ONE, f"s{patient}") for patient in range(16)}
    written(tmp_path, studies({f"s{patient}": np.roll(list("1000"), patient % 4) for patient in range(16)}), films(of))
    for patient, image in enumerate(of):
        write_tiny(tmp_path / "train" / f"{image}.dcm", image, patient=f"p{patient}", series=f"e{patient}")
    inputs = find_inputs(tmp_path, None, CHEST, unlabelled=False, test_set=True)
    request = Request(task=CHEST, image=ImageKind.hu, size=8, hash_ids=True, salt="")
    prepared = prepare_folder(
        tmp_path / "prepared", request, inputs.files, inputs.labels, max_rejected=0, convert=convert_here
    )
    assert list(prepared.index.columns[-5:]) == [*CHEST.labels, BOXES]
    assert prepared.index.set_index("image_id")[BOXES].to_dict() == inputs.labels[BOXES].to_dict()
    places = split_patients(prepared.index, CHEST, PartitionConfig(num_sites=2, test=0.25, validation=0.25, seed=0))
    cohort = write_cohort(tmp_path / "cohort", prepared, places, CHEST, {}, layout=Layout.s0)
    for site in (*cohort.sites, "test-site"):
        index = pd.read_csv(cohort.site_folder(site) / "index.csv", dtype={"image_id": str}).set_index("image_id")
        assert index[BOXES].to_dict() == inputs.labels.loc[index.index, BOXES].to_dict()
    for name in ("train.csv", "train_metadata.csv", "site-1.csv", "test.csv"):
        assert BOXES not in pd.read_csv(cohort.folder / name), name


@needs_real
def test_the_published_tables_have_the_published_counts() -> None:
    """1,736 of 6,334 films are of negative studies, none of them with a box; 304 others have none either."""
    table = read_labels(REAL, COVID_CXR)
    without, negative = table[BOXES] == "[]", table["negative"] == 1
    assert len(table) == 6_334
    assert ((negative & without).sum(), (~negative & without).sum(), (~without).sum()) == (1_736, 304, 4_294)
    assert not (negative & ~without).any()
    for named in (STUDIES, IMAGES):
        pd.testing.assert_frame_equal(read_labels(REAL / named, COVID_CXR), table)
    assert json.loads(table.loc["000a312787f2", BOXES])[0] == [789.28836, 582.43035, 1026.65662, 1917.30292]
