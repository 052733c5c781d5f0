"""Fit convex weights of several models' logits, one label at a time, on sums that are added over sites.

The log loss is convex in the weights, and its value, gradient and curvature are sums over slices, so Newton's method on the simplex finds
the minimum. A federation would ask its sites for `sums_at` once in a step, about five times in all.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Floats = NDArray[np.float64]

STEPS, SMALL = 30, 1e-10  # most Newton steps; the least decrease of the mean loss that counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """Sums over known slices for each label: log loss [L], gradient [L, M] and curvature [L, M, M] in the weights, slices [L]."""

    loss: Floats
    gradient: Floats
    curvature: Floats
    slices: Floats

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(
            loss=self.loss + other.loss,
            gradient=self.gradient + other.gradient,
            curvature=self.curvature + other.curvature,
            slices=self.slices + other.slices,
        )


def combine_logits(logits: NDArray[np.floating], weights: NDArray[np.floating]) -> Floats:
    """Combine the members' logits [M, N, L] by weights [L, M] to the ensemble's logits [N, L]."""
    mixed: Floats = np.einsum("mnl,lm->nl", logits.astype(np.float64), weights)
    return mixed


def sums_at(labels: NDArray[np.floating], logits: NDArray[np.floating], weights: Floats) -> Sums:
    """Compute one site's sums at the weights [L, M] from logits [M, N, L]; labels [N, L] that are NaN are left out."""
    known = ~np.isnan(labels)
    truth, members = np.where(known, labels, 0), logits.astype(np.float64)
    mixed = combine_logits(members, weights)
    found = expit(mixed)
    error, spread = np.where(known, found - truth, 0), np.where(known, found * (1 - found), 0)
    return Sums(
        loss=np.where(known, np.logaddexp(0, mixed) - truth * mixed, 0).sum(axis=0),
        gradient=np.einsum("nl,mnl->lm", error, members),
        curvature=np.einsum("nl,mnl,knl->lmk", spread, members, members),
        slices=known.sum(axis=0).astype(np.float64),
    )


def convex_weights(ask: Callable[[Floats], Sums], *, models: int, labels: int) -> Floats:
    """Find the weights [L, M] of least loss, at least 0 and with sum 1; `ask` returns the sums of all sites at given weights.

    The search starts from equal weights, which a label without known slices keeps. A step that does not reduce the loss is halved.
    """
    weights = np.full((labels, models), 1 / models)
    at, share = ask(weights), np.ones(labels)
    goal = _newton(weights, at)
    for _ in range(STEPS):
        tried = weights + share[:, None] * (goal - weights)
        there = ask(tried)
        fell = (at.loss - there.loss) / np.maximum(at.slices, 1)
        better = fell > SMALL
        if not better.any() and (np.abs(goal - weights) * share[:, None]).max() < 1e-3:
            break
        weights = np.where(better[:, None], tried, weights)
        share = np.where(better, 1.0, share / 2)
        at = _where(better, there, at)
        goal = _newton(weights, at)
    return weights


def _where(better: NDArray[np.bool_], there: Sums, here: Sums) -> Sums:
    pick = {
        name: np.where(better.reshape(-1, *[1] * (getattr(here, name).ndim - 1)), getattr(there, name), getattr(here, name))
        for name in Sums.__slots__
    }  # fmt: skip
    return Sums(**pick)


def _newton(weights: Floats, at: Sums) -> Floats:
    """Return the weights [L, M] on the simplex at which the second-order model of each label's loss is least."""
    return np.stack([_on_simplex(*each) for each in zip(weights, at.gradient, at.curvature, at.slices, strict=True)])


def _on_simplex(start: Floats, gradient: Floats, curvature: Floats, slices: float) -> Floats:
    """Minimise g (w - w0) + (w - w0) H (w - w0) / 2 over w >= 0, sum w = 1, by projected gradient steps."""
    if not slices:
        return start
    slope, bend = gradient / slices, curvature / slices
    length = 1 / max(float(np.linalg.eigvalsh(bend)[-1]), 1e-12)
    weights = ahead = start
    for step in range(500):
        before, weights = weights, _project_to_simplex(ahead - length * (slope + bend @ (ahead - start)))
        ahead = weights + step / (step + 3) * (weights - before)  # Nesterov 1983
        if np.abs(weights - before).max() < 1e-9:
            break
    return weights


def _project_to_simplex(point: Floats) -> Floats:
    """Return the nearest point on the simplex (Duchi et al. 2008)."""
    falling = np.sort(point)[::-1]
    excess = (np.cumsum(falling) - 1) / np.arange(1, len(point) + 1)
    nearest: Floats = np.maximum(point - excess[np.flatnonzero(falling > excess)[-1]], 0)
    return nearest


def out_of_fold(
    labels: NDArray[np.floating],
    logits: NDArray[np.floating],
    patients: NDArray[np.generic],
    *,
    seed: int,
    folds: int = 5,
) -> Floats:
    """Compute the ensemble's logits [N, L], each patient's at weights that are fitted on the patients of the other folds."""
    names, member = np.unique(patients, return_inverse=True)
    fold = np.random.default_rng(seed).permutation(len(names))[member] % folds
    found = np.empty(labels.shape)
    for number in np.unique(fold):
        here = fold == number
        weights = convex_weights(
            lambda at, others=~here: sums_at(labels[others], logits[:, others], at),  # type: ignore[misc]
            models=len(logits),
            labels=labels.shape[1],
        )
        found[here] = combine_logits(logits[:, here], weights)
    return found
