"""Write a run to Weights & Biases: its settings, numbers by round, final numbers with intervals, and the model with its hash.

By default it is offline: everything lies in wandb/ of the run's folder, and `wandb sync` sends it if one wants to.
"""

import os
from pathlib import Path

from fl_rsna.common.ownership import drop_folder
from fl_rsna.reporting.trackers.points import Values, settings
from fl_rsna.settings.config import Config

FOLDER = "wandb"
NOBODY = "fl_rsna"  # instead of the names of machine, user and script
SEPARATE = {"WANDB_CACHE_DIR": "cache", "WANDB_DATA_DIR": "data", "WANDB_CONFIG_DIR": "config"}


class WandbRun:
    """A run in Weights & Biases. Offline, it is written again when the run is resumed; online, no round is sent twice."""

    def __init__(self, run: Path, config: Config, key: str) -> None:
        online, home = config.tracking.wandb_online, (run / FOLDER).resolve()
        if not online:
            for earlier in home.glob(f"offline-run-*-{key}"):  # of this run: its rounds that count are logged again
                drop_folder(earlier)
        home.mkdir(exist_ok=True)
        os.environ.update({name: str(home / folder) for name, folder in SEPARATE.items()})
        os.environ["WANDB_ERROR_REPORTING"] = "false"
        import wandb

        self._home = home
        quiet = wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            disable_job_creation=True,
            x_disable_stats=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            host=NOBODY,
            username=NOBODY,
            program=NOBODY,
            email=None,
        )
        self._artifact, self._teardown = wandb.Artifact, wandb.teardown
        self._run = wandb.init(
            project=config.tracking.project,
            name=run.name,
            id=key,
            config=settings(config),
            dir=str(run.resolve()),
            mode="online" if online else "offline",
            resume="allow" if online else None,
            settings=quiet,
        )
        self._run.define_metric("*", step_metric="round")
        self._last = int(self._run.summary.get("round", -1)) if online else -1  # type: ignore[no-untyped-call]

    def log(self, round_: int, values: Values, time_s: float) -> None:
        if round_ > self._last:
            self._run.log({"round": round_, **values})

    def finish(self, round_: int, values: Values, model: Path, sha256: str | None) -> None:
        """Write the final numbers into the run's summary, and log the model as an artifact."""
        self._run.summary.update(values)
        if sha256 is None or not model.exists():
            return
        artifact = self._artifact(f"model-{self._run.id}", "model", metadata={"sha256": sha256})
        artifact.add_file(str(model))
        self._run.log_artifact(artifact)

    def close(self, status: str) -> None:
        """End the run, and wait for the helper process of W&B, which writes the file last."""
        self._run.finish(exit_code=0 if status == "finished" else 1)
        self._teardown()
        for logs in self._home.glob(f"*run-*-{self._run.id}/logs"):  # of W&B itself: with paths and the machine's name
            drop_folder(logs)
