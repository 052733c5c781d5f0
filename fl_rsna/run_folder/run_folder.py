"""What a run folder holds, and who may write it: the one place that knows its file names."""

import contextlib
import csv
import dataclasses
import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import yaml

from fl_rsna.cohort.sites.site_folders import Cohort, cohort_files
from fl_rsna.common.atomic import write_whole
from fl_rsna.common.ownership import drop, holds_nothing, make_folder, what_is
from fl_rsna.common.reading import (
    build_damage_error,
    dump_checked_line,
    dump_hashed_json,
    read_json,
    read_yaml,
    refuse_unreadable,
)
from fl_rsna.run_folder.manifest import describe_start, settings_sha256
from fl_rsna.settings.config import Config
from fl_rsna.settings.effects import defaults_of
from fl_rsna.settings.stages import Baseline, Stage

MAY_CHANGE = (
    "resume",
    "engine",
    "deploy",
    "paths",
    "prepare",
    "predict",
    "allow_unknown_patients",
    "tracking",
    "train.device",
    "data.dicom",  # the data itself is in the cohort's hash
    "data.labels",
    "strategy.lost",
    "strategy.timeout_s",
    "sequence.encoder",
    "run.name",  # a folder that was copied or renamed is the same run
)  # of a run that goes on

PREDICTIONS = "predictions.parquet"  # of the final model on the test site's slices
SCORECARDS = "scorecards.json"  # of the final model on the test site and at every site, whole
REST = (
    "validation_sites",
    "validation_carried",
    "validation_unknown",
)  # of rounds.csv: sites a round's validation rests on, those of them with an earlier answer, and sites that never answered

CONFIG = "config.yaml"  # what a run was asked, resolved
SUMMARY = "summary.json"  # how a run ended
ALONE = "alone"  # folder of the sites' own runs, where each trained by itself

COHORT_VIEW = "cohort_view.json"  # slices and headers of the sites, for the report
EXPLANATIONS = "explanations.json"  # slices of the test site with what the model looked at, for the report
MANIFEST = "manifest.json"  # what began a run, and when
ANCESTRY = "ancestry.json"  # whose images its models had seen, as it stands in their files
MODEL = "model.safetensors"  # the final one
ENCODER = "encoder.safetensors"  # of a run of the second stage: the slice model under it
BOTH = "both"  # what a folder is that holds the runs of both stages, in owner.json
SLICE_STAGE = "slice"  # folder of the first stage's run, where both were asked for
STACK_NETWORK = "stacker.safetensors"  # of a stacking by a network
STACKER = "stacker.json"  # of a stacking, whose slice models are the folds'

UNTRAINED = (
    CONFIG,
    MANIFEST,
    "events.jsonl",
    "error.log",
    "summary.json",
    ENCODER,
    "checkpoints",
    "site_memory",
    "site_memory/*",
    "site_memory/*/failures.log",
    "heartbeat",
)  # all that a run writes before a site trains
EVENTS = "events.jsonl"
TABLES = "tables"  # what a checkpoint, and summary.json, say of rounds.csv, sites.csv and events.jsonl

END = ("run_failed", "run_end")  # events after which there is none
OF_MANY = ("site_done", "site_failed")  # events that come once a site; the disk gets them with the next other one

COPY = "bring the file back from a copy of the run, or begin anew under another run.name"

Listener = Callable[[str, Mapping[str, Any]], None]


def fold_folder(run: Path, number: int) -> Path:
    """Where fold number 0, 1, ... of a stacking has its run: fold-1, fold-2, ..."""
    return run / f"fold-{number + 1}"


