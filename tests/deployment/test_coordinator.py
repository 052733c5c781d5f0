"""A coordinated run: what is asked of the server, what its events mean, and the whole thing at real sites."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from composed import compose_config
from tiny import LITE0, rewrite_site, tiny_cohort, tiny_config

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.common.command_end import EndKind, RunFailed
from fl_rsna.deployment.coordinator import (
    authority,
    cohort_asked,
    folder_asked,
    patiently,
    raise_for,
    raise_refusal,
    sync_keys,
)
from fl_rsna.deployment.flower_internals import control
from fl_rsna.deployment.keys.key_folder import demo_files, write_new
from fl_rsna.deployment.server_app import check_deployable, refusal
from fl_rsna.deployment.site_node import free_port
from fl_rsna.run_folder.run_folder import RunFolder, start_run
from fl_rsna.settings.config import Config
from fl_rsna.settings.runtime import EngineName
from fl_rsna.settings.stages import Baseline, Stage
from fl_rsna.simulation.simulation import run_federation


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Two sites, each of which is several processes where it is started; tests must not change them."""
    return tiny_cohort(tmp_path_factory.mktemp("two"), num_sites=2)


def config_at(folder: Path, **changes: object) -> Config:
    config = tiny_config(**changes)
    config.paths.sites, config.paths.runs = str(folder / "sites"), str(folder / "runs")
    return config


def test_the_only_cohort_is_taken_and_of_several_none(cohort: Cohort, tmp_path: Path) -> None:
    config = config_at(tmp_path)
    with pytest.raises(ValueError, match=r"partition\.name: .* there is none"):
        cohort_asked(config)
    for name in ("one", "two"):
        (tmp_path / "sites" / name).mkdir(parents=True)
        (tmp_path / "sites" / name / "cohort.json").write_bytes((cohort.folder / "cohort.json").read_bytes())
        if name == "one":
            assert cohort_asked(config).sha256 == cohort.sha256
    with pytest.raises(ValueError, match="there is one, two; say which"):
        cohort_asked(config)
    config.partition.name = "two"
    assert cohort_asked(config).folder == tmp_path / "sites" / "two"


def test_a_run_that_is_there_is_resumed_only_when_asked(tmp_path: Path) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    config = config_at(tmp_path, run__name="mine")
    with pytest.raises(ValueError, match="expected a new run"):
        folder_asked(config)
    config.resume = True
    assert folder_asked(config) == tmp_path / "runs" / "mine"


@pytest.mark.parametrize("baseline", [Baseline.central, Baseline.gap])
def test_pooling_is_refused(baseline: Baseline) -> None:
    with pytest.raises(ValueError, match=r"baseline: expected none or local"):
        check_deployable(tiny_config(baseline=baseline))


def test_no_simulation_is_a_deployment(cohort: Cohort, tmp_path: Path) -> None:
    config = tiny_config(engine__name=EngineName.deployment)
    with pytest.raises(ValueError, match=r"engine\.name: .* fl_rsna\.coordinate"):
        run_federation(config, cohort, tmp_path / "run", ())
    assert not (tmp_path / "run").exists()


def test_without_the_authority_nothing_is_asked(tmp_path: Path) -> None:
    config = config_at(tmp_path)
    config.deploy.ca = str(tmp_path / "none.crt")
    with pytest.raises(ValueError, match=r"deploy\.ca: .*none\.crt"):
        authority(config.deploy)


def test_a_superlink_that_does_not_come_is_a_failed_run() -> None:
    config = tiny_config()
    config.deploy.patience_s = 0.0

    def unreachable() -> None:
        raise ConnectionRefusedError("nobody there")

    with pytest.raises(RunFailed, match=r"no SuperLink at 127\.0\.0\.1:9092 for 0 s \(nobody there\)"):
        patiently(config.deploy, unreachable)


REFUSED = {"event": "run_failed", "kind": "refused", "reason": "roll call: expected cohort a, got b at site-2"}


@pytest.mark.parametrize("left", ["nothing", "a round", "notes", "found empty"])
def test_a_refused_run_leaves_nothing_unless_it_had_a_round(cohort: Cohort, tmp_path: Path, left: str) -> None:
    """Of a folder that was made for this coordinator; what somebody else put there stays."""
    folder = tmp_path / "run"
    if left == "found empty":
        folder.mkdir()
    run = start_run(folder, tiny_config(resume=True), cohort, "cpu", (), token="ours")
    run.event("run_failed", kind="refused", reason="why")
    if left == "a round":
        (run.checkpoints / "state.safetensors").write_bytes(b"")
    if left == "notes":
        (folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="got b at site-2"):
        raise_for(REFUSED, folder, "ours")
    there = sorted(path.name for path in folder.iterdir()) if folder.exists() else None
    whole = ["checkpoints", "config.yaml", "events.jsonl", "manifest.json", "owner.json"]
    assert there == {"nothing": None, "found empty": [], "notes": ["notes.txt", "owner.json"], "a round": whole}[left]


