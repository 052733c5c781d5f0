"""Where a run takes place: what runs the sites, the deployment's machines, trackers, folders, and what a run folder keeps."""

import re
from dataclasses import dataclass
from enum import StrEnum

from fl_rsna.settings.fields import NOT_NEGATIVE, SHARE, Asked, Need, above, at_least, declare
from fl_rsna.settings.training import Device


class EngineName(StrEnum):
    """What runs the sites: of a simulation, or machines of their own."""

    local = "local"
    ray = "ray"
    deployment = "deployment"  # Flower's SuperLink and SuperNodes; said by the server, never by words


class Keep(StrEnum):
    """Which rounds' models and site memories a run folder keeps."""

    all = "all"  # any site's part in any round can be repeated: python -m fl_rsna.replay
    last = "last"  # what going on after a kill needs


def _shares_gpus(asked: Asked) -> bool:
    return asked.config.engine.name is EngineName.ray and asked.config.train.device is not Device.cpu


ON_GPUS = Need("engine=ray and train.device=auto or cuda", _shares_gpus)
TRACKED = Need(
    "tracking.mlflow=true or tracking.wandb=true",
    lambda asked: asked.config.tracking.mlflow or asked.config.tracking.wandb,
)


@dataclass(kw_only=True, slots=True)
class EngineConfig:
    name: EngineName = declare(EngineName.local, "what runs the sites of a simulation")
    workers: int | None = declare(
        None,
        "processes that train sites; 0 runs every site in this one (local); null is one a CUDA device, else two",
        within=NOT_NEGATIVE.or_null(),
    )
    gpus_per_worker: float | None = declare(
        None,
        "ray: 0.5 puts two on a GPU; null shares all GPUs out evenly",
        within=SHARE.or_null(),
        needs=(ON_GPUS,),
    )
    address: str | None = declare(
        None, "ray: of a running cluster, host:port or auto, whose every node sees cohort and run"
    )


@dataclass(kw_only=True, slots=True)
class DeployConfig:
    """Where `coordinate` finds the SuperLink beside it, and the keys of the sites it admits."""

    superlink: str = declare("127.0.0.1:9092", "host:port of the SuperLink")
    ca: str = declare("certificates/superlink/ca.crt", "certificate of the authority that signed the SuperLink's")
    authorized: str = declare(
        "certificates/authorized", "folder of the sites' public keys, <site>.pub; others are turned away"
    )
    patience_s: float = declare(600.0, "seconds that a SuperLink may be out of reach", within=NOT_NEGATIVE)
    first_timeout_s: float = declare(
        21600.0, "seconds for the answers to the first message, before which a site packs its images", within=above(0)
    )
    attempts: int = declare(5, "attempts at one round, when the server's part is lost", within=at_least(1))


@dataclass(kw_only=True, slots=True)
class TrackingConfig:
    """Where a run's numbers go besides its own files. No picture, no id and no path of a file ever does."""

    tensorboard: bool = declare(True, "event files in runs/<name>/tensorboard")
    mlflow: bool = declare(False, "MLflow, into a database or to a server")
    mlflow_uri: str | None = declare(
        None, "address of a server or a database that all runs share; default: a database in the run's folder"
    )
    wandb: bool = declare(False, "Weights & Biases, offline: into the run's folder")
    wandb_online: bool = declare(False, "send it to the service one is logged in to")
    project: str = declare("fl_rsna", "name of the experiment, the project and the registered model", needs=(TRACKED,))


@dataclass(kw_only=True, slots=True)
class PathsConfig:
    prepared: str = declare("prepared", "folder of prepared sets")
    sites: str = declare("site_data", "folder of cohorts")
    runs: str = declare("runs", "folder of run folders")


@dataclass(kw_only=True, slots=True)
class RunConfig:
    name: str | None = declare(None, "folder under paths.runs; default: date and time")
    keep: Keep = declare(Keep.all, "which rounds' models and site memories a run folder keeps")


def check_engine(engine: EngineConfig) -> None:
    """Refuse an address nobody can answer at, and a number of workers where the cluster decides it."""
    if engine.address is None:
        return
    if engine.name is not EngineName.ray:
        raise ValueError(
            f"engine.address: expected nothing with engine={engine.name}, got {engine.address}; say engine=ray"
        )
    if engine.address != "auto" and not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^:/\s]+):\d+", engine.address):
        raise ValueError(
            f"engine.address: expected host:port of a Ray cluster's head or auto, got {engine.address!r}; ray status shows it"
        )
    if engine.workers is not None:
        raise ValueError(
            f"engine.workers: expected nothing beside engine.address, whose cluster has one worker a CPU, or as many as "
            f"engine.gpus_per_worker allows, got {engine.workers}; leave it out"
        )


def check_tracking(tracking: TrackingConfig) -> None:
    """Refuse an address nobody uses and a name that services cannot take."""
    if tracking.mlflow_uri is not None and not tracking.mlflow:
        raise ValueError(
            f"tracking.mlflow_uri: expected nothing without MLflow, got {tracking.mlflow_uri}; say tracking=mlflow"
        )
    if tracking.wandb_online and not tracking.wandb:
        raise ValueError("tracking.wandb_online: expected false without Weights & Biases, got true; say tracking=wandb")
    if not re.fullmatch(r"[\w.-]{1,128}", tracking.project, re.ASCII):
        raise ValueError(
            f"tracking.project: expected letters, digits, dots, dashes and underscores, got {tracking.project!r}"
        )
