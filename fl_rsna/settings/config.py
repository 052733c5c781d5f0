"""Every setting, once: its name, type and default. The files under conf/ only choose values."""

from dataclasses import dataclass, field
from typing import Any

from fl_rsna.settings.choices import (
    Averaging,
    Baseline,
    Boosting,
    Correction,
    Crop,
    Device,
    EngineName,
    Group,
    HeadName,
    ImageKind,
    Keep,
    LabelWeights,
    Layout,
    Loss,
    Lost,
    ModelName,
    Norm,
    Optimizer,
    PartitionKind,
    Precision,
    PrepareEngine,
    Sampling,
    Schedule,
    Select,
    Stacker,
    Stage,
    StrategyName,
    Trainable,
    Weighting,
    Window,
)
from fl_rsna.task import ICH, TaskName, find_task

TEST_SITE = "test-site"  # the name of the held-out site, which no training site may have


@dataclass(kw_only=True, slots=True)
class DataConfig:
    name: str = ICH.demo  # folder under paths.prepared; the task's `demo` is drawn when none is given
    dicom: str | None = None  # folder searched recursively, Kaggle's zip, or a CSV or Parquet list with a column `path`
    labels: str | None = (
        None  # CSV or Parquet: Kaggle's long form, wide or SIIM's two; default: those beside data.dicom's images
    )
    task: TaskName = TaskName.ich  # chosen by task=, with what suits it; fl_rsna/task.py
    size: int = 256  # pixels a side of the stored PNG
    image: ImageKind = ImageKind.hu
    hash_ids: bool = True  # patient, study and series ids leave prepare as salted hashes
    salt: str = ""  # of those hashes; sites of one consortium share it
    max_rejected: float = 1.0  # share of files that may be rejected before the whole request is refused
    unlabelled: bool = False  # prepare without labels: to be scored, not trained on
    unannotated: list[str] = field(default_factory=list)  # labels that data.labels does not have; for own_site alone
    test_set: bool = True  # prepare stage_2_test, where it lies beside stage_2_train, as <name>-test without labels


@dataclass(kw_only=True, slots=True)
class PrepareConfig:
    """What converts the files; the result is the same for every choice."""

    engine: PrepareEngine = PrepareEngine.local
    workers: int = 0  # processes; 0 is one a core (local) or what the cluster has (ray)


@dataclass(kw_only=True, slots=True)
class DemoConfig:
    """The synthetic cohort that stands in when the task's demo was never prepared."""

    patients: int = 100
    slices_per_series: int = 20  # of CT; a radiograph is one image
    size: int = 256  # pixels a side of the synthetic DICOM
    seed: int = 2019


@dataclass(kw_only=True, slots=True)
class PartitionConfig:
    kind: PartitionKind = PartitionKind.iid
    name: str | None = None  # folder under paths.sites; default: data.name, kind, sites and a hash of the settings
    num_sites: int = 4  # scanner and origin: at most; explicit: as many as the file names
    alpha: float = 0.5  # dirichlet: small is uneven
    sigma: float = 1.0  # quantity: of the log-normal of site sizes; 0 is even
    lacking: int = 1  # specialist: labels that none of a site's patients has
    assignment: str | None = None  # explicit: CSV with the columns patient and site; site test-site is the test site
    test: Any = 0.2  # share of the patients, name of a dealt site, list of patients, or path of a file of patients
    folds: int | None = None  # deal the patients into folds first; fold number `fold` is the test site
    fold: int = 0
    validation: float = 0.2  # share of a site's patients
    group: Group = Group.patient  # what is dealt as one piece; series and slice leak, to reproduce published splits
    seed: int = 0
    layout: Layout = (
        Layout.standard
    )  # s0 adds the tables and folders of the RSNA preprocessing S0; cohort/sites/s0_layout.py
    allow_missing_labels: bool = False  # go on although a label has no positive patient at all
    noise: dict[str, Any] = field(
        default_factory=dict
    )  # site, or all -> labels, hu_shift, hu_noise, blur, unannotated (cohort/sites/noise.py)


