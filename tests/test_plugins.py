"""What other installed packages add: a strategy, a network, a task and a way to assign patients, each found by its entry point."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from composed import compose_config, strategy_config
from flwr.app import Message, MessageType, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from package import ROOT
from tiny import tiny_cohort, tiny_config, tiny_index

from fl_rsna.cohort.partition.split import overlaps, split_patients
from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.common.plugins import find_plugins
from fl_rsna.federation.protocol.messages import CONFIG, Instructions, instruct, read_instructions
from fl_rsna.run_folder.run_folder import RunFolder
from fl_rsna.settings.compose import say_plainly
from fl_rsna.settings.federation import FaultsConfig, Precision
from fl_rsna.settings.model import RunModel
from fl_rsna.settings.partition import PartitionConfig
from fl_rsna.settings.training import TrainConfig
from fl_rsna.simulation.simulation import run_federation
from fl_rsna.strategies.find import STRATEGIES
from fl_rsna.task import ICH, find_task, list_tasks

TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1

CODE = """
from dataclasses import dataclass, replace

from torch import nn

from fl_rsna.settings.strategy import StrategyConfig, declare_name
from fl_rsna.strategies.strategy import Strategy
from fl_rsna.task import ICH


@dataclass(kw_only=True, slots=True)
class OtherConfig(StrategyConfig):
    name: str = declare_name("other")


OTHER = Strategy(settings=OtherConfig, title="Other", paper="none")
UNLIKE = replace(OTHER, title="Unlike")
TASK = replace(ICH, name="bleeds", labels=("any", "deep"), published=("any", "deep"), label_weights=(1.0, 1.0), demo="none")


class Small(nn.Sequential):
    pretrained_cfg = {"classifier": "4", "first_conv": "0", "mean": (0.5,) * 3, "std": (0.5,) * 3}


def small(config, labels):
    pool = nn.AdaptiveAvgPool2d(1)
    return Small(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), pool, nn.Flatten(), nn.Linear(8, labels))


def round_robin(findings, sites, rng):
    return [list(findings.index[number::sites]) for number in range(sites)]


def twice(findings, sites, rng):
    return [list(findings.index)] * sites
"""
ENTRIES = """
[fl_rsna.strategies]
other = other:OTHER
unlike = other:UNLIKE
absent = other:ABSENT
moon = other:OTHER

[fl_rsna.models]
small = other:small

[fl_rsna.tasks]
bleeds = other:TASK

[fl_rsna.partitioners]
round_robin = other:round_robin
twice = other:twice
"""


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package, as Python finds one: a module, and a folder that says what it is."""
    folder = tmp_path / "installed"
    (folder / "other-1.2.dist-info").mkdir(parents=True)
    (folder / "other.py").write_text(CODE)
    (folder / "other-1.2.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.2\n")
    (folder / "other-1.2.dist-info" / "entry_points.txt").write_text(ENTRIES)
    monkeypatch.syspath_prepend(str(folder))
    find_plugins.cache_clear()
    yield folder
    find_plugins.cache_clear()
    sys.modules.pop("other", None)


def test_a_run_takes_strategy_and_network_from_a_package_and_writes_down_its_version(
    other: Path, tmp_path: Path
) -> None:
    config = tiny_config(rounds=1, strategy__name="other", model__name="small", model__pretrained=False)
    run_federation(config, tiny_cohort(tmp_path / "tiny"), tmp_path / "run", ())
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["plugins"] == {"other": "1.2"}
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [event["plugins"] for event in events if event["event"] == "roll_call"] == [{"other": "1.2"}]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["site_failures"] == 0


def test_words_name_what_packages_add(other: Path) -> None:
    arguments = ["strategy.name=other", "model.name=small", "model.pretrained=false", "partition.kind=round_robin"]
    config = compose_config(arguments)
    assert (config.strategy.name, config.model.name, config.partition.kind) == ("other", "small", "round_robin")
    assert "other" in STRATEGIES
    assert find_task("bleeds").labels == ("any", "deep")
    assert list_tasks() == ["ich", "covid_cxr", "bleeds"]


