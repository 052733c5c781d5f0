"""One site's part in one round again, from what the run kept: the model as sent, the instructions, the site's memory."""

import json
from pathlib import Path

from flwr.app import ConfigRecord, Message, MessageType, RecordDict

from fl_rsna.choices import Precision
from fl_rsna.cohort.sites import Cohort
from fl_rsna.config import ModelConfig
from fl_rsna.federation.checking import update_sha256
from fl_rsna.federation.engines.local import identify
from fl_rsna.federation.messages import ARRAYS, CONFIG, failure_of, to_arrays, typed
from fl_rsna.federation.progress import load_progress
from fl_rsna.federation.records import round_paths
from fl_rsna.federation.server_rules import second_vector
from fl_rsna.federation.site_part import Place, train
from fl_rsna.learning.dataset import POOLED
from fl_rsna.learning.flat import parameter_positions
from fl_rsna.learning.model import build_model
from fl_rsna.learning.process import settle_process
from fl_rsna.runs import RunFolder
from fl_rsna.task import TaskName, named_task


def repeat_round(run: RunFolder, cohort: Cohort, site: str, round_: int, memory: Path) -> str:
    """The hash of what `site` sends in `round_`, trained anew; `memory` is a copy of the run's site memories.

    Raises ValueError when the run kept nothing of that round.
    """
    state, sent = round_paths(run, round_)
    if not sent.exists():
        raise ValueError(
            f"round: expected {sent}, got no such file; only runs with run.keep=all can be repeated by round"
        )
    progress, said = load_progress(state), json.loads(sent.read_text())
    settle_process()
    identify()
    second = second_vector(progress.memory, said["second_size"])
    asked = said["instructions"]
    network = build_model(typed(ModelConfig, asked["model"]), named_task(TaskName(asked["task"])), cohort.image, seed=0)
    arrays = to_arrays(progress.model, second, Precision(said["precision"]), ~parameter_positions(network))
    told = ConfigRecord({"instructions": json.dumps(asked)})
    message = Message(RecordDict({ARRAYS: arrays, CONFIG: told}), 1, MessageType.TRAIN)
    names = cohort.sites if site == POOLED else (site,)
    folders = tuple(cohort.site_folder(name) for name in names)
    reply = train(message, Place(folders=folders, memory=memory / site))
    assert failure_of(reply) is None
    return update_sha256(reply)