@dataclass(kw_only=True, slots=True)
class ModelConfig:
    name: ModelName = ModelName.efficientnet_lite0
    pretrained: bool = True  # ImageNet weights; packaged for efficientnet_lite0 only
    image_size: int = 96  # pixels a side the network sees
    norm: Norm = Norm.average
    norm_momentum: float = 0.1  # weight of a batch in BatchNorm's running statistics
    recalibrate: bool = (
        True  # with norm=average: BatchNorm's statistics are estimated anew for the final model, at every site
    )
    dropout: float = 0.2  # before the last layer
    kept_negatives: float = (
        1.0  # share that was drawn of slices without the union label; set by the run, never by words
    )
    class_weights: list[float] = field(default_factory=list)  # of classes in the loss, given back; set by the run alone
    backbone: str | None = None  # with name=timm: one of timm.list_models()
    weights: str | None = (
        None  # file of a state dict to start from: .safetensors, .pth or .pt; only the server reads it
    )
    neighbours: int = 0  # slices of the series seen on each side of a slice; 1 is 2.5D
    window: Window = Window.fixed
    crop: Crop = Crop.none
    tta: int = 1  # views of a slice whose probabilities are averaged; learning/models/tta.py has them


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    trainable: Trainable = Trainable.all
    local_epochs: int = 1
    local_steps: int | None = None  # exactly so many instead of epochs
    batch_size: Any = 16  # or auto: the largest that fits, checks/batch_size.py
    optimizer: Optimizer = Optimizer.adamw
    momentum: float = 0.0  # sgd
    learning_rate: float = 2e-3
    schedule: Schedule = Schedule.cosine
    layer_decay: float = 1.0  # the rate falls by this factor a stage, from the last layer down; 1 is one rate
    weight_decay: float = 1e-4
    flip: bool = True
    rotate_deg: float = 15.0
    zoom: float = 0.1
    shift: float = 0.05  # of the image side
    hu_shift: float = 10.0  # HU, uniform in +-
    hu_noise: float = 0.0  # HU * (1 + e), e uniform in +-: water stays, air too
    brightness: float = 0.0  # of images without HU, windows and films: a share of white, uniform in +-
    contrast: float = 0.0  # and (grey - middle) * (1 + e), e uniform in +-
    cutout: float = 0.0  # side of one square of air in each image, as a share of the image's
    mixup: float = 0.0  # alpha of the beta distribution that images and labels are mixed by; 0 is off
    mixup_share: float = 0.4  # of batches, if any is mixed
    smooth_z: int = 1  # labels are means over so many neighbouring slices of a series, an odd number
    label_smoothing: float = 0.0  # share of a label that is spread evenly over what else it might be
    soft_between: float = 0.0  # label of a negative slice between a series' first and last positive one
    loss: Loss = Loss.bce
    focal_gamma: float = 2.0
    label_weights: LabelWeights = LabelWeights.task
    sampling: Sampling = Sampling.all
    negatives: float = 1.0  # under: drawn for each positive, over all sites
    correction: Correction = Correction.prior  # under, weighted
    device: Device = Device.auto
    amp: bool = True  # bf16 autocast, on CUDA only
    select: Select = Select.best
    patience: int | None = None  # stop after so many rounds without a lower validation loss


@dataclass(kw_only=True, slots=True)
class MatchConfig:
    """The prevalence to train for, which the user states: shares of positive slices, e.g. {any: 0.14, epidural: 0.004}.

    Where labels are rarer or more common at the receiving site than in the federation, their positive and negative slices
    count in the loss as often as they occur there. `evaluate ... shift=true` estimates the shares from unlabelled slices and
    prints the words. Labels of a test set must never be the source.
    """

    prevalence: dict[str, float] = field(default_factory=dict)  # of labels not named: as in the training slices


@dataclass(kw_only=True, slots=True)
class SequenceConfig:
    """The stage after the slice model: a head that looks along a series; what else it is trained with is under train."""

    encoder: str | None = None  # run folder or .safetensors file of the slice model; stage=both makes its own
    head: HeadName = HeadName.gru
    width: int = 128  # of what the head keeps of a slice
    layers: int = 2
    dropout: float = 0.2
    rounds: int | None = None  # null: as many as `rounds`
    learning_rate: float = 2e-3
    local_epochs: int = 2
    batch_size: int = 4  # series
    copies: int = 2  # of the training slices that the encoder sees: one as it is, the others augmented


@dataclass(kw_only=True, slots=True)
class StackingConfig:
    """With stage=stacking: slice models that each leave out one fold of every site's patients, and a second model on them."""

    folds: int = 3  # of every site's training patients; as many slice models
    left_out: int | None = None  # with stage=slice: the fold, from 0, that every site leaves out; null is none
    stacker: Stacker = Stacker.xgboost
    rounds: int = 40  # of the second model
    method: Boosting = Boosting.bagging
    learning_rate: float = 0.1  # of a round's trees together
    depth: int = 4  # of a tree
    min_child_weight: float = 1.0  # sum of p (1 - p) of the slices in a leaf, at least
    l2: float = 1.0
    rows: float = 0.8  # share of the site's slices that a tree sees
    columns: float = 0.3  # share of the features


@dataclass(kw_only=True, slots=True)
class StrategyConfig:
    name: StrategyName = StrategyName.fedavg
    fraction: float = 1.0  # of the sites, sampled each round
    min_sites: int = 1  # sampled at least
    weighting: Weighting = Weighting.examples
    quorum: float = 0.5  # share of the sampled sites that must reply, or the run stops
    timeout_s: float = 3600.0  # deployment: for the replies of one phase of a round, and for sites that are not there
    lost: Lost = Lost.go_on  # what is done about a site that went away
    max_update: float = 10.0  # an update larger than so many times the model's own norm is refused as exploded
    averaging: Averaging = Averaging.none
    ema_decay: float = 0.9
    window: int = 3  # rounds
    server_learning_rate: float = 1.0
    server_schedule: Schedule = Schedule.constant
    server_momentum: float = 0.9  # fedavgm
    beta_1: float = 0.9  # fedadam, fedyogi
    beta_2: float = 0.99  # fedadam, fedyogi
    tau: float = 1e-3  # fedadagrad, fedadam, fedyogi: their adaptivity
    trim: float = 0.2  # fedtrimmedavg: share cut off at each end
    malicious: int = 1  # krum, multikrum, bulyan: sites at most that may send anything
    chosen: int = 2  # multikrum: sites averaged
    q: float = 0.1  # qfedavg: 0 is even-handed, more favours sites with a high loss
    mu: float = 0.01  # fedprox, moon: weight of their term
    temperature: float = 0.5  # moon
    alpha: float = 0.01  # feddyn
    personal: float = 0.1  # ditto: pull of a site's own model towards the global one
    adjustment: float = 1.0  # fedavg_logit_adjusted: 0 is fedavg


