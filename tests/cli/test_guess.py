"""Bare paths, flags and single values are read as the key=value settings that are meant, or answered with them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fl_rsna.audit import KEYS as OF_AUDIT
from fl_rsna.cli.arguments import create_parser
from fl_rsna.cli.guess import MEANS, RUNS, read_arguments
from fl_rsna.cli.guides import list_command_keys
from fl_rsna.settings.suggest import list_keys

OF_REPLAY = ("run", "site", "round")
Read = Callable[[str], str]


def keys_of(command: str) -> tuple[str, ...]:
    if command in ("audit", "replay"):
        return OF_AUDIT if command == "audit" else OF_REPLAY
    return list_keys() if command in RUNS else list_command_keys(command)


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Read a command line in a folder with runs, a cohort, a prepared set, scans and tables."""
    monkeypatch.chdir(tmp_path)
    for name in (
        *("runs/first/config.yaml", "runs/second/config.yaml", "runs/first/model.safetensors", "scans/a.dcm", "labels.csv"),
        *("prepared/mine/prepare.json", "site_data/two/site-1/index.csv", "elsewhere/mine/prepare.json"),
    ):  # fmt: skip
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("")
    Path("site_data/two/cohort.json").write_text('{"prepared": {"folder": "/there/prepared/mine"}}')

    def act(line: str) -> str:
        command, *typed = line.split()
        return " ".join(read_arguments(command, typed, keys_of(command)))

    return act


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("evaluate runs/first scans/", "model=runs/first data.dicom=scans/"),
        ("evaluate runs/first/model.safetensors site_data/two/site-1", "model=runs/first/model.safetensors site=site_data/two/site-1"),
        ("evaluate runs/first prepared/mine --shift", "--shift model=runs/first data.name=mine"),
        ("evaluate runs/first elsewhere/mine", "model=runs/first data.name=mine paths.prepared=elsewhere"),
        ("export runs/first", "model=runs/first"),
        ("export --model runs/first --out=x", "model=runs/first out=x"),
        ("ensemble runs/first runs/second scans", "models=[runs/first,runs/second] data.dicom=scans"),
        ("prepare scans labels.csv data.name=mine", "data.name=mine data.dicom=scans data.labels=labels.csv"),
        ("prepare labels.csv", "data.dicom=labels.csv"),
        ("prepare labels.csv data.dicom=scans", "data.dicom=scans data.labels=labels.csv"),
        ("partition prepared/mine --partition.num_sites 8", "partition.num_sites=8 data.name=mine"),
        ("simulate scans data.name=new", "data.name=new data.dicom=scans"),
        ("simulate prepared/mine --rounds 5 --resume", "rounds=5 resume=true data.name=mine"),
        ("simulate site_data/two rounds=2", "rounds=2 partition.name=two data.name=mine"),
        ("simulate --strategy.mu=0.1 strategy=fedprox", "strategy.mu=0.1 strategy=fedprox"),
        ("simulate --partition.noise.site-1.labels 0.5", "partition.noise.site-1.labels=0.5"),
        ("simulate --cfg job rounds=2 -m", "--cfg job rounds=2 -m"),
        ("simulate +match.prevalence.any=0.1 ~task hydra.verbose=true", "+match.prevalence.any=0.1 ~task hydra.verbose=true"),
        ("coordinate site_data/two", "partition.name=two"),
        ("audit site_data/two --strict", "strict=true cohort=site_data/two"),
        ("audit labels.csv patient=p", "patient=p table=labels.csv"),
        ("replay runs/first site-1 3", "site=site-1 round=3 run=runs/first"),
        ("replay run=runs/first site=site-1 round=3", "run=runs/first site=site-1 round=3"),
    ],
)  # fmt: skip
def test_what_is_certain_is_read(read: Read, typed: str, meant: str) -> None:
    assert read(typed) == meant.replace("--shift", "shift=true")


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("export runs/frist", "and there is no runs/frist; did you mean model=runs/first?"),
        ("evaluate runs/frist scans", "did you mean model=runs/first?"),
        ("evaluate runs scans", "got a folder of runs; did you mean model=runs/first?"),
        ("evaluate runs/first runs/second", "runs/second: expected model once, got it twice"),
        ("evaluate model=runs/first runs/second", "runs/second: expected model once, got it twice"),
        (
            "simulate runs/first",
            "did you mean start=runs/first, to begin with its model, or run.name=first resume=true, to continue it?",
        ),
        ("simulate fedprox", "did you mean strategy=fedprox?"),
        ("simulate dirichlet", "did you mean partition=dirichlet?"),
        ("simulate resume", "did you mean resume=<value>?"),
        ("simulate --lr 0.1", "--lr: no such option; did you mean train.learning_rate=<value>?"),
        ("simulate round=5", "round: no such setting; did you mean rounds=5?"),
        ("simulate strategy=fedavg,fedbm", "got 'fedbm'; did you mean strategy=fedbn?"),
        ("partition scans", "got a path of kind scans; this command takes data.name=<prepared>"),
        ("audit runs/first", "got the folder of a run; this command takes cohort=<cohort>, table=<table>"),
        ("evaluate nowhere/x", "give a path that exists, e.g. model=<path>"),
    ],
)
def test_what_is_uncertain_is_answered_in_one_sentence(read: Read, typed: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=": ") as refused:
        read(typed)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_paths_stand_for_keys_that_the_commands_have() -> None:
    for command, kinds in MEANS.items():
        assert set(kinds.values()) <= set(keys_of(command))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("run=runs/x", ("runs/x", 1, False, [])),
        ("runs/x port=8020 wait=true", ("runs/x", 8020, True, [])),
        ("runs/x wait=false labels=[a,b]", ("runs/x", 1, False, ["a", "b"])),
        ("runs/strategy=fedbn --port 3", ("runs/strategy=fedbn", 3, False, [])),
    ],
)
def test_commands_with_options_take_key_value_too(typed: str, meant: tuple[str, int, bool, list[str]]) -> None:
    parser = create_parser("try", "Try.")
    parser.add_argument("run")
    parser.add_argument("--port", type=int, default=1)
    parser.add_argument("--wait", action="store_true")
    parser.add_argument("--labels", nargs="+", default=[])
    read = parser.parse_args(typed.split())
    assert (read.run, read.port, read.wait, read.labels) == meant
    with pytest.raises(ValueError, match=r"unrecognized arguments: --prot=1; did you mean --port\?$"):
        parser.parse_args(["runs/x", "--prot=1"])
