"""Which story a configuration asks for, in every engine."""

from fl_rsna.choices import Baseline, Stage
from fl_rsna.config import Config
from fl_rsna.federation.baselines import run_alone
from fl_rsna.federation.rounds import run_rounds
from fl_rsna.federation.server_app import Story
from fl_rsna.federation.stacking import run_stacking


def story_of(config: Config) -> Story:
    match config.stage:
        case Stage.stacking:
            return run_stacking
        case _:
            return run_alone if config.baseline is Baseline.local else run_rounds
