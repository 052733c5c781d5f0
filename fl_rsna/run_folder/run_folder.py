"""Write and read a run folder. Only this module knows the names of its files and who may write them."""

import contextlib
import csv
import dataclasses
import hashlib
import io
import json
import math
import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import yaml

from fl_rsna.cohort.sites.site_folders import Cohort, cohort_files
from fl_rsna.common.atomic import write_whole
from fl_rsna.common.console_log import CONSOLE_LOG
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
    "data.dicom",  # the cohort's hash covers the data themselves
    "data.labels",
    "strategy.lost",
    "strategy.timeout_s",
    "sequence.encoder",
    "run.name",  # a folder that was copied or renamed is the same run
)  # settings that may change when a run is resumed

PREDICTIONS = "predictions.parquet"  # of the final model on the test site's slices
SCORECARDS = "scorecards.json"  # of the final model on the test site and at every site, whole
REST = (
    "validation_sites",
    "validation_carried",
    "validation_unknown",
)  # of rounds.csv: sites a round's validation rests on, those of them with an earlier answer, and sites that never answered

CONFIG = "config.yaml"  # the resolved settings of a run
SUMMARY = "summary.json"  # how a run ended
ALONE = "alone"  # folder of the sites' own runs, where each trained by itself

COHORT_VIEW = "cohort_view.json"  # example slices and headers of the sites, for the report
EXPLANATIONS = "explanations.json"  # slices of the test site with what the model looked at, for the report
MANIFEST = "manifest.json"  # what describe_start says of a run's start
ANCESTRY = "ancestry.json"  # whose images the run's models have seen; their files say it, too
MODEL = "model.safetensors"  # the final model
ENCODER = "encoder.safetensors"  # in a run of the second stage, the slice model under it
BOTH = "both"  # the kind, in owner.json, of a folder that holds the runs of both stages
SLICE_STAGE = "slice"  # the folder of the first stage's run within BOTH
STACK_NETWORK = "stacker.safetensors"  # the second model of a stacking by a network
STACKER = "stacker.json"  # the second model of a stacking by trees

UNTRAINED = (
    CONFIG,
    MANIFEST,
    "events.jsonl",
    "error.log",
    CONSOLE_LOG,
    "summary.json",
    ENCODER,
    "checkpoints",
    "site_memory",
    "site_memory/*",
    "site_memory/*/failures.log",
    "heartbeat",
)  # all files that a run writes before a site trains
EVENTS = "events.jsonl"
TABLES = "tables"  # the key of `table_hashes` in a checkpoint and in summary.json

END = ("run_failed", "run_end")  # the events that end a run
OF_MANY = ("site_done", "site_failed")  # events that come once a site; the next other event syncs them

COPY = "bring the file back from a copy of the run, or start again under another run.name"

Listener = Callable[[str, Mapping[str, Any]], None]


def fold_folder(run: Path, number: int) -> Path:
    """Find the folder of fold number 0, 1, ... of a stacking: fold-1, fold-2, ..."""
    return run / f"fold-{number + 1}"


class RunFolder:
    """The folder of one run, written by one process. Events go to events.jsonl and to every listener.

    `token` proves that this process made the folder; it is None where the folder existed before.
    """

    def __init__(self, folder: Path, listeners: tuple[Listener, ...] = (), token: str | None = None) -> None:
        self.folder = folder
        self.token = token
        self.is_over = False  # whether the events say how the run ended
        self._listeners = listeners

    def listen(self, listener: Listener) -> None:
        """Call one more listener with every later event."""
        self._listeners = (*self._listeners, listener)

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def site_memory(self) -> Path:
        """Return the folder of what the sites of a simulation keep between rounds."""
        return self.folder / "site_memory"

    def cache_folder(self, cohort_sha256: str) -> Path:
        """Return the cache, which all runs share, for the packed test site of a cohort whose folder cannot be written."""
        return self.folder.parent / ".packed" / cohort_sha256[:16]

    def event(self, kind: str, /, **fields: Any) -> None:
        """Append one line to events.jsonl and call the listeners.

        Other processes can read the line when this returns. It is synced to the disk, except the events in OF_MANY.
        """
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
        """Call the listeners with an event without writing it. A listener that fails is dropped, and that is an event."""
        for listener in self._listeners:
            try:
                listener(kind, fields)
            except Exception as error:  # whatever fails in a display or a tracker, the run goes on
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
        """Read the rows of rounds.csv or sites.csv so far. Raises ValueError for a damaged table."""
        path = self.folder / f"{table}.csv"
        if not path.exists():
            return []
        with refuse_unreadable(path, "a CSV table"), path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    @property
    def without_effect(self) -> dict[str, str]:
        """Read the settings that act nowhere in this run, each with what it would need."""
        found: dict[str, str] = self.read_json(MANIFEST).get("without_effect", {})
        return found

    def read_json(self, name: str) -> dict[str, Any]:
        return read_json(self.folder / name, COPY)

    def identity(self) -> dict[str, str | None]:
        """Return what tells this run's checkpoints from another run's, whatever its folder is called."""
        return {"run": self.read_json(MANIFEST).get("id")}

    def table_hashes(self) -> dict[str, dict[str, str | int]]:
        """Measure the lengths of rounds.csv, sites.csv and events.jsonl in bytes, and hash their content."""
        found = {path.name: path.read_bytes() for path in (*self._tables(), self.folder / EVENTS) if path.exists()}
        return {name: {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()} for name, raw in found.items()}

    def rewind(self, round_: int, as_written: Mapping[str, Any] | None = None) -> list[str]:
        """Delete the rows of rounds after `round_`, which a killed run will play again, and lines that are no rows.

        `as_written` is what `table_hashes` returned at round `round_`. Return a sentence for each file that has changed since;
        no model depends on these files.
        """
        said = describe_changed_tables(self.folder, as_written or {})
        for path in self._tables():
            if path.exists():
                _keep_rows(path, round_)
        return said

    def _tables(self) -> list[Path]:
        return [self.folder / f"{table}.csv" for table in ("rounds", "sites")]

    def forget_end(self) -> None:
        """Delete summary.json, which says how an earlier try of the run ended."""
        drop(self.folder / SUMMARY)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        write_whole(self.folder / name, dump_hashed_json(finite_or_null(content)))


