"""Read what people type in another grammar: bare paths, flags and single values where a command takes key=value, as that is meant.

`evaluate runs/first scans/` is `model=runs/first data.dicom=scans/`, and `--rounds 5` is `rounds=5`. What cannot be read with certainty is
answered with what to type.
"""

import contextlib
import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from fl_rsna.cli.hydra_arguments import AGAIN, FLAGS, VALUED
from fl_rsna.settings.reference import list_groups
from fl_rsna.settings.suggest import ALL_SETTINGS, find_key, find_near, suggest_key, suggest_value

RUN_FILES = ("config.yaml", "events.jsonl")
KINDS = (  # the file by which a folder is known, and what the folder is
    ("cohort.json", "cohort"),
    ("prepare.json", "prepared"),
    *((name, "run") for name in RUN_FILES),
    ("index.csv", "site"),
)
SUFFIXES = {".safetensors": "model", ".zip": "scans", ".csv": "table", ".gz": "table", ".parquet": "table"}
SCORED = {"site": "site", "prepared": "data.name", "scans": "data.dicom", "table": "data.dicom"}
TRAINED = {"prepared": "data.name", "cohort": "partition.name", "scans": "data.dicom", "table": "data.labels"}
MEANS = {  # command -> the key that a bare path of each kind is the value of
    "simulate": TRAINED,
    "doctor": TRAINED,
    "coordinate": {"cohort": "partition.name"},
    "prepare": {"scans": "data.dicom", "table": "data.labels"},
    "partition": {"prepared": "data.name"},
    "evaluate": {"run": "model", "model": "model", **SCORED},
    "ensemble": {"run": "models", "model": "models", **SCORED},
    "export": {"run": "model", "model": "model", "site": "site"},
    "audit": {"cohort": "cohort", "table": "table"},
    "replay": {"run": "run"},
}
RUNS = ("simulate", "doctor", "coordinate", "prepare", "partition")  # commands that take all settings and choices
OPEN = ("strategy", "hydra")  # groups whose keys are known only when they are composed
AT = {"data.name": ("paths.prepared", "prepared"), "partition.name": ("paths.sites", "site_data")}


def read_arguments(command: str, typed: Sequence[str], keys: Collection[str]) -> list[str]:
    """Write what was typed as key=value settings and options. `keys` are those of the command. Raises ValueError."""
    arguments, paths, left = list[str](), list[tuple[str, str]](), list(typed)
    while left:
        argument = left.pop(0)
        if argument in (*VALUED, AGAIN):
            arguments += [argument, *([left.pop(0)] if left and "=" not in left[0] else [])]
        elif argument.startswith("-"):
            arguments.append(_read_option(argument, left, keys))
        elif "=" in argument or argument.startswith(("+", "~")):
            if command in RUNS:
                _refuse_unknown(argument, keys)
            arguments.append(argument)
        elif (kind := find_kind(Path(argument))) is not None:
            paths.append((argument, kind))
        elif command == "replay":
            arguments.append(f"round={argument}" if argument.isdecimal() else f"site={argument}")
        else:
            raise ValueError(f"{argument}: expected key=value settings{_explain(command, argument, keys)}")
    return [*arguments, *_name_paths(command, paths, arguments)]


def _refuse_unknown(argument: str, keys: Collection[str]) -> None:
    """Raise ValueError for an argument whose key or choice no run has, before anything is loaded. What it lets pass is checked when composed."""
    key, equals, value = argument.lstrip("+~").partition("=")
    choices = list_groups().get(key, ())
    for choice in value.split(",") if choices else ():
        if re.fullmatch(r"[A-Za-z][\w-]*", choice) and choice not in (*choices, "null"):
            said = f"expected one of {', '.join(choices)}, got {choice!r}{suggest_value(key, choice, choices)}"
            raise ValueError(f"{key}: {said}")
    is_entry = any(key.startswith(f"{one}.") for one in keys if "." in one)  # such as partition.noise.site-1.labels
    if equals and key not in keys and key.partition(".")[0] not in OPEN and not is_entry and not {"@", "/"} & set(key):
        raise ValueError(f"{key}: no such setting{suggest_key(key, keys, value, otherwise=ALL_SETTINGS)}")


def find_kind(path: Path) -> str | None:
    """Say what an existing file or folder is: run, model, cohort, site, prepared, scans or table; None for anything else."""
    if not path.is_dir():
        return SUFFIXES.get(path.suffix.lower()) if path.is_file() else None
    for name, kind in KINDS:
        if (path / name).is_file():
            return kind
    return "runs" if list_runs(path) else "scans"


def list_runs(folder: Path) -> list[str]:
    """List the runs in a folder by name, sweeps and gaps among them; a folder that cannot be read has none."""
    with contextlib.suppress(OSError):
        return sorted(
            one.name
            for one in folder.iterdir()
            if one.is_dir() and any(any(one.glob(pattern)) for name in RUN_FILES for pattern in (name, f"*/{name}"))
        )
    return []


