"""The doctor as a user calls it: one line a check, what to change, and an exit code that means it."""

import importlib.metadata
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from dicom_files import write_tiny
from saved_runs import labels_csv
from tiny import LITE0, tiny_config, tiny_prepared

from fl_rsna.checks.check import Check, Needed, State, check_packages, check_python, read_requirements
from fl_rsna.checks.data import check_data, check_disk, check_run_folder, check_space, each
from fl_rsna.checks.doctor import check_memory, check_run
from fl_rsna.checks.memory import GB, disk_needed, footprint_of, largest_batch, memory_needed, size
from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.cohort.steps import cohort_name
from fl_rsna.learning.training.memory_estimate import Footprint
from fl_rsna.settings.config import Config
from fl_rsna.settings.model import ModelName
from fl_rsna.settings.runtime import Keep
from fl_rsna.settings.stages import Baseline, Stage

FOUND = Footprint(model=10**7, training=3 * 10**8, scoring=10**8)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def states(checks: object) -> dict[str, State]:
    return {check.what: check.state for check in checks}  # type: ignore[attr-defined]


def test_what_pyproject_wants_is_here_and_what_it_does_not_is_named() -> None:
    needed = read_requirements()
    torch = next(one for one in needed if one.name == "torch")
    assert (torch.versions, torch.extra) == (">=2.6", "")
    assert {one.extra for one in needed} >= {"", "export", "mlflow", "wandb"}
    assert set(states(check_packages(needed)).values()) == {State.ok}
    absent = Needed(name="no-such-package", versions="", extra="")
    old = replace(torch, versions="<2")
    [check, *_] = check_packages([absent, old])
    version = importlib.metadata.version("torch")
    assert (check.state, check.found) == (State.problem, f"no-such-package is missing; torch {version} is not <2")
    assert "pip install" in check.change


def test_an_extra_that_is_missing_is_no_problem_and_a_wrong_one_a_warning() -> None:
    absent = Needed(name="no-such-package", versions="", extra="export")
    wrong = Needed(name="torch", versions="<2", extra="wandb")
    checks = list(check_packages([absent, wrong]))
    assert states(checks) == {"packages": State.ok, "extra export": State.ok, "extra wandb": State.warning}
    assert "not installed: no-such-package" in checks[1].found


def test_requirements_are_the_same_installed_and_in_a_checkout(tmp_path: Path) -> None:
    """A wheel has no pyproject.toml; its metadata says the names, if perhaps of another version."""
    installed = {one.name for one in read_requirements(tmp_path / "none") if not one.extra}
    assert {"flwr", "torch", "pydicom"} <= installed
    assert not {"onnx", "mlflow-skinny"} & installed


@pytest.mark.parametrize(("version", "state"), [((3, 10, 9), State.problem), ((3, 11, 0), State.ok)])
def test_python(version: tuple[int, int, int], state: State) -> None:
    assert check_python(version).state is state


def test_a_run_that_fits_has_no_problem(cohort: Cohort, tmp_path: Path) -> None:
    config = tiny_config(partition__name=cohort.folder.name, data__name="tiny", run__name="new")
    config.paths.sites = str(cohort.folder.parent)
    found = states(check_run(config))
    assert State.problem not in found.values()
    assert found["cohort"] is State.ok
    assert {"device", "cores", "memory", "paths.runs", "run.name", "ports"} <= set(found)
    assert list(tmp_path.iterdir()) == []  # it wrote nothing


def test_a_network_that_cannot_be_built_here_is_a_problem() -> None:
    """Whatever stands in the way of timm, and with it: there is no network of that name."""
    config = tiny_config(model__name=ModelName.timm, model__backbone="unheard_of", model__pretrained=False)
    *before, last = check_run(config)
    assert (last.what, last.state) == ("network", State.problem)
    assert last.change
    assert {check.what for check in before} == {"device", "cores"}


