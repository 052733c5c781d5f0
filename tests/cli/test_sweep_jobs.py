"""A sweep as a user types it: a job that fails ends no other, what becomes of each is told, and the same settings go on."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from made_runs import made_run

from fl_rsna.cli.command import run_command
from fl_rsna.common.command_end import RunFailed
from fl_rsna.run_folder.sweep_folder import JobState, read_jobs
from fl_rsna.settings.config import Config

Sweep = Callable[..., tuple[int, str, str]]


class Story:
    """Leaves a made run, unless told what to do by learning rate; remembers who was asked, and whether to go on."""

    def __init__(self, **acts: BaseException) -> None:
        self.acts, self.asked = acts, list[tuple[str, bool]]()

    def __call__(self, config: Config) -> dict[str, str]:
        folder = Path(config.paths.runs) / str(config.run.name)
        self.asked.append((folder.name, config.resume))
        if (error := self.acts.get(config.strategy.name)) is not None:
            raise error
        if not folder.exists():
            made_run(folder)
        return {"score of " + config.strategy.name: "0.5"}


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Sweep:
    """Sweep a story in an empty folder; the exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def act(story: Callable[[Config], object], *settings: str, **kwargs: bool) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["simulate.py", "--multirun", *settings])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            run_command(story, **kwargs)
        said = capfd.readouterr()
        return int(left.value.code or 0), said.out, said.err

    return act


THREE = ("strategy=fedavg,scaffold,fedprox", "run.name=three")


FAILURES: dict[str, tuple[BaseException, str]] = {  # by strategy: what its job raises, and what is said of it
    "scaffold": (ValueError("strategy: that cannot be"), "strategy: that cannot be"),
    "moon": (RunFailed("it diverged"), "it diverged"),
    "fednova": (OSError(28, "No space left on device", "x"), "No space left on device"),
    "feddyn": (ZeroDivisionError("by zero"), "by zero"),
    "ditto": (MemoryError("no memory"), "no memory"),
    "fedadam": (SystemExit(3), "exit code 3"),
}


def test_a_job_that_fails_ends_no_other(sweep: Sweep, tmp_path: Path) -> None:
    story = Story(**{name: error for name, (error, _) in FAILURES.items()})
    names = ["fedavg", *FAILURES, "fedprox"]
    code, out, _ = sweep(story, f"strategy={','.join(names)}", "run.name=many")
    folder = tmp_path / "runs" / "many"
    assert (code, [name for name, _ in story.asked]) == (1, [f"strategy={name}" for name in names])
    states = {job.label: job.state for job in read_jobs(folder)}
    failed = {f"strategy={name}": JobState.failed for name in FAILURES}
    assert states == {"strategy=fedavg": JobState.finished, **failed, "strategy=fedprox": JobState.finished}
    assert "score of fedavg" in out
    assert "score of fedprox" in out  # every job's own columns
    why = json.loads((folder / "compare.json").read_text())["failed"]
    for name, (_, sentence) in FAILURES.items():
        assert f"strategy={name} failed: " in out
        assert sentence in out
        assert sentence in why[f"strategy={name}"]
    assert "go on with: python -m fl_rsna.simulate --multirun" in out
    assert " run.name=many resume=true\n" in out


