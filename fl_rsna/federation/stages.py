"""The stages of a run as runs of their own: the slice model's, then that of the head over its series."""

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
    """What is run where, in this order: each part is a whole run, and says in its settings what it does.

    Raises ValueError when sequence.encoder names no slice model.
    """
    match config.stage:
        case Stage.slice | Stage.stacking:  # a stacking's folds are runs inside it
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
            second.sequence.encoder, second.resume = str(inside), True  # its folder holds the first stage by then
            return [(first, inside), (_second(second, replace(config.model, pretrained=False, weights=None)), folder)]


def _second(config: Config, model: ModelConfig) -> Config:
    """The same run over series: the encoder's model, and rounds and training of the head in place of the slice model's.

    Every slice of a series is seen: none is drawn or mixed with another.
    """
    found, own = copy.deepcopy(config), config.sequence
    found.model = model
    found.rounds = own.rounds or config.rounds
    found.train = head_training(config)
    return found
