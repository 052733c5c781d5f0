"""Settings of the data: which files are prepared, how, and the synthetic cohort that is used without any."""

from dataclasses import dataclass
from enum import StrEnum

from fl_rsna.settings.fields import NOT_NEGATIVE, SHARE, Asked, Command, Need, at_least, declare
from fl_rsna.settings.partition import finds_ids
from fl_rsna.task import ICH, OURS, Rendering, find_task


class ImageKind(StrEnum):
    """The encoding of an image in a prepared PNG."""

    hu = "hu"  # one 16-bit channel, HU + 1024
    windows = "windows"  # three 8-bit channels: brain, subdural, soft tissue in R, G, B
    grey = "grey"  # one 16-bit channel of a radiograph, 0 black to 65535 white


class PrepareEngine(StrEnum):
    """The machine or machines that convert files."""

    local = "local"  # processes on this machine
    ray = "ray"  # a Ray cluster whose machines share a file system


def kinds_of(rendering: Rendering) -> tuple[ImageKind, ...]:
    """List the kinds of PNG that can store images of this rendering, the default first."""
    match rendering:
        case Rendering.hounsfield:
            return ImageKind.hu, ImageKind.windows
        case Rendering.radiograph:
            return (ImageKind.grey,)


def _prepares(asked: Asked) -> bool:
    """Say whether the command converts files to images, the user's or synthetic ones."""
    data: DataConfig = asked.config.data
    return asked.command in (Command.prepare, Command.simulate) and (data.dicom is not None or is_demo(data))


OF_PREPARE = Need("python -m fl_rsna.prepare or simulate", lambda asked: asked.command is not Command.assign)
OF_FILES = Need("data.dicom, whose files it is about", lambda asked: asked.config.data.dicom is not None)
IMAGES = Need("images to prepare: data.dicom, or the synthetic cohort", _prepares)
IDS = Need(
    "ids to hash or to find: data.dicom, partition=explicit, or patients in partition.test",
    lambda asked: _prepares(asked) or finds_ids(asked),
)
HASHED = Need("data.hash_ids=true", lambda asked: asked.config.data.hash_ids)
DEMO = Need(
    "no data of yours: the synthetic cohort is drawn only without data.name and data.dicom",
    lambda asked: is_demo(asked.config.data) and asked.config.data.dicom is None,
)
OF_SLICES = Need(
    "a task of slices: a synthetic film has none",
    lambda asked: find_task(asked.config.data.task).rendering is Rendering.hounsfield,
)


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """Settings of the data that are prepared or used."""

    name: str = declare(ICH.demo, "folder under paths.prepared; default: the task's demo, a synthetic cohort")
    dicom: str | None = declare(
        None,
        "where the files are: a folder (searched with its subfolders), Kaggle's zip, or a CSV or Parquet table with a column `path`",
        needs=(OF_PREPARE,),
    )
    labels: str | None = declare(
        None,
        "CSV or Parquet file of labels in Kaggle's long form, in wide form, or SIIM's pair of files; default: the one beside data.dicom",
        needs=(OF_PREPARE, OF_FILES),
    )
    task: str = declare(
        "ich", "what is learned (fl_rsna/task.py); choose it with task=<name>, which also sets what goes with it"
    )
    size: int = declare(256, "side of the stored PNG, in pixels", within=at_least(16), needs=(OF_PREPARE, IMAGES))
    image: ImageKind = declare(ImageKind.hu, "how a stored PNG holds an image", needs=(OF_PREPARE, IMAGES))
    hash_ids: bool = declare(True, "replace patient, study and series ids by salted hashes", needs=(IDS,), off=(False,))
    salt: str = declare(
        "", "secret that ids are hashed with; all sites of a consortium use the same one", needs=(IDS, HASHED)
    )
    max_rejected: float = declare(
        1.0,
        "largest share of files that may be rejected; above it the command fails",
        within=SHARE,
        needs=(OF_PREPARE, OF_FILES),
        off=(1,),
    )
    unlabelled: bool = declare(
        False,
        "prepare without labels; such a set can be scored, not trained on",
        needs=(OF_PREPARE, OF_FILES),
        off=(False,),
    )
    unannotated: list[str] = declare(
        [], "labels that data.labels lacks; only for python -m fl_rsna.own_site", needs=(OF_PREPARE, OF_FILES)
    )
    test_set: bool = declare(
        True,
        "where stage_2_test lies beside stage_2_train, prepare it, too, as <name>-test without labels",
        needs=(OF_PREPARE, OF_FILES),
        off=(False,),
    )


@dataclass(kw_only=True, slots=True)
class PrepareConfig:
    """Settings of the conversion of files. The prepared set is the same for every choice."""

    engine: PrepareEngine = declare(PrepareEngine.local, "where files are converted", needs=(OF_FILES,))
    workers: int = declare(
        0,
        "number of processes that convert files; 0: one per core (local) or all that the cluster has (ray)",
        within=NOT_NEGATIVE,
        needs=(IMAGES,),
    )


@dataclass(kw_only=True, slots=True)
class DemoConfig:
    """Settings of the synthetic cohort, which is drawn when no data are given and the task's demo is not prepared yet."""

    patients: int = declare(100, "number of patients of the synthetic cohort", within=at_least(1), needs=(DEMO,))
    slices_per_series: int = declare(
        20,
        "number of slices of a synthetic CT series; a radiograph is one image",
        within=at_least(1),
        needs=(DEMO, OF_SLICES),
    )
    size: int = declare(256, "side of the synthetic DICOM images, in pixels", within=at_least(16), needs=(DEMO,))
    seed: int = declare(2019, "seed of the synthetic cohort", within=NOT_NEGATIVE, needs=(DEMO,))


def is_demo(data: DataConfig) -> bool:
    """Say whether `data` names the task's synthetic demo. A task of another package has none."""
    return data.task in OURS and data.name == find_task(data.task).demo


def check_data(data: DataConfig) -> None:
    """Raise ValueError when data.labels is given together with data.unlabelled=true."""
    if data.unlabelled and data.labels is not None:
        raise ValueError(
            f"data.labels: expected nothing with data.unlabelled=true, got {data.labels}; leave one of them out"
        )
