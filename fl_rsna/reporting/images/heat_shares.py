"""Measure how much of a model's Grad-CAM heat lies in the known lesions, with intervals over patients."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

RESAMPLES, FEWEST = 2000, 5  # draws of patients; no interval from fewer patients
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Shares of heat of each true positive, 0..1 [N] in the order of the slices.

    `share` of its heat lies inside its lesion, not dilated, and `outside` outside the head. `uniform` would lie in the
    lesion if heat were spread evenly over the head. `others` is the share of other patients' heat that lies in the lesion,
    on average.
    """

    share: NDArray[np.float64]
    outside: NDArray[np.float64]
    uniform: NDArray[np.float64]
    others: NDArray[np.float64]


class HeatFigures(TypedDict):
    """A mean over slices with its 95% interval over patients; None where it is undefined or the patients are too few."""

    value: float | None
    low: float | None
    high: float | None


class HeatSummary(TypedDict):
    """Means of `Shares` over slices; `times_uniform` is the mean share of heat in the lesion divided by the uniform one."""

    slices: int
    patients: int
    share: HeatFigures
    outside: HeatFigures
    uniform: HeatFigures
    others: HeatFigures
    times_uniform: HeatFigures


def shares(heat: NDArray[np.float32], lesions: Mask, heads: Mask, patients: Sequence[str]) -> Shares:
    """Compute the shares of heat of true positives; heat, lesions and heads are [N, S, S]. A slice without heat has a share of 0."""
    count = len(heat)
    flat = heat.reshape(count, -1).astype(np.float64)
    flat /= np.maximum(flat.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    lesion, head = lesions.reshape(count, -1).astype(np.float64), heads.reshape(count, -1).astype(np.float64)
    crossed = flat @ lesion.T  # heat of the row's slice in the lesion of the column's
    names = np.asarray(patients, dtype=object)
    strange = names[:, None] != names[None, :]
    with np.errstate(invalid="ignore"):
        others = (crossed * strange).sum(axis=0) / strange.sum(axis=0)
    return Shares(
        share=np.diag(crossed).copy(),
        outside=(flat * (1 - head)).sum(axis=1),
        uniform=(lesion * head).sum(axis=1) / head.sum(axis=1),
        others=others,
    )


def summarize_shares(found: Shares, patients: Sequence[str], *, seed: int) -> HeatSummary:
    """Average shares of heat over slices, with 95% intervals by bootstrap over patients, from the generator of `seed`."""
    names, member = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    draws = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)
    weights = np.concatenate([np.ones((1, len(member))), draws[:, member]])
    total, enough = weights.sum(axis=1), len(names) >= FEWEST
    share, uniform = weights @ found.share / total, weights @ found.uniform / total
    return {
        "slices": len(member),
        "patients": len(names),
        "share": _estimate(share, enough=enough),
        "outside": _estimate(weights @ found.outside / total, enough=enough),
        "uniform": _estimate(uniform, enough=enough),
        "others": _estimate(weights @ found.others / total, enough=enough),
        "times_uniform": _estimate(share / uniform, enough=enough),
    }


def _estimate(values: NDArray[np.float64], *, enough: bool) -> HeatFigures:
    """Take the first value with the middle 95% of the others; None where it is undefined or there are not `enough` patients."""
    if not np.isfinite(values[0]):
        return {"value": None, "low": None, "high": None}
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return {"value": float(values[0]), "low": float(low) if enough else None, "high": float(high) if enough else None}
