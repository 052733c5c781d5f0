"""TensorBoard's event files, in tensorboard/ of a run's folder: one file, written anew from the run's events when it goes on."""

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
    """One run's event file. Import this after round 1 has begun: TensorBoard takes a while to load."""

    def __init__(self, run: Path, config: Config) -> None:
        folder = run / FOLDER
        folder.mkdir(exist_ok=True)
        for old in folder.glob("events.out.tfevents.*.fl_rsna"):
            drop(old)  # what it held that counts is given again
        self._file = (folder / f"events.out.tfevents.{time.time():.6f}.fl_rsna").open("xb")
        self._records = RecordWriter(self._file)
        self._write(Event(file_version=VERSION))
        self._write(
            Event(session_log=SessionLog(status=SessionLog.START))
        )  # a TensorBoard that is open forgets the old
        self._write(Event(summary=Summary(value=[_text("config", _as_code(yaml.safe_dump(settings(config))))])))
        self._file.flush()

    def log(self, round_: int, values: Values, time_s: float) -> None:
        """Points of one round; `time_s` is when they came, in seconds since 1970."""
        found = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(Event(step=round_, summary=Summary(value=found)), time_s)
        self._file.flush()

    def finish(self, round_: int, values: Values, model: Path, sha256: str | None) -> None:
        """Final numbers as a table, and the model's hash."""
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


def _as_code(text: str) -> str:
    """Markdown of a preformatted text."""
    return "\n".join(f"    {line}" for line in text.splitlines())
