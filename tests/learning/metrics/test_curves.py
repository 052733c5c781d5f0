"""What is drawn of probabilities agrees with counts by hand, with the ROC curve, and with the intervals of the scorecard."""

import numpy as np
import pytest

from fl_rsna.learning.metrics.bootstrap import draw_patients
from fl_rsna.learning.metrics.curves import BARS, BENEFIT, GRID, count_by_truth, net_benefit, roc_band
from fl_rsna.learning.metrics.ranking import roc_points


def made(patients: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Four rows of each patient; every second patient is positive and scored somewhat higher."""
    rng = np.random.default_rng(3)
    member = np.repeat(np.arange(patients), 4)
    labels = (member % 2).astype(np.float32)
    return labels, np.clip(0.3 + 0.2 * labels + rng.normal(0, 0.15, len(labels)), 0, 1).astype(np.float32), member


def test_the_band_holds_the_curve_and_narrows_with_patients() -> None:
    widths = []
    for patients in (20, 200):
        labels, scores, member = made(patients)
        band, curve = roc_band(labels, scores, draw_patients(member, seed=0, resamples=400)), roc_points(labels, scores)
        assert band is not None
        middle = np.interp(band.fpr, curve["fpr"], curve["tpr"])
        assert (np.array(band.low) <= middle + 0.05).all()
        assert (np.array(band.high) >= middle - 0.05).all()
        assert set(band.fpr) <= set(GRID)
        widths.append(np.mean(np.array(band.high) - np.array(band.low)))
    assert widths[1] < widths[0] / 2


def test_too_few_patients_have_no_band() -> None:
    labels, scores, member = made(8)
    assert roc_band(labels, scores, draw_patients(member, seed=0, resamples=50)) is None


def test_the_same_draws_give_the_same_band() -> None:
    labels, scores, member = made(20)
    bands = [roc_band(labels, scores, draw_patients(member, seed=1, resamples=100)) for _ in range(2)]
    assert bands[0] == bands[1]


def test_the_histogram_counts_every_row_once() -> None:
    labels, scores = np.array([1, 0, 0, 1], np.float32), np.array([1.0, 0.0, 0.049, 0.51])
    positive, negative = count_by_truth(labels, scores)
    assert negative.tolist() == [2] + [0] * (BARS - 1)
    assert np.flatnonzero(positive).tolist() == [10, BARS - 1]


def test_net_benefit_by_hand() -> None:
    labels, scores = np.array([1, 1, 0, 0], np.float32), np.array([0.9, 0.3, 0.6, 0.1])
    model, everyone = net_benefit(labels, scores)
    at_half = int(np.argmin(np.abs(BENEFIT - 0.5)))
    assert model[at_half] == pytest.approx((1 - 1) / 4)  # one true and one false positive, at odds of 1
    assert everyone[at_half] == pytest.approx(0)
    assert model[-1] == pytest.approx(0)  # nothing is called
