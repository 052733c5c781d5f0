"""Load the model that `model=` names, a run's folder or a model file, with all that its run says about it.

A stacking's folder is loaded as one model: fold-1, fold-2, ... and stacker.json or stacker.safetensors.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_rsna.cohort.sites.provenance import Chain, chain_of, facts_of, run_of
from fl_rsna.common.reading import UNREADABLE, UnreadableFile, read_json
from fl_rsna.learning.inference.stacking import (
    AnyModel,
    SavedStack,
    Second,
    feature_names,
    network_second,
    stack_sha256,
    tree_second,
    trees_sha256,
)
from fl_rsna.learning.models.saved import FORMAT, SavedModel, read_head, read_saved
from fl_rsna.learning.models.trees import from_json
from fl_rsna.run_folder.run_folder import MODEL, STACK_NETWORK, STACKER, fold_folder, read_config
from fl_rsna.settings.model import Norm, Window
from fl_rsna.strategies.find import STRATEGIES
from fl_rsna.task import Task, find_task


def read_stack(path: Path) -> SavedStack:
    """Read the stacking whose second model is at `path`, with the folds' models beside it.

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
    """Read the slice models that the second model was trained on, and compare their hashes. Raises ValueError for another."""
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
        task = find_task(said["task"])
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A model, and its run where the file lies in one; `summary` is empty where the run's is of another model."""

    saved: AnyModel
    run: Path | None
    config: dict[str, Any]
    manifest: dict[str, Any]
    summary: dict[str, Any]

    @property
    def png_size(self) -> int:
        """Return the pixels a side of the PNGs that the model was trained on."""
        return self.saved.png_size

    @property
    def run_points(self) -> dict[str, Any]:
        """Return the thresholds and temperatures that the run chose on its sites' validation parts; empty without them."""
        return self.saved.facts.get("operating_points") or self.summary.get("operating_points") or {}

    @property
    def chain(self) -> Chain:
        """Return the record of whose images the model has seen."""
        return chain_of(self.saved.facts, self.saved.path)

    @property
    def fallback(self) -> str | None:
        """Say what stands in for the parts of the model that stayed at the sites; None where none did."""
        model = self.saved.config
        norm = {Norm.local: "BatchNorm layers (FedBN)", Norm.local_stats: "BatchNorm statistics (SiloBN)"}
        kept = [norm[model.norm]] if model.norm in norm else []
        kept += ["window"] if model.window is Window.personal else []
        if kept:
            return f"each site kept its own {' and '.join(kept)}; scored is the global model with the mean of theirs"
        strategy = self.saved.facts.get("strategy") or self.config.get("strategy", {}).get("name")
        if strategy in STRATEGIES and STRATEGIES[strategy].keeps_model:
            return f"each site kept a model of its own ({STRATEGIES[strategy].title}); scored is the global one"
        return None


def read_named_model(given: str | None) -> Trained:
    """Read the model that `model=` names; raises ValueError when there is none."""
    if not given:
        raise ValueError("model: expected model=<run folder or .safetensors file>, got nothing; give runs/<name>")
    path, names = Path(given), (STACKER, STACK_NETWORK)
    inside = (path / name for name in names if (path / name).is_file())
    stacker = path if path.name in names else next(inside, None)
    file = stacker or (path if path.is_file() else _model_of(path))
    saved = read_saved(file) if stacker is None else read_stack(stacker)
    folder = run_of(file)
    if folder is None:
        return Trained(saved=saved, run=None, config={}, manifest={}, summary={})
    summary = facts_of(folder / "summary.json")
    return Trained(
        saved=saved,
        run=folder,
        config=read_config(folder),
        manifest=facts_of(folder / "manifest.json"),
        summary=summary if summary.get("model_sha256") == saved.sha256 else {},
    )


def _model_of(folder: Path) -> Path:
    """Find the final model in a run's folder; else raise ValueError that says where a model lies."""
    if not folder.is_dir():
        raise ValueError(f"model: expected a run folder or a .safetensors file, got {folder}, which does not exist")
    if (folder / MODEL).is_file():
        return folder / MODEL
    others = [*sorted(folder.glob(f"*/{MODEL}")), *sorted(folder.glob("checkpoints/best.safetensors"))]
    others += sorted(folder.glob(f"alone/*/{MODEL}"))
    hint = f"give model={others[0]}" if others else "finish the run with resume=true, or give another"
    raise ValueError(f"model: no {MODEL} in {folder}, which is no finished federation; {hint}")


def as_json(content: Any) -> bytes:
    """Write plain JSON as a file's content; raises ValueError for NaN and infinite numbers."""
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()