@dataclass(kw_only=True, slots=True)
class FaultsConfig:
    """Faults to simulate; what each does is in federation/protocol/simulated.py."""

    dropout: float = 0.0  # chance that a site is out of reach for a round
    stragglers: float = 0.0  # chance that a site is slow in a round
    slowdown: float = 10.0  # how many times as long a straggler's steps take
    deadline_s: float | None = None  # virtual seconds after which a reply is too late
    sites: dict[str, str] = field(default_factory=dict)  # e.g. {site-2: crash@3, site-1: nan@2-4}


@dataclass(kw_only=True, slots=True)
class PrivacyConfig:
    """What sites keep to themselves; a site may have a floor of its own. federation/protocol/minimum_count.py has the rules."""

    min_count: int = 0  # no count from 1 to one less leaves a site; 0 is off


@dataclass(kw_only=True, slots=True)
class LinkConfig:
    """In how many bytes models travel; and the links, machines and prices of virtual time, where nothing is slowed down."""

    down_mbit: float = 100.0  # Mbit/s from the server to each site
    up_mbit: float = 20.0
    latency_s: float = 0.05  # one way
    step_s: float = 0.2  # seconds a training step takes at a site of speed 1
    speeds: dict[str, float] = field(default_factory=dict)  # e.g. {site-2: 0.5}
    downtime: dict[str, float] = field(
        default_factory=dict
    )  # share of the time a site is out of reach, e.g. {site-2: 0.1}
    precision_down: Precision = Precision.fp32  # of the model that goes to the sites
    precision_up: Precision = Precision.fp32  # of what comes back
    usd_per_gigabyte: float = 0.0  # of traffic, both ways
    usd_per_hour: float = 0.0  # of one site's machine while a round lasts


@dataclass(kw_only=True, slots=True)
class EngineConfig:
    name: EngineName = EngineName.local
    workers: int | None = None  # processes; 0 runs every site in this one (local); null is one a CUDA device, else two
    gpus_per_worker: float | None = None  # ray: 0.5 puts two on a GPU; null shares all GPUs out evenly
    address: str | None = None  # ray: of a running cluster, host:port or auto, whose every node sees cohort and run


@dataclass(kw_only=True, slots=True)
class DeployConfig:
    """Where `coordinate` finds the SuperLink beside it, and the keys of the sites it admits."""

    superlink: str = "127.0.0.1:9092"  # host:port
    ca: str = "certificates/superlink/ca.crt"  # of the authority that signed the SuperLink's certificate
    authorized: str = "certificates/authorized"  # folder of the sites' public keys, <site>.pub; others are turned away
    patience_s: float = 600.0  # how long a SuperLink may be out of reach
    first_timeout_s: float = 21600.0  # for the answers to the first message, before which a site packs its images
    attempts: int = 5  # at one round, when the server's part is lost


@dataclass(kw_only=True, slots=True)
class TrackingConfig:
    """Where a run's numbers go besides its own files. No picture, no id and no path of a file ever does."""

    tensorboard: bool = True  # event files in runs/<name>/tensorboard
    mlflow: bool = False
    mlflow_uri: str | None = None  # of a server or a database all runs share; default: a database in the run's folder
    wandb: bool = False  # Weights & Biases, offline: into the run's folder
    wandb_online: bool = False  # send it to the service one is logged in to
    project: str = "fl_rsna"  # name of the experiment, the project and the registered model


@dataclass(kw_only=True, slots=True)
class PathsConfig:
    prepared: str = "prepared"
    sites: str = "site_data"
    runs: str = "runs"


@dataclass(kw_only=True, slots=True)
class RunConfig:
    name: str | None = None  # folder under paths.runs; default: date and time
    keep: Keep = Keep.all


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
    rounds: int = 10
    seed: int = 0
    baseline: Baseline = Baseline.none
    start: str | None = None  # run folder or model file whose weights a run begins with, instead of the initial model
    allow_unknown_patients: bool = False  # go on where nobody can tell whether the test site's patients took part
    predict: str | None = None  # prepared set that the final model predicts after the report; submission.csv in the run
    stage: Stage = Stage.slice
    resume: bool = False  # go on with run.name where it was killed


def is_demo(config: Config) -> bool:
    """The data are those that are drawn when none are given."""
    return config.data.name == find_task(config.data.task).demo