@pytest.mark.slow
def test_what_does_not_fit_says_a_batch_that_does() -> None:
    config = tiny_config(**LITE0, train__batch_size=1024, model__image_size=256, engine__workers=0)
    config.train.device = "cpu"  # type: ignore[assignment]
    needed = memory_needed(config, footprint_of(config), cuda=False)
    assert needed.total(1) > 50 * GB
    batch = largest_batch(config, 8 * GB, cuda=False)
    assert batch is not None
    for size_, fits in ((batch, True), (2 * batch, False)):
        smaller = tiny_config(**LITE0, train__batch_size=size_, model__image_size=256)
        assert (memory_needed(smaller, footprint_of(smaller), cuda=False).worker <= 8 * GB) is fits
    assert largest_batch(config, 10**6, cuda=False) is None


def test_a_machine_too_small_is_told_what_to_change() -> None:
    """No machine here has the memory of a million networks."""
    config = tiny_config(engine__workers=10**6)
    [check, *_] = check_memory(config, FOUND)
    assert check.state is State.problem
    assert check.change.startswith("engine.workers=")
    fewer = tiny_config(engine__workers=int(check.change.removeprefix("engine.workers=")))
    assert check_memory(fewer, FOUND)[0].state is State.ok


def test_disk_grows_with_what_is_kept() -> None:
    def runs(**changes: object) -> int:
        return disk_needed(tiny_config(rounds=10, **changes), FOUND, slices=100, sites=4).runs

    assert runs(run__keep=Keep.last) < runs() < runs(strategy__name="fedadam")
    assert runs(strategy__name="scaffold") - runs() >= 4 * 10 * FOUND.model
    config = Config()
    assert disk_needed(config, FOUND, slices=200, sites=4).prepared == 2 * disk_needed(config, FOUND, 100, 4).prepared
    Path("prepared/demo").mkdir(parents=True)
    assert disk_needed(config, FOUND, slices=200, sites=4).prepared == 0


def test_a_disk_too_small_and_a_folder_that_is_none_are_problems(tmp_path: Path) -> None:
    vast = tiny_config(rounds=10**9)
    checks = {check.what: check for check in check_disk(vast, FOUND)}
    assert checks["paths.runs"].state is State.problem
    assert "run.keep=last" in checks["paths.runs"].change
    Path("file").touch()
    vast.paths.runs = "file/runs"
    checks = {check.what: check for check in check_disk(vast, FOUND)}
    assert "is no folder" in checks["paths.runs"].found


def test_a_run_without_room_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    small = tiny_config()
    check_space(small)
    assert not any(tmp_path.iterdir())
    vast = tiny_config(rounds=10**9)
    with pytest.raises(
        ValueError, match=r"^paths\.runs: runs/ needs about .* GB; .* free; free .* or say run\.keep=last$"
    ):
        check_space(vast)
    assert not any(tmp_path.iterdir())


def test_what_is_there_needs_no_room_again() -> None:
    def needed(config: Config) -> tuple[int, int]:
        found = disk_needed(config, FOUND, slices=10**6, sites=2)
        return found.sites, found.runs

    config = tiny_config(rounds=10, run__name="r", resume=True)
    packed = Path(config.paths.sites) / cohort_name(config) / "site-1" / "packed"
    sites, runs = needed(config)
    packed.mkdir(parents=True)
    (packed / "32-0123.npy").write_bytes(bytes(1000))
    (packed / "64-0123.npy").write_bytes(bytes(50))  # of another size
    (Path(config.paths.runs) / "r").mkdir(parents=True)
    (Path(config.paths.runs) / "r" / "state").write_bytes(bytes(700))
    assert needed(config) == (sites - 1000, runs - 700)