def test_the_same_words_go_on_with_what_did_not_finish(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep(Story(scaffold=RunFailed("no")), *THREE)[0] == 1
    code, _, err = sweep(Story(), *THREE)
    assert (code, "expected a new sweep, got the existing runs/three" in err, err.count("\n")) == (2, True, 1)
    story = Story()
    code, out, _ = sweep(story, *THREE, "resume=true")
    assert (code, "go on with" in out) == (0, False)
    assert story.asked == [("strategy=fedavg", True), ("strategy=scaffold", False), ("strategy=fedprox", True)]
    assert json.loads((tmp_path / "runs" / "three" / "compare.json").read_text())["failed"] == {}


def test_a_sweep_without_a_name_is_found_by_its_settings(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep(Story(scaffold=RunFailed("no")), "strategy=fedavg,scaffold", "rounds=2")[0] == 1
    assert sweep(Story(), "strategy=fedavg,scaffold", "rounds=2", "resume=true")[0] == 0
    assert sweep(Story(), "strategy=fedavg,scaffold", "rounds=3")[0] == 0
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_a_person_ends_the_whole_sweep(sweep: Sweep, tmp_path: Path) -> None:
    story = Story(scaffold=KeyboardInterrupt())
    code, out, err = sweep(story, *THREE)
    assert (code, len(story.asked), "go on with: " in out) == (1, 2, True)
    assert (err.startswith("error: interrupted; go on with: "), err.endswith(" resume=true\n"), err.count("\n")) == (
        True,
        True,
        1,
    )
    assert [job.state for job in read_jobs(tmp_path / "runs" / "three")] == [JobState.finished, JobState.interrupted]


def test_settings_that_cannot_be_are_one_job_s_fault(sweep: Sweep, tmp_path: Path) -> None:
    story = Story()
    code, out, _ = sweep(story, "train.learning_rate=-1,0.1", "run.name=s")
    assert (code, [name for name, _ in story.asked]) == (1, ["train.learning_rate=0.1"])
    assert "train.learning_rate=-1 failed: train.learning_rate: expected more than 0, got -1" in out
    assert (tmp_path / "runs" / "s" / "compare.html").exists()


@pytest.mark.parametrize(
    "settings", [["strategy=fedavg,nosuch"], ["run.name=a,b"], ["strategy=interval(0,1)"], ["seed=1,x"]]
)
def test_what_hydra_cannot_compose_is_refused_before_any_job(sweep: Sweep, settings: list[str]) -> None:
    story = Story()
    code, _, err = sweep(story, *settings)
    assert (code, story.asked, err.count("\n")) == (2, [], 1)


def test_a_folder_that_is_no_sweep_s_stays_as_it_is(sweep: Sweep, tmp_path: Path) -> None:
    made_run(tmp_path / "runs" / "mine")
    before = sorted((tmp_path / "runs" / "mine").iterdir())
    for more in ([], ["resume=true"]):
        code, _, err = sweep(Story(), "seed=0,1", "run.name=mine", *more)
        assert (code, err.count("\n")) == (2, 1)
        assert err.startswith("error: run.name: expected a new sweep, got the existing runs/mine")
    assert sorted((tmp_path / "runs" / "mine").iterdir()) == before


def test_the_same_words_twice_are_one_run(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep(Story(), "seed=0,0", "run.name=s")[0] == 0
    assert [job.label for job in read_jobs(tmp_path / "runs" / "s")] == ["seed=0"]


def test_a_sweep_of_a_command_without_runs_leaves_none(sweep: Sweep, tmp_path: Path) -> None:
    def story(config: Config) -> None:
        if config.seed == 1:
            raise ValueError("seed: not this one")

    code, out, _ = sweep(story, "seed=0,1,2", makes_runs=False)
    assert (code, "seed=1 failed: seed: not this one" in out) == (1, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_two_commands_are_not_at_one_sweep_at_once(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep(Story(), *THREE)[0] == 0
    there = tmp_path / "runs" / "three"
    done: list[subprocess.CompletedProcess[str]] = []

    def meanwhile(config: Config) -> None:
        settings = ["strategy=fedavg,scaffold,fedprox", "run.name=three", "resume=true", f"paths.runs={there.parent}"]
        command = [sys.executable, "-m", "fl_rsna.simulate", "--multirun", *settings]
        done.append(subprocess.run(command, capture_output=True, text=True))

    assert sweep(meanwhile, "strategy=fedavg", "run.name=three", "resume=true")[0] == 0
    assert (done[0].returncode, done[0].stderr.count("\n")) == (2, 1)
