"""What a run begins with: the initial model of its seed, or the weights that `start` names."""

from pathlib import Path
from typing import Any

from torch import nn

from fl_rsna.choices import ImageKind
from fl_rsna.cohort.sites import Cohort
from fl_rsna.config import Config
from fl_rsna.learning.flat import FlatModel, flatten, layout_sha256
from fl_rsna.learning.saved import SavedModel, read_saved
from fl_rsna.runs import ENCODER, MANIFEST, MODEL, RunFolder
from fl_rsna.task import Task, named_task


def first_model(config: Config, cohort: Cohort, network: nn.Module, run: RunFolder) -> FlatModel:
    """The weights of round 0: those of `network`, or of config.start, which is then written into the run's manifest.

    A run that goes on has them in its checkpoint. Raises ValueError for a model of another task, kind of images or layout.
    """
    begun = run.read_json(MANIFEST)
    if config.start is None or "start" in begun:
        return flatten(network)
    saved = named_start(config, named_task(config.data.task), cohort.image, network)
    run.write_json(MANIFEST, {**begun, "start": {"file": str(saved.path), "model_sha256": saved.sha256}})
    return flatten(saved.network)


def named_start(config: Config, task: Task, image: ImageKind, network: nn.Module) -> SavedModel:
    """The model that `start` names, of the shapes of `network`. Raises ValueError for one that does not fit."""
    given = Path(str(config.start))
    path = given / MODEL if given.is_dir() else given
    try:
        saved = read_saved(path)
    except ValueError as error:
        raise ValueError(f"start: {str(error).removeprefix('model: ')}") from None
    if saved.two_stage is not None:
        raise ValueError(
            f"start: expected a model of single slices, got {path}, which has a head over series; give the slice model under it, "
            f"{ENCODER} in its run's folder, or the run that it is of"
        )
    for what, expected, got in (
        ("task", task.name, saved.task.name),
        ("labels", task.labels, saved.task.labels),
        ("images", image.value, saved.image.value),
    ):
        if got != expected:
            raise ValueError(f"start: expected a model for {what} {expected}, got one for {got} in {path}")
    if layout_sha256(saved.network) != layout_sha256(network):
        raise ValueError(
            f"start: expected a {config.model.name} as model.* describes it, got the weights of a {saved.config.name} "
            f"of other shapes in {path}; repeat its model words"
        )
    return saved


def started_from(run: RunFolder) -> dict[str, Any] | None:
    """The file and hash of the model that a run began with; None when it was its seed's own."""
    found: dict[str, Any] | None = run.read_json(MANIFEST).get("start")
    return found