@pytest.mark.parametrize(
    ("changes", "runs"),
    [({"baseline": Baseline.gap}, 6), ({"stage": Stage.both}, 2), ({"stage": Stage.stacking, "stacking__folds": 3}, 4)],
)
def test_runs_inside_a_run_need_room_each(changes: dict[str, object], runs: int) -> None:
    one = disk_needed(tiny_config(), FOUND, slices=10, sites=4).runs
    assert disk_needed(tiny_config(**changes), FOUND, slices=10, sites=4).runs == runs * one


def test_data_is_looked_for_where_simulate_would() -> None:
    assert states(check_data(Config())) == {"prepared": State.ok}  # the demo is drawn
    config = tiny_config(data__name="mine")
    [check] = check_data(config)
    assert (check.state, check.change.split()[2]) == (State.problem, "fl_rsna.prepare")
    tiny_prepared(Path("prepared/mine"))
    [check] = each("data", lambda: check_data(config))
    assert check.state is State.problem  # images without prepare.json: no prepared data


def test_dicom_is_tried_before_hours_are_spent_on_it() -> None:
    config = tiny_config(data__name="mine", data__dicom="dicom", data__labels="labels.csv")
    assert states(check_data(config)) == {"data.dicom": State.problem}  # nothing there
    for number in range(3):
        write_tiny(Path(f"dicom/{number}.dcm"), f"ID_{number}", f"p{number}")
    labels_csv(Path("labels.csv"), {f"ID_{number}": None for number in range(3)})
    assert states(check_data(config)) == {"data.dicom": State.ok}
    Path("dicom/1.dcm").write_bytes(b"no slice")
    [check] = check_data(config)
    assert (check.state, "1 of 3 tried" in check.found, "1.dcm" in check.found) == (State.warning, True, True)
    for number in range(3):
        Path(f"dicom/{number}.dcm").write_bytes(b"no slice")
    assert states(check_data(config)) == {"data.dicom": State.problem}


def test_a_runs_name_that_is_taken_is_a_problem() -> None:
    config = tiny_config(run__name="first")
    assert states(check_run_folder(config)) == {"run.name": State.ok}
    Path("runs/first").mkdir(parents=True)
    assert states(check_run_folder(config)) == {"run.name": State.problem}
    config.resume = True
    assert states(check_run_folder(config)) == {"run.name": State.warning}
    Path("runs/first/manifest.json").touch()
    assert states(check_run_folder(config)) == {"run.name": State.ok}


def test_a_refusal_is_a_line_with_what_to_do() -> None:
    def refuse() -> list[Check]:
        raise ValueError("data.name: expected a, got b; do c; or d")

    assert each("data", refuse) == [
        Check(what="data", state=State.problem, found="data.name: expected a, got b; do c", change="or d")
    ]


@pytest.mark.parametrize(("count", "said"), [(0, "0 MB"), (99e6, "99 MB"), (1e8, "0.1 GB"), (2.34e9, "2.3 GB")])
def test_sizes_are_said_as_people_say_them(count: float, said: str) -> None:
    assert size(count) == said


def typed(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "fl_rsna.doctor", *arguments], capture_output=True, text=True)


def test_the_command_says_a_line_a_check_and_exits_by_its_verdict(tmp_path: Path) -> None:
    Path("file").touch()
    arguments = [f"model={ModelName.efficientnet_lite0}", "engine.workers=0", "train.device=cpu", "paths.runs=file"]
    wrong = typed(*arguments)
    lines = wrong.stdout.splitlines()
    assert wrong.returncode == 1
    assert wrong.stderr == "error: a run with these settings would not work here: paths.runs\n"
    assert all(line.split()[0] in list(State) for line in lines)
    assert sum(line.startswith("problem  paths.runs: ") for line in lines) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


@pytest.mark.slow
def test_no_problem_is_exit_code_0_and_words_that_cannot_be_read_2() -> None:
    right = typed("engine.workers=0", "train.device=cpu")
    assert (right.returncode, right.stderr, right.stdout.splitlines()[-1][:10]) == (0, "", "no problem")
    unknown = typed("modell=x")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1)
