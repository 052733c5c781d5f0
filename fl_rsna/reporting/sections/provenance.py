"""The section on where a run comes from: its data, versions, settings, and the command that repeats it."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_rsna.reporting.record.cells import Table, columns
from fl_rsna.reporting.record.run_record import RunRecord
from fl_rsna.reporting.sections.section import Section
from fl_rsna.run_folder.repeatable import unrepeatable
from fl_rsna.settings.model import Crop, Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What identifies the run, as it wrote it down; None where it did not."""

    about: str
    model_sha256: str | None
    cohort: str | None
    cohort_sha256: str | None
    command: str | None
    replay: str
    started: str | None
    resumed_after: Sequence[int]
    device: str
    machine: str | None
    commit: str | None
    versions: Mapping[str, str | None]


def build_provenance(run: RunRecord) -> Section:
    """Build the section of a run in any state."""
    manifest, engine = run.manifest, run.config["engine"]
    workers = "" if engine["workers"] is None else f", workers={engine['workers']}"
    body = Provenance(
        about=_about(run),
        model_sha256=None if run.summary is None else run.summary.get("model_sha256"),
        cohort=manifest.get("cohort"),
        cohort_sha256=manifest.get("cohort_sha256"),
        command=format_command(manifest["command"]) if manifest.get("command") else None,
        replay=unrepeatable(run.folder) or format_replay_command(run.folder),
        started=manifest.get("started"),
        resumed_after=run.resumed,
        device=f"{manifest.get('device', 'not stated')}, {engine['name']}{workers}",
        machine=manifest.get("machine"),
        commit=manifest.get("git_commit"),
        versions={**manifest.get("versions", {}), "python": manifest.get("python")},
    )
    return Section(title="Provenance", body=body)


def format_command(command: list[str]) -> str:
    """A recorded command line as one can type it; a file of ours becomes `python -m fl_rsna.<name>`."""
    program, arguments = Path(command[0]), command[1:]
    start = f"python -m fl_rsna.{program.stem}" if program.suffix == ".py" else shlex.quote(program.name)
    return " ".join([start, *(shlex.quote(argument) for argument in arguments)])


def format_replay_command(run: Path) -> str:
    """The command that repeats one site's part in a round, for any shell and any path."""
    return f"python -m fl_rsna.replay {shlex.quote(f'run={run}')} site=<site> round=<number>"


def settings_table(config: Mapping[str, Any]) -> Table:
    """One row a setting: its full name and its value."""
    rows: list[list[Any]] = [[name, _format_value(value)] for name, value in flat(config).items()]
    return Table(title="Settings", columns=columns(setting="text", value="exact"), rows=rows)


def flat(config: Mapping[str, Any], path: str = "") -> Mapping[str, Any]:
    """Settings by their full names; an empty group is one setting."""
    pairs = [
        flat(value, f"{path}{key}.") if isinstance(value, Mapping) and value else {f"{path}{key}": value}
        for key, value in config.items()
    ]
    return {name: value for of_key in pairs for name, value in of_key.items()}


def _format_value(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case _:
            return str(value)


def _network(model: Mapping[str, Any]) -> str:
    """The network with what it sees, as far as that is not the plain slice."""
    slices, crop = 1 + 2 * model["neighbours"], Crop(model["crop"])
    more = [f"{slices} slices at once"] if slices > 1 else []
    more += [f"{model['window']} window"] if model["window"] != Window.fixed else []
    if crop is not Crop.none:
        more.append(f"cropped to {'ground-truth boxes' if crop.shows_truth else f'the {crop}'}")
    more += [f"mean of {model['tta']} views"] if model["tta"] > 1 else []
    return ", ".join([f"{model['backbone'] or model['name']} at {model['image_size']} px", *more])


def _about(run: RunRecord) -> str:
    config = run.config
    parts = [
        f"{config['strategy']['name']}, BatchNorm {config['model']['norm']}",
        _network(config["model"]),
        f"{run.num_training_sites} sites",
        f"{config['partition']['kind']} partition of {config['data']['name']}",
        f"seed {config['seed']}",
        "research use, not for diagnosis",
    ]
    return " · ".join(parts)
