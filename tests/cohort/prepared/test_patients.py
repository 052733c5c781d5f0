"""A number is one hospital's: a patient is the number and its issuer; an id such as ANONYMOUS is a patient of its own at every site."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from dicom_files import rewritten, write_tiny
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from fl_rsna.cohort.audit.overlap import find_shared, judge
from fl_rsna.cohort.audit.slices import read_published
from fl_rsna.cohort.partition.assignment import Known, read_assignment, read_listed
from fl_rsna.cohort.prepared.index import Prepared, hash_id
from fl_rsna.cohort.prepared.patients import comparable, patient_of, patients_of_numbers, placeholder_in
from fl_rsna.cohort.prepared.prepare import Request, prepare_folder
from fl_rsna.cohort.sites.ancestry import Link
from fl_rsna.cohort.sites.provenance import Chain, Patients, find_image_roles
from fl_rsna.federation.server.roll_call import warn_of_placeholders
from fl_rsna.imaging.dicom.reader import read_slice
from fl_rsna.imaging.sources import find_files
from fl_rsna.imaging.workers import convert_here
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.partition import Group
from fl_rsna.task import ICH

ISSUER = "IssuerOfPatientID"
QUALIFIERS = "IssuerOfPatientIDQualifiersSequence"


def prepared(folder: Path, files: list[dict[str, object]], *, hash_ids: bool = False, salt: str = "") -> Prepared:
    """Prepare one slice a dict: its tags, and `site` where a list of files declares it."""
    rows = []
    for number, tags in enumerate(files):
        site = tags.get("site", "")
        write_tiny(
            folder / "dicom" / f"{number}.dcm", f"I{number}", series=f"S{number}", **{k: v for k, v in tags.items() if k != "site"}
        )  # type: ignore[arg-type]  # fmt: skip
        rows.append({"path": f"dicom/{number}.dcm", "site": site})
    pd.DataFrame(rows).to_csv(folder / "list.csv", index=False)
    request = Request(task=ICH, image=ImageKind.hu, size=4, hash_ids=hash_ids, salt=salt)
    return prepare_folder(
        folder / "prepared", request, find_files(folder / "list.csv"), None, max_rejected=0, convert=convert_here
    )


def of_images(made: Prepared, column: str = "patient_id") -> list[str]:
    return list(made.index.sort_values("image_id")[column])


def recorded(made: Prepared, key: str) -> object:
    return json.loads((made.folder / "prepare.json").read_text())[key]


def test_two_hospitals_patients_of_one_number_are_two(tmp_path: Path) -> None:
    made = prepared(tmp_path, [{"patient": "1", "site": "north"}, {"patient": "1", "site": "south"}])
    assert of_images(made) == ["1^^^north", "1^^^south"]
    assert of_images(made, "local_id") == ["1", "1"]
    assert recorded(made, "patient_ids_of_several_issuers") == 1


def test_one_issuers_patient_is_one_wherever_scanned(tmp_path: Path) -> None:
    files = [{"patient": "1", "site": site, ISSUER: issuer} for site, issuer in (("north", "MPI"), ("south", " MPI "))]
    assert of_images(prepared(tmp_path, files)) == ["1^^^MPI", "1^^^MPI"]


def test_with_neither_ids_and_hashes_are_those_of_patient_id_alone(tmp_path: Path) -> None:
    tags = {"patient": "1", "InstitutionName": "General Hospital"}
    made = prepared(tmp_path, [tags], hash_ids=True, salt="s")
    assert of_images(made) == [hash_id("1", "s")]
    assert of_images(made, "local_id") == [""]


def test_what_is_hashed_is_both_and_neither_is_written_down(tmp_path: Path) -> None:
    made = prepared(tmp_path, [{"patient": "7712", ISSUER: "SECRET_MPI"}], hash_ids=True, salt="s")
    assert of_images(made) == [hash_id("7712^^^SECRET_MPI", "s")]
    assert of_images(made, "local_id") == [hash_id("7712", "s")]
    for path in made.folder.iterdir():
        assert path.is_dir() or (b"SECRET_MPI" not in path.read_bytes() and b"7712" not in path.read_bytes())


@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("thorough", [False, True])
@pytest.mark.parametrize(
    ("tags", "issuer"),
    [
        ({}, ""),
        ({ISSUER: ""}, ""),
        ({ISSUER: " Mpi "}, "Mpi"),
        ({QUALIFIERS: []}, ""),
        ({QUALIFIERS: [{"UniversalEntityID": "1.2.3", "UniversalEntityIDType": "ISO"}]}, "&1.2.3&ISO"),
        ({QUALIFIERS: [{"UniversalEntityIDType": "ISO"}]}, ""),
        ({ISSUER: "MPI", QUALIFIERS: [{"UniversalEntityID": "1.2.3", "UniversalEntityIDType": "ISO"}]}, "MPI"),
    ],
)
def test_the_issuer_is_read_in_either_way(
    tmp_path: Path, tags: dict[str, object], issuer: str, thorough: bool, syntax: str | None
) -> None:
    data = write_tiny(tmp_path / "x", **tags).read_bytes()  # type: ignore[arg-type]
    data = data if syntax is None else rewritten(data, syntax)
    assert read_slice(data, modalities=("CT",), thorough=thorough).header.issuer == issuer


@pytest.mark.parametrize(
    ("number", "found"),
    [
        ("0", "0"), ("00000", "00000"), ("ANONYMOUS", "ANONYMOUS"), (" anonymous ", "ANONYMOUS"), ("Anonymous^", "ANONYMOUS"),
        ("UNKNOWN", "UNKNOWN"), ("N/A", "NA"), ("n.a.", "NA"), ("no id", "NOID"), ("No_Patient-ID", "NOPATIENTID"), ("XXX", "XXX"),
        ("xxxxxx", "XXXXXX"), ("-", "-"), (".", "."), ("???", "???"), ("None", "NONE"), ("null", "NULL"), ("999999", "999999"),
        ("Anonymisé", "ANONYMISE"), ("\x1b\x1b", "-"), ("0" * 99, "0" * 16), ("anónimo", "ANONIMO"), ("1", ""), ("10", ""),
        ("99", ""), ("ANON-0012", ""), ("AA", ""), ("A1", ""),
        ("PAT-1", ""), ("TEST7", ""), ("12345", ""), ("1000000", ""), ("0001", ""), ("", ""),
    ],
)  # fmt: skip
def test_ids_that_stand_for_nobody(number: str, found: str) -> None:
    assert placeholder_in(number) == found


def test_a_placeholder_is_another_patient_at_every_issuer_site_and_institution() -> None:
    ask = partial(patient_of, "ANON")
    places = [
        {"issuer": "MPI"}, {"site": "north"}, {"site": "south"}, {"institution": "General  Hospital"}, {},
    ]  # fmt: skip
    nowhere = {"issuer": "", "site": "", "institution": ""}
    assert [ask(**{**nowhere, **place}).patient_id for place in places] == [
        "ANON^^^MPI",
        "ANON^^^north",
        "ANON^^^south",
        "ANON^^^general hospital",
        "ANON",
    ]
    assert patient_of("7", issuer="UNKNOWN", site="north", institution="x").patient_id == "7^^^north"
    assert patient_of("7", issuer="-", site="", institution="x").patient_id == "7"


def test_prepare_names_placeholders_and_what_they_hold(tmp_path: Path) -> None:
    files = [
        {"patient": "ANONYMOUS", "site": "north", "StudyInstanceUID": "A"},
        {"patient": "ANONYMOUS", "site": "north", "StudyInstanceUID": "A"},
        {"patient": "anonymous", "site": "south", "StudyInstanceUID": "B"},
        {"patient": "0", "site": "south"},
        {"patient": "7", "site": "south"},
    ]
    made = prepared(tmp_path, files, hash_ids=True)
    assert of_images(made, "placeholder") == ["ANONYMOUS", "ANONYMOUS", "ANONYMOUS", "0", ""]
    assert recorded(made, "placeholders") == {
        "0": {"images": 1, "studies": 1, "patients": 1},
        "ANONYMOUS": {"images": 3, "studies": 2, "patients": 2},
    }
    assert recorded(made, "patient_ids_of_several_issuers") == 0


TWO = [
    {"patient": "1", "site": "north"},
    {"patient": "1", "site": "south"},
    {"patient": "2", "site": "south"},
    {"patient": "3"},
]


@pytest.mark.parametrize("hash_ids", [False, True])
def test_tables_of_patient_ids_find_the_patient_where_there_is_one(tmp_path: Path, hash_ids: bool) -> None:
    made = prepared(tmp_path, TWO, hash_ids=hash_ids, salt="s")
    known = Known(
        ids=frozenset(made.index["patient_id"]),
        group=Group.patient,
        salt="s" if hash_ids else None,
        of_number=patients_of_numbers(made.index),
    )
    (tmp_path / "sites.csv").write_text("patient,site\n1^^^north,a\n 1^^^south,b\n2,b\n3,a\n")
    both = dict(zip(of_images(made), ["a", "b", "b", "a"], strict=True))
    assert read_assignment(tmp_path / "sites.csv", known) == both
    assert read_listed(["2", "3 "], known) == sorted(of_images(made)[2:])
    with pytest.raises(
        ValueError,
        match=r"^partition\.test: expected one patient .*got 1, which 2 patients .*write 1\^\^\^<issuer or site>",
    ):
        read_listed(["1"], known)


def test_a_placeholder_is_left_out_where_places_are_compared(tmp_path: Path) -> None:
    made = prepared(tmp_path, [{"patient": "ANON"}, {"patient": "7"}])
    assert list(comparable(made.index, "patient_id")) == ["7"]
    assert len(comparable(made.index, "series_id")) == 2
    assert warn_of_placeholders([], made.index[made.index["patient_id"] == "7"]) == []
    (said,) = warn_of_placeholders([], made.index)
    assert said.startswith("roll call: unknown whether a patient is at two places: the test site hold")


def test_nobody_is_taken_for_a_patient_who_trained_a_model(tmp_path: Path) -> None:
    """The number 7 did; of ANON nobody knows, unless the image itself was there, or both are of one cohort."""
    made = prepared(tmp_path, [{"patient": "ANON"}, {"patient": "7"}], hash_ids=True, salt="s")
    patients = Patients(index=made.index, ids=made.ids)
    train = frozenset(hash_id(id_, "of the cohort") for id_ in made.index["patient_id"])
    link = Link(
        by="own", cohort_sha256="c", ids=made.ids, salt="of the cohort", train=train, validation=frozenset[str]()
    )
    found = find_image_roles(patients, [Chain(links=(link,), at_hand={})])
    roles = dict(zip(made.index["placeholder"], found.roles, strict=True))
    assert roles == {"ANON": "unknown", "": "train"}
    assert found.why == ("1 images have a patient id that stands for nobody, such as ANONYMOUS",)
    same = find_image_roles(replace(patients, cohort_sha256="c"), [Chain(links=(link,), at_hand={})])
    assert list(same.roles) == ["train", "train"]


def test_an_audit_takes_no_placeholder_of_two_sites_for_one_patient(tmp_path: Path) -> None:
    rows = [("ANON", "a"), ("7", "a"), ("ANON", "b"), ("8", "b")]
    pd.DataFrame(rows, columns=["patient", "site"]).to_csv(tmp_path / "table.csv", index=False)
    sharing = find_shared(read_published(tmp_path / "table.csv", {}, None).slices)
    assert sharing.patients == {}
    verdict = judge(sharing)
    assert verdict.code == 0
    assert verdict.sentence.endswith("but 2 images have a patient id that stands for nobody, such as ANONYMOUS")
    assert judge(sharing, strict=True).code == 1


def test_an_audit_sees_a_placeholder_in_two_parts_of_one_site(tmp_path: Path) -> None:
    rows = [("ANON", "a", "train"), ("ANON", "a", "test"), ("7", "b", "train")]
    pd.DataFrame(rows, columns=["patient", "site", "split"]).to_csv(tmp_path / "table.csv", index=False)
    assert len(find_shared(read_published(tmp_path / "table.csv", {}, None).slices).patients) == 1


def test_a_zero_among_numbers_is_a_number(tmp_path: Path) -> None:
    rows = [("0", "a"), ("1", "a"), ("0", "b"), ("2", "b")]
    pd.DataFrame(rows, columns=["patient", "site"]).to_csv(tmp_path / "table.csv", index=False)
    assert find_shared(read_published(tmp_path / "table.csv", {}, None).slices).patients == {"0": ("a", "b")}
