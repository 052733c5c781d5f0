"""Estimate each label's prevalence in an unlabelled set from a model's probabilities, and adjust probabilities to a prevalence.

The method is expectation maximisation by Saerens, Latinne and Decaestecker 2002 (Neural Computation 14:21-41): probabilities are
re-weighted by new over old odds, and their mean is the next prevalence, until it no longer changes. It assumes that P(x|y) is the same
here as where the model was trained, and that the model's probabilities are calibrated there.
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
STEPS, STILL = 5000, 1e-7  # for classes: most steps, and the change of log prevalence at which they stop
EDGE = 0.5  # slices by which an estimate stays away from 0 and 1
CELLS = 400  # bins of log-odds in the bootstrap of separate labels
RESAMPLES = 500
WORTH = 10  # weight of the prior, in patients
FLAT = 1e-3  # range of log-odds up to which a label's predictions count as all alike


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """Prevalences [L] of a set. Where `known` [L] is false nothing could be estimated: `here` is `prior`, the rest NaN."""

    prior: Floats  # where the model was trained
    likely: Floats  # the most likely in this set
    here: Floats  # to adjust probabilities to, between `prior` and `likely`
    low: Floats  # 95% percentile interval of `likely`
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
    """Estimate prevalences from probabilities [N, L] that are calibrated at the prevalence `prior` [L], strictly between 0 and 1.

    In `here`, the prior has the weight of the slices of WORTH patients, so a set of few patients changes it little. Nothing is
    estimated from fewer than MIN_PATIENTS patients, nor for a label whose predictions are all alike. An estimate stays half a
    slice away from 0 and 1; one at such a limit has no interval. The bootstrap of the interval draws whole patients.
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
                end = EDGE / (len(found) + 1) * (1 + 1e-6)
                if min(likely[i], 1 - likely[i]) > end:
                    drawn = _bin_log_odds(found[:, i], patients, seed, resamples)
                    low[i], high[i] = np.quantile(_of_label(*drawn, before[i], 0.0), [TAIL, 1 - TAIL])
        case LabelKind.multi_class:
            if known.all():
                likely, here = (_of_classes(found, before, np.ones(len(found)), w) for w in (0.0, worth))
                resampled = draw_patients(patients, seed=seed, resamples=min(resamples, 100))
                weights = resampled.weights[:, 1:].T.astype(np.float64)
                every = [_of_classes(found, before, weight[resampled.member], 0.0) for weight in weights]
                low, high = np.quantile(every, [TAIL, 1 - TAIL], axis=0)
    return Shift(prior=before, likely=likely, here=here, low=low, high=high, known=known)


def adjust_to_prevalence(
    probabilities: NDArray[np.floating],
    prior: NDArray[np.floating],
    here: NDArray[np.floating],
    kind: LabelKind = LabelKind.multi_label,
) -> Floats:
    """Adjust probabilities [N, L] that are calibrated at prevalences `prior` [L] to `here` [L] (Saerens et al. 2002, eq. 2.4)."""
    found, up = clip_probabilities(probabilities), np.asarray(here, np.float64) / prior
    positive: Floats = found * up
    match kind:
        case LabelKind.multi_label:
            down = (1 - np.asarray(here, np.float64)) / (1 - np.asarray(prior, np.float64))
            weighed: Floats = positive / (positive + (1 - found) * down)
        case LabelKind.multi_class:
            weighed = positive / positive.sum(axis=1, keepdims=True)
    return weighed


def _of_label(found: Floats, weights: Floats, prior: float, worth: float) -> Floats:
    """Estimate the prevalence [R] of one label from probabilities [N], of slices or of bins, under weights [R, N].

    Expectation maximisation converges to the maximum of the likelihood with `worth` slices of the prior. The likelihood is
    concave in one prevalence, so halving finds the maximum in 50 steps, however rare the label is.
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
    """Return the probability [CELLS] of each bin of log-odds, and the number [R, CELLS] of slices in it for every resample."""
    drawn = draw_patients(patients, seed=seed, resamples=resamples)
    odds = _log_odds(found)
    low, high = float(odds.min()), float(odds.max())
    cells = np.minimum(((odds - low) / (high - low) * CELLS).astype(np.int64), CELLS - 1)
    counts = np.bincount(drawn.member * CELLS + cells, minlength=drawn.patients * CELLS).reshape(-1, CELLS)
    centres = low + (np.arange(CELLS) + 0.5) * (high - low) / CELLS
    return expit(centres), drawn.weights[:, 1:].T.astype(np.float64) @ counts


def _of_classes(found: Floats, prior: Floats, weights: Floats, worth: float) -> Floats:
    """Estimate the prevalences [C] of classes, which sum to 1, from probabilities [N, C] under weights [N]."""
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
