"""Make the ServerApp, which runs a federated training behind the Grid of any engine; the run's settings select its kind."""

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
    """Make a ServerApp that gets configuration, cohort and run folder from `prepare` when it starts, and then runs `story`.

    An error is recorded in the run's folder, whichever thread of an engine it is raised in.
    """
    app = ServerApp()

    @app.main()
    def _main(grid: Grid, context: Context) -> None:
        config, cohort, run = prepare(context)
        with end_in_folder(run, config):
            story(grid, config, cohort, run)

    return app


def select_entry(config: Config) -> Story:
    """Select the function that runs this kind of run: a stacking, every site alone, or a federation."""
    match config.stage:
        case Stage.stacking:
            return run_stacking
        case _:
            return run_alone if config.baseline is Baseline.local else run_rounds
