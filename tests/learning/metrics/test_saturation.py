"""Probabilities of exactly 0 and 1 stay finite through everything that is made of them."""

import numpy as np
import pandas as pd
import pytest

from fl_rsna.learning.inference.ensemble_weights import combine_logits, convex_weights, sums_at
from fl_rsna.learning.inference.label_shift import adjust_to_prevalence, estimate_shift
from fl_rsna.learning.inference.stacking import stack_features
from fl_rsna.learning.metrics.bootstrap import draw_patients, support
from fl_rsna.learning.metrics.exams import aggregates, exam_probabilities, group_exams
from fl_rsna.learning.metrics.metrics import log_loss
from fl_rsna.learning.metrics.operating_points import (
    TEMPERATURES,
    Platt,
    calibrate,
    honest,
    loss_by_temperature,
    score_counts,
)
from fl_rsna.learning.metrics.saturation import clip_probabilities, finite_logits
from fl_rsna.learning.metrics.scorecard import calibration
from fl_rsna.learning.models.series_head import blend_logits
from fl_rsna.task import COVID_CXR, ICH, LabelKind, Task

SURE = np.tile(np.array([0.0, 1.0, 0.5, 1.0, 0.0, 1e-30], np.float32), (24, 1))  # of six labels
SURE[1::2] = 1 - SURE[1::2]
TRUE = (np.random.default_rng(0).random(SURE.shape) < 0.5).astype(np.float32)
CLASSES, ONE_HOT = np.tile(np.eye(4, dtype=np.float32), (6, 1)), np.tile(np.eye(4, dtype=np.float32)[::-1], (6, 1))
PATIENTS = np.repeat(np.arange(12), 2)


def test_probabilities_are_moved_no_further_than_a_float32_can_tell() -> None:
    inside = np.random.default_rng(0).random(1000).astype(np.float32)
    inside = inside[(inside > 1e-6) & (inside < 1 - 1e-6)]
    np.testing.assert_array_equal(clip_probabilities(inside), inside.astype(np.float64))
    assert np.isfinite(finite_logits(SURE)).all()
    np.testing.assert_allclose(finite_logits(np.array([0.0, 1.0])), -finite_logits(np.array([1.0, 0.0])), rtol=1e-8)


@pytest.mark.parametrize("temperature", [TEMPERATURES[0], 1.0, TEMPERATURES[-1]])
def test_logits_at_any_temperature_can_be_combined_at_any_weight(temperature: float) -> None:
    """A weight of 0 times a logit without end would be no number."""
    logits = np.stack([finite_logits(SURE, temperature), finite_logits(1 - SURE, np.full(6, temperature))])
    for weights in (np.tile([0.0, 1.0], (6, 1)), np.full((6, 2), 0.5)):
        assert np.isfinite(combine_logits(logits, weights)).all()
    assert np.isfinite(blend_logits(*logits, np.zeros(6))).all()
    found = convex_weights(lambda at: sums_at(TRUE, logits, at), models=2, labels=6)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert np.isfinite(calibrate(SURE, temperature)).all()


@pytest.mark.parametrize(("found", "labels", "task"), [(SURE, TRUE, ICH), (CLASSES, ONE_HOT, COVID_CXR)])
def test_losses_counts_and_calibration_are_finite(found: np.ndarray, labels: np.ndarray, task: Task) -> None:
    assert np.isfinite(log_loss(labels, found, task))
    assert np.isfinite(loss_by_temperature(labels, found, task)).all()
    assert score_counts(labels, found).sum() == labels.size
    exams = group_exams(labels, PATIENTS, PATIENTS, task.kind)
    for how in aggregates(task.kind):
        assert np.isfinite(exam_probabilities(found, exams, how)).all()
    drawn = draw_patients(PATIENTS, seed=0, resamples=20)
    of = calibration(labels[:, 1], found[:, 1], drawn, support(drawn, labels[:, 1]))
    assert all(np.isfinite(each.value or 0.0) for each in (of.log_loss, of.brier, of.ece))
    assert np.isfinite(calibrate(found, TEMPERATURES[0], task.kind)).all()


def test_matching_and_honest_probabilities_are_finite() -> None:
    prior = np.full(6, 0.3)
    shift = estimate_shift(SURE, prior, PATIENTS, resamples=20)
    assert np.isfinite(shift.here).all()
    assert np.isfinite(adjust_to_prevalence(SURE, prior, shift.here)).all()
    assert np.isfinite(
        adjust_to_prevalence(CLASSES, np.full(4, 0.25), np.array([0.7, 0.1, 0.1, 0.1]), LabelKind.multi_class)
    ).all()
    for slope in (0.1, 10.0):
        assert np.isfinite(honest(SURE[:, 0], Platt(slope=slope, intercept=1.0, prevalence=0.3))).all()


def test_what_a_stacker_sees_is_finite() -> None:
    index = pd.DataFrame({"patient_id": PATIENTS, "series_id": PATIENTS, "rank": np.tile([0, 1], 12)})
    assert np.isfinite(stack_features(index, SURE)).all()
