"""What `model=` names: a run's folder or a model file, with all that its run has to say about it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_rsna.choices import Norm, StrategyName, Window
from fl_rsna.cohort.took_part import Chain, chain_of, facts_of, run_of
from fl_rsna.learning.saved import read_saved
from fl_rsna.learning.stacked import AnyModel
from fl_rsna.runs import MODEL, read_config
from fl_rsna.using.stacks import read_stack, stacker_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A model, and its run where the file lies in one; `summary` only where it is of this very model."""

    saved: AnyModel
    run: Path | None
    config: dict[str, Any]
    manifest: dict[str, Any]
    summary: dict[str, Any]

    @property
    def stored_size(self) -> int:
        """Pixels a side of the PNGs it was trained on."""
        return self.saved.stored_size

    @property
    def operating_points(self) -> dict[str, Any]:
        """Thresholds and temperatures that its run chose on its sites' validation parts; empty without them."""
        return self.saved.facts.get("operating_points") or self.summary.get("operating_points") or {}

    @property
    def chain(self) -> Chain:
        """Whose images it had seen."""
        return chain_of(self.saved.facts, self.saved.path)

    @property
    def fallback(self) -> str | None:
        """What stands in for the parts of the model that stayed at the sites; None when nothing did."""
        model = self.saved.config
        norm = {Norm.local: "BatchNorm layers (FedBN)", Norm.local_stats: "BatchNorm statistics (SiloBN)"}
        kept = [norm[model.norm]] if model.norm in norm else []
        kept += ["window"] if model.window is Window.personal else []
        if kept:
            return f"each site kept its own {' and '.join(kept)}; scored is the global model with the mean of theirs"
        strategy = self.saved.facts.get("strategy") or self.config.get("strategy", {}).get("name")
        if strategy == StrategyName.ditto:
            return "each site kept a model of its own (Ditto); scored is the global one"
        return None


def trained_model(word: str | None) -> Trained:
    """Read the model that `model=` names; raises ValueError when there is none."""
    if not word:
        raise ValueError("model: expected model=<run folder or .safetensors file>, got nothing; give runs/<name>")
    path = Path(word)
    stacker = stacker_at(path)
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
    """The final model of a run's folder, or where else to look."""
    if not folder.is_dir():
        raise ValueError(f"model: expected a run folder or a .safetensors file, got {folder}, which does not exist")
    if (folder / MODEL).is_file():
        return folder / MODEL
    others = [*sorted(folder.glob(f"*/{MODEL}")), *sorted(folder.glob("checkpoints/best.safetensors"))]
    others += sorted(folder.glob(f"alone/*/{MODEL}"))
    hint = f"give model={others[0]}" if others else "finish the run with resume=true, or give another"
    raise ValueError(f"model: no {MODEL} in {folder}, which is no finished federation; {hint}")


def as_json(content: Any) -> bytes:
    """A file's content: plain JSON, in which a number that is none is an error."""
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()
