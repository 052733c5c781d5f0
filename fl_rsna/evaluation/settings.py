"""Define the settings of evaluate, ensemble and export, each with its type and default, and refuse those that contradict each other."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from fl_rsna.settings.data import ImageKind, PrepareConfig
from fl_rsna.settings.fields import NOT_NEGATIVE, SHARE, at_least, declare
from fl_rsna.settings.runtime import PathsConfig
from fl_rsna.settings.training import Device

EQUAL = "equal"
MODEL = "run folder, or a .safetensors file; with its run beside it the run's thresholds and temperatures are applied"
SITE = "folder of a site of any cohort, whose slices are scored"
PART = "part of the site's slices; default: test where there is one, else validation"
SHIFT = (
    "write two readings: as the run calibrated it, and matched to the prevalence that is estimated in the scored slices "
    "(Saerens et al. 2002)"
)


class Part(StrEnum):
    """A part of a site's slices."""

    test = "test"
    validation = "validation"
    train = "train"
    all = "all"


@dataclass(kw_only=True, slots=True)
class ScansConfig:
    """The settings data.*. They mean what they mean to prepare, but size and image default to the model's."""

    dicom: str | None = declare(
        None,
        "scans to score: a folder (searched with its subfolders), a zip, or a CSV or Parquet list with a column `path`",
    )
    name: str | None = declare(
        None, "prepared set under paths.prepared; with data.dicom it is made and kept, without it scored"
    )
    labels: str | None = declare(
        None,
        "CSV or Parquet table of labels, for a scorecard; default: stage_2_train.csv with data.dicom, if there is one",
    )
    test_set: bool = declare(False, "in RSNA's layout, score stage_2_test instead of stage_2_train")
    size: int | None = declare(
        None, "side of the stored PNG, in pixels; default: the model's", within=at_least(16).or_null()
    )
    image: ImageKind | None = declare(None, "how a stored PNG holds an image; default: as the model saw it")
    hash_ids: bool = declare(True, "replace patient, study and series ids by salted hashes")
    salt: str = declare("", "secret that ids are hashed with; the one of the data the model was trained on")
    max_rejected: float = declare(1.0, "largest share of files that may be rejected", within=SHARE)


@dataclass(kw_only=True, slots=True)
class WhereConfig:
    """The settings train.*: where the model computes."""

    device: Device = declare(Device.auto, "where the model computes")


@dataclass(kw_only=True, slots=True)
class PageConfig:
    """The settings page.*: how many images evaluation.html holds."""

    exams: int = declare(
        30, "exams with images on the page, those of the highest probability; 0: no page", within=NOT_NEGATIVE
    )
    slices: int = declare(48, "largest number of slices of an exam on the page, at even steps", within=at_least(1))
    heats: int = declare(
        8, "slices of an exam with Grad-CAM heat, those of the highest probability", within=NOT_NEGATIVE
    )


