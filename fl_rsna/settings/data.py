"""Which files are prepared, how, and the synthetic cohort that stands in for them."""

from dataclasses import dataclass
from enum import StrEnum

from fl_rsna.settings.fields import NOT_NEGATIVE, SHARE, Asked, Command, Need, at_least, declare
from fl_rsna.settings.partition import finds_ids
from fl_rsna.task import ICH, OURS, Rendering, find_task


class ImageKind(StrEnum):
    """What a prepared PNG holds."""

    hu = "hu"  # one 16-bit channel, HU + 1024
    windows = "windows"  # three 8-bit channels: brain, subdural, soft tissue in R, G, B
    grey = "grey"  # one 16-bit channel of a radiograph, 0 black to 65535 white


class PrepareEngine(StrEnum):
    """What converts files."""

    local = "local"  # processes on this machine
    ray = "ray"  # a Ray cluster whose machines share a file system


def kinds_of(rendering: Rendering) -> tuple[ImageKind, ...]:
    """What images of this rendering can be stored as, the usual one first."""
    match rendering:
        case Rendering.hounsfield:
            return ImageKind.hu, ImageKind.windows
        case Rendering.radiograph:
            return (ImageKind.grey,)


def _prepares(asked: Asked) -> bool:
    """Files are made into images: the user's, or synthetic ones."""
    data: DataConfig = asked.config.data
    return asked.command in (Command.prepare, Command.simulate) and (data.dicom is not None or is_demo(data))


OF_PREPARE = Need("python -m fl_rsna.prepare or simulate", lambda asked: asked.command is not Command.deal)
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
    name: str = declare(ICH.demo, "folder under paths.prepared; the task's demo is drawn when none is given")
    dicom: str | None = declare(
        None,
        "folder searched recursively, Kaggle's zip, or a CSV or Parquet list with a column `path`",
        needs=(OF_PREPARE,),
    )
    labels: str | None = declare(
        None,
        "CSV or Parquet: Kaggle's long form, wide or SIIM's two; default: those beside data.dicom's images",
        needs=(OF_PREPARE, OF_FILES),
    )
    task: str = declare("ich", "chosen by task=, with what suits it; fl_rsna/task.py")
    size: int = declare(256, "pixels a side of the stored PNG", within=at_least(16), needs=(OF_PREPARE, IMAGES))
    image: ImageKind = declare(ImageKind.hu, "what a stored PNG holds", needs=(OF_PREPARE, IMAGES))
    hash_ids: bool = declare(
        True, "patient, study and series ids leave prepare as salted hashes", needs=(IDS,), off=(False,)
    )
    salt: str = declare("", "secret of the hashes of ids; sites of one consortium share it", needs=(IDS, HASHED))
    max_rejected: float = declare(
        1.0,
        "share of files that may be rejected before the whole request is refused",
        within=SHARE,
        needs=(OF_PREPARE, OF_FILES),
        off=(1,),
    )
    unlabelled: bool = declare(
        False,
        "prepare without labels: to be scored, not trained on",
        needs=(OF_PREPARE, OF_FILES),
        off=(False,),
    )
    unannotated: list[str] = declare(
        [], "labels that data.labels does not have; for own_site alone", needs=(OF_PREPARE, OF_FILES)
    )
    test_set: bool = declare(
        True,
        "prepare stage_2_test, where it lies beside stage_2_train, as <name>-test without labels",
        needs=(OF_PREPARE, OF_FILES),
        off=(False,),
    )


@dataclass(kw_only=True, slots=True)
class PrepareConfig:
    """What converts the files; the result is the same for every choice."""

    engine: PrepareEngine = declare(PrepareEngine.local, "what converts files", needs=(OF_FILES,))
    workers: int = declare(
        0,
        "processes that convert files; 0 is one a core (local) or what the cluster has (ray)",
        within=NOT_NEGATIVE,
        needs=(IMAGES,),
    )


@dataclass(kw_only=True, slots=True)
class DemoConfig:
    """The synthetic cohort that stands in when the task's demo was never prepared."""

    patients: int = declare(100, "patients of the synthetic cohort", within=at_least(1), needs=(DEMO,))
    slices_per_series: int = declare(
        20, "slices of a synthetic CT series; a radiograph is one image", within=at_least(1), needs=(DEMO, OF_SLICES)
    )
    size: int = declare(256, "pixels a side of the synthetic DICOM", within=at_least(16), needs=(DEMO,))
    seed: int = declare(2019, "seed of the synthetic cohort", within=NOT_NEGATIVE, needs=(DEMO,))


def is_demo(data: DataConfig) -> bool:
    """The data are those that are drawn when none are given; there are none for a task of another package."""
    return data.task in OURS and data.name == find_task(data.task).demo


def check_data(data: DataConfig) -> None:
    """Refuse labels beside a request for none; raises ValueError with the key's path."""
    if data.unlabelled and data.labels is not None:
        raise ValueError(
            f"data.labels: expected nothing with data.unlabelled=true, got {data.labels}; leave one of them out"
        )
