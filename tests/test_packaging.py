"""What is installed from a wheel, and Flower's own way of starting the apps."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from composed import compose_config
from package import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.simulation.simulation import run_federation


def test_a_wheel_carries_conf_and_templates_and_composes_from_them(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    package, conf = tmp_path / "installed" / "fl_rsna", ROOT / "conf"
    [metadata] = (tmp_path / "installed").glob("*.dist-info/METADATA")
    assert "# fl_rsna" in metadata.read_text()
    assert not re.search(r"\]\((?!https?:)", metadata.read_text())  # a relative link leads nowhere on a package index
    installed = {path.relative_to(package).as_posix() for path in package.rglob("*.*")}
    assert {f"conf/{path.relative_to(conf).as_posix()}" for path in conf.rglob("*.yaml")} <= installed
    assert "reporting/templates/report.html.j2" in installed
    code = (
        "from fl_rsna.settings.compose import compose_config; from fl_rsna.settings.reference import conf_folder; "
        "from fl_rsna.strategies.find import STRATEGIES; "
        "compose_config(['experiment=ct_ich'], STRATEGIES); print(conf_folder())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == str(tmp_path / "installed" / "fl_rsna" / "conf"), done.stderr


def read_pins(name: str) -> dict[str, str]:
    """The exact version of every package in a file of pins, by its normalized name."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", (ROOT / name).read_text(), re.MULTILINE)
    return {canonicalize_name(package): version for package, version in found}


LOCKS = ("requirements.lock", "requirements-torch.lock")


def test_the_locks_pin_what_the_package_needs_at_the_tested_versions() -> None:
    """python scripts/lock.py writes them again."""
    locked = {package: version for name in LOCKS for package, version in read_pins(name).items()}
    tested = read_pins("constraints.txt")
    assert {package: tested[package] for package in locked if package in tested} == {
        package: version for package, version in locked.items() if package in tested
    }
    facts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for needed in map(Requirement, facts["dependencies"]):
        assert needed.specifier.contains(locked[canonicalize_name(needed.name)]), needed
    assert "torch" not in read_pins(LOCKS[0]), "another build of torch can be installed first"


@pytest.mark.parametrize("name", LOCKS)
def test_every_pin_of_a_lock_has_a_hash_and_no_address(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text
    pins = [line for line in text.replace("\\\n", " ").splitlines() if not line.startswith("#")]
    assert all(re.search(r" --hash=sha256:[0-9a-f]{64}\b", pin) for pin in pins)
    assert len(pins) == len(read_pins(name))


WITHOUT_RAY = """
import runpy, sys
from hidden_package import hide_package
with hide_package("ray"):
    runpy.run_module("fl_rsna.simulate", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
def test_a_simulation_needs_no_ray(cohort: Cohort, tmp_path: Path) -> None:
    """In a process that never had ray, with two worker processes."""
    arguments = "rounds=1 model.name=tiny model.pretrained=false model.image_size=32 train.batch_size=8 run.name=bare data.name=tiny"
    folders = [f"paths.sites={cohort.folder.parent}", f"partition.name={cohort.folder.name}", "engine.workers=2"]
    search = os.pathsep.join([str(ROOT / "tests" / "support"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_RAY, *arguments.split(), *folders],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "runs" / "bare" / "summary.json").read_text())
    assert len(summary["model_sha256"]) == 64


@pytest.fixture
def flower_home(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment for `flwr run` with ports and a home of its own; the SuperLink it leaves running is ended."""
    ports = [str(free_port()) for _ in range(2)]
    home = tmp_path / "flower"
    yield {
        **os.environ,
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": ports[0],
        "FLWR_LOCAL_CONTROL_API_PORT": ports[1],
        "RAY_USAGE_STATS_ENABLED": "0",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().decode()
        except OSError:
            continue
        if "flower-superlink" in arguments and str(home) in arguments:
            os.kill(int(process.name), signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds the SuperLink to end by /proc")
def test_flwr_run_gives_the_model_simulate_gives(cohort: Cohort, tmp_path: Path, flower_home: dict[str, str]) -> None:
    settings = "rounds=1 model.image_size=32 train.batch_size=8 model.name=efficientnet_lite0"
    asked = f'cohort="{cohort.folder}" runs="{tmp_path / "runs"}" overrides="{settings} run.name=flower"'
    command = ["flwr", "run", ".", "--stream", "--run-config", asked]
    command += ["--federation-config", "num-supernodes=3 client-resources-num-cpus=1"]
    for _ in range(4):  # Flower gives its SuperLink 15 s to start, which a loaded machine may need for the imports
        done = subprocess.run(command, cwd=ROOT, env=flower_home, capture_output=True, text=True, timeout=300)
        if "Failed to start local SuperLink" not in done.stdout + done.stderr:
            break
    assert (tmp_path / "runs" / "flower" / "summary.json").exists(), done.stdout + done.stderr
    local = compose_config([*settings.split(), "data.name=tiny", "engine.workers=0"])
    run_federation(local, cohort, tmp_path / "runs" / "local", ())
    hashes = {
        json.loads((tmp_path / "runs" / name / "summary.json").read_text())["model_sha256"]
        for name in ("flower", "local")
    }
    assert len(hashes) == 1


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