def finite_or_null(content: Any) -> Any:
    """Replace NaN and infinite numbers by null, at any depth, as JSON demands."""
    if isinstance(content, Mapping):
        return {key: finite_or_null(item) for key, item in content.items()}
    if isinstance(content, list | tuple):
        return [finite_or_null(item) for item in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _is_torn(file: IO[bytes]) -> bool:
    """Check whether the last line was cut off, by a kill or a full disk."""
    if file.seek(0, os.SEEK_END) == 0:
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"


def describe_changed_tables(folder: Path, as_written: Mapping[str, Any]) -> list[str]:
    """Write a sentence for each file that does not begin with the bytes that `table_hashes` hashed."""
    said = []
    for name, expected in as_written.items():
        raw = (folder / name).read_bytes() if (folder / name).exists() else b""
        if hashlib.sha256(raw[: int(expected["bytes"])]).hexdigest() != str(expected["sha256"]):
            said.append(
                f"{folder / name} is not as the run wrote it, by its hash: a curve or a table that rests on it may be wrong"
            )
    return said


def _keep_rows(path: Path, round_: int) -> None:
    """Rewrite a table with its rows up to a round; a table without any row is deleted."""
    reader = csv.reader(io.StringIO(path.read_bytes().decode(errors="replace"), newline=""))
    names, rows = next(reader, []), []
    at = names.index("round") if "round" in names else 0
    with contextlib.suppress(csv.Error):
        whole = (row for row in reader if len(row) == len(names) and re.fullmatch("[0-9]{1,9}", row[at]))
        rows = [row for row in whole if int(row[at]) <= round_]
    if not rows:
        drop(path)
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([names, *rows])
    write_whole(path, text.getvalue().encode())


def read_config(folder: Path) -> dict[str, Any]:
    """Read the settings that a run began with; raises ValueError when config.yaml is damaged or not the one that the run wrote."""
    path, manifest = folder / CONFIG, folder / MANIFEST
    found = read_yaml(path, COPY)
    stated = read_json(manifest, COPY).get("config_sha256") if manifest.exists() else None
    if stated is not None and stated != settings_sha256(found):
        raise build_damage_error(path, COPY)
    return found


def read_summary(folder: Path) -> dict[str, Any]:
    """Read a run's summary.json; raises ValueError when it is damaged or does not say how the run ended."""
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
    """Make a new run folder with config.yaml and manifest.json, or open an existing one if `config.resume`.

    `token` is the proof to write into a new folder, where another process needs to know it. `without` are the settings that act
    nowhere in the run, each with what it would need. Raises ValueError, with nothing changed, when the folder exists and is not
    to be resumed, when it is not the folder of such a run, and when the run began with other settings or data.
    """
    begun = is_begun(folder)
    manifest = {} if begun else {**describe_start(config, cohort, device), "without_effect": dict(without or {})}
    run = RunFolder(
        folder, listeners, take_run(folder, config, cohort, kind=kind_of(config), resume=config.resume, token=token)
    )
    if begun:
        known = run.read_json(MANIFEST)
        if not Path(known["cohort"]).is_dir():  # the data were moved; check_same has checked that they are the same
            run.write_json(MANIFEST, {**known, "cohort": str(cohort.folder)})
        return run
    run.checkpoints.mkdir(exist_ok=True)
    plain = json.loads(json.dumps(dataclasses.asdict(config)))
    write_whole(folder / CONFIG, yaml.safe_dump(plain, sort_keys=False).encode())
    run.write_json(MANIFEST, manifest)
    return run


def take_run(
    folder: Path, config: Config, cohort: Cohort, *, kind: str, resume: bool, token: str | None = None
) -> str | None:
    """Make the folder of a new run of this kind, or check that this run can go on in it.

    Return the proof of a folder that was made, None for one that existed. The caller holds the folder's lock. Raises ValueError,
    with nothing changed.
    """
    begun = resume and is_begun(folder)
    if begun:
        check_same(folder, config, cohort)
    begun = begun and (kind != BOTH or (folder / SLICE_STAGE).is_dir())
    return take_folder(folder, kinds_of(kind, config, folder), resume=resume, begun=begun, token=token)


def take_folder(
    folder: Path, kinds: tuple[str, ...], *, resume: bool, begun: bool = False, token: str | None = None
) -> str | None:
    """Make a folder of the first of `kinds`, or check that it is of one of them; the caller holds the folder's lock.

    Return the proof of a folder that was made, None for one that existed. Raises ValueError, with nothing changed.
    """
    if not is_new(folder, kinds, resume=resume, begun=begun):
        return None
    try:
        return make_folder(folder, kinds[0], token)
    except FileExistsError:
        raise ValueError(
            f"run.name: expected a new run, got {folder}, which somebody made just now; choose another run.name"
        ) from None


def is_new(folder: Path, kinds: tuple[str, ...], *, resume: bool, begun: bool = False) -> bool:
    """Check whether a run's folder is to be made; False for one of `kinds`, which can be resumed. Raises ValueError for anything else.

    `begun` says that the folder has a run's own files, by which it is accepted when its owner.json is missing.
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
    names = sorted(os.listdir(folder))
    some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    held = f"one of kind {found}" if found else f"what is no run ({some})"
    raise ValueError(
        f"run.name: expected a run of kind {' or '.join(kinds)} to go on with, got {folder} with {held}; choose another run.name"
    )


def kinds_of(kind: str, config: Config, folder: Path) -> tuple[str, ...]:
    """List the kinds that the folder of this run may have: its own, and BOTH for the second of two stages, whose first lies in it."""
    encoder, first = config.sequence.encoder, os.path.realpath(folder / SLICE_STAGE)
    is_second = config.stage is Stage.sequence and encoder is not None and os.path.realpath(encoder) == first
    return (kind, BOTH) if is_second else (kind,)


def refuse_existing(folder: Path, *, resume: bool) -> None:
    """Raise ValueError when `folder` exists and is not to be resumed."""
    if os.path.lexists(folder) and not resume:
        raise ValueError(
            f"run.name: expected a new run, got the existing {folder}; choose another run.name, delete it or say resume=true"
        )


def is_begun(folder: Path) -> bool:
    """Check whether `folder` holds a run's settings and manifest."""
    return (folder / CONFIG).is_file() and (folder / MANIFEST).is_file()


def kind_of(config: Config) -> str:
    """Return the kind of a run's folder, in one word: the baseline's name, else the stage's."""
    return config.stage.value if config.baseline is Baseline.none else config.baseline.value


def is_finished(folder: Path) -> bool:
    """Check whether the run in `folder` is finished. Raises ValueError for a damaged summary.json."""
    return (folder / SUMMARY).exists() and read_summary(folder)["status"] == "finished"


def check_same(folder: Path, config: Config, cohort: Cohort) -> None:
    """Raise ValueError when a run is resumed with other settings than it began with; those in MAY_CHANGE may differ.

    A setting that did not exist when the run began counts as having its default.
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
    before, here = begun_with["cohort_sha256"], cohort_files(cohort)
    if before != cohort.sha256:
        raise ValueError(
            f"resume: {folder} was begun with cohort {before[:12]}, got {cohort.sha256[:12]}; give it the same data"
        )

    for name, sha256 in begun_with.get("cohort_files", {}).items():
        if here.get(name, sha256) != sha256:
            raise build_damage_error(
                cohort.folder / name, f"{folder} was begun with another; bring that back, or start again"
            )


def _at(settings: dict[str, Any], group: str, key: str) -> Any:
    value = settings.get(group)
    return value.get(key) if key and isinstance(value, dict) else value


def default_run_name() -> str:
    """Name a run by the time of day, e.g. 2026-01-02_03-04-05."""
    return datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
