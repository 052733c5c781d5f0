"""Patients are drawn whole, the same seed draws the same, and a draw is worth the slices it repeats."""

from dataclasses import replace

import numpy as np
import pytest

from fl_rsna.learning.metrics.bootstrap import by_patient, draw_patients, totals
from fl_rsna.learning.metrics.metrics import auroc_with_interval
from fl_rsna.learning.metrics.ranking import rank

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
    assert ranked.partial_auroc[0] == pytest.approx(copied.partial_auroc[0], abs=1e-12)


def test_the_partial_auroc_is_the_mean_specificity_where_nearly_all_are_found() -> None:
    patients = np.arange(14).astype(str)
    scores = np.array(
        [0.95, 0.9, 0.85, 0.8, 0.7, 0.65, 0.62, 0.61, 0.6, 0.3, 0.9, 0.5, 0.4, 0.1]
    )  # ten bleed, four do not
    labels = np.array([1.0] * 10 + [0.0] * 4, np.float32)
    found = rank(labels, scores, draw_patients(patients, seed=0, resamples=0)).partial_auroc[0]
    assert found == pytest.approx(1 / 4)  # from nine of ten to ten of ten only the least of the four lies below
    chance = rank(labels, np.full(14, 0.5), draw_patients(patients, seed=0, resamples=0)).partial_auroc[0]
    assert chance == pytest.approx(0.05)
    ordered = rank(labels, labels.astype(np.float64), draw_patients(patients, seed=0, resamples=0)).partial_auroc[0]
    assert ordered == pytest.approx(1)


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
