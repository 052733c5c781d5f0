"""Run the server's side of a deployment, between machines or under `flwr run`, and write the run folder.

Nobody reads this process' screen, so whatever ends the run is written to its events, which the coordinator reads.
"""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fl_rsna.checks.batch_size import AUTO
from fl_rsna.cohort.sites.site_folders import Cohort, read_cohort
from fl_rsna.common.atomic import write_whole
from fl_rsna.common.command_end import EndKind, end_of
from fl_rsna.common.ownership import hold_lock
from fl_rsna.federation.protocol.failures import scrub_failure
from fl_rsna.federation.server_app import select_entry
from fl_rsna.federation.stages import stages
from fl_rsna.learning.training.train import choose_device, settle_process
from fl_rsna.reporting.trackers.follow import track_run
from fl_rsna.run_folder.run_end import Describe, end_in_folder
from fl_rsna.run_folder.run_folder import RunFolder, default_run_name, is_begun, is_finished, start_run
from fl_rsna.settings.compose import compose_config
from fl_rsna.settings.config import Config
from fl_rsna.settings.effects import describe_need, without_effect
from fl_rsna.settings.fields import Asked, Command
from fl_rsna.settings.partition import TEST_SITE
from fl_rsna.settings.runtime import EngineName
from fl_rsna.settings.stages import Baseline, Stage
from fl_rsna.strategies.find import STRATEGIES

ASKED = ("cohort", "runs", "overrides")  # the keys of Flower's run-config
TOKEN = "owner"  # the key by which a coordinator proves that a folder was made for it
WITHOUT_EFFECT = "without-effect"  # the key of the settings without effect in the whole run, as JSON

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Play the run that `flwr run . --run-config 'cohort="..." runs="..." overrides="rounds=3"'` asks for; a finished run stays as it is.

    Whatever ends the run is written to its events, then raised.
    """
    config, cohort, folder = read_run_config(context)
    token = str(context.run_config.get(TOKEN) or "") or None
    asked = str(context.run_config.get(WITHOUT_EFFECT) or "")
    own = Asked(config=config, command=Command.coordinate, image=cohort.image)
    without = json.loads(asked) if asked else without_effect(own)
    for part, where in stages(config, folder):
        _play(grid, part, cohort, where, token, without)


def _play(
    grid: Grid, config: Config, cohort: Cohort, folder: Path, token: str | None, without: Mapping[str, str]
) -> None:
    settle_process()
    with hold_lock(folder):
        begins = not is_begun(folder)
        try:
            run = start_run(folder, config, cohort, str(choose_device(config.train.device)), (), token, without)
        except ValueError as error:
            if token is not None:
                write_whole(refusal(folder, token), str(error).encode())
            raise
        for key, need in without.items() if begins and config.stage is not Stage.sequence else ():
            run.event("warning", text=describe_need(key, need))
        if not is_finished(folder):
            with track_run(run, config):
                act(grid, config, cohort, run)


def refusal(folder: Path, token: str) -> Path:
    """Return the file in which the coordinator that gave `token` reads why its run was refused.

    The file lies beside the run's folder, because that may be another run's.
    """
    return folder.with_name(f".refused-{token}.txt")


def act(grid: Grid, config: Config, cohort: Cohort, run: RunFolder) -> None:
    """Play the run, and write to its events what ended it, without any of the test site's data.

    A signal from Flower raises SystemExit, which is not written: the coordinator asks for the run again, and it goes on.
    """
    with end_in_folder(run, config, describe_beside(cohort, run.folder)):
        select_entry(config)(grid, config, cohort, run)


def describe_beside(cohort: Cohort, folder: Path) -> Describe:
    """Make the function that turns an error into the texts for events and error.log.

    The texts leave out whatever could name a patient of the test site, whose data lie at the server.
    """

    def describe(error: BaseException) -> tuple[str, str]:
        end, said = end_of(error), scrub_failure(error, (cohort.folder / TEST_SITE,), RunFolder(folder).site_memory)
        own_sentence = end.kind in (EndKind.refused, EndKind.failed)
        return end.reason if own_sentence else said.error, said.traceback

    return describe


def read_run_config(context: Context) -> tuple[Config, Cohort, Path]:
    """Read the configuration, the cohort at the server and the run's folder from Flower's run-config. Raises ValueError."""
    asked = {name: str(context.run_config.get(name) or "") for name in ASKED}
    for name in ("cohort", "runs"):
        if not Path(asked[name]).is_absolute():
            raise ValueError(
                f"run-config {name}: expected an absolute path, got {asked[name]!r}; pass --run-config '{name}=\"/...\"'"
            )
    config = compose_config(shlex.split(asked["overrides"]), STRATEGIES)
    check_deployable(config)
    config.engine.name = EngineName.deployment
    return config, read_cohort(Path(asked["cohort"])), Path(asked["runs"]) / (config.run.name or default_run_name())


def check_deployable(config: Config) -> None:
    """Raise ValueError for settings that only one machine can meet: pooling the sites' data, and reading the memory of all sites."""
    if config.baseline not in (Baseline.none, Baseline.local):
        raise ValueError(
            f"baseline: expected none or local, got {config.baseline}; pooling needs all sites' data in one place, use python -m fl_rsna.simulate"
        )
    if config.train.batch_size == AUTO:
        raise ValueError(
            f"train.batch_size: expected a number between machines, whose memories nobody compares, got {AUTO}; say the number "
            "that the smallest site can take: python -m fl_rsna.doctor train.batch_size=auto there tells it"
        )
