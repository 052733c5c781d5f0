"""What a stacking gained over the mean of its slice models, as lines for people."""

from collections.abc import Mapping
from typing import Any

from fl_rsna.reporting.tables import interval


def stack_lines(summary: Mapping[str, Any], headline: str) -> list[str]:
    """None of a run of another stage."""
    stacking = summary.get("stacking")
    if stacking is None:
        return []
    mean, apart = stacking["mean_of_folds"], stacking["against_mean_of_folds"]
    return [
        f"mean of {len(stacking['folds'])} slice models: AUROC {headline} {interval(mean['slice'][headline]['auroc'])}, "
        f"log loss {mean['log_loss']:.4f}",
        f"stacker ({stacking['stacker']}) against it, paired over patients: AUROC {headline} "
        f"{interval(apart['auroc'][headline])}, log loss {interval(apart['log_loss'])}",
    ]
