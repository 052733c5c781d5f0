"""The ServerApp: the rounds of a run behind any engine's Grid. A run's settings say which of its kinds it is."""

from collections.abc import Callable

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.federation.server.rounds import run_rounds
from fl_rsna.federation.server.scoring.baselines import run_alone
from fl_rsna.federation.stacking.run import run_stacking
from fl_rsna.run_folder.run_end import end_in_folder
from fl_rsna.run_folder.run_folder import RunFolder
from fl_rsna.settings.config import Config
from fl_rsna.settings.stages import Baseline, Stage

Story = Callable[[Grid, Config, Cohort, RunFolder], None]


def make_server_app(
    prepare: Callable[[Context], tuple[Config, Cohort, RunFolder]], story: Story = run_rounds
) -> ServerApp:
    """A ServerApp that gets its configuration, cohort and run folder from `prepare` when it starts, then tells `story`.

    What ends it stands in the run's folder, whichever thread of an engine it is in.
    """
    app = ServerApp()

    @app.main()
    def _main(grid: Grid, context: Context) -> None:
        config, cohort, run = prepare(context)
        with end_in_folder(run, config):
            story(grid, config, cohort, run)

    return app


def select_entry(config: Config) -> Story:
    match config.stage:
        case Stage.stacking:
            return run_stacking
        case _:
            return run_alone if config.baseline is Baseline.local else run_rounds
