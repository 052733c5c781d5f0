"""Config is the whole configuration of a command: the groups, each declared in a file beside this one, and the settings in no group.

The YAML files in conf/ only choose values.
"""

from dataclasses import dataclass, field

from fl_rsna.settings.data import DataConfig, DemoConfig, PrepareConfig
from fl_rsna.settings.federation import FaultsConfig, LinkConfig, PrivacyConfig
from fl_rsna.settings.fields import NOT_NEGATIVE, Need, at_least, declare
from fl_rsna.settings.model import ModelConfig
from fl_rsna.settings.partition import PartitionConfig
from fl_rsna.settings.runtime import DeployConfig, EngineConfig, PathsConfig, RunConfig, TrackingConfig
from fl_rsna.settings.stages import Baseline, SequenceConfig, StackingConfig, Stage, trains_slices
from fl_rsna.settings.strategy import StrategyConfig
from fl_rsna.settings.training import MatchConfig, TrainConfig

ROUNDS = Need(
    "stage=slice, both or stacking, or sequence.rounds=null, which replaces it",
    lambda asked: trains_slices(asked) or asked.config.sequence.rounds is None,
)


@dataclass(kw_only=True, slots=True)
class Config:
    """Every setting of every command, by group."""

    data: DataConfig = field(default_factory=DataConfig)
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    demo: DemoConfig = field(default_factory=DemoConfig)
    partition: PartitionConfig = field(default_factory=PartitionConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    match: MatchConfig = field(default_factory=MatchConfig)
    sequence: SequenceConfig = field(default_factory=SequenceConfig)
    stacking: StackingConfig = field(default_factory=StackingConfig)
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    faults: FaultsConfig = field(default_factory=FaultsConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    network: LinkConfig = field(default_factory=LinkConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    deploy: DeployConfig = field(default_factory=DeployConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    run: RunConfig = field(default_factory=RunConfig)
    rounds: int = declare(
        10, "number of rounds; in each, sites train and the server aggregates", within=at_least(1), needs=(ROUNDS,)
    )
    seed: int = declare(0, "seed of every random draw in a run", within=NOT_NEGATIVE)
    baseline: Baseline = declare(
        Baseline.none, "what the run trains: the federation, a baseline to compare it with, or all of them"
    )
    start: str | None = declare(
        None, "run folder or model file; the run starts from its weights instead of the initial model"
    )
    allow_unknown_patients: bool = declare(
        False, "run although it cannot be checked whether the test site's patients were trained on"
    )
    predict: str | None = declare(
        None, "prepared set that the final model scores after the report, into submission.csv of the run folder"
    )
    stage: Stage = declare(
        Stage.slice, "which model is trained: of single slices, of whole series, both, or by stacking"
    )
    resume: bool = declare(False, "continue the run run.name where it was interrupted")
