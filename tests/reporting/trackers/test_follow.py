"""Trackers get a run's numbers, each once and nothing private, and none of them can stop a run."""

import dataclasses
import json
import math
import re
import socket
import struct
import subprocess
import sys
import threading
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from logs import resumed_run, whole_run, write_log
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import tiny_config
from torchvision_operators import make_importable

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.reporting.trackers import follow as trackers
from fl_rsna.reporting.trackers.follow import Feed, TrackerName, check_packages, open_tracker, run_key, track_run
from fl_rsna.reporting.trackers.points import Values, final_points, flat_settings, points, settings
from fl_rsna.reporting.trackers.tensorboard import EventFile
from fl_rsna.run_folder.run_folder import MAY_CHANGE, RunFolder
from fl_rsna.settings.config import Config
from fl_rsna.simulation.simulation import run_federation

SUMMARY = {
    "status": "finished",
    "model_sha256": "ab" * 32,
    "rounds": 3,
    "wall_s": 30.0,
    "cohort": {"name": "secret-hospital"},
    "test_site": {
        "slices": 5,
        "slice": {"any": {"auroc": {"value": 0.9, "low": 0.8, "high": None}, "curve": [[0, 1]]}},
        "note": "words",
    },
}


def run_folder(folder: Path, events: list[dict[str, Any]]) -> Path:
    """What a finished run leaves, as far as trackers look at it."""
    write_log(folder, events)
    (folder / "manifest.json").write_text('{"started": "2026-01-01"}')
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    (folder / "model.safetensors").write_bytes(b"a model")
    return folder


class Heard:
    """A tracker that only listens."""

    def __init__(self) -> None:
        self.rounds: list[tuple[int, Values]] = []
        self.final: Values = {}
        self.status = ""

    def log(self, round_: int, values: Values, time_s: float) -> None:
        self.rounds.append((round_, values))

    def finish(self, round_: int, values: Values, model: Path, sha256: str | None) -> None:
        self.final = values

    def close(self, status: str) -> None:
        self.status = status


def heard(folder: Path) -> Heard:
    tracker = Heard()
    feed = Feed(folder, tracker)
    feed.catch_up()
    feed.end()
    return tracker


def test_points_are_the_numbers_of_an_event() -> None:
    events = {event["event"]: event for event in whole_run()}
    assert points(events["round_end"])["auroc_test/any"] == 0.8
    assert points(events["round_end"])["bytes/down"] == 100
    assert "auroc_test/subdural" not in points(events["round_end"])  # undefined
    assert points(events["site_done"])["site_validation/site-2/loss"] == 3.2
    assert points(events["site_failed"]) == points(events["roll_call"]) == {}
    assert all(map(math.isfinite, points({**events["round_end"], "train_loss": float("nan")}).values()))


def test_every_round_comes_once_in_order_with_its_sites(tmp_path: Path) -> None:
    whole, resumed = (heard(run_folder(tmp_path / name, log())) for name, log in
                      (("whole", whole_run), ("resumed", resumed_run)))  # fmt: skip
    assert [round_ for round_, _ in whole.rounds] == [0, 1, 2, 3]
    assert whole.rounds == resumed.rounds
    assert whole.rounds[1][1]["site_train/site-1/loss"] == 1.1
    assert "site_train/site-2/loss" not in whole.rounds[2][1]  # it failed
    assert whole.status == resumed.status == "finished"
    assert whole.final == final_points(SUMMARY)


def test_final_numbers_have_their_intervals_and_no_words() -> None:
    assert final_points(SUMMARY) == {
        "final/rounds": 3.0,
        "final/wall_s": 30.0,
        "final/slices": 5.0,
        "final/slice/any/auroc/value": 0.9,
        "final/slice/any/auroc/low": 0.8,
    }
    alone = {"alone": {"site-1": {"test_site": {"slices": 5}}}}
    assert final_points(alone) == {"final/site-1/slices": 5.0}


