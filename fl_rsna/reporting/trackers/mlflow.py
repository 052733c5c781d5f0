"""Write a run to MLflow: its settings, numbers by round, final numbers with intervals, and the model as a registered version.

By default this is a SQLite database and files in mlflow/ of the run's folder, without a server or a network. Runs share one
with `tracking.mlflow_uri`, e.g. sqlite:////data/mlflow.db or https://mlflow.example.org. A new database is made by one process
alone, under another name, so that several runs may begin at once and a killed one leaves no half-made database.
"""

import contextlib
import logging
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # read when MLflow is imported
os.environ["DO_NOT_TRACK"] = "true"

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from fl_rsna.common.atomic import replace_whole
from fl_rsna.common.ownership import hold_lock
from fl_rsna.reporting.trackers.points import Values, flat_settings
from fl_rsna.settings.config import Config

FOLDER = "mlflow"
KEY = "fl_rsna.run"  # tag by which a run that goes on finds its record
LAST = "loss/test"  # a number that every round has: its steps are the rounds that MLflow has
PARAMS, METRICS = 100, 1000  # at once, MLflow's limits
FORBIDDEN = re.compile(r"[^\w\-. /]")  # in names
SQLITE = "sqlite:///"
WAIT_S = 300.0  # at most, while another run makes or changes the database


class MlflowRun:
    """A run in MLflow, new or continued; rounds that MLflow has are not written twice. Making one takes seconds."""

    def __init__(self, run: Path, config: Config, key: str) -> None:
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._project, uri = config.tracking.project, config.tracking.mlflow_uri
        if uri is None:
            home = (run / FOLDER).resolve()
            home.mkdir(exist_ok=True)
            uri = f"{SQLITE}{home / 'mlflow.db'}"
        path = uri.removeprefix(SQLITE)  # of a server, and of a database that is named in another way, no file is known
        is_file = path not in (uri, "", ":memory:") and "?" not in path
        self._database = Path(path).absolute() if is_file else None
        artifacts = None
        if self._database is not None:
            artifacts = (self._database.parent / "artifacts").as_uri()
            uri = f"{SQLITE}{self._database}?timeout={WAIT_S:.0f}"  # of SQLite, while another run writes
        with self._alone():
            if self._database is not None:
                _make(self._database)
            self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            experiment = self._experiment(artifacts)
        known = self._client.search_runs([experiment], f"tags.`{KEY}` = '{key}'")
        self._last = -1
        if known:
            self._id = known[0].info.run_id
            self._last = max((metric.step for metric in self._client.get_metric_history(self._id, LAST)), default=-1)
            self._client.update_run(self._id, status="RUNNING")
            return
        self._id = self._client.create_run(experiment, run_name=run.name, tags={KEY: key}).info.run_id
        params = [Param(name, value) for name, value in flat_settings(config).items()]
        for start in range(0, len(params), PARAMS):
            self._client.log_batch(self._id, params=params[start : start + PARAMS])

    def log(self, round_: int, values: Values, time_s: float) -> None:
        if round_ > self._last:
            self._metrics(round_, values, time_s)

    def finish(self, round_: int, values: Values, model: Path, sha256: str | None) -> None:
        """Log the final numbers, and the model as an artifact and as a version of the registered model of the project's name."""
        self._metrics(round_, values, time.time())
        if sha256 is None or not model.exists():
            return
        self._client.set_tag(self._id, "model_sha256", sha256)
        self._client.log_artifact(self._id, str(model), "model")
        source = f"{self._client.get_run(self._id).info.artifact_uri}/model"
        with self._alone():
            with contextlib.suppress(MlflowException):  # it is there already; if not, the next call says why
                self._client.create_registered_model(self._project)
            self._client.create_model_version(self._project, source, self._id, tags={"sha256": sha256})

    def close(self, status: str) -> None:
        self._client.set_terminated(self._id, {"finished": "FINISHED", "failed": "FAILED"}.get(status, "KILLED"))

    def _experiment(self, artifacts: str | None) -> str:
        """Return the id of the project's experiment, or make it; on a server another run may make it at the same time."""
        found = self._client.get_experiment_by_name(self._project)
        if found is None:
            try:
                return self._client.create_experiment(self._project, artifacts)
            except MlflowException:
                found = self._client.get_experiment_by_name(self._project)
                if found is None:
                    raise
        return found.experiment_id

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other runs of this machine from making or naming anything in the same database while the body lasts."""
        if self._database is None:
            yield
            return
        with hold_lock(self._database, wait_s=WAIT_S):
            yield

    def _metrics(self, round_: int, values: Values, time_s: float) -> None:
        found = [
            Metric(FORBIDDEN.sub("_", name), value, round(time_s * 1000), round_) for name, value in values.items()
        ]
        for start in range(0, len(found), METRICS):
            self._client.log_batch(self._id, metrics=found[start : start + METRICS])


def _make(database: Path) -> None:
    """Make a database with MLflow's tables where there is none; it gets its name when it is whole."""
    if database.exists() and database.stat().st_size > 0:
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with replace_whole(database) as part:
        MlflowClient(tracking_uri=f"{SQLITE}{part}").search_experiments(max_results=1)
        with contextlib.closing(sqlite3.connect(part)) as made:
            home = (database.parent / "artifacts").as_uri()
            made.execute("UPDATE experiments SET artifact_location = ?", (home,))  # instead of the current folder
            made.commit()
