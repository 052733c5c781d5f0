"""Write TensorBoard's event file into tensorboard/ of a run's folder.

There is one file; it is written again from the run's events when the run is resumed.
"""

import time
from pathlib import Path

import yaml
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.summary.writer.record_writer import RecordWriter

from fl_rsna.common.ownership import drop
from fl_rsna.reporting.trackers.points import Values, settings
from fl_rsna.settings.config import Config

FOLDER = "tensorboard"
VERSION = "brain.Event:2"  # first record of every event file


class EventFile:
    """The event file of a run. Import it after round 1 has begun: TensorBoard takes a while to load."""

    def __init__(self, run: Path, config: Config) -> None:
        folder = run / FOLDER
        folder.mkdir(exist_ok=True)
        for old in folder.glob("events.out.tfevents.*.fl_rsna"):
            drop(old)  # its rounds that count are logged again
        self._file = (folder / f"events.out.tfevents.{time.time():.6f}.fl_rsna").open("xb")
        self._records = RecordWriter(self._file)
        self._write(Event(file_version=VERSION))
        start = SessionLog(status=SessionLog.START)  # an open TensorBoard then forgets the old file
        self._write(Event(session_log=start))
        code = "\n".join(f"    {line}" for line in yaml.safe_dump(settings(config)).splitlines())  # in Markdown
        self._write(Event(summary=Summary(value=[_text("config", code)])))
        self._file.flush()

    def log(self, round_: int, values: Values, time_s: float) -> None:
        """Log the numbers of one round; `time_s` is when they came, in seconds since 1970."""
        found = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(Event(step=round_, summary=Summary(value=found)), time_s)
        self._file.flush()

    def finish(self, round_: int, values: Values, model: Path, sha256: str | None) -> None:
        """Log the final numbers as a table, with the model's hash."""
        lines = [f"| {name} | {value:.6g} |" for name, value in values.items()]
        table = "\n".join([f"model sha256: {sha256}", "", "| final | value |", "|---|---|", *lines])
        self._write(Event(step=round_, summary=Summary(value=[_text("final", table)])))

    def close(self, status: str) -> None:
        self._file.close()

    def _write(self, event: Event, time_s: float | None = None) -> None:
        event.wall_time = time.time() if time_s is None else time_s
        self._records.write(event.SerializeToString())


def _text(tag: str, markdown: str) -> Summary.Value:
    plugin = SummaryMetadata.PluginData(plugin_name="text")
    tensor = TensorProto(dtype=DT_STRING, string_val=[markdown.encode()])
    return Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin), tensor=tensor)