def _read_option(argument: str, left: list[str], keys: Collection[str]) -> str:
    """Read --rounds 5, --rounds=5 and --resume as key=value; `left` are the arguments after it. Other options stay as they are."""
    name, equals, value = argument.partition("=")
    if argument in FLAGS or name in (*VALUED, AGAIN) or not name.startswith("--"):
        return argument
    plain = name[2:]
    key = next((one for one in keys if one == plain.replace("-", "_") or plain.startswith(f"{one}.")), None)
    key = plain if key is not None and "." in plain else key
    if key is None:
        if find_near(name, [one for one in (*FLAGS, *VALUED) if one.startswith("--")], 0.8) is None:
            found = find_key(plain, keys)
            if found is not None:
                raise ValueError(f"{argument}: no such option; did you mean {found}={value or '<value>'}?")
        return argument
    if equals:
        return f"{key}={value}"
    if left and "=" not in left[0] and not left[0].startswith("--"):
        return f"{key}={left.pop(0)}"
    return f"{key}=true"


def _name_paths(command: str, paths: Sequence[tuple[str, str]], arguments: Sequence[str]) -> list[str]:
    """Write bare paths as key=value settings. Raises ValueError for a path that the command has no use for, or that is the second of its kind."""
    given = {argument.partition("=")[0] for argument in arguments}
    named: dict[str, list[str]] = {}
    for path, kind in paths:
        key = MEANS.get(command, {}).get(kind)
        if (
            command == "prepare"
            and kind == "table"
            and "scans" not in {kind for _, kind in paths}
            and "data.dicom" not in given
        ):
            key = "data.dicom"
        if key is None:
            raise ValueError(f"{path}: expected key=value settings{_explain_kind(command, path, kind)}")
        if key in given or (key in named and key != "models"):
            raise ValueError(f"{path}: expected {key} once, got it twice; write each path as key=value")
        named.setdefault(key, []).append(path)
    found = []
    for key, values in named.items():
        if key == "models":
            found.append(f"models=[{','.join(values)}]")
        elif key in AT:
            folder, (where, default) = Path(values[0]), AT[key]
            found.append(f"{key}={folder.name}")
            found += [f"{where}={folder.parent}"] if where not in given and folder.parent != Path(default) else []
            if key == "partition.name" and command != "coordinate" and "data.name" not in {*given, *named}:
                found += _find_prepared(folder)
        else:
            found.append(f"{key}={values[0]}")
    return found


def _find_prepared(cohort: Path) -> list[str]:
    """Name the prepared data that a cohort was made of, as its cohort.json says."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return [f"data.name={Path(json.loads((cohort / 'cohort.json').read_text())['prepared']['folder']).name}"]
    return []


def _explain_kind(command: str, path: str, kind: str) -> str:
    """Say what to type about an existing path that stands for no setting of the command."""
    if kind == "runs":
        key = MEANS.get(command, {}).get("run")
        some = list_runs(Path(path))[0]
        return ", got a folder of runs; " + (
            f"did you mean {key}={Path(path) / some}?" if key else "give one setting in each argument"
        )
    if kind == "run" and command in ("simulate", "doctor"):
        return f"; did you mean start={path}, to begin with its model, or run.name={Path(path).name} resume=true, to continue it?"
    said = "the folder of a run" if kind == "run" else f"a path of kind {kind}"
    takes = ", ".join(f"{key}=<{of}>" for of, key in MEANS.get(command, {}).items())
    return f", got {said}" + (f"; this command takes {takes}" if takes else "")


def _explain(command: str, argument: str, keys: Collection[str]) -> str:
    """Say what was probably meant by a single argument that is no path that exists."""
    path, means = Path(argument), MEANS.get(command, {})
    key = means.get("run") or means.get("scans") or next(iter(means.values()), None)
    if len(path.parts) > 1 or path.suffix:
        near = near_path(path)
        if near is not None and (kind := find_kind(near)) in means:
            return f", and there is no {argument}; did you mean {means[str(kind)]}={near}?"
        return f", and there is no {argument}" + (f"; give a path that exists, e.g. {key}=<path>" if key else "")
    if command in RUNS:
        for group, choices in list_groups().items():
            if (choice := find_near(argument, choices, 0.85)) is not None:
                return f", got a value alone; did you mean {group}={choice}?"
    if argument in keys:
        return f", got a key alone; did you mean {argument}=<value>?"
    return ", got one that is none" + suggest_key(
        argument, keys, "<value>", otherwise=f"fl-rsna {command} --help shows what it takes"
    )


def near_path(path: Path) -> Path | None:
    """Find what lies beside a path that does not exist and has nearly its name."""
    with contextlib.suppress(OSError):
        near = find_near(path.name, [one.name for one in path.parent.iterdir()], 0.6)
        return None if near is None else path.parent / near
    return None
