"""Divide a run into its stages, each a run of its own: the slice model, then the head over series."""

import copy
from dataclasses import replace
from pathlib import Path

from fl_rsna.federation.protocol.messages import head_training
from fl_rsna.federation.server.encoder import model_of, read_encoder
from fl_rsna.run_folder.run_folder import ENCODER, SLICE_STAGE
from fl_rsna.settings.config import Config
from fl_rsna.settings.model import ModelConfig
from fl_rsna.settings.stages import Stage


def stages(config: Config, folder: Path) -> list[tuple[Config, Path]]:
    """List the parts of a run in their order, each with its settings and its folder; each part is a whole run.

    Raises ValueError when sequence.encoder names no slice model.
    """
    match config.stage:
        case Stage.slice | Stage.stacking:  # the folds of a stacking are runs inside this one
            return [(config, folder)]
        case Stage.sequence:
            kept = folder / ENCODER
            saved = read_encoder(str(kept) if kept.exists() else str(config.sequence.encoder))
            return [(_second(config, model_of(saved)), folder)]
        case Stage.both:
            first, second = copy.deepcopy(config), copy.deepcopy(config)
            first.stage, second.stage, second.start = Stage.slice, Stage.sequence, None
            inside = folder / SLICE_STAGE
            first.resume, first.run.name = config.resume and inside.exists(), SLICE_STAGE
            second.sequence.encoder, second.resume = str(inside), True  # its folder holds the first stage already
            return [(first, inside), (_second(second, replace(config.model, pretrained=False, weights=None)), folder)]


def _second(config: Config, model: ModelConfig) -> Config:
    """Return the settings of the second stage: the encoder's model, and rounds and training of the head.

    The head trains on every slice of a series: slices are neither sampled nor mixed.
    """
    found, own = copy.deepcopy(config), config.sequence
    found.model = model
    found.rounds = own.rounds or config.rounds
    found.train = head_training(config)
    return found
