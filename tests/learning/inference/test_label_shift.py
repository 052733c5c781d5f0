"""The prevalence of a set without labels, from exact posteriors: found, of use under shift, harmless without."""

import numpy as np
import pytest
from scipy.special import expit, logit

from fl_rsna.learning.inference.label_shift import adjust_to_prevalence, estimate_shift
from fl_rsna.learning.metrics.metrics import label_losses
from fl_rsna.task import LabelKind

PRIOR = np.array([0.30, 0.10, 0.05])
APART = np.array([2.0, 1.5, 3.0])  # how far a finding moves what is seen, in standard deviations


def seen_at(prevalence: np.ndarray, n: int = 8000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels at a prevalence, the exact posteriors of a model that learned at PRIOR, and patients of 8 slices."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 3)) < prevalence).astype(np.float32)
    seen = rng.normal(labels * APART, 1.0)
    return labels, expit(logit(PRIOR) + APART * seen - APART**2 / 2), np.arange(n) // 8


def losses(labels: np.ndarray, found: np.ndarray) -> np.ndarray:
    mean: np.ndarray = label_losses(labels, found).mean(0)
    return mean


@pytest.mark.parametrize("prevalence", [[0.30, 0.10, 0.05], [0.10, 0.30, 0.01], [0.60, 0.02, 0.20]])
def test_the_prevalence_is_found(prevalence: list[float]) -> None:
    """Within 0.03 for any, and within its own interval; exact where P(x|y) is that of training."""
    labels, found, patients = seen_at(np.array(prevalence))
    shift = estimate_shift(found, PRIOR, patients)
    assert shift.known.all()
    assert shift.likely == pytest.approx(labels.mean(0), abs=0.03)
    between = np.sort([shift.likely, PRIOR], axis=0)
    assert ((between[0] <= shift.here) & (shift.here <= between[1])).all()
    assert (shift.low < labels.mean(0)).all()
    assert (labels.mean(0) < shift.high).all()
    assert (shift.high - shift.low < 0.08).all()


def test_matching_helps_under_shift_and_does_nearly_nothing_without() -> None:
    labels, found, patients = seen_at(np.array([0.10, 0.30, 0.01]))
    shift = estimate_shift(found, PRIOR, patients)
    after = losses(labels, adjust_to_prevalence(found, PRIOR, shift.here))
    assert (after < 0.95 * losses(labels, found)).all()
    best = losses(labels, adjust_to_prevalence(found, PRIOR, labels.mean(0)))
    assert after == pytest.approx(best, abs=0.002)
    labels, found, patients = seen_at(PRIOR)
    same = adjust_to_prevalence(found, PRIOR, estimate_shift(found, PRIOR, patients).here)
    assert losses(labels, same) == pytest.approx(losses(labels, found), abs=0.002)


def test_the_estimate_is_the_mean_of_what_is_matched_to_it_and_of_the_prior_of_ten_patients() -> None:
    _, found, patients = seen_at(np.array([0.2, 0.2, 0.2]), n=2000)
    here = estimate_shift(found, PRIOR, patients, resamples=2).here
    mean = (2000 * adjust_to_prevalence(found, PRIOR, here).mean(0) + 80 * PRIOR) / 2080
    assert mean == pytest.approx(here, rel=1e-6)
    assert adjust_to_prevalence(adjust_to_prevalence(found, PRIOR, here), here, PRIOR) == pytest.approx(found, abs=2e-7)


def test_nothing_is_said_of_few_patients_or_of_predictions_that_are_all_alike() -> None:
    _, found, patients = seen_at(np.array([0.2, 0.2, 0.2]), n=32)
    few = estimate_shift(found, PRIOR, patients)  # 4 patients
    assert not few.known.any()
    assert np.array_equal(few.here, PRIOR)
    assert np.isnan(few.low).all()
    _, found, patients = seen_at(np.array([0.2, 0.2, 0.2]))
    found[:, 1] = 0.4
    shift = estimate_shift(found, PRIOR, patients)
    assert shift.known.tolist() == [True, False, True]
    assert shift.here[1] == PRIOR[1]
    assert not estimate_shift(found[:0], PRIOR, patients[:0]).known.any()


def test_a_set_without_any_finding_stays_half_a_slice_away_from_zero() -> None:
    _, found, patients = seen_at(np.zeros(3), n=4000)
    shift = estimate_shift(found, PRIOR, patients)
    assert (shift.here > 0).all()
    assert (shift.here < 0.03).all()
    certain = estimate_shift(np.repeat([[1e-9], [1.0]], 50, 0), np.array([0.5]), np.arange(100))
    assert certain.here == pytest.approx(0.5, abs=0.01)


def test_classes_are_estimated_together() -> None:
    rng, prior, there = np.random.default_rng(0), np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.3, 0.5])
    truth = rng.choice(3, 4000, p=there)
    seen = rng.normal(2.5 * np.eye(3)[truth], 1.0)
    found = prior * np.exp(2.5 * seen)
    found /= found.sum(1, keepdims=True)
    shift = estimate_shift(found, prior, np.arange(4000) // 8, kind=LabelKind.multi_class)
    assert shift.here == pytest.approx(there, abs=0.03)
    assert shift.here.sum() == pytest.approx(1)
    assert ((shift.low < shift.likely) & (shift.likely < shift.high)).all()
    after = adjust_to_prevalence(found, prior, shift.here, LabelKind.multi_class)
    rows = np.arange(4000)
    assert -np.log(after[rows, truth]).mean() < -np.log(found[rows, truth]).mean() - 0.02
