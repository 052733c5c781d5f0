"""Settings of where and how a run is carried out: the engine, the deployment, trackers, paths, and the run folder."""

import importlib.util
import re
from dataclasses import dataclass
from enum import StrEnum

from fl_rsna.settings.fields import NOT_NEGATIVE, SHARE, Need, above, at_least, declare
from fl_rsna.settings.training import Device


class EngineName(StrEnum):
    """The engine that runs the sites: one of the simulation, or machines of their own."""

    local = "local"
    ray = "ray"
    deployment = "deployment"  # Flower's SuperLink and SuperNodes; set by the server, never typed


class Keep(StrEnum):
    """The rounds whose models and site memories a run folder keeps."""

    all = "all"  # every round; any site's part in any of them can be repeated with python -m fl_rsna.replay
    last = "last"  # only what resume=true needs


ON_GPUS = Need(
    "engine=ray and train.device=auto or cuda",
    lambda asked: asked.config.engine.name is EngineName.ray and asked.config.train.device is not Device.cpu,
)
TRACKED = Need(
    "tracking.mlflow=true or tracking.wandb=true",
    lambda asked: asked.config.tracking.mlflow or asked.config.tracking.wandb,
)


@dataclass(kw_only=True, slots=True)
class EngineConfig:
    """Settings of the engine that runs the sites of a simulation."""

    name: EngineName = declare(EngineName.local, "what runs the sites of a simulation")
    workers: int | None = declare(
        None,
        "number of processes that train sites; 0: all sites in this process (local); null: one per CUDA device, or two without any",
        within=NOT_NEGATIVE.or_null(),
    )
    gpus_per_worker: float | None = declare(
        None,
        "ray: GPUs of a worker; 0.5 puts two workers on a GPU; null divides all GPUs evenly",
        within=SHARE.or_null(),
        needs=(ON_GPUS,),
    )
    address: str | None = declare(
        None, "ray: host:port of a running cluster, or auto; all its nodes must see the cohort and the run folder"
    )


@dataclass(kw_only=True, slots=True)
class DeployConfig:
    """Settings of `coordinate`: the address of its SuperLink, certificates, keys of the admitted sites, and time limits."""

    superlink: str = declare("127.0.0.1:9092", "address of the SuperLink, host:port")
    ca: str = declare(
        "certificates/superlink/ca.crt", "certificate of the authority that signed the SuperLink's certificate"
    )
    authorized: str = declare(
        "certificates/authorized", "folder of the sites' public keys, <site>.pub; other sites are refused"
    )
    patience_s: float = declare(
        600.0, "seconds that the SuperLink may be unreachable before the run stops", within=NOT_NEGATIVE
    )
    first_timeout_s: float = declare(
        21600.0,
        "seconds to wait for the answers to the first message; sites pack their images before they answer",
        within=above(0),
    )
    attempts: int = declare(5, "how often a round is tried when the server's process is lost", within=at_least(1))


@dataclass(kw_only=True, slots=True)
class TrackingConfig:
    """Settings of the trackers, which get copies of a run's metrics. They never get an image, an id or a path of a file."""

    tensorboard: bool = declare(True, "write event files for TensorBoard into runs/<name>/tensorboard")
    mlflow: bool = declare(False, "log to MLflow, in a database or on a server")
    mlflow_uri: str | None = declare(
        None, "address of an MLflow server or database for all runs; default: a database in the run folder"
    )
    wandb: bool = declare(False, "log to Weights & Biases, offline, into the run folder")
    wandb_online: bool = declare(
        False, "send the log to the Weights & Biases account that this machine is logged in to"
    )
    project: str = declare(
        "fl_rsna",
        "name of MLflow's experiment, of the project of Weights & Biases, and of the registered model",
        needs=(TRACKED,),
    )


@dataclass(kw_only=True, slots=True)
class PathsConfig:
    """Folders that commands read and write; relative ones start from the working directory."""

    prepared: str = declare("prepared", "folder of prepared sets")
    sites: str = declare("site_data", "folder of cohorts")
    runs: str = declare("runs", "folder of run folders")


@dataclass(kw_only=True, slots=True)
class RunConfig:
    """Settings of the run folder."""

    name: str | None = declare(None, "folder under paths.runs; default: date and time")
    keep: Keep = declare(Keep.all, "rounds whose models and site memories the run folder keeps")


def check_engine(engine: EngineConfig) -> None:
    """Raise ValueError for a cluster's address without Ray or without a port, and for a number of workers beside it."""
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


def check_ray(key: str) -> None:
    """Raise ValueError where the package ray is not installed, for which the value ray of the setting `key` asks."""
    if importlib.util.find_spec("ray") is None:
        raise ValueError(
            f"{key}: expected the package ray, which is not installed; pip install 'fl-rsna[ray]' or say "
            f"{key.removesuffix('.name')}=local"
        )


def check_tracking(tracking: TrackingConfig) -> None:
    """Raise ValueError for settings of a tracker that is off, and for a project name that the services do not accept."""
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