@pytest.mark.parametrize("made_by", ["another coordinator", "nobody"])
def test_a_refusal_leaves_a_folder_that_was_not_made_for_this_coordinator(
    cohort: Cohort, tmp_path: Path, made_by: str
) -> None:
    folder = tmp_path / "run"
    if made_by == "nobody":
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "config.yaml").write_text("mine")
    else:
        start_run(folder, tiny_config(), cohort, "cpu", (), token="theirs")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="got b at site-2"):
        raise_for(REFUSED, folder, "ours")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_other_ends_of_a_run_are_failures(tmp_path: Path) -> None:
    for kind in set(EndKind) - {EndKind.refused}:
        with pytest.raises(RunFailed, match="why"):
            raise_for({"event": "run_failed", "kind": kind.value, "reason": "why"}, tmp_path, "ours")
    raise_for({"event": "round_end", "round": 1}, tmp_path, "ours")


def test_why_the_server_s_part_would_not_touch_a_folder_is_read_once(tmp_path: Path) -> None:
    path = refusal(tmp_path / "run", "ours")
    path.write_text("run.name: expected a run, got what is none")
    with pytest.raises(ValueError, match="got what is none"):
        raise_refusal(path)
    raise_refusal(path)


SETTINGS = "rounds=2 model.image_size=32 train.batch_size=8 tracking=none"


