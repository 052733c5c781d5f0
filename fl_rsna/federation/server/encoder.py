"""Read the encoder of the second stage: the frozen slice model, which is kept in the run's folder and never trained again."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.common.atomic import replace_whole
from fl_rsna.common.reading import refuse
from fl_rsna.federation.protocol.messages import SequenceInstructions, build_sequence_instructions
from fl_rsna.learning.inference.features import encode, encoder_id
from fl_rsna.learning.models.classifier import planes_of
from fl_rsna.learning.models.flat import FlatModel, flatten, layout_sha256
from fl_rsna.learning.models.saved import SavedModel, read_saved
from fl_rsna.run_folder.run_folder import COPY, ENCODER, MANIFEST, MODEL, RunFolder
from fl_rsna.settings.config import Config
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import Norm, RunModel, Window

ROUND_BYTES = 6e6  # bytes of a round and site, up and down together, above which a run warns


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """A frozen slice model, the instructions about it, and its weights as they are sent."""

    saved: SavedModel
    instructions: SequenceInstructions
    flat: FlatModel


def read_encoder(given: str) -> SavedModel:
    """Read the slice model that sequence.encoder names, a run's folder or a file. Raises ValueError where there is none."""
    path = Path(given)
    file = path if path.is_file() else path / MODEL
    if not file.is_file():
        raise ValueError(f"sequence.encoder: expected a finished run or a model file, got {path}; give runs/<name>")
    saved = read_saved(file)
    if saved.two_stage is not None:
        raise ValueError(
            f"sequence.encoder: expected a model of single slices, got {file}, which has a head over series already; "
            "give the run that its encoder is of"
        )
    return saved


def model_of(saved: SavedModel) -> RunModel:
    """Return the encoder's settings, without pretraining: its file holds its weights."""
    return replace(saved.config, pretrained=False)


def encoder_of(config: Config, cohort: Cohort, run: RunFolder) -> Encoder:
    """Read the run's encoder, from the run's folder where the run goes on, and copy it there where it begins.

    Raises ValueError for an encoder that does not fit the cohort, or is not the one that the run began with.
    """
    kept = run.folder / ENCODER
    asked = Path(str(config.sequence.encoder))
    saved = read_encoder(str(kept if kept.exists() else asked))
    check_encoder(saved, cohort.task, cohort.image)
    begun = run.read_json(MANIFEST)
    if not kept.exists():
        with replace_whole(kept) as part:
            shutil.copyfile(saved.path, part)
        run.write_json(MANIFEST, {**begun, "encoder": {"file": str(asked), "model_sha256": saved.sha256}})
    elif begun.get("encoder", {}).get("model_sha256", saved.sha256) != saved.sha256:
        raise refuse(kept, "the encoder that the run began with", "another model", COPY)
    elif asked.exists() and read_encoder(str(asked)).sha256 != saved.sha256:
        raise ValueError(
            f"sequence.encoder: {run.folder} was begun with another encoder than the one in {asked}; choose another run.name"
        )
    layout = layout_sha256(saved.network)
    identity = encoder_id(saved.sha256, model_of(saved), saved.task.name, saved.image)
    side, channels = saved.config.image_size, planes_of(saved.image) * (1 + 2 * saved.config.neighbours)
    features, _ = encode(saved.network, torch.zeros(1, channels, side, side), saved.task)
    instructions = build_sequence_instructions(config.sequence, identity, layout, int(features.shape[1]))
    return Encoder(saved=saved, instructions=instructions, flat=flatten(saved.network))


def check_encoder(saved: SavedModel, task: str, image: ImageKind) -> None:
    """Refuse a slice model of another task or for images of another kind; raises ValueError."""
    if (saved.task.name, saved.image) != (task, image):
        raise ValueError(
            f"sequence.encoder: expected a model of task {task} for images of kind {image}, got one of "
            f"{saved.task.name} for {saved.image}; train a slice model on this cohort, or say stage=both"
        )


def warnings_of(encoder: Encoder, values: int) -> list[str]:
    """Return the warnings for a second stage with this encoder and a head of `values` parameters."""
    moved, found = 3 * 4 * values, []  # bytes: in float32 down to train, up, and down to be validated
    if moved > ROUND_BYTES:
        found.append(
            f"sequence.width: a head of {values:,} values moves {moved / 1e6:.1f} MB a round and site, more than "
            f"{ROUND_BYTES / 1e6:.0f}; a narrower one learns as much from few series"
        )
    if encoder.saved.config.norm in (Norm.local, Norm.local_stats):
        found.append("sequence.encoder: each site kept BatchNorm of its own; features are made with the mean of theirs")
    if encoder.saved.config.window is Window.personal:
        found.append("sequence.encoder: each site kept windows of its own; features are made with the mean of theirs")
    return found