class RunFolder:
    """One run's folder, written by one process. Events go to events.jsonl and to every listener.

    `token` is the proof that this invocation made the folder; None of one that it found.
    """

    def __init__(self, folder: Path, listeners: tuple[Listener, ...] = (), token: str | None = None) -> None:
        self.folder = folder
        self.token = token
        self.is_over = False  # its events say how it ended
        self._listeners = listeners

    def listen(self, listener: Listener) -> None:
        """Give every later event to one more listener."""
        self._listeners = (*self._listeners, listener)

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def site_memory(self) -> Path:
        """Where the sites of a simulation keep what they remember."""
        return self.folder / "site_memory"

    def cache_folder(self, cohort_sha256: str) -> Path:
        """Where a cohort's test site is packed when its folder cannot be written: a cache that all runs share."""
        return self.folder.parent / ".packed" / cohort_sha256[:16]

    def event(self, kind: str, /, **fields: Any) -> None:
        """Append one line to events.jsonl: read by others when this returns, and on disk unless it is one of many sites'."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        fields = finite_or_null(fields)
        line = dump_checked_line({"time": time, "event": kind, **fields}, allow_nan=False)
        with (self.folder / EVENTS).open("a+b") as file:
            file.write(b"\n" * _is_torn(file) + line.encode())
            file.flush()
            if kind not in OF_MANY:
                os.fsync(file.fileno())
        self.is_over = self.is_over or kind in END
        self.tell(kind, fields)

    def tell(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Show an event to whoever listens, without writing it down. A listener that fails is asked no more, which is an event."""
        for listener in self._listeners:
            try:
                listener(kind, fields)
            except Exception as error:  # a display or a tracker, whatever ails it: the run goes on
                self._listeners = tuple(other for other in self._listeners if other is not listener)
                said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                self.event("warning", text=f"a display or a tracker failed, and the run goes on without it: {said}")

    def append_row(self, table: str, row: Mapping[str, Any]) -> None:
        """Append a row to rounds.csv or sites.csv; the first row sets the columns."""
        path = self.folder / f"{table}.csv"
        new = not path.exists()
        with path.open("a", newline="", errors="backslashreplace") as file:
            writer = csv.DictWriter(file, fieldnames=list(row), lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)

    def rows(self, table: str) -> list[dict[str, str]]:
        """The rows of rounds.csv or sites.csv so far."""
        path = self.folder / f"{table}.csv"
        if not path.exists():
            return []
        with refuse_unreadable(path, "a CSV table"), path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    @property
    def without_effect(self) -> dict[str, str]:
        """The settings that act nowhere in this run, with what each would need."""
        found: dict[str, str] = self.read_json(MANIFEST).get("without_effect", {})
        return found

    def read_json(self, name: str) -> dict[str, Any]:
        return read_json(self.folder / name, COPY)

    def identity(self) -> dict[str, Any]:
        """What tells this run's checkpoints from another's, whatever its folder is called."""
        return {"run": self.read_json(MANIFEST).get("id")}

    def table_hashes(self) -> dict[str, dict[str, Any]]:
        """How long rounds.csv, sites.csv and events.jsonl are now, and the hashes of their bytes."""
        found = {path.name: path.read_bytes() for path in (*self._tables(), self.folder / EVENTS) if path.exists()}
        return {name: {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()} for name, raw in found.items()}

    def rewind(self, round_: int, as_written: Mapping[str, Any] | None = None) -> list[str]:
        """Drop the rows of rounds after `round_`, which a killed run began and will play again, and lines that are no rows.

        What is to be said of files that are not as `table_hashes` found them then: no model depends on them.
        """
        said = describe_changed_tables(self.folder, as_written or {})
        for path in self._tables():
            if path.exists():
                _keep_rows(path, round_)
        return said

    def _tables(self) -> list[Path]:
        return [self.folder / f"{table}.csv" for table in ("rounds", "sites")]

    def forget_end(self) -> None:
        """Drop how an earlier try of the run ended: it goes on now."""
        drop(self.folder / SUMMARY)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        write_whole(self.folder / name, dump_hashed_json(finite_or_null(content)))