def test_settings_that_leave_name_no_person_and_no_place() -> None:
    config = Config()
    config.data.salt, config.data.dicom, config.data.labels = "pepper", "/home/jane/scans", "/home/jane/labels.csv"
    config.partition.test, config.partition.assignment = ["ID_of_a_patient"], "/home/jane/who.csv"
    config.paths.runs, config.engine.address, config.run.name = "/home/jane/runs", "head:6379", "janes"
    config.tracking.mlflow_uri = "https://jane:password@mlflow"
    for said in (json.dumps(settings(config)), json.dumps(flat_settings(config))):
        assert not re.search("pepper|jane|ID_of|password|head:6379", said)
    assert settings(config)["train"]["batch_size"] == config.train.batch_size
    assert flat_settings(config)["train.batch_size"] == str(config.train.batch_size)
    assert flat_settings(config)["rounds"] == "10"


MARK = "ZZmarkZZ"
GIVEN_ON_PURPOSE = "tracking.project"  # the name in the service


def marked(config: Any, above: str = "") -> Any:
    """A configuration with a marker in every field that could hold a word: texts, lists, mappings and what may be anything."""
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{above}{field.name}"
        if dataclasses.is_dataclass(value):
            marked(value, f"{name}.")
        elif name != GIVEN_ON_PURPOSE and not isinstance(value, bool | int | float | StrEnum):
            known = {list: [MARK], dict: {MARK: MARK}}
            setattr(config, field.name, known.get(type(value), f"/home/{MARK}/{MARK}"))
    for group, name, value in (
        ("partition", "test", [MARK]),
        ("train", "batch_size", MARK),
    ):
        if hasattr(config, group):
            setattr(getattr(config, group), name, value)
    return config


