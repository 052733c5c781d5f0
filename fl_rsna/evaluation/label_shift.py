"""Read a model's probabilities in two ways: safe, as the run calibrated them, and risky, matched to the prevalence estimated here.

Neither uses the labels of the slices that are scored.
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
STILL = 1e-9  # a change of a mean that counts as none
ASSUMES = {
    SAFE: "labels are as common here as where the model was trained, or nobody knows better",
    RISKY: "a finding looks the same here as where the model was trained and only how common it is differs; where images "
    "differ, too, as from another scanner, it can be far off",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """Probabilities [N, L] of both readings, and the estimated shift of prevalence that the risky one rests on.

    The union label is no less likely than any other. The safe reading raises it where another label is more likely; the risky
    one keeps the mean that it was matched to.
    """

    safe: Floats
    risky: Floats
    shift: Shift
    moved: float  # by how much the union rule changed the mean of the risky union label; 0 without one


def lines_of(saved: AnyModel) -> Lines:
    """Read the Platt line of each label, which calibrates its probabilities, from the model file. Raises ValueError without any."""
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
    """Check whether a model has the Platt lines that a risky reading needs."""
    try:
        lines_of(saved)
    except ValueError:
        return False
    return True


def readings(
    found: NDArray[np.floating], calibrated: Floats, index: pd.DataFrame, lines: Lines, task: Task, seed: int
) -> Readings:
    """Compute both readings of the model's probabilities `found` [N, L]; `calibrated` [N, L] are those at the run's temperatures.

    A label without a line, or whose prevalence cannot be estimated here, has the safe reading in both. Each label is matched by
    itself (Saerens et al. 2002); the union rule follows, and keeps the mean of the union label.
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
    """Describe the two readings for evaluation.json."""
    shift = read.shift
    rule = (
        f"{task.union} was matched to a smaller share than the others leave it: as it is never less likely than any of them, its "
        f"mean is {read.moved:.4f} above that"
    )
    estimates = {"here": shift.likely, "low": shift.low, "high": shift.high, "matched_to": shift.here}
    return {
        "assumes": ASSUMES,
        "prevalence": {
            label: {
                "of_the_model": _plain(shift.prior[i]),
                **{name: _plain(values[i]) if shift.known[i] else None for name, values in estimates.items()},
            }
            for i, label in enumerate(task.labels)
        },
        "mean": {
            label: float(read.risky[:, i].mean()) if len(read.risky) else None for i, label in enumerate(task.labels)
        },
        "union_rule": rule if read.moved else None,
        "words": write_prevalence_setting(shift, task),
    }


def write_prevalence_setting(shift: Shift, task: Task) -> str | None:
    """Write the setting by which a federation trains for this prevalence; the union label is no rarer than any other."""
    shares = {label: float(shift.here[i]) for i, label in enumerate(task.labels) if shift.known[i]}
    if not shares:
        return None
    if task.union in shares:
        shares[str(task.union)] = max(shares.values())
    return "'match.prevalence={" + ", ".join(f"{label}: {share:.4g}" for label, share in shares.items()) + "}'"


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