def finite_or_null(content: Any) -> Any:
    """The same as JSON may hold it, at any depth: null in place of a number that is none or infinite."""
    if isinstance(content, Mapping):
        return {key: finite_or_null(item) for key, item in content.items()}
    if isinstance(content, list | tuple):
        return [finite_or_null(item) for item in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _is_torn(file: IO[bytes]) -> bool:
    """Whether the last line was cut off, by a kill or a full disk."""
    if file.seek(0, os.SEEK_END) == 0:
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"


def describe_changed_tables(folder: Path, as_written: Mapping[str, Any]) -> list[str]:
    """A sentence for each file that does not begin as `table_hashes` found it."""
    return [
        f"{folder / name} is not as the run wrote it, by its hash: a curve or a table that rests on it may be wrong"
        for name, expected in as_written.items()
        if not _begins(folder / name, expected)
    ]


def _keep_rows(path: Path, round_: int) -> None:
    """Write a table again with the rows up to a round; without any it goes."""
    reader = csv.reader(io.StringIO(path.read_bytes().decode(errors="replace"), newline=""))
    names, rows = next(reader, []), []
    at = names.index("round") if "round" in names else 0
    with contextlib.suppress(csv.Error):
        rows = [row for row in reader if len(row) == len(names) and _is_round(row[at]) and int(row[at]) <= round_]
    if not rows:
        drop(path)
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([names, *rows])
    write_whole(path, text.getvalue().encode())


def _is_round(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _begins(path: Path, expected: Mapping[str, Any]) -> bool:
    """Whether a file begins with what `table_hashes` saw of it."""
    raw = path.read_bytes() if path.exists() else b""
    return hashlib.sha256(raw[: int(expected["bytes"])]).hexdigest() == str(expected["sha256"])


def read_config(folder: Path) -> dict[str, Any]:
    """A run's settings as it was begun with; raises ValueError when its config.yaml is damaged or not the one it wrote."""
    path, manifest = folder / CONFIG, folder / MANIFEST
    found = read_yaml(path, COPY)
    stated = read_json(manifest, COPY).get("config_sha256") if manifest.exists() else None
    if stated is not None and stated != settings_sha256(found):
        raise build_damage_error(path, COPY)
    return found


def read_summary(folder: Path) -> dict[str, Any]:
    """A run's summary.json, with how it ended."""
    return read_json(folder / SUMMARY, COPY, keys={"status": str})


def start_run(
    folder: Path,
    config: Config,
    cohort: Cohort,
    device: str,
    listeners: tuple[Listener, ...],
    token: str | None = None,
    without: Mapping[str, str] | None = None,
) -> RunFolder:
    """Make a new run folder with config.yaml and manifest.json, or, with `config.resume`, take up the one that is there.

    `token` is what a new one is to be proven by, where somebody else will ask. Raises ValueError, with nothing changed, when
    the folder exists and is not to be resumed, when it is no such run's, and when it was begun with other settings or data.
    `without` are the settings that act nowhere in the run, with what each would need.
    """
    begun = is_begun(folder)
    manifest = {} if begun else {**describe_start(config, cohort, device), "without_effect": dict(without or {})}
    run = RunFolder(
        folder, listeners, take_run(folder, config, cohort, kind=kind_of(config), resume=config.resume, token=token)
    )
    if begun:
        _note_cohort(run, cohort)
        return run
    run.checkpoints.mkdir(exist_ok=True)
    plain = json.loads(json.dumps(dataclasses.asdict(config)))
    write_whole(folder / CONFIG, yaml.safe_dump(plain, sort_keys=False).encode())
    run.write_json(MANIFEST, manifest)
    return run


def take_run(
    folder: Path, config: Config, cohort: Cohort, *, kind: str, resume: bool, token: str | None = None
) -> str | None:
    """Make the folder of a new run of this kind, or see that it is one of which this run can go on.

    Returns the proof of a folder that was made. The caller holds its lock. Raises ValueError, with nothing changed.
    """
    begun = resume and is_begun(folder)
    if begun:
        check_same(folder, config, cohort)
    begun = begun and (kind != BOTH or (folder / SLICE_STAGE).is_dir())
    return take_folder(folder, kinds_of(kind, config, folder), resume=resume, begun=begun, token=token)


def take_folder(
    folder: Path, kinds: tuple[str, ...], *, resume: bool, begun: bool = False, token: str | None = None
) -> str | None:
    """Make a folder of the first of `kinds`, or see that it is one of them; as `take_run`, without a run's settings."""
    if not is_new(folder, kinds, resume=resume, begun=begun):
        return None
    try:
        return make_folder(folder, kinds[0], token)
    except FileExistsError:
        raise ValueError(
            f"run.name: expected a new run, got {folder}, which somebody made just now; choose another run.name"
        ) from None


def is_new(folder: Path, kinds: tuple[str, ...], *, resume: bool, begun: bool = False) -> bool:
    """Whether a run's folder is to be made; False for one that can go on as one of `kinds`. Raises ValueError for anything else.

    A run that has `begun` and whose owner.json is gone is known by its own files.
    """
    refuse_existing(folder, resume=resume)
    if not os.path.lexists(folder):
        return True
    if not folder.is_dir():
        raise ValueError(
            f"run.name: expected the folder of a run, got {folder}, which is none; choose another run.name"
        )
    if holds_nothing(folder):
        return True
    found = what_is(folder)
    if found in kinds or (found is None and begun):
        return False
    held = f"one of kind {found}" if found else f"what is no run ({_some_names(folder)})"
    raise ValueError(
        f"run.name: expected a run of kind {' or '.join(kinds)} to go on with, got {folder} with {held}; choose another run.name"
    )


def kinds_of(kind: str, config: Config, folder: Path) -> tuple[str, ...]:
    """What a folder may be to hold this run: its own kind, and of both stages for the second one, whose first lies in it."""
    encoder, first = config.sequence.encoder, os.path.realpath(folder / SLICE_STAGE)
    is_second = config.stage is Stage.sequence and encoder is not None and os.path.realpath(encoder) == first
    return (kind, BOTH) if is_second else (kind,)


def refuse_existing(folder: Path, *, resume: bool) -> None:
    """Raise ValueError when something lies at `folder` that was not asked to be resumed."""
    if os.path.lexists(folder) and not resume:
        raise ValueError(
            f"run.name: expected a new run, got the existing {folder}; choose another run.name, delete it or say resume=true"
        )


def is_begun(folder: Path) -> bool:
    """Whether a run's settings and manifest are in `folder`."""
    return (folder / CONFIG).is_file() and (folder / MANIFEST).is_file()


def kind_of(config: Config) -> str:
    """What a run's folder is, in one word: a baseline's name, else the stage's."""
    return config.stage.value if config.baseline is Baseline.none else config.baseline.value


def _some_names(folder: Path) -> str:
    names = sorted(os.listdir(folder))
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _note_cohort(run: RunFolder, cohort: Cohort) -> None:
    """Where the data lie now, of a run that was moved away from where it found them; check_same saw that they are the same."""
    manifest = run.read_json(MANIFEST)
    if not Path(manifest["cohort"]).is_dir():
        run.write_json(MANIFEST, {**manifest, "cohort": str(cohort.folder)})


def is_finished(folder: Path) -> bool:
    """Whether a run in `folder` came to its end."""
    return (folder / SUMMARY).exists() and read_summary(folder)["status"] == "finished"


def check_same(folder: Path, config: Config, cohort: Cohort) -> None:
    """Refuse to go on with a run under other settings than it began with; where and how it runs may change.

    A setting younger than the run had its default. Raises ValueError.
    """
    asked = json.loads(json.dumps(dataclasses.asdict(config)))
    begun, default = (
        read_config(folder),
        json.loads(json.dumps(dataclasses.asdict(defaults_of(config)))),
    )
    for group, value in default.items():
        begun[group] = {**value, **begun.get(group, {})} if isinstance(value, dict) else begun.get(group, value)
    changed = sorted(
        f"{group}.{key}" if key else group
        for group in asked
        if group not in MAY_CHANGE
        for key in (asked[group] if isinstance(asked[group], dict) else [""])
        if f"{group}.{key}" not in MAY_CHANGE and _at(asked, group, key) != _at(begun, group, key)
    )
    if changed:
        raise ValueError(
            f"resume: {folder} was begun with other settings ({', '.join(changed)} differ); repeat its command with resume=true"
        )
    begun_with = read_json(folder / MANIFEST, COPY, keys={"cohort_sha256": str})
    dealt, here = begun_with["cohort_sha256"], cohort_files(cohort)
    if dealt != cohort.sha256:
        raise ValueError(
            f"resume: {folder} was begun with cohort {dealt[:12]}, got {cohort.sha256[:12]}; give it the same data"
        )

    for name, sha256 in begun_with.get("cohort_files", {}).items():
        if here.get(name, sha256) != sha256:
            raise build_damage_error(
                cohort.folder / name, f"{folder} was begun with another; bring that back, or begin anew"
            )


def _at(settings: dict[str, Any], group: str, key: str) -> Any:
    value = settings.get(group)
    return value.get(key) if key and isinstance(value, dict) else value


def default_run_name() -> str:
    return datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
