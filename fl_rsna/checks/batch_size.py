"""Choose the batch size for train.batch_size=auto: the largest that fits, decided once before a run begins, and recorded as a number."""

from dataclasses import replace
from pathlib import Path

import torch

from fl_rsna.checks.memory import footprint_of, free_memory, largest_batch, memory_needed, uses_cuda, workers_of
from fl_rsna.common.reading import refuse_unreadable
from fl_rsna.reporting.record.run_record import FEDERATED
from fl_rsna.run_folder.run_folder import COPY, SLICE_STAGE, read_config
from fl_rsna.settings.config import Config

AUTO = "auto"
MOST = 64  # a larger batch leaves a site of a few hundred images too few steps
SPARE = 0.5  # share of the free memory that is left to other processes


def settle_batch(config: Config, run: Path | None) -> None:
    """Replace `auto` by a number: that of the run that goes on (of several, the first), else the largest power of two up to MOST.

    Raises ValueError when not even two images fit.
    """
    if config.train.batch_size != AUTO:
        return
    parts = [] if run is None or not config.resume else [run / SLICE_STAGE, run / FEDERATED, run]
    begun = next((path for part in parts if (path := part / "config.yaml").exists()), None)
    if begun is not None:
        with refuse_unreadable(begun, "train.batch_size as a number", COPY):
            config.train.batch_size = int(read_config(begun.parent)["train"]["batch_size"])
        return
    found = largest_batch(_of(config, 2 * MOST), _room(config), cuda=uses_cuda(config))
    if found is None:
        raise ValueError(
            f"train.batch_size: expected memory for two images of {config.model.image_size} px and "
            f"{config.model.backbone or config.model.name}, found {_room(config) / 1e9:.1f} GB a worker; "
            "lower model.image_size or engine.workers"
        )
    config.train.batch_size = found


def _room(config: Config) -> int:
    """Compute how many bytes one worker may take."""
    workers = max(1, workers_of(config))
    if uses_cuda(config):
        devices = torch.cuda.device_count()
        free = min(torch.cuda.mem_get_info(number)[0] for number in range(devices))
        return int(SPARE * free / -(-workers // devices))
    two = _of(config, 2)
    command = memory_needed(two, footprint_of(two), cuda=False).command
    return max(0, int(SPARE * free_memory()) - command) // workers


def _of(config: Config, batch: int) -> Config:
    return replace(config, train=replace(config.train, batch_size=batch))
