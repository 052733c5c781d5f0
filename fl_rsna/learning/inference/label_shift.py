"""How common each label is in a set nobody labelled, from what a model says of it; and its probabilities at that prevalence.

Expectation maximisation of Saerens, Latinne and Decaestecker 2002 (Neural Computation 14:21-41): probabilities are
re-weighted by new over old odds, their mean is the next prevalence, until it stays. It assumes that a finding looks the
same here as where the model learned, P(x|y) unchanged, and probabilities that mean what they say there.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from fl_rsna.learning.metrics.bootstrap import MIN_PATIENTS, TAIL, draw_patients
from fl_rsna.learning.metrics.saturation import clip_probabilities
from fl_rsna.task import LabelKind

Floats = NDArray[np.float64]

HALVINGS = 50
STEPS, STILL = 5000, 1e-7  # of classes, at most; a change of a logarithm that is none
EDGE = 0.5  # slices that an estimate stays away from 0 and 1
CELLS = 400  # of log-odds, for the bootstrap of separate labels
RESAMPLES = 500
WORTH = 10  # patients: as much as the prior counts
FLAT = 1e-3  # log-odds: predictions that spread no more than this tell nothing apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """Prevalence [L] where the model learned, as most likely here with its 95% percentile interval, and to match to.

    `here`, to match to, lies between the likely one and the prior. Where `known` [L] is false nothing could be estimated:
    `here` is `prior`, the rest NaN.
    """

    prior: Floats
    likely: Floats
    here: Floats
    low: Floats
    high: Floats
    known: NDArray[np.bool_]


def estimate_shift(
    probabilities: NDArray[np.floating],
    prior: NDArray[np.floating],
    patients: NDArray[np.generic],
    *,
    kind: LabelKind = LabelKind.multi_label,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Shift:
    """From probabilities [N, L] that are calibrated where the prevalence is `prior` [L], strictly between 0 and 1.

    In what is matched to, the prior counts as much as the slices of WORTH patients: of a set of few patients little is
    believed, of thousands all. Nothing is estimated from fewer than MIN_PATIENTS patients, nor for a label whose predictions are all alike. An
    estimate stays half a slice away from 0 and 1; one that rests there is the end of what can be told, and has no interval.
    The interval draws whole patients.
    """
    found, before = clip_probabilities(probabilities), np.asarray(prior, np.float64)
    assert ((before > 0) & (before < 1)).all()
    spread = np.ptp(_log_odds(found), axis=0) if len(found) else np.zeros(len(before))
    known = (spread > FLAT) & (len(np.unique(patients)) >= MIN_PATIENTS)
    if kind is LabelKind.multi_class:
        known = np.full(len(before), known.all())
    worth = WORTH * len(found) / max(len(np.unique(patients)), 1)
    here, (likely, low, high) = before.copy(), np.full((3, len(before)), np.nan)
    match kind:
        case LabelKind.multi_label:
            for i in np.flatnonzero(known):
                once = np.ones((1, len(found)))
                likely[i], here[i] = (_of_label(found[:, i], once, before[i], w)[0] for w in (0.0, worth))
                drawn = _bin_log_odds(found[:, i], patients, seed, resamples)
                if not _is_end(likely[i], len(found)):
                    low[i], high[i] = np.quantile(_of_label(*drawn, before[i], 0.0), [TAIL, 1 - TAIL])
        case LabelKind.multi_class:
            if known.all():
                likely, low, high = _of_classes(found, before, patients, seed, resamples)
                here = _classes_once(found, before, np.ones(len(found)), worth)
    return Shift(prior=before, likely=likely, here=here, low=low, high=high, known=known)


def adjust_to_prevalence(
    probabilities: NDArray[np.floating],
    prior: NDArray[np.floating],
    here: NDArray[np.floating],
    kind: LabelKind = LabelKind.multi_label,
) -> Floats:
    """Probabilities [N, L] meant for prevalences `prior` [L], as they are at `here` [L] (Saerens et al. 2002, eq. 2.4)."""
    found, up = clip_probabilities(probabilities), np.asarray(here, np.float64) / prior
    positive: Floats = found * up
    match kind:
        case LabelKind.multi_label:
            down = (1 - np.asarray(here, np.float64)) / (1 - np.asarray(prior, np.float64))
            weighed: Floats = positive / (positive + (1 - found) * down)
        case LabelKind.multi_class:
            weighed = positive / positive.sum(axis=1, keepdims=True)
    return weighed


def _is_end(share: float, slices: int) -> bool:
    """Whether an estimate rests where it may not go on, half a slice away from 0 or 1."""
    return bool(min(share, 1 - share) <= EDGE / (slices + 1) * (1 + 1e-6))


def _of_label(found: Floats, weights: Floats, prior: float, worth: float) -> Floats:
    """The prevalence [R] of one label: its probabilities [N], or a value of each cell, under weights [R, N].

    Where expectation maximisation comes to rest the likelihood, with `worth` slices of the prior, is highest. It is
    concave in one prevalence, so that halving finds the place in 50 steps, however rare the label is.
    """
    edge = EDGE / (weights.sum(axis=1) + 1)
    low, high = _log_odds(edge), _log_odds(1 - edge)
    up, down = found / prior, (1 - found) / (1 - prior)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        here = expit(middle)[:, None]
        slope = np.einsum("rn,rn->r", weights, (up - down) / (here * up + (1 - here) * down))
        rises = slope + worth * (prior / here[:, 0] - (1 - prior) / (1 - here[:, 0])) > 0
        low, high = np.where(rises, middle, low), np.where(rises, high, middle)
    most_likely: Floats = expit((low + high) / 2)
    return most_likely


def _bin_log_odds(found: Floats, patients: NDArray[np.generic], seed: int, resamples: int) -> tuple[Floats, Floats]:
    """A probability of each cell of log-odds, and how many slices every resample has there [R, CELLS]."""
    drawn = draw_patients(patients, seed=seed, resamples=resamples)
    odds = _log_odds(found)
    low, high = float(odds.min()), float(odds.max())
    cells = np.minimum(((odds - low) / (high - low) * CELLS).astype(np.int64), CELLS - 1)
    counts = np.bincount(drawn.member * CELLS + cells, minlength=drawn.patients * CELLS).reshape(-1, CELLS)
    centres = low + (np.arange(CELLS) + 0.5) * (high - low) / CELLS
    return expit(centres), drawn.weights[:, 1:].T.astype(np.float64) @ counts


def _of_classes(
    found: Floats, prior: Floats, patients: NDArray[np.generic], seed: int, resamples: int
) -> tuple[Floats, Floats, Floats]:
    """Prevalences [C] of classes, which sum to 1, and their interval."""
    drawn = draw_patients(patients, seed=seed, resamples=min(resamples, 100))
    here = _classes_once(found, prior, np.ones(len(found)), 0.0)
    every = [
        _classes_once(found, prior, weights[drawn.member], 0.0) for weights in drawn.weights[:, 1:].T.astype(np.float64)
    ]
    low, high = np.quantile(every, [TAIL, 1 - TAIL], axis=0)
    return here, low, high


def _classes_once(found: Floats, prior: Floats, weights: Floats, worth: float) -> Floats:
    total = weights.sum()
    edge = EDGE / (total + 1)
    here: Floats = prior / prior.sum()
    for _ in range(STEPS):
        before = here
        mean = np.average(adjust_to_prevalence(found, prior, here, LabelKind.multi_class), axis=0, weights=weights)
        here = np.maximum((total * mean + worth * prior) / (total + worth), edge)
        here = here / here.sum()
        if np.abs(np.log(here / before)).max() < STILL:
            break
    return here


def _log_odds(found: Floats) -> Floats:
    odds: Floats = np.log(found / (1 - found))
    return odds
