"""A slope and an intercept that make probabilities honest, from counts by bin that sites add up."""

import numpy as np
import pytest
from scipy.special import expit

from fl_rsna.learning.metrics.operating_points import Platt, choose_platt, fit_platt, honest, score_counts, site_sums
from fl_rsna.task import ICH


def distorted(n: int = 20000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels [n, 1] of honest logits z, and probabilities that say 2 z + 1 instead."""
    rng = np.random.default_rng(seed)
    z = rng.normal(-2, 1.5, (n, 1))
    return (rng.random((n, 1)) < expit(z)).astype(np.float32), expit(2 * z + 1)


def test_a_distortion_is_undone() -> None:
    labels, found = distorted()
    fitted = fit_platt(score_counts(labels, found)[0])
    assert fitted.slope == pytest.approx(0.5, abs=0.02)
    assert fitted.intercept == pytest.approx(-0.5, abs=0.05)
    after = honest(found[:, 0], fitted)
    assert after.mean() == pytest.approx(labels.mean(), rel=0.01)
    assert fitted.prevalence == pytest.approx(after.mean(), rel=0.01)
    assert Platt.from_json(fitted.to_json()) == fitted


def test_few_slices_hardly_bend_the_line() -> None:
    labels, found = np.array([[0.0], [1.0]], np.float32), np.array([[0.01], [0.99]])
    fitted = fit_platt(score_counts(labels, found)[0])
    assert 0.5 < fitted.slope < 1.5
    assert abs(fitted.intercept) < 0.5


def test_weights_move_the_mean_to_the_prevalence_they_stand_for() -> None:
    labels, found = distorted()
    share, target = labels.mean(), 0.5
    weights = np.array([(1 - target) / (1 - share), target / share])
    assert fit_platt(score_counts(labels, found)[0] * weights[:, None]).prevalence == pytest.approx(target, abs=0.01)


def test_a_label_of_few_exams_has_none() -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros((200, 6), np.float32)
    labels[:60, 0] = labels[:60, 1] = 1  # exams 0 to 5
    labels[:20, 2] = 1  # two exams
    exams = np.arange(200) // 10
    sums = site_sums(labels, rng.random((200, 6)), exams, exams, ICH)
    found = choose_platt(sums, ICH)
    assert [label for label, fitted in found.items() if fitted is not None] == ["any", "epidural"]
