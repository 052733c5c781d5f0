"""Metrics equal scikit-learn's, undefined ones say so, and intervals resample patients."""

import numpy as np
import pytest
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score
from tiny import CHEST

from fl_rsna.learning.metrics import (
    auroc,
    auroc_with_interval,
    average_precision,
    compare_aurocs,
    log_loss,
    weighted_auroc,
)
from fl_rsna.task import ICH


@pytest.mark.parametrize("seed", range(50))
def test_weighted_auroc_equals_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(5, 60))
    labels = rng.permutation(np.arange(n) % 2).astype(np.float32)
    scores = (rng.integers(0, 8, n) / 8 if seed % 2 else rng.random(n)).astype(np.float32)  # odd seeds have ties
    weights = rng.integers(0, 4, (3, n)).astype(np.float64)
    weights[:, :2] += [[1, 1]] * 3  # keep both classes
    labels[:2] = (0, 1)
    expected = [roc_auc_score(labels, scores, sample_weight=row) for row in weights]
    np.testing.assert_allclose(weighted_auroc(labels, scores, weights), expected, atol=1e-12)
    assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_one_class_is_undefined_not_guessed() -> None:
    zeros, scores = np.zeros(4, np.float32), np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    assert auroc(zeros, scores) is None
    assert auroc(zeros + 1, scores) is None
    assert average_precision(zeros, scores) is None
    estimate = auroc_with_interval(zeros, scores, np.array(["a", "a", "b", "b"]), seed=0)
    assert (estimate.value, estimate.low, estimate.high, estimate.positives, estimate.negatives) == (
        None,
        None,
        None,
        0,
        4,
    )


def test_average_precision_by_hand() -> None:
    # ranked: positive, negative, positive -> precision 1/1 and 2/3 at the positives
    assert average_precision(np.array([1, 0, 1], np.float32), np.array([0.9, 0.5, 0.1], np.float32)) == pytest.approx(
        (1 + 2 / 3) / 2
    )


def test_log_loss_is_the_competition_metric() -> None:
    labels = np.array([[1, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0]], np.float32)
    found = np.full((2, 6), 0.25, np.float32)
    by_label = [sklearn_log_loss(labels[:, i], found[:, i], labels=[0, 1]) for i in range(6)]
    assert log_loss(labels, found, ICH) == pytest.approx((2 * by_label[0] + sum(by_label[1:])) / 7)
    assert log_loss(labels, labels, ICH) < 1e-5
    assert log_loss(labels, np.full((2, 6), 0.5, np.float32), ICH) == pytest.approx(np.log(2))


def test_log_loss_of_classes_is_that_of_the_true_class() -> None:
    labels = np.eye(4, dtype=np.float32)[[0, 2]]
    found = np.array([[0.7, 0.1, 0.1, 0.1], [0.2, 0.2, 0.5, 0.1]], np.float32)
    assert log_loss(labels, found, CHEST) == pytest.approx(-(np.log(0.7) + np.log(0.5)) / 2)


def test_interval_resamples_patients_not_slices() -> None:
    """Copying every slice of every patient adds no information, so the interval must not shrink."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 40).astype(np.float32)
    scores = (labels * 0.6 + rng.random(40)).astype(np.float32)
    patients = np.arange(40)
    once = auroc_with_interval(labels, scores, patients, seed=3)
    often = auroc_with_interval(np.tile(labels, 20), np.tile(scores, 20), np.tile(patients, 20), seed=3)
    assert (often.value, often.low, often.high) == pytest.approx((once.value, once.low, once.high))
    assert once.low is not None
    assert once.low < once.value < once.high  # type: ignore[operator]
    slices_as_patients = auroc_with_interval(np.tile(labels, 20), np.tile(scores, 20), np.arange(800), seed=3)
    assert slices_as_patients.high - slices_as_patients.low < 0.5 * (often.high - often.low)  # type: ignore[operator]


def test_interval_covers_the_truth_about_95_percent_of_the_time() -> None:
    """40 patients of 6 slices, half positive; patients differ in level and in what they show, so slices are alike.

    Scores of slices of two patients are normal, and their AUROC is Phi(1.5 / sqrt(2 * 0.7^2 + 0.7^2 + 2)) = 0.789.
    """
    covered, patients = 0, np.repeat(np.arange(40), 6)
    for trial in range(200):
        rng = np.random.default_rng(trial)
        truth = np.tile(np.arange(6) % 2, 40).astype(np.float32)
        level, shown = 0.7 * rng.normal(size=40), 1.5 + 0.7 * rng.normal(size=40)
        scores = truth * shown[patients] + level[patients] + rng.normal(size=240)
        estimate = auroc_with_interval(truth, scores, patients, seed=trial, resamples=400)
        covered += estimate.low <= 0.789 <= estimate.high  # type: ignore[operator]
    assert 0.91 <= covered / 200 <= 0.98


def test_a_model_beside_itself_differs_by_nothing_whoever_is_drawn() -> None:
    rng = np.random.default_rng(0)
    labels, scores = (rng.random(40) < 0.4).astype(np.float32), rng.random(40).astype(np.float32)
    patients = np.repeat(np.arange(10), 4)
    same = compare_aurocs(labels, scores, [scores, scores], patients, seed=0, resamples=200)
    for found, value in ((same.difference, 0.0), (same.ratio, 1.0)):
        assert (found.value, found.low, found.high) == pytest.approx((value, value, value))


def test_paired_differences_are_narrower_than_those_of_two_intervals() -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random(400) < 0.4).astype(np.float32)
    good = (labels + rng.normal(0, 1, 400)).astype(np.float32)
    nearly = (good + rng.normal(0, 0.1, 400)).astype(np.float32)
    patients = np.repeat(np.arange(40), 10)
    paired = compare_aurocs(labels, good, [nearly], patients, seed=0).difference
    alone = auroc_with_interval(labels, good, patients, seed=0)
    assert paired.value == pytest.approx(auroc(labels, good) - auroc(labels, nearly))  # type: ignore[operator]
    assert paired.high - paired.low < (alone.high - alone.low) / 2  # type: ignore[operator]
