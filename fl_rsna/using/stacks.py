"""A stacking in a run's folder, read as one model: fold-1, fold-2, ... and stacker.json or stacker.safetensors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fl_rsna.learning.saved import FORMAT, SavedModel, read_head, read_saved
from fl_rsna.learning.stack_features import feature_names
from fl_rsna.learning.stacked import SavedStack, Second, network_second, stack_sha256, tree_second, trees_sha256
from fl_rsna.learning.trees import from_json
from fl_rsna.reading import UNREADABLE, UnreadableFile, read_json
from fl_rsna.runs import MODEL, STACK_NETWORK, STACKER, fold_folder
from fl_rsna.task import Task, TaskName, named_task


def stacker_at(path: Path) -> Path | None:
    """The file of the second model that a word names, itself or its run's folder; None where it names none."""
    if path.name in (STACKER, STACK_NETWORK):
        return path
    return next((path / name for name in (STACKER, STACK_NETWORK) if (path / name).is_file()), None)


def read_stack(path: Path) -> SavedStack:
    """The stacking whose second model is at `path`, on the folds' models beside it.

    Raises ValueError when a part is missing, damaged or of another version.
    """
    second, facts, sha256 = (_trees if path.name == STACKER else _network)(path)
    folds = _folds(path, facts)
    return SavedStack(
        path=path,
        folds=folds,
        second=second(folds[0].task),
        facts=facts,
        sha256=stack_sha256([fold.sha256 for fold in folds], sha256),
    )


def _folds(path: Path, facts: dict[str, Any]) -> tuple[SavedModel, ...]:
    """The slice models that the second model was trained on, by their hashes."""
    named = facts.get("folds")
    if not isinstance(named, list) or not named:
        raise ValueError(f"model: expected the hashes of a stacking's slice models in {path}, got none; train it again")
    folds = tuple(read_saved(fold_folder(path.parent, number) / MODEL) for number in range(len(named)))
    for fold, sha256 in zip(folds, named, strict=True):
        if fold.sha256 != sha256:
            raise ValueError(
                f"model: expected the slice model {str(sha256)[:12]} that {path} was trained on, got {fold.sha256[:12]} in {fold.path}; "
                "give the run's folder where it was made, or a copy of all of it"
            )
    return folds


def _trees(path: Path) -> tuple[Callable[[Task], Second], dict[str, Any], str]:
    try:
        said = read_json(path, "copy the run's folder again, or finish the run with resume=true")
        if said.get("format") != FORMAT:
            raise ValueError(f"it is of format {said.get('format')}, not {FORMAT}")
        sha256 = trees_sha256(said)
        if said.get("model_sha256") != sha256:
            raise ValueError("trees that are not those it was written with")
        task = named_task(TaskName(said["task"]))
        names = feature_names(task.labels)
        if said["features"] != names:
            raise ValueError(f"{len(said['features'])} features that are not this version's {len(names)}")
        forests = {label: from_json(json.dumps(said["trees"][label]).encode(), len(names)) for label in task.labels}
        prior = [float(said["prior"][label]) for label in task.labels]
    except UnreadableFile as error:
        raise ValueError(f"model: {error}") from None
    except UNREADABLE as error:
        raise ValueError(
            f"model: expected the trees of a stacking, got {path} ({type(error).__name__}: {error}); "
            "copy the run's folder again, or finish the run with resume=true"
        ) from None
    facts = {name: said.get(name) for name in ("platt", "operating_points", "ancestry", "folds")}
    return lambda of: tree_second(forests, prior, of), facts, sha256


def _network(path: Path) -> tuple[Callable[[Task], Second], dict[str, Any], str]:
    head, facts, sha256 = read_head(path)
    return lambda task: network_second(head, task), facts, sha256
