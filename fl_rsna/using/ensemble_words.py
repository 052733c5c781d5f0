"""Every word of ensemble: those of evaluate, but for several models and their weights."""

from dataclasses import dataclass, field
from typing import Any

from fl_rsna.config import PathsConfig, PrepareConfig
from fl_rsna.using.evaluate_words import EvaluateConfig, Part, ScansConfig, WhereConfig, check_words

EQUAL = "equal"


@dataclass(kw_only=True, slots=True)
class EnsembleConfig:
    """Every word of ensemble."""

    models: list[str] = field(default_factory=list)  # run folders or .safetensors files, two or more
    weights: Any = None  # equal, or a share for each model; default: fitted on the sites' validation predictions
    site: str | None = None  # folder of a site of any cohort
    part: Part | None = None
    shift: bool = False
    out: str | None = None  # new folder; default: ensembles/<date-time>
    seed: int = 0  # of the bootstrap and of the folds
    data: ScansConfig = field(default_factory=ScansConfig)
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    train: WhereConfig = field(default_factory=WhereConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)


def as_evaluate(asked: EnsembleConfig) -> EvaluateConfig:
    """What is asked of each model."""
    shared = {name: getattr(asked, name) for name in EnsembleConfig.__slots__ if name not in ("models", "weights")}
    return EvaluateConfig(**shared)


def check_ensemble(asked: EnsembleConfig) -> None:
    """Refuse fewer than two models, weights that are no shares of them, and what evaluate refuses."""
    if len(asked.models) < 2 or len(set(asked.models)) < len(asked.models):
        got = ", ".join(asked.models) or "nothing"
        raise ValueError(f"models: expected two or more different models, got {got}; give models=[runs/a,runs/b]")
    check_words(as_evaluate(asked))
    weights = asked.weights
    if weights is None or weights == EQUAL:
        return
    numbers = weights if isinstance(weights, list) else []
    usable = all(isinstance(one, int | float) and not isinstance(one, bool) and one >= 0 for one in numbers)
    if len(numbers) != len(asked.models) or not usable or abs(sum(numbers) - 1) > 1e-6:
        raise ValueError(
            f"weights: expected equal, or {len(asked.models)} shares of 0 or more that sum to 1, got {weights}; "
            "give weights=[0.6,0.4]"
        )