@dataclass(kw_only=True, slots=True)
class EvaluateConfig:
    """The settings of evaluate."""

    model: str | None = declare(None, MODEL)
    site: str | None = declare(None, SITE)
    part: Part | None = declare(None, PART)
    shift: bool = declare(False, SHIFT)
    out: str | None = declare(None, "new folder for the results; default: evaluations/<date-time>")
    seed: int = declare(0, "seed of the bootstrap", within=NOT_NEGATIVE)
    data: ScansConfig = field(default_factory=ScansConfig)
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    train: WhereConfig = field(default_factory=WhereConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    page: PageConfig = field(default_factory=PageConfig)


def check_request(asked: EvaluateConfig) -> None:
    """Raise ValueError for settings that name nothing to score, or two things, and for settings that have no effect on what is scored."""
    data, plain = asked.data, ScansConfig()
    given = [
        name for name, value in (("site", asked.site), ("data.dicom", data.dicom), ("data.name", data.name)) if value
    ]
    if not given or (asked.site and len(given) > 1):
        raise ValueError(
            f"data.dicom: expected one of data.dicom=<folder, zip or list>, data.name=<prepared set> and site=<folder>, "
            f"got {' and '.join(given) or 'nothing'}; say what to score"
        )
    if asked.part is not None and not asked.site:
        raise ValueError(f"part: expected only with site=, got {asked.part.value} without; leave it out")
    keys = {"site": ScansConfig.__slots__, "data.name": ("test_set", "size", "hash_ids", "salt", "max_rejected")}
    of = "site" if asked.site else "data.name" if not data.dicom else None
    for key in keys.get(str(of), ()):
        if getattr(data, key) != getattr(plain, key):
            raise ValueError(f"data.{key}: expected nothing with {of}=, whose images are as they are; leave it out")
    if not 0 <= data.max_rejected <= 1 or (data.size is not None and data.size < 16) or asked.prepare.workers < 0:
        raise ValueError("data: expected max_rejected of 0 to 1, size of 16 or more, prepare.workers of 0 or more")
    page = asked.page
    if page.exams < 0 or page.slices < 1 or page.heats < 0:
        raise ValueError(
            f"page: expected page.exams and page.heats of 0 or more, page.slices of 1 or more, got {page.exams}, {page.heats} and "
            f"{page.slices}; page.exams=0 writes no page"
        )


@dataclass(kw_only=True, slots=True)
class EnsembleConfig:
    """The settings of ensemble."""

    models: list[str] = declare(
        [], "two or more run folders or .safetensors files, of one task and kind of images: models=[runs/a,runs/b]"
    )
    weights: Any = declare(
        None,
        "equal, or a share for each model; default: fitted on the validation slices of the sites of simulated runs",
    )
    site: str | None = declare(None, SITE)
    part: Part | None = declare(None, PART)
    shift: bool = declare(False, SHIFT)
    out: str | None = declare(None, "new folder for the results; default: ensembles/<date-time>")
    seed: int = declare(0, "seed of the bootstrap and of the folds", within=NOT_NEGATIVE)
    data: ScansConfig = field(default_factory=ScansConfig)
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    train: WhereConfig = field(default_factory=WhereConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    page: PageConfig = field(default_factory=PageConfig)


def as_evaluate(asked: EnsembleConfig) -> EvaluateConfig:
    """Make the settings by which each model is evaluated, without its name."""
    shared = {name: getattr(asked, name) for name in EnsembleConfig.__slots__ if name not in ("models", "weights")}
    return EvaluateConfig(**shared)


def check_ensemble(asked: EnsembleConfig) -> None:
    """Raise ValueError for fewer than two models, for weights that are no shares of them, and for what evaluate refuses."""
    if len(asked.models) < 2 or len(set(asked.models)) < len(asked.models):
        got = ", ".join(asked.models) or "nothing"
        raise ValueError(f"models: expected two or more different models, got {got}; give models=[runs/a,runs/b]")
    check_request(as_evaluate(asked))
    weights = asked.weights
    if weights is None or weights == EQUAL:
        return
    numbers = weights if isinstance(weights, list) else []
    usable = all(isinstance(one, int | float) and not isinstance(one, bool) and one >= 0 for one in numbers)
    if len(numbers) != len(asked.models) or not usable or abs(sum(numbers) - 1) > 1e-6:
        raise ValueError(
            f"weights: expected equal, or {len(asked.models)} shares of 0 or more that sum to 1, got {weights}; "
            "give weights=[0.6,0.4]"
        )


@dataclass(kw_only=True, slots=True)
class ExportConfig:
    """The settings of export."""

    model: str | None = declare(None, MODEL)
    site: str | None = declare(
        None, "site whose slices ONNX and torch are compared on; default: the test site of the run's cohort, if at hand"
    )
    out: str | None = declare(None, "new folder; default: export/ in the run folder, or <name>_export beside the file")
    seed: int = declare(0, "seed of the random and synthetic slices", within=NOT_NEGATIVE)
