"""How much of the heat of true positives lies in the finding, where that is known: on phantoms, and in boxes people drew."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fl_rsna.choices import ImageKind
from fl_rsna.imaging.statistics import HEAD_ABOVE_HU
from fl_rsna.imaging.store import Image
from fl_rsna.imaging.windows import HU_OFFSET

RESAMPLES, FEWEST = 2000, 5  # draws of patients; no interval from fewer patients
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Of each true positive, in the order of the slices: shares 0..1 [N].

    `share` of its heat inside its lesion, not dilated; `outside` of its heat outside the head; `uniform`: what of
    heat spread evenly over the head would lie in the lesion; `others`: of other patients' heat, on average.
    """

    share: NDArray[np.float64]
    outside: NDArray[np.float64]
    uniform: NDArray[np.float64]
    others: NDArray[np.float64]


def shares(heat: NDArray[np.float32], lesions: Mask, heads: Mask, patients: Sequence[str]) -> Shares:
    """Heat, lesions and heads are [N, S, S]; a slice without any heat has a share of 0."""
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


def summed_up(found: Shares, patients: Sequence[str], *, seed: int) -> dict[str, Any]:
    """Means over slices with 95% intervals by bootstrap over patients, and of the share how many times the uniform one."""
    names, member = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    draws = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)
    weights = np.concatenate([np.ones((1, len(member))), draws[:, member]])
    means = {name: weights @ getattr(found, name) / weights.sum(axis=1) for name in Shares.__slots__}
    means["times_uniform"] = means["share"] / means["uniform"]
    return {
        "slices": len(member),
        "patients": len(names),
        **{name: _estimate(values, enough=len(names) >= FEWEST) for name, values in means.items()},
    }


def _estimate(values: NDArray[np.float64], *, enough: bool) -> dict[str, float | None]:
    """The first value and the middle 95% of the others; None where it is undefined or rests on too few patients."""
    if not np.isfinite(values[0]):
        return {"value": None, "low": None, "high": None}
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return {"value": float(values[0]), "low": float(low) if enough else None, "high": float(high) if enough else None}


def body_of(image: Image, kind: ImageKind) -> Mask:
    """Where on a stored image a finding can be, bool [S, S]: in the head, or anywhere on a film."""
    match kind:
        case ImageKind.hu | ImageKind.windows:
            return head_of(image)
        case ImageKind.grey:
            return np.ones(image.shape[:2], bool)


def head_of(image: Image) -> Mask:
    """The head on a stored image, bool [S, S]: the largest piece denser than air, after thin parts, with its holes filled."""
    dense = image > HEAD_ABOVE_HU + HU_OFFSET if image.ndim == 2 else image[..., 2] > 0  # the widest window
    opened = cv2.morphologyEx(dense.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    outlines, _ = cv2.findContours(opened, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not outlines:
        return np.ones(image.shape[:2], bool)
    largest = max(outlines, key=cv2.contourArea)
    return np.asarray(cv2.drawContours(np.zeros_like(opened), [largest], -1, 1, cv2.FILLED)) > 0


def lesion_of(lesions: Mapping[str, Mask], label: str) -> Mask:
    """Where a label's finding is; of a label that has none of its own, all findings."""
    return lesions[label] if label in lesions else np.any(list(lesions.values()), axis=0)
