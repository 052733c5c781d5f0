"""Repeat one site's part in one round from the files that the run kept: the model as sent, the instructions, the site's memory."""

import json
from pathlib import Path

from flwr.app import ConfigRecord, Message, MessageType, RecordDict

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.common.hashes import read_record
from fl_rsna.common.reading import refuse
from fl_rsna.federation.engines.local import identify
from fl_rsna.federation.protocol.messages import (
    ARRAYS,
    CONFIG,
    Instructions,
    failure_of,
    read_instructions,
    to_arrays,
    to_views,
)
from fl_rsna.federation.server.aggregation import update_sha256
from fl_rsna.federation.server.checkpoint import load_progress
from fl_rsna.federation.server.run_log import round_paths
from fl_rsna.federation.site.handlers import SitePaths, open_data, train
from fl_rsna.federation.site.stage_data import network_of
from fl_rsna.learning.data.dataset import POOLED
from fl_rsna.learning.inference.features import encode_site
from fl_rsna.learning.models.classifier import find_shared_positions
from fl_rsna.learning.models.saved import read_saved
from fl_rsna.learning.training.train import choose_device, ignore_progress, settle_process
from fl_rsna.run_folder.run_folder import COPY, ENCODER, RunFolder
from fl_rsna.settings.federation import Precision
from fl_rsna.strategies.find import find_strategy
from fl_rsna.task import find_task


def repeat_round(run: RunFolder, cohort: Cohort, site: str, round_: int, memory: Path) -> str:
    """Train `site`'s model of `round_` again and return the hash of its update; `memory` is a copy of the run's site memories.

    Raises ValueError when the run kept nothing of that round.
    """
    state, sent = round_paths(run, round_)
    if not sent.exists():
        raise ValueError(
            f"round: expected {sent}, got no such file; the run kept nothing of that round: choose another one"
        )
    said = read_record(sent, COPY)
    progress = load_progress(state, run.identity())
    if progress.round != round_ - 1 or said.get("round") != round_ or said.get("run_id") != progress.run_id:
        raise refuse(state, f"the model before round {round_} and {sent.name} of the same run", "another one's", COPY)
    settle_process()
    identify()
    record = ConfigRecord({"instructions": json.dumps(said["instructions"])})
    instructions = read_instructions(Message(RecordDict({CONFIG: record}), 1, MessageType.TRAIN))
    beside = find_strategy(instructions.strategy).second
    second = None if beside is None else beside(progress.memory, said["second_size"])
    network = network_of(instructions, find_task(instructions.task), cohort.image)
    arrays = to_arrays(
        progress.model, second, Precision(said["precision"]), ~find_shared_positions(network, instructions.model)
    )
    names = cohort.sites if site == POOLED else (site,)
    place = SitePaths(folders=tuple(cohort.site_folder(name) for name in names), memory=memory / site)
    if instructions.sequence is not None:
        see_to_features(run, instructions, place)
    reply = train(Message(RecordDict({ARRAYS: arrays, CONFIG: record}), 1, MessageType.TRAIN), place)
    assert failure_of(reply) is None
    return update_sha256(reply)


def see_to_features(run: RunFolder, instructions: Instructions, place: SitePaths) -> None:
    """Compute the features under the run's encoder where the site no longer has them."""
    assert instructions.sequence is not None
    network, device = read_saved(run.folder / ENCODER).network, choose_device(instructions.train.device)
    data = open_data(place, instructions.model)
    task = find_task(instructions.task)
    encode_site(
        network,
        data,
        to_views(instructions.sequence, instructions.train),
        task,
        instructions.train,
        device,
        ignore_progress,
    )
