"""The whole configuration of a command: a group a file beside this one, and what stands in no group. conf/ only chooses values."""

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
    rounds: int = declare(10, "rounds of training and aggregation", within=at_least(1), needs=(ROUNDS,))
    seed: int = declare(0, "seed of everything that is drawn in a run", within=NOT_NEGATIVE)
    baseline: Baseline = declare(Baseline.none, "what to compare a federation with")
    start: str | None = declare(
        None, "run folder or model file whose weights a run begins with, instead of the initial model"
    )
    allow_unknown_patients: bool = declare(
        False, "go on where nobody can tell whether the test site's patients took part"
    )
    predict: str | None = declare(
        None, "prepared set that the final model predicts after the report; submission.csv in the run"
    )
    stage: Stage = declare(Stage.slice, "what is trained")
    resume: bool = declare(False, "go on with run.name where it was killed")
