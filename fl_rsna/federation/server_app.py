"""The ServerApp: the rounds of a run behind any engine's Grid."""

from collections.abc import Callable

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fl_rsna.cohort.sites import Cohort
from fl_rsna.config import Config
from fl_rsna.federation.rounds import run_rounds
from fl_rsna.run_end import end_in_folder
from fl_rsna.runs import RunFolder

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
