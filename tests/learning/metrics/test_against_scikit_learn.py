"""Every metric equals scikit-learn's on random cases: ties, one class, and patients drawn more than once or not at all."""

import warnings

import numpy as np
import pytest
import sklearn
from sklearn import metrics as reference

from fl_rsna.learning.metrics.bootstrap import Drawn, draw_patients, support
from fl_rsna.learning.metrics.classification import at_threshold, predict_positive, ratios
from fl_rsna.learning.metrics.metrics import auroc, average_precision, label_losses
from fl_rsna.learning.metrics.ranking import rank
from fl_rsna.learning.metrics.scorecard import BINS, calibration

CASES, BLOCKS = 1000, 10


def random_case(seed: int) -> tuple[np.ndarray, np.ndarray, Drawn, float]:
    """Labels, probabilities, two draws of patients and a threshold; every third case has ties, every fifth one class."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 50))
    labels = (rng.random(n) < (rng.random() if seed % 5 else seed % 2)).astype(np.float32)
    scores = rng.integers(0, 6, n) / 5 if seed % 3 == 0 else rng.random(n)
    drawn = draw_patients(rng.integers(0, rng.integers(1, 12), n), seed=seed, resamples=2)
    return labels, scores.astype(np.float32), drawn, float(rng.choice([0.2, 0.5, rng.random()]))


def expected_ratios(labels: np.ndarray, flagged: np.ndarray, weight: np.ndarray) -> dict[str, float]:
    (npv, ppv), (specificity, sensitivity), (_, f1), _ = reference.precision_recall_fscore_support(
        labels, flagged, labels=[0, 1], sample_weight=weight, zero_division=np.nan
    )
    return {
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ppv": ppv,
        "npv": npv,
        "f1": f1,
        "false_negative_rate": 1 - sensitivity,
    }


@pytest.mark.slow
@pytest.mark.parametrize("block", range(BLOCKS))
def test_metrics_equal_scikit_learns(block: int) -> None:
    with sklearn.config_context(skip_parameter_validation=True, assume_finite=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in range(block * CASES // BLOCKS, (block + 1) * CASES // BLOCKS):
            compare(*random_case(seed), column=seed % 2)


def partial_area(labels: np.ndarray, scores: np.ndarray, weight: np.ndarray) -> float:
    """Mean specificity over sensitivities from 0.9 to 1, along scikit-learn's whole ROC curve."""
    if not 0 < (weight * labels).sum() < weight.sum():
        return np.nan
    fpr, tpr, _ = reference.roc_curve(labels, scores, sample_weight=weight, drop_intermediate=False)
    low, high = np.maximum(tpr[:-1], 0.9), np.maximum(tpr[1:], 0.9)
    rise = np.diff(tpr)
    slope = np.divide(np.diff(fpr), rise, out=np.zeros_like(rise), where=rise > 0)
    middle = fpr[:-1] + slope * ((low + high) / 2 - tpr[:-1])
    return float(((high - low) * (1 - middle)).sum() / 0.1)


def compare(labels: np.ndarray, scores: np.ndarray, drawn: Drawn, threshold: float, *, column: int) -> None:
    """Column 0 of the draws is the data as it is, column 1 weighs patients."""
    weight = drawn.weights[drawn.member, column].astype(np.float64)
    flagged, truth = predict_positive(scores, threshold), labels.astype(np.float64)
    positive, total = (weight * truth).sum(), weight.sum()
    area = reference.roc_auc_score(labels, scores, sample_weight=weight) if 0 < positive < total else np.nan
    precision = reference.average_precision_score(labels, scores, sample_weight=weight) if positive else np.nan
    ranked = rank(labels, scores, drawn)
    np.testing.assert_allclose(ranked.auroc[column], area, atol=1e-12)
    np.testing.assert_allclose(ranked.average_precision[column], precision, atol=1e-12)
    np.testing.assert_allclose(ranked.partial_auroc[column], partial_area(labels, scores, weight), atol=1e-12)
    (tn, fp), (fn, tp) = reference.confusion_matrix(labels, flagged, labels=[0, 1], sample_weight=weight)
    found = ratios(*(np.array([count]) for count in (tp, fp, tn, fn)))
    for name, value in expected_ratios(labels, flagged, weight).items():
        np.testing.assert_allclose(found[name][0], value, atol=1e-12, err_msg=name)
    kept = np.clip(scores.astype(np.float64), 1e-6, 1 - 1e-6)
    loss = reference.log_loss(labels, kept, sample_weight=weight, labels=[0, 1])
    np.testing.assert_allclose(np.average(label_losses(labels, scores), weights=weight), loss, atol=1e-12)
    if column == 0:
        compare_estimates(labels, scores, drawn, threshold, [tn, fp, fn, tp], loss)


def compare_estimates(
    labels: np.ndarray, scores: np.ndarray, drawn: Drawn, threshold: float, counts: list[float], loss: float
) -> None:
    """What readers are given is the same: plain counts and values, None where undefined."""
    rests_on, truth = support(drawn, labels), labels.astype(np.float64)
    point = at_threshold(labels, scores, threshold, drawn, rests_on)
    assert [point[name] for name in ("tn", "fp", "fn", "tp")] == counts
    calibrated = calibration(labels, scores, drawn, rests_on)
    assert calibrated.log_loss.value == pytest.approx(loss)
    assert calibrated.brier.value == pytest.approx(reference.brier_score_loss(truth, scores, pos_label=1), abs=1e-7)
    assert calibrated.ece.value == pytest.approx(ece_by_loop(truth, scores.astype(np.float64)), abs=1e-9)
    assert (auroc(labels, scores) is None) == (labels.min() == labels.max())
    assert (average_precision(labels, scores) is None) == (not labels.any())


def ece_by_loop(labels: np.ndarray, scores: np.ndarray) -> float:
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    gaps = [abs(labels[bins == i].mean() - scores[bins == i].mean()) * (bins == i).mean() for i in np.unique(bins)]
    return float(np.sum(gaps))
