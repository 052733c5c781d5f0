"""The ServerApp: the rounds of a run behind any engine's Grid."""

import shlex
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fl_rsna.cohort.sites import Cohort, read_cohort
from fl_rsna.compose import compose_config
from fl_rsna.config import Config
from fl_rsna.federation.rounds import run_rounds
from fl_rsna.learning.train import choose_device
from fl_rsna.runs import RunFolder, default_run_name, start_run

Story = Callable[[Grid, Config, Cohort, RunFolder], None]


def make_server_app(
    prepare: Callable[[Context], tuple[Config, Cohort, RunFolder]], story: Story = run_rounds
) -> ServerApp:
    """A ServerApp that gets its configuration, cohort and run folder from `prepare` when it starts, then tells `story`."""
    app = ServerApp()

    @app.main()
    def _main(grid: Grid, context: Context) -> None:
        config, cohort, run = prepare(context)
        story(grid, config, cohort, run)

    return app


def _from_run_config(context: Context) -> tuple[Config, Cohort, RunFolder]:
    """What `flwr run . --run-config 'cohort="..." runs="..." overrides="rounds=3"'` asks for."""
    asked = {name: str(context.run_config.get(name) or "") for name in ("cohort", "runs", "overrides")}
    for name in ("cohort", "runs"):
        if not Path(asked[name]).is_absolute():
            raise ValueError(
                f"run-config {name}: expected an absolute path, got {asked[name]!r}; pass --run-config '{name}=\"/...\"'"
            )
    config, cohort = compose_config(shlex.split(asked["overrides"])), read_cohort(Path(asked["cohort"]))
    folder = Path(asked["runs"]) / (config.run.name or default_run_name())
    return config, cohort, start_run(folder, config, cohort, str(choose_device(config.train.device)), ())


app = make_server_app(_from_run_config)