@pytest.mark.parametrize(
    "name",
    [
        TrackerName.tensorboard,
        *(pytest.param(name, marks=pytest.mark.slow) for name in (TrackerName.mlflow, TrackerName.wandb)),
    ],
)
def test_no_word_of_a_user_reaches_a_tracker(
    name: TrackerName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(name.value)
    for of_person in ("USER", "LOGNAME", "USERNAME", "HOSTNAME", "EMAIL"):
        monkeypatch.setenv(of_person, MARK)
    monkeypatch.setattr("sys.argv", [f"/home/{MARK}/simulate.py", f"start=/home/{MARK}"])
    (tmp_path / MARK).mkdir()
    monkeypatch.chdir(tmp_path / MARK)
    folder, config = run_folder(tmp_path / "run", whole_run()), marked(Config())
    config.tracking.mlflow_uri = f"sqlite:///{tmp_path}/shared/mlflow.db"
    feed = Feed(folder, open_tracker(name, folder, config))
    feed.catch_up()
    feed.end()
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 4
    assert [path for path in written if MARK.encode() in path.read_bytes()] == []
    host = socket.gethostname().encode()
    assert [path for path in written if len(host) > 8 and host in path.read_bytes()] == []


def test_no_setting_that_leaves_holds_a_word() -> None:
    assert MARK not in json.dumps(settings(marked(Config())))


def test_the_name_of_a_network_is_open_and_no_other_word_in_its_place() -> None:
    make_importable()
    pytest.importorskip("timm")
    config = Config()
    config.model.backbone = "densenet121"
    assert settings(config)["model"]["backbone"] == "densenet121"
    config.model.backbone = MARK
    assert "backbone" not in settings(config)["model"]


def test_what_a_site_calls_its_metrics_is_not_passed_on() -> None:
    event = {"event": "site_done", "round": 1, "phase": "validation", "site": "site-1"}
    told = {"loss": 0.5, "auroc/any": 0.7, "personal/auroc/any": 0.8, f"auroc/{MARK}": 0.1, f"{MARK}/auroc/any": 0.1}
    assert points({**event, "metrics": told}) == {
        "site_validation/site-1/loss": 0.5,
        "site_validation/site-1/auroc/any": 0.7,
        "site_validation/site-1/personal/auroc/any": 0.8,
    }


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    read = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    read.Reload()
    found = {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in read.Tags()["scalars"]}
    assert {"config/text_summary", "config"} & set(read.Tags()["tensors"])
    return found


@pytest.mark.parametrize("log", [whole_run, resumed_run])
def test_event_files_are_read_back_by_tensorboard(tmp_path: Path, log: Any) -> None:
    folder = run_folder(tmp_path, log())
    for _ in range(2):  # begun again, as by a run that goes on: nothing twice
        feed = Feed(folder, EventFile(folder, Config()))
        feed.catch_up()
        feed.end()
    found = scalars(folder)
    assert found["loss/train"] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert [step for step, _ in found["auroc_test/any"]] == [0, 1, 2, 3]
    assert [step for step, _ in found["site_train/site-2/loss"]] == [1, 3]
    assert len(list((folder / "tensorboard").iterdir())) == 1


@pytest.mark.slow
def test_mlflow_keeps_a_run_its_numbers_and_its_model(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    folder, config = run_folder(tmp_path / "a run", resumed_run()[:17]), Config()
    config.tracking.mlflow = True
    first = Feed(folder, open_tracker(TrackerName.mlflow, folder, config))  # and killed
    first.catch_up()
    run_folder(folder, resumed_run())
    second = Feed(folder, open_tracker(TrackerName.mlflow, folder, config))
    second.catch_up()
    second.end()
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}")
    (kept,) = client.search_runs([client.get_experiment_by_name("fl_rsna").experiment_id])
    history = client.get_metric_history(kept.info.run_id, "loss/test")
    assert sorted(metric.step for metric in history) == [0, 1, 2, 3]
    assert kept.data.params["train.batch_size"] == "16"
    assert kept.data.metrics["final/slice/any/auroc/low"] == 0.8
    assert kept.info.status == "FINISHED"
    (version,) = client.search_model_versions("name='fl_rsna'")
    assert version.tags == {"sha256": "ab" * 32}
    (stored,) = (folder / "mlflow" / "artifacts").rglob("model.safetensors")
    assert stored.read_bytes() == b"a model"


BEGUN_TOGETHER = """
import sys
from pathlib import Path
from fl_rsna.settings.config import Config
from fl_rsna.reporting.trackers.follow import Feed, TrackerName, open_tracker
folder, config = Path(sys.argv[1]), Config()
config.tracking.mlflow_uri = sys.argv[2]
feed = Feed(folder, open_tracker(TrackerName.mlflow, folder, config))
feed.catch_up()
feed.end()
"""


@pytest.mark.slow
def test_runs_that_begin_together_share_one_new_database(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    uri, names = f"sqlite:///{tmp_path}/shared/mlflow.db", ("a", "b", "c")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "mlflow.db.part").write_bytes(b"half of a database, of a process that was killed")
    folders = [run_folder(tmp_path / name, whole_run()) for name in names]
    started = [
        subprocess.Popen([sys.executable, "-c", BEGUN_TOGETHER, str(folder), uri], stderr=subprocess.PIPE, text=True)
        for folder in folders
    ]
    ended = [(process.communicate()[1], process.returncode) for process in started]
    assert [code for _, code in ended] == [0, 0, 0], ended
    client = mlflow.MlflowClient(uri)
    found = client.search_runs([client.get_experiment_by_name("fl_rsna").experiment_id])
    assert sorted(run.info.run_name for run in found) == list(names)
    for run in found:
        steps = sorted(metric.step for metric in client.get_metric_history(run.info.run_id, "loss/test"))
        assert (run.info.status, steps) == ("FINISHED", [0, 1, 2, 3])
    assert sorted(int(of.version) for of in client.search_model_versions("name='fl_rsna'")) == [1, 2, 3]


def records(content: bytes) -> list[bytes]:
    """Of a .wandb file: 7 bytes, then LevelDB's log format: blocks of 32 KiB, each piece with checksum, length and type."""
    found, piece, at, whole, first, last = [], b"", 7, 1, 2, 4
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        piece = (b"" if kind in (whole, first) else piece) + content[at + 7 : at + 7 + length]
        found += [piece] if kind in (whole, last) else []
        at += 7 + length
    return found


@pytest.mark.slow
def test_wandb_offline_stays_in_the_run_s_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    folder, config = run_folder(tmp_path / "a run", whole_run()), Config()
    config.tracking.wandb = True
    feed = Feed(folder, open_tracker(TrackerName.wandb, folder, config))
    feed.catch_up()
    feed.end()
    assert not list(home.iterdir())
    (path,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    rows = []
    for data in records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            rows.append(items)
    assert [row["round"] for row in rows] == [0, 1, 2, 3]
    assert [row.get("loss/train") for row in rows[1:]] == [1.0, 0.5, pytest.approx(1 / 3)]


def test_a_missing_package_is_one_sentence_before_anything_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)  # type: ignore[attr-defined]
    config = tiny_config(tracking__mlflow=True, tracking__tensorboard=False)
    with pytest.raises(ValueError, match=r"tracking\.mlflow: expected the package mlflow.*pip install"):
        check_packages(config.tracking)
    check_packages(tiny_config(tracking__tensorboard=False).tracking)


def play(folder: Path, config: Config, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Events as a run has them, under trackers; what the log holds at the end."""
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_text("{}")
    run = RunFolder(folder)
    with track_run(run, config):
        for event in events:
            run.event(event["event"], **{key: value for key, value in event.items() if key not in ("event", "time")})
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def test_a_tracker_that_fails_is_an_event_and_the_run_goes_on(tmp_path: Path) -> None:
    tmp_path.joinpath("run").mkdir()
    (tmp_path / "run" / "tensorboard").write_text("a file where the folder should be")
    log = play(tmp_path / "run", Config(), whole_run())
    (failed,) = [event for event in log if event["event"] == "tracker_failed"]
    assert failed["tracker"] == "tensorboard"
    assert "FileExistsError" in failed["error"]
    assert [event["event"] for event in log if event["event"] != "tracker_failed"] == [
        event["event"] for event in whole_run()
    ]


def test_a_tracker_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    class Hanging(Heard):
        def log(self, round_: int, values: Values, time_s: float) -> None:
            gate.wait()

    monkeypatch.setattr(trackers, "GRACE_S", 0.01)
    monkeypatch.setattr(trackers, "open_tracker", lambda name, run, config: Hanging())
    log = play(tmp_path / "run", Config(), whole_run())
    gate.set()
    assert log[-1]["event"] == "tracker_failed"
    assert "given up" in log[-1]["error"]


def test_trackers_begin_after_the_first_site_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []

    def open_(name: TrackerName, run: Path, config: Config) -> Heard:
        opened.append(len((run / "events.jsonl").read_text().splitlines()))
        return Heard()

    monkeypatch.setattr(trackers, "open_tracker", open_)
    play(tmp_path / "none", Config(), whole_run()[:3])  # roll call, round 0, start of round 1
    assert opened == []
    play(tmp_path / "run", Config(), whole_run())
    assert len(opened) == 1
    assert opened[0] >= 4


def test_no_tracker_no_file(tmp_path: Path) -> None:
    play(tmp_path / "run", tiny_config(tracking__tensorboard=False), whole_run())
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"manifest.json", "events.jsonl"}


def test_a_run_s_name_in_services_stays_its_own(tmp_path: Path) -> None:
    first, second = (run_folder(tmp_path / name, []) for name in ("a", "b"))
    assert run_key(first) == run_key(first) != run_key(second)


def test_sites_alone_come_under_their_names(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, [whole_run()[0], {**whole_run()[1], "event": "site_alone_done", "site": "site-1"}])
    write_log(folder / "alone" / "site-1", whole_run())
    assert [round_ for round_, _ in heard(folder).rounds] == [0, 1, 2, 3]
    assert heard(folder).rounds[1][1]["site-1/loss/train"] == 1.0


def test_tracking_may_change_when_a_run_goes_on() -> None:
    assert "tracking" in MAY_CHANGE


def test_tracking_changes_no_model(cohort: Cohort, tmp_path: Path) -> None:
    found = {}
    for tensorboard in (True, False):
        folder = tmp_path / f"{tensorboard}"
        config = tiny_config(rounds=1, tracking__tensorboard=tensorboard)
        run_federation(config, cohort, folder, ())
        found[tensorboard] = json.loads((folder / "summary.json").read_text())["model_sha256"]
        assert (folder / "tensorboard").exists() is tensorboard
        assert not (folder / "heartbeat").exists()
    assert found[True] == found[False]
    assert [step for step, _ in scalars(tmp_path / "True")["loss/test"]] == [0, 1]
