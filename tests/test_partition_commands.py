"""Every way to assign patients, as a user types it: what lies there afterwards, and how it refuses."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from tiny import tiny_prepared

from fl_rsna.audit import audit
from fl_rsna.cli.command import run_command
from fl_rsna.cohort.prepared.index import hash_id
from fl_rsna.cohort.steps import adopt_cohort, partition_step
from fl_rsna.common.id_scheme import id_scheme
from fl_rsna.common.reading import dump_hashed_json
from fl_rsna.settings.config import Config
from fl_rsna.simulation.simulation import simulate
from fl_rsna.task import ICH

Assign = Callable[..., tuple[int, str]]
PATIENTS, SLICES = 24, 3
ORIGINS = ("north", "south", "south", "west")  # of patients 0, 1, 2, 3, 4, ... in turn
SCANNERS = ("A", "A", "B", "C", "B", "A")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with prepared/mine, as prepare leaves it with data.hash_ids=true; tests must not change it."""
    folder = tmp_path_factory.mktemp("data")
    prepared = tiny_prepared(folder / "prepared" / "mine", patients=PATIENTS, slices=SLICES)
    number = prepared.index["patient_id"].str[1:].astype(int)
    index = prepared.index.assign(
        patient_id=[hash_id(name, "") for name in prepared.index["patient_id"]],
        series_id=prepared.index["series_id"] + prepared.index["rank"].clip(upper=1).astype(str),  # two a patient
        origin=[ORIGINS[n % len(ORIGINS)] for n in number],
        fingerprint=[f"{SCANNERS[n % len(SCANNERS)]}|12u-1024|none|40/80" for n in number],
    )
    index.to_parquet(prepared.folder / "index.parquet", index=False)
    facts = {"task": "ich", "labels": list(ICH.labels), "image": "hu", "size": 32, "index_sha256": "0" * 64}
    facts |= {"ids": id_scheme(True, "")}
    (prepared.folder / "prepare.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture
def assign(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Assign:
    """Assign the patients of `mine` to sites in tmp_path/site_data with these settings; the exit code and what was written on stderr."""
    monkeypatch.chdir(tmp_path)

    def act(*arguments: str, story: Callable[[Config], object] = partition_step) -> tuple[int, str]:
        monkeypatch.setattr(
            sys, "argv", ["fl_rsna", "data.name=mine", f"paths.prepared={data / 'prepared'}", *arguments]
        )
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            run_command(story)
        return int(left.value.code or 0), capfd.readouterr().err

    return act


def hashed(patient: int) -> str:
    return hash_id(f"p{patient:02d}", "")


def patients(folder: Path) -> dict[str, set[str]]:
    """The patients of each site of the one cohort there is, or of the one named."""
    (cohort,) = [folder] if (folder / "cohort.json").exists() else folder.glob("site_data/*")
    return {path.parent.name: set(pd.read_csv(path)["patient_id"]) for path in sorted(cohort.glob("*/index.csv"))}


def facts(folder: Path) -> dict[str, object]:
    (path,) = folder.glob("site_data/*/cohort.json")
    return dict(json.loads(path.read_text()))


def complete(sites: dict[str, set[str]]) -> bool:
    """Whether every patient is at exactly one site."""
    placed = sorted(patient for site in sites.values() for patient in site)
    return placed == sorted(hashed(patient) for patient in range(PATIENTS))


def assignment(path: Path, header: str = "patient,site", **changes: str) -> Path:
    """Patients 0 to 23 in turn to north, south and test-site; `p03="west"` changes one, an empty text leaves it out."""
    places = {f"p{n:02d}": ("north", "south", "test-site")[n % 3] for n in range(PATIENTS)} | changes
    path.write_text("\n".join([header, *(f"{who},{site}" for who, site in places.items() if site)]) + "\n")
    return path


@pytest.mark.parametrize("kind", ["iid", "dirichlet", "quantity", "specialist", "shards", "scanner", "origin"])
def test_every_kind_assigns_every_patient_once(assign: Assign, tmp_path: Path, kind: str) -> None:
    assert assign(f"partition={kind}", "partition.num_sites=3", "partition.seed=3") == (0, "")
    sites = patients(tmp_path)
    assert list(sites) == ["site-1", "site-2", "site-3", "test-site"]
    assert complete(sites)
    assert min(map(len, sites.values())) >= 2


def test_explicit_sites_are_as_the_file_says_by_original_ids(assign: Assign, tmp_path: Path) -> None:
    assignment(tmp_path / "who.csv")
    assert assign("partition=explicit", "partition.assignment=who.csv") == (0, "")
    expected = {"north": 0, "south": 1, "test-site": 2}
    assert patients(tmp_path) == {
        site: {hashed(n) for n in range(PATIENTS) if n % 3 == place} for site, place in expected.items()
    }


def test_an_assignment_without_a_test_site_leaves_it_to_partition_test(assign: Assign, tmp_path: Path) -> None:
    assignment(tmp_path / "who.csv", **{f"p{n:02d}": "west" for n in range(2, PATIENTS, 3)})
    assert assign("partition=explicit", "partition.assignment=who.csv", "partition.test=south") == (0, "")
    sites = patients(tmp_path)
    assert list(sites) == ["north", "test-site", "west"]
    assert complete(sites)
    assert sites["test-site"] == {hashed(n) for n in range(1, PATIENTS, 3)}


@pytest.mark.parametrize(("kind", "values"), [("origin", ORIGINS), ("scanner", SCANNERS)])
def test_natural_sites_are_made_of_what_their_headers_say(
    assign: Assign, tmp_path: Path, kind: str, values: tuple[str, ...]
) -> None:
    assert assign(f"partition={kind}", "partition.num_sites=2") == (0, "")
    sites, made_of = patients(tmp_path), facts(tmp_path)["made_of"]
    assert complete(sites)
    assert isinstance(made_of, dict)
    largest = max(set(values), key=values.count)
    assert [value.split("|")[0] for value in made_of["site-1"]] == [largest]
    assert sorted(value.split("|")[0] for value in made_of["site-2"]) == sorted({*values} - {largest})
    of_largest = {hashed(n) for n in range(PATIENTS) if values[n % len(values)] == largest}
    assert sites["site-1"] <= of_largest
    assert not sites["site-2"] & of_largest


def test_no_patient_of_a_specialist_site_has_what_it_lacks(assign: Assign, tmp_path: Path) -> None:
    assert assign("partition=specialist", "partition.lacking=2", "partition.num_sites=3") == (0, "")
    lacks = facts(tmp_path)["lacks"]
    assert isinstance(lacks, dict)
    for site, labels in lacks.items():
        (path,) = tmp_path.glob(f"site_data/*/{site}/index.csv")
        assert len(labels) == 2
        assert not pd.read_csv(path)[labels].to_numpy().any()


def test_one_site_after_the_other_is_left_out(assign: Assign, tmp_path: Path) -> None:
    assert assign("partition.num_sites=3", "partition.test=0.01", "partition.name=all") == (0, "")
    left_out = set()
    for site in ("site-1", "site-2", "site-3"):
        assert assign("partition.num_sites=3", f"partition.test={site}", f"partition.name=without-{site}") == (0, "")
        sites = patients(tmp_path / "site_data" / f"without-{site}")
        assert complete(sites)
        assert site not in sites
        assert len(sites) == 3
        left_out |= sites["test-site"]
    assert left_out == {hashed(n) for n in range(PATIENTS)}


@pytest.mark.parametrize("how", ["list", "file", "file with a header", "share"])
def test_the_test_site_is_who_was_asked_for(assign: Assign, tmp_path: Path, how: str) -> None:
    names = ["p03", "p05", hashed(7)]
    rows = ["PatientID,why", *(f"{name},pilot" for name in names)] if how == "file with a header" else names
    (tmp_path / "test.csv").write_text("\n".join(rows) + "\n")
    argument = {"list": f"[{','.join(names)}]", "share": "0.25"}.get(how, "test.csv")
    assert assign(f"partition.test={argument}", "partition.num_sites=3") == (0, "")
    sites = patients(tmp_path)
    assert complete(sites)
    if how == "share":
        assert len(sites["test-site"]) == 6
    else:
        assert sites["test-site"] == {hashed(n) for n in (3, 5, 7)}


def test_all_folds_together_test_every_patient_once(assign: Assign, tmp_path: Path) -> None:
    tested = []
    for fold in range(5):
        arguments = [
            "partition.folds=5",
            f"partition.fold={fold}",
            "partition.num_sites=2",
            f"partition.name=fold-{fold}",
        ]
        assert assign(*arguments) == (0, "")
        sites = patients(tmp_path / "site_data" / f"fold-{fold}")
        assert complete(sites)
        tested += sorted(sites["test-site"])
    assert sorted(tested) == sorted(hashed(n) for n in range(PATIENTS))


@pytest.mark.parametrize("group", ["series", "slice"])
def test_an_assignment_below_the_patient_is_stamped_and_its_audit_fails(
    assign: Assign, tmp_path: Path, group: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert assign(f"partition.group={group}", "partition.num_sites=2", "partition.name=leaky") == (0, "")
    found = facts(tmp_path)
    assert (found["group"], found["leaky"]) == (group, True)
    tables = [pd.read_csv(path).assign(site=path.parent.name) for path in tmp_path.glob("site_data/leaky/*/index.csv")]
    places = pd.concat(tables).groupby("patient_id")[["site", "split"]].agg(lambda values: tuple(values))
    shared = {who for who, row in places.iterrows() if len({*zip(row["site"], row["split"], strict=True)}) > 1}
    assert audit(["cohort=site_data/leaky", "out=found.json"]) == 1
    assert set(json.loads((tmp_path / "found.json").read_text())["sharing"]["patients"]) == shared
    said = (
        f"LEAK, as partition.group={group} asks for: {len(shared)} of {PATIENTS} patients in more than one of 5 places"
    )
    assert capfd.readouterr().out.splitlines()[-1] == said


def test_the_report_of_a_leaky_cohort_says_so(assign: Assign, tmp_path: Path) -> None:
    arguments = ["partition.group=slice", "partition.num_sites=2", "run.name=leaky", "rounds=1"]
    arguments += ["model.name=tiny", "model.pretrained=false", "model.image_size=32", "engine.workers=0"]
    assert assign(*arguments, story=simulate) == (0, "")
    assert json.loads((tmp_path / "runs" / "leaky" / "summary.json").read_text())["leaky"] is True
    assert "This cohort leaks." in (tmp_path / "runs" / "leaky" / "report.html").read_text()


REFUSED = {
    "partition.folds=1": "partition.folds: expected 2 or more, or null, got 1",
    "partition.folds=25": "partition.folds: expected at most 24, one for each of the patients, got 25",
    "partition.folds=5 partition.fold=5": "partition.fold: expected 0 to 4 of 5 folds, got 5",
    "partition.folds=5 partition.fold=-1": "partition.fold: expected 0 or more, got -1",
    "partition.fold=2": "partition.fold: expected partition.folds beside it",
    "partition.folds=5 partition.test=0.3": "partition.test: expected nothing beside partition.folds",
    "partition.test=site-9": "partition.test: expected a share, a list of patients, a file of them or one of the sites",
    "partition.test=absent.csv": "partition.test: expected a share, a list of patients, a file of them or one of the sites",
    "partition.test=0": "partition.test: expected between 0 and 1, got 0",
    "partition.test=[p01,nobody]": "partition.test: expected patients of the data, which holds 24, but 1 of the list are not",
    "partition.test=[]": "partition.test: expected a share, a site, a list of patients or a file of them, got nothing",
    "partition.test=site-1 partition.num_sites=1": "partition.test: expected another site to train on besides site-1",
    "partition=quantity partition.sigma=-1": "partition.sigma: expected 0 to 10, got -1",
    "partition=specialist partition.lacking=5": "partition.lacking: expected at most 3 of 5 labels",
    "partition=specialist partition.lacking=0": "partition.lacking: expected 1 or more, got 0",
    "partition=dirichlet partition.alpha=inf": "partition.alpha: expected a finite number, got inf",
    "partition=scanner partition.num_sites=1": "partition.num_sites: expected 2 or more sites by fingerprint, got 1",
    "partition=explicit": "partition.assignment: expected a CSV with the columns patient,site for explicit sites, got nothing",
    "partition.assignment=who.csv": "partition.assignment: expected nothing with iid sites, got who.csv",
    "partition.layout=s1": "partition.layout: Invalid value 's1', expected one of [standard, s0]",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_what_cannot_be_assigned_is_one_sentence_and_nothing_is_left(
    assign: Assign, tmp_path: Path, arguments: str
) -> None:
    refused(assign(*arguments.split()), REFUSED[arguments], tmp_path)


CHANGED = {
    "": "expected patients of the data, which holds 24, but 1 of the data are not in who.csv",
    "a/b": "expected site names of up to 60 letters, digits, blanks, dots, - and _, got 'a/b' in who.csv",
    "North": "expected site names apart in more than case, from each other and from what else a cohort holds, got 'north'",
    "partition.html": "expected site names apart in more than case, from each other and from what else a cohort holds, got",
    "lonely": "expected at least 2 patients at every site beside the test site's, got 1 at lonely",
}


@pytest.mark.parametrize("site", CHANGED)
def test_an_assignment_with_one_odd_row_is_refused(assign: Assign, tmp_path: Path, site: str) -> None:
    assignment(tmp_path / "who.csv", p03=site)
    left = assign("partition=explicit", "partition.assignment=who.csv")
    refused(left, f"partition.assignment: {CHANGED[site]}", tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a CSV with the columns patient,site at who.csv, got nothing"),
        ("who,where\np01,north\n", "expected a CSV with the columns patient,site at who.csv, got who, where"),
        ("patient,site\np01,north\np01,south\n", "who.csv puts p01 both in north and in south; keep one row of it"),
        ("patient,site\np01\n", "expected 2 cells a row, got 1 in who.csv: p01"),
    ],
)
def test_an_assignment_that_cannot_be_read_is_refused(assign: Assign, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "who.csv").write_text(text)
    refused(assign("partition=explicit", "partition.assignment=who.csv"), f"partition.assignment: {said}", tmp_path)


@pytest.mark.parametrize("how", ["semicolons", "tabs", "Excel", "Parquet"])
def test_an_assignment_of_another_program_gives_the_same(assign: Assign, tmp_path: Path, how: str) -> None:
    assignment(tmp_path / "who.csv")
    rows = pd.read_csv(tmp_path / "who.csv", dtype=str)
    assert assign("partition=explicit", "partition.assignment=who.csv", "partition.name=plain")[0] == 0
    other = tmp_path / "other.csv"
    match how:
        case "semicolons":
            rows.to_csv(other, sep=";", index=False)
        case "tabs":
            named = rows.rename(columns={"patient": "Patient ID", "site": " SITE"})
            named.to_csv(other, sep="\t", index=False, encoding="utf-16")
        case "Excel":
            kept = rows.assign(patient='="' + rows["patient"] + '"', site="\u00a0" + rows["site"])
            kept.to_csv(other, index=False, encoding="utf-8-sig")
        case "Parquet":
            rows.astype("category").to_parquet(tmp_path / "other.parquet")
    path = "other.parquet" if how == "Parquet" else "other.csv"
    assert assign("partition=explicit", f"partition.assignment={path}", "partition.name=other")[0] == 0
    for site in (tmp_path / "site_data" / "plain").glob("*/index.csv"):
        assert site.read_bytes() == (tmp_path / "site_data" / "other" / site.parent.name / "index.csv").read_bytes()


@pytest.mark.parametrize("argument", ["partition.test=0.4", "partition.folds=3"])
def test_two_settings_of_the_test_site_are_refused(assign: Assign, tmp_path: Path, argument: str) -> None:
    assignment(tmp_path / "who.csv")
    left = assign("partition=explicit", "partition.assignment=who.csv", argument)
    key = argument.partition("=")[0]
    refused(left, f"{key}: expected nothing beside the test-site of who.csv", tmp_path)


def refused(left: tuple[int, str], said: str, folder: Path) -> None:
    code, err = left
    assert code == 2
    assert err.startswith(f"error: {said}")
    assert err.count("\n") == 1
    assert not list(folder.glob("site_data/*"))


def test_the_layout_of_s0_lists_the_test_set_where_it_was_prepared(
    assign: Assign, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ids are those of the index, hashed; a labelled set of that name is none to be scored."""
    shutil.copytree(data / "prepared", tmp_path / "own")
    arguments = ["paths.prepared=own", "partition=s0", "partition.num_sites=2"]
    shutil.copytree(tmp_path / "own" / "mine", tmp_path / "own" / "mine-test")
    assert assign(*arguments, "partition.name=without") == (0, "")
    assert not (tmp_path / "site_data" / "without" / "test_metadata.csv").exists()
    beside = tmp_path / "own" / "mine-test"
    stated = json.loads((beside / "prepare.json").read_text())
    (beside / "prepare.json").write_bytes(dump_hashed_json(stated | {"labels": []}))
    index = pd.read_parquet(beside / "index.parquet").drop(columns=list(ICH.labels))
    index.assign(image_id="t" + index["image_id"]).to_parquet(beside / "index.parquet")
    assert assign(*arguments, "partition.name=with") == (0, "")
    found = pd.read_csv(tmp_path / "site_data" / "with" / "test_metadata.csv")
    assert list(found["SOPInstanceUID"]) == sorted("t" + index["image_id"])
    train = pd.read_csv(tmp_path / "site_data" / "with" / "train_metadata.csv")
    assert set(train["PatientID"]) == {hashed(n) for n in range(PATIENTS)}
    assert audit(["cohort=site_data/with", "strict=true"]) == 0


def test_a_run_takes_the_layout_of_the_cohort_it_finds(assign: Assign, tmp_path: Path) -> None:
    assert assign("partition.num_sites=2", "partition.layout=s0") == (0, "")
    assert assign(story=lambda config: adopt_cohort(config) or partition_step(config)) == (0, "")
    assert len(list((tmp_path / "site_data").iterdir())) == 1
