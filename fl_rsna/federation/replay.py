"""One site's part in one round again, from what the run kept: the model as sent, the instructions, the site's memory."""

from pathlib import Path

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from safetensors import safe_open

from fl_rsna.cohort.sites import Cohort
from fl_rsna.federation.engines.local import identify
from fl_rsna.federation.messages import ARRAYS, CONFIG, SECOND, failure_of, to_arrays
from fl_rsna.federation.records import sent_path
from fl_rsna.federation.replies import update_sha256
from fl_rsna.federation.site_part import Place, train
from fl_rsna.learning.dataset import POOLED
from fl_rsna.learning.flat import FlatModel
from fl_rsna.learning.process import settle_process
from fl_rsna.runs import RunFolder


def repeat_round(run: RunFolder, cohort: Cohort, site: str, round_: int, memory: Path) -> str:
    """The hash of what `site` sends in `round_`, trained anew; `memory` is a copy of the run's site memories.

    Raises ValueError when the run kept nothing of that round.
    """
    path = sent_path(run, round_)
    if not path.exists():
        raise ValueError(
            f"round: expected {path}, got no such file; only runs with run.keep=all can be repeated by round"
        )
    with safe_open(path, "numpy") as file:
        vectors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        told = ConfigRecord({"instructions": file.metadata()["instructions"]})
    settle_process()
    identify()
    arrays = to_arrays(FlatModel(vectors["floats"], vectors["integers"]), vectors.get(SECOND))
    message = Message(RecordDict({ARRAYS: arrays, CONFIG: told}), 1, MessageType.TRAIN)
    names = cohort.sites if site == POOLED else (site,)
    folders = tuple(cohort.site_folder(name) for name in names)
    reply = train(message, Place(folders=folders, memory=memory / site))
    assert failure_of(reply) is None
    return update_sha256(reply.content.array_records[ARRAYS])