class Federation:
    """The commands of a deployment, started as people do, on loopback."""

    def __init__(self, folder: Path, cohort: Cohort, stack: ExitStack) -> None:
        self.folder, self.cohort, self.stack, self.port = folder, cohort, stack, free_port()
        self.keys = folder / "certificates"
        write_new(self.keys, demo_files(self.keys, ["localhost"], list(cohort.sites)))

    def start(self, name: str, *arguments: str, log: str = "") -> subprocess.Popen[bytes]:
        return self.stack.enter_context(running(self.folder / f"{log or name}.log", name, *arguments))

    def superlink(self) -> subprocess.Popen[bytes]:
        arguments = ["--certificates", str(self.keys / "superlink"), "--state", str(self.folder / "superlink")]
        return self.start("superlink", *arguments, "--host", "127.0.0.1", "--port", str(self.port))

    def site(self, name: str) -> subprocess.Popen[bytes]:
        return self.start("site", *self.place(name), log=name)

    def place(self, name: str) -> list[str]:
        arguments = ["--folder", str(self.cohort.site_folder(name)), "--state", str(self.folder / name)]
        return [*arguments, "--keys", str(self.keys / "sites" / name), "--superlink", f"localhost:{self.port}"]

    def check(self, name: str) -> dict[str, str]:
        """What site --check says of each thing that it looks at."""
        command = [sys.executable, "-m", "fl_rsna.site", *self.place(name), "--check"]
        ended = subprocess.run(command, capture_output=True, text=True)
        found = [line.split(maxsplit=2) for line in ended.stdout.splitlines()]
        return {arguments[1].rstrip(":"): arguments[0] for arguments in found}

    def list_status(self) -> list[str]:
        """The status of every key at the SuperLink."""
        with control(f"localhost:{self.port}", (self.keys / "superlink" / "ca.crt").read_bytes()) as api:
            return [node.status for node in api.nodes()]

    def wait_until_it_answers(self) -> None:
        looked = threading.Event()
        for _ in range(600):
            with suppress(httpx.HTTPError):
                self.list_status()
                return
            looked.wait(0.1)
        pytest.fail((self.folder / "superlink.log").read_text())

    def coordinate(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        asked = [f"deploy.superlink=localhost:{self.port}", f"deploy.ca={self.keys / 'superlink' / 'ca.crt'}"]
        asked += [f"deploy.authorized={self.keys / 'authorized'}", f"paths.runs={self.folder / 'runs'}"]
        asked += [f"paths.sites={self.cohort.folder.parent}", f"partition.name={self.cohort.folder.name}"]
        command = [sys.executable, "-m", "fl_rsna.coordinate", *shlex.split(SETTINGS), *asked, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=400)


@contextmanager
def running(log: Path, command: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command of ours in a session of its own, which ends with it."""
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", f"fl_rsna.{command}", *arguments],
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        end(process, signal.SIGKILL)


def end(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """Everything the command started goes with it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, how)
    process.wait(60)


@pytest.mark.slow
def test_between_machines_it_is_the_model_of_simulate(cohort: Cohort, tmp_path: Path) -> None:
    """A site's key is known once it is registered; to ask for it changes nothing, neither before the site is there nor after the run."""
    folder, first = tmp_path / "runs" / "between", next(iter(cohort.sites))
    with ExitStack() as stack:
        federation = Federation(tmp_path, cohort, stack)
        federation.superlink()
        federation.wait_until_it_answers()
        assert federation.check(first)["registered"] == "problem"
        address, ca = f"localhost:{federation.port}", federation.keys / "superlink" / "ca.crt"
        sync_keys(address, ca, federation.keys / "authorized")
        before = federation.list_status()
        assert federation.check(first)["registered"] == "ok"
        assert federation.list_status() == before == ["registered"] * 2
        assert not (tmp_path / first).exists()
        for name in cohort.sites:
            federation.site(name)
        done = federation.coordinate("run.name=between")
        assert done.returncode == 0, done.stdout + done.stderr + logs_in(tmp_path)
        assert federation.check(first)["registered"] == "ok"
        assert federation.list_status() == ["online"] * 2
    assert (tmp_path / f"{first}.log").read_text().startswith(f"{first} of cohort")
    assert not any('"resumed"' in line for line in lines_of(folder))
    assert (folder / "report.html").exists()
    assert_like_a_simulation(folder, cohort, tmp_path / "here")


@pytest.mark.extra
@pytest.mark.slow
def test_a_superlink_that_is_killed_and_started_again_changes_nothing(cohort: Cohort, tmp_path: Path) -> None:
    """It is killed after round 1 with all that it started. The coordinator waits for it and goes on."""
    folder = tmp_path / "runs" / "between"
    with ExitStack() as stack:
        federation = Federation(tmp_path, cohort, stack)
        first = federation.superlink()
        for name in cohort.sites:
            federation.site(name)

        def kill_after_round_1() -> None:
            looked = threading.Event()
            while not any('"round_end"' in line and '"round": 1,' in line for line in lines_of(folder)):
                looked.wait(0.1)
            end(first, signal.SIGKILL)
            federation.superlink()

        killer = threading.Thread(target=kill_after_round_1, daemon=True)
        killer.start()
        done = federation.coordinate("run.name=between")
        assert done.returncode == 0, done.stdout + done.stderr + logs_in(tmp_path)
        killer.join(60)
        again = federation.coordinate("run.name=between", "resume=true")  # it is over: only the report is made again
        assert again.returncode == 0
        assert "report:" in again.stdout
    assert any('"resumed"' in line for line in lines_of(folder))
    assert_like_a_simulation(folder, cohort, tmp_path / "here")


def assert_like_a_simulation(folder: Path, cohort: Cohort, here: Path) -> None:
    """The run in `folder` has the model and the scores of the same run in this process, written to `here`."""
    run_federation(compose_config([*shlex.split(SETTINGS), "data.name=tiny", "engine.workers=0"]), cohort, here, ())
    alike = [RunFolder(path).read_json("summary.json") for path in (folder, here)]
    assert [summary["engine"] for summary in alike] == ["deployment", "local"]
    assert alike[0]["model_sha256"] == alike[1]["model_sha256"]
    assert alike[0]["test_site"]["slice"]["any"] == alike[1]["test_site"]["slice"]["any"]


def logs_in(folder: Path) -> str:
    """The end of each log, for a test that fails."""
    return "".join(f"== {path.name}\n{path.read_text()[-2000:]}" for path in sorted(folder.glob("*.log")))


@pytest.mark.extra
@pytest.mark.slow
def test_both_stages_run_between_machines_one_after_the_other(cohort: Cohort, tmp_path: Path) -> None:
    """Over one SuperLink, from one command; and what is finished is only reported."""
    folder, arguments = (
        tmp_path / "runs" / "staged",
        ["stage=both", "sequence.width=16", "model.image_size=24", "rounds=1"],
    )
    with ExitStack() as stack:
        federation = Federation(tmp_path, cohort, stack)
        federation.superlink()
        for name in cohort.sites:
            federation.site(name)
        done = federation.coordinate("run.name=staged", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr + logs_in(tmp_path)
        again = federation.coordinate("run.name=staged", "resume=true", *arguments)
    assert (again.returncode, "head over the series alone" in again.stdout) == (0, True)
    config = config_at(
        tmp_path, **LITE0, stage=Stage.both, sequence__width=16, model__image_size=24, rounds=1, model__recalibrate=True
    )
    run_federation(config, cohort, tmp_path / "here", ())
    for part in ("slice", "."):
        alike = [RunFolder(path / part).read_json("summary.json") for path in (folder, tmp_path / "here")]
        assert [summary["engine"] for summary in alike] == ["deployment", "local"]
        assert alike[0]["model_sha256"] == alike[1]["model_sha256"]


def lines_of(run: Path) -> list[str]:
    path = run / "events.jsonl"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.extra
@pytest.mark.slow
def test_a_site_of_another_cohort_is_refused_with_the_reason(cohort: Cohort, tmp_path: Path) -> None:
    other = tmp_path / "other" / "site-1"
    other.mkdir(parents=True)
    for name in ("site.json", "index.csv"):
        shutil.copyfile(cohort.site_folder("site-1") / name, other / name)
    rewrite_site(other, cohort_sha256="0" * 64)
    (other / "images").symlink_to(cohort.site_folder("site-1") / "images")
    with ExitStack() as stack:
        federation = Federation(tmp_path, cohort, stack)
        federation.superlink()
        for name in cohort.sites[1:]:
            federation.site(name)
        arguments = [
            "--folder",
            str(other),
            "--state",
            str(tmp_path / "site-1"),
            "--keys",
            str(federation.keys / "sites" / "site-1"),
        ]
        stack.enter_context(
            running(tmp_path / "site-1.log", "site", *arguments, "--superlink", f"localhost:{federation.port}")
        )
        done = federation.coordinate("run.name=refused")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "got 000000000000 at site-1" in done.stderr
    assert not (tmp_path / "runs" / "refused").exists()
