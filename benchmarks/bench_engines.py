"""Run one of our engines on a benchmark's cohort, and read from its events how long each round took."""

import functools
import itertools
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from flwr.clientapp import ClientApp

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.federation.engines.local import run_local
from fl_rsna.federation.server_app import make_server_app
from fl_rsna.federation.site.client_app import app_for_cohort
from fl_rsna.learning.training.train import settle_process
from fl_rsna.run_folder.run_folder import Listener, start_run
from fl_rsna.settings.config import Config

ENGINES = ("local, workers=0", "local, workers=1", "local, workers=2", "ray, workers=2")

AppOf = Callable[[Path, Path], ClientApp]  # of a cohort's folder and the folder for what its sites remember


def run_engine(
    engine: str,
    config: Config,
    cohort: Cohort,
    folder: Path,
    app_of: AppOf = app_for_cohort,
    listeners: tuple[Listener, ...] = (),
) -> None:
    """A whole run into `folder`, as the command does it; `app_of` must be picklable."""
    settle_process()
    server = make_server_app(lambda context: (config, cohort, start_run(folder, config, cohort, "cpu", listeners)))
    client, workers = functools.partial(app_of, cohort.folder, folder / "site_memory"), int(engine[-1])
    if engine.startswith("ray"):
        from fl_rsna.federation.engines.ray import run_ray

        run_ray(server, client, num_sites=len(cohort.sites), workers=workers, gpus_per_worker=0)
    else:
        run_local(server, client, num_sites=len(cohort.sites), workers=workers)


def events_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def round_seconds(folder: Path) -> list[float]:
    """Seconds from the end of one round to the end of the next, checkpoints and all; round 1 begins where 0 ended."""
    ends = [time_of(event) for event in events_of(folder) if event["event"] == "round_end"]
    return [after - before for before, after in itertools.pairwise(ends)]


def steps_a_round(folder: Path) -> int:
    """Training steps of all sites in round 1."""
    done = [event for event in events_of(folder) if event["event"] == "site_done" and event["round"] == 1]
    return int(sum(event["metrics"].get("steps", 0) for event in done))


def first_step(folder: Path) -> float:
    """The time of day at which the first site began to train."""
    first = next(event for event in events_of(folder) if event["event"] == "site_done")
    return time_of(first) - float(first["metrics"]["seconds"])


def time_of(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()
