"""One site's part in one round again, from what the run kept: the model as sent, the instructions, the site's memory."""

import json
from pathlib import Path

from flwr.app import ConfigRecord, Message, MessageType, RecordDict

from fl_rsna.choices import Precision
from fl_rsna.cohort.hashed import read_record
from fl_rsna.cohort.sites import Cohort
from fl_rsna.federation.checking import update_sha256
from fl_rsna.federation.engines.local import identify
from fl_rsna.federation.material import network_of
from fl_rsna.federation.messages import ARRAYS, CONFIG, Instructions, failure_of, read_instructions, to_arrays
from fl_rsna.federation.progress import load_progress
from fl_rsna.federation.records import round_paths
from fl_rsna.federation.sequence_told import views_told
from fl_rsna.federation.server_rules import second_vector
from fl_rsna.federation.site_part import Place, open_data, train
from fl_rsna.learning.dataset import POOLED
from fl_rsna.learning.encoded import encode_site
from fl_rsna.learning.model import shared_positions
from fl_rsna.learning.process import settle_process
from fl_rsna.learning.saved import read_saved
from fl_rsna.learning.train import choose_device, unwatched
from fl_rsna.reading import refuse
from fl_rsna.runs import COPY, ENCODER, RunFolder
from fl_rsna.task import TaskName, named_task


def repeat_round(run: RunFolder, cohort: Cohort, site: str, round_: int, memory: Path) -> str:
    """The hash of what `site` sends in `round_`, trained anew; `memory` is a copy of the run's site memories.

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
    second = second_vector(progress.memory, said["second_size"])
    record = ConfigRecord({"instructions": json.dumps(said["instructions"])})
    told = read_instructions(Message(RecordDict({CONFIG: record}), 1, MessageType.TRAIN))
    network = network_of(told, named_task(TaskName(told.task)), cohort.image)
    arrays = to_arrays(progress.model, second, Precision(said["precision"]), ~shared_positions(network, told.model))
    names = cohort.sites if site == POOLED else (site,)
    place = Place(folders=tuple(cohort.site_folder(name) for name in names), memory=memory / site)
    if told.sequence is not None:
        see_to_features(run, told, place)
    reply = train(Message(RecordDict({ARRAYS: arrays, CONFIG: record}), 1, MessageType.TRAIN), place)
    assert failure_of(reply) is None
    return update_sha256(reply)


def see_to_features(run: RunFolder, told: Instructions, place: Place) -> None:
    """Features under the run's encoder, made again where the site no longer has them."""
    assert told.sequence is not None
    network, device = read_saved(run.folder / ENCODER).network, choose_device(told.train.device)
    data = open_data(place, told.model)
    task = named_task(TaskName(told.task))
    encode_site(network, data, views_told(told.sequence, told.train), task, told.train, device, unwatched)
