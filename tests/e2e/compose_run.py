"""Containers and runs as compose_faults.py handles them: what is asked of the engine, and what a run's folder says.

COMPOSE, COMPOSE_PROJECT_NAME and FL_IMAGE come from compose_e2e.sh. Only Python's own library is used.
"""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMPOSE = os.environ.get("COMPOSE", "docker compose").split()
PROJECT = os.environ.get("COMPOSE_PROJECT_NAME", Path.cwd().name)
LIMIT_S = float(os.environ.get("LIMIT_S", "300"))  # for the next thing to happen; later is called a hang
LOOK_S = 0.25

Event = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A run with the coordinator that is at it, in a container of its own."""

    name: str
    coordinator: "subprocess.Popen[bytes]"

    @property
    def log(self) -> Path:
        return Path(f"{self.name}.log")


@dataclass(frozen=True)
class Ending:
    code: int | None  # None: not in time
    said: str  # the last line; docker-compose 1.29 adds the code


def start(name: str, arguments: list[str]) -> Run:
    """Begin a run, or with resume=true go on with it."""
    command = [*COMPOSE, "run", "--rm", "-T", "coordinator", f"run.name={name}", *arguments]
    with Path(f"{name}.log").open("ab") as log:
        return Run(name, subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL))


def events(name: str, kind: str, **fields: Any) -> list[Event]:
    """What the run wrote down of a kind so far; a line that is being written is left for later."""
    path = Path("runs") / name / "events.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    wanted = {"event": kind, **fields}
    return [event for line in lines if wanted.items() <= (event := json.loads(line)).items()]


def wait_for(run: Run, kind: str, more_than: int = 0, **fields: Any) -> bool:
    """Whether it happened (once more than so often), in time and before the coordinator left."""
    end = time.monotonic() + LIMIT_S
    while len(events(run.name, kind, **fields)) <= more_than:
        if time.monotonic() > end or run.coordinator.poll() is not None:
            return len(events(run.name, kind, **fields)) > more_than
        time.sleep(LOOK_S)
    return True


def ending(run: Run) -> Ending:
    code = None
    try:
        code = run.coordinator.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        run.coordinator.kill()
    lines = (line.strip() for line in run.log.read_text(errors="replace").splitlines())
    said = [line for line in lines if line and not line.isdecimal()]
    return Ending(code, said[-1] if said else "nothing")


def model_of(name: str) -> str:
    """The first digits of the hash of a finished run's model."""
    path = Path("runs") / name / "summary.json"
    return str(json.loads(path.read_text()).get("model_sha256"))[:12] if path.exists() else "none"


def call(*arguments: str) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments[:6])}: {done.stderr.strip()[-300:]}")
    return done.stdout.strip()


def compose(*arguments: str) -> str:
    return call(*COMPOSE, *arguments)


def container(service: str) -> str:
    """The id of a service's container, running or not."""
    labels = (f"com.docker.compose.project={PROJECT}", f"com.docker.compose.service={service}")
    found = call("docker", "ps", "-aq", *(argument for label in labels for argument in ("--filter", f"label={label}")))
    return found.split()[0]


def kill(*services: str) -> None:
    for service in services:
        call("docker", "kill", "--signal", "KILL", container(service))


@contextmanager
def instead(service: str, said: dict[str, Any], volumes: dict[str, Any] | None = None) -> Iterator[None]:
    """A site with other lines in docker-compose.yml; its own again afterwards."""
    Path("other.json").write_text(json.dumps({"services": {service: said}, "volumes": volumes or {}}))
    anew = ("up", "-d", "--no-deps", "--force-recreate", "--timeout", "2", service)
    try:
        compose("-f", "docker-compose.yml", "-f", "other.json", *anew)
        yield
    finally:
        compose(*anew)
