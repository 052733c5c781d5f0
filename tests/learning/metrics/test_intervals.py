"""Intervals: none from too few patients, never outside a metric's range, and wider the fewer patients carry it."""

import numpy as np
import pytest
from scipy.stats import binomtest

from fl_rsna.learning.metrics.bootstrap import MIN_PATIENTS, Scale, draw_patients, estimate, interval, support
from fl_rsna.learning.metrics.metrics import auroc_with_interval

NAMES = np.array([f"p{i}" for i in range(12)])


def slices(patients: int = 12, each: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores and patients; every patient has both classes."""
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(each) % 2, patients).astype(np.float32)
    return labels, (labels + rng.normal(0, 1, len(labels))).astype(np.float32), np.repeat(NAMES[:patients], each)


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
    half = np.r_[0.5, np.linspace(0.1, 0.9, 50), np.full(50, np.nan)]
    assert estimate(half, rests_on, 12).low is not None
    assert estimate(np.r_[half, np.nan], rests_on, 12).low is None
    assert estimate(np.r_[np.nan, half], rests_on, 12).value is None


@pytest.mark.parametrize("share", [0, 1])
@pytest.mark.parametrize("carriers", [MIN_PATIENTS, 40])
def test_a_perfect_share_is_as_sure_as_that_many_trials(share: int, carriers: int) -> None:
    exact = binomtest(share * carriers, carriers).proportion_ci(method="exact")
    assert interval(np.full(11, share, np.float64), carriers) == pytest.approx((exact.low, exact.high))


@pytest.mark.parametrize("scale", Scale)
def test_intervals_hold_their_value_and_keep_to_the_scale(scale: Scale) -> None:
    rng = np.random.default_rng(0)
    for value in (1e-9, 0.001, 0.4, 0.97, 1 - 1e-9):
        noise = rng.normal(0, 0.2, 100) * (value if scale is Scale.positive else 1)
        low, high = interval(np.r_[value, value + noise], 8, scale)
        assert low < value < high  # type: ignore[operator]
        assert scale is Scale.difference or low >= 0  # type: ignore[operator]
        assert scale is not Scale.share or high <= 1  # type: ignore[operator]


@pytest.mark.parametrize("scale", Scale)
def test_an_interval_is_wider_the_fewer_patients_carry_it(scale: Scale) -> None:
    values = np.r_[0.6, np.random.default_rng(0).normal(0.6, 0.05, 500)]
    widths = [np.ptp(interval(values, carriers, scale)) for carriers in (5, 10, 50, 10_000)]  # type: ignore[arg-type]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == pytest.approx(2 * 1.96 * values[1:].std(), rel=0.05)


def test_what_never_varies_but_could_has_a_point_for_an_interval() -> None:
    """A difference of zero in every resample: the same model twice."""
    assert interval(np.zeros(101), 10, Scale.difference) == (0, 0)
    assert interval(np.ones(101), 10, Scale.positive) == (1, 1)


def test_a_loss_of_nothing_has_no_interval_on_a_scale_without_zero() -> None:
    assert interval(np.zeros(101), 10, Scale.positive) == (None, None)
