"""Two readings of the same model: safe, as the run calibrated it, and risky, matched to how common labels seem to be here.

The labels of what is scored have no part in either.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.learning.inference.blending import enforce_union, enforce_union_at_mean
from fl_rsna.learning.inference.label_shift import Shift, adjust_to_prevalence, estimate_shift
from fl_rsna.learning.inference.stacking import AnyModel
from fl_rsna.learning.metrics.operating_points import Platt, honest
from fl_rsna.task import LabelKind, Task

Floats = NDArray[np.float64]
Lines = Mapping[str, Platt | None]  # by label

SAFE, RISKY = "safe", "risky"
STILL = 1e-9  # a change of a mean that is none
ASSUMES = {
    SAFE: "labels are as common here as where the model was trained, or nobody knows better",
    RISKY: "a finding looks the same here as where the model was trained and only how common it is differs; where images "
    "differ, too, as from another scanner, it can be far off",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """Probabilities [N, L], the union label no less likely than others, and what the risky ones rest on.

    The safe union label is raised where another is more likely; the risky one keeps the mean it was matched to.
    """

    safe: Floats
    risky: Floats
    shift: Shift
    moved: float  # by how much the union rule changed the mean of the risky union label; 0 without one


def lines_of(saved: AnyModel) -> Lines:
    """What makes each label's probabilities honest, which the run left in the model file. Raises ValueError without it."""
    said = saved.facts.get("platt")
    if saved.task.kind is LabelKind.multi_class:
        raise ValueError(
            "shift: expected a task of labels, got one of classes, which shift=true cannot match; leave it out"
        )
    if not said or not any(said.values()):
        why = (
            "says nothing of it"
            if said is None
            else "had too few positive or negative exams at its sites for any label"
        )
        raise ValueError(
            f"shift: expected a model whose run says how honest its probabilities are, got {saved.path}, which {why}; "
            "leave shift out, or take the model.safetensors of a newer or larger run"
        )
    return {label: Platt.from_json(said[label]) if said.get(label) else None for label in saved.task.labels}


def has_lines(saved: AnyModel) -> bool:
    """Whether a model can be matched at all."""
    try:
        lines_of(saved)
    except ValueError:
        return False
    return True


def readings(
    found: NDArray[np.floating], calibrated: Floats, index: pd.DataFrame, lines: Lines, task: Task, seed: int
) -> Readings:
    """Both readings of the model's probabilities `found` [N, L], of which `calibrated` is what the run's temperatures make.

    A label without a line, or whose prevalence cannot be estimated here, is read safely in both. Labels are matched first
    and each by itself; the union rule comes after, and must not undo the match of the union label.
    """
    fitted = [lines.get(label) for label in task.labels]
    known = np.array([line is not None for line in fitted])
    prior = np.array([0.5 if line is None else line.prevalence for line in fitted])
    columns = [found[:, i] if line is None else honest(found[:, i], line) for i, line in enumerate(fitted)]
    straight = np.stack(columns, axis=1).astype(np.float64)
    shift = estimate_shift(straight, prior, index[task.group_key].to_numpy(str), seed=seed)
    chosen = known & shift.known
    risky = np.where(chosen, adjust_to_prevalence(straight, shift.prior, shift.here), calibrated)
    of = replace(shift, prior=np.where(known, prior, np.nan), known=chosen)
    after = enforce_union_at_mean(risky, task)
    union = None if task.union is None else task.labels.index(task.union)
    moved = 0.0 if union is None or not len(after) else float(after[:, union].mean() - risky[:, union].mean())
    return Readings(
        safe=enforce_union(calibrated, task), risky=after, shift=of, moved=moved if abs(moved) > STILL else 0.0
    )


def describe_readings(read: Readings, task: Task) -> dict[str, Any]:
    """What evaluation.json says of the two readings."""
    shift = read.shift
    return {
        "assumes": ASSUMES,
        "prevalence": {
            label: {
                "of_the_model": _plain(shift.prior[i]),
                **{
                    name: _plain(values[i]) if shift.known[i] else None
                    for name, values in _collect_estimates(shift).items()
                },
            }
            for i, label in enumerate(task.labels)
        },
        "mean": {
            label: float(read.risky[:, i].mean()) if len(read.risky) else None for i, label in enumerate(task.labels)
        },
        "union_rule": _of_union(read, task),
        "words": words_of(shift, task),
    }


def _of_union(read: Readings, task: Task) -> str | None:
    """What the union rule did to the match of the union label; None where it left its mean."""
    if not read.moved:
        return None
    return (
        f"{task.union} was matched to a smaller share than the others leave it: as it is never less likely than any of them, its "
        f"mean is {read.moved:.4f} above that"
    )


def words_of(shift: Shift, task: Task) -> str | None:
    """The words that have a federation train for this prevalence; the union label no rarer than any other."""
    shares = {label: float(shift.here[i]) for i, label in enumerate(task.labels) if shift.known[i]}
    if not shares:
        return None
    if task.union in shares:
        shares[str(task.union)] = max(shares.values())
    return "'match.prevalence={" + ", ".join(f"{label}: {share:.4g}" for label, share in shares.items()) + "}'"


def _collect_estimates(shift: Shift) -> dict[str, Floats]:
    return {"here": shift.likely, "low": shift.low, "high": shift.high, "matched_to": shift.here}


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