def test_patients_are_assigned_by_a_package_s_function_and_each_has_one_place(other: Path) -> None:
    index = tiny_index(patients=20)
    sites = split_patients(index, ICH, PartitionConfig(kind="round_robin", num_sites=3, test=["p00", "p01"]))
    assert overlaps(sites) == {}
    assert [len(site.all) for site in sites] == [6, 6, 6, 2]
    with pytest.raises(
        ValueError, match=r"^partition\.kind: expected each of 18 patients at one of 3 sites, got another"
    ):
        split_patients(index, ICH, PartitionConfig(kind="twice", num_sites=3, test=["p00", "p01"]))


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("strategy.name=moon", "expected one thing called moon, got two: fl_rsna's own and that of other"),
        ("strategy.name=unlike", "expected a Strategy called unlike in other, got one called other"),
        ("strategy.name=absent", "expected other:ABSENT of the package other 1.2, got AttributeError"),
        ("model.name=large", "model.name: expected one of efficientnet_b0, .*, small, tiny, got 'large'"),
        ("partition.kind=robin", "partition.kind: expected one of iid, .*, round_robin, twice, got 'robin'"),
        ("data.task=bled", "data.task: expected one of ich, covid_cxr, bleeds, got 'bled'"),
    ],
)
def test_what_is_not_there_or_not_what_it_says_is_refused_in_a_sentence(
    other: Path, argument: str, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence), say_plainly():
        compose_config([argument])


def test_a_site_refuses_a_run_whose_packages_it_has_not_in_the_same_version(other: Path) -> None:
    def said(**plugins: str) -> Message:
        told = Instructions(
            task="ich", model=RunModel(), train=TrainConfig(), strategy=strategy_config("other"), faults=FaultsConfig(),
            precision_up=Precision.fp32, seed=0, run_id="0a", round=1, learning_rate=0.1, layout_sha256="", salt="s", plugins=plugins,
        )  # fmt: skip
        return Message(RecordDict({CONFIG: instruct(told)}), 5, MessageType.TRAIN)

    assert read_instructions(said(other="1.2")).strategy.name == "other"
    with pytest.raises(
        ValueError, match=r"^expected other 1\.3 as at the server, got other 1\.2 here; install the same"
    ):
        read_instructions(said(other="1.3"))
    with pytest.raises(
        ValueError, match=r"^expected no other package than fl_rsna as at the server, got other 1\.2 here"
    ):
        read_instructions(said())
    elsewhere = said(other="1.2")
    (other / "other-1.2.dist-info" / "entry_points.txt").write_text("")
    find_plugins.cache_clear()
    with pytest.raises(ValueError, match=r"^expected other 1\.2 as at the server, got none here"):
        read_instructions(elsewhere)


SMALL = "model.name=tiny model.pretrained=false model.image_size=32 train.batch_size=8 engine.workers=0 data.name=tiny"


@pytest.mark.slow
def test_the_example_is_installed_and_run_by_its_name_and_is_fedavg_at_its_limit(
    cohort: Cohort, tmp_path: Path
) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT / "examples" / "my_strategy", check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    common = [*SMALL.split(), "rounds=2", f"paths.sites={cohort.folder.parent}", f"partition.name={cohort.folder.name}"]
    sweep = ["--multirun", "strategy=my_strategy", "strategy.alpha=1,0.1", "run.name=mine"]
    places = (str(tmp_path / "installed"), str(ROOT / "tests" / "support"), os.environ.get("PYTHONPATH", ""))
    done = subprocess.run(
        [sys.executable, "-m", "fl_rsna.simulate", *common, *sweep],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    run_federation(compose_config(common), cohort, tmp_path / "runs" / "plain", ())
    limit, mixed, plain = (
        RunFolder(tmp_path / "runs" / name).read_json("summary.json")
        for name in ("mine/strategy.alpha=1", "mine/strategy.alpha=0.1", "plain")
    )
    assert (limit["strategy"], limit["site_failures"]) == ("my_strategy", 0)
    assert limit["model_sha256"] == plain["model_sha256"] != mixed["model_sha256"]
