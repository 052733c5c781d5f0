"""Patients are drawn whole, the same seed draws the same, and too few patients give no interval."""

from dataclasses import replace

import numpy as np
import pytest

from fl_rsna.learning.bootstrap import MIN_PATIENTS, by_patient, draw_patients, estimate, support, totals
from fl_rsna.learning.metrics import auroc_with_interval
from fl_rsna.learning.ranking import rank

NAMES = np.array([f"p{i}" for i in range(12)])


def slices(patients: int = 12, each: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores and patients; every patient has both classes."""
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(each) % 2, patients).astype(np.float32)
    return labels, (labels + rng.normal(0, 1, len(labels))).astype(np.float32), np.repeat(NAMES[:patients], each)


def test_a_draw_holds_as_many_patients_as_there_are() -> None:
    drawn = draw_patients(np.repeat(NAMES, 3), seed=0, resamples=50)
    assert (drawn.weights[:, 0] == 1).all()
    assert (drawn.weights.sum(0) == 12).all()


def test_totals_are_those_of_the_rows_each_draw_repeats() -> None:
    labels, scores, patients = slices()
    drawn = draw_patients(patients, seed=1, resamples=100)
    found = totals(drawn, by_patient(drawn, labels, scores))
    np.testing.assert_allclose(
        found, np.stack([labels, scores]).astype(np.float64) @ drawn.weights[drawn.member], atol=1e-12
    )


def test_a_patient_drawn_twice_counts_as_two_patients_alike() -> None:
    labels, scores, patients = slices(3)
    drawn = draw_patients(patients, seed=0, resamples=0)
    weighted = replace(drawn, weights=np.array([[2], [1], [0]], np.int16))
    rows = np.r_[0:5, 0:5, 5:10]
    twice = draw_patients(np.repeat(NAMES[:3], 5), seed=0, resamples=0)
    ranked, copied = rank(labels, scores, weighted), rank(labels[rows], scores[rows], twice)
    assert ranked.auroc[0] == pytest.approx(copied.auroc[0], abs=1e-12)
    assert ranked.average_precision[0] == pytest.approx(copied.average_precision[0], abs=1e-12)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    labels, scores, patients = slices()
    once, again, other = (auroc_with_interval(labels, scores, patients, seed=seed) for seed in (7, 7, 8))
    assert once == again
    assert (once.low, once.high) != (other.low, other.high)


def test_the_order_of_slices_changes_nothing() -> None:
    labels, scores, patients = slices()
    order = np.random.default_rng(1).permutation(len(labels))
    once = auroc_with_interval(labels, scores, patients, seed=7)
    shuffled = auroc_with_interval(labels[order], scores[order], patients[order], seed=7)
    assert (shuffled.value, shuffled.low, shuffled.high) == pytest.approx((once.value, once.low, once.high), abs=1e-12)


def test_more_draws_than_are_worked_on_at_once_are_all_used() -> None:
    labels, scores, patients = slices()
    drawn = draw_patients(patients, seed=0, resamples=150)
    alone = [rank(labels, scores, replace(drawn, weights=drawn.weights[:, [i]])).auroc[0] for i in range(151)]
    np.testing.assert_allclose(rank(labels, scores, drawn).auroc, alone, atol=1e-12)


@pytest.mark.parametrize("holders", [1, MIN_PATIENTS - 1, MIN_PATIENTS])
@pytest.mark.parametrize("rare", [0, 1])
def test_an_interval_needs_enough_patients_of_either_kind(holders: int, rare: int) -> None:
    _, scores, patients = slices()
    labels = np.full(len(scores), 1 - rare, np.float32)
    labels[np.isin(patients, NAMES[:holders])] = rare
    found = auroc_with_interval(labels, scores, patients, seed=0)
    assert found.value is not None
    assert (found.low is not None) == (found.high is not None) == (holders == MIN_PATIENTS)
    assert found.positive_patients == (holders if rare else 12 - holders)


def test_one_patient_has_no_interval() -> None:
    labels, scores, patients = slices(1)
    found = auroc_with_interval(labels, scores, patients, seed=0)
    assert found.value is not None
    assert (found.low, found.high, found.positive_patients) == (None, None, 1)


def test_a_label_without_positives_says_so() -> None:
    _, scores, patients = slices()
    found = auroc_with_interval(np.zeros(60, np.float32), scores, patients, seed=0)
    assert (found.value, found.low, found.positives, found.negatives, found.positive_patients) == (None, None, 0, 60, 0)


def test_mostly_undefined_resamples_give_no_interval() -> None:
    labels, _, patients = slices()
    rests_on = support(draw_patients(patients, seed=0, resamples=0), labels)
    half = np.r_[0.5, np.linspace(0, 1, 50), np.full(50, np.nan)]
    assert estimate(half, rests_on).low is not None
    assert estimate(np.r_[half, np.nan], rests_on).low is None
