"""A stacking in a run's folder, read as one model: fold-1, fold-2, ... and stacker.json or stacker.safetensors."""

import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

from fl_rsna.learning.saved import SavedModel, read_head, read_saved
from fl_rsna.learning.stack_features import feature_names
from fl_rsna.learning.stacked import SavedStack, Second, network_second, stack_sha256, tree_second
from fl_rsna.learning.trees import from_json
from fl_rsna.runs import MODEL, STACK_NETWORK, STACKER, fold_folder
from fl_rsna.task import Task


def stacker_at(path: Path) -> Path | None:
    """The file of the second model that a word names, itself or its run's folder; None where it names none."""
    if path.name in (STACKER, STACK_NETWORK):
        return path
    return next((path / name for name in (STACKER, STACK_NETWORK) if (path / name).is_file()), None)


def read_stack(path: Path) -> SavedStack:
    """The stacking whose second model is at `path`; raises ValueError when a part is missing, damaged or of another version."""
    folds = _folds(path)
    second, facts, sha256 = (_trees if path.name == STACKER else _network)(path, folds[0].task)
    return SavedStack(
        path=path,
        folds=folds,
        second=second,
        facts=facts,
        sha256=stack_sha256([fold.sha256 for fold in folds], sha256),
    )


def _folds(path: Path) -> tuple[SavedModel, ...]:
    run = path.parent
    try:
        count = int(yaml.safe_load((run / "config.yaml").read_text())["stacking"]["folds"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):
        raise ValueError(
            f"model: expected the whole folder of a stacking, with fold-1, fold-2, ... and config.yaml, got {path} without; "
            "give the run's folder where it was made, or a copy of all of it"
        ) from None
    return tuple(read_saved(fold_folder(run, number) / MODEL) for number in range(count))


def _trees(path: Path, task: Task) -> tuple[Second, dict[str, Any], str]:
    names = feature_names(task.labels)
    try:
        raw = path.read_bytes()
        said = json.loads(raw)
        if said["features"] != names:
            raise ValueError(f"{len(said['features'])} features that are not this version's {len(names)}")
        forests = {label: from_json(json.dumps(said["trees"][label]).encode(), len(names)) for label in task.labels}
        second = tree_second(forests, [float(said["prior"][label]) for label in task.labels], task)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"model: expected the trees of a stacking, got {path} ({type(error).__name__}: {error}); "
            "copy the run's folder again, or finish the run with resume=true"
        ) from None
    return second, {"platt": said.get("platt")}, hashlib.sha256(raw).hexdigest()


def _network(path: Path, task: Task) -> tuple[Second, dict[str, Any], str]:
    head, facts, sha256 = read_head(path)
    return network_second(head, task), facts, sha256
